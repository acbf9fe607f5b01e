//! Operator actions on a lattice: starting and stopping providers and components, storing
//! configuration, putting and deleting links.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use wasmcloud_control_interface::{Client, CtlResponse, HostInventory, Link};

use crate::secrets;
use crate::wait;

/// The maximum number of instances of a component.
const MAX_INSTANCES: u32 = 50;

/// A client of the control interface of one host and its lattice.
pub struct Control {
    client: Client,
    nats: async_nats::Client,
    host: String,
}

/// The definition of a link.
#[derive(Clone, Debug)]
pub struct LinkSpec<'a> {
    /// The id of the calling component or provider.
    pub source: &'a str,
    /// The id of the called component or provider.
    pub target: &'a str,
    pub name: &'a str,
    /// Namespace, package and interfaces, such as `wasi:keyvalue/store,atomics`.
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

    /// The id of the host on which providers and components are started.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Starts a provider from its archive and waits until it is healthy.
    pub async fn start_provider(&self, id: &str, archive: &Path, config: &[&str]) -> Result<()> {
        let response = self
            .client
            .start_provider(
                &self.host,
                &file_url(archive)?,
                id,
                None,
                to_owned_names(config),
            )
            .await;
        into_data("start provider", response)?;
        wait::until_true(
            &format!("provider {id} to start"),
            wait::TIMEOUT,
            async || self.is_healthy(id).await,
        )
        .await
    }

    /// Requests the health of a provider. Fails if the provider does not reply.
    pub async fn is_healthy(&self, provider: &str) -> Result<bool> {
        let subject = format!("wasmbus.rpc.{}.{provider}.health", self.client.lattice());
        let response = self.nats.request(subject, Vec::new().into()).await?;
        let health: serde_json::Value = serde_json::from_slice(&response.payload)?;
        Ok(health["healthy"] == true)
    }

    /// Stops a provider and waits until the host no longer lists it.
    pub async fn stop_provider(&self, id: &str) -> Result<()> {
        into_data(
            "stop provider",
            self.client.stop_provider(&self.host, id).await,
        )?;
        wait::until_true(&format!("{id} to stop"), wait::TIMEOUT, async || {
            let inventory = self.inventory().await?;
            Ok(inventory
                .providers()
                .iter()
                .all(|running| running.id() != id))
        })
        .await
    }

    /// Starts a component from its file and waits until the host lists it.
    pub async fn start_component(&self, id: &str, file: &Path) -> Result<()> {
        let file = file_url(file)?;
        let response = self
            .client
            .scale_component(
                &self.host,
                &file,
                id,
                MAX_INSTANCES,
                None,
                Vec::new(),
                false,
            )
            .await;
        into_data("start component", response)?;
        wait::until_true(
            &format!("component {id} to start"),
            wait::TIMEOUT,
            async || {
                let inventory = self.inventory().await?;
                Ok(inventory
                    .components()
                    .iter()
                    .any(|running| running.id() == id))
            },
        )
        .await
    }

    /// Stores a named configuration.
    pub async fn put_config(&self, name: &str, values: &[(&str, &str)]) -> Result<()> {
        let values: HashMap<String, String> = values
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        into_data("put config", self.client.put_config(name, values).await)?;
        Ok(())
    }

    /// Returns a named configuration as JSON.
    pub async fn config(&self, name: &str) -> Result<String> {
        let response = self.client.get_config(name).await;
        let values = into_data("get config", response)?.context("no such configuration")?;
        Ok(serde_json::to_string(&values)?)
    }

    /// Stores a reference to a secret of the backend and returns its name for a link's
    /// configuration. The provider receives the secret under the name `secret_name`.
    pub async fn put_secret_reference(&self, secret_name: &str, key: &str) -> Result<String> {
        let name = format!("SECRET_{key}");
        let reference = secrets::reference(secret_name, key)?;
        let response = self.client.put_config(&name, reference).await;
        into_data("put secret reference", response)?;
        Ok(name)
    }

    /// Puts a link. The host notifies the provider asynchronously.
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
            .source_config(to_owned_names(link.source_config))
            .target_config(to_owned_names(link.target_config))
            .build()
            .map_err(|error| anyhow!(error))?;
        into_data("put link", self.client.put_link(link).await)?;
        Ok(())
    }

    /// Deletes a link of a component to `wasi:keyvalue`.
    pub async fn delete_keyvalue_link(&self, source: &str, name: &str) -> Result<()> {
        let response = self
            .client
            .delete_link(source, name, "wasi", "keyvalue")
            .await;
        into_data("delete link", response)?;
        Ok(())
    }

    async fn inventory(&self) -> Result<HostInventory> {
        let response = self.client.get_host_inventory(&self.host).await;
        into_data("host inventory", response)?.context("the host returned no inventory")
    }
}

/// Returns the ids of the lattice's hosts.
pub(crate) async fn hosts(client: &Client) -> Result<Vec<String>> {
    let responses = client.get_hosts().await.map_err(|error| anyhow!(error))?;
    Ok(responses
        .into_iter()
        .filter_map(CtlResponse::into_data)
        .map(|host| host.id().to_owned())
        .collect())
}

fn into_data<T, E: Display>(
    action: &str,
    response: Result<CtlResponse<T>, E>,
) -> Result<Option<T>> {
    let response = response.map_err(|error| anyhow!("{action}: {error}"))?;
    ensure!(response.succeeded(), "{action}: {}", response.message());
    Ok(response.into_data())
}

fn to_owned_names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn file_url(path: &Path) -> Result<String> {
    let path = path
        .canonicalize()
        .with_context(|| format!("cannot find {}", path.display()))?;
    Ok(format!("file://{}", path.display()))
}
