//! The subscription at one node: connects, subscribes, checks that the node publishes all required
//! events, and reconnects when the connection breaks. It never gives up.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::select;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{error, info, warn};

use crate::redis::backoff::{ReconnectBackoff, jittered};
use crate::redis::command::admin::AdminCommand;
use crate::redis::command_error::CommandError;
use crate::redis::connect_error::ConnectError;
use crate::redis::options::ConnectOptions;
use crate::redis::pubsub::connection::{PubSubConnection, SubscribeError};
use crate::redis::pubsub::flush::Flush;
use crate::redis::pubsub::keyspace_events;
use crate::redis::pubsub::listener::Listener;
use crate::redis::pubsub::state::{Subscribed, SubscriptionState};
use crate::redis::selector::ServerSelector;
use crate::redis::server_error::ServerErrorExt as _;
use crate::telemetry::connections::{ConnectedGuard, Purpose};

/// The interval at which the flags are read, which also shows that the server replies.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// The interval while flags are missing, and an operator may be setting them.
const CHECK_INTERVAL_MISSING: Duration = Duration::from_secs(1);
/// The interval after flags were added: another client may have overwritten them at the same time.
const CHECK_INTERVAL_ADDED: Duration = Duration::from_millis(300);

/// The number of connections so far, as the id of the next one. Relaxed: it orders nothing else.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// The messages to subscribe to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubscriptionSpec {
    /// The glob patterns of the channels.
    pub(crate) patterns: Vec<String>,
    /// The flags of `notify-keyspace-events` that they require.
    pub(crate) flags: &'static str,
    /// True if missing flags may be added.
    pub(crate) may_configure: bool,
}

/// The task of one node.
pub(crate) struct NodeSubscription {
    selector: ServerSelector,
    /// The address in logs and errors, without credentials.
    address: String,
    options: ConnectOptions,
    client_name: String,
    spec: SubscriptionSpec,
    listener: Arc<dyn Listener>,
    state: Arc<Mutex<SubscriptionState>>,
    flush: Arc<Flush>,
}

/// The outcome of a check of the flags.
enum Flags {
    Complete,
    /// Missing flags were added just now.
    Added,
    /// The action required of an operator.
    Missing(String),
    /// The server does not return them, for this reason.
    Unknown(String),
}

impl NodeSubscription {
    pub(crate) fn new(
        selector: ServerSelector,
        options: ConnectOptions,
        client_name: String,
        spec: SubscriptionSpec,
        listener: Arc<dyn Listener>,
        joins_others: bool,
    ) -> Self {
        let reason = format!("cannot watch {selector}: not connected yet");
        let state = SubscriptionState::pending(reason, joins_others);
        Self {
            address: selector.to_string(),
            selector,
            options,
            client_name,
            spec,
            listener,
            state: Arc::new(Mutex::new(state)),
            flush: Arc::new(Flush::new()),
        }
    }

    pub(crate) fn state(&self) -> Arc<Mutex<SubscriptionState>> {
        Arc::clone(&self.state)
    }

    pub(crate) fn flush(&self) -> Arc<Flush> {
        Arc::clone(&self.flush)
    }

    pub(crate) async fn run(self) {
        let mut backoff = ReconnectBackoff::new();
        let mut log_next_connect = true;
        loop {
            let Err(error) = self.run_once(log_next_connect).await;
            let reason = error.to_string();
            let lost = format!("cannot watch {}: {reason}", self.address);
            let uptime = self.state.lock().lose(lost);
            let should_log = match uptime {
                Some(uptime) => {
                    log_next_connect = backoff.disconnected_after(uptime, &reason).is_some();
                    log_next_connect
                }
                None => backoff.should_log(&reason),
            };
            if should_log {
                warn!(
                    redis = self.address,
                    client = self.client_name,
                    reason,
                    "cannot subscribe to key changes; retrying"
                );
            }
            backoff.pause(self.options.reconnect_max_delay).await;
        }
    }

    /// Connects, and stays subscribed until the connection is lost.
    async fn run_once(&self, log_connect: bool) -> Result<Infallible, SubscribeError> {
        let limit = self.options.connection_timeout;
        let id = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        let listener = Arc::clone(&self.listener);
        let opened = PubSubConnection::open(&self.options, &self.selector, id, listener);
        let (connection, driver) = timeout(limit, opened)
            .await
            .unwrap_or_else(|_| Err(ConnectError::timeout(limit)))?;
        select! {
            () = driver => Err(CommandError::Disconnected.into()),
            ended = self.run_subscribed(connection, log_connect) => ended,
        }
    }

