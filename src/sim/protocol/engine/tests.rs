use super::super::super::scenario::Scenario;
use super::super::super::trial::Trial;
use super::*;

fn run(text: &str, seed: u64) -> Outcome {
    let scenario = Scenario::from_toml("test", text).expect("a scenario");
    let trial = Trial::new(&scenario, seed, None).expect("a trial");
    let outcome = Blocktorrent.run(&trial, &mut |_| {});
    assert_eq!(outcome.violations, Vec::<String>::new(), "{text}");
    outcome
}

#[test]
fn the_reference_comes_out_and_replays() {
    let text = "[mempool]\noverlap = 1";
    let outcome = run(text, 5);
    assert!(outcome.is_complete());
    let part = &outcome.blocks[0].nodes[1];
    assert!(
        (52.0..54.0).contains(&part.bound_ms.expect("joined")),
        "{part:?}"
    );
    assert!(part.added_delay_ms().expect("whole") < 60.0, "{part:?}");
    assert!(part.request_free && outcome.traffic[1].requests == 0);
    assert!(!part.pieces.is_empty());
    assert!(
        part.pieces
            .iter()
            .all(|piece| piece.at_ms <= part.whole_ms.expect("whole"))
    );
    assert_eq!(run(text, 5), outcome);
    assert_ne!(run(text, 6).trace_hash, outcome.trace_hash);
}

#[test]
fn requests_read_on_the_wire_are_those_that_the_engine_counts() {
    for (overlap, loss) in [(0.0, 0.0), (0.5, 0.05), (1.0, 0.1)] {
        let text = format!(
            "[topology]\nkind='mesh'\nnodes=3\n[block]\nbytes=200000\n[mempool]\noverlap={overlap}\n[link]\nloss={loss}"
        );
        let scenario = Scenario::from_toml("test", &text).expect("a scenario");
        let trial = Trial::new(&scenario, 3, None).expect("a trial");
        let mut world = world_of(&trial);
        let workload = &trial.blocks[0].workload;
        world.submit(0, workload, Duration::ZERO);
        assert!(world.run_until_complete(workload, Duration::from_secs(60)));
        for node in 0..3 {
            let jobs = world.engine(node).expect("there").jobs();
            let counted: u64 = jobs.iter().map(|job| job.requests).sum();
            let read = world
                .said(node)
                .map_or(0, |said| said.requests_for(&workload.hash));
            assert_eq!(read, counted, "overlap {overlap} node {node}");
        }
    }
}

#[test]
fn access_is_shared_by_all_links() {
    // Eight receivers of 125 kB over an uplink of 10 Mbit/s: 0.1 s each.
    let text = "[topology]\nkind='star'\nnodes=9\n[block]\nbytes=125000\n[access]\nup_mbit=10\n[link]\ndelay_ms=5\n[mempool]\nsource_overlap=1";
    let outcome = run(text, 1);
    assert!(outcome.is_complete());
    let last = outcome
        .parts()
        .filter_map(|part| part.whole_ms)
        .fold(0.0, f64::max);
    assert!((800.0..3_000.0).contains(&last), "{last}");
    assert!(outcome.blocks[0].nodes[1].bound_ms.expect("joined") > 100.0);
}

#[test]
fn what_befalls_nodes_and_links_is_survived() {
    for (name, event) in [
        (
            "partition",
            "[[event]]\nat_ms=20\nkind='partition'\nnodes=[3]\n[[event]]\nat_ms=2000\nkind='heal'",
        ),
        (
            "crash",
            "[[event]]\nat_ms=60\nkind='crash'\nnodes=[2]\n[[event]]\nat_ms=1500\nkind='restart'\nnodes=[2]",
        ),
        ("cut", "[[event]]\nat_ms=60\nkind='cut'\nbetween=[1,2]"),
        (
            "link",
            "[[event]]\nat_ms=60\nkind='link-down'\nbetween=[1,2]\n[[event]]\nat_ms=900\nkind='link-up'\nbetween=[1,2]",
        ),
        (
            "set",
            "[[event]]\nat_ms=60\nkind='set-link'\nlink={loss=0.2, delay_ms=80}\nback={rate_mbit=5}",
        ),
        ("left", "[[event]]\nat_ms=70\nkind='crash'\nnodes=[3]"),
    ] {
        let text = format!(
            "[topology]\nkind='line'\nnodes=4\n[block]\nbytes=300000\n[clock]\nskew_ms=5000\n{event}"
        );
        let outcome = run(&text, 4);
        let whole: Vec<_> = outcome.blocks[0]
            .nodes
            .iter()
            .map(|part| part.whole_ms)
            .collect();
        assert!(outcome.is_complete(), "{name}: {whole:?}");
        let late = outcome.blocks[0].nodes[3].whole_ms;
        match name {
            "left" => assert!(!outcome.blocks[0].nodes[3].counts),
            "partition" => assert!(late > Some(2_000.0), "{late:?}"),
            "crash" => assert!(late > Some(1_500.0), "{late:?}"),
            _ => assert!(late.is_some(), "{name}"),
        }
        assert_eq!(run(&text, 4).trace_hash, outcome.trace_hash, "{name}");
    }
}

#[test]
fn two_that_race_and_a_burst_reach_everyone() {
    for block in [
        "racing=2",
        "count=5\nevery_ms=30",
        "count=2\nracing=2\nfrom=[1, 3]",
    ] {
        let text = format!("[topology]\nkind='ring'\nnodes=4\n[block]\nbytes=100000\n{block}");
        let outcome = run(&text, 8);
        assert!(outcome.is_complete(), "{block}");
        let hashes: std::collections::BTreeSet<_> =
            outcome.blocks.iter().map(|block| &block.hash).collect();
        assert_eq!(hashes.len(), outcome.blocks.len());
    }
}

#[test]
fn blocks_beyond_bitcoins_limit_pass() {
    let outcome = run(
        "[block]\nbytes=9000000\n[link]\nrate_mbit=1000\ndelay_ms=5",
        1,
    );
    assert!(outcome.is_complete());
    assert!(outcome.blocks[0].transactions > 16_666);
}
