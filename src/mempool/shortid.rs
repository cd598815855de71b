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

/// The low bits of a link: the number of an entry, plus one.
const ENTRY_BITS: u32 = 24;
const ENTRY_MASK: u32 = (1 << ENTRY_BITS) - 1;
/// Fewest chains, as a power of two.
const MIN_CHAINS_LOG2: u32 = 8;
/// Entries for each chain on average, at most, before the index is built anew.
///
/// Reason: a build makes one to two; at four a look-up still reads few places, and by then at least as many
/// transactions have come as there were.
const MAX_LOAD: usize = 4;
/// How many ids are hashed before they are put in their chains: on the stack, and in the fastest cache.
const BATCH: usize = 64;

/// The transactions of a pool by their short ids under one key.
///
/// One index serves all peers of a job. It goes with the pool it was built from: transactions that come later are
/// added, transactions that leave need not be taken out, for what the pool no longer holds is not found.
///
/// A hash table of chains, without the short ids themselves: 4 bytes for each transaction and 2 to 4 for the
/// heads of the chains. A link names an entry and eight further bits of its mixed short id; a candidate that
/// agrees in those is checked by hashing its witness id again. Building is one pass that never compares.
#[derive(Clone, Debug)]
pub struct ShortIdIndex {
    key: ShortIdKey,
    /// Odd and secret: whoever knows the key still cannot choose chains.
    mixer: u64,
    /// The first link of each chain; zero if it has none.
    heads: Vec<u32>,
    /// The logarithm of how many chains there are.
    log2: u32,
    /// The link after each entry. The first entries are the pool's slots as they were at the build.
    next: Vec<u32>,
    /// The slots of the entries that were added since.
    added: Vec<u32>,
}

impl ShortIdIndex {
    /// One pass over the pool.
    pub(super) fn build(pool: &Mempool, key: ShortIdKey) -> Self {
        let mut index = Self {
            key,
            mixer: pool.secret().mix(key) | 1,
            heads: Vec::new(),
            log2: 0,
            next: Vec::new(),
            added: Vec::new(),
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
    /// Takes the time of a build when at least as many have been added as there were.
    pub fn add(&mut self, pool: &Mempool, handle: TxHandle) {
        let Some(transaction) = pool.by_handle(handle) else {
            return;
        };
        if self.next.len() >= (self.heads.len() * MAX_LOAD).min(ENTRY_MASK as usize) {
            self.rebuild(pool);
            return;
        }
        let (chain, tag) = self.home(self.key.short_id(&transaction.wtxid()));
        if self.slots(chain, tag).any(|slot| slot == handle.slot()) {
            return;
        }
        let link = tag | (self.next.len() as u32 + 1);
        if let Some(head) = self.heads.get_mut(chain) {
            self.next.push(std::mem::replace(head, link));
            self.added.push(handle.slot());
        }
    }

    /// The transactions of the pool that have this short id.
    pub fn candidates<'a>(
        &'a self,
        pool: &'a Mempool,
        short_id: u64,
    ) -> impl Iterator<Item = &'a Transaction> {
        let (chain, tag) = self.home(short_id);
        self.slots(chain, tag)
            .filter_map(move |slot| self.check(pool, slot, short_id))
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
        (self.heads.capacity() + self.next.capacity() + self.added.capacity()) * size_of::<u32>()
    }

    fn rebuild(&mut self, pool: &Mempool) {
        let wtxids = pool.wtxids();
        // One to two entries a chain: fewer, longer chains would stay in the cache better, more and shorter ones
        // would be read faster; this is the fastest in sum at 300,000.
        let chains = wtxids.len().next_power_of_two() / 2;
        self.log2 = chains.max(1 << MIN_CHAINS_LOG2).ilog2();
        self.heads = vec![0; 1 << self.log2];
        self.next = vec![0; wtxids.len()];
        self.added = Vec::new();
        let many = siphash::ManyHashes::new();
        let mut hashes = [0; BATCH];
        let mut entry = 0;
        for (wtxids, next) in wtxids.chunks(BATCH).zip(self.next.chunks_mut(BATCH)) {
            many.hash_all(self.key.0, wtxids, &mut hashes);
            for (hash, next) in hashes.iter().zip(next) {
                let (chain, tag) = home(hash & SHORT_ID_MASK, self.mixer, self.log2);
                entry += 1;
                if let Some(head) = self.heads.get_mut(chain) {
                    *next = std::mem::replace(head, tag | entry);
                }
            }
        }
    }

    /// The slots in a chain that have this tag.
    fn slots(&self, chain: usize, tag: u32) -> impl Iterator<Item = u32> {
        let mut link = self.heads.get(chain).copied().unwrap_or(0);
        let built = self.next.len() - self.added.len();
        std::iter::from_fn(move || {
            loop {
                let entry = (link & ENTRY_MASK).checked_sub(1)?;
                let agrees = link & !ENTRY_MASK == tag;
                link = *self.next.get(entry as usize)?;
                if agrees {
                    return match (entry as usize).checked_sub(built) {
                        None => Some(entry),
                        Some(added) => self.added.get(added).copied(),
                    };
                }
            }
        })
    }

