//! Growth with use: after a million calls, ten thousand links and a thousand reconnects, the provider
//! holds the resources that it held at the beginning.
//!
//! The baseline is taken after a part of the load, because the first calls grow buffers and tables to
//! their final size.

// Guarantees: G50

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use test_support::client::Client;
use test_support::host::Link;
use test_support::proxy::Proxy;
use test_support::test_env::TestEnv;
use test_support::values::bytes;
use test_support::wait::eventually;

use crate::resources::{self, ResourceUsage};
use crate::scenario::{Row, pick, record};

/// The allowance for the allocator and the servers' buffers, in KiB.
const TOLERANCE: u64 = 4 << 10;
const CALLERS: usize = 64;
/// The time for memory to settle.
const SETTLE_BEFORE: Duration = Duration::from_secs(3);
const SETTLE_AFTER: Duration = Duration::from_secs(15);

#[tokio::test]
async fn calls_leak_no_memory_files_or_connections() {
    let calls = pick(20_000, 1_000_000);
    let env = TestEnv::start().await;
    mixed_calls(&env, calls / 10).await;
    let before = resources::settled(&env, 0, SETTLE_BEFORE, false).await;
    mixed_calls(&env, calls).await;
    let after = resources::settled(&env, before.resident + TOLERANCE, SETTLE_AFTER, false).await;
    assert_unchanged(before, after);
    record(&Row {
        fault: "sustained load",
        load: &format!("{calls} mixed calls from {CALLERS} callers"),
        promised: "memory, files and connections as before (within 4 MiB)",
        counted: describe(before, after),
    });
}

// Guarantees: G15
#[tokio::test]
async fn deleted_links_leak_no_memory_files_or_connections() {
    let links = pick(200, 10_000);
    let env = TestEnv::start().await;
    add_and_delete_links(&env, links / 10, "early").await;
    let before = resources::settled(&env, 0, SETTLE_BEFORE, false).await;
    add_and_delete_links(&env, links, "late").await;
    let after = resources::settled(&env, before.resident + TOLERANCE, SETTLE_AFTER, false).await;
    assert_unchanged(before, after);
    record(&Row {
        fault: "links put and deleted",
        load: &format!("{links} links put, called and deleted"),
        promised: "memory, files and connections as before (within 4 MiB)",
        counted: describe(before, after),
    });
}

// Guarantees: G14
#[tokio::test]
async fn reconnects_leak_no_memory_files_or_connections() {
    let cuts = pick(20, 1_000);
    let env = TestEnv::start().await;
    let proxy = Proxy::start(env.redis.port()).await;
    let config = [
        ("URL", &*proxy.url()),
        ("BACKEND_RECONNECT_MAX_DELAY_MS", "20"),
    ];
    let client = env.link("cut", "default", &config).await;
    disconnect_during_calls(&proxy, &client, 10).await;
    let before = resources::settled(&env, 0, SETTLE_BEFORE, false).await;
    let errors = disconnect_during_calls(&proxy, &client, cuts).await;
    let after = resources::settled(&env, before.resident + TOLERANCE, SETTLE_AFTER, false).await;
    assert_unchanged(before, after);
    record(&Row {
        fault: "connections cut",
        load: &format!("{cuts} times, with 8 calls in flight"),
        promised: "reconnects each time; memory, files and connections as before (within 4 MiB)",
        counted: format!("{errors} calls failed; {}", describe(before, after)),
    });
}

/// Calls all functions, on each caller's own keys, and checks the results.
async fn mixed_calls(env: &TestEnv, calls: usize) {
    let left = AtomicUsize::new(calls);
    let is_done = |of: usize| {
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(of))
            .is_err()
    };
    join_all((0..CALLERS).map(async |caller| {
        let (c, bucket) = (&env.client, &format!("b{caller}"));
        let mut round = 0;
        while !is_done(10) {
            round += 1;
            let value = bytes(round * 37 % 2_000);
            c.set(bucket, "k", &value).await.unwrap();
            assert_eq!(c.get(bucket, "k").await, Ok(Some(value.clone())));
            assert_eq!(c.exists(bucket, "k").await, Ok(true));
            let sum = c.increment(bucket, "n", 1).await.unwrap();
            assert!(sum >= round as u64);
            c.set_many(bucket, &[("l", &value), ("m", &value)])
                .await
                .unwrap();
            let entries = c.get_many(bucket, &["l", "m", "none"]).await.unwrap();
            assert_eq!(entries[1], Some(("m".to_owned(), value)));
            c.delete_many(bucket, &["l", "m"]).await.unwrap();
            c.delete(bucket, "k").await.unwrap();
            assert_eq!(c.get(bucket, "k").await, Ok(None));
            c.list_keys(bucket, None).await.unwrap();
        }
    }))
    .await;
}

/// Puts and deletes links of new components, twenty at a time.
async fn add_and_delete_links(env: &TestEnv, links: usize, name: &str) {
    const BATCH_SIZE: usize = 20;
    let url = env.redis.url();
    for round in 0..links / BATCH_SIZE {
        let batch: Vec<Link> = (0..BATCH_SIZE)
            .map(|i| {
                // The unknown name causes one warning per link.
                Link::new(&format!("{name}-{round}-{i}"), "default")
                    .config(&[("URL", &*url), ("PREFIXX", "x")])
            })
            .collect();
        for link in &batch {
            env.host.put(link).await;
        }
        join_all(batch.iter().map(async |link| {
            let client = env.client.component(link.component(), link.name());
            eventually("the provider has the link", async || {
                client.increment("", "links", 1).await.is_ok()
            })
            .await;
        }))
        .await;
        for link in &batch {
            env.host.delete(link.component(), link.name()).await;
        }
        let last = batch.last().expect("there are twenty links");
        let client = env.client.component(last.component(), last.name());
        eventually("the provider has dropped the link", async || {
            client.probe().await.is_err()
        })
        .await;
    }
    eventually("their connections are closed", async || {
        env.redis.connections().await == 1
    })
    .await;
}

/// Disconnects during calls this many times; returns the number of failed calls.
async fn disconnect_during_calls(proxy: &Proxy, client: &Client, cuts: usize) -> usize {
    let mut errors = 0;
    for _ in 0..cuts {
        let connected = proxy.connect_times().len();
        let calls = join_all((0..8).map(|_| client.set("", "k", "v")));
        let (results, ()) = tokio::join!(calls, async {
            tokio::task::yield_now().await;
            proxy.disconnect_all();
        });
        errors += results.iter().filter(|result| result.is_err()).count();
        eventually("kvredis has reconnected", async || {
            proxy.connect_times().len() > connected
        })
        .await;
        client.set("", "k", "v").await.unwrap();
    }
    errors
}

fn assert_unchanged(before: ResourceUsage, after: ResourceUsage) {
    assert!(
        after.resident <= before.resident + TOLERANCE,
        "memory: {before:?}, then {after:?}"
    );
    assert_eq!(after.files, before.files);
    assert_eq!(after.connections, before.connections);
}

fn describe(before: ResourceUsage, after: ResourceUsage) -> String {
    format!(
        "memory {} before, {} after; files {}, {}; connections {}, {}",
        resources::mebibytes(before.resident),
        resources::mebibytes(after.resident),
        before.files,
        after.files,
        before.connections,
        after.connections
    )
}
