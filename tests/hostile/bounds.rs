//! What a peer said it takes, what it may be asked and told how often, and what is remembered of it.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use blocktorrent::merkle::hash;
use blocktorrent::relay::{Event, SubmitRefusal};
use blocktorrent::sim::workload::{Recipe, Workload};
use blocktorrent::wire::{
    Cancel, GetHashes, HashSequence, Hashes, JobRef, JobState, Kind, Message, MessageType, Missing,
    MissingReason, OpenJob, Parameter, ParameterList, ShortEntry, Tree, WireLap, WireRun,
};

use super::rig::Rig;
use super::truth::{frame, workout};
use crate::{JOB, MILLIS, SOON, anchor, block, honest_completes, open, opened};

/// Frames of a type that a raw peer heard over one of the two ways.
fn heard(rig: &Rig, raw: usize, udp: bool, kind: u8) -> usize {
    let heard = rig.raws[raw].heard.iter();
    heard
        .filter(|(over_udp, known, _)| *over_udp == udp && *known == kind)
        .count()
}

/// Small blocks that the victim has from its own side.
fn submit_others(rig: &mut Rig, seeds: Range<u64>) {
    rig.has_others = true;
    for seed in seeds {
        let recipe = Recipe {
            transactions: 3,
            ..Recipe::default()
        };
        let work = Workload::new(&recipe, seed);
        rig.victim.submit_block(rig.now, work.block).expect("good");
        while rig.victim.poll_event().is_some() {}
    }
}

#[test]
fn a_peer_is_told_of_no_more_jobs_than_it_takes() {
    for most in [0, 1, 2] {
        let mut rig = Rig::new(1, block(3));
        let raw = rig.connect();
        let pairs = [Parameter {
            key: 7,
            value: most,
        }];
        rig.send(raw, &Message::SetParams(ParameterList::new(&pairs)));
        rig.run(MILLIS(30));
        // The rig knows one block; of others nothing but their number is looked at.
        rig.raws[raw].reads = false;
        submit_others(&mut rig, 50..55);
        rig.raws[raw].reads = true;
        let session = rig.raws[raw].session;
        let bytes = rig.victim.poll_control(rig.now, session);
        let bytes = bytes.unwrap_or_default();
        let (mut told, mut at) = (0, 0);
        while at + 1 < bytes.len() {
            told += match bytes[at] {
                0x0a => 1,
                0x0b => -1,
                _ => 0,
            };
            assert!(told <= most as i64);
            at += 2 + usize::from(bytes[at + 1]);
        }
        assert_eq!(told, most as i64);
    }
}

#[test]
fn a_false_whole_hash_among_short_ids_is_blamed_on_its_sender() {
    for found in [false, true] {
        let (mut rig, raw) = opened(1, 500, |_| {});
        anchor(&mut rig, raw);
        let mut entries = vec![ShortEntry::Short(7); 128];
        // A hash of nothing, or of a transaction that belongs elsewhere and is in the cache.
        let mut lie = rig.truth.wtxids[9][200];
        if !found {
            lie[0] ^= 1;
        }
        let key = blocktorrent::mempool::ShortIdKey::new(&rig.truth.header, 0);
        for (leaf, entry) in (128..).zip(&mut entries) {
            *entry = ShortEntry::Short(key.short_id(&rig.truth.wtxids[9][leaf]));
        }
        entries[3] = ShortEntry::Full(lie);
        let elsewhere = rig.truth.transactions[200].clone();
        let held = rig.victim.add_transaction(rig.now, elsewhere.into());
        held.expect("a transaction");
        let geometry = rig.truth.geometry;
        let node = geometry.node(2, 1).expect("there");
        let lap = geometry.lap(node, 9, 128..256).expect("a chunk");
        let sequence = HashSequence::short(&entries, 6).expect("fits");
        let runs = [WireRun::new(lap.flat().expect("flat"), sequence)];
        rig.send(
            raw,
            &Message::Hashes(Hashes {
                job: JOB,
                tree: Tree::Witness,
                lap: WireLap::new(&lap, &runs),
            }),
        );
        rig.run(MILLIS(30));
        assert_eq!(rig.refused("short-ids"), 0, "nothing shows it yet");
        let leaves = rig.truth.hashes(JOB, &rig.truth.wtxids, 2, (9, 128..256));
        rig.send_bytes(raw, leaves);
        rig.run(MILLIS(30));
        assert_eq!(rig.refused("short-ids"), 1, "found {found}");
        assert_eq!(rig.score(raw), 20);
        honest_completes(&mut rig);
    }
}

