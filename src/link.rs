//! One link: its settings, its buckets, its share of a connection.
//!
//! This is all that the rooms of the interfaces need to carry out a call. Which link a call
//! belongs to is for `links`, what happens on the way to Redis for `connection`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::{Cmd, Pipeline, Value};
use tokio::time::Instant;
use tracing::{Instrument as _, info};

use crate::connection::{Connection, Gate, Outage, Patience, Request, Retry};
use crate::error::Error;
use crate::keyspace::{Bucket, Keyspace};
use crate::settings::Settings;
use crate::telemetry::Occasionally;
use crate::telemetry::commands::Command;

/// A link that works, or will as soon as its Redis is there.
#[derive(Debug)]
pub struct Link {
    settings: Settings,
    keyspace: Keyspace,
    gate: Gate,
    connection: Arc<Connection>,
    answered: AtomicBool,
    told_of_layout: AtomicBool,
    unlisted: Occasionally,
}

impl Link {
    /// A link with these settings over this connection.
    pub fn new(settings: Settings, connection: Arc<Connection>) -> Self {
        Self {
            keyspace: Keyspace::new(&settings),
            gate: Gate::new(settings.max_in_flight, settings.max_waiting),
            settings,
            connection,
            answered: AtomicBool::new(false),
            told_of_layout: AtomicBool::new(false),
            unlisted: Occasionally::default(),
        }
    }

    /// What was set.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The address of its Redis, without credentials.
    pub fn address(&self) -> String {
        self.settings.address.to_string()
    }

    /// Since when and why it has no connection.
    pub fn outage(&self) -> Option<Outage> {
        self.connection.outage()
    }

    /// Whether Redis has answered a call over it since it was put.
    pub fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// It was put again as it is.
    pub fn starts_over(&self) {
        self.answered.store(false, Ordering::Relaxed);
    }

    /// A bucket to read from.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchStore`] for a bucket that the link does not have.
    pub fn bucket(&self, name: &str) -> Result<Bucket<'_>, Error> {
        let bucket = self.keyspace.bucket(name)?;
        if self.keyspace.sets_apart(name) && !self.told_of_layout.swap(true, Ordering::Relaxed) {
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
    /// As [`Self::bucket`], and [`Error::AccessDenied`] on a link that is read only.
    pub fn writable_bucket(&self, name: &str) -> Result<Bucket<'_>, Error> {
        let bucket = self.bucket(name)?;
        if self.settings.read_only {
            return Err(Error::AccessDenied);
        }
        Ok(bucket)
    }

    /// Checks a value that is to be written.
    ///
    /// # Errors
    ///
    /// It is larger than the link allows.
    pub fn check_size(&self, bytes: usize) -> Result<(), Error> {
        let limit = self.settings.max_value_bytes;
        if bytes <= limit {
            return Ok(());
        }
        Err(Error::other(format!(
            "the value has {bytes} bytes, and this link takes at most {limit} (MAX_VALUE_BYTES)"
        )))
    }

    /// The time to live of what is written, in milliseconds.
    pub fn ttl_ms(&self) -> Option<u64> {
        self.settings
            .ttl
            .map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
    }

    /// Counts keys that a listing left out because they are no UTF-8.
    pub fn left_out(&self, keys: usize) {
        if let Some(keys) = self.unlisted.happened(keys) {
            tracing::warn!(
                keys,
                redis = self.address(),
                "keys that are not UTF-8 were left out of listings"
            );
        }
    }

    /// Asks Redis one command.
    ///
    /// # Errors
    ///
    /// As [`Connection::ask`].
    pub async fn ask(&self, command: Cmd, retry: Retry, deadline: Instant) -> Result<Value, Error> {
        self.send(&Request::One(command), retry, deadline).await
    }

    /// Has Redis run several commands as one.
    ///
    /// # Errors
    ///
    /// As [`Connection::ask`].
    pub async fn ask_together(
        &self,
        mut commands: Pipeline,
        retry: Retry,
        deadline: Instant,
    ) -> Result<Value, Error> {
        commands.atomic();
        self.send(&Request::Transaction(commands), retry, deadline)
            .await
    }

    async fn send(
        &self,
        request: &Request,
        retry: Retry,
        deadline: Instant,
    ) -> Result<Value, Error> {
        let patience = Patience {
            deadline,
            response_timeout: self.settings.response_timeout,
            retries: self.settings.retries,
        };
        let command = Command::started(request, &self.settings.address);
        let answer = self
            .connection
            .ask(request, retry, &self.gate, patience)
            .instrument(command.span())
            .await;
        command.ended(&answer);
        if answer.is_ok() {
            self.answered.store(true, Ordering::Relaxed);
        }
        answer
    }
}
