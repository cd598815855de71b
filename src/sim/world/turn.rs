//! The turn of a node: drain events, control bytes and datagrams, then ask for its next deadline.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::super::NodeId;
use super::super::actor::Outgoing;
use super::super::checks::Broken;
use super::super::checks::bounds::beyond;
use super::super::link::UDP_OVERHEAD;
use super::super::node::{ChunkNote, Completion, data_address, node_at};
use super::super::outcome::PieceSource;
use super::{What, World};
use crate::relay::{Engine, Event, Refusal, SessionId, Source, WakeReason};

/// Datagrams that one turn may give out; the largest block is 4,000, to a few peers.
const MAX_TURN_DATAGRAMS: usize = 200_000;

/// Turns in a row that an engine may ask for without time passing; more means that it never stops.
const MAX_TURNS: usize = 64;

/// Turns of a node between two looks at all of its bounds.
const BOUNDS_EVERY: u64 = 64;

impl World {
    /// Drains a node until it has nothing more to say at this time, then asks when to wake it.
    pub(super) fn turn(&mut self, node: NodeId) {
        for _ in 0..MAX_TURNS {
            self.drain(node);
            let now = self.now;
            let Some(held) = self.nodes.get_mut(node) else {
                return;
            };
            let local = held.local(now);
            let Some(actor) = &mut held.actor else {
                return;
            };
            match actor.poll_deadline() {
                None => return,
                Some((at, _)) if at > local => {
                    let at = held.global(at);
                    if held
                        .wakes_at
                        .is_none_or(|wakes_at| wakes_at < now || at < wakes_at)
                    {
                        held.wakes_at = Some(at);
                        self.schedule(at, What::Wake { node });
                    }
                    return;
                }
                Some(_) => actor.handle_timeout(local),
            }
        }
        self.spins(node);
    }

    /// Notes that an engine spins, and lets a millisecond pass so that the world goes on.
    fn spins(&mut self, node: NodeId) {
        let at = self.now + Duration::from_millis(1);
        let mut reason = "";
        if let Some(held) = self.nodes.get_mut(node) {
            let deadline = held.actor.as_ref().and_then(|actor| actor.poll_deadline());
            reason = match deadline {
                Some((_, WakeReason::Pacing)) => "pacing",
                Some((_, WakeReason::Session)) => "session",
                Some((_, WakeReason::Job)) => "job",
                None => "none",
            };
            held.wakes_at = Some(at);
        }
        self.violate(node, Broken::Spins(reason));
        self.schedule(at, What::Wake { node });
    }

    fn drain(&mut self, node: NodeId) {
        while let Some(event) = self
            .nodes
            .get_mut(node)
            .and_then(|held| held.actor.as_mut()?.poll_event())
        {
            self.take_event(node, event);
        }
        self.drain_control(node);
        self.drain_datagrams(node);
        self.check_bounds(node);
    }

    fn take_event(&mut self, node: NodeId, event: Event) {
        let now = self.now;
        match &event {
            Event::BlockComplete {
                block,
                whole,
                local,
                ..
            } => self.take_block(node, block, &whole.bytes, *local),
            Event::ChunkVerified {
                block,
                chunk,
                source,
            } => {
                let Some(held) = self.nodes.get_mut(node) else {
                    return;
                };
                let from = match source {
                    Source::Local => PieceSource::Own,
                    Source::Mempool(_) => PieceSource::Mempool,
                    Source::Peer(session) => match held.sessions.get(session) {
                        Some(&(_, peer)) => PieceSource::Node(peer),
                        None => PieceSource::Gone,
                    },
                };
                held.chunks.push(ChunkNote {
                    at: now,
                    block: *block,
                    chunk: *chunk,
                    from,
                });
            }
            Event::PathChanged { session, udp } => self.note_path(node, *session, *udp),
            Event::Refused {
                session, refusal, ..
            } => {
                let held = self.nodes.get(node);
                let peer = held.and_then(|held| held.sessions.get(session));
                let peer = peer.map(|&(_, peer)| peer);
                let is_honest = |node: NodeId| self.nodes.get(node).is_some_and(|node| !node.liar);
                // An honest peer behind a dead link serves nothing either: that is suspicion, no lie.
                let lie = *refusal != Refusal::Withheld;
                if let Some(peer) = peer
                    && lie
                    && is_honest(node)
                    && is_honest(peer)
                {
                    let refusal = refusal.name();
                    self.violate(node, Broken::HonestBlamed { peer, refusal });
                }
            }
            Event::SessionUp { session, .. } => self.note_up(node, *session),
            Event::SessionDown { session, .. } => self.hang_up(node, *session),
            _ => {}
        }
        self.note(b'e', [node as u64, event_number(&event), 0], &[]);
        if self.keeps_events
            && let Some(held) = self.nodes.get_mut(node)
        {
            held.events.push((now, event));
        }
    }

