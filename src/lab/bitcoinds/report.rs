//! What came of bitcoinds, both ways side by side.

use std::fmt::Write as _;

use serde::Serialize;

use super::super::report::{emulation, millis};
use super::{Run, Way};
use crate::sim::outcome::percentile;
use crate::sim::scenario::Scenario;

/// All runs of a scenario with bitcoinds.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The congestion control of TCP.
    congestion: String,
    /// Each node.
    nodes: Vec<Line>,
    /// Each run.
    runs: Vec<Run>,
    #[serde(skip)]
    name: String,
}

/// A node, over all runs: medians, from the submission at the first; `None`: half of the time never.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Line {
    node: usize,
    source: bool,
    bound_ms: Option<f64>,
    /// Acceptance where bitcoinds are joined to each other.
    bip152_ms: Option<f64>,
    /// What the simulator's model of that says of the block being whole.
    bip152_simulated_ms: Option<f64>,
    /// Acceptance where relays are joined.
    blocktorrent_ms: Option<f64>,
    /// The block whole and verified at the relay.
    blocktorrent_whole_ms: Option<f64>,
    /// What the simulator says of that.
    blocktorrent_simulated_ms: Option<f64>,
}

impl Report {
    /// One without runs.
    pub fn new(scenario: &Scenario, congestion: &str) -> Self {
        Self {
            congestion: congestion.to_owned(),
            nodes: Vec::new(),
            runs: Vec::new(),
            name: scenario.name.clone(),
        }
    }

    /// Takes a run in.
    pub fn add(&mut self, run: Run) {
        let nodes = run.accepted_ms.len();
        self.runs.push(run);
        self.nodes = (0..nodes).map(|node| self.line(node)).collect();
    }

    fn line(&self, node: usize) -> Line {
        let median = |way: Way, which: fn(&Run) -> &Vec<Option<f64>>| {
            let runs = self.runs.iter().filter(|run| run.way == way);
            let times = runs.filter_map(|run| which(run).get(node));
            let times: Vec<f64> = times.map(|at| at.unwrap_or(f64::INFINITY)).collect();
            percentile(&times, 50.0).filter(|at| at.is_finite())
        };
        Line {
            node,
            source: self.runs.iter().any(|run| run.source == node),
            bound_ms: median(Way::Bip152, |run| &run.bound_ms),
            bip152_ms: median(Way::Bip152, |run| &run.accepted_ms),
            bip152_simulated_ms: median(Way::Bip152, |run| &run.simulated_ms),
            blocktorrent_ms: median(Way::Blocktorrent, |run| &run.accepted_ms),
            blocktorrent_whole_ms: median(Way::Blocktorrent, |run| &run.whole_ms),
            blocktorrent_simulated_ms: median(Way::Blocktorrent, |run| &run.simulated_ms),
        }
    }

    /// Whether every bitcoind accepted every block, over links that were as they should be.
    pub fn is_good(&self) -> bool {
        self.runs.iter().all(|run| {
            let all = run
                .accepted_ms
                .iter()
                .chain(&run.whole_ms)
                .all(Option::is_some);
            all && run.emulation.is_true()
        })
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let Some(first) = self.runs.first() else {
            return text;
        };
        let runs = self.runs.iter().filter(|run| run.way == first.way).count();
        let congestion = &self.congestion;
        let _ = writeln!(
            text,
            "\n{} with bitcoinds: {} bytes, {} transactions, {runs} run(s), medians; TCP's congestion control: {congestion}",
            self.name, first.block_bytes, first.transactions
        );
        text.push_str(
            "milliseconds from submitblock at * to acceptance, and to the block whole at the relay or in the simulator\n\n",
        );
        let _ = writeln!(
            text,
            "{:>6} {:>9} {:>10} {:>10} {:>13} {:>10} {:>10}",
            "node", "bound", "bip152", "simulated", "blocktorrent", "whole", "simulated"
        );
        for line in &self.nodes {
            let mark = if line.source { "*" } else { "" };
            let _ = writeln!(
                text,
                "{:>6} {:>9} {:>10} {:>10} {:>13} {:>10} {:>10}",
                format!("{mark}{}", line.node),
                millis(line.bound_ms),
                millis(line.bip152_ms),
                millis(line.bip152_simulated_ms),
                millis(line.blocktorrent_ms),
                millis(line.blocktorrent_whole_ms),
                millis(line.blocktorrent_simulated_ms)
            );
        }
        text.push('\n');
        text.push_str(&emulation(self.runs.iter().map(|run| &run.emulation)));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::run::Emulation;

    fn run(way: Way, last: Option<f64>) -> Run {
        Run {
            seed: 1,
            way,
            block_bytes: 1_000,
            transactions: 3,
            source: 0,
            accepted_ms: vec![Some(10.0), last],
            whole_ms: match way {
                Way::Bip152 => Vec::new(),
                Way::Blocktorrent => vec![Some(5.0), Some(70.0)],
            },
            bound_ms: vec![Some(0.0), Some(52.0)],
            simulated_ms: vec![Some(0.0), Some(60.0)],
            emulation: Emulation::default(),
        }
    }

    #[test]
    fn both_ways_stand_side_by_side() {
        let mut report = Report::new(&Scenario::default(), "cubic");
        report.add(run(Way::Bip152, Some(200.0)));
        report.add(run(Way::Blocktorrent, Some(90.0)));
        assert!(report.is_good());
        let table = report.table();
        let last = table
            .lines()
            .find(|line| line.trim_start().starts_with("1 "));
        let words: Vec<&str> = last.expect("node 1").split_whitespace().collect();
        assert_eq!(
            words,
            ["1", "52.0", "200.0", "60.0", "90.0", "70.0", "60.0"]
        );
        assert!(table.contains("congestion control: cubic"));
        report.add(run(Way::Bip152, None));
        report.add(run(Way::Bip152, None));
        assert!(!report.is_good() && report.table().contains("never"));
    }
}
