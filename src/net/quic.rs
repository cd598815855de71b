//! Private links: QUIC between nodes that have pinned each other's keys.
//!
//! ```text
//!   engine thread                        │ router's runtime
//!     ControlIn, Writer   ◀─ same as TCP ┼─ one bidirectional stream: control frames
//!     PrivateDatagrams    ◀──────────────┼─ DATAGRAM frames (RFC 9221)      ┐ quinn,
//!     PrivateLink::send   ───────────────┼▶ DATAGRAM frames                 ┘ one UDP socket
//! ```
//!
//! - [`identity`]: the node's key, and the fingerprint that others pin
//! - `pinned`: the TLS verifiers: exactly the pinned keys, and the handshake's signature by that key
//! - `endpoint`: accepting and dialling, with every bound; `opened`: the task of one connection
//! - `beginners`: the handshakes under way, and who makes room for whom
//! - [`link`]: datagrams, and the address under which the engine knows a peer
//! - `congestion`: why QUIC's own congestion control steps back
//! - `emulated`: the socket of the demo, behind an emulated uplink
//!
//! The engine is the one that speaks over TCP and UDP, byte for byte. Its datagrams keep their connection id
//! and MAC, which cost 16 bytes and spare it a second kind of datagram.
//!
//! # Sizes
//!
//! A QUIC packet of [`PACKET_BYTES`] goes through every IPv6 path, and holds one datagram of 1,200 bytes to the byte:
//! that is why connection ids are short. Path MTU discovery raises the packet where the path allows, and the engine's
//! own probes find out by themselves what fits then. A datagram beyond [`quinn::Connection::max_datagram_size`] is
//! dropped and counted, as a path would do. A link that does not even take 1,200 bytes (another implementation, with
//! longer ids or a limit of its own) is given no datagram at all, so that the engine finds the path silent and
//! sends its data on the stream: slower, and nothing is lost. An IPv4 path below 1,260 bytes carries no private link.
//!
//! What this is not: it knows no message of the protocol, and gives no rights. A pinned key says who speaks;
//! what is said is verified as everybody's.

mod beginners;
mod congestion;
mod emulated;
mod endpoint;
pub mod identity;
pub mod link;
mod opened;
mod pinned;

use std::sync::Arc;
use std::time::Duration;

use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

pub use endpoint::{BoundQuic, PrivateHub, QuicOptions, QuicStats};
pub use identity::{Identity, IdentityError};
pub use link::{PrivateDatagrams, PrivateLink, is_private};
pub(super) use opened::{Opened, converse};

/// The protocol in TLS (RFC 7301): the first version of this one.
pub const ALPN: &[u8] = b"blocktorrent/1";

/// UDP payload of the first QUIC packets, in bytes: IPv6's least MTU, 1,280, less 48 bytes of headers.
pub const PACKET_BYTES: u16 = 1_232;

/// Bytes of QUIC connection ids. A datagram of 1,200 bytes takes 1 of header, 4 of packet number, 16 of tag and 9 of
/// frame besides: 2 are left in [`PACKET_BYTES`]. They only find the connection, which authenticates every packet.
const CONNECTION_ID_BYTES: usize = 2;

/// After this silence a connection is dead, and dialled anew: three keep-alives, each of which QUIC repeats until it is
/// acknowledged. A peer that was killed says no farewell, so that this is how long a private link stays down when it
/// has started again. (A stateless reset would tell at once, and would let whoever collects the tokens of all 65,536
/// connection ids, one for each stray packet, end connections with a forged address: RFC 9000 21.11.)
const IDLE_TIME: Duration = Duration::from_secs(6);

/// Between two keep-alives, some 40 bytes each: NATs forget UDP mappings after 30 s at the earliest (RFC 4787).
const KEEPALIVE: Duration = Duration::from_secs(2);

/// Bytes of control that a peer may send ahead of the engine, and we ahead of the peer: what a writer holds.
const STREAM_WINDOW: u32 = 256 << 10;

/// Datagrams that were received and not taken, in bytes; the oldest are dropped. 16 ms at 500 Mbit/s.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// Datagrams that wait to be sent, in bytes, beyond which new ones are dropped: 16 ms at 250 Mbit/s. The engine's pacer
/// takes what is dropped for a full queue on the path, as it is.
const SEND_BUFFER_BYTES: usize = 512 << 10;

/// Packets between two acknowledgements where the peer knows that extension: the engine has reports of its own, and
/// QUIC's cost a packet each.
const ACK_EVERY: u32 = 8;

/// The parameters of all connections; a peer may open so many streams.
fn transport(peer_streams: u32) -> Arc<TransportConfig> {
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(ACK_EVERY.into());
    let idle = IdleTimeout::try_from(IDLE_TIME).expect("15 s are a number of milliseconds");
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(peer_streams.into())
        .max_concurrent_uni_streams(0u32.into())
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEPALIVE))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(STREAM_WINDOW))
        .send_window(u64::from(STREAM_WINDOW))
        .datagram_receive_buffer_size(Some(RECEIVE_BUFFER_BYTES))
        .datagram_send_buffer_size(SEND_BUFFER_BYTES)
        .min_mtu(PACKET_BYTES)
        .initial_mtu(PACKET_BYTES)
        .mtu_discovery_config(Some(MtuDiscoveryConfig::default()))
        .ack_frequency_config(Some(acks))
        .allow_spin(false)
        .congestion_controller_factory(Arc::new(congestion::StepBack));
    Arc::new(config)
}
