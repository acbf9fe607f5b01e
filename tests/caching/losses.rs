//! Connections that are lost or stop replying: nothing is served from the cache without Redis.

// Guarantees: G35

use std::time::Duration;

use test_support::proxy::{Fault, Proxy};
use test_support::test_env::TestEnv;
use test_support::wait::eventually;
use tokio::time::{Instant, sleep, timeout};

use crate::{CACHED, behind_a_proxy};

/// The maximum age of a value that is served from the cache, by docs/cache.md.
const LEASE: Duration = Duration::from_secs(1);
/// A pause that a busy machine may cause, and after which the connection may have lost its lease.
const STALL: Duration = Duration::from_millis(100);

/// An environment behind a proxy whose cache holds the value `old` of `k`.
async fn cached_behind_a_proxy() -> (TestEnv, Proxy) {
    let (env, proxy) = behind_a_proxy(|builder| builder.rpc_timeout_ms(Some(1_500))).await;
    eventually("the value is written", async || {
        env.client.set("", "k", b"old").await.is_ok()
    })
    .await;
    wait_until_cached(&env, &proxy).await;
    (env, proxy)
}

/// Waits until a read of `k` returns `old` without a command to Redis. The lease of the connection
/// may end between two reads when the machine stalls.
async fn wait_until_cached(env: &TestEnv, proxy: &Proxy) {
    eventually("k is served from the cache", async || {
        let before = proxy.command_count("GET");
        let read = env.client.get("", "k").await;
        read == Ok(Some(b"old".to_vec())) && proxy.command_count("GET") == before
    })
    .await;
}

#[tokio::test]
async fn a_lost_connection_disables_the_cache() {
    let (env, proxy) = cached_behind_a_proxy().await;
    // Reconnecting fails, too: every handshake is reset.
    proxy.inject(Fault::Reset);
    proxy.disconnect_all();
    eventually("reads fail", async || {
        env.client.get("", "k").await.is_err()
    })
    .await;
    let () = env.redis.command(&["SET", "k", "new"]).await;
    for _ in 0..3 {
        let read = env.client.get("", "k").await;
        assert!(read.is_err(), "served without a connection: {read:?}");
        assert!(env.client.exists("", "k").await.is_err());
        assert!(env.client.get_many("", &["k"]).await.is_err());
    }
    proxy.release();
    eventually("reads succeed again", async || {
        let read = env.client.get("", "k").await;
        if let Ok(value) = &read {
            assert_eq!(
                value.as_deref(),
                Some(&b"new"[..]),
                "the old value was served"
            );
        }
        read.is_ok()
    })
    .await;
}

/// The server closes the connection, and the key changes before kvredis has reconnected: no
/// invalidation is sent for the change.
#[tokio::test]
async fn a_reconnect_empties_the_cache() {
    let (env, proxy) = cached_behind_a_proxy().await;
    for round in 0..20_u32 {
        let connections = proxy.connect_times().len();
        // The server drops the client before the change.
        let killed: u64 = env
            .redis
            .command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
            .await;
        assert!(killed > 0);
        let value = format!("new {round}");
        let () = env.redis.command(&["SET", "k", &value]).await;
        eventually("kvredis has reconnected", async || {
            proxy.connect_times().len() > connections
        })
        .await;
        // The old connection was closed before the new one was made.
        eventually("calls succeed again", async || {
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

/// The network drops all packets without closing the connection: a cached value is served for at
/// most the lease.
#[tokio::test]
async fn an_unresponsive_connection_stops_serving_when_its_lease_ends() {
    for fault in [Fault::Stall, Fault::HoldReplies] {
        let (env, proxy) = cached_behind_a_proxy().await;
        // While the connection is in use, heartbeats renew its lease.
        let gets = proxy.command_count("GET");
        let mut stalls = 0;
        let started = Instant::now();
        while started.elapsed() < LEASE * 2 {
            let read_at = Instant::now();
            let read = env.client.get("", "k").await;
            sleep(Duration::from_millis(5)).await;
            if read_at.elapsed() < STALL {
                assert_eq!(read, Ok(Some(b"old".to_vec())));
            } else {
                stalls += 1;
            }
        }
        let gets = proxy.command_count("GET") - gets;
        assert!(
            gets <= 2 + stalls,
            "{gets} reads were not served from the cache, with {stalls} stalls of the machine"
        );
        proxy.inject(fault);
        let unresponsive = Instant::now();
        let () = env.redis.command(&["SET", "k", "new"]).await;
        let mut served = 0;
        let served_for = loop {
            let read_at = Instant::now();
            let read = timeout(Duration::from_millis(300), env.client.get("", "k")).await;
            let Ok(Ok(read)) = read else {
                break read_at - unresponsive;
            };
            assert_eq!(read, Some(b"old".to_vec()));
            // The lease starts before the fault, so that this holds on a slow machine, too.
            assert!(
                read_at - unresponsive <= LEASE,
                "the cache was still used {:?} after the connection became unresponsive",
                read_at - unresponsive
            );
            served += 1;
            sleep(Duration::from_millis(5)).await;
        };
        println!("{fault:?}: {served} reads from the cache, the last one before {served_for:?}");
        proxy.release();
        eventually("calls succeed again", async || {
            env.client.get("", "k").await == Ok(Some(b"new".to_vec()))
        })
        .await;
    }
}

/// The Redis process is suspended; reads then wait for its reply.
#[tokio::test]
async fn a_suspended_redis_ends_the_lease() {
    let (env, _proxy) = cached_behind_a_proxy().await;
    env.redis.pause();
    eventually("reads are not served from the cache any more", async || {
        timeout(Duration::from_millis(300), env.client.get("", "k"))
            .await
            .is_err()
    })
    .await;
    env.redis.resume();
    eventually("calls succeed again", async || {
        env.client.get("", "k").await == Ok(Some(b"old".to_vec()))
    })
    .await;
}

#[tokio::test]
async fn an_idle_connection_retains_its_cache() {
    let (env, proxy) = cached_behind_a_proxy().await;
    // The read after the pause may find the lease expired when the machine stalls meanwhile.
    eventually("k is served from the cache after a pause", async || {
        sleep(LEASE + Duration::from_millis(300)).await;
        let before = proxy.command_count("GET");
        let read = env.client.get("", "k").await;
        read == Ok(Some(b"old".to_vec())) && proxy.command_count("GET") == before
    })
    .await;
    let () = env.redis.command(&["SET", "k", "new"]).await;
    eventually("the change is seen", async || {
        env.client.get("", "k").await == Ok(Some(b"new".to_vec()))
    })
    .await;
}

#[tokio::test]
async fn a_restart_of_redis_empties_the_cache() {
    let mut env = TestEnv::with(CACHED).await;
    for round in 0..5_u32 {
        let value = round.to_string();
        env.client.set("", "k", &value).await.unwrap();
        assert_eq!(env.client.get("", "k").await, Ok(Some(value.into_bytes())));
        env.redis.restart().await;
        eventually("the lost key is missing", async || {
            env.client.get("", "k").await == Ok(None)
        })
        .await;
    }
}
