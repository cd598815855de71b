//! The two threads behind the engine's: one tells what happened, one keeps blocks. Both may wait for
//! the outside; the engine waits for neither.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    sender: mpsc::Sender<Errand>,
    waiting: Arc<Mutex<Waiting>>,
}

/// Blocks on the way to the disk.
#[derive(Debug)]
pub struct QueuedBlocks {
    receiver: Receiver<Errand>,
    waiting: Arc<Mutex<Waiting>>,
}

/// What the disk is to do, in order.
#[derive(Clone, Copy, Debug)]
enum Errand {
    Keep(Hash),
    Forget(Hash),
}

#[derive(Debug, Default)]
struct Waiting {
    blocks: BTreeMap<Hash, Bytes>,
    bytes: usize,
}

impl Waiting {
    fn remove(&mut self, hash: &Hash) {
        if let Some(block) = self.blocks.remove(hash) {
            self.bytes -= block.len();
        }
    }
}

/// A queue of blocks for the disk, bounded in count and in bytes.
pub fn block_queue() -> (BlockQueue, QueuedBlocks) {
    let (sender, receiver) = mpsc::channel(MAX_QUEUED_BLOCKS);
    let waiting = Arc::default();
    let queue = BlockQueue {
        sender,
        waiting: Arc::clone(&waiting),
    };
    (queue, QueuedBlocks { receiver, waiting })
}

impl BlockQueue {
    /// Hands in a block, without waiting. One that finds no room is not kept, which is logged.
    pub fn push(&self, hash: Hash, block: Bytes) {
        if self.try_push(hash, block).is_err() {
            let block = super::rpc::hash_text(&hash);
            tracing::error!(block, "a block was not kept, for the disk is too slow");
        }
    }

    fn try_push(&self, hash: Hash, block: Bytes) -> Result<(), Full> {
        let mut waiting = lock(&self.waiting);
        if waiting.blocks.contains_key(&hash) {
            return Ok(());
        }
        if waiting.bytes + block.len() > MAX_QUEUED_BYTES {
            return Err(Full);
        }
        // Under the lock, so that whoever takes the hash finds the block.
        let errand = Errand::Keep(hash);
        self.sender.try_send(errand).map_err(|_| Full)?;
        waiting.bytes += block.len();
        waiting.blocks.insert(hash, block);
        Ok(())
    }

    /// A block has turned out to be invalid: it is kept no longer.
    pub fn forget(&self, hash: Hash) {
        lock(&self.waiting).remove(&hash);
        if self.sender.try_send(Errand::Forget(hash)).is_err() {
            let block = super::rpc::hash_text(&hash);
            tracing::error!(
                block,
                "an invalid block is still on the disk, which is too slow"
            );
        }
    }

    /// Whether a block is on the way to the disk.
    pub fn has(&self, hash: &Hash) -> bool {
        lock(&self.waiting).blocks.contains_key(hash)
    }

    /// A block that is on the way to the disk.
    pub fn get(&self, hash: &Hash) -> Option<Bytes> {
        lock(&self.waiting).blocks.get(hash).cloned()
    }
}

/// There is no room.
struct Full;

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    // It is consistent after every change, whatever panicked elsewhere.
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the blocks that are whole, until everyone who hands some in has ended.
pub fn keep(store: &BlockStore, mut blocks: QueuedBlocks) {
    while let Some(errand) = blocks.receiver.blocking_recv() {
        let hash = match errand {
            Errand::Keep(hash) => hash,
            Errand::Forget(hash) => {
                store.remove(&hash);
                continue;
            }
        };
        let found = lock(&blocks.waiting).blocks.get(&hash).cloned();
        let Some(block) = found else { continue };
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
        // Only now: at every moment it is found in one place or the other.
        lock(&blocks.waiting).remove(&hash);
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::{Hash as _, sha256d};

    use super::*;

    #[test]
    fn a_block_is_found_until_it_is_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let store = BlockStore::open(folder.path(), 1 << 20).unwrap();
        let (queue, queued) = block_queue();
        let block = Bytes::from(bitcoin::consensus::serialize(
            &bitcoin::constants::genesis_block(bitcoin::Network::Regtest),
        ));
        let hash = sha256d::Hash::hash(&block[..80]).to_byte_array();
        queue.push(hash, block.clone());
        queue.push(hash, block.clone());
        assert_eq!(queue.get(&hash), Some(block.clone()));
        let looks = queue.clone();
        drop(queue);
        let waiting = Arc::clone(&looks.waiting);
        drop(looks);
        keep(&store, queued);
        assert_eq!(store.get(&hash).unwrap().as_deref(), Some(&block[..]));
        let (queue, queued) = block_queue();
        queue.push(hash, block);
        queue.forget(hash);
        assert_eq!(queue.get(&hash), None);
        drop(queue);
        keep(&store, queued);
        assert_eq!(store.get(&hash).unwrap(), None);
        let waiting = lock(&waiting);
        assert_eq!((waiting.blocks.len(), waiting.bytes), (0, 0));
    }

    #[test]
    fn the_queue_is_bounded_in_count_and_in_bytes() {
        let (queue, _queued) = block_queue();
        for number in 0..MAX_QUEUED_BLOCKS as u64 + 5 {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&number.to_le_bytes());
            queue.push(hash, Bytes::from_static(&[1; 100]));
        }
        assert_eq!(lock(&queue.waiting).blocks.len(), MAX_QUEUED_BLOCKS);
        let (queue, _queued) = block_queue();
        let half = Bytes::from(vec![1; MAX_QUEUED_BYTES / 2 + 1]);
        queue.push([1; 32], half.clone());
        queue.push([2; 32], half);
        assert!(queue.get(&[1; 32]).is_some());
        assert!(queue.get(&[2; 32]).is_none());
    }
}
