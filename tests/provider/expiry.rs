//! `TTL_MS`, for every function that writes.

// Guarantees: G9

use test_support::client::other_error;
use test_support::redis::Redis;
use test_support::test_env::TestEnv;
use test_support::wait::eventually;

#[tokio::test]
async fn written_and_created_keys_expire_with_ttl_ms() {
    let env = TestEnv::with(&[("TTL_MS", "500000")]).await;
    env.client.set("", "set", b"v").await.unwrap();
    env.client
        .set_many("", &[("many1", b"v"), ("many2", b"v"), ("many1", b"w")])
        .await
        .unwrap();
    env.client.increment("", "created", 3).await.unwrap();
    let () = env.redis.command(&["SET", "lasting", "v"]).await;
    env.client.set("", "lasting", b"w").await.unwrap();
    for key in ["set", "many1", "many2", "created", "lasting"] {
        let left = ttl(&env.redis, key).await;
        assert!(
            (400_000..=500_000).contains(&left),
            "{key} expires in {left} ms"
        );
    }
    assert_eq!(env.client.get("", "many1").await, Ok(Some(b"w".to_vec())));
    assert_eq!(env.client.get("", "created").await, Ok(Some(b"3".to_vec())));
}

#[tokio::test]
async fn increment_preserves_an_existing_ttl() {
    let env = TestEnv::with(&[("TTL_MS", "500000")]).await;
    let () = env.redis.command(&["SET", "n", "1", "PX", "9000000"]).await;
    assert_eq!(env.client.increment("", "n", 1).await, Ok(2));
    let left = ttl(&env.redis, "n").await;
    assert!(left > 8_000_000, "{left} ms");
    env.client.increment("", "m", 1).await.unwrap();
    let _: u64 = env.redis.command(&["PEXPIRE", "m", "100000"]).await;
    env.client.increment("", "m", 1).await.unwrap();
    let left = ttl(&env.redis, "m").await;
    assert!(
        (1..=100_000).contains(&left),
        "the TTL was restarted: {left} ms"
    );
}

#[tokio::test]
async fn increment_sets_a_ttl_on_a_persistent_key() {
    let env = TestEnv::with(&[("TTL_MS", "500000")]).await;
    let () = env.redis.command(&["SET", "n", "1"]).await;
    assert_eq!(env.client.increment("", "n", 1).await, Ok(2));
    let left = ttl(&env.redis, "n").await;
    assert!(
        (400_000..=500_000).contains(&left),
        "unexpected TTL: {left} ms"
    );
}

#[tokio::test]
async fn a_failed_increment_leaves_the_ttl_unchanged() {
    let env = TestEnv::with(&[("TTL_MS", "500000")]).await;
    let () = env
        .redis
        .command(&[
            "MSET",
            "text",
            "abc",
            "negative",
            "-5",
            "most",
            "9223372036854775807",
        ])
        .await;
    for key in ["text", "negative", "most"] {
        other_error(env.client.increment("", key, 3).await);
        assert_eq!(ttl(&env.redis, key).await, -1, "{key}: nothing changes");
    }
    other_error(env.client.increment("", "missing", u64::MAX).await);
    assert_eq!(
        ttl(&env.redis, "missing").await,
        -2,
        "the failed increment created a key"
    );
}

// Guarantees: G5
#[tokio::test]
async fn increment_limits_hold_with_a_ttl() {
    let env = TestEnv::with(&[("TTL_MS", "500000")]).await;
    let odd = (1 << 53) + 1;
    assert_eq!(env.client.increment("", "n", odd).await, Ok(odd));
    assert_eq!(env.client.increment("", "n", 2).await, Ok(odd + 2));
    assert_eq!(
        env.redis.command::<String>(&["GET", "n"]).await,
        (odd + 2).to_string()
    );
    for (stored, delta) in [
        ("-5", 3),
        ("9223372036854775807", 1),
        ("x", 1),
        ("1", u64::MAX),
    ] {
        let () = env.redis.command(&["SET", "n", stored]).await;
        other_error(env.client.increment("", "n", delta).await);
        assert_eq!(
            env.redis.command::<String>(&["GET", "n"]).await,
            stored,
            "+ {delta}"
        );
    }
    let () = env.redis.command(&["SET", "n", "-5"]).await;
    assert_eq!(env.client.increment("", "n", 10).await, Ok(5));
}

#[tokio::test]
async fn a_key_is_missing_after_its_ttl() {
    let env = TestEnv::with(&[("TTL_MS", "50")]).await;
    env.client.set("", "k", b"v").await.unwrap();
    eventually("the key has expired", async || {
        env.client.get("", "k").await == Ok(None)
    })
    .await;
}

#[tokio::test]
async fn keys_are_persistent_without_ttl_ms() {
    let env = TestEnv::start().await;
    env.client.set("", "a", b"1").await.unwrap();
    env.client.set_many("", &[("b", b"1")]).await.unwrap();
    env.client.increment("", "c", 1).await.unwrap();
    for key in ["a", "b", "c"] {
        assert_eq!(ttl(&env.redis, key).await, -1, "{key}");
    }
}

async fn ttl(redis: &Redis, key: &str) -> i64 {
    redis.command(&["PTTL", key]).await
}
