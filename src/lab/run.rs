//! One run of a trial with real processes, from places to what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::flow::{Beside, Flow};
use super::ground::Ground;
use super::net::Net;
use super::nodes::{Answer, Nodes, Setup};
use super::router::Lateness;
use super::switch::{Counts, Switch};
use crate::net::Clock;
use crate::sim::Trial;
use crate::sim::outcome::{BlockOutcome, NodeOutcome, NodeTraffic, Outcome};
use crate::sim::scenario::{EventKind, EventSpec};
use crate::time::Time;

/// How far the wall clock may have been set during a run: nodes that start later take it anew.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(1);

/// How true the emulation was to the scenario.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Emulation {
    /// How late packets were given, from the first block on.
    pub late: Lateness,
    /// What became of packets, since the places were made.
    pub packets: Counts,
    /// Packets that a kernel dropped before the router saw them.
    pub dropped_by_kernel: u64,
    /// Lines of nodes that were lost.
    pub lines_lost: u64,
}

impl Emulation {
    /// Whether nothing was lost but what the scenario wants to be.
    pub fn is_true(&self) -> bool {
        self.packets.no_room == 0 && self.dropped_by_kernel == 0
    }
}

/// What is to happen at a time of a run.
#[derive(Clone, Debug)]
enum Act {
    Submit(usize),
    Event(Box<EventSpec>),
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Of the blocks.
    pub outcome: Outcome,
    /// How true the links were.
    pub emulation: Emulation,
    /// What a TCP connection carried beside the relay, if there was one.
    pub beside: Option<Beside>,
}

/// What TCP is to do in a run.
#[derive(Clone, Copy, Debug)]
pub struct Tcp<'a> {
    /// Its congestion control, in every place.
    pub congestion: &'a str,
    /// From and to which node a connection carries what it can meanwhile.
    pub beside: Option<(usize, usize)>,
}

/// Runs a trial. `tell` is told how far it is.
///
/// # Errors
///
/// One line: what the system refuses, or a node that ends before its time.
pub async fn run(
    trial: &Trial,
    ground: &Arc<Ground>,
    setup: &Setup,
    tcp: &Tcp<'_>,
    tell: &(dyn Fn(&str) + Sync),
) -> anyhow::Result<Run> {
    let clock = Clock::start();
    let net = Net::new(trial, tcp.congestion, clock)?;
    tell("starting the nodes");
    let mut nodes = Nodes::start(&net, trial, setup, ground, Vec::new()).await?;
    nodes.fill_mempools().await?;
    tell("joining them, and measuring the paths");
    nodes.join().await?;
    let flow = match tcp.beside {
        Some(way) => {
            tell("measuring TCP alone");
            Some(Flow::start(&net, way).await?)
        }
        None => None,
    };
    nodes.catch_up()?;
    tell("relaying");
    let before = net.router.with(|switch| switch.traffic());
    net.router.take_lateness();
    let mark = flow.as_ref().map(Flow::mark);
    let played = play(trial, &net, &mut nodes, clock).await?;
    let beside = flow.as_ref().zip(mark);
    let beside = beside.map(|(flow, mark)| flow.beside(mark));
    drop(flow);
    // What is still under way counts as sent, as in the simulator.
    let links = trial.links.iter().flatten();
    let longest = links
        .map(|link| link.delay + link.jitter)
        .max()
        .unwrap_or_default();
    sleep(longest * 4 + Duration::from_millis(100)).await;
    nodes.catch_up()?;
    let emulation = Emulation {
        late: net.router.take_lateness(),
        packets: net.router.with(|switch| switch.counts()),
        dropped_by_kernel: net.dropped_by_kernel().await?,
        lines_lost: nodes.dropped(),
    };
    let after = net.router.with(|switch| switch.traffic());
    let outcome = outcome(trial, ground, &nodes, &played, &before, &after);
    nodes.end().await;
    let set = Clock::start().now();
    let now = clock.now();
    if set.since(now).max(now.since(set)) > CLOCK_TOLERANCE {
        bail!(
            "the system's clock was set during the run, so that times of nodes can't be compared; run it again"
        );
    }
    Ok(Run {
        outcome,
        emulation,
        beside,
    })
}

