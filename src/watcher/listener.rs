//! The listener of a watching link: queues the changes that Redis reports.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::warn;

use crate::redis::pubsub::listener::{Listener, Message};
use crate::settings::watch::WatchPattern;
use crate::telemetry::log_throttle::LogThrottle;
use crate::telemetry::watching;
use crate::telemetry::watching::Loss;
use crate::watcher::delivery::Delivery;
use crate::watcher::keyspace_event::{ChangeKind, PatternDedup};
use crate::watcher::lease::is_lease;

/// Receives keyspace events, and queues the changes that the component watches.
pub(crate) struct KeyspaceListener {
    /// The part of a channel's name before the key.
    channel_prefix: String,
    /// By the pattern of the channels.
    watched: HashMap<Vec<u8>, WatchPattern>,
    dedup: Mutex<PatternDedup>,
    interruptions: LogThrottle,
    delivery: Arc<Delivery>,
}

impl KeyspaceListener {
    pub(crate) fn new(
        channel_prefix: String,
        watched: HashMap<Vec<u8>, WatchPattern>,
        delivery: Arc<Delivery>,
    ) -> Self {
        Self {
            channel_prefix,
            watched,
            dedup: Mutex::default(),
            interruptions: LogThrottle::default(),
            delivery,
        }
    }

    fn queue(&self, kind: ChangeKind, channel: &[u8]) {
        let delivery = &self.delivery;
        let Some(redis_key) = channel.strip_prefix(self.channel_prefix.as_bytes()) else {
            return;
        };
        let text = String::from_utf8_lossy(redis_key);
        if is_lease(&text) {
            return;
        }
        let link = &delivery.link;
        let Ok(bucket) = link.bucket(&link.settings().watch_bucket) else {
            return;
        };
        let Some(key) = bucket.key_of(&text) else {
            return;
        };
        let is_utf8 = matches!(text, Cow::Borrowed(_));
        let key = key.to_owned();
        delivery
            .queue
            .push(if is_utf8 { Ok(key) } else { Err(key) }, kind);
        // Another process that has the lease counts its own; a new holder counts those that it has to deliver.
        if delivery.is_active() {
            delivery.record_dropped();
        }
    }
}

impl Listener for KeyspaceListener {
    fn on_message(&self, message: Message<'_>) {
        let Some(watched) = self.watched.get(message.pattern) else {
            return;
        };
        let Some(kind) = ChangeKind::of_event(message.payload) else {
            return;
        };
        let is_wanted = match kind {
            ChangeKind::Set => watched.on_set,
            ChangeKind::Deleted => watched.on_delete,
        };
        let is_first = self.dedup.lock().is_first(message, is_wanted);
        if is_first {
            self.queue(kind, message.channel);
        }
    }

    fn on_gap(&self, address: &str, duration: Duration) {
        self.dedup.lock().reset();
        watching::record_loss(1, Loss::Interrupted);
        let Some(times) = self.interruptions.record(1) else {
            return;
        };
        warn!(
            times,
            component = self.delivery.component,
            link = self.delivery.link_name,
            redis = address,
            ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            "watching resumed after an interruption: changes in between may have been missed"
        );
    }
}
