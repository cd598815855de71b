//! The draft's hash sequence: hashes of one size, with exceptions of another.
//!
//! ```text
//! CompactSize COUNT >= 1 | u8 DEFAULT_SIZE | CompactSize EXCEPTIONS < COUNT
//!   | EXCEPTIONS x (CompactSize NEXT >= 1, u8 SIZE != DEFAULT_SIZE) | hashes, one after the other
//! ```
//!
//! Sizes are 4 to 8 (a short id: so many low bytes of a SipHash, little-endian) or 32 (a whole hash in the
//! order it was hashed in). The cursor of exceptions starts at -1 and moves by NEXT, so that the first two
//! entries being exceptions reads 1, 1. At least one entry has the default size: with all of them
//! exceptions, the default would say nothing and could be anything.

use super::codec::{NoRoom, Reader, Writer, compact_size_len};
use super::error::WireError;
use super::{FULL_SIZE, SHORT_SIZES};
use crate::merkle::{Hash, MAX_LEAVES};
use std::fmt;

/// An entry of a sequence that is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShortEntry {
    /// A short id; its bytes beyond the sequence's size are dropped.
    Short(u64),
    /// A whole hash, for an id that would be ambiguous.
    Full(Hash),
}

/// An entry of a sequence as it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashEntry<'a> {
    /// A short id, and how many bytes of it there are (4 to 8).
    Short(u64, u8),
    /// A whole hash.
    Full(&'a Hash),
}

/// A sequence of hashes, borrowed from the wire or from whoever writes it.
#[derive(Clone, Copy)]
pub struct HashSequence<'a> {
    repr: Repr<'a>,
}

#[derive(Clone, Copy)]
enum Repr<'a> {
    /// Whole hashes without exceptions.
    Full(&'a [Hash]),
    /// To be written: short ids of `size` bytes, `full` of the entries being whole hashes.
    Entries {
        entries: &'a [ShortEntry],
        size: u8,
        full: u32,
    },
    /// As read: everything was checked.
    Wire {
        count: u32,
        size: u8,
        exceptions: Exceptions<'a>,
        hashes: &'a [u8],
    },
}

/// The exceptions as they stand on the wire, `count` of them.
#[derive(Clone, Copy)]
struct Exceptions<'a> {
    count: u32,
    bytes: &'a [u8],
}

impl<'a> HashSequence<'a> {
    /// Whole hashes. There must be at least one: decoders refuse an empty sequence.
    pub const fn full(hashes: &'a [Hash]) -> Self {
        Self {
            repr: Repr::Full(hashes),
        }
    }

    /// Short ids of `size` bytes, with whole hashes among them as exceptions. `None` if the size is no short
    /// one (4 to 8) or no entry is short (then it is a matter for [`HashSequence::full`]).
    pub fn short(entries: &'a [ShortEntry], size: u8) -> Option<Self> {
        let full = entries
            .iter()
            .filter(|entry| matches!(entry, ShortEntry::Full(_)))
            .count();
        if !SHORT_SIZES.contains(&size) || full == entries.len() {
            return None;
        }
        let full = u32::try_from(full).ok()?;
        Some(Self {
            repr: Repr::Entries {
                entries,
                size,
                full,
            },
        })
    }

    /// How many hashes there are.
    pub const fn len(&self) -> u32 {
        match self.repr {
            Repr::Full(hashes) => hashes.len() as u32,
            Repr::Entries { entries, .. } => entries.len() as u32,
            Repr::Wire { count, .. } => count,
        }
    }

    /// Whether there are none, which only a sequence that is yet to be written can be.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The size of those entries that are no exceptions, in bytes.
    pub const fn default_size(&self) -> u8 {
        match self.repr {
            Repr::Full(_) => FULL_SIZE,
            Repr::Entries { size, .. } | Repr::Wire { size, .. } => size,
        }
    }

