//! What goes in and out of the engine besides bytes: configuration, events, snapshots, and the judge
//! of headers that the engine asks before it takes a job.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::stats::Refusal;
use crate::mempool::Transaction;
use crate::merkle::Hash;
use crate::time::Time;
use crate::wire::{DisconnectReason, PeerAddress};

/// Names one control connection for as long as the engine knows it.
///
/// The slot is reused after the session has ended; the generation tells the uses apart, so that a late
/// call for an ended session is refused and does not reach its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl std::fmt::Display for SessionId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{}",
            u64::from(self.generation) << 16 | u64::from(self.slot)
        )
    }
}

impl SessionId {
    /// The session as one number, the `id` of `getpeerinfo`.
    pub fn as_number(self) -> u64 {
        u64::from(self.generation) << 16 | u64::from(self.slot)
    }
}

/// Who opened the control connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initiator {
    /// The other side connected to us.
    Inbound,
    /// We connected to the other side.
    Outbound,
}

/// What an engine is told once, at its start.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The four magic bytes of the Bitcoin network, little-endian, as in BTVERSION.
    pub network_magic: u32,
    /// Largest serialized block that is taken, in bytes.
    pub max_block_bytes: u32,
    /// Largest number of transactions in a block that is taken.
    pub max_transactions: u32,
    /// UDP port that peers are told in BTVERSION.
    pub udp_port: u16,
    /// TCP port of our control connections that peers are told (SET_PARAMS key 9); 0: they are told none.
    pub control_port: u16,
    /// TCP port where we speak Bitcoin's P2P protocol (SET_PARAMS key 10); 0: they are told none.
    pub bitcoin_port: u16,
    /// How far first flights to us shall go, 0 to 3 (SET_PARAMS key 6).
    pub push_level: u8,
    /// 0 for bandwidth to 255 for latency (SET_PARAMS key 3).
    pub preference: u8,
    /// 0 relay, 1 miner, 2 operator, 3 researcher: a claim, told to peers (SET_PARAMS key 4).
    pub role: u8,
    /// Cap on what is sent to one peer, bytes per second; `None` leaves it to what is measured.
    pub max_up_bytes_per_s: Option<u64>,
    /// Cap told to peers on what they send to us, bytes per second.
    pub max_down_bytes_per_s: Option<u64>,
    /// Largest UDP datagram, in payload bytes, that path probes may try (at least 1,200).
    pub max_datagram: u16,
    /// Sessions at once, inbound and outbound together.
    pub max_peers: usize,
    /// Of these, slots that no inbound session gets; at most half of them count.
    pub reserved_outbound: usize,
    /// Inbound sessions at once from one network group (the first 16 bits of an IPv4 address, 32 of an IPv6
    /// address). Loopback addresses are in no group.
    pub max_inbound_per_group: usize,
    /// Bound of the transaction cache, in bytes.
    pub max_mempool_bytes: usize,
    /// Name and version told to peers, at most 64 printable ASCII bytes.
    pub agent: String,
    /// Test option: alter what is forwarded, to see that others refuse it.
    pub lie: bool,
}

/// The answer of a [`HeaderJudge`] about a header that it accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderVerdict {
    /// Height of the block.
    pub height: u32,
    /// Whether the block is recent enough for a job.
    pub in_window: bool,
    /// Whether BIP141 is in force at this height: then a coinbase that commits to witnesses must have the
    /// reserved value in its own.
    pub segwit_active: bool,
}

/// The answer of a [`HeaderJudge`] about a header that it does not accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderRefusal {
    /// Its parent is not known; nothing is said about its sender.
    UnknownParent,
    /// It breaks a rule of the header chain; its sender could have known. The text names the rule.
    Invalid(&'static str),
    /// It is valid as far as can be told, and too deep below the tip to be of interest.
    TooOld,
    /// Its time is too far ahead; it may become valid.
    TooEarly,
}

/// Decides whether a header shows the work that its context demands.
///
/// The engine calls it before it keeps anything for a block. Implementations know the header chain
/// (`chain::headers` in the node, a closure in tests).
pub trait HeaderJudge {
    /// Judges `header` at time `now`, and remembers it if it is accepted.
    fn accept(&mut self, header: &[u8; 80], now: Time) -> Result<HeaderVerdict, HeaderRefusal>;
    /// Hash of the best block's header, told to peers in BTVERSION.
    fn tip(&self) -> Hash;
}

