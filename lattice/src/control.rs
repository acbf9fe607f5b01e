//! What an operator does to a lattice by hand: start and stop providers and components, put
//! configuration, put and delete links.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use wasmcloud_control_interface::{Client, CtlResponse, HostInventory, Link};

use crate::secrets;
use crate::wait;

/// How many instances of a component a host may run.
const INSTANCES: u32 = 50;

/// A client of one host's and its lattice's control interface.
pub struct Control {
    client: Client,
    nats: async_nats::Client,
    host: String,
}

/// A link to put. Its interfaces, with their package, are `wasi:keyvalue/store,atomics`.
#[derive(Clone, Debug)]
pub struct LinkSpec<'a> {
    /// The component or provider that calls.
    pub source: &'a str,
    /// The component or provider that is called.
    pub target: &'a str,
    /// The link name.
    pub name: &'a str,
    /// Namespace, package and interfaces.
    pub interfaces: &'a str,
    /// Named configurations for the source.
    pub source_config: &'a [&'a str],
    /// Named configurations and secret references for the target.
    pub target_config: &'a [&'a str],
}

impl Control {
    pub(crate) fn new(client: Client, nats: async_nats::Client, host: String) -> Self {
        Self { client, nats, host }
    }

    /// The id of the host that starts and stops things.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Starts a provider from its archive and waits until it answers health requests.
    pub async fn start_provider(&self, id: &str, archive: &Path, config: &[&str]) -> Result<()> {
        let answer = self
            .client
            .start_provider(&self.host, &file_url(archive)?, id, None, owned(config))
            .await;
        accepted("start provider", answer)?;
        wait::until_true(&format!("provider {id}"), wait::SOON, async || {
            self.is_healthy(id).await
        })
        .await
    }

    /// Whether a provider answers that it is healthy; an error where it does not answer.
    pub async fn is_healthy(&self, provider: &str) -> Result<bool> {
        let subject = format!("wasmbus.rpc.{}.{provider}.health", self.client.lattice());
        let answer = self.nats.request(subject, Vec::new().into()).await?;
        let health: serde_json::Value = serde_json::from_slice(&answer.payload)?;
        Ok(health["healthy"] == true)
    }

    /// Stops a provider and waits until the host no longer lists it.
    pub async fn stop_provider(&self, id: &str) -> Result<()> {
        accepted(
            "stop provider",
            self.client.stop_provider(&self.host, id).await,
        )?;
        wait::until_true(&format!("the end of {id}"), wait::SOON, async || {
            let inventory = self.inventory().await?;
            Ok(inventory.providers().iter().all(|known| known.id() != id))
        })
        .await
    }

    /// Starts a component from its file and waits until the host lists it.
    pub async fn start_component(&self, id: &str, file: &Path) -> Result<()> {
        let file = file_url(file)?;
        let answer = self
            .client
            .scale_component(&self.host, &file, id, INSTANCES, None, Vec::new(), false)
            .await;
        accepted("start component", answer)?;
        wait::until_true(&format!("component {id}"), wait::SOON, async || {
            let inventory = self.inventory().await?;
            Ok(inventory.components().iter().any(|known| known.id() == id))
        })
        .await
    }

    /// Puts a named configuration.
    pub async fn put_config(&self, name: &str, values: &[(&str, &str)]) -> Result<()> {
        let values: HashMap<String, String> = values
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        accepted("put config", self.client.put_config(name, values).await)?;
        Ok(())
    }

    /// What is stored under a configuration name, as text.
    pub async fn config(&self, name: &str) -> Result<String> {
        let answer = self.client.get_config(name).await;
        let values = accepted("get config", answer)?.context("no such configuration")?;
        Ok(serde_json::to_string(&values)?)
    }

    /// Stores a reference to a secret of the backend and returns its name for a link's
    /// configuration. The provider sees the secret as `seen_as`.
    pub async fn put_secret_reference(&self, seen_as: &str, key: &str) -> Result<String> {
        let name = format!("SECRET_{key}");
        let reference = secrets::reference(seen_as, key)?;
        let answer = self.client.put_config(&name, reference).await;
        accepted("put secret reference", answer)?;
        Ok(name)
    }

    /// Puts a link. The provider hears of it a moment later.
    pub async fn put_link(&self, link: &LinkSpec<'_>) -> Result<()> {
        let (namespace, rest) = link
            .interfaces
            .split_once(':')
            .context("interfaces have the form namespace:package/a,b")?;
        let (package, interfaces) = rest
            .split_once('/')
            .context("interfaces have the form namespace:package/a,b")?;
        let link = Link::builder()
            .source_id(link.source)
            .target(link.target)
            .name(link.name)
            .wit_namespace(namespace)
            .wit_package(package)
            .interfaces(interfaces.split(',').map(str::to_owned).collect())
            .source_config(owned(link.source_config))
            .target_config(owned(link.target_config))
            .build()
            .map_err(|error| anyhow!(error))?;
        accepted("put link", self.client.put_link(link).await)?;
        Ok(())
    }

    /// Deletes a link of a component to `wasi:keyvalue`.
    pub async fn delete_keyvalue_link(&self, source: &str, name: &str) -> Result<()> {
        let answer = self
            .client
            .delete_link(source, name, "wasi", "keyvalue")
            .await;
        accepted("delete link", answer)?;
        Ok(())
    }

    async fn inventory(&self) -> Result<HostInventory> {
        let answer = self.client.get_host_inventory(&self.host).await;
        accepted("host inventory", answer)?.context("the host told no inventory")
    }
}

/// The ids of the lattice's hosts.
pub(crate) async fn hosts(client: &Client) -> Result<Vec<String>> {
    let answers = client.get_hosts().await.map_err(|error| anyhow!(error))?;
    Ok(answers
        .into_iter()
        .filter_map(CtlResponse::into_data)
        .map(|host| host.id().to_owned())
        .collect())
}

fn accepted<T, E: Display>(what: &str, answer: Result<CtlResponse<T>, E>) -> Result<Option<T>> {
    let answer = answer.map_err(|error| anyhow!("{what}: {error}"))?;
    ensure!(answer.succeeded(), "{what}: {}", answer.message());
    Ok(answer.into_data())
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn file_url(path: &Path) -> Result<String> {
    let path = path
        .canonicalize()
        .with_context(|| format!("cannot find {}", path.display()))?;
    Ok(format!("file://{}", path.display()))
}
