//! The lifecycle of the provider as the host controls it: start, links, configuration, health,
//! shutdown.
//!
//! The SDK's own loop (`handle_provider_commands` in `provider.rs` of wasmcloud-provider-sdk 0.17) is
//! not used: it ignores a link that is put again, stores one link per component, and handles health
//! checks one after another with links, so that a slow handler delays them. This loop handles each
//! message without waiting.

pub(crate) mod host_data;
pub(crate) mod host_messages;
pub(crate) mod missed_links;
pub(crate) mod nats;
pub(crate) mod nats_url;
pub(crate) mod signals;

use std::env;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::{Client, Message};
use bytes::Bytes;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use wasmcloud_provider_sdk::{
    DEFAULT_RPC_TIMEOUT_MILLIS, HealthCheckResponse, HostData, InterfaceLinkDefinition,
};

use crate::link::registry::{LinkDefinition, LinkDirection, ProviderLayers, WarningLog};
use crate::link::table::Links;
use crate::provider::host_data::SecretDecryptor;
use crate::provider::host_messages::{HostMessage, HostMessages};
use crate::provider::missed_links::{LinkId, MissedLinkDetector, RestartHistory, WATCHER};
use crate::provider::nats::Nats;
use crate::provider::signals::Signals;
use crate::settings::origin::Origin;
use crate::settings::provider_settings::ProviderSettings;
use crate::settings::source::{Layer, Sources};
use crate::tasks::{self, TaskFailure};
use crate::telemetry::log_throttle::LogThrottle;
use crate::watcher::Watchers;
use crate::wrpc::client::ComponentClient;
use crate::wrpc::server::Server;

/// The part of the host's time limit that is reserved for the transport of the result.
const REPLY_MARGIN: Duration = Duration::from_millis(200);
/// A link without a connection to Redis makes the provider unhealthy after this time.
const TOLERATED_OUTAGE: Duration = Duration::from_secs(10);
/// Limits the wait for the last messages, which without a connection to NATS would not end.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// A provider that a host has started.
struct Provider {
    id: String,
    links: Arc<Links>,
    watchers: Watchers,
    decryptor: SecretDecryptor,
    restart_history: RestartHistory,
    unhealthy: LogThrottle,
}

enum StopReason {
    /// A request of the host, which expects a reply.
    Host(Message),
    Signal,
    /// Only a restart brings the task back.
    TaskFailure(TaskFailure),
    /// Only a restart can deliver this link.
    MissedLink(LinkId),
}

