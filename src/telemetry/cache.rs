//! Metrics of the cache, summed over the links of the process.
//!
//! They are always counted, since that costs less than checking whether metrics are exported.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::telemetry::scope::meter;

// Independent counters: relaxed ordering suffices.
static HITS: AtomicU64 = AtomicU64::new(0);
static MISSES: AtomicU64 = AtomicU64::new(0);
static INVALIDATIONS: AtomicU64 = AtomicU64::new(0);
static EVICTIONS: AtomicU64 = AtomicU64::new(0);
static ENTRIES: AtomicI64 = AtomicI64::new(0);
static BYTES: AtomicI64 = AtomicI64::new(0);

/// Creates the instruments, which read the counters at each export.
pub(crate) fn observe() {
    let meter = meter();
    for (name, description, unit, count) in [
        (
            "kvredis.cache.hits",
            "Reads served from the cache, or together with another read of the key.",
            "{read}",
            &HITS,
        ),
        (
            "kvredis.cache.misses",
            "Reads sent to Redis, on links with a cache.",
            "{read}",
            &MISSES,
        ),
        (
            "kvredis.cache.invalidations",
            "Cached reads removed because the key changed or the connection was lost.",
            "{entry}",
            &INVALIDATIONS,
        ),
        (
            "kvredis.cache.evictions",
            "Cached reads evicted because the cache was full.",
            "{entry}",
            &EVICTIONS,
        ),
    ] {
        meter
            .u64_observable_counter(name)
            .with_description(description)
            .with_unit(unit)
            .with_callback(|observer| observer.observe(count.load(Ordering::Relaxed), &[]))
            .build();
    }
    for (name, description, unit, sum) in [
        (
            "kvredis.cache.entries",
            "Cached reads, and those in flight.",
            "{entry}",
            &ENTRIES,
        ),
        (
            "kvredis.cache.bytes",
            "Size of the cached reads: keys, values and overhead.",
            "By",
            &BYTES,
        ),
    ] {
        meter
            .i64_observable_up_down_counter(name)
            .with_description(description)
            .with_unit(unit)
            .with_callback(|observer| observer.observe(sum.load(Ordering::Relaxed), &[]))
            .build();
    }
}

/// Counts a read served from the cache.
pub(crate) fn record_hit() {
    HITS.fetch_add(1, Ordering::Relaxed);
}

/// Counts a read that is sent to Redis.
pub(crate) fn record_miss() {
    MISSES.fetch_add(1, Ordering::Relaxed);
}

/// Counts entries removed because they are, or may be, out of date.
pub(crate) fn record_invalidations(entries: usize) {
    INVALIDATIONS.fetch_add(entries as u64, Ordering::Relaxed);
}

/// Counts an entry that was evicted.
pub(crate) fn record_eviction() {
    EVICTIONS.fetch_add(1, Ordering::Relaxed);
}

/// Adds to the number of entries.
pub(crate) fn add_entries(change: i64) {
    ENTRIES.fetch_add(change, Ordering::Relaxed);
}

/// Adds to the size of the entries.
pub(crate) fn add_bytes(change: i64) {
    BYTES.fetch_add(change, Ordering::Relaxed);
}
