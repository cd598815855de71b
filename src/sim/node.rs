//! One node of a world: an engine, and what is noted about it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bitcoin::block::Header;
use bitcoin::consensus::encode;
use bitcoin::{CompactTarget, Target};
use bytes::Bytes;

use super::outcome::PieceSource;
use super::queue::RateQueue;
use super::trial::Access;
use super::workload::WORK;
use super::{Actor, NodeId};
use crate::relay::{
    Engine, EngineConfig, Event, HeaderJudge, HeaderRefusal, HeaderVerdict, SessionId,
};
use crate::time::Time;

/// UDP port of every node.
pub(super) const DATA_PORT: u16 = 18_433;
/// Port that every node takes control connections on.
const CONTROL_PORT: u16 = 18_432;

/// The network that all nodes say they are of.
pub(super) const NETWORK: u32 = 0xdab5_bffa;

/// What a node is made of.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Its engine's configuration; the UDP port is the world's affair.
    pub config: EngineConfig,
}

impl Default for NodeOptions {
    /// An honest relay that wants latency and the fullest first flights.
    fn default() -> Self {
        Self {
            config: EngineConfig {
                network_magic: NETWORK,
                max_block_bytes: 4_000_000,
                max_transactions: 16_666,
                udp_port: DATA_PORT,
                control_port: 0,
                bitcoin_port: 0,
                push_level: 3,
                preference: 255,
                role: 0,
                max_up_bytes_per_s: None,
                max_down_bytes_per_s: None,
                max_datagram: 1_472,
                max_peers: 64,
                reserved_outbound: 0,
                max_inbound_per_group: 64,
                max_mempool_bytes: 300_000_000,
                agent: String::from("/sim/"),
                lie: false,
            },
        }
    }
}

/// A block that a node has given out whole.
#[derive(Clone, Debug)]
pub struct Completion {
    /// When, by the world's clock.
    pub at: Time,
    /// The block, serialized.
    pub bytes: Bytes,
    /// Whether it was submitted at this node.
    pub local: bool,
    /// Requests for it that the node had sent, as read on the wire.
    pub requests: u64,
}

/// Bytes and datagrams between a node and one peer, headers not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of datagrams sent.
    pub udp_out: u64,
    /// Of these, bytes sent while the path was not proven.
    pub udp_unproven: u64,
    /// Bytes of datagrams that arrived.
    pub udp_in: u64,
    /// Bytes of the control connection sent.
    pub tcp_out: u64,
    /// Bytes of the control connection that arrived.
    pub tcp_in: u64,
    /// Datagrams sent.
    pub datagrams_out: u64,
    /// Datagrams that arrived.
    pub datagrams_in: u64,
    /// Whether the engine holds the UDP path for proven.
    pub proven: bool,
}

/// Accepts whatever header shows the work of this world's blocks, or of a real network's, as a block above the tip. Of
/// its parent it asks as much, or that there is none: a parent whose hash shows no work is not known to anyone.
#[derive(Debug, Default)]
struct WorkJudge;

impl HeaderJudge for WorkJudge {
    fn accept(&mut self, header: &[u8; 80], _now: Time) -> Result<HeaderVerdict, HeaderRefusal> {
        let header: Header =
            encode::deserialize(header).map_err(|_| HeaderRefusal::Invalid("no header"))?;
        let least = Target::from_compact(CompactTarget::from_consensus(WORK));
        if !least.is_met_by(header.prev_blockhash) {
            return Err(HeaderRefusal::UnknownParent);
        }
        if header.target() > least {
            return Err(HeaderRefusal::Invalid("bad-diffbits"));
        }
        header
            .validate_pow(header.target())
            .map_err(|_| HeaderRefusal::Invalid("high-hash"))?;
        Ok(HeaderVerdict {
            height: 1,
            in_window: true,
            segwit_active: true,
        })
    }

    fn tip(&self) -> [u8; 32] {
        [0; 32]
    }
}

/// A chunk that a node has verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkNote {
    /// When.
    pub at: Time,
    /// Hash of the block, internal byte order.
    pub block: [u8; 32],
    /// Index of the chunk.
    pub chunk: u32,
    /// Who completed it.
    pub from: PieceSource,
}

