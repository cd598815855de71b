//! Peers found: the crawl's decisions carried out, and what comes of them told to it.
//!
//! ```text
//!   P2P connections ── ready, addresses, closed ──▶ ┌───────┐ ── dial, ask, tell, drop ──▶ P2P connections
//!   sessions ───────── up, down, BTADDR ──────────▶ │ Crawl │ ── dial, BTGETADDR, BTADDR ▶ hub and engine
//!   DNS, seeds, bitcoind ── addresses ────────────▶ └───────┘ ── save ───────────────────▶ peers.dat
//! ```
//!
//! It is a part of the desk, since ordinary peers that are found are served like all others. A pick takes some
//! milliseconds when the book is full, once a second at most.
//!
//! - `file`: the book on disk; `seeds`: addresses from elsewhere; `relays`: sessions of the relay's protocol
//! - `ourselves`: what others are told of this node; `discouraged`, `evict`: who is not welcome, and who makes room
//! - `fellows`: blocks from other relays by Bitcoin's protocol; `status`: what operators may know

mod discouraged;
mod evict;
mod fellows;
pub(super) mod file;
mod ourselves;
mod relays;
mod room;
mod seeds;
mod status;

pub use fellows::CATCH_UP_ADVICE;
pub use ourselves::Ports;
pub use room::MAX_INBOUND;
pub use status::{FindCounts, P2pPeer, Query, RelayKnown};

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::desk::{Desk, Done};
use super::peers::{Kind, Peer, PeerNumber};
use crate::chain::Network;
use crate::chain::addrbook::{Address, BookRules, Door, Hearsay, Host, Locality, Networks, Source};
use crate::chain::crawl::{Action, ConnectionKey, Crawl, CrawlConfig, DropReason, Purpose};
use crate::chain::p2p::connection::ConnectionId as P2pId;
use crate::chain::p2p::{AddressRecord, Advert, CloseReason, PeerCommand, PeerEvent, Role, V2};
use crate::config::FindOptions;
use crate::net::dial::ConnectError;
use crate::net::{ConnectionId, ControlHub, Verdict};
use crate::node::engine::{Command, PeerName};
use crate::node::sessions::OpenSessions;
use crate::relay::SessionId;
use crate::time::Time;
use discouraged::Discouraged;
use fellows::Fellows;
use file::BookFile;
use ourselves::Ourselves;

/// Actions carried out before what came in meanwhile is taken: a turn stays short.
const MAX_ACTIONS: usize = 32;

/// What a task of the search has learnt.
#[derive(Debug)]
pub enum Found {
    /// Somebody told of addresses.
    Heard(Source, Vec<Hearsay>),
    /// The connection that was to be a session with this control stream has ended, or was never made.
    RelayEnded(Address, ConnectionId, Result<Verdict, ConnectError>),
    /// The book was written, or was not.
    Saved(Result<(), String>),
}

/// What the search is given.
#[derive(Debug)]
pub struct FindParts {
    /// What the operator wants.
    pub options: FindOptions,
    /// Where the book is kept.
    pub file: PathBuf,
    /// The ports at which this node is reached.
    pub ports: Ports,
    /// Where it listens.
    pub bound: Vec<SocketAddr>,
    /// Dials control connections.
    pub hub: ControlHub,
    /// Secret, and new at each start: for the book, for the crawl, and for the lots that protect some from eviction.
    pub seeds: ([u8; 32], [u8; 32], (u64, u64)),
}

