//! Which server a connection is to be with, and finding it: a fixed one, or what sentinels name.
//!
//! Sentinels are asked anew for every connection, all at once, and what most of them say counts:
//! one that was cut off from the others may name a primary that is none any more.

use std::collections::HashMap;
use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::Value;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::redis::cluster::slot_map::SlotMap;
use crate::redis::command::Request;
use crate::redis::connect_error::{ConnectError, ConnectErrorKind};
use crate::redis::options::ConnectOptions;
use crate::redis::reply::text;
use crate::redis::session::{Session, SessionReply};
use crate::redis::transport::{ServerAddr, dial};
use crate::settings::address::{Endpoint, Sentinels};

/// How long sentinels that do not answer are waited for.
const SENTINEL_PATIENCE: Duration = Duration::from_millis(500);

/// Which server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ServerSelector {
    /// This one.
    ServerSpec(ServerAddr),
    /// This node of a cluster, to read from although it is a replica.
    ClusterReplica(ServerAddr),
    /// The primary that sentinels name.
    Primary(Sentinels),
    /// A replica that sentinels name, or the primary while there is none.
    Replica(Sentinels),
}

impl ServerSelector {
    /// Where the server is at the moment.
    ///
    /// # Errors
    ///
    /// The sentinels do not say.
    pub(crate) async fn find(&self, target: &ConnectOptions) -> Result<ServerAddr, ConnectError> {
        match self {
            Self::ServerSpec(site) | Self::ClusterReplica(site) => Ok(site.clone()),
            Self::Primary(sentinels) => primary(sentinels, target).await.map(ServerAddr::Tcp),
            Self::Replica(sentinels) => {
                if let Ok(replicas) = ask_all(sentinels, target, replicas).await
                    && !replicas.is_empty()
                {
                    let chosen = fastrand::usize(..replicas.len());
                    return Ok(ServerAddr::Tcp(replicas[chosen].clone()));
                }
                primary(sentinels, target).await.map(ServerAddr::Tcp)
            }
        }
    }

    /// The role that the server must have, if there is one that it can lose.
    pub(crate) fn role(&self) -> Option<&'static str> {
        matches!(self, Self::Primary(_)).then_some("master")
    }
}

/// Where the keys of a link are told of, now and later.
#[derive(Clone, Debug)]
pub(crate) enum ServerSet {
    /// One server.
    One(ServerSelector),
    /// The primaries of a cluster.
    Cluster(watch::Receiver<Option<Arc<SlotMap>>>),
}

impl ServerSet {
    /// Those of now.
    pub(crate) fn now(&mut self) -> Vec<ServerSelector> {
        match self {
            Self::One(place) => vec![place.clone()],
            Self::Cluster(map) => {
                let map = map.borrow_and_update();
                let shards = map.iter().flat_map(|map| map.shards());
                let sites = shards.map(|shard| ServerAddr::Tcp(shard.endpoint.clone()));
                sites.map(ServerSelector::ServerSpec).collect()
            }
        }
    }

    /// Waits until they are others.
    pub(crate) async fn changed(&mut self) {
        let stays = match self {
            Self::One(_) => true,
            Self::Cluster(map) => map.changed().await.is_err(),
        };
        if stays {
            pending::<()>().await;
        }
    }
}

impl fmt::Display for ServerSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServerSpec(site) | Self::ClusterReplica(site) => match site {
                ServerAddr::Tcp(_) => write!(f, "redis://{site}"),
                ServerAddr::Unix(_) => write!(f, "redis+unix://{site}"),
            },
            Self::Primary(sentinels) | Self::Replica(sentinels) => {
                write!(f, "the primary of {}", sentinels.service)
            }
        }
    }
}

async fn primary(sentinels: &Sentinels, target: &ConnectOptions) -> Result<Endpoint, ConnectError> {
    ask_all(sentinels, target, async |line, service| {
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
        let Value::Array(parts) = ask(&line, command).await? else {
            let words = format!("the sentinels know no service {service:?} (sentinelServiceName)");
            return Err(ConnectError::new(ConnectErrorKind::UnknownMaster, words));
        };
        let [host, port] = &parts[..] else {
            return Err(nonsense());
        };
        endpoint(host, port)
    })
    .await
}

