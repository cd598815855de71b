//! The links and access lines of a trial, as packets of a rival cross them: the same that carry this project's datagrams.

use std::time::Duration;

use arrayvec::ArrayVec;
use rand::rngs::StdRng;

use super::super::link::{Link, UDP_OVERHEAD};
use super::super::queue::RateQueue;
use super::super::scenario::{EventKind, EventSpec};
use super::super::trial::{Access, Trial};
use crate::time::Time;

/// What a packet is, to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carries {
    /// A datagram.
    Datagram,
    /// A segment of a stream, or its acknowledgement.
    Segment,
}

/// One direction of an edge of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// Which edge.
    pub edge: usize,
    /// 0 towards the higher number, 1 back.
    pub back: usize,
}

/// All links, and what lies between them and the nodes.
#[derive(Debug)]
pub(super) struct Network {
    ends: Vec<(usize, usize)>,
    links: Vec<[Link; 2]>,
    access: Vec<Access>,
    up: Vec<RateQueue>,
    down: Vec<RateQueue>,
    groups: Vec<u32>,
    stands: Vec<bool>,
}

impl Network {
    pub(super) fn new(trial: &Trial) -> Self {
        let nodes = trial.plan.nodes;
        let both = |options: &[_; 2]| options.clone().map(Link::new);
        Self {
            ends: trial.plan.edges.clone(),
            links: trial.links.iter().map(both).collect(),
            access: trial.access.clone(),
            up: vec![RateQueue::default(); nodes],
            down: vec![RateQueue::default(); nodes],
            groups: vec![0; nodes],
            stands: vec![true; nodes],
        }
    }

    /// Where a way comes from and leads to.
    pub(super) fn ends(&self, way: Way) -> (usize, usize) {
        let (low, high) = self.ends.get(way.edge).copied().unwrap_or((0, 0));
        match way.back {
            0 => (low, high),
            _ => (high, low),
        }
    }

    fn link(&mut self, way: Way) -> Option<&mut Link> {
        self.links.get_mut(way.edge)?.get_mut(way.back)
    }

    /// The one-way delay.
    pub(super) fn delay(&self, way: Way) -> Duration {
        let link = self.links.get(way.edge).and_then(|both| both.get(way.back));
        link.map_or(Duration::ZERO, |link| link.options.delay)
    }

    /// What a link carries, bytes per second.
    pub(super) fn rate(&self, way: Way) -> Option<u64> {
        let link = self.links.get(way.edge)?.get(way.back)?;
        link.options.rate_bytes_per_s
    }

    /// What a node can send altogether, bytes per second.
    pub(super) fn uplink(&self, node: usize) -> Option<u64> {
        self.access.get(node)?.up_bytes_per_s
    }

    /// Whether a node has not crashed.
    pub(super) fn stands(&self, node: usize) -> bool {
        self.stands.get(node).copied().unwrap_or(false)
    }

    /// Sends a packet of `bytes` with its headers: when it comes to the other end's access line.
    pub(super) fn send(
        &mut self,
        now: Time,
        way: Way,
        (bytes, carries): (usize, Carries),
        random: &mut StdRng,
    ) -> ArrayVec<Time, 2> {
        let (from, to) = self.ends(way);
        let mut left = now;
        if let (Some(access), Some(queue)) = (self.access.get(from), self.up.get_mut(from)) {
            let rate = access.up_bytes_per_s;
            match queue.pass(now, bytes, rate, access.room(rate)) {
                Some(at) => left = at,
                None => return ArrayVec::new(),
            }
        }
        if self.groups.get(from) != self.groups.get(to) {
            return ArrayVec::new();
        }
        let Some(link) = self.link(way) else {
            return ArrayVec::new();
        };
        match carries {
            Carries::Segment => link.packet(left, bytes, random).into_iter().collect(),
            Carries::Datagram => {
                let arrivals = link.datagram(left, bytes.saturating_sub(UDP_OVERHEAD), random);
                // A chunk that was altered is dropped for its checksum.
                let good = arrivals.into_iter().flatten();
                let good = good.filter(|arrival| arrival.flipped.is_none());
                good.map(|arrival| arrival.at).collect()
            }
        }
    }

    /// Whether a node's access line takes time for what it takes.
    pub(super) fn has_downlink(&self, node: usize) -> bool {
        let access = self.access.get(node);
        access.is_some_and(|access| access.down_bytes_per_s.is_some())
    }

    /// When a packet that has come to a node's access line has passed it; `None`: it did not fit.
    pub(super) fn take(&mut self, now: Time, node: usize, bytes: usize) -> Option<Time> {
        let access = self.access.get(node)?;
        let rate = access.down_bytes_per_s;
        let room = access.room(rate);
        self.down.get_mut(node)?.pass(now, bytes, rate, room)
    }

    /// What an event of the scenario does to links and nodes.
    pub(super) fn befall(&mut self, event: &EventSpec) {
        match event.kind {
            EventKind::Partition => {
                let next = self.groups.iter().max().map_or(1, |most| most + 1);
                for &node in &event.nodes {
                    if let Some(group) = self.groups.get_mut(node) {
                        *group = next;
                    }
                }
            }
            EventKind::Heal => {
                self.groups.fill(0);
                for link in self.links.iter_mut().flatten() {
                    link.up = true;
                }
            }
            EventKind::Crash | EventKind::Restart => {
                for &node in &event.nodes {
                    if let Some(stands) = self.stands.get_mut(node) {
                        *stands = event.kind == EventKind::Restart;
                    }
                }
            }
            EventKind::LinkDown | EventKind::LinkUp | EventKind::SetLink => self.change(event),
            EventKind::Cut => {}
        }
    }

    fn change(&mut self, event: &EventSpec) {
        for (&(low, high), both) in self.ends.iter().zip(&mut self.links) {
            let forth_is_back = match event.between {
                None => false,
                Some([one, other]) if (one, other) == (low, high) => false,
                Some([one, other]) if (other, one) == (low, high) => true,
                Some(_) => continue,
            };
            for (way, link) in both.iter_mut().enumerate() {
                match event.kind {
                    EventKind::LinkDown => link.up = false,
                    EventKind::LinkUp => link.up = true,
                    _ => {
                        event.link.apply(&mut link.options);
                        if (way == 1) != forth_is_back {
                            event.back.apply(&mut link.options);
                        }
                    }
                }
            }
        }
    }
}
