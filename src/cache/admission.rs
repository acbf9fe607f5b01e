//! Who comes in when there is no room: where nearly everything goes again without having been of
//! use, only keys that are read a second time are kept.
//!
//! So keys that are read once cost little, and do not push out those that are read again and again.

use std::hash::{BuildHasher as _, RandomState};

/// So many that went are looked at together.
const SAMPLE: u32 = 1_024;
/// The filter closes when of ten that went nine were never used again.
const USELESS_IN_TEN: u32 = 9;
/// Bits of the note for each slot that there may be, and the most and least of them.
const BITS_FOR_EACH: usize = 64;
const MAX_BITS: usize = 1 << 26;
const MIN_BITS: usize = 1 << 12;
/// So many bits for each key that is noted, so that few keys share one.
const BITS_FOR_NOTED: usize = 32;

/// The filter of a cache.
#[derive(Debug)]
pub(crate) struct AdmissionFilter {
    hasher: RandomState,
    /// A bit for each key read lately; several keys may share one. Empty as long as the filter is
    /// open.
    noted: Vec<u64>,
    bits: usize,
    count: usize,
    gone: u32,
    useless: u32,
    closed: bool,
}

impl AdmissionFilter {
    /// An open filter of a cache with so many slots.
    pub(crate) fn new(slots: usize) -> Self {
        let bits = slots.saturating_mul(BITS_FOR_EACH);
        Self {
            hasher: RandomState::new(),
            noted: Vec::new(),
            bits: bits.clamp(MIN_BITS, MAX_BITS).next_power_of_two(),
            count: 0,
            gone: 0,
            useless: 0,
            closed: false,
        }
    }

    /// Whether a key comes in, for which another one would have to go.
    pub(crate) fn admits(&mut self, key: &[u8]) -> bool {
        if !self.closed {
            return true;
        }
        if self.noted.is_empty() || self.count > self.bits / BITS_FOR_NOTED {
            // What was noted long ago is forgotten.
            self.noted = vec![0; self.bits / 64];
            self.count = 0;
        }
        let bit = usize::try_from(self.hasher.hash_one(key)).unwrap_or_default() % self.bits;
        let mask = 1 << (bit % 64);
        let word = &mut self.noted[bit / 64];
        let known = *word & mask != 0;
        if !known {
            *word |= mask;
            self.count += 1;
        }
        known
    }

    /// Somebody had to go.
    pub(crate) fn record_eviction(&mut self, was_used: bool) {
        self.gone += 1;
        self.useless += u32::from(!was_used);
        if self.gone == SAMPLE {
            self.closed = self.useless * 10 >= self.gone * USELESS_IN_TEN;
            (self.gone, self.useless) = (0, 0);
            if !self.closed {
                self.noted = Vec::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_closes_for_what_is_never_used_and_opens_again() {
        let mut filter = AdmissionFilter::new(1_000);
        assert!(filter.admits(b"a"));
        for _ in 0..SAMPLE {
            filter.record_eviction(false);
        }
        assert!(!filter.admits(b"a"));
        assert!(filter.admits(b"a"), "it came a second time");
        let strangers = (0..10_000_u32).filter(|n| filter.admits(&n.to_be_bytes()));
        let admitted = strangers.count();
        assert!(
            admitted < 500,
            "{admitted} of 10,000 that never came before"
        );
        for _ in 0..SAMPLE {
            filter.record_eviction(true);
        }
        assert!(filter.admits(b"b"));
    }
}
