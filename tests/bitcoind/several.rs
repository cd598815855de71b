//! Several bitcoinds beside one relay: which is asked, and that every one has every block.

use serde_json::json;

use super::harness::{Bitcoind, executable};
use super::miner::Miner;
use super::relay::{Relay, Ways};

fn live(relay: &Relay) -> Vec<bool> {
    let nodes = relay.nodes();
    nodes.iter().map(|node| node["live"] == true).collect()
}

#[test]
fn another_is_asked_when_one_fails_and_the_first_again_when_it_is_back() {
    let Some(executable) = executable() else {
        return;
    };
    let mut first = Bitcoind::start(&executable, &Miner::ARGUMENTS);
    let second = Bitcoind::start(&executable, &Miner::ARGUMENTS);
    let relay = Relay::start(&[Ways::ALL.to(&first), Ways::ALL.to(&second)], &[]);
    for number in [0, 1] {
        relay.wait_for_node(number, Ways::ALL);
    }
    // The relay is all that connects them.
    let mut miner = Miner::new(&first, 3);
    miner.prepare(300);
    second.wait_for_block(first.tip());
    relay.wait_until("getblockchaininfo", |info| {
        let nodes = info["bitcoind"].as_array().expect("a list").iter();
        nodes.filter(|node| node["state"] == "live").count() == 2
    });
    miner.fill(50);
    relay.wait_for_transactions(50);
    assert_eq!(live(&relay), [true, false]);
    drop(miner);
    first.kill();
    relay.wait_until("getblockchaininfo", |info| {
        info["bitcoind"][1]["live"] == true
    });
    assert_eq!(live(&relay), [false, true]);
    let nodes = relay.nodes();
    assert_eq!(nodes[0]["state"], "unreachable", "{nodes:?}");
    let reason = nodes[0]["reason"].as_str().expect("a text");
    assert!(reason.contains("can't reach"), "{reason}");
    assert_eq!(
        relay
            .log
            .lines_with("the Bitcoin node is unreachable")
            .len(),
        1
    );
    // What happens meanwhile reaches the first when it is back.
    let missed = *second.mine(10).last().expect("it was mined");
    first.start_again();
    first.wait_for_block(missed);
    // It is trusted again once it has been there for half a minute.
    relay.wait_until("getblockchaininfo", |info| {
        info["bitcoind"][0]["live"] == true
    });
    assert_eq!(live(&relay), [true, false]);
    let hash = *first.mine(1).last().expect("it was mined");
    second.wait_for_block(hash);
    relay.wait_for_tip(json!(hash).as_str().expect("a text"));
}

#[test]
fn a_node_that_lags_is_named_and_fed() {
    let Some(executable) = executable() else {
        return;
    };
    let lagging = Bitcoind::start(&executable, &[]);
    let leading = Bitcoind::start(&executable, &[]);
    // It can only be asked: what it lacks is given to it by RPC.
    let by_rpc = Ways {
        p2p: false,
        zmq: false,
        rpc: true,
    };
    // Neither thinks that it is behind the network.
    leading.mine(1);
    let block = leading.call("getblock", json!([leading.tip(), 0]));
    lagging.call("submitblock", json!([block]));
    let last = *leading.mine(20).last().expect("they were mined");
    let relay = Relay::start(&[by_rpc.to(&lagging), by_rpc.to(&leading)], &[]);
    lagging.wait_for_block(last);
    let line = relay.log.wait("the Bitcoin node is behind");
    assert!(line.contains("has block"), "{line}");
    relay.wait_until("getblockchaininfo", |info| {
        info["bitcoind"][0]["state"] == "live" && info["bitcoind"][0]["lag"] == 0
    });
}
