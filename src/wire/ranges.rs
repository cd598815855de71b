//! Hashless workouts built from ranges, into as few bytes as they need.

use super::codec::{Writer, compact_size_len};
use super::hashless::{HashlessWorkout, flat_len};
use super::lap::{check_span, level_direction};
use super::{MAX_LEVEL, MAX_RUNS};
use crate::merkle::{Direction, Run};
use std::ops::Range;

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
        HashlessWorkout::from_encoded(self.count, &self.bytes)
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
        let level = level.min(MAX_LEVEL);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{HashlessRun, Reader, WireError};
    use proptest::prelude::*;
    use std::iter::once;

    fn encode(workout: &HashlessWorkout<'_>) -> Vec<u8> {
        let mut buffer = vec![0; workout.encoded_len()];
        let mut writer = Writer::new(&mut buffer);
        workout
            .encode(&mut writer)
            .expect("the length was asked for");
        assert_eq!(writer.remaining(), 0);
        buffer
    }

    /// Ascending ranges from gaps and lengths.
    fn ranges_of(steps: &[(u32, u32)]) -> Vec<Range<u32>> {
        let mut end = 0;
        steps
            .iter()
            .map(|(gap, len)| {
                let start = end + gap;
                end = start + len;
                start..end
            })
            .collect()
    }

    fn bits_of(ranges: impl IntoIterator<Item = Range<u32>>) -> Vec<u32> {
        ranges.into_iter().flatten().collect()
    }

    #[test]
    fn scattered_leaves_become_a_bitmap_and_long_ranges_stay_runs() {
        let ranges = [0..1, 2..3, 5..6, 4_000..5_000];
        let (runs, stopped_at) = HashlessRuns::from_ranges(14, ranges, 100);
        assert_eq!(stopped_at, None);
        let bytes = encode(&runs.as_workout());
        // Two runs: bits 0, 2 and 5 of six from 0; 1,000 from 4,000.
        assert_eq!(
            bytes,
            [
                2, 0xce, 0, 6, 0x25, 0x0e, 0xfd, 0xa0, 0x0f, 0xfd, 0xe8, 0x03
            ]
        );
        assert_eq!(runs.encoded_len(), bytes.len());
        let twelve_bytes_do = HashlessRuns::from_ranges(14, [0..1, 2..3, 5..6, 4_000..5_000], 12);
        assert_eq!(twelve_bytes_do, (runs, None));
        let eleven_do_not = HashlessRuns::from_ranges(14, [0..1, 2..3, 5..6, 4_000..5_000], 11);
        assert_eq!(eleven_do_not.1, Some(4_000));
        assert_eq!(eleven_do_not.0.len(), 1);
    }

    #[test]
    fn what_a_level_cannot_have_is_left_out() {
        let (runs, stopped_at) = HashlessRuns::from_ranges(2, [0..1, 0..2, 3..3, 3..9, 8..9], 100);
        assert_eq!(stopped_at, None);
        assert_eq!(
            bits_of(runs.as_workout().ranges().map(|(_, range)| range)),
            [0, 1, 3]
        );
        assert_eq!(HashlessRuns::from_ranges(2, once(0..1), 3).1, Some(0));
    }

    #[test]
    fn runs_of_several_levels_share_a_workout() {
        let mut runs = HashlessRuns::new();
        assert_eq!(runs.append(4, once(0..4), 64), None);
        assert_eq!(runs.append(5, once(9..10), 64), None);
        let branch = Run {
            direction: Direction::Up,
            level: 5,
            start: 0,
            count: 6,
        };
        assert!(runs.push_run(branch, 64));
        assert!(!runs.push_run(Run { count: 7, ..branch }, 64));
        assert!(!runs.push_run(branch, 10));
        let read: Vec<_> = runs.as_workout().ranges().collect();
        assert_eq!(read, [(4, 0..4), (5, 9..10)]);
        assert_eq!(
            runs.as_workout()
                .iter()
                .filter_map(|run| run.to_run())
                .last(),
            Some(branch)
        );
        runs.clear();
        assert_eq!(runs.as_workout(), HashlessWorkout::EMPTY);
    }

    #[test]
    fn no_more_runs_than_the_limit() {
        let far_apart = (0..2_000).map(|run| run * 1_000..run * 1_000 + 1);
        let (runs, stopped_at) = HashlessRuns::from_ranges(24, far_apart, usize::MAX);
        assert_eq!((runs.len(), stopped_at), (MAX_RUNS, Some(MAX_RUNS * 1_000)));
        let mut bytes = encode(&runs.as_workout());
        assert!(HashlessWorkout::decode(&mut Reader::new(&bytes)).is_ok());
        bytes.splice(..3, [0xfd, 0x01, 0x04]);
        let refused = HashlessWorkout::decode(&mut Reader::new(&bytes));
        assert_eq!(refused, Err(WireError::TooManyEntries));
    }

    proptest! {
        /// What was taken is what is read, no longer than asked for and no longer than plain runs.
        #[test]
        fn ranges_survive(
            steps in prop::collection::vec((1u32..70, 1u32..70), 0..80),
            max_bytes in 0usize..200,
        ) {
            let ranges = ranges_of(&steps);
            let (runs, stopped_at) = HashlessRuns::from_ranges(14, ranges.clone(), max_bytes);
            let bytes = encode(&runs.as_workout());
            prop_assert!(bytes.len() <= max_bytes.max(1));
            let mut reader = Reader::new(&bytes);
            let read = HashlessWorkout::decode(&mut reader).expect("canonical");
            prop_assert!(reader.is_empty());
            prop_assert_eq!(read, runs.as_workout());
            let wanted: Vec<_> = bits_of(ranges.clone())
                .into_iter()
                .filter(|bit| *bit < stopped_at.unwrap_or(u32::MAX))
                .collect();
            prop_assert_eq!(bits_of(read.ranges().map(|(_, range)| range)), wanted);
            if stopped_at.is_none() {
                let plain: Vec<_> = ranges.into_iter().map(|range| HashlessRun::flat(14, range)).collect();
                prop_assert!(bytes.len() <= HashlessWorkout::new(&plain).encoded_len());
            }
        }

        #[test]
        fn words_become_their_ranges(words in prop::collection::vec(any::<u64>().prop_map(|word| word & (word >> 1)), 0..5)) {
            let wanted: Vec<u32> = (0..words.len() as u32 * 64)
                .filter(|bit| words.get(*bit as usize / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1))
                .collect();
            let ranges: Vec<_> = ranges_of_words(&words).collect();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
            prop_assert_eq!(bits_of(ranges), wanted);
        }
    }
}
