//! Malformed messages on the provider's subjects cause a logged warning and no harm.

// Guarantees: G48

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::future::join_all;
use test_support::client::FUNCTIONS;
use test_support::codec::{bucket_and_key, put_bytes, put_number};
use test_support::test_env::TestEnv;
use test_support::values::bytes;
use tokio::time::Instant;

#[tokio::test]
async fn truncated_parameters_are_harmless() {
    let env = TestEnv::start().await;
    let mut whole = bucket_and_key("bucket", "key");
    put_bytes(&mut whole, b"value");
    for (interface, function) in FUNCTIONS {
        for length in 0..whole.len() - 6 {
            // With the empty message that ends the parameters.
            send(&env, interface, function, &whole[..length]).await;
        }
        env.client.set("", "k", b"v").await.unwrap();
    }
    assert_serves(&env).await;
    env.provider.wait_for_log(&["WARN"]).await;
}

#[tokio::test]
async fn claimed_lengths_do_not_allocate_memory() {
    let mut env = TestEnv::start().await;
    let mut claims = Vec::new();
    for length in [
        u64::from(u32::MAX),
        1 << 31,
        1 << 40,
        u64::MAX,
        0x7fff_ffff,
        600 << 20,
    ] {
        let mut bucket = Vec::new();
        put_number(&mut bucket, length);
        let mut second = bucket_and_key("b", "")[..2].to_vec();
        put_number(&mut second, length);
        let mut third = bucket_and_key("b", "k");
        put_number(&mut third, length);
        let mut item = b"\x01b\x01".to_vec();
        put_number(&mut item, length);
        for claim in [bucket, second, third, item] {
            claims.push(claim.clone());
            claims.push([&claim[..], b"x"].concat());
        }
    }
    // Numbers without an end, or beyond 64 bits.
    claims.push(vec![0xff; 20]);
    claims.push(vec![0x80; 2_000]);
    claims.push([&b"\x01b\x01k"[..], &[0xff; 20]].concat());
    claims.push([&b"\x01b"[..], &[0x80; 20]].concat());
    // Invalid UTF-8, and an invalid option tag.
    claims.push(b"\x02\xff\xfe\x01k\x01v".to_vec());
    claims.push(b"\x01b\x02\xc3\x28\x01v".to_vec());
    claims.push(b"\x01b\x07\x01".to_vec());
    for (interface, function) in FUNCTIONS {
        for claim in &claims {
            send(&env, interface, function, claim).await;
        }
    }
    assert_serves(&env).await;
    let peak = peak_memory(&env);
    assert!(peak < 300, "claimed lengths took {peak} MiB of memory");
    env.provider.wait_for_log(&["WARN"]).await;
    let lines = env.provider.stop_and_count_log(&[]).await;
    assert!(lines < 2_000, "{lines} lines");
}

#[tokio::test]
async fn random_bytes_are_harmless() {
    let env = TestEnv::start().await;
    for round in 0..40 {
        for (i, (interface, function)) in FUNCTIONS.into_iter().enumerate() {
            send(&env, interface, function, &bytes(round * 9 + i)).await;
        }
    }
    assert_serves(&env).await;
}

#[tokio::test]
async fn bytes_after_the_parameters_are_harmless() {
    let env = TestEnv::start().await;
    let mut params = bucket_and_key("", "k");
    params.extend(bytes(1_000));
    send(&env, "store", "get", &params).await;
    params.extend(bytes(3 << 20));
    send(&env, "store", "get", &params).await;
    assert_serves(&env).await;
}

#[tokio::test]
async fn a_call_without_a_reply_subject_is_dropped() {
    let env = TestEnv::start().await;
    let mut headers = HeaderMap::new();
    headers.insert("source-id", "counter");
    for (interface, function) in FUNCTIONS {
        let subject = env.client.subject(interface, function);
        let params: Bytes = bucket_and_key("", "k").into();
        let nats = env.host.nats();
        nats.publish(subject.clone(), params.clone()).await.unwrap();
        nats.publish_with_headers(subject.clone(), headers.clone(), params)
            .await
            .unwrap();
        nats.publish(subject, Bytes::new()).await.unwrap();
    }
    assert_serves(&env).await;
    env.provider.wait_for_log(&["WARN"]).await;
}

#[tokio::test]
async fn a_reply_subject_of_the_provider_itself_is_harmless() {
    let env = TestEnv::start().await;
    let subject = env.client.subject("store", "get");
    let nats = env.host.nats();
    for reply in [
        subject.clone(),
        env.client.subject("store", "set"),
        "a".to_owned(),
    ] {
        let params = bucket_and_key("", "k").into();
        nats.publish_with_reply(subject.clone(), reply, params)
            .await
            .unwrap();
    }
    assert_serves(&env).await;
}

