//! Whom to dial: one of those who may be, by lot, with the weights that make lies dear.
//!
//! A pass over the whole book, four milliseconds when it is full: a dial takes longer, and comes about once a
//! second. In return "nobody" means nobody, and "later" says when.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt as _;

use super::address::{Address, Door, Group, Host};
use super::entry::{Entry, Table};
use super::{Book, Record, TEST_S, keeps_addresses, record, seconds};
use crate::time::Time;

/// Once in so many picks a claim is tried though a relay that is known could be: else whoever came first would be
/// dialled for ever.
const CURIOSITY: u32 = 8;

/// What the connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Want {
    /// A relay: first those that said so themselves or were met, else whoever is said to have the flag.
    Flagged,
    /// Anybody who speaks Bitcoin's protocol and keeps addresses.
    Any,
    /// Somebody to be looked at for a moment: whose place another waits for, else somebody of hearsay.
    Feeler,
}

/// Whom not to pick.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InUse {
    groups: BTreeSet<Group>,
    hosts: BTreeSet<Host>,
    addresses: BTreeSet<Address>,
}

impl InUse {
    /// Not this node, and nobody of its group. (Groups of Tor, I2P and CJDNS are drawn by lot: there only the node.)
    pub fn add(&mut self, address: &Address) {
        self.add_node(address);
        if address.group_has_owner() {
            self.groups.insert(address.group());
        }
    }

    /// Nobody at this host.
    pub fn add_host(&mut self, host: &Host) {
        self.hosts.insert(*host);
    }

    /// Not this node.
    pub fn add_node(&mut self, address: &Address) {
        self.addresses.insert(*address);
    }

    fn has_node(&self, entry: &Entry) -> bool {
        let control = record(entry).control();
        self.hosts.contains(&entry.address.host)
            || self.addresses.contains(&entry.address)
            || control.is_some_and(|control| self.addresses.contains(&control))
    }

    pub(super) fn has(&self, entry: &Entry) -> bool {
        let grouped =
            entry.address.group_has_owner() && self.groups.contains(&entry.address.group());
        grouped || self.has_node(entry)
    }
}

/// What was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// This one.
    Found(Record),
    /// Nobody yet: the first may be tried then.
    Later(Time),
    /// Nobody that is known.
    Nobody,
}

/// Those who may be tried now, and when the first of the others may.
#[derive(Default)]
struct Ready {
    ids: Vec<usize>,
    next: Option<u32>,
}

impl Book {
    /// Picks whom to dial. The same question may have another answer each time.
    pub fn pick(&mut self, now: Time, want: Want, in_use: &InUse) -> Pick {
        let now = seconds(now);
        let flag = self.rules.flag;
        let is_claim = |entry: &Entry| entry.is_claim(flag);
        let is_relay = |entry: &Entry| entry.advert.is_some();
        let is_new = |entry: &Entry| entry.table == Table::New;
        let bitcoin = |entry: &Entry| entry.address.door == Door::Bitcoin;
        let useful = |entry: &Entry| {
            bitcoin(entry)
                && !is_claim(entry)
                && !entry.is_proven()
                && keeps_addresses(entry.services)
        };
        match want {
            Want::Flagged => {
                let relays = self.ready(now, in_use, is_relay);
                let claims = self.ready(now, in_use, |entry| is_claim(entry) && !is_relay(entry));
                let curious = self.random.random_range(0..CURIOSITY) == 0;
                self.choose(now, relays, claims, !curious)
            }
            Want::Any => {
                let seen = |entry: &Entry| useful(entry) && entry.table == Table::Tried;
                let tried = self.ready(now, in_use, seen);
                let new = self.ready(now, in_use, |entry| useful(entry) && is_new(entry));
                let first = self.random.random();
                self.choose(now, tried, new, first)
            }
            Want::Feeler => {
                if let Some(found) = self.pick_incumbent(now, in_use) {
                    return Pick::Found(found);
                }
                let claims = self.ready(now, in_use, |entry| bitcoin(entry) && is_claim(entry));
                let new = self.ready(now, in_use, |entry| bitcoin(entry) && is_new(entry));
                let first = self.random.random();
                self.choose(now, claims, new, first)
            }
        }
    }

