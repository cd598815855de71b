//! The address book: where other nodes are to be found, and which of them are relays like us.
//!
//! ```text
//!                         answered, no flag                      met
//!   heard of ──▶ New ────────────────────────▶ Tried ──────────────────────▶ Proven
//!                Claimed ────────────────────▶ (with its advert, if it        │
//!                (they say "flag")             gave one)  ◀── flag gone ──────┘
//! ```
//!
//! A service bit is a claim: anybody can set it, for anybody, at no cost. What a node says of itself by Bitcoin's
//! protocol ([`Advert`]) says where to knock. Only a session of the relay's own protocol is a fact. So claims have a
//! table of their own, where whoever told them (a [`Group`] of addresses) reaches only a part of the places and,
//! when one is picked, has no more weight than any other source, less if its claims came to nothing. What we have
//! seen ourselves is never displaced by hearsay, and only by what else we have seen after being tried once more.
//!
//! The rest follows Bitcoin Core's address manager: buckets by a secret key, up to eight places for one address of
//! hearsay, two hours off the age of gossip, forgetting what is stale or never answers, answers to others that are
//! a sample kept for a day.
//!
//! What this is not: a list of connections, or the decision to dial (that is `chain::crawl`). It reads no clock and
//! draws from the seed that it was given.

mod address;
mod answer;
mod entry;
mod file;
mod intake;
mod observed;
mod pick;
mod places;
mod standing;
mod tables;

use std::collections::BTreeMap;

use bitcoin::p2p::ServiceFlags;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use slab::Slab;

pub use address::{Address, Door, Group, Host, Locality, Networks, Source};
pub use answer::RelayAddress;
pub use entry::Table;
pub use file::{BookError, MAX_FILE_BYTES};
pub use intake::{Hearsay, Intake};
pub use pick::{InUse, Pick, Want};

use crate::chain::p2p::Advert;
use crate::time::Time;
use answer::Answers;
use entry::{Entry, Waits};
use places::{Key, Places};
use standing::{Evidence, Standings};

/// Most places that one address of hearsay has (Bitcoin Core's `ADDRMAN_NEW_BUCKETS_PER_ADDRESS`).
///
/// Reason: what many tell of shall not be lost with one bucket, and shall not fill the table either.
pub const MAX_SOURCES: usize = 8;
/// Most groups whose standing as a source is remembered.
///
/// Reason: more groups than an attacker of some means holds at once; the file and a pass over all stay small.
pub const MAX_STANDINGS: usize = 1024;
/// Most addresses that wait to take the place of one that is tested first (as in Bitcoin Core).
///
/// Reason: each costs a feeler, one in two minutes, and is given up after 40 minutes.
pub const MAX_COLLISIONS: usize = 10;
/// Most addresses in the book.
///
/// Reason: the places of all tables together; each address has at least one.
pub const MAX_ENTRIES: usize = Table::New.capacity()
    + Table::Claimed.capacity()
    + Table::Tried.capacity()
    + Table::Proven.capacity();

/// Someone in the tables of facts who answered within four hours stays, as in Bitcoin Core.
const FRESH_S: u32 = 4 * 3600;
/// A newcomer that waited so long takes the place untested, as in Bitcoin Core: 40 minutes.
const TEST_WINDOW_S: u32 = 40 * 60;
/// Time that a test of the incumbent may take, as in Bitcoin Core.
const TEST_S: u32 = 60;

/// What a book is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BookRules {
    /// The service bit of this project, as a mask.
    pub flag: u64,
    /// Whether only public addresses are kept.
    pub locality: Locality,
    /// The networks that we can dial.
    pub reachable: Networks,
}

/// What is known of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where.
    pub address: Address,
    /// Its services: as claimed by anybody, or as observed once it has answered.
    pub services: u64,
    /// Where it says that its control stream is, if it said so itself.
    pub advert: Option<Advert>,
    /// When it was last met as a relay, in Unix seconds; 0: never.
    pub met: u32,
    /// Which table it is in.
    pub table: Table,
    /// When it was last seen by anybody, in Unix seconds.
    pub last_seen: u32,
    /// When it was last tried, in Unix seconds; 0: never.
    pub last_try: u32,
    /// When it last answered, in Unix seconds; 0: never.
    pub last_success: u32,
    /// Failures since, while others did answer.
    pub failures: u8,
}

