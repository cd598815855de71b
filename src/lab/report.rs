//! What came of the lab, beside what the simulator says: for people, and as JSON.

use std::fmt::Write as _;

use anyhow::Context as _;
use serde::Serialize;

use super::flow::Beside;
use super::run::Emulation;
use crate::sim::outcome::{Outcome, Row, percentile};
use crate::sim::scenario::Scenario;

/// Where one in a hundred packets is given later than this, in milliseconds, the machine is measured, not the protocol: a
/// hop of the reference link adds less than twice that.
const BUSY_MS: f64 = 2.0;

/// One seed, in both worlds.
#[derive(Clone, Debug, Serialize)]
pub struct Pair {
    /// The seed.
    pub seed: u64,
    /// Nodes that lied.
    pub liars: Vec<usize>,
    /// What the simulator says.
    pub simulated: Outcome,
    /// What the processes did.
    pub measured: Outcome,
    /// How true the links were.
    pub emulation: Emulation,
    /// What a TCP connection carried beside the processes, if there was one.
    pub beside: Option<Beside>,
}

/// A node, over all runs and blocks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Line {
    /// Its number.
    pub node: usize,
    /// Whether blocks are submitted there.
    pub source: bool,
    /// Share of the runs in which it lied.
    pub lied: f64,
    /// How soon it could have had a block at best: the median.
    pub bound_ms: Option<f64>,
    /// When it had one in the simulator, from the submission: the median; `None`: half of the time never.
    pub simulated_ms: Option<f64>,
    /// The same of the process.
    pub measured_ms: Option<f64>,
    /// The second less the first.
    pub differs_ms: Option<f64>,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The scenario.
    pub options: Scenario,
    /// The congestion control of TCP.
    pub congestion: String,
    /// All runs of the simulator as one row.
    pub simulated: Row,
    /// All runs of the processes as one row.
    pub measured: Row,
    /// Each node.
    pub nodes: Vec<Line>,
    /// Each run.
    pub runs: Vec<Pair>,
}

impl Report {
    /// What runs come to.
    ///
    /// # Errors
    ///
    /// There are none.
    pub fn new(options: &Scenario, congestion: &str, runs: Vec<Pair>) -> anyhow::Result<Self> {
        let of = |which: fn(&Pair) -> &Outcome| {
            let outcomes: Vec<Outcome> = runs.iter().map(|run| which(run).clone()).collect();
            Row::of(&outcomes).context("there was no run")
        };
        Ok(Self {
            options: options.clone(),
            congestion: congestion.to_owned(),
            simulated: of(|run| &run.simulated)?,
            measured: of(|run| &run.measured)?,
            nodes: (0..options.topology.nodes)
                .map(|node| line(&runs, node))
                .collect(),
            runs,
        })
    }

    /// Whether every node that should have every block has it, in both, over links that were as they should be.
    pub fn is_good(&self) -> bool {
        self.runs.iter().all(|run| {
            run.simulated.is_complete()
                && run.simulated.violations.is_empty()
                && run.measured.is_complete()
                && run.emulation.is_true()
        })
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!("{}: {}\n", self.options.name, self.options.about);
        let runs = self.runs.len();
        let seeds = match runs {
            1 => "one run".to_owned(),
            count => format!("{count} runs, medians"),
        };
        let _ = writeln!(
            text,
            "{seeds}, seed {}, {}; milliseconds from the submission\n",
            self.options.seed, self.congestion
        );
        let _ = writeln!(
            text,
            "{:>6} {:>10} {:>10} {:>10} {:>10}",
            "node", "bound", "simulated", "measured", "differs"
        );
        for line in &self.nodes {
            let mark = if line.source { "*" } else { "" };
            let differs = line
                .differs_ms
                .map_or_else(|| "-".to_owned(), |by| format!("{by:+.1}"));
            let lied = match line.lied {
                0.0 => String::new(),
                1.0 => "  liar".to_owned(),
                share => format!("  liar in {:.0}%", share * 100.0),
            };
            let _ = writeln!(
                text,
                "{:>6} {:>10} {:>10} {:>10} {differs:>10}{lied}",
                format!("{mark}{}", line.node),
                millis(line.bound_ms),
                millis(line.simulated_ms),
                millis(line.measured_ms),
            );
        }
        let row = |name: &str, row: &Row| {
            format!(
                "{name:<10} added p50 {:>8}, p95 {:>8}, complete {:>5.1}%, no ask {:>5.1}%, {:>9.0} bytes a node\n",
                millis(row.added_delay_ms_p50),
                millis(row.added_delay_ms_p95),
                row.complete_share * 100.0,
                row.request_free_share * 100.0,
                row.bytes_per_node,
            )
        };
        text.push('\n');
        text.push_str(&row("simulated", &self.simulated));
        text.push_str(&row("measured", &self.measured));
        text.push_str(&emulation(self.runs.iter().map(|run| &run.emulation)));
        text.push_str(&self.beside());
        text
    }

