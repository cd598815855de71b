//! Compact blocks (BIP152, version 2): short ids of the wtxids instead of transactions that the peer holds already.

use bitcoin::block::Header;
use bitcoin::consensus::serialize;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::{BlockHash, Wtxid};
use bytes::Bytes;
use siphasher::sip::SipHasher24;

use super::read::{DecodeError, MIN_TRANSACTION_BYTES, Reader, put_compact_size};

/// Bytes of a short id.
const SHORT_ID_BYTES: usize = 6;
/// Bytes of the smallest prefilled transaction with its index.
const MIN_PREFILLED_BYTES: usize = 1 + MIN_TRANSACTION_BYTES;

/// A compact block as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactBlock {
    /// Hash of the header.
    pub hash: BlockHash,
    /// The header.
    pub header: Header,
    /// What the key of the short ids is made of, besides the header.
    pub nonce: u64,
    /// 48-bit ids of the transactions that are not prefilled, in the block's order.
    pub short_ids: Vec<u64>,
    /// Transactions by their index in the block, ascending.
    pub prefilled: Vec<(u32, Bytes)>,
}

impl CompactBlock {
    /// Reads the payload of a `cmpctblock`, of a block of at most `max_transactions`.
    pub fn read(payload: &Bytes, max_transactions: usize) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        let header = reader.header()?;
        let nonce = reader.u64()?;
        let count = reader.count(SHORT_ID_BYTES, max_transactions)?;
        let mut short_ids = Vec::with_capacity(count);
        for _ in 0..count {
            let [a, b, c, d, e, f] = reader.array()?;
            short_ids.push(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]));
        }
        let count = reader.count(MIN_PREFILLED_BYTES, max_transactions - count)?;
        let total = short_ids.len() + count;
        if total == 0 {
            return Err(DecodeError::Value);
        }
        let mut prefilled = Vec::with_capacity(count);
        let mut next = 0;
        for _ in 0..count {
            let index = next_index(&mut reader, &mut next, total)?;
            let start = reader.position();
            reader.transaction()?;
            prefilled.push((index, payload.slice(start..reader.position())));
        }
        reader.end()?;
        Ok(Self {
            hash: header.block_hash(),
            header,
            nonce,
            short_ids,
            prefilled,
        })
    }

    /// How many transactions the block has.
    pub fn transaction_count(&self) -> usize {
        self.short_ids.len() + self.prefilled.len()
    }

    /// The key of its short ids.
    pub fn key(&self) -> ShortIdKey {
        ShortIdKey::new(&self.header, self.nonce)
    }
}

/// The key that short ids are made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortIdKey {
    /// First half of SipHash's key.
    pub k0: u64,
    /// The other half.
    pub k1: u64,
}

impl ShortIdKey {
    /// From SHA256 of the header and the nonce.
    pub fn new(header: &Header, nonce: u64) -> Self {
        let preimage = [&serialize(header)[..], &nonce.to_le_bytes()].concat();
        let digest = sha256::Hash::hash(&preimage).to_byte_array();
        let mut reader = Reader::new(&digest);
        let mut half = || reader.u64().expect("a digest has 32 bytes");
        Self {
            k0: half(),
            k1: half(),
        }
    }

    /// The short id of a transaction: 48 bits.
    pub fn short_id(&self, wtxid: &Wtxid) -> u64 {
        let hash = SipHasher24::new_with_keys(self.k0, self.k1).hash(wtxid.as_byte_array());
        hash & ((1 << 48) - 1)
    }
}

