//! What has been read, kept in memory until it changes: slots for keys, without any I/O.
//!
//! A slot holds a read that is under way, or what came of one. Whoever learns that a key changed
//! takes its slot away, and a read fills only the slot that it opened itself: one that began
//! before the change leaves nothing behind, however late its answer comes. Which slot goes first
//! when there is no room is for `shelf` and `door`, whether a change may have been missed for `vouch`;
//! hearing of changes is for `connection`.

mod door;
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
pub use vouch::{LEASE, Vouch};

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
    age: Duration,
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
    /// Nothing, and it is not worth a slot.
    Unwanted,
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
    used: bool,
}

impl Cache {
    /// An empty cache.
    pub fn new(limits: Limits) -> Self {
        Self {
            age: limits.age,
            shelf: Mutex::new(Shelf::new(limits)),
        }
    }

    /// The longest that a value is used.
    pub fn age(&self) -> Duration {
        self.age
    }

    /// Looks for a key; opens a slot for it if there is nothing to go by.
    pub fn look<'a>(&'a self, key: &'a [u8], now: Instant) -> Found<'a> {
        let mut shelf = self.shelf();
        let has_slot = match shelf.get(key) {
            Some(Slot::Kept(kept)) if kept.serves(now) => return Found::Kept(kept.hit()),
            Some(Slot::Reading(reading)) if reading.since + JOINABLE > now => {
                telemetry::hit();
                return Found::Underway(Arc::clone(reading));
            }
            slot => slot.is_some(),
        };
        telemetry::missed();
        if !has_slot && !shelf.admits(key) {
            return Found::Unwanted;
        }
        let reading = Arc::new(Reading {
            since: now,
            outcome: SetOnce::new(),
        });
        let slot = Slot::Reading(Arc::clone(&reading));
        if has_slot {
            shelf.fill(key, |_| true, Some(slot));
        } else {
            shelf.open(key, slot);
        }
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
            Some(Slot::Kept(kept)) if kept.serves(now) => Some(kept.hit()),
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
        let gone = self.shelf().clear();
        telemetry::invalidated(gone);
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
        self.shelf().clear();
    }
}

impl Kept {
    fn serves(&self, now: Instant) -> bool {
        now < self.keep.until && self.keep.vouch.holds(now)
    }

    /// The value, for a read that it answers.
    fn hit(&mut self) -> Option<Bytes> {
        telemetry::hit();
        self.used = true;
        self.value.clone()
    }
}

impl Slot {
    /// Whether it has been of use to anybody but who filled it.
    fn was_used(&self) -> bool {
        match self {
            Self::Reading(reading) => Arc::strong_count(reading) > 2,
            Self::Kept(kept) => kept.used,
        }
    }

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
            Some(Slot::Kept(Kept {
                value,
                keep,
                used: false,
            }))
        });
        self.close(kept);
        // Without a slot nobody can join any more.
        if Arc::strong_count(&self.reading) > 1 {
            let _ = self.reading.outcome.set(Some(outcome.clone()));
        }
    }

    fn close(&mut self, slot: Option<Slot>) {
        self.ended = true;
        let is_ours = |there: &Slot| match there {
            Slot::Reading(reading) => Arc::ptr_eq(reading, &self.reading),
            Slot::Kept(_) => false,
        };
        self.cache.shelf().fill(self.key, is_ours, slot);
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
