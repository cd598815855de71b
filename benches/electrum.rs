//! The Electrum index: how fast it is built, how large it is, and how fast it answers, on whatever chain is at hand.
//!
//! ```text
//! cargo run --release --example chain -- --out CHAIN --size 2GB --heavy 1000000,100000,1000
//! bitcoind -regtest -datadir=NODE -connect=0 -loadblock=CHAIN/blk00000.dat ...    # then stop it
//! BLOCKTORRENT_NODE=NODE/regtest BLOCKTORRENT_CHAIN=CHAIN/chain.json cargo bench --bench electrum
//! ```
//!
//! The measure that holds on any machine is the ratio of building the index to reading and parsing the same files, on as many cores,
//! and doing nothing with them. Without a chain it says so and ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use blocktorrent::chain::Network;
use blocktorrent::chain::bitcoind::blockfiles::survey::Cursor;
use blocktorrent::chain::bitcoind::blockfiles::{BlockFiles, Kind};
use blocktorrent::chain::bitcoind::undo;
use blocktorrent::electrum::query::{Answer, Query, Refusal};
use blocktorrent::electrum::script_hash::ScriptHash;
use blocktorrent::electrum::store::Store;
use blocktorrent::electrum::store::answer::Data;
use blocktorrent::electrum::store::follow::Follower;
use blocktorrent::electrum::store::lookup::Lookup;
use blocktorrent::mempool::{TransactionView, view};
use serde::Deserialize;

/// Memory for the first build, and as much for each cache.
const MEMORY: u64 = 512 << 20;

/// What the generator says of its chain.
#[derive(Deserialize)]
struct Chain {
    tip: String,
    heavy: Vec<Heavy>,
    samples: Vec<Sample>,
}

#[derive(Deserialize)]
struct Heavy {
    script_hash: String,
    transactions: u64,
}

#[derive(Deserialize)]
struct Sample {
    txid: String,
    height: u32,
    position: u32,
    script_hash: String,
}

fn main() {
    let folder = |name| std::env::var_os(name).map(PathBuf::from);
    let (Some(node), Some(chain)) = (folder("BLOCKTORRENT_NODE"), folder("BLOCKTORRENT_CHAIN"))
    else {
        println!(
            "skipped: no chain; BLOCKTORRENT_NODE is a node's folder of its network, BLOCKTORRENT_CHAIN the generator's chain.json"
        );
        return;
    };
    let text = std::fs::read_to_string(&chain).expect("chain.json can be read");
    let chain: Chain = serde_json::from_str(&text).expect("chain.json is one");
    let blocks = node.join("blocks");
    let files = || Arc::new(BlockFiles::open(&blocks, Network::Regtest).expect("block files"));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);

    let (bytes, plain) = read_and_parse(&files(), cores);
    let rate = |time: Duration| bytes as f64 / 1e6 / time.as_secs_f64();
    println!(
        "{:.0} MB of blocks and what they spent, {cores} cores",
        bytes as f64 / 1e6
    );
    println!(
        "read and parsed, nothing else: {plain:.2?}, {:.0} MB/s",
        rate(plain)
    );

    let index = tempfile::tempdir().expect("a folder");
    let began = Instant::now();
    let store = build(index.path(), &files(), &chain.tip);
    let built = began.elapsed();
    let size = store.disk_bytes();
    println!(
        "index built: {built:.2?}, {:.0} MB/s, {:.2} times as long; {:.1} MB, {:.2}% of the chain",
        rate(built),
        built.as_secs_f64() / plain.as_secs_f64(),
        size as f64 / 1e6,
        size as f64 / bytes as f64 * 100.0,
    );
    let data = Data::new(Lookup::new(store, files(), MEMORY));
    // Before anything is remembered.
    ask_heavy(&data, &chain);
    ask_all(&data, &chain);
}

/// Bytes of all block and undo files, and how long it takes to read and parse them.
fn read_and_parse(files: &BlockFiles, cores: usize) -> (u64, Duration) {
    let numbers = files.numbers().expect("the folder can be read");
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    let work = || {
        let (mut bytes, mut buffer, mut outputs) = (0, Vec::new(), 0u64);
        while let Some(&file) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) {
            let found = files
                .survey(&mut Cursor { file, offset: 0 })
                .expect("a file");
            let mut undos = Vec::new();
            files.load(Kind::Blocks, file, &mut buffer).expect("a file");
            files.load(Kind::Undo, file, &mut undos).expect("a file");
            for block in &found {
                let start = block.place.offset as usize;
                let mut body = &buffer[start + 80..start + block.size as usize];
                for _ in 0..view::transaction_count(&mut body).expect("a block") {
                    let one = TransactionView::parse_front(&mut body).expect("a transaction");
                    outputs += one.outputs().count() as u64;
                }
                bytes += u64::from(block.size);
            }
            for range in files.match_undos(&undos, &found).into_iter().flatten() {
                undo::read(&undos[range.clone()], |_, _| outputs += 1).expect("undo data");
                bytes += range.len() as u64;
            }
        }
        std::hint::black_box(outputs);
        bytes
    };
    let bytes = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .sum()
    });
    (bytes, began.elapsed())
}

