//! The host stops the provider, and starts it again.

use anyhow::{Result, ensure};
use lattice::wait;

use crate::setup::{Counter, PROVIDER, archive, in_lattice, start_providers};

#[tokio::test]
async fn a_stopped_provider_leaves_nothing_open_and_starts_again() -> Result<()> {
    in_lattice(false, false, async |lattice| {
        let (control, redis) = (lattice.control(), lattice.redis());
        start_providers(lattice).await?;
        let counter = Counter::start(control, "counter").await?;
        counter
            .link_to(control, "default", &redis.url_of_database(9))
            .await?;
        counter
            .link_to(control, "orders", &redis.url_of_database(10))
            .await?;
        counter.is_ready("default").await?;
        counter.is_ready("orders").await?;
        counter.counts("key=k", 1).await?;
        ensure!(redis.clients()?.len() == 2, "{:?}", redis.clients()?);

        control.stop_provider(PROVIDER).await?;
        // The host kills a provider that does not answer in time; this one answered, after it had
        // closed its connections.
        let open = redis.clients()?;
        ensure!(open.is_empty(), "{open:?}");
        let log = lattice.host_log();
        ensure!(!log.contains("did not gracefully shut down"), "{log}");
        counter.fails("default").await?;

        control.start_provider(PROVIDER, &archive(), &[]).await?;
        counter.exists_answers("true", "k", "default").await?;
        counter.counts("key=k", 2).await?;
        wait::until_true("both connections", wait::SOON, async || {
            Ok(redis.clients()?.len() == 2)
        })
        .await
    })
    .await
}
