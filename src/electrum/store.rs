//! The index on disk: one ordered store (`fjall`), in which each block is one atomic step.
//!
//! - here: opening, adding a block, taking the last one away, and the view that a question works on
//! - [`load`]: the first build, from all of bitcoind's files at once
//! - [`locate`]: where blocks and what they spent are in these files
//! - [`lookup`]: transactions and histories read back
//! - [`answer`]: what sessions are told
//! - [`follow`]: keeps the index at the node's tip
//! - [`settle`]: brings steps of the chain and news of the mempool together
//!
//! A process that ends at any moment leaves either all rows of a block or none. The blocks of the last [`UNDO_BLOCKS`] can be taken
//! away again by what is kept beside them; the first build ends so far below the tip.

pub mod answer;
pub mod follow;
pub mod load;
pub mod locate;
pub mod lookup;
pub mod settle;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use fjall::config::{BlockSizePolicy, FilterPolicy};
use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable as _,
    Snapshot,
};

use super::chain::Chain;
use super::index::{IndexError, Rows};
use super::rows::{BlockRow, ROW_BYTES};
use crate::chain::Network;
use crate::chain::bitcoind::blockfiles::Place;
use crate::merkle::Hash;

/// How far the index can be taken back. Reason: ElectrumX keeps as much (`REORG_LIMIT`), and no reorganisation of a network with
/// money on it came near; a hundred kilobytes a block are 20 MB.
pub const UNDO_BLOCKS: u32 = 200;

/// The layout of the rows; it rises with each change of it.
const FORMAT: &str = "blocktorrent electrum index 1";

/// The name under which the layout stands, with the network.
const FORMAT_KEY: &str = "format";

/// The name under which stands that the first build is done.
const BUILT_KEY: &str = "built";

/// Bytes of the journal at most. Reason: what is in it is read again at each start.
const MAX_JOURNAL_BYTES: u64 = 64 << 20;

/// Bytes of a block of keys: a history of a hundred transactions is in one.
const DATA_BLOCK_BYTES: u32 = 8 << 10;

/// Something is wrong with the index.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store says so.
    #[error(
        "the index cannot be used: {0}; if this stays so, remove {1} and let it be built again"
    )]
    Store(fjall::Error, PathBuf),
    /// Another process has it open.
    #[error("the index in {0} is in use by another process")]
    InUse(PathBuf),
    /// It was made by another program, or for another network.
    #[error(
        "{path} holds {found:?}, not {expected:?}: name another folder, or remove this one and let the index be built again"
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// What it holds.
        found: String,
        /// What was looked for.
        expected: String,
    },
    /// A row is not what the layout says, or lacks.
    #[error("the index is damaged: {what}; remove {path} and let it be built again")]
    Damaged {
        /// Which row.
        what: String,
        /// The folder.
        path: PathBuf,
    },
    /// A block that does not follow the last one.
    #[error("block {0} does not follow the last one of the index")]
    OutOfOrder(u32),
    /// A block's bytes are none.
    #[error("block {height}: {error}")]
    Block {
        /// Its height.
        height: u32,
        /// What is wrong.
        error: IndexError,
    },
    /// The chain was reorganised further back than the index can go.
    #[error(
        "the chain changed below block {height}, further back than the {UNDO_BLOCKS} blocks that the index can undo; remove {path} and let it be built again"
    )]
    TooDeep {
        /// The last block that could not be taken away.
        height: u32,
        /// The folder.
        path: PathBuf,
    },
}

/// A block to be added.
#[derive(Clone, Copy, Debug)]
pub struct NewBlock<'a> {
    /// As serialized.
    pub bytes: &'a [u8],
    /// Its undo data; only the genesis block has none.
    pub undo: Option<&'a [u8]>,
    /// Where it is in the node's files, if that is known.
    pub place: Option<Place>,
}

/// The chain and all rows as they were at one moment.
pub struct View {
    snapshot: Snapshot,
    /// The chain.
    pub chain: Chain,
}

impl std::fmt::Debug for View {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("View")
            .field("tip", &self.chain.tip())
            .finish()
    }
}

/// The index, to be read by any number of threads.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    database: Database,
    meta: Keyspace,
    blocks: Keyspace,
    sizes: Keyspace,
    history: Keyspace,
    txids: Keyspace,
    undo: Keyspace,
    view: RwLock<Arc<View>>,
}

