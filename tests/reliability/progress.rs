//! The progress of concurrent callers, shared with the test that injects faults: the number of calls
//! and the signal to end. Also classifies errors by the call's effect.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use test_support::client::Error;
use test_support::wait::eventually;

/// Counters for all callers of a scenario.
#[derive(Debug, Default)]
pub struct Progress {
    succeeded: AtomicUsize,
    failed: AtomicUsize,
    without_response: AtomicUsize,
    finished: AtomicBool,
}

impl Progress {
    /// Records a result.
    pub fn record<T>(&self, result: &Result<T, Error>) {
        let count = match result {
            Ok(_) => &self.succeeded,
            Err(Error::Call(_)) => &self.without_response,
            Err(_) => &self.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until this many more calls have succeeded.
    pub async fn wait_for_successes(&self, more: usize) {
        let target = self.succeeded() + more;
        eventually("calls succeed", async || self.succeeded() >= target).await;
    }

    /// Waits until this many more calls have failed.
    pub async fn wait_for_failures(&self, more: usize) {
        let target = self.failed() + more;
        eventually("calls fail", async || self.failed() >= target).await;
    }

    /// The number of successful calls.
    pub fn succeeded(&self) -> usize {
        self.succeeded.load(Ordering::Relaxed)
    }

    /// The number of failed calls.
    pub fn failed(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
    }

    /// The number of calls without a valid response.
    pub fn without_response(&self) -> usize {
        self.without_response.load(Ordering::Relaxed)
    }

    /// The number of calls.
    pub fn calls(&self) -> usize {
        self.succeeded() + self.failed() + self.without_response()
    }

    /// Ends the callers.
    pub fn finish(&self) {
        self.finished.store(true, Ordering::Relaxed);
    }

    /// True if the callers should end.
    pub fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Relaxed)
    }
}

/// True if a failed increment may have been executed; every other error means that it was not.
pub fn outcome_is_unknown(error: &Error) -> bool {
    match error {
        Error::Other(text) => text.contains("may or may not have been carried out"),
        Error::Call(_) => true,
        Error::NoSuchStore | Error::AccessDenied => false,
    }
}
