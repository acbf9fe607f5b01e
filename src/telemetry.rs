//! What an operator sees: logs, traces and metrics as the host configures them, and a brake for
//! events that come in thousands.
//!
//! Which events are worth a line is for the rooms. The signals are in `calls`, `commands`,
//! `connections`, `cache`, `watching` and `process`, all of them listed in docs/telemetry.md; `logging` and
//! `export` say where they go. Nothing is computed for a signal unless the host has it exported,
//! and no key, no bucket and no value is ever part of one.

pub(crate) mod cache;
pub(crate) mod calls;
pub(crate) mod commands;
pub(crate) mod connections;
pub(crate) mod error_type;
pub(crate) mod export;
pub(crate) mod logging;
pub(crate) mod process;
pub(crate) mod watching;

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use opentelemetry::global;
use opentelemetry::metrics::Meter;
use parking_lot::Mutex;
use wasmcloud_provider_sdk::HostData;

use crate::telemetry::export::Export;

/// How often an event that comes again and again is logged.
const EVERY: Duration = Duration::from_secs(60);

static TRACES: AtomicBool = AtomicBool::new(false);
static METRICS: AtomicBool = AtomicBool::new(false);

/// Does the work with logs, traces and metrics as the host data says; what is buffered is written
/// and exported at the end.
///
/// # Errors
///
/// Those of the work; or logging was set up before, or the host's configuration for it is wrong.
pub(crate) async fn during<T>(
    host_data: &HostData,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let export = Export::start(host_data)?;
    let _log = logging::start(host_data, &export)?;
    TRACES.store(export.tracer().is_some(), Ordering::Relaxed);
    METRICS.store(export.has_metrics(), Ordering::Relaxed);
    if metrics() {
        process::observe();
        cache::observe();
    }
    let outcome = work.await;
    export.finish().await;
    outcome
}

/// Whether the host has traces exported.
fn traces() -> bool {
    TRACES.load(Ordering::Relaxed)
}

/// Whether the host has metrics exported.
fn metrics() -> bool {
    METRICS.load(Ordering::Relaxed)
}

/// What makes the instruments.
fn meter() -> Meter {
    global::meter("kvredis")
}

/// Counts an event and says when a line about it is due: at its first time, then once a minute.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(Mutex<Tally>);

#[derive(Debug, Default)]
struct Tally {
    untold: usize,
    told_at: Option<Instant>,
}

impl LogThrottle {
    /// Adds `times`; answers how often it record since the last line, if one is due now.
    pub(crate) fn record(&self, times: usize) -> Option<usize> {
        if times == 0 {
            return None;
        }
        let mut tally = self.0.lock();
        tally.untold += times;
        if tally.told_at.is_some_and(|at| at.elapsed() < EVERY) {
            return None;
        }
        tally.told_at = Some(Instant::now());
        Some(std::mem::take(&mut tally.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_time_is_told_and_the_next_thousand_are_counted() {
        let events = LogThrottle::default();
        assert_eq!(events.record(0), None);
        assert_eq!(events.record(2), Some(2));
        for _ in 0..1_000 {
            assert_eq!(events.record(1), None);
        }
        let mut tally = events.0.lock();
        tally.told_at = Instant::now().checked_sub(EVERY);
        drop(tally);
        assert_eq!(events.record(1), Some(1_001));
    }
}
