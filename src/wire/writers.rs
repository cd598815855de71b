//! Frames built piece by piece into the room that is left, and how much would fit.
//!
//! What is sent is chosen when there is room to send it: transactions are pushed one by one until the next does
//! not fit, a lap's hashes go from the tree straight into the datagram.

use super::codec::{NoRoom, Writer, compact_size_len};
use super::lap::level_direction;
use super::payload::Hashes;
use super::structures::{JobRef, Tree, tree_flags};
use super::{FULL_SIZE, MAX_TXS, MessageType};
use crate::merkle::{Hash, Lap, MAX_LEAVES, Run};

/// The longest body of a frame that takes at most `room` bytes, its header included; `None` below two.
pub const fn longest_body(room: usize) -> Option<usize> {
    // The length takes one byte up to 252, three from 253 to 65,535.
    Some(match room {
        0 | 1 => return None,
        2..=254 => room - 2,
        255 | 256 => 252,
        257..=65_539 => room - 4,
        _ => 65_535,
    })
}

/// Builds one TXS frame: transactions that follow one another, as many as fit.
///
/// Nothing is written until [`TxsWriter::finish`] says so; dropping it leaves the writer as it was.
///
/// ```
/// # use blocktorrent::wire::{JobRef, TxsWriter, Writer};
/// let mut buffer = [0; 1200];
/// let mut writer = Writer::new(&mut buffer);
/// let mut txs = TxsWriter::begin(&mut writer, JobRef::of_sender(1), 7)?;
/// assert!(txs.push(&[0xaa; 400]) && txs.push(&[0xbb; 700]) && !txs.push(&[0xcc; 100]));
/// assert_eq!(txs.finish(), 2);
/// assert_eq!(writer.position(), 1 + 3 + 2 + 1 + 1 + (3 + 400) + (3 + 700));
/// # Ok::<(), blocktorrent::wire::NoRoom>(())
/// ```
#[derive(Debug)]
pub struct TxsWriter<'w, 'b> {
    writer: &'w mut Writer<'b>,
    job: JobRef,
    first: u32,
    count: u32,
    /// Where in the unwritten part the transactions start until the widths of length and count are known.
    start: usize,
    /// Bytes of transactions, their lengths included.
    len: usize,
    /// The longest body that the room allows.
    longest: usize,
}

impl<'w, 'b> TxsWriter<'w, 'b> {
    /// Starts a frame whose first transaction has the index `first`. [`NoRoom`] if not even a transaction of one
    /// byte would fit.
    pub fn begin(writer: &'w mut Writer<'b>, job: JobRef, first: u32) -> Result<Self, NoRoom> {
        let longest = longest_body(writer.remaining()).ok_or(NoRoom)?;
        let fixed = 2 + compact_size_len(u64::from(first)) + 1;
        if fixed + 2 > longest {
            return Err(NoRoom);
        }
        let start = 1 + compact_size_len(longest as u64) + fixed;
        Ok(Self {
            writer,
            job,
            first,
            count: 0,
            start,
            len: 0,
            longest,
        })
    }

    /// The longest transaction that would still be taken; `None` if none would.
    pub fn room(&self) -> Option<usize> {
        let room = self.longest.checked_sub(self.body_len(self.count + 1))?;
        let full = self.count >= MAX_TXS || self.first.saturating_add(self.count) >= MAX_LEAVES;
        match room {
            _ if full => None,
            0 | 1 => None,
            2..=0xfd => Some(room - 1),
            0xfe..=0xff => Some(0xfc),
            0x100..=0x1_0002 => Some(room - 3),
            _ => Some(room - 5),
        }
    }

    /// Adds the next transaction if it fits and is not empty, and says whether it did.
    pub fn push(&mut self, transaction: &[u8]) -> bool {
        if transaction.is_empty() || self.room().is_none_or(|room| transaction.len() > room) {
            return false;
        }
        let space = self
            .writer
            .unwritten()
            .get_mut(self.start + self.len..)
            .unwrap_or_default();
        let mut target = Writer::new(space);
        let written = target
            .compact_size(transaction.len() as u64)
            .and_then(|()| target.bytes(transaction))
            .is_ok();
        if written {
            self.len += target.position();
            self.count += 1;
        }
        written
    }