/// What a node has to do with one other.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// The link to it, by its place among the world's.
    pub link: Option<usize>,
    pub traffic: Traffic,
    /// Sessions that hold the UDP path for proven: of several at one address each proves it.
    pub proven_by: BTreeSet<SessionId>,
}

pub(super) struct Node {
    /// Who stands here; nobody after a crash.
    pub actor: Option<Box<dyn Actor>>,
    /// What a restart makes the engine of; `None` where there never was one.
    pub options: Option<NodeOptions>,
    pub liar: bool,
    pub max_peers: usize,
    /// How far its clock is ahead, in nanoseconds.
    pub skew: i64,
    pub access: Option<Access>,
    pub up: RateQueue,
    pub down: RateQueue,
    /// Nothing passes between nodes of different groups.
    pub group: u32,
    pub completed: BTreeMap<[u8; 32], Completion>,
    pub chunks: Vec<ChunkNote>,
    pub events: Vec<(Time, Event)>,
    pub peers: BTreeMap<NodeId, Peer>,
    /// Sessions by their ids: connection and peer.
    pub sessions: BTreeMap<SessionId, (usize, NodeId)>,
    pub wakes_at: Option<Time>,
    /// How often it was drained.
    pub turns: u64,
}

impl Node {
    fn new(actor: Box<dyn Actor>, liar: bool, max_peers: usize) -> Self {
        Self {
            actor: Some(actor),
            options: None,
            liar,
            max_peers,
            skew: 0,
            access: None,
            up: RateQueue::default(),
            down: RateQueue::default(),
            group: 0,
            completed: BTreeMap::new(),
            chunks: Vec::new(),
            events: Vec::new(),
            peers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            wakes_at: None,
            turns: 0,
        }
    }

    pub fn of_engine(options: NodeOptions, seed: [u8; 32], now: Time) -> Self {
        let engine = engine(&options, seed, now);
        let mut node = Self::new(engine, options.config.lie, options.config.max_peers);
        node.options = Some(options);
        node
    }

    pub fn of_actor(actor: Box<dyn Actor>) -> Self {
        Self::new(actor, true, usize::MAX)
    }

    /// What its clock shows at `now`.
    pub fn local(&self, now: Time) -> Time {
        shifted(now, self.skew)
    }

    /// When its clock shows `local`.
    pub fn global(&self, local: Time) -> Time {
        shifted(local, -self.skew)
    }
}

fn shifted(time: Time, by: i64) -> Time {
    Time::from_nanos(time.as_nanos().saturating_add_signed(by))
}

/// The engine of a node that is what `options` say.
pub(super) fn engine(options: &NodeOptions, seed: [u8; 32], now: Time) -> Box<dyn Actor> {
    let mut config = options.config.clone();
    config.udp_port = DATA_PORT;
    Box::new(Engine::new(config, Box::new(WorkJudge), seed, now))
}

/// The address that node `node` sends datagrams from.
pub(super) fn data_address(node: NodeId) -> SocketAddr {
    SocketAddr::new(address(node), DATA_PORT)
}

/// The address of one end of a control connection.
pub(super) fn control_address(node: NodeId, connection: usize, initiated: bool) -> SocketAddr {
    let ephemeral = 32_768 + u16::try_from(connection % 28_000).unwrap_or(0);
    let port = if initiated { ephemeral } else { CONTROL_PORT };
    SocketAddr::new(address(node), port)
}

fn address(node: NodeId) -> IpAddr {
    let [_, high, middle, low] = u32::try_from(node).unwrap_or(0).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, high, middle, low))
}

/// The node that an address belongs to, if it is that of its datagrams.
pub(super) fn node_at(address: SocketAddr) -> Option<NodeId> {
    let IpAddr::V4(ip) = address.ip() else {
        return None;
    };
    let [ten, high, middle, low] = ip.octets();
    let node = NodeId::try_from(u32::from_be_bytes([0, high, middle, low])).ok()?;
    (ten == 10 && address.port() == DATA_PORT).then_some(node)
}
