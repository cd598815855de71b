//! How far the word of a group of addresses can be trusted when it says that others have the flag.

use std::collections::BTreeMap;

use super::MAX_STANDINGS;
use super::address::Group;

/// What one piece of evidence weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// The peer proved itself.
    True,
    /// The peer answered and had no flag, or could not do what it says.
    False,
    /// Nobody answered. A quarter of a lie: most addresses that nobody answers are only old.
    Unanswered,
}

/// Most that either side of a standing can weigh, so that a long past does not outweigh the present.
const CEILING: u16 = 4096;
/// Weight of what is assumed of a source before anything is known, on either side.
const PRIOR: u32 = 4;
/// Standings halve in a day: an address may change its owner, and a honest node can have been lied to.
const HALF_LIFE_S: u32 = 24 * 3600;

/// What a group's claims have come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub good: u16,
    pub bad: u16,
    pub since: u32,
}

impl Standing {
    /// The standing as time has left it.
    fn at(self, now: u32) -> Self {
        let halves = now.saturating_sub(self.since) / HALF_LIFE_S;
        if halves > 15 {
            return Self {
                since: now,
                ..Self::default()
            };
        }
        Self {
            good: self.good >> halves,
            bad: self.bad >> halves,
            since: self
                .since
                .saturating_add(halves.saturating_mul(HALF_LIFE_S)),
        }
    }

    fn evidence(&self) -> u16 {
        self.good.saturating_add(self.bad)
    }
}

/// The standings of the groups that mattered last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standings(pub BTreeMap<Group, Standing>);

impl Standings {
    /// The part of a group's claims that can be expected to be true, of 65,536.
    pub(super) fn trust(&self, group: &Group, now: u32) -> u64 {
        let known = self.0.get(group).map(|known| known.at(now));
        let Standing { good, bad, .. } = known.unwrap_or_default();
        let (good, bad) = (u32::from(good) + PRIOR, u32::from(bad) + PRIOR);
        u64::from(good << 16) / u64::from(good + bad)
    }

    /// Notes what a claim of the group has come to. When there is no room, the group is forgotten of which least is
    /// known.
    pub(super) fn note(&mut self, group: Group, evidence: Evidence, now: u32) {
        if self.0.len() >= MAX_STANDINGS && !self.0.contains_key(&group) {
            let least = self
                .0
                .iter()
                .min_by_key(|(_, known)| known.at(now).evidence());
            if let Some(least) = least.map(|(group, _)| *group) {
                self.0.remove(&least);
            }
        }
        let known = self.0.entry(group).or_insert(Standing {
            since: now,
            ..Standing::default()
        });
        *known = known.at(now);
        match evidence {
            Evidence::True => known.good = (known.good + 4).min(CEILING),
            Evidence::False => known.bad = (known.bad + 4).min(CEILING),
            Evidence::Unanswered => known.bad = (known.bad + 1).min(CEILING),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(number: u16) -> Group {
        let [a, b] = number.to_le_bytes();
        Group([1, a, b, 0, 0, 0, 0, 0])
    }

    #[test]
    fn lies_cost_trust_and_time_gives_it_back() {
        let mut standings = Standings::default();
        let trust = |standings: &Standings, now| standings.trust(&group(1), now);
        assert_eq!(trust(&standings, 0), 32_768);
        for _ in 0..99 {
            standings.note(group(1), Evidence::False, 0);
        }
        assert_eq!(trust(&standings, 0), 648);
        assert_eq!(trust(&standings, HALF_LIFE_S - 1), 648);
        assert_eq!(trust(&standings, HALF_LIFE_S), 1_272);
        assert_eq!(trust(&standings, 20 * HALF_LIFE_S), 32_768);
        for _ in 0..100_000 {
            standings.note(group(1), Evidence::True, 0);
        }
        assert!(trust(&standings, 0) > 59_000);
        for _ in 0..4 {
            standings.note(group(2), Evidence::Unanswered, 0);
        }
        standings.note(group(3), Evidence::False, 0);
        assert_eq!(standings.trust(&group(2), 0), standings.trust(&group(3), 0));
    }

    #[test]
    fn the_worst_are_remembered_longest() {
        let mut standings = Standings::default();
        for _ in 0..10 {
            standings.note(group(0), Evidence::False, 0);
        }
        for number in 1..=5 * MAX_STANDINGS as u16 {
            standings.note(group(number), Evidence::False, 0);
        }
        assert_eq!(standings.0.len(), MAX_STANDINGS);
        assert!(standings.0.contains_key(&group(0)));
    }
}
