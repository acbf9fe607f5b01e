//! Records the operations of concurrent callers on registers and counters for `linearizable`, and the
//! disconnects: only a disconnect allows kvredis to execute an operation twice.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::linearizable::{Model, Operation, check};

/// An operation on a register with its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    Set(u64),
    Delete,
    Get(Option<u64>),
}

/// An operation on a counter with its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// The sum is unknown when the call failed.
    Add {
        delta: u64,
        sum: Option<u64>,
    },
    Get(Option<u64>),
}

impl Model for Register {
    type State = Option<u64>;

    fn apply(&self, state: &Self::State) -> Option<Self::State> {
        match *self {
            Self::Set(value) => Some(Some(value)),
            Self::Delete => Some(None),
            Self::Get(value) => (value == *state).then_some(value),
        }
    }
}

impl Model for Counter {
    type State = Option<u64>;

    fn apply(&self, state: &Self::State) -> Option<Self::State> {
        match *self {
            Self::Add { delta, sum } => {
                let reached = state.unwrap_or(0) + delta;
                sum.is_none_or(|sum| sum == reached)
                    .then_some(Some(reached))
            }
            Self::Get(number) => (number == *state).then_some(number),
        }
    }
}

/// The logical time of all callers, and the periods of broken connections.
#[derive(Debug, Default)]
pub struct Clock {
    time: AtomicU64,
    /// The connections that broke, each with the period in which calls over it may have been cut off.
    faults: Mutex<Vec<(usize, u64, u64)>>,
}

impl Clock {
    /// A time later than all earlier ones.
    pub fn now(&self) -> u64 {
        self.time.fetch_add(1, Ordering::SeqCst)
    }

    /// Records that a connection was broken and is up again.
    pub fn broken(&self, connection: usize, from: u64) {
        let fault = (connection, from, self.now());
        self.faults
            .lock()
            .expect("the lock is not poisoned")
            .push(fault);
    }

    fn was_broken(&self, connection: usize, from: u64, to: u64) -> bool {
        let faults = self.faults.lock().expect("the lock is not poisoned");
        faults
            .iter()
            .any(|(broken, begin, end)| *broken == connection && *begin <= to && from <= *end)
    }
}

/// An operation with its connection.
type OnConnection<M> = (usize, Operation<M>);

/// The operations of all callers.
#[derive(Debug)]
pub struct History<M> {
    keys: Mutex<BTreeMap<String, Vec<OnConnection<M>>>>,
}

/// The result of checking a history.
#[derive(Debug, Default)]
pub struct Verdict {
    /// The number of keys.
    pub keys: usize,
    /// The number of operations.
    pub operations: usize,
    /// The operations that may have happened at any later time, or never.
    pub unknown: usize,
    /// The keys that are linearizable only if a retried operation happened twice.
    pub repeated: usize,
    /// The keys that are not linearizable.
    pub wrong: Vec<String>,
}

impl<M> Default for History<M> {
    fn default() -> Self {
        Self {
            keys: Mutex::default(),
        }
    }
}

impl<M: Model + Clone> History<M> {
    /// Adds an operation that started at `called` over a connection and has just ended.
    pub fn add(
        &self,
        clock: &Clock,
        connection: usize,
        key: &str,
        called: u64,
        succeeded: bool,
        action: M,
    ) {
        let operation = Operation {
            action,
            called,
            returned: clock.now(),
            succeeded,
            may_repeat: false,
        };
        self.keys
            .lock()
            .expect("the lock is not poisoned")
            .entry(key.to_owned())
            .or_default()
            .push((connection, operation));
    }

    /// Checks every key. `safe` selects the operations that kvredis retries after a disconnect.
    pub fn check(&self, clock: &Clock, is_retried: impl Fn(&M) -> bool) -> Verdict {
        let mut verdict = Verdict::default();
        let keys = self.keys.lock().expect("the lock is not poisoned");
        for (key, operations) in keys.iter() {
            let once: Vec<Operation<M>> = operations.iter().map(|(_, o)| o.clone()).collect();
            verdict.keys += 1;
            verdict.operations += once.len();
            verdict.unknown += once.iter().filter(|o| !o.succeeded).count();
            if check(&once).is_ok() {
                continue;
            }
            let maybe_twice: Vec<Operation<M>> = operations
                .iter()
                .map(|(connection, o)| Operation {
                    may_repeat: is_retried(&o.action)
                        && clock.was_broken(*connection, o.called, o.returned),
                    ..o.clone()
                })
                .collect();
            match check(&maybe_twice) {
                Ok(()) => verdict.repeated += 1,
                Err(reason) => verdict.wrong.push(format!("{key}: {reason}")),
            }
        }
        verdict
    }
}
