//! The turn of a node: drain events, control bytes and datagrams, then ask for its next deadline.

use std::time::Duration;

use super::super::NodeId;
use super::super::checks::Broken;
use super::super::node::{Completion, node_at};
use super::{What, World};
use crate::relay::{Event, Refusal, SessionId, WakeReason};

/// Datagrams that one turn may give out; the largest block is 4,000, to a few peers.
const MAX_TURN_DATAGRAMS: usize = 200_000;

/// Turns in a row that an engine may ask for without time passing; more means that it never stops.
const MAX_TURNS: usize = 64;

impl World {
    /// Drains a node until it has nothing more to say at this time, then asks when to wake it.
    pub(super) fn turn(&mut self, node: NodeId) {
        for _ in 0..MAX_TURNS {
            self.drain(node);
            let now = self.now;
            let Some(held) = self.nodes.get_mut(node) else {
                return;
            };
            match held.engine.poll_deadline() {
                None => return,
                Some((at, _)) if at > now => {
                    if held
                        .wakes_at
                        .is_none_or(|wakes_at| wakes_at < now || at < wakes_at)
                    {
                        held.wakes_at = Some(at);
                        self.schedule(at, What::Wake { node });
                    }
                    return;
                }
                Some(_) => held.engine.handle_timeout(now),
            }
        }
        self.spins(node);
    }

