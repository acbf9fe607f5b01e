//! Watching: order of changes, slow and absent components, lost connections.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use test_support::component::Behavior;
use test_support::host::Link;
use test_support::redis::Redis;
use test_support::test_env::TestEnv;
use test_support::wait::{eventually, test_timeout};
use tokio::time::Instant;

use crate::watching::{WATCHER, notify, watching};

/// The time limit for watching to resume; the assertion allows more on busy machines.
const BACK_WITHIN: Duration = Duration::from_secs(2);

/// Sets a key.
pub async fn set(redis: &Redis, key: &str, value: &str) {
    let () = redis.command(&["SET", key, value]).await;
}

// Guarantees: G39
#[tokio::test]
async fn changes_of_a_key_are_delivered_in_order() {
    let (env, component) = watching(&[("WATCH", "SET@*,DEL@*")]).await;
    let mut changes = redis::pipe();
    for _ in 0..200 {
        for key in ["a", "b", "c"] {
            changes.cmd("INCR").arg(format!("n:{key}")).ignore();
            changes.cmd("SET").arg(key).arg("v").ignore();
            changes.cmd("DEL").arg(key).ignore();
        }
    }
    changes.cmd("SET").arg("a").arg("last").ignore();
    env.redis.run_pipeline(&changes).await;
    eventually("all deliverable changes have arrived", async || {
        let received = component.call_summaries();
        let last = ("on-set".to_owned(), "a".to_owned(), "last".to_owned());
        let deletions = received
            .iter()
            .filter(|(function, ..)| function == "on-delete");
        let counts = received.iter().filter(|(_, key, _)| key.starts_with("n:"));
        received.contains(&last) && deletions.count() == 600 && counts.count() == 600
    })
    .await;
    let mut latest: BTreeMap<String, u64> = BTreeMap::new();
    for (_, key, value) in component.call_summaries() {
        if key.starts_with("n:") {
            let value: u64 = value.parse().unwrap();
            let before = latest.insert(key.clone(), value).unwrap_or(0);
            assert!(before <= value, "{key}: {value} after {before}");
        }
    }
    assert!(latest.values().all(|value| *value == 200), "{latest:?}");
    let of_a: Vec<_> = component
        .calls()
        .into_iter()
        .filter(|received| received.key == "a")
        .collect();
    assert_eq!(of_a.last().unwrap().function, "on-set");
}

// Guarantees: G39
#[tokio::test]
async fn a_burst_of_ten_thousand_changes_is_delivered_completely() {
    let (env, component) = watching(&[("WATCH", "SET@*")]).await;
    let mut changes = redis::pipe();
    for number in 0..10_000 {
        changes
            .cmd("SET")
            .arg(format!("k{number}"))
            .arg(number)
            .ignore();
    }
    let started = Instant::now();
    env.redis.run_pipeline(&changes).await;
    // Sequential calls over NATS take their time on a busy machine.
    let deadline = Instant::now() + 3 * test_timeout();
    while component.call_count() < 10_000 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    eprintln!("10,000 changes of 10,000 keys: {:?}", started.elapsed());
    let keys: BTreeSet<_> = component
        .calls()
        .into_iter()
        .map(|received| received.key)
        .collect();
    assert_eq!((keys.len(), component.call_count()), (10_000, 10_000));
}

