//! What has been read, kept in memory until it changes: slots for keys, without any I/O.
//!
//! A slot holds a read that is under way, or what came of one. Whoever learns that a key changed
//! takes its slot away, and a read fills only the slot that it opened itself: one that began
//! before the change leaves nothing behind, however late its answer comes. Which slot goes first
//! when there is no room is for `store` and `filter`, whether a change may have been missed for `freshness`;
//! hearing of changes is for `connection`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::SetOnce;
use tokio::time::Instant;

pub(crate) use crate::cache::freshness::Freshness;
use crate::cache::lru::LruStore;
use crate::error::Error;
use crate::telemetry::cache as telemetry;

/// How long others may join a read that is under way. A longer one would answer them with what
/// was there before they asked.
const COALESCE_WINDOW: Duration = Duration::from_millis(100);

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CacheLimits {
    /// The most slots.
    pub(crate) entries: usize,
    /// The most bytes of keys, values and what administers them.
    pub(crate) bytes: usize,
    /// The longest that a value is used.
    pub(crate) age: Duration,
}

/// What came of a read: the value, `None` for a missing key.
pub(crate) type ReadResult = Result<Option<Bytes>, Error>;

/// Values by their keys in Redis.
#[derive(Debug)]
pub(crate) struct Cache {
    age: Duration,
    store: Mutex<LruStore>,
}

/// What there is for a key.
#[derive(Debug)]
pub(crate) enum Lookup<'a> {
    /// Its value, or that it is missing.
    Hit(Option<Bytes>),
    /// Somebody asks Redis for it just now.
    Pending(Arc<InFlightRead>),
    /// Nothing: whoever looked is to ask Redis, and others wait for what comes of it.
    Miss(FillGuard<'a>),
    /// Nothing, and it is not worth a slot.
    Bypass,
}

/// A read that is under way.
#[derive(Debug)]
pub(crate) struct InFlightRead {
    since: Instant,
    /// `None` if it was given up.
    outcome: SetOnce<Option<ReadResult>>,
}

/// The right and the duty to fill a slot.
#[derive(Debug)]
pub(crate) struct FillGuard<'a> {
    cache: &'a Cache,
    key: &'a [u8],
    reading: Arc<InFlightRead>,
    ended: bool,
}

/// How long a value may be used.
#[derive(Clone, Debug)]
pub(crate) struct EntryPolicy {
    /// Until then at most.
    pub(crate) until: Instant,
    /// As long as this one vouches for it.
    pub(crate) freshness: Arc<Freshness>,
}

/// What a slot holds.
#[derive(Debug)]
pub(crate) enum EntryState {
    Pending(Arc<InFlightRead>),
    Ready(Entry),
}

#[derive(Debug)]
pub(crate) struct Entry {
    value: Option<Bytes>,
    keep: EntryPolicy,
    used: bool,
}

impl Cache {
    /// An empty cache.
    pub(crate) fn new(limits: CacheLimits) -> Self {
        Self {
            age: limits.age,
            store: Mutex::new(LruStore::new(limits)),
        }
    }

    /// The longest that a value is used.
    pub(crate) fn age(&self) -> Duration {
        self.age
    }

    /// Looks for a key; opens a slot for it if there is nothing to go by.
    pub(crate) fn lookup<'a>(&'a self, key: &'a [u8], now: Instant) -> Lookup<'a> {
        let mut store = self.store();
        let has_slot = match store.get(key) {
            Some(EntryState::Ready(kept)) if kept.is_fresh(now) => return Lookup::Hit(kept.hit()),
            Some(EntryState::Pending(reading)) if reading.since + COALESCE_WINDOW > now => {
                telemetry::hit();
                return Lookup::Pending(Arc::clone(reading));
            }
            slot => slot.is_some(),
        };
        telemetry::missed();
        if !has_slot && !store.admits(key) {
            return Lookup::Bypass;
        }
        let reading = Arc::new(InFlightRead {
            since: now,
            outcome: SetOnce::new(),
        });
        let slot = EntryState::Pending(Arc::clone(&reading));
        if has_slot {
            store.replace_if(key, |_| true, Some(slot));
        } else {
            store.open(key, slot);
        }
        Lookup::Miss(FillGuard {
            cache: self,
            key,
            reading,
            ended: false,
        })
    }

    /// The value of a key, if it is known; that it is missing is known, too.
    pub(crate) fn peek(&self, key: &[u8], now: Instant) -> Option<Option<Bytes>> {
        match self.store().get(key) {
            Some(EntryState::Ready(kept)) if kept.is_fresh(now) => Some(kept.hit()),
            _ => None,
        }
    }

    /// Takes the slots of keys away: they have changed, or may have.
    pub(crate) fn invalidate<'k>(&self, keys: impl IntoIterator<Item = &'k [u8]>) {
        let mut store = self.store();
        for key in keys {
            if store.remove(key) {
                telemetry::invalidated(1);
            }
        }
    }

    /// Takes all slots away.
    pub(crate) fn invalidate_all(&self) {
        let gone = self.store().clear();
        telemetry::invalidated(gone);
    }

    /// Takes away what this one vouched for, and all reads that are under way.
    pub(crate) fn invalidate_connection(&self, freshness: &Arc<Freshness>) {
        let dropped = self.store().retain(|slot| match slot {
            EntryState::Pending(_) => false,
            EntryState::Ready(kept) => !Arc::ptr_eq(&kept.keep.freshness, freshness),
        });
        telemetry::invalidated(dropped);
    }

    fn store(&self) -> MutexGuard<'_, LruStore> {
        self.store.lock()
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.store().clear();
    }
}

impl Entry {
    fn is_fresh(&self, now: Instant) -> bool {
        now < self.keep.until && self.keep.freshness.is_valid(now)
    }

    /// The value, for a read that it answers.
    fn hit(&mut self) -> Option<Bytes> {
        telemetry::hit();
        self.used = true;
        self.value.clone()
    }
}

impl EntryState {
    /// Whether it has been of use to anybody but who filled it.
    pub(crate) fn was_used(&self) -> bool {
        match self {
            Self::Pending(reading) => Arc::strong_count(reading) > 2,
            Self::Ready(kept) => kept.used,
        }
    }

    /// The bytes of the value.
    pub(crate) fn value_bytes(&self) -> usize {
        match self {
            Self::Pending(_) => 0,
            Self::Ready(kept) => kept.value.as_ref().map_or(0, Bytes::len),
        }
    }
}

impl InFlightRead {
    /// Waits for what comes of it; `None` if whoever read has given up.
    pub(crate) async fn outcome(&self) -> Option<ReadResult> {
        self.outcome.wait().await.clone()
    }
}

impl FillGuard<'_> {
    /// Tells everybody who waits what came of the read, and keeps the value if somebody vouches
    /// for it and its key has not changed since the turn began.
    pub(crate) fn end(mut self, outcome: &ReadResult, keep: Option<EntryPolicy>) {
        let kept = keep.and_then(|keep| {
            let value = outcome.as_ref().ok()?.clone();
            Some(EntryState::Ready(Entry {
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

    fn close(&mut self, slot: Option<EntryState>) {
        self.ended = true;
        let is_ours = |there: &EntryState| match there {
            EntryState::Pending(reading) => Arc::ptr_eq(reading, &self.reading),
            EntryState::Ready(_) => false,
        };
        self.cache.store().replace_if(self.key, is_ours, slot);
    }
}

impl Drop for FillGuard<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.close(None);
            let _ = self.reading.outcome.set(None);
        }
    }
}

#[cfg(test)]
mod tests;
