//! Runs of hashes, workouts of runs, and laps: workouts around one ancestor.
//!
//! ```text
//! RUN      u8 direction << 6 | level | CompactSize START | SEQUENCE
//! WORKOUT  CompactSize COUNT | COUNT x RUN
//! LAP      u8 LEVEL | CompactSize INDEX | WORKOUT of one to three runs: DOWN, FLAT, UP, in this order
//! ```
//!
//! START is the deepest node of a run: the leftmost of a flat or an up run, the rightmost of a down run.
//! Hashes stand in the order of the leaves, from left to right. Checked here is what needs no count of
//! leaves: that levels and indices can exist at all, that a run is no longer than any tree allows, and that
//! the runs of a lap stay below its ancestor. The rest is for [`crate::merkle::Lap::is_canonical`].

use super::codec::{NoRoom, Reader, Writer, compact_size_len};
use super::error::WireError;
use super::hashseq::HashSequence;
use super::structures::decode_level;
use super::{MAX_LAP_RUNS, MAX_LEVEL, MAX_RUNS};
use crate::merkle::{Direction, Hash, Lap, Run};
use arrayvec::ArrayVec;
use std::fmt;

/// The bits of a LEVELDIR that hold the level.
const LEVEL_BITS: u8 = 0x3f;

/// A LEVELDIR taken apart: `None` for the fourth direction, which only hashless runs have.
pub(crate) fn decode_level_direction(
    reader: &mut Reader<'_>,
) -> Result<(Option<Direction>, u8), WireError> {
    let byte = reader.u8()?;
    let level = byte & LEVEL_BITS;
    if level > MAX_LEVEL {
        return Err(WireError::BadLevel);
    }
    let direction = match byte >> 6 {
        0 => Some(Direction::Flat),
        1 => Some(Direction::Down),
        2 => Some(Direction::Up),
        _ => None,
    };
    Ok((direction, level))
}

/// A LEVELDIR put together; `None` is the bitmap.
pub(crate) const fn level_direction(direction: Option<Direction>, level: u8) -> u8 {
    let bits = match direction {
        Some(Direction::Flat) => 0,
        Some(Direction::Down) => 1,
        Some(Direction::Up) => 2,
        None => 3,
    };
    bits << 6 | (level & LEVEL_BITS)
}

/// The most nodes that a run from `start` can have below a subtree whose root lies `height` levels above it,
/// in whatever tree: a flat run goes to the end of the row, an up run takes a right sibling for each clear
/// bit of its index, a down run a left sibling for each set one.
pub(crate) fn longest(direction: Direction, height: u8, start: u32) -> u64 {
    let row = 1u64 << height;
    let start = u64::from(start) & (row - 1);
    let ones = start.count_ones();
    match direction {
        Direction::Flat => row - start,
        Direction::Down => 1 + u64::from(ones),
        Direction::Up => 1 + u64::from(u32::from(height) - ones),
    }
}

/// Refuses what no tree has: an index past its level, a run without nodes or past every end.
pub(crate) fn check_span(
    direction: Direction,
    level: u8,
    start: u32,
    count: u32,
) -> Result<(), WireError> {
    if count == 0 {
        return Err(WireError::EmptyRun);
    }
    if u64::from(start) >= 1 << level || u64::from(count) > longest(direction, level, start) {
        return Err(WireError::RunOutOfLevel);
    }
    Ok(())
}

/// A run of nodes with their hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireRun<'a> {
    /// Which way it goes from its deepest node.
    pub direction: Direction,
    /// The level of its deepest node, 0 (the root) to [`MAX_LEVEL`].
    pub level: u8,
    /// The index of its deepest node.
    pub start: u32,
    /// The hashes of its nodes, from left to right.
    pub hashes: HashSequence<'a>,
}

impl<'a> WireRun<'a> {
    /// The run with these hashes.
    pub const fn new(run: Run, hashes: HashSequence<'a>) -> Self {
        Self {
            direction: run.direction,
            level: run.level,
            start: run.start,
            hashes,
        }
    }

    /// The run without its hashes.
    pub const fn to_run(&self) -> Run {
        Run {
            direction: self.direction,
            level: self.level,
            start: self.start,
            count: self.hashes.len(),
        }
    }

