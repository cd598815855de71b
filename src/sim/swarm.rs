//! Swarms: worlds whose every choice comes from one seed, and what is demanded of them.
//!
//! The first phase is trouble: faulty links, partitions, crashes, cuts, and adversaries in any place where they do not
//! cut honest nodes off from each other. Whatever happens, safety is demanded at every step ([`super::checks`]). Then
//! everything heals but the adversaries: links are good, nodes that crashed are back. One more block is handed in, and
//! liveness is demanded, by a deadline that is computed ([`deadline`]):
//!
//! - every honest node has the last block;
//! - every block from before is at every honest node to which a way led all the time: through honest nodes that did
//!   not crash and sessions that did not end since. (A session that is made anew is told of the newest block alone: what
//!   is older comes from the Bitcoin network.)
//!
//! - `draw`: from a seed to a scenario
//! - `demand`: who must have what by when
//!
//! What it is not: a measurement. Nothing here says how fast a block should be, only when something is broken.

mod demand;
mod draw;

use std::time::Duration;

use serde::Serialize;

pub use demand::deadline;

use super::protocol::{Progress, judged_world_of};
use super::scenario::{AdversaryKind, Scenario};
use super::trial::Trial;
use super::workload::Workload;
use super::world::World;
use crate::time::Time;

/// A swarm, drawn.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// The seed that repeats it.
    pub seed: u64,
    /// The first phase, and what heals at its end.
    pub scenario: Scenario,
    /// The scenario with all that its seed decides.
    pub trial: Trial,
    /// When all heals, from the first block.
    pub heals_at: Duration,
    /// The block that is handed in afterwards.
    pub last: Workload,
    /// Where.
    pub last_source: usize,
    /// When, from the moment in which all heals.
    pub last_after: Duration,
}

/// What came of a swarm.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SwarmReport {
    /// The seed that repeats it.
    pub seed: u64,
    /// Nodes, adversaries included.
    pub nodes: usize,
    /// What adversaries there were.
    pub adversaries: Vec<AdversaryKind>,
    /// Blocks, the last included.
    pub blocks: usize,
    /// Pairs of node and block that were demanded.
    pub demanded: usize,
    /// Virtual time from the first block to the end.
    pub ended_ms: f64,
    /// The deadline, counted from the moment in which all had healed and the last block was handed in.
    pub deadline_ms: f64,
    /// When the last that was demanded was there, counted in the same way.
    pub took_ms: f64,
    /// Happenings.
    pub happenings: u64,
    /// Frames with data that were compared with the blocks.
    pub compared: u64,
    /// Differs between runs in which anything was sent or happened otherwise.
    pub trace_hash: u64,
    /// What must never happen and did; and who lacks which block at the deadline.
    pub violations: Vec<String>,
}

impl Swarm {
    /// The swarm of a seed.
    pub fn draw(seed: u64) -> Self {
        draw::swarm(seed)
    }

    /// Runs it to its end.
    pub fn run(&self, watch: &mut dyn FnMut(&Progress)) -> SwarmReport {
        let trial = &self.trial;
        let mut world = judged_world_of(trial, true);
        world.keep_events(false);
        let start = world.now();
        for block in &trial.blocks {
            world.submit(block.source, &block.workload, block.at);
        }
        let healed = start + self.heals_at;
        world.run_until(healed, &|_| false, &mut |world| {
            tell(world, start, (0, 0), watch);
        });
        world.submit(self.last_source, &self.last, self.last_after);
        let from = healed + self.last_after;
        let limit = deadline(self);
        let wanted = |world: &World| demand::demanded(self, world, start);
        let lacking = |world: &World| {
            let lacks =
                |(node, block): &(usize, &Workload)| world.completion(*node, block).is_none();
            wanted(world).iter().filter(|pair| lacks(pair)).count()
        };
        // The last block must be handed in before anything can be whole.
        world.run_until(from, &|_| false, &mut |_| {});
        world.run_until(from + limit, &|world| lacking(world) == 0, &mut |world| {
            let wanted = wanted(world).len();
            tell(world, start, (wanted - lacking(world), wanted), watch);
        });
        let took = world.now() - from;
        // What is still under way must do no harm either.
        world.run_for(Duration::from_secs(2));
        let wanted = wanted(&world);
        let mut violations: Vec<String> =
            world.violations().iter().map(ToString::to_string).collect();
        for (node, block) in &wanted {
            match world.completion(*node, block) {
                None => {
                    let name = hex(&block.hash);
                    violations.push(format!("node {node}: never had block {name}"));
                }
                Some(completion) if completion.bytes != block.block => {
                    violations.push(format!("node {node}: gave out another block"));
                }
                Some(_) => {}
            }
        }
        SwarmReport {
            seed: self.seed,
            nodes: trial.plan.nodes,
            adversaries: trial.adversaries.values().copied().collect(),
            blocks: trial.blocks.len() + 1,
            demanded: wanted.len(),
            ended_ms: in_millis(world.now() - start),
            deadline_ms: in_millis(limit),
            took_ms: in_millis(took),
            happenings: world.happened(),
            compared: world.compared(),
            trace_hash: world.trace_hash(),
            violations,
        }
    }
}

fn tell(
    world: &World,
    start: Time,
    (whole, wanted): (usize, usize),
    watch: &mut dyn FnMut(&Progress),
) {
    watch(&Progress {
        elapsed: world.now() - start,
        happenings: world.happened(),
        whole,
        wanted,
    });
}

fn in_millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

fn hex(hash: &[u8; 32]) -> String {
    let bytes = hash.iter().rev().map(|byte| format!("{byte:02x}"));
    bytes.collect()
}

#[cfg(test)]
mod tests;
