//! What a peer tells its owner.

use std::net::IpAddr;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bytes::Bytes;

use super::{AddressRecord, Advert, BlockForm, CompactBlock, TransactionId};

/// What happened on a connection.
///
/// Events that want headers, hashes, a block or parts of one come one at a time: the next waits until the last was answered
/// by a command ([`super::PeerCommand::SendNothing`] if need be), or was left unanswered for 30 seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// The handshake is done.
    Ready(PeerInfo),
    /// A peer too old for BIP434 told what it is, after [`PeerEvent::Ready`].
    Advertised(Advert),
    /// Headers, asked for or announced; each the parent of the next, and nothing else was checked.
    Headers(Vec<Header>),
    /// Blocks that the peer has: the last of its announcement, at most [`super::MAX_TOLD_BLOCKS`].
    BlocksAnnounced(Vec<BlockHash>),
    /// A block that we asked for (or any, from our own node), serialized, with its boundaries checked and nothing
    /// else.
    Block {
        /// Hash of its header.
        hash: BlockHash,
        /// The block.
        block: Bytes,
    },
    /// A compact block, asked for or announced; its encoding was checked and nothing else.
    CompactBlock(CompactBlock),
    /// Transactions of a compact block that we asked for, in the order asked.
    BlockTransactions {
        /// Hash of the block.
        hash: BlockHash,
        /// One for each index.
        transactions: Vec<Bytes>,
    },
    /// Transactions that the peer has.
    TransactionsAnnounced(Vec<TransactionId>),
    /// A transaction that we asked for; its boundaries were checked and nothing else.
    Transaction(Bytes),
    /// Blocks, or parts of them, that we asked for and will not get from this peer: it said so, or two minutes have
    /// passed (Bitcoin Core says nothing).
    BlocksNotFound(Vec<BlockHash>),
    /// Transactions that we asked for and will not get.
    TransactionsNotFound(Vec<TransactionId>),
    /// Addresses, at most 1,000, within the rate that Bitcoin Core allows; only those of IPv4 and IPv6.
    Addresses(Vec<AddressRecord>),
    /// Answer with [`super::PeerCommand::SendHeaders`] or [`super::PeerCommand::SendNothing`].
    WantsHeaders {
        /// Hashes of the peer's chain, newest first, at most 101.
        locator: Vec<BlockHash>,
        /// The last one wanted.
        stop: Option<BlockHash>,
    },
    /// Answer with [`super::PeerCommand::SendBlockHashes`] or [`super::PeerCommand::SendNothing`]. Nodes that do not
    /// go by headers ask so for what they lack.
    WantsBlockHashes {
        /// Hashes of the peer's chain, newest first, at most 101.
        locator: Vec<BlockHash>,
        /// The last one wanted.
        stop: Option<BlockHash>,
    },
    /// Answer with [`super::PeerCommand::SendBlock`], [`super::PeerCommand::SendCompactBlock`] or
    /// [`super::PeerCommand::SendNothing`]. A compact block of long ago may be answered with the whole one.
    WantsBlock {
        /// Hash of the block.
        hash: BlockHash,
        /// In which form.
        form: BlockForm,
    },
    /// Answer with [`super::PeerCommand::SendBlockTransactions`], or for a block of long ago with
    /// [`super::PeerCommand::SendBlock`].
    WantsBlockTransactions {
        /// Hash of the block.
        hash: BlockHash,
        /// Indexes, ascending, none twice; whether the block has as many is for the owner to see.
        indexes: Vec<u32>,
    },
    /// May be answered with [`super::PeerCommand::SendAddresses`]; nothing waits for it. Comes once at most.
    WantsAddresses,
    /// The least fee rate of transactions that the peer takes, in satoshi per 1,000 virtual bytes.
    FeeFilter(u64),
    /// The peer broke a rule; at 100 points in all [`PeerEvent::Closed`] follows.
    Misbehaved {
        /// Points of this breach.
        points: u32,
        /// What it did.
        reason: &'static str,
    },
    /// The answer to [`super::PeerCommand::Report`].
    Report(Box<PeerReport>),
    /// The connection is over; nothing follows.
    Closed(CloseReason),
}

/// What the handshake told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// The version of the protocol that the peer speaks, at least [`super::MIN_PEER_VERSION`].
    pub version: u32,
    /// The services that it claims; a claim and no more.
    pub services: u64,
    /// The name that it gives itself, at most 256 bytes; anything but printable ASCII was replaced.
    pub agent: String,
    /// The height that it claims.
    pub start_height: u32,
    /// What it told by BIP434.
    pub advert: Option<Advert>,
    /// Whether the transport is BIP324's.
    pub v2: bool,
    /// Whether it wants transactions.
    pub relay_transactions: bool,
    /// Whether transactions are announced by their wtxid (BIP339).
    pub wtxid_relay: bool,
    /// Seconds that its clock is ahead of ours.
    pub clock_offset_s: i64,
    /// Our own IP address as the peer sees it, or says so.
    pub sees_us_at: Option<IpAddr>,
}

