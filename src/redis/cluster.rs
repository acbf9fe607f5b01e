//! A Redis Cluster: routes commands to the nodes of their keys, and follows slots that move.
//!
//! Each node has a connection of its own (`node`). `slot_map` maps slots to nodes, and `topology`
//! refreshes it; `scatter` splits commands whose keys are on several nodes. Such a batch is not
//! atomic: Redis has no transaction over several nodes.

pub(crate) mod listing;
pub(crate) mod node_table;
pub(crate) mod partition;
pub(crate) mod scatter;
pub(crate) mod slot_map;
pub(crate) mod slot_map_error;
pub(crate) mod slot_map_state;
pub(crate) mod slot_ranges;
pub(crate) mod topology;

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use redis::ServerError;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::cache::read_through::Cache;
use crate::error::{Error, ErrorKind};
use crate::redis::cluster::scatter::{Part, Plan};
use crate::redis::cluster::slot_map::SlotMap;
use crate::redis::cluster::slot_map_state::SlotMapState;
use crate::redis::cluster::slot_ranges::NodeHost;
use crate::redis::cluster::topology::Topology;
use crate::redis::command::{Command, RetryPolicy};
use crate::redis::connect_error::Outage;
use crate::redis::limiter::{Admission, Limiter, SharedPermit};
use crate::redis::node::Node;
use crate::redis::options::ConnectOptions;
use crate::redis::retry::{AttemptOutcome, Reply, RetryLoop};
use crate::redis::server_error::ServerErrorExt as _;
use crate::settings::address::Endpoint;

/// The maximum number of redirects that a command follows without a pause in between.
const MAX_REDIRECTS: u32 = 5;
/// The maximum number of parts of a batch in flight; a batch may have as many parts as there are
/// slots.
const MAX_PARTS_IN_FLIGHT: usize = 1024;

/// The nodes of a cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    address: String,
    topology: Topology,
    read_from_replica: bool,
}

/// The node to send to next, and the form in which it accepts the command.
struct Redirect {
    node: Arc<Node>,
    asking: bool,
}

impl Cluster {
    /// Starts connecting to the nodes, of which any seed has the list.
    pub(crate) fn start(
        options: ConnectOptions,
        seeds: Vec<Endpoint>,
        name: &str,
        cache: Option<&Arc<Cache>>,
    ) -> Self {
        Self {
            address: options.address.to_string(),
            read_from_replica: options.read_from_replica,
            topology: Topology::start(options, seeds, name, cache),
        }
    }

    /// The earliest outage of a node that serves slots.
    pub(crate) fn outage(&self) -> Option<Outage> {
        self.topology.outage()
    }

    pub(crate) fn maps(&self) -> watch::Receiver<SlotMapState> {
        self.topology.maps()
    }

    /// Sends a command to the nodes of its keys.
    ///
    /// # Errors
    ///
    /// As [`Connection::execute`](crate::redis::connection::Connection::execute); where several nodes
    /// are concerned, the others may have carried out their parts.
    pub(crate) async fn execute(
        &self,
        command: &Command<'_>,
        limiter: &Limiter,
        policy: RetryPolicy,
    ) -> Result<Reply, Error> {
        match scatter::plan(command) {
            Plan::Whole(slot) => {
                let retry_loop = RetryLoop::new(command, Admission::Whole(limiter), policy);
                let (reply, _) = self
                    .execute_on_slot(slot, retry_loop, command.is_read())
                    .await?;
                Ok(reply)
            }
            Plan::Parts(parts) => {
                let permit = SharedPermit::new(limiter);
                let admission = Admission::Part(&permit);
                let replies: Vec<_> = parts
                    .iter()
                    .map(|Part { slot, command, .. }| {
                        let retry_loop = RetryLoop::new(command, admission, policy);
                        self.execute_on_slot(*slot, retry_loop, command.is_read())
                    })
                    .collect();
                let replies = stream::iter(replies).buffered(MAX_PARTS_IN_FLIGHT);
                let replies: Result<Vec<(Reply, _)>, Error> = replies.try_collect().await;
                // The other parts may have been carried out.
                let replies = replies.map_err(|error| {
                    if command.is_write() {
                        error.ambiguous()
                    } else {
                        error
                    }
                })?;
                let values = replies.into_iter().map(|(reply, _)| reply.value).collect();
                scatter::merge(command, &parts, values).map(Reply::from)
            }
        }
    }

