//! The budget for bytes of parameters and results that the process holds at once
//! (`MAX_BYTES_IN_FLIGHT`).
//!
//! Calls within the budget are admitted at once; a call that would exceed it is queued until others
//! release bytes. A call that turns out larger than it looked is counted, and delays later ones.
//! Bytes that a caller has only announced are counted separately: they delay other announcements, but
//! no call that has arrived completely. Queued calls hold bytes as well, so the queue is limited to
//! the size of the budget once more.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// The minimum size of the queue, however small the limit is: some messages of NATS's usual size.
const MIN_QUEUE_BYTES: usize = 16 << 20;

/// The reason why a call is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BudgetError {
    /// The bytes of other calls fill the queue.
    QueueFull,
    /// No bytes were released before the deadline.
    DeadlineExceeded,
}

/// The budget, which its clones share.
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
    /// The number of queued calls, and of their bytes.
    queued_calls: usize,
    queued_bytes: usize,
}

/// The bytes of a queued call, until this is dropped.
#[derive(Debug)]
struct QueuedBytes<'a> {
    account: &'a Account,
    bytes: usize,
}

/// The bytes that a call holds, until this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    account: Arc<Account>,
    held: usize,
    announced: usize,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Account {
            limit,
            sums: Mutex::default(),
            released: Notify::new(),
        }))
    }

    /// The limit of one call.
    pub(crate) fn limit(&self) -> usize {
        self.0.limit
    }

    /// Waits until a call of `bytes` is admitted.
    ///
    /// # Errors
    ///
    /// The deadline passed, or the queue is full.
    pub(crate) async fn reserve(
        &self,
        bytes: usize,
        deadline: Instant,
    ) -> Result<Reservation, BudgetError> {
        self.admit(bytes, 0, deadline).await
    }

    /// Waits until a call is admitted of which some bytes have arrived and others are announced.
    ///
    /// # Errors
    ///
    /// As [`Self::reserve`].
    pub(crate) async fn reserve_announced(
        &self,
        arrived: usize,
        announced: usize,
        deadline: Instant,
    ) -> Result<Reservation, BudgetError> {
        self.admit(arrived, announced, deadline).await
    }

    async fn admit(
        &self,
        arrived: usize,
        announced: usize,
        deadline: Instant,
    ) -> Result<Reservation, BudgetError> {
        if let Some(reservation) = self.try_admit(arrived, announced) {
            return Ok(reservation);
        }
        let _queued = self.0.enqueue(arrived)?;
        loop {
            let released = self.0.released.notified();
            if let Some(reservation) = self.try_admit(arrived, announced) {
                return Ok(reservation);
            }
            timeout_at(deadline, released)
                .await
                .map_err(|_| BudgetError::DeadlineExceeded)?;
        }
    }

    fn try_admit(&self, arrived: usize, announced: usize) -> Option<Reservation> {
        let account = &self.0;
        let mut sums = account.sums();
        let others = sums.held + if announced > 0 { sums.announced } else { 0 };
        // A single call is always admitted: no other call would release bytes for it.
        if others > 0 && others.saturating_add(arrived + announced) > account.limit {
            return None;
        }
        sums.held += arrived;
        sums.announced += announced;
        drop(sums);
        Some(Reservation {
            account: Arc::clone(account),
            held: arrived,
            announced,
        })
    }
}

impl Account {
    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock()
    }

    fn enqueue(&self, bytes: usize) -> Result<QueuedBytes<'_>, BudgetError> {
        let mut sums = self.sums();
        if sums.queued_bytes.saturating_add(bytes) > self.limit.max(MIN_QUEUE_BYTES) {
            return Err(BudgetError::QueueFull);
        }
        sums.queued_calls += 1;
        sums.queued_bytes += bytes;
        Ok(QueuedBytes {
            account: self,
            bytes,
        })
    }
}

impl Drop for QueuedBytes<'_> {
    fn drop(&mut self) {
        let mut sums = self.account.sums();
        sums.queued_calls -= 1;
        sums.queued_bytes -= self.bytes;
    }
}

impl Reservation {
    /// Counts further bytes that have arrived, announced or not.
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
        let is_awaited = sums.queued_calls > 0;
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
    async fn budget_blocks_over_limit() {
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
            "a single call is always admitted"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn announcements_delay_only_each_other() {
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
    async fn the_queue_is_bounded_and_rejects_at_once() {
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
        assert_eq!(budget.0.sums().queued_bytes, 0);
    }
}
