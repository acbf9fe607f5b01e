//! A connection to Redis that mends itself: a request goes in, an answer comes out.
//!
//! Many calls share it at once. It waits for Redis within a call's time, tries again what is safe
//! to try again, and knows which requests may have reached Redis. A single server, or the one that
//! sentinels name, is a `node`; a `cluster` is several. `supervisor` keeps a node up, `line` is one
//! established connection, `no_line` why there is none, `gate` says how many calls of a link may use
//! it. `subscription` hears of changes of keys over connections of its own; `probe` tells how a
//! connection would be.
//! Which command a call needs is for the rooms of the interfaces.

pub mod answer;
mod cluster;
mod dial;
mod gate;
mod hearing;
mod line;
mod no_line;
mod node;
mod notifications;
mod place;
pub mod probe;
mod request;
mod subscriber;
pub mod subscription;
mod supervisor;
mod tls;
mod tracking;
mod trouble;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::cache::{self, Cache};
use crate::error::{Error, Failure, in_words};
use crate::settings::address::Server;
use crate::settings::{Address, Settings, Tls};

pub use gate::Gate;
pub use node::Answered;
pub use request::{Patience, Request, Retry};

use cluster::Cluster;
use dial::Site;
use gate::Caller;
use node::{Attempts, Node, Outcome};
use place::Place;
pub use place::Places;

/// What to connect to, and how long to try.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The server, the credentials and the database.
    pub address: Address,
    /// The file that holds the password.
    pub password_file: Option<PathBuf>,
    /// Certificates and keys; only an address with TLS uses them.
    pub tls: Tls,
    /// Whether reads may go to replicas.
    pub read_from_replica: bool,
    /// Time limit for establishing a connection.
    pub connection_timeout: Duration,
    /// Time limit for one answer, also for the question whether Redis still answers at all.
    pub response_timeout: Duration,
    /// Longest pause between attempts to connect.
    pub reconnect_max_delay: Duration,
    /// How much of what was read is kept, if anything.
    pub cache: Option<cache::Limits>,
}

/// Why a connection is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Since when.
    pub since: Instant,
    /// What a call is answered that does not wait for its end, without secrets.
    pub failure: Failure,
}

/// A connection that is kept up as long as somebody holds it.
#[derive(Debug)]
pub struct Connection {
    kind: Kind,
    cache: Option<Arc<Cache>>,
}

#[derive(Debug)]
enum Kind {
    /// One server at a time, and one to read from, if that is another.
    Single {
        place: Place,
        primary: Node,
        replica: Option<Node>,
    },
    Cluster(Cluster),
}

impl Target {
    /// What a link's settings ask for.
    pub fn new(settings: &Settings) -> Self {
        Self {
            address: settings.address.clone(),
            password_file: settings.password_file.clone(),
            tls: settings.tls.clone(),
            read_from_replica: settings.read_from_replica,
            connection_timeout: settings.connection_timeout,
            response_timeout: settings.response_timeout,
            reconnect_max_delay: settings.reconnect_max_delay,
            cache: (settings.cache_max_entries > 0).then_some(cache::Limits {
                entries: settings.cache_max_entries,
                bytes: settings.cache_max_bytes,
                age: settings.cache_ttl,
            }),
        }
    }

    /// The TLS settings, where TLS is spoken.
    fn tls(&self) -> Option<&Tls> {
        self.address.tls.then_some(&self.tls)
    }
}

impl Connection {
    /// Starts connecting in the background. `name` is what Redis shows for it (`CLIENT LIST`).
    pub fn start(target: Target, name: &str) -> Self {
        let cache = target.cache.map(Cache::new).map(Arc::new);
        let kind = Kind::start(target, name, cache.as_ref());
        Self { kind, cache }
    }

    /// What has been read over it and is kept.
    pub fn cache(&self) -> Option<&Arc<Cache>> {
        self.cache.as_ref()
    }

    /// Since when and why there is no connection; `None` while there is one.
    pub fn outage(&self) -> Option<Outage> {
        match &self.kind {
            Kind::Single { primary, .. } => primary.outage(),
            Kind::Cluster(cluster) => cluster.outage(),
        }
    }

    /// Where changes of keys are told: at the server, or at each primary of a cluster.
    pub fn places(&self) -> Places {
        match &self.kind {
            Kind::Single { place, .. } => Places::One(place.clone()),
            Kind::Cluster(cluster) => Places::Cluster(cluster.maps()),
        }
    }

    /// Sends a request and waits for its answer, which is never an error of Redis.
    ///
    /// # Errors
    ///
    /// What keeps Redis from answering, or Redis's refusal.
    pub async fn ask(
        &self,
        request: &Request,
        retry: Retry,
        gate: &Gate,
        patience: Patience,
    ) -> Result<Answered, Error> {
        let (primary, replica) = match &self.kind {
            Kind::Single {
                primary, replica, ..
            } => (primary, replica),
            Kind::Cluster(cluster) => {
                // Boxed, because it is much larger than what single servers need.
                return Box::pin(cluster.ask(request, retry, gate, patience)).await;
            }
        };
        let caller = Caller::Whole(gate);
        let mut attempts = Attempts::new(request, retry, caller, patience);
        loop {
            let node = match replica {
                Some(replica)
                    if request.is_read()
                        && !attempts.was_refused()
                        && replica.ready_line().is_some() =>
                {
                    replica
                }
                _ => primary,
            };
            let line = node.line(caller, patience).await?;
            match attempts.once(node, &line, false).await {
                Outcome::Done(result) => return attempts.answered(result),
                Outcome::Again => {}
                Outcome::Elsewhere(refusal) => {
                    return Err(Error::other(format!(
                        "the server is a node of a cluster: expected redis-cluster://… as URL \
                         ({})",
                        in_words(&refusal)
                    )));
                }
            }
        }
    }
}

impl Kind {
    fn start(target: Target, name: &str, cache: Option<&Arc<Cache>>) -> Self {
        let address = target.address.to_string();
        let replica_wanted = target.read_from_replica;
        let (primary, replica) = match &target.address.server {
            Server::Tcp(endpoint) => (Place::Server(Site::Tcp(endpoint.clone())), None),
            Server::Unix { path } => (Place::Server(Site::Unix(path.clone())), None),
            Server::Sentinel(sentinels) => (
                Place::Primary(sentinels.clone()),
                replica_wanted.then(|| Place::Replica(sentinels.clone())),
            ),
            Server::Cluster { seeds } => {
                let seeds = seeds.clone();
                return Self::Cluster(Cluster::start(target, seeds, name, cache));
            }
        };
        let replica = replica.map(|place| {
            let address = format!("a replica of {address}");
            Node::start(target.clone(), place, address, name, cache)
        });
        Self::Single {
            place: primary.clone(),
            primary: Node::start(target, primary, address, name, cache),
            replica,
        }
    }
}
