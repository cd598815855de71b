//! Pictures of a run, as SVG: the share of nodes that are whole over time, and the pieces of one node by who gave them.

mod canvas;

use self::canvas::{Canvas, Frame, HEIGHT, WIDTH};
use super::outcome::{BlockOutcome, NodeOutcome, Outcome, PieceSource};

/// Colours that people with any colour vision tell apart (Okabe and Ito).
const COLOURS: &[&str] = &[
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000",
];
/// Sources that have a colour of their own; the others share one.
const NAMED_SOURCES: usize = 8;

/// One curve of [`shares`]: what it is called, and when each node was whole, in ms; `None`: never.
pub type Curve = (String, Vec<Option<f64>>);

/// The share of nodes that are whole over time, a curve for each protocol or seed, with the bound of the last node.
pub fn shares(title: &str, curves: &[Curve], bound_ms: Option<f64>) -> String {
    let times = curves.iter().flat_map(|(_, times)| times.iter().flatten());
    let last = times.copied().chain(bound_ms).fold(1.0, f64::max);
    let frame = Frame::new(last * 1.05, 100.0);
    let mut canvas = Canvas::new(title, WIDTH, HEIGHT);
    canvas.axes(
        &frame,
        "ms since the block was handed in",
        "% of nodes that have it whole",
    );
    if let Some(bound) = bound_ms {
        canvas.mark(
            &frame,
            bound,
            &format!("bound of the last node: {bound:.0} ms"),
        );
    }
    for (index, (name, times)) in curves.iter().enumerate() {
        let colour = colour(index);
        let mut whole: Vec<f64> = times.iter().flatten().copied().collect();
        whole.sort_by(f64::total_cmp);
        let mut points = vec![(0.0, 0.0)];
        let mut before = 0.0;
        for (count, at) in (1..).zip(&whole) {
            let share = 100.0 * f64::from(count) / times.len() as f64;
            points.extend([(*at, before), (*at, share)]);
            before = share;
        }
        points.push((last * 1.05, before));
        canvas.line(&frame, &points, colour);
        canvas.legend(index, colour, name);
    }
    canvas.finish()
}

/// The curve of a block in a run.
pub fn curve(name: &str, block: &BlockOutcome) -> Curve {
    let nodes = block.nodes.iter().filter(|part| part.counts);
    (name.to_owned(), nodes.map(|part| part.whole_ms).collect())
}

/// When each piece of a block was whole at one node, coloured by who completed it.
pub fn waterfall(title: &str, part: &NodeOutcome) -> String {
    let last_piece = part
        .pieces
        .iter()
        .map(|piece| piece.at_ms)
        .fold(1.0, f64::max);
    let last = part.whole_ms.unwrap_or(last_piece).max(last_piece);
    let pieces = part
        .pieces
        .iter()
        .map(|piece| piece.index + 1)
        .max()
        .unwrap_or(1);
    let frame = Frame::new(last * 1.05, f64::from(pieces));
    let mut canvas = Canvas::new(title, WIDTH, HEIGHT);
    canvas.axes(
        &frame,
        "ms since the block was handed in",
        "piece of the block",
    );
    for (at, text) in [(part.bound_ms, "bound"), (part.whole_ms, "whole")] {
        if let Some(at) = at.filter(|at| *at <= last * 1.05) {
            canvas.mark(&frame, at, &format!("{text}: {at:.0} ms"));
        }
    }
    let sources = sources(part);
    for piece in &part.pieces {
        let index = sources.iter().position(|(source, _)| *source == piece.from);
        let index = index.unwrap_or(0).min(NAMED_SOURCES);
        canvas.bar(&frame, piece.at_ms, f64::from(piece.index), colour(index));
    }
    for (index, (source, count)) in sources.iter().take(NAMED_SOURCES).enumerate() {
        canvas.legend(
            index,
            colour(index),
            &format!("{}: {count}", named(*source)),
        );
    }
    let others: usize = sources
        .iter()
        .skip(NAMED_SOURCES)
        .map(|(_, count)| count)
        .sum();
    if others > 0 {
        canvas.legend(
            NAMED_SOURCES,
            colour(NAMED_SOURCES),
            &format!("others: {others}"),
        );
    }
    canvas.finish()
}

/// The node whose waterfall says most: the last that was whole, of those that count.
pub fn last_node(outcome: &Outcome) -> Option<usize> {
    let block = outcome.blocks.first()?;
    let parts = block
        .nodes
        .iter()
        .enumerate()
        .filter(|(_, part)| part.counts);
    let timed = parts.filter_map(|(node, part)| Some((part.whole_ms?, node)));
    timed
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, node)| node)
}

/// Who completed how many pieces, the most first.
fn sources(part: &NodeOutcome) -> Vec<(PieceSource, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    for piece in &part.pieces {
        *counts.entry(piece.from).or_insert(0) += 1;
    }
    let mut sources: Vec<(PieceSource, usize)> = counts.into_iter().collect();
    sources.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    sources
}

fn named(source: PieceSource) -> String {
    match source {
        PieceSource::Own => "its own block".to_owned(),
        PieceSource::Mempool => "mempool".to_owned(),
        PieceSource::Node(node) => format!("node {node}"),
        PieceSource::Gone => "a node that left".to_owned(),
    }
}

fn colour(index: usize) -> &'static str {
    COLOURS
        .get(index % COLOURS.len())
        .copied()
        .unwrap_or("#000000")
}

#[cfg(test)]
mod tests {
    use super::super::outcome::Piece;
    use super::*;

    #[test]
    fn curves_and_waterfalls_are_drawn_whole() {
        let times = vec![Some(10.0), Some(30.0), None, Some(20.0)];
        let svg = shares("a < b & c", &[("one".to_owned(), times)], Some(9.0));
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a &lt; b &amp; c") && svg.contains("bound of the last node: 9 ms"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        let piece = |index, from| Piece {
            at_ms: f64::from(index) * 3.0,
            index,
            from,
        };
        let part = NodeOutcome {
            whole_ms: Some(40.0),
            bound_ms: Some(20.0),
            pieces: (0..12)
                .map(|index| piece(index, PieceSource::Node(index as usize % 10)))
                .collect(),
            ..NodeOutcome::default()
        };
        let svg = waterfall("w", &part);
        assert_eq!(svg.matches("class=\"piece\"").count(), 12);
        assert!(svg.contains("node 0: 2") && svg.contains("others: 2"));
        assert!(waterfall("nothing", &NodeOutcome::default()).contains("</svg>"));
    }
}
