//! Refreshes the slot map of a cluster: queries its nodes when a call found the map to be outdated,
//! while a node is disconnected, and at an interval.
//!
//! It owns the connections to the nodes: one for each that the map names, and those of the seeds while
//! no node replies with a usable map.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::cache::read_through::Cache;
use crate::redis::backoff::ReconnectBackoff;
use crate::redis::cluster::node_table::NodeTable;
use crate::redis::cluster::partition::Partition;
use crate::redis::cluster::slot_map::{Shard, SlotMap};
use crate::redis::cluster::slot_map_error::SlotMapError;
use crate::redis::cluster::slot_map_state::SlotMapState;
use crate::redis::cluster::slot_ranges::SlotRange;
use crate::redis::connect_error::Outage;
use crate::redis::handshake::client_name;
use crate::redis::node::Node;
use crate::redis::options::ConnectOptions;
use crate::settings::address::Endpoint;
use crate::tasks;

/// The interval of queries while a node is disconnected, or the map is known to be outdated.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// The longest interval of queries while all nodes of the map are connected, and none has a usable map.
const MAX_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// After this time without a reply another node is queried as well, until so many queries are in
/// flight.
const QUERY_STAGGER: Duration = Duration::from_millis(50);
const MAX_QUERIES: usize = 8;
/// The interval of queries while all nodes are connected.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// The slot map of a cluster, and the connections to the nodes that it names.
#[derive(Debug)]
pub(crate) struct Topology {
    map: watch::Receiver<SlotMapState>,
    started_at: Instant,
    nodes: Arc<NodeTable>,
    refresh_requested: Arc<Notify>,
    _refresher: AbortOnDropHandle<()>,
}

struct Refresher {
    nodes: Arc<NodeTable>,
    refresh_requested: Arc<Notify>,
    map: watch::Sender<SlotMapState>,
    /// The ranges of the map.
    ranges: Vec<SlotRange>,
    /// The connections that the map needs.
    wanted: HashSet<(Endpoint, bool)>,
    /// True while there may be connections to seeds that the map does not need.
    has_seed_connections: bool,
    /// The position of the node that is queried first.
    next_seed: usize,
    backoff: ReconnectBackoff,
}

impl Topology {
    /// Starts querying the seeds.
    pub(crate) fn start(
        options: ConnectOptions,
        seeds: Vec<Endpoint>,
        name: &str,
        cache: Option<&Arc<Cache>>,
    ) -> Self {
        let nodes = Arc::new(NodeTable::new(options, seeds, name, cache));
        let refresh_requested = Arc::new(Notify::new());
        let (sender, map) = watch::channel(SlotMapState::Pending);
        let refresher = Refresher {
            nodes: Arc::clone(&nodes),
            refresh_requested: Arc::clone(&refresh_requested),
            map: sender,
            ranges: Vec::new(),
            wanted: HashSet::new(),
            has_seed_connections: false,
            next_seed: 0,
            backoff: ReconnectBackoff::new(),
        };
        Self {
            map,
            started_at: Instant::now(),
            nodes,
            refresh_requested,
            _refresher: tasks::spawn_essential("cluster topology", refresher.run()),
        }
    }

    /// The map, if it is known.
    pub(crate) fn map(&self) -> Option<Arc<SlotMap>> {
        self.map.borrow().map().cloned()
    }

    /// Waits for the first map. Returns `None` if waiting is useless until an operator acts, or the
    /// link is gone.
    pub(crate) async fn first_map(&self) -> Option<Arc<SlotMap>> {
        let mut map = self.map.clone();
        let settled = map.wait_for(SlotMapState::is_settled).await.ok()?;
        settled.map().cloned()
    }

    /// The map, as it changes.
    pub(crate) fn maps(&self) -> watch::Receiver<SlotMapState> {
        self.map.clone()
    }

    /// Waits until the map differs from this one.
    pub(crate) async fn changed_since(&self, known: &Arc<SlotMap>) {
        let mut map = self.map.clone();
        let differs = |state: &SlotMapState| state.map().is_some_and(|m| !Arc::ptr_eq(m, known));
        if map.wait_for(differs).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Makes the refresher query the nodes again.
    pub(crate) fn refresh(&self) {
        self.refresh_requested.notify_one();
    }

    /// A node that the map may not name yet.
    pub(crate) fn node(&self, endpoint: &Endpoint) -> Arc<Node> {
        self.nodes.get(endpoint, false)
    }

    /// The earliest outage of a primary, or the lack of a map.
    pub(crate) fn outage(&self) -> Option<Outage> {
        let error = match &*self.map.borrow() {
            SlotMapState::Known(map) => {
                let primaries = map.shards().iter().map(|shard| &shard.primary);
                let outages = primaries.filter_map(|node| node.outage());
                return outages.min_by_key(|outage| outage.since);
            }
            SlotMapState::Unavailable(unavailable) => Some(unavailable.error.clone()),
            SlotMapState::Pending => None,
        };
        Some(Outage {
            since: self.started_at,
            error: error.unwrap_or_else(|| self.nodes.unreachable()),
        })
    }
}

impl Refresher {
    async fn run(mut self) {
        let mut retry_interval = RETRY_INTERVAL;
        loop {
            let is_current = match self.query().await {
                Ok(ranges) => {
                    self.apply(ranges);
                    true
                }
                Err(error) => {
                    self.map.send_if_modified(|state| state.fail(error));
                    false
                }
            };
            let is_connected = self.map.borrow().map().is_some_and(|map| {
                let mut shards = map.shards().iter();
                shards.all(|shard| shard.primary.session().is_some())
            });
            if is_current && is_connected {
                tokio::select! {
                    () = sleep(REFRESH_INTERVAL) => {}
                    () = self.refresh_requested.notified() => {}
                }
            }
            // Limits the rate, however many calls request a refresh.
            sleep(retry_interval).await;
            retry_interval = if is_connected && !is_current {
                (retry_interval * 2).min(MAX_RETRY_INTERVAL)
            } else {
                RETRY_INTERVAL
            };
        }
    }

