//! The subjects and headers of wRPC over NATS as wasmCloud 1.x uses them, and the payload limit.

use async_nats::header::HeaderName;
use async_nats::{Client, HeaderMap, PublishError, Subject};
use bytes::Bytes;
use opentelemetry::propagation::{Extractor, Injector};

pub(crate) const PROTOCOL: &str = "wrpc.0.0.1";
/// The header with the id of the calling component or provider.
pub(crate) const SOURCE_ID: HeaderName = HeaderName::from_static("source-id");
pub(crate) const LINK_NAME: HeaderName = HeaderName::from_static("link-name");
/// NATS servers are not configured with a smaller payload limit. Messages within it are published
/// without querying the limit, which copies everything that the client knows of its server.
const MIN_MAX_PAYLOAD: usize = 1024;

/// The largest payload that the server accepts.
pub(crate) fn max_payload(nats: &Client) -> usize {
    nats.server_info().max_payload.max(MIN_MAX_PAYLOAD)
}

/// Publishes a stream of bytes in messages within the payload limit. An empty message ends it.
///
/// # Errors
///
/// The NATS client is closed.
pub(crate) async fn publish_stream(
    nats: &Client,
    subject: Subject,
    pieces: impl IntoIterator<Item = Bytes>,
) -> Result<(), PublishError> {
    let mut limit = MIN_MAX_PAYLOAD;
    for mut piece in pieces {
        if piece.len() > limit {
            limit = max_payload(nats);
        }
        while !piece.is_empty() {
            let chunk = piece.split_to(piece.len().min(limit));
            nats.publish(subject.clone(), chunk).await?;
        }
    }
    nats.publish(subject, Bytes::new()).await
}

/// Trace context in the headers of a call.
pub(crate) struct HeaderCarrier<T>(pub(crate) T);

impl Extractor for HeaderCarrier<&HeaderMap> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|value| value.as_str())
    }

    fn keys(&self) -> Vec<&str> {
        self.0
            .iter()
            .filter_map(|(name, _)| std::str::from_utf8(name.as_ref()).ok())
            .collect()
    }
}

impl Injector for HeaderCarrier<&mut HeaderMap> {
    fn set(&mut self, key: &str, value: String) {
        self.0.insert(key, value);
    }
}