impl Inner {
    /// Whether there is any but the name.
    fn has_rows(&self) -> fjall::Result<bool> {
        let all = [
            &self.blocks,
            &self.sizes,
            &self.history,
            &self.txids,
            &self.undo,
        ];
        for keyspace in all {
            if !keyspace.is_empty()? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_tuple("Store")
            .field(&self.0.folder)
            .finish()
    }
}

/// The one who writes the index.
#[derive(Debug)]
pub struct Writer(Store);

impl Store {
    /// Opens the index of a network in a folder, or makes it; `cache_bytes` of memory are for what is read.
    ///
    /// # Errors
    ///
    /// If it is in use, foreign, damaged, or the disk fails.
    pub fn open(folder: &Path, network: Network, cache_bytes: u64) -> Result<Writer, StoreError> {
        let mut store = Self::open_as_is(folder, cache_bytes)?;
        store.check_format(network)?;
        let is_built = store.wrap(store.0.meta.contains_key(BUILT_KEY))?;
        if !is_built && store.wrap(store.0.has_rows())? {
            // A first build was being filled in. To clear it would be in the journal, and be done again to what is built next.
            drop(store);
            std::fs::remove_dir_all(folder)
                .map_err(|error| StoreError::Store(error.into(), folder.to_owned()))?;
            store = Self::open_as_is(folder, cache_bytes)?;
            store.check_format(network)?;
        }
        let mut writer = Writer(store);
        writer.recover()?;
        Ok(writer)
    }

    fn open_as_is(folder: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let failed = |error| match error {
            fjall::Error::Locked => StoreError::InUse(folder.to_owned()),
            error => StoreError::Store(error, folder.to_owned()),
        };
        let database = Database::builder(folder)
            .cache_size(cache_bytes)
            .max_journaling_size(MAX_JOURNAL_BYTES)
            .open()
            .map_err(failed)?;
        let points = || KeyspaceCreateOptions::default();
        // Keys without values, sought by their beginnings: a filter for whole keys would help nobody.
        let rows = || {
            KeyspaceCreateOptions::default()
                .data_block_size_policy(BlockSizePolicy::all(DATA_BLOCK_BYTES))
                .filter_policy(FilterPolicy::disabled())
        };
        let open = |name, options: fn() -> KeyspaceCreateOptions| {
            database.keyspace(name, options).map_err(failed)
        };
        let inner = Inner {
            folder: folder.to_owned(),
            meta: open("meta", points)?,
            blocks: open("blocks", points)?,
            sizes: open("sizes", points)?,
            history: open("history", rows)?,
            txids: open("txids", rows)?,
            undo: open("undo", points)?,
            view: RwLock::new(Arc::new(View {
                snapshot: database.snapshot(),
                chain: Chain::default(),
            })),
            database,
        };
        Ok(Self(Arc::new(inner)))
    }

    fn check_format(&self, network: Network) -> Result<(), StoreError> {
        let expected = format!("{FORMAT}, {}", network.name());
        match self.wrap(self.0.meta.get(FORMAT_KEY))? {
            Some(found) if *found == *expected.as_bytes() => Ok(()),
            Some(found) => Err(StoreError::Foreign {
                path: self.0.folder.clone(),
                found: String::from_utf8_lossy(&found).into_owned(),
                expected,
            }),
            None => self.wrap(self.0.meta.insert(FORMAT_KEY, expected.as_bytes())),
        }
    }

    /// What is there now.
    pub fn view(&self) -> Arc<View> {
        let view = self.0.view.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&view)
    }

    /// Bytes on the disk.
    pub fn disk_bytes(&self) -> u64 {
        self.0.database.disk_space().unwrap_or(0)
    }

    /// What a block's row says.
    ///
    /// # Errors
    ///
    /// If the store fails or the row is none.
    pub fn block(&self, view: &View, height: u32) -> Result<Option<BlockRow>, StoreError> {
        if height >= view.chain.len() {
            return Ok(None);
        }
        let value = self.wrap(view.snapshot.get(&self.0.blocks, height.to_be_bytes()))?;
        let row = value.and_then(|value| BlockRow::decode(&value));
        row.map(Some)
            .ok_or_else(|| self.damaged(format!("the row of block {height}")))
    }

    fn wrap<T>(&self, result: Result<T, fjall::Error>) -> Result<T, StoreError> {
        result.map_err(|error| StoreError::Store(error, self.0.folder.clone()))
    }

    fn damaged(&self, what: String) -> StoreError {
        StoreError::Damaged {
            what,
            path: self.0.folder.clone(),
        }
    }
}

impl Writer {
    /// The index, for readers.
    pub fn store(&self) -> &Store {
        &self.0
    }

    /// Reads the chain back.
    fn recover(&mut self) -> Result<(), StoreError> {
        let Inner { meta, blocks, .. } = &*self.0.0;
        let is_built = self.0.wrap(meta.contains_key(BUILT_KEY))?;
        let mut chain = Chain::default();
        if is_built {
            for guard in blocks.iter() {
                let (key, value) = self.0.wrap(guard.into_inner())?;
                let row = BlockRow::decode(&value);
                let follows = chain.tip().map_or([0; 32], |(_, hash)| hash);
                let is_next = *key == chain.len().to_be_bytes();
                match row {
                    Some(row) if is_next && row.parent() == follows => {
                        chain.push(row.hash(), row.end);
                    }
                    _ => return Err(self.0.damaged(format!("the row of block {}", chain.len()))),
                }
            }
        }
        self.publish(chain);
        Ok(())
    }

