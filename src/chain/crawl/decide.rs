//! What to do next: one step after another, each of which says when it wants to be asked again.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt as _;

use super::connections::Kind;
use super::{Action, ConnectionKey, Crawl, CrawlConfig, DropReason, MAX_SLOTS, Purpose};
use crate::chain::addrbook::{Address, Pick, Record, Want};
use crate::time::Time;

/// Most connections at a time to those who were looked at.
///
/// Reason: an ordinary node answers `getaddr` after half a minute on average, and takes a place as long; sixteen let a
/// look be taken every two seconds.
const MAX_FEELERS: usize = 16;
/// Most looks at claimed relays at a time.
///
/// Reason: most claims of a flood lead nowhere, and each holds a socket until the dial times out.
const MAX_PROBES: usize = 4;
/// How long we stay without a peer before DNS seeds are asked, if the book has somebody to try (Bitcoin Core's 11
/// seconds).
const DNS_PATIENCE: Duration = Duration::from_secs(11);
/// The same for fixed seeds, as in Bitcoin Core: they are the same for everybody, so they come last.
const FIXED_PATIENCE: Duration = Duration::from_secs(60);
/// First wait before seeds are asked again; doubles up to a day.
const SEED_AGAIN: Duration = Duration::from_secs(10 * 60);
/// How often our own node is asked while relays are lacking, and otherwise.
const NODE_INTERVALS: [Duration; 2] = [Duration::from_secs(3600), Duration::from_secs(24 * 3600)];
/// How often a peer is told our address, on average, as in Bitcoin Core.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// Ordinary peers are exchanged ever more seldom, at last once an hour: what ten have not told, the next may.
const SLOWEST_EXCHANGE: Duration = Duration::from_secs(3600);
/// The longest wait for seeds.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// When what is due.
pub(super) struct Timers {
    /// When to ask again though nothing happens.
    pub wake: Option<Time>,
    /// Kinds of peers of which there was none to pick, and when there may be.
    nobody_until: BTreeMap<Want, Time>,
    pub save_at: Option<Time>,
    next_dial: Time,
    /// The last dial was for the slots of relays: the next is for ordinary peers, if one is wanted.
    relays_dialled: bool,
    next_feeler: Time,
    next_node: Option<Time>,
    next_dns: Option<Time>,
    next_fixed: Option<Time>,
    dns_wait: Duration,
    exchange: Duration,
    /// Since when we have had no peer that we dialled.
    lonely_since: Option<Time>,
}

impl Timers {
    pub(super) fn new(now: Time, config: &CrawlConfig, jitter: u8) -> Self {
        Self {
            wake: None,
            nobody_until: BTreeMap::new(),
            save_at: None,
            next_dial: now,
            relays_dialled: false,
            next_feeler: now + spread(config.feeler_interval, jitter),
            next_node: config.own_node.then_some(now),
            next_dns: config.dns_seeds.then_some(now),
            next_fixed: config.fixed_seeds.then_some(now),
            dns_wait: SEED_AGAIN,
            exchange: config.exchange_interval,
            lonely_since: Some(now),
        }
    }

    /// Something is known that was not: whoever could not be found may be there now. Not looked for at once, since
    /// that takes a pass over the book, and peers can see to it that something is always new.
    pub(super) fn look_again_at(&mut self, at: Time) {
        for until in self.nobody_until.values_mut() {
            *until = at.min(*until);
        }
    }

    fn wake_at(&mut self, at: Time) {
        if at == Time::MAX {
            return;
        }
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// Whether a time has come; if not, wakes then.
    fn is_due(&mut self, now: Time, at: Option<Time>) -> bool {
        match at {
            Some(at) if at <= now => true,
            Some(at) => {
                self.wake_at(at);
                false
            }
            None => false,
        }
    }
}

/// From a half of the interval to one and a half.
fn spread(interval: Duration, jitter: u8) -> Duration {
    interval / 2 + interval * u32::from(jitter) / 255
}

impl Crawl {
    /// Puts what is to be done now into the queue, and when to look again into the timers.
    pub(super) fn decide(&mut self, now: Time) {
        self.timers.wake = None;
        self.save(now);
        self.talk(now);
        self.seed(now);
        // They share one allowance of dials, and nobody may take it from the others: the claims of a flood that
        // are refused at once least of all.
        self.ask_named(now);
        self.feel(now);
        if self.timers.relays_dialled {
            self.keep_gossip(now);
            self.dial_relay(now);
        } else {
            self.dial_relay(now);
            self.keep_gossip(now);
        }
        self.exchange_gossip(now);
        if !self.queue.is_empty() {
            self.timers.wake = Some(now);
        }
    }

