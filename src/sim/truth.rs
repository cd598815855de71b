//! A block taken apart by other code than the engine's: what a judge of its passage compares with, and what a liar
//! needs to lie well.

use bitcoin::consensus::encode;
use bitcoin::hashes::Hash as _;
use bitcoin::{Block, Transaction};
use bytes::Bytes;

use crate::mempool::ShortIdKey;
use crate::merkle::{Geometry, Hash, Lap, Node, hash};
use crate::relay::{self, Coded};
use crate::wire::{Hashes, JobRef, ParityKind, Tree, Writer};

/// A block and its two trees.
#[derive(Clone, Debug)]
pub struct Truth {
    /// Its hash, internal byte order.
    pub hash: Hash,
    /// Its header, serialized.
    pub header: [u8; 80],
    /// Bytes of the whole block, serialized.
    pub bytes: u32,
    /// The shape of its trees.
    pub geometry: Geometry,
    /// Whether its coinbase commits to witnesses.
    pub has_commitment: bool,
    /// Its transactions, serialized, the coinbase first.
    pub transactions: Vec<Bytes>,
    /// Rows of the txid tree, the root first.
    txids: Vec<Vec<Hash>>,
    /// Rows of the tree that chunks are cut from, the root first: of wtxids, or of txids without a commitment.
    wtxids: Vec<Vec<Hash>>,
}

impl Truth {
    /// Takes a serialized block apart; `None` if it is none, or has more transactions than any tree.
    pub fn of(block: &[u8]) -> Option<Self> {
        let header = *block.first_chunk()?;
        let bytes = u32::try_from(block.len()).ok()?;
        let block: Block = encode::deserialize(block).ok()?;
        let txid = |transaction: &Transaction| transaction.compute_txid().to_byte_array();
        let wtxid = |transaction: &Transaction| transaction.compute_wtxid().to_byte_array();
        let txids: Vec<Hash> = block.txdata.iter().map(txid).collect();
        let has_commitment = block
            .txdata
            .first()
            .is_some_and(|coinbase| coinbase.output.iter().any(commits));
        let leaves = match has_commitment {
            false => txids.clone(),
            true => {
                let others = block.txdata.iter().skip(1).map(wtxid);
                std::iter::once([0; 32]).chain(others).collect()
            }
        };
        Some(Self {
            hash: block.block_hash().to_byte_array(),
            header,
            bytes,
            geometry: Geometry::new(u32::try_from(txids.len()).ok()?)?,
            has_commitment,
            transactions: block
                .txdata
                .iter()
                .map(|transaction| encode::serialize(transaction).into())
                .collect(),
            txids: rows(txids),
            wtxids: rows(leaves),
        })
    }

    /// Puts another header on the same transactions, and on the way from the coinbase to its root other siblings: at
    /// each level above the leaves' the one that `sibling` names.
    pub fn with_branch(mut self, header: [u8; 80], siblings: &[Hash]) -> Self {
        self.header = header;
        self.hash = hash::sha256d(&header);
        let levels = self.txids.iter_mut().rev();
        for (row, sibling) in levels.zip(siblings) {
            if let Some(place) = row.get_mut(1) {
                *place = *sibling;
            }
        }
        self
    }

    /// How many transactions there are.
    pub const fn count(&self) -> u32 {
        self.geometry.count()
    }

    /// The hash at a node.
    pub fn hash_at(&self, tree: Tree, level: u8, index: u32) -> Option<&Hash> {
        let rows = match tree {
            Tree::Txid => &self.txids,
            Tree::Witness => &self.wtxids,
        };
        rows.get(usize::from(level))?.get(index as usize)
    }

    /// The txid and the wtxid of the leaf at an index, as they stand in the trees.
    pub fn leaf(&self, tree: Tree, index: u32) -> Option<&Hash> {
        self.hash_at(tree, self.geometry.depth(), index)
    }

    /// The branch that proves the coinbase, bottom up: its own txid, then a sibling of each level.
    pub fn siblings(&self) -> Vec<Hash> {
        let rows = self.txids.iter().skip(1).rev();
        rows.filter_map(|row| row.get(1).or(row.first()).copied())
            .collect()
    }

