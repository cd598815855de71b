//! Reading payloads strictly: no length is believed before the bytes it speaks of were seen to be there.

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash;

/// Bytes of a block header.
pub(super) const HEADER_BYTES: usize = 80;
/// Bytes of the smallest input: outpoint 36, empty script 1, sequence 4.
const MIN_INPUT_BYTES: usize = 41;
/// Bytes of the smallest output: amount 8, empty script 1.
const MIN_OUTPUT_BYTES: usize = 9;
/// Bytes of the smallest transaction that a block can hold: one input, one output, no witness.
pub(super) const MIN_TRANSACTION_BYTES: usize = 60;

/// Why bytes do not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They end too early, or a count speaks of more than can be there.
    #[error("ends too early")]
    Truncated,
    /// A CompactSize that is not in its shortest form.
    #[error("a size not in its shortest form")]
    NonMinimal,
    /// Bytes are left over.
    #[error("bytes left over")]
    Trailing,
    /// A value that may not be there.
    #[error("a value out of range")]
    Value,
    /// More entries than the protocol allows.
    #[error("too many entries")]
    TooMany,
}

/// Reads from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    whole: usize,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            whole: bytes.len(),
            rest: bytes,
        }
    }

    /// Bytes read.
    pub(super) fn position(&self) -> usize {
        self.whole - self.rest.len()
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self
            .rest
            .split_at_checked(count)
            .ok_or(DecodeError::Truncated)?;
        self.rest = tail;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Truncated)?;
        self.rest = tail;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A CompactSize in its shortest form.
    pub(super) fn compact_size(&mut self) -> Result<u64, DecodeError> {
        let (value, least) = match self.u8()? {
            0xfd => (u64::from(self.u16()?), 0xfd),
            0xfe => (u64::from(self.u32()?), 0x1_0000),
            0xff => (self.u64()?, 0x1_0000_0000),
            small => return Ok(u64::from(small)),
        };
        if value < least {
            return Err(DecodeError::NonMinimal);
        }
        Ok(value)
    }

    /// How many items follow, each of at least `item_bytes` bytes and at most `max` of them.
    pub(super) fn count(&mut self, item_bytes: usize, max: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.compact_size()?).map_err(|_| DecodeError::TooMany)?;
        if count > max {
            return Err(DecodeError::TooMany);
        }
        if count > self.rest.len() / item_bytes {
            return Err(DecodeError::Truncated);
        }
        Ok(count)
    }

    /// Bytes preceded by their length.
    pub(super) fn var_bytes(&mut self, max: usize) -> Result<&'a [u8], DecodeError> {
        let length = self.count(1, max)?;
        self.take(length)
    }

    pub(super) fn header(&mut self) -> Result<Header, DecodeError> {
        deserialize(self.take(HEADER_BYTES)?).map_err(|_| DecodeError::Value)
    }

    pub(super) fn block_hash(&mut self) -> Result<BlockHash, DecodeError> {
        Ok(BlockHash::from_byte_array(self.array()?))
    }

    /// Passes over one transaction (BIP144) and says where its parts lie.
    pub(super) fn transaction(&mut self) -> Result<TransactionParts<'a>, DecodeError> {
        let version = self.take(4)?;
        let has_witness = self.rest.first() == Some(&0);
        if has_witness && self.take(2)? != [0, 1] {
            return Err(DecodeError::Value);
        }
        let body = self.rest;
        let inputs = self.count(MIN_INPUT_BYTES, usize::MAX)?;
        if inputs == 0 {
            return Err(DecodeError::Value);
        }
        for _ in 0..inputs {
            self.take(36)?;
            self.var_bytes(usize::MAX)?;
            self.take(4)?;
        }
        let outputs = self.count(MIN_OUTPUT_BYTES, usize::MAX)?;
        if outputs == 0 {
            return Err(DecodeError::Value);
        }
        for _ in 0..outputs {
            self.take(8)?;
            self.var_bytes(usize::MAX)?;
        }
        let body = passed(body, self.rest);
        if has_witness {
            self.witnesses(inputs)?;
        }
        let lock_time = self.take(4)?;
        Ok(TransactionParts {
            version,
            body,
            lock_time,
        })
    }

    fn witnesses(&mut self, inputs: usize) -> Result<(), DecodeError> {
        let mut any = false;
        for _ in 0..inputs {
            let items = self.count(1, usize::MAX)?;
            any |= items > 0;
            for _ in 0..items {
                self.var_bytes(usize::MAX)?;
            }
        }
        // A witness that holds nothing has a shorter form: none.
        if any { Ok(()) } else { Err(DecodeError::Value) }
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Trailing)
        }
    }
}

/// What of `from` was read until `rest` was left.
fn passed<'a>(from: &'a [u8], rest: &[u8]) -> &'a [u8] {
    from.get(..from.len() - rest.len()).unwrap_or_default()
}

/// Parts of a transaction, as slices of its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct TransactionParts<'a> {
    /// Four bytes.
    pub version: &'a [u8],
    /// Inputs and outputs with their counts.
    pub body: &'a [u8],
    /// Four bytes.
    pub lock_time: &'a [u8],
}

/// Appends a CompactSize.
pub(super) fn put_compact_size(out: &mut Vec<u8>, value: u64) {
    match value {
        0..0xfd => out.push(value as u8),
        0xfd..0x1_0000 => {
            out.push(0xfd);
            out.extend_from_slice(&(value as u16).to_le_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            out.push(0xfe);
            out.extend_from_slice(&(value as u32).to_le_bytes());
        }
        _ => {
            out.push(0xff);
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::consensus::encode::{VarInt, serialize};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sizes_are_those_of_the_bitcoin_crate(bits in 0u32..64, value: u64) {
            let value = value >> bits;
            let mut bytes = Vec::new();
            put_compact_size(&mut bytes, value);
            prop_assert_eq!(&bytes, &serialize(&VarInt(value)));
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.compact_size(), Ok(value));
            prop_assert_eq!(reader.end(), Ok(()));
        }

        /// Whatever passes here decodes there, to the same length, and the other way round.
        #[test]
        fn transactions_are_those_of_the_bitcoin_crate(
            seed in prop::collection::vec(any::<u8>(), 0..12),
            at in any::<prop::sample::Index>(),
        ) {
            let block = crate::chain::p2p::samples::block(3);
            let mut bytes = serialize(&block.txdata[1]);
            let at = at.index(bytes.len());
            let end = bytes.len().min(at + seed.len());
            for (byte, change) in bytes[at..end].iter_mut().zip(&seed) {
                *byte ^= change;
            }
            let mut reader = Reader::new(&bytes);
            let ours = reader.transaction().map(|_| reader.position());
            let theirs = bitcoin::consensus::encode::deserialize_partial::<bitcoin::Transaction>(&bytes);
            match theirs {
                Ok((transaction, length)) if !transaction.output.is_empty() && !transaction.input.is_empty() => {
                    prop_assert_eq!(ours, Ok(length));
                }
                _ => prop_assert!(ours.is_err()),
            }
        }
    }

    #[test]
    fn long_forms_and_absent_items_are_refused() {
        for bytes in [&[0xfd, 1, 0][..], &[0xfe, 0xff, 0xff, 0, 0]] {
            assert_eq!(
                Reader::new(bytes).compact_size(),
                Err(DecodeError::NonMinimal)
            );
        }
        let counted = [3, 1, 2];
        assert_eq!(
            Reader::new(&counted).count(1, 9),
            Err(DecodeError::Truncated)
        );
        assert_eq!(Reader::new(&counted).count(1, 2), Err(DecodeError::TooMany));
    }
}
