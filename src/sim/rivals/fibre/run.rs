//! A run: nodes, their queues and what happens between them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::super::super::agenda::Agenda;
use super::super::super::link::UDP_OVERHEAD;
use super::super::super::outcome::Outcome;
use super::super::super::protocol::Progress;
use super::super::super::trial::{Trial, millis};
use super::super::network::{Carries, Way};
use super::super::stage::Stage;
use super::Fibre;
use super::coding::{
    Chunks, Coding, DATAGRAM, DEFAULT_MBIT, MEGABIT, Object, PACKET, SHARE_OF_RATE,
};
use super::node::{Chunk, Part, Verdict};

/// After the last block is whole: what is under way or queued then counts as sent, if it is sent within this time.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// A chunk for a peer.
#[derive(Clone, Copy, Debug)]
struct Queued {
    chunk: Chunk,
    peer: u32,
    has_block: bool,
}

/// What can happen.
#[derive(Clone, Copy, Debug)]
enum What {
    /// A chunk has come to the access line of the node at the end of that way, or has passed it.
    Chunk(Way, Chunk, bool, bool),
    /// A group of a node may send again.
    Send(usize, usize),
    /// A block is handed in.
    Submit(usize),
    /// An event of the scenario.
    Event(usize),
}

/// Peers that share a rate.
#[derive(Debug)]
struct Group {
    /// What is sent first, and what later.
    queues: [VecDeque<Queued>; 2],
    /// From one datagram to the next.
    interval: Duration,
    is_sending: bool,
}

#[derive(Debug, Default)]
struct Node {
    /// The ways to its peers, the place of this node among theirs, and the group of each.
    peers: Vec<(Way, usize, usize)>,
    groups: Vec<Group>,
    parts: Vec<Part>,
}

/// A run of a trial.
pub(super) struct Run<'t> {
    stage: Stage<'t>,
    agenda: Agenda<What>,
    trusted: bool,
    codings: Vec<Arc<Coding>>,
    nodes: Vec<Node>,
}

impl<'t> Run<'t> {
    pub(super) fn new(protocol: &Fibre, trial: &'t Trial) -> Self {
        let stage = Stage::new(trial, 0x6669_6272_6500);
        let mut nodes: Vec<Node> = Vec::new();
        nodes.resize_with(trial.plan.nodes, Node::default);
        for (edge, &(low, high)) in trial.plan.edges.iter().enumerate() {
            let at = |node: usize| nodes.get(node).map_or(0, |node| node.peers.len());
            let places = [at(low), at(high)];
            for (back, node) in [low, high].into_iter().enumerate() {
                if let Some(node) = nodes.get_mut(node) {
                    node.peers.push((Way { edge, back }, places[1 - back], 0));
                }
            }
        }
        let mut least = DEFAULT_MBIT;
        for (number, node) in nodes.iter_mut().enumerate() {
            least = least.min(group(&stage, number, node));
        }
        let codings: Vec<_> = trial
            .blocks
            .iter()
            .map(|block| Arc::new(Coding::new(block, least)))
            .collect();
        for (number, node) in nodes.iter_mut().enumerate() {
            let peers = node.peers.len();
            let part = |(block, coding): (&super::super::super::trial::PlannedBlock, &Arc<_>)| {
                let lacked = block.lacked.get(number).map_or(&[][..], Vec::as_slice);
                Part::new(Arc::clone(coding), lacked, peers, protocol.trusted)
            };
            node.parts = trial.blocks.iter().zip(&codings).map(part).collect();
        }
        Self {
            stage,
            agenda: Agenda::default(),
            trusted: protocol.trusted,
            codings,
            nodes,
        }
    }

