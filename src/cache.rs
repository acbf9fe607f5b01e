//! What has been read, kept in memory until it changes: slots for keys, without any I/O.
//!
//! A slot holds a read that is under way, or what came of one. Whoever learns that a key changed
//! takes its slot away, and a read fills only the slot that it opened itself: one that began
//! before the change leaves nothing behind, however late its answer comes. Which slot goes first
//! when there is no room is for `shelf`, whether a change may have been missed for `vouch`;
//! hearing of changes is for `connection`.

mod shelf;
mod vouch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::SetOnce;
use tokio::time::Instant;

use crate::error::Error;
use crate::telemetry::cache as telemetry;
use shelf::Shelf;
pub use vouch::{BEAT, LEASE, Vouch};

/// How long others may join a read that is under way. A longer one would answer them with what
/// was there before they asked.
const JOINABLE: Duration = Duration::from_millis(100);

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// The most slots.
    pub entries: usize,
    /// The most bytes of keys, values and what administers them.
    pub bytes: usize,
    /// The longest that a value is used.
    pub age: Duration,
}

/// What came of a read: the value, `None` for a missing key.
pub type Outcome = Result<Option<Bytes>, Error>;

/// Values by their keys in Redis.
#[derive(Debug)]
pub struct Cache {
    limits: Limits,
    shelf: Mutex<Shelf>,
}

/// What there is for a key.
#[derive(Debug)]
pub enum Found<'a> {
    /// Its value, or that it is missing.
    Kept(Option<Bytes>),
    /// Somebody asks Redis for it just now.
    Underway(Arc<Reading>),
    /// Nothing: whoever looked is to ask Redis, and others wait for what comes of it.
    Nothing(Turn<'a>),
}

/// A read that is under way.
#[derive(Debug)]
pub struct Reading {
    since: Instant,
    /// `None` if it was given up.
    outcome: SetOnce<Option<Outcome>>,
}

/// The right and the duty to fill a slot.
#[derive(Debug)]
pub struct Turn<'a> {
    cache: &'a Cache,
    key: &'a [u8],
    reading: Arc<Reading>,
    ended: bool,
}

/// How long a value may be used.
#[derive(Clone, Debug)]
pub struct Keep {
    /// Until then at most.
    pub until: Instant,
    /// As long as this one vouches for it.
    pub vouch: Arc<Vouch>,
}

/// What a slot holds.
#[derive(Debug)]
enum Slot {
    Reading(Arc<Reading>),
    Kept(Kept),
}

#[derive(Debug)]
struct Kept {
    value: Option<Bytes>,
    keep: Keep,
}

impl Cache {
    /// An empty cache.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            shelf: Mutex::default(),
        }
    }

    /// The longest that a value is used.
    pub fn age(&self) -> Duration {
        self.limits.age
    }

    /// Looks for a key; opens a slot for it if there is nothing to go by.
    pub fn look<'a>(&'a self, key: &'a [u8], now: Instant) -> Found<'a> {
        let mut shelf = self.shelf();
        match shelf.get(key) {
            Some(Slot::Kept(kept)) if kept.serves(now) => {
                telemetry::hit();
                return Found::Kept(kept.value.clone());
            }
            Some(Slot::Reading(reading)) if reading.since + JOINABLE > now => {
                telemetry::hit();
                return Found::Underway(Arc::clone(reading));
            }
            _ => telemetry::missed(),
        }
        let reading = Arc::new(Reading {
            since: now,
            outcome: SetOnce::new(),
        });
        shelf.put(key, Slot::Reading(Arc::clone(&reading)));
        shelf.trim(&self.limits);
        Found::Nothing(Turn {
            cache: self,
            key,
            reading,
            ended: false,
        })
    }

    /// The value of a key, if it is known; that it is missing is known, too.
    pub fn known(&self, key: &[u8], now: Instant) -> Option<Option<Bytes>> {
        match self.shelf().get(key) {
            Some(Slot::Kept(kept)) if kept.serves(now) => {
                telemetry::hit();
                Some(kept.value.clone())
            }
            _ => None,
        }
    }

    /// Takes the slots of keys away: they have changed, or may have.
    pub fn forget<'k>(&self, keys: impl IntoIterator<Item = &'k [u8]>) {
        let mut shelf = self.shelf();
        for key in keys {
            if shelf.remove(key) {
                telemetry::invalidated(1);
            }
        }
    }

    /// Takes all slots away.
    pub fn forget_all(&self) {
        let all = std::mem::take(&mut *self.shelf());
        telemetry::invalidated(all.len());
        all.discard();
    }

    /// Takes away what this one vouched for, and all reads that are under way.
    pub fn forget_from(&self, vouch: &Arc<Vouch>) {
        let dropped = self.shelf().retain(|slot| match slot {
            Slot::Reading(_) => false,
            Slot::Kept(kept) => !Arc::ptr_eq(&kept.keep.vouch, vouch),
        });
        telemetry::invalidated(dropped);
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // The shelf is whole after every statement, also where a panic interrupted one.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        std::mem::take(&mut *self.shelf()).discard();
    }
}

impl Kept {
    fn serves(&self, now: Instant) -> bool {
        now < self.keep.until && self.keep.vouch.holds(now)
    }
}

impl Slot {
    /// The bytes of the value.
    fn value_bytes(&self) -> usize {
        match self {
            Self::Reading(_) => 0,
            Self::Kept(kept) => kept.value.as_ref().map_or(0, Bytes::len),
        }
    }
}

impl Reading {
    /// Waits for what comes of it; `None` if whoever read has given up.
    pub async fn outcome(&self) -> Option<Outcome> {
        self.outcome.wait().await.clone()
    }
}

impl Turn<'_> {
    /// Tells everybody who waits what came of the read, and keeps the value if somebody vouches
    /// for it and its key has not changed since the turn began.
    pub fn end(mut self, outcome: &Outcome, keep: Option<Keep>) {
        let kept = keep.and_then(|keep| {
            let value = outcome.as_ref().ok()?.clone();
            Some(Kept { value, keep })
        });
        self.close(kept);
        // Without a slot nobody can join any more.
        if Arc::strong_count(&self.reading) > 1 {
            let _ = self.reading.outcome.set(Some(outcome.clone()));
        }
    }

    fn close(&mut self, kept: Option<Kept>) {
        self.ended = true;
        let mut shelf = self.cache.shelf();
        let is_ours = matches!(
            shelf.get(self.key),
            Some(Slot::Reading(reading)) if Arc::ptr_eq(reading, &self.reading)
        );
        if !is_ours {
            return;
        }
        match kept.map(Slot::Kept) {
            Some(slot) if Shelf::weight(self.key, &slot) <= self.cache.limits.bytes => {
                shelf.put(self.key, slot);
                shelf.trim(&self.cache.limits);
            }
            _ => {
                shelf.remove(self.key);
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.close(None);
            let _ = self.reading.outcome.set(None);
        }
    }
}

#[cfg(test)]
mod tests;
