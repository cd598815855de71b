//! Asking for the anchor.

use super::*;

impl Asks {
    /// Asks for what the anchor lacks once the first flight is late.
    pub(super) fn review_anchor(
        &mut self,
        job: &Job,
        peers: &mut JobPeers,
        views: &[PeerView],
        parent: &PeerView,
        now: Time,
    ) {
        if job.is_anchored() {
            return;
        }
        // Every push level above 0 brings the anchor, eager or not.
        let grace = parent.round_trip + PATIENCE;
        let deadline = self.last_flight + grace;
        if now < deadline {
            self.wake_at(deadline);
            return;
        }
        self.review_coinbase(job, peers, views, parent, now);
        let geometry = job.geometry;
        if geometry.count() == 1 {
            return;
        }
        if !job.has_branch() {
            self.ask_hashes(HashWant {
                tree: Tree::Txid,
                short: false,
                around: 0,
                level: geometry.depth(),
                range: 0..1,
            });
        }
        let row = first_row_level(&job.geometry);
        if job.verified(geometry.root()).is_none() || !row_is_known(job, row) {
            self.ask_hashes(HashWant {
                tree: Tree::Witness,
                short: false,
                around: 0,
                level: row,
                range: 0..geometry.width(row),
            });
        }
        let count = geometry.count();
        self.ask_hashes(HashWant {
            tree: Tree::Witness,
            short: false,
            around: 0,
            level: geometry.depth(),
            range: count - 1..count,
        });
    }

    /// Asks for the coinbase: the parent first, then the others in turn, since whoever keeps it back, or sends one
    /// with another witness, keeps back the block.
    fn review_coinbase(
        &mut self,
        job: &Job,
        peers: &mut JobPeers,
        views: &[PeerView],
        parent: &PeerView,
        now: Time,
    ) {
        if job.transaction(0).is_some() {
            return;
        }
        let asked = self.leaf_slots.first().copied().unwrap_or(NOBODY);
        let tries = self.coinbase.map_or(0, |(_, tries)| tries);
        if let Some((at, _)) = self.coinbase {
            let holder = views.iter().find(|view| view.slot == asked);
            let patience = holder.unwrap_or(parent).patience() * 2;
            // At once when it is idle: it came and did not fit, or its holder is gone.
            let wait = match asked == NOBODY {
                true => PATIENCE,
                false => patience_of(patience, tries, views),
            };
            // A large one on its way in parts may take longer, but not for ever.
            let holder = peers.get(&asked).filter(|peer| peer.parts_since.is_some());
            let progress = holder.map_or(at, |peer| peer.last_progress);
            let latest = at + MAX_PATIENCE * (1 + tries);
            let due = (at + wait).max((progress + wait).min(latest));
            if now < due {
                self.wake_at(due);
                return;
            }
        }
        let slot = match self.coinbase {
            None => parent.slot,
            Some(_) => next_view(views, self.coinbase_slot),
        };
        self.coinbase = Some((now, tries + 1));
        self.coinbase_slot = slot;
        let mut asks = Vec::new();
        if slot == asked {
            asks.push((slot, std::iter::once(0..1).collect()));
        } else {
            self.assign(peers, 0, (asked, slot), now, &mut asks);
        }
        self.send_asks(peers, asks);
        self.wake_at(now + parent.patience() * 2);
    }
}
