//! A bounded cache of transactions, found by either id, the oldest leaving first, and before them those that
//! were demoted.
//!
//! Every transaction has a slot. The witness ids stand in an array of their own, slot by slot, since a pass over all
//! of them (see [`super::shortid`]) must not drag the transactions through the processor's cache. Two tables of
//! slot numbers, keyed by a secret, find a slot by id; a list through the slots keeps the order of arrival.

use super::Hash32;
use super::shortid::{ShortIdIndex, ShortIdKey};
use super::table::IdTable;
use super::transaction::Transaction;

/// Most transactions that a pool holds.
///
/// Reason: the short-id index keeps a slot number in 24 bits of a 32-bit entry. Bitcoin's nodes hold about 300,000
/// transactions when their default 300 MB are full.
pub const MAX_TRANSACTIONS: usize = (1 << 24) - 2;

/// What a transaction is charged besides the bytes of its serialization, in bytes.
///
/// An upper bound, once there are a few thousand, of what is spent on slots, tables and the allocator's header.
/// Measured at 300,000: 280 bytes, and 16 for the allocator; it lies between 165 and 335, since the arrays
/// double when they are full. [`Mempool::overhead_bytes`] tells what is held.
pub const OVERHEAD_PER_TRANSACTION: usize = 400;

/// No slot: the end of a list.
const NONE: u32 = u32::MAX;

/// Names a transaction of the pool that gave it out, for as long as that transaction stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxHandle {
    slot: u32,
    arrival: u64,
}

impl TxHandle {
    pub(super) fn slot(self) -> u32 {
        self.slot
    }
}

/// What became of a transaction that was put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insert {
    /// It is in the pool now.
    Added {
        /// To find it again, and for [`ShortIdIndex::add`].
        handle: TxHandle,
        /// How many older ones had to leave for it.
        evicted: u32,
    },
    /// It was there before.
    Known(TxHandle),
    /// With its overhead it is larger than the whole pool may be.
    TooLarge,
    /// A coinbase, which belongs to one block and cannot occur in another.
    Coinbase,
}

/// What a pool holds and what it has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MempoolStats {
    /// Transactions held.
    pub transactions: usize,
    /// Sum of their serialized lengths in bytes.
    pub bytes: usize,
    /// What they are charged: `bytes` and [`OVERHEAD_PER_TRANSACTION`] for each.
    pub charged_bytes: usize,
    /// The bound on `charged_bytes`.
    pub max_bytes: usize,
    /// Transactions taken in.
    pub added: u64,
    /// Transactions put in again while they were there.
    pub known: u64,
    /// Transactions that left because newer ones came.
    pub evicted: u64,
    /// Transactions taken out by [`Mempool::remove`].
    pub removed: u64,
    /// Transactions refused.
    pub refused: u64,
}

/// A slot: a transaction with its neighbours in the order of arrival, or free.
#[derive(Clone, Debug)]
struct Slot {
    transaction: Option<Transaction>,
    arrival: u64,
    older: u32,
    /// The next newer one; for a free slot, the next free one.
    newer: u32,
}

/// The cache. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Mempool {
    key: ShortIdKey,
    /// Witness id by slot; zeros where the slot is free.
    wtxids: Vec<Hash32>,
    slots: Vec<Slot>,
    by_wtxid: IdTable,
    by_txid: IdTable,
    oldest: u32,
    newest: u32,
    free: u32,
    max_transactions: usize,
    stats: MempoolStats,
}

impl Mempool {
    /// An empty pool whose transactions are charged at most `max_bytes` together.
    ///
    /// `seed` should be secret: it keys the tables.
    pub fn new(max_bytes: usize, seed: [u64; 2]) -> Self {
        Self::with_limits(max_bytes, MAX_TRANSACTIONS, seed)
    }

    /// As [`Mempool::new`], with at most `max_transactions` transactions ([`MAX_TRANSACTIONS`] if that is less).
    pub fn with_limits(max_bytes: usize, max_transactions: usize, seed: [u64; 2]) -> Self {
        Self {
            key: ShortIdKey::from_words(seed),
            wtxids: Vec::new(),
            slots: Vec::new(),
            by_wtxid: IdTable::new(),
            by_txid: IdTable::new(),
            oldest: NONE,
            newest: NONE,
            free: NONE,
            max_transactions: max_transactions.min(MAX_TRANSACTIONS),
            stats: MempoolStats {
                max_bytes,
                ..MempoolStats::default()
            },
        }
    }

