//! Every change is delivered or counted, whatever ends or replaces the watching link.

// Guarantees: G40, G42

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::Signal;
use test_support::component::Component;
use test_support::redis::Redis;
use test_support::test_env::TestEnv;
use test_support::wait::eventually;
use tokio::task::JoinHandle;

use crate::watching::{WATCHER, notify};
use crate::watching_once::{TwoProcesses, two_processes};

const CHANGES: usize = 1_000;

/// An environment where changes of the keys `k0` to `k999` wait, because no host runs the component.
async fn waiting(config: &[(&str, &str)]) -> TestEnv {
    let env = TestEnv::builder().unlinked().start().await;
    notify(&env.redis).await;
    env.watch(WATCHER, "default", config).await;
    let mut changes = redis::pipe();
    for number in 0..CHANGES {
        changes
            .cmd("SET")
            .arg(format!("k{number}"))
            .arg("v")
            .ignore();
    }
    env.redis.run_pipeline(&changes).await;
    env.provider
        .wait_for_log(&["WARN", WATCHER, "changes wait"])
        .await;
    env
}

fn delivered(component: &Component) -> BTreeSet<String> {
    component.calls().into_iter().map(|call| call.key).collect()
}

#[tokio::test]
async fn changes_that_wait_when_the_link_is_put_again_are_delivered() {
    for once in ["false", "true"] {
        let env = waiting(&[("WATCH", "SET@k*"), ("WATCH_ONCE", once)]).await;
        let config = [("WATCH", "SET@*,DEL@k*"), ("WATCH_ONCE", once)];
        env.watch(WATCHER, "default", &config).await;
        let config = [("WATCH", "SET@k*,DEL@*"), ("WATCH_ONCE", once)];
        env.watch(WATCHER, "default", &config).await;
        let component = env.component(WATCHER).await;
        eventually("all changes are delivered", async || {
            delivered(&component).len() == CHANGES
        })
        .await;
        let log = env.provider.log();
        assert!(
            !log.iter().any(|line| line.contains("not delivered")),
            "{log:?}"
        );
    }
}

#[tokio::test]
async fn changes_that_a_replaced_link_leaves_are_counted() {
    let env = waiting(&[("WATCH", "SET@k*")]).await;
    // k1, k10 to k19 and k100 to k199 are watched, too.
    env.watch(WATCHER, "default", &[("WATCH", "SET@k1*")]).await;
    env.provider
        .wait_for_log(&["WARN", WATCHER, "not delivered", "changes=889", "replaced"])
        .await;
    let component = env.component(WATCHER).await;
    eventually("the others are delivered", async || {
        delivered(&component).len() == 111
    })
    .await;
    assert!(
        delivered(&component)
            .iter()
            .all(|key| key.starts_with("k1"))
    );
}

#[tokio::test]
async fn changes_that_wait_for_invalid_settings_are_counted() {
    let env = waiting(&[("WATCH", "SET@k*")]).await;
    let link = test_support::host::Link::new(WATCHER, "default")
        .config(&[("URL", &env.redis.url()), ("WATCH", "GET@k*")]);
    env.host.put_watch(&link).await;
    env.provider
        .wait_for_log(&["WARN", WATCHER, "not delivered", "changes=1000", "replaced"])
        .await;
}

#[tokio::test]
async fn changes_that_a_deleted_link_leaves_are_counted() {
    let env = waiting(&[("WATCH", "SET@k*")]).await;
    env.host.delete_watch(WATCHER, "default").await;
    env.provider
        .wait_for_log(&["WARN", WATCHER, "not delivered", "changes=1000", "deleted"])
        .await;
}

#[tokio::test]
async fn changes_that_a_stopped_process_leaves_are_counted() {
    for once in ["false", "true"] {
        let config = [("WATCH", "SET@k*"), ("WATCH_ONCE", once)];
        let mut env = waiting(&config).await;
        env.provider.signal(Signal::TERM);
        assert!(env.provider.wait().await.success());
        env.provider
            .wait_for_log(&["WARN", WATCHER, "not delivered", "changes=1000", "stopped"])
            .await;
    }
}

/// Sets one key after the other until it is aborted.
fn write_continuously(redis: &Redis) -> JoinHandle<()> {
    let client = redis::Client::open(redis.url()).unwrap();
    tokio::spawn(async move {
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        for number in 0.. {
            let set = redis::cmd("SET").arg(format!("k{number}")).arg("v").take();
            let () = set.query_async(&mut connection).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
}

/// Waits until the component has received what was written until now, and compares all.
async fn assert_complete(env: &TestEnv, component: &Component, writer: JoinHandle<()>) {
    writer.abort();
    let _ = writer.await;
    let () = env.redis.command(&["SET", "k-end", "v"]).await;
    component.wait_for_call("k-end").await;
    let written: Vec<String> = env.redis.command(&["KEYS", "k[0-9-]*"]).await;
    let written: BTreeSet<String> = written.into_iter().collect();
    assert!(written.len() > 100);
    eventually("all changes are delivered", async || {
        delivered(component) == written
    })
    .await;
    let calls = component.call_count();
    eprintln!("{} changes, {calls} calls", written.len());
}

#[tokio::test]
async fn a_lease_is_handed_over_without_a_gap_when_its_holder_stops() {
    let config = [("WATCH", "SET@k*"), ("WATCH_ONCE", "true")];
    let TwoProcesses {
        mut env,
        component,
        second,
        ..
    } = two_processes(&config).await;
    let writer = write_continuously(&env.redis);
    component.wait_for_call("k300").await;
    env.provider.signal(Signal::TERM);
    assert!(env.provider.wait().await.success());
    second.wait_for_log(&["this process delivers"]).await;
    assert_complete(&env, &component, writer).await;
}

#[tokio::test]
async fn a_lease_is_taken_over_without_a_gap_when_its_holder_is_killed() {
    let config = [("WATCH", "SET@k*"), ("WATCH_ONCE", "true")];
    let TwoProcesses {
        mut env,
        component,
        second,
        ..
    } = two_processes(&config).await;
    let writer = write_continuously(&env.redis);
    component.wait_for_call("k300").await;
    env.provider.kill();
    second.wait_for_log(&["this process delivers"]).await;
    assert_complete(&env, &component, writer).await;
}

#[tokio::test]
async fn a_link_is_replaced_without_a_gap() {
    let (env, component) = crate::watching::watching(&[("WATCH", "SET@k*")]).await;
    let writer = write_continuously(&env.redis);
    component.wait_for_call("k100").await;
    for watch in ["SET@k*,DEL@k*", "SET@*", "SET@k*"] {
        env.watch(WATCHER, "default", &[("WATCH", watch)]).await;
        let before = component.call_count();
        eventually("deliveries continue", async || {
            component.call_count() > before + 20
        })
        .await;
    }
    assert_complete(&env, &component, writer).await;
}
