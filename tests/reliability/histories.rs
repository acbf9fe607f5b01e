//! Contract §3 as a model check: concurrent histories of registers and counters, recorded while
//! connections are cut and Redis is killed, are linearizable key by key.
//!
//! Two links, each through a proxy of its own, so that one may lose its connection while the other
//! writes on. The callers change to another key when the outcome of too many calls on one is
//! unknown, since each doubles what is possible. `history` keeps the records, `linearizable` judges
//! them.

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
use crate::progress::{Progress, may_have_counted};
use crate::scale::{Row, pick, record};

const CALLERS_PER_LINK: usize = 4;
/// Keys of each kind that are in use at a time.
const SLOTS: usize = 2;
/// Calls of unknown outcome after which a slot gets another key.
const MOST_UNKNOWN: usize = 3;
/// Calls that succeed between one fault and the next.
const CALLS_BETWEEN: usize = 100;
/// Calls over the other link that succeed while one has no connection.
const CALLS_MEANWHILE: usize = 20;
const RPC_TIMEOUT_MS: u64 = 1_500;

/// What is done, one after the other and then from the beginning; to each link in turn, since the
/// number is odd.
const FAULTS: [Fault; 5] = [
    Fault::Disconnect,
    Fault::CutUnanswered,
    Fault::Kill,
    Fault::CutUnanswered,
    Fault::Hang,
];

#[derive(Clone, Copy)]
enum Fault {
    /// A connection is closed.
    Disconnect,
    /// Redis carries out what is under way, nobody hears of it, and the connection is closed; until
    /// there is another one, the other link writes on.
    CutUnanswered,
    /// Redis carries out what comes, and its answers come too late, until kvredis gives up the
    /// connection.
    Hang,
    /// Redis is killed, and started again.
    Kill,
}

/// What all callers share.
#[derive(Default)]
struct Board {
    clock: Clock,
    progress: Progress,
    registers: History<Register>,
    counters: History<Counter>,
    /// Calls of unknown outcome, slot by slot.
    unknown: [[AtomicUsize; SLOTS]; 2],
    /// Every value is set once only.
    values: AtomicU64,
}

/// A link, and the proxy between it and Redis.
struct Side {
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
    let board = Arc::new(Board::default());
    let mut sides = Vec::new();
    for number in 0..2 {
        let proxy = Proxy::start(env.redis.port()).await;
        let link = [("URL", &*proxy.url())];
        let client = env.link(&format!("side{number}"), "default", &link).await;
        sides.push(Side {
            number,
            proxy,
            client,
        });
    }
    let callers: Vec<_> = sides
        .iter()
        .flat_map(|side| (0..CALLERS_PER_LINK).map(move |_| side))
        .map(|side| tokio::spawn(call(side.number, side.client.clone(), Arc::clone(&board))))
        .collect();
    for fault in 0..faults {
        board.progress.more_succeed(CALLS_BETWEEN).await;
        let from = board.clock.now();
        let connected: Vec<_> = sides
            .iter()
            .map(|side| side.proxy.connect_times().len())
            .collect();
        let harmed = match FAULTS[fault % FAULTS.len()] {
            Fault::Kill => {
                env.redis.restart().await;
                env.redis.ready().await;
                &sides[..]
            }
            of_one => {
                harm(&sides[fault % 2].proxy, of_one, &board.progress).await;
                &sides[fault % 2..][..1]
            }
        };
        for side in harmed {
            // Before it connects again it may still answer over the old connection.
            eventually("it connects again", async || {
                side.proxy.connect_times().len() > connected[side.number]
            })
            .await;
            eventually("its calls succeed", async || {
                side.client.get("", "nothing").await.is_ok()
            })
            .await;
            board.clock.broken(side.number, from);
        }
    }
    board.progress.more_succeed(CALLS_BETWEEN).await;
    board.progress.finish();
    for caller in join_all(callers).await {
        caller.expect("callers do not panic");
    }

    let (registers, counters) = board.judge(faults);
    for verdict in [&registers, &counters] {
        assert!(verdict.wrong.is_empty(), "{:#?}", verdict.wrong);
    }
    assert_eq!(board.progress.unanswered(), 0, "calls without an answer");
    assert!(
        counters.unknown > 0,
        "answers were lost, so increments are unknown"
    );
}

