//! The preferred node and its tip, for those who follow it by themselves.

use std::path::PathBuf;

use bitcoin::BlockHash;

use super::desk::Desk;
use super::ledger::NodeNumber;
use crate::chain::bitcoind::{Rpc, State};

/// The node that is asked first, if it has the newest blocks.
#[derive(Clone, Debug)]
pub struct Best {
    /// Which one it is.
    pub node: NodeNumber,
    /// Its best block.
    pub hash: BlockHash,
    /// How to ask it.
    pub rpc: Rpc,
    /// Its folder with block files, if that is on this machine.
    pub blocks: Option<PathBuf>,
    /// Whether it tells of changes of its mempool as they happen.
    pub tells_mempool: bool,
    /// Name and version that it gives itself.
    pub subversion: Option<String>,
}

impl Desk {
    /// Tells of the preferred node if it or its tip is another.
    pub fn tell_best(&self) {
        let best = self.nodes.preferred().and_then(|node| {
            let link = self.links.get(node)?;
            let known = self.nodes.status(node)?;
            let (hash, _) = link.tip.filter(|_| known.state == State::Live)?;
            Some(Best {
                node,
                hash,
                rpc: link.rpc()?.clone(),
                blocks: link.blocks.clone(),
                tells_mempool: link.zmq_is_up,
                subversion: link.subversion.clone(),
            })
        });
        let name = |best: &Option<Best>| best.as_ref().map(|best| (best.node, best.hash));
        self.best.send_if_modified(|told| {
            let is_new = name(told) != name(&best);
            *told = best;
            is_new
        });
    }
}
