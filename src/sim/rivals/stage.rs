//! What every rival's run has in common: the trial, its network, its time, and what is noted.

use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::super::outcome::{BlockOutcome, NodeOutcome, NodeTraffic, Outcome, Piece, PieceSource};
use super::super::protocol::Progress;
use super::super::trial::{PlannedBlock, Trial};
use super::network::Network;
use crate::time::Time;

/// When a run's time begins: far from the edges of [`Time`].
pub(super) const BEGIN: Time = Time::from_unix_seconds(1_700_000_000);
/// Happenings between two reports of progress.
const WATCH_EVERY: u64 = 50_000;

/// What became of a block at a node.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    whole: Option<(Time, Option<usize>)>,
    requests: u64,
}

/// The common part of a run.
pub(super) struct Stage<'t> {
    pub trial: &'t Trial,
    pub now: Time,
    pub random: StdRng,
    pub network: Network,
    /// When the first block is handed in; nothing before it is noted.
    pub start: Time,
    pub happened: u64,
    traffic: Vec<NodeTraffic>,
    marks: Vec<Vec<Mark>>,
    counts: Vec<Vec<bool>>,
    wanted: usize,
    whole: usize,
}

impl<'t> Stage<'t> {
    /// `salt` keeps the draws of protocols apart.
    pub(super) fn new(trial: &'t Trial, salt: u64) -> Self {
        let counts = trial.counting_each();
        Self {
            now: BEGIN,
            random: StdRng::seed_from_u64(trial.seed ^ salt),
            network: Network::new(trial),
            start: BEGIN,
            happened: 0,
            traffic: vec![NodeTraffic::default(); trial.plan.nodes],
            marks: vec![vec![Mark::default(); trial.plan.nodes]; trial.blocks.len()],
            wanted: counts.iter().flatten().filter(|counts| **counts).count(),
            whole: 0,
            counts,
            trial,
        }
    }

    /// Whether anything is noted already.
    fn is_on(&self) -> bool {
        self.now >= self.start
    }

    /// Payload was sent.
    pub(super) fn note_sent(&mut self, node: usize, bytes: u64) {
        let is_on = self.is_on();
        if let Some(traffic) = self.traffic.get_mut(node).filter(|_| is_on) {
            traffic.bytes_out += bytes;
            traffic.packets_out += 1;
        }
    }

    /// Payload has come.
    pub(super) fn note_arrived(&mut self, node: usize, bytes: u64) {
        let is_on = self.is_on();
        if let Some(traffic) = self.traffic.get_mut(node).filter(|_| is_on) {
            traffic.bytes_in += bytes;
            traffic.packets_in += 1;
        }
    }

    /// A node asks for some of a block.
    pub(super) fn note_request(&mut self, block: usize, node: usize) {
        if let Some(mark) = self.mark(block, node) {
            mark.requests += u64::from(mark.whole.is_none());
        }
        let is_on = self.is_on();
        if let Some(traffic) = self.traffic.get_mut(node).filter(|_| is_on) {
            traffic.requests += 1;
        }
    }

    /// A node has a block whole now, from that other one.
    pub(super) fn note_whole(&mut self, block: usize, node: usize, from: Option<usize>) {
        let now = self.now;
        let counts = self.counts.get(block).and_then(|list| list.get(node));
        let counts = counts.copied().unwrap_or(false);
        if let Some(mark) = self.mark(block, node).filter(|mark| mark.whole.is_none()) {
            mark.whole = Some((now, from));
            self.whole += usize::from(counts);
        }
    }

    fn mark(&mut self, block: usize, node: usize) -> Option<&mut Mark> {
        self.marks.get_mut(block)?.get_mut(node)
    }

    /// Whether every node that counts has every block.
    pub(super) fn is_complete(&self) -> bool {
        self.whole >= self.wanted
    }

    /// When a run is given up.
    pub(super) fn end(&self) -> Time {
        let last = self.trial.blocks.iter().map(|block| block.at).max();
        let limit = Duration::from_secs_f64(self.trial.scenario.limit.seconds);
        self.start + last.unwrap_or_default() + limit
    }

    /// Counts a happening, and tells of progress every now and then.
    pub(super) fn happen(&mut self, watch: &mut dyn FnMut(&Progress)) {
        self.happened += 1;
        if self.happened.is_multiple_of(WATCH_EVERY) {
            watch(&Progress {
                elapsed: self.now - self.start,
                happenings: self.happened,
                whole: self.whole,
                wanted: self.wanted,
            });
        }
    }

    /// What came of it. `ended` is when the last block was whole, or the run was given up.
    pub(super) fn outcome(&self, protocol: &str, ended: Time) -> Outcome {
        let trial = self.trial;
        let blocks = trial.blocks.iter().enumerate();
        let millis = |duration: Duration| duration.as_secs_f64() * 1_000.0;
        let bounds_of = |(number, block): (usize, &PlannedBlock)| {
            let marks = self
                .marks
                .get(number)
                .map(Vec::as_slice)
                .unwrap_or_default();
            let whole = marks.iter().map(|mark| mark.whole);
            let whole: Vec<Option<f64>> = whole
                .map(|whole| whole.map(|(at, _)| millis(at - self.start)))
                .collect();
            block.bounds_of(&whole)
        };
        let bounds: Vec<Vec<Option<Duration>>> =
            trial.blocks.iter().enumerate().map(bounds_of).collect();
        let part = |number: usize, node: usize| {
            let planned = trial.blocks.get(number);
            let submitted = self.start + planned.map_or(Duration::ZERO, |block| block.at);
            let mark = self.marks.get(number).and_then(|list| list.get(node));
            let mark = mark.copied().unwrap_or_default();
            let piece = |(at, from): (Time, Option<usize>)| Piece {
                at_ms: millis(at - submitted),
                index: 0,
                from: from.map_or(PieceSource::Own, PieceSource::Node),
            };
            let bound = bounds.get(number).and_then(|list| list.get(node));
            let cross = planned.and_then(|block| block.bytes_to_cross.get(node));
            NodeOutcome {
                counts: self.counts.get(number).is_some_and(|list| list[node]),
                whole_ms: mark.whole.map(|(at, _)| millis(at - submitted)),
                bound_ms: bound.copied().flatten().map(millis),
                bytes_to_cross: cross.copied().unwrap_or(0),
                request_free: mark.whole.is_some() && mark.requests == 0,
                pieces: mark.whole.map(piece).into_iter().collect(),
            }
        };
        Outcome {
            scenario: trial.scenario.name.clone(),
            protocol: protocol.to_owned(),
            seed: trial.seed,
            nodes: trial.plan.nodes,
            blocks: blocks
                .map(|(number, block)| BlockOutcome {
                    hash: shown(block.workload.hash),
                    bytes: block.workload.block.len() as u64,
                    transactions: block.workload.transactions.len() as u32 + 1,
                    source: block.source,
                    submitted_ms: millis(block.at),
                    nodes: (0..trial.plan.nodes)
                        .map(|node| part(number, node))
                        .collect(),
                })
                .collect(),
            traffic: self.traffic.clone(),
            ended_ms: millis(ended - self.start),
            happenings: self.happened,
            trace_hash: 0,
            violations: Vec::new(),
        }
    }
}

/// A hash as people write it.
fn shown(mut hash: [u8; 32]) -> String {
    hash.reverse();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
