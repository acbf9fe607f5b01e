//! Passwords and stored data appear in no log, at any level, and in no error.

// Guarantees: G51

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use test_support::client::{Client, other_error};
use test_support::host::Link;
use test_support::malformed_urls::malformed_urls;
use test_support::provider::kvredis_binary;
use test_support::redis::Redis;
use test_support::test_env::TestEnv;
use test_support::wait::eventually;
use tokio::process::Command;
use wasmcloud_provider_sdk::core::logging::Level;

/// Parts of passwords, in every form in which they might appear.
const SECRET_PARTS: [&str; 4] = ["hunter2", "sw0rdfish", "s%40lt", "s@lt"];

#[tokio::test]
async fn passwords_appear_in_no_log_and_no_error() {
    for structured in [false, true] {
        let redis = Redis::with_password("hunter2s@lt").await;
        let url = redis
            .url()
            .replace("redis://", "redis://default:hunter2s%40lt@");
        let env = TestEnv::builder()
            .unlinked()
            .redis(redis)
            .rpc_timeout_ms(Some(1_000));
        let config = [("URL", &*url), ("PASSWORD.own", "hunter2s@lt")];
        let mut env = env
            .provider_config(&config)
            .provider_secrets(&[("SCAN_COUNT.x", "sw0rdfish")])
            .data(move |data| {
                data.log_level = Some(Level::Trace);
                data.structured_logging = structured;
            })
            .start()
            .await;
        let wrong = env
            .redis
            .url()
            .replace("redis://", "redis://default:sw0rdfish@");
        let garbled = "redis://default:sw0rdfish@127.0.0.1:port";
        let bare = "default:sw0rdfish@127.0.0.1:6379";
        let down = Redis::stopped()
            .url()
            .replace("redis://", "redis://default:sw0rdfish@");
        let scan = ("SCAN_COUNT", "10");
        let links = [
            Link::new("c", "inherits").config(&[scan]),
            Link::new("c", "inherits wrongly"),
            Link::new("c", "config").config(&[("URL", &url), scan]),
            Link::new("c", "secret").secrets(&[("URL", &url), scan]),
            Link::new("c", "bytes")
                .secret_bytes("URL", url.as_bytes())
                .config(&[scan]),
            Link::new("c", "wrong").secrets(&[("URL", &wrong), scan]),
            Link::new("c", "wrong config").config(&[("URL", &wrong), scan]),
            Link::new("c", "garbled").secrets(&[("URL", garbled), scan]),
            Link::new("c", "garbled config").config(&[("URL", garbled), scan]),
            Link::new("c", "bare").secrets(&[("URL", bare), scan]),
            Link::new("c", "bare config").config(&[("URL", bare), scan]),
            Link::new("c", "down").config(&[("URL", &down), scan]),
            Link::new("c", "typo").secrets(&[("PASWORD", "sw0rdfish"), scan]),
        ];
        let mut clients = Vec::new();
        for link in &links {
            clients.push(env.add_link(link).await);
        }
        for error in join_all(clients.iter().map(errors)).await.concat() {
            assert_no_secret(&error);
        }
        for link in &links {
            env.host.put(link).await;
        }
        env.host
            .update_config(&[("URL", &wrong), ("PASSWORD", "sw0rdfish")])
            .await;
        for payload in [&b"{\"PASSWORD\": \"sw0rdfish\""[..], b"[\"sw0rdfish\"]"] {
            env.host.put_payload(payload.to_vec()).await;
            env.host.update_config_payload(payload.to_vec()).await;
            env.host.delete_payload(payload.to_vec()).await;
        }
        let client = env.client.component("c", "inherits");
        eventually("the new password is used", async || {
            client.get("", "k").await.is_err()
        })
        .await;
        env.redis.stop();
        for error in join_all(clients.iter().map(errors)).await.concat() {
            assert_no_secret(&error);
        }
        for link in &links {
            env.host.delete(link.component(), link.name()).await;
        }
        env.host.shutdown().await.unwrap();
        env.provider.wait().await;
        env.provider
            .log()
            .iter()
            .for_each(|line| assert_no_secret(line));
    }
}

#[tokio::test]
async fn host_data_keys_are_not_logged() {
    let mut env = TestEnv::builder()
        .data(|data| data.log_level = Some(Level::Trace))
        .start()
        .await;
    let seed = env.host.data().provider_xkey_private_key;
    env.client.set("", "k", b"v").await.unwrap();
    assert_eq!(env.provider.stop_and_count_log(&[&seed]).await, 0);
}

#[tokio::test]
async fn stored_data_appears_in_no_error_and_no_log() {
    let mut env = TestEnv::builder()
        .data(|data| data.log_level = Some(Level::Trace))
        .start()
        .await;
    let data = "stored-data-of-somebody";
    env.client.set("", "text", data).await.unwrap();
    let _: redis::Value = env.redis.command(&["RPUSH", "list", data]).await;
    env.client.get("", "text").await.unwrap();
    env.client.get_many("", &["text", "list"]).await.unwrap();
    for error in [
        other_error(env.client.increment("", "text", 1).await),
        other_error(env.client.increment("", "list", 1).await),
        other_error(env.client.get("", "list").await),
    ] {
        assert!(!error.contains(data), "{error}");
    }
    env.client.set_many("", &[("text", data)]).await.unwrap();
    assert_eq!(env.provider.stop_and_count_log(&[data]).await, 0);
}

/// Nothing of a URL is shown that was not recognized, because it can be a password.
#[tokio::test]
async fn malformed_urls_are_shown_nowhere() {
    let marker = "MarkerOfPassword";
    let urls = malformed_urls(marker);
    let mut env = TestEnv::builder()
        .unlinked()
        .data(|data| data.log_level = Some(Level::Trace))
        .start()
        .await;
    for (i, url) in urls.iter().enumerate() {
        for link in [
            Link::new("config", &i.to_string()).config(&[("URL", url)]),
            Link::new("secret", &i.to_string()).secrets(&[("URL", url)]),
        ] {
            let error = other_error(env.add_link(&link).await.get("", "k").await);
            assert!(error.contains("URL"), "{url}: {error}");
            assert!(!error.contains(marker), "{url}: {error}");
        }
    }
    let health = env.host.health().await.unwrap();
    let health = health.message.unwrap_or_default();
    assert!(!health.contains(marker), "{health}");
    assert_eq!(env.provider.stop_and_count_log(&[marker]).await, 0);
    let checks = urls.iter().map(|url| async move {
        let setting = format!("URL={url}");
        let mut check = Command::new(kvredis_binary());
        check
            .args(["check", &setting])
            .env_clear()
            .kill_on_drop(true);
        let output = check.output().await.unwrap();
        assert_eq!(output.status.code(), Some(1), "{url}");
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap())
    });
    let printed: Vec<_> = stream::iter(checks).buffered(8).collect().await;
    for text in printed.concat() {
        assert!(!text.contains(marker), "{text}");
    }
}

/// The errors of a few failing calls.
async fn errors(client: &Client) -> Vec<String> {
    let (get, increment) = tokio::join!(client.get("", "k"), client.increment("", "n", 1));
    let errors = [get.err(), increment.err()];
    errors
        .into_iter()
        .flatten()
        .map(|error| error.to_string())
        .collect()
}

fn assert_no_secret(text: &str) {
    for part in SECRET_PARTS {
        assert!(!text.contains(part), "{part} is in: {text}");
    }
}
