//! `MAX_IN_FLIGHT`, `MAX_WAITING`, `MAX_VALUE_BYTES` and `MAX_BYTES_IN_FLIGHT` under ten times the
//! load that they allow: held, with bounded memory, and who is refused is told so at once.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use test_support::client::{Error, other_error};
use test_support::proxy::Proxy;
use test_support::test_env::{COMPONENT, TestEnv};
use test_support::values::bytes;
use test_support::wait::{eventually, eventually_eq, test_timeout};
use tokio::time::Instant;

use crate::gauge;
use crate::scale::{Row, pick, record};

const TIMES: usize = 10;
/// How many bytes are sent ahead: nats-server closes a connection that is 64 MiB behind
/// (`max_pending`), whoever's it is.
const AHEAD: usize = 16 << 20;
/// Longer than anything here takes, so that nothing ends because its time is up.
const LONG_MS: u64 = 120_000;
const PATIENT: (&str, &str) = ("BACKEND_RESPONSE_TIMEOUT_MS", "120000");
/// A refusal that took longer would have waited for something; a busy machine needs a part of it.
const AT_ONCE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn calls_beyond_the_places_are_refused_at_once() {
    let (in_flight, waiting) = pick((16, 48), (1_024, 4_096));
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(LONG_MS))
        .start()
        .await;
    let proxy = Proxy::start(env.redis.port()).await;
    let config = [
        ("URL", &*proxy.url()),
        ("MAX_IN_FLIGHT", &in_flight.to_string()),
        ("MAX_WAITING", &waiting.to_string()),
        PATIENT,
    ];
    let client = env.link(COMPONENT, "narrow", &config).await;
    let client = client.timeout(Duration::from_millis(LONG_MS));
    client.set("", "k", b"v").await.unwrap();
    proxy.hold_replies();
    let before = gauge::resident(&env);
    gauge::forget_peak(&env);
    let places = in_flight + waiting;
    let held: Vec<_> = (0..places)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.get("", "k").await })
        })
        .collect();
    eventually_eq("all turns are taken", in_flight, async || {
        proxy.command_count("GET")
    })
    .await;
    // Behind these in the same queue: once it is answered, all places are taken.
    too_many(client.get("", "k").await);

    let refusals = places * (TIMES - 1);
    let mut took: Vec<Duration> = stream::iter(0..refusals)
        .map(async |_| {
            let begun = Instant::now();
            too_many(client.get("", "k").await);
            begun.elapsed()
        })
        .buffer_unordered(64)
        .collect()
        .await;
    took.sort();
    let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
    assert!(longest < AT_ONCE, "a refusal took {longest:?}");
    assert_eq!(
        proxy.command_count("GET"),
        in_flight,
        "MAX_IN_FLIGHT is held"
    );
    assert!(held.iter().all(|call| !call.is_finished()));
    let grown = gauge::peak(&env).saturating_sub(before);
    // 3 KiB are what a call costs in the debug build; four times that, and 16 MiB for the rest.
    let bound = places as u64 * 12 + (16 << 10);
    assert!(grown < bound, "{grown} KiB for {places} calls");
    proxy.release();
    for call in held {
        assert_eq!(call.await.unwrap(), Ok(Some(b"v".to_vec())));
    }
    record(&Row {
        fault: "10 times the calls that `MAX_IN_FLIGHT` and `MAX_WAITING` allow",
        load: &format!("{} calls while Redis sends no replies", places * TIMES),
        promised: "calls up to the limits are in flight or queued, others are rejected at once; memory is bounded",
        counted: format!(
            "{in_flight} in flight, {waiting} queued, all completed afterwards; {} rejected within {median:.1?} (median), {longest:.1?} (maximum); memory growth at most {}",
            refusals + 1,
            gauge::mebibytes(grown),
        ),
    });
}

#[tokio::test]
async fn values_beyond_the_largest_are_refused_and_reach_no_redis() {
    let limit = pick(64 << 10, 256 << 10);
    let calls = pick(100, 500);
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(LONG_MS))
        .config(&[("MAX_VALUE_BYTES", &limit.to_string())])
        .start()
        .await;
    let client = env.client.timeout(Duration::from_millis(LONG_MS));
    let (fits, large) = (bytes(limit), bytes(limit * TIMES));
    client.set("", "k", &fits).await.unwrap();
    let before = gauge::resident(&env);
    gauge::forget_peak(&env);
    let sets = env.redis.calls("set").await + env.redis.calls("mset").await;
    let refused = stream::iter(0..calls)
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
    let grown = gauge::peak(&env).saturating_sub(before);
    // Sixteen at once, each put together from its pieces, in a buffer that may be twice as large;
    // and what NATS has sent ahead.
    let bound = (16 * 3 * limit * TIMES / 1024 + (64 << 10)) as u64;
    assert!(grown < bound, "{grown} KiB");
    record(&Row {
        fault: "values of 10 times `MAX_VALUE_BYTES`",
        load: &format!("{calls} `set` and `set-many`, 16 in flight"),
        promised: "rejected, none reaches Redis",
        counted: format!(
            "{refused} rejected, 0 reached Redis; memory growth at most {}",
            gauge::mebibytes(grown)
        ),
    });
}

