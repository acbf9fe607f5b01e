//! A Redis Cluster: which node has a key, and following keys when they move.
//!
//! One connection to each node, kept up as any other (`node`). `slots` is the map from keys to
//! nodes, kept fresh by `topology`; `split` takes requests apart whose keys are on several nodes.
//! A batch over several slots is no longer all or nothing: Redis has no such thing there.

pub(crate) mod scatter;
pub(crate) mod slot_map;
pub(crate) mod slot_map_error;
pub(crate) mod topology;

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use redis::{ServerError, Value};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::cache::read_through::Cache;
use crate::error::{Error, ErrorKind};
use crate::redis::cluster::scatter::{Part, Plan};
pub(crate) use crate::redis::cluster::slot_map::SlotMap;
use crate::redis::cluster::topology::Topology;
use crate::redis::command::{Command, RetryPolicy};
use crate::redis::connect_error::Outage;
use crate::redis::limiter::{Admission, Limiter, SharedPermit};
use crate::redis::node::Node;
use crate::redis::options::ConnectOptions;
use crate::redis::retry::{AttemptOutcome, Reply, RetryLoop};
use crate::settings::address::Endpoint;

/// How often a request follows a key that is said to be elsewhere, without a pause in between.
const MAX_REDIRECTS: u32 = 5;
/// How many parts of a batch are under way at once: a batch may have as many as there are slots.
const PARTS_AT_ONCE: usize = 1024;
/// A cursor of a listing holds the node's lowest slot above, and the node's own cursor below.
const CURSOR_BITS: u32 = 50;

/// The nodes of a cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    address: String,
    topology: Topology,
    read_from_replica: bool,
}

/// Where a request goes that was sent elsewhere.
struct Redirect {
    node: Arc<Node>,
    asking: bool,
}

impl Cluster {
    /// Starts connecting to the nodes, which any of the seeds names.
    pub(crate) fn start(
        target: ConnectOptions,
        seeds: Vec<Endpoint>,
        name: &str,
        cache: Option<&Arc<Cache>>,
    ) -> Self {
        Self {
            address: target.address.to_string(),
            read_from_replica: target.read_from_replica,
            topology: Topology::start(target, seeds, name, cache),
        }
    }

    /// The earliest outage of a node that keys are on.
    pub(crate) fn outage(&self) -> Option<Outage> {
        self.topology.outage()
    }

    /// The map, as it changes.
    pub(crate) fn maps(&self) -> watch::Receiver<Option<Arc<SlotMap>>> {
        self.topology.maps()
    }

    /// Sends a request to whichever nodes its keys are on.
    ///
    /// # Errors
    ///
    /// As [`super::Connection::ask`]; where several nodes are concerned, the others may have
    /// carried out their parts.
    pub(crate) async fn execute(
        &self,
        command: &Command<'_>,
        gate: &Limiter,
        patience: RetryPolicy,
    ) -> Result<Reply, Error> {
        match scatter::plan(command) {
            Plan::Whole(slot) => {
                let attempts = RetryLoop::new(command, Admission::Whole(gate), patience);
                self.ask_slot(slot, attempts, command.is_read()).await
            }
            Plan::Parts(parts) => {
                let party = SharedPermit::new(gate);
                let caller = Admission::Part(&party);
                let answers: Vec<_> = parts
                    .iter()
                    .map(|Part { slot, command, .. }| {
                        let attempts = RetryLoop::new(command, caller, patience);
                        self.ask_slot(*slot, attempts, command.is_read())
                    })
                    .collect();
                let answers = stream::iter(answers).buffered(PARTS_AT_ONCE);
                let answers: Vec<Reply> = answers.try_collect().await?;
                let values = answers.into_iter().map(|answer| answer.value).collect();
                scatter::merge(command, &parts, values).map(Reply::from)
            }
            Plan::Scan {
                cursor,
                pattern,
                count,
            } => {
                let page = self.scan((cursor, pattern, count), gate, patience).await?;
                Ok(Reply::from(page))
            }
        }
    }

