//! The header chain on disk: `headers.dat`, so that a restart asks for what came since and not for all.
//!
//! ```text
//!   "BTHEADR1" | network magic 4 | start height u32 LE | start hash 32 | header 80 | header 80 | ...
//! ```
//!
//! The headers of the active chain after its start, in order. A reorganisation cuts the file at the fork and
//! goes on from there. Nothing in it is trusted: at a start every header is judged again (a second or two for
//! all of mainnet's), and the file is cut where the first one fails, be it damaged, half written, or of
//! a rule that is stricter now. It is written when the tip moves, by a task that waits for that.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash as _;

use super::files::refuse_irregular;
use super::headers::HeaderBook;
use super::stop::Stop;
use crate::chain::{Network, Tip};
use crate::time::Time;

const MAGIC: &[u8; 8] = b"BTHEADR1";
/// Bytes before the first header.
const PREFIX: usize = 8 + 4 + 4 + 32;
/// Bytes of a header.
const HEADER: usize = 80;
/// Headers read, judged or written in one step: 160 kB, and a millisecond or two of the chain's lock.
const STEP: usize = 2_000;

/// The file, open, and how many headers it holds.
#[derive(Debug)]
pub struct HeaderFile {
    file: File,
    start: Tip,
    count: usize,
}

/// What a start found in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Headers that are on the chain again.
    pub headers: usize,
    /// Bytes that were cut off.
    pub cut_bytes: u64,
}

impl HeaderFile {
    /// Opens the file at `path`, made if need be, and hands its headers to `book`.
    ///
    /// A file of another network or start is begun anew: its headers would not connect.
    ///
    /// # Errors
    ///
    /// What the system answers.
    pub fn open(
        path: &Path,
        network: Network,
        book: &HeaderBook,
        now: Time,
    ) -> io::Result<(Self, Loaded)> {
        refuse_irregular(path)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let start = book.start();
        let prefix = prefix(network, start);
        let length = file.metadata()?.len();
        let mut found = [0; PREFIX];
        let ours = length >= PREFIX as u64 && {
            file.read_exact(&mut found)?;
            found == prefix
        };
        let mut this = Self {
            file,
            start,
            count: 0,
        };
        if ours {
            this.load(book, now)?;
        } else {
            this.file.set_len(0)?;
            this.file.rewind()?;
            this.file.write_all(&prefix)?;
        }
        let kept = this.length();
        this.file.set_len(kept)?;
        let loaded = Loaded {
            headers: this.count,
            cut_bytes: length.saturating_sub(kept),
        };
        Ok((this, loaded))
    }

    /// Judges what the file holds, and counts up to the first header that does not continue the chain.
    fn load(&mut self, book: &HeaderBook, now: Time) -> io::Result<()> {
        let mut bytes = vec![0; STEP * HEADER];
        loop {
            let filled = read_full(&mut self.file, &mut bytes)?;
            let (records, _) = bytes[..filled].as_chunks::<HEADER>();
            let headers: Vec<Header> = records
                .iter()
                .map_while(|record| deserialize(record).ok())
                .collect();
            let batch = book.submit_all(&headers, now);
            self.count += batch.accepted;
            if batch.accepted < STEP {
                return self.retreat(book).map(drop);
            }
        }
    }

    /// Brings the file to the active chain of `book`: back to the fork, then on to the tip.
    ///
    /// # Errors
    ///
    /// What the system answers; what is missing then is written by the next call, or asked for after a start.
    pub fn follow(&mut self, book: &HeaderBook) -> io::Result<()> {
        let before = self.count;
        let mut last = self.retreat(book)?;
        if self.count < before {
            self.file.set_len(self.length())?;
        }
        loop {
            let next = self.start.height + 1 + self.count as u32;
            let headers = book.from_height(next, STEP);
            // A reorganisation between two looks is followed when it is told.
            let connects = headers
                .first()
                .is_some_and(|header| header.prev_blockhash == last);
            if !connects {
                return Ok(());
            }
            last = headers.last().map_or(last, Header::block_hash);
            let bytes: Vec<u8> = headers.iter().flat_map(serialize).collect();
            self.file.seek(SeekFrom::Start(self.length()))?;
            self.file.write_all(&bytes)?;
            self.count += headers.len();
        }
    }

    /// Headers in the file.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Counts only as far as the file and the active chain agree. Gives the hash of the last header then.
    fn retreat(&mut self, book: &HeaderBook) -> io::Result<BlockHash> {
        while self.count > 0 {
            let mut record = [0; HEADER];
            self.file
                .seek(SeekFrom::Start(self.length() - HEADER as u64))?;
            self.file.read_exact(&mut record)?;
            let hash = BlockHash::hash(&record);
            if book.hash_at(self.start.height + self.count as u32) == Some(hash) {
                return Ok(hash);
            }
            self.count -= 1;
        }
        Ok(self.start.hash)
    }

