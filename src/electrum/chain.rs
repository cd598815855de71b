//! The chain as the index has it: hashes of the blocks, and which transactions are in which.

use std::sync::Arc;

use super::proof::{Branch, HeaderTree, Lacking};
use super::rows::TxNumber;
use crate::merkle::Hash;

/// Blocks in one group.
const GROUP: usize = 256;

/// All blocks up to the tip. A copy shares all groups but the last with its original, so that each question can have the chain as
/// it was when it began: a million blocks take 36 MB once, and 50 kB for each copy.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    groups: Vec<Arc<Group>>,
    tree: HeaderTree,
}

#[derive(Clone, Debug, Default)]
struct Group {
    /// The number behind the last transaction of each block.
    ends: Vec<TxNumber>,
    hashes: Vec<Hash>,
}

impl Chain {
    /// Blocks in it.
    pub fn len(&self) -> u32 {
        let full = self.groups.len().saturating_sub(1) * GROUP;
        let last = self.groups.last().map_or(0, |group| group.ends.len());
        (full + last) as u32
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The height of the last block and its hash.
    pub fn tip(&self) -> Option<(u32, Hash)> {
        let height = self.len().checked_sub(1)?;
        Some((height, self.hash_at(height)?))
    }

    /// Transactions in all blocks.
    pub fn transactions(&self) -> TxNumber {
        let last = self.groups.last().and_then(|group| group.ends.last());
        last.copied().unwrap_or(0)
    }

    /// Adds a block: its hash, and the number behind that of its last transaction.
    pub fn push(&mut self, hash: Hash, end: TxNumber) {
        if self
            .groups
            .last()
            .is_none_or(|group| group.ends.len() == GROUP)
        {
            self.groups.push(Arc::default());
        }
        let Some(group) = self.groups.last_mut() else {
            return;
        };
        let group = Arc::make_mut(group);
        group.ends.push(end);
        group.hashes.push(hash);
        if let Some(whole) = group.hashes.first_chunk() {
            self.tree.push(whole);
        }
    }

    /// Takes the last block away.
    pub fn pop(&mut self) {
        if let Some(last) = self.groups.last_mut() {
            let group = Arc::make_mut(last);
            group.ends.pop();
            group.hashes.pop();
            if group.ends.is_empty() {
                self.groups.pop();
            }
        }
        self.tree.truncate(self.len() as usize);
    }

    /// The hash of the block at a height.
    pub fn hash_at(&self, height: u32) -> Option<Hash> {
        let group = self.groups.get(height as usize / GROUP)?;
        group.hashes.get(height as usize % GROUP).copied()
    }

    /// The numbers of a block's transactions.
    pub fn transactions_of(&self, height: u32) -> Option<std::ops::Range<TxNumber>> {
        let end = |height: u32| {
            let group = self.groups.get(height as usize / GROUP)?;
            group.ends.get(height as usize % GROUP).copied()
        };
        let first = match height.checked_sub(1) {
            Some(before) => end(before)?,
            None => 0,
        };
        Some(first..end(height)?)
    }

    /// In which block a transaction is, and at which place in it.
    pub fn place_of(&self, number: TxNumber) -> Option<(u32, u32)> {
        let is_before = |group: &Arc<Group>| group.ends.last().is_none_or(|end| *end <= number);
        let index = self.groups.partition_point(is_before);
        let group = self.groups.get(index)?;
        let height = index * GROUP + group.ends.partition_point(|end| *end <= number);
        let first = self.transactions_of(height as u32)?.start;
        Some((height as u32, number - first))
    }

    /// The branch of the header at `height` in the tree of those up to `checkpoint`.
    ///
    /// # Errors
    ///
    /// If the chain is shorter, or the height above the checkpoint.
    pub fn branch(&self, height: u32, checkpoint: u32) -> Result<Branch, Lacking> {
        if checkpoint >= self.len() {
            return Err(Lacking);
        }
        self.tree
            .branch(height as usize, checkpoint as usize, |range| {
                let hashes = range.map(|height| self.hash_at(height as u32).ok_or(Lacking));
                hashes.collect::<Result<Vec<_>, Lacking>>()
            })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::electrum::proof::branch;

    fn hash(number: usize) -> Hash {
        let mut hash = [number as u8; 32];
        hash[..8].copy_from_slice(&number.to_le_bytes());
        hash
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn it_equals_a_plain_list(
            steps in prop::collection::vec((any::<bool>(), 1..400usize, 1..5u32), 1..12),
            probe in any::<prop::sample::Index>(),
            other in any::<prop::sample::Index>(),
        ) {
            let mut chain = Chain::default();
            let mut list: Vec<(Hash, u32)> = Vec::new();
            let mut made = 0;
            for (adds, blocks, transactions) in steps {
                let before = chain.clone();
                let length = list.len();
                for _ in 0..blocks {
                    if adds {
                        let end = list.last().map_or(0, |(_, end)| *end) + transactions;
                        made += 1;
                        list.push((hash(made), end));
                        chain.push(hash(made), end);
                    } else {
                        list.pop();
                        chain.pop();
                    }
                }
                prop_assert_eq!(before.len() as usize, length);
                prop_assert_eq!(chain.len() as usize, list.len());
            }
            prop_assert_eq!(chain.transactions(), list.last().map_or(0, |last| last.1));
            prop_assert_eq!(chain.place_of(chain.transactions()), None);
            prop_assert_eq!(chain.hash_at(chain.len()), None);
            prop_assert_eq!(chain.branch(0, chain.len()), Err(Lacking));
            if list.is_empty() {
                prop_assert!(chain.is_empty());
                prop_assert_eq!(chain.tip(), None);
                return Ok(());
            }
            let number = probe.index(chain.transactions() as usize) as u32;
            let height = list.iter().position(|(_, end)| *end > number).unwrap();
            let first = height.checked_sub(1).map_or(0, |before| list[before].1);
            prop_assert_eq!(chain.place_of(number), Some((height as u32, number - first)));
            prop_assert_eq!(chain.transactions_of(height as u32), Some(first..list[height].1));
            let checkpoint = probe.index(list.len());
            let height = other.index(checkpoint + 1);
            let leaves = list[..=checkpoint].iter().map(|(hash, _)| *hash).collect();
            let expected = branch(leaves, height).unwrap();
            prop_assert_eq!(chain.branch(height as u32, checkpoint as u32), Ok(expected));
        }
    }
}
