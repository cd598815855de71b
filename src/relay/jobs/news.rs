//! What becomes of a job's news, and how a job ends.

use super::*;
use crate::wire::ParityKind;

impl Engine {
    /// Deals with what a job has to say.
    pub(in crate::relay) fn settle_job(&mut self, id: u16) {
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
        let anchored = news.contains(&News::Anchored);
        for item in news {
            self.settle_news(id, item);
        }
        let ready = self.jobs.get(&id).is_some_and(|entry| entry.job.is_ready());
        if ready {
            self.complete_job(id);
        }
        // Later, so that OPEN_JOB says what the same datum may have completed.
        if anchored {
            self.anchored(id);
        }
        if ready {
            self.evict_jobs();
        }
        self.wake_peers(id);
    }

    pub(in crate::relay) fn settle_news(&mut self, id: u16, news: News) {
        let now = self.now;
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        match news {
            News::Anchored => {}
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
                        entry.push_description(slot, chunk, now);
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
                entry.asks.want_leaves_below(&entry.job, node);
            }
            News::Blame(source, refusal) => {
                if let Source::Peer(session) | Source::Mempool(session) = source
                    && let Some(slot) = self.live(session)
                {
                    if let Some(entry) = self.jobs.get_mut(&id) {
                        entry.distrust(slot);
                    }
                    self.blame(slot, refusal);
                }
            }
            News::Invalid(reason) => self.invalidate_job(id, reason),
        }
    }

    /// The header's work, the coinbase, the witness root and the count are proven: pass the job on.
    pub(in crate::relay) fn anchored(&mut self, id: u16) {
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
    pub(in crate::relay) fn complete_job(&mut self, id: u16) {
        let now = self.now;
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        let assembled = entry.job.assemble(now, self.shelf.as_deref());
        entry.asks.dirty = true;
        match assembled {
            Ok(bytes) => {
                let whole = CompleteBlock {
                    transactions: entry.job.transactions().cloned().collect(),
                    lacked: entry.lacked.clone(),
                    bytes,
                };
                self.events.push_back(Event::BlockComplete {
                    block: entry.job.hash,
                    height: entry.job.height,
                    whole: Arc::new(whole),
                    elapsed: now.since(entry.job.opened),
                    requests: entry.requests_sent,
                    local: entry.job.local,
                });
                entry.parts = Parts::default();
                self.predict(id);
                self.note_need(id);
                self.judge_parity(id);
                self.cancel_rest(id);
                self.rotate_eager(id);
            }
            Err(reason) => self.invalidate_job(id, reason),
        }
    }

    /// Remembers what a block from peers lacked here, and grants accordingly.
    fn note_need(&mut self, id: u16) {
        if let Some(entry) = self.jobs.get(&id)
            && !entry.job.local
            && let Some(need) = entry.parity_needed()
        {
            self.needs.note(need, u64::from(entry.job.block_bytes));
            self.renew_grants();
        }
    }

    /// Compares parity that came with the block's own: whoever sent other is named, whatever became of it.
    fn judge_parity(&mut self, id: u16) {
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        let parity = std::mem::take(&mut entry.parity);
        if parity.is_empty() {
            return;
        }
        let Some(coded) = entry.job.coded(ParityKind::Transactions) else {
            return;
        };
        for slot in parity.liars(coded) {
            self.blame(slot, Refusal::Parity);
        }
    }

    /// What is still asked of peers is not wanted any longer.
    pub(in crate::relay) fn cancel_rest(&mut self, id: u16) {
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        for (slot, peer) in &mut entry.peers {
            peer.requests.clear();
            let rest = entry.asks.take_outstanding(*slot);
            if !rest.is_empty() {
                peer.requests
                    .push_back(crate::relay::peer::Request::Cancel(rest));
            }
            peer.outstanding = 0;
        }
    }

    /// Complete jobs beyond those that are kept make room, the oldest first. With them their transactions leave
    /// the cache: until then a racing block, or one of another branch, may want them.
    pub(in crate::relay) fn evict_jobs(&mut self) {
        let done = self.jobs.values().filter_map(|entry| {
            let completed = entry.job.completed?;
            Some((completed, entry.id, entry.is_lacked()))
        });
        let mut done: Vec<(Time, u16, bool)> = done.collect();
        done.sort_unstable();
        // The newest stay in any case: those that send them may not have heard yet that they are here.
        done.truncate(done.len().saturating_sub(MAX_KEPT_JOBS));
        let lacked = done.iter().filter(|(.., is_lacked)| *is_lacked).count();
        let mut too_many = lacked.saturating_sub(MAX_LACKED_JOBS - MAX_KEPT_JOBS);
        let leaving = done.into_iter().filter(|(.., is_lacked)| {
            let leaves = !is_lacked || too_many > 0;
            too_many = too_many.saturating_sub(usize::from(*is_lacked));
            leaves
        });
        let leaving: Vec<u16> = leaving.map(|(_, id, _)| id).collect();
        for id in leaving {
            if let Some(entry) = self.jobs.get(&id) {
                for transaction in entry.job.transactions().skip(1) {
                    self.mempool.remove(&transaction.wtxid());
                }
            }
            self.close_job(id, CloseReason::Done, "old");
        }
    }

    /// Ends a job.
    pub(in crate::relay) fn close_job(&mut self, id: u16, reason: CloseReason, text: &'static str) {
        let Some(entry) = self.jobs.remove(&id) else {
            return;
        };
        self.jobs_by_hash.remove(&entry.job.hash);
        if entry.job.is_complete() {
            self.passed.insert(entry.job.hash);
        }
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

    pub(in crate::relay) fn note_delivery(&mut self, source: Source) {
        if let Source::Peer(session) | Source::Mempool(session) = source
            && let Some(slot) = self.live(session)
            && let Some(session) = self.session_mut(slot)
        {
            session.chunks_delivered += 1;
        }
    }

    /// The peer that completed most chunks becomes eager, in place of one that completed none.
    pub(in crate::relay) fn rotate_eager(&mut self, id: u16) {
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
            .filter(|slot| !self.keeps_eager_place(*slot, best))
            .find(|slot| delivered.iter().all(|(known, _)| known != slot));
        if let Some(idle) = idle {
            self.set_eager(idle, false);
            self.set_eager(best, true);
        }
    }
}
