//! Whom to dial, ask and let go next, so that relays find one another among ten thousands of ordinary nodes.
//!
//! ```text
//!   gossip, DNS seeds, fixed seeds, our node ──▶ Book ──▶ claims ──▶ feeler: is the flag true? ──▶ advert
//!        ▲                                        │                                                  │
//!        └── 2 slots for ordinary peers ◀─────────┘                     8 slots for relays ◀─────────┘
//!            (asked once, then listened to;                             (by their control stream)
//!             one is exchanged now and then)
//! ```
//!
//! The owner tells what happened (a dial ended, a peer is ready, addresses came), then takes actions from
//! [`Crawl::poll`] until there is none, and calls again at [`Crawl::deadline`] or after the next event. Every
//! [`Action::Dial`] is answered once: by [`Crawl::p2p_ready`] or [`Crawl::relay_ready`], or else by
//! [`Crawl::dial_failed`], [`Crawl::not_a_relay`] or [`Crawl::ourself`].
//!
//! Nodes that the operator named are asked first, each once, however much others claim.
//!
//! Polite: a peer is asked for addresses once, dials come one after another at a bounded rate, a group of
//! addresses is dialled once at a time, and where little is to be found the search slows down.
//!
//! What this is not: connections. It holds none, and it reads no clock.

mod config;
mod connections;
mod decide;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

pub use config::{CrawlConfig, MAX_SLOTS};

use crate::chain::addrbook::{
    Address, Book, Hearsay, InUse, Intake, Locality, RelayAddress, Source,
};
use crate::chain::p2p::Advert;
use crate::time::Time;
use connections::{Connection, Connections, Kind};
use decide::Timers;

/// Most addresses of our own that are remembered.
///
/// Reason: a machine has few; more would let whoever echoes our nonce from many addresses fill memory.
pub const MAX_OWN: usize = 32;

/// Most relays of which it is remembered that our peers were told of them.
///
/// Reason: more than are found in a day; whoever is forgotten is told of once more.
pub const MAX_TOLD: usize = 1024;
/// After so long relays are told once more of one that is still there: a day, as with gossip.
const TELL_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// The owner's name for a connection.
pub type ConnectionKey = u64;

/// What to dial an address for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To speak the relay's protocol: the address is that of a control stream.
    Relay,
    /// To be told addresses, now and whenever there are new ones, by Bitcoin's protocol.
    Gossip,
    /// To see who answers by Bitcoin's protocol, and hang up.
    Feeler {
        /// Whether to ask for addresses before hanging up.
        ask_addresses: bool,
    },
}

/// Why a connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Somebody else is asked for a change.
    Exchanged,
    /// Enough relays were found.
    NotNeeded,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Dial.
    Dial {
        /// Where; [`Address::door`] says which protocol.
        address: Address,
        /// What for.
        purpose: Purpose,
    },
    /// Ask the peer for addresses: BTGETADDR if it is a relay, else `getaddr`. Comes once for a connection.
    AskAddresses(ConnectionKey),
    /// Tell the peer our own address.
    AnnounceSelf(ConnectionKey),
    /// Tell a relay of another that we have connected to (BTADDR): so those who met one meet all.
    TellOf {
        /// To whom.
        to: ConnectionKey,
        /// Of whom.
        relay: RelayAddress,
    },
    /// Close the connection.
    Drop(ConnectionKey, DropReason),
    /// Resolve the DNS seeds and hand what they say to [`Crawl::heard`].
    SeedFromDns,
    /// Hand the fixed seeds to [`Crawl::heard`].
    SeedFixed,
    /// Ask our own Bitcoin node for what it knows (`getnodeaddresses`), and hand that to [`Crawl::heard`].
    AskNode,
    /// Write the book to disk.
    Save,
}

/// Who began a connection that we did not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The peer.
    Inbound,
    /// The operator. Such peers stay out of the book, and so are told to nobody.
    Manual,
}

/// How many connections there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrawlCounts {
    /// To relays, by our choice.
    pub relays: usize,
    /// To relays, by theirs or the operator's.
    pub other_relays: usize,
    /// To ordinary peers, for their gossip.
    pub gossip: usize,
    /// For a moment.
    pub feelers: usize,
    /// Dials that have not ended.
    pub dialling: usize,
    /// Dials since the start.
    pub dials: u64,
}

/// Nodes named by the operator that wait to be dialled.
///
/// Reason: a few addresses of each name that may be given; what is beyond is in the book all the same.
const MAX_NAMED: usize = 256;

/// The machine that looks for relays.
pub struct Crawl {
    config: CrawlConfig,
    book: Book,
    connections: Connections,
    own: BTreeSet<Address>,
    /// Nodes that the operator named and that are not dialled yet: each is asked once, whatever else is known.
    named: VecDeque<Address>,
    /// Control streams that our relays were told of, and when.
    told: BTreeMap<Address, Time>,
    random: StdRng,
    timers: Timers,
    queue: VecDeque<Action>,
    dials: u64,
}