#[test]
fn a_rejected_block_is_neither_served_nor_fetched_again() {
    for complete in [true, false] {
        let (mut rig, raw) = opened(1, 300, |_| {});
        let hash = hash::sha256d(&rig.truth.header);
        if complete {
            honest_completes(&mut rig);
        } else {
            anchor(&mut rig, raw);
        }
        rig.victim.reject_block(rig.now, hash, "bad-txns");
        rig.run(MILLIS(50));
        let closed = |event: &Event| matches!(event, Event::JobClosed { reason, .. } if *reason == "bad-txns");
        assert!(rig.events.iter().any(closed));
        assert_eq!(rig.victim.block(&hash), None);
        let header = rig.truth.header;
        for job in 2..5 {
            let again = OpenJob {
                job,
                ..open(&header, 300)
            };
            rig.send(raw, &Message::OpenJob(again));
        }
        rig.run(MILLIS(50));
        assert!(rig.victim.jobs().is_empty());
        assert_eq!(rig.refused("invalid-block"), 3);
        assert_eq!(rig.score(raw), 0);
        let last = rig.raws[raw]
            .heard
            .iter()
            .rfind(|(_, kind, _)| *kind == 0x0b);
        assert_eq!(last.expect("CLOSE_JOB").2, [4, 0x80, 2]);
        // The node's own side may think better of it.
        let block = rig.truth.work.block.clone();
        assert_eq!(rig.victim.submit_block(rig.now, block), Ok(hash));
    }
}

#[test]
fn a_block_that_was_here_is_kept_for_a_while_and_not_opened_again() {
    let mut rig = Rig::new(1, block(3));
    // One that takes what it is told of, and answers nothing.
    let silent = rig.connect();
    rig.raws[silent].reads = false;
    submit_others(&mut rig, 50..58);
    let raw = rig.connect();
    let header = rig.truth.header;
    rig.send(raw, &Message::OpenJob(open(&header, 3)));
    rig.run(MILLIS(30));
    let block = rig.truth.work.block.clone();
    let hash = rig.victim.submit_block(rig.now, block).expect("good");
    // The silent peer may still want the older ones; this one is no less here for that.
    assert!(rig.victim.block(&hash).is_some());
    rig.raws[raw].reads = false;
    submit_others(&mut rig, 60..76);
    assert_eq!(rig.victim.block(&hash), None);
    rig.raws[raw].reads = true;
    rig.send(
        raw,
        &Message::OpenJob(OpenJob {
            job: 2,
            ..open(&header, 3)
        }),
    );
    rig.run(MILLIS(30));
    assert!(rig.victim.jobs().iter().all(|job| job.block != hash));
    let heard = rig.raws[raw].heard.iter();
    let closed: Vec<_> = heard.filter(|(_, kind, _)| *kind == 0x0b).collect();
    assert_eq!(closed.last().expect("CLOSE_JOB").2, [2, 0x80, 0]);
    assert_eq!(rig.score(raw), 0);
}

#[test]
fn a_mutated_body_does_not_poison_the_block() {
    let recipe = Recipe {
        transactions: 300,
        witness_every: 1,
        ..Recipe::default()
    };
    for early in [true, false] {
        let mut rig = Rig::new(1, super::truth::Truth::new(&recipe, 5));
        if !early {
            let raw = rig.connect();
            let header = rig.truth.header;
            rig.send(raw, &Message::OpenJob(open(&header, 300)));
            rig.run(MILLIS(30));
            anchor(&mut rig, raw);
        }
        let mut block: bitcoin::Block =
            bitcoin::consensus::encode::deserialize(&rig.truth.work.block).expect("a block");
        block.txdata[7].input[0].witness.push([9; 9]);
        let mutated = bitcoin::consensus::encode::serialize(&block);
        let refused = rig.victim.submit_block(rig.now, mutated.into());
        assert_eq!(refused, Err(SubmitRefusal::Witness));
        // The last transactions twice have the same root (CVE-2012-2459).
        let mut block: bitcoin::Block =
            bitcoin::consensus::encode::deserialize(&rig.truth.work.block).expect("a block");
        block.txdata.extend_from_within(296..);
        let twice = bitcoin::consensus::encode::serialize(&block);
        let refused = rig.victim.submit_block(rig.now, twice.into());
        assert_eq!(refused, Err(SubmitRefusal::MerkleRoot));
        assert_eq!(rig.victim.jobs().len(), usize::from(!early));
        honest_completes(&mut rig);
    }
}

