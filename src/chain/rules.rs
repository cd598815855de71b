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

    /// Points for misbehaviour of a stranger who sent the header; at 100 it is let go.
    ///
    /// All of them for a breach of the rules. Some for what we can't keep: once it is bad luck, again and again a flood.
    pub const fn points(self) -> u32 {
        match self {
            _ if self.is_fault() => 100,
            Self::TooDeep | Self::Full => 10,
            _ => 0,
        }
    }

    /// What the operator can do when the header is of the own node.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::UnknownParent => {
                "the block of `trusted-start` is not on its chain; correct it or leave it away, and restart"
            }
            Self::NoContext => {
                "give `trusted-start` its EPOCH_START_TIME, or a newer block, and restart"
            }
            Self::TooFarInFuture => "set the clocks of both machines",
            _ => "check that both are of one network; if they are, remove headers.dat and restart",
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
    let want = required_bits(network, branch, parent, header.time)?;
    if header.bits != want {
        return Err(HeaderRefusal::WrongBits { want });
    }
    if !header.target().is_met_by(header.block_hash()) {
        return Err(HeaderRefusal::BadWork);
    }
    check_time_and_version(network, branch, parent, header, now_unix_s)
}

/// What remains to be checked once the work is known to have been done.
fn check_time_and_version(
    network: Network,
    branch: &impl Branch,
    parent: Point,
    header: &Header,
    now_unix_s: u32,
) -> Result<(), HeaderRefusal> {
    let height = parent.height + 1;
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

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::Target;
    use proptest::prelude::*;

    /// Blocks in a row, the newest last.
    struct Row {
        points: Vec<Point>,
        start_bits: CompactTarget,
        start_period_time: Option<u32>,
        earlier_times: Vec<u32>,
    }

    impl Branch for Row {
        fn backwards(&self) -> impl Iterator<Item = Point> {
            self.points.iter().rev().copied()
        }

        fn at(&self, height: u32) -> Option<Point> {
            self.points
                .iter()
                .find(|point| point.height == height)
                .copied()
        }

        fn start_bits(&self) -> CompactTarget {
            self.start_bits
        }

        fn start_period_time(&self) -> Option<u32> {
            self.start_period_time
        }

        fn times_before_start(&self) -> &[u32] {
            &self.earlier_times
        }
    }

    fn bits(bits: u32) -> CompactTarget {
        CompactTarget::from_consensus(bits)
    }

    /// Blocks from a height on, given by time and target.
    fn row(height: u32, blocks: &[(u32, u32)]) -> Row {
        let points = (height..)
            .zip(blocks)
            .map(|(height, &(time, target))| Point {
                height,
                time,
                bits: Some(bits(target)),
            })
            .collect();
        Row {
            points,
            start_bits: bits(0),
            start_period_time: None,
            earlier_times: Vec::new(),
        }
    }

    fn next(network: Network, row: &Row, time: u32) -> Result<u32, HeaderRefusal> {
        let parent = *row.points.last().expect("not empty");
        required_bits(network, row, parent, time).map(CompactTarget::to_consensus)
    }

    /// A whole period, whose blocks have one target and whose first and last have these times.
    fn period(last_height: u32, first_time: u32, last_time: u32, target: u32) -> Row {
        let mut blocks = vec![(first_time, target); RETARGET_INTERVAL as usize];
        blocks.last_mut().expect("not empty").0 = last_time;
        row(last_height + 1 - RETARGET_INTERVAL, &blocks)
    }

    #[test]
    fn mainnet_retargets_as_it_did() {
        // The vectors of Bitcoin Core's pow_tests.cpp.
        for (height, first_time, last_time, old, new) in [
            (
                32_255,
                1_261_130_161,
                1_262_152_739,
                0x1d00_ffff,
                0x1d00_d86a,
            ),
            (
                2_015,
                1_231_006_505,
                1_233_061_996,
                0x1d00_ffff,
                0x1d00_ffff,
            ),
            (
                68_543,
                1_279_008_237,
                1_279_297_671,
                0x1c05_a3f4,
                0x1c01_68fd,
            ),
            (
                46_367,
                1_263_163_443,
                1_269_211_443,
                0x1c38_7f6f,
                0x1d00_e1fd,
            ),
        ] {
            let row = period(height, first_time, last_time, old);
            assert_eq!(next(Network::Main, &row, last_time + 1), Ok(new));
            // A header earlier is in the old period still.
            let mut shorter = row;
            shorter.points.pop();
            assert_eq!(next(Network::Main, &shorter, last_time + 1), Ok(old));
            assert_eq!(next(Network::Main, &shorter, last_time + 90_000), Ok(old));
        }
    }

    #[test]
    fn time_that_runs_backwards_counts_as_the_shortest() {
        let row = period(4_031, 1_300_000_000, 1_200_000_000, 0x1c05_a3f4);
        assert_eq!(next(Network::Main, &row, 1_300_000_001), Ok(0x1c01_68fd));
    }

    #[test]
    fn regtest_never_retargets() {
        let row = period(4_031, 1_300_000_000, 1_300_000_001, 0x207f_ffff);
        assert_eq!(next(Network::Regtest, &row, 1_300_000_002), Ok(0x207f_ffff));
    }

    #[test]
    fn easy_blocks_of_the_test_networks() {
        const REAL: u32 = 0x1c05_a3f4;
        const EASY: u32 = 0x1d00_ffff;
        let blocks = [(0, REAL), (600, REAL), (2000, EASY), (4000, EASY)];
        for network in [Network::Testnet3, Network::Testnet4] {
            let row = row(5000, &blocks);
            // In time: back to the last real target. More than 20 minutes late: easy.
            assert_eq!(next(network, &row, 4000), Ok(REAL));
            assert_eq!(next(network, &row, 5200), Ok(REAL));
            assert_eq!(next(network, &row, 5201), Ok(EASY));
        }
        for network in [Network::Main, Network::Signet] {
            assert_eq!(next(network, &row(5000, &blocks), 9999), Ok(EASY));
        }
        // The walk back ends with the period, whose first block may be as easy.
        let second = row(
            2 * RETARGET_INTERVAL - 1,
            &[(0, REAL), (600, EASY), (2000, EASY)],
        );
        assert_eq!(next(Network::Testnet3, &second, 2001), Ok(EASY));
    }

    #[test]
    fn an_easy_last_block_spoils_the_retarget_of_testnet3_only() {
        const REAL: u32 = 0x1c05_a3f4;
        let mut row = period(4_031, 1_300_000_000, 1_300_000_000 + 1_209_600, REAL);
        row.points.last_mut().expect("not empty").bits = Some(bits(0x1d00_ffff));
        assert_eq!(
            next(Network::Testnet3, &row, 1_301_300_000),
            Ok(0x1d00_ffff)
        );
        assert_eq!(next(Network::Testnet4, &row, 1_301_300_000), Ok(REAL));
        // At a retarget the 20 minutes do not count.
        assert_eq!(next(Network::Testnet4, &row, 1_401_300_000), Ok(REAL));
    }

    #[test]
    fn a_start_within_a_period_needs_its_first_time() {
        // The start is block 4,000 of mainnet's second period; nothing tells its own target.
        let mut blocks = vec![(1_300_000_000, 0x1c05_a3f4); 32];
        blocks.last_mut().expect("not empty").0 = 1_300_000_500;
        let mut row = row(4_000, &blocks);
        row.points.first_mut().expect("not empty").bits = None;
        row.start_bits = bits(0x1c05_a3f4);
        let refused = next(Network::Main, &row, 1_300_000_501);
        assert_eq!(refused, Err(HeaderRefusal::NoContext));
        row.start_period_time = Some(1_299_000_000);
        let whole = period(4_031, 1_299_000_000, 1_300_000_500, 0x1c05_a3f4);
        for network in [Network::Main, Network::Testnet4] {
            let want = next(network, &whole, 1_300_000_501);
            assert_eq!(next(network, &row, 1_300_000_501), want);
        }
        // The child of the start has the target that the start says, also at a retarget.
        for height in [4_000, 4_031] {
            row.points = vec![Point {
                height,
                time: 7,
                bits: None,
            }];
            assert_eq!(next(Network::Main, &row, 8), Ok(0x1c05_a3f4));
        }
        row.points = vec![Point {
            height: 4_000,
            time: 7,
            bits: None,
        }];
        assert_eq!(next(Network::Testnet3, &row, 8 + 1200), Ok(0x1d00_ffff));
    }

    #[test]
    fn the_median_is_of_up_to_eleven() {
        let median = |height: u32, times: &[u32], earlier: &[u32]| {
            let blocks: Vec<(u32, u32)> = times.iter().map(|&time| (time, 0)).collect();
            let mut row = row(height, &blocks);
            row.earlier_times = earlier.to_vec();
            median_time(&row)
        };
        assert_eq!(median(0, &[5], &[]), 5);
        assert_eq!(median(0, &[5, 9], &[]), 9);
        assert_eq!(median(0, &[5, 9, 1], &[]), 5);
        let twelve: Vec<u32> = (1..=12).collect();
        assert_eq!(median(0, &twelve, &[]), 7);
        // Those before a start that are not told of count as ancient.
        assert_eq!(median(900, &[50], &[]), 0);
        assert_eq!(median(900, &[50, 51, 52, 53, 54, 55], &[]), 50);
        assert_eq!(median(900, &[50], &[49, 48, 47, 46, 45]), 45);
        assert_eq!(
            median(900, &[50], &[49, 48, 47, 46, 45, 44, 43, 42, 41, 40]),
            45
        );
        assert_eq!(median(2, &[50], &[49, 48]), 49);
    }

    #[test]
    fn times_and_versions_have_their_bounds() {
        let check = |network: Network, height: u32, version: i32, time: u32, now: u32| {
            let row = row(height - 1, &[(10_000, 0)]);
            let mut header = network.genesis();
            header.version = bitcoin::block::Version::from_consensus(version);
            header.time = time;
            let parent = *row.points.last().expect("not empty");
            check_time_and_version(network, &row, parent, &header, now)
        };
        let main = |time, now| check(Network::Main, 1, 1, time, now);
        assert_eq!(main(10_001, 10_001), Ok(()));
        assert_eq!(
            main(10_000, 10_001),
            Err(HeaderRefusal::TimeTooOld { median: 10_000 })
        );
        assert_eq!(main(17_300, 10_100), Ok(()));
        assert_eq!(main(17_301, 10_100), Err(HeaderRefusal::TooFarInFuture));
        for (height, least) in [(227_931, 2), (363_725, 3), (388_381, 4)] {
            let version = |height, version| check(Network::Main, height, version, 20_000, 20_000);
            assert_eq!(version(height, least), Ok(()));
            let refusal = Err(HeaderRefusal::BadVersion { least });
            assert_eq!(version(height, least - 1), refusal);
            assert_eq!(version(height - 1, least - 1), Ok(()));
            assert_eq!(version(height, 0x2000_0000), Ok(()));
            assert_eq!(version(height, i32::MIN), refusal);
        }
        let warp = |network, height, time| check(network, height, 4, time, 20_000);
        let refusal = Err(HeaderRefusal::TimeWarp);
        assert_eq!(warp(Network::Testnet4, 4032, 9_400), Ok(()));
        assert_eq!(warp(Network::Testnet4, 4032, 9_399), refusal);
        assert_eq!(warp(Network::Testnet4, 4033, 9_399), Ok(()));
        assert_eq!(warp(Network::Testnet3, 4032, 9_399), Ok(()));
    }

    /// The retarget of Bitcoin Core, in school arithmetic on 256-bit numbers, the lowest of 16 digits first.
    fn retarget_by_hand(old: CompactTarget, span: i64, limit: Target) -> CompactTarget {
        let span = span.clamp(302_400, 4_838_400) as u64;
        let mut digits = [0u64; 18];
        for (digit, bytes) in digits
            .iter_mut()
            .zip(Target::from(old).to_le_bytes().chunks(2))
        {
            *digit = u64::from(bytes[0]) | u64::from(bytes[1]) << 8;
        }
        let mut carry = 0;
        for digit in &mut digits {
            let product = *digit * span + carry;
            (*digit, carry) = (product & 0xffff, product >> 16);
        }
        assert_eq!(carry, 0);
        let mut rest = 0;
        for digit in digits.iter_mut().rev() {
            let dividend = rest << 16 | *digit;
            (*digit, rest) = (dividend / 1_209_600, dividend % 1_209_600);
        }
        if digits[16] != 0 || digits[17] != 0 {
            return limit.to_compact_lossy();
        }
        let mut bytes = [0; 32];
        for (digit, bytes) in digits.iter().zip(bytes.chunks_mut(2)) {
            bytes.copy_from_slice(&(*digit as u16).to_le_bytes());
        }
        Target::from_le_bytes(bytes).min(limit).to_compact_lossy()
    }

    proptest! {
        #[test]
        fn agrees_with_school_arithmetic(
            mantissa in 0x8000u32..0x80_0000,
            exponent in 3u32..0x1d,
            first_time in 1_300_000_000u32..1_400_000_000,
            span in -100_000i64..6_000_000,
        ) {
            let old = bits(exponent << 24 | mantissa);
            let last_time = u32::try_from(i64::from(first_time) + span).expect("in range");
            let row = period(6_047, first_time, last_time, old.to_consensus());
            for network in [Network::Main, Network::Signet] {
                let limit = network.pow_limit();
                if Target::from(old) <= limit {
                    let want = retarget_by_hand(old, span, limit);
                    prop_assert_eq!(next(network, &row, last_time), Ok(want.to_consensus()));
                }
            }
        }
    }
}
