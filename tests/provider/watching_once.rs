//! Contract §2 "Watching": two processes of the provider, with `WATCH_ONCE` and without it.

use std::time::Duration;

use tokio::time::Instant;

use crate::common::component::Component;
use crate::common::host::Host;
use crate::common::host::Link;
use crate::common::provider::Provider;
use crate::common::wait::{eventually, eventually_eq};
use crate::common::world::World;
use crate::watching::{WATCHER, notify};

/// A world with two processes of the provider that both watch for one component.
struct Two {
    w: World,
    component: Component,
    second: Provider,
    _twin: Host,
}

async fn two(config: &[(&str, &str)]) -> Two {
    let w = World::builder().unlinked().start().await;
    notify(&w.redis).await;
    let component = w.component(WATCHER).await;
    let twin = w.host.twin();
    let second = Provider::start(&twin.data());
    w.host.ready_processes(2).await;
    let link = Link::new(WATCHER, "default")
        .config(&[("URL", &w.redis.url())])
        .config(config);
    w.host.put_watch(&link).await;
    w.watching(WATCHER, "default", 1).await;
    if config.contains(&("WATCH_ONCE", "true")) {
        // So that it is known who delivers.
        w.provider.logged(&["this process delivers"]).await;
    }
    twin.put_watch(&link).await;
    w.watching(WATCHER, "default", 2).await;
    Two {
        w,
        component,
        second,
        _twin: twin,
    }
}

async fn set(w: &World, value: &str) {
    let () = w.redis.ask(&["SET", "k", value]).await;
}

async fn leases(w: &World) -> Vec<String> {
    w.redis.ask(&["KEYS", "*watch-lease*"]).await
}

#[tokio::test]
async fn without_watch_once_each_process_delivers() {
    let Two {
        w,
        component,
        second: _second,
        ..
    } = two(&[("WATCH", "SET@k")]).await;
    set(&w, "v").await;
    eventually("both deliver", async || component.count() == 2).await;
    assert_eq!(leases(&w).await, Vec::<String>::new());
}

#[tokio::test]
async fn with_watch_once_one_delivers_and_another_takes_over() {
    let config = [
        ("WATCH", "SET@*,DEL@*"),
        ("WATCH_ONCE", "true"),
        ("PREFIX", "p:"),
    ];
    let Two {
        mut w,
        component,
        second,
        ..
    } = two(&config).await;
    for round in 0..20 {
        let () = w.redis.ask(&["SET", "p:k", &round.to_string()]).await;
    }
    eventually("all is told", async || component.count() >= 20).await;
    let keys = leases(&w).await;
    let [key] = &keys[..] else {
        panic!("one key: {keys:?}")
    };
    assert!(key.starts_with("p:kvredis:watch-lease:"), "{key}");
    let left: i64 = w.redis.ask(&["PTTL", key]).await;
    assert!((1..=3_000).contains(&left), "it expires: {left}");

    w.provider.kill();
    let killed = Instant::now();
    eventually("the other one delivers", async || {
        let () = w.redis.ask(&["SET", "p:k", "over"]).await;
        component
            .told_in_short()
            .iter()
            .any(|(_, _, value)| value == "over")
    })
    .await;
    let after = killed.elapsed();
    eprintln!("the other process delivers after {after:?}");
    // Five seconds by the contract; as many again for machines under load.
    assert!(after < Duration::from_secs(10), "{after:?}");
    second.logged(&["this process delivers"]).await;
    // Nothing was told twice, and nothing of the lease, though the patterns match its key.
    let told = component.told_in_short();
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
        mut w,
        component,
        mut second,
        ..
    } = two(&config).await;
    w.provider.signal(rustix::process::Signal::TERM);
    assert!(w.provider.end().await.success());
    second.logged(&["this process delivers"]).await;
    set(&w, "v").await;
    component.told_of("k").await;
    assert_eq!(component.count(), 1);
    second.signal(rustix::process::Signal::TERM);
    assert!(second.end().await.success());
    assert_eq!(leases(&w).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_deleted_link_gives_the_lease_up() {
    let config = [("WATCH", "SET@k"), ("WATCH_ONCE", "true")];
    let Two {
        w, second: _second, ..
    } = two(&config).await;
    // Deletions go to all processes.
    w.host.delete_watch(WATCHER, "default").await;
    eventually_eq("the lease is gone", Vec::<String>::new(), async || {
        leases(&w).await
    })
    .await;
    w.no_connections().await;
}

/// A world with one process that delivers, and its lease's key.
async fn one(watch: &str) -> (World, String) {
    let w = World::builder().unlinked().start().await;
    notify(&w.redis).await;
    let config = [("WATCH", watch), ("WATCH_ONCE", "true")];
    w.watch(WATCHER, "default", &config).await;
    w.provider.logged(&["this process delivers"]).await;
    let mut keys = leases(&w).await;
    (w, keys.pop().expect("a lease"))
}

#[tokio::test]
async fn what_waits_when_the_lease_is_lost_is_counted() {
    // No host runs the component, so that changes wait.
    let (w, key) = one("SET@k*").await;
    for number in 0..20 {
        let () = w.redis.ask(&["SET", &format!("k{number}"), "v"]).await;
    }
    w.provider.logged(&["WARN", "changes wait for"]).await;
    let () = w.redis.ask(&["SET", &key, "another", "PX", "60000"]).await;
    w.provider.logged(&["WARN", "has lost the lease"]).await;
    w.provider
        .logged(&["WARN", WATCHER, "not told of", "changes=", "lost the lease"])
        .await;
}

#[tokio::test]
async fn a_lease_that_expired_and_was_taken_again_is_no_secret() {
    let (mut w, key) = one("SET@k").await;
    w.provider.signal(rustix::process::Signal::STOP);
    eventually("the lease expires", async || {
        let left: i64 = w.redis.ask(&["PTTL", &key]).await;
        left == -2
    })
    .await;
    w.provider.signal(rustix::process::Signal::CONT);
    w.provider.logged(&["WARN", "has lost the lease"]).await;
    eventually("it is taken again", async || !leases(&w).await.is_empty()).await;
    let component = w.component(WATCHER).await;
    eventually("it delivers again", async || {
        set(&w, "v").await;
        component.count() > 0
    })
    .await;
    assert_eq!(w.provider.count_logged(&["this process delivers"]).await, 2);
}

#[tokio::test]
async fn a_lease_that_cannot_be_taken_is_no_secret() {
    let w = World::builder().unlinked().start().await;
    notify(&w.redis).await;
    let user = [
        "ACL", "SETUSER", "ann", "on", ">pw", "~*", "&*", "+@all", "-eval",
    ];
    let () = w.redis.ask(&user).await;
    let config = [
        ("WATCH", "SET@k"),
        ("WATCH_ONCE", "true"),
        ("USERNAME", "ann"),
        ("PASSWORD", "pw"),
    ];
    w.watch(WATCHER, "default", &config).await;
    w.provider
        .logged(&["WARN", "cannot take the lease", "access denied"])
        .await;
    eventually("the health says so", async || {
        let health = w.host.health().await;
        health.is_some_and(|health| {
            !health.healthy && health.message.is_some_and(|text| text.contains("lease"))
        })
    })
    .await;
}
