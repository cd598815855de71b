//! Peers found: nodes as processes on loopback that know nobody but a peer that gossips.
//!
//! With `BITCOIND_EXE` the gossip is a real bitcoind, in a network namespace where the addresses are public ones, for
//! it passes on no others.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, as it should"
)]

#[path = "bitcoind/log.rs"]
#[allow(dead_code, reason = "other tests use the rest of it")]
mod log;

#[path = "bitcoind/harness.rs"]
#[allow(dead_code, reason = "other tests use the rest of it")]
mod harness;

mod discovery {
    pub mod gossip;
    pub mod node;
}

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bitcoin::absolute::LockTime;
use bitcoin::block::{self, Block, Header};
use bitcoin::hashes::Hash as _;
use bitcoin::script::{Builder, ScriptBuf};
use bitcoin::transaction::{self, OutPoint, Transaction, TxIn, TxOut};
use bitcoin::{Amount, BlockHash, CompactTarget, Sequence, TxMerkleNode, Witness};
use blocktorrent::chain::p2p::Advert;
use serde_json::{Value, json};

use discovery::gossip::{Claims, FLAG, Gossip, PLAIN, record, until};
use discovery::node::Node;
use harness::{Bitcoind, executable};

/// The dial interval on regtest, in milliseconds.
const DIAL_INTERVAL_MS: u128 = 50;

#[test]
fn two_strangers_find_each_other_through_a_third_that_only_gossips() {
    let third = Gossip::start(Claims::plain());
    let seed = third.address.to_string();
    let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [a, b] =
        [&roots[0], &roots[1]].map(|root| Node::start(root.path(), &["--seed-node", &seed]));
    let session = b.event("session");
    a.event("session");
    let peers = b.call(&["getpeerinfo"]);
    let ours = peers.as_array().unwrap().iter();
    let kinds: Vec<&str> = ours
        .filter_map(|it| it["connection_type"].as_str())
        .collect();
    assert!(
        kinds
            .iter()
            .all(|kind| ["inbound", "outbound-full-relay"].contains(kind)),
        "{kinds:?} after {session}"
    );
    // Whoever dialled has met the other as a relay; each is told of by its door of Bitcoin's protocol.
    until("one has met the other", || {
        let known = [&a, &b].map(|node| node.call(&["getrelayaddresses"]));
        let mut known = known.iter().filter_map(|known| known.as_array());
        known.any(|relays| {
            relays
                .iter()
                .any(|relay| relay["met"] != 0 && relay["connected"] == true)
        })
    });
    let told = third.seen(|seen| seen.told.clone());
    for node in [&a, &b] {
        let p2p: SocketAddr = node.address("p2p").parse().unwrap();
        let told = told.iter().find(|told| told.address == p2p);
        let services = told.expect("it has told of itself").services;
        assert_eq!(services & FLAG, FLAG, "{services:x}");
        let local = node.call(&["getnetworkinfo"])["localaddresses"].clone();
        assert_eq!(local[0]["port"], p2p.port());
    }
    // The third is there, as an ordinary node.
    let nodes = a.call(&["getbitcoinpeerinfo"]);
    let gossip = nodes
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["addr"] == seed.as_str());
    let gossip = gossip.expect("it stays connected");
    assert_eq!(gossip["connection_type"], "outbound-full-relay");
    assert_eq!(gossip["transport_protocol_type"], "v2");
    assert_eq!(gossip["servicesnames"], json!(["NETWORK", "WITNESS"]));
}