    /// A node sends datagrams to a session's peer from now on, or no more.
    fn note_path(&mut self, node: NodeId, session: SessionId, udp: bool) {
        let Some(held) = self.nodes.get_mut(node) else {
            return;
        };
        let Some(&(_, peer)) = held.sessions.get(&session) else {
            return;
        };
        let peer = held.peers.entry(peer).or_default();
        match udp {
            true => peer.proven_by.insert(session),
            false => peer.proven_by.remove(&session),
        };
        peer.traffic.proven = !peer.proven_by.is_empty();
    }

    /// A node gives out a block: it must be one that was submitted.
    fn take_block(&mut self, node: NodeId, block: &[u8; 32], bytes: &Bytes, local: bool) {
        if self
            .refused
            .get(block)
            .is_some_and(|refused| refused == bytes)
        {
            // As good as any to a relay; the Bitcoin node beside it knows better.
            let now = self.now;
            if let Some(held) = self.nodes.get_mut(node) {
                let local = held.local(now);
                if let Some(actor) = &mut held.actor {
                    actor.reject_block(local, *block);
                }
            }
            return;
        }
        let submitted = self
            .submitted
            .get(block)
            .filter(|submitted| *submitted == bytes);
        // Many nodes have the same block: the world keeps one.
        let bytes = match submitted {
            Some(submitted) => submitted.clone(),
            None => {
                self.violate(node, Broken::WrongBlock);
                bytes.clone()
            }
        };
        let said = self.tap.said(node);
        let completion = Completion {
            at: self.now,
            bytes,
            local,
            requests: said.map_or(0, |said| said.requests_for(block)),
        };
        self.news = true;
        if let Some(held) = self.nodes.get_mut(node) {
            held.completed.entry(*block).or_insert(completion);
        }
    }

    fn drain_control(&mut self, node: NodeId) {
        while let Some(session) = self
            .nodes
            .get_mut(node)
            .and_then(|held| held.actor.as_mut()?.poll_control_ready())
        {
            let held = self.nodes.get(node);
            let found = held.and_then(|held| held.sessions.get(&session));
            if let Some(&(connection, _)) = found
                && let Some(side) = self.side_of(connection, node)
            {
                if let Some(held) = self.connections.get_mut(connection)
                    && let Some(ready) = held.ready.get_mut(side)
                {
                    *ready = true;
                }
                self.send_control(connection, side);
            }
        }
    }

    /// Sends what one side of a connection has, as far as its window lets it.
    pub(super) fn send_control(&mut self, connection: usize, side: usize) {
        let Some(held) = self.connections.get(connection) else {
            return;
        };
        let (Some(&from), Some(&to)) = (held.nodes.get(side), held.nodes.get(1 - side)) else {
            return;
        };
        let open = self.passes(from, to);
        let now = self.now;
        let Some(held) = self.connections.get_mut(connection) else {
            return;
        };
        let (Some(flow), Some(ready), Some(decoder)) = (
            held.flows.get_mut(side),
            held.ready.get_mut(side),
            held.decoders.get_mut(side),
        ) else {
            return;
        };
        let session = held.sessions.get(side).copied().flatten();
        let Some(node) = self.nodes.get_mut(from) else {
            return;
        };
        let local = node.local(now);
        let Some(peer) = node.peers.get_mut(&to) else {
            return;
        };
        let Some(link) = peer.link.and_then(|link| self.links.get_mut(link)) else {
            return;
        };
        let up_rate = node.access.and_then(|access| access.up_bytes_per_s);
        let mut arrivals = Vec::new();
        loop {
            while *ready && flow.has_room() {
                let bytes = match (&mut node.actor, session) {
                    (Some(actor), Some(session)) => actor.poll_control(local, session),
                    _ => None,
                };
                match bytes {
                    Some(bytes) => {
                        peer.traffic.tcp_out += bytes.len() as u64;
                        let honest = !node.liar;
                        self.tap
                            .control((from, to), (connection, side), decoder, &bytes, honest);
                        flow.push(bytes);
                    }
                    None => *ready = false,
                }
            }
            if !open {
                break;
            }
            let up = &mut node.up;
            let uplink = |length| up.pass(now, length, up_rate, None).unwrap_or(now);
            match flow.next_segment(now, link, uplink, &mut self.random) {
                Some(arrival) => arrivals.push(arrival),
                None => break,
            }
        }
        self.note_broken(from);
        let side = 1 - side;
        for (at, bytes) in arrivals {
            let segment = What::Control {
                connection,
                side,
                bytes,
            };
            self.schedule(at, segment);
        }
    }

