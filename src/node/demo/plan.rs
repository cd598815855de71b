//! What a demo is to be: who is connected to whom, who lies, and how fast it could be at best. Pure.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};

use crate::cli::{DemoOptions, Topology};
use crate::config::ConfigError;
use crate::wire::DATAGRAM_OVERHEAD;

/// Payload of the largest datagram that nodes send, in bytes: what an Ethernet frame holds behind IPv4 and UDP.
const DATAGRAM_BYTES: u64 = 1_472;
/// Bytes of a short id, as BIP152 has them.
const SHORT_ID_BYTES: u64 = 6;
/// Bytes of the IPv4 and UDP headers of a datagram, which the rate of a link counts.
const HEADER_BYTES: u64 = crate::net::emulate::DATAGRAM_HEADERS as u64;

/// The nodes of a demo and the links between them. Node 0 is handed the block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many nodes.
    pub nodes: usize,
    /// Links: the first of a pair connects to the second.
    pub links: Vec<(usize, usize)>,
    /// The nodes that lie; never node 0.
    pub liars: BTreeSet<usize>,
}

impl Plan {
    /// The plan that the options ask for. Liars are drawn so that they cut no honest node off.
    ///
    /// # Errors
    ///
    /// One line: more liars than can be.
    pub fn new(options: &DemoOptions) -> Result<Self, ConfigError> {
        let nodes = usize::from(options.nodes);
        let count = usize::from(options.liars);
        if count + 2 > nodes {
            return Err(ConfigError::Senseless(format!(
                "--liars {count} of --nodes {nodes} leaves no honest node to receive the block; give at most {} liars, or more nodes",
                nodes - 2
            )));
        }
        let mut plan = Self {
            nodes,
            links: links(options.topology, nodes),
            liars: BTreeSet::new(),
        };
        let mut random = StdRng::seed_from_u64(options.seed);
        for _ in 0..count {
            let harmless: Vec<usize> = (1..nodes).filter(|node| plan.can_spare(*node)).collect();
            let liar = harmless.choose(&mut random).expect(
                "a connected graph has two nodes that it can spare, and node 0 is one at most",
            );
            plan.liars.insert(*liar);
        }
        Ok(plan)
    }

    /// Whether a node tells the truth.
    pub fn is_honest(&self, node: usize) -> bool {
        !self.liars.contains(&node)
    }

    /// The neighbours of a node.
    pub fn neighbours(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        self.links.iter().filter_map(move |link| match *link {
            (one, other) if one == node => Some(other),
            (one, other) if other == node => Some(one),
            _ => None,
        })
    }

    /// Links on the shortest way from node 0 to each node, over honest nodes alone; `None` without such a way.
    ///
    /// A liar may be the end of a way, not a part of it.
    pub fn hops(&self) -> Vec<Option<u32>> {
        self.hops_without(None)
    }

    fn hops_without(&self, spared: Option<usize>) -> Vec<Option<u32>> {
        let mut hops = vec![None; self.nodes];
        let mut row = vec![0];
        let mut distance = 0;
        while !row.is_empty() {
            let mut next = Vec::new();
            for node in row {
                match hops.get_mut(node) {
                    Some(place @ None) => *place = Some(distance),
                    _ => continue,
                }
                if self.is_honest(node) && spared != Some(node) {
                    next.extend(self.neighbours(node));
                }
            }
            row = next;
            distance += 1;
        }
        hops
    }

    /// Whether every honest node would still be reached if this honest one lied.
    fn can_spare(&self, node: usize) -> bool {
        let hops = self.hops_without(Some(node));
        self.is_honest(node)
            && (0..)
                .zip(&hops)
                .all(|(node, hops)| hops.is_some() || !self.is_honest(node))
    }
}

fn links(topology: Topology, nodes: usize) -> Vec<(usize, usize)> {
    let line = (1..nodes).map(|node| (node, node - 1));
    match topology {
        Topology::Line => line.collect(),
        // Two nodes have one link, whichever way round one goes.
        Topology::Ring if nodes == 2 => line.collect(),
        Topology::Ring => line.chain([(0, nodes - 1)]).collect(),
        Topology::Star => (1..nodes).map(|node| (node, 0)).collect(),
        Topology::Mesh => (1..nodes)
            .flat_map(|node| (0..node).map(move |other| (node, other)))
            .collect(),
    }
}

/// Which transactions a node is given beforehand: `percent` of those after the coinbase, drawn by seed and node.
pub fn warm(transactions: usize, percent: f64, seed: u64, node: usize) -> BTreeSet<usize> {
    let mut indices: Vec<usize> = (1..transactions).collect();
    let count = (indices.len() as f64 * percent / 100.0).round() as usize;
    let mut seeds = StdRng::seed_from_u64(seed);
    let seed = (0..=node).fold(0u64, |_, _| seeds.random());
    indices.shuffle(&mut StdRng::seed_from_u64(seed));
    indices.into_iter().take(count).collect()
}

/// What the links are like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Links {
    /// One-way delay, milliseconds.
    pub delay_ms: f64,
    /// Bits per microsecond that a node can send; `None` without limit.
    pub rate_mbit: Option<f64>,
    /// Share of datagrams lost, percent.
    pub loss_percent: f64,
}

impl Links {
    /// Those that the options ask for.
    pub fn new(options: &DemoOptions) -> Self {
        Self {
            delay_ms: options.delay,
            rate_mbit: (options.rate > 0.0).then_some(options.rate),
            loss_percent: options.loss,
        }
    }
}

