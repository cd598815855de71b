//! What the sender has had for a moment only goes before parity: more of it can so be lacking before anybody is asked.

use std::time::Duration;

use blocktorrent::sim::workload::{Recipe, Workload};
use blocktorrent::sim::{LinkOptions, NodeOptions, Topology, World};

/// Every so manieth transaction is lacking: 30, which take parity of 18 kB alone, where 16.8 kB are granted.
const EVERY: usize = 30;

/// The requests of a node that lacks transactions which the sender has had for so long when the block comes.
fn requests(had_for: Duration) -> u64 {
    let recipe = Recipe {
        transactions: 900,
        bytes: (424, 424),
        ..Recipe::default()
    };
    let workload = Workload::new(&recipe, 3);
    let mut world = World::new(3);
    for _ in 0..2 {
        world.add_node(NodeOptions::default());
    }
    world.join(Topology::Line, &LinkOptions::default());
    let settled = Duration::from_secs(10);
    for (place, transaction) in workload.transactions.iter().enumerate() {
        if place % EVERY == 7 {
            world.give_later(0, transaction.clone(), settled - had_for);
        } else {
            world.give(0, transaction.clone());
            world.give(1, transaction.clone());
        }
    }
    world.run_for(settled);
    world.submit(0, &workload, Duration::ZERO);
    assert!(world.run_until_complete(&workload, Duration::from_secs(10)));
    assert!(world.violations().is_empty());
    world
        .completion(1, &workload)
        .map_or(0, |completion| completion.requests)
}

#[test]
fn what_is_late_at_the_sender_is_not_asked_for() {
    assert_eq!(requests(Duration::from_millis(500)), 0);
    assert_ne!(requests(Duration::from_secs(5)), 0);
}
