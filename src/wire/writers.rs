//! Frames built piece by piece into the room that is left, and how much would fit.
//!
//! What is sent is chosen when there is room to send it: transactions are pushed one by one until the next does
//! not fit, a lap's hashes go from the tree straight into the datagram.

use super::codec::{NoRoom, Writer, compact_size_len};
use super::data::Hashes;
use super::lap::level_direction;
use super::structures::{JobRef, Tree, tree_flags};
use super::{FULL_SIZE, MAX_TXS, MessageType};
use crate::merkle::{Hash, Lap, MAX_LEAVES, Run};

/// The longest body of a frame that takes at most `room` bytes, its header included; `None` below two.
pub const fn longest_body(room: usize) -> Option<usize> {
    if room < 2 {
        return None;
    }
    // The length takes one byte up to 252, three from 253 to 65,535.
    Some(match room {
        ..=254 => room - 2,
        255..=256 => 252,
        ..=65_539 => room - 4,
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
