//! Sessions of the relay's protocol, as the crawl sees them: dialled, up, down, and what they tell of others.

use std::net::SocketAddr;

use super::{Found, session_key};
use crate::chain::addrbook::{Address, Hearsay, Host, RelayAddress, Source};
use crate::chain::crawl::Origin;
use crate::net::dial::ConnectError;
use crate::net::{ConnectionId, Direction, Verdict};
use crate::node::bitcoin::desk::{Desk, Done};
use crate::node::engine::Command;
use crate::node::sessions::{AddressTalk, OpenSessions, SessionView};
use crate::relay::SessionId;
use crate::time::Time;
use crate::wire::{NetworkAddress, PROTOCOL_VERSION, PeerAddress};

/// A relay as BTADDR tells of it.
pub(super) fn to_wire(relay: RelayAddress) -> PeerAddress {
    PeerAddress {
        address: match relay.host {
            Host::Ipv4(bytes) => NetworkAddress::Ipv4(bytes),
            Host::Ipv6(bytes) => NetworkAddress::Ipv6(bytes),
            Host::TorV3(key) => NetworkAddress::TorV3(key),
            Host::I2p(key) => NetworkAddress::I2p(key),
            Host::Cjdns(bytes) => NetworkAddress::Cjdns(bytes),
        },
        tcp_port: relay.control_port,
        udp_port: relay.data_port,
        services: relay.services,
        last_seen: relay.last_seen,
    }
}

/// The other way round; `None` for networks that are gone, and where nothing listens.
fn from_wire(told: &PeerAddress) -> Option<RelayAddress> {
    let host = Host::from_bip155(told.address.network(), told.address.as_bytes())?;
    (told.tcp_port != 0).then_some(RelayAddress {
        host,
        control_port: told.tcp_port,
        data_port: told.udp_port,
        services: told.services,
        last_seen: told.last_seen,
    })
}

impl Desk {
    /// Dials a control stream; what becomes of it is told by the sessions, or when it ends.
    pub(super) fn dial_relay(&mut self, address: Address, remote: SocketAddr) {
        let hub = &self.finder.hub;
        let id = hub.next_id();
        let outcome = hub.dial(id, remote);
        self.finder.dials.insert(id, address);
        self.spawn(async move {
            let outcome = outcome.await.unwrap_or(Ok(Verdict::Ended));
            Done::Find(Found::RelayEnded(address, id, outcome))
        });
    }

    /// A control connection that we dialled has ended, or could not be made.
    pub(super) fn on_relay_ended(
        &mut self,
        address: Address,
        id: ConnectionId,
        outcome: &Result<Verdict, ConnectError>,
        now: Time,
    ) {
        if matches!(outcome, Ok(Verdict::Misbehaved))
            && let Some(remote) = address.to_socket()
        {
            self.finder.discouraged.note(remote.ip(), now);
        }
        // What was up is known to have ended by the list of sessions.
        if self.finder.dials.remove(&id).is_none() {
            return;
        }
        tracing::debug!(%address, ?outcome, "no session with a relay that was told of");
        let crawl = self.finder.tell();
        match outcome {
            Ok(Verdict::Never(_)) => crawl.ourself(now, &address),
            Ok(Verdict::Stranger(_)) => crawl.not_a_relay(now, &address),
            Ok(Verdict::Duplicate) => crawl.met_already(now, &address, PROTOCOL_VERSION),
            Ok(Verdict::NoRoom(_)) => crawl.not_dialled(now, &address),
            Ok(Verdict::Ended | Verdict::Refused(_) | Verdict::Misbehaved) | Err(_) => {
                crawl.dial_failed(now, &address);
            }
        }
    }

    /// Sessions have begun or ended.
    pub fn on_sessions(&mut self, open: OpenSessions) {
        let now = self.now();
        let before = std::mem::replace(&mut self.finder.sessions, open.clone());
        for session in before.keys().filter(|it| !open.contains_key(it)) {
            self.finder.chosen.remove(session);
            let key = session_key(session.as_number());
            self.finder.tell().closed(now, key);
        }
        for (session, view) in &open {
            if !before.contains_key(session) {
                self.on_session(*session, view, now);
            }
        }
    }

