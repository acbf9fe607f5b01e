//! Contract §2 "Watching": Redis servers that do not tell of changes, or do not say whether they do.

use redis::Value;
use test_support::host::Link;
use test_support::redis::Redis;
use test_support::test_env::TestEnv;
use test_support::wait::{eventually, eventually_some};

use crate::watching::{WATCHER, notify};
use crate::watching_failures::set;

#[tokio::test]
async fn missing_flags_are_named_until_somebody_sets_them() {
    let env = TestEnv::builder().unlinked().start().await;
    let () = env
        .redis
        .command(&["CONFIG", "SET", "notify-keyspace-events", "Elg"])
        .await;
    let component = env.component(WATCHER).await;
    env.watch(WATCHER, "default", &[("WATCH", "SET@k,DEL@k")])
        .await;
    let health = eventually_some("the health says so", async || {
        env.host.health().await.filter(|health| !health.healthy)
    })
    .await;
    let message = health.message.unwrap();
    let command = message
        .split('`')
        .find(|part| part.starts_with("CONFIG SET"))
        .expect("the command in backquotes")
        .to_owned();
    assert!(message.contains(WATCHER), "{message}");
    env.provider.wait_for_log(&["ERROR", &command]).await;
    set(&env.redis, "k", "unheard").await;
    // The operator does as told; delivery starts, and in time the health is good again.
    let words: Vec<&str> = command.split(' ').collect();
    let () = env.redis.command(&words).await;
    let flags = flags(&env.redis).await;
    assert!(
        "ElgK$xe".chars().all(|flag| flags.contains(flag)),
        "{flags}"
    );
    set(&env.redis, "k", "heard").await;
    assert_eq!(component.wait_for_call("k").await.value.unwrap(), b"heard");
    assert_eq!(component.call_count(), 1);
    eventually("the health is good", async || {
        env.host.health().await.is_some_and(|health| health.healthy)
    })
    .await;
}

#[tokio::test]
async fn flags_are_added_where_that_is_allowed_and_none_is_removed() {
    let env = TestEnv::builder().unlinked().start().await;
    let () = env
        .redis
        .command(&["CONFIG", "SET", "notify-keyspace-events", "El"])
        .await;
    let component = env.component(WATCHER).await;
    let config = [("WATCH", "SET@k"), ("WATCH_CONFIGURE_REDIS", "true")];
    env.watch(WATCHER, "default", &config).await;
    eventually("the flags are there", async || {
        let flags = flags(&env.redis).await;
        "ElK$g".chars().all(|flag| flags.contains(flag))
    })
    .await;
    assert!(
        !flags(&env.redis).await.contains(['x', 'e']),
        "only what is needed"
    );
    set(&env.redis, "k", "v").await;
    component.wait_for_call("k").await;
    assert!(env.host.health().await.unwrap().healthy);
}

#[tokio::test]
async fn without_config_it_watches_all_the_same() {
    let env = TestEnv::builder().unlinked().start().await;
    notify(&env.redis).await;
    let user = [
        "ACL", "SETUSER", "ann", "on", ">pw", "~*", "&*", "+@all", "-config",
    ];
    let () = env.redis.command(&user).await;
    let component = env.component(WATCHER).await;
    for (name, configure) in [("default", "false"), ("configuring", "true")] {
        let config = [
            ("WATCH", "SET@k"),
            ("USERNAME", "ann"),
            ("PASSWORD", "pw"),
            ("WATCH_CONFIGURE_REDIS", configure),
        ];
        env.watch(WATCHER, name, &config).await;
    }
    set(&env.redis, "k", "v").await;
    eventually("both links tell", async || component.call_count() == 2).await;
    env.provider
        .wait_for_log(&["INFO", "cannot be seen", "NOPERM"])
        .await;
    assert!(env.host.health().await.unwrap().healthy);
}

#[tokio::test]
async fn a_link_that_may_not_subscribe_says_so() {
    let env = TestEnv::builder().unlinked().start().await;
    let user = [
        "ACL",
        "SETUSER",
        "bob",
        "on",
        ">pw",
        "~*",
        "resetchannels",
        "+@all",
    ];
    let () = env.redis.command(&user).await;
    let link = Link::new(WATCHER, "default").config(&[
        ("URL", &env.redis.url()),
        ("WATCH", "SET@k"),
        ("USERNAME", "bob"),
        ("PASSWORD", "pw"),
    ]);
    env.host.put_watch(&link).await;
    env.provider
        .wait_for_log(&["WARN", WATCHER, "the subscription is refused", "NOPERM"])
        .await;
}

/// The flags that are set.
async fn flags(redis: &Redis) -> String {
    let answer: Vec<Value> = redis
        .command(&["CONFIG", "GET", "notify-keyspace-events"])
        .await;
    redis::from_redis_value(answer[1].clone()).unwrap()
}
