//! Stopping and restarting the provider through the host.

// Guarantees: G15

use anyhow::{Result, ensure};
use lattice::wait;

use crate::setup::{Counter, Extra, PROVIDER, archive, in_lattice, start_providers};

#[tokio::test]
async fn stopped_provider_closes_its_connections_and_restarts() -> Result<()> {
    in_lattice(Extra::None, async |lattice| {
        let (control, redis) = (lattice.control(), lattice.redis());
        start_providers(lattice).await?;
        let counter = Counter::start_linked(lattice, "counter", 9).await?;
        counter.link_database(lattice, "orders", 10).await?;
        counter.wait_until_ready("orders").await?;
        counter.expect_count("key=k", 1).await?;
        ensure!(redis.clients()?.len() == 2, "{:?}", redis.clients()?);

        control.stop_provider(PROVIDER).await?;
        // The provider replies to the shutdown request after closing its connections. The host kills and
        // logs a provider that does not reply in time.
        let open = redis.clients()?;
        ensure!(open.is_empty(), "{open:?}");
        let log = lattice.host_log();
        ensure!(!log.contains("did not gracefully shut down"), "{log}");
        counter.wait_for_failure("default").await?;

        control.start_provider(PROVIDER, &archive(), &[]).await?;
        counter.wait_for_exists("true", "k", "default").await?;
        counter.expect_count("key=k", 2).await?;
        wait::until_true("both connections", wait::TIMEOUT, async || {
            Ok(redis.clients()?.len() == 2)
        })
        .await
    })
    .await
}
