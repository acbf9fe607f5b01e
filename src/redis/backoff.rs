//! Backoff between attempts to connect to one server, and the selection of reasons to log.
//!
//! The loops that connect are in `supervisor` and `pubsub::node_subscription`.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::telemetry::log_throttle::LogThrottle;

const FIRST_DELAY: Duration = Duration::from_millis(10);
/// A connection that breaks sooner does not end the backoff: pauses continue to grow, and further
/// breaks are not logged.
const MIN_STABLE_UPTIME: Duration = Duration::from_secs(1);
/// The time until the same reason is logged again.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// The number of reasons that are remembered as logged.
const MAX_REASONS: usize = 16;

/// The backoff, until a connection proves stable.
#[derive(Debug)]
pub(crate) struct ReconnectBackoff {
    delay: Duration,
    /// The reasons that have been logged, with the time of the last log line.
    logged: Vec<(String, Instant)>,
    breaks: LogThrottle,
}

impl ReconnectBackoff {
    pub(crate) fn new() -> Self {
        Self {
            delay: FIRST_DELAY,
            logged: Vec::new(),
            breaks: LogThrottle::default(),
        }
    }

    /// Returns true if this reason has not been logged within the interval, and records it as logged.
    pub(crate) fn should_log(&mut self, reason: &str) -> bool {
        self.logged.retain(|(_, at)| at.elapsed() < LOG_INTERVAL);
        if self.logged.iter().any(|(logged, _)| logged == reason)
            || self.logged.len() == MAX_REASONS
        {
            return false;
        }
        self.logged.push((reason.to_owned(), Instant::now()));
        true
    }

    /// Records the end of a connection. Returns the number of breaks since the last log line, if
    /// another line is due; then the reason is recorded as logged, because the next attempt may
    /// fail for the same reason.
    pub(crate) fn disconnected_after(&mut self, uptime: Duration, reason: &str) -> Option<usize> {
        if uptime >= MIN_STABLE_UPTIME {
            *self = Self::new();
        }
        let breaks = self.breaks.record(1)?;
        self.should_log(reason);
        Some(breaks)
    }

    /// Pauses before the next attempt, longer each time.
    pub(crate) async fn pause(&mut self, max_delay: Duration) {
        sleep(jittered(self.delay)).await;
        self.delay = (self.delay * 2).min(max_delay);
    }

    /// Pauses if the connection was not stable.
    pub(crate) async fn pause_if_brief(&mut self, uptime: Duration, max_delay: Duration) {
        if uptime < MIN_STABLE_UPTIME {
            self.pause(max_delay).await;
        }
    }
}

/// Between half the delay and all of it, so that many links do not reconnect at the same time.
pub(crate) fn jittered(delay: Duration) -> Duration {
    delay.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_jittered_within_bounds() {
        for _ in 0..1_000 {
            let delay = jittered(Duration::from_millis(100));
            assert!((50..=100).contains(&delay.as_millis()), "{delay:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn new_reasons_are_logged_and_repeated_once_a_minute() {
        let mut backoff = ReconnectBackoff::new();
        assert!(backoff.should_log("refused") && backoff.should_log("timed out"));
        assert!(!backoff.should_log("refused") && !backoff.should_log("timed out"));
        sleep(LOG_INTERVAL).await;
        assert!(backoff.should_log("refused"));
        for number in 0..1_000 {
            backoff.should_log(&number.to_string());
        }
        assert!(
            backoff.logged.len() <= MAX_REASONS,
            "{}",
            backoff.logged.len()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_stable_connection_resets_the_backoff() {
        let mut backoff = ReconnectBackoff::new();
        assert_eq!(
            backoff.disconnected_after(MIN_STABLE_UPTIME, "broke"),
            Some(1)
        );
        let max_delay = Duration::from_millis(300);
        for _ in 0..10 {
            assert_eq!(backoff.disconnected_after(Duration::ZERO, "broke"), None);
            assert!(!backoff.should_log("broke"));
            backoff.pause(max_delay).await;
        }
        assert_eq!(backoff.delay, max_delay);
        assert_eq!(
            backoff.disconnected_after(MIN_STABLE_UPTIME, "broke"),
            Some(1)
        );
        assert_eq!(backoff.delay, FIRST_DELAY);
    }
}
