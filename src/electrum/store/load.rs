//! The first build: from all of bitcoind's files at once, in whatever order they lie.
//!
//! ```text
//!  heads of all blocks ─▶ numbers of all transactions
//!  each file, on all cores ─▶ rows ─▶ buckets by their first bits, on disk
//!  each bucket ─▶ sorted in memory ─▶ written to the store once, in the order of its keys
//! ```
//!
//! Since the heads tell how many transactions each block has, every transaction's number is known before any is read, and no file waits for
//! another. What was spent stands in the `rev` files: nothing is looked up. Nothing is merged by the store either, which takes what comes in
//! order as it is. The buckets take the room of the index once more until they are done.
//!
//! A build that was interrupted goes on at the first file that was not finished; one that had begun to fill the store, with that.

mod buckets;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};

use fjall::PersistMode;

use super::{BUILT_KEY, Inner, Store, StoreError, Writer};
use crate::chain::bitcoind::blockfiles::survey::Found;
use crate::chain::bitcoind::blockfiles::{BlockFiles, FilesError, Kind};
use crate::electrum::chain::Chain;
use crate::electrum::index::{IndexError, Rows};
use crate::electrum::rows::{BlockRow, TxNumber};
use buckets::Buckets;

/// Bytes of memory that one thread takes: a file of blocks, what they spent, and the rows of both.
const THREAD_BYTES: u64 = 256 << 20;

/// The first build failed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The index.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node's files.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The buckets.
    #[error("cannot write to {path}: {error}")]
    Buckets {
        /// Their folder.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A block in the files is not what its head says.
    #[error("block {height} in {file}: {error}")]
    Block {
        /// Its height.
        height: u32,
        /// The file.
        file: PathBuf,
        /// What is wrong.
        error: IndexError,
    },
    /// What a block spent is not in the `rev` file.
    #[error("{file} lacks what block {height} spent: is bitcoind still connecting blocks?")]
    NoUndo {
        /// Its height.
        height: u32,
        /// The file.
        file: PathBuf,
    },
    /// There are more transactions than can be numbered.
    #[error("more transactions than this index can number")]
    TooMany,
    /// It was already being filled when it failed.
    #[error("the index was being filled when that failed; start the node again, and it goes on")]
    HalfFilled,
    /// It was told to stop; what is done is kept.
    #[error("stopped")]
    Stopped,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadProgress {
    /// Bytes of block files that have been read, and all.
    Reading {
        /// Done.
        bytes: u64,
        /// All.
        of: u64,
    },
    /// Buckets that are in the store, and all.
    Writing {
        /// Done.
        buckets: usize,
        /// All.
        of: usize,
    },
}

/// What a build is given.
pub struct Load<'a> {
    /// The node's files.
    pub files: &'a BlockFiles,
    /// The blocks from the genesis block on.
    pub blocks: &'a [Found],
    /// Where the buckets are; nothing else is there.
    pub folder: &'a Path,
    /// Bytes of memory.
    pub memory: u64,
    /// Ends it.
    pub stop: &'a AtomicBool,
    /// Is told how far it is.
    pub progress: &'a (dyn Fn(LoadProgress) + Sync),
}

impl std::fmt::Debug for Load<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Load")
            .field("blocks", &self.blocks.len())
            .finish()
    }
}

/// A block and where it stands in the chain.
#[derive(Clone, Copy, Debug)]
struct Numbered {
    height: u32,
    first: TxNumber,
    found: Found,
}

/// The blocks of one file.
struct Job {
    file: u32,
    blocks: Vec<Numbered>,
    bytes: u64,
}

