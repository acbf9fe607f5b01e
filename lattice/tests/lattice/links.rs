//! Links: of two components, by two names, deleted and put again, replaced.

use anyhow::{Result, ensure};
use lattice::wait;

use crate::setup::{Counter, in_lattice, start_providers};

#[tokio::test]
async fn two_components_use_one_provider_apart() -> Result<()> {
    in_lattice(false, false, async |lattice| {
        let (control, redis) = (lattice.control(), lattice.redis());
        start_providers(lattice).await?;
        let one = Counter::start(control, "one").await?;
        let two = Counter::start(control, "two").await?;
        one.link_to(control, "default", &redis.url_of_database(1))
            .await?;
        two.link_to(control, "default", &redis.url_of_database(2))
            .await?;
        one.is_ready("default").await?;
        two.is_ready("default").await?;

        one.counts("key=k", 1).await?;
        one.counts("key=k", 2).await?;
        two.counts("key=k", 1).await?;
        ensure!(redis.get(1, "k")? == "2" && redis.get(2, "k")? == "1");

        let clients = redis.clients()?.join("\n");
        for counter in [&one, &two] {
            let name = counter.connection("default");
            ensure!(clients.contains(&name), "no {name} in\n{clients}");
        }
        // One component's link goes, the other's stays.
        one.unlink(control, "default").await?;
        one.fails("default").await?;
        two.counts("key=k", 2).await
    })
    .await
}

#[tokio::test]
async fn a_second_link_name_has_its_own_database() -> Result<()> {
    in_lattice(false, false, async |lattice| {
        let (control, redis) = (lattice.control(), lattice.redis());
        start_providers(lattice).await?;
        let counter = Counter::start(control, "counter").await?;
        counter
            .link_to(control, "default", &redis.url_of_database(3))
            .await?;
        counter
            .link_to(control, "orders", &redis.url_of_database(4))
            .await?;
        counter.is_ready("default").await?;
        counter.is_ready("orders").await?;

        counter.counts("key=k", 1).await?;
        counter.counts("key=k&link=orders&delta=10", 10).await?;
        counter.counts("key=k", 2).await?;
        ensure!(redis.get(3, "k")? == "2" && redis.get(4, "k")? == "10");

        // Deleting one link name leaves the other one.
        counter.unlink(control, "orders").await?;
        counter.fails("orders").await?;
        counter.counts("key=k", 3).await
    })
    .await
}

#[tokio::test]
async fn a_deleted_link_fails_and_put_again_works() -> Result<()> {
    in_lattice(false, false, async |lattice| {
        let (control, redis) = (lattice.control(), lattice.redis());
        start_providers(lattice).await?;
        let counter = Counter::start(control, "counter").await?;
        let database_5 = redis.url_of_database(5);
        counter.link_to(control, "default", &database_5).await?;
        counter.is_ready("default").await?;
        counter.counts("key=k", 1).await?;

        counter.unlink(control, "default").await?;
        counter.fails("default").await?;
        wait::until_true("the connection to close", wait::SOON, async || {
            Ok(redis.clients()?.is_empty())
        })
        .await?;

        counter.link_to(control, "default", &database_5).await?;
        counter.exists_answers("true", "k", "default").await?;
        counter.counts("key=k", 2).await
    })
    .await
}

#[tokio::test]
async fn a_link_put_again_without_deletion_is_replaced() -> Result<()> {
    in_lattice(false, false, async |lattice| {
        let (control, redis) = (lattice.control(), lattice.redis());
        start_providers(lattice).await?;
        let counter = Counter::start(control, "counter").await?;
        counter
            .link_to(control, "default", &redis.url_of_database(6))
            .await?;
        counter.is_ready("default").await?;
        counter.counts("key=k", 1).await?;

        redis.cli(&["-n", "7", "SET", "only-in-7", "x"])?;
        counter
            .link_to(control, "default", &redis.url_of_database(7))
            .await?;
        counter
            .exists_answers("true", "only-in-7", "default")
            .await?;
        counter.counts("key=k", 1).await?;
        wait::until_true("the old connection to close", wait::SOON, async || {
            Ok(redis.clients()?.len() == 1)
        })
        .await
    })
    .await
}
