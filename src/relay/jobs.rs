//! A job's life: opened, anchored, passed on, completed or given up; and what becomes of its news.

pub(super) mod closed;
mod news;
mod opening;
mod predicted;
mod pushes;
pub(super) mod refused;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;

use super::Engine;
use super::event::{CompleteBlock, Event, HeaderRefusal, HeaderVerdict, Source};
use super::inbound::{Via, leaves_below};
use super::job::{CHUNK_HEIGHT, Job, JobStart, Leaf, News};
use super::outbound::open_message;
use super::parity::body::BodyParity;
use super::parts::Parts;
use super::peer::{HashWant, JobPeer, Request};
use super::schedule::{Asks, JobPeers, PeerView, first_row_level};
use super::session::{Item, Route};
use super::stats::Refusal;
use crate::merkle::{Geometry, Hash, hash};
use crate::time::Time;
use crate::wire::{CloseJob, CloseReason, JobRef, JobState, Kind, Message, OpenJob, Tree};
use predicted::Elsewhere;

/// Jobs that one peer may have open with us at once: two blocks race now and then, eight never did.
pub(super) const MAX_JOBS_PER_PEER: usize = 8;

/// Jobs beyond these that are borne with until room is made: each of those that are open may have come in a datagram,
/// earlier than the CLOSE_JOB that had to make room for it (PRM-3).
const MAX_EARLY_JOBS: usize = MAX_JOBS_PER_PEER;

/// Jobs that a peer takes from us if it does not say how many (SET_PARAMS key 7).
const DEFAULT_MAX_JOBS: u16 = 8;

/// Jobs of an engine that are not complete. Each costs at most a block of transactions, twice its leaves of
/// hashes and a few sets for each peer: about 12 MB with Bitcoin's limits and 64 peers.
const MAX_OPEN_JOBS: usize = 8;

/// Complete blocks that are kept although every peer has them: an hour's worth, 24 MB at the most.
const MAX_KEPT_JOBS: usize = 6;

/// Complete blocks that are kept while peers lack them: a burst of as many, and 64 MB at the most. Whoever is further
/// behind gets them by Bitcoin's protocol.
const MAX_LACKED_JOBS: usize = 16;

/// The longest that a job may go without anything new before it is given up: a block that nobody could
/// serve for ten minutes is the Bitcoin network's to deliver.
const MAX_IDLE: Duration = Duration::from_secs(600);

/// How long the claimed count of a job may stay unproven when others claim another.
const RECOUNT_AFTER: Duration = Duration::from_millis(500);

/// One job, with everything that is known of its peers and asked of them.
pub(super) struct JobEntry {
    pub id: u16,
    pub job: Job,
    pub peers: JobPeers,
    pub asks: Asks,
    pub parts: Parts,
    /// Parity of the transactions, as it came.
    pub parity: BodyParity,
    pub requests_sent: u64,
    /// Transactions that had not been in the cache here, in the order in which they came.
    pub lacked: Vec<u32>,
    /// Transactions that peers may lack, the likeliest first, and where else they are: once the block is whole.
    pub predicted: Vec<u32>,
    pub elsewhere: Vec<Elsewhere>,
    pub last_news: Time,
    /// Since when the count of `job` is tried, whose claim it is, and how many were tried before.
    pub counted_at: Time,
    pub counted_from: Option<u32>,
    pub recounts: u32,
}

impl JobEntry {
    fn new(id: u16, job: Job, draw: u32, now: Time) -> Self {
        let asks = Asks::new(&job, draw, now);
        Self {
            id,
            job,
            peers: JobPeers::new(),
            asks,
            parts: Parts::default(),
            parity: BodyParity::default(),
            requests_sent: 0,
            lacked: Vec::new(),
            predicted: Vec::new(),
            elsewhere: Vec::new(),
            last_news: now,
            counted_at: now,
            counted_from: None,
            recounts: 0,
        }
    }

