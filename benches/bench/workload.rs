//! The workloads, and the measurement of their rounds.

use std::time::Duration;

use anyhow::Context as _;

use crate::comparison::Target;
use crate::load::median;
use crate::operation::{Operation, VALUE_BYTES, get, get_many, increment, set};
use crate::provider::Provider;

const ROUNDS: usize = 5;
/// For short rounds, and for differences that are as small as the noise of the machine.
const MANY_ROUNDS: usize = 3 * ROUNDS;
const LARGE: usize = 1 << 20;
const BATCH_KEYS: usize = 100;
/// `--quick` makes this fraction of the calls.
const QUICK_FRACTION: u64 = 20;

/// The operations of a round and how they are called.
pub struct Workload {
    pub name: &'static str,
    pub operations: Vec<Operation>,
    pub in_flight: usize,
    pub calls: u64,
    pub rounds: usize,
    /// The number of keys in a call; CPU time is reported per key.
    pub keys: u32,
    /// The rows of the table.
    pub metrics: Vec<Metric>,
}

/// A row of the table: a statistic of the rounds and its target.
#[derive(Clone, Copy)]
pub struct Metric {
    /// The name with the unit.
    pub name: &'static str,
    pub value: fn(&RoundStats) -> f64,
    pub target: Option<Target>,
}

/// The measurements of one round.
#[derive(Clone, Copy, Debug)]
pub struct RoundStats {
    /// CPU time of the provider per key of a call, in microseconds.
    pub cpu: f64,
    /// Median latency in microseconds.
    pub p50: f64,
    /// 99th percentile of the latency in microseconds.
    pub p99: f64,
    /// Calls per second.
    pub throughput: f64,
    /// Calls without a complete response, each of which was retried.
    pub retries: usize,
}

impl Metric {
    pub fn cpu(target: Option<Target>) -> Self {
        Self::new("CPU per call (µs)", |stats| stats.cpu, target)
    }

    fn cpu_per_key(target: Option<Target>) -> Self {
        Self::new("CPU per key (µs)", |stats| stats.cpu, target)
    }

    pub fn p50(target: Option<Target>) -> Self {
        Self::new("p50 (µs)", |stats| stats.p50, target)
    }

    fn p99(target: Option<Target>) -> Self {
        Self::new("p99 (µs)", |stats| stats.p99, target)
    }

    pub fn throughput(target: Option<Target>) -> Self {
        Self::new("throughput (calls/s)", |stats| stats.throughput, target)
    }

    fn new(name: &'static str, value: fn(&RoundStats) -> f64, target: Option<Target>) -> Self {
        Self {
            name,
            value,
            target,
        }
    }
}

impl Workload {
    /// The workloads that kvredis and the SDK baseline are compared by.
    pub fn all() -> Vec<Self> {
        use Target::{RatioAtLeast, RatioAtMost};
        let single_keys = |in_flight, cpu, p50, throughput| Self {
            metrics: vec![
                Metric::cpu(cpu),
                Metric::p50(p50),
                Metric::p99(None),
                Metric::throughput(throughput),
            ],
            ..Self::single_keys(in_flight)
        };
        let large = |name, operation| Self {
            name,
            operations: vec![operation],
            in_flight: 1,
            calls: 200,
            rounds: ROUNDS,
            keys: 1,
            metrics: vec![Metric::cpu(Some(RatioAtMost(0.7)))],
        };
        vec![
            Self {
                calls: 2_000,
                rounds: MANY_ROUNDS,
                ..single_keys(1, Some(RatioAtMost(0.4)), Some(RatioAtMost(0.75)), None)
            },
            single_keys(
                64,
                Some(RatioAtMost(0.33)),
                Some(RatioAtMost(0.6)),
                Some(RatioAtLeast(1.7)),
            ),
            single_keys(256, None, None, Some(RatioAtLeast(1.7))),
            large("set of 1 MiB", set("large", LARGE)),
            large("get of 1 MiB", get("large", LARGE)),
            Self {
                name: "get-many of 100 keys",
                operations: vec![get_many(&batch_keys())],
                in_flight: 16,
                calls: 2_000,
                rounds: MANY_ROUNDS,
                keys: 100,
                metrics: vec![Metric::cpu_per_key(Some(RatioAtMost(0.6)))],
            },
        ]
    }

