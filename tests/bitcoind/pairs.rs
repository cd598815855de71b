//! Two bitcoinds that do not know each other, with two relays between them and nothing else.

use serde_json::json;

use super::harness::{Bitcoind, executable};
use super::miner::Miner;
use super::relay::{Relay, Ways};

/// A and B with a relay beside each, the relays connected.
pub struct Pair {
    pub a: Bitcoind,
    pub b: Bitcoind,
    pub first: Relay,
    pub second: Relay,
}

impl Pair {
    /// All of it, with these arguments for both bitcoinds.
    pub fn start(arguments: &[&str]) -> Option<Self> {
        let executable = executable()?;
        let a = Bitcoind::start(&executable, arguments);
        let b = Bitcoind::start(&executable, arguments);
        let first = Relay::beside(&a, Ways::ALL, None);
        let second = Relay::beside(&b, Ways::ALL, Some(&first));
        second.wait_for_peers(1);
        for relay in [&first, &second] {
            relay.wait_for_node(0, Ways::ALL);
        }
        Some(Self {
            a,
            b,
            first,
            second,
        })
    }

    /// Waits until B has A's best block.
    pub fn settle(&self) {
        let tip = self.a.tip();
        assert!(
            self.b.try_wait_for_block(tip) == tip,
            "B stays at {}, A at {}\nA's relay:\n{}\nB's relay:\n{}",
            self.b.call("getblockcount", json!([])),
            self.a.call("getblockcount", json!([])),
            self.first.log.tail(),
            self.second.log.tail()
        );
    }
}

#[test]
fn blocks_full_of_transactions_reach_the_other_node() {
    let Some(pair) = Pair::start(&Miner::ARGUMENTS) else {
        return;
    };
    let (blocks, transactions) = match std::env::var_os("BLOCKTORRENT_FULL") {
        Some(_) => (100, 1_500),
        None => (8, 300),
    };
    let mut miner = Miner::new(&pair.a, 7);
    miner.prepare(2 * transactions);
    pair.settle();
    for _ in 0..blocks {
        miner.split(2 * transactions);
        miner.fill(transactions);
        miner.mine();
        pair.settle();
        let block = pair.b.call("getblock", json!([pair.a.tip()]));
        let count = block["nTx"].as_u64().expect("a number");
        assert_eq!(count, transactions as u64 + 1);
    }
    // Nothing was in B's mempool: every transaction came by the relay. A's relay has told no node of a block twice.
    let line = pair.second.log.wait("to bitcoind 0:");
    assert!(line.contains("first by relay, whole by relay"), "{line}");
    assert_eq!(pair.second.nodes()[0]["submitted"]["failed"], 0);
}

#[test]
fn reorganisations_of_one_and_of_ten_blocks_are_followed() {
    let Some(pair) = Pair::start(&[]) else {
        return;
    };
    pair.a.mine(20);
    pair.settle();
    for (script, depth) in [("52", 1), ("53", 10), ("54", 1)] {
        let height = pair
            .a
            .call("getblockcount", json!([]))
            .as_u64()
            .expect("a number");
        let undone = pair.a.call("getblockhash", json!([height - depth + 1]));
        pair.a.call("invalidateblock", json!([undone]));
        // Other blocks than before: their coinbases pay to somebody else.
        let count = depth as u32 + 1;
        pair.a.call(
            "generatetodescriptor",
            json!([count, format!("raw({script})")]),
        );
        pair.settle();
        let back = pair.b.call("getblockheader", json!([undone]));
        assert_eq!(back["confirmations"], -1, "depth {depth}");
    }
    pair.a.mine(1);
    pair.settle();
    for relay in [&pair.first, &pair.second] {
        let peers = relay.call("getpeerinfo", json!([]));
        let refused = &relay.call("getnetworkinfo", json!([]))["refused"];
        assert_eq!(peers[0]["score"], 0, "{peers}\n{refused}");
    }
}

#[test]
fn a_plain_bitcoind_gets_blocks_at_the_p2p_port_alone() {
    let Some(pair) = Pair::start(&Miner::ARGUMENTS) else {
        return;
    };
    let executable = executable().expect("there was one");
    let mut miner = Miner::new(&pair.a, 8);
    miner.prepare(400);
    pair.settle();
    // While it thinks itself behind it fetches no blocks from a node that limits itself.
    let arguments = [&Miner::ARGUMENTS[..], &["-maxtipage=1000000000"]].concat();
    let c = Bitcoind::start(&executable, &arguments);
    let remote = pair.second.p2p().to_string();
    c.call("addnode", json!([remote, "add"]));
    // What is there already, and new ones, full and in a burst.
    c.wait_for_block(pair.a.tip());
    for _ in 0..3 {
        miner.fill(100);
        c.wait_for_block(miner.mine());
    }
    let last = *pair.a.mine(30).last().expect("it was mined");
    c.wait_for_block(last);
    pair.settle();
    let peers = c.call("getpeerinfo", json!([]));
    assert_eq!(peers.as_array().map(Vec::len), Some(1), "{peers}");
}
