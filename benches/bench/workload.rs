//! What is measured: the workloads, and a round of each.

use std::time::Duration;

use crate::ROUNDS;
use crate::load::{Operation, median};
use crate::subject::Subject;

/// A mix of operations, how many are in flight, and how many make a round.
pub struct Workload {
    /// What it is called in the table.
    pub name: &'static str,
    /// The operations, in turn.
    pub operations: Vec<Operation>,
    /// Calls in flight.
    pub in_flight: usize,
    /// Calls of a round.
    pub calls: u64,
    /// Keys that a call is about.
    pub keys: u32,
}

/// The figures of one round.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// CPU time of the provider for each key of a call, in microseconds.
    pub cpu: f64,
    /// The median latency, in microseconds.
    pub p50: f64,
    /// The latency that one call in a hundred exceeds, in microseconds.
    pub p99: f64,
    /// Calls in a second.
    pub rate: f64,
    /// Calls whose answer was missing or empty, and which were made again.
    pub lost: usize,
}

/// The most calls of a short round.
const SHORT: u64 = 20_000;
const VALUE: usize = 100;
const LARGE: usize = 1 << 20;
const BATCH: usize = 100;

impl Workload {
    /// The operations on single keys, many at a time.
    pub fn busy() -> Self {
        Self::singles("get, set, increment, 64 in flight", 64, 60_000)
    }

    fn singles(name: &'static str, in_flight: usize, calls: u64) -> Self {
        Self {
            name,
            operations: Self::mixed(),
            in_flight,
            calls,
            keys: 1,
        }
    }

    /// All of them. The ones that read come after the ones that write what they read.
    pub fn all() -> Vec<Self> {
        vec![
            Self::singles("get, set, increment, 1 in flight", 1, 2_000),
            Self::busy(),
            Self::singles("get, set, increment, 256 in flight", 256, 60_000),
            Self {
                name: "set of 1 MiB, 1 in flight",
                operations: vec![set("large", LARGE)],
                in_flight: 1,
                calls: 200,
                keys: 1,
            },
            Self {
                name: "get of 1 MiB, 1 in flight",
                operations: vec![get("large", LARGE)],
                in_flight: 1,
                calls: 200,
                keys: 1,
            },
            Self {
                name: "get-many of 100 keys, 16 in flight",
                operations: vec![get_many()],
                in_flight: 16,
                calls: 2_000,
                keys: 100,
            },
        ]
    }

    /// How often it is measured. Where the machine's mood changes as much as what is compared, the
    /// turns are short, and many.
    pub fn rounds(&self) -> usize {
        if self.calls <= SHORT && !self.is_large() {
            3 * ROUNDS
        } else {
            ROUNDS
        }
    }

    /// Whether a call moves much.
    pub fn is_large(&self) -> bool {
        let moved = |operation: &Operation| operation.params.len() + operation.result_bytes;
        self.operations
            .iter()
            .any(|operation| moved(operation) > LARGE)
    }

    /// The operations on single keys, in turn.
    pub fn mixed() -> Vec<Operation> {
        vec![set("k", VALUE), get("k", VALUE), increment("n")]
    }

    /// Writes the keys that are read.
    pub fn prepare(subject: &mut Subject) -> anyhow::Result<()> {
        let mut sets: Vec<Operation> = (0..BATCH).map(|key| set(&batch_key(key), VALUE)).collect();
        sets.push(set("k", VALUE));
        sets.push(set("large", LARGE));
        let calls = sets.len() as u64;
        subject.caller.run(&sets, 1, calls)?;
        Ok(())
    }

    /// A call that any provider answers as soon as it is there.
    pub fn first() -> Operation {
        set("first", VALUE)
    }

    /// Measures one round.
    pub fn round(&self, subject: &mut Subject) -> anyhow::Result<Figures> {
        let warm_up = (self.calls / 10).max(self.in_flight as u64);
        subject.reconnect()?;
        subject
            .caller
            .run(&self.operations, self.in_flight, warm_up)?;
        self.measure(&self.operations, subject)
    }

    /// Measures one round of other operations, without warming up for them.
    pub fn measure(
        &self,
        operations: &[Operation],
        subject: &mut Subject,
    ) -> anyhow::Result<Figures> {
        let before = subject.cpu()?;
        let mut outcome = subject.caller.run(operations, self.in_flight, self.calls)?;
        let cpu = subject.cpu()? - before;
        let microseconds = |time: Duration| time.as_secs_f64() * 1e6;
        let p50 = median(&mut outcome.latencies);
        let p99 = outcome.latencies[outcome.latencies.len() * 99 / 100];
        let calls = self.calls as f64;
        let served = calls + outcome.lost as f64;
        Ok(Figures {
            cpu: microseconds(cpu) / served / f64::from(self.keys),
            p50: microseconds(p50),
            p99: microseconds(p99),
            rate: calls / outcome.elapsed.as_secs_f64(),
            lost: outcome.lost,
        })
    }

    /// Reads of a few keys again and again.
    pub fn hot_reads(name: &'static str, in_flight: usize, calls: u64) -> Self {
        Self {
            name,
            operations: (0..BATCH).map(|key| get(&batch_key(key), VALUE)).collect(),
            in_flight,
            calls,
            keys: 1,
        }
    }
}

/// A read of a value of the usual size.
pub fn read(key: &str) -> Operation {
    get(key, VALUE)
}

/// A value of the usual size.
pub fn value() -> Vec<u8> {
    (0..VALUE).map(|index| (index % 251) as u8).collect()
}

fn get(key: &str, size: usize) -> Operation {
    Operation {
        function: "store@0.2.0-draft.get",
        params: [text(""), text(key)].concat(),
        result_bytes: 2 + list_bytes(size),
    }
}

fn set(key: &str, size: usize) -> Operation {
    let value: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
    Operation {
        function: "store@0.2.0-draft.set",
        params: [text(""), text(key), length(size), value].concat(),
        result_bytes: 1,
    }
}

fn increment(key: &str) -> Operation {
    Operation {
        function: "atomics@0.2.0-draft.increment",
        params: [text(""), text(key), length(1)].concat(),
        result_bytes: 2,
    }
}

fn get_many() -> Operation {
    let mut params = [text(""), length(BATCH)].concat();
    let mut result_bytes = 1 + length(BATCH).len();
    for key in (0..BATCH).map(batch_key) {
        params.extend(text(&key));
        result_bytes += 1 + text(&key).len() + list_bytes(VALUE);
    }
    Operation {
        function: "batch@0.2.0-draft.get-many",
        params,
        result_bytes,
    }
}

fn batch_key(index: usize) -> String {
    format!("batch-{index}")
}

fn list_bytes(size: usize) -> usize {
    length(size).len() + size
}

fn text(text: &str) -> Vec<u8> {
    [length(text.len()), text.into()].concat()
}

/// Unsigned LEB128.
fn length(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}
