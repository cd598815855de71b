//! The one who writes: blocks into the index, transactions into the mempool, and what changed to the clients.
//!
//! It is a thread, for it waits on the disk. Blocks come before anything else; the mempool is taken in batches between them, and
//! is listed anew when the index has caught up, or when something of it was lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bitcoin::Txid;
use bitcoin::hashes::Hash as _;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use super::SharedData;
use super::progress::{Lines, SharedProgress};
use crate::chain::Network;
use crate::chain::bitcoind::blockfiles::BlockFiles;
use crate::chain::bitcoind::follow::FollowOutput;
use crate::electrum::mempool::{Coin, NotAdded, Touched};
use crate::electrum::protocol::info::Info;
use crate::electrum::query::Change;
use crate::electrum::script_hash::ScriptHash;
use crate::electrum::store::answer::Data;
use crate::electrum::store::follow::{FollowError, Follower, Step};
use crate::electrum::store::lookup::{Lookup, LookupError, parse};
use crate::electrum::store::{View, Writer};
use crate::mempool::OutPoint;
use crate::merkle::Hash;
use crate::node::bitcoin::Best;
use crate::node::stop::Stop;

/// Transactions that are taken into the mempool before a block gets its turn: some milliseconds of work.
const BATCH: usize = 256;

/// Transactions that wait for another one, on whose outputs they build. Reason: the node tells of parents first, so these are few;
/// beyond it the oldest are dropped, and come with the next list.
const MAX_WAITING: usize = 10_000;

/// Scripts of one change. Reason: as many as some blocks touch; when more blocks come at once, clients are told in between.
const MAX_TOUCHED: usize = 100_000;

/// Between tries to read what the node may be writing at this moment.
const RETRY_TIME: Duration = Duration::from_millis(20);
/// The longest of them.
const MAX_RETRY_TIME: Duration = Duration::from_secs(5);

/// What it is given.
pub struct Parts {
    pub network: Network,
    pub folder: PathBuf,
    pub cache_bytes: u64,
    pub best: watch::Receiver<Option<Best>>,
    pub mempool: mpsc::Receiver<FollowOutput>,
    pub missed: Arc<AtomicBool>,
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
        data: Arc::new(Data::new(lookup)),
        follower,
        blocks,
        best: parts.best,
        mempool: parts.mempool,
        missed: parts.missed,
        stop: parts.stop,
        shared: parts.data,
        changes: parts.changes,
        info: parts.info,
        progress: parts.progress,
        runtime: runtime.clone(),
        waiting: VecDeque::new(),
        is_listed: false,
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
    data: Arc<Data>,
    follower: Follower,
    /// The files that the index speaks of.
    blocks: PathBuf,
    best: watch::Receiver<Option<Best>>,
    mempool: mpsc::Receiver<FollowOutput>,
    missed: Arc<AtomicBool>,
    stop: Stop,
    shared: SharedData,
    changes: mpsc::Sender<Arc<Change>>,
    info: watch::Sender<Arc<Info>>,
    progress: SharedProgress,
    runtime: Handle,
    /// Transactions that came before what they spend.
    waiting: VecDeque<Bytes>,
    /// Whether the mempool is all here, as far as it was told of.
    is_listed: bool,
    retry: Duration,
}

