//! The blocks of a trial.

use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::super::scenario::{BlockShape, BlockSpec, RealBlock, Scenario};
use super::super::workload::Workload;
use super::{PlannedBlock, millis};

/// Bytes and transactions of the block of the targets.
pub(in super::super) const DEFAULT_BLOCK: (u64, u32) = (1_060_000, 2_500);

/// Bytes of a transaction with a witness at least: below it there is no room for its parts.
const LEAST_TRANSACTION: usize = 110;

/// Bytes of the other transactions where one takes most of the block.
const SMALL_TRANSACTION: usize = 250;

/// Sizes of transactions, as quantiles in percent: the coinbases left out, all 5,813 transactions of mainnet blocks
/// 574,200 (2 May 2019, 3,315 transactions, 1,245,250 bytes) and 702,861 (30 September 2021, 2,500 transactions,
/// 1,381,836 bytes). Between quantiles sizes are spread evenly; the mean so is 450 bytes, that of the blocks 452.
#[rustfmt::skip] // as a table
const SIZES: &[(f64, f64)] = &[
    (0.0, 188.0), (1.0, 190.0), (2.0, 191.0), (5.0, 214.0), (10.0, 223.0), (20.0, 223.0), (30.0, 225.0), (40.0, 226.0),
    (45.0, 234.0), (50.0, 249.0), (55.0, 256.0), (60.0, 283.0), (65.0, 284.0), (70.0, 340.0), (75.0, 372.0),
    (80.0, 375.0), (85.0, 406.0), (90.0, 519.0), (92.0, 559.0), (94.0, 668.0), (95.0, 734.0), (96.0, 904.0),
    (97.0, 1_104.0), (98.0, 1_413.0), (99.0, 2_596.0), (99.5, 4_053.0), (99.8, 9_270.0), (99.9, 15_995.0),
    (99.95, 54_220.0), (100.0, 170_363.0),
];

/// Where each block is handed in.
pub(super) fn sources(scenario: &Scenario) -> Vec<usize> {
    let BlockSpec {
        count,
        racing,
        from,
        ..
    } = &scenario.block;
    let racing = *racing as usize;
    let places: Vec<usize> = match from.is_empty() {
        true => race(racing, scenario.topology.nodes),
        false => from.clone(),
    };
    let all = *count as usize * racing;
    places.into_iter().cycle().take(all).collect()
}

/// Where so many different blocks are handed in at the same time unless that is said: evenly spread.
pub(in super::super) fn race(racing: usize, nodes: usize) -> Vec<usize> {
    (0..racing).map(|racer| racer * nodes / racing).collect()
}

/// Every block, with nothing said yet of who lacks what.
pub(super) fn blocks(
    scenario: &Scenario,
    seed: u64,
    file: Option<Bytes>,
) -> Result<Vec<PlannedBlock>, String> {
    let racing = scenario.block.racing as usize;
    let every = millis(scenario.block.every_ms);
    let mut blocks = Vec::new();
    for (number, source) in sources(scenario).into_iter().enumerate() {
        let round = u32::try_from(number / racing).unwrap_or(u32::MAX);
        let block_seed = seed.wrapping_mul(1_009).wrapping_add(number as u64);
        let workload = match (number, &scenario.block.file, scenario.block.real) {
            (0, Some(name), _) => file
                .as_deref()
                .and_then(Workload::from_bytes)
                .ok_or_else(|| format!("block.file: {name:?} is no serialized block; give one in Bitcoin's own format, raw"))?,
            (0, _, Some(RealBlock::Mainnet702861)) => {
                Workload::from_bytes(bitcoin_test_data::blocks::mainnet_702861())
                    .ok_or("block.real: the block that is built in is none")?
            }
            _ => synthetic(&scenario.block, block_seed),
        };
        blocks.push(PlannedBlock {
            workload,
            source,
            at: every.checked_mul(round).unwrap_or(Duration::MAX),
            lacked: Vec::new(),
            late: Vec::new(),
            bounds: Vec::new(),
            ranks: Vec::new(),
            bytes_to_cross: Vec::new(),
        });
    }
    Ok(blocks)
}

