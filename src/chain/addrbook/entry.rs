//! One address and what is known of it: when to try it again, how likely it is to answer, when to forget it.

use arrayvec::ArrayVec;

use super::MAX_SOURCES;
use super::address::{Address, Group, Locality};
use crate::chain::p2p::Advert;

/// How long an address that nobody has seen is kept: 30 days, as in Bitcoin Core.
pub(super) const HORIZON_S: u32 = 30 * 24 * 3600;
/// Tries that an address gets which never answered, as in Bitcoin Core.
const UNANSWERED_TRIES: u8 = 3;
/// Failures in a row after which one that did answer is given up, if that was [`GIVE_UP_S`] ago, as in Bitcoin Core.
const FAILURES_TO_GIVE_UP: u8 = 10;
/// See [`FAILURES_TO_GIVE_UP`]: a week.
const GIVE_UP_S: u32 = 7 * 24 * 3600;
/// What was tried within the last minute is not thrown away: it may be about to answer.
const JUST_TRIED_S: u32 = 60;
/// How far ahead of our clock "last seen" may lie: ten minutes, as in Bitcoin Core.
pub(super) const FUTURE_S: u32 = 600;
/// How long a disproved claim is not believed again from hearsay: a day. Then the node may have changed.
const DISBELIEF_S: u32 = 24 * 3600;

/// Which of the tables holds an address: two of hearsay, two of what we have seen ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Heard of, and nobody says that it has the flag.
    New,
    /// Heard of, and somebody says that it has the flag.
    Claimed,
    /// Has answered.
    Tried,
    /// Was met as a relay: a session of its protocol was established.
    Proven,
}

impl Table {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::New, Self::Claimed, Self::Tried, Self::Proven];

    /// Whether it holds what we have only heard of.
    pub(super) const fn is_hearsay(self) -> bool {
        matches!(self, Self::New | Self::Claimed)
    }
}

/// An address in the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub address: Address,
    /// As claimed; as observed, once it has answered.
    pub services: u64,
    pub table: Table,
    /// Whose word it is in a table of hearsay, one for each of its places there; elsewhere, who claims the flag.
    pub sources: ArrayVec<Group, MAX_SOURCES>,
    pub last_seen: u32,
    pub last_try: u32,
    pub last_success: u32,
    /// Not to be tried before.
    pub next_try: u32,
    /// When the flag was found missing; 0 if it was not.
    pub refuted: u32,
    /// Failures since the last success, while others did answer.
    pub failures: u8,
    /// Failures since the last success, ours or not.
    pub streak: u8,
    /// When the last failure was counted. Not kept on disk.
    pub counted: u32,
    /// Where it says that its control stream is; for a control stream, what is there.
    pub advert: Option<Advert>,
    /// When a session of the relay's protocol was last established; 0: never.
    pub met: u32,
}

impl Entry {
    pub(super) fn new(address: Address, services: u64, last_seen: u32, table: Table) -> Self {
        Self {
            address,
            services,
            table,
            sources: ArrayVec::new(),
            last_seen,
            last_try: 0,
            last_success: 0,
            next_try: 0,
            refuted: 0,
            failures: 0,
            streak: 0,
            counted: 0,
            advert: None,
            met: 0,
        }
    }

    /// Whether it is said to have the flag, and neither shown nor disproved.
    pub(super) const fn is_claim(&self, flag: u64) -> bool {
        !self.is_proven() && self.services & flag != 0
    }

    /// Whether it was met as a relay.
    pub(super) const fn is_proven(&self) -> bool {
        self.met != 0
    }

    /// Whether hearsay of the flag is believed.
    pub(super) const fn may_claim(&self, now: u32) -> bool {
        self.refuted == 0 || now.saturating_sub(self.refuted) >= DISBELIEF_S
    }

    /// Whether it may make room for another, by the rules of Bitcoin Core.
    pub(super) const fn is_terrible(&self, now: u32) -> bool {
        if self.last_try != 0 && now.saturating_sub(self.last_try) <= JUST_TRIED_S {
            return false;
        }
        let from_the_future = self.last_seen > now.saturating_add(FUTURE_S);
        let stale = now.saturating_sub(self.last_seen) > HORIZON_S;
        let never_answered = self.last_success == 0 && self.failures >= UNANSWERED_TRIES;
        let gone = self.failures >= FAILURES_TO_GIVE_UP
            && now.saturating_sub(self.last_success) > GIVE_UP_S;
        from_the_future || stale || never_answered || gone
    }

