//! Waiting for a condition; tests never sleep for a fixed time instead.
//!
//! [`test_timeout`] limits everything whose duration is not itself under test.
//! `KVREDIS_TEST_TIMEOUT_FACTOR` multiplies it, for slow or busy machines.

use std::env;
use std::fmt::Debug;
use std::time::Duration;

use tokio::time::{Instant, sleep};

const TEST_TIMEOUT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The time limit for an expected event.
pub fn test_timeout() -> Duration {
    let factor = env::var("KVREDIS_TEST_TIMEOUT_FACTOR")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1.0);
    TEST_TIMEOUT.mul_f64(factor)
}

/// Waits until `condition` is true; panics with the description `what` after [`test_timeout`].
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    eventually_some(what, async || condition().await.then_some(())).await;
}

/// Waits until `probe` returns `Some`.
pub async fn eventually_some<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + test_timeout();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        sleep(POLL_INTERVAL).await;
    }
}

/// Waits until `probe` returns `expected`; the panic shows the last value.
pub async fn eventually_eq<T: PartialEq + Debug>(
    what: &str,
    expected: T,
    mut probe: impl AsyncFnMut() -> T,
) {
    let deadline = Instant::now() + test_timeout();
    loop {
        let value = probe().await;
        if value == expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "timed out waiting until {what}: expected {expected:?}, last value {value:?}"
        );
        sleep(POLL_INTERVAL).await;
    }
}