impl Crawl {
    /// Begins with what the book knows: the relays in it are tried first, and at once.
    pub fn new(now: Time, config: CrawlConfig, mut book: Book, seed: [u8; 32]) -> Self {
        book.forgive_relays();
        let mut random = StdRng::from_seed(seed);
        let timers = Timers::new(now, &config, random.random());
        Self {
            config,
            book,
            connections: Connections::default(),
            own: BTreeSet::new(),
            named: VecDeque::new(),
            told: BTreeMap::new(),
            random,
            timers,
            queue: VecDeque::new(),
            dials: 0,
        }
    }

    /// The book.
    pub const fn book(&self) -> &Book {
        &self.book
    }

    /// The book, to answer others from it.
    pub const fn book_mut(&mut self) -> &mut Book {
        &mut self.book
    }

    /// How many connections there are.
    pub fn counts(&self) -> CrawlCounts {
        CrawlCounts {
            relays: self.connections.count(Kind::Relay),
            other_relays: self.connections.count(Kind::Other),
            gossip: self.connections.count(Kind::Gossip),
            feelers: self.connections.count(Kind::Feeler),
            dialling: self.connections.dialling.len(),
            dials: self.dials,
        }
    }

    /// Addresses came, from a peer or elsewhere.
    pub fn heard(
        &mut self,
        now: Time,
        source: Source,
        told: impl IntoIterator<Item = Hearsay>,
    ) -> Intake {
        let told: Vec<Hearsay> = told.into_iter().collect();
        if source == Source::Operator {
            let room = MAX_NAMED.saturating_sub(self.named.len());
            self.named
                .extend(told.iter().take(room).map(|it| it.address));
        }
        let intake = self.book.heard(now, source, told);
        self.changed(now, self.config.save_interval);
        intake
    }

    /// A dial has led nowhere: nobody answered, or not usefully for now (a relay that is full).
    pub fn dial_failed(&mut self, now: Time, address: &Address) {
        self.connections.dialling.remove(address);
        self.book.failed(now, address);
        self.changed(now, self.config.save_interval);
    }

    /// Whoever answers the control stream does not speak the relay's protocol.
    pub fn not_a_relay(&mut self, now: Time, address: &Address) {
        self.connections.dialling.remove(address);
        self.book.refuted(now, address);
        self.changed(now, self.config.save_interval);
    }

    /// A dial has led to a relay with which there is a session already: by that it has shown itself, and the session
    /// stays what it is. `version`: of the relay's protocol.
    pub fn met_already(&mut self, now: Time, address: &Address, version: u16) {
        if self.connections.dialling.remove(address) != Some(Purpose::Relay) {
            return;
        }
        self.book.met(now, address, version, 0);
        let advert = self.book.record(address).and_then(|record| record.advert);
        let data_port = advert.map_or(0, |advert| advert.data_port);
        self.tell_of(now, address, data_port);
        self.changed(now, self.config.save_soon);
    }

    /// A dial was not made after all, for want of room on our side: nobody is to blame.
    pub fn not_dialled(&mut self, now: Time, address: &Address) {
        self.connections.dialling.remove(address);
        self.changed(now, self.config.save_interval);
    }

    /// Our own address is known now, or is another: who is told of it at all is told at once.
    pub fn own_address_changed(&mut self, now: Time) {
        for (_, connection) in self.connections.all_mut() {
            connection.announce_at = connection.announce_at.map(|_| now);
        }
    }

    /// A dial has led to ourselves.
    pub fn ourself(&mut self, now: Time, address: &Address) {
        self.connections.dialling.remove(address);
        if self.own.len() < MAX_OWN {
            self.own.insert(*address);
        }
        self.changed(now, self.config.save_interval);
    }

    /// The handshake of Bitcoin's protocol is done with a peer that we dialled. Its advert may still follow
    /// ([`Crawl::advertised`]); if it claims the flag and the connection ends without, the claim was false.
    pub fn p2p_ready(
        &mut self,
        now: Time,
        key: ConnectionKey,
        address: &Address,
        services: u64,
        advert: Option<Advert>,
    ) {
        let kind = match self.connections.dialling.remove(address) {
            Some(Purpose::Gossip) => Kind::Gossip,
            Some(Purpose::Feeler { .. }) => Kind::Feeler,
            Some(Purpose::Relay) | None => return,
        };
        self.book.reached(now, address, services);
        let mut connection = Connection::new(kind, Some(*address), now);
        connection.unproven = services & self.book.rules().flag != 0;
        connection.announce_at = (kind == Kind::Gossip && self.config.announce).then_some(now);
        self.connections.insert(key, connection);
        self.changed(now, self.config.save_interval);
        if let Some(advert) = advert {
            self.advertised(now, key, advert);
        }
    }

