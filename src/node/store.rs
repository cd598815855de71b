//! Recent blocks on disk, bounded by bytes and by count; the oldest give way.
//!
//! A block is one file, `blocks/NUMBER-HASH.block`: its serialization and nothing else, so that any tool
//! can read it. The number counts arrivals, hence names alone say what is oldest. A file gets its name
//! after its bytes are on the disk; what a crash leaves behind ends in `.tmp` and goes at the next
//! start. There is no other index to repair.
//!
//! Disks and people alter files. At start a look at each one's header and length must do; a block that is asked
//! for is checked against its header whole, and one that no longer is what its name says is no longer kept.
//!
//! What it is not: an archive, or a judge. It keeps what the engine found whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bitcoin::consensus::Decodable as _;
use bitcoin::hashes::{Hash as _, sha256d};
use bitcoin::{Block, BlockHash, VarInt};

use super::files::{Readers, TEMPORARY, write_atomically};

/// A block's hash, internal byte order.
type Hash = [u8; 32];

/// A week of blocks: a relay serves the tip, and opening the store stays a matter of milliseconds.
pub const MAX_BLOCKS: usize = 1_008;
/// Bytes of a block header.
const HEADER: usize = 80;
/// Bytes of the largest block of any network; a larger file is none.
const MAX_FILE_BYTES: u64 = 4_000_000;
/// Bytes of the smallest transaction: version 4, counts 2, input 41, output 9, lock time 4.
const LEAST_TRANSACTION: u64 = 60;
/// Numbers have at most twelve digits: a block each second for 30,000 years.
const MAX_NUMBER: u64 = 999_999_999_999;
const ENDING: &str = ".block";

/// What became of a block that was put into the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is on the disk now.
    Stored,
    /// It was there.
    Known,
    /// It alone is larger than the store may be.
    TooLarge,
}

/// Recent blocks, by hash. Calls block on the disk; no lock is held meanwhile.
#[derive(Debug)]
pub struct BlockStore {
    folder: PathBuf,
    max_bytes: u64,
    max_blocks: usize,
    index: Mutex<Index>,
    /// Told whenever a block has been written, or has not.
    written: Condvar,
}

/// A block is being written while this lives.
struct Writing<'a>(&'a BlockStore, Hash);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.index().writing.remove(&self.1);
        self.0.written.notify_all();
    }
}

#[derive(Debug, Default)]
struct Index {
    by_age: BTreeMap<u64, (Hash, u64)>,
    by_hash: BTreeMap<Hash, u64>,
    /// What is being written just now.
    writing: BTreeSet<Hash>,
    bytes: u64,
    next: u64,
}

impl BlockStore {
    /// Opens the store in `folder`, made if need be, and brings it within `max_bytes`.
    ///
    /// # Errors
    ///
    /// What the system answers about the folder. Damaged files are removed, with one warning.
    pub fn open(folder: &Path, max_bytes: u64) -> io::Result<Self> {
        Self::open_bounded(folder, max_bytes, MAX_BLOCKS)
    }

