//! What comes out of our node, byte by byte, before Bitcoin Core's consensus code.

use std::path::PathBuf;

use bitcoin::Block;
use bitcoin::BlockHash;
use bitcoin::consensus::{deserialize, serialize};
use blocktorrent::sim::chain::{ChainMaker, Fault, MATURITY};
use serde_json::{Value, json};

use super::judge::{Judge, executable};
use super::raw::Raw;
use super::relay::{Relay, hex};

const SEED: u64 = 20_261_128;
/// Transactions of a full block here, besides the coinbase.
const TRANSACTIONS: usize = 400;

/// Two nodes of ours, joined, and a judge of what the second one has.
struct Court {
    first: Relay,
    second: Relay,
    judge: Judge,
    /// Blocks that the second node had, and how many of them by the relay.
    passed: (usize, usize),
}

impl Court {
    fn open(program: &PathBuf) -> Self {
        let mut first = Relay::start(&[]);
        let mut second = Relay::start(&[]);
        first.join(&mut second);
        Self {
            first,
            second,
            judge: Judge::start(program, "regtest"),
            passed: (0, 0),
        }
    }

    /// Gives a block to the first node; the second must get it, byte for byte. As a rule by the relay: while the two
    /// find each other it may also fetch one at the other's port of Bitcoin's protocol.
    fn relay(&mut self, block: &Block) -> (BlockHash, Vec<u8>) {
        let (hash, bytes) = (block.block_hash(), serialize(block));
        assert_eq!(self.first.submit(&bytes), Value::Null);
        let complete = self.second.complete(hash);
        self.passed.0 += 1;
        self.passed.1 += usize::from(complete["local"] == false);
        let got = self.second.block(hash);
        assert!(got == bytes, "{hash} is another block at the second node");
        (hash, got)
    }

    /// Lets the second node hold every other transaction of a block beforehand, as a mempool does.
    fn warm(&self, block: &Block) {
        for transaction in block.txdata.iter().skip(1).step_by(2) {
            let text = hex(&serialize(transaction));
            self.second.call("sendrawtransaction", json!([text]));
        }
    }

    /// Relays a block, which the judge must call valid and its new tip.
    fn passes(&mut self, block: &Block) {
        let (hash, bytes) = self.relay(block);
        self.judge.accepts(hash, &bytes);
    }

    /// Nobody was blamed for anything.
    fn acquits(self) {
        let (all, by_relay) = self.passed;
        println!("{by_relay} of {all} blocks came by the relay");
        assert!(by_relay * 10 >= all * 9, "{by_relay} of {all}");
        for (name, node) in [("first", self.first), ("second", self.second)] {
            for peer in node
                .call("getpeerinfo", json!([]))
                .as_array()
                .expect("a list")
            {
                assert_eq!(peer["score"], 0, "{name}: {peer}");
            }
            let refused = node.end("refused");
            assert!(refused.is_empty(), "{name}: {refused:?}");
        }
    }
}

/// The chain with so many empty blocks at its beginning that coins are mature.
fn ripe(court: &mut Court) -> ChainMaker {
    let mut maker = ChainMaker::new(SEED);
    for _ in 0..MATURITY {
        court.passes(&maker.block(0));
    }
    maker
}

#[test]
fn every_block_that_is_relayed_is_the_valid_one_that_was_given() {
    let Some(program) = executable() else { return };
    println!("seed {SEED}");
    let mut court = Court::open(&program);
    let mut maker = ripe(&mut court);
    let mut full = 0;
    for round in 0..12 {
        let block = maker.block(TRANSACTIONS);
        if round % 2 == 0 {
            court.warm(&block);
        }
        court.passes(&block);
        full += usize::from(block.txdata.len() == TRANSACTIONS + 1);
    }
    assert!(full >= 8, "{full} full blocks");

    // A reorganisation of three blocks: side blocks are kept, not checked; the fourth makes them the chain.
    let mut other = maker.clone();
    let mut old: Vec<Block> = (0..3).map(|_| maker.block(TRANSACTIONS)).collect();
    old.iter().for_each(|block| court.passes(block));
    other = other.fork(SEED + 1);
    let new: Vec<Block> = (0..4).map(|_| other.block(TRANSACTIONS)).collect();
    for block in &new[..3] {
        let (hash, bytes) = court.relay(block);
        let verdict = court.judge.judge(&bytes);
        assert_eq!(
            (&verdict["taken"], &verdict["checked"]),
            (&json!("new"), &json!([]))
        );
        assert_ne!(verdict["tip"], json!(hash));
    }
    let (hash, bytes) = court.relay(&new[3]);
    let verdict = court.judge.accepts(hash, &bytes);
    assert_eq!(
        verdict["checked"].as_array().map(Vec::len),
        Some(4),
        "{verdict}"
    );
    for node in [&court.first, &court.second] {
        assert_eq!(node.call("getbestblockhash", json!([])), json!(hash));
    }
    // The old branch is still served, and another node gets a block by Bitcoin's own protocol as well.
    old.extend(new);
    let mut peer = Raw::greeted(court.second.p2p);
    for block in &old {
        let got = peer.block(block.block_hash());
        assert!(got == serialize(block), "{} by P2P", block.block_hash());
    }
    court.acquits();
}

