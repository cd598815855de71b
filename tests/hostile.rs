//! Peers that lie, flood, stall and break rules against a real engine: nothing false is delivered or passed on,
//! the refusal is counted under its reason, the session ends with the code that the BIP gives, and an honest
//! transfer beside it completes.

mod hostile {
    mod babble;
    mod bounds;
    mod floods;
    mod found;
    pub mod rig;
    mod slots;
    pub mod truth;
}

use std::time::Duration;

use blocktorrent::merkle::Geometry;
use blocktorrent::sim::workload::Recipe;
use blocktorrent::wire::{
    CELL, Cancel, CloseJob, CloseReason, EstimateBandwidth, GetHashes, GetTxs, JobRef, JobState,
    Kind, Message, MessageType, Missing, MissingReason, OpenJob, Parameter, ParameterList, Ping,
    Pong, RxReport, TestMtu, Tree, TxList, TxPart, Txs, VersionAck,
};
use hostile::rig::{Rig, sealed};
use hostile::truth::{Truth, frame, next_work, raw_frame, rows, workout};

const MILLIS: fn(u64) -> Duration = Duration::from_millis;
/// What an honest transfer may take beside a liar: the false count's turn, a few time-outs.
const SOON: Duration = Duration::from_secs(5);
const JOB: JobRef = JobRef::of_sender(1);

fn block(transactions: u32) -> Truth {
    let recipe = Recipe {
        transactions,
        ..Recipe::default()
    };
    Truth::new(&recipe, 5)
}

fn open<'a>(header: &'a [u8; 80], count: u32) -> OpenJob<'a> {
    OpenJob {
        job: 1,
        has_commitment: true,
        sender_has_all: true,
        count,
        block_bytes: 200_000,
        nonce: 0,
        header,
    }
}

