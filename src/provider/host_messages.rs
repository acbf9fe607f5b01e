//! The host's messages to a provider: which subjects they come on, and what is in them.
//!
//! They come on several subscriptions, and NATS keeps the order only within each. All are put into
//! one queue as they arrive, so that a link that was deleted and put again is seen so.

use std::collections::HashMap;
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

use crate::telemetry::log_throttle::LogThrottle;

/// Messages that may wait; the provider handles each within microseconds.
const QUEUE: usize = 256;

/// Messages that cannot be read.
static UNREADABLE: LazyLock<LogThrottle> = LazyLock::new(LogThrottle::default);

/// What a host says to its provider.
pub(crate) enum HostMessage {
    /// A link to or from the provider was put.
    LinkPut(InterfaceLinkDefinition),
    /// A link was deleted.
    LinkDeleted(InterfaceLinkDefinition),
    /// The provider's named configuration has changed to this.
    Config(HashMap<String, String>),
    /// The host wants to know how the provider is.
    Health(Message),
    /// The host wants the provider to stop.
    Shutdown(Message),
}

/// The host's messages in the order in which they arrive.
pub(crate) struct HostMessages {
    queue: mpsc::Receiver<HostMessage>,
    _forwarders: [AbortOnDropHandle<()>; 5],
}

#[derive(Deserialize)]
struct ShutdownRequest {
    host_id: String,
}

impl HostMessages {
    /// Subscribes to all of them. Links are put for the key of this process where it has one, as
    /// hosts since 1.1 do.
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

        let (sender, queue) = mpsc::channel(QUEUE);
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

    /// The next message; `None` when NATS is closed.
    pub(crate) async fn next(&mut self) -> Option<HostMessage> {
        self.queue.recv().await
    }
}

fn forward(
    mut messages: Subscriber,
    queue: &mpsc::Sender<HostMessage>,
    read: impl Fn(Message) -> Option<HostMessage> + Send + 'static,
) -> AbortOnDropHandle<()> {
    let queue = queue.clone();
    let forwarder = async move {
        while let Some(message) = messages.next().await {
            if let Some(message) = read(message)
                && queue.send(message).await.is_err()
            {
                return;
            }
            // One message a turn: those of the other subscriptions keep their place between.
            tokio::task::yield_now().await;
        }
    };
    AbortOnDropHandle::new(tokio::spawn(forwarder))
}

/// Reads a message; what it holds is not logged, as it may be secret.
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

/// Every process of a provider hears of a shutdown; it is meant for the one of a host.
fn is_for(host_id: &str, message: &Message) -> bool {
    serde_json::from_slice::<ShutdownRequest>(&message.payload)
        .is_ok_and(|request| request.host_id == host_id)
}
