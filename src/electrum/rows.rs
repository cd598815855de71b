//! The rows of the index, as bytes.
//!
//! Transactions are numbered in the order of the chain, from 0 for the coinbase of the genesis block on, and stand for themselves by
//! these numbers. Keys are written so that their order as bytes is the order of what they mean.
//!
//! ```text
//! keyspace   key                                value
//! blocks     height 4                           header 80, transactions up to its end 4, size 4, place 8 or nothing
//! sizes      height 4, chunk 2                  offset of the chunk's first transaction, then 64 sizes, as LEB128
//! history    script hash, first 8; number 4     nothing
//! txids      txid, first 8; number 4            nothing
//! undo       height 4                           keys that the block added: to history, then to txids, 12 each
//! ```
//!
//! Numbers in keys are big-endian, in values little-endian. Four bytes number 4.3 billion transactions: more than three times those of
//! 2026, enough to 2040 and beyond at the rate of today's blocks.
//!
//! Nothing says here whether a transaction pays a script or spends from it, nor which outputs are unspent: to look at the
//! transaction tells, and whoever asks for a history needs it anyway, for its id. Of a table of ids alone, 32 bytes each, this
//! index would be half as large again.

use arrayvec::ArrayVec;

use super::script_hash::PREFIX_BYTES;
use crate::chain::bitcoind::blockfiles::Place;
use crate::merkle::Hash;

/// A transaction's number in the order of the chain.
pub type TxNumber = u32;

/// A key of `history` or `txids`.
pub type Row = [u8; ROW_BYTES];

/// Bytes of such a key.
pub const ROW_BYTES: usize = PREFIX_BYTES + 4;

/// Sizes in one row: to find a transaction so many are added up at most, and a row's own cost is spread over as many.
pub const CHUNK: u32 = 64;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 80;

/// The key of a transaction under eight bytes of a hash.
pub fn row(prefix: [u8; PREFIX_BYTES], number: TxNumber) -> Row {
    let mut row = [0; ROW_BYTES];
    let (head, tail) = row.split_at_mut(PREFIX_BYTES);
    head.copy_from_slice(&prefix);
    tail.copy_from_slice(&number.to_be_bytes());
    row
}

/// The transaction that a key names; `None` for bytes that are none.
pub fn number_of(row: &[u8]) -> Option<TxNumber> {
    let row: &Row = row.try_into().ok()?;
    let (_, number) = row.split_last_chunk()?;
    Some(TxNumber::from_be_bytes(*number))
}

/// The eight bytes by which a transaction is found.
pub fn txid_prefix(txid: &Hash) -> [u8; PREFIX_BYTES] {
    let [a, b, c, d, e, f, g, h, ..] = *txid;
    [a, b, c, d, e, f, g, h]
}

/// What the index keeps of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRow {
    /// As serialized.
    pub header: [u8; HEADER_BYTES],
    /// The number behind that of its last transaction.
    pub end: TxNumber,
    /// Its size in bytes.
    pub size: u32,
    /// Where it is in the node's files, if it was seen there.
    pub place: Option<Place>,
}

impl BlockRow {
    /// As a value.
    pub fn encode(&self) -> ArrayVec<u8, { HEADER_BYTES + 16 }> {
        let mut bytes = ArrayVec::new();
        bytes.extend(self.header);
        bytes.extend(self.end.to_le_bytes());
        bytes.extend(self.size.to_le_bytes());
        if let Some(place) = self.place {
            bytes.extend(place.file.to_le_bytes());
            bytes.extend(place.offset.to_le_bytes());
        }
        bytes
    }

    /// From a value; `None` for bytes that are none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk()?;
        let (end, rest) = rest.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let place = match rest {
            [] => None,
            rest => {
                let (file, rest) = rest.split_first_chunk()?;
                Some(Place {
                    file: u32::from_le_bytes(*file),
                    offset: u32::from_le_bytes(*<&[u8; 4]>::try_from(rest).ok()?),
                })
            }
        };
        Some(Self {
            header: *header,
            end: TxNumber::from_le_bytes(*end),
            size: u32::from_le_bytes(*size),
            place,
        })
    }

    /// The block's hash.
    pub fn hash(&self) -> Hash {
        crate::merkle::hash::sha256d(&self.header)
    }

    /// The hash of the block before it.
    pub fn parent(&self) -> Hash {
        let mut parent = [0; 32];
        parent.copy_from_slice(&self.header[4..36]);
        parent
    }
}

