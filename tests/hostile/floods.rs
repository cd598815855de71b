//! Floods, stalls and abuse of what is allowed: bounded memory and work, and the block comes all the same.

use crate::*;

fn run_of(kind: u8, start: u32, count: u32, level: u8) -> Vec<u8> {
    let mut run = vec![kind << 6 | level];
    for number in [start, count] {
        match number {
            few @ ..0xfd => run.push(few as u8),
            more => {
                run.push(0xfd);
                run.extend((more as u16).to_le_bytes());
            }
        }
    }
    run
}

/// A frame that names the same run over and over.
fn repeated(kind: u8, head: &[u8], run: &[u8], times: u16) -> Vec<u8> {
    let mut body = head.to_vec();
    body.push(0xfd);
    body.extend(times.to_le_bytes());
    for _ in 0..times {
        body.extend(run);
    }
    raw_frame(kind, &body)
}

fn served(transactions: u32) -> (Rig, usize) {
    let mut rig = Rig::new(1, block(transactions));
    rig.add_honest();
    rig.submit();
    rig.completes_within(SOON);
    let raw = rig.connect();
    assert!(rig.raws[raw].heard.iter().any(|(_, kind, _)| *kind == 0x0a));
    (rig, raw)
}

/// The victim's own id of its only job, as a raw peer writes it.
fn their_job(rig: &Rig, raw: usize) -> JobRef {
    let heard = &rig.raws[raw].heard;
    let open = heard
        .iter()
        .find(|(_, kind, _)| *kind == 0x0a)
        .expect("OPEN_JOB");
    JobRef::of_receiver(u16::from_le_bytes([open.2[0], open.2[1]]))
}

#[test]
fn parts_that_overlap_never_end_or_disagree_stay_bounded() {
    let (mut rig, raw) = opened(1, 500, |_| {});
    anchor(&mut rig, raw);
    let leaves = rig.truth.hashes(JOB, &rig.truth.wtxids, 2, (9, 0..128));
    rig.send_bytes(raw, leaves);
    let part = |index, total, cell| {
        let bytes = &[1; CELL as usize];
        frame(&Message::TxPart(TxPart {
            job: JOB,
            index,
            total,
            cell,
            bytes,
        }))
    };
    for cell in 0..200 {
        rig.send_bytes(raw, part(1, 1_000_000, cell % 50));
    }
    rig.run(MILLIS(50));
    assert_eq!(rig.score(raw), 0);
    rig.send_bytes(raw, part(1, 900_000, 0));
    rig.run(MILLIS(50));
    assert_eq!(rig.refused("parts"), 1);
    rig.send_bytes(raw, part(2, 4_000_001, 0));
    rig.run(MILLIS(50));
    assert_eq!(rig.refused("limits"), 1);
    for index in 3..60 {
        rig.send_bytes(raw, part(index, 3_000_000, 0));
    }
    rig.run(MILLIS(50));
    assert_eq!(rig.refused("unconnected"), 56);
    honest_completes(&mut rig);
}

#[test]
fn what_cannot_be_checked_is_kept_up_to_a_block_a_peer() {
    let (mut rig, raw) = opened(1, 500, |_| {});
    anchor(&mut rig, raw);
    let mut large: bitcoin::Transaction =
        bitcoin::consensus::encode::deserialize(&rig.truth.transactions[1]).expect("one");
    for leaf in 1..120u32 {
        large.output[0].script_pubkey = bitcoin::ScriptBuf::from_bytes(vec![leaf as u8; 60_000]);
        let bytes = bitcoin::consensus::encode::serialize(&large);
        rig.send_bytes(raw, txs(leaf, &[&bytes]));
    }
    rig.run(MILLIS(100));
    let refused = rig.refused("unconnected");
    assert!((40..=60).contains(&refused), "{refused}");
    honest_completes(&mut rig);
}

