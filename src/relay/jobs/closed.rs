//! Ids of jobs that a peer has closed: the copy of an OPEN_JOB that comes late in a datagram opens none of them again.

use arrayvec::ArrayVec;

/// Ids remembered of one peer. Datagrams come some round trips late at the most, and a peer closes few jobs in that
/// time: in a burst of blocks as many as it may hold open at once, a few times.
const MAX_CLOSED_IDS: usize = 32;

/// The ids, the last one newest.
#[derive(Debug, Default)]
pub(in crate::relay) struct ClosedIds(ArrayVec<u16, MAX_CLOSED_IDS>);

impl ClosedIds {
    /// Whether the peer closed the job that it gave this id.
    pub fn contains(&self, id: u16) -> bool {
        self.0.contains(&id)
    }

    /// The peer has closed a job. The oldest one makes room.
    pub fn insert(&mut self, id: u16) {
        self.forget(id);
        if self.0.is_full() {
            self.0.pop_at(0);
        }
        self.0.push(id);
    }

    /// The peer opens a job of this id again, on the stream that keeps the order.
    pub fn forget(&mut self, id: u16) {
        self.0.retain(|known| *known != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered() {
        let mut ids = ClosedIds::default();
        for id in 0..100 {
            ids.insert(7);
            ids.insert(id);
        }
        assert!((69..100).chain([7]).all(|id| ids.contains(id)));
        assert!(!ids.contains(68));
        ids.forget(99);
        assert!(!ids.contains(99) && ids.contains(98));
    }
}
