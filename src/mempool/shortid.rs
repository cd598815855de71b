//! Short ids salted by the block (BIP152 version 2), and the index that resolves them.
//!
//! A short id is the low 48 bits of the SipHash-2-4 of a witness id, under a key that is made of the block's header
//! and a nonce. Since the header must show its work before anybody looks, nobody can prepare colliding
//! transactions for it in advance.

use arrayvec::ArrayVec;
use sha2::{Digest, Sha256};

use super::Hash32;
use super::pool::{Mempool, TxHandle};
use super::siphash;
use super::transaction::Transaction;

/// The bits of a short id.
pub const SHORT_ID_MASK: u64 = (1 << 48) - 1;

/// Most candidates for one short id that are handed out.
///
/// Reason: each has to be tried against the block's tree; two candidates occur once in a thousand blocks by
/// chance (3,000 ids against 300,000 transactions), five never.
pub const MAX_CANDIDATES: usize = 4;

/// The SipHash key of one block and nonce.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShortIdKey([u64; 2]);

impl ShortIdKey {
    /// The key of BIP152: the first two little-endian 64-bit words of SHA-256 of the header with the nonce,
    /// little-endian, after it.
    pub fn new(header: &[u8; 80], nonce: u64) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(header);
        hasher.update(nonce.to_le_bytes());
        let digest: Hash32 = hasher.finalize().into();
        let [first, second, ..] = siphash::words(&digest);
        Self([first, second])
    }

    /// A key given by its words.
    pub const fn from_words(words: [u64; 2]) -> Self {
        Self(words)
    }

    /// The short id of a witness id: 48 bits.
    pub fn short_id(self, wtxid: &Hash32) -> u64 {
        self.hash(wtxid) & SHORT_ID_MASK
    }

    /// A secret that depends on both keys.
    fn mix(self, other: Self) -> u64 {
        let mut bytes = [0; 32];
        let (halves, _) = bytes.as_chunks_mut::<8>();
        for (half, word) in halves.iter_mut().zip(other.0) {
            *half = word.to_le_bytes();
        }
        self.hash(&bytes)
    }

    /// The whole SipHash.
    pub(super) fn hash(self, id: &Hash32) -> u64 {
        siphash::hash(self.0, id)
    }
}

impl std::fmt::Debug for ShortIdKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It may be the secret of a pool.
        formatter.write_str("ShortIdKey(..)")
    }
}