    /// The peer's part in this job, made if there is none.
    pub fn peer(&mut self, slot: u32, now: Time) -> &mut JobPeer {
        let leaves = self.job.geometry.count();
        let chunks = self.job.chunks.len() as u32;
        self.peers
            .entry(slot)
            .or_insert_with(|| JobPeer::new(leaves, chunks, now))
    }

    /// When the job wants to be looked at.
    pub fn deadline(&self) -> Option<Time> {
        if self.job.is_complete() {
            return None;
        }
        let idle = self.last_news + MAX_IDLE;
        let at = self.asks.deadline().map_or(idle, |at| at.min(idle));
        Some(self.recount_at().map_or(at, |recount| recount.min(at)))
    }

    /// When another peer's claim of the count is to be tried.
    pub fn recount_at(&self) -> Option<Time> {
        if self.job.is_anchored() || self.next_claim().is_none() {
            return None;
        }
        // Longer each time all were tried: an honest path may be slow.
        let rounds = 1 + self.recounts / (self.peers.len().max(2) as u32);
        Some(self.counted_at + RECOUNT_AFTER * rounds.min(8))
    }

    /// The next peer, in a circle, that claims another count than the one that is tried: every claim has its
    /// turn, whatever the others say meanwhile.
    fn next_claim(&self) -> Option<u32> {
        let tried = self.job.geometry.count();
        let others = || {
            let peers = self.peers.iter();
            let others = peers.filter(|(_, peer)| !peer.closed && peer.claims_other(tried));
            others.map(|(slot, _)| *slot)
        };
        let from = self.counted_from;
        others()
            .find(|slot| from.is_none_or(|from| *slot > from))
            .or_else(|| others().next())
    }

    /// A peer gave something false: what it is asked for is asked of others, and of it again if nobody else has it.
    pub fn distrust(&mut self, slot: u32) {
        let taken = self.asks.take_outstanding(slot);
        let Some(peer) = self.peers.get_mut(&slot).filter(|peer| !peer.closed) else {
            return;
        };
        peer.outstanding = 0;
        peer.stalls += 1;
        if !taken.is_empty() {
            peer.requests.push_back(Request::Cancel(taken));
            self.asks.dirty = true;
        }
    }

    /// Whether a peer that takes part lacks something of a block that is whole here, or waits for it.
    pub fn is_lacked(&self) -> bool {
        let mut peers = self.peers.values().filter(|peer| !peer.closed);
        peers.any(|peer| peer.waits || (peer.told && !peer.has_all()))
    }

    /// Whether the peer claims another count than the one that is tried: then what it says does not fit.
    pub fn counts_otherwise(&self, slot: u32) -> bool {
        let count = self.job.geometry.count();
        let peer = self.peers.get(&slot);
        peer.is_some_and(|peer| peer.claims_other(count))
    }

    /// Whether a transaction from this peer is worth looking at: it was asked of it, or can be checked at
    /// once, or belongs to a first flight.
    pub fn accepts(&self, slot: u32, index: u32, now: Time) -> bool {
        if self.job.is_complete() || index >= self.job.geometry.count() {
            return false;
        }
        if !matches!(self.job.leaf(index), Leaf::Missing) {
            return false;
        }
        let Some(peer) = self.peers.get(&slot) else {
            return false;
        };
        let other_count = peer.claims_other(self.job.geometry.count());
        let _ = now;
        let checkable = self
            .job
            .geometry
            .leaf(index)
            .is_some_and(|leaf| self.job.verified(leaf).is_some());
        !other_count
            && (index == 0
                || checkable
                || self.asks.is_asked(index, slot)
                || peer.was_asked
                || peer.pushed_to_us)
    }

