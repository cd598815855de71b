//! Blocks of the operator's own nodes that came before the headers below them. No I/O.
//!
//! ZMQ tells each block once, and a node that is reached by it alone can't be asked again.

use std::collections::VecDeque;

use bitcoin::BlockHash;
use bytes::Bytes;

use super::fetches::Origin;
use super::ledger::Via;

/// Blocks that wait: as many as are served; who lacks the headers of more has to fetch the blocks as well.
const MAX_ORPHANS: usize = 288;
/// Their bytes: some blocks of the largest size, or a burst of small ones. Headers come within seconds.
const MAX_ORPHAN_BYTES: usize = 32 << 20;

/// One of them.
#[derive(Clone, Debug)]
pub struct Orphan {
    /// The hash of it.
    pub hash: BlockHash,
    /// The block.
    pub block: Bytes,
    /// How it came.
    pub via: Via,
    /// From whom.
    pub origin: Origin,
}

/// Blocks that wait, in the order in which they came.
#[derive(Debug, Default)]
pub struct Orphans {
    waiting: VecDeque<Orphan>,
    bytes: usize,
}

impl Orphans {
    /// Keeps a block, unless it is there or there is no room: the first of a row is of more use than the last.
    pub fn keep(&mut self, hash: BlockHash, block: Bytes, via: Via, origin: Origin) {
        let has_room =
            self.waiting.len() < MAX_ORPHANS && self.bytes + block.len() <= MAX_ORPHAN_BYTES;
        if !has_room || self.waiting.iter().any(|orphan| orphan.hash == hash) {
            return;
        }
        self.bytes += block.len();
        self.waiting.push_back(Orphan {
            hash,
            block,
            via,
            origin,
        });
    }

    /// Takes out the one that came first.
    pub fn take(&mut self) -> Option<Orphan> {
        let orphan = self.waiting.pop_front()?;
        self.bytes -= orphan.block.len();
        Some(orphan)
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash as _;

    use super::*;

    #[test]
    fn they_wait_in_order_and_are_bounded() {
        let block = |number: u16, length: usize| {
            let mut block = vec![0; length];
            block[4..6].copy_from_slice(&number.to_le_bytes());
            (BlockHash::hash(&block), Bytes::from(block))
        };
        let mut orphans = Orphans::default();
        for number in 0..400 {
            let (hash, bytes) = block(number, 200);
            orphans.keep(hash, bytes.clone(), Via::Zmq(0), Origin::Rpc(0));
            orphans.keep(hash, bytes, Via::Block(0), Origin::Rpc(0));
        }
        for number in 0..MAX_ORPHANS as u16 {
            let orphan = orphans.take().unwrap();
            assert_eq!((orphan.hash, orphan.block), block(number, 200));
        }
        assert!(orphans.take().is_none());
        for number in 0..20 {
            let (hash, bytes) = block(number, 4_000_000);
            orphans.keep(hash, bytes, Via::Zmq(0), Origin::Rpc(0));
        }
        assert_eq!(orphans.waiting.len(), MAX_ORPHAN_BYTES / 4_000_000);
        while orphans.take().is_some() {}
        assert_eq!(orphans.bytes, 0);
    }
}
