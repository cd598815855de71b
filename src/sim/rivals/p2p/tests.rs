use super::super::BIP152_HIGH_BANDWIDTH;
use super::super::tests::{measured_link, spread};
use super::node::{Message, Node, Peer};
use super::*;
use crate::sim::scenario::Scenario;

fn node(mode: Mode, outbound: &[bool], holds_all: bool) -> Node {
    let peers = outbound.iter().enumerate();
    let peers = peers.map(|(node, &outbound)| Peer {
        node,
        outbound,
        wants_push: false,
    });
    Node::new(mode, peers.collect(), vec![holds_all])
}

fn said(node: &mut Node) -> Vec<(usize, Message)> {
    std::mem::take(&mut node.outgoing)
}

#[test]
fn who_holds_all_asks_nobody_and_tells_everyone_else() {
    let mut node = node(Mode::HighBandwidth, &[true, false, false], true);
    node.peers[2].wants_push = true;
    node.take(0, Message::Compact(0));
    assert_eq!(node.news, Some((0, Some(0))));
    let expected = [
        (2, Message::Compact(0)),
        (1, Message::Headers(0)),
        (0, Message::Select(true)),
    ];
    assert_eq!(said(&mut node), expected);
}

#[test]
fn what_is_lacking_is_asked_of_three_peers_at_most_and_the_third_place_is_kept_for_one_dialled() {
    let mut node = node(Mode::HighBandwidth, &[false, false, false, true], false);
    node.select();
    said(&mut node);
    let asks: Vec<bool> = [1, 0, 2]
        .into_iter()
        .map(|peer| {
            node.take(peer, Message::Compact(0));
            !said(&mut node).is_empty()
        })
        .collect();
    // Peer 2 was not selected: those that were are the one dialled and the first two others.
    assert_eq!(asks, [true, true, false]);
    node.take(3, Message::Compact(0));
    assert_eq!(said(&mut node), [(3, Message::AskTransactions(0))]);
    node.take(3, Message::Transactions(0));
    assert!(node.has(0));
    said(&mut node);
    node.take(1, Message::Transactions(0));
    assert_eq!(said(&mut node), []);
}

#[test]
fn what_is_announced_by_header_is_fetched_once_and_from_another_if_the_first_is_gone() {
    let mut node = node(Mode::LowBandwidth, &[true, true], false);
    node.take(0, Message::Headers(0));
    node.take(1, Message::Headers(0));
    assert_eq!(said(&mut node), [(0, Message::AskCompact(0))]);
    node.lose(0);
    assert_eq!(said(&mut node), [(1, Message::AskCompact(0))]);
    node.take(1, Message::Compact(0));
    assert_eq!(said(&mut node), [(1, Message::AskTransactions(0))]);
}