    fn on_session(&mut self, session: SessionId, view: &SessionView, now: Time) {
        let key = session_key(session.as_number());
        let doors = view.doors;
        if let Some(address) = self.finder.dials.remove(&view.connection) {
            self.finder.chosen.insert(session);
            let crawl = self.finder.tell();
            crawl.relay_ready(now, key, &address, doors.version, doors.data_port);
            return;
        }
        if !self.finder.options.is_on {
            return;
        }
        let (origin, port) = match view.direction {
            Direction::Outbound => (Origin::Manual, view.remote.port()),
            Direction::Inbound if doors.control_port == 0 => (Origin::Inbound, view.remote.port()),
            Direction::Inbound => (Origin::Inbound, doors.control_port),
        };
        let address = Address::control(SocketAddr::new(view.remote.ip(), port));
        self.finder.tell().relay_joined(now, key, origin, address);
        if view.direction == Direction::Inbound {
            self.hear_door(view.remote.ip(), doors.control_port, now);
        }
    }

    /// A relay has spoken of others.
    pub fn on_address_talk(&mut self, talk: AddressTalk) {
        let now = self.now();
        match talk {
            AddressTalk::Told(session, addresses) if self.finder.options.is_on => {
                let Some(view) = self.finder.sessions.get(&session) else {
                    return;
                };
                let source = Source::Peer(Address::control(view.remote));
                let told = addresses.iter().filter_map(from_wire).map(Hearsay::from);
                self.finder.tell().heard(now, source, told);
            }
            AddressTalk::Told(..) => {}
            AddressTalk::Asked(session) => {
                let Some(view) = self.finder.sessions.get(&session) else {
                    return;
                };
                let asker = Host::from(view.remote.ip());
                let book = self.finder.crawl.book_mut();
                let told = book.answer_relays(now, &asker).iter().copied();
                let told: Vec<PeerAddress> = told.map(to_wire).collect();
                self.command(Command::SendAddresses(session, told));
            }
        }
    }

    /// Asks a relay for others.
    pub(super) fn ask_relay(&self, number: u64) {
        if let Some(session) = self.session_of(number) {
            self.command(Command::AskAddresses(session));
        }
    }

    /// Tells a relay of others.
    pub(super) fn tell_relay(&self, number: u64, told: Vec<PeerAddress>) {
        if let Some(session) = self.session_of(number) {
            self.command(Command::SendAddresses(session, told));
        }
    }

    /// Tells a relay where this node is found, as far as that is known.
    pub(super) fn announce_to_relay(&self, number: u64, now: Time) {
        let (finder, services) = (&self.finder, self.dialler.identity.services);
        if finder.ports.control == 0 {
            return;
        }
        let addresses = finder.ourselves.addresses();
        let told = addresses.iter().map(|ip| PeerAddress {
            address: NetworkAddress::from(*ip),
            tcp_port: finder.ports.control,
            udp_port: finder.ports.data,
            services,
            last_seen: super::unix_seconds(now),
        });
        let told: Vec<PeerAddress> = told.collect();
        if !told.is_empty() {
            self.tell_relay(number, told);
        }
    }

    fn session_of(&self, number: u64) -> Option<SessionId> {
        let mut sessions = self.finder.sessions.keys();
        sessions.find(|it| it.as_number() == number).copied()
    }

    /// Tells the engine what needs no answer, without waiting for it.
    fn command(&self, command: Command) {
        let engine = self.shared.engine.clone();
        tokio::spawn(async move {
            // If the engine is gone, so are its sessions.
            engine.tell(command).await.ok();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relays_cross_the_wire_unchanged() {
        for host in [
            Host::Ipv4([1, 2, 3, 4]),
            Host::Ipv6([0x2a; 16]),
            Host::TorV3([7; 32]),
            Host::I2p([8; 32]),
            Host::Cjdns([0xfc; 16]),
        ] {
            let relay = RelayAddress {
                host,
                control_port: 8433,
                data_port: 8434,
                services: 9,
                last_seen: 1_700_000_000,
            };
            assert_eq!(from_wire(&to_wire(relay)), Some(relay));
            let silent = PeerAddress {
                tcp_port: 0,
                ..to_wire(relay)
            };
            assert_eq!(from_wire(&silent), None);
        }
        let gone = PeerAddress {
            address: NetworkAddress::TorV2([1; 10]),
            tcp_port: 1,
            udp_port: 1,
            services: 0,
            last_seen: 0,
        };
        assert_eq!(from_wire(&gone), None);
    }
}
