//! Whether the server can still be trusted to tell of changes: one for each connection.
//!
//! An answer proves that everything which the server told before it has arrived. So what was kept
//! is good as long as some question that was asked no longer than [`LEASE`] ago has been answered,
//! on the connection that also tells of changes. Asking is for `connection::tracking`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// The oldest question whose answer vouches for what is kept: how old a value from memory can be
/// when a connection falls silent.
pub(crate) const LEASE: Duration = Duration::from_secs(1);
/// How often a question is asked for that, while what is kept is used.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(250);
/// How long after its latest use that goes on.
const IDLE_AFTER: Duration = Duration::from_secs(10);

/// Vouches for what was read over one connection.
#[derive(Debug)]
pub(crate) struct Freshness {
    start: Instant,
    /// When the youngest question was asked that has been answered: microseconds after `start`.
    confirmed: AtomicU64,
    used: AtomicU64,
    over: AtomicBool,
    asleep: AtomicBool,
    woken: Notify,
}

impl Freshness {
    /// Vouches for nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            confirmed: AtomicU64::new(0),
            used: AtomicU64::new(0),
            over: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            woken: Notify::new(),
        }
    }

    /// Whether all changes are known that record up to [`LEASE`] before `now`.
    pub(crate) fn is_valid(&self, now: Instant) -> bool {
        if self.is_revoked() {
            return false;
        }
        let now = self.micros(now);
        self.used.store(now, Ordering::Relaxed);
        if self.asleep.load(Ordering::Relaxed) {
            self.woken.notify_one();
        }
        let confirmed = self.confirmed.load(Ordering::Acquire);
        u128::from(now.saturating_sub(confirmed)) <= LEASE.as_micros() && confirmed > 0
    }

    /// A question that was asked then has been answered.
    pub(crate) fn renew(&self, asked: Instant) {
        self.confirmed
            .fetch_max(self.micros(asked), Ordering::AcqRel);
    }

    /// Vouches no more, for good.
    pub(crate) fn revoke(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// Whether it has ended.
    pub(crate) fn is_revoked(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Waits until a question is next_heartbeat.
    pub(crate) async fn next_heartbeat(&self) {
        loop {
            tokio::time::sleep(HEARTBEAT_INTERVAL).await;
            let now = self.micros(Instant::now());
            let since_use = now.saturating_sub(self.used.load(Ordering::Relaxed));
            if u128::from(since_use) > IDLE_AFTER.as_micros() {
                self.asleep.store(true, Ordering::Relaxed);
                self.woken.notified().await;
                self.asleep.store(false, Ordering::Relaxed);
                return;
            }
            let since_answer = now.saturating_sub(self.confirmed.load(Ordering::Acquire));
            if u128::from(since_answer) >= HEARTBEAT_INTERVAL.as_micros() {
                return;
            }
        }
    }

    fn micros(&self, at: Instant) -> u64 {
        let since_start = at.saturating_duration_since(self.start).as_micros();
        u64::try_from(since_start).unwrap_or(u64::MAX)
    }
}

impl Default for Freshness {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_holds_for_a_second_after_the_question_not_after_the_answer() {
        let freshness = Freshness::new();
        assert!(
            !freshness.is_valid(Instant::now()),
            "nothing has been answered"
        );
        advance(Duration::from_millis(10)).await;
        let asked = Instant::now();
        advance(Duration::from_millis(900)).await;
        freshness.renew(asked);
        assert!(freshness.is_valid(Instant::now()));
        advance(Duration::from_millis(101)).await;
        assert!(!freshness.is_valid(Instant::now()));
        freshness.renew(Instant::now());
        assert!(freshness.is_valid(Instant::now()));
        freshness.renew(asked);
        assert!(
            freshness.is_valid(Instant::now()),
            "a late answer takes nothing back"
        );
        freshness.revoke();
        freshness.renew(Instant::now());
        assert!(!freshness.is_valid(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn questions_are_due_while_it_is_used() {
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
            "the first use wakes it"
        );
    }
}
