//! What callers in the background and the one who does the damage know of each other: how many
//! calls have been answered, and when to end. Also what an error says of a call's effect.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use test_support::client::Error;
use test_support::wait::eventually;

/// Counts for all callers of a scenario.
#[derive(Debug, Default)]
pub struct Progress {
    succeeded: AtomicUsize,
    failed: AtomicUsize,
    unanswered: AtomicUsize,
    over: AtomicBool,
}

impl Progress {
    /// Takes note of an answer, or that there was none.
    pub fn note<T>(&self, answer: &Result<T, Error>) {
        let count = match answer {
            Ok(_) => &self.succeeded,
            Err(Error::Call(_)) => &self.unanswered,
            Err(_) => &self.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until so many more calls have succeeded.
    pub async fn more_succeed(&self, more: usize) {
        let target = self.succeeded() + more;
        eventually("calls succeed", async || self.succeeded() >= target).await;
    }

    /// Waits until so many more calls have been answered with an error.
    pub async fn more_fail(&self, more: usize) {
        let target = self.failed() + more;
        eventually("calls fail", async || self.failed() >= target).await;
    }

    /// Calls that succeeded.
    pub fn succeeded(&self) -> usize {
        self.succeeded.load(Ordering::Relaxed)
    }

    /// Calls that were answered with an error.
    pub fn failed(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
    }

    /// Calls that got no answer, or none that can be read.
    pub fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// All calls.
    pub fn calls(&self) -> usize {
        self.succeeded() + self.failed() + self.unanswered()
    }

    /// Has the callers end.
    pub fn finish(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether the callers are to end.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// Whether an increment that failed so may have been carried out; any other error of it means that
/// it was not.
pub fn may_have_counted(error: &Error) -> bool {
    match error {
        Error::Other(text) => text.contains("may or may not have been carried out"),
        Error::Call(_) => true,
        Error::NoSuchStore | Error::AccessDenied => false,
    }
}
