use super::*;
use crate::sim::topology::Topology;
use proptest::prelude::*;

fn problem(text: &str) -> String {
    Scenario::from_toml("s.toml", text)
        .expect_err(text)
        .to_string()
}

#[test]
fn nothing_said_is_the_reference() {
    let scenario = Scenario::from_toml("s.toml", "").expect("every key has a default");
    assert_eq!(scenario, Scenario::default());
    assert_eq!(
        (scenario.topology.nodes, scenario.link.rate_mbit),
        (2, 50.0)
    );
    let link = scenario.link.options(None);
    assert_eq!(link, crate::sim::LinkOptions::default());
}

#[test]
fn faults_are_named_by_line_and_key_with_what_to_write() {
    for (text, says) in [
        (
            "nam = 'x'",
            "s.toml, line 1: no key is called `nam` here; did you mean `name`?",
        ),
        (
            "\n[link]\ndelay = 5",
            "line 3: no key is called `delay` here; did you mean `delay_ms`?",
        ),
        (
            "[link]\nwind = 5",
            "line 2: no key is called `wind` here; write one of delay_ms, jitter_ms",
        ),
        (
            "[link]\nloss = '1%'",
            "line 2: loss: give a number, without quotes",
        ),
        (
            "[link]\n\nloss = 5",
            "line 3: link.loss: 5 is out of range; give a number from 0 to 1",
        ),
        (
            "[link]\nback = { loss = 2 }",
            "line 2: link.back.loss: 2 is out of range",
        ),
        (
            "[topology]\nnodes = 0",
            "line 2: topology.nodes: 0 is out of range; give a whole number from 1 to",
        ),
        (
            "[topology]\nkind = 'knot'",
            "line 2: kind: `knot` is not known here; write one of line, ring",
        ),
        ("[topology]\nnodes = -1", "line 2: nodes: "),
        (
            "[topology]\ndegree = 3",
            "line 2: topology.degree: leave it out, or let `kind` be",
        ),
        (
            "[topology]\nkind = 'regular'\nnodes = 9\ndegree = 5",
            "line 4: topology.degree: nodes times degree must be even",
        ),
        (
            "[topology]\nkind='geographic'\n[link]\ndelay_ms=5",
            "line 4: link.delay_ms: leave it out",
        ),
        (
            "[block]\nbytes = 1000\ntransactions = 500",
            "line 2: block.bytes: 500 transactions take at least",
        ),
        (
            "[block]\nfile = 'a'\nreal = 'mainnet-702861'",
            "line 1: block: give one of",
        ),
        (
            "[block]\nracing = 3",
            "line 2: block.racing: 3 is out of range; give a whole number from 1 to 2",
        ),
        (
            "[mempool]\noverlap = 'tame'",
            "line 2: overlap: invalid value: string \"tame\", expected a share from 0 to 1, or \"wild\"",
        ),
        (
            "[mempool]\noverlap = 1.5",
            "line 2: mempool.overlap: 1.5 is out of range",
        ),
        (
            "[[event]]\nat_ms = 5\nkind = 'crash'",
            "line 1: event.0.nodes: name the nodes",
        ),
        (
            "[[event]]\nat_ms = 5\nkind = 'crash'\nnodes = [7]",
            "line 4: event.0.nodes: there is no node 7; give numbers from 0 to 1",
        ),
        (
            "[[event]]\nat_ms = 5\nkind = 'set-link'",
            "event.0.link: say what changes",
        ),
        (
            "[[event]]\nat_ms = 5\nkind = 'heal'\nbetween = [0, 1]",
            "line 4: event.0.between: leave it out",
        ),
        ("[[event]]\nkind = 'heal'", "`at_ms` is missing; add it"),
        (
            "[[event]]\nat_ms = 1",
            "`kind` is missing; add it, as in kind = \"crash\"",
        ),
        (
            "[topology]\nkind = 'heap'",
            "line 2: kind: `heap` is not known here; write one of line, ring, star,",
        ),
        (
            "runs = 5000000000",
            "line 1: runs: give a whole number from 0 to 4294967295",
        ),
        (
            "[limit]\nseconds = 1e300",
            "line 2: limit.seconds: 1e300 is out of range; give a number from",
        ),
        (
            "[[adversary]]\nkind = 'alters-transactions'",
            "of 2 nodes at most 0 may be adversaries",
        ),
        (
            "[[path]]\nbetween = [1, 1]",
            "line 2: path.0.between: give two different nodes",
        ),
        (
            "[topology]\nnodes = 3\n[[path]]\nbetween = [0, 2]",
            "line 4: path.0.between: nodes 0 and 2 are not joined; 0 is joined to 1",
        ),
        (
            "[topology]\nnodes = 3\nkind = 'star'\n[[event]]\nat_ms = 1\nkind = 'cut'\nbetween = [2, 1]",
            "line 7: event.0.between: nodes 2 and 1 are not joined; 2 is joined to 0",
        ),
        (
            "[[path]]\nbetween = [0, 1]\n[[path]]\nbetween = [1, 0]",
            "line 4: path.1.between: nodes 1 and 0 have a path already",
        ),
        (
            "[block]\nbytes = 1000000\ntransactions = 1",
            "line 2: block.bytes: leave it out, or give more transactions",
        ),
        (
            "[link]\nqueue_ms = 100\nqueue_kb = 9",
            "line 3: link.queue_kb: leave it out, or `queue_ms`",
        ),
        (
            "[[event]]\nat_ms = 1\nkind = 'set-link'\nlink = { queue_ms = 5, queue_kb = 9 }",
            "line 4: event.0.link.queue_kb: leave it out, or `queue_ms`",
        ),
        (
            "[topology]\nnodes = 5\n[[adversary]]\nkind = 'floods'\nnodes = [1]\n[[adversary]]\nkind = 'withholds'\nnodes = [1]",
            "line 8: adversary.1.nodes: node 1 is an adversary already",
        ),
        (
            "[topology]\nnodes = 5\n[[adversary]]\nkind = 'floods'\ncount = 18446744073709551615\n[[adversary]]\nkind = 'floods'",
            "adversary.0: of 5 nodes at most 3 may be",
        ),
        (
            "[[event]]\nat_ms = 1\nkind = 'partition'\nnodes = [1, 0, 1]",
            "line 4: event.0.nodes: leave some out",
        ),
        (
            "[topology]\nkind = 'regular'\nnodes = 1\ndegree = 1",
            "line 4: topology.degree: leave it out: one node",
        ),
        ("name = ''", "line 1: name: give 1 to 64 letters"),
        ("name = 'x'\nname = 'y'", "line 2"),
    ] {
        let problem = problem(text);
        assert!(problem.contains(says), "{problem}\n  lacks  {says}");
        assert!(!problem.contains('\n'), "{problem}");
    }
}

