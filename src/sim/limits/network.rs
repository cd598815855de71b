//! The bounds of every node of a network.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use super::flow::{FlowNetwork, UNLIMITED};
use super::{swarms, transfer};

/// Nodes up to which the narrowest cut is computed; beyond it, the cuts around source and receiver stand for it, which
/// gives a lower bound too, and in networks without a bottleneck the same.
const EXACT_NODES: usize = 64;

/// One direction of a link: from, to, one-way delay, rate in bytes per second if there is a limit.
pub type LinkRate = (usize, usize, Duration, Option<u64>);

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
    /// How soon each node can have what it needs: `bytes` for each node, all from `source`. `None` for those that no
    /// way leads to. The source needs no time.
    pub fn bounds(&self, source: usize, bytes: &[u64]) -> Vec<Option<Duration>> {
        let delays = self.least_delays(source);
        let receivers: Vec<_> = (0..self.nodes)
            .filter(|&node| node != source)
            .filter(|&node| delays.get(node).is_some_and(Option::is_some))
            .map(|node| {
                let needs = bytes.get(node).copied().unwrap_or(0);
                (needs, self.sends(node), self.takes(node))
            })
            .collect();
        let together = match self.up.is_empty() {
            true => BTreeMap::new(),
            false => swarms(self.sends(source), receivers),
        };
        let bound = |(node, delay): (usize, &Option<Duration>)| {
            let delay = (*delay)?;
            if node == source {
                return Some(Duration::ZERO);
            }
            let needs = bytes.get(node).copied().unwrap_or(0);
            let flow = self.flow(source, node);
            let alone = transfer(needs as f64, (flow != UNLIMITED).then_some(flow));
            let together = together.get(&needs).copied().unwrap_or_default();
            Some(delay + alone.max(together))
        };
        delays.iter().enumerate().map(bound).collect()
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

    /// The most bytes per second that can flow from `source` to `node`.
    fn flow(&self, source: usize, node: usize) -> f64 {
        let limit = |rate: Option<u64>| rate.map_or(UNLIMITED, |rate| rate as f64);
        if self.nodes > EXACT_NODES {
            let sum = |end: fn(&LinkRate) -> usize, at: usize| {
                let links = self.links.iter().filter(|link| end(link) == at);
                links.map(|link| limit(link.3)).sum::<f64>()
            };
            let out = sum(|link| link.0, source).min(limit(self.sends(source)));
            let within = sum(|link| link.1, node).min(limit(self.takes(node)));
            return out.min(within);
        }
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
