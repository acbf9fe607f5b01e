//! How many bytes of parameters and results the process holds at once (`MAX_BYTES_IN_FLIGHT`).
//!
//! Small calls pass without noticing. Who would exceed the limit waits until others are done;
//! what turns out larger than it looked is counted, and makes others wait. Bytes that a caller has
//! only announced are kept apart: they hold up other announcements, but no call that is all there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// The bytes that may be held.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    limit: usize,
    sums: Mutex<Sums>,
    given_back: Notify,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    held: usize,
    announced: usize,
}

/// Bytes that a call holds, until it is dropped.
#[derive(Debug)]
pub struct Held {
    account: Arc<Account>,
    held: usize,
    announced: usize,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Account {
            limit,
            sums: Mutex::default(),
            given_back: Notify::new(),
        }))
    }

    /// The most that one call can hold.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Waits until a call of so many bytes may be held; `None` if that was not before the deadline.
    pub async fn hold(&self, bytes: usize, deadline: Instant) -> Option<Held> {
        self.admit(bytes, 0, deadline).await
    }

    /// Waits until there is room for a call of which some bytes are here and others are announced.
    pub async fn expect(&self, here: usize, announced: usize, deadline: Instant) -> Option<Held> {
        self.admit(here, announced, deadline).await
    }

    async fn admit(&self, here: usize, announced: usize, deadline: Instant) -> Option<Held> {
        loop {
            let given_back = self.0.given_back.notified();
            if let Some(held) = self.try_admit(here, announced) {
                return Some(held);
            }
            timeout_at(deadline, given_back).await.ok()?;
        }
    }

    fn try_admit(&self, here: usize, announced: usize) -> Option<Held> {
        let account = &self.0;
        let mut sums = account.sums();
        let others = sums.held + if announced > 0 { sums.announced } else { 0 };
        // A call alone may always go on, or nothing would ever become free for it.
        if others > 0 && others.saturating_add(here + announced) > account.limit {
            return None;
        }
        sums.held += here;
        sums.announced += announced;
        drop(sums);
        Some(Held {
            account: Arc::clone(account),
            held: here,
            announced,
        })
    }
}

impl Account {
    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Counts more bytes, which are here already, announced or not.
    pub fn grow(&mut self, bytes: usize) {
        let expected = bytes.min(self.announced);
        let mut sums = self.account.sums();
        sums.held += bytes;
        sums.announced -= expected;
        self.held += bytes;
        self.announced -= expected;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut sums = self.account.sums();
        sums.held -= self.held;
        sums.announced -= self.announced;
        drop(sums);
        self.account.given_back.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(10)
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_exceed_it_waits() {
        let budget = Budget::new(100);
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
        assert_eq!(*budget.0.sums(), Sums::default());
        assert!(
            budget.hold(1_000, soon()).await.is_some(),
            "alone, anything goes"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn announcements_hold_up_only_each_other() {
        let budget = Budget::new(100);
        let mut first = budget.expect(10, 80, soon()).await.unwrap();
        assert!(budget.expect(10, 10, soon()).await.is_none());
        let small = budget.hold(50, soon()).await.unwrap();
        first.grow(85);
        assert_eq!(
            *budget.0.sums(),
            Sums {
                held: 145,
                announced: 0
            }
        );
        drop((first, small));
        assert_eq!(*budget.0.sums(), Sums::default());
    }
}
