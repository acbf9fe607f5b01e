//! Addresses: every URL form, and the user and password that are used with it.

use std::net::TcpListener;

use test_support::client::other_error;
use test_support::host::Link;
use test_support::redis::Redis;
use test_support::test_env::TestEnv;

// Guarantees: G18
#[tokio::test]
async fn username_and_password_override_the_url() {
    let env = TestEnv::builder().unlinked().start().await;
    let () = env
        .redis
        .command(&["ACL", "SETUSER", "app", "on", ">p@ss:w/rd%", "~*", "+@all"])
        .await;
    let host = format!("127.0.0.1:{}", env.redis.port());
    let encoded = format!("redis://app:p%40ss%3Aw%2Frd%25@{host}");
    let wrong = format!("redis://nobody:wrong@{host}");
    let half = format!("redis://app@{host}");
    let credentials = [("USERNAME", "app"), ("PASSWORD", "p@ss:w/rd%")];
    for (name, link) in [
        (
            "in the URL",
            Link::new("c", "1").config(&[("URL", &encoded)]),
        ),
        (
            "both set",
            Link::new("c", "2")
                .config(&[("URL", &wrong)])
                .config(&credentials),
        ),
        (
            "as secrets",
            Link::new("c", "3")
                .config(&[("URL", &wrong)])
                .secrets(&credentials),
        ),
        (
            "half each",
            Link::new("c", "4")
                .config(&[("URL", &half)])
                .secrets(&credentials[1..]),
        ),
    ] {
        env.add_link(&link).await.set("", "k", b"v").await.unwrap();
        let clients = env.redis.kvredis_clients().await;
        assert!(
            clients.iter().all(|client| client["user"] == "app"),
            "{name}: {clients:?}"
        );
    }
}

// Guarantees: G18
#[tokio::test]
async fn provider_credentials_are_not_sent_to_a_links_own_url() {
    let env = TestEnv::builder()
        .unlinked()
        .redis(Redis::with_password("provider-password").await)
        .provider_secrets(&[("PASSWORD", "provider-password")])
        .start()
        .await;
    let open = Redis::start().await;
    // A server without a password rejects AUTH, so the link works only without sending it.
    let own = Link::new("c", "own").config(&[("URL", &open.url())]);
    env.add_link(&own).await.set("", "k", b"v").await.unwrap();
    let borrowed = Link::new("c", "borrowed").config(&[("URL", &env.redis.url())]);
    let error = other_error(env.add_link(&borrowed).await.get("", "k").await);
    assert!(
        error.contains("NOAUTH"),
        "the provider's password was sent: {error}"
    );
    let own = Link::new("c", "whole")
        .config(&[("URL", &env.redis.url())])
        .secrets(&[("PASSWORD", "provider-password")]);
    env.add_link(&own).await.set("", "k", b"v").await.unwrap();
}

// Guarantees: G18
#[tokio::test]
async fn a_link_without_a_url_uses_the_providers_address_and_credentials() {
    let redis = Redis::with_password("provider-password").await;
    let env = TestEnv::builder()
        .unlinked()
        .provider_config(&[("URL", &redis.url_of(2))])
        .provider_secrets(&[("PASSWORD", "provider-password")])
        .redis(redis)
        .start()
        .await;
    env.add_link(&Link::new("c", "default"))
        .await
        .set("", "k", b"v")
        .await
        .unwrap();
    assert_eq!(env.redis.command_in::<String>(2, &["GET", "k"]).await, "v");
}

// Guarantees: G18
#[tokio::test]
async fn the_default_address_is_localhost_6379() {
    let env = TestEnv::builder()
        .unlinked()
        .rpc_timeout_ms(Some(1_000))
        .start()
        .await;
    let client = env.add_link(&Link::new("c", "default")).await;
    if TcpListener::bind("127.0.0.1:6379").is_ok() {
        let error = other_error(client.get("", "k").await);
        assert!(error.contains("redis://127.0.0.1:6379"), "{error}");
    } else {
        eprintln!("127.0.0.1:6379 is in use: only the log is checked");
    }
}

// Guarantees: G27
#[tokio::test]
async fn every_url_form_is_supported() {
    let env = TestEnv::builder().unlinked().start().await;
    env.redis.number_databases().await;
    let port = env.redis.port();
    let socket = env.redis.socket().display().to_string();
    let mut addresses = vec![
        (format!("redis://127.0.0.1:{port}"), "0"),
        (format!("redis://127.0.0.1:{port}/"), "0"),
        (format!("redis://127.0.0.1:{port}/3"), "3"),
        (format!("redis://localhost:{port}/4"), "4"),
        (format!("valkey://127.0.0.1:{port}/5"), "5"),
        (format!("redis+unix://{socket}"), "0"),
        (format!("redis+unix://{socket}?db=6"), "6"),
        (format!("valkey+unix://{socket}?db=7"), "7"),
        (format!("redis://0.0.0.0:{port}/8"), "8"),
    ];
    if TcpListener::bind("[::1]:0").is_ok() {
        addresses.push((format!("redis://[::1]:{port}/9"), "9"));
        addresses.push((format!("redis://[::]:{port}/10"), "10"));
    }
    for (i, (address, database)) in addresses.iter().enumerate() {
        let link = Link::new("c", &i.to_string()).config(&[("URL", address)]);
        let client = env.add_link(&link).await;
        assert_eq!(client.database().await, *database, "{address}");
    }
    env.provider.wait_for_log(&["WARN", "0.0.0.0"]).await;
}

// Guarantees: G27
#[tokio::test]
async fn unix_sockets_support_authentication() {
    let env = TestEnv::builder()
        .unlinked()
        .redis(Redis::with_password("socket-password").await)
        .start()
        .await;
    let url = format!("redis+unix://{}", env.redis.socket().display());
    let link = Link::new("c", "default")
        .config(&[("URL", &url)])
        .secrets(&[("PASSWORD", "socket-password")]);
    env.add_link(&link).await.set("", "k", b"v").await.unwrap();
}