    /// Puts a transaction in, the newest now; the oldest leave until everything is within the bounds.
    ///
    /// The bytes are copied to a buffer of their own: kept as they are, they would keep alive the datagram or the
    /// block from which they may have been cut, and the bound would mean nothing.
    pub fn insert(&mut self, transaction: &Transaction) -> Insert {
        if transaction.is_coinbase() {
            self.stats.refused += 1;
            return Insert::Coinbase;
        }
        if let Some(slot) = self.slot_by_wtxid(&transaction.wtxid()) {
            self.stats.known += 1;
            return self.handle(slot).map_or(Insert::TooLarge, Insert::Known);
        }
        let charge = charge(transaction);
        if charge > self.stats.max_bytes || self.max_transactions == 0 {
            self.stats.refused += 1;
            return Insert::TooLarge;
        }
        let mut evicted = 0;
        while self.stats.charged_bytes + charge > self.stats.max_bytes
            || self.stats.transactions >= self.max_transactions
        {
            if self.take_out(self.oldest).is_none() {
                break;
            }
            evicted += 1;
        }
        self.stats.evicted += u64::from(evicted);
        let handle = self.put_in(transaction.detached(), charge);
        Insert::Added { handle, evicted }
    }

    /// Takes out the transaction with this witness id.
    pub fn remove(&mut self, wtxid: &Hash32) -> Option<Transaction> {
        let slot = self.slot_by_wtxid(wtxid)?;
        let transaction = self.take_out(slot)?;
        self.stats.removed += 1;
        Some(transaction)
    }

    /// Lets the transaction with this id be the next to leave when room is needed; whether there is one.
    ///
    /// For one that the Bitcoin node no longer holds: replaced or confirmed, it may still be in the block of somebody
    /// who knew it otherwise.
    pub fn demote(&mut self, txid: &Hash32) -> bool {
        let Some(slot) = self.slot_by_txid(txid) else {
            return false;
        };
        if slot != self.oldest {
            self.unlink(slot);
            let oldest = self.oldest;
            if let Some(moved) = self.slot_mut(slot) {
                (moved.older, moved.newer) = (NONE, oldest);
            }
            if let Some(second) = self.slot_mut(oldest) {
                second.older = slot;
            }
            self.oldest = slot;
        }
        true
    }

    /// The transaction that a handle names, if it has not left.
    pub fn by_handle(&self, handle: TxHandle) -> Option<&Transaction> {
        let slot = self.slot(handle.slot)?;
        (slot.arrival == handle.arrival).then_some(slot.transaction.as_ref())?
    }

    /// The transaction with this witness id.
    pub fn by_wtxid(&self, wtxid: &Hash32) -> Option<&Transaction> {
        self.transaction_at(self.slot_by_wtxid(wtxid)?)
    }

    /// A transaction with this id; if several differ in their witnesses only, any of them.
    pub fn by_txid(&self, txid: &Hash32) -> Option<&Transaction> {
        self.transaction_at(self.slot_by_txid(txid)?)
    }