#[test]
fn workouts_that_name_the_block_a_thousand_times_cost_little() {
    let (mut rig, raw) = served(5_000);
    let job = their_job(&rig, raw).to_wire().to_le_bytes();
    let all = run_of(0, 0, 5_000, 13);
    let before = std::time::Instant::now();
    for _ in 0..20 {
        let gets = repeated(0x26, &job, &all, 1_024);
        rig.send_bytes(raw, gets);
        let cancel = repeated(0x2a, &[job[0], job[1], 2], &all, 1_024);
        rig.send_bytes(raw, cancel);
        let state = repeated(0x20, &[job[0], job[1], 1], &all, 1_024);
        rig.send_bytes(raw, state);
    }
    rig.run(MILLIS(100));
    let mut bitmap = run_of(3, 0, 400, 13);
    bitmap.extend([0x55; 49]);
    bitmap.push(0xd5);
    for _ in 0..20 {
        let gets = repeated(0x24, &[job[0], job[1], 1, 13], &bitmap, 1_000);
        rig.send_bytes(raw, gets);
    }
    rig.run(MILLIS(100));
    // Seconds without the bounds, a hundredth of that with them; the machine may be slow.
    let took = before.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(rig.refused("unsolicited") > 0);
    assert!(rig.score(raw) < 100);
}

#[test]
fn requests_beyond_a_few_blocks_are_throttled() {
    let (mut rig, raw) = served(300);
    let job = their_job(&rig, raw);
    // 300 transactions are about 120 kB; sixteen blocks of four megabytes would be 130 rounds of 120.
    for round in 0..400 {
        workout(9, &[0..300], |nodes| {
            rig.send(raw, &Message::GetTxs(GetTxs { job, nodes }));
        });
        rig.run(MILLIS(100));
        if rig.raws[raw].heard.iter().any(|(_, kind, _)| *kind == 0x29) {
            println!("throttled in round {round}");
            return;
        }
        rig.raws[raw].heard.clear();
    }
    panic!("never throttled");
}

#[test]
fn requests_for_what_does_not_exist_harm_nobody() {
    let (mut rig, raw) = served(300);
    let job = their_job(&rig, raw);
    for (level, range) in [(9, 290..400), (9, 400..401), (24, 5..6), (0, 0..1)] {
        workout(level, &[range], |nodes| {
            for around in [0, 9, 24] {
                for short in [false, true] {
                    let tree = Tree::Witness;
                    rig.send(
                        raw,
                        &Message::GetHashes(GetHashes {
                            job,
                            tree,
                            short,
                            around,
                            nodes,
                        }),
                    );
                }
            }
            rig.send(
                raw,
                &Message::Cancel(Cancel {
                    job,
                    kind: Kind::Transactions,
                    nodes,
                }),
            );
            for kind in [Kind::TxidHashes, Kind::WitnessHashes, Kind::Transactions] {
                rig.send(raw, &Message::JobState(JobState { job, kind, nodes }));
                rig.send(raw, &Message::JobStateAck(JobState { job, kind, nodes }));
            }
        });
        rig.run(MILLIS(20));
    }
    rig.run(MILLIS(100));
}

#[test]
fn job_ids_that_were_never_opened_are_dropped_or_answered() {
    let mut rig = Rig::new(1, block(300));
    let raw = rig.connect();
    for job in [JobRef::of_sender(9), JobRef::of_receiver(9)] {
        workout(9, &[0..5], |nodes| {
            rig.send(raw, &Message::GetTxs(GetTxs { job, nodes }));
            rig.send(
                raw,
                &Message::JobState(JobState {
                    job,
                    kind: Kind::Transactions,
                    nodes,
                }),
            );
            rig.send(
                raw,
                &Message::Missing(Missing {
                    job,
                    reason: MissingReason::Nodes,
                    request: MessageType::GetTxs,
                    nodes,
                }),
            );
        });
        rig.send(
            raw,
            &Message::CloseJob(CloseJob {
                job,
                reason: CloseReason::Done,
            }),
        );
    }
    let stray = rig.truth.branch(JOB, &rig.truth.txids);
    rig.send_bytes(raw, stray);
    rig.run(MILLIS(50));
    assert_eq!(rig.refused("unknown-job"), 9);
    assert_eq!(rig.score(raw), 0);
    let missing: Vec<_> = rig.raws[raw]
        .heard
        .iter()
        .filter(|(_, kind, _)| *kind == 0x29)
        .collect();
    assert_eq!(missing.len(), 2);
    assert_eq!(missing[0].2, [9, 0x80, 0, 0x26, 0]);
    assert_eq!(missing[1].2, [9, 0, 0, 0x26, 0]);
}

