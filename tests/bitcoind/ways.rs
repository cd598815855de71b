//! A block that A mines reaches B over two relays, in whatever ways these reach their bitcoinds; and so does a burst of
//! blocks, which is faster than any of them carries, without a gap.

use std::path::Path;

use serde_json::json;

use super::harness::{Bitcoind, executable};
use super::relay::{Relay, Ways};

/// Blocks of a burst: more than are relayed at once, kept at hand, or waiting for `submitblock`.
const BURST: u32 = 40;
/// The same in a full run: more than the time of a coinbase's maturity in a quarter of a second.
const FULL_BURST: u32 = 105;

fn burst() -> u32 {
    match std::env::var_os("BLOCKTORRENT_FULL") {
        Some(_) => FULL_BURST,
        None => BURST,
    }
}

/// A relay beside A. One that only has ZMQ hears of no headers before its start, so it is told where to begin.
fn first_relay(a: &Bitcoind, ways: Ways) -> Relay {
    let height = a.call("getblockcount", json!([]));
    let start = format!("{height},{},207fffff", a.tip());
    let by_zmq_alone = ways.zmq && !ways.p2p && !ways.rpc;
    match by_zmq_alone && height != json!(0) {
        true => Relay::start(&[ways.to(a)], &["--trusted-start", &start]),
        false => Relay::beside(a, ways, None),
    }
}

/// Mines single blocks and bursts at A, and waits for each at B.
fn mine_and_wait(a: &Bitcoind, b: &Bitcoind, relays: &[&Relay], what: &str) {
    for count in [1, burst(), 1, 7] {
        let hash = *a.mine(count).last().expect("it was mined");
        let tip = b.try_wait_for_block(hash);
        if tip == hash {
            continue;
        }
        let logs: Vec<String> = relays.iter().map(|relay| relay.log.tail()).collect();
        let height = b.call("getblockcount", json!([]));
        panic!(
            "{what}: after {count} blocks B stays at {height}\n{}",
            logs.join("\n---\n")
        );
    }
}

/// No node was given what it refuses.
fn check_submissions(relay: &Relay, what: &str) {
    for node in relay.nodes() {
        let submitted = &node["submitted"];
        assert_eq!(submitted["invalid"], 0, "{what}: {submitted}");
    }
}

/// With every choice of ways to A, one after the other, and `given` to B: by one relay beside both, then by two.
fn run(executable: &Path, given: Ways) {
    let (a, b) = (
        Bitcoind::start(executable, &[]),
        Bitcoind::start(executable, &[]),
    );
    for taken in Ways::every() {
        let what = format!("A by {taken}, B by {given}, one relay");
        println!("{what}");
        let relay = Relay::start(&[taken.to(&a), given.to(&b)], &[]);
        relay.wait_for_node(0, taken);
        relay.wait_for_node(1, given);
        mine_and_wait(&a, &b, &[&relay], &what);
        check_submissions(&relay, &what);
        drop(relay);
        let what = format!("A by {taken}, B by {given}, two relays");
        println!("{what}");
        let first = first_relay(&a, taken);
        let second = Relay::beside(&b, given, Some(&first));
        second.wait_for_peers(1);
        first.wait_for_node(0, taken);
        second.wait_for_node(0, given);
        mine_and_wait(&a, &b, &[&first, &second], &what);
        check_submissions(&second, &what);
    }
}

macro_rules! given_by {
    ($($name:ident: $bits:literal;)+) => {$(
        #[test]
        fn $name() {
            let Some(executable) = executable() else {
                return;
            };
            let given = Ways::every().nth($bits - 1).expect("one of seven");
            assert!(given.can_give());
            run(&executable, given);
        }
    )+};
}

given_by! {
    from_every_way_to_p2p: 1;
    from_every_way_to_p2p_and_zmq: 3;
    from_every_way_to_rpc: 4;
    from_every_way_to_p2p_and_rpc: 5;
    from_every_way_to_zmq_and_rpc: 6;
    from_every_way_to_all: 7;
}
