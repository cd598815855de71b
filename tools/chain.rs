//! Writes a regtest chain of any size, valid by Bitcoin Core's consensus rules, for benches of what reads chains.
//!
//! `cargo run --release --example chain -- --help`.

mod chain {
    pub mod blocks;
    pub mod coins;
}

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use bitcoin::Network;
use bitcoin::consensus::Encodable as _;
use bitcoin::hashes::{Hash as _, sha256};
use clap::Parser;
use serde_json::{Value, json};

use chain::blocks::{Chain, MATURITY};

/// What stands before each block in a file of regtest.
const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];
/// Bytes of a file at most: Bitcoin Core's `MAX_BLOCKFILE_SIZE`, which it does not read beyond.
const MAX_FILE: u64 = 128 << 20;
/// Bytes of a transaction on average, as this tool makes them: only how long histories are spread depends on it.
const TRANSACTION: u64 = 420;
/// Seconds between blocks.
const SPACING: u32 = 600;
/// Transactions and scripts that `chain.json` names as samples.
const SAMPLES: u64 = 2_000;

/// Writes a generated regtest chain.
#[derive(Debug, Parser)]
#[command(
    name = "chain",
    about = "Writes a generated regtest chain, valid by Bitcoin Core's consensus rules",
    after_help = "\
Writes DIR/blk00000.dat and so on (magic, size, block; the genesis block first) and DIR/chain.json: counts, the tip, the
heavy scripts with their Electrum script hashes, and transactions and scripts to ask for. The same seed, sizes and end
give the same bytes. Most outputs are spent within some hundred blocks, some within their own, one in seven never.

Let a bitcoind take it:
  bitcoind -regtest -datadir=D -listen=0 -loadblock=DIR/blk00000.dat -loadblock=DIR/blk00001.dat ...
or, with --datadir, where the files lie as bitcoind keeps them:
  bitcoind -regtest -datadir=DIR -reindex

Examples:
  chain --out /tmp/small --size 30MB
  chain --out /tmp/large --size 2GB --heavy 1000000,100000,1000"
)]
struct Options {
    /// Where to write; made if it is not there. Block files in it are an error.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Bytes of the whole chain, roughly: 30MB, 2GB.
    #[arg(long, value_name = "BYTES", default_value = "30MB", value_parser = bytes)]
    size: u64,
    /// Bytes of a block, roughly; at most 3.9MB, and a block is full before that when its weight is.
    #[arg(long, value_name = "BYTES", default_value = "1MB", value_parser = bytes)]
    block_bytes: u64,
    /// What the chain is drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Scripts with so many transactions each. Where the chain has not as many, chain.json says how many it has.
    #[arg(
        long,
        value_name = "COUNT,..",
        value_delimiter = ',',
        default_value = "1000"
    )]
    heavy: Vec<u64>,
    /// Time of the last block in seconds since 1970; the others stand ten minutes apart before it. Now, if not given:
    /// then bitcoind does not take itself to be in its initial download at the end.
    #[arg(long, value_name = "SECONDS")]
    end_time: Option<u32>,
    /// Write to DIR/regtest/blocks, as bitcoind keeps them.
    #[arg(long)]
    datadir: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    ensure!(
        options.block_bytes >= 2_000,
        "a block of less than 2 kB holds nothing"
    );
    ensure!(
        options.block_bytes <= 3_900_000,
        "consensus takes no such blocks"
    );
    let end_time = match options.end_time {
        Some(time) => time,
        None => SystemTime::now()
            .duration_since(UNIX_EPOCH)?
            .as_secs()
            .try_into()?,
    };
    let count = MATURITY + u32::try_from(options.size.div_ceil(options.block_bytes))?;
    let first_time = end_time.checked_sub(count * SPACING);
    let first_time = first_time.context("the end is too early for so many blocks")?;
    ensure!(
        first_time > 1_296_688_602,
        "the chain would begin before regtest's genesis block"
    );
    let genesis = bitcoin::constants::genesis_block(Network::Regtest);
    let mut chain = Chain::new(options.seed, &options.heavy, genesis.block_hash());
    let mut files = Files::create(&options)?;
    files.write(&genesis)?;
    let expected = options.size / TRANSACTION;
    let mut samples = Samples::new(expected);
    let mut progress = Progress::new(options.size);
    for height in 1..=count {
        let time = first_time + height * SPACING;
        let bytes = if height <= MATURITY {
            0
        } else {
            options.block_bytes
        };
        let rest = u64::from(count - height + 1) * options.block_bytes;
        let mean = files.total / (chain.tally.transactions + 1);
        let mean = if height < MATURITY + 10 {
            TRANSACTION
        } else {
            mean
        };
        let (block, ids) = chain.next(bytes, time, rest / mean.max(100));
        files.write(&block)?;
        samples.add(height, &block, &ids);
        progress.show(height, count, files.total);
    }
    let last = files.finish()?;
    progress.end(files.total);
    write_summary(&options, end_time, &chain, &files, samples, last)
}

