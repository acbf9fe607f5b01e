//! One link: its settings, its buckets, its share of a connection.
//!
//! This is all that the rooms of the interfaces need to carry out a call. Which link a call
//! belongs to is for `links`, what happens on the way to Redis for `connection`.

pub(crate) mod keyspace;
pub(crate) mod registry;
pub(crate) mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument as _, info};

use crate::cache::read_through::{Cache, EntryPolicy, Lookup};
use crate::error::Error;
use crate::link::keyspace::{Bucket, Keyspace};
use crate::redis::command::{Command, RetryPolicy};
use crate::redis::connect_error::Outage;
use crate::redis::connection::Connection;
use crate::redis::limiter::Limiter;
use crate::redis::reply;
use crate::redis::reply::Value;
use crate::redis::retry::Reply;
use crate::settings::Settings;
use crate::telemetry::commands::CommandSpan;
use crate::telemetry::log_throttle::LogThrottle;

/// A link that works, or will as soon as its Redis is there.
#[derive(Debug)]
pub(crate) struct Link {
    settings: Settings,
    keyspace: Keyspace,
    gate: Limiter,
    connection: Arc<Connection>,
    answered: AtomicBool,
    told_of_layout: AtomicBool,
    unlisted: LogThrottle,
}

impl Link {
    /// A link with these settings over this connection.
    pub(crate) fn new(settings: Settings, connection: Arc<Connection>) -> Self {
        Self {
            keyspace: Keyspace::new(&settings),
            gate: Limiter::new(settings.max_in_flight, settings.max_waiting),
            settings,
            connection,
            answered: AtomicBool::new(false),
            told_of_layout: AtomicBool::new(false),
            unlisted: LogThrottle::default(),
        }
    }

    /// What was set.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The address of its Redis, without credentials.
    pub(crate) fn address(&self) -> String {
        self.settings.address.to_string()
    }

    /// Since when and why it has no connection.
    pub(crate) fn outage(&self) -> Option<Outage> {
        self.connection.outage()
    }

    /// Whether Redis has answered a call over it since it was put.
    pub(crate) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// It was put again as it is.
    pub(crate) fn reset(&self) {
        self.answered.store(false, Ordering::Relaxed);
    }