impl Writer {
    /// Builds the index of `blocks` into a store that has none.
    ///
    /// # Errors
    ///
    /// See [`LoadError`]; called again with at least these blocks, it goes on.
    pub fn load(&mut self, load: &Load<'_>) -> Result<(), LoadError> {
        let (jobs, transactions) = jobs(load.blocks)?;
        let tip = load.blocks.last().map_or([0; 32], |found| found.hash);
        let wrap = |error| LoadError::Buckets {
            path: load.folder.to_owned(),
            error,
        };
        let memory = load.memory.max(2 * THREAD_BYTES);
        let buckets = Buckets::open(load.folder, tip, transactions, memory).map_err(wrap)?;
        let buckets = read_all(load, jobs, buckets)?;
        self.check_empty()?;
        self.fill(load, buckets)?;
        let mut chain = Chain::default();
        self.fill_blocks(load.blocks, &mut chain)?;
        self.publish(chain);
        std::fs::remove_dir_all(load.folder).map_err(wrap)
    }

    /// What an earlier try left is cleared by opening the store anew, and not here: the store's journal would have the clearing done
    /// again after a restart, and with it what was filled in since, which is not in the journal.
    fn check_empty(&self) -> Result<(), LoadError> {
        if self.0.wrap(self.0.0.has_rows())? {
            return Err(LoadError::HalfFilled);
        }
        Ok(())
    }

    /// Sorts bucket after bucket, one ahead of the store.
    fn fill(&self, load: &Load<'_>, buckets: Buckets) -> Result<(), LoadError> {
        let Inner {
            history,
            txids,
            sizes,
            ..
        } = &*self.0.0;
        let store = &self.0;
        let wrap = |error| LoadError::Buckets {
            path: load.folder.to_owned(),
            error,
        };
        let of = buckets.count() * 3;
        let mut done = 0;
        let mut tell = || {
            done += 1;
            (load.progress)(LoadProgress::Writing { buckets: done, of });
            if load.stop.load(Ordering::Relaxed) {
                return Err(LoadError::Stopped);
            }
            Ok(())
        };
        for (keyspace, of) in [(history, buckets::HISTORY), (txids, buckets::TXIDS)] {
            let mut ingestion = store.wrap(keyspace.start_ingestion())?;
            ahead(
                buckets.count(),
                |index| buckets.rows(of, index),
                |rows| {
                    for row in rows.map_err(wrap)? {
                        store.wrap(ingestion.write(row, []))?;
                    }
                    tell()
                },
            )?;
            store.wrap(ingestion.finish())?;
        }
        let mut ingestion = store.wrap(sizes.start_ingestion())?;
        ahead(
            buckets.count(),
            |index| buckets.sizes(index),
            |rows| {
                for (key, value) in rows.map_err(wrap)? {
                    store.wrap(ingestion.write(key, value))?;
                }
                tell()
            },
        )?;
        Ok(store.wrap(ingestion.finish())?)
    }

    /// The blocks themselves come last, and then that it is done.
    fn fill_blocks(&self, blocks: &[Found], chain: &mut Chain) -> Result<(), StoreError> {
        let inner = &*self.0.0;
        let mut ingestion = self.0.wrap(inner.blocks.start_ingestion())?;
        for found in blocks {
            let row = BlockRow {
                header: found.header,
                end: chain.transactions() + found.transactions,
                size: found.size,
                place: Some(found.place),
            };
            let key = chain.len().to_be_bytes();
            self.0.wrap(ingestion.write(key, row.encode().as_slice()))?;
            chain.push(found.hash, row.end);
        }
        self.0.wrap(ingestion.finish())?;
        self.0.wrap(inner.meta.insert(BUILT_KEY, []))?;
        self.0.wrap(inner.database.persist(PersistMode::SyncAll))
    }
}

/// Numbers all transactions, and puts the blocks of each file together.
fn jobs(blocks: &[Found]) -> Result<(Vec<Job>, TxNumber), LoadError> {
    let mut jobs = std::collections::BTreeMap::<u32, Job>::new();
    let mut first: TxNumber = 0;
    for (height, found) in (0..).zip(blocks) {
        let file = found.place.file;
        let job = jobs.entry(file).or_insert(Job {
            file,
            blocks: Vec::new(),
            bytes: 0,
        });
        job.blocks.push(Numbered {
            height,
            first,
            found: *found,
        });
        job.bytes += u64::from(found.size);
        first = first
            .checked_add(found.transactions)
            .ok_or(LoadError::TooMany)?;
    }
    Ok((jobs.into_values().collect(), first))
}

