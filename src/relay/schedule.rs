//! Who is asked for what.
//!
//! A leaf that is neither held nor verified is in exactly one state: asked of one peer, or idle. It is asked
//!
//! - of a peer that says it has the transaction: the one expected to deliver first, while its window lasts;
//! - if nobody says so: of the *parent*, the first peer that opened the job to us, as a standing want. Parents
//!   were in the job before us, so standing wants never form a circle.
//!
//! A peer that has time takes over what is still outstanding at a slower or silent one (work stealing); that
//! bounds duplicates to what was already under way when the CANCEL went out. There is no coarse
//! retransmission timer: lost datagrams are noticed by their sender (see `loss`), and this schedule only
//! moves wants between peers.

mod anchor;
mod choose;
mod chunks;
mod leaves;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::job::{Job, chunk_level};
use super::peer::{HashWant, JobPeer, Request, Set};
use crate::merkle::{Geometry, Node};
use crate::time::Time;
use crate::wire::Tree;

use choose::{next_view, parent};
use leaves::without_coinbase;

/// No peer.
const NOBODY: u32 = u32::MAX;

/// The least time after which something asked for counts as late: twice what schedulers and timers of an
/// ordinary host add.
const PATIENCE: Duration = Duration::from_millis(30);

/// How long a cache that is not known to be cold waits for a chunk's description before its transactions are
/// asked for all the same: ten times what is added to a round trip otherwise.
const BLIND_PATIENCE: Duration = Duration::from_millis(300);

/// The longest time between two requests for the same hashes.
const MAX_PATIENCE: Duration = Duration::from_secs(5);

/// Transactions outstanding at one peer, in bytes, when several peers have what is asked for: with 64 KiB the
/// others still get a share of a small block; more is allowed as rate times round trip demands.
const MIN_WINDOW_BYTES: u64 = 64 * 1024;

/// Missing bytes of a chunk from which on its inner row is asked for, so that parts of it can be verified
/// and passed on one by one: 16 kB take 2.6 ms at 50 Mbit/s, the row costs 512 bytes.
const ROW_FROM_BYTES: u32 = 16 * 1024;

/// Bytes of transactions under one node of that row.
const ROW_GRAIN_BYTES: u32 = 8 * 1024;

/// Most requests for hashes outstanding in one job: two for each chunk of Bitcoin's largest block, and
/// what contradictions add.
const MAX_HASH_ASKS: usize = 400;

/// What the schedule knows of a peer besides its part in the job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerView {
    /// Slot of the session.
    pub slot: u32,
    /// Smoothed round-trip time.
    pub round_trip: Duration,
    /// Rate at which data has been arriving from the peer, bytes per second.
    pub rate_bytes_per_s: u64,
    /// We asked it for full first flights.
    pub eager: bool,
}

impl PeerView {
    fn patience(&self) -> Duration {
        self.round_trip * 2 + PATIENCE
    }

    fn window_bytes(&self) -> u64 {
        let product = self.rate_bytes_per_s as f64 * self.round_trip.as_secs_f64();
        MIN_WINDOW_BYTES.max((product * 2.0) as u64)
    }
}

/// A request for hashes, until what it asks for is here.
#[derive(Clone, Debug)]
struct HashAsk {
    want: HashWant,
    slot: u32,
    asked: Time,
    tries: u32,
    /// The first of its nodes that was not here when it was last looked at.
    next: u32,
}

/// What is asked for in one job.
#[derive(Debug)]
pub(crate) struct Asks {
    /// Who is asked for each leaf, [`NOBODY`] if it is idle.
    leaf_slots: Vec<u32>,
    /// The idle leaves.
    idle: Set,
    /// The leaves that each peer is asked for.
    asked: BTreeMap<u32, Set>,
    hashes: Vec<HashAsk>,
    rows_asked: Vec<bool>,
    /// The chunk at which this node begins, so that nodes ask for different chunks first.
    first_chunk: u32,
    /// When anything of a first flight came last.
    pub last_flight: Time,
    /// Something has changed that may call for requests.
    pub dirty: bool,
    next_review: Option<Time>,
    /// Peers that did not deliver what they claimed: their sessions pay for it.
    pub withheld: Vec<u32>,
    /// Requests made.
    pub requests: u64,
    /// The cache cannot hold much of the block: there is no use in waiting for short ids.
    pub cold: bool,
    /// When the coinbase was last asked for, and how often.
    coinbase: Option<(Time, u32)>,
    coinbase_slot: u32,
    /// Transactions before this one are left to parity until then.
    spared: (u32, Time),
}

