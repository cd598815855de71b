//! What others are told when they ask: a sample, kept for a while, so that asking often tells no more.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt as _;

use super::address::{Address, Door, Host};
use super::entry::Entry;
use super::intake::Hearsay;
use super::{Book, seconds};
use crate::time::Time;

/// Most addresses in an answer to `getaddr` (Bitcoin Core's `MAX_ADDR_TO_SEND`).
///
/// Reason: the protocol's limit of one `addr` message.
pub const MAX_ANSWER: usize = 1000;
/// Most relays in an answer to BTGETADDR.
///
/// Reason: the protocol's limit of one BTADDR message.
pub const MAX_RELAYS_ANSWER: usize = 100;
/// Most of the book that an answer tells, in percent (Bitcoin Core's `MAX_PCT_ADDR_TO_SEND`).
///
/// Reason: else whoever asks a few times has it all, and sees from what changes whom we are connected to.
pub const MAX_ANSWER_PERCENT: usize = 23;
/// So many are told of whatever the book's size: in so small a network there is nothing to hide, and everybody must
/// be found.
const LEAST: usize = 16;
/// Sooner than this no answer is drawn anew, as in Bitcoin Core.
const KEEP: Duration = Duration::from_secs(21 * 3600);
/// Up to so much is added by lot, as in Bitcoin Core, so that nobody knows when.
const KEEP_JITTER_S: u64 = 6 * 3600;
/// Relays are few, and public by their trade; an hour makes asking often useless.
const KEEP_RELAYS: Duration = Duration::from_secs(3600);

/// Where a proven relay is to be found, as BTADDR tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayAddress {
    /// Its host.
    pub host: Host,
    /// TCP port of its control stream.
    pub control_port: u16,
    /// UDP port of its datagrams; 0: not known.
    pub data_port: u16,
    /// Its services.
    pub services: u64,
    /// When it was last seen, in Unix seconds.
    pub last_seen: u32,
}

impl From<RelayAddress> for Hearsay {
    /// What a BTADDR tells, to be put into a book: the address of a control stream.
    fn from(relay: RelayAddress) -> Self {
        Self {
            address: Address {
                host: relay.host,
                port: relay.control_port,
                door: Door::Control,
            },
            services: relay.services,
            last_seen: relay.last_seen,
        }
    }
}

/// An answer and until when it is given.
#[derive(Clone, Debug)]
struct Kept<T> {
    until: Time,
    /// Size of what it was drawn from.
    of: usize,
    told: Vec<T>,
}

impl<T> Kept<T> {
    /// Whether it is given once more: not too old, and the book has not doubled since. (A book can double a few
    /// times only, and a young one has little to hide but much to learn.)
    fn serves(&self, now: Time, of: usize) -> bool {
        now < self.until && of < 2 * self.of
    }
}

/// The answers that are kept, one for each network that one is asked over.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    addresses: BTreeMap<u8, Kept<Hearsay>>,
    relays: BTreeMap<u8, Kept<RelayAddress>>,
}

impl Book {
    /// The answer to a `getaddr` that came from `asker`: at most 1000 addresses and 23% of the book (but 16 in any
    /// case), the same for everybody on that network for about a day.
    pub fn answer(&mut self, now: Time, asker: &Host) -> &[Hearsay] {
        let network = asker.network();
        let of = self.entries.len();
        let stale = !self
            .answers
            .addresses
            .get(&network)
            .is_some_and(|kept| kept.serves(now, of));
        if stale {
            let at = seconds(now);
            let tells =
                |entry: &Entry| entry.address.door == Door::Bitcoin && !entry.is_terrible(at);
            let told = self.sample(tells, MAX_ANSWER, |entry| Hearsay {
                address: entry.address,
                services: entry.services,
                last_seen: entry.last_seen,
            });
            let jitter = Duration::from_secs(self.random.random_range(0..KEEP_JITTER_S));
            let until = now + KEEP + jitter;
            self.answers
                .addresses
                .insert(network, Kept { until, of, told });
        }
        self.answers
            .addresses
            .get(&network)
            .map_or(&[], |kept| &kept.told)
    }

    /// The answer to a BTGETADDR that came from `asker`: relays that we have met (DSC-5), at most 100 and 23% of them (but 16 in any
    /// case), the same for everybody on that network for an hour.
    pub fn answer_relays(&mut self, now: Time, asker: &Host) -> &[RelayAddress] {
        let network = asker.network();
        let proven = Entry::is_proven;
        let of = self
            .entries
            .iter()
            .filter(|(_, entry)| proven(entry))
            .count();
        let stale = !self
            .answers
            .relays
            .get(&network)
            .is_some_and(|kept| kept.serves(now, of));
        if stale {
            let at = seconds(now);
            let tells = |entry: &Entry| proven(entry) && !entry.is_terrible(at);
            let told = self.sample(tells, MAX_RELAYS_ANSWER, |entry| RelayAddress {
                host: entry.address.host,
                control_port: entry.advert.map_or(0, |advert| advert.control_port),
                data_port: entry.advert.map_or(0, |advert| advert.data_port),
                services: entry.services,
                last_seen: entry.last_seen,
            });
            let until = now + KEEP_RELAYS;
            self.answers
                .relays
                .insert(network, Kept { until, of, told });
        }
        self.answers
            .relays
            .get(&network)
            .map_or(&[], |kept| &kept.told)
    }

    /// Some of the entries that suit, by lot.
    fn sample<T>(
        &mut self,
        tells: impl Fn(&Entry) -> bool,
        most: usize,
        tell: impl Fn(&Entry) -> T,
    ) -> Vec<T> {
        let suits = self.entries.iter().filter(|(_, entry)| tells(entry));
        let mut ids: Vec<usize> = suits.map(|(id, _)| id).collect();
        let part = ids.len() * MAX_ANSWER_PERCENT / 100;
        let count = part.max(LEAST).min(most).min(ids.len());
        for place in 0..count {
            let other = self.random.random_range(place..ids.len());
            ids.swap(place, other);
        }
        ids.truncate(count);
        let entries = ids.iter().filter_map(|id| self.entries.get(*id));
        entries.map(tell).collect()
    }
}