#[test]
fn a_restart_keeps_the_book() {
    let third = Gossip::start(Claims::plain());
    let seed = third.address.to_string();
    let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let a = Node::start(roots[0].path(), &["--seed-node", &seed]);
    let b = Node::start(roots[1].path(), &["--seed-node", &seed]);
    a.event("session");
    b.event("session");
    let total = |node: &Node| node.call(&["getaddrmaninfo"])["all_networks"]["total"].as_u64();
    let known = total(&b).unwrap();
    assert!(known > 0);
    b.stop();
    a.event("session_down");
    drop(third);
    assert!(roots[1].path().join("regtest/peers.dat").exists());
    // Nobody tells it anything any more.
    let b = Node::start(roots[1].path(), &[]);
    b.event("session");
    assert!(total(&b).unwrap() >= known);
    b.stop();
    // A damaged book costs the addresses, not the start.
    let book = roots[1].path().join("regtest/peers.dat");
    let mut bytes = std::fs::read(&book).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&book, bytes).unwrap();
    let b = Node::start(roots[1].path(), &[]);
    until("it says so", || {
        b.log().contains("a new address book is begun")
    });
    assert!(roots[1].path().join("regtest/peers.dat.bak").exists());
}

/// Answers every connection with what is no control stream.
fn babbler() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = stream;
            stream.write_all(&[0xff; 200]).ok();
            stream.read_exact(&mut [0; 64]).ok();
        }
    });
    address
}

#[test]
fn a_false_flag_is_found_out() {
    // One claims the bit and no more, one says besides that its control stream is where something else answers.
    let elsewhere = babbler();
    let boaster = Gossip::start(Claims {
        services: PLAIN | FLAG,
        knows: vec![record(elsewhere, PLAIN); 2],
        ..Claims::plain()
    });
    let liar = Gossip::start(Claims {
        services: PLAIN | FLAG,
        advert: Some(Advert {
            version: 1,
            control_port: elsewhere.port(),
            data_port: elsewhere.port(),
        }),
        ..Claims::plain()
    });
    let third = Gossip::start(Claims {
        knows: vec![
            record(boaster.address, PLAIN | FLAG),
            record(liar.address, PLAIN | FLAG),
        ],
        ..Claims::plain()
    });
    let root = tempfile::tempdir().unwrap();
    let seed = third.address.to_string();
    let node = Node::start(root.path(), &["--seed-node", &seed]);
    let is_flagged = |it: &Value| it["services"].as_u64().unwrap() & FLAG != 0;
    let mut found_out = BTreeSet::new();
    // Whoever claims the flag itself has it again for as long as the next look takes, so each has moments of its own.
    until("both are found out, and are known as what they are", || {
        let known = node.call(&["getnodeaddresses", "0"]);
        let plain = known
            .as_array()
            .unwrap()
            .iter()
            .filter(|it| !is_flagged(it));
        found_out.extend(plain.map(|it| it["port"].as_u64().unwrap()));
        let both = [boaster.address, liar.address].map(|it| u64::from(it.port()));
        both.iter().all(|port| found_out.contains(port)) && node.finding("flags_refuted") >= 2
    });
    assert!(boaster.seen(|seen| seen.met) > 0 && liar.seen(|seen| seen.met) > 0);
    // Neither was met as a relay, so nobody is told of them as such.
    assert_eq!(node.finding("relays_found"), 0);
    assert_eq!(node.call(&["getaddrmaninfo"])["all_networks"]["proven"], 0);
    let relays = node.call(&["getrelayaddresses"]);
    let relays = relays.as_array().unwrap().iter();
    assert!(relays.clone().all(|relay| relay["met"] == 0), "{relays:?}");
}

/// Takes connections at one port of every address of loopback, ends each at once, and counts them.
fn trap() -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        for stream in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(stream);
        }
    });
    (port, count)
}

