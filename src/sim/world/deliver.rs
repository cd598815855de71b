//! What arrives: through the receiver's downlink, and then at whoever stands there.

use bytes::Bytes;

use super::super::control::TCP_OVERHEAD;
use super::super::link::UDP_OVERHEAD;
use super::{NodeId, What, World, data_address};

impl World {
    /// A datagram has come to the receiver's downlink.
    pub(super) fn arrive(&mut self, to: NodeId, from: NodeId, bytes: Bytes) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(to) else {
            return;
        };
        let Some(access) = node
            .access
            .filter(|access| access.down_bytes_per_s.is_some())
        else {
            self.deliver_datagram(to, from, &bytes);
            return;
        };
        let rate = access.down_bytes_per_s;
        let room = access.room(rate);
        // What does not fit is lost, as anywhere else.
        if let Some(at) = node.down.pass(now, bytes.len() + UDP_OVERHEAD, rate, room) {
            self.schedule(at, What::Taken { to, from, bytes });
        }
    }

    pub(super) fn deliver_datagram(&mut self, to: NodeId, from: NodeId, bytes: &[u8]) {
        self.note(b'd', [to as u64, from as u64, 0], bytes);
        let Some(node) = self.nodes.get_mut(to) else {
            return;
        };
        let local = node.local(self.now);
        let Some(actor) = &mut node.actor else {
            return;
        };
        let traffic = &mut node.peers.entry(from).or_default().traffic;
        traffic.udp_in += bytes.len() as u64;
        traffic.datagrams_in += 1;
        actor.handle_datagram(local, data_address(from), bytes);
        self.turn(to);
    }

    /// A segment has come to the receiver's downlink, which a stream waits for.
    pub(super) fn arrive_control(&mut self, connection: usize, side: usize, bytes: Bytes) {
        let now = self.now;
        let to = self.end(connection, side);
        let node = to.and_then(|to| self.nodes.get_mut(to));
        let rate = |node: &super::Node| node.access.and_then(|access| access.down_bytes_per_s);
        let limited = node.and_then(|node| Some((rate(node)?, node)));
        let Some((rate, node)) = limited else {
            self.deliver_control(connection, side, &bytes);
            return;
        };
        let length = bytes.len() + TCP_OVERHEAD;
        let at = node.down.pass(now, length, Some(rate), None).unwrap_or(now);
        let taken = What::ControlTaken {
            connection,
            side,
            bytes,
        };
        self.schedule(at, taken);
    }

    pub(super) fn deliver_control(&mut self, connection: usize, side: usize, bytes: &Bytes) {
        let (Some(to), Some(from)) = (self.end(connection, side), self.end(connection, 1 - side))
        else {
            return;
        };
        let session = self
            .connections
            .get(connection)
            .and_then(|held| held.sessions.get(side).copied().flatten());
        self.note(b'c', [to as u64, from as u64, 0], bytes);
        let acknowledged = What::Acknowledged {
            connection,
            side: 1 - side,
            length: bytes.len() as u64,
        };
        self.schedule(self.now + self.delay(to, from), acknowledged);
        let Some(node) = self.nodes.get_mut(to) else {
            return;
        };
        let local = node.local(self.now);
        let (Some(actor), Some(session)) = (&mut node.actor, session) else {
            return;
        };
        node.peers.entry(from).or_default().traffic.tcp_in += bytes.len() as u64;
        actor.handle_control(local, session, bytes);
        self.turn(to);
    }

    pub(super) fn acknowledged(&mut self, connection: usize, side: usize, length: u64) {
        if let Some(held) = self.connections.get_mut(connection)
            && let Some(flow) = held.flows.get_mut(side)
        {
            flow.acknowledged(length);
            self.send_control(connection, side);
            if let Some(node) = self.end(connection, side) {
                self.turn(node);
            }
        }
    }
}
