//! The bounds of every node of a network.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::flow::{FlowNetwork, UNLIMITED};
use super::{ranks, transfer};

/// Nodes up to which the narrowest cut is computed; beyond it, the cuts around source and receiver stand for it, which
/// gives a lower bound too, and in networks without a bottleneck the same.
const EXACT_NODES: usize = 64;

/// One direction of a link: from, to, one-way delay, rate in bytes per second if there is a limit.
pub type LinkRate = (usize, usize, Duration, Option<u64>);

/// What leaves and enters each node at most, in bytes per second.
struct Ends {
    out: Vec<f64>,
    within: Vec<f64>,
}

impl Ends {
    fn flow(&self, source: usize, node: usize) -> f64 {
        let at = |sums: &[f64], node: usize| sums.get(node).copied().unwrap_or(UNLIMITED);
        at(&self.out, source).min(at(&self.within, node))
    }
}

fn limit(rate: Option<u64>) -> f64 {
    rate.map_or(UNLIMITED, |rate| rate as f64)
}

/// Links and access rates, for bounds.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// How many nodes.
    pub nodes: usize,
    /// One direction of a link each.
    pub links: Vec<LinkRate>,
    /// What each node can send, bytes per second; empty: no limits.
    pub up: Vec<Option<u64>>,
    /// What each node can take, bytes per second; empty: no limits.
    pub down: Vec<Option<u64>>,
}

impl Network {
    /// How soon each node can have what it needs, whatever the others have: `bytes` for each node, all from `source`.
    /// `None` for those that no way leads to. The source needs no time.
    pub fn bounds(&self, source: usize, bytes: &[u64]) -> Vec<Option<Duration>> {
        let ends = (self.nodes > EXACT_NODES).then(|| self.ends());
        let bound = |(node, delay): (usize, &Option<Duration>)| {
            let delay = (*delay)?;
            if node == source {
                return Some(Duration::ZERO);
            }
            let needs = bytes.get(node).copied().unwrap_or(0);
            let flow = match &ends {
                Some(ends) => ends.flow(source, node),
                None => self.flow(source, node),
            };
            Some(delay + transfer(needs as f64, (flow != UNLIMITED).then_some(flow)))
        };
        self.least_delays(source)
            .iter()
            .enumerate()
            .map(bound)
            .collect()
    }

    /// How soon the first, the second and so on of all that have it at all can have it, the source at 0 as the first:
    /// nothing arrives before the least delay of any way, and then no more than all together can send.
    pub fn ranks(&self, source: usize, bytes: &[u64]) -> Vec<Duration> {
        let delays = self.least_delays(source);
        let reached: Vec<(usize, Duration)> = delays
            .iter()
            .enumerate()
            .filter(|(node, _)| *node != source)
            .filter_map(|(node, delay)| Some((node, (*delay)?)))
            .collect();
        let receivers: Vec<_> = reached
            .iter()
            .map(|&(node, _)| (bytes.get(node).copied().unwrap_or(0), self.sends(node)))
            .collect();
        let least = reached.iter().map(|(_, delay)| *delay).min();
        let sent = ranks(self.sends(source), &receivers);
        let sent = sent
            .into_iter()
            .map(|sent| least.unwrap_or_default() + sent);
        [Duration::ZERO].into_iter().chain(sent).collect()
    }

    /// What the links and the access of each node carry, on either side.
    fn ends(&self) -> Ends {
        let mut ends = Ends {
            out: vec![0.0; self.nodes],
            within: vec![0.0; self.nodes],
        };
        for &(near, far, _, rate) in &self.links {
            for (sums, node) in [(&mut ends.out, near), (&mut ends.within, far)] {
                if let Some(sum) = sums.get_mut(node) {
                    *sum += limit(rate);
                }
            }
        }
        for (node, (out, within)) in ends.out.iter_mut().zip(&mut ends.within).enumerate() {
            *out = out.min(limit(self.sends(node)));
            *within = within.min(limit(self.takes(node)));
        }
        ends
    }

    fn sends(&self, node: usize) -> Option<u64> {
        self.up.get(node).copied().flatten()
    }

    fn takes(&self, node: usize) -> Option<u64> {
        self.down.get(node).copied().flatten()
    }

    /// The least delay of any way from `source` to each node.
    pub fn least_delays(&self, source: usize) -> Vec<Option<Duration>> {
        let mut from = vec![Vec::new(); self.nodes];
        for &(near, far, delay, _) in &self.links {
            if let Some(list) = from.get_mut(near) {
                list.push((far, delay));
            }
        }
        let mut least = vec![None; self.nodes];
        let mut open = BinaryHeap::from([Reverse((Duration::ZERO, source))]);
        while let Some(Reverse((delay, node))) = open.pop() {
            match least.get_mut(node) {
                Some(place @ None) => *place = Some(delay),
                _ => continue,
            }
            for &(far, more) in from.get(node).into_iter().flatten() {
                if least.get(far).is_some_and(Option::is_none) {
                    open.push(Reverse((delay + more, far)));
                }
            }
        }
        least
    }

    /// The most bytes per second that can flow from `source` to `node`: the narrowest cut.
    fn flow(&self, source: usize, node: usize) -> f64 {
        // What a node takes and what it sends have limits of their own: it is entered at `3 * node`, there at
        // `3 * node + 1`, and left at `3 * node + 2`.
        let mut network = FlowNetwork::new(3 * self.nodes);
        for at in 0..self.nodes {
            network.add(3 * at, 3 * at + 1, limit(self.takes(at)));
            network.add(3 * at + 1, 3 * at + 2, limit(self.sends(at)));
        }
        for &(near, far, _, rate) in &self.links {
            network.add(3 * near + 2, 3 * far, limit(rate));
        }
        network.greatest(3 * source + 1, 3 * node + 1)
    }
}
