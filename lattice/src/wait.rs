//! Waiting for a condition with a timeout.

use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::time::{Instant, sleep};

/// The timeout for conditions that are usually met within seconds, such as the start of a server.
pub const TIMEOUT: Duration = Duration::from_secs(30);

const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Calls `probe` until it returns a value. Its errors count as "not yet"; the last one is part of the
/// error after a timeout.
pub async fn until<T>(
    condition: &str,
    timeout: Duration,
    mut probe: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        let reason = match probe().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => anyhow!("not yet"),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            return Err(reason.context(format!("waited {} s for {condition}", timeout.as_secs())));
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// [`until`] for a condition without a value.
pub async fn until_true(
    condition: &str,
    timeout: Duration,
    mut probe: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    until(condition, timeout, async || {
        Ok(probe().await?.then_some(()))
    })
    .await
}
