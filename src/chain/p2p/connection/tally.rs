//! What all connections of an owner have refused together, and how many there are: read at any time, by anybody.

use std::sync::atomic::{AtomicU64, Ordering};

use super::super::Refusal;

/// Counters that never go back, but for the number of connections.
#[derive(Debug, Default)]
pub struct Tally {
    connections: AtomicU64,
    headers: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl Tally {
    /// Connections that there are, those whose handshake is under way included.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Messages of headers of which one was refused by the header chain.
    pub fn refused_headers(&self) -> u64 {
        self.headers.load(Ordering::Relaxed)
    }

    /// Counts one more of them.
    pub fn refused_header(&self) {
        self.headers.fetch_add(1, Ordering::Relaxed);
    }

    /// How often each refusal occurred, in the order of [`Refusal::ALL`]; none of those that did not.
    pub fn refused(&self) -> impl Iterator<Item = (Refusal, u64)> {
        let counts = self.refused.iter().map(|it| it.load(Ordering::Relaxed));
        let all = Refusal::ALL.iter().copied().zip(counts);
        all.filter(|(_, times)| *times > 0)
    }

    pub(super) fn add(&self, refusal: Refusal, times: u64) {
        // They are declared in the order of the list.
        if let Some(count) = self.refused.get(refusal as usize) {
            count.fetch_add(times, Ordering::Relaxed);
        }
    }

    pub(super) fn opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_place() {
        let tally = Tally::default();
        for (times, &refusal) in (1..).zip(Refusal::ALL) {
            tally.add(refusal, times);
        }
        let all: Vec<_> = tally.refused().collect();
        assert_eq!(all.len(), Refusal::ALL.len());
        for (place, (refusal, times)) in all.into_iter().enumerate() {
            assert_eq!((refusal, times), (Refusal::ALL[place], place as u64 + 1));
        }
        assert_eq!(Tally::default().refused().count(), 0);
    }
}
