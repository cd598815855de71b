//! The engine itself, in a world that a trial describes.

use super::super::outcome::Outcome;
use super::super::trial::Trial;
use super::super::{NodeOptions, World};
use super::{Progress, Protocol};

/// This project's protocol: the engine of the node, unchanged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Blocktorrent;

impl Protocol for Blocktorrent {
    fn name(&self) -> &'static str {
        "blocktorrent"
    }

    fn about(&self) -> &'static str {
        "the engine of this program, as bip/bip-blocktorrent.mediawiki specifies it"
    }

    fn run(&self, trial: &Trial, watch: &mut dyn FnMut(&Progress)) -> Outcome {
        // Carried out with the world's access queues and faults, in the commits that follow.
        let world = world_of(trial);
        watch(&Progress::default());
        Outcome {
            scenario: trial.scenario.name.clone(),
            protocol: self.name().to_owned(),
            seed: trial.seed,
            nodes: trial.plan.nodes,
            trace_hash: world.trace_hash(),
            ..Outcome::default()
        }
    }
}

/// The world that a trial describes, before its connections are made.
pub fn world_of(trial: &Trial) -> World {
    let mut world = World::new(trial.seed);
    for _ in 0..trial.plan.nodes {
        world.add_node(NodeOptions::default());
    }
    world
}
