//! Nodes, links and a clock of their own: hand in, drain all outputs, ask for the next deadline.

mod connections;
mod deliver;
mod faults;
mod turn;
mod what;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

pub use faults::Fault;

use self::connections::Connection;
use self::what::What;
use super::Actor;
use super::adversary::Forged;
use super::agenda::Agenda;
use super::checks::{Broken, Violation};
use super::link::{Link, LinkOptions};
use super::node::{ChunkNote, Completion, Node, NodeOptions, Traffic, data_address};
use super::shelf::Blocks;
use super::tap::{Said, Tap};
use super::topology::Topology;
use super::trial::Access;
use super::truth::Truth;
use super::workload::Workload;
use crate::relay::{Engine, Event};
use crate::time::Time;

/// A node's number in its world, from 0.
pub type NodeId = usize;

/// Where a world's time begins.
const START: Time = Time::from_unix_seconds(1_700_000_000);

/// Violations that are kept; the first ones tell why, the rest is repetition of them.
const MAX_VIOLATIONS: usize = 32;

/// Happenings between two looks at how far the world is.
const WATCH_EVERY: u64 = 1 << 16;

/// Nodes, links, and a clock of their own.
pub struct World {
    seed: u64,
    random: StdRng,
    now: Time,
    agenda: Agenda<What>,
    happened: u64,
    nodes: Vec<Node>,
    links: Vec<Link>,
    connections: Vec<Connection>,
    groups: u32,
    submitted: BTreeMap<[u8; 32], Bytes>,
    /// Blocks that a relay cannot tell from good ones, and a Bitcoin node refuses.
    refused: BTreeMap<[u8; 32], Bytes>,
    /// Nodes that overhear others.
    listeners: Vec<NodeId>,
    /// Where engines find blocks that were handed in; `None`: more were since.
    shelf: Option<Arc<Blocks>>,
    violations: Vec<Violation>,
    tap: Tap,
    trace: u64,
    buffer: Vec<u8>,
    keeps_events: bool,
    /// A node has a block whole, or has crashed or restarted, since it was last asked who has what.
    news: bool,
}

impl World {
    /// An empty world.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            random: StdRng::seed_from_u64(seed),
            now: START,
            agenda: Agenda::default(),
            happened: 0,
            nodes: Vec::new(),
            links: Vec::new(),
            connections: Vec::new(),
            groups: 0,
            submitted: BTreeMap::new(),
            refused: BTreeMap::new(),
            listeners: Vec::new(),
            shelf: None,
            violations: Vec::new(),
            tap: Tap::default(),
            trace: 0xcbf2_9ce4_8422_2325,
            buffer: vec![0; 65_536],
            keeps_events: true,
            news: true,
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

    /// Happenings so far.
    pub const fn happened(&self) -> u64 {
        self.happened
    }

    /// A number that differs between runs in which anything was sent or happened otherwise.
    pub const fn trace_hash(&self) -> u64 {
        self.trace
    }

    /// Whether what engines report is kept for [`World::events`], as it is unless told otherwise. Each holds a block
    /// once it is whole; a large world has no room for so many.
    pub const fn keep_events(&mut self, keep: bool) {
        self.keeps_events = keep;
    }

    /// Adds a node with an engine.
    pub fn add_node(&mut self, options: NodeOptions) -> NodeId {
        let seed = self.draw_seed();
        self.nodes.push(Node::of_engine(options, seed, self.now));
        self.nodes.len() - 1
    }

    /// Adds a node at which someone else stands, who counts as dishonest.
    pub fn add_actor(&mut self, actor: Box<dyn Actor>) -> NodeId {
        let node = self.nodes.len();
        if actor.overhears() {
            self.listeners.push(node);
        }
        self.nodes.push(Node::of_actor(actor));
        node
    }

    /// From now on compares what honest nodes pass on with the blocks that are handed in.
    pub fn compare_passage(&mut self) {
        let passage = self.tap.passage.get_or_insert_default();
        for block in self.submitted.values() {
            if let Some(truth) = Truth::of(block) {
                passage.expect(truth, true);
            }
        }
    }

    /// Frames with data that were compared with the blocks; 0 unless that was asked for.
    pub fn compared(&self) -> u64 {
        self.tap
            .passage
            .as_ref()
            .map_or(0, |passage| passage.compared)
    }

    /// Makes a forged block known to those who judge.
    pub fn expect_forged(&mut self, forged: &Forged) {
        if let Some(passage) = &mut self.tap.passage {
            passage.expect(forged.truth.clone(), forged.may_be_passed_on());
        }
        if forged.may_be_whole() {
            self.refused.insert(forged.truth.hash, forged.block.clone());
        }
    }