    fn open_bounded(folder: &Path, max_bytes: u64, max_blocks: usize) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut index = Index::default();
        let mut damaged = 0;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let path = entry.path();
            // A folder, pipe or link was put there by somebody; it is neither read nor removed.
            if !entry.file_type()?.is_file() {
                continue;
            }
            if path.extension().is_some_and(|ending| ending == TEMPORARY) {
                remove_file(&path);
                continue;
            }
            let Some((number, hash)) = parse_name(&path) else {
                continue;
            };
            match checked_length(&path, &hash) {
                Ok(length) => {
                    if let Some(twin) = index.insert(number, hash, length) {
                        remove_file(&file_path(folder, twin, &hash));
                    }
                }
                Err(error) => {
                    tracing::debug!(file = %path.display(), %error, "removing a damaged block file");
                    damaged += 1;
                    remove_file(&path);
                }
            }
        }
        if damaged > 0 {
            tracing::warn!(
                folder = %folder.display(),
                files = damaged,
                "damaged block files were removed; what is needed of them is asked for again"
            );
        }
        let store = Self {
            folder: folder.to_owned(),
            max_bytes,
            max_blocks,
            index: Mutex::new(index),
            written: Condvar::new(),
        };
        store.evict();
        Ok(store)
    }

    /// Keeps a serialized block. When this returns [`Put::Stored`], a crash no longer loses it.
    ///
    /// # Errors
    ///
    /// What the system answers; the store is unchanged then.
    pub fn put(&self, hash: &Hash, block: &[u8]) -> io::Result<Put> {
        let length = block.len() as u64;
        if length > self.max_bytes {
            return Ok(Put::TooLarge);
        }
        // Whoever brings it at the same time waits, and finds it.
        let _writing = self.begin(hash);
        // What is damaged, or can't be read, is written again.
        if self.contains(hash) && matches!(self.get(hash), Ok(Some(_))) {
            return Ok(Put::Known);
        }
        let number = {
            let mut index = self.index();
            index.next += 1;
            index.next
        };
        write_atomically(
            &file_path(&self.folder, number, hash),
            block,
            Readers::Usual,
        )?;
        let twin = self.index().insert(number, *hash, length);
        if let Some(twin) = twin {
            remove_file(&file_path(&self.folder, twin, hash));
        }
        self.evict();
        Ok(Put::Stored)
    }

    /// Takes a block's place among those that are being written, once nobody else has it.
    fn begin(&self, hash: &Hash) -> Writing<'_> {
        let mut index = self.index();
        while !index.writing.insert(*hash) {
            index = self
                .written
                .wait(index)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Writing(self, *hash)
    }

    /// The serialized block, if it is kept. One whose file was damaged is no longer kept, with a warning.
    ///
    /// # Errors
    ///
    /// What the system answers.
    pub fn get(&self, hash: &Hash) -> io::Result<Option<Vec<u8>>> {
        let found = self.index().by_hash.get(hash).copied();
        let Some(number) = found else {
            return Ok(None);
        };
        let path = file_path(&self.folder, number, hash);
        match read(&path) {
            Ok(bytes) if is_block(&bytes, hash) => return Ok(Some(bytes)),
            Ok(_) => {}
            // It gave way between the look at the index and the read, or somebody removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if self.index().remove(number, hash) {
            tracing::warn!(file = %path.display(), "a block file is damaged or gone, and no longer kept");
            remove_file(&path);
        }
        Ok(None)
    }

    /// Keeps a block no longer. Whether it was kept.
    pub fn remove(&self, hash: &Hash) -> bool {
        let mut index = self.index();
        let Some(number) = index.by_hash.get(hash).copied() else {
            return false;
        };
        let removed = index.remove(number, hash);
        drop(index);
        remove_file(&file_path(&self.folder, number, hash));
        removed
    }

    /// Whether the block is kept.
    pub fn contains(&self, hash: &Hash) -> bool {
        self.index().by_hash.contains_key(hash)
    }

    /// The headers of the blocks kept, the oldest first. What can't be read is left out.
    pub fn headers(&self) -> Vec<[u8; HEADER]> {
        let kept: Vec<(u64, Hash)> = self
            .index()
            .by_age
            .iter()
            .map(|(number, (hash, _))| (*number, *hash))
            .collect();
        let read = |(number, hash)| {
            let mut header = [0; HEADER];
            File::open(file_path(&self.folder, number, &hash))?.read_exact(&mut header)?;
            Ok::<_, io::Error>(header)
        };
        kept.into_iter().filter_map(|it| read(it).ok()).collect()
    }

    /// How many blocks are kept.
    pub fn len(&self) -> usize {
        self.index().by_age.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the blocks kept.
    pub fn bytes(&self) -> u64 {
        self.index().bytes
    }

    /// Lets the oldest go until the bounds hold.
    fn evict(&self) {
        loop {
            let oldest = {
                let mut index = self.index();
                if index.bytes <= self.max_bytes && index.by_age.len() <= self.max_blocks {
                    return;
                }
                index.remove_oldest()
            };
            let Some((number, hash)) = oldest else { return };
            remove_file(&file_path(&self.folder, number, &hash));
        }
    }

    /// The index is whole after every statement, so a panic elsewhere does not spoil it.
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    /// Adds a block; if it is here under two numbers now, gives the older one, whose file goes.
    fn insert(&mut self, number: u64, hash: Hash, length: u64) -> Option<u64> {
        self.next = self.next.max(number);
        let twin = self.by_hash.get(&hash).copied();
        if twin.is_some_and(|twin| twin > number) {
            return Some(number);
        }
        if let Some((_, old_length)) = twin.and_then(|twin| self.by_age.remove(&twin)) {
            self.bytes -= old_length;
        }
        self.by_hash.insert(hash, number);
        self.by_age.insert(number, (hash, length));
        self.bytes += length;
        twin
    }

    /// Forgets a block, unless it has another number by now. Whether it was there.
    fn remove(&mut self, number: u64, hash: &Hash) -> bool {
        if self.by_hash.get(hash) != Some(&number) {
            return false;
        }
        self.by_hash.remove(hash);
        let removed = self.by_age.remove(&number);
        self.bytes -= removed.map_or(0, |(_, length)| length);
        true
    }

    fn remove_oldest(&mut self) -> Option<(u64, Hash)> {
        let (number, (hash, length)) = self.by_age.pop_first()?;
        self.by_hash.remove(&hash);
        self.bytes -= length;
        Some((number, hash))
    }
}