/// The replicas that a sentinel holds for healthy.
async fn replicas(line: Session, service: &str) -> Result<Vec<Endpoint>, ConnectError> {
    let mut command = redis::cmd("SENTINEL");
    command.arg("REPLICAS").arg(service);
    let Value::Array(replicas) = ask(&line, command).await? else {
        return Err(nonsense());
    };
    let mut healthy: Vec<Endpoint> = replicas.iter().filter_map(healthy_replica).collect();
    healthy.sort();
    Ok(healthy)
}

fn healthy_replica(replica: &Value) -> Option<Endpoint> {
    let Value::Array(fields) = replica else {
        return None;
    };
    let field = |name: &str| {
        let pairs = fields.chunks_exact(2);
        pairs
            .filter(|pair| text(&pair[0]) == Some(name))
            .map(|pair| &pair[1])
            .next()
    };
    let flags = text(field("flags")?)?;
    let healthy = flags.split(',').all(|flag| flag == "slave");
    let linked = text(field("master-link-status")?)? == "ok";
    if !(healthy && linked) {
        return None;
    }
    endpoint(field("ip")?, field("port")?).ok()
}

/// Asks all sentinels at once; answers what most of them say.
async fn ask_all<T: Clone + Eq + std::hash::Hash>(
    sentinels: &Sentinels,
    target: &ConnectOptions,
    question: impl AsyncFn(Session, &str) -> Result<T, ConnectError>,
) -> Result<T, ConnectError> {
    let give_up = Instant::now() + SENTINEL_PATIENCE.min(target.connection_timeout);
    let mut answers: FuturesUnordered<_> = sentinels
        .endpoints
        .iter()
        .map(|endpoint| {
            let question = &question;
            async move {
                let answer = async {
                    let line = open(endpoint, sentinels, target).await?;
                    question(line, &sentinels.service).await
                };
                let late = || ConnectError::new(ConnectErrorKind::Timeout, "no answer in time");
                let answer = timeout_at(give_up, answer).await;
                (endpoint, answer.unwrap_or_else(|_| Err(late())))
            }
        })
        .collect();
    let mut votes: HashMap<T, usize> = HashMap::new();
    let mut failure = ConnectError::new(ConnectErrorKind::Unreachable, "there are no sentinels");
    while let Some((endpoint, answer)) = answers.next().await {
        match answer {
            Ok(answer) => {
                let count = votes.entry(answer.clone()).or_default();
                *count += 1;
                if *count > sentinels.endpoints.len() / 2 {
                    return Ok(answer);
                }
            }
            Err(error) => failure = error.at(&format!("the sentinel at {endpoint}")),
        }
    }
    let most = votes.into_iter().max_by_key(|(_, count)| *count);
    most.map(|(answer, _)| answer).ok_or(failure)
}

async fn open(
    endpoint: &Endpoint,
    sentinels: &Sentinels,
    target: &ConnectOptions,
) -> Result<Session, ConnectError> {
    let stream = dial(&ServerAddr::Tcp(endpoint.clone()), target.tls()).await?;
    let line = Session::over(stream).await?;
    line.authenticate(sentinels.username.as_deref(), sentinels.password.as_ref())
        .await?;
    Ok(line)
}

async fn ask(line: &Session, command: redis::Cmd) -> Result<Value, ConnectError> {
    match line.send(&Request::One(command), false).await {
        SessionReply::Value(answer) => Ok(answer),
        SessionReply::ServerError(refusal) => Err(ConnectError::refused(&refusal)),
        SessionReply::Disconnected => Err(ConnectError::hung_up()),
    }
}

fn endpoint(host: &Value, port: &Value) -> Result<Endpoint, ConnectError> {
    let host = text(host).ok_or_else(nonsense)?.to_owned();
    let port = text(port)
        .and_then(|port| port.parse().ok())
        .ok_or_else(nonsense)?;
    Ok(Endpoint { host, port })
}

fn nonsense() -> ConnectError {
    ConnectError::new(
        ConnectErrorKind::NoSentinel,
        "what answers there is no sentinel",
    )
}
