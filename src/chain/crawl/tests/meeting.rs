//! Relays among ordinary nodes: whether, when and at what cost they find one another.

use std::time::Duration;

use super::world::World;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn two_strangers_find_each_other_through_one_that_only_gossips() {
    for seed in 0..20 {
        let mut world = World::new(1, 2, seed);
        let took = world.run_until(HOUR, World::all_meet);
        println!("seed {seed}: {took:?}, dials {:?}", world.dials());
        assert!(took.is_some_and(|took| took < Duration::from_secs(5 * 60)));
        assert!(world.dials().iter().all(|dials| *dials < 20));
    }
}

#[test]
fn five_relays_among_two_hundred_ordinary_nodes_all_meet() {
    let mut all = Vec::new();
    for seed in 0..12 {
        let mut world = World::new(200, 5, seed);
        let took = world.run_until(48 * HOUR, World::all_meet);
        let took = took.expect("they all meet");
        println!(
            "seed {seed}: {} s, dials {:?}",
            took.as_secs(),
            world.dials()
        );
        all.push(took);
        assert!(world.dials().iter().all(|dials| *dials < 2000));
    }
    all.sort_unstable();
    println!(
        "median {} s, worst {} s",
        all[6].as_secs(),
        all[11].as_secs()
    );
    assert!(all[6] < HOUR && all[11] < 12 * HOUR);
}

#[test]
fn a_network_that_was_parted_grows_together() {
    for seed in 0..4 {
        let mut world = World::new(60, 4, seed);
        world.part(true);
        assert_eq!(world.run_until(2 * HOUR, World::all_meet), None);
        world.part(false);
        let took = world
            .run_until(48 * HOUR, World::all_meet)
            .expect("they meet");
        // And once more, now that they know each other.
        world.part(true);
        assert_eq!(world.run_until(2 * HOUR, |_| false), None);
        world.part(false);
        let again = world
            .run_until(12 * HOUR, World::all_meet)
            .expect("they meet again");
        println!(
            "seed {seed}: {} s, again {} s",
            took.as_secs(),
            again.as_secs()
        );
        assert!(
            again <= HOUR,
            "a proven peer is tried again within the hour"
        );
    }
}

#[test]
fn after_a_restart_the_book_makes_it_quick() {
    for seed in 0..4 {
        let mut world = World::new(60, 4, seed);
        world
            .run_until(48 * HOUR, World::all_meet)
            .expect("they meet");
        for relay in 0..4 {
            world.stop(relay);
        }
        assert_eq!(world.run_until(HOUR, |_| false), None);
        for relay in 0..4 {
            world.restart(relay);
        }
        let took = world
            .run_until(HOUR, World::all_meet)
            .expect("they meet again");
        println!("seed {seed}: {} s after the restart", took.as_secs());
        assert!(took < Duration::from_secs(3 * 60));
    }
}

#[test]
fn nobody_is_pestered() {
    let mut world = World::new(200, 3, 5);
    assert_eq!(world.run_until(24 * HOUR, |_| false), None);
    for relay in &world.relays {
        assert!(
            relay.asked.values().all(|times| *times == 1),
            "one getaddr for a connection"
        );
        let gaps = relay.dials_at.windows(2).map(|pair| pair[1].since(pair[0]));
        assert!(gaps.min().unwrap() >= Duration::from_secs(1));
        println!("{} dials in a day", relay.dials_at.len());
        assert!(relay.dials_at.len() < 24 * 60);
    }
}
