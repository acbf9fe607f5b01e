//! `store`: values, keys, missing keys, other types, and read-your-writes.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use test_support::client::{Error, other_error};
use test_support::test_env::TestEnv;
use test_support::values::{ODD_KEYS, bytes, long_key};
use test_support::wait::eventually;

const MEBIBYTE: usize = 1 << 20;

// Guarantees: G1
#[tokio::test]
async fn values_are_stored_verbatim_under_their_key() {
    let env = TestEnv::start().await;
    env.client.set("", "k", b"v").await.unwrap();
    assert_eq!(env.client.get("", "k").await, Ok(Some(b"v".to_vec())));
    let stored: String = env.redis.command(&["GET", "k"]).await;
    assert_eq!(stored, "v", "the key or value is not stored verbatim");
}

// Guarantees: G1
#[tokio::test]
async fn values_may_be_arbitrary_bytes() {
    let env = TestEnv::start().await;
    let all: Vec<u8> = (0..=255).collect();
    for value in [
        &[][..],
        &[0],
        b"\r\n",
        b"$-1\r\n",
        "snow \u{2603}".as_bytes(),
        &all,
    ] {
        env.client.set("", "k", value).await.unwrap();
        assert_eq!(env.client.get("", "k").await, Ok(Some(value.to_vec())));
        let stored: Vec<u8> = env.redis.command(&["GET", "k"]).await;
        assert_eq!(stored, value);
    }
}

// Guarantees: G1
#[tokio::test]
async fn empty_values_differ_from_missing_keys() {
    let env = TestEnv::start().await;
    env.client.set("", "empty", b"").await.unwrap();
    assert_eq!(env.client.get("", "empty").await, Ok(Some(Vec::new())));
    assert_eq!(env.client.exists("", "empty").await, Ok(true));
    assert_eq!(env.client.get("", "missing").await, Ok(None));
}

// Guarantees: G1
#[tokio::test]
async fn values_around_the_payload_limit_of_nats_round_trip() {
    let env = TestEnv::start().await;
    let near = MEBIBYTE - 400..=MEBIBYTE + 400;
    for length in near
        .step_by(50)
        .chain([MEBIBYTE - 1, MEBIBYTE + 1, 2 * MEBIBYTE, 3 * MEBIBYTE])
    {
        let value = bytes(length);
        env.client.set("", "k", &value).await.unwrap();
        assert!(
            env.client.get("", "k").await == Ok(Some(value)),
            "{length} bytes were changed"
        );
    }
}

// Guarantees: G1
#[tokio::test]
async fn sixteen_mebibytes_round_trip() {
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(60_000))
        .start()
        .await;
    let value = bytes(16 * MEBIBYTE);
    let client = env.client.timeout(Duration::from_secs(60));
    client.set("", "k", &value).await.unwrap();
    assert!(
        client.get("", "k").await == Ok(Some(value.clone())),
        "the value was changed"
    );
    let entries = client.get_many("", &["k"]).await.unwrap();
    assert!(
        entries == [Some(("k".to_owned(), value.clone()))],
        "get-many changed the value"
    );
    client.set_many("", &[("l", &value)]).await.unwrap();
    let length: usize = env.redis.command(&["STRLEN", "l"]).await;
    assert_eq!(length, value.len());
}

/// On a machine that cannot move 16 MiB within the default timeout, a value is used that it can.
// Guarantees: G1
#[tokio::test]
async fn sixteen_mebibytes_fit_into_the_default_rpc_timeout() {
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
    let env = TestEnv::builder().rpc_timeout_ms(None).start().await;
    let slowest = round_trip_time(&bytes(16 * MEBIBYTE)).await;
    let available = (DEFAULT_TIMEOUT / 2).as_secs_f64() / slowest.as_secs_f64();
    let length = (16 * MEBIBYTE) as f64 * available.min(1.0);
    let value = bytes(length as usize);
    let client = env.client.timeout(DEFAULT_TIMEOUT);
    // Other processes may delay single calls.
    eventually("the value is written in time", async || {
        client.set("", "k", &value).await.is_ok()
    })
    .await;
    eventually("the value is read in time", async || {
        client
            .get("", "k")
            .await
            .is_ok_and(|read| read.as_ref() == Some(&value))
    })
    .await;
}

