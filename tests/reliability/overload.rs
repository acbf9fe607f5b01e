//! `MAX_IN_FLIGHT`, `MAX_WAITING`, `MAX_VALUE_BYTES` and `MAX_BYTES_IN_FLIGHT` under ten times the
//! permitted load: the limits hold, memory is bounded, and excess calls are rejected at once.

// Guarantees: G47

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use test_support::client::{Error, other_error};
use test_support::proxy::Proxy;
use test_support::test_env::{COMPONENT, TestEnv};
use test_support::values::bytes;
use test_support::wait::{eventually, eventually_eq, test_timeout};
use tokio::time::Instant;

use crate::resources;
use crate::scenario::{Row, pick, record};

const FACTOR: usize = 10;
/// The number of bytes sent ahead: nats-server closes connections that are 64 MiB behind
/// (`max_pending`).
const MAX_BYTES_AHEAD: usize = 16 << 20;
/// Longer than anything here takes, so that no call reaches its timeout.
const LONG_TIMEOUT_MS: u64 = 120_000;
const LONG_RESPONSE_TIMEOUT: (&str, &str) = ("BACKEND_RESPONSE_TIMEOUT_MS", "120000");
/// A slower rejection would have waited for something; a busy machine needs a fraction of it.
const REJECTION_LIMIT: Duration = Duration::from_secs(2);

#[tokio::test]
async fn calls_above_in_flight_and_waiting_limits_are_rejected_at_once() {
    let (in_flight, waiting) = pick((16, 48), (1_024, 4_096));
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(LONG_TIMEOUT_MS))
        .start()
        .await;
    let proxy = Proxy::start(env.redis.port()).await;
    let config = [
        ("URL", &*proxy.url()),
        ("MAX_IN_FLIGHT", &in_flight.to_string()),
        ("MAX_WAITING", &waiting.to_string()),
        LONG_RESPONSE_TIMEOUT,
    ];
    let client = env.link(COMPONENT, "narrow", &config).await;
    let client = client.timeout(Duration::from_millis(LONG_TIMEOUT_MS));
    client.set("", "k", b"v").await.unwrap();
    proxy.hold_replies();
    let before = resources::resident(&env);
    resources::reset_peak(&env);
    let capacity = in_flight + waiting;
    let held: Vec<_> = (0..capacity)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.get("", "k").await })
        })
        .collect();
    eventually_eq("all permits are taken", in_flight, async || {
        proxy.command_count("GET")
    })
    .await;
    // This call is last in the same queue: once it is rejected, all places are taken.
    assert_queue_full(client.get("", "k").await);

    let rejections = capacity * (FACTOR - 1);
    let mut took: Vec<Duration> = stream::iter(0..rejections)
        .map(async |_| {
            let started = Instant::now();
            assert_queue_full(client.get("", "k").await);
            started.elapsed()
        })
        .buffer_unordered(64)
        .collect()
        .await;
    took.sort();
    let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
    assert!(longest < REJECTION_LIMIT, "a rejection took {longest:?}");
    assert_eq!(
        proxy.command_count("GET"),
        in_flight,
        "MAX_IN_FLIGHT is held"
    );
    assert!(held.iter().all(|call| !call.is_finished()));
    let grown = resources::peak(&env).saturating_sub(before);
    // A call takes 3 KiB in the debug build; allowed are four times that, and 16 MiB for the rest.
    let bound = capacity as u64 * 12 + (16 << 10);
    assert!(grown < bound, "{grown} KiB for {capacity} calls");
    proxy.release();
    for call in held {
        assert_eq!(call.await.unwrap(), Ok(Some(b"v".to_vec())));
    }
    record(&Row {
        fault: "10 times the calls that `MAX_IN_FLIGHT` and `MAX_WAITING` allow",
        load: &format!("{} calls while Redis sends no replies", capacity * FACTOR),
        promised: "calls up to the limits are in flight or queued, others are rejected at once; memory is bounded",
        counted: format!(
            "{in_flight} in flight, {waiting} queued, all completed afterwards; {} rejected within {median:.1?} (median), {longest:.1?} (maximum); memory growth at most {}",
            rejections + 1,
            resources::mebibytes(grown),
        ),
    });
}

// Guarantees: G25
#[tokio::test]
async fn values_above_max_value_bytes_are_rejected_before_redis() {
    let limit = pick(64 << 10, 256 << 10);
    let calls = pick(100, 500);
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(LONG_TIMEOUT_MS))
        .config(&[("MAX_VALUE_BYTES", &limit.to_string())])
        .start()
        .await;
    let client = env.client.timeout(Duration::from_millis(LONG_TIMEOUT_MS));
    let (fits, large) = (bytes(limit), bytes(limit * FACTOR));
    client.set("", "k", &fits).await.unwrap();
    let before = resources::resident(&env);
    resources::reset_peak(&env);
    let sets = env.redis.calls("set").await + env.redis.calls("mset").await;
    let rejected = stream::iter(0..calls)
        .map(async |i| {
            let error = if i % 2 == 0 {
                other_error(client.set("", "k", &large).await)
            } else {
                other_error(client.set_many("", &[("l", &fits), ("k", &large)]).await)
            };
            assert!(error.contains("MAX_VALUE_BYTES"), "{error}");
        })
        .buffer_unordered(16)
        .count()
        .await;
    assert_eq!(
        env.redis.calls("set").await + env.redis.calls("mset").await,
        sets,
        "none reached Redis"
    );
    assert_eq!(client.get("", "k").await, Ok(Some(fits)));
    assert_eq!(client.exists("", "l").await, Ok(false));
    let grown = resources::peak(&env).saturating_sub(before);
    // Sixteen concurrent values, each assembled in a buffer of up to twice its size, and the data
    // sent ahead over NATS.
    let bound = (16 * 3 * limit * FACTOR / 1024 + (64 << 10)) as u64;
    assert!(grown < bound, "{grown} KiB");
    record(&Row {
        fault: "values of 10 times `MAX_VALUE_BYTES`",
        load: &format!("{calls} `set` and `set-many`, 16 in flight"),
        promised: "rejected, none reaches Redis",
        counted: format!(
            "{rejected} rejected, 0 reached Redis; memory growth at most {}",
            resources::mebibytes(grown)
        ),
    });
}

