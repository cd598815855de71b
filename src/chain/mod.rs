//! The header chain: which headers show the work that their context demands, and on which networks.
//!
//! - [`params`]: what differs from network to network
//! - [`bitcoind`]: the operator's own Bitcoin nodes, by RPC and ZMQ
//! - [`headers`]: headers accepted one by one, the branch with the most work, the recent window
//! - [`addrbook`]: where other nodes are, and which of them are relays
//! - [`crawl`]: whom to dial next, so that relays find one another
//! - [`p2p`]: the ordinary P2P protocol, one connection at a time
//!
//! What this is not: a judge of blocks. A header that is accepted here may head a block that breaks every rule;
//! but somebody has spent the work on it.

pub mod addrbook;
pub mod bitcoind;
pub mod crawl;
pub mod headers;
mod heights;
pub mod p2p;
pub mod params;
mod rules;
mod start;

pub use headers::{Accepted, Found, Headers, Reorg, Tip};
pub use params::{Network, UnknownNetwork};
pub use rules::HeaderRefusal;
pub use start::{StartError, TrustedStart};

#[cfg(test)]
mod tests;