#[tokio::test]
async fn unknown_functions_and_interfaces_are_harmless() {
    let env = TestEnv::start().await;
    let prefix = env.client.subject("store", "get");
    let (prefix, _) = prefix.split_once("wrpc:keyvalue").unwrap();
    let inbox = env.host.nats().new_inbox();
    for rest in [
        "wrpc:keyvalue/store@0.2.0-draft.frobnicate",
        "wrpc:keyvalue/store@0.2.0-draft",
        "wrpc:keyvalue/store@0.2.0-draft2.get",
        "wrpc:keyvalue/store@0.3.0.get",
        "wrpc:keyvalue/watcher@0.2.0-draft.on-set",
        "wrpc:keyvalue/atomics@0.2.0-draft.get",
        "x",
        "a.b.c.d.e.f",
    ] {
        let params = bucket_and_key("", "k").into();
        let subject = format!("{prefix}{rest}");
        env.host
            .nats()
            .publish_with_reply(subject, inbox.clone(), params)
            .await
            .unwrap();
    }
    assert_serves(&env).await;
}

#[tokio::test]
async fn callers_that_abandon_a_call_do_not_block_others() {
    let env = TestEnv::builder().rpc_timeout_ms(Some(1_000)).start().await;
    let mut half = bucket_and_key("", "k");
    put_number(&mut half, 100 << 20);
    half.extend(bytes(1_000));
    for _ in 0..50 {
        for (interface, function) in FUNCTIONS {
            let subject = env.client.subject(interface, function);
            let inbox = env.host.nats().new_inbox();
            let half = Bytes::from(half.clone());
            env.host
                .nats()
                .publish_with_reply(subject, inbox, half)
                .await
                .unwrap();
        }
    }
    assert_serves(&env).await;
    // The same after the deadline of the abandoned calls.
    let gone = env
        .client
        .timeout(Duration::from_millis(1_500))
        .max_frame(1);
    let _ = gone.get("", &"k".repeat(200)).await;
    assert_serves(&env).await;
    assert!(peak_memory(&env) < 300, "{} MiB", peak_memory(&env));
}

#[tokio::test]
async fn abandoned_memory_reservations_do_not_starve_others() {
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(60_000))
        .start()
        .await;
    // The claims exceed MAX_BYTES_IN_FLIGHT in total, and fill it to the last few bytes.
    for shift in (6..27).rev() {
        for _ in 0..4 {
            let mut half = bucket_and_key("", "k");
            put_number(&mut half, 1 << shift);
            let nats = env.host.nats();
            let (subject, inbox) = (env.client.subject("store", "set"), nats.new_inbox());
            nats.publish_with_reply(subject, inbox, half.into())
                .await
                .unwrap();
        }
    }
    let started = Instant::now();
    env.client.set("after", "k", bytes(1_000)).await.unwrap();
    let took = started.elapsed();
    assert!(
        took < Duration::from_secs(1),
        "a complete call had to wait: {took:?}"
    );
    // A call whose parameters arrive in several messages may have to wait until the claims expire.
    env.client.set("after", "k", bytes(2 << 20)).await.unwrap();
    assert_eq!(env.client.get("after", "k").await, Ok(Some(bytes(2 << 20))));
}

#[tokio::test]
async fn malformed_messages_do_not_disturb_concurrent_calls() {
    let env = TestEnv::start().await;
    let junk = async {
        for round in 0..100 {
            let (interface, function) = FUNCTIONS[round % 9];
            send(&env, interface, function, &bytes(round)).await;
        }
    };
    let calls = join_all((0..100).map(async |i| {
        let key = format!("k{i}");
        env.client.set("own", &key, &key).await.unwrap();
        assert_eq!(
            env.client.get("own", &key).await,
            Ok(Some(key.into_bytes()))
        );
    }));
    tokio::join!(junk, calls);
}

/// Sends a call with these parameters and their end, and discards any response.
async fn send(env: &TestEnv, interface: &str, function: &str, params: &[u8]) {
    let client = env.client.timeout(Duration::from_millis(20));
    let _ = client
        .call::<()>(interface, function, params.to_vec())
        .await;
}

/// Asserts that all functions still succeed.
async fn assert_serves(env: &TestEnv) {
    let c = &env.client;
    c.set("after", "k", b"1").await.unwrap();
    assert_eq!(c.get("after", "k").await, Ok(Some(b"1".to_vec())));
    assert_eq!(c.increment("after", "k", 1).await, Ok(2));
    assert_eq!(c.exists("after", "k").await, Ok(true));
    c.list_keys("after", None).await.unwrap();
    c.set_many("after", &[("l", b"1")]).await.unwrap();
    assert_eq!(c.get_many("after", &["l"]).await.unwrap().len(), 1);
    c.delete("after", "k").await.unwrap();
    c.delete_many("after", &["l"]).await.unwrap();
    assert!(env.host.health().await.unwrap().healthy);
}

/// The peak resident memory of the provider, in MiB.
fn peak_memory(env: &TestEnv) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", env.provider.id())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    let kibibytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kibibytes / 1024
}
