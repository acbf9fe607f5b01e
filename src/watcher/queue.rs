//! The changes that wait for a component: bounded, and in order for each key.
//!
//! A key belongs to one of several lanes. Each lane is delivered sequentially, which keeps the order of one
//! key's changes, and concurrently with the others. A full queue drops its oldest change. A change stays in
//! the queue while it is being delivered, so that each one is settled, handed over or counted as lost.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

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
    /// The key as the component names it; `Err` has a replacement for one that is not UTF-8.
    pub(crate) key: Result<String, String>,
    pub(crate) kind: ChangeKind,
    /// When this process received it.
    pub(crate) received_at: Instant,
    /// Redis published it after this time, see [`Queue::complete_until`].
    pub(crate) published_after: Instant,
}

/// The queue of one component.
#[derive(Debug)]
pub(crate) struct Queue {
    lanes: Mutex<Lanes>,
    /// One for each lane: a change arrived, or the gate moved.
    wakes: [Notify; LANES],
    /// The gate was closed.
    closed: Notify,
    max_changes: usize,
}

/// The state of delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    /// They wait: another process delivers, or a replaced link still does.
    Held,
    Open,
    /// No further change is delivered from this queue.
    Closed,
}

#[derive(Debug)]
struct Lanes {
    gate: Gate,
    /// Each change with its number, in the order of arrival over all lanes.
    lanes: [VecDeque<(u64, Change)>; LANES],
    /// The changes that are being delivered.
    current: [Option<(u64, Change)>; LANES],
    next_number: u64,
    /// The number of changes in `lanes`.
    changes: usize,
    /// The size of their keys.
    bytes: usize,
    /// All changes published before are in the queue, or settled.
    complete_until: Instant,
    /// Changes dropped because the queue was full, and not yet recorded as lost.
    dropped: usize,
    /// When the latest of them was received.
    dropped_until: Option<Instant>,
}

impl Change {
    pub(crate) fn key_text(&self) -> &str {
        match &self.key {
            Ok(key) | Err(key) => key,
        }
    }
}

impl Queue {
    /// An empty queue whose changes wait until [`Self::open`].
    pub(crate) fn new(max_changes: usize) -> Self {
        Self {
            lanes: Mutex::new(Lanes {
                gate: Gate::Held,
                lanes: Default::default(),
                current: Default::default(),
                next_number: 0,
                changes: 0,
                bytes: 0,
                complete_until: Instant::now(),
                dropped: 0,
                dropped_until: None,
            }),
            wakes: Default::default(),
            closed: Notify::new(),
            max_changes,
        }
    }

    /// Adds a change. Dropped changes are counted until [`Self::take_dropped`].
    pub(crate) fn push(&self, key: Result<String, String>, kind: ChangeKind) {
        let mut lanes = self.lanes.lock();
        let change = Change {
            key,
            kind,
            received_at: Instant::now(),
            published_after: lanes.complete_until,
        };
        let lane = lane_of(change.key_text());
        lanes.push(lane, change);
        lanes.limit(self.max_changes);
        drop(lanes);
        self.wakes[lane].notify_one();
    }

    /// Adds changes of a replaced link before all others.
    pub(crate) fn prepend(&self, changes: Vec<Change>) {
        let mut lanes = self.lanes.lock();
        let later = lanes.take_waiting();
        for change in changes.into_iter().chain(later) {
            let lane = lane_of(change.key_text());
            lanes.push(lane, change);
        }
        lanes.limit(self.max_changes);
    }

    /// The number of changes dropped because the queue was full, since the last call.
    pub(crate) fn take_dropped(&self) -> usize {
        let mut lanes = self.lanes.lock();
        lanes.dropped_until = None;
        std::mem::take(&mut lanes.dropped)
    }

    /// Waits for the next change of a lane, which is then being delivered until [`Self::settle`] or
    /// [`Self::put_back`]. Only one task may wait for a lane. Returns `None` once the queue is closed.
    pub(crate) async fn next(&self, lane: usize) -> Option<Change> {
        loop {
            {
                let mut lanes = self.lanes.lock();
                match lanes.gate {
                    Gate::Closed => return None,
                    Gate::Held => {}
                    Gate::Open => {
                        if let Some(next) = lanes.pop(lane) {
                            lanes.current[lane] = Some(next.clone());
                            return Some(next.1);
                        }
                    }
                }
            }
            self.wakes[lane].notified().await;
        }
    }

