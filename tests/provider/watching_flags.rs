//! Contract §2 "Watching": Redis servers that do not tell of changes, or do not say whether they do.

use redis::Value;

use crate::common::host::Link;
use crate::common::redis::Redis;
use crate::common::wait::{eventually, eventually_some};
use crate::common::world::World;
use crate::watching::{WATCHER, notify};
use crate::watching_failures::set;

#[tokio::test]
async fn missing_flags_are_named_until_somebody_sets_them() {
    let w = World::builder().unlinked().start().await;
    let () = w
        .redis
        .ask(&["CONFIG", "SET", "notify-keyspace-events", "Elg"])
        .await;
    let component = w.component(WATCHER).await;
    w.watch(WATCHER, "default", &[("WATCH", "SET@k,DEL@k")])
        .await;
    let health = eventually_some("the health says so", async || {
        w.host.health().await.filter(|health| !health.healthy)
    })
    .await;
    let message = health.message.unwrap();
    let command = message
        .split('`')
        .find(|part| part.starts_with("CONFIG SET"))
        .expect("the command in backquotes")
        .to_owned();
    assert!(message.contains(WATCHER), "{message}");
    w.provider.logged(&["ERROR", &command]).await;
    set(&w.redis, "k", "unheard").await;
    // The operator does as told; delivery starts, and in time the health is good again.
    let words: Vec<&str> = command.split(' ').collect();
    let () = w.redis.ask(&words).await;
    let flags = flags(&w.redis).await;
    assert!(
        "ElgK$xe".chars().all(|flag| flags.contains(flag)),
        "{flags}"
    );
    set(&w.redis, "k", "heard").await;
    assert_eq!(component.told_of("k").await.value.unwrap(), b"heard");
    assert_eq!(component.count(), 1);
    eventually("the health is good", async || {
        w.host.health().await.is_some_and(|health| health.healthy)
    })
    .await;
}

#[tokio::test]
async fn flags_are_added_where_that_is_allowed_and_none_is_removed() {
    let w = World::builder().unlinked().start().await;
    let () = w
        .redis
        .ask(&["CONFIG", "SET", "notify-keyspace-events", "El"])
        .await;
    let component = w.component(WATCHER).await;
    let config = [("WATCH", "SET@k"), ("WATCH_CONFIGURE_REDIS", "true")];
    w.watch(WATCHER, "default", &config).await;
    eventually("the flags are there", async || {
        let flags = flags(&w.redis).await;
        "ElK$g".chars().all(|flag| flags.contains(flag))
    })
    .await;
    assert!(
        !flags(&w.redis).await.contains(['x', 'e']),
        "only what is needed"
    );
    set(&w.redis, "k", "v").await;
    component.told_of("k").await;
    assert!(w.host.health().await.unwrap().healthy);
}

#[tokio::test]
async fn without_config_it_watches_all_the_same() {
    let w = World::builder().unlinked().start().await;
    notify(&w.redis).await;
    let user = [
        "ACL", "SETUSER", "ann", "on", ">pw", "~*", "&*", "+@all", "-config",
    ];
    let () = w.redis.ask(&user).await;
    let component = w.component(WATCHER).await;
    for (name, configure) in [("default", "false"), ("configuring", "true")] {
        let config = [
            ("WATCH", "SET@k"),
            ("USERNAME", "ann"),
            ("PASSWORD", "pw"),
            ("WATCH_CONFIGURE_REDIS", configure),
        ];
        w.watch(WATCHER, name, &config).await;
    }
    set(&w.redis, "k", "v").await;
    eventually("both links tell", async || component.count() == 2).await;
    w.provider
        .logged(&["INFO", "cannot be seen", "NOPERM"])
        .await;
    assert!(w.host.health().await.unwrap().healthy);
}

#[tokio::test]
async fn a_link_that_may_not_subscribe_says_so() {
    let w = World::builder().unlinked().start().await;
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
    let () = w.redis.ask(&user).await;
    let link = Link::new(WATCHER, "default").config(&[
        ("URL", &w.redis.url()),
        ("WATCH", "SET@k"),
        ("USERNAME", "bob"),
        ("PASSWORD", "pw"),
    ]);
    w.host.put_watch(&link).await;
    w.provider
        .logged(&["WARN", WATCHER, "the subscription is refused", "NOPERM"])
        .await;
}

/// The flags that are set.
async fn flags(redis: &Redis) -> String {
    let answer: Vec<Value> = redis
        .ask(&["CONFIG", "GET", "notify-keyspace-events"])
        .await;
    redis::from_redis_value(answer[1].clone()).unwrap()
}
