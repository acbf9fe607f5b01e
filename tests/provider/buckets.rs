//! Buckets: the three layouts as stored in Redis, `PREFIX` and `BUCKETS`.

// Guarantees: G24

use test_support::client::{Client, Error};
use test_support::redis::Redis;
use test_support::test_env::{COMPONENT, TestEnv};

#[tokio::test]
async fn prefix_named_is_the_default_layout() {
    let env = TestEnv::start().await;
    writes(&env, &env.client, "", "k1", "k1").await;
    writes(&env, &env.client, "default", "k2", "k2").await;
    writes(&env, &env.client, "b", "k3", "b:k3").await;
    writes(&env, &env.client, "with space", "k:4", "with space:k:4").await;
    assert_eq!(
        env.client.get("", "k2").await,
        Ok(Some(b"k2".to_vec())),
        "both names denote one bucket"
    );
    assert_eq!(env.client.keys("b").await.unwrap(), ["k3"]);
    let all = ["b:k3", "k1", "k2", "with space:k:4"];
    assert_eq!(
        env.client.keys("").await.unwrap(),
        all,
        "the default bucket contains all keys"
    );
    assert_eq!(env.client.keys("default").await.unwrap(), all);
}

#[tokio::test]
async fn prefix_all_prefixes_every_bucket() {
    let env = TestEnv::with(&[("BUCKET_LAYOUT", "prefix-all")]).await;
    writes(&env, &env.client, "default", "k1", "default:k1").await;
    writes(&env, &env.client, "b", "k2", "b:k2").await;
    writes(&env, &env.client, "", "k3", ":k3").await;
    let () = env.redis.command(&["SET", "plain", "v"]).await;
    assert_eq!(env.client.keys("default").await.unwrap(), ["k1"]);
    assert_eq!(env.client.keys("b").await.unwrap(), ["k2"]);
    assert_eq!(env.client.keys("").await.unwrap(), ["k3"]);
}

#[tokio::test]
async fn flat_ignores_bucket_names() {
    let env = TestEnv::with(&[("BUCKET_LAYOUT", "flat")]).await;
    writes(&env, &env.client, "", "k1", "k1").await;
    writes(&env, &env.client, "default", "k2", "k2").await;
    writes(&env, &env.client, "b", "k3", "k3").await;
    writes(&env, &env.client, "with:colon", "k4", "k4").await;
    for bucket in ["", "default", "b", "other", "with:colon"] {
        assert_eq!(env.client.get(bucket, "k3").await, Ok(Some(b"k3".to_vec())));
        assert_eq!(
            env.client.keys(bucket).await.unwrap(),
            ["k1", "k2", "k3", "k4"]
        );
    }
}

#[tokio::test]
async fn prefix_precedes_the_bucket() {
    for (layout, plain, named) in [
        ("prefix-named", "app/plain", "app/b:named"),
        ("prefix-all", "app/default:plain", "app/b:named"),
        ("flat", "app/plain", "app/named"),
    ] {
        let env = TestEnv::with(&[("BUCKET_LAYOUT", layout), ("PREFIX", "app/")]).await;
        let () = env
            .redis
            .command(&["MSET", "plain", "x", "b:named", "x", "other/b:named", "x"])
            .await;
        writes(&env, &env.client, "default", "plain", plain).await;
        writes(&env, &env.client, "b", "named", named).await;
        assert_eq!(env.client.get("b", "other/b:named").await, Ok(None));
        let keys = env.client.keys("b").await.unwrap();
        let expected: &[&str] = if layout == "flat" {
            &["named", "plain"]
        } else {
            &["named"]
        };
        assert_eq!(
            keys, expected,
            "{layout}: keys are listed without the prefix"
        );
        let mut all: Vec<String> = env.redis.command(&["KEYS", "app/*"]).await;
        all.sort();
        let mut written = [plain, named];
        written.sort_unstable();
        assert_eq!(all, written, "{layout}");
    }
}

#[tokio::test]
async fn links_with_different_prefixes_are_isolated() {
    let env = TestEnv::with(&[("PREFIX", "one:")]).await;
    let other = env.link("other", "default", &[("PREFIX", "two:")]).await;
    env.client.set("", "k", b"1").await.unwrap();
    other.set("", "k", b"2").await.unwrap();
    assert_eq!(env.client.get("", "k").await, Ok(Some(b"1".to_vec())));
    assert_eq!(env.client.keys("").await.unwrap(), ["k"]);
    assert_eq!(other.get("", "k").await, Ok(Some(b"2".to_vec())));
}

#[tokio::test]
async fn a_bucket_with_a_colon_is_rejected_in_the_prefix_layouts() {
    let env = TestEnv::start().await;
    for layout in ["prefix-named", "prefix-all"] {
        let client = env
            .link(COMPONENT, layout, &[("BUCKET_LAYOUT", layout)])
            .await;
        for bucket in ["a:b", ":", "a:", ":b"] {
            assert_no_such_store(&client, bucket).await;
        }
    }
    assert_eq!(env.redis.command::<u64>(&["DBSIZE"]).await, 0);
}

