//! Who is joined to whom.

mod cities;

use std::collections::BTreeSet;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

pub use cities::{CITIES, City};

use super::scenario::TopologySpec;

/// Links of each node where nothing else is said: as many as Bitcoin Core opens for blocks, `m_max_outbound_full_relay`.
pub(super) const DEFAULT_DEGREE: usize = 8;
pub(super) const DEFAULT_REWIRE: f64 = 0.1;
/// A choice: ways along cables are longer than the great circle (1), and round-trip times between cities rarely show more
/// than twice of it.
pub(super) const DEFAULT_STRETCH: f64 = 1.5;
pub(super) const DEFAULT_LAST_MILE_MS: f64 = 3.0;

/// How nodes are joined; the first is usually the one with the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topology {
    /// Each with the next.
    Line,
    /// A line whose ends are joined.
    Ring,
    /// All with the first.
    Star,
    /// All with all.
    Mesh,
    /// Each with the same number of others, drawn at random; in one piece.
    Regular,
    /// A ring of near neighbours of which a share of links goes anywhere (Watts and Strogatz, 1998); in one piece.
    SmallWorld,
    /// Nodes in real cities, each joined to its nearest and to some far ones; distance gives the delay.
    Geographic,
}

impl Topology {
    /// The pairs to join among `count` nodes, the lower number first, each once, in order. Those that are drawn come
    /// from seed 0 and have degree 8; [`Plan::new`] takes both.
    pub fn edges(self, count: usize) -> Vec<(usize, usize)> {
        let spec = TopologySpec {
            kind: self,
            nodes: count,
            ..TopologySpec::default()
        };
        Plan::new(&spec, 0).edges
    }
}

/// Nodes and the links between them.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// How many nodes.
    pub nodes: usize,
    /// The pairs that are joined, the lower number first, each once, in order.
    pub edges: Vec<(usize, usize)>,
    /// One-way delays of the edges, where distance decides; otherwise empty.
    pub delays: Vec<Duration>,
    /// The city of each node, where they are in cities; otherwise empty.
    pub places: Vec<&'static City>,
}

impl Plan {
    /// The plan that `spec` and `seed` describe. It is in one piece.
    pub fn new(spec: &TopologySpec, seed: u64) -> Self {
        let nodes = spec.nodes;
        let most = nodes.saturating_sub(1);
        let degree = spec.degree.unwrap_or(DEFAULT_DEGREE).min(most);
        // Apart from the other draws of a run, so that a seed's network is the same whatever else is asked for.
        let mut random = StdRng::seed_from_u64(seed ^ 0x746f_706f_6c6f_6779);
        let mut plan = Self {
            nodes,
            edges: Vec::new(),
            delays: Vec::new(),
            places: Vec::new(),
        };
        match spec.kind {
            Topology::Line => plan.edges = line(nodes),
            Topology::Ring => {
                plan.edges = line(nodes);
                if nodes > 2 {
                    plan.edges.push((0, nodes - 1));
                }
            }
            Topology::Star => plan.edges = (1..nodes).map(|node| (0, node)).collect(),
            Topology::Mesh => {
                plan.edges = (0..nodes)
                    .flat_map(|low| (low + 1..nodes).map(move |high| (low, high)))
                    .collect();
            }
            Topology::Regular => plan.edges = regular(nodes, degree, &mut random),
            Topology::SmallWorld => {
                let rewire = spec.rewire.unwrap_or(DEFAULT_REWIRE);
                plan.edges = small_world(nodes, degree, rewire, &mut random);
            }
            Topology::Geographic => plan.settle(spec, degree, &mut random),
        }
        plan
    }

    /// The neighbours of every node, in order.
    pub fn neighbours(&self) -> Vec<Vec<usize>> {
        let mut lists = vec![Vec::new(); self.nodes];
        for &(low, high) in &self.edges {
            for (one, other) in [(low, high), (high, low)] {
                if let Some(list) = lists.get_mut(one) {
                    list.push(other);
                }
            }
        }
        lists
    }

