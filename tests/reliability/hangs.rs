//! Contract §3: a Redis that hangs or lies, and a network that swallows everything. Every call is
//! answered within its time, nobody beside notices, health is answered all along, and the link is
//! back when the fault is over.

use std::time::Duration;

use futures_util::future::join_all;
use test_support::client::{Client, Error};
use test_support::proxy::{Disconnect, Fault, Proxy};
use test_support::redis::Redis;
use test_support::test_env::TestEnv;
use test_support::wait::test_timeout;
use tokio::time::{Instant, timeout};

use crate::scale::{Row, pick, record};
use crate::stopwatch::{Times, health, ms, s, steady_calls};

/// What the host of these tests waits for an answer.
const HOST: Duration = Duration::from_secs(3);
/// `BACKEND_RESPONSE_TIMEOUT_MS` of the links in trouble.
const RESPONSE: Duration = Duration::from_millis(300);
/// More than what begins, changes and ends, and far fewer than the calls.
const LINES: usize = 25;
const COUNTER: &str = "counter";

/// A provider with one link in trouble and one that has nothing to do with it, and another provider
/// where all is well, to compare with.
struct Scene {
    env: TestEnv,
    undisturbed: TestEnv,
    /// What the link in trouble uses.
    redis: Redis,
}

/// What came of the calls over the link in trouble.
#[derive(Default)]
struct Suffered {
    times: Vec<Duration>,
    errors: usize,
    counted: u64,
    /// Increments that were answered with an error.
    uncertain: u64,
}

/// What is done, and what is promised for it.
struct Trouble<'a> {
    fault: &'a str,
    promised: &'a str,
    /// How long a call may take.
    budget: Duration,
}

/// Redis hangs after it has answered before: an answer and a retry's worth of waiting, and what a
/// busy machine adds.
fn hanging(fault: &str) -> Trouble<'_> {
    Trouble {
        fault,
        promised: "calls return within 2 × 300 ms (`BACKEND_RESPONSE_TIMEOUT_MS`); other links and health unaffected",
        budget: 2 * RESPONSE + Duration::from_millis(pick(1_500, 400)),
    }
}

/// The connection is gone, which calls wait out, but no longer than the host waits for them.
fn disconnected(fault: &str) -> Trouble<'_> {
    Trouble {
        fault,
        promised: "calls return within the host's 3 s; other links and health unaffected",
        budget: HOST + Duration::from_secs(pick(2, 0)),
    }
}

#[tokio::test]
async fn a_frozen_redis() {
    let scene = Scene::new().await;
    let link = scene.link(&scene.redis.url()).await;
    works(&link).await;
    let trouble = hanging("Redis frozen (SIGSTOP)");
    scene.redis.pause();
    scene
        .observe(&trouble, &link, || scene.redis.resume())
        .await;
}

#[tokio::test]
async fn a_network_that_drops_everything() {
    let trouble = hanging("network drops all packets in both directions");
    behind_a_proxy(&trouble, Fault::Stall).await;
}

#[tokio::test]
async fn a_network_that_forgets_connections() {
    behind_a_proxy(
        &hanging("connections silently dropped by the network"),
        Fault::StallForever,
    )
    .await;
}

#[tokio::test]
async fn a_server_that_answers_half() {
    behind_a_proxy(&hanging("half a reply, then silence"), Fault::Truncate).await;
}

#[tokio::test]
async fn a_server_that_resets() {
    let trouble = disconnected("every connection reset at its first reply");
    behind_a_proxy(&trouble, Fault::Reset).await;
}

#[tokio::test]
async fn a_server_that_answers_garbage() {
    let trouble = disconnected("garbage instead of replies");
    behind_a_proxy(&trouble, Fault::Garbage).await;
}

#[tokio::test]
async fn a_server_that_hangs_up_at_every_command() {
    let scene = Scene::new().await;
    let proxy = Proxy::start(scene.redis.port()).await;
    let link = scene.link(&proxy.url()).await;
    works(&link).await;
    let commands = ["GET", "SET", "DEL", "SCAN", "EVALSHA"];
    for command in commands {
        proxy.disconnect_on(command, Disconnect::BeforeCommand);
    }
    let trouble = disconnected("handshake succeeds, connection closed at every command");
    let end = || proxy.clear_disconnects();
    scene.observe(&trouble, &link, end).await;
}

#[tokio::test]
async fn a_listener_that_never_answers() {
    let scene = Scene::new().await;
    let proxy = Proxy::start(scene.redis.port()).await;
    proxy.inject(Fault::HoldReplies);
    let link = scene.link(&proxy.url()).await;
    let trouble = disconnected("connections accepted, no replies");
    scene.observe(&trouble, &link, || proxy.release()).await;
}

