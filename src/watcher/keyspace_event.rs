//! From Redis's notifications to changes of keys: which events set or delete, and which messages
//! repeat an event because several patterns match its key.

use std::collections::HashMap;

use crate::redis::pubsub::Message;

/// What record to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    /// It has a new value.
    Set,
    /// It is gone.
    Deleted,
}

impl ChangeKind {
    /// What an event means for a key that holds a string; `None` for events that change no value,
    /// and for those of other types.
    pub(crate) fn of(event: &[u8]) -> Option<Self> {
        Some(match event {
            b"set" | b"setrange" | b"append" | b"incrby" | b"incrbyfloat" | b"decrby"
            | b"setbit" | b"pfadd" | b"rename_to" | b"move_to" | b"copy_to" | b"restore" => {
                Self::Set
            }
            b"del" | b"expired" | b"evicted" | b"rename_from" | b"move_from" => Self::Deleted,
            _ => return None,
        })
    }
}

/// Tells the messages of one event from those of the next.
///
/// Redis sends an event once for each pattern that matches its key, one after another, and each
/// event about a key to the same patterns. So a message is of the event before it as long as
/// channel and event are the same and its pattern has not come yet.
#[derive(Debug, Default)]
pub(crate) struct PatternDedup {
    by_connection: HashMap<u64, Latest>,
}

#[derive(Debug, Default)]
struct Latest {
    channel: Vec<u8>,
    event: Vec<u8>,
    patterns: Vec<Vec<u8>>,
    counted: bool,
}

impl PatternDedup {
    /// Whether this message counts, being the first `wanted` one of its event.
    pub(crate) fn is_first(&mut self, message: Message<'_>, wanted: bool) -> bool {
        let latest = self.by_connection.entry(message.connection).or_default();
        let same = latest.channel == message.channel
            && latest.event == message.payload
            && !latest.patterns.iter().any(|seen| seen == message.pattern);
        if !same {
            latest.channel.clear();
            latest.channel.extend_from_slice(message.channel);
            latest.event.clear();
            latest.event.extend_from_slice(message.payload);
            latest.patterns.clear();
            latest.counted = false;
        }
        latest.patterns.push(message.pattern.to_vec());
        let first = wanted && !latest.counted;
        latest.counted |= wanted;
        first
    }

    /// Forgets what came over connections that are no more.
    pub(crate) fn start_over(&mut self) {
        self.by_connection.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<'a>(connection: u64, pattern: &'a str, channel: &'a str) -> Message<'a> {
        Message {
            connection,
            pattern: pattern.as_bytes(),
            channel: channel.as_bytes(),
            payload: b"set",
        }
    }

    #[test]
    fn an_event_counts_once_whatever_matches() {
        let mut repetitions = PatternDedup::default();
        for _ in 0..3 {
            assert!(repetitions.is_first(message(1, "a*", "ab"), true));
            assert!(!repetitions.is_first(message(1, "*b", "ab"), true));
        }
        assert!(repetitions.is_first(message(1, "a*", "ac"), true));
        assert!(repetitions.is_first(message(2, "a*", "ac"), true));
    }

    #[test]
    fn it_counts_with_the_first_pattern_that_wants_it() {
        let mut repetitions = PatternDedup::default();
        assert!(!repetitions.is_first(message(1, "a*", "ab"), false));
        assert!(repetitions.is_first(message(1, "*b", "ab"), true));
        assert!(!repetitions.is_first(message(1, "ab", "ab"), true));
    }

    #[test]
    fn only_changes_of_values_are_changes() {
        assert_eq!(ChangeKind::of(b"incrby"), Some(ChangeKind::Set));
        assert_eq!(ChangeKind::of(b"evicted"), Some(ChangeKind::Deleted));
        for event in ["expire", "persist", "lpush", "hset", ""] {
            assert_eq!(ChangeKind::of(event.as_bytes()), None, "{event}");
        }
    }
}
