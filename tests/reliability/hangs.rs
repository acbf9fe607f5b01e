//! An unresponsive or faulty Redis, and a network that drops packets. Every call completes within its
//! timeout, other links are unaffected, health checks always get a reply, and the link recovers when the
//! fault is over.

// Guarantees: G17, G43

use std::time::Duration;

use futures_util::future::join_all;
use test_support::client::{Client, Error};
use test_support::proxy::{Disconnect, Fault, Proxy};
use test_support::redis::Redis;
use test_support::test_env::TestEnv;
use test_support::wait::test_timeout;
use tokio::time::{Instant, timeout};

use crate::latency::{Latencies, health, ms, s, steady_calls};
use crate::scenario::{Row, pick, record};

/// The host's RPC timeout in these tests.
const HOST_TIMEOUT: Duration = Duration::from_secs(3);
/// `BACKEND_RESPONSE_TIMEOUT_MS` of the faulty links.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(300);
/// Enough for the beginning, changes and end of a fault, and far fewer than the calls.
const MAX_LOG_LINES: usize = 25;
const COUNTER: &str = "counter";

/// A provider with one faulty link and one healthy link, and a second provider without faults for
/// comparison.
struct Scenario {
    env: TestEnv,
    undisturbed: TestEnv,
    /// The Redis of the faulty link.
    redis: Redis,
}

/// The results of the calls over the faulty link.
#[derive(Default)]
struct FaultyCalls {
    times: Vec<Duration>,
    errors: usize,
    counted: u64,
    /// Increments that failed.
    uncertain: u64,
}

/// A fault, and the promise for it.
struct FaultCase<'a> {
    fault: &'a str,
    promised: &'a str,
    /// The time limit of a call.
    budget: Duration,
}

/// Redis stops replying after the connection was established: a reply timeout and that of a retry, with
/// an allowance for busy machines.
fn hanging(fault: &str) -> FaultCase<'_> {
    FaultCase {
        fault,
        promised: "calls return within 2 × 300 ms (`BACKEND_RESPONSE_TIMEOUT_MS`); other links and health unaffected",
        budget: 2 * RESPONSE_TIMEOUT + Duration::from_millis(pick(1_500, 400)),
    }
}

/// The connection is lost: calls wait for it, within the host's timeout.
fn disconnected(fault: &str) -> FaultCase<'_> {
    FaultCase {
        fault,
        promised: "calls return within the host's 3 s; other links and health unaffected",
        budget: HOST_TIMEOUT + Duration::from_secs(pick(2, 0)),
    }
}

#[tokio::test]
async fn calls_to_a_suspended_redis_time_out() {
    let scene = Scenario::new().await;
    let link = scene.link(&scene.redis.url()).await;
    assert_works(&link).await;
    let case = hanging("Redis frozen (SIGSTOP)");
    scene.redis.pause();
    scene.observe(&case, &link, || scene.redis.resume()).await;
}

#[tokio::test]
async fn calls_time_out_while_the_network_drops_all_packets() {
    let case = hanging("network drops all packets in both directions");
    behind_a_proxy(&case, Fault::Stall).await;
}

#[tokio::test]
async fn calls_time_out_on_silently_dropped_connections() {
    behind_a_proxy(
        &hanging("connections silently dropped by the network"),
        Fault::StallForever,
    )
    .await;
}

#[tokio::test]
async fn calls_time_out_on_truncated_replies() {
    behind_a_proxy(&hanging("half a reply, then silence"), Fault::Truncate).await;
}

#[tokio::test]
async fn calls_time_out_while_connections_are_reset() {
    let case = disconnected("every connection reset at its first reply");
    behind_a_proxy(&case, Fault::Reset).await;
}

#[tokio::test]
async fn calls_time_out_on_garbage_replies() {
    let case = disconnected("garbage instead of replies");
    behind_a_proxy(&case, Fault::Garbage).await;
}

#[tokio::test]
async fn calls_time_out_while_every_command_disconnects() {
    let scene = Scenario::new().await;
    let proxy = Proxy::start(scene.redis.port()).await;
    let link = scene.link(&proxy.url()).await;
    assert_works(&link).await;
    let commands = ["GET", "SET", "DEL", "SCAN", "EVALSHA"];
    for command in commands {
        proxy.disconnect_on(command, Disconnect::BeforeCommand);
    }
    let case = disconnected("handshake succeeds, connection closed at every command");
    let end = || proxy.clear_disconnects();
    scene.observe(&case, &link, end).await;
}

#[tokio::test]
async fn calls_time_out_on_a_listener_without_replies() {
    let scene = Scenario::new().await;
    let proxy = Proxy::start(scene.redis.port()).await;
    proxy.inject(Fault::HoldReplies);
    let link = scene.link(&proxy.url()).await;
    let case = disconnected("connections accepted, no replies");
    scene.observe(&case, &link, || proxy.release()).await;
}

/// A link that has worked until its proxy injects the fault.
async fn behind_a_proxy(case: &FaultCase<'_>, fault: Fault) {
    let scene = Scenario::new().await;
    let proxy = Proxy::start(scene.redis.port()).await;
    let link = scene.link(&proxy.url()).await;
    assert_works(&link).await;
    proxy.inject(fault);
    scene.observe(case, &link, || proxy.release()).await;
}

async fn assert_works(link: &Client) {
    link.set("", "before", b"v").await.unwrap();
}

