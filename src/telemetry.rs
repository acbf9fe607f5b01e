//! What an operator sees: logging as the host configures it, and a brake for events that come in
//! thousands.
//!
//! The SDK sets up logs, traces and their export; which events are worth a line is for the rooms.
//! Traces and metrics of calls are in `signals`, those of calls to components in `deliveries`.

pub mod cache;
pub mod deliveries;
pub mod signals;

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use wasmcloud_provider_sdk::HostData;
use wasmcloud_provider_sdk::initialize_observability;
use wasmcloud_provider_sdk::provider::initialize_host_data;

/// How often an event that comes again and again is logged.
const EVERY: Duration = Duration::from_secs(60);

/// Does the work with logging and tracing as the host data says; what is buffered is written at
/// the end.
///
/// # Errors
///
/// Those of the work; or logging was set up before, or the host's configuration for it is wrong.
pub async fn during<T>(
    host_data: &HostData,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    // The SDK's macro reads the host data from where the SDK keeps it.
    initialize_host_data(host_data.clone()).context("failed to keep the host data")?;
    let flamegraph = host_data
        .config
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("FLAMEGRAPH_PATH"))
        .map(|(_, path)| path.clone());
    initialize_observability!("kvredis", flamegraph);
    signals::enable(&host_data.otel_config);
    work.await
}

/// Counts an event and says when a line about it is due: at its first time, then once a minute.
#[derive(Debug, Default)]
pub struct Occasionally(Mutex<Tally>);

#[derive(Debug, Default)]
struct Tally {
    untold: usize,
    told_at: Option<Instant>,
}

impl Occasionally {
    /// Adds `times`; answers how often it happened since the last line, if one is due now.
    pub fn happened(&self, times: usize) -> Option<usize> {
        if times == 0 {
            return None;
        }
        let mut tally = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        let events = Occasionally::default();
        assert_eq!(events.happened(0), None);
        assert_eq!(events.happened(2), Some(2));
        for _ in 0..1_000 {
            assert_eq!(events.happened(1), None);
        }
        let mut tally = events.0.lock().unwrap();
        tally.told_at = Instant::now().checked_sub(EVERY);
        drop(tally);
        assert_eq!(events.happened(1), Some(1_001));
    }
}
