//! Where blocks are: the heads of the records are read, and what lies between is skipped.

use std::io;

use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash as _;

use super::{BlockFiles, FilesError, HEAD_BYTES, Kind, MAX_RECORD_BYTES, Place};
use crate::chain::bitcoind::undo;

/// Bytes of a header.
const HEADER_BYTES: usize = 80;
/// Bytes of the count of transactions behind it, at most.
const COUNT_BYTES: usize = 9;
/// Bytes of the least record: a header, a count, and a transaction.
const LEAST_BLOCK: u32 = 81 + 60;
/// Bytes that are looked at together for the next record behind something else.
const WINDOW: usize = 1 << 20;
/// Zeros behind which nothing is looked for. Reason: whatever a crash left inside a file, nobody wrote so many zeros; at its
/// end they go on for up to 16 MiB.
const ZEROS: usize = 4 << 10;

/// A block that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub place: Place,
    /// Its size in bytes.
    pub size: u32,
    /// Its hash, internal byte order.
    pub hash: [u8; 32],
    /// As serialized.
    pub header: [u8; HEADER_BYTES],
    /// As many as it says that it has.
    pub transactions: u32,
}

impl Found {
    /// The hash of the block before it.
    pub fn parent(&self) -> [u8; 32] {
        let mut parent = [0; 32];
        parent.copy_from_slice(&self.header[4..36]);
        parent
    }
}

/// A place up to which a file has been looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The file.
    pub file: u32,
    /// The next byte of it.
    pub offset: u64,
}

impl BlockFiles {
    /// The blocks of one file from `cursor` on, which is moved behind the last of them. What is no record is skipped: bitcoind
    /// leaves zeros where it meant to write, and after a crash whatever was there.
    ///
    /// # Errors
    ///
    /// If the file can't be read.
    pub fn survey(&self, cursor: &mut Cursor) -> Result<Vec<Found>, FilesError> {
        self.survey_from(cursor).map_err(|error| FilesError::Io {
            path: self.path(Kind::Blocks, cursor.file),
            error,
        })
    }

