//! Metrics of reads that are kept in memory, summed up over the links of the process.
//!
//! Counted always, since that costs less than asking whether somebody wants to know; read only
//! when the host has metrics exported.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::telemetry::scope::meter;

static HITS: AtomicU64 = AtomicU64::new(0);
static MISSES: AtomicU64 = AtomicU64::new(0);
static INVALIDATIONS: AtomicU64 = AtomicU64::new(0);
static EVICTIONS: AtomicU64 = AtomicU64::new(0);
static ENTRIES: AtomicI64 = AtomicI64::new(0);
static BYTES: AtomicI64 = AtomicI64::new(0);

/// Has them observed for as long as metrics are exported.
pub(crate) fn observe() {
    let meter = meter();
    for (name, description, unit, count) in [
        (
            "kvredis.cache.hits",
            "Reads that were answered from memory, or together with another read of the key.",
            "{read}",
            &HITS,
        ),
        (
            "kvredis.cache.misses",
            "Reads that Redis was asked for, on links that keep reads in memory.",
            "{read}",
            &MISSES,
        ),
        (
            "kvredis.cache.invalidations",
            "Kept reads that were dropped because the key changed or the connection was lost.",
            "{entry}",
            &INVALIDATIONS,
        ),
        (
            "kvredis.cache.evictions",
            "Kept reads that were dropped to make room.",
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
            "Reads that are kept in memory.",
            "{entry}",
            &ENTRIES,
        ),
        (
            "kvredis.cache.bytes",
            "What the reads kept in memory take: keys, values and their administration.",
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

/// A read was answered from memory.
pub(crate) fn hit() {
    HITS.fetch_add(1, Ordering::Relaxed);
}

/// A read has to ask Redis.
pub(crate) fn missed() {
    MISSES.fetch_add(1, Ordering::Relaxed);
}

/// Kept reads are wrong by now, or may be.
pub(crate) fn invalidated(entries: usize) {
    INVALIDATIONS.fetch_add(entries as u64, Ordering::Relaxed);
}

/// A kept read made room.
pub(crate) fn evicted() {
    EVICTIONS.fetch_add(1, Ordering::Relaxed);
}

/// So many more reads are kept, or fewer.
pub(crate) fn entries(more: i64) {
    ENTRIES.fetch_add(more, Ordering::Relaxed);
}

/// So many more bytes are kept, or fewer.
pub(crate) fn bytes(more: i64) {
    BYTES.fetch_add(more, Ordering::Relaxed);
}
