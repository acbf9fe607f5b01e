//! A rate limiter for repeated log events.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The least time between two log lines about the same event.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Counts an event, and returns the count when a log line is due: at the first occurrence, then once a
/// minute at most.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(Mutex<Occurrences>);

#[derive(Debug, Default)]
struct Occurrences {
    unlogged: usize,
    last_logged: Option<Instant>,
}

impl LogThrottle {
    /// Adds `times` occurrences. Returns the number of occurrences since the last log line if another
    /// line is due.
    pub(crate) fn record(&self, times: usize) -> Option<usize> {
        if times == 0 {
            return None;
        }
        let mut occurrences = self.0.lock();
        occurrences.unlogged += times;
        let last_logged = occurrences.last_logged;
        if last_logged.is_some_and(|at| at.elapsed() < LOG_INTERVAL) {
            return None;
        }
        occurrences.last_logged = Some(Instant::now());
        Some(std::mem::take(&mut occurrences.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_occurrence_is_logged_and_later_ones_are_counted_until_a_minute_has_passed() {
        let events = LogThrottle::default();
        assert_eq!(events.record(0), None);
        assert_eq!(events.record(2), Some(2));
        for _ in 0..1_000 {
            assert_eq!(events.record(1), None);
        }
        events.0.lock().last_logged = Instant::now().checked_sub(LOG_INTERVAL);
        assert_eq!(events.record(1), Some(1_001));
    }
}
