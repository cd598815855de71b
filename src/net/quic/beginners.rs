//! Handshakes under way: how many, of whom, and who makes room for whom. Pure.
//!
//! Everybody here has shown that its address is its own, so addresses are what a flood has to bring. When all places
//! are taken, the network group that holds most of them gives up its oldest: a few networks keep nobody else out,
//! and a handshake that goes on is over before its turn comes. A place is not given up in its first moments to one who
//! holds as much, so that a flood from everywhere makes this node begin no more handshakes than it can.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::net::admission::neighbourhood;
use crate::time::Time;

/// Handshakes at once with whoever begins one. Each costs a signature and some kilobytes, and is over in three
/// round trips, or after [`HANDSHAKE_TIME`](super::endpoint::HANDSHAKE_TIME).
pub(super) const MAX_HANDSHAKES: usize = 64;

/// Handshakes at once of one IPv4 address or IPv6 /64, loopback exempt: some nodes of one operator that restart together.
pub(super) const MAX_HANDSHAKES_PER_ADDRESS: usize = 4;

/// For so long a handshake gives its place up only to those who hold fewer: a round trip over the worst link. With
/// [`MAX_HANDSHAKES`] it bounds what a flood makes this node begin, 128 handshakes a second.
const YOUNG_TIME: Duration = Duration::from_millis(500);

/// A handshake under way.
#[derive(Debug)]
struct Beginner {
    ip: IpAddr,
    since: Time,
    /// Dropped with the entry, which tells the handshake's task.
    _alive: oneshot::Sender<()>,
}

/// The handshakes under way, by their number: the oldest first.
#[derive(Debug, Default)]
pub(super) struct Beginners {
    entries: BTreeMap<u64, Beginner>,
    next: u64,
}

impl Beginners {
    /// A place for a handshake with `ip`: its number, and what ends when the place is given to another. `None`: there
    /// is none.
    pub(super) fn admit(&mut self, ip: IpAddr, now: Time) -> Option<(u64, oneshot::Receiver<()>)> {
        let of_address = self.count(|other| neighbourhood(other) == neighbourhood(ip));
        if of_address >= MAX_HANDSHAKES_PER_ADDRESS && !ip.is_loopback() {
            self.vacate(now, |other| neighbourhood(other) == neighbourhood(ip))?;
        } else if self.entries.len() >= MAX_HANDSHAKES {
            self.make_room(ip, now)?;
        }
        let (alive, ended) = oneshot::channel();
        let entry = Beginner {
            ip,
            since: now,
            _alive: alive,
        };
        let number = self.next;
        self.next += 1;
        self.entries.insert(number, entry);
        Some((number, ended))
    }

