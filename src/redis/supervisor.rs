//! Keeps one connection established: connects, checks that the server replies, and reconnects, until
//! it is dropped. It never gives up; `node` decides how long a call waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::error::{Error, ErrorKind};
use crate::redis::backoff::ReconnectBackoff;
use crate::redis::connect_error::{ConnectError, ConnectErrorKind, Outage};
use crate::redis::connector::{Connected, Connector};
use crate::redis::handshake::refresh_auth;
use crate::redis::session::Session;
use crate::redis::session::state::SessionState;
use crate::settings::secret::Secret;
use crate::tasks;
use crate::telemetry::connections;
use crate::telemetry::connections::{ConnectedGuard, Purpose};

/// The interval at which an idle connection is probed.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// The interval at which the password file is read.
const PASSWORD_CHECK_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) enum ConnectionState {
    Disconnected(Disconnected),
    Connected(Arc<Session>),
}

/// An outage, during which the supervisor tries to connect.
#[derive(Clone, Debug)]
pub(crate) struct Disconnected {
    since: Instant,
    /// The error of the latest attempt; `None` until the first attempt fails.
    last_error: Option<ConnectError>,
    /// The server accepted connections but stopped replying: calls wait less long for it.
    is_unresponsive: bool,
}

impl ConnectionState {
    /// The session, if there is one that is not closed.
    pub(crate) fn session(&self) -> Option<&Arc<Session>> {
        match self {
            Self::Connected(session) if !session.is_closed() => Some(session),
            _ => None,
        }
    }

    /// Returns true if waiting for a connection is useless until an operator acts.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(
            self,
            Self::Disconnected(Disconnected { last_error: Some(error), .. }) if error.is_permanent()
        )
    }

    /// Returns true if the server stopped replying and has not recovered.
    pub(crate) fn is_unresponsive(&self) -> bool {
        matches!(self, Self::Disconnected(outage) if outage.is_unresponsive)
    }

    pub(crate) fn outage(&self, address: &str) -> Option<Outage> {
        let Self::Disconnected(outage) = self else {
            return None;
        };
        let error = match &outage.last_error {
            Some(error) => error.call_error(address),
            None => {
                let message = format!("cannot reach {address}: not connected yet");
                Error::new(ErrorKind::Unreachable, message)
            }
        };
        let since = outage.since;
        Some(Outage { since, error })
    }
}

/// Starts connecting; the supervisor ends when the handle is dropped. `address` is what logs and errors
/// show.
pub(crate) fn start(
    connector: Connector,
    address: String,
) -> (watch::Receiver<ConnectionState>, AbortOnDropHandle<()>) {
    let outage = Disconnected {
        since: Instant::now(),
        last_error: None,
        is_unresponsive: false,
    };
    let (state, receiver) = watch::channel(ConnectionState::Disconnected(outage.clone()));
    let supervisor = Supervisor {
        connector,
        address,
        state,
    };
    let task = tasks::spawn_essential("connection supervisor", supervisor.run(outage));
    (receiver, task)
}

struct Supervisor {
    connector: Connector,
    address: String,
    state: watch::Sender<ConnectionState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DisconnectReason {
    Broken,
    Unresponsive,
    Demoted,
    /// It led to the primary for lack of a replica, and now there is one.
    ReplicaFound,
}

impl Supervisor {
    async fn run(self, mut outage: Disconnected) {
        let options = &self.connector.options;
        let mut backoff = ReconnectBackoff::new();
        let mut log_next_connect = true;
        let mut is_reconnect = false;
        connections::register(&options.address, Purpose::Commands);
        loop {
            let Connected {
                session,
                password,
                lacks_replica,
            } = self.connect(outage, &mut backoff).await;
            let session = Arc::new(session);
            if log_next_connect {
                info!(
                    redis = self.address,
                    client = self.connector.client_name,
                    "connected to Redis"
                );
            }
            let connected_at = Instant::now();
            self.state
                .send_replace(ConnectionState::Connected(Arc::clone(&session)));
            let connected = ConnectedGuard::new(&options.address, Purpose::Commands, is_reconnect);
            let replica_found = async {
                if lacks_replica {
                    self.connector.replica_found().await;
                } else {
                    std::future::pending().await
                }
            };
            let end = tokio::select! {
                end = self.watch(&session, password, &mut backoff) => end,
                () = replica_found => DisconnectReason::ReplicaFound,
            };
            session.revoke_cache();
            drop(connected);
            is_reconnect = end != DisconnectReason::ReplicaFound;
            let reason = match end {
                // Nothing was lost: calls in flight complete on the session that is replaced.
                DisconnectReason::ReplicaFound => {
                    log_next_connect = true;
                    outage = Disconnected {
                        since: Instant::now(),
                        last_error: None,
                        is_unresponsive: false,
                    };
                    self.state
                        .send_replace(ConnectionState::Disconnected(outage.clone()));
                    continue;
                }
                DisconnectReason::Broken => "the connection broke".to_owned(),
                DisconnectReason::Unresponsive => format!(
                    "no reply within {} ms",
                    options.response_timeout.as_millis()
                ),
                DisconnectReason::Demoted => "it is a replica now".to_owned(),
            };
            let uptime = connected_at.elapsed();
            let breaks = backoff.disconnected_after(uptime, &reason);
            log_next_connect = breaks.is_some();
            if let Some(breaks) = breaks {
                warn!(
                    redis = self.address,
                    client = self.connector.client_name,
                    reason,
                    breaks,
                    "lost the connection to Redis"
                );
            }
            let is_unresponsive = end == DisconnectReason::Unresponsive;
            outage = Disconnected {
                since: Instant::now(),
                last_error: is_unresponsive
                    .then(|| ConnectError::new(ConnectErrorKind::Timeout, reason)),
                is_unresponsive,
            };
            self.state
                .send_replace(ConnectionState::Disconnected(outage.clone()));
            backoff
                .pause_if_brief(uptime, options.reconnect_max_delay)
                .await;
        }
    }

