//! How much memory runs take, so that one which has no room is refused before it begins, not killed after an hour.

use std::num::NonZeroU32;

use super::source::{MEAN_TRANSACTION, Material, senseless};
use crate::sim::protocol::{self, Protocol};
use crate::sim::scenario::{Overlap, ScenarioError};

/// Jobs that an engine has at the same time, under way and kept.
const JOBS: u64 = 14;

// Measured with swarms of a hundred nodes, of 0.01 to 8 MB, with 8 and 32 links, warm and cold: what a run took at its
// most was 0.6 to 1 times what these say.
/// Bytes of a node, with the packets that are on their way to it.
const NODE: u64 = 600_000;
/// Bytes of one end of a connection.
const SESSION: u64 = 30_000;
/// Bytes of a transaction in a job, and how much more for each peer.
const IN_JOB: (u64, u64) = (200, 8);
/// Bytes of a transaction in a node's mempool.
const IN_MEMPOOL: u64 = 450;
/// Bytes of a node of a model without bytes, for each of its links.
const RIVAL_LINK: u64 = 200_000;

/// Bytes that one run takes, about.
pub fn needed(material: &Material, protocol: &dyn Protocol) -> u64 {
    let scenario = &material.scenario;
    let nodes = scenario.topology.nodes as u64;
    let degree = scenario.topology.mean_degree() as u64;
    let blocks = u64::from(scenario.block.count) * u64::from(scenario.block.racing);
    let bytes = material.block_bytes();
    let transactions = scenario
        .block
        .transactions
        .map_or(bytes / MEAN_TRANSACTION, u64::from);
    // Blocks and their transactions once, and who lacks what of them.
    let material = blocks * (3 * bytes + 4 * nodes * transactions);
    let node = if protocol.name() == protocol::ALL[0].name() {
        let held = match scenario.mempool.overlap {
            Overlap::Share(share) => share,
            Overlap::Wild => 1.0,
        };
        let held = (held * (blocks * transactions) as f64) as u64;
        let (each, for_peer) = IN_JOB;
        NODE + degree * SESSION
            + blocks.min(JOBS) * transactions * (each + for_peer * degree)
            + IN_MEMPOOL * (held + u64::from(scenario.mempool.others))
    } else {
        degree * RIVAL_LINK
    };
    material.saturating_add(nodes.saturating_mul(node))
}

/// How many of `wanted` runs at the same time have room in `limit` bytes.
///
/// # Errors
///
/// When not even one has.
pub fn side_by_side(
    material: &Material,
    protocol: &dyn Protocol,
    wanted: NonZeroU32,
    limit: Option<u64>,
) -> Result<NonZeroU32, ScenarioError> {
    let needed = needed(material, protocol);
    let Some(limit) = limit else {
        return Ok(wanted);
    };
    let room = u32::try_from(limit / needed.max(1)).unwrap_or(u32::MAX);
    match NonZeroU32::new(room) {
        Some(room) => Ok(room.min(wanted)),
        None => Err(senseless(format!(
            "{}: a run of {} takes some {} of memory, and there are {}; give fewer nodes or a smaller block, or more with \
             --memory-gb",
            material.scenario.name,
            protocol.name(),
            shown(needed),
            shown(limit)
        ))),
    }
}

fn shown(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

/// Bytes that may be taken: as many GB as were given, or what this machine has to spare, if it tells.
pub fn limit(gigabytes: Option<f64>) -> Option<u64> {
    match gigabytes {
        Some(gigabytes) => Some((gigabytes * 1e9) as u64),
        None => available(&std::fs::read_to_string("/proc/meminfo").ok()?),
    }
}

/// `MemAvailable` of Linux's `/proc/meminfo`.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn material(changes: &[(&str, &str)]) -> Material {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let changes: Vec<_> = changes.iter().map(own).collect();
        Material::read("swarm-100-cold", &changes).expect("standard")
    }

    fn named(name: &str) -> &'static dyn Protocol {
        protocol::named(name).expect("it is known")
    }

    /// What was measured, in MB, as `/usr/bin/time -v` tells it.
    #[test]
    fn estimates_are_those_measured_or_somewhat_more() {
        for (changes, measured) in [
            (vec![("block.bytes", "10000")], 42.5),
            (
                vec![("block.bytes", "10000"), ("topology.degree", "32")],
                120.3,
            ),
            (vec![("topology.degree", "32")], 333.4),
            (vec![("mempool.overlap", "1")], 429.1),
            (vec![("block.bytes", "8000000")], 505.7),
            (vec![("topology.nodes", "1000")], 1_665.8),
            (
                vec![("block.bytes", "10000"), ("mempool.others", "10000")],
                491.4,
            ),
        ] {
            let estimate = needed(&material(&changes), named("blocktorrent")) as f64 / 1e6;
            let times = estimate / measured;
            assert!(
                (0.95..2.2).contains(&times),
                "{changes:?}: {estimate:.0} for {measured}"
            );
        }
    }

    #[test]
    fn what_has_no_room_is_refused_and_what_has_some_runs_fewer_at_once() {
        let two = NonZeroU32::new(2).expect("two");
        let small = material(&[]);
        let ours = named("blocktorrent");
        let runs = |limit| side_by_side(&small, ours, two, limit).map(NonZeroU32::get);
        assert_eq!(runs(None), Ok(2));
        assert_eq!(runs(Some(1_000_000_000)), Ok(2));
        assert_eq!(runs(Some(400_000_000)), Ok(1));
        let refused = runs(Some(100_000_000)).expect_err("too little").to_string();
        assert!(
            refused.contains("--memory-gb") && refused.contains("0.1 GB"),
            "{refused}"
        );
        let large = [("topology.nodes", "100000"), ("block.bytes", "256000000")];
        let large = side_by_side(&material(&large), ours, two, Some(1 << 40));
        assert!(large.is_err());
    }

    #[test]
    fn linux_tells_what_it_has_to_spare() {
        let text = "MemTotal:       24559384 kB\nMemAvailable:    2000000 kB\n";
        assert_eq!(available(text), Some(2_048_000_000));
        assert_eq!(available("MemAvailable: lots"), None);
        assert_eq!(limit(Some(1.5)), Some(1_500_000_000));
    }
}
