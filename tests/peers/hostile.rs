//! Strangers at the P2P port of a node of ours who break every rule, while others go about their business.
//!
//! The machine of one connection is tested with streams of all kinds where it stands, and fuzzed. Here it is the
//! process that must hold: its memory, its counters, and what everybody else gets from it.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bitcoin::Block;
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash as _;
use blocktorrent::sim::chain::ChainMaker;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use serde_json::json;

use super::raw::{MAGIC, Raw, version};
use super::relay::Relay;

/// Places for connections that others make.
const PLACES: usize = 64;
/// Places above them, for newcomers for whom others make room just then.
const SPARE: usize = 8;
/// Most bytes that a node holds of what one connection has sent (`MAX_INPUT_BYTES`), about.
const HELD_BYTES: usize = 4_100_000;

/// A node at whose P2P port hostile peers are, another that gives it blocks by the relay, and honest peers.
struct Siege {
    source: Relay,
    victim: Relay,
    honest: Vec<Raw>,
    maker: ChainMaker,
    blocks: Vec<Block>,
}

impl Siege {
    fn lay(seed: u64) -> Self {
        let mut source = Relay::start(&[]);
        let mut victim = Relay::start(&[]);
        source.join(&mut victim);
        let honest = vec![Raw::greeted(victim.p2p), Raw::greeted_v2(victim.p2p, 3)];
        let mut siege = Self {
            source,
            victim,
            honest,
            maker: ChainMaker::new(seed),
            blocks: Vec::new(),
        };
        siege.block_passes();
        siege
    }

    /// A new block comes by the relay, and every honest peer hears of it and gets it.
    fn block_passes(&mut self) {
        let block = self.maker.block(0);
        let (hash, bytes) = (block.block_hash(), serialize(&block));
        assert!(self.source.submit(&bytes).is_null());
        self.victim.complete(hash);
        for peer in &mut self.honest {
            loop {
                let told = peer.wait("inv");
                if told.ends_with(&hash.to_byte_array()) {
                    break;
                }
            }
            assert!(peer.block(hash) == bytes);
        }
        self.blocks.push(block);
    }

    fn info(&self) -> serde_json::Value {
        self.victim.call("getnetworkinfo", json!([]))["p2p"].clone()
    }

    fn refused(&self, name: &str) -> u64 {
        self.info()["refused"][name].as_u64().unwrap_or(0)
    }

    /// Bytes of memory that the victim has used at most; 0 where the system does not tell.
    fn peak_bytes(&self) -> usize {
        let file = format!("/proc/{}/status", self.victim.process());
        let status = std::fs::read_to_string(file).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB"));
        kilobytes.map_or(0, |text| {
            1_024 * text.trim().parse::<usize>().expect("a number")
        })
    }

    /// Nobody else is worse off, and nothing is held for those who are gone.
    fn holds(mut self) {
        self.block_passes();
        for peer in &mut self.honest {
            assert!(peer.is_alive());
        }
        let refused = self.victim.end("refused");
        assert!(refused.is_empty(), "a relay was blamed: {refused:?}");
    }
}

/// What becomes of whoever sends something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Closed,
    Alive,
}

