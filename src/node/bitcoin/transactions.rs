//! Transactions of the nodes' mempools on their way into the engine's cache.
//!
//! They come one by one and go in batches: what has gathered while the engine took the last one. What finds no
//! room is left out and counted; the block will bring it.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;

use bitcoin::hashes::Hash as _;
use bytes::Bytes;
use siphasher::sip::SipHasher13;
use tokio::sync::mpsc;

use super::ledger::NodeNumber;
use crate::chain::p2p::TransactionId;
use crate::node::engine::{Command, EngineHandle};

/// Transactions that wait for the engine: a burst of a second; 2 MB at the usual size.
const MAX_WAITING: usize = 8_192;
/// Transactions of one command to the engine, which takes about a microsecond for each.
const MAX_BATCH: usize = 256;
/// Announcements remembered, so that what several nodes announce is asked for once: those of ten minutes.
const MAX_REMEMBERED: usize = 16_384;

/// Ids are hashes already; they only have to be put somewhere.
type Seen = HashSet<u64, BuildHasherDefault<SipHasher13>>;

/// What happens to the cache.
#[derive(Debug)]
enum Change {
    Add(Bytes),
    Demote([u8; 32]),
}

/// Where transactions are handed in.
#[derive(Debug)]
pub struct Sink {
    sender: mpsc::Sender<Change>,
    dropped: u64,
    /// What was announced lately and a little earlier.
    seen: [Seen; 2],
}

impl Sink {
    /// A sink, and the task that empties it into `engine`; it ends with the sink.
    pub fn start(engine: EngineHandle) -> Self {
        let (sender, mut receiver) = mpsc::channel(MAX_WAITING);
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(MAX_BATCH);
            while receiver.recv_many(&mut batch, MAX_BATCH).await > 0 {
                let (mut added, mut demoted) = (Vec::new(), Vec::new());
                for change in batch.drain(..) {
                    match change {
                        Change::Add(transaction) => added.push(transaction),
                        Change::Demote(txid) => demoted.push(txid),
                    }
                }
                // What was added and removed within one batch is demoted all the same.
                let commands = [
                    (!added.is_empty()).then_some(Command::AddTransactions(added)),
                    (!demoted.is_empty()).then_some(Command::DemoteTransactions(demoted)),
                ];
                for command in commands.into_iter().flatten() {
                    if engine.tell(command).await.is_err() {
                        return;
                    }
                }
            }
        });
        Self {
            sender,
            dropped: 0,
            seen: Default::default(),
        }
    }

    /// Takes a serialized transaction.
    pub fn take(&mut self, transaction: Bytes) {
        self.push(Change::Add(transaction));
    }

    /// The node no longer holds the transaction with this txid.
    pub fn demote(&mut self, txid: [u8; 32]) {
        self.push(Change::Demote(txid));
    }

    fn push(&mut self, change: Change) {
        if self.sender.try_send(change).is_err() {
            self.dropped += 1;
            if self.dropped.is_power_of_two() {
                tracing::warn!(
                    dropped = self.dropped,
                    "transactions came faster than they were taken"
                );
            }
        }
    }

    /// Of the transactions that a node announces those to ask for.
    pub fn wanted(&mut self, _node: NodeNumber, ids: Vec<TransactionId>) -> Vec<TransactionId> {
        ids.into_iter()
            .filter(|id| {
                let bytes = match id {
                    TransactionId::Txid(id) => id.to_byte_array(),
                    TransactionId::Wtxid(id) => id.to_byte_array(),
                };
                let (half, _) = bytes.split_first_chunk().expect("an id has 32 bytes");
                self.is_new(u64::from_le_bytes(*half))
            })
            .collect()
    }

    fn is_new(&mut self, id: u64) -> bool {
        let [lately, earlier] = &mut self.seen;
        if lately.contains(&id) || earlier.contains(&id) {
            return false;
        }
        if lately.len() >= MAX_REMEMBERED {
            *earlier = std::mem::take(lately);
        }
        lately.insert(id)
    }
}
