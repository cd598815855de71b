//! The heap of happenings, and the turn of a node: hand in, drain all outputs, ask for the next deadline.

mod turn;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::Topology;
use super::checks::{Broken, Violation};
use super::control::ControlFlow;
use super::link::{Link, LinkOptions};
use super::node::{Completion, Node, NodeOptions, Traffic, control_address, data_address};
use super::workload::Workload;
use crate::relay::{Engine, Event, Initiator, SessionId};
use crate::time::Time;

/// A node's number in its world, from 0.
pub type NodeId = usize;

/// Where a world's time begins.
const START: Time = Time::from_unix_seconds(1_700_000_000);

/// Violations that are kept; the first ones tell why, the rest is repetition of them.
const MAX_VIOLATIONS: usize = 32;

enum What {
    Datagram {
        to: NodeId,
        from: NodeId,
        bytes: Vec<u8>,
    },
    Control {
        connection: usize,
        side: usize,
        bytes: Bytes,
    },
    ControlAcknowledged {
        connection: usize,
        side: usize,
        length: u64,
    },
    Connected {
        connection: usize,
        side: usize,
    },
    Closed {
        connection: usize,
        side: usize,
    },
    Wake {
        node: NodeId,
    },
    Submit {
        node: NodeId,
        block: Bytes,
    },
    SetLink {
        ends: (NodeId, NodeId),
        up: bool,
    },
}

struct Happening {
    at: Time,
    order: u64,
    what: What,
}

impl Ord for Happening {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap gives the greatest first: that is the earliest.
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}
impl PartialOrd for Happening {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Happening {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Happening {}

/// A control connection; side 0 initiated it.
struct Connection {
    nodes: [NodeId; 2],
    sessions: [Option<SessionId>; 2],
    flows: [ControlFlow; 2],
    /// Sides whose engine has more bytes than the flow took.
    ready: [bool; 2],
    open: bool,
}

/// Engines, links, and a clock of their own.
pub struct World {
    seed: u64,
    random: StdRng,
    now: Time,
    order: u64,
    happenings: BinaryHeap<Happening>,
    nodes: Vec<Node>,
    links: BTreeMap<(NodeId, NodeId), Link>,
    connections: Vec<Connection>,
    submitted: BTreeMap<[u8; 32], Bytes>,
    violations: Vec<Violation>,
    trace: u64,
    buffer: Vec<u8>,
}

impl World {
    /// An empty world.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            random: StdRng::seed_from_u64(seed),
            now: START,
            order: 0,
            happenings: BinaryHeap::new(),
            nodes: Vec::new(),
            links: BTreeMap::new(),
            connections: Vec::new(),
            submitted: BTreeMap::new(),
            violations: Vec::new(),
            trace: 0xcbf2_9ce4_8422_2325,
            buffer: vec![0; 65_536],
        }
    }

    /// The seed that repeats this world.
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// The world's time.
    pub const fn now(&self) -> Time {
        self.now
    }

    /// Time since the world began.
    pub fn elapsed(&self) -> Duration {
        self.now - START
    }

    /// A number that differs between runs in which anything was sent or happened otherwise.
    pub const fn trace_hash(&self) -> u64 {
        self.trace
    }

    /// Adds a node.
    pub fn add_node(&mut self, options: NodeOptions) -> NodeId {
        let mut seed = [0; 32];
        self.random.fill_bytes(&mut seed);
        self.nodes.push(Node::new(&options, seed, self.now));
        self.nodes.len() - 1
    }

    /// Joins all nodes by links and control connections.
    pub fn join(&mut self, topology: Topology, options: &LinkOptions) {
        for (low, high) in topology.edges(self.nodes.len()) {
            self.connect(high, low, options.clone());
        }
    }

    /// Joins two nodes by a link; the first opens a control connection to the second. A second connection
    /// between the same nodes shares their link.
    pub fn connect(&mut self, initiator: NodeId, acceptor: NodeId, options: LinkOptions) {
        let delay = options.delay;
        for ends in [(initiator, acceptor), (acceptor, initiator)] {
            self.links
                .entry(ends)
                .or_insert_with(|| Link::new(options.clone()));
        }
        let connection = self.connections.len();
        self.connections.push(Connection {
            nodes: [initiator, acceptor],
            sessions: [None; 2],
            flows: Default::default(),
            ready: [false; 2],
            open: true,
        });
        self.schedule(
            self.now + delay,
            What::Connected {
                connection,
                side: 1,
            },
        );
        self.schedule(
            self.now + delay * 2,
            What::Connected {
                connection,
                side: 0,
            },
        );
    }

    /// Changes how a link behaves, in both directions, from now on.
    pub fn set_link(&mut self, one: NodeId, other: NodeId, change: impl Fn(&mut LinkOptions)) {
        for ends in [(one, other), (other, one)] {
            if let Some(link) = self.links.get_mut(&ends) {
                change(&mut link.options);
            }
        }
    }