#[test]
fn keys_can_be_set_from_outside() {
    let text = "[topology]\nnodes = 4\n[[event]]\nat_ms = 1\nkind = 'crash'\nnodes = [1]";
    let set = |key: &str, value: &str| {
        Scenario::with_changes("s.toml", text, &[(key.to_owned(), value.to_owned())])
    };
    assert_eq!(set("link.loss", "0.05").expect("valid").link.loss, 0.05);
    assert_eq!(
        set("topology.kind", "ring").expect("valid").topology.kind,
        Topology::Ring
    );
    assert_eq!(
        set("mempool.overlap", "wild")
            .expect("valid")
            .mempool
            .overlap,
        Overlap::Wild
    );
    assert_eq!(
        set("event.0.at_ms", "9").expect("valid").event[0].at_ms,
        9.0
    );
    assert_eq!(
        set("link.back.loss", "0.5").expect("valid").link.back.loss,
        Some(0.5)
    );
    assert_eq!(set("block.from", "[3]").expect("valid").block.from, [3]);
    for (key, value, says) in [
        (
            "link.los",
            "1",
            "--set link.los: no key is called `los` here; did you mean `loss`?",
        ),
        (
            "event.5.at_ms",
            "1",
            "--set event.5.at_ms: `event.5.at_ms` is no table",
        ),
        ("name.x", "1", "--set name.x: "),
        ("link.loss", "lots", "--set link.loss: give a number"),
        (
            "link.loss",
            "7",
            "--set link.loss: link.loss: 7 is out of range",
        ),
        (
            "topology.nodes",
            "1",
            "line 6: event.0.nodes: there is no node 1",
        ),
        (
            "seed",
            "-1",
            "--set seed: give a whole number from 0 to 18446744073709551615",
        ),
        (
            "path.0.between",
            "[0, 1]",
            "--set path.0.between: there is no path 0",
        ),
        (
            "link.mtu",
            "-1",
            "--set link.mtu: give a whole number, not negative",
        ),
    ] {
        let problem = set(key, value).expect_err(key).to_string();
        assert!(problem.contains(says), "{problem}\n  lacks  {says}");
    }
}

