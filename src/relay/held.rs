//! How much the engine holds of everything that is bounded: what waits, what is kept without proof, what is remembered.

use super::Engine;

/// The fullest of each kind of thing that is bounded, at this moment.
///
/// `sessions` and the like are of the whole engine; what a peer or a job has is that of the one that has most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Sessions, those included whose last bytes wait.
    pub sessions: usize,
    /// Jobs that are not complete and came from peers.
    pub open_jobs: usize,
    /// Jobs whose block is whole.
    pub whole_jobs: usize,
    /// Invalid blocks that are remembered.
    pub invalid_blocks: usize,
    /// Compact blocks that wait for transactions.
    pub compact_blocks: usize,
    /// Bytes of cached transactions.
    pub mempool_bytes: usize,
    /// Transactions that are remembered as having come last.
    pub late: usize,
    /// Control bytes that wait for a session.
    pub control_bytes: usize,
    /// Bytes of a control frame that is not whole.
    pub frame_bytes: usize,
    /// Short answers that wait for a session's datagram.
    pub answers: usize,
    /// Job numbers of a peer.
    pub job_numbers: usize,
    /// Offers of a peer whose header cannot be judged.
    pub offers: usize,
    /// Datagrams to a peer that may still be reported.
    pub logged: usize,
    /// Wants for hashes of a peer in a job.
    pub hash_wants: usize,
    /// Requests, pushes and lost parts that wait for a peer in a job.
    pub waiting: usize,
    /// Stretches of transactions that wait for a peer in a job, less one for each transaction of the block.
    pub stretches: usize,
    /// Requests for hashes that a job has under way.
    pub hash_asks: usize,
    /// Bytes of transactions that come in parts from a peer in a job.
    pub part_bytes: usize,
    /// Bytes of transactions that a job holds of a peer without proof.
    pub unproven_bytes: usize,
    /// Bytes of parity, and of a first flight beside it, that a job holds of a peer.
    pub parity_bytes: usize,
}

impl Engine {
    /// How much is held now of everything that is bounded. Takes time in the number of sessions times jobs.
    pub fn held(&self) -> Held {
        let local = |open: bool| {
            let jobs = self.jobs.values();
            jobs.filter(|entry| !entry.job.local && entry.job.is_complete() != open)
                .count()
        };
        let mut held = Held {
            sessions: self.sessions.iter().flatten().count(),
            open_jobs: local(true),
            whole_jobs: self
                .jobs
                .values()
                .filter(|entry| entry.job.is_complete())
                .count(),
            invalid_blocks: self.invalid.len(),
            compact_blocks: self.compacts.len(),
            mempool_bytes: self.mempool.bytes(),
            late: self.arrivals.len(),
            ..Held::default()
        };
        let most = |place: &mut usize, value: usize| *place = (*place).max(value);
        for session in self.sessions.iter().flatten() {
            most(&mut held.control_bytes, session.control.len());
            most(&mut held.frame_bytes, session.decoder.buffered());
            most(&mut held.answers, session.answers.len());
            most(&mut held.job_numbers, session.their_jobs.len());
            most(&mut held.offers, session.offers.len());
            most(&mut held.logged, session.sent.logged());
        }
        for entry in self.jobs.values() {
            most(&mut held.hash_asks, entry.asks.hash_asks());
            most(&mut held.part_bytes, entry.parts.most_bytes());
            most(&mut held.unproven_bytes, entry.job.most_unproven());
            most(&mut held.parity_bytes, entry.parity.most_bytes());
            let leaves = entry.job.geometry.count() as usize;
            for peer in entry.peers.values() {
                most(&mut held.hash_wants, peer.wanted_hashes.len());
                let waiting = peer.requests.len() + peer.push.len() + peer.lost_parts.len();
                most(&mut held.waiting, waiting);
                let flight = peer.flight.as_ref().map_or(0, |flight| flight.held_bytes());
                most(&mut held.parity_bytes, flight);
                let stretches = peer.ready.len().saturating_sub(leaves);
                most(&mut held.stretches, stretches);
            }
        }
        held
    }
}
