//! Time limits of calls, Redis replies and connection attempts, and what is retried.

use std::time::Duration;

use futures_util::future::join_all;
use test_support::client::other_error;
use test_support::proxy::{Disconnect, Proxy};
use test_support::redis::Redis;
use test_support::test_env::{COMPONENT, TestEnv};
use test_support::wait::eventually;
use tokio::net::TcpListener;
use tokio::time::Instant;

// Guarantees: G43
#[tokio::test]
async fn calls_complete_before_the_hosts_rpc_timeout() {
    let generous = ("BACKEND_RESPONSE_TIMEOUT_MS", "60000");
    for milliseconds in [None, Some(1_000), Some(3_000)] {
        let env = TestEnv::builder()
            .rpc_timeout_ms(milliseconds)
            .config(&[generous])
            .start()
            .await;
        let down = Redis::stopped();
        let dead = env
            .link(COMPONENT, "dead", &[("URL", &down.url()), generous])
            .await;
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", silent.local_addr().unwrap());
        let slow = ("BACKEND_CONNECTION_TIMEOUT_MS", "60000");
        let mute = env
            .link(COMPONENT, "mute", &[("URL", &url), generous, slow])
            .await;
        env.client.set("", "k", b"v").await.unwrap();
        env.redis.pause();
        // The time that a host with this setting waits.
        let limit = Duration::from_millis(milliseconds.unwrap_or(2_000));
        let calls = [&env.client, &dead, &mute].map(async |client| {
            let client = client.timeout(limit);
            let pairs = [("k", b"v")];
            let (get, list, set, increment) = tokio::join!(
                client.get("", "k"),
                client.list_keys("", None),
                client.set_many("", &pairs),
                client.increment("", "n", 1),
            );
            [
                other_error(get),
                other_error(list),
                other_error(set),
                other_error(increment),
            ]
        });
        let errors: Vec<String> = join_all(calls).await.concat();
        for error in errors {
            assert!(!error.contains('\n'), "one line: {error}");
        }
        env.redis.resume();
    }
}

// Guarantees: G43
#[tokio::test]
async fn repeated_disconnects_fail_before_the_hosts_rpc_timeout() {
    let env = TestEnv::builder().rpc_timeout_ms(Some(1_000)).start().await;
    let proxy = Proxy::start(env.redis.port()).await;
    let config = [
        ("URL", &*proxy.url()),
        ("BACKEND_RECONNECT_NUM_RETRIES", "1000"),
    ];
    let client = env.link(COMPONENT, "broken", &config).await;
    proxy.disconnect_on("GET", Disconnect::BeforeCommand);
    let error = other_error(
        client
            .timeout(Duration::from_millis(1_000))
            .get("", "k")
            .await,
    );
    assert!(
        error.contains(&proxy.url()),
        "the error does not name the address: {error}"
    );
}

// Guarantees: G43
#[tokio::test]
async fn backend_response_timeout_limits_replies() {
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(120_000))
        .start()
        .await;
    let proxy = Proxy::start(env.redis.port()).await;
    let config = [
        ("URL", &*proxy.url()),
        ("BACKEND_RESPONSE_TIMEOUT_MS", "100"),
    ];
    let client = env
        .link(COMPONENT, "slow", &config)
        .await
        .timeout(Duration::from_secs(120));
    client.set("", "k", b"v").await.unwrap();
    proxy.hold_replies();
    let started = Instant::now();
    let error = other_error(client.increment("", "n", 1).await);
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}: {error}",
        started.elapsed()
    );
    let error = other_error(client.get("", "k").await);
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}: {error}",
        started.elapsed()
    );
    proxy.release();
    eventually("the link recovers", async || {
        client.get("", "k").await.is_ok()
    })
    .await;
}