fn build(folder: &Path, files: &Arc<BlockFiles>, tip: &str) -> Store {
    let writer = Store::open(&folder.join("index"), Network::Regtest, MEMORY).expect("an index");
    let stop = Arc::new(AtomicBool::new(false));
    let buckets = folder.join("buckets");
    let mut follower = Follower::new(writer, Arc::clone(files), buckets, MEMORY, stop);
    follower
        .follow(hash(tip), &|_| (), |_| ())
        .expect("the chain is in the files");
    follower.persist().expect("the disk works");
    follower.store().clone()
}

fn hash(text: &str) -> [u8; 32] {
    let mut bytes: [u8; 32] = hex::decode_to_array(text).expect("64 digits");
    bytes.reverse();
    bytes
}

/// The answer, and in how many slices it came.
fn ask(data: &Data, query: Query) -> (Result<Answer, Refusal>, u32) {
    let mut work = data.begin(query);
    let mut slices = 0;
    loop {
        slices += 1;
        if let Some(answer) = data.run(&mut work) {
            return (answer, slices);
        }
    }
}

fn script(text: &str) -> ScriptHash {
    text.parse().expect("a script hash")
}

fn ask_all(data: &Data, chain: &Chain) {
    println!("\nquestions, one thread, median / 99th of a hundred / a second");
    type Ask<'a> = (&'a str, Box<dyn Fn(&Sample) -> Query + 'a>);
    let kinds: Vec<Ask<'_>> = vec![
        (
            "status",
            Box::new(|one| Query::Status(script(&one.script_hash))),
        ),
        (
            "history",
            Box::new(|one| Query::History(script(&one.script_hash))),
        ),
        (
            "unspent",
            Box::new(|one| Query::Unspent(script(&one.script_hash))),
        ),
        (
            "transaction",
            Box::new(|one| Query::Transaction(hash(&one.txid))),
        ),
        (
            "merkle",
            Box::new(|one| Query::Merkle {
                txid: hash(&one.txid),
                height: Some(one.height),
            }),
        ),
        (
            "id at a place",
            Box::new(|one| Query::IdAt {
                height: one.height,
                position: one.position,
                merkle: false,
            }),
        ),
        (
            "header",
            Box::new(|one| Query::Header {
                height: one.height,
                checkpoint: None,
            }),
        ),
    ];
    for (name, kind) in kinds {
        let mut times: Vec<Duration> = Vec::new();
        for sample in &chain.samples {
            let began = Instant::now();
            let (answer, _) = ask(data, kind(sample));
            times.push(began.elapsed());
            answer.expect("an answer");
        }
        times.sort_unstable();
        let at = |share: usize| times[(times.len() - 1) * share / 100];
        let total: Duration = times.iter().sum();
        let rate = times.len() as f64 / total.as_secs_f64();
        println!(
            "  {name:<14} {:>10.1?} {:>10.1?} {rate:>10.0}",
            at(50),
            at(99)
        );
    }
}

fn ask_heavy(data: &Data, chain: &Chain) {
    println!("\nheavy scripts: first status, slices, again, history again");
    for heavy in &chain.heavy {
        let script = script(&heavy.script_hash);
        let began = Instant::now();
        let (answer, slices) = ask(data, Query::Status(script));
        let first = began.elapsed();
        answer.expect("a status");
        let began = Instant::now();
        ask(data, Query::Status(script)).0.expect("a status");
        let again = began.elapsed();
        let began = Instant::now();
        let told = match ask(data, Query::History(script)).0 {
            Ok(Answer::History(items)) => {
                assert_eq!(items.len() as u64, heavy.transactions);
                format!("{:.1?}", began.elapsed())
            }
            Err(Refusal::HistoryTooLarge) => "too large to be told".to_owned(),
            other => panic!("{other:?}"),
        };
        println!(
            "  {:>9}: {first:.1?}, {slices}, {again:.1?}, {told}",
            heavy.transactions
        );
    }
}
