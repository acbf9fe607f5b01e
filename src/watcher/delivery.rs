//! Calls one component with its queued changes.
//!
//! The value is read when the change is delivered, so a slow component receives the value that is stored
//! then. In a cluster, a deletion is verified first: a key that moves to another node is deleted where it
//! was. A component that no host runs is called again until one does; a call that may have reached a host is
//! not repeated, since it may have had its effect.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use tracing::{Instrument as _, debug, warn};

use crate::error::{Error, ErrorKind};
use crate::link::Link;
use crate::redis::command::Command;
use crate::redis::reply::{Value, integer, optional_bytes};
use crate::settings::address::ServerSpec;
use crate::telemetry::log_throttle::LogThrottle;
use crate::telemetry::watching;
use crate::telemetry::watching::Loss;
use crate::watcher::keyspace_event::ChangeKind;
use crate::watcher::lease::Lease;
use crate::watcher::queue::{Change, Queue};
use crate::wrpc::client::{ComponentClient, NotifyError, WatchEvent};

/// The first and the longest pause between attempts.
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(500);
/// The time limit of one attempt to read a value.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// Attempts to read a value, not counting those without a connection.
const MAX_READ_ATTEMPTS: u32 = 5;

/// Delivery to one component over one link.
pub(crate) struct Delivery {
    pub(crate) client: Arc<ComponentClient>,
    pub(crate) component: String,
    pub(crate) link_name: String,
    /// The link to read values over.
    pub(crate) link: Arc<Link>,
    pub(crate) queue: Queue,
    /// With `WATCH_ONCE`, only its holder delivers.
    pub(crate) lease: Option<Arc<Lease>>,
    /// Lost changes.
    pub(crate) losses: LogThrottle,
    /// Attempts without a host that runs the component.
    pub(crate) absences: LogThrottle,
}

/// A string in Redis.
enum StoredValue {
    Present(Bytes),
    /// The key is missing, or is not a string.
    Absent,
}

/// The outcome of an attempt to deliver a change.
enum DeliveryAttempt {
    Done,
    Retry,
}

