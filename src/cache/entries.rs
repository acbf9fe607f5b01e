//! Entries of the cache and their two states: a read in flight, or its cached result.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::SetOnce;
use tokio::time::Instant;

use crate::cache::freshness::Freshness;
use crate::error::Error;

/// The time in which other calls may join a read in flight. Later calls would receive a value from
/// long before they were made.
pub(crate) const COALESCE_WINDOW: Duration = Duration::from_millis(100);

/// Limits of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CacheLimits {
    /// Maximum number of entries.
    pub(crate) entries: usize,
    /// Maximum size of keys, values and their overhead.
    pub(crate) bytes: usize,
    /// Maximum age of an entry.
    pub(crate) ttl: Duration,
}

/// The result of a read: the value, or `None` for a missing key.
pub(crate) type ReadResult = Result<Option<Bytes>, Error>;

/// An entry of the cache.
#[derive(Debug)]
pub(crate) enum CacheEntry {
    /// A read is in flight; other calls may wait for its result.
    Pending(Arc<InFlightRead>),
    /// The result of a read.
    Ready(ReadyEntry),
}

impl CacheEntry {
    /// Returns true if the entry has served a call other than the one that filled it.
    pub(crate) fn was_used(&self) -> bool {
        match self {
            // The entry and its fill guard hold one reference each, waiting calls hold the others.
            Self::Pending(read) => Arc::strong_count(read) > 2,
            Self::Ready(entry) => entry.used,
        }
    }

    /// The size of the value.
    pub(crate) fn value_bytes(&self) -> usize {
        match self {
            Self::Pending(_) => 0,
            Self::Ready(entry) => entry.value.len(),
        }
    }
}

/// The cached result of a read.
#[derive(Debug)]
pub(crate) struct ReadyEntry {
    value: CachedValue,
    policy: EntryPolicy,
    used: bool,
}

/// The conditions under which an entry may be served.
#[derive(Clone, Debug)]
pub(crate) struct EntryPolicy {
    pub(crate) expires_at: Instant,
    /// The freshness of the connection that the value was read from.
    pub(crate) freshness: Arc<Freshness>,
}

/// A cached value, or the knowledge that the key is missing (negative caching).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CachedValue {
    Present(Bytes),
    Missing,
}

impl ReadyEntry {
    pub(crate) fn new(value: Option<Bytes>, policy: EntryPolicy) -> Self {
        Self {
            value: value.map_or(CachedValue::Missing, CachedValue::Present),
            policy,
            used: false,
        }
    }

    /// Returns true if the entry may be served.
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        now < self.policy.expires_at && self.policy.freshness.is_valid(now)
    }

    /// Returns true if the value was read from the connection with this freshness.
    pub(crate) fn is_from(&self, freshness: &Arc<Freshness>) -> bool {
        Arc::ptr_eq(&self.policy.freshness, freshness)
    }

    /// Serves the value to a call.
    pub(crate) fn serve(&mut self) -> CachedValue {
        self.used = true;
        self.value.clone()
    }
}

impl CachedValue {
    pub(crate) fn is_present(&self) -> bool {
        matches!(self, Self::Present(_))
    }

    pub(crate) fn into_option(self) -> Option<Bytes> {
        match self {
            Self::Present(value) => Some(value),
            Self::Missing => None,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Present(value) => value.len(),
            Self::Missing => 0,
        }
    }
}

/// A read in flight.
#[derive(Debug)]
pub(crate) struct InFlightRead {
    since: Instant,
    outcome: SetOnce<ReadOutcome>,
}

/// The outcome of a read in flight, for the calls that wait for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ReadOutcome {
    /// The read has ended with this result.
    Completed(ReadResult),
    /// The reading call was canceled; a waiting call has to query Redis itself.
    Abandoned,
}

impl InFlightRead {
    pub(crate) fn new(since: Instant) -> Self {
        Self {
            since,
            outcome: SetOnce::new(),
        }
    }

    /// Returns true if another call may wait for this read.
    pub(crate) fn is_joinable(&self, now: Instant) -> bool {
        self.since + COALESCE_WINDOW > now
    }

    /// Publishes the outcome to the waiting calls.
    pub(crate) fn complete(&self, outcome: ReadOutcome) {
        // Set once, by the fill guard of this read.
        let _ = self.outcome.set(outcome);
    }

    /// Waits for the outcome.
    pub(crate) async fn outcome(&self) -> ReadOutcome {
        self.outcome.wait().await.clone()
    }
}
