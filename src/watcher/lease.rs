//! `WATCH_ONCE`: of several processes of the provider, only the holder of a lease delivers.
//!
//! The lease is a key in the watched Redis, `kvredis:watch-lease:…` after the link's `PREFIX`. It holds a
//! random number that identifies the holder, and expires unless the holder renews it. Changes of such keys
//! are not reported to any component.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::error::Error;
use crate::link::Link;
use crate::redis::command::Command;
use crate::redis::reply::Value;
use crate::telemetry::log_throttle::LogThrottle;

/// Part of the keys of all leases, and of no other key.
const KEY_PREFIX: &str = "kvredis:watch-lease:";
/// The time after which a lease expires in Redis.
const TTL: Duration = Duration::from_secs(3);
/// The holder stops relying on the lease this long before it expires.
const SAFETY_MARGIN: Duration = Duration::from_millis(500);
/// The interval of attempts to acquire or renew the lease.
const RENEW_INTERVAL: Duration = Duration::from_millis(500);
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(1);
/// Shorter, since the provider or the link is ending; otherwise the lease expires.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(500);

/// Identifies this process. It is the same for all its links, so a link that is put again keeps its lease.
static HOLDER: LazyLock<String> = LazyLock::new(|| format!("{:016x}", fastrand::u64(..)));

/// The lease of one watching link, whether or not this process holds it.
#[derive(Debug)]
pub(crate) struct Lease {
    link: Arc<Link>,
    key: String,
    state: Mutex<LeaseState>,
    failures: LogThrottle,
}

#[derive(Debug, Default)]
struct LeaseState {
    tenure: Tenure,
    /// The error of the latest attempt. The lease remains held until it expires.
    error: Option<Error>,
}

#[derive(Debug, Default)]
enum Tenure {
    #[default]
    NotHeld,
    HeldUntil(Instant),
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
            state: Mutex::default(),
            failures: LogThrottle::default(),
        }
    }

    /// Returns true if this process holds the lease.
    pub(crate) fn is_held(&self) -> bool {
        match self.state.lock().tenure {
            Tenure::NotHeld => false,
            Tenure::HeldUntil(until) => Instant::now() < until,
        }
    }

    /// The error of the latest attempt to acquire the lease.
    pub(crate) fn error(&self) -> Option<Error> {
        self.state.lock().error.clone()
    }

    /// Acquires and renews the lease, forever. Calls `on_loss` when another process may have acquired it.
    pub(crate) async fn run(&self, on_loss: impl Fn()) {
        let mut was_held = false;
        loop {
            let sent = Instant::now();
            let acquire = Command::AcquireLease {
                key: &self.key,
                holder: &HOLDER,
                ttl: TTL,
            };
            let reply = self.link.execute(&acquire, sent + ACQUIRE_TIMEOUT).await;
            // A lease that expired during the attempt may have been held by another process in between,
            // even if this attempt has acquired it again.
            let has_expired = !self.is_held();
            self.update(sent, reply);
            let is_held = self.is_held();
            if was_held && (has_expired || !is_held) {
                warn!(
                    lease = self.key,
                    "another process may deliver (WATCH_ONCE): this one has lost the lease"
                );
                on_loss();
                was_held = false;
            }
            if is_held && !was_held {
                info!(lease = self.key, "this process delivers (WATCH_ONCE)");
            }
            was_held = is_held;
            if let Some(error) = self.error()
                && self.failures.record(1).is_some()
            {
                warn!(lease = self.key, reason = %error, "cannot acquire the lease");
            }
            sleep(RENEW_INTERVAL).await;
        }
    }

    /// Applies the reply to an attempt that was sent at `sent`.
    fn update(&self, sent: Instant, reply: Result<Value, Error>) {
        let mut state = self.state.lock();
        match reply {
            Ok(reply) => {
                state.tenure = if reply == Value::Int(1) {
                    Tenure::HeldUntil(sent + TTL - SAFETY_MARGIN)
                } else {
                    Tenure::NotHeld
                };
                state.error = None;
            }
            Err(error) => state.error = Some(error),
        }
    }

    /// Releases the lease, so that another process can acquire it at once.
    pub(crate) async fn release(&self) {
        if self.is_held() {
            let release = Command::ReleaseLease {
                key: &self.key,
                holder: &HOLDER,
            };
            // Without a reply it expires.
            let _ = self
                .link
                .execute(&release, Instant::now() + RELEASE_TIMEOUT)
                .await;
        }
    }
}
