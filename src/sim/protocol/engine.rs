//! The engine itself, in a world that a trial describes.

use std::sync::Arc;
use std::time::Duration;

use super::super::adversary::{Casting, Forged, IDENTITIES};
use super::super::node::{NodeOptions, data_address};
use super::super::outcome::{BlockOutcome, NodeOutcome, NodeTraffic, Outcome, Piece};
use super::super::scenario::{AdversaryKind, EventKind, EventSpec};
use super::super::trial::{PlannedBlock, Trial, millis};
use super::super::workload::Workload;
use super::super::world::{Fault, World};
use super::{Progress, Protocol};
use crate::relay::MAX_SESSIONS;
use crate::time::Time;

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
        let mut world = world_of(trial);
        world.keep_events(false);
        let before: Vec<NodeTraffic> = (0..trial.plan.nodes)
            .map(|node| passed(&world, node))
            .collect();
        let start = world.now();
        for block in &trial.blocks {
            world.submit(block.source, &block.workload, block.at);
        }
        let last = trial
            .blocks
            .iter()
            .map(|block| block.at)
            .max()
            .unwrap_or_default();
        let end = start + last + Duration::from_secs_f64(trial.scenario.limit.seconds);
        let counts = trial.counting_each();
        let whole = |world: &World| whole(world, trial, &counts);
        let wanted = counts.iter().flatten().filter(|counts| **counts).count();
        world.run_until(end, &|world| whole(world) == wanted, &mut |world| {
            watch(&Progress {
                elapsed: world.now() - start,
                happenings: world.happened(),
                whole: whole(world),
                wanted,
            });
        });
        let ended_ms = in_millis(world.now() - start);
        // What is still under way counts as sent.
        world.run_for(longest_delay(trial) * 4 + Duration::from_millis(100));
        let mut outcome = Outcome {
            scenario: trial.scenario.name.clone(),
            protocol: self.name().to_owned(),
            seed: trial.seed,
            nodes: trial.plan.nodes,
            blocks: Vec::new(),
            traffic: Vec::new(),
            ended_ms,
            happenings: world.happened(),
            trace_hash: world.trace_hash(),
            violations: world.violations().iter().map(ToString::to_string).collect(),
        };
        for (node, before) in before.iter().enumerate() {
            outcome.traffic.push(passed(&world, node).since(before));
        }
        for (block, counts) in trial.blocks.iter().zip(&counts) {
            outcome
                .blocks
                .push(block_outcome(&world, block, counts, start));
        }
        outcome
    }
}

/// The world that a trial describes, after its connections were made and its faults arranged. Its next moment is that
/// of the first block.
pub fn world_of(trial: &Trial) -> World {
    judged_world_of(trial, !trial.adversaries.is_empty())
}

/// The same; `judged` says whether all that honest nodes pass on is compared with the blocks, and all bounds looked at.
pub fn judged_world_of(trial: &Trial, judged: bool) -> World {
    let mut world = World::new(trial.seed);
    if judged {
        world.compare_passage();
    }
    let neighbours = trial.plan.neighbours();
    for (node, neighbours) in neighbours.iter().enumerate() {
        match trial.adversaries.get(&node) {
            Some(&kind) => add_adversary(&mut world, trial, kind, neighbours),
            None => world.add_node(options(trial, node)),
        };
        if let Some(&access) = trial.access.get(node) {
            world.set_access(node, access);
        }
        world.set_skew(node, trial.skews.get(node).copied().unwrap_or(0));
    }
    for (&(low, high), [forth, back]) in trial.plan.edges.iter().zip(&trial.links) {
        world.link(low, high, forth.clone());
        world.link(high, low, back.clone());
        for _ in 0..connections(trial, low, high) {
            world.dial(high, low);
        }
    }
    fill_mempools(trial, &mut world);
    let settle = millis(trial.scenario.limit.settle_ms);
    for event in &trial.scenario.event {
        let after = millis(trial.scenario.limit.settle_ms + event.at_ms);
        for fault in faults(trial, event) {
            world.fault(after, fault);
        }
    }
    world.run_for(settle);
    world
}

