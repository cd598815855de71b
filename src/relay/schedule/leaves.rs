//! Who is asked for which leaf: the idle ones, and those that another peer would bring sooner.
//!
//! Sixty-four leaves are looked at together, in the words of the sets of what is missing, asked, and had by
//! each peer. So a review costs a word of each peer where something is missing, and a look at each peer for
//! every leaf that changes hands, however many leaves there are that do not.

use std::ops::Range;

use super::{Asks, JobPeers, NOBODY, PeerView, Request, extend, total};
use crate::relay::job::Job;
use crate::relay::peer::{JobPeer, Set};
use crate::time::Time;

/// Requests for transactions that a review makes, by peer.
type Orders = Vec<(u32, Vec<Range<u32>>)>;

/// A leaf that changes hands.
struct Move {
    leaf: u32,
    from: u32,
    to: u32,
}

/// A peer that could be asked, as this review sees it.
struct Bidder<'a> {
    view: PeerView,
    has: &'a Set,
    outstanding: u64,
    stalls: u32,
    /// Bytes of a transaction.
    expected: u64,
    /// Bytes that may be outstanding.
    window: u64,
    /// Whether more may be asked of it when several peers could be.
    is_open: bool,
    /// Whether it may take over from another.
    has_time: bool,
    /// Microseconds until one more transaction would be here.
    finish: u64,
    /// The same for what it would take over: the request costs it half a round trip, and what is
    /// nearly here is not asked again.
    arrival: u64,
}

impl<'a> Bidder<'a> {
    fn new(view: PeerView, peer: &'a JobPeer, expected: u64) -> Self {
        let mut bidder = Self {
            has: &peer.has,
            outstanding: u64::from(peer.outstanding),
            stalls: peer.stalls,
            expected,
            window: view.window_bytes(),
            is_open: false,
            has_time: false,
            finish: 0,
            arrival: 0,
            view,
        };
        bidder.weigh();
        bidder
    }

    /// Has so many more outstanding, or fewer.
    fn load(&mut self, change: i64) {
        self.outstanding = self.outstanding.saturating_add_signed(change);
        self.weigh();
    }

    /// Words of leaves are looked at far more often than leaves change hands: what follows from those that are
    /// outstanding is worked out once.
    fn weigh(&mut self) {
        let bytes = self.outstanding * self.expected;
        self.is_open = bytes < self.window;
        self.has_time = bytes * 2 < self.window;
        let queue = (self.outstanding + 1) * self.expected * 1_000_000;
        let round_trip = self.view.round_trip.as_micros() as u64;
        self.finish =
            (queue / self.view.rate_bytes_per_s.max(1) + round_trip / 2) << self.stalls.min(8);
        self.arrival = self.finish * 2 + round_trip;
    }

    fn word(&self, word: usize) -> u64 {
        word_of(self.has, word)
    }
}

/// Sixty-four bits of a set.
fn word_of(set: &Set, word: usize) -> u64 {
    set.as_raw_slice().get(word).copied().unwrap_or(0)
}

/// The words that hold a range of leaves.
fn words(leaves: &Range<u32>) -> Range<usize> {
    leaves.start as usize / 64..(leaves.end as usize).div_ceil(64)
}

/// The leaves of a word whose bits are set.
fn leaves_of(word: usize, mut bits: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let leaf = word as u32 * 64 + bits.trailing_zeros();
        (bits != 0).then(|| {
            bits &= bits - 1;
            leaf
        })
    })
}

/// What a word of leaves means to all bidders together.
struct Offers {
    /// A peer with room in its window has it.
    open: u64,
    /// Some peer has it.
    somebody: u64,
}

impl Offers {
    fn new(bidders: &[Bidder<'_>], word: usize) -> Self {
        let mut offers = Self {
            open: 0,
            somebody: 0,
        };
        for bidder in bidders {
            let has = bidder.word(word);
            offers.somebody |= has;
            offers.open |= if bidder.is_open { has } else { 0 };
        }
        offers
    }

    /// Leaves that may be asked for now: of whoever has them and has room, or else of the parent.
    fn askable(&self) -> u64 {
        self.open | !self.somebody
    }
}

impl Asks {
    /// Assigns idle leaves, then lets peers with time take over from the others.
    pub(super) fn review_leaves(
        &mut self,
        job: &Job,
        peers: &mut JobPeers,
        views: &[PeerView],
        parent: &PeerView,
        now: Time,
    ) {
        let moves = {
            let expected = u64::from(job.expected_transaction_bytes());
            let mut bidders: Vec<Bidder<'_>> = views
                .iter()
                .filter_map(|view| {
                    let peer = peers.get(&view.slot)?;
                    Some(Bidder::new(*view, peer, expected))
                })
                .collect();
            let mut moves = self.idle_moves(job, &mut bidders, parent, now);
            self.take_overs(job, &mut bidders, &mut moves);
            moves
        };
        let mut orders = Orders::new();
        for Move { leaf, from, to } in moves {
            self.assign(peers, leaf, (from, to), now, &mut orders);
        }
        self.send_asks(peers, orders);
    }