/// What there is to do.
enum Wake {
    Best,
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
            if !is_behind && (!self.is_listed || self.missed.swap(false, Ordering::Relaxed)) {
                self.list_mempool();
            }
            match self.wake(is_behind) {
                Wake::Stop => return,
                Wake::Best => is_behind = true,
                Wake::Retry => {}
                Wake::Mempool(outputs) => self.take(outputs),
            }
        }
    }

    fn wake(&mut self, is_behind: bool) -> Wake {
        let Self {
            best,
            mempool,
            stop,
            retry,
            ..
        } = self;
        self.runtime.block_on(async {
            let mut outputs = Vec::new();
            tokio::select! {
                biased;
                () = stop.stopped() => Wake::Stop,
                changed = best.changed() => if changed.is_ok() { Wake::Best } else { Wake::Stop },
                () = tokio::time::sleep(*retry), if is_behind => Wake::Retry,
                taken = mempool.recv_many(&mut outputs, BATCH) => if taken > 0 { Wake::Mempool(outputs) } else { Wake::Stop },
            }
        })
    }

    /// Whether what failed may go well later. What can't is said, with the way out, and the server says that it is unavailable.
    fn can_retry(&mut self, error: &FollowError) -> bool {
        match error {
            FollowError::NotThere(_) | FollowError::Files(_) | FollowError::Load(_) => {
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
            data,
            changes,
            ..
        } = self;
        let store = follower.store().clone();
        let mut touched = Touched::default();
        let told = follower.follow(best.hash.to_byte_array(), &progress, |step| {
            settle(data, store.view(), &step, &mut touched);
            if touched.scripts.len() > MAX_TOUCHED {
                tell(data, changes, std::mem::take(&mut touched), true);
            }
        });
        drop(lines);
        // What the first build brought, no step told of.
        data.change().view = store.view();
        tell(data, changes, touched, true);
        told?;
        if self.shared.set(Arc::clone(&self.data)).is_ok() {
            let tip = store.view().chain.tip().map(|(height, _)| height);
            tracing::info!(height = tip, "the Electrum index is at the tip");
            tell(&self.data, &self.changes, Touched::default(), true);
        }
        self.add_waiting();
        self.follower.persist()
    }

    /// Lists the mempool anew, and fetches what is not here.
    fn list_mempool(&mut self) {
        let Some(rpc) = self.best.borrow().as_ref().map(|best| best.rpc.clone()) else {
            return;
        };
        let list = match self.runtime.block_on(rpc.raw_mempool_with_sequence()) {
            Ok(list) => list,
            Err(error) => {
                tracing::debug!(%error, "the mempool can't be listed now");
                return;
            }
        };
        self.is_listed = true;
        let listed: BTreeSet<Hash> = list.ids.iter().map(|id| id.to_byte_array()).collect();
        let mut touched = Touched::default();
        let here = self.data.state().mempool.txids();
        for gone in here.iter().filter(|txid| !listed.contains(*txid)) {
            self.data.change().mempool.remove(gone, &mut touched);
        }
        tell(&self.data, &self.changes, touched, false);
        let missing = list.ids.into_iter();
        let missing: Vec<Txid> = missing
            .filter(|id| !here.contains(&id.to_byte_array()))
            .collect();
        for ids in missing.chunks(crate::chain::bitcoind::rpc::MAX_BATCH) {
            match self.runtime.block_on(rpc.raw_transactions(ids)) {
                Ok(bodies) => self.add(bodies.into_iter().flatten().collect()),
                Err(error) => {
                    tracing::debug!(%error, "the mempool's transactions can't be fetched now");
                    self.is_listed = false;
                    return;
                }
            }
            // Blocks first.
            if self.best.has_changed().unwrap_or(true) {
                self.is_listed = false;
                return;
            }
        }
    }

    fn take(&mut self, outputs: Vec<FollowOutput>) {
        if !self.is_listed {
            // The list will have it.
            return;
        }
        for output in outputs {
            match output {
                FollowOutput::Add(transactions) => self.add(transactions),
                FollowOutput::Demote(ids) => {
                    let mut touched = Touched::default();
                    let mut state = self.data.change();
                    for id in ids {
                        state.mempool.remove(&id.to_byte_array(), &mut touched);
                    }
                    drop(state);
                    tell(&self.data, &self.changes, touched, false);
                }
                FollowOutput::Trouble(_) => {}
            }
        }
    }

    fn add(&mut self, transactions: Vec<Bytes>) {
        let mut touched = Touched::default();
        for transaction in transactions {
            self.add_one(transaction, &mut touched);
        }
        let are_new = !touched.scripts.is_empty();
        tell(&self.data, &self.changes, touched, false);
        if are_new && !self.waiting.is_empty() {
            self.add_waiting();
        }
    }

    /// Tries once more those that lacked something, until none finds what it lacks.
    fn add_waiting(&mut self) {
        loop {
            let before = self.waiting.len();
            let mut touched = Touched::default();
            for transaction in std::mem::take(&mut self.waiting) {
                self.add_one(transaction, &mut touched);
            }
            tell(&self.data, &self.changes, touched, false);
            if self.waiting.len() >= before {
                return;
            }
        }
    }

    fn add_one(&mut self, transaction: Bytes, touched: &mut Touched) {
        let Ok(outside) = self.data.state().mempool.spends_outside(&transaction) else {
            return;
        };
        let view = Arc::clone(&self.data.state().view);
        let confirmed = match coins(&self.data, &view, outside) {
            Ok(confirmed) => confirmed,
            Err(error) => {
                tracing::error!(%error, "what a transaction of the mempool spends can't be looked up");
                return;
            }
        };
        let added = self
            .data
            .change()
            .mempool
            .add(transaction.clone(), &confirmed, touched);
        if let Err(NotAdded::Lacking(_)) = added {
            if self.waiting.len() >= MAX_WAITING {
                self.waiting.pop_front();
            }
            self.waiting.push_back(transaction);
        }
    }
}

/// Confirmed outputs that a transaction spends.
fn coins(
    data: &Data,
    view: &View,
    outside: Vec<OutPoint>,
) -> Result<BTreeMap<OutPoint, Coin>, LookupError> {
    let mut coins = BTreeMap::new();
    for outpoint in outside {
        let Some(found) = data.lookup().find(view, &outpoint.txid)? else {
            continue;
        };
        let output = parse(&found)?.outputs().nth(outpoint.index as usize);
        coins.extend(output.map(|output| {
            let script = ScriptHash::of(output.script);
            let value = output.value;
            (outpoint, Coin { script, value })
        }));
    }
    Ok(coins)
}

/// Changes chain and mempool together.
fn settle(data: &Data, view: Arc<View>, step: &Step, touched: &mut Touched) {
    let mut state = data.change();
    state.view = view;
    let block = match step {
        Step::Added(_, block) => {
            state.mempool.confirm(&block.txids, &block.spent, touched);
            block
        }
        Step::Removed(_, block) => {
            state.mempool.unconfirm(&block.txids, touched);
            block
        }
    };
    drop(state);
    touched.scripts.extend(&block.scripts);
    touched
        .outpoints
        .extend(block.spent.iter().chain(&block.made));
}

/// Tells the server; it waits while the server takes nothing.
fn tell(data: &Data, changes: &mpsc::Sender<Arc<Change>>, touched: Touched, has_tip: bool) {
    if touched.scripts.is_empty() && touched.outpoints.is_empty() && !has_tip {
        return;
    }
    let tip = match data.tip() {
        Ok(tip) => tip.filter(|_| has_tip),
        Err(error) => {
            tracing::error!(%error, "the tip can't be read from the index");
            None
        }
    };
    let outpoints = touched.outpoints.into_iter();
    let change = Change {
        tip,
        scripts: touched.scripts.into_iter().collect(),
        outpoints: outpoints.map(|one| (one.txid, one.index)).collect(),
    };
    changes.blocking_send(Arc::new(change)).ok();
}
