use super::super::protocol;
use super::super::topology::Topology;
use super::*;
use proptest::prelude::*;

fn trial(text: &str, seed: u64) -> Trial {
    let scenario = Scenario::from_toml("test", text).expect("a scenario");
    Trial::new(&scenario, seed, None).expect("a trial")
}

fn refused(text: &str, file: Option<Bytes>) -> String {
    let scenario = Scenario::from_toml("test", text).expect("a scenario");
    let refused = Trial::new(&scenario, 1, file).err();
    refused.expect(text).to_string()
}

#[test]
fn the_default_is_the_block_of_the_targets() {
    let trial = trial("", 1);
    let workload = &trial.blocks[0].workload;
    assert_eq!(workload.transactions.len(), 2_499);
    let off = workload.block.len().abs_diff(1_060_000);
    assert!(off < 5_000, "{}", workload.block.len());
    assert_eq!(trial.blocks[0].lacked[0].len(), 0);
    assert_eq!(trial.blocks[0].lacked[1].len(), 2_499);
    let bound = trial.blocks[0].bounds[1].expect("joined").as_millis();
    assert_eq!(bound, 219);
}

#[test]
fn blocks_have_the_size_and_shape_asked_for() {
    for (text, bytes, transactions) in [
        ("bytes=1000000", 1_000_000, None),
        ("bytes=32000000", 32_000_000, None),
        ("transactions=1", 300, Some(1)),
        ("transactions=2", 600, Some(2)),
        ("bytes=1000000\ntransactions=400", 1_000_000, Some(400)),
        ("bytes=1000000\ntransactions=8000", 1_000_000, Some(8_000)),
        (
            "bytes=800000\ntransactions=50\nshape='one-giant'",
            800_000,
            Some(50),
        ),
        ("bytes=800000\nshape='even'", 800_000, None),
        ("real='mainnet-702861'", 1_381_836, Some(2_500)),
        ("bytes=100", 300, None),
    ] {
        let trial = trial(&format!("[block]\n{text}"), 3);
        let workload = &trial.blocks[0].workload;
        let size = workload.block.len();
        let near = size.abs_diff(bytes) < 400 + bytes / 100;
        assert!(
            near,
            "{text}: {size} bytes, {} transactions",
            workload.transactions.len()
        );
        if let Some(transactions) = transactions {
            assert_eq!(workload.transactions.len() + 1, transactions, "{text}");
        }
        let coinbase = workload.coinbase_bytes();
        assert!((60..1_000).contains(&coinbase), "{coinbase}");
    }
}

#[test]
fn the_wild_is_as_its_table_says() {
    for (share, bytes) in WILD {
        let at = wild_missing_bytes(*share);
        assert!((at - bytes).abs() < 1.0 + bytes * 1e-9, "{share}: {at}");
    }
    let shares: Vec<f64> = (0..=1_000)
        .map(|at| wild_missing_bytes(f64::from(at) / 1_000.0))
        .collect();
    assert!(shares.windows(2).all(|pair| pair[0] <= pair[1]));
    // A thousand nodes, each of which draws its own.
    let trial = trial(
        "[topology]\nkind='star'\nnodes=1001\n[mempool]\noverlap='wild'",
        9,
    );
    let block = &trial.blocks[0];
    let mut missing: Vec<u64> = block.lacked[1..]
        .iter()
        .map(|lacked| {
            lacked
                .iter()
                .map(|&place| block.workload.transactions[place as usize - 1].len() as u64)
                .sum()
        })
        .collect();
    missing.sort_unstable();
    let none = missing.iter().filter(|bytes| **bytes == 0).count();
    assert!((440..560).contains(&none), "{none}");
    for (share, most) in [(890, 900), (940, 50_000)] {
        assert!(missing[share] <= most, "{share}: {}", missing[share]);
    }
    assert!(missing[985] > 100_000, "{}", missing[985]);
}

#[test]
fn mempools_lack_as_many_as_was_said() {
    let lacked = |text: &str| {
        let trial = trial(
            &format!("[topology]\nkind='star'\nnodes=4\n[mempool]\n{text}"),
            2,
        );
        trial.blocks[0].lacked.clone()
    };
    let own = lacked("overlap=0.99");
    assert!(own[1..].iter().all(|lacked| lacked.len() == 25));
    assert_ne!(own[1], own[2]);
    let common = lacked("overlap=0.9\ntogether=true\nsource_overlap=0.5");
    assert_eq!(common[1], common[2]);
    assert_eq!((common[0].len(), common[1].len()), (1_250, 250));
}

