//! Keeps the index at the node's tip: what lost is taken away, what won is added, a block at a time.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::load::{Load, LoadError, LoadProgress};
use super::locate::Locator;
use super::lookup::{Lookup, LookupError};
use super::{NewBlock, Store, StoreError, UNDO_BLOCKS, Writer};
use crate::chain::bitcoind::blockfiles::survey::Found;
use crate::chain::bitcoind::blockfiles::{BlockFiles, FilesError};
use crate::electrum::index::{IndexError, Touched};
use crate::merkle::Hash;

/// The index can't follow the node.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The index.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node's files.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The first build.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A transaction that the index knows.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// A block on the way to the tip is not in the files, or what it spent: the node may be writing it.
    #[error("a block on the way to the node's tip is not in {0} yet, or what it spent is not")]
    NotThere(PathBuf),
    /// A block's bytes are none.
    #[error("block {height}: {error}")]
    Block {
        /// Its height.
        height: u32,
        /// What is wrong.
        error: IndexError,
    },
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
}

/// One step of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The last block was taken away: it had this height, and this is in it.
    Removed(u32, Touched),
    /// A block was added.
    Added(u32, Touched),
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Files that were looked through for blocks, and all.
    Survey {
        /// Done.
        files: usize,
        /// All.
        of: usize,
    },
    /// The first build.
    Load(LoadProgress),
    /// Blocks behind the first build, or since the index was last at the tip.
    Blocks {
        /// The height that the index is at.
        height: u32,
        /// The node's.
        of: u32,
    },
}

/// Brings the index to where the node is.
#[derive(Debug)]
pub struct Follower {
    writer: Writer,
    locator: Locator,
    lookup: Lookup,
    buckets: PathBuf,
    memory: u64,
    pub(super) stop: Arc<AtomicBool>,
}

impl Follower {
    /// The first build has its buckets in a folder that it makes there and removes, and takes so many bytes of `memory`.
    pub fn new(
        writer: Writer,
        files: Arc<BlockFiles>,
        buckets: PathBuf,
        memory: u64,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let lookup = Lookup::new(writer.store().clone(), Arc::clone(&files), 0);
        Self {
            writer,
            lookup,
            locator: Locator::new(files),
            buckets,
            memory,
            stop,
        }
    }

    /// The index.
    pub fn store(&self) -> &Store {
        self.writer.store()
    }

    /// Brings the index to the block that is the node's best. Each step is told, and whoever is told sees it in the index.
    ///
    /// # Errors
    ///
    /// See [`FollowError`]; all steps until then are done.
    pub fn follow(
        &mut self,
        tip: Hash,
        progress: &(dyn Fn(Progress) + Sync),
        mut each: impl FnMut(Step),
    ) -> Result<(), FollowError> {
        if self.store().is_empty() {
            self.locator
                .survey(|files, of| progress(Progress::Survey { files, of }))?;
            self.build(tip, progress)?;
        }
        let view = self.store().view();
        let known = |hash: &Hash| *hash == [0; 32] || position(&view.chain, hash).is_some();
        let is_deep = |hash: &Hash| position_anywhere(&view.chain, hash).is_some();
        let path = self.locator.path(tip, known, is_deep)?;
        let path = path.ok_or_else(|| self.not_there())?;
        let base = path.first().map_or(tip, Found::parent);
        let keep = position_anywhere(&view.chain, &base).map_or(0, |height| height + 1);
        drop(view);
        while self.store().view().chain.len() > keep {
            self.check_stop()?;
            each(self.remove()?);
        }
        let of = (keep + path.len() as u32).saturating_sub(1);
        for found in &path {
            self.check_stop()?;
            let step = self.add(found)?;
            if let Step::Added(height, _) = step {
                progress(Progress::Blocks { height, of });
            }
            each(step);
        }
        let view = self.writer.store().view();
        self.locator.forget(&view.chain);
        Ok(())
    }