    /// A transaction came from a peer: nobody is asked for it any longer.
    pub fn transaction_came(&mut self, slot: u32, index: u32, now: Time) {
        let asked = self.asks.leaf_arrived(index);
        if let Some(peer) = asked.and_then(|asked| self.peers.get_mut(&asked)) {
            peer.outstanding = peer.outstanding.saturating_sub(1);
            if peer.outstanding * 2 < 256 {
                self.asks.dirty = true;
            }
        }
        if let Some(peer) = self.peers.get_mut(&slot) {
            peer.last_progress = now;
            peer.parts_since = None;
            peer.stalls = 0;
        }
        if index > 0 {
            self.lacked.push(index);
        }
    }

    /// JOB_STATE of a peer.
    pub fn note_state(&mut self, slot: u32, state: &JobState<'_>) -> Result<(), Refusal> {
        let geometry = self.job.geometry;
        let (depth, count) = (geometry.depth(), geometry.count());
        let chunk_level = self.job.chunk_level();
        let peer = self.peers.get_mut(&slot).ok_or(Refusal::UnknownJob)?;
        let mut new = 0;
        for (level, nodes) in state.nodes.ranges() {
            // Nodes that do not exist are passed over (STR-7).
            let nodes = nodes.start..nodes.end.min(geometry.width(level));
            if nodes.is_empty() {
                continue;
            }
            let leaves = leaves_below(depth, count, level, &nodes);
            match state.kind {
                Kind::Transactions => {
                    new += peer.note_has(leaves.clone());
                    let bits = leaves.start as usize..leaves.end as usize;
                    if let Some(bits) = peer.unacknowledged.get_mut(bits) {
                        bits.fill(false);
                    }
                    peer.cancel(leaves);
                }
                Kind::WitnessHashes => {
                    let shift = depth - chunk_level;
                    let first = leaves.start.div_ceil(1 << shift);
                    let last = match leaves.end == count {
                        true => self.job.chunks.len() as u32,
                        false => leaves.end >> shift,
                    };
                    for chunk in first..last {
                        if let Some(mut bit) = peer.has_hashes.get_mut(chunk as usize) {
                            bit.set(true);
                        }
                        if let Some(mut bit) = peer.unacknowledged_hashes.get_mut(chunk as usize) {
                            bit.set(false);
                        }
                    }
                }
                Kind::TxidHashes => {}
            }
        }
        peer.note_acknowledged();
        let (known, job) = (&peer.has_hashes, &self.job);
        peer.push.retain(|want| {
            let chunk = job.chunk_of(want.range.start) as usize;
            !want.short || !known.get(chunk).is_some_and(|bit| *bit)
        });
        if new > 0 && !self.job.is_complete() {
            self.asks.dirty = true;
        }
        Ok(())
    }

    /// JOB_STATE_ACK of a peer: what it names needs no further telling.
    pub fn note_state_ack(&mut self, slot: u32, state: &JobState<'_>) {
        let geometry = self.job.geometry;
        let chunk_level = self.job.chunk_level();
        let Some(peer) = self.peers.get_mut(&slot) else {
            return;
        };
        peer.state_tries = 0;
        for (level, nodes) in state.nodes.ranges() {
            let set = match state.kind {
                Kind::Transactions if level == geometry.depth() => &mut peer.unacknowledged,
                Kind::WitnessHashes if level == chunk_level => &mut peer.unacknowledged_hashes,
                _ => continue,
            };
            let bits = nodes.start as usize..(nodes.end as usize).min(set.len());
            if let Some(bits) = set.get_mut(bits) {
                bits.fill(false);
            }
        }
        peer.note_acknowledged();
    }

    /// Tells a peer, in the next JOB_STATEs, of everything that is verified here.
    fn announce_all(&mut self, slot: u32) {
        let Some(peer) = self.peers.get_mut(&slot) else {
            return;
        };
        for leaf in 0..self.job.geometry.count() {
            if self.job.transaction(leaf).is_some() {
                peer.announce_leaf(leaf);
            }
        }
        for (index, chunk) in (0..).zip(&self.job.chunks) {
            if chunk.hashes_known {
                peer.announce_hashes(index);
            }
        }
    }
}

const _: () = assert!(CHUNK_HEIGHT == 7, "short ids of a chunk fill one datagram");
