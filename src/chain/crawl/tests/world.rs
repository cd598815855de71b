//! A network in virtual time: ordinary nodes that gossip as Bitcoin Core does, and relays that each run a
//! [`Crawl`].
//!
//! An ordinary node keeps what it hears, answers `getaddr` with a sample that it keeps for a day, and passes a
//! fresh, short announcement on to two peers, once a day for an address. It knows nothing of relays.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::super::*;
use crate::chain::addrbook::{BookRules, Door, Host, Networks};

pub const FLAG: u64 = 1 << 30;
/// NODE_NETWORK and NODE_WITNESS.
pub const PLAIN: u64 = 0x9;
const DAY: Duration = Duration::from_secs(86_400);
const CONTROL: u16 = 8433;
const RULES: BookRules = BookRules {
    flag: FLAG,
    locality: Locality::Public,
    reachable: Networks::IP,
};

pub fn start() -> Time {
    Time::from_unix_seconds(1_700_000_000)
}

fn node_address(number: usize) -> Address {
    let [a, b] = (0x0b00 + number as u16).to_be_bytes();
    Address {
        host: Host::Ipv4([a, b, 7, 7]),
        port: 8333,
        door: Door::Bitcoin,
    }
}

fn relay_address(number: usize) -> Address {
    node_address(0x2000 + number)
}

/// An ordinary node.
#[derive(Default)]
struct Node {
    known: BTreeMap<Address, Hearsay>,
    peers: Vec<usize>,
    /// Relays that are connected to it, by their connection.
    guests: Vec<(usize, ConnectionKey)>,
    answer: Option<(Time, Vec<Hearsay>)>,
    passed_on: BTreeMap<Address, Time>,
}

#[derive(Clone, Copy)]
enum Remote {
    Node(usize),
    /// A relay, and its name for the connection if it has one.
    Relay(usize, Option<ConnectionKey>),
}

pub struct Relay {
    pub crawl: Crawl,
    pub up: bool,
    config: CrawlConfig,
    connections: BTreeMap<ConnectionKey, (Remote, Address)>,
    saved: Vec<u8>,
    pub seeded: u32,
    pub dials_at: Vec<Time>,
    pub asked: BTreeMap<ConnectionKey, u32>,
}

enum Event {
    Wake(usize),
    Dialled(usize, Address, Purpose),
    ToNode(usize, Hearsay),
    ToRelay(usize, ConnectionKey, Vec<Hearsay>),
    Hangup(usize, ConnectionKey),
}

pub struct World {
    pub now: Time,
    events: BinaryHeap<Reverse<(Time, u64)>>,
    due: BTreeMap<u64, Event>,
    next: u64,
    nodes: Vec<Node>,
    pub relays: Vec<Relay>,
    random: StdRng,
    /// Nodes and relays with numbers of different parity cannot reach each other.
    pub parted: bool,
}

impl World {
    /// So many ordinary nodes, each with eight peers and a hundred addresses; so many relays, each of which knows
    /// one ordinary node.
    pub fn new(nodes: usize, relays: usize, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut world = Self {
            now: start(),
            events: BinaryHeap::new(),
            due: BTreeMap::new(),
            next: 0,
            nodes: (0..nodes).map(|_| Node::default()).collect(),
            relays: Vec::new(),
            random: StdRng::seed_from_u64(random.random()),
            parted: false,
        };
        for number in 0..nodes {
            for _ in 0..8.min(nodes - 1) {
                let peer = random.random_range(0..nodes);
                if peer != number {
                    world.nodes[number].peers.push(peer);
                    world.nodes[peer].peers.push(number);
                }
            }
            for _ in 0..100.min(nodes) {
                let address = node_address(random.random_range(0..nodes));
                let told = hearsay(address, PLAIN, start());
                world.nodes[number].known.insert(address, told);
            }
        }
        for number in 0..relays {
            let config = CrawlConfig {
                dns_seeds: false,
                fixed_seeds: false,
                ..CrawlConfig::new(crate::chain::Network::Main)
            };
            let book = Book::new(RULES, random.random());
            let mut crawl = Crawl::new(start(), config, book, random.random());
            let first = node_address(random.random_range(0..nodes));
            crawl.heard(start(), Source::Fixed, [hearsay(first, PLAIN, start())]);
            world.relays.push(Relay {
                crawl,
                up: true,
                config,
                connections: BTreeMap::new(),
                saved: Vec::new(),
                seeded: 0,
                dials_at: Vec::new(),
                asked: BTreeMap::new(),
            });
            let delay = Duration::from_secs(random.random_range(0..60));
            world.after(delay, Event::Wake(number));
        }
        world
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.events.push(Reverse((self.now + delay, self.next)));
        self.due.insert(self.next, event);
        self.next += 1;
    }