/// What is sent after the handshake: a name, the messages, what counts it, how often, and what becomes of the sender.
type Breach = (
    &'static str,
    Vec<(&'static str, Vec<u8>)>,
    &'static str,
    u64,
    Fate,
);

fn breaches(siege: &Siege) -> Vec<Breach> {
    use Fate::{Alive, Closed};
    let block = serialize(&siege.blocks[0]);
    let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Regtest).header;
    let header = |header: &bitcoin::block::Header| [serialize(header), vec![0]].concat();
    let twice = [vec![2], header(&genesis), header(&genesis)].concat();
    let claims = |count: u16| [vec![0xfd], count.to_le_bytes().to_vec(), vec![1; 162]].concat();
    let stray = {
        let mut stray = siege.blocks[0].header;
        stray.prev_blockhash = bitcoin::BlockHash::from_byte_array([9; 32]);
        [vec![1], header(&stray)].concat()
    };
    let transaction = serialize(&siege.blocks[0].txdata[0]);
    let of_txs = [vec![1], 1_u32.to_le_bytes().to_vec(), vec![7; 32]].concat();
    let same = |message: (&'static str, Vec<u8>), times| vec![message; times];
    let unasked = ("block", block.clone());
    let indexes = [
        siege.blocks[0].block_hash().to_byte_array().to_vec(),
        vec![1, 9],
    ]
    .concat();
    vec![
        (
            "no such message",
            same(("nonsense", vec![1; 60]), 300),
            "unknown message",
            300,
            Alive,
        ),
        (
            "no service",
            same(("mempool", vec![]), 50),
            "not served",
            50,
            Alive,
        ),
        (
            "a bloom filter",
            same(("filterload", vec![1; 99]), 50),
            "not served",
            50,
            Alive,
        ),
        (
            "a long unknown one",
            same(("nonsense", vec![1; 1 << 17]), 1),
            "oversized message",
            1,
            Closed,
        ),
        (
            "a long inventory",
            same(("inv", vec![1; 3 + 36 * 50_001]), 1),
            "oversized message",
            1,
            Closed,
        ),
        (
            "a long ping",
            same(("ping", vec![1; 1_025]), 1),
            "oversized message",
            1,
            Closed,
        ),
        (
            "a short ping",
            same(("ping", vec![1; 7]), 5),
            "malformed payload",
            5,
            Closed,
        ),
        (
            "four short pings",
            same(("ping", vec![1; 7]), 4),
            "malformed payload",
            4,
            Alive,
        ),
        (
            "a second version",
            same(("version", version(70_016, "/x/")), 10),
            "duplicate message",
            10,
            Closed,
        ),
        (
            "a second verack",
            same(("verack", vec![]), 3),
            "duplicate message",
            3,
            Alive,
        ),
        (
            "late negotiation",
            same(("wtxidrelay", vec![]), 10),
            "message out of order",
            10,
            Closed,
        ),
        (
            "too many entries",
            same(("inv", claims(50_001)), 1),
            "too many entries",
            1,
            Closed,
        ),
        (
            "too many headers",
            same(("headers", claims(2_001)), 1),
            "too many entries",
            1,
            Closed,
        ),
        (
            "headers of no order",
            same(("headers", twice), 1),
            "headers that do not follow one another",
            1,
            Closed,
        ),
        (
            "headers of nowhere",
            same(("headers", stray), 11),
            "headers that connect to nothing",
            1,
            Closed,
        ),
        (
            "no block",
            same(("block", vec![1; 100]), 1),
            "malformed block or transaction",
            1,
            Closed,
        ),
        (
            "blocks unasked",
            same(unasked.clone(), 100),
            "unsolicited data",
            100,
            Closed,
        ),
        (
            "a block unasked",
            same(unasked, 2),
            "unsolicited data",
            2,
            Alive,
        ),
        (
            "a transaction",
            same(("tx", transaction), 1),
            "transaction in spite of no relay",
            1,
            Closed,
        ),
        (
            "transactions",
            same(("inv", of_txs), 1),
            "transaction in spite of no relay",
            1,
            Closed,
        ),
        (
            "no compact block",
            same(("cmpctblock", vec![2; 120]), 1),
            "invalid compact block",
            1,
            Closed,
        ),
        (
            "parts that are not",
            same(("getblocktxn", indexes), 1),
            "",
            0,
            Closed,
        ),
        (
            "addresses, again",
            same(("getaddr", vec![]), 20),
            "addresses asked again",
            19,
            Alive,
        ),
    ]
}

/// Each breach is counted by its name, and ends the connection or does not, as the rules say; in both transports.
#[test]
fn each_breach_is_counted_and_meets_its_fate() {
    let siege = Siege::lay(1);
    for v2 in [false, true] {
        for (what, messages, counter, times, fate) in breaches(&siege) {
            let before = siege.refused(counter);
            let mut peer = Raw::greeted_in(siege.victim.p2p, v2);
            for (name, payload) in messages {
                if !peer.send(name, &payload) {
                    break;
                }
            }
            // A verdict of the node's own may come after its answer to a ping.
            let is_alive = peer.is_alive();
            match fate {
                Fate::Alive => assert!(is_alive, "{what}, v2: {v2}"),
                Fate::Closed => peer.wait_for_end(),
            }
            let counted = siege.refused(counter) - before;
            assert_eq!(counted, times, "{what}, v2: {v2}");
        }
    }
    siege.holds();
}

/// What only the transports have.
#[test]
fn what_is_wrong_below_the_messages_is_counted_as_well() {
    let siege = Siege::lay(2);
    let framed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut peer = Raw::greeted(siege.victim.p2p);
        let mut bytes = peer.frame("ping", &[1; 8]);
        change(&mut bytes);
        peer.send_bytes(&bytes);
        peer.is_alive()
    };
    assert!(!framed(&|bytes| bytes[2] ^= 1));
    assert_eq!(siege.refused("wrong magic"), 1);
    assert!(framed(&|bytes| bytes[21] ^= 1));
    assert_eq!(siege.refused("wrong checksum"), 1);
    assert!(framed(&|bytes| bytes[13] = b'x'));
    assert_eq!(siege.refused("malformed command"), 1);
    assert!(!framed(&|bytes| bytes[19] = 0xff));
    assert_eq!(siege.refused("oversized message"), 1);
    for bit in [0, 17, 100] {
        let mut peer = Raw::greeted_v2(siege.victim.p2p, 40 + bit as u8);
        let mut bytes = peer.frame("ping", &[1; 8]);
        bytes[bit / 8] ^= 1 << (bit % 8);
        peer.send_bytes(&bytes);
        // A length that was changed upwards is waited for.
        peer.shut();
        peer.wait_for_end();
    }
    assert!(siege.refused("undecryptable packet") + siege.refused("oversized message") >= 2);
    // An old node, one of another network, and one that begins with the wrong word.
    let mut old = Raw::dial(siege.victim.p2p);
    old.send("version", &version(60_000, "/old/"));
    old.wait_for_end();
    let mut other = Raw::dial(siege.victim.p2p);
    other.send_bytes(&[0xf9, 0xbe, 0xb4, 0xd9]);
    other.send_bytes(&[b'v'; 70_000]);
    other.wait_for_end();
    let mut early = Raw::dial(siege.victim.p2p);
    let before = siege.refused("message out of order");
    let verack = early.frame("verack", &[]);
    // The old transport is told by its first message.
    early.send("version", &version(70_016, "/x/"));
    early.send_bytes(&verack.repeat(1));
    early.send("sendheaders", &[]);
    assert!(early.is_alive());
    assert_eq!(siege.refused("message out of order"), before);
    siege.holds();
}

