//! The runs of consecutive slots that have the same owner, as one node reports them.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::redis::cluster::slot_ranges::SlotRange;
use crate::settings::address::Endpoint;

/// The slots of a cluster by owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    /// By slot; neighbors have different owners, or slots between them that no node serves.
    runs: Vec<Run>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    first: u16,
    last: u16,
    owner: Endpoint,
}

impl Partition {
    pub(crate) fn new(ranges: &[SlotRange]) -> Self {
        let mut ranges: Vec<&SlotRange> = ranges.iter().collect();
        ranges.sort_by_key(|range| range.first);
        let mut runs: Vec<Run> = Vec::new();
        for range in ranges {
            match runs.last_mut() {
                Some(run)
                    if run.owner == range.primary && range.first <= run.last.saturating_add(1) =>
                {
                    run.last = run.last.max(range.last);
                }
                _ => runs.push(Run {
                    first: range.first,
                    last: range.last,
                    owner: range.primary.clone(),
                }),
            }
        }
        Self { runs }
    }

    /// A hash that stays the same as long as no slot moves: it covers the grouping of slots by owner,
    /// and not the owners' addresses, which change with a failover.
    pub(crate) fn hash(&self) -> u64 {
        let mut owners: Vec<&Endpoint> = Vec::new();
        let mut hasher = DefaultHasher::new();
        for run in &self.runs {
            let label = owners.iter().position(|owner| **owner == run.owner);
            let label = label.unwrap_or_else(|| {
                owners.push(&run.owner);
                owners.len() - 1
            });
            (run.first, run.last, label).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// The lowest slot from this one on that a node serves.
    pub(crate) fn first_served(&self, from: u16) -> Option<u16> {
        let run = self.runs.iter().find(|run| run.last >= from)?;
        Some(run.first.max(from))
    }

    /// The lowest slot of the next owner, in the order of their lowest slots.
    pub(crate) fn next_owner(&self, after: u16) -> Option<u16> {
        let lowest = |run: &Run| {
            let of_owner = self.runs.iter().find(|other| other.owner == run.owner);
            of_owner.map(|first_run| first_run.first)
        };
        let lowest = self.runs.iter().filter_map(lowest);
        lowest.filter(|lowest| *lowest > after).min()
    }

    pub(crate) fn owner(&self, slot: u16) -> Option<&Endpoint> {
        Some(&self.run_of(slot)?.owner)
    }

    /// The last slot of the run with `slot`; `slot` itself where no node serves it.
    pub(crate) fn end_of_run(&self, slot: u16) -> u16 {
        self.run_of(slot).map_or(slot, |run| run.last)
    }

    fn run_of(&self, slot: u16) -> Option<&Run> {
        let mut runs = self.runs.iter();
        runs.find(|run| (run.first..=run.last).contains(&slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint {
            host: "h".to_owned(),
            port,
        }
    }

    fn partition(runs: &[(u16, u16, u16)]) -> Partition {
        let ranges = runs.iter().map(|(first, last, port)| SlotRange {
            first: *first,
            last: *last,
            primary: endpoint(*port),
            replicas: Vec::new(),
        });
        Partition::new(&ranges.collect::<Vec<_>>())
    }

    #[test]
    fn a_failover_keeps_the_hash_and_a_moved_slot_changes_it() {
        let before = partition(&[(0, 5, 1), (6, 9, 2), (10, 12, 1)]);
        assert_eq!(
            before.hash(),
            partition(&[(10, 12, 7), (0, 5, 7), (6, 9, 2)]).hash()
        );
        assert_ne!(
            before.hash(),
            partition(&[(0, 4, 1), (5, 9, 2), (10, 12, 1)]).hash()
        );
        assert_ne!(
            before.hash(),
            partition(&[(0, 5, 1), (6, 9, 2), (10, 12, 3)]).hash()
        );
    }

    #[test]
    fn owners_are_visited_by_their_lowest_slots() {
        let partition = partition(&[(0, 0, 2), (1, 5, 1), (6, 9, 2), (11, 12, 3)]);
        assert_eq!(partition.next_owner(0), Some(1));
        assert_eq!(partition.next_owner(1), Some(11));
        assert_eq!(partition.next_owner(11), None);
        assert_eq!(partition.first_served(10), Some(11));
        assert_eq!(partition.first_served(13), None);
        assert_eq!(partition.end_of_run(6), 9);
        assert_eq!(partition.end_of_run(10), 10);
        assert_eq!(partition.owner(6), Some(&endpoint(2)));
        assert_eq!(partition.owner(10), None);
    }
}