/// Where a peer can be reached beside the control connection, as it says itself in its handshake; all at the IP
/// address of that connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Doors {
    /// The version of this protocol that was agreed on.
    pub version: u16,
    /// UDP port of its datagrams; 0: none.
    pub data_port: u16,
    /// TCP port where it takes control connections (SET_PARAMS key 9); 0: none, or it did not say.
    pub control_port: u16,
    /// TCP port where it speaks Bitcoin's P2P protocol (SET_PARAMS key 10); 0: none, or it did not say.
    pub bitcoin_port: u16,
}

/// A datagram to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// Bytes of it, at the start of the buffer that was handed in.
    pub len: usize,
}

/// Why the engine wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeReason {
    /// A session's pacer lets the next datagram go.
    Pacing,
    /// A report, a loss deadline or a keep-alive of a session is due.
    Session,
    /// A job asks again, or gives up.
    Job,
}

/// Where a datum came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// This node's own block: handed in by `submit_block`.
    Local,
    /// The transaction cache, guided by short ids of the session.
    Mempool(SessionId),
    /// A peer sent it.
    Peer(SessionId),
}

/// Something that happened, in the order it happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A session has finished its handshake.
    SessionUp {
        /// The session.
        session: SessionId,
        /// Name and version that the peer gave.
        agent: String,
        /// Where it can be reached, as it says.
        doors: Doors,
    },
    /// The session has ended; the router closes its TCP connection once its last bytes are out.
    SessionDown {
        /// The session.
        session: SessionId,
        /// Why, in a word or two.
        reason: &'static str,
        /// The reason that one side gave the other on the wire, if one did.
        code: Option<DisconnectReason>,
    },
    /// The UDP path of a session was proven in both directions, or was lost.
    PathChanged {
        /// The session.
        session: SessionId,
        /// Whether data goes over UDP from now on.
        udp: bool,
    },
    /// A peer told of other nodes (BTADDR); nothing of it is checked.
    Addresses {
        /// Who told.
        session: SessionId,
        /// At most 100, within the rate that is allowed.
        addresses: Vec<PeerAddress>,
    },
    /// A peer asks for other nodes (BTGETADDR); comes once for a session (DSC-2). May be answered by
    /// `Engine::send_addresses`.
    AddressesWanted {
        /// Who asks.
        session: SessionId,
    },
    /// A block is being received or served.
    JobOpened {
        /// Hash of the block, internal byte order.
        block: Hash,
        /// Height of the block.
        height: u32,
        /// Transactions in the block, as claimed.
        transactions: u32,
        /// Chunks that the block is cut into.
        chunks: u32,
        /// Who opened it.
        source: Source,
    },
    /// All transactions of a chunk are here and verified.
    ChunkVerified {
        /// Hash of the block, internal byte order.
        block: Hash,
        /// Index of the chunk.
        chunk: u32,
        /// Whose datum completed it.
        source: Source,
    },
    /// A block is whole.
    BlockComplete {
        /// Hash of the block, internal byte order.
        block: Hash,
        /// Height of the block.
        height: u32,
        /// The block.
        whole: Arc<CompleteBlock>,
        /// From the first that was heard of it to now.
        elapsed: Duration,
        /// Requests that were sent for it.
        requests: u64,
        /// Whether it came through `submit_block`.
        local: bool,
    },
    /// A job was given up.
    JobClosed {
        /// Hash of the block, internal byte order.
        block: Hash,
        /// Why.
        reason: &'static str,
    },
    /// A datum of a peer was refused and scored.
    Refused {
        /// Who sent it.
        session: SessionId,
        /// What was wrong.
        refusal: Refusal,
        /// The score of the session after it.
        score: u32,
    },
}

/// Why `submit_block` did not take a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitRefusal {
    /// The bytes are no serialized block.
    #[error("block decode failed: {0}")]
    Malformed(String),
    /// The header was not accepted.
    #[error("header not accepted: {0:?}")]
    Header(HeaderRefusal),
    /// The transactions do not match the header.
    #[error("bad-txnmrklroot")]
    MerkleRoot,
    /// The witnesses do not match the commitment in the coinbase.
    #[error("bad-witness-merkle-match")]
    Witness,
    /// The block is already here.
    #[error("duplicate")]
    Duplicate,
}

