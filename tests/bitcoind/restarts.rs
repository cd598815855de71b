//! Bitcoinds that are killed in the middle of it all, and come back with less than they had.

use serde_json::json;

use super::pairs::Pair;

/// A's chain after a kill may be shorter: what it mined and forgot, its relay gives it back.
fn wait_for_same_tip(pair: &Pair) {
    pair.a.mine(1);
    pair.settle();
}

#[test]
fn both_are_killed_while_blocks_are_mined_and_go_on_where_they_were() {
    let Some(mut pair) = Pair::start(&[]) else {
        return;
    };
    pair.a.mine(5);
    pair.settle();
    for round in 0..3 {
        pair.a.mine(20);
        let before = pair.a.tip();
        // Some of these are on their way.
        pair.b.kill();
        pair.a.mine(5);
        pair.b.start_again();
        pair.settle();
        pair.a.mine(10);
        let mined = pair.a.tip();
        // What its relay has not heard of either is lost with it.
        let height = pair.a.call("getblockcount", json!([]));
        pair.first
            .wait_until("getblockchaininfo", |info| info["blocks"] == height);
        pair.a.kill();
        pair.a.start_again();
        pair.first.wait_until("getblockchaininfo", |info| {
            let node = &info["bitcoind"][0];
            node["state"] == "live" && node["p2p"] == true && node["zmq"] == true
        });
        // A is given back what it had not written.
        pair.a.wait_for_block_or_more(mined);
        pair.settle();
        wait_for_same_tip(&pair);
        assert_ne!(pair.a.tip(), before, "round {round}");
    }
    for relay in [&pair.first, &pair.second] {
        let submitted = &relay.nodes()[0]["submitted"];
        assert_eq!(submitted["invalid"], json!(0), "{submitted}");
    }
}

#[test]
fn a_relay_that_was_away_brings_what_it_missed() {
    let Some(pair) = Pair::start(&[]) else {
        return;
    };
    pair.a.mine(5);
    pair.settle();
    let Pair {
        a,
        b,
        first,
        second,
    } = pair;
    drop((first, second));
    a.mine(30);
    let ways = super::relay::Ways::ALL;
    let first = super::relay::Relay::beside(&a, ways, None);
    let second = super::relay::Relay::beside(&b, ways, Some(&first));
    let pair = Pair {
        a,
        b,
        first,
        second,
    };
    pair.a.mine(1);
    pair.settle();
}
