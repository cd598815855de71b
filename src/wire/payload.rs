//! What is sent of a block: hashes, whole transactions, parts of large ones.

use super::codec::{NoRoom, Reader, Writer, compact_size_len};
use super::error::WireError;
use super::lap::WireLap;
use super::structures::{Body, JobRef, Tree, decode_tree_flags, tree_flags};
use super::{CELL, MAX_TXS};
use crate::merkle::MAX_LEAVES;
use std::fmt;

/// HASHES (0x25): `u16 job | u8 TF | LAP`.
///
/// Bit 1 of TF is set exactly if the flat run of the lap holds short ids; down and up runs never do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashes<'a> {
    /// The job.
    pub job: JobRef,
    /// Of which tree; W if there are short ids.
    pub tree: Tree,
    /// The hashes.
    pub lap: WireLap<'a>,
}

impl<'a> Body<'a> for Hashes<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let job = JobRef::decode(reader)?;
        let (tree, short) = decode_tree_flags(reader)?;
        let (lap, has_short_ids) = WireLap::decode_sized(reader)?;
        if has_short_ids != short {
            return Err(WireError::ShortFlag);
        }
        Ok(Self { job, tree, lap })
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        self.job.encode(writer)?;
        writer.u8(tree_flags(self.tree, self.lap.has_short_ids()))?;
        self.lap.encode(writer)
    }

    fn encoded_len(&self) -> usize {
        3 + self.lap.encoded_len()
    }
}

/// The transactions of a TXS frame, borrowed from the wire or from whoever writes them.
#[derive(Clone, Copy)]
pub struct TxList<'a> {
    repr: Repr<'a>,
}

#[derive(Clone, Copy)]
enum Repr<'a> {
    Transactions(&'a [&'a [u8]]),
    Wire { count: u32, bytes: &'a [u8] },
}

impl<'a> TxList<'a> {
    /// These transactions, 1 to [`MAX_TXS`], none of them empty.
    pub const fn new(transactions: &'a [&'a [u8]]) -> Self {
        Self {
            repr: Repr::Transactions(transactions),
        }
    }

    /// How many there are.
    pub const fn len(&self) -> u32 {
        match self.repr {
            Repr::Transactions(transactions) => transactions.len() as u32,
            Repr::Wire { count, .. } => count,
        }
    }

    /// Whether there are none, which only a list that is yet to be written can be.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The transactions in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        let (transactions, bytes): (&'a [&'a [u8]], &'a [u8]) = match self.repr {
            Repr::Transactions(transactions) => (transactions, &[]),
            Repr::Wire { bytes, .. } => (&[], bytes),
        };
        let mut reader = Reader::new(bytes);
        let on_wire = std::iter::from_fn(move || decode_transaction(&mut reader).ok());
        transactions.iter().copied().chain(on_wire)
    }

    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let count = reader.count(MAX_TXS)?;
        if count == 0 {
            return Err(WireError::EmptyList);
        }
        let before = *reader;
        for _ in 0..count {
            decode_transaction(reader)?;
        }
        Ok(Self {
            repr: Repr::Wire {
                count,
                bytes: reader.read_since(&before),
            },
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.compact_size(u64::from(self.len()))?;
        match self.repr {
            Repr::Transactions(transactions) => transactions.iter().try_for_each(|transaction| {
                writer.compact_size(transaction.len() as u64)?;
                writer.bytes(transaction)
            }),
            Repr::Wire { bytes, .. } => writer.bytes(bytes),
        }
    }

    fn encoded_len(&self) -> usize {
        compact_size_len(u64::from(self.len()))
            + match self.repr {
                Repr::Transactions(transactions) => transactions
                    .iter()
                    .map(|transaction| {
                        compact_size_len(transaction.len() as u64) + transaction.len()
                    })
                    .sum(),
                Repr::Wire { bytes, .. } => bytes.len(),
            }
    }
}

fn decode_transaction<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], WireError> {
    let len = reader.compact_u32()?;
    if len == 0 {
        return Err(WireError::EmptyTransaction);
    }
    reader.take(len as usize)
}

impl PartialEq for TxList<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for TxList<'_> {}

impl fmt::Debug for TxList<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

