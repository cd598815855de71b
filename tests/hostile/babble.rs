//! Peers that say anything at all, in any order, by both ways, some of it with a byte changed: an honest transfer
//! beside them completes, and nothing panics.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::*;

/// Ends of what they say in their turn.
const ROUNDS: u32 = 150;

fn any_frame(rig: &Rig, random: &mut StdRng) -> Vec<u8> {
    let truth = &rig.truth;
    let count = truth.count();
    let depth = truth.geometry.depth();
    let id = random.random_range(0..4);
    let job = match random.random_bool(0.6) {
        true => JobRef::of_sender(id),
        false => JobRef::of_receiver(id),
    };
    let start = random.random_range(0..count);
    let end = random.random_range(start + 1..=(start + 130).min(count));
    let level = match random.random_bool(0.8) {
        true => depth,
        false => random.random_range(0..=depth),
    };
    let kind =
        [Kind::TxidHashes, Kind::WitnessHashes, Kind::Transactions][random.random_range(0..3)];
    let width = truth.geometry.width(level);
    let nodes = start.min(width - 1)..end.min(width).max(start.min(width - 1) + 1);
    let around = random.random_range(0..=level);
    match random.random_range(0..16) {
        0 | 1 => {
            let mut message = open(&truth.header, count);
            message.job = id;
            message.sender_has_all = random.random_bool(0.5);
            message.nonce = random.random_range(0..6);
            if random.random_bool(0.3) {
                message.count = random.random_range(1..count * 2);
            }
            frame(&Message::OpenJob(message))
        }
        2 => truth.branch(job, &truth.txids),
        3 | 4 => {
            let first = truth.geometry.node(level, nodes.start).expect("there");
            let ancestor = truth.geometry.ancestor(first, around).expect("above");
            let below = truth.geometry.descendants(ancestor, level);
            truth.hashes(
                job,
                &truth.wtxids,
                around,
                (level, nodes.start..nodes.end.min(below.end)),
            )
        }
        5 | 6 => {
            let shift = u32::from(random.random_bool(0.2));
            let some: Vec<&[u8]> = (start..end.min(start + 8))
                .map(|leaf| truth.transactions[((leaf + shift) % count) as usize].as_slice())
                .collect();
            let transactions = TxList::new(&some);
            frame(&Message::Txs(Txs {
                job,
                first: start,
                transactions,
            }))
        }
        7 => {
            let bytes = &[start as u8; CELL as usize];
            let cell = random.random_range(0..5);
            let total = random.random_range(5..9) * CELL;
            frame(&Message::TxPart(TxPart {
                job,
                index: start,
                total,
                cell,
                bytes,
            }))
        }
        8 => workout(level, &[nodes], |nodes| {
            let (tree, short) = (Tree::Witness, random.random_bool(0.3));
            frame(&Message::GetHashes(GetHashes {
                job,
                tree,
                short,
                around,
                nodes,
            }))
        }),
        9 => workout(depth, &[start..end], |nodes| {
            frame(&Message::GetTxs(GetTxs { job, nodes }))
        }),
        10 => workout(level, &[nodes], |nodes| {
            frame(&Message::JobState(JobState { job, kind, nodes }))
        }),
        11 => workout(level, &[nodes], |nodes| {
            frame(&Message::JobStateAck(JobState { job, kind, nodes }))
        }),
        12 => workout(level, &[nodes], |nodes| {
            frame(&Message::Cancel(Cancel { job, kind, nodes }))
        }),
        13 => workout(level, &[nodes], |nodes| {
            let reason = [MissingReason::Block, MissingReason::Nodes][random.random_range(0..2)];
            let request = MessageType::GetTxs;
            frame(&Message::Missing(Missing {
                job,
                reason,
                request,
                nodes,
            }))
        }),
        14 => frame(&Message::CloseJob(CloseJob {
            job,
            reason: CloseReason::Done,
        })),
        _ => frame(&Message::RxReport(RxReport::new(
            random.random_range(0..40),
            0,
            &[random.random()],
        ))),
    }
}

#[test]
fn peers_that_say_anything_do_not_stop_a_block() {
    for seed in 0..40 {
        let mut random = StdRng::seed_from_u64(seed);
        let transactions = [1, 2, 3, 130, 500][random.random_range(0..5)];
        let mut rig = Rig::new(seed, block(transactions));
        rig.add_honest();
        let mut raws = vec![rig.connect(), rig.connect()];
        for round in 0..ROUNDS {
            if round == ROUNDS / 4 {
                rig.submit();
            }
            for raw in &mut raws {
                if rig.raws[*raw].closed {
                    if rig.raws.len() < 60 {
                        *raw = rig.connect();
                    }
                    continue;
                }
                let mut bytes = any_frame(&rig, &mut random);
                if random.random_bool(0.02) {
                    let at = random.random_range(0..bytes.len());
                    bytes[at] ^= 1 << random.random_range(0..8);
                }
                match random.random_bool(0.5) {
                    true => rig.send_udp(*raw, &bytes),
                    false => rig.send_bytes(*raw, bytes),
                }
            }
            rig.run(MILLIS(random.random_range(0..12)));
        }
        if rig.completed.is_none() {
            println!("seed {seed}: {transactions} transactions");
            rig.completes_within(SOON * 2);
        }
        assert_eq!(
            rig.honest_score(),
            0,
            "an honest peer was blamed, seed {seed}"
        );
    }
}
