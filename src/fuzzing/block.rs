//! The block at stake when the engine is fuzzed, and who accepts its header.

use bytes::Bytes;

use crate::mempool::Transaction;
use crate::merkle::{Geometry, Hash, Lap, hash};
use crate::relay::{HeaderJudge, HeaderRefusal, HeaderVerdict};
use crate::time::Time;

/// The block at stake: transactions without witness, so that both trees are one.
pub(super) struct Block {
    pub header: [u8; 80],
    pub transactions: Vec<Transaction>,
    rows: Vec<Vec<Hash>>,
    pub geometry: Geometry,
    pub bytes: Bytes,
}

impl Block {
    pub fn new(count: u32) -> Self {
        let transactions: Vec<Transaction> = (0..count).map(transaction).collect();
        let geometry = Geometry::new(count).expect("a count from 1 to 300");
        let mut rows = vec![transactions.iter().map(Transaction::txid).collect()];
        while let Some(row) = rows.last().filter(|row: &&Vec<Hash>| row.len() > 1) {
            let mut above = Vec::new();
            hash::row_up(row, &mut above);
            rows.push(above);
        }
        rows.reverse();
        let mut header = [3; 80];
        if let (Some(place), Some(root)) = (header.get_mut(36..68), rows.first()) {
            place.copy_from_slice(root.first().expect("the first row is the root"));
        }
        let mut bytes = header.to_vec();
        if count < 0xfd {
            bytes.push(count as u8);
        } else {
            bytes.push(0xfd);
            bytes.extend_from_slice(&(count as u16).to_le_bytes());
        }
        for transaction in &transactions {
            bytes.extend_from_slice(transaction.bytes());
        }
        Self {
            header,
            transactions,
            rows,
            geometry,
            bytes: bytes.into(),
        }
    }

    pub fn hash_at(&self, level: u8, index: u32) -> Hash {
        let row = self.rows.get(usize::from(level));
        let hash = row.and_then(|row| row.get(index as usize));
        *hash.expect("a node of the geometry has its hash")
    }

    /// The true hashes of a lap, from left to right.
    pub fn hashes(&self, lap: &Lap) -> Vec<Hash> {
        let nodes = lap.nodes(&self.geometry).into_iter().flatten();
        nodes
            .map(|node| self.hash_at(node.level(), node.index()))
            .collect()
    }
}

/// A transaction that differs from the others; the first is a coinbase, the third larger than a datagram.
fn transaction(index: u32) -> Transaction {
    let mut bytes = vec![2, 0, 0, 0, 1];
    if index == 0 {
        bytes.extend([0; 32]);
        bytes.extend([0xff; 4]);
    } else {
        bytes.extend([7; 32]);
        bytes.extend(index.to_le_bytes());
    }
    let script: u16 = if index == 2 { 3_000 } else { 300 };
    bytes.push(0xfd);
    bytes.extend(script.to_le_bytes());
    bytes.extend(std::iter::repeat_n(0x51, usize::from(script)));
    bytes.extend([0xff; 4]);
    bytes.push(1);
    bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 1, 0x51, 0, 0, 0, 0]);
    Transaction::parse(bytes.into()).expect("it is well formed")
}

/// Accepts the header at stake.
pub(super) struct Judge(pub [u8; 80]);

impl HeaderJudge for Judge {
    fn accept(&mut self, header: &[u8; 80], _: Time) -> Result<HeaderVerdict, HeaderRefusal> {
        match header.first() {
            _ if *header == self.0 => Ok(HeaderVerdict {
                height: 7,
                in_window: true,
                segwit_active: true,
            }),
            Some(0) => Err(HeaderRefusal::UnknownParent),
            Some(1) => Err(HeaderRefusal::TooOld),
            _ => Err(HeaderRefusal::Invalid("work")),
        }
    }

    fn tip(&self) -> Hash {
        [9; 32]
    }
}