/// TXS (0x27): `u16 job | CompactSize first | CompactSize count >= 1 | count x (CompactSize len >= 1, bytes)`,
/// whole transactions in the order of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Txs<'a> {
    /// The job.
    pub job: JobRef,
    /// The index of the first.
    pub first: u32,
    /// They and those that follow it.
    pub transactions: TxList<'a>,
}

impl<'a> Body<'a> for Txs<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let job = JobRef::decode(reader)?;
        let first = decode_leaf(reader)?;
        let transactions = TxList::decode(reader)?;
        if transactions.len() > MAX_LEAVES - first {
            return Err(WireError::RunOutOfLevel);
        }
        Ok(Self {
            job,
            first,
            transactions,
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        self.job.encode(writer)?;
        writer.compact_size(u64::from(self.first))?;
        self.transactions.encode(writer)
    }

    fn encoded_len(&self) -> usize {
        2 + compact_size_len(u64::from(self.first)) + self.transactions.encoded_len()
    }
}

/// The index of a leaf, below 2^24.
fn decode_leaf(reader: &mut Reader<'_>) -> Result<u32, WireError> {
    let index = reader.compact_u32()?;
    if index >= MAX_LEAVES {
        return Err(WireError::RunOutOfLevel);
    }
    Ok(index)
}

/// TX_PART (0x28): a part of a transaction, the coinbase included, on a fixed grid.
///
/// ```text
/// u16 job | CompactSize index | CompactSize total >= 1 | CompactSize cell | bytes, at least one
/// ```
///
/// The bytes start at `cell * 1152` of the transaction, and are a whole number of cells or end where it does.
/// Two parts of the same transaction therefore share whole cells or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxPart<'a> {
    /// The job.
    pub job: JobRef,
    /// The index of the transaction.
    pub index: u32,
    /// Bytes of the whole transaction.
    pub total: u32,
    /// The first cell.
    pub cell: u32,
    /// The bytes from there on.
    pub bytes: &'a [u8],
}

impl TxPart<'_> {
    /// Where the bytes start in the transaction.
    pub const fn offset(&self) -> u64 {
        self.cell as u64 * CELL as u64
    }

    /// How many bytes from `cell` on a part may have so that its whole frame fits into `room` bytes: a number
    /// of whole cells, or all up to the end. `None` if not even one cell fits, or there is nothing there.
    pub fn fitting(room: usize, index: u32, total: u32, cell: u32) -> Option<usize> {
        let start = u64::from(cell) * u64::from(CELL);
        let left = u64::from(total)
            .checked_sub(start)
            .filter(|left| *left > 0)?;
        let fixed = Self::fixed_len(index, total, cell);
        let body = super::writers::longest_body(room)?;
        let space = body.checked_sub(fixed)? as u64;
        let len = if left <= space {
            left
        } else {
            space / u64::from(CELL) * u64::from(CELL)
        };
        (len > 0).then_some(len as usize)
    }

    fn fixed_len(index: u32, total: u32, cell: u32) -> usize {
        2 + compact_size_len(u64::from(index))
            + compact_size_len(u64::from(total))
            + compact_size_len(u64::from(cell))
    }
}

impl<'a> Body<'a> for TxPart<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let part = Self {
            job: JobRef::decode(reader)?,
            index: decode_leaf(reader)?,
            total: reader.compact_u32()?,
            cell: reader.compact_u32()?,
            bytes: reader.take_rest(),
        };
        let len = part.bytes.len() as u64;
        if len == 0 {
            return Err(WireError::EmptyTransaction);
        }
        let end = part.offset() + len;
        let total = u64::from(part.total);
        if end > total || (end < total && !len.is_multiple_of(u64::from(CELL))) {
            return Err(WireError::OffGrid);
        }
        Ok(part)
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        self.job.encode(writer)?;
        writer.compact_size(u64::from(self.index))?;
        writer.compact_size(u64::from(self.total))?;
        writer.compact_size(u64::from(self.cell))?;
        writer.bytes(self.bytes)
    }

    fn encoded_len(&self) -> usize {
        Self::fixed_len(self.index, self.total, self.cell) + self.bytes.len()
    }
}
