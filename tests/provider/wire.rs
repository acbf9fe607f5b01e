//! The wire protocol: the messages of a call, and missing headers.

// Guarantees: G10

use async_nats::HeaderMap;
use test_support::client::{Error, other_error};
use test_support::codec::{bucket_and_key, decode_all};
use test_support::test_env::{COMPONENT, TestEnv};
use test_support::values::bytes;

#[tokio::test]
async fn a_response_is_a_handshake_the_result_and_an_empty_message() {
    let env = TestEnv::start().await;
    let max_payload = env.host.nats().server_info().max_payload;
    for length in [
        0,
        1,
        100,
        max_payload - 1,
        max_payload,
        max_payload + 1,
        3 * max_payload,
    ] {
        let value = bytes(length);
        env.client.set("", "k", &value).await.unwrap();
        let result = env
            .client
            .exchange("store", "get", bucket_and_key("", "k"))
            .await
            .unwrap();
        assert!(result.handshake.is_empty(), "the handshake has a payload");
        let (end, pieces) = result.frames.split_last().unwrap();
        assert!(end.is_empty());
        assert!(
            pieces
                .iter()
                .all(|piece| (1..=max_payload).contains(&piece.len()))
        );
        assert!(
            pieces.len() <= length / max_payload + 2,
            "{} pieces",
            pieces.len()
        );
        let result = decode_all::<Result<Option<Vec<u8>>, Error>>(&pieces.concat());
        assert!(result == Ok(Ok(Some(value))), "{length} bytes were changed");
    }
}

#[tokio::test]
async fn parameters_may_be_split_at_any_size() {
    let env = TestEnv::start().await;
    for piece in [0, 1, 2, 7] {
        // An empty first message is valid, too.
        let client = if piece == 0 {
            env.client.clone()
        } else {
            env.client.max_frame(piece)
        };
        client.set("bücket", "kéy", b"value").await.unwrap();
        assert_eq!(
            client.get("bücket", "kéy").await,
            Ok(Some(b"value".to_vec()))
        );
        assert_eq!(client.increment("b", "n", 300).await, Ok(300));
        client
            .set_many("b", &[("x", b"1"), ("y", b"2")])
            .await
            .unwrap();
        assert_eq!(client.keys("b").await.unwrap(), ["n", "x", "y"]);
        client.delete_many("b", &["n", "x", "y"]).await.unwrap();
    }
    let value = bytes(300_000);
    env.client
        .max_frame(1_000)
        .set("", "k", &value)
        .await
        .unwrap();
    assert!(env.client.get("", "k").await == Ok(Some(value)));
}

// Guarantees: G12
#[tokio::test]
async fn a_call_without_a_link_name_uses_the_default_link() {
    let env = TestEnv::start().await;
    let mut headers = HeaderMap::new();
    headers.insert("source-id", COMPONENT);
    env.client
        .headers(headers)
        .set("", "k", b"v")
        .await
        .unwrap();
    assert_eq!(env.client.get("", "k").await, Ok(Some(b"v".to_vec())));
}

// Guarantees: G12
#[tokio::test]
async fn a_call_without_a_component_fails_with_an_error() {
    let env = TestEnv::start().await;
    let mut headers = HeaderMap::new();
    headers.insert("link-name", "default");
    for headers in [headers, HeaderMap::new()] {
        let client = env.client.headers(headers);
        let error = other_error(client.get("", "k").await);
        assert!(error.contains("component"), "{error}");
    }
}
