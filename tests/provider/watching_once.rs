//! Contract §2 "Watching": two processes of the provider, with `WATCH_ONCE` and without it.

use std::time::Duration;

use test_support::component::Component;
use test_support::host::Host;
use test_support::host::Link;
use test_support::provider::Provider;
use test_support::test_env::TestEnv;
use test_support::wait::{eventually, eventually_eq};
use tokio::time::Instant;

use crate::watching::{WATCHER, notify};

/// A world with two processes of the provider that both watch for one component.
struct Two {
    env: TestEnv,
    component: Component,
    second: Provider,
    _twin: Host,
}

async fn two(config: &[(&str, &str)]) -> Two {
    let env = TestEnv::builder().unlinked().start().await;
    notify(&env.redis).await;
    let component = env.component(WATCHER).await;
    let twin = env.host.second_host();
    let second = Provider::start(&twin.data());
    env.host.ready_processes(2).await;
    let link = Link::new(WATCHER, "default")
        .config(&[("URL", &env.redis.url())])
        .config(config);
    env.host.put_watch(&link).await;
    env.wait_for_watchers(WATCHER, "default", 1).await;
    if config.contains(&("WATCH_ONCE", "true")) {
        // So that it is known who delivers.
        env.provider.wait_for_log(&["this process delivers"]).await;
    }
    twin.put_watch(&link).await;
    env.wait_for_watchers(WATCHER, "default", 2).await;
    Two {
        env,
        component,
        second,
        _twin: twin,
    }
}

async fn set(env: &TestEnv, value: &str) {
    let () = env.redis.command(&["SET", "k", value]).await;
}

async fn leases(env: &TestEnv) -> Vec<String> {
    env.redis.command(&["KEYS", "*watch-lease*"]).await
}

#[tokio::test]
async fn without_watch_once_each_process_delivers() {
    let Two {
        env,
        component,
        second: _second,
        ..
    } = two(&[("WATCH", "SET@k")]).await;
    set(&env, "v").await;
    eventually("both deliver", async || component.call_count() == 2).await;
    assert_eq!(leases(&env).await, Vec::<String>::new());
}

#[tokio::test]
async fn with_watch_once_one_delivers_and_another_takes_over() {
    let config = [
        ("WATCH", "SET@*,DEL@*"),
        ("WATCH_ONCE", "true"),
        ("PREFIX", "p:"),
    ];
    let Two {
        mut env,
        component,
        second,
        ..
    } = two(&config).await;
    for round in 0..20 {
        let () = env.redis.command(&["SET", "p:k", &round.to_string()]).await;
    }
    eventually("all is told", async || component.call_count() >= 20).await;
    let keys = leases(&env).await;
    let [key] = &keys[..] else {
        panic!("one key: {keys:?}")
    };
    assert!(key.starts_with("p:kvredis:watch-lease:"), "{key}");
    let left: i64 = env.redis.command(&["PTTL", key]).await;
    assert!((1..=3_000).contains(&left), "it expires: {left}");

    env.provider.kill();
    let killed = Instant::now();
    eventually("the other one delivers", async || {
        let () = env.redis.command(&["SET", "p:k", "over"]).await;
        component
            .call_summaries()
            .iter()
            .any(|(_, _, value)| value == "over")
    })
    .await;
    let after = killed.elapsed();
    eprintln!("the other process delivers after {after:?}");
    // Five seconds by the contract; as many again for machines under load.
    assert!(after < Duration::from_secs(10), "{after:?}");
    second.wait_for_log(&["this process delivers"]).await;
    // Nothing was told twice, and nothing of the lease, though the patterns match its key.
    let told = component.call_summaries();
    assert_eq!(
        told.iter().filter(|(_, _, value)| value != "over").count(),
        20
    );
    assert!(told.iter().all(|(_, key, _)| key == "k"), "{told:?}");
}