    /// Places nodes in cities, the more the larger a city is, and joins each to near and far ones.
    fn settle(&mut self, spec: &TopologySpec, degree: usize, random: &mut StdRng) {
        let total: f64 = CITIES.iter().map(|city| city.weight).sum();
        for _ in 0..self.nodes {
            let mut at = random.random::<f64>() * total;
            let city = CITIES.iter().find(|city| {
                at -= city.weight;
                at < 0.0
            });
            self.places.extend(city.or(CITIES.last()));
        }
        let delay = |one: &City, other: &City| {
            let stretch = spec.stretch.unwrap_or(DEFAULT_STRETCH);
            let last_mile = spec.last_mile_ms.unwrap_or(DEFAULT_LAST_MILE_MS);
            one.delay_to(other, stretch) + Duration::from_secs_f64(last_mile / 1_000.0)
        };
        let near = degree / 2;
        let mut edges = BTreeSet::new();
        for (node, place) in self.places.iter().enumerate() {
            let mut others: Vec<(Duration, usize)> = self
                .places
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != node)
                .map(|(other, there)| (delay(place, there), other))
                .collect();
            others.shuffle(random);
            others.sort_by_key(|(delay, _)| *delay);
            edges.extend(
                others
                    .iter()
                    .take(near)
                    .map(|&(_, other)| pair(node, other)),
            );
            let far = others.get(near..).unwrap_or_default();
            for _ in near..degree.div_ceil(2) + near / 2 {
                if !far.is_empty()
                    && let Some(&(_, other)) = far.get(random.random_range(0..far.len()))
                {
                    edges.insert(pair(node, other));
                }
            }
        }
        self.edges = edges.into_iter().collect();
        connect(self.nodes, &mut self.edges, random);
        let place = |node: usize| self.places.get(node).copied();
        let delays = self
            .edges
            .iter()
            .map(|&(one, other)| match (place(one), place(other)) {
                (Some(one), Some(other)) => delay(one, other),
                _ => Duration::ZERO,
            });
        self.delays = delays.collect();
    }
}

fn line(nodes: usize) -> Vec<(usize, usize)> {
    (1..nodes).map(|node| (node - 1, node)).collect()
}

const fn pair(one: usize, other: usize) -> (usize, usize) {
    if one < other {
        (one, other)
    } else {
        (other, one)
    }
}

impl TopologySpec {
    /// Links of a node, on average and rounded up.
    pub fn mean_degree(&self) -> usize {
        let most = self.nodes.saturating_sub(1);
        let wanted = match self.kind {
            Topology::Line | Topology::Ring | Topology::Star => 2,
            Topology::Mesh => most,
            Topology::Regular | Topology::SmallWorld | Topology::Geographic => {
                self.degree.unwrap_or(DEFAULT_DEGREE)
            }
        };
        wanted.min(most)
    }
}

/// A random graph in which every node has `degree` links, by switching: a circulant graph, then as many exchanges of
/// ends of two links as make it random (Milo et al., "On the uniform generation of random graphs with prescribed
/// degree sequences", 2003: ten for each link), and more until it is in one piece. If `nodes * degree` is odd, one node
/// has a link less.
fn regular(nodes: usize, degree: usize, random: &mut StdRng) -> Vec<(usize, usize)> {
    let mut edges = circulant(nodes, degree);
    let mut known: BTreeSet<(usize, usize)> = edges.iter().copied().collect();
    if nodes <= degree + 1 || degree < 2 {
        return edges;
    }
    let mut left = edges.len() * 10;
    while left > 0 {
        for _ in 0..left {
            exchange(&mut edges, &mut known, random);
        }
        left = match in_one_piece(nodes, &edges) {
            true => 0,
            false => edges.len(),
        };
    }
    known.into_iter().collect()
}

