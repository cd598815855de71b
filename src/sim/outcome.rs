//! What came of a run, whichever protocol it was; and what runs come to together.

mod report;

use serde::Serialize;

pub use report::{Row, percentile};

/// What came of one run of a scenario with one seed.
///
/// Times are milliseconds. `whole_ms` and the like count from when the first block was handed in (which happens at 0).
/// Bytes are payload of datagrams and of streams, from then on; headers of IP, UDP and TCP are not counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// The scenario's name.
    pub scenario: String,
    /// The protocol's name.
    pub protocol: String,
    /// The seed that repeats the run.
    pub seed: u64,
    /// How many nodes there were, adversaries included.
    pub nodes: usize,
    /// Each block, in the order in which they were handed in.
    pub blocks: Vec<BlockOutcome>,
    /// What passed at each node, by its number.
    pub traffic: Vec<NodeTraffic>,
    /// Virtual time from the first block to the end of the run.
    pub ended_ms: f64,
    /// Happenings that the run consisted of: the work that a simulation is.
    pub happenings: u64,
    /// Differs between runs in which anything was sent or happened otherwise; 0 for protocols without datagrams.
    pub trace_hash: u64,
    /// What must never happen and did, in words.
    pub violations: Vec<String>,
}

/// What became of one block.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BlockOutcome {
    /// Its hash, as people write it.
    pub hash: String,
    /// Its size.
    pub bytes: u64,
    /// Its transactions, the coinbase included.
    pub transactions: u32,
    /// Where it was handed in.
    pub source: usize,
    /// When.
    pub submitted_ms: f64,
    /// Every node's part, by its number.
    pub nodes: Vec<NodeOutcome>,
}

/// What a block was to one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NodeOutcome {
    /// Whether it counts, as [`super::Trial::counting`] says.
    pub counts: bool,
    /// When it had the block whole and verified, from the block's submission; `None`: never.
    pub whole_ms: Option<f64>,
    /// How soon it could have had it at best, from the block's submission; `None`: no way led there.
    pub bound_ms: Option<f64>,
    /// Bytes that had to cross to it.
    pub bytes_to_cross: u64,
    /// Whether it had the block whole without having asked anyone for any of it.
    pub request_free: bool,
    /// The chunks of the block, or whatever pieces the protocol has, as they were whole here.
    pub pieces: Vec<Piece>,
}

/// A piece of a block, whole and verified at a node.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Piece {
    /// When, from the block's submission.
    pub at_ms: f64,
    /// Which, from 0.
    pub index: u32,
    /// Who gave what completed it.
    pub from: PieceSource,
}

/// Who completed a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PieceSource {
    /// It was this node's own block.
    Own,
    /// The transactions that it held.
    Mempool,
    /// Another node.
    Node(usize),
    /// Another node, the connection to which has ended since.
    Gone,
}

/// What passed at one node after the first block was handed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NodeTraffic {
    /// Bytes that arrived.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Datagrams or segments that arrived.
    pub packets_in: u64,
    /// Datagrams or segments sent.
    pub packets_out: u64,
    /// Requests for data sent.
    pub requests: u64,
}

impl NodeTraffic {
    /// What of it came after `before`.
    pub const fn since(&self, before: &Self) -> Self {
        Self {
            bytes_in: self.bytes_in - before.bytes_in,
            bytes_out: self.bytes_out - before.bytes_out,
            packets_in: self.packets_in - before.packets_in,
            packets_out: self.packets_out - before.packets_out,
            requests: self.requests - before.requests,
        }
    }
}

impl NodeOutcome {
    /// How much later than the bound the block was whole.
    pub fn added_delay_ms(&self) -> Option<f64> {
        Some(self.whole_ms? - self.bound_ms?)
    }
}

impl Outcome {
    /// Every node's part in every block, of those that count.
    pub fn parts(&self) -> impl Iterator<Item = &NodeOutcome> {
        let all = self.blocks.iter().flat_map(|block| &block.nodes);
        all.filter(|part| part.counts)
    }

    /// Whether every node that counts has every block.
    pub fn is_complete(&self) -> bool {
        self.parts().all(|part| part.whole_ms.is_some())
    }
}
