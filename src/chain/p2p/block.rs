//! Where the transactions of a serialized block lie.

use bitcoin::block::Header;
use bytes::Bytes;

use super::read::{
    DecodeError, HEADER_BYTES, MIN_TRANSACTION_BYTES, Reader, TransactionParts, put_compact_size,
};

/// A serialized block, cut into its parts without a copy.
///
/// Only boundaries were checked: not the proof of work, not the merkle root, no rule on what is within.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockParts {
    /// Its header.
    pub header: Header,
    /// Its transactions, as slices of the block's bytes.
    pub transactions: Vec<Bytes>,
}

impl BlockParts {
    /// Cuts a block. At most `max_transactions`, at least one, and nothing left over.
    pub fn read(block: &Bytes, max_transactions: usize) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(block);
        let header = reader.header()?;
        let count = reader.count(MIN_TRANSACTION_BYTES, max_transactions)?;
        let transactions = cut_transactions(&mut reader, block, count)?;
        reader.end()?;
        if transactions.is_empty() {
            return Err(DecodeError::Value);
        }
        Ok(Self {
            header,
            transactions,
        })
    }
}

/// Checks the boundaries of a block and gives its header, and no more.
pub(super) fn check_block(block: &[u8], max_transactions: usize) -> Result<Header, DecodeError> {
    let mut reader = Reader::new(block);
    let header = reader.header()?;
    let count = reader.count(MIN_TRANSACTION_BYTES, max_transactions)?;
    if count == 0 {
        return Err(DecodeError::Value);
    }
    for _ in 0..count {
        reader.transaction()?;
    }
    reader.end()?;
    Ok(header)
}

/// The next `count` transactions, as slices of the bytes that `reader` reads.
pub(super) fn cut_transactions(
    reader: &mut Reader<'_>,
    bytes: &Bytes,
    count: usize,
) -> Result<Vec<Bytes>, DecodeError> {
    // The count was checked against the bytes that are there.
    let mut transactions = Vec::with_capacity(count);
    for _ in 0..count {
        let start = reader.position();
        reader.transaction()?;
        transactions.push(bytes.slice(start..reader.position()));
    }
    Ok(transactions)
}

/// The block without its witnesses (BIP144), as [`super::BlockForm::Stripped`] wants it.
pub fn strip_block(block: &Bytes, max_transactions: usize) -> Result<Bytes, DecodeError> {
    let mut reader = Reader::new(block);
    let mut stripped = Vec::with_capacity(block.len());
    stripped.extend_from_slice(reader.take(HEADER_BYTES)?);
    let count = reader.count(MIN_TRANSACTION_BYTES, max_transactions)?;
    put_compact_size(&mut stripped, count as u64);
    for _ in 0..count {
        let TransactionParts {
            version,
            body,
            lock_time,
            ..
        } = reader.transaction()?;
        for part in [version, body, lock_time] {
            stripped.extend_from_slice(part);
        }
    }
    reader.end()?;
    Ok(stripped.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::p2p::samples;
    use bitcoin::Witness;
    use bitcoin::consensus::serialize;

    #[test]
    fn a_block_is_cut_where_its_transactions_lie() {
        for count in [1, 2, 9] {
            let block = samples::block(count);
            let bytes = Bytes::from(serialize(&block));
            let parts = BlockParts::read(&bytes, 100).expect("a block");
            assert_eq!(parts.header, block.header);
            assert_eq!(check_block(&bytes, 100), Ok(block.header));
            let whole: Vec<_> = block.txdata.iter().map(serialize).collect();
            assert_eq!(parts.transactions, whole);
            assert!(BlockParts::read(&bytes, count - 1).is_err());
            for length in 0..bytes.len() {
                assert!(check_block(&bytes[..length], 100).is_err());
            }
            assert!(check_block(&[&bytes[..], &[0]].concat(), 100).is_err());
        }
    }

    #[test]
    fn witnesses_are_stripped_and_nothing_else() {
        let mut block = samples::block(5);
        let bytes = Bytes::from(serialize(&block));
        for transaction in &mut block.txdata {
            for input in &mut transaction.input {
                input.witness = Witness::new();
            }
        }
        assert_eq!(strip_block(&bytes, 9), Ok(serialize(&block).into()));
    }
}