/// The search for peers.
pub(super) struct Finder {
    options: FindOptions,
    crawl: Crawl,
    file: BookFile,
    hub: ControlHub,
    ports: Ports,
    ourselves: Ourselves,
    discouraged: Discouraged,
    fellows: Fellows,
    /// Control connections that are being dialled: to whom.
    dials: BTreeMap<ConnectionId, Address>,
    /// The sessions as they were when last looked at.
    sessions: OpenSessions,
    /// Sessions that were opened by the crawl's choice.
    chosen: BTreeSet<SessionId>,
    /// Something was told to the crawl: it may have something to do.
    is_news: bool,
    /// The book is being written, and whether it is to be written again then.
    saving: Option<bool>,
    /// The operator's nodes are to be asked as soon as one answers.
    asks_node: bool,
    /// Who waits for reports of connections.
    reports: status::Gathering,
    /// A secret that draws who is protected when somebody has to make room.
    lots: (u64, u64),
    /// Inbound connections that made room.
    evicted: u64,
}

impl std::fmt::Debug for Finder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Finder")
    }
}

/// What a connection is to the crawl: those of Bitcoin's protocol and those of the relay's have one row of names.
const fn p2p_key(number: PeerNumber) -> ConnectionKey {
    number.0 << 1
}

const fn session_key(number: u64) -> ConnectionKey {
    number << 1 | 1
}

/// The other way round.
enum Named {
    P2p(PeerNumber),
    Session(u64),
}

const fn named(key: ConnectionKey) -> Named {
    match key & 1 {
        0 => Named::P2p(P2pId(key >> 1)),
        _ => Named::Session(key >> 1),
    }
}

impl Finder {
    /// Reads the book and begins.
    pub fn start(parts: FindParts, network: Network, flag: u64, own_node: bool, now: Time) -> Self {
        let options = parts.options;
        let locality = match options.private_addresses {
            true => Locality::Local,
            false => Locality::Public,
        };
        let rules = BookRules {
            flag,
            locality,
            reachable: Networks::IP,
        };
        let (book_seed, crawl_seed, lots) = parts.seeds;
        let file = BookFile::new(parts.file);
        let book = file.load(rules, book_seed);
        let config = crawl_config(&options, network, own_node);
        let told = options.external_ips.clone();
        Self {
            crawl: Crawl::new(now, config, book, crawl_seed),
            file,
            hub: parts.hub,
            ports: parts.ports,
            ourselves: Ourselves::new(locality, told, &parts.bound),
            discouraged: Discouraged::default(),
            fellows: Fellows::default(),
            dials: BTreeMap::new(),
            sessions: OpenSessions::new(),
            chosen: BTreeSet::new(),
            is_news: true,
            saving: None,
            asks_node: false,
            reports: status::Gathering::default(),
            lots,
            evicted: 0,
            options,
        }
    }

    /// When to look again.
    pub fn deadline(&self, now: Time) -> Option<Time> {
        let crawl = match self.is_news {
            true => Some(now),
            false => self.crawl.deadline(),
        };
        let crawl = crawl.filter(|_| self.options.is_on);
        crawl
            .into_iter()
            .chain(self.fellows.deadline())
            .chain(self.reports.deadline())
            .min()
    }

    /// Whether an address is known to be our own.
    fn is_ourself(&self, address: &Address) -> bool {
        let port = match address.door {
            Door::Bitcoin => self.ports.bitcoin,
            Door::Control => self.ports.control,
        };
        let ours = self.ourselves.addresses();
        address.port == port && ours.iter().any(|ip| address.host == Host::from(*ip))
    }

    /// The crawl, to be told something.
    fn tell(&mut self) -> &mut Crawl {
        self.is_news = true;
        &mut self.crawl
    }
}

/// What the operator's wishes mean for the crawl.
fn crawl_config(options: &FindOptions, network: Network, own_node: bool) -> CrawlConfig {
    let usual = CrawlConfig::new(network);
    match options.is_on {
        true => CrawlConfig {
            relay_slots: usize::from(options.outbound_relays),
            gossip_slots: usize::from(options.outbound_nodes),
            dns_seeds: options.dns_seed,
            fixed_seeds: options.fixed_seeds,
            own_node,
            ..usual
        },
        false => CrawlConfig {
            relay_slots: 0,
            gossip_slots: 0,
            dns_seeds: false,
            fixed_seeds: false,
            announce: false,
            own_node: false,
            ..usual
        },
    }
}

