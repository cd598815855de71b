//! One UDP socket, read and written in batches.
//!
//! The thread that owns an [`UdpPort`] waits for it, reads a batch, pushes what is to be sent, and
//! flushes, without another thread or a copy between. Reading takes many datagrams per call
//! (`recvmmsg`, and GRO where the system joins datagrams of one flow); writing joins those to one
//! destination ([`super::sends`], GSO). The system never fragments: path MTU discovery is on, as
//! `quinn-udp` sets it, and a datagram larger than the interface takes is refused and counted.
//!
//! Nothing about sending is fatal: an error drops the datagrams it concerns and adds to
//! [`UdpStats`]. When the system's buffer is full the queue waits for [`UdpPort::writable`]; it is
//! bounded, and whoever paces asks [`UdpPort::has_room`] before it makes more.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use arrayvec::ArrayVec;
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::bound::{BoundUdp, UdpOptions};
use super::emulate::{Fate, SharedUplink};
use super::held::Held;
use super::sends::{MAX_RUN_BYTES, MAX_RUN_DATAGRAMS, SendQueue};
use super::{BindError, Socket, canonical};
use crate::time::Time;

/// Buffers read per call. Each holds the largest datagram or what GRO joins (64 kB), so a call
/// reads at most 1 MiB and does not keep the thread from its other work for long. In `benches/net.rs`
/// 8, 16 and 32 differ by less than runs of the same number do.
pub const RECEIVE_SLOTS: usize = 16;
/// Bytes of one receive slot: no datagram and nothing that GRO joins is larger.
pub const RECEIVE_SLOT_BYTES: usize = 1 << 16;
/// Bytes on their way through an emulated link: half a second at 1 Gbit/s. What is beyond is dropped.
pub const MAX_HELD_BYTES: usize = 64 << 20;
/// How often a socket's offload is set up anew after an error that offload may not have caused: a
/// peer's address can provoke such errors, and each costs some system calls.
const MAX_RENEWALS: u32 = 16;

/// What a socket has done. All counters are of datagrams or bytes of payload unless they say calls.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct UdpStats {
    /// Datagrams received.
    pub datagrams_in: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// System calls that received something.
    pub receive_calls: u64,
    /// What those gave: datagrams, or runs of several that the system had joined (GRO).
    pub runs_in: u64,
    /// Errors of receiving that concern no datagram of ours to keep, such as a refusal by a peer.
    pub receive_errors: u64,
    /// Datagrams without payload, which mean nothing and are not delivered.
    pub empty_in: u64,
    /// Datagrams handed to the system.
    pub datagrams_out: u64,
    /// Bytes handed to the system.
    pub bytes_out: u64,
    /// System calls that sent something.
    pub send_calls: u64,
    /// Times that the system's buffer was full.
    pub send_blocked: u64,
    /// Dropped: larger than the interface takes (`EMSGSIZE`).
    pub too_large: u64,
    /// Dropped: the peer's host refused an earlier one (`ECONNREFUSED`).
    pub refused: u64,
    /// Dropped: the system had no memory for it (`ENOBUFS`, `ENOMEM`).
    pub no_buffers: u64,
    /// Dropped: no route to the host or its network.
    pub unreachable: u64,
    /// Dropped: any other error, a firewall's among them.
    pub other_errors: u64,
    /// Not taken by [`UdpPort::push`]: a destination or a size that no datagram can have.
    pub invalid: u64,
    /// Dropped by the emulated link: lost, or its queue was full.
    pub emulated_drops: u64,
}

/// Why [`UdpPort::push`] did not take a datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PushError {
    /// The queue is full: flush, and if that does not help wait for [`UdpPort::writable`].
    Full,
    /// No socket could send it: port 0, an unspecified or multicast address, the other family, no
    /// payload, or more than 65,507 bytes. Counted in [`UdpStats::invalid`].
    Invalid,
}

/// Whether a flush sent all there was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flush {
    /// Nothing waits for the system.
    Done,
    /// The system's buffer is full: wait for [`UdpPort::writable`], then flush again.
    Blocked,
}

