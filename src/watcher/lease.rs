//! `WATCH_ONCE`: of several processes of the provider, the one that holds a lease delivers.
//!
//! The lease is one key in the Redis that is watched, `kvredis:watch-lease:…` behind the link's
//! `PREFIX`. It expires when its holder does not renew it, and holds nothing but a random number
//! that tells the holder. Changes of such keys are reported to nobody.

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

/// What tells the keys of leases from all others.
const KEY_PREFIX: &str = "kvredis:watch-lease:";
/// How long a lease lasts that is not renewed.
const TTL: Duration = Duration::from_secs(3);
/// How long before that its holder stops to rely on it.
const MARGIN: Duration = Duration::from_millis(500);
/// How often it is renewed, or tried for.
const EVERY: Duration = Duration::from_millis(500);
const ANSWER: Duration = Duration::from_secs(1);

/// What tells this process from the others. A link that is put again keeps its lease.
static HOLDER: LazyLock<String> = LazyLock::new(|| format!("{:016x}", fastrand::u64(..)));

/// A place among the processes that would deliver.
#[derive(Debug)]
pub(crate) struct Lease {
    link: Arc<Link>,
    key: String,
    state: Mutex<LeaseState>,
    failures: LogThrottle,
}

#[derive(Debug, Default)]
struct LeaseState {
    /// Until when it is held for sure.
    until: Option<Instant>,
    /// Why it cannot even be tried for.
    failure: Option<String>,
}

/// Whether a key of Redis is that of a lease.
pub(crate) fn is_lease(redis_key: &str) -> bool {
    redis_key.contains(KEY_PREFIX)
}

impl Lease {
    /// The lease of this name in the link's Redis.
    pub(crate) fn new(link: Arc<Link>, name: &str) -> Self {
        Self {
            key: format!("{}{KEY_PREFIX}{name}", link.settings().prefix),
            link,
            state: Mutex::default(),
            failures: LogThrottle::default(),
        }
    }

    /// Whether this process delivers.
    pub(crate) fn is_held(&self) -> bool {
        let state = self.state.lock();
        state.until.is_some_and(|until| Instant::now() < until)
    }

    /// Why no process delivers, as far as this one knows.
    pub(crate) fn failure(&self) -> Option<String> {
        let state = self.state.lock();
        state.failure.clone()
    }

    /// Tries for the lease and keeps it; `lost` is told when another process may have it.
    pub(crate) async fn keep(&self, lost: impl Fn()) {
        let mut delivers = false;
        loop {
            let started = Instant::now();
            let acquire = Command::AcquireLease {
                key: &self.key,
                holder: &HOLDER,
                ttl: TTL,
            };
            let outcome = self.link.execute(&acquire, started + ANSWER).await;
            // It may have expired since the last time, also where it can be taken again now.
            let lapsed = !self.is_held();
            let failure = self.note(started, outcome);
            let held = self.is_held();
            if delivers && (lapsed || !held) {
                warn!(
                    lease = self.key,
                    "another process may deliver (WATCH_ONCE): this one has lost the lease"
                );
                lost();
                delivers = false;
            }
            if held && !delivers {
                info!(lease = self.key, "this process delivers (WATCH_ONCE)");
            }
            delivers = held;
            if let Some(failure) = failure
                && self.failures.record(1).is_some()
            {
                warn!(lease = self.key, reason = %failure, "cannot take the lease");
            }
            sleep(EVERY).await;
        }
    }

    /// Notes what came of an attempt; answers why there was none.
    fn note(&self, started: Instant, outcome: Result<Value, Error>) -> Option<String> {
        let mut state = self.state.lock();
        match outcome {
            Ok(answer) => {
                let held = answer == Value::Int(1);
                state.until = held.then(|| started + TTL - MARGIN);
                state.failure = None;
            }
            // It may still be held: until it expires nobody else has it.
            Err(error) => state.failure = Some(error.to_string()),
        }
        state.failure.clone()
    }

    /// Lets another process have it at once.
    pub(crate) async fn release(&self) {
        if self.is_held() {
            // Who cannot be told finds out when it expires.
            let release = Command::ReleaseLease {
                key: &self.key,
                holder: &HOLDER,
            };
            let _ = self
                .link
                .execute(&release, Instant::now() + ANSWER / 2)
                .await;
        }
    }
}
