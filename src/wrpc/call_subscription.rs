//! The subscription to the calls of all functions, and its end, which loses no call.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, Message, Subject, SubscribeError, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};

/// The last part of a subject on which the provider sends messages to itself, see
/// [`CallSubscription::unsubscribe_after`].
const DRAIN_MARKER: &str = "kvredis.drain";
/// The number of messages after which the subscription ends: more than can be in transit.
const MAX_IN_TRANSIT: u64 = 1024;
/// The interval at which the missing messages are sent: other processes of the provider, which are
/// in the same queue group, receive some of them.
const MARKER_INTERVAL: Duration = Duration::from_millis(10);
const MAX_TRANSIT_TIME: Duration = Duration::from_secs(1);

pub(crate) struct CallSubscription {
    nats: Client,
    messages: Subscriber,
    received: u64,
    marker: Subject,
}

impl CallSubscription {
    /// Subscribes to all subjects that begin with `prefix`, as a member of a queue group.
    ///
    /// # Errors
    ///
    /// The NATS client is closed.
    pub(crate) async fn start(
        nats: &Client,
        prefix: &str,
        group: String,
    ) -> Result<Self, SubscribeError> {
        Ok(Self {
            nats: nats.clone(),
            messages: nats.queue_subscribe(format!("{prefix}>"), group).await?,
            received: 0,
            marker: Subject::from(format!("{prefix}{DRAIN_MARKER}")),
        })
    }

    /// The next call; `None` when the subscription has ended.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            let message = self.messages.next().await?;
            self.received += 1;
            if message.subject != self.marker {
                return Some(message);
            }
        }
    }

    /// Ends the subscription; passes the calls that are still in transit to `accept`.
    pub(crate) async fn drain(&mut self, mut accept: impl FnMut(Message)) {
        // Without a connection to NATS no call is in transit.
        if !self.is_connected() {
            return;
        }
        let has_ended = self.unsubscribe_after(&mut accept).await;
        if !matches!(has_ended, Ok(true)) && self.unsubscribe().await.is_ok() {
            while let Some(message) = self.next().await {
                accept(message);
            }
        }
    }

    /// Ends the subscription after a number of messages, publishes as many as are missing, and
    /// returns true if it has ended.
    ///
    /// `async_nats` drops messages that the server sent before it processed a plain unsubscription.
    /// With a number, both end at the same message. But the server counts from the latest connection
    /// on and the client from the first one, so that this is impossible after a reconnection.
    async fn unsubscribe_after(
        &mut self,
        accept: &mut impl FnMut(Message),
    ) -> Result<bool, async_nats::Error> {
        let statistics = self.nats.statistics();
        if statistics.connects.load(Ordering::Relaxed) > 1 {
            return Ok(false);
        }
        self.messages
            .unsubscribe_after(self.received + MAX_IN_TRANSIT)
            .await?;
        let deadline = Instant::now() + MAX_TRANSIT_TIME;
        while Instant::now() < deadline && self.is_connected() {
            for _ in 0..MAX_IN_TRANSIT {
                self.nats.publish(self.marker.clone(), Bytes::new()).await?;
            }
            let next_markers = Instant::now() + MARKER_INTERVAL;
            while let Ok(message) = timeout_at(next_markers, self.next()).await {
                match message {
                    Some(message) => accept(message),
                    None => return Ok(true),
                }
            }
        }
        Ok(false)
    }

    /// Drains the subscription. `async_nats` delivers what the server had already sent only when a
    /// further message arrives: that is the echo of a message to an inbox.
    async fn unsubscribe(&mut self) -> Result<(), async_nats::Error> {
        let inbox = self.nats.new_inbox();
        let mut echo = self.nats.subscribe(inbox.clone()).await?;
        self.messages.drain().await?;
        self.nats.publish(inbox, Bytes::new()).await?;
        echo.next().await;
        Ok(())
    }

    fn is_connected(&self) -> bool {
        self.nats.connection_state() == State::Connected
    }
}
