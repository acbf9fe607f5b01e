//! Redis killed with SIGKILL and restarted under load causes errors at most, never a wrong result, a
//! lost write or a double count.
//!
//! Every caller has its own keys, and derives from the results of its calls what they may hold
//! (`possible_values`); all callers also increment a few shared counters. `histories` checks the order between
//! callers.

// Guarantees: G45

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::join_all;
use test_support::client::{Client, Error};
use test_support::redis::Redis;
use test_support::test_env::TestEnv;
use test_support::wait::eventually;
use tokio::time::Instant;

use crate::possible_values::{Possible, check_increments};
use crate::progress::{Progress, outcome_is_unknown};
use crate::scenario::{Row, pick, record};

const CALLERS: usize = 64;
const SHARED_COUNTERS: usize = 4;
/// Successful calls between two kills, in the short form and the long one.
const CALLS_BETWEEN: (usize, usize) = (1_000, 5_000);
/// The host's timeout; kvredis lets a call wait 200 ms less.
const RPC_TIMEOUT_MS: u64 = 1_500;

#[tokio::test]
async fn killing_redis_under_load_loses_no_write_and_no_increment() {
    let kills = pick(3, 20);
    let calls_between = pick(CALLS_BETWEEN.0, CALLS_BETWEEN.1);
    let mut env = TestEnv::builder()
        .redis(Redis::durable().await)
        .rpc_timeout_ms(Some(RPC_TIMEOUT_MS))
        .start()
        .await;
    let progress = Arc::new(Progress::default());
    let callers: Vec<_> = (0..CALLERS)
        .map(|number| Caller::new(number, env.client.clone(), Arc::clone(&progress)))
        .map(|caller| tokio::spawn(caller.run()))
        .collect();
    let mut recoveries = Vec::new();
    for kill in 0..kills {
        progress.wait_for_successes(calls_between).await;
        env.redis.stop();
        if kill % 2 == 1 {
            // Exceeds the timeout of waiting calls.
            progress.wait_for_failures(CALLERS).await;
        }
        env.redis.restart().await;
        env.redis.ready().await;
        recoveries.push(recovery(&env.client).await);
    }
    progress.wait_for_successes(calls_between).await;
    progress.finish();
    let mut callers: Vec<Caller> = join_all(callers)
        .await
        .into_iter()
        .map(|caller| caller.expect("callers do not panic"))
        .collect();

    let mut lost = Vec::new();
    for caller in &mut callers {
        lost.extend(caller.compare_with(&env.redis).await);
    }
    for index in 0..SHARED_COUNTERS {
        lost.extend(check_shared(index, &callers, &env.redis).await.err());
    }
    let wrong: Vec<&String> = callers.iter().flat_map(|caller| &caller.wrong).collect();
    let unknown: usize = callers.iter().map(|caller| caller.unknown).sum();
    recoveries.sort();
    let longest = recoveries[recoveries.len() - 1];
    record(&Row {
        fault: &format!(
            "Redis (append-only file, fsync always) killed with SIGKILL and restarted, {kills} times"
        ),
        load: "64 concurrent callers: set, get, increment, delete-many",
        promised: "errors are allowed; no acknowledged write is lost, no increment applied twice, no stale value read; calls succeed within 1 s of Redis's start",
        counted: format!(
            "{} calls, {} errors ({unknown} increments of unknown outcome), {} without a response, {} wrong results, {} lost writes; recovery in {} ms (median), {} ms (maximum)",
            progress.calls(),
            progress.failed(),
            progress.without_response(),
            wrong.len(),
            lost.len(),
            recoveries[recoveries.len() / 2].as_millis(),
            longest.as_millis(),
        ),
    });
    assert!(wrong.is_empty(), "wrong results: {wrong:#?}");
    assert!(lost.is_empty(), "lost writes: {lost:#?}");
    assert_eq!(progress.without_response(), 0, "calls without a response");
    assert!(progress.failed() > 0, "no call failed despite the kills");
    // The promised second holds on an idle machine.
    let limit = Duration::from_secs(pick(10, 1));
    assert!(longest < limit, "calls succeeded only after {longest:?}");
}

