//! Listings over a cluster: one node after another, also while slots move; see
//! [`crate::redis::listing`] for the cursor.
//!
//! The slot map of this process may be older than a move. Therefore the node itself is queried for
//! the partition, before the first page of its scan and after the last: a node knows first of changes
//! to its own slots.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use crate::error::{Error, ErrorKind};
use crate::redis::cluster::Cluster;
use crate::redis::cluster::partition::Partition;
use crate::redis::cluster::slot_map::SlotMap;
use crate::redis::cluster::slot_ranges::parse_slots;
use crate::redis::command::admin::AdminCommand;
use crate::redis::command::{Command, RetryPolicy, ScanFrom};
use crate::redis::limiter::{Admission, Limiter};
use crate::redis::listing::{Fingerprint, ListRequest, Page, Position, slot_cursor};
use crate::redis::node::Node;
use crate::redis::reply::scan_page;
use crate::redis::retry::RetryLoop;
use crate::redis::session::SessionReply;
use crate::settings::address::Endpoint;

/// The longest time that a page waits for the slot map to agree with the node that it scans.
const AGREEMENT_TIMEOUT: Duration = Duration::from_millis(500);
const MAX_DISAGREEMENTS: u32 = 3;

/// A scan of one node in progress: the contents of the next cursor.
struct NodeScan {
    map: Arc<SlotMap>,
    slot: u16,
    /// True if no slot has moved since the listing began.
    unmoved: bool,
}

impl NodeScan {
    fn partition_hash(&self) -> Option<u64> {
        self.unmoved.then(|| self.map.partition().hash())
    }
}

impl Cluster {
    /// One page of one node; after its last page, the first of the next node.
    ///
    /// # Errors
    ///
    /// As [`Connection::execute`](crate::redis::connection::Connection::execute).
    pub(crate) async fn list(
        &self,
        request: &ListRequest<'_>,
        limiter: &Limiter,
        policy: RetryPolicy,
    ) -> Result<Page, Error> {
        let mut position = Position::decode(request.cursor);
        let mut scan = match position {
            Position::Slot { slot, unmoved, .. } => NodeScan {
                map: self
                    .map(Admission::Whole(limiter), policy.wait_deadline())
                    .await?,
                slot,
                unmoved,
            },
            Position::Start | Position::Server { .. } => NodeScan {
                map: self
                    .map(Admission::Whole(limiter), policy.wait_deadline())
                    .await?,
                slot: 0,
                unmoved: true,
            },
        };
        let from = scan.slot;
        let Some(slot) = scan.map.partition().first_served(from) else {
            return Ok(Page::default());
        };
        if slot != from {
            scan.slot = slot;
            position = Position::Start;
        }
        if !position.is_within_a_scan() {
            self.agree(&mut scan, limiter, policy).await?;
            let here = Fingerprint::new(scan.partition_hash(), None);
            scan.unmoved &= position.was_made_under(here);
        }
        let mut scan_from = ScanFrom::position(position, scan.partition_hash());
        let mut keys = Vec::new();
        loop {
            let command = Command::Scan {
                from: scan_from,
                pattern: request.pattern,
                count: request.count,
            };
            let retry_loop = RetryLoop::new(&command, Admission::Whole(limiter), policy);
            let (reply, node) = self.execute_on_slot(scan.slot, retry_loop, false).await?;
            let scanned = reply.scanned.unwrap_or_default();
            scan.unmoved &= !scanned.restarted;
            let (next, found) = scan_page(reply.value)?;
            keys.extend(found);
            if next == 0 {
                let cursor = self.next_node(&scan, &node, policy).await?;
                return Ok(Page { cursor, keys });
            }
            let made_under = Fingerprint::new(scan.partition_hash(), Some(scanned.run_id));
            if let Some(cursor) = slot_cursor(scan.slot, scan.unmoved, made_under, next) {
                return Ok(Page { cursor, keys });
            }
            // This cursor does not fit into the cursor of a listing: continue until one does.
            scan_from = ScanFrom::process(scanned.run_id, next);
        }
    }

