//! How much parity is sent.

use std::collections::VecDeque;

use crate::wire::DEFAULT_MAX_DATAGRAM;

/// The loss that a path is taken to have at least: two datagrams of a first flight may be lost then, which is 2 kB.
const LEAST_LOSS: f64 = 0.01;

/// The loss beyond which more parity is no remedy: a path that drops a third of everything wants fewer datagrams.
const MOST_LOSS: f64 = 0.35;

/// How rarely more is lost than there is parity for: once in two hundred flights a round trip is waited for.
const RISK: f64 = 0.005;

/// Datagrams of transactions and parity that a peer may push of a block, beyond hashes and short ids, while nothing is known
/// of what blocks lack here: with the first flight of a block of 2,500 transactions and parity of that they stay below
/// 40 kB, and make good 20 transactions of ordinary size that lie apart.
const DEFAULT_BUDGET: u16 = 14;

/// The budget of a node that lacks everything: any block.
const WHOLE_BUDGET: u16 = u16::MAX;

/// Blocks that what is granted is made from: those of some three hours, so that it follows the day, and one odd block
/// counts for little.
const MAX_REMEMBERED: usize = 16;

/// Transactions below which a cache says nothing of the next block.
pub(crate) const EMPTY_CACHE: usize = 100;

/// Datagrams after which half of what is known of a path's loss is forgotten: some blocks' worth.
const MAX_COUNTED: f64 = 4_096.0;

/// What share of datagrams a path loses.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LossRate {
    sent: f64,
    lost: f64,
}

impl LossRate {
    /// So many of those sent are known to have arrived or not.
    pub fn note(&mut self, sent: u64, lost: u64) {
        self.sent += sent as f64;
        self.lost += lost as f64;
        if self.sent > MAX_COUNTED {
            self.sent /= 2.0;
            self.lost /= 2.0;
        }
    }

    /// The share, from above: one deviation more than was seen, for what is known is little.
    pub fn share(&self) -> f64 {
        (self.lost + self.lost.sqrt() + 0.5) / (self.sent + 30.0)
    }
}

/// What blocks lacked here, and what follows for the next.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    /// Bytes of parity that would have made good what was lacking, and bytes of the block.
    remembered: VecDeque<(u64, u64)>,
}

impl Needs {
    /// A block was relayed to us that lacked so much.
    pub fn note(&mut self, parity_bytes: u64, block_bytes: u64) {
        if self.remembered.len() >= MAX_REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back((parity_bytes, block_bytes));
    }

    /// What was, says nothing of what will be: the cache was filled.
    pub fn forget(&mut self) {
        self.remembered.clear();
    }

    /// Datagrams that a peer may push of the next block: what one block of two lacks at most, and as much more as is granted
    /// where nothing is known, since a transaction of some 20 kB makes a block unusual whether it lacks much or little beside
    /// it; or half as much again where that is more, for what varies. A node whose blocks lack half of everything, or whose
    /// cache is empty, takes them whole.
    pub fn budget(&self, cached: usize) -> u16 {
        if self.remembered.is_empty() {
            return match cached < EMPTY_CACHE {
                true => WHOLE_BUDGET,
                false => DEFAULT_BUDGET,
            };
        }
        let cold = self
            .remembered
            .iter()
            .filter(|(lacked, all)| lacked * 2 >= *all);
        if cold.count() * 2 > self.remembered.len() {
            return WHOLE_BUDGET;
        }
        let mut lacked: Vec<u64> = self.remembered.iter().map(|(lacked, _)| *lacked).collect();
        lacked.sort_unstable();
        let usual = lacked.get(lacked.len() / 2).copied().unwrap_or(0);
        let usual = usual.div_ceil(u64::from(DEFAULT_MAX_DATAGRAM));
        let usual = u16::try_from(usual).unwrap_or(WHOLE_BUDGET);
        usual.saturating_add(DEFAULT_BUDGET.max(usual / 2))
    }
}