    /// Takes a link down or up again, `after` from now: the connection stays, nothing passes.
    pub fn set_link_up(&mut self, one: NodeId, other: NodeId, after: Duration, up: bool) {
        self.schedule(
            self.now + after,
            What::SetLink {
                ends: (one, other),
                up,
            },
        );
    }

    /// Submits a block at a node, `after` from now.
    pub fn submit(&mut self, node: NodeId, workload: &Workload, after: Duration) {
        self.submitted.insert(workload.hash, workload.block.clone());
        let block = workload.block.clone();
        self.schedule(self.now + after, What::Submit { node, block });
    }

    /// Gives a node that share of a block's transactions, at random, before the block comes.
    pub fn warm(&mut self, node: NodeId, workload: &Workload, share: f64) {
        for transaction in &workload.transactions {
            if self.random.random_bool(share.clamp(0.0, 1.0))
                && let Some(held) = self.nodes.get_mut(node)
            {
                // Whatever the cache does not take is simply not there.
                let _ = held.engine.add_transaction(self.now, transaction.clone());
            }
        }
    }

    /// Hands a datagram to a node as if it had come from another one's address: for tests of what strangers can do.
    pub fn inject(&mut self, to: NodeId, from: NodeId, bytes: Vec<u8>) {
        self.schedule(self.now, What::Datagram { to, from, bytes });
    }

    /// Ends the first control connection between two nodes, as if the network had cut it.
    pub fn cut(&mut self, one: NodeId, other: NodeId) {
        let found = self.connections.iter().position(|connection| {
            connection.open
                && (connection.nodes == [one, other] || connection.nodes == [other, one])
        });
        if let Some(connection) = found {
            for side in 0..2 {
                self.schedule(self.now, What::Closed { connection, side });
            }
        }
    }

    /// The engine of a node, for its snapshots.
    pub fn engine(&self, node: NodeId) -> Option<&Engine> {
        self.nodes.get(node).map(|node| &node.engine)
    }

    /// What a node gave out for a block.
    pub fn completion(&self, node: NodeId, workload: &Workload) -> Option<&Completion> {
        self.nodes.get(node)?.completed.get(&workload.hash)
    }

    /// Everything that a node's engine reported, in order.
    pub fn events(&self, node: NodeId) -> &[(Time, Event)] {
        self.nodes.get(node).map_or(&[], |node| &node.events)
    }

    /// What passed between a node and one peer.
    pub fn traffic(&self, node: NodeId, peer: NodeId) -> Traffic {
        let node = self.nodes.get(node);
        node.and_then(|node| node.traffic.get(&peer))
            .copied()
            .unwrap_or_default()
    }

    /// What passed between a node and all its peers.
    pub fn traffic_of(&self, node: NodeId) -> Traffic {
        let mut sum = Traffic::default();
        for traffic in self
            .nodes
            .get(node)
            .iter()
            .flat_map(|node| node.traffic.values())
        {
            sum.udp_out += traffic.udp_out;
            sum.udp_in += traffic.udp_in;
            sum.tcp_out += traffic.tcp_out;
            sum.tcp_in += traffic.tcp_in;
            sum.datagrams_out += traffic.datagrams_out;
            sum.datagrams_in += traffic.datagrams_in;
        }
        sum
    }

    /// The nodes that do not lie.
    pub fn honest(&self) -> Vec<NodeId> {
        (0..self.nodes.len())
            .filter(|&node| self.nodes.get(node).is_some_and(|node| !node.liar))
            .collect()
    }