    fn after_ms(&mut self, delay: std::ops::Range<u64>, event: Event) {
        let delay = Duration::from_millis(self.random.random_range(delay));
        self.after(delay, event);
    }

    /// Runs until `done` holds, asked once after each event; how long it took, if it came to that within `limit`.
    pub fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Option<Duration> {
        let begun = self.now;
        while !done(self) {
            let Reverse((at, number)) = self.events.pop()?;
            if at.since(begun) > limit {
                self.events.push(Reverse((at, number)));
                return None;
            }
            self.now = at;
            if let Some(event) = self.due.remove(&number) {
                self.handle(event);
            }
        }
        Some(self.now.since(begun))
    }

    /// Whether every relay that is up is connected to every other one.
    pub fn all_meet(&self) -> bool {
        let up: Vec<usize> = (0..self.relays.len())
            .filter(|one| self.relays[*one].up)
            .collect();
        up.iter().all(|one| {
            let mut met: Vec<usize> = self.relays[*one]
                .connections
                .values()
                .filter_map(|(remote, address)| match remote {
                    Remote::Relay(other, _) if address.door == Door::Control => Some(*other),
                    _ => None,
                })
                .collect();
            met.sort_unstable();
            met.dedup();
            met.len() + 1 >= up.len()
        })
    }

