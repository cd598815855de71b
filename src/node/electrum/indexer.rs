//! The one who writes: blocks into the index, transactions into the mempool, and what changed to the clients.
//!
//! It is a thread, for it waits on the disk. Blocks come before anything else; the mempool is taken in batches between them, and
//! is listed anew when the index has caught up, or when something of it was lost.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bitcoin::Txid;
use bitcoin::hashes::Hash as _;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::SharedData;
use super::progress::{Lines, SharedProgress};
use crate::chain::Network;
use crate::chain::bitcoind::blockfiles::BlockFiles;
use crate::chain::bitcoind::follow::FollowOutput;
use crate::electrum::mempool::Touched;
use crate::electrum::protocol::info::Info;
use crate::electrum::query::Change;
use crate::electrum::store::Writer;
use crate::electrum::store::answer::Data;
use crate::electrum::store::follow::{FollowError, Follower, Step};
use crate::electrum::store::lookup::Lookup;
use crate::electrum::store::settle::Settler;
use crate::merkle::Hash;
use crate::node::bitcoin::Best;
use crate::node::stop::Stop;

/// Transactions that are taken into the mempool before a block gets its turn: some milliseconds of work.
const BATCH: usize = 256;

/// Scripts of one change. Reason: as many as some blocks touch; when more blocks come at once, clients are told in between.
const MAX_TOUCHED: usize = 100_000;

/// Between tries to read what the node may be writing at this moment.
const RETRY_TIME: Duration = Duration::from_millis(20);
/// The longest of them. Reason: what was in the way is then noticed to be gone before an operator wonders.
const MAX_RETRY_TIME: Duration = Duration::from_secs(5);

/// Between two lists of the mempool of a node that does not tell what happens in it (ZMQ), or tells only of some (P2P).
const LOOK_TIME: Duration = Duration::from_secs(2);
/// They may take no more than this part of the time: a list of 100,000 transactions is 7 MB.
const LOOK_SHARE: u32 = 50;

/// What it is given.
pub struct Parts {
    pub network: Network,
    pub folder: PathBuf,
    pub cache_bytes: u64,
    pub best: watch::Receiver<Option<Best>>,
    pub mempool: mpsc::Receiver<FollowOutput>,
    pub missed: Arc<AtomicBool>,
    /// Given when somebody wants the mempool to be looked at.
    pub look: Arc<Notify>,
    pub stop: Stop,
    pub writer: Writer,
    pub data: SharedData,
    pub changes: mpsc::Sender<Arc<Change>>,
    pub info: watch::Sender<Arc<Info>>,
    pub progress: SharedProgress,
}

/// The thread from outside.
#[derive(Debug)]
pub struct Indexer(oneshot::Receiver<()>);

impl Indexer {
    /// Waits for its end, which the node's stop brings.
    pub async fn ended(self) {
        self.0.await.ok();
    }
}

/// Starts the thread.
///
/// # Errors
///
/// If the system gives none.
pub fn start(parts: Parts) -> io::Result<Indexer> {
    let (ended, read_ended) = oneshot::channel();
    let runtime = Handle::current();
    let is_stopped = Arc::new(AtomicBool::new(false));
    let (stop, flag) = (parts.stop.clone(), Arc::clone(&is_stopped));
    tokio::spawn(async move {
        stop.stopped().await;
        flag.store(true, Ordering::Relaxed);
    });
    let thread = std::thread::Builder::new().name("indexer".to_owned());
    thread.spawn(move || {
        run(parts, &runtime, is_stopped);
        ended.send(()).ok();
    })?;
    Ok(Indexer(read_ended))
}

fn run(mut parts: Parts, runtime: &Handle, is_stopped: Arc<AtomicBool>) {
    let Some(blocks) = runtime.block_on(first_blocks(&mut parts)) else {
        return;
    };
    let files = match BlockFiles::open(&blocks, parts.network) {
        Ok(files) => Arc::new(files),
        Err(error) => {
            tracing::error!(%error, "the Electrum server can't read bitcoind's blocks");
            return;
        }
    };
    let lookup = Lookup::new(
        parts.writer.store().clone(),
        Arc::clone(&files),
        parts.cache_bytes / 2,
    );
    let buckets = parts.folder.join("electrum-build");
    let memory = parts.cache_bytes.max(512 << 20);
    let follower = Follower::new(parts.writer, files, buckets, memory, is_stopped);
    let mut worker = Worker {
        settler: Settler::new(Arc::new(Data::new(lookup))),
        follower,
        blocks,
        best: parts.best,
        mempool: parts.mempool,
        missed: parts.missed,
        look: parts.look,
        stop: parts.stop,
        shared: parts.data,
        changes: parts.changes,
        info: parts.info,
        progress: parts.progress,
        runtime: runtime.clone(),
        is_listed: false,
        look_at: Instant::now(),
        retry: RETRY_TIME,
    };
    worker.work();
}

