//! What goes to a peer unasked: the first flight, what it probably lacks, parity; or, if it takes that, everything.

use super::*;
use crate::relay::parity::ParityPush;
use crate::relay::parity::amount::spare_datagrams;
use crate::relay::parity::body::BodyCode;
use crate::relay::parity::code::Code;
use crate::wire::{DEFAULT_MAX_DATAGRAM, ParityKind};

/// Bytes of a datagram as pushes are reckoned.
const DATAGRAM: u64 = DEFAULT_MAX_DATAGRAM as u64;

/// Leaves below a node of the row that goes before a body which is pushed whole: 16 transactions of ordinary size are
/// 7 kB, which is how much a node holds back at most before it can pass something on. The row costs 32 bytes for them.
const GRAIN_HEIGHT: u8 = 4;

/// How a first flight is to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlightPlan {
    /// How far it goes (SET_PARAMS key 6).
    pub level: u8,
    /// Bytes of transactions and parity in it (key 8).
    pub budget_bytes: u64,
    /// It goes by UDP, so that some of it may be lost.
    pub lossy: bool,
    /// The share that is lost, as far as is known.
    pub loss: f64,
    /// Where parity begins, and a body that is pushed whole.
    pub draw: u32,
}

impl JobEntry {
    /// Prepares the first flight to a peer, as far as it wants it.
    pub(super) fn push_first_flight(&mut self, slot: u32, plan: FlightPlan, now: Time) {
        let block_bytes = self.job.block_bytes;
        let peer = self.peer(slot, now);
        peer.open_pending = true;
        if plan.level == 0 {
            return;
        }
        peer.push_coinbase = true;
        let all = plan.level >= 3 && plan.budget_bytes >= u64::from(block_bytes);
        self.push_anchor(slot, now);
        if plan.level >= 2 {
            self.push_rows(slot, all, now);
        }
        if plan.level >= 2 && plan.lossy {
            let kind = match all {
                true => ParityKind::Anchor,
                false => ParityKind::Flight,
            };
            self.push_flight_parity(slot, kind, plan, now);
        }
        if all {
            self.push_everything(slot, plan.draw, now);
        } else if plan.level >= 3 {
            // Parity, unless a part of it goes for what is likely to be lacking once that is known (see `predicted`).
            let (kind, left) = (ParityKind::Transactions, plan.budget_bytes);
            let parity = (left > 0).then(|| ParityPush::new(kind, plan.draw, left));
            self.peer(slot, now).body_parity = parity;
        }
    }

    /// The branch of leaf 0, the first row of W, and what proves the count.
    fn push_anchor(&mut self, slot: u32, now: Time) {
        let geometry = self.job.geometry;
        let (depth, count) = (geometry.depth(), geometry.count());
        let row = first_row_level(&self.job.geometry);
        if count == 1 {
            return;
        }
        let peer = self.peer(slot, now);
        peer.push.push_back(hashes(Tree::Txid, 0, depth, 0..1));
        let width = geometry.width(row);
        peer.push.push_back(hashes(Tree::Witness, 0, row, 0..width));
        if row < depth {
            peer.push
                .push_back(hashes(Tree::Witness, row, depth, count - 1..count));
        }
    }

    /// The row of the chunks, and what describes each: short ids, or for who takes everything a finer row.
    fn push_rows(&mut self, slot: u32, all: bool, now: Time) {
        let geometry = self.job.geometry;
        let (row, chunk_level) = (first_row_level(&self.job.geometry), self.job.chunk_level());
        if row < chunk_level {
            let want = hashes(
                Tree::Witness,
                row,
                chunk_level,
                0..geometry.width(chunk_level),
            );
            self.peer(slot, now).push.push_back(want);
        }
        for chunk in 0..self.job.chunks.len() as u32 {
            let known = self.job.chunks.get(chunk as usize);
            let known = known.is_some_and(|chunk| chunk.hashes_known);
            match all {
                true => self.push_grain(slot, chunk, now),
                false if known => self.push_short_ids(slot, chunk, now),
                false => {}
            }
        }
    }

