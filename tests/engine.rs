//! Engines that speak to each other over links with virtual time. Every scenario prints its seed if it fails;
//! `World::new` with that seed repeats it. Swarms of faults and adversaries are in `sim::swarm`.

mod engine {
    mod compact;
    mod predicted;
    mod standard;
}

use std::time::Duration;

use blocktorrent::relay::Event;
use blocktorrent::sim::workload::{Recipe, Workload};
use blocktorrent::sim::{LinkOptions, NodeId, NodeOptions, Topology, Traffic, World};

const LIMIT: Duration = Duration::from_secs(120);

/// Names the seed of a failing run.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failing seed: {}", self.0);
        }
    }
}

struct Scenario {
    seed: u64,
    nodes: usize,
    topology: Topology,
    link: LinkOptions,
    recipe: Recipe,
    warm: f64,
    liars: Vec<NodeId>,
    push_level: u8,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            seed: 1,
            nodes: 2,
            topology: Topology::Line,
            link: LinkOptions::default(),
            recipe: Recipe::default(),
            warm: 0.0,
            liars: Vec::new(),
            push_level: 3,
        }
    }
}

struct Outcome {
    world: World,
    workload: Workload,
    handed_over: Duration,
    /// What had passed at node 1 when the block was handed over.
    before: Traffic,
}

impl Scenario {
    fn build(&self) -> Outcome {
        let mut world = World::new(self.seed);
        let workload = Workload::new(&self.recipe, self.seed);
        for node in 0..self.nodes {
            let mut options = NodeOptions::default();
            options.config.lie = self.liars.contains(&node);
            options.config.push_level = self.push_level;
            let node = world.add_node(options);
            if node > 0 {
                world.warm(node, &workload, self.warm);
            }
        }
        world.join(self.topology, &self.link);
        world.run_for(Duration::from_secs(3));
        let handed_over = world.elapsed();
        world.submit(0, &workload, Duration::ZERO);
        Outcome {
            before: world.traffic_of(1),
            world,
            workload,
            handed_over,
        }
    }

    fn run(&self) -> Outcome {
        let _seed = Seed(self.seed);
        let mut outcome = self.build();
        let complete = outcome.world.run_until_complete(&outcome.workload, LIMIT);
        outcome.verify(complete);
        outcome
    }
}

impl Outcome {
    fn verify(&self, complete: bool) {
        let missing: Vec<_> = self
            .world
            .honest()
            .into_iter()
            .filter(|&node| self.world.completion(node, &self.workload).is_none())
            .collect();
        for violation in self.world.violations() {
            eprintln!("violation: {violation}");
        }
        assert!(complete, "without the block: {missing:?}");
        assert!(self.world.violations().is_empty());
        for node in self.world.honest() {
            let completion = self.world.completion(node, &self.workload);
            let bytes = completion.map(|completion| &completion.bytes);
            assert_eq!(bytes, Some(&self.workload.block), "node {node}");
        }
    }

    /// Milliseconds from the submission to the last honest node's completion.
    fn took(&self) -> f64 {
        let last = self.world.honest().into_iter().filter_map(|node| {
            let completion = self.world.completion(node, &self.workload)?;
            Some(completion.at)
        });
        let start = self.world.now() - self.world.elapsed() + self.handed_over;
        last.max()
            .map_or(0.0, |last| (last - start).as_secs_f64() * 1_000.0)
    }
}

#[test]
fn two_nodes_cold() {
    let outcome = Scenario::default().run();
    println!(
        "cold: {:.1} ms for {} bytes",
        outcome.took(),
        outcome.workload.block.len()
    );
    let traffic = outcome.world.traffic(1, 0);
    assert!(traffic.proven);
    assert!(traffic.udp_in > outcome.workload.block.len() as u64);
}

#[test]
fn two_nodes_warm() {
    let scenario = Scenario {
        warm: 1.0,
        recipe: Recipe {
            transactions: 2_500,
            ..Recipe::default()
        },
        ..Scenario::default()
    };
    let outcome = scenario.run();
    let after = outcome.world.traffic_of(1);
    let before = outcome.before.udp_in + outcome.before.tcp_in;
    let bytes = after.udp_in + after.tcp_in - before;
    println!("warm: {:.1} ms, {bytes} bytes", outcome.took());
    assert!(bytes < 40_000, "{bytes}");
}

