//! A read that is in flight while its key changes leaves nothing in the cache.

// Guarantees: G34

use std::time::Duration;

use futures_util::future::join_all;
use test_support::proxy::Proxy;
use test_support::test_env::TestEnv;
use test_support::wait::{eventually, test_timeout};
use tokio::time::Instant;

use crate::{behind_a_proxy, cached};

/// The reply to a read and the invalidation of its key arrive in one segment, so that the
/// invalidation is received before the reply is processed.
#[tokio::test]
async fn a_reply_that_arrives_with_its_invalidation_is_not_cached() {
    let (env, proxy) = behind_a_proxy(|builder| builder).await;
    for (round, change) in [
        &["SET", "k", "new"][..],
        &["DEL", "k"],
        &["FLUSHALL"],
        &["RENAME", "k", "other"],
    ]
    .into_iter()
    .cycle()
    .take(20)
    .enumerate()
    {
        let () = env.redis.command(&["SET", "k", "old"]).await;
        eventually("the setup is visible", async || {
            env.client.get("", "k").await == Ok(Some(b"old".to_vec()))
        })
        .await;
        // The key is not cached when the read starts.
        let () = env.redis.command(&["SET", "k", "old", "KEEPTTL"]).await;
        let before = env.redis.calls("get").await;
        proxy.hold_replies();
        let (read, ()) = tokio::join!(read_through(&env, &proxy), async {
            // The first held bytes may be the invalidation of the change just before.
            eventually("Redis has replied", async || {
                proxy.has_held_replies() && env.redis.calls("get").await > before
            })
            .await;
            let result = proxy.held_bytes();
            let _: redis::Value = env.redis.command(change).await;
            eventually("the invalidation follows the reply", async || {
                proxy.held_bytes() > result
            })
            .await;
            proxy.release();
        });
        assert!(matches!(read.as_deref(), Some(b"old") | None));
        let stored: Option<Vec<u8>> = env.redis.command(&["GET", "k"]).await;
        assert_ne!(stored.as_deref(), Some(&b"old"[..]));
        assert_eq!(
            env.client.get("", "k").await,
            Ok(stored),
            "round {round}: the old value is still cached after {change:?}"
        );
    }
}

/// Reads until a read reaches Redis, which the proxy records.
async fn read_through(env: &TestEnv, proxy: &Proxy) -> Option<Vec<u8>> {
    let before = proxy.command_count("GET");
    let deadline = Instant::now() + test_timeout();
    loop {
        let value = env.client.get("", "k").await.unwrap();
        if proxy.command_count("GET") > before {
            return value;
        }
        assert!(Instant::now() < deadline, "the read never reached Redis");
    }
}

/// Readers without a pause, while other clients change the same keys thousands of times: whenever the
/// changes stop, the values read are the values stored.
#[tokio::test]
async fn concurrent_readers_see_current_values_once_changes_stop() {
    const KEYS: usize = 8;
    let env = cached().await;
    let keys: Vec<String> = (0..KEYS).map(|key| format!("key-{key}")).collect();
    let mut changes = 0;
    for round in 0..30_u32 {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let readers = (0..32).map(|reader| {
            let (client, stopped) = (env.client.clone(), stopped.clone());
            let key = keys[reader % KEYS].clone();
            tokio::spawn(async move {
                while !*stopped.borrow() {
                    client.get("", &key).await.unwrap();
                }
            })
        });
        let readers: Vec<_> = readers.collect();
        for burst in 0..20_u32 {
            let mut pipeline = redis::pipe();
            for (nth, key) in keys.iter().cycle().take(KEYS * 10).enumerate() {
                match (nth as u32 + burst) % 5 {
                    0 => pipeline.del(key),
                    _ => pipeline.set(key, format!("{round}-{burst}-{nth}")),
                };
                changes += 1;
            }
            env.redis.run_pipeline(&pipeline).await;
        }
        let last = Instant::now();
        stop.send_replace(true);
        join_all(readers).await;
        // The invalidations of all changes have been sent by now.
        let () = env.redis.command(&["PING"]).await;
        tokio::time::sleep(Duration::from_millis(100).saturating_sub(last.elapsed())).await;
        for key in &keys {
            let stored: Option<Vec<u8>> = env.redis.command(&["GET", key]).await;
            eventually(
                &format!("round {round}: {key} is read as stored"),
                async || env.client.get("", key).await.unwrap() == stored,
            )
            .await;
        }
    }
    println!("{changes} changes with concurrent readers, and no stale value remained");
}