fn options(trial: &Trial, node: usize) -> NodeOptions {
    let spec = &trial.scenario.node;
    let degree = trial
        .plan
        .edges
        .iter()
        .filter(|(low, high)| *low == node || *high == node)
        .count();
    let peers = spec.max_peers.unwrap_or(degree.max(64)).min(MAX_SESSIONS);
    let rate = |mbit: f64| (mbit > 0.0).then_some((mbit * 125_000.0) as u64);
    let largest = trial
        .blocks
        .iter()
        .map(|block| block.workload.block.len())
        .max();
    let most = trial
        .blocks
        .iter()
        .map(|block| block.workload.transactions.len())
        .max();
    let all: usize = trial
        .blocks
        .iter()
        .map(|block| block.workload.block.len())
        .sum();
    let mut options = NodeOptions::default();
    let config = &mut options.config;
    config.push_level = spec.push_level;
    config.preference = spec.preference;
    config.max_up_bytes_per_s = rate(spec.max_up_mbit);
    config.max_down_bytes_per_s = rate(spec.max_down_mbit);
    config.max_datagram = spec.max_datagram;
    config.max_peers = peers;
    config.max_inbound_per_group = peers;
    config.max_block_bytes = config.max_block_bytes.max(largest.unwrap_or(0) as u32);
    config.max_transactions = config.max_transactions.max(most.unwrap_or(0) as u32 + 1);
    config.max_mempool_bytes = config.max_mempool_bytes.max(2 * all);
    options
}

/// Puts whoever means harm at the next node.
fn add_adversary(
    world: &mut World,
    trial: &Trial,
    kind: AdversaryKind,
    neighbours: &[usize],
) -> usize {
    let node = world.node_count();
    let seed = world.draw_seed();
    let forged = (kind == AdversaryKind::InvalidBlock)
        .then(|| Forged::new(trial.seed ^ node as u64))
        .flatten();
    if let Some(forged) = &forged {
        world.expect_forged(forged);
    }
    let casting = Casting {
        kind,
        seed,
        options: options(trial, node),
        neighbours: neighbours.iter().copied().map(data_address).collect(),
        everyone: (0..trial.plan.nodes).map(data_address).collect(),
        forged: forged.map(Arc::new),
    };
    world.add_actor(casting.actor(world.now()))
}

/// How many control connections an edge of a trial's plan has.
pub fn connections(trial: &Trial, low: usize, high: usize) -> usize {
    let many = |node| trial.adversaries.get(&node) == Some(&AdversaryKind::ManyIdentities);
    match many(low) != many(high) {
        true => IDENTITIES,
        false => 1,
    }
}

fn fill_mempools(trial: &Trial, world: &mut World) {
    let others = trial.scenario.mempool.others as usize;
    let others = match others {
        0 => Vec::new(),
        count => Workload::of_sizes(&vec![250; count], trial.seed ^ 0x6f74_6865_7273).transactions,
    };
    for node in 0..trial.plan.nodes {
        for transaction in &others {
            world.give(node, transaction.clone());
        }
        for block in &trial.blocks {
            let mut lacked = block.lacked.get(node).into_iter().flatten().peekable();
            let late = block.late.get(node);
            let at = millis(trial.scenario.limit.settle_ms) + block.at;
            for (place, transaction) in (1..).zip(&block.workload.transactions) {
                if lacked.next_if(|lacked| **lacked == place).is_some() {
                    continue;
                }
                let before = late.and_then(|late| late.get(&place));
                match before.and_then(|before| at.checked_sub(*before)) {
                    Some(after) => world.give_later(node, transaction.clone(), after),
                    None => world.give(node, transaction.clone()),
                }
            }
        }
    }
}

