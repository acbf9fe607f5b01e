//! A component that calls kvredis: wRPC calls over NATS, made as a host makes them for the component.
//!
//! The transport is written here, because wrpc-transport-nats 0.29 loses replies under load: one
//! inbox subscription, made before anything is published, serves all calls; replies are matched to
//! calls by a token. A call without a response within the timeout fails with
//! [`CallFailure::Timeout`], as it does for a host. Clients are cheap to clone; clones with other
//! headers share the subscription.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use tokio::time::timeout;

use crate::codec::Decode;
use crate::reply_inbox::{PendingCall, ReplyInbox};
use crate::wait::test_timeout;

/// Every function of the interfaces that components import.
pub const FUNCTIONS: [(&str, &str); 9] = [
    ("store", "get"),
    ("store", "set"),
    ("store", "delete"),
    ("store", "exists"),
    ("store", "list-keys"),
    ("atomics", "increment"),
    ("batch", "get-many"),
    ("batch", "set-many"),
    ("batch", "delete-many"),
];

/// The error of a call: one of the interface's errors, or a failed call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// `no-such-store`
    NoSuchStore,
    /// `access-denied`
    AccessDenied,
    /// `other`
    Other(String),
    /// The call itself failed: a host would trap the component's instance.
    Call(CallFailure),
}

/// The reason why a call has no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// Nothing subscribes to the function's subject.
    NoResponders,
    /// No response within the timeout; the text says which part is missing.
    Timeout(&'static str),
    /// The response violates the wire protocol or the interface.
    Invalid(String),
}

/// A response, message by message.
#[derive(Debug)]
pub struct RawResponse {
    /// The payload of the handshake.
    pub handshake: Bytes,
    /// The payloads of the result, including the empty one that ends it.
    pub frames: Vec<Bytes>,
}

/// A component that calls the provider.
#[derive(Clone)]
pub struct Client {
    inbox: Arc<ReplyInbox>,
    prefix: Arc<str>,
    headers: HeaderMap,
    timeout: Duration,
    frame: usize,
}

impl Client {
    /// A client of the provider in the lattice, as `component` over its link `link_name`.
    pub async fn new(
        nats: async_nats::Client,
        lattice: &str,
        provider: &str,
        component: &str,
        link_name: &str,
    ) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("source-id", component);
        headers.insert("link-name", link_name);
        Self {
            inbox: Arc::new(ReplyInbox::new(nats).await),
            prefix: format!("{lattice}.{provider}").into(),
            headers,
            timeout: test_timeout(),
            frame: usize::MAX,
        }
    }

    /// A clone of the client that calls as another component.
    pub fn component(&self, component: &str, link_name: &str) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("source-id", component);
        headers.insert("link-name", link_name);
        self.headers(headers)
    }

    /// A clone that sends these headers only.
    pub fn headers(&self, headers: HeaderMap) -> Self {
        Self {
            headers,
            ..self.clone()
        }
    }

    /// A clone with the RPC timeout of its host.
    pub fn timeout(&self, timeout: Duration) -> Self {
        Self {
            timeout,
            ..self.clone()
        }
    }

    /// A clone that sends parameters in frames of at most this many bytes.
    pub fn max_frame(&self, frame: usize) -> Self {
        Self {
            frame,
            ..self.clone()
        }
    }

    /// The subject of a function.
    pub fn subject(&self, interface: &str, function: &str) -> String {
        let prefix = &self.prefix;
        format!("{prefix}.wrpc.0.0.1.wrpc:keyvalue/{interface}@0.2.0-draft.{function}")
    }

    /// Calls a function and decodes a result that may be an error of the interface.
    pub async fn invoke<T: Decode>(
        &self,
        interface: &str,
        function: &str,
        params: Vec<u8>,
    ) -> Result<T, Error> {
        self.call::<Result<T, Error>>(interface, function, params)
            .await
            .unwrap_or_else(|failure| Err(Error::Call(failure)))
    }

    /// Calls a function and decodes a value of any type.
    pub async fn call<T: Decode>(
        &self,
        interface: &str,
        function: &str,
        params: Vec<u8>,
    ) -> Result<T, CallFailure> {
        let mut call = self.inbox.open();
        timeout(self.timeout, async {
            self.send(&mut call, interface, function, params.into())
                .await?;
            call.result().await
        })
        .await
        .unwrap_or_else(|_| Err(call.overdue()))
    }

    /// Calls a function and records all messages of the response up to the final one.
    pub async fn exchange(
        &self,
        interface: &str,
        function: &str,
        params: Vec<u8>,
    ) -> Result<RawResponse, CallFailure> {
        let mut call = self.inbox.open();
        timeout(self.timeout, async {
            self.send(&mut call, interface, function, params.into())
                .await?;
            while call.results.last().is_none_or(|frame| !frame.is_empty()) {
                call.receive().await?;
            }
            Ok(())
        })
        .await
        .unwrap_or_else(|_| Err(call.overdue()))?;
        Ok(RawResponse {
            handshake: call
                .handshake
                .take()
                .ok_or(CallFailure::Invalid("no handshake".to_owned()))?,
            frames: std::mem::take(&mut call.results),
        })
    }

    /// Publishes as many parameters as fit into one message, and after the handshake the rest.
    async fn send(
        &self,
        call: &mut PendingCall,
        interface: &str,
        function: &str,
        mut params: Bytes,
    ) -> Result<(), CallFailure> {
        let nats = &self.inbox.nats;
        let reply = format!("{}.{}", self.inbox.inbox, call.token);
        let max_payload = nats.server_info().max_payload;
        let room = max_payload - reply.len() - size(&self.headers);
        let first = params.split_to(room.min(self.frame).min(params.len()));
        nats.publish_with_reply_and_headers(
            self.subject(interface, function),
            reply,
            self.headers.clone(),
            first,
        )
        .await
        .map_err(|error| CallFailure::Invalid(error.to_string()))?;
        let subject = call.handshake().await?;
        loop {
            let frame = params.split_to(max_payload.min(self.frame).min(params.len()));
            let last = frame.is_empty();
            nats.publish(subject.clone(), frame)
                .await
                .map_err(|error| CallFailure::Invalid(error.to_string()))?;
            if last {
                return Ok(());
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(text) => f.write_str(text),
            error => write!(f, "{error:?}"),
        }
    }
}

/// The size of the headers in a message, as a wRPC client computes it.
fn size(headers: &HeaderMap) -> usize {
    let lines: usize = headers
        .iter()
        .flat_map(|(name, values)| values.iter().map(move |value| (name, value)))
        .map(|(name, value)| {
            let name: &[u8] = name.as_ref();
            name.len() + value.as_str().len() + 4
        })
        .sum();
    lines + "NATS/1.0\r\n\r\n".len()
}

/// Asserts that a call failed with the error `other`, and returns its text.
pub fn other_error<T: fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Other(text)) => text,
        response => panic!("expected the error `other`, got {response:?}"),
    }
}
