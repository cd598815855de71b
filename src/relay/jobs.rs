//! A job's life: opened, anchored, passed on, completed or given up; and what becomes of its news.

use std::time::Duration;

use rand::RngExt;

use super::Engine;
use super::event::{Event, HeaderRefusal, Source};
use super::inbound::leaves_below;
use super::job::{CHUNK_HEIGHT, Job, JobStart, Leaf, News};
use super::outbound::open_message;
use super::parts::Parts;
use super::peer::{HashWant, JobPeer};
use super::schedule::{Asks, JobPeers, PeerView, first_row_level};
use super::session::{Item, Route};
use super::stats::Refusal;
use crate::merkle::{Geometry, hash};
use crate::time::Time;
use crate::wire::{CloseJob, CloseReason, JobRef, JobState, Kind, Message, OpenJob, Tree};

/// Jobs that one peer may have open with us at once: two blocks race now and then, eight never did.
pub(super) const MAX_JOBS_PER_PEER: usize = 8;

/// Jobs of an engine that are not complete. Each costs at most a block of transactions, twice its leaves of
/// hashes and a few sets for each peer: about 12 MB with Bitcoin's limits and 64 peers.
const MAX_OPEN_JOBS: usize = 8;

/// Complete blocks that are kept for peers that still lack them: an hour's worth, 24 MB at the most.
const MAX_KEPT_JOBS: usize = 6;

/// The longest that a job may go without anything new before it is given up: a block that nobody could
/// serve for ten minutes is the Bitcoin network's to deliver.
const MAX_IDLE: Duration = Duration::from_secs(600);

/// How long the claimed count of a job may stay unproven when others claim another.
const RECOUNT_AFTER: Duration = Duration::from_millis(500);

/// Datagrams of transactions that a first flight may carry (SET_PARAMS key 8): 12 kB cover what 90% of the
/// blocks of 2025 lacked (852 bytes) many times over, and are no burden when they are not needed.
pub(super) const PUSH_BUDGET_DATAGRAMS: u16 = 10;

