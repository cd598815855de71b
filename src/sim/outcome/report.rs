//! Many runs as one row.

use serde::Serialize;

use super::{NodeOutcome, Outcome};

/// One row of `compare`: a scenario and a protocol, all runs together. Nodes that do not count are left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The scenario's name.
    pub scenario: String,
    /// The protocol's name.
    pub protocol: String,
    /// How many nodes a run has.
    pub nodes: usize,
    /// Size of a block, on average.
    pub block_bytes: u64,
    /// How soon a node could have a block at best: the median of all nodes and blocks.
    pub bound_ms: f64,
    /// How much later than its bound half of the nodes had it; `None`: half never had.
    pub added_delay_ms_p50: Option<f64>,
    /// How much later than its bound 95% of the nodes had it; `None`: more than 5% never had.
    pub added_delay_ms_p95: Option<f64>,
    /// Share of nodes that had it at all.
    pub complete_share: f64,
    /// Share of nodes that had it without having asked for any of it.
    pub request_free_share: f64,
    /// Bytes that arrived at a node for a block, on average.
    pub bytes_per_node: f64,
    /// The same as a multiple of the bytes that had to cross.
    pub redundancy: f64,
}

impl Row {
    /// What `runs` of one scenario and one protocol come to; `None` without runs.
    pub fn of(runs: &[Outcome]) -> Option<Self> {
        let first = runs.first()?;
        let parts: Vec<&NodeOutcome> = runs.iter().flat_map(Outcome::parts).collect();
        let share = |of: &dyn Fn(&NodeOutcome) -> bool| {
            let found = parts.iter().filter(|part| of(part)).count();
            ratio(found as f64, parts.len() as f64)
        };
        let late = |part: &&NodeOutcome| part.added_delay_ms().unwrap_or(f64::INFINITY);
        let added: Vec<f64> = parts.iter().map(late).collect();
        let bounds: Vec<f64> = parts.iter().filter_map(|part| part.bound_ms).collect();
        let blocks = || runs.iter().flat_map(|run| &run.blocks);
        let sizes: f64 = blocks().map(|block| block.bytes as f64).sum();
        let arrived: f64 = runs.iter().map(arrived).sum();
        // Blocks that are not measured are carried all the same.
        let carried: Vec<&NodeOutcome> = runs.iter().flat_map(carried).collect();
        let crossed: f64 = carried.iter().map(|part| part.bytes_to_cross as f64).sum();
        Some(Self {
            scenario: first.scenario.clone(),
            protocol: first.protocol.clone(),
            nodes: first.nodes,
            block_bytes: ratio(sizes, blocks().count() as f64).round() as u64,
            bound_ms: percentile(&bounds, 50.0).unwrap_or(0.0),
            added_delay_ms_p50: percentile(&added, 50.0).filter(|delay| delay.is_finite()),
            added_delay_ms_p95: percentile(&added, 95.0).filter(|delay| delay.is_finite()),
            complete_share: share(&|part| part.whole_ms.is_some()),
            request_free_share: share(&|part| part.whole_ms.is_some() && part.request_free),
            bytes_per_node: ratio(arrived, carried.len() as f64),
            redundancy: ratio(arrived, crossed),
        })
    }
}

/// Whether a node counts for any block.
fn counts(run: &Outcome, node: usize) -> bool {
    let of = |block: &super::BlockOutcome| block.nodes.get(node).is_some_and(|part| part.counts);
    run.blocks.iter().any(of)
}

/// Bytes that arrived at nodes that count for any block.
fn arrived(run: &Outcome) -> f64 {
    let nodes = run.traffic.iter().enumerate();
    let nodes = nodes.filter(|(node, _)| counts(run, *node));
    nodes.map(|(_, traffic)| traffic.bytes_in as f64).sum()
}

/// What each block was to nodes that count for any, the one that handed it in apart.
fn carried(run: &Outcome) -> impl Iterator<Item = &NodeOutcome> {
    run.blocks.iter().flat_map(move |block| {
        let nodes = block.nodes.iter().enumerate();
        nodes
            .filter(move |(node, _)| *node != block.source && counts(run, *node))
            .map(|(_, part)| part)
    })
}

fn ratio(of: f64, by: f64) -> f64 {
    if by > 0.0 { of / by } else { 0.0 }
}

/// The value that `percent` of the values do not exceed (nearest rank); `None` without values. Infinite ones are
/// allowed and come last.
pub fn percentile(values: &[f64], percent: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::super::{BlockOutcome, NodeTraffic};
    use super::*;

    fn part(whole_ms: Option<f64>, request_free: bool) -> NodeOutcome {
        NodeOutcome {
            counts: true,
            whole_ms,
            bound_ms: Some(50.0),
            bytes_to_cross: 1_000,
            request_free,
            pieces: Vec::new(),
        }
    }

    fn run() -> Outcome {
        let source = NodeOutcome {
            whole_ms: Some(0.0),
            bound_ms: Some(0.0),
            ..NodeOutcome::default()
        };
        let traffic = |bytes_in| NodeTraffic {
            bytes_in,
            ..NodeTraffic::default()
        };
        Outcome {
            scenario: "s".to_owned(),
            protocol: "p".to_owned(),
            nodes: 4,
            blocks: vec![BlockOutcome {
                bytes: 5_000,
                nodes: vec![
                    source,
                    part(Some(60.0), true),
                    part(Some(54.0), false),
                    part(None, true),
                ],
                ..BlockOutcome::default()
            }],
            traffic: vec![
                traffic(9_999),
                traffic(1_000),
                traffic(2_000),
                traffic(3_000),
            ],
            ..Outcome::default()
        }
    }

    #[test]
    fn a_row_says_what_the_runs_say() {
        assert_eq!(Row::of(&[]), None);
        let row = Row::of(&[run(), run()]).expect("there are runs");
        assert_eq!((row.nodes, row.block_bytes, row.bound_ms), (4, 5_000, 50.0));
        assert_eq!(
            (row.added_delay_ms_p50, row.added_delay_ms_p95),
            (Some(10.0), None)
        );
        assert!((row.complete_share - 2.0 / 3.0).abs() < 1e-12);
        assert!((row.request_free_share - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!((row.bytes_per_node, row.redundancy), (2_000.0, 2.0));
        assert!(!run().is_complete());
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let values = [4.0, 1.0, f64::INFINITY, 3.0, 2.0];
        assert_eq!(percentile(&values, 0.0), Some(1.0));
        assert_eq!(percentile(&values, 50.0), Some(3.0));
        assert_eq!(percentile(&values, 80.0), Some(4.0));
        assert_eq!(percentile(&values, 81.0), Some(f64::INFINITY));
        assert_eq!(percentile(&[], 50.0), None);
    }
}