    /// All transactions, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Transaction> {
        let mut next = self.oldest;
        std::iter::from_fn(move || {
            let slot = self.slot(next)?;
            next = slot.newer;
            slot.transaction.as_ref()
        })
    }

    /// An index that finds the transactions by their short ids under `key`: one pass over all of them.
    pub fn index(&self, key: ShortIdKey) -> ShortIdIndex {
        ShortIdIndex::build(self, key)
    }

    /// Count of transactions held.
    pub fn len(&self) -> usize {
        self.stats.transactions
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sum of the serialized lengths, in bytes.
    pub fn bytes(&self) -> usize {
        self.stats.bytes
    }

    /// What is held and what was done.
    pub fn stats(&self) -> MempoolStats {
        self.stats
    }

    /// Memory held besides the transactions' bytes, in bytes; without the allocator's own.
    pub fn overhead_bytes(&self) -> usize {
        self.wtxids.capacity() * size_of::<Hash32>()
            + self.slots.capacity() * size_of::<Slot>()
            + self.by_wtxid.memory()
            + self.by_txid.memory()
    }

    /// Witness ids by slot, for one pass over all. Free slots have stale ids or zeros.
    pub(super) fn wtxids(&self) -> &[Hash32] {
        &self.wtxids
    }

    pub(super) fn secret(&self) -> ShortIdKey {
        self.key
    }

    pub(super) fn transaction_at(&self, slot: u32) -> Option<&Transaction> {
        self.slot(slot)?.transaction.as_ref()
    }

    fn slot(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(slot as usize)
    }

    fn slot_mut(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots.get_mut(slot as usize)
    }

    fn handle(&self, slot: u32) -> Option<TxHandle> {
        let arrival = self.slot(slot)?.arrival;
        Some(TxHandle { slot, arrival })
    }

    fn slot_by_wtxid(&self, wtxid: &Hash32) -> Option<u32> {
        self.by_wtxid.find(self.key.hash(wtxid), |slot| {
            self.wtxids.get(slot as usize) == Some(wtxid)
        })
    }

    fn slot_by_txid(&self, txid: &Hash32) -> Option<u32> {
        self.by_txid.find(self.key.hash(txid), |slot| {
            self.transaction_at(slot)
                .is_some_and(|transaction| transaction.txid() == *txid)
        })
    }

    fn put_in(&mut self, transaction: Transaction, charge: usize) -> TxHandle {
        self.stats.added += 1;
        self.stats.transactions += 1;
        self.stats.bytes += transaction.len();
        self.stats.charged_bytes += charge;
        let arrival = self.stats.added;
        let (wtxid, txid) = (transaction.wtxid(), transaction.txid());
        let filled = Slot {
            transaction: Some(transaction),
            arrival,
            older: self.newest,
            newer: NONE,
        };
        let slot = self.free;
        let slot = if let Some(vacant) = self.slots.get_mut(slot as usize) {
            self.free = vacant.newer;
            *vacant = filled;
            if let Some(id) = self.wtxids.get_mut(slot as usize) {
                *id = wtxid;
            }
            slot
        } else {
            let slot = u32::try_from(self.slots.len()).expect("bounded by MAX_TRANSACTIONS");
            self.slots.push(filled);
            self.wtxids.push(wtxid);
            slot
        };
        match self.slot_mut(self.newest) {
            Some(newest) => newest.newer = slot,
            None => self.oldest = slot,
        }
        self.newest = slot;
        let key = self.key;
        let wtxids = &self.wtxids;
        self.by_wtxid
            .insert(key.hash(&wtxid), slot, |slot| wtxid_hash(wtxids, key, slot));
        let slots = &self.slots;
        self.by_txid
            .insert(key.hash(&txid), slot, |slot| txid_hash(slots, key, slot));
        TxHandle { slot, arrival }
    }

    fn take_out(&mut self, slot: u32) -> Option<Transaction> {
        let key = self.key;
        let (wtxid, txid) = {
            let transaction = self.transaction_at(slot)?;
            (transaction.wtxid(), transaction.txid())
        };
        let wtxids = &self.wtxids;
        self.by_wtxid
            .remove(key.hash(&wtxid), slot, |slot| wtxid_hash(wtxids, key, slot));
        let slots = &self.slots;
        self.by_txid
            .remove(key.hash(&txid), slot, |slot| txid_hash(slots, key, slot));
        self.unlink(slot);
        let free = self.free;
        let vacated = self.slot_mut(slot)?;
        let transaction = vacated.transaction.take()?;
        vacated.newer = free;
        self.free = slot;
        if let Some(id) = self.wtxids.get_mut(slot as usize) {
            *id = [0; 32];
        }
        self.stats.transactions -= 1;
        self.stats.bytes -= transaction.len();
        self.stats.charged_bytes -= charge(&transaction);
        Some(transaction)
    }

    /// Takes a filled slot out of the order of arrival.
    fn unlink(&mut self, slot: u32) {
        let Some((older, newer)) = self.slot(slot).map(|slot| (slot.older, slot.newer)) else {
            return;
        };
        match self.slot_mut(older) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.slot_mut(newer) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
    }
}

/// What a transaction counts towards the bound, in bytes.
fn charge(transaction: &Transaction) -> usize {
    transaction.len() + OVERHEAD_PER_TRANSACTION
}

fn wtxid_hash(wtxids: &[Hash32], key: ShortIdKey, slot: u32) -> u64 {
    wtxids.get(slot as usize).map_or(0, |id| key.hash(id))
}

