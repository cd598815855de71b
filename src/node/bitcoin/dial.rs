//! P2P connections made and taken. Each runs in a task of its own, which puts what it hears in the desk's queue.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::lookup_host;
use tokio::sync::mpsc;

use super::desk::{Desk, Done};
use super::ledger::NodeNumber;
use super::peers::Kind;
use crate::chain::p2p::connection::{self, Accepted, ConnectionId, Tally, Wiring};
use crate::chain::p2p::{Advert, CloseReason, Direction, PeerConfig, PeerEvent, Role, V2};

/// Who we are on Bitcoin's P2P network.
#[derive(Clone, Debug)]
pub struct Identity {
    /// What `version` claims.
    pub services: u64,
    /// The project's bit among them, as a mask.
    pub flag: u64,
    /// Name and version.
    pub agent: String,
    /// Where the relay's own protocol is spoken.
    pub advert: Advert,
    /// Tells a connection to ourselves.
    pub nonce: u64,
}

/// Makes connections.
#[derive(Debug)]
pub(super) struct Dialler {
    pub identity: Identity,
    pub events: mpsc::Sender<(ConnectionId, PeerEvent)>,
    pub tally: Arc<Tally>,
}

impl Desk {
    /// Dials one of the operator's nodes, once its name is looked up.
    pub fn dial_node(&mut self, node: NodeNumber, address: String) {
        self.spawn(async move {
            let found = lookup_host(&address).await;
            let address = match found.map(|mut found| found.next()) {
                Ok(Some(found)) => Ok(found),
                Ok(None) => Err(format!("{address}: no such host")),
                Err(error) => Err(format!("{address}: {error}")),
            };
            Done::LookedUp { node, address }
        });
    }

    /// The address of a node is known, or is not.
    pub fn on_looked_up(&mut self, node: NodeNumber, address: Result<SocketAddr, String>) {
        match address {
            // Without BIP324: whoever could listen between this node and that one could as well read their
            // memory, and a block of 2 MB is spared its encryption.
            Ok(address) => self.dial(Kind::Node(node), address, Role::OurNode, V2::Off),
            Err(reason) => self.redial_node(node, None, &CloseReason::Unreachable(reason)),
        }
    }

    /// Dials a peer; what becomes of it comes as events.
    pub fn dial(&mut self, kind: Kind, remote: SocketAddr, role: Role, v2: V2) {
        let config = self.config(Direction::Outbound, role, v2, remote);
        let id = self.peers.next_id();
        let connection = connection::dial(config, id, self.wiring());
        self.peers
            .add(connection, kind, remote, self.shared.clock.now());
    }

    /// Takes a connection that somebody made to us.
    pub fn on_arrival(&mut self, accepted: Accepted) {
        let remote = accepted.remote;
        let now = self.now();
        if !self.make_room(remote.ip(), now) {
            // With its socket the connection ends.
            return;
        }
        let config = self.config(Direction::Inbound, Role::Stranger, V2::Accept, remote);
        let id = self.peers.next_id();
        let connection = connection::serve(accepted, config, id, self.wiring());
        self.peers.add(connection, Kind::Inbound, remote, now);
    }

    fn wiring(&self) -> Wiring<impl Fn() -> crate::time::Time + Send + Sync + 'static> {
        let clock = self.shared.clock;
        Wiring {
            events: self.dialler.events.clone(),
            clock: move || clock.now(),
            tally: Arc::clone(&self.dialler.tally),
        }
    }

    fn config(&self, direction: Direction, role: Role, v2: V2, remote: SocketAddr) -> PeerConfig {
        let identity = &self.dialler.identity;
        PeerConfig {
            network: self.shared.network,
            direction,
            role,
            services: identity.services,
            flag: identity.flag,
            agent: identity.agent.clone(),
            start_height: self.shared.book.chain().height,
            advert: Some(identity.advert),
            nonce: identity.nonce,
            v2,
            relay_transactions: role == Role::OurNode,
            remote,
        }
    }
}
