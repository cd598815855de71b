//! One direction of a link: delay, rate and queue, and what may befall a datagram on the way.

use std::time::Duration;

use arrayvec::ArrayVec;
use rand::RngExt;
use rand::rngs::StdRng;

use super::queue::RateQueue;
use crate::time::Time;

/// Bytes of the IPv4 and UDP headers of a datagram on the wire.
pub const UDP_OVERHEAD: usize = 28;

/// How both directions of a link behave. Shares and probabilities are 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkOptions {
    /// One-way delay.
    pub delay: Duration,
    /// Each datagram takes up to this much longer, evenly spread: it reorders.
    pub jitter: Duration,
    /// Bytes per second, headers included; `None` is infinitely fast.
    pub rate_bytes_per_s: Option<u64>,
    /// Bytes that wait for the link at most; datagrams beyond it are dropped.
    pub queue_bytes: u64,
    /// Largest datagram that passes, in bytes with its headers.
    pub mtu: usize,
    /// Share of datagrams lost at random.
    pub loss: f64,
    /// Mean length of a burst of losses, in datagrams; 1 makes losses independent.
    pub burst: f64,
    /// Share of datagrams that take `reorder_by` longer.
    pub reorder: f64,
    /// How much longer.
    pub reorder_by: Duration,
    /// Share of datagrams that arrive twice.
    pub duplicate: f64,
    /// Share of datagrams in which one bit is flipped.
    pub corrupt: f64,
    /// No datagram passes at all, as behind a firewall that lets only TCP through.
    pub udp_blocked: bool,
}

impl Default for LinkOptions {
    /// The reference link of the targets: 50 ms, 50 Mbit/s, no faults, a queue of 100 ms.
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(50),
            jitter: Duration::ZERO,
            rate_bytes_per_s: Some(6_250_000),
            queue_bytes: 625_000,
            mtu: 1_500,
            loss: 0.0,
            burst: 1.0,
            reorder: 0.0,
            reorder_by: Duration::from_millis(5),
            duplicate: 0.0,
            corrupt: 0.0,
            udp_blocked: false,
        }
    }
}

/// Why a datagram did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// The link is down, or lets no UDP through.
    Closed,
    /// Longer than the link's largest.
    TooLong,
    /// The queue was full.
    Overflow,
    /// At random.
    Lost,
}

/// An arrival at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When.
    pub at: Time,
    /// The bit that was flipped on the way, counted from the first byte's lowest.
    pub flipped: Option<usize>,
}

/// After such a pause a burst of losses is over, or another has begun: bursts come from queues and radio, and last
/// milliseconds.
const BURST_PAUSE: Duration = Duration::from_millis(10);

/// One direction of a link.
#[derive(Clone, Debug)]
pub struct Link {
    /// How it behaves; may be changed while it carries.
    pub options: LinkOptions,
    /// Whether it carries at all.
    pub up: bool,
    queue: RateQueue,
    in_burst: bool,
    /// When a packet was last lost or not.
    last_draw: Time,
}

impl Link {
    /// A link that is up and idle.
    pub fn new(options: LinkOptions) -> Self {
        Self {
            options,
            up: true,
            queue: RateQueue::default(),
            in_burst: false,
            last_draw: Time::ZERO,
        }
    }

    /// When `bytes` that are handed over at `now` have left the near end, if the queue takes them.
    fn occupy(&mut self, now: Time, bytes: usize, may_overflow: bool) -> Option<Time> {
        let room = may_overflow.then_some(self.options.queue_bytes);
        self.queue
            .pass(now, bytes, self.options.rate_bytes_per_s, room)
    }

    /// Gilbert's model: a good state that loses nothing, a bad one that loses everything. After a pause either state is
    /// found as often as it is there: or else a sender that waits longer after each loss, as TCP does, would sit in one
    /// burst for minutes.
    fn loses(&mut self, now: Time, random: &mut StdRng) -> bool {
        let loss = self.options.loss.clamp(0.0, 1.0);
        if loss <= 0.0 {
            return false;
        }
        let burst = self.options.burst.max(1.0);
        if burst <= 1.0 || loss >= 1.0 {
            return random.random_bool(loss);
        }
        let leave = 1.0 / burst;
        let enter = (loss * leave / (1.0 - loss)).min(1.0);
        let pause = now - self.last_draw;
        self.last_draw = now;
        self.in_burst = if pause > BURST_PAUSE {
            random.random_bool(loss)
        } else if self.in_burst {
            !random.random_bool(leave)
        } else {
            random.random_bool(enter)
        };
        self.in_burst
    }

