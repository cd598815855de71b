//! What the node itself hands in: its own blocks and transactions.

use bytes::Bytes;

use super::Engine;
use super::event::{Source, SubmitRefusal};
use super::job::JobStart;
use super::parity::amount::EMPTY_CACHE;
use super::stats::Refusal;
use crate::mempool::{BlockLimits, Insert, Transaction, split_block};
use crate::merkle::{Geometry, Hash, hash};
use crate::time::Time;
use crate::wire::CloseReason;

impl Engine {
    /// Takes a whole serialized block from this node's own side and relays it. Gives its hash
    /// (internal byte order).
    ///
    /// # Errors
    /// When the bytes are no block, or the header chain does not accept its header, or the trees do
    /// not match the header.
    pub fn submit_block(&mut self, now: Time, block: Bytes) -> Result<Hash, SubmitRefusal> {
        self.now = now;
        let limits = BlockLimits {
            max_bytes: self.config.max_block_bytes as usize,
            max_transactions: self.config.max_transactions as usize,
        };
        let size = block.len() as u32;
        let (header, transactions) = split_block(block, limits)
            .map_err(|error| SubmitRefusal::Malformed(error.to_string()))?;
        self.take_local_block(header, &transactions, size)
    }

    /// Takes a block of `size` serialized bytes from this node's own side, in its parts.
    pub(in crate::relay) fn take_local_block(
        &mut self,
        header: [u8; 80],
        transactions: &[Transaction],
        size: u32,
    ) -> Result<Hash, SubmitRefusal> {
        let now = self.now;
        let block_hash = hash::sha256d(&header);
        let known = self.jobs_by_hash.get(&block_hash).copied();
        let known = known.and_then(|id| self.jobs.get(&id));
        if known.is_some_and(|entry| entry.job.is_complete()) {
            return Err(SubmitRefusal::Duplicate);
        }
        // A peer may have claimed a false count.
        let others_count = known
            .filter(|entry| entry.job.geometry.count() as usize != transactions.len())
            .map(|entry| entry.id);
        let txids: Vec<Hash> = transactions.iter().map(Transaction::txid).collect();
        let root = hash::root(&txids);
        if root.hash != header[36..68] || root.mutated {
            return Err(SubmitRefusal::MerkleRoot);
        }
        let verdict = self
            .judge
            .accept(&header, now)
            .map_err(SubmitRefusal::Header)?;
        self.invalid.forget(&block_hash);
        if let Some(id) = others_count {
            // The block itself knows better.
            self.close_job(id, CloseReason::Done, "replaced by the block");
        }
        let known = self.jobs_by_hash.get(&block_hash).copied();
        let id = match known {
            Some(id) => id,
            None => {
                let count = transactions.len() as u32;
                let geometry = Geometry::new(count)
                    .ok_or(SubmitRefusal::Malformed("no transactions".to_owned()))?;
                let start = JobStart {
                    hash: block_hash,
                    header,
                    height: verdict.height,
                    segwit_active: verdict.segwit_active,
                    geometry,
                    block_bytes: size,
                    max_block_bytes: self.config.max_block_bytes,
                    counted_by: Source::Local,
                    opened: now,
                };
                self.create_job(start)
                    .ok_or(SubmitRefusal::Malformed("too many jobs".to_owned()))?
            }
        };
        let taken = self.take_own_block(id, &txids, transactions);
        if taken.is_err() && known.is_none() {
            // One that peers opened goes on: a false copy from this side says nothing of theirs.
            self.close_job(id, CloseReason::Done, "refused block");
        }
        self.retry_offers();
        taken.map(|()| block_hash)
    }

    /// Gives a job all its transactions at once.
    fn take_own_block(
        &mut self,
        id: u16,
        txids: &[Hash],
        transactions: &[Transaction],
    ) -> Result<(), SubmitRefusal> {
        let Some(entry) = self.jobs.get_mut(&id) else {
            return Ok(());
        };
        let lacked: Vec<u32> = (1..)
            .zip(transactions.iter().skip(1))
            .filter(|(_, transaction)| self.mempool.by_wtxid(&transaction.wtxid()).is_none())
            .map(|(leaf, _)| leaf)
            .collect();
        entry.lacked = lacked;
        let taken = entry.job.take_whole(txids, transactions);
        if let Err(refusal) = taken {
            let reason = match refusal {
                Refusal::Commitment | Refusal::Leaf | Refusal::Hashes => SubmitRefusal::Witness,
                Refusal::Coinbase => SubmitRefusal::Malformed("bad coinbase".to_owned()),
                _ => SubmitRefusal::MerkleRoot,
            };
            self.settle_job(id);
            return Err(reason);
        }
        self.settle_job(id);
        Ok(())
    }

    /// Lets a transaction be the next to leave the cache when room is needed: the Bitcoin node holds it no
    /// longer. Whether there is one with this txid (internal byte order).
    pub fn demote_transaction(&mut self, txid: &Hash) -> bool {
        self.mempool.demote(txid)
    }

    /// Takes a serialized transaction into the cache. Gives its txid (internal byte order).
    ///
    /// # Errors
    /// When the bytes are no transaction, or one that cannot be cached; the text says why.
    pub fn add_transaction(&mut self, now: Time, bytes: Bytes) -> Result<Hash, &'static str> {
        self.now = now;
        let transaction = Transaction::parse(bytes).map_err(|error| {
            self.refused.count(Refusal::Mempool);
            error.reason()
        })?;
        let inserted = self.mempool.insert(&transaction);
        if matches!(inserted, Insert::Added { .. }) {
            self.arrivals.note(now, transaction.wtxid());
            if self.mempool.len() == EMPTY_CACHE {
                self.needs.forget();
                self.renew_grants();
            }
        }
        match inserted {
            Insert::TooLarge => Err("larger than the transaction cache may be"),
            Insert::Coinbase => Err("coinbase"),
            _ => Ok(transaction.txid()),
        }
    }
}
