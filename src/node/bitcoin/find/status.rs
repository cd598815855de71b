//! What operators may know of the search: the book, the connections of Bitcoin's protocol, and what was refused.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::p2p::ServiceFlags;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use tokio::sync::oneshot;

use crate::chain::addrbook::{Address, BookCounts, Door, Host, Record, Table};
use crate::chain::crawl::CrawlCounts;
use crate::chain::p2p::{Advert, Direction, PeerCommand, PeerInfo, PeerReport};
use crate::net::Direction as Initiator;
use crate::node::bitcoin::desk::Desk;
use crate::node::bitcoin::peers::{Kind, Peer, PeerNumber};
use crate::relay::Doors;
use crate::time::Time;

/// How long connections have to report of themselves.
const REPORT_TIME: Duration = Duration::from_secs(1);
/// Callers that wait for reports: as many as RPC lets in at once would wait for the same.
const MAX_WAITING: usize = 64;

/// A question of RPC to the desk.
#[derive(Debug)]
pub enum Query {
    /// Addresses of Bitcoin's protocol: so many at most (0: all), of one network if that is given.
    NodeAddresses {
        /// How many; 0: all.
        count: usize,
        /// BIP155's number of the network.
        network: Option<u8>,
        /// The answer.
        reply: oneshot::Sender<Vec<Record>>,
    },
    /// Relays that are known: those that were met, last met first, then those that say so themselves.
    Relays(oneshot::Sender<Vec<RelayKnown>>),
    /// Counts of the book by network, and of the search.
    Counts(oneshot::Sender<Box<FindCounts>>),
    /// The connections of Bitcoin's protocol.
    Peers(oneshot::Sender<Vec<P2pPeer>>),
    /// End a connection of Bitcoin's protocol; whether there was such.
    Disconnect(SocketAddr, oneshot::Sender<bool>),
}

/// A relay that is known.
#[derive(Clone, Copy, Debug)]
pub struct RelayKnown {
    /// What the book has.
    pub record: Record,
    /// Whether there is a session with it.
    pub connected: bool,
}

/// How much is known, and what is done.
#[derive(Clone, Debug, Default)]
pub struct FindCounts {
    /// Whether this node looks for others.
    pub is_on: bool,
    /// Addresses by network and table: BIP155's number, and how many in [`Table::ALL`]'s order.
    pub networks: Vec<(u8, [usize; 4])>,
    /// The book as a whole.
    pub book: BookCounts,
    /// Connections and dials.
    pub crawl: CrawlCounts,
    /// Where others reach this node: hosts, with the port of Bitcoin's protocol (0: none) and of control connections.
    pub ourselves: Vec<(std::net::IpAddr, u16, u16)>,
    /// Addresses that are discouraged.
    pub discouraged: usize,
    /// Peers that were let go for misbehaviour since the start.
    pub misbehaved: u64,
    /// Inbound connections that made room for others.
    pub evicted: u64,
    /// Connections of Bitcoin's protocol: inbound, and all.
    pub connections: (usize, usize),
    /// Sessions of this node's own choice, by their numbers.
    pub chosen: BTreeSet<u64>,
}

/// One connection of Bitcoin's protocol.
#[derive(Clone, Debug)]
pub struct P2pPeer {
    /// Its number among them.
    pub id: u64,
    /// The other end.
    pub remote: SocketAddr,
    /// Who dialled.
    pub direction: Direction,
    /// What it is to us, in Bitcoin Core's words.
    pub connection_type: &'static str,
    /// Which of the operator's nodes it is, if it is one.
    pub node: Option<usize>,
    /// When the connection was made, or begun to be.
    pub since: Time,
    /// What its handshake told, if that is done.
    pub info: Option<PeerInfo>,
    /// Its height, as far as it told.
    pub height: Option<u32>,
    /// What it reports of itself.
    pub report: PeerReport,
    /// Its services by name.
    pub services: Vec<&'static str>,
}

/// Reports that are being gathered for callers.
#[derive(Debug, Default)]
pub struct Gathering {
    /// Whose report is awaited.
    missing: BTreeSet<PeerNumber>,
    waiting: Vec<oneshot::Sender<Vec<P2pPeer>>>,
    until: Option<Time>,
}

impl Gathering {
    /// A connection has reported, or has ended.
    pub fn forget(&mut self, number: PeerNumber) {
        self.missing.remove(&number);
    }

    /// When to wait no longer.
    pub fn deadline(&self) -> Option<Time> {
        self.until
    }
}

