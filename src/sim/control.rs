//! One direction of a TCP connection: bytes in order, none lost, and the time that this takes.
//!
//! A window that starts at ten segments (RFC 6928), doubles each round trip until the first loss and grows by a segment
//! afterwards (RFC 5681), halves on a loss, and falls back to ten segments after idling (RFC 5681 section 4.1). A lost
//! segment holds up all that follow by a round trip, or by a retransmission time-out if too little was in flight to
//! notice, or if it is lost again. What it is not: CUBIC or BBR, selective acknowledgements, or a receiver's window. Rivals,
//! whose blocks go over TCP, have [`super::rivals::tcp`]; here it is requests, states and the like.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;

use super::link::Link;
use crate::time::Time;

/// Payload of a segment.
pub const SEGMENT: usize = 1_448;
/// Bytes of the IPv4 and TCP headers, with time stamps.
pub const TCP_OVERHEAD: usize = 52;
const INITIAL_WINDOW: u64 = 10 * SEGMENT as u64;
/// Linux's least retransmission time-out.
const LEAST_TIMEOUT: Duration = Duration::from_millis(200);

/// Linux's longest retransmission time-out.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(120);

/// One direction of a connection.
#[derive(Debug)]
pub struct ControlFlow {
    waiting: VecDeque<Bytes>,
    waiting_bytes: u64,
    in_flight: u64,
    window: u64,
    threshold: u64,
    last_arrival: Time,
    last_sent: Time,
}

impl Default for ControlFlow {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            in_flight: 0,
            window: INITIAL_WINDOW,
            threshold: u64::MAX,
            last_arrival: Time::ZERO,
            last_sent: Time::ZERO,
        }
    }
}

impl ControlFlow {
    /// Whether the socket takes more bytes: less than a window of them waits.
    pub fn has_room(&self) -> bool {
        self.in_flight + self.waiting_bytes < self.window
    }

    /// Takes bytes to send.
    pub fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.waiting_bytes += bytes.len() as u64;
            self.waiting.push_back(bytes);
        }
    }

    /// When everything sent so far will have arrived.
    pub const fn last_arrival(&self) -> Time {
        self.last_arrival
    }

    /// The next segment that the window lets go, and when it arrives. `uplink` tells when a packet of that many bytes
    /// has left the sender's uplink.
    pub fn next_segment(
        &mut self,
        now: Time,
        link: &mut Link,
        uplink: impl FnOnce(usize) -> Time,
        random: &mut StdRng,
    ) -> Option<(Time, Bytes)> {
        let round_trip = link.options.delay * 2;
        let timeout = LEAST_TIMEOUT + round_trip;
        if self.in_flight == 0 && now - self.last_sent > timeout {
            self.window = self.window.min(INITIAL_WINDOW);
        }
        if self.in_flight >= self.window {
            return None;
        }
        let front = self.waiting.front_mut()?;
        let segment = front.split_to(front.len().min(SEGMENT));
        if front.is_empty() {
            self.waiting.pop_front();
        }
        self.waiting_bytes -= segment.len() as u64;
        let length = segment.len() + TCP_OVERHEAD;
        let (mut at, lost) = link.segment(uplink(length), length, random);
        if lost {
            let noticed = self.in_flight >= 3 * SEGMENT as u64;
            at = at + if noticed { round_trip } else { timeout };
            // What is lost again is only noticed by a time-out, twice as long each time (RFC 6298).
            let mut wait = timeout;
            while wait < LONGEST_TIMEOUT && link.loses_again(at, random) {
                at = at + wait;
                wait *= 2;
            }
            self.threshold = (self.window / 2).max(2 * SEGMENT as u64);
            self.window = self.threshold;
        }
        self.last_sent = now;
        self.in_flight += segment.len() as u64;
        self.last_arrival = self.last_arrival.max(at);
        Some((self.last_arrival, segment))
    }

    /// `length` bytes were acknowledged.
    pub fn acknowledged(&mut self, length: u64) {
        self.in_flight = self.in_flight.saturating_sub(length);
        self.window += if self.window < self.threshold {
            length
        } else {
            length * SEGMENT as u64 / self.window
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::LinkOptions;
    use super::*;
    use rand::SeedableRng;
    use std::collections::BinaryHeap;

    /// Milliseconds until `length` bytes have arrived.
    fn duration(loss: f64, length: usize, seed: u64) -> u64 {
        let start = Time::from_unix_seconds(9);
        let mut link = Link::new(LinkOptions {
            loss,
            ..LinkOptions::default()
        });
        let mut random = StdRng::seed_from_u64(seed);
        let mut flow = ControlFlow::default();
        flow.push(Bytes::from(vec![7; length]));
        let mut acknowledgements = BinaryHeap::new();
        let mut now = start;
        let mut arrived = 0;
        let mut last = start;
        while arrived < length {
            while let Some((at, segment)) = flow.next_segment(now, &mut link, |_| now, &mut random)
            {
                assert!(at >= last, "in order");
                last = at;
                arrived += segment.len();
                acknowledgements.push(std::cmp::Reverse((at + link.options.delay, segment.len())));
            }
            if let Some(std::cmp::Reverse((at, length))) = acknowledgements.pop() {
                now = at;
                flow.acknowledged(length as u64);
            }
        }
        (last - start).as_millis() as u64
    }

    #[test]
    fn ten_segments_take_one_way_and_eleven_a_round_trip_more() {
        assert_eq!(duration(0.0, 10 * SEGMENT, 1), 52);
        assert!(duration(0.0, 11 * SEGMENT, 1) >= 150);
    }

    #[test]
    fn what_is_lost_again_and_again_costs_time_outs() {
        let mut with: Vec<_> = (0..99).map(|seed| duration(0.6, 100, seed)).collect();
        with.sort_unstable();
        assert_eq!(with[10], 50);
        assert!(with[50] >= 350 && with[90] > 2_000, "{with:?}");
    }

    #[test]
    fn loss_costs_round_trips() {
        let without = duration(0.0, 1_000_000, 1);
        let mut with: Vec<_> = (0..9).map(|seed| duration(0.01, 1_000_000, seed)).collect();
        with.sort_unstable();
        assert!((500..900).contains(&without), "{without}");
        assert!(with[4] > 2 * without, "{with:?}");
    }
}
