//! Who lacks which transactions.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use super::super::scenario::Overlap;
use super::{Trial, millis};

/// Bytes of a block that a node's mempool misses, as seen in the wild: that share of blocks misses at most so many.
///
/// Between the points bytes grow evenly in their logarithm, beyond the last as well; no more than the block can be
/// missing.
pub const WILD: &[(f64, f64)] = &[
    (0.5, 0.0),
    (0.9, 852.0),
    (0.95, 44_000.0),
    (0.99, 1_720_000.0),
];

/// Bytes missing at the share `at` of blocks, 0 to 1, as [`WILD`] says.
pub fn wild_missing_bytes(at: f64) -> f64 {
    let pair = WILD.windows(2).find_map(|pair| match pair {
        [low, high] if at <= high.0 => Some((*low, *high)),
        _ => None,
    });
    // The last two points give the slope beyond them.
    let ((from, low), (to, high)) = pair.unwrap_or(((0.95, 44_000.0), (0.99, 1_720_000.0)));
    if at <= from {
        return low;
    }
    let (low, high) = (low.max(1.0).ln(), high.ln());
    (low + (high - low) * (at - from) / (to - from)).exp()
}

/// Draws what each node lacks of each block.
pub(super) fn draw(trial: &mut Trial, sources: &[usize], random: &mut StdRng) {
    let spec = &trial.scenario.mempool;
    let nodes = trial.plan.nodes;
    for block in &mut trial.blocks {
        let sizes: Vec<usize> = block
            .workload
            .transactions
            .iter()
            .map(bytes::Bytes::len)
            .collect();
        let common = spec.together.then(|| lacked(spec.overlap, &sizes, random));
        for node in 0..nodes {
            let own = match (node == block.source || sources.contains(&node), &common) {
                (true, _) => lacked(Overlap::Share(spec.source_overlap), &sizes, random),
                (false, Some(common)) => common.clone(),
                (false, None) => lacked(spec.overlap, &sizes, random),
            };
            block.lacked.push(own);
        }
    }
}

/// Time over which the transactions of a block have appeared: what lies between two blocks on average.
const APPEARING_MS: f64 = 600_000.0;

/// Draws when the transactions of each block reached each node; what has not, is lacking.
///
/// An exponential delay is what Bitcoin Core's relay makes of one hop: it announces transactions at moments of a Poisson process,
/// every two seconds on average to whom it dialled, every five to others (`net_processing.cpp`). Over several hops, and for
/// whichever announcement comes first, it is taken as a likeness.
pub(super) fn delay(trial: &mut Trial, sources: &[usize], random: &mut StdRng) {
    let mean = trial.scenario.mempool.late_ms;
    if mean <= 0.0 {
        return;
    }
    for block in &mut trial.blocks {
        let places = block.workload.transactions.iter();
        let ages: Vec<f64> = places
            .map(|_| APPEARING_MS * random.random::<f64>())
            .collect();
        for node in 0..trial.plan.nodes {
            let in_time = node == block.source || sources.contains(&node);
            let mut late = BTreeMap::new();
            let Some(lacked) = block.lacked.get_mut(node) else {
                continue;
            };
            let mut on_the_way = BTreeSet::new();
            for (place, age) in (1..).zip(&ages) {
                let most = if in_time { *age } else { f64::INFINITY };
                let after = exponential(mean, most, random);
                match after <= *age {
                    true => late.insert(place, millis(age - after)),
                    false => {
                        on_the_way.insert(place);
                        None
                    }
                };
            }
            on_the_way.extend(lacked.iter().copied());
            late.retain(|place, _| !on_the_way.contains(place));
            *lacked = on_the_way.into_iter().collect();
            block.late.push(late);
        }
    }
}

/// A delay of that mean, exponentially spread, from what of the distribution lies below `most`.
fn exponential(mean: f64, most: f64, random: &mut StdRng) -> f64 {
    let below = 1.0 - (-most / mean).exp();
    -mean * (1.0 - random.random::<f64>() * below).ln()
}

/// Places, from 1, of transactions that one node lacks.
fn lacked(overlap: Overlap, sizes: &[usize], random: &mut StdRng) -> Vec<u32> {
    let all = 1..=sizes.len() as u32;
    match overlap {
        Overlap::Share(share) if share >= 1.0 => Vec::new(),
        Overlap::Share(share) if share <= 0.0 => all.collect(),
        // As many as that share makes, so that a block of a hundred at 99% always lacks one.
        Overlap::Share(share) => {
            let count = ((1.0 - share) * sizes.len() as f64).round() as usize;
            let mut places: Vec<u32> = all.collect();
            let (chosen, _) = places.partial_shuffle(random, count);
            let mut chosen = chosen.to_vec();
            chosen.sort_unstable();
            chosen
        }
        Overlap::Wild => wild(sizes, random),
    }
}

/// Transactions in random order as long as they fit what is missing; the smallest where none does.
fn wild(sizes: &[usize], random: &mut StdRng) -> Vec<u32> {
    let mut left = wild_missing_bytes(random.random::<f64>());
    if left < 1.0 {
        return Vec::new();
    }
    let mut places: Vec<u32> = (1..=sizes.len() as u32).collect();
    places.shuffle(random);
    let size = |place: &u32| {
        sizes
            .get(*place as usize - 1)
            .map_or(0.0, |&size| size as f64)
    };
    let smallest = places
        .iter()
        .min_by(|one, other| size(one).total_cmp(&size(other)))
        .copied();
    let mut chosen: Vec<u32> = Vec::new();
    for place in places {
        if size(&place) <= left {
            left -= size(&place);
            chosen.push(place);
        }
    }
    if chosen.is_empty() {
        chosen.extend(smallest);
    }
    chosen.sort_unstable();
    chosen
}
