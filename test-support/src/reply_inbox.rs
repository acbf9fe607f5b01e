//! The reply inbox of [`crate::client`]: one subscription for all calls of a client, and the messages
//! of each pending call.
//!
//! The token in the subject identifies the call: `{inbox}.{token}` carries the handshake and
//! `{inbox}.{token}.results` the result. A call registers its token before it publishes, so that no
//! message arrives unrouted; messages for calls that are over are dropped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_nats::{Message, StatusCode, Subject};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::client::CallFailure;
use crate::codec::{Decode, DecodeError, Reader, decode_all};

/// The shared subscription.
pub struct ReplyInbox {
    /// The NATS connection.
    pub nats: async_nats::Client,
    /// The prefix of reply subjects.
    pub inbox: String,
    calls: Arc<PendingCalls>,
    demultiplexer: JoinHandle<()>,
}

#[derive(Default)]
struct PendingCalls {
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, mpsc::UnboundedSender<ReplyFrame>>>,
}

/// A message for one call.
enum ReplyFrame {
    Handshake(Message),
    Result(Bytes),
}

/// A pending call; unregistered when dropped.
pub struct PendingCall {
    calls: Arc<PendingCalls>,
    /// The token in the call's reply subjects.
    pub token: u64,
    frames: mpsc::UnboundedReceiver<ReplyFrame>,
    /// The payload of the handshake, once received.
    pub handshake: Option<Bytes>,
    /// The payloads of the result received so far.
    pub results: Vec<Bytes>,
}

impl ReplyInbox {
    /// Subscribes to an inbox.
    pub async fn new(nats: async_nats::Client) -> Self {
        let inbox = nats.new_inbox();
        let mut messages = nats
            .subscribe(format!("{inbox}.>"))
            .await
            .expect("NATS accepts subscriptions");
        let calls = Arc::new(PendingCalls::default());
        let demultiplexer = tokio::spawn({
            let calls = Arc::clone(&calls);
            let skip = inbox.len() + 1;
            async move {
                while let Some(message) = messages.next().await {
                    calls.route(skip, message);
                }
            }
        });
        Self {
            nats,
            inbox,
            calls,
            demultiplexer,
        }
    }

    /// Registers a call.
    pub fn open(&self) -> PendingCall {
        let token = self.calls.next.fetch_add(1, Ordering::Relaxed);
        let (sender, frames) = mpsc::unbounded_channel();
        self.calls
            .waiting
            .lock()
            .expect("the lock is not poisoned")
            .insert(token, sender);
        PendingCall {
            calls: Arc::clone(&self.calls),
            token,
            frames,
            handshake: None,
            results: Vec::new(),
        }
    }
}

impl Drop for ReplyInbox {
    fn drop(&mut self) {
        self.demultiplexer.abort();
    }
}

impl PendingCalls {
    fn route(&self, skip: usize, message: Message) {
        let name = &message.subject[skip..];
        let (token, is_result) = match name.strip_suffix(".results") {
            Some(token) => (token, true),
            None => (name, false),
        };
        let Ok(token) = token.parse() else {
            panic!(
                "kvredis published to a subject that wRPC does not define: {}",
                message.subject
            );
        };
        let waiting = self.waiting.lock().expect("the lock is not poisoned");
        let Some(call) = waiting.get(&token) else {
            return;
        };
        // Fails when the call is over.
        let _ = call.send(if is_result {
            ReplyFrame::Result(message.payload)
        } else {
            ReplyFrame::Handshake(message)
        });
    }
}

impl PendingCall {
    /// Receives the next message of this call; returns the parameter subject of a handshake.
    pub async fn receive(&mut self) -> Result<Option<Subject>, CallFailure> {
        match self
            .frames
            .recv()
            .await
            .expect("the sender lives as long as the call")
        {
            ReplyFrame::Result(frame) => {
                self.results.push(frame);
                Ok(None)
            }
            ReplyFrame::Handshake(message) if message.status == Some(StatusCode::NO_RESPONDERS) => {
                Err(CallFailure::NoResponders)
            }
            ReplyFrame::Handshake(message) => {
                if self.handshake.replace(message.payload).is_some() {
                    return Err(CallFailure::Invalid("a second handshake".to_owned()));
                }
                message
                    .reply
                    .map(|reply| Some(Subject::from(format!("{reply}.params"))))
                    .ok_or(CallFailure::Invalid(
                        "a handshake without a reply subject".to_owned(),
                    ))
            }
        }
    }

    /// Waits for the handshake, which names the subject for further parameters.
    pub async fn handshake(&mut self) -> Result<Subject, CallFailure> {
        loop {
            if let Some(subject) = self.receive().await? {
                return Ok(subject);
            }
        }
    }

    /// Waits until the result is complete, and decodes it.
    pub async fn result<T: Decode>(&mut self) -> Result<T, CallFailure> {
        let mut received = Vec::new();
        let mut taken = 0;
        loop {
            while let Some(frame) = self.results.get(taken) {
                let ended = frame.is_empty();
                received.extend_from_slice(frame);
                taken += 1;
                match T::decode(&mut Reader(&received)) {
                    Err(DecodeError::Incomplete) if !ended => {}
                    // Decodes once more to detect bytes after the value.
                    _ => return decode_all(&received).map_err(|stop| invalid(&stop, &received)),
                }
            }
            self.receive().await?;
        }
    }

    /// The failure of a call whose timeout has expired.
    pub fn overdue(&self) -> CallFailure {
        CallFailure::Timeout(match (&self.handshake, self.results.is_empty()) {
            (None, _) => "no handshake",
            (_, true) => "no result",
            (_, false) => "no end of the result",
        })
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        self.calls
            .waiting
            .lock()
            .expect("the lock is not poisoned")
            .remove(&self.token);
    }
}

fn invalid(stop: &DecodeError, bytes: &[u8]) -> CallFailure {
    CallFailure::Invalid(format!(
        "{stop:?} in {:02x?}",
        &bytes[..bytes.len().min(64)]
    ))
}