/// The time that this machine takes for the slower of writing and reading a value.
async fn round_trip_time(value: &[u8]) -> Duration {
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(60_000))
        .start()
        .await;
    let client = env.client.timeout(Duration::from_secs(60));
    let started = Instant::now();
    client.set("", "k", value).await.unwrap();
    let written = started.elapsed();
    client.get("", "k").await.unwrap();
    written.max(started.elapsed() - written)
}

// Guarantees: G2
#[tokio::test]
async fn every_function_accepts_arbitrary_keys() {
    let env = TestEnv::start().await;
    let long = long_key();
    let keys: Vec<&str> = ODD_KEYS.iter().copied().chain([long.as_str()]).collect();
    for bucket in ["", "named"] {
        for key in &keys {
            env.client.set(bucket, key, key).await.unwrap();
        }
        for key in &keys {
            let value = env.client.get(bucket, key).await;
            assert_eq!(
                value,
                Ok(Some(key.as_bytes().to_vec())),
                "{key:?} in {bucket:?}"
            );
            assert_eq!(
                env.client.exists(bucket, key).await,
                Ok(true),
                "{key:?} in {bucket:?}"
            );
        }
        let entries = env.client.get_many(bucket, &keys).await.unwrap();
        for (key, entry) in keys.iter().zip(entries) {
            assert_eq!(entry, Some(((*key).to_owned(), key.as_bytes().to_vec())));
        }
        let listed = env.client.keys(bucket).await.unwrap();
        let mut expected: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
        expected.sort();
        assert_eq!(listed, expected, "in bucket {bucket:?}");
        for key in &keys {
            env.client.delete(bucket, key).await.unwrap();
            assert_eq!(
                env.client.exists(bucket, key).await,
                Ok(false),
                "{key:?} in {bucket:?}"
            );
            assert_eq!(
                env.client.increment(bucket, key, 3).await,
                Ok(3),
                "{key:?} in {bucket:?}"
            );
        }
        env.client.delete_many(bucket, &keys).await.unwrap();
        assert_eq!(env.client.keys(bucket).await, Ok(vec![]));
    }
    assert_eq!(
        env.redis.command::<u64>(&["DBSIZE"]).await,
        0,
        "keys are left under other names"
    );
}

// Guarantees: G2
#[tokio::test]
async fn keys_are_not_interpreted_as_patterns() {
    let env = TestEnv::start().await;
    env.client.set("", "abc", b"1").await.unwrap();
    for pattern in ["*", "a*", "???", "[a-z]bc"] {
        assert_eq!(env.client.get("", pattern).await, Ok(None));
        assert_eq!(env.client.exists("", pattern).await, Ok(false));
        env.client.delete("", pattern).await.unwrap();
        env.client.delete_many("", &[pattern]).await.unwrap();
    }
    assert_eq!(env.client.get("", "abc").await, Ok(Some(b"1".to_vec())));
}

// Guarantees: G3
#[tokio::test]
async fn missing_keys_are_not_an_error() {
    let env = TestEnv::start().await;
    assert_eq!(env.client.get("", "missing").await, Ok(None));
    assert_eq!(env.client.exists("", "missing").await, Ok(false));
    assert_eq!(env.client.delete("", "missing").await, Ok(()));
    assert_eq!(
        env.client.delete_many("", &["missing", "too"]).await,
        Ok(())
    );
    assert_eq!(env.client.get_many("", &["missing"]).await, Ok(vec![None]));
}

// Guarantees: G3
#[tokio::test]
async fn deleted_keys_are_missing() {
    let env = TestEnv::start().await;
    env.client.set("", "k", b"v").await.unwrap();
    env.client.delete("", "k").await.unwrap();
    assert_eq!(env.client.get("", "k").await, Ok(None));
    assert_eq!(env.redis.command::<u64>(&["EXISTS", "k"]).await, 0);
}

