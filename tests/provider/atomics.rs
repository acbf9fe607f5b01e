//! `atomics`: `increment` and its limits.

// Guarantees: G5

use futures_util::future::join_all;
use test_support::client::{Error, other_error};
use test_support::host::Link;
use test_support::redis::Redis;
use test_support::test_env::TestEnv;

const MAX: u64 = i64::MAX as u64;

#[tokio::test]
async fn increment_creates_and_adds() {
    let env = TestEnv::start().await;
    assert_eq!(
        env.client.increment("", "n", 5).await,
        Ok(5),
        "a missing key starts at delta"
    );
    assert_eq!(env.client.increment("", "n", 1).await, Ok(6));
    assert_eq!(
        env.client.get("", "n").await,
        Ok(Some(b"6".to_vec())),
        "the value is a decimal integer"
    );
    env.client.set("", "set", b"41").await.unwrap();
    assert_eq!(
        env.client.increment("", "set", 1).await,
        Ok(42),
        "increment of a value written by `set`"
    );
}

#[tokio::test]
async fn a_delta_of_zero_returns_or_creates_the_value() {
    let env = TestEnv::start().await;
    assert_eq!(env.client.increment("", "n", 0).await, Ok(0));
    assert_eq!(env.redis.command::<String>(&["GET", "n"]).await, "0");
    assert_eq!(env.client.increment("", "n", 7).await, Ok(7));
    assert_eq!(env.client.increment("", "n", 0).await, Ok(7));
}

#[tokio::test]
async fn increment_is_exact_beyond_the_precision_of_a_double() {
    let env = TestEnv::start().await;
    let odd = (1 << 53) + 1;
    assert_eq!(env.client.increment("", "n", odd).await, Ok(odd));
    assert_eq!(env.client.increment("", "n", 2).await, Ok(odd + 2));
    assert_eq!(
        env.redis.command::<String>(&["GET", "n"]).await,
        (odd + 2).to_string()
    );
    let large = MAX - 6;
    env.client
        .set("", "large", large.to_string())
        .await
        .unwrap();
    assert_eq!(env.client.increment("", "large", 5).await, Ok(large + 5));
    assert_eq!(
        env.redis.command::<String>(&["GET", "large"]).await,
        (large + 5).to_string()
    );
}

#[tokio::test]
async fn increment_stops_at_the_maximum_integer() {
    let env = TestEnv::start().await;
    assert_eq!(
        env.client.increment("", "n", MAX).await,
        Ok(MAX),
        "a missing key"
    );
    assert_unchanged_after_error(&env, Some(&MAX.to_string()), 1).await;
    assert_unchanged_after_error(&env, Some(&MAX.to_string()), MAX).await;
    assert_unchanged_after_error(&env, Some("1"), MAX).await;
    assert_eq!(
        set_and_increment(&env, &(MAX - 1).to_string(), 1).await,
        Ok(MAX),
        "the last step"
    );
}

#[tokio::test]
async fn a_delta_above_the_maximum_integer_is_an_error() {
    let env = TestEnv::start().await;
    for delta in [MAX + 1, MAX + 2, u64::MAX - 1, u64::MAX] {
        assert_unchanged_after_error(&env, None, delta).await;
        assert_unchanged_after_error(&env, Some("0"), delta).await;
        assert_unchanged_after_error(&env, Some("-9223372036854775808"), delta).await;
    }
}

#[tokio::test]
async fn a_negative_result_is_an_error_and_leaves_the_value_unchanged() {
    let env = TestEnv::start().await;
    assert_unchanged_after_error(&env, Some("-5"), 3).await;
    assert_unchanged_after_error(&env, Some("-5"), 0).await;
    assert_unchanged_after_error(&env, Some("-5"), 4).await;
    assert_unchanged_after_error(&env, Some("-9223372036854775808"), MAX).await;
    assert_eq!(
        set_and_increment(&env, "-5", 10).await,
        Ok(5),
        "a result that is not negative"
    );
    assert_eq!(set_and_increment(&env, "-5", 5).await, Ok(0));
    let large = "-9007199254740993";
    assert_eq!(
        set_and_increment(&env, large, (1 << 53) + 2).await,
        Ok(1),
        "the result is exact at the limit, too"
    );
}