/// The peers of a job, by the slots of their sessions.
pub(crate) type JobPeers = std::collections::BTreeMap<u32, JobPeer>;

impl Asks {
    /// Nothing asked yet. `draw` decides where this node begins.
    pub fn new(job: &Job, draw: u32, now: Time) -> Self {
        let chunks = job.chunks.len() as u32;
        Self {
            leaf_slots: vec![NOBODY; job.geometry.count() as usize],
            idle: Set::repeat(true, job.geometry.count() as usize),
            asked: BTreeMap::new(),
            hashes: Vec::new(),
            rows_asked: vec![false; chunks as usize],
            first_chunk: draw % chunks.max(1),
            last_flight: now,
            dirty: true,
            next_review: None,
            withheld: Vec::new(),
            requests: 0,
            cold: false,
            coinbase: None,
            coinbase_slot: NOBODY,
            spared: (0, now),
        }
    }

    /// How many requests for hashes are under way.
    pub fn hash_asks(&self) -> usize {
        self.hashes.len()
    }

    /// When the schedule wants to look again although nothing has come.
    pub fn deadline(&self) -> Option<Time> {
        self.next_review
    }

    /// Leaves transactions before `end` to parity until then.
    pub fn spare(&mut self, end: u32, until: Time) {
        self.spared = (end, until);
    }

    /// A peer pushes everything: it counts as asked for it, and for nothing else is anybody asked while that goes on.
    pub fn expect_all(&mut self, job: &Job, slot: u32, peer: &mut JobPeer, now: Time) {
        self.cold = true;
        self.rows_asked.fill(true);
        for leaf in 1..job.geometry.count() {
            let free = self.idle.get(leaf as usize).is_some_and(|bit| *bit);
            if free && matches!(job.leaf(leaf), super::job::Leaf::Missing) {
                self.place(leaf, slot);
                peer.outstanding += 1;
            }
        }
        peer.was_asked = true;
        peer.last_progress = now;
    }

    /// A transaction is here: nobody is asked for it any longer. Gives the slot that was.
    pub fn leaf_arrived(&mut self, leaf: u32) -> Option<u32> {
        let asked = self.place(leaf, NOBODY);
        (asked != NOBODY).then_some(asked)
    }

    /// Whether this peer is asked for the transaction.
    pub fn is_asked(&self, leaf: u32, slot: u32) -> bool {
        self.leaf_slots.get(leaf as usize) == Some(&slot)
    }

    /// A peer has left: what it was asked for is idle again.
    pub fn peer_gone(&mut self, slot: u32) {
        self.take_back(slot, |_| !0);
        self.asked.remove(&slot);
        for ask in self.hashes.iter_mut().filter(|ask| ask.slot == slot) {
            ask.slot = NOBODY;
        }
        self.dirty = true;
    }

    /// What a peer is still asked for; from now on it is not.
    pub fn take_outstanding(&mut self, slot: u32) -> Vec<Range<u32>> {
        self.take_back(slot, |_| !0)
    }

    /// What of a lost request is still to be said to this peer.
    pub fn still_wanted(&self, job: &Job, slot: u32, request: Request) -> Option<Request> {
        match request {
            Request::Hashes(want) => {
                let open = self
                    .hashes
                    .iter()
                    .any(|ask| ask.want == want && ask.slot == slot);
                (open && !is_satisfied(job, &want)).then_some(Request::Hashes(want))
            }
            Request::Transactions(ranges) => {
                let mut rest = Vec::new();
                for leaf in ranges.into_iter().flatten() {
                    if self.is_asked(leaf, slot) {
                        extend(&mut rest, leaf);
                    }
                }
                (!rest.is_empty()).then_some(Request::Transactions(rest))
            }
            Request::Cancel(ranges) => {
                let mut rest = Vec::new();
                for leaf in ranges.into_iter().flatten() {
                    if !self.is_asked(leaf, slot) {
                        extend(&mut rest, leaf);
                    }
                }
                (!rest.is_empty()).then_some(Request::Cancel(rest))
            }
        }
    }

    /// The leaf hashes below a node are wanted, since what is held there contradicts it. They are asked for
    /// around the nearest verified node: only then can no candidate stand in their way.
    pub fn want_leaves_below(&mut self, job: &Job, node: Node) {
        let geometry = job.geometry;
        let mut above = node;
        while job.verified(above).is_none() {
            match geometry.parent(above) {
                Some(parent) => above = parent,
                None => return,
            }
        }
        if above.level() < geometry.depth() {
            self.ask_hashes(HashWant {
                tree: Tree::Witness,
                short: false,
                around: above.level(),
                level: geometry.depth(),
                range: geometry.leaves(node),
            });
        }
    }

