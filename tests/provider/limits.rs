//! The limits `READ_ONLY`, `MAX_VALUE_BYTES`, `MAX_IN_FLIGHT`, `MAX_WAITING` and
//! `MAX_BYTES_IN_FLIGHT`.

// Guarantees: G47

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use test_support::client::{Client, Error, other_error};
use test_support::proxy::Proxy;
use test_support::redis::Redis;
use test_support::test_env::{COMPONENT, TestEnv};
use test_support::values::bytes;
use test_support::wait::{eventually, eventually_eq};

const LONG_RESPONSE_TIMEOUT: (&str, &str) = ("BACKEND_RESPONSE_TIMEOUT_MS", "60000");

// Guarantees: G25
#[tokio::test]
async fn a_read_only_link_sends_no_write_to_redis() {
    let env = TestEnv::with(&[("READ_ONLY", "true")]).await;
    let () = env.redis.command(&["SET", "k", "1"]).await;
    assert_eq!(env.client.get("", "k").await, Ok(Some(b"1".to_vec())));
    assert_eq!(env.client.exists("", "k").await, Ok(true));
    assert_eq!(env.client.keys("").await.unwrap(), ["k"]);
    assert_eq!(env.client.get_many("", &["k"]).await.unwrap().len(), 1);
    let denied = Error::AccessDenied;
    let _: redis::Value = env.redis.command(&["CONFIG", "RESETSTAT"]).await;
    assert_eq!(env.client.set("", "k", b"2").await, Err(denied.clone()));
    assert_eq!(env.client.delete("", "k").await, Err(denied.clone()));
    assert_eq!(env.client.increment("", "k", 1).await, Err(denied.clone()));
    assert_eq!(
        env.client.set_many("", &[("k", b"2")]).await,
        Err(denied.clone())
    );
    assert_eq!(env.client.delete_many("", &["k"]).await, Err(denied));
    let stats: String = env.redis.command(&["INFO", "commandstats"]).await;
    let reached: Vec<_> = stats
        .lines()
        .filter_map(|line| line.strip_prefix("cmdstat_"))
        .filter_map(|line| line.split(':').next())
        // The commands of the test's own connections and of idle ones.
        .filter(|name| !["info", "ping", "select"].contains(name))
        // Redis 6.2 does not name the subcommand.
        .filter(|name| !["config", "config|resetstat"].contains(name))
        .filter(|name| !name.starts_with("client") && !name.starts_with("hello"))
        .collect();
    assert!(
        reached.is_empty(),
        "commands that reached Redis: {reached:?}"
    );
    assert_eq!(env.redis.command::<String>(&["GET", "k"]).await, "1");
}

// Guarantees: G25
#[tokio::test]
async fn a_value_above_max_value_bytes_is_not_sent_to_redis() {
    let env = TestEnv::with(&[("MAX_VALUE_BYTES", "1000")]).await;
    let (fits, large) = (bytes(1_000), bytes(1_001));
    env.client.set("", "k", &fits).await.unwrap();
    env.client
        .set_many("", &[("l", &fits), ("m", &fits)])
        .await
        .unwrap();
    let before = env.redis.calls("set").await + env.redis.calls("mset").await;
    for error in [
        other_error(env.client.set("", "k", &large).await),
        other_error(env.client.set_many("", &[("l", &large)]).await),
        other_error(
            env.client
                .set_many("", &[("new", &fits), ("m", &large)])
                .await,
        ),
    ] {
        assert!(
            error.contains("MAX_VALUE_BYTES") && error.contains("1000"),
            "{error}"
        );
    }
    assert_eq!(
        env.redis.calls("set").await + env.redis.calls("mset").await,
        before
    );
    assert_eq!(env.client.get("", "k").await, Ok(Some(fits)));
    assert_eq!(env.client.exists("", "new").await, Ok(false));
    let huge = bytes(5 << 20);
    other_error(env.client.set("", "k", &huge).await);
}

#[tokio::test]
async fn max_in_flight_limits_concurrent_calls() {
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(60_000))
        .start()
        .await;
    let proxy = Proxy::start(env.redis.port()).await;
    let config = [
        ("URL", &*proxy.url()),
        ("MAX_IN_FLIGHT", "3"),
        LONG_RESPONSE_TIMEOUT,
    ];
    let client = env.link(COMPONENT, "narrow", &config).await;
    client.set("", "k", b"v").await.unwrap();
    proxy.hold_replies();
    let calls = together(&client, 10);
    eventually_eq("three calls are in flight", 3, async || {
        proxy.command_count("GET")
    })
    .await;
    // Time for a fourth call to show, during which other links are served.
    for _ in 0..20 {
        env.client.set("", "k", b"v").await.unwrap();
    }
    assert_eq!(proxy.command_count("GET"), 3);
    proxy.release();
    for call in calls {
        assert_eq!(
            call.await.unwrap(),
            Ok(Some(b"v".to_vec())),
            "a queued call failed"
        );
    }
}