/// Undoing an increment needs no permission beyond the documented ones.
// Guarantees: G26
#[tokio::test]
async fn the_documented_permissions_suffice_for_undoing_an_increment() {
    let env = TestEnv::builder().unlinked().start().await;
    let rules = "on >pw ~* +evalsha +eval +incrby +get";
    let words = [
        &["ACL", "SETUSER", "app"][..],
        &rules.split(' ').collect::<Vec<_>>(),
    ];
    let () = env.redis.command(&words.concat()).await;
    let () = env.redis.command(&["SET", "n", "-5"]).await;
    let link = Link::new("c", "default")
        .config(&[("URL", &env.redis.url())])
        .secrets(&[("USERNAME", "app"), ("PASSWORD", "pw")]);
    let client = env.add_link(&link).await;
    other_error(client.increment("", "n", 3).await);
    assert_eq!(env.redis.command::<String>(&["GET", "n"]).await, "-5");
    assert_eq!(client.increment("", "n", 6).await, Ok(1));
}

/// A user who may run `INCRBY` but not the commands that accompany it gets an error, and the value is
/// unchanged.
#[tokio::test]
async fn a_denied_increment_leaves_the_value_unchanged() {
    let env = TestEnv::builder().unlinked().start().await;
    let url = env.redis.url();
    for (i, (rights, before, ttl)) in [
        ("+incrby", "7", Some("60000")),
        ("+incrby +pttl", "7", Some("60000")),
        ("+incrby", "9007199254740992", None),
    ]
    .into_iter()
    .enumerate()
    {
        let user = format!("app{i}");
        let mut rules = vec![
            "ACL", "SETUSER", &user, "on", ">pw", "~*", "+evalsha", "+eval",
        ];
        rules.extend(rights.split(' '));
        let () = env.redis.command(&rules).await;
        let () = env.redis.command(&["SET", "n", before]).await;
        let mut link = Link::new("c", &user)
            .config(&[("URL", &url)])
            .secrets(&[("USERNAME", &user), ("PASSWORD", "pw")]);
        if let Some(ttl) = ttl {
            link = link.config(&[("TTL_MS", ttl)]);
        }
        let client = env.add_link(&link).await;
        let refused = client.increment("", "n", 3).await;
        assert_eq!(refused, Err(Error::AccessDenied), "{rights}");
        let now: String = env.redis.command(&["GET", "n"]).await;
        assert_eq!(now, before, "{rights}");
    }
}

#[tokio::test]
async fn a_non_integer_value_is_an_error_and_is_left_unchanged() {
    let env = TestEnv::start().await;
    for value in [
        "",
        "abc",
        "1.5",
        "1e3",
        " 1",
        "1 ",
        "+1",
        "01",
        "0x10",
        "9223372036854775808",
        "-",
        "18446744073709551616",
        "1\n",
    ] {
        assert_unchanged_after_error(&env, Some(value), 1).await;
    }
    let error = other_error(set_and_increment(&env, "stored-data", 1).await);
    assert!(
        error.contains("integer"),
        "the error lacks Redis's message: {error}"
    );
    assert!(
        !error.contains("stored-data"),
        "the error contains stored data: {error}"
    );
}

#[tokio::test]
async fn concurrent_increments_are_not_lost() {
    let env = TestEnv::start().await;
    let mut results = join_all((0..400).map(|_| env.client.increment("b", "n", 1))).await;
    results.sort_by_key(|result| result.clone().unwrap());
    let expected: Vec<_> = (1..=400).map(Ok).collect();
    assert_eq!(results, expected, "results are not distinct");
}

#[tokio::test]
async fn increment_is_atomic_between_links() {
    let env = TestEnv::start().await;
    let other_link = env.link("another", "default", &[]).await;
    let calls = (0..400).map(async |call| {
        let client = if call % 2 == 0 {
            &env.client
        } else {
            &other_link
        };
        client.increment("", "n", 3).await
    });
    for result in join_all(calls).await {
        result.unwrap();
    }
    assert_eq!(env.redis.command::<u64>(&["GET", "n"]).await, 1200);
}

/// Asserts that an increment that the interface does not allow leaves the stored value unchanged.
async fn assert_unchanged_after_error(env: &TestEnv, stored: Option<&str>, delta: u64) {
    store(&env.redis, stored).await;
    let error = other_error(env.client.increment("", "n", delta).await);
    assert!(
        !error.is_empty() && !error.contains('\n'),
        "the error is not a single line: {error:?}"
    );
    let after: Option<String> = env.redis.command(&["GET", "n"]).await;
    assert_eq!(
        after.as_deref(),
        stored,
        "after an increment by {delta}: {error}"
    );
}

async fn set_and_increment(env: &TestEnv, stored: &str, delta: u64) -> Result<u64, Error> {
    store(&env.redis, Some(stored)).await;
    env.client.increment("", "n", delta).await
}

async fn store(redis: &Redis, value: Option<&str>) {
    let _: redis::Value = match value {
        Some(value) => redis.command(&["SET", "n", value]).await,
        None => redis.command(&["DEL", "n"]).await,
    };
}
