//! The map from keys to the nodes of a cluster.
//!
//! `slot_ranges` reads it from a node's reply, `topology` keeps it current.

use std::sync::Arc;

use crate::redis::cluster::partition::Partition;
use crate::redis::node::Node;
use crate::settings::address::Endpoint;

const SLOTS: usize = 16_384;
/// No node has the slot.
const UNASSIGNED: u16 = u16::MAX;

/// NodeTable that have the same keys.
#[derive(Debug)]
pub(crate) struct Shard {
    /// Where the primary is.
    pub(crate) endpoint: Endpoint,
    /// Who writes.
    pub(crate) primary: Arc<Node>,
    /// Who may be read from.
    pub(crate) replicas: Vec<Arc<Node>>,
}

/// Which shard has each slot.
#[derive(Debug)]
pub(crate) struct SlotMap {
    shards: Vec<Shard>,
    owners: Vec<u16>,
    partition: Partition,
}

impl SlotMap {
    /// The map of these ranges, with the shard that has each of them.
    pub(crate) fn new(
        shards: Vec<Shard>,
        ranges: impl Iterator<Item = (u16, u16, usize)>,
        partition: Partition,
    ) -> Self {
        let mut owners = vec![UNASSIGNED; SLOTS];
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

    /// The shards.
    pub(crate) fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The node to ask for a slot: the primary, or a replica if that is wanted and there is one
    /// that can be reached.
    pub(crate) fn node_of(&self, slot: u16, from_replica: bool) -> Option<Arc<Node>> {
        let shard = self
            .shards
            .get(usize::from(*self.owners.get(usize::from(slot))?))?;
        if from_replica && !shard.replicas.is_empty() {
            let from = fastrand::usize(..shard.replicas.len());
            let in_turn = shard.replicas[from..].iter().chain(&shard.replicas[..from]);
            let mut ready = in_turn.filter(|node| node.session().is_some());
            if let Some(node) = ready.next() {
                return Some(Arc::clone(node));
            }
        }
        Some(Arc::clone(&shard.primary))
    }

    pub(crate) fn partition(&self) -> &Partition {
        &self.partition
    }

    /// The endpoint of a primary.
    pub(crate) fn endpoint_of(&self, primary: &Arc<Node>) -> Option<&Endpoint> {
        let mut shards = self.shards.iter();
        let shard = shards.find(|shard| Arc::ptr_eq(&shard.primary, primary))?;
        Some(&shard.endpoint)
    }
}

/// The slot of a key. Only what is between the first braces counts, if there is anything.
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
    crc16::State::<crc16::XMODEM>::calculate(tagged) % 16_384
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // As CLUSTER KEYSLOT answers.
        assert_eq!(slot_of(b"foo"), 12_182);
        assert_eq!(slot_of(b"somekey"), 11_058);
        assert_eq!(slot_of(b"foo{hash_tag}"), 2_515);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        assert_eq!(slot_of(b"foo{}{bar}"), 8_363);
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        assert_eq!(slot_of(b""), 0);
    }
}
