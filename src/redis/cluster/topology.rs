//! Keeps the map of a cluster fresh: asks its nodes which of them has which slots, when somebody
//! saw that the map is wrong, while a node is away, and now and then.
//!
//! It owns the connections to the nodes: one for each that the map names, and the seeds' as long as
//! there is no map, or none of its nodes can be reached. As long as there is no map, it knows why.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::cache::read_through::Cache;
use crate::error::{Error, ErrorKind};
use crate::redis::backoff::ReconnectBackoff;
use crate::redis::cluster::partition::Partition;
use crate::redis::cluster::slot_map::Shard;
use crate::redis::cluster::slot_map::SlotMap;
use crate::redis::cluster::slot_map_error::SlotMapError;
use crate::redis::cluster::slot_ranges::Range;
use crate::redis::cluster::slot_ranges::ranges;
use crate::redis::command::Request;
use crate::redis::connect_error::Outage;
use crate::redis::node::Node;
use crate::redis::options::ConnectOptions;
use crate::redis::resolve::ServerSelector;
use crate::redis::session::SessionReply;
use crate::redis::supervisor::client_name;
use crate::redis::transport::ServerAddr;
use crate::settings::address::Endpoint;
use crate::task::AbortOnDrop;

/// How often nodes are asked while one of them is away, or the map is known to be wrong.
const SOON: Duration = Duration::from_millis(100);
/// How often they are asked when all is well.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// The map of a cluster, and the nodes that it names.
#[derive(Debug)]
pub(crate) struct Topology {
    map: watch::Receiver<Option<Arc<SlotMap>>>,
    no_map: watch::Receiver<Option<SlotMapError>>,
    since: Instant,
    nodes: Arc<NodeTable>,
    stale: Arc<Notify>,
    _refresher: AbortOnDrop,
}

/// The connections. A node may have two: one of them reads although it is a replica.
#[derive(Debug)]
struct NodeTable {
    target: ConnectOptions,
    name: String,
    cache: Option<Arc<Cache>>,
    seeds: Vec<Endpoint>,
    table: Mutex<HashMap<(Endpoint, bool), Arc<Node>>>,
}

struct Refresher {
    nodes: Arc<NodeTable>,
    stale: Arc<Notify>,
    map: watch::Sender<Option<Arc<SlotMap>>>,
    no_map: watch::Sender<Option<SlotMapError>>,
    ranges: Vec<Range>,
    turn: usize,
    trouble: ReconnectBackoff,
}

impl Topology {
    /// Starts asking the seeds.
    pub(crate) fn start(
        target: ConnectOptions,
        seeds: Vec<Endpoint>,
        name: &str,
        cache: Option<&Arc<Cache>>,
    ) -> Self {
        let nodes = Arc::new(NodeTable {
            target,
            name: name.to_owned(),
            cache: cache.map(Arc::clone),
            seeds,
            table: Mutex::default(),
        });
        let stale = Arc::new(Notify::new());
        let (sender, map) = watch::channel(None);
        let (no_map_sender, no_map) = watch::channel(None);
        let refresher = Refresher {
            nodes: Arc::clone(&nodes),
            stale: Arc::clone(&stale),
            map: sender,
            no_map: no_map_sender,
            ranges: Vec::new(),
            turn: 0,
            trouble: ReconnectBackoff::new(),
        };
        Self {
            map,
            no_map,
            since: Instant::now(),
            nodes,
            stale,
            _refresher: AbortOnDrop::spawn(refresher.run()),
        }
    }

    /// The map, if there is one yet.
    pub(crate) fn map(&self) -> Option<Arc<SlotMap>> {
        self.map.borrow().clone()
    }

    /// Waits for the first map; `None` when somebody has to act before there can be one, or the
    /// link is gone.
    pub(crate) async fn first_map(&self) -> Option<Arc<SlotMap>> {
        let mut map = self.map.clone();
        let mut no_map = self.no_map.clone();
        let in_vain = |why: &Option<SlotMapError>| why.as_ref().is_some_and(|why| why.lasting);
        tokio::select! {
            biased;
            there = map.wait_for(Option::is_some) => there.ok().and_then(|map| map.clone()),
            _ = no_map.wait_for(in_vain) => None,
        }
    }