#[tokio::test]
async fn bytes_beyond_those_in_flight_wait_or_are_refused() {
    let limit: usize = pick(8 << 20, 32 << 20);
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(LONG_MS))
        .provider_config(&[("MAX_BYTES_IN_FLIGHT", &limit.to_string())])
        .start()
        .await;
    let proxy = Proxy::start(env.redis.port()).await;
    let client = env
        .link(COMPONENT, "large", &[("URL", &proxy.url()), PATIENT])
        .await;
    let client = client.timeout(Duration::from_millis(LONG_MS));
    client.exists("", "k").await.unwrap();
    let mut counted = Vec::new();
    // Values that come in one message each, and such as are announced and fetched.
    for size in [900_000, 3 << 20] {
        proxy.hold_replies();
        let before = gauge::resident(&env);
        gauge::forget_peak(&env);
        let count = limit * TIMES / size;
        let value = bytes(size);
        let sets = proxy.command_count("SET");
        let mut calls = Vec::new();
        for i in 0..count {
            let (client, value) = (client.clone(), value.clone());
            calls.push(tokio::spawn(async move {
                client.set("", &format!("k{i}"), value).await
            }));
            if (i + 1) * size % AHEAD < size {
                // It has read what came before; nobody is served meanwhile.
                assert!(env.host.health().await.unwrap().healthy);
            }
        }
        let fit = limit / size;
        eventually("as many are with Redis as fit", async || {
            proxy.command_count("SET") - sets >= fit
        })
        .await;
        if size < 1 << 20 {
            // All are here, and more than may wait.
            eventually("who is too much is refused meanwhile", async || {
                calls.iter().any(tokio::task::JoinHandle::is_finished)
            })
            .await;
        }
        assert_health(&env).await;
        proxy.release();
        let answers = join_all(calls).await;
        let mut written = 0;
        for (i, answer) in answers.into_iter().enumerate() {
            match answer.unwrap() {
                Ok(()) => {
                    written += 1;
                    let stored = client.get("", &format!("k{i}")).await.unwrap();
                    assert_eq!(stored.as_ref(), Some(&value), "k{i}");
                }
                Err(Error::Other(text)) => {
                    assert!(text.contains("MAX_BYTES_IN_FLIGHT"), "{text}");
                }
                answer => panic!("{answer:?}"),
            }
        }
        assert!(written >= fit, "{written} of {count}");
        let grown = gauge::peak(&env).saturating_sub(before);
        bounded(grown, limit);
        counted.push(format!(
            "{count} `set` of {}: {written} written, {} rejected, memory growth at most {}",
            gauge::mebibytes(size as u64 / 1024),
            count - written,
            gauge::mebibytes(grown),
        ));
        // Results are held, too.
        let before = gauge::resident(&env);
        gauge::forget_peak(&env);
        let answers = join_all((0..count).map(|_| client.get("", "k0"))).await;
        for answer in &answers {
            assert_eq!(answer.as_ref().unwrap().as_ref(), Some(&value));
        }
        drop(answers);
        let grown = gauge::peak(&env).saturating_sub(before);
        bounded(grown, limit);
        counted.push(format!(
            "{count} `get` of the same: all correct, memory growth at most {}",
            gauge::mebibytes(grown),
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

/// The health is asked in the midst of it, ten times.
async fn assert_health(env: &TestEnv) {
    for _ in 0..10 {
        let health = tokio::time::timeout(test_timeout(), env.host.health()).await;
        assert!(health.unwrap().unwrap().healthy);
    }
}

/// Measured are three times the bytes that may be held and may wait: NATS's buffers around a
/// message are up to twice as large, and Redis gets a copy. The rest is what was read ahead.
fn bounded(grown: u64, limit: usize) {
    let counted = (limit + limit.max(16 << 20)) / 1024;
    let bound = (4 * counted + (64 << 10)) as u64;
    assert!(grown < bound, "{grown} KiB, expected at most {bound}");
}

fn too_many(answer: Result<Option<Vec<u8>>, Error>) {
    let error = other_error(answer);
    assert!(error.contains("too many calls waiting"), "{error}");
}
