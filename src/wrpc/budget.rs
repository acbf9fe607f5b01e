//! How many bytes of parameters and results the process holds at once (`MAX_BYTES_IN_FLIGHT`).
//!
//! Small calls pass without noticing. Who would exceed the limit waits until others are done;
//! what turns out larger than it looked is counted, and makes others wait. Bytes that a caller has
//! only announced are kept apart: they hold up other announcements, but no call that is all there.
//! Who waits holds bytes as well, so that no more may wait than the limit once again.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// What may wait however small the limit is: some messages of NATS's usual size.
const MIN_QUEUE_BYTES: usize = 16 << 20;

/// Why there is no room for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BudgetError {
    /// Too many bytes of other calls wait already.
    QueueFull,
    /// It waited until its time was up.
    DeadlineExceeded,
}

/// The bytes that may be held.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    limit: usize,
    sums: Mutex<Sums>,
    released: Notify,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    held: usize,
    announced: usize,
    /// How many calls wait, and how many bytes they have with them.
    waiters: usize,
    waiting: usize,
}

/// Bytes that a call which waits for room has with it, until it is dropped.
#[derive(Debug)]
struct QueuedBytes<'a> {
    account: &'a Account,
    bytes: usize,
}

/// Bytes that a call holds, until it is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    account: Arc<Account>,
    held: usize,
    announced: usize,
}

impl Budget {
    /// A budget of so many bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Account {
            limit,
            sums: Mutex::default(),
            released: Notify::new(),
        }))
    }

    /// The most that one call can hold.
    pub(crate) fn limit(&self) -> usize {
        self.0.limit
    }

    /// Waits until a call of so many bytes may be held.
    ///
    /// # Errors
    ///
    /// That was not before the deadline, or too many wait.
    pub(crate) async fn reserve(
        &self,
        bytes: usize,
        deadline: Instant,
    ) -> Result<Reservation, BudgetError> {
        self.admit(bytes, 0, deadline).await
    }

    /// Waits until there is room for a call of which some bytes are here and others are announced.
    ///
    /// # Errors
    ///
    /// As [`Self::reserve`].
    pub(crate) async fn reserve_announced(
        &self,
        here: usize,
        announced: usize,
        deadline: Instant,
    ) -> Result<Reservation, BudgetError> {
        self.admit(here, announced, deadline).await
    }

    async fn admit(
        &self,
        here: usize,
        announced: usize,
        deadline: Instant,
    ) -> Result<Reservation, BudgetError> {
        if let Some(held) = self.try_admit(here, announced) {
            return Ok(held);
        }
        let _waiting = self.0.wait(here)?;
        loop {
            let released = self.0.released.notified();
            if let Some(held) = self.try_admit(here, announced) {
                return Ok(held);
            }
            timeout_at(deadline, released)
                .await
                .map_err(|_| BudgetError::DeadlineExceeded)?;
        }
    }

    fn try_admit(&self, here: usize, announced: usize) -> Option<Reservation> {
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
        Some(Reservation {
            account: Arc::clone(account),
            held: here,
            announced,
        })
    }
}

impl Account {
    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock()
    }

    fn wait(&self, bytes: usize) -> Result<QueuedBytes<'_>, BudgetError> {
        let mut sums = self.sums();
        if sums.waiting.saturating_add(bytes) > self.limit.max(MIN_QUEUE_BYTES) {
            return Err(BudgetError::QueueFull);
        }
        sums.waiters += 1;
        sums.waiting += bytes;
        Ok(QueuedBytes {
            account: self,
            bytes,
        })
    }
}

impl Drop for QueuedBytes<'_> {
    fn drop(&mut self) {
        let mut sums = self.account.sums();
        sums.waiters -= 1;
        sums.waiting -= self.bytes;
    }
}

impl Reservation {
    /// Counts more bytes, which are here already, announced or not.
    pub(crate) fn grow(&mut self, bytes: usize) {
        let expected = bytes.min(self.announced);
        let mut sums = self.account.sums();
        sums.held += bytes;
        sums.announced -= expected;
        self.held += bytes;
        self.announced -= expected;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut sums = self.account.sums();
        sums.held -= self.held;
        sums.announced -= self.announced;
        let is_awaited = sums.waiters > 0;
        drop(sums);
        if is_awaited {
            self.account.released.notify_waiters();
        }
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
        let mut first = budget.reserve(60, soon()).await.unwrap();
        assert!(budget.reserve(60, soon()).await.is_err());
        let second = budget.reserve(40, soon()).await.unwrap();
        first.grow(50);
        assert!(budget.reserve(1, soon()).await.is_err());
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move {
                budget
                    .reserve(90, Instant::now() + Duration::from_secs(9))
                    .await
            }
        });
        tokio::task::yield_now().await;
        drop(first);
        drop(second);
        assert!(waiting.await.unwrap().is_ok());
        assert_eq!(*budget.0.sums(), Sums::default());
        assert!(
            budget.reserve(1_000, soon()).await.is_ok(),
            "alone, anything goes"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn announcements_hold_up_only_each_other() {
        let budget = Budget::new(100);
        let mut first = budget.reserve_announced(10, 80, soon()).await.unwrap();
        assert!(budget.reserve_announced(10, 10, soon()).await.is_err());
        let small = budget.reserve(50, soon()).await.unwrap();
        first.grow(85);
        assert_eq!(
            *budget.0.sums(),
            Sums {
                held: 145,
                announced: 0,
                ..Sums::default()
            }
        );
        drop((first, small));
        assert_eq!(*budget.0.sums(), Sums::default());
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_bounded_and_what_is_too_much_is_told_at_once() {
        let limit = 2 * MIN_QUEUE_BYTES;
        let budget = Budget::new(limit);
        let _all = budget.reserve(limit, soon()).await.unwrap();
        let (most, more, small) = tokio::join!(
            budget.reserve(limit - 1, soon()),
            budget.reserve(2, Instant::now() + Duration::from_secs(9)),
            budget.reserve(1, soon()),
        );
        assert_eq!(most.unwrap_err(), BudgetError::DeadlineExceeded);
        assert_eq!(more.unwrap_err(), BudgetError::QueueFull);
        assert_eq!(small.unwrap_err(), BudgetError::DeadlineExceeded);
        assert_eq!(budget.0.sums().waiting, 0);
    }
}
