//! Round trips on the connection of a subscription: the reply follows all messages that were published
//! before.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, watch};

/// Requests for round trips, and their completion.
#[derive(Debug)]
pub(crate) struct Flush {
    requests: AtomicU64,
    requested: Notify,
    completed: watch::Sender<u64>,
}

impl Flush {
    pub(crate) fn new() -> Self {
        Self {
            requests: AtomicU64::new(0),
            requested: Notify::new(),
            completed: watch::Sender::new(0),
        }
    }

    /// Completes after a round trip that begins now.
    pub(crate) async fn run(&self) {
        let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        self.requested.notify_one();
        let mut completed = self.completed.subscribe();
        // The sender lives as long as this.
        let _ = completed.wait_for(|completed| *completed >= number).await;
    }

    /// Waits for requests. Returns the number to complete after a round trip.
    pub(crate) async fn requested(&self) -> u64 {
        self.requested.notified().await;
        self.requests.load(Ordering::SeqCst)
    }

    /// Completes the requests up to this number.
    pub(crate) fn complete(&self, number: u64) {
        self.completed.send_replace(number);
    }
}