    /// What was broken, the first 32 of it.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Runs until nothing is left to happen or `duration` has passed.
    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now + duration, |_| false);
    }

    /// Runs until every honest node holds the block, at most for `limit`. True if they do.
    pub fn run_until_complete(&mut self, workload: &Workload, limit: Duration) -> bool {
        let hash = workload.hash;
        let done = move |world: &Self| {
            world
                .nodes
                .iter()
                .all(|node| node.liar || node.completed.contains_key(&hash))
        };
        self.run_until(self.now + limit, done);
        done(self)
    }

    fn run_until(&mut self, end: Time, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            match self.happenings.peek() {
                Some(next) if next.at <= end => {}
                _ => {
                    self.now = self.now.max(end);
                    return;
                }
            }
            if let Some(happening) = self.happenings.pop() {
                self.now = happening.at;
                self.happen(happening.what);
            }
        }
    }

    fn schedule(&mut self, at: Time, what: What) {
        self.order += 1;
        self.happenings.push(Happening {
            at: at.max(self.now),
            order: self.order,
            what,
        });
    }

    /// FNV-1a over what is worth telling apart.
    fn note(&mut self, kind: u8, numbers: [u64; 3], bytes: &[u8]) {
        let head = numbers.iter().flat_map(|number| number.to_le_bytes());
        let time = self.now.as_nanos().to_le_bytes();
        let all = time.into_iter().chain([kind]).chain(head);
        for byte in all.chain(bytes.iter().copied()) {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn violate(&mut self, node: NodeId, what: Broken) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(Violation {
                at: self.now,
                node,
                what,
            });
        }
    }

    fn happen(&mut self, what: What) {
        let now = self.now;
        match what {
            What::Datagram { to, from, bytes } => self.deliver_datagram(to, from, &bytes),
            What::Control {
                connection,
                side,
                bytes,
            } => self.deliver_control(connection, side, &bytes),
            What::ControlAcknowledged {
                connection,
                side,
                length,
            } => {
                if let Some((held, flow)) = self.flow(connection, side) {
                    flow.acknowledged(length);
                    self.turn(held);
                }
            }
            What::Connected { connection, side } => self.connected(connection, side),
            What::Closed { connection, side } => self.closed(connection, side),
            What::Wake { node } => {
                let Some(held) = self.nodes.get_mut(node) else {
                    return;
                };
                if held.wakes_at != Some(now) {
                    return; // An earlier one took its place.
                }
                held.wakes_at = None;
                held.engine.handle_timeout(now);
                self.turn(node);
            }
            What::Submit { node, block } => {
                let Some(held) = self.nodes.get_mut(node) else {
                    return;
                };
                let taken = held.engine.submit_block(now, block);
                self.note(b's', [node as u64, u64::from(taken.is_ok()), 0], &[]);
                self.turn(node);
            }
            What::SetLink {
                ends: (one, other),
                up,
            } => {
                for ends in [(one, other), (other, one)] {
                    if let Some(link) = self.links.get_mut(&ends) {
                        link.up = up;
                    }
                }
                // What TCP held back goes now.
                self.turn(one);
                self.turn(other);
            }
        }
    }

    fn flow(&mut self, connection: usize, side: usize) -> Option<(NodeId, &mut ControlFlow)> {
        let connection = self.connections.get_mut(connection)?;
        Some((
            *connection.nodes.get(side)?,
            connection.flows.get_mut(side)?,
        ))
    }

    fn deliver_datagram(&mut self, to: NodeId, from: NodeId, bytes: &[u8]) {
        self.note(b'd', [to as u64, from as u64, bytes.len() as u64], bytes);
        let Some(node) = self.nodes.get_mut(to) else {
            return;
        };
        let traffic = node.traffic.entry(from).or_default();
        traffic.udp_in += bytes.len() as u64;
        traffic.datagrams_in += 1;
        node.engine
            .handle_datagram(self.now, data_address(from), bytes);
        self.turn(to);
    }

    fn deliver_control(&mut self, connection: usize, side: usize, bytes: &Bytes) {
        let Some(held) = self.connections.get(connection) else {
            return;
        };
        let (Some(&to), Some(&from)) = (held.nodes.get(side), held.nodes.get(1 - side)) else {
            return;
        };
        let session = held.sessions.get(side).copied().flatten();
        let back = self
            .links
            .get(&(to, from))
            .map_or(Duration::ZERO, |link| link.options.delay);
        self.note(b'c', [to as u64, from as u64, bytes.len() as u64], bytes);
        let acknowledged = What::ControlAcknowledged {
            connection,
            side: 1 - side,
            length: bytes.len() as u64,
        };
        self.schedule(self.now + back, acknowledged);
        let (Some(node), Some(session)) = (self.nodes.get_mut(to), session) else {
            return;
        };
        node.traffic.entry(from).or_default().tcp_in += bytes.len() as u64;
        node.engine.handle_control(self.now, session, bytes);
        self.turn(to);
    }

    fn connected(&mut self, connection: usize, side: usize) {
        let Some(held) = self
            .connections
            .get_mut(connection)
            .filter(|held| held.open)
        else {
            return;
        };
        let (Some(&own), Some(&peer)) = (held.nodes.get(side), held.nodes.get(1 - side)) else {
            return;
        };
        let Some(node) = self.nodes.get_mut(own) else {
            return;
        };
        let initiator = if side == 0 {
            Initiator::Outbound
        } else {
            Initiator::Inbound
        };
        let remote = control_address(peer, connection, side == 1);
        match node.engine.handle_connected(self.now, initiator, remote) {
            Some(session) => {
                if let Some(place) = held.sessions.get_mut(side) {
                    *place = Some(session);
                }
                node.sessions.insert(session, (connection, peer));
            }
            None => self.schedule(
                self.now,
                What::Closed {
                    connection,
                    side: 1 - side,
                },
            ),
        }
        self.turn(own);
    }

    fn closed(&mut self, connection: usize, side: usize) {
        let Some(held) = self.connections.get_mut(connection) else {
            return;
        };
        held.open = false;
        let Some(&own) = held.nodes.get(side) else {
            return;
        };
        let session = held.sessions.get_mut(side).and_then(Option::take);
        if let (Some(node), Some(session)) = (self.nodes.get_mut(own), session) {
            node.sessions.remove(&session);
            node.engine.handle_disconnected(self.now, session);
        }
        self.turn(own);
    }
}