    /// Operations on single keys.
    pub fn single_keys(in_flight: usize) -> Self {
        Self {
            name: "get/set/increment",
            operations: vec![set("k", VALUE_BYTES), get("k", VALUE_BYTES), increment("n")],
            in_flight,
            calls: 60_000,
            rounds: ROUNDS,
            keys: 1,
            metrics: Vec::new(),
        }
    }

    /// Repeated reads of a few keys.
    pub fn hot_reads(in_flight: usize, calls: u64) -> Self {
        Self {
            name: "hot reads",
            operations: batch_keys()
                .iter()
                .map(|key| get(key, VALUE_BYTES))
                .collect(),
            in_flight,
            calls,
            rounds: MANY_ROUNDS,
            keys: 1,
            metrics: Vec::new(),
        }
    }

    /// The workload in the short form that `--quick` runs.
    pub fn quick(self) -> Self {
        Self {
            calls: (self.calls / QUICK_FRACTION).max(self.in_flight as u64),
            rounds: 1,
            ..self
        }
    }

    /// The name with the number of calls in flight.
    pub fn label(&self) -> String {
        format!("{}, {} in flight", self.name, self.in_flight)
    }

    /// Writes the keys that the workloads read.
    pub fn prepare(provider: &mut Provider) -> anyhow::Result<()> {
        let mut sets: Vec<Operation> = batch_keys()
            .iter()
            .map(|key| set(key, VALUE_BYTES))
            .collect();
        sets.push(set("k", VALUE_BYTES));
        sets.push(set("large", LARGE));
        let calls = sets.len() as u64;
        provider.client.run(&sets, 1, calls)?;
        Ok(())
    }

    /// Measures all rounds of two providers, alternating between them.
    pub fn compare(
        &self,
        first: &mut Provider,
        second: &mut Provider,
    ) -> anyhow::Result<Vec<[RoundStats; 2]>> {
        (0..self.rounds)
            .map(|_| {
                Ok([
                    self.round(first).context("the first provider failed")?,
                    self.round(second).context("the second provider failed")?,
                ])
            })
            .collect()
    }

    fn round(&self, provider: &mut Provider) -> anyhow::Result<RoundStats> {
        let warm_up = (self.calls / 10).max(self.in_flight as u64);
        provider.reconnect()?;
        provider
            .client
            .run(&self.operations, self.in_flight, warm_up)?;
        self.measure(&self.operations, provider)
    }

    /// Measures one round with these operations, without a warm-up.
    pub fn measure(
        &self,
        operations: &[Operation],
        provider: &mut Provider,
    ) -> anyhow::Result<RoundStats> {
        let before = provider.cpu()?;
        let mut result = provider
            .client
            .run(operations, self.in_flight, self.calls)?;
        let cpu = provider.cpu()? - before;
        let microseconds = |time: Duration| time.as_secs_f64() * 1e6;
        let p50 = median(&mut result.latencies);
        let p99 = result.latencies[result.latencies.len() * 99 / 100];
        let calls = self.calls as f64;
        let attempts = calls + result.retries as f64;
        Ok(RoundStats {
            cpu: microseconds(cpu) / attempts / f64::from(self.keys),
            p50: microseconds(p50),
            p99: microseconds(p99),
            throughput: calls / result.elapsed.as_secs_f64(),
            retries: result.retries,
        })
    }
}

fn batch_keys() -> Vec<String> {
    (0..BATCH_KEYS)
        .map(|index| format!("batch-{index}"))
        .collect()
}
