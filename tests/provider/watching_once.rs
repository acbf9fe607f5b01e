//! Watching by two processes of the provider, with and without `WATCH_ONCE`.

// Guarantees: G42

use std::time::Duration;

use test_support::component::Component;
use test_support::host::Host;
use test_support::host::Link;
use test_support::provider::ProviderProcess;
use test_support::test_env::TestEnv;
use test_support::wait::{eventually, eventually_eq};
use tokio::time::Instant;

use crate::watching::{WATCHER, notify};

/// An environment with two processes of the provider that both watch for one component.
pub struct TwoProcesses {
    pub env: TestEnv,
    pub component: Component,
    pub second: ProviderProcess,
    _twin: Host,
}

pub async fn two_processes(config: &[(&str, &str)]) -> TwoProcesses {
    let env = TestEnv::builder().unlinked().start().await;
    notify(&env.redis).await;
    let component = env.component(WATCHER).await;
    let twin = env.host.second_host();
    let second = ProviderProcess::start(&twin.data());
    env.host.ready_processes(2).await;
    let link = Link::new(WATCHER, "default")
        .config(&[("URL", &env.redis.url())])
        .config(config);
    env.host.put_watch(&link).await;
    env.wait_for_watchers(WATCHER, "default", 1).await;
    if config.contains(&("WATCH_ONCE", "true")) {
        // Determines the delivering process.
        env.provider.wait_for_log(&["this process delivers"]).await;
    }
    twin.put_watch(&link).await;
    env.wait_for_watchers(WATCHER, "default", 2).await;
    TwoProcesses {
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
async fn every_process_delivers_without_watch_once() {
    let TwoProcesses {
        env,
        component,
        second: _second,
        ..
    } = two_processes(&[("WATCH", "SET@k")]).await;
    set(&env, "v").await;
    eventually("both processes have delivered", async || {
        component.call_count() == 2
    })
    .await;
    assert_eq!(leases(&env).await, Vec::<String>::new());
}

#[tokio::test]
async fn watch_once_delivers_from_one_process_with_failover() {
    let config = [
        ("WATCH", "SET@*,DEL@*"),
        ("WATCH_ONCE", "true"),
        ("PREFIX", "p:"),
    ];
    let TwoProcesses {
        mut env,
        component,
        second,
        ..
    } = two_processes(&config).await;
    for round in 0..20 {
        let () = env.redis.command(&["SET", "p:k", &round.to_string()]).await;
    }
    eventually("the component has received all changes", async || {
        component.call_count() >= 20
    })
    .await;
    let keys = leases(&env).await;
    let [key] = &keys[..] else {
        panic!("expected one lease key: {keys:?}")
    };
    assert!(key.starts_with("p:kvredis:watch-lease:"), "{key}");
    let left: i64 = env.redis.command(&["PTTL", key]).await;
    assert!((1..=3_000).contains(&left), "it expires: {left}");

    env.provider.kill();
    let killed = Instant::now();
    eventually("the other process delivers", async || {
        let () = env.redis.command(&["SET", "p:k", "over"]).await;
        component
            .call_summaries()
            .iter()
            .any(|(_, _, value)| value == "over")
    })
    .await;
    let after = killed.elapsed();
    eprintln!("the other process delivers after {after:?}");
    // The promise is five seconds; a busy machine gets twice that.
    assert!(after < Duration::from_secs(10), "{after:?}");
    second.wait_for_log(&["this process delivers"]).await;
    // No change is delivered twice, and none of the lease's key, although the patterns match it.
    let received = component.call_summaries();
    assert_eq!(
        received
            .iter()
            .filter(|(_, _, value)| value != "over")
            .count(),
        20
    );
    assert!(
        received.iter().all(|(_, key, _)| key == "k"),
        "{received:?}"
    );
}

#[tokio::test]
async fn a_stopping_process_releases_the_lease() {
    let config = [("WATCH", "SET@k"), ("WATCH_ONCE", "true")];
    let TwoProcesses {
        mut env,
        component,
        mut second,
        ..
    } = two_processes(&config).await;
    env.provider.signal(rustix::process::Signal::TERM);
    assert!(env.provider.wait().await.success());
    second.wait_for_log(&["this process delivers"]).await;
    set(&env, "v").await;
    component.wait_for_call("k").await;
    assert_eq!(component.call_count(), 1);
    second.signal(rustix::process::Signal::TERM);
    assert!(second.wait().await.success());
    // The note of a released lease for its successor expires.
    eventually_eq("the lease is gone", Vec::<String>::new(), async || {
        leases(&env).await
    })
    .await;
}

#[tokio::test]
async fn deleting_the_link_releases_the_lease() {
    let config = [("WATCH", "SET@k"), ("WATCH_ONCE", "true")];
    let TwoProcesses {
        env,
        second: _second,
        ..
    } = two_processes(&config).await;
    // Deletions reach all processes.
    env.host.delete_watch(WATCHER, "default").await;
    eventually_eq("the lease is released", Vec::<String>::new(), async || {
        leases(&env).await
    })
    .await;
    env.wait_for_no_connections().await;
}

/// An environment with one delivering process, and the key of its lease.
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
async fn undelivered_changes_are_counted_when_the_lease_is_lost() {
    // No host runs the component, so changes wait.
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
async fn an_expired_lease_is_logged_and_reacquired() {
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
    eventually("the lease is held again", async || {
        !leases(&env).await.is_empty()
    })
    .await;
    let component = env.component(WATCHER).await;
    eventually("the process delivers again", async || {
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
async fn a_denied_lease_is_logged_and_unhealthy() {
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
    eventually("the health report names the lease", async || {
        let health = env.host.health().await;
        health.is_some_and(|health| {
            !health.healthy && health.message.is_some_and(|text| text.contains("lease"))
        })
    })
    .await;
}