    /// All hashes at once, if all of them are whole and none is written as an exception.
    pub const fn as_full(&self) -> Option<&'a [Hash]> {
        match self.repr {
            Repr::Full(hashes) => Some(hashes),
            _ => None,
        }
    }

    /// The entry at `index`. Constant time without exceptions, else linear in `index`.
    pub fn get(&self, index: u32) -> Option<HashEntry<'a>> {
        match self.repr {
            Repr::Full(hashes) => hashes.get(index as usize).map(HashEntry::Full),
            Repr::Wire {
                count,
                size,
                exceptions: Exceptions { count: 0, .. },
                hashes,
            } if index < count => {
                let start = (index as usize).checked_mul(usize::from(size))?;
                read_entry(&mut Reader::new(hashes.get(start..)?), size)
            }
            _ => self.iter().nth(index as usize),
        }
    }

    /// All entries in order.
    pub fn iter(&self) -> HashIter<'a> {
        let source = match self.repr {
            Repr::Full(hashes) => Source::Full(hashes.iter()),
            Repr::Entries { entries, size, .. } => Source::Entries {
                entries: entries.iter(),
                size,
            },
            Repr::Wire {
                count,
                size,
                exceptions,
                hashes,
            } => Source::Wire {
                left: count,
                size,
                cursor: ExceptionCursor::new(exceptions),
                hashes: Reader::new(hashes),
            },
        };
        HashIter { source }
    }

    /// Reads a sequence. Its count is bounded by the bytes that are there: each hash takes at least four.
    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let count = reader.compact_u32()?;
        if count == 0 {
            return Err(WireError::EmptyRun);
        }
        if count > MAX_LEAVES {
            return Err(WireError::TooLarge);
        }
        let size = reader.u8()?;
        check_size(size)?;
        let exception_count = reader.compact_u32()?;
        if exception_count >= count {
            return Err(WireError::BadException);
        }
        let before = *reader;
        let mut next_free = 0u64;
        let mut len = u64::from(count - exception_count) * u64::from(size);
        for _ in 0..exception_count {
            let distance = reader.compact_size()?;
            let exception_size = reader.u8()?;
            check_size(exception_size)?;
            // next_free is cursor + 1, and a distance of one is the entry right after the cursor.
            next_free = next_free
                .checked_add(distance)
                .ok_or(WireError::BadException)?;
            if distance == 0 || next_free > u64::from(count) || exception_size == size {
                return Err(WireError::BadException);
            }
            len += u64::from(exception_size);
        }
        let exceptions = Exceptions {
            count: exception_count,
            bytes: reader.read_since(&before),
        };
        let hashes = reader.take(usize::try_from(len).map_err(|_| WireError::Truncated)?)?;
        if size == FULL_SIZE && exception_count == 0 {
            return Ok(Self::full(hashes.as_chunks().0));
        }
        Ok(Self {
            repr: Repr::Wire {
                count,
                size,
                exceptions,
                hashes,
            },
        })
    }

    /// Writes the sequence.
    pub fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.compact_size(u64::from(self.len()))?;
        writer.u8(self.default_size())?;
        match self.repr {
            Repr::Full(hashes) => {
                writer.u8(0)?;
                writer.bytes(hashes.as_flattened())
            }
            Repr::Entries {
                entries,
                size,
                full,
            } => {
                writer.compact_size(u64::from(full))?;
                for distance in full_distances(entries) {
                    writer.compact_size(distance)?;
                    writer.u8(FULL_SIZE)?;
                }
                match size {
                    4 => write_entries::<4>(entries, full, writer),
                    5 => write_entries::<5>(entries, full, writer),
                    6 => write_entries::<6>(entries, full, writer),
                    7 => write_entries::<7>(entries, full, writer),
                    _ => write_entries::<8>(entries, full, writer),
                }
            }
            Repr::Wire {
                exceptions, hashes, ..
            } => {
                writer.compact_size(u64::from(exceptions.count))?;
                writer.bytes(exceptions.bytes)?;
                writer.bytes(hashes)
            }
        }
    }

    /// Bytes that [`HashSequence::encode`] writes.
    pub fn encoded_len(&self) -> usize {
        let head = compact_size_len(u64::from(self.len())) + 1;
        head + match self.repr {
            Repr::Full(hashes) => 1 + hashes.as_flattened().len(),
            Repr::Entries {
                entries,
                size,
                full,
            } => {
                let whole = full as usize;
                let distances: usize = match full {
                    0 => 0,
                    _ => full_distances(entries)
                        .map(|distance| compact_size_len(distance) + 1)
                        .sum(),
                };
                compact_size_len(u64::from(full))
                    + distances
                    + whole * usize::from(FULL_SIZE)
                    + (entries.len() - whole) * usize::from(size)
            }
            Repr::Wire {
                exceptions, hashes, ..
            } => {
                compact_size_len(u64::from(exceptions.count))
                    + exceptions.bytes.len()
                    + hashes.len()
            }
        }
    }
}

/// Distances from one whole hash to the next, the first counted from -1.
fn full_distances(entries: &[ShortEntry]) -> impl Iterator<Item = u64> + '_ {
    let mut next_free = 0;
    entries
        .iter()
        .enumerate()
        .filter_map(move |(index, entry)| match entry {
            ShortEntry::Short(_) => None,
            ShortEntry::Full(_) => {
                let distance = index + 1 - next_free;
                next_free = index + 1;
                Some(distance as u64)
            }
        })
}