/// The time until a call that starts from now on succeeds.
async fn recovery(client: &Client) -> Duration {
    let up = Instant::now();
    eventually("a call succeeds", async || {
        client.get("", "nothing").await.is_ok()
    })
    .await;
    up.elapsed()
}

/// One of many concurrent callers, with its own keys.
struct Caller {
    number: usize,
    client: Client,
    progress: Arc<Progress>,
    rng: Rng,
    registers: [Possible<Option<String>>; 2],
    counter: Possible<u64>,
    shared: [Share; SHARED_COUNTERS],
    written: u64,
    /// Increments that may have been executed.
    unknown: usize,
    /// Results that contradict earlier ones.
    wrong: Vec<String>,
}

/// The increments of a caller on a shared counter.
#[derive(Default)]
struct Share {
    /// The sums returned, and the delta of each.
    sums: Vec<(u64, u64)>,
    /// Increments that may also have been executed.
    unknown: u64,
}

impl Caller {
    fn new(number: usize, client: Client, progress: Arc<Progress>) -> Self {
        Self {
            number,
            client,
            progress,
            rng: Rng::new(),
            registers: [Possible::only(None), Possible::only(None)],
            counter: Possible::only(0),
            shared: Default::default(),
            written: 0,
            unknown: 0,
            wrong: Vec::new(),
        }
    }

    async fn run(mut self) -> Self {
        while !self.progress.is_finished() {
            let register = self.rng.usize(0..self.registers.len());
            match self.rng.u8(0..20) {
                0..=6 => self.set(register).await,
                7..=10 => self.get(register).await,
                11..=14 => self.increment().await,
                15..=17 => self.increment_shared().await,
                18 => self.read_counter().await,
                _ => self.delete_both().await,
            }
        }
        self
    }

    async fn set(&mut self, register: usize) {
        self.written += 1;
        // Of all lengths up to a page, so that a partial value shows.
        let filler = ".".repeat(self.rng.usize(0..4096));
        let value = format!("{}/{}/{filler}", self.number, self.written);
        let key = self.register_key(register);
        let result = self.client.set("", &key, &value).await;
        self.record_write(&result, &[register], &Some(value));
    }

    async fn delete_both(&mut self) {
        let keys = [self.register_key(0), self.register_key(1)];
        let result = self.client.delete_many("", &[&keys[0], &keys[1]]).await;
        self.record_write(&result, &[0, 1], &None);
    }

    fn record_write(
        &mut self,
        result: &Result<(), Error>,
        registers: &[usize],
        content: &Option<String>,
    ) {
        self.progress.record(result);
        for register in registers {
            let possible = &mut self.registers[*register];
            match result {
                Ok(()) => possible.apply(|_| content.clone()),
                Err(_) => possible.maybe_apply(|_| content.clone()),
            }
        }
    }

    async fn get(&mut self, register: usize) {
        let key = self.register_key(register);
        let result = self.client.get("", &key).await;
        self.progress.record(&result);
        if let Ok(value) = result {
            let check = self.registers[register].read(value.map(text));
            self.record_contradiction("get", &key, check);
        }
    }

    async fn read_counter(&mut self) {
        let key = self.counter_key();
        let result = self.client.get("", &key).await;
        self.progress.record(&result);
        if let Ok(value) = result {
            let check = self.counter.read(number(value));
            self.record_contradiction("get", &key, check);
        }
    }