    /// Tries until there is a connection.
    async fn connect(&self, mut outage: Disconnected, backoff: &mut ReconnectBackoff) -> Connected {
        loop {
            let error = match self.try_connect().await {
                Ok(connected) => return connected,
                Err(error) => error,
            };
            let reason = error.call_error(&self.address);
            if backoff.should_log(reason.message()) {
                warn!(
                    redis = self.address,
                    client = self.connector.client_name,
                    %reason,
                    "cannot connect to Redis; retrying"
                );
            }
            outage.last_error = Some(error);
            self.state
                .send_replace(ConnectionState::Disconnected(outage.clone()));
            backoff
                .pause(self.connector.options.reconnect_max_delay)
                .await;
        }
    }

    async fn try_connect(&self) -> Result<Connected, ConnectError> {
        let options = &self.connector.options;
        let limit = options.connection_timeout;
        timeout(limit, self.connector.connect())
            .await
            .unwrap_or_else(|_| {
                // A server without TLS waits for more when it receives the start of a TLS handshake.
                let hint = if options.address.tls {
                    " (does the server speak TLS on this port?)"
                } else {
                    ""
                };
                Err(ConnectError::timeout(limit).with_hint(hint))
            })
    }

    /// Waits until the session has to be replaced.
    async fn watch(
        &self,
        session: &Session,
        mut password: Option<Secret>,
        backoff: &mut ReconnectBackoff,
    ) -> DisconnectReason {
        let options = &self.connector.options;
        let mut idle_check = interval(IDLE_CHECK_INTERVAL);
        idle_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        idle_check.reset();
        let mut password_check = interval(PASSWORD_CHECK_INTERVAL);
        password_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rejected: Option<ConnectError> = None;
        loop {
            if let Some(reason) = session.tracking_disabled_reason()
                && backoff.should_log(reason)
            {
                warn!(
                    redis = self.address,
                    client = self.connector.client_name,
                    reason,
                    "cache disabled: client tracking is unavailable"
                );
            }
            tokio::select! {
                state = session.next_state() => match state {
                    SessionState::Open | SessionState::Suspected => {}
                    SessionState::Demoted => return DisconnectReason::Demoted,
                    SessionState::Closed => return DisconnectReason::Broken,
                },
                _ = idle_check.tick() => {}
                _ = password_check.tick(), if options.password_file.is_some() => {
                    let error = self.refresh_auth(session, &mut password).await.err();
                    if let Some(error) = error.as_ref().filter(|error| rejected.as_ref() != Some(error)) {
                        warn!(
                            redis = self.address,
                            client = self.connector.client_name,
                            reason = %error.call_error(&self.address),
                            "new password rejected; the connection stays authenticated with the old one"
                        );
                    }
                    rejected = error;
                    continue;
                }
            }
            match timeout(options.response_timeout, session.ping()).await {
                Ok(true) => {}
                Ok(false) => return DisconnectReason::Broken,
                Err(_) => return DisconnectReason::Unresponsive,
            }
        }
    }

    async fn refresh_auth(
        &self,
        session: &Session,
        password: &mut Option<Secret>,
    ) -> Result<(), ConnectError> {
        let options = &self.connector.options;
        let refreshed = refresh_auth(session, options, password);
        match timeout(options.response_timeout, refreshed).await {
            Ok(Ok(true)) => {
                info!(
                    client = self.connector.client_name,
                    redis = self.address,
                    "logged in with a new password"
                );
                Ok(())
            }
            Ok(Ok(false)) => Ok(()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ConnectError::new(
                ConnectErrorKind::Timeout,
                "no reply to AUTH",
            )),
        }
    }
}