    /// The map, as it changes.
    pub(crate) fn maps(&self) -> watch::Receiver<Option<Arc<SlotMap>>> {
        self.map.clone()
    }

    /// Waits until the map is another one.
    pub(crate) async fn changed_since(&self, known: &Arc<SlotMap>) {
        let mut map = self.map.clone();
        let differs =
            |map: &Option<Arc<SlotMap>>| map.as_ref().is_some_and(|m| !Arc::ptr_eq(m, known));
        if map.wait_for(differs).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Has the nodes asked again.
    pub(crate) fn refresh(&self) {
        self.stale.notify_one();
    }

    /// A node that may not be in the map yet.
    pub(crate) fn node(&self, endpoint: &Endpoint) -> Arc<Node> {
        self.nodes.get(endpoint, false)
    }

    /// The earliest outage of a node that is needed, or that there is no map yet.
    pub(crate) fn outage(&self) -> Option<Outage> {
        if let Some(map) = self.map.borrow().as_ref() {
            let primaries = map.shards().iter().map(|shard| &shard.primary);
            let outages = primaries.filter_map(|node| node.outage());
            return outages.min_by_key(|outage| outage.since);
        }
        let no_map = self.no_map.borrow().clone();
        Some(Outage {
            since: self.since,
            failure: no_map.map_or_else(|| self.nodes.unreachable(), |why| why.failure),
        })
    }
}

impl NodeTable {
    fn get(&self, endpoint: &Endpoint, reads_replica: bool) -> Arc<Node> {
        let mut table = self.table();
        let node = table
            .entry((endpoint.clone(), reads_replica))
            .or_insert_with(|| Arc::new(self.connect(endpoint, reads_replica)));
        Arc::clone(node)
    }

    fn seeds(&self) -> impl Iterator<Item = Arc<Node>> {
        self.seeds.iter().map(|seed| self.get(seed, false))
    }

    /// Why none of the seeds can be asked.
    fn unreachable(&self) -> Error {
        let outages = self.seeds().filter_map(|node| node.outage());
        let earliest = outages.min_by_key(|outage| outage.since);
        earliest.map_or_else(
            || {
                let address = &self.target.address;
                let text = format!("cannot reach {address}: no node answered yet");
                Error::new(ErrorKind::Unreachable, text)
            },
            |outage| outage.failure,
        )
    }

    fn scheme(&self) -> &'static str {
        if self.target.address.tls {
            "rediss"
        } else {
            "redis"
        }
    }

    fn address(&self, endpoint: &Endpoint) -> String {
        format!("{}://{endpoint}", self.scheme())
    }

    fn connect(&self, endpoint: &Endpoint, reads_replica: bool) -> Node {
        let site = ServerAddr::Tcp(endpoint.clone());
        let place = if reads_replica {
            ServerSelector::ClusterReplica(site)
        } else {
            ServerSelector::ServerSpec(site)
        };
        let address = self.address(endpoint);
        let cache = self.cache.as_ref();
        Node::start(self.target.clone(), place, address, &self.name, cache)
    }

    /// Those with a connection, and where they are.
    fn ready(&self) -> Vec<(Endpoint, Arc<Node>)> {
        let table = self.table();
        let mut ready: Vec<_> = table
            .iter()
            .filter(|((_, reads_replica), node)| !reads_replica && node.session().is_some())
            .map(|((endpoint, _), node)| (endpoint.clone(), Arc::clone(node)))
            .collect();
        ready.sort_by(|(a, _), (b, _)| a.cmp(b));
        ready
    }

    /// Drops the connections to all others.
    fn keep(&self, wanted: &HashSet<(Endpoint, bool)>) {
        self.table().retain(|key, _| wanted.contains(key));
    }

    fn table(&self) -> MutexGuard<'_, HashMap<(Endpoint, bool), Arc<Node>>> {
        self.table.lock()
    }
}

