//! Addresses as peers gossip them: `addr`, and `addrv2` (BIP155).

use std::net::SocketAddr;

/// An address of a node, with what somebody claims of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressRecord {
    /// When the node was last seen, in Unix seconds, by the account of whoever tells.
    pub last_seen: u32,
    /// Its services, likewise.
    pub services: u64,
    /// Where it listens.
    pub address: SocketAddr,
}
