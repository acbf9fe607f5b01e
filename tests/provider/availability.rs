//! Links while Redis is down, unresponsive and back, and the isolation of links from each other.

use std::time::Duration;

use futures_util::future::join_all;
use test_support::client::other_error;
use test_support::host::Link;
use test_support::proxy::Proxy;
use test_support::redis::Redis;
use test_support::test_env::{COMPONENT, TestEnv};
use test_support::wait::{eventually, eventually_eq, eventually_some, test_timeout};
use tokio::net::TcpListener;
use tokio::time::Instant;

// Guarantees: G14
#[tokio::test]
async fn a_link_connects_when_its_redis_starts() {
    let mut env = TestEnv::builder()
        .redis(Redis::stopped())
        .rpc_timeout_ms(None)
        .start()
        .await;
    let refusal = other_error(
        env.client
            .timeout(Duration::from_secs(2))
            .get("", "k")
            .await,
    );
    is_refusal(&refusal, &env.redis);
    env.redis.restart().await;
    eventually("the link works", async || {
        env.client.set("", "k", b"v").await.is_ok()
    })
    .await;
    assert_eq!(env.client.get("", "k").await, Ok(Some(b"v".to_vec())));
    assert_eq!(env.redis.connections().await, 1);
}

// Guarantees: G46
#[tokio::test]
async fn a_call_waits_until_connected() {
    let mut env = TestEnv::builder()
        .redis(Redis::stopped())
        .rpc_timeout_ms(Some(60_000))
        .start()
        .await;
    let call = tokio::spawn({
        let client = env.client.timeout(Duration::from_secs(60));
        async move { client.increment("", "n", 1).await }
    });
    // Later calls complete, so this one has been accepted.
    assert!(env.host.health().await.is_some());
    env.client.probe().await.unwrap();
    assert!(!call.is_finished());
    env.redis.restart().await;
    assert_eq!(call.await.unwrap(), Ok(1));
}

/// Redis sends this error unsolicited, and closes the connection.
// Guarantees: G46
#[tokio::test]
async fn a_call_waits_while_redis_has_reached_maxclients() {
    let env = TestEnv::builder()
        .unlinked()
        .rpc_timeout_ms(Some(60_000))
        .start()
        .await;
    let mut only = env.redis.connect(0).await.unwrap();
    let mut room_for = async |clients: usize| {
        let limit = ["SET", "maxclients", &clients.to_string()].map(str::to_owned);
        let mut config = redis::cmd("CONFIG");
        config.arg(&limit).query_async::<()>(&mut only).await
    };
    room_for(1).await.unwrap();
    // The unsolicited error must not be taken as the reply to the first command.
    let mut calls = Vec::new();
    for (name, url) in [
        ("named", env.redis.url()),
        ("numbered", env.redis.url_of(1)),
    ] {
        let link = Link::new("c", name).config(&[("URL", &url)]);
        let client = env.add_link(&link).await.timeout(Duration::from_secs(60));
        calls.push(tokio::spawn(
            async move { client.increment("", "n", 1).await },
        ));
        env.provider
            .wait_for_log(&["WARN", name, "ERR max number of clients reached"])
            .await;
    }
    assert!(calls.iter().all(|call| !call.is_finished()));
    room_for(1_000).await.unwrap();
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok(1));
    }
}

// Guarantees: G14
#[tokio::test]
async fn a_link_reconnects_after_redis_restarts() {
    let mut env = TestEnv::start().await;
    env.client.set("", "k", b"v").await.unwrap();
    for round in 0..3 {
        env.redis.restart().await;
        env.client.set("", "k", round.to_string()).await.unwrap();
        assert_eq!(
            env.client.get("", "k").await,
            Ok(Some(round.to_string().into_bytes()))
        );
    }
    let names = vec!["kvredis:counter:default".to_owned()];
    eventually_eq("there is one connection", names, async || {
        env.redis.kvredis_client_names().await
    })
    .await;
}

// Guarantees: G14
#[tokio::test]
async fn the_first_call_after_an_idle_disconnect_succeeds() {
    let env = TestEnv::start().await;
    env.client.set("", "n", b"1").await.unwrap();
    for (round, function) in (0..).zip(["get", "increment", "set", "list"].repeat(2)) {
        let kill = ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
        let killed: u64 = env.redis.command(&kill).await;
        assert!(killed > 0, "round {round}");
        // The provider notices the disconnect before the call, as with an idle connection.
        eventually_eq("it is connected again", 1, async || {
            env.redis.connections().await
        })
        .await;
        match function {
            "get" => assert!(env.client.get("", "n").await.is_ok()),
            "increment" => assert!(env.client.increment("", "n", 1).await.is_ok()),
            "set" => env.client.set("", "n", b"1").await.unwrap(),
            _ => assert!(env.client.keys("").await.is_ok()),
        }
    }
}

