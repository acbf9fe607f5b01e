//! The possible contents of a key, derived from the results of its only writer.
//!
//! The writer makes one call after the other. A successful call has changed the key, a failed one may
//! have; a read decides.

use std::collections::BTreeSet;
use std::fmt::Debug;

/// The possible contents of a key.
#[derive(Clone, Debug)]
pub struct Possible<T>(BTreeSet<T>);

impl<T: Clone + Ord + Debug> Possible<T> {
    /// A key with this content.
    pub fn only(content: T) -> Self {
        Self(BTreeSet::from([content]))
    }

    /// Records an acknowledged change.
    pub fn apply(&mut self, change: impl Fn(&T) -> T) {
        self.0 = self.0.iter().map(change).collect();
    }

    /// Records a change whose call failed without saying that it was not executed.
    pub fn maybe_apply(&mut self, change: impl Fn(&T) -> T) {
        let changed: Vec<T> = self.0.iter().map(change).collect();
        self.0.extend(changed);
    }

    /// Records a read: the content read is the only possible one from now on.
    ///
    /// # Errors
    ///
    /// The possible contents, when the content read was never written or is outdated.
    pub fn read(&mut self, content: T) -> Result<(), String> {
        let possible = self.0.contains(&content);
        let before = std::mem::replace(self, Self::only(content.clone()));
        if possible {
            return Ok(());
        }
        Err(format!("{content:?}, expected one of {:?}", before.0))
    }
}

/// Checks the acknowledged increments of a shared counter: each sum with its delta.
///
/// # Errors
///
/// Two increments that contradict each other: one was lost or counted twice.
pub fn check_increments(increments: &mut [(u64, u64)]) -> Result<(), String> {
    increments.sort_unstable();
    for pair in increments.windows(2) {
        let [(earlier, _), (later, delta)] = [pair[0], pair[1]];
        if earlier + delta > later {
            return Err(format!(
                "{later} after adding {delta}, but {earlier} was returned as well"
            ));
        }
    }
    Ok(())
}

#[test]
fn a_failed_write_may_or_may_not_be_visible() {
    let mut key = Possible::only(1);
    key.maybe_apply(|_| 2);
    assert!(key.clone().read(1).is_ok());
    assert!(key.clone().read(2).is_ok());
    assert!(key.clone().read(3).is_err(), "never written");
    key.read(2).unwrap();
    assert!(
        key.clone().read(1).is_err(),
        "a value older than the one read was accepted"
    );
    key.maybe_apply(|_| 4);
    key.apply(|_| 5);
    assert!(
        key.clone().read(4).is_err(),
        "a value older than the one written was accepted"
    );
    assert!(key.read(5).is_ok());
}

#[test]
fn a_counter_excludes_partial_increments() {
    let mut counter = Possible::only(10);
    counter.maybe_apply(|n| n + 3);
    counter.apply(|n| n + 1);
    assert!(counter.clone().read(11).is_ok());
    assert!(counter.clone().read(14).is_ok());
    assert!(
        counter.clone().read(12).is_err(),
        "a partial increment was accepted"
    );
    assert!(counter.clone().read(17).is_err(), "twice");
    assert!(counter.read(10).is_err(), "lost");
}

#[test]
fn contradicting_sums_of_a_shared_counter_are_detected() {
    assert!(check_increments(&mut [(7, 4), (1, 1), (3, 2)]).is_ok());
    assert!(
        check_increments(&mut [(9, 2), (3, 3)]).is_ok(),
        "with another caller's increment between"
    );
    assert!(
        check_increments(&mut [(3, 2), (1, 1), (3, 1)]).is_err(),
        "twice"
    );
    assert!(check_increments(&mut [(4, 2), (3, 3)]).is_err(), "lost");
}
