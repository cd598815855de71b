//! What the standard scenarios come to, as a file: a change in behaviour shows as a diff.
//!
//! `BLOCKTORRENT_UPDATE=1 cargo test --test engine standard` writes the file anew; then read the diff.

use std::fmt::Write as _;
use std::path::Path;

use blocktorrent::sim::outcome::Row;
use blocktorrent::sim::protocol::{Blocktorrent, Protocol as _};
use blocktorrent::sim::{Outcome, Trial, standard};

/// Nodes up to which a scenario is run here.
const MOST_NODES: usize = 9;
/// Runs of each: the first seeds stand for the others.
const RUNS: u32 = 3;

fn rows() -> String {
    let mut text = String::from(
        "# scenario: bound, added delay of half and of 95%, in ms; whole; without asking; bytes to a node; times what was needed\n",
    );
    let scenarios = standard::all().into_iter();
    for scenario in scenarios.filter(|scenario| scenario.topology.nodes <= MOST_NODES) {
        let runs = scenario.runs.min(RUNS);
        let outcomes: Vec<Outcome> = (0..u64::from(runs))
            .map(|run| {
                let trial = Trial::new(&scenario, scenario.seed + run, None).expect("a trial");
                Blocktorrent.run(&trial, &mut |_| {})
            })
            .collect();
        for outcome in &outcomes {
            assert_eq!(
                outcome.violations,
                Vec::<String>::new(),
                "{}, seed {}",
                scenario.name,
                outcome.seed
            );
            assert!(
                outcome.is_complete(),
                "{}, seed {}",
                scenario.name,
                outcome.seed
            );
        }
        let row = Row::of(&outcomes).expect("there are runs");
        let shown =
            |delay: Option<f64>| delay.map_or("never".to_owned(), |delay| format!("{delay:.1}"));
        let _ = writeln!(
            text,
            "{}: {:.1}, {} and {}; {:.2}; {:.2}; {:.0}; {:.2}",
            row.scenario,
            row.bound_ms,
            shown(row.added_delay_ms_p50),
            shown(row.added_delay_ms_p95),
            row.complete_share,
            row.request_free_share,
            row.bytes_per_node,
            row.redundancy
        );
    }
    text
}

#[test]
fn standard_scenarios_come_to_what_they_did() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engine/standard.txt");
    let rows = rows();
    if std::env::var_os("BLOCKTORRENT_UPDATE").is_some() {
        std::fs::write(&path, &rows).expect("the file can be written");
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    let mut differ = Vec::new();
    for line in rows
        .lines()
        .filter(|line| !stored.lines().any(|known| known == *line))
    {
        differ.push(format!("+ {line}"));
    }
    for line in stored
        .lines()
        .filter(|line| !rows.lines().any(|known| known == *line))
    {
        differ.push(format!("- {line}"));
    }
    assert!(
        differ.is_empty(),
        "standard scenarios come to something else; if that is meant, BLOCKTORRENT_UPDATE=1 writes it down:\n{}",
        differ.join("\n")
    );
}