    /// A bucket to read from.
    ///
    /// # Errors
    ///
    /// [`NoSuchStore`](crate::error::ErrorKind::NoSuchStore) for a bucket that the link does not have.
    pub(crate) fn bucket(&self, name: &str) -> Result<Bucket<'_>, Error> {
        let bucket = self.keyspace.bucket(name)?;
        if self.keyspace.is_prefixed(name) && !self.told_of_layout.swap(true, Ordering::Relaxed) {
            info!(
                redis = self.address(),
                "keys of named buckets are stored as `bucket:key`; who comes from wasmCloud's own \
                 provider, which ignored the names, sets BUCKET_LAYOUT=flat"
            );
        }
        Ok(bucket)
    }

    /// A bucket to write to.
    ///
    /// # Errors
    ///
    /// As [`Self::bucket`], and [`AccessDenied`](crate::error::ErrorKind::AccessDenied) on a link that is read only.
    pub(crate) fn writable_bucket(&self, name: &str) -> Result<Bucket<'_>, Error> {
        let bucket = self.bucket(name)?;
        if self.settings.read_only {
            return Err(Error::access_denied());
        }
        Ok(bucket)
    }

    /// Checks a value that is to be written.
    ///
    /// # Errors
    ///
    /// It is larger than the link allows.
    pub(crate) fn check_size(&self, bytes: usize) -> Result<(), Error> {
        let limit = self.settings.max_value_bytes;
        if bytes <= limit {
            return Ok(());
        }
        Err(Error::other(format!(
            "the value has {bytes} bytes, and this link takes at most {limit} (MAX_VALUE_BYTES)"
        )))
    }

    /// The time to live of what is written, in milliseconds.
    pub(crate) fn ttl_ms(&self) -> Option<u64> {
        self.settings
            .ttl
            .map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
    }

    /// Counts keys that a listing left out because they are no UTF-8.
    pub(crate) fn record_skipped_keys(&self, keys: usize) {
        if let Some(keys) = self.unlisted.record(keys) {
            tracing::warn!(
                keys,
                redis = self.address(),
                "keys that are not UTF-8 were left out of listings"
            );
        }
    }

    /// Sends a command to Redis and returns its reply.
    ///
    /// # Errors
    ///
    /// As [`Connection::execute`].
    pub(crate) async fn execute(
        &self,
        command: &Command<'_>,
        deadline: Instant,
    ) -> Result<Value, Error> {
        let reply = self.send(command, deadline).await?;
        Ok(reply.value)
    }

    /// What has been read over the link and is kept, if anything is.
    pub(crate) fn cache(&self) -> Option<&Cache> {
        self.connection.cache().map(Arc::as_ref)
    }

    /// The value of a key of Redis, if it is in memory; that the key is missing may be, too.
    pub(crate) fn peek(&self, key: &str) -> Option<Option<Bytes>> {
        self.cache()?.peek(key.as_bytes(), Instant::now())
    }

    /// The value of a key of Redis; from memory, where the link keeps what it has read.
    ///
    /// # Errors
    ///
    /// As [`Connection::execute`].
    pub(crate) async fn value(&self, key: &str, deadline: Instant) -> Result<Option<Bytes>, Error> {
        let Some(cache) = self.cache() else {
            return self.get(key, deadline).await;
        };
        let asked = Instant::now();
        let turn = match cache.lookup(key.as_bytes(), asked) {
            Lookup::Hit(value) => return Ok(value),
            Lookup::Miss(turn) => turn,
            Lookup::Bypass => return self.get(key, deadline).await,
            Lookup::Pending(reading) => {
                let _waiting = self.gate.wait()?;
                match timeout_at(deadline, reading.outcome()).await {
                    Ok(Some(outcome)) => return outcome,
                    Ok(None) | Err(_) => return self.get(key, deadline).await,
                }
            }
        };
        let answered = self.send(&Command::CachedGet { key }, deadline).await;
        let (outcome, keep) = match answered.and_then(|answered| read(answered, asked, cache.age()))
        {
            Ok((value, keep)) => (Ok(value), keep),
            Err(error) => (Err(error), None),
        };
        turn.end(&outcome, keep);
        outcome
    }

    /// The value of a key as Redis has it.
    async fn get(&self, key: &str, deadline: Instant) -> Result<Option<Bytes>, Error> {
        let value = self.execute(&Command::Get { key }, deadline).await?;
        reply::optional_bytes("GET", value)
    }

    async fn send(&self, command: &Command<'_>, deadline: Instant) -> Result<Reply, Error> {
        let _changing = self
            .cache()
            .and_then(|cache| InvalidateOnDrop::new(cache, command));
        let patience = RetryPolicy {
            deadline,
            response_timeout: self.settings.response_timeout,
            retries: self.settings.retries,
        };
        let span = CommandSpan::started(
            command.spec().name,
            command.transaction_size(),
            &self.settings.address,
        );
        // Boxed, because it is most of a call, and each call is moved several times on its way here.
        let asked = Box::pin(self.connection.execute(command, &self.gate, patience));
        let answer = asked.instrument(span.span()).await;
        span.ended(&answer);
        if answer.is_ok() {
            self.answered.store(true, Ordering::Relaxed);
        }
        answer
    }
}

/// Keys that are being written: whatever comes of it, what was read of them before is forgotten
/// when it is over.
struct InvalidateOnDrop<'a> {
    cache: &'a Cache,
    keys: Vec<&'a [u8]>,
}

impl<'a> InvalidateOnDrop<'a> {
    /// Nothing, if the request changes nothing.
    fn new(cache: &'a Cache, command: &'a Command<'_>) -> Option<Self> {
        if command.is_read() {
            return None;
        }
        let keys: Vec<&[u8]> = command.keys().collect();
        (!keys.is_empty()).then_some(Self { cache, keys })
    }
}

impl Drop for InvalidateOnDrop<'_> {
    fn drop(&mut self) {
        self.cache.invalidate(self.keys.drain(..));
    }
}

/// The value that a [`Command::CachedGet`] answered, and how long it may be kept.
///
/// # Errors
///
/// The answer is of another kind.
fn read(
    answered: Reply,
    asked: Instant,
    age: Duration,
) -> Result<(Option<Bytes>, Option<EntryPolicy>), Error> {
    let both = reply::array("GET", answered.value, 2)?;
    let [value, time_to_live] =
        <[Value; 2]>::try_from(both).map_err(|_| Error::unexpected_reply("GET"))?;
    let value = reply::optional_bytes("GET", value)?;
    let Some(by) = answered.kept else {
        return Ok((value, None));
    };
    let longest = match (&value, time_to_live) {
        (_, Value::Nil) => return Ok((value, None)),
        (None, _) => by.missing_for.map_or(age, |limit| limit.min(age)),
        // It does not expire.
        (Some(_), Value::Int(-1)) => age,
        // Counted from before the question, so that it is over here before it is there.
        (Some(_), Value::Int(left)) => {
            age.min(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
        }
        _ => return Ok((value, None)),
    };
    let keep = EntryPolicy {
        until: asked + longest,
        freshness: by.freshness,
    };
    Ok((value, Some(keep)))
}
