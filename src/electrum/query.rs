//! What sessions ask, and what they are told: the seam between the protocol, which knows JSON and versions, and the data,
//! which knows the chain and the mempool.
//!
//! Everything here is in internal byte order and in satoshis; how it is written is the protocol's matter.

use bytes::Bytes;

use super::proof::Branch;
use super::script_hash::ScriptHash;
use super::status::Unconfirmed;
use crate::merkle::Hash;

/// Headers in one answer. Reason: that is what clients ask for, the headers between two adjustments of the difficulty, and
/// Electrum leaves a server that gives fewer.
pub const MAX_HEADERS: u32 = 2_016;

/// Transactions of a package. Reason: Bitcoin Core takes no more (`MAX_PACKAGE_COUNT`), and it is the node that judges them.
pub const MAX_PACKAGE: usize = 25;

/// Transactions that [`Query::Recent`] tells of. Reason: protocol 1.7 says ten.
pub const MAX_RECENT: usize = 10;

/// A question about the chain or the mempool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// One header, with its branch to the root over all headers up to the checkpoint if one is named.
    Header {
        /// Of the header.
        height: u32,
        /// The last height that the root covers; at least `height`.
        checkpoint: Option<u32>,
    },
    /// Consecutive headers, as many as there are, with the branch of the last one.
    Headers {
        /// The first one's height.
        start: u32,
        /// At most [`MAX_HEADERS`].
        count: u32,
        /// The last height that the root covers.
        checkpoint: Option<u32>,
    },
    /// What a script holds.
    Balance(ScriptHash),
    /// All transactions of a script.
    History(ScriptHash),
    /// Those of them that are in the mempool.
    Mempool(ScriptHash),
    /// A script's unspent outputs.
    Unspent(ScriptHash),
    /// The hash over a script's history.
    Status(ScriptHash),
    /// Where an output was made and where it was spent.
    Outpoint {
        /// The transaction that has the output.
        txid: Hash,
        /// Its number there.
        index: u32,
        /// Its script.
        script: ScriptHash,
    },
    /// A transaction as serialized.
    Transaction(Hash),
    /// A transaction as the node's `getrawtransaction` describes it.
    VerboseTransaction(Hash),
    /// A transaction's branch in the block at this height.
    Merkle {
        /// Its id.
        txid: Hash,
        /// The block's height; any, if not said.
        height: Option<u32>,
    },
    /// The id of the transaction at this place, with its branch if that is wanted.
    IdAt {
        /// The block's height.
        height: u32,
        /// The place in the block.
        position: u32,
        /// Whether the branch is wanted.
        merkle: bool,
    },
    /// Gives a transaction to the node.
    Broadcast(Bytes),
    /// Gives transactions that depend on each other to the node: at most [`MAX_PACKAGE`].
    BroadcastPackage(Vec<Bytes>),
    /// Whether the node would take these transactions: at most [`MAX_PACKAGE`].
    TestAccept(Vec<Bytes>),
    /// What the node thinks is to be paid to be confirmed within so many blocks.
    EstimateFee {
        /// The blocks.
        blocks: u32,
        /// As the node takes it: `CONSERVATIVE` or `ECONOMICAL`.
        mode: Option<FeeMode>,
    },
    /// What the node asks for at least to relay.
    MempoolInfo,
    /// What is paid in the mempool.
    FeeHistogram,
    /// The latest of the mempool: at most [`MAX_RECENT`].
    Recent,
}

/// How careful an estimate of fees is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeeMode {
    /// Rather too much than too late.
    Conservative,
    /// Rather too late than too much.
    Economical,
}