impl PeerInfo {
    /// Whether it takes a block that it did not ask for, whole or compact, if it comes from its own operator's relay.
    ///
    /// Bitcoin Core does, and saves a round trip; others (btcd, bcoin) close the connection for it. Nothing in the
    /// protocol tells which, but the name: Bitcoin Core and what derives from it begin theirs with `/Satoshi:`.
    pub fn takes_unasked_blocks(&self) -> bool {
        self.agent.starts_with("/Satoshi:")
    }
}

/// What can be said of a connection at any time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerReport {
    /// Bytes received, as they came over the wire.
    pub bytes_received: u64,
    /// Bytes sent, likewise.
    pub bytes_sent: u64,
    /// Messages received.
    pub messages_received: u64,
    /// Messages sent.
    pub messages_sent: u64,
    /// The last answered ping's time.
    pub ping: Option<Duration>,
    /// The shortest one.
    pub least_ping: Option<Duration>,
    /// Whether the peer asked for compact blocks at once.
    pub wants_high_bandwidth: bool,
    /// Points for misbehaviour.
    pub misbehaviour: u32,
    /// What was refused, and how often.
    pub refused: Vec<(Refusal, u64)>,
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// By command.
    #[error("closed by us: {0}")]
    Asked(&'static str),
    /// The peer closed it.
    #[error("closed by the peer")]
    Remote,
    /// It was never established.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// The operating system reported an error.
    #[error("connection failed: {0}")]
    Failed(String),
    /// The peer closed, or let a minute pass, before it said a word in BIP324: dial again without.
    #[error("the peer does not speak the encrypted transport")]
    NoV2,
    /// The handshake took more than a minute.
    #[error("no handshake in time")]
    HandshakeTimeout,
    /// No answer to a ping, or not a byte.
    #[error("no sign of life")]
    Silent,
    /// What we sent was not taken.
    #[error("the peer does not read")]
    NotReading,
    /// The feeler has felt.
    #[error("a feeler's work is done")]
    FeelerDone,
    /// We dialled ourselves.
    #[error("connected to itself")]
    OurselfNonce,
    /// The peer speaks an old version.
    #[error("protocol version {0} is too old")]
    TooOld(u32),
    /// The magic of another network, or none.
    #[error("another network, or not Bitcoin's protocol")]
    WrongMagic,
    /// The peer broke rules.
    #[error("misbehaved: {0}")]
    Misbehaved(&'static str),
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $points:literal;)+) => {
        /// Why something that a peer sent was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Refusal {
            $($(#[$doc])* $name,)+
        }

        impl Refusal {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// A short name for counters and logs.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// Points for misbehaviour; at 100 the peer is closed, at 0 only a counter tells.
            pub const fn points(self) -> u32 {
                match self { $(Self::$name => $points,)+ }
            }
        }
    };
}

refusals! {
    /// A message longer than its kind may be.
    Oversized = "oversized message", 100;
    /// A v1 checksum that is not its payload's: dropped, as Bitcoin Core does.
    Checksum = "wrong checksum", 0;
    /// The magic of another network, or of none.
    Magic = "wrong magic", 0;
    /// A command that is none: dropped, as Bitcoin Core does.
    Command = "malformed command", 0;
    /// BIP324: a packet that does not decrypt, or a handshake that is none.
    Encryption = "undecryptable packet", 100;
    /// A small payload that does not decode. Bitcoin Core passes over such a message; five are too many here.
    Malformed = "malformed payload", 20;
    /// A block, a transaction or parts of a compact block that do not decode.
    MalformedData = "malformed block or transaction", 100;
    /// A message that may not come now.
    Order = "message out of order", 10;
    /// A second `version`, `verack` and the like.
    Duplicate = "duplicate message", 10;
    /// More blocks in one `inv` than answer a `getblocks`, which we never send.
    Inventories = "inventory of too many blocks", 20;
    /// More entries than the protocol allows.
    TooMany = "too many entries", 100;
    /// Headers in one message of which one does not follow the one before.
    Discontinuous = "headers that do not follow one another", 100;
    /// Headers that connect to nothing, ten times in a row.
    Unconnecting = "headers that connect to nothing", 100;
    /// A block, transaction or part that we did not ask for.
    Unsolicited = "unsolicited data", 1;
    /// A transaction though we said that we want none.
    Transactions = "transaction in spite of no relay", 100;
    /// A compact block that cannot be one.
    Compact = "invalid compact block", 100;
    /// More asked, and not yet answered, than anybody needs.
    TooManyRequests = "too many requests", 100;
    /// Addresses beyond the rate that Bitcoin Core allows.
    AddressRate = "addresses above the rate", 0;
    /// Addresses that are not IPv4 or IPv6.
    AddressKind = "addresses of other networks", 0;
    /// `getaddr` a second time, or from whom we dialled.
    AddressAsk = "addresses asked again", 0;
    /// A kind of message that we know and do not serve.
    Unserved = "not served", 0;
    /// A kind of message that we do not know.
    Unknown = "unknown message", 0;
    /// A request that its owner left unanswered.
    Unanswered = "request unanswered", 0;
    /// A command of ours that was not carried out because too much is waiting.
    Backlog = "command dropped", 0;
}
