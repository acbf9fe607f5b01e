//! `batch`: order, duplicates, missing keys, size, and empty lists.

// Guarantees: G6

use test_support::client::Error;
use test_support::redis::Redis;
use test_support::test_env::TestEnv;
use test_support::values::bytes;

fn entry(key: &str, value: &[u8]) -> Option<(String, Vec<u8>)> {
    Some((key.to_owned(), value.to_vec()))
}

#[tokio::test]
async fn get_many_preserves_order_and_duplicates() {
    let env = TestEnv::start().await;
    env.client
        .set_many("", &[("a", "1"), ("b", "2"), ("c", "")])
        .await
        .unwrap();
    let entries = env
        .client
        .get_many("", &["c", "a", "none", "b", "a", "none", "c"])
        .await
        .unwrap();
    let expected = [
        entry("c", b""),
        entry("a", b"1"),
        None,
        entry("b", b"2"),
        entry("a", b"1"),
        None,
        entry("c", b""),
    ];
    assert_eq!(entries, expected);
}

#[tokio::test]
async fn get_many_returns_keys_without_prefix_and_bucket() {
    let env = TestEnv::with(&[("PREFIX", "app:")]).await;
    env.client.set_many("named", &[("k", b"v")]).await.unwrap();
    assert_eq!(
        env.redis.command::<String>(&["GET", "app:named:k"]).await,
        "v"
    );
    assert_eq!(
        env.client.get_many("named", &["k"]).await,
        Ok(vec![entry("k", b"v")])
    );
}

// Guarantees: G4
#[tokio::test]
async fn get_many_returns_none_for_keys_of_other_types() {
    let env = TestEnv::start().await;
    env.client.set("", "a", b"1").await.unwrap();
    let _: redis::Value = env.redis.command(&["RPUSH", "list", "x"]).await;
    let entries = env.client.get_many("", &["a", "list", "a"]).await.unwrap();
    assert_eq!(entries, [entry("a", b"1"), None, entry("a", b"1")]);
}

#[tokio::test]
async fn set_many_stores_the_last_value_of_a_duplicate_key() {
    let env = TestEnv::start().await;
    let pairs = [
        ("k", b"1"),
        ("l", b"2"),
        ("k", b"3"),
        ("m", b"4"),
        ("k", b"5"),
    ];
    env.client.set_many("", &pairs).await.unwrap();
    assert_eq!(env.client.get("", "k").await, Ok(Some(b"5".to_vec())));
    assert_eq!(env.client.keys("").await.unwrap(), ["k", "l", "m"]);
}

// Guarantees: G3
#[tokio::test]
async fn delete_many_ignores_missing_and_duplicate_keys() {
    let env = TestEnv::start().await;
    env.client
        .set_many("", &[("a", b"1"), ("b", b"2"), ("c", b"3")])
        .await
        .unwrap();
    env.client
        .delete_many("", &["a", "none", "c", "a"])
        .await
        .unwrap();
    assert_eq!(env.client.keys("").await.unwrap(), ["b"]);
}

#[tokio::test]
async fn a_batch_may_have_one_key() {
    let env = TestEnv::start().await;
    env.client.set_many("b", &[("k", b"v")]).await.unwrap();
    assert_eq!(
        env.client.get_many("b", &["k"]).await,
        Ok(vec![entry("k", b"v")])
    );
    env.client.delete_many("b", &["k"]).await.unwrap();
    assert_eq!(env.client.get_many("b", &["k"]).await, Ok(vec![None]));
}

#[tokio::test]
async fn empty_lists_succeed_without_a_command() {
    let env = TestEnv::start().await;
    let before = env.redis.calls("mget").await + env.redis.calls("mset").await;
    empty_batches_succeed(&env).await;
    assert_eq!(
        env.redis.calls("mget").await + env.redis.calls("mset").await,
        before
    );
}

#[tokio::test]
async fn empty_lists_succeed_while_redis_is_down() {
    let env = TestEnv::builder().redis(Redis::stopped()).start().await;
    empty_batches_succeed(&env).await;
}

async fn empty_batches_succeed(env: &TestEnv) {
    for bucket in ["", "named"] {
        assert_eq!(env.client.get_many(bucket, &[]).await, Ok(vec![]));
        assert_eq!(
            env.client.set_many(bucket, &[] as &[(&str, &[u8])]).await,
            Ok(())
        );
        assert_eq!(env.client.delete_many(bucket, &[]).await, Ok(()));
    }
}

// Guarantees: G1
#[tokio::test]
async fn large_batches_round_trip() {
    let env = TestEnv::start().await;
    let keys: Vec<String> = (0..5_000).map(|i| format!("key{i}")).collect();
    let pairs: Vec<(&str, Vec<u8>)> = keys
        .iter()
        .enumerate()
        .map(|(i, key)| (key.as_str(), bytes(600 + i % 7)))
        .collect();
    env.client.set_many("big", &pairs).await.unwrap();
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    let entries = env.client.get_many("big", &names).await.unwrap();
    assert_eq!(entries.len(), pairs.len());
    for ((key, value), found) in pairs.iter().zip(entries) {
        assert!(found == entry(key, value), "{key} was changed");
    }
    env.client.delete_many("big", &names).await.unwrap();
    assert_eq!(env.redis.command::<u64>(&["DBSIZE"]).await, 0);
}

#[tokio::test]
async fn a_batch_affects_only_its_bucket() {
    let env = TestEnv::start().await;
    env.client.set_many("a", &[("k", b"a")]).await.unwrap();
    env.client.set_many("b", &[("k", b"b")]).await.unwrap();
    assert_eq!(
        env.client.get_many("a", &["k"]).await,
        Ok(vec![entry("k", b"a")])
    );
    env.client.delete_many("a", &["k"]).await.unwrap();
    assert_eq!(
        env.client.get_many("b", &["k"]).await,
        Ok(vec![entry("k", b"b")])
    );
}

// Guarantees: G25
#[tokio::test]
async fn every_batch_function_rejects_an_unknown_bucket() {
    let env = TestEnv::with(&[("BUCKETS", "a,b")]).await;
    assert_eq!(
        env.client.get_many("c", &["k"]).await,
        Err(Error::NoSuchStore)
    );
    assert_eq!(
        env.client.set_many("c", &[("k", b"v")]).await,
        Err(Error::NoSuchStore)
    );
    assert_eq!(
        env.client.delete_many("c", &["k"]).await,
        Err(Error::NoSuchStore)
    );
}