#[tokio::test]
async fn calls_above_max_waiting_are_rejected_at_once() {
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(60_000))
        .start()
        .await;
    let proxy = Proxy::start(env.redis.port()).await;
    let config = [
        ("URL", &*proxy.url()),
        ("MAX_IN_FLIGHT", "1"),
        ("MAX_WAITING", "2"),
        LONG_RESPONSE_TIMEOUT,
    ];
    let client = env.link(COMPONENT, "narrow", &config).await;
    client.set("", "k", b"v").await.unwrap();
    proxy.hold_replies();
    let mut calls: FuturesUnordered<_> = together(&client, 10).into_iter().collect();
    for _ in 0..7 {
        is_too_many(calls.next().await.unwrap().unwrap());
    }
    proxy.release();
    while let Some(result) = calls.next().await {
        assert_eq!(result.unwrap(), Ok(Some(b"v".to_vec())));
    }
}

#[tokio::test]
async fn calls_above_max_waiting_are_rejected_while_disconnected() {
    let mut env = TestEnv::builder()
        .rpc_timeout_ms(Some(60_000))
        .redis(Redis::stopped())
        .config(&[("MAX_WAITING", "2")])
        .start()
        .await;
    let mut calls: FuturesUnordered<_> = together(&env.client.timeout(Duration::from_secs(60)), 10)
        .into_iter()
        .collect();
    for _ in 0..8 {
        is_too_many(calls.next().await.unwrap().unwrap());
    }
    env.redis.restart().await;
    while let Some(result) = calls.next().await {
        assert_eq!(result.unwrap(), Ok(None), "a waiting call failed");
    }
}

#[tokio::test]
async fn three_thousand_concurrent_calls_are_within_the_defaults() {
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(60_000))
        .start()
        .await;
    let client = env.client.timeout(Duration::from_secs(60));
    for result in join_all((0..3_000).map(|_| client.increment("", "n", 1))).await {
        result.unwrap();
    }
    assert_eq!(env.redis.command::<u64>(&["GET", "n"]).await, 3_000);
}

#[tokio::test]
async fn max_bytes_in_flight_blocks_calls_over_the_limit() {
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(60_000))
        .provider_config(&[("MAX_BYTES_IN_FLIGHT", "1048576")])
        .start()
        .await;
    let proxy = Proxy::start(env.redis.port()).await;
    let client = env
        .link(
            COMPONENT,
            "large",
            &[("URL", &proxy.url()), LONG_RESPONSE_TIMEOUT],
        )
        .await;
    let client = client.timeout(Duration::from_secs(60));
    client.exists("", "k").await.unwrap();
    proxy.hold_replies();
    let value = bytes(600_000);
    let calls: Vec<_> = (0..6)
        .map(|i| {
            let (client, value) = (client.clone(), value.clone());
            tokio::spawn(async move { client.set("", &format!("k{i}"), value).await })
        })
        .collect();
    eventually("one call is admitted", async || {
        proxy.command_count("SET") > 0
    })
    .await;
    for _ in 0..20 {
        assert!(
            env.host.health().await.unwrap().healthy,
            "a health check waited"
        );
    }
    assert_eq!(
        proxy.command_count("SET"),
        1,
        "two calls were admitted, which exceeds MAX_BYTES_IN_FLIGHT"
    );
    proxy.release();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let values: Vec<_> =
        join_all((0..6).map(async |i| client.get("", &format!("k{i}")).await)).await;
    assert!(
        values
            .into_iter()
            .all(|result| result == Ok(Some(value.clone())))
    );
}

#[tokio::test]
async fn a_call_above_max_bytes_in_flight_completes_or_fails() {
    let env = TestEnv::builder()
        .provider_config(&[("MAX_BYTES_IN_FLIGHT", "1048576")])
        .start()
        .await;
    let value = bytes(4 << 20);
    match env.client.set("", "k", &value).await {
        Ok(()) => {}
        Err(Error::Other(text)) => assert!(text.contains("MAX_BYTES_IN_FLIGHT"), "{text}"),
        result => panic!("{result:?}"),
    }
    env.client.set("", "small", b"v").await.unwrap();
}

fn together(
    client: &Client,
    count: usize,
) -> Vec<tokio::task::JoinHandle<Result<Option<Vec<u8>>, Error>>> {
    (0..count)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.get("", "k").await })
        })
        .collect()
}

fn is_too_many(result: Result<Option<Vec<u8>>, Error>) {
    let error = other_error(result);
    assert!(error.contains("too many calls waiting"), "{error}");
}
