//! How many calls of a link may be with Redis at once, and how many may wait for that.
//!
//! Without it a slow Redis would collect calls without limit. It belongs to a link, not to its
//! connection: links that share a connection are limited each for itself. A call in parts, for several
//! nodes of a cluster, is one call here.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex as SyncMutex;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::error::{Error, ErrorKind};

/// The limits `MAX_IN_FLIGHT` and `MAX_WAITING` of one link.
#[derive(Debug)]
pub(crate) struct Limiter {
    turns: Semaphore,
    waiting: AtomicUsize,
    max_waiting: usize,
}

/// The place of a call that waits.
#[derive(Debug)]
pub(crate) struct QueuedCall<'a>(&'a AtomicUsize);

/// A call that comes in parts: those that are with Redis at the same time share a turn, those that
/// wait a place.
#[derive(Debug)]
pub(crate) struct SharedPermit<'a> {
    gate: &'a Limiter,
    turn: Mutex<Weak<SemaphorePermit<'a>>>,
    waiting: SyncMutex<Weak<QueuedCall<'a>>>,
}

/// Who comes to a gate.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Admission<'a> {
    /// A call.
    Whole(&'a Limiter),
    /// A part of one.
    Part(&'a SharedPermit<'a>),
}

/// Something that a caller has for itself, or with the other parts of its call, until it is dropped.
#[derive(Debug)]
pub(crate) struct SharedSlot<T> {
    _own: Option<T>,
    _shared: Option<Arc<T>>,
}

impl Limiter {
    /// A gate for so many calls at once and so many waiting ones.
    pub(crate) fn new(max_in_flight: usize, max_waiting: usize) -> Self {
        Self {
            turns: Semaphore::new(max_in_flight.min(Semaphore::MAX_PERMITS)),
            waiting: AtomicUsize::new(0),
            max_waiting,
        }
    }

    /// Takes a turn, for as long as the permit is kept.
    ///
    /// # Errors
    ///
    /// Too many calls wait already, or the turn did not come in time.
    pub(crate) async fn turn(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, Error> {
        if let Ok(permit) = self.turns.try_acquire() {
            return Ok(permit);
        }
        let _waiting = self.wait()?;
        match timeout_at(deadline, self.turns.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Error::new(
                ErrorKind::Overloaded,
                "the call waited for its turn until its time was up: the calls of this link are \
                 more than Redis answers (MAX_IN_FLIGHT)",
            )),
        }
    }

    /// Takes a place among the waiting calls.
    ///
    /// # Errors
    ///
    /// Too many calls wait already.
    pub(crate) fn wait(&self) -> Result<QueuedCall<'_>, Error> {
        let waiting = QueuedCall(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) < self.max_waiting {
            return Ok(waiting);
        }
        let text = format!(
            "too many calls waiting for Redis: this link allows {} (MAX_WAITING)",
            self.max_waiting
        );
        Err(Error::new(ErrorKind::Overloaded, text))
    }
}

impl<'a> SharedPermit<'a> {
    /// A call of which no part has come yet.
    pub(crate) fn new(gate: &'a Limiter) -> Self {
        Self {
            gate,
            turn: Mutex::default(),
            waiting: SyncMutex::default(),
        }
    }
}

impl<'a> Admission<'a> {
    /// Takes a turn, as [`Limiter::turn`].
    ///
    /// # Errors
    ///
    /// As there.
    pub(crate) async fn turn(
        self,
        deadline: Instant,
    ) -> Result<SharedSlot<SemaphorePermit<'a>>, Error> {
        let party = match self {
            Self::Whole(gate) => return gate.turn(deadline).await.map(SharedSlot::own),
            Self::Part(party) => party,
        };
        // One part waits for the turn, and the others for that part.
        let mut turn = party.turn.lock().await;
        if let Some(turn) = turn.upgrade() {
            return Ok(SharedSlot::shared(turn));
        }
        let new = Arc::new(party.gate.turn(deadline).await?);
        *turn = Arc::downgrade(&new);
        Ok(SharedSlot::shared(new))
    }

    /// Takes a place among the waiting calls, as [`Limiter::wait`].
    ///
    /// # Errors
    ///
    /// As there.
    pub(crate) fn wait(self) -> Result<SharedSlot<QueuedCall<'a>>, Error> {
        let party = match self {
            Self::Whole(gate) => return gate.wait().map(SharedSlot::own),
            Self::Part(party) => party,
        };
        let mut waiting = party.waiting.lock();
        if let Some(waiting) = waiting.upgrade() {
            return Ok(SharedSlot::shared(waiting));
        }
        let new = Arc::new(party.gate.wait()?);
        *waiting = Arc::downgrade(&new);
        Ok(SharedSlot::shared(new))
    }
}

impl<T> SharedSlot<T> {
    fn own(it: T) -> Self {
        Self {
            _own: Some(it),
            _shared: None,
        }
    }

    fn shared(it: Arc<T>) -> Self {
        Self {
            _own: None,
            _shared: Some(it),
        }
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
    async fn turns_are_limited_and_so_is_waiting() {
        let gate = Limiter::new(1, 1);
        let deadline = Instant::now() + Duration::from_secs(1);
        let turn = gate.turn(deadline).await.unwrap();
        let (second, third) = tokio::join!(gate.turn(deadline), gate.turn(deadline));
        let second = second.unwrap_err().to_string();
        assert!(second.contains("MAX_IN_FLIGHT"), "{second}");
        let third = third.unwrap_err().to_string();
        assert!(third.contains("too many calls waiting"), "{third}");
        drop(turn);
        assert!(gate.turn(deadline).await.is_ok());
        assert_eq!(gate.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_in_parts_is_one_call() {
        let gate = Limiter::new(1, 1);
        let deadline = Instant::now() + Duration::from_secs(1);
        let party = SharedPermit::new(&gate);
        let part = Admission::Part(&party);
        let first = part.turn(deadline).await.unwrap();
        let second = part.turn(deadline).await.unwrap();
        drop(first);
        gate.turn(deadline).await.unwrap_err();
        drop(second);
        drop(gate.turn(deadline).await.unwrap());

        let waiting = (part.wait().unwrap(), part.wait().unwrap());
        gate.wait().unwrap_err();
        drop(waiting);
        assert!(gate.wait().is_ok());

        // They wait together, too.
        let deadline = Instant::now() + Duration::from_secs(1);
        let turn = gate.turn(deadline).await.unwrap();
        let parts = async { tokio::join!(part.turn(deadline), part.turn(deadline)) };
        let (parts, ()) = tokio::join!(parts, async {
            tokio::task::yield_now().await;
            drop(turn);
        });
        assert!(parts.0.is_ok() && parts.1.is_ok());
    }
}