    /// Draws a seed for someone who is to stand at a node.
    pub fn draw_seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.random.fill_bytes(&mut seed);
        seed
    }

    /// Joins all nodes by links and control connections; the higher number of each pair dials.
    pub fn join(&mut self, topology: Topology, options: &LinkOptions) {
        for (low, high) in topology.edges(self.nodes.len()) {
            self.connect(high, low, options.clone());
        }
    }

    /// Joins two nodes by a link; the first opens a control connection to the second. A second connection
    /// between the same nodes shares their link.
    pub fn connect(&mut self, initiator: NodeId, acceptor: NodeId, options: LinkOptions) {
        self.link(initiator, acceptor, options.clone());
        self.link(acceptor, initiator, options);
        self.dial(initiator, acceptor);
    }

    /// Lets packets pass from one node to another, unless they do already.
    pub fn link(&mut self, from: NodeId, to: NodeId, options: LinkOptions) {
        let next = self.links.len();
        if let Some(node) = self.nodes.get_mut(from) {
            let link = &mut node.peers.entry(to).or_default().link;
            if link.is_none() {
                *link = Some(next);
                self.links.push(Link::new(options));
            }
        }
    }

    fn link_mut(&mut self, from: NodeId, to: NodeId) -> Option<&mut Link> {
        let place = self.nodes.get(from)?.peers.get(&to)?.link?;
        self.links.get_mut(place)
    }

    fn delay(&self, from: NodeId, to: NodeId) -> Duration {
        let peer = self.nodes.get(from).and_then(|node| node.peers.get(&to));
        let link = peer.and_then(|peer| self.links.get(peer.link?));
        link.map_or(Duration::ZERO, |link| link.options.delay)
    }

    /// Puts limits between a node and all its links.
    pub fn set_access(&mut self, node: NodeId, access: Access) {
        if let Some(node) = self.nodes.get_mut(node) {
            let limited = access.up_bytes_per_s.is_some() || access.down_bytes_per_s.is_some();
            node.access = limited.then_some(access);
        }
    }

    /// Lets a node's clock be ahead by so many nanoseconds, or behind. Before anything else happens to the node.
    pub fn set_skew(&mut self, node: NodeId, nanoseconds: i64) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.skew = nanoseconds;
        }
    }

    /// Submits a block at a node, `after` from now.
    pub fn submit(&mut self, node: NodeId, workload: &Workload, after: Duration) {
        self.submitted.insert(workload.hash, workload.block.clone());
        if let Some(passage) = &mut self.tap.passage
            && let Some(truth) = Truth::of(&workload.block)
        {
            passage.expect(truth, true);
        }
        self.shelf = None;
        let block = workload.block.clone();
        self.schedule(self.now + after, What::Submit { node, block });
    }

    /// Gives a node that share of a block's transactions, at random, before the block comes.
    pub fn warm(&mut self, node: NodeId, workload: &Workload, share: f64) {
        for transaction in &workload.transactions {
            if self.random.random_bool(share.clamp(0.0, 1.0)) {
                self.give(node, transaction.clone());
            }
        }
    }

    /// Gives a node a transaction, serialized.
    pub fn give(&mut self, node: NodeId, transaction: Bytes) {
        if let Some(node) = self.nodes.get_mut(node) {
            let now = node.local(self.now);
            if let Some(actor) = &mut node.actor {
                actor.add_transaction(now, transaction);
            }
        }
    }

    /// Gives a node a transaction after some time.
    pub fn give_later(&mut self, node: NodeId, transaction: Bytes, after: Duration) {
        self.schedule(self.now + after, What::Transaction { node, transaction });
    }

    /// Hands a datagram to a node as if it had come from another one's address: for tests of what strangers can do.
    pub fn inject(&mut self, to: NodeId, from: NodeId, bytes: Vec<u8>) {
        let bytes = Bytes::from(bytes);
        self.schedule(self.now, What::Datagram { to, from, bytes });
    }

    /// The engine of a node, for its snapshots; `None` after a crash.
    pub fn engine(&self, node: NodeId) -> Option<&Engine> {
        self.nodes.get(node)?.actor.as_ref()?.engine()
    }

    /// How many nodes there are.
    pub const fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// What a node gave out for a block.
    pub fn completion(&self, node: NodeId, workload: &Workload) -> Option<&Completion> {
        self.nodes.get(node)?.completed.get(&workload.hash)
    }

    /// Everything that a node's engine reported, in order, by the world's clock.
    pub fn events(&self, node: NodeId) -> &[(Time, Event)] {
        self.nodes.get(node).map_or(&[], |node| &node.events)
    }

    /// The chunks that a node verified, in order.
    pub fn chunks(&self, node: NodeId) -> &[ChunkNote] {
        self.nodes.get(node).map_or(&[], |node| &node.chunks)
    }

    /// What a node has said on the wire.
    pub fn said(&self, node: NodeId) -> Option<&Said> {
        self.tap.said(node)
    }

    /// What passed between a node and one peer.
    pub fn traffic(&self, node: NodeId, peer: NodeId) -> Traffic {
        let node = self.nodes.get(node);
        node.and_then(|node| node.peers.get(&peer))
            .map(|peer| peer.traffic)
            .unwrap_or_default()
    }

    /// What passed between a node and all its peers.
    pub fn traffic_of(&self, node: NodeId) -> Traffic {
        let mut sum = Traffic::default();
        for peer in self
            .nodes
            .get(node)
            .iter()
            .flat_map(|node| node.peers.values())
        {
            sum.udp_out += peer.traffic.udp_out;
            sum.udp_in += peer.traffic.udp_in;
            sum.tcp_out += peer.traffic.tcp_out;
            sum.tcp_in += peer.traffic.tcp_in;
            sum.datagrams_out += peer.traffic.datagrams_out;
            sum.datagrams_in += peer.traffic.datagrams_in;
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
        self.run_until(self.now + duration, &|_| false, &mut |_| {});
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
        self.run_until(self.now + limit, &done, &mut |_| {});
        done(self)
    }

    /// Runs until `done`, which is asked whenever a block has become whole somewhere, or until `end`. `watch` is called
    /// every 65,536 happenings.
    pub fn run_until(
        &mut self,
        end: Time,
        done: &dyn Fn(&Self) -> bool,
        watch: &mut dyn FnMut(&Self),
    ) {
        self.news = true;
        self.stock();
        loop {
            if std::mem::take(&mut self.news) && done(self) {
                return;
            }
            match self.agenda.next_at() {
                Some(next) if next <= end => {}
                _ => {
                    self.now = self.now.max(end);
                    return;
                }
            }
            if let Some((at, what)) = self.agenda.pop() {
                self.now = at;
                self.happened += 1;
                self.happen(what);
                if self.happened.is_multiple_of(WATCH_EVERY) {
                    watch(self);
                }
            }
        }
    }

    /// Shows every engine where the blocks lie that were handed in.
    fn stock(&mut self) {
        if self.shelf.is_some() {
            return;
        }
        let shelf = Arc::new(Blocks::new(&self.submitted));
        for actor in self.nodes.iter_mut().filter_map(|node| node.actor.as_mut()) {
            actor.set_shelf(Arc::<Blocks>::clone(&shelf));
        }
        self.shelf = Some(shelf);
    }

    fn schedule(&mut self, at: Time, what: What) {
        self.agenda.push(at.max(self.now), what);
    }

    /// Mixes what is worth telling apart into the trace.
    fn note(&mut self, kind: u8, numbers: [u64; 3], bytes: &[u8]) {
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(FACTOR).rotate_left(29);
        // Four lanes, since one product after the other would wait for each other.
        let mut lanes = [self.trace, 1, 2, 3];
        for block in bytes.chunks(32) {
            for (lane, word) in lanes.iter_mut().zip(block.chunks(8)) {
                let mut padded = [0; 8];
                padded
                    .iter_mut()
                    .zip(word)
                    .for_each(|(to, from)| *to = *from);
                *lane = mix(*lane, u64::from_le_bytes(padded));
            }
        }
        let head = [self.now.as_nanos(), u64::from(kind), bytes.len() as u64];
        let words = head
            .into_iter()
            .chain(numbers)
            .chain(lanes.into_iter().skip(1));
        self.trace = words.fold(lanes.first().copied().unwrap_or(0), mix);
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
        match what {
            What::Datagram { to, from, bytes } => self.arrive(to, from, bytes),
            What::Taken { to, from, bytes } => self.deliver_datagram(to, from, &bytes),
            What::Control {
                connection,
                side,
                bytes,
            } => self.arrive_control(connection, side, bytes),
            What::ControlTaken {
                connection,
                side,
                bytes,
            } => self.deliver_control(connection, side, &bytes),
            What::Acknowledged {
                connection,
                side,
                length,
            } => self.acknowledged(connection, side, length),
            What::Connected { connection, side } => self.connected(connection, side),
            What::Closed { connection, side } => self.closed(connection, side),
            What::Redial { connection } => self.redial(connection),
            What::Wake { node } => self.wake(node),
            What::Submit { node, block } => self.hand_in(node, block),
            What::Transaction { node, transaction } => self.give(node, transaction),
            What::Fault(fault) => self.befall(*fault),
        }
    }

    fn wake(&mut self, node: NodeId) {
        let now = self.now;
        let Some(held) = self.nodes.get_mut(node) else {
            return;
        };
        if held.wakes_at != Some(now) {
            return; // An earlier one took its place.
        }
        held.wakes_at = None;
        let local = held.local(now);
        if let Some(actor) = &mut held.actor {
            actor.handle_timeout(local);
            self.turn(node);
        }
    }

    fn hand_in(&mut self, node: NodeId, block: Bytes) {
        let Some(held) = self.nodes.get_mut(node) else {
            return;
        };
        let local = held.local(self.now);
        let taken = match &mut held.actor {
            Some(actor) => actor.submit_block(local, block),
            None => false,
        };
        self.note(b's', [node as u64, u64::from(taken), 0], &[]);
        self.turn(node);
    }
}
