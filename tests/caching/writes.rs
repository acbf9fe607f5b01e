//! The link's own writes are seen by its next read, always.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use test_support::client::Client;

use crate::cached;

/// Writers, each with a key of its own.
const WRITERS: u64 = 8;
/// Pairs of a write and a read for each of them.
const PAIRS: u64 = 2_500;

#[tokio::test]
async fn every_function_that_writes_is_seen_at_once() {
    let env = cached().await;
    let c = &env.client;
    let get = async |key: &str| {
        c.get("", key)
            .await
            .unwrap()
            .map(|v| String::from_utf8(v).unwrap())
    };
    for round in 0..50_u64 {
        let text = round.to_string();
        c.set("", "k", &text).await.unwrap();
        assert_eq!(get("k").await.as_ref(), Some(&text));
        c.delete("", "k").await.unwrap();
        assert_eq!(get("k").await, None);
        assert_eq!(c.exists("", "k").await, Ok(false));
        c.set_many("", &[("k", &text), ("j", &text)]).await.unwrap();
        assert_eq!(get("k").await.as_ref(), Some(&text));
        assert_eq!(get("j").await.as_ref(), Some(&text));
        assert_eq!(c.exists("", "k").await, Ok(true));
        c.delete_many("", &["j", "k"]).await.unwrap();
        assert_eq!(get("k").await, None);
        assert_eq!(get("j").await, None);
        assert_eq!(c.increment("", "n", 2).await, Ok(round * 2 + 2));
        assert_eq!(get("n").await, Some((round * 2 + 2).to_string()));
        let many = c.get_many("", &["n", "k"]).await.unwrap();
        assert_eq!(
            many[0].as_ref().unwrap().1,
            (round * 2 + 2).to_string().into_bytes()
        );
        assert_eq!(many[1], None);
    }
}

#[tokio::test]
async fn writes_with_a_time_to_live_are_seen_too() {
    let env = crate::TestEnv::with(&[crate::CACHED, &[("TTL_MS", "600000")]].concat()).await;
    for round in 0..50_u32 {
        let text = round.to_string();
        env.client
            .set_many("", &[("a", &text), ("b", &text)])
            .await
            .unwrap();
        let value = Ok(Some(text.into_bytes()));
        assert_eq!(env.client.get("", "a").await, value);
        assert_eq!(env.client.get("", "b").await, value);
    }
}

/// Each writer reads its own key after each write, while others read it all the time. A reader
/// never sees a key go back.
#[tokio::test]
async fn thousands_of_writes_are_read_back_among_readers_of_the_same_keys() {
    let env = cached().await;
    let stop = Arc::new(AtomicBool::new(false));
    let reads = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..WRITERS * 2)
        .map(|reader| {
            let key = format!("key-{}", reader % WRITERS);
            tokio::spawn(watch(
                env.client.clone(),
                key,
                Arc::clone(&stop),
                Arc::clone(&reads),
            ))
        })
        .collect();
    let writers = (0..WRITERS).map(|writer| {
        let client = env.client.clone();
        tokio::spawn(async move {
            let key = format!("key-{writer}");
            for pair in 1..=PAIRS {
                if pair % 3 == 0 {
                    assert_eq!(client.increment("", &key, 1).await, Ok(pair));
                } else {
                    client.set("", &key, pair.to_string()).await.unwrap();
                }
                let read = client.get("", &key).await.unwrap();
                assert_eq!(
                    read,
                    Some(pair.to_string().into_bytes()),
                    "{key} in round {pair}"
                );
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    let asked = env.redis.calls("get").await;
    let pairs = WRITERS * PAIRS;
    let reads = pairs + reads.load(Ordering::Relaxed);
    println!("{pairs} writes read back among {reads} reads, of which Redis saw {asked}");
    assert!(asked < reads, "nothing was answered from memory");
}

async fn watch(client: Client, key: String, stop: Arc<AtomicBool>, reads: Arc<AtomicU64>) {
    let mut latest = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let value = client.get("", &key).await.unwrap();
        let text = value.map_or("0".to_owned(), |value| String::from_utf8(value).unwrap());
        let number = text.parse().unwrap();
        assert!(
            number >= latest,
            "{key} went back from {latest} to {number}"
        );
        latest = number;
        reads.fetch_add(1, Ordering::Relaxed);
    }
}
