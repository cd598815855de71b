//! How a block becomes chunks.

use super::super::super::limits::SHORT_ID_BYTES;
use super::super::super::trial::PlannedBlock;
use crate::wire::compact_size_len;

/// `FEC_CHUNK_SIZE`.
const CHUNK: u64 = 1_152;
/// Bytes of a datagram: `UDPMessage` without its padding.
pub(super) const DATAGRAM: usize = 1_185;
/// Bytes of the rate that a datagram counts for: `PACKET_SIZE`.
pub(super) const PACKET: f64 = 1_233.0;
/// Bits in one of FIBRE's megabits.
pub(super) const MEGABIT: f64 = 1_048_576.0;
/// The rate that an operator would set, of what the link carries.
pub(super) const SHARE_OF_RATE: f64 = 0.96;
/// The rate without a limit: `DEFAULT_MAX_MBPS`.
pub(super) const DEFAULT_MBIT: f64 = 1_024.0;
/// Code chunks beyond those that an object has data chunks, or a millisecond takes.
const MORE_CODE: u32 = 10;

/// Which of a block's objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Object {
    /// The compact block with lengths.
    Header,
    /// The transactions.
    Body,
}

/// Chunks of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    /// How many hold the object as it is; so many different ones decode it.
    pub data: u32,
    /// How many chunks of code a sender adds.
    pub code: u32,
}

/// A block in chunks.
#[derive(Debug)]
pub(super) struct Coding {
    pub header: Chunks,
    pub body: Chunks,
    /// First and last data chunk that each transaction but the coinbase is in.
    places: Vec<(u32, u32)>,
}

impl Coding {
    /// `mbit` is the least rate of any peer, as FIBRE counts it.
    pub(super) fn new(block: &PlannedBlock, mbit: f64) -> Self {
        let transactions = &block.workload.transactions;
        let count = transactions.len() as u64;
        let lengths: u64 = transactions.iter().map(|bytes| varint(bytes.len())).sum();
        let header = 80
            + 8
            + compact_size_len(count) as u64
            + SHORT_ID_BYTES * count
            + lengths
            + 2
            + block.workload.coinbase_bytes();
        let mut at = 0;
        let places = transactions
            .iter()
            .map(|bytes| {
                let first = at / CHUNK;
                at += bytes.len() as u64;
                (first as u32, (at.saturating_sub(1) / CHUNK) as u32)
            })
            .collect();
        let data = |bytes: u64| u32::try_from(bytes.div_ceil(CHUNK)).unwrap_or(u32::MAX);
        let header = data(header);
        // With the block's header behind it.
        let body = data(at + 80);
        Self {
            header: Chunks {
                data: header,
                code: (mbit * MEGABIT / 8.0 / 1_000.0 / PACKET) as u32 + MORE_CODE,
            },
            body: Chunks {
                data: body,
                code: body + MORE_CODE,
            },
            places,
        }
    }

    /// Data chunks of the body that whoever lacks those transactions (places from 1) cannot fill in.
    pub(super) fn missing(&self, lacked: &[u32]) -> Vec<bool> {
        let mut missing = vec![false; self.body.data as usize];
        for &place in lacked {
            let Some(&(first, last)) = self.places.get(place as usize - 1) else {
                continue;
            };
            for chunk in missing
                .iter_mut()
                .take(last as usize + 1)
                .skip(first as usize)
            {
                *chunk = true;
            }
        }
        missing
    }
}

/// Bytes of a length as FIBRE writes it, Core's `VARINT`.
const fn varint(value: usize) -> u64 {
    match value {
        0..=0x7f => 1,
        0x80..=0x407f => 2,
        0x4080..=0x20_407f => 3,
        _ => 4,
    }
}
