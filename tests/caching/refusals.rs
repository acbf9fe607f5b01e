//! Servers that do not tell of changes: nothing is kept, the log says why, and all answers are
//! right.

use crate::CACHED;
use crate::common::redis::Redis;
use crate::common::world::World;

const WARNING: &str = "nothing that is read is kept in memory";

/// Checks that everything is answered by Redis itself, and that the log says so once.
async fn keeps_nothing(w: &mut World, reason: &str) {
    let c = &w.client;
    c.set("", "k", b"0").await.unwrap();
    let before = w.redis.calls("get").await;
    for round in 1..=20_u64 {
        assert_eq!(
            c.get("", "k").await,
            Ok(Some((round - 1).to_string().into_bytes()))
        );
        let () = w.redis.ask(&["SET", "k", &round.to_string()]).await;
    }
    assert_eq!(c.get("", "missing").await, Ok(None));
    assert_eq!(c.increment("", "k", 1).await, Ok(21));
    assert_eq!(w.redis.calls("get").await, before + 21);
    w.provider.logged(&["WARN", WARNING, reason]).await;
    assert_eq!(w.provider.count_logged(&[WARNING]).await, 1);
}

/// A world with a user who may do everything but this.
async fn without(rights: &[&str]) -> World {
    let redis = Redis::start().await;
    let mut user = vec!["ACL", "SETUSER", "ann", "on", ">secret", "~*", "+@all"];
    user.extend(rights);
    let () = redis.ask(&user).await;
    World::builder()
        .redis(redis)
        .config(CACHED)
        .config(&[("USERNAME", "ann"), ("PASSWORD", "secret")])
        .start()
        .await
}

#[tokio::test]
async fn an_acl_may_forbid_tracking() {
    // Redis 6.2 can allow single subcommands, but not forbid them.
    let mut w = without(&["-client", "+client|setname"]).await;
    keeps_nothing(&mut w, "NOPERM").await;
}

#[tokio::test]
async fn an_acl_may_forbid_to_say_what_is_kept() {
    let mut w = without(&["-client|caching"]).await;
    keeps_nothing(&mut w, "NOPERM").await;
}

#[tokio::test]
async fn an_acl_may_forbid_to_ask_how_long_a_key_lives() {
    let mut w = without(&["-pttl"]).await;
    keeps_nothing(&mut w, "PTTL").await;
}

/// As Redis before 6, and whatever else speaks only RESP2.
#[tokio::test]
async fn a_server_may_not_know_the_protocol() {
    let redis = Redis::with_arguments(&["--rename-command", "HELLO", ""]).await;
    let mut w = World::builder().redis(redis).config(CACHED).start().await;
    keeps_nothing(&mut w, "HELLO").await;
}

#[tokio::test]
async fn the_rights_that_the_readme_names_are_enough() {
    let redis = Redis::start().await;
    let rights = [
        "ACL",
        "SETUSER",
        "ann",
        "on",
        ">secret",
        "~*",
        "-@all",
        "+ping",
        "+client|setname",
        "+get",
        "+set",
        "+del",
        "+exists",
        "+scan",
        "+client|tracking",
        "+client|caching",
        "+pttl",
    ];
    let () = redis.ask(&rights).await;
    let w = World::builder()
        .redis(redis)
        .config(CACHED)
        .config(&[("USERNAME", "ann"), ("PASSWORD", "secret")])
        .start()
        .await;
    w.client.set("", "k", b"v").await.unwrap();
    for _ in 0..5 {
        assert_eq!(w.client.get("", "k").await, Ok(Some(b"v".to_vec())));
    }
    assert_eq!(w.redis.calls("get").await, 1);
}

/// What is wrong with the log-in is said as without a cache.
#[tokio::test]
async fn wrong_credentials_are_answered_in_the_words_of_redis() {
    let redis = Redis::with_password("right").await;
    let w = World::builder()
        .redis(redis)
        .config(CACHED)
        .config(&[("PASSWORD", "wrong")])
        .start()
        .await;
    let error = crate::common::client::other(w.client.get("", "k").await);
    assert!(error.contains("WRONGPASS"), "{error}");
}