/// A stream that an honest peer might send.
fn honest_stream(peer: &mut Raw, siege: &Siege) -> Vec<Vec<u8>> {
    let block = &siege.blocks[0];
    let header = [vec![1], serialize(&block.header), vec![0]].concat();
    let inventory = [
        vec![1],
        2_u32.to_le_bytes().to_vec(),
        block.block_hash().to_byte_array().to_vec(),
    ];
    let locator = [
        70_016_u32.to_le_bytes().to_vec(),
        vec![1],
        block.header.prev_blockhash.to_byte_array().to_vec(),
        vec![0; 32],
    ]
    .concat();
    let mut compact = vec![0];
    compact.extend(2_u64.to_le_bytes());
    [
        ("sendheaders", vec![]),
        ("sendcmpct", compact),
        ("getheaders", locator.clone()),
        ("getblocks", locator),
        ("headers", header),
        ("inv", inventory.concat()),
        ("getdata", inventory.concat()),
        ("feefilter", vec![1; 8]),
        ("ping", vec![2; 8]),
        ("addr", vec![0]),
    ]
    .iter()
    .map(|(name, payload)| peer.frame(name, payload))
    .collect()
}

/// One connection of somebody who makes something up.
fn make_up(siege: &Siege, random: &mut StdRng) {
    let v2 = random.random_bool(0.4);
    let mut peer = match random.random_range(0..10) {
        // Nothing is true from the first byte on.
        0 => {
            let mut peer = Raw::dial(siege.victim.p2p);
            let mut bytes = vec![0; random.random_range(0..6_000)];
            random.fill_bytes(&mut bytes);
            if random.random_bool(0.5) {
                let start = bytes.len().min(4);
                bytes[..start].copy_from_slice(&MAGIC[..start]);
            }
            peer.send_bytes(&bytes);
            peer.shut();
            return peer.wait_for_end();
        }
        _ => Raw::greeted_in(siege.victim.p2p, v2),
    };
    let mut messages = honest_stream(&mut peer, siege);
    // What it frames is numbered; it may leave out, repeat, swap, cut and change.
    for _ in 0..random.random_range(1..6) {
        let count = messages.len();
        let at = random.random_range(0..count);
        match random.random_range(0..6) {
            0 => messages.swap(at, count - 1),
            1 => messages.extend_from_within(at..),
            2 => {
                let length = messages[at].len();
                messages[at].truncate(random.random_range(0..length));
            }
            3 => {
                let length = messages[at].len();
                let byte = random.random_range(0..length.max(1));
                if let Some(byte) = messages[at].get_mut(byte) {
                    *byte ^= 1 << random.random_range(0..8);
                }
            }
            4 => {
                let names = [
                    "version",
                    "headers",
                    "inv",
                    "block",
                    "tx",
                    "cmpctblock",
                    "blocktxn",
                    "getblocktxn",
                    "addr",
                    "addrv2",
                    "feature",
                    "blktorrent",
                    "notfound",
                    "getdata",
                    "merkleblock",
                    "reject",
                    "sendtxrcncl",
                    "zzz",
                ];
                let name = names[random.random_range(0..names.len())];
                let mut payload = vec![0; random.random_range(0..3_000)];
                random.fill_bytes(&mut payload);
                messages.push(peer.frame(name, &payload));
            }
            _ => {
                let mut noise = vec![0; random.random_range(1..2_000)];
                random.fill_bytes(&mut noise);
                messages.insert(at, noise);
            }
        }
    }
    let stream = messages.concat();
    for piece in stream.chunks(random.random_range(1..=stream.len().max(1))) {
        if !peer.send_bytes(piece) {
            break;
        }
    }
    // Some leave at once, some wait for what comes.
    if random.random_bool(0.7) {
        peer.shut();
        peer.wait_for_end();
    }
}

