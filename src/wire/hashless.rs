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
const fn flat_len(start: u32, count: u32) -> usize {
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

/// A hashless workout that owns its runs, in their encoded form, built from ranges. The buffers are kept
/// from one use to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HashlessRuns {
    bytes: Vec<u8>,
    count: u32,
    /// The bits of the run being built, while it is a bitmap.
    bits: Vec<u8>,
}

/// A run that may still grow.
#[derive(Clone, Copy)]
struct Open {
    start: u32,
    end: u32,
    bitmap: bool,
}

impl Open {
    const fn encoded_len(self) -> usize {
        let count = self.end - self.start;
        flat_len(self.start, count)
            + if self.bitmap {
                count.div_ceil(8) as usize
            } else {
                0
            }
    }
}

impl HashlessRuns {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            count: 0,
            bits: Vec::new(),
        }
    }

    /// As many of `ranges` as fit into `max_bytes` of encoded workout, and the first index that did not:
    /// see [`HashlessRuns::append`].
    pub fn from_ranges(
        level: u8,
        ranges: impl IntoIterator<Item = Range<u32>>,
        max_bytes: usize,
    ) -> (Self, Option<u32>) {
        let mut runs = Self::new();
        let stopped_at = runs.append(level, ranges, max_bytes);
        (runs, stopped_at)
    }

    /// Forgets the runs and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
    }

    /// The workout, to be put into a message.
    pub fn as_workout(&self) -> HashlessWorkout<'_> {
        HashlessWorkout {
            repr: Repr::Wire {
                count: self.count,
                bytes: &self.bytes,
            },
        }
    }

    /// How many runs there are.
    pub const fn len(&self) -> u32 {
        self.count
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes that the workout takes.
    pub const fn encoded_len(&self) -> usize {
        compact_size_len(self.count as u64) + self.bytes.len()
    }

    /// Adds a run in any direction, unless the workout would be longer than `max_bytes` or [`MAX_RUNS`], or
    /// no tree has such a run. Says whether it did.
    pub fn push_run(&mut self, run: Run, max_bytes: usize) -> bool {
        if check_span(run.direction, run.level, run.start, run.count).is_err()
            || !self.fits(flat_len(run.start, run.count), max_bytes)
        {
            return false;
        }
        self.put(
            level_direction(Some(run.direction), run.level),
            run.start,
            run.count,
        );
        true
    }

    /// Adds the nodes of `ranges` at `level`, as flat runs or bitmaps, whichever is shorter where they stand.
    ///
    /// The ranges ascend; what overlaps those before it, or lies past the level's 2^level nodes, is left out.
    /// Stops before the workout would be longer than `max_bytes` or [`MAX_RUNS`] and returns the first index
    /// that it did not take; `None` if it took all. Each range costs a bounded time beyond its own bits.
    pub fn append(
        &mut self,
        level: u8,
        ranges: impl IntoIterator<Item = Range<u32>>,
        max_bytes: usize,
    ) -> Option<u32> {
        let level = level.min(super::MAX_LEVEL);
        let width = 1u32 << level;
        let mut open: Option<Open> = None;
        let mut taken = 0;
        let mut stopped_at = None;
        for range in ranges {
            let range = range.start.max(taken)..range.end.min(width);
            if range.is_empty() {
                continue;
            }
            if let Some(run) = open {
                let grown = Open {
                    start: run.start,
                    end: range.end,
                    bitmap: run.bitmap || range.start > run.end,
                };
                let apart = Open {
                    start: range.start,
                    end: range.end,
                    bitmap: false,
                };
                let together = grown.encoded_len() <= run.encoded_len() + apart.encoded_len();
                if together && self.fits(grown.encoded_len(), max_bytes) {
                    self.grow(run, &range, grown.bitmap);
                    open = Some(grown);
                    taken = range.end;
                    continue;
                }
                self.close(level, run);
            }
            open = None;
            let fresh = Open {
                start: range.start,
                end: range.end,
                bitmap: false,
            };
            if !self.fits(fresh.encoded_len(), max_bytes) {
                stopped_at = Some(range.start);
                break;
            }
            taken = range.end;
            open = Some(fresh);
        }
        if let Some(run) = open {
            self.close(level, run);
        }
        stopped_at
    }

    /// Whether one more run of `len` bytes leaves the workout within both limits.
    const fn fits(&self, len: usize, max_bytes: usize) -> bool {
        let total = compact_size_len(self.count as u64 + 1) + self.bytes.len() + len;
        self.count < MAX_RUNS && total <= max_bytes
    }

    /// Marks `range` in the bits of `run`, if that is a bitmap from now on.
    fn grow(&mut self, run: Open, range: &Range<u32>, bitmap: bool) {
        if !bitmap {
            return;
        }
        if !run.bitmap {
            self.bits.clear();
            set_bits(&mut self.bits, 0..run.end - run.start);
        }
        set_bits(
            &mut self.bits,
            range.start - run.start..range.end - run.start,
        );
    }

    /// Writes a run that grows no more.
    fn close(&mut self, level: u8, run: Open) {
        let direction = if run.bitmap {
            None
        } else {
            Some(Direction::Flat)
        };
        self.put(
            level_direction(direction, level),
            run.start,
            run.end - run.start,
        );
        if run.bitmap {
            self.bytes.extend_from_slice(&self.bits);
        }
    }

    fn put(&mut self, level_direction: u8, start: u32, count: u32) {
        let mut head = [0; 11];
        let mut writer = Writer::new(&mut head);
        writer
            .u8(level_direction)
            .and_then(|()| writer.compact_size(u64::from(start)))
            .and_then(|()| writer.compact_size(u64::from(count)))
            .expect("one byte and two of at most five");
        self.bytes.extend_from_slice(writer.written());
        self.count += 1;
    }
}

/// Sets a range of bits past or at the end of `bits`, which grows as needed.
fn set_bits(bits: &mut Vec<u8>, range: Range<u32>) {
    bits.resize(range.end.div_ceil(8) as usize, 0);
    let mut position = range.start;
    while position < range.end {
        let until = range.end.min((position / 8 + 1) * 8);
        let mask = (0xffu16 << (position % 8)) & (0xffffu16 >> (16 - (until - position / 8 * 8)));
        if let Some(byte) = bits.get_mut(position as usize / 8) {
            *byte |= mask as u8;
        }
        position = until;
    }
}

/// The stretches of set bits in `words`, least significant bit first: what
/// [`HashlessRuns::append`] takes, from a bitmap.
pub fn ranges_of_words(words: &[u64]) -> impl Iterator<Item = Range<u32>> + '_ {
    let len = words.len().saturating_mul(64) as u32;
    let seek = move |mut position: u32, value: bool| {
        while let Some(word) = words.get(position as usize / 64) {
            let word = if value { *word } else { !*word };
            let skip = (word >> (position % 64)).trailing_zeros();
            if skip < 64 {
                return position + skip;
            }
            position = (position / 64 + 1) * 64;
        }
        len
    };
    let mut position = 0;
    std::iter::from_fn(move || {
        let from = seek(position, true);
        let to = seek(from, false);
        position = to;
        (from < to).then_some(from..to)
    })
}