/// A relay checks work and trees. What breaks those stops at the first node; what breaks other rules goes through,
/// not held against anybody (VER-6, JOB-8), and a good block beside it or after it is none the worse for it.
#[test]
fn a_block_that_breaks_a_rule_is_stopped_or_passed_on_and_blamed_on_nobody() {
    let Some(program) = executable() else { return };
    println!("seed {SEED}");
    let mut court = Court::open(&program);
    let mut maker = ripe(&mut court);
    // Some coins for the faults.
    for _ in 0..2 {
        court.passes(&maker.block(60));
    }
    for fault in Fault::ALL {
        let bad = maker.faulty_block(60, fault);
        let bytes = serialize(&bad);
        let verdict = if fault.is_structural() {
            let word = court.first.submit(&bytes);
            let expected = match fault {
                Fault::Repetition => "bad-txnmrklroot",
                _ => "bad-witness-merkle-match",
            };
            assert_eq!(word, expected, "{fault:?}");
            court.judge.judge(&bytes)
        } else {
            let (_, bytes) = court.relay(&bad);
            court.judge.judge(&bytes)
        };
        let why = verdict["why"].as_array().expect("a list");
        let (fault_name, word) = judged(fault);
        let checked = verdict["checked"].as_array().expect("a list");
        assert_eq!(checked.len(), 1, "{fault:?}: {verdict}");
        assert_eq!(checked[0]["fault"], fault_name, "{fault:?}: {verdict}");
        assert!(
            why.iter()
                .any(|it| it.as_str().is_some_and(|it| it.starts_with(word))),
            "{fault:?}: {verdict}"
        );
        assert_eq!(verdict["tip"], json!(maker.tip()), "{fault:?}");
        // The good one of the same height, which may have the same hash, and one more upon it.
        court.passes(&maker.block(60));
        court.passes(&maker.block(60));
    }
    assert_eq!(
        court.second.call("getbestblockhash", json!([])),
        json!(maker.tip())
    );
    court.acquits();
}

/// What Bitcoin Core calls a fault: its kind, and the beginning of its name.
fn judged(fault: Fault) -> (&'static str, &'static str) {
    match fault {
        Fault::Commitment | Fault::AlteredWitness => ("Mutated", "bad-witness-merkle-match"),
        Fault::Repetition => ("Mutated", "bad-txns-duplicate"),
        Fault::DoubleSpend => ("Consensus", "bad-txns-inputs-missingorspent"),
        Fault::Subsidy => ("Consensus", "bad-cb-amount"),
        Fault::Overspend => ("Consensus", "bad-txns-in-belowout"),
        Fault::Signature => ("Consensus", "block-script-verify-flag-failed"),
        Fault::Height => ("Consensus", "bad-cb-height"),
    }
}

/// The beginning of the real chain, if the folder `BLOCKTORRENT_BLOCKS` has it.
#[test]
fn the_first_blocks_of_the_real_chain_stay_what_they_are() {
    let Some(program) = executable() else { return };
    let name = "mainnet_chain_from_genesis.blk";
    let Some(folder) = std::env::var_os("BLOCKTORRENT_BLOCKS").map(PathBuf::from) else {
        eprintln!("SKIPPED {name}: BLOCKTORRENT_BLOCKS is not set");
        return;
    };
    let file = std::fs::read(folder.join(name)).expect("BLOCKTORRENT_BLOCKS has this file");
    let mut first = Relay::start_on("main", &[]);
    let mut second = Relay::start_on("main", &[]);
    first.join(&mut second);
    let mut judge = Judge::start(&program, "main");
    let mut rest = &file[..];
    let mut height = 0;
    while let Some((head, after)) = rest.split_first_chunk::<8>() {
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let (bytes, after) = after.split_at(length as usize);
        rest = after;
        let block: Block = deserialize(bytes).expect("a block");
        let hash = block.block_hash();
        if height > 0 {
            assert_eq!(first.submit(bytes), Value::Null, "{height}");
            second.complete(hash);
            let got = second.block(hash);
            assert!(got == bytes, "{height}");
            judge.accepts(hash, &got);
        }
        height += 1;
    }
    assert_eq!(height, 4_522);
}
