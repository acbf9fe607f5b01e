//! One place where Redis's notifications are subscribed to: connects, subscribes, sees that all
//! flags are set that it takes, and does so again when the connection breaks.
//!
//! It never gives up. Which places there are is for `subscription`, what goes over a connection for
//! `hearing`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

use crate::error::{Error, ErrorKind};
use crate::redis::backoff::{ReconnectBackoff, jittered};
use crate::redis::connect_error::ConnectError;
use crate::redis::connect_error::Outage;
use crate::redis::options::ConnectOptions;
use crate::redis::pubsub::connection;
use crate::redis::pubsub::connection::{BROKE, PubSubConnection};
use crate::redis::pubsub::keyspace_events;
use crate::redis::pubsub::{Listener, SubscriptionSpec};
use crate::redis::resolve::ServerSelector;
use crate::redis::server_error::in_words;
use crate::telemetry::connections::{ConnectedGuard, Purpose};

/// How often it is checked that somebody is there and that all flags are set.
const CHECK: Duration = Duration::from_secs(5);
/// The same while flags are missing, and somebody may be setting them.
const CHECK_MISSING: Duration = Duration::from_secs(1);
/// The same after flags were added: somebody else may have set them at the same time.
const CHECK_ADDED: Duration = Duration::from_millis(300);

/// How many connections there have been, to tell them apart.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// How it is with one node.
#[derive(Debug)]
pub(crate) struct SubscriptionState {
    /// `None` while the subscription stands.
    pub(crate) outage: Option<Outage>,
    /// Since when it has stood; the last time, if it does not now. Then something may be missed.
    stood_since: Option<Instant>,
    /// Whether something may be missed even before it stands for the first time.
    late: bool,
    /// What has to be done so that Redis tells of all that is wished.
    pub(crate) missing: Option<String>,
}

/// What the task of a node needs.
pub(crate) struct NodeSubscription {
    /// Where it is, without credentials.
    pub(crate) shown: String,
    /// How to connect.
    pub(crate) target: ConnectOptions,
    /// To which server.
    pub(crate) place: ServerSelector,
    /// What Redis shows for the connection.
    pub(crate) name: String,
    /// What is to be heard.
    pub(crate) wish: SubscriptionSpec,
    /// Who hears it.
    pub(crate) listener: Arc<dyn Listener>,
    /// How it is, for those who ask.
    pub(crate) state: Arc<Mutex<SubscriptionState>>,
}

/// What was found of the flags that are needed.
enum Flags {
    Complete,
    /// Missing ones were added just now.
    Added,
    /// What has to be done, in words.
    Missing(String),
    /// Redis does not say, for this reason.
    Unknown(String),
}

fn failure(reason: String) -> Error {
    Error::new(ErrorKind::Unreachable, reason)
}

fn outage(reason: String) -> Outage {
    Outage {
        since: Instant::now(),
        failure: failure(reason),
    }
}

impl SubscriptionState {
    /// That of a node to which no connection was made yet; it is late if what it tells of could be
    /// heard elsewhere before.
    pub(crate) fn new(place: &ServerSelector, late: bool) -> Self {
        Self {
            outage: Some(outage(format!("cannot watch {place}: not connected yet"))),
            stood_since: None,
            late,
            missing: None,
        }
    }
}

impl NodeSubscription {
    /// Subscribes, and does so again when that breaks, for ever.
    pub(crate) async fn run(self) {
        let mut trouble = ReconnectBackoff::new();
        let mut told = true;
        loop {
            let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
            let reason = self.session(connection, told).await;
            let should_log = match self.lost(&reason) {
                Some(lasted) => {
                    told = trouble.broke_after(lasted, &reason).is_some();
                    told
                }
                None => trouble.should_log(&reason),
            };
            if should_log {
                warn!(
                    redis = self.shown,
                    client = self.name,
                    reason,
                    "cannot watch; trying again until it works"
                );
            }
            trouble.pause(self.target.reconnect_max_delay).await;
        }
    }