    /// The current change of a lane was delivered, or recorded as lost.
    pub(crate) fn settle(&self, lane: usize) {
        self.lanes.lock().current[lane] = None;
    }

    /// The current change of a lane waits again.
    pub(crate) fn put_back(&self, lane: usize) {
        let mut lanes = self.lanes.lock();
        if let Some(current) = lanes.current[lane].take() {
            lanes.changes += 1;
            lanes.bytes += current.1.key_text().len();
            lanes.lanes[lane].push_front(current);
        }
    }

    /// Delivers from now on.
    pub(crate) fn open(&self) {
        self.set_gate(Gate::Open);
    }

    /// Delivers no further changes until [`Self::open`].
    pub(crate) fn hold(&self) {
        self.set_gate(Gate::Held);
    }

    /// Delivers no further changes; those being delivered may be completed.
    pub(crate) fn close(&self) {
        self.set_gate(Gate::Closed);
        self.closed.notify_waiters();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lanes.lock().gate == Gate::Closed
    }

    /// Completes when the queue is closed.
    pub(crate) async fn closed(&self) {
        let notified = self.closed.notified();
        if self.lanes.lock().gate != Gate::Closed {
            notified.await;
        }
    }

    fn set_gate(&self, gate: Gate) {
        let mut lanes = self.lanes.lock();
        if lanes.gate != Gate::Closed {
            lanes.gate = gate;
        }
        drop(lanes);
        for wake in &self.wakes {
            wake.notify_one();
        }
    }

    /// All changes that were published before this time have arrived.
    pub(crate) fn complete_until(&self, time: Instant) {
        self.lanes.lock().complete_until = time;
    }

    /// The age of the oldest change that is not settled; without queued changes,
    /// the oldest one that may not have arrived.
    pub(crate) fn behind(&self, with_queued: bool) -> Duration {
        let lanes = self.lanes.lock();
        let queued = lanes.oldest().filter(|_| with_queued);
        queued
            .into_iter()
            .chain([lanes.complete_until])
            .map(|time| time.elapsed())
            .max()
            .unwrap_or_default()
    }

    /// Removes waiting changes that were received before this time: another process has settled them.
    pub(crate) fn remove_settled(&self, before: Instant) {
        let mut lanes = self.lanes.lock();
        for lane in 0..LANES {
            while let Some((_, change)) = lanes.lanes[lane].front()
                && change.received_at < before
            {
                lanes.pop(lane);
            }
        }
        if lanes.dropped_until.is_some_and(|until| until < before) {
            lanes.dropped = 0;
            lanes.dropped_until = None;
        }
    }

    /// Removes all changes, also those being delivered. Returns them in the order of arrival.
    pub(crate) fn take_all(&self) -> Vec<Change> {
        let mut lanes = self.lanes.lock();
        for lane in 0..LANES {
            if let Some(current) = lanes.current[lane].take() {
                lanes.changes += 1;
                lanes.bytes += current.1.key_text().len();
                lanes.lanes[lane].push_front(current);
            }
        }
        lanes.take_waiting()
    }

    /// Removes the waiting changes. Returns their number.
    pub(crate) fn clear(&self) -> usize {
        self.lanes.lock().take_waiting().len()
    }
}

impl Lanes {
    fn push(&mut self, lane: usize, change: Change) {
        self.changes += 1;
        self.bytes += change.key_text().len();
        self.lanes[lane].push_back((self.next_number, change));
        self.next_number += 1;
    }

    fn pop(&mut self, lane: usize) -> Option<(u64, Change)> {
        let next = self.lanes.get_mut(lane)?.pop_front()?;
        self.changes -= 1;
        self.bytes -= next.1.key_text().len();
        Some(next)
    }

    /// Drops the oldest changes while there are too many.
    fn limit(&mut self, max_changes: usize) {
        while self.changes > max_changes || (self.bytes > MAX_BYTES && self.changes > 1) {
            let oldest = (0..LANES)
                .filter_map(|lane| Some((self.lanes[lane].front()?.0, lane)))
                .min();
            let Some((_, change)) = oldest.and_then(|(_, lane)| self.pop(lane)) else {
                return;
            };
            self.dropped += 1;
            self.dropped_until = self.dropped_until.max(Some(change.received_at));
        }
    }

    fn take_waiting(&mut self) -> Vec<Change> {
        let mut numbered: Vec<_> = self.lanes.iter_mut().flat_map(std::mem::take).collect();
        numbered.sort_unstable_by_key(|(number, _)| *number);
        (self.changes, self.bytes) = (0, 0);
        numbered.into_iter().map(|(_, change)| change).collect()
    }

