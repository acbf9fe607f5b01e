//! The admission filter: when nearly all evicted entries were never used, a full cache admits a new key on
//! its second read only.
//!
//! So keys that are read once cost little, and do not evict those that are read repeatedly. The decision
//! comes before the read, since a read that is not cached is one plain `GET`.

use std::hash::{BuildHasher as _, RandomState};

/// Evictions per decision.
const SAMPLE: u32 = 1_024;
/// The filter engages if at least this many of ten evicted entries were never used.
const UNUSED_IN_TEN: u32 = 9;
/// Bits of the table of recent keys per entry of the cache, and their limits.
const BITS_PER_ENTRY: usize = 64;
const MAX_BITS: usize = 1 << 26;
const MIN_BITS: usize = 1 << 12;
/// Bits of the table per recent key, so that few keys share a bit.
const BITS_PER_KEY: usize = 32;

/// The admission filter of one cache.
#[derive(Debug)]
pub(crate) struct AdmissionFilter {
    hasher: RandomState,
    /// The size of the table of recent keys.
    bits: usize,
    state: FilterState,
    evicted: u32,
    evicted_unused: u32,
}

#[derive(Debug)]
enum FilterState {
    /// Every key is admitted.
    Open,
    /// Only recently read keys are admitted.
    Engaged(RecentKeys),
}

/// The keys that were read recently: a bit per key, which several keys may share.
#[derive(Debug)]
struct RecentKeys {
    words: Vec<u64>,
    count: usize,
}

impl AdmissionFilter {
    /// An open filter for a cache of at most `entries`.
    pub(crate) fn new(entries: usize) -> Self {
        let bits = entries.saturating_mul(BITS_PER_ENTRY);
        Self {
            hasher: RandomState::new(),
            bits: bits.clamp(MIN_BITS, MAX_BITS).next_power_of_two(),
            state: FilterState::Open,
            evicted: 0,
            evicted_unused: 0,
        }
    }

    /// Decides whether a full cache takes a key, which evicts another one.
    pub(crate) fn admits(&mut self, key: &[u8]) -> bool {
        match &mut self.state {
            FilterState::Open => true,
            FilterState::Engaged(recent) => {
                let hash = self.hasher.hash_one(key);
                let bit = usize::try_from(hash).unwrap_or_default() % self.bits;
                recent.check_and_insert(bit)
            }
        }
    }

    /// Records an eviction.
    pub(crate) fn record_eviction(&mut self, was_used: bool) {
        self.evicted += 1;
        self.evicted_unused += u32::from(!was_used);
        if self.evicted < SAMPLE {
            return;
        }
        let engage = self.evicted_unused * 10 >= self.evicted * UNUSED_IN_TEN;
        (self.evicted, self.evicted_unused) = (0, 0);
        match (&self.state, engage) {
            (FilterState::Open, true) => {
                self.state = FilterState::Engaged(RecentKeys::new(self.bits));
            }
            (FilterState::Engaged(_), false) => self.state = FilterState::Open,
            (FilterState::Open, false) | (FilterState::Engaged(_), true) => {}
        }
    }
}

impl RecentKeys {
    fn new(bits: usize) -> Self {
        Self {
            words: vec![0; bits / 64],
            count: 0,
        }
    }

    /// Returns true if the bit was set before; sets it.
    fn check_and_insert(&mut self, bit: usize) -> bool {
        if self.count > self.words.len() * 64 / BITS_PER_KEY {
            *self = Self::new(self.words.len() * 64);
        }
        let mask = 1 << (bit % 64);
        let word = &mut self.words[bit / 64];
        let was_set = *word & mask != 0;
        if !was_set {
            *word |= mask;
            self.count += 1;
        }
        was_set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admission_filter_engages_and_releases() {
        let mut filter = AdmissionFilter::new(1_000);
        assert!(filter.admits(b"a"));
        for _ in 0..SAMPLE {
            filter.record_eviction(false);
        }
        assert!(!filter.admits(b"a"));
        assert!(filter.admits(b"a"), "a second read is admitted");
        let first_reads = (0..10_000_u32).filter(|n| filter.admits(&n.to_be_bytes()));
        let admitted = first_reads.count();
        assert!(admitted < 500, "{admitted} of 10,000 first reads");
        for _ in 0..SAMPLE {
            filter.record_eviction(true);
        }
        assert!(filter.admits(b"b"));
    }
}
