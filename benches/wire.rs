//! Encoding and decoding of one datagram of each kind, without its MAC, and the MAC by itself.
//!
//! `cargo bench --bench wire`. The aim is 5 million a second on one core, 200 ns each: of decoding (envelope,
//! frames, every check of the message), and of encoding into a buffer that is there. Bodies are as large as a
//! datagram of 1,200 bytes allows where the kind grows with its content.

use blocktorrent::merkle::Geometry;
use blocktorrent::wire::{
    Cancel, CloseJob, CloseReason, DatagramBuilder, Frames, GetHashes, GetTxs, HashSequence,
    Hashes, HashlessRuns, JobRef, JobState, Kind, MacKey, Message, MessageType, Missing,
    MissingReason, OpenJob, Parameter, ParameterList, Ping, Pong, RxReport, ShortEntry, Tree,
    TxList, TxPart, Txs, WireLap, WireRun, Writer,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const JOB: JobRef = JobRef::of_sender(1);
const ROOM: usize = 1_184;

fn measure(criterion: &mut Criterion, name: &str, message: &Message<'_>) {
    let mut buffer = vec![0; ROOM];
    let mut writer = Writer::new(&mut buffer);
    message.write_frame(&mut writer).expect("fits a datagram");
    let frame = writer.written().to_vec();
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(1));
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            let mut writer = Writer::new(&mut buffer);
            black_box(message)
                .write_frame(&mut writer)
                .expect("fits a datagram");
            writer.position()
        });
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            Frames::new(black_box(&frame))
                .map(|frame| frame.and_then(|(kind, body)| Message::decode(kind, body)))
                .filter(|decoded| matches!(black_box(decoded), Ok(Some(_))))
                .count()
        });
    });
    group.finish();
}

fn small(criterion: &mut Criterion) {
    let parameters = [
        Parameter {
            key: 1,
            value: 50_000,
        },
        Parameter { key: 6, value: 3 },
    ];
    measure(
        criterion,
        "SET_PARAMS",
        &Message::SetParams(ParameterList::new(&parameters)),
    );
    let open = OpenJob {
        job: 1,
        has_commitment: true,
        sender_has_all: true,
        count: 2_500,
        block_bytes: 1_400_000,
        nonce: 0,
        header: &[7; 80],
    };
    measure(criterion, "OPEN_JOB", &Message::OpenJob(open));
    let close = CloseJob {
        job: JOB,
        reason: CloseReason::Done,
    };
    measure(criterion, "CLOSE_JOB", &Message::CloseJob(close));
    measure(
        criterion,
        "PING 1200",
        &Message::Ping(Ping {
            nonce: 1,
            padding: 1_172,
        }),
    );
    measure(
        criterion,
        "PONG",
        &Message::Pong(Pong {
            nonce: 1,
            bytes: 1_200,
        }),
    );
    measure(
        criterion,
        "RX_REPORT",
        &Message::RxReport(RxReport::new(9, 9, &[u64::MAX; 4])),
    );
}

fn hashless(criterion: &mut Criterion) {
    let (few, _) =
        HashlessRuns::from_ranges(12, (0..4).map(|run| run * 300..run * 300 + 200), ROOM);
    let (bits, _) =
        HashlessRuns::from_ranges(14, (0..4_000).map(|bit| bit * 2..bit * 2 + 1), ROOM - 20);
    let (many, _) = HashlessRuns::from_ranges(
        24,
        (0..100).map(|run| run * 99_999..run * 99_999 + 40_000),
        ROOM - 20,
    );
    for (size, runs) in [
        ("4 runs", &few),
        ("bitmap 1 kB", &bits),
        ("100 runs", &many),
    ] {
        let nodes = runs.as_workout();
        let state = JobState {
            job: JOB,
            kind: Kind::Transactions,
            nodes,
        };
        measure(
            criterion,
            &format!("JOB_STATE {size}"),
            &Message::JobState(state),
        );
    }
    let nodes = few.as_workout();
    let state = JobState {
        job: JOB,
        kind: Kind::Transactions,
        nodes,
    };
    measure(
        criterion,
        "JOB_STATE_ACK 4 runs",
        &Message::JobStateAck(state),
    );
    let get = GetHashes {
        job: JOB,
        tree: Tree::Witness,
        short: true,
        around: 5,
        nodes,
    };
    measure(criterion, "GET_HASHES 4 runs", &Message::GetHashes(get));
    measure(
        criterion,
        "GET_TXS 4 runs",
        &Message::GetTxs(GetTxs { job: JOB, nodes }),
    );
    let missing = Missing {
        job: JOB,
        reason: MissingReason::Nodes,
        request: MessageType::GetTxs,
        nodes,
    };
    measure(criterion, "MISSING 4 runs", &Message::Missing(missing));
    let cancel = Cancel {
        job: JOB,
        kind: Kind::Transactions,
        nodes,
    };
    measure(criterion, "CANCEL 4 runs", &Message::Cancel(cancel));
}