#[test]
fn every_shape_of_block_passes() {
    let plain = Recipe::default();
    let recipes = [
        Recipe {
            transactions: 1,
            ..plain.clone()
        },
        Recipe {
            transactions: 1,
            witness_every: 0,
            ..plain.clone()
        },
        Recipe {
            transactions: 2,
            ..plain.clone()
        },
        Recipe {
            transactions: 3,
            witness_every: 0,
            ..plain.clone()
        },
        Recipe {
            transactions: 129,
            witness_every: 1,
            ..plain.clone()
        },
        Recipe {
            transactions: 1_000,
            witness_every: 0,
            ..plain.clone()
        },
        Recipe {
            transactions: 5,
            giant: 840_000,
            ..plain.clone()
        },
        Recipe {
            transactions: 200,
            coinbase_padding: 100_000,
            ..plain.clone()
        },
        Recipe {
            transactions: 4_000,
            bytes: (100, 400),
            ..plain
        },
    ];
    for (index, recipe) in recipes.into_iter().enumerate() {
        for warm in [0.0, 0.5, 1.0] {
            let seed = 100 + index as u64;
            let outcome = Scenario {
                seed,
                recipe: recipe.clone(),
                warm,
                nodes: 3,
                ..Scenario::default()
            }
            .run();
            println!("shape {index} warm {warm}: {:.1} ms", outcome.took());
        }
    }
}

#[test]
fn every_topology_passes_and_middle_nodes_cut_through() {
    for topology in [
        Topology::Line,
        Topology::Ring,
        Topology::Star,
        Topology::Mesh,
    ] {
        let scenario = Scenario {
            seed: 20 + topology as u64,
            nodes: 5,
            topology,
            recipe: Recipe {
                transactions: 2_000,
                ..Recipe::default()
            },
            ..Scenario::default()
        };
        let outcome = scenario.run();
        println!("{topology:?}: {:.1} ms", outcome.took());
        if topology == Topology::Line {
            for node in 1..4 {
                let jobs = outcome.world.engine(node).expect("there").jobs();
                assert!(jobs[0].chunks_forwarded_before_complete > 0, "node {node}");
            }
        }
    }
}

#[test]
fn loss_reordering_duplication_and_corruption_do_no_harm() {
    for (index, (loss, burst, reorder, duplicate, corrupt)) in [
        (0.01, 1.0, 0.0, 0.0, 0.0),
        (0.05, 1.0, 0.05, 0.0, 0.0),
        (0.03, 6.0, 0.05, 0.05, 0.0),
        (0.10, 1.0, 0.2, 0.1, 0.05),
        (0.30, 1.0, 0.0, 0.0, 0.0),
        (0.30, 3.0, 0.3, 0.2, 0.1),
    ]
    .into_iter()
    .enumerate()
    {
        for (warm, nodes) in [(0.0, 2), (1.0, 2), (0.95, 4)] {
            let link = LinkOptions {
                loss,
                burst,
                reorder,
                duplicate,
                corrupt,
                jitter: Duration::from_millis(2),
                delay: Duration::from_millis(20),
                ..LinkOptions::default()
            };
            let seed = 200 + index as u64;
            let outcome = Scenario {
                seed,
                link,
                warm,
                nodes,
                ..Scenario::default()
            }
            .run();
            println!(
                "faults {index} warm {warm} nodes {nodes}: {:.1} ms",
                outcome.took()
            );
        }
    }
}

#[test]
fn a_blocked_udp_path_falls_back_on_tcp() {
    let link = LinkOptions {
        udp_blocked: true,
        ..LinkOptions::default()
    };
    let outcome = Scenario {
        seed: 31,
        nodes: 3,
        link,
        ..Scenario::default()
    }
    .run();
    println!("tcp alone: {:.1} ms", outcome.took());
    assert_eq!(outcome.world.traffic_of(2).datagrams_in, 0);
}

