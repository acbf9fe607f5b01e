//! A connection to Redis that restores itself: a command goes in, a reply comes out.
//!
//! Many calls share it at once. It waits for Redis until the deadline of a call, retries commands
//! that are safe to retry, and records whether a command may have reached Redis. A single server, or
//! the primary that sentinels name, is one `node`; a `cluster` is several.

use std::sync::Arc;

use crate::cache::read_through::Cache;
use crate::error::Error;
use crate::redis::server_error::ServerErrorExt as _;
use crate::settings::address::ServerSpec;

use crate::redis::cluster::Cluster;
use crate::redis::command::{Command, RetryPolicy, ScanFrom};
use crate::redis::connect_error::Outage;
use crate::redis::limiter::Admission;
use crate::redis::limiter::Limiter;
use crate::redis::listing::{Fingerprint, ListRequest, Page, Position, server_cursor};
use crate::redis::node::Node;
use crate::redis::options::ConnectOptions;
use crate::redis::pubsub::server_set::ServerSet;
use crate::redis::reply::scan_page;
use crate::redis::retry::Reply;
use crate::redis::retry::{AttemptOutcome, RetryLoop};
use crate::redis::selector::ServerSelector;
use crate::redis::transport::ServerAddr;

/// A connection that is maintained until it is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    backend: Backend,
    cache: Option<Arc<Cache>>,
}

#[derive(Debug)]
enum Backend {
    /// One server, and a replica for reads if the settings enable it.
    Single {
        selector: ServerSelector,
        primary: Node,
        replica: Option<Node>,
    },
    Cluster(Cluster),
}

impl Connection {
    /// Starts connecting in the background. `name` is shown in `CLIENT LIST`.
    pub(crate) fn start(options: ConnectOptions, name: &str) -> Self {
        let cache = options.cache.map(Cache::new).map(Arc::new);
        let backend = Backend::start(options, name, cache.as_ref());
        Self { backend, cache }
    }

    pub(crate) fn cache(&self) -> Option<&Arc<Cache>> {
        self.cache.as_ref()
    }

    /// `None` while there is a connection.
    pub(crate) fn outage(&self) -> Option<Outage> {
        match &self.backend {
            Backend::Single { primary, .. } => primary.outage(),
            Backend::Cluster(cluster) => cluster.outage(),
        }
    }

    /// The servers that publish key changes: the server, or each primary of a cluster.
    pub(crate) fn publishers(&self) -> ServerSet {
        match &self.backend {
            Backend::Single { selector, .. } => ServerSet::One(selector.clone()),
            Backend::Cluster(cluster) => ServerSet::Cluster(cluster.maps()),
        }
    }

    /// Sends a command and returns its reply, which is never an error of the server.
    ///
    /// # Errors
    ///
    /// No connection, no reply in time, or the server refuses the command.
    pub(crate) async fn execute(
        &self,
        command: &Command<'_>,
        limiter: &Limiter,
        policy: RetryPolicy,
    ) -> Result<Reply, Error> {
        let (primary, replica) = match &self.backend {
            Backend::Single {
                primary, replica, ..
            } => (primary, replica),
            Backend::Cluster(cluster) => {
                // Boxed, because it is much larger than what single servers need.
                return Box::pin(cluster.execute(command, limiter, policy)).await;
            }
        };
        let admission = Admission::Whole(limiter);
        let mut retry_loop = RetryLoop::new(command, admission, policy);
        loop {
            let node = match replica {
                Some(replica)
                    if command.is_read()
                        && !retry_loop.had_transient_error()
                        && replica.session().is_some() =>
                {
                    replica
                }
                _ => primary,
            };
            let session = node.wait_for_session(admission, policy).await;
            let session = session.map_err(|error| retry_loop.qualify(error))?;
            match retry_loop.try_once(node, &session, false).await {
                AttemptOutcome::Done(result) => return retry_loop.finish(result),
                AttemptOutcome::Retry => {}
                AttemptOutcome::Redirect(error) => {
                    return Err(Error::other(format!(
                        "the server is a node of a cluster: expected redis-cluster://… as URL \
                         ({})",
                        error.message()
                    )));
                }
            }
        }
    }

    /// One page of a listing.
    ///
    /// # Errors
    ///
    /// As [`Self::execute`].
    pub(crate) async fn list(
        &self,
        request: &ListRequest<'_>,
        limiter: &Limiter,
        policy: RetryPolicy,
    ) -> Result<Page, Error> {
        if let Backend::Cluster(cluster) = &self.backend {
            return Box::pin(cluster.list(request, limiter, policy)).await;
        }
        let position = match Position::decode(request.cursor) {
            // The cursor of a cluster, which this link led to before.
            Position::Slot { .. } => Position::Start,
            position => position,
        };
        let mut from = ScanFrom::position(position, None);
        let mut keys = Vec::new();
        loop {
            let scan = Command::Scan {
                from,
                pattern: request.pattern,
                count: request.count,
            };
            let reply = self.execute(&scan, limiter, policy).await?;
            let scanned = reply.scanned.unwrap_or_default();
            let (next, found) = scan_page(reply.value)?;
            keys.extend(found);
            if next == 0 {
                return Ok(Page { cursor: 0, keys });
            }
            let made_under = Fingerprint::new(None, Some(scanned.run_id));
            if let Some(cursor) = server_cursor(made_under, next) {
                return Ok(Page { cursor, keys });
            }
            // This cursor does not fit into the cursor of a listing: continue until one does.
            from = ScanFrom::process(scanned.run_id, next);
        }
    }
}

impl Backend {
    fn start(options: ConnectOptions, name: &str, cache: Option<&Arc<Cache>>) -> Self {
        let address = options.address.to_string();
        let replica_wanted = options.read_from_replica;
        let (primary, replica) = match &options.address.server {
            ServerSpec::Tcp(endpoint) => (
                ServerSelector::Fixed(ServerAddr::Tcp(endpoint.clone())),
                None,
            ),
            ServerSpec::Unix { path } => {
                (ServerSelector::Fixed(ServerAddr::Unix(path.clone())), None)
            }
            ServerSpec::Sentinel(sentinels) => (
                ServerSelector::Primary(sentinels.clone()),
                replica_wanted.then(|| ServerSelector::Replica(sentinels.clone())),
            ),
            ServerSpec::Cluster { seeds } => {
                let seeds = seeds.clone();
                return Self::Cluster(Cluster::start(options, seeds, name, cache));
            }
        };
        let replica = replica.map(|selector| {
            let address = format!("a replica of {address}");
            Node::start(options.clone(), selector, address, name, cache)
        });
        Self::Single {
            selector: primary.clone(),
            primary: Node::start(options, primary, address, name, cache),
            replica,
        }
    }
}