    /// Notes that an engine spins, and lets a millisecond pass so that the world goes on.
    fn spins(&mut self, node: NodeId) {
        let at = self.now + Duration::from_millis(1);
        let mut reason = "";
        if let Some(held) = self.nodes.get_mut(node) {
            reason = match held.engine.poll_deadline() {
                Some((_, reason)) => match reason {
                    WakeReason::Pacing => "pacing",
                    WakeReason::Session => "session",
                    WakeReason::Job => "job",
                },
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
            .and_then(|held| held.engine.poll_event())
        {
            self.take_event(node, event);
        }
        self.drain_control(node);
        self.drain_datagrams(node);
        self.check_bounds(node);
    }

    fn take_event(&mut self, node: NodeId, event: Event) {
        let now = self.now;
        let Some(held) = self.nodes.get_mut(node) else {
            return;
        };
        let mut broken = None;
        match &event {
            Event::BlockComplete {
                block,
                whole,
                local,
                ..
            } => {
                let bytes = &whole.bytes;
                if self.submitted.get(block) != Some(bytes) {
                    broken = Some(Broken::WrongBlock);
                }
                let completion = Completion {
                    at: now,
                    bytes: bytes.clone(),
                    local: *local,
                };
                held.completed.entry(*block).or_insert(completion);
            }
            Event::PathChanged { session, udp } => {
                if let Some(&(_, peer)) = held.sessions.get(session) {
                    held.traffic.entry(peer).or_default().proven = *udp;
                }
            }
            Event::Refused {
                session, refusal, ..
            } => {
                let peer = held.sessions.get(session).map(|&(_, peer)| peer);
                let honest = !held.liar
                    && peer
                        .and_then(|peer| self.nodes.get(peer))
                        .is_some_and(|peer| !peer.liar);
                // An honest peer behind a dead link serves nothing either: that is suspicion, no lie.
                let lie = *refusal != Refusal::Withheld;
                if let (true, true, Some(peer)) = (honest, lie, peer) {
                    broken = Some(Broken::HonestBlamed {
                        peer,
                        refusal: refusal.name(),
                    });
                }
            }
            Event::SessionDown { session, .. } => self.hang_up(node, *session),
            _ => {}
        }
        self.note(b'e', [node as u64, event_number(&event), 0], &[]);
        if let Some(held) = self.nodes.get_mut(node) {
            held.events.push((now, event));
        }
        if let Some(broken) = broken {
            self.violate(node, broken);
        }
    }

    /// The engine has ended a session: its last bytes go out, then the other side sees the end.
    fn hang_up(&mut self, node: NodeId, session: SessionId) {
        let Some((connection, peer)) = self
            .nodes
            .get_mut(node)
            .and_then(|held| held.sessions.remove(&session))
        else {
            return;
        };
        if let Some(side) = self.side_of(connection, node) {
            if let Some(held) = self.connections.get_mut(connection)
                && let Some(ready) = held.ready.get_mut(side)
            {
                *ready = true;
            }
            self.send_control(connection, side, session);
            let delay = self
                .links
                .get(&(node, peer))
                .map_or(Duration::ZERO, |link| link.options.delay);
            let mut at = self.now + delay;
            if let Some(held) = self.connections.get_mut(connection) {
                held.open = false;
                if let Some(place) = held.sessions.get_mut(side) {
                    *place = None;
                }
                if let Some(flow) = held.flows.get(side) {
                    at = at.max(flow.last_arrival());
                }
            }
            self.schedule(
                at,
                What::Closed {
                    connection,
                    side: 1 - side,
                },
            );
        }
    }

    fn side_of(&self, connection: usize, node: NodeId) -> Option<usize> {
        let held = self.connections.get(connection)?;
        held.nodes.iter().position(|&end| end == node)
    }

    fn drain_control(&mut self, node: NodeId) {
        while let Some(session) = self
            .nodes
            .get_mut(node)
            .and_then(|held| held.engine.poll_control_ready())
        {
            let found = self
                .nodes
                .get(node)
                .and_then(|held| held.sessions.get(&session));
            if let Some(&(connection, _)) = found
                && let Some(side) = self.side_of(connection, node)
                && let Some(held) = self.connections.get_mut(connection)
                && let Some(ready) = held.ready.get_mut(side)
            {
                *ready = true;
            }
        }
        let sessions: Vec<_> = match self.nodes.get(node) {
            Some(held) => held
                .sessions
                .iter()
                .map(|(&session, &(connection, _))| (session, connection))
                .collect(),
            None => return,
        };
        for (session, connection) in sessions {
            if let Some(side) = self.side_of(connection, node) {
                self.send_control(connection, side, session);
            }
        }
    }

    fn send_control(&mut self, connection: usize, side: usize, session: SessionId) {
        let Some(held) = self.connections.get_mut(connection) else {
            return;
        };
        let (Some(&from), Some(&to)) = (held.nodes.get(side), held.nodes.get(1 - side)) else {
            return;
        };
        let (Some(flow), Some(ready)) = (held.flows.get_mut(side), held.ready.get_mut(side)) else {
            return;
        };
        let (Some(node), Some(link)) = (self.nodes.get_mut(from), self.links.get_mut(&(from, to)))
        else {
            return;
        };
        let mut arrivals = Vec::new();
        loop {
            while *ready && flow.has_room() {
                match node.engine.poll_control(self.now, session) {
                    Some(bytes) => {
                        node.traffic.entry(to).or_default().tcp_out += bytes.len() as u64;
                        flow.push(bytes);
                    }
                    None => *ready = false,
                }
            }
            match flow.next_segment(self.now, link, &mut self.random) {
                Some(arrival) => arrivals.push(arrival),
                None => break,
            }
        }
        for (at, bytes) in arrivals {
            self.schedule(
                at,
                What::Control {
                    connection,
                    side: 1 - side,
                    bytes,
                },
            );
        }
    }

    fn drain_datagrams(&mut self, from: NodeId) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for _ in 0..MAX_TURN_DATAGRAMS {
            let Some(node) = self.nodes.get_mut(from) else {
                break;
            };
            let Some(transmit) = node.engine.poll_transmit(self.now, &mut buffer) else {
                self.buffer = buffer;
                return;
            };
            let bytes = buffer.get(..transmit.len).unwrap_or_default();
            match node_at(transmit.to).filter(|&to| to < self.nodes.len()) {
                Some(to) => self.send_datagram(from, to, bytes),
                None => self.violate(from, Broken::UnknownAddress),
            }
        }
        self.buffer = buffer;
        self.violate(from, Broken::EndlessTransmit);
    }

    fn send_datagram(&mut self, from: NodeId, to: NodeId, bytes: &[u8]) {
        let Some(node) = self.nodes.get_mut(from) else {
            return;
        };
        let traffic = node.traffic.entry(to).or_default();
        traffic.udp_out += bytes.len() as u64;
        traffic.datagrams_out += 1;
        let bytes_in = traffic.udp_in + traffic.tcp_in;
        if !traffic.proven {
            traffic.udp_unproven += bytes.len() as u64;
        }
        if !traffic.proven && traffic.udp_unproven > bytes_in {
            let bytes_out = traffic.udp_unproven;
            self.violate(
                from,
                Broken::Amplified {
                    peer: to,
                    bytes_out,
                    bytes_in,
                },
            );
        }
        let Some(link) = self.links.get_mut(&(from, to)) else {
            return;
        };
        let passage = link.datagram(self.now, bytes.len(), &mut self.random);
        for arrival in passage.into_iter().flatten() {
            let mut bytes = bytes.to_vec();
            if let Some(bit) = arrival.flipped
                && let Some(byte) = bytes.get_mut(bit / 8)
            {
                *byte ^= 1 << (bit % 8);
            }
            self.schedule(arrival.at, What::Datagram { to, from, bytes });
        }
    }

    fn check_bounds(&mut self, node: NodeId) {
        let Some(held) = self.nodes.get(node) else {
            return;
        };
        let sessions = held.sessions.len();
        if sessions > held.max_peers {
            self.violate(node, Broken::TooMany("sessions", sessions));
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
