//! A run: nodes, their connections, and what happens between them.

use std::time::Duration;

use rand::RngExt as _;

use super::super::super::agenda::Agenda;
use super::super::super::outcome::Outcome;
use super::super::super::protocol::Progress;
use super::super::super::scenario::EventKind;
use super::super::super::trial::{PlannedBlock, Trial, millis};
use super::super::network::{Carries, Way};
use super::super::stage::Stage;
use super::super::tcp::{ACK_BYTES, Ack, Control, HEADER_BYTES, Segment, Sender};
use super::connection::{Connection, Flow};
use super::node::{Message, Node, Peer};
use super::sizes::Sizes;
use super::{FEW_REHEARSALS, PeerToPeer, SMALL};
use crate::time::Time;

/// From the end of one rehearsal to the next block: longer than any time-out, so that connections are idle.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a rehearsal may take.
const LONGEST_REHEARSAL: Duration = Duration::from_secs(30);
/// After the end of a connection, until it is made anew.
const REDIAL: Duration = Duration::from_secs(1);

/// What can happen. A flow is the connection's number and the direction in it.
#[derive(Debug)]
enum What {
    /// A segment has come to the receiver's access line, or has passed it.
    Segment(usize, usize, Segment, bool),
    /// The same of an acknowledgement of that flow.
    Ack(usize, usize, Ack, bool),
    /// A sender wants to be woken.
    Wake(usize, usize),
    /// A block is handed in.
    Submit(usize),
    /// A rehearsal has taken too long.
    GiveUp(usize),
    /// An event of the scenario.
    Event(usize),
    /// A connection over that edge is made anew.
    Open(usize),
}

/// A run of a trial.
pub(super) struct Run<'t> {
    stage: Stage<'t>,
    agenda: Agenda<What>,
    control: Control,
    nodes: Vec<Node>,
    connections: Vec<Connection>,
    /// The connection that is in use, by edge.
    current: Vec<usize>,
    /// The edges of each node, by the place of the peer at their other end.
    edges: Vec<Vec<usize>>,
    sizes: Vec<Sizes>,
    rehearsals: usize,
    /// The block that is being rehearsed, and how many nodes do not have it.
    rehearsal: (usize, usize),
}

impl<'t> Run<'t> {
    pub(super) fn new(protocol: &PeerToPeer, trial: &'t Trial) -> Self {
        let rehearsals = match trial.plan.nodes {
            0..=SMALL => protocol.rehearsals,
            _ => protocol.rehearsals.min(FEW_REHEARSALS),
        };
        let mut stage = Stage::new(trial, 0x7032_7000);
        // Until the rehearsals are over, nothing is noted.
        stage.start = Time::MAX;
        let mut peers = vec![Vec::new(); trial.plan.nodes];
        let mut edges = vec![Vec::new(); trial.plan.nodes];
        let mut places = Vec::new();
        for (edge, &(low, high)) in trial.plan.edges.iter().enumerate() {
            let at = |node: usize| peers.get(node).map_or(0, Vec::len);
            places.push([at(low), at(high)]);
            for (node, other, outbound) in [(low, high, false), (high, low, true)] {
                let (Some(peers), Some(edges)) = (peers.get_mut(node), edges.get_mut(node)) else {
                    continue;
                };
                peers.push(Peer {
                    node: other,
                    outbound,
                    wants_push: false,
                });
                edges.push(edge);
            }
        }
        let first = trial.blocks.first();
        let rehearsed = first.into_iter().cycle().take(rehearsals);
        let blocks: Vec<&PlannedBlock> = rehearsed.chain(&trial.blocks).collect();
        let node = |(node, peers)| {
            let lacks_none =
                |block: &&PlannedBlock| block.lacked.get(node).is_some_and(Vec::is_empty);
            Node::new(
                protocol.mode,
                peers,
                blocks.iter().map(lacks_none).collect(),
            )
        };
        let nodes = peers.into_iter().enumerate().map(node).collect();
        let sizes = trial.blocks.iter().map(Sizes::new).collect();
        let mut run = Self {
            stage,
            agenda: Agenda::default(),
            control: protocol.control,
            nodes,
            connections: Vec::new(),
            current: Vec::new(),
            edges,
            sizes,
            rehearsals,
            rehearsal: (0, 0),
        };
        for (edge, places) in places.into_iter().enumerate() {
            let connection = run.connection(edge, places);
            run.current.push(run.connections.len());
            run.connections.push(connection);
        }
        run
    }