/// When blocks were handed in, and how long all took.
struct Played {
    submitted: Vec<Time>,
    start: Time,
    ended: Time,
}

/// What is to happen, in order, with its time in ms from the first block.
fn acts(trial: &Trial) -> Vec<(f64, Act)> {
    let mut acts: Vec<(f64, Act)> = Vec::new();
    // Of two things at the same time events come first, as in the simulator.
    let events = trial.scenario.event.iter();
    acts.extend(events.map(|event| (event.at_ms, Act::Event(Box::new(event.clone())))));
    for (number, block) in trial.blocks.iter().enumerate() {
        acts.push((block.at.as_secs_f64() * 1e3, Act::Submit(number)));
    }
    acts.sort_by(|one, other| one.0.total_cmp(&other.0));
    acts
}

/// Lets everything happen at its time, until all nodes that count have all blocks, or the limit has passed.
async fn play(
    trial: &Trial,
    net: &Net,
    nodes: &mut Nodes<'_>,
    clock: Clock,
) -> anyhow::Result<Played> {
    let acts = acts(trial);
    let first = acts.first().map_or(0.0, |(at, _)| at.min(0.0));
    let begin = Instant::now();
    let at = |at_ms: f64| begin + Duration::from_secs_f64((at_ms - first) / 1e3);
    let last = trial
        .blocks
        .iter()
        .map(|block| block.at)
        .max()
        .unwrap_or_default();
    let limit = last + Duration::from_secs_f64(trial.scenario.limit.seconds);
    let end = at(0.0) + limit;
    let counts: Vec<Vec<bool>> = trial
        .blocks
        .iter()
        .map(|block| trial.counting(block))
        .collect();
    let (answers, mut answered) = mpsc::channel(trial.blocks.len().max(1));
    let mut submitted = BTreeMap::new();
    let mut calls = 0;
    let mut acts = acts.into_iter().peekable();
    loop {
        let next = acts.peek().map(|(at_ms, _)| at(*at_ms));
        if next.is_none() && submitted.len() == trial.blocks.len() && is_done(nodes, &counts) {
            break;
        }
        tokio::select! {
            biased;
            () = sleep_until(next.unwrap_or(end)), if next.is_some() => match acts.next() {
                Some((_, Act::Submit(number))) => {
                    nodes.submit(number, clock, answers.clone())?;
                    calls += 1;
                }
                Some((_, Act::Event(event))) => befall(trial, net, nodes, &event).await?,
                None => {}
            },
            () = sleep_until(end) => break,
            answer = answered.recv() => if let Some(answer) = answer {
                submitted.insert(answer.number, submission(trial, nodes, answer)?);
            },
            heard = nodes.listen() => heard?,
        }
    }
    let ended = clock.now();
    while submitted.len() < calls
        && let Some(answer) = answered.recv().await
    {
        submitted.insert(answer.number, submission(trial, nodes, answer)?);
    }
    // A block whose time did not come before the limit was handed in by nobody.
    let times = (0..trial.blocks.len()).map(|number| submitted.remove(&number));
    let submitted: Vec<Time> = times.map(|at| at.unwrap_or(ended)).collect();
    let start = submitted.iter().copied().min().unwrap_or(ended);
    Ok(Played {
        submitted,
        start,
        ended,
    })
}

/// When a block was handed in, or would have been: to a node that has crashed it may not be, as in the simulator.
fn submission(trial: &Trial, nodes: &Nodes<'_>, answer: Answer) -> anyhow::Result<Time> {
    let source = trial.blocks.get(answer.number).map(|block| block.source);
    let lost = source.is_some_and(|source| nodes.has_crashed(source));
    match answer.taken {
        Err(error) if !lost => Err(error),
        _ => Ok(answer.at),
    }
}

fn is_done(nodes: &Nodes<'_>, counts: &[Vec<bool>]) -> bool {
    counts.iter().enumerate().all(|(number, counts)| {
        let mut counting = counts.iter().enumerate().filter(|(_, counts)| **counts);
        counting.all(|(node, _)| nodes.whole(node, number).is_some())
    })
}

