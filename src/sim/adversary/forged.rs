//! Blocks with valid work that are invalid.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::super::truth::Truth;
use super::super::workload::{Recipe, Workload};
use crate::merkle::{Hash, hash};

/// What is wrong with a forged block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Its trees are right; a Bitcoin node would refuse what it holds.
    Refused,
    /// Its coinbase commits to other witnesses.
    Commitment,
    /// Its header commits to the coinbase beside other transactions than those of its witness tree.
    TxidTree,
}

/// A block with valid work and a flaw.
#[derive(Clone, Debug)]
pub struct Forged {
    /// What is wrong with it.
    pub flaw: Flaw,
    /// The block, as its maker serves it.
    pub truth: Truth,
    /// The block, serialized: what a relay that found nothing wrong would give out.
    pub block: bytes::Bytes,
}

impl Forged {
    /// A block of some hundred transactions with a flaw, both as the seed has it.
    pub fn new(seed: u64) -> Option<Self> {
        let mut random = StdRng::seed_from_u64(seed ^ 0x666f_7267_6564_0000);
        let recipe = Recipe {
            transactions: [3, 100, 129, 400, 1_000][random.random_range(0..5)],
            bytes: (120, 500),
            ..Recipe::default()
        };
        let work = Workload::new(&recipe, random.random());
        let truth = Truth::of(&work.block)?;
        let flaw = [Flaw::Refused, Flaw::Commitment, Flaw::TxidTree][random.random_range(0..3)];
        let (truth, block) = match flaw {
            Flaw::Refused => (truth, work.block),
            Flaw::Commitment => {
                let block = work.with_false_commitment();
                (Truth::of(&block)?, block)
            }
            Flaw::TxidTree => {
                let mut siblings = truth.siblings();
                siblings.last_mut()?.iter_mut().for_each(|byte| *byte ^= 1);
                let leaf = *truth.leaf(crate::wire::Tree::Txid, 0)?;
                let root: Hash = siblings
                    .iter()
                    .fold(leaf, |below, sibling| hash::pair(&below, sibling));
                let header = super::super::workload::worked(&truth.header, root)?;
                let mut block = work.block.to_vec();
                block.get_mut(..80)?.copy_from_slice(&header);
                (truth.with_branch(header, &siblings), block.into())
            }
        };
        Some(Self { flaw, truth, block })
    }

    /// Whether an honest node may pass on what it has of the block: what is verified against its witness tree.
    pub const fn may_be_passed_on(&self) -> bool {
        !matches!(self.flaw, Flaw::Commitment)
    }

    /// Whether an honest node may give the block out as whole.
    pub const fn may_be_whole(&self) -> bool {
        matches!(self.flaw, Flaw::Refused)
    }
}
