//! Watching: Redis servers without keyspace notifications, or that hide whether they are enabled.

// Guarantees: G41

use redis::Value;
use test_support::host::Link;
use test_support::redis::Redis;
use test_support::test_env::TestEnv;
use test_support::wait::{eventually, eventually_some};

use crate::watching::{WATCHER, notify};
use crate::watching_failures::set;

#[tokio::test]
async fn missing_notification_flags_are_reported_until_they_are_set() {
    let env = TestEnv::builder().unlinked().start().await;
    let () = env
        .redis
        .command(&["CONFIG", "SET", "notify-keyspace-events", "Elg"])
        .await;
    let component = env.component(WATCHER).await;
    env.watch(WATCHER, "default", &[("WATCH", "SET@k,DEL@k")])
        .await;
    let health = eventually_some("the health report names the flags", async || {
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
    // The operator runs the command; delivery starts, and health recovers.
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
    eventually("the provider is healthy", async || {
        env.host.health().await.is_some_and(|health| health.healthy)
    })
    .await;
}

#[tokio::test]
async fn watch_configure_redis_adds_flags_and_removes_none() {
    let env = TestEnv::builder().unlinked().start().await;
    let () = env
        .redis
        .command(&["CONFIG", "SET", "notify-keyspace-events", "El"])
        .await;
    let component = env.component(WATCHER).await;
    let config = [("WATCH", "SET@k"), ("WATCH_CONFIGURE_REDIS", "true")];
    env.watch(WATCHER, "default", &config).await;
    eventually("the flags are set", async || {
        let flags = flags(&env.redis).await;
        "ElK$g".chars().all(|flag| flags.contains(flag))
    })
    .await;
    assert!(
        !flags(&env.redis).await.contains(['x', 'e']),
        "flags beyond the necessary ones"
    );
    set(&env.redis, "k", "v").await;
    component.wait_for_call("k").await;
    assert!(env.host.health().await.unwrap().healthy);
}

#[tokio::test]
async fn watching_works_without_permission_for_config() {
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
    eventually("changes of both links have arrived", async || {
        component.call_count() == 2
    })
    .await;
    env.provider
        .wait_for_log(&["INFO", "cannot read notify-keyspace-events", "NOPERM"])
        .await;
    assert!(env.host.health().await.unwrap().healthy);
}

#[tokio::test]
async fn a_denied_subscription_is_logged() {
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

/// The notification flags that are set.
async fn flags(redis: &Redis) -> String {
    let result: Vec<Value> = redis
        .command(&["CONFIG", "GET", "notify-keyspace-events"])
        .await;
    redis::from_redis_value(result[1].clone()).unwrap()
}
