//! SIGTERM and SIGINT: the first one stops the provider gracefully, a second one ends the process.
//!
//! The signals are handled until the provider has stopped, so that an operator can end a slow
//! shutdown without SIGKILL.

use std::process::exit;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use crate::tasks;

/// Shells report this plus the signal's number for a process that was ended by a signal.
const ENDED_BY_SIGNAL: i32 = 128;

/// Handles the signals until it is dropped.
#[derive(Debug)]
pub(crate) struct Signals {
    first: Arc<Notify>,
    _handler: AbortOnDropHandle<()>,
}

impl Signals {
    /// # Errors
    ///
    /// The system refuses the registration.
    pub(crate) fn subscribe() -> anyhow::Result<Self> {
        let mut terminate = signal(SignalKind::terminate()).context("cannot await SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot await SIGINT")?;
        let first = Arc::new(Notify::new());
        let received = Arc::clone(&first);
        let handler = tasks::spawn_essential("signals", async move {
            let mut next = async || {
                tokio::select! {
                    _ = terminate.recv() => SignalKind::terminate(),
                    _ = interrupt.recv() => SignalKind::interrupt(),
                }
            };
            next().await;
            received.notify_one();
            let second = next().await;
            exit(ENDED_BY_SIGNAL + second.as_raw_value());
        });
        Ok(Self {
            first,
            _handler: handler,
        })
    }

    /// Waits for the first signal.
    pub(crate) async fn first(&self) {
        self.first.notified().await;
    }
}
