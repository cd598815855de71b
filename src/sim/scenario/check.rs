//! What numbers make sense, alone and together.

use std::collections::BTreeSet;

use super::super::topology::{Plan, Topology};
use super::super::trial::DEFAULT_QUEUE_MS;
use super::error::ScenarioError;
use super::spec::{BlockSpec, EventKind, EventSpec, LinkChange, LinkSpec, Overlap, Scenario};

/// Nodes of a world at most: each has an address of its own in 10/8, and an engine of some hundred kB.
pub const MAX_NODES: usize = 100_000;

/// Runs of a scenario at most: more would not end before one forgets why one asked.
const MAX_RUNS: u32 = 1_000_000;

/// Bytes of a synthetic block at most: 64 times what Bitcoin allows, in memory once for each node.
const MAX_BLOCK_BYTES: u64 = 256_000_000;

/// Transactions of a synthetic block at most: what so many bytes hold of the smallest.
const MAX_TRANSACTIONS: u32 = 1_000_000;

/// Blocks of a scenario at most: a week of them, which is in memory at once.
const MAX_BLOCKS: u32 = 1_008;

/// Neighbours of a node that an error names: enough to choose from.
const NEIGHBOURS_NAMED: usize = 8;

/// What does not make sense, and where.
pub(super) struct Fault {
    /// The key, with dots before its tables.
    pub key: String,
    /// What to write instead.
    pub advice: String,
}

fn fault<T>(key: impl Into<String>, advice: impl Into<String>) -> Result<T, Fault> {
    Err(Fault {
        key: key.into(),
        advice: advice.into(),
    })
}

/// Whether `value` is a number from `least` to `most`.
fn within(key: &str, value: f64, least: f64, most: f64) -> Result<(), Fault> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let shown = match value.abs() < 1e15 {
        true => value.to_string(),
        false => format!("{value:e}"),
    };
    fault(
        key,
        format!("{shown} is out of range; give a number from {least} to {most}"),
    )
}

fn counted(key: &str, value: usize, least: usize, most: usize) -> Result<(), Fault> {
    match (least..=most).contains(&value) {
        true => Ok(()),
        false => fault(
            key,
            format!("{value} is out of range; give a whole number from {least} to {most}"),
        ),
    }
}

