//! The host's messages to a provider: their subjects and contents.
//!
//! Several subscriptions receive them, and NATS preserves the order only within each. All messages
//! enter one queue as they arrive, so that deleting a link and putting it again is handled in this
//! order.

use std::collections::HashMap;
use std::future::pending;
use std::sync::LazyLock;

use async_nats::{Client, Message, SubscribeError, Subscriber};
use futures_util::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tracing::error;
use wasmcloud_provider_sdk::core::provider_config_update_subject;
use wasmcloud_provider_sdk::core::rpc::{
    health_subject, link_del_subject, link_put_subject, shutdown_subject,
};
use wasmcloud_provider_sdk::{HostData, InterfaceLinkDefinition};

use crate::tasks;
use crate::telemetry::log_throttle::LogThrottle;

/// The provider handles each message within microseconds.
const QUEUE_CAPACITY: usize = 256;

static UNREADABLE: LazyLock<LogThrottle> = LazyLock::new(LogThrottle::default);

pub(crate) enum HostMessage {
    LinkPut(InterfaceLinkDefinition),
    LinkDeleted(InterfaceLinkDefinition),
    /// The provider's new named configuration.
    Config(HashMap<String, String>),
    /// A request for a health report.
    Health(Message),
    /// A request to stop.
    Shutdown(Message),
}

/// The host's messages in the order of their arrival.
pub(crate) struct HostMessages {
    queue: mpsc::Receiver<HostMessage>,
    _forwarders: [AbortOnDropHandle<()>; 5],
}

#[derive(Deserialize)]
struct ShutdownRequest {
    host_id: String,
}

impl HostMessages {
    /// Hosts since 1.1 send links to the public key of the process instead of the provider's id.
    ///
    /// # Errors
    ///
    /// The NATS client is closed.
    pub(crate) async fn subscribe(
        nats: &Client,
        host_data: &HostData,
        public_key: Option<String>,
    ) -> Result<Self, SubscribeError> {
        let lattice = &host_data.lattice_rpc_prefix;
        let provider = &host_data.provider_key;
        let put_id = public_key.as_ref().unwrap_or(provider);
        let host_id = host_data.host_id.clone();

        let puts = nats.subscribe(link_put_subject(lattice, put_id)).await?;
        let deletions = nats.subscribe(link_del_subject(lattice, provider)).await?;
        let configs = nats
            .subscribe(provider_config_update_subject(lattice, provider))
            .await?;
        let healths = nats.subscribe(health_subject(lattice, provider)).await?;
        let shutdowns = nats
            .subscribe(shutdown_subject(lattice, provider, "default"))
            .await?;

        let (sender, queue) = mpsc::channel(QUEUE_CAPACITY);
        let forwarders = [
            forward(puts, &sender, |m| {
                parse("link", &m).map(HostMessage::LinkPut)
            }),
            forward(deletions, &sender, |m| {
                parse("deletion of a link", &m).map(HostMessage::LinkDeleted)
            }),
            forward(configs, &sender, |m| {
                parse("configuration", &m).map(HostMessage::Config)
            }),
            forward(healths, &sender, |m| Some(HostMessage::Health(m))),
            forward(shutdowns, &sender, move |m| {
                is_for(&host_id, &m).then_some(HostMessage::Shutdown(m))
            }),
        ];
        Ok(Self {
            queue,
            _forwarders: forwarders,
        })
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> HostMessage {
        match self.queue.recv().await {
            Some(message) => message,
            // The forwarders have ended, which is reported as a failure of these tasks.
            None => pending().await,
        }
    }
}

fn forward(
    mut messages: Subscriber,
    queue: &mpsc::Sender<HostMessage>,
    read: impl Fn(Message) -> Option<HostMessage> + Send + 'static,
) -> AbortOnDropHandle<()> {
    let queue = queue.clone();
    tasks::spawn_essential("host messages", async move {
        while let Some(message) = messages.next().await {
            if let Some(message) = read(message)
                && queue.send(message).await.is_err()
            {
                return;
            }
            // The forwarders alternate, so that messages enter the queue in the order of arrival.
            tokio::task::yield_now().await;
        }
    })
}

/// Parses a message; its contents are not logged, as they may be secret.
fn parse<T: DeserializeOwned>(what: &str, message: &Message) -> Option<T> {
    serde_json::from_slice(&message.payload)
        .inspect_err(|_| {
            if let Some(messages) = UNREADABLE.record(1) {
                error!(
                    what,
                    bytes = message.payload.len(),
                    messages,
                    "the host sent a message that cannot be read"
                );
            }
        })
        .ok()
}

/// All processes of a provider receive a shutdown request, which is addressed to that of one host.
fn is_for(host_id: &str, message: &Message) -> bool {
    serde_json::from_slice::<ShutdownRequest>(&message.payload)
        .is_ok_and(|request| request.host_id == host_id)
}
