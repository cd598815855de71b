//! The receiving end: what is there in order, what beyond it, and how that is told.

use super::{Ack, Segment};

/// The receiving end of a stream.
#[derive(Debug, Default)]
pub struct Receiver {
    next: u64,
    /// Ranges that are there beyond `next`, apart from each other, the one that came last first.
    beyond: Vec<Segment>,
}

impl Receiver {
    /// Bytes that are there in order.
    pub const fn delivered(&self) -> u64 {
        self.next
    }

    /// Takes a segment, and says what is there now.
    pub fn segment(&mut self, segment: Segment) -> Ack {
        if segment.start <= self.next {
            self.next = self.next.max(segment.end);
            self.absorb();
        } else {
            self.keep(segment);
        }
        Ack {
            next: self.next,
            blocks: self.beyond.iter().take(3).copied().collect(),
        }
    }

    /// Ranges that are reached now are in order as well.
    fn absorb(&mut self) {
        while let Some(place) = self
            .beyond
            .iter()
            .position(|range| range.start <= self.next)
        {
            let range = self.beyond.remove(place);
            self.next = self.next.max(range.end);
        }
    }

    /// Joins a segment to the ranges that it touches; what comes of it was the last.
    fn keep(&mut self, segment: Segment) {
        let mut joined = segment;
        self.beyond.retain(|range| {
            let apart = range.end < joined.start || range.start > joined.end;
            if !apart {
                joined.start = joined.start.min(range.start);
                joined.end = joined.end.max(range.end);
            }
            apart
        });
        self.beyond.insert(0, joined);
    }
}
