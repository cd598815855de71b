//! Nodes that come, fail, lag and return, in virtual time.

use bitcoin::BlockHash;
use bitcoin::hashes::Hash as _;
use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Time {
    Time::from_unix_seconds(1_000 + seconds)
}

fn info(blocks: u32) -> BlockchainInfo {
    BlockchainInfo {
        chain: "main".into(),
        blocks,
        headers: blocks,
        best_block_hash: BlockHash::all_zeros(),
        initial_block_download: false,
        verification_progress: 1.0,
        pruned: false,
        prune_height: None,
    }
}

fn gone() -> RpcError {
    RpcError::Unreachable {
        address: "h:1".into(),
        problem: "refused".into(),
    }
}

/// Whom the events say to prefer, one after the other.
fn preferences(nodes: &mut Nodes) -> Vec<Option<usize>> {
    let mut all = Vec::new();
    while let Some(event) = nodes.poll_event() {
        if let NodesEvent::Preferred { to, .. } = event {
            all.push(to);
        }
    }
    all
}

fn states(nodes: &Nodes) -> Vec<State> {
    nodes.statuses().map(|status| status.state).collect()
}

#[test]
fn a_node_whose_chain_cannot_be_followed_is_not_live() {
    let mut nodes = Nodes::new(&[true; 2], at(0), 1);
    nodes.handle_info(at(0), 0, info(900));
    nodes.handle_info(at(0), 1, info(5));
    assert_eq!(states(&nodes), [State::Live, State::Behind]);
    assert!(nodes.handle_foreign(at(1), 0, Some("too deep".into())));
    assert!(!nodes.handle_foreign(at(1), 0, Some("too deep".into())));
    // Whatever it tells, and the other is not behind it any more.
    nodes.handle_tip(at(2), 0, 901);
    nodes.handle_info(at(3), 0, info(901));
    nodes.handle_info(at(3), 1, info(5));
    assert_eq!(states(&nodes), [State::WrongNetwork, State::Live]);
    assert!(nodes.handle_foreign(at(4), 0, None));
    assert_eq!(states(&nodes).first(), Some(&State::Live));
}

#[test]
fn a_node_that_is_back_by_another_way_is_asked_at_once() {
    let mut nodes = Nodes::new(&[true], at(0), 1);
    assert_eq!(nodes.poll_probe(at(0)), Some(0));
    // While it is being asked there is nothing to ask.
    nodes.handle_reached(at(0), 0);
    assert_eq!(nodes.poll_probe(at(0)), None);
    for _ in 0..9 {
        nodes.handle_failure(at(0), 0, &gone());
    }
    assert_eq!(nodes.poll_probe(at(2)), None);
    nodes.handle_reached(at(2), 0);
    assert_eq!(nodes.poll_probe(at(2)), Some(0));
}

#[test]
fn a_fresh_regtest_is_live_and_what_catches_up_is_not() {
    let mut nodes = Nodes::new(&[true], at(0), 1);
    let fresh = |chain: &str| BlockchainInfo {
        chain: chain.into(),
        initial_block_download: true,
        ..info(0)
    };
    nodes.handle_info(at(0), 0, fresh("main"));
    assert_eq!(states(&nodes), [State::Behind]);
    nodes.handle_info(at(1), 0, fresh("regtest"));
    assert_eq!(states(&nodes), [State::Live]);
    let headers = BlockchainInfo {
        headers: 9,
        ..fresh("regtest")
    };
    nodes.handle_info(at(2), 0, headers);
    assert_eq!(states(&nodes), [State::Behind]);
}

