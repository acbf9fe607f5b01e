//! The host's lifecycle of a provider: start, links, configuration, health, shutdown.
//!
//! The SDK's own loop ignores a link that is put twice, confuses the links of one component, and
//! lets a slow handler hold up health; this one does nothing that waits. What the host's messages
//! are is in `messages`; what a link is, `links` and `watcher` know; calls are taken by `serve`.

pub(crate) mod host_data;
pub(crate) mod host_messages;
pub(crate) mod missed_links;
pub(crate) mod nats;
pub(crate) mod restart_history;
pub(crate) mod signals;

use std::env;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::{Client, Message};
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::{error, info, warn};
use wasmcloud_provider_sdk::{
    DEFAULT_RPC_TIMEOUT_MILLIS, HealthCheckResponse, HostData, InterfaceLinkDefinition,
};

use crate::link::registry::{LinkDefinition, LinkDirection, ProviderLayers, WarningLog};
use crate::link::table::Links;
use crate::provider::host_data::SecretDecryptor;
use crate::provider::host_messages::{HostMessage, HostMessages};
use crate::provider::missed_links::MissedLinkDetector;
use crate::provider::nats::Nats;
use crate::provider::restart_history::RestartHistory;
use crate::provider::signals::Signals;
use crate::settings::origin::Origin;
use crate::settings::provider_settings::ProviderSettings;
use crate::settings::source::{Layer, Sources};
use crate::telemetry::log_throttle::LogThrottle;
use crate::watcher::Watchers;
use crate::wrpc::client::ComponentClient;
use crate::wrpc::server::Server;

/// The interface of links from the provider to a component.
const WATCHER: &str = "watcher";
/// What is left of the host's time limit for the way of the answer.
const REPLY_MARGIN: Duration = Duration::from_millis(200);
/// How long a link may be without its Redis before the provider calls itself unhealthy.
const TOLERATED_OUTAGE: Duration = Duration::from_secs(10);
/// How long the last messages may take. Without NATS they would wait for its return.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// A provider that a host has started.
struct Provider {
    id: String,
    links: Arc<Links>,
    watchers: Watchers,
    opener: SecretDecryptor,
    ended_for: RestartHistory,
    unhealthy: LogThrottle,
}

/// Why the provider ends.
enum StopReason {
    /// The host asks for it.
    Host(Message),
    /// A signal, or NATS is closed.
    Signal,
    /// There is a link that it cannot get but by a new start.
    MissedLink { component: String, name: String },
}

/// Runs until the host or a signal ends it.
///
/// # Errors
///
/// The host data is wrong, NATS cannot be reached, or a new start is needed.
pub(crate) async fn run(host_data: &HostData) -> anyhow::Result<()> {
    let opener =
        SecretDecryptor::new(host_data).context("the keys in the host data are malformed")?;
    let connection = Nats::connect(host_data)
        .await
        .context("failed to connect to the NATS of the lattice")?;
    let nats = connection.client.clone();
    let signals = Signals::await_them()?;
    let mut messages = HostMessages::subscribe(&nats, host_data, opener.public_key())
        .await
        .context("failed to subscribe to the host's messages")?;

    let layers = ProviderLayers {
        secrets: Layer::secrets(Origin::ProviderSecrets, &host_data.secrets),
        config: Layer::config(Origin::ProviderConfig, &host_data.config),
    };
    let warnings = Arc::<WarningLog>::default();
    let links = Arc::new(Links::new(layers.clone(), Arc::clone(&warnings)));
    let caller = ComponentClient::start(
        &nats,
        &host_data.lattice_rpc_prefix,
        &host_data.provider_key,
    )
    .await
    .context("failed to subscribe to the answers of components")?;
    let settings = provider_settings(&warnings, layers.clone());
    let watchers = Watchers::new(layers, warnings, caller);
    let provider = Provider {
        id: host_data.provider_key.clone(),
        links: Arc::clone(&links),
        watchers,
        opener,
        ended_for: RestartHistory::new(&env::temp_dir(), host_data),
        unhealthy: LogThrottle::default(),
    };
    for link in &host_data.link_definitions {
        provider.put(link);
    }
    let server = Server::start(
        nats.clone(),
        (&host_data.lattice_rpc_prefix, &host_data.provider_key),
        links,
        &settings,
        time_limit(host_data.default_rpc_timeout_ms),
    )
    .await
    .context("failed to subscribe to calls")?;
    let stop = Arc::new(Notify::new());
    let stopping = Arc::clone(&stop);
    let serving = tokio::spawn(async move { server.run(stopping.notified()).await });
    info!(
        provider = provider.id,
        lattice = host_data.lattice_rpc_prefix,
        version = env!("CARGO_PKG_VERSION"),
        "kvredis is serving"
    );

    let missed = MissedLinkDetector {
        nats: nats.clone(),
        lattice: &host_data.lattice_rpc_prefix,
        provider: &provider.id,
        connected: connection.connected.clone(),
        ended_for: &provider.ended_for,
    };
    let end = tokio::select! {
        end = provider.listen(&nats, &mut messages, &signals) => end,
        (component, name) = missed.clone().link(&provider.links) => {
            StopReason::MissedLink { component, name }
        }
        (component, name) = missed.watching_link(&provider.watchers) => {
            StopReason::MissedLink { component, name }
        }
        // Nobody can be answered any more, so that there is nothing to bring to an end.
        () = connection.stuck() => bail!(
            "an attempt to connect to NATS again does not end: ending, for the host to start \
             kvredis anew"
        ),
    };
    stop.notify_one();
    provider.watchers.stop().await;
    serving.await.context("serving calls failed")?;
    provider.links.clear();
    match end {
        StopReason::Signal => {}
        StopReason::Host(request) => reply(&nats, &request, "shutting down".into()).await,
        StopReason::MissedLink { component, name } => bail!(
            "the link {name:?} of component {component:?} was put without kvredis hearing of it: \
             ending, for the host to start it anew with all links"
        ),
    }
    provider.ended_for.forget();
    // Without NATS there is nobody to tell.
    let _ = timeout(FLUSH_TIMEOUT, nats.flush()).await;
    info!(provider = provider.id, "kvredis has stopped");
    Ok(())
}

