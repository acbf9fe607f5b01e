//! The connections to the nodes of a cluster, and queries for their slots.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::timeout;

use crate::cache::read_through::Cache;
use crate::error::{Error, ErrorKind};
use crate::redis::cluster::slot_map_error::SlotMapError;
use crate::redis::cluster::slot_ranges::{SlotRange, parse_slots};
use crate::redis::command::admin::AdminCommand;
use crate::redis::node::Node;
use crate::redis::options::ConnectOptions;
use crate::redis::selector::ServerSelector;
use crate::redis::session::SessionReply;
use crate::redis::transport::ServerAddr;
use crate::settings::address::Endpoint;

/// The nodes, and whether the connection is for reads from a replica. A node may have both connections.
type Nodes = HashMap<(Endpoint, bool), Arc<Node>>;

/// The connections to the nodes.
#[derive(Debug)]
pub(crate) struct NodeTable {
    pub(crate) options: ConnectOptions,
    pub(crate) name: String,
    pub(crate) cache: Option<Arc<Cache>>,
    seeds: Vec<Endpoint>,
    nodes: Mutex<Nodes>,
}

impl NodeTable {
    pub(crate) fn new(
        options: ConnectOptions,
        seeds: Vec<Endpoint>,
        name: &str,
        cache: Option<&Arc<Cache>>,
    ) -> Self {
        Self {
            options,
            name: name.to_owned(),
            cache: cache.map(Arc::clone),
            seeds,
            nodes: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, endpoint: &Endpoint, reads_replica: bool) -> Arc<Node> {
        let mut nodes = self.nodes.lock();
        let node = nodes
            .entry((endpoint.clone(), reads_replica))
            .or_insert_with(|| Arc::new(self.connect(endpoint, reads_replica)));
        Arc::clone(node)
    }

    pub(crate) fn seeds(&self) -> impl Iterator<Item = Arc<Node>> {
        self.seeds.iter().map(|seed| self.get(seed, false))
    }

    /// The reason that none of the seeds can be queried.
    pub(crate) fn unreachable(&self) -> Error {
        let outages = self.seeds().filter_map(|node| node.outage());
        let earliest = outages.min_by_key(|outage| outage.since);
        earliest.map_or_else(
            || {
                let address = &self.options.address;
                let text = format!("cannot reach {address}: no node has replied yet");
                Error::new(ErrorKind::Unreachable, text)
            },
            |outage| outage.error,
        )
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.options.address.tls {
            "rediss"
        } else {
            "redis"
        }
    }

    pub(crate) fn address(&self, endpoint: &Endpoint) -> String {
        format!("{}://{endpoint}", self.scheme())
    }

    fn connect(&self, endpoint: &Endpoint, reads_replica: bool) -> Node {
        let addr = ServerAddr::Tcp(endpoint.clone());
        let selector = if reads_replica {
            ServerSelector::ClusterReplica(addr)
        } else {
            ServerSelector::Fixed(addr)
        };
        let address = self.address(endpoint);
        let cache = self.cache.as_ref();
        Node::start(self.options.clone(), selector, address, &self.name, cache)
    }

    /// The slots as a node reports them; an error, or `None` if it does not reply.
    pub(crate) async fn slots_of(
        &self,
        endpoint: Endpoint,
        node: Arc<Node>,
    ) -> Result<Vec<SlotRange>, Option<SlotMapError>> {
        let session = node.session().ok_or(None)?;
        let limit = self.options.response_timeout;
        let address = self.address(&endpoint);
        let command = AdminCommand::ClusterSlots.into();
        match timeout(limit, session.send(&command, false)).await {
            Ok(SessionReply::Value(reply)) => match parse_slots(&reply, &endpoint) {
                Ok(ranges) if !ranges.is_empty() => Ok(ranges),
                Ok(_) => Err(Some(SlotMapError::unusable(
                    &address,
                    "it knows of no slots",
                ))),
                Err(reason) => Err(Some(SlotMapError::unusable(&address, &reason))),
            },
            Ok(SessionReply::ServerError(error)) => {
                Err(Some(SlotMapError::refused(&address, &error, self.scheme())))
            }
            Ok(SessionReply::Disconnected) => Err(None),
            Err(_) => {
                session.request_health_check();
                Err(None)
            }
        }
    }

    /// The connected nodes, in a stable order.
    pub(crate) fn connected(&self) -> Vec<(Endpoint, Arc<Node>)> {
        let nodes = self.nodes.lock();
        let mut connected: Vec<_> = nodes
            .iter()
            .filter(|((_, reads_replica), node)| !reads_replica && node.session().is_some())
            .map(|((endpoint, _), node)| (endpoint.clone(), Arc::clone(node)))
            .collect();
        connected.sort_by(|(a, _), (b, _)| a.cmp(b));
        connected
    }

    /// Closes the connections to all other nodes.
    pub(crate) fn retain(&self, wanted: &HashSet<(Endpoint, bool)>) {
        self.nodes.lock().retain(|key, _| wanted.contains(key));
    }
}
