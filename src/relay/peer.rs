//! One peer in one job: what it has, what it wants, what it is asked for, what it was told.
//!
//! Every leaf is, towards one peer, in at most one of these: wanted (the peer asked, it is not verified
//! here yet), ready (asked and verified, waiting for its turn to be sent), or neither. A want stands until
//! it is served, cancelled, or the job is closed.

use std::collections::VecDeque;
use std::ops::Range;

use bitvec::prelude::{BitVec, Lsb0};

use super::parity::ParityPush;
use super::parity::flight::Flight;
use crate::time::Time;
use crate::wire::Tree;

/// A set of leaves or chunks.
pub(crate) type Set = BitVec<u64, Lsb0>;

/// Most requests for hashes that stand for one peer in one job.
///
/// A cold peer asks a row under each chunk and its short ids: twice the 131 chunks of Bitcoin's largest
/// block, and as much again for repeated and overlapping requests.
pub(crate) const MAX_HASH_WANTS: usize = 512;

/// How often over a peer may be served a block's transactions, in blocks.
///
/// Lost datagrams are repeated without being asked for, so an honest peer asks twice at the most: after a
/// change of mind, and after its connection moved to TCP.
pub(crate) const MAX_SERVED_BLOCKS: u64 = 4;

/// Nodes of a tree, all of one level, that are asked for or sent around ancestors of one level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HashWant {
    /// Which of the two trees.
    pub tree: Tree,
    /// As short ids (leaves of the witness tree, whole chunks only).
    pub short: bool,
    /// Level of the ancestors that the asker has verified.
    pub around: u8,
    /// Level of the nodes.
    pub level: u8,
    /// Their indices.
    pub range: Range<u32>,
}

/// A request on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// GET_HASHES.
    Hashes(HashWant),
    /// GET_TXS for these leaves.
    Transactions(Vec<Range<u32>>),
    /// CANCEL of transactions.
    Cancel(Vec<Range<u32>>),
}

/// One peer in one job.
#[derive(Debug)]
pub(crate) struct JobPeer {
    /// The id that the peer assigned, once it opened the job to us.
    pub their_id: Option<u16>,
    /// OPEN_JOB went to the peer.
    pub told: bool,
    /// OPEN_JOB waits until the peer has room for another job.
    pub waits: bool,
    /// When the peer opened the job to us.
    pub opened_at: Option<Time>,
    /// The count of transactions that the peer claims.
    pub claimed_count: Option<u32>,
    /// The size of the block that the peer claims.
    pub claimed_bytes: u32,
    /// The salt of the peer's short ids.
    pub nonce: u64,

    /// Transactions that the peer says it has verified.
    pub has: Set,
    /// Chunks whose leaf hashes the peer says it has verified.
    pub has_hashes: Set,
    /// How many bits of `has` are set.
    pub has_count: u32,
    /// The two sets for the count that the peer claims, while another is tried: it has been acknowledged, and is not
    /// said again.
    pub kept: Option<(Set, Set)>,

    /// Transactions that the peer wants and that are not verified here.
    pub wanted: Set,
    /// Transactions in `ready`.
    pub queued: Set,
    /// Transactions to send, in order; those no longer in `queued` are skipped.
    pub ready: VecDeque<Range<u32>>,
    /// The next cell of the transaction at the front of `ready`, when it goes in parts.
    pub cell: u32,
    /// The chunk that is being sent, as long as anything of it is to be.
    pub picked: Option<u32>,
    /// Transaction bytes sent to the peer in this job.
    pub served_bytes: u64,
    /// Parts of transactions that were lost on their way, in cells.
    pub lost_parts: VecDeque<(u32, Range<u32>)>,
    /// Hashes that the peer wants.
    pub wanted_hashes: VecDeque<HashWant>,
    /// None of `wanted_hashes` could be served when they were last looked at.
    pub hashes_blocked: bool,
    /// OPEN_JOB is to go by UDP.
    pub open_pending: bool,
    /// The coinbase is to go with the first flight.
    pub push_coinbase: bool,
    /// Hashes of the first flight still to send.
    pub push: VecDeque<HashWant>,
    /// Parity of the first flight that is still to go.
    pub flight_parity: Option<ParityPush>,
    /// Parity of the transactions that is still to go.
    pub body_parity: Option<ParityPush>,
    /// All transactions are pushed to the peer: it takes a whole block unasked.
    pub takes_all: bool,