/// Makes values on another thread, one ahead of the one who takes them.
fn ahead<T: Send, E>(
    count: usize,
    make: impl Fn(usize) -> T + Send,
    mut take: impl FnMut(T) -> Result<(), E>,
) -> Result<(), E> {
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(0);
        scope.spawn(move || {
            for index in 0..count {
                if sender.send(make(index)).is_err() {
                    return;
                }
            }
        });
        receiver.into_iter().try_for_each(&mut take)
    })
}

/// Reads all files that are not done yet into the buckets.
fn read_all(load: &Load<'_>, jobs: Vec<Job>, buckets: Buckets) -> Result<Buckets, LoadError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min((load.memory / THREAD_BYTES).max(1) as usize);
    let of: u64 = jobs.iter().map(|job| job.bytes).sum();
    let done = jobs
        .iter()
        .filter(|job| buckets.is_done(job.file))
        .map(|job| job.bytes)
        .sum();
    let state = Mutex::new((buckets, done));
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), LoadError> {
        let mut reader = FileReader::default();
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            if load.stop.load(Ordering::Relaxed) {
                return Err(LoadError::Stopped);
            }
            if state
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .0
                .is_done(job.file)
            {
                continue;
            }
            let rows = reader.read(load.files, job)?;
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let (buckets, done) = &mut *state;
            let wrap = |error| LoadError::Buckets {
                path: load.folder.to_owned(),
                error,
            };
            buckets.add(job.file, rows).map_err(wrap)?;
            *done += job.bytes;
            (load.progress)(LoadProgress::Reading { bytes: *done, of });
        }
        Ok(())
    };
    let result = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        // Each error also stops the others soon: no job is left once one thread has taken its last.
        if own.is_err() {
            next.store(jobs.len(), Ordering::Relaxed);
        }
        let joined = others
            .into_iter()
            .map(|other| other.join().unwrap_or(Err(LoadError::Stopped)));
        joined.fold(own, |first, other| first.and(other))
    });
    let (mut buckets, _) = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    let kept = buckets.keep().map_err(|error| LoadError::Buckets {
        path: load.folder.to_owned(),
        error,
    });
    result.and(kept)?;
    Ok(buckets)
}

/// Reads file after file into the same memory.
#[derive(Default)]
struct FileReader {
    blocks: Vec<u8>,
    undos: Vec<u8>,
    rows: Rows,
}

impl FileReader {
    fn read(&mut self, files: &BlockFiles, job: &Job) -> Result<&mut Rows, LoadError> {
        self.rows.history.clear();
        self.rows.txids.clear();
        self.rows.sizes.clear();
        files.load(Kind::Blocks, job.file, &mut self.blocks)?;
        let genesis_only = job.blocks.iter().all(|block| block.height == 0);
        if genesis_only {
            self.undos.clear();
        } else {
            files.load(Kind::Undo, job.file, &mut self.undos)?;
        }
        let found: Vec<_> = job.blocks.iter().map(|block| block.found).collect();
        let undos = files.match_undos(&self.undos, &found);
        for (block, undo) in job.blocks.iter().zip(undos) {
            let Numbered {
                height,
                first,
                found,
            } = *block;
            let failed = |error| LoadError::Block {
                height,
                file: files.path(Kind::Blocks, job.file),
                error,
            };
            let start = found.place.offset as usize;
            let bytes = self.blocks.get(start..start + found.size as usize);
            let bytes = bytes.ok_or_else(|| failed(IndexError::NoBlock))?;
            let undo = undo.and_then(|range| self.undos.get(range));
            if undo.is_none() && height > 0 {
                let file = files.path(Kind::Undo, job.file);
                return Err(LoadError::NoUndo { height, file });
            }
            let count = self.rows.add(height, first, bytes, undo).map_err(failed)?;
            if count != found.transactions {
                return Err(failed(IndexError::NoBlock));
            }
        }
        Ok(&mut self.rows)
    }
}

impl Store {
    /// Whether the first build is still to come.
    pub fn is_empty(&self) -> bool {
        self.view().chain.is_empty()
    }
}