    /// Whether we want to know more relays than we have.
    fn lacks_relays(&self) -> bool {
        self.connections.count(Kind::Relay) < self.relay_slots()
    }

    fn relay_slots(&self) -> usize {
        self.config.relay_slots.min(MAX_SLOTS)
    }

    fn gossip_slots(&self) -> usize {
        let slots = self.config.gossip_slots.min(MAX_SLOTS);
        if self.lacks_relays() {
            slots
        } else {
            slots.min(1)
        }
    }

    /// Whether one more ordinary peer has a place, those that are being dialled counted.
    fn has_gossip_slot(&self) -> bool {
        let dials = self.connections.count_dials(|one| *one == Purpose::Gossip);
        self.connections.count(Kind::Gossip) + dials < self.gossip_slots()
    }

    fn save(&mut self, now: Time) {
        if self.timers.is_due(now, self.timers.save_at) {
            self.timers.save_at = None;
            self.queue.push_back(Action::Save);
        }
    }

    /// Asks each peer once, and tells some our address now and then.
    fn talk(&mut self, now: Time) {
        for (key, connection) in self.connections.all_mut() {
            if connection.is_unasked() {
                connection.asked = true;
                self.queue.push_back(Action::AskAddresses(key));
            }
            if self.timers.is_due(now, connection.announce_at) {
                let wait = spread(ANNOUNCE_INTERVAL, self.random.random());
                connection.announce_at = Some(now + wait);
                self.timers.wake_at(now + wait);
                self.queue.push_back(Action::AnnounceSelf(key));
            }
        }
    }

    /// Where to learn of peers without peers.
    fn seed(&mut self, now: Time) {
        if self.timers.is_due(now, self.timers.next_node) {
            let [lacking, otherwise] = NODE_INTERVALS;
            let wait = if self.lacks_relays() {
                lacking
            } else {
                otherwise
            };
            self.timers.next_node = Some(now + wait);
            self.timers.wake_at(now + wait);
            self.queue.push_back(Action::AskNode);
        }
        let outbound = self.connections.count(Kind::Relay) + self.connections.count(Kind::Gossip);
        if outbound > 0 {
            self.timers.lonely_since = None;
            return;
        }
        let since = *self.timers.lonely_since.get_or_insert(now);
        let patience = if self.book.is_empty() {
            Duration::ZERO
        } else {
            DNS_PATIENCE
        };
        let dns_at = self.timers.next_dns.map(|at| at.max(since + patience));
        if self.timers.is_due(now, dns_at) {
            let next = now + self.timers.dns_wait;
            self.timers.next_dns = Some(next);
            self.timers.dns_wait = (self.timers.dns_wait * 2).min(DAY);
            self.timers.wake_at(next);
            self.queue.push_back(Action::SeedFromDns);
        }
        let nothing_else = !self.config.dns_seeds && !self.config.own_node && self.book.is_empty();
        let patience = if nothing_else {
            Duration::ZERO
        } else {
            FIXED_PATIENCE
        };
        let fixed_at = self.timers.next_fixed.map(|at| at.max(since + patience));
        if self.timers.is_due(now, fixed_at) {
            self.timers.next_fixed = Some(now + DAY);
            self.timers.wake_at(now + DAY);
            self.queue.push_back(Action::SeedFixed);
        }
    }

    /// Dials the nodes that the operator named, before a flood of claims has its turn: to stay, while there is room.
    fn ask_named(&mut self, now: Time) {
        while let Some(address) = self.named.front().copied()
            && self.may_dial(now)
        {
            self.named.pop_front();
            // The book has refused it, or it was met by another way.
            let is_met = self.connections.dialling.contains_key(&address)
                || self
                    .connections
                    .iter()
                    .any(|it| it.address == Some(address));
            if is_met || self.book.record(&address).is_none() {
                continue;
            }
            let purpose = match self.has_gossip_slot() {
                true => Purpose::Gossip,
                false => Purpose::Feeler {
                    ask_addresses: true,
                },
            };
            self.dial(now, address, purpose);
        }
    }

    /// Fills the slots of relays: whose control stream is known is dialled there, others are looked at first.
    fn dial_relay(&mut self, now: Time) {
        let dials = self.connections.count_dials(|one| *one == Purpose::Relay);
        let feelers = self.connections.count(Kind::Feeler);
        // Whoever has shown that it has no flag is no look any more, though it may still tell addresses.
        let undecided = self.connections.iter();
        let undecided = undecided.filter(|one| one.kind == Kind::Feeler && one.unproven);
        let looks = undecided.count()
            + self
                .connections
                .count_dials(|one| matches!(one, Purpose::Feeler { .. }));
        let taken = self.connections.count(Kind::Relay) + dials;
        if taken >= self.relay_slots() || looks >= MAX_PROBES || feelers >= MAX_FEELERS {
            return;
        }
        let Some(record) = self.pick(now, Want::Flagged) else {
            return;
        };
        match record.control() {
            Some(address) => self.dial(now, address, Purpose::Relay),
            None => self.dial_feeler(now, &record),
        }
        self.timers.relays_dialled = true;
    }

