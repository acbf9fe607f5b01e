//! The freshness of the values read over one connection: a proof that no invalidation is missing.
//!
//! Replies and invalidations arrive in one order on one connection, so a reply proves that all
//! invalidations have arrived that were sent before it. Cached values are valid as long as a request has
//! been replied to that was sent at most [`MAX_STALENESS`] ago. `redis::client_tracking` sends heartbeats
//! where calls alone do not prove it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// The maximum age of the proof, which is the maximum age of a stale value when a connection falls silent.
pub(crate) const MAX_STALENESS: Duration = Duration::from_secs(1);
/// The interval of heartbeats while cached values are used.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(250);
/// The time after the last use at which heartbeats stop.
const IDLE_AFTER: Duration = Duration::from_secs(10);

/// Values of `proven_at`: in between are microseconds since `start`.
const UNPROVEN: u64 = 0;
const REVOKED: u64 = u64::MAX;
/// The value of `last_used` while the heartbeat is idle: the next use wakes it.
const IDLE: u64 = u64::MAX;

/// The freshness of one connection.
#[derive(Debug)]
pub(crate) struct Freshness {
    start: Instant,
    /// The time at which the latest request was sent that has been replied to: `UNPROVEN`, then a
    /// time, finally `REVOKED`. Each transition is a maximum: a late reply does not shorten the
    /// proof, and no reply revives a revoked one. Acquire and release, so that a use that sees a
    /// renewal also sees the invalidations before it.
    proven_at: AtomicU64,
    /// The time of the last use of a cached value, or `IDLE`. It only paces the heartbeat: relaxed
    /// ordering suffices.
    last_used: AtomicU64,
    wake: Notify,
}

impl Freshness {
    /// A freshness that is not valid before the first [`Self::renew`].
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            proven_at: AtomicU64::new(UNPROVEN),
            last_used: AtomicU64::new(0),
            wake: Notify::new(),
        }
    }

    /// Returns true if all invalidations have arrived that were sent up to [`MAX_STALENESS`] before `now`.
    /// Counts as a use, which keeps the heartbeat running.
    pub(crate) fn is_valid(&self, now: Instant) -> bool {
        let proven_at = self.proven_at.load(Ordering::Acquire);
        if proven_at == REVOKED {
            return false;
        }
        let now = self.micros(now);
        if self.last_used.swap(now, Ordering::Relaxed) == IDLE {
            self.wake.notify_one();
        }
        proven_at != UNPROVEN && now.saturating_sub(proven_at) <= micros(MAX_STALENESS)
    }

    /// Records that a request has been replied to that was sent at `sent`.
    pub(crate) fn renew(&self, sent: Instant) {
        self.proven_at
            .fetch_max(self.micros(sent), Ordering::AcqRel);
    }

    /// Ends the validity for good.
    pub(crate) fn revoke(&self) {
        self.proven_at.store(REVOKED, Ordering::Release);
    }

    pub(crate) fn is_revoked(&self) -> bool {
        self.proven_at.load(Ordering::Acquire) == REVOKED
    }

    /// Waits until a heartbeat is due: an interval after the latest proof, or at the first use after an
    /// idle time.
    pub(crate) async fn next_heartbeat(&self) {
        loop {
            tokio::time::sleep(HEARTBEAT_INTERVAL).await;
            let now = self.micros(Instant::now());
            let last_used = self.last_used.load(Ordering::Relaxed);
            if last_used == IDLE || now.saturating_sub(last_used) > micros(IDLE_AFTER) {
                let idle = self.last_used.compare_exchange(
                    last_used,
                    IDLE,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
                if idle.is_ok() {
                    self.wake.notified().await;
                }
                return;
            }
            let proven_at = self.proven_at.load(Ordering::Acquire);
            if now.saturating_sub(proven_at) >= micros(HEARTBEAT_INTERVAL) {
                return;
            }
        }
    }

    /// A time as it is stored: below `IDLE` and `REVOKED`.
    fn micros(&self, at: Instant) -> u64 {
        micros(at.saturating_duration_since(self.start)).min(IDLE - 1)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn validity_ends_a_second_after_the_request_was_sent_and_at_revocation() {
        let freshness = Freshness::new();
        assert!(!freshness.is_valid(Instant::now()), "no reply yet");
        advance(Duration::from_millis(10)).await;
        let sent = Instant::now();
        advance(Duration::from_millis(900)).await;
        freshness.renew(sent);
        assert!(freshness.is_valid(Instant::now()));
        advance(Duration::from_millis(101)).await;
        assert!(!freshness.is_valid(Instant::now()));
        freshness.renew(Instant::now());
        assert!(freshness.is_valid(Instant::now()));
        freshness.renew(sent);
        assert!(
            freshness.is_valid(Instant::now()),
            "a late reply does not shorten the validity"
        );
        freshness.revoke();
        freshness.renew(Instant::now());
        assert!(!freshness.is_valid(Instant::now()));
        assert!(freshness.is_revoked());
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_are_due_only_while_cached_values_are_used() {
        let freshness = Freshness::new();
        let start = Instant::now();
        freshness.next_heartbeat().await;
        assert_eq!(start.elapsed(), HEARTBEAT_INTERVAL);
        freshness.renew(Instant::now());
        freshness.next_heartbeat().await;
        assert_eq!(start.elapsed(), HEARTBEAT_INTERVAL * 2);
        let unused = tokio::time::timeout(Duration::from_secs(3600), async {
            loop {
                freshness.next_heartbeat().await;
            }
        });
        assert!(unused.await.is_err());
        let before = Instant::now();
        tokio::join!(freshness.next_heartbeat(), async {
            freshness.is_valid(before)
        });
        assert!(
            before.elapsed() <= HEARTBEAT_INTERVAL * 2,
            "the first use wakes the heartbeat"
        );
    }
}
