//! The two threads behind the engine's: one tells what happened, one keeps blocks. Both may wait for
//! the outside; the engine waits for neither.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc::{self, Receiver};

use super::engine::Hash;
use super::events::Stamped;
use super::store::{BlockStore, Put};

/// Logs what happens, and writes it to stdout as lines of JSON if `to_stdout`, until the engine has ended.
pub fn tell(mut news: Receiver<Stamped>, to_stdout: bool) {
    let mut stdout = to_stdout.then(std::io::stdout);
    while let Some(stamped) = news.blocking_recv() {
        stamped.log();
        if let Some(out) = &mut stdout {
            let written = out
                .write_all(stamped.to_lines().as_bytes())
                .and_then(|()| out.flush());
            if written.is_err() {
                // Whoever watched has left.
                stdout = None;
            }
        }
    }
}

/// Bytes of blocks on the way to the disk: a minute of blocks as large as may be, or a burst of hundreds of usual
/// ones while the disk is slow.
const MAX_QUEUED_BYTES: usize = 256 << 20;
/// Blocks on the way to the disk, of whatever size: as many as may be served to others.
const MAX_QUEUED_BLOCKS: usize = 288;

/// Where blocks are handed in for the disk. Clones lead to the same one.
#[derive(Clone, Debug)]
pub struct BlockQueue {
    sender: mpsc::Sender<(Hash, Bytes)>,
    bytes: Arc<AtomicUsize>,
}

/// Blocks on the way to the disk.
#[derive(Debug)]
pub struct QueuedBlocks {
    receiver: Receiver<(Hash, Bytes)>,
    bytes: Arc<AtomicUsize>,
}

/// A queue of blocks for the disk, bounded in count and in bytes.
pub fn block_queue() -> (BlockQueue, QueuedBlocks) {
    let (sender, receiver) = mpsc::channel(MAX_QUEUED_BLOCKS);
    let bytes = Arc::new(AtomicUsize::new(0));
    let queue = BlockQueue {
        sender,
        bytes: Arc::clone(&bytes),
    };
    (queue, QueuedBlocks { receiver, bytes })
}

impl BlockQueue {
    /// Hands in a block, without waiting. One that finds no room is not kept, which is logged.
    pub fn push(&self, hash: Hash, block: Bytes) {
        let length = block.len();
        let before = self.bytes.fetch_add(length, Ordering::Relaxed);
        let room = before + length <= MAX_QUEUED_BYTES;
        if !room || self.sender.try_send((hash, block)).is_err() {
            self.bytes.fetch_sub(length, Ordering::Relaxed);
            let block = super::rpc::hash_text(&hash);
            tracing::error!(block, "a block was not kept, for the disk is too slow");
        }
    }
}

/// Keeps the blocks that are whole, until everyone who hands some in has ended.
pub fn keep(store: &BlockStore, mut blocks: QueuedBlocks) {
    while let Some((hash, block)) = blocks.receiver.blocking_recv() {
        blocks.bytes.fetch_sub(block.len(), Ordering::Relaxed);
        let name = super::rpc::hash_text(&hash);
        match store.put(&hash, &block) {
            Ok(Put::Stored) => tracing::debug!(block = name, "kept on disk"),
            Ok(Put::Known) => {}
            Ok(Put::TooLarge) => {
                tracing::warn!(block = name, "larger than store-mb, not kept");
            }
            Err(error) => {
                tracing::error!(block = name, %error, "can't be kept; check the disk");
            }
        }
    }
}
