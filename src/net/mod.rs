//! Sockets: datagrams in batches, control connections over TCP, private links over QUIC, and the emulation of
//! slow links.
//!
//! ```text
//!   engine thread (current-thread runtime)             router (any runtime)
//!   ┌───────────────────────────────────────┐          ┌───────────────────────────┐
//!   │ UdpPort: recv_batch ▶ engine ▶ push    │ ControlIn│ Listener, keep_connected  │
//!   │          flush, deadline, readable     │◀─────────│ one task per connection   │
//!   │ Timer: wakes to the microsecond        │─────────▶│                           │
//!   │ Uplink (demo only) ◀───────────────────┼──────────┼▶ Uplink                   │
//!   └───────────────────────────────────────┘ Writer   └───────────────────────────┘
//! ```
//!
//! - [`udp`]: one UDP socket with GSO, GRO and `recvmmsg`; [`bound`] binds it, [`sends`] is its
//!   bounded queue
//! - [`control`]: the hub: listening, limits (`admission`), and what the engine sees of a connection;
//!   [`connection`] is the task of one connection, [`dial`] keeps configured peers connected
//! - [`quic`]: private links, whose streams take the place of TCP and whose datagrams that of UDP
//! - [`emulate`]: the pure model of an uplink: when does this packet leave, or is it dropped
//! - [`clock`] and [`timer`]: the monotonic clock as [`crate::time::Time`], and precise waiting
//!
//! What this is not: it knows no message of the protocol and parses nothing. Bytes that come from
//! outside pass through; every queue here is bounded by a constant.

mod admission;
pub mod bound;
pub mod clock;
pub mod connection;
pub mod control;
pub mod dial;
pub mod emulate;
mod held;
pub mod quic;
pub mod sends;
pub mod timer;
pub mod udp;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

pub use bound::{BoundUdp, BufferShortfall, UdpOptions};
pub use clock::Clock;
pub use control::{
    BoundControl, CloseReason, ConnectionId, ControlHub, ControlIn, Direction, HubOptions, Verdict,
    Writer,
};
pub use emulate::{LinkOptions, SharedUplink, Uplink};
pub use quic::{BoundQuic, PrivateDatagrams, PrivateHub, PrivateLink, QuicOptions};
pub use timer::Timer;
pub use udp::{Flush, PushError, UdpPort, UdpStats};

/// Which of the node's sockets could not be bound, with the option that sets its address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Socket {
    /// The UDP socket for data, `--data-listen`.
    Data,
    /// The TCP listener for control connections, `--control-listen`.
    Control,
    /// The UDP socket for private links, `--quic-listen`.
    Quic,
}

impl Socket {
    const fn protocol(self) -> &'static str {
        match self {
            Self::Data | Self::Quic => "UDP",
            Self::Control => "TCP",
        }
    }

    const fn option(self) -> &'static str {
        match self {
            Self::Data => "--data-listen",
            Self::Control => "--control-listen",
            Self::Quic => "--quic-listen",
        }
    }
}

/// An address that could not be listened on; its display is one line that says what to do.
#[derive(Debug)]
pub struct BindError {
    /// Which socket.
    pub socket: Socket,
    /// The address that was asked for.
    pub address: SocketAddr,
    /// What the system answered.
    pub source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (protocol, option) = (self.socket.protocol(), self.socket.option());
        write!(
            formatter,
            "cannot listen on {} ({protocol}): ",
            self.address
        )?;
        match self.source.kind() {
            io::ErrorKind::AddrInUse => write!(
                formatter,
                "the port is in use; stop the program that has it or choose another with {option}"
            ),
            io::ErrorKind::AddrNotAvailable => write!(
                formatter,
                "no interface of this machine has that address; choose one with {option}"
            ),
            io::ErrorKind::PermissionDenied => write!(
                formatter,
                "the system forbids it (ports below 1024 are privileged); choose another with {option}"
            ),
            // Whoever shows the error adds its source.
            _ => write!(
                formatter,
                "the system refuses; choose another with {option}"
            ),
        }
    }
}

// What the system answered is part of the text, not a cause to be told after it.
impl std::error::Error for BindError {}

/// The address with an IPv4 address written as such, not as `::ffff:a.b.c.d`.
///
/// A dual-stack socket reports IPv4 peers mapped into IPv6. Everything above this module sees only
/// canonical addresses, so that one peer has one address on every socket.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => SocketAddr::new(ip.into(), address.port()),
            None => address,
        },
        IpAddr::V4(_) => address,
    }
}