/// Adds the relays in session of which the book has nothing: those that the operator names stay out of it.
fn add_sessions(
    known: &mut Vec<RelayKnown>,
    open: impl Iterator<Item = (SocketAddr, Initiator, Doors)>,
    now: u32,
) {
    for (remote, initiator, doors) in open {
        let port = match initiator {
            Initiator::Outbound => remote.port(),
            Initiator::Inbound => doors.control_port,
        };
        let host = Host::from(remote.ip());
        let is_it = |relay: &RelayKnown| {
            relay
                .record
                .control()
                .is_some_and(|control| (control.host, control.port) == (host, port))
        };
        if port == 0 || known.iter().any(is_it) {
            continue;
        }
        let advert = Advert {
            version: doors.version,
            control_port: port,
            data_port: doors.data_port,
        };
        let record = Record {
            address: Address {
                host,
                port,
                door: Door::Control,
            },
            services: 0,
            advert: Some(advert),
            met: now,
            table: Table::Proven,
            last_seen: now,
            last_try: now,
            last_success: now,
            failures: 0,
        };
        known.push(RelayKnown {
            record,
            connected: true,
        });
    }
}

/// Names of the services that Bitcoin Core names, and of ours.
fn service_names(services: u64, flag: u64) -> Vec<&'static str> {
    let named = [
        (ServiceFlags::NETWORK.to_u64(), "NETWORK"),
        (ServiceFlags::BLOOM.to_u64(), "BLOOM"),
        (ServiceFlags::WITNESS.to_u64(), "WITNESS"),
        (ServiceFlags::COMPACT_FILTERS.to_u64(), "COMPACT_FILTERS"),
        (ServiceFlags::NETWORK_LIMITED.to_u64(), "NETWORK_LIMITED"),
        (ServiceFlags::P2P_V2.to_u64(), "P2P_V2"),
        (flag, "BLOCKTORRENT"),
    ];
    let set = named.into_iter().filter(|(bit, _)| services & bit != 0);
    set.map(|(_, name)| name).collect()
}

fn connection_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Node(_) => "manual",
        Kind::Relay => "block-relay-only",
        Kind::Gossip => "outbound-full-relay",
        Kind::Feeler => "feeler",
        Kind::Inbound => "inbound",
    }
}

impl Desk {
    /// Answers a question of RPC. The asker may have left.
    pub fn on_query(&mut self, query: Query) {
        match query {
            Query::NodeAddresses {
                count,
                network,
                reply,
            } => drop(reply.send(self.node_addresses(count, network))),
            Query::Relays(reply) => drop(reply.send(self.known_relays())),
            Query::Counts(reply) => drop(reply.send(Box::new(self.find_counts()))),
            Query::Peers(reply) => self.gather_reports(reply),
            Query::Disconnect(address, reply) => {
                let found = self.peers.iter().find(|(_, peer)| peer.remote == address);
                let number = found.map(|(number, _)| number);
                let was_there = number.is_some_and(|number| {
                    let why = "by an operator";
                    self.peers.send(number, PeerCommand::Disconnect(why))
                });
                reply.send(was_there).ok();
            }
        }
    }

    fn node_addresses(&self, count: usize, network: Option<u8>) -> Vec<Record> {
        let suits = |record: &Record| {
            record.address.door == Door::Bitcoin
                && network.is_none_or(|network| record.address.host.network() == network)
        };
        let records = self.finder.crawl.book().records().filter(suits);
        let mut records: Vec<Record> = records.collect();
        let mut random: StdRng = rand::make_rng();
        if count == 0 || count >= records.len() {
            records.shuffle(&mut random);
            return records;
        }
        records.sample(&mut random, count).copied().collect()
    }

    fn known_relays(&self) -> Vec<RelayKnown> {
        let sessions = &self.finder.sessions;
        let doors: BTreeSet<(Host, u16)> = sessions
            .values()
            .flat_map(|view| {
                let host = Host::from(view.remote.ip());
                [(host, view.remote.port()), (host, view.doors.control_port)]
            })
            .collect();
        let known = self.finder.crawl.book().records().filter_map(|record| {
            let control = record.control()?;
            Some(RelayKnown {
                record,
                connected: doors.contains(&(control.host, control.port)),
            })
        });
        let mut known: Vec<RelayKnown> = known.collect();
        let now = u32::try_from(self.now().as_unix_seconds()).unwrap_or(u32::MAX);
        let open = sessions.values();
        let open = open.map(|view| (view.remote, view.direction, view.doors));
        add_sessions(&mut known, open, now);
        known.sort_by_key(|it| {
            let met = std::cmp::Reverse(it.record.met);
            (met, it.record.advert.is_none(), it.record.address)
        });
        known
    }

