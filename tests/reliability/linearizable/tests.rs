//! The checker accepts possible histories and rejects impossible ones, and agrees with an exhaustive
//! search.

use Counter::Add;
use Register::{Delete, Get, Set};
use fastrand::Rng;

use super::*;
use crate::history::{Counter, Register};

fn done<M>(called: u64, returned: u64, action: M) -> Operation<M> {
    Operation {
        action,
        called,
        returned,
        succeeded: true,
        may_repeat: false,
    }
}

fn failed<M>(called: u64, returned: u64, action: M) -> Operation<M> {
    Operation {
        succeeded: false,
        ..done(called, returned, action)
    }
}

fn retried<M>(operation: Operation<M>) -> Operation<M> {
    Operation {
        may_repeat: true,
        ..operation
    }
}

fn added(delta: u64, sum: u64) -> Counter {
    Add {
        delta,
        sum: Some(sum),
    }
}

fn maybe_added(delta: u64) -> Counter {
    Add { delta, sum: None }
}

fn accepts<M: Model>(operations: &[Operation<M>]) {
    check(operations).unwrap();
}

fn rejects<M: Model>(operations: &[Operation<M>]) {
    assert!(check(operations).is_err(), "{operations:#?}");
}

#[test]
fn sequential_operations_are_checked_in_order() {
    accepts(&[
        done(0, 1, Get(None)),
        done(2, 3, Set(1)),
        done(4, 5, Get(Some(1))),
        done(6, 7, Delete),
        done(8, 9, Get(None)),
    ]);
    rejects(&[done(0, 1, Set(1)), done(2, 3, Get(Some(2)))]);
}

#[test]
fn a_stale_read_is_rejected() {
    let write = [done(0, 1, Set(1)), done(2, 3, Set(2))];
    rejects(&[&write[..], &[done(4, 5, Get(Some(1)))]].concat());
    // Also when only another reader has seen the newer value.
    let pending = [done(0, 1, Set(1)), done(2, 20, Set(2))];
    let newer = done(4, 5, Get(Some(2)));
    accepts(&[&pending[..], &[newer.clone(), done(3, 8, Get(Some(1)))]].concat());
    rejects(&[&pending[..], &[newer, done(6, 8, Get(Some(1)))]].concat());
}

#[test]
fn a_lost_update_is_rejected() {
    accepts(&[done(0, 3, added(1, 1)), done(1, 2, added(1, 2))]);
    rejects(&[done(0, 3, added(1, 1)), done(1, 2, added(1, 1))]);
    rejects(&[done(0, 1, Set(1)), done(2, 3, Get(None))]);
}

#[test]
fn a_double_increment_is_rejected() {
    let once = failed(0, 1, maybe_added(2));
    accepts(&[once.clone(), done(2, 3, added(1, 3))]);
    accepts(&[once.clone(), done(2, 3, added(1, 1))]);
    rejects(&[once.clone(), done(2, 3, added(1, 5))]);
    rejects(&[
        once,
        done(2, 3, added(1, 3)),
        done(4, 5, Counter::Get(Some(5))),
    ]);
    rejects(&[done(0, 1, added(1, 1)), done(2, 3, added(1, 3))]);
}

#[test]
fn a_failed_operation_may_happen_late_but_once() {
    let late = failed(0, 1, Set(9));
    let set = |at, value| done(at, at + 1, Set(value));
    let get = |at, value| done(at, at + 1, Get(Some(value)));
    accepts(&[late.clone(), set(2, 1), get(4, 1), get(6, 9)]);
    accepts(&[late.clone(), set(2, 1), get(4, 1), get(6, 1)]);
    rejects(&[late.clone(), set(2, 1), get(4, 9), get(6, 1)]);
    rejects(&[late.clone(), get(2, 9), set(4, 1), get(6, 9)]);
    // Not before its call.
    rejects(&[failed(4, 5, Set(9)), get(2, 9)]);
    accepts(&[late, done(2, 3, Get(None))]);
}

#[test]
fn a_retried_operation_may_happen_twice_while_pending() {
    let others = [
        done(1, 2, Get(Some(9))),
        done(3, 4, Set(1)),
        done(5, 6, Get(Some(1))),
    ];
    let twice = done(7, 8, Get(Some(9)));
    let again = |operation, then: &Operation<Register>| {
        [&[operation][..], &others, std::slice::from_ref(then)].concat()
    };
    rejects(&again(done(0, 9, Set(9)), &twice));
    accepts(&again(retried(done(0, 9, Set(9))), &twice));
    // The last attempt may become visible after the response, but must precede it.
    let later = done(12, 13, Get(Some(9)));
    accepts(&again(retried(done(0, 9, Set(9))), &later));
    accepts(&again(
        retried(done(0, 9, Set(9))),
        &done(12, 13, Get(Some(1))),
    ));
    let between = done(10, 11, Set(2));
    rejects(
        &[
            &again(retried(done(0, 9, Set(9))), &later)[..],
            std::slice::from_ref(&between),
        ]
        .concat(),
    );
    // After an error it may follow the response: the last attempt is pending, and happens once.
    let lost = [
        &again(retried(failed(0, 9, Set(9))), &later)[..],
        &[between],
    ]
    .concat();
    accepts(&lost);
    let overwritten = [done(14, 15, Set(3)), done(16, 17, Get(Some(9)))];
    rejects(&[&lost[..], &overwritten].concat());
}

#[test]
fn the_checker_agrees_with_an_exhaustive_search() {
    let mut rng = Rng::with_seed(4);
    let mut accepted = 0;
    const ROUNDS: usize = 4_000;
    for _ in 0..ROUNDS {
        let history = random_history(&mut rng);
        let is_linearizable = any_order(&history, 0, None);
        assert_eq!(check(&history).is_ok(), is_linearizable, "{history:#?}");
        accepted += usize::from(is_linearizable);
    }
    // Both verdicts are frequent.
    assert!(
        (ROUNDS / 10..ROUNDS * 9 / 10).contains(&accepted),
        "{accepted}"
    );
}

/// A few operations at random times, with possibly wrong results.
fn random_history(rng: &mut Rng) -> Vec<Operation<Register>> {
    let mut times: Vec<u64> = (0..10).collect();
    rng.shuffle(&mut times);
    times
        .chunks(2)
        .map(|pair| {
            let (called, returned) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
            let action = match rng.u8(0..7) {
                0 => Set(1),
                1 => Set(2),
                2 => Delete,
                3 => Get(None),
                value => Get(Some(u64::from(value % 2) + 1)),
            };
            if matches!(action, Get(_)) || rng.bool() {
                done(called, returned, action)
            } else {
                failed(called, returned, action)
            }
        })
        .collect()
}

/// True if the operations that are not `placed` can follow in some order.
fn any_order(history: &[Operation<Register>], placed: u32, state: Option<u64>) -> bool {
    let left = || {
        history
            .iter()
            .enumerate()
            .filter(|(i, _)| placed & (1 << i) == 0)
    };
    if left().all(|(_, operation)| !operation.succeeded) {
        return true;
    }
    left().any(|(index, next)| {
        let in_time = left().all(|(_, other)| !other.succeeded || other.returned > next.called);
        in_time
            && next
                .action
                .apply(&state)
                .is_some_and(|after| any_order(history, placed | (1 << index), after))
    })
}