/// Runs until the host or a signal stops the provider.
///
/// # Errors
///
/// The host data is malformed, NATS is unreachable, or a restart is required.
pub(crate) async fn run(host_data: &HostData) -> anyhow::Result<()> {
    let decryptor =
        SecretDecryptor::new(host_data).context("the keys in the host data are malformed")?;
    let connection = Nats::connect(host_data)
        .await
        .context("failed to connect to the NATS of the lattice")?;
    let nats = &connection.client;
    let signals = Signals::subscribe()?;
    let mut messages = HostMessages::subscribe(nats, host_data, decryptor.public_key())
        .await
        .context("failed to subscribe to the host's messages")?;
    let layers = ProviderLayers {
        secrets: Layer::secrets(Origin::ProviderSecrets, &host_data.secrets),
        config: Layer::config(Origin::ProviderConfig, &host_data.config),
    };
    let warnings = Arc::<WarningLog>::default();
    let settings = provider_settings(&warnings, layers.clone());
    let provider = Provider::start(nats, host_data, layers, warnings, decryptor).await?;
    let server = Server::start(
        nats.clone(),
        (&host_data.lattice_rpc_prefix, &provider.id),
        Arc::clone(&provider.links),
        &settings,
        call_timeout(host_data.default_rpc_timeout_ms),
    )
    .await
    .context("failed to subscribe to calls")?;
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let serving = tasks::spawn_until(stop.clone(), "serving of calls", async move {
        server.run(stopping.cancelled()).await;
    });
    info!(
        provider = provider.id,
        lattice = host_data.lattice_rpc_prefix,
        version = env!("CARGO_PKG_VERSION"),
        "kvredis is serving"
    );

    let detector = MissedLinkDetector {
        nats: nats.clone(),
        lattice: &host_data.lattice_rpc_prefix,
        provider: &provider.id,
        connected: connection.connected.clone(),
        history: &provider.restart_history,
    };
    let reason = tokio::select! {
        reason = provider.handle_messages(nats, &mut messages, &signals) => reason,
        failure = tasks::first_failure() => StopReason::TaskFailure(failure),
        link = detector.next(&provider.links, &provider.watchers) => StopReason::MissedLink(link),
        // No result can be published any more: waiting for the calls is useless.
        () = connection.stuck() => bail!(
            "a reconnection to NATS does not complete: exiting, so that the host restarts kvredis"
        ),
    };
    stop.cancel();
    provider.watchers.stop().await;
    serving.await.context("serving calls failed")?;
    provider.links.clear();
    match reason {
        StopReason::Signal => {}
        StopReason::Host(request) => reply(nats, &request, "shutting down".into()).await,
        StopReason::TaskFailure(failure) => {
            bail!("{failure}, a fault of kvredis: exiting, so that the host restarts it")
        }
        StopReason::MissedLink(LinkId {
            component, name, ..
        }) => bail!(
            "the message about the link {name:?} of component {component:?} was lost: exiting, so \
             that the host restarts kvredis with all links"
        ),
    }
    provider.restart_history.clear();
    // Without a connection to NATS the host does not receive the reply.
    let _ = timeout(FLUSH_TIMEOUT, nats.flush()).await;
    info!(provider = provider.id, "kvredis has stopped");
    Ok(())
}

impl Provider {
    /// Starts with the links of the host data.
    async fn start(
        nats: &Client,
        host_data: &HostData,
        layers: ProviderLayers,
        warnings: Arc<WarningLog>,
        decryptor: SecretDecryptor,
    ) -> anyhow::Result<Self> {
        let id = &host_data.provider_key;
        let client = ComponentClient::start(nats, &host_data.lattice_rpc_prefix, id)
            .await
            .context("failed to subscribe to the replies of components")?;
        let provider = Self {
            id: id.clone(),
            links: Arc::new(Links::new(layers.clone(), Arc::clone(&warnings))),
            watchers: Watchers::new(layers, warnings, client),
            decryptor,
            restart_history: RestartHistory::new(&env::temp_dir(), host_data),
            unhealthy: LogThrottle::default(),
        };
        for link in &host_data.link_definitions {
            provider.put(link);
        }
        Ok(provider)
    }

    /// Handles the host's messages until the host or a signal stops the provider.
    async fn handle_messages(
        &self,
        nats: &Client,
        messages: &mut HostMessages,
        signals: &Signals,
    ) -> StopReason {
        loop {
            let message = tokio::select! {
                message = messages.next() => message,
                () = signals.first() => return StopReason::Signal,
            };
            match message {
                HostMessage::Shutdown(request) => return StopReason::Host(request),
                HostMessage::Health(request) => self.report_health(nats, &request).await,
                HostMessage::LinkPut(link) => self.put(&link),
                HostMessage::LinkDeleted(link) => self.delete(&link),
                HostMessage::Config(config) => {
                    info!("the provider's configuration has changed");
                    let config = Layer::config(Origin::ProviderConfig, &config);
                    self.links.reconfigure(config.clone());
                    self.watchers.reconfigure(config);
                }
            }
        }
    }