/// Each with the next `degree / 2` around a circle, and with the one opposite if `degree` is odd.
fn circulant(nodes: usize, degree: usize) -> Vec<(usize, usize)> {
    let mut edges = BTreeSet::new();
    for node in 0..nodes {
        for step in 1..=degree / 2 {
            let other = (node + step) % nodes;
            if other != node {
                edges.insert(pair(node, other));
            }
        }
    }
    if degree % 2 == 1 {
        edges.extend((0..nodes / 2).map(|node| pair(node, node + nodes / 2)));
    }
    edges.into_iter().collect()
}

/// Lets two links `a-b` and `c-d` become `a-d` and `c-b`, unless one of these is there or would join a node to itself.
fn exchange(
    edges: &mut [(usize, usize)],
    known: &mut BTreeSet<(usize, usize)>,
    random: &mut StdRng,
) {
    let (one, other) = (
        random.random_range(0..edges.len()),
        random.random_range(0..edges.len()),
    );
    let (Some(&(a, b)), Some(&(c, d))) = (edges.get(one), edges.get(other)) else {
        return;
    };
    let (c, d) = if random.random_bool(0.5) {
        (c, d)
    } else {
        (d, c)
    };
    let (first, second) = (pair(a, d), pair(c, b));
    if a == d || c == b || first == second || known.contains(&first) || known.contains(&second) {
        return;
    }
    known.remove(&(a, b));
    known.remove(&pair(c, d));
    known.insert(first);
    known.insert(second);
    for (place, edge) in [(one, first), (other, second)] {
        if let Some(held) = edges.get_mut(place) {
            *held = edge;
        }
    }
}

/// Watts and Strogatz, "Collective dynamics of 'small-world' networks", Nature 393 (1998): a ring on which each is
/// joined to its `degree` nearest; then the far end of each link moves, with probability `rewire`, to a node drawn at
/// random.
fn small_world(
    nodes: usize,
    degree: usize,
    rewire: f64,
    random: &mut StdRng,
) -> Vec<(usize, usize)> {
    let mut known: BTreeSet<(usize, usize)> = circulant(nodes, degree).into_iter().collect();
    if nodes <= degree + 1 {
        return known.into_iter().collect();
    }
    for step in 1..=degree / 2 {
        for node in 0..nodes {
            let near = pair(node, (node + step) % nodes);
            if !random.random_bool(rewire) || !known.contains(&near) {
                continue;
            }
            let far = random.random_range(0..nodes);
            if far != node && !known.contains(&pair(node, far)) {
                known.remove(&near);
                known.insert(pair(node, far));
            }
        }
    }
    let mut edges = known.into_iter().collect();
    connect(nodes, &mut edges, random);
    edges
}

/// The piece that each node is in, by the lowest number in it.
fn pieces(nodes: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    fn root(parents: &mut [usize], node: usize) -> usize {
        let mut at = node;
        while let Some(&parent) = parents.get(at).filter(|&&parent| parent != at) {
            let above = parents.get(parent).copied().unwrap_or(parent);
            if let Some(place) = parents.get_mut(at) {
                *place = above;
            }
            at = above;
        }
        at
    }
    let mut parents: Vec<usize> = (0..nodes).collect();
    for &(one, other) in edges {
        let (one, other) = (root(&mut parents, one), root(&mut parents, other));
        if let Some(place) = parents.get_mut(one.max(other)) {
            *place = one.min(other);
        }
    }
    (0..nodes).map(|node| root(&mut parents, node)).collect()
}

/// Whether every node can reach every other.
pub fn in_one_piece(nodes: usize, edges: &[(usize, usize)]) -> bool {
    pieces(nodes, edges).iter().all(|&piece| piece == 0)
}

/// Adds a link from each piece to a node drawn from those before it, where there are several.
fn connect(nodes: usize, edges: &mut Vec<(usize, usize)>, random: &mut StdRng) {
    let firsts: BTreeSet<usize> = pieces(nodes, edges).into_iter().collect();
    for first in firsts.into_iter().filter(|&first| first > 0) {
        edges.push(pair(first, random.random_range(0..first)));
    }
    edges.sort_unstable();
    edges.dedup();
}

#[cfg(test)]
mod tests;
