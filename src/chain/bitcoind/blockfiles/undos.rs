//! Which record of a `rev` file belongs to which block.
//!
//! Nothing in a record says so but its checksum, which covers the hash of the block before (`BlockManager::WriteBlockUndo`). So it tells
//! two blocks on the same one apart by the number of their transactions only, and else whoever asks has to. Records
//! stand in the order in which blocks were joined to the chain, so the next record is nearly always the next block's; where it
//! is not, the others are tried.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use bitcoin::hashes::{Hash as _, HashEngine as _, sha256d};

use super::survey::Found;
use super::{BlockFiles, FilesError, HEAD_BYTES, Kind, MAX_RECORD_BYTES};
use crate::chain::bitcoind::undo;

/// Bytes of the checksum behind a record.
const CHECKSUM_BYTES: usize = 32;

/// Files whose records are remembered. Reason: blocks are written to one file at a time, or two while a snapshot
/// of the coins is being verified; a few more for blocks that came out of order.
const MAX_REMEMBERED: usize = 8;

/// Whether undo data and the checksum behind it are those of the block that has this parent.
fn belongs(parent: &[u8; 32], undo: &[u8], checksum: &[u8]) -> bool {
    let mut engine = sha256d::Hash::engine();
    engine.input(parent);
    engine.input(undo);
    let hash = sha256d::Hash::from_engine(engine);
    hash[..] == *checksum
}

impl BlockFiles {
    /// For each of `blocks`, all of one file and in the order of the chain, where its undo data is in that file's `rev` file,
    /// which is given whole. `None` for a block that has none there, as the genesis block. Of blocks that have the same parent and the same
    /// number of transactions it may be another one's.
    pub fn match_undos(&self, rev: &[u8], blocks: &[Found]) -> Vec<Option<Range<usize>>> {
        let mut places = vec![None; blocks.len()];
        let mut next = 0;
        for record in self.records(rev) {
            let undo = rev.get(record.clone()).unwrap_or_default();
            let checksum = rev.get(record.end..record.end + CHECKSUM_BYTES);
            let checksum = checksum.unwrap_or_default();
            let fits = |place: usize| {
                let found = blocks.get(place);
                found.is_some_and(|found| {
                    undo::transactions(undo).ok() == Some(u64::from(found.transactions) - 1)
                        && belongs(&found.parent(), undo, checksum)
                })
            };
            let place = if fits(next) {
                Some(next)
            } else {
                (0..blocks.len()).find(|&place| places.get(place) == Some(&None) && fits(place))
            };
            if let Some(place) = place {
                if let Some(empty) = places.get_mut(place) {
                    *empty = Some(record);
                }
                next = place + 1;
            }
        }
        places
    }

    /// Where the undo data of the records of a whole `rev` file are.
    fn records<'a>(&'a self, rev: &'a [u8]) -> impl Iterator<Item = Range<usize>> + 'a {
        let mut at = 0;
        std::iter::from_fn(move || {
            loop {
                let head = rev.get(at..)?.first_chunk::<{ HEAD_BYTES as usize }>()?;
                if let Some(size) = self.record_size(head) {
                    let start = at + HEAD_BYTES as usize;
                    let end = start + size as usize;
                    if end + CHECKSUM_BYTES <= rev.len() {
                        at = end + CHECKSUM_BYTES;
                        return Some(start..end);
                    }
                }
                let rest = rev.get(at + 1..)?;
                at += 1 + rest.windows(4).position(|bytes| bytes == self.magic)?;
            }
        })
    }

    fn record_size(&self, head: &[u8; HEAD_BYTES as usize]) -> Option<u32> {
        let [a, b, c, d, size @ ..] = *head;
        let size = u32::from_le_bytes(size);
        ([a, b, c, d] == self.magic && (1..=MAX_RECORD_BYTES).contains(&size)).then_some(size)
    }
}

/// Finds the undo data of one block after the other, and reads on where it stopped.
#[derive(Debug, Default)]
pub struct Undos {
    files: BTreeMap<u32, Records>,
}

/// The records of one file as far as it was read.
#[derive(Debug, Default)]
struct Records {
    /// Where their undo data begin, and their sizes in bytes.
    list: Vec<(u64, u32)>,
    /// Up to where they were looked for.
    offset: u64,
    /// The one behind the last that was found to belong to a block.
    next: usize,
}

