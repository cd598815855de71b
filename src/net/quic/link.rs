//! Datagrams of a private link, and the address under which the engine knows its peer.
//!
//! The engine names paths by socket addresses. A private peer gets one that no socket can have: in `ff00::/8`,
//! IPv6 multicast, with 120 bits of the peer's fingerprint behind it. No packet has such a source (RFC 4291 2.7; the
//! system drops those that claim it), [`UdpPort`](crate::net::UdpPort) sends to none, and whoever drives the
//! engine refuses them besides. So nothing from outside can pass for a private peer, nothing meant for one can leave
//! in the clear, and two connections of one peer have one address, as the engine expects of a peer.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use quinn::{Connection, SendDatagramError};
use tokio::sync::mpsc;

use crate::config::Fingerprint;
use crate::net::control::ConnectionId;
use crate::wire::DEFAULT_MAX_DATAGRAM;

/// Batches of datagrams that wait for the engine's thread, from all private links: 64 of [`MAX_BATCH`] with 1,420
/// bytes are 3 MB. Each connection waits for its turn with one, so that a flood of one holds up no other.
pub const MAX_BATCHES: usize = 64;

/// Datagrams in a batch: as many as come together at high rates, and few enough for a short turn of the engine.
pub const MAX_BATCH: usize = 32;

/// Datagrams that a private link has brought.
#[derive(Debug)]
pub struct PrivateDatagrams {
    /// The connection.
    pub id: ConnectionId,
    /// The datagrams, in the order in which they came; 1 to [`MAX_BATCH`].
    pub datagrams: Vec<Bytes>,
}

/// Whether an address stands for a private peer, and for no place on the network.
pub fn is_private(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_multicast())
}

/// The address that stands for the holder of a key.
fn address_of(key: &Fingerprint) -> IpAddr {
    let mut octets = [0xff; 16];
    for (octet, byte) in octets.iter_mut().skip(1).zip(key.0) {
        *octet = byte;
    }
    Ipv6Addr::from(octets).into()
}

/// What links have done with datagrams, together.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) too_large: AtomicU64,
    pub(super) no_room: AtomicU64,
}

/// The datagrams of one private link, towards the peer. Clones are the same link.
#[derive(Clone, Debug)]
pub struct PrivateLink {
    connection: Connection,
    key: Fingerprint,
    counts: Arc<Counts>,
}

impl PrivateLink {
    pub(super) fn new(connection: Connection, key: Fingerprint, counts: Arc<Counts>) -> Self {
        Self {
            connection,
            key,
            counts,
        }
    }

    /// The key that the peer has proven to hold.
    pub fn key(&self) -> Fingerprint {
        self.key
    }

    /// The IP address that stands for the peer; see the module's text. Its port means nothing.
    pub fn address(&self) -> IpAddr {
        address_of(&self.key)
    }

    /// Where the peer is on the network, as a [`canonical`](crate::net::canonical) address.
    pub fn remote(&self) -> SocketAddr {
        crate::net::canonical(self.connection.remote_address())
    }

    /// Sends a datagram, or drops and counts it, as the network would: if it is larger than a packet takes, or if
    /// too much waits already. The lock taken is that of the connection, which holds it for a few packets at most.
    pub fn send(&self, datagram: &[u8]) {
        let fits = self.connection.max_datagram_size().filter(|most| {
            // A link that can't carry all may carry none: see the text of `quic`.
            *most >= usize::from(DEFAULT_MAX_DATAGRAM) && datagram.len() <= *most
        });
        if fits.is_none() {
            self.counts.too_large.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // `quinn` would make room by dropping the oldest, which the engine has sent first for a reason.
        if self.connection.datagram_send_buffer_space() < datagram.len() {
            self.counts.no_room.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let counter = match self
            .connection
            .send_datagram(Bytes::copy_from_slice(datagram))
        {
            Ok(()) => &self.counts.sent,
            Err(SendDatagramError::ConnectionLost(_)) => &self.counts.no_room,
            Err(_) => &self.counts.too_large,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Hands what the peer sends to the engine's thread, until the connection ends or nobody takes it.
    pub(super) async fn receive(&self, id: ConnectionId, to: &mpsc::Sender<PrivateDatagrams>) {
        while let Ok(first) = self.connection.read_datagram().await {
            let mut datagrams = vec![first];
            while datagrams.len() < MAX_BATCH {
                let more = tokio::select! {
                    biased;
                    more = self.connection.read_datagram() => more,
                    () = std::future::ready(()) => break,
                };
                match more {
                    Ok(datagram) => datagrams.push(datagram),
                    Err(_) => break,
                }
            }
            let count = datagrams.len() as u64;
            self.counts.received.fetch_add(count, Ordering::Relaxed);
            if to.send(PrivateDatagrams { id, datagrams }).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_private_peers_are_those_of_no_host() {
        let key = Fingerprint(std::array::from_fn(|index| index as u8));
        let address = address_of(&key);
        assert_eq!(address.to_string(), "ff00:102:304:506:708:90a:b0c:d0e");
        assert!(is_private(address));
        let other = address_of(&Fingerprint([9; 32]));
        assert_ne!(address, other);
        for public in ["::1", "2001:db8::1", "fe80::1", "127.0.0.1", "224.0.0.1"] {
            assert!(!is_private(public.parse().unwrap()), "{public}");
        }
    }
}
