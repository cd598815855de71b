//! JSON-RPC over HTTP on loopback, in Bitcoin Core's names, numbers and habits.
//!
//! ```text
//!   TCP ─▶ listener (bounded) ─▶ http: path, method, auth, room, size ─▶ request: envelope, batch
//!       ─▶ methods: table ─▶ arguments: by place and type ─▶ calls ─▶ engine | store | hub
//! ```
//!
//! Nothing is read of a body before its sender has shown a credential, and never more than
//! [`http::MAX_BODY_BYTES`]; so many bodies at once as [`http::MAX_CALLS`]. It has a runtime of its own: a block as
//! objects takes 0.1 s to write, and peers would wait for it. There is no TLS: it listens on loopback
//! alone, and who wants it elsewhere tunnels it.

mod arguments;
pub mod auth;
mod blocks;
mod calls;
mod electrum;
mod error;
mod found;
pub mod http;
mod listener;
pub mod methods;
mod private;
mod request;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::bitcoin::BitcoinHandle;
use super::electrum::ElectrumHandle;
use super::engine::EngineHandle;
use super::stop::Stop;
use super::store::BlockStore;
use crate::chain::Network;
use crate::net::{ControlHub, PrivateHub};

pub use blocks::hash_text;
pub use error::{Code, RpcError};

/// What calls work on.
#[derive(Clone, Debug)]
pub struct Context {
    /// The engine.
    pub engine: EngineHandle,
    /// The side towards Bitcoin nodes.
    pub bitcoin: BitcoinHandle,
    /// The blocks on disk.
    pub store: Arc<BlockStore>,
    /// Connects and listens.
    pub hub: ControlHub,
    /// The private links, if there are any.
    pub private: Option<PrivateHub>,
    /// The Electrum server, if there is one.
    pub electrum: Option<ElectrumHandle>,
    /// Addresses of this node that the operator named.
    pub named: Vec<IpAddr>,
    /// The network whose blocks are relayed.
    pub network: Network,
    /// Name and version as peers are told.
    pub agent: String,
    /// Where control connections are accepted.
    pub control: SocketAddr,
    /// Where datagrams are exchanged.
    pub data: SocketAddr,
    /// When the node started.
    pub started: Instant,
    /// Stops the node.
    pub stop: Stop,
}

#[cfg(test)]
mod tests;
