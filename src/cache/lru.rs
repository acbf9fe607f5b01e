//! Where the slots are: least recently used goes first, when there are too many of them or they
//! take too many bytes.
//!
//! What a slot means is for `cache`.

use lru::LruCache;

use crate::cache::admission::AdmissionFilter;
use crate::cache::read_through::{CacheLimits, EntryState};
use crate::telemetry::cache as telemetry;

/// What a slot takes besides its key and its value: the nodes of the map and of the list, and the
/// allocations' own administration.
const ENTRY_OVERHEAD: usize = 192;
/// So many slots are given back elsewhere than where calls are served.
const MANY: usize = 10_000;

/// Slots by key.
#[derive(Debug)]
pub(crate) struct LruStore {
    limits: CacheLimits,
    slots: LruCache<Vec<u8>, EntryState>,
    bytes: usize,
    filter: AdmissionFilter,
}

impl LruStore {
    /// An empty store.
    pub(crate) fn new(limits: CacheLimits) -> Self {
        Self {
            limits,
            slots: LruCache::unbounded(),
            bytes: 0,
            filter: AdmissionFilter::new(limits.entries),
        }
    }

    /// What a slot counts, in bytes.
    fn weight(key: &[u8], slot: &EntryState) -> usize {
        ENTRY_OVERHEAD + key.len() + slot.value_bytes()
    }

    /// The slot of a key, which is the most recently used one now.
    pub(crate) fn get(&mut self, key: &[u8]) -> Option<&mut EntryState> {
        self.slots.get_mut(key)
    }

    /// Whether a key that has no slot is worth one.
    pub(crate) fn admits(&mut self, key: &[u8]) -> bool {
        let is_full = self.slots.len() >= self.limits.entries
            || self.bytes + ENTRY_OVERHEAD + key.len() > self.limits.bytes;
        !is_full || self.filter.admits(key)
    }

    /// Puts a slot for a key that has none.
    pub(crate) fn open(&mut self, key: &[u8], slot: EntryState) {
        let weight = Self::weight(key, &slot);
        self.slots.put(key.to_vec(), slot);
        telemetry::entries(1);
        self.count(0, weight);
        self.evict();
    }

    /// Fills the slot of a key, if it is the one that is meant, and there is room for as much.
    pub(crate) fn replace_if(
        &mut self,
        key: &[u8],
        is_meant: impl Fn(&EntryState) -> bool,
        slot: Option<EntryState>,
    ) {
        let Some(there) = self.slots.peek_mut(key).filter(|there| is_meant(there)) else {
            return;
        };
        match slot {
            Some(slot) if Self::weight(key, &slot) <= self.limits.bytes => {
                let before = Self::weight(key, there);
                let after = Self::weight(key, &slot);
                *there = slot;
                self.count(before, after);
                self.evict();
            }
            _ => {
                self.remove(key);
            }
        }
    }

    /// Takes a slot away; false if there was none.
    pub(crate) fn remove(&mut self, key: &[u8]) -> bool {
        let Some(slot) = self.slots.pop(key) else {
            return false;
        };
        telemetry::entries(-1);
        self.count(Self::weight(key, &slot), 0);
        true
    }

    /// Makes room, until the limits are kept.
    fn evict(&mut self) {
        while self.slots.len() > self.limits.entries || self.bytes > self.limits.bytes {
            let Some((key, slot)) = self.slots.pop_lru() else {
                return;
            };
            telemetry::entries(-1);
            telemetry::evicted();
            self.filter.record_eviction(slot.was_used());
            self.count(Self::weight(&key, &slot), 0);
        }
    }

    /// Keeps the slots that are wanted; answers how many are gone.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&EntryState) -> bool) -> usize {
        let (len, mut freed) = (self.slots.len(), 0);
        self.slots.retain(|key, slot| {
            let stays = wanted(slot);
            if !stays {
                freed += Self::weight(key, slot);
            }
            stays
        });
        let gone = len - self.slots.len();
        telemetry::entries(-signed(gone));
        self.count(freed, 0);
        gone
    }

    /// Takes all slots away; answers how many. To give back a large store takes a while.
    pub(crate) fn clear(&mut self) -> usize {
        let slots = std::mem::replace(&mut self.slots, LruCache::unbounded());
        let len = slots.len();
        telemetry::entries(-signed(len));
        self.count(self.bytes, 0);
        if len > MANY
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn_blocking(move || drop(slots));
        }
        len
    }

    /// The number of slots, and what they count.
    #[cfg(test)]
    pub(crate) fn weighed(&self) -> (usize, usize) {
        (self.slots.len(), self.bytes)
    }

    fn count(&mut self, before: usize, after: usize) {
        self.bytes = self.bytes + after - before;
        telemetry::bytes(signed(after) - signed(before));
    }
}

fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