    pub fn dials(&self) -> Vec<u64> {
        self.relays
            .iter()
            .map(|relay| relay.crawl.counts().dials)
            .collect()
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake(relay) => self.turn(relay),
            Event::Dialled(relay, address, purpose) => {
                self.dialled(relay, address, purpose);
                self.turn(relay);
            }
            Event::ToNode(node, told) => self.node_hears(node, told),
            Event::ToRelay(relay, key, told) => {
                if let Some((_, address)) = self.relays[relay].connections.get(&key) {
                    let source = Source::Peer(*address);
                    self.relays[relay].crawl.heard(self.now, source, told);
                    self.turn(relay);
                }
            }
            Event::Hangup(relay, key) => {
                self.hang_up(relay, key);
                self.turn(relay);
            }
        }
    }

    /// Does what a relay wants done.
    fn turn(&mut self, relay: usize) {
        if !self.relays[relay].up {
            return;
        }
        while let Some(action) = self.relays[relay].crawl.poll(self.now) {
            self.act(relay, action);
        }
        if let Some(at) = self.relays[relay].crawl.deadline() {
            let delay = at.since(self.now).max(Duration::from_millis(1));
            self.after(delay, Event::Wake(relay));
        }
    }

    fn act(&mut self, relay: usize, action: Action) {
        match action {
            Action::Dial { address, purpose } => {
                let now = self.now;
                self.relays[relay].dials_at.push(now);
                let dialled = Event::Dialled(relay, address, purpose);
                if self.reaches(relay, &address).is_some() {
                    self.after_ms(50..300, dialled);
                } else {
                    self.after(Duration::from_secs(5), dialled);
                }
            }
            Action::AskAddresses(key) => self.ask(relay, key),
            Action::AnnounceSelf(key) => {
                let own = hearsay(relay_address(relay), PLAIN | FLAG, self.now);
                if let Some((Remote::Node(node), _)) = self.relays[relay].connections.get(&key) {
                    let node = *node;
                    self.after_ms(20..100, Event::ToNode(node, own));
                }
            }
            Action::TellOf { to, relay: of } => {
                let to = self.relays[relay].connections.get(&to);
                if let Some((Remote::Relay(other, Some(theirs)), _)) = to {
                    let event = Event::ToRelay(*other, *theirs, vec![of.into()]);
                    self.after_ms(20..100, event);
                }
            }
            Action::Drop(key, _) => self.hang_up(relay, key),
            Action::Save => self.relays[relay].saved = self.relays[relay].crawl.book().encode(),
            Action::SeedFromDns | Action::SeedFixed | Action::AskNode => {
                self.relays[relay].seeded += 1;
            }
        }
    }

    fn reaches(&self, from: usize, address: &Address) -> Option<Remote> {
        let Host::Ipv4([a, b, 7, 7]) = address.host else {
            return None;
        };
        let number = usize::from(u16::from_be_bytes([a, b])).checked_sub(0x0b00)?;
        let is_node = number < self.nodes.len() && address.port == 8333;
        let relay = number.checked_sub(0x2000);
        let remote = match relay {
            None if is_node => Remote::Node(number),
            Some(relay) if self.relays.get(relay)?.up => Remote::Relay(relay, None),
            _ => return None,
        };
        let same_side = (number ^ from).is_multiple_of(2);
        (same_side || !self.parted).then_some(remote)
    }

    fn dialled(&mut self, relay: usize, address: Address, purpose: Purpose) {
        let now = self.now;
        let remote = self.reaches(relay, &address);
        let key = self.next;
        self.next += 1;
        let own = &mut self.relays[relay];
        if !own.up || !own.crawl.connections.dialling.contains_key(&address) {
            return; // It was restarted meanwhile.
        }
        match (remote, purpose) {
            (None, _) => return own.crawl.dial_failed(now, &address),
            (Some(Remote::Relay(other, _)), _) if other == relay => {
                return own.crawl.ourself(now, &address);
            }
            (Some(Remote::Node(node)), _) => {
                own.connections.insert(key, (Remote::Node(node), address));
                own.crawl.p2p_ready(now, key, &address, PLAIN, None);
                self.nodes[node].guests.push((relay, key));
            }
            (Some(Remote::Relay(other, _)), Purpose::Relay) => {
                let theirs = self.next;
                self.next += 1;
                own.connections
                    .insert(key, (Remote::Relay(other, Some(theirs)), address));
                own.crawl.relay_ready(now, key, &address, 1, CONTROL);
                let from = Address {
                    port: 50_000,
                    door: Door::Control,
                    ..relay_address(relay)
                };
                let host = &mut self.relays[other];
                host.connections
                    .insert(theirs, (Remote::Relay(relay, Some(key)), from));
                host.crawl.relay_joined(now, theirs, Origin::Inbound, from);
                self.after(Duration::ZERO, Event::Wake(other));
            }
            (Some(Remote::Relay(other, _)), _) => {
                own.connections
                    .insert(key, (Remote::Relay(other, None), address));
                let advert = Advert {
                    version: 1,
                    control_port: CONTROL,
                    data_port: CONTROL,
                };
                own.crawl
                    .p2p_ready(now, key, &address, PLAIN | FLAG, Some(advert));
            }
        }
        if let Purpose::Feeler { ask_addresses } = purpose {
            if ask_addresses {
                self.ask(relay, key);
            }
            self.after(Duration::from_millis(500), Event::Hangup(relay, key));
        }
    }

    fn ask(&mut self, relay: usize, key: ConnectionKey) {
        let Some((remote, address)) = self.relays[relay].connections.get(&key).copied() else {
            return;
        };
        *self.relays[relay].asked.entry(key).or_default() += 1;
        let asker = relay_address(relay).host;
        let told = match remote {
            Remote::Node(node) => self.node_answers(node),
            Remote::Relay(other, _) => {
                let book = self.relays[other].crawl.book_mut();
                if address.door == Door::Control {
                    let relays = book.answer_relays(self.now, &asker).iter();
                    relays.copied().map(Hearsay::from).collect()
                } else {
                    book.answer(self.now, &asker).to_vec()
                }
            }
        };
        self.after_ms(50..200, Event::ToRelay(relay, key, told));
    }

    fn node_answers(&mut self, node: usize) -> Vec<Hearsay> {
        let (now, random) = (self.now, &mut self.random);
        let node = &mut self.nodes[node];
        if node.answer.as_ref().is_none_or(|(until, _)| now >= *until) {
            let mut all: Vec<Hearsay> = node.known.values().copied().collect();
            let count = all.len() * 23 / 100;
            let told = (0..count).map(|_| all.swap_remove(random.random_range(0..all.len())));
            node.answer = Some((now + DAY, told.collect()));
        }
        node.answer
            .as_ref()
            .map(|(_, told)| told.clone())
            .unwrap_or_default()
    }

    fn node_hears(&mut self, number: usize, told: Hearsay) {
        let node = &mut self.nodes[number];
        node.known.insert(told.address, told);
        let now = self.now;
        let age = now.since(Time::from_unix_seconds(told.last_seen.into()));
        let passed = node.passed_on.get(&told.address);
        if age > Duration::from_secs(600) || passed.is_some_and(|at| now.since(*at) < DAY) {
            return;
        }
        node.passed_on.insert(told.address, now);
        let own = |guest: &&(usize, ConnectionKey)| relay_address(guest.0) != told.address;
        let peers = node.peers.iter().map(|peer| Event::ToNode(*peer, told));
        let guests = node.guests.iter().filter(own);
        let guests = guests.map(|(relay, key)| Event::ToRelay(*relay, *key, vec![told]));
        let mut to: Vec<Event> = peers.chain(guests).collect();
        for _ in 0..2.min(to.len()) {
            let event = to.swap_remove(self.random.random_range(0..to.len()));
            self.after_ms(100..30_000, event);
        }
    }

    fn hang_up(&mut self, relay: usize, key: ConnectionKey) {
        let now = self.now;
        let Some((remote, _)) = self.relays[relay].connections.remove(&key) else {
            return;
        };
        self.relays[relay].crawl.closed(now, key);
        match remote {
            Remote::Node(node) => self.nodes[node]
                .guests
                .retain(|guest| *guest != (relay, key)),
            Remote::Relay(other, Some(theirs)) => {
                if self.relays[other].connections.remove(&theirs).is_some() {
                    self.relays[other].crawl.closed(now, theirs);
                    self.after(Duration::ZERO, Event::Wake(other));
                }
            }
            Remote::Relay(_, None) => {}
        }
    }

    /// Cuts the network in two, connections too; or mends it.
    pub fn part(&mut self, parted: bool) {
        self.parted = parted;
        for relay in 0..self.relays.len() {
            let cut = |(_, (remote, _)): &(&ConnectionKey, &(Remote, Address))| match remote {
                Remote::Node(other) | Remote::Relay(other, _) => (other ^ relay) % 2 == 1,
            };
            let open = self.relays[relay].connections.iter();
            let cut: Vec<ConnectionKey> = open.filter(cut).map(|(key, _)| *key).collect();
            if parted {
                cut.into_iter().for_each(|key| self.hang_up(relay, key));
            }
            self.after(Duration::ZERO, Event::Wake(relay));
        }
    }

    pub fn stop(&mut self, relay: usize) {
        let keys: Vec<ConnectionKey> = self.relays[relay].connections.keys().copied().collect();
        keys.into_iter().for_each(|key| self.hang_up(relay, key));
        self.relays[relay].saved = self.relays[relay].crawl.book().encode();
        self.relays[relay].up = false;
    }

    /// Starts a relay again with the book that it saved.
    pub fn restart(&mut self, relay: usize) {
        let seed = self.random.random();
        let own = &mut self.relays[relay];
        let book = Book::decode(&own.saved, RULES, seed).expect("what it saved");
        own.crawl = Crawl::new(self.now, own.config, book, seed);
        own.up = true;
        self.after(Duration::ZERO, Event::Wake(relay));
    }
}

pub fn hearsay(address: Address, services: u64, now: Time) -> Hearsay {
    Hearsay {
        address,
        services,
        last_seen: now.as_unix_seconds() as u32,
    }
}