    /// The time after which the oldest change was published.
    fn oldest(&self) -> Option<Instant> {
        let waiting = self.lanes.iter().filter_map(VecDeque::front);
        let current = self.current.iter().flatten();
        waiting
            .chain(current)
            .map(|(_, change)| change.published_after)
            .min()
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
    use tokio::time::advance;

    use super::*;

    fn open(max_changes: usize) -> Queue {
        let queue = Queue::new(max_changes);
        queue.open();
        queue
    }

    fn push(queue: &Queue, key: &str) {
        queue.push(Ok(key.to_owned()), ChangeKind::Set);
    }

    async fn deliver(queue: &Queue, key: &str) -> Change {
        let lane = lane_of(key);
        let change = queue.next(lane).await.unwrap();
        queue.settle(lane);
        change
    }

    fn keys(changes: &[Change]) -> Vec<&str> {
        changes.iter().map(Change::key_text).collect()
    }

    #[tokio::test]
    async fn changes_of_a_key_are_delivered_in_order() {
        let queue = open(100);
        push(&queue, "k");
        queue.push(Ok("k".to_owned()), ChangeKind::Deleted);
        assert_eq!(deliver(&queue, "k").await.kind, ChangeKind::Set);
        assert_eq!(deliver(&queue, "k").await.kind, ChangeKind::Deleted);
    }

    #[tokio::test]
    async fn a_full_queue_drops_the_oldest_change_of_all_lanes() {
        let queue = open(50);
        let keys: Vec<String> = (0..60).map(|number| number.to_string()).collect();
        for key in &keys {
            push(&queue, key);
        }
        assert_eq!((queue.take_dropped(), queue.take_dropped()), (10, 0));
        for key in &keys[10..] {
            assert_eq!(deliver(&queue, key).await.key_text(), key);
        }
        let lanes = queue.lanes.lock();
        assert_eq!((lanes.changes, lanes.bytes), (0, 0));
    }

    #[tokio::test]
    async fn cleared_changes_are_counted() {
        let queue = open(50);
        for number in 0..60 {
            push(&queue, &number.to_string());
        }
        assert_eq!((queue.clear(), queue.clear()), (50, 0));
        push(&queue, "k");
        assert_eq!(deliver(&queue, "k").await.key_text(), "k");
    }

    #[tokio::test]
    async fn the_size_of_keys_is_limited() {
        let queue = Queue::new(100);
        let large = "k".repeat(MAX_BYTES / 2 + 1);
        push(&queue, &large);
        assert_eq!(queue.take_dropped(), 0);
        push(&queue, &large);
        assert_eq!(queue.take_dropped(), 1);
    }

    #[tokio::test]
    async fn changes_that_are_being_delivered_are_handed_over_first() {
        let (old, new) = (open(100), open(100));
        for key in ["a", "b", "c"] {
            push(&old, key);
        }
        let lane = lane_of("b");
        let current = old.next(lane).await.unwrap();
        push(&new, "d");
        old.close();
        new.prepend(old.take_all());
        assert!(old.take_all().is_empty());
        assert_eq!(old.next(lane).await, None);
        let handed_over = new.take_all();
        assert_eq!(handed_over.len(), 4);
        assert_eq!(keys(&handed_over)[3], "d");
        assert!(handed_over.contains(&current));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_unsettled_change_determines_how_far_the_queue_is_behind() {
        let second = Duration::from_secs(1);
        let queue = open(100);
        push(&queue, "k");
        advance(second).await;
        queue.complete_until(Instant::now());
        assert_eq!(queue.behind(true), second);
        assert_eq!(queue.behind(false), Duration::ZERO);
        queue.next(lane_of("k")).await.unwrap();
        assert_eq!(queue.behind(true), second);
        queue.settle(lane_of("k"));
        assert_eq!(queue.behind(true), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn changes_settled_by_another_process_are_removed() {
        let queue = Queue::new(2);
        for key in ["dropped", "a", "b"] {
            push(&queue, key);
        }
        advance(Duration::from_secs(1)).await;
        let settled = Instant::now();
        push(&queue, "c");
        queue.remove_settled(settled);
        assert_eq!(queue.take_dropped(), 0);
        assert_eq!(keys(&queue.take_all()), ["c"]);
    }
}