fn txid_hash(slots: &[Slot], key: ShortIdKey, slot: u32) -> u64 {
    slots
        .get(slot as usize)
        .and_then(|slot| slot.transaction.as_ref())
        .map_or(0, |transaction| key.hash(&transaction.txid()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mempool::tests::numbered;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn found_by_all_names_until_pushed_out() {
        let mut pool = Mempool::with_limits(1 << 20, 2, [1, 2]);
        let first = numbered(1);
        let Insert::Added { handle, evicted: 0 } = pool.insert(&first) else {
            panic!("new");
        };
        assert_eq!(pool.insert(&first), Insert::Known(handle));
        assert_eq!(pool.by_handle(handle), Some(&first));
        assert_eq!(pool.by_wtxid(&first.wtxid()), Some(&first));
        assert_eq!(pool.by_txid(&first.txid()), Some(&first));
        pool.insert(&numbered(2));
        let third = pool.insert(&numbered(3));
        assert!(matches!(third, Insert::Added { evicted: 1, .. }));
        assert_eq!(pool.by_handle(handle), None);
        assert_eq!(pool.by_wtxid(&first.wtxid()), None);
        assert_eq!(pool.by_txid(&first.txid()), None);
        assert_eq!(pool.stats().evicted, 1);
    }

    #[test]
    fn bounded_by_bytes_and_by_count() {
        let one = numbered(0).len() + OVERHEAD_PER_TRANSACTION;
        let mut pool = Mempool::new(10 * one + 1, [1, 2]);
        for number in 0..100 {
            pool.insert(&numbered(number));
            assert!(pool.stats().charged_bytes <= 10 * one + 1);
        }
        assert_eq!(pool.len(), 10);
        let mut tiny = Mempool::new(one - 1, [1, 2]);
        assert_eq!(tiny.insert(&numbered(0)), Insert::TooLarge);
        let mut none = Mempool::with_limits(1 << 20, 0, [1, 2]);
        assert_eq!(none.insert(&numbered(0)), Insert::TooLarge);
    }

    #[test]
    fn what_is_kept_is_a_copy() {
        let mut pool = Mempool::new(1 << 20, [1, 2]);
        let transaction = numbered(1);
        pool.insert(&transaction);
        let kept = pool.by_wtxid(&transaction.wtxid()).expect("just put in");
        assert_ne!(kept.bytes().as_ptr(), transaction.bytes().as_ptr());
    }

    #[test]
    fn overhead_is_within_what_is_charged() {
        let mut pool = Mempool::new(1 << 30, [1, 2]);
        let (mut worst, mut last) = (0, 0);
        for number in 0..40_000 {
            pool.insert(&numbered(number));
            last = pool.overhead_bytes() / pool.len();
            if number > 4000 {
                worst = worst.max(last);
            }
        }
        // The allocator's header and rounding for the bytes themselves: at most 32.
        assert!(
            worst + 32 <= OVERHEAD_PER_TRANSACTION,
            "{worst}, at last {last}"
        );
    }

    proptest! {
        #[test]
        fn agrees_with_a_queue(steps in prop::collection::vec((0u8..4, 0u32..20), 0..300)) {
            let mut pool = Mempool::with_limits(1 << 20, 8, [1, 2]);
            let mut model = VecDeque::new();
            for (kind, number) in steps {
                let transaction = numbered(number);
                if kind == 1 {
                    let demoted = pool.demote(&transaction.txid());
                    prop_assert_eq!(demoted, model.contains(&number));
                    if demoted {
                        model.retain(|other| *other != number);
                        model.push_front(number);
                    }
                } else if kind == 0 {
                    let removed = pool.remove(&transaction.wtxid());
                    prop_assert_eq!(removed.is_some(), model.contains(&number));
                    model.retain(|other| *other != number);
                } else {
                    let known = matches!(pool.insert(&transaction), Insert::Known(_));
                    prop_assert_eq!(known, model.contains(&number));
                    if !known {
                        model.push_back(number);
                    }
                    if model.len() > 8 {
                        model.pop_front();
                    }
                }
                let expected: Vec<Transaction> = model.iter().map(|n| numbered(*n)).collect();
                prop_assert!(pool.iter().eq(&expected));
                prop_assert_eq!(pool.len(), expected.len());
                prop_assert_eq!(pool.bytes(), expected.iter().map(Transaction::len).sum::<usize>());
                for number in 0..20 {
                    let transaction = numbered(number);
                    let there = model.contains(&number);
                    prop_assert_eq!(pool.by_wtxid(&transaction.wtxid()).is_some(), there);
                    prop_assert_eq!(pool.by_txid(&transaction.txid()).is_some(), there);
                }
            }
        }
    }
}
