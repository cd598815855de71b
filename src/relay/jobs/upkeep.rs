//! The upkeep of jobs: lost datagrams, the schedule, clocks, sessions that go.

use super::*;

impl Engine {
    /// A session is gone: so is its part in every job.
    pub(in crate::relay) fn leave_jobs(&mut self, slot: u32) {
        let ids: Vec<u16> = self.jobs.keys().copied().collect();
        for id in ids {
            if let Some(entry) = self.jobs.get_mut(&id) {
                entry.peers.remove(&slot);
                entry.asks.peer_gone(slot);
                entry.parts.forget_peer(slot);
                entry.parity.forget(slot);
            }
        }
    }

    /// What was in a lost datagram goes again, if it is still of use.
    pub(in crate::relay) fn resend(&mut self, slot: u32, item: Item) {
        let id = match &item {
            Item::Open(id)
            | Item::Hashes(id, _)
            | Item::Transactions(id, _)
            | Item::Part(id, ..)
            | Item::Request(id, _)
            | Item::State(id) => *id,
            Item::Parity => return,
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
            Item::Parity => {}
            Item::State(_) => peer.state_news = peer.has_unacknowledged(),
        }
    }

    /// Runs the schedule of every job in which something has changed.
    pub(in crate::relay) fn review_jobs(&mut self) {
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
            let pushers = views.iter().filter(|view| view.eager);
            let round_trip = pushers
                .map(|view| view.round_trip)
                .max()
                .unwrap_or_default();
            entry.spare_for_parity(round_trip, now);
            entry.asks.review(&entry.job, &mut entry.peers, &views, now);
            let withheld = std::mem::take(&mut entry.asks.withheld);
            for slot in withheld {
                self.blame(slot, Refusal::Withheld);
            }
            self.wake_peers(id);
        }
    }

    pub(in crate::relay) fn views(&self, id: u16) -> Vec<PeerView> {
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

    /// Whether a JOB_STATE may or must go to a peer now.
    fn state_is_due(&self, entry: &JobEntry, slot: u32) -> bool {
        let Some(session) = self.session(slot) else {
            return false;
        };
        let due = entry.state_deadline(slot, session.sent.rtt().smoothed());
        due.is_some_and(|due| due <= self.now)
    }

    /// Wakes the peers of a job to whom something may go now.
    pub(in crate::relay) fn wake_peers(&mut self, id: u16) {
        let Some(entry) = self.jobs.get(&id) else {
            return;
        };
        let slots: Vec<u32> = entry
            .peers
            .iter()
            .filter(|(slot, peer)| peer.may_send() || self.state_is_due(entry, **slot))
            .map(|(slot, _)| *slot)
            .collect();
        slots.into_iter().for_each(|slot| self.wake(slot));
    }

    /// The clocks of the jobs.
    pub(in crate::relay) fn job_timeouts(&mut self) {
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
            if entry.recount_at().is_some_and(|at| at <= now) {
                self.recount(id);
            }
        }
    }
}