    async fn ask_slot(
        &self,
        slot: u16,
        mut attempts: RetryLoop<'_>,
        is_read: bool,
    ) -> Result<Reply, Error> {
        let mut hop: Option<Redirect> = None;
        let mut hops = 0;
        loop {
            let map = self
                .map(attempts.caller(), attempts.patience.deadline)
                .await?;
            let Redirect { node, asking } = match hop.take() {
                Some(hop) => hop,
                None => {
                    let from_replica = is_read && self.read_from_replica && !attempts.was_refused();
                    let Some(node) = map.node_of(slot, from_replica) else {
                        self.topology.refresh();
                        if attempts.pause().await {
                            continue;
                        }
                        return Err(Error::other(format!(
                            "{}: no node has the key's slot",
                            self.address
                        )));
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
            // While its node is away, the slot may get another one.
            let line = tokio::select! {
                line = node.line(attempts.caller(), attempts.patience) => line?,
                () = self.topology.changed_since(&map) => continue,
            };
            match attempts.once(&node, &line, asking).await {
                AttemptOutcome::Done(result) => return attempts.answered(result),
                // It broke, or the node has lost the cluster (CLUSTERDOWN): the slot may have another
                // node by now, of which this one will never tell.
                AttemptOutcome::Retry => self.topology.refresh(),
                AttemptOutcome::Redirect(refusal) => {
                    hop = Some(self.follow(&refusal)?);
                    hops += 1;
                    if hops > MAX_REDIRECTS && !attempts.pause().await {
                        return Err(Error::from(&refusal));
                    }
                }
            }
        }
    }

    /// The node that `MOVED` or `ASK` names.
    fn follow(&self, refusal: &ServerError) -> Result<Redirect, Error> {
        let asking = refusal.code() == "ASK";
        if !asking {
            self.topology.refresh();
        }
        let endpoint = refusal
            .details()
            .and_then(|details| details.split(' ').nth(1))
            .and_then(slot_map::endpoint_of)
            .ok_or_else(|| Error::from(refusal))?;
        Ok(Redirect {
            node: self.topology.node(&endpoint),
            asking,
        })
    }

    /// The map of slots, waiting for the first one if need be.
    async fn map(&self, caller: Admission<'_>, deadline: Instant) -> Result<Arc<SlotMap>, Error> {
        if let Some(map) = self.topology.map() {
            return Ok(map);
        }
        let _waiting = caller.wait()?;
        if let Ok(Some(map)) = timeout_at(deadline, self.topology.first_map()).await {
            return Ok(map);
        }
        Err(self.outage().map_or_else(
            || {
                let text = format!("cannot reach {}: its map came too late", self.address);
                Error::new(ErrorKind::Unreachable, text)
            },
            |outage| outage.failure,
        ))
    }

    /// One page of one node; after its last page, the next node's first. NodeTable are told apart by
    /// the lowest slot that they have, so that any process can go on with a cursor.
    async fn scan(
        &self,
        (cursor, pattern, count): (u64, Option<&str>, u32),
        gate: &Limiter,
        patience: RetryPolicy,
    ) -> Result<Value, Error> {
        let (slot, inner) = (cursor >> CURSOR_BITS, cursor & ((1 << CURSOR_BITS) - 1));
        let map = self.map(Admission::Whole(gate), patience.deadline).await?;
        // An invented cursor may name no slot.
        let slot = u16::try_from(slot).unwrap_or_default();
        // Whoever has the slot now goes on with it.
        let shard = if inner == 0 {
            map.shard_from(slot)
        } else {
            Some(slot)
        };
        let Some(shard) = shard else {
            return Ok(scatter::page(0, Vec::new()));
        };
        let page = Command::Scan {
            cursor: inner,
            pattern,
            count,
        };
        let attempts = RetryLoop::new(&page, Admission::Whole(gate), patience);
        let answered = self.ask_slot(shard, attempts, false).await?;
        let (next, keys) = crate::redis::reply::scan_page(answered.value)?;
        let cursor = if next != 0 {
            if next >> CURSOR_BITS != 0 {
                return Err(Error::unexpected_reply("SCAN"));
            }
            (u64::from(shard) << CURSOR_BITS) | next
        } else {
            map.shard_from(shard + 1)
                .map_or(0, |following| u64::from(following) << CURSOR_BITS)
        };
        Ok(scatter::page(cursor, keys))
    }
}