    /// Queries the nodes until one replies with a map: the next one as soon as a node has replied
    /// without a map, or has not replied for a moment. Begins with another node each time: a node that
    /// was cut off from the cluster must not decide again and again.
    async fn query(&mut self) -> Result<Vec<SlotRange>, SlotMapError> {
        let mut nodes = self.nodes.connected();
        self.next_seed = self.next_seed.wrapping_add(1);
        let first = self.next_seed % nodes.len().max(1);
        nodes.rotate_left(first);
        let mut nodes = nodes.into_iter().peekable();
        let mut latest: Option<SlotMapError> = None;
        let table = Arc::clone(&self.nodes);
        let mut queries = FuturesUnordered::new();
        loop {
            if queries.len() < MAX_QUERIES
                && let Some((endpoint, node)) = nodes.next()
            {
                queries.push(table.slots_of(endpoint, node));
            }
            let may_query_more = queries.len() < MAX_QUERIES && nodes.peek().is_some();
            let reply = tokio::select! {
                reply = queries.next() => reply,
                () = sleep(QUERY_STAGGER), if may_query_more => continue,
            };
            match reply {
                Some(Ok(ranges)) => return Ok(ranges),
                // A transient error takes precedence: that node may soon have a map.
                Some(Err(Some(error)))
                    if latest.as_ref().is_none_or(|latest| latest.is_permanent) =>
                {
                    latest = Some(error);
                }
                Some(Err(_)) => {}
                None if may_query_more => {}
                None => break,
            }
        }
        Err(self.unavailable(latest))
    }

    /// The reason that no node has replied with a map: its error, or that none is connected. Connects to the seeds,
    /// which may know of other nodes.
    fn unavailable(&mut self, replied: Option<SlotMapError>) -> SlotMapError {
        self.has_seed_connections = true;
        let seeds: Vec<Arc<Node>> = self.nodes.seeds().collect();
        let Some(SlotMapError {
            error,
            is_permanent,
        }) = replied
        else {
            return SlotMapError {
                error: self.nodes.unreachable(),
                is_permanent: seeds.iter().all(|seed| seed.is_refused()),
            };
        };
        if self.backoff.should_log(error.message()) {
            warn!(
                redis = %self.nodes.options.address,
                client = client_name(&self.nodes.name),
                reason = %error,
                "no slot map of the cluster; retrying"
            );
        }
        let is_permanent = is_permanent
            && self.map.borrow().map().is_none()
            // Another seed may reply with a map as soon as it is connected.
            && seeds.iter().all(|seed| seed.session().is_some() || seed.is_refused());
        SlotMapError {
            error,
            is_permanent,
        }
    }

    fn apply(&mut self, mut ranges: Vec<SlotRange>) {
        let with_replicas = self.nodes.options.read_from_replica;
        ranges.sort_by_key(|range| range.first);
        for range in &mut ranges {
            // Each node lists them in an order of its own.
            range.replicas.sort();
            if !with_replicas {
                range.replicas.clear();
            }
        }
        if ranges == self.ranges && self.map.borrow().map().is_some() {
            if std::mem::take(&mut self.has_seed_connections) {
                self.nodes.retain(&self.wanted);
            }
            return;
        }
        let mut wanted = HashSet::new();
        let mut shards: Vec<Shard> = Vec::new();
        let mut index: HashMap<&Endpoint, usize> = HashMap::new();
        let mut runs = Vec::with_capacity(ranges.len());
        for range in &ranges {
            let shard = *index.entry(&range.primary).or_insert_with(|| {
                wanted.insert((range.primary.clone(), false));
                let mut replicas = Vec::new();
                if with_replicas {
                    for replica in &range.replicas {
                        wanted.insert((replica.clone(), true));
                        replicas.push(self.nodes.get(replica, true));
                    }
                }
                shards.push(Shard {
                    endpoint: range.primary.clone(),
                    primary: self.nodes.get(&range.primary, false),
                    replicas,
                });
                shards.len() - 1
            });
            runs.push((range.first, range.last, shard));
        }
        let partition = Partition::new(&ranges);
        let map = Arc::new(SlotMap::new(shards, runs.into_iter(), partition));
        self.nodes.retain(&wanted);
        self.has_seed_connections = false;
        self.wanted = wanted;
        let previous = self.map.send_replace(SlotMapState::Known(Arc::clone(&map)));
        self.ranges = ranges;
        let is_same_partition = previous
            .map()
            .is_some_and(|previous| previous.partition() == map.partition());
        if !is_same_partition {
            info!(
                nodes = map.shards().len(),
                redis = %self.nodes.options.address,
                "slot map of the cluster updated"
            );
        }
        // A node that gives slots away may retain copies of their keys, and then reports no change of
        // the keys. This also invalidates the replies that are still to arrive from the old owners.
        if let (Some(_), Some(cache)) = (previous.map(), &self.nodes.cache)
            && (with_replicas || !is_same_partition)
        {
            cache.invalidate_all();
        }
    }
}
