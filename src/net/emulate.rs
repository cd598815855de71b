//! The model of an uplink: how a packet fares between a node and its peers.
//!
//! ```text
//!   datagram ─▶ tail-drop queue ─▶ ▒▒▒ rate ▒▒▒ ─▶ loss? ─▶ one-way delay ─▶ peer
//!   stream   ─▶ (waits for room) ─▶ (shared)    ──────────▶ one-way delay ─▶ peer
//! ```
//!
//! One [`Uplink`] stands for everything a node sends, to whomever, over both transports. It is used
//! on the sending side only, so that the one-way delay of a link is the one given. It holds no
//! packet, reads no clock and sleeps nowhere: it answers when a packet leaves, and the sockets obey.
//! A lost packet has used the rate, as it would on a real link; the rate counts the headers of IP and
//! UDP or TCP. What this is not: a model of reordering, bursts or loss on TCP, which the simulator
//! has.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::time::Time;

/// Bytes of IPv4 and UDP headers, which the rate counts with each datagram.
pub const DATAGRAM_HEADERS: usize = 28;
/// Bytes of IPv4 and TCP headers (with timestamps), which the rate counts with each segment.
pub const SEGMENT_HEADERS: usize = 52;
/// Bytes of a stream that cross as one packet: what a 1,500-byte path leaves for TCP's payload.
pub const SEGMENT_BYTES: usize = 1_448;
/// The longest one-way delay, beyond which the handshakes above would time out anyway.
pub const MAX_DELAY: Duration = Duration::from_secs(10);
/// The slowest rate in bits per second: below it a single datagram takes longer than ten seconds.
pub const MIN_RATE_BITS_PER_S: u64 = 1_000;
/// The fastest rate in bits per second: one bit per picosecond keeps all arithmetic far from 2^64.
pub const MAX_RATE_BITS_PER_S: u64 = 1_000_000_000_000;
/// The queue of an uplink unless given, as time at its rate: what a home router holds.
pub const QUEUE_TIME: Duration = Duration::from_millis(100);
/// The smallest queue unless given, in bytes: two of the largest datagrams.
pub const LEAST_QUEUE_BYTES: usize = 128 * 1024;

/// What an uplink does to packets. The default does nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LinkOptions {
    /// Share of datagrams lost, in percent, 0 to 100.
    pub loss_percent: f64,
    /// One-way delay, at most [`MAX_DELAY`].
    pub delay: Duration,
    /// Bits per second, [`MIN_RATE_BITS_PER_S`] to [`MAX_RATE_BITS_PER_S`]; `None` for no limit.
    pub rate_bits_per_s: Option<u64>,
    /// Bytes that may wait for the rate; `None` for [`QUEUE_TIME`] at the rate and at least
    /// [`LEAST_QUEUE_BYTES`].
    pub queue_bytes: Option<usize>,
}

impl LinkOptions {
    /// Whether packets pass as if there were no emulation.
    pub fn is_transparent(&self) -> bool {
        self.loss_percent == 0.0 && self.delay.is_zero() && self.rate_bits_per_s.is_none()
    }

    fn check(&self) -> Result<(), LinkError> {
        if !(0.0..=100.0).contains(&self.loss_percent) {
            return Err(LinkError::Loss(self.loss_percent));
        }
        if self.delay > MAX_DELAY {
            return Err(LinkError::Delay(self.delay));
        }
        match self.rate_bits_per_s {
            Some(rate) if !(MIN_RATE_BITS_PER_S..=MAX_RATE_BITS_PER_S).contains(&rate) => {
                Err(LinkError::Rate(rate))
            }
            _ => Ok(()),
        }
    }
}

/// Options of a link that make no sense; the display is one line that says what would.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LinkError {
    /// The loss is not a percentage.
    Loss(f64),
    /// The delay is longer than [`MAX_DELAY`].
    Delay(Duration),
    /// The rate, in bits per second, is outside of what the model takes.
    Rate(u64),
}

impl fmt::Display for LinkError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loss(loss) => write!(formatter, "a loss of {loss}%: give 0 to 100"),
            Self::Delay(delay) => write!(
                formatter,
                "a delay of {} ms: give at most {} ms",
                delay.as_millis(),
                MAX_DELAY.as_millis()
            ),
            Self::Rate(rate) => write!(
                formatter,
                "a rate of {rate} bit/s: give 0.001 to 1000000 Mbit/s"
            ),
        }
    }
}

impl std::error::Error for LinkError {}

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It arrives then: put it on the real socket at that time.
    Arrives(Time),
    /// It crosses the uplink and is lost behind it.
    Lost,
    /// It finds the queue full.
    Dropped,
}

/// What becomes of a segment of a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StreamFate {
    /// It arrives then: put it on the real socket at that time.
    Arrives(Time),
    /// The queue is full: offer it again then, and hold back what follows.
    Full(Time),
}

/// What an uplink has done, in packets and in bytes with their headers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct UplinkStats {
    /// Datagrams that arrive.
    pub datagrams: u64,
    /// Datagrams lost behind the uplink.
    pub lost: u64,
    /// Datagrams that found the queue full.
    pub dropped: u64,
    /// Segments of streams.
    pub segments: u64,
    /// Bytes that used the rate, headers counted.
    pub bytes: u64,
}

