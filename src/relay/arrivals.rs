//! Transactions that came into the cache a moment ago: a peer may not have them yet.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::merkle::Hash;
use crate::time::Time;

/// How long a transaction counts as late.
///
/// Bitcoin Core announces transactions to those that dialled it every five seconds on average, to those that it dialled
/// every two (`INBOUND_INVENTORY_BROADCAST_INTERVAL`, `OUTBOUND_INVENTORY_BROADCAST_INTERVAL`): where this node has had one
/// for less than the shorter time, who is a hop further on is more likely not to have it than to have it.
const LATE: Duration = Duration::from_secs(2);

/// Transactions that are remembered: what comes within [`LATE`] at ten times the seven a second that Bitcoin's blocks hold.
/// More are a cache that is being filled, which says nothing of others.
const MAX_LATE: usize = 140;

/// The transactions that came last, with the engine's time at which each came.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    recent: VecDeque<(Time, Hash)>,
}

impl Arrivals {
    /// A transaction came that had not been in the cache.
    pub fn note(&mut self, now: Time, wtxid: Hash) {
        if self.recent.len() >= MAX_LATE {
            self.recent.pop_front();
        }
        self.recent.push_back((now, wtxid));
    }

    /// Which transactions were late for a block that came at this time, and how many came after each; none if so many were
    /// that it says nothing.
    pub fn late_for(&self, block: Time) -> BTreeMap<Hash, usize> {
        let newest = self.recent.iter().rev();
        let late: BTreeMap<Hash, usize> = newest
            .take_while(|(came, _)| *came + LATE >= block)
            .enumerate()
            .map(|(later, (_, wtxid))| (*wtxid, later))
            .collect();
        match late.len() < MAX_LATE {
            true => late,
            false => BTreeMap::new(),
        }
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.recent.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(number: u8) -> Hash {
        [number; 32]
    }

    #[test]
    fn the_latest_come_first_and_what_is_old_is_not_late() {
        let start = Time::from_unix_seconds(1_000);
        let mut arrivals = Arrivals::default();
        for (number, after_ms) in [(1, 0), (2, 900), (3, 2_500)] {
            arrivals.note(start + Duration::from_millis(after_ms), id(number));
        }
        let block = start + Duration::from_millis(2_600);
        assert_eq!(
            arrivals.late_for(block),
            BTreeMap::from([(id(3), 0), (id(2), 1)])
        );
        assert!(arrivals.late_for(block + LATE).is_empty());
    }

    #[test]
    fn a_cache_that_is_filled_says_nothing() {
        let now = Time::from_unix_seconds(1_000);
        let mut arrivals = Arrivals::default();
        (1..MAX_LATE as u8).for_each(|number| arrivals.note(now, id(number)));
        assert_eq!(arrivals.late_for(now).len(), MAX_LATE - 1);
        arrivals.note(now, id(0));
        assert!(arrivals.late_for(now).is_empty());
    }

    proptest! {
        /// Whatever comes when: never more than are remembered, none that is old, each later one before each earlier.
        #[test]
        fn late_is_bounded_and_in_order(steps in prop::collection::vec(0u64..4_000, 0..300)) {
            let mut now = Time::from_unix_seconds(1_000);
            let mut arrivals = Arrivals::default();
            let mut times = Vec::new();
            for (number, after_ms) in steps.iter().enumerate() {
                now = now + Duration::from_millis(after_ms / 40 * (after_ms % 40));
                let mut wtxid = [0; 32];
                wtxid[..8].copy_from_slice(&(number as u64).to_le_bytes());
                arrivals.note(now, wtxid);
                times.push((now, wtxid));
            }
            prop_assert!(arrivals.len() <= MAX_LATE);
            let late = arrivals.late_for(now);
            prop_assert!(late.len() < MAX_LATE);
            for (later, (came, wtxid)) in times.iter().rev().enumerate() {
                if let Some(place) = late.get(wtxid) {
                    prop_assert_eq!(*place, later);
                    prop_assert!(*came + LATE >= now);
                }
            }
        }
    }
}