    /// Reads a run.
    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let (direction, level) = decode_level_direction(reader)?;
        let direction = direction.ok_or(WireError::BadDirection)?;
        let start = reader.compact_u32()?;
        let hashes = HashSequence::decode(reader)?;
        check_span(direction, level, start, hashes.len())?;
        Ok(Self {
            direction,
            level,
            start,
            hashes,
        })
    }

    /// Writes the run.
    pub fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.u8(level_direction(Some(self.direction), self.level))?;
        writer.compact_size(u64::from(self.start))?;
        self.hashes.encode(writer)
    }

    /// Bytes that [`WireRun::encode`] writes.
    pub fn encoded_len(&self) -> usize {
        1 + compact_size_len(u64::from(self.start)) + self.hashes.encoded_len()
    }
}

/// A set of runs with their hashes, borrowed from the wire or from whoever writes it.
#[derive(Clone, Copy)]
pub struct Workout<'a> {
    repr: Repr<'a>,
}

#[derive(Clone, Copy)]
enum Repr<'a> {
    Runs(&'a [WireRun<'a>]),
    Wire { count: u32, bytes: &'a [u8] },
}

impl<'a> Workout<'a> {
    /// These runs, at most [`MAX_RUNS`].
    pub const fn new(runs: &'a [WireRun<'a>]) -> Self {
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
    pub fn iter(&self) -> impl Iterator<Item = WireRun<'a>> + Clone + use<'a> {
        let (runs, bytes): (&'a [WireRun<'a>], &'a [u8]) = match self.repr {
            Repr::Runs(runs) => (runs, &[]),
            Repr::Wire { bytes, .. } => (&[], bytes),
        };
        let mut reader = Reader::new(bytes);
        let on_wire = std::iter::from_fn(move || WireRun::decode(&mut reader).ok());
        runs.iter().copied().chain(on_wire)
    }

    /// Reads a workout of at most [`MAX_RUNS`].
    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let count = reader.count(MAX_RUNS)?;
        let before = *reader;
        for _ in 0..count {
            WireRun::decode(reader)?;
        }
        Ok(Self {
            repr: Repr::Wire {
                count,
                bytes: reader.read_since(&before),
            },
        })
    }

    /// Writes the workout.
    pub fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.compact_size(u64::from(self.len()))?;
        match self.repr {
            Repr::Runs(runs) => runs.iter().try_for_each(|run| run.encode(writer)),
            Repr::Wire { bytes, .. } => writer.bytes(bytes),
        }
    }

    /// Bytes that [`Workout::encode`] writes.
    pub fn encoded_len(&self) -> usize {
        compact_size_len(u64::from(self.len()))
            + match self.repr {
                Repr::Runs(runs) => runs.iter().map(WireRun::encoded_len).sum(),
                Repr::Wire { bytes, .. } => bytes.len(),
            }
    }
}

impl PartialEq for Workout<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Workout<'_> {}

impl fmt::Debug for Workout<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

/// A lap: hashes from which that of one ancestor can be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireLap<'a> {
    /// The level of the ancestor; 0 makes this a root lap.
    pub level: u8,
    /// The index of the ancestor.
    pub index: u32,
    /// One to three runs: DOWN, FLAT, UP, each once at most and in this order.
    pub runs: Workout<'a>,
}

impl<'a> WireLap<'a> {
    /// The runs of `lap` with `hashes`, which hold all of its nodes from left to right, whole. `None` if there
    /// are not as many hashes as nodes. Borrow the result as [`WireLap::new`]'s runs.
    pub fn runs_of(lap: &Lap, hashes: &'a [Hash]) -> Option<ArrayVec<WireRun<'a>, 3>> {
        let mut runs = ArrayVec::new();
        let mut rest = hashes;
        for run in &lap.runs {
            let (own, after) = rest.split_at_checked(run.count as usize)?;
            runs.push(WireRun::new(*run, HashSequence::full(own)));
            rest = after;
        }
        rest.is_empty().then_some(runs)
    }

    /// The lap around the ancestor of `lap`, with these runs.
    pub const fn new(lap: &Lap, runs: &'a [WireRun<'a>]) -> Self {
        Self {
            level: lap.ancestor.0,
            index: lap.ancestor.1,
            runs: Workout::new(runs),
        }
    }

