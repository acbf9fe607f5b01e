//! The host's side of the lattice: who is who, the host data, and the messages that a wasmCloud
//! host sends to a provider that it runs.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::{HeaderMap, Request};
use bytes::Bytes;
use futures_util::StreamExt;
use nkeys::{KeyPair, XKey};
use serde_json::json;
use tokio::time::timeout;
use wasmcloud_provider_sdk::core::logging::Level;
use wasmcloud_provider_sdk::core::secrets::SecretValue;
use wasmcloud_provider_sdk::{HealthCheckResponse, HostData, InterfaceLinkDefinition};

use crate::wait::{eventually, test_timeout};

/// A lattice name that nobody would hard-code.
const LATTICE: &str = "lattice-under-test";

/// One host, and the one provider that it runs.
pub struct Host {
    nats: async_nats::Client,
    nats_url: String,
    host_id: String,
    provider_id: String,
    host_key: XKey,
    provider_key: XKey,
}

/// A link from a component to the provider, as an operator defines it.
#[derive(Clone, Default)]
pub struct Link {
    component: String,
    name: String,
    config: HashMap<String, String>,
    secrets: HashMap<String, SecretValue>,
}

impl Link {
    /// A link of this component and name, without settings.
    pub fn new(component: &str, name: &str) -> Self {
        Self {
            component: component.to_owned(),
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// Adds named configuration.
    pub fn config(mut self, config: &[(&str, &str)]) -> Self {
        self.config.extend(texts(config));
        self
    }

    /// Adds secrets that are text.
    pub fn secrets(mut self, values: &[(&str, &str)]) -> Self {
        self.secrets.extend(secrets(values));
        self
    }

    /// Adds a secret that is bytes.
    pub fn secret_bytes(mut self, name: &str, value: &[u8]) -> Self {
        self.secrets
            .insert(name.to_owned(), SecretValue::Bytes(value.to_vec()));
        self
    }

    /// The component that it comes from.
    pub fn component(&self) -> &str {
        &self.component
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Host {
    /// A host with keys of its own and a provider id that no other test has.
    pub fn new(nats: async_nats::Client, nats_url: String) -> Self {
        Self {
            nats,
            nats_url,
            host_id: KeyPair::new_server().public_key(),
            provider_id: KeyPair::new_service().public_key(),
            host_key: XKey::new(),
            provider_key: XKey::new(),
        }
    }

    /// Another host of the lattice that runs the same provider.
    pub fn second_host(&self) -> Self {
        Self {
            provider_id: self.provider_id.clone(),
            ..Self::new(self.nats.clone(), self.nats_url.clone())
        }
    }

    /// The lattice's name.
    pub fn lattice(&self) -> &'static str {
        LATTICE
    }

    /// The host's id.
    pub fn host_id(&self) -> &str {
        &self.host_id
    }

    /// The provider's id.
    pub fn provider_id(&self) -> &str {
        &self.provider_id
    }

    /// The connection that the host and the clients of a test share.
    pub fn nats(&self) -> &async_nats::Client {
        &self.nats
    }

    /// What the host tells the provider when it starts it.
    pub fn data(&self) -> HostData {
        HostData {
            host_id: self.host_id.clone(),
            lattice_rpc_prefix: LATTICE.to_owned(),
            link_name: "default".to_owned(),
            lattice_rpc_url: self.nats_url.clone(),
            provider_key: self.provider_id.clone(),
            instance_id: "0e6a3b3e-7d3c-4f6e-9d53-6f0c8a3d1a11".to_owned(),
            host_xkey_public_key: self.host_key.public_key(),
            provider_xkey_private_key: self.provider_key.seed().expect("a key with a seed"),
            log_level: Some(Level::Info),
            ..HostData::default()
        }
    }

    /// The link as the host passes it on, its secrets sealed for the provider.
    pub fn definition(&self, link: &Link) -> InterfaceLinkDefinition {
        let sealed = (!link.secrets.is_empty()).then(|| {
            let json = serde_json::to_vec(&link.secrets).expect("secrets can be written as JSON");
            self.host_key
                .seal(&json, &self.provider_key)
                .expect("secrets can be sealed")
        });
        InterfaceLinkDefinition {
            source_id: link.component.clone(),
            target: self.provider_id.clone(),
            name: link.name.clone(),
            wit_namespace: "wasi".to_owned(),
            wit_package: "keyvalue".to_owned(),
            interfaces: ["store", "atomics", "batch"].map(str::to_owned).into(),
            target_config: link.config.clone(),
            target_secrets: sealed,
            ..InterfaceLinkDefinition::default()
        }
    }

    /// The link in the other direction, from the provider to the component, which watches. The
    /// link's settings are those of its source.
    pub fn watch_definition(&self, link: &Link) -> InterfaceLinkDefinition {
        let mut definition = self.definition(link);
        InterfaceLinkDefinition {
            source_id: self.provider_id.clone(),
            target: link.component.clone(),
            interfaces: vec!["watcher".to_owned()],
            source_config: std::mem::take(&mut definition.target_config),
            source_secrets: definition.target_secrets.take(),
            name: link.name.clone(),
            wit_namespace: "wasi".to_owned(),
            wit_package: "keyvalue".to_owned(),
            ..InterfaceLinkDefinition::default()
        }
    }

    /// Puts a link from the provider to the component.
    pub async fn put_watch(&self, link: &Link) {
        self.put_definition(&self.watch_definition(link)).await;
    }

    /// Deletes a link from the provider to the component.
    pub async fn delete_watch(&self, component: &str, name: &str) {
        let bare = self.watch_definition(&Link::new(component, name));
        let payload = serde_json::to_vec(&bare).expect("a link can be written as JSON");
        self.publish(&self.provider_id, "linkdefs.del", payload.clone())
            .await;
        self.publish(component, "linkdefs.del", payload).await;
    }

    /// Puts a link, for the first time or again. Like a real host, it is told nothing in return.
    pub async fn put(&self, link: &Link) {
        self.put_definition(&self.definition(link)).await;
    }

    /// Puts any definition.
    pub async fn put_definition(&self, definition: &InterfaceLinkDefinition) {
        let payload = serde_json::to_vec(definition).expect("a link can be written as JSON");
        self.put_payload(payload).await;
    }

    /// Publishes anything where link definitions are expected.
    pub async fn put_payload(&self, payload: Vec<u8>) {
        let key = self.provider_key.public_key();
        self.publish(&key, "linkdefs.put", payload).await;
    }

    /// Deletes a link. The deletion goes to the provider's processes on all hosts.
    pub async fn delete(&self, component: &str, name: &str) {
        let bare = self.definition(&Link::new(component, name));
        let payload = serde_json::to_vec(&bare).expect("a link can be written as JSON");
        self.publish(component, "linkdefs.del", payload.clone())
            .await;
        self.publish(&self.provider_id, "linkdefs.del", payload)
            .await;
    }

    /// Publishes anything where deletions are expected.
    pub async fn delete_payload(&self, payload: Vec<u8>) {
        self.publish(&self.provider_id, "linkdefs.del", payload)
            .await;
    }

    /// Publishes new provider configuration, all of it.
    pub async fn update_config(&self, config: &[(&str, &str)]) {
        let payload = serde_json::to_vec(&texts(config)).expect("texts can be written as JSON");
        self.update_config_payload(payload).await;
    }

    /// Publishes anything where configuration is expected.
    pub async fn update_config_payload(&self, payload: Vec<u8>) {
        self.publish(&self.provider_id, "config.update", payload)
            .await;
    }

    /// Asks for the provider's health; `None` when there is no answer.
    pub async fn health(&self) -> Option<HealthCheckResponse> {
        // The contract has 100 ms; this is for busy machines, and for the moment in which NATS
        // does not know yet that a process is gone.
        let request = Request::new().timeout(Some(Duration::from_secs(2)));
        let subject = self.subject(&self.provider_id, "health");
        let answer = self.nats.send_request(subject, request).await.ok()?;
        let health = serde_json::from_slice(&answer.payload);
        Some(health.expect("the health answer is what a host understands"))
    }

    /// Waits until the provider answers.
    pub async fn ready(&self) {
        eventually("the provider answers", async || {
            self.health().await.is_some()
        })
        .await;
    }

    /// Waits until this many processes of the provider answer.
    pub async fn ready_processes(&self, count: usize) {
        eventually(&format!("{count} processes answer"), async || {
            let inbox = self.nats.new_inbox();
            let answers = self
                .nats
                .subscribe(inbox.clone())
                .await
                .expect("NATS serves");
            let subject = self.subject(&self.provider_id, "health");
            self.nats
                .publish_with_reply(subject, inbox, Bytes::new())
                .await
                .expect("NATS serves");
            let enough = answers.take(count).count();
            timeout(Duration::from_millis(200), enough).await == Ok(count)
        })
        .await;
    }

    /// Asks the provider to stop, as this host or another, and waits for its answer.
    pub async fn shutdown_as(&self, host_id: &str, limit: Duration) -> Option<Bytes> {
        let request = Request::new()
            .payload(json!({ "host_id": host_id }).to_string().into())
            .timeout(Some(limit))
            .headers(HeaderMap::new());
        let subject = self.subject(&self.provider_id, "default.shutdown");
        let answer = self.nats.send_request(subject, request).await.ok()?;
        answer.status.is_none().then_some(answer.payload)
    }

    /// Asks the provider to stop, and waits for its answer.
    pub async fn shutdown(&self) -> Option<Bytes> {
        self.shutdown_as(&self.host_id, test_timeout()).await
    }

    async fn publish(&self, whom: &str, what: &str, payload: Vec<u8>) {
        let subject = self.subject(whom, what);
        self.nats
            .publish_with_headers(subject, HeaderMap::new(), payload.into())
            .await
            .expect("NATS serves");
        self.nats.flush().await.expect("NATS serves");
    }

    fn subject(&self, whom: &str, what: &str) -> String {
        format!("wasmbus.rpc.{LATTICE}.{whom}.{what}")
    }
}

/// Named texts, as configuration has them.
pub fn texts(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Named texts as secrets.
pub fn secrets(pairs: &[(&str, &str)]) -> HashMap<String, SecretValue> {
    texts(pairs)
        .into_iter()
        .map(|(name, text)| (name, SecretValue::String(text)))
        .collect()
}