impl Scenario {
    /// Finds the first thing that makes no sense.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let named =
            |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(named) {
            return fault("name", "give 1 to 64 letters, digits, `-`, `_` and `.`");
        }
        counted("runs", self.runs as usize, 1, MAX_RUNS as usize)?;
        self.check_topology()?;
        self.known("measure", &self.measure)?;
        self.check_links()?;
        within("access.up_mbit", self.access.up_mbit, 0.0, 1e6)?;
        within("access.down_mbit", self.access.down_mbit, 0.0, 1e6)?;
        within("access.queue_ms", self.access.queue_ms, 0.1, 60_000.0)?;
        for (index, except) in self.access.except.iter().enumerate() {
            let key = format!("access.except.{index}");
            self.known(&format!("{key}.nodes"), &except.nodes)?;
            within(
                &format!("{key}.up_mbit"),
                except.up_mbit.unwrap_or(0.0),
                0.0,
                1e6,
            )?;
            within(
                &format!("{key}.down_mbit"),
                except.down_mbit.unwrap_or(0.0),
                0.0,
                1e6,
            )?;
        }
        self.check_block()?;
        if let Overlap::Share(share) = self.mempool.overlap {
            within("mempool.overlap", share, 0.0, 1.0)?;
        }
        within(
            "mempool.source_overlap",
            self.mempool.source_overlap,
            0.0,
            1.0,
        )?;
        counted("mempool.others", self.mempool.others as usize, 0, 1_000_000)?;
        within("mempool.late_ms", self.mempool.late_ms, 0.0, 60_000.0)?;
        counted("node.push_level", self.node.push_level.into(), 0, 3)?;
        within("node.max_up_mbit", self.node.max_up_mbit, 0.0, 1e6)?;
        within("node.max_down_mbit", self.node.max_down_mbit, 0.0, 1e6)?;
        counted(
            "node.max_datagram",
            self.node.max_datagram.into(),
            1_200,
            65_507,
        )?;
        if let Some(peers) = self.node.max_peers {
            counted("node.max_peers", peers, 1, crate::relay::MAX_SESSIONS)?;
        }
        within("clock.skew_ms", self.clock.skew_ms, 0.0, 3_600_000.0)?;
        within("limit.seconds", self.limit.seconds, 0.001, 86_400.0)?;
        within("limit.settle_ms", self.limit.settle_ms, 0.0, 3_600_000.0)?;
        for (index, event) in self.event.iter().enumerate() {
            self.check_event(&format!("event.{index}"), event)?;
        }
        self.check_adversaries()?;
        match self.topology.kind {
            Topology::Line | Topology::Ring | Topology::Star | Topology::Mesh => {
                self.joined(&Plan::new(&self.topology, 0))
            }
            // Who is joined to whom depends on the seed.
            Topology::Regular | Topology::SmallWorld | Topology::Geographic => Ok(()),
        }
    }

    /// Whether all links that are named are there, in the network of a seed.
    pub(in super::super) fn check_joined(&self, plan: &Plan) -> Result<(), ScenarioError> {
        self.joined(plan).map_err(|fault| ScenarioError {
            file: self.name.clone(),
            line: None,
            problem: format!("{}: {}", fault.key, fault.advice),
        })
    }

    fn joined(&self, plan: &Plan) -> Result<(), Fault> {
        let paths = self.path.iter().map(|path| path.between).enumerate();
        let paths = paths.map(|(index, ends)| (format!("path.{index}.between"), ends));
        let events = self.event.iter().enumerate();
        let events = events
            .filter_map(|(index, event)| Some((format!("event.{index}.between"), event.between?)));
        let mut named = paths.chain(events).peekable();
        if named.peek().is_none() {
            return Ok(());
        }
        let edges: BTreeSet<(usize, usize)> = plan.edges.iter().copied().collect();
        for (key, [one, other]) in named {
            if !edges.contains(&(one.min(other), one.max(other))) {
                let neighbours = edges.iter().filter_map(|&(low, high)| match one {
                    _ if low == one => Some(high.to_string()),
                    _ if high == one => Some(low.to_string()),
                    _ => None,
                });
                let neighbours: Vec<String> = neighbours.take(NEIGHBOURS_NAMED).collect();
                return fault(
                    key,
                    format!(
                        "nodes {one} and {other} are not joined; {one} is joined to {}",
                        match neighbours.is_empty() {
                            true => "none".to_owned(),
                            false => neighbours.join(", "),
                        }
                    ),
                );
            }
        }
        Ok(())
    }

    fn check_topology(&self) -> Result<(), Fault> {
        let topology = &self.topology;
        counted("topology.nodes", topology.nodes, 1, MAX_NODES)?;
        if topology.kind == Topology::Mesh {
            counted("topology.nodes", topology.nodes, 1, 512)?;
        }
        if topology.kind == Topology::Star {
            counted(
                "topology.nodes",
                topology.nodes,
                1,
                crate::relay::MAX_SESSIONS,
            )?;
        }
        let has_degree = matches!(
            topology.kind,
            Topology::Regular | Topology::SmallWorld | Topology::Geographic
        );
        if let Some(degree) = topology.degree {
            if !has_degree {
                return fault(
                    "topology.degree",
                    "leave it out, or let `kind` be regular, small-world or geographic",
                );
            }
            if topology.nodes == 1 {
                return fault("topology.degree", "leave it out: one node has no links");
            }
            counted("topology.degree", degree, 1, (topology.nodes - 1).min(512))?;
            if topology.kind == Topology::SmallWorld && degree % 2 != 0 {
                return fault("topology.degree", "give an even number in a small world");
            }
            if topology.kind == Topology::Regular && !(degree * topology.nodes).is_multiple_of(2) {
                return fault(
                    "topology.degree",
                    "nodes times degree must be even, since each link has two ends",
                );
            }
            if topology.kind == Topology::Regular && degree < 3 && topology.nodes > degree + 1 {
                return fault(
                    "topology.degree",
                    "give 3 or more, or use `kind = \"ring\"`",
                );
            }
        }
        if let Some(rewire) = topology.rewire {
            if topology.kind != Topology::SmallWorld {
                return fault(
                    "topology.rewire",
                    "leave it out, or let `kind` be small-world",
                );
            }
            within("topology.rewire", rewire, 0.0, 1.0)?;
        }
        for (key, value, least, most) in [
            ("topology.stretch", topology.stretch, 1.0, 10.0),
            ("topology.last_mile_ms", topology.last_mile_ms, 0.0, 1_000.0),
        ] {
            if let Some(value) = value {
                if topology.kind != Topology::Geographic {
                    return fault(key, "leave it out, or let `kind` be geographic");
                }
                within(key, value, least, most)?;
            }
        }
        Ok(())
    }

    fn check_links(&self) -> Result<(), Fault> {
        let delays = [
            ("link.delay_ms", self.link.delay_ms),
            ("link.back.delay_ms", self.link.back.delay_ms),
        ];
        for (key, delay) in delays {
            if delay.is_some() && self.topology.kind == Topology::Geographic {
                return fault(
                    key,
                    "leave it out: in a geographic topology distance decides; topology.last_mile_ms adds to it",
                );
            }
        }
        if self.link.queue_ms.is_some() && self.link.queue_kb.is_some() {
            return two_queues("link");
        }
        check_link("link", &self.link)?;
        check_change("link.back", &self.link, &self.link.back)?;
        let mut before = BTreeSet::new();
        for (index, path) in self.path.iter().enumerate() {
            let key = format!("path.{index}");
            let [one, other] = path.between;
            self.ends(&format!("{key}.between"), path.between)?;
            if !before.insert((one.min(other), one.max(other))) {
                return fault(
                    format!("{key}.between"),
                    format!("nodes {one} and {other} have a path already; write all of it there"),
                );
            }
            check_change(&format!("{key}.link"), &self.link, &path.link)?;
            check_change(&format!("{key}.back"), &self.link, &path.back)?;
        }
        Ok(())
    }

    fn check_block(&self) -> Result<(), Fault> {
        let BlockSpec {
            file,
            real,
            bytes,
            transactions,
            ..
        } = &self.block;
        let synthetic = bytes.is_some() || transactions.is_some();
        if usize::from(file.is_some()) + usize::from(real.is_some()) + usize::from(synthetic) > 1 {
            return fault(
                "block",
                "give one of `file`, `real`, and `bytes` with `transactions`",
            );
        }
        if let Some(bytes) = *bytes {
            if !(100..=MAX_BLOCK_BYTES).contains(&bytes) {
                return fault(
                    "block.bytes",
                    format!("give a number from 100 to {MAX_BLOCK_BYTES}"),
                );
            }
            if *transactions == Some(1) {
                return fault(
                    "block.bytes",
                    "leave it out, or give more transactions: a block of one has the coinbase alone, of some 250 bytes",
                );
            }
            if let Some(transactions) = *transactions
                && bytes < u64::from(transactions) * 110 + 200
            {
                return fault(
                    "block.bytes",
                    format!(
                        "{transactions} transactions take at least {}; give that, or fewer transactions",
                        u64::from(transactions) * 110 + 200
                    ),
                );
            }
        }
        if let Some(transactions) = *transactions {
            counted(
                "block.transactions",
                transactions as usize,
                1,
                MAX_TRANSACTIONS as usize,
            )?;
        }
        self.check_sequence()
    }

    /// How many blocks, when, and where.
    fn check_sequence(&self) -> Result<(), Fault> {
        counted(
            "block.count",
            self.block.count as usize,
            1,
            MAX_BLOCKS as usize,
        )?;
        within("block.every_ms", self.block.every_ms, 0.0, 86_400_000.0)?;
        let racing = self.block.racing as usize;
        counted("block.racing", racing, 1, self.topology.nodes.min(64))?;
        if self.block.unmeasured >= self.block.count {
            return fault(
                "block.unmeasured",
                format!(
                    "{} of {} blocks leave none to measure; give fewer, or a larger block.count",
                    self.block.unmeasured, self.block.count
                ),
            );
        }
        self.known("block.from", &self.block.from)?;
        if !self.block.from.is_empty() && self.block.from.len() < racing {
            return fault(
                "block.from",
                format!("name {racing} nodes, one for each that races"),
            );
        }
        Ok(())
    }

    fn check_event(&self, key: &str, event: &EventSpec) -> Result<(), Fault> {
        let settle = self.limit.settle_ms;
        within(&format!("{key}.at_ms"), event.at_ms, -settle, 86_400_000.0)?;
        self.known(&format!("{key}.nodes"), &event.nodes)?;
        if let Some(between) = event.between {
            self.ends(&format!("{key}.between"), between)?;
        }
        let wants_nodes = matches!(
            event.kind,
            EventKind::Partition | EventKind::Crash | EventKind::Restart
        );
        let wants_link = matches!(
            event.kind,
            EventKind::LinkDown | EventKind::LinkUp | EventKind::Cut
        );
        let changes = !event.link.is_empty() || !event.back.is_empty();
        if wants_nodes && event.nodes.is_empty() {
            return fault(
                format!("{key}.nodes"),
                "name the nodes, as in nodes = [2, 3]",
            );
        }
        let befallen: BTreeSet<usize> = event.nodes.iter().copied().collect();
        if event.kind == EventKind::Partition && befallen.len() == self.topology.nodes {
            return fault(
                format!("{key}.nodes"),
                "leave some out: all nodes together are cut off from nobody",
            );
        }
        if !wants_nodes && !event.nodes.is_empty() {
            return fault(format!("{key}.nodes"), "leave it out: this kind has none");
        }
        if wants_link && event.between.is_none() {
            return fault(
                format!("{key}.between"),
                "name the link, as in between = [0, 1]",
            );
        }
        if event.between.is_some() && !wants_link && event.kind != EventKind::SetLink {
            return fault(
                format!("{key}.between"),
                "leave it out: this kind has no link",
            );
        }
        match (event.kind == EventKind::SetLink, changes) {
            (true, false) => fault(
                format!("{key}.link"),
                "say what changes, as in link = { loss = 0.1 }",
            ),
            (false, true) => fault(
                format!("{key}.link"),
                "leave it out, or let `kind` be set-link",
            ),
            _ => {
                check_change(&format!("{key}.link"), &self.link, &event.link)?;
                check_change(&format!("{key}.back"), &self.link, &event.back)
            }
        }
    }

    fn check_adversaries(&self) -> Result<(), Fault> {
        let mut count: usize = 0;
        let mut named = BTreeSet::new();
        for (index, adversary) in self.adversary.iter().enumerate() {
            let key = format!("adversary.{index}.nodes");
            self.known(&key, &adversary.nodes)?;
            if let Some(twice) = adversary.nodes.iter().find(|node| !named.insert(**node)) {
                return fault(
                    key,
                    format!("node {twice} is an adversary already; name each once"),
                );
            }
            let more = match adversary.nodes.len() {
                0 => adversary.count,
                named => named,
            };
            count = count.saturating_add(more);
            let left = self
                .topology
                .nodes
                .saturating_sub(self.block.racing as usize + 1);
            if count > left {
                return fault(
                    format!("adversary.{index}"),
                    format!(
                        "of {} nodes at most {left} may be adversaries",
                        self.topology.nodes
                    ),
                );
            }
        }
        Ok(())
    }

    fn known(&self, key: &str, nodes: &[usize]) -> Result<(), Fault> {
        match nodes.iter().find(|&&node| node >= self.topology.nodes) {
            Some(node) => fault(
                key,
                format!(
                    "there is no node {node}; give numbers from 0 to {}",
                    self.topology.nodes - 1
                ),
            ),
            None => Ok(()),
        }
    }

    fn ends(&self, key: &str, [one, other]: [usize; 2]) -> Result<(), Fault> {
        self.known(key, &[one, other])?;
        match one == other {
            true => fault(key, "give two different nodes"),
            false => Ok(()),
        }
    }
}

