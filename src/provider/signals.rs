//! SIGTERM and SIGINT: the first one asks the provider to stop, a second one ends the process.
//!
//! They are awaited as long as the provider runs, so that whoever loses patience while calls are
//! still being answered need not reach for SIGKILL. What stopping means is for the provider.

use std::process::exit;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use tokio_util::task::AbortOnDropHandle;

/// What shells answer for a program that a signal has ended: this and the signal's number.
const ENDED_BY_SIGNAL: i32 = 128;

/// The signals, for as long as this is kept.
#[derive(Debug)]
pub(crate) struct Signals {
    first: Arc<Notify>,
    _waiting: AbortOnDropHandle<()>,
}

impl Signals {
    /// Begins to wait for them.
    ///
    /// # Errors
    ///
    /// The system does not let us.
    pub(crate) fn await_them() -> anyhow::Result<Self> {
        let mut terminate = signal(SignalKind::terminate()).context("cannot await SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot await SIGINT")?;
        let first = Arc::new(Notify::new());
        let asked = Arc::clone(&first);
        let waiting = tokio::spawn(async move {
            let mut next = async || {
                tokio::select! {
                    _ = terminate.recv() => SignalKind::terminate(),
                    _ = interrupt.recv() => SignalKind::interrupt(),
                }
            };
            next().await;
            asked.notify_one();
            let second = next().await;
            exit(ENDED_BY_SIGNAL + second.as_raw_value());
        });
        Ok(Self {
            first,
            _waiting: AbortOnDropHandle::new(waiting),
        })
    }

    /// Waits for the first one.
    pub(crate) async fn first(&self) {
        self.first.notified().await;
    }
}