#[test]
fn failover_is_immediate_and_return_takes_a_while() {
    let mut nodes = Nodes::new(&[true; 2], at(0), 1);
    assert_eq!(nodes.poll_probe(at(0)), Some(0));
    assert_eq!(nodes.poll_probe(at(0)), Some(1));
    assert_eq!(nodes.poll_probe(at(0)), None);
    nodes.handle_info(at(0), 1, info(5));
    nodes.handle_info(at(0), 0, info(5));
    // The first was only slower to answer: no reason to wait.
    assert_eq!(preferences(&mut nodes), [Some(1), Some(0)]);
    nodes.handle_failure(at(10), 0, &gone());
    assert_eq!(preferences(&mut nodes), [Some(1)]);
    nodes.handle_info(at(20), 0, info(5));
    assert_eq!(nodes.preferred(), Some(1));
    nodes.handle_timeout(at(49));
    assert_eq!(nodes.preferred(), Some(1));
    assert_eq!(nodes.poll_deadline(), Some(at(50)));
    nodes.handle_timeout(at(50));
    assert_eq!(preferences(&mut nodes), [Some(0)]);
    nodes.handle_failure(at(60), 1, &gone());
    nodes.handle_failure(at(60), 0, &gone());
    assert_eq!(preferences(&mut nodes), [None]);
    // With nobody else to ask, the first that comes back is asked.
    nodes.handle_info(at(61), 0, info(5));
    assert_eq!(preferences(&mut nodes), [Some(0)]);
}

#[test]
fn a_node_that_falls_behind_is_left_and_one_that_is_alone_is_kept() {
    let mut nodes = Nodes::new(&[true; 2], at(0), 1);
    nodes.handle_info(at(0), 0, info(10));
    nodes.handle_info(at(0), 1, info(12));
    assert_eq!(states(&nodes), [State::Live, State::Live]);
    nodes.handle_tip(at(1), 1, 13);
    assert_eq!(states(&nodes), [State::Behind, State::Live]);
    assert_eq!(nodes.preferred(), Some(1));
    let reason = &nodes.statuses().next().unwrap().reason;
    assert_eq!(reason, "has block 10 while block 13 is known");
    nodes.handle_failure(at(2), 1, &gone());
    assert_eq!(nodes.preferred(), Some(0));
    nodes.handle_tip(at(3), 0, 13);
    assert_eq!(states(&nodes), [State::Live, State::Unreachable]);
    let mut young = info(3);
    young.initial_block_download = true;
    nodes.handle_info(at(4), 0, young);
    assert_eq!(
        (states(&nodes)[0], nodes.preferred()),
        (State::Behind, Some(0))
    );
    // It is asked soon again when it has got further.
    assert_eq!(nodes.poll_probe(at(5)), Some(1));
    assert_eq!(nodes.poll_deadline(), Some(at(4) + PROBE_TIME));
    nodes.handle_tip(at(5), 0, 4);
    nodes.handle_tip(at(5), 0, 13);
    assert_eq!(states(&nodes)[0], State::Behind);
    assert_eq!(nodes.poll_deadline(), Some(at(5) + CATCH_UP_TIME));
    assert_eq!(nodes.poll_probe(at(6)), Some(0));
    nodes.handle_tip(at(6), 0, 14);
    assert_eq!(nodes.poll_probe(at(9)), None);
    nodes.handle_info(at(9), 0, info(14));
    assert_eq!(states(&nodes)[0], State::Live);
}

#[test]
fn every_kind_of_failure_has_its_state() {
    let mut nodes = Nodes::new(&[true], at(0), 1);
    let mut state = |error: RpcError| {
        nodes.handle_failure(at(1), 0, &error);
        states(&nodes)[0]
    };
    assert_eq!(
        state(RpcError::Busy {
            address: "h".into()
        }),
        State::Refused
    );
    assert_eq!(
        state(RpcError::WarmingUp("Loading".into())),
        State::WarmingUp
    );
    assert_eq!(state(RpcError::Timeout(3)), State::Unreachable);
    assert_eq!(state(RpcError::Garbage("x".into())), State::Refused);
    let wrong = RpcError::WrongNetwork {
        address: "h".into(),
        genesis: "g".into(),
        network: "main".into(),
    };
    assert_eq!(state(wrong), State::WrongNetwork);
    assert_eq!(
        state(RpcError::Node {
            code: -5,
            message: "x".into()
        }),
        State::Refused
    );
    // Of one that answers they say nothing.
    nodes.handle_info(at(2), 0, info(5));
    nodes.handle_failure(at(3), 0, &RpcError::TooLarge(9));
    assert_eq!(states(&nodes), [State::Live]);
    assert_eq!(nodes.poll_deadline(), Some(at(2) + PROBE_TIME));
}