#[test]
fn made_up_streams_harm_nobody() {
    const SEED: u64 = 88_114;
    println!("seed {SEED}");
    let mut siege = Siege::lay(SEED);
    let mut random = StdRng::seed_from_u64(SEED);
    let before = siege.peak_bytes();
    for round in 0..10 {
        for _ in 0..40 {
            make_up(&siege, &mut random);
        }
        println!("round {round}: {}", siege.info());
        siege.block_passes();
    }
    let refused = siege.info()["refused"].as_object().expect("names").len();
    assert!(refused >= 8, "{}", siege.info());
    let grown = siege.peak_bytes().saturating_sub(before);
    println!("{grown} bytes more memory at most");
    assert!(grown < 64 << 20, "{grown}");
    siege.holds();
}

/// All places but those of honest peers are taken by some who hold back the end of a long message, or of their first.
/// What the node holds is what it says, and whoever was there before, or by the relay, is not worse off.
#[test]
fn those_who_hold_back_take_their_places_and_no_more() {
    let mut siege = Siege::lay(4);
    let before = siege.peak_bytes();
    let mut held = Vec::new();
    for place in siege.honest.len()..PLACES {
        let mut peer = match place % 4 {
            // Says nothing at all.
            0 => Raw::dial(siege.victim.p2p),
            // Says half of a first word.
            1 => {
                let mut peer = Raw::dial(siege.victim.p2p);
                peer.send_bytes(&MAGIC[..3]);
                peer
            }
            // A key, and garbage without an end.
            2 => {
                let mut peer = Raw::dial(siege.victim.p2p);
                peer.send_bytes(&[place as u8; 3_000]);
                peer
            }
            // A block of which the end does not come.
            _ => Raw::greeted_in(siege.victim.p2p, place % 8 == 3),
        };
        if place % 4 == 3 {
            let mut frame = peer.frame("block", &vec![1; 3_999_999]);
            frame.pop();
            assert!(peer.send_bytes(&frame));
        }
        held.push(peer);
    }
    siege.block_passes();
    let connections = siege.info()["connections"].as_u64().expect("a number") as usize;
    assert!(
        (PLACES..=PLACES + SPARE).contains(&connections),
        "{connections}"
    );
    let grown = siege.peak_bytes().saturating_sub(before);
    let long = (PLACES - siege.honest.len()).div_ceil(4);
    println!("{grown} bytes more memory for {long} long messages");
    assert!(grown < (long + 2) * 2 * HELD_BYTES, "{grown}");
    // One of them makes room for whoever comes next.
    let mut late = Raw::dial(siege.victim.p2p);
    late.send("version", &version(70_016, "/raw:1/"));
    late.wait("verack");
    siege.block_passes();
    // With them gone there is room for all.
    drop(held);
    let mut again = Raw::dial(siege.victim.p2p);
    again.send("version", &version(70_016, "/raw:1/"));
    again.wait("verack");
    siege.block_passes();
    siege.holds();
}