/// Builds the payload of a `cmpctblock`. `prefill` are indexes of transactions that are sent whole, ascending; the
/// coinbase should be one of them, because nobody holds it. Indexes that no transaction has are passed over.
pub fn build_compact(
    header: &Header,
    nonce: u64,
    transactions: &[(Wtxid, Bytes)],
    prefill: &[u32],
) -> Bytes {
    let key = ShortIdKey::new(header, nonce);
    let mut prefill = prefill.iter().map(|&index| index as usize).peekable();
    let mut short_ids = Vec::with_capacity(transactions.len() * SHORT_ID_BYTES);
    let mut whole = Vec::new();
    let (mut whole_count, mut next) = (0u64, 0);
    for (index, (wtxid, transaction)) in transactions.iter().enumerate() {
        if prefill.next_if_eq(&index).is_some() {
            put_compact_size(&mut whole, (index - next) as u64);
            whole.extend_from_slice(transaction);
            whole_count += 1;
            next = index + 1;
        } else {
            let [a, b, c, d, e, f, ..] = key.short_id(wtxid).to_le_bytes();
            short_ids.extend_from_slice(&[a, b, c, d, e, f]);
        }
    }
    let mut payload = serialize(header);
    payload.reserve_exact(8 + 3 + short_ids.len() + 3 + whole.len());
    payload.extend_from_slice(&nonce.to_le_bytes());
    put_compact_size(&mut payload, (short_ids.len() / SHORT_ID_BYTES) as u64);
    payload.extend_from_slice(&short_ids);
    put_compact_size(&mut payload, whole_count);
    payload.extend_from_slice(&whole);
    payload.into()
}

/// A differential index: how many were passed over since the last one. It must lie below `total`.
fn next_index(reader: &mut Reader<'_>, next: &mut u64, total: usize) -> Result<u32, DecodeError> {
    let index = next
        .checked_add(reader.compact_size()?)
        .filter(|&index| index < total as u64)
        .ok_or(DecodeError::Value)?;
    *next = index + 1;
    u32::try_from(index).map_err(|_| DecodeError::Value)
}

/// Reads the payload of a `getblocktxn`: the block and indexes, ascending, each below `max_transactions`.
pub(super) fn read_wanted(
    payload: &[u8],
    max_transactions: usize,
) -> Result<(BlockHash, Vec<u32>), DecodeError> {
    let mut reader = Reader::new(payload);
    let hash = reader.block_hash()?;
    let count = reader.count(1, max_transactions)?;
    let mut indexes = Vec::with_capacity(count);
    let mut next = 0;
    for _ in 0..count {
        indexes.push(next_index(&mut reader, &mut next, max_transactions)?);
    }
    reader.end()?;
    Ok((hash, indexes))
}

