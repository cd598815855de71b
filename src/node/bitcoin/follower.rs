//! One node's mempool, followed into the engine's cache: listed by RPC at first, then kept in step by what ZMQ and
//! P2P tell.

use bitcoin::hashes::Hash as _;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::chain::bitcoind::Rpc;
use crate::chain::bitcoind::follow::{FollowInput, FollowOutput, follow};
use crate::chain::bitcoind::mempool::{Feed, Mempool};
use crate::net::Clock;
use crate::node::engine::{Command, EngineHandle};

/// What is told and not yet taken: the transactions of a block, twice. Beyond it the mempool is listed anew.
const MAX_INPUTS: usize = 8_192;
/// Lists of transactions on the way to the engine; while it takes none, nothing more is asked of the node.
const MAX_OUTPUTS: usize = 4;

/// Where a follower is told what happened. Dropped, it ends.
#[derive(Debug)]
pub struct Follower {
    inputs: mpsc::Sender<FollowInput>,
    /// Something found no room, and the follower does not know yet.
    has_gap: bool,
}

impl Follower {
    /// Follows the mempool of the node behind `rpc` into `engine`.
    pub fn start(rpc: Rpc, feed: Feed, engine: EngineHandle, clock: Clock, seed: u64) -> Self {
        let (inputs, read_inputs) = mpsc::channel(MAX_INPUTS);
        let (outputs, mut read_outputs) = mpsc::channel(MAX_OUTPUTS);
        let mempool = Mempool::new(feed, clock.now(), seed);
        tokio::spawn(async move {
            follow(mempool, rpc, move || clock.now(), read_inputs, outputs).await;
        });
        tokio::spawn(async move {
            while let Some(output) = read_outputs.recv().await {
                let command = match output {
                    FollowOutput::Add(transactions) => Command::AddTransactions(transactions),
                    FollowOutput::Demote(ids) => {
                        let ids = ids.iter().map(|id| id.to_byte_array());
                        Command::DemoteTransactions(ids.collect())
                    }
                    FollowOutput::Trouble(error) => {
                        tracing::debug!(%error, "the mempool can't be read now");
                        continue;
                    }
                };
                if engine.tell(command).await.is_err() {
                    return;
                }
            }
        });
        Self {
            inputs,
            has_gap: false,
        }
    }

    /// Tells what happened, without waiting.
    pub fn tell(&mut self, input: FollowInput) {
        if self.has_gap {
            self.has_gap = self.inputs.try_send(FollowInput::Gap).is_err();
        }
        if let Err(TrySendError::Full(_)) = self.inputs.try_send(input) {
            self.has_gap = true;
        }
    }
}
