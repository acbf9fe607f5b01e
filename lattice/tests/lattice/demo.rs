//! The manifest of `make demo`, deployed by wadm.

// Guarantees: G10

use anyhow::{Result, ensure};
use lattice::nats::free_port;
use lattice::{Progress, http, manifest};

use crate::setup::{Extra, in_lattice, root};

#[tokio::test]
async fn demo_manifest_deploys_and_counts() -> Result<()> {
    in_lattice(Extra::Wadm, async |lattice| {
        let address = format!("127.0.0.1:{}", free_port()?);
        let manifest = manifest::load(
            &root().join("local.wadm.yaml"),
            &[
                ("127.0.0.1:8000", &address),
                ("redis://127.0.0.1:6379", &lattice.redis().url()),
            ],
        )?;
        lattice.deploy(&manifest, &Progress::start()).await?;

        let url = format!("http://{address}/?key=visits");
        let first = http::get_when_ready(&url).await?;
        ensure!(first == "1", "{first}");
        for count in ["2", "3"] {
            let response = http::get(&url).await?;
            ensure!(response.body == count, "{response:?}");
        }
        let named = http::get(&format!("{url}&bucket=shop")).await?;
        ensure!(named.body == "1", "{named:?}");

        let redis = lattice.redis();
        ensure!(redis.get(0, "visits")? == "3");
        ensure!(redis.get(0, "shop:visits")? == "1");
        Ok(())
    })
    .await
}
