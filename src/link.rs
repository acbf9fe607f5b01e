//! One link: its settings, its buckets, and its share of a connection.
//!
//! This is the policy of a link: which buckets exist, what may be written, how long a call may wait,
//! and what may be served from the cache. `table` finds the link of a call, `keyspace` maps buckets and
//! keys to Redis keys, `redis` sends commands.

pub(crate) mod keyspace;
pub(crate) mod registry;
pub(crate) mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument as _, info};

use crate::cache::entries::{CachedValue, EntryPolicy, ReadOutcome};
use crate::cache::read_through::{Cache, Lookup};
use crate::error::Error;
use crate::link::keyspace::{Bucket, Keyspace};
use crate::redis::command::{Command, MAX_ARGUMENTS, RetryPolicy, spec};
use crate::redis::connect_error::Outage;
use crate::redis::connection::Connection;
use crate::redis::limiter::Limiter;
use crate::redis::listing::{ListRequest, Page};
use crate::redis::reply;
use crate::redis::reply::Value;
use crate::redis::retry::Reply;
use crate::settings::link_settings::Settings;
use crate::telemetry::commands::CommandSpan;
use crate::telemetry::log_throttle::LogThrottle;

/// A link with valid settings; its Redis may be unreachable.
#[derive(Debug)]
pub(crate) struct Link {
    settings: Settings,
    keyspace: Keyspace,
    limiter: Limiter,
    connection: Arc<Connection>,
    replied: AtomicBool,
    layout_logged: AtomicBool,
    skipped_keys: LogThrottle,
}