    /// Transactions verified here of which the peer has not been told in any JOB_STATE that it has
    /// acknowledged: the draft's `unacknowledged_runs`.
    pub unacknowledged: Set,
    /// The same for the leaf hashes of chunks.
    pub unacknowledged_hashes: Set,
    /// Whether anything is in the two sets.
    pub unacknowledged_any: bool,
    /// Something was added to the two sets since the last JOB_STATE.
    pub state_news: bool,
    /// When the last JOB_STATE went out.
    pub state_sent: Option<Time>,
    /// JOB_STATEs in a row without any acknowledgement.
    pub state_tries: u32,

    /// Requests to send.
    pub requests: VecDeque<Request>,
    /// Transactions asked of the peer and not yet here.
    pub outstanding: u32,
    /// When anything asked for came from the peer, or it was first asked.
    pub last_progress: Time,
    /// Stalls in a row.
    pub stalls: u32,
    /// It was asked for transactions in this job: what comes late from it is still taken.
    pub was_asked: bool,
    /// It was asked for full first flights when it opened the job.
    pub pushed_to_us: bool,
    /// Bytes beyond the hashes that it may push.
    pub granted_bytes: u64,
    /// What it pushed of its first flight, and parity of that.
    pub flight: Option<Box<Flight>>,
    /// The peer says that it has the whole block.
    pub claims_all: bool,
    /// Since when parts of one transaction have been all that came of it.
    pub parts_since: Option<Time>,
    /// It said MISSING: nothing is asked of it until then.
    pub paused_until: Option<Time>,
    /// It closed the job.
    pub closed: bool,
}

impl JobPeer {
    /// A peer of which nothing is known yet, in a job of this shape.
    pub fn new(leaves: u32, chunks: u32, now: Time) -> Self {
        let leaf_set = || Set::repeat(false, leaves as usize);
        let chunk_set = || Set::repeat(false, chunks as usize);
        Self {
            their_id: None,
            told: false,
            waits: false,
            opened_at: None,
            claimed_count: None,
            claimed_bytes: 0,
            nonce: 0,
            has: leaf_set(),
            has_hashes: chunk_set(),
            has_count: 0,
            kept: None,
            wanted: leaf_set(),
            queued: leaf_set(),
            ready: VecDeque::new(),
            cell: 0,
            picked: None,
            served_bytes: 0,
            lost_parts: VecDeque::new(),
            wanted_hashes: VecDeque::new(),
            hashes_blocked: false,
            open_pending: false,
            push_coinbase: false,
            push: VecDeque::new(),
            flight_parity: None,
            body_parity: None,
            takes_all: false,
            unacknowledged: leaf_set(),
            unacknowledged_hashes: chunk_set(),
            unacknowledged_any: false,
            state_news: false,
            state_sent: None,
            state_tries: 0,
            requests: VecDeque::new(),
            outstanding: 0,
            last_progress: now,
            stalls: 0,
            was_asked: false,
            pushed_to_us: false,
            granted_bytes: 0,
            flight: None,
            claims_all: false,
            parts_since: None,
            paused_until: None,
            closed: false,
        }
    }

    /// Whether the peer claims another count of transactions than this one.
    pub fn claims_other(&self, count: u32) -> bool {
        self.claimed_count.is_some_and(|claimed| claimed != count)
    }

    /// Whether the peer knows of the job, so that messages about it make sense to it.
    pub fn is_aware(&self) -> bool {
        self.told || self.their_id.is_some()
    }

    /// Whether the peer says it has all transactions.
    pub fn has_all(&self) -> bool {
        self.has_count as usize == self.has.len()
    }

    /// Whether the peer says it has this transaction.
    pub fn has_leaf(&self, leaf: u32) -> bool {
        self.has.get(leaf as usize).is_some_and(|bit| *bit)
    }

    /// Whether the peer asked for this transaction and has not got it yet.
    pub fn waits_for(&self, leaf: u32) -> bool {
        let sets = [&self.wanted, &self.queued].into_iter();
        sets.filter_map(|set| set.get(leaf as usize))
            .any(|bit| *bit)
    }

