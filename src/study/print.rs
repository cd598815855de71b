//! Results for people and for spreadsheets.

use std::fmt::Write as _;

use crate::sim::outcome::{Outcome, Row, percentile};
use crate::sim::protocol::Protocol;
use crate::sim::scenario::Scenario;

/// The columns of [`compare_csv`], as the JSON has them.
const COLUMNS: &str = "scenario,protocol,nodes,block_bytes,bound_ms,added_delay_ms_p50,added_delay_ms_p95,\
                       complete_share,request_free_share,bytes_per_node,redundancy";
/// Runs that a table lists one by one; the others are in the sums, and in JSON and CSV.
const LISTED_RUNS: usize = 10;

/// The standard scenarios and the protocols.
pub fn list(scenarios: &[Scenario], protocols: &[&dyn Protocol]) -> String {
    let mut text = String::from("scenarios\n");
    for scenario in scenarios {
        let _ = writeln!(text, "  {:<22} {}", scenario.name, scenario.about);
    }
    text.push_str("\nprotocols\n");
    for protocol in protocols {
        let _ = writeln!(text, "  {:<22} {}", protocol.name(), protocol.about());
    }
    text
}

/// Scenarios and protocols side by side.
pub fn compare_table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<22} {:<16} {:>6} {:>9} {:>9} {:>10} {:>10} {:>8} {:>9} {:>7} {:>10} {:>8}\n",
        "scenario",
        "protocol",
        "nodes",
        "kB",
        "bound ms",
        "added p50",
        "added p95",
        "x bound",
        "complete",
        "no ask",
        "bytes",
        "x needed"
    );
    let mut before = "";
    for row in rows {
        if !before.is_empty() && before != row.scenario {
            text.push('\n');
        }
        before = &row.scenario;
        let _ = writeln!(
            text,
            "{:<22} {:<16} {:>6} {:>9.0} {:>9.1} {:>10} {:>10} {:>8} {:>9} {:>7} {:>10.0} {:>8.2}",
            row.scenario,
            row.protocol,
            row.nodes,
            row.block_bytes as f64 / 1_000.0,
            row.bound_ms,
            millis(row.added_delay_ms_p50),
            millis(row.added_delay_ms_p95),
            times(row),
            percent(row.complete_share),
            percent(row.request_free_share),
            row.bytes_per_node,
            row.redundancy
        );
    }
    text
}

/// The same for spreadsheets.
pub fn compare_csv(rows: &[Row]) -> String {
    let mut text = format!("{COLUMNS}\n");
    let cell = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
    for row in rows {
        let _ = writeln!(
            text,
            "{},{},{},{},{},{},{},{},{},{},{}",
            row.scenario,
            row.protocol,
            row.nodes,
            row.block_bytes,
            row.bound_ms,
            cell(row.added_delay_ms_p50),
            cell(row.added_delay_ms_p95),
            row.complete_share,
            row.request_free_share,
            row.bytes_per_node,
            row.redundancy
        );
    }
    text
}

/// What came of a scenario: how it was, unless only that is to be said which came of it; all runs together, and the first
/// of them one by one.
pub fn run_table(scenario: &Scenario, row: &Row, runs: &[Outcome], briefly: bool) -> String {
    let mut text = String::new();
    if !briefly {
        let _ = writeln!(text, "{}: {}\n", scenario.name, scenario.about);
        for line in scenario.changes_to_toml().lines() {
            let _ = writeln!(text, "  {line}");
        }
        text.push_str(
            "\n  # All else has its default; `blocktorrent sim show` prints every key.\n\n",
        );
    }
    let _ = writeln!(text, "{}", compare_table(std::slice::from_ref(row)));
    let _ = writeln!(
        text,
        "{:>20} {:>12} {:>12} {:>12} {:>12} {:>12}  trace",
        "seed", "half ms", "last ms", "whole", "happenings", "violations"
    );
    for run in runs.iter().take(LISTED_RUNS) {
        let times: Vec<f64> = run
            .parts()
            .map(|part| part.whole_ms.unwrap_or(f64::INFINITY))
            .collect();
        let at = |percent| percentile(&times, percent).filter(|at: &f64| at.is_finite());
        let whole = times.iter().filter(|at| at.is_finite()).count();
        let _ = writeln!(
            text,
            "{:>20} {:>12} {:>12} {:>12} {:>12} {:>12}  {:016x}",
            run.seed,
            millis(at(50.0)),
            millis(at(100.0)),
            format!("{whole} of {}", times.len()),
            run.happenings,
            run.violations.len(),
            run.trace_hash
        );
    }
    if runs.len() > LISTED_RUNS {
        let _ = writeln!(text, "{:>20} {} more", "and", runs.len() - LISTED_RUNS);
    }
    if row.complete_share == 0.0 {
        let _ = writeln!(text, "\nNothing arrived: {}.", obstacle(scenario));
    }
    for run in runs {
        for violation in &run.violations {
            let _ = writeln!(text, "seed {}: {violation}", run.seed);
        }
    }
    text
}

