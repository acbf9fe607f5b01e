//! How trouble with one server is taken: how long to pause between attempts, and what of it is worth
//! a line in the log.
//!
//! Connecting and writing the lines is for those who are in trouble: `supervisor`, `subscriber`.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::telemetry::log_throttle::LogThrottle;

const FIRST_DELAY: Duration = Duration::from_millis(10);
/// A connection that breaks sooner is no sign that all is well: pauses go on growing, and the log
/// is spared.
const MIN_STABLE_UPTIME: Duration = Duration::from_secs(1);
/// How often a reason that stays is logged again.
const REMIND: Duration = Duration::from_secs(60);
/// How many reasons are remembered as logged.
const REASONS: usize = 16;

/// What has been in the way so far, until a connection lasts.
#[derive(Debug)]
pub(crate) struct ReconnectBackoff {
    delay: Duration,
    /// Which reasons have been logged, and when.
    logged: Vec<(String, Instant)>,
    breaks: LogThrottle,
}

impl ReconnectBackoff {
    /// None so far.
    pub(crate) fn new() -> Self {
        Self {
            delay: FIRST_DELAY,
            logged: Vec::new(),
            breaks: LogThrottle::default(),
        }
    }

    /// Whether this reason has not been logged for a while; it is taken as logged now.
    pub(crate) fn should_log(&mut self, reason: &str) -> bool {
        self.logged.retain(|(_, at)| at.elapsed() < REMIND);
        if self.logged.iter().any(|(logged, _)| logged == reason) || self.logged.len() == REASONS {
            return false;
        }
        self.logged.push((reason.to_owned(), Instant::now()));
        true
    }

    /// A connection that had lasted so long broke for this reason; answers how many broke since the
    /// last line, if one is due. The reason is taken as logged then: the next connection may break
    /// for it before it counts as one.
    pub(crate) fn broke_after(&mut self, lasted: Duration, reason: &str) -> Option<usize> {
        if lasted >= MIN_STABLE_UPTIME {
            *self = Self::new();
        }
        let breaks = self.breaks.record(1)?;
        self.should_log(reason);
        Some(breaks)
    }

    /// Pauses before the next attempt, longer each time.
    pub(crate) async fn pause(&mut self, longest: Duration) {
        sleep(jittered(self.delay)).await;
        self.delay = (self.delay * 2).min(longest);
    }

    /// Pauses only if the connection that broke had not lasted.
    pub(crate) async fn pause_if_brief(&mut self, lasted: Duration, longest: Duration) {
        if lasted < MIN_STABLE_UPTIME {
            self.pause(longest).await;
        }
    }
}

/// Between half the delay and all of it, so that many links do not come back in step.
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
    async fn reasons_are_logged_when_they_are_new_and_once_a_minute() {
        let mut trouble = ReconnectBackoff::new();
        assert!(trouble.should_log("refused") && trouble.should_log("timed out"));
        assert!(!trouble.should_log("refused") && !trouble.should_log("timed out"));
        sleep(REMIND).await;
        assert!(trouble.should_log("refused"));
        for number in 0..1_000 {
            trouble.should_log(&number.to_string());
        }
        assert!(trouble.logged.len() <= REASONS, "{}", trouble.logged.len());
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_connection_that_lasts_ends_it() {
        let mut trouble = ReconnectBackoff::new();
        assert_eq!(trouble.broke_after(MIN_STABLE_UPTIME, "broke"), Some(1));
        let longest = Duration::from_millis(300);
        for _ in 0..10 {
            assert_eq!(trouble.broke_after(Duration::ZERO, "broke"), None);
            assert!(!trouble.should_log("broke"));
            trouble.pause(longest).await;
        }
        assert_eq!(trouble.delay, longest);
        assert_eq!(trouble.broke_after(MIN_STABLE_UPTIME, "broke"), Some(1));
        assert_eq!(trouble.delay, FIRST_DELAY);
    }
}