/// The time below which no relay can bring the block to a node, in milliseconds:
///
/// ```text
/// bound = hops * delay + copies * bytes / rate / (1 - loss)
/// bytes = payload + ceil(payload / (1472 - 16)) * (28 + 16)
/// payload = header + transactions that the node lacks + a short id for each that it has
/// ```
///
/// 1472 bytes is the largest datagram, 16 of them are not payload, 28 more are IP and UDP headers. `hops` is the distance
/// from node 0. `copies` is 1, except where several nodes have no neighbour but node 0, whose uplink then carries the
/// bytes once for each of them. Processing is not counted, nor are proofs of single chunks.
pub fn bound_ms(links: Links, hops: u32, copies: usize, missing_bytes: u64, held: usize) -> f64 {
    let payload = 80 + missing_bytes + held as u64 * SHORT_ID_BYTES;
    let overhead = DATAGRAM_OVERHEAD as u64;
    let datagrams = payload.div_ceil(DATAGRAM_BYTES - overhead);
    let bits = (payload + datagrams * (HEADER_BYTES + overhead)) * 8;
    let passed = (1.0 - links.loss_percent / 100.0).max(0.01);
    let sending_ms = links
        .rate_mbit
        .map_or(0.0, |mbit| bits as f64 / (mbit * 1e3) / passed);
    f64::from(hops) * links.delay_ms + copies as f64 * sending_ms
}

/// How often node 0 itself must send what a node needs: once for each node that has no other neighbour.
pub fn copies(plan: &Plan) -> usize {
    let fed_by_first = |node: &usize| {
        plan.is_honest(*node)
            && plan
                .neighbours(*node)
                .all(|neighbour| neighbour == 0 || !plan.is_honest(neighbour))
    };
    (1..plan.nodes).filter(fed_by_first).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(topology: Topology, nodes: u16, liars: u16, seed: u64) -> Result<Plan, ConfigError> {
        Plan::new(&DemoOptions {
            nodes,
            topology,
            liars,
            seed,
            links: crate::cli::LinkKind::Native,
            block: None,
            warm: 0.0,
            loss: 0.0,
            delay: 0.0,
            rate: 0.0,
            push: None,
            json: false,
            keep: false,
        })
    }

    #[test]
    fn liars_never_cut_an_honest_node_off() {
        for topology in [
            Topology::Line,
            Topology::Ring,
            Topology::Star,
            Topology::Mesh,
        ] {
            for nodes in 2..9 {
                for liars in 0..=nodes - 2 {
                    let plan = plan(topology, nodes, liars, u64::from(nodes + liars)).unwrap();
                    assert_eq!(plan.liars.len(), usize::from(liars));
                    assert!(plan.is_honest(0));
                    let hops = plan.hops();
                    let reached = |node: usize| hops[node].is_some() || !plan.is_honest(node);
                    assert!((0..plan.nodes).all(reached), "{plan:?}");
                }
                assert!(plan(topology, nodes, nodes - 1, 1).is_err());
            }
        }
        assert!(plan(Topology::Line, 6, 2, 5).unwrap().liars == BTreeSet::from([4, 5]));
        let drawn = |seed| plan(Topology::Mesh, 12, 3, seed).unwrap().liars;
        assert_eq!(drawn(4), drawn(4));
        assert!((0..9).any(|seed| drawn(seed) != drawn(4)));
    }

    #[test]
    fn hops_follow_the_links() {
        let hops = |topology| -> Vec<u32> {
            let plan = plan(topology, 5, 0, 1).unwrap();
            plan.hops().into_iter().flatten().collect()
        };
        assert_eq!(hops(Topology::Line), [0, 1, 2, 3, 4]);
        assert_eq!(hops(Topology::Ring), [0, 1, 2, 2, 1]);
        assert_eq!(hops(Topology::Star), [0, 1, 1, 1, 1]);
        assert_eq!(hops(Topology::Mesh), [0, 1, 1, 1, 1]);
        assert_eq!(copies(&plan(Topology::Star, 5, 0, 1).unwrap()), 4);
        assert_eq!(copies(&plan(Topology::Mesh, 5, 0, 1).unwrap()), 1);
    }

    #[test]
    fn the_bound_is_delay_and_bytes() {
        let mut links = Links {
            delay_ms: 20.0,
            rate_mbit: None,
            loss_percent: 0.0,
        };
        assert_eq!(bound_ms(links, 4, 1, 1_000_000, 0), 80.0);
        links.rate_mbit = Some(8.0);
        // 1,000,000 and a header of 80 bytes in 687 datagrams of 1,456 bytes each.
        let sent = 1_000_080 + 687 * 44;
        let want = 80.0 + f64::from(sent) / 1e3;
        assert!((bound_ms(links, 4, 1, 1_000_000, 0) - want).abs() < 1e-6);
    }

    #[test]
    fn each_node_is_given_a_share_of_its_own() {
        assert_eq!(warm(101, 100.0, 1, 1).len(), 100);
        assert!(warm(101, 0.0, 1, 1).is_empty() && warm(1, 100.0, 1, 1).is_empty());
        assert_eq!(warm(101, 50.0, 1, 1).len(), 50);
        assert_ne!(warm(101, 50.0, 1, 1), warm(101, 50.0, 1, 2));
        assert_eq!(warm(101, 50.0, 1, 2), warm(101, 50.0, 1, 2));
        assert!(!warm(101, 100.0, 1, 1).contains(&0));
    }
}
