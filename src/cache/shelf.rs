//! Where the slots are: least recently used goes first, when there are too many of them or they
//! take too many bytes.
//!
//! What a slot means is for `cache`.

use lru::LruCache;

use super::{Limits, Slot};
use crate::telemetry::cache as telemetry;

/// What a slot takes besides its key and its value: the nodes of the map and of the list, and the
/// allocations' own administration.
const ADMINISTRATION: usize = 192;
/// So many slots are given back elsewhere than where calls are served.
const MANY: usize = 10_000;

/// Slots by key.
#[derive(Debug)]
pub struct Shelf {
    slots: LruCache<Box<[u8]>, Slot>,
    bytes: usize,
}

impl Default for Shelf {
    fn default() -> Self {
        Self {
            slots: LruCache::unbounded(),
            bytes: 0,
        }
    }
}

impl Shelf {
    /// What a slot counts, in bytes.
    pub fn weight(key: &[u8], slot: &Slot) -> usize {
        ADMINISTRATION + key.len() + slot.value_bytes()
    }

    /// The number of slots.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// The slot of a key, which is the most recently used one now.
    pub fn get(&mut self, key: &[u8]) -> Option<&Slot> {
        self.slots.get(key)
    }

    /// Puts a slot, over the earlier one of the key.
    pub fn put(&mut self, key: &[u8], slot: Slot) {
        let weight = Self::weight(key, &slot);
        let before = match self.slots.get_mut(key) {
            Some(there) => {
                let earlier = std::mem::replace(there, slot);
                Self::weight(key, &earlier)
            }
            None => {
                self.slots.put(key.into(), slot);
                telemetry::entries(1);
                0
            }
        };
        self.count(before, weight);
    }

    /// Takes a slot away; false if there was none.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let Some(slot) = self.slots.pop(key) else {
            return false;
        };
        telemetry::entries(-1);
        self.count(Self::weight(key, &slot), 0);
        true
    }

    /// Makes room, until the limits are kept.
    pub fn trim(&mut self, limits: &Limits) {
        while self.slots.len() > limits.entries || self.bytes > limits.bytes {
            let Some((key, slot)) = self.slots.pop_lru() else {
                return;
            };
            telemetry::entries(-1);
            telemetry::evicted();
            self.count(Self::weight(&key, &slot), 0);
        }
    }

    /// Keeps the slots that are wanted; answers how many are gone.
    pub fn retain(&mut self, wanted: impl Fn(&Slot) -> bool) -> usize {
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

    /// Gives everything back; a large shelf takes a while.
    pub fn discard(self) {
        telemetry::entries(-signed(self.slots.len()));
        telemetry::bytes(-signed(self.bytes));
        if self.slots.len() > MANY
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn_blocking(move || drop(self.slots));
        }
    }

    /// The number of slots, and what they count.
    #[cfg(test)]
    pub fn weighed(&self) -> (usize, usize) {
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
