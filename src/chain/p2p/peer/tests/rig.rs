//! Two peers joined by pipes, and a puppet that says anything.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::consensus::serialize;
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::address::Address;
use bitcoin::p2p::message_network::VersionMessage;
use bytes::Bytes;

use crate::chain::Network;
use crate::chain::p2p::kind::Kind;
use crate::chain::p2p::plain::Plain;
use crate::chain::p2p::transport::Received;
use crate::chain::p2p::*;
use crate::time::Time;

pub const START: Time = Time::from_unix_seconds(1_700_000_000);
/// NETWORK_LIMITED, WITNESS and the project's bit.
pub const SERVICES: u64 = 1 << 10 | 1 << 3 | FLAG;
pub const FLAG: u64 = 1 << 30;
pub const ADVERT: Advert = Advert {
    version: 1,
    control_port: 18_544,
    data_port: 18_545,
};

pub fn config(direction: Direction, role: Role, v2: V2) -> PeerConfig {
    PeerConfig {
        network: Network::Regtest,
        direction,
        role,
        services: SERVICES,
        flag: FLAG,
        agent: "/test:1/".into(),
        start_height: 7,
        advert: Some(ADVERT),
        nonce: match direction {
            Direction::Inbound => 1,
            Direction::Outbound => 2,
        },
        v2,
        relay_transactions: true,
        remote: SocketAddr::from(([127, 0, 0, 1], 18_444)),
    }
}

/// Two peers; bytes go over in pieces.
pub struct Pair {
    pub now: Time,
    /// Dialled.
    pub a: Peer,
    /// Was dialled.
    pub b: Peer,
    pub piece: usize,
    pub a_events: VecDeque<PeerEvent>,
    pub b_events: VecDeque<PeerEvent>,
}

impl Pair {
    pub fn new(a: PeerConfig, b: PeerConfig) -> Self {
        Self {
            now: START,
            a: Peer::new(a, START, [1; 32]),
            b: Peer::new(b, START, [2; 32]),
            piece: 1_000_000,
            a_events: VecDeque::new(),
            b_events: VecDeque::new(),
        }
    }

    /// Two who have greeted, of these roles.
    pub fn greeted(a: Role, b: Role, v2: bool) -> Self {
        let (try_, accept) = if v2 {
            (V2::Try, V2::Accept)
        } else {
            (V2::Off, V2::Off)
        };
        let mut pair = Self::new(
            config(Direction::Outbound, a, try_),
            config(Direction::Inbound, b, accept),
        );
        pair.run();
        assert!(matches!(
            pair.a_events.pop_front(),
            Some(PeerEvent::Ready(_))
        ));
        assert!(matches!(
            pair.b_events.pop_front(),
            Some(PeerEvent::Ready(_))
        ));
        pair
    }

    /// Carries bytes until there are none; at each end of a connection the other learns of it.
    pub fn run(&mut self) {
        loop {
            let moved = carry(&mut self.a, &mut self.b, self.piece, self.now);
            let moved = carry(&mut self.b, &mut self.a, self.piece, self.now) || moved;
            take(&mut self.a, &mut self.a_events);
            take(&mut self.b, &mut self.b_events);
            if !moved {
                break;
            }
        }
        if self.a.is_closed() {
            self.b.handle_closed(self.now, None);
        }
        if self.b.is_closed() {
            self.a.handle_closed(self.now, None);
        }
        take(&mut self.a, &mut self.a_events);
        take(&mut self.b, &mut self.b_events);
    }

    /// Lets time pass, deadline by deadline.
    pub fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        loop {
            let deadlines = [self.a.poll_deadline(), self.b.poll_deadline()];
            let next = deadlines.into_iter().flatten().min().unwrap_or(until);
            self.now = next.clamp(self.now, until);
            self.a.handle_timeout(self.now);
            self.b.handle_timeout(self.now);
            self.run();
            if self.now == until {
                return;
            }
        }
    }

    pub fn tell_a(&mut self, command: PeerCommand) {
        self.a.handle_command(self.now, command);
        self.run();
    }

    pub fn tell_b(&mut self, command: PeerCommand) {
        self.b.handle_command(self.now, command);
        self.run();
    }
}