/// Why a block may have come to nobody.
fn obstacle(scenario: &Scenario) -> String {
    let link = &scenario.link;
    if link.loss >= 1.0 {
        return "link.loss is 1, so that no datagram passes, nor anything of TCP".to_owned();
    }
    if link.back.loss.is_some_and(|loss| loss >= 1.0) {
        return "link.back.loss is 1, so that nothing comes back and no connection is made"
            .to_owned();
    }
    let seconds = scenario.limit.seconds;
    match scenario.event.is_empty() {
        true => format!("limit.seconds, which is {seconds}, was over before"),
        false => format!(
            "what happens on the way ([[event]]) left no way, or limit.seconds, which is {seconds}, was over before"
        ),
    }
}

/// Every node of every run.
pub fn run_csv(runs: &[Outcome]) -> String {
    let mut text = String::from(
        "scenario,protocol,seed,block,node,counts,whole_ms,bound_ms,bytes_to_cross,request_free,bytes_in,bytes_out,requests\n",
    );
    let cell = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
    for run in runs {
        for (number, block) in run.blocks.iter().enumerate() {
            for (node, part) in block.nodes.iter().enumerate() {
                let traffic = run.traffic.get(node).copied().unwrap_or_default();
                let _ = writeln!(
                    text,
                    "{},{},{},{number},{node},{},{},{},{},{},{},{},{}",
                    run.scenario,
                    run.protocol,
                    run.seed,
                    part.counts,
                    cell(part.whole_ms),
                    cell(part.bound_ms),
                    part.bytes_to_cross,
                    part.request_free,
                    traffic.bytes_in,
                    traffic.bytes_out,
                    traffic.requests
                );
            }
        }
    }
    text
}

fn millis(value: Option<f64>) -> String {
    value.map_or_else(|| "never".to_owned(), |value| format!("{value:.1}"))
}

/// How much longer than at best half of the nodes waited.
fn times(row: &Row) -> String {
    match row.added_delay_ms_p50 {
        Some(added) if row.bound_ms > 0.0 => format!("{:.2}", 1.0 + added / row.bound_ms),
        _ => "-".to_owned(),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::protocol;

    fn row() -> Row {
        Row {
            scenario: "wild".to_owned(),
            protocol: "blocktorrent".to_owned(),
            nodes: 2,
            block_bytes: 1_060_000,
            bound_ms: 52.5,
            added_delay_ms_p50: Some(2.25),
            added_delay_ms_p95: None,
            complete_share: 0.9,
            request_free_share: 0.5,
            bytes_per_node: 20_000.0,
            redundancy: 1.25,
        }
    }

    #[test]
    fn tables_line_up_and_columns_are_those_of_the_json() {
        let table = compare_table(&[row(), row()]);
        let widths: Vec<usize> = table.lines().map(str::len).collect();
        assert_eq!(widths[0], widths[1]);
        assert!(table.contains("never") && table.contains("90.0%"));
        assert!(table.contains(" 1.04 "), "{table}");
        let csv = compare_csv(&[row()]);
        let serde_json::Value::Object(json) = serde_json::json!(row()) else {
            panic!("a row is an object");
        };
        let header: std::collections::BTreeSet<&str> = COLUMNS.split(',').collect();
        let keys: std::collections::BTreeSet<&str> = json.keys().map(String::as_str).collect();
        assert_eq!(header, keys);
        assert_eq!(
            csv.lines().nth(1).map(|line| line.split(',').count()),
            Some(11)
        );
        assert!(csv.contains(",2.25,,0.9,"));
    }

    #[test]
    fn a_run_says_what_is_not_as_usual_and_why_nothing_came() {
        let dead = "name = 'dead'\n[link]\nloss = 1.0";
        let dead = Scenario::from_toml("dead", dead).expect("it makes sense");
        let none = Row {
            complete_share: 0.0,
            ..row()
        };
        let text = run_table(&dead, &none, &[], false);
        assert!(
            text.contains("  loss = 1.0\n") && !text.contains("burst"),
            "{text}"
        );
        assert!(text.contains("Nothing arrived: link.loss is 1"), "{text}");
        let text = run_table(&dead, &row(), &[], true);
        assert!(
            text.starts_with("scenario ") && !text.contains("Nothing"),
            "{text}"
        );
    }

    #[test]
    fn the_list_names_all() {
        let list = list(&crate::sim::standard::all(), protocol::ALL);
        assert!(list.contains("swarm-1000-cold") && list.contains("blocktorrent"));
    }
}
