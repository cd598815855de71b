//! One copy of each block that was handed in, for all nodes of a world.
//!
//! A thousand nodes that hold 32 MB each would take 32 GB. What they hold is the same bytes: so engines look here before
//! they keep their own. What they do is not changed by it.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher};

use bytes::Bytes;

use crate::mempool::{BlockLimits, split_block};
use crate::relay::Shelf;

/// Blocks that were handed in, and their transactions.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    blocks: BTreeMap<[u8; 32], Bytes>,
    by_wtxid: HashMap<[u8; 32], Bytes, BuildHasherDefault<DefaultHasher>>,
}

impl Blocks {
    /// These blocks, by their hashes.
    pub fn new(blocks: &BTreeMap<[u8; 32], Bytes>) -> Self {
        let limits = BlockLimits {
            max_bytes: usize::MAX,
            max_transactions: usize::MAX,
        };
        let mut shelf = Self {
            blocks: blocks.clone(),
            ..Self::default()
        };
        for block in blocks.values() {
            // What is no block is handed in to see it refused; nobody keeps it.
            let Ok((_, transactions)) = split_block(block.clone(), limits) else {
                continue;
            };
            let each = transactions.iter();
            let each = each.map(|transaction| (transaction.wtxid(), transaction.bytes().clone()));
            shelf.by_wtxid.extend(each);
        }
        shelf
    }
}

impl Shelf for Blocks {
    fn transaction(&self, wtxid: &[u8; 32]) -> Option<Bytes> {
        self.by_wtxid.get(wtxid).cloned()
    }

    fn block(&self, hash: &[u8; 32]) -> Option<Bytes> {
        self.blocks.get(hash).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::workload::{Recipe, Workload};
    use super::*;
    use crate::mempool::Transaction;

    #[test]
    fn what_lies_there_is_found_by_its_ids() {
        let workload = Workload::new(&Recipe::default(), 1);
        let none = (
            vec![1; 32].try_into().expect("32 bytes"),
            Bytes::from_static(b"none"),
        );
        let known = BTreeMap::from([(workload.hash, workload.block.clone()), none]);
        let shelf = Blocks::new(&known);
        assert_eq!(shelf.block(&workload.hash), Some(workload.block.clone()));
        assert_eq!(shelf.by_wtxid.len(), workload.transactions.len() + 1);
        for bytes in &workload.transactions {
            let wtxid = Transaction::parse(bytes.clone())
                .expect("a transaction")
                .wtxid();
            let found = shelf.transaction(&wtxid).expect("it lies there");
            assert_eq!(found, bytes);
            assert!(workload.block.as_ptr_range().contains(&found.as_ptr()));
        }
        assert_eq!(shelf.transaction(&[7; 32]), None);
    }
}
