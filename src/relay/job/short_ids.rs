//! Short ids of a chunk, and the transactions that the cache has for them.

use super::*;

impl Job {
    /// Takes short ids of a whole chunk and looks for their transactions in the cache.
    pub(in crate::relay) fn take_short_ids(
        &mut self,
        chunk: u32,
        ids: Vec<ClaimedId>,
        nonce: u64,
        mempool: &Mempool,
        source: Source,
    ) -> Result<(), Refusal> {
        let range = self.chunk_leaves(chunk);
        if range.is_empty() || ids.len() as u64 != u64::from(range.end - range.start) {
            return Err(Refusal::Geometry);
        }
        let Some(slot) = self.chunks.get_mut(chunk as usize) else {
            return Err(Refusal::Geometry);
        };
        if slot.is_described() {
            return Ok(());
        }
        slot.claim = Some(Claim {
            ids: ids.clone(),
            nonce,
            source,
        });
        let via = match source {
            Source::Peer(session) => Source::Mempool(session),
            other => other,
        };
        if let Some(position) = self.index_for(nonce, mempool) {
            for (leaf, id) in range.clone().zip(&ids) {
                let ClaimedId::Short(id) = *id else { continue };
                if !matches!(self.leaf(leaf), Leaf::Missing) {
                    continue;
                }
                let found = self.indexes.get(position).and_then(|(_, index)| {
                    match index.resolve(mempool, id) {
                        Resolved::Unique(transaction) => Some(transaction.clone()),
                        // An ambiguous one is asked for: one in 250,000 blocks has any.
                        Resolved::Missing | Resolved::Ambiguous(_) => None,
                    }
                });
                if let Some(transaction) = found {
                    // What is found may be another transaction with the same short id: nobody's fault.
                    let _ = self.take_transaction(leaf, transaction, via);
                }
            }
        }
        for (leaf, id) in range.zip(&ids) {
            if let ClaimedId::Full(wtxid) = id {
                self.take_known_wtxid(leaf, wtxid, mempool, source);
            }
        }
        self.news.push(News::ChunkDescribed(chunk));
        Ok(())
    }

    /// Takes the whole wtxid of a leaf, as a short id's stand-in, and looks for it in the cache.
    pub(in crate::relay) fn take_known_wtxid(
        &mut self,
        leaf: u32,
        wtxid: &Hash,
        mempool: &Mempool,
        source: Source,
    ) {
        let via = match source {
            Source::Peer(session) => Source::Mempool(session),
            other => other,
        };
        if let Some(transaction) = mempool.by_wtxid(wtxid).cloned()
            && matches!(self.leaf(leaf), Leaf::Missing)
        {
            let _ = self.take_transaction(leaf, transaction, via);
        }
    }

    pub(in crate::relay) fn index_for(&mut self, nonce: u64, mempool: &Mempool) -> Option<usize> {
        if let Some(position) = self.indexes.iter().position(|(known, _)| *known == nonce) {
            return Some(position);
        }
        // The usual nonce has its place whatever others ask for.
        let others = self.indexes.iter().filter(|(known, _)| *known != 0).count();
        if (nonce != 0 && others + 1 >= MAX_NONCES) || mempool.is_empty() {
            return None;
        }
        let key = ShortIdKey::new(&self.header, nonce);
        self.indexes.push((nonce, mempool.index(key)));
        Some(self.indexes.len() - 1)
    }
}
