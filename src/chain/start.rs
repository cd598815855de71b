//! A start that the operator vouches for, so that a node need not begin at the genesis block.

use bitcoin::{BlockHash, CompactTarget, Target, Work};

use super::headers::MAX_HEADERS;
use super::params::Network;
use super::rules::MEDIAN_SPAN;

/// A point on the chain that the operator vouches for, with what the rules need from before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedStart {
    /// Height of the block.
    pub height: u32,
    /// Its hash.
    pub hash: BlockHash,
    /// Its time, in Unix seconds.
    pub time: u32,
    /// The target that a child of it must state; on testnet3 and testnet4 the one that holds for a child that comes
    /// in time, not the 20-minute exception.
    pub child_bits: CompactTarget,
    /// Time of the first block of the retarget period in which the child lies (that is, of the block at the
    /// highest multiple of 2016 that is at most the child's height), in Unix seconds.
    ///
    /// Without it the chain ends before the next retarget, unless the child itself starts a period.
    pub period_start_time: Option<u32>,
    /// Times of the blocks before it, its parent's first, at most ten; with fewer the rule on the median time is
    /// laxer for the first ten headers.
    pub earlier_times: Vec<u32>,
    /// Work of the chain up to and including it; zero if it does not matter.
    pub chain_work: Work,
}

/// Why a trusted start makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The child's target is zero, not in its shortest form, or above the network's limit.
    #[error("the child's target is none of this network's")]
    Bits,
    /// More than ten earlier times.
    #[error("more than ten earlier times")]
    EarlierTimes,
    /// The height leaves no room for the headers to come.
    #[error("height too large")]
    Height,
    /// The work is more than all the world could have done.
    #[error("chain work too large")]
    Work,
}

impl TrustedStart {
    /// Whether it can be a start on this network.
    pub(super) fn check(&self, network: Network) -> Result<(), StartError> {
        let target = Target::from_compact(self.child_bits);
        if self.child_bits.to_consensus() >> 24 > 32
            || target == Target::ZERO
            || target > network.pow_limit()
            || target.to_compact_lossy() != self.child_bits
        {
            return Err(StartError::Bits);
        }
        if self.earlier_times.len() >= MEDIAN_SPAN {
            return Err(StartError::EarlierTimes);
        }
        if u64::from(self.height) + MAX_HEADERS as u64 >= u64::from(u32::MAX) {
            return Err(StartError::Height);
        }
        if self.chain_work.log2() >= 200.0 {
            return Err(StartError::Work);
        }
        Ok(())
    }
}
