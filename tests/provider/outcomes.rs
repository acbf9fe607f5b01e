//! The outcome of a failed write: an error that does not say "may or may not have been carried out"
//! means that nothing was.

// Guarantees: G59

use std::time::Duration;

use rustix::process::Signal;
use test_support::client::{Client, Error, other_error};
use test_support::host::Link;
use test_support::proxy::{Disconnect, Proxy};
use test_support::test_env::{COMPONENT, TestEnv};
use test_support::wait::eventually;

const AMBIGUOUS: &str = "may or may not have been carried out";

/// The errors of every write, each about keys of its own.
async fn write_errors(client: &Client) -> Vec<(&'static str, Error)> {
    let pair = [("m", &b"v"[..])];
    vec![
        ("set", client.set("", "s", b"v").await.unwrap_err()),
        ("delete", client.delete("", "d").await.unwrap_err()),
        ("increment", client.increment("", "i", 1).await.unwrap_err()),
        ("set-many", client.set_many("", &pair).await.unwrap_err()),
        (
            "delete-many",
            client.delete_many("", &["e"]).await.unwrap_err(),
        ),
    ]
}

fn assert_ambiguous(errors: &[(&str, Error)]) {
    for (function, error) in errors {
        let says = matches!(error, Error::Other(text) if text.contains(AMBIGUOUS));
        assert!(says, "{function}: {error:?}");
    }
}

async fn proxied(env: &TestEnv, config: &[(&str, &str)]) -> (Proxy, Client) {
    let proxy = Proxy::start(env.redis.port()).await;
    let url = proxy.url();
    let config = [&[("URL", &*url)], config].concat();
    let client = env.link(COMPONENT, &proxy.url(), &config).await;
    client.set("", "warm", b"v").await.unwrap();
    (proxy, client)
}

#[tokio::test]
async fn a_write_whose_connection_is_lost_is_ambiguous() {
    let env = TestEnv::start().await;
    for ttl in [None, Some(("TTL_MS", "500000"))] {
        let mut config = vec![("BACKEND_RECONNECT_NUM_RETRIES", "0")];
        config.extend(ttl);
        let (proxy, client) = proxied(&env, &config).await;
        client.increment("", "warm-up", 1).await.unwrap();
        client.set_many("", &[("w", b"v")]).await.unwrap();
        for command in ["SET", "DEL", "EVALSHA", "MSET", "EXEC"] {
            proxy.disconnect_on(command, Disconnect::AfterCommand);
        }
        assert_ambiguous(&write_errors(&client).await);
        proxy.disconnect_on("GET", Disconnect::AfterCommand);
        let error = other_error(client.get("", "s").await);
        assert!(!error.contains(AMBIGUOUS), "a read: {error}");
    }
}

#[tokio::test]
async fn a_write_without_a_reply_in_time_is_ambiguous() {
    let env = TestEnv::start().await;
    let (proxy, client) = proxied(&env, &[("BACKEND_RESPONSE_TIMEOUT_MS", "100")]).await;
    proxy.hold_replies();
    let error = other_error(client.set("", "s", b"v").await);
    assert!(error.contains(AMBIGUOUS), "{error}");
    proxy.release();
}

#[tokio::test]
async fn a_write_that_was_sent_before_the_connection_stayed_away_is_ambiguous() {
    let mut env = TestEnv::start().await;
    let (proxy, client) = proxied(&env, &[]).await;
    proxy.disconnect_on("SET", Disconnect::AfterCommand);
    proxy.hold_replies();
    let write = tokio::spawn({
        let client = client.clone();
        async move { other_error(client.set("", "s", b"v").await) }
    });
    eventually("the write has reached the proxy", async || {
        proxy.command_count("SET") > 1
    })
    .await;
    env.redis.stop();
    proxy.release();
    let error = write.await.unwrap();
    assert!(error.contains(AMBIGUOUS), "{error}");
}

