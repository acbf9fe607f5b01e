//! The map from keys to the nodes of a cluster.
//!
//! Reads Redis's answer to `CLUSTER SLOTS`; asking for it is for `topology`.

use std::sync::Arc;

use redis::Value;

use crate::redis::node::Node;
use crate::redis::reply;
use crate::settings::address::Endpoint;

const SLOTS: usize = 16_384;
/// No node has the slot.
const UNASSIGNED: u16 = u16::MAX;

/// A run of slots, and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// The first slot.
    pub(crate) first: u16,
    /// The last slot.
    pub(crate) last: u16,
    /// The primary.
    pub(crate) primary: Endpoint,
    /// Its replicas.
    pub(crate) replicas: Vec<Endpoint>,
}

/// NodeTable that have the same keys.
#[derive(Debug)]
pub(crate) struct Shard {
    /// The lowest slot.
    pub(crate) lowest: u16,
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
}

impl SlotMap {
    /// The map of these ranges, with the shard that has each of them.
    pub(crate) fn new(shards: Vec<Shard>, ranges: impl Iterator<Item = (u16, u16, usize)>) -> Self {
        let mut owners = vec![UNASSIGNED; SLOTS];
        for (first, last, shard) in ranges {
            let shard = u16::try_from(shard).unwrap_or(UNASSIGNED);
            if let Some(run) = owners.get_mut(usize::from(first)..=usize::from(last)) {
                run.fill(shard);
            }
        }
        Self { shards, owners }
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

    /// The lowest slot of the first shard that begins with this slot or a higher one.
    pub(crate) fn shard_from(&self, slot: u16) -> Option<u16> {
        self.shards
            .iter()
            .map(|shard| shard.lowest)
            .filter(|lowest| *lowest >= slot)
            .min()
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

/// `host:port` as Redis writes it; the host of an IPv6 address has colons, too.
pub(crate) fn endpoint_of(text: &str) -> Option<Endpoint> {
    let (host, port) = text.rsplit_once(':')?;
    Some(Endpoint {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: port.parse().ok()?,
    })
}

/// Reads `CLUSTER SLOTS`; a node that does not know its own name has that by which it was asked.
pub(crate) fn ranges(answer: &Value, asked: &Endpoint) -> Option<Vec<Range>> {
    let Value::Array(ranges) = answer else {
        return None;
    };
    ranges
        .iter()
        .map(|range| {
            let Value::Array(parts) = range else {
                return None;
            };
            let [Value::Int(first), Value::Int(last), primary, replicas @ ..] = &parts[..] else {
                return None;
            };
            Some(Range {
                first: u16::try_from(*first).ok()?,
                last: u16::try_from(*last).ok()?,
                primary: endpoint(primary, asked)?,
                replicas: replicas
                    .iter()
                    .filter_map(|replica| endpoint(replica, asked))
                    .collect(),
            })
        })
        .collect()
}

fn endpoint(node: &Value, asked: &Endpoint) -> Option<Endpoint> {
    let Value::Array(parts) = node else {
        return None;
    };
    let [host, Value::Int(port), ..] = &parts[..] else {
        return None;
    };
    let host = match host {
        Value::Nil => "",
        host => reply::text(host)?,
    };
    // `?` is a node that has not been told its host name.
    let host = if host.is_empty() || host == "?" {
        &asked.host
    } else {
        host
    };
    Some(Endpoint {
        host: host.to_owned(),
        port: u16::try_from(*port).ok()?,
    })
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

    #[test]
    fn endpoints_are_read_with_ports_at_the_end() {
        let read = |text| endpoint_of(text).map(|endpoint| endpoint.to_string());
        assert_eq!(read("10.0.0.1:7000").as_deref(), Some("10.0.0.1:7000"));
        assert_eq!(
            read("2001:db8::1:7000").as_deref(),
            Some("[2001:db8::1]:7000")
        );
        assert_eq!(read("nowhere"), None);
    }

    #[test]
    fn a_node_without_a_name_is_the_one_that_was_asked() {
        let node = |host| {
            Value::Array(vec![
                host,
                Value::Int(7000),
                Value::BulkString(b"id".to_vec()),
            ])
        };
        let asked = endpoint_of("seed:1").unwrap();
        let answer = Value::Array(vec![Value::Array(vec![
            Value::Int(0),
            Value::Int(5),
            node(Value::Nil),
            node(Value::BulkString(b"10.0.0.2".to_vec())),
        ])]);
        let ranges = ranges(&answer, &asked).unwrap();
        assert_eq!(ranges[0].primary, endpoint_of("seed:7000").unwrap());
        assert_eq!(ranges[0].replicas, [endpoint_of("10.0.0.2:7000").unwrap()]);
    }
}
