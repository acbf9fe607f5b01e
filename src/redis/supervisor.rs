//! Keeps a connection up: connects, watches, connects again, for as long as somebody needs it.
//!
//! A connection is `Down` until the first attempt succeeds, `ConnectedGuard` until it breaks or stops
//! answering, and then `Down` again. It never gives up. Waiting for `ConnectedGuard` is for the calls.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use crate::cache::read_through::Cache;
use crate::error::{Error, ErrorKind};
use crate::redis::backoff::ReconnectBackoff;
use crate::redis::connect_error::Outage;
use crate::redis::connect_error::{ConnectError, ConnectErrorKind};
use crate::redis::options::ConnectOptions;
use crate::redis::resolve::ServerSelector;
use crate::redis::session::Session;
use crate::task::AbortOnDrop;
use crate::telemetry::connections;
use crate::telemetry::connections::{ConnectedGuard, Purpose};

/// How often an idle connection is asked whether somebody is there.
const IDLE_CHECK: Duration = Duration::from_secs(5);
/// How often it is asked whether the password is another one by now.
const PASSWORD_CHECK: Duration = Duration::from_secs(1);

/// Whether there is a connection.
#[derive(Debug)]
pub(crate) enum ConnectionState {
    /// There is none, and another attempt is under way or will be.
    Down(Down),
    /// There is one.
    ConnectedGuard(Arc<Session>),
}

/// An outage.
#[derive(Clone, Debug)]
pub(crate) struct Down {
    since: Instant,
    /// What came of the latest attempt; `None` before the first one ended.
    latest: Option<ConnectError>,
    /// The server took connections but did not answer: waiting long for it is in vain.
    hung: bool,
}

impl Down {
    fn failure(&self, address: &str) -> Error {
        match &self.latest {
            Some(latest) => latest.failure(address),
            None => {
                let text = format!("cannot reach {address}: not connected yet");
                Error::new(ErrorKind::Unreachable, text)
            }
        }
    }
}

impl ConnectionState {
    /// The connection, if there is one that has not broken.
    pub(crate) fn line(&self) -> Option<Arc<Session>> {
        match self {
            Self::ConnectedGuard(line) if !line.is_closed() => Some(Arc::clone(line)),
            _ => None,
        }
    }

    /// Whether somebody has to act first, so that waiting for the connection is in vain.
    pub(crate) fn is_refused(&self) -> bool {
        let Self::Down(down) = self else { return false };
        down.latest.as_ref().is_some_and(ConnectError::is_permanent)
    }

    /// Whether the server stopped answering and has not come back.
    pub(crate) fn is_unresponsive(&self) -> bool {
        matches!(self, Self::Down(down) if down.hung)
    }

    /// The outage in words.
    pub(crate) fn outage(&self, address: &str) -> Option<Outage> {
        let Self::Down(down) = self else { return None };
        Some(Outage {
            since: down.since,
            failure: down.failure(address),
        })
    }
}

/// Starts connecting; the supervisor ends with the task.
pub(crate) fn start(
    target: ConnectOptions,
    place: ServerSelector,
    address: String,
    name: &str,
    cache: Option<Arc<Cache>>,
) -> (watch::Receiver<ConnectionState>, AbortOnDrop) {
    let down = Down {
        since: Instant::now(),
        latest: None,
        hung: false,
    };
    let (sender, receiver) = watch::channel(ConnectionState::Down(down.clone()));
    let supervisor = Supervisor {
        address,
        target,
        place,
        name: client_name(name),
        cache,
        state: sender,
    };
    (receiver, AbortOnDrop::spawn(supervisor.run(down)))
}

struct Supervisor {
    address: String,
    target: ConnectOptions,
    place: ServerSelector,
    name: String,
    cache: Option<Arc<Cache>>,
    state: watch::Sender<ConnectionState>,
}

/// Why a connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DisconnectReason {
    Broke,
    Hung,
    /// The server is a replica now.
    Demoted,
}

