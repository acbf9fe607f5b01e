//! Redis's client tracking: it tells, over the connection that a key was read on, when that key
//! changes (RESP3).
//!
//! What it tells is handed to the cache as it is read from the socket, in order with the answers.
//! An empty socket proves nothing, so questions are asked to prove that nothing is missing. Where
//! Redis does not take part, nothing is kept, and the log says why.

use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, MutexGuard};
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};
use tokio::time::Instant;

use crate::cache::freshness::Freshness;
use crate::cache::read_through::Cache;
use crate::redis::command::Command;

/// ClientTracker on one connection.
#[derive(Debug)]
pub(crate) struct ClientTracker {
    cache: Arc<Cache>,
    freshness: Arc<Freshness>,
    /// A key of this node of a cluster: asking for it tells whether the node still serves.
    in_cluster: bool,
    key: Mutex<Option<Vec<u8>>>,
    refusal: OnceLock<String>,
}

impl ClientTracker {
    /// Of a connection that is about to be made; it vouches for nothing yet.
    pub(crate) fn new(cache: Arc<Cache>, in_cluster: bool) -> Self {
        Self {
            cache,
            freshness: Arc::new(Freshness::new()),
            in_cluster,
            key: Mutex::default(),
            refusal: OnceLock::new(),
        }
    }

    /// Takes what Redis tells of its own accord.
    pub(crate) fn heard(&self, push: &PushInfo) {
        match push.kind {
            PushKind::Invalidate => match push.data.as_slice() {
                [Value::Array(keys)] => self.cache.invalidate(keys.iter().map(|key| match key {
                    Value::BulkString(key) => key.as_slice(),
                    Value::SimpleString(key) => key.as_bytes(),
                    _ => &[],
                })),
                // No keys are all keys.
                _ => self.cache.invalidate_all(),
            },
            PushKind::Disconnection => self.end(),
            _ => {}
        }
    }

    /// Who vouches for what is read now; nobody, if it is over.
    pub(crate) fn freshness(&self) -> Option<&Arc<Freshness>> {
        (!self.freshness.is_revoked()).then_some(&self.freshness)
    }

    /// Whether keys that are missing can be created where this connection does not hear of it:
    /// their slot may move to another node of the cluster.
    pub(crate) fn misses_new_keys(&self) -> bool {
        self.in_cluster
    }

    /// Notes a request that this connection's node answered.
    pub(crate) fn has_key(&self, request: &Command<'_>) {
        if self.in_cluster {
            let mut noted = self.noted();
            if noted.is_none() {
                *noted = request.keys().next().map(|key| key.to_vec());
            }
        }
    }

    /// Nothing that was read over this connection is used any more.
    pub(crate) fn end(&self) {
        if !self.freshness.is_revoked() {
            self.freshness.revoke();
            self.cache.invalidate_connection(&self.freshness);
        }
    }

    /// Redis does not take part, for this reason: nothing is kept.
    pub(crate) fn refused(&self, why: String) {
        self.end();
        let _ = self.refusal.set(why);
    }

    /// Why nothing is kept, if Redis does not take part.
    pub(crate) fn refusal(&self) -> Option<&String> {
        self.refusal.get()
    }

    /// Asks, whenever that is due, to prove that all changes have been heard of.
    pub(crate) async fn prove(self: Arc<Self>, mut commands: MultiplexedConnection) {
        while !self.freshness.is_revoked() {
            self.freshness.next_heartbeat().await;
            let key = self.noted().clone();
            let question = match &key {
                Some(key) => redis::cmd("EXISTS").arg(key).take(),
                None => redis::cmd("PING"),
            };
            let asked = Instant::now();
            match commands.send_packed_command(&question).await {
                Ok(Value::ServerError(_)) if key.is_some() => {
                    // The slot has moved, or the node does not serve at present.
                    *self.noted() = None;
                    self.cache.invalidate_connection(&self.freshness);
                }
                Ok(_) => self.freshness.renew(asked),
                Err(_) => return,
            }
        }
    }

    fn noted(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.key.lock()
    }
}