fn payload(criterion: &mut Criterion) {
    let geometry = Geometry::new(2_500).expect("a tree");
    let lap = geometry
        .lap(geometry.root(), 12, 1_000..1_020)
        .expect("leaves of the tree");
    let hashes = vec![[7; 32]; lap.len() as usize];
    let runs = WireLap::runs_of(&lap, &hashes).expect("a hash for each node");
    let lap = WireLap::new(&lap, &runs);
    let full = Hashes {
        job: JOB,
        tree: Tree::Witness,
        lap,
    };
    measure(
        criterion,
        "HASHES 20 leaves around the root",
        &Message::Hashes(full),
    );
    let chunk = geometry.node(5, 3).expect("a node of the row");
    let lap = geometry
        .lap(chunk, 12, geometry.leaves(chunk))
        .expect("its leaves");
    for (name, exceptions) in [("128 short", 0), ("128 short, 4 whole", 4)] {
        let entries: Vec<_> = (0..128)
            .map(|index| {
                if index < exceptions {
                    ShortEntry::Full([1; 32])
                } else {
                    ShortEntry::Short(index)
                }
            })
            .collect();
        let sequence = HashSequence::short(&entries, 6).expect("short ids");
        let runs: Vec<_> = lap
            .runs
            .iter()
            .map(|run| WireRun::new(*run, sequence))
            .collect();
        let hashes = Hashes {
            job: JOB,
            tree: Tree::Witness,
            lap: WireLap::new(&lap, &runs),
        };
        measure(
            criterion,
            &format!("HASHES {name}"),
            &Message::Hashes(hashes),
        );
    }
    let transactions: [&[u8]; 3] = [&[1; 400], &[2; 350], &[3; 400]];
    let txs = Txs {
        job: JOB,
        first: 1_000,
        transactions: TxList::new(&transactions),
    };
    measure(criterion, "TXS of three", &Message::Txs(txs));
    let part = TxPart {
        job: JOB,
        index: 9,
        total: 840_000,
        cell: 5,
        bytes: &[3; 1_152],
    };
    measure(criterion, "TX_PART", &Message::TxPart(part));
}

fn envelope(criterion: &mut Criterion) {
    let key = MacKey::new([7; 16]);
    let mut group = criterion.benchmark_group("MAC alone");
    for len in [100, ROOM] {
        let frames = vec![5; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{len} bytes"), |bencher| {
            bencher.iter(|| key.mac(1, black_box(9), black_box(&frames)));
        });
    }
    group.finish();
    let mut buffer = vec![0; 1_200];
    criterion.bench_function("datagram of a TX_PART, MAC included", |bencher| {
        let bytes = [3; 1_152];
        let part = Message::TxPart(TxPart {
            job: JOB,
            index: 9,
            total: 840_000,
            cell: 5,
            bytes: &bytes,
        });
        bencher.iter(|| {
            let mut builder = DatagramBuilder::new(&mut buffer, 1, 1);
            builder.push(black_box(&part)).expect("one fits");
            builder.finish(&key)
        });
    });
}

criterion_group!(benches, small, hashless, payload, envelope);
criterion_main!(benches);
