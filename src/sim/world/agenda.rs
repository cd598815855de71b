//! What is yet to happen, in order of time and, at the same time, of arrival in the list.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;
use slab::Slab;

use super::super::NodeId;
use crate::time::Time;

/// Something that happens.
pub(super) enum What {
    /// A datagram has come to the far end of a link.
    Datagram {
        to: NodeId,
        /// Whose address it bears.
        from: NodeId,
        bytes: Bytes,
    },
    /// A datagram has passed the receiver's downlink.
    Taken {
        to: NodeId,
        from: NodeId,
        bytes: Bytes,
    },
    /// A segment of a control connection has arrived, in order.
    Control {
        connection: usize,
        side: usize,
        bytes: Bytes,
    },
    /// A segment has passed the receiver's downlink.
    ControlTaken {
        connection: usize,
        side: usize,
        bytes: Bytes,
    },
    /// The other side has acknowledged a segment.
    Acknowledged {
        connection: usize,
        side: usize,
        length: u64,
    },
    /// A side of a connection learns that it is made.
    Connected { connection: usize, side: usize },
    /// A side of a connection learns that it has ended.
    Closed { connection: usize, side: usize },
    /// Who had dialled a connection that ended dials again.
    Redial { connection: usize },
    /// A node wants to be woken.
    Wake { node: NodeId },
    /// A block is handed in.
    Submit { node: NodeId, block: Bytes },
    /// Something befalls the network.
    Fault(Box<super::Fault>),
}

/// The list: a heap of times, and what they stand for beside it, so that the heap moves little.
#[derive(Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Reverse<(Time, u64, usize)>>,
    what: Slab<What>,
    order: u64,
}

impl Agenda {
    pub(super) fn push(&mut self, at: Time, what: What) {
        self.order += 1;
        let place = self.what.insert(what);
        self.heap.push(Reverse((at, self.order, place)));
    }

    /// When the next thing happens.
    pub(super) fn next_at(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    pub(super) fn pop(&mut self) -> Option<(Time, What)> {
        let Reverse((at, _, place)) = self.heap.pop()?;
        Some((at, self.what.remove(place)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_comes_first_and_then_what_was_said_first() {
        let mut agenda = Agenda::default();
        for (at, node) in [(5, 0), (3, 1), (5, 2), (3, 3), (4, 4)] {
            agenda.push(Time::from_unix_seconds(at), What::Wake { node });
        }
        assert_eq!(agenda.next_at(), Some(Time::from_unix_seconds(3)));
        let order: Vec<NodeId> = std::iter::from_fn(|| match agenda.pop() {
            Some((_, What::Wake { node })) => Some(node),
            _ => None,
        })
        .collect();
        assert_eq!(order, [1, 3, 4, 0, 2]);
    }
}
