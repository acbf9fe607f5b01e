//! A connection to Redis that mends itself: a request goes in, an answer comes out.
//!
//! Many calls share it at once. It waits for Redis within a call's time, tries again what is safe
//! to try again, and knows which requests may have reached Redis. A single server, or the one that
//! sentinels name, is a `node`; a `cluster` is several. `supervisor` keeps a node up, `line` is one
//! established connection, `no_line` why there is none, `gate` says how many calls of a link may use
//! it. `subscription` hears of changes of keys over connections of its own; `probe` tells how a
//! connection would be.
//! Which command a call needs is for the rooms of the interfaces.

use std::sync::Arc;

use crate::cache::read_through::Cache;
use crate::error::Error;
use crate::redis::server_error::in_words;
use crate::settings::address::ServerSpec;

use crate::redis::cluster::Cluster;
use crate::redis::command::{Command, RetryPolicy};
use crate::redis::connect_error::Outage;
use crate::redis::limiter::Admission;
use crate::redis::limiter::Limiter;
use crate::redis::node::Node;
use crate::redis::options::ConnectOptions;
use crate::redis::resolve::ServerSelector;
use crate::redis::resolve::ServerSet;
use crate::redis::retry::Reply;
use crate::redis::retry::{AttemptOutcome, RetryLoop};
use crate::redis::transport::ServerAddr;

/// A connection that is kept up as long as somebody holds it.
#[derive(Debug)]
pub(crate) struct Connection {
    kind: Backend,
    cache: Option<Arc<Cache>>,
}

#[derive(Debug)]
enum Backend {
    /// One server at a time, and one to read from, if that is another.
    Single {
        place: ServerSelector,
        primary: Node,
        replica: Option<Node>,
    },
    Cluster(Cluster),
}

impl Connection {
    /// Starts connecting in the background. `name` is what Redis shows for it (`CLIENT LIST`).
    pub(crate) fn start(target: ConnectOptions, name: &str) -> Self {
        let cache = target.cache.map(Cache::new).map(Arc::new);
        let kind = Backend::start(target, name, cache.as_ref());
        Self { kind, cache }
    }

    /// What has been read over it and is kept.
    pub(crate) fn cache(&self) -> Option<&Arc<Cache>> {
        self.cache.as_ref()
    }

    /// Since when and why there is no connection; `None` while there is one.
    pub(crate) fn outage(&self) -> Option<Outage> {
        match &self.kind {
            Backend::Single { primary, .. } => primary.outage(),
            Backend::Cluster(cluster) => cluster.outage(),
        }
    }

    /// Where changes of keys are told: at the server, or at each primary of a cluster.
    pub(crate) fn places(&self) -> ServerSet {
        match &self.kind {
            Backend::Single { place, .. } => ServerSet::One(place.clone()),
            Backend::Cluster(cluster) => ServerSet::Cluster(cluster.maps()),
        }
    }

    /// Sends a request and waits for its answer, which is never an error of Redis.
    ///
    /// # Errors
    ///
    /// What keeps Redis from answering, or Redis's refusal.
    pub(crate) async fn execute(
        &self,
        command: &Command<'_>,
        gate: &Limiter,
        patience: RetryPolicy,
    ) -> Result<Reply, Error> {
        let (primary, replica) = match &self.kind {
            Backend::Single {
                primary, replica, ..
            } => (primary, replica),
            Backend::Cluster(cluster) => {
                // Boxed, because it is much larger than what single servers need.
                return Box::pin(cluster.execute(command, gate, patience)).await;
            }
        };
        let caller = Admission::Whole(gate);
        let mut attempts = RetryLoop::new(command, caller, patience);
        loop {
            let node = match replica {
                Some(replica)
                    if command.is_read()
                        && !attempts.was_refused()
                        && replica.session().is_some() =>
                {
                    replica
                }
                _ => primary,
            };
            let line = node.line(caller, patience).await?;
            match attempts.once(node, &line, false).await {
                AttemptOutcome::Done(result) => return attempts.answered(result),
                AttemptOutcome::Retry => {}
                AttemptOutcome::Redirect(refusal) => {
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

impl Backend {
    fn start(target: ConnectOptions, name: &str, cache: Option<&Arc<Cache>>) -> Self {
        let address = target.address.to_string();
        let replica_wanted = target.read_from_replica;
        let (primary, replica) = match &target.address.server {
            ServerSpec::Tcp(endpoint) => (
                ServerSelector::ServerSpec(ServerAddr::Tcp(endpoint.clone())),
                None,
            ),
            ServerSpec::Unix { path } => (
                ServerSelector::ServerSpec(ServerAddr::Unix(path.clone())),
                None,
            ),
            ServerSpec::Sentinel(sentinels) => (
                ServerSelector::Primary(sentinels.clone()),
                replica_wanted.then(|| ServerSelector::Replica(sentinels.clone())),
            ),
            ServerSpec::Cluster { seeds } => {
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
