//! What came of a demo: the object of `--json`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Value, json};

use super::block::DemoBlock;
use super::fleet::Fleet;
use super::plan::{Links, Plan, bound_ms, copies};
use super::progress::{Origin, Progress};
use super::rpc::Rpc;

/// The object that `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The block.
    pub block: BlockReport,
    /// Before this no relay could have been done: see [`bound_ms`].
    pub bound_ms: f64,
    /// Whether every honest node holds the identical block.
    pub all_complete: bool,
    /// The nodes in their order.
    pub nodes: Vec<NodeReport>,
}

/// The block that was relayed.
#[derive(Clone, Debug, Serialize)]
pub struct BlockReport {
    /// Its hash.
    pub hash: String,
    /// Bytes of its serialization.
    pub bytes: usize,
    /// How many transactions.
    pub transactions: usize,
}

/// One node. Times are milliseconds since the block was handed to node 0; counters are those from then to the end.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NodeReport {
    /// Its number.
    pub id: usize,
    /// Whether it told the truth.
    pub honest: bool,
    /// Whether it has the whole block.
    pub complete: bool,
    /// Whether what it has is the block, byte for byte.
    pub identical: bool,
    /// When its first chunk was verified.
    pub first_chunk_ms: Option<f64>,
    /// When its block was whole.
    pub complete_ms: Option<f64>,
    /// Bytes received over UDP and TCP, without headers of IP.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Datagrams received.
    pub datagrams_in: u64,
    /// Datagrams sent.
    pub datagrams_out: u64,
    /// Bytes of the transactions that it had not been given beforehand.
    pub missing_bytes: u64,
    /// Requests sent for the block.
    pub requests: u64,
    /// Chunks that are here.
    pub chunks: usize,
    /// Chunks of which something was sent on before the block was whole here.
    pub chunks_forwarded_before_complete: u64,
    /// Chunks by the node that they came from, or that guided the choice from the cache.
    pub sources: BTreeMap<String, u32>,
    /// Nodes whose data came over TCP, as UDP did not get through.
    pub by_tcp: BTreeSet<usize>,
    /// What was refused, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// What a node has counted.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    bytes_in: u64,
    bytes_out: u64,
    datagrams_in: u64,
    datagrams_out: u64,
    refused: BTreeMap<String, u64>,
}

impl Counters {
    /// The counters of a node now.
    ///
    /// # Errors
    ///
    /// The node does not answer.
    pub async fn read(rpc: &Rpc) -> anyhow::Result<Self> {
        let info = rpc.call("getnetworkinfo", json!([])).await?;
        let number = |name: &str| {
            let value = info.get(name).and_then(Value::as_u64);
            value.with_context(|| format!("getnetworkinfo lacks {name}"))
        };
        let refused = info.get("refused").and_then(Value::as_object);
        let refused = refused.into_iter().flatten().filter_map(|(reason, count)| {
            let count = count.as_u64()?;
            Some((reason.clone(), count))
        });
        Ok(Self {
            bytes_in: number("bytesrecv")?,
            bytes_out: number("bytessent")?,
            datagrams_in: number("datagramsrecv")?,
            datagrams_out: number("datagramssent")?,
            refused: refused.collect(),
        })
    }
}

/// The counters of all nodes now.
///
/// # Errors
///
/// A node does not answer.
pub async fn read_counters(fleet: &Fleet, nodes: usize) -> anyhow::Result<Vec<Counters>> {
    let mut counters = Vec::with_capacity(nodes);
    for node in 0..nodes {
        counters.push(Counters::read(fleet.rpc(node)?).await?);
    }
    Ok(counters)
}

/// The time below which no relay can have brought the block to all honest nodes, in milliseconds.
pub fn bound_of_all(plan: &Plan, links: Links, block: &DemoBlock, shares: &[Vec<usize>]) -> f64 {
    let bound = |(node, hops): (usize, Option<u32>)| {
        let share = shares.get(node).map(Vec::as_slice).unwrap_or_default();
        let missing = missing_bytes(block, share);
        bound_ms(links, hops.unwrap_or(0), copies(plan), missing, share.len())
    };
    plan.hops()
        .into_iter()
        .enumerate()
        .filter(|(node, _)| *node > 0 && plan.is_honest(*node))
        .map(bound)
        .fold(0.0, f64::max)
}

