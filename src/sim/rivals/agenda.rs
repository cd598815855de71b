//! What happens next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use slab::Slab;

use crate::time::Time;

/// A list of what happens when: earlier comes first, then what was said first.
#[derive(Debug)]
pub(super) struct Agenda<T> {
    heap: BinaryHeap<Reverse<(Time, u64, usize)>>,
    what: Slab<T>,
    order: u64,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            what: Slab::new(),
            order: 0,
        }
    }
}

impl<T> Agenda<T> {
    pub(super) fn push(&mut self, at: Time, what: T) {
        self.order += 1;
        let place = self.what.insert(what);
        self.heap.push(Reverse((at, self.order, place)));
    }

    /// When the next thing happens.
    pub(super) fn next_at(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    pub(super) fn pop(&mut self) -> Option<(Time, T)> {
        let Reverse((at, _, place)) = self.heap.pop()?;
        Some((at, self.what.remove(place)))
    }
}