/// Bitcoin Core 31.99 over kernel TCP, as the targets have it: medians of 15 blocks and more, over one connection. The
/// model is given ten connections of eleven blocks each. The measured median must lie among the model's, or within 15%;
/// where the model errs by more, then towards less.
#[test]
fn figures_are_those_measured_with_bitcoin_core() {
    let rows: &[(Control, f64, [Option<f64>; 4])] = &[
        (
            Control::Bbr,
            0.0,
            [Some(84.0), Some(204.0), Some(208.0), Some(346.0)],
        ),
        (
            Control::Bbr,
            0.01,
            [Some(84.0), Some(203.0), Some(213.0), Some(437.0)],
        ),
        (
            Control::Bbr,
            0.03,
            [Some(159.0), Some(206.0), Some(359.0), Some(534.0)],
        ),
        (
            Control::Bbr,
            0.05,
            [Some(168.0), Some(465.0), Some(387.0), Some(615.0)],
        ),
        (
            Control::Cubic,
            0.0,
            [Some(153.0), Some(256.0), Some(359.0), Some(790.0)],
        ),
        (
            Control::Cubic,
            0.01,
            [Some(153.0), Some(258.0), Some(459.0), Some(6_324.0)],
        ),
    ];
    let mut wrong = Vec::new();
    println!("control  loss  overlap  measured  model least, median, most of connections");
    for (control, loss, cells) in rows {
        let protocol = PeerToPeer {
            control: *control,
            rehearsals: 0,
            ..BIP152_HIGH_BANDWIDTH
        };
        for (overlap, measured) in [1.0, 0.99, 0.95, 0.0].into_iter().zip(cells) {
            let Some(measured) = measured else { continue };
            let is_slow = *control == Control::Cubic && *loss > 0.0 && overlap < 0.5;
            let (seeds, blocks) = match (*loss > 0.0, is_slow) {
                (false, _) => (1, 15),
                (true, true) => (3, 3),
                (true, false) => (10, 11),
            };
            let link = measured_link(1, *loss, overlap, blocks);
            let [least, median, most] = spread(&protocol, &link, seeds);
            println!(
                "{control:?} {loss:>5} {overlap:>6} {measured:>9} {least:>8.0} {median:>6.0} {most:>6.0}"
            );
            if least > measured * 1.15 {
                wrong.push(format!(
                    "{control:?} {loss} {overlap}: {least:.0} for {measured}"
                ));
            }
            // One cell is far in the rival's favour: 5% loss at 99%, where the measured connection had a bad day.
            let favour = if *loss == 0.05 && overlap == 0.99 {
                0.65
            } else {
                0.85
            };
            if most < measured * favour {
                wrong.push(format!(
                    "{control:?} {loss} {overlap}: {most:.0} for {measured}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What `compare` shows: the first block after the rehearsals, of many runs. No median may be worse for the rival than
/// was measured by more than 15%.
#[test]
fn figures_compared_are_those_measured_or_less() {
    let rows = [
        (0.0, [84.0, 204.0, 208.0, 346.0]),
        (0.01, [84.0, 203.0, 213.0, 437.0]),
        (0.05, [168.0, 465.0, 387.0, 615.0]),
    ];
    let mut wrong = Vec::new();
    println!("loss  overlap  measured  model");
    for (loss, cells) in rows {
        for (overlap, measured) in [1.0, 0.99, 0.95, 0.0].into_iter().zip(cells) {
            let link = measured_link(1, loss, overlap, 1);
            let runs = if loss > 0.0 { 25 } else { 5 };
            let [_, median, _] = spread(&BIP152_HIGH_BANDWIDTH, &link, runs);
            println!("{loss:>5} {overlap:>6} {measured:>9} {median:>6.0}");
            if median > measured * 1.15 {
                wrong.push(format!("{loss} {overlap}: {median:.0} for {measured}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn figures_of_four_hops_are_those_measured_or_less() {
    for (overlap, measured, favour) in [(1.0, 359.0, 0.85), (0.0, 2_191.0, 0.7)] {
        let link = measured_link(4, 0.01, overlap, 5);
        let protocol = PeerToPeer {
            rehearsals: 0,
            ..BIP152_HIGH_BANDWIDTH
        };
        let [least, median, most] = spread(&protocol, &link, 5);
        println!("4 hops, {overlap}: measured {measured}, model {least:.0} {median:.0} {most:.0}");
        assert!(
            least < measured * 1.15 && most > measured * favour,
            "{least} {most}"
        );
    }
}

#[test]
fn modes_differ_by_their_round_trips() {
    let times = |mode, overlap| {
        let protocol = PeerToPeer {
            mode,
            ..BIP152_HIGH_BANDWIDTH
        };
        let scenario = Scenario::from_toml(
            "small",
            &format!(
                "[link]\nrate_mbit = 0\n[block]\ntransactions = 50\n[mempool]\noverlap = {overlap}"
            ),
        );
        let trial = Trial::new(&scenario.unwrap(), 5, None).unwrap();
        let outcome = protocol.run(&trial, &mut |_| {});
        assert_eq!(outcome, protocol.run(&trial, &mut |_| {}));
        let part = &outcome.blocks[0].nodes[1];
        (part.whole_ms.unwrap().round() as u64, part.request_free)
    };
    assert_eq!(times(Mode::HighBandwidth, 1.0), (50, true));
    assert_eq!(times(Mode::HighBandwidth, 0.9), (150, false));
    assert_eq!(times(Mode::LowBandwidth, 1.0), (150, false));
    assert_eq!(times(Mode::LowBandwidth, 0.9), (250, false));
    let (whole_ms, request_free) = times(Mode::Block, 1.0);
    assert!(
        (150..250).contains(&whole_ms) && !request_free,
        "{whole_ms}"
    );
}

#[test]
fn blocks_outlast_crashes_cuts_and_partitions() {
    let scenario = Scenario::from_toml(
        "bad-day",
        "[topology]\nkind = 'ring'\nnodes = 6\n[link]\nloss = 0.02\n[block]\nbytes = 300000\n\
         [[event]]\nat_ms = 40\nkind = 'partition'\nnodes = [3, 4]\n\
         [[event]]\nat_ms = 90\nkind = 'crash'\nnodes = [1]\n\
         [[event]]\nat_ms = 100\nkind = 'cut'\nbetween = [0, 5]\n\
         [[event]]\nat_ms = 3000\nkind = 'restart'\nnodes = [1]\n\
         [[event]]\nat_ms = 4000\nkind = 'heal'",
    );
    let scenario = scenario.unwrap();
    for seed in 1..6 {
        let trial = Trial::new(&scenario, seed, None).unwrap();
        for mode in [Mode::Block, Mode::LowBandwidth, Mode::HighBandwidth] {
            let protocol = PeerToPeer {
                mode,
                ..BIP152_HIGH_BANDWIDTH
            };
            let outcome = protocol.run(&trial, &mut |_| {});
            assert!(outcome.is_complete(), "{mode:?}, seed {seed}");
        }
    }
}
