//! Calls one component with the changes that wait for it, one lane after another change.
//!
//! The value is read when its turn has come, so that a slow component is called with what is
//! stored then. In a cluster a deletion is looked into as well: a key that moves to another node is
//! deleted where it was. A component that no host runs is called again until one does; a call that
//! may have reached a host is not repeated, for it may have had its effect.

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

/// Pauses before another attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// How long one attempt to read a value may take.
const READ: Duration = Duration::from_secs(2);
/// How often a value is tried to be read while there is a connection.
const READ_ATTEMPTS: u32 = 5;

/// What it takes to deliver to one component over one link.
pub(crate) struct Delivery {
    /// The way to the component.
    pub(crate) caller: Arc<ComponentClient>,
    /// The component.
    pub(crate) component: String,
    /// The link's name.
    pub(crate) name: String,
    /// The way to the values.
    pub(crate) link: Arc<Link>,
    /// What waits.
    pub(crate) queue: Queue,
    /// Without it this process does not deliver.
    pub(crate) lease: Option<Arc<Lease>>,
    /// Changes that were lost.
    pub(crate) losses: LogThrottle,
    /// Attempts that found no host.
    pub(crate) absences: LogThrottle,
}

/// What came of reading a value.
enum Stored {
    Value(Bytes),
    /// Nothing, or nothing that is a string.
    Nothing,
    Unreadable(Error),
}

/// What came of an attempt.
enum DeliveryAttempt {
    Done,
    Retry,
}

impl Delivery {
    /// Delivers the changes of a lane, for ever.
    pub(crate) async fn run(&self, lane: usize) {
        loop {
            let change = self.queue.next(lane).await;
            let mut pause = FIRST_PAUSE;
            let mut attempts = 0;
            while let DeliveryAttempt::Retry = self.attempt(&change, &mut attempts).await {
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// The lease is lost: nothing that waits is delivered, for another process may deliver by now.
    pub(crate) fn give_up(&self) {
        self.lapsed(self.queue.clear());
    }

    fn lapsed(&self, changes: usize) {
        let why = "they waited when this process lost the lease (WATCH_ONCE)";
        self.lost(changes, Loss::Lapsed, why);
    }

    /// Notes changes that the component is not told of.
    pub(crate) fn lost(&self, changes: usize, loss: Loss, why: &str) {
        if changes == 0 {
            return;
        }
        watching::lost(changes, loss);
        if let Some(changes) = self.losses.record(changes) {
            warn!(
                component = self.component,
                link = self.name,
                changes,
                reason = why,
                "changes of keys that the component was not told of; the reason is the latest one's"
            );
        }
    }

    async fn attempt(&self, change: &Change, attempts: &mut u32) -> DeliveryAttempt {
        if self.lease.as_ref().is_some_and(|lease| !lease.is_held()) {
            self.lapsed(1);
            return DeliveryAttempt::Done;
        }
        let span = watching::span();
        self.tell(change, attempts).instrument(span).await
    }

    async fn tell(&self, change: &Change, attempts: &mut u32) -> DeliveryAttempt {
        let told = match change.kind {
            ChangeKind::Deleted => match self.is_gone(&change.key).await {
                Ok(true) => WatchEvent::Deleted(&change.key),
                Ok(false) => {
                    debug!("a key that was deleted is there: it moved, or was set again");
                    return DeliveryAttempt::Done;
                }
                Err(error) => return self.unread(&error, attempts),
            },
            ChangeKind::Set => match self.stored(&change.key).await {
                Stored::Value(value) => WatchEvent::Set(&change.key, value),
                Stored::Nothing => {
                    debug!("a value was gone before the component could be told of it");
                    return DeliveryAttempt::Done;
                }
                Stored::Unreadable(error) => return self.unread(&error, attempts),
            },
        };
        match self.caller.notify(&self.component, &self.name, told).await {
            Ok(()) => {
                watching::delivered();
                DeliveryAttempt::Done
            }
            Err(failure @ (NotifyError::NoResponders | NotifyError::Disconnected)) => {
                if let Some(attempts) = self.absences.record(1) {
                    warn!(
                        component = self.component,
                        link = self.name,
                        attempts,
                        reason = %failure,
                        "changes wait for the component that watches"
                    );
                }
                DeliveryAttempt::Retry
            }
            Err(failure) => {
                self.lost(1, Loss::Failed, &failure.to_string());
                DeliveryAttempt::Done
            }
        }
    }

    /// A value could not be read: without a connection that is no reason to give up.
    fn unread(&self, error: &Error, attempts: &mut u32) -> DeliveryAttempt {
        if self.link.outage().is_none() {
            *attempts += 1;
        }
        if *error.kind() == ErrorKind::AccessDenied || *attempts >= READ_ATTEMPTS {
            let why = format!("the value cannot be read: {error}");
            self.lost(1, Loss::Failed, &why);
            return DeliveryAttempt::Done;
        }
        DeliveryAttempt::Retry
    }

    /// The value of a key now. It is asked of Redis even where a cache or a replica might know.
    async fn stored(&self, key: &str) -> Stored {
        let answer = self.ask(key, |key| Command::Get { key }).await;
        match answer.and_then(|answer| optional_bytes("GET", answer)) {
            Ok(Some(value)) => Stored::Value(value),
            Ok(None) => Stored::Nothing,
            Err(error) if error.server_code() == Some("WRONGTYPE") => Stored::Nothing,
            Err(error) => Stored::Unreadable(error),
        }
    }

    /// Whether a key of which Redis said that it was deleted is gone: always on a single server; in a
    /// cluster it may have moved to another node.
    async fn is_gone(&self, key: &str) -> Result<bool, Error> {
        if !matches!(
            self.link.settings().address.server,
            ServerSpec::Cluster { .. }
        ) {
            return Ok(true);
        }
        let answer = self.ask(key, |key| Command::Exists { key }).await?;
        Ok(integer("EXISTS", &answer)? == 0)
    }

    async fn ask(
        &self,
        key: &str,
        command: impl FnOnce(&str) -> Command<'_>,
    ) -> Result<Value, Error> {
        let link = &self.link;
        let bucket = link.bucket(&link.settings().watch_bucket)?;
        let key = bucket.redis_key(key);
        link.execute(&command(&key), Instant::now() + READ).await
    }
}