    /// Adds the finer row of a chunk, as a want that stands until it is verified here.
    fn push_grain(&mut self, slot: u32, chunk: u32, now: Time) {
        let depth = self.job.geometry.depth();
        let (around, level) = (self.job.chunk_level(), depth.saturating_sub(GRAIN_HEIGHT));
        let leaves = self.job.chunk_leaves(chunk);
        if level <= around || leaves.is_empty() {
            return;
        }
        let range = leaves.start >> GRAIN_HEIGHT..((leaves.end - 1) >> GRAIN_HEIGHT) + 1;
        let want = hashes(Tree::Witness, around, level, range);
        // A block of more chunks than wants may stand is verified by chunks.
        let _ = self.peer(slot, now).want_hashes(want);
    }

    /// Adds the short ids of a chunk to a flight that is under way.
    pub(super) fn push_description(&mut self, slot: u32, chunk: u32, now: Time) {
        if !self.peer(slot, now).takes_all {
            self.push_short_ids(slot, chunk, now);
        }
    }

    fn push_flight_parity(&mut self, slot: u32, kind: ParityKind, plan: FlightPlan, now: Time) {
        let frames = match kind {
            ParityKind::Flight => self.job.chunks.len() as u32 + 3,
            ParityKind::Anchor | ParityKind::Transactions => 3,
        };
        let bytes = u64::from(spare_datagrams(frames, plan.loss)) * DATAGRAM;
        let push = ParityPush::new(kind, plan.draw, bytes);
        self.peer(slot, now).flight_parity = (self.job.geometry.count() > 1).then_some(push);
    }

    /// Pushes all transactions: as if the peer had asked for them, beginning where `draw` says.
    fn push_everything(&mut self, slot: u32, draw: u32, now: Time) {
        let count = self.job.geometry.count();
        let chunks = self.job.chunks.len() as u32;
        let first = self.job.chunk_leaves(draw % chunks.max(1)).start.max(1);
        let verified: Vec<bool> = (0..count)
            .map(|leaf| self.job.transaction(leaf).is_some())
            .collect();
        let peer = self.peer(slot, now);
        peer.takes_all = true;
        for leaf in (first..count).chain(1..first) {
            if !peer.has_leaf(leaf) {
                peer.want(leaf, verified.get(leaf as usize) == Some(&true));
            }
        }
    }

    /// Adds the short ids of a chunk to a first flight.
    fn push_short_ids(&mut self, slot: u32, chunk: u32, now: Time) {
        let range = self.job.chunk_leaves(chunk);
        let (around, level) = (self.job.chunk_level(), self.job.geometry.depth());
        if self.job.geometry.count() == 1 {
            return;
        }
        let peer = self.peer(slot, now);
        if peer.has_hashes.get(chunk as usize).is_some_and(|bit| *bit) {
            return;
        }
        peer.push.push_back(HashWant {
            tree: Tree::Witness,
            short: true,
            around,
            level,
            range,
        });
    }
}

/// What is waited for, beyond an eighth of a round trip, after the last of a first flight before parity is taken for lost: a
/// few datagrams' worth at 10 Mbit/s.
const PARITY_PATIENCE: Duration = Duration::from_millis(5);

impl JobEntry {
    /// A peer that pushes everything opened the job: nobody need be asked.
    pub(super) fn expect_push(&mut self, slot: u32, now: Time) {
        let block_bytes = self.job.block_bytes;
        let count = self.job.geometry.count();
        let Some(peer) = self.peers.get_mut(&slot) else {
            return;
        };
        if peer.pushes_all(block_bytes) && !peer.claims_other(count) {
            self.asks.expect_all(&self.job, slot, peer, now);
        }
    }