    pub(super) fn play(mut self, name: &str, watch: &mut dyn FnMut(&Progress)) -> Outcome {
        let trial = self.stage.trial;
        let begin = self.stage.now;
        self.stage.start = begin + millis(trial.scenario.limit.settle_ms);
        for (number, block) in trial.blocks.iter().enumerate() {
            self.agenda
                .push(self.stage.start + block.at, What::Submit(number));
        }
        for (index, event) in trial.scenario.event.iter().enumerate() {
            let at = begin + millis(trial.scenario.limit.settle_ms + event.at_ms);
            self.agenda.push(at, What::Event(index));
        }
        let mut ended = None;
        while let Some(at) = self.agenda.next_at() {
            if ended.is_none() && (self.stage.is_complete() || at > self.stage.end()) {
                ended = Some(self.stage.now.min(self.stage.end()));
            }
            if ended.is_some_and(|ended| at > ended + AFTERWARDS) {
                break;
            }
            let Some((at, what)) = self.agenda.pop() else {
                break;
            };
            self.stage.now = at;
            self.stage.happen(watch);
            self.happen(what);
        }
        let ended = ended.unwrap_or(self.stage.now);
        self.stage.outcome(name, ended)
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Chunk(way, chunk, has_block, taken) => self.arrive(way, chunk, has_block, taken),
            What::Send(node, group) => self.send(node, group),
            What::Submit(block) => {
                if let Some(planned) = self.stage.trial.blocks.get(block) {
                    self.whole(block, planned.source, None);
                }
            }
            What::Event(index) => {
                if let Some(event) = self.stage.trial.scenario.event.get(index) {
                    self.stage.network.befall(event);
                }
            }
        }
    }

    fn arrive(&mut self, way: Way, chunk: Chunk, has_block: bool, taken: bool) {
        let (from, to) = self.stage.network.ends(way);
        let now = self.stage.now;
        if !taken && self.stage.network.has_downlink(to) {
            let length = DATAGRAM + UDP_OVERHEAD;
            if let Some(at) = self.stage.network.take(now, to, length) {
                self.agenda
                    .push(at, What::Chunk(way, chunk, has_block, true));
            }
            return;
        }
        let trial = self.stage.trial;
        if !self.stage.network.stands(to) || !trial.is_honest(to) || !trial.is_honest(from) {
            return;
        }
        self.stage.note_arrived(to, DATAGRAM as u64);
        let Some(place) = self.place(way) else { return };
        let Some(part) = self.part(to, chunk.block) else {
            return;
        };
        match part.take(place, chunk, has_block) {
            Verdict::Dropped => {}
            Verdict::Useless => self.pass_on(to, chunk, 1),
            Verdict::Helped => self.pass_on(to, chunk, 0),
            Verdict::Completed => {
                self.pass_on(to, chunk, 0);
                self.whole(chunk.block as usize, to, Some(from));
            }
        }
    }

    fn part(&mut self, node: usize, block: u32) -> Option<&mut Part> {
        self.nodes.get_mut(node)?.parts.get_mut(block as usize)
    }

    /// The place of the sender among the receiver's peers.
    fn place(&self, way: Way) -> Option<usize> {
        let (from, _) = self.stage.network.ends(way);
        let peers = &self.nodes.get(from)?.peers;
        let (_, place, _) = peers.iter().find(|(there, ..)| *there == way)?;
        Some(*place)
    }

    /// Between trusted nodes a chunk goes on at once.
    fn pass_on(&mut self, node: usize, chunk: Chunk, queue: usize) {
        if !self.trusted {
            return;
        }
        let peers = self.nodes.get(node).map_or(0, |node| node.peers.len());
        for peer in 0..peers {
            self.queue(node, peer, chunk, false, queue);
        }
    }

    fn queue(&mut self, node: usize, peer: usize, chunk: Chunk, has_block: bool, queue: usize) {
        let now = self.stage.now;
        let Some(held) = self.nodes.get_mut(node) else {
            return;
        };
        let (Some(part), Some(&(_, _, group))) = (
            held.parts.get_mut(chunk.block as usize),
            held.peers.get(peer),
        ) else {
            return;
        };
        if part.is_known(peer, chunk) {
            return;
        }
        let Some(held) = held.groups.get_mut(group) else {
            return;
        };
        if let Some(queue) = held.queues.get_mut(queue) {
            queue.push_back(Queued {
                chunk,
                peer: peer as u32,
                has_block,
            });
        }
        if !held.is_sending {
            held.is_sending = true;
            self.agenda.push(now, What::Send(node, group));
        }
    }

    /// Sends the next chunk of a group.
    fn send(&mut self, node: usize, group: usize) {
        let now = self.stage.now;
        let Some(held) = self.nodes.get_mut(node) else {
            return;
        };
        let Some(queues) = held.groups.get_mut(group) else {
            return;
        };
        let next = queues.queues.iter_mut().find_map(VecDeque::pop_front);
        let Some(queued) = next.filter(|_| self.stage.network.stands(node)) else {
            queues.is_sending = false;
            queues.queues.iter_mut().for_each(VecDeque::clear);
            return;
        };
        self.agenda
            .push(now + queues.interval, What::Send(node, group));
        let Some(&(way, ..)) = held.peers.get(queued.peer as usize) else {
            return;
        };
        let stage = &mut self.stage;
        stage.note_sent(node, DATAGRAM as u64);
        let packet = (DATAGRAM + UDP_OVERHEAD, Carries::Datagram);
        let arrivals = stage.network.send(now, way, packet, &mut stage.random);
        for at in arrivals {
            let chunk = What::Chunk(way, queued.chunk, queued.has_block, false);
            self.agenda.push(at, chunk);
        }
    }

    /// A node has a block: it sends all of it to all that are not known to have it, `UDPRelayBlock`.
    fn whole(&mut self, block: usize, node: usize, from: Option<usize>) {
        let Some(part) = self.part(node, block as u32).filter(|part| !part.whole) else {
            return;
        };
        part.finish();
        self.stage.note_whole(block, node, from);
        let Some(coding) = self.codings.get(block).map(Arc::clone) else {
            return;
        };
        let (header, body) = ((Object::Header, coding.header), (Object::Body, coding.body));
        self.send_data(node, block, header, (u32::MAX, u32::MAX));
        self.send_code(node, block, header, 3);
        if from.is_none() {
            // So that receivers learn the size of the body while its code is being made.
            self.send_data(node, block, body, (u32::MAX, 3));
        }
        self.send_code(node, block, body, 10);
        self.send_data(node, block, body, (0, u32::MAX));
    }

    /// `SendMessageData`: `first` rounds among the peers go to the first queue, and at most `limit` chunks are sent.
    fn send_data(
        &mut self,
        node: usize,
        block: usize,
        (object, chunks): (Object, Chunks),
        (first, limit): (u32, u32),
    ) {
        self.spread(node, chunks.data.min(limit), first, |index| Chunk {
            block: block as u32,
            object,
            maker: 0,
            index,
        });
    }

    /// `SendFECData`.
    fn send_code(
        &mut self,
        node: usize,
        block: usize,
        (object, chunks): (Object, Chunks),
        first: u32,
    ) {
        self.spread(node, chunks.code, first, |index| Chunk {
            block: block as u32,
            object,
            maker: 1 + node as u32,
            index,
        });
    }

    /// Gives each peer each chunk, in an order of its own.
    fn spread(&mut self, node: usize, chunks: u32, first: u32, chunk: impl Fn(u32) -> Chunk) {
        let peers = self.nodes.get(node).map_or(0, |node| node.peers.len());
        let mut rounds = 0;
        for start in 0..peers {
            let mut peer = start;
            for index in 0..chunks {
                let queue = usize::from(rounds >= first);
                self.queue(node, peer, chunk(index), true, queue);
                peer += 1;
                if peer == peers {
                    peer = 0;
                    rounds += 1;
                }
            }
        }
    }
}

