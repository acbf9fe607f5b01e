//! The slot map of a cluster: from keys to slots, and from slots to nodes.
//!
//! `slot_ranges` parses it from a node's reply, `topology` refreshes it.

use std::sync::Arc;

use crate::redis::cluster::partition::Partition;
use crate::redis::node::Node;
use crate::settings::address::Endpoint;

pub(crate) const SLOT_COUNT: u16 = 16_384;
/// The index of no shard.
const UNASSIGNED: u16 = u16::MAX;

/// A primary and its replicas, which have the same keys.
#[derive(Debug)]
pub(crate) struct Shard {
    /// The address of the primary.
    pub(crate) endpoint: Endpoint,
    pub(crate) primary: Arc<Node>,
    /// Empty unless the settings allow reads from replicas.
    pub(crate) replicas: Vec<Arc<Node>>,
}

/// The shard of each slot.
#[derive(Debug)]
pub(crate) struct SlotMap {
    shards: Vec<Shard>,
    /// For each slot the index of its shard.
    owners: Vec<u16>,
    partition: Partition,
}

impl SlotMap {
    /// The map of these ranges: the first and the last slot, and the index of the shard.
    pub(crate) fn new(
        shards: Vec<Shard>,
        ranges: impl Iterator<Item = (u16, u16, usize)>,
        partition: Partition,
    ) -> Self {
        let mut owners = vec![UNASSIGNED; usize::from(SLOT_COUNT)];
        for (first, last, shard) in ranges {
            let shard = u16::try_from(shard).unwrap_or(UNASSIGNED);
            if let Some(run) = owners.get_mut(usize::from(first)..=usize::from(last)) {
                run.fill(shard);
            }
        }
        Self {
            shards,
            owners,
            partition,
        }
    }

    pub(crate) fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The node that serves a slot: with `from_replica` a connected replica, if there is one;
    /// otherwise the primary.
    pub(crate) fn node_of(&self, slot: u16, from_replica: bool) -> Option<Arc<Node>> {
        let shard = self
            .shards
            .get(usize::from(*self.owners.get(usize::from(slot))?))?;
        if from_replica && !shard.replicas.is_empty() {
            let start = fastrand::usize(..shard.replicas.len());
            let candidates = shard.replicas[start..]
                .iter()
                .chain(&shard.replicas[..start]);
            let mut connected = candidates.filter(|node| node.session().is_some());
            if let Some(node) = connected.next() {
                return Some(Arc::clone(node));
            }
        }
        Some(Arc::clone(&shard.primary))
    }

    pub(crate) fn partition(&self) -> &Partition {
        &self.partition
    }

    /// The primary with this port, if there is exactly one.
    pub(crate) fn endpoint_at(&self, port: u16) -> Option<Endpoint> {
        let mut shards = self
            .shards
            .iter()
            .filter(|shard| shard.endpoint.port == port);
        let shard = shards.next()?;
        shards.next().is_none().then(|| shard.endpoint.clone())
    }

    /// The endpoint of a primary.
    pub(crate) fn endpoint_of(&self, primary: &Arc<Node>) -> Option<&Endpoint> {
        let mut shards = self.shards.iter();
        let shard = shards.find(|shard| Arc::ptr_eq(&shard.primary, primary))?;
        Some(&shard.endpoint)
    }
}

/// The slot of a key. Only its hash tag counts, if it has one: the text between the first braces.
pub(crate) fn slot_of(key: &[u8]) -> u16 {
    let tagged = key
        .iter()
        .position(|byte| *byte == b'{')
        .and_then(|open| {
            let rest = &key[open + 1..];
            let close = rest.iter().position(|byte| *byte == b'}')?;
            (close > 0).then(|| &rest[..close])
        })
        .unwrap_or(key);
    crc16::State::<crc16::XMODEM>::calculate(tagged) % SLOT_COUNT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_equal_those_of_redis() {
        // From CLUSTER KEYSLOT.
        assert_eq!(slot_of(b"foo"), 12_182);
        assert_eq!(slot_of(b"somekey"), 11_058);
        assert_eq!(slot_of(b"foo{hash_tag}"), 2_515);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        assert_eq!(slot_of(b"foo{}{bar}"), 8_363);
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        assert_eq!(slot_of(b""), 0);
    }
}