    /// Notes that the peer says it has these transactions. Gives how many of them are new.
    pub fn note_has(&mut self, range: Range<u32>) -> u32 {
        let range = range.start as usize..(range.end as usize).min(self.has.len());
        let Some(bits) = self.has.get_mut(range) else {
            return 0;
        };
        let new = bits.count_zeros() as u32;
        bits.fill(true);
        self.has_count += new;
        new
    }

    /// Takes over from itself under another count what it said it has, or keeps that for when its own is tried again.
    pub fn take_kept(&mut self, old: &mut Self, old_count: u32) {
        let of_claim = old.claimed_count == Some(old_count);
        let kept = match of_claim {
            true => Some((
                std::mem::take(&mut old.has),
                std::mem::take(&mut old.has_hashes),
            )),
            false => old.kept.take(),
        };
        match kept {
            Some((has, has_hashes))
                if self.claimed_count == Some(self.has.len() as u32)
                    && has.len() == self.has.len() =>
            {
                self.has_count = has.count_ones() as u32;
                self.has = has;
                self.has_hashes = has_hashes;
            }
            kept => self.kept = kept,
        }
    }

    /// Notes that the peer says it does not have these transactions.
    pub fn note_lacks(&mut self, range: Range<u32>) {
        let range = range.start as usize..(range.end as usize).min(self.has.len());
        if let Some(bits) = self.has.get_mut(range) {
            self.has_count -= bits.count_ones() as u32;
            bits.fill(false);
            self.claims_all = false;
        }
    }

    /// Takes a want for a transaction: ready at once if it is verified here.
    pub fn want(&mut self, leaf: u32, verified: bool) {
        let position = leaf as usize;
        if position >= self.queued.len() || self.queued[position] {
            return;
        }
        if verified {
            self.wanted.set(position, false);
            self.queued.set(position, true);
            match self.ready.back_mut() {
                Some(last) if last.end == leaf => last.end += 1,
                _ => self.ready.push_back(leaf..leaf + 1),
            }
            self.pack_ready();
        } else {
            self.wanted.set(position, true);
        }
    }

    /// A transaction was verified here: a standing want becomes ready.
    pub fn leaf_verified(&mut self, leaf: u32) {
        if self.wanted.get(leaf as usize).is_some_and(|bit| *bit) {
            self.want(leaf, true);
        }
    }

    /// Takes a want for hashes. False if too many stand already.
    pub fn want_hashes(&mut self, want: HashWant) -> bool {
        if self.wanted_hashes.contains(&want) {
            return true;
        }
        if self.wanted_hashes.len() >= MAX_HASH_WANTS {
            return false;
        }
        self.wanted_hashes.push_back(want);
        self.hashes_blocked = false;
        true
    }

    /// Withdraws those wants for hashes of a level whose nodes all lie in the range.
    pub fn cancel_hashes(&mut self, tree: Tree, level: u8, range: &Range<u32>) {
        self.wanted_hashes.retain(|want| {
            let covered = range.start <= want.range.start && want.range.end <= range.end;
            !(want.tree == tree && want.level == level && covered)
        });
    }

    /// Whether it pushes all transactions of a block of this size to us.
    pub fn pushes_all(&self, block_bytes: u32) -> bool {
        self.pushed_to_us && self.granted_bytes >= u64::from(block_bytes)
    }

    /// Drops what would go to the peer unasked.
    pub fn stop_pushing(&mut self) {
        self.push.clear();
        self.push_coinbase = false;
        self.flight_parity = None;
        self.body_parity = None;
        if std::mem::take(&mut self.takes_all) {
            self.wanted.fill(false);
            self.queued.fill(false);
            self.ready.clear();
            self.cell = 0;
        }
    }

    /// Stops everything that goes to or is asked of the peer in this job.
    pub fn close(&mut self) {
        self.closed = true;
        self.wanted.fill(false);
        self.queued.fill(false);
        self.ready.clear();
        self.cell = 0;
        self.lost_parts.clear();
        self.wanted_hashes.clear();
        self.stop_pushing();
        self.flight = None;
        self.open_pending = false;
        self.requests.clear();
        self.unacknowledged.fill(false);
        self.unacknowledged_hashes.fill(false);
        self.unacknowledged_any = false;
        self.state_news = false;
        self.outstanding = 0;
    }