    fn length(&self) -> u64 {
        (PREFIX + self.count * HEADER) as u64
    }
}

/// Keeps the file at the chain's tip until the node stops, and once more then.
pub async fn keep(mut file: HeaderFile, book: HeaderBook, stop: Stop) {
    let mut tip = book.watch_tip();
    let mut healthy = true;
    loop {
        let stopped = tokio::select! {
            changed = tip.changed() => changed.is_err(),
            () = stop.stopped() => true,
        };
        let book = book.clone();
        let written = tokio::task::spawn_blocking(move || {
            let written = file.follow(&book);
            (file, written)
        });
        let Ok((back, written)) = written.await else {
            return;
        };
        file = back;
        if let Err(error) = &written
            && healthy
        {
            tracing::warn!(%error, "headers can't be written; check the disk (they are asked for again after a start)");
        }
        healthy = written.is_ok();
        if stopped {
            return;
        }
    }
}

fn prefix(network: Network, start: Tip) -> [u8; PREFIX] {
    let mut bytes = [0; PREFIX];
    let parts: [&[u8]; 4] = [
        MAGIC,
        &network.magic(),
        &start.height.to_le_bytes(),
        start.hash.as_byte_array(),
    ];
    let mut rest = bytes.as_mut_slice();
    for part in parts {
        let (head, tail) = rest.split_at_mut(part.len());
        head.copy_from_slice(part);
        rest = tail;
    }
    bytes
}

/// Fills `bytes` as far as the file goes.
fn read_full(file: &mut File, bytes: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::headers::tests::{bytes, mine};

    const NETWORK: Network = Network::Regtest;

    fn now() -> Time {
        Time::from_unix_seconds(u64::from(NETWORK.genesis().time) + 1_000_000)
    }

    /// Puts `count` headers on top of `parent`; gives the last.
    fn grow(book: &HeaderBook, parent: Header, count: u32, step: u32) -> Header {
        (0..count).fold(parent, |parent, _| {
            let header = mine(parent.block_hash(), parent.time + step);
            book.submit(&bytes(&header), now()).unwrap();
            header
        })
    }

    fn open(path: &Path) -> (HeaderBook, HeaderFile, Loaded) {
        let book = HeaderBook::new(NETWORK, None).unwrap();
        let (file, loaded) = HeaderFile::open(path, NETWORK, &book, now()).unwrap();
        (book, file, loaded)
    }

    #[test]
    fn headers_are_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("headers.dat");
        let (book, mut file, loaded) = open(&path);
        assert_eq!(loaded, Loaded::default());
        grow(&book, NETWORK.genesis(), 5, 600);
        file.follow(&book).unwrap();
        file.follow(&book).unwrap();
        assert_eq!((file.len(), file.is_empty()), (5, false));
        let (again, _, loaded) = open(&path);
        assert_eq!((loaded.headers, loaded.cut_bytes), (5, 0));
        assert_eq!(again.chain().hash, book.chain().hash);
    }

    #[test]
    fn a_reorganisation_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("headers.dat");
        let (book, mut file, _) = open(&path);
        let fork = grow(&book, NETWORK.genesis(), 3, 600);
        grow(&book, fork, 10, 600);
        file.follow(&book).unwrap();
        let tip = grow(&book, fork, 11, 601);
        file.follow(&book).unwrap();
        assert_eq!(file.len(), 14);
        // Two that are not written yet when the power goes.
        grow(&book, tip, 2, 600);
        let (again, _, loaded) = open(&path);
        assert_eq!((loaded.headers, loaded.cut_bytes), (14, 0));
        assert_eq!(again.start().height, 0);
        assert_eq!(again.hash_at(14), Some(tip.block_hash()));
    }

    #[test]
    fn what_is_damaged_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("headers.dat");
        let (book, mut file, _) = open(&path);
        grow(&book, NETWORK.genesis(), 6, 600);
        file.follow(&book).unwrap();
        let mut content = std::fs::read(&path).unwrap();
        // In the parent's hash, so that it fails whatever work the header then shows.
        content[PREFIX + 4 * HEADER + 5] ^= 1;
        content.extend([7; 33]);
        std::fs::write(&path, &content).unwrap();
        let (again, mut file, loaded) = open(&path);
        assert_eq!((loaded.headers, loaded.cut_bytes), (4, 2 * 80 + 33));
        assert_eq!(again.chain().height, 4);
        file.follow(&again).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), file.length());
        // Not a file of headers at all, and one of another network.
        for content in [b"garbage".to_vec(), vec![0; 500]] {
            std::fs::write(&path, content).unwrap();
            let (book, file, _) = open(&path);
            assert_eq!((book.chain().height, file.len()), (0, 0));
        }
    }
}
