//! One run of a scenario, with everything drawn that its seed decides before a protocol begins: the network, the
//! blocks, who lacks which transactions, and where adversaries are. Every protocol gets the same trial.

mod blocks;
mod mempools;
mod paths;
mod places;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

pub(super) use blocks::{DEFAULT_BLOCK, race};
pub use mempools::{WILD, wild_missing_bytes};

use super::limits::{self, Network};
use super::link::LinkOptions;
use super::scenario::{
    AdversaryKind, EventKind, EventSpec, LinkChange, LinkSpec, Scenario, ScenarioError,
};
use super::topology::Plan;
use super::workload::Workload;

/// The delay and the queue of a link of which nothing is said: those of the reference link.
pub(super) const DEFAULT_DELAY_MS: f64 = 50.0;
pub(super) const DEFAULT_QUEUE_MS: f64 = 100.0;

/// A resolved scenario with its seed.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What was asked for.
    pub scenario: Scenario,
    /// The seed of this run. A protocol that draws mixes it with a number of its own.
    pub seed: u64,
    /// The nodes and who is joined to whom.
    pub plan: Plan,
    /// How each edge of the plan behaves, in its order: from the lower number to the higher, and back.
    pub links: Vec<[LinkOptions; 2]>,
    /// What lies between each node and its links, by its number.
    pub access: Vec<Access>,
    /// How far each node's clock is ahead (positive) or behind, in nanoseconds, by its number.
    pub skews: Vec<i64>,
    /// The blocks, in the order in which they are handed in.
    pub blocks: Vec<PlannedBlock>,
    /// Nodes that mean harm.
    pub adversaries: BTreeMap<usize, AdversaryKind>,
}

/// What a node can send and take over all its links together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Bytes per second that it can send, headers included; `None`: no limit.
    pub up_bytes_per_s: Option<u64>,
    /// Bytes per second that it can take, headers included; `None`: no limit.
    pub down_bytes_per_s: Option<u64>,
    /// How long each of the queues is at its rate.
    pub queue: Duration,
}

impl Access {
    /// Bytes that wait at most before something of that rate.
    pub fn room(&self, rate: Option<u64>) -> Option<u64> {
        let rate = rate?;
        let bytes = self.queue.as_secs_f64() * rate as f64;
        // A queue holds the packet that it is sending.
        Some((bytes as u64).max(1_500))
    }
}

/// A block, where and when it is handed in, and who lacks what of it.
#[derive(Clone, Debug)]
pub struct PlannedBlock {
    /// The block.
    pub workload: Workload,
    /// At which node.
    pub source: usize,
    /// When, from the first block.
    pub at: Duration,
    /// For each node the places (from 1; the coinbase at 0 is held by nobody) of the transactions that it lacks, in
    /// order.
    pub lacked: Vec<Vec<u32>>,
    /// For each node the places of transactions that reached it a short while before the block, and how long before;
    /// empty where none is said to be late.
    pub late: Vec<BTreeMap<u32, Duration>>,
    /// How soon each node can have it at best, from its submission, whatever the others have; `None` where no way leads.
    pub bounds: Vec<Option<Duration>>,
    /// How soon the first, the second and so on of all nodes can have it, the source being the first.
    pub ranks: Vec<Duration>,
    /// Bytes that have to cross to each node.
    pub bytes_to_cross: Vec<u64>,
}

impl PlannedBlock {
    /// How soon each node can have had it at best, given when each had it (in any unit): see [`limits::ranked`].
    pub fn bounds_of(&self, whole: &[Option<f64>]) -> Vec<Option<Duration>> {
        limits::ranked(&self.bounds, &self.ranks, whole)
    }
}

impl Trial {
    /// Draws what `scenario` leaves to `seed`. `file` is the content of `block.file`, if the scenario names one.
    ///
    /// # Errors
    ///
    /// What only shows now: a file that is no block, adversaries that would cut honest nodes off.
    pub fn new(scenario: &Scenario, seed: u64, file: Option<Bytes>) -> Result<Self, ScenarioError> {
        let senseless = |problem: String| ScenarioError {
            file: scenario.name.clone(),
            line: None,
            problem,
        };
        let plan = Plan::new(&scenario.topology, seed);
        scenario.check_joined(&plan)?;
        let mut random = StdRng::seed_from_u64(seed ^ 0x7472_6961_6c00_0000);
        let sources = blocks::sources(scenario);
        let adversaries =
            places::adversaries(scenario, &plan, &sources, &mut random).map_err(senseless)?;
        let mut trial = Self {
            seed,
            links: places::links(scenario, &plan),
            access: places::access(scenario),
            skews: places::skews(scenario, &mut random),
            blocks: blocks::blocks(scenario, seed, file).map_err(senseless)?,
            scenario: scenario.clone(),
            plan,
            adversaries,
        };
        mempools::draw(&mut trial, &sources, &mut random);
        mempools::delay(&mut trial, &sources, &mut random);
        trial.bound();
        Ok(trial)
    }

    /// Whether node `node` means no harm.
    pub fn is_honest(&self, node: usize) -> bool {
        !self.adversaries.contains_key(&node)
    }

    /// Which nodes count for each block, by their number: none for the first ones that are not measured.
    pub fn counting_each(&self) -> Vec<Vec<bool>> {
        let unmeasured = self.scenario.block.unmeasured as usize;
        let blocks = self.blocks.iter().enumerate();
        blocks
            .map(|(number, block)| match number < unmeasured {
                true => vec![false; self.plan.nodes],
                false => self.counting(block),
            })
            .collect()
    }

