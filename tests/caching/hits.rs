//! Reads served from the cache, the size limits of the cache, and the lifetime of entries.

// Guarantees: G33

use std::time::Duration;

use futures_util::future::join_all;
use test_support::host::Link;
use test_support::proxy::Proxy;
use test_support::redis::Redis;
use test_support::test_env::{COMPONENT, TestEnv};
use test_support::wait::{eventually, eventually_eq, test_timeout};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{CACHED, behind_a_proxy, cached};

/// The number of commands about keys that Redis has run.
async fn reads(redis: &Redis) -> u64 {
    let mut sum = 0;
    for command in ["get", "exists", "mget", "pttl"] {
        sum += redis.calls(command).await;
    }
    sum
}

#[tokio::test]
async fn cached_reads_send_no_command_to_redis() {
    let env = cached().await;
    let value: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    env.client.set("", "k", &value).await.unwrap();
    env.client.set("named", "k", b"other").await.unwrap();
    env.client.set("", "empty", b"").await.unwrap();
    let check = async || {
        assert_eq!(env.client.get("", "k").await, Ok(Some(value.clone())));
        let other = env.client.get("named", "k").await;
        assert_eq!(other, Ok(Some(b"other".to_vec())));
        assert_eq!(env.client.get("", "missing").await, Ok(None));
        assert_eq!(env.client.get("", "empty").await, Ok(Some(Vec::new())));
    };
    check().await;
    let before = reads(&env.redis).await;
    for _ in 0..20 {
        check().await;
        assert_eq!(env.client.exists("", "k").await, Ok(true));
        assert_eq!(env.client.exists("", "empty").await, Ok(true));
        assert_eq!(env.client.exists("", "missing").await, Ok(false));
        let many = env
            .client
            .get_many("", &["k", "missing", "k"])
            .await
            .unwrap();
        let k = Some(("k".to_owned(), value.clone()));
        assert_eq!(many, [k.clone(), None, k]);
    }
    assert_eq!(
        reads(&env.redis).await,
        before,
        "commands were sent to Redis"
    );
    // A batch that is not cached completely is read as a whole.
    let many = env.client.get_many("", &["k", "unread"]).await.unwrap();
    assert_eq!(many, [Some(("k".to_owned(), value.clone())), None]);
    assert_eq!(env.redis.calls("mget").await, 1);
}

#[tokio::test]
async fn the_cache_is_off_by_default() {
    let env = TestEnv::start().await;
    env.client.set("", "k", b"v").await.unwrap();
    for _ in 0..5 {
        env.client.get("", "k").await.unwrap();
    }
    assert_eq!(env.redis.calls("get").await, 5);
    assert_eq!(env.redis.calls("pttl").await, 0);
    assert_eq!(flags(&env).await, ["N"]);
    let env = cached().await;
    let tracking = vec!["t".to_owned()];
    eventually_eq("client tracking is as expected", tracking, async || {
        flags(&env).await
    })
    .await;
}

/// The flags of kvredis's connections in `CLIENT LIST`.
async fn flags(env: &TestEnv) -> Vec<String> {
    let clients = env.redis.kvredis_clients().await;
    clients
        .iter()
        .map(|client| client["flags"].clone())
        .collect()
}

#[tokio::test]
async fn the_least_recently_used_entry_is_evicted() {
    let env = TestEnv::with(&[CACHED, &[("CACHE_MAX_ENTRIES", "3")]].concat()).await;
    let read = async |key: &str| {
        let before = env.redis.calls("get").await;
        assert_eq!(env.client.get("", key).await, Ok(None));
        env.redis.calls("get").await == before
    };
    for key in ["a", "b", "c"] {
        assert!(!read(key).await, "{key} is cached before it was read");
    }
    assert!(read("a").await);
    assert!(!read("d").await);
    assert!(read("a").await && read("c").await && read("d").await);
    assert!(
        !read("b").await,
        "b was used least recently, so it is evicted"
    );
}

