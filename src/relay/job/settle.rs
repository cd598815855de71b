//! What follows from a datum: leaves verified, candidates refuted, liars named.

use super::*;

impl Job {
    /// Holds a transaction that cannot be checked yet, if its source may have more held.
    pub(super) fn hold(
        &mut self,
        index: u32,
        transaction: Transaction,
        source: Source,
    ) -> Result<(), Refusal> {
        let bytes = transaction.len() as u64;
        let held = self.held_bytes.entry(source).or_default();
        if matches!(source, Source::Peer(_)) && *held + bytes > u64::from(self.max_block_bytes) {
            return Err(Refusal::Unconnected);
        }
        *held += bytes;
        self.set_leaf(index, Leaf::Held(transaction, source));
        Ok(())
    }

    /// Empties a leaf that holds a transaction without proof.
    fn release(&mut self, index: u32) {
        if let Some(Leaf::Held(transaction, source)) = self.leaves.get(index as usize) {
            if let Some(held) = self.held_bytes.get_mut(source) {
                *held = held.saturating_sub(transaction.len() as u64);
            }
            self.set_leaf(index, Leaf::Missing);
        }
    }

    /// Draws the consequences of an offer to the tree.
    pub(super) fn settle(&mut self, offer: Offer<Source>, source: Source) {
        match offer {
            Offer::Verified { top } => self.verify_below(top, source),
            Offer::Mismatch { at } | Offer::EqualSiblings { at } => self.contradict(at, source),
            Offer::Known
            | Offer::Unconnected
            | Offer::Conflict { .. }
            | Offer::Full
            | Offer::NotALap(_) => {}
        }
        let refuted: Vec<(Node, Source)> = self.tree.drain_refuted().collect();
        for (node, by) in refuted {
            self.contradict(node, by);
        }
        let contradicted: Vec<Node> = self.tree.drain_contradicted().collect();
        for node in contradicted {
            self.news.push(News::Contradiction(node));
        }
    }

    /// What is held below `at` contradicts it; `source` gave the datum that showed it.
    pub(super) fn contradict(&mut self, at: Node, source: Source) {
        let leaves = self.geometry.leaves(at);
        if at.level() == self.geometry.depth() {
            let held_by = match self.leaf(leaves.start) {
                Leaf::Held(_, by) => Some(*by),
                Leaf::Missing | Leaf::Verified(_) => None,
            };
            match (held_by, source) {
                (Some(_), _) => self.refute(leaves.start),
                (None, Source::Peer(_)) => self.news.push(News::Blame(source, Refusal::Hashes)),
                (None, _) => {}
            }
            return;
        }
        let sole = match self.tree.sole_source(at) {
            Some(sole) => sole,
            // Several answer for what is held there: whoever gave the last of it need not be the one that lied.
            None if self.tree.holds_below(at) => {
                self.news.push(News::Contradiction(at));
                return;
            }
            None => source,
        };
        let everything_from_one = leaves.clone().all(|leaf| match self.leaf(leaf) {
            Leaf::Held(_, by) => *by == sole,
            Leaf::Missing => true,
            Leaf::Verified(_) => false,
        });
        if let (Source::Peer(_), true) = (sole, everything_from_one) {
            self.news.push(News::Blame(sole, Refusal::Leaf));
            self.tree.forget(at, |by| by != sole);
            self.drop_held(leaves.clone(), |by| by == sole);
            self.news
                .push(News::ChunkDescribed(self.chunk_of(leaves.start)));
        } else {
            self.news.push(News::Contradiction(at));
        }
    }

    /// A held transaction turned out not to be the leaf's.
    pub(super) fn refute(&mut self, index: u32) {
        let held = match self.leaf(index) {
            Leaf::Held(transaction, source) => Some((transaction.wtxid(), *source)),
            Leaf::Missing | Leaf::Verified(_) => None,
        };
        let Some((wtxid, source)) = held else { return };
        let node = self.geometry.leaf(index);
        let truth = node.and_then(|node| self.tree.verified(node)).copied();
        if truth == Some(wtxid) {
            return;
        }
        self.release(index);
        match source {
            // The short id decides: if it is not the true leaf's, whoever gave it lied; else two
            // transactions share it.
            Source::Mempool(session) => self.check_claim(index, truth, session),
            Source::Peer(_) => self.news.push(News::Blame(source, Refusal::Leaf)),
            Source::Local => {}
        }
        self.news.push(News::ChunkDescribed(self.chunk_of(index)));
    }