/// A datagram on its way through an emulated link.
#[derive(Debug)]
struct HeldDatagram {
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// The emulated part of a port.
#[derive(Debug)]
struct Emulation {
    uplink: SharedUplink,
    held: Held<HeldDatagram>,
    /// Buffers of datagrams that have left, for those to come.
    free: Vec<Vec<u8>>,
}

/// One UDP socket, owned by one thread.
///
/// ```no_run
/// # use std::time::Duration;
/// # use blocktorrent::net::{Clock, Timer, UdpOptions, UdpPort};
/// # async fn turn(clock: Clock) -> std::io::Result<()> {
/// let address = ([127, 0, 0, 1], 0).into();
/// let mut port = UdpPort::bind(address, UdpOptions::default()).expect("loopback has room");
/// let mut timer = Timer::new(clock)?;
/// loop {
///     timer.set(port.deadline())?; // and the engine's, whichever is first
///     tokio::select! {
///         ready = port.readable() => ready?,
///         ready = port.writable(), if port.is_blocked() => ready?,
///         expired = timer.expired() => expired?,
///     }
///     port.recv_batch(|_from, _datagram| { /* engine.handle_datagram */ })?;
///     while port.has_room() {
///         break; // engine.poll_transmit, port.push
///     }
///     port.flush(clock.now());
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct UdpPort {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    segmentation: bool,
    renewals: u32,
    blocked: bool,
    slots: Box<[u8]>,
    metas: [RecvMeta; RECEIVE_SLOTS],
    queue: SendQueue,
    emulation: Option<Emulation>,
    stats: UdpStats,
}

impl UdpPort {
    /// Binds `address` and takes the socket over: [`BoundUdp::bind`] and [`UdpPort::new`].
    ///
    /// # Errors
    /// One line that says what to do, if the address cannot be had.
    ///
    /// # Panics
    /// Outside of a `tokio` runtime with I/O enabled.
    pub fn bind(address: SocketAddr, options: UdpOptions) -> Result<Self, BindError> {
        Self::new(BoundUdp::bind(address, options)?).map_err(|source| BindError {
            socket: Socket::Data,
            address,
            source,
        })
    }

    /// Takes over a bound socket on the runtime of the present thread.
    ///
    /// # Errors
    /// Those of the system when it cannot watch another descriptor.
    ///
    /// # Panics
    /// Outside of a `tokio` runtime with I/O enabled.
    pub fn new(bound: BoundUdp) -> io::Result<Self> {
        Ok(Self {
            socket: UdpSocket::from_std(bound.socket)?,
            state: bound.state,
            local: bound.local,
            segmentation: bound.options.segmentation,
            renewals: 0,
            blocked: false,
            slots: vec![0; RECEIVE_SLOTS * RECEIVE_SLOT_BYTES].into_boxed_slice(),
            metas: [RecvMeta::default(); RECEIVE_SLOTS],
            queue: SendQueue::default(),
            emulation: bound.options.uplink.map(|uplink| Emulation {
                uplink,
                held: Held::new(MAX_HELD_BYTES),
                free: Vec::new(),
            }),
            stats: UdpStats::default(),
        })
    }

    /// The address it is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// What it has done.
    pub fn stats(&self) -> UdpStats {
        self.stats
    }

    /// Datagrams that the system joins into one run at most when it receives; 1 if it joins none.
    pub fn max_joined(&self) -> usize {
        self.state.gro_segments()
    }

    /// How many datagrams one call can send: 1 where the system or the options do not join them.
    pub fn max_segments(&self) -> usize {
        match self.segmentation {
            true => self.state.max_gso_segments().clamp(1, MAX_RUN_DATAGRAMS),
            false => 1,
        }
    }