    fn put(&self, link: &InterfaceLinkDefinition) {
        // The provider is the source of a link to a component.
        let (direction, component, config, encrypted) = if link.target == self.id {
            let direction = LinkDirection::FromComponent;
            let (config, encrypted) = (&link.target_config, &link.target_secrets);
            (direction, &link.source_id, config, encrypted)
        } else if link.interfaces.iter().any(|name| name == WATCHER) {
            let direction = LinkDirection::ToComponent;
            let (config, encrypted) = (&link.source_config, &link.source_secrets);
            (direction, &link.target, config, encrypted)
        } else {
            warn!(
                component = link.target,
                link = link.name,
                interface = WATCHER,
                "a link from this provider to a component is ignored: it lacks the interface"
            );
            return;
        };
        self.restart_history
            .remove(&LinkId::new(direction, component, &link.name));
        let secrets = match self.decryptor.decrypt(encrypted.as_deref()) {
            Ok(secrets) => secrets,
            Err(error) => {
                error!(
                    component,
                    link = link.name,
                    reason = %error,
                    "the link's secrets cannot be decrypted"
                );
                let message = format!("the secrets of the link cannot be decrypted: {error}");
                match direction {
                    LinkDirection::FromComponent => {
                        self.links.insert_invalid(component, &link.name, message);
                    }
                    LinkDirection::ToComponent => {
                        self.watchers
                            .insert_invalid(component, &link.name, error.to_string());
                    }
                }
                return;
            }
        };
        let definition = LinkDefinition {
            component: component.clone(),
            name: link.name.clone(),
            secrets: Layer::secrets(Origin::LinkSecrets, &secrets),
            config: Layer::config(Origin::LinkConfig, config),
        };
        match direction {
            LinkDirection::FromComponent => self.links.put(definition),
            LinkDirection::ToComponent => self.watchers.put(definition),
        }
    }

    fn delete(&self, link: &InterfaceLinkDefinition) {
        if link.target == self.id {
            self.links.delete(&link.source_id, &link.name);
        } else if link.source_id == self.id {
            self.watchers.delete(&link.target, &link.name);
        }
    }

    async fn report_health(&self, nats: &Client, request: &Message) {
        let mut issues = self.links.outages(TOLERATED_OUTAGE);
        issues.extend(self.watchers.health_issues(TOLERATED_OUTAGE));
        // Hosts discard the message of the response, so that the log has to contain it.
        if self.unhealthy.record(issues.len()).is_some() {
            error!(reason = %issues.join("; "), "unhealthy");
        }
        let health = HealthCheckResponse {
            healthy: issues.is_empty(),
            message: (!issues.is_empty()).then(|| issues.join("; ")),
        };
        match serde_json::to_vec(&health) {
            Ok(health) => reply(nats, request, health.into()).await,
            Err(error) => error!(reason = %error, "failed to encode the health"),
        }
    }
}

async fn reply(nats: &Client, request: &Message, payload: Bytes) {
    let Some(subject) = request.reply.clone() else {
        return;
    };
    if let Err(error) = nats.publish(subject, payload).await {
        warn!(reason = %error, "failed to reply to the host");
    }
}

/// The settings of the process; defaults where one is invalid, which is logged.
fn provider_settings(warnings: &WarningLog, provider: ProviderLayers) -> ProviderSettings {
    let outcome = ProviderSettings::parse(&Sources::new(
        Layer::empty(Origin::LinkSecrets),
        Layer::empty(Origin::LinkConfig),
        provider.secrets,
        provider.config,
    ));
    warnings.once(outcome.warnings.into_iter().map(|warning| warning.message));
    outcome.settings.unwrap_or_else(|error| {
        error!(reason = %error, "invalid setting of the provider: the default is used");
        ProviderSettings::default()
    })
}

/// The time limit of a call: its result has to arrive before the host's own limit.
fn call_timeout(rpc_timeout_ms: Option<u64>) -> Duration {
    let timeout = rpc_timeout_ms.map_or(DEFAULT_RPC_TIMEOUT_MILLIS, Duration::from_millis);
    timeout.saturating_sub(REPLY_MARGIN).max(timeout / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_end_before_the_hosts_time_limit() {
        assert_eq!(call_timeout(None), Duration::from_millis(1_800));
        assert_eq!(call_timeout(Some(10_000)), Duration::from_millis(9_800));
        assert_eq!(call_timeout(Some(300)), Duration::from_millis(150));
    }
}
