//! Who must have what by when.

use std::time::Duration;

use super::super::trial::Trial;
use super::super::workload::Workload;
use super::super::world::World;
use super::Swarm;
use crate::time::Time;

/// A connection that ended is dialled anew after a second, and a try that failed is repeated after another; one that
/// hangs in its handshake is given up after ten (`HANDSHAKE_TIMEOUT`), and the way to the other end takes the rest.
const RECONNECT: Duration = Duration::from_secs(14);

/// Data waits so long at most for the UDP path before it goes over TCP (`PATH_TIMEOUT`); a path that was lost may
/// have been told so after as long again.
const PATH: Duration = Duration::from_secs(6);

/// The longest that one peer is waited for before another is asked (`MAX_PATIENCE`, twice).
const PATIENCE: Duration = Duration::from_secs(10);

/// Round trips of a hop: two for a connection, three for a handshake and a path, the rest for offers and requests, each
/// of which may come late by a time-out of the loss recovery.
const ROUND_TRIPS: u32 = 30;

/// Of what a link carries, this share at least is good for blocks: adversaries fill the rest.
const SHARE_FOR_BLOCKS: f64 = 0.25;

/// Bytes per second of every link after the healing: 10 Mbit/s.
const RATE: f64 = 1_250_000.0;

/// How long after the healing, and after the last block was handed in, everything demanded must be there:
///
/// ```text
/// reconnect + path + hops x (round trips x RTT + blocks x bytes / (share x rate) + (1 + liars) x patience)
/// ```
///
/// `hops` is the longest of the shortest honest paths, `RTT` the largest, `bytes` those of the largest block, twice,
/// `blocks` how many there are, `liars` the most sessions with adversaries that an honest node has: each of them may be
/// waited for once at each node on the way.
pub fn deadline(swarm: &Swarm) -> Duration {
    let trial = &swarm.trial;
    let hops = honest_diameter(trial);
    let delay = trial.scenario.event.iter().fold(0.0, |most: f64, event| {
        most.max(event.link.delay_ms.unwrap_or(0.0))
    });
    let links = trial.links.iter().flatten();
    let slowest = links.map(|link| link.delay).max().unwrap_or_default();
    let delay = slowest.max(Duration::from_secs_f64(delay / 1_000.0));
    let sizes = trial.blocks.iter().map(|block| block.workload.block.len());
    let largest = sizes.max().unwrap_or(0).max(swarm.last.block.len());
    let blocks = trial.blocks.len() + 1;
    let transfer = (2 * largest * blocks) as f64 / (SHARE_FOR_BLOCKS * RATE);
    let hop = delay * 2 * ROUND_TRIPS
        + Duration::from_secs_f64(transfer)
        + PATIENCE * (1 + lying_sessions(trial));
    RECONNECT + PATH + hop * hops
}

/// The most sessions with adversaries that an honest node has.
fn lying_sessions(trial: &Trial) -> u32 {
    let of = |node: usize| -> usize {
        let sessions = trial.plan.edges.iter().map(|&(low, high)| {
            let other = match (low == node, high == node) {
                (true, _) => high,
                (_, true) => low,
                _ => return 0,
            };
            match trial.is_honest(other) {
                true => 0,
                false => super::super::protocol::connections(trial, low, high),
            }
        });
        sessions.sum()
    };
    let honest = (0..trial.plan.nodes).filter(|node| trial.is_honest(*node));
    honest.map(of).max().unwrap_or(0) as u32
}

/// The longest of the shortest ways between honest nodes through honest nodes.
fn honest_diameter(trial: &Trial) -> u32 {
    let ways = |from: usize| {
        let honest = |&(low, high): &(usize, usize)| trial.is_honest(low) && trial.is_honest(high);
        let edges: Vec<_> = trial.plan.edges.iter().copied().filter(honest).collect();
        distances(trial.plan.nodes, &edges, from)
    };
    let honest = (0..trial.plan.nodes).filter(|node| trial.is_honest(*node));
    let longest = honest.flat_map(ways).flatten().max();
    longest.unwrap_or(1).max(1)
}

/// How many edges lead from one node to each; `None`: none do.
fn distances(nodes: usize, edges: &[(usize, usize)], from: usize) -> Vec<Option<u32>> {
    let mut found = vec![None; nodes];
    let mut front = vec![from];
    let mut distance = 0;
    while !front.is_empty() {
        for &node in &front {
            if let Some(place) = found.get_mut(node) {
                *place = Some(distance);
            }
        }
        let next = edges.iter().flat_map(|&(one, other)| {
            let forth = front.contains(&one).then_some(other);
            let back = front.contains(&other).then_some(one);
            [forth, back].into_iter().flatten()
        });
        let next: Vec<usize> = next
            .filter(|node| found.get(*node).is_some_and(Option::is_none))
            .collect();
        front = next;
        front.sort_unstable();
        front.dedup();
        distance += 1;
    }
    found
}

/// Which nodes must have which blocks, as far as can be told now.
pub(super) fn demanded<'a>(
    swarm: &'a Swarm,
    world: &World,
    start: Time,
) -> Vec<(usize, &'a Workload)> {
    let trial = &swarm.trial;
    let honest = || (0..trial.plan.nodes).filter(|node| trial.is_honest(*node));
    let mut wanted: Vec<(usize, &Workload)> = honest().map(|node| (node, &swarm.last)).collect();
    let standing = world.standing();
    for block in &trial.blocks {
        let handed_in = start + block.at;
        let edges: Vec<(usize, usize)> = standing
            .iter()
            .filter(|(_, since)| *since < handed_in)
            .map(|(ends, _)| *ends)
            .filter(|&(one, other)| trial.is_honest(one) && trial.is_honest(other))
            .collect();
        let reached = distances(trial.plan.nodes, &edges, block.source);
        let reached = honest().filter(|node| reached.get(*node).is_some_and(Option::is_some));
        wanted.extend(reached.map(|node| (node, &block.workload)));
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_edges() {
        let edges = [(0, 1), (1, 2), (0, 3), (3, 2), (4, 5)];
        let found = distances(6, &edges, 0);
        assert_eq!(found, [Some(0), Some(1), Some(2), Some(1), None, None]);
        assert_eq!(distances(1, &[], 0), [Some(0)]);
    }
}