    fn ask_hashes(&mut self, want: HashWant) {
        if self.hashes.len() < MAX_HASH_ASKS && !self.hashes.iter().any(|ask| ask.want == want) {
            self.hashes.push(HashAsk {
                want,
                slot: NOBODY,
                asked: Time::ZERO,
                tries: 0,
                next: 0,
            });
            self.dirty = true;
        }
    }

    /// Looks at everything that is missing, and leaves requests with the peers.
    pub fn review(&mut self, job: &Job, peers: &mut JobPeers, views: &[PeerView], now: Time) {
        self.dirty = false;
        self.next_review = None;
        if job.is_complete() {
            self.hashes.clear();
            return;
        }
        for until in peers.values().filter_map(|peer| peer.paused_until) {
            if until > now {
                self.wake_at(until);
            }
        }
        // What a peer was asked for before it claimed another count would be waited for without end.
        let count = job.geometry.count();
        for (slot, peer) in peers.iter_mut() {
            if peer.outstanding > 0 && peer.claims_other(count) {
                self.take_back(*slot, |_| !0);
                peer.outstanding = 0;
            }
        }
        let views: Vec<PeerView> = views
            .iter()
            .filter(|view| {
                peers.get(&view.slot).is_some_and(|peer| {
                    !peer.closed
                        && peer.paused_until.is_none_or(|until| until <= now)
                        && !peer.claims_other(job.geometry.count())
                        && peer.is_aware()
                        && (peer.opened_at.is_some() || peer.has_count > 0)
                })
            })
            .copied()
            .collect();
        let Some(parent) = parent(peers, &views) else {
            return;
        };
        self.review_stalls(job, peers, &views, now);
        self.review_anchor(job, peers, &views, &parent, now);
        if job.is_anchored() {
            self.judge_cache(job);
            self.review_chunks(job, &parent, now);
            self.review_leaves(job, peers, &views, &parent, now);
            let (end, until) = self.spared;
            if end > 0 && now < until {
                self.wake_at(until);
            }
        }
        self.review_hashes(job, peers, &views, &parent, now);
        // What was only asked for in this review is looked after too.
        for view in &views {
            if let Some(peer) = peers.get(&view.slot).filter(|peer| peer.outstanding > 0) {
                self.wake_at(stall(view, peer).1);
            }
        }
    }

    fn wake_at(&mut self, at: Time) {
        self.next_review = Some(self.next_review.map_or(at, |earlier| earlier.min(at)));
    }

    /// Until when a first flight that was asked for may still be under way.
    fn flight_deadline(&self, parent: &PeerView) -> Time {
        let grace = if parent.eager && !self.cold {
            parent.round_trip + PATIENCE
        } else {
            Duration::ZERO
        };
        self.last_flight + grace
    }

    /// When transactions are asked for although nothing says which ones a chunk has. A cache that helps
    /// is worth waiting for, since whatever is asked for blindly comes whole; one that does not is not.
    fn blind_deadline(&self, parent: &PeerView) -> Time {
        match self.cold {
            true => self.flight_deadline(parent),
            false => self.last_flight + parent.round_trip * 2 + BLIND_PATIENCE,
        }
    }

    /// Takes back what a silent peer was asked for.
    fn review_stalls(&mut self, job: &Job, peers: &mut JobPeers, views: &[PeerView], now: Time) {
        for view in views {
            let Some(peer) = peers.get_mut(&view.slot) else {
                continue;
            };
            if peer.outstanding == 0 {
                continue;
            }
            let (wait, late_at) = stall(view, peer);
            if now < late_at {
                self.wake_at(late_at);
                continue;
            }
            // Only what the peer says it has can be late; a standing want waits as long as it must.
            let taken = self.take_back(view.slot, |word| {
                let has = peer.has.as_raw_slice().get(word).copied().unwrap_or(0);
                match job.is_anchored() {
                    true => has,
                    false => has & without_coinbase(word),
                }
            });
            peer.last_progress = now;
            if taken.is_empty() {
                self.wake_at(now + wait);
                continue;
            }
            peer.outstanding -= total(&taken).min(peer.outstanding);
            peer.stalls += 1;
            peer.requests.push_back(Request::Cancel(taken));
            self.withheld.push(view.slot);
        }
    }