    /// Which nodes count for a block, by their number: those that mean no harm, did not hand it in, can be reached, are
    /// not left crashed, and are measured.
    pub fn counting(&self, block: &PlannedBlock) -> Vec<bool> {
        let measure = &self.scenario.measure;
        (0..self.plan.nodes)
            .map(|node| {
                let reached = block.bounds.get(node).is_some_and(Option::is_some);
                let measured = measure.is_empty() || measure.contains(&node);
                node != block.source
                    && self.is_honest(node)
                    && reached
                    && measured
                    && !self.is_left_crashed(node)
            })
            .collect()
    }

    /// Whether the last that befalls a node is a crash.
    fn is_left_crashed(&self, node: usize) -> bool {
        let events = self.scenario.event.iter();
        let matters = |event: &&EventSpec| {
            event.nodes.contains(&node)
                && matches!(event.kind, EventKind::Crash | EventKind::Restart)
        };
        // Of two at the same time the later one in the file.
        let last = events
            .filter(matters)
            .max_by(|one, other| one.at_ms.total_cmp(&other.at_ms));
        last.is_some_and(|event| event.kind == EventKind::Crash)
    }

    /// Computes what has to cross, and how soon it can.
    fn bound(&mut self) {
        let networks: Vec<Network> = match self.scenario.event.is_empty() {
            true => vec![self.network(Duration::ZERO)],
            false => {
                let blocks = self.blocks.iter();
                blocks.map(|block| self.network(block.at)).collect()
            }
        };
        for (block, network) in self.blocks.iter_mut().zip(networks.iter().cycle()) {
            let sizes = &block.workload.transactions;
            let size_of = |place: u32| {
                sizes
                    .get(place as usize - 1)
                    .map_or(0, |bytes| bytes.len() as u64)
            };
            let coinbase = block.workload.coinbase_bytes();
            let total = block.workload.block.len() as u64;
            let count = sizes.len() as u64 + 1;
            let cross = |lacked: &Vec<u32>| {
                let missing: u64 = lacked.iter().map(|&place| size_of(place)).sum();
                limits::bytes_to_cross(total, count, missing + coinbase)
            };
            block.bytes_to_cross = block.lacked.iter().map(cross).collect();
            block.bounds = network.bounds(block.source, &block.bytes_to_cross);
            // Without limits of their own nodes send together whatever their links carry.
            block.ranks = match network.up.is_empty() {
                true => Vec::new(),
                false => network.ranks(block.source, &block.bytes_to_cross),
            };
        }
    }
}

impl LinkSpec {
    /// The link as the world has it; `delay` where distance decides.
    pub fn options(&self, delay: Option<Duration>) -> LinkOptions {
        let rate = rate(self.rate_mbit);
        let queue = match (self.queue_kb, rate) {
            (Some(kilobytes), _) => kilobytes * 1_000.0,
            (None, Some(rate)) => rate as f64 * self.queue_ms.unwrap_or(DEFAULT_QUEUE_MS) / 1_000.0,
            (None, None) => 0.0,
        };
        LinkOptions {
            delay: delay.unwrap_or_else(|| millis(self.delay_ms.unwrap_or(DEFAULT_DELAY_MS))),
            jitter: millis(self.jitter_ms),
            rate_bytes_per_s: rate,
            // A queue holds the packet that it is sending.
            queue_bytes: queue.max(f64::from(self.mtu)) as u64,
            mtu: self.mtu.into(),
            loss: self.loss,
            burst: self.burst,
            reorder: self.reorder,
            reorder_by: millis(self.reorder_by_ms),
            duplicate: self.duplicate,
            corrupt: self.corrupt,
            udp_blocked: !self.udp,
        }
    }
}

impl LinkChange {
    /// Changes a link. A queue keeps its bytes unless the change says something of it.
    pub fn apply(&self, link: &mut LinkOptions) {
        let changed = |value: Option<f64>, place: &mut f64| *place = value.unwrap_or(*place);
        link.delay = self.delay_ms.map_or(link.delay, millis);
        link.jitter = self.jitter_ms.map_or(link.jitter, millis);
        link.reorder_by = self.reorder_by_ms.map_or(link.reorder_by, millis);
        link.rate_bytes_per_s = self.rate_mbit.map_or(link.rate_bytes_per_s, rate);
        let queue = match (self.queue_kb, self.queue_ms, link.rate_bytes_per_s) {
            (Some(kilobytes), ..) => Some(kilobytes * 1_000.0),
            (None, Some(millis), Some(rate)) => Some(millis / 1_000.0 * rate as f64),
            _ => None,
        };
        link.mtu = self.mtu.map_or(link.mtu, usize::from);
        if let Some(bytes) = queue {
            link.queue_bytes = bytes.max(link.mtu as f64) as u64;
        }
        changed(self.loss, &mut link.loss);
        changed(self.burst, &mut link.burst);
        changed(self.reorder, &mut link.reorder);
        changed(self.duplicate, &mut link.duplicate);
        changed(self.corrupt, &mut link.corrupt);
        link.udp_blocked = self.udp.map_or(link.udp_blocked, |udp| !udp);
    }
}

/// Milliseconds of a scenario, which are within range.
pub(super) fn millis(millis: f64) -> Duration {
    Duration::from_secs_f64(millis.max(0.0) / 1_000.0)
}

/// A rate of a scenario in bytes per second; 0 is none.
fn rate(mbit: f64) -> Option<u64> {
    (mbit > 0.0).then(|| ((mbit * 125_000.0) as u64).max(1))
}

#[cfg(test)]
mod tests;