fn carry(from: &mut Peer, to: &mut Peer, piece: usize, now: Time) -> bool {
    let mut moved = false;
    while let Some(bytes) = from.poll_output() {
        for piece in bytes.chunks(piece) {
            to.handle_bytes(now, piece);
        }
        moved = true;
    }
    moved
}

pub fn take(peer: &mut Peer, events: &mut VecDeque<PeerEvent>) {
    while let Some(event) = peer.poll_event() {
        events.push_back(event);
    }
}

/// Somebody at the other end of a peer, in the old transport.
pub struct Puppet {
    pub now: Time,
    pub peer: Peer,
    plain: Plain,
    pub events: VecDeque<PeerEvent>,
    pub heard: Vec<(Kind, Bytes)>,
}

impl Puppet {
    pub fn new(config: PeerConfig) -> Self {
        Self {
            now: START,
            peer: Peer::new(config, START, [3; 32]),
            plain: Plain::new(Network::Regtest),
            events: VecDeque::new(),
            heard: Vec::new(),
        }
    }

    /// One who has greeted, as a peer of this version.
    pub fn greeted(role: Role, version: u32) -> Self {
        Self::greeted_as(role, version, "/old:1\u{7}/")
    }

    /// The same, by this name.
    pub fn greeted_as(role: Role, version: u32, agent: &str) -> Self {
        let mut puppet = Self::new(config(Direction::Inbound, role, V2::Accept));
        let payload = version_of(version, SERVICES, 99, agent);
        puppet.say(Kind::Version, payload);
        puppet.say(Kind::Verack, vec![]);
        assert!(matches!(
            puppet.events.pop_front(),
            Some(PeerEvent::Ready(_))
        ));
        puppet.heard.clear();
        puppet
    }

    pub fn say(&mut self, kind: Kind, payload: impl Into<Bytes>) {
        let mut out = VecDeque::new();
        self.plain.encode(kind, payload.into(), &mut out);
        for bytes in out {
            self.peer.handle_bytes(self.now, &bytes);
        }
        self.listen();
    }

    pub fn tell(&mut self, command: PeerCommand) {
        self.peer.handle_command(self.now, command);
        self.listen();
    }

    pub fn pass(&mut self, duration: Duration) {
        self.now = self.now + duration;
        self.peer.handle_timeout(self.now);
        self.listen();
    }

    fn listen(&mut self) {
        take(&mut self.peer, &mut self.events);
        while let Some(bytes) = self.peer.poll_output() {
            self.plain.push(&bytes);
        }
        while let Received::Message(kind, payload) = self.plain.next() {
            self.heard.push((kind, payload));
        }
        take(&mut self.peer, &mut self.events);
    }

    pub fn heard_kinds(&mut self) -> Vec<Kind> {
        self.heard.drain(..).map(|(kind, _)| kind).collect()
    }

    pub fn refused(&mut self, refusal: Refusal) -> u64 {
        self.peer.handle_command(self.now, PeerCommand::Report);
        take(&mut self.peer, &mut self.events);
        let report = self.events.iter().rev().find_map(|event| match event {
            PeerEvent::Report(report) => Some(report),
            _ => None,
        });
        let refused = &report.expect("asked for").refused;
        let found = refused.iter().find(|(other, _)| *other == refusal);
        found.map_or(0, |(_, times)| *times)
    }

    /// Why the peer closed.
    pub fn closed(&self) -> Option<&CloseReason> {
        match self.events.back() {
            Some(PeerEvent::Closed(reason)) => Some(reason),
            _ => None,
        }
    }
}

pub fn version_payload(version: u32, services: u64, nonce: u64) -> Vec<u8> {
    version_of(version, services, nonce, "/old:1\u{7}/")
}

fn version_of(version: u32, services: u64, nonce: u64, agent: &str) -> Vec<u8> {
    let nobody = Address::new(&([0, 0, 0, 0], 0).into(), ServiceFlags::NONE);
    let mut message = VersionMessage::new(
        services.into(),
        START.as_unix_seconds() as i64 + 5,
        nobody.clone(),
        nobody,
        nonce,
        agent.into(),
        42,
    );
    message.version = version;
    message.relay = true;
    serialize(&message)
}