    /// How much rather than others it is picked, of 65,536: two thirds less for each failure, eight at most, so
    /// that an outage condemns nobody.
    pub(super) fn chance(&self) -> u64 {
        (0..self.failures.min(8)).fold(1 << 16, |chance, _| chance * 2 / 3)
    }

    /// When it may be tried, given the clock; a time too far ahead was set by another clock and does not count.
    pub(super) fn ready_at(&self, now: u32, waits: &Waits) -> u32 {
        if self.next_try > now.saturating_add(waits.longest()) {
            return 0;
        }
        self.next_try
    }
}

/// How long to wait before an address is tried again, in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waits {
    stranger: Wait,
    relay: Wait,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    first: u32,
    last: u32,
}

impl Waits {
    /// A stranger is left alone for ten minutes (as Bitcoin Core does), twice as long after each failure, at most a
    /// day. Whoever said itself that it is a relay is worth more to us, and glad of us: 30
    /// seconds, at most an hour. On one machine
    /// a second, at most 16: nobody is bothered, and tests need not wait.
    pub(super) const fn new(locality: Locality) -> Self {
        match locality {
            Locality::Public => Self {
                stranger: Wait {
                    first: 600,
                    last: 24 * 3600,
                },
                relay: Wait {
                    first: 30,
                    last: 3600,
                },
            },
            Locality::Local => Self {
                stranger: Wait { first: 1, last: 16 },
                relay: Wait { first: 1, last: 16 },
            },
        }
    }

    /// After so many failures in a row; `jitter` takes off up to a quarter.
    pub(super) fn after(&self, streak: u8, relay: bool, jitter: u8) -> u32 {
        let wait = if relay { self.relay } else { self.stranger };
        let doubled = wait
            .first
            .saturating_mul(1 << streak.min(16))
            .min(wait.last);
        doubled - doubled / 4 * u32::from(jitter) / 255
    }

    const fn longest(&self) -> u32 {
        self.stranger.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let address = Address::bitcoin("1.2.3.4:8333".parse().unwrap());
        Entry::new(address, 9, 1_000_000, Table::New)
    }

    #[test]
    fn terrible_is_what_bitcoin_core_calls_so() {
        let now = 1_000_000;
        assert!(!entry().is_terrible(now));
        assert!(!entry().is_terrible(now + HORIZON_S));
        assert!(entry().is_terrible(now + HORIZON_S + 1));
        assert!(!entry().is_terrible(now - FUTURE_S));
        assert!(entry().is_terrible(now - FUTURE_S - 1));
        let mut silent = entry();
        silent.failures = 3;
        assert!(silent.is_terrible(now));
        silent.last_try = now - 60;
        assert!(!silent.is_terrible(now));
        assert!(silent.is_terrible(now + 1));
        let mut gone = entry();
        gone.failures = 9;
        gone.last_success = now;
        let later = now + GIVE_UP_S + 1;
        assert!(!gone.is_terrible(later));
        gone.failures = 10;
        assert!(!gone.is_terrible(later - 1));
        assert!(gone.is_terrible(later));
    }

    #[test]
    fn waits_double_up_to_their_end() {
        let waits = Waits::new(Locality::Public);
        let of = |streak| waits.after(streak, false, 0);
        assert_eq!([of(0), of(1), of(2), of(7)], [600, 1200, 2400, 76_800]);
        assert_eq!([of(8), of(255)], [86_400, 86_400]);
        assert_eq!(waits.after(0, true, 0), 30);
        assert_eq!(waits.after(255, true, 255), 2700);
        assert_eq!(waits.after(0, false, 255), 450);
    }

    #[test]
    fn a_clock_set_back_does_not_lock_anybody_out() {
        let waits = Waits::new(Locality::Public);
        let mut entry = entry();
        entry.next_try = 1_000_000;
        assert_eq!(entry.ready_at(990_000, &waits), 1_000_000);
        assert_eq!(entry.ready_at(900_000, &waits), 0);
    }

    #[test]
    fn chance_falls_by_thirds_and_never_to_nothing() {
        let mut entry = entry();
        assert_eq!(entry.chance(), 65_536);
        entry.failures = 1;
        assert_eq!(entry.chance(), 43_690);
        entry.failures = 8;
        let least = entry.chance();
        entry.failures = 255;
        assert_eq!(entry.chance(), least);
        assert!(least > 2_000);
    }
}
