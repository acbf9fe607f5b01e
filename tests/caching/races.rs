//! A read that is under way when its key changes leaves nothing behind.

use std::time::Duration;

use futures_util::future::join_all;
use test_support::proxy::Proxy;
use test_support::test_env::TestEnv;
use test_support::wait::{eventually, test_timeout};
use tokio::time::Instant;

use crate::{behind_a_proxy, cached};

/// The answer of a read and the news that its key has changed meanwhile arrive in one piece, so
/// that the news is there before anybody has looked at the answer.
#[tokio::test]
async fn an_answer_that_arrives_with_the_news_of_its_change_is_not_kept() {
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
        eventually("the setup is seen", async || {
            env.client.get("", "k").await == Ok(Some(b"old".to_vec()))
        })
        .await;
        // Nothing is known of the key when the read begins.
        let () = env.redis.command(&["SET", "k", "old", "KEEPTTL"]).await;
        let before = env.redis.calls("get").await;
        proxy.hold_replies();
        let (read, ()) = tokio::join!(read_past(&env, &proxy), async {
            // What is held may at first be the news of the change just before.
            eventually("Redis has answered", async || {
                proxy.has_held_replies() && env.redis.calls("get").await > before
            })
            .await;
            let answer = proxy.held_bytes();
            let _: redis::Value = env.redis.command(change).await;
            eventually("the news is behind the answer", async || {
                proxy.held_bytes() > answer
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
            "round {round}: after {change:?} the old value stayed"
        );
    }
}

/// Reads until Redis is really asked, which the proxy sees.
async fn read_past(env: &TestEnv, proxy: &Proxy) -> Option<Vec<u8>> {
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

/// Readers without a pause, while others change the same keys thousands of times: whenever the
/// changes stop, what is read is what is stored.
#[tokio::test]
async fn thousands_of_changes_among_readers_leave_nothing_old() {
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
        // All news of these changes has been sent before this.
        let () = env.redis.command(&["PING"]).await;
        tokio::time::sleep(Duration::from_millis(100).saturating_sub(last.elapsed())).await;
        for key in &keys {
            let stored: Option<Vec<u8>> = env.redis.command(&["GET", key]).await;
            eventually(
                &format!("round {round}: {key} is what is stored"),
                async || env.client.get("", key).await.unwrap() == stored,
            )
            .await;
        }
    }
    println!("{changes} changes among readers, and nothing old was left");
}