    /// The shape, and beside each of its runs the hashes.
    pub fn to_lap(&self) -> (Lap, ArrayVec<HashSequence<'a>, 3>) {
        let mut runs = ArrayVec::new();
        let mut hashes = ArrayVec::new();
        for run in self.runs.iter().take(MAX_LAP_RUNS as usize) {
            runs.push(run.to_run());
            hashes.push(run.hashes);
        }
        (
            Lap {
                ancestor: (self.level, self.index),
                runs,
            },
            hashes,
        )
    }

    /// The flat run, which carries what the lap proves.
    pub fn flat(&self) -> Option<WireRun<'a>> {
        self.runs
            .iter()
            .find(|run| run.direction == Direction::Flat)
    }

    /// Whether some hash of it is a short id.
    pub fn has_short_ids(&self) -> bool {
        self.runs.iter().any(|run| run.hashes.as_full().is_none())
    }

    /// Reads a lap.
    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        Self::decode_sized(reader).map(|(lap, _)| lap)
    }

    /// Reads a lap, and notes on the way whether there are short ids in it.
    pub(super) fn decode_sized(reader: &mut Reader<'a>) -> Result<(Self, bool), WireError> {
        let level = decode_level(reader)?;
        let index = reader.compact_u32()?;
        if u64::from(index) >= 1 << level {
            return Err(WireError::RunOutOfLevel);
        }
        let count = reader.count(MAX_LAP_RUNS)?;
        if count == 0 {
            return Err(WireError::EmptyList);
        }
        let before = *reader;
        let mut least_rank = 0;
        let mut has_short_ids = false;
        for _ in 0..count {
            let run = WireRun::decode(reader)?;
            let rank = rank(run.direction);
            if rank < least_rank {
                return Err(WireError::LapOrder);
            }
            least_rank = rank + 1;
            check_below(level, index, &run)?;
            if run.hashes.as_full().is_none() {
                if run.direction != Direction::Flat {
                    return Err(WireError::HashSize);
                }
                has_short_ids = true;
            }
        }
        let bytes = reader.read_since(&before);
        let runs = Workout {
            repr: Repr::Wire { count, bytes },
        };
        Ok((Self { level, index, runs }, has_short_ids))
    }

    /// Writes the lap.
    pub fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.u8(self.level)?;
        writer.compact_size(u64::from(self.index))?;
        self.runs.encode(writer)
    }

    /// Bytes that [`WireLap::encode`] writes.
    pub fn encoded_len(&self) -> usize {
        1 + compact_size_len(u64::from(self.index)) + self.runs.encoded_len()
    }
}

const fn rank(direction: Direction) -> u8 {
    match direction {
        Direction::Down => 0,
        Direction::Flat => 1,
        Direction::Up => 2,
    }
}