// Guarantees: G39
#[tokio::test]
async fn changes_are_delivered_at_once() {
    let (env, component) = watching(&[("WATCH", "SET@k")]).await;
    let client = redis::Client::open(env.redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut latencies = Vec::new();
    for number in 1..=500 {
        let started = Instant::now();
        let set = redis::cmd("SET").arg("k").arg(number).take();
        let () = set.query_async(&mut connection).await.unwrap();
        eventually("the component receives the change", async || {
            component.call_count() == number
        })
        .await;
        latencies.push(component.calls()[number - 1].at - started);
    }
    latencies.sort();
    let (median, slow) = (latencies[250], latencies[495]);
    eprintln!("from SET to the component: p50 {median:?}, p99 {slow:?}");
    // Without polling, delivery takes tens of milliseconds on a busy machine.
    assert!(median < test_timeout() / 40, "{median:?}");
}

// Guarantees: G39
#[tokio::test]
async fn a_slow_component_does_not_delay_others() {
    let (env, slow) = watching(&[("WATCH", "SET@*")]).await;
    slow.set_behavior(Behavior::Slow(Duration::from_secs(3)));
    let fast = env.component("fast").await;
    env.watch("fast", "default", &[("WATCH", "SET@*")]).await;
    let other_link = env.component("deaf").await;
    other_link.set_behavior(Behavior::Unresponsive);
    env.watch("deaf", "default", &[("WATCH", "SET@*")]).await;
    for number in 0..100 {
        set(&env.redis, &format!("k{number}"), "v").await;
    }
    eventually("the fast component has received all changes", async || {
        fast.call_count() == 100
    })
    .await;
    assert!(slow.call_count() < 100 && other_link.call_count() == 0);
    // Once it is fast, it receives the remaining changes, too.
    slow.set_behavior(Behavior::Prompt);
    eventually("the slow component has received all changes", async || {
        slow.call_count() == 100
    })
    .await;
}

// Guarantees: G39
#[tokio::test]
async fn a_call_that_no_host_accepts_times_out() {
    let (env, component) = watching(&[("WATCH", "SET@k")]).await;
    component.set_behavior(Behavior::Unresponsive);
    set(&env.redis, "k", "1").await;
    env.provider
        .wait_for_log(&[
            "WARN",
            WATCHER,
            "changes=1",
            "no host has accepted the call",
        ])
        .await;
    component.set_behavior(Behavior::Prompt);
    set(&env.redis, "k", "2").await;
    assert_eq!(component.wait_for_call("k").await.value.unwrap(), b"2");
    assert_eq!(component.call_count(), 1);
}

// Guarantees: G39
#[tokio::test]
async fn changes_wait_for_an_absent_component() {
    let env = TestEnv::builder().unlinked().start().await;
    notify(&env.redis).await;
    env.watch(WATCHER, "default", &[("WATCH", "SET@*,DEL@*")])
        .await;
    for number in 0..50 {
        set(&env.redis, &format!("k{number}"), "early").await;
        set(&env.redis, &format!("k{number}"), "late").await;
    }
    env.provider
        .wait_for_log(&[
            "WARN",
            WATCHER,
            "changes wait",
            "no host runs the component",
        ])
        .await;
    let component = env.component(WATCHER).await;
    eventually("the component has received all changes", async || {
        component.call_count() == 100
    })
    .await;
    // Each call carries the value at the time of its delivery.
    assert!(
        component
            .calls()
            .iter()
            .all(|received| received.value.as_deref() == Some(b"late"))
    );
    let late = component.wait_for_call("k7").await;
    assert_eq!(late.function, "on-set");
}

// Guarantees: G39, G49
#[tokio::test]
async fn changes_wait_for_the_nats_connection() {
    let (mut env, component) = watching(&[("WATCH", "SET@*")]).await;
    set(&env.redis, "before", "v").await;
    component.wait_for_call("before").await;
    env.nats.stop();
    env.provider
        .wait_for_log(&["lost the connection to NATS"])
        .await;
    for number in 0..20 {
        set(&env.redis, &format!("k{number}"), "v").await;
    }
    env.provider
        .wait_for_log(&["WARN", WATCHER, "no connection to NATS"])
        .await;
    env.nats.restart().await;
    eventually("the component has received all changes", async || {
        let keys: BTreeSet<_> = component
            .calls()
            .into_iter()
            .map(|received| received.key)
            .collect();
        keys.len() == 21
    })
    .await;
}

// Guarantees: G39
#[tokio::test]
async fn the_delivery_queue_is_bounded_and_drops_the_oldest() {
    const CHANGES: usize = 67_000;
    const KEPT: usize = 65_536;
    let env = TestEnv::builder().unlinked().start().await;
    let (mut sets, mut deletions) = (redis::pipe(), redis::pipe());
    for number in 0..CHANGES {
        sets.cmd("SET").arg(number).arg("v").ignore();
        deletions.cmd("DEL").arg(number).ignore();
    }
    env.redis.run_pipeline(&sets).await;
    notify(&env.redis).await;
    env.watch(WATCHER, "default", &[("WATCH", "DEL@*")]).await;
    env.redis.run_pipeline(&deletions).await;
    env.provider
        .wait_for_log(&[
            "WARN",
            WATCHER,
            "changes=",
            "queue of the component is full",
        ])
        .await;
    // The subscription is probed every few seconds; it must not be taken for dead while it is busy.
    let component = env.component(WATCHER).await;
    eventually("the component receives changes", async || {
        component.call_count() >= 1_000
    })
    .await;
    let received = component.call_summaries();
    let dropped = CHANGES - KEPT;
    let older = received
        .iter()
        .filter(|(_, key, _)| key.parse::<usize>().unwrap() < dropped);
    // Changes in delivery do not count as waiting: one per lane.
    assert!(
        older.count() <= 8,
        "unexpected changes among the {dropped} dropped"
    );
    let missed = env.provider.log();
    let missed = missed
        .iter()
        .filter(|line| line.contains("may have been missed"));
    assert_eq!(missed.count(), 0);
}

// Guarantees: G40
#[tokio::test]
async fn watching_resumes_after_a_disconnect() {
    let (env, component) = watching(&[("WATCH", "SET@k")]).await;
    for round in 0..3 {
        let _: u64 = env
            .redis
            .command(&["CLIENT", "KILL", "TYPE", "pubsub"])
            .await;
        let lost = Instant::now();
        assert_resumes(&env, &component, &format!("after kill {round}"), lost).await;
    }
    env.provider
        .wait_for_log(&["WARN", WATCHER, "may have been missed"])
        .await;
}

// Guarantees: G40
#[tokio::test]
async fn repeated_disconnects_of_a_subscription_log_few_lines() {
    let (mut env, _component) = watching(&[("WATCH", "SET@k")]).await;
    let mut kills = 0_u64;
    eventually("the subscription has been lost many times", async || {
        kills += env
            .redis
            .command::<u64>(&["CLIENT", "KILL", "TYPE", "pubsub"])
            .await;
        kills > 10
    })
    .await;
    let lines = env.provider.stop_and_count_log(&[]).await;
    assert!(lines < 15, "{lines} lines");
    // One line, unless a subscription lasted a second because the machine stalled.
    let breaks = env.provider.stop_and_count_log(&["cannot subscribe"]).await;
    assert!((1..4).contains(&breaks), "{breaks} lines on {kills} breaks");
}

// Guarantees: G40
#[tokio::test]
async fn watching_resumes_after_redis_restarts() {
    let config = [("WATCH", "SET@k"), ("WATCH_CONFIGURE_REDIS", "true")];
    let (mut env, component) = watching(&config).await;
    for round in 0..2 {
        env.redis.restart().await;
        assert_resumes(
            &env,
            &component,
            &format!("restart {round}"),
            Instant::now(),
        )
        .await;
    }
    env.provider
        .wait_for_log(&["WARN", WATCHER, "may have been missed"])
        .await;
}

/// Changes a key until the component receives a change, which must be soon.
async fn assert_resumes(
    env: &TestEnv,
    component: &test_support::component::Component,
    value: &str,
    since: Instant,
) {
    eventually("watching resumes", async || {
        set(&env.redis, "k", value).await;
        let received = component.calls();
        received
            .iter()
            .any(|received| received.value.as_deref() == Some(value.as_bytes()))
    })
    .await;
    let after = since.elapsed();
    eprintln!("watching resumed after {after:?}");
    // The promise is two seconds; a busy machine gets five times that.
    assert!(after < 5 * BACK_WITHIN, "{after:?}");
}

// Guarantees: G40
#[tokio::test]
async fn a_redis_that_starts_late_is_watched() {
    let mut env = TestEnv::builder()
        .unlinked()
        .redis(Redis::stopped())
        .start()
        .await;
    let component = env.component(WATCHER).await;
    let link = Link::new(WATCHER, "default").config(&[
        ("URL", &env.redis.url()),
        ("WATCH", "SET@k"),
        ("WATCH_CONFIGURE_REDIS", "1"),
    ]);
    env.host.put_watch(&link).await;
    assert!(
        env.host.health().await.unwrap().healthy,
        "unhealthy within ten seconds"
    );
    env.redis.restart().await;
    assert_resumes(&env, &component, "up", Instant::now()).await;
    // Before the first subscription no change can have been missed.
    let mut env = env;
    assert_eq!(
        env.provider
            .stop_and_count_log(&["may have been missed"])
            .await,
        0
    );
}
