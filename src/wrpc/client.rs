//! Calls components: the other direction of wRPC, for `watcher`.
//!
//! One subscription to an inbox, made before anything is published, serves all calls; messages are
//! told apart by a token in their subject. A call takes its place among the calls under way before
//! it is published, so that no answer can come too early for it, as it can with
//! wrpc-transport-nats 0.29.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, HeaderMap, Message, StatusCode, Subject, SubscribeError};
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;

use crate::task::AbortOnDrop;
use crate::telemetry::calls::CallSpan;
use crate::wrpc::codec::Writer;
use crate::wrpc::server::{COMPONENT, LINK_NAME, PROTOCOL};

/// The interface that components export to be told of changes.
pub(crate) const WATCHER: &str = "wrpc:keyvalue/watcher";
const VERSION: &str = "0.2.0-draft";
/// What stands for the bucket: hosts 1.x take only a number there.
const BUCKET: &str = "0";
/// How long a host may take to accept a call.
const ACCEPT: Duration = Duration::from_secs(5);
/// How long a component may take over a call.
const END: Duration = Duration::from_secs(15);
/// What the headers and the reply subject take of a message, at most, besides their texts.
const OVERHEAD: usize = 512;

/// A function of the interface, with what a component is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent<'a> {
    /// `on-set`: the key has this value.
    Set(&'a str, Bytes),
    /// `on-delete`: the key has none any more.
    Deleted(&'a str),
}

/// Why a component was not told, or may not have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotifyError {
    /// No host runs the component: nobody heard of the call.
    NoResponders,
    /// There is no connection to NATS: nothing was sent.
    Disconnected,
    /// No host has accepted the call in time.
    AcceptTimeout,
    /// The component has not ended the call in time.
    CompletionTimeout,
    /// NATS is closed.
    Closed,
}

/// Calls components of a lattice as its provider.
pub(crate) struct ComponentClient {
    nats: Client,
    lattice: String,
    provider: String,
    inbox: String,
    next: AtomicU64,
    under_way: Arc<PendingCalls>,
    _demultiplexer: AbortOnDrop,
}

/// The calls under way, by token.
#[derive(Default)]
struct PendingCalls(Mutex<HashMap<u64, mpsc::UnboundedSender<Frame>>>);

/// A message for a call.
enum Frame {
    /// The call is accepted; what is left of the parameters goes to this subject.
    Accepted(Subject),
    NoResponders,
    Ended,
}

/// The place of a call among those under way.
struct PendingCall<'a> {
    token: u64,
    under_way: &'a PendingCalls,
    arrivals: mpsc::UnboundedReceiver<Frame>,
}

impl fmt::Display for NotifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoResponders => f.write_str("no host runs the component"),
            Self::Disconnected => f.write_str("there is no connection to NATS"),
            Self::AcceptTimeout => write!(f, "no host has taken the call within {ACCEPT:?}"),
            Self::CompletionTimeout => {
                write!(f, "the component has not ended the call within {END:?}")
            }
            Self::Closed => f.write_str("NATS is closed"),
        }
    }
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
    fn kind(self) -> &'static str {
        match self {
            Self::NoResponders => "absent",
            Self::Disconnected => "disconnected",
            Self::AcceptTimeout | Self::CompletionTimeout => "timeout",
            Self::Closed => "closed",
        }
    }
}