/// What an event of a scenario is to the world.
fn faults(trial: &Trial, event: &EventSpec) -> Vec<Fault> {
    let ends = event.between.map(|[one, other]| (one, other));
    let each = |fault: fn(usize) -> Fault| event.nodes.iter().copied().map(fault).collect();
    let link = |up| {
        ends.map(|ends| Fault::Link { ends, up })
            .into_iter()
            .collect()
    };
    match event.kind {
        EventKind::Partition => vec![Fault::Partition(event.nodes.clone())],
        EventKind::Heal => vec![Fault::Heal],
        EventKind::Crash => each(Fault::Crash),
        EventKind::Restart => each(Fault::Restart),
        EventKind::LinkDown => link(false),
        EventKind::LinkUp => link(true),
        EventKind::Cut => ends
            .map(|(one, other)| Fault::Cut(one, other))
            .into_iter()
            .collect(),
        EventKind::SetLink => {
            let befallen = match ends {
                Some(ends) => vec![ends],
                None => trial.plan.edges.clone(),
            };
            let change = |way, change: &super::super::scenario::LinkChange| Fault::Change {
                way,
                change: change.clone(),
            };
            let three = |(one, other)| {
                let (forth, back) = ((one, other), (other, one));
                [
                    change(forth, &event.link),
                    change(back, &event.link),
                    change(back, &event.back),
                ]
            };
            befallen.into_iter().flat_map(three).collect()
        }
    }
}

/// How many pairs of node and block that count are whole.
fn whole(world: &World, trial: &Trial, counts: &[Vec<bool>]) -> usize {
    let of = |(block, counts): (&PlannedBlock, &Vec<bool>)| {
        let nodes = counts.iter().enumerate().filter(|(_, counts)| **counts);
        nodes
            .filter(|(node, _)| world.completion(*node, &block.workload).is_some())
            .count()
    };
    trial.blocks.iter().zip(counts).map(of).sum()
}

fn passed(world: &World, node: usize) -> NodeTraffic {
    let traffic = world.traffic_of(node);
    NodeTraffic {
        bytes_in: traffic.udp_in + traffic.tcp_in,
        bytes_out: traffic.udp_out + traffic.tcp_out,
        packets_in: traffic.datagrams_in,
        packets_out: traffic.datagrams_out,
        requests: world.said(node).map_or(0, |said| said.requests),
    }
}

fn longest_delay(trial: &Trial) -> Duration {
    let links = trial.links.iter().flatten();
    links
        .map(|link| link.delay + link.jitter)
        .max()
        .unwrap_or_default()
}

fn in_millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

fn block_outcome(
    world: &World,
    block: &PlannedBlock,
    counts: &[bool],
    start: Time,
) -> BlockOutcome {
    let submitted = start + block.at;
    let since = |at: Time| in_millis(at - submitted);
    let whole = |node| {
        let completion = world.completion(node, &block.workload);
        completion.map(|completion| since(completion.at))
    };
    let whole: Vec<Option<f64>> = (0..counts.len()).map(whole).collect();
    let bounds = block.bounds_of(&whole);
    let of = |(node, &counts): (usize, &bool)| {
        let completion = world.completion(node, &block.workload);
        let chunks = world.chunks(node).iter();
        let chunks = chunks.filter(|note| note.block == block.workload.hash);
        NodeOutcome {
            counts,
            whole_ms: completion.map(|completion| since(completion.at)),
            bound_ms: bounds.get(node).copied().flatten().map(in_millis),
            bytes_to_cross: block.bytes_to_cross.get(node).copied().unwrap_or(0),
            request_free: completion.is_some_and(|completion| completion.requests == 0),
            pieces: chunks
                .map(|note| Piece {
                    at_ms: since(note.at),
                    index: note.chunk,
                    from: note.from,
                })
                .collect(),
        }
    };
    let mut hash = block.workload.hash;
    hash.reverse();
    BlockOutcome {
        hash: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
        bytes: block.workload.block.len() as u64,
        transactions: block.workload.transactions.len() as u32 + 1,
        source: block.source,
        submitted_ms: in_millis(block.at),
        nodes: counts.iter().enumerate().map(of).collect(),
    }
}

#[cfg(test)]
mod tests;
