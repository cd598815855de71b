//! What befalls the network and its nodes.

use std::time::Duration;

use super::super::link::{Link, LinkOptions};
use super::super::node::engine;
use super::super::scenario::LinkChange;
use super::{NodeId, What, World};

/// Something that befalls the network.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Nothing passes between these nodes and the others; connections stay.
    Partition(Vec<NodeId>),
    /// All partitions end, and all links are up.
    Heal,
    /// A node stops at once and loses what it held; its connections end.
    Crash(NodeId),
    /// A node that crashed starts anew, with an engine that knows nothing.
    Restart(NodeId),
    /// A link, both ways, carries or does not; connections stay.
    Link {
        /// Its ends.
        ends: (NodeId, NodeId),
        /// Whether it carries.
        up: bool,
    },
    /// The control connection between two nodes is reset.
    Cut(NodeId, NodeId),
    /// One direction of a link behaves differently from now on.
    Change {
        /// From where to where.
        way: (NodeId, NodeId),
        /// What is different.
        change: LinkChange,
    },
}

impl World {
    /// Lets something befall the network, `after` from now.
    pub fn fault(&mut self, after: Duration, fault: Fault) {
        self.schedule(self.now + after, What::Fault(Box::new(fault)));
    }

    /// Changes how a link behaves, in both directions, from now on.
    pub fn set_link(&mut self, one: NodeId, other: NodeId, change: impl Fn(&mut LinkOptions)) {
        for (from, to) in [(one, other), (other, one)] {
            if let Some(link) = self.link_mut(from, to) {
                change(&mut link.options);
            }
        }
    }

    /// Takes a link down or up again, `after` from now: the connection stays, nothing passes.
    pub fn set_link_up(&mut self, one: NodeId, other: NodeId, after: Duration, up: bool) {
        let ends = (one, other);
        self.fault(after, Fault::Link { ends, up });
    }

    /// Whether anything passes from one node to another now.
    pub(super) fn passes(&self, from: NodeId, to: NodeId) -> bool {
        let (Some(near), Some(far)) = (self.nodes.get(from), self.nodes.get(to)) else {
            return false;
        };
        let link = near.peers.get(&to).and_then(|peer| peer.link);
        let link = link.and_then(|link| self.links.get(link));
        let carries = |link: &Link| link.up && link.options.loss < 1.0;
        near.group == far.group && link.is_some_and(carries)
    }

    pub(super) fn befall(&mut self, fault: Fault) {
        self.note(b'f', [self.happened, 0, 0], &[]);
        match fault {
            Fault::Partition(nodes) => {
                self.groups += 1;
                for node in nodes {
                    if let Some(held) = self.nodes.get_mut(node) {
                        held.group = self.groups;
                    }
                }
            }
            Fault::Heal => {
                self.nodes.iter_mut().for_each(|node| node.group = 0);
                self.links.iter_mut().for_each(|link| link.up = true);
                self.resume(None);
            }
            Fault::Crash(node) => self.crash(node),
            Fault::Restart(node) => self.restart(node),
            Fault::Link {
                ends: (one, other),
                up,
            } => {
                for (from, to) in [(one, other), (other, one)] {
                    if let Some(link) = self.link_mut(from, to) {
                        link.up = up;
                    }
                }
                self.resume(Some((one, other)));
            }
            Fault::Cut(one, other) => self.cut(one, other),
            Fault::Change {
                way: (from, to),
                change,
            } => {
                if let Some(link) = self.link_mut(from, to) {
                    change.apply(&mut link.options);
                }
                self.resume(Some((from, to)));
            }
        }
    }

    /// What TCP held back goes now, between two nodes or everywhere.
    fn resume(&mut self, between: Option<(NodeId, NodeId)>) {
        for connection in 0..self.connections.len() {
            let nodes = self.connections.get(connection).map(|held| held.nodes);
            let concerned = match (nodes, between) {
                (Some(nodes), Some((one, other))) => nodes == [one, other] || nodes == [other, one],
                (nodes, None) => nodes.is_some(),
                _ => false,
            };
            if concerned {
                self.send_control(connection, 0);
                self.send_control(connection, 1);
            }
        }
    }

    fn crash(&mut self, node: NodeId) {
        let Some(held) = self.nodes.get_mut(node) else {
            return;
        };
        if held.actor.take().is_none() {
            return;
        }
        held.wakes_at = None;
        for peer in held.peers.values_mut() {
            peer.traffic.proven = false;
            peer.proven_by.clear();
            peer.traffic.udp_unproven = 0;
        }
        self.news = true;
        self.drop_connections(node);
    }

    fn restart(&mut self, node: NodeId) {
        let seed = self.draw_seed();
        let now = self.now;
        let shelf = self.shelf.clone();
        let Some(held) = self.nodes.get_mut(node) else {
            return;
        };
        let (None, Some(options)) = (&held.actor, &held.options) else {
            return;
        };
        let local = held.local(now);
        let mut actor = engine(options, seed, local);
        if let Some(shelf) = shelf {
            actor.set_shelf(shelf);
        }
        held.actor = Some(actor);
        self.news = true;
        self.dial_again(node);
    }
}