    /// Leaves to parity what it may make good: those transactions are not asked for while it may be under way.
    pub(in crate::relay) fn spare_for_parity(&mut self, round_trip: Duration, now: Time) {
        let until = self.asks.last_flight + PARITY_PATIENCE + round_trip / 8;
        let cells = match now < until && !self.parity.has_failed() {
            true => self.cells_to_come(),
            false => 0,
        };
        let end = match cells {
            0 => 0,
            cells => {
                let known = self.parity.covered_by(&self.job, cells);
                let end = known.unwrap_or_else(|| self.likely_covered_by(cells));
                // Who lacks some of it too sends parity later. That is worth waiting for if nothing need be asked.
                let mut pushers = self.peers.values().filter(|peer| peer.pushed_to_us);
                let now = pushers.any(|peer| peer.claims_all && !peer.closed);
                match now || end >= self.job.geometry.count() {
                    true => end,
                    false => 0,
                }
            }
        };
        self.asks.spare(end, until);
    }

    /// Cells of parity that are here, and that are likely to come.
    fn cells_to_come(&self) -> u32 {
        let block_bytes = self.job.block_bytes;
        if !self.parity.is_empty() {
            let (coming, here) = self.parity.expected();
            return here + coming;
        }
        let pushers = self
            .peers
            .values()
            .filter(|peer| peer.pushed_to_us && peer.opened_at.is_some() && !peer.closed);
        let granted = pushers.map(|peer| peer.granted_bytes).max().unwrap_or(0);
        match granted >= u64::from(block_bytes) {
            true => 0,
            false => (granted / self.body_cell()) as u32,
        }
    }

    fn body_cell(&self) -> u64 {
        Code::of_transactions(self.job.block_bytes).map_or(u64::MAX, |code| u64::from(code.cell))
    }

    /// Bytes of parity that would have made good what was lacking of a block that is whole now. `None` if it has no code.
    pub(super) fn parity_needed(&self) -> Option<u64> {
        let count = self.job.geometry.count();
        let lengths: Vec<u32> = self
            .job
            .transactions()
            .skip(1)
            .map(|one| one.len() as u32)
            .collect();
        let code = BodyCode::new(count, lengths.iter().sum())?;
        let mut lacked = vec![false; count as usize];
        for leaf in &self.lacked {
            if let Some(lacked) = lacked.get_mut(*leaf as usize) {
                *lacked = true;
            }
        }
        let mut at = 0;
        let places = lengths
            .iter()
            .zip(lacked.iter().skip(1))
            .filter_map(|(length, lacked)| {
                let place = at..at + length;
                at = place.end;
                lacked.then_some(place)
            });
        let cells = code.cells_of(places).len();
        Some(cells as u64 * code.symbol_len() as u64)
    }

    /// The end of the transactions which so many cells make good, if they are lacking, with a third more of them than is
    /// likely: what has to be asked for is known better once some parity is here.
    fn likely_covered_by(&self, cells: u32) -> u32 {
        let count = self.job.geometry.count();
        let expected = u64::from(self.job.expected_transaction_bytes());
        let (cell, mut left) = (self.body_cell(), i64::from(cells) * 4 / 3);
        let mut before = 0;
        for leaf in 1..count {
            // Of a chunk that nothing describes yet most may be in the cache, and none is asked for.
            let chunk = self.job.chunks.get(self.job.chunk_of(leaf) as usize);
            let described = chunk.is_some_and(|chunk| chunk.is_described());
            if !described || !matches!(self.job.leaf(leaf), Leaf::Missing) {
                continue;
            }
            // The edges of a stretch take a cell together, a transaction in it what it fills.
            let edge = if before + 1 == leaf { 0 } else { 256 };
            before = leaf;
            left -= ((expected * 256 / cell.max(1)) + edge) as i64 / 256;
            if left < 0 {
                return leaf;
            }
        }
        count
    }
}

fn hashes(tree: Tree, around: u8, level: u8, range: std::ops::Range<u32>) -> HashWant {
    HashWant {
        tree,
        short: false,
        around,
        level,
        range,
    }
}