    fn connection(&mut self, edge: usize, places: [usize; 2]) -> Connection {
        let ways = [0, 1].map(|back| Way { edge, back });
        let round_trip = ways.map(|way| self.stage.network.delay(way)).iter().sum();
        let flows = ways.map(|way| {
            let draw = self.stage.random.random_range(0..7);
            Flow::new(way, Sender::new(self.control, draw, round_trip))
        });
        Connection {
            flows,
            open: true,
            places,
        }
    }

    /// Which block of the trial a number stands for.
    fn block(&self, number: usize) -> usize {
        number.saturating_sub(self.rehearsals)
    }

    pub(super) fn play(mut self, name: &str, watch: &mut dyn FnMut(&Progress)) -> Outcome {
        for node in 0..self.nodes.len() {
            if self.stage.trial.is_honest(node) {
                if let Some(held) = self.nodes.get_mut(node) {
                    held.select();
                }
                self.flush(node);
            }
        }
        match self.rehearsals {
            0 => self.perform(),
            _ => self.agenda.push(self.stage.now + PAUSE, What::Submit(0)),
        }
        let mut ended = None;
        while let Some(at) = self.agenda.next_at() {
            if self.stage.start != Time::MAX && ended.is_none() {
                let complete = self.stage.is_complete();
                if complete || at > self.stage.end() {
                    ended = Some(self.stage.now.min(self.stage.end()));
                }
            }
            // What is still under way counts as sent.
            if ended.is_some_and(|ended| at > ended + self.afterwards()) {
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

    fn afterwards(&self) -> Duration {
        let links = self.stage.trial.links.iter().flatten();
        let longest = links.map(|link| link.delay + link.jitter).max();
        longest.unwrap_or_default() * 4 + Duration::from_millis(100)
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Segment(connection, side, segment, taken) => {
                self.segment(connection, side, segment, taken);
            }
            What::Ack(connection, side, ack, taken) => self.ack(connection, side, ack, taken),
            What::Wake(connection, side) => self.wake(connection, side),
            What::Submit(number) => self.submit(number),
            What::GiveUp(number) => self.rehearsed(number),
            What::Event(index) => self.event(index),
            What::Open(edge) => self.open(edge),
        }
    }

    fn submit(&mut self, number: usize) {
        let trial = self.stage.trial;
        let Some(block) = trial.blocks.get(self.block(number)) else {
            return;
        };
        if number < self.rehearsals {
            let reached = |node: &usize| {
                trial.is_honest(*node) && block.bounds.get(*node).is_some_and(Option::is_some)
            };
            let missing = (0..trial.plan.nodes).filter(reached).count();
            self.rehearsal = (number, missing);
            let at = self.stage.now + LONGEST_REHEARSAL;
            self.agenda.push(at, What::GiveUp(number));
        }
        if let Some(node) = self.nodes.get_mut(block.source) {
            node.submit(number);
        }
        self.flush(block.source);
    }

    /// The next rehearsal, or what was rehearsed for.
    fn rehearsed(&mut self, number: usize) {
        if self.rehearsal.0 != number || self.rehearsal.1 == 0 {
            return; // It was over before.
        }
        self.rehearsal.1 = 0;
        let next = number + 1;
        if next < self.rehearsals {
            self.agenda.push(self.stage.now + PAUSE, What::Submit(next));
            return;
        }
        self.perform();
    }

    /// Plans the blocks that count, and what befalls the network.
    fn perform(&mut self) {
        let trial = self.stage.trial;
        let settle = millis(trial.scenario.limit.settle_ms);
        self.stage.start = self.stage.now + PAUSE + settle;
        for (index, block) in trial.blocks.iter().enumerate() {
            let at = self.stage.start + block.at;
            self.agenda.push(at, What::Submit(self.rehearsals + index));
        }
        for (index, event) in trial.scenario.event.iter().enumerate() {
            let at = self.stage.now + PAUSE + millis(trial.scenario.limit.settle_ms + event.at_ms);
            self.agenda.push(at, What::Event(index));
        }
    }

    fn flow(&mut self, connection: usize, side: usize) -> Option<&mut Flow> {
        let held = self.connections.get_mut(connection)?;
        held.flows.get_mut(side).filter(|_| held.open)
    }

    fn segment(&mut self, connection: usize, side: usize, segment: Segment, taken: bool) {
        let Some(way) = self.flow(connection, side).map(|flow| flow.way) else {
            return;
        };
        let (from, to) = self.stage.network.ends(way);
        let bytes = segment.end - segment.start;
        if !taken && self.stage.network.has_downlink(to) {
            let length = bytes as usize + HEADER_BYTES;
            if let Some(at) = self.stage.network.take(self.stage.now, to, length) {
                let taken = What::Segment(connection, side, segment, true);
                self.agenda.push(at, taken);
            }
            return;
        }
        if !self.stage.network.stands(to) {
            return;
        }
        self.stage.note_arrived(to, bytes);
        let Some(flow) = self.flow(connection, side) else {
            return;
        };
        let before = flow.receiver.delivered();
        let ack = flow.receiver.segment(segment);
        let advanced = flow.receiver.delivered() > before;
        let back = Way {
            edge: way.edge,
            back: 1 - way.back,
        };
        let stage = &mut self.stage;
        let packet = (ACK_BYTES, Carries::Segment);
        let arrivals = stage
            .network
            .send(stage.now, back, packet, &mut stage.random);
        for at in arrivals {
            let ack = What::Ack(connection, side, ack.clone(), false);
            self.agenda.push(at, ack);
        }
        if advanced {
            self.read(connection, side, from, to);
        }
    }

    /// Hands messages that are whole to the node at the far end.
    fn read(&mut self, connection: usize, side: usize, from: usize, to: usize) {
        while let Some(message) = self.flow(connection, side).and_then(Flow::read) {
            let held = self.connections.get(connection);
            let place = held.and_then(|held| held.places.get(1 - side).copied());
            let silent = !self.stage.trial.is_honest(to) || !self.stage.trial.is_honest(from);
            if let (Some(place), Some(node), false) = (place, self.nodes.get_mut(to), silent) {
                node.take(place, message);
            }
        }
        self.flush(to);
    }

    fn ack(&mut self, connection: usize, side: usize, ack: Ack, taken: bool) {
        let Some(way) = self.flow(connection, side).map(|flow| flow.way) else {
            return;
        };
        let (from, _) = self.stage.network.ends(way);
        if !taken && self.stage.network.has_downlink(from) {
            if let Some(at) = self.stage.network.take(self.stage.now, from, ACK_BYTES) {
                self.agenda.push(at, What::Ack(connection, side, ack, true));
            }
            return;
        }
        let now = self.stage.now;
        if !self.stage.network.stands(from) {
            return;
        }
        if let Some(flow) = self.flow(connection, side) {
            flow.sender.acknowledge(now, &ack);
        }
        self.send(connection, side);
    }

    fn wake(&mut self, connection: usize, side: usize) {
        let now = self.stage.now;
        let Some(flow) = self.flow(connection, side) else {
            return;
        };
        if flow.wakes_at != Some(now) {
            return; // An earlier one took its place.
        }
        flow.wakes_at = None;
        flow.sender.time_out(now);
        self.send(connection, side);
    }

    /// Sends what a flow lets go, and asks it when to be woken.
    fn send(&mut self, connection: usize, side: usize) {
        let Some(held) = self
            .connections
            .get_mut(connection)
            .filter(|held| held.open)
        else {
            return;
        };
        let Some(flow) = held.flows.get_mut(side) else {
            return;
        };
        let stage = &mut self.stage;
        let now = stage.now;
        let (from, _) = stage.network.ends(flow.way);
        while let Some(segment) = flow.sender.poll(now) {
            let bytes = segment.end - segment.start;
            stage.note_sent(from, bytes);
            let packet = (bytes as usize + HEADER_BYTES, Carries::Segment);
            let arrivals = stage.network.send(now, flow.way, packet, &mut stage.random);
            for at in arrivals {
                let segment = What::Segment(connection, side, segment, false);
                self.agenda.push(at, segment);
            }
        }
        // One that comes too early asks anew.
        if let Some(at) = flow.sender.deadline()
            && flow.wakes_at.is_none_or(|wakes_at| at < wakes_at)
        {
            let at = at.max(now + Duration::from_nanos(1));
            flow.wakes_at = Some(at);
            self.agenda.push(at, What::Wake(connection, side));
        }
    }

    /// Takes what a node wants sent and tells.
    fn flush(&mut self, node: usize) {
        let Some(held) = self.nodes.get_mut(node) else {
            return;
        };
        let outgoing = std::mem::take(&mut held.outgoing);
        if let Some((number, from)) = held.news.take() {
            let from = from.and_then(|place| held.peers.get(place));
            let from = from.map(|peer| peer.node);
            self.whole(number, node, from);
        }
        for (place, message) in outgoing {
            self.say(node, place, message);
        }
    }

    fn whole(&mut self, number: usize, node: usize, from: Option<usize>) {
        if number >= self.rehearsals {
            let block = self.block(number);
            self.stage.note_whole(block, node, from);
            return;
        }
        match self.rehearsal {
            (current, 1) if current == number => self.rehearsed(number),
            (current, missing) if current == number && missing > 1 => self.rehearsal.1 -= 1,
            _ => {} // An earlier one, late.
        }
    }

    fn say(&mut self, node: usize, place: usize, message: Message) {
        let peer = self.nodes.get(node).and_then(|held| held.peers.get(place));
        let Some(peer) = peer.map(|peer| peer.node) else {
            return;
        };
        let asker = if message.is_request() { node } else { peer };
        let number = message.block();
        let block = self.block(number.unwrap_or(0));
        let Some(bytes) = self.sizes.get(block).map(|sizes| sizes.of(message, asker)) else {
            return;
        };
        if message.is_request() && number.is_some_and(|number| number >= self.rehearsals) {
            self.stage.note_request(block, node);
        }
        let Some((connection, side)) = self.find(node, place) else {
            return;
        };
        if let Some(flow) = self.flow(connection, side) {
            flow.write(message, bytes);
        }
        self.send(connection, side);
    }

    /// The connection in use to a node's peer, and the side that the node is.
    fn find(&self, node: usize, place: usize) -> Option<(usize, usize)> {
        let edge = *self.edges.get(node)?.get(place)?;
        let connection = *self.current.get(edge)?;
        let (low, _) = self.stage.network.ends(Way { edge, back: 0 });
        Some((connection, usize::from(low != node)))
    }

    fn event(&mut self, index: usize) {
        let Some(event) = self.stage.trial.scenario.event.get(index) else {
            return;
        };
        self.stage.network.befall(event);
        let befallen = |(low, high): (usize, usize)| match event.kind {
            EventKind::Crash | EventKind::Restart => {
                event.nodes.contains(&low) || event.nodes.contains(&high)
            }
            EventKind::Cut => event
                .between
                .is_some_and(|between| between == [low, high] || between == [high, low]),
            _ => false,
        };
        for edge in 0..self.current.len() {
            let ends = self.stage.network.ends(Way { edge, back: 0 });
            if befallen(ends) {
                self.close(edge);
                self.agenda.push(self.stage.now + REDIAL, What::Open(edge));
            }
        }
    }

    fn close(&mut self, edge: usize) {
        let connection = self.current.get(edge).copied();
        let held = connection.and_then(|connection| self.connections.get_mut(connection));
        let Some(held) = held.filter(|held| held.open) else {
            return;
        };
        held.open = false;
        let places = held.places;
        let (low, high) = self.stage.network.ends(Way { edge, back: 0 });
        for (node, place) in [low, high].into_iter().zip(places) {
            if let Some(held) = self.nodes.get_mut(node) {
                held.lose(place);
            }
            self.flush(node);
        }
    }

    /// Makes a connection anew if both ends stand.
    fn open(&mut self, edge: usize) {
        let (low, high) = self.stage.network.ends(Way { edge, back: 0 });
        let both = self.stage.network.stands(low) && self.stage.network.stands(high);
        let old = self.current.get(edge).copied();
        let held = old.and_then(|connection| self.connections.get(connection));
        let Some(places) = held
            .filter(|held| !held.open && both)
            .map(|held| held.places)
        else {
            return;
        };
        let connection = self.connection(edge, places);
        if let Some(current) = self.current.get_mut(edge) {
            *current = self.connections.len();
        }
        self.connections.push(connection);
        for (node, place) in [low, high].into_iter().zip(places) {
            if let Some(held) = self.nodes.get_mut(node).filter(|_| both) {
                held.meet(place);
            }
            self.flush(node);
        }
    }
}
