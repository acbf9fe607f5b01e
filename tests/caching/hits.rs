//! What is answered from memory, how much is kept, and for how long.

use std::time::Duration;

use futures_util::future::join_all;
use test_support::host::Link;
use test_support::redis::Redis;
use test_support::test_env::TestEnv;
use test_support::wait::{eventually, eventually_eq};
use tokio::time::Instant;

use crate::{CACHED, behind_a_proxy, cached};

/// How many commands about keys Redis has run.
async fn reads(redis: &Redis) -> u64 {
    let mut sum = 0;
    for command in ["get", "exists", "mget", "pttl"] {
        sum += redis.calls(command).await;
    }
    sum
}

#[tokio::test]
async fn what_has_been_read_is_answered_without_redis() {
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
    assert_eq!(reads(&env.redis).await, before, "Redis was asked");
    // What is not all in memory is asked as a whole.
    let many = env.client.get_many("", &["k", "unread"]).await.unwrap();
    assert_eq!(many, [Some(("k".to_owned(), value.clone())), None]);
    assert_eq!(env.redis.calls("mget").await, 1);
}

#[tokio::test]
async fn nothing_is_kept_unless_asked_for() {
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
    eventually_eq("the connection tracks", tracking, async || {
        flags(&env).await
    })
    .await;
}

/// The flags that `CLIENT LIST` has for the connections of kvredis.
async fn flags(env: &TestEnv) -> Vec<String> {
    let clients = env.redis.kvredis_clients().await;
    clients
        .iter()
        .map(|client| client["flags"].clone())
        .collect()
}

#[tokio::test]
async fn the_least_recently_used_makes_room() {
    let env = TestEnv::with(&[CACHED, &[("CACHE_MAX_ENTRIES", "3")]].concat()).await;
    let read = async |key: &str| {
        let before = env.redis.calls("get").await;
        assert_eq!(env.client.get("", key).await, Ok(None));
        env.redis.calls("get").await == before
    };
    for key in ["a", "b", "c"] {
        assert!(!read(key).await, "{key} cannot be known yet");
    }
    assert!(read("a").await);
    assert!(!read("d").await);
    assert!(read("a").await && read("c").await && read("d").await);
    assert!(!read("b").await, "b was used least recently");
}

#[tokio::test]
async fn bytes_are_limited_too() {
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
    assert_eq!(env.redis.calls("get").await, before, "three fit");
    env.client.get("", "a").await.unwrap();
    assert_eq!(env.redis.calls("get").await, before + 1, "four do not");
    env.client
        .set("", "large", vec![7; 2_000_000])
        .await
        .unwrap();
    for _ in 0..3 {
        env.client.get("", "large").await.unwrap();
    }
    assert_eq!(env.redis.calls("get").await, before + 4);
    env.client.get("", "d").await.unwrap();
    assert_eq!(env.redis.calls("get").await, before + 4, "the others stay");
}

#[tokio::test]
async fn concurrent_readers_of_a_key_ask_once() {
    let (env, proxy) = behind_a_proxy(|builder| builder).await;
    env.client.set("", "k", b"v").await.unwrap();
    proxy.hold_replies();
    let began = Instant::now();
    let calls = join_all((0..200).map(|_| env.client.get("", "k")));
    let (answers, ()) = tokio::join!(calls, async {
        eventually("Redis has answered", async || proxy.has_held_replies()).await;
        env.client.probe().await.unwrap();
        proxy.release();
    });
    for answer in answers {
        assert_eq!(answer, Ok(Some(b"v".to_vec())));
    }
    // A read is joined for 100 ms; a busy machine may need more for so many calls.
    let most = 1 + began.elapsed().as_millis() as usize / 100;
    assert!(
        proxy.command_count("GET") <= most,
        "{} reads",
        proxy.command_count("GET")
    );
}

/// Whoever comes later than that is not answered with what was there before.
#[tokio::test]
async fn a_read_that_takes_long_is_not_joined() {
    let (env, proxy) = behind_a_proxy(|builder| builder).await;
    env.client.set("", "k", b"old").await.unwrap();
    proxy.hold_replies();
    let (early, late) = tokio::join!(env.client.get("", "k"), async {
        eventually("Redis has answered", async || proxy.has_held_replies()).await;
        let () = env.redis.command(&["SET", "k", "new"]).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        let gets = proxy.command_count("GET");
        let (late, ()) = tokio::join!(env.client.get("", "k"), async {
            eventually("it asks itself", async || proxy.command_count("GET") > gets).await;
            proxy.release();
        });
        late
    });
    assert_eq!(early, Ok(Some(b"old".to_vec())));
    assert_eq!(late, Ok(Some(b"new".to_vec())));
    assert_eq!(env.client.get("", "k").await, Ok(Some(b"new".to_vec())));
}

#[tokio::test]
async fn values_outlive_neither_their_limit_nor_their_key() {
    let env = TestEnv::with(&[CACHED, &[("CACHE_TTL_MS", "400")]].concat()).await;
    // Redis tells of no change here: it is another database that comes to this one's place.
    env.redis.command_in::<()>(1, &["SET", "k", "one"]).await;
    env.client.set("", "k", b"zero").await.unwrap();
    assert_eq!(env.client.get("", "k").await, Ok(Some(b"zero".to_vec())));
    let () = env.redis.command(&["SWAPDB", "0", "1"]).await;
    eventually("the limit is over", async || {
        env.client.get("", "k").await == Ok(Some(b"one".to_vec()))
    })
    .await;

    let mut redis = Redis::start().await;
    // Redis 6.2 allows DEBUG without being told, and ends at an option that it does not know.
    let option: Vec<String> = redis
        .command(&["CONFIG", "GET", "enable-debug-command"])
        .await;
    if !option.is_empty() {
        redis.restart_with(&["--enable-debug-command", "yes"]).await;
    }
    let env = TestEnv::builder().redis(redis).config(CACHED).start().await;
    // Expired keys stay where they are until somebody asks for them, and nobody is told.
    let () = env
        .redis
        .command(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"])
        .await;
    let () = env.redis.command(&["SET", "k", "v", "PX", "500"]).await;
    assert_eq!(env.client.get("", "k").await, Ok(Some(b"v".to_vec())));
    let before = env.redis.calls("get").await;
    assert_eq!(env.client.get("", "k").await, Ok(Some(b"v".to_vec())));
    assert_eq!(env.redis.calls("get").await, before);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        env.client.get("", "k").await,
        Ok(None),
        "the key has expired"
    );
}

#[tokio::test]
async fn links_that_share_a_connection_share_what_is_kept() {
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
    // One that keeps nothing asks.
    assert_eq!(c.get("", "k").await, Ok(Some(b"v".to_vec())));
    assert_eq!(env.redis.calls("get").await, before + 1);
    assert_eq!(env.redis.connections().await, 2);
    b.set("", "k", b"w").await.unwrap();
    assert_eq!(b.get("", "k").await, Ok(Some(b"w".to_vec())));
    eventually("the other one hears of it", async || {
        a.get("", "k").await == Ok(Some(b"w".to_vec()))
    })
    .await;
}