/// Bytes of the transactions that a node with this share lacks.
fn missing_bytes(block: &DemoBlock, share: &[usize]) -> u64 {
    let held = share
        .iter()
        .filter_map(|index| block.transactions.get(*index));
    let digits = |transactions: usize, hex: &String| transactions + hex.len();
    let missing = block.transactions.iter().fold(0, digits) - held.fold(0, digits);
    missing as u64 / 2
}

/// Asks all nodes for what only they know, and puts it together.
///
/// # Errors
///
/// A node does not answer.
pub async fn gather(
    fleet: &Fleet,
    plan: &Plan,
    block: &DemoBlock,
    shares: &[Vec<usize>],
    progress: &Progress,
    before: &[Counters],
    links: Links,
) -> anyhow::Result<Report> {
    // All counters first: what comes after is no part of the transfer.
    let after = read_counters(fleet, plan.nodes).await?;
    let mut nodes = Vec::with_capacity(plan.nodes);
    for ((id, before), after) in before.iter().enumerate().zip(&after) {
        let counted = NodeReport {
            id,
            honest: plan.is_honest(id),
            bytes_in: after.bytes_in.saturating_sub(before.bytes_in),
            bytes_out: after.bytes_out.saturating_sub(before.bytes_out),
            datagrams_in: after.datagrams_in.saturating_sub(before.datagrams_in),
            datagrams_out: after.datagrams_out.saturating_sub(before.datagrams_out),
            missing_bytes: match id {
                0 => 0,
                _ => missing_bytes(block, shares.get(id).map(Vec::as_slice).unwrap_or_default()),
            },
            refused: difference(&before.refused, &after.refused),
            ..NodeReport::default()
        };
        nodes.push(ask(fleet.rpc(id)?, block, progress, counted).await?);
    }
    Ok(Report {
        block: BlockReport {
            hash: block.hash.clone(),
            bytes: block.bytes,
            transactions: block.transactions.len(),
        },
        bound_ms: rounded(bound_of_all(plan, links, block, shares)),
        all_complete: nodes.iter().all(|node| !node.honest || node.identical),
        nodes,
    })
}

/// Fills in what a node says of its job and its block.
async fn ask(
    rpc: &Rpc,
    block: &DemoBlock,
    progress: &Progress,
    mut report: NodeReport,
) -> anyhow::Result<NodeReport> {
    if let Some(here) = progress.nodes().get(report.id) {
        report.first_chunk_ms = progress.since_handed_ms(here.first_chunk_us).map(rounded);
        report.complete_ms = progress.since_handed_ms(here.complete_us).map(rounded);
        report.chunks = here.filled();
        report.by_tcp = here.by_tcp();
        let name = |(origin, count): (Origin, u32)| match origin {
            Origin::Own => None,
            Origin::Node(node) => Some((node.to_string(), count)),
            Origin::Unknown => Some(("unknown".to_owned(), count)),
        };
        report.sources = here.sources().into_iter().filter_map(name).collect();
    }
    let jobs = rpc.call("getjobinfo", json!([])).await?;
    let mut jobs = jobs.as_array().into_iter().flatten();
    if let Some(job) = jobs.find(|job| job["hash"] == block.hash.as_str()) {
        report.requests = job["requests"].as_u64().unwrap_or(0);
        report.chunks_forwarded_before_complete = job["chunks_forwarded_before_complete"]
            .as_u64()
            .unwrap_or(0);
    }
    report.complete = report.complete_ms.is_some();
    // A node that has no such block answers with an error.
    if let Ok(bytes) = rpc.call("getblock", json!([block.hash, 0])).await {
        report.identical = bytes.as_str() == Some(&block.hex);
    }
    Ok(report)
}

fn difference(
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    after
        .iter()
        .map(|(reason, count)| {
            let earlier = before.get(reason).copied().unwrap_or(0);
            (reason.clone(), count.saturating_sub(earlier))
        })
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// Milliseconds to the microsecond.
fn rounded(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_those_since_the_hand_over() {
        let counts = |counts: &[(&str, u64)]| -> BTreeMap<String, u64> {
            let owned = counts
                .iter()
                .map(|(reason, count)| ((*reason).to_owned(), *count));
            owned.collect()
        };
        let before = counts(&[("mac", 2), ("replay", 1)]);
        let after = counts(&[("leaf", 5), ("mac", 2), ("replay", 4)]);
        assert_eq!(
            difference(&before, &after),
            counts(&[("leaf", 5), ("replay", 3)])
        );
    }
}