    /// The transaction in a slot if it is there still and has this short id.
    fn check<'a>(&self, pool: &'a Mempool, slot: u32, short_id: u64) -> Option<&'a Transaction> {
        let wtxid = pool.wtxids().get(slot as usize)?;
        if self.key.short_id(wtxid) != short_id {
            return None;
        }
        pool.transaction_at(slot)
    }

    fn home(&self, short_id: u64) -> (usize, u32) {
        home(short_id, self.mixer, self.log2)
    }
}

/// The chain of a short id, and its tag in the bits of a link above the entry.
#[inline(always)]
fn home(short_id: u64, mixer: u64, log2: u32) -> (usize, u32) {
    let mixed = short_id.wrapping_mul(mixer);
    let chain = mixed >> (64 - log2);
    let tag = (mixed >> (56 - log2)) as u8;
    (chain as usize, u32::from(tag) << ENTRY_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mempool::Insert;
    use crate::mempool::tests::numbered;
    use bitcoin::bip152::ShortId;

    fn pool_of(count: u32) -> Mempool {
        let mut pool = Mempool::new(1 << 30, [3, 4]);
        for number in 0..count {
            pool.insert(&numbered(number));
        }
        pool
    }

    #[test]
    fn ids_are_those_of_bip152() {
        let block = bitcoin_test_data::blocks::mainnet_702861();
        let bytes = block.first_chunk::<80>().expect("a block has a header");
        let header: bitcoin::block::Header =
            bitcoin::consensus::deserialize(bytes).expect("80 bytes");
        for nonce in [0, 1, u64::MAX] {
            let keys = ShortId::calculate_siphash_keys(&header, nonce);
            let key = ShortIdKey::new(bytes, nonce);
            assert_eq!(key, ShortIdKey::from_words([keys.0, keys.1]));
            for number in 0..100 {
                let wtxid = numbered(number).wtxid();
                let theirs = ShortId::with_siphash_keys(&wtxid, keys);
                let ours = key.short_id(&wtxid).to_le_bytes();
                assert_eq!(&ours[..6], &theirs[..]);
                assert_eq!(&ours[6..], &[0, 0]);
            }
        }
    }

    #[test]
    fn every_transaction_is_found_and_no_other() {
        for count in [0, 1, 2, 3, 63, 64, 65, 127, 511, 512, 513, 5000] {
            let pool = pool_of(count);
            let index = pool.index(ShortIdKey::from_words([7, 8]));
            for number in 0..count + 100 {
                let transaction = numbered(number);
                let short_id = index.key().short_id(&transaction.wtxid());
                let found = index.resolve(&pool, short_id);
                if number < count {
                    assert_eq!(found, Resolved::Unique(&transaction));
                } else {
                    assert_eq!(found, Resolved::Missing);
                }
            }
        }
    }

    #[test]
    fn follows_a_pool_that_changes() {
        // 300 at a time: slots are used again and again, and the index is built anew along the way.
        let mut pool = Mempool::with_limits(1 << 30, 300, [3, 4]);
        let mut index = pool.index(ShortIdKey::from_words([7, 8]));
        for number in 0..5000 {
            let transaction = numbered(number);
            let Insert::Added { handle, .. } = pool.insert(&transaction) else {
                panic!("new");
            };
            index.add(&pool, handle);
            index.add(&pool, handle);
            if number % 7 == 0 {
                // Leaves and comes again, to the same slot.
                pool.remove(&transaction.wtxid());
                let short_id = index.key().short_id(&transaction.wtxid());
                assert_eq!(index.resolve(&pool, short_id), Resolved::Missing);
                let Insert::Added { handle, .. } = pool.insert(&transaction) else {
                    panic!("had left");
                };
                index.add(&pool, handle);
            }
            for (back, there) in [(0, true), (1, true), (250, true), (299, true), (300, false)] {
                let Some(number) = u32::checked_sub(number, back) else {
                    continue;
                };
                let transaction = numbered(number);
                let short_id = index.key().short_id(&transaction.wtxid());
                let found = index.resolve(&pool, short_id);
                assert_eq!(found == Resolved::Unique(&transaction), there, "{number}");
                assert_eq!(found == Resolved::Missing, !there);
            }
            assert!(index.memory() < 20_000);
        }
    }

    #[test]
    fn two_of_one_short_id_are_both_seen() {
        // Found by searching 120 million numbers.
        let (one, other) = (numbered(1_034_774), numbered(39_133_106));
        let key = ShortIdKey::from_words([7, 8]);
        let short_id = key.short_id(&one.wtxid());
        assert_eq!(short_id, 0x0960_6a31_7f8b);
        assert_eq!(short_id, key.short_id(&other.wtxid()));
        let mut pool = pool_of(1000);
        pool.insert(&one);
        let mut index = pool.index(key);
        assert_eq!(index.resolve(&pool, short_id), Resolved::Unique(&one));
        let Insert::Added { handle, .. } = pool.insert(&other) else {
            panic!("new");
        };
        assert_eq!(index.resolve(&pool, short_id), Resolved::Unique(&one));
        index.add(&pool, handle);
        for index in [index, pool.index(key)] {
            let Resolved::Ambiguous(both) = index.resolve(&pool, short_id) else {
                panic!("two have it");
            };
            assert_eq!(both[..], [&other, &one]);
        }
        pool.remove(&one.wtxid());
        let found = pool.index(key);
        assert_eq!(found.resolve(&pool, short_id), Resolved::Unique(&other));
    }
}