fn synthetic(spec: &BlockSpec, seed: u64) -> Workload {
    let mut random = StdRng::seed_from_u64(seed);
    let (bytes, transactions) = match (spec.bytes, spec.transactions) {
        (None, None) => (Some(DEFAULT_BLOCK.0), Some(DEFAULT_BLOCK.1)),
        given => given,
    };
    let sizes = match spec.shape {
        BlockShape::OneGiant => one_giant(bytes, transactions),
        BlockShape::Even => even(bytes, transactions),
        BlockShape::Real => real(bytes, transactions, &mut random),
    };
    Workload::of_sizes(&sizes, seed)
}

/// What is left of a block for transactions other than the coinbase.
fn room(bytes: u64) -> usize {
    usize::try_from(bytes)
        .unwrap_or(usize::MAX)
        .saturating_sub(250)
}

fn one_giant(bytes: Option<u64>, transactions: Option<u32>) -> Vec<usize> {
    let others = transactions.map_or(100, |transactions| transactions.saturating_sub(2)) as usize;
    let small = match bytes {
        Some(bytes) => SMALL_TRANSACTION.min(room(bytes) / 2 / others.max(1)),
        None => SMALL_TRANSACTION,
    };
    let mut sizes = vec![small.max(LEAST_TRANSACTION); others];
    if transactions != Some(1) {
        let left = bytes.map_or(900_000, |bytes| {
            room(bytes).saturating_sub(sizes.iter().sum())
        });
        sizes.insert(others / 2, left.max(LEAST_TRANSACTION));
    }
    sizes
}

fn even(bytes: Option<u64>, transactions: Option<u32>) -> Vec<usize> {
    let mean = mean_size();
    let count = match (bytes, transactions) {
        (_, Some(transactions)) => transactions as usize - 1,
        (Some(bytes), None) => (room(bytes) as f64 / mean).round() as usize,
        (None, None) => 0,
    };
    let each = match bytes {
        Some(bytes) => room(bytes) / count.max(1),
        None => mean as usize,
    };
    vec![each.max(LEAST_TRANSACTION); count]
}

/// Sizes as in real blocks, drawn; scaled where bytes and transactions are both given.
fn real(bytes: Option<u64>, transactions: Option<u32>, random: &mut StdRng) -> Vec<usize> {
    let mut sizes = Vec::new();
    let mut sum = 0;
    let enough = |sizes: &Vec<usize>, sum: usize| match (transactions, bytes) {
        (Some(transactions), _) => sizes.len() + 1 >= transactions as usize,
        (None, bytes) => sum + LEAST_TRANSACTION > room(bytes.unwrap_or(0)),
    };
    while !enough(&sizes, sum) {
        let mut size = size_at(random.random::<f64>() * 100.0);
        if let (None, Some(bytes)) = (transactions, bytes) {
            size = size.min(room(bytes) - sum);
        }
        sum += size;
        sizes.push(size);
    }
    if let (Some(bytes), Some(_)) = (bytes, transactions) {
        scale(&mut sizes, room(bytes));
    }
    sizes
}

/// Makes the sum of `sizes` about `wanted`: all by the same factor, none below the least.
fn scale(sizes: &mut [usize], wanted: usize) {
    for _ in 0..8 {
        let sum: usize = sizes.iter().sum();
        let fixed: usize = sizes
            .iter()
            .filter(|size| **size <= LEAST_TRANSACTION)
            .sum();
        if sum == fixed || sum.abs_diff(wanted) * 1_000 < wanted {
            return;
        }
        let factor = wanted.saturating_sub(fixed) as f64 / (sum - fixed) as f64;
        for size in sizes.iter_mut().filter(|size| **size > LEAST_TRANSACTION) {
            *size = ((*size as f64 * factor) as usize).max(LEAST_TRANSACTION);
        }
    }
}

/// The size that `percent` of real transactions do not exceed.
fn size_at(percent: f64) -> usize {
    let between = SIZES.windows(2).find_map(|pair| match pair {
        [(from, low), (to, high)] if percent <= *to => {
            Some(low + (high - low) * (percent - from) / (to - from))
        }
        _ => None,
    });
    between.unwrap_or(250.0) as usize
}

fn mean_size() -> f64 {
    let parts = SIZES.windows(2).map(|pair| match pair {
        [(from, low), (to, high)] => (to - from) / 100.0 * (low + high) / 2.0,
        _ => 0.0,
    });
    parts.sum()
}