impl Desk {
    /// Carries out what the crawl has decided, if it is its turn.
    pub fn find(&mut self, now: Time) {
        self.seek_fellows(now);
        self.finish_reports(now);
        if self.finder.asks_node {
            self.ask_node();
        }
        let due = self.finder.crawl.deadline().is_some_and(|at| at <= now);
        if !self.finder.options.is_on || !(self.finder.is_news || due) {
            return;
        }
        self.finder.is_news = false;
        for _ in 0..MAX_ACTIONS {
            let Some(action) = self.finder.crawl.poll(now) else {
                return;
            };
            self.act(action, now);
        }
        // The rest follows when the others have had their turn.
        self.finder.is_news = true;
    }

    fn act(&mut self, action: Action, now: Time) {
        match action {
            Action::Dial { address, purpose } => self.dial_found(address, purpose, now),
            Action::AskAddresses(key) => match named(key) {
                Named::P2p(number) => {
                    self.peers.send(number, PeerCommand::GetAddresses);
                }
                Named::Session(number) => self.ask_relay(number),
            },
            Action::AnnounceSelf(key) => match named(key) {
                Named::P2p(number) => self.announce_self(number, now),
                Named::Session(number) => self.announce_to_relay(number, now),
            },
            Action::TellOf { to, relay } => {
                if let Named::Session(number) = named(to) {
                    self.tell_relay(number, vec![relays::to_wire(relay)]);
                }
            }
            Action::Drop(key, reason) => self.drop_found(key, reason),
            Action::SeedFromDns => self.seed_from_dns(),
            Action::SeedFixed => self.seed_fixed(now),
            Action::AskNode => self.finder.asks_node = true,
            Action::Save => self.save_book(),
        }
    }

    fn dial_found(&mut self, address: Address, purpose: Purpose, now: Time) {
        let Some(remote) = address.to_socket() else {
            self.finder.tell().dial_failed(now, &address);
            return;
        };
        if self.finder.is_ourself(&address) {
            self.finder.tell().ourself(now, &address);
            return;
        }
        if self.finder.discouraged.has(remote.ip(), now) {
            self.finder.tell().dial_failed(now, &address);
            return;
        }
        match purpose {
            Purpose::Relay => self.dial_relay(address, remote),
            Purpose::Gossip => {
                self.dial(Kind::Gossip, remote, Role::Stranger, V2::Try);
            }
            Purpose::Feeler { ask_addresses } => {
                let role = Role::Feeler { ask_addresses };
                self.dial(Kind::Feeler, remote, role, V2::Try);
            }
        }
    }

    fn drop_found(&mut self, key: ConnectionKey, reason: DropReason) {
        let why = match reason {
            DropReason::Exchanged => "exchanged for another",
            DropReason::NotNeeded => "not needed",
        };
        match named(key) {
            Named::P2p(number) => {
                self.peers.send(number, PeerCommand::Disconnect(why));
            }
            Named::Session(number) => {
                let engine = self.shared.engine.clone();
                tokio::spawn(async move {
                    let peer = PeerName::Number(number);
                    let ended = engine.ask(|reply| Command::Disconnect { peer, reply });
                    // If the engine is gone, so is the session.
                    ended.await.ok();
                });
            }
        }
    }

    /// Tells a peer of Bitcoin's protocol where this node is found, if that is known.
    fn announce_self(&mut self, number: PeerNumber, now: Time) {
        let finder = &self.finder;
        let Some(peer) = self.peers.get(number) else {
            return;
        };
        if finder.ports.bitcoin == 0 {
            return;
        }
        if let Some(ip) = finder.ourselves.address_for(peer.remote.ip()) {
            let record = AddressRecord {
                last_seen: unix_seconds(now),
                services: self.dialler.identity.services,
                address: SocketAddr::new(ip, finder.ports.bitcoin),
            };
            let command = PeerCommand::SendAddresses(vec![record]);
            self.peers.send(number, command);
        }
    }

