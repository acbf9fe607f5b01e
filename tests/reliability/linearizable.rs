//! A linearizability checker for the operations on one key: whether each can have happened at some
//! moment between its call and its response. Wing and Gong's search with memoization.
//!
//! All possible configurations (the pending operations that have taken effect, and the resulting
//! content) are carried from one event to the next. An operation is linearized only at its response,
//! with the others that must precede it (Lowe 2017).

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

/// The effect of operations on a key.
pub trait Model: Debug {
    /// The content of the key.
    type State: Clone + Debug + Default + Eq + Hash;

    /// The content after the operation; `None` when the operation's result contradicts the content.
    fn apply(&self, state: &Self::State) -> Option<Self::State>;
}

/// An operation as its caller observed it.
#[derive(Clone, Debug)]
pub struct Operation<M> {
    /// The operation with its result.
    pub action: M,
    /// The time of the call, on a clock shared by all callers that never returns a time twice.
    pub called: u64,
    /// The time of the response.
    pub returned: u64,
    /// True if it succeeded. A failed operation has happened at any time after its call, or never.
    pub succeeded: bool,
    /// True if it may have happened several times between call and response: it is idempotent, and
    /// kvredis had a reason to retry it.
    pub may_repeat: bool,
}

/// One possible state of the key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Configuration<S> {
    /// A bit for each pending operation that has happened.
    applied: u64,
    state: S,
}

/// The state of the search at one event.
struct Search<'a, M: Model> {
    possible: HashSet<Configuration<M::State>>,
    /// The pending operations, indexed by their bit. A failed one stays pending forever.
    pending: [Option<(usize, &'a Operation<M>)>; 64],
    /// The bits of the operations that may happen once more.
    repeatable: u64,
}

/// Searches for an order that explains the operations on a key that was empty before.
///
/// # Errors
///
/// The first result that no order explains, and the possible contents before it.
pub fn check<M: Model>(operations: &[Operation<M>]) -> Result<(), String> {
    let mut events: Vec<(u64, usize)> = Vec::with_capacity(operations.len() * 2);
    for (index, operation) in operations.iter().enumerate() {
        events.extend([(operation.called, index), (operation.returned, index)]);
    }
    events.sort_unstable();
    let mut search = Search::new();
    for (time, index) in events {
        let operation = &operations[index];
        if time == operation.called {
            search.call(index, operation);
        } else if operation.succeeded {
            search.succeed(index)?;
        } else if operation.may_repeat {
            search.fail(index);
        }
    }
    Ok(())
}

impl<'a, M: Model> Search<'a, M> {
    fn new() -> Self {
        Self {
            possible: HashSet::from([Configuration {
                applied: 0,
                state: M::State::default(),
            }]),
            pending: [None; 64],
            repeatable: 0,
        }
    }

    fn call(&mut self, index: usize, operation: &'a Operation<M>) {
        let free = self.pending.iter().position(Option::is_none);
        let slot = free.expect("at most as many pending operations as bits");
        self.pending[slot] = Some((index, operation));
        if operation.may_repeat {
            self.repeatable |= 1 << slot;
        }
    }

    /// An operation succeeded: it has happened.
    fn succeed(&mut self, index: usize) -> Result<(), String> {
        let slot = self.slot(index);
        let reached = self.ending_with(slot);
        if reached.is_empty() {
            let (_, operation) = self.pending[slot].expect("the operation is pending");
            let states: HashSet<_> = self.possible.iter().map(|c| &c.state).collect();
            return Err(format!(
                "no order explains {operation:?}; before it the key may have held {states:?}, with \
                 these operations pending: {:?}",
                self.pending.iter().flatten().collect::<Vec<_>>()
            ));
        }
        self.possible = reached;
        self.pending[slot] = None;
        self.free_bit(slot);
        Ok(())
    }

    /// A repeatable operation failed. Its last attempt may still happen, like any failed operation.
    fn fail(&mut self, index: usize) {
        let slot = self.slot(index);
        let reached = self.ending_with(slot);
        self.possible.extend(reached);
        self.free_bit(slot);
    }

    fn slot(&self, index: usize) -> usize {
        self.pending
            .iter()
            .position(|slot| slot.is_some_and(|(other, _)| other == index))
            .expect("a call precedes its response")
    }

    /// Frees the bit of an operation.
    fn free_bit(&mut self, slot: usize) {
        self.repeatable &= !(1 << slot);
        self.possible = self
            .possible
            .drain()
            .map(|mut configuration| {
                configuration.applied &= !(1 << slot);
                configuration
            })
            .collect();
    }

    /// All configurations in which an operation has happened: before, or as the last of those that
    /// happen now.
    fn ending_with(&self, last: usize) -> HashSet<Configuration<M::State>> {
        let mut reached = HashSet::new();
        let mut seen = HashSet::new();
        let mut ahead: Vec<_> = self.possible.iter().cloned().collect();
        while let Some(configuration) = ahead.pop() {
            if !seen.insert(configuration.clone()) {
                continue;
            }
            let has_happened = configuration.applied & (1 << last) != 0;
            if has_happened && self.possible.contains(&configuration) {
                reached.insert(configuration.clone());
            }
            if has_happened && self.repeatable & (1 << last) == 0 {
                continue;
            }
            for (slot, pending) in self.pending.iter().enumerate() {
                let Some((_, operation)) = pending else {
                    continue;
                };
                let bit = 1 << slot;
                if configuration.applied & bit != 0 && self.repeatable & bit == 0 {
                    continue;
                }
                let Some(state) = operation.action.apply(&configuration.state) else {
                    continue;
                };
                let next = Configuration {
                    applied: configuration.applied | bit,
                    state,
                };
                if slot == last {
                    reached.insert(next.clone());
                }
                ahead.push(next);
            }
        }
        reached
    }
}

#[cfg(test)]
mod tests;