    /// Waits until the slot map and the node of `scan.slot` agree on the partition. A node that
    /// continues to disagree about other slots is scanned nevertheless, but no conclusions are drawn
    /// from the map.
    async fn agree(
        &self,
        scan: &mut NodeScan,
        limiter: &Limiter,
        policy: RetryPolicy,
    ) -> Result<(), Error> {
        let mut disagreements = 0;
        loop {
            scan.map = self
                .map(Admission::Whole(limiter), policy.wait_deadline())
                .await?;
            if let Some(node) = scan.map.node_of(scan.slot, false)
                && let Some(endpoint) = scan.map.endpoint_of(&node)
            {
                let connected = node.wait_for_session(Admission::Whole(limiter), policy);
                tokio::select! {
                    connected = connected => drop(connected?),
                    () = self.topology_changed(&scan.map) => continue,
                }
                let seen = Self::partition_seen_by(&node, endpoint, policy).await;
                if let Ok(seen) = &seen {
                    let owns = seen.owner(scan.slot) == Some(endpoint);
                    let agrees = seen.hash() == scan.map.partition().hash();
                    if owns && (agrees || disagreements >= MAX_DISAGREEMENTS) {
                        scan.unmoved &= agrees;
                        return Ok(());
                    }
                }
                if Instant::now() + AGREEMENT_TIMEOUT >= policy.deadline {
                    return Err(seen.err().unwrap_or_else(|| moving(scan.slot)));
                }
            }
            disagreements += 1;
            self.refresh();
            let _ = timeout(AGREEMENT_TIMEOUT / 2, self.topology_changed(&scan.map)).await;
        }
    }

    /// The cursor of the first page after `node`, which has been scanned to its end.
    async fn next_node(
        &self,
        scan: &NodeScan,
        node: &Arc<Node>,
        policy: RetryPolicy,
    ) -> Result<u64, Error> {
        let seen = match scan.map.endpoint_of(node) {
            Some(endpoint) => {
                let seen = Self::partition_seen_by(node, endpoint, policy).await?;
                (seen.owner(scan.slot) == Some(endpoint)).then_some(seen)
            }
            None => None,
        };
        let Some(seen) = seen else {
            // The slot was elsewhere, perhaps all the time: it is scanned there.
            self.refresh();
            let made_under = Fingerprint::new(None, None);
            return Ok(slot_cursor(scan.slot, false, made_under, 0).unwrap_or_default());
        };
        let unmoved = scan.partition_hash() == Some(seen.hash());
        let next = if unmoved {
            seen.next_owner(scan.slot)
        } else {
            let after = seen.end_of_run(scan.slot).checked_add(1);
            after.and_then(|after| seen.first_served(after))
        };
        let made_under = Fingerprint::new(unmoved.then(|| seen.hash()), None);
        Ok(next
            .and_then(|slot| slot_cursor(slot, unmoved, made_under, 0))
            .unwrap_or_default())
    }

    /// The partition as a node sees it.
    async fn partition_seen_by(
        node: &Node,
        endpoint: &Endpoint,
        policy: RetryPolicy,
    ) -> Result<Partition, Error> {
        let unknown = |why: &str| {
            let text = format!("cannot continue the listing: CLUSTER SLOTS at {endpoint}: {why}");
            Error::new(ErrorKind::Unreachable, text)
        };
        let session = node.session().ok_or_else(|| unknown("connection lost"))?;
        let command = AdminCommand::ClusterSlots.into();
        let limit = policy
            .deadline
            .min(Instant::now() + policy.response_timeout);
        match timeout_at(limit, session.send(&command, false)).await {
            Ok(SessionReply::Value(value)) => parse_slots(&value, endpoint)
                .map(|ranges| Partition::new(&ranges))
                .map_err(|reason| unknown(&reason)),
            Ok(SessionReply::ServerError(error)) => Err(Error::from(&error)),
            Ok(SessionReply::Disconnected) => Err(unknown("connection lost")),
            Err(_) => Err(unknown("no reply in time")),
        }
    }
}

fn moving(slot: u16) -> Error {
    Error::other(format!(
        "cannot continue the listing: the cluster's nodes do not agree on the owner of slot {slot}"
    ))
}