/// Does this to one connection.
async fn harm(proxy: &Proxy, fault: Fault, progress: &Progress) {
    match fault {
        Fault::Disconnect => proxy.disconnect_all(),
        Fault::CutUnanswered => {
            proxy.hold_replies();
            eventually("an answer is held back", async || proxy.has_held_replies()).await;
            proxy.disconnect_all();
            progress.more_succeed(CALLS_MEANWHILE).await;
            proxy.release();
        }
        Fault::Hang => {
            let connected = proxy.connect_times().len();
            proxy.hold_replies();
            eventually("kvredis tries another connection", async || {
                proxy.connect_times().len() > connected
            })
            .await;
            proxy.release();
        }
        Fault::Kill => unreachable!("that is done to Redis"),
    }
}

/// Calls one function after the other until the end.
async fn call(connection: usize, client: Client, board: Arc<Board>) {
    let mut rng = Rng::new();
    while !board.progress.is_over() {
        let slot = rng.usize(0..SLOTS);
        if rng.bool() {
            board.on_register(connection, &client, slot, &mut rng).await;
        } else {
            board.on_counter(connection, &client, slot, &mut rng).await;
        }
    }
}

impl Board {
    async fn on_register(&self, connection: usize, client: &Client, slot: usize, rng: &mut Rng) {
        let unknown = &self.unknown[0][slot];
        let key = format!("register:{slot}:{}", current(unknown));
        let called = self.clock.now();
        let (what, written) = match rng.u8(0..8) {
            0..=2 => {
                let value = self.values.fetch_add(1, Ordering::Relaxed);
                let answer = client.set("", &key, value.to_string()).await;
                (Register::Set(value), answer)
            }
            3 => (Register::Delete, client.delete("", &key).await),
            _ => match self.read(client, &key).await {
                Some(value) => (Register::Get(value), Ok(())),
                None => return,
            },
        };
        if !matches!(what, Register::Get(_)) {
            self.progress.note(&written);
        }
        if written.is_err() {
            unknown.fetch_add(1, Ordering::Relaxed);
        }
        let succeeded = written.is_ok();
        self.registers
            .add(&self.clock, connection, &key, called, succeeded, what);
    }

    async fn on_counter(&self, connection: usize, client: &Client, slot: usize, rng: &mut Rng) {
        let unknown = &self.unknown[1][slot];
        let key = format!("counter:{slot}:{}", current(unknown));
        let called = self.clock.now();
        let (what, succeeded) = if rng.u8(0..4) == 0 {
            match self.read(client, &key).await {
                Some(number) => (Counter::Get(number), true),
                None => return,
            }
        } else {
            let delta = rng.u64(1..10);
            let answer = client.increment("", &key, delta).await;
            self.progress.note(&answer);
            match answer {
                Ok(sum) => (
                    Counter::Add {
                        delta,
                        sum: Some(sum),
                    },
                    true,
                ),
                Err(error) if may_have_counted(&error) => {
                    unknown.fetch_add(1, Ordering::Relaxed);
                    (Counter::Add { delta, sum: None }, false)
                }
                // It was not carried out: the sums of others show whether that is so.
                Err(_) => return,
            }
        };
        self.counters
            .add(&self.clock, connection, &key, called, succeeded, what);
    }

    /// The verdicts on registers and counters.
    fn judge(&self, faults: usize) -> (Verdict, Verdict) {
        let registers = self.registers.judge(&self.clock, |operation| {
            matches!(operation, Register::Set(_) | Register::Delete)
        });
        let counters = self.counters.judge(&self.clock, |_| false);
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
                self.progress.unanswered(),
                in_words(&registers),
                in_words(&counters),
            ),
        });
        (registers, counters)
    }

    /// What a key holds; `None` when that was not answered, which says nothing about the key.
    async fn read(&self, client: &Client, key: &str) -> Option<Option<u64>> {
        let answer: Result<_, Error> = client.get("", key).await;
        self.progress.note(&answer);
        let value = answer.ok()?;
        Some(value.map(|digits| {
            let digits = String::from_utf8(digits).expect("what was set was text");
            digits.parse().expect("a number")
        }))
    }
}

/// Which key of a slot is in use.
fn current(unknown: &AtomicUsize) -> usize {
    unknown.load(Ordering::Relaxed) / MOST_UNKNOWN
}

fn in_words(verdict: &Verdict) -> String {
    format!(
        "{} operations on {} keys, {} of unknown outcome, {} keys with an operation applied twice, {} keys not linearizable",
        verdict.operations,
        verdict.keys,
        verdict.unknown,
        verdict.repeated,
        verdict.wrong.len()
    )
}