#[test]
fn a_flood_of_false_flags_is_bounded_and_dialled_no_faster() {
    let (port, knocks) = trap();
    let flood = |which: u8| Claims {
        knows: (0..1_000_u16)
            .map(|number| {
                let [high, low] = number.to_be_bytes();
                let ip = Ipv4Addr::new(127, which, 1 + high, low);
                record(SocketAddr::from((ip, port)), PLAIN | FLAG)
            })
            .collect(),
        ..Claims::plain()
    };
    let floods: Vec<Gossip> = (1..=4).map(|which| Gossip::start(flood(which))).collect();
    let honest = Gossip::start(Claims::plain());
    let all = floods.iter().chain([&honest]);
    let seeds: Vec<String> = all.map(|it| it.address.to_string()).collect();
    let mut more = vec!["--outbound-nodes", "5"];
    for seed in &seeds {
        more.extend(["--seed-node", seed]);
    }
    let root = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let node = Node::start(root.path(), &more);
    until("all were asked", || {
        let mut all = floods.iter().chain([&honest]);
        all.all(|it| it.seen(|seen| seen.asked) > 0)
    });
    until("many knocks", || knocks.load(Ordering::SeqCst) > 120);
    let knocks = u128::from(knocks.load(Ordering::SeqCst));
    let elapsed_ms = begun.elapsed().as_millis();
    // Each dial tries the new transport, and then the old.
    assert!(
        knocks <= 2 * (elapsed_ms / DIAL_INTERVAL_MS + 1),
        "{knocks} connections in {elapsed_ms} ms"
    );
    let info = node.call(&["getnetworkinfo"]);
    let finding = &info["finding"];
    assert!(finding["dialling"].as_u64().unwrap() <= 8, "{finding}");
    let total = node.call(&["getaddrmaninfo"])["all_networks"]["total"].as_u64();
    assert!(total.unwrap() <= 4_006, "{total:?}");
    // A relay is found in spite of the flood: whoever tells much has no more weight than whoever tells little.
    let other = tempfile::tempdir().unwrap();
    let relay = Node::start(other.path(), &["--seed-node", &seeds[4]]);
    relay.event("session");
    node.event("session");
    println!("{knocks} connections in {elapsed_ms} ms, {total:?} addresses, {finding}");
}

#[test]
fn a_crowd_of_silent_callers_keeps_nobody_out() {
    let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let besieged = Node::start(roots[0].path(), &[]);
    let address = besieged.address("p2p");
    let mut crowd: Vec<TcpStream> = Vec::new();
    until("all places are taken, and some had to go", || {
        crowd.extend(TcpStream::connect(address));
        besieged.finding("evicted") > 0
    });
    assert!(besieged.finding("bitcoin_connections_in") >= 64);
    let newcomer = Node::start(roots[1].path(), &["--seed-node", address]);
    newcomer.event("session");
    assert!(besieged.finding("bitcoin_connections_in") <= 64 + 8);
}

/// A block of regtest without a transaction but its coinbase, on top of `parent`.
fn mine(parent: BlockHash, height: i64, time: u32) -> Block {
    let coinbase = Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: Builder::new().push_int(height).push_int(7).into_script(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value: Amount::ZERO,
            script_pubkey: ScriptBuf::new(),
        }],
    };
    let header = Header {
        version: block::Version::from_consensus(0x2000_0000),
        prev_blockhash: parent,
        merkle_root: TxMerkleNode::all_zeros(),
        time,
        bits: CompactTarget::from_consensus(0x207f_ffff),
        nonce: 0,
    };
    let mut block = Block {
        header,
        txdata: vec![coinbase],
    };
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    while block.header.validate_pow(block.header.target()).is_err() {
        block.header.nonce += 1;
    }
    block
}