    /// A peer of Bitcoin's protocol has told where its control stream is.
    pub fn advertised(&mut self, now: Time, key: ConnectionKey, advert: Advert) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.unproven = false;
        if let Some(address) = connection.address {
            self.book.advertised(now, &address, advert);
            self.changed(now, self.config.save_interval);
        }
    }

    /// The handshake of the relay's protocol is done with a peer that we dialled.
    pub fn relay_ready(
        &mut self,
        now: Time,
        key: ConnectionKey,
        address: &Address,
        version: u16,
        data_port: u16,
    ) {
        if self.connections.dialling.remove(address) != Some(Purpose::Relay) {
            return;
        }
        self.book.met(now, address, version, data_port);
        let mut connection = Connection::new(Kind::Relay, Some(*address), now);
        connection.announce_at = self.config.announce.then_some(now);
        self.tell_of(now, address, data_port);
        self.connections.insert(key, connection);
        self.changed(now, self.config.save_soon);
    }

    /// Tells the relays that are connected of one more, unless they were told lately.
    fn tell_of(&mut self, now: Time, address: &Address, data_port: u16) {
        let lately = |told: &Time| now.since(*told) < TELL_AGAIN;
        if self.told.get(address).is_some_and(lately) {
            return;
        }
        self.told.retain(|_, told| lately(told));
        if self.told.len() < MAX_TOLD {
            self.told.insert(*address, now);
        }
        let record = self.book.record(address);
        let relay = RelayAddress {
            host: address.host,
            control_port: address.port,
            data_port,
            services: record.map_or(self.book.rules().flag, |record| record.services),
            last_seen: u32::try_from(now.as_unix_seconds()).unwrap_or(u32::MAX),
        };
        let others = self.connections.relays();
        self.queue
            .extend(others.map(|to| Action::TellOf { to, relay }));
    }

    /// A relay is connected that we did not choose. `address`: that of its control stream if it is known, else the
    /// other end; it takes no slot, but will not be dialled.
    pub fn relay_joined(
        &mut self,
        now: Time,
        key: ConnectionKey,
        origin: Origin,
        address: Address,
    ) {
        let mut connection = Connection::new(Kind::Other, Some(address), now);
        connection.by_host = origin == Origin::Inbound;
        // The operator's own peers are asked for addresses, as the chosen are; whoever came by themselves is not.
        connection.asked = origin == Origin::Inbound;
        self.connections.insert(key, connection);
        self.changed(now, self.config.save_interval);
    }

    /// A connection has ended.
    pub fn closed(&mut self, now: Time, key: ConnectionKey) {
        let Some(connection) = self.connections.remove(key) else {
            return;
        };
        if let (Some(address), true) = (connection.address, connection.kind != Kind::Other) {
            if connection.unproven {
                self.book.refuted(now, &address);
            }
            self.book.left(now, &address);
        }
        self.changed(now, self.config.save_interval);
    }

    /// What to do now; call until there is nothing.
    pub fn poll(&mut self, now: Time) -> Option<Action> {
        if self.queue.is_empty() {
            self.decide(now);
        }
        self.queue.pop_front()
    }

    /// When to call [`Crawl::poll`] again if nothing happens until then; known once it has returned `None`.
    pub const fn deadline(&self) -> Option<Time> {
        self.timers.wake
    }

    fn changed(&mut self, now: Time, save_within: Duration) {
        self.timers.look_again_at(now + self.config.dial_interval);
        let save = now + save_within;
        self.timers.save_at = Some(self.timers.save_at.map_or(save, |at| at.min(save)));
    }

    /// Whom not to dial as a relay.
    fn in_use_for_relays(&self) -> InUse {
        let mut in_use = self.in_use_always();
        for connection in self.connections.iter() {
            let Some(address) = connection.address else {
                continue;
            };
            match connection.kind {
                Kind::Relay => in_use.add(&address),
                Kind::Other if connection.by_host => self.add_host(&mut in_use, &address),
                Kind::Other => in_use.add(&address),
                Kind::Gossip | Kind::Feeler => {
                    // Unless it has turned out to be a relay: then its control stream is wanted.
                    let record = self.book.record(&address);
                    if record.is_none_or(|record| record.advert.is_none()) {
                        in_use.add_node(&address);
                    }
                }
            }
        }
        in_use
    }

    /// Whom not to dial by Bitcoin's protocol.
    fn in_use_for_strangers(&self) -> InUse {
        let mut in_use = self.in_use_always();
        for connection in self.connections.iter() {
            match (connection.address, connection.kind) {
                (Some(address), Kind::Gossip) => in_use.add(&address),
                (Some(address), Kind::Relay | Kind::Feeler | Kind::Other) => {
                    in_use.add_node(&address)
                }
                (None, _) => {}
            }
        }
        in_use
    }

    fn in_use_always(&self) -> InUse {
        let mut in_use = InUse::default();
        self.own.iter().for_each(|own| in_use.add_node(own));
        let dialling = self.connections.dialling.keys();
        dialling.for_each(|address| in_use.add(address));
        in_use
    }

    /// Whoever dialled us came from a port that says nothing: so the host is known. On one machine all have the
    /// same.
    fn add_host(&self, in_use: &mut InUse, address: &Address) {
        match self.book.rules().locality {
            Locality::Public => in_use.add_host(&address.host),
            Locality::Local => in_use.add_node(address),
        }
    }
}

#[cfg(test)]
mod tests;