/// Floods of what the node must answer, from some who do not read the answers: a block is there for everybody else
/// long before a flood is over.
#[test]
fn a_flood_waits_in_its_own_socket() {
    const FLOODS: usize = 12;
    /// Far more than a node takes in the time that three blocks need; with these the flood ends.
    const MOST: usize = 1 << 32;
    let mut siege = Siege::lay(5);
    let before = siege.peak_bytes();
    let wanted = siege.blocks[0].block_hash().to_byte_array().to_vec();
    let address = siege.victim.p2p;
    let over = AtomicBool::new(false);
    let begun = Barrier::new(FLOODS + 1);
    let sent: Vec<(usize, bool)> = thread::scope(|scope| {
        let floods: Vec<_> = (0..FLOODS)
            .map(|flood| {
                let (wanted, over, begun) = (wanted.clone(), &over, &begun);
                scope.spawn(move || {
                    let mut peer = Raw::greeted_in(address, flood % 2 == 0);
                    peer.do_not_wait();
                    begun.wait();
                    let data = [vec![1], 2_u32.to_le_bytes().to_vec(), wanted].concat();
                    let mut bytes = 0;
                    while !over.load(Ordering::SeqCst) && bytes < MOST {
                        let (name, payload) = match flood % 3 {
                            0 => ("ping", vec![1; 8]),
                            1 => ("getdata", data.clone()),
                            _ => ("nonsense", vec![1; 1_000]),
                        };
                        let frame = peer.frame(name, &payload);
                        if !peer.push(&frame, over) {
                            return (bytes, true);
                        }
                        bytes += frame.len();
                    }
                    (bytes, false)
                })
            })
            .collect();
        begun.wait();
        for _ in 0..3 {
            siege.block_passes();
        }
        over.store(true, Ordering::SeqCst);
        let join = |flood: thread::ScopedJoinHandle<'_, _>| flood.join().expect("it ended");
        floods.into_iter().map(join).collect()
    });
    println!("bytes sent, and whether closed: {sent:?}");
    println!("{}", siege.info());
    let finished = sent.iter().filter(|(bytes, _)| *bytes >= MOST).count();
    assert_eq!(finished, 0, "the blocks came after the flood: {sent:?}");
    let grown = siege.peak_bytes().saturating_sub(before);
    println!("{grown} bytes more memory at most");
    assert!(grown < FLOODS * 3 * HELD_BYTES, "{grown}");
    siege.holds();
}