/// One job, with everything that is known of its peers and asked of them.
pub(super) struct JobEntry {
    pub id: u16,
    pub job: Job,
    pub peers: JobPeers,
    pub asks: Asks,
    pub parts: Parts,
    pub requests_sent: u64,
    /// Transactions that had not been in the cache here, in the order in which they came.
    pub lacked: Vec<u32>,
    pub last_news: Time,
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
            requests_sent: 0,
            lacked: Vec::new(),
            last_news: now,
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
        Some(self.asks.deadline().map_or(idle, |at| at.min(idle)))
    }

    /// Whether a transaction from this peer is worth looking at: it was asked of it, or can be checked at
    /// once, or belongs to a first flight.
    pub fn accepts(&self, slot: u32, index: u32, now: Time) -> bool {
        if self.job.is_complete() || index >= self.job.geometry.count() {
            return false;
        }
        if !matches!(self.job.leaf(index), Leaf::Missing) && index > 0 {
            return false;
        }
        let Some(peer) = self.peers.get(&slot) else {
            return false;
        };
        let other_count = peer
            .claimed_count
            .is_some_and(|count| count != self.job.geometry.count());
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
            peer.stalls = 0;
        }
        self.lacked.push(index);
    }

    /// JOB_STATE of a peer.
    pub fn note_state(&mut self, slot: u32, state: &JobState<'_>) -> Result<(), Refusal> {
        let geometry = self.job.geometry;
        let (depth, count) = (geometry.depth(), geometry.count());
        let chunk_level = self.job.chunk_level();
        let peer = self.peers.get_mut(&slot).ok_or(Refusal::UnknownJob)?;
        let mut new = 0;
        for (level, nodes) in state.nodes.ranges() {
            if nodes.end > geometry.width(level) {
                return Err(Refusal::Geometry);
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
                    let known = &peer.has_hashes;
                    let job = &self.job;
                    peer.push.retain(|want| {
                        let chunk = job.chunk_of(want.range.start) as usize;
                        !want.short || !known.get(chunk).is_some_and(|bit| *bit)
                    });
                }
                Kind::TxidHashes => {}
            }
        }
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
    }

    /// Prepares the first flight to a peer, as far as it wants it.
    fn push_first_flight(&mut self, slot: u32, level: u8, budget_bytes: u64, now: Time) {
        let geometry = self.job.geometry;
        let depth = geometry.depth();
        let row = first_row_level(&self.job);
        let chunk_level = self.job.chunk_level();
        let hashes = |tree, around, level, range| HashWant {
            tree,
            short: false,
            around,
            level,
            range,
        };
        let known: Vec<u32> = (0..self.job.chunks.len() as u32)
            .filter(|chunk| {
                self.job
                    .chunks
                    .get(*chunk as usize)
                    .is_some_and(|c| c.hashes_known)
            })
            .collect();
        let lacked = self.lacked.clone();
        let peer = self.peer(slot, now);
        peer.open_pending = true;
        if level == 0 {
            return;
        }
        peer.push_coinbase = true;
        peer.push_bytes_left = budget_bytes;
        let count = geometry.count();
        if count > 1 {
            peer.push.push_back(hashes(Tree::Txid, 0, depth, 0..1));
            peer.push
                .push_back(hashes(Tree::Witness, 0, row, 0..geometry.width(row)));
            if row < depth {
                peer.push
                    .push_back(hashes(Tree::Witness, row, depth, count - 1..count));
            }
        }
        if level >= 2 {
            if row < chunk_level {
                let width = geometry.width(chunk_level);
                peer.push
                    .push_back(hashes(Tree::Witness, row, chunk_level, 0..width));
            }
            for chunk in known {
                self.push_short_ids(slot, chunk, now);
            }
        }
        if level >= 3 {
            for leaf in lacked {
                self.push_lacked(slot, leaf);
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

    /// Adds a transaction that was missing here to a first flight, while its budget lasts.
    fn push_lacked(&mut self, slot: u32, leaf: u32) {
        let Some(length) = self
            .job
            .transaction(leaf)
            .map(|transaction| transaction.len() as u64)
        else {
            return;
        };
        if let Some(peer) = self.peers.get_mut(&slot)
            && peer.push_bytes_left >= length
            && !peer.has_leaf(leaf)
        {
            peer.push_bytes_left -= length;
            peer.want(leaf, true);
        }
    }
}

impl Engine {
    /// OPEN_JOB of a peer.
    pub(super) fn take_open_job(&mut self, slot: u32, open: &OpenJob<'_>) {
        let now = self.now;
        let hash = hash::sha256d(open.header);
        let Some(session) = self.session(slot) else {
            return;
        };
        if let Some(known) = session.their_jobs.get(&open.job) {
            let same = self
                .jobs
                .get(known)
                .is_some_and(|entry| entry.job.hash == hash);
            if same {
                self.join_job(slot, *known, open);
                return;
            }
            if self.jobs.contains_key(known) {
                self.blame(slot, Refusal::JobReused);
                return;
            }
        }
        if open.count > self.config.max_transactions
            || open.block_bytes > self.config.max_block_bytes
        {
            self.blame(slot, Refusal::Limits);
            self.close_at(slot, open.job, CloseReason::Resources);
            return;
        }
        if let Some(known) = self.jobs_by_hash.get(&hash).copied() {
            self.join_job(slot, known, open);
            return;
        }
        let theirs = session.their_jobs.values();
        let live = theirs.filter(|id| self.jobs.contains_key(id)).count();
        if live >= MAX_JOBS_PER_PEER {
            self.blame(slot, Refusal::TooManyJobs);
            self.close_at(slot, open.job, CloseReason::Resources);
            return;
        }
        let source = Source::Peer(session.id);
        let verdict = match self.judge.accept(open.header, now) {
            Ok(verdict) if verdict.in_window => verdict,
            Ok(_) | Err(HeaderRefusal::TooOld) => {
                self.blame(slot, Refusal::HeaderContext);
                self.close_at(slot, open.job, CloseReason::Stale);
                return;
            }
            Err(HeaderRefusal::UnknownParent | HeaderRefusal::TooEarly) => {
                self.blame(slot, Refusal::HeaderContext);
                self.close_at(slot, open.job, CloseReason::Unknown);
                return;
            }
            Err(HeaderRefusal::Invalid(_)) => {
                self.blame(slot, Refusal::Header);
                return;
            }
        };
        let Some(geometry) = Geometry::new(open.count) else {
            self.blame(slot, Refusal::Limits);
            return;
        };
        let start = JobStart {
            hash,
            header: *open.header,
            height: verdict.height,
            segwit_active: verdict.segwit_active,
            geometry,
            block_bytes: open.block_bytes,
            max_block_bytes: self.config.max_block_bytes,
            counted_by: source,
            opened: now,
        };
        match self.create_job(start) {
            Some(id) => self.join_job(slot, id, open),
            None => self.close_at(slot, open.job, CloseReason::Resources),
        }
    }

    /// Makes a job, if there is room for one.
    pub(super) fn create_job(&mut self, start: JobStart) -> Option<u16> {
        let open = self
            .jobs
            .values()
            .filter(|entry| !entry.job.is_complete())
            .count();
        if open >= MAX_OPEN_JOBS && start.counted_by != Source::Local {
            return None;
        }
        let now = self.now;
        let id = self.free_job_id()?;
        let (block, height) = (start.hash, start.height);
        let (source, transactions) = (start.counted_by, start.geometry.count());
        let draw = self.random.random();
        let entry = JobEntry::new(id, Job::new(start), draw, now);
        let chunks = entry.job.chunks.len() as u32;
        self.jobs.insert(id, entry);
        self.jobs_by_hash.insert(block, id);
        self.events.push_back(Event::JobOpened {
            block,
            height,
            transactions,
            chunks,
            source,
        });
        Some(id)
    }

    fn free_job_id(&mut self) -> Option<u16> {
        const IDS: u16 = 0x7fff;
        for _ in 0..=IDS {
            let id = self.next_job;
            self.next_job = (self.next_job % IDS) + 1;
            if !self.jobs.contains_key(&id) {
                return Some(id);
            }
        }
        None
    }

    /// A peer takes part in a job that is known here.
    fn join_job(&mut self, slot: u32, id: u16, open: &OpenJob<'_>) {
        let now = self.now;
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        session.their_jobs.insert(open.job, id);
        // Ids of jobs that are gone make room.
        if session.their_jobs.len() > MAX_JOBS_PER_PEER * 4 {
            let live: Vec<u16> = self.jobs.keys().copied().collect();
            if let Some(session) = self.session_mut(slot) {
                session.their_jobs.retain(|_, id| live.contains(id));
            }
        }
        let eager = self.session(slot).is_some_and(|session| session.eager);
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        let count = entry.job.geometry.count();
        let anchored = entry.job.is_anchored();
        let complete = entry.job.is_complete();
        let peer = entry.peer(slot, now);
        let first = peer.opened_at.is_none();
        peer.their_id = Some(open.job);
        peer.opened_at.get_or_insert(now);
        peer.claimed_count = Some(open.count);
        peer.claimed_bytes = open.block_bytes;
        peer.nonce = open.nonce;
        peer.pushed_to_us = eager;
        if open.sender_has_all && open.count == count {
            peer.note_has(0..count);
        }
        if first {
            // It has its own source: what it lacks it asks for.
            peer.push.clear();
            peer.push_coinbase = false;
            if !peer.told {
                peer.open_pending = false;
            }
            let verified: Vec<u32> = (0..count)
                .filter(|leaf| entry.job.transaction(*leaf).is_some())
                .collect();
            let hashes: Vec<u32> = (0..entry.job.chunks.len() as u32)
                .filter(|chunk| {
                    entry
                        .job
                        .chunks
                        .get(*chunk as usize)
                        .is_some_and(|c| c.hashes_known)
                })
                .collect();
            if let Some(peer) = entry.peers.get_mut(&slot)
                && anchored
            {
                verified
                    .into_iter()
                    .for_each(|leaf| peer.announce_leaf(leaf));
                hashes
                    .into_iter()
                    .for_each(|chunk| peer.announce_hashes(chunk));
            }
            if !complete {
                entry.asks.dirty = true;
            }
        }
        if anchored && open.count != count {
            self.blame(slot, Refusal::Count);
        }
        self.wake(slot);
    }

    /// Says CLOSE_JOB about a job of the peer's.
    fn close_at(&mut self, slot: u32, their_id: u16, reason: CloseReason) {
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        let sent = session.push_control(&Message::CloseJob(CloseJob {
            job: JobRef::of_receiver(their_id),
            reason,
        }));
        self.control_sent(slot, sent);
    }

    /// A session is established: tell it of the jobs at hand.
    pub(super) fn offer_jobs(&mut self, slot: u32) {
        let ids: Vec<u16> = self.jobs.keys().copied().collect();
        for id in ids {
            // Only the newest: older blocks are old news.
            let newest = self.jobs.keys().next_back() == Some(&id);
            let anchored = self
                .jobs
                .get(&id)
                .is_some_and(|entry| entry.job.is_anchored());
            if newest && anchored {
                self.tell(slot, id);
            }
        }
    }

    /// Opens a job to a peer: OPEN_JOB on both transports, and the first flight that it wants.
    fn tell(&mut self, slot: u32, id: u16) {
        let now = self.now;
        let Some(session) = self.session(slot) else {
            return;
        };
        let level = session.push_level().min(3);
        let budget = u64::from(session.params.push_budget_datagrams.unwrap_or(0)) * 1_200;
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        let count = entry.job.geometry.count();
        let peer = entry.peer(slot, now);
        if peer.is_aware() || peer.closed {
            return;
        }
        peer.told = true;
        entry.push_first_flight(slot, level, budget, now);
        let verified: Vec<u32> = (0..count)
            .filter(|leaf| entry.job.transaction(*leaf).is_some())
            .collect();
        let hashes: Vec<u32> = (0..entry.job.chunks.len() as u32)
            .filter(|chunk| {
                entry
                    .job
                    .chunks
                    .get(*chunk as usize)
                    .is_some_and(|c| c.hashes_known)
            })
            .collect();
        // OPEN_JOB says so itself when all is here.
        let whole = entry.job.is_complete();
        if let Some(peer) = entry.peers.get_mut(&slot)
            && !whole
        {
            verified
                .into_iter()
                .for_each(|leaf| peer.announce_leaf(leaf));
            hashes
                .into_iter()
                .for_each(|chunk| peer.announce_hashes(chunk));
        }
        let Some(entry) = self.jobs.get(&id) else {
            return;
        };
        let header = entry.job.header;
        let message = open_message(id, &entry.job, &header);
        let sent = match self.sessions.get_mut(slot as usize) {
            Some(Some(session)) => session.push_control(&message),
            _ => return,
        };
        self.control_sent(slot, sent);
        self.wake(slot);
    }

    /// Deals with what a job has to say.
    pub(super) fn settle_job(&mut self, id: u16) {
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        let news = entry.job.take_news();
        if news.is_empty() {
            if entry.asks.dirty {
                self.wake_peers(id);
            }
            return;
        }
        entry.last_news = self.now;
        for item in news {
            self.settle_news(id, item);
        }
        if self.jobs.get(&id).is_some_and(|entry| entry.job.is_ready()) {
            self.complete_job(id);
        }
        self.wake_peers(id);
    }

    fn settle_news(&mut self, id: u16, news: News) {
        let now = self.now;
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        match news {
            News::Anchored => self.anchored(id),
            News::LeafVerified(leaf) => {
                let asked = entry.asks.leaf_arrived(leaf);
                for (slot, peer) in &mut entry.peers {
                    peer.leaf_verified(leaf);
                    if entry.job.is_anchored() && peer.is_aware() {
                        peer.announce_leaf(leaf);
                    }
                    if asked == Some(*slot) {
                        peer.outstanding = peer.outstanding.saturating_sub(1);
                    }
                }
                entry.parts.forget_leaf(leaf);
            }
            News::ChunkHashes(chunk) => {
                let anchored = entry.job.is_anchored();
                let slots: Vec<u32> = entry.peers.keys().copied().collect();
                for slot in slots {
                    let level = match self.sessions.get(slot as usize) {
                        Some(Some(session)) => session.push_level(),
                        _ => continue,
                    };
                    let peer = entry.peer(slot, now);
                    peer.hashes_blocked = false;
                    let pushes = peer.told && peer.opened_at.is_none() && level >= 2;
                    if anchored && peer.is_aware() {
                        peer.announce_hashes(chunk);
                    }
                    if anchored && pushes {
                        entry.push_short_ids(slot, chunk, now);
                    }
                }
            }
            News::ChunkDone(chunk, source) => {
                entry.job.first_chunk.get_or_insert(now);
                let block = entry.job.hash;
                self.note_delivery(source);
                self.events.push_back(Event::ChunkVerified {
                    block,
                    chunk,
                    source,
                });
            }
            News::ChunkDescribed(_) => entry.asks.dirty = true,
            News::Contradiction(node) => {
                let leaves = entry.job.geometry.leaves(node);
                entry
                    .asks
                    .want_leaves_below(&entry.job, node.level(), leaves);
            }
            News::Blame(source, refusal) => {
                if let Source::Peer(session) | Source::Mempool(session) = source
                    && let Some(slot) = self.live(session)
                {
                    self.blame(slot, refusal);
                }
            }
            News::Invalid(reason) => self.close_job(id, CloseReason::Invalid, reason),
        }
    }

    /// The header's work, the coinbase, the witness root and the count are proven: pass the job on.
    fn anchored(&mut self, id: u16) {
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        entry.asks.dirty = true;
        let count = entry.job.geometry.count();
        let liars: Vec<u32> = entry
            .peers
            .iter()
            .filter(|(_, peer)| peer.claimed_count.is_some_and(|claimed| claimed != count))
            .map(|(slot, _)| *slot)
            .collect();
        for peer in entry.peers.values_mut() {
            peer.hashes_blocked = false;
        }
        for slot in liars {
            self.blame(slot, Refusal::Count);
        }
        for slot in self.established() {
            self.tell(slot, id);
        }
    }

    /// All transactions are here.
    fn complete_job(&mut self, id: u16) {
        let now = self.now;
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        let assembled = entry.job.assemble(now);
        entry.asks.dirty = true;
        match assembled {
            Ok(bytes) => {
                for index in 1..entry.job.geometry.count() {
                    if let Some(transaction) = entry.job.transaction(index) {
                        self.mempool.remove(&transaction.wtxid());
                    }
                }
                self.events.push_back(Event::BlockComplete {
                    block: entry.job.hash,
                    height: entry.job.height,
                    bytes,
                    elapsed: now.since(entry.job.opened),
                    local: entry.job.local,
                });
                entry.parts = Parts::default();
                self.cancel_rest(id);
                self.rotate_eager(id);
                self.evict_jobs();
            }
            Err(reason) => self.close_job(id, CloseReason::Invalid, reason),
        }
    }

    /// What is still asked of peers is not wanted any longer.
    fn cancel_rest(&mut self, id: u16) {
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        for (slot, peer) in &mut entry.peers {
            peer.requests.clear();
            let rest = entry.asks.take_outstanding(*slot);
            if !rest.is_empty() {
                peer.requests.push_back(super::peer::Request::Cancel(rest));
            }
            peer.outstanding = 0;
        }
    }

    /// Complete jobs beyond those that are kept make room, the oldest first.
    fn evict_jobs(&mut self) {
        let complete: Vec<u16> = {
            let mut done: Vec<(Time, u16)> = self
                .jobs
                .values()
                .filter_map(|entry| Some((entry.job.completed?, entry.id)))
                .collect();
            done.sort_unstable();
            done.into_iter().map(|(_, id)| id).collect()
        };
        let excess = complete.len().saturating_sub(MAX_KEPT_JOBS);
        for id in complete.into_iter().take(excess) {
            self.close_job(id, CloseReason::Done, "old");
        }
    }

    /// Ends a job.
    pub(super) fn close_job(&mut self, id: u16, reason: CloseReason, text: &'static str) {
        let Some(entry) = self.jobs.remove(&id) else {
            return;
        };
        self.jobs_by_hash.remove(&entry.job.hash);
        for (slot, peer) in &entry.peers {
            if peer.closed {
                continue;
            }
            let job = match (peer.told, peer.their_id) {
                (true, _) => JobRef::of_sender(id),
                (false, Some(their_id)) => JobRef::of_receiver(their_id),
                (false, None) => continue,
            };
            let Some(session) = self.session_mut(*slot) else {
                continue;
            };
            let sent = session.push_control(&Message::CloseJob(CloseJob { job, reason }));
            self.control_sent(*slot, sent);
        }
        self.events.push_back(Event::JobClosed {
            block: entry.job.hash,
            reason: text,
        });
    }

    /// A session is gone: so is its part in every job.
    pub(super) fn leave_jobs(&mut self, slot: u32) {
        let ids: Vec<u16> = self.jobs.keys().copied().collect();
        for id in ids {
            if let Some(entry) = self.jobs.get_mut(&id) {
                entry.peers.remove(&slot);
                entry.asks.peer_gone(slot);
                entry.parts.forget_peer(slot);
            }
        }
    }

    /// What was in a lost datagram goes again, if it is still of use.
    pub(super) fn resend(&mut self, slot: u32, item: Item) {
        let id = match &item {
            Item::Open(id)
            | Item::Hashes(id, _)
            | Item::Transactions(id, _)
            | Item::Part(id, ..)
            | Item::Request(id, _)
            | Item::State(id) => *id,
        };
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        let Some(peer) = entry.peers.get_mut(&slot).filter(|peer| !peer.closed) else {
            return;
        };
        match item {
            Item::Open(_) => peer.open_pending = peer.opened_at.is_none(),
            Item::Hashes(_, want) => {
                let chunk = entry.job.chunk_of(want.range.start) as usize;
                let known = want.short && peer.has_hashes.get(chunk).is_some_and(|bit| *bit);
                if !known && !peer.has_all() {
                    peer.push.push_front(want);
                }
            }
            Item::Transactions(_, range) => {
                for leaf in range
                    .rev()
                    .filter(|leaf| !peer.has_leaf(*leaf))
                    .collect::<Vec<_>>()
                {
                    peer.resend(leaf);
                }
            }
            Item::Part(_, leaf, cells) => {
                if !peer.has_leaf(leaf) {
                    peer.lost_parts.push_back((leaf, cells));
                }
            }
            Item::Request(_, request) => {
                if let Some(request) = entry.asks.still_wanted(&entry.job, slot, request) {
                    peer.requests.push_front(request);
                }
            }
            Item::State(_) => peer.state_news = peer.has_unacknowledged(),
        }
    }

    /// Runs the schedule of every job in which something has changed.
    pub(super) fn review_jobs(&mut self) {
        let now = self.now;
        let ids: Vec<u16> = self
            .jobs
            .values()
            .filter(|entry| entry.asks.dirty)
            .map(|entry| entry.id)
            .collect();
        for id in ids {
            let views = self.views(id);
            let Some(entry) = self.jobs.get_mut(&id) else {
                continue;
            };
            entry.asks.review(&entry.job, &mut entry.peers, &views, now);
            let withheld = std::mem::take(&mut entry.asks.withheld);
            for slot in withheld {
                self.blame(slot, Refusal::Withheld);
            }
            self.wake_peers(id);
        }
    }

    fn views(&self, id: u16) -> Vec<PeerView> {
        let now = self.now;
        let Some(entry) = self.jobs.get(&id) else {
            return Vec::new();
        };
        entry
            .peers
            .keys()
            .filter_map(|slot| self.session(*slot))
            .filter(|session| session.route(now) != Route::Wait || session.path.proven)
            .map(|session| PeerView {
                slot: session.id.slot,
                round_trip: session.sent.rtt().smoothed(),
                rate_bytes_per_s: session.arrival.bytes_per_s(),
                eager: session.eager && self.config.push_level >= 2,
            })
            .collect()
    }

    fn wake_peers(&mut self, id: u16) {
        let slots: Vec<u32> = match self.jobs.get(&id) {
            Some(entry) => entry.peers.keys().copied().collect(),
            None => return,
        };
        slots.into_iter().for_each(|slot| self.wake(slot));
    }

    /// The clocks of the jobs.
    pub(super) fn job_timeouts(&mut self) {
        let now = self.now;
        let ids: Vec<u16> = self.jobs.keys().copied().collect();
        for id in ids {
            let Some(entry) = self.jobs.get_mut(&id) else {
                continue;
            };
            if entry.job.is_complete() {
                continue;
            }
            if now.since(entry.last_news) >= MAX_IDLE {
                self.close_job(id, CloseReason::Stale, "nothing came");
                continue;
            }
            if entry.asks.deadline().is_some_and(|at| at <= now) {
                entry.asks.dirty = true;
            }
            let unproven = !entry.job.is_anchored() && now.since(entry.job.opened) >= RECOUNT_AFTER;
            if unproven {
                self.recount(id);
            }
        }
    }

    /// The claimed count led nowhere: begin again with another peer's claim, if there is one.
    fn recount(&mut self, id: u16) {
        let now = self.now;
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        let tried = entry.job.geometry.count();
        let other = entry
            .peers
            .values()
            .filter(|peer| !peer.closed)
            .filter_map(|peer| Some((peer.claimed_count?, peer.claimed_bytes)))
            .find(|(count, _)| *count != tried);
        let Some((count, bytes)) = other else {
            return;
        };
        let Some(geometry) = Geometry::new(count) else {
            return;
        };
        let peers = std::mem::take(&mut entry.peers);
        let job = entry.job.with_count(geometry, bytes, now);
        let draw = self.random.random();
        *entry = JobEntry::new(id, job, draw, now);
        for (slot, old) in peers {
            let peer = entry.peer(slot, now);
            peer.their_id = old.their_id;
            peer.opened_at = old.opened_at;
            peer.claimed_count = old.claimed_count;
            peer.claimed_bytes = old.claimed_bytes;
            peer.nonce = old.nonce;
            peer.closed = old.closed;
        }
    }

    fn note_delivery(&mut self, source: Source) {
        let now = self.now;
        if let Source::Peer(session) | Source::Mempool(session) = source
            && let Some(slot) = self.live(session)
            && let Some(session) = self.session_mut(slot)
        {
            session.delivered_first.get_or_insert(now);
        }
    }

    /// The peer that completed most chunks becomes eager, in place of one that completed none.
    fn rotate_eager(&mut self, id: u16) {
        let Some(entry) = self.jobs.get(&id) else {
            return;
        };
        let mut delivered: Vec<(u32, u32)> = Vec::new();
        for chunk in &entry.job.chunks {
            if let Some(Source::Peer(session) | Source::Mempool(session)) = chunk.completed_by
                && let Some(slot) = self.live(session)
            {
                match delivered.iter_mut().find(|(known, _)| *known == slot) {
                    Some((_, count)) => *count += 1,
                    None => delivered.push((slot, 1)),
                }
            }
        }
        let Some((best, _)) = delivered.iter().max_by_key(|(_, count)| *count).copied() else {
            return;
        };
        if self.session(best).is_none_or(|session| session.eager) {
            return;
        }
        let idle = self
            .sessions
            .iter()
            .flatten()
            .filter(|session| session.eager && session.is_established())
            .map(|session| session.id.slot)
            .find(|slot| delivered.iter().all(|(known, _)| known != slot));
        if let Some(idle) = idle {
            for (slot, eager) in [(idle, false), (best, true)] {
                if let Some(session) = self.session_mut(slot) {
                    session.eager = eager;
                }
                self.send_parameters(slot);
            }
        }
    }
}

const _: () = assert!(CHUNK_HEIGHT == 7, "short ids of a chunk fill one datagram");