/// Datagrams of parity that go with `sent` others over a path that loses the share `loss`, so that whatever is lost of
/// all of them is made good but once in two hundred times. At least one, unless nothing is sent.
pub(crate) fn spare_datagrams(sent: u32, loss: f64) -> u32 {
    if sent == 0 {
        return 0;
    }
    let loss = loss.clamp(LEAST_LOSS, MOST_LOSS);
    let mut spare = 1;
    while risk(sent + spare, spare, loss) > RISK && spare < sent {
        spare += 1;
    }
    spare
}

/// How likely it is that more than `spare` of `all` datagrams are lost.
fn risk(all: u32, spare: u32, loss: f64) -> f64 {
    let mean = f64::from(all) * loss;
    if mean > 50.0 {
        // Near enough to a normal distribution: 2.58 deviations are exceeded, on one side, in 0.5% of all cases.
        let deviations = (f64::from(spare) - mean) / (mean * (1.0 - loss)).sqrt();
        return if deviations >= 2.58 { 0.0 } else { 1.0 };
    }
    let mut term = (1.0 - loss).powf(f64::from(all));
    let mut sum = term;
    for lost in 1..=spare.min(all) {
        term *= f64::from(all - lost + 1) / f64::from(lost) * loss / (1.0 - loss);
        sum += term;
    }
    1.0 - sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lacking_is_granted_next_time() {
        let mut needs = Needs::default();
        assert_eq!(needs.budget(0), WHOLE_BUDGET);
        assert_eq!(needs.budget(5_000), DEFAULT_BUDGET);
        needs.note(900_000, 1_000_000);
        assert_eq!(needs.budget(5_000), WHOLE_BUDGET);
        needs.forget();
        (0..MAX_REMEMBERED).for_each(|_| needs.note(70_000, 1_000_000));
        assert_eq!(needs.budget(5_000), 59 + 29);
        // One odd block changes little, and what is old is forgotten.
        needs.note(400_000, 1_000_000);
        assert_eq!(needs.budget(5_000), 59 + 29);
        (0..MAX_REMEMBERED).for_each(|_| needs.note(12_000, 1_000_000));
        assert_eq!(needs.budget(5_000), 10 + DEFAULT_BUDGET);
        (0..MAX_REMEMBERED).for_each(|_| needs.note(240_000, 1_000_000));
        assert_eq!(needs.budget(5_000), 300);
        (0..MAX_REMEMBERED).for_each(|_| needs.note(0, 1_000_000));
        assert_eq!(needs.budget(5_000), DEFAULT_BUDGET);
    }

    #[test]
    fn loss_is_reckoned_from_above_and_what_is_old_fades() {
        let mut rate = LossRate::default();
        rate.note(40, 0);
        assert!(rate.share() < 0.01);
        rate.note(0, 2);
        assert!((0.05..0.06).contains(&rate.share()), "{}", rate.share());
        for _ in 0..20 {
            rate.note(1_000, 50);
        }
        assert!((0.05..0.06).contains(&rate.share()), "{}", rate.share());
        for _ in 0..20 {
            rate.note(1_000, 0);
        }
        assert!(rate.share() < 0.002, "{}", rate.share());
    }

    #[test]
    fn a_flight_gets_what_its_path_demands() {
        assert_eq!(spare_datagrams(0, 0.5), 0);
        assert_eq!(spare_datagrams(23, 0.0), 2);
        assert_eq!(spare_datagrams(23, 0.01), 2);
        assert_eq!(spare_datagrams(23, 0.05), 5);
        assert_eq!(spare_datagrams(1, 1.0), 1);
        // A body of a thousand datagrams: the share that is lost, and some.
        let body = spare_datagrams(1_000, 0.05);
        assert!((65..80).contains(&body), "{body}");
        let body = spare_datagrams(1_000, 0.01);
        assert!((17..24).contains(&body), "{body}");
        let large = spare_datagrams(30_000, 0.1);
        assert!((3_400..3_700).contains(&large), "{large}");
    }
}
