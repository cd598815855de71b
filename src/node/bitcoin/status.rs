//! What is known of each Bitcoin node of the operator, for RPC and logs.

use serde::Serialize;

use super::ledger::Verdict;

/// One configured node, as `getblockchaininfo` tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NodeStatus {
    /// Its number in order of preference, as in the log.
    pub node: usize,
    /// How it was configured.
    pub name: String,
    /// Whether it is the one that is asked first, and has the newest blocks.
    pub live: bool,
    /// Whether it can be used: `live`, `behind`, `warming-up`, `wrong-network`, `refused`, `unreachable` or
    /// `never-reached`.
    pub state: &'static str,
    /// Why, in one line.
    pub reason: String,
    /// Name and version that it gives itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subversion: Option<String>,
    /// Whether it answers by RPC.
    pub rpc: bool,
    /// Whether it is connected by P2P.
    pub p2p: bool,
    /// Whether its ZMQ notifications come.
    pub zmq: bool,
    /// Its best block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bestblockhash: Option<String>,
    /// The height of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks: Option<u32>,
    /// How many blocks it is behind this node's header chain; negative if it is ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<i64>,
    /// Why it is not connected by P2P although it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p2p_error: Option<String>,
    /// What it said of the blocks that it was given.
    pub submitted: Counts,
}

/// Answers to `submitblock`, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// It took the block, and had it from nowhere else.
    pub accepted: u64,
    /// It had the block.
    pub duplicate: u64,
    /// It could not say.
    pub inconclusive: u64,
    /// It called the block invalid.
    pub invalid: u64,
    /// It could not be asked.
    pub failed: u64,
}

impl Counts {
    /// Counts one answer.
    pub fn count(&mut self, verdict: &Verdict) {
        let counter = match verdict {
            Verdict::Accepted => &mut self.accepted,
            Verdict::Duplicate => &mut self.duplicate,
            Verdict::Inconclusive => &mut self.inconclusive,
            Verdict::Invalid(_) => &mut self.invalid,
            Verdict::Failed(_) => &mut self.failed,
        };
        *counter += 1;
    }
}