impl Supervisor {
    async fn run(self, mut down: Down) {
        let mut trouble = ReconnectBackoff::new();
        let mut told = true;
        let mut again = false;
        connections::wanted(&self.target.address, Purpose::Commands);
        loop {
            let line = self.connect(down, &mut trouble).await;
            if told {
                info!(
                    redis = self.address,
                    client = self.name,
                    "connected to Redis"
                );
            }
            let connected = Instant::now();
            self.state
                .send_replace(ConnectionState::ConnectedGuard(Arc::clone(&line)));
            let up = ConnectedGuard::new(&self.target.address, Purpose::Commands, again);
            let end = self.watch(&line, &mut trouble).await;
            line.retire();
            drop(up);
            again = true;
            let reason = match end {
                DisconnectReason::Broke => "the connection broke".to_owned(),
                DisconnectReason::Hung => format!(
                    "it did not answer within {} ms",
                    self.target.response_timeout.as_millis()
                ),
                DisconnectReason::Demoted => "it is a replica now".to_owned(),
            };
            let hung = end == DisconnectReason::Hung;
            let lasted = connected.elapsed();
            let breaks = trouble.broke_after(lasted, &reason);
            told = breaks.is_some();
            if let Some(breaks) = breaks {
                warn!(
                    redis = self.address,
                    client = self.name,
                    reason,
                    breaks,
                    "lost the connection to Redis"
                );
            }
            down = Down {
                since: Instant::now(),
                latest: hung.then(|| ConnectError::new(ConnectErrorKind::Timeout, reason)),
                hung,
            };
            self.state.send_replace(ConnectionState::Down(down.clone()));
            let longest = self.target.reconnect_max_delay;
            trouble.pause_if_brief(lasted, longest).await;
        }
    }

    /// Tries until there is a connection.
    async fn connect(&self, mut down: Down, trouble: &mut ReconnectBackoff) -> Arc<Session> {
        loop {
            let failure = match self.attempt().await {
                Ok(line) => return Arc::new(line),
                Err(failure) => failure,
            };
            let reason = failure.failure(&self.address);
            if trouble.should_log(reason.message()) {
                warn!(
                    redis = self.address,
                    client = self.name,
                    %reason,
                    "no connection to Redis; trying again until it works"
                );
            }
            down.latest = Some(failure);
            self.state.send_replace(ConnectionState::Down(down.clone()));
            trouble.pause(self.target.reconnect_max_delay).await;
        }
    }

    async fn attempt(&self) -> Result<Session, ConnectError> {
        let limit = self.target.connection_timeout;
        let cache = self.cache.as_ref();
        timeout(
            limit,
            Session::open(&self.target, &self.place, &self.name, cache),
        )
        .await
        .unwrap_or_else(|_| {
            // A server without TLS says nothing to who begins with it.
            let hint = if self.target.address.tls {
                " (does it speak TLS there?)"
            } else {
                ""
            };
            Err(ConnectError::late(limit).with(hint))
        })
    }

    /// Waits until the connection is of no more use.
    async fn watch(&self, line: &Session, trouble: &mut ReconnectBackoff) -> DisconnectReason {
        let mut idle_check = interval(IDLE_CHECK);
        idle_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        idle_check.reset();
        let mut password_check = interval(PASSWORD_CHECK);
        password_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut refused: Option<ConnectError> = None;
        loop {
            if let Some(reason) = line.tracking_disabled_reason()
                && trouble.should_log(reason)
            {
                warn!(
                    redis = self.address,
                    client = self.name,
                    reason,
                    "nothing that is read is kept in memory, although CACHE_MAX_ENTRIES asks for it"
                );
            }
            tokio::select! {
                () = line.closed() => return DisconnectReason::Broke,
                () = line.suspected() => {}
                _ = idle_check.tick() => {}
                _ = password_check.tick(), if self.target.password_file.is_some() => {
                    let failure = self.refresh_auth(line).await.err();
                    if let Some(failure) = failure.as_ref().filter(|new| refused.as_ref() != Some(new)) {
                        warn!(
                            redis = self.address,
                            client = self.name,
                            reason = %failure.failure(&self.address),
                            "the new password does not work; the connection goes on with the old one"
                        );
                    }
                    refused = failure;
                    continue;
                }
            }
            if line.is_demoted() {
                return DisconnectReason::Demoted;
            }
            match timeout(self.target.response_timeout, line.answers()).await {
                Ok(true) => {}
                Ok(false) => return DisconnectReason::Broke,
                Err(_) => return DisconnectReason::Hung,
            }
        }
    }

    /// Logs in with the new password, if there is one.
    async fn refresh_auth(&self, line: &Session) -> Result<(), ConnectError> {
        let again = line.refresh_auth(&self.target);
        match timeout(self.target.response_timeout, again).await {
            Ok(Ok(true)) => {
                info!(
                    client = self.name,
                    redis = self.address,
                    "logged in with a new password"
                );
                Ok(())
            }
            Ok(Ok(false)) => Ok(()),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(ConnectError::new(
                ConnectErrorKind::Timeout,
                "no answer to AUTH",
            )),
        }
    }
}

/// A name as Redis takes it: printable ASCII without spaces.
pub(crate) fn client_name(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_graphic() { c } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_names_are_such_as_redis_takes() {
        assert_eq!(client_name("kvredis:a b\n:ü"), "kvredis:a_b_:_");
    }
}