    fn publish(&mut self, chain: Chain) {
        let inner = &*self.0.0;
        let snapshot = inner.database.snapshot();
        let view = Arc::new(View { snapshot, chain });
        *inner.view.write().unwrap_or_else(PoisonError::into_inner) = view;
    }

    /// Adds the next block. A process that ends keeps it from here on; [`Writer::persist`] keeps it through a loss of power, too.
    ///
    /// # Errors
    ///
    /// If it does not follow the last one, is malformed, or the disk fails; nothing is added then.
    pub fn add(&mut self, block: &NewBlock<'_>) -> Result<(), StoreError> {
        let inner = &*self.0.0;
        let mut chain = self.0.view().chain.clone();
        let height = chain.len();
        let first = chain.transactions();
        let mut rows = Rows::default();
        let count = rows
            .add(height, first, block.bytes, block.undo)
            .map_err(|error| StoreError::Block { height, error })?;
        rows.sort();
        let no_block = StoreError::Block {
            height,
            error: IndexError::NoBlock,
        };
        let header = *block.bytes.first_chunk().ok_or(no_block)?;
        let row = BlockRow {
            header,
            end: first + count,
            size: block.bytes.len() as u32,
            place: block.place,
        };
        if row.parent() != chain.tip().map_or([0; 32], |(_, hash)| hash) {
            return Err(StoreError::OutOfOrder(height));
        }
        let mut batch = self.batch();
        let undo = [rows.history.as_flattened(), rows.txids.as_flattened()].concat();
        batch.insert(&inner.undo, height.to_be_bytes(), undo);
        for key in &rows.history {
            batch.insert(&inner.history, *key, []);
        }
        for key in &rows.txids {
            batch.insert(&inner.txids, *key, []);
        }
        for (key, value) in rows.sizes {
            batch.insert(&inner.sizes, key, value);
        }
        batch.insert(&inner.blocks, height.to_be_bytes(), &*row.encode());
        if height == 0 {
            batch.insert(&inner.meta, BUILT_KEY, []);
        }
        if let Some(old) = height.checked_sub(UNDO_BLOCKS) {
            batch.remove(&inner.undo, old.to_be_bytes());
        }
        self.0.wrap(batch.commit())?;
        chain.push(row.hash(), row.end);
        self.publish(chain);
        Ok(())
    }

    /// Takes the last block away, as durably as [`Writer::add`].
    ///
    /// # Errors
    ///
    /// If it is too far below what was once the tip, or the disk fails.
    pub fn remove(&mut self) -> Result<Hash, StoreError> {
        let inner = &*self.0.0;
        let view = self.0.view();
        let mut chain = view.chain.clone();
        let Some((height, hash)) = chain.tip() else {
            return Err(StoreError::OutOfOrder(0));
        };
        let key = height.to_be_bytes();
        let undo = self.0.wrap(view.snapshot.get(&inner.undo, key))?;
        let path = inner.folder.clone();
        let undo = undo.ok_or(StoreError::TooDeep { height, path })?;
        let (rows, rest) = undo.as_chunks::<ROW_BYTES>();
        let transactions = chain.transactions_of(height).unwrap_or_default();
        let history = rows.len().checked_sub(transactions.len());
        let (Some(history), []) = (history, rest) else {
            return Err(self.0.damaged(format!("the undo row of block {height}")));
        };
        let (history, txids) = rows.split_at(history);
        let mut batch = self.batch();
        for row in history {
            batch.remove(&inner.history, *row);
        }
        for row in txids {
            batch.remove(&inner.txids, *row);
        }
        for guard in view.snapshot.prefix(&inner.sizes, key) {
            batch.remove(&inner.sizes, self.0.wrap(guard.key())?);
        }
        batch.remove(&inner.blocks, key);
        batch.remove(&inner.undo, key);
        self.0.wrap(batch.commit())?;
        chain.pop();
        drop(view);
        self.publish(chain);
        Ok(hash)
    }

    /// Waits until all is on the disk. A loss of power before takes the latest blocks away, whole and in order, and
    /// the node has them still; so nobody who waits for news of a block has to wait for the disk.
    ///
    /// # Errors
    ///
    /// If the disk fails.
    pub fn persist(&self) -> Result<(), StoreError> {
        let database = &self.0.0.database;
        self.0.wrap(database.persist(PersistMode::SyncData))
    }

    fn batch(&self) -> OwnedWriteBatch {
        self.0
            .0
            .database
            .batch()
            .durability(Some(PersistMode::Buffer))
    }
}

#[cfg(test)]
mod tests;
