//! One node's mempool, followed into the engine's cache: listed by RPC at first, then kept in step by what ZMQ and
//! P2P tell. Of several nodes it is the preferred one's; what the others announce is taken as well, but not asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bitcoin::hashes::Hash as _;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::desk::Shared;
use super::ledger::NodeNumber;
use crate::chain::bitcoind::Rpc;
use crate::chain::bitcoind::follow::{FollowInput, FollowOutput, follow};
use crate::chain::bitcoind::mempool::{Feed, Mempool};
use crate::node::engine::Command;

/// What is told and not yet taken: the transactions of a block, twice. Beyond it the mempool is listed anew.
const MAX_INPUTS: usize = 8_192;
/// Lists of transactions on the way to the engine; while it takes none, nothing more is asked of the node.
const MAX_OUTPUTS: usize = 4;
/// Lists of transactions that wait for those who follow besides. Reason: beyond it all is listed anew, which costs a second.
const MAX_BESIDES: usize = 1_024;

/// Where the follower is told what happened. Dropped, it ends.
#[derive(Debug)]
pub struct Follower {
    inputs: mpsc::Sender<FollowInput>,
    node: Option<NodeNumber>,
    /// A change of nodes that found no room yet.
    switch: Option<Option<(Rpc, Feed)>>,
    /// Something found no room, and the follower does not know yet.
    has_gap: bool,
}

/// Where changes of the mempool go besides.
#[derive(Clone, Debug)]
pub struct Besides {
    outputs: mpsc::Sender<FollowOutput>,
    missed: Arc<AtomicBool>,
}

impl Besides {
    /// The way there, what comes out of it, and whether something found no room: it is lost, and the mempool is to be listed anew.
    pub fn new() -> (Self, mpsc::Receiver<FollowOutput>, Arc<AtomicBool>) {
        let (outputs, read_outputs) = mpsc::channel(MAX_BESIDES);
        let missed = Arc::new(AtomicBool::new(false));
        let besides = Self {
            outputs,
            missed: Arc::clone(&missed),
        };
        (besides, read_outputs, missed)
    }

    fn tell(&self, output: &FollowOutput) {
        if self.outputs.try_send(output.clone()).is_err() {
            self.missed.store(true, Ordering::Relaxed);
        }
    }
}

impl Follower {
    /// Follows nobody's mempool yet, into the engine; what is given out goes `besides` too, if there is room.
    pub fn start(shared: &Shared, seed: u64, besides: Option<Besides>) -> Self {
        let (engine, clock) = (shared.engine.clone(), shared.clock);
        let (inputs, read_inputs) = mpsc::channel(MAX_INPUTS);
        let (outputs, mut read_outputs) = mpsc::channel(MAX_OUTPUTS);
        let mempool = Mempool::new(Feed::None, clock.now(), seed);
        tokio::spawn(follow(mempool, move || clock.now(), read_inputs, outputs));
        tokio::spawn(async move {
            while let Some(output) = read_outputs.recv().await {
                if let Some(besides) = &besides {
                    besides.tell(&output);
                }
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
            node: None,
            switch: None,
            has_gap: false,
        }
    }

    /// Whether this node's mempool is the one that is followed.
    pub fn follows(&self, node: NodeNumber) -> bool {
        self.node == Some(node)
    }

    /// Follows another node's mempool from now on, or none.
    pub fn switch(&mut self, node: Option<(NodeNumber, Rpc, Feed)>) {
        self.node = node.as_ref().map(|(node, _, _)| *node);
        self.switch = Some(node.map(|(_, rpc, feed)| (rpc, feed)));
        self.catch_up();
    }

    /// Tells what happened, without waiting.
    pub fn tell(&mut self, input: FollowInput) {
        self.catch_up();
        if let Err(TrySendError::Full(_)) = self.inputs.try_send(input) {
            self.has_gap = true;
        }
    }

    /// Tells what found no room before.
    fn catch_up(&mut self) {
        if let Some(node) = self.switch.take()
            && let Err(TrySendError::Full(FollowInput::Switch(node))) =
                self.inputs.try_send(FollowInput::Switch(node))
        {
            self.switch = Some(node);
            return;
        }
        if self.has_gap {
            self.has_gap = self.inputs.try_send(FollowInput::Gap).is_err();
        }
    }
}
