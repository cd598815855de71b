//! A TCP connection as Linux's sender and receiver make it, segment by segment; without bytes in it.
//!
//! A [`Sender`] is told what its application writes and what is acknowledged, and gives out segments; a [`Receiver`]
//! takes them and gives out acknowledgements. Whoever holds both carries either through a network. Nagle's algorithm is
//! off, as in Bitcoin Core.
//!
//! What is modelled, and from where:
//!
//! - windows: ten segments at first (RFC 6928), slow start, HyStart's two ways out of it (Ha and Rhee, "Hybrid slow
//!   start", as in Linux's `tcp_cubic.c`), back to ten segments after idling (RFC 5681 section 4.1; Linux halves the
//!   window for each time-out that passed), no growth of a window that is not used (RFC 7661; `tcp_is_cwnd_limited`);
//! - loss: selective acknowledgements of three blocks (RFC 2018), detection by time (RFC 8985, RACK, with three
//!   acknowledged segments as a sign of their own), proportional rate reduction (RFC 6937), a tail loss probe after two
//!   round trips (RFC 8985 section 7), a time-out of at least 200 ms above the round-trip time, doubled each time
//!   (RFC 6298; `TCP_RTO_MIN`);
//! - [`Control::Cubic`]: RFC 9438;
//! - [`Control::Bbr`]: version 1 as in Linux's `tcp_bbr.c`, over delivery rate samples as in `tcp_rate.c`, with
//!   pacing in bursts as `tcp_output.c` makes them.
//!
//! What is left out, each time in favour of a connection: receive windows and the time that they take to grow, send
//! buffers, delayed acknowledgements (each segment is acknowledged at once, though acknowledgements count half their
//! bytes on the wire), BBR's search for policers and its pauses to measure the round-trip time, retransmissions that
//! were not needed slowing a sender down any longer than the loss that they took for one.

mod bbr;
mod cubic;
mod rate;
mod receiver;
mod scoreboard;
mod sender;

use std::time::Duration;

use arrayvec::ArrayVec;

pub use receiver::Receiver;
pub use sender::Sender;

/// Payload of a segment.
pub const SEGMENT_BYTES: u64 = 1_448;
/// Bytes of the IPv4 and TCP headers, with time stamps.
pub const HEADER_BYTES: usize = 52;
/// What an acknowledgement takes on the wire: half of what it is, since each segment is acknowledged and every other one
/// would do (RFC 5681 section 4.2).
pub const ACK_BYTES: usize = HEADER_BYTES / 2;
/// Segments of the first window, RFC 6928.
const INITIAL_WINDOW: f64 = 10.0;
/// What a time-out is above the round-trip time at least: Linux's `TCP_RTO_MIN`.
const LEAST_VARIANCE: Duration = Duration::from_millis(200);
/// Time-out before the first round trip was measured, RFC 6298.
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest time-out: Linux's `TCP_RTO_MAX`.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(120);

/// Which algorithm decides how much is in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Control {
    /// Paced by the bandwidth measured; loss alone means nothing.
    #[default]
    Bbr,
    /// A window that a loss shrinks by 30% and that grows back along a cubic curve.
    Cubic,
}

/// A segment on its way: bytes of the stream from `start` to before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Place of its first byte in the stream.
    pub start: u64,
    /// Place after its last byte.
    pub end: u64,
}

/// An acknowledgement on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// All before this place is there.
    pub next: u64,
    /// Ranges beyond it that are there, the one that came last first.
    pub blocks: ArrayVec<Segment, 3>,
}

/// How many segments may be in flight, and where slow start ends.
#[derive(Clone, Copy, Debug)]
struct Window {
    segments: f64,
    threshold: f64,
}

#[cfg(test)]
mod tests;