// Guarantees: G17
#[tokio::test]
async fn an_unresponsive_link_does_not_delay_others_or_health() {
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(60_000))
        .start()
        .await;
    // It accepts connections into its backlog and never replies.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let down = Redis::stopped();
    let mut pending = Vec::new();
    for i in 0..20 {
        let url = if i % 2 == 0 { url.clone() } else { down.url() };
        let client = env
            .link(COMPONENT, &format!("dead{i}"), &[("URL", &url)])
            .await;
        pending.push(tokio::spawn(async move { client.get("", "k").await }));
    }
    for round in 0..20 {
        assert!(env.host.health().await.is_some());
        env.client.set("", "k", b"v").await.unwrap();
        let late = env.link(COMPONENT, &format!("late{round}"), &[]).await;
        late.set("", "k", b"v").await.unwrap();
        env.unlink(COMPONENT, &format!("late{round}")).await;
    }
    assert!(
        pending.iter().all(|call| !call.is_finished()),
        "a call on an unresponsive link completed"
    );
}

// Guarantees: G13
#[tokio::test]
async fn deleting_a_link_ends_its_waiting_calls() {
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(1_500))
        .redis(Redis::stopped())
        .start()
        .await;
    let client = env.client.timeout(Duration::from_millis(1_500));
    let call = tokio::spawn(async move { client.get("", "k").await });
    env.unlink(COMPONENT, "default").await;
    assert!(!other_error(call.await.unwrap()).is_empty());
}

// Guarantees: G14
#[tokio::test]
async fn a_deleted_link_stops_connecting() {
    let env = TestEnv::start().await;
    let down = Redis::stopped();
    let (deleted, kept) = (
        Proxy::start(down.port()).await,
        Proxy::start(down.port()).await,
    );
    for (name, proxy) in [("deleted", &deleted), ("kept", &kept)] {
        let config = [
            ("URL", &*proxy.url()),
            ("BACKEND_RECONNECT_MAX_DELAY_MS", "20"),
        ];
        env.link(COMPONENT, name, &config).await;
    }
    env.unlink(COMPONENT, "deleted").await;
    let attempts = async |more: usize| {
        let before = kept.connect_times().len();
        eventually("the other link goes on connecting", async || {
            kept.connect_times().len() >= before + more
        })
        .await;
        deleted.connect_times().len()
    };
    // An attempt in progress may still complete.
    let before = attempts(5).await;
    assert_eq!(attempts(20).await, before);
}

// Guarantees: G54
#[tokio::test]
async fn a_link_without_redis_becomes_unhealthy_after_a_while() {
    let mut env = TestEnv::builder().redis(Redis::stopped()).start().await;
    let health = env.host.health().await.unwrap();
    assert!(health.healthy, "a new link counts as healthy");
    let health = eventually_some("the provider is unhealthy", async || {
        env.host.health().await.filter(|health| !health.healthy)
    })
    .await;
    let message = health.message.unwrap();
    let reason = format!("redis://127.0.0.1:{}", env.redis.port());
    for part in [COMPONENT, "default", &reason] {
        assert!(message.contains(part), "{message}");
    }
    env.provider.wait_for_log(&["ERROR", &reason]).await;
    env.redis.restart().await;
    eventually("it is healthy again", async || {
        env.host.health().await.unwrap().healthy
    })
    .await;
}

// Guarantees: G54
#[tokio::test]
async fn health_checks_get_replies_while_redis_is_unresponsive() {
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(60_000))
        .start()
        .await;
    env.client.set("", "k", b"v").await.unwrap();
    env.redis.pause();
    let started = Instant::now();
    let client = env.client.clone();
    let call = tokio::spawn(async move { client.get("", "k").await });
    for _ in 0..50 {
        assert!(env.host.health().await.unwrap().healthy);
    }
    // 50 replies within 100 ms each.
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    env.redis.resume();
    // The result depends on the response timeout.
    let _ = call.await.unwrap();
}

// Guarantees: G17
#[tokio::test]
async fn many_calls_on_a_broken_link_log_few_lines() {
    let mut env = TestEnv::builder()
        .rpc_timeout_ms(Some(1_000))
        .redis(Redis::stopped())
        .start()
        .await;
    let client = env.client.timeout(test_timeout());
    for _ in 0..3 {
        for result in join_all((0..700).map(|_| client.get("", "k"))).await {
            other_error(result);
        }
    }
    let lines = env.provider.stop_and_count_log(&[]).await;
    assert!(lines < 40, "{lines} lines");
    assert!(
        env.provider.stop_and_count_log(&["cannot reach"]).await >= 1,
        "the failure is not logged"
    );
}

// Guarantees: G49
#[tokio::test]
async fn the_provider_reconnects_after_nats_restarts() {
    let mut env = TestEnv::start().await;
    env.client.set("", "k", b"v").await.unwrap();
    env.nats.restart().await;
    eventually("calls succeed again", async || {
        let client = env.client.timeout(Duration::from_millis(500));
        client.get("", "k").await == Ok(Some(b"v".to_vec()))
    })
    .await;
    env.host.ready().await;
    env.link("later", "default", &[])
        .await
        .set("", "k", b"v")
        .await
        .unwrap();
    assert_eq!(env.provider.try_wait(), None);
}

fn is_refusal(error: &str, redis: &Redis) {
    let expected = format!(
        "cannot reach redis://127.0.0.1:{}: connection refused",
        redis.port()
    );
    assert!(error.to_lowercase().contains(&expected), "{error}");
}
