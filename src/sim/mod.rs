//! A deterministic world around the engine: nodes joined by links, virtual time, one seed.
//!
//! Everything random comes from the world's seed and everything happens in the order of a heap of
//! happenings, so that a run is repeated exactly by its seed; [`World::trace_hash`] tells two runs
//! apart by a single datagram. The engine is the one of the node, not a model of it. What is modelled are the
//! network ([`link`]), the TCP of control connections ([`control`]) and the blocks ([`workload`]). The
//! [`checks`] sit outside the code under test.
//!
//! What it is not: it spends no time on computing. Its delays are those of links alone.
//!
//! ```
//! use std::time::Duration;
//! use blocktorrent::sim::{LinkOptions, Topology, World};
//!
//! let mut world = World::new(7);
//! let nodes: Vec<_> = (0..3).map(|_| world.add_node(Default::default())).collect();
//! world.join(Topology::Line, &LinkOptions::default());
//! world.run_for(Duration::from_secs(1));
//! assert_eq!(nodes.len(), 3);
//! assert!(world.violations().is_empty());
//! ```

pub mod checks;
pub mod control;
pub mod link;
mod node;
pub mod workload;
mod world;

pub use checks::Violation;
pub use link::LinkOptions;
pub use node::{Completion, NodeOptions, Traffic};
pub use world::{NodeId, World};

/// How nodes are joined; the first is usually the one with the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// Each with the next.
    Line,
    /// A line whose ends are joined.
    Ring,
    /// All with the first.
    Star,
    /// All with all.
    Mesh,
}

impl Topology {
    /// The pairs to join among `count` nodes, the lower number first, each once.
    pub fn edges(self, count: usize) -> Vec<(usize, usize)> {
        match self {
            Self::Line => (1..count).map(|node| (node - 1, node)).collect(),
            Self::Ring => {
                let closing = (count > 2).then(|| (0, count - 1));
                Self::Line.edges(count).into_iter().chain(closing).collect()
            }
            Self::Star => (1..count).map(|node| (0, node)).collect(),
            Self::Mesh => (0..count)
                .flat_map(|low| (low + 1..count).map(move |high| (low, high)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topologies_have_their_edges() {
        assert_eq!(Topology::Line.edges(4), [(0, 1), (1, 2), (2, 3)]);
        assert_eq!(Topology::Ring.edges(4), [(0, 1), (1, 2), (2, 3), (0, 3)]);
        assert_eq!(Topology::Ring.edges(2), [(0, 1)]);
        assert_eq!(Topology::Star.edges(3), [(0, 1), (0, 2)]);
        assert_eq!(Topology::Mesh.edges(4).len(), 6);
        assert!(Topology::Mesh.edges(1).is_empty());
    }
}