#[test]
fn liars_are_refused_and_scored() {
    for seed in 0..4 {
        let scenario = Scenario {
            seed: 300 + seed,
            nodes: 6,
            topology: Topology::Mesh,
            liars: vec![1, 3],
            recipe: Recipe {
                transactions: 1_500,
                ..Recipe::default()
            },
            warm: if seed % 2 == 0 { 0.0 } else { 0.9 },
            ..Scenario::default()
        };
        let outcome = scenario.run();
        let refused = outcome
            .world
            .honest()
            .into_iter()
            .flat_map(|node| outcome.world.events(node))
            .filter(|(_, event)| matches!(event, Event::Refused { .. }))
            .count();
        println!(
            "liars, seed {seed}: {:.1} ms, {refused} refused",
            outcome.took()
        );
    }
}

#[test]
fn a_partition_heals() {
    let scenario = Scenario {
        seed: 41,
        nodes: 4,
        ..Scenario::default()
    };
    let _seed = Seed(scenario.seed);
    let mut outcome = scenario.build();
    outcome
        .world
        .set_link_up(1, 2, Duration::from_millis(60), false);
    outcome
        .world
        .set_link_up(1, 2, Duration::from_secs(3), true);
    let complete = outcome.world.run_until_complete(&outcome.workload, LIMIT);
    outcome.verify(complete);
    println!("partition of 3 s: {:.1} ms", outcome.took());
}

#[test]
fn a_cut_connection_does_not_lose_the_block_of_others() {
    let scenario = Scenario {
        seed: 43,
        nodes: 4,
        topology: Topology::Ring,
        ..Scenario::default()
    };
    let _seed = Seed(scenario.seed);
    let mut outcome = scenario.build();
    outcome.world.run_for(Duration::from_millis(120));
    outcome.world.cut(0, 1);
    let complete = outcome.world.run_until_complete(&outcome.workload, LIMIT);
    outcome.verify(complete);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let scenario = |seed| Scenario {
        seed,
        nodes: 5,
        topology: Topology::Mesh,
        link: LinkOptions {
            loss: 0.05,
            reorder: 0.1,
            duplicate: 0.05,
            corrupt: 0.02,
            ..LinkOptions::default()
        },
        warm: 0.9,
        ..Scenario::default()
    };
    let first = scenario(51).run().world.trace_hash();
    assert_eq!(first, scenario(51).run().world.trace_hash());
    assert_ne!(first, scenario(52).run().world.trace_hash());
}

#[test]
fn silence_follows_completion() {
    let mut outcome = Scenario {
        seed: 61,
        nodes: 3,
        topology: Topology::Mesh,
        ..Scenario::default()
    }
    .run();
    outcome.world.run_for(Duration::from_secs(10));
    let before = outcome.world.traffic_of(0);
    outcome.world.run_for(Duration::from_secs(60));
    let after = outcome.world.traffic_of(0);
    let bytes = after.udp_out + after.tcp_out - before.udp_out - before.tcp_out;
    println!("bytes in a quiet minute: {bytes}");
    assert!(bytes < 20_000, "{bytes}");
    outcome.verify(true);
}

#[test]
fn many_blocks_follow_each_other() {
    let scenario = Scenario {
        seed: 71,
        nodes: 3,
        warm: 1.0,
        ..Scenario::default()
    };
    let _seed = Seed(scenario.seed);
    let mut outcome = scenario.build();
    for round in 0..20 {
        let workload = Workload::new(&Recipe::default(), 7_100 + round);
        for node in 1..3 {
            outcome.world.warm(node, &workload, 1.0);
        }
        outcome
            .world
            .submit(round as usize % 3, &workload, Duration::ZERO);
        assert!(
            outcome.world.run_until_complete(&workload, LIMIT),
            "round {round}"
        );
        outcome.world.run_for(Duration::from_secs(30));
    }
    assert!(
        outcome.world.violations().is_empty(),
        "{:?}",
        outcome.world.violations()
    );
    for node in 0..3 {
        assert!(outcome.world.engine(node).expect("there").jobs().len() <= 16);
    }
}