    /// Withdraws wants.
    pub fn cancel(&mut self, range: Range<u32>) {
        let range = range.start as usize..(range.end as usize).min(self.wanted.len());
        if let Some(bits) = self.wanted.get_mut(range.clone()) {
            bits.fill(false);
        }
        if let Some(bits) = self.queued.get_mut(range) {
            bits.fill(false);
        }
        // What was wanted and cancelled over and over must not pile up.
        if self.ready.len() > self.queued.len() {
            self.ready = ranges(&self.queued).collect();
            self.cell = 0;
        }
    }

    /// The next transaction to send, if any.
    pub fn next_ready(&mut self) -> Option<u32> {
        loop {
            let front = self.ready.front_mut()?;
            if front.start >= front.end {
                self.ready.pop_front();
                continue;
            }
            if self
                .queued
                .get(front.start as usize)
                .is_some_and(|bit| *bit)
            {
                return Some(front.start);
            }
            front.start += 1;
            self.cell = 0;
        }
    }

    /// The transaction that [`Self::next_ready`] named was sent whole.
    pub fn ready_sent(&mut self) {
        if let Some(front) = self.ready.front_mut() {
            if let Some(mut bit) = self.queued.get_mut(front.start as usize) {
                bit.set(false);
            }
            front.start += 1;
            // Used up, it would lie behind whatever is sent again, and more with each loss.
            if front.start >= front.end {
                self.ready.pop_front();
            }
        }
        self.cell = 0;
    }

    /// A chunk is begun; its transactions are `leaves` if they are not in front already.
    pub fn pick(&mut self, chunk: u32, leaves: Option<Range<u32>>) {
        self.picked = Some(chunk);
        if let Some(leaves) = leaves {
            self.ready.push_front(leaves);
            self.pack_ready();
        }
    }

    /// Puts a transaction at the head of what is to be sent: it was lost on its way.
    pub fn resend(&mut self, leaf: u32) {
        let position = leaf as usize;
        if position < self.queued.len() && !self.queued[position] {
            self.queued.set(position, true);
            // Behind the transaction that goes out in parts, so that its cell count stays its own.
            if self.cell > 0 && !self.ready.is_empty() {
                let front = self.ready.pop_front();
                self.ready.push_front(leaf..leaf + 1);
                if let Some(mut front) = front {
                    let first = front.start..front.start + 1;
                    front.start += 1;
                    if !front.is_empty() {
                        self.ready.insert(1, front);
                    }
                    self.ready.push_front(first);
                }
            } else {
                self.ready.push_front(leaf..leaf + 1);
            }
            self.pack_ready();
        }
    }

    /// Makes the stretches of what is to be sent anew once they are more than there are transactions: some hold nothing
    /// that is queued any longer. The transaction that goes out in parts stays in front.
    fn pack_ready(&mut self) {
        if self.ready.len() <= self.queued.len() {
            return;
        }
        let first = self.ready.front().map(|front| front.start);
        let first = first.filter(|_| self.cell > 0);
        let others = ranges(&self.queued).flat_map(|range| match first {
            Some(first) if range.contains(&first) => [range.start..first, first + 1..range.end],
            _ => [range, 0..0],
        });
        let front = first.map(|first| first..first + 1);
        let all = front.into_iter().chain(others);
        self.ready = all.filter(|range| range.start < range.end).collect();
    }

    /// Notes that a transaction is verified here, for the next JOB_STATE, unless the peer has it.
    pub fn announce_leaf(&mut self, leaf: u32) {
        if !self.has_leaf(leaf)
            && let Some(mut bit) = self.unacknowledged.get_mut(leaf as usize)
        {
            bit.set(true);
            self.unacknowledged_any = true;
            self.state_news = true;
        }
    }

    /// Notes that the leaf hashes of a chunk are verified here, for the next JOB_STATE.
    pub fn announce_hashes(&mut self, chunk: u32) {
        let known = self.has_hashes.get(chunk as usize).is_some_and(|bit| *bit);
        if !known && let Some(mut bit) = self.unacknowledged_hashes.get_mut(chunk as usize) {
            bit.set(true);
            self.unacknowledged_any = true;
            self.state_news = true;
        }
    }