#[test]
fn a_node_that_stays_away_is_tried_less_and_less_often() {
    let mut nodes = Nodes::new(&[true], at(0), 3);
    let (mut now, mut tries) = (at(0), 0);
    while now < at(600) {
        if nodes.poll_probe(now).is_some() {
            tries += 1;
            nodes.handle_failure(now, 0, &gone());
        }
        now = nodes.poll_deadline().unwrap();
    }
    assert!((20..40).contains(&tries), "{tries}");
    nodes.handle_info(now, 0, info(1));
    assert_eq!(nodes.poll_deadline(), Some(now + PROBE_TIME));
    nodes.handle_doubt(now, 0);
    assert_eq!(nodes.poll_probe(now), Some(0));
    nodes.handle_doubt(now, 0);
    assert_eq!(nodes.poll_probe(now), None);
}

#[test]
fn a_node_without_rpc_is_judged_by_what_is_heard_of_it() {
    let mut nodes = Nodes::new(&[true, false], at(0), 1);
    assert_eq!(nodes.poll_probe(at(0)), Some(0));
    assert_eq!(nodes.poll_deadline(), None);
    nodes.handle_tip(at(0), 1, 7);
    nodes.handle_tip(at(0), 0, 7);
    assert_eq!(states(&nodes), [State::NeverReached, State::Live]);
    nodes.handle_failure(at(1), 1, &gone());
    assert_eq!((nodes.preferred(), nodes.poll_deadline()), (None, None));
}

#[test]
fn a_node_without_rpc_comes_and_goes_with_its_connections() {
    let mut nodes = Nodes::new(&[false, true], at(0), 1);
    // What has RPC is judged by its answers alone.
    nodes.handle_reached(at(0), 1);
    nodes.handle_lost(at(0), 1, "x".into());
    assert_eq!(states(&nodes), [State::NeverReached; 2]);
    nodes.handle_reached(at(0), 0);
    assert_eq!(
        (states(&nodes)[0], nodes.preferred()),
        (State::Live, Some(0))
    );
    nodes.handle_tip(at(1), 0, 9);
    nodes.handle_reached(at(1), 0);
    let reason = |nodes: &Nodes| nodes.status(0).unwrap().reason.clone();
    assert_eq!(reason(&nodes), "at block 9");
    nodes.handle_lost(at(2), 0, "closed by the peer".into());
    assert_eq!(states(&nodes)[0], State::Unreachable);
    assert_eq!(
        (reason(&nodes).as_str(), nodes.preferred()),
        ("closed by the peer", None)
    );
    nodes.handle_reached(at(3), 0);
    assert_eq!(
        (reason(&nodes).as_str(), nodes.preferred()),
        ("at block 9", Some(0))
    );
}

proptest! {
    #[test]
    fn whoever_is_asked_can_answer_and_events_tell_all(
        steps in proptest::collection::vec((0_usize..3, 0_u8..7, 0_u64..40, 0_u32..8), 1..60),
    ) {
        let mut nodes = Nodes::new(&[true, true, false], at(0), 1);
        let (mut now, mut told) = (0, None);
        let mut seen = [State::NeverReached; 3];
        for (node, what, wait, height) in steps {
            now += wait;
            nodes.handle_timeout(at(now));
            match what {
                0 | 1 => nodes.handle_info(at(now), node, info(height)),
                2 => nodes.handle_tip(at(now), node, height),
                3 => nodes.handle_failure(at(now), node, &gone()),
                4 => nodes.handle_reached(at(now), node),
                5 => nodes.handle_lost(at(now), node, "x".into()),
                _ => nodes.handle_failure(at(now), node, &RpcError::WarmingUp("x".into())),
            }
            while let Some(event) = nodes.poll_event() {
                match event {
                    NodesEvent::State { node, from, to, .. } => {
                        prop_assert_eq!(seen[node], from);
                        seen[node] = to;
                    }
                    NodesEvent::Preferred { from, to } => {
                        prop_assert_eq!(told, from);
                        told = to;
                    }
                }
            }
            prop_assert_eq!(told, nodes.preferred());
            prop_assert_eq!(&seen[..], &states(&nodes)[..]);
            let best = seen.iter().copied().filter(|state| state.is_usable()).max();
            prop_assert_eq!(told.map(|node| seen[node]), best);
        }
    }
}
