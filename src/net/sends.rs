//! Datagrams that wait to be sent, laid out so that one system call takes many.
//!
//! ```text
//!   push A 1200 │ A 1200 │ B 1200 │ A 1200 │ B 700 │ A 300 │ A 1200
//!   runs        [A 1200·1200·1200·300] [B 1200·700] [A 1200]        each contiguous in one slab
//! ```
//!
//! A *run* is what GSO sends at once: datagrams to one destination, all of one size but the last,
//! which may be smaller. Datagrams to different destinations may be pushed in any interleaving; those
//! to one destination leave in the order they were pushed. Slabs are reused, so that nothing is
//! allocated in steady state. No I/O here: [`super::udp`] sends what this holds.

use std::collections::VecDeque;
use std::net::SocketAddr;

/// The largest payload of a UDP datagram over IPv4, and so the largest run that GSO takes: 65,535
/// bytes of an IP packet less 28 of headers.
pub const MAX_RUN_BYTES: usize = 65_507;
/// Datagrams in a run: what Linux takes in one call (`UDP_MAX_SEGMENTS` was 64 until 6.9).
pub const MAX_RUN_DATAGRAMS: usize = 64;
/// Runs that wait at once: 2 MiB of slabs, which is about what a system's socket buffer takes, so
/// that a longer queue would only add delay.
pub const MAX_RUNS: usize = 32;
/// The largest datagram that shares a run: what a 1,500-byte path carries over IPv4. Larger ones are
/// mostly probes of the path, and one too large for it must not take others with it.
pub const MAX_SHARED_DATAGRAM: usize = 1_472;

/// Datagrams of one destination, contiguous.
#[derive(Debug)]
struct Run {
    to: SocketAddr,
    /// Size of every datagram but the last.
    size: usize,
    filled: usize,
    sent: usize,
    datagrams: usize,
    /// A smaller or a large datagram was the last.
    closed: bool,
    slab: Box<[u8]>,
}

impl Run {
    fn takes(&self, length: usize) -> bool {
        !self.closed
            && length <= self.size
            && self.datagrams < MAX_RUN_DATAGRAMS
            && self.filled + length <= MAX_RUN_BYTES
    }

    fn append(&mut self, datagram: &[u8]) {
        let end = self.filled + datagram.len();
        self.slab
            .get_mut(self.filled..end)
            .expect("takes() has checked the room")
            .copy_from_slice(datagram);
        self.filled = end;
        self.datagrams += 1;
        self.closed = datagram.len() < self.size || self.size > MAX_SHARED_DATAGRAM;
    }
}

/// What one system call may send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Chunk<'a> {
    /// The destination of all of it.
    pub to: SocketAddr,
    /// The datagrams, one behind the other.
    pub contents: &'a [u8],
    /// The size of each but the last, which may be smaller. At least 1.
    pub size: usize,
}

impl Chunk<'_> {
    /// How many datagrams it is.
    pub fn datagrams(&self) -> usize {
        self.contents.len().div_ceil(self.size)
    }
}

/// The queue of runs.
#[derive(Debug, Default)]
pub struct SendQueue {
    runs: VecDeque<Run>,
    free: Vec<Box<[u8]>>,
}

impl SendQueue {
    /// Puts a datagram behind those to the same destination. Returns false, and takes nothing, if
    /// [`MAX_RUNS`] wait and it fits none of them.
    ///
    /// # Panics
    /// If the datagram is empty or larger than [`MAX_RUN_BYTES`].
    pub fn push(&mut self, to: SocketAddr, datagram: &[u8]) -> bool {
        assert!(
            (1..=MAX_RUN_BYTES).contains(&datagram.len()),
            "the caller bounds what it sends"
        );
        // Only the last run of a destination may grow, or the order would be lost.
        let last = self.runs.iter_mut().rev().find(|run| run.to == to);
        if let Some(run) = last.filter(|run| run.takes(datagram.len())) {
            run.append(datagram);
            return true;
        }
        if !self.has_room() {
            return false;
        }
        let slab = self
            .free
            .pop()
            .unwrap_or_else(|| vec![0; MAX_RUN_BYTES].into_boxed_slice());
        let mut run = Run {
            to,
            size: datagram.len(),
            filled: 0,
            sent: 0,
            datagrams: 0,
            closed: false,
            slab,
        };
        run.append(datagram);
        self.runs.push_back(run);
        true
    }

    /// Whether a datagram of any size to anyone would be taken.
    pub fn has_room(&self) -> bool {
        self.runs.len() < MAX_RUNS
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The first datagrams of the oldest run, at most `max_datagrams` (and at least one).
    pub fn front(&self, max_datagrams: usize) -> Option<Chunk<'_>> {
        let run = self.runs.front()?;
        let most = run.size.saturating_mul(max_datagrams.max(1));
        let end = run.filled.min(run.sent.saturating_add(most));
        Some(Chunk {
            to: run.to,
            contents: run.slab.get(run.sent..end)?,
            size: run.size,
        })
    }