impl Delivery {
    /// Delivers the changes of a lane until the queue is closed.
    pub(crate) async fn run(&self, lane: usize) {
        while let Some(change) = self.queue.next(lane).await {
            if !self.is_active() {
                // The election opens the queue again.
                self.queue.hold();
                self.queue.put_back(lane);
                continue;
            }
            let mut pause = MIN_PAUSE;
            let mut failed_reads = 0;
            loop {
                let attempt = self.deliver(&change, &mut failed_reads);
                match attempt.instrument(watching::delivery_span()).await {
                    DeliveryAttempt::Done => {
                        self.queue.settle(lane);
                        break;
                    }
                    DeliveryAttempt::Retry if self.is_active() => {}
                    DeliveryAttempt::Retry => {
                        self.queue.put_back(lane);
                        break;
                    }
                }
                tokio::select! {
                    () = sleep(pause) => {}
                    // The change is still in the queue.
                    () = self.queue.closed() => return,
                }
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }

    /// Returns true if this process delivers.
    pub(crate) fn is_active(&self) -> bool {
        self.lease.as_ref().is_none_or(|lease| lease.is_held())
    }

    /// Drops the queued changes after the lease was lost to a process that may not have received them.
    pub(crate) fn drop_queue(&self) {
        let reason = "they were queued when this process lost the lease (WATCH_ONCE)";
        self.record_loss(self.queue.clear(), Loss::LeaseLost, reason);
    }

    /// Counts and logs the changes that a full queue has dropped.
    pub(crate) fn record_dropped(&self) {
        let dropped = self.queue.take_dropped();
        self.record_loss(dropped, Loss::Dropped, "the queue of the component is full");
    }

    /// Counts and logs changes that the component does not receive.
    pub(crate) fn record_loss(&self, changes: usize, loss: Loss, reason: &str) {
        if changes == 0 {
            return;
        }
        watching::record_loss(changes, loss);
        if let Some(changes) = self.losses.record(changes) {
            warn!(
                component = self.component,
                link = self.link_name,
                changes,
                reason,
                "key changes not delivered (most recent reason shown)"
            );
        }
    }

    async fn deliver(&self, change: &Change, failed_reads: &mut u32) -> DeliveryAttempt {
        let Ok(key) = &change.key else {
            self.record_loss(1, Loss::InvalidUtf8, "the key is not UTF-8");
            return DeliveryAttempt::Done;
        };
        let event = match change.kind {
            ChangeKind::Deleted => match self.is_deleted(key).await {
                Ok(true) => WatchEvent::Deleted(key),
                Ok(false) => {
                    debug!("a deleted key exists: it was moved, or set again");
                    return DeliveryAttempt::Done;
                }
                Err(error) => return self.record_failed_read(&error, failed_reads),
            },
            ChangeKind::Set => match self.stored_value(key).await {
                Ok(StoredValue::Present(value)) => WatchEvent::Set(key, value),
                Ok(StoredValue::Absent) => {
                    debug!("a value was deleted before its change could be delivered");
                    return DeliveryAttempt::Done;
                }
                Err(error) => return self.record_failed_read(&error, failed_reads),
            },
        };
        let notified = self.client.notify(&self.component, &self.link_name, event);
        match notified.await {
            Ok(()) => {
                watching::record_delivery();
                DeliveryAttempt::Done
            }
            Err(error @ (NotifyError::NoResponders | NotifyError::Disconnected)) => {
                if let Some(attempts) = self.absences.record(1) {
                    warn!(
                        component = self.component,
                        link = self.link_name,
                        attempts,
                        reason = %error,
                        "changes wait for the component that watches"
                    );
                }
                DeliveryAttempt::Retry
            }
            Err(error) => {
                self.record_loss(1, Loss::Failed, &error.to_string());
                DeliveryAttempt::Done
            }
        }
    }

    /// Decides whether a value is read again. Attempts without a connection do not count.
    fn record_failed_read(&self, error: &Error, failed_reads: &mut u32) -> DeliveryAttempt {
        if self.link.outage().is_none() {
            *failed_reads += 1;
        }
        if *error.kind() == ErrorKind::AccessDenied || *failed_reads >= MAX_READ_ATTEMPTS {
            let reason = format!("the value cannot be read: {error}");
            self.record_loss(1, Loss::Failed, &reason);
            return DeliveryAttempt::Done;
        }
        DeliveryAttempt::Retry
    }

    /// The value of a key in Redis: neither a cache nor a replica may be behind the change.
    async fn stored_value(&self, key: &str) -> Result<StoredValue, Error> {
        let reply = self.execute(key, |key| Command::Get { key }).await;
        match reply.and_then(|reply| optional_bytes("GET", reply)) {
            Ok(Some(value)) => Ok(StoredValue::Present(value)),
            Ok(None) => Ok(StoredValue::Absent),
            Err(error) if error.server_code() == Some("WRONGTYPE") => Ok(StoredValue::Absent),
            Err(error) => Err(error),
        }
    }

    /// Returns true if a key that Redis reported as deleted does not exist. Only in a cluster it may: it may
    /// have moved to another node.
    async fn is_deleted(&self, key: &str) -> Result<bool, Error> {
        let server = &self.link.settings().address.server;
        if !matches!(server, ServerSpec::Cluster { .. }) {
            return Ok(true);
        }
        let reply = self.execute(key, |key| Command::Exists { key }).await?;
        Ok(integer("EXISTS", &reply)? == 0)
    }

    async fn execute(
        &self,
        key: &str,
        command: impl FnOnce(&str) -> Command<'_>,
    ) -> Result<Value, Error> {
        let bucket = self.link.bucket(&self.link.settings().watch_bucket)?;
        let key = bucket.redis_key(key);
        let deadline = Instant::now() + READ_TIMEOUT;
        self.link.execute(&command(&key), deadline).await
    }
}