/// Puts a node's peers into groups: all together where its uplink is the limit, each alone where its link is. The least
/// rate of them in FIBRE's megabits.
fn group(stage: &Stage<'_>, number: usize, node: &mut Node) -> f64 {
    let uplink = stage.network.uplink(number);
    let slowest = |node: &Node| {
        let rates = node.peers.iter().map(|(way, ..)| stage.network.rate(*way));
        rates.flatten().min()
    };
    let rates: Vec<Option<u64>> = match uplink {
        Some(uplink) => {
            let links = slowest(node).map(|rate| rate.saturating_mul(node.peers.len() as u64));
            vec![Some(links.map_or(uplink, |links| links.min(uplink)))]
        }
        None => {
            for (place, (_, _, group)) in node.peers.iter_mut().enumerate() {
                *group = place;
            }
            let rates = node.peers.iter().map(|(way, ..)| stage.network.rate(*way));
            rates.collect()
        }
    };
    let mut least = DEFAULT_MBIT;
    for rate in rates {
        let mbit = rate.map_or(DEFAULT_MBIT, |rate| {
            rate as f64 * 8.0 / 1_000_000.0 * SHARE_OF_RATE
        });
        least = least.min(mbit);
        node.groups.push(Group {
            queues: Default::default(),
            interval: Duration::from_secs_f64(PACKET * 8.0 / (mbit.max(1e-6) * MEGABIT)),
            is_sending: false,
        });
    }
    least
}
