//! Keyspace events: the selection of those that set or delete a value, and the detection of messages
//! that repeat an event because several patterns match its key.

use std::collections::HashMap;

use crate::redis::pubsub::listener::Message;

/// The kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    /// The key has a new value.
    Set,
    /// The key does not exist any more.
    Deleted,
}

impl ChangeKind {
    /// The change that an event reports of a string; `None` for events that do not change the value, and for
    /// those of other types.
    pub(crate) fn of_event(event: &[u8]) -> Option<Self> {
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

/// Recognizes messages that repeat an event.
///
/// Redis sends an event once per pattern that matches its key, one message after another, and all events of
/// a key match the same patterns. So a message repeats the event before it if channel and event are equal
/// and its pattern has not been seen since the event's first message.
#[derive(Debug, Default)]
pub(crate) struct PatternDedup {
    by_connection: HashMap<u64, LatestEvent>,
}

#[derive(Debug, Default)]
struct LatestEvent {
    channel: Vec<u8>,
    event: Vec<u8>,
    patterns: Vec<Vec<u8>>,
    reported: bool,
}

impl PatternDedup {
    /// Returns true if this is the first message of its event that is `wanted`.
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
            latest.reported = false;
        }
        latest.patterns.push(message.pattern.to_vec());
        let first = wanted && !latest.reported;
        latest.reported |= wanted;
        first
    }

    /// Forgets all events, after a connection was lost: the next one has another number.
    pub(crate) fn reset(&mut self) {
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
    fn an_event_is_reported_once_for_all_matching_patterns() {
        let mut dedup = PatternDedup::default();
        for _ in 0..3 {
            assert!(dedup.is_first(message(1, "a*", "ab"), true));
            assert!(!dedup.is_first(message(1, "*b", "ab"), true));
        }
        assert!(dedup.is_first(message(1, "a*", "ac"), true));
        assert!(dedup.is_first(message(2, "a*", "ac"), true));
    }

    #[test]
    fn an_event_is_reported_by_the_first_pattern_that_wants_it() {
        let mut dedup = PatternDedup::default();
        assert!(!dedup.is_first(message(1, "a*", "ab"), false));
        assert!(dedup.is_first(message(1, "*b", "ab"), true));
        assert!(!dedup.is_first(message(1, "ab", "ab"), true));
    }

    #[test]
    fn events_that_do_not_change_a_string_are_ignored() {
        assert_eq!(ChangeKind::of_event(b"incrby"), Some(ChangeKind::Set));
        assert_eq!(ChangeKind::of_event(b"evicted"), Some(ChangeKind::Deleted));
        for event in ["expire", "persist", "lpush", "hset", ""] {
            assert_eq!(ChangeKind::of_event(event.as_bytes()), None, "{event}");
        }
    }
}
