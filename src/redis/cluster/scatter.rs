//! Splits commands whose keys are in several slots, and merges the replies.
//!
//! Pure: it knows commands and slots, and no node.

use std::collections::BTreeMap;

use redis::Value;

use crate::error::Error;
use crate::redis::cluster::slot_map::slot_of;
use crate::redis::command::Command;
use crate::redis::reply::{array, integer};

/// The slots that a command is sent to.
#[derive(Debug)]
pub(crate) enum Plan<'a> {
    /// To the node of this slot, unchanged.
    Whole(u16),
    /// In parts.
    Parts(Vec<Part<'a>>),
}

/// The part of a command whose keys are in one slot.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    pub(crate) slot: u16,
    pub(crate) command: Command<'a>,
    /// The positions of these keys in the whole command.
    positions: Vec<usize>,
}

/// Plans where a command is sent.
pub(crate) fn plan<'a>(command: &'a Command<'_>) -> Plan<'a> {
    let mut slots: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
    for (position, key) in command.keys().enumerate() {
        slots.entry(slot_of(key)).or_default().push(position);
    }
    if slots.len() < 2 {
        return Plan::Whole(slots.into_keys().next().unwrap_or_default());
    }
    let parts = slots.into_iter().filter_map(|(slot, positions)| {
        Some(Part {
            slot,
            command: command.part(&positions)?,
            positions,
        })
    });
    Plan::Parts(parts.collect())
}

/// The reply to the whole command, from the replies to its parts.
///
/// # Errors
///
/// A reply has an unexpected type.
pub(crate) fn merge(
    command: &Command<'_>,
    parts: &[Part<'_>],
    replies: Vec<Value>,
) -> Result<Value, Error> {
    match command {
        Command::MGet { .. } => {
            let keys = parts.iter().map(|part| part.positions.len()).sum();
            let mut values = vec![Value::Nil; keys];
            for (part, reply) in parts.iter().zip(replies) {
                let found = array("MGET", reply, part.positions.len())?;
                for (position, value) in part.positions.iter().zip(found) {
                    values[*position] = value;
                }
            }
            Ok(Value::Array(values))
        }
        Command::Del { .. } => {
            let mut deleted = 0;
            for reply in &replies {
                deleted += integer("DEL", reply)?;
            }
            Ok(Value::Int(deleted))
        }
        _ => Ok(Value::Okay),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::redis::command::batch::Batch;
    use crate::redis::command::{Packed, RedisKey, SplitBytes};

    fn keys<'a>(names: &[&'a str]) -> Vec<RedisKey<'a>> {
        names.iter().copied().map(Cow::Borrowed).collect()
    }

    /// The arguments of a command, as they are sent.
    fn text(command: &Command<'_>) -> String {
        let Packed::One(command) = command.pack() else {
            panic!("not one command")
        };
        let args = command.args_iter().map(|arg| match arg {
            redis::Arg::Simple(word) => String::from_utf8_lossy(word).into_owned(),
            _ => panic!("a cursor of the redis crate"),
        });
        args.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn commands_on_one_slot_stay_whole() {
        let same_slot = keys(&["foo", "{foo}a"]);
        let pairs = [
            (Cow::Borrowed("foo"), &b"1"[..]),
            (Cow::Borrowed("{foo}a"), b"2"),
        ];
        for command in [
            Command::Get { key: "foo" },
            Command::Set {
                key: "foo",
                value: SplitBytes(b"bar", b""),
                ttl_ms: None,
            },
            Command::MGet {
                keys: Batch::all(&same_slot),
            },
            Command::MSet {
                pairs: Batch::all(&pairs),
            },
        ] {
            let plan = plan(&command);
            assert!(matches!(plan, Plan::Whole(12_182)), "{command:?}: {plan:?}");
        }
    }

    #[test]
    fn values_are_merged_in_the_order_of_the_keys() {
        let keys = keys(&["foo", "bar", "{foo}2", "missing"]);
        let command = Command::MGet {
            keys: Batch::all(&keys),
        };
        let Plan::Parts(parts) = plan(&command) else {
            panic!("it has several slots")
        };
        let value = |key: &str| match key {
            "missing" => Value::Nil,
            key => Value::BulkString(key.into()),
        };
        let replies = parts.iter().map(|part| {
            let keys = text(&part.command);
            Value::Array(keys.split(' ').skip(1).map(value).collect())
        });
        let reply = merge(&command, &parts, replies.collect()).unwrap();
        let expected = ["foo", "bar", "{foo}2", "missing"].map(value);
        assert_eq!(reply, Value::Array(expected.to_vec()));
    }

    #[test]
    fn pairs_stay_together() {
        let pairs = [("foo", b"1"), ("bar", b"2"), ("{foo}3", b"3")]
            .map(|(key, value)| (Cow::Borrowed(key), &value[..]));
        let command = Command::MSet {
            pairs: Batch::all(&pairs),
        };
        let Plan::Parts(parts) = plan(&command) else {
            panic!("it has several slots")
        };
        let mut texts: Vec<_> = parts.iter().map(|part| text(&part.command)).collect();
        texts.sort();
        assert_eq!(texts, ["MSET bar 2", "MSET foo 1 {foo}3 3"]);
    }
}
