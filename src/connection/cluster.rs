//! A Redis Cluster: which node has a key, and following keys when they move.
//!
//! One connection to each node, kept up as any other (`node`). `slots` is the map from keys to
//! nodes, kept fresh by `topology`; `split` takes requests apart whose keys are on several nodes.
//! A batch over several slots is no longer all or nothing: Redis has no such thing there.

mod no_map;
mod slots;
mod split;
mod topology;

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use redis::{ServerError, Value};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::gate::{Caller, Gate, Party};
use super::node::{Answered, Attempts, Node, Outcome};
use super::request::{Patience, Request, Retry};
use super::{Outage, Target};
use crate::cache::Cache;
use crate::error::{Error, Kind};
use crate::settings::address::Endpoint;
pub use slots::{Map, Range, ranges};
use split::{Part, Plan};
use topology::Topology;

/// How often a request follows a key that is said to be elsewhere, without a pause in between.
const MOST_HOPS: u32 = 5;
/// How many parts of a batch are under way at once: a batch may have as many as there are slots.
const PARTS_AT_ONCE: usize = 1024;
/// A cursor of a listing holds the node's lowest slot above, and the node's own cursor below.
const CURSOR_BITS: u32 = 50;

/// The nodes of a cluster.
#[derive(Debug)]
pub struct Cluster {
    address: String,
    topology: Topology,
    read_from_replica: bool,
}

/// Where a request goes that was sent elsewhere.
struct Hop {
    node: Arc<Node>,
    asking: bool,
}

impl Cluster {
    /// Starts connecting to the nodes, which any of the seeds names.
    pub fn start(
        target: Target,
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
    pub fn outage(&self) -> Option<Outage> {
        self.topology.outage()
    }

    /// The map, as it changes.
    pub fn maps(&self) -> watch::Receiver<Option<Arc<Map>>> {
        self.topology.maps()
    }

    /// Sends a request to whichever nodes its keys are on.
    ///
    /// # Errors
    ///
    /// As [`super::Connection::ask`]; where several nodes are concerned, the others may have
    /// carried out their parts.
    pub async fn ask(
        &self,
        request: &Request,
        retry: Retry,
        gate: &Gate,
        patience: Patience,
    ) -> Result<Answered, Error> {
        match split::plan(request) {
            Plan::Whole(slot) => {
                let attempts = Attempts::new(request, retry, Caller::Whole(gate), patience);
                self.ask_slot(slot, attempts, request.is_read()).await
            }
            Plan::Parts(parts) => {
                let party = Party::new(gate);
                let caller = Caller::Part(&party);
                let answers: Vec<_> = parts
                    .iter()
                    .map(|Part { slot, request, .. }| {
                        let attempts = Attempts::new(request, retry, caller, patience);
                        self.ask_slot(*slot, attempts, request.is_read())
                    })
                    .collect();
                let answers = stream::iter(answers).buffered(PARTS_AT_ONCE);
                let answers: Vec<Answered> = answers.try_collect().await?;
                let values = answers.into_iter().map(|answer| answer.value).collect();
                split::merge(request, &parts, values).map(Answered::from)
            }
            Plan::Scan => {
                let page = self.scan(request, retry, gate, patience).await?;
                Ok(Answered::from(page))
            }
        }
    }

    async fn ask_slot(
        &self,
        slot: u16,
        mut attempts: Attempts<'_>,
        is_read: bool,
    ) -> Result<Answered, Error> {
        let mut hop: Option<Hop> = None;
        let mut hops = 0;
        loop {
            let map = self
                .map(attempts.caller(), attempts.patience.deadline)
                .await?;
            let Hop { node, asking } = match hop.take() {
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
                    Hop {
                        node,
                        asking: false,
                    }
                }
            };
            if node.ready_line().is_none() {
                self.topology.refresh();
            }
            // While its node is away, the slot may get another one.
            let line = tokio::select! {
                line = node.line(attempts.caller(), attempts.patience) => line?,
                () = self.topology.differs_from(&map) => continue,
            };
            match attempts.once(&node, &line, asking).await {
                Outcome::Done(result) => return attempts.answered(result),
                // It broke, or the node has lost the cluster (CLUSTERDOWN): the slot may have another
                // node by now, of which this one will never tell.
                Outcome::Again => self.topology.refresh(),
                Outcome::Elsewhere(refusal) => {
                    hop = Some(self.follow(&refusal)?);
                    hops += 1;
                    if hops > MOST_HOPS && !attempts.pause().await {
                        return Err(Error::from(&refusal));
                    }
                }
            }
        }
    }

    /// The node that `MOVED` or `ASK` names.
    fn follow(&self, refusal: &ServerError) -> Result<Hop, Error> {
        let asking = refusal.code() == "ASK";
        if !asking {
            self.topology.refresh();
        }
        let endpoint = refusal
            .details()
            .and_then(|details| details.split(' ').nth(1))
            .and_then(slots::endpoint_of)
            .ok_or_else(|| Error::from(refusal))?;
        Ok(Hop {
            node: self.topology.node(&endpoint),
            asking,
        })
    }

    /// The map of slots, waiting for the first one if need be.
    async fn map(&self, caller: Caller<'_>, deadline: Instant) -> Result<Arc<Map>, Error> {
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
                Error::of(Kind::Unreachable, text)
            },
            |outage| Error::Other(outage.failure),
        ))
    }

    /// One page of one node; after its last page, the next node's first. Nodes are told apart by
    /// the lowest slot that they have, so that any process can go on with a cursor.
    async fn scan(
        &self,
        request: &Request,
        retry: Retry,
        gate: &Gate,
        patience: Patience,
    ) -> Result<Value, Error> {
        let Some((cursor, scan)) = split::scan(request) else {
            return Err(Error::unexpected_answer("SCAN"));
        };
        let (slot, inner) = (cursor >> CURSOR_BITS, cursor & ((1 << CURSOR_BITS) - 1));
        let map = self.map(Caller::Whole(gate), patience.deadline).await?;
        // An invented cursor may name no slot.
        let slot = u16::try_from(slot).unwrap_or_default();
        // Whoever has the slot now goes on with it.
        let shard = if inner == 0 {
            map.shard_from(slot)
        } else {
            Some(slot)
        };
        let Some(shard) = shard else {
            return Ok(split::page(0, Vec::new()));
        };
        let page = scan(inner);
        let attempts = Attempts::new(&page, retry, Caller::Whole(gate), patience);
        let answered = self.ask_slot(shard, attempts, false).await?;
        let (next, keys) = super::answer::scan_page(answered.value)?;
        let cursor = if next != 0 {
            if next >> CURSOR_BITS != 0 {
                return Err(Error::unexpected_answer("SCAN"));
            }
            (u64::from(shard) << CURSOR_BITS) | next
        } else {
            map.shard_from(shard + 1)
                .map_or(0, |following| u64::from(following) << CURSOR_BITS)
        };
        Ok(split::page(cursor, keys))
    }
}