    /// Somebody whose place another waits for. Whoever of them is connected has passed the test.
    fn pick_incumbent(&mut self, now: u32, in_use: &InUse) -> Option<Record> {
        let connected: Vec<Address> = self
            .incumbents()
            .filter(|entry| in_use.has_node(entry))
            .map(|entry| entry.address)
            .collect();
        for address in &connected {
            if let Some(entry) = self.find_mut(address) {
                entry.last_success = now;
            }
        }
        self.resolve_collisions(now);
        let untested: Vec<Record> = self
            .incumbents()
            .filter(|entry| entry.address.door == Door::Bitcoin && !in_use.has(entry))
            .filter(|entry| now.saturating_sub(entry.last_try) > TEST_S)
            .map(record)
            .collect();
        match untested.len() {
            0 => None,
            count => untested.get(self.random.random_range(0..count)).copied(),
        }
    }

    fn ready(&self, now: u32, in_use: &InUse, suits: impl Fn(&Entry) -> bool) -> Ready {
        let mut ready = Ready::default();
        for (id, entry) in &self.entries {
            if !suits(entry) || in_use.has(entry) {
                continue;
            }
            let at = entry.ready_at(now, &self.waits);
            if at <= now {
                ready.ids.push(id);
            } else {
                ready.next = Some(ready.next.map_or(at, |next| next.min(at)));
            }
        }
        ready
    }

    /// One of the preferred kind if there is any, else of the other.
    fn choose(&mut self, now: u32, one: Ready, other: Ready, prefer_one: bool) -> Pick {
        let ids = match (one.ids.is_empty(), other.ids.is_empty()) {
            (true, true) => {
                let next = one.next.into_iter().chain(other.next).min();
                return next.map_or(Pick::Nobody, |next| {
                    Pick::Later(Time::from_unix_seconds(next.into()))
                });
            }
            (false, true) => one.ids,
            (true, false) => other.ids,
            (false, false) if prefer_one => one.ids,
            (false, false) => other.ids,
        };
        match self.draw(now, &ids) {
            Some(found) => Pick::Found(found),
            None => Pick::Nobody,
        }
    }

    /// Draws one entry. Every source has the same weight, times the trust in it, which its claims share among them;
    /// what we have seen ourselves counts as told by its own group.
    fn draw(&mut self, now: u32, ids: &[usize]) -> Option<Record> {
        let mut shares: BTreeMap<Group, u64> = BTreeMap::new();
        for id in ids {
            self.each_source(*id, |source| *shares.entry(source).or_default() += 1);
        }
        for (source, share) in &mut shares {
            *share = (self.standings.trust(source, now) << 24) / *share;
        }
        let weigh = |id: usize| {
            let mut weight = 0_u64;
            self.each_source(id, |source| {
                weight += shares.get(&source).copied().unwrap_or_default();
            });
            let chance = self.entries.get(id).map_or(0, Entry::chance);
            (((weight >> 8) * chance) >> 16).max(1)
        };
        let weights: Vec<u64> = ids.iter().map(|id| weigh(*id)).collect();
        let total: u64 = weights.iter().sum();
        if total == 0 {
            return None;
        }
        let mut left = self.random.random_range(0..total);
        let drawn = weights.iter().position(|weight| {
            let here = left < *weight;
            left = left.saturating_sub(*weight);
            here
        })?;
        self.entries.get(*ids.get(drawn)?).map(record)
    }

    fn each_source(&self, id: usize, mut with: impl FnMut(Group)) {
        let Some(entry) = self.entries.get(id) else {
            return;
        };
        if entry.sources.is_empty() {
            with(entry.address.group());
        }
        entry.sources.iter().copied().for_each(with);
    }
}