    /// What TCP carried beside the relay: the medians, in a line.
    fn beside(&self) -> String {
        let all: Vec<Beside> = self.runs.iter().filter_map(|run| run.beside).collect();
        let Some(Beside { from, to, .. }) = all.first() else {
            return String::new();
        };
        let median = |value: fn(&Beside) -> f64| {
            let values: Vec<f64> = all.iter().map(value).collect();
            percentile(&values, 50.0).unwrap_or(0.0)
        };
        let alone = median(|tcp| tcp.alone_mbit);
        let beside = median(|tcp| tcp.beside_mbit);
        format!(
            "TCP {from}-{to}    {alone:.1} Mbit/s alone; {beside:.1} beside the relay ({:.0}%), for {:.1} s\n",
            100.0 * beside / alone.max(1e-6),
            median(|tcp| tcp.seconds),
        )
    }
}

/// How true the links of all runs were, in a line or two.
pub fn emulation<'a>(runs: impl Iterator<Item = &'a Emulation> + Clone) -> String {
    let of = |value: fn(&Emulation) -> f64| -> Vec<f64> { runs.clone().map(value).collect() };
    let most = |value| percentile(&of(value), 100.0).unwrap_or(0.0);
    let sum = |value| of(value).iter().sum::<f64>();
    let mut text = format!(
        "links      {:.0} packets given; late p50 {:.3}, p99 {:.3}, at most {:.3} ms; {:.0} lost and {:.0} overflowed as the scenario says\n",
        sum(|run| run.packets.given as f64),
        percentile(&of(|run| run.late.p50_ms), 50.0).unwrap_or(0.0),
        most(|run| run.late.p99_ms),
        most(|run| run.late.most_ms),
        sum(|run| run.packets.lost as f64),
        sum(|run| run.packets.overflowed as f64),
    );
    let others = [
        (
            sum(|run| run.packets.closed as f64),
            "came to a link that was closed",
        ),
        (
            sum(|run| run.packets.too_long as f64),
            "were too long for theirs",
        ),
    ];
    for (count, what) in others.into_iter().filter(|(count, _)| *count > 0.0) {
        let _ = writeln!(
            text,
            "           {count:.0} packets {what}, as the scenario says"
        );
    }
    if most(|run| run.late.p99_ms) > BUSY_MS {
        let _ = writeln!(
            text,
            "BUSY       the processors had so much else to do that packets were given late: these times mean little"
        );
    }
    let faults = sum(|run| (run.packets.no_room + run.dropped_by_kernel) as f64);
    if faults > 0.0 {
        let _ = writeln!(
            text,
            "NOT TRUE   {faults:.0} packets were dropped that the scenario would not have dropped: this machine is too slow for it"
        );
    }
    text
}