    pub(super) fn check_claim(
        &mut self,
        index: u32,
        truth: Option<Hash>,
        session: crate::relay::SessionId,
    ) {
        let chunk = self.chunk_of(index);
        let start = self.chunk_leaves(chunk).start;
        let header = self.header;
        let Some(slot) = self.chunks.get_mut(chunk as usize) else {
            return;
        };
        let (Some(claim), Some(truth)) = (&slot.claim, truth) else {
            return;
        };
        let id = claim.ids.get((index - start) as usize);
        let key = ShortIdKey::new(&header, claim.nonce);
        if id.is_some_and(|id| !id.fits(&key, &truth)) {
            let source = claim.source;
            slot.claim = None;
            debug_assert!(source == Source::Peer(session));
            self.news.push(News::Blame(source, Refusal::ShortIds));
        }
    }

    /// All leaf hashes of a chunk are known: what was claimed for it must be theirs, found in the cache or not.
    fn check_whole_claim(&mut self, chunk: u32) {
        let range = self.chunk_leaves(chunk);
        let Some(claim) = self
            .chunks
            .get_mut(chunk as usize)
            .and_then(|chunk| chunk.claim.take())
        else {
            return;
        };
        let key = ShortIdKey::new(&self.header, claim.nonce);
        let lie = range.zip(&claim.ids).any(|(leaf, id)| {
            let node = self.geometry.leaf(leaf);
            let truth = node.and_then(|node| self.tree.verified(node));
            truth.is_some_and(|truth| !id.fits(&key, truth))
        });
        if lie {
            self.news.push(News::Blame(claim.source, Refusal::ShortIds));
        }
    }

    /// Everything offered or held below `top` is verified now.
    pub(super) fn verify_below(&mut self, top: Node, source: Source) {
        let leaves = self.geometry.leaves(top);
        if leaves.is_empty() {
            return;
        }
        let first = self.chunk_of(leaves.start);
        let last = self.chunk_of(leaves.end - 1);
        for index in leaves {
            self.verify_leaf(index);
        }
        for chunk in first..=last {
            self.finish_chunk(chunk, source);
        }
        self.check_count();
    }

    pub(super) fn verify_leaf(&mut self, index: u32) {
        let truth = self
            .geometry
            .leaf(index)
            .and_then(|node| self.tree.verified(node))
            .copied();
        let Some(truth) = truth else { return };
        match self.leaf(index) {
            Leaf::Held(transaction, _) if transaction.wtxid() == truth => {
                let transaction = transaction.clone();
                self.set_verified(index, transaction);
            }
            Leaf::Held(..) => self.refute(index),
            Leaf::Missing | Leaf::Verified(_) => {}
        }
    }

    pub(super) fn set_verified(&mut self, index: u32, transaction: Transaction) {
        self.release(index);
        if index >= self.geometry.count() || matches!(self.leaf(index), Leaf::Verified(_)) {
            return;
        }
        self.body_bytes += transaction.len() as u64;
        self.set_leaf(index, Leaf::Verified(transaction));
        self.verified_leaves += 1;
        self.news.push(News::LeafVerified(index));
        if self.body_bytes > u64::from(self.max_block_bytes) {
            self.news.push(News::Invalid("block too large"));
        }
    }

    /// Notes what has become of a chunk, and of the block.
    pub(super) fn finish_chunk(&mut self, chunk: u32, source: Source) {
        let range = self.chunk_leaves(chunk);
        let depth = self.geometry.depth();
        let Some(slot) = self.chunks.get_mut(chunk as usize) else {
            return;
        };
        if !slot.hashes_known && self.tree.all_verified(depth, range.clone()) {
            slot.hashes_known = true;
            self.news.push(News::ChunkHashes(chunk));
            self.check_whole_claim(chunk);
        }
        let Some(slot) = self.chunks.get_mut(chunk as usize) else {
            return;
        };
        if !slot.done && slot.hashes_known {
            let all = range
                .clone()
                .all(|leaf| matches!(self.leaves.get(leaf as usize), Some(Leaf::Verified(_))));
            if all {
                slot.done = true;
                slot.completed_by = Some(source);
                self.verified_chunks += 1;
                self.news.push(News::ChunkDone(chunk, source));
            }
        }
        self.check_count();
    }

    /// The count is proven once the last leaf is verified; the job can be passed on then.
    pub(super) fn check_count(&mut self) {
        let last = self.geometry.leaf(self.geometry.count() - 1);
        if !self.anchor.count_proven {
            self.anchor.count_proven = last.is_some_and(|leaf| self.tree.verified(leaf).is_some());
        }
        if !self.anchor.announced && self.anchor.count_proven && self.has_coinbase() {
            self.anchor.announced = true;
            self.news.push(News::Anchored);
        }
    }

    /// Drops held transactions of a range whose source `which` names.
    pub(super) fn drop_held(
        &mut self,
        range: std::ops::Range<u32>,
        which: impl Fn(Source) -> bool,
    ) {
        for index in range {
            if matches!(self.leaf(index), Leaf::Held(_, by) if which(*by)) {
                self.release(index);
            }
        }
    }
}