    /// Gives a place back, if it has not gone to another.
    pub(super) fn release(&mut self, number: u64) {
        self.entries.remove(&number);
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes a place of whoever holds most, for `ip`.
    fn make_room(&mut self, ip: IpAddr, now: Time) -> Option<()> {
        let (group, in_group) = self.largest(group_of, |_| true)?;
        let (crowd, in_crowd) = self.largest(neighbourhood, |other| group_of(other) == group)?;
        let (own_group, own) = (group_of(ip), neighbourhood(ip));
        let held = self.count(|other| group_of(other) == own_group);
        let held_here = self.count(|other| neighbourhood(other) == own);
        let is_fewer = match own_group == group {
            true => held_here + 1 < in_crowd,
            false => held + 1 < in_group,
        };
        if !is_fewer {
            return self.vacate(now, |other| neighbourhood(other) == crowd);
        }
        let oldest = self.oldest(|other| neighbourhood(other) == crowd)?;
        self.entries.remove(&oldest);
        Some(())
    }

    /// Takes the oldest place of some, unless it is still young.
    fn vacate(&mut self, now: Time, which: impl Fn(IpAddr) -> bool) -> Option<()> {
        let oldest = self.oldest(which)?;
        let since = self.entries.get(&oldest)?.since;
        if now.since(since) < YOUNG_TIME {
            return None;
        }
        self.entries.remove(&oldest);
        Some(())
    }

    fn oldest(&self, which: impl Fn(IpAddr) -> bool) -> Option<u64> {
        let found = self.entries.iter().find(|(_, one)| which(one.ip));
        found.map(|(number, _)| *number)
    }

    fn count(&self, which: impl Fn(IpAddr) -> bool) -> usize {
        self.entries.values().filter(|one| which(one.ip)).count()
    }

    /// Of the parts into which `part_of` divides some addresses, the one with most places; of equal ones that with the
    /// oldest place.
    fn largest(
        &self,
        part_of: impl Fn(IpAddr) -> IpAddr,
        which: impl Fn(IpAddr) -> bool,
    ) -> Option<(IpAddr, usize)> {
        let mut parts: BTreeMap<IpAddr, (usize, u64)> = BTreeMap::new();
        for (number, one) in self.entries.iter().filter(|(_, one)| which(one.ip)) {
            parts.entry(part_of(one.ip)).or_insert((0, *number)).0 += 1;
        }
        let largest = parts
            .into_iter()
            .max_by_key(|(_, (count, oldest))| (*count, std::cmp::Reverse(*oldest)));
        largest.map(|(part, (count, _))| (part, count))
    }
}

/// What one operator is likely to hold: the first 16 bits of an IPv4 address, the first 32 of an IPv6 address.
fn group_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() >> 16 << 16).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 96 << 96).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_unix_seconds(1_000) + Duration::from_millis(ms)
    }

    fn ip(a: u8, b: u8, d: u8) -> IpAddr {
        IpAddr::from([a, b, 0, d])
    }

    /// All places taken by 32 addresses of one network with two each, at once.
    fn full() -> (Beginners, Vec<oneshot::Receiver<()>>) {
        let mut beginners = Beginners::default();
        let places = (0..64).map(|n| beginners.admit(ip(10, 1, n / 2), at(0)).unwrap().1);
        let places = places.collect();
        (beginners, places)
    }

    #[test]
    fn the_crowd_makes_room_for_others_and_not_for_itself() {
        let (mut beginners, mut places) = full();
        assert!(
            beginners.admit(ip(10, 1, 3), at(1)).is_none(),
            "they are young"
        );
        // Another network, and another address of the same one: the oldest of the largest goes.
        for (number, other) in [ip(10, 2, 1), ip(10, 1, 99)].into_iter().enumerate() {
            assert!(beginners.admit(other, at(1)).is_some());
            assert!(places[2 * number].try_recv() == Err(oneshot::error::TryRecvError::Closed));
        }
        assert!(places[1].try_recv() == Err(oneshot::error::TryRecvError::Empty));
        // Later the crowd's own newcomers take the places of its oldest.
        assert!(beginners.admit(ip(10, 1, 3), at(600)).is_some());
        assert_eq!(beginners.count(|other| other == ip(10, 2, 1)), 1);
        assert_eq!(beginners.entries.len(), 64);
    }

    #[test]
    fn a_flood_from_everywhere_begins_so_many_handshakes_and_no_more() {
        let mut beginners = Beginners::default();
        let mut begun = 0;
        for ms in 0..2_000u64 {
            let from = ip(20 + (ms % 200) as u8, (ms / 200) as u8, 1);
            begun += usize::from(beginners.admit(from, at(ms)).is_some());
        }
        assert!((64 * 4..64 * 5).contains(&begun), "{begun}");
    }

    #[test]
    fn one_address_has_four_and_may_replace_those_that_hang() {
        let mut beginners = Beginners::default();
        let here = ip(10, 1, 1);
        let mut places: Vec<_> = (0..MAX_HANDSHAKES_PER_ADDRESS)
            .map(|_| beginners.admit(here, at(0)).unwrap())
            .collect();
        assert!(beginners.admit(here, at(499)).is_none());
        assert!(beginners.admit(ip(10, 1, 2), at(499)).is_some());
        assert!(beginners.admit(here, at(500)).is_some());
        assert!(places[0].1.try_recv() == Err(oneshot::error::TryRecvError::Closed));
        // To give back what is another's by now changes nothing.
        beginners.release(places[0].0);
        assert_eq!(beginners.count(|other| other == here), 4);
        beginners.release(places[1].0);
        assert_eq!(beginners.count(|other| other == here), 3);
        for _ in 0..20 {
            let own = beginners.admit([127, 0, 0, 1].into(), at(1));
            assert!(own.is_some(), "this machine is exempt");
        }
    }
}