fn write_summary(
    options: &Options,
    end_time: u32,
    chain: &Chain,
    files: &Files,
    samples: Samples,
    last: u32,
) -> anyhow::Result<()> {
    let heavy = chain.heavy.iter().map(|heavy| {
        json!({
            "script": heavy.script.to_hex_string(),
            "script_hash": script_hash(heavy.script.as_bytes()),
            "transactions": heavy.transactions,
            "wanted": heavy.wanted,
        })
    });
    let tally = &chain.tally;
    let summary = json!({
        "network": "regtest",
        "seed": options.seed,
        "end_time": end_time,
        "height": chain.height,
        "tip": chain.tip.to_string(),
        "bytes": files.total,
        "files": last + 1,
        "transactions": tally.transactions,
        "inputs": tally.inputs,
        "outputs": tally.outputs,
        "inputs_from_same_block": tally.same_block,
        "heavy": heavy.collect::<Vec<_>>(),
        "samples": samples.taken,
    });
    let path = options.out.join("chain.json");
    let mut text = serde_json::to_vec_pretty(&summary)?;
    text.push(b'\n');
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

/// The files of blocks.
struct Files {
    folder: PathBuf,
    number: u32,
    file: BufWriter<File>,
    in_file: u64,
    total: u64,
    buffer: Vec<u8>,
}

impl Files {
    fn create(options: &Options) -> anyhow::Result<Self> {
        let folder = match options.datadir {
            true => options.out.join("regtest").join("blocks"),
            false => options.out.clone(),
        };
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Self {
            file: create(&folder, 0)?,
            folder,
            number: 0,
            in_file: 0,
            total: 0,
            buffer: Vec::new(),
        })
    }

    fn write(&mut self, block: &bitcoin::Block) -> anyhow::Result<()> {
        self.buffer.clear();
        block.consensus_encode(&mut self.buffer)?;
        let bytes = self.buffer.len() as u64 + 8;
        if self.in_file + bytes > MAX_FILE {
            self.file.flush()?;
            self.number += 1;
            self.file = create(&self.folder, self.number)?;
            self.in_file = 0;
        }
        self.file.write_all(&MAGIC)?;
        self.file
            .write_all(&u32::try_from(self.buffer.len())?.to_le_bytes())?;
        self.file.write_all(&self.buffer)?;
        self.in_file += bytes;
        self.total += bytes;
        Ok(())
    }

    /// The number of the last file, when all is written.
    fn finish(&mut self) -> anyhow::Result<u32> {
        self.file.flush()?;
        Ok(self.number)
    }
}

fn create(folder: &Path, number: u32) -> anyhow::Result<BufWriter<File>> {
    let path = folder.join(format!("blk{number:05}.dat"));
    let file = File::create_new(&path).with_context(|| format!("making {}", path.display()))?;
    Ok(BufWriter::with_capacity(1 << 20, file))
}

/// Transactions and scripts to ask for, evenly from the chain.
struct Samples {
    every: u64,
    seen: u64,
    taken: Vec<Value>,
}

impl Samples {
    fn new(expected: u64) -> Self {
        Self {
            every: expected / SAMPLES + 1,
            seen: 0,
            taken: Vec::new(),
        }
    }

    fn add(&mut self, height: u32, block: &bitcoin::Block, ids: &[bitcoin::Txid]) {
        for (position, (transaction, id)) in block.txdata.iter().zip(ids).enumerate() {
            self.seen += 1;
            if self.seen.is_multiple_of(self.every) {
                let script = &transaction.output[0].script_pubkey;
                self.taken.push(json!({
                    "txid": id.to_string(),
                    "height": height,
                    "position": position,
                    "script_hash": script_hash(script.as_bytes()),
                }));
            }
        }
    }
}

/// Rate and time left, on standard error.
struct Progress {
    start: Instant,
    shown: Instant,
    size: u64,
}

impl Progress {
    fn new(size: u64) -> Self {
        let start = Instant::now();
        Self {
            start,
            shown: start,
            size,
        }
    }

    fn show(&mut self, height: u32, count: u32, written: u64) {
        if self.shown.elapsed() < Duration::from_secs(2) {
            return;
        }
        self.shown = Instant::now();
        let rate = written as f64 / self.start.elapsed().as_secs_f64();
        let left = self.size.saturating_sub(written) as f64 / rate;
        eprintln!(
            "block {height} of {count}, {} MB of {} MB, {:.1} MB/s, {left:.0} s left",
            written / 1_000_000,
            self.size / 1_000_000,
            rate / 1e6,
        );
    }

    fn end(&self, written: u64) {
        let seconds = self.start.elapsed().as_secs_f64();
        let rate = written as f64 / seconds / 1e6;
        eprintln!(
            "{} MB in {seconds:.1} s, {rate:.1} MB/s",
            written / 1_000_000
        );
    }
}

/// As Electrum calls a script: its SHA-256, written backwards.
fn script_hash(script: &[u8]) -> String {
    let mut hash = sha256::Hash::hash(script).to_byte_array();
    hash.reverse();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        _ => return Err("a number with kB, MB or GB, such as 2GB".into()),
    };
    let number: f64 = digits
        .parse()
        .map_err(|_| "a number with kB, MB or GB, such as 2GB")?;
    Ok((number * unit) as u64)
}