fn other_headers(rig: &Rig, count: usize) -> Vec<[u8; 80]> {
    let mut header = rig.truth.header;
    let mut found = Vec::new();
    for nonce in 0..u32::MAX {
        header[76..].copy_from_slice(&nonce.to_le_bytes());
        let parsed: bitcoin::block::Header =
            bitcoin::consensus::encode::deserialize(&header).expect("a header");
        if parsed.validate_pow(parsed.target()).is_ok() && header != rig.truth.header {
            found.push(header);
        }
        if found.len() == count {
            break;
        }
    }
    found
}

#[test]
fn a_job_id_reused_and_a_thousand_jobs_end_the_session() {
    let mut rig = Rig::new(1, block(300));
    let raw = rig.connect();
    let headers = other_headers(&rig, 1_000);
    for header in &headers[..2] {
        rig.send(raw, &Message::OpenJob(open(header, 300)));
    }
    rig.run(MILLIS(50));
    assert_eq!(rig.refused("job-reused"), 1);
    for (job, header) in (2u16..).zip(&headers) {
        let mut message = open(header, 300);
        message.job = job;
        rig.send(raw, &Message::OpenJob(message));
    }
    rig.run(MILLIS(50));
    assert_eq!(rig.raws[raw].disconnect, Some(7));
    assert!(rig.refused("too-many-jobs") > 10);
    assert!(rig.victim.jobs().len() <= 8);
    // Under ever new ids, one block is one job.
    let again = rig.connect();
    let header = headers[0];
    for job in 1..3_000u16 {
        let mut message = open(&header, 300);
        message.job = job;
        rig.send(again, &Message::OpenJob(message));
    }
    rig.run(MILLIS(50));
    assert_eq!(rig.score(again), 0);
}

#[test]
fn datagrams_that_overtake_the_control_stream_cost_nothing() {
    let mut rig = Rig::new(1, block(300));
    let raw = rig.connect();
    let headers = other_headers(&rig, 10);
    let offer = |job: u16| {
        let mut message = open(&headers[usize::from(job)], 300);
        message.job = job;
        Message::OpenJob(message)
    };
    let close = |id: u16| {
        let job = JobRef::of_sender(id);
        let reason = CloseReason::Done;
        Message::CloseJob(CloseJob { job, reason })
    };
    for job in 0..8 {
        rig.send(raw, &offer(job));
    }
    rig.run(MILLIS(50));
    // One too many, whose CLOSE_JOB is still on its way.
    rig.send_udp(raw, &frame(&offer(8)));
    rig.run(MILLIS(50));
    assert_eq!(rig.refused("too-many-jobs"), 1);
    assert_eq!(rig.refused("unknown-job"), 0);
    rig.send(raw, &close(0));
    // The copy of what is closed by now comes late, and takes no place.
    rig.send_udp(raw, &frame(&offer(0)));
    rig.send(raw, &offer(8));
    rig.run(MILLIS(50));
    assert_eq!(rig.refused("too-many-jobs"), 1);
    // Early ones have taken the room of those that come on the stream meanwhile.
    rig.send(raw, &offer(9));
    rig.run(MILLIS(50));
    assert_eq!(rig.score(raw), 0);
}

#[test]
fn reports_of_what_was_never_sent_end_the_session() {
    let mut rig = Rig::new(1, block(3));
    let raw = rig.connect();
    for _ in 0..5 {
        rig.send_udp(
            raw,
            &frame(&Message::RxReport(RxReport::new(50_000, 0, &[u64::MAX; 4]))),
        );
    }
    rig.run(MILLIS(50));
    assert_eq!(rig.refused("report"), 5);
    assert_eq!(rig.raws[raw].disconnect, Some(7));
}

