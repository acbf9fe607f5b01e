//! Connections that are lost or fall silent: nothing is answered from memory without Redis.

use std::time::Duration;

use test_support::proxy::{Fault, Proxy};
use test_support::test_env::TestEnv;
use test_support::wait::eventually;
use tokio::time::{Instant, timeout};

use crate::{CACHED, behind_a_proxy};

/// How old an answer from memory can be: docs/cache.md.
const LEASE: Duration = Duration::from_secs(1);

/// A world behind a proxy, where `k` is kept as `old`.
async fn kept_behind_a_proxy() -> (TestEnv, Proxy) {
    let (env, proxy) = behind_a_proxy(|builder| builder.rpc_timeout_ms(Some(1_500))).await;
    env.client.set("", "k", b"old").await.unwrap();
    env.client.get("", "k").await.unwrap();
    let before = proxy.command_count("GET");
    assert_eq!(env.client.get("", "k").await, Ok(Some(b"old".to_vec())));
    assert_eq!(proxy.command_count("GET"), before, "it is not kept");
    (env, proxy)
}

#[tokio::test]
async fn without_a_connection_nothing_is_answered_from_memory() {
    let (env, proxy) = kept_behind_a_proxy().await;
    // What is there is cut, and nothing new comes about.
    proxy.inject(Fault::Reset);
    proxy.disconnect_all();
    eventually("the loss is noticed", async || {
        env.client.get("", "k").await.is_err()
    })
    .await;
    let () = env.redis.command(&["SET", "k", "new"]).await;
    for _ in 0..3 {
        let read = env.client.get("", "k").await;
        assert!(read.is_err(), "without a connection it answered {read:?}");
        assert!(env.client.exists("", "k").await.is_err());
        assert!(env.client.get_many("", &["k"]).await.is_err());
    }
    proxy.release();
    eventually("the link is back", async || {
        let read = env.client.get("", "k").await;
        assert_ne!(read, Ok(Some(b"old".to_vec())), "that was before the loss");
        read.is_ok()
    })
    .await;
    assert_eq!(env.client.get("", "k").await, Ok(Some(b"new".to_vec())));
}

/// Disconnect and back at once, with a change in between that nobody was told of.
#[tokio::test]
async fn after_a_reconnect_nothing_from_before_is_answered() {
    let (env, proxy) = kept_behind_a_proxy().await;
    for round in 0..20_u32 {
        let connections = proxy.connect_times().len();
        // The server forgets the client before it knows of the change.
        let killed: u64 = env
            .redis
            .command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
            .await;
        assert!(killed > 0);
        let value = format!("new {round}");
        let () = env.redis.command(&["SET", "k", &value]).await;
        eventually("there is another connection", async || {
            proxy.connect_times().len() > connections
        })
        .await;
        // The old connection was closed before the new one was made.
        eventually("the link is back", async || {
            env.client.set("", "other", b"").await.is_ok()
        })
        .await;
        assert_eq!(
            env.client.get("", "k").await,
            Ok(Some(value.clone().into_bytes())),
            "round {round}"
        );
        assert_eq!(env.client.get("", "k").await, Ok(Some(value.into_bytes())));
    }
}

/// The network drops everything, and nobody notices: an answer is at most a second old.
#[tokio::test]
async fn a_connection_that_falls_silent_serves_for_a_second() {
    for fault in [Fault::Stall, Fault::HoldReplies] {
        let (env, proxy) = kept_behind_a_proxy().await;
        // It is in use, so that its connection is asked whether it still is one.
        let used = Instant::now();
        while used.elapsed() < LEASE * 2 {
            assert_eq!(env.client.get("", "k").await, Ok(Some(b"old".to_vec())));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(
            proxy.command_count("GET") <= 3,
            "it was not answered from memory"
        );
        proxy.inject(fault);
        let silent = Instant::now();
        let () = env.redis.command(&["SET", "k", "new"]).await;
        let mut served = 0;
        let late = loop {
            let asked = Instant::now();
            let read = timeout(Duration::from_millis(300), env.client.get("", "k")).await;
            let Ok(Ok(read)) = read else {
                break asked - silent;
            };
            assert_eq!(read, Some(b"old".to_vec()));
            // No later than the last question that was answered allows, whoever is slow.
            assert!(
                asked - silent <= LEASE,
                "{:?} after the connection fell silent it was still used",
                asked - silent
            );
            served += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        println!("{fault:?}: {served} answers from memory, the last one before {late:?}");
        proxy.release();
        eventually("the link is back", async || {
            env.client.get("", "k").await == Ok(Some(b"new".to_vec()))
        })
        .await;
    }
}

/// Redis itself stands still; whoever reads then waits for it.
#[tokio::test]
async fn a_redis_that_stands_still_is_waited_for_after_a_second() {
    let (env, _proxy) = kept_behind_a_proxy().await;
    env.redis.pause();
    eventually("it is not answered from memory any more", async || {
        timeout(Duration::from_millis(300), env.client.get("", "k"))
            .await
            .is_err()
    })
    .await;
    env.redis.resume();
    eventually("the link is back", async || {
        env.client.get("", "k").await == Ok(Some(b"old".to_vec()))
    })
    .await;
}

#[tokio::test]
async fn a_link_that_was_idle_reads_anew_what_changed_meanwhile() {
    let (env, proxy) = kept_behind_a_proxy().await;
    tokio::time::sleep(LEASE + Duration::from_millis(300)).await;
    let before = proxy.command_count("GET");
    assert_eq!(env.client.get("", "k").await, Ok(Some(b"old".to_vec())));
    assert_eq!(
        proxy.command_count("GET"),
        before,
        "it is kept while it may be used"
    );
    let () = env.redis.command(&["SET", "k", "new"]).await;
    eventually("the change is seen", async || {
        env.client.get("", "k").await == Ok(Some(b"new".to_vec()))
    })
    .await;
}

#[tokio::test]
async fn redis_restarts_with_other_data() {
    let mut env = TestEnv::with(CACHED).await;
    for round in 0..5_u32 {
        let value = round.to_string();
        env.client.set("", "k", &value).await.unwrap();
        assert_eq!(env.client.get("", "k").await, Ok(Some(value.into_bytes())));
        env.redis.restart().await;
        eventually("what it lost is missing", async || {
            env.client.get("", "k").await == Ok(None)
        })
        .await;
    }
}
