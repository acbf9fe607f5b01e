//! The wasmCloud host: its keys, the host data, and the messages that it sends to the provider that it
//! runs.

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

/// A lattice name that differs from the default one.
const LATTICE: &str = "lattice-under-test";

/// A host and the provider that it runs.
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
        self.config.extend(owned_config(config));
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

    /// The component that the link comes from.
    pub fn component(&self) -> &str {
        &self.component
    }

    /// The name of the link.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Host {
    /// A host with its own keys and a unique provider id.
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

    /// A second host of the lattice that runs the same provider.
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

    /// The host data for starting the provider.
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

    /// The link as the host sends it, with its secrets encrypted for the provider.
    pub fn definition(&self, link: &Link) -> InterfaceLinkDefinition {
        let sealed = (!link.secrets.is_empty()).then(|| {
            let json = serde_json::to_vec(&link.secrets).expect("secrets serialize to JSON");
            self.host_key
                .seal(&json, &self.provider_key)
                .expect("secrets can be encrypted")
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

    /// The link in the other direction, from the provider to the component that watches. Its settings
    /// are those of the source.
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
        let payload = serde_json::to_vec(&bare).expect("a link serializes to JSON");
        self.publish(&self.provider_id, "linkdefs.del", payload.clone())
            .await;
        self.publish(component, "linkdefs.del", payload).await;
    }

    /// Puts a link, new or changed. Like a real host, it receives no confirmation.
    pub async fn put(&self, link: &Link) {
        self.put_definition(&self.definition(link)).await;
    }

    /// Puts a link definition.
    pub async fn put_definition(&self, definition: &InterfaceLinkDefinition) {
        let payload = serde_json::to_vec(definition).expect("a link serializes to JSON");
        self.put_payload(payload).await;
    }

    /// Publishes arbitrary bytes as a link definition.
    pub async fn put_payload(&self, payload: Vec<u8>) {
        let key = self.provider_key.public_key();
        self.publish(&key, "linkdefs.put", payload).await;
    }

    /// Deletes a link. The deletion reaches the provider's processes on all hosts.
    pub async fn delete(&self, component: &str, name: &str) {
        let bare = self.definition(&Link::new(component, name));
        let payload = serde_json::to_vec(&bare).expect("a link serializes to JSON");
        self.publish(component, "linkdefs.del", payload.clone())
            .await;
        self.publish(&self.provider_id, "linkdefs.del", payload)
            .await;
    }

    /// Publishes arbitrary bytes as a link deletion.
    pub async fn delete_payload(&self, payload: Vec<u8>) {
        self.publish(&self.provider_id, "linkdefs.del", payload)
            .await;
    }

    /// Publishes new provider configuration, complete.
    pub async fn update_config(&self, config: &[(&str, &str)]) {
        let payload =
            serde_json::to_vec(&owned_config(config)).expect("configuration serializes to JSON");
        self.update_config_payload(payload).await;
    }

    /// Publishes arbitrary bytes as provider configuration.
    pub async fn update_config_payload(&self, payload: Vec<u8>) {
        self.publish(&self.provider_id, "config.update", payload)
            .await;
    }

    /// Requests the provider's health; `None` when no reply arrives.
    pub async fn health(&self) -> Option<HealthCheckResponse> {
        // A host allows 100 ms. The longer time allows for busy machines, and for the moment before
        // NATS notices that a process is gone.
        let request = Request::new().timeout(Some(Duration::from_secs(2)));
        let subject = self.subject(&self.provider_id, "health");
        let reply = self.nats.send_request(subject, request).await.ok()?;
        let health = serde_json::from_slice(&reply.payload);
        Some(health.expect("the health reply deserializes as a host expects"))
    }

    /// Waits until the provider replies to health checks.
    pub async fn ready(&self) {
        eventually("the provider replies to a health check", async || {
            self.health().await.is_some()
        })
        .await;
    }

    /// Waits until this many processes of the provider reply to health checks.
    pub async fn ready_processes(&self, count: usize) {
        eventually(
            &format!("{count} processes reply to a health check"),
            async || {
                let inbox = self.nats.new_inbox();
                let replies = self
                    .nats
                    .subscribe(inbox.clone())
                    .await
                    .expect("the NATS connection works");
                let subject = self.subject(&self.provider_id, "health");
                self.nats
                    .publish_with_reply(subject, inbox, Bytes::new())
                    .await
                    .expect("the NATS connection works");
                let enough = replies.take(count).count();
                timeout(Duration::from_millis(200), enough).await == Ok(count)
            },
        )
        .await;
    }

    /// Requests the provider's shutdown with the id of this host or another, and waits for the reply.
    pub async fn shutdown_as(&self, host_id: &str, limit: Duration) -> Option<Bytes> {
        let request = Request::new()
            .payload(json!({ "host_id": host_id }).to_string().into())
            .timeout(Some(limit))
            .headers(HeaderMap::new());
        let subject = self.subject(&self.provider_id, "default.shutdown");
        let reply = self.nats.send_request(subject, request).await.ok()?;
        reply.status.is_none().then_some(reply.payload)
    }

    /// Requests the provider's shutdown, and waits for the reply.
    pub async fn shutdown(&self) -> Option<Bytes> {
        self.shutdown_as(&self.host_id, test_timeout()).await
    }

    async fn publish(&self, recipient: &str, operation: &str, payload: Vec<u8>) {
        let subject = self.subject(recipient, operation);
        self.nats
            .publish_with_headers(subject, HeaderMap::new(), payload.into())
            .await
            .expect("the NATS connection works");
        self.nats.flush().await.expect("the NATS connection works");
    }

    fn subject(&self, recipient: &str, operation: &str) -> String {
        format!("wasmbus.rpc.{LATTICE}.{recipient}.{operation}")
    }
}

/// Owned configuration values.
pub fn owned_config(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Configuration values as secrets.
pub fn secrets(pairs: &[(&str, &str)]) -> HashMap<String, SecretValue> {
    owned_config(pairs)
        .into_iter()
        .map(|(name, text)| (name, SecretValue::String(text)))
        .collect()
}
