//! Who makes room when all inbound connections are taken and one more comes.
//!
//! As in Bitcoin Core: some are protected for what an attacker cannot have more of than others (distance, parts of
//! the network, usefulness, age); of the rest, the youngest of the part of the network that has most connections
//! goes. So whoever fills all places loses them again to whoever comes, and honest peers stay.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::chain::addrbook::Group;
use crate::time::Time;

/// Protected because their answers are back soonest: distance cannot be feigned.
const NEAREST: usize = 8;
/// Protected because they have brought us blocks or headers that were new, last.
const USEFUL: usize = 4;
/// Protected because they say that they are relays like us.
const RELAYS: usize = 8;
/// Parts of the network, drawn by a secret, of which the oldest connection is protected.
const PARTS: usize = 4;

/// An inbound connection.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<N> {
    /// Its name.
    pub name: N,
    /// The part of the network that it comes from.
    pub group: Group,
    /// A number that follows from its group and a secret of this process.
    pub lot: u64,
    /// When it came.
    pub since: Time,
    /// How long its handshake took, once it is done.
    pub greeted_in: Option<Duration>,
    /// When it last told of a block that was new.
    pub useful: Option<Time>,
    /// Whether it says where its control stream is.
    pub is_relay: bool,
    /// Whether its address has broken rules.
    pub is_discouraged: bool,
}

/// Who makes room; `None`: all are protected, and the newcomer has to go.
pub fn choose<N: Copy + Ord>(mut candidates: Vec<Candidate<N>>) -> Option<N> {
    let bad = candidates.iter().filter(|it| it.is_discouraged);
    if let Some(worst) = bad.max_by_key(|it| (it.since, it.name)) {
        return Some(worst.name);
    }
    // A part of the network at a time, so that one of many machines is not protected as often as it has some.
    let mut lots: BTreeMap<u64, (Time, N)> = BTreeMap::new();
    for it in &candidates {
        let oldest = lots.entry(it.lot).or_insert((it.since, it.name));
        *oldest = (*oldest).min((it.since, it.name));
    }
    let parts: Vec<N> = lots.values().take(PARTS).map(|(_, name)| *name).collect();
    candidates.retain(|it| !parts.contains(&it.name));
    protect(&mut candidates, NEAREST, |it| {
        it.greeted_in.unwrap_or(Duration::MAX)
    });
    protect(&mut candidates, USEFUL, |it| {
        std::cmp::Reverse(it.useful.map_or(0, Time::as_nanos))
    });
    protect(&mut candidates, RELAYS, |it| (!it.is_relay, it.since));
    let half = candidates.len() / 2;
    protect(&mut candidates, half, |it| it.since);
    let mut groups: BTreeMap<Group, (usize, Time)> = BTreeMap::new();
    for it in &candidates {
        let (count, youngest) = groups.entry(it.group).or_insert((0, it.since));
        *count += 1;
        *youngest = (*youngest).max(it.since);
    }
    let fullest = groups.iter().max_by_key(|(_, weight)| **weight)?;
    let of_group = candidates.iter().filter(|it| it.group == *fullest.0);
    of_group
        .max_by_key(|it| (it.since, it.name))
        .map(|it| it.name)
}

/// Takes the first `count` by `rank` out of those who may have to go.
fn protect<N: Copy + Ord, K: Ord>(
    candidates: &mut Vec<Candidate<N>>,
    count: usize,
    rank: impl Fn(&Candidate<N>) -> K,
) {
    candidates.sort_by_key(|it| (rank(it), it.name));
    candidates.drain(..count.min(candidates.len()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::addrbook::Address;

    fn candidate(number: u32, ip: &str, age_s: u64) -> Candidate<u32> {
        let address = format!("{ip}:8333").parse().unwrap();
        Candidate {
            name: number,
            group: Address::bitcoin(address).group(),
            lot: u64::from(number) << 32,
            since: Time::from_unix_seconds(1_000_000 - age_s),
            greeted_in: Some(Duration::from_millis(200)),
            useful: None,
            is_relay: false,
            is_discouraged: false,
        }
    }

    /// 20 honest peers of long ago, each of its own network, and 44 of one network that came just now.
    fn besieged() -> Vec<Candidate<u32>> {
        let honest =
            (0..20).map(|it| candidate(it, &format!("{}.1.1.1", 30 + it), 5_000 + u64::from(it)));
        let siege = (20..64).map(|it| candidate(it, &format!("9.9.1.{it}"), 64 - u64::from(it)));
        honest.chain(siege).collect()
    }

    #[test]
    fn who_came_last_of_the_fullest_network_goes() {
        assert_eq!(choose(besieged()), Some(63));
    }

    #[test]
    fn a_siege_never_costs_an_honest_place() {
        let mut connected = besieged();
        for number in 100..2_000 {
            let gone = choose(connected.clone()).unwrap();
            assert!(gone >= 20, "an honest peer went");
            connected.retain(|it| it.name != gone);
            let mut next = candidate(number, &format!("9.9.2.{}", number % 250), 0);
            // Nearer than all honest ones, and with news.
            next.greeted_in = Some(Duration::from_millis(1));
            next.useful = Some(Time::from_unix_seconds(1_000_001));
            next.is_relay = true;
            connected.push(next);
        }
        assert_eq!(connected.len(), 64);
    }

    #[test]
    fn the_discouraged_go_first_and_few_are_all_protected() {
        let mut connected = besieged();
        connected[3].is_discouraged = true;
        assert_eq!(choose(connected), Some(3));
        let few: Vec<_> = besieged().into_iter().take(20).collect();
        assert_eq!(choose(few), None);
        assert_eq!(choose::<u32>(Vec::new()), None);
    }
}