    /// Whether some of what is verified here is not acknowledged by the peer.
    pub fn has_unacknowledged(&self) -> bool {
        self.unacknowledged_any
    }

    /// Something was taken out of the sets of what is not acknowledged.
    pub fn note_acknowledged(&mut self) {
        self.unacknowledged_any = self.unacknowledged.any() || self.unacknowledged_hashes.any();
    }

    /// Whether there may be something to write for the peer now, JOB_STATE apart.
    pub fn may_send(&self) -> bool {
        self.open_pending
            || self.push_coinbase
            || !(self.push.is_empty() && self.requests.is_empty())
            || self.flight_parity.is_some()
            || self.body_parity.is_some()
            || !(self.lost_parts.is_empty() && self.ready.is_empty())
            || (!self.hashes_blocked && !self.wanted_hashes.is_empty())
    }
}

/// The runs of ones in a set, as ranges.
pub(crate) fn ranges(set: &Set) -> impl Iterator<Item = Range<u32>> + '_ {
    let mut from = 0;
    std::iter::from_fn(move || {
        let rest = set.get(from..)?;
        let start = from + rest.first_one()?;
        let end = match set.get(start..)?.first_zero() {
            Some(length) => start + length,
            None => set.len(),
        };
        from = end;
        Some(start as u32..end as u32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> JobPeer {
        JobPeer::new(300, 3, Time::ZERO)
    }

    #[test]
    fn a_want_stands_until_the_leaf_is_verified() {
        let mut peer = peer();
        peer.want(7, false);
        peer.want(8, false);
        assert_eq!(peer.next_ready(), None);
        peer.leaf_verified(8);
        peer.leaf_verified(9);
        assert_eq!(peer.next_ready(), Some(8));
        peer.ready_sent();
        assert_eq!(peer.next_ready(), None);
        peer.cancel(0..300);
        peer.leaf_verified(7);
        assert_eq!(peer.next_ready(), None);
    }

    #[test]
    fn a_lost_transaction_goes_first_but_not_into_the_middle_of_another() {
        let mut peer = peer();
        (10..13).for_each(|leaf| peer.want(leaf, true));
        assert_eq!(peer.next_ready(), Some(10));
        peer.cell = 3;
        peer.resend(4);
        assert_eq!(peer.next_ready(), Some(10));
        assert_eq!(peer.cell, 3);
        let mut order = Vec::new();
        while let Some(leaf) = peer.next_ready() {
            order.push(leaf);
            peer.ready_sent();
        }
        assert_eq!(order, [10, 4, 11, 12]);
    }

    #[test]
    fn a_chunk_that_is_picked_goes_first_and_once() {
        let mut peer = peer();
        (120..260).for_each(|leaf| peer.want(leaf, true));
        peer.pick(1, Some(128..256));
        let mut order = Vec::new();
        while let Some(leaf) = peer.next_ready() {
            order.push(leaf);
            peer.ready_sent();
        }
        assert!(
            order
                .iter()
                .copied()
                .eq((128..256).chain(120..128).chain(256..260))
        );
    }

    #[test]
    fn ranges_are_the_runs_of_ones() {
        let mut set = Set::repeat(false, 70);
        for bit in [0, 1, 5, 63, 64, 69] {
            set.set(bit, true);
        }
        assert_eq!(
            ranges(&set).collect::<Vec<_>>(),
            [0..2, 5..6, 63..65, 69..70]
        );
        assert_eq!(ranges(&Set::repeat(false, 9)).count(), 0);
        assert!(ranges(&Set::repeat(true, 9)).eq(std::iter::once(0..9)));
    }

    /// As where every datagram is lost before the next thing to send is looked for.
    #[test]
    fn what_is_sent_again_and_again_piles_nothing_up() {
        let mut peer = peer();
        for leaf in [7, 9] {
            peer.want(leaf, true);
        }
        for _ in 0..50 {
            assert_eq!(peer.next_ready(), Some(7));
            peer.ready_sent();
            peer.resend(7);
        }
        assert_eq!(peer.ready.len(), 2);
    }
}