#[test]
fn blocks_older_than_the_relays_window_come_by_bitcoins_protocol() {
    let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [a, b] =
        [&roots[0], &roots[1]].map(|root| Node::start(root.path(), &["--find-peers", "off"]));
    let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Regtest).header;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs() as u32;
    let mut tip = (genesis.block_hash(), 0);
    let mut blocks = Vec::new();
    let mut give = |node: &Node, count: i64| {
        for _ in 0..count {
            let (parent, height) = (tip.0, tip.1 + 1);
            let block = mine(parent, height, now - 3_600 + height as u32);
            let hex = bitcoin::consensus::encode::serialize_hex(&block);
            node.call(&["submitblock", &hex]);
            tip = (block.block_hash(), height);
            blocks.push(hex);
        }
        (tip.0.to_string(), blocks.clone())
    };
    give(&a, 3);
    b.call(&["addnode", a.address("control"), "onetry"]);
    b.event("session");
    let (tip, all) = give(&a, 1);
    // Its headers are those of the other by now: what was before is not its to fetch.
    until("the first blocks are there", || {
        b.has_block(&tip) && b.call(&["getblockchaininfo"])["blocks_kept"] == all.len()
    });
    b.call(&["disconnectnode", a.address("control")]);
    b.event("session_down");
    // Far more than the relay offers to a new session.
    let (tip, all) = give(&a, 20);
    b.call(&["addnode", a.address("control"), "onetry"]);
    until("all blocks are there", || {
        b.has_block(&tip) && b.call(&["getblockchaininfo"])["blocks_kept"] == all.len()
    });
    for (height, hex) in (1..).zip(&all) {
        let hash = b.call(&["getblockhash", &height.to_string()]);
        let block = b.call(&["getblock", hash.as_str().unwrap(), "0"]);
        assert_eq!(block.as_str(), Some(hex.as_str()), "{height}");
    }
    let nodes = b.call(&["getbitcoinpeerinfo"]);
    let fellow = nodes
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["addr"] == a.address("p2p"));
    assert_eq!(
        fellow.unwrap()["connection_type"],
        "block-relay-only",
        "{nodes}"
    );
}

/// Set where the addresses of [`PUBLIC`] are this machine's.
const INSIDE: &str = "BLOCKTORRENT_TEST_NAMESPACE";
/// Addresses of three different parts of the network: bitcoind's and two nodes'.
const PUBLIC: [&str; 3] = ["21.1.0.1", "22.1.0.1", "23.1.0.1"];

/// Runs a test of this binary once more in a network namespace of its own, where it has the addresses of [`PUBLIC`].
/// Whether it was so run, and may go on there.
fn inside_a_namespace(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let may = Command::new("unshare")
        .args(["-Urn", "ip", "link"])
        .output();
    if !may.is_ok_and(|may| may.status.success()) {
        eprintln!("SKIPPED: `unshare -Urn ip link` does not work here");
        return false;
    }
    let adds = PUBLIC.map(|ip| format!("ip addr add {ip}/32 dev lo"));
    let script = format!("ip link set lo up && {} && exec \"$@\"", adds.join(" && "));
    let status = Command::new("unshare")
        .args(["-Urn", "sh", "-c", &script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    false
}

#[test]
fn two_strangers_find_each_other_through_a_real_bitcoind() {
    let Some(executable) = executable() else {
        return;
    };
    if !inside_a_namespace("two_strangers_find_each_other_through_a_real_bitcoind") {
        return;
    }
    let [ip, ips @ ..] = PUBLIC;
    let [port] = harness::free_ports();
    let bind = format!("-bind={ip}:{port}");
    let bitcoind = Bitcoind::start(&executable, &[&bind, "-debug=addrman"]);
    let seed = format!("{ip}:{port}");
    // The rules of the public network hold, though the chain is that of regtest.
    let more = ["--private-addresses", "off", "--seed-node", &seed];
    let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let a = Node::start_at(ips[0], roots[0].path(), &more);
    let b = Node::start_at(ips[1], roots[1].path(), &more);
    until("bitcoind has heard of both", || {
        let known = bitcoind.call("getnodeaddresses", json!([0]));
        let known = known.as_array().unwrap().iter();
        let known: Vec<_> = known.filter_map(|it| it["address"].as_str()).collect();
        ips.iter().all(|ip| known.contains(ip))
    });
    // It passes addresses on twice a minute on average: it is told that some minutes have passed.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    bitcoind.call("setmocktime", json!([now.as_secs() + 300]));
    a.event("session");
    b.event("session");
    println!("{}", a.call(&["getrelayaddresses"]));
    println!("{}", b.call(&["getrelayaddresses"]));
}