/// A rig with one raw peer that has opened the block, truly but for what `change` does.
fn opened(seed: u64, transactions: u32, change: impl FnOnce(&mut OpenJob<'_>)) -> (Rig, usize) {
    let mut rig = Rig::new(seed, block(transactions));
    let raw = rig.connect();
    let header = rig.truth.header;
    let mut message = open(&header, transactions);
    change(&mut message);
    rig.send(raw, &Message::OpenJob(message));
    rig.run(MILLIS(30));
    (rig, raw)
}

fn txs(first: u32, transactions: &[&[u8]]) -> Vec<u8> {
    frame(&Message::Txs(Txs {
        job: JOB,
        first,
        transactions: TxList::new(transactions),
    }))
}

/// Sends the true anchor.
fn anchor(rig: &mut Rig, raw: usize) {
    let truth = &rig.truth;
    let count = truth.count();
    let depth = truth.geometry.depth();
    let row = depth.saturating_sub(7);
    let width = truth.geometry.width(row);
    let mut frames = txs(0, &[&truth.transactions[0]]);
    if count > 1 {
        frames.extend(truth.branch(JOB, &truth.txids));
        frames.extend(truth.hashes(JOB, &truth.wtxids, 0, (row, 0..width)));
        if row < depth {
            frames.extend(truth.hashes(JOB, &truth.wtxids, 0, (depth, count - 1..count)));
        }
    }
    rig.send_bytes(raw, frames);
    rig.run(MILLIS(30));
}

fn honest_completes(rig: &mut Rig) {
    rig.add_honest();
    rig.submit();
    rig.completes_within(SOON);
    assert_eq!(rig.honest_score(), 0, "an honest peer was blamed");
}

#[test]
fn malformed_frames_end_the_session_with_their_code() {
    let open_body = frame(&Message::OpenJob(open(&[0; 80], 5)))[2..].to_vec();
    let cases: Vec<(Vec<u8>, u8)> = vec![
        (raw_frame(0x0a, &open_body[..50]), 5),
        (raw_frame(0x0a, &[&open_body[..], &[0]].concat()), 5),
        (vec![0x22, 0xfd, 10, 0], 5),
        (vec![0x22, 0xfe, 1, 0, 1, 0], 5),
        (raw_frame(0x26, &[1, 0, 0xfd, 1, 0, 0, 0, 1]), 5),
        (raw_frame(0x20, &[1, 0, 9, 0]), 5),
        (raw_frame(0x7f, &[]), 6),
        (raw_frame(0x01, b"bad!"), 1),
    ];
    for (index, (bytes, code)) in cases.into_iter().enumerate() {
        for udp in [false, true] {
            let mut rig = Rig::new(index as u64, block(3));
            let raw = rig.connect();
            if udp {
                rig.send_udp(raw, &bytes);
            } else {
                rig.send_bytes(raw, bytes.clone());
            }
            rig.run(MILLIS(50));
            let order = udp && bytes[0] == 1;
            if order {
                assert_eq!(rig.refused("order"), 1, "case {index}");
                continue;
            }
            assert_eq!(
                rig.raws[raw].disconnect,
                Some(code),
                "case {index} udp {udp}"
            );
            assert_eq!(rig.refused("malformed"), 1);
        }
    }
    let mut rig = Rig::new(99, block(3));
    let raw = rig.connect();
    rig.send_bytes(raw, raw_frame(0x80, &[1, 2, 3]));
    rig.send_udp(raw, &raw_frame(0xff, &[0; 900]));
    rig.run(MILLIS(50));
    assert_eq!(rig.raws[raw].disconnect, None);
    assert_eq!(rig.score(raw), 0);
}

#[test]
fn handshakes_that_do_not_fit_are_refused() {
    type Change = fn(&mut blocktorrent::wire::Version<'_>);
    let cases: [(Change, u8); 3] = [
        (|version| version.network = 1, 2),
        (
            |version| (version.version_min, version.version_max) = (2, 9),
            3,
        ),
        (|version| version.udp_port = 0, 255),
    ];
    for (change, code) in cases {
        let mut rig = Rig::new(1, block(3));
        let raw = rig.add_raw();
        rig.version(raw, change);
        rig.run(MILLIS(50));
        let wanted = (code != 255).then_some(code);
        assert_eq!(rig.raws[raw].disconnect, wanted);
    }
    for bytes in [
        frame(&Message::GetAddr),
        frame(&Message::VersionAck(VersionAck {
            version: 1,
            features: 0,
        })),
    ] {
        let mut rig = Rig::new(2, block(3));
        let raw = rig.add_raw();
        rig.send_bytes(raw, bytes);
        rig.run(MILLIS(50));
        assert_eq!(rig.raws[raw].disconnect, Some(11));
    }
    for ack in [(2, 0), (1, 4)] {
        let mut rig = Rig::new(3, block(3));
        let raw = rig.add_raw();
        rig.version(raw, |_| {});
        let (version, features) = ack;
        rig.send(raw, &Message::VersionAck(VersionAck { version, features }));
        rig.run(MILLIS(50));
        assert_eq!(rig.raws[raw].disconnect, Some(11));
    }
    let mut rig = Rig::new(4, block(3));
    let raw = rig.connect();
    rig.version(raw, |_| {});
    rig.run(MILLIS(50));
    assert_eq!(rig.raws[raw].disconnect, Some(11));
    let idle = rig.add_raw();
    rig.run(Duration::from_secs(11));
    assert_eq!(rig.raws[idle].disconnect, Some(10));
}

#[test]
fn one_session_a_node_and_none_to_oneself() {
    let mut rig = Rig::new(1, block(3));
    let first = rig.connect();
    let second = rig.add_raw();
    rig.version(second, |version| version.nonce = 1_000);
    rig.run(MILLIS(50));
    // From another address a nonce ends nobody's session.
    assert_eq!(
        (rig.raws[first].disconnect, rig.raws[second].disconnect),
        (None, None)
    );
    let heard = rig.raws[first].heard.iter().find(|(_, kind, _)| *kind == 1);
    let nonce = u64::from_le_bytes(heard.expect("a BTVERSION").2[20..28].try_into().expect("8"));
    let own = rig.add_raw();
    rig.version(own, |version| version.nonce = nonce);
    rig.run(MILLIS(50));
    assert_eq!(rig.raws[own].disconnect, Some(4));
}

#[test]
fn datagrams_that_anybody_could_send_do_no_harm() {
    let mut rig = Rig::new(1, block(3));
    let raw = rig.connect();
    let address = rig.raws[raw].address;
    let ping = frame(&Message::Ping(Ping {
        nonce: 9,
        padding: 2,
    }));
    let good = rig.seal(raw, &ping);
    let (conn_id, key) = rig.raws[raw].theirs.expect("known");
    let next = rig.raws[raw].sequence + 1;
    for _ in 0..3 {
        rig.send_datagram(address, good.clone());
    }
    let mut wrong = sealed(conn_id, key, next, &ping);
    *wrong.last_mut().expect("bytes") ^= 1;
    rig.send_datagram(address, wrong);
    rig.send_datagram(([10, 9, 9, 9], 1).into(), sealed(conn_id, key, next, &ping));
    rig.send_datagram((address.ip(), 1).into(), sealed(conn_id, key, next, &ping));
    rig.send_datagram(address, sealed(conn_id ^ 1 << 20, key, next, &ping));
    rig.send_datagram(address, vec![0; 17]);
    rig.send_datagram(address, vec![0; 65_508]);
    // The low half alone is sent, but the MAC covers all of the counter.
    rig.send_datagram(address, sealed(conn_id, key, (1 << 33) + next + 9, &ping));
    rig.run(MILLIS(50));
    for (reason, count) in [
        ("replay", 2),
        ("address", 2),
        ("connection-id", 1),
        ("length", 2),
        ("mac", 2),
    ] {
        assert_eq!(rig.refused(reason), count, "{reason}");
    }
    // Reordered ones are taken.
    let late = sealed(conn_id, key, next + 5, &ping);
    let early = sealed(conn_id, key, next + 2, &ping);
    rig.raws[raw].heard.clear();
    rig.send_datagram(address, late);
    rig.send_datagram(address, early);
    rig.run(MILLIS(50));
    let pongs = rig.raws[raw]
        .heard
        .iter()
        .filter(|(_, kind, _)| *kind == 0x23)
        .count();
    assert_eq!(pongs, 2);
    assert_eq!(rig.score(raw), 0);
}

#[test]
fn an_unproven_path_gets_no_more_than_it_gave_whatever_comes() {
    for seed in 0..40u64 {
        let mut rig = Rig::new(seed, block(300));
        rig.add_honest();
        let raw = rig.add_raw();
        rig.raws[raw].answers_pings = false;
        rig.raws[raw].reports = seed % 2 == 0;
        rig.version(raw, |_| {});
        let steps: [fn(&mut Rig, usize); 6] = [
            |rig, raw| {
                let ack = VersionAck {
                    version: 1,
                    features: 0,
                };
                if rig.raws[raw].heard.iter().all(|(_, kind, _)| *kind != 2)
                    || rig.raws[raw].sequence > 900
                {
                    return;
                }
                rig.raws[raw].sequence += 1_000;
                rig.send(raw, &Message::VersionAck(ack));
            },
            |rig, _| {
                if rig.victim.jobs().is_empty() {
                    rig.submit();
                }
            },
            |rig, raw| {
                rig.send_udp(
                    raw,
                    &frame(&Message::Ping(Ping {
                        nonce: 3,
                        padding: 2,
                    })),
                )
            },
            |rig, raw| {
                let datagram = rig.seal(
                    raw,
                    &frame(&Message::Ping(Ping {
                        nonce: 3,
                        padding: 90,
                    })),
                );
                rig.send_datagram((rig.raws[raw].address.ip(), 9_001).into(), datagram);
            },
            |rig, raw| {
                rig.send(
                    raw,
                    &Message::Pong(Pong {
                        nonce: 3,
                        bytes: 28,
                    }),
                )
            },
            |rig, raw| rig.send_udp(raw, &frame(&Message::RxReport(RxReport::new(1, 0, &[0])))),
        ];
        rig.run(MILLIS(40));
        let mut draw = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for _ in 0..30 {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            steps[(draw >> 33) as usize % steps.len()](&mut rig, raw);
            rig.run(MILLIS(draw >> 57));
        }
        rig.run(Duration::from_secs(20));
    }
}

#[test]
fn headers_are_judged_before_anything_is_kept() {
    let mut rig = Rig::new(1, block(3));
    let raw = rig.connect();
    let mut orphan = rig.truth.header;
    orphan[4] = 1;
    next_work(&mut orphan);
    // Two offers that cannot be judged yet are kept, the oldest of three is closed.
    for job in [1, 2, 3] {
        let again = OpenJob {
            job,
            ..open(&orphan, 3)
        };
        rig.send(raw, &Message::OpenJob(again));
        rig.send(raw, &Message::OpenJob(again));
        rig.run(MILLIS(50));
        next_work(&mut orphan);
    }
    assert_eq!(rig.refused("unknown-parent"), 3);
    assert_eq!(rig.refused("header-context"), 1);
    let closed = rig.raws[raw]
        .heard
        .iter()
        .find(|(_, kind, _)| *kind == 0x0b);
    assert_eq!(closed.expect("CLOSE_JOB").2, [1, 0x80, 3]);
    rig.send(raw, &Message::OpenJob(open(&[0; 80], 3)));
    rig.run(MILLIS(50));
    assert_eq!(rig.refused("header"), 1);
    assert_eq!(rig.raws[raw].disconnect, Some(7));
    assert!(rig.victim.jobs().is_empty());
}

#[test]
fn counts_and_sizes_beyond_the_limits_are_refused() {
    for (count, bytes) in [(16_667, 100), (1 << 24, 100), (3, 4_000_001), (3, u32::MAX)] {
        let (mut rig, raw) = opened(1, 3, |open| (open.count, open.block_bytes) = (count, bytes));
        assert_eq!(rig.refused("limits"), 1);
        assert_eq!(rig.score(raw), 20);
        assert!(rig.victim.jobs().is_empty());
        honest_completes(&mut rig);
    }
    for (count, bytes) in [(16_666, 1), (16_666, 0), (3, 0), (3, 4_000_000), (1, 1)] {
        let (mut rig, _) = opened(2, 3, |open| (open.count, open.block_bytes) = (count, bytes));
        honest_completes(&mut rig);
    }
}

#[test]
fn a_false_count_costs_its_liar_and_not_the_block() {
    for (seed, transactions, claims) in [
        (1, 500, vec![499]),
        (2, 500, vec![501, 1, 16_666]),
        (3, 3, vec![4]),
        (4, 300, vec![299, 150, 600]),
        (5, 1, vec![2]),
        (6, 2, vec![1]),
    ] {
        let mut rig = Rig::new(seed, block(transactions));
        let liars: Vec<usize> = claims.iter().map(|_| rig.connect()).collect();
        let header = rig.truth.header;
        for (raw, count) in liars.iter().zip(&claims) {
            rig.send(*raw, &Message::OpenJob(open(&header, *count)));
        }
        rig.run(MILLIS(100));
        honest_completes(&mut rig);
        assert_eq!(rig.refused("count"), claims.len() as u64, "seed {seed}");
        assert!(liars.iter().all(|raw| rig.score(*raw) >= 50));
    }
}

#[test]
fn a_claimant_that_serves_nothing_delays_little() {
    for (seed, liars) in [(1, 1), (2, 5)] {
        let mut rig = Rig::new(seed, block(500));
        for _ in 0..liars {
            let raw = rig.connect();
            let header = rig.truth.header;
            rig.send(raw, &Message::OpenJob(open(&header, 500)));
            rig.run(MILLIS(30));
            anchor(&mut rig, raw);
            workout(9, &[0..500], |nodes| {
                let state = JobState {
                    job: JOB,
                    kind: Kind::Transactions,
                    nodes,
                };
                rig.send(raw, &Message::JobState(state));
            });
        }
        rig.run(Duration::from_secs(1));
        honest_completes(&mut rig);
    }
}

#[test]
fn an_altered_coinbase_spoils_nothing() {
    // The reserved value lies in the witness, which the txid does not cover: it is changed.
    for (seed, transactions) in [(1, 500), (2, 2), (3, 1)] {
        for late in [false, true] {
            let mut rig = Rig::new(seed, block(transactions));
            let raw = rig.connect();
            let header = rig.truth.header;
            let mut coinbase = rig.truth.transactions[0].clone();
            let at = coinbase.len() - 5;
            coinbase[at] ^= 1;
            rig.send(raw, &Message::OpenJob(open(&header, transactions)));
            rig.run(MILLIS(30));
            let mut frames = Vec::new();
            if transactions > 1 {
                frames = rig.truth.branch(JOB, &rig.truth.txids);
            }
            frames.extend(txs(0, &[&coinbase]));
            if late && transactions > 1 {
                let row = rig.truth.geometry.depth().saturating_sub(7);
                let width = rig.truth.geometry.width(row);
                frames.extend(rig.truth.hashes(JOB, &rig.truth.wtxids, 0, (row, 0..width)));
            }
            rig.send_bytes(raw, frames);
            rig.run(MILLIS(50));
            honest_completes(&mut rig);
            assert!(rig.score(raw) >= 20, "seed {seed} late {late}");
        }
    }
}

#[test]
fn a_witness_on_a_coinbase_without_commitment_is_refused() {
    let recipe = Recipe {
        transactions: 40,
        witness_every: 0,
        ..Recipe::default()
    };
    let mut rig = Rig::new(1, Truth::new(&recipe, 5));
    let raw = rig.connect();
    let header = rig.truth.header;
    rig.send(raw, &Message::OpenJob(open(&header, 40)));
    rig.run(MILLIS(30));
    let mut altered: bitcoin::Transaction =
        bitcoin::consensus::encode::deserialize(&rig.truth.transactions[0]).expect("a coinbase");
    altered.input[0].witness.push([0; 32]);
    let coinbase = bitcoin::consensus::encode::serialize(&altered);
    let mut frames = rig.truth.branch(JOB, &rig.truth.txids);
    frames.extend(txs(0, &[&coinbase]));
    rig.send_bytes(raw, frames);
    rig.run(MILLIS(50));
    assert_eq!(rig.refused("coinbase"), 1);
    honest_completes(&mut rig);
}

#[test]
fn lies_about_hashes_are_refused_by_their_reason() {
    let alter = |rows: &[Vec<[u8; 32]>]| {
        let mut rows = rows.to_vec();
        rows.iter_mut().flatten().for_each(|hash| hash[0] ^= 1);
        rows
    };
    let (mut rig, raw) = opened(1, 500, |_| {});
    let false_branch = rig.truth.branch(JOB, &alter(&rig.truth.txids));
    rig.send_bytes(raw, false_branch);
    rig.run(MILLIS(30));
    assert_eq!(rig.refused("branch"), 1);
    // Equal siblings above the leaves.
    let mut twins = rig.truth.txids.clone();
    twins[9][1] = twins[9][0];
    let equal = rig.truth.branch(JOB, &twins);
    rig.send_bytes(raw, equal);
    rig.run(MILLIS(30));
    assert_eq!(rig.refused("equal-siblings"), 1);
    anchor(&mut rig, raw);
    let lie = rig
        .truth
        .hashes(JOB, &alter(&rig.truth.wtxids), 2, (9, 0..32));
    rig.send_bytes(raw, lie);
    rig.run(MILLIS(30));
    assert_eq!(rig.refused("hashes"), 1);
    let twin_rows = rows(vec![[7; 32]; 512]);
    let equal = rig.truth.hashes(JOB, &twin_rows, 2, (9, 0..32));
    rig.send_bytes(raw, equal);
    rig.run(MILLIS(30));
    assert_eq!(rig.refused("equal-siblings"), 2);
    assert_eq!(rig.score(raw), 80);
    // A lap of another tree: deeper than this one.
    let deeper = Geometry::new(1_000).expect("in range");
    let lap = deeper.lap(deeper.root(), 10, 999..1_000).expect("a lap");
    let mut other = block(1_000);
    other.geometry = deeper;
    let outside = other.frame(JOB, Tree::Witness, &lap, &other.wtxids);
    rig.send_bytes(raw, outside);
    rig.run(MILLIS(30));
    assert_eq!(rig.refused("geometry"), 1);
    assert_eq!(rig.raws[raw].disconnect, Some(7));
    honest_completes(&mut rig);
}

#[test]
fn a_false_commitment_and_junk_before_the_anchor_do_not_stop_the_block() {
    for seed in 0..3 {
        let (mut rig, raw) = opened(seed, 500, |_| {});
        let junk = rows(
            (0..500u16)
                .map(|leaf| {
                    let mut hash = [seed as u8 ^ 0x55; 32];
                    hash[..2].copy_from_slice(&leaf.to_le_bytes());
                    hash
                })
                .collect(),
        );
        let mut frames = Vec::new();
        if seed > 0 {
            for chunk in 0..4u32 {
                let range = chunk * 128..(chunk * 128 + 128).min(500);
                frames.extend(rig.truth.hashes(JOB, &junk, 2, (9, range)));
            }
        }
        frames.extend(rig.truth.hashes(JOB, &junk, 0, (2, 0..4)));
        if seed > 1 {
            frames.extend(rig.truth.branch(JOB, &rig.truth.txids));
            frames.extend(txs(0, &[&rig.truth.transactions[0]]));
        }
        rig.send_bytes(raw, frames);
        rig.run(MILLIS(50));
        honest_completes(&mut rig);
        let blamed = rig.refused("commitment") + rig.refused("coinbase");
        assert!(blamed > 0, "seed {seed}: {:?}", rig.victim.totals().refused);
    }
}

#[test]
fn transactions_that_are_not_the_leafs_are_refused() {
    for known in [true, false] {
        let (mut rig, raw) = opened(1, 500, |_| {});
        anchor(&mut rig, raw);
        if known {
            let leaves = rig.truth.hashes(JOB, &rig.truth.wtxids, 2, (9, 128..256));
            rig.send_bytes(raw, leaves);
        }
        // Each one step to the left of where it belongs; a true chunk but for that.
        for first in (128..256).step_by(8) {
            let wrong: Vec<&[u8]> = (first..first + 8)
                .map(|leaf| rig.truth.transactions[leaf as usize + 1].as_slice())
                .collect();
            let frames = txs(first, &wrong);
            rig.send_bytes(raw, frames);
        }
        rig.send_bytes(raw, txs(300, &[b"no transaction"]));
        rig.run(MILLIS(100));
        assert!(rig.refused("leaf") > 0, "{:?}", rig.victim.totals().refused);
        honest_completes(&mut rig);
    }
}