fn check_size(size: u8) -> Result<(), WireError> {
    if size == FULL_SIZE || SHORT_SIZES.contains(&size) {
        Ok(())
    } else {
        Err(WireError::HashSize)
    }
}

#[inline]
fn read_entry<'a>(hashes: &mut Reader<'a>, size: u8) -> Option<HashEntry<'a>> {
    if size == FULL_SIZE {
        return hashes.array().ok().map(HashEntry::Full);
    }
    let mut id = [0; 8];
    id.get_mut(..usize::from(size))?
        .copy_from_slice(hashes.take(usize::from(size)).ok()?);
    Some(HashEntry::Short(u64::from_le_bytes(id), size))
}

/// Writes the entries, `full` of them whole, with `SIZE` bytes for each short id. The size is known when this
/// is compiled and the space is taken at once: most of a first flight passes here.
fn write_entries<const SIZE: usize>(
    entries: &[ShortEntry],
    full: u32,
    writer: &mut Writer<'_>,
) -> Result<(), NoRoom> {
    let whole = full as usize;
    let len = whole * usize::from(FULL_SIZE) + (entries.len() - whole) * SIZE;
    let mut space = writer.reserve(len)?;
    for entry in entries {
        match entry {
            ShortEntry::Short(id) => {
                let (to, rest) = space.split_first_chunk_mut::<SIZE>().ok_or(NoRoom)?;
                *to = *id.to_le_bytes().first_chunk().ok_or(NoRoom)?;
                space = rest;
            }
            ShortEntry::Full(hash) => {
                let (to, rest) = space.split_first_chunk_mut().ok_or(NoRoom)?;
                *to = *hash;
                space = rest;
            }
        }
    }
    Ok(())
}

/// The low `size` bytes of a short id.
const fn low_bytes(id: u64, size: u8) -> u64 {
    match size {
        0..=7 => id & ((1 << (8 * size)) - 1),
        _ => id,
    }
}

/// Walks the exceptions beside the hashes: how many ordinary entries come first, and then what size.
#[derive(Clone)]
struct ExceptionCursor<'a> {
    left: u32,
    bytes: Reader<'a>,
    ordinary: u64,
    size: u8,
}

impl<'a> ExceptionCursor<'a> {
    fn new(exceptions: Exceptions<'a>) -> Self {
        let mut cursor = Self {
            left: exceptions.count,
            bytes: Reader::new(exceptions.bytes),
            ordinary: 0,
            size: 0,
        };
        cursor.load();
        cursor
    }

    fn load(&mut self) {
        self.ordinary = u64::MAX;
        if self.left > 0
            && let (Ok(distance), Ok(size)) = (self.bytes.compact_size(), self.bytes.u8())
        {
            self.left -= 1;
            self.ordinary = distance.saturating_sub(1);
            self.size = size;
        }
    }

    /// The size of the next entry if it is an exception.
    fn step(&mut self) -> Option<u8> {
        if self.ordinary > 0 {
            self.ordinary -= 1;
            return None;
        }
        let size = self.size;
        self.load();
        Some(size)
    }
}

/// The entries of a sequence, in order.
#[derive(Clone)]
pub struct HashIter<'a> {
    source: Source<'a>,
}

#[derive(Clone)]
enum Source<'a> {
    Full(std::slice::Iter<'a, Hash>),
    Entries {
        entries: std::slice::Iter<'a, ShortEntry>,
        size: u8,
    },
    Wire {
        left: u32,
        size: u8,
        cursor: ExceptionCursor<'a>,
        hashes: Reader<'a>,
    },
}

impl<'a> Iterator for HashIter<'a> {
    type Item = HashEntry<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.source {
            Source::Full(hashes) => hashes.next().map(HashEntry::Full),
            Source::Entries { entries, size } => entries.next().map(|entry| match entry {
                ShortEntry::Short(id) => HashEntry::Short(low_bytes(*id, *size), *size),
                ShortEntry::Full(hash) => HashEntry::Full(hash),
            }),
            Source::Wire {
                left,
                size,
                cursor,
                hashes,
            } => {
                *left = left.checked_sub(1)?;
                read_entry(hashes, cursor.step().unwrap_or(*size))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match &self.source {
            Source::Full(hashes) => hashes.len(),
            Source::Entries { entries, .. } => entries.len(),
            Source::Wire { left, .. } => *left as usize,
        };
        (left, Some(left))
    }
}

impl ExactSizeIterator for HashIter<'_> {}

impl PartialEq for HashSequence<'_> {
    /// Equal if the encodings are.
    fn eq(&self, other: &Self) -> bool {
        self.default_size() == other.default_size() && self.iter().eq(other.iter())
    }
}