    /// Subscribes, and checks the flags until the connection is lost.
    async fn run_subscribed(
        &self,
        mut connection: PubSubConnection,
        log_connect: bool,
    ) -> Result<Infallible, SubscribeError> {
        // For operators; a strict ACL may refuse it.
        let set_name = AdminCommand::SetClientName(&self.client_name);
        match connection.execute(set_name).await {
            Ok(_) | Err(CommandError::ServerError(_)) => {}
            Err(error) => return Err(error.into()),
        }
        connection.subscribe(&self.spec.patterns).await?;
        let Subscribed { is_reconnect, gap } = self.state.lock().subscribe();
        if log_connect {
            info!(
                redis = self.address,
                client = self.client_name,
                "subscribed to key changes"
            );
        }
        if let Some(gap) = gap {
            self.listener.on_gap(&self.address, gap);
        }
        let address = &self.options.address;
        let _connected = ConnectedGuard::new(address, Purpose::Notifications, is_reconnect);
        let mut has_logged_unknown = false;
        loop {
            let (missing, pause) = match self.check_flags(&mut connection).await? {
                Flags::Complete => (None, CHECK_INTERVAL),
                Flags::Added => (None, jittered(CHECK_INTERVAL_ADDED)),
                Flags::Missing(missing) => (Some(missing), CHECK_INTERVAL_MISSING),
                Flags::Unknown(reason) => {
                    if !has_logged_unknown {
                        has_logged_unknown = true;
                        info!(
                            redis = self.address,
                            %reason,
                            "cannot read notify-keyspace-events; watching nevertheless"
                        );
                    }
                    (None, CHECK_INTERVAL)
                }
            };
            self.report_missing_flags(missing);
            self.flush_until(Instant::now() + pause, &mut connection)
                .await?;
        }
    }

    /// Executes the requested round trips until `end`.
    async fn flush_until(
        &self,
        end: Instant,
        connection: &mut PubSubConnection,
    ) -> Result<(), CommandError> {
        while let Ok(number) = timeout_at(end, self.flush.requested()).await {
            match connection.execute(AdminCommand::Ping).await {
                // A reply of any kind shows that all earlier messages have arrived.
                Ok(_) | Err(CommandError::ServerError(_)) => self.flush.complete(number),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads the flags, and adds missing ones where that is allowed.
    async fn check_flags(&self, connection: &mut PubSubConnection) -> Result<Flags, CommandError> {
        let name = keyspace_events::SETTING;
        let reply = match connection.execute(AdminCommand::ConfigGet(name)).await {
            Ok(reply) => reply,
            Err(CommandError::ServerError(error)) => return Ok(Flags::Unknown(error.message())),
            Err(error) => return Err(error),
        };
        let Some(current) = keyspace_events::current(&reply) else {
            return Ok(Flags::Unknown("the setting does not exist".to_owned()));
        };
        let Some(wanted) = keyspace_events::to_set(&current, self.spec.flags) else {
            return Ok(Flags::Complete);
        };
        let advice = keyspace_events::advice(&self.address, &wanted);
        if !self.spec.may_configure {
            return Ok(Flags::Missing(advice));
        }
        let set = AdminCommand::ConfigSet {
            name,
            value: &wanted,
        };
        match connection.execute(set).await {
            Ok(_) => {}
            Err(CommandError::ServerError(error)) => {
                let refusal = error.message();
                return Ok(Flags::Missing(format!("{advice} (refused: {refusal})")));
            }
            Err(error) => return Err(error),
        }
        info!(
            redis = self.address,
            from = current,
            to = wanted,
            "{} was set, as WATCH_CONFIGURE_REDIS allows",
            keyspace_events::SETTING
        );
        Ok(Flags::Added)
    }

    fn report_missing_flags(&self, missing: Option<String>) {
        if !self.state.lock().set_missing_flags(missing.clone()) {
            return;
        }
        match missing {
            Some(reason) => error!(
                redis = self.address,
                client = self.client_name,
                reason,
                "Redis does not publish all watched key changes"
            ),
            None => info!(
                redis = self.address,
                "Redis publishes all watched key changes"
            ),
        }
    }
}