// Guarantees: G14
#[tokio::test]
async fn backend_connection_timeout_limits_connecting() {
    let env = TestEnv::builder().rpc_timeout_ms(Some(1_500)).start().await;
    let proxy = Proxy::start(env.redis.port()).await;
    proxy.hold_replies();
    let config = [
        ("URL", &*proxy.url()),
        ("BACKEND_CONNECTION_TIMEOUT_MS", "100"),
        ("BACKEND_RESPONSE_TIMEOUT_MS", "60000"),
        ("BACKEND_RECONNECT_MAX_DELAY_MS", "50"),
    ];
    let client = env.link(COMPONENT, "slow", &config).await;
    // With the default of 3 s, only one attempt would fit into this call.
    let error = other_error(client.get("", "k").await);
    assert!(error.contains(&proxy.url()), "{error}");
    assert!(
        proxy.connect_times().len() >= 3,
        "{} attempts",
        proxy.connect_times().len()
    );
    proxy.release();
    eventually("the link connects", async || {
        client.get("", "k").await.is_ok()
    })
    .await;
}

// Guarantees: G14
#[tokio::test]
async fn reconnect_max_delay_limits_the_backoff() {
    let env = TestEnv::start().await;
    let down = Redis::stopped();
    // The proxy accepts connections and closes them, as it has no upstream server.
    let proxy = Proxy::start(down.port()).await;
    let config = [
        ("URL", &*proxy.url()),
        ("BACKEND_RECONNECT_MAX_DELAY_MS", "20"),
    ];
    env.link(COMPONENT, "hasty", &config).await;
    eventually("there have been many attempts", async || {
        proxy.connect_times().len() >= 60
    })
    .await;
    let attempts = proxy.connect_times();
    let took = attempts[59] - attempts[0];
    // At most 1.2 s with 20 ms; more than 8 s with the default of 300 ms.
    assert!(took < Duration::from_secs(5), "60 attempts took {took:?}");
}

// Guarantees: G14
#[tokio::test]
async fn connection_attempts_are_spaced_by_backoff() {
    let env = TestEnv::start().await;
    let down = Redis::stopped();
    let proxy = Proxy::start(down.port()).await;
    let config = [
        ("URL", &*proxy.url()),
        ("BACKEND_RECONNECT_MAX_DELAY_MS", "400"),
    ];
    let client = env.link(COMPONENT, "calm", &config).await;
    let started = Instant::now();
    // Calls do not shorten the delays.
    let patient_client = client.timeout(Duration::from_secs(3));
    join_all((0..50).map(|_| patient_client.get("", "k"))).await;
    let attempts = proxy.connect_times().len();
    assert!(attempts >= 3, "only {attempts} attempts");
    let most = 15 + started.elapsed().as_millis() / 100;
    assert!(
        (attempts as u128) < most,
        "{attempts} attempts in {:?}",
        started.elapsed()
    );
}

// Guarantees: G44
#[tokio::test]
async fn idempotent_operations_are_retried_up_to_the_configured_count() {
    let env = TestEnv::start().await;
    for (retries, attempts) in [("0", 1), ("2", 3), ("", 4)] {
        let proxy = Proxy::start(env.redis.port()).await;
        let mut config = vec![
            ("URL", proxy.url()),
            ("BACKEND_RECONNECT_MAX_DELAY_MS", "10".into()),
        ];
        if !retries.is_empty() {
            config.push(("BACKEND_RECONNECT_NUM_RETRIES", retries.to_owned()));
        }
        let config: Vec<_> = config
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let client = env
            .link(COMPONENT, &format!("retries{retries}"), &config)
            .await;
        proxy.disconnect_on("GET", Disconnect::AfterCommand);
        other_error(client.get("", "k").await);
        assert_eq!(
            proxy.command_count("GET"),
            attempts,
            "BACKEND_RECONNECT_NUM_RETRIES={retries:?}"
        );
    }
}

