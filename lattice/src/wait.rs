//! Waiting for a condition, with a deadline. Nothing in this package sleeps for luck.

use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::time::{Instant, sleep};

/// How long to wait for things that take a moment: a server that starts, a link that arrives.
pub const SOON: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(50);

/// Asks `probe` until it answers `Some`. An error of the probe means "not yet", and is part of the
/// error when the time is over.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let reason = match probe().await {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => anyhow!("not yet"),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            return Err(reason.context(format!("waited {} s for {what}", limit.as_secs())));
        }
        sleep(PAUSE).await;
    }
}

/// [`until`] for a condition that is only true or false.
pub async fn until_true(
    what: &str,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    until(what, limit, async || Ok(probe().await?.then_some(()))).await
}