#[tokio::test]
async fn cache_max_bytes_limits_the_cache() {
    let env = TestEnv::with(&[CACHED, &[("CACHE_MAX_BYTES", "1000000")]].concat()).await;
    let value = vec![7; 300_000];
    for key in ["a", "b", "c", "d"] {
        env.client.set("", key, &value).await.unwrap();
        env.client.get("", key).await.unwrap();
    }
    let before = env.redis.calls("get").await;
    for key in ["b", "c", "d"] {
        env.client.get("", key).await.unwrap();
    }
    assert_eq!(env.redis.calls("get").await, before, "three values fit");
    env.client.get("", "a").await.unwrap();
    assert_eq!(
        env.redis.calls("get").await,
        before + 1,
        "four values do not fit"
    );
    env.client
        .set("", "large", vec![7; 2_000_000])
        .await
        .unwrap();
    for _ in 0..3 {
        env.client.get("", "large").await.unwrap();
    }
    assert_eq!(env.redis.calls("get").await, before + 4);
    env.client.get("", "d").await.unwrap();
    assert_eq!(
        env.redis.calls("get").await,
        before + 4,
        "a value that is too large evicts others"
    );
}

#[tokio::test]
async fn concurrent_reads_of_a_key_are_coalesced() {
    let (env, proxy) = behind_a_proxy(|builder| builder).await;
    env.client.set("", "k", b"v").await.unwrap();
    proxy.hold_replies();
    let started = Instant::now();
    let calls = join_all((0..200).map(|_| env.client.get("", "k")));
    let (replies, ()) = tokio::join!(calls, async {
        eventually("Redis has replied", async || proxy.has_held_replies()).await;
        env.client.probe().await.unwrap();
        proxy.release();
    });
    for reply in replies {
        assert_eq!(reply, Ok(Some(b"v".to_vec())));
    }
    // Reads are coalesced for 100 ms; a busy machine may need longer to make so many calls.
    let max_reads = 1 + started.elapsed().as_millis() as usize / 100;
    assert!(
        proxy.command_count("GET") <= max_reads,
        "{} reads",
        proxy.command_count("GET")
    );
}

/// A read is not coalesced with one that started more than 100 ms before it.
#[tokio::test]
async fn a_slow_read_is_not_coalesced_with_later_ones() {
    let (env, proxy) = behind_a_proxy(|builder| builder).await;
    env.client.set("", "k", b"old").await.unwrap();
    proxy.hold_replies();
    let (early, late) = tokio::join!(env.client.get("", "k"), async {
        eventually("Redis has replied", async || proxy.has_held_replies()).await;
        let () = env.redis.command(&["SET", "k", "new"]).await;
        sleep(Duration::from_millis(150)).await;
        let gets = proxy.command_count("GET");
        let (late, ()) = tokio::join!(env.client.get("", "k"), async {
            eventually("the later read sends its own command", async || {
                proxy.command_count("GET") > gets
            })
            .await;
            proxy.release();
        });
        late
    });
    assert_eq!(early, Ok(Some(b"old".to_vec())));
    assert_eq!(late, Ok(Some(b"new".to_vec())));
    assert_eq!(env.client.get("", "k").await, Ok(Some(b"new".to_vec())));
}

#[tokio::test]
async fn cached_values_expire_after_cache_ttl_ms() {
    let env = TestEnv::with(&[CACHED, &[("CACHE_TTL_MS", "400")]].concat()).await;
    // SWAPDB replaces the database without an invalidation.
    env.redis.command_in::<()>(1, &["SET", "k", "one"]).await;
    env.client.set("", "k", b"zero").await.unwrap();
    assert_eq!(env.client.get("", "k").await, Ok(Some(b"zero".to_vec())));
    let () = env.redis.command(&["SWAPDB", "0", "1"]).await;
    eventually("the cached value has expired", async || {
        env.client.get("", "k").await == Ok(Some(b"one".to_vec()))
    })
    .await;
}

