//! How many bytes of parameters and results the process holds at once (`MAX_BYTES_IN_FLIGHT`).
//!
//! Small calls pass without noticing. Who would exceed the limit waits until others are done;
//! what turns out larger than it looked is counted, and makes others wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// The bytes that may be held.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    limit: usize,
    held: AtomicUsize,
    given_back: Notify,
}

/// Bytes that a call holds, until it is dropped.
#[derive(Debug)]
pub struct Held {
    account: Arc<Account>,
    bytes: usize,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Account {
            limit,
            held: AtomicUsize::new(0),
            given_back: Notify::new(),
        }))
    }

    /// The most that one call can hold.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Waits until so many bytes may be held; `None` if that was not before the deadline.
    pub async fn hold(&self, bytes: usize, deadline: Instant) -> Option<Held> {
        loop {
            let given_back = self.0.given_back.notified();
            if let Some(held) = self.try_hold(bytes) {
                return Some(held);
            }
            timeout_at(deadline, given_back).await.ok()?;
        }
    }

    fn try_hold(&self, bytes: usize) -> Option<Held> {
        let account = &self.0;
        account
            .held
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| {
                // A call alone may always go on, or nothing would ever become free for it.
                let sum = held.saturating_add(bytes);
                (held == 0 || sum <= account.limit).then_some(sum)
            })
            .ok()?;
        Some(Held {
            account: Arc::clone(account),
            bytes,
        })
    }
}

impl Held {
    /// Counts more bytes, which are held already.
    pub fn grow(&mut self, bytes: usize) {
        self.account.held.fetch_add(bytes, Ordering::AcqRel);
        self.bytes += bytes;
    }

    /// Counts as many bytes as are missing to hold so many.
    pub fn cover(&mut self, bytes: usize) {
        self.grow(bytes.saturating_sub(self.bytes));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.account.held.fetch_sub(self.bytes, Ordering::AcqRel);
        self.account.given_back.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_would_exceed_it_waits() {
        let budget = Budget::new(100);
        let soon = || Instant::now() + Duration::from_millis(10);
        let mut first = budget.hold(60, soon()).await.unwrap();
        assert!(budget.hold(60, soon()).await.is_none());
        let second = budget.hold(40, soon()).await.unwrap();
        first.grow(50);
        assert!(budget.hold(1, soon()).await.is_none());
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move {
                budget
                    .hold(90, Instant::now() + Duration::from_secs(9))
                    .await
            }
        });
        tokio::task::yield_now().await;
        drop(first);
        drop(second);
        assert!(waiting.await.unwrap().is_some());
        assert_eq!(budget.0.held.load(Ordering::Relaxed), 0);
        assert!(
            budget.hold(1_000, soon()).await.is_some(),
            "alone, anything goes"
        );
    }
}