fn file_path(folder: &Path, number: u64, hash: &Hash) -> PathBuf {
    let hash = BlockHash::from_byte_array(*hash);
    folder.join(format!("{number:012}-{hash}{ENDING}"))
}

/// Number and hash of a file that could be a block's.
fn parse_name(path: &Path) -> Option<(u64, Hash)> {
    let name = path.file_name()?.to_str()?.strip_suffix(ENDING)?;
    let (number, hash) = name.split_once('-')?;
    let hash: BlockHash = hash.parse().ok()?;
    // The name must be the one that would be written, or the file could not be found again.
    let number: u64 = number.parse().ok().filter(|number| *number <= MAX_NUMBER)?;
    let hash = hash.to_byte_array();
    (file_path(path.parent()?, number, &hash) == path).then_some((number, hash))
}

/// Removes a file that the index does not know. If that fails, the next start finds it again.
fn remove_file(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(file = %path.display(), %error, "can't remove a block file");
        }
        _ => {}
    }
}

/// The length of the file, if its first bytes are the header that its name says, and it can hold as many
/// transactions as it counts. To see more one would have to read it all.
fn checked_length(path: &Path, hash: &Hash) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut header = [0; HEADER];
    file.read_exact(&mut header)?;
    let length = file.metadata()?.len();
    let counted = VarInt::consensus_decode(&mut BufReader::new(file)).map_or(u64::MAX, |it| it.0);
    let least = counted.saturating_mul(LEAST_TRANSACTION);
    if length > MAX_FILE_BYTES
        || length - HEADER as u64 <= least
        || sha256d::Hash::hash(&header).to_byte_array() != *hash
    {
        let what = "the file is not the block that its name says";
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(length)
}

