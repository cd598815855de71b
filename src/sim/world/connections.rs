//! Control connections: made, ended, and dialled anew.

use std::time::Duration;

use super::super::control::ControlFlow;
use super::super::node::control_address;
use super::{NodeId, What, World};
use crate::relay::{Initiator, SessionId};
use crate::time::Time;
use crate::wire::ControlDecoder;

/// How long after the end of a connection who had dialled it dials again, and how long after a try that failed.
const REDIAL: Duration = Duration::from_secs(1);

/// A control connection; side 0 initiated it.
pub(super) struct Connection {
    pub nodes: [NodeId; 2],
    pub sessions: [Option<SessionId>; 2],
    pub flows: [ControlFlow; 2],
    /// Sides whose engine has more bytes than the flow took.
    pub ready: [bool; 2],
    /// What each side sends, as a tap reads it.
    pub decoders: [ControlDecoder; 2],
    pub open: bool,
    /// When each side's session was up.
    pub up: [Option<Time>; 2],
    /// Another has taken its place.
    pub replaced: bool,
}

impl World {
    /// Opens a control connection over links that are there.
    pub fn dial(&mut self, initiator: NodeId, acceptor: NodeId) {
        let connection = self.connections.len();
        self.connections.push(Connection {
            nodes: [initiator, acceptor],
            sessions: [None; 2],
            flows: Default::default(),
            ready: [false; 2],
            decoders: Default::default(),
            open: true,
            up: [None; 2],
            replaced: false,
        });
        let there = self.delay(initiator, acceptor);
        let back = self.delay(acceptor, initiator);
        let side = 1;
        self.schedule(self.now + there, What::Connected { connection, side });
        let side = 0;
        self.schedule(
            self.now + there + back,
            What::Connected { connection, side },
        );
    }

    /// The sessions that stand at both ends, by these, and since when.
    pub fn standing(&self) -> Vec<((NodeId, NodeId), Time)> {
        let stands = |held: &Connection| match (held.open, held.nodes, held.up) {
            (true, [one, other], [Some(near), Some(far)]) => Some(((one, other), near.max(far))),
            _ => None,
        };
        self.connections.iter().filter_map(stands).collect()
    }

    /// Notes that a session is up at a node.
    pub(super) fn note_up(&mut self, node: NodeId, session: SessionId) {
        let now = self.now;
        let found = self
            .nodes
            .get(node)
            .and_then(|node| node.sessions.get(&session));
        if let Some(&(connection, _)) = found
            && let Some(side) = self.side_of(connection, node)
            && let Some(held) = self.connections.get_mut(connection)
            && let Some(up) = held.up.get_mut(side)
        {
            up.get_or_insert(now);
        }
    }

    /// The node at one side of a connection.
    pub(super) fn end(&self, connection: usize, side: usize) -> Option<NodeId> {
        self.connections.get(connection)?.nodes.get(side).copied()
    }

    pub(super) fn side_of(&self, connection: usize, node: NodeId) -> Option<usize> {
        let held = self.connections.get(connection)?;
        held.nodes.iter().position(|&end| end == node)
    }

    pub(super) fn connected(&mut self, connection: usize, side: usize) {
        if !self
            .connections
            .get(connection)
            .is_some_and(|held| held.open)
        {
            return;
        }
        let (Some(own), Some(peer)) = (self.end(connection, side), self.end(connection, 1 - side))
        else {
            return;
        };
        let Some(node) = self.nodes.get_mut(own) else {
            return;
        };
        let initiator = match side {
            0 => Initiator::Outbound,
            _ => Initiator::Inbound,
        };
        let remote = control_address(peer, connection, side == 1);
        let local = node.local(self.now);
        let session = match &mut node.actor {
            Some(actor) => actor.handle_connected(local, initiator, remote),
            None => None,
        };
        match session {
            Some(session) => {
                node.sessions.insert(session, (connection, peer));
                if let Some(held) = self.connections.get_mut(connection)
                    && let Some(place) = held.sessions.get_mut(side)
                {
                    *place = Some(session);
                }
            }
            None => {
                let side = 1 - side;
                self.schedule(self.now, What::Closed { connection, side });
            }
        }
        self.turn(own);
    }

