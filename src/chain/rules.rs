//! What a header must be in its context: the target, the time, the version.
//!
//! The rules are those of Bitcoin Core's `pow.cpp` and `ContextualCheckBlockHeader`, with BIP94 for testnet4.

use bitcoin::CompactTarget;
use bitcoin::block::Header;

use super::params::{MAX_FUTURE_S, MAX_TIMEWARP_S, Network, RETARGET_INTERVAL, TARGET_SPACING_S};

/// How many blocks the median time is taken of.
pub(super) const MEDIAN_SPAN: usize = 11;

/// Why a header is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderRefusal {
    /// Its parent is not known.
    #[error("parent unknown")]
    UnknownParent,
    /// It states another target than its context demands.
    #[error("wrong target: {want:?} is demanded")]
    WrongBits {
        /// What it should state.
        want: CompactTarget,
    },
    /// Its hash does not meet its target.
    #[error("hash above the target")]
    BadWork,
    /// Its time is not after the median of the eleven blocks before it.
    #[error("time not after the median {median} of the blocks before")]
    TimeTooOld {
        /// In Unix seconds.
        median: u32,
    },
    /// Its time lies more than [`MAX_FUTURE_S`] ahead of our clock; it may become valid.
    #[error("time too far ahead")]
    TooFarInFuture,
    /// The first block of a period lies too far before its parent (BIP94).
    #[error("time too far before the parent's at a retarget")]
    TimeWarp,
    /// Its version is below what its height demands (BIP34, BIP65, BIP66).
    #[error("version below {least}")]
    BadVersion {
        /// The least one.
        least: i32,
    },
    /// It branches off, or hangs from a branch, further below the tip than is kept.
    #[error("branches off too far below the tip")]
    TooDeep,
    /// Its target follows from blocks before the trusted start, which the start does not tell.
    #[error("the trusted start does not tell what this retarget needs")]
    NoContext,
    /// There is no room for more headers.
    #[error("no room for more headers")]
    Full,
}

impl HeaderRefusal {
    /// A short name for counters and logs; Bitcoin Core's where it has one.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::UnknownParent => "prev-blk-not-found",
            Self::WrongBits { .. } => "bad-diffbits",
            Self::BadWork => "high-hash",
            Self::TimeTooOld { .. } => "time-too-old",
            Self::TooFarInFuture => "time-too-new",
            Self::TimeWarp => "time-timewarp-attack",
            Self::BadVersion { .. } => "bad-version",
            Self::TooDeep => "header-too-deep",
            Self::NoContext => "header-no-context",
            Self::Full => "headers-full",
        }
    }

    /// Whether whoever sent the header could have known that no node would ever accept it.
    ///
    /// Not so where the refusal comes from what we lack or from our clock.
    pub const fn is_fault(self) -> bool {
        match self {
            Self::WrongBits { .. }
            | Self::BadWork
            | Self::TimeTooOld { .. }
            | Self::TimeWarp
            | Self::BadVersion { .. } => true,
            Self::UnknownParent
            | Self::TooFarInFuture
            | Self::TooDeep
            | Self::NoContext
            | Self::Full => false,
        }
    }
}

/// What the rules ask of a block on the way to the header in question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) height: u32,
    pub(super) time: u32,
    /// `None` at a trusted start, which does not tell its own target but that of its child.
    pub(super) bits: Option<CompactTarget>,
}

/// A branch as seen from the header in question: its parent and what lies before.
pub(super) trait Branch {
    /// The blocks from the parent back to the start.
    fn backwards(&self) -> impl Iterator<Item = Point>;
    /// The block at a height, if it is not before the start.
    fn at(&self, height: u32) -> Option<Point>;
    /// The target of a child of the trusted start, not counting the 20-minute rule.
    fn start_bits(&self) -> CompactTarget;
    /// The time of the first block of the period in which the child of the trusted start lies.
    fn start_period_time(&self) -> Option<u32>;
    /// Times of the blocks before the start, the newest first.
    fn times_before_start(&self) -> &[u32];
}

