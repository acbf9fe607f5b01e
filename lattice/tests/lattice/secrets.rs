//! A link whose `URL` is a secret of a real secrets backend.

use anyhow::{Result, ensure};
use lattice::{archive, wait};

use crate::setup::{self, Counter, PROVIDER, in_lattice, start_providers};

const PASSWORD: &str = "open-sesame-7";

#[tokio::test]
async fn a_link_takes_its_url_from_the_secrets_backend() -> Result<()> {
    in_lattice(false, true, async |lattice| {
        let (control, redis) = (lattice.control(), lattice.redis());
        let password = format!(">{PASSWORD}");
        redis.cli(&[
            "ACL", "SETUSER", "shop", "on", &password, "~*", "&*", "+@all",
        ])?;
        let server = redis.url().replace("redis://", "");
        let url = format!("redis://shop:{PASSWORD}@{server}/8");
        let provider = archive::public_key(&setup::archive()).await?;
        lattice
            .secrets()?
            .grant("shop_url", &url, &provider)
            .await?;

        start_providers(lattice).await?;
        let counter = Counter::start(control, "counter").await?;
        let reference = control.put_secret_reference("URL", "shop_url").await?;
        control.put_config("shop", &[("SCAN_COUNT", "500")]).await?;
        counter
            .link(control, "default", &["shop", &reference])
            .await?;
        counter.is_ready("default").await?;
        counter.counts("key=k", 1).await?;
        ensure!(redis.get(8, "k")? == "1");
        let clients = redis.clients()?.join("\n");
        ensure!(clients.contains("user=shop"), "{clients}");

        for name in ["shop", &reference] {
            let stored = control.config(name).await?;
            ensure!(!stored.contains(PASSWORD), "{name}: {stored}");
        }
        ensure!(!lattice.host_log().contains(PASSWORD), "it is in the log");
        Ok(())
    })
    .await
}

/// The host leaves such a link out each time it starts the provider, which must not end for it again
/// and again: the other links would be down every five seconds.
#[tokio::test]
async fn a_secret_that_is_not_granted_gives_no_link_and_harms_no_other() -> Result<()> {
    in_lattice(false, true, async |lattice| {
        let (control, redis) = (lattice.control(), lattice.redis());
        // Granted to somebody else.
        let stranger = nkeys::KeyPair::new_service().public_key();
        let url = redis.url();
        lattice
            .secrets()?
            .grant("shop_url", &url, &stranger)
            .await?;

        start_providers(lattice).await?;
        let counter = Counter::start(control, "counter").await?;
        let reference = control.put_secret_reference("URL", "shop_url").await?;
        counter.link(control, "default", &[&reference]).await?;
        counter.fails("default").await?;

        let other = Counter::start(control, "other").await?;
        other
            .link_to(control, "default", &format!("{url}/9"))
            .await?;
        wait::until("the calls to be answered why", wait::SOON, async || {
            let answer = counter.fails("default").await?;
            ensure!(answer.body.contains("does not pass it on"), "{answer:?}");
            Ok(Some(()))
        })
        .await?;
        other.is_ready("default").await?;
        other.counts("key=k", 1).await?;
        // In order, so that it leaves no note for its next start.
        control.stop_provider(PROVIDER).await
    })
    .await
}
