//! Whether the concurrent operations on one key can have happened one after the other, each at some
//! moment between its call and its answer: Wing and Gong's search with memoization.
//!
//! All configurations that are possible (which operations under way have taken effect, and what
//! the key then holds) are carried from one event to the next. An operation is given its moment
//! only when it is answered, with whichever others have to come before it (Lowe 2017).

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

/// What operations do to a key.
pub trait Model: Debug {
    /// What the key holds.
    type State: Clone + Debug + Default + Eq + Hash;

    /// What it holds after the operation; `None` where the operation's answer does not fit.
    fn apply(&self, state: &Self::State) -> Option<Self::State>;
}

/// An operation as its caller saw it.
#[derive(Clone, Debug)]
pub struct Operation<M> {
    /// What was done, and what was answered.
    pub what: M,
    /// When it was called, on a clock that all callers share and that never shows a time twice.
    pub called: u64,
    /// When it was answered.
    pub answered: u64,
    /// Whether it has succeeded. Otherwise it has happened at any time after its call, or never.
    pub succeeded: bool,
    /// Whether it may have happened several times between call and answer: it does no harm to
    /// repeat it, and kvredis had reason to.
    pub repeats: bool,
}

/// One way it can have been.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Configuration<S> {
    /// A bit for each operation under way that has happened.
    happened: u64,
    state: S,
}

/// The search at one event.
struct Search<'a, M: Model> {
    possible: HashSet<Configuration<M::State>>,
    /// The operations under way, each at the place of its bit. One that failed stays for ever.
    under_way: [Option<(usize, &'a Operation<M>)>; 64],
    /// The bits of those that may happen once more.
    repeatable: u64,
}

/// Looks for an order that explains the operations on a key which was empty before.
///
/// # Errors
///
/// The first answer that no order explains, and what the key can have held before it.
pub fn check<M: Model>(operations: &[Operation<M>]) -> Result<(), String> {
    let mut events: Vec<(u64, usize)> = Vec::with_capacity(operations.len() * 2);
    for (index, operation) in operations.iter().enumerate() {
        events.extend([(operation.called, index), (operation.answered, index)]);
    }
    events.sort_unstable();
    let mut search = Search::new();
    for (time, index) in events {
        let operation = &operations[index];
        if time == operation.called {
            search.call(index, operation);
        } else if operation.succeeded {
            search.succeed(index)?;
        } else if operation.repeats {
            search.fail(index);
        }
    }
    Ok(())
}

impl<'a, M: Model> Search<'a, M> {
    fn new() -> Self {
        Self {
            possible: HashSet::from([Configuration {
                happened: 0,
                state: M::State::default(),
            }]),
            under_way: [None; 64],
            repeatable: 0,
        }
    }

    fn call(&mut self, index: usize, operation: &'a Operation<M>) {
        let free = self.under_way.iter().position(Option::is_none);
        let place = free.expect("more operations under way than the search has bits for");
        self.under_way[place] = Some((index, operation));
        if operation.repeats {
            self.repeatable |= 1 << place;
        }
    }

    /// An operation was answered: it has happened.
    fn succeed(&mut self, index: usize) -> Result<(), String> {
        let place = self.place(index);
        let reached = self.ending_with(place);
        if reached.is_empty() {
            let (_, operation) = self.under_way[place].expect("it is under way");
            let states: HashSet<_> = self.possible.iter().map(|c| &c.state).collect();
            return Err(format!(
                "no order explains {operation:?}; before it the key may have held {states:?}, with \
                 these under way: {:?}",
                self.under_way.iter().flatten().collect::<Vec<_>>()
            ));
        }
        self.possible = reached;
        self.under_way[place] = None;
        self.forget(place);
        Ok(())
    }

    /// A repeatable operation was answered with an error. Its last attempt may still happen, as
    /// that of any other one that failed.
    fn fail(&mut self, index: usize) {
        let place = self.place(index);
        let reached = self.ending_with(place);
        self.possible.extend(reached);
        self.forget(place);
    }

    fn place(&self, index: usize) -> usize {
        self.under_way
            .iter()
            .position(|place| place.is_some_and(|(other, _)| other == index))
            .expect("an operation is called before it is answered")
    }

    /// Its bit no longer says anything.
    fn forget(&mut self, place: usize) {
        self.repeatable &= !(1 << place);
        self.possible = self
            .possible
            .drain()
            .map(|mut configuration| {
                configuration.happened &= !(1 << place);
                configuration
            })
            .collect();
    }

    /// All configurations in which an operation has happened: already, or as the last of those
    /// that happen now.
    fn ending_with(&self, last: usize) -> HashSet<Configuration<M::State>> {
        let mut reached = HashSet::new();
        let mut seen = HashSet::new();
        let mut ahead: Vec<_> = self.possible.iter().cloned().collect();
        while let Some(configuration) = ahead.pop() {
            if !seen.insert(configuration.clone()) {
                continue;
            }
            let has_happened = configuration.happened & (1 << last) != 0;
            if has_happened && self.possible.contains(&configuration) {
                reached.insert(configuration.clone());
            }
            if has_happened && self.repeatable & (1 << last) == 0 {
                continue;
            }
            for (place, under_way) in self.under_way.iter().enumerate() {
                let Some((_, operation)) = under_way else {
                    continue;
                };
                let bit = 1 << place;
                if configuration.happened & bit != 0 && self.repeatable & bit == 0 {
                    continue;
                }
                let Some(state) = operation.what.apply(&configuration.state) else {
                    continue;
                };
                let next = Configuration {
                    happened: configuration.happened | bit,
                    state,
                };
                if place == last {
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
