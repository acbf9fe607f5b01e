//! A link's own writes are always visible to its next read.

// Guarantees: G8

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use test_support::client::Client;

use crate::cached;

/// The number of concurrent writers; each has its own key.
const WRITERS: u64 = 8;
/// The number of write and read pairs per writer.
const PAIRS: u64 = 2_500;

#[tokio::test]
async fn every_write_is_visible_to_the_next_read() {
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
async fn writes_with_a_ttl_are_visible_to_the_next_read() {
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

/// Each writer reads its own key after each write, while concurrent readers read it all the time. A
/// reader never sees a value older than one it has seen.
#[tokio::test]
async fn writes_are_visible_with_concurrent_readers_of_the_same_keys() {
    let env = cached().await;
    let stop = Arc::new(AtomicBool::new(false));
    let reads = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..WRITERS * 2)
        .map(|reader| {
            let key = format!("key-{}", reader % WRITERS);
            tokio::spawn(read_continuously(
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
    println!(
        "{pairs} writes read back with {reads} concurrent reads, of which {asked} reached Redis"
    );
    assert!(asked < reads, "nothing was served from the cache");
}

async fn read_continuously(
    client: Client,
    key: String,
    stop: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
) {
    let mut latest = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let value = client.get("", &key).await.unwrap();
        let text = value.map_or("0".to_owned(), |value| String::from_utf8(value).unwrap());
        let number = text.parse().unwrap();
        assert!(
            number >= latest,
            "{key} changed back from {latest} to {number}"
        );
        latest = number;
        reads.fetch_add(1, Ordering::Relaxed);
    }
}