    /// A task of the search has learnt something.
    pub fn on_found(&mut self, found: Found) {
        let now = self.now();
        match found {
            Found::Heard(source, told) => {
                let intake = self.finder.tell().heard(now, source, told);
                tracing::debug!(
                    ?source,
                    added = intake.added,
                    known = intake.known,
                    "addresses"
                );
            }
            Found::RelayEnded(address, id, outcome) => {
                self.on_relay_ended(address, id, &outcome, now);
            }
            Found::Saved(outcome) => {
                if let Err(error) = outcome {
                    let file = self.finder.file.path().display();
                    tracing::warn!(%file, error, "the address book can't be written");
                }
                if self.finder.saving.take() == Some(true) {
                    self.save_book();
                }
            }
        }
    }

    /// Writes the book, in a thread where that holds up nobody; one at a time.
    fn save_book(&mut self) {
        if let Some(again) = &mut self.finder.saving {
            *again = true;
            return;
        }
        self.finder.saving = Some(false);
        let bytes = self.finder.crawl.book().encode();
        let writing = self.finder.file.writing(bytes);
        self.spawn(async move {
            let written = tokio::task::spawn_blocking(writing).await;
            Done::Find(Found::Saved(match written {
                Ok(written) => written.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            }))
        });
    }

    /// Writes the book for the last time.
    pub async fn close_book(&mut self) {
        let bytes = self.finder.crawl.book().encode();
        let writing = self.finder.file.writing(bytes);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(writing).await {
            let file = self.finder.file.path().display();
            tracing::warn!(%file, %error, "the address book can't be written");
        }
    }

    /// What a peer says about addresses and about itself.
    pub fn on_discovery(&mut self, number: PeerNumber, event: PeerEvent) {
        let Some(peer) = self.peers.get(number) else {
            return;
        };
        let (kind, remote, now) = (peer.kind, peer.remote, self.now());
        match event {
            PeerEvent::Addresses(records) if self.finder.options.is_on => {
                let source = match kind {
                    Kind::Node(_) => Source::OurNode,
                    _ => Source::Peer(Address::bitcoin(remote)),
                };
                let told = records.into_iter().map(Hearsay::from);
                self.finder.tell().heard(now, source, told);
            }
            PeerEvent::WantsAddresses => self.answer_addresses(number, remote.ip(), now),
            PeerEvent::Advertised(advert) => self.on_advert(number, kind, remote.ip(), advert),
            _ => {}
        }
    }

    fn answer_addresses(&mut self, number: PeerNumber, asker: IpAddr, now: Time) {
        let book = self.finder.crawl.book_mut();
        let told = book.answer(now, &asker.into()).iter().filter_map(|told| {
            Some(AddressRecord {
                last_seen: told.last_seen,
                services: told.services,
                address: told.address.to_socket()?,
            })
        });
        let records: Vec<AddressRecord> = told.collect();
        if !records.is_empty() {
            let command = PeerCommand::SendAddresses(records);
            self.peers.send(number, command);
        }
    }

    /// A peer says where its control stream is.
    fn on_advert(&mut self, number: PeerNumber, kind: Kind, ip: IpAddr, advert: Advert) {
        let now = self.now();
        match kind {
            Kind::Gossip | Kind::Feeler => {
                let key = p2p_key(number);
                self.finder.tell().advertised(now, key, advert);
            }
            // The port of a connection that was made to us says nothing; that of its control stream does.
            Kind::Inbound => self.hear_door(ip, advert.control_port, now),
            Kind::Node(_) | Kind::Relay => {}
        }
    }

    /// Somebody says of itself that it has a control stream.
    fn hear_door(&mut self, ip: IpAddr, control_port: u16, now: Time) {
        if control_port == 0 || !self.finder.options.is_on {
            return;
        }
        let address = Address::control(SocketAddr::new(ip, control_port));
        let told = Hearsay {
            address,
            services: 0,
            last_seen: unix_seconds(now),
        };
        self.finder.tell().heard(now, Source::Peer(address), [told]);
    }

