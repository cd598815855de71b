//! Nodes that mean harm: they take part in the protocol, and lie, hold back, flood, replay or forge.
//!
//! An adversary is an [`Actor`] in place of the honest engine. Those that alter what they pass on are built around
//! the engine itself ([`Forger`]): what it gives out is decoded, changed and signed anew, for it is the peer and has
//! the session's key. The others ([`Talker`]) are a small protocol machine of their own that shakes hands, proves its
//! path and then does what its mission is. Both know what a peer knows, and what whoever stands at a wire can see
//! of datagrams; none knows another session's key.
//!
//! - `alter`: one frame, changed by one kind of lie
//! - `forger`: the engine with that at its edge
//! - `forged`: blocks with valid work that are invalid
//! - `talker`, `line`: the protocol machine, and one session of it
//! - `speech`: any message, well formed or not, with any numbers in it
//! - `missions`: what talkers do once a session stands
//!
//! What it is not: a way to do it over real sockets, or a hook in the engine, which knows nothing of any of this.

mod alter;
mod forged;
mod forger;
mod line;
mod missions;
mod speech;
mod talker;

use std::net::SocketAddr;
use std::sync::Arc;

use super::Actor;
use super::node::NodeOptions;
use super::scenario::AdversaryKind;
use crate::time::Time;

pub use forged::{Flaw, Forged};
pub use forger::Forger;
pub use talker::Talker;

/// Control connections that each of [`AdversaryKind::ManyIdentities`] opens to every neighbour: more than are eager
/// places, as many as protection by round trip or by chunks covers.
pub const IDENTITIES: usize = 8;

/// What an adversary is made from.
#[derive(Clone, Debug)]
pub struct Casting {
    /// What it does.
    pub kind: AdversaryKind,
    /// What all that it draws comes from.
    pub seed: [u8; 32],
    /// How its engine is configured, if it has one.
    pub options: NodeOptions,
    /// Where its neighbours receive datagrams.
    pub neighbours: Vec<SocketAddr>,
    /// Where any node receives datagrams.
    pub everyone: Vec<SocketAddr>,
    /// The block that it has forged, if that is what it does.
    pub forged: Option<Arc<Forged>>,
}

impl Casting {
    /// The adversary.
    pub fn actor(self, now: Time) -> Box<dyn Actor> {
        match self.kind {
            AdversaryKind::AltersHashes
            | AdversaryKind::AltersTransactions
            | AdversaryKind::AltersWitnesses
            | AdversaryKind::FalseCount
            | AdversaryKind::FalseShortIds
            | AdversaryKind::SpoilsParity
            | AdversaryKind::Trickles => Box::new(Forger::new(self, now)),
            AdversaryKind::InvalidBlock
            | AdversaryKind::Withholds
            | AdversaryKind::Floods
            | AdversaryKind::Replays
            | AdversaryKind::Spoofs
            | AdversaryKind::OpensJobs
            | AdversaryKind::ClaimsImpossible
            | AdversaryKind::ManyIdentities => Box::new(Talker::new(self)),
        }
    }
}

#[cfg(test)]
mod tests;