/// The payload of a `getblocktxn`; `None` if the indexes do not ascend.
pub(super) fn put_wanted(hash: &BlockHash, indexes: &[u32]) -> Option<Vec<u8>> {
    let mut payload = hash.to_byte_array().to_vec();
    put_compact_size(&mut payload, indexes.len() as u64);
    let mut next = 0;
    for &index in indexes {
        put_compact_size(&mut payload, u64::from(index.checked_sub(next)?));
        next = index.checked_add(1)?;
    }
    Some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::p2p::samples;
    use bitcoin::bip152::{
        BlockTransactionsRequest, HeaderAndShortIds, PrefilledTransaction, ShortId,
    };
    use bitcoin::consensus::deserialize;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn whole(count: usize) -> (bitcoin::Block, Vec<(Wtxid, Bytes)>) {
        let block = samples::block(count);
        let transactions = block
            .txdata
            .iter()
            .map(|transaction| (transaction.compute_wtxid(), serialize(transaction).into()))
            .collect();
        (block, transactions)
    }

    /// The same by the bitcoin crate's types.
    fn oracle(block: &bitcoin::Block, nonce: u64, prefill: &BTreeSet<usize>) -> HeaderAndShortIds {
        let keys = ShortId::calculate_siphash_keys(&block.header, nonce);
        let mut last = 0;
        let mut oracle = HeaderAndShortIds {
            header: block.header,
            nonce,
            short_ids: Vec::new(),
            prefilled_txs: Vec::new(),
        };
        for (index, tx) in block.txdata.iter().enumerate() {
            if prefill.contains(&index) {
                let idx = (index - last) as u16;
                last = index + 1;
                let tx = tx.clone();
                oracle.prefilled_txs.push(PrefilledTransaction { idx, tx });
            } else {
                let id = ShortId::with_siphash_keys(&tx.compute_wtxid().to_raw_hash(), keys);
                oracle.short_ids.push(id);
            }
        }
        oracle
    }

    proptest! {
        #[test]
        fn compact_blocks_are_those_of_the_bitcoin_crate(
            count in 1usize..40,
            nonce: u64,
            picked in prop::collection::btree_set(0usize..40, 0..40),
        ) {
            let (block, transactions) = whole(count);
            let prefill: Vec<u32> = picked.iter().map(|&index| index as u32).collect();
            let payload = build_compact(&block.header, nonce, &transactions, &prefill);
            let expected = oracle(&block, nonce, &picked);
            prop_assert_eq!(&payload[..], &serialize(&expected)[..]);
            let read = CompactBlock::read(&payload, 40).expect("our own");
            prop_assert_eq!(read.transaction_count(), count);
            prop_assert_eq!(read.hash, block.block_hash());
            // A naive reconstruction: prefilled ones at their places, the others in order.
            let key = read.key();
            let mut ids = read.short_ids.iter();
            for (index, (wtxid, transaction)) in transactions.iter().enumerate() {
                match read.prefilled.iter().find(|(at, _)| *at as usize == index) {
                    Some((_, bytes)) => prop_assert_eq!(bytes, transaction),
                    None => prop_assert_eq!(ids.next(), Some(&key.short_id(wtxid))),
                }
            }
            prop_assert!(CompactBlock::read(&payload, count - 1).is_err());
            for length in 0..payload.len() {
                prop_assert!(CompactBlock::read(&payload.slice(..length), 40).is_err());
            }
        }

        #[test]
        fn wanted_indexes_are_those_of_the_bitcoin_crate(
            indexes in prop::collection::btree_set(0u32..16_666, 0..300),
        ) {
            let indexes: Vec<u32> = indexes.into_iter().collect();
            let hash = BlockHash::from_byte_array([7; 32]);
            let payload = put_wanted(&hash, &indexes).expect("ascending");
            let theirs: BlockTransactionsRequest = deserialize(&payload).expect("well formed");
            let as_u64: Vec<u64> = indexes.iter().map(|&index| index.into()).collect();
            prop_assert_eq!(theirs.indexes, as_u64);
            prop_assert_eq!(read_wanted(&payload, 16_666), Ok((hash, indexes)));
        }
    }

    #[test]
    fn indexes_that_overflow_or_lie_outside_are_refused() {
        let hash = BlockHash::from_byte_array([7; 32]);
        assert_eq!(put_wanted(&hash, &[4, 4]), None);
        assert_eq!(put_wanted(&hash, &[4, 3]), None);
        let with = |tail: &[u8]| [&hash.to_byte_array()[..], tail].concat();
        let last = [2, 0, 0xff, 255, 255, 255, 255, 255, 255, 255, 255];
        assert_eq!(read_wanted(&with(&last), 16_666), Err(DecodeError::Value));
        assert_eq!(read_wanted(&with(&[2, 0, 9]), 10), Err(DecodeError::Value));
        assert!(read_wanted(&with(&[2, 0, 8]), 10).is_ok());
        let (block, transactions) = whole(2);
        let payload = build_compact(&block.header, 1, &transactions, &[1]);
        // The index of the prefilled one stands after header, nonce, one short id and two counts.
        let at = 80 + 8 + 1 + 6 + 1;
        assert_eq!(payload[at], 1);
        let mut outside = payload.to_vec();
        outside[at] = 2;
        assert_eq!(
            CompactBlock::read(&outside.into(), 40),
            Err(DecodeError::Value)
        );
        let empty = [&serialize(&block.header)[..], &[0; 10]].concat();
        assert_eq!(
            CompactBlock::read(&empty.into(), 40),
            Err(DecodeError::Value)
        );
    }
}