/// A link that has worked, until its proxy begins to misbehave.
async fn behind_a_proxy(trouble: &Trouble<'_>, fault: Fault) {
    let scene = Scene::new().await;
    let proxy = Proxy::start(scene.redis.port()).await;
    let link = scene.link(&proxy.url()).await;
    works(&link).await;
    proxy.inject(fault);
    scene.observe(trouble, &link, || proxy.release()).await;
}

async fn works(link: &Client) {
    link.set("", "before", b"v").await.unwrap();
}

impl Scene {
    async fn new() -> Self {
        let world = async || {
            let milliseconds = u64::try_from(HOST.as_millis()).unwrap();
            let builder = TestEnv::builder().rpc_timeout_ms(Some(milliseconds));
            builder.start().await
        };
        let (env, undisturbed, redis) = tokio::join!(world(), world(), Redis::start());
        Self {
            env,
            undisturbed,
            redis,
        }
    }

    async fn link(&self, url: &str) -> Client {
        let response = RESPONSE.as_millis().to_string();
        let config = [("URL", url), ("BACKEND_RESPONSE_TIMEOUT_MS", &response)];
        self.env.link("troubled", "default", &config).await
    }

    /// Calls and measures while the trouble lasts, ends it, and says what came of it.
    async fn observe(&self, trouble: &Trouble<'_>, link: &Client, end: impl FnOnce()) {
        let callers = pick(8, 32);
        let lines_before = self.env.provider.log().len();
        let until = Instant::now() + Duration::from_secs(pick(3, 12));
        let (suffered, beside, undisturbed, health, other_health) = tokio::join!(
            suffer(link, callers, until),
            steady_calls(&self.env.client, until),
            steady_calls(&self.undisturbed.client, until),
            health(&self.env.host, until),
            health(&self.undisturbed.host, until),
        );
        end();
        let lines = self.env.provider.log().len() - lines_before;
        assert!(lines <= LINES, "{lines} lines in the log");
        let (recovered, uncertain) = recovery(link).await;
        let total: u64 = self.redis.command(&["GET", COUNTER]).await;
        let least = suffered.counted + 1;
        let most = least + suffered.uncertain + uncertain;
        assert!(
            (least..=most).contains(&total),
            "{total} counted, {least} to {most} asked"
        );

        let calls = Times::from(suffered.times);
        let longest = calls.longest();
        assert!(
            longest <= trouble.budget,
            "a call took {longest:?}, more than {:?}",
            trouble.budget
        );
        // Others may be busy beside the short form: what is caught there is waiting for Redis.
        let floor = Duration::from_millis(pick(250, 20));
        let allowed = floor.max(undisturbed.p99() * 2);
        assert!(
            beside.p99() <= allowed,
            "p99 beside: {:?}, undisturbed {:?}",
            beside.p99(),
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
            fault: trouble.fault,
            load: &format!("{callers} callers on the link, 4 on another"),
            promised: trouble.promised,
            counted: format!(
                "{} calls, {} errors, 0 without a response, 0 wrong results, maximum {}; other link {} calls, p99 {} (undisturbed {}); {} health checks, maximum {}; {lines} log lines; recovery in {}",
                calls.count(),
                suffered.errors,
                s(longest),
                beside.count(),
                ms(beside.p99()),
                ms(undisturbed.p99()),
                health.count(),
                ms(health.longest()),
                s(recovered),
            ),
        });
    }
}

/// Callers that try everything again and again. No answer, or a wrong one, panics.
async fn suffer(link: &Client, callers: usize, until: Instant) -> Suffered {
    let all = (0..callers).map(async |caller| {
        let mut suffered = Suffered::default();
        let key = format!("k{caller}");
        for round in caller.. {
            let now = Instant::now();
            if now >= until {
                break;
            }
            let answer = match round % 5 {
                0 => link.get("", "never written").await.map(|value| {
                    assert_eq!(value, None, "a value that nobody wrote");
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
            match answer {
                Ok(()) => {}
                Err(Error::Other(text)) => {
                    assert!(text.contains("redis://127.0.0.1:"), "where? {text}");
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
        .fold(Suffered::default(), |mut sum, one| {
            sum.times.extend(one.times);
            sum.errors += one.errors;
            sum.counted += one.counted;
            sum.uncertain += one.uncertain;
            sum
        })
}

/// The time until calls succeed, one of which counts, and how often that failed before.
async fn recovery(link: &Client) -> (Duration, u64) {
    let begun = Instant::now();
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
        .expect("the link is back");
    (begun.elapsed(), uncertain)
}
