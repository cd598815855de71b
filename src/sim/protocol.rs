//! What runs a scenario: the engine of this project, or the model of a rival.
//!
//! A protocol gets a [`Trial`], in which all that the seed decides beforehand is drawn already, and gives an
//! [`Outcome`]. `compare` loops over [`ALL`].

mod engine;

pub use engine::{Blocktorrent, connections, judged_world_of, world_of};

use std::time::Duration;

use super::outcome::Outcome;
use super::rivals;
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
pub const ALL: &[&dyn Protocol] = &[
    &Blocktorrent,
    &rivals::BIP152_HIGH_BANDWIDTH,
    &rivals::BIP152_LOW_BANDWIDTH,
    &rivals::WHOLE_BLOCKS,
    &rivals::FIBRE_TRUSTED,
    &rivals::FIBRE_UNTRUSTED,
];

/// Protocols that are only run where they are named: those over TCP with the congestion control that is worse for them.
pub const OTHERS: &[&dyn Protocol] = &[
    &rivals::OVER_CUBIC[0],
    &rivals::OVER_CUBIC[1],
    &rivals::OVER_CUBIC[2],
];

/// All of them, those that are compared first.
pub fn every() -> impl Iterator<Item = &'static dyn Protocol> {
    ALL.iter().chain(OTHERS).copied()
}

/// The protocol of that name.
pub fn named(name: &str) -> Option<&'static dyn Protocol> {
    every().find(|protocol| protocol.name() == name)
}