#[test]
fn false_short_ids_are_found_out() {
    let mut rig = Rig::new(1, block(500));
    for bytes in rig.truth.work.transactions.clone() {
        rig.victim.add_transaction(rig.now, bytes).expect("cached");
    }
    let raw = rig.connect();
    let header = rig.truth.header;
    rig.send(raw, &Message::OpenJob(open(&header, 500)));
    rig.run(MILLIS(30));
    anchor(&mut rig, raw);
    // Short ids of the leaves in another order: all of them are found in the cache.
    use blocktorrent::mempool::ShortIdKey;
    use blocktorrent::wire::{HashSequence, Hashes, ShortEntry, WireLap, WireRun};
    let key = ShortIdKey::new(&header, 0);
    for chunk in 0..3u32 {
        let leaves = rig.truth.wtxids[9][chunk as usize * 128..][..128]
            .iter()
            .rev();
        let ids: Vec<ShortEntry> = leaves
            .map(|id| ShortEntry::Short(key.short_id(id)))
            .collect();
        let node = rig.truth.geometry.node(2, chunk).expect("there");
        let lap = rig
            .truth
            .geometry
            .lap(node, 9, chunk * 128..chunk * 128 + 128)
            .expect("a lap");
        let runs = [WireRun::new(
            lap.flat().expect("flat"),
            HashSequence::short(&ids, 6).expect("six"),
        )];
        let lap = WireLap::new(&lap, &runs);
        rig.send(
            raw,
            &Message::Hashes(Hashes {
                job: JOB,
                tree: Tree::Witness,
                lap,
            }),
        );
    }
    rig.run(MILLIS(100));
    honest_completes(&mut rig);
    assert!(
        rig.refused("short-ids") > 0,
        "{:?}",
        rig.victim.totals().refused
    );
}

#[test]
fn wanting_all_and_cancelling_over_and_over_piles_nothing_up() {
    let (mut rig, raw) = served(300);
    rig.raws[raw].reports = false;
    let job = their_job(&rig, raw);
    let odd: Vec<_> = (0..150).map(|leaf| leaf * 2..leaf * 2 + 1).collect();
    for _ in 0..200 {
        workout(9, &odd, |nodes| {
            rig.send(raw, &Message::GetTxs(GetTxs { job, nodes }));
            rig.send(
                raw,
                &Message::Cancel(Cancel {
                    job,
                    kind: Kind::Transactions,
                    nodes,
                }),
            );
            let reason = MissingReason::Throttled;
            rig.send(
                raw,
                &Message::Missing(Missing {
                    job,
                    reason,
                    request: MessageType::GetTxs,
                    nodes,
                }),
            );
        });
    }
    rig.run(Duration::from_secs(2));
    assert_eq!(rig.score(raw), 0);
}

#[test]
fn an_unread_control_connection_is_given_up() {
    let mut rig = Rig::new(1, block(300));
    let raw = rig.connect();
    rig.raws[raw].reads = false;
    for _ in 0..60 {
        let pings = frame(&Message::Ping(Ping {
            nonce: 1,
            padding: 2,
        }))
        .repeat(1_000);
        rig.send_bytes(raw, pings);
    }
    rig.run(MILLIS(100));
    assert!(rig.raws[raw].closed);
    honest_completes(&mut rig);
}

