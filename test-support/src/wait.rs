//! Waiting for a condition. Nothing in these tests sleeps for luck.
//!
//! All test_timeout is in one place: [`test_timeout`] is how long anything may take that is not itself
//! under test. `KVREDIS_TEST_PATIENCE` multiplies it, for slow or busy machines.

use std::env;
use std::fmt::Debug;
use std::time::Duration;

use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(5);

/// How long to wait for what is expected to happen.
pub fn test_timeout() -> Duration {
    let factor = env::var("KVREDIS_TEST_PATIENCE")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1.0);
    PATIENCE.mul_f64(factor)
}

/// Waits until `condition` is true; panics with `what` when it does not become true.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    eventually_some(what, async || condition().await.then_some(())).await;
}

/// Waits until `probe` answers `Some`.
pub async fn eventually_some<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + test_timeout();
    loop {
        if let Some(answer) = probe().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        sleep(PAUSE).await;
    }
}

/// Waits until `probe` answers `expected`; the panic shows what it answered last.
pub async fn eventually_eq<T: PartialEq + Debug>(
    what: &str,
    expected: T,
    mut probe: impl AsyncFnMut() -> T,
) {
    let deadline = Instant::now() + test_timeout();
    loop {
        let answer = probe().await;
        if answer == expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "waited in vain until {what}: expected {expected:?}, last seen {answer:?}"
        );
        sleep(PAUSE).await;
    }
}