impl Link {
    pub(crate) fn new(settings: Settings, connection: Arc<Connection>) -> Self {
        Self {
            keyspace: Keyspace::new(&settings),
            limiter: Limiter::new(settings.max_in_flight, settings.max_waiting),
            settings,
            connection,
            replied: AtomicBool::new(false),
            layout_logged: AtomicBool::new(false),
            skipped_keys: LogThrottle::default(),
        }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The address of its Redis, without credentials.
    pub(crate) fn address(&self) -> String {
        self.settings.address.to_string()
    }

    pub(crate) fn outage(&self) -> Option<Outage> {
        self.connection.outage()
    }

    /// Returns true if Redis has replied to a call over the link since it was put.
    pub(crate) fn has_replied(&self) -> bool {
        self.replied.load(Ordering::Relaxed)
    }

    /// The host has put the link again with the same settings.
    pub(crate) fn reset(&self) {
        self.replied.store(false, Ordering::Relaxed);
    }

    /// A bucket to read from.
    ///
    /// # Errors
    ///
    /// [`NoSuchStore`](crate::error::ErrorKind::NoSuchStore) for a bucket that the link does not have.
    pub(crate) fn bucket(&self, name: &str) -> Result<Bucket<'_>, Error> {
        let bucket = self.keyspace.bucket(name)?;
        if self.keyspace.is_prefixed(name) && !self.layout_logged.swap(true, Ordering::Relaxed) {
            info!(
                redis = self.address(),
                "keys of named buckets are stored as `bucket:key`; to use the keys of wasmCloud's \
                 own provider, which ignores bucket names, set BUCKET_LAYOUT=flat"
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

    /// Checks the size of a value to write.
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
            "the value has {bytes} bytes; this link accepts at most {limit} (MAX_VALUE_BYTES)"
        )))
    }

    /// The time to live of written keys, in milliseconds.
    pub(crate) fn ttl_ms(&self) -> Option<u64> {
        self.settings
            .ttl
            .map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
    }

    /// Counts keys that a listing skipped because they are not UTF-8.
    pub(crate) fn record_skipped_keys(&self, keys: usize) {
        if let Some(keys) = self.skipped_keys.record(keys) {
            tracing::warn!(
                keys,
                redis = self.address(),
                "keys that are not UTF-8 were skipped in listings"
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
        if command.argument_count() > MAX_ARGUMENTS {
            return Err(Error::other(format!(
                "too many keys in one call: {} would have {} arguments, and Redis accepts at most \
                 {MAX_ARGUMENTS} in a command",
                command.spec().name,
                command.argument_count(),
            )));
        }
        let reply = self.send(command, deadline).await?;
        Ok(reply.value)
    }

    pub(crate) fn cache(&self) -> Option<&Cache> {
        self.connection.cache().map(Arc::as_ref)
    }

    /// One page of a listing of Redis keys.
    ///
    /// # Errors
    ///
    /// As [`Connection::execute`].
    pub(crate) async fn list(
        &self,
        request: &ListRequest<'_>,
        deadline: Instant,
    ) -> Result<Page, Error> {
        let span = CommandSpan::started(spec::SCAN.name, None, &self.settings.address);
        let page = Box::pin(self.connection.list(
            request,
            &self.limiter,
            self.retry_policy(deadline),
        ));
        let page = page.instrument(span.span()).await;
        span.ended(&page);
        if page.is_ok() {
            self.replied.store(true, Ordering::Relaxed);
        }
        page
    }

    fn retry_policy(&self, deadline: Instant) -> RetryPolicy {
        RetryPolicy {
            deadline,
            response_timeout: self.settings.response_timeout,
            retries: self.settings.retries,
            max_wait: self.settings.max_wait,
        }
    }

    /// The cached value of a Redis key, if there is one.
    pub(crate) fn peek(&self, key: &str) -> Option<CachedValue> {
        self.cache()?.peek(key.as_bytes(), Instant::now())
    }

    /// Reads through the cache, where the link has one.
    ///
    /// # Errors
    ///
    /// As [`Connection::execute`].
    pub(crate) async fn value(&self, key: &str, deadline: Instant) -> Result<Option<Bytes>, Error> {
        let Some(cache) = self.cache() else {
            return self.get(key, deadline).await;
        };
        let sent_at = Instant::now();
        let fill = match cache.lookup(key.as_bytes(), sent_at) {
            Lookup::Hit(value) => return Ok(value.into_option()),
            Lookup::Miss(fill) => fill,
            Lookup::Bypass => return self.get(key, deadline).await,
            Lookup::Pending(read) => {
                // It waits for another call, which is counted where it waits for Redis.
                match timeout_at(deadline, read.outcome()).await {
                    Ok(ReadOutcome::Completed(result)) => return result,
                    Ok(ReadOutcome::Abandoned) | Err(_) => return self.get(key, deadline).await,
                }
            }
        };
        let reply = self.send(&Command::CachedGet { key }, deadline).await;
        let (outcome, entry_policy) =
            match reply.and_then(|reply| cacheable(reply, sent_at, cache.ttl())) {
                Ok((value, entry_policy)) => (Ok(value), entry_policy),
                Err(error) => (Err(error), None),
            };
        fill.complete(&outcome, entry_policy);
        outcome
    }

    /// Reads from Redis.
    async fn get(&self, key: &str, deadline: Instant) -> Result<Option<Bytes>, Error> {
        let value = self.execute(&Command::Get { key }, deadline).await?;
        reply::optional_bytes("GET", value)
    }

    async fn send(&self, command: &Command<'_>, deadline: Instant) -> Result<Reply, Error> {
        let _invalidation = self
            .cache()
            .and_then(|cache| InvalidateOnDrop::new(cache, command));
        let policy = self.retry_policy(deadline);
        let span = CommandSpan::started(
            command.spec().name,
            command.transaction_size(),
            &self.settings.address,
        );
        // Boxed: it is most of a call's future, which is moved several times on its way here.
        let reply = Box::pin(self.connection.execute(command, &self.limiter, policy));
        let reply = reply.instrument(span.span()).await;
        span.ended(&reply);
        if reply.is_ok() {
            self.replied.store(true, Ordering::Relaxed);
        }
        reply
    }
}

/// Invalidates the keys of a write when it ends, whatever its outcome.
struct InvalidateOnDrop<'a> {
    cache: &'a Cache,
    keys: Vec<&'a [u8]>,
}

impl<'a> InvalidateOnDrop<'a> {
    /// `None` for a command that writes nothing.
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

/// Reads the reply to a [`Command::CachedGet`]: the value, and how long it may be cached.
///
/// # Errors
///
/// The reply has another type.
fn cacheable(
    reply: Reply,
    sent_at: Instant,
    age: Duration,
) -> Result<(Option<Bytes>, Option<EntryPolicy>), Error> {
    let both = reply::array("GET", reply.value, 2)?;
    let [value, time_to_live] =
        <[Value; 2]>::try_from(both).map_err(|_| Error::unexpected_reply("GET"))?;
    let value = reply::optional_bytes("GET", value)?;
    let Some(tag) = reply.cache_tag else {
        return Ok((value, None));
    };
    let lifetime = match (&value, time_to_live) {
        (_, Value::Nil) => return Ok((value, None)),
        (None, _) => tag.negative_ttl.map_or(age, |limit| limit.min(age)),
        // The key does not expire.
        (Some(_), Value::Int(-1)) => age,
        // Counted from before the command was sent, so that it expires here before it does in Redis.
        (Some(_), Value::Int(remaining)) => {
            age.min(Duration::from_millis(u64::try_from(remaining).unwrap_or(0)))
        }
        _ => return Ok((value, None)),
    };
    let entry_policy = EntryPolicy {
        expires_at: sent_at + lifetime,
        freshness: tag.freshness,
    };
    Ok((value, Some(entry_policy)))
}