/// Waits for a preferred node whose block files are here.
async fn first_blocks(parts: &mut Parts) -> Option<PathBuf> {
    let mut was_warned = false;
    loop {
        let best = parts.best.borrow_and_update().clone();
        if let Some(best) = best {
            if let Some(blocks) = best.blocks {
                return Some(blocks);
            }
            if !was_warned {
                was_warned = true;
                tracing::error!(
                    "the Electrum server needs the block files of the Bitcoin node, and they are not on this machine; give datadir=DIR with `bitcoind`"
                );
            }
        }
        tokio::select! {
            changed = parts.best.changed() => changed.ok()?,
            () = parts.stop.stopped() => return None,
        }
    }
}

struct Worker {
    settler: Settler,
    follower: Follower,
    /// The files that the index speaks of.
    blocks: PathBuf,
    best: watch::Receiver<Option<Best>>,
    mempool: mpsc::Receiver<FollowOutput>,
    missed: Arc<AtomicBool>,
    look: Arc<Notify>,
    stop: Stop,
    shared: SharedData,
    changes: mpsc::Sender<Arc<Change>>,
    info: watch::Sender<Arc<Info>>,
    progress: SharedProgress,
    runtime: Handle,
    /// Whether the mempool is all here, as far as it was told of.
    is_listed: bool,
    /// When to list it again, if the node does not tell what happens in it or the last list failed.
    look_at: Instant,
    retry: Duration,
}

/// What there is to do.
enum Wake {
    Best,
    Look,
    Mempool(Vec<FollowOutput>),
    Retry,
    Stop,
}

impl Worker {
    fn work(&mut self) {
        let mut is_behind = true;
        loop {
            if is_behind {
                match self.follow() {
                    Ok(()) => {
                        is_behind = false;
                        self.retry = RETRY_TIME;
                    }
                    Err(FollowError::Stopped) => return,
                    Err(error) if !self.can_retry(&error) => return,
                    Err(_) => {}
                }
            }
            if !is_behind {
                if self.missed.swap(false, Ordering::Relaxed) || !self.is_listed {
                    self.list_mempool();
                }
                self.open();
            }
            match self.wake(is_behind) {
                Wake::Stop => return,
                Wake::Best => is_behind = true,
                Wake::Retry => {}
                Wake::Look => self.is_listed = false,
                Wake::Mempool(outputs) => self.take(outputs),
            }
        }
    }

    fn wake(&mut self, is_behind: bool) -> Wake {
        let Self {
            best,
            mempool,
            stop,
            look,
            look_at,
            retry,
            is_listed,
            ..
        } = self;
        let is_told = best.borrow().as_ref().is_none_or(|it| it.tells_mempool);
        let looks = !is_behind && !(is_told && *is_listed);
        let look_at = tokio::time::Instant::from_std(*look_at);
        self.runtime.block_on(async {
            let mut outputs = Vec::new();
            tokio::select! {
                biased;
                () = stop.stopped() => Wake::Stop,
                changed = best.changed() => if changed.is_ok() { Wake::Best } else { Wake::Stop },
                () = tokio::time::sleep(*retry), if is_behind => Wake::Retry,
                () = look.notified(), if !is_behind => Wake::Look,
                () = tokio::time::sleep_until(look_at), if looks => Wake::Look,
                taken = mempool.recv_many(&mut outputs, BATCH) => if taken > 0 { Wake::Mempool(outputs) } else { Wake::Stop },
            }
        })
    }

    /// Whether what failed may go well later. What can't is said, with the way out, and the server says that it is unavailable.
    fn can_retry(&mut self, error: &FollowError) -> bool {
        match error {
            FollowError::NotThere(_)
            | FollowError::Files(_)
            | FollowError::Lookup(_)
            | FollowError::Load(_) => {
                if self.retry >= MAX_RETRY_TIME {
                    tracing::warn!(%error, "the Electrum index waits");
                }
                self.retry = (self.retry * 2).min(MAX_RETRY_TIME);
                true
            }
            error => {
                tracing::error!(%error, "the Electrum index stays as it is");
                false
            }
        }
    }

