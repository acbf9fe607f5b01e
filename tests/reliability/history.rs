//! Records what concurrent callers do to registers and counters, key by key, for `linearizable` to
//! judge, and when their connections were broken: only then may kvredis have done anything twice.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::linearizable::{Model, Operation, check};

/// An operation on a register, with its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    Set(u64),
    Delete,
    Get(Option<u64>),
}

/// An operation on a counter, with its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// The sum is not known where the answer was an error.
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

/// What all callers have in common: the time, and when a connection was broken.
#[derive(Debug, Default)]
pub struct Clock {
    time: AtomicU64,
    /// Which connection, and from when to when calls over it may have been cut off.
    faults: Mutex<Vec<(usize, u64, u64)>>,
}

impl Clock {
    /// A moment after all earlier ones.
    pub fn now(&self) -> u64 {
        self.time.fetch_add(1, Ordering::SeqCst)
    }

    /// Takes note that a connection was broken and is up again.
    pub fn broken(&self, connection: usize, from: u64) {
        let fault = (connection, from, self.now());
        self.faults
            .lock()
            .expect("nobody panics with the lock")
            .push(fault);
    }

    fn was_broken(&self, connection: usize, from: u64, to: u64) -> bool {
        let faults = self.faults.lock().expect("nobody panics with the lock");
        faults
            .iter()
            .any(|(broken, begin, end)| *broken == connection && *begin <= to && from <= *end)
    }
}

/// An operation over a connection.
type Over<M> = (usize, Operation<M>);

/// The operations of all callers.
#[derive(Debug)]
pub struct History<M> {
    keys: Mutex<BTreeMap<String, Vec<Over<M>>>>,
}

/// What came of checking a history.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Keys that were looked at.
    pub keys: usize,
    /// Operations on them.
    pub operations: usize,
    /// Operations that may have happened at any later time, or never.
    pub unknown: usize,
    /// Keys that are explained only if an operation that kvredis tried again has happened twice.
    pub repeated: usize,
    /// Keys that nothing explains.
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
    /// Adds an operation that was called at a time over a connection and has just ended.
    pub fn add(
        &self,
        clock: &Clock,
        connection: usize,
        key: &str,
        called: u64,
        succeeded: bool,
        what: M,
    ) {
        let operation = Operation {
            what,
            called,
            answered: clock.now(),
            succeeded,
            repeats: false,
        };
        self.keys
            .lock()
            .expect("nobody panics with the lock")
            .entry(key.to_owned())
            .or_default()
            .push((connection, operation));
    }

    /// Checks every key. `safe` says which operations kvredis tries again after it lost a
    /// connection.
    pub fn judge(&self, clock: &Clock, safe: impl Fn(&M) -> bool) -> Verdict {
        let mut verdict = Verdict::default();
        let keys = self.keys.lock().expect("nobody panics with the lock");
        for (key, operations) in keys.iter() {
            let once: Vec<Operation<M>> = operations.iter().map(|(_, o)| o.clone()).collect();
            verdict.keys += 1;
            verdict.operations += once.len();
            verdict.unknown += once.iter().filter(|o| !o.succeeded).count();
            if check(&once).is_ok() {
                continue;
            }
            let perhaps_twice: Vec<Operation<M>> = operations
                .iter()
                .map(|(connection, o)| Operation {
                    repeats: safe(&o.what) && clock.was_broken(*connection, o.called, o.answered),
                    ..o.clone()
                })
                .collect();
            match check(&perhaps_twice) {
                Ok(()) => verdict.repeated += 1,
                Err(reason) => verdict.wrong.push(format!("{key}: {reason}")),
            }
        }
        verdict
    }
}