/// A whole block, as its bytes and in its parts.
#[derive(Clone, Debug)]
pub struct CompleteBlock {
    /// The serialized block.
    pub bytes: Bytes,
    /// Its transactions, the coinbase first, with both ids.
    pub transactions: Vec<Transaction>,
    /// Places of transactions that had not been in the cache, in the order in which they came; the coinbase,
    /// which never is, left out.
    pub lacked: Vec<u32>,
}

/// One peer, for `getpeerinfo`.
#[derive(Clone, Debug)]
pub struct PeerSnapshot {
    /// The session.
    pub session: SessionId,
    /// Address of the control connection.
    pub address: SocketAddr,
    /// Who connected.
    pub initiator: Initiator,
    /// Whether the handshake is done.
    pub established: bool,
    /// Whether data goes over UDP.
    pub udp: bool,
    /// Whether its path is proven and the probes of it have not ended.
    pub probing: bool,
    /// Name and version that the peer gave.
    pub agent: String,
    /// When the connection was made.
    pub connected: Time,
    /// Bytes received: control and datagrams.
    pub bytes_in: u64,
    /// Bytes sent: control and datagrams.
    pub bytes_out: u64,
    /// Datagrams received that passed the filter.
    pub datagrams_in: u64,
    /// Datagrams sent.
    pub datagrams_out: u64,
    /// Datagrams sent that were lost, as far as reports tell.
    pub datagrams_lost: u64,
    /// Smoothed round-trip time, once measured.
    pub round_trip: Option<Duration>,
    /// Sending rate that the pacer would allow now, bytes per second.
    pub rate_bytes_per_s: u64,
    /// Largest datagram in use towards the peer, bytes.
    pub max_datagram: u16,
    /// How far the peer wants first flights to go.
    pub push_level: u8,
    /// The role that the peer claims, if it named one.
    pub role: Option<u8>,
    /// What the peer wants spared, 0 (bandwidth) to 255 (latency), if it said so.
    pub preference: Option<u8>,
    /// Whether we asked it for full first flights.
    pub eager: bool,
    /// Points of misbehaviour; at 100 the session is ended.
    pub score: u32,
}

/// One job, for `getjobinfo`.
#[derive(Clone, Debug)]
pub struct JobSnapshot {
    /// Hash of the block, internal byte order.
    pub block: Hash,
    /// Height of the block.
    pub height: u32,
    /// Transactions of the block.
    pub transactions: u32,
    /// Of these, verified here.
    pub verified_transactions: u32,
    /// Chunks of the block.
    pub chunks: u32,
    /// Of these, verified here.
    pub verified_chunks: u32,
    /// Chunks of which something was sent on before the block was whole here.
    pub chunks_forwarded_before_complete: u32,
    /// Whether the block is whole here.
    pub complete: bool,
    /// When it was first heard of.
    pub opened: Time,
    /// When the first chunk was verified.
    pub first_chunk: Option<Time>,
    /// When the block was whole.
    pub completed: Option<Time>,
    /// Serialized size in bytes: known once complete, before that as claimed.
    pub bytes: u32,
    /// Requests sent for it.
    pub requests: u64,
    /// Chunks by the source that completed them, in order of source.
    pub sources: Vec<(Source, u32)>,
}

/// Counters of the whole engine.
#[derive(Clone, Debug, Default)]
pub struct EngineTotals {
    /// Bytes received: control and datagrams.
    pub bytes_in: u64,
    /// Bytes sent: control and datagrams.
    pub bytes_out: u64,
    /// Datagrams received, refused ones included.
    pub datagrams_in: u64,
    /// Datagrams sent.
    pub datagrams_out: u64,
    /// Requests sent: GET_HASHES and GET_TXS.
    pub requests: u64,
    /// What was refused, by reason, reasons that never occurred left out.
    pub refused: Vec<(&'static str, u64)>,
}

/// The transaction cache, for `getmempoolinfo`.
#[derive(Clone, Copy, Debug, Default)]
pub struct MempoolSnapshot {
    /// Transactions held.
    pub transactions: usize,
    /// Their serialized bytes.
    pub bytes: usize,
    /// Bound of these bytes.
    pub max_bytes: usize,
}