    fn drain_datagrams(&mut self, from: NodeId) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut ended = false;
        for _ in 0..MAX_TURN_DATAGRAMS {
            let now = self.now;
            let outgoing = self.nodes.get_mut(from).and_then(|node| {
                let local = node.local(now);
                node.actor.as_mut()?.poll_transmit(local, &mut buffer)
            });
            let Some(outgoing) = outgoing else {
                ended = true;
                break;
            };
            let bytes = buffer.get(..outgoing.len).unwrap_or_default();
            match node_at(outgoing.to).filter(|&to| to < self.nodes.len()) {
                Some(to) => self.send_datagram(from, to, &outgoing, bytes),
                None => self.violate(from, Broken::UnknownAddress),
            }
        }
        self.buffer = buffer;
        if !ended {
            self.violate(from, Broken::EndlessTransmit);
        }
    }

    fn send_datagram(&mut self, from: NodeId, to: NodeId, outgoing: &Outgoing, bytes: &[u8]) {
        let now = self.now;
        let passes = self.passes(from, to);
        let is_honest = self.nodes.get(from).is_some_and(|node| !node.liar);
        self.tap.datagram(from, to, bytes, is_honest);
        self.note_broken(from);
        self.overhear(from, to, bytes);
        let Some(node) = self.nodes.get_mut(from) else {
            return;
        };
        let peer = node.peers.entry(to).or_default();
        let traffic = &mut peer.traffic;
        traffic.udp_out += bytes.len() as u64;
        traffic.datagrams_out += 1;
        let bytes_in = traffic.udp_in + traffic.tcp_in;
        if !traffic.proven {
            traffic.udp_unproven += bytes.len() as u64;
        }
        let bytes_out = traffic.udp_unproven;
        let amplified = !traffic.proven && bytes_out > bytes_in && !node.liar;
        let link = peer.link.filter(|_| passes);
        let (mut left, mut room) = (Some(now), true);
        if let Some(access) = node.access {
            let rate = access.up_bytes_per_s;
            left = node
                .up
                .pass(now, bytes.len() + UDP_OVERHEAD, rate, access.room(rate));
            room = left.is_some();
        }
        if amplified {
            let what = Broken::Amplified {
                peer: to,
                bytes_out,
                bytes_in,
            };
            self.violate(from, what);
        }
        let link = link
            .filter(|_| room)
            .and_then(|link| self.links.get_mut(link));
        let (Some(link), Some(left)) = (link, left) else {
            return;
        };
        let claimed = outgoing.from.and_then(node_at).unwrap_or(from);
        let Ok(arrivals) = link.datagram(left, bytes.len(), &mut self.random) else {
            return;
        };
        let shared = Bytes::copy_from_slice(bytes);
        for arrival in arrivals {
            let mut bytes = shared.clone();
            if let Some(bit) = arrival.flipped {
                let mut altered = BytesMut::from(&bytes[..]);
                if let Some(byte) = altered.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
                bytes = altered.freeze();
            }
            let from = claimed;
            self.schedule(arrival.at, What::Datagram { to, from, bytes });
        }
    }

    /// Takes what the tap found wrong with what a node passed on.
    fn note_broken(&mut self, from: NodeId) {
        for broken in std::mem::take(&mut self.tap.broken) {
            self.violate(from, broken);
        }
    }

    /// Lets those who stand at the wires around two nodes see what passes between them.
    fn overhear(&mut self, from: NodeId, to: NodeId, bytes: &[u8]) {
        for at in 0..self.listeners.len() {
            let Some(&listener) = self.listeners.get(at) else {
                return;
            };
            let Some(node) = self.nodes.get_mut(listener) else {
                continue;
            };
            let near = |peer: NodeId| {
                node.peers
                    .get(&peer)
                    .is_some_and(|peer| peer.link.is_some())
            };
            if listener != from
                && near(from)
                && near(to)
                && let Some(actor) = &mut node.actor
            {
                actor.handle_overheard(data_address(from), data_address(to), bytes);
            }
        }
    }

    fn check_bounds(&mut self, node: NodeId) {
        let Some(held) = self.nodes.get_mut(node).filter(|held| !held.liar) else {
            return;
        };
        held.turns += 1;
        let sessions = held.sessions.len();
        let most = held.max_peers;
        let engine = held.actor.as_ref().and_then(|actor| actor.engine());
        // All of it is looked at where adversaries are, now and then: it takes time.
        let looks = self.tap.passage.is_some() && held.turns.is_multiple_of(BOUNDS_EVERY);
        let now = engine.filter(|_| looks).map(Engine::held);
        let limits = held.options.as_ref().map(|options| &options.config);
        let broken = match (now, limits) {
            (Some(now), Some(config)) => beyond(&now, config),
            _ => Vec::new(),
        };
        if sessions > most {
            self.violate(node, Broken::TooMany("sessions", sessions));
        }
        for (what, count) in broken {
            self.violate(node, Broken::TooMany(what, count));
        }
    }
}

const fn event_number(event: &Event) -> u64 {
    match event {
        Event::SessionUp { .. } => 1,
        Event::SessionDown { .. } => 2,
        Event::PathChanged { .. } => 3,
        Event::JobOpened { .. } => 4,
        Event::ChunkVerified { chunk, .. } => 1_000 + *chunk as u64,
        Event::BlockComplete { .. } => 5,
        Event::JobClosed { .. } => 6,
        Event::Refused { .. } => 7,
        Event::Addresses { .. } => 8,
        Event::AddressesWanted { .. } => 9,
    }
}