/// Lets something happen to links or nodes.
async fn befall(
    trial: &Trial,
    net: &Net,
    nodes: &mut Nodes<'_>,
    event: &EventSpec,
) -> anyhow::Result<()> {
    let set_up = |up| {
        if let Some([one, other]) = event.between {
            net.router.with(|switch| switch.set_up(one, other, up));
        }
    };
    match event.kind {
        EventKind::Partition => net.router.with(|switch| switch.partition(&event.nodes)),
        EventKind::Heal => net.router.with(Switch::heal),
        EventKind::LinkDown => set_up(false),
        EventKind::LinkUp => set_up(true),
        EventKind::Crash => {
            for node in &event.nodes {
                nodes.crash(*node).await?;
            }
        }
        EventKind::Restart => {
            for node in &event.nodes {
                nodes.restart(*node).await?;
            }
        }
        EventKind::SetLink => {
            let befallen = match event.between {
                Some([one, other]) => vec![(one, other)],
                None => trial.plan.edges.clone(),
            };
            for (one, other) in befallen {
                for (way, change) in [
                    ((one, other), &event.link),
                    ((other, one), &event.link),
                    ((other, one), &event.back),
                ] {
                    net.change(way, change).await?;
                }
            }
        }
        EventKind::Cut => bail!("the lab has no hand in the kernel's connections"),
    }
    Ok(())
}

fn outcome(
    trial: &Trial,
    ground: &Ground,
    nodes: &Nodes<'_>,
    played: &Played,
    before: &[NodeTraffic],
    after: &[NodeTraffic],
) -> Outcome {
    let millis = |from: Time, to: Time| to.since(from).as_secs_f64() * 1e3;
    let mut blocks = Vec::new();
    for (number, block) in trial.blocks.iter().enumerate() {
        let submitted = played
            .submitted
            .get(number)
            .copied()
            .unwrap_or(played.ended);
        let whole = |node| {
            let whole = nodes.whole(node, number);
            whole.map(|whole| millis(submitted, whole.at))
        };
        let whole: Vec<Option<f64>> = (0..trial.plan.nodes).map(whole).collect();
        let bounds = block.bounds_of(&whole);
        let part = |(node, counts): (usize, bool)| {
            let whole = nodes.whole(node, number);
            let bound = bounds.get(node).copied().flatten();
            NodeOutcome {
                counts,
                whole_ms: whole.map(|whole| millis(submitted, whole.at)),
                bound_ms: bound.map(|bound| bound.as_secs_f64() * 1e3),
                bytes_to_cross: block.bytes_to_cross.get(node).copied().unwrap_or(0),
                request_free: whole.is_some_and(|whole| whole.requests == 0),
                pieces: Vec::new(),
            }
        };
        let hash = ground.blocks.get(number).map(|block| block.hash.clone());
        blocks.push(BlockOutcome {
            hash: hash.unwrap_or_default(),
            bytes: block.workload.block.len() as u64,
            transactions: block.workload.transactions.len() as u32 + 1,
            source: block.source,
            submitted_ms: millis(played.start, submitted),
            nodes: trial
                .counting(block)
                .into_iter()
                .enumerate()
                .map(part)
                .collect(),
        });
    }
    let requests = |node: usize| {
        let whole = (0..blocks.len()).filter_map(|number| nodes.whole(node, number));
        whole.map(|whole| whole.requests).sum()
    };
    let passed = |(node, (before, after)): (usize, (&NodeTraffic, &NodeTraffic))| NodeTraffic {
        requests: requests(node),
        ..after.since(before)
    };
    Outcome {
        scenario: trial.scenario.name.clone(),
        protocol: "blocktorrent, processes".to_owned(),
        seed: trial.seed,
        nodes: trial.plan.nodes,
        traffic: before.iter().zip(after).enumerate().map(passed).collect(),
        ended_ms: millis(played.start, played.ended),
        happenings: 0,
        trace_hash: 0,
        violations: Vec::new(),
        blocks,
    }
}