#[tokio::test]
async fn who_stops_gives_the_lease_up() {
    let config = [("WATCH", "SET@k"), ("WATCH_ONCE", "true")];
    let Two {
        mut env,
        component,
        mut second,
        ..
    } = two(&config).await;
    env.provider.signal(rustix::process::Signal::TERM);
    assert!(env.provider.wait().await.success());
    second.wait_for_log(&["this process delivers"]).await;
    set(&env, "v").await;
    component.wait_for_call("k").await;
    assert_eq!(component.call_count(), 1);
    second.signal(rustix::process::Signal::TERM);
    assert!(second.wait().await.success());
    assert_eq!(leases(&env).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_deleted_link_gives_the_lease_up() {
    let config = [("WATCH", "SET@k"), ("WATCH_ONCE", "true")];
    let Two {
        env,
        second: _second,
        ..
    } = two(&config).await;
    // Deletions go to all processes.
    env.host.delete_watch(WATCHER, "default").await;
    eventually_eq("the lease is gone", Vec::<String>::new(), async || {
        leases(&env).await
    })
    .await;
    env.wait_for_no_connections().await;
}

/// A world with one process that delivers, and its lease's key.
async fn one(watch: &str) -> (TestEnv, String) {
    let env = TestEnv::builder().unlinked().start().await;
    notify(&env.redis).await;
    let config = [("WATCH", watch), ("WATCH_ONCE", "true")];
    env.watch(WATCHER, "default", &config).await;
    env.provider.wait_for_log(&["this process delivers"]).await;
    let mut keys = leases(&env).await;
    (env, keys.pop().expect("a lease"))
}

#[tokio::test]
async fn what_waits_when_the_lease_is_lost_is_counted() {
    // No host runs the component, so that changes wait.
    let (env, key) = one("SET@k*").await;
    for number in 0..20 {
        let () = env
            .redis
            .command(&["SET", &format!("k{number}"), "v"])
            .await;
    }
    env.provider
        .wait_for_log(&["WARN", "changes wait for"])
        .await;
    let () = env
        .redis
        .command(&["SET", &key, "another", "PX", "60000"])
        .await;
    env.provider
        .wait_for_log(&["WARN", "has lost the lease"])
        .await;
    env.provider
        .wait_for_log(&[
            "WARN",
            WATCHER,
            "not delivered",
            "changes=",
            "lost the lease",
        ])
        .await;
}

#[tokio::test]
async fn a_lease_that_expired_and_was_taken_again_is_no_secret() {
    let (mut env, key) = one("SET@k").await;
    env.provider.signal(rustix::process::Signal::STOP);
    eventually("the lease expires", async || {
        let left: i64 = env.redis.command(&["PTTL", &key]).await;
        left == -2
    })
    .await;
    env.provider.signal(rustix::process::Signal::CONT);
    env.provider
        .wait_for_log(&["WARN", "has lost the lease"])
        .await;
    eventually("it is taken again", async || !leases(&env).await.is_empty()).await;
    let component = env.component(WATCHER).await;
    eventually("it delivers again", async || {
        set(&env, "v").await;
        component.call_count() > 0
    })
    .await;
    assert_eq!(
        env.provider
            .stop_and_count_log(&["this process delivers"])
            .await,
        2
    );
}

#[tokio::test]
async fn a_lease_that_cannot_be_taken_is_no_secret() {
    let env = TestEnv::builder().unlinked().start().await;
    notify(&env.redis).await;
    let user = [
        "ACL", "SETUSER", "ann", "on", ">pw", "~*", "&*", "+@all", "-eval",
    ];
    let () = env.redis.command(&user).await;
    let config = [
        ("WATCH", "SET@k"),
        ("WATCH_ONCE", "true"),
        ("USERNAME", "ann"),
        ("PASSWORD", "pw"),
    ];
    env.watch(WATCHER, "default", &config).await;
    env.provider
        .wait_for_log(&["WARN", "cannot acquire the lease", "access denied"])
        .await;
    eventually("the health says so", async || {
        let health = env.host.health().await;
        health.is_some_and(|health| {
            !health.healthy && health.message.is_some_and(|text| text.contains("lease"))
        })
    })
    .await;
}
