//! Named tasks of the process: the only place that spawns tasks.
//!
//! A task that panics, or ends although the process needs it, would leave a process that looks healthy and
//! does not do its work. Its end is reported instead: `provider` then ends the process, and the host
//! restarts it. Calls are tasks as well, but a panic fails only the call (see `wrpc::handler`).

use std::future::{Future, pending};
use std::panic::AssertUnwindSafe;
use std::sync::LazyLock;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::fault_injection::{self, Fault};

/// The first failure of a task of this process.
static FIRST_FAILURE: LazyLock<Failures> = LazyLock::new(Failures::new);

/// The unexpected end of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TaskFailure {
    #[error("the task {0:?} panicked")]
    Panicked(&'static str),
    #[error("the task {0:?} ended")]
    Ended(&'static str),
}

/// A panic; the hook of `telemetry::logging` has logged its location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

struct Failures(watch::Sender<Option<TaskFailure>>);

impl Failures {
    fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    fn report(&self, failure: TaskFailure) {
        self.0.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(failure);
            is_first
        });
    }

    async fn first(&self) -> TaskFailure {
        let mut failures = self.0.subscribe();
        let first = failures.wait_for(Option::is_some).await;
        match first.ok().and_then(|first| *first) {
            Some(failure) => failure,
            None => pending().await,
        }
    }

    async fn watch(
        &self,
        name: &'static str,
        work: impl Future<Output = ()>,
        may_end: impl FnOnce() -> bool,
    ) {
        match catch_panic(with_fault(name, work)).await {
            Err(Panicked) => self.report(TaskFailure::Panicked(name)),
            Ok(()) if !may_end() => self.report(TaskFailure::Ended(name)),
            Ok(()) => {}
        }
    }
}

/// Waits until a task of the process fails: usually forever.
pub(crate) async fn first_failure() -> TaskFailure {
    FIRST_FAILURE.first().await
}

/// Spawns a task that may end, but not panic.
pub(crate) fn spawn(
    name: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) -> AbortOnDropHandle<()> {
    spawn_watched(name, work, || true)
}

/// Spawns a task that ends only when the handle is dropped.
pub(crate) fn spawn_essential(
    name: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) -> AbortOnDropHandle<()> {
    spawn_watched(name, work, || false)
}

/// Spawns a task that may end only once `stop` is cancelled.
pub(crate) fn spawn_until(
    stop: CancellationToken,
    name: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) -> AbortOnDropHandle<()> {
    spawn_watched(name, work, move || stop.is_cancelled())
}

/// Runs work that may panic without harm to others.
pub(crate) async fn catch_panic<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .map_err(|_| Panicked)
}

/// Spawns a task that may end only when `may_end` returns true.
pub(crate) fn spawn_watched(
    name: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
    may_end: impl FnOnce() -> bool + Send + 'static,
) -> AbortOnDropHandle<()> {
    let watched = FIRST_FAILURE.watch(name, work, may_end);
    AbortOnDropHandle::new(tokio::spawn(watched))
}

async fn with_fault(name: &'static str, work: impl Future<Output = ()>) {
    match fault_injection::requested(name) {
        None => work.await,
        Some(Fault::End) => {}
        Some(Fault::Panic) => fault_injection::panic(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_failure_is_reported() {
        let failures = Failures::new();
        failures.watch("finite", async {}, || true).await;
        assert!(failures.first().now_or_never().is_none());
        failures.watch("essential", async {}, || false).await;
        let panics = async { fault_injection::panic() };
        failures.watch("panicking", panics, || true).await;
        assert_eq!(failures.first().await, TaskFailure::Ended("essential"));
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_whether_or_not_the_task_may_end() {
        for may_end in [false, true] {
            let failures = Failures::new();
            let panics = async { fault_injection::panic() };
            failures.watch("panicking", panics, || may_end).await;
            assert_eq!(failures.first().await, TaskFailure::Panicked("panicking"));
        }
    }
}
