//! What runs a scenario: the engine of this project, or the model of a rival.
//!
//! A protocol gets a [`Trial`], in which all that the seed decides beforehand is drawn already, and gives an
//! [`Outcome`]. `compare` loops over [`ALL`].

mod engine;

pub use engine::{Blocktorrent, world_of};

use std::time::Duration;

use super::outcome::Outcome;
use super::trial::Trial;

/// A protocol that blocks are relayed by.
pub trait Protocol: Sync {
    /// Its name in tables: lower case, as in `bip152-hb`.
    fn name(&self) -> &'static str;

    /// What it is and where its model is from, in a line.
    fn about(&self) -> &'static str;

    /// Runs a trial to its end: until every node that counts has every block, or the limit has passed. `watch` is told
    /// every now and then how far it is, at least each 100,000 happenings.
    fn run(&self, trial: &Trial, watch: &mut dyn FnMut(&Progress)) -> Outcome;
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Virtual time since the first block was handed in.
    pub elapsed: Duration,
    /// Happenings so far.
    pub happenings: u64,
    /// Pairs of node and block that are whole.
    pub whole: usize,
    /// Pairs that there are.
    pub wanted: usize,
}

/// Every protocol, this project's first.
pub const ALL: &[&dyn Protocol] = &[&Blocktorrent];

/// The protocol of that name.
pub fn named(name: &str) -> Option<&'static dyn Protocol> {
    ALL.iter().copied().find(|protocol| protocol.name() == name)
}
