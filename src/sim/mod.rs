//! A deterministic world around the engine: nodes joined by links, virtual time, one seed.
//!
//! Everything random comes from the world's seed and everything happens in the order of a heap of
//! happenings, so that a run is repeated exactly by its seed; [`World::trace_hash`] tells two runs
//! apart by a single datagram. The engine is the one of the node, not a model of it. What is modelled are the
//! network ([`link`]), the TCP of control connections ([`control`]) and the blocks ([`workload`]). The
//! [`checks`] sit outside the code under test; [`chain`] makes blocks that other judges than a relay call good.
//!
//! What it is not: it spends no time on computing. Its delays are those of links alone. Nor does it know private links:
//! over virtual time they differ from public ones by 32 bytes a packet and by QUIC's acknowledgements, and a model of
//! these would measure itself. The lab measures the real ones (`lab run --links quic`).
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

mod actor;
pub mod adversary;
mod agenda;
pub mod chain;
pub mod checks;
pub mod control;
pub mod limits;
pub mod link;
mod node;
pub mod outcome;
pub mod plot;
pub mod protocol;
pub mod queue;
pub mod rivals;
pub mod scenario;
mod shelf;
pub mod standard;
pub mod swarm;
pub mod tap;
pub mod topology;
pub mod trial;
pub mod truth;
pub mod workload;
mod world;

pub use actor::{Actor, Outgoing};
pub use checks::Violation;
pub use link::LinkOptions;
pub use node::{Completion, NodeOptions, Traffic};
pub use outcome::Outcome;
pub use protocol::Protocol;
pub use scenario::Scenario;
pub use swarm::{Swarm, SwarmReport};
pub use topology::Topology;
pub use trial::Trial;
pub use world::{NodeId, World};