impl Undos {
    /// The undo data of a block that are `accepted` as its own; `None` if they are not there, which is so before the node has joined the
    /// block to its chain. What is not accepted is another one's on the same block.
    ///
    /// # Errors
    ///
    /// If the file can't be read.
    pub fn read(
        &mut self,
        files: &BlockFiles,
        block: &Found,
        accepted: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>, FilesError> {
        let file = block.place.file;
        while self.files.len() >= MAX_REMEMBERED && !self.files.contains_key(&file) {
            self.files.pop_first();
        }
        let records = self.files.entry(file).or_default();
        let failed = |error| FilesError::Io {
            path: files.path(Kind::Undo, file),
            error,
        };
        if let Some(undo) = records.find(files, block, accepted).map_err(failed)? {
            return Ok(Some(undo));
        }
        match records.extend(files, file) {
            Ok(()) => records.find(files, block, accepted).map_err(failed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }
}

/// Reads a record if it may be the block's, and gives it if it is.
fn try_record(
    files: &BlockFiles,
    block: &Found,
    offset: u64,
    size: u32,
) -> io::Result<Option<Vec<u8>>> {
    let mut count = [0; 9];
    files.read_some(Kind::Undo, block.place.file, offset, &mut count)?;
    if undo::transactions(&count).ok() != Some(u64::from(block.transactions) - 1) {
        return Ok(None);
    }
    let mut bytes = vec![0; size as usize + CHECKSUM_BYTES];
    files.read_exact(Kind::Undo, block.place.file, offset, &mut bytes)?;
    let checksum = bytes.split_off(size as usize);
    Ok(belongs(&block.parent(), &bytes, &checksum).then_some(bytes))
}

impl Records {
    /// The undo data of a block among the records that are known: the next one mostly, or the last.
    fn find(
        &mut self,
        files: &BlockFiles,
        block: &Found,
        accepted: &mut dyn FnMut(&[u8]) -> bool,
    ) -> io::Result<Option<Vec<u8>>> {
        let count = self.list.len();
        let (next, last) = (self.next, count.saturating_sub(1));
        let others = (0..count).rev().filter(|one| *one != next && *one != last);
        for place in [next, last].into_iter().chain(others) {
            let Some(&(offset, size)) = self.list.get(place) else {
                continue;
            };
            let undo = try_record(files, block, offset, size)?;
            if let Some(undo) = undo.filter(|undo| accepted(undo)) {
                self.next = place + 1;
                return Ok(Some(undo));
            }
        }
        Ok(None)
    }

    /// Looks for what was added since.
    fn extend(&mut self, files: &BlockFiles, file: u32) -> io::Result<()> {
        let mut at = self.offset;
        loop {
            let mut head = [0; HEAD_BYTES as usize];
            let read = files.read_some(Kind::Undo, file, at, &mut head)?;
            let size = (read == head.len()).then(|| files.record_size(&head));
            if let Some(size) = size.flatten() {
                let mut last = [0];
                let end = at + HEAD_BYTES + u64::from(size) + CHECKSUM_BYTES as u64;
                if files.read_some(Kind::Undo, file, end - 1, &mut last)? == 1 {
                    self.list.push((at + HEAD_BYTES, size));
                    at = end;
                    self.offset = at;
                    continue;
                }
            }
            match files.next_magic(Kind::Undo, file, at + 1)? {
                Some(next) => at = next,
                None => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::consensus::serialize;

    use super::super::survey::Cursor;
    use super::super::survey::tests::chain;
    use super::super::tests::write;
    use super::*;
    use crate::chain::Network;

    /// The record of a block: undo data that tell its height, and the checksum.
    fn record(block: &bitcoin::Block, undo: &[u8]) -> Vec<u8> {
        let mut engine = sha256d::Hash::engine();
        engine.input(&block.header.prev_blockhash[..]);
        engine.input(undo);
        let checksum = sha256d::Hash::from_engine(engine);
        [undo, &checksum[..]].concat()
    }

    #[test]
    fn every_block_finds_its_own_in_whatever_order_they_were_joined() {
        let folder = tempfile::tempdir().unwrap();
        let blocks = chain(12);
        let bodies: Vec<_> = blocks.iter().map(serialize).collect();
        write(folder.path(), Kind::Blocks, 0, &bodies, [3; 8]);
        let files = BlockFiles::open(folder.path(), Network::Regtest).unwrap();
        let mut cursor = Cursor { file: 0, offset: 0 };
        let found = files.survey(&mut cursor).unwrap();
        // None of the genesis block; all others have one transaction, so their undo data are those of none.
        let mut records: Vec<_> = blocks[1..]
            .iter()
            .map(|block| record(block, &[0]))
            .collect();
        records.swap(2, 7);
        // Something that belongs to no block.
        records.insert(4, [&[0], [1; 32].as_slice()].concat());
        write(folder.path(), Kind::Undo, 0, &records[..8], [3; 8]);

        let mut undos = Undos::default();
        assert_eq!(undos.read(&files, &found[0], &mut |_| true).unwrap(), None);
        assert_eq!(
            undos.read(&files, &found[1], &mut |_| true).unwrap(),
            Some(vec![0])
        );
        assert_eq!(undos.read(&files, &found[11], &mut |_| true).unwrap(), None);
        write(folder.path(), Kind::Undo, 0, &records, [3; 8]);
        for found in &found[1..] {
            assert_eq!(
                undos.read(&files, found, &mut |_| true).unwrap(),
                Some(vec![0])
            );
        }

        let mut rev = Vec::new();
        files.load(Kind::Undo, 0, &mut rev).unwrap();
        let matched = files.match_undos(&rev, &found);
        assert_eq!(matched[0], None);
        assert!(matched[1..].iter().all(Option::is_some));
        let mut starts: Vec<_> = matched.iter().flatten().map(|one| one.start).collect();
        assert!(!starts.is_sorted());
        starts.sort_unstable();
        starts.dedup();
        assert_eq!(starts.len(), 11);
    }

    #[test]
    fn a_file_that_is_not_there_yet_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let blocks = chain(2);
        let bodies: Vec<_> = blocks.iter().map(serialize).collect();
        write(folder.path(), Kind::Blocks, 0, &bodies, [0; 8]);
        let files = BlockFiles::open(folder.path(), Network::Regtest).unwrap();
        let mut cursor = Cursor { file: 0, offset: 0 };
        let found = files.survey(&mut cursor).unwrap();
        assert_eq!(
            Undos::default()
                .read(&files, &found[1], &mut |_| true)
                .unwrap(),
            None
        );
    }
}
