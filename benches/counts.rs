//! Instructions that the hot functions take, which no other load on the machine changes.
//!
//! `cargo bench --bench counts` runs each case of itself under `valgrind --tool=callgrind` and prints how far each count
//! is from `benches/counts.txt`; `-- --strict` fails if one grew by more than [`TOLERANCE_PERCENT`];
//! `BLOCKTORRENT_UPDATE=1 cargo bench --bench counts` writes that file anew.
//! What it is not: a measure of time. Valgrind shows neither the SHA extensions nor AVX-512, so that hashing counts as done
//! in software; another compiler shifts all of it, so the file names its own.

mod numbered;
mod pair;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use blocktorrent::mempool::{Mempool, ShortIdKey};
use blocktorrent::merkle::{Geometry, Hash, Node, Offer, Partial, hash};
use blocktorrent::sim::workload::{Recipe, Workload};
use blocktorrent::wire::{
    Frames, GetTxs, Hashes, HashlessRuns, JobRef, JobState, Kind, MacKey, Message, Parity,
    ParityKind, RxReport, Tree, WireLap, Writer,
};
use bytes::Bytes;
use numbered::numbered;

/// What a count may grow by: the layout of memory moves it by less than a hundredth.
const TOLERANCE_PERCENT: f64 = 2.0;
/// The symbol that callgrind counts.
const COUNTED: &str = "*counts::counted*";
const JOB: JobRef = JobRef::of_sender(1);
/// Room of a datagram of 1,200 bytes for frames.
const ROOM: usize = 1_184;

/// What is counted, by name. A name is a line of the file.
const CASES: [(&str, fn()); 19] = [
    ("MAC of 1,184 bytes", mac),
    ("encode GET_TXS of 100 runs", || get_transactions(encode)),
    ("decode GET_TXS of 100 runs", || get_transactions(decode)),
    ("encode HASHES of 20 leaves around the root", || {
        hashes(encode);
    }),
    ("decode HASHES of 20 leaves around the root", || {
        hashes(decode);
    }),
    ("encode PARITY of 18 cells", || parity(encode)),
    ("decode PARITY of 18 cells", || parity(decode)),
    ("encode JOB_STATE of 100 runs", || job_state(encode)),
    ("decode JOB_STATE of 100 runs", || job_state(decode)),
    ("encode RX_REPORT", || report(encode)),
    ("decode RX_REPORT", || report(decode)),
    ("verify a lap of 128 leaves", verify_lap),
    ("verify 128 leaves one by one", verify_leaves),
    ("index 10,000 transactions by short id", index),
    ("match 3,000 short ids against 10,000", match_short_ids),
    ("send of 200 transactions what goes at once", send),
    ("receive 200 transactions, cold", || receive(false, None)),
    ("receive 200 transactions, warm", || receive(true, None)),
    ("receive 200 transactions, warm, one datagram lost", || {
        receive(true, Some(1));
    }),
];

/// All that is counted happens below this function.
#[inline(never)]
fn counted(act: &mut dyn FnMut()) {
    act();
    // Keeps the call from becoming a jump, after which callgrind would not see its end.
    black_box(());
}

fn mac() {
    let key = MacKey::new([7; 16]);
    let frames = [5; ROOM];
    counted(&mut || {
        black_box(key.mac(1, 2, black_box(&frames)));
    });
}

fn encode(message: &Message<'_>) {
    let mut buffer = [0; ROOM];
    counted(&mut || {
        let mut writer = Writer::new(&mut buffer);
        let written = black_box(message).write_frame(&mut writer);
        written.expect("fits a datagram");
    });
}

fn decode(message: &Message<'_>) {
    let mut buffer = [0; ROOM];
    let mut writer = Writer::new(&mut buffer);
    message.write_frame(&mut writer).expect("fits a datagram");
    let frame = writer.written();
    counted(&mut || {
        for frame in Frames::new(black_box(frame)) {
            let (kind, body) = frame.expect("whole");
            black_box(Message::decode(kind, body).expect("well formed"));
        }
    });
}

