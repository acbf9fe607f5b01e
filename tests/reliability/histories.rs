//! A model check: concurrent histories of registers and counters, recorded while connections are closed
//! and Redis is killed, are linearizable key by key.
//!
//! Two links use separate proxies, so that one may lose its connection while the other keeps writing.
//! Every call of unknown outcome doubles the possible states, so callers change to a new key after a
//! few of them. `history` records the operations, `linearizable` checks them.

// Guarantees: G45

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use fastrand::Rng;
use futures_util::future::join_all;
use test_support::client::{Client, Error};
use test_support::proxy::Proxy;
use test_support::redis::Redis;
use test_support::test_env::TestEnv;
use test_support::wait::eventually;

use crate::history::{Clock, Counter, History, Register, Verdict};
use crate::progress::{Progress, outcome_is_unknown};
use crate::scenario::{Row, pick, record};

const CALLERS_PER_LINK: usize = 4;
/// The number of keys of each kind in use at a time.
const SLOTS: usize = 2;
/// The calls of unknown outcome after which a slot changes to a new key.
const MAX_UNKNOWN: usize = 3;
/// Successful calls between two faults.
const CALLS_BETWEEN: usize = 100;
/// Successful calls over the other link while one has no connection.
const CALLS_MEANWHILE: usize = 20;
const RPC_TIMEOUT_MS: u64 = 1_500;

/// The faults, injected in rotation and alternating between the links, since their number is odd.
const FAULTS: [HistoryFault; 5] = [
    HistoryFault::Disconnect,
    HistoryFault::CutUnanswered,
    HistoryFault::Kill,
    HistoryFault::CutUnanswered,
    HistoryFault::Hang,
];

#[derive(Clone, Copy)]
enum HistoryFault {
    /// A connection is closed.
    Disconnect,
    /// Redis executes the calls in flight, the replies are lost, and the connection is closed; until the
    /// reconnect, the other link keeps writing.
    CutUnanswered,
    /// Redis executes the commands, and the replies are delayed until kvredis gives up the connection.
    Hang,
    /// Redis is killed and restarted.
    Kill,
}

/// The state shared by all callers.
#[derive(Default)]
struct SharedHistory {
    clock: Clock,
    progress: Progress,
    registers: History<Register>,
    counters: History<Counter>,
    /// Calls of unknown outcome, by slot.
    unknown: [[AtomicUsize; SLOTS]; 2],
    /// Each value is set only once.
    values: AtomicU64,
}

/// A link and the proxy between it and Redis.
struct ProxiedLink {
    number: usize,
    proxy: Proxy,
    client: Client,
}

#[tokio::test]
async fn registers_and_counters_are_linearizable_under_faults() {
    let faults = pick(15, 100);
    let mut env = TestEnv::builder()
        .redis(Redis::durable().await)
        .rpc_timeout_ms(Some(RPC_TIMEOUT_MS))
        .unlinked()
        .start()
        .await;
    let history = Arc::new(SharedHistory::default());
    let mut links = Vec::new();
    for number in 0..2 {
        let proxy = Proxy::start(env.redis.port()).await;
        let link = [("URL", &*proxy.url())];
        let client = env.link(&format!("link{number}"), "default", &link).await;
        links.push(ProxiedLink {
            number,
            proxy,
            client,
        });
    }
    let callers: Vec<_> = links
        .iter()
        .flat_map(|link| (0..CALLERS_PER_LINK).map(move |_| link))
        .map(|link| tokio::spawn(call(link.number, link.client.clone(), Arc::clone(&history))))
        .collect();
    for fault in 0..faults {
        history.progress.wait_for_successes(CALLS_BETWEEN).await;
        let from = history.clock.now();
        let connected: Vec<_> = links
            .iter()
            .map(|link| link.proxy.connect_times().len())
            .collect();
        let affected = match FAULTS[fault % FAULTS.len()] {
            HistoryFault::Kill => {
                env.redis.restart().await;
                env.redis.ready().await;
                &links[..]
            }
            of_one => {
                inject(&links[fault % 2].proxy, of_one, &history.progress).await;
                &links[fault % 2..][..1]
            }
        };
        for link in affected {
            // Until it reconnects, replies may still arrive over the old connection.
            eventually("the link has reconnected", async || {
                link.proxy.connect_times().len() > connected[link.number]
            })
            .await;
            eventually("calls over the link succeed", async || {
                link.client.get("", "nothing").await.is_ok()
            })
            .await;
            history.clock.broken(link.number, from);
        }
    }
    history.progress.wait_for_successes(CALLS_BETWEEN).await;
    history.progress.finish();
    for caller in join_all(callers).await {
        caller.expect("callers do not panic");
    }

    let (registers, counters) = history.check(faults);
    for verdict in [&registers, &counters] {
        assert!(verdict.wrong.is_empty(), "{:#?}", verdict.wrong);
    }
    assert_eq!(
        history.progress.without_response(),
        0,
        "calls without a response"
    );
    assert!(
        counters.unknown > 0,
        "no increment has an unknown outcome, although replies were lost"
    );
}

