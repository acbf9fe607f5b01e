//! Calls components that watch: the opposite direction of wRPC, used by `watcher`.
//!
//! Each call is registered in the inbox before it is published, so that no reply can arrive too
//! early. wrpc-transport-nats 0.29 does the same.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, HeaderMap, Message, StatusCode, Subject, SubscribeError};
use bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;

use crate::telemetry::calls::CallSpan;
use crate::wrpc::codec::Writer;
use crate::wrpc::inbox::{Conversation, Inbox};
use crate::wrpc::protocol::{
    HeaderCarrier, LINK_NAME, PROTOCOL, SOURCE_ID, max_payload, publish_stream,
};

/// The interface that watching components export.
const WATCHER: &str = "wrpc:keyvalue/watcher";
const VERSION: &str = "0.2.0-draft";
/// Stands for the bucket: 1.x hosts accept only a number there.
const BUCKET: &str = "0";
/// The time limit for a host to accept a call.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time limit of a whole call.
const COMPLETION_TIMEOUT: Duration = Duration::from_secs(15);
/// The space that headers and the reply subject take in the first message.
const OVERHEAD: usize = 512;

/// A call of the interface: its function and parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent<'a> {
    /// `on-set`: the key has this value.
    Set(&'a str, Bytes),
    /// `on-delete`: the key no longer has a value.
    Deleted(&'a str),
}

/// The reason why a component was not notified, or may not have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotifyError {
    /// Nothing received the call.
    #[error("no host runs the component")]
    NoResponders,
    /// Nothing was sent.
    #[error("no connection to NATS")]
    Disconnected,
    #[error("no host has accepted the call within {ACCEPT_TIMEOUT:?}")]
    AcceptTimeout,
    #[error("the component has not completed the call within {COMPLETION_TIMEOUT:?}")]
    CompletionTimeout,
    #[error("NATS is closed")]
    Closed,
}

/// Calls components of a lattice as its provider.
pub(crate) struct ComponentClient {
    nats: Client,
    lattice: String,
    provider: String,
    inbox: Inbox<PendingCall>,
}

/// A call in progress. Messages that do not fit its state are ignored.
enum PendingCall {
    Published,
    NoResponders,
    /// A host has accepted the call; the rest of the parameters goes to this subject.
    Accepted(Subject),
    /// The call has ended; the subject is that of the parameters.
    Completed(Subject),
}

impl fmt::Debug for ComponentClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ComponentClient")
            .field("lattice", &self.lattice)
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

impl NotifyError {
    /// The value of `error.type`.
    fn error_type(self) -> &'static str {
        match self {
            Self::NoResponders => "absent",
            Self::Disconnected => "disconnected",
            Self::AcceptTimeout | Self::CompletionTimeout => "timeout",
            Self::Closed => "closed",
        }
    }
}

impl WatchEvent<'_> {
    fn function(&self) -> &'static str {
        match self {
            Self::Set(..) => "on-set",
            Self::Deleted(_) => "on-delete",
        }
    }

    /// The encoded parameters.
    pub fn parameters(self) -> Writer {
        let mut writer = Writer::default();
        writer.text(BUCKET);
        match self {
            Self::Set(key, value) => {
                writer.text(key);
                writer.bytes(value);
            }
            Self::Deleted(key) => writer.text(key),
        }
        writer
    }
}

impl ComponentClient {
    /// A client that calls as `provider` in `lattice`.
    ///
    /// # Errors
    ///
    /// The NATS client is closed.
    pub(crate) async fn start(
        nats: &Client,
        lattice: &str,
        provider: &str,
    ) -> Result<Self, SubscribeError> {
        Ok(Self {
            nats: nats.clone(),
            lattice: lattice.to_owned(),
            provider: provider.to_owned(),
            inbox: Inbox::subscribe(nats).await?,
        })
    }

    /// The lattice and the provider of its calls.
    pub(crate) fn identity(&self) -> (&str, &str) {
        (&self.lattice, &self.provider)
    }

    /// Notifies a component over the link of this name, and waits until the call has ended. Hosts
    /// do not report whether the component succeeded.
    ///
    /// # Errors
    ///
    /// See [`NotifyError`].
    pub(crate) async fn notify(
        &self,
        component: &str,
        link: &str,
        event: WatchEvent<'_>,
    ) -> Result<(), NotifyError> {
        let call_span = CallSpan::client(WATCHER, event.function());
        let call = self.call(component, link, event, &call_span);
        let outcome = call.instrument(call_span.span()).await;
        if let Err(error) = outcome {
            call_span.record_error_type(Cow::Borrowed(error.error_type()));
        }
        outcome
    }

    async fn call(
        &self,
        component: &str,
        link: &str,
        event: WatchEvent<'_>,
        call_span: &CallSpan,
    ) -> Result<(), NotifyError> {
        if self.nats.connection_state() != State::Connected {
            return Err(NotifyError::Disconnected);
        }
        let deadline = Instant::now() + COMPLETION_TIMEOUT;
        let subject = format!(
            "{}.{component}.{PROTOCOL}.{WATCHER}@{VERSION}.{}",
            self.lattice,
            event.function()
        );
        let mut headers = HeaderMap::new();
        headers.insert(SOURCE_ID, self.provider.as_str());
        headers.insert(LINK_NAME, link);
        call_span.inject_context(&mut HeaderCarrier(&mut headers));

        let mut pieces = event.parameters().finish();
        let mut rest = pieces.next().unwrap_or_default();
        let first = rest.split_to(rest.len().min(max_payload(&self.nats) - OVERHEAD));
        let (reply, pending) = self.inbox.register(PendingCall::Published);
        self.nats
            .publish_with_reply_and_headers(subject, reply, headers, first)
            .await
            .map_err(|_| NotifyError::Closed)?;

        let accepted = pending.wait_for(PendingCall::params_subject);
        let params = timeout_at(Instant::now() + ACCEPT_TIMEOUT, accepted)
            .await
            .map_err(|_| NotifyError::AcceptTimeout)??;
        publish_stream(&self.nats, params, std::iter::once(rest).chain(pieces))
            .await
            .map_err(|_| NotifyError::Closed)?;
        let completed = pending.wait_for(|call| call.is_completed().then_some(()));
        timeout_at(deadline, completed)
            .await
            .map_err(|_| NotifyError::CompletionTimeout)
    }
}

impl PendingCall {
    /// The subject for the rest of the parameters, once a host has accepted the call.
    fn params_subject(&mut self) -> Option<Result<Subject, NotifyError>> {
        match self {
            Self::Published => None,
            Self::NoResponders => Some(Err(NotifyError::NoResponders)),
            Self::Accepted(params) | Self::Completed(params) => Some(Ok(params.clone())),
        }
    }

    fn is_completed(&self) -> bool {
        matches!(self, Self::Completed(_))
    }
}

impl Conversation for PendingCall {
    fn receive(&mut self, suffix: &str, message: Message) -> bool {
        let next = match (&*self, suffix) {
            (Self::Published, "") if message.status == Some(StatusCode::NO_RESPONDERS) => {
                Self::NoResponders
            }
            (Self::Published, "") => match message.reply {
                Some(reply) => Self::Accepted(Subject::from(format!("{reply}.params"))),
                None => return false,
            },
            // The functions return no value: only the end of the results matters.
            (Self::Accepted(params), "results") if message.payload.is_empty() => {
                Self::Completed(params.clone())
            }
            _ => return false,
        };
        *self = next;
        true
    }
}
