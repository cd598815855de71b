//! Binding a UDP socket: its buffers, and what to say when the system grants less than asked.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use arrayvec::ArrayVec;
use quinn_udp::{UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket as Socket2, Type};

use super::emulate::SharedUplink;
use super::{BindError, Socket};

/// The receive buffer asked of the system unless given, in bytes: 16 ms of silence of the engine
/// thread at 2 Gbit/s.
pub const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// The send buffer asked of the system unless given, in bytes: one full queue of [`super::sends`].
pub const SEND_BUFFER_BYTES: usize = 2 << 20;
/// How a socket is made.
#[derive(Clone, Debug)]
pub struct UdpOptions {
    /// Bytes of receive buffer to ask of the system.
    pub receive_buffer_bytes: usize,
    /// Bytes of send buffer to ask of the system.
    pub send_buffer_bytes: usize,
    /// Whether to join datagrams in one call where the system can.
    pub segmentation: bool,
    /// The emulated uplink that everything sent goes through, if any.
    pub uplink: Option<SharedUplink>,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self {
            receive_buffer_bytes: RECEIVE_BUFFER_BYTES,
            send_buffer_bytes: SEND_BUFFER_BYTES,
            segmentation: true,
            uplink: None,
        }
    }
}

/// A buffer for which the system granted less than was asked; the display says what to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BufferShortfall {
    /// Whether it is the receive buffer.
    pub receive: bool,
    /// Bytes asked for.
    pub wanted: usize,
    /// Bytes granted.
    pub granted: usize,
}

impl fmt::Display for BufferShortfall {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            receive,
            wanted,
            granted,
        } = *self;
        let (name, limit) = match (receive, cfg!(target_os = "linux")) {
            (true, true) => ("receive", "net.core.rmem_max"),
            (false, true) => ("send", "net.core.wmem_max"),
            (true, false) => ("receive", "kern.ipc.maxsockbuf"),
            (false, false) => ("send", "kern.ipc.maxsockbuf"),
        };
        write!(
            formatter,
            "the UDP {name} buffer is {granted} B instead of {wanted} B, so bursts may be lost; \
             raise it with: sysctl -w {limit}={wanted}"
        )
    }
}

/// A socket that is bound but not yet read: made anywhere, sent to the thread that will own it.
#[derive(Debug)]
pub struct BoundUdp {
    pub(super) socket: std::net::UdpSocket,
    pub(super) state: UdpSocketState,
    pub(super) local: SocketAddr,
    shortfalls: ArrayVec<BufferShortfall, 2>,
    pub(super) options: UdpOptions,
}

impl BoundUdp {
    /// Binds `address`; port 0 lets the system choose. `[::]` takes IPv4 too where the system can.
    ///
    /// # Errors
    /// One line that says what to do, if the address cannot be had.
    pub fn bind(address: SocketAddr, options: UdpOptions) -> Result<Self, BindError> {
        Self::open(address, options).map_err(|source| BindError {
            socket: Socket::Data,
            address,
            source,
        })
    }

    fn open(address: SocketAddr, options: UdpOptions) -> io::Result<Self> {
        let socket = bind_socket(address)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let mut shortfalls = ArrayVec::new();
        for receive in [true, false] {
            let wanted = match receive {
                true => options.receive_buffer_bytes,
                false => options.send_buffer_bytes,
            };
            let granted = size_buffer(&socket, receive, wanted)?;
            if granted < wanted {
                shortfalls.push(BufferShortfall {
                    receive,
                    wanted,
                    granted,
                });
            }
        }
        let socket: std::net::UdpSocket = socket.into();
        let local = socket.local_addr()?;
        Ok(Self {
            socket,
            state,
            local,
            shortfalls,
            options,
        })
    }

    /// The address it is bound to, with the port that the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Buffers that are smaller than asked for: worth a line in the log each.
    pub fn shortfalls(&self) -> &[BufferShortfall] {
        &self.shortfalls
    }
}

/// A socket bound to `address`; `[::]` takes IPv4 too where the system can.
pub(super) fn bind_socket(address: SocketAddr) -> io::Result<Socket2> {
    let socket = Socket2::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Asks for `wanted` bytes of buffer and returns what was granted. The system may refuse by an error
/// or by granting less; Linux reports twice what it grants, for its own bookkeeping.
pub(super) fn size_buffer(socket: &Socket2, receive: bool, wanted: usize) -> io::Result<usize> {
    let reported = if receive {
        socket.set_recv_buffer_size(wanted).ok();
        socket.recv_buffer_size()?
    } else {
        socket.set_send_buffer_size(wanted).ok();
        socket.send_buffer_size()?
    };
    Ok(if cfg!(target_os = "linux") {
        reported / 2
    } else {
        reported
    })
}