    /// Connects and subscribes, which is logged if `told`, and stays until that breaks; answers why
    /// it did.
    async fn session(&self, connection: u64, told: bool) -> String {
        let limit = self.target.connection_timeout;
        let heard = Arc::new(AtomicU64::new(0));
        let listener = (Arc::clone(&self.listener), Arc::clone(&heard));
        let login = match connection::login(&self.target) {
            Ok(login) => login,
            Err(reason) => return reason,
        };
        let opened = connection::open(&self.target, &self.place, &login, connection, listener);
        let (commands, driver) = match timeout(limit, opened).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(reason)) => return reason,
            Err(_) => return ConnectError::late(limit).into_words(),
        };
        let hearing = PubSubConnection {
            commands,
            heard,
            limit: self.target.response_timeout,
        };
        tokio::select! {
            () = driver => BROKE.to_owned(),
            reason = self.stay(hearing, told) => reason,
        }
    }

    /// Subscribes, and looks after the subscription until it is of no more use; answers why.
    async fn stay(&self, mut hearing: PubSubConnection, told: bool) -> String {
        let mut name = redis::cmd("CLIENT");
        name.arg("SETNAME").arg(&self.name);
        // For whoever looks at Redis only: a strict ACL may refuse it.
        if let Err(reason) = hearing.ask(&name).await {
            return reason;
        }
        if let Err(reason) = hearing.subscribe(&self.wish.patterns).await {
            return reason;
        }
        let again = self.stands(told);
        let _up = ConnectedGuard::new(&self.target.address, Purpose::Notifications, again);
        let mut told_of_refusal = false;
        loop {
            let flags = match self.check_flags(&mut hearing).await {
                Ok(flags) => flags,
                Err(reason) => return reason,
            };
            let (missing, pause) = match flags {
                Flags::Complete => (None, CHECK),
                Flags::Added => (None, jittered(CHECK_ADDED)),
                Flags::Missing(missing) => (Some(missing), CHECK_MISSING),
                Flags::Unknown(refusal) => {
                    if !std::mem::replace(&mut told_of_refusal, true) {
                        info!(
                            redis = self.shown,
                            "whether Redis tells of changes cannot be seen ({refusal}); watching \
                             all the same"
                        );
                    }
                    (None, CHECK)
                }
            };
            self.note_missing(missing);
            sleep(pause).await;
        }
    }

    /// Asks for the flags, and adds missing ones where that is allowed. An error is why the
    /// connection is of no more use.
    async fn check_flags(&self, hearing: &mut PubSubConnection) -> Result<Flags, String> {
        let mut get = redis::cmd("CONFIG");
        get.arg("GET").arg(keyspace_events::SETTING);
        let answer = match hearing.ask(&get).await? {
            Ok(answer) => answer,
            Err(refusal) => return Ok(Flags::Unknown(in_words(&refusal))),
        };
        let Some(current) = keyspace_events::current(&answer) else {
            return Ok(Flags::Unknown("there is no such setting".to_owned()));
        };
        let Some(to_set) = keyspace_events::to_set(&current, self.wish.flags) else {
            return Ok(Flags::Complete);
        };
        let missing = keyspace_events::in_words(&self.shown, &to_set);
        if !self.wish.may_configure {
            return Ok(Flags::Missing(missing));
        }
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg(keyspace_events::SETTING).arg(&to_set);
        if let Err(refusal) = hearing.ask(&set).await? {
            let refusal = in_words(&refusal);
            return Ok(Flags::Missing(format!("{missing} (refused: {refusal})")));
        }
        info!(
            redis = self.shown,
            from = current,
            to = to_set,
            "{} was set, as WATCH_CONFIGURE_REDIS allows",
            keyspace_events::SETTING
        );
        Ok(Flags::Added)
    }

    /// The subscription stands from now on; answers whether it has before.
    fn stands(&self, told: bool) -> bool {
        let mut state = self.state();
        let outage = state.outage.take();
        let again = state.stood_since.replace(Instant::now()).is_some();
        let missed = again | std::mem::take(&mut state.late);
        drop(state);
        if told {
            info!(
                redis = self.shown,
                client = self.name,
                "watching changes of keys"
            );
        }
        if let Some(outage) = outage.filter(|_| missed) {
            self.listener.missed(&self.shown, outage.since.elapsed());
        }
        again
    }

    /// It does not stand, for this reason; answers how long it did, if that was until now.
    fn lost(&self, reason: &str) -> Option<Duration> {
        let mut state = self.state();
        state.missing = None;
        let reason = format!("cannot watch {}: {reason}", self.shown);
        match &mut state.outage {
            Some(outage) => {
                outage.failure = failure(reason);
                None
            }
            none => {
                *none = Some(outage(reason));
                state.stood_since.map(|since| since.elapsed())
            }
        }
    }

    fn note_missing(&self, missing: Option<String>) {
        let mut state = self.state();
        if state.missing == missing {
            return;
        }
        match &missing {
            Some(what) => error!(
                redis = self.shown,
                client = self.name,
                reason = %what,
                "Redis does not tell of all changes that are watched"
            ),
            None => info!(
                redis = self.shown,
                "Redis tells of all changes that are watched"
            ),
        }
        state.missing = missing;
    }

    fn state(&self) -> MutexGuard<'_, SubscriptionState> {
        self.state.lock()
    }
}