#[test]
fn every_seed_can_be_said() {
    let text = format!("seed = {}", u64::MAX);
    let change = |key: &str, value: String| vec![(key.to_owned(), value)];
    for (changes, seed) in [
        (Vec::new(), u64::MAX),
        (change("link.loss", "0.1".to_owned()), u64::MAX),
        (change("seed", (u64::MAX - 1).to_string()), u64::MAX - 1),
    ] {
        let scenario = Scenario::with_changes("s", &text, &changes).expect("valid");
        assert_eq!(scenario.seed, seed);
        let again = Scenario::from_toml("again", &scenario.to_toml());
        assert_eq!(again, Ok(scenario));
    }
}

fn changes() -> impl Strategy<Value = LinkChange> {
    (
        prop::option::of(0.0..1_000.0),
        prop::option::of(0.0..1.0),
        prop::option::of(600u16..9_000),
        prop::option::of(any::<bool>()),
    )
        .prop_map(|(delay_ms, loss, mtu, udp)| LinkChange {
            delay_ms,
            loss,
            mtu,
            udp,
            ..LinkChange::default()
        })
}

fn scenarios() -> impl Strategy<Value = Scenario> {
    let kinds = prop::sample::select(vec![
        Topology::Line,
        Topology::Ring,
        Topology::Star,
        Topology::Mesh,
        Topology::Regular,
        Topology::SmallWorld,
        Topology::Geographic,
    ]);
    let overlap = prop_oneof![(0.0..=1.0).prop_map(Overlap::Share), Just(Overlap::Wild)];
    let event = prop_oneof![
        Just((EventKind::Heal, vec![], None, LinkChange::default())),
        Just((EventKind::Crash, vec![1, 2], None, LinkChange::default())),
        Just((
            EventKind::LinkDown,
            vec![],
            Some([0, 1]),
            LinkChange::default()
        )),
        (0.0..1.0).prop_map(|loss| {
            let change = LinkChange {
                loss: Some(loss),
                ..LinkChange::default()
            };
            (EventKind::SetLink, vec![], Some([1, 0]), change)
        }),
    ];
    (
        kinds,
        3usize..50,
        any::<u32>(),
        overlap,
        changes(),
        prop::collection::vec((0.0..9e6, event), 0..4),
        0.0..1.0,
    )
        .prop_map(|(kind, nodes, seed, overlap, back, events, loss)| {
            let mut scenario = Scenario {
                name: "drawn".to_owned(),
                about: "with \"quotes\" and ünicode".to_owned(),
                seed: seed.into(),
                ..Scenario::default()
            };
            scenario.topology.kind = kind;
            scenario.topology.nodes = nodes;
            scenario.mempool.overlap = overlap;
            scenario.link.loss = loss;
            scenario.link.back = back;
            if kind == Topology::Geographic {
                scenario.link.back.delay_ms = None;
            }
            scenario.event = events
                .into_iter()
                .map(|(at_ms, (kind, nodes, between, link))| EventSpec {
                    at_ms,
                    kind,
                    nodes,
                    between,
                    link,
                    back: LinkChange::default(),
                })
                .collect();
            scenario
        })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(scenario in scenarios()) {
        let text = scenario.to_toml();
        prop_assert_eq!(Scenario::from_toml("again", &text), Ok(scenario), "{}", text);
    }

    #[test]
    fn arbitrary_text_is_refused_in_one_line(text in "[\\[\\]a-z_.=0-9'\\n {}]{0,200}") {
        if let Err(error) = Scenario::from_toml("f", &text) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}
