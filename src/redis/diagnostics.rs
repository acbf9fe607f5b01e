//! The single steps in which a link connects, and single commands over the connection, for `kvredis
//! check`.
//!
//! Each step runs the code of a link. A probe tries once, within the time limits of the settings.
//! `check` interprets the results.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::time::timeout;

use crate::cache::read_through::Cache;
use crate::redis::cluster::slot_ranges::{SlotRange, parse_slots};
use crate::redis::command::admin::AdminCommand;
use crate::redis::command_error::CommandError;
use crate::redis::connect_error::ConnectError;
use crate::redis::connector::Connector;
use crate::redis::options::ConnectOptions;
use crate::redis::pubsub::connection::{PubSubConnection, SubscribeError};
use crate::redis::pubsub::listener::NullListener;
use crate::redis::resolve;
use crate::redis::selector::ServerSelector;
use crate::redis::session::{Session, SessionReply};
use crate::redis::transport::{ServerAddr, dial, tcp, tls};
use crate::settings::address::Endpoint;

/// The client name in `CLIENT LIST`.
const CLIENT_NAME: &str = "kvredis:check";

/// An established connection.
#[derive(Debug)]
pub(crate) struct Probe {
    session: Session,
    response_timeout: Duration,
}

/// The result of trying client tracking.
pub(crate) enum TrackingSupport {
    /// The settings do not enable the cache.
    Disabled,
    Supported,
    Unsupported(String),
}

/// The current address of the server.
pub(crate) async fn resolve(
    options: &ConnectOptions,
    selector: &ServerSelector,
) -> Result<ServerAddr, ConnectError> {
    let resolved = resolve::resolve(selector, options);
    let resolved = within(options.connection_timeout, resolved).await?;
    Ok(resolved.addr)
}

/// Opens a connection without TLS and closes it.
pub(crate) async fn dial_only(
    options: &ConnectOptions,
    addr: &ServerAddr,
) -> Result<(), ConnectError> {
    within(options.connection_timeout, dial(addr, None))
        .await
        .map(drop)
}

/// Performs the TLS handshake. Returns the version of TLS, or `None` where TLS is not used.
pub(crate) async fn tls_version(
    options: &ConnectOptions,
    addr: &ServerAddr,
) -> Result<Option<String>, ConnectError> {
    let (ServerAddr::Tcp(endpoint), Some(tls)) = (addr, options.tls()) else {
        return Ok(None);
    };
    let secured = async {
        // `dial` also receives the server's verdict on the client certificate.
        drop(dial(addr, Some(tls)).await?);
        let stream = tcp::connect(endpoint).await?;
        tls::secure(stream, &endpoint.host, tls).await
    };
    let stream = within(options.connection_timeout, secured).await?;
    let version = stream.get_ref().1.protocol_version();
    Ok(version.and_then(|version| version.as_str()).map(|version| {
        // rustls writes `TLSv1_3`.
        version.replace("TLSv", "TLS ").replace('_', ".")
    }))
}

/// Connects and performs the handshake.
pub(crate) async fn open(
    options: &ConnectOptions,
    selector: &ServerSelector,
) -> Result<Probe, ConnectError> {
    let session = connect(options, selector, None).await?;
    Ok(Probe {
        session,
        response_timeout: options.response_timeout,
    })
}

/// Opens a connection as a link with a cache does.
pub(crate) async fn tracking_support(
    options: &ConnectOptions,
    selector: &ServerSelector,
) -> TrackingSupport {
    let Some(limits) = options.cache else {
        return TrackingSupport::Disabled;
    };
    let cache = Arc::new(Cache::new(limits));
    match connect(options, selector, Some(cache)).await {
        Ok(session) => match session.tracking_disabled_reason() {
            None => TrackingSupport::Supported,
            Some(reason) => TrackingSupport::Unsupported(reason.to_owned()),
        },
        Err(error) => TrackingSupport::Unsupported(error.message().to_owned()),
    }
}

/// Subscribes to patterns of channels over a connection of its own, as a watching link does.
pub(crate) async fn subscribe(
    options: &ConnectOptions,
    selector: &ServerSelector,
    patterns: &[String],
) -> Result<(), SubscribeError> {
    let opened = PubSubConnection::open(options, selector, 0, Arc::new(NullListener));
    let (mut connection, driver) = within(options.connection_timeout, opened).await?;
    tokio::select! {
        () = driver => Err(CommandError::Disconnected.into()),
        subscribed = connection.subscribe(patterns) => subscribed,
    }
}

impl Probe {
    pub(crate) async fn execute(&self, command: AdminCommand<'_>) -> Result<Value, CommandError> {
        let command = command.into();
        let reply = self.session.send(&command, false);
        match timeout(self.response_timeout, reply).await {
            Ok(SessionReply::Value(reply)) => Ok(reply),
            Ok(SessionReply::ServerError(error)) => Err(CommandError::ServerError(error)),
            Ok(SessionReply::Disconnected) => Err(CommandError::Disconnected),
            Err(_) => Err(CommandError::Timeout(self.response_timeout)),
        }
    }

    /// The nodes of the cluster with their slots, or `None` if the reply has no slots. `queried` is the
    /// address of this connection.
    pub(crate) async fn slots(
        &self,
        queried: &Endpoint,
    ) -> Result<Option<Vec<SlotRange>>, CommandError> {
        let reply = self.execute(AdminCommand::ClusterSlots).await?;
        Ok(parse_slots(&reply, queried).ok())
    }
}

async fn connect(
    options: &ConnectOptions,
    selector: &ServerSelector,
    cache: Option<Arc<Cache>>,
) -> Result<Session, ConnectError> {
    let connector = Connector {
        options: options.clone(),
        selector: selector.clone(),
        client_name: CLIENT_NAME.to_owned(),
        cache,
    };
    let connected = within(options.connection_timeout, connector.connect()).await?;
    Ok(connected.session)
}

async fn within<T>(
    limit: Duration,
    step: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    timeout(limit, step)
        .await
        .unwrap_or_else(|_| Err(ConnectError::timeout(limit)))
}