impl WatchEvent<'_> {
    /// The function's name in the interface.
    pub(crate) fn function(&self) -> &'static str {
        match self {
            Self::Set(..) => "on-set",
            Self::Deleted(_) => "on-delete",
        }
    }

    /// The encoding of the parameters.
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
    /// A caller as `provider` in `lattice`.
    ///
    /// # Errors
    ///
    /// The NATS client is closed.
    pub(crate) async fn start(
        nats: &Client,
        lattice: &str,
        provider: &str,
    ) -> Result<Self, SubscribeError> {
        let inbox = nats.new_inbox();
        let mut messages = nats.subscribe(format!("{inbox}.>")).await?;
        let under_way = Arc::<PendingCalls>::default();
        let receivers = Arc::clone(&under_way);
        let skip = inbox.len() + 1;
        let demultiplexer = AbortOnDrop::spawn(async move {
            while let Some(message) = messages.next().await {
                receivers.route(skip, message);
            }
        });
        Ok(Self {
            nats: nats.clone(),
            lattice: lattice.to_owned(),
            provider: provider.to_owned(),
            inbox,
            next: AtomicU64::new(0),
            under_way,
            _demultiplexer: demultiplexer,
        })
    }

    /// The lattice and the provider that it calls as.
    pub(crate) fn identity(&self) -> (&str, &str) {
        (&self.lattice, &self.provider)
    }

    /// Calls a component, over the link of this name, and waits until it has ended the call. Hosts
    /// do not say whether it ended well.
    ///
    /// # Errors
    ///
    /// It was not told, or may not have been.
    pub(crate) async fn tell(
        &self,
        component: &str,
        link: &str,
        told: WatchEvent<'_>,
    ) -> Result<(), NotifyError> {
        let noted = CallSpan::made(WATCHER, told.function());
        let call = self.call(component, link, told, &noted);
        let outcome = call.instrument(noted.span()).await;
        if let Err(failure) = outcome {
            noted.failed_as(Cow::Borrowed(failure.kind()));
        }
        outcome
    }

    async fn call(
        &self,
        component: &str,
        link: &str,
        told: WatchEvent<'_>,
        noted: &CallSpan,
    ) -> Result<(), NotifyError> {
        if self.nats.connection_state() != State::Connected {
            return Err(NotifyError::Disconnected);
        }
        let end = Instant::now() + END;
        let mut place = self.under_way.enter(&self.next);
        let function = told.function();
        let subject = format!(
            "{}.{component}.{PROTOCOL}.{WATCHER}@{VERSION}.{function}",
            self.lattice
        );
        let mut headers = HeaderMap::new();
        headers.insert(COMPONENT, self.provider.as_str());
        headers.insert(LINK_NAME, link);
        noted.add_context(&mut headers);

        let most = self.nats.server_info().max_payload.max(2 * OVERHEAD);
        let room = most - OVERHEAD.min(most - 1);
        let mut pieces = told.parameters().finish();
        let mut rest = pieces.next().unwrap_or_default();
        let first = rest.split_to(rest.len().min(room));
        let reply = format!("{}.{}", self.inbox, place.token);
        self.nats
            .publish_with_reply_and_headers(subject, reply, headers, first)
            .await
            .map_err(|_| NotifyError::Closed)?;

        let accepted = timeout_at(Instant::now() + ACCEPT, place.accepted()).await;
        let params = accepted.map_err(|_| NotifyError::AcceptTimeout)??;
        for mut piece in std::iter::once(rest).chain(pieces) {
            while !piece.is_empty() {
                let part = piece.split_to(piece.len().min(most));
                self.publish(&params, part).await?;
            }
        }
        self.publish(&params, Bytes::new()).await?;
        timeout_at(end, place.ended())
            .await
            .map_err(|_| NotifyError::CompletionTimeout)
    }

    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), NotifyError> {
        self.nats
            .publish(subject.clone(), payload)
            .await
            .map_err(|_| NotifyError::Closed)
    }
}

impl PendingCalls {
    fn enter(&self, next: &AtomicU64) -> PendingCall<'_> {
        let token = next.fetch_add(1, Ordering::Relaxed);
        let (sender, arrivals) = mpsc::unbounded_channel();
        self.table().insert(token, sender);
        PendingCall {
            token,
            under_way: self,
            arrivals,
        }
    }

    /// Hands a message to its call; a call that is over gets no more.
    fn route(&self, skip: usize, message: Message) {
        let name = message.subject.get(skip..).unwrap_or_default();
        let (token, is_result) = match name.split_once('.') {
            Some((token, "results")) => (token, true),
            Some(_) => return,
            None => (name, false),
        };
        let table = self.table();
        let Some(call) = token.parse().ok().and_then(|token: u64| table.get(&token)) else {
            return;
        };
        let arrival = match (is_result, message.reply) {
            // The functions have no result: what comes before the end is not looked at.
            (true, _) if message.payload.is_empty() => Frame::Ended,
            (true, _) => return,
            (false, _) if message.status == Some(StatusCode::NO_RESPONDERS) => Frame::NoResponders,
            (false, Some(reply)) => Frame::Accepted(Subject::from(format!("{reply}.params"))),
            (false, None) => return,
        };
        // An error says that the call is over.
        let _ = call.send(arrival);
    }

    fn table(&self) -> MutexGuard<'_, HashMap<u64, mpsc::UnboundedSender<Frame>>> {
        self.0.lock()
    }
}

impl PendingCall<'_> {
    async fn accepted(&mut self) -> Result<Subject, NotifyError> {
        loop {
            match self.arrivals.recv().await {
                Some(Frame::Accepted(params)) => return Ok(params),
                Some(Frame::NoResponders) => return Err(NotifyError::NoResponders),
                // It belongs to nothing.
                Some(Frame::Ended) => {}
                None => return Err(NotifyError::Closed),
            }
        }
    }

    async fn ended(&mut self) {
        while let Some(arrival) = self.arrivals.recv().await {
            if matches!(arrival, Frame::Ended) {
                return;
            }
        }
    }
}

impl Drop for PendingCall<'_> {
    fn drop(&mut self) {
        self.under_way.table().remove(&self.token);
    }
}
