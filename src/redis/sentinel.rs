//! Queries to sentinels: the primary, and the healthy replicas.
//!
//! All sentinels are queried at once and the majority decides: a sentinel that was cut off from the
//! others may report a primary that a failover has replaced.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::Value;
use tokio::time::{Instant, timeout_at};

use crate::redis::command::admin::AdminCommand;
use crate::redis::connect_error::{ConnectError, ConnectErrorKind};
use crate::redis::handshake;
use crate::redis::options::ConnectOptions;
use crate::redis::reply::text;
use crate::redis::session::{Session, SessionReply};
use crate::redis::transport::{ServerAddr, dial};
use crate::settings::address::{Endpoint, Sentinels};

/// Time limit for all sentinels together: a majority decides without the slow ones.
const SENTINEL_TIMEOUT: Duration = Duration::from_millis(500);

pub(crate) async fn primary(
    sentinels: &Sentinels,
    options: &ConnectOptions,
) -> Result<Endpoint, ConnectError> {
    query_majority(sentinels, options, async |session, service| {
        let command = AdminCommand::SentinelPrimary { service };
        let Value::Array(parts) = execute(&session, command).await? else {
            let message =
                format!("the sentinels do not monitor a service {service:?} (sentinelServiceName)");
            return Err(ConnectError::new(ConnectErrorKind::UnknownMaster, message));
        };
        let [host, port] = &parts[..] else {
            return Err(not_a_sentinel());
        };
        endpoint(host, port).ok_or_else(not_a_sentinel)
    })
    .await
}

/// The replicas that most sentinels consider healthy.
pub(crate) async fn replicas(
    sentinels: &Sentinels,
    options: &ConnectOptions,
) -> Result<Vec<Endpoint>, ConnectError> {
    query_majority(sentinels, options, async |session, service| {
        let command = AdminCommand::SentinelReplicas { service };
        let Value::Array(replicas) = execute(&session, command).await? else {
            return Err(not_a_sentinel());
        };
        let mut healthy: Vec<Endpoint> = replicas.iter().filter_map(healthy_replica).collect();
        healthy.sort();
        Ok(healthy)
    })
    .await
}

fn healthy_replica(replica: &Value) -> Option<Endpoint> {
    let Value::Array(fields) = replica else {
        return None;
    };
    let field = |name: &str| {
        let mut pairs = fields.chunks_exact(2);
        let pair = pairs.find(|pair| text(&pair[0]) == Some(name))?;
        Some(&pair[1])
    };
    let is_replica = text(field("flags")?)? == "slave";
    let is_linked = text(field("master-link-status")?)? == "ok";
    if !(is_replica && is_linked) {
        return None;
    }
    endpoint(field("ip")?, field("port")?)
}

/// Sends a query to all sentinels at once, and returns the reply of most of them.
async fn query_majority<T: Clone + Eq + Hash>(
    sentinels: &Sentinels,
    options: &ConnectOptions,
    query: impl AsyncFn(Session, &str) -> Result<T, ConnectError>,
) -> Result<T, ConnectError> {
    let limit = SENTINEL_TIMEOUT.min(options.connection_timeout);
    let deadline = Instant::now() + limit;
    let mut replies: FuturesUnordered<_> = sentinels
        .endpoints
        .iter()
        .map(|endpoint| {
            let query = &query;
            async move {
                let reply = async {
                    let session = open(endpoint, sentinels, options).await?;
                    query(session, &sentinels.service).await
                };
                let late = || ConnectError::new(ConnectErrorKind::Timeout, "no reply in time");
                let reply = timeout_at(deadline, reply).await;
                (endpoint, reply.unwrap_or_else(|_| Err(late())))
            }
        })
        .collect();
    let mut votes: HashMap<T, usize> = HashMap::new();
    let mut last_error =
        ConnectError::new(ConnectErrorKind::Unreachable, "no sentinel is configured");
    while let Some((endpoint, reply)) = replies.next().await {
        match reply {
            Ok(reply) => {
                let count = votes.entry(reply.clone()).or_default();
                *count += 1;
                if *count > sentinels.endpoints.len() / 2 {
                    return Ok(reply);
                }
            }
            Err(error) => last_error = error.at(&format!("the sentinel at {endpoint}")),
        }
    }
    let most = votes.into_iter().max_by_key(|(_, count)| *count);
    most.map(|(reply, _)| reply).ok_or(last_error)
}

async fn open(
    endpoint: &Endpoint,
    sentinels: &Sentinels,
    options: &ConnectOptions,
) -> Result<Session, ConnectError> {
    let stream = dial(&ServerAddr::Tcp(endpoint.clone()), options.tls()).await?;
    let session = Session::open(stream).await?;
    let (username, password) = (sentinels.username.as_deref(), sentinels.password.as_ref());
    handshake::authenticate(&session, username, password).await?;
    Ok(session)
}

async fn execute(session: &Session, command: AdminCommand<'_>) -> Result<Value, ConnectError> {
    match session.send(&command.into(), false).await {
        SessionReply::Value(reply) => Ok(reply),
        SessionReply::ServerError(error) => Err(ConnectError::server(&error)),
        SessionReply::Disconnected => Err(ConnectError::closed_during_handshake()),
    }
}

fn endpoint(host: &Value, port: &Value) -> Option<Endpoint> {
    Some(Endpoint {
        host: text(host)?.to_owned(),
        port: text(port)?.parse().ok()?,
    })
}

fn not_a_sentinel() -> ConnectError {
    ConnectError::new(
        ConnectErrorKind::NotASentinel,
        "the server is not a sentinel",
    )
}
