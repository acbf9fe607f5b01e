//! What a key may hold, as far as its only writer can tell from the answers to its calls.
//!
//! The writer calls one after the other. A call that succeeded has changed the key, a call that
//! failed has perhaps; a read tells which.

use std::collections::BTreeSet;
use std::fmt::Debug;

/// The contents that are possible.
#[derive(Clone, Debug)]
pub struct Possible<T>(BTreeSet<T>);

impl<T: Clone + Ord + Debug> Possible<T> {
    /// A key that holds this.
    pub fn only(content: T) -> Self {
        Self(BTreeSet::from([content]))
    }

    /// A change was acknowledged.
    pub fn surely(&mut self, change: impl Fn(&T) -> T) {
        self.0 = self.0.iter().map(change).collect();
    }

    /// A change was answered with an error that does not say that it was not carried out.
    pub fn perhaps(&mut self, change: impl Fn(&T) -> T) {
        let changed: Vec<T> = self.0.iter().map(change).collect();
        self.0.extend(changed);
    }

    /// Somebody read this; from now on it is what the key holds.
    ///
    /// # Errors
    ///
    /// What it could have held: the content was never written, or an older one than that.
    pub fn read(&mut self, content: T) -> Result<(), String> {
        let possible = self.0.contains(&content);
        let before = std::mem::replace(self, Self::only(content.clone()));
        if possible {
            return Ok(());
        }
        Err(format!("{content:?}, expected one of {:?}", before.0))
    }
}

/// Acknowledged increments of a counter that many share: each sum and what was added for it.
///
/// # Errors
///
/// Two of them that cannot both be right: an increment was lost, or counted twice.
pub fn disjoint(increments: &mut [(u64, u64)]) -> Result<(), String> {
    increments.sort_unstable();
    for pair in increments.windows(2) {
        let [(earlier, _), (later, delta)] = [pair[0], pair[1]];
        if earlier + delta > later {
            return Err(format!(
                "{later} after adding {delta}, but {earlier} was answered as well"
            ));
        }
    }
    Ok(())
}

#[test]
fn a_write_that_failed_may_show_and_may_not() {
    let mut key = Possible::only(1);
    key.perhaps(|_| 2);
    assert!(key.clone().read(1).is_ok());
    assert!(key.clone().read(2).is_ok());
    assert!(key.clone().read(3).is_err(), "never written");
    key.read(2).unwrap();
    assert!(key.clone().read(1).is_err(), "older than what was read");
    key.perhaps(|_| 4);
    key.surely(|_| 5);
    assert!(key.clone().read(4).is_err(), "older than what was written");
    assert!(key.read(5).is_ok());
}

#[test]
fn a_counter_knows_what_was_not_counted() {
    let mut counter = Possible::only(10);
    counter.perhaps(|n| n + 3);
    counter.surely(|n| n + 1);
    assert!(counter.clone().read(11).is_ok());
    assert!(counter.clone().read(14).is_ok());
    assert!(counter.clone().read(12).is_err(), "half of it");
    assert!(counter.clone().read(17).is_err(), "twice");
    assert!(counter.read(10).is_err(), "lost");
}

#[test]
fn sums_of_a_shared_counter_are_told_from_wrong_ones() {
    assert!(disjoint(&mut [(7, 4), (1, 1), (3, 2)]).is_ok());
    assert!(disjoint(&mut [(9, 2), (3, 3)]).is_ok(), "others' between");
    assert!(disjoint(&mut [(3, 2), (1, 1), (3, 1)]).is_err(), "twice");
    assert!(disjoint(&mut [(4, 2), (3, 3)]).is_err(), "lost");
}
