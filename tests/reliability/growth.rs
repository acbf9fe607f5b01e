//! What grows with use, if anything does: a million calls, ten thousand links, a thousand
//! reconnects. In the end the provider holds what it held in the beginning.
//!
//! The beginning is after a part of the same: the first calls make buffers and tables as large as
//! they stay.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use test_support::client::Client;
use test_support::host::Link;
use test_support::proxy::Proxy;
use test_support::test_env::TestEnv;
use test_support::values::bytes;
use test_support::wait::eventually;

use crate::gauge::{self, Holdings};
use crate::scale::{Row, pick, record};

/// What the allocator and the servers' buffers make of it, in KiB.
const NOISE: u64 = 4 << 10;
const CALLERS: usize = 64;
/// How long memory may take to settle.
const BEFORE: Duration = Duration::from_secs(3);
const AFTER: Duration = Duration::from_secs(15);

#[tokio::test]
async fn calls_leave_nothing_behind() {
    let calls = pick(20_000, 1_000_000);
    let env = TestEnv::start().await;
    mixed_calls(&env, calls / 10).await;
    let before = gauge::settled(&env, 0, BEFORE, false).await;
    mixed_calls(&env, calls).await;
    let after = gauge::settled(&env, before.resident + NOISE, AFTER, false).await;
    same(before, after);
    record(&Row {
        fault: "sustained load",
        load: &format!("{calls} mixed calls from {CALLERS} callers"),
        promised: "memory, files and connections as before (within 4 MiB)",
        counted: in_words(before, after),
    });
}

#[tokio::test]
async fn links_leave_nothing_behind() {
    let links = pick(200, 10_000);
    let env = TestEnv::start().await;
    come_and_go(&env, links / 10, "early").await;
    let before = gauge::settled(&env, 0, BEFORE, false).await;
    come_and_go(&env, links, "late").await;
    let after = gauge::settled(&env, before.resident + NOISE, AFTER, false).await;
    same(before, after);
    record(&Row {
        fault: "links put and deleted",
        load: &format!("{links} links put, called and deleted"),
        promised: "memory, files and connections as before (within 4 MiB)",
        counted: in_words(before, after),
    });
}

#[tokio::test]
async fn reconnects_leave_nothing_behind() {
    let cuts = pick(20, 1_000);
    let env = TestEnv::start().await;
    let proxy = Proxy::start(env.redis.port()).await;
    let config = [
        ("URL", &*proxy.url()),
        ("BACKEND_RECONNECT_MAX_DELAY_MS", "20"),
    ];
    let client = env.link("cut", "default", &config).await;
    cut_and_call(&proxy, &client, 10).await;
    let before = gauge::settled(&env, 0, BEFORE, false).await;
    let errors = cut_and_call(&proxy, &client, cuts).await;
    let after = gauge::settled(&env, before.resident + NOISE, AFTER, false).await;
    same(before, after);
    record(&Row {
        fault: "connections cut",
        load: &format!("{cuts} times, with 8 calls in flight"),
        promised: "reconnects each time; memory, files and connections as before (within 4 MiB)",
        counted: format!("{errors} calls failed; {}", in_words(before, after)),
    });
}

/// All functions, on keys of each caller's own, with answers that are known.
async fn mixed_calls(env: &TestEnv, calls: usize) {
    let left = AtomicUsize::new(calls);
    let enough = |of: usize| {
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(of))
            .is_err()
    };
    join_all((0..CALLERS).map(async |caller| {
        let (c, bucket) = (&env.client, &format!("b{caller}"));
        let mut round = 0;
        while !enough(10) {
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

/// Links of components that nobody has heard of before, twenty at a time.
async fn come_and_go(env: &TestEnv, links: usize, name: &str) {
    const TOGETHER: usize = 20;
    let url = env.redis.url();
    for round in 0..links / TOGETHER {
        let these: Vec<Link> = (0..TOGETHER)
            .map(|i| {
                // The wrong name is warned of, once for each link.
                Link::new(&format!("{name}-{round}-{i}"), "default")
                    .config(&[("URL", &*url), ("PREFIXX", "x")])
            })
            .collect();
        for link in &these {
            env.host.put(link).await;
        }
        join_all(these.iter().map(async |link| {
            let client = env.client.component(link.component(), link.name());
            eventually("the link is there", async || {
                client.increment("", "links", 1).await.is_ok()
            })
            .await;
        }))
        .await;
        for link in &these {
            env.host.delete(link.component(), link.name()).await;
        }
        let last = these.last().expect("twenty");
        let client = env.client.component(last.component(), last.name());
        eventually("the link is gone", async || client.probe().await.is_err()).await;
    }
    eventually("their connections are closed", async || {
        env.redis.connections().await == 1
    })
    .await;
}

/// Cuts the connection in the midst of calls, so many times; answers how many calls failed.
async fn cut_and_call(proxy: &Proxy, client: &Client, cuts: usize) -> usize {
    let mut errors = 0;
    for _ in 0..cuts {
        let connected = proxy.connect_times().len();
        let calls = join_all((0..8).map(|_| client.set("", "k", "v")));
        let (answers, ()) = tokio::join!(calls, async {
            tokio::task::yield_now().await;
            proxy.disconnect_all();
        });
        errors += answers.iter().filter(|answer| answer.is_err()).count();
        eventually("it connects again", async || {
            proxy.connect_times().len() > connected
        })
        .await;
        client.set("", "k", "v").await.unwrap();
    }
    errors
}

fn same(before: Holdings, after: Holdings) {
    assert!(
        after.resident <= before.resident + NOISE,
        "memory: {before:?}, then {after:?}"
    );
    assert_eq!(after.files, before.files);
    assert_eq!(after.connections, before.connections);
}

fn in_words(before: Holdings, after: Holdings) -> String {
    format!(
        "memory {} before, {} after; files {}, {}; connections {}, {}",
        gauge::mebibytes(before.resident),
        gauge::mebibytes(after.resident),
        before.files,
        after.files,
        before.connections,
        after.connections
    )
}