    /// Brings the index to the node's tip.
    fn follow(&mut self) -> Result<(), FollowError> {
        let Some(best) = self.best.borrow_and_update().clone() else {
            return Ok(());
        };
        if best.blocks.as_ref() != Some(&self.blocks) {
            // Another node stands in; the index goes on when the one is back whose files it speaks of.
            return Ok(());
        }
        self.info.send_if_modified(|info| {
            let node = best.subversion.clone().unwrap_or_default();
            let is_new = info.node != node;
            if is_new {
                Arc::make_mut(info).node = node;
            }
            is_new
        });
        let lines = Lines::new(self.progress.clone());
        let progress = |progress| lines.tell(progress);
        let Self {
            follower,
            settler,
            changes,
            shared,
            is_listed,
            ..
        } = self;
        // Nobody is told of a tip of which nothing can be asked yet.
        let is_open = shared.get().is_some();
        let store = follower.store().clone();
        let mut touched = Touched::default();
        let told = follower.follow(best.hash.to_byte_array(), &progress, |step| {
            // What the node puts back it may have told of before, when it was no news.
            *is_listed &= matches!(step, Step::Added(..));
            settler.step(store.view(), &step, &mut touched);
            if touched.scripts.len() > MAX_TOUCHED {
                tell(settler, changes, std::mem::take(&mut touched), is_open);
            }
        });
        drop(lines);
        // What the first build brought, no step told of.
        settler.data().change().view = store.view();
        tell(settler, changes, touched, is_open);
        told?;
        let mut touched = Touched::default();
        self.settler.add_waiting(&mut touched);
        self.tell(touched, false);
        self.follower.persist()
    }

    /// Lets questions be answered: once there are chain and mempool, a wallet that comes back misses nothing that it had seen.
    fn open(&mut self) {
        let is_here = {
            let best = self.best.borrow();
            best.as_ref().and_then(|it| it.blocks.as_ref()) == Some(&self.blocks)
        };
        if !is_here || self.shared.set(Arc::clone(self.settler.data())).is_err() {
            return;
        }
        let view = self.follower.store().view();
        let height = view.chain.tip().map(|(height, _)| height);
        // Programs that start electrs wait for its words.
        tracing::info!(height, "serving Electrum RPC: the index is at the tip");
        self.tell(Touched::default(), true);
    }

    /// Lists the mempool anew, and fetches what is not here.
    fn list_mempool(&mut self) {
        let began = Instant::now();
        self.is_listed = self.try_list_mempool().is_some();
        self.look_at = Instant::now() + LOOK_TIME.max(began.elapsed() * LOOK_SHARE);
    }

    /// `None`: something failed, or a block came first, and the list is not complete.
    fn try_list_mempool(&mut self) -> Option<()> {
        let rpc = self.best.borrow().as_ref().map(|best| best.rpc.clone())?;
        let list = match self.runtime.block_on(rpc.raw_mempool_with_sequence()) {
            Ok(list) => list,
            Err(error) => {
                tracing::debug!(%error, "the mempool can't be listed now");
                return None;
            }
        };
        let listed: BTreeSet<Hash> = list.ids.iter().map(|id| id.to_byte_array()).collect();
        let mut touched = Touched::default();
        self.settler.keep(&listed, &mut touched);
        self.tell(touched, false);
        let here = self.settler.data().state().mempool.txids();
        let missing = list.ids.into_iter();
        let missing: Vec<Txid> = missing
            .filter(|id| !here.contains(&id.to_byte_array()))
            .collect();
        for ids in missing.chunks(crate::chain::bitcoind::rpc::MAX_BATCH) {
            match self.runtime.block_on(rpc.raw_transactions(ids)) {
                Ok(bodies) => {
                    let mut touched = Touched::default();
                    let bodies = bodies.into_iter().flatten().collect();
                    self.settler.add(bodies, &mut touched);
                    self.tell(touched, false);
                }
                Err(error) => {
                    tracing::debug!(%error, "the mempool's transactions can't be fetched now");
                    return None;
                }
            }
            // Blocks first.
            if self.best.has_changed().unwrap_or(true) {
                return None;
            }
        }
        Some(())
    }

    fn take(&mut self, outputs: Vec<FollowOutput>) {
        if !self.is_listed {
            // The list will have it.
            return;
        }
        for output in outputs {
            let mut touched = Touched::default();
            match output {
                FollowOutput::Add(transactions) => self.settler.add(transactions, &mut touched),
                FollowOutput::Demote(ids) => {
                    let ids: BTreeSet<Hash> = ids.iter().map(|id| id.to_byte_array()).collect();
                    self.settler.demote(&ids, &mut touched);
                }
                FollowOutput::Trouble(_) => {}
            }
            self.tell(touched, false);
        }
    }

    fn tell(&self, touched: Touched, has_tip: bool) {
        tell(&self.settler, &self.changes, touched, has_tip);
    }
}

/// Tells the server; it waits while the server takes nothing.
fn tell(settler: &Settler, changes: &mpsc::Sender<Arc<Change>>, touched: Touched, has_tip: bool) {
    if let Some(change) = settler.change(touched, has_tip) {
        changes.blocking_send(Arc::new(change)).ok();
    }
}
