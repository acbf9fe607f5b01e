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

use super::Target;
use super::answer::text;
use super::cluster::Map;
use super::dial::{Site, dial};
use super::line::{Line, Reply};
use super::no_line::{Cause, NoLine};
use super::request::Request;
use crate::settings::address::{Endpoint, Sentinels};

/// How long sentinels that do not answer are waited for.
const SENTINEL_PATIENCE: Duration = Duration::from_millis(500);

/// Which server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// This one.
    Server(Site),
    /// This node of a cluster, to read from although it is a replica.
    ClusterReplica(Site),
    /// The primary that sentinels name.
    Primary(Sentinels),
    /// A replica that sentinels name, or the primary while there is none.
    Replica(Sentinels),
}

impl Place {
    /// Where the server is at the moment.
    ///
    /// # Errors
    ///
    /// The sentinels do not say.
    pub async fn find(&self, target: &Target) -> Result<Site, NoLine> {
        match self {
            Self::Server(site) | Self::ClusterReplica(site) => Ok(site.clone()),
            Self::Primary(sentinels) => primary(sentinels, target).await.map(Site::Tcp),
            Self::Replica(sentinels) => {
                if let Ok(replicas) = ask_all(sentinels, target, replicas).await
                    && !replicas.is_empty()
                {
                    let chosen = fastrand::usize(..replicas.len());
                    return Ok(Site::Tcp(replicas[chosen].clone()));
                }
                primary(sentinels, target).await.map(Site::Tcp)
            }
        }
    }

    /// The role that the server must have, if there is one that it can lose.
    pub fn role(&self) -> Option<&'static str> {
        matches!(self, Self::Primary(_)).then_some("master")
    }
}

/// Where the keys of a link are told of, now and later.
#[derive(Clone, Debug)]
pub enum Places {
    /// One server.
    One(Place),
    /// The primaries of a cluster.
    Cluster(watch::Receiver<Option<Arc<Map>>>),
}

impl Places {
    /// Those of now.
    pub fn now(&mut self) -> Vec<Place> {
        match self {
            Self::One(place) => vec![place.clone()],
            Self::Cluster(map) => {
                let map = map.borrow_and_update();
                let shards = map.iter().flat_map(|map| map.shards());
                let sites = shards.map(|shard| Site::Tcp(shard.endpoint.clone()));
                sites.map(Place::Server).collect()
            }
        }
    }

    /// Waits until they are others.
    pub async fn changed(&mut self) {
        let stays = match self {
            Self::One(_) => true,
            Self::Cluster(map) => map.changed().await.is_err(),
        };
        if stays {
            pending::<()>().await;
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(site) | Self::ClusterReplica(site) => match site {
                Site::Tcp(_) => write!(f, "redis://{site}"),
                Site::Unix(_) => write!(f, "redis+unix://{site}"),
            },
            Self::Primary(sentinels) | Self::Replica(sentinels) => {
                write!(f, "the primary of {}", sentinels.service)
            }
        }
    }
}

async fn primary(sentinels: &Sentinels, target: &Target) -> Result<Endpoint, NoLine> {
    ask_all(sentinels, target, async |line, service| {
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
        let Value::Array(parts) = ask(&line, command).await? else {
            let words = format!("the sentinels know no service {service:?} (sentinelServiceName)");
            return Err(NoLine::new(Cause::UnknownService, words));
        };
        let [host, port] = &parts[..] else {
            return Err(nonsense());
        };
        endpoint(host, port)
    })
    .await
}

/// The replicas that a sentinel holds for healthy.
async fn replicas(line: Line, service: &str) -> Result<Vec<Endpoint>, NoLine> {
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
    target: &Target,
    question: impl AsyncFn(Line, &str) -> Result<T, NoLine>,
) -> Result<T, NoLine> {
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
                let late = || NoLine::new(Cause::Late, "no answer in time");
                let answer = timeout_at(give_up, answer).await;
                (endpoint, answer.unwrap_or_else(|_| Err(late())))
            }
        })
        .collect();
    let mut votes: HashMap<T, usize> = HashMap::new();
    let mut failure = NoLine::new(Cause::Unreachable, "there are no sentinels");
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

async fn open(endpoint: &Endpoint, sentinels: &Sentinels, target: &Target) -> Result<Line, NoLine> {
    let stream = dial(&Site::Tcp(endpoint.clone()), target.tls()).await?;
    let line = Line::over(stream).await?;
    line.authenticate(sentinels.username.as_deref(), sentinels.password.as_ref())
        .await?;
    Ok(line)
}

async fn ask(line: &Line, command: redis::Cmd) -> Result<Value, NoLine> {
    match line.send(&Request::One(command), false).await {
        Reply::Answer(answer) => Ok(answer),
        Reply::Refusal(refusal) => Err(NoLine::refused(&refusal)),
        Reply::Lost => Err(NoLine::hung_up()),
    }
}

fn endpoint(host: &Value, port: &Value) -> Result<Endpoint, NoLine> {
    let host = text(host).ok_or_else(nonsense)?.to_owned();
    let port = text(port)
        .and_then(|port| port.parse().ok())
        .ok_or_else(nonsense)?;
    Ok(Endpoint { host, port })
}

fn nonsense() -> NoLine {
    NoLine::new(Cause::NoSentinel, "what answers there is no sentinel")
}