/// One node's uplink: pure, driven by whoever sends.
#[derive(Debug)]
pub struct Uplink {
    delay: Duration,
    loss: u128,
    rate_bits_per_s: Option<u64>,
    queue_bytes: u64,
    idle_at: Time,
    /// What `idle_at` is short of the exact end, in nanoseconds times the rate: below the rate.
    remainder: u64,
    random: StdRng,
    stats: UplinkStats,
}

impl Uplink {
    /// An idle uplink; the same seed loses the same datagrams, counted from the first.
    ///
    /// # Errors
    /// When an option is outside of its range.
    pub fn new(options: LinkOptions, seed: u64) -> Result<Self, LinkError> {
        options.check()?;
        let queue_bytes = options.queue_bytes.unwrap_or_else(|| {
            let rate = options.rate_bits_per_s.unwrap_or(0);
            let milliseconds = QUEUE_TIME.as_millis() as u64;
            let queue = usize::try_from(rate / 8_000 * milliseconds).unwrap_or(usize::MAX);
            queue.max(LEAST_QUEUE_BYTES)
        });
        Ok(Self {
            delay: options.delay,
            loss: (options.loss_percent / 100.0 * 2f64.powi(64)) as u128,
            rate_bits_per_s: options.rate_bits_per_s,
            queue_bytes: queue_bytes as u64,
            idle_at: Time::ZERO,
            remainder: 0,
            random: StdRng::seed_from_u64(seed),
            stats: UplinkStats::default(),
        })
    }

    /// Offers a datagram of `bytes` payload at `now`. Whether it is lost depends on the seed and on
    /// how many were offered before it alone, not on time.
    pub fn datagram(&mut self, now: Time, bytes: usize) -> Fate {
        let lost = u128::from(self.random.next_u64()) < self.loss;
        let size = (bytes + DATAGRAM_HEADERS) as u64;
        if self.backlog_bytes(now) + size > self.queue_bytes && self.rate_bits_per_s.is_some() {
            self.stats.dropped += 1;
            return Fate::Dropped;
        }
        let left = self.transmit(now, size);
        if lost {
            self.stats.lost += 1;
            return Fate::Lost;
        }
        self.stats.datagrams += 1;
        Fate::Arrives(left + self.delay)
    }

    /// Offers a segment of a stream, at most [`SEGMENT_BYTES`] of payload, at `now`.
    ///
    /// A segment is taken whenever the queue is not over its bound, so that datagrams that keep it
    /// full do not starve control; it may then stand over its bound by one segment.
    pub fn segment(&mut self, now: Time, bytes: usize) -> StreamFate {
        let backlog = self.backlog_bytes(now);
        if let Some(rate) = self.rate_bits_per_s
            && backlog > self.queue_bytes
        {
            let excess = u128::from(backlog - self.queue_bytes);
            let wait = (excess * 8_000_000_000).div_ceil(u128::from(rate));
            let wait = Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX));
            return StreamFate::Full(now + wait);
        }
        let left = self.transmit(now, (bytes + SEGMENT_HEADERS) as u64);
        self.stats.segments += 1;
        StreamFate::Arrives(left + self.delay)
    }

    /// Bytes, headers counted, that wait for the rate at `now`, rounded up.
    pub fn backlog_bytes(&self, now: Time) -> u64 {
        let Some(rate) = self.rate_bits_per_s else {
            return 0;
        };
        let wait = self.idle_at.since(now).as_nanos();
        let bytes = (wait * u128::from(rate)).div_ceil(8_000_000_000);
        u64::try_from(bytes).unwrap_or(u64::MAX / 2)
    }

    /// The one-way delay behind the uplink.
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// What it has done since it was made.
    pub fn stats(&self) -> UplinkStats {
        self.stats
    }

    /// Puts `size` bytes on the wire behind what is there; returns when the last bit has left. The
    /// fraction of a nanosecond is carried over, so that a busy link is exact over any time.
    fn transmit(&mut self, now: Time, size: u64) -> Time {
        self.stats.bytes += size;
        let Some(rate) = self.rate_bits_per_s else {
            return now;
        };
        if self.idle_at <= now {
            self.idle_at = now;
            self.remainder = 0;
        }
        let total = u128::from(size) * 8_000_000_000 + u128::from(self.remainder);
        self.remainder = (total % u128::from(rate)) as u64;
        let nanoseconds = u64::try_from(total / u128::from(rate)).unwrap_or(u64::MAX);
        self.idle_at = self.idle_at + Duration::from_nanos(nanoseconds);
        self.idle_at
    }
}

/// One node's uplink, shared by its sockets: the lock is held for one answer at a time.
#[derive(Clone, Debug)]
pub struct SharedUplink(Arc<Mutex<Uplink>>);

impl SharedUplink {
    /// Shares `uplink`.
    pub fn new(uplink: Uplink) -> Self {
        Self(Arc::new(Mutex::new(uplink)))
    }

    /// The uplink, for one question. A panic elsewhere leaves a model that is still consistent.
    pub fn lock(&self) -> MutexGuard<'_, Uplink> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "emulate_tests.rs"]
mod tests;
