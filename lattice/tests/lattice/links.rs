//! Links of two components and with two names, and links that are deleted, put again and replaced.

use anyhow::{Result, ensure};
use lattice::wait;

use crate::setup::{Counter, Extra, in_lattice, start_providers};

// Guarantees: G12
#[tokio::test]
async fn links_of_two_components_are_isolated() -> Result<()> {
    in_lattice(Extra::None, async |lattice| {
        let (control, redis) = (lattice.control(), lattice.redis());
        start_providers(lattice).await?;
        let one = Counter::start_linked(lattice, "one", 1).await?;
        let two = Counter::start_linked(lattice, "two", 2).await?;

        one.expect_count("key=k", 1).await?;
        one.expect_count("key=k", 2).await?;
        two.expect_count("key=k", 1).await?;
        ensure!(redis.get(1, "k")? == "2" && redis.get(2, "k")? == "1");

        let clients = redis.clients()?.join("\n");
        for counter in [&one, &two] {
            let name = counter.connection_name("default");
            ensure!(clients.contains(&name), "no {name} in\n{clients}");
        }
        // Deleting one component's link does not affect the other's.
        one.unlink(control, "default").await?;
        one.wait_for_failure("default").await?;
        two.expect_count("key=k", 2).await
    })
    .await
}

// Guarantees: G12
#[tokio::test]
async fn link_names_select_separate_databases() -> Result<()> {
    in_lattice(Extra::None, async |lattice| {
        let (control, redis) = (lattice.control(), lattice.redis());
        start_providers(lattice).await?;
        let counter = Counter::start_linked(lattice, "counter", 3).await?;
        counter.link_database(lattice, "orders", 4).await?;
        counter.wait_until_ready("orders").await?;

        counter.expect_count("key=k", 1).await?;
        counter
            .expect_count("key=k&link=orders&delta=10", 10)
            .await?;
        counter.expect_count("key=k", 2).await?;
        ensure!(redis.get(3, "k")? == "2" && redis.get(4, "k")? == "10");

        // Deleting one link does not affect the other.
        counter.unlink(control, "orders").await?;
        counter.wait_for_failure("orders").await?;
        counter.expect_count("key=k", 3).await
    })
    .await
}

// Guarantees: G13
#[tokio::test]
async fn deleted_link_fails_until_it_is_put_again() -> Result<()> {
    in_lattice(Extra::None, async |lattice| {
        let (control, redis) = (lattice.control(), lattice.redis());
        start_providers(lattice).await?;
        let counter = Counter::start_linked(lattice, "counter", 5).await?;
        counter.expect_count("key=k", 1).await?;

        counter.unlink(control, "default").await?;
        counter.wait_for_failure("default").await?;
        wait::until_true("the connection to close", wait::TIMEOUT, async || {
            Ok(redis.clients()?.is_empty())
        })
        .await?;

        counter.link_database(lattice, "default", 5).await?;
        counter.wait_for_exists("true", "k", "default").await?;
        counter.expect_count("key=k", 2).await
    })
    .await
}

// Guarantees: G13
#[tokio::test]
async fn putting_a_link_again_replaces_it() -> Result<()> {
    in_lattice(Extra::None, async |lattice| {
        let redis = lattice.redis();
        start_providers(lattice).await?;
        let counter = Counter::start_linked(lattice, "counter", 6).await?;
        counter.expect_count("key=k", 1).await?;

        redis.cli(&["-n", "7", "SET", "only-in-7", "x"])?;
        counter.link_database(lattice, "default", 7).await?;
        counter
            .wait_for_exists("true", "only-in-7", "default")
            .await?;
        counter.expect_count("key=k", 1).await?;
        wait::until_true("the old connection to close", wait::TIMEOUT, async || {
            Ok(redis.clients()?.len() == 1)
        })
        .await
    })
    .await
}
