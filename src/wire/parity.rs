//! PARITY: cells of an erasure code over what a sender pushes.

use super::codec::{NoRoom, Reader, Writer, compact_size_len};
use super::error::WireError;
use super::structures::{Body, JobRef, ParityKind};
use super::{MAX_PARITY_CELLS, MessageType};

/// PARITY (0x2c): consecutive cells of parity.
///
/// ```text
/// u16 job | u8 kind | CompactSize bytes >= 1 | CompactSize planned >= 1 | CompactSize first
/// | u8 count, 1 to 64 | count cells of one size
/// ```
///
/// `bytes` is the length of the string that the code runs over; it decides how many bytes a cell has, which the job's
/// count of transactions and [`ParityKind`] say together with it, and how many cells there are. What the cells hold can
/// only be checked by decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parity<'a> {
    /// The job.
    pub job: JobRef,
    /// What the code runs over.
    pub kind: ParityKind,
    /// Bytes of that.
    pub bytes: u32,
    /// How many cells the sender means to send in all, these included, as far as it knows.
    pub planned: u32,
    /// The number of the first cell.
    pub first: u32,
    /// How many follow one another.
    pub count: u8,
    /// Their bytes.
    pub cells: &'a [u8],
}

impl<'a> Parity<'a> {
    /// Bytes of one cell.
    pub fn cell_len(&self) -> usize {
        self.cells.len() / usize::from(self.count).max(1)
    }

    /// The cells with their numbers.
    pub fn cells(&self) -> impl Iterator<Item = (u32, &'a [u8])> {
        (self.first..).zip(self.cells.chunks_exact(self.cell_len().max(1)))
    }

    /// Bytes of a whole frame with cells of this size, at most: what is left of a room is theirs.
    pub const fn frame_len(cells: usize, cell_len: usize) -> usize {
        // Type, length, job, kind, three CompactSizes of at most five bytes, count.
        1 + 3 + 2 + 1 + 15 + 1 + cells * cell_len
    }

    fn fixed_len(&self) -> usize {
        4 + compact_size_len(u64::from(self.bytes))
            + compact_size_len(u64::from(self.planned))
            + compact_size_len(u64::from(self.first))
    }
}

impl<'a> Body<'a> for Parity<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let job = JobRef::decode(reader)?;
        let kind = ParityKind::decode(reader)?;
        let bytes = reader.compact_u32()?;
        let planned = reader.compact_u32()?;
        let first = reader.compact_u32()?;
        let count = reader.u8()?;
        let cells = reader.take_rest();
        let whole = count > 0 && cells.len().is_multiple_of(usize::from(count));
        let last = u64::from(first) + u64::from(count);
        let in_range = bytes > 0
            && (1..=MAX_PARITY_CELLS).contains(&planned)
            && last <= u64::from(MAX_PARITY_CELLS);
        if !whole || count > 64 || cells.is_empty() || !in_range {
            return Err(WireError::ParityCells);
        }
        Ok(Self {
            job,
            kind,
            bytes,
            planned,
            first,
            count,
            cells,
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        self.job.encode(writer)?;
        writer.u8(self.kind.to_wire())?;
        writer.compact_size(u64::from(self.bytes))?;
        writer.compact_size(u64::from(self.planned))?;
        writer.compact_size(u64::from(self.first))?;
        writer.u8(self.count)?;
        writer.bytes(self.cells)
    }

    fn encoded_len(&self) -> usize {
        self.fixed_len() + self.cells.len()
    }
}

const _: () = assert!(MessageType::Parity.to_wire() == 0x2c);