#[test]
fn absurd_parameters_and_probes_harm_nobody_else() {
    let mut rig = Rig::new(1, block(500));
    let raw = rig.connect();
    let list = |pairs: &[(u8, u64)]| -> Vec<Parameter> {
        pairs
            .iter()
            .map(|&(key, value)| Parameter { key, value })
            .collect()
    };
    for pairs in [
        list(&[(1, 0), (2, 0), (5, 1_200), (6, 0), (7, 0), (8, 65_535)]),
        list(&[(1, u64::from(u32::MAX)), (5, 65_507), (6, 3), (8, 65_535)]),
        list(&[(1, 1), (200, u64::MAX)]),
    ] {
        rig.send(raw, &Message::SetParams(ParameterList::new(&pairs)));
    }
    for nonce in 0..40 {
        rig.send(
            raw,
            &Message::TestMtu(TestMtu {
                nonce,
                size: 65_507,
                count: 16,
            }),
        );
        let gap_us = u32::MAX;
        let estimate = EstimateBandwidth {
            nonce,
            size: 28,
            count: 512,
            gap_us,
        };
        rig.send(raw, &Message::EstimateBandwidth(estimate));
    }
    rig.run(Duration::from_secs(3));
    let reports = rig.raws[raw]
        .heard
        .iter()
        .filter(|(_, kind, _)| *kind == 0x09)
        .count();
    assert_eq!(reports, 1, "one probe at a time");
    // Eight sizes and one estimate are a round, and a round is enough for a minute.
    assert_eq!(rig.refused("probe"), 32 + 39);
    rig.send_udp(
        raw,
        &frame(&Message::TestMtu(TestMtu {
            nonce: 1,
            size: 28,
            count: 1,
        })),
    );
    rig.send(raw, &Message::GetAddr);
    rig.send(raw, &Message::GetAddr);
    rig.run(MILLIS(50));
    assert_eq!(rig.refused("order"), 1);
    assert_eq!(
        rig.raws[raw]
            .heard
            .iter()
            .filter(|(_, kind, _)| *kind == 0x04)
            .count(),
        1
    );
    honest_completes(&mut rig);
}

#[test]
fn a_job_closed_in_mid_transfer_and_opened_again_goes_on() {
    let (mut rig, raw) = opened(1, 500, |_| {});
    anchor(&mut rig, raw);
    rig.send(
        raw,
        &Message::CloseJob(CloseJob {
            job: JOB,
            reason: CloseReason::Resources,
        }),
    );
    let header = rig.truth.header;
    // The other copy of the first OPEN_JOB comes late: it opens nothing.
    rig.send_udp(raw, &frame(&Message::OpenJob(open(&header, 500))));
    rig.run(MILLIS(50));
    let chunk = rig.truth.hashes(JOB, &rig.truth.wtxids, 2, (9, 0..32));
    rig.send_bytes(raw, chunk.clone());
    rig.run(MILLIS(50));
    assert_eq!(rig.refused("unknown-job"), 1);
    let mut again = open(&header, 500);
    again.job = 2;
    rig.send(raw, &Message::OpenJob(again));
    // It may push everything, and does not.
    rig.run(MILLIS(1_000));
    assert!(
        rig.raws[raw].heard.iter().any(|(_, kind, _)| *kind == 0x26),
        "asked again"
    );
    honest_completes(&mut rig);
}

#[test]
fn large_states_are_acknowledged_without_blocking_pongs() {
    let (mut rig, raw) = served(5_000);
    let job = their_job(&rig, raw).to_wire().to_le_bytes();
    let state = repeated(0x20, &[job[0], job[1], 2], &run_of(0, 3, 1, 13), 600);
    rig.raws[raw].heard.clear();
    rig.send_udp(raw, &state);
    rig.send_udp(
        raw,
        &frame(&Message::Ping(Ping {
            nonce: 5,
            padding: 2,
        })),
    );
    rig.run(MILLIS(100));
    let heard = |udp, kind| {
        rig.raws[raw]
            .heard
            .iter()
            .any(|(via, it, _)| *via == udp && *it == kind)
    };
    assert!(heard(false, 0x21), "the echo, on the control connection");
    assert!(heard(true, 0x23), "the PONG");
}

#[test]
fn a_silent_path_is_lost_and_found_again() {
    let (mut rig, raw) = served(300);
    (rig.raws[raw].answers_pings, rig.raws[raw].reports) = (false, false);
    let job = their_job(&rig, raw);
    workout(9, &[0..300], |nodes| {
        rig.send(raw, &Message::GetTxs(GetTxs { job, nodes }))
    });
    rig.run(Duration::from_secs(30));
    let over_tcp = rig.raws[raw]
        .heard
        .iter()
        .filter(|(udp, kind, _)| !udp && *kind == 0x27)
        .count();
    assert!(over_tcp > 0, "data goes by TCP");
    (rig.raws[raw].answers_pings, rig.raws[raw].reports) = (true, true);
    rig.run(Duration::from_secs(40));
    let session = rig.raws[raw].session;
    let peers = rig.victim.peers(rig.now);
    assert!(
        peers.iter().any(|peer| peer.session == session && peer.udp),
        "the path is back"
    );
}
