//! From a seed to a scenario.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::super::scenario::{
    AdversaryKind, AdversarySpec, BlockShape, EventKind, EventSpec, LinkChange, LinkSpec, Overlap,
    PathSpec, Scenario, TopologySpec,
};
use super::super::topology::{Plan, Topology};
use super::super::trial::Trial;
use super::super::workload::{Recipe, Workload};
use super::Swarm;

/// Forged blocks in one swarm: work is dear, and every block under way takes one of eight places.
const MAX_FORGERS: usize = 2;

/// What is drawn, with the probabilities that are used often.
struct Draw {
    random: StdRng,
}

impl Draw {
    fn chance(&mut self, chance: f64) -> bool {
        self.random.random_bool(chance)
    }

    /// Zero, or with that chance anything up to `most`.
    fn sometimes(&mut self, chance: f64, most: f64) -> f64 {
        match self.chance(chance) {
            true => self.random.random::<f64>() * most,
            false => 0.0,
        }
    }

    fn between(&mut self, least: usize, most: usize) -> usize {
        self.random.random_range(least..=most)
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> Option<T> {
        match list.is_empty() {
            true => None,
            false => list.get(self.between(0, list.len() - 1)).copied(),
        }
    }
}

pub(super) fn swarm(seed: u64) -> Swarm {
    let mut draw = Draw {
        random: StdRng::seed_from_u64(seed ^ 0x7377_6172_6d00_0000),
    };
    let mut scenario = Scenario {
        name: format!("swarm-{seed}"),
        about: "Drawn from its seed".to_owned(),
        seed,
        runs: 1,
        topology: topology(&mut draw),
        link: link(&mut draw),
        ..Scenario::default()
    };
    blocks(&mut draw, &mut scenario);
    let plan = Plan::new(&scenario.topology, seed);
    paths(&mut draw, &mut scenario, &plan);
    if draw.chance(0.3) {
        scenario.access.up_mbit = 10.0 + draw.sometimes(1.0, 90.0);
        scenario.access.down_mbit = 20.0 + draw.sometimes(1.0, 180.0);
    }
    scenario.clock.skew_ms = draw.sometimes(0.4, 3_600_000.0);
    adversaries(&mut draw, &mut scenario);
    let trial = placed(&mut scenario);
    let heals_at = trouble(&mut draw, &mut scenario, &trial);
    heal(&mut draw, &mut scenario, heals_at);
    let trial = Trial {
        scenario: scenario.clone(),
        ..trial
    };
    let last_source = trial.blocks.first().map_or(0, |block| block.source);
    Swarm {
        seed,
        heals_at: Duration::from_millis(heals_at),
        last: Workload::new(&recipe(&mut draw), seed ^ 0x6c61_7374),
        last_source,
        last_after: Duration::from_millis(draw.between(0, 6_000) as u64),
        scenario,
        trial,
    }
}

fn topology(draw: &mut Draw) -> TopologySpec {
    let kinds = [
        Topology::Line,
        Topology::Ring,
        Topology::Star,
        Topology::Mesh,
        Topology::Regular,
        Topology::SmallWorld,
    ];
    let kind = draw.of(&kinds).unwrap_or(Topology::Mesh);
    let (nodes, degree) = match kind {
        Topology::Line => (draw.between(2, 6), None),
        Topology::Mesh => (draw.between(2, 8), None),
        Topology::Regular => (2 * draw.between(3, 7), Some(draw.between(3, 5))),
        Topology::SmallWorld => (draw.between(6, 14), Some(4)),
        _ => (draw.between(3, 10), None),
    };
    TopologySpec {
        kind,
        nodes,
        degree,
        ..TopologySpec::default()
    }
}

fn link(draw: &mut Draw) -> LinkSpec {
    LinkSpec {
        delay_ms: Some(1.0 + draw.sometimes(0.9, 150.0)),
        jitter_ms: draw.sometimes(0.3, 10.0),
        rate_mbit: 10.0 + draw.sometimes(0.7, 150.0),
        queue_ms: Some(40.0 + draw.sometimes(0.7, 300.0)),
        loss: draw.sometimes(0.6, 0.3),
        burst: 1.0 + draw.sometimes(0.3, 6.0),
        reorder: draw.sometimes(0.4, 0.3),
        duplicate: draw.sometimes(0.3, 0.2),
        corrupt: draw.sometimes(0.3, 0.1),
        udp: !draw.chance(0.05),
        // From what IPv6 promises, less headers, to jumbo frames.
        mtu: draw
            .of(&[1_500, 1_500, 1_280, 1_420, 9_000])
            .unwrap_or(1_500),
        ..LinkSpec::default()
    }
}

fn blocks(draw: &mut Draw, scenario: &mut Scenario) {
    let block = &mut scenario.block;
    let transactions = draw.of(&[1, 2, 3, 100, 129, 700]).unwrap_or(1);
    block.transactions = Some(transactions);
    let mean = draw.between(150, 800) as u64;
    // A coinbase alone has the size that it has.
    block.bytes = (transactions > 1).then(|| u64::from(transactions) * mean + 1_000);
    block.shape = draw
        .of(&[BlockShape::Real, BlockShape::Even, BlockShape::OneGiant])
        .unwrap_or(BlockShape::Real);
    block.count = draw.between(1, 2) as u32;
    block.every_ms = 100.0 + draw.sometimes(1.0, 3_000.0);
    block.racing = match scenario.topology.nodes > 3 && draw.chance(0.3) {
        true => 2,
        false => 1,
    };
    let shares = [0.0, 0.5, 0.95, 1.0];
    scenario.mempool.overlap = match draw.chance(0.1) {
        true => Overlap::Wild,
        false => Overlap::Share(draw.of(&shares).unwrap_or(0.0)),
    };
    scenario.mempool.together = draw.chance(0.3);
    scenario.mempool.source_overlap = draw.of(&[1.0, 1.0, 0.5]).unwrap_or(1.0);
    scenario.mempool.others = draw.of(&[0, 0, 500]).unwrap_or(0);
    scenario.node.push_level = draw.between(0, 3) as u8;
    scenario.node.preference = draw.of(&[0, 128, 255]).unwrap_or(255);
}

/// Some links differ from the others, some of them in one direction.
fn paths(draw: &mut Draw, scenario: &mut Scenario, plan: &Plan) {
    for _ in 0..draw.between(0, 3) {
        let Some((low, high)) = draw.of(&plan.edges) else {
            return;
        };
        let between = [low, high];
        if scenario.path.iter().any(|path| path.between == between) {
            continue;
        }
        let change = |draw: &mut Draw| LinkChange {
            delay_ms: Some(1.0 + draw.sometimes(0.8, 200.0)),
            loss: Some(draw.sometimes(0.5, 0.4)),
            rate_mbit: Some(5.0 + draw.sometimes(0.8, 50.0)),
            udp: draw.chance(0.1).then_some(false),
            ..LinkChange::default()
        };
        scenario.path.push(PathSpec {
            between,
            link: change(draw),
            back: match draw.chance(0.5) {
                true => change(draw),
                false => LinkChange::default(),
            },
        });
    }
}

fn adversaries(draw: &mut Draw, scenario: &mut Scenario) {
    let most = scenario.topology.nodes.saturating_sub(2) / 2;
    let mut forgers = 0;
    for _ in 0..draw.between(0, most.min(4)) {
        let kind = draw
            .of(&AdversaryKind::ALL)
            .unwrap_or(AdversaryKind::Floods);
        forgers += usize::from(kind == AdversaryKind::InvalidBlock);
        if kind == AdversaryKind::InvalidBlock && forgers > MAX_FORGERS {
            continue;
        }
        scenario.adversary.push(AdversarySpec {
            kind,
            count: 1,
            nodes: Vec::new(),
        });
    }
}

/// The trial, with fewer adversaries where so many would cut honest nodes off.
fn placed(scenario: &mut Scenario) -> Trial {
    loop {
        match Trial::new(scenario, scenario.seed, None) {
            Ok(trial) => return trial,
            Err(error) => {
                let one_less = scenario.adversary.pop();
                assert!(one_less.is_some(), "swarm {}: {error}", scenario.seed);
            }
        }
    }
}

/// What befalls the network before it heals; when it does, in ms after the first block.
fn trouble(draw: &mut Draw, scenario: &mut Scenario, trial: &Trial) -> u64 {
    let lasts = draw.between(500, 6_000);
    let sources: Vec<usize> = trial.blocks.iter().map(|block| block.source).collect();
    let may_crash: Vec<usize> = (0..trial.plan.nodes)
        .filter(|node| trial.is_honest(*node) && !sources.contains(node))
        .collect();
    let at = |draw: &mut Draw| draw.between(0, lasts + 1_500) as f64 - 1_500.0;
    for _ in 0..draw.between(0, 6) {
        let begins = at(draw);
        let ends = begins + draw.between(50, 3_000) as f64;
        let edge = draw.of(&trial.plan.edges).map(|(low, high)| [low, high]);
        let node = draw.of(&may_crash);
        match (draw.between(0, 4), edge, node) {
            (0, ..) => {
                let nodes: Vec<usize> =
                    (0..trial.plan.nodes).filter(|_| draw.chance(0.4)).collect();
                // All together are cut off from nobody.
                if (1..trial.plan.nodes).contains(&nodes.len()) {
                    scenario
                        .event
                        .push(event(begins, EventKind::Partition, &nodes));
                    scenario.event.push(event(ends, EventKind::Heal, &[]));
                }
            }
            (1, _, Some(node)) => {
                scenario
                    .event
                    .push(event(begins, EventKind::Crash, &[node]));
                scenario
                    .event
                    .push(event(ends, EventKind::Restart, &[node]));
            }
            (2, Some(between), _) => {
                let on = |at, kind| EventSpec {
                    between: Some(between),
                    ..event(at, kind, &[])
                };
                scenario.event.push(on(begins, EventKind::LinkDown));
                scenario.event.push(on(ends, EventKind::LinkUp));
            }
            (3, Some(between), _) => scenario.event.push(EventSpec {
                between: Some(between),
                ..event(begins, EventKind::Cut, &[])
            }),
            (_, Some(between), _) => scenario.event.push(EventSpec {
                between: draw.chance(0.7).then_some(between),
                link: LinkChange {
                    loss: Some(draw.sometimes(0.8, 0.6)),
                    burst: Some(1.0 + draw.sometimes(0.5, 10.0)),
                    delay_ms: Some(1.0 + draw.sometimes(0.9, 400.0)),
                    rate_mbit: Some(2.0 + draw.sometimes(0.7, 50.0)),
                    ..LinkChange::default()
                },
                ..event(begins, EventKind::SetLink, &[])
            }),
            _ => {}
        }
    }
    let blocks = trial.blocks.iter().map(|block| block.at.as_millis());
    let last = blocks.max().unwrap_or(0) as u64;
    last.max(lasts as u64) + 100
}

/// All is well again, but for the adversaries.
fn heal(draw: &mut Draw, scenario: &mut Scenario, at: u64) {
    let at = at as f64;
    scenario.event.retain(|event| event.at_ms < at);
    scenario.event.push(event(at, EventKind::Heal, &[]));
    scenario.event.push(EventSpec {
        link: LinkChange {
            jitter_ms: Some(0.0),
            loss: Some(0.0),
            burst: Some(1.0),
            reorder: Some(0.0),
            duplicate: Some(0.0),
            corrupt: Some(0.0),
            mtu: Some(1_500),
            delay_ms: Some(1.0 + draw.sometimes(0.9, 100.0)),
            rate_mbit: Some(10.0),
            queue_ms: Some(100.0),
            ..LinkChange::default()
        },
        ..event(at, EventKind::SetLink, &[])
    });
    let mut crashed: Vec<usize> = scenario
        .event
        .iter()
        .filter(|event| event.kind == EventKind::Crash)
        .flat_map(|event| event.nodes.iter().copied())
        .collect();
    crashed.sort_unstable();
    crashed.dedup();
    if !crashed.is_empty() {
        scenario.event.push(event(at, EventKind::Restart, &crashed));
    }
    scenario
        .event
        .sort_by(|one, other| one.at_ms.total_cmp(&other.at_ms));
}

fn event(at_ms: f64, kind: EventKind, nodes: &[usize]) -> EventSpec {
    EventSpec {
        at_ms,
        kind,
        nodes: nodes.to_vec(),
        between: None,
        link: LinkChange::default(),
        back: LinkChange::default(),
    }
}

fn recipe(draw: &mut Draw) -> Recipe {
    let bytes = draw.between(120, 900);
    Recipe {
        transactions: draw.of(&[1, 2, 90, 400, 1_000]).unwrap_or(2),
        bytes: (110, bytes),
        witness_every: draw.of(&[0, 1, 2]).unwrap_or(0),
        coinbase_padding: draw.of(&[0, 0, 20_000]).unwrap_or(0),
        giant: draw.of(&[0, 0, 150_000]).unwrap_or(0),
    }
}
