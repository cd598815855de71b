//! Requests, their withdrawal, and the answers that say no.

use std::time::Duration;

use super::leaves_below;
use crate::relay::Engine;
use crate::relay::peer::{HashWant, MAX_HASH_WANTS, MAX_SERVED_BLOCKS, Set, ranges};
use crate::relay::stats::Refusal;
use crate::wire::{
    Cancel, CloseJob, GetHashes, GetTxs, HashlessWorkout, JobRef, Kind, Message, MessageType,
    Missing, MissingReason, Tree, Whose,
};

/// How long a peer that said MISSING is left alone, doubled each time: one that is throttled or lacks what it
/// was asked for would say so again after each round trip.
const MISSING_PAUSE: Duration = Duration::from_millis(50);

impl Engine {
    pub(super) fn take_get_hashes(&mut self, slot: u32, get: &GetHashes<'_>) {
        let mut throttled = false;
        self.with_job(slot, get.job, |engine, entry| {
            if entry.counts_otherwise(slot) {
                return Ok(());
            }
            let geometry = entry.job.geometry;
            let depth = geometry.depth();
            let peer = entry.peers.get_mut(&slot).ok_or(Refusal::UnknownJob)?;
            throttled = peer.served_bytes > engine.most_served();
            // More stretches than wants may stand are not even looked at.
            let stretches = get.nodes.ranges().take(MAX_HASH_WANTS + 1);
            throttled |= stretches.clone().count() > MAX_HASH_WANTS;
            if throttled {
                return Err(Refusal::Unsolicited);
            }
            for (level, range) in stretches {
                let shape = match (get.tree, get.short) {
                    (Tree::Txid, _) => level == depth && range == (0..1) && get.around == 0,
                    (Tree::Witness, true) => level == depth,
                    (Tree::Witness, false) => get.around <= level,
                };
                if !shape {
                    return Err(Refusal::Geometry);
                }
                // Nodes that do not exist are passed over (STR-7).
                let range = range.start..range.end.min(geometry.width(level));
                if range.is_empty() {
                    continue;
                }
                let want = HashWant {
                    tree: get.tree,
                    short: get.short,
                    around: get.around,
                    level,
                    range,
                };
                if !peer.want_hashes(want) {
                    throttled = true;
                    return Err(Refusal::Unsolicited);
                }
            }
            Ok(())
        });
        if throttled {
            let reason = MissingReason::Throttled;
            self.send_missing(slot, get.job, reason, MessageType::GetHashes, get.nodes);
        }
        self.wake(slot);
    }

    /// Bytes that one peer is served in one job at most.
    pub(super) fn most_served(&self) -> u64 {
        u64::from(self.config.max_block_bytes) * MAX_SERVED_BLOCKS
    }

    pub(super) fn take_get_transactions(&mut self, slot: u32, get: &GetTxs<'_>) {
        let mut throttled = false;
        self.with_job(slot, get.job, |engine, entry| {
            if entry.counts_otherwise(slot) {
                return Ok(());
            }
            let depth = entry.job.geometry.depth();
            let count = entry.job.geometry.count();
            let peer = entry.peers.get_mut(&slot).ok_or(Refusal::UnknownJob)?;
            if peer.served_bytes > engine.most_served() {
                throttled = true;
                return Err(Refusal::Unsolicited);
            }
            // A set first: a thousand runs may all name the whole block.
            let mut wanted = Set::repeat(false, count as usize);
            for (level, range) in get.nodes.ranges() {
                if level != depth {
                    return Err(Refusal::Geometry);
                }
                // Nodes that do not exist are passed over (STR-7).
                let range = range.start.min(count) as usize..range.end.min(count) as usize;
                if let Some(bits) = wanted.get_mut(range) {
                    bits.fill(true);
                }
            }
            for leaf in ranges(&wanted).flatten() {
                let verified = entry.job.transaction(leaf).is_some();
                peer.want(leaf, verified);
            }
            Ok(())
        });
        if throttled {
            let reason = MissingReason::Throttled;
            self.send_missing(slot, get.job, reason, MessageType::GetTxs, get.nodes);
        }
        self.wake(slot);
    }

    pub(super) fn send_missing(
        &mut self,
        slot: u32,
        job: JobRef,
        reason: MissingReason,
        request: MessageType,
        nodes: HashlessWorkout<'_>,
    ) {
        // Named from our side now.
        let job = match job.whose {
            Whose::Sender => JobRef::of_receiver(job.id),
            Whose::Receiver => JobRef::of_sender(job.id),
        };
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        let sent = session.push_control(&Message::Missing(Missing {
            job,
            reason,
            request,
            nodes,
        }));
        self.control_sent(slot, sent);
    }

    pub(super) fn take_missing(&mut self, slot: u32, missing: &Missing<'_>) {
        let now = self.now;
        self.with_job(slot, missing.job, |_, entry| {
            // Whatever it was asked for is asked of others, and of it again after a while.
            entry.asks.peer_gone(slot);
            let (depth, count) = (entry.job.geometry.depth(), entry.job.geometry.count());
            let Some(peer) = entry.peers.get_mut(&slot) else {
                return Ok(());
            };
            if missing.reason == MissingReason::Block {
                peer.close();
                return Ok(());
            }
            peer.outstanding = 0;
            peer.requests.clear();
            if missing.reason == MissingReason::Nodes && missing.request == MessageType::GetTxs {
                for (level, nodes) in missing.nodes.ranges() {
                    peer.note_lacks(leaves_below(depth, count, level, &nodes));
                }
            }
            peer.stalls += 1;
            peer.paused_until = Some(now + MISSING_PAUSE * (1 << peer.stalls.min(6)));
            Ok(())
        });
    }

    pub(super) fn take_cancel(&mut self, slot: u32, cancel: &Cancel<'_>) {
        self.with_job(slot, cancel.job, |_, entry| {
            if entry.counts_otherwise(slot) {
                return Ok(());
            }
            let (depth, count) = (entry.job.geometry.depth(), entry.job.geometry.count());
            let peer = entry.peers.get_mut(&slot).ok_or(Refusal::UnknownJob)?;
            let tree = match cancel.kind {
                Kind::TxidHashes => Tree::Txid,
                Kind::WitnessHashes => Tree::Witness,
                Kind::Transactions => {
                    for (level, range) in cancel.nodes.ranges() {
                        if level != depth {
                            return Err(Refusal::Geometry);
                        }
                        peer.cancel(range.start.min(count)..range.end.min(count));
                    }
                    return Ok(());
                }
            };
            for (level, range) in cancel.nodes.ranges().take(MAX_HASH_WANTS) {
                peer.cancel_hashes(tree, level, &range);
            }
            Ok(())
        });
    }

    pub(super) fn take_close_job(&mut self, slot: u32, close: &CloseJob) {
        if close.job.whose == Whose::Sender
            && let Some(session) = self.session_mut(slot)
        {
            session.closed_jobs.insert(close.job.id);
            session.excess_jobs = session.excess_jobs.saturating_sub(1);
            if session.offers.forget(close.job.id) {
                return;
            }
        }
        let Some(id) = self.resolve(slot, close.job) else {
            return;
        };
        let mut told = false;
        if let Some(entry) = self.jobs.get_mut(&id) {
            entry.asks.peer_gone(slot);
            if let Some(peer) = entry.peers.get_mut(&slot) {
                told = peer.told;
                peer.close();
            }
        }
        self.settle_job(id);
        if told {
            // It may take another now.
            self.tell_waiting(slot);
            self.offer_jobs(slot);
        }
    }
}