/// The file, or so much of it that it is no block.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether these bytes are the block of that hash, every one of them: some milliseconds for a large block.
fn is_block(bytes: &[u8], hash: &Hash) -> bool {
    bitcoin::consensus::deserialize::<Block>(bytes).is_ok_and(|block| {
        block.block_hash().to_byte_array() == *hash
            && block.check_merkle_root()
            && block.check_witness_commitment()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block of 200 to 65,000 bytes whose header shows no work, and its hash.
    fn block(seed: u8, length: usize) -> (Hash, Vec<u8>) {
        let mut block = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
        block.header.nonce = seed.into();
        let coinbase = &mut block.txdata[0];
        coinbase.output.clear();
        coinbase.input[0].script_sig = bitcoin::ScriptBuf::new();
        let padding = length - block.total_size();
        // The length of a script of this size takes one or three bytes; the first was counted.
        let padding = padding - if padding > 252 { 2 } else { 0 };
        block.txdata[0].input[0].script_sig = vec![seed; padding].into();
        block.header.merkle_root = block.compute_merkle_root().unwrap();
        let bytes = bitcoin::consensus::serialize(&block);
        assert_eq!(bytes.len(), length);
        (block.block_hash().to_byte_array(), bytes)
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_put_is_got_also_after_a_restart() {
        let root = tempfile::tempdir().unwrap();
        let (hash, bytes) = block(1, 500);
        let store = BlockStore::open(root.path(), 10_000).unwrap();
        assert_eq!(store.put(&hash, &bytes).unwrap(), Put::Stored);
        assert_eq!(store.put(&hash, &bytes).unwrap(), Put::Known);
        assert_eq!(store.get(&hash).unwrap(), Some(bytes.clone()));
        assert_eq!(store.get(&[7; 32]).unwrap(), None);
        drop(store);
        let store = BlockStore::open(root.path(), 10_000).unwrap();
        let bytes_of_header: [u8; HEADER] = bytes[..HEADER].try_into().unwrap();
        assert_eq!(store.get(&hash).unwrap(), Some(bytes));
        assert_eq!((store.len(), store.bytes()), (1, 500));
        assert_eq!(store.headers(), [bytes_of_header]);
    }

    #[test]
    fn a_block_brought_by_two_at_once_is_written_once() {
        let root = tempfile::tempdir().unwrap();
        let store = BlockStore::open(root.path(), 1 << 20).unwrap();
        let (hash, bytes) = block(1, 60_000);
        let barrier = std::sync::Barrier::new(4);
        let put = || {
            barrier.wait();
            store.put(&hash, &bytes).unwrap()
        };
        let puts = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(put));
            threads.map(|thread| thread.join().unwrap())
        });
        let stored = puts.iter().filter(|put| **put == Put::Stored);
        assert_eq!(stored.count(), 1);
        assert_eq!(store.index().next, 1);
        assert!(store.index().writing.is_empty());
        assert_eq!(store.len(), names(root.path()).len());
    }

    #[test]
    fn the_oldest_give_way_by_bytes_and_by_count() {
        let root = tempfile::tempdir().unwrap();
        let store = BlockStore::open_bounded(root.path(), 1_000, 3).unwrap();
        let blocks: Vec<_> = (0..5).map(|seed| block(seed, 200)).collect();
        for (hash, bytes) in &blocks {
            store.put(hash, bytes).unwrap();
        }
        assert_eq!((store.len(), store.bytes()), (3, 600));
        assert!(!store.contains(&blocks[1].0) && store.contains(&blocks[2].0));
        let (large, bytes) = block(9, 900);
        store.put(&large, &bytes).unwrap();
        assert_eq!((store.len(), store.bytes()), (1, 900));
        assert_eq!(names(root.path()).len(), 1);
        let (huge, bytes) = block(8, 1_001);
        assert_eq!(store.put(&huge, &bytes).unwrap(), Put::TooLarge);
        assert!(store.contains(&large));
    }

    #[test]
    fn age_survives_a_restart_and_a_smaller_bound_holds_at_once() {
        let root = tempfile::tempdir().unwrap();
        let blocks: Vec<_> = (0..4).map(|seed| block(seed, 200)).collect();
        for (hash, bytes) in &blocks {
            // A store of its own for each, so that numbers must come from the files.
            let store = BlockStore::open(root.path(), 1_000).unwrap();
            store.put(hash, bytes).unwrap();
        }
        let store = BlockStore::open(root.path(), 500).unwrap();
        assert_eq!(store.len(), 2);
        assert!(store.contains(&blocks[2].0) && store.contains(&blocks[3].0));
    }

    #[test]
    fn what_a_crash_leaves_is_removed_and_strangers_stay() {
        let root = tempfile::tempdir().unwrap();
        let (hash, bytes) = block(1, 300);
        let store = BlockStore::open(root.path(), 10_000).unwrap();
        store.put(&hash, &bytes).unwrap();
        let (other, _) = block(2, 300);
        let half = file_path(root.path(), 2, &other);
        fs::write(half.with_extension("block.tmp"), &bytes[..100]).unwrap();
        fs::write(file_path(root.path(), 3, &other), &bytes).unwrap();
        fs::write(file_path(root.path(), 4, &other), b"short").unwrap();
        fs::write(root.path().join("notes.txt"), b"mine").unwrap();
        fs::write(root.path().join("5-zz.block"), b"mine too").unwrap();
        // What is no file stays, whatever its name; so does a number that no arrival has.
        let strange = [7, u64::MAX].map(|number| file_path(root.path(), number, &other));
        fs::create_dir(&strange[0]).unwrap();
        fs::write(&strange[1], &bytes).unwrap();
        // Two files of one block: the newer stays.
        fs::write(file_path(root.path(), 9, &hash), &bytes).unwrap();
        let store = BlockStore::open(root.path(), 10_000).unwrap();
        assert_eq!((store.len(), store.bytes()), (1, 300));
        let left = names(root.path());
        assert_eq!(left.len(), 3 + strange.len(), "{left:?}");
        assert!(left[1].starts_with("000000000009-"));
        assert_eq!(store.get(&hash).unwrap(), Some(bytes));
    }

    #[test]
    fn a_file_that_changed_is_not_served_and_can_be_put_again() {
        let root = tempfile::tempdir().unwrap();
        let (hash, bytes) = block(1, 300);
        let mut altered = bytes.clone();
        altered[250] ^= 1;
        let longer = [&bytes[..], b"x"].concat();
        for damaged in [&bytes[..200], &altered, &longer, &vec![0; 4_000_001]] {
            let store = BlockStore::open(root.path(), 10_000).unwrap();
            store.put(&hash, &bytes).unwrap();
            let path = root.path().join(&names(root.path())[0]);
            fs::write(&path, damaged).unwrap();
            assert_eq!(store.get(&hash).unwrap(), None);
            assert!(store.is_empty() && store.bytes() == 0 && names(root.path()).is_empty());
            // Also when it was damaged while nobody looked.
            assert_eq!(store.put(&hash, &bytes).unwrap(), Put::Stored);
            let path = root.path().join(&names(root.path())[0]);
            fs::write(&path, damaged).unwrap();
            let store = BlockStore::open(root.path(), 10_000).unwrap();
            assert_eq!(store.put(&hash, &bytes).unwrap(), Put::Stored);
            assert_eq!(store.get(&hash).unwrap().as_ref(), Some(&bytes));
            assert_eq!((store.len(), store.bytes()), (1, 300));
            fs::remove_file(root.path().join(&names(root.path())[0])).unwrap();
            assert_eq!(store.get(&hash).unwrap(), None);
        }
    }

    #[test]
    fn one_block_put_by_many_at_once_is_kept_once() {
        let root = tempfile::tempdir().unwrap();
        let (hash, bytes) = block(1, 5_000);
        let store = BlockStore::open(root.path(), 10_000).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| store.put(&hash, &bytes).unwrap());
            }
        });
        assert_eq!((store.len(), store.bytes()), (1, 5_000));
        assert_eq!(names(root.path()).len(), 1);
        assert_eq!(store.get(&hash).unwrap(), Some(bytes));
    }
}
