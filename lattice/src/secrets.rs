//! The secrets backend `nats-kv` of a lattice: puts secrets into it and grants them to providers.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, anyhow};
use nkeys::XKey;
use secrets_nats_kv::{Api, PutSecretRequest, client};

use crate::process::Process;
use crate::wait;

/// The NATS subjects of all secrets backends begin with this; the host is told so.
pub const TOPIC: &str = "wasmcloud.secrets";
/// The backend's name.
pub const NAME: &str = "nats-kv";
/// The environment variable with the seed that seals secrets on their way to the backend.
pub const TRANSIT_KEY: &str = "TRANSIT_XKEY_SEED";
/// The environment variable with the seed that seals secrets in the backend's store.
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

    /// Puts a secret and lets the owner of `public_key`, a provider or component, read it.
    pub async fn grant(&self, key: &str, value: &str, public_key: &str) -> Result<()> {
        wait::until("the secrets backend", wait::SOON, async || {
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

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// The reference to a secret, stored as a named configuration whose name begins with `SECRET_`:
/// the provider sees the secret `key` of the backend under `name`.
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

/// The backend itself, as its own process runs it.
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