impl Scenario {
    async fn new() -> Self {
        let start_env = async || {
            let milliseconds = u64::try_from(HOST_TIMEOUT.as_millis()).unwrap();
            let builder = TestEnv::builder().rpc_timeout_ms(Some(milliseconds));
            builder.start().await
        };
        let (env, undisturbed, redis) = tokio::join!(start_env(), start_env(), Redis::start());
        Self {
            env,
            undisturbed,
            redis,
        }
    }

    async fn link(&self, url: &str) -> Client {
        let response = RESPONSE_TIMEOUT.as_millis().to_string();
        let config = [("URL", url), ("BACKEND_RESPONSE_TIMEOUT_MS", &response)];
        self.env.link("faulty", "default", &config).await
    }

    /// Calls and measures during the fault, ends it, and records the results.
    async fn observe(&self, case: &FaultCase<'_>, link: &Client, end: impl FnOnce()) {
        let callers = pick(8, 32);
        let lines_before = self.env.provider.log().len();
        let until = Instant::now() + Duration::from_secs(pick(3, 12));
        let (suffered, other_link, undisturbed, health, other_health) = tokio::join!(
            call_continuously(link, callers, until),
            steady_calls(&self.env.client, until),
            steady_calls(&self.undisturbed.client, until),
            health(&self.env.host, until),
            health(&self.undisturbed.host, until),
        );
        end();
        let lines = self.env.provider.log().len() - lines_before;
        assert!(lines <= MAX_LOG_LINES, "{lines} lines in the log");
        let (recovered, uncertain) = recovery(link).await;
        let total: u64 = self.redis.command(&["GET", COUNTER]).await;
        let minimum = suffered.counted + 1;
        let maximum = minimum + suffered.uncertain + uncertain;
        assert!(
            (minimum..=maximum).contains(&total),
            "the counter is {total}, expected {minimum} to {maximum}"
        );

        let calls = Latencies::from(suffered.times);
        let longest = calls.longest();
        assert!(
            longest <= case.budget,
            "a call took {longest:?}, more than {:?}",
            case.budget
        );
        // Other tests run beside the short form; only waiting for Redis would exceed this limit.
        let floor = Duration::from_millis(pick(250, 20));
        let allowed = floor.max(undisturbed.p99() * 2);
        assert!(
            other_link.p99() <= allowed,
            "p99 of the other link: {:?}, undisturbed {:?}",
            other_link.p99(),
            undisturbed.p99()
        );
        let promptly = Duration::from_millis(pick(1_000, 100)).max(other_health.longest() * 2);
        assert!(
            health.longest() <= promptly,
            "health took {:?}, undisturbed {:?}",
            health.longest(),
            other_health.longest()
        );
        record(&Row {
            fault: case.fault,
            load: &format!("{callers} callers on the link, 4 on another"),
            promised: case.promised,
            counted: format!(
                "{} calls, {} errors, 0 without a response, 0 wrong results, maximum {}; other link {} calls, p99 {} (undisturbed {}); {} health checks, maximum {}; {lines} log lines; recovery in {}",
                calls.count(),
                suffered.errors,
                s(longest),
                other_link.count(),
                ms(other_link.p99()),
                ms(undisturbed.p99()),
                health.count(),
                ms(health.longest()),
                s(recovered),
            ),
        });
    }
}

/// Callers that call every function continuously. A missing response or a wrong result panics.
async fn call_continuously(link: &Client, callers: usize, until: Instant) -> FaultyCalls {
    let all = (0..callers).map(async |caller| {
        let mut suffered = FaultyCalls::default();
        let key = format!("k{caller}");
        for round in caller.. {
            let now = Instant::now();
            if now >= until {
                break;
            }
            let result = match round % 5 {
                0 => link.get("", "never written").await.map(|value| {
                    assert_eq!(value, None, "a value that was never written");
                }),
                1 => link.set("", &key, b"v").await,
                2 => link
                    .keys("bucket")
                    .await
                    .map(|keys| assert!(keys.is_empty())),
                3 => link.delete_many("", &[&key]).await,
                _ => {
                    let sum = link.increment("", COUNTER, 1).await;
                    suffered.counted += u64::from(sum.is_ok());
                    suffered.uncertain += u64::from(sum.is_err());
                    sum.map(drop)
                }
            };
            suffered.times.push(now.elapsed());
            match result {
                Ok(()) => {}
                Err(Error::Other(text)) => {
                    assert!(
                        text.contains("redis://127.0.0.1:"),
                        "the error names no server: {text}"
                    );
                    suffered.errors += 1;
                }
                Err(error) => panic!("function {}: {error:?}", round % 5),
            }
        }
        suffered
    });
    join_all(all)
        .await
        .into_iter()
        .fold(FaultyCalls::default(), |mut sum, one| {
            sum.times.extend(one.times);
            sum.errors += one.errors;
            sum.counted += one.counted;
            sum.uncertain += one.uncertain;
            sum
        })
}

/// The time until calls succeed, one of which increments, and the number of failures before.
async fn recovery(link: &Client) -> (Duration, u64) {
    let started = Instant::now();
    let calls = async {
        while link.set("", "after", b"v").await.is_err() {}
        let mut uncertain = 0;
        while link.increment("", COUNTER, 1).await.is_err() {
            uncertain += 1;
        }
        uncertain
    };
    let uncertain = timeout(test_timeout(), calls)
        .await
        .expect("the link has recovered");
    (started.elapsed(), uncertain)
}
