//! A block taken apart: what a liar needs to know to lie well.

use std::ops::Range;

use blocktorrent::merkle::{Geometry, Hash, Lap, hash};
use blocktorrent::sim::workload::{Recipe, Workload};
use blocktorrent::wire::{Hashes, HashlessRun, HashlessWorkout, JobRef, Message, Tree, Writer};

/// A block and its trees.
pub struct Truth {
    pub work: Workload,
    pub header: [u8; 80],
    pub geometry: Geometry,
    /// All transactions, serialized, the coinbase first.
    pub transactions: Vec<Vec<u8>>,
    /// Rows by level, the root first.
    pub txids: Vec<Vec<Hash>>,
    pub wtxids: Vec<Vec<Hash>>,
}

pub fn rows(leaves: Vec<Hash>) -> Vec<Vec<Hash>> {
    let mut rows = vec![leaves];
    while rows[0].len() > 1 {
        let mut above = Vec::new();
        hash::row_up(&rows[0], &mut above);
        rows.insert(0, above);
    }
    rows
}

impl Truth {
    pub fn new(recipe: &Recipe, seed: u64) -> Self {
        let work = Workload::new(recipe, seed);
        let block: bitcoin::Block =
            bitcoin::consensus::encode::deserialize(&work.block).expect("a block");
        let serialize = bitcoin::consensus::encode::serialize::<bitcoin::Transaction>;
        let transactions: Vec<Vec<u8>> = block.txdata.iter().map(serialize).collect();
        let id = |tx: &bitcoin::Transaction| *AsRef::<[u8; 32]>::as_ref(&tx.compute_txid());
        let mut wtxids: Vec<Hash> = block
            .txdata
            .iter()
            .map(|tx| *AsRef::<[u8; 32]>::as_ref(&tx.compute_wtxid()))
            .collect();
        if recipe.witness_every > 0 {
            wtxids[0] = [0; 32];
        }
        Self {
            header: work.block[..80].try_into().expect("80 bytes"),
            geometry: Geometry::new(transactions.len() as u32).expect("in range"),
            txids: rows(block.txdata.iter().map(id).collect()),
            wtxids: rows(wtxids),
            transactions,
            work,
        }
    }

    pub fn count(&self) -> u32 {
        self.geometry.count()
    }

    /// The HASHES frame of nodes of a level around an ancestor of the first.
    pub fn hashes(
        &self,
        job: JobRef,
        rows: &[Vec<Hash>],
        around: u8,
        at: (u8, Range<u32>),
    ) -> Vec<u8> {
        let (level, range) = at;
        let first = self.geometry.node(level, range.start).expect("there");
        let ancestor = self.geometry.ancestor(first, around).expect("above");
        let lap = self.geometry.lap(ancestor, level, range).expect("a lap");
        self.frame(job, Tree::Witness, &lap, rows)
    }

    /// The HASHES frame of the branch of leaf 0.
    pub fn branch(&self, job: JobRef, rows: &[Vec<Hash>]) -> Vec<u8> {
        let lap = Lap::of_root(self.geometry.branch_of_first());
        self.frame(job, Tree::Txid, &lap, rows)
    }

    pub fn frame(&self, job: JobRef, tree: Tree, lap: &Lap, rows: &[Vec<Hash>]) -> Vec<u8> {
        let nodes = lap.nodes(&self.geometry).expect("they exist");
        let hashes: Vec<Hash> = nodes
            .map(|node| rows[usize::from(node.level())][node.index() as usize])
            .collect();
        let mut room = vec![0; 80_000];
        let mut writer = Writer::new(&mut room);
        Hashes::write_full(&mut writer, job, tree, lap, &hashes).expect("room");
        let len = writer.position();
        room.truncate(len);
        room
    }
}

/// The frame of a message.
pub fn frame(message: &Message<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    message.append_frame(&mut frame);
    frame
}

/// A frame of any type.
pub fn raw_frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    match body.len() {
        few @ ..0xfd => frame.push(few as u8),
        many @ ..=0xffff => {
            frame.push(0xfd);
            frame.extend((many as u16).to_le_bytes());
        }
        more => {
            frame.push(0xfe);
            frame.extend((more as u32).to_le_bytes());
        }
    }
    frame.extend(body);
    frame
}

/// Calls `act` with a workout of flat runs of one level.
pub fn workout<T>(
    level: u8,
    ranges: &[Range<u32>],
    act: impl FnOnce(HashlessWorkout<'_>) -> T,
) -> T {
    let runs: Vec<HashlessRun<'_>> = ranges
        .iter()
        .map(|range| HashlessRun::flat(level, range.clone()))
        .collect();
    act(HashlessWorkout::new(&runs))
}

/// Counts a header's nonce up to the next that shows the work.
pub fn next_work(header: &mut [u8; 80]) {
    loop {
        let nonce = u32::from_le_bytes(header[76..].try_into().expect("four"));
        header[76..].copy_from_slice(&(nonce + 1).to_le_bytes());
        let judged: bitcoin::block::Header =
            bitcoin::consensus::encode::deserialize(header).expect("a header");
        if judged.validate_pow(judged.target()).is_ok() {
            return;
        }
    }
}