fn line(runs: &[Pair], node: usize) -> Line {
    let parts = |which: fn(&Pair) -> &Outcome| {
        let blocks = runs.iter().flat_map(move |run| &which(run).blocks);
        blocks.filter_map(move |block| block.nodes.get(node))
    };
    let median = |which: fn(&Pair) -> &Outcome| {
        let times: Vec<f64> = parts(which)
            .map(|part| part.whole_ms.unwrap_or(f64::INFINITY))
            .collect();
        percentile(&times, 50.0).filter(|at| at.is_finite())
    };
    let bounds: Vec<f64> = parts(|run| &run.measured)
        .filter_map(|part| part.bound_ms)
        .collect();
    let simulated_ms = median(|run| &run.simulated);
    let measured_ms = median(|run| &run.measured);
    let source = |run: &Pair| run.measured.blocks.iter().any(|block| block.source == node);
    Line {
        node,
        source: runs.iter().any(source),
        lied: runs.iter().filter(|run| run.liars.contains(&node)).count() as f64
            / runs.len().max(1) as f64,
        bound_ms: percentile(&bounds, 50.0),
        simulated_ms,
        measured_ms,
        differs_ms: simulated_ms
            .zip(measured_ms)
            .map(|(simulated, measured)| measured - simulated),
    }
}

/// Milliseconds, or that it never came to it.
pub fn millis(value: Option<f64>) -> String {
    value.map_or_else(|| "never".to_owned(), |value| format!("{value:.1}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::outcome::{BlockOutcome, NodeOutcome, NodeTraffic};

    fn outcome(times: [Option<f64>; 2]) -> Outcome {
        let part = |whole_ms| NodeOutcome {
            counts: true,
            whole_ms,
            bound_ms: Some(50.0),
            bytes_to_cross: 1,
            ..NodeOutcome::default()
        };
        Outcome {
            nodes: 2,
            blocks: vec![BlockOutcome {
                nodes: times.map(part).to_vec(),
                ..BlockOutcome::default()
            }],
            traffic: vec![NodeTraffic::default(); 2],
            ..Outcome::default()
        }
    }

    fn report(measured: Option<f64>, dropped_by_kernel: u64) -> Report {
        let pair = Pair {
            seed: 1,
            liars: vec![1],
            simulated: outcome([Some(0.0), Some(60.0)]),
            measured: outcome([Some(5.0), measured]),
            emulation: Emulation {
                dropped_by_kernel,
                ..Emulation::default()
            },
            beside: Some(Beside {
                from: 1,
                to: 0,
                alone_mbit: 40.0,
                beside_mbit: 10.0,
                seconds: 2.0,
            }),
        };
        Report::new(&Scenario::default(), "bbr", vec![pair]).expect("a run")
    }

    #[test]
    fn both_worlds_stand_side_by_side() {
        let good = report(Some(72.5), 0);
        assert!(good.is_good());
        assert_eq!(good.nodes[1].differs_ms, Some(12.5));
        let table = good.table();
        assert!(
            table.contains("    *0       50.0        0.0        5.0       +5.0"),
            "{table}"
        );
        assert!(
            table.contains("     1       50.0       60.0       72.5      +12.5  liar\n"),
            "{table}"
        );
        assert!(
            table.ends_with(
                "TCP 1-0    40.0 Mbit/s alone; 10.0 beside the relay (25%), for 2.0 s\n"
            ),
            "{table}"
        );
        assert!(!table.contains("NOT TRUE") && !table.contains("BUSY"));
        assert!(!table.contains("too long"));
        let mut late = Emulation::default();
        late.late.p99_ms = 2.5;
        late.packets.too_long = 3;
        let text = emulation([late].iter());
        assert!(
            text.contains("BUSY") && text.contains(" 3 packets were too long for theirs"),
            "{text}"
        );
    }

    #[test]
    fn what_is_not_complete_or_not_true_is_not_good() {
        let never = report(None, 0);
        assert!(!never.is_good() && never.table().contains("never"));
        let untrue = report(Some(72.5), 3);
        assert!(!untrue.is_good() && untrue.table().contains("NOT TRUE   3 packets"));
    }
}
