//! The lease of `WATCH_ONCE`: of several processes of the provider, only its holder delivers.
//!
//! The lease is a key in the watched Redis, `kvredis:watch-lease:…` after the link's `PREFIX`. It holds a
//! random number that identifies the holder, and how far the holder is behind with its deliveries; it
//! expires unless the holder renews it. Changes of such keys are not reported to any component. `election`
//! decides what a process does with the lease.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::warn;

use crate::error::Error;
use crate::link::Link;
use crate::redis::command::Command;
use crate::redis::reply;
use crate::telemetry::log_throttle::LogThrottle;

/// Part of the keys of all leases, and of no other key.
const KEY_PREFIX: &str = "kvredis:watch-lease:";
/// The time after which a lease expires in Redis.
pub(crate) const TTL: Duration = Duration::from_secs(3);
/// The holder stops relying on the lease this long before it expires.
const SAFETY_MARGIN: Duration = Duration::from_millis(500);
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(1);
/// Shorter, since the provider or the link is ending; otherwise the lease expires.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(250);
/// The times in Redis are whole milliseconds.
const ROUNDING: Duration = Duration::from_millis(5);

/// The lease of one watching link, whether or not this process holds it.
#[derive(Debug)]
pub(crate) struct Lease {
    link: Arc<Link>,
    key: String,
    state: Mutex<LeaseState>,
    failures: LogThrottle,
}

#[derive(Debug)]
struct LeaseState {
    /// Identifies this link of this process, also after it was replaced.
    holder: String,
    /// The latest renewal; `None` unless this process has the lease, or had it until it expired.
    renewal: Option<Renewal>,
    /// The error of the latest attempt. The lease is still held until it expires.
    error: Option<Error>,
}

#[derive(Clone, Copy, Debug)]
struct Renewal {
    sent_at: Instant,
    replied_at: Instant,
}

/// The outcome of an attempt to acquire or renew the lease.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Attempt {
    /// This process had the lease, and has it still.
    Renewed,
    /// This process has the lease, which it did not have in Redis.
    Acquired {
        /// The previous holder has settled all changes that this process received before.
        settled: Option<Instant>,
    },
    /// Another process has it.
    Refused {
        /// That process has settled all changes that this process received before.
        settled: Option<Instant>,
    },
    Failed,
}

/// Returns true if a Redis key is that of a lease.
pub(crate) fn is_lease(redis_key: &str) -> bool {
    redis_key.contains(KEY_PREFIX)
}

impl Lease {
    pub(crate) fn new(link: Arc<Link>, name: &str) -> Self {
        Self {
            key: format!("{}{KEY_PREFIX}{name}", link.settings().prefix),
            link,
            state: Mutex::new(LeaseState {
                holder: format!("{:016x}", fastrand::u64(..)),
                renewal: None,
                error: None,
            }),
            failures: LogThrottle::default(),
        }
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Returns true if this process holds the lease.
    pub(crate) fn is_held(&self) -> bool {
        let renewal = self.state.lock().renewal;
        renewal.is_some_and(|renewal| Instant::now() < renewal.sent_at + TTL - SAFETY_MARGIN)
    }

    /// The error of the latest attempt to acquire the lease.
    pub(crate) fn error(&self) -> Option<Error> {
        self.state.lock().error.clone()
    }

    /// Continues the lease of a replaced link.
    pub(crate) fn inherit(&self, replaced: &Self) {
        let mut state = self.state.lock();
        let replaced = replaced.state.lock();
        state.holder.clone_from(&replaced.holder);
        state.renewal = replaced.renewal;
    }

    /// Acquires or renews the lease. `behind` is how long ago the oldest change may have been published
    /// that this process would have to deliver.
    pub(crate) async fn attempt(&self, behind: Duration) -> Attempt {
        let sent_at = Instant::now();
        let holder = self.state.lock().holder.clone();
        let acquire = Command::AcquireLease {
            key: &self.key,
            holder: &holder,
            ttl: TTL,
            behind,
        };
        let reply = self.link.execute(&acquire, sent_at + ACQUIRE_TIMEOUT).await;
        let parsed = reply.and_then(|reply| {
            let items = reply::array("EVAL", reply, 3)?;
            let numbers = items.iter().map(|item| reply::integer("EVAL", item));
            numbers.collect::<Result<Vec<i64>, Error>>()
        });
        let replied_at = Instant::now();
        let mut state = self.state.lock();
        let numbers = match parsed {
            Ok(numbers) => numbers,
            Err(error) => {
                if self.failures.record(1).is_some() {
                    warn!(lease = self.key, reason = %error, "cannot acquire the lease");
                }
                state.error = Some(error);
                return Attempt::Failed;
            }
        };
        state.error = None;
        let settled = |behind: i64, written: i64| {
            let behind = Duration::from_millis(u64::try_from(behind).ok()?);
            let written = u64::try_from(written).map_or(TTL, Duration::from_millis);
            sent_at.checked_sub(behind + written + ROUNDING)
        };
        let settled = match numbers.as_slice() {
            [_, behind, written] => settled(*behind, *written),
            _ => None,
        };
        if numbers.first() == Some(&0) {
            state.renewal = None;
            return Attempt::Refused { settled };
        }
        state.renewal = Some(Renewal {
            sent_at,
            replied_at,
        });
        if numbers.first() == Some(&2) {
            Attempt::Renewed
        } else {
            Attempt::Acquired { settled }
        }
    }

    /// Releases the lease, so that another process can acquire it at once, and learns which changes are
    /// left to it. Returns true if another process takes over what is queued.
    pub(crate) async fn release(&self, behind: Duration, behind_without_queue: Duration) -> bool {
        let (holder, renewal) = {
            let state = self.state.lock();
            (state.holder.clone(), state.renewal)
        };
        let Some(renewal) = renewal else {
            // Another process has it, or had it last.
            return self.error().is_none();
        };
        let release = Command::ReleaseLease {
            key: &self.key,
            holder: &holder,
            ttl: TTL,
            behind,
            behind_without_queue,
            max_left: TTL.saturating_sub(renewal.replied_at.elapsed()),
        };
        let reply = self
            .link
            .execute(&release, Instant::now() + RELEASE_TIMEOUT)
            .await;
        // Without a reply it expires.
        reply.is_ok_and(|reply| reply::integer("EVAL", &reply).is_ok_and(|taken| taken == 1))
    }
}