#[tokio::test]
async fn calls_above_max_bytes_in_flight_wait_or_are_rejected() {
    let limit: usize = pick(8 << 20, 32 << 20);
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(LONG_TIMEOUT_MS))
        .provider_config(&[("MAX_BYTES_IN_FLIGHT", &limit.to_string())])
        .start()
        .await;
    let proxy = Proxy::start(env.redis.port()).await;
    let client = env
        .link(
            COMPONENT,
            "large",
            &[("URL", &proxy.url()), LONG_RESPONSE_TIMEOUT],
        )
        .await;
    let client = client.timeout(Duration::from_millis(LONG_TIMEOUT_MS));
    client.exists("", "k").await.unwrap();
    let mut counted = Vec::new();
    // Values in a single message, and values whose length is announced first.
    for size in [900_000, 3 << 20] {
        proxy.hold_replies();
        let before = resources::resident(&env);
        resources::reset_peak(&env);
        let count = limit * FACTOR / size;
        let value = bytes(size);
        let sets = proxy.command_count("SET");
        let mut calls = Vec::new();
        for i in 0..count {
            let (client, value) = (client.clone(), value.clone());
            calls.push(tokio::spawn(async move {
                client.set("", &format!("k{i}"), value).await
            }));
            if (i + 1) * size % MAX_BYTES_AHEAD < size {
                // The provider has read the preceding messages; no call completes meanwhile.
                assert!(env.host.health().await.unwrap().healthy);
            }
        }
        let fit = limit / size;
        eventually("as many calls are in flight as fit", async || {
            proxy.command_count("SET") - sets >= fit
        })
        .await;
        if size < 1 << 20 {
            // All calls have arrived, more than may wait.
            eventually("excess calls are rejected meanwhile", async || {
                calls.iter().any(tokio::task::JoinHandle::is_finished)
            })
            .await;
        }
        assert_health(&env).await;
        proxy.release();
        let results = join_all(calls).await;
        let mut written = 0;
        for (i, result) in results.into_iter().enumerate() {
            match result.unwrap() {
                Ok(()) => {
                    written += 1;
                    let stored = client.get("", &format!("k{i}")).await.unwrap();
                    assert_eq!(stored.as_ref(), Some(&value), "k{i}");
                }
                Err(Error::Other(text)) => {
                    assert!(text.contains("MAX_BYTES_IN_FLIGHT"), "{text}");
                }
                result => panic!("{result:?}"),
            }
        }
        assert!(written >= fit, "{written} of {count}");
        let grown = resources::peak(&env).saturating_sub(before);
        assert_bounded(grown, limit);
        counted.push(format!(
            "{count} `set` of {}: {written} written, {} rejected, memory growth at most {}",
            resources::mebibytes(size as u64 / 1024),
            count - written,
            resources::mebibytes(grown),
        ));
        // Results count towards the limit, too.
        let before = resources::resident(&env);
        resources::reset_peak(&env);
        let results = join_all((0..count).map(|_| client.get("", "k0"))).await;
        for result in &results {
            assert_eq!(result.as_ref().unwrap().as_ref(), Some(&value));
        }
        drop(results);
        let grown = resources::peak(&env).saturating_sub(before);
        assert_bounded(grown, limit);
        counted.push(format!(
            "{count} `get` of the same: all correct, memory growth at most {}",
            resources::mebibytes(grown),
        ));
    }
    record(&Row {
        fault: "10 times the bytes that `MAX_BYTES_IN_FLIGHT` allows",
        load: &format!(
            "`MAX_BYTES_IN_FLIGHT` {} MiB, all calls at once",
            limit >> 20
        ),
        promised: "calls above the limit are queued; memory is bounded; health checks succeed",
        counted: counted.join("; "),
    });
}

/// Ten health checks under the load get replies.
async fn assert_health(env: &TestEnv) {
    for _ in 0..10 {
        let health = tokio::time::timeout(test_timeout(), env.host.health()).await;
        assert!(health.unwrap().unwrap().healthy);
    }
}

/// The bound is three times the bytes in flight and waiting: NATS's buffers are up to twice the size of a
/// message, and Redis gets a copy. The rest is the data read ahead.
fn assert_bounded(grown: u64, limit: usize) {
    let counted = (limit + limit.max(16 << 20)) / 1024;
    let bound = (4 * counted + (64 << 10)) as u64;
    assert!(grown < bound, "{grown} KiB, expected at most {bound}");
}

fn assert_queue_full(result: Result<Option<Vec<u8>>, Error>) {
    let error = other_error(result);
    assert!(error.contains("too many calls waiting"), "{error}");
}