impl Eq for HashSequence<'_> {}

impl fmt::Debug for HashSequence<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(sequence: &HashSequence<'_>) -> Vec<u8> {
        let mut buffer = vec![0; sequence.encoded_len()];
        let mut writer = Writer::new(&mut buffer);
        sequence
            .encode(&mut writer)
            .expect("the length was asked for");
        assert_eq!(writer.remaining(), 0);
        buffer
    }

    fn decode(bytes: &[u8]) -> Result<HashSequence<'_>, WireError> {
        let mut reader = Reader::new(bytes);
        let sequence = HashSequence::decode(&mut reader)?;
        reader.finish().map(|()| sequence)
    }

    #[test]
    fn the_first_two_entries_being_exceptions_reads_one_and_one() {
        let entries = [
            ShortEntry::Full([1; 32]),
            ShortEntry::Full([2; 32]),
            ShortEntry::Short(0x0605_0403_0201),
        ];
        let bytes = encode(&HashSequence::short(&entries, 6).expect("one is short"));
        assert_eq!(bytes.get(..7), Some(&[3, 6, 2, 1, 32, 1, 32][..]));
        assert_eq!(bytes.get(71..), Some(&[1, 2, 3, 4, 5, 6][..]));
        let sequence = decode(&bytes).expect("it was encoded so");
        assert_eq!(sequence.get(0), Some(HashEntry::Full(&[1; 32])));
        assert_eq!(sequence.get(2), Some(HashEntry::Short(0x0605_0403_0201, 6)));
        assert_eq!(sequence.get(3), None);
        assert_eq!(encode(&sequence), bytes);
    }

    #[test]
    fn a_whole_sequence_with_short_exceptions_is_read_too() {
        // Two whole hashes with a short id of five bytes between them.
        let mut bytes = vec![3, 32, 1, 2, 5];
        bytes.extend([7; 32]);
        bytes.extend([1, 0, 0, 0, 0x80]);
        bytes.extend([9; 32]);
        let sequence = decode(&bytes).expect("canonical");
        let entries: Vec<_> = sequence.iter().collect();
        assert_eq!(
            entries,
            [
                HashEntry::Full(&[7; 32]),
                HashEntry::Short(0x80_0000_0001, 5),
                HashEntry::Full(&[9; 32])
            ]
        );
        assert_eq!((sequence.as_full(), sequence.default_size()), (None, 32));
        assert_eq!(encode(&sequence), bytes);
    }

    #[test]
    fn what_is_not_canonical_is_refused_by_its_reason() {
        for (bytes, reason) in [
            (&[][..], WireError::Truncated),
            (&[0, 6, 0], WireError::EmptyRun),
            (&[1, 3, 0, 0, 0, 0], WireError::HashSize),
            (&[1, 9, 0], WireError::HashSize),
            (&[1, 33, 0], WireError::HashSize),
            (&[0xfe, 1, 0, 0, 1, 4, 0], WireError::TooLarge),
            (&[1, 4, 1, 1, 5, 0, 0, 0, 0, 0], WireError::BadException),
            (
                &[2, 4, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                WireError::BadException,
            ),
            (
                &[2, 4, 1, 3, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                WireError::BadException,
            ),
            (
                &[2, 4, 1, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0],
                WireError::BadException,
            ),
            (&[2, 4, 1, 1, 31, 0, 0, 0, 0], WireError::HashSize),
            (&[2, 4, 0, 0, 0, 0, 0, 0, 0, 0], WireError::Truncated),
            (
                &[2, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                WireError::TrailingBytes,
            ),
        ] {
            assert_eq!(decode(bytes).err(), Some(reason), "{bytes:02x?}");
        }
        let short_of_bytes = [0xfd, 0xff, 0xff, 4, 0, 1, 2, 3];
        assert_eq!(decode(&short_of_bytes).err(), Some(WireError::Truncated));
    }

    #[test]
    fn a_sequence_without_short_ids_is_no_short_one() {
        assert!(HashSequence::short(&[ShortEntry::Full([0; 32])], 6).is_none());
        assert!(HashSequence::short(&[], 6).is_none());
        assert!(HashSequence::short(&[ShortEntry::Short(1)], 9).is_none());
        let entries = [ShortEntry::Short(u64::MAX)];
        let sequence = HashSequence::short(&entries, 4).expect("short");
        assert_eq!(sequence.get(0), Some(HashEntry::Short(0xffff_ffff, 4)));
    }
}