    async fn increment(&mut self) {
        let key = self.counter_key();
        let delta = self.rng.u64(1..100);
        let result = self.client.increment("", &key, delta).await;
        self.progress.record(&result);
        match result {
            Ok(sum) => {
                self.counter.apply(|before| before + delta);
                let check = self.counter.read(sum);
                self.record_contradiction("increment", &key, check);
            }
            Err(error) if outcome_is_unknown(&error) => {
                self.unknown += 1;
                self.counter.maybe_apply(|before| before + delta);
            }
            // If it was not executed, the next sum shows it.
            Err(_) => {}
        }
    }

    async fn increment_shared(&mut self) {
        let index = self.rng.usize(0..SHARED_COUNTERS);
        let delta = self.rng.u64(1..100);
        let result = self.client.increment("", &shared_key(index), delta).await;
        self.progress.record(&result);
        match result {
            Ok(sum) => {
                let sums = &mut self.shared[index].sums;
                let before = sums.last().map_or(0, |(before, _)| *before);
                sums.push((sum, delta));
                if sum < before + delta {
                    let check = Err(format!("{sum}, although an earlier sum was {before}"));
                    self.record_contradiction("increment", &shared_key(index), check);
                }
            }
            Err(error) if outcome_is_unknown(&error) => {
                self.unknown += 1;
                self.shared[index].unknown += delta;
            }
            Err(_) => {}
        }
    }

    /// The keys whose value in Redis, read directly, differs from the expected one.
    async fn compare_with(&mut self, redis: &Redis) -> Vec<String> {
        let keys = [
            self.register_key(0),
            self.register_key(1),
            self.counter_key(),
        ];
        let args = ["MGET", &keys[0], &keys[1], &keys[2]];
        let [first, second, counter]: [Option<Vec<u8>>; 3] = redis.command(&args).await;
        let checks = [
            self.registers[0].read(first.map(text)),
            self.registers[1].read(second.map(text)),
            self.counter.read(number(counter)),
        ];
        keys.iter()
            .zip(checks)
            .filter_map(|(key, check)| Some(shortened(key, check.err()?)))
            .collect()
    }

    fn record_contradiction(&mut self, function: &str, key: &str, check: Result<(), String>) {
        if let Err(contradiction) = check {
            self.wrong
                .push(shortened(&format!("{function} of {key}"), contradiction));
        }
    }

    fn register_key(&self, register: usize) -> String {
        format!("register:{}:{register}", self.number)
    }

    fn counter_key(&self) -> String {
        format!("counter:{}", self.number)
    }
}

/// Every acknowledged increment is in the shared counter once, and the sum is within its bounds.
async fn check_shared(index: usize, callers: &[Caller], redis: &Redis) -> Result<(), String> {
    let key = shared_key(index);
    let shares = || callers.iter().map(|caller| &caller.shared[index]);
    let mut sums: Vec<(u64, u64)> = shares().flat_map(|share| share.sums.clone()).collect();
    check_increments(&mut sums).map_err(|error| shortened(&key, error))?;
    let acknowledged: u64 = sums.iter().map(|(_, delta)| delta).sum();
    let unknown: u64 = shares().map(|share| share.unknown).sum();
    let total = number(redis.command(&["GET", &key]).await);
    let highest = sums.last().map_or(0, |(sum, _)| *sum);
    if total < highest || !(acknowledged..=acknowledged + unknown).contains(&total) {
        return Err(format!(
            "{key}: {total}, with {acknowledged} acknowledged, {unknown} unknown, highest sum {highest}"
        ));
    }
    Ok(())
}

fn shared_key(index: usize) -> String {
    format!("shared:{index}")
}

fn text(value: Vec<u8>) -> String {
    String::from_utf8(value).expect("values are text")
}

fn number(value: Option<Vec<u8>>) -> u64 {
    value.map_or(0, |digits| text(digits).parse().expect("a number"))
}

/// Shortens long values.
fn shortened(subject: &str, contradiction: impl Debug) -> String {
    let text = format!("{subject}: {contradiction:?}").replace("....", "");
    text.chars().take(500).collect()
}
