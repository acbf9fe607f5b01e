//! The changes that wait for a component: bounded, and in order for each key.
//!
//! A key belongs to one of several lanes. Each lane is delivered sequentially, which keeps the order of one
//! key's changes, and concurrently with the others. A full queue drops its oldest change.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::watcher::keyspace_event::ChangeKind;

/// The maximum number of concurrent calls to a component.
pub(crate) const LANES: usize = 8;
/// The maximum number of queued changes.
pub(crate) const MAX_CHANGES: usize = 65_536;
/// The maximum size of their keys in bytes.
const MAX_BYTES: usize = 64 << 20;

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// The key as the component names it.
    pub(crate) key: String,
    pub(crate) kind: ChangeKind,
}

/// The queue of one component.
#[derive(Debug)]
pub(crate) struct Queue {
    lanes: Mutex<Lanes>,
    /// One for each lane.
    arrived: [Notify; LANES],
    max_changes: usize,
}

#[derive(Debug, Default)]
struct Lanes {
    /// Each change with its number, in the order of arrival over all lanes.
    lanes: [VecDeque<(u64, Change)>; LANES],
    next_number: u64,
    changes: usize,
    bytes: usize,
}

impl Queue {
    pub(crate) fn new(max_changes: usize) -> Self {
        Self {
            lanes: Mutex::default(),
            arrived: Default::default(),
            max_changes,
        }
    }

    /// Adds a change. Returns the number of changes that were dropped for it.
    pub(crate) fn push(&self, change: Change) -> usize {
        let lane = lane_of(&change.key);
        let dropped = self.lanes.lock().push(lane, change, self.max_changes);
        self.arrived[lane].notify_one();
        dropped
    }

    /// Waits for the next change of a lane. Only one task may wait for a lane.
    pub(crate) async fn next(&self, lane: usize) -> Change {
        loop {
            if let Some(change) = self.lanes.lock().pop(lane) {
                return change;
            }
            self.arrived[lane].notified().await;
        }
    }

    /// Drops all changes. Returns their number.
    pub(crate) fn clear(&self) -> usize {
        std::mem::take(&mut *self.lanes.lock()).changes
    }
}

impl Lanes {
    fn push(&mut self, lane: usize, change: Change, max_changes: usize) -> usize {
        self.changes += 1;
        self.bytes += change.key.len();
        self.lanes[lane].push_back((self.next_number, change));
        self.next_number += 1;
        let mut dropped = 0;
        while self.changes > max_changes || (self.bytes > MAX_BYTES && self.changes > 1) {
            self.drop_oldest();
            dropped += 1;
        }
        dropped
    }

    fn pop(&mut self, lane: usize) -> Option<Change> {
        let (_, change) = self.lanes.get_mut(lane)?.pop_front()?;
        self.changes -= 1;
        self.bytes -= change.key.len();
        Some(change)
    }

    fn drop_oldest(&mut self) {
        let oldest = (0..LANES)
            .filter_map(|lane| Some((self.lanes[lane].front()?.0, lane)))
            .min();
        if let Some((_, lane)) = oldest {
            self.pop(lane);
        }
    }
}

fn lane_of(key: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    // The remainder is below the number of lanes.
    (hasher.finish() % LANES as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str) -> Change {
        Change {
            key: key.to_owned(),
            kind: ChangeKind::Set,
        }
    }

    #[tokio::test]
    async fn changes_of_a_key_are_delivered_in_order() {
        let queue = Queue::new(100);
        let lane = lane_of("k");
        queue.push(set("k"));
        queue.push(Change {
            kind: ChangeKind::Deleted,
            ..set("k")
        });
        assert_eq!(queue.next(lane).await.kind, ChangeKind::Set);
        assert_eq!(queue.next(lane).await.kind, ChangeKind::Deleted);
    }

    #[tokio::test]
    async fn a_full_queue_drops_the_oldest_change_of_all_lanes() {
        let queue = Queue::new(50);
        let keys: Vec<String> = (0..60).map(|number| number.to_string()).collect();
        let dropped: usize = keys.iter().map(|key| queue.push(set(key))).sum();
        assert_eq!(dropped, 10);
        for key in &keys[10..] {
            assert_eq!(queue.next(lane_of(key)).await, set(key));
        }
        let lanes = queue.lanes.lock();
        assert_eq!((lanes.changes, lanes.bytes), (0, 0));
    }

    #[tokio::test]
    async fn cleared_changes_are_counted() {
        let queue = Queue::new(50);
        for number in 0..60 {
            queue.push(set(&number.to_string()));
        }
        assert_eq!((queue.clear(), queue.clear()), (50, 0));
        queue.push(set("k"));
        assert_eq!(queue.next(lane_of("k")).await, set("k"));
    }

    #[tokio::test]
    async fn the_size_of_keys_is_limited() {
        let queue = Queue::new(100);
        let large = "k".repeat(MAX_BYTES / 2 + 1);
        assert_eq!(queue.push(set(&large)), 0);
        assert_eq!(queue.push(set(&large)), 1);
    }
}