#[tokio::test]
async fn cached_values_expire_with_their_key() {
    let mut redis = Redis::start().await;
    // Redis 6.2 allows DEBUG by default, and rejects the option.
    let option: Vec<String> = redis
        .command(&["CONFIG", "GET", "enable-debug-command"])
        .await;
    if !option.is_empty() {
        redis.restart_with(&["--enable-debug-command", "yes"]).await;
    }
    let env = TestEnv::builder().redis(redis).config(CACHED).start().await;
    // Expired keys are deleted only on access, so that Redis sends no invalidation.
    let () = env
        .redis
        .command(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"])
        .await;
    let mut lifetime = Duration::from_millis(500);
    let expired_at = loop {
        let milliseconds = lifetime.as_millis().to_string();
        let before_set = Instant::now();
        let () = env
            .redis
            .command(&["SET", "k", "v", "PX", &milliseconds])
            .await;
        let after_set = Instant::now();
        let first = env.client.get("", "k").await;
        let gets = env.redis.calls("get").await;
        let second = env.client.get("", "k").await;
        let gets = env.redis.calls("get").await - gets;
        // A slow machine may need longer than the key lives, or than the lease of a connection.
        if before_set.elapsed() < lifetime.min(Duration::from_secs(1)) {
            assert_eq!(first, Ok(Some(b"v".to_vec())));
            assert_eq!(second, Ok(Some(b"v".to_vec())));
            assert_eq!(gets, 0, "the second read was not served from the cache");
            break after_set + lifetime;
        }
        lifetime *= 2;
        assert!(
            lifetime < test_timeout(),
            "the machine is too slow for this test"
        );
    };
    // Clocks of Redis tick in milliseconds.
    sleep_until(expired_at + Duration::from_millis(2)).await;
    assert_eq!(
        env.client.get("", "k").await,
        Ok(None),
        "the key has expired"
    );
}

#[tokio::test]
async fn links_that_share_a_connection_share_the_cache() {
    let env = TestEnv::builder().unlinked().start().await;
    let url = env.redis.url();
    let config = [
        CACHED,
        &[("URL", &url), ("SHARE_CONNECTIONS_BY_URL", "true")],
    ]
    .concat();
    let a = env
        .add_link(&Link::new("a", "default").config(&config))
        .await;
    let b = env
        .add_link(&Link::new("b", "default").config(&config))
        .await;
    let plain = [("URL", url.as_str()), ("SHARE_CONNECTIONS_BY_URL", "true")];
    let c = env
        .add_link(&Link::new("c", "default").config(&plain))
        .await;
    a.set("", "k", b"v").await.unwrap();
    a.get("", "k").await.unwrap();
    let before = env.redis.calls("get").await;
    assert_eq!(b.get("", "k").await, Ok(Some(b"v".to_vec())));
    assert_eq!(env.redis.calls("get").await, before);
    // A link without the cache reads from Redis.
    assert_eq!(c.get("", "k").await, Ok(Some(b"v".to_vec())));
    assert_eq!(env.redis.calls("get").await, before + 1);
    assert_eq!(env.redis.connections().await, 2);
    b.set("", "k", b"w").await.unwrap();
    assert_eq!(b.get("", "k").await, Ok(Some(b"w".to_vec())));
    eventually("the write is visible to the other link", async || {
        a.get("", "k").await == Ok(Some(b"w".to_vec()))
    })
    .await;
}

#[tokio::test]
async fn a_call_that_waits_for_the_read_of_another_call_is_not_queued() {
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(60_000))
        .start()
        .await;
    let proxy = Proxy::start(env.redis.port()).await;
    let url = proxy.url();
    let config = [&[("URL", &*url), ("MAX_WAITING", "0")], CACHED].concat();
    let client = env.link(COMPONENT, "unqueued", &config).await;
    eventually("the link is connected", async || {
        client.set("", "k", b"v").await.is_ok()
    })
    .await;
    proxy.hold_replies();
    let reads: Vec<_> = (0..5)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.get("", "k").await })
        })
        .collect();
    eventually("the read is held", async || proxy.has_held_replies()).await;
    proxy.release();
    for value in join_all(reads).await {
        assert_eq!(value.unwrap(), Ok(Some(b"v".to_vec())));
    }
}