fn two_queues<T>(key: &str) -> Result<T, Fault> {
    fault(
        format!("{key}.queue_kb"),
        "leave it out, or `queue_ms`: a link has one queue",
    )
}

fn check_change(key: &str, link: &LinkSpec, change: &LinkChange) -> Result<(), Fault> {
    if change.queue_ms.is_some() && change.queue_kb.is_some() {
        return two_queues(key);
    }
    check_link(key, &link.changed(change))
}

fn check_link(key: &str, link: &LinkSpec) -> Result<(), Fault> {
    for (name, value, least, most) in [
        ("delay_ms", link.delay_ms.unwrap_or(0.0), 0.0, 60_000.0),
        ("jitter_ms", link.jitter_ms, 0.0, 60_000.0),
        ("rate_mbit", link.rate_mbit, 0.0, 1e6),
        (
            "queue_ms",
            link.queue_ms.unwrap_or(DEFAULT_QUEUE_MS),
            0.1,
            60_000.0,
        ),
        ("queue_kb", link.queue_kb.unwrap_or(2.0), 2.0, 1e7),
        ("loss", link.loss, 0.0, 1.0),
        ("burst", link.burst, 1.0, 10_000.0),
        ("reorder", link.reorder, 0.0, 1.0),
        ("reorder_by_ms", link.reorder_by_ms, 0.0, 60_000.0),
        ("duplicate", link.duplicate, 0.0, 1.0),
        ("corrupt", link.corrupt, 0.0, 1.0),
        // Below 1,228 a datagram of the protocol's default size does not pass; nobody has less than IPv4's 576.
        ("mtu", f64::from(link.mtu), 576.0, 65_535.0),
    ] {
        within(&format!("{key}.{name}"), value, least, most)?;
    }
    Ok(())
}
