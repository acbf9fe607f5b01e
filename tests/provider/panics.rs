//! Panics in calls fail only these calls; a task of the process that panics or ends unexpectedly ends the
//! process with an error. The debug build under test injects the faults (`src/fault_injection.rs`).

// Guarantees: G60

use futures_util::future::join_all;
use test_support::client::other_error;
use test_support::cluster::RedisCluster;
use test_support::host::Link;
use test_support::provider::ProviderProcess;
use test_support::test_env::{COMPONENT, TestEnv};

const AMBIGUOUS: &str = "it may or may not have been carried out";

/// Waits for the end of the process, which is a failure with one line that names the task.
async fn assert_ends(mut provider: ProviderProcess, fault: &str) {
    let (kind, task) = fault.split_once(' ').unwrap();
    let status = provider.wait().await;
    let log = provider.log();
    assert_eq!(status.code(), Some(1), "{fault}: {log:?}");
    let verb = if kind == "panic" { "panicked" } else { "ended" };
    let expected = format!("kvredis: the task {task:?} {verb}, a fault of kvredis");
    let last_line = log.last().unwrap();
    assert!(last_line.starts_with(&expected), "{fault}: {log:?}");
    if kind == "panic" {
        let located = |line: &&String| line.contains("location") && line.contains(".rs:");
        assert_eq!(log.iter().filter(located).count(), 1, "{fault}: {log:?}");
    }
}

#[tokio::test]
async fn a_panic_in_a_call_fails_only_this_call() {
    let faults = "panic call of first-poll,panic result of later";
    let mut env = TestEnv::builder().faults(faults).start().await;
    let first_poll = env.link("first-poll", "default", &[]).await;
    let later = env.link("later", "default", &[]).await;
    let neighbors = async {
        for result in join_all((0..200).map(|_| env.client.increment("", "n", 1))).await {
            result.unwrap();
        }
    };
    let failing = async {
        for client in [&first_poll, &later] {
            let read = other_error(client.get("", "k").await);
            assert!(read.contains("a fault of kvredis"), "{read}");
            assert!(!read.contains(AMBIGUOUS), "{read}");
            let write = other_error(client.increment("", "counted", 1).await);
            assert!(write.contains("a fault of kvredis"), "{write}");
            assert!(write.ends_with(AMBIGUOUS), "{write}");
            // Its parameters follow in further messages.
            let large = vec![0; 3 << 20];
            let large = other_error(client.set("", "large", large).await);
            assert!(large.ends_with(AMBIGUOUS), "{large}");
        }
    };
    tokio::join!(neighbors, failing);
    assert_eq!(env.redis.command::<u32>(&["GET", "counted"]).await, 1);
    assert_eq!(env.client.increment("", "n", 0).await.unwrap(), 200);
    assert!(env.host.health().await.unwrap().healthy);
    assert_eq!(
        env.provider
            .stop_and_count_log(&["calls ended by a fault of kvredis"])
            .await,
        1
    );
    assert_eq!(env.provider.wait().await.code(), Some(0));
}

#[tokio::test]
async fn a_task_that_panics_or_ends_unexpectedly_ends_the_process() {
    let env = TestEnv::start().await;
    let cluster = RedisCluster::start(0, &[]).await;
    let mut data = env.host.data();
    let config = [("URL", &*env.redis.url())];
    let cached = Link::new(COMPONENT, "default").config(&config);
    let in_cluster = Link::new(COMPONENT, "cluster").config(&[("URL", &*cluster.url())]);
    let watching = Link::new("watching", "default")
        .config(&config)
        .config(&[("WATCH", "SET@k"), ("WATCH_ONCE", "true")]);
    data.link_definitions = vec![
        env.host.definition(&cached),
        env.host.definition(&in_cluster),
        env.host.watch_definition(&watching),
    ];
    for task in [
        "serving of calls",
        "inbox",
        "host messages",
        "signals",
        "connection supervisor",
        "cluster topology",
        "subscribed servers",
        "node subscription",
        "delivery",
        "lease",
    ] {
        for kind in ["panic", "end"] {
            let fault = format!("{kind} {task}");
            assert_ends(ProviderProcess::with_faults(&data, &fault), &fault).await;
        }
    }
}
