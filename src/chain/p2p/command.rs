//! What the owner of a peer can tell it to do.

use bitcoin::block::Header;
use bitcoin::{BlockHash, Txid, Wtxid};
use bytes::Bytes;

use super::AddressRecord;

/// A command to a peer. Commands before the handshake is done are kept back until it is, but for
/// [`PeerCommand::Disconnect`] and [`PeerCommand::Report`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerCommand {
    /// Ask for the headers after a locator (newest first, at most 101), up to `stop` if that is given.
    GetHeaders {
        /// Hashes of ours, newest first.
        locator: Vec<BlockHash>,
        /// The last one wanted; `None`: as many as there are.
        stop: Option<BlockHash>,
    },
    /// Ask for a block. At most 16 may be under way, more are not asked (a counter says so).
    GetBlock {
        /// Its hash.
        hash: BlockHash,
        /// In which form.
        form: BlockForm,
    },
    /// Ask for transactions of a compact block, by their indexes in ascending order.
    GetBlockTransactions {
        /// Hash of the block.
        hash: BlockHash,
        /// Indexes, ascending, none twice.
        indexes: Vec<u32>,
    },
    /// Ask for transactions that were announced.
    GetTransactions(Vec<TransactionId>),
    /// Ask for addresses. An ordinary node answers once, and only whoever dialled it.
    GetAddresses,
    /// Answers [`super::PeerEvent::WantsHeaders`]: at most 2,000.
    SendHeaders(Vec<Header>),
    /// Answers [`super::PeerEvent::WantsBlockHashes`]: at most 500.
    SendBlockHashes(Vec<BlockHash>),
    /// Answers [`super::PeerEvent::WantsBlock`] with a serialized block in the form that was asked.
    SendBlock(Bytes),
    /// Answers [`super::PeerEvent::WantsBlock`] with the payload of a `cmpctblock`.
    SendCompactBlock(Bytes),
    /// Answers [`super::PeerEvent::WantsBlockTransactions`].
    SendBlockTransactions {
        /// Hash of the block.
        hash: BlockHash,
        /// In the order of the indexes asked.
        transactions: Vec<Bytes>,
    },
    /// Answers any event that wants headers, a block or parts of one: there is nothing to be had.
    SendNothing,
    /// Addresses for the peer: as the answer to [`super::PeerEvent::WantsAddresses`], or gossip. At most 1,000.
    SendAddresses(Vec<AddressRecord>),
    /// Tell of a new block, in the way that the peer prefers; nothing if it knows the block.
    AnnounceBlock(BlockSummary),
    /// Send a whole block unasked: for our own node, if [`super::PeerInfo::takes_unasked_blocks`] says so.
    PushBlock {
        /// Its hash.
        hash: BlockHash,
        /// The block with its witnesses.
        block: Bytes,
    },
    /// Ask the peer to announce blocks by compact blocks at once (high bandwidth), or not.
    WantCompactBlocks {
        /// At once, rather than by header.
        high_bandwidth: bool,
    },
    /// Whether the last headers connected to known ones; some that do not, again and again, are misbehaviour.
    HeadersConnected(bool),
    /// The owner found fault with what the peer sent. At 100 points it is closed.
    Misbehave {
        /// From 1 to 100.
        points: u32,
        /// What it did, for the log.
        reason: &'static str,
    },
    /// Close the connection.
    Disconnect(&'static str),
    /// Answer with [`super::PeerEvent::Report`].
    Report,
}

/// In which form a block goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockForm {
    /// Whole, with witnesses.
    Witness,
    /// Whole, without witnesses (what old wallets ask).
    Stripped,
    /// As a compact block, version 2.
    Compact,
}

/// A block to tell of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSummary {
    /// Its header.
    pub header: Header,
    /// The payload of a `cmpctblock`, if there is one.
    pub compact: Option<Bytes>,
}

/// A transaction by one of its two ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransactionId {
    /// Hash of all but the witnesses.
    Txid(Txid),
    /// Hash of all (BIP339).
    Wtxid(Wtxid),
}