    fn find_counts(&self) -> FindCounts {
        let finder = &self.finder;
        let book = finder.crawl.book();
        let mut networks = std::collections::BTreeMap::<u8, [usize; 4]>::new();
        for record in book.records() {
            let tables = networks.entry(record.address.host.network()).or_default();
            let place = Table::ALL.iter().position(|table| *table == record.table);
            if let Some(count) = place.and_then(|place| tables.get_mut(place)) {
                *count += 1;
            }
        }
        let ports = finder.ports;
        let addresses = finder.ourselves.addresses().into_iter();
        let inbound = self.peers.iter().filter(|(_, it)| it.kind == Kind::Inbound);
        FindCounts {
            is_on: finder.options.is_on,
            networks: networks.into_iter().collect(),
            book: book.counts(),
            crawl: finder.crawl.counts(),
            ourselves: addresses
                .map(|ip| (ip, ports.bitcoin, ports.control))
                .collect(),
            discouraged: finder.discouraged.len(),
            misbehaved: finder.discouraged.count(),
            evicted: finder.evicted,
            connections: (inbound.count(), self.peers.iter().count()),
            chosen: finder.chosen.iter().map(|it| it.as_number()).collect(),
        }
    }

    /// Asks every connection for its report; the caller is answered when all have come, or most in time.
    fn gather_reports(&mut self, reply: oneshot::Sender<Vec<P2pPeer>>) {
        let now = self.now();
        let gathering = &mut self.finder.reports;
        gathering.waiting.retain(|waiting| !waiting.is_closed());
        if gathering.waiting.len() >= MAX_WAITING {
            return;
        }
        gathering.waiting.push(reply);
        if gathering.until.is_some() {
            return;
        }
        gathering.until = Some(now + REPORT_TIME);
        let all: Vec<PeerNumber> = self.peers.ready().map(|(number, _)| number).collect();
        for number in all {
            if self.peers.send(number, PeerCommand::Report) {
                self.finder.reports.missing.insert(number);
            }
        }
    }

    /// A connection reports of itself.
    pub fn on_report_of(&mut self, number: PeerNumber, report: PeerReport) {
        if let Some(peer) = self.peers.get_mut(number) {
            peer.report = report;
        }
        self.finder.reports.forget(number);
    }

    /// Answers those who wait for reports, if all are there or it is time.
    pub(super) fn finish_reports(&mut self, now: Time) {
        let gathering = &mut self.finder.reports;
        let is_over = gathering.until.is_some_and(|until| until <= now);
        if gathering.until.is_none() || !(is_over || gathering.missing.is_empty()) {
            return;
        }
        let waiting = std::mem::take(gathering).waiting;
        let flag = self.dialler.identity.flag;
        let peers = self
            .peers
            .iter()
            .map(|(number, peer)| view(number, peer, flag));
        let peers: Vec<P2pPeer> = peers.collect();
        for reply in waiting {
            reply.send(peers.clone()).ok();
        }
    }
}

fn view(number: PeerNumber, peer: &Peer, flag: u64) -> P2pPeer {
    let services = peer.info.as_ref().map_or(0, |info| info.services);
    P2pPeer {
        id: number.0,
        remote: peer.remote,
        direction: match peer.kind {
            Kind::Inbound => Direction::Inbound,
            _ => Direction::Outbound,
        },
        connection_type: connection_type(peer.kind),
        node: match peer.kind {
            Kind::Node(node) => Some(node),
            _ => None,
        },
        since: peer.since,
        info: peer.info.clone(),
        height: peer.best.map(|(_, height)| height),
        report: peer.report.clone(),
        services: service_names(services, flag),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_in_session_is_known_though_the_book_has_nothing_of_it() {
        let doors = |control_port| Doors {
            version: 1,
            data_port: 7,
            control_port,
            bitcoin_port: 0,
        };
        let at = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let mut known = Vec::new();
        let open = [
            (at(5), Initiator::Outbound, doors(0)),
            (at(50_000), Initiator::Inbound, doors(6)),
            // The same relay once more, and one that does not say where it is.
            (at(50_001), Initiator::Inbound, doors(5)),
            (at(50_002), Initiator::Inbound, doors(0)),
        ];
        add_sessions(&mut known, open.into_iter(), 9);
        let ports: Vec<u16> = known
            .iter()
            .filter(|relay| relay.connected && relay.record.met == 9)
            .filter_map(|relay| Some(relay.record.control()?.port))
            .collect();
        assert_eq!(ports, [5, 6]);
    }
}