#[test]
fn an_offer_is_taken_up_once_its_parent_is_known() {
    let mut rig = Rig::new(1, block(300));
    rig.parents_known.store(false, Ordering::Relaxed);
    rig.add_honest();
    rig.submit();
    rig.run(Duration::from_secs(2));
    assert!(rig.victim.jobs().is_empty());
    assert_eq!(rig.refused("unknown-parent"), 1);
    rig.victim.headers_changed(rig.now);
    rig.run(MILLIS(100));
    assert!(rig.victim.jobs().is_empty(), "nothing is known yet");
    rig.parents_known.store(true, Ordering::Relaxed);
    rig.victim.headers_changed(rig.now);
    rig.completes_within(SOON);
    assert_eq!(rig.honest_score(), 0);
}

#[test]
fn a_cancelled_want_for_hashes_is_not_served() {
    for cancelled in [false, true] {
        let (mut rig, raw) = opened(1, 500, |_| {});
        anchor(&mut rig, raw);
        let asker = rig.connect();
        rig.run(MILLIS(50));
        let opened = rig.raws[asker]
            .heard
            .iter()
            .find(|(_, kind, _)| *kind == 0x0a);
        let id = &opened.expect("OPEN_JOB").2[..2];
        let job = JobRef::of_receiver(u16::from_le_bytes([id[0], id[1]]));
        workout(9, &[128..256], |nodes| {
            let get = GetHashes {
                job,
                tree: Tree::Witness,
                short: true,
                around: 2,
                nodes,
            };
            rig.send(asker, &Message::GetHashes(get));
        });
        if cancelled {
            workout(9, &[100..300], |nodes| {
                let kind = Kind::WitnessHashes;
                rig.send(asker, &Message::Cancel(Cancel { job, kind, nodes }));
            });
        }
        rig.run(MILLIS(50));
        let short_ids = |rig: &Rig| {
            let heard = rig.raws[asker].heard.iter();
            heard
                .filter(|(_, kind, body)| *kind == 0x25 && body[2] & 2 != 0)
                .count()
        };
        // The first flight brings short ids too: what matters is the want of its own.
        let before = short_ids(&rig);
        let leaves = rig.truth.hashes(JOB, &rig.truth.wtxids, 2, (9, 128..256));
        rig.send_bytes(raw, leaves);
        rig.run(MILLIS(50));
        let pushed = 1;
        let asked = usize::from(!cancelled);
        assert_eq!(short_ids(&rig) - before, pushed + asked);
    }
}

#[test]
fn a_peer_that_says_missing_is_left_alone_for_a_while() {
    let (mut rig, raw) = opened(1, 500, |_| {});
    anchor(&mut rig, raw);
    workout(9, &[0..500], |nodes| {
        let kind = Kind::Transactions;
        let state = JobState {
            job: JOB,
            kind,
            nodes,
        };
        rig.send(raw, &Message::JobState(state));
    });
    let leaves = (0..4).map(|chunk| {
        let range = chunk * 128..(chunk * 128 + 128).min(500);
        rig.truth.hashes(JOB, &rig.truth.wtxids, 2, (9, range))
    });
    let leaves: Vec<u8> = leaves.flatten().collect();
    rig.send_bytes(raw, leaves);
    // It may push everything, and does not.
    rig.run(MILLIS(1_000));
    let asked = |rig: &Rig| heard(rig, raw, true, 0x26);
    let first = asked(&rig);
    assert!(first > 0, "it was asked");
    let missing = workout(9, &[100..110], |nodes| {
        frame(&Message::Missing(Missing {
            job: JOB,
            reason: MissingReason::Nodes,
            request: MessageType::GetTxs,
            nodes,
        }))
    });
    rig.send_bytes(raw, missing);
    rig.run(MILLIS(60));
    assert_eq!(asked(&rig), first, "no pause");
    rig.run(MILLIS(2_000));
    assert!(asked(&rig) > first, "never asked again");
    honest_completes(&mut rig);
}