/// The key of the chunk of a block in which the transaction at `position` is.
pub fn sizes_key(height: u32, position: u32) -> [u8; 6] {
    let [a, b, c, d] = height.to_be_bytes();
    // A block has fewer than 2^22 transactions: each has 60 bytes, and a block at most 32 MB.
    let [.., e, f] = (position / CHUNK).to_be_bytes();
    [a, b, c, d, e, f]
}

/// The value of a chunk: where its first transaction begins in the block, and the sizes of all in it, in bytes.
pub fn encode_sizes(offset: u32, sizes: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + 2 * sizes.len());
    for number in std::iter::once(&offset).chain(sizes) {
        let mut number = *number;
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
    }
    bytes
}

/// Where the transaction at `position` lies in its block, of the chunk's value: offset and size in bytes.
pub fn find_size(chunk: &[u8], position: u32) -> Option<(u32, u32)> {
    let mut rest = chunk;
    let mut offset = leb128(&mut rest)?;
    for _ in 0..position % CHUNK {
        offset = offset.checked_add(leb128(&mut rest)?)?;
    }
    Some((offset, leb128(&mut rest)?))
}

fn leb128(bytes: &mut &[u8]) -> Option<u32> {
    let mut value = 0u32;
    for shift in (0..32).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u32::from(first & 0x7f);
        if part << shift >> shift != part {
            return None;
        }
        value |= part << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_are_ordered_as_what_they_mean(one in any::<([u8; 8], u32)>(), other in any::<([u8; 8], u32)>()) {
            let [first, second] = [one, other].map(|(prefix, number)| row(prefix, number));
            prop_assert_eq!(first.cmp(&second), one.cmp(&other));
            prop_assert_eq!(number_of(&first), Some(one.1));
            prop_assert_eq!(number_of(&first[1..]), None);
        }

        #[test]
        fn a_block_row_comes_back(
            header in prop::array::uniform32(any::<u8>()),
            end in any::<u32>(),
            size in any::<u32>(),
            place in any::<Option<(u32, u32)>>(),
        ) {
            let mut whole = [7; HEADER_BYTES];
            whole[4..36].copy_from_slice(&header);
            let place = place.map(|(file, offset)| Place { file, offset });
            let block = BlockRow { header: whole, end, size, place };
            let bytes = block.encode();
            prop_assert_eq!(BlockRow::decode(&bytes), Some(block));
            prop_assert_eq!(block.parent(), header);
            prop_assert_eq!(BlockRow::decode(&bytes[..bytes.len() - 1]), None);
        }

        #[test]
        fn every_transaction_of_a_chunk_is_where_the_sizes_before_it_end(
            offset in 81..4_000_000u32,
            sizes in prop::collection::vec(60..400_000u32, 1..=64),
        ) {
            let bytes = encode_sizes(offset, &sizes);
            let mut at = offset;
            for (position, size) in (640..).zip(&sizes) {
                prop_assert_eq!(find_size(&bytes, position), Some((at, *size)));
                at += size;
            }
            prop_assert_eq!(find_size(&bytes[..bytes.len() - 1], 640 + sizes.len() as u32 - 1), None);
        }

        #[test]
        fn foreign_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..120), position in any::<u32>()) {
            let _ = BlockRow::decode(&bytes);
            let _ = find_size(&bytes, position);
            let _ = number_of(&bytes);
        }
    }

    #[test]
    fn chunks_of_a_block_follow_each_other() {
        assert_eq!(sizes_key(1, 0), [0, 0, 0, 1, 0, 0]);
        assert_eq!(sizes_key(1, 63), [0, 0, 0, 1, 0, 0]);
        assert_eq!(sizes_key(1, 64), [0, 0, 0, 1, 0, 1]);
        assert_eq!(
            sizes_key(0x0102_0304, 64 * 0x1234),
            [1, 2, 3, 4, 0x12, 0x34]
        );
    }
}
