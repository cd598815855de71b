//! How long messages of the P2P protocol are.

use super::super::super::limits::SHORT_ID_BYTES;
use super::super::super::trial::PlannedBlock;
use super::node::Message;
use crate::wire::compact_size_len;

/// Magic, command, length and checksum in front of each message. The encrypted transport (BIP324) takes as much, but for
/// a few bytes.
const ENVELOPE: u64 = 24;
const HASH: u64 = 32;
const HEADER: u64 = 80;

/// What the size of messages about a block follows from.
#[derive(Debug)]
pub(super) struct Sizes {
    block: u64,
    compact: u64,
    /// Of each node: the request for what it lacks, and the answer.
    missing: Vec<(u64, u64)>,
}

impl Sizes {
    pub(super) fn new(block: &PlannedBlock) -> Self {
        let workload = &block.workload;
        let others = workload.transactions.len() as u64;
        // Header, nonce, short ids, and the coinbase as the only prefilled transaction with its place.
        let compact = HEADER
            + 8
            + compact_size_len(others) as u64
            + SHORT_ID_BYTES * others
            + 2
            + workload.coinbase_bytes();
        let missing = |lacked: &Vec<u32>| {
            let count = HASH + compact_size_len(lacked.len() as u64) as u64;
            let mut last = 0;
            let places: u64 = lacked
                .iter()
                .map(|&place| {
                    let gap = u64::from(place - last).saturating_sub(1);
                    last = place;
                    compact_size_len(gap) as u64
                })
                .sum();
            let size = |place: &u32| workload.transactions.get(*place as usize - 1);
            let bytes: usize = lacked.iter().filter_map(size).map(bytes::Bytes::len).sum();
            (count + places, count + bytes as u64)
        };
        Self {
            block: workload.block.len() as u64,
            compact,
            missing: block.lacked.iter().map(missing).collect(),
        }
    }

    /// Bytes of a message; `asker` is the node whose lack it is about.
    pub(super) fn of(&self, message: Message, asker: usize) -> u64 {
        let missing = self.missing.get(asker).copied().unwrap_or_default();
        ENVELOPE
            + match message {
                Message::Headers(_) => 1 + HEADER + 1,
                Message::AskCompact(_) | Message::AskBlock(_) => 1 + 4 + HASH,
                Message::Compact(_) => self.compact,
                Message::AskTransactions(_) => missing.0,
                Message::Transactions(_) => missing.1,
                Message::Block(_) => self.block,
                Message::Select(_) => 9,
            }
    }
}
