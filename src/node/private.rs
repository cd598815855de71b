//! The private links as the engine's thread sees them: which datagram goes over which link, and under what address.
//!
//! The engine names a private peer by an address that no socket has ([`crate::net::quic::link`]). Whatever
//! it sends there goes over the peer's newest link; what a link brings comes from there. The port is the engine's own
//! affair: the one that the peer told in its handshake, which stands for nothing here.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::net::{ConnectionId, PrivateLink};

/// The port of a private peer before its handshake has told one. It is not 0, which says that a peer takes no
/// datagrams.
const FIRST_PORT: u16 = 1;

/// One peer: at most a connection from each side, and dead ones that nobody has noticed.
#[derive(Debug)]
struct Peer {
    port: u16,
    /// The newest last.
    links: Vec<(ConnectionId, PrivateLink)>,
}

/// All private links with a session.
#[derive(Debug, Default)]
pub struct PrivateLinks {
    peers: BTreeMap<IpAddr, Peer>,
    /// By connection: the address of its peer.
    connections: BTreeMap<ConnectionId, IpAddr>,
}

impl PrivateLinks {
    /// Where the engine is told that the other end of a link is.
    pub fn address(link: &PrivateLink) -> SocketAddr {
        SocketAddr::new(link.address(), FIRST_PORT)
    }

    /// A link has a session.
    pub fn insert(&mut self, id: ConnectionId, link: PrivateLink) {
        let ip = link.address();
        let peer = self.peers.entry(ip).or_insert_with(|| Peer {
            port: FIRST_PORT,
            links: Vec::new(),
        });
        peer.links.push((id, link));
        self.connections.insert(id, ip);
    }

    /// The session of a link is up: this is where the engine's datagrams go from now on, and so where the peer's
    /// come from.
    pub fn set_port(&mut self, id: ConnectionId, port: u16) {
        let ip = self.connections.get(&id);
        if let Some(peer) = ip.and_then(|ip| self.peers.get_mut(ip)) {
            peer.port = port;
        }
    }

    /// The session of a link has ended.
    pub fn remove(&mut self, id: ConnectionId) {
        let Some(ip) = self.connections.remove(&id) else {
            return;
        };
        if let Some(peer) = self.peers.get_mut(&ip) {
            peer.links.retain(|(other, _)| *other != id);
            if peer.links.is_empty() {
                self.peers.remove(&ip);
            }
        }
    }

    /// Where the datagrams of a link come from.
    pub fn source(&self, id: ConnectionId) -> Option<SocketAddr> {
        let ip = self.connections.get(&id)?;
        let port = self.peers.get(ip)?.port;
        Some(SocketAddr::new(*ip, port))
    }

    /// Sends a datagram to a private peer. Without a link it is lost, as it would be on a network.
    pub fn send(&self, to: IpAddr, datagram: &[u8]) {
        if let Some((_, link)) = self.peers.get(&to).and_then(|peer| peer.links.last()) {
            link.send(datagram);
        }
    }

    /// The link of a connection.
    pub fn link(&self, id: ConnectionId) -> Option<&PrivateLink> {
        let peer = self.peers.get(self.connections.get(&id)?)?;
        let (_, link) = peer.links.iter().find(|(other, _)| *other == id)?;
        Some(link)
    }
}
