//! Blocks that the Bitcoin node beside this one announces in compact form (BIP152 version 2).
//!
//! The node is the operator's own, so nobody is scored here. Its compact block comes before it has validated
//! the block, often a tenth of a second sooner than the whole one; what its short ids name is usually
//! in the cache. Whatever is found is proven by the header's merkle root like everything else; if it does not
//! fit, the whole block is fetched.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Engine;
use super::event::SubmitRefusal;
use crate::mempool::{Resolved, ShortIdKey, Transaction};
use crate::merkle::{Hash, hash};
use crate::time::Time;
use crate::wire::codec::compact_size_len;

/// Compact blocks that wait for transactions: two nodes may announce two racing blocks each.
const MAX_PENDING: usize = 4;

/// A compact block, as decoded from `cmpctblock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactBlock {
    /// The header.
    pub header: [u8; 80],
    /// The nonce that salts the short ids.
    pub nonce: u64,
    /// The short ids of the transactions that are not prefilled, 48 bits each, in block order.
    pub short_ids: Vec<u64>,
    /// Whole transactions by their place in the block, ascending.
    pub prefilled: Vec<(u32, Bytes)>,
}

/// What a compact block came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompactAnswer {
    /// The block was whole here before, or is known to be invalid: the node tells of it before it has validated it,
    /// so that this says nothing against what was found since.
    Known,
    /// The block is whole now, and relayed.
    Whole(Hash),
    /// Transactions at these places, ascending, are not in the cache: fetch them and hand them to
    /// [`Engine::complete_compact`].
    Lacking(Hash, Vec<u32>),
    /// It can't be made out of its parts: fetch the block.
    Unfit(Hash),
}

/// A compact block that waits for transactions.
#[derive(Debug)]
pub(super) struct PendingCompact {
    hash: Hash,
    header: [u8; 80],
    transactions: Vec<Option<Transaction>>,
}

impl Engine {
    /// Takes a compact block from the Bitcoin node beside this one.
    ///
    /// # Errors
    /// When the header chain does not accept its header, or it has more transactions than a block may have, or
    /// prefilled ones that are no transactions.
    pub fn offer_compact(
        &mut self,
        now: Time,
        compact: CompactBlock,
    ) -> Result<CompactAnswer, SubmitRefusal> {
        self.now = now;
        let block_hash = hash::sha256d(&compact.header);
        if self.is_settled(&block_hash) {
            return Ok(CompactAnswer::Known);
        }
        let count = compact.short_ids.len() + compact.prefilled.len();
        if count == 0 || count > self.config.max_transactions as usize {
            return Err(SubmitRefusal::Malformed("too many transactions".to_owned()));
        }
        self.judge
            .accept(&compact.header, now)
            .map_err(SubmitRefusal::Header)?;
        let mut transactions: Vec<Option<Transaction>> = vec![None; count];
        for (place, bytes) in compact.prefilled {
            let transaction = Transaction::parse(bytes)
                .map_err(|error| SubmitRefusal::Malformed(error.reason().to_owned()))?;
            let slot = transactions.get_mut(place as usize);
            *slot.ok_or(SubmitRefusal::Malformed(
                "place beyond the block".to_owned(),
            ))? = Some(transaction);
        }
        let key = ShortIdKey::new(&compact.header, compact.nonce);
        let open = transactions.iter_mut().filter(|slot| slot.is_none());
        let wanted: Vec<_> = open.zip(compact.short_ids).collect();
        let mut times = BTreeMap::<u64, u32>::new();
        for (_, id) in &wanted {
            *times.entry(*id).or_default() += 1;
        }
        let index = self.mempool.index(key);
        for (slot, id) in wanted {
            // Two places with one short id: neither can be told from the other.
            if times.get(&id) == Some(&1)
                && let Resolved::Unique(transaction) = index.resolve(&self.mempool, id)
            {
                *slot = Some(transaction.clone());
            }
        }
        self.settle_compact(PendingCompact {
            hash: block_hash,
            header: compact.header,
            transactions,
        })
    }

    /// Takes the transactions that a compact block lacked, in the order in which they were named.
    ///
    /// # Errors
    /// As [`Engine::offer_compact`].
    pub fn complete_compact(
        &mut self,
        now: Time,
        block: &Hash,
        lacking: Vec<Bytes>,
    ) -> Result<CompactAnswer, SubmitRefusal> {
        self.now = now;
        if self.is_settled(block) {
            self.compacts.retain(|pending| pending.hash != *block);
            return Ok(CompactAnswer::Known);
        }
        let position = self.compacts.iter().position(|it| it.hash == *block);
        let pending = position.and_then(|position| self.compacts.remove(position));
        let Some(mut pending) = pending else {
            return Ok(CompactAnswer::Unfit(*block));
        };
        let mut lacking = lacking.into_iter();
        for slot in pending.transactions.iter_mut().filter(|it| it.is_none()) {
            let Some(Ok(transaction)) = lacking.next().map(Transaction::parse) else {
                return Ok(CompactAnswer::Unfit(*block));
            };
            *slot = Some(transaction);
        }
        self.settle_compact(pending)
    }

    /// Relays the block if it is whole, or keeps it for what it lacks.
    fn settle_compact(&mut self, pending: PendingCompact) -> Result<CompactAnswer, SubmitRefusal> {
        let places = (0..).zip(&pending.transactions);
        let lacking: Vec<u32> = places
            .filter(|(_, slot)| slot.is_none())
            .map(|(place, _)| place)
            .collect();
        let block = pending.hash;
        self.compacts.retain(|other| other.hash != block);
        if !lacking.is_empty() {
            if self.compacts.len() >= MAX_PENDING {
                self.compacts.pop_front();
            }
            self.compacts.push_back(pending);
            return Ok(CompactAnswer::Lacking(block, lacking));
        }
        let transactions: Vec<Transaction> = pending.transactions.into_iter().flatten().collect();
        let bytes: usize = transactions.iter().map(Transaction::len).sum();
        let size = 80 + compact_size_len(transactions.len() as u64) + bytes;
        if size > self.config.max_block_bytes as usize {
            return Ok(CompactAnswer::Unfit(block));
        }
        match self.take_local_block(pending.header, &transactions, size as u32) {
            Ok(hash) => Ok(CompactAnswer::Whole(hash)),
            Err(SubmitRefusal::Duplicate) => Ok(CompactAnswer::Known),
            // Another transaction with the same short id: once in a million blocks.
            Err(SubmitRefusal::MerkleRoot | SubmitRefusal::Witness) => {
                Ok(CompactAnswer::Unfit(block))
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Whether a compact block can say nothing new of this one.
    fn is_settled(&self, block: &Hash) -> bool {
        let job = self.jobs_by_hash.get(block);
        self.invalid.contains(block)
            || job
                .and_then(|id| self.jobs.get(id))
                .is_some_and(|entry| entry.job.is_complete())
    }
}
