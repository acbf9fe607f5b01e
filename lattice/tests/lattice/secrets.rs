//! Links with a `URL` from a real secrets backend.

use anyhow::{Result, ensure};
use lattice::{archive, wait};

use crate::setup::{self, Counter, Extra, PROVIDER, in_lattice, start_providers};

const PASSWORD: &str = "open-sesame-7";

// Guarantees: G18
#[tokio::test]
async fn link_url_is_read_from_the_secrets_backend() -> Result<()> {
    in_lattice(Extra::SecretsBackend, async |lattice| {
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
        counter.wait_until_ready("default").await?;
        counter.expect_count("key=k", 1).await?;
        ensure!(redis.get(8, "k")? == "1");
        let clients = redis.clients()?.join("\n");
        ensure!(clients.contains("user=shop"), "{clients}");

        for name in ["shop", &reference] {
            let stored = control.config(name).await?;
            ensure!(!stored.contains(PASSWORD), "{name}: {stored}");
        }
        ensure!(
            !lattice.host_log().contains(PASSWORD),
            "the password is in the log"
        );
        Ok(())
    })
    .await
}

/// The host omits the link with the denied secret each time that it starts the provider. Restarting for
/// that link again and again would interrupt the other links every five seconds.
// Guarantees: G16
#[tokio::test]
async fn denied_secret_does_not_affect_other_links() -> Result<()> {
    in_lattice(Extra::SecretsBackend, async |lattice| {
        let (control, redis) = (lattice.control(), lattice.redis());
        // Granted to another provider.
        let other_provider = nkeys::KeyPair::new_service().public_key();
        let url = redis.url();
        lattice
            .secrets()?
            .grant("shop_url", &url, &other_provider)
            .await?;

        start_providers(lattice).await?;
        let counter = Counter::start(control, "counter").await?;
        let reference = control.put_secret_reference("URL", "shop_url").await?;
        counter.link(control, "default", &[&reference]).await?;
        counter.wait_for_failure("default").await?;

        let other = Counter::start(control, "other").await?;
        other.link_database(lattice, "default", 9).await?;
        wait::until("calls to fail with the reason", wait::TIMEOUT, async || {
            let response = counter.wait_for_failure("default").await?;
            ensure!(
                response.body.contains("does not pass it on"),
                "{response:?}"
            );
            Ok(Some(()))
        })
        .await?;
        other.wait_until_ready("default").await?;
        other.expect_count("key=k", 1).await?;
        // A regular stop removes the restart history, which is stored for the next start.
        control.stop_provider(PROVIDER).await
    })
    .await
}