#[test]
fn paths_and_ways_back_differ_where_said() {
    let trial = trial(
        "[topology]\nnodes=3\n[link]\nloss=0.1\nback={loss=0.2}\n[[path]]\nbetween=[2,1]\nlink={delay_ms=7}\nback={rate_mbit=8}",
        1,
    );
    let [forth, back] = &trial.links[0];
    assert_eq!((forth.loss, back.loss), (0.1, 0.2));
    assert_eq!(forth.delay, Duration::from_millis(50));
    // From 1 to 2 is the way back of a path from 2 to 1.
    let [forth, back] = &trial.links[1];
    assert_eq!(
        (forth.delay, back.delay),
        (Duration::from_millis(7), Duration::from_millis(7))
    );
    assert_eq!(
        (forth.rate_bytes_per_s, back.rate_bytes_per_s),
        (Some(1_000_000), Some(6_250_000))
    );
}

#[test]
fn bounds_are_of_the_best_that_links_are_from_the_submission_on() {
    let bound = |events: &str| {
        let trial = trial(&format!("[block]\nbytes=625000\n{events}"), 1);
        let bytes = trial.blocks[0].bytes_to_cross[1] as f64 / 1e3;
        let bound = trial.blocks[0].bounds[1].expect("joined").as_secs_f64() * 1e3;
        (bound, bytes)
    };
    let event =
        |at: i32, link: &str| format!("[[event]]\nat_ms={at}\nkind='set-link'\nlink={{{link}}}\n");
    for (events, delay, kilobytes_per_ms) in [
        (String::new(), 50.0, 6.25),
        // Before the block it is as if it had always been so, be it better or worse.
        (event(-1_000, "delay_ms=5, rate_mbit=500"), 5.0, 62.5),
        (event(-1_000, "delay_ms=80, rate_mbit=25"), 80.0, 3.125),
        // Later the better counts.
        (event(10, "delay_ms=5, rate_mbit=500"), 5.0, 62.5),
        (event(10, "delay_ms=80, rate_mbit=25"), 50.0, 6.25),
        (event(10, "rate_mbit=0"), 50.0, f64::INFINITY),
        (
            event(9, "rate_mbit=500") + &event(-9, "delay_ms=80"),
            80.0,
            62.5,
        ),
        (
            event(-9, "rate_mbit=500") + &event(-8, "rate_mbit=25"),
            50.0,
            3.125,
        ),
    ] {
        let (bound, bytes) = bound(&events);
        let expected = delay + bytes / kilobytes_per_ms;
        assert!(
            (bound - expected).abs() < 1e-3,
            "{events}: {bound} {expected}"
        );
    }
    let one_way = "[topology]\nnodes=3\n[[event]]\nat_ms=1\nkind='set-link'\nbetween=[1,0]\nback={delay_ms=1}\n";
    let trial = trial(one_way, 1);
    let delays = trial.network(Duration::ZERO).least_delays(0);
    let millis = |delay: u64| Some(Duration::from_millis(delay));
    assert_eq!(delays, [millis(0), millis(1), millis(51)]);
    assert_eq!(trial.network(Duration::ZERO).least_delays(1)[0], millis(50));
}

/// Of scenarios that were found to have been beaten: links that get better, and nodes that send little together.
#[test]
fn no_protocol_beats_a_bound() {
    let access = "[access]\nup_mbit=5\n[[access.except]]\nnodes=[0]\nup_mbit=50\n";
    for text in [
        format!("[topology]\nnodes=3\n{access}"),
        format!("[topology]\nnodes=8\nkind='mesh'\n{access}"),
        "[[event]]\nat_ms=-1000\nkind='set-link'\nlink={delay_ms=5, rate_mbit=500}\n".to_owned(),
        "[topology]\nnodes=3\n[[event]]\nat_ms=20\nkind='set-link'\nbetween=[0,1]\nlink={delay_ms=5, rate_mbit=0}\n".to_owned(),
    ] {
        let trial = trial(&format!("[block]\nbytes=300000\n{text}"), 1);
        for protocol in protocol::every() {
            let outcome = protocol.run(&trial, &mut |_| {});
            assert!(outcome.is_complete(), "{}: {text}", protocol.name());
            for part in outcome.parts() {
                let added = part.added_delay_ms().expect("whole");
                assert!(added > 0.0, "{}: {added} ms, {text}", protocol.name());
            }
        }
    }
}