/// Injects the fault into one connection.
async fn inject(proxy: &Proxy, fault: HistoryFault, progress: &Progress) {
    match fault {
        HistoryFault::Disconnect => proxy.disconnect_all(),
        HistoryFault::CutUnanswered => {
            proxy.hold_replies();
            eventually("a reply is held back", async || proxy.has_held_replies()).await;
            proxy.disconnect_all();
            progress.wait_for_successes(CALLS_MEANWHILE).await;
            proxy.release();
        }
        HistoryFault::Hang => {
            let connected = proxy.connect_times().len();
            proxy.hold_replies();
            eventually("kvredis tries another connection", async || {
                proxy.connect_times().len() > connected
            })
            .await;
            proxy.release();
        }
        HistoryFault::Kill => unreachable!("Redis is killed by the caller"),
    }
}

/// Calls one function after the other until the end of the scenario.
async fn call(connection: usize, client: Client, history: Arc<SharedHistory>) {
    let mut rng = Rng::new();
    while !history.progress.is_finished() {
        let slot = rng.usize(0..SLOTS);
        if rng.bool() {
            history
                .on_register(connection, &client, slot, &mut rng)
                .await;
        } else {
            history
                .on_counter(connection, &client, slot, &mut rng)
                .await;
        }
    }
}

impl SharedHistory {
    async fn on_register(&self, connection: usize, client: &Client, slot: usize, rng: &mut Rng) {
        let unknown = &self.unknown[0][slot];
        let key = format!("register:{slot}:{}", current(unknown));
        let called = self.clock.now();
        let (action, written) = match rng.u8(0..8) {
            0..=2 => {
                let value = self.values.fetch_add(1, Ordering::Relaxed);
                let result = client.set("", &key, value.to_string()).await;
                (Register::Set(value), result)
            }
            3 => (Register::Delete, client.delete("", &key).await),
            _ => match self.read(client, &key).await {
                Some(value) => (Register::Get(value), Ok(())),
                None => return,
            },
        };
        if !matches!(action, Register::Get(_)) {
            self.progress.record(&written);
        }
        if written.is_err() {
            unknown.fetch_add(1, Ordering::Relaxed);
        }
        let succeeded = written.is_ok();
        self.registers
            .add(&self.clock, connection, &key, called, succeeded, action);
    }

    async fn on_counter(&self, connection: usize, client: &Client, slot: usize, rng: &mut Rng) {
        let unknown = &self.unknown[1][slot];
        let key = format!("counter:{slot}:{}", current(unknown));
        let called = self.clock.now();
        let (action, succeeded) = if rng.u8(0..4) == 0 {
            match self.read(client, &key).await {
                Some(number) => (Counter::Get(number), true),
                None => return,
            }
        } else {
            let delta = rng.u64(1..10);
            let result = client.increment("", &key, delta).await;
            self.progress.record(&result);
            match result {
                Ok(sum) => (
                    Counter::Add {
                        delta,
                        sum: Some(sum),
                    },
                    true,
                ),
                Err(error) if outcome_is_unknown(&error) => {
                    unknown.fetch_add(1, Ordering::Relaxed);
                    (Counter::Add { delta, sum: None }, false)
                }
                // If it was not executed, the sums of other calls show it.
                Err(_) => return,
            }
        };
        self.counters
            .add(&self.clock, connection, &key, called, succeeded, action);
    }

    /// The verdicts on registers and counters.
    fn check(&self, faults: usize) -> (Verdict, Verdict) {
        let registers = self.registers.check(&self.clock, |operation| {
            matches!(operation, Register::Set(_) | Register::Delete)
        });
        let counters = self.counters.check(&self.clock, |_| false);
        record(&Row {
            fault: &format!(
                "{faults} faults: Redis killed; one of two connections closed, closed after Redis executed the calls in flight, or unresponsive until its timeout"
            ),
            load: "8 callers over 2 links on a few keys: set, get, delete, increment",
            promised: "every key is linearizable; no increment is applied twice, but an interrupted set or delete may be",
            counted: format!(
                "{} calls, {} errors, {} without a response; registers: {}; counters: {}",
                self.progress.calls(),
                self.progress.failed(),
                self.progress.without_response(),
                describe(&registers),
                describe(&counters),
            ),
        });
        (registers, counters)
    }

    /// The value of a key; `None` when the read failed.
    async fn read(&self, client: &Client, key: &str) -> Option<Option<u64>> {
        let result: Result<_, Error> = client.get("", key).await;
        self.progress.record(&result);
        let value = result.ok()?;
        Some(value.map(|digits| {
            let digits = String::from_utf8(digits).expect("values are text");
            digits.parse().expect("a number")
        }))
    }
}

/// The current key of a slot.
fn current(unknown: &AtomicUsize) -> usize {
    unknown.load(Ordering::Relaxed) / MAX_UNKNOWN
}

fn describe(verdict: &Verdict) -> String {
    format!(
        "{} operations on {} keys, {} of unknown outcome, {} keys with an operation applied twice, {} keys not linearizable",
        verdict.operations,
        verdict.keys,
        verdict.unknown,
        verdict.repeated,
        verdict.wrong.len()
    )
}