    pub(super) fn closed(&mut self, connection: usize, side: usize) {
        let Some(held) = self.connections.get_mut(connection) else {
            return;
        };
        let session = held.sessions.get_mut(side).and_then(Option::take);
        if std::mem::replace(&mut held.open, false) {
            self.schedule(self.now + REDIAL, What::Redial { connection });
        }
        let Some(own) = self.end(connection, side) else {
            return;
        };
        if let (Some(node), Some(session)) = (self.nodes.get_mut(own), session) {
            node.sessions.remove(&session);
            let local = node.local(self.now);
            if let Some(actor) = &mut node.actor {
                actor.handle_disconnected(local, session);
            }
        }
        self.turn(own);
    }

    /// The engine has ended a session: its last bytes go out, then the other side sees the end.
    pub(super) fn hang_up(&mut self, node: NodeId, session: SessionId) {
        let held = self.nodes.get_mut(node);
        let Some((connection, peer)) = held.and_then(|held| held.sessions.remove(&session)) else {
            return;
        };
        let Some(side) = self.side_of(connection, node) else {
            return;
        };
        if let Some(held) = self.connections.get_mut(connection)
            && let Some(ready) = held.ready.get_mut(side)
        {
            *ready = true;
        }
        self.send_control(connection, side);
        let mut at = self.now + self.delay(node, peer);
        self.schedule(self.now + REDIAL, What::Redial { connection });
        if let Some(held) = self.connections.get_mut(connection) {
            held.open = false;
            if let Some(place) = held.sessions.get_mut(side) {
                *place = None;
            }
            if let Some(flow) = held.flows.get(side) {
                at = at.max(flow.last_arrival());
            }
        }
        let side = 1 - side;
        self.schedule(at, What::Closed { connection, side });
        let now = self.now;
        if let Some(node) = self.nodes.get_mut(node) {
            let local = node.local(now);
            if let Some(actor) = &mut node.actor {
                actor.handle_disconnected(local, session);
            }
        }
    }

    /// Ends the first control connection between two nodes, as if the network had cut it; who had dialled it dials
    /// again after a second, as after any end.
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

    /// Dials anew what has ended; if that is not possible now, again later.
    pub(super) fn redial(&mut self, connection: usize) {
        let Some(&Connection {
            nodes: [initiator, acceptor],
            open: false,
            replaced: false,
            ..
        }) = self.connections.get(connection)
        else {
            return;
        };
        let stands = |node: NodeId| {
            self.nodes
                .get(node)
                .is_some_and(|node| node.actor.is_some())
        };
        if !stands(initiator) {
            return; // It dials once it is back.
        }
        let reached = stands(acceptor)
            && self.passes(initiator, acceptor)
            && self.passes(acceptor, initiator);
        if !reached {
            self.schedule(self.now + REDIAL, What::Redial { connection });
            return;
        }
        if let Some(held) = self.connections.get_mut(connection) {
            held.replaced = true;
        }
        self.dial(initiator, acceptor);
    }

    /// Ends all connections of a node that is no more: the others learn of it when the last packet is there.
    pub(super) fn drop_connections(&mut self, node: NodeId) {
        if let Some(held) = self.nodes.get_mut(node) {
            held.sessions.clear();
        }
        for connection in 0..self.connections.len() {
            let Some(side) = self.side_of(connection, node) else {
                continue;
            };
            let Some(held) = self
                .connections
                .get_mut(connection)
                .filter(|held| held.open)
            else {
                continue;
            };
            held.open = false;
            if let Some(place) = held.sessions.get_mut(side) {
                *place = None;
            }
            let side = 1 - side;
            let peer = self.end(connection, side).unwrap_or(node);
            let at: Time = self.now + self.delay(node, peer);
            self.schedule(at, What::Closed { connection, side });
            self.schedule(at + REDIAL, What::Redial { connection });
        }
    }

    /// Dials all that a node had dialled before it crashed.
    pub(super) fn dial_again(&mut self, node: NodeId) {
        let ended: Vec<usize> = (0..)
            .zip(&self.connections)
            .filter(|(_, held)| held.nodes.first() == Some(&node) && !held.open && !held.replaced)
            .map(|(connection, _)| connection)
            .collect();
        for connection in ended {
            self.redial(connection);
        }
    }
}