    /// Waits until there may be something to read. Cancel-safe.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Waits until the system takes datagrams again; ask only while [`UdpPort::is_blocked`], for
    /// otherwise it returns at once. Cancel-safe.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    /// Whether the last flush found the system's buffer full.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Reads what one system call gives and delivers each datagram; returns how many, 0 if none was
    /// there. Addresses are [`canonical`]. Call it once [`UdpPort::readable`] has returned, and give
    /// others their turn between batches: a batch is at most 1 MiB.
    ///
    /// # Errors
    /// Those after which the socket cannot be read again. Passing ones are counted.
    pub fn recv_batch(&mut self, mut deliver: impl FnMut(SocketAddr, &[u8])) -> io::Result<usize> {
        let mut slices: ArrayVec<IoSliceMut<'_>, RECEIVE_SLOTS> = self
            .slots
            .chunks_exact_mut(RECEIVE_SLOT_BYTES)
            .map(IoSliceMut::new)
            .collect();
        let (socket, state, metas) = (&self.socket, &self.state, &mut self.metas);
        let received = socket.try_io(Interest::READABLE, || {
            state.recv(UdpSockRef::from(socket), &mut slices, metas)
        });
        let filled = match received {
            Ok(filled) => filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) if is_passing(&error) => {
                self.stats.receive_errors += 1;
                return Ok(0);
            }
            Err(error) => return Err(error),
        };
        self.stats.receive_calls += 1;
        self.stats.runs_in += filled as u64;
        let mut count = 0;
        for (meta, slot) in self.metas.iter().zip(&slices).take(filled) {
            let from = canonical(meta.addr);
            let contents = slot.get(..meta.len).unwrap_or_default();
            if contents.is_empty() {
                self.stats.empty_in += 1;
            }
            for datagram in contents.chunks(meta.stride.max(1)) {
                deliver(from, datagram);
                count += 1;
            }
            self.stats.bytes_in += contents.len() as u64;
        }
        self.stats.datagrams_in += count as u64;
        Ok(count)
    }

    /// Whether [`UdpPort::push`] takes any datagram that can be sent at all.
    pub fn has_room(&self) -> bool {
        self.queue.has_room()
    }

    /// Queues a datagram; it leaves with the next [`UdpPort::flush`], or with the first after its
    /// time if a link is emulated.
    ///
    /// # Errors
    /// [`PushError::Full`] if it should be tried again, [`PushError::Invalid`] if it should not.
    pub fn push(&mut self, now: Time, to: SocketAddr, datagram: &[u8]) -> Result<(), PushError> {
        let sendable = (1..=MAX_RUN_BYTES).contains(&datagram.len());
        let Some(to) = self.destination(to).filter(|_| sendable) else {
            self.stats.invalid += 1;
            return Err(PushError::Invalid);
        };
        let Some(emulation) = &mut self.emulation else {
            return match self.queue.push(to, datagram) {
                true => Ok(()),
                false => Err(PushError::Full),
            };
        };
        let fate = emulation.uplink.lock().datagram(now, datagram.len());
        match fate {
            Fate::Arrives(due) if emulation.held.has_room(datagram.len()) => {
                let mut bytes = emulation.free.pop().unwrap_or_default();
                bytes.clear();
                bytes.extend_from_slice(datagram);
                emulation
                    .held
                    .push(due, datagram.len(), HeldDatagram { to, bytes });
            }
            Fate::Arrives(_) | Fate::Lost | Fate::Dropped => self.stats.emulated_drops += 1,
        }
        Ok(())
    }

    /// When to flush next although nothing was pushed: a datagram on an emulated link is due.
    pub fn deadline(&self) -> Option<Time> {
        match &self.emulation {
            Some(emulation) if !self.blocked => emulation.held.due(),
            _ => None,
        }
    }

    /// Hands to the system all that waits, as far as it takes it.
    pub fn flush(&mut self, now: Time) -> Flush {
        loop {
            self.release(now);
            if self.queue.is_empty() {
                self.blocked = false;
                return Flush::Done;
            }
            if self.send_queue() == Flush::Blocked {
                self.blocked = true;
                self.stats.send_blocked += 1;
                return Flush::Blocked;
            }
        }
    }

    /// Moves what is due on the emulated link to the queue, as far as there is room.
    fn release(&mut self, now: Time) {
        let Some(emulation) = &mut self.emulation else {
            return;
        };
        while let Some(next) = emulation.held.peek(now) {
            if !self.queue.push(next.to, &next.bytes) {
                return;
            }
            if let Some(gone) = emulation.held.pop(now) {
                emulation.free.push(gone.bytes);
            }
        }
    }

