//! Lookups, fills and invalidations of the cache.
//!
//! A call that misses receives a [`FillGuard`] with a pending entry, and queries Redis. An
//! invalidation removes the entry; a fill replaces only the pending entry of its own guard. So a read
//! that was sent before a change leaves nothing in the cache, however late its reply is processed.
//! (The client cache of the redis crate inserts late replies, redis-rs#2526.)

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::cache::entries::{
    CacheEntry, CacheLimits, CachedValue, EntryPolicy, InFlightRead, ReadOutcome, ReadResult,
    ReadyEntry,
};
use crate::cache::freshness::Freshness;
use crate::cache::lru::LruStore;
use crate::telemetry::cache as telemetry;

/// Results of reads, by key in Redis.
#[derive(Debug)]
pub(crate) struct Cache {
    ttl: Duration,
    store: Mutex<LruStore>,
}

/// The result of a lookup.
#[derive(Debug)]
pub(crate) enum Lookup<'a> {
    Hit(CachedValue),
    /// Another call is reading the key.
    Pending(Arc<InFlightRead>),
    /// The caller has to query Redis, and other calls wait for its result.
    Miss(FillGuard<'a>),
    /// The caller has to query Redis, and the result is not cached.
    Bypass,
}

/// The right to fill a pending entry, and the duty to complete its read.
#[derive(Debug)]
pub(crate) struct FillGuard<'a> {
    cache: &'a Cache,
    key: &'a [u8],
    read: Arc<InFlightRead>,
    completed: bool,
}

impl Cache {
    pub(crate) fn new(limits: CacheLimits) -> Self {
        Self {
            ttl: limits.ttl,
            store: Mutex::new(LruStore::new(limits)),
        }
    }

    /// The maximum age of an entry.
    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Looks a key up. On a miss it inserts a pending entry, if the key is admitted.
    pub(crate) fn lookup<'a>(&'a self, key: &'a [u8], now: Instant) -> Lookup<'a> {
        let mut store = self.store();
        let has_entry = match store.get(key) {
            Some(CacheEntry::Ready(entry)) if entry.is_fresh(now) => {
                telemetry::record_hit();
                return Lookup::Hit(entry.serve());
            }
            Some(CacheEntry::Pending(read)) if read.is_joinable(now) => {
                telemetry::record_hit();
                return Lookup::Pending(Arc::clone(read));
            }
            entry => entry.is_some(),
        };
        telemetry::record_miss();
        if !has_entry && !store.admits(key) {
            return Lookup::Bypass;
        }
        let read = Arc::new(InFlightRead::new(now));
        let entry = CacheEntry::Pending(Arc::clone(&read));
        if has_entry {
            store.replace_if(key, |_| true, Some(entry));
        } else {
            store.insert(key, entry);
        }
        Lookup::Miss(FillGuard {
            cache: self,
            key,
            read,
            completed: false,
        })
    }

    /// The cached value of a key; never inserts an entry.
    pub(crate) fn peek(&self, key: &[u8], now: Instant) -> Option<CachedValue> {
        match self.store().get(key) {
            Some(CacheEntry::Ready(entry)) if entry.is_fresh(now) => {
                telemetry::record_hit();
                Some(entry.serve())
            }
            _ => None,
        }
    }

    /// Removes the entries of keys that have changed, or may have.
    pub(crate) fn invalidate<'k>(&self, keys: impl IntoIterator<Item = &'k [u8]>) {
        let mut store = self.store();
        for key in keys {
            if store.remove(key) {
                telemetry::record_invalidations(1);
            }
        }
    }

    /// Removes all entries.
    pub(crate) fn invalidate_all(&self) {
        let removed = self.store().clear();
        telemetry::record_invalidations(removed);
    }

    /// Removes the entries that were read from one connection, and all pending ones.
    pub(crate) fn invalidate_connection(&self, freshness: &Arc<Freshness>) {
        let removed = self.store().retain(|entry| match entry {
            CacheEntry::Pending(_) => false,
            CacheEntry::Ready(entry) => !entry.is_from(freshness),
        });
        telemetry::record_invalidations(removed);
    }

    fn store(&self) -> MutexGuard<'_, LruStore> {
        self.store.lock()
    }
}

impl Drop for Cache {
    /// Large caches are freed in the background, and their entries are subtracted from the metrics.
    fn drop(&mut self) {
        self.store().clear();
    }
}

impl FillGuard<'_> {
    /// Publishes the result to the waiting calls. Caches it under `policy`, unless the key was invalidated
    /// since the lookup.
    pub(crate) fn complete(mut self, result: &ReadResult, policy: Option<EntryPolicy>) {
        let entry = match (result, policy) {
            (Ok(value), Some(policy)) => {
                Some(CacheEntry::Ready(ReadyEntry::new(value.clone(), policy)))
            }
            _ => None,
        };
        self.fill(entry);
        // The pending entry is gone, so no further call can join: without a waiting one nothing is cloned.
        if Arc::strong_count(&self.read) > 1 {
            self.read.complete(ReadOutcome::Completed(result.clone()));
        }
    }

    /// Replaces the pending entry of this guard, or removes it.
    fn fill(&mut self, entry: Option<CacheEntry>) {
        self.completed = true;
        let is_own = |entry: &CacheEntry| match entry {
            CacheEntry::Pending(read) => Arc::ptr_eq(read, &self.read),
            CacheEntry::Ready(_) => false,
        };
        self.cache.store().replace_if(self.key, is_own, entry);
    }
}

impl Drop for FillGuard<'_> {
    /// The reading call was canceled.
    fn drop(&mut self) {
        if !self.completed {
            self.fill(None);
            self.read.complete(ReadOutcome::Abandoned);
        }
    }
}

#[cfg(test)]
mod tests;
