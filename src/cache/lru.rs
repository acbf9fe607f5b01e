//! The entries by key, limited in number and bytes: the least recently used one is evicted first.

use lru::LruCache;

use crate::cache::admission::AdmissionFilter;
use crate::cache::entries::{CacheEntry, CacheLimits};
use crate::telemetry::cache as telemetry;

/// The size of an entry besides its key and its value: the nodes of the map and of the list, and the
/// overhead of their allocations.
const ENTRY_OVERHEAD: usize = 192;
/// From this number on, entries are freed on a blocking thread: freeing them takes milliseconds, for which
/// calls would wait.
const FREE_IN_BACKGROUND: usize = 10_000;

/// The entries of a cache.
#[derive(Debug)]
pub(crate) struct LruStore {
    limits: CacheLimits,
    entries: LruCache<Vec<u8>, CacheEntry>,
    bytes: usize,
    filter: AdmissionFilter,
}

impl LruStore {
    pub(crate) fn new(limits: CacheLimits) -> Self {
        Self {
            limits,
            entries: LruCache::unbounded(),
            bytes: 0,
            filter: AdmissionFilter::new(limits.entries),
        }
    }

    fn weight(key: &[u8], entry: &CacheEntry) -> usize {
        ENTRY_OVERHEAD + key.len() + entry.value_bytes()
    }

    /// The entry of a key, which becomes the most recently used one.
    pub(crate) fn get(&mut self, key: &[u8]) -> Option<&mut CacheEntry> {
        self.entries.get_mut(key)
    }

    /// Decides whether a key without an entry gets one.
    pub(crate) fn admits(&mut self, key: &[u8]) -> bool {
        let is_full = self.entries.len() >= self.limits.entries
            || self.bytes + ENTRY_OVERHEAD + key.len() > self.limits.bytes;
        !is_full || self.filter.admits(key)
    }

    /// Inserts an entry for a key that has none.
    pub(crate) fn insert(&mut self, key: &[u8], entry: CacheEntry) {
        let weight = Self::weight(key, &entry);
        self.entries.put(key.to_vec(), entry);
        telemetry::add_entries(1);
        self.adjust_bytes(0, weight);
        self.evict();
    }

    /// Replaces the entry of a key if it satisfies `condition`. Removes it without a replacement, or
    /// if the replacement alone exceeds the limit.
    pub(crate) fn replace_if(
        &mut self,
        key: &[u8],
        condition: impl Fn(&CacheEntry) -> bool,
        replacement: Option<CacheEntry>,
    ) {
        let Some(entry) = self.entries.peek_mut(key).filter(|entry| condition(entry)) else {
            return;
        };
        match replacement {
            Some(replacement) if Self::weight(key, &replacement) <= self.limits.bytes => {
                let before = Self::weight(key, entry);
                let after = Self::weight(key, &replacement);
                *entry = replacement;
                self.adjust_bytes(before, after);
                self.evict();
            }
            _ => {
                self.remove(key);
            }
        }
    }

    /// Removes the entry of a key. Returns false if there is none.
    pub(crate) fn remove(&mut self, key: &[u8]) -> bool {
        let Some(entry) = self.entries.pop(key) else {
            return false;
        };
        telemetry::add_entries(-1);
        self.adjust_bytes(Self::weight(key, &entry), 0);
        true
    }

    /// Evicts entries until the limits are met.
    fn evict(&mut self) {
        while self.entries.len() > self.limits.entries || self.bytes > self.limits.bytes {
            let Some((key, entry)) = self.entries.pop_lru() else {
                return;
            };
            telemetry::add_entries(-1);
            telemetry::record_eviction();
            self.filter.record_eviction(entry.was_used());
            self.adjust_bytes(Self::weight(&key, &entry), 0);
        }
    }

    /// Removes all entries that do not satisfy `condition`. Returns their number.
    pub(crate) fn retain(&mut self, condition: impl Fn(&CacheEntry) -> bool) -> usize {
        let (len, mut freed) = (self.entries.len(), 0);
        self.entries.retain(|key, entry| {
            let is_retained = condition(entry);
            if !is_retained {
                freed += Self::weight(key, entry);
            }
            is_retained
        });
        let removed = len - self.entries.len();
        telemetry::add_entries(-signed(removed));
        self.adjust_bytes(freed, 0);
        removed
    }

    /// Removes all entries. Returns their number.
    pub(crate) fn clear(&mut self) -> usize {
        let entries = std::mem::replace(&mut self.entries, LruCache::unbounded());
        let len = entries.len();
        telemetry::add_entries(-signed(len));
        self.adjust_bytes(self.bytes, 0);
        if len >= FREE_IN_BACKGROUND
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn_blocking(move || drop(entries));
        }
        len
    }

    /// The number of entries and their size in bytes.
    #[cfg(test)]
    pub(crate) fn usage(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }

    fn adjust_bytes(&mut self, before: usize, after: usize) {
        self.bytes = self.bytes + after - before;
        telemetry::add_bytes(signed(after) - signed(before));
    }
}

fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