    /// Sends requests for hashes, again to another peer when one is late.
    fn review_hashes(
        &mut self,
        job: &Job,
        peers: &mut JobPeers,
        views: &[PeerView],
        parent: &PeerView,
        now: Time,
    ) {
        self.hashes.retain_mut(|ask| !ask.is_satisfied(job));
        let mut wakes = Vec::new();
        for ask in &mut self.hashes {
            let current = views.iter().find(|view| view.slot == ask.slot);
            if let Some(view) = current {
                let late_at = ask.asked + patience_of(view.patience() * 2, ask.tries, views);
                if now < late_at {
                    wakes.push(late_at);
                    continue;
                }
            }
            // In turn: the parent, then the others, those that say they know the chunk first.
            let slot = if ask.tries == 0 {
                parent.slot
            } else {
                next_view(views, ask.slot)
            };
            ask.slot = slot;
            ask.asked = now;
            ask.tries += 1;
            wakes.push(now + PATIENCE * 4);
            if let Some(peer) = peers.get_mut(&slot) {
                let request = Request::Hashes(ask.want.clone());
                if !peer.requests.contains(&request) {
                    self.requests += 1;
                    peer.requests.push_back(request);
                }
            }
        }
        wakes.into_iter().for_each(|at| self.wake_at(at));
    }
}

/// How long is waited before another peer is asked for the same: twice as long each time that all were asked, since
/// what is slow may be the way to them. Within a round each has the same time: else many that are silent would make a
/// round last for minutes.
fn patience_of(patience: Duration, tries: u32, views: &[PeerView]) -> Duration {
    let rounds = tries.saturating_sub(1) / views.len().max(1) as u32;
    (patience * (2 << rounds.min(6))).min(MAX_PATIENCE)
}

/// How long a peer may be silent, and until when it may be.
fn stall(view: &PeerView, peer: &JobPeer) -> (Duration, Time) {
    let wait = (view.patience() * 4) * (1 << peer.stalls.min(6));
    (wait, peer.last_progress + wait.min(MAX_PATIENCE * 2))
}

/// The level of the row of witness hashes that goes with the anchor: the deepest whose hashes fit one
/// datagram beside OPEN_JOB, but not below the chunks.
pub(crate) fn first_row_level(geometry: &Geometry) -> u8 {
    /// 32 hashes are 1,024 bytes.
    const WIDEST: u32 = 32;
    let mut level = chunk_level(geometry);
    while level > 0 && geometry.width(level) > WIDEST {
        level -= 1;
    }
    level
}

impl HashAsk {
    /// Whether everything that it asks for is here. What is verified stays so: each node is looked at until it
    /// is here, and not again.
    fn is_satisfied(&mut self, job: &Job) -> bool {
        if self.want.tree == Tree::Txid || self.want.short {
            return is_satisfied(job, &self.want);
        }
        let mut rest = self.want.clone();
        rest.range.start = rest.range.start.max(self.next);
        self.next = first_unknown(job, &rest);
        self.next >= rest.range.end
    }
}

fn row_is_known(job: &Job, level: u8) -> bool {
    let geometry = job.geometry;
    (0..geometry.width(level)).all(|index| {
        geometry
            .node(level, index)
            .is_some_and(|node| job.verified(node).is_some())
    })
}

/// Whether everything that a request asks for is here.
fn is_satisfied(job: &Job, want: &HashWant) -> bool {
    if want.tree == Tree::Txid {
        return job.has_branch();
    }
    if want.short {
        let start = want.range.start;
        return job
            .chunks
            .get(job.chunk_of(start) as usize)
            .is_none_or(|chunk| chunk.is_described());
    }
    first_unknown(job, want) >= want.range.end
}

/// The first of the wanted nodes that is not verified, or the end of them.
fn first_unknown(job: &Job, want: &HashWant) -> u32 {
    let known = |index| {
        let node = job.geometry.node(want.level, index);
        node.is_none_or(|node| job.verified(node).is_some())
    };
    let unknown = want.range.clone().find(|index| !known(*index));
    unknown.unwrap_or(want.range.end)
}

/// Adds a leaf to ranges that rise, or begins a new one.
fn extend(ranges: &mut Vec<Range<u32>>, leaf: u32) {
    match ranges.last_mut() {
        Some(last) if last.end == leaf => last.end += 1,
        _ => ranges.push(leaf..leaf + 1),
    }
}

fn total(ranges: &[Range<u32>]) -> u32 {
    ranges.iter().map(|range| range.end - range.start).sum()
}