/// Checks everything but the link to the parent.
pub(super) fn check(
    network: Network,
    branch: &impl Branch,
    header: &Header,
    now_unix_s: u32,
) -> Result<(), HeaderRefusal> {
    let parent = branch
        .backwards()
        .next()
        .ok_or(HeaderRefusal::UnknownParent)?;
    let height = parent.height + 1;
    let want = required_bits(network, branch, parent, header.time)?;
    if header.bits != want {
        return Err(HeaderRefusal::WrongBits { want });
    }
    if !header.target().is_met_by(header.block_hash()) {
        return Err(HeaderRefusal::BadWork);
    }
    let median = median_time(branch);
    if header.time <= median {
        return Err(HeaderRefusal::TimeTooOld { median });
    }
    if network.enforces_bip94()
        && height.is_multiple_of(RETARGET_INTERVAL)
        && header.time < parent.time.saturating_sub(MAX_TIMEWARP_S)
    {
        return Err(HeaderRefusal::TimeWarp);
    }
    let least = network.least_version(height);
    if header.version.to_consensus() < least {
        return Err(HeaderRefusal::BadVersion { least });
    }
    if header.time > now_unix_s.saturating_add(MAX_FUTURE_S) {
        return Err(HeaderRefusal::TooFarInFuture);
    }
    Ok(())
}

/// The target that a child of `parent` with this time must state.
pub(super) fn required_bits(
    network: Network,
    branch: &impl Branch,
    parent: Point,
    time: u32,
) -> Result<CompactTarget, HeaderRefusal> {
    let height = parent.height + 1;
    let parent_bits = parent.bits.unwrap_or_else(|| branch.start_bits());
    if network.never_retargets() {
        return Ok(parent_bits);
    }
    if height.is_multiple_of(RETARGET_INTERVAL) {
        if parent.bits.is_none() {
            return Ok(branch.start_bits());
        }
        return retarget(network, branch, parent, parent_bits);
    }
    if !network.allows_min_difficulty() {
        return Ok(parent_bits);
    }
    let limit = network.pow_limit_bits();
    if u64::from(time) > u64::from(parent.time) + 2 * u64::from(TARGET_SPACING_S) {
        return Ok(limit);
    }
    // The last target of this period that was not an exception.
    let real = branch
        .backwards()
        .find(|point| point.height.is_multiple_of(RETARGET_INTERVAL) || point.bits != Some(limit));
    Ok(real
        .and_then(|point| point.bits)
        .unwrap_or_else(|| branch.start_bits()))
}

/// The target of the first block of a period, whose parent ends the period before.
fn retarget(
    network: Network,
    branch: &impl Branch,
    last: Point,
    last_bits: CompactTarget,
) -> Result<CompactTarget, HeaderRefusal> {
    let first_height = (last.height + 1).saturating_sub(RETARGET_INTERVAL);
    let (first_time, first_bits) = match branch.at(first_height) {
        Some(first) => (first.time, first.bits),
        None => {
            let time = branch.start_period_time();
            (time.ok_or(HeaderRefusal::NoContext)?, None)
        }
    };
    // BIP94 starts from the target of the period's first block, which is never an exception. If the period
    // began at the trusted start or before it, the start's child has the same.
    let old_bits = if network.enforces_bip94() {
        first_bits.unwrap_or_else(|| branch.start_bits())
    } else {
        last_bits
    };
    let span = last.time.saturating_sub(first_time);
    Ok(CompactTarget::from_next_work_required(
        old_bits,
        u64::from(span),
        network.consensus(),
    ))
}

/// The median time of the last eleven blocks, the parent included (of all, while there are fewer).
///
/// Blocks that nobody told us of, before a trusted start, count as ancient: the median may then be too low, so
/// that nothing valid is refused.
pub(super) fn median_time(branch: &impl Branch) -> u32 {
    let mut times = [0; MEDIAN_SPAN];
    let mut height = None;
    let points = branch.backwards().map(|point| {
        height.get_or_insert(point.height);
        point.time
    });
    let known = points.chain(branch.times_before_start().iter().copied());
    for (time, known) in times.iter_mut().zip(known) {
        *time = known;
    }
    let span = height.map_or(0, |height| MEDIAN_SPAN.min(height as usize + 1));
    let Some(times) = times.get_mut(..span) else {
        return 0;
    };
    times.sort_unstable();
    times.get(span / 2).copied().unwrap_or(0)
}