    /// The handshake with a peer is done.
    pub fn on_discovery_ready(&mut self, number: PeerNumber) {
        let now = self.now();
        let Some(peer) = self.peers.get(number) else {
            return;
        };
        let Some(info) = &peer.info else {
            return;
        };
        let (kind, remote) = (peer.kind, peer.remote);
        let (services, advert, sees_us_at) = (info.services, info.advert, info.sees_us_at);
        let address = Address::bitcoin(remote);
        match kind {
            Kind::Gossip | Kind::Feeler => {
                let key = p2p_key(number);
                let crawl = self.finder.tell();
                crawl.p2p_ready(now, key, &address, services, advert);
                if let Some(ip) = sees_us_at
                    && self.finder.ourselves.seen(ip, &address)
                {
                    let ours = self.finder.ourselves.addresses();
                    tracing::info!(?ours, "others see this node at");
                    self.finder.tell().own_address_changed(now);
                    self.announce_to_nodes(now);
                }
            }
            Kind::Inbound => {
                if let Some(advert) = advert {
                    self.on_advert(number, kind, remote.ip(), advert);
                }
            }
            Kind::Node(_) if self.finder.options.is_on => self.announce_self(number, now),
            Kind::Node(_) | Kind::Relay => {}
        }
    }

    /// The operator's nodes pass on where this one is found.
    fn announce_to_nodes(&mut self, now: Time) {
        let is_node = |kind| matches!(kind, Kind::Node(_));
        let nodes = self.peers.ready().filter(|(_, peer)| is_node(peer.kind));
        let nodes: Vec<PeerNumber> = nodes.map(|(number, _)| number).collect();
        for number in nodes {
            self.announce_self(number, now);
        }
    }

    /// A connection of Bitcoin's protocol has ended that was none to a node of the operator.
    pub fn on_discovery_closed(&mut self, number: PeerNumber, peer: &Peer, reason: &CloseReason) {
        let now = self.now();
        let address = Address::bitcoin(peer.remote);
        if matches!(peer.kind, Kind::Gossip | Kind::Feeler) {
            let is_ready = peer.info.is_some();
            let crawl = self.finder.tell();
            match reason {
                CloseReason::OurselfNonce => crawl.ourself(now, &address),
                _ if is_ready => crawl.closed(now, p2p_key(number)),
                _ => crawl.dial_failed(now, &address),
            }
        }
        if peer.kind == Kind::Inbound && *reason == CloseReason::OurselfNonce {
            self.note_ourself(now);
        }
        if matches!(reason, CloseReason::Misbehaved(_)) {
            self.finder.discouraged.note(peer.remote.ip(), now);
        }
        if peer.kind == Kind::Relay {
            let met = peer.info.is_some();
            self.finder.fellows.closed(peer.remote, met, now);
        }
        self.finder.reports.forget(number);
    }

    /// We have dialled ourselves. The end that was dialled is the one that notices; the other is among the dials to
    /// the port that we listen on.
    fn note_ourself(&mut self, now: Time) {
        let is_it = |peer: &Peer| {
            matches!(peer.kind, Kind::Gossip | Kind::Feeler)
                && peer.info.is_none()
                && peer.remote.port() == self.finder.ports.bitcoin
        };
        let dials = self.peers.iter().filter(|(_, peer)| is_it(peer));
        let ours: Vec<Address> = dials.map(|(_, it)| Address::bitcoin(it.remote)).collect();
        // Of several nobody knows which; the others are tried again.
        if let [address] = ours.as_slice() {
            self.finder.tell().ourself(now, address);
        }
    }
}

fn unix_seconds(now: Time) -> u32 {
    u32::try_from(now.as_unix_seconds()).unwrap_or(u32::MAX)
}