    /// How many transactions were taken.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Writes the frame, if it has any transactions, and returns how many.
    pub fn finish(self) -> u32 {
        if self.count == 0 {
            return 0;
        }
        let body = self.body_len(self.count);
        let mut head = [0; 16];
        let mut fields = Writer::new(&mut head);
        fields
            .u8(MessageType::Txs.to_wire())
            .and_then(|()| fields.compact_size(body as u64))
            .and_then(|()| self.job.encode(&mut fields))
            .and_then(|()| fields.compact_size(u64::from(self.first)))
            .and_then(|()| fields.compact_size(u64::from(self.count)))
            .expect("1, at most 3, 2, at most 5 and at most 3 bytes");
        let head = fields.written();
        let space = self.writer.unwritten();
        // The transactions move by two bytes at most, and only in a short frame or one of over 252 of them.
        if head.len() != self.start {
            space.copy_within(self.start..self.start + self.len, head.len());
        }
        if let Some(target) = space.get_mut(..head.len()) {
            target.copy_from_slice(head);
        }
        let frame = head.len() + self.len;
        self.writer.advance(frame);
        self.count
    }

    /// Bytes of the body with `count` transactions and the bytes written so far.
    fn body_len(&self, count: u32) -> usize {
        2 + compact_size_len(u64::from(self.first)) + compact_size_len(u64::from(count)) + self.len
    }
}

/// Bytes of a run whose hashes all have `size` bytes, with its hashes.
fn run_len(run: &Run, size: u8) -> usize {
    let count = u64::from(run.count);
    1 + compact_size_len(u64::from(run.start))
        + compact_size_len(count)
        + 2
        + run.count as usize * usize::from(size)
}

fn hashes_body_len(lap: &Lap, flat_size: u8) -> usize {
    let runs = lap.runs.iter().map(|run| match run.direction {
        crate::merkle::Direction::Flat => run_len(run, flat_size),
        _ => run_len(run, FULL_SIZE),
    });
    // Job, TF, level, index, count of runs.
    2 + 1 + 1 + compact_size_len(u64::from(lap.ancestor.1)) + 1 + runs.sum::<usize>()
}

impl Hashes<'_> {
    /// Bytes of the whole frame that carries `lap` with `flat_size` bytes for each hash of its flat run (32, or 4
    /// to 8 for short ids without exceptions) and 32 for those beside it.
    pub fn frame_len_of(lap: &Lap, flat_size: u8) -> usize {
        let body = hashes_body_len(lap, flat_size);
        1 + compact_size_len(body as u64) + body
    }

    /// How many hashes of `size` bytes a lap of a single flat run can carry in a frame of at most `room` bytes:
    /// nodes of one level from `start` on, around the ancestor with this index.
    pub fn flat_room(room: usize, ancestor_index: u32, start: u32, size: u8) -> u32 {
        let fixed = |count: usize| {
            // Job, TF, level, count of runs, LEVELDIR, size, exceptions.
            2 + 1
                + 1
                + 1
                + 1
                + 1
                + 1
                + compact_size_len(u64::from(ancestor_index))
                + compact_size_len(u64::from(start))
                + compact_size_len(count as u64)
        };
        let Some(body) = longest_body(room) else {
            return 0;
        };
        let fit = |width: usize| body.saturating_sub(fixed(width)) / usize::from(size.max(1));
        // With the narrowest count; if that is too many for it, with the next.
        let count = match fit(1) {
            few @ ..=0xfc => few,
            _ => fit(0xfd).max(0xfc),
        };
        count.min(MAX_LEAVES as usize) as u32
    }

    /// Writes a whole HASHES frame of `lap` with whole hashes, taken one by one from left to right. Nothing is
    /// written if there is no room, or `Ok(false)` if there are fewer hashes than the lap has nodes.
    pub fn write_full<'h>(
        writer: &mut Writer<'_>,
        job: JobRef,
        tree: Tree,
        lap: &Lap,
        hashes: impl IntoIterator<Item = &'h Hash>,
    ) -> Result<bool, NoRoom> {
        if writer.remaining() < Self::frame_len_of(lap, FULL_SIZE) {
            return Err(NoRoom);
        }
        let before = writer.position();
        let mut hashes = hashes.into_iter();
        let written = write_lap(writer, job, tree, lap, &mut hashes);
        if written != Ok(true) {
            writer.rewind(before);
        }
        written
    }
}