/// What is told for a [`Query`].
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// One header.
    Header {
        /// As serialized.
        header: [u8; 80],
        /// Where a checkpoint was named.
        branch: Option<Branch>,
    },
    /// Consecutive headers.
    Headers {
        /// One behind the other, 80 bytes each.
        headers: Bytes,
        /// Where a checkpoint was named and there is any header.
        branch: Option<Branch>,
    },
    /// What a script holds.
    Balance {
        /// In satoshis, what blocks say.
        confirmed: u64,
        /// What the mempool adds to it, or takes.
        unconfirmed: i64,
    },
    /// Transactions in the order of the protocol: those in blocks as in the chain, then the mempool's by
    /// [`super::status::sort_mempool`].
    History(Vec<HistoryItem>),
    /// Outputs in the order of the chain, then the mempool's by the same order and number.
    Unspent(Vec<UnspentItem>),
    /// The hash over a history; `None` if there is none.
    Status(Option<[u8; 32]>),
    /// An output's life.
    Outpoint {
        /// Where it was made, if it was.
        funder: Option<Place>,
        /// Who spent it, and where that is.
        spender: Option<(Hash, Place)>,
    },
    /// A transaction as serialized.
    Transaction(Bytes),
    /// What the node said, as it is.
    Json(serde_json::Value),
    /// A transaction's place in its block.
    Merkle {
        /// The block's height.
        height: u32,
        /// The place in the block.
        position: u32,
        /// The nodes beside its path, the lowest first.
        nodes: Vec<Hash>,
    },
    /// A transaction's id.
    IdAt {
        /// The id.
        txid: Hash,
        /// The nodes beside its path, where they were wanted.
        nodes: Option<Vec<Hash>>,
    },
    /// The node took a transaction.
    Broadcast(Hash),
    /// What became of a package.
    Package(PackageAnswer),
    /// What the node would do with transactions, in the order in which they were named.
    TestAccept(Vec<TestAccepted>),
    /// In satoshis per 1,000 virtual bytes; `None` if the node can't tell.
    EstimateFee(Option<u64>),
    /// In satoshis per 1,000 virtual bytes.
    MempoolInfo {
        /// What is asked for to get in now.
        mempool_min: u64,
        /// What is asked for to be relayed, however empty the mempool.
        relay_min: u64,
        /// What a replacement has to pay beyond.
        incremental: u64,
    },
    /// Rates in satoshis per virtual byte, falling, each with the virtual bytes that pay as much and less than the one before.
    FeeHistogram(Vec<(f64, u64)>),
    /// The latest first.
    Recent(Vec<RecentItem>),
}

/// Where a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the block at this height.
    Block(u32),
    /// In the mempool.
    Mempool(Unconfirmed),
}

impl Place {
    /// The height as the protocol writes it: 0 or -1 in the mempool.
    pub fn height(self) -> i64 {
        match self {
            Self::Block(height) => height.into(),
            Self::Mempool(unconfirmed) => unconfirmed.height().into(),
        }
    }
}

/// One transaction of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryItem {
    /// Its id.
    pub txid: Hash,
    /// Where it is.
    pub place: Place,
    /// In satoshis, for what is in the mempool.
    pub fee: Option<u64>,
}

/// One unspent output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnspentItem {
    /// The transaction that has it.
    pub txid: Hash,
    /// Its number there.
    pub index: u32,
    /// The block's height; 0 for what is in the mempool, whatever that spends.
    pub height: u32,
    /// In satoshis.
    pub value: u64,
}

/// One transaction of the mempool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecentItem {
    /// Its id.
    pub txid: Hash,
    /// In satoshis.
    pub fee: u64,
    /// Its virtual size (BIP141).
    pub vsize: u64,
}

/// What a node did with a package.
#[derive(Clone, Debug, PartialEq)]
pub struct PackageAnswer {
    /// Whether it took all of it.
    pub success: bool,
    /// Transactions that it refused, with its reason.
    pub errors: Vec<(Hash, String)>,
    /// All that it said.
    pub verbose: serde_json::Value,
}

/// What a node would do with a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestAccepted {
    /// Its id.
    pub txid: Hash,
    /// Its id with the witness.
    pub wtxid: Hash,
    /// Whether it would be taken; `None` if the node did not look at it, for another one's sake.
    pub allowed: Option<bool>,
    /// Why not.
    pub reason: Option<String>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such block, transaction or place; or the question is not sound. What is wrong, for the one who asked.
    #[error("{0}")]
    Bad(String),
    /// The node refused it, in its own words.
    #[error("{message}")]
    Node {
        /// Of JSON-RPC (`src/rpc/protocol.h` of Bitcoin Core).
        code: i64,
        /// What it said.
        message: String,
    },
    /// A history longer than this server tells.
    #[error("history too large")]
    HistoryTooLarge,
    /// The index is not built yet, or the node cannot be reached: what is lacking.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Too much is waiting already.
    #[error("server busy")]
    Busy,
    /// A fault of this server's, which its log has.
    #[error("internal error")]
    Internal,
}

/// What came of a question.
#[derive(Debug)]
pub struct Told {
    /// The answer.
    pub answer: Result<Answer, Refusal>,
    /// Transactions that had to be looked at: what a session is charged by.
    pub looked_at: u32,
}

/// The tip of the chain as clients are told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// Its height.
    pub height: u32,
    /// As serialized.
    pub header: [u8; 80],
}

/// What changed in chain and mempool at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The new tip, where it is another one.
    pub tip: Option<Tip>,
    /// Scripts whose status may be another, sorted; also those whose transactions only moved from -1 to 0.
    pub scripts: Vec<ScriptHash>,
    /// Outputs that were made, spent, or whose maker or spender moved; sorted.
    pub outpoints: Vec<(Hash, u32)>,
}