    /// Waits until all steps are on the disk, once whoever waits for them has been told.
    ///
    /// # Errors
    ///
    /// If the disk fails.
    pub fn persist(&self) -> Result<(), FollowError> {
        Ok(self.writer.persist()?)
    }

    /// The first build, as far below the tip as can be undone.
    fn build(
        &mut self,
        tip: Hash,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<(), FollowError> {
        let path = self.locator.path(tip, |hash| *hash == [0; 32], |_| false)?;
        let mut path = path.ok_or_else(|| self.not_there())?;
        path.truncate(path.len().saturating_sub(UNDO_BLOCKS as usize));
        // What a block with a rival spent can be told only by what is in the index before it.
        let rival = path.iter().position(|found| self.locator.has_rival(found));
        path.truncate(rival.unwrap_or(path.len()));
        if path.is_empty() {
            return Ok(());
        }
        let load = Load {
            files: self.locator.files(),
            blocks: &path,
            folder: &self.buckets,
            memory: self.memory,
            stop: &self.stop,
            progress: &|loaded| progress(Progress::Load(loaded)),
        };
        Ok(self.writer.load(&load)?)
    }

    fn add(&mut self, found: &Found) -> Result<Step, FollowError> {
        let height = self.store().view().chain.len();
        let bytes = self.locator.block(found)?;
        let undo = if height == 0 {
            None
        } else {
            let undo = self.undo(found, &bytes)?;
            Some(undo.ok_or_else(|| self.not_there())?)
        };
        let touched = Touched::of(&bytes, undo.as_deref())
            .map_err(|error| FollowError::Block { height, error })?;
        self.writer.add(&NewBlock {
            bytes: &bytes,
            undo: undo.as_deref(),
            place: Some(found.place),
        })?;
        Ok(Step::Added(height, touched))
    }

    fn remove(&mut self) -> Result<Step, FollowError> {
        let Some((height, hash)) = self.store().view().chain.tip() else {
            return Err(StoreError::OutOfOrder(0).into());
        };
        // All that has to be told first: what is taken away untold would be missing for good.
        let found = self.locator.locate(&hash)?;
        let found = found.ok_or_else(|| self.not_there())?;
        let bytes = self.locator.block(&found)?;
        let undo = self.undo(&found, &bytes)?;
        let touched = Touched::of(&bytes, undo.as_deref())
            .map_err(|error| FollowError::Block { height, error })?;
        self.writer.remove()?;
        Ok(Step::Removed(height, touched))
    }

    /// What a block spent that follows the last one of the index.
    fn undo(&mut self, found: &Found, block: &[u8]) -> Result<Option<Vec<u8>>, FollowError> {
        let Self {
            lookup, locator, ..
        } = self;
        let mut failed = None;
        let undo = locator.undo(found, &mut |undo| {
            lookup.is_undo_of(block, undo).unwrap_or_else(|error| {
                failed = Some(error);
                false
            })
        })?;
        failed.map_or(Ok(undo), |error| Err(error.into()))
    }

    fn not_there(&self) -> FollowError {
        FollowError::NotThere(self.locator.files().folder().to_owned())
    }

    fn check_stop(&self) -> Result<(), FollowError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(FollowError::Stopped);
        }
        Ok(())
    }
}

/// Where a block is in the chain, if it is among those that can be taken away, or is the genesis block.
fn position(chain: &crate::electrum::chain::Chain, hash: &Hash) -> Option<u32> {
    let (tip, _) = chain.tip()?;
    let least = tip.saturating_sub(UNDO_BLOCKS);
    let mut heights = (least..=tip).rev().chain([0]);
    heights.find(|height| chain.hash_at(*height) == Some(*hash))
}

/// Where a block is in the chain at all: all of it is looked through, so this is for what is found nowhere else.
fn position_anywhere(chain: &crate::electrum::chain::Chain, hash: &Hash) -> Option<u32> {
    position(chain, hash).or_else(|| {
        (0..chain.len())
            .rev()
            .find(|height| chain.hash_at(*height) == Some(*hash))
    })
}
