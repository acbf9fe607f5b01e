//! The secrets backend `nats-kv` of a lattice: stores secrets and grants them to providers.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, anyhow};
use nkeys::XKey;
use secrets_nats_kv::{Api, PutSecretRequest, client};

use crate::process::Process;
use crate::wait;

/// The prefix of the NATS subjects of all secrets backends, which the host is configured with.
pub const TOPIC: &str = "wasmcloud.secrets";
pub const NAME: &str = "nats-kv";
/// The environment variable with the seed of the key that encrypts secrets in transit.
pub const TRANSIT_KEY: &str = "TRANSIT_XKEY_SEED";
/// The environment variable with the seed of the key that encrypts secrets at rest.
pub const ENCRYPTION_KEY: &str = "ENCRYPTION_XKEY_SEED";

const BUCKET: &str = "WASMCLOUD_SECRETS";
const HISTORY: usize = 8;

/// A running secrets backend.
pub struct Secrets {
    process: Process,
    transit: XKey,
    client: async_nats::Client,
}

impl Secrets {
    /// Starts the backend with new keys; `command` is the `lattice` subcommand that runs it.
    pub fn start(mut command: Command, client: async_nats::Client, folder: &Path) -> Result<Self> {
        let transit = XKey::new();
        command
            .env(TRANSIT_KEY, seed(&transit)?)
            .env(ENCRYPTION_KEY, seed(&XKey::new())?);
        Ok(Self {
            process: Process::start("secrets", command, folder)?,
            transit,
            client,
        })
    }

    /// Stores a secret and grants it to the provider or component with `public_key`.
    pub async fn grant(&self, key: &str, value: &str, public_key: &str) -> Result<()> {
        wait::until("the secrets backend", wait::TIMEOUT, async || {
            let secret = PutSecretRequest {
                key: key.to_owned(),
                string_secret: Some(value.to_owned()),
                ..PutSecretRequest::default()
            };
            client::put_secret(&self.client, TOPIC, &self.transit, secret).await?;
            let keys = HashSet::from([key.to_owned()]);
            client::add_mapping(&self.client, TOPIC, public_key, keys).await?;
            Ok(Some(()))
        })
        .await
    }

    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// The reference that gives a provider the backend's secret `key` as `name`. It is stored as a named
/// configuration whose name begins with `SECRET_`.
pub fn reference(name: &str, key: &str) -> Result<HashMap<String, String>> {
    wasmcloud_secrets_types::SecretConfig::new(
        name.to_owned(),
        NAME.to_owned(),
        key.to_owned(),
        None,
        None,
        HashMap::new(),
    )
    .try_into()
}

/// The backend, as [`crate::serve::secrets_backend`] runs it.
pub(crate) fn api(transit: XKey, encryption: XKey, client: async_nats::Client) -> Api {
    Api::new(
        transit,
        encryption,
        client,
        TOPIC.to_owned(),
        NAME.to_owned(),
        BUCKET.to_owned(),
        HISTORY,
        "wasmcloud_secrets".to_owned(),
        client::SECRETS_API_VERSION.to_owned(),
    )
}

fn seed(key: &XKey) -> Result<String> {
    key.seed().map_err(|error| anyhow!(error))
}
