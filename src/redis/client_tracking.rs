//! Client tracking (`CLIENT TRACKING`): Redis reports, over the connection that a key was read on,
//! when that key changes (RESP3).
//!
//! Invalidations reach the cache as they are read from the socket, in order with the replies. Silence
//! proves nothing, so a heartbeat confirms that no invalidation is missing. Where the server does not
//! support tracking, nothing is cached, and the supervisor logs why.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::cache::freshness::Freshness;
use crate::cache::read_through::Cache;
use crate::redis::command::admin::AdminCommand;
use crate::redis::command::{Command, Packed};
use crate::redis::connect_error::ConnectError;
use crate::redis::server_error::ServerErrorExt as _;
use crate::tasks;

/// The state of client tracking on a session.
#[derive(Debug)]
pub(crate) enum Tracking {
    /// The settings do not enable the cache.
    Off,
    /// Values may be cached, as long as the tracker's freshness is not revoked.
    On(Arc<ClientTracker>),
    /// The server does not speak RESP3, for this reason.
    Unsupported(String),
}

/// Client tracking on one connection.
#[derive(Debug)]
pub(crate) struct ClientTracker {
    cache: Arc<Cache>,
    freshness: Arc<Freshness>,
    in_cluster: bool,
    /// In a cluster, a key of the connection's node: a heartbeat with this key also confirms that the
    /// node still serves its slot.
    heartbeat_key: Mutex<Option<String>>,
    /// Set before the freshness is revoked, and never changed.
    disabled_reason: OnceLock<String>,
}

impl ClientTracker {
    /// Tracking of a connection that is about to be established; nothing is fresh yet.
    pub(crate) fn new(cache: Arc<Cache>, in_cluster: bool) -> Self {
        Self {
            cache,
            freshness: Arc::new(Freshness::new()),
            in_cluster,
            heartbeat_key: Mutex::default(),
            disabled_reason: OnceLock::new(),
        }
    }

    /// Enables client tracking for subsequent reads, and starts the heartbeat. If the server does not
    /// support it, disables caching over this connection.
    pub(crate) async fn enable(
        self: &Arc<Self>,
        mut connection: MultiplexedConnection,
    ) -> Result<Option<AbortOnDropHandle<()>>, ConnectError> {
        // OPTIN: the server remembers only the keys that are announced with CLIENT CACHING.
        for command in [AdminCommand::TrackingOptIn, AdminCommand::CachingYes] {
            match connection.send_packed_command(&command.pack()).await {
                Ok(Value::ServerError(error)) if error.is_permanent() => {
                    self.disable(error.message());
                    return Ok(None);
                }
                Ok(Value::ServerError(error)) => return Err(ConnectError::server(&error)),
                Ok(_) => {}
                Err(_) => return Err(ConnectError::closed_during_handshake()),
            }
        }
        let heartbeat = Arc::clone(self).run_heartbeat(connection);
        Ok(Some(tasks::spawn("cache heartbeat", heartbeat)))
    }

    /// Applies what the server pushes.
    pub(crate) fn on_push(&self, push: &PushInfo) {
        match push.kind {
            PushKind::Invalidate => match push.data.as_slice() {
                [Value::Array(keys)] => self.cache.invalidate(keys.iter().map(|key| match key {
                    Value::BulkString(key) => key.as_slice(),
                    Value::SimpleString(key) => key.as_bytes(),
                    _ => &[],
                })),
                // Null instead of keys: FLUSHALL or FLUSHDB.
                _ => self.cache.invalidate_all(),
            },
            PushKind::Disconnection => self.revoke(),
            _ => {}
        }
    }

    /// The freshness of values that are read now; `None` once it is revoked.
    pub(crate) fn freshness(&self) -> Option<&Arc<Freshness>> {
        (!self.freshness.is_revoked()).then_some(&self.freshness)
    }

    /// Returns true if missing keys may be created without an invalidation: their slot may move to
    /// another node of the cluster.
    pub(crate) fn misses_new_keys(&self) -> bool {
        self.in_cluster
    }

    /// Records a key that the connection's node serves.
    pub(crate) fn record_served_key(&self, key: &str) {
        if self.in_cluster {
            let mut heartbeat_key = self.heartbeat_key.lock();
            if heartbeat_key.is_none() {
                *heartbeat_key = Some(key.to_owned());
            }
        }
    }

    /// Ends the use of everything that was read over this connection.
    pub(crate) fn revoke(&self) {
        if !self.freshness.is_revoked() {
            self.freshness.revoke();
            self.cache.invalidate_connection(&self.freshness);
        }
    }

    /// Disables caching over this connection, because the server does not support it.
    pub(crate) fn disable(&self, reason: String) {
        let _ = self.disabled_reason.set(reason);
        self.revoke();
    }

    pub(crate) fn disabled_reason(&self) -> Option<&str> {
        self.disabled_reason.get().map(String::as_str)
    }

    /// Confirms, whenever that is due, that no invalidation is missing.
    async fn run_heartbeat(self: Arc<Self>, mut connection: MultiplexedConnection) {
        while !self.freshness.is_revoked() {
            self.freshness.next_heartbeat().await;
            let key = self.heartbeat_key.lock().clone();
            let command = match &key {
                Some(key) => Command::Pttl { key },
                None => AdminCommand::Ping.into(),
            };
            let Packed::One(command) = command.pack() else {
                return;
            };
            let sent = Instant::now();
            match connection.send_packed_command(&command).await {
                Ok(Value::ServerError(error)) if key.is_some() && error.is_permanent() => {
                    self.disable(format!("PTTL: {}", error.message()));
                }
                Ok(Value::ServerError(_)) if key.is_some() => {
                    // The slot has moved, or the node does not serve it at present.
                    *self.heartbeat_key.lock() = None;
                    self.cache.invalidate_connection(&self.freshness);
                }
                Ok(_) => self.freshness.renew(sent),
                Err(_) => return,
            }
        }
    }
}