    /// Sends a datagram of `length` bytes (without headers): it arrives never, once or twice.
    ///
    /// # Errors
    ///
    /// Why it does not arrive.
    pub fn datagram(
        &mut self,
        now: Time,
        length: usize,
        random: &mut StdRng,
    ) -> Result<ArrayVec<Arrival, 2>, Drop> {
        if !self.up || self.options.udp_blocked {
            return Err(Drop::Closed);
        }
        if length + UDP_OVERHEAD > self.options.mtu {
            return Err(Drop::TooLong);
        }
        let left = self
            .occupy(now, length + UDP_OVERHEAD, true)
            .ok_or(Drop::Overflow)?;
        if self.loses(now, random) {
            return Err(Drop::Lost);
        }
        let mut happens = |share: f64| share > 0.0 && random.random_bool(share.min(1.0));
        let copies = if happens(self.options.duplicate) {
            2
        } else {
            1
        };
        let arrival = |_| {
            let mut at = left + self.options.delay;
            if happens(self.options.reorder) {
                at = at + self.options.reorder_by;
            }
            let corrupt = length > 0 && happens(self.options.corrupt);
            (at, corrupt)
        };
        let arrivals: ArrayVec<_, 2> = (0..copies).map(arrival).collect();
        let jitter = self.options.jitter;
        let whole = |(at, corrupt): (Time, bool)| Arrival {
            at: match jitter.is_zero() {
                true => at,
                false => at + jitter.mul_f64(random.random::<f64>()),
            },
            flipped: corrupt.then(|| random.random_range(0..length * 8)),
        };
        Ok(arrivals.into_iter().map(whole).collect())
    }

    /// Sends a packet of a stream of `length` bytes, headers included: when it arrives. One that is corrupted is lost, as
    /// its checksum shows; a second copy would change nothing.
    ///
    /// # Errors
    ///
    /// Why it does not arrive.
    pub fn packet(&mut self, now: Time, length: usize, random: &mut StdRng) -> Result<Time, Drop> {
        if !self.up {
            return Err(Drop::Closed);
        }
        let left = self.occupy(now, length, true).ok_or(Drop::Overflow)?;
        let happens =
            |share: f64, random: &mut StdRng| share > 0.0 && random.random_bool(share.min(1.0));
        if self.loses(now, random) || happens(self.options.corrupt, random) {
            return Err(Drop::Lost);
        }
        let mut at = left + self.options.delay;
        if happens(self.options.reorder, random) {
            at = at + self.options.reorder_by;
        }
        if !self.options.jitter.is_zero() {
            at = at + self.options.jitter.mul_f64(random.random::<f64>());
        }
        Ok(at)
    }

    /// Whether what was sent again at `now` is lost again.
    pub(super) fn loses_again(&mut self, now: Time, random: &mut StdRng) -> bool {
        self.loses(now, random)
    }

    /// Sends a segment of a stream of `length` bytes, headers included: when it arrives, and whether it was lost before
    /// it did. A stream loses nothing for good; who asks adds the time of its recovery.
    pub(super) fn segment(
        &mut self,
        now: Time,
        length: usize,
        random: &mut StdRng,
    ) -> (Time, bool) {
        let lost = self.loses(now, random);
        let left = self.occupy(now, length, false).unwrap_or(now);
        (left + self.options.delay, lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    const START: Time = Time::from_unix_seconds(5);

    fn carry(options: LinkOptions, count: usize) -> Vec<Result<ArrayVec<Arrival, 2>, Drop>> {
        let mut random = StdRng::seed_from_u64(1);
        let mut link = Link::new(options);
        (0..count)
            .map(|_| link.datagram(START, 972, &mut random))
            .collect()
    }

    #[test]
    fn rate_and_queue_bound_what_passes() {
        let options = LinkOptions {
            rate_bytes_per_s: Some(1_000_000),
            queue_bytes: 10_000,
            ..LinkOptions::default()
        };
        let passed = carry(options, 12);
        for (index, passage) in passed.iter().enumerate() {
            match passage {
                Ok(arrivals) => {
                    let millis = 50 + 1 + index as u64;
                    assert_eq!(arrivals[0].at, START + Duration::from_millis(millis));
                }
                Err(drop) => assert_eq!((*drop, index >= 10), (Drop::Overflow, true)),
            }
        }
        assert_eq!(passed.iter().filter(|passage| passage.is_ok()).count(), 10);
    }

    #[test]
    fn losses_come_in_bursts_of_the_length_asked_for() {
        let options = LinkOptions {
            loss: 0.03,
            burst: 6.0,
            rate_bytes_per_s: None,
            ..LinkOptions::default()
        };
        let passed = carry(options, 100_000);
        let lost = passed.iter().filter(|passage| passage.is_err()).count();
        let bursts = passed
            .windows(2)
            .filter(|pair| pair[0].is_ok() && pair[1].is_err())
            .count();
        assert!((2_500..3_500).contains(&lost), "{lost}");
        let mean = lost as f64 / bursts as f64;
        assert!((5.0..7.0).contains(&mean), "{mean}");
    }

    #[test]
    fn a_burst_does_not_outlast_a_pause() {
        let options = LinkOptions {
            loss: 0.1,
            burst: 1_000.0,
            ..LinkOptions::default()
        };
        let mut random = StdRng::seed_from_u64(2);
        let mut link = Link::new(options);
        let mut now = START;
        let mut lost = 0;
        for _ in 0..10_000 {
            lost += u32::from(link.datagram(now, 100, &mut random).is_err());
            now = now + Duration::from_millis(11);
        }
        assert!((800..1_200).contains(&lost), "{lost}");
    }

    #[test]
    fn long_ones_and_blocked_ones_do_not_pass() {
        let options = LinkOptions {
            mtu: 999,
            ..LinkOptions::default()
        };
        assert_eq!(carry(options, 1)[0], Err(Drop::TooLong));
        let options = LinkOptions {
            udp_blocked: true,
            ..LinkOptions::default()
        };
        assert_eq!(carry(options, 1)[0], Err(Drop::Closed));
    }
}