fn hundred_runs() -> HashlessRuns {
    let ranges = (0..100).map(|run| run * 99_999..run * 99_999 + 40_000);
    HashlessRuns::from_ranges(24, ranges, ROOM - 20).0
}

fn get_transactions(act: fn(&Message<'_>)) {
    let runs = hundred_runs();
    let nodes = runs.as_workout();
    act(&Message::GetTxs(GetTxs { job: JOB, nodes }));
}

fn job_state(act: fn(&Message<'_>)) {
    let runs = hundred_runs();
    act(&Message::JobState(JobState {
        job: JOB,
        kind: Kind::Transactions,
        nodes: runs.as_workout(),
    }));
}

fn hashes(act: fn(&Message<'_>)) {
    let geometry = Geometry::new(2_500).expect("a tree");
    let lap = geometry.lap(geometry.root(), 12, 1_000..1_020);
    let lap = lap.expect("leaves of the tree");
    let all = vec![[7; 32]; lap.len() as usize];
    let runs = WireLap::runs_of(&lap, &all).expect("a hash for each node");
    act(&Message::Hashes(Hashes {
        job: JOB,
        tree: Tree::Witness,
        lap: WireLap::new(&lap, &runs),
    }));
}

fn parity(act: fn(&Message<'_>)) {
    act(&Message::Parity(Parity {
        job: JOB,
        kind: ParityKind::Flight,
        bytes: 16_300,
        planned: 36,
        first: 18,
        count: 18,
        cells: &[3; 18 * 64],
    }));
}

fn report(act: fn(&Message<'_>)) {
    act(&Message::RxReport(RxReport::new(9, 9, &[u64::MAX; 4])));
}

fn chunk() -> (Partial<u8>, Vec<Node>, Vec<Hash>) {
    let geometry = Geometry::new(128).expect("a tree");
    let leaves = (0..128_u32).map(|leaf| hash::sha256d(&leaf.to_le_bytes()));
    let hashes: Vec<Hash> = leaves.collect();
    let nodes = (0..128).filter_map(|leaf| geometry.leaf(leaf)).collect();
    let mut tree = Partial::new(geometry, 256);
    tree.trust_root(hash::root(&hashes).hash);
    (tree, nodes, hashes)
}

fn verify_lap() {
    let (mut tree, nodes, hashes) = chunk();
    let root = tree.geometry().root();
    counted(&mut || {
        let offer = tree.offer_lap(root, &nodes, &hashes, 0);
        assert!(matches!(offer, Offer::Verified { .. }));
    });
}

fn verify_leaves() {
    let (mut tree, nodes, hashes) = chunk();
    counted(&mut || {
        for (node, hash) in nodes.iter().zip(&hashes) {
            let _ = black_box(tree.offer(*node, *hash, 0));
        }
    });
    assert!(tree.all_verified(7, 0..128));
}

fn cache() -> (Mempool, ShortIdKey) {
    let mut pool = Mempool::new(1 << 30, [1, 2]);
    for number in 0..10_000 {
        pool.insert(&numbered(number));
    }
    (pool, ShortIdKey::new(&[5; 80], 6))
}

fn index() {
    let (pool, key) = cache();
    counted(&mut || {
        black_box(pool.index(black_box(key)));
    });
}

fn match_short_ids() {
    let (pool, key) = cache();
    let some = pool.iter().take(3_000);
    let wanted: Vec<u64> = some.map(|held| key.short_id(&held.wtxid())).collect();
    let index = pool.index(key);
    counted(&mut || {
        for short_id in &wanted {
            black_box(index.resolve(&pool, *short_id));
        }
    });
}

fn small_block() -> Bytes {
    let recipe = Recipe {
        transactions: 200,
        ..Recipe::default()
    };
    Workload::new(&recipe, 1).block
}

/// The sender's own check, first flight, parity, and as much of the rest as pacing lets go.
fn send() {
    let block = small_block();
    // The tables of the code of parity are made once in a process, by whoever needs them first.
    pair::record(&block, &[], None);
    let mut pair = pair::Pair::new(&[]);
    let now = pair.now;
    counted(&mut || {
        let [sender, _] = &mut pair.ends;
        sender.submit_block(now, block.clone()).expect("valid");
        while sender.poll_transmit(now, &mut pair.buffer).is_some() {}
    });
}

/// The receiver's whole path but sockets; what is lost is made good by parity.
fn receive(warm: bool, lost: Option<usize>) {
    let block = small_block();
    let transactions = pair::transactions_of(&block);
    let held = if warm { &transactions[1..] } else { &[] };
    let (given, _) = pair::record(&block, held, lost);
    let mut receiver = Some(pair::Pair::new(held));
    counted(&mut || receiver = receiver.take().map(|end| pair::play(end, &given)));
}

/// The instructions of a case, or why they are not known.
fn count(program: &Path, case: &str) -> Result<u64, String> {
    let out = std::env::temp_dir().join(format!("counts-{}.out", std::process::id()));
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args(["--case", case])
        .output()
        .map_err(|error| error.to_string())?;
    let text = std::fs::read_to_string(&out).unwrap_or_default();
    let _ = std::fs::remove_file(&out);
    if !run.status.success() {
        return Err(String::from_utf8_lossy(&run.stderr).into_owned());
    }
    let mut totals = text
        .lines()
        .filter_map(|line| line.strip_prefix("totals: "));
    let total = totals.next().and_then(|total| total.trim().parse().ok());
    match total {
        Some(0) | None => Err("callgrind counted nothing".to_owned()),
        Some(total) => Ok(total),
    }
}

fn version_of(program: &str) -> String {
    let run = Command::new(program).arg("--version").output();
    let text = run.map(|run| String::from_utf8_lossy(&run.stdout).trim().to_owned());
    text.unwrap_or_else(|_| format!("unknown {program}"))
}

fn compare(file: &Path, strict: bool) -> ExitCode {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    let recorded: BTreeMap<&str, &str> = lines.collect();
    let made_by = format!("{}, {}", version_of("rustc"), version_of("valgrind"));
    let was_made_by = recorded.get("made by").copied().unwrap_or("nothing");
    if was_made_by != made_by {
        println!("the recorded counts are of another make, {was_made_by}; now {made_by}");
    }
    let (mut now, mut failed) = (format!("made by: {made_by}\n"), false);
    let program = std::env::current_exe().expect("a program has a path");
    for (case, _) in CASES {
        let instructions = match count(&program, case) {
            Ok(instructions) => instructions,
            Err(error) => {
                eprintln!("{case}: {error}");
                failed = true;
                continue;
            }
        };
        now.push_str(&format!("{case}: {instructions}\n"));
        let Some(before) = recorded
            .get(case)
            .and_then(|count| count.parse::<u64>().ok())
        else {
            println!("{case}: {instructions}, not recorded yet");
            continue;
        };
        let drift = (instructions as f64 / before as f64 - 1.0) * 100.0;
        let grew = drift > TOLERANCE_PERCENT;
        let mark = if grew { "  GREW" } else { "" };
        println!("{case}: {instructions}, recorded {before}, {drift:+.1} %{mark}");
        failed |= grew && strict;
    }
    if failed {
        return ExitCode::FAILURE;
    }
    if std::env::var_os("BLOCKTORRENT_UPDATE").is_some() {
        std::fs::write(file, now).expect("the folder of the benches can be written");
    }
    ExitCode::SUCCESS
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--case") {
        let wanted = arguments.get(at + 1).map_or("", String::as_str);
        let case = CASES.iter().find(|(name, _)| *name == wanted);
        case.expect("a known case").1();
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("NOTHING WAS MEASURED: there is no valgrind; `apt-get install valgrind`");
        return ExitCode::SUCCESS;
    }
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/counts.txt");
    let strict = arguments.iter().any(|argument| argument == "--strict");
    compare(&file, strict)
}