// Guarantees: G25
#[tokio::test]
async fn only_listed_buckets_exist() {
    let env = TestEnv::start().await;
    for layout in ["prefix-named", "prefix-all", "flat"] {
        let config = [("BUCKET_LAYOUT", layout), ("BUCKETS", "a, b,with space")];
        let client = env.link(COMPONENT, layout, &config).await;
        for bucket in ["a", "b", "with space"] {
            client.set(bucket, "k", b"v").await.unwrap();
        }
        for bucket in ["", "default", "c", "A", "a,b", " b", "ab"] {
            assert_no_such_store(&client, bucket).await;
        }
    }
}

#[tokio::test]
async fn the_default_bucket_can_be_listed_by_name() {
    let env = TestEnv::with(&[("BUCKETS", "default")]).await;
    env.client.set("default", "k", b"v").await.unwrap();
    assert_eq!(
        env.client.get("", "k").await,
        Ok(Some(b"v".to_vec())),
        "the default bucket by its other name"
    );
    assert_eq!(env.client.get("b", "k").await, Err(Error::NoSuchStore));
}

#[tokio::test]
async fn an_implicit_named_bucket_is_logged_once() {
    let mut env = TestEnv::start().await;
    for round in 0..5 {
        env.client.set("sessions", "k", b"v").await.unwrap();
        env.client
            .set(&format!("bucket{round}"), "k", b"v")
            .await
            .unwrap();
    }
    env.provider.wait_for_log(&["flat"]).await;
    assert_eq!(
        env.provider
            .stop_and_count_log(&["BUCKET_LAYOUT", "flat"])
            .await,
        1
    );
}

#[tokio::test]
async fn no_bucket_is_logged_when_configured_or_unused() {
    let mut env = TestEnv::with(&[("BUCKET_LAYOUT", "flat")]).await;
    env.client.set("b", "k", b"v").await.unwrap();
    let client = env.link(COMPONENT, "plain", &[]).await;
    client.set("", "k", b"v").await.unwrap();
    client.set("default", "k", b"v").await.unwrap();
    assert_eq!(env.provider.stop_and_count_log(&["BUCKET_LAYOUT"]).await, 0);
}

/// Writes through kvredis and returns the resulting key in Redis.
async fn writes(env: &TestEnv, client: &Client, bucket: &str, key: &str, expected: &str) {
    client.set(bucket, key, key).await.unwrap();
    assert_eq!(
        stored(&env.redis, expected).await.as_deref(),
        Some(key),
        "{bucket:?} {key:?}"
    );
    assert_eq!(
        client.get(bucket, key).await,
        Ok(Some(key.as_bytes().to_vec()))
    );
    assert_eq!(client.exists(bucket, key).await, Ok(true));
    let found = client.get_many(bucket, &[key]).await.unwrap();
    assert_eq!(found, [Some((key.to_owned(), key.as_bytes().to_vec()))]);
    client.delete(bucket, key).await.unwrap();
    assert_eq!(stored(&env.redis, expected).await, None);
    client.increment(bucket, key, 1).await.unwrap();
    assert_eq!(stored(&env.redis, expected).await.as_deref(), Some("1"));
    client.delete_many(bucket, &[key]).await.unwrap();
    assert_eq!(stored(&env.redis, expected).await, None);
    client.set_many(bucket, &[(key, key)]).await.unwrap();
    assert_eq!(stored(&env.redis, expected).await.as_deref(), Some(key));
}

async fn stored(redis: &Redis, key: &str) -> Option<String> {
    redis.command(&["GET", key]).await
}

async fn assert_no_such_store(client: &Client, bucket: &str) {
    let no = Error::NoSuchStore;
    assert_eq!(
        client.get(bucket, "k").await,
        Err(no.clone()),
        "get in {bucket:?}"
    );
    assert_eq!(
        client.set(bucket, "k", b"v").await,
        Err(no.clone()),
        "set in {bucket:?}"
    );
    assert_eq!(
        client.delete(bucket, "k").await,
        Err(no.clone()),
        "delete in {bucket:?}"
    );
    assert_eq!(
        client.exists(bucket, "k").await,
        Err(no.clone()),
        "exists in {bucket:?}"
    );
    assert_eq!(
        client.list_keys(bucket, None).await,
        Err(no.clone()),
        "list-keys in {bucket:?}"
    );
    assert_eq!(
        client.increment(bucket, "k", 1).await,
        Err(no.clone()),
        "increment in {bucket:?}"
    );
    assert_eq!(
        client.get_many(bucket, &["k"]).await,
        Err(no.clone()),
        "get-many in {bucket:?}"
    );
    let pairs = [("k", b"v")];
    assert_eq!(
        client.set_many(bucket, &pairs).await,
        Err(no.clone()),
        "set-many in {bucket:?}"
    );
    assert_eq!(
        client.delete_many(bucket, &["k"]).await,
        Err(no),
        "delete-many in {bucket:?}"
    );
}
