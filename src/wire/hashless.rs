//! Workouts without hashes: which nodes are held, wanted or not to be had.
//!
//! ```text
//! HASHLESS RUN      u8 direction << 6 | level | CompactSize START | CompactSize COUNT >= 1
//!                   [ | ceil(COUNT / 8) bytes of bitmap, if the direction is 11 ]
//! HASHLESS WORKOUT  CompactSize COUNT | COUNT x HASHLESS RUN
//! ```
//!
//! The bitmap stands for nodes START to START + COUNT - 1 of one level, least significant bit first; its first
//! and its last bit are set, bits past the last are clear. Runs may overlap and come in any order.

use super::MAX_RUNS;
use super::codec::{NoRoom, Reader, Writer, compact_size_len};
use super::error::WireError;
use super::lap::{check_span, decode_level_direction, level_direction};
use crate::merkle::{Direction, Run};
use std::fmt;
use std::ops::Range;

/// How a hashless run names its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape<'a> {
    /// All nodes of a run.
    Run(Direction),
    /// Those nodes of a stretch of one level whose bits are set, least significant bit first.
    Bitmap(&'a [u8]),
}

/// A run without hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashlessRun<'a> {
    /// Run or bitmap.
    pub shape: Shape<'a>,
    /// The level of its deepest node, 0 (the root) to 24.
    pub level: u8,
    /// The index of its deepest node; of the first bit in a bitmap.
    pub start: u32,
    /// How many nodes, or bits, at least one.
    pub count: u32,
}

impl<'a> HashlessRun<'a> {
    /// The nodes of `range` at `level`.
    pub const fn flat(level: u8, range: Range<u32>) -> Self {
        let count = range.end.saturating_sub(range.start);
        Self {
            shape: Shape::Run(Direction::Flat),
            level,
            start: range.start,
            count,
        }
    }

    /// The run as the tree knows it; `None` for a bitmap.
    pub const fn to_run(&self) -> Option<Run> {
        match self.shape {
            Shape::Run(direction) => Some(Run {
                direction,
                level: self.level,
                start: self.start,
                count: self.count,
            }),
            Shape::Bitmap(_) => None,
        }
    }

    /// The stretches of one level that it names, ascending. None for up and down runs, whose nodes lie at
    /// several levels: see [`HashlessRun::to_run`].
    pub fn ranges(&self) -> RunRanges<'a> {
        let (bits, end) = match self.shape {
            Shape::Run(Direction::Flat) => (None, self.count),
            Shape::Run(_) => (None, 0),
            Shape::Bitmap(bits) => (Some(bits), self.count),
        };
        RunRanges {
            bits,
            start: self.start,
            position: 0,
            end,
        }
    }

    /// Reads a run.
    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let (direction, level) = decode_level_direction(reader)?;
        let start = reader.compact_u32()?;
        let count = reader.compact_u32()?;
        check_span(direction.unwrap_or(Direction::Flat), level, start, count)?;
        let shape = match direction {
            Some(direction) => Shape::Run(direction),
            None => Shape::Bitmap(check_bitmap(
                reader.take(count.div_ceil(8) as usize)?,
                count,
            )?),
        };
        Ok(Self {
            shape,
            level,
            start,
            count,
        })
    }

    /// Writes the run.
    pub fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        let (direction, bits) = self.parts();
        writer.u8(level_direction(direction, self.level))?;
        writer.compact_size(u64::from(self.start))?;
        writer.compact_size(u64::from(self.count))?;
        writer.bytes(bits)
    }

    /// Bytes that [`HashlessRun::encode`] writes.
    pub fn encoded_len(&self) -> usize {
        flat_len(self.start, self.count) + self.parts().1.len()
    }

    const fn parts(&self) -> (Option<Direction>, &'a [u8]) {
        match self.shape {
            Shape::Run(direction) => (Some(direction), &[]),
            Shape::Bitmap(bits) => (None, bits),
        }
    }
}

/// Bytes of a run without a bitmap.
pub(super) const fn flat_len(start: u32, count: u32) -> usize {
    1 + compact_size_len(start as u64) + compact_size_len(count as u64)
}

/// Refuses a bitmap of `count` bits that begins or ends with clear bits, or uses what lies past them.
fn check_bitmap(bits: &[u8], count: u32) -> Result<&[u8], WireError> {
    let (first, last) = bits.first().zip(bits.last()).ok_or(WireError::EmptyRun)?;
    // Of the last byte, the bit of the last node must be the highest that is set.
    let highest = (count - 1) % 8;
    if first & 1 == 0 || last >> highest != 1 {
        return Err(WireError::BadBitmap);
    }
    Ok(bits)
}

/// The stretches of one hashless run.
#[derive(Clone, Debug)]
pub struct RunRanges<'a> {
    /// `None`: every node.
    bits: Option<&'a [u8]>,
    start: u32,
    position: u32,
    end: u32,
}

impl RunRanges<'_> {
    /// Up to 64 bits from `position` on, the first of them lowest, and how many of them are meant.
    fn window(bits: &[u8], position: u32) -> (u64, u32) {
        let bytes = bits.get(position as usize / 8..).unwrap_or_default();
        let mut word = [0; 8];
        let len = bytes.len().min(8);
        if let (Some(to), Some(from)) = (word.get_mut(..len), bytes.get(..len)) {
            to.copy_from_slice(from);
        }
        (
            u64::from_le_bytes(word) >> (position % 8),
            64 - position % 8,
        )
    }

    /// The first position from `position` on whose bit is `value`, at most the end.
    fn seek(&self, bits: &[u8], mut position: u32, value: bool) -> u32 {
        while position < self.end {
            let (word, meant) = Self::window(bits, position);
            let skip = if value {
                word.trailing_zeros()
            } else {
                word.trailing_ones()
            };
            if skip < meant {
                return (position + skip).min(self.end);
            }
            position += meant;
        }
        self.end
    }
}

