//! The table at the end. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::paint::{Paint, grouped};
use super::report::{NodeReport, Report};
use crate::relay::Refusal;

/// Columns before the last one, whose content may take several lines.
const BEFORE_LAST: usize = 63;
/// Columns of the whole table.
const COLUMNS: usize = 80;

/// The table of a report, with a line below it that says what came out.
pub fn table(report: &Report, paint: Paint) -> String {
    let mut text = String::from("\n");
    let head = format!(
        " {:<8}{:>8}{:>10}{:>9}{:>9}{:>7}{:>8}   {}",
        "node", "first ms", "whole ms", "kB in", "kB out", "asked", "early", "chunks from"
    );
    let _ = writeln!(text, "{}", paint.bold(&head));
    for node in &report.nodes {
        text.push_str(&row(node, paint));
    }
    text.push('\n');
    let honest = report.nodes.iter().filter(|node| node.honest).count();
    let holding = report
        .nodes
        .iter()
        .filter(|node| node.honest && node.identical)
        .count();
    let last = report
        .nodes
        .iter()
        .filter(|node| node.honest)
        .filter_map(|node| node.complete_ms)
        .fold(0.0, f64::max);
    let outcome = match report.all_complete {
        true => {
            let bound = match report.bound_ms > 0.0 {
                true => format!(
                    "\nNo relay could be below {:.1} ms (hops x delay + bytes / rate).",
                    report.bound_ms
                ),
                // Without delay and rate there is none that would say anything.
                false => String::new(),
            };
            format!("All {honest} honest nodes hold the identical block after {last:.1} ms.{bound}")
        }
        false => paint.alarming(&format!(
            "Only {holding} of {honest} honest nodes hold the identical block."
        )),
    };
    let _ = writeln!(text, "{outcome}");
    let by_tcp = report.nodes.iter().filter(|node| !node.by_tcp.is_empty());
    let by_tcp: Vec<String> = by_tcp.map(|node| node.id.to_string()).collect();
    if !by_tcp.is_empty() {
        let _ = writeln!(
            text,
            "By TCP, as UDP did not get through: nodes {}.",
            by_tcp.join(", ")
        );
    }
    let legend = "early: chunks of which something was sent on before the block was whole here";
    let _ = writeln!(text, "{}", paint.faint(legend));
    text
}

fn row(node: &NodeReport, paint: Paint) -> String {
    let time = |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"));
    let kilobytes = |bytes: u64| grouped(bytes.div_ceil(1_000));
    let early = match (node.id, node.chunks) {
        (0, _) => "-".to_owned(),
        (_, chunks) => format!("{}/{chunks}", node.chunks_forwarded_before_complete),
    };
    let liar = if node.honest { "" } else { " liar" };
    let name = format!("{:<8}", format!("{}{liar}", node.id));
    let mut lines = String::new();
    let _ = write!(
        lines,
        " {}{:>8}{:>10}{:>9}{:>9}{:>7}{early:>8}   ",
        paint.node(node.id, &name),
        time(node.first_chunk_ms),
        time(node.complete_ms),
        kilobytes(node.bytes_in),
        kilobytes(node.bytes_out),
        node.requests,
    );
    lines.push_str(&folded(&words(node), paint));
    let refused = scored(&node.refused);
    if !refused.is_empty() {
        let refused = format!("       refused: {}", counts(&refused));
        let _ = writeln!(lines, "{}", paint.alarming(&refused));
    }
    lines
}

/// What stands in the last column.
fn words(node: &NodeReport) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    if node.id == 0 {
        words.push("handed over".to_owned());
    }
    words.extend(
        node.sources
            .iter()
            .map(|(peer, count)| format!("{peer}:{count}")),
    );
    if node.honest && !node.identical {
        words.push("INCOMPLETE".to_owned());
    }
    words
}

/// Words in as many lines as the last column needs, the lines ended.
fn folded(words: &[String], paint: Paint) -> String {
    let mut text = String::new();
    let mut column = BEFORE_LAST;
    for (place, word) in words.iter().enumerate() {
        let width = word.chars().count();
        if place > 0 && column + 1 + width > COLUMNS {
            let _ = write!(text, "\n{}", " ".repeat(BEFORE_LAST));
            column = BEFORE_LAST;
        } else if place > 0 {
            text.push(' ');
            column += 1;
        }
        column += width;
        let peer = word.split_once(':').and_then(|(peer, _)| peer.parse().ok());
        match peer {
            Some(peer) => text.push_str(&paint.node(peer, word)),
            None => text.push_str(word),
        }
    }
    text.push('\n');
    text
}

/// What was refused because its sender could have known better. Other things are ordinary, such as a datagram that crossed
/// the end of its session.
fn scored(refused: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let costs = |reason: &str| {
        let mut all = Refusal::ALL.iter();
        all.any(|refusal| refusal.name() == reason && refusal.cost() > 0)
    };
    let scored = refused.iter().filter(|(reason, _)| costs(reason));
    scored
        .map(|(reason, count)| (reason.clone(), *count))
        .collect()
}

fn counts(counts: &BTreeMap<String, u64>) -> String {
    let counts: Vec<String> = counts
        .iter()
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    counts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::report::BlockReport;
    use super::*;

    #[test]
    fn the_table_fits_eighty_columns() {
        let node = |id: usize| NodeReport {
            id,
            honest: id != 3,
            identical: id != 2,
            first_chunk_ms: Some(99_999.9),
            complete_ms: (id != 2).then_some(99_999.9),
            bytes_in: 12_345_678,
            bytes_out: 12_345_678,
            requests: 12_345,
            chunks: 131,
            chunks_forwarded_before_complete: 131,
            sources: (0..9).map(|peer| (peer.to_string(), 15)).collect(),
            refused: ["leaf", "connection-id"]
                .map(|reason| (reason.to_owned(), 5))
                .into(),
            by_tcp: (0..id % 2).collect(),
            ..NodeReport::default()
        };
        let mut report = Report {
            block: BlockReport {
                hash: String::new(),
                bytes: 0,
                transactions: 0,
            },
            bound_ms: 1.0,
            all_complete: false,
            nodes: (0..5).map(node).collect(),
        };
        let text = table(&report, Paint { colours: false });
        assert!(
            text.lines().all(|line| line.chars().count() <= COLUMNS),
            "{text}"
        );
        assert!(text.contains("Only 3 of 4 honest nodes") && text.contains("INCOMPLETE"));
        assert!(text.contains("refused: leaf 5\n") && text.contains("\n 3 liar "));
        assert!(text.contains("UDP did not get through: nodes 1, 3.\n"));
        assert!(!text.contains("No relay could be"));
        report.all_complete = true;
        let text = table(&report, Paint { colours: false });
        assert!(text.contains("No relay could be below 1.0 ms"), "{text}");
        report.bound_ms = 0.0;
        let text = table(&report, Paint { colours: false });
        assert!(!text.contains("No relay could be"), "{text}");
    }
}