// Guarantees: G44
#[tokio::test]
async fn idempotent_operations_survive_a_disconnect_before_the_reply() {
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(60_000))
        .start()
        .await;
    let proxy = Proxy::start(env.redis.port()).await;
    let url = ("URL", &*proxy.url());
    let lasting = env.link(COMPONENT, "cut", &[url]).await;
    let passing = env
        .link(COMPONENT, "cut too", &[url, ("TTL_MS", "500000")])
        .await;
    lasting.set("b", "k", b"v").await.unwrap();
    for function in 0..9 {
        let client = if function == 5 { &passing } else { &lasting }.clone();
        // The connection must be established, as the hold would also stop a handshake.
        client.exists("b", "k").await.unwrap();
        proxy.hold_replies();
        let before = proxy.total_commands();
        let call = tokio::spawn(async move {
            let pairs = [("k", b"v")];
            match function {
                0 => client
                    .get("b", "k")
                    .await
                    .map(|value| assert_eq!(value, Some(b"v".into()))),
                1 => client.set("b", "k", b"v").await,
                2 => client.exists("b", "k").await.map(|exists| assert!(exists)),
                3 => client.keys("b").await.map(|keys| assert_eq!(keys, ["k"])),
                4 => client
                    .get_many("b", &["k"])
                    .await
                    .map(|found| assert!(found[0].is_some())),
                5 | 6 => client.set_many("b", &pairs).await,
                7 => client.delete("b", "k").await,
                _ => client.delete_many("b", &["k"]).await,
            }
        });
        eventually("the command is sent", async || {
            proxy.total_commands() > before
        })
        .await;
        proxy.disconnect_all();
        proxy.release();
        assert_eq!(call.await.unwrap(), Ok(()), "function {function}");
    }
}

// Guarantees: G44
#[tokio::test]
async fn a_sent_increment_is_never_retried() {
    let env = TestEnv::start().await;
    let proxy = Proxy::start(env.redis.port()).await;
    let client = env.link(COMPONENT, "cut", &[("URL", &proxy.url())]).await;
    assert_eq!(client.increment("", "n", 1).await, Ok(1));
    for command in [
        "INCRBY", "INCR", "EVAL", "EVALSHA", "FCALL", "EXEC", "MULTI",
    ] {
        proxy.disconnect_on(command, Disconnect::AfterCommand);
    }
    for round in 2..7 {
        let error = other_error(client.increment("", "n", 1).await);
        assert!(!error.is_empty());
        let count: u64 = env.redis.command(&["GET", "n"]).await;
        assert!(count <= round, "counted twice: {count} after {round} calls");
    }
}

// Guarantees: G43
#[tokio::test]
async fn max_wait_ms_makes_calls_fail_fast_while_redis_is_away() {
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(60_000))
        .start()
        .await;
    let down = Redis::stopped();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("redis://{}", silent.local_addr().unwrap());
    for (name, url) in [("down", &*down.url()), ("silent", &*silent)] {
        let config = [
            ("URL", url),
            ("MAX_WAIT_MS", "200"),
            ("BACKEND_CONNECTION_TIMEOUT_MS", "30000"),
        ];
        let client = env.link(COMPONENT, name, &config).await;
        let client = client.timeout(Duration::from_secs(60));
        let begun = Instant::now();
        let error = other_error(client.get("", "k").await);
        // The call alone would wait for nearly a minute.
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{name}: {:?}: {error}",
            begun.elapsed()
        );
        assert!(error.contains(url), "{error}");
    }
}

// Guarantees: G43
#[tokio::test]
async fn max_wait_ms_limits_the_wait_for_a_free_slot() {
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(60_000))
        .start()
        .await;
    let proxy = Proxy::start(env.redis.port()).await;
    let config = [
        ("URL", &*proxy.url()),
        ("MAX_IN_FLIGHT", "1"),
        ("MAX_WAIT_MS", "200"),
        ("BACKEND_RESPONSE_TIMEOUT_MS", "60000"),
    ];
    let client = env.link(COMPONENT, "narrow", &config).await;
    let client = client.timeout(Duration::from_secs(60));
    client.set("", "k", b"v").await.unwrap();
    proxy.hold_replies();
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.get("", "k").await }
    });
    eventually("the first call is held", async || proxy.has_held_replies()).await;
    let begun = Instant::now();
    let error = other_error(client.get("", "k").await);
    assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
    assert!(error.contains("slot"), "{error}");
    proxy.release();
    assert_eq!(first.await.unwrap(), Ok(Some(b"v".to_vec())));
}
