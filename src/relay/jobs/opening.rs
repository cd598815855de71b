//! How a job begins: a peer opens it to us, and we open it to others.

use super::pushes::FlightPlan;
use super::*;

impl Engine {
    /// OPEN_JOB of a peer, which came by a datagram or not.
    pub(in crate::relay) fn take_open_job(&mut self, slot: u32, open: &OpenJob<'_>, via: Via) {
        let now = self.now;
        let hash = hash::sha256d(open.header);
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        let source = Source::Peer(session.id);
        match via {
            Via::Tcp => session.closed_jobs.forget(open.job),
            Via::Udp(_) if session.closed_jobs.contains(open.job) => return,
            Via::Udp(_) => {}
        }
        if self.take_known_id(slot, open, &hash) {
            return;
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
        if self.invalid.contains(&hash) {
            self.refused.count(Refusal::InvalidBlock);
            self.close_at(slot, open.job, CloseReason::Invalid);
            return;
        }
        // (JOB-9)
        if self.passed.contains(&hash) {
            self.close_at(slot, open.job, CloseReason::Done);
            return;
        }
        if !self.may_open_another(slot, open, via) {
            return;
        }
        let Some(verdict) = self.judge_open(slot, open) else {
            return;
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
            Some(id) => {
                if let Some(entry) = self.jobs.get_mut(&id) {
                    entry.counted_from = Some(slot);
                }
                self.join_job(slot, id, open);
            }
            None => self.close_at(slot, open.job, CloseReason::Resources),
        }
    }

    /// Whether a peer may open one more job. If not, that is answered, or passed over.
    fn may_open_another(&mut self, slot: u32, open: &OpenJob<'_>, via: Via) -> bool {
        let Some(session) = self.session(slot) else {
            return false;
        };
        let is_open = |id: &&u16| {
            let entry = self.jobs.get(id);
            let peer = entry.and_then(|entry| entry.peers.get(&slot));
            peer.is_some_and(|peer| !peer.closed)
        };
        let open_jobs = session.their_jobs.values().filter(is_open).count();
        if via != Via::Tcp && open_jobs >= MAX_JOBS_PER_PEER {
            // It may have overtaken the CLOSE_JOB that makes room for it; its copy does not (PRM-3).
            self.refused.count(Refusal::TooManyJobs);
            return false;
        }
        if open_jobs >= MAX_JOBS_PER_PEER && !self.may_be_early(slot) {
            self.blame(slot, Refusal::TooManyJobs);
            self.close_at(slot, open.job, CloseReason::Resources);
            return false;
        }
        true
    }

    /// Whether a job too many may be one whose room was taken by others that came early in datagrams.
    fn may_be_early(&mut self, slot: u32) -> bool {
        self.session_mut(slot).is_some_and(|session| {
            session.excess_jobs += 1;
            session.excess_jobs <= MAX_EARLY_JOBS
        })
    }

    /// Deals with an OPEN_JOB whose id names a job already. Gives whether it does.
    fn take_known_id(&mut self, slot: u32, open: &OpenJob<'_>, hash: &Hash) -> bool {
        let known = self
            .session(slot)
            .and_then(|session| session.their_jobs.get(&open.job).copied());
        let Some(known) = known else { return false };
        match self.jobs.get(&known).map(|entry| entry.job.hash == *hash) {
            Some(true) => self.join_job(slot, known, open),
            Some(false) => self.blame(slot, Refusal::JobReused),
            None => return false,
        }
        true
    }

    /// Asks the judge about the header of an OPEN_JOB; answers and scores a refusal, or keeps the offer.
    fn judge_open(&mut self, slot: u32, open: &OpenJob<'_>) -> Option<HeaderVerdict> {
        let (refusal, reason) = match self.judge.accept(open.header, self.now) {
            Ok(verdict) if verdict.in_window => {
                self.headers_news = true;
                return Some(verdict);
            }
            Ok(_) | Err(HeaderRefusal::TooOld) => (Refusal::HeaderContext, CloseReason::Stale),
            Err(HeaderRefusal::UnknownParent | HeaderRefusal::TooEarly) => {
                self.keep_offer(slot, open);
                return None;
            }
            Err(HeaderRefusal::Invalid(_)) => (Refusal::Header, CloseReason::Invalid),
        };
        self.blame(slot, refusal);
        self.close_at(slot, open.job, reason);
        None
    }

    /// Makes a job, if there is room for one.
    pub(in crate::relay) fn create_job(&mut self, start: JobStart) -> Option<u16> {
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
        let mut entry = JobEntry::new(id, Job::new(start), draw, now);
        entry.asks.cold = self.mempool.len() < transactions as usize / 4;
        let chunks = entry.job.chunks.len() as u32;
        self.jobs.insert(id, Box::new(entry));
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

    pub(in crate::relay) fn free_job_id(&mut self) -> Option<u16> {
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
    pub(in crate::relay) fn join_job(&mut self, slot: u32, id: u16, open: &OpenJob<'_>) {
        let now = self.now;
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        // One id a job: an older one of the same block, or of jobs that are gone, makes room.
        session.their_jobs.retain(|_, known| *known != id);
        session.their_jobs.insert(open.job, id);
        if session.their_jobs.len() > MAX_JOBS_PER_PEER * 4 {
            let live: Vec<u16> = self.jobs.keys().copied().collect();
            if let Some(session) = self.session_mut(slot) {
                session.their_jobs.retain(|_, id| live.contains(id));
            }
        }
        let session = self.session(slot);
        let eager = session.is_some_and(|session| session.eager);
        let granted_bytes = session.map_or(0, |session| session.granted_bytes);
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        let count = entry.job.geometry.count();
        let anchored = entry.job.is_anchored();
        let complete = entry.job.is_complete();
        let closed = entry.peers.get(&slot).filter(|peer| peer.closed);
        if let Some(peer) = closed {
            if peer.their_id == Some(open.job) {
                // The other copy of an OPEN_JOB that was closed since.
                return;
            }
            entry.peers.remove(&slot);
        }
        let peer = entry.peer(slot, now);
        let first = peer.opened_at.is_none();
        let new_claim = peer.claimed_count != Some(open.count);
        peer.their_id = Some(open.job);
        peer.opened_at.get_or_insert(now);
        peer.claimed_count = Some(open.count);
        peer.claimed_bytes = open.block_bytes;
        peer.nonce = open.nonce;
        peer.pushed_to_us = eager;
        peer.granted_bytes = granted_bytes;
        peer.claims_all = open.sender_has_all;
        if open.sender_has_all && open.count == count {
            peer.note_has(0..count);
        }
        if new_claim && !complete {
            entry.asks.dirty = true;
        }
        let peer = entry.peer(slot, now);
        if first {
            // It has its own source: what it lacks it asks for.
            peer.stop_pushing();
            if !peer.told {
                peer.open_pending = false;
            }
            if anchored {
                entry.announce_all(slot);
            }
            if !complete {
                entry.asks.dirty = true;
                entry.expect_push(slot, now);
            }
        }
        if anchored && new_claim && open.count != count {
            self.blame(slot, Refusal::Count);
        }
        self.wake(slot);
    }

    /// Says CLOSE_JOB about a job of the peer's.
    pub(in crate::relay) fn close_at(&mut self, slot: u32, their_id: u16, reason: CloseReason) {
        self.say_close(slot, JobRef::of_receiver(their_id), reason);
    }

    fn say_close(&mut self, slot: u32, job: JobRef, reason: CloseReason) {
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        let sent = session.push_control(&Message::CloseJob(CloseJob { job, reason }));
        self.control_sent(slot, sent);
    }

    /// A session is established: tell it of the jobs at hand.
    pub(in crate::relay) fn offer_jobs(&mut self, slot: u32) {
        // Only the newest: older blocks are old news, and one without an anchor may be no block.
        let mut anchored = self.jobs.values().rev();
        let newest = anchored.find(|entry| entry.job.is_anchored());
        if let Some(id) = newest.map(|entry| entry.id) {
            self.tell(slot, id);
        }
    }

    /// Opens a job to a peer: OPEN_JOB on both transports, and the first flight that it wants.
    pub(in crate::relay) fn tell(&mut self, slot: u32, id: u16) {
        let now = self.now;
        let Some(session) = self.session(slot) else {
            return;
        };
        let plan = FlightPlan {
            level: session.push_level().min(3),
            budget_bytes: session.params.push_budget_bytes(),
            lossy: session.route(now) != Route::Tcp,
            loss: session.loss.share(),
            draw: session.their_connection,
        };
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        let peer = entry.peer(slot, now);
        if peer.is_aware() || peer.closed {
            return;
        }
        let may_tell = self.may_tell(slot);
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        let peer = entry.peer(slot, now);
        peer.waits = !may_tell;
        if !may_tell {
            return;
        }
        peer.told = true;
        entry.push_first_flight(slot, plan, now);
        // OPEN_JOB says so itself when all is here.
        if !entry.job.is_complete() {
            entry.announce_all(slot);
        }
        self.push_predicted(id, slot);
        let Some(entry) = self.jobs.get(&id) else {
            return;
        };
        let header = entry.job.header;
        let message = open_message(id, &entry.job, &header);
        self.forget_pulse(slot);
        let sent = match self.sessions.get_mut(slot as usize) {
            Some(Some(session)) => session.push_control(&message),
            _ => return,
        };
        self.control_sent(slot, sent);
        self.wake(slot);
    }

    /// A peer has a block whole: others that waited for a place among its jobs may be opened to it, the oldest first.
    pub(in crate::relay) fn tell_waiting(&mut self, slot: u32) {
        let entries = self.jobs.values().filter(|entry| {
            let peer = entry.peers.get(&slot);
            peer.is_some_and(|peer| peer.waits)
        });
        let waiting: Vec<u16> = entries.map(|entry| entry.id).collect();
        waiting.into_iter().for_each(|id| self.tell(slot, id));
    }

    /// Whether another job may be opened to a peer (SET_PARAMS key 7). If it has as many as it takes, the
    /// oldest that it has whole makes room.
    fn may_tell(&mut self, slot: u32) -> bool {
        let most = self.session(slot).map_or(0, |session| {
            usize::from(session.params.max_jobs.unwrap_or(DEFAULT_MAX_JOBS))
        });
        let open = || {
            let entries = self.jobs.values();
            entries.filter(|entry| {
                let peer = entry.peers.get(&slot);
                peer.is_some_and(|peer| peer.told && !peer.closed)
            })
        };
        if open().count() < most {
            return true;
        }
        let whole = open().filter_map(|entry| {
            let peer = entry.peers.get(&slot).filter(|peer| peer.has_all())?;
            debug_assert!(peer.told);
            Some((entry.job.completed?, entry.id))
        });
        let Some((_, oldest)) = whole.min().filter(|_| most > 0) else {
            return false;
        };
        if let Some(peer) = self
            .jobs
            .get_mut(&oldest)
            .and_then(|entry| entry.peers.get_mut(&slot))
        {
            peer.close();
        }
        let job = JobRef::of_sender(oldest);
        self.say_close(slot, job, CloseReason::Done);
        true
    }

    /// The claimed count led nowhere: begin again with another peer's claim, if there is one.
    pub(in crate::relay) fn recount(&mut self, id: u16) {
        let now = self.now;
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        let Some(claimant) = entry.next_claim() else {
            return;
        };
        let claim = entry.peers.get(&claimant);
        let Some((count, bytes)) =
            claim.and_then(|peer| Some((peer.claimed_count?, peer.claimed_bytes)))
        else {
            return;
        };
        let Some(geometry) = Geometry::new(count) else {
            return;
        };
        let (peers, old_count) = (std::mem::take(&mut entry.peers), entry.job.geometry.count());
        let job = entry.job.with_count(geometry, bytes);
        let draw = self.random.random();
        let (cold, last_news, recounts) = (entry.asks.cold, entry.last_news, entry.recounts);
        **entry = JobEntry::new(id, job, draw, now);
        entry.asks.cold = cold;
        entry.last_news = last_news;
        entry.recounts = recounts + 1;
        entry.counted_from = Some(claimant);
        for (slot, mut old) in peers {
            let peer = entry.peer(slot, now);
            peer.their_id = old.their_id;
            peer.opened_at = old.opened_at;
            peer.claimed_count = old.claimed_count;
            peer.claimed_bytes = old.claimed_bytes;
            peer.nonce = old.nonce;
            peer.pushed_to_us = old.pushed_to_us;
            peer.granted_bytes = old.granted_bytes;
            peer.claims_all = old.claims_all;
            peer.closed = old.closed;
            peer.take_kept(&mut old, old_count);
            if peer.claims_all && peer.claimed_count == Some(count) {
                peer.note_has(0..count);
            }
        }
    }
}
