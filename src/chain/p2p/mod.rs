//! The ordinary Bitcoin P2P protocol, for one connection: a state machine without I/O, and the task that drives it.
//!
//! ```text
//!   TcpStream ──bytes──▶ Transport (v1, or BIP324) ──payloads──▶ Message ──▶ Peer ──▶ PeerEvent   to the root
//!             ◀─bytes──                            ◀─payloads──         ◀───       ◀── PeerCommand from it
//! ```
//!
//! - [`Peer`]: one connection in one of four [`Role`]s: handshake, keep-alive, announcements, limits, misbehaviour
//! - [`PeerConfig`], [`PeerCommand`], [`PeerEvent`]: all that passes between it and its owner
//! - [`CompactBlock`]: compact blocks (BIP152, version 2), built and read
//! - [`Advert`]: what one of us tells another over this protocol (BIP434)
//! - [`connection`]: the tasks that drive peers over TCP, and the listener; the only part with I/O
//! - [`AddressRecord`]: an address that peers gossip (BIP155)
//!
//! Blocks and transactions stay bytes: they are cut out of what was received, and only their boundaries are
//! checked. What this is not: a judge of blocks, transactions or headers; it knows no chain and holds no block.
//! Whoever owns a peer answers what it wants ([`PeerEvent::WantsBlock`] and the like) and judges what it sends.

mod addresses;
mod advert;
mod block;
mod command;
mod compact;
pub mod connection;
mod event;
mod handshake;
mod kind;
mod message;
mod peer;
mod plain;
mod profile;
mod read;
#[cfg(test)]
mod samples;
mod session;
mod transport;

pub use addresses::AddressRecord;
pub use advert::{Advert, FEATURE_ID};
pub use block::{BlockParts, strip_block};
pub use command::{BlockForm, BlockSummary, PeerCommand, TransactionId};
pub use compact::{CompactBlock, ShortIdKey, build_compact};
pub use event::{CloseReason, PeerEvent, PeerInfo, PeerReport, Refusal};
pub use peer::{CLOSE_AT_POINTS, MAX_INPUT_BYTES, MAX_OUTPUT_BYTES, PAUSE_BYTES, Peer};
pub use profile::{Direction, PeerConfig, Role, V2};
pub use read::DecodeError;

/// The version of the protocol that we speak: the first that has `feature` (BIP434).
pub const PROTOCOL_VERSION: u32 = 70_017;
/// The oldest version that we talk to.
///
/// Reason: the first with compact blocks that know witnesses (BIP152, version 2). Whoever speaks less can neither
/// give us a block of today nor take one. Bitcoin Core has spoken it since 0.14 (2017).
pub const MIN_PEER_VERSION: u32 = 70_015;
/// Most headers in one `headers` (Bitcoin Core's `MAX_HEADERS_RESULTS`).
///
/// Reason: the protocol's; fewer than this many say that there are no more.
pub const MAX_HEADERS_PER_MESSAGE: usize = 2_000;
/// Most entries of `inv`, `getdata` and `notfound` (Bitcoin Core's `MAX_INV_SZ`).
///
/// Reason: the protocol's; more is misbehaviour.
pub const MAX_INVENTORY: usize = 50_000;
/// Most hashes of a block locator (Bitcoin Core's `MAX_LOCATOR_SZ`).
///
/// Reason: the protocol's; a locator of 101 hashes reaches back beyond any chain there can be.
pub const MAX_LOCATOR: usize = 101;
/// Most hashes of one `inv` that are told, the last ones.
///
/// Reason: Bitcoin Core announces at most eight at once; whoever announces more asks to be asked for headers.
pub const MAX_TOLD_BLOCKS: usize = 16;
/// Most hashes of blocks that answer one `getblocks` (the protocol's, since 2010).
///
/// Reason: the protocol's; whoever asks takes as many for the sign that there are more.
pub const MAX_BLOCK_HASHES: usize = 500;
/// Most addresses in one `addr` or `addrv2` (Bitcoin Core's `MAX_ADDR_TO_SEND`, BIP155).
///
/// Reason: the protocol's; more is misbehaviour.
pub const MAX_ADDRESSES: usize = 1_000;
/// Most bytes of the name that a node gives itself (Bitcoin Core's `MAX_SUBVERSION_LENGTH`).
///
/// Reason: the protocol's; it is logged, so it must be short.
pub const MAX_AGENT_BYTES: usize = 256;