/// Refuses a run that has nodes outside the subtree of (`level`, `index`).
fn check_below(level: u8, index: u32, run: &WireRun<'_>) -> Result<(), WireError> {
    let height = run.level.checked_sub(level).ok_or(WireError::LapOutside)?;
    let inside = run.start >> height == index
        && u64::from(run.hashes.len()) <= longest(run.direction, height, run.start);
    if inside {
        Ok(())
    } else {
        Err(WireError::LapOutside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::Geometry;

    fn encode(lap: &WireLap<'_>) -> Vec<u8> {
        let mut buffer = vec![0; lap.encoded_len()];
        let mut writer = Writer::new(&mut buffer);
        lap.encode(&mut writer).expect("the length was asked for");
        assert_eq!(writer.remaining(), 0);
        buffer
    }

    /// Every canonical lap of every tree up to 20 leaves survives, so no limit here is too tight.
    #[test]
    fn every_lap_of_every_small_tree_survives() {
        let mut laps = 0;
        for geometry in (1..=20).filter_map(Geometry::new) {
            for level in 0..=geometry.depth() {
                for index in 0..geometry.width(level) {
                    laps += survive_around(&geometry, level, index);
                }
            }
        }
        assert!(laps > 5_000, "{laps}");
    }

    fn survive_around(geometry: &Geometry, level: u8, index: u32) -> u32 {
        let mut laps = 0;
        let ancestor = geometry.node(level, index).expect("within the width");
        for below in level..=geometry.depth() {
            let width = geometry.width(below);
            for (from, to) in
                (0..width).flat_map(|from| (from + 1..=width).map(move |to| (from, to)))
            {
                let Some(lap) = geometry.lap(ancestor, below, from..to) else {
                    continue;
                };
                let hashes = vec![[from as u8; 32]; lap.len() as usize];
                let runs = WireLap::runs_of(&lap, &hashes).expect("a hash for each node");
                let bytes = encode(&WireLap::new(&lap, &runs));
                let mut reader = Reader::new(&bytes);
                let read = WireLap::decode(&mut reader).expect("canonical");
                assert!(reader.is_empty());
                assert_eq!(read.to_lap().0, lap);
                assert_eq!(encode(&read), bytes);
                laps += 1;
            }
        }
        laps
    }

    #[test]
    fn the_single_runs_of_proofs_survive() {
        for geometry in (1..=300).filter_map(Geometry::new) {
            for run in [geometry.branch_of_first(), geometry.count_proof()] {
                let hashes = vec![[7; 32]; run.count as usize];
                let lap = Lap {
                    ancestor: (0, 0),
                    runs: ArrayVec::from_iter([run]),
                };
                let runs = WireLap::runs_of(&lap, &hashes).expect("a hash for each node");
                let bytes = encode(&WireLap::new(&lap, &runs));
                assert_eq!(
                    WireLap::decode(&mut Reader::new(&bytes)),
                    Ok(WireLap::new(&lap, &runs))
                );
            }
        }
    }

    #[test]
    fn a_lap_is_refused_by_its_reason() {
        let run = |direction, level, start, count: u8| {
            let mut bytes = vec![level_direction(Some(direction), level), start, count, 32, 0];
            bytes.extend(vec![0; 32 * usize::from(count)]);
            bytes
        };
        let lap = |level: u8, index: u8, runs: &[Vec<u8>]| {
            let mut bytes = vec![level, index, runs.len() as u8];
            bytes.extend(runs.concat());
            WireLap::decode(&mut Reader::new(&bytes)).err()
        };
        use Direction::{Down, Flat, Up};
        assert_eq!(lap(0, 0, &[run(Flat, 4, 0, 16)]), None);
        assert_eq!(lap(0, 0, &[]), Some(WireError::EmptyList));
        assert_eq!(lap(25, 0, &[run(Flat, 4, 0, 1)]), Some(WireError::BadLevel));
        assert_eq!(
            lap(0x40, 0, &[run(Flat, 4, 0, 1)]),
            Some(WireError::BadLevel)
        );
        assert_eq!(
            lap(2, 4, &[run(Flat, 4, 0, 1)]),
            Some(WireError::RunOutOfLevel)
        );
        assert_eq!(
            lap(0, 0, &[run(Flat, 4, 1, 16)]),
            Some(WireError::RunOutOfLevel)
        );
        assert_eq!(lap(0, 0, &[run(Flat, 25, 1, 1)]), Some(WireError::BadLevel));
        assert_eq!(
            lap(0, 0, &[run(Up, 4, 0, 6)]),
            Some(WireError::RunOutOfLevel)
        );
        assert_eq!(
            lap(0, 0, &[run(Down, 4, 8, 3)]),
            Some(WireError::RunOutOfLevel)
        );
        assert_eq!(
            lap(2, 1, &[run(Flat, 4, 3, 1)]),
            Some(WireError::LapOutside)
        );
        assert_eq!(
            lap(2, 1, &[run(Flat, 4, 4, 5)]),
            Some(WireError::LapOutside)
        );
        assert_eq!(lap(2, 1, &[run(Up, 4, 4, 4)]), Some(WireError::LapOutside));
        assert_eq!(
            lap(2, 1, &[run(Flat, 1, 0, 1)]),
            Some(WireError::LapOutside)
        );
        let flat = run(Flat, 4, 4, 1);
        assert_eq!(
            lap(0, 0, &[flat.clone(), flat.clone()]),
            Some(WireError::LapOrder)
        );
        assert_eq!(
            lap(0, 0, &[flat.clone(), run(Down, 4, 3, 1)]),
            Some(WireError::LapOrder)
        );
        assert_eq!(
            lap(
                0,
                0,
                &[run(Down, 4, 3, 1), flat.clone(), run(Up, 4, 5, 1), flat]
            ),
            Some(WireError::TooManyEntries)
        );
        assert_eq!(
            lap(0, 0, &[vec![0xc4, 0, 1, 32, 0]]),
            Some(WireError::BadDirection)
        );
        assert_eq!(
            lap(0, 0, &[vec![0x84, 0, 1, 6, 0, 1, 2, 3, 4, 5, 6]]),
            Some(WireError::HashSize)
        );
    }
}