#[test]
fn what_only_shows_when_drawn_is_told() {
    let problem = refused(
        "[block]\nfile='x.raw'",
        Some(Bytes::from_static(b"no block")),
    );
    assert!(
        problem.contains("\"x.raw\" is no serialized block"),
        "{problem}"
    );
    let problem = refused(
        "[topology]\nnodes=3\n[[adversary]]\nkind='alters-transactions'\nnodes=[0]",
        None,
    );
    assert!(problem.contains("handed in at node 0"), "{problem}");
    let problem = refused(
        "[topology]\nkind='regular'\nnodes=40\ndegree=3\n[[path]]\nbetween=[0,1]\n[[path]]\nbetween=[0,2]\n[[path]]\nbetween=[0,3]\n[[path]]\nbetween=[0,4]",
        None,
    );
    assert!(
        problem.contains(".between: nodes 0 and") && problem.contains("are not joined"),
        "{problem}"
    );
    let problem = refused(
        "[topology]\nkind='line'\nnodes=4\n[[adversary]]\nkind='alters-transactions'\n[block]\nracing=2\nfrom=[0, 3]",
        None,
    );
    assert!(problem.contains("would cut honest nodes off"), "{problem}");
}

proptest! {
    #[test]
    fn adversaries_cut_nobody_off(seed in any::<u64>(), count in 1usize..6) {
        let trial = trial(
            &format!("[topology]\nkind='regular'\nnodes=20\ndegree=4\n[block]\nbytes=2000\n[[adversary]]\nkind='alters-transactions'\ncount={count}"),
            seed,
        );
        prop_assert_eq!(trial.adversaries.len(), count);
        prop_assert!(trial.is_honest(0));
        let honest: Vec<usize> = (0..20).filter(|&node| trial.is_honest(node)).collect();
        let mut reached = std::collections::BTreeSet::from([0]);
        for _ in 0..20 {
            for &(one, other) in &trial.plan.edges {
                if trial.is_honest(one) && trial.is_honest(other) && (reached.contains(&one) || reached.contains(&other)) {
                    reached.extend([one, other]);
                }
            }
        }
        prop_assert_eq!(reached.len(), honest.len());
    }
}

#[test]
fn trials_are_drawn_from_their_seed_alone() {
    let text = "[topology]\nkind='regular'\nnodes=30\n[mempool]\noverlap='wild'\n[clock]\nskew_ms=100\n[block]\nbytes=50000";
    let (one, same, other) = (trial(text, 1), trial(text, 1), trial(text, 2));
    assert_eq!((&one.plan, &one.skews), (&same.plan, &same.skews));
    assert_eq!(one.blocks[0].workload.hash, same.blocks[0].workload.hash);
    assert_eq!(one.blocks[0].lacked, same.blocks[0].lacked);
    assert_ne!(one.plan, other.plan);
    assert_ne!(one.blocks[0].workload.hash, other.blocks[0].workload.hash);
    assert!(one.skews.iter().all(|skew| skew.abs() <= 100_000_000));
    assert_eq!(one.scenario.topology.kind, Topology::Regular);
}

#[test]
fn what_is_late_has_come_a_moment_before_or_is_lacking() {
    let text = "[topology]\nnodes=3\n[mempool]\noverlap=1\nlate_ms=5000";
    let scenario = Scenario::from_toml("late", text).unwrap();
    let trial = Trial::new(&scenario, 4, None).unwrap();
    let block = &trial.blocks[0];
    let count = block.workload.transactions.len();
    assert_eq!(block.lacked[0], [0; 0]);
    for node in 0..3 {
        let (lacked, late) = (&block.lacked[node], &block.late[node]);
        assert_eq!(lacked.len() + late.len(), count);
        assert!(lacked.iter().all(|place| !late.contains_key(place)));
        // Five seconds of ten minutes are on their way.
        let expected = if node == 0 { 0..1 } else { 8..40 };
        assert!(expected.contains(&lacked.len()), "{}", lacked.len());
        assert!(late.values().all(|before| before.as_secs() < 600));
    }
    // Who lacks one lacks what is young where it was handed in: half of it has been there for less than the mean delay.
    let age = |place: &u32| block.late[0][place].as_secs_f64();
    let young = block.lacked[1].iter().filter(|place| age(place) < 5.0);
    assert!(young.count() * 2 > block.lacked[1].len());
}
