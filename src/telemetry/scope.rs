//! The instrumentation scope of kvredis: the signals that the host exports, and the meter that
//! creates the instruments.

use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::global;
use opentelemetry::metrics::Meter;

// Both are written once, before any call is served, and guard no other data: relaxed ordering suffices.
static EXPORTS_TRACES: AtomicBool = AtomicBool::new(false);
static EXPORTS_METRICS: AtomicBool = AtomicBool::new(false);

/// Sets which signals are exported by this process.
pub(crate) fn set_exported(traces: bool, metrics: bool) {
    EXPORTS_TRACES.store(traces, Ordering::Relaxed);
    EXPORTS_METRICS.store(metrics, Ordering::Relaxed);
}

/// Returns true if the host has traces exported.
pub(crate) fn exports_traces() -> bool {
    EXPORTS_TRACES.load(Ordering::Relaxed)
}

/// Returns true if the host has metrics exported.
pub(crate) fn exports_metrics() -> bool {
    EXPORTS_METRICS.load(Ordering::Relaxed)
}

/// The meter of the global provider, which discards measurements unless metrics are exported.
pub(crate) fn meter() -> Meter {
    global::meter("kvredis")
}