impl Iterator for RunRanges<'_> {
    type Item = Range<u32>;

    fn next(&mut self) -> Option<Range<u32>> {
        let (from, to) = match self.bits {
            None => (self.position, self.end),
            Some(bits) => {
                let from = self.seek(bits, self.position, true);
                (from, self.seek(bits, from, false))
            }
        };
        if from >= to {
            return None;
        }
        self.position = to;
        Some(self.start.saturating_add(from)..self.start.saturating_add(to))
    }
}

/// A set of runs without hashes, borrowed from the wire or from whoever writes it.
#[derive(Clone, Copy)]
pub struct HashlessWorkout<'a> {
    repr: Repr<'a>,
}

#[derive(Clone, Copy)]
enum Repr<'a> {
    Runs(&'a [HashlessRun<'a>]),
    Wire { count: u32, bytes: &'a [u8] },
}

impl<'a> HashlessWorkout<'a> {
    /// No runs at all.
    pub const EMPTY: Self = Self {
        repr: Repr::Runs(&[]),
    };

    /// These runs, at most [`MAX_RUNS`].
    pub const fn new(runs: &'a [HashlessRun<'a>]) -> Self {
        Self {
            repr: Repr::Runs(runs),
        }
    }

    /// Runs that were encoded before.
    pub(super) const fn from_encoded(count: u32, bytes: &'a [u8]) -> Self {
        Self {
            repr: Repr::Wire { count, bytes },
        }
    }

    /// How many runs there are.
    pub const fn len(&self) -> u32 {
        match self.repr {
            Repr::Runs(runs) => runs.len() as u32,
            Repr::Wire { count, .. } => count,
        }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The runs in order.
    pub fn iter(&self) -> impl Iterator<Item = HashlessRun<'a>> + Clone + use<'a> {
        let (runs, bytes): (&'a [HashlessRun<'a>], &'a [u8]) = match self.repr {
            Repr::Runs(runs) => (runs, &[]),
            Repr::Wire { bytes, .. } => (&[], bytes),
        };
        let mut reader = Reader::new(bytes);
        let on_wire = std::iter::from_fn(move || HashlessRun::decode(&mut reader).ok());
        runs.iter().copied().chain(on_wire)
    }

    /// Every stretch of a flat run or a bitmap, as (level, indices). At most four for each byte that was on
    /// the wire; up and down runs give none.
    pub fn ranges(&self) -> impl Iterator<Item = (u8, Range<u32>)> + Clone + use<'a> {
        self.iter()
            .flat_map(|run| run.ranges().map(move |range| (run.level, range)))
    }

    /// Reads a workout of at most [`MAX_RUNS`].
    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let count = reader.count(MAX_RUNS)?;
        let before = *reader;
        for _ in 0..count {
            HashlessRun::decode(reader)?;
        }
        Ok(Self {
            repr: Repr::Wire {
                count,
                bytes: reader.read_since(&before),
            },
        })
    }

    /// Reads a workout of at least one run.
    pub(crate) fn decode_some(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let workout = Self::decode(reader)?;
        if workout.is_empty() {
            return Err(WireError::EmptyList);
        }
        Ok(workout)
    }

    /// Writes the workout.
    pub fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.compact_size(u64::from(self.len()))?;
        match self.repr {
            Repr::Runs(runs) => runs.iter().try_for_each(|run| run.encode(writer)),
            Repr::Wire { bytes, .. } => writer.bytes(bytes),
        }
    }

    /// Bytes that [`HashlessWorkout::encode`] writes.
    pub fn encoded_len(&self) -> usize {
        compact_size_len(u64::from(self.len()))
            + match self.repr {
                Repr::Runs(runs) => runs.iter().map(HashlessRun::encoded_len).sum(),
                Repr::Wire { bytes, .. } => bytes.len(),
            }
    }
}

impl PartialEq for HashlessWorkout<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for HashlessWorkout<'_> {}

impl fmt::Debug for HashlessWorkout<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_refused_by_its_reason() {
        for (bytes, reason) in [
            (&[0x04, 0, 0][..], WireError::EmptyRun),
            (&[0x19, 0, 1], WireError::BadLevel),
            (&[0x04, 15, 2], WireError::RunOutOfLevel),
            (&[0x04, 16, 1], WireError::RunOutOfLevel),
            (&[0x44, 8, 3], WireError::RunOutOfLevel),
            (&[0x84, 0, 6], WireError::RunOutOfLevel),
            (&[0x18, 0, 0xfe, 1, 0, 0, 1], WireError::RunOutOfLevel),
            (
                &[0x18, 0, 0xff, 0, 0, 0, 0, 1, 0, 0, 0],
                WireError::TooLarge,
            ),
            (&[0xc4, 0, 3, 0b100], WireError::BadBitmap),
            (&[0xc4, 0, 3, 0b001], WireError::BadBitmap),
            (&[0xc4, 0, 3, 0b1101], WireError::BadBitmap),
            (&[0xc4, 0, 8], WireError::Truncated),
            (&[0xc4, 0, 0], WireError::EmptyRun),
            (&[0x04, 0], WireError::Truncated),
        ] {
            assert_eq!(
                HashlessRun::decode(&mut Reader::new(bytes)).err(),
                Some(reason),
                "{bytes:02x?}"
            );
        }
        assert!(HashlessRun::decode(&mut Reader::new(&[0xc4, 0, 3, 0b101])).is_ok());
        assert!(HashlessRun::decode(&mut Reader::new(&[0x18, 0, 0xfe, 0, 0, 0, 1])).is_ok());
    }
}