    /// Drops the first `bytes` of the oldest run: the length of a chunk that [`SendQueue::front`]
    /// gave.
    pub fn advance(&mut self, bytes: usize) {
        if let Some(run) = self.runs.front_mut() {
            run.sent += bytes;
            if run.sent >= run.filled
                && let Some(run) = self.runs.pop_front()
            {
                self.free.push(run.slab);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn drain(queue: &mut SendQueue, max_datagrams: usize) -> Vec<(SocketAddr, Vec<Vec<u8>>)> {
        let mut calls = Vec::new();
        while let Some(chunk) = queue.front(max_datagrams) {
            let datagrams = chunk.contents.chunks(chunk.size).map(Vec::from).collect();
            let (to, bytes) = (chunk.to, chunk.contents.len());
            calls.push((to, datagrams));
            queue.advance(bytes);
        }
        calls
    }

    #[test]
    fn groups_by_destination_as_the_picture_says() {
        let mut queue = SendQueue::default();
        for (port, length) in [
            (1, 1200),
            (1, 1200),
            (2, 1200),
            (1, 1200),
            (2, 700),
            (1, 300),
            (1, 1200),
        ] {
            assert!(queue.push(peer(port), &vec![port as u8; length]));
        }
        let calls: Vec<_> = drain(&mut queue, 64)
            .into_iter()
            .map(|(to, datagrams)| {
                (
                    to.port(),
                    datagrams.iter().map(Vec::len).collect::<Vec<_>>(),
                )
            })
            .collect();
        assert_eq!(
            calls,
            [
                (1, vec![1200, 1200, 1200, 300]),
                (2, vec![1200, 700]),
                (1, vec![1200])
            ]
        );
        assert!(queue.is_empty());
    }

    #[test]
    fn large_datagrams_travel_alone() {
        let mut queue = SendQueue::default();
        for _ in 0..3 {
            assert!(queue.push(peer(1), &[0; MAX_SHARED_DATAGRAM + 1]));
        }
        assert_eq!(drain(&mut queue, 64).len(), 3);
        assert!(queue.push(peer(1), &[0; MAX_RUN_BYTES]));
        assert!(queue.push(peer(1), &[0; MAX_RUN_BYTES]));
        assert_eq!(drain(&mut queue, 64).len(), 2);
    }

    #[test]
    fn without_offload_each_datagram_is_a_call() {
        let mut queue = SendQueue::default();
        for byte in 0..10 {
            assert!(queue.push(peer(1), &[byte; 1200]));
        }
        let calls = drain(&mut queue, 1);
        assert_eq!(calls.len(), 10);
        assert!(
            calls
                .iter()
                .zip(0..)
                .all(|((_, call), byte)| *call == [vec![byte; 1200]])
        );
    }

    #[test]
    fn is_bounded_and_reuses_its_slabs() {
        let mut queue = SendQueue::default();
        for round in 0..5 {
            let mut taken = 0;
            while queue.push(peer(1 + taken), &[round; 100]) {
                taken += 1;
            }
            assert_eq!(usize::from(taken), MAX_RUNS);
            assert!(!queue.has_room());
            // One that joins a run is still taken.
            assert!(queue.push(peer(1), &[round; 100]));
            drain(&mut queue, 64);
            assert_eq!(queue.free.len(), MAX_RUNS);
        }
    }

    proptest! {
        /// Whatever is pushed comes out whole, in order for each destination, in valid runs.
        #[test]
        fn order_and_content_are_kept(
            pushes in prop::collection::vec((1u16..5, 1usize..3_000, 0usize..4), 1..300),
            max_datagrams in 1usize..80,
        ) {
            let mut queue = SendQueue::default();
            let mut expected: BTreeMap<SocketAddr, Vec<Vec<u8>>> = BTreeMap::new();
            let mut actual: BTreeMap<SocketAddr, Vec<Vec<u8>>> = BTreeMap::new();
            let mut collect = |queue: &mut SendQueue, calls: usize| {
                for _ in 0..calls {
                    let Some(chunk) = queue.front(max_datagrams) else { break };
                    assert!(chunk.contents.len() <= MAX_RUN_BYTES);
                    assert!(chunk.datagrams() <= MAX_RUN_DATAGRAMS.min(max_datagrams));
                    actual.entry(chunk.to).or_default()
                        .extend(chunk.contents.chunks(chunk.size).map(Vec::from));
                    let bytes = chunk.contents.len();
                    queue.advance(bytes);
                }
            };
            for (number, (port, length, calls)) in pushes.into_iter().enumerate() {
                let datagram = vec![number as u8; length];
                if queue.push(peer(port), &datagram) {
                    expected.entry(peer(port)).or_default().push(datagram);
                }
                collect(&mut queue, calls);
            }
            collect(&mut queue, usize::MAX);
            prop_assert!(queue.is_empty());
            prop_assert_eq!(actual, expected);
        }
    }
}