impl Refresher {
    async fn run(mut self) {
        loop {
            match self.ask().await {
                Ok(ranges) => self.apply_map(ranges),
                Err(why) => {
                    self.no_map.send_replace(Some(why));
                }
            }
            let complete = match self.map.borrow().as_ref() {
                Some(map) => map.shards().iter().all(|s| s.primary.session().is_some()),
                None => false,
            };
            if complete {
                tokio::select! {
                    () = sleep(REFRESH_INTERVAL) => {}
                    () = self.stale.notified() => {}
                }
            }
            // Never in quick succession, however many calls complain.
            sleep(SOON).await;
        }
    }

    /// Asks one node after another, beginning with another one each time: one that has been cut off
    /// must not have the last word again and again.
    async fn ask(&mut self) -> Result<Vec<Range>, SlotMapError> {
        let mut ready = self.nodes.ready();
        self.turn = self.turn.wrapping_add(1);
        let first = self.turn % ready.len().max(1);
        ready.rotate_left(first);
        let question = Request::One(redis::cmd("CLUSTER").arg("SLOTS").take());
        let mut latest: Option<SlotMapError> = None;
        for (endpoint, node) in ready {
            let Some(line) = node.session() else {
                continue;
            };
            let limit = self.nodes.target.response_timeout;
            let address = self.nodes.address(&endpoint);
            let why = match timeout(limit, line.send(&question, false)).await {
                Ok(SessionReply::Value(answer)) => match ranges(&answer, &endpoint) {
                    Some(ranges) if !ranges.is_empty() => return Ok(ranges),
                    Some(_) => SlotMapError::useless(&address, "it knows of no slots"),
                    None => {
                        SlotMapError::useless(&address, "its answer is not one that Redis gives")
                    }
                },
                Ok(SessionReply::ServerError(refusal)) => {
                    SlotMapError::refused(&address, &refusal, self.nodes.scheme())
                }
                Ok(SessionReply::Disconnected) => continue,
                Err(_) => {
                    line.suspect();
                    continue;
                }
            };
            // What may pass counts: another node may tell soon.
            if latest.as_ref().is_none_or(|latest| latest.lasting) {
                latest = Some(why);
            }
        }
        Err(self.no_map(latest))
    }

    /// Why nobody told the map: what a node that was asked said, or that none could be asked.
    fn no_map(&mut self, said: Option<SlotMapError>) -> SlotMapError {
        let Some(SlotMapError { failure, lasting }) = said else {
            // Also connects to the seeds, where the map names others.
            return SlotMapError {
                failure: self.nodes.unreachable(),
                lasting: self.nodes.seeds().all(|seed| seed.is_refused()),
            };
        };
        if self.trouble.should_log(failure.message()) {
            warn!(
                redis = %self.nodes.target.address,
                client = client_name(&self.nodes.name),
                reason = %failure,
                "no map of the cluster's slots; asking again until there is one"
            );
        }
        let lasting = lasting
            && self.map.borrow().is_none()
            // Another seed may tell as soon as it can be reached.
            && self.nodes.seeds().all(|seed| seed.session().is_some() || seed.is_refused());
        SlotMapError { failure, lasting }
    }

    fn apply_map(&mut self, mut ranges: Vec<Range>) {
        ranges.sort_by_key(|range| range.first);
        if ranges == self.ranges && self.map.borrow().is_some() {
            return;
        }
        let with_replicas = self.nodes.target.read_from_replica;
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
        let map = Arc::new(SlotMap::new(
            shards,
            runs.into_iter(),
            Partition::new(&ranges),
        ));
        self.nodes.keep(&wanted);
        info!(
            nodes = map.shards().len(),
            redis = %self.nodes.target.address,
            "the slots of the cluster have been found"
        );
        let earlier = self.map.send_replace(Some(map));
        self.ranges = ranges;
        // Who gives slots away may keep its copies, and then tells nobody of what becomes of them.
        // What was asked by the earlier map is forgotten with the answers that are still to come.
        if let (Some(_), Some(cache)) = (earlier, &self.nodes.cache) {
            cache.invalidate_all();
        }
    }
}
