//! How many calls of a link may be with Redis at once, and how many may wait for that.
//!
//! Without it a slow Redis would collect calls without limit. It belongs to a link, not to its
//! connection: links that share a connection are limited each for itself.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::error::{Error, Kind};

/// The limits `MAX_IN_FLIGHT` and `MAX_WAITING` of one link.
#[derive(Debug)]
pub struct Gate {
    turns: Semaphore,
    waiting: AtomicUsize,
    max_waiting: usize,
}

/// The place of a call that waits.
#[derive(Debug)]
pub struct Waiting<'a>(&'a AtomicUsize);

impl Gate {
    /// A gate for so many calls at once and so many waiting ones.
    pub fn new(max_in_flight: usize, max_waiting: usize) -> Self {
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
    pub async fn turn(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, Error> {
        if let Ok(permit) = self.turns.try_acquire() {
            return Ok(permit);
        }
        let _waiting = self.wait()?;
        match timeout_at(deadline, self.turns.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Error::of(
                Kind::Overloaded,
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
    pub fn wait(&self) -> Result<Waiting<'_>, Error> {
        let waiting = Waiting(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) < self.max_waiting {
            return Ok(waiting);
        }
        let text = format!(
            "too many calls waiting for Redis: this link allows {} (MAX_WAITING)",
            self.max_waiting
        );
        Err(Error::of(Kind::Overloaded, text))
    }
}

impl Drop for Waiting<'_> {
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
        let gate = Gate::new(1, 1);
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
}