/// What a short id means to a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved<'a> {
    /// No transaction has it.
    Missing,
    /// Exactly one has it, which need not be the one that was meant.
    Unique(&'a Transaction),
    /// Several have it: at most [`MAX_CANDIDATES`] of them, at least two.
    Ambiguous(ArrayVec<&'a Transaction, MAX_CANDIDATES>),
}

/// The low bits of an entry: the slot.
const SLOT_BITS: u32 = 24;
const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;
/// A place with nothing in it: slot numbers end before this one's.
const EMPTY: u32 = u32::MAX;
/// Fewest places, as a power of two.
const MIN_PLACES_LOG2: u32 = 8;

/// The transactions of a pool by their short ids under one key.
///
/// One index serves all peers of a job. It goes with the pool it was built from: transactions that come later are
/// added, transactions that leave need not be taken out, for what the pool no longer holds is not found.
/// A place is 4 bytes, of which at most three of four are taken.
#[derive(Clone, Debug)]
pub struct ShortIdIndex {
    key: ShortIdKey,
    /// Odd and secret: whoever knows the key still cannot choose places.
    mixer: u64,
    /// Eight bits of the mixed short id above the slot.
    places: Vec<u32>,
    /// The logarithm of how many places there are.
    log2: u32,
    len: usize,
}

impl ShortIdIndex {
    /// One pass over the pool.
    pub(super) fn build(pool: &Mempool, key: ShortIdKey) -> Self {
        let mut index = Self {
            key,
            mixer: pool.secret().mix(key) | 1,
            places: Vec::new(),
            log2: 0,
            len: 0,
        };
        index.rebuild(pool);
        index
    }

    /// The key it was built for.
    pub fn key(&self) -> ShortIdKey {
        self.key
    }

    /// Adds a transaction that came into the pool after the index was built; nothing happens if it is there.
    ///
    /// Takes the time of a build, once, when the index has become too full.
    pub fn add(&mut self, pool: &Mempool, handle: TxHandle) {
        let Some(transaction) = pool.by_handle(handle) else {
            return;
        };
        if (self.len + 1) * 4 > self.places.len() * 3 {
            self.rebuild(pool);
            return;
        }
        self.put(self.key.short_id(&transaction.wtxid()), handle.slot());
    }

    /// The transactions of the pool that have this short id.
    pub fn candidates<'a>(
        &'a self,
        pool: &'a Mempool,
        short_id: u64,
    ) -> impl Iterator<Item = &'a Transaction> {
        let (mut place, tag) = self.home(short_id);
        std::iter::from_fn(move || {
            loop {
                let entry = self.places.get(place).copied().unwrap_or(EMPTY);
                if entry == EMPTY {
                    return None;
                }
                place = self.after(place);
                if entry & !SLOT_MASK == tag {
                    let found = self.check(pool, entry & SLOT_MASK, short_id);
                    if found.is_some() {
                        return found;
                    }
                }
            }
        })
    }

    /// What a short id means: nothing, one transaction, or several.
    pub fn resolve<'a>(&'a self, pool: &'a Mempool, short_id: u64) -> Resolved<'a> {
        let mut candidates = self.candidates(pool, short_id);
        let Some(first) = candidates.next() else {
            return Resolved::Missing;
        };
        let Some(second) = candidates.next() else {
            return Resolved::Unique(first);
        };
        let mut all = ArrayVec::new();
        all.push(first);
        all.push(second);
        all.extend(candidates.take(MAX_CANDIDATES - 2));
        Resolved::Ambiguous(all)
    }

    /// Memory that it holds, in bytes.
    pub fn memory(&self) -> usize {
        self.places.capacity() * size_of::<u32>()
    }

    fn rebuild(&mut self, pool: &Mempool) {
        let wtxids = pool.wtxids();
        let places = (wtxids.len() + wtxids.len() / 2).next_power_of_two();
        self.log2 = places.ilog2().max(MIN_PLACES_LOG2);
        self.len = 0;
        self.places.clear();
        self.places.resize(1 << self.log2, EMPTY);
        for (slot, wtxid) in (0u32..).zip(wtxids) {
            self.put(self.key.short_id(wtxid), slot);
        }
    }

    fn put(&mut self, short_id: u64, slot: u32) {
        let (mut place, tag) = self.home(short_id);
        loop {
            let after = self.after(place);
            let Some(entry) = self.places.get_mut(place) else {
                return;
            };
            if *entry == EMPTY {
                *entry = tag | slot;
                self.len += 1;
                return;
            }
            if *entry == tag | slot {
                return;
            }
            place = after;
        }
    }

    /// The transaction in a slot if it is there still and has this short id.
    fn check<'a>(&self, pool: &'a Mempool, slot: u32, short_id: u64) -> Option<&'a Transaction> {
        let wtxid = pool.wtxids().get(slot as usize)?;
        if self.key.short_id(wtxid) != short_id {
            return None;
        }
        pool.transaction_at(slot)
    }

    /// Where a short id belongs, and its tag in the bits above the slot.
    fn home(&self, short_id: u64) -> (usize, u32) {
        let mixed = short_id.wrapping_mul(self.mixer);
        let place = mixed >> (64 - self.log2);
        let tag = (mixed >> (64 - self.log2 - 8)) as u8;
        (place as usize, u32::from(tag) << SLOT_BITS)
    }

    fn after(&self, place: usize) -> usize {
        (place + 1) & ((1 << self.log2) - 1)
    }
}