    /// Fills the slots of ordinary peers, or empties those that are too many.
    fn keep_gossip(&mut self, now: Time) {
        if self.connections.count(Kind::Gossip) > self.gossip_slots() {
            let Some((key, _)) = self.connections.oldest(Kind::Gossip) else {
                return;
            };
            self.let_go(now, key, DropReason::NotNeeded);
        } else if self.has_gossip_slot()
            && let Some(record) = self.pick(now, Want::Any)
        {
            self.dial(now, record.address, Purpose::Gossip);
            self.timers.relays_dialled = false;
        }
    }

    /// While relays are lacking, exchanges the oldest ordinary peer for another that may know more.
    fn exchange_gossip(&mut self, now: Time) {
        let dials = self.connections.count_dials(|one| *one == Purpose::Gossip);
        let full = dials == 0 && self.connections.count(Kind::Gossip) >= self.gossip_slots();
        let Some((key, opened)) = self.connections.oldest(Kind::Gossip) else {
            return;
        };
        if !full || !self.lacks_relays() {
            return;
        }
        let at = opened + self.timers.exchange;
        if self.timers.is_due(now, Some(at))
            && let Some(record) = self.pick(now, Want::Any)
        {
            let slowest = SLOWEST_EXCHANGE.max(self.config.exchange_interval);
            self.timers.exchange = (self.timers.exchange * 2).min(slowest);
            self.let_go(now, key, DropReason::Exchanged);
            self.dial(now, record.address, Purpose::Gossip);
        }
    }

    /// Looks at somebody, now and then.
    fn feel(&mut self, now: Time) {
        // Who looks for nobody need look at nobody.
        if self.relay_slots() == 0 && self.config.gossip_slots == 0 {
            return;
        }
        let due = Some(self.timers.next_feeler);
        if !self.timers.is_due(now, due) || !self.may_dial(now) {
            return;
        }
        let wait = spread(self.config.feeler_interval, self.random.random());
        self.timers.next_feeler = now + wait;
        self.timers.wake_at(now + wait);
        if let Some(record) = self.pick(now, Want::Feeler) {
            self.dial_feeler(now, &record);
        }
    }

    fn dial_feeler(&mut self, now: Time, record: &Record) {
        let ask_addresses = self.lacks_relays();
        self.dial(now, record.address, Purpose::Feeler { ask_addresses });
    }

    /// Somebody to dial, if one may be dialled now and there is anybody. Else it is known when to ask again.
    fn pick(&mut self, now: Time, want: Want) -> Option<Record> {
        let nobody_until = self.timers.nobody_until.get(&want).copied();
        if !self.timers.is_due(now, nobody_until.or(Some(now))) || !self.may_dial(now) {
            return None;
        }
        let in_use = match want {
            Want::Flagged => self.in_use_for_relays(),
            Want::Any | Want::Feeler => self.in_use_for_strangers(),
        };
        match self.book.pick(now, want, &in_use) {
            Pick::Found(record) => Some(record),
            Pick::Later(then) => {
                self.timers.nobody_until.insert(want, then);
                self.timers.wake_at(then);
                None
            }
            Pick::Nobody => {
                self.timers.nobody_until.insert(want, Time::MAX);
                None
            }
        }
    }

    /// Whether enough time has passed since the last dial; if not, wakes when it has.
    fn may_dial(&mut self, now: Time) -> bool {
        let next = Some(self.timers.next_dial);
        self.timers.is_due(now, next)
    }

    fn dial(&mut self, now: Time, address: Address, purpose: Purpose) {
        self.timers.next_dial = now + self.config.dial_interval;
        self.timers.wake_at(self.timers.next_dial);
        self.dials += 1;
        self.book.dialled(now, &address);
        self.connections.dialling.insert(address, purpose);
        self.queue.push_back(Action::Dial { address, purpose });
    }

    /// Closes a connection; it is gone for us at once, and [`Crawl::closed`] may or may not follow.
    fn let_go(&mut self, now: Time, key: ConnectionKey, reason: DropReason) {
        self.closed(now, key);
        self.queue.push_back(Action::Drop(key, reason));
    }
}