fn write_lap<'h>(
    writer: &mut Writer<'_>,
    job: JobRef,
    tree: Tree,
    lap: &Lap,
    hashes: &mut impl Iterator<Item = &'h Hash>,
) -> Result<bool, NoRoom> {
    writer.u8(MessageType::Hashes.to_wire())?;
    writer.compact_size(hashes_body_len(lap, FULL_SIZE) as u64)?;
    job.encode(writer)?;
    writer.u8(tree_flags(tree, false))?;
    writer.u8(lap.ancestor.0)?;
    writer.compact_size(u64::from(lap.ancestor.1))?;
    writer.compact_size(lap.runs.len() as u64)?;
    for run in &lap.runs {
        writer.u8(level_direction(Some(run.direction), run.level))?;
        writer.compact_size(u64::from(run.start))?;
        writer.compact_size(u64::from(run.count))?;
        writer.u8(FULL_SIZE)?;
        writer.u8(0)?;
        for _ in 0..run.count {
            let Some(hash) = hashes.next() else {
                return Ok(false);
            };
            writer.bytes(hash)?;
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::{Direction, Geometry};
    use crate::wire::{HashSequence, Message, TxList, TxPart, Txs, WireLap, WireRun};
    use arrayvec::ArrayVec;
    use proptest::prelude::*;

    const JOB: JobRef = JobRef::of_receiver(3);

    #[test]
    fn the_longest_body_is_the_longest() {
        let frame = |body: usize| 1 + compact_size_len(body as u64) + body;
        for room in (2..1_500).chain(65_530..65_545) {
            let body = longest_body(room).expect("at least an empty one");
            assert!(
                frame(body) <= room && (frame(body + 1) > room || body == 65_535),
                "{room}"
            );
        }
        assert_eq!(longest_body(1), None);
    }

    #[test]
    fn a_flat_lap_fills_its_room() {
        for size in [4, 6, 8, 32] {
            for (room, start) in (0..3_000).flat_map(|room| [(room, 0), (room, 70_000)]) {
                let count = Hashes::flat_room(room, 5, start, size);
                let lap = |count| Lap {
                    ancestor: (3, 5),
                    runs: ArrayVec::from_iter([Run {
                        direction: Direction::Flat,
                        level: 20,
                        start,
                        count,
                    }]),
                };
                assert!(
                    count == 0 || Hashes::frame_len_of(&lap(count), size) <= room,
                    "{room} {size}"
                );
                assert!(
                    Hashes::frame_len_of(&lap(count + 1), size) > room,
                    "{room} {size}"
                );
            }
        }
    }

    #[test]
    fn hashes_written_one_by_one_are_the_message() {
        let geometry = Geometry::new(1_000).expect("a tree");
        for range in [0..1, 5..37, 900..1_000, 0..1_000, 333..334] {
            let lap = geometry
                .lap(geometry.root(), geometry.depth(), range)
                .expect("within");
            let hashes: Vec<Hash> = (0..lap.len()).map(|index| [index as u8; 32]).collect();
            let runs = WireLap::runs_of(&lap, &hashes).expect("a hash for each node");
            let message = Message::Hashes(Hashes {
                job: JOB,
                tree: Tree::Witness,
                lap: WireLap::new(&lap, &runs),
            });
            let mut wanted = Vec::new();
            message.append_frame(&mut wanted);
            assert_eq!(wanted.len(), Hashes::frame_len_of(&lap, 32));
            let mut buffer = vec![0; wanted.len()];
            let mut writer = Writer::new(&mut buffer);
            let fewer = hashes.iter().skip(1);
            assert_eq!(
                Hashes::write_full(&mut writer, JOB, Tree::Witness, &lap, fewer),
                Ok(false)
            );
            assert_eq!(writer.position(), 0);
            assert_eq!(
                Hashes::write_full(&mut writer, JOB, Tree::Witness, &lap, &hashes),
                Ok(true)
            );
            assert_eq!(writer.written(), wanted);
            let mut narrow = Writer::new(&mut buffer[1..]);
            assert_eq!(
                Hashes::write_full(&mut narrow, JOB, Tree::Witness, &lap, &hashes),
                Err(NoRoom)
            );
        }
    }

    #[test]
    fn short_ids_have_the_length_that_was_foretold() {
        let run = Run {
            direction: Direction::Flat,
            level: 12,
            start: 256,
            count: 128,
        };
        let entries = [crate::wire::ShortEntry::Short(1); 128];
        let sequence = HashSequence::short(&entries, 6).expect("short");
        let runs = [WireRun::new(run, sequence)];
        let lap = Lap {
            ancestor: (5, 2),
            runs: ArrayVec::from_iter([run]),
        };
        let hashes = Hashes {
            job: JOB,
            tree: Tree::Witness,
            lap: WireLap::new(&lap, &runs),
        };
        assert_eq!(
            Message::Hashes(hashes).frame_len(),
            Hashes::frame_len_of(&lap, 6)
        );
    }

    /// Pushes as long as it goes; what was written is the message of what was taken.
    fn fill(room: usize, first: u32, transactions: &[Vec<u8>]) -> u32 {
        let mut buffer = vec![0xee; room];
        let mut writer = Writer::new(&mut buffer);
        let Ok(mut txs) = TxsWriter::begin(&mut writer, JOB, first) else {
            return 0;
        };
        let mut taken: Vec<&[u8]> = Vec::new();
        for transaction in transactions {
            let fits = txs
                .room()
                .is_some_and(|longest| transaction.len() <= longest);
            let with: Vec<&[u8]> = taken.iter().copied().chain([&transaction[..]]).collect();
            let frame = Message::Txs(Txs {
                job: JOB,
                first,
                transactions: TxList::new(&with),
            })
            .frame_len();
            assert_eq!(fits, frame <= room, "{room} {first} {}", with.len());
            assert_eq!(txs.push(transaction), fits);
            if !fits {
                break;
            }
            taken = with;
        }
        let count = txs.finish();
        assert_eq!(count as usize, taken.len());
        let mut wanted = Vec::new();
        if count > 0 {
            Message::Txs(Txs {
                job: JOB,
                first,
                transactions: TxList::new(&taken),
            })
            .append_frame(&mut wanted);
        }
        assert_eq!(writer.written(), wanted);
        count
    }

    #[test]
    fn the_count_may_outgrow_its_byte() {
        let transactions = vec![vec![1]; 300];
        for room in 505..530 {
            fill(room, 0, &transactions);
        }
        assert_eq!(fill(2_000, 70_000, &transactions), 300);
        assert_eq!(fill(65_507, 0, &vec![vec![1]; 1_100]), 1_100);
    }

    proptest! {
        #[test]
        fn transactions_fill_any_room(
            room in 0usize..1_300,
            first in 0u32..1 << 24,
            shift in 0u32..24,
            lengths in prop::collection::vec(prop_oneof![1usize..300, 240usize..270], 1..12),
        ) {
            let transactions: Vec<Vec<u8>> = lengths.iter().map(|len| vec![*len as u8; *len]).collect();
            fill(room, first >> shift, &transactions);
        }

        /// A part of the length that fits does fit, and one cell more would not.
        #[test]
        fn parts_fill_any_room(room in 0usize..5_000, total in 1u32..10_000, cell in 0u32..9) {
            let frame = |len: usize| {
                let bytes = vec![0; len];
                Message::TxPart(TxPart { job: JOB, index: 300, total, cell, bytes: &bytes }).frame_len()
            };
            let left = u64::from(total).saturating_sub(u64::from(cell) * 1_152) as usize;
            match TxPart::fitting(room, 300, total, cell) {
                Some(len) => {
                    prop_assert!(frame(len) <= room && (len == left || len % 1_152 == 0));
                    prop_assert!(len == left || frame(left.min(len + 1_152)) > room);
                }
                None => prop_assert!(left == 0 || frame(left.min(1_152)) > room),
            }
        }
    }
}
