//! Changes that wait for a component: bounded, in order for each key.
//!
//! Changes are spread over lanes by their key. Each lane is emptied one change after another, so
//! that those of one key keep their order while those of others are delivered beside them. When
//! too many wait, the oldest is dropped.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::watcher::keyspace_event::ChangeKind;

/// How many calls to a component are under way at once.
pub(crate) const LANES: usize = 8;
/// How many changes wait for a component.
pub(crate) const MOST_CHANGES: usize = 65_536;
/// How many bytes their keys may have.
const MOST_BYTES: usize = 64 << 20;

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// The key as the component names it.
    pub(crate) key: String,
    /// What record to it.
    pub(crate) kind: ChangeKind,
}

/// The changes that wait for one component.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: Mutex<QueuedChange>,
    arrived: [Notify; LANES],
    most_changes: usize,
}

#[derive(Debug, Default)]
struct QueuedChange {
    /// Each change with its number.
    lanes: [VecDeque<(u64, Change)>; LANES],
    next: u64,
    changes: usize,
    bytes: usize,
}

impl Queue {
    /// An empty queue for so many changes.
    pub(crate) fn new(most_changes: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            arrived: Default::default(),
            most_changes,
        }
    }

    /// Adds a change; answers how many old ones were dropped for it.
    pub(crate) fn push(&self, change: Change) -> usize {
        let lane = lane_of(&change.key);
        let mut waiting = self.waiting();
        let number = waiting.next;
        waiting.next += 1;
        waiting.changes += 1;
        waiting.bytes += change.key.len();
        waiting.lanes[lane].push_back((number, change));
        let mut dropped = 0;
        while waiting.changes > self.most_changes
            || (waiting.bytes > MOST_BYTES && waiting.changes > 1)
        {
            waiting.drop_oldest();
            dropped += 1;
        }
        drop(waiting);
        self.arrived[lane].notify_one();
        dropped
    }

    /// Waits for the next change of a lane, of which only one at a time may wait.
    pub(crate) async fn next(&self, lane: usize) -> Change {
        loop {
            if let Some(change) = self.waiting().take(lane) {
                return change;
            }
            self.arrived[lane].notified().await;
        }
    }

    /// Forgets what waits; answers how many changes that were.
    pub(crate) fn clear(&self) -> usize {
        let mut waiting = self.waiting();
        waiting.lanes.iter_mut().for_each(VecDeque::clear);
        waiting.bytes = 0;
        std::mem::take(&mut waiting.changes)
    }

    fn waiting(&self) -> MutexGuard<'_, QueuedChange> {
        self.waiting.lock()
    }
}

impl QueuedChange {
    fn take(&mut self, lane: usize) -> Option<Change> {
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
            self.take(lane);
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
    async fn changes_of_a_key_keep_their_order() {
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
    async fn the_oldest_of_all_lanes_is_dropped() {
        let queue = Queue::new(50);
        let keys: Vec<String> = (0..60).map(|number| number.to_string()).collect();
        let dropped: usize = keys.iter().map(|key| queue.push(set(key))).sum();
        assert_eq!(dropped, 10);
        for key in &keys[10..] {
            assert_eq!(queue.next(lane_of(key)).await, set(key));
        }
        let waiting = queue.waiting();
        assert_eq!((waiting.changes, waiting.bytes), (0, 0));
    }

    #[tokio::test]
    async fn what_is_forgotten_is_counted() {
        let queue = Queue::new(50);
        for number in 0..60 {
            queue.push(set(&number.to_string()));
        }
        assert_eq!((queue.clear(), queue.clear()), (50, 0));
        queue.push(set("k"));
        assert_eq!(queue.next(lane_of("k")).await, set("k"));
    }

    #[tokio::test]
    async fn large_keys_are_bounded_too() {
        let queue = Queue::new(100);
        let large = "k".repeat(MOST_BYTES / 2 + 1);
        assert_eq!(queue.push(set(&large)), 0);
        assert_eq!(queue.push(set(&large)), 1);
    }
}