    /// Parity of a string of the block, which is put together here anew.
    pub(crate) fn coded(&self, kind: ParityKind) -> Option<Coded> {
        let (coinbase, others) = self.transactions.split_first()?;
        if kind == ParityKind::Transactions {
            let lengths: Vec<u32> = others.iter().map(|one| one.len() as u32).collect();
            return Coded::of_transactions(&others.concat(), &lengths);
        }
        let (row, chunks) = relay::flight_levels(&self.geometry);
        let mut string: Vec<u8> = Vec::new();
        let mut add = |tree, level, range: std::ops::Range<u32>| {
            for index in range {
                string.extend_from_slice(self.hash_at(tree, level, index)?);
            }
            Some(())
        };
        let depth = self.geometry.depth();
        let branch = self.geometry.branch_of_first().nodes(&self.geometry)?;
        for node in branch {
            add(Tree::Txid, node.level(), node.index()..node.index() + 1)?;
        }
        add(Tree::Witness, row, 0..self.geometry.width(row))?;
        if row < depth {
            let last = self.count() - 1;
            let above = self.geometry.ancestor(self.geometry.leaf(last)?, row)?;
            let proof = self.geometry.lap(above, depth, last..last + 1)?;
            for node in proof.nodes(&self.geometry)? {
                add(Tree::Witness, node.level(), node.index()..node.index() + 1)?;
            }
        }
        if row < chunks {
            add(Tree::Witness, chunks, 0..self.geometry.width(chunks))?;
        }
        if kind == ParityKind::Flight {
            let key = ShortIdKey::new(&self.header, 0);
            for leaf in 0..self.count() {
                let id = key.short_id(self.leaf(Tree::Witness, leaf)?);
                string.extend_from_slice(id.to_le_bytes().get(..6)?);
            }
        }
        string.extend_from_slice(coinbase);
        Coded::of_flight(&string)
    }

    /// The frame of HASHES that gives these nodes; `None` for nodes that are not there.
    pub fn hashes_frame(&self, job: JobRef, tree: Tree, lap: &Lap) -> Option<Vec<u8>> {
        let hashes: Option<Vec<Hash>> = lap
            .nodes(&self.geometry)?
            .map(|node: Node| self.hash_at(tree, node.level(), node.index()).copied())
            .collect();
        let mut frame = vec![0; 16 + 33 * lap.len() as usize + 64];
        let mut writer = Writer::new(&mut frame);
        Hashes::write_full(&mut writer, job, tree, lap, &hashes?).ok()?;
        let len = writer.position();
        frame.truncate(len);
        Some(frame)
    }
}

/// Whether an output holds a witness commitment (BIP141).
fn commits(output: &bitcoin::TxOut) -> bool {
    let script = output.script_pubkey.as_bytes();
    script.len() >= 38 && script.starts_with(&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed])
}

fn rows(leaves: Vec<Hash>) -> Vec<Vec<Hash>> {
    let mut rows = vec![leaves];
    while let Some(row) = rows.last().filter(|row| row.len() > 1) {
        let mut above = Vec::new();
        hash::row_up(row, &mut above);
        rows.push(above);
    }
    rows.reverse();
    rows
}

#[cfg(test)]
mod tests {
    use super::super::workload::{Recipe, Workload};
    use super::*;

    #[test]
    fn trees_lead_to_what_the_block_says() {
        for (transactions, witness_every) in [(1, 0), (1, 1), (2, 0), (7, 2), (130, 1)] {
            let recipe = Recipe {
                transactions,
                witness_every,
                ..Recipe::default()
            };
            let work = Workload::new(&recipe, 4);
            let block: Block = encode::deserialize(&work.block).expect("a block");
            let truth = Truth::of(&work.block).expect("a block");
            assert_eq!((truth.hash, truth.count()), (work.hash, transactions));
            assert_eq!(truth.has_commitment, witness_every > 0);
            let root = block.header.merkle_root.to_byte_array();
            assert_eq!(truth.hash_at(Tree::Txid, 0, 0), Some(&root));
            let witness = match witness_every {
                0 => root,
                _ => block.witness_root().expect("some").to_byte_array(),
            };
            assert_eq!(truth.hash_at(Tree::Witness, 0, 0), Some(&witness));
            assert_eq!(truth.transactions[1..], work.transactions);
            // The branch folds to the root as well.
            let depth = truth.geometry.depth();
            let leaf = *truth.leaf(Tree::Txid, 0).expect("a leaf");
            let folded = truth
                .siblings()
                .iter()
                .fold(leaf, |below, sibling| hash::pair(&below, sibling));
            assert_eq!((truth.siblings().len(), folded), (depth.into(), root));
        }
        assert!(Truth::of(&[7; 90]).is_none());
    }
}
