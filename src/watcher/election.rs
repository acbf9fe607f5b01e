//! Decides which process delivers with `WATCH_ONCE`, and which changes a new holder of the lease has to
//! deliver.
//!
//! Each process queues the changes that it receives. A process without the lease removes those that the
//! holder has settled, as the lease states, and delivers the others once it has acquired the lease: after an
//! orderly release those that the holder left, after its death all since its latest renewal that it had not
//! delivered by then. Some of these may be delivered twice, and none is missed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::redis::pubsub::subscription::Subscription;
use crate::telemetry::watching::Loss;
use crate::watcher::delivery::Delivery;
use crate::watcher::lease::{Attempt, Lease, TTL};

/// The interval of attempts to acquire or renew the lease.
const RENEW_INTERVAL: Duration = Duration::from_millis(500);
/// A process listens this long before its first attempt, so that one which has listened longer, and has
/// received more, acquires a free lease first.
const FIRST_ATTEMPT_AFTER: Duration = Duration::from_millis(700);
/// The time limit for receiving what was published before an attempt.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(200);

/// The election of one watching link.
pub(crate) struct Election {
    pub(crate) lease: Arc<Lease>,
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) subscription: Arc<Subscription>,
}

impl Election {
    /// Acquires and renews the lease, forever.
    pub(crate) async fn run(&self) {
        let lease = &self.lease;
        let queue = &self.delivery.queue;
        // The other holder's, as far as this process has learned of it.
        let mut settled = None;
        let mut was_held = lease.is_held();
        if was_held {
            queue.open();
        } else {
            self.listen().await;
        }
        loop {
            flush(&self.subscription, &self.delivery).await;
            let attempt = lease.attempt(queue.behind(true)).await;
            match attempt {
                Attempt::Renewed => {
                    if !was_held {
                        self.take_over(settled);
                    }
                    queue.open();
                }
                Attempt::Acquired { settled: latest } => {
                    if was_held {
                        self.warn_lost();
                    }
                    self.take_over(latest.max(settled));
                }
                Attempt::Refused { settled: latest } => {
                    queue.hold();
                    if was_held {
                        self.warn_lost();
                    }
                    match latest {
                        Some(latest) => queue.remove_settled(latest),
                        // Not a lease of this version: its holder does not state what it has settled.
                        None if was_held => self.delivery.drop_queue(),
                        None => {
                            if let Some(latest) = Instant::now().checked_sub(TTL) {
                                queue.remove_settled(latest);
                            }
                        }
                    }
                    settled = latest.max(settled);
                }
                Attempt::Failed => {}
            }
            match attempt {
                Attempt::Renewed | Attempt::Acquired { .. } => {
                    was_held = true;
                    settled = None;
                }
                Attempt::Refused { .. } => was_held = false,
                Attempt::Failed => {}
            }
            sleep(RENEW_INTERVAL).await;
        }
    }

    /// Waits until this process has been subscribed for a while.
    async fn listen(&self) {
        let has_listened = || {
            let since = self.subscription.complete_since();
            since.is_some_and(|since| since.elapsed() >= FIRST_ATTEMPT_AFTER)
        };
        while !has_listened() {
            sleep(RENEW_INTERVAL / 10).await;
        }
    }

    /// Delivers the changes that the previous holder has not settled.
    fn take_over(&self, settled: Option<Instant>) {
        let Self {
            lease,
            delivery,
            subscription,
        } = self;
        if let Some(settled) = settled {
            delivery.queue.remove_settled(settled);
            if subscription
                .complete_since()
                .is_none_or(|since| since > settled)
            {
                let reason = "the previous holder of the lease (WATCH_ONCE) had not delivered all \
                              changes from before this process was subscribed";
                delivery.record_loss(1, Loss::Interrupted, reason);
            }
        }
        delivery.record_dropped();
        info!(lease = lease.key(), "this process delivers (WATCH_ONCE)");
        delivery.queue.open();
    }

    fn warn_lost(&self) {
        warn!(
            lease = self.lease.key(),
            "another process may deliver (WATCH_ONCE): this one has lost the lease"
        );
    }
}

/// Waits until all changes that were published before are queued.
pub(crate) async fn flush(subscription: &Subscription, delivery: &Delivery) {
    let started = Instant::now();
    if subscription.complete_since().is_some()
        && timeout(FLUSH_TIMEOUT, subscription.flush()).await.is_ok()
    {
        delivery.queue.complete_until(started);
    }
}
