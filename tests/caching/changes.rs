//! Changes by others are seen, however they come about.
//!
//! The promise is 100 ms. A busy machine may need more, so that the tests wait longer and print how
//! long it took; what is kept lasts an hour in them.

use std::time::Duration;

use test_support::redis::Redis;
use test_support::test_env::TestEnv;
use test_support::wait::eventually;
use tokio::time::Instant;

use crate::cached;

/// Has a value kept, changes it past kvredis, and waits until it is seen.
async fn seen(env: &TestEnv, change: &[&str], key: &str, then: Option<&str>) -> Duration {
    let kept = env.client.get("", key).await.unwrap();
    let before = env.redis.calls("get").await;
    assert_eq!(env.client.get("", key).await.unwrap(), kept);
    assert_eq!(env.redis.calls("get").await, before, "{key} is not kept");
    let then = then.map(|text| text.as_bytes().to_vec());
    assert_ne!(kept, then);
    let _: redis::Value = env.redis.command(change).await;
    let changed = Instant::now();
    eventually(&format!("{change:?} is seen"), async || {
        env.client.get("", key).await.unwrap() == then
    })
    .await;
    changed.elapsed()
}

#[tokio::test]
async fn every_kind_of_change_is_seen() {
    let env = cached().await;
    let mut longest = Duration::ZERO;
    for (setup, change, key, then) in [
        ("SET k 1", "SET k 2", "k", Some("2")),
        ("SET k 1", "APPEND k 2", "k", Some("12")),
        ("SET k 1", "INCR k", "k", Some("2")),
        ("SET k 1", "SETRANGE k 0 9", "k", Some("9")),
        ("SET k 1", "GETDEL k", "k", None),
        ("SET k 1", "DEL k", "k", None),
        ("SET k 1", "UNLINK k", "k", None),
        ("DEL k", "SET k 1", "k", Some("1")),
        ("SET k 1", "RENAME k other", "k", None),
        ("SET other 3", "RENAME other k", "k", Some("3")),
        ("SET other 4", "COPY other k REPLACE", "k", Some("4")),
        ("SET k 1", "MOVE k 5", "k", None),
        ("SET k 1", "PEXPIRE k 1", "k", None),
        ("SET k 1", "EXPIREAT k 1", "k", None),
        ("SET k 1 PX 60000", "SET k 2", "k", Some("2")),
        ("SET k 1", "MSET k 2 j 3", "k", Some("2")),
        ("SET k 1", "FLUSHDB", "k", None),
        ("SET k 1", "FLUSHDB ASYNC", "k", None),
        ("SET k 1", "FLUSHALL", "k", None),
    ] {
        let words: Vec<&str> = setup.split(' ').collect();
        let _: redis::Value = env.redis.command(&words).await;
        // What the setup changed has to be seen first.
        let fresh: Option<Vec<u8>> = env.redis.command(&["GET", key]).await;
        eventually("the setup is seen", async || {
            env.client.get("", key).await.unwrap() == fresh
        })
        .await;
        let words: Vec<&str> = change.split(' ').collect();
        longest = longest.max(seen(&env, &words, key, then).await);
    }
    println!("changes by others: seen after {longest:?} at most");
}

#[tokio::test]
async fn an_expiry_is_seen_when_it_happens() {
    let env = cached().await;
    let _: () = env.redis.command(&["SET", "k", "v", "PX", "300"]).await;
    let set = Instant::now();
    assert_eq!(env.client.get("", "k").await, Ok(Some(b"v".to_vec())));
    eventually("the key has expired", async || {
        env.client.get("", "k").await == Ok(None)
    })
    .await;
    assert!(set.elapsed() >= Duration::from_millis(250), "it was early");
    println!(
        "expiry: seen {:?} after the key was set for 300 ms",
        set.elapsed()
    );
}

#[tokio::test]
async fn evictions_are_seen() {
    let redis = Redis::with_arguments(&["--maxmemory-policy", "allkeys-random"]).await;
    let env = TestEnv::builder()
        .redis(redis)
        .config(crate::CACHED)
        .start()
        .await;
    let keys: Vec<String> = (0..200).map(|n| format!("key-{n}")).collect();
    for key in &keys {
        env.client.set("", key, vec![b'x'; 10_000]).await.unwrap();
        env.client.get("", key).await.unwrap();
    }
    let _: () = env
        .redis
        .command(&["CONFIG", "SET", "maxmemory", "2mb"])
        .await;
    eventually("keys are evicted", async || {
        // How many is the server's affair: each has its own idea of what counts as memory.
        env.redis.command::<usize>(&["DBSIZE"]).await < keys.len()
    })
    .await;
    eventually("the evictions are seen", async || {
        for key in &keys {
            let there: bool = env.redis.command(&["EXISTS", key]).await;
            if env.client.get("", key).await.unwrap().is_some() != there {
                return false;
            }
        }
        true
    })
    .await;
}

#[tokio::test]
async fn another_link_and_another_process_are_others() {
    let env = cached().await;
    let other = env.link("other", "default", crate::CACHED).await;
    for round in 0..200 {
        let value = round.to_string().into_bytes();
        other.set("", "k", &value).await.unwrap();
        eventually("the other link's write is seen", async || {
            env.client.get("", "k").await.unwrap().as_ref() == Some(&value)
        })
        .await;
        assert_eq!(other.get("", "k").await.unwrap(), Some(value));
    }
}