    fn survey_from(&self, cursor: &mut Cursor) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        let mut at = cursor.offset;
        loop {
            if let Some(block) = self.block_at(cursor.file, at)? {
                at += HEAD_BYTES + u64::from(block.size);
                cursor.offset = at;
                found.push(block);
            } else if let Some(next) = self.next_magic(Kind::Blocks, cursor.file, at + 1)? {
                at = next;
            } else {
                return Ok(found);
            }
        }
    }

    /// The block whose record begins at `at`, if one does: with a header that has work, and all of it there.
    fn block_at(&self, file: u32, at: u64) -> io::Result<Option<Found>> {
        let mut head = [0; HEAD_BYTES as usize + HEADER_BYTES + COUNT_BYTES];
        if self.read_some(Kind::Blocks, file, at, &mut head)? < head.len() {
            return Ok(None);
        }
        let (magic, rest) = head.split_at(4);
        let (size, rest) = rest.split_at(4);
        let (header, count) = rest.split_at(HEADER_BYTES);
        let size = size.try_into().map_or(0, u32::from_le_bytes);
        if magic != self.magic || !(LEAST_BLOCK..=MAX_RECORD_BYTES).contains(&size) {
            return Ok(None);
        }
        let Ok(offset) = u32::try_from(at + HEAD_BYTES) else {
            return Ok(None);
        };
        let Ok(parsed) = deserialize::<Header>(header) else {
            return Ok(None);
        };
        let hash = parsed.block_hash();
        // The count is written as that in undo data.
        let count = undo::transactions(count).ok();
        let transactions = count
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(0);
        let (Ok(header), true, 1..) = (
            header.try_into(),
            parsed.target().is_met_by(hash),
            transactions,
        ) else {
            return Ok(None);
        };
        let place = Place { file, offset };
        Ok(Some(Found {
            place,
            size,
            hash: hash.to_byte_array(),
            header,
            transactions,
        }))
    }

    /// Where the magic number stands next, from `at` on. Nowhere, if nothing but zeros follows for a while: bitcoind lays out the
    /// next 16 MiB in advance, and to look through them at each block would take longer than all else.
    pub(super) fn next_magic(&self, kind: Kind, file: u32, mut at: u64) -> io::Result<Option<u64>> {
        let mut ahead = vec![0; ZEROS];
        let read = self.read_some(kind, file, at, &mut ahead)?;
        let ahead = ahead.get(..read).unwrap_or_default();
        if self.is_blank(at, ahead) {
            return Ok(None);
        }
        let mut window = vec![0; WINDOW];
        loop {
            let read = self.read_some(kind, file, at, &mut window)?;
            let read = window.get(..read).unwrap_or_default();
            if let Some(found) = read.windows(4).position(|bytes| bytes == self.magic) {
                return Ok(Some(at + found as u64));
            }
            if read.len() < WINDOW {
                return Ok(None);
            }
            at += (WINDOW - 3) as u64;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use bitcoin::blockdata::constants::genesis_block;
    use bitcoin::consensus::serialize;

    use super::super::tests::write;
    use super::*;
    use crate::chain::Network;

    /// Blocks on top of each other, of one transaction each.
    pub(crate) fn chain(length: usize) -> Vec<bitcoin::Block> {
        let mut blocks = vec![genesis_block(bitcoin::Network::Regtest)];
        while let Some(last) = blocks.last().filter(|_| blocks.len() < length) {
            let mut next = last.clone();
            next.header.prev_blockhash = last.block_hash();
            while !next.header.target().is_met_by(next.block_hash()) {
                next.header.nonce += 1;
            }
            blocks.push(next);
        }
        blocks
    }

    #[test]
    fn every_block_is_found_and_what_was_added_later_too() {
        let folder = tempfile::tempdir().unwrap();
        let blocks = chain(30);
        let mut records: Vec<Vec<u8>> = blocks.iter().map(serialize).collect();
        // In whatever order they arrived.
        records.swap(3, 20);
        let xor = [9, 8, 7, 6, 5, 4, 3, 2];
        write(folder.path(), Kind::Blocks, 0, &records[..20], xor);
        let files = BlockFiles::open(folder.path(), Network::Regtest).unwrap();
        let mut cursor = Cursor { file: 0, offset: 0 };
        let mut found = files.survey(&mut cursor).unwrap();
        assert_eq!(found.len(), 20);
        assert_eq!(files.survey(&mut cursor).unwrap(), []);
        write(folder.path(), Kind::Blocks, 0, &records, xor);
        found.extend(files.survey(&mut cursor).unwrap());
        assert_eq!(found.len(), 30);
        for (found, record) in found.iter().zip(&records) {
            let read = files.read(found.place, 0, found.size as usize).unwrap();
            assert_eq!(&read, record);
            assert_eq!(found.header[..], record[..80]);
            assert_eq!(found.transactions, 1);
        }
        assert_eq!(found[1].parent(), found[0].hash);
        assert_eq!(found[20].hash, blocks[3].block_hash().to_byte_array());
    }

    #[test]
    fn what_is_no_record_is_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let blocks = chain(3);
        let mut records: Vec<Vec<u8>> = blocks.iter().map(serialize).collect();
        // A record of something else, one with a header without work, and one whose transactions are none.
        let mut idle = records[1].clone();
        while bitcoin::consensus::deserialize::<Header>(&idle[..80])
            .is_ok_and(|header| header.target().is_met_by(header.block_hash()))
        {
            idle[76] += 1;
        }
        let mut empty = records[1].clone();
        empty[80] = 0;
        records.splice(1..1, [vec![0; 300], idle, empty, vec![7; 20]]);
        write(folder.path(), Kind::Blocks, 0, &records, [1; 8]);
        let files = BlockFiles::open(folder.path(), Network::Regtest).unwrap();
        let found = files.survey(&mut Cursor { file: 0, offset: 0 }).unwrap();
        let found: Vec<_> = found.iter().map(|found| found.hash).collect();
        let expected: Vec<_> = blocks
            .iter()
            .map(|block| block.block_hash().to_byte_array())
            .collect();
        assert_eq!(found, expected);
    }
}
