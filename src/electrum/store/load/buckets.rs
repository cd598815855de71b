//! Rows on disk, sorted by their first bits only, until all are there.
//!
//! What has been written is recorded after some files, with the lengths of all buckets; what came later is cut off when
//! a build goes on.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::electrum::index::Rows;
use crate::electrum::rows::{ROW_BYTES, Row, TxNumber};
use crate::merkle::Hash;

/// The three kinds.
pub(super) const HISTORY: usize = 0;
pub(super) const TXIDS: usize = 1;
const SIZES: usize = 2;
const KINDS: [&str; 3] = ["history", "txids", "sizes"];

/// Rows of history for each transaction, about: each has some inputs and outputs.
const ROWS_PER_TRANSACTION: u64 = 5;

/// Buckets of a kind at most: all of them are open at a time.
const MAX_COUNT: u64 = 128;

/// Files of blocks between two records: a minute of work is lost at most.
const RECORD_AFTER: usize = 16;

/// The name of the record.
const RECORD: &str = "record.json";

/// What is safe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The last block of the build, as 64 digits.
    tip: String,
    count: usize,
    files: BTreeSet<u32>,
    lengths: Vec<u64>,
}

pub(super) struct Buckets {
    folder: PathBuf,
    record: Record,
    files: Vec<BufWriter<File>>,
    lengths: Vec<u64>,
    unrecorded: usize,
    /// By how much a row's first four bytes are shifted to give its bucket.
    shift: u32,
}

impl Buckets {
    /// Goes on with what is in the folder if it is of the same chain; begins anew if not. A bucket fits into a quarter of `memory`.
    pub(super) fn open(
        folder: &Path,
        tip: Hash,
        transactions: TxNumber,
        memory: u64,
    ) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let bytes = u64::from(transactions) * ROWS_PER_TRANSACTION * ROW_BYTES as u64;
        let count = (bytes / (memory / 4).max(1) + 1)
            .next_power_of_two()
            .min(MAX_COUNT) as usize;
        let tip: String = tip.iter().map(|byte| format!("{byte:02x}")).collect();
        let record = fs::read(folder.join(RECORD)).ok();
        let record = record.and_then(|text| serde_json::from_slice::<Record>(&text).ok());
        let fits = |record: &Record| {
            record.tip == tip && record.count == count && record.lengths.len() == 3 * count
        };
        let record = record.filter(fits).unwrap_or_else(|| Record {
            tip,
            count,
            files: BTreeSet::new(),
            lengths: vec![0; 3 * count],
        });
        let mut files = Vec::with_capacity(3 * count);
        for (index, length) in record.lengths.iter().enumerate() {
            let (kind, index) = (index / count, index % count);
            let path = bucket_path(folder, kind, index);
            let mut options = OpenOptions::new();
            let file = options
                .create(true)
                .truncate(false)
                .append(true)
                .open(path)?;
            if file.metadata()?.len() < *length {
                return Err(io::Error::other(
                    "a bucket is shorter than was recorded; remove the folder",
                ));
            }
            file.set_len(*length)?;
            files.push(BufWriter::new(file));
        }
        Ok(Self {
            folder: folder.to_owned(),
            lengths: record.lengths.clone(),
            record,
            files,
            unrecorded: 0,
            shift: 32 - count.ilog2(),
        })
    }

    /// Buckets of each kind.
    pub(super) fn count(&self) -> usize {
        self.record.count
    }

    /// Whether a file of blocks is in them.
    pub(super) fn is_done(&self, file: u32) -> bool {
        self.record.files.contains(&file)
    }

    /// Adds the rows of a file.
    pub(super) fn add(&mut self, file: u32, rows: &mut Rows) -> io::Result<()> {
        rows.sort();
        let shift = self.shift;
        for (kind, rows) in [(HISTORY, &rows.history), (TXIDS, &rows.txids)] {
            // In order, so that those of one bucket are together.
            for run in rows.chunk_by(|one, other| bucket_of(one, shift) == bucket_of(other, shift))
            {
                let bucket = run.first().map_or(0, |row| bucket_of(row, shift));
                self.write(kind, bucket, run.as_flattened())?;
            }
        }
        for (key, value) in &rows.sizes {
            let [a, b, c, d, ..] = *key;
            // Rising with the height, as the buckets are written one after the other.
            let bucket = (u32::from_be_bytes([a, b, c, d]) >> 14) as usize;
            let bucket = bucket.min(self.record.count - 1);
            let length = (value.len() as u16).to_le_bytes();
            self.write(SIZES, bucket, &[key.as_slice(), &length, value].concat())?;
        }
        self.record.files.insert(file);
        self.unrecorded += 1;
        if self.unrecorded >= RECORD_AFTER {
            self.keep()?;
        }
        Ok(())
    }

    fn write(&mut self, kind: usize, bucket: usize, bytes: &[u8]) -> io::Result<()> {
        let index = kind * self.record.count + bucket;
        if let (Some(file), Some(length)) = (self.files.get_mut(index), self.lengths.get_mut(index))
        {
            file.write_all(bytes)?;
            *length += bytes.len() as u64;
        }
        Ok(())
    }

    /// Makes safe what has been added.
    pub(super) fn keep(&mut self) -> io::Result<()> {
        for file in &mut self.files {
            file.flush()?;
            file.get_ref().sync_data()?;
        }
        self.record.lengths.clone_from(&self.lengths);
        let text = serde_json::to_vec(&self.record)?;
        let path = self.folder.join(RECORD);
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(new, path)?;
        self.unrecorded = 0;
        Ok(())
    }

    /// The rows of a bucket in order, each once.
    pub(super) fn rows(&self, kind: usize, bucket: usize) -> io::Result<Vec<Row>> {
        let bytes = self.read(kind, bucket)?;
        let (rows, rest) = bytes.as_chunks::<ROW_BYTES>();
        if !rest.is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut rows = rows.to_vec();
        drop(bytes);
        rows.sort_unstable();
        rows.dedup();
        Ok(rows)
    }

    /// The chunks of sizes of a bucket in order.
    pub(super) fn sizes(&self, bucket: usize) -> io::Result<Vec<([u8; 6], Vec<u8>)>> {
        let bytes = self.read(SIZES, bucket)?;
        let mut rest = bytes.as_slice();
        let mut rows = Vec::new();
        while let Some((key, behind)) = rest.split_first_chunk::<6>() {
            let parts = behind
                .split_first_chunk::<2>()
                .and_then(|(length, behind)| {
                    behind.split_at_checked(u16::from_le_bytes(*length).into())
                });
            let (value, behind) = parts.ok_or(io::ErrorKind::InvalidData)?;
            rows.push((*key, value.to_vec()));
            rest = behind;
        }
        rows.sort_unstable();
        Ok(rows)
    }

    fn read(&self, kind: usize, bucket: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(bucket_path(&self.folder, kind, bucket))?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// With one bucket there is nothing to shift by.
fn bucket_of(row: &Row, shift: u32) -> usize {
    let first = row
        .first_chunk()
        .map_or(0, |first| u32::from_be_bytes(*first));
    first.checked_shr(shift).unwrap_or(0) as usize
}

fn bucket_path(folder: &Path, kind: usize, index: usize) -> PathBuf {
    let kind = KINDS.get(kind).copied().unwrap_or_default();
    folder.join(format!("{kind}-{index:03}"))
}
