//! Limits of one link: how many calls may be in flight, and how many may be queued.
//!
//! Without them a slow Redis would accumulate calls without bound. Links that share a connection are
//! limited each by its own limiter. A call that is split over several nodes of a cluster counts once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex as SyncMutex;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::error::{Error, ErrorKind};

/// The limits `MAX_IN_FLIGHT` and `MAX_WAITING` of one link.
#[derive(Debug)]
pub(crate) struct Limiter {
    in_flight: Semaphore,
    /// The number of queued calls. Relaxed: it orders nothing else.
    queued: AtomicUsize,
    max_queued: usize,
}

/// A call's place in the queue, until it is dropped.
#[derive(Debug)]
pub(crate) struct QueuedCall<'a>(&'a AtomicUsize);

/// The permit of a call in parts: the parts in flight share one permit, the queued parts share one
/// place in the queue.
#[derive(Debug)]
pub(crate) struct SharedPermit<'a> {
    limiter: &'a Limiter,
    /// Locked while a part waits for the permit, so that the other parts wait for that part.
    permit: Mutex<Weak<SemaphorePermit<'a>>>,
    queued: SyncMutex<Weak<QueuedCall<'a>>>,
}

/// The way in which a command is admitted by a limiter.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Admission<'a> {
    /// The command is a call.
    Whole(&'a Limiter),
    /// The command is a part of a call.
    Part(&'a SharedPermit<'a>),
}

/// A permit or a place in the queue, owned or shared with the other parts of the call, until it is
/// dropped.
#[derive(Debug)]
pub(crate) enum SharedSlot<T> {
    Owned { _slot: T },
    Shared { _slot: Arc<T> },
}

impl Limiter {
    pub(crate) fn new(max_in_flight: usize, max_queued: usize) -> Self {
        Self {
            in_flight: Semaphore::new(max_in_flight.min(Semaphore::MAX_PERMITS)),
            queued: AtomicUsize::new(0),
            max_queued,
        }
    }

    /// Acquires a permit, waiting in the queue if there is none.
    ///
    /// # Errors
    ///
    /// The queue is full, or no permit was released before the deadline.
    pub(crate) async fn acquire(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, Error> {
        if let Ok(permit) = self.in_flight.try_acquire() {
            return Ok(permit);
        }
        let _queued = self.enqueue()?;
        match timeout_at(deadline, self.in_flight.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Error::new(
                ErrorKind::Overloaded,
                "timed out waiting for a free slot: too many concurrent calls on this link \
                 (MAX_IN_FLIGHT)",
            )),
        }
    }

    /// Takes a place in the queue.
    ///
    /// # Errors
    ///
    /// The queue is full.
    pub(crate) fn enqueue(&self) -> Result<QueuedCall<'_>, Error> {
        let queued = QueuedCall(&self.queued);
        if self.queued.fetch_add(1, Ordering::Relaxed) < self.max_queued {
            return Ok(queued);
        }
        let message = format!(
            "too many calls waiting for Redis: this link allows {} (MAX_WAITING)",
            self.max_queued
        );
        Err(Error::new(ErrorKind::Overloaded, message))
    }
}

impl<'a> SharedPermit<'a> {
    pub(crate) fn new(limiter: &'a Limiter) -> Self {
        Self {
            limiter,
            permit: Mutex::default(),
            queued: SyncMutex::default(),
        }
    }
}

impl<'a> Admission<'a> {
    /// As [`Limiter::acquire`].
    pub(crate) async fn acquire(
        self,
        deadline: Instant,
    ) -> Result<SharedSlot<SemaphorePermit<'a>>, Error> {
        let shared = match self {
            Self::Whole(limiter) => {
                let permit = limiter.acquire(deadline).await?;
                return Ok(SharedSlot::Owned { _slot: permit });
            }
            Self::Part(shared) => shared,
        };
        let mut permit = shared.permit.lock().await;
        let slot = match permit.upgrade() {
            Some(slot) => slot,
            None => {
                let slot = Arc::new(shared.limiter.acquire(deadline).await?);
                *permit = Arc::downgrade(&slot);
                slot
            }
        };
        Ok(SharedSlot::Shared { _slot: slot })
    }

    /// As [`Limiter::enqueue`].
    pub(crate) fn enqueue(self) -> Result<SharedSlot<QueuedCall<'a>>, Error> {
        let shared = match self {
            Self::Whole(limiter) => {
                let queued = limiter.enqueue()?;
                return Ok(SharedSlot::Owned { _slot: queued });
            }
            Self::Part(shared) => shared,
        };
        let mut queued = shared.queued.lock();
        let slot = match queued.upgrade() {
            Some(slot) => slot,
            None => {
                let slot = Arc::new(shared.limiter.enqueue()?);
                *queued = Arc::downgrade(&slot);
                slot
            }
        };
        Ok(SharedSlot::Shared { _slot: slot })
    }
}

impl Drop for QueuedCall<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn calls_in_flight_and_queued_calls_are_limited() {
        let limiter = Limiter::new(1, 1);
        let deadline = Instant::now() + Duration::from_secs(1);
        let permit = limiter.acquire(deadline).await.unwrap();
        let (second, third) = tokio::join!(limiter.acquire(deadline), limiter.acquire(deadline));
        let second = second.unwrap_err().to_string();
        assert!(second.contains("MAX_IN_FLIGHT"), "{second}");
        let third = third.unwrap_err().to_string();
        assert!(third.contains("too many calls waiting"), "{third}");
        drop(permit);
        assert!(limiter.acquire(deadline).await.is_ok());
        assert_eq!(limiter.queued.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_parts_of_a_call_count_once() {
        let limiter = Limiter::new(1, 1);
        let deadline = Instant::now() + Duration::from_secs(1);
        let shared = SharedPermit::new(&limiter);
        let part = Admission::Part(&shared);
        let first = part.acquire(deadline).await.unwrap();
        let second = part.acquire(deadline).await.unwrap();
        drop(first);
        limiter.acquire(deadline).await.unwrap_err();
        drop(second);
        drop(limiter.acquire(deadline).await.unwrap());

        let queued = (part.enqueue().unwrap(), part.enqueue().unwrap());
        limiter.enqueue().unwrap_err();
        drop(queued);
        assert!(limiter.enqueue().is_ok());

        // Queued parts are admitted together, too.
        let deadline = Instant::now() + Duration::from_secs(1);
        let permit = limiter.acquire(deadline).await.unwrap();
        let parts = async { tokio::join!(part.acquire(deadline), part.acquire(deadline)) };
        let (parts, ()) = tokio::join!(parts, async {
            tokio::task::yield_now().await;
            drop(permit);
        });
        assert!(parts.0.is_ok() && parts.1.is_ok());
    }
}