    pub(crate) async fn execute_on_slot(
        &self,
        slot: u16,
        mut retry_loop: RetryLoop<'_>,
        is_read: bool,
    ) -> Result<(Reply, Arc<Node>), Error> {
        let mut redirect: Option<Redirect> = None;
        let mut redirects = 0;
        loop {
            let map = self
                .map(retry_loop.admission(), retry_loop.policy.wait_deadline())
                .await
                .map_err(|error| retry_loop.qualify(error))?;
            let Redirect { node, asking } = match redirect.take() {
                Some(redirect) => redirect,
                None => {
                    let from_replica =
                        is_read && self.read_from_replica && !retry_loop.had_transient_error();
                    let Some(node) = map.node_of(slot, from_replica) else {
                        self.topology.refresh();
                        if retry_loop.pause().await {
                            continue;
                        }
                        return Err(retry_loop.qualify(Error::other(format!(
                            "{}: no node serves the slot of the key",
                            self.address
                        ))));
                    };
                    Redirect {
                        node,
                        asking: false,
                    }
                }
            };
            if node.session().is_none() {
                self.topology.refresh();
            }
            // While its node is disconnected, the slot may be assigned to another one.
            let session = tokio::select! {
                session = node.wait_for_session(retry_loop.admission(), retry_loop.policy) => {
                    session.map_err(|error| retry_loop.qualify(error))?
                }
                () = self.topology.changed_since(&map) => continue,
            };
            match retry_loop.try_once(&node, &session, asking).await {
                AttemptOutcome::Done(result) => {
                    return retry_loop.finish(result).map(|reply| (reply, node));
                }
                // The connection was lost, or the node has lost the cluster (CLUSTERDOWN): the slot may
                // be assigned to another node, which this one cannot name.
                AttemptOutcome::Retry => self.topology.refresh(),
                AttemptOutcome::Redirect(error) => {
                    let followed = self.follow(&error, &node);
                    redirect = followed.map_err(|error| retry_loop.qualify(error))?;
                    redirects += 1;
                    let must_pause = redirect.is_none() || redirects > MAX_REDIRECTS;
                    if must_pause && !retry_loop.pause().await {
                        let error = match redirect {
                            Some(_) => Error::from(&error),
                            None => unnamed(&node, &error),
                        };
                        return Err(retry_loop.qualify(error));
                    }
                }
            }
        }
    }

    /// Requests a refresh of the slot map.
    pub(crate) fn refresh(&self) {
        self.topology.refresh();
    }

    pub(crate) async fn topology_changed(&self, known: &Arc<SlotMap>) {
        self.topology.changed_since(known).await;
    }

    /// The node that `MOVED` or `ASK` names; `None` if the error does not name its host, and the slot
    /// map has no such node.
    fn follow(&self, error: &ServerError, replied: &Node) -> Result<Option<Redirect>, Error> {
        let asking = error.code() == "ASK";
        if !asking {
            self.topology.refresh();
        }
        let (host, port) = error
            .details()
            .and_then(|details| details.split(' ').nth(1))
            .and_then(slot_ranges::parse_redirect)
            .ok_or_else(|| Error::from(error))?;
        let endpoint = match (host, &replied.endpoint) {
            (NodeHost::Named(host), _) => Some(Endpoint { host, port }),
            (NodeHost::Replying, Some(replied)) => Some(Endpoint {
                host: replied.host.clone(),
                port,
            }),
            // A node of the cluster executes no command for a slot that it neither has nor imports.
            _ => self.topology.map().and_then(|map| map.endpoint_at(port)),
        };
        Ok(endpoint.map(|endpoint| Redirect {
            node: self.topology.node(&endpoint),
            asking,
        }))
    }

    /// The slot map, waiting for the first one if need be.
    async fn map(
        &self,
        admission: Admission<'_>,
        deadline: Instant,
    ) -> Result<Arc<SlotMap>, Error> {
        if let Some(map) = self.topology.map() {
            return Ok(map);
        }
        let _waiting = admission.enqueue()?;
        if let Ok(Some(map)) = timeout_at(deadline, self.topology.first_map()).await {
            return Ok(map);
        }
        Err(self.outage().map_or_else(
            || {
                let text = format!(
                    "cannot reach {}: the slot map did not arrive in time",
                    self.address
                );
                Error::new(ErrorKind::Unreachable, text)
            },
            |outage| outage.error,
        ))
    }
}

/// The error of a call that is redirected to a node without a host.
fn unnamed(replied: &Node, error: &ServerError) -> Error {
    let address = &replied.address;
    Error::other(format!(
        "{address} does not say which host has the slot of the key ({}): set \
         cluster-announce-hostname at every node, or another cluster-preferred-endpoint-type",
        error.message()
    ))
}
