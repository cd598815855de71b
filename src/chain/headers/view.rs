//! A branch as the rules look at it: from one block back to the start.

use bitcoin::CompactTarget;

use super::{Headers, Place};
use crate::chain::rules::{Branch, Point};

/// The chain as seen from one block.
pub(super) struct View<'a> {
    pub(super) headers: &'a Headers,
    pub(super) place: Place,
}

impl View<'_> {
    pub(super) fn point(&self, place: Place) -> Option<Point> {
        let header = match place {
            Place::Side(_, side) => Some(side.header),
            Place::Active(height) => self.headers.by_height(height),
        };
        let height = place.height();
        let start = &self.headers.start.trusted;
        match header {
            Some(header) => Some(Point {
                height,
                time: header.time,
                bits: Some(header.bits),
            }),
            None => (height == start.height).then_some(Point {
                height,
                time: start.time,
                bits: None,
            }),
        }
    }

    fn before(&self, place: Place) -> Option<Place> {
        match place {
            Place::Active(height) => {
                (height > self.headers.start.trusted.height).then(|| Place::Active(height - 1))
            }
            Place::Side(_, side) => self.headers.place(side.header.prev_blockhash),
        }
    }
}

impl Branch for View<'_> {
    fn backwards(&self) -> impl Iterator<Item = Point> {
        std::iter::successors(Some(self.place), |place| self.before(*place))
            .map_while(|place| self.point(place))
    }

    fn at(&self, height: u32) -> Option<Point> {
        let mut place = self.place;
        while let Place::Side(_, side) = place {
            if side.height == height {
                return self.point(place);
            }
            place = self.before(place)?;
        }
        (height <= place.height()).then(|| self.point(Place::Active(height)))?
    }

    fn start_bits(&self) -> CompactTarget {
        self.headers.start.trusted.child_bits
    }

    fn start_period_time(&self) -> Option<u32> {
        self.headers.start.trusted.period_start_time
    }

    fn times_before_start(&self) -> &[u32] {
        &self.headers.start.trusted.earlier_times
    }
}