// Guarantees: G4
#[tokio::test]
async fn other_types_are_handled_as_redis_does() {
    let env = TestEnv::start().await;
    for (create, kind) in [
        (&["RPUSH", "k", "x"][..], "list"),
        (&["SADD", "k", "x"], "set"),
        (&["HSET", "k", "f", "x"], "hash"),
        (&["ZADD", "k", "1", "x"], "zset"),
        (&["XADD", "k", "*", "f", "x"], "stream"),
    ] {
        let make = async || env.redis.command::<redis::Value>(create).await;
        make().await;
        let error = other_error(env.client.get("", "k").await);
        assert!(error.contains("WRONGTYPE"), "get of a {kind}: {error}");
        let error = other_error(env.client.increment("", "k", 1).await);
        assert!(
            error.contains("WRONGTYPE"),
            "increment of a {kind}: {error}"
        );
        assert_eq!(
            env.client.get_many("", &["k"]).await,
            Ok(vec![None]),
            "get-many of a {kind}"
        );
        assert_eq!(
            env.client.exists("", "k").await,
            Ok(true),
            "exists of a {kind}"
        );
        assert_eq!(
            env.client.keys("").await,
            Ok(vec!["k".to_owned()]),
            "list-keys with a {kind}"
        );
        assert_eq!(
            env.redis.command::<String>(&["TYPE", "k"]).await,
            kind,
            "the value was changed"
        );
        env.client.set("", "k", b"v").await.unwrap();
        assert_eq!(
            env.client.get("", "k").await,
            Ok(Some(b"v".to_vec())),
            "set does not replace a {kind}"
        );
        env.client.delete("", "k").await.unwrap();
        make().await;
        env.client.delete("", "k").await.unwrap();
        assert_eq!(
            env.client.exists("", "k").await,
            Ok(false),
            "delete does not delete a {kind}"
        );
        make().await;
        env.client.set_many("", &[("k", b"v")]).await.unwrap();
        assert_eq!(
            env.client.get("", "k").await,
            Ok(Some(b"v".to_vec())),
            "set-many replaces"
        );
        env.client.delete_many("", &["k"]).await.unwrap();
    }
}

// Guarantees: G8
#[tokio::test]
async fn a_caller_reads_its_own_writes() {
    let env = TestEnv::start().await;
    let rounds = (0..32_u32).map(async |worker| {
        let key = format!("k{worker}");
        for round in 0..20_u32 {
            let value = format!("{worker}-{round}").into_bytes();
            env.client.set("b", &key, &value).await?;
            assert_eq!(env.client.get("b", &key).await?, Some(value.clone()));
            let entries = env.client.get_many("b", &[&key]).await?;
            assert_eq!(entries, [Some((key.clone(), value))]);
            env.client.delete("b", &key).await?;
            assert!(!env.client.exists("b", &key).await?);
            env.client.set_many("b", &[(&*key, b"5")]).await?;
            assert_eq!(env.client.increment("b", &key, 1).await?, 6);
            assert_eq!(env.client.get("b", &key).await?, Some(b"6".to_vec()));
            env.client.delete_many("b", &[&key]).await?;
            assert_eq!(env.client.get("b", &key).await?, None);
        }
        Ok::<_, Error>(())
    });
    for result in join_all(rounds).await {
        result.unwrap();
    }
}

// Guarantees: G8
#[tokio::test]
async fn sixty_four_concurrent_callers_do_not_interfere() {
    let env = TestEnv::start().await;
    let callers = (0..64_u64).map(async |caller| {
        let own = format!("caller{caller}");
        for round in 0..10_u64 {
            let value = bytes(usize::try_from(caller * 997 + round).unwrap());
            env.client.set(&own, "value", &value).await?;
            env.client.increment("", "shared", 1).await?;
            assert_eq!(env.client.get(&own, "value").await?, Some(value.clone()));
            env.client
                .set_many(&own, &[("x", b"1"), ("y", b"2")])
                .await?;
            let entries = env.client.get_many(&own, &["y", "none", "x"]).await?;
            let entry = |key: &str, value: &[u8]| Some((key.to_owned(), value.to_vec()));
            assert_eq!(entries, [entry("y", b"2"), None, entry("x", b"1")]);
            assert_eq!(env.client.increment(&own, "n", 2).await?, 2 * (round + 1));
            if round % 5 == 0 {
                assert_eq!(env.client.keys(&own).await?, ["n", "value", "x", "y"]);
            }
            env.client.delete_many(&own, &["x", "y"]).await?;
            assert!(!env.client.exists(&own, "x").await?);
        }
        Ok::<_, Error>(())
    });
    for result in join_all(callers).await {
        result.unwrap();
    }
    assert_eq!(
        env.client.get("", "shared").await,
        Ok(Some(b"640".to_vec()))
    );
}
