//! Where blocks are in the node's files, by their hashes.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use super::UNDO_BLOCKS;
use crate::chain::bitcoind::blockfiles::survey::{Cursor, Found};
use crate::chain::bitcoind::blockfiles::undos::Undos;
use crate::chain::bitcoind::blockfiles::{BlockFiles, FilesError, Kind};
use crate::electrum::chain::Chain;
use crate::merkle::Hash;

/// Files that are looked through at first when the index is there already. Reason: what it lacks was written last; bitcoind
/// writes up to two files at a time, and a reorganisation may bring back what lay some hundred blocks before.
const RECENT_FILES: usize = 4;

/// Blocks that are remembered without a thought: some files of them.
const LEAST_KEPT: usize = 2_000;

/// Block hashes have work in them: their own bytes spread them well enough, and nobody can choose them.
#[derive(Clone, Copy, Debug, Default)]
struct ByWork(u64);

impl BuildHasher for ByWork {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl Hasher for ByWork {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk().filter(|_| bytes.len() == 32) {
            self.0 = u64::from_le_bytes(*first);
        }
    }
}

/// What the undo data of two blocks have in common that may be taken for each other's.
fn likeness(found: &Found) -> (Hash, u32) {
    (found.parent(), found.transactions)
}

/// Finds blocks and what they spent.
#[derive(Debug)]
pub struct Locator {
    files: Arc<BlockFiles>,
    found: HashMap<Hash, Found, ByWork>,
    /// How many of them follow the same block and have as many transactions.
    alike: HashMap<(Hash, u32), u32, ByWork>,
    cursors: BTreeMap<u32, Cursor>,
    undos: Undos,
    /// How many were left when some were forgotten last.
    kept: usize,
}

impl Locator {
    /// Nothing is looked through yet.
    pub fn new(files: Arc<BlockFiles>) -> Self {
        Self {
            files,
            found: HashMap::default(),
            alike: HashMap::default(),
            cursors: BTreeMap::new(),
            undos: Undos::default(),
            kept: 0,
        }
    }

    /// The files.
    pub fn files(&self) -> &Arc<BlockFiles> {
        &self.files
    }

    /// Where a block is: among what was seen, what was added since, the latest files, or all of them.
    ///
    /// # Errors
    ///
    /// If a file can't be read.
    pub fn locate(&mut self, hash: &Hash) -> Result<Option<Found>, FilesError> {
        if let Some(found) = self.found.get(hash) {
            return Ok(Some(*found));
        }
        // Nearly always it was just written.
        if let Some((&last, _)) = self.cursors.last_key_value() {
            self.look_through(last)?;
            if self.files.path(Kind::Blocks, last + 1).exists() {
                self.look_through(last + 1)?;
            }
            if let Some(found) = self.found.get(hash) {
                return Ok(Some(*found));
            }
        }
        let numbers = self.files.numbers()?;
        let recent = numbers.len().saturating_sub(RECENT_FILES);
        let (older, recent) = numbers.split_at(recent);
        for number in recent.iter().rev() {
            self.look_through(*number)?;
        }
        for number in older.iter().rev() {
            if self.found.contains_key(hash) {
                break;
            }
            // What is full is never written again.
            if !self.cursors.contains_key(number) {
                self.look_through(*number)?;
            }
        }
        Ok(self.found.get(hash).copied())
    }

    /// Looks through all files, and says after each how many of how many are done.
    ///
    /// # Errors
    ///
    /// If a file can't be read.
    pub fn survey(&mut self, mut progress: impl FnMut(usize, usize)) -> Result<(), FilesError> {
        let numbers = self.files.numbers()?;
        for (done, number) in numbers.iter().enumerate() {
            self.look_through(*number)?;
            progress(done + 1, numbers.len());
        }
        Ok(())
    }

    fn look_through(&mut self, file: u32) -> Result<(), FilesError> {
        let cursor = self
            .cursors
            .entry(file)
            .or_insert(Cursor { file, offset: 0 });
        for found in self.files.survey(cursor)? {
            let is_new = self.found.insert(found.hash, found).is_none();
            *self.alike.entry(likeness(&found)).or_default() += u32::from(is_new);
        }
        Ok(())
    }

    /// The blocks from behind a base up to `tip`, in the order of the chain; `None` where one is not in the files. What is not found may
    /// be a base that is deep down.
    ///
    /// # Errors
    ///
    /// If a file can't be read.
    pub fn path(
        &mut self,
        tip: Hash,
        mut is_base: impl FnMut(&Hash) -> bool,
        mut is_deep: impl FnMut(&Hash) -> bool,
    ) -> Result<Option<Vec<Found>>, FilesError> {
        let mut path = Vec::new();
        let mut hash = tip;
        while !is_base(&hash) {
            let Some(found) = self.locate(&hash)? else {
                if is_deep(&hash) {
                    break;
                }
                return Ok(None);
            };
            path.push(found);
            hash = found.parent();
        }
        path.reverse();
        Ok(Some(path))
    }

    /// A block as serialized.
    ///
    /// # Errors
    ///
    /// If it can't be read.
    pub fn block(&self, found: &Found) -> Result<Vec<u8>, FilesError> {
        self.files
            .read(found.place, 0, found.size as usize)
            .map_err(|error| FilesError::Io {
                path: self.files.path(Kind::Blocks, found.place.file),
                error,
            })
    }

    /// Whether another block follows the same one and has as many transactions, so that what they spent may be taken for each other's. That of a block without
    /// transactions but its coinbase is the same as any such block's.
    pub fn has_rival(&self, found: &Found) -> bool {
        let alike = self.alike.get(&likeness(found)).copied();
        found.transactions > 1 && alike.unwrap_or(0) > 1
    }

    /// What a block spent, which `accepted` judges where there is a rival; `None` if the node has not written it yet.
    ///
    /// # Errors
    ///
    /// If it can't be read.
    pub fn undo(
        &mut self,
        found: &Found,
        accepted: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>, FilesError> {
        let has_rival = self.has_rival(found);
        self.undos
            .read(&self.files, found, &mut |undo| !has_rival || accepted(undo))
    }

    /// Forgets where the blocks are that are in the index and can't be taken away again: that stands there.
    pub fn forget(&mut self, chain: &Chain) {
        if self.found.len() <= self.kept.max(LEAST_KEPT) * 2 {
            return;
        }
        for height in 0..chain.len().saturating_sub(UNDO_BLOCKS) {
            if let Some(hash) = chain.hash_at(height) {
                self.found.remove(&hash);
            }
        }
        self.found.shrink_to_fit();
        self.alike.clear();
        for found in self.found.values() {
            *self.alike.entry(likeness(found)).or_default() += 1;
        }
        self.kept = self.found.len();
    }
}
