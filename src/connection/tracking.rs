//! Redis's client tracking: it tells, over the connection that a key was read on, when that key
//! changes (RESP3).
//!
//! What it tells is handed to the cache as it is read from the socket, in order with the answers.
//! An empty socket proves nothing, so questions are asked to prove that nothing is missing. Where
//! Redis does not take part, nothing is kept, and the log says why.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};
use tokio::time::Instant;

use super::request::Request;
use crate::cache::{Cache, Vouch};

/// Tracking on one connection.
#[derive(Debug)]
pub struct Tracking {
    cache: Arc<Cache>,
    vouch: Arc<Vouch>,
    /// A key of this node of a cluster: asking for it tells whether the node still serves.
    in_cluster: bool,
    key: Mutex<Option<Vec<u8>>>,
    refusal: OnceLock<String>,
}

impl Tracking {
    /// Of a connection that is about to be made; it vouches for nothing yet.
    pub fn new(cache: Arc<Cache>, in_cluster: bool) -> Self {
        Self {
            cache,
            vouch: Arc::default(),
            in_cluster,
            key: Mutex::default(),
            refusal: OnceLock::new(),
        }
    }

    /// Takes what Redis tells of its own accord.
    pub fn heard(&self, push: &PushInfo) {
        match push.kind {
            PushKind::Invalidate => match push.data.as_slice() {
                [Value::Array(keys)] => self.cache.forget(keys.iter().map(|key| match key {
                    Value::BulkString(key) => key.as_slice(),
                    Value::SimpleString(key) => key.as_bytes(),
                    _ => &[],
                })),
                // No keys are all keys.
                _ => self.cache.forget_all(),
            },
            PushKind::Disconnection => self.end(),
            _ => {}
        }
    }

    /// Who vouches for what is read now; nobody, if it is over.
    pub fn vouch(&self) -> Option<&Arc<Vouch>> {
        (!self.vouch.is_over()).then_some(&self.vouch)
    }

    /// Whether keys that are missing can be created where this connection does not hear of it:
    /// their slot may move to another node of the cluster.
    pub fn is_blind_to_new_keys(&self) -> bool {
        self.in_cluster
    }

    /// Notes a request that this connection's node answered.
    pub fn has_key(&self, request: &Request) {
        if self.in_cluster {
            let mut noted = self.noted();
            if noted.is_none() {
                *noted = request.keys().first().map(|key| key.to_vec());
            }
        }
    }

    /// Nothing that was read over this connection is used any more.
    pub fn end(&self) {
        if !self.vouch.is_over() {
            self.vouch.end();
            self.cache.forget_from(&self.vouch);
        }
    }

    /// Redis does not take part, for this reason: nothing is kept.
    pub fn refused(&self, why: String) {
        self.end();
        let _ = self.refusal.set(why);
    }

    /// Why nothing is kept, if Redis does not take part.
    pub fn refusal(&self) -> Option<&String> {
        self.refusal.get()
    }

    /// Asks, whenever that is due, to prove that all changes have been heard of.
    pub async fn prove(self: Arc<Self>, mut commands: MultiplexedConnection) {
        while !self.vouch.is_over() {
            self.vouch.due().await;
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
                    self.cache.forget_from(&self.vouch);
                }
                Ok(_) => self.vouch.confirm(asked),
                Err(_) => return,
            }
        }
    }

    fn noted(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