impl Record {
    /// Where its control stream is, if that is known.
    pub fn control(&self) -> Option<Address> {
        match (self.address.door, self.advert) {
            (Door::Control, _) => Some(self.address),
            (Door::Bitcoin, Some(advert)) => {
                Some(self.address.with_control_port(advert.control_port))
            }
            (Door::Bitcoin, None) => None,
        }
    }
}

/// How many addresses there are of each kind, and what was refused since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BookCounts {
    /// Heard of without the flag.
    pub new: usize,
    /// Said to have the flag.
    pub claimed: usize,
    /// Have answered.
    pub tried: usize,
    /// Have proven themselves.
    pub proven: usize,
    /// What was refused of hearsay.
    pub intake: Intake,
    /// Claims that were found untrue.
    pub refuted: u64,
}

/// The address book.
pub struct Book {
    rules: BookRules,
    key: Key,
    waits: Waits,
    random: StdRng,
    entries: Slab<Entry>,
    index: BTreeMap<Address, usize>,
    /// From the control streams that were told by Bitcoin's protocol to whoever told; one entry each.
    controls: BTreeMap<Address, usize>,
    places: [Places; 4],
    standings: Standings,
    /// Newcomers whose place in a table of facts is taken.
    collisions: Vec<Address>,
    answers: Answers,
    /// When anybody answered last.
    any_success: u32,
    intake: Intake,
    refuted: u64,
}

impl Book {
    /// An empty book. The seed also makes the key of its places: it must be secret, and new for every book.
    pub fn new(rules: BookRules, seed: [u8; 32]) -> Self {
        let mut random = StdRng::from_seed(seed);
        let key = Key(random.random());
        Self::with_key(rules, key, random)
    }

    fn with_key(rules: BookRules, key: Key, random: StdRng) -> Self {
        Self {
            rules,
            key,
            waits: Waits::new(rules.locality),
            random,
            entries: Slab::new(),
            index: BTreeMap::new(),
            controls: BTreeMap::new(),
            places: Table::ALL.map(Places::new),
            standings: Standings::default(),
            collisions: Vec::new(),
            answers: Answers::default(),
            any_success: 0,
            intake: Intake::default(),
            refuted: 0,
        }
    }

    /// What the book is for.
    pub const fn rules(&self) -> &BookRules {
        &self.rules
    }

    /// Addresses in the book.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is known of an address.
    pub fn record(&self, address: &Address) -> Option<Record> {
        self.find(address).map(|(_, entry)| record(entry))
    }

    /// What is known of every address, in no order that means anything.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        self.entries.iter().map(|(_, entry)| record(entry))
    }

    /// How much is known. Takes a pass over the book.
    pub fn counts(&self) -> BookCounts {
        let mut counts = BookCounts {
            intake: self.intake,
            refuted: self.refuted,
            ..BookCounts::default()
        };
        for (_, entry) in &self.entries {
            *match entry.table {
                Table::New => &mut counts.new,
                Table::Claimed => &mut counts.claimed,
                Table::Tried => &mut counts.tried,
                Table::Proven => &mut counts.proven,
            } += 1;
        }
        counts
    }

    fn id_of(&self, address: &Address) -> Option<usize> {
        self.index
            .get(address)
            .or_else(|| self.controls.get(address))
            .copied()
    }

    fn find(&self, address: &Address) -> Option<(usize, &Entry)> {
        let id = self.id_of(address)?;
        Some((id, self.entries.get(id)?))
    }

    fn find_mut(&mut self, address: &Address) -> Option<&mut Entry> {
        let id = self.id_of(address)?;
        self.entries.get_mut(id)
    }

    fn note(&mut self, sources: &[Group], evidence: Evidence, now: u32) {
        for source in sources {
            self.standings.note(*source, evidence, now);
        }
    }
}

fn record(entry: &Entry) -> Record {
    Record {
        address: entry.address,
        services: entry.services,
        advert: entry.advert,
        met: entry.met,
        table: entry.table,
        last_seen: entry.last_seen,
        last_try: entry.last_try,
        last_success: entry.last_success,
        failures: entry.failures,
    }
}

/// Whether a node with these services keeps an address book worth asking (as Bitcoin Core sees it).
fn keeps_addresses(services: u64) -> bool {
    let full = ServiceFlags::NETWORK.to_u64() | ServiceFlags::NETWORK_LIMITED.to_u64();
    services & full != 0
}

/// Unix seconds, good until 2106.
fn seconds(time: Time) -> u32 {
    u32::try_from(time.as_unix_seconds()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
