//! Watching: a component receives the key changes that redis-cli makes.

// Guarantees: G10

use anyhow::{Result, ensure};
use lattice::{LinkSpec, wait};

use crate::setup::{Extra, PROVIDER, archive, in_lattice, root};

const WATCHER: &str = "watcher";

#[tokio::test]
async fn component_is_called_when_a_key_changes() -> Result<()> {
    in_lattice(Extra::None, async |lattice| {
        let (control, redis) = (lattice.control(), lattice.redis());
        control.start_provider(PROVIDER, &archive(), &[]).await?;
        let component = root().join("examples/watcher/watcher.wasm");
        control.start_component(WATCHER, &component).await?;
        let url = redis.url();
        control.put_config("store", &[("URL", &url)]).await?;
        control
            .put_link(&LinkSpec {
                source: WATCHER,
                target: PROVIDER,
                name: "default",
                interfaces: "wasi:keyvalue/store,atomics",
                source_config: &[],
                target_config: &["store"],
            })
            .await?;
        let watch = [
            ("URL", url.as_str()),
            ("WATCH", "SET@orders:*,DEL@orders:*"),
            ("WATCH_CONFIGURE_REDIS", "true"),
        ];
        control.put_config("watch", &watch).await?;
        control
            .put_link(&LinkSpec {
                source: PROVIDER,
                target: WATCHER,
                name: "default",
                interfaces: "wasi:keyvalue/watcher",
                source_config: &["watch"],
                target_config: &[],
            })
            .await?;

        // The host puts the links asynchronously; changes before that are not delivered.
        wait::until_true("a set key to be mirrored", wait::TIMEOUT, async || {
            redis.cli(&["SET", "orders:1", "paid"])?;
            Ok(redis.get(0, "mirror:orders:1")? == "paid")
        })
        .await?;
        redis.cli(&["SET", "orders:2", "open"])?;
        redis.cli(&["SET", "other:2", "open"])?;
        wait::until_true(
            "the next set key to be mirrored",
            wait::TIMEOUT,
            async || Ok(redis.get(0, "mirror:orders:2")? == "open"),
        )
        .await?;
        ensure!(redis.cli(&["EXISTS", "mirror:other:2"])? == "0");
        redis.cli(&["DEL", "orders:1"])?;
        wait::until_true("the deletion to be mirrored", wait::TIMEOUT, async || {
            Ok(redis.cli(&["EXISTS", "mirror:orders:1"])? == "0")
        })
        .await?;
        ensure!(redis.get(0, "mirror:changes")?.parse::<u64>()? >= 3);
        Ok(())
    })
    .await
}