    /// Who is to be asked for what nobody is asked for.
    fn idle_moves(
        &self,
        job: &Job,
        bidders: &mut [Bidder<'_>],
        parent: &PeerView,
        now: Time,
    ) -> Vec<Move> {
        let blind = self.blind_deadline(parent);
        let chunks = job.chunks.len() as u32;
        let mut moves = Vec::new();
        for step in 0..chunks {
            let chunk = (self.first_chunk + step) % chunks;
            let Some(state) = job.chunks.get(chunk as usize) else {
                continue;
            };
            if state.missing == 0 || (!state.is_described() && now < blind) {
                continue;
            }
            for word in words(&job.chunk_leaves(chunk)) {
                let idle = job.missing_word(word)
                    & word_of(&self.idle, word)
                    & without_coinbase(word)
                    & self.not_spared(word, now);
                self.idle_word(word, idle, bidders, parent, &mut moves);
            }
        }
        moves
    }

    /// The leaves of a word that are not left to parity.
    fn not_spared(&self, word: usize, now: Time) -> u64 {
        let (end, until) = self.spared;
        let before = (end as usize).saturating_sub(word * 64);
        match before {
            _ if now >= until => !0,
            0 => !0,
            1..64 => !0 << before,
            _ => 0,
        }
    }

    fn idle_word(
        &self,
        word: usize,
        mut idle: u64,
        bidders: &mut [Bidder<'_>],
        parent: &PeerView,
        moves: &mut Vec<Move>,
    ) {
        if idle == 0 {
            return;
        }
        let sole = bidders.len() == 1;
        let mut offers = Offers::new(bidders, word);
        loop {
            let askable = if sole { idle } else { idle & offers.askable() };
            if askable == 0 {
                return;
            }
            let bit = askable & askable.wrapping_neg();
            idle &= !bit;
            let leaf = word as u32 * 64 + bit.trailing_zeros();
            let nobody_has = sole || offers.somebody & bit == 0;
            let chosen = bidders
                .iter_mut()
                .filter(|bidder| match nobody_has {
                    true => bidder.view.slot == parent.slot,
                    false => bidder.is_open && bidder.word(word) & bit != 0,
                })
                .min_by_key(|bidder| (bidder.finish, bidder.view.slot));
            let Some(chosen) = chosen else { continue };
            chosen.load(1);
            let closed = !chosen.is_open;
            moves.push(Move {
                leaf,
                from: NOBODY,
                to: chosen.view.slot,
            });
            if closed {
                offers = Offers::new(bidders, word);
            }
        }
    }

    /// Which leaves a peer with time to spare is to take over from the one that is asked.
    fn take_overs(&self, job: &Job, bidders: &mut [Bidder<'_>], moves: &mut Vec<Move>) {
        if bidders.len() < 2 {
            return;
        }
        for holder in 0..bidders.len() {
            let Some(asked) = bidders
                .get(holder)
                .and_then(|bidder| self.asked.get(&bidder.view.slot))
            else {
                continue;
            };
            let mut others = bidders.iter().enumerate();
            if !others.any(|(index, other)| index != holder && other.has_time) {
                continue;
            }
            for word in 0..asked.as_raw_slice().len() {
                let mut rest =
                    word_of(asked, word) & job.missing_word(word) & without_coinbase(word);
                while rest != 0 {
                    let Some((bit, winner)) = best_take_over(bidders, holder, word, rest) else {
                        break;
                    };
                    rest &= !bit;
                    let mut slot_of = |index: usize, change: i64| {
                        let bidder = bidders.get_mut(index)?;
                        bidder.load(change);
                        Some(bidder.view.slot)
                    };
                    if let (Some(from), Some(to)) = (slot_of(holder, -1), slot_of(winner, 1)) {
                        let leaf = word as u32 * 64 + bit.trailing_zeros();
                        moves.push(Move { leaf, from, to });
                    }
                }
            }
        }
    }

    /// Hands a leaf from one peer, or nobody, to another.
    pub(super) fn assign(
        &mut self,
        peers: &mut JobPeers,
        leaf: u32,
        (from, to): (u32, u32),
        now: Time,
        orders: &mut Orders,
    ) {
        if from != NOBODY
            && let Some(loser) = peers.get_mut(&from)
        {
            loser.outstanding = loser.outstanding.saturating_sub(1);
            match loser.requests.back_mut() {
                Some(Request::Cancel(ranges)) => extend(ranges, leaf),
                _ => {
                    let only = leaf..leaf + 1;
                    loser.requests.push_back(Request::Cancel(vec![only]));
                }
            }
        }
        self.place(leaf, to);
        if let Some(winner) = peers.get_mut(&to) {
            if winner.outstanding == 0 {
                winner.last_progress = now;
            }
            winner.outstanding += 1;
            winner.was_asked = true;
        }
        match orders.iter_mut().find(|(slot, _)| *slot == to) {
            Some((_, ranges)) => extend(ranges, leaf),
            None => {
                let only = leaf..leaf + 1;
                orders.push((to, vec![only]));
            }
        }
    }

    pub(super) fn send_asks(&mut self, peers: &mut JobPeers, orders: Orders) {
        for (slot, ranges) in orders {
            if let Some(peer) = peers.get_mut(&slot) {
                self.requests += 1;
                peer.requests.push_back(Request::Transactions(ranges));
            }
        }
    }

    /// Notes who is asked for a leaf. Gives who was.
    pub(super) fn place(&mut self, leaf: u32, slot: u32) -> u32 {
        let Some(place) = self.leaf_slots.get_mut(leaf as usize) else {
            return NOBODY;
        };
        let before = std::mem::replace(place, slot);
        if before == slot {
            return before;
        }
        if let Some(set) = self.asked.get_mut(&before) {
            set.set(leaf as usize, false);
        }
        if slot != NOBODY {
            let leaves = self.leaf_slots.len();
            let set = self.asked.entry(slot);
            let set = set.or_insert_with(|| Set::repeat(false, leaves));
            set.set(leaf as usize, true);
        }
        self.idle.set(leaf as usize, slot == NOBODY);
        before
    }

    /// Takes what a peer was asked for back from it, as far as `which` has it.
    pub(super) fn take_back(&mut self, slot: u32, which: impl Fn(usize) -> u64) -> Vec<Range<u32>> {
        let mut taken = Vec::new();
        let Some(asked) = self.asked.get(&slot) else {
            return taken;
        };
        for word in 0..asked.as_raw_slice().len() {
            for leaf in leaves_of(word, word_of(asked, word) & which(word)) {
                extend(&mut taken, leaf);
            }
        }
        taken.iter().cloned().flatten().for_each(|leaf| {
            self.place(leaf, NOBODY);
        });
        debug_assert!(total(&taken) as usize <= self.leaf_slots.len());
        taken
    }
}

/// All leaves of a word but leaf 0, which is asked for with the anchor.
pub(super) fn without_coinbase(word: usize) -> u64 {
    if word == 0 { !1 } else { !0 }
}

/// The first of these leaves of a holder that another peer would bring sooner, and that peer.
fn best_take_over(
    bidders: &[Bidder<'_>],
    holder: usize,
    word: usize,
    rest: u64,
) -> Option<(u64, usize)> {
    let current = bidders.get(holder)?;
    let finish = current.finish;
    // A holder that has not got it waits for it itself: what is known to lie elsewhere comes sooner from there.
    let slow = !current.word(word);
    let wins = |bidder: &Bidder<'_>| {
        let reach = if bidder.arrival < finish { !0 } else { slow };
        bidder.word(word) & reach & rest
    };
    let others = || {
        let others = bidders.iter().enumerate();
        others.filter(|(index, bidder)| *index != holder && bidder.has_time)
    };
    let all = others().fold(0, |bits, (_, bidder)| bits | wins(bidder));
    if all == 0 {
        return None;
    }
    let bit = all & all.wrapping_neg();
    others()
        .filter(|(_, bidder)| wins(bidder) & bit != 0)
        .min_by_key(|(_, bidder)| (bidder.finish, bidder.view.slot))
        .map(|(index, _)| (bit, index))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::merkle::Geometry;
    use crate::relay::event::Source;
    use crate::relay::job::JobStart;

    const LEAVES: u32 = 1_000;

    struct Board {
        job: Job,
        asks: Asks,
        peers: JobPeers,
        views: Vec<PeerView>,
        now: Time,
    }

    /// A job of which nothing is known, with peers that have what `has` says. The first is the parent.
    fn board(has: &[&[Range<u32>]]) -> Board {
        let now = Time::from_unix_seconds(1_000);
        let job = Job::new(JobStart {
            hash: [1; 32],
            header: [0; 80],
            height: 1,
            segwit_active: true,
            geometry: Geometry::new(LEAVES).unwrap(),
            block_bytes: LEAVES * 500,
            max_block_bytes: 4_000_000,
            counted_by: Source::Local,
            opened: now,
        });
        let mut asks = Asks::new(&job, 0, now);
        asks.cold = true;
        let mut peers = JobPeers::new();
        for (slot, ranges) in (0..).zip(has) {
            let mut peer = JobPeer::new(LEAVES, job.chunks.len() as u32, now);
            for range in *ranges {
                peer.note_has(range.clone());
            }
            peers.insert(slot, peer);
        }
        let views = (0..has.len() as u32).map(|slot| PeerView {
            slot,
            round_trip: Duration::from_millis(20),
            rate_bytes_per_s: 1_000_000,
            eager: false,
        });
        Board {
            views: views.collect(),
            job,
            asks,
            peers,
            now,
        }
    }

    impl Board {
        fn review(&mut self) {
            let parent = self.views[0];
            let later = self.now + Duration::from_secs(1);
            let (asks, peers) = (&mut self.asks, &mut self.peers);
            asks.review_leaves(&self.job, peers, &self.views, &parent, later);
        }

        /// Leaves asked of each peer; the sets, the counters and the places must agree.
        fn asked(&self) -> Vec<u32> {
            let counts = self.views.iter().map(|view| {
                let places = self.asks.leaf_slots.iter();
                let count = places.filter(|slot| **slot == view.slot).count() as u32;
                let set = self.asks.asked.get(&view.slot);
                assert_eq!(set.map_or(0, |set| set.count_ones() as u32), count);
                assert_eq!(self.peers[&view.slot].outstanding, count);
                count
            });
            let counts: Vec<u32> = counts.collect();
            let idle = self.asks.idle.count_ones() as u32;
            assert_eq!(counts.iter().sum::<u32>() + idle, LEAVES);
            counts
        }
    }

    #[test]
    fn what_nobody_has_is_wanted_of_the_parent() {
        let mut board = board(&[&[], &[]]);
        board.review();
        // The coinbase is asked for with the anchor.
        assert_eq!(board.asked(), [LEAVES - 1, 0]);
    }

    #[test]
    fn what_several_have_is_spread_within_their_windows() {
        let mut board = board(&[&[0..LEAVES], &[0..LEAVES], &[0..100]]);
        board.review();
        let asked = board.asked();
        let window = board.views[0].window_bytes() / 500;
        assert!(asked.iter().all(|count| u64::from(*count) <= window + 1));
        assert_eq!(u64::from(asked[0]), window + 1);
        assert!(asked[2] > 20);
        // The third, which has little, takes something over; then nothing changes any more.
        (0..5).for_each(|_| board.review());
        let settled = board.asked();
        assert!(settled[2] > asked[2]);
        for _ in 0..3 {
            board.review();
            assert_eq!(board.asked(), settled);
        }
    }

    #[test]
    fn who_has_a_leaf_and_time_takes_it_over_from_who_waits_for_it() {
        let mut board = board(&[&[], &[]]);
        board.review();
        let second = board.peers.get_mut(&1).unwrap();
        second.note_has(300..330);
        board.review();
        assert_eq!(board.asked(), [LEAVES - 31, 30]);
        assert!((300..330).all(|leaf| board.asks.is_asked(leaf, 1)));
        let cancel = Request::Cancel(std::iter::once(300..330).collect());
        assert_eq!(board.peers[&0].requests.back(), Some(&cancel));
        board.asks.peer_gone(1);
        board.peers.remove(&1);
        board.views.pop();
        board.review();
        assert_eq!(board.asked(), [LEAVES - 1]);
    }
}
