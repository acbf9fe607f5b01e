//! Listings over a cluster: one node after another, also while slots move; see
//! [`crate::redis::listing`] for the cursor.

use tokio::time::timeout_at;

use crate::error::{Error, ErrorKind};
use crate::redis::cluster::Cluster;
use crate::redis::cluster::partition::Partition;
use crate::redis::cluster::slot_ranges::ranges;
use crate::redis::command::admin::AdminCommand;
use crate::redis::command::{Command, RetryPolicy, ScanFrom};
use crate::redis::limiter::{Admission, Limiter};
use crate::redis::listing::{Fingerprint, ListRequest, Page, Position, slot_cursor};
use crate::redis::node::Node;
use crate::redis::reply::scan_page;
use crate::redis::retry::RetryLoop;
use crate::redis::session::SessionReply;
use crate::settings::address::Endpoint;

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
        let map = self.map(Admission::Whole(limiter), policy.deadline).await?;
        let partition = map.partition();
        let (from, mut unmoved, mut resume) = match Position::decode(request.cursor) {
            position @ Position::Slot {
                slot,
                unmoved,
                cursor: 0,
                ..
            } => {
                let here = Fingerprint::new(Some(partition.hash()), None);
                (
                    slot,
                    unmoved && position.was_made_under(here),
                    Position::Start,
                )
            }
            position @ Position::Slot { slot, unmoved, .. } => (slot, unmoved, position),
            Position::Start | Position::Server { .. } => (0, true, Position::Start),
        };
        let Some(slot) = partition.first_served(from) else {
            return Ok(Page::default());
        };
        if slot != from {
            resume = Position::Start;
        }
        let mut scan_from = ScanFrom::position(resume, unmoved.then(|| partition.hash()));
        let mut keys = Vec::new();
        loop {
            let scan = Command::Scan {
                from: scan_from,
                pattern: request.pattern,
                count: request.count,
            };
            let retry_loop = RetryLoop::new(&scan, Admission::Whole(limiter), policy);
            let (reply, node) = self.execute_on_slot(slot, retry_loop, false).await?;
            let scanned = reply.scanned.unwrap_or_default();
            unmoved &= !scanned.restarted;
            let (next, found) = scan_page(reply.value)?;
            keys.extend(found);
            if next == 0 {
                let map = self.map(Admission::Whole(limiter), policy.deadline).await?;
                let Some(endpoint) = map.endpoint_of(&node) else {
                    // The node has left the cluster: all its slots have moved.
                    let cursor = next_node(map.partition(), slot, None, false);
                    return Ok(Page { cursor, keys });
                };
                let seen = Self::partition_seen_by(&node, endpoint, policy).await?;
                let unmoved = unmoved && seen.hash() == partition.hash();
                let cursor = next_node(&seen, slot, Some(endpoint), unmoved);
                return Ok(Page { cursor, keys });
            }
            let made_under =
                Fingerprint::new(unmoved.then(|| partition.hash()), Some(scanned.run_id));
            if let Some(cursor) = slot_cursor(slot, unmoved, made_under, next) {
                return Ok(Page { cursor, keys });
            }
            // The server's cursor does not fit: the page ends where one does.
            scan_from = ScanFrom::process(scanned.run_id, next);
        }
    }

    /// The partition as the scanned node sees it: it is the first to know which slots it serves.
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
            .min(tokio::time::Instant::now() + policy.response_timeout);
        match timeout_at(limit, session.send(&command, false)).await {
            Ok(SessionReply::Value(value)) => ranges(&value, endpoint)
                .map(|ranges| Partition::new(&ranges))
                .ok_or_else(|| Error::unexpected_reply("CLUSTER SLOTS")),
            Ok(SessionReply::ServerError(error)) => Err(Error::from(&error)),
            Ok(SessionReply::Disconnected) => Err(unknown("connection lost")),
            Err(_) => Err(unknown("no reply in time")),
        }
    }
}

/// The cursor of the first page after the node at `endpoint`, which has been scanned for `slot`.
fn next_node(seen: &Partition, slot: u16, endpoint: Option<&Endpoint>, unmoved: bool) -> u64 {
    let next = if unmoved {
        seen.next_owner(slot)
    } else {
        let last = endpoint.map_or(slot, |endpoint| seen.end_of_run(slot, endpoint));
        last.checked_add(1)
            .and_then(|after| seen.first_served(after))
    };
    let made_under = Fingerprint::new(unmoved.then(|| seen.hash()), None);
    next.and_then(|slot| slot_cursor(slot, unmoved, made_under, 0))
        .unwrap_or_default()
}