impl Provider {
    /// Handles what the host says until it, or a signal, asks to stop.
    async fn listen(
        &self,
        nats: &Client,
        messages: &mut HostMessages,
        signals: &Signals,
    ) -> StopReason {
        loop {
            let message = tokio::select! {
                message = messages.next() => message,
                () = signals.first() => None,
            };
            match message {
                None => return StopReason::Signal,
                Some(HostMessage::Shutdown(request)) => return StopReason::Host(request),
                Some(HostMessage::Health(request)) => self.answer_health(nats, &request).await,
                Some(HostMessage::LinkPut(link)) => self.put(&link),
                Some(HostMessage::LinkDeleted(link)) => self.delete(&link),
                Some(HostMessage::Config(config)) => {
                    info!("the provider's configuration has changed");
                    let config = Layer::config(Origin::ProviderConfig, &config);
                    self.links.reconfigure(config.clone());
                    self.watchers.reconfigure(config);
                }
            }
        }
    }

    fn put(&self, link: &InterfaceLinkDefinition) {
        // Of a link from the provider, the provider's side is the source.
        let (way, component, config, sealed) = if link.target == self.id {
            let (config, sealed) = (&link.target_config, &link.target_secrets);
            (
                LinkDirection::FromComponent,
                &link.source_id,
                config,
                sealed,
            )
        } else if link.interfaces.iter().any(|name| name == WATCHER) {
            let (config, sealed) = (&link.source_config, &link.source_secrets);
            (LinkDirection::ToComponent, &link.target, config, sealed)
        } else {
            warn!(
                component = link.target,
                link = link.name,
                interface = WATCHER,
                "a link from this provider to a component is ignored: it lacks the interface"
            );
            return;
        };
        self.ended_for.arrived((way, component, &link.name));
        let secrets = self.opener.open(sealed.as_deref()).inspect_err(|why| {
            error!(
                component,
                link = link.name,
                reason = %why,
                "the link's secrets cannot be opened"
            );
        });
        let secrets = match secrets {
            Ok(secrets) => secrets,
            Err(why) if way == LinkDirection::ToComponent => {
                self.watchers
                    .insert_invalid(component, &link.name, why.to_string());
                return;
            }
            Err(why) => {
                self.links.insert_invalid(
                    component,
                    &link.name,
                    format!("the secrets of the link cannot be opened: {why}"),
                );
                return;
            }
        };
        let definition = LinkDefinition {
            component: component.clone(),
            name: link.name.clone(),
            secrets: Layer::secrets(Origin::LinkSecrets, &secrets),
            config: Layer::config(Origin::LinkConfig, config),
        };
        match way {
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

    async fn answer_health(&self, nats: &Client, request: &Message) {
        let mut outages = self.links.outages(TOLERATED_OUTAGE);
        outages.extend(self.watchers.health_issues(TOLERATED_OUTAGE));
        // The host drops the text of the answer, so that it has to be in the log.
        if self.unhealthy.record(outages.len()).is_some() {
            error!(reason = %outages.join("; "), "unhealthy");
        }
        let health = HealthCheckResponse {
            healthy: outages.is_empty(),
            message: (!outages.is_empty()).then(|| outages.join("; ")),
        };
        match serde_json::to_vec(&health) {
            Ok(health) => reply(nats, request, health.into()).await,
            Err(error) => error!(reason = %error, "failed to encode the health"),
        }
    }
}

async fn reply(nats: &Client, request: &Message, payload: bytes::Bytes) {
    let Some(subject) = request.reply.clone() else {
        return;
    };
    if let Err(error) = nats.publish(subject, payload).await {
        warn!(reason = %error, "failed to answer the host");
    }
}

/// The settings of the process; wrong ones are logged, and the defaults serve.
fn provider_settings(warnings: &WarningLog, provider: ProviderLayers) -> ProviderSettings {
    let reading = ProviderSettings::parse(&Sources::new(
        Layer::empty(Origin::LinkSecrets),
        Layer::empty(Origin::LinkConfig),
        provider.secrets,
        provider.config,
    ));
    warnings.once(reading.warnings.into_iter().map(|warning| warning.message));
    reading.settings.unwrap_or_else(|wrong| {
        error!(reason = %wrong, "a setting of the provider is wrong; the default is used");
        ProviderSettings::default()
    })
}

/// How long a call may take so that its answer arrives before the host gives up.
fn time_limit(rpc_timeout_ms: Option<u64>) -> Duration {
    let timeout = rpc_timeout_ms.map_or(DEFAULT_RPC_TIMEOUT_MILLIS, Duration::from_millis);
    timeout.saturating_sub(REPLY_MARGIN).max(timeout / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_answered_before_the_host_gives_up() {
        assert_eq!(time_limit(None), Duration::from_millis(1_800));
        assert_eq!(time_limit(Some(10_000)), Duration::from_millis(9_800));
        assert_eq!(time_limit(Some(300)), Duration::from_millis(150));
    }
}
