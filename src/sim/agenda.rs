//! What is yet to happen, in order of time and, at the same time, of what was said first.
//!
//! A large world has some hundred thousand packets on their way, which all lie in one heap badly: each step of it is a
//! place that the processor does not hold. So time is cut into slices. What happens in the present slice lies in a heap,
//! a small one; what happens in one of the next slices lies in that slice's list, in no order; what is further away in
//! a heap of its own.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use slab::Slab;

use crate::time::Time;

/// Nanoseconds of a slice, as a power of two: 131 us, in which some hundred things happen in a world of a thousand nodes.
const SLICE_BITS: u32 = 17;
/// Slices ahead that have lists: half a second, in which nearly everything arrives.
const SLICES: usize = 4_096;

/// When, what was said first, and the place of what happens.
type Entry = Reverse<(Time, u64, usize)>;

/// A list of what happens when: earlier comes first, then what was said first.
#[derive(Debug)]
pub struct Agenda<T> {
    what: Slab<T>,
    order: u64,
    /// Of the present slice and before.
    near: BinaryHeap<Entry>,
    /// The number of the slice after the present one.
    next: u64,
    /// Slices from `next` on, each in the place of its number modulo [`SLICES`].
    slices: Vec<Vec<Entry>>,
    /// Entries in `slices`.
    sliced: usize,
    /// Beyond the slices when it was said.
    far: BinaryHeap<Entry>,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self {
            what: Slab::new(),
            order: 0,
            near: BinaryHeap::new(),
            next: 0,
            slices: (0..SLICES).map(|_| Vec::new()).collect(),
            sliced: 0,
            far: BinaryHeap::new(),
        }
    }
}

const fn slice_of(at: Time) -> u64 {
    at.as_nanos() >> SLICE_BITS
}

impl<T> Agenda<T> {
    /// Lets something happen.
    pub fn push(&mut self, at: Time, what: T) {
        self.order += 1;
        let entry = Reverse((at, self.order, self.what.insert(what)));
        let slice = slice_of(at);
        if slice < self.next {
            self.near.push(entry);
        } else if slice - self.next >= SLICES as u64 {
            self.far.push(entry);
        } else if let Some(list) = self.slices.get_mut(slice as usize % SLICES) {
            list.push(entry);
            self.sliced += 1;
        }
    }

    /// When the next thing happens.
    pub fn next_at(&mut self) -> Option<Time> {
        while self.near.is_empty() {
            self.advance()?;
        }
        self.near.peek().map(|Reverse((at, ..))| *at)
    }

    /// The next thing that happens.
    pub fn pop(&mut self) -> Option<(Time, T)> {
        self.next_at()?;
        let Reverse((at, _, place)) = self.near.pop()?;
        Some((at, self.what.remove(place)))
    }

    /// Makes the next slice the present one; `None`: nothing is left to happen.
    fn advance(&mut self) -> Option<()> {
        let first_far = self.far.peek().map(|Reverse((at, ..))| slice_of(*at));
        if self.sliced == 0 {
            self.next = self.next.max(first_far?);
        }
        let slice = self.next;
        self.next += 1;
        if let Some(list) = self.slices.get_mut(slice as usize % SLICES) {
            self.sliced -= list.len();
            self.near.extend(list.drain(..));
            // One burst must not hold memory in each slice for good.
            list.shrink_to(64);
        }
        let is_now = |entry: &Entry| slice_of(entry.0.0) <= slice;
        while self.far.peek().is_some_and(is_now) {
            self.near.extend(self.far.pop());
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn earlier_comes_first_and_then_what_was_said_first() {
        let mut agenda = Agenda::default();
        for (at, name) in [(5, 0), (3, 1), (5, 2), (3, 3), (4, 4)] {
            agenda.push(Time::from_unix_seconds(at), name);
        }
        assert_eq!(agenda.next_at(), Some(Time::from_unix_seconds(3)));
        let order: Vec<u32> = std::iter::from_fn(|| agenda.pop())
            .map(|(_, name)| name)
            .collect();
        assert_eq!(order, [1, 3, 4, 0, 2]);
        assert_eq!(agenda.next_at(), None);
    }

    proptest! {
        /// Beside a list that is sorted anew each time. Times lie in one slice, in near ones, and far away.
        #[test]
        fn an_agenda_is_a_sorted_list(
            steps in proptest::collection::vec(
                prop_oneof![
                    (0_u64..200_000).prop_map(Some),
                    (0_u64..900_000_000).prop_map(Some),
                    (0_u64..90_000_000_000).prop_map(Some),
                    Just(None),
                    Just(None),
                ],
                1..300,
            )
        ) {
            let mut agenda = Agenda::default();
            let mut list: Vec<(Time, usize)> = Vec::new();
            let mut now = Time::from_unix_seconds(1_700_000_000);
            for (name, step) in steps.into_iter().enumerate() {
                match step {
                    Some(later) => {
                        let at = now + std::time::Duration::from_nanos(later);
                        agenda.push(at, name);
                        list.push((at, name));
                    }
                    None => {
                        list.sort();
                        prop_assert_eq!(agenda.next_at(), list.first().map(|(at, _)| *at));
                        let first = (!list.is_empty()).then(|| list.remove(0));
                        prop_assert_eq!(agenda.pop(), first);
                        now = first.map_or(now, |(at, _)| at);
                    }
                }
            }
        }
    }
}