    fn send_queue(&mut self) -> Flush {
        // Bytes of a chunk that failed as one and go again one by one.
        let mut apart = 0;
        loop {
            let most = if apart > 0 { 1 } else { self.max_segments() };
            let Some(chunk) = self.queue.front(most) else {
                return Flush::Done;
            };
            let (bytes, datagrams) = (chunk.contents.len(), chunk.datagrams());
            let transmit = Transmit {
                destination: chunk.to,
                ecn: None,
                contents: chunk.contents,
                segment_size: (datagrams > 1).then_some(chunk.size),
                src_ip: None,
            };
            match self.send(&transmit) {
                Ok(()) => {
                    self.stats.send_calls += 1;
                    self.stats.datagrams_out += datagrams as u64;
                    self.stats.bytes_out += bytes as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Flush::Blocked,
                // Joining may be at fault, or one that is larger than the last: none of the others
                // shall be lost for it.
                Err(_) if datagrams > 1 => {
                    apart = bytes;
                    continue;
                }
                Err(error) => {
                    self.count_send_error(&error);
                    self.renew_offload();
                }
            }
            self.queue.advance(bytes);
            apart = apart.saturating_sub(bytes);
        }
    }

    /// Sends without asking the runtime first, which knows of a fresh socket only after a turn. If
    /// the system's buffer is full, the second attempt makes the runtime watch for room.
    fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let attempt = || {
            self.state
                .try_send(UdpSockRef::from(&self.socket), transmit)
        };
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.socket.try_io(Interest::WRITABLE, attempt)
            }
            result => result,
        }
    }

    /// A single datagram has failed: if joining is off, joining was perhaps not at fault when it
    /// failed before, so it is tried again. Without this one peer with an odd address or path would
    /// slow the socket down for all.
    fn renew_offload(&mut self) {
        let off = self.segmentation && self.state.max_gso_segments() == 1;
        if off && cfg!(target_os = "linux") && self.renewals < MAX_RENEWALS {
            self.renewals += 1;
            if let Ok(state) = UdpSocketState::new(UdpSockRef::from(&self.socket)) {
                self.state = state;
            }
        }
    }

    fn count_send_error(&mut self, error: &io::Error) {
        let counter = match classify(error) {
            SendError::TooLarge => &mut self.stats.too_large,
            SendError::Refused => &mut self.stats.refused,
            SendError::NoBuffers => &mut self.stats.no_buffers,
            SendError::Unreachable => &mut self.stats.unreachable,
            SendError::Other => &mut self.stats.other_errors,
        };
        *counter += 1;
        tracing::debug!(%error, "datagram not sent");
    }

    /// The address as this socket's family writes it; `None` if it cannot reach it. A wrong
    /// destination fails with `EINVAL`, which `quinn-udp` takes for missing offload, so that it must
    /// not get there.
    fn destination(&self, to: SocketAddr) -> Option<SocketAddr> {
        let to = canonical(to);
        if to.port() == 0 || to.ip().is_unspecified() || to.ip().is_multicast() {
            return None;
        }
        match (self.local.ip(), to.ip()) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => Some(to),
            (IpAddr::V6(local), IpAddr::V4(ip)) if local.is_unspecified() => {
                Some(SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()))
            }
            _ => None,
        }
    }
}

/// Errors of sending, as [`UdpStats`] counts them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum SendError {
    TooLarge,
    Refused,
    NoBuffers,
    Unreachable,
    Other,
}

/// `ENOBUFS`, which the standard library does not name.
const NO_BUFFERS: i32 = match () {
    () if cfg!(windows) => 10_055,
    () if cfg!(any(target_os = "linux", target_os = "android")) => 105,
    () => 55,
};

fn classify(error: &io::Error) -> SendError {
    if quinn_udp::is_msg_size_err(error) {
        return SendError::TooLarge;
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => SendError::Refused,
        io::ErrorKind::OutOfMemory => SendError::NoBuffers,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            SendError::Unreachable
        }
        _ if error.raw_os_error() == Some(NO_BUFFERS) => SendError::NoBuffers,
        _ => SendError::Other,
    }
}

/// Whether a socket that failed to read so can be read again: a peer or the network spoke, or the
/// system is short of memory.
fn is_passing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted || classify(error) != SendError::Other
}

#[cfg(test)]
#[path = "udp_tests.rs"]
mod tests;