#[tokio::test]
async fn a_write_that_is_in_flight_at_shutdown_is_ambiguous() {
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(30_000))
        .start()
        .await;
    let config = [("BACKEND_RESPONSE_TIMEOUT_MS", "30000")];
    let (proxy, client) = proxied(&env, &config).await;
    client.increment("", "warm-up", 1).await.unwrap();
    let client = client.timeout(Duration::from_secs(30));
    proxy.hold_replies();
    let count = tokio::spawn(async move { other_error(client.increment("", "n", 1).await) });
    eventually("the increment is held", async || proxy.has_held_replies()).await;
    env.provider.signal(Signal::TERM);
    let error = count.await.unwrap();
    assert!(error.contains(AMBIGUOUS), "{error}");
    let counted: String = env.redis.command(&["GET", "n"]).await;
    assert_eq!(counted, "1", "it was counted");
}

// Guarantees: G6
#[tokio::test]
async fn a_transaction_of_which_the_acl_forbids_a_part_changes_nothing() {
    for forbidden in ["-multi", "-exec", "-set"] {
        let env = TestEnv::builder().unlinked().start().await;
        let rules = [
            "ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", forbidden,
        ];
        let () = env.redis.command(&rules).await;
        let link = Link::new("c", "default")
            .config(&[("URL", &env.redis.url()), ("TTL_MS", "500000")])
            .secrets(&[("USERNAME", "app"), ("PASSWORD", "pw")]);
        let client = env.add_link(&link).await;
        for _ in 0..2 {
            let pairs: [(&str, &[u8]); 2] = [("k", b"1"), ("l", b"2")];
            let refused = client.set_many("", &pairs).await;
            assert_eq!(refused, Err(Error::AccessDenied), "{forbidden}");
            let keys: Vec<String> = env.redis.command(&["KEYS", "*"]).await;
            assert!(keys.is_empty(), "{forbidden}: {keys:?}");
            // The connection is not left within a transaction.
            assert_eq!(client.get("", "k").await, Ok(None), "{forbidden}");
        }
    }
}

// Guarantees: G5
#[tokio::test]
async fn an_increment_of_which_the_acl_forbids_a_part_leaves_no_key() {
    for forbidden in ["-pexpire", "-pttl", "-incrby", "-get"] {
        let env = TestEnv::builder().unlinked().start().await;
        let rules = [
            "ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", forbidden,
        ];
        let () = env.redis.command(&rules).await;
        let link = Link::new("c", "default")
            .config(&[("URL", &env.redis.url()), ("TTL_MS", "500000")])
            .secrets(&[("USERNAME", "app"), ("PASSWORD", "pw")]);
        let client = env.add_link(&link).await;
        // A large one is read back by GET.
        let delta = (1 << 53) + 1;
        let refused = client.increment("", "n", delta).await;
        assert_eq!(refused, Err(Error::AccessDenied), "{forbidden}");
        let keys: Vec<String> = env.redis.command(&["KEYS", "*"]).await;
        assert!(keys.is_empty(), "{forbidden}: {keys:?}");
    }
}

// Guarantees: G6
#[tokio::test]
async fn a_batch_with_more_words_than_redis_accepts_is_refused_before_it_is_sent() {
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(60_000))
        .start()
        .await;
    let client = env.client.timeout(Duration::from_secs(60));
    let keys: Vec<String> = (0..600_000).map(|n| n.to_string()).collect();
    let pairs: Vec<(&str, &[u8])> = keys.iter().map(|key| (key.as_str(), &b""[..])).collect();
    let error = other_error(client.set_many("", &pairs).await);
    assert!(error.contains("too many keys"), "{error}");
    assert!(!error.contains(AMBIGUOUS), "{error}");
    assert_eq!(env.redis.calls("mset").await, 0);
    drop(pairs);
    let many: Vec<&str> = keys
        .iter()
        .cycle()
        .take(1 << 20)
        .map(String::as_str)
        .collect();
    let error = other_error(client.get_many("", &many).await);
    assert!(error.contains("too many keys"), "{error}");
    assert_eq!(env.redis.calls("mget").await, 0);
}
