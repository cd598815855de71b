//! The uplink that all sessions of a node share.
//!
//! Each session paces itself by what its own path carries. Where the narrowest link is the node's own, the paths are one:
//! eight sessions that each send at its rate fill the queue before it eightfold; most of it is dropped, and what comes,
//! comes late, what nobody wants any longer included. So sessions that send much at once share a rate, a datagram each
//! in turn, and what to send next is still decided when it leaves.
//!
//! The rate is that which the operator stated, if one did. Else nothing is shared until a queue is seen before every busy
//! session: then it is what was delivered to all of them together, and a little more with each round in which all of it
//! was used and no queue stood. To guess it sooner would slow down nodes whose links have each a rate of its own.
//!
//! What it is not: a limit for one session alone; that is `pacing`.

use std::time::Duration;

use super::Engine;
use super::pacing::DATAGRAM;
use crate::time::Time;

/// A round lasts for the longest round trip of the busy sessions, and at least so long: else it holds too few reports.
const LEAST_ROUND: Duration = Duration::from_millis(50);

/// A round trip that is longer than the least by this has a queue in it: half more than reports and hosts add.
const QUEUE: Duration = Duration::from_millis(12);

/// Bytes in flight from which on a session is busy: fewer say nothing of a queue.
const BUSY: u64 = 8 * DATAGRAM;

/// Percent of what was delivered that is sent while a queue stands, so that it empties.
const DRAIN: u64 = 92;

/// Percent of the rate that a round leaves at least: what is reported late need not have waited here.
const LEAST_STEP: u64 = 70;

/// Percent of the rate that is tried after a round that used it without a queue.
const PROBE: u64 = 125;

/// Percent of the rate that counts as all of it.
const USED: u64 = 80;

/// The least rate that is shared: 800 kbit/s.
const LEAST_RATE: u64 = 100_000;

/// Bytes that leave in one go: as much as calls for a report.
const QUANTUM: u64 = 4 * DATAGRAM;

/// Bytes that may leave at once after silence: the first flights to two or three warm peers.
const BURST: u64 = 80 * DATAGRAM;

/// What is known of the uplink, and the token bucket that its sessions share.
#[derive(Debug)]
pub(super) struct Uplink {
    /// Bytes per second; `None` while nothing says that the sessions have anything to share.
    rate: Option<u64>,
    /// The most that the operator allows.
    cap: Option<u64>,
    /// Bytes times 10^9.
    credit: i64,
    credited_at: Time,
    round_began: Time,
    round: Duration,
    /// Bytes of this round.
    delivered: u64,
    sent: u64,
}

/// What the busy sessions see.
#[derive(Clone, Copy, Debug, Default)]
struct Sight {
    busy: usize,
    /// The least queue that any of them sees.
    queue: Duration,
    /// The longest round trip of any of them.
    round_trip: Duration,
}

impl Uplink {
    /// An uplink of which nothing is known but what the operator stated, in bytes per second.
    pub fn new(now: Time, cap: Option<u64>) -> Self {
        Self {
            rate: cap,
            cap,
            credit: scaled(BURST),
            credited_at: now,
            round_began: now,
            round: LEAST_ROUND,
            delivered: 0,
            sent: 0,
        }
    }

    /// Whether the sessions share a rate.
    pub fn is_shared(&self) -> bool {
        self.rate.is_some()
    }

    /// Whether sessions send a datagram each in turn. What may leave at once does better one flight after the other.
    pub fn takes_turns(&self, now: Time) -> bool {
        let credit = self.rate.map(|rate| self.credit_at(now, rate));
        credit.is_some_and(|credit| credit <= scaled(2 * QUANTUM))
    }

    /// When the next datagram may go, if not now.
    pub fn blocked_until(&self, now: Time) -> Option<Time> {
        let rate = self.rate?;
        let credit = self.credit_at(now, rate);
        if credit > 0 {
            return None;
        }
        let missing = scaled(QUANTUM).saturating_sub(credit).unsigned_abs();
        Some(now + Duration::from_nanos(missing / rate.max(1) + 1))
    }

    /// Counts a datagram that leaves now.
    pub fn on_sent(&mut self, now: Time, bytes: u64) {
        self.sent += bytes;
        if let Some(rate) = self.rate {
            self.credit = self.credit_at(now, rate).saturating_sub(scaled(bytes));
            self.credited_at = now;
        }
    }

    fn credit_at(&self, now: Time, rate: u64) -> i64 {
        let elapsed = now.since(self.credited_at).as_nanos();
        let earned = i64::try_from(elapsed.saturating_mul(rate.into())).unwrap_or(i64::MAX);
        self.credit.saturating_add(earned).min(scaled(BURST))
    }

    fn share(&mut self, now: Time, rate: u64) {
        if let Some(before) = self.rate {
            self.credit = self.credit_at(now, before);
        }
        self.credited_at = now;
        self.rate = Some(rate.max(LEAST_RATE).min(self.cap.unwrap_or(u64::MAX)));
    }

    /// Counts what was reported. Gives whether the round is over.
    fn on_delivered(&mut self, now: Time, bytes: u64) -> bool {
        self.delivered += bytes;
        now.since(self.round_began) >= self.round
    }

    fn end_round(&mut self, now: Time, sight: Sight) {
        let elapsed = now.since(self.round_began);
        let per_second = |bytes: u64| {
            let rate = u128::from(bytes) * 1_000_000_000 / elapsed.as_nanos().max(1);
            u64::try_from(rate).unwrap_or(u64::MAX)
        };
        let (delivered, used) = (per_second(self.delivered), per_second(self.sent));
        let silent = elapsed > self.round * 2;
        (self.round_began, self.delivered, self.sent) = (now, 0, 0);
        self.round = LEAST_ROUND.max(sight.round_trip);
        if silent {
            return;
        }
        if sight.busy >= 2 && sight.queue >= QUEUE {
            let least = self.rate.unwrap_or(0) / 100 * LEAST_STEP;
            self.share(now, (delivered / 100 * DRAIN).max(least));
        } else if let Some(rate) = self.rate
            && used >= rate / 100 * USED
        {
            self.share(now, (rate / 100).saturating_mul(PROBE));
        }
    }
}

impl Engine {
    /// Takes in that so much of what was sent has arrived.
    pub(super) fn note_delivered(&mut self, bytes: u64) {
        if self.uplink.on_delivered(self.now, bytes) {
            let sight = self.sight();
            self.uplink.end_round(self.now, sight);
        }
    }

    fn sight(&self) -> Sight {
        let sessions = self.sessions.iter().flatten();
        let busy = sessions.filter(|session| session.sent.in_flight() >= BUSY);
        busy.fold(Sight::default(), |sight, session| {
            let round_trip = session.sent.rtt();
            let least = session.pacer.least_round_trip();
            let queue = round_trip.latest().saturating_sub(least);
            Sight {
                busy: sight.busy + 1,
                queue: match sight.busy {
                    0 => queue,
                    _ => sight.queue.min(queue),
                },
                round_trip: sight.round_trip.max(round_trip.smoothed()),
            }
        })
    }
}

fn scaled(bytes: u64) -> i64 {
    i64::try_from(bytes.saturating_mul(1_000_000_000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time::from_unix_seconds(9);
    const ROUND: Duration = Duration::from_millis(100);

    fn sight(queue_ms: u64) -> Sight {
        Sight {
            busy: 3,
            queue: Duration::from_millis(queue_ms),
            round_trip: ROUND,
        }
    }

    /// Uses all of the rate for a round; so much arrives.
    fn round(uplink: &mut Uplink, now: &mut Time, delivered: u64, queue_ms: u64) -> u64 {
        let rate = uplink.rate.unwrap_or(0);
        uplink.on_sent(*now, rate / 10);
        *now = *now + ROUND;
        assert!(uplink.on_delivered(*now, delivered / 10));
        uplink.end_round(*now, sight(queue_ms));
        uplink.rate.unwrap_or(0)
    }

    #[test]
    fn what_is_shared_is_as_much_as_leaves() {
        assert_eq!(Uplink::new(START, None).blocked_until(START), None);
        let mut uplink = Uplink::new(START, Some(6_000_000));
        let (mut now, mut sent) = (START, 0);
        while now < START + Duration::from_secs(1) {
            match uplink.blocked_until(now) {
                None => {
                    uplink.on_sent(now, DATAGRAM);
                    sent += DATAGRAM;
                }
                Some(at) => now = at,
            }
        }
        assert!((6_000_000..6_000_000 + BURST + 2 * QUANTUM).contains(&sent));
    }

    #[test]
    fn a_queue_before_all_tells_the_rate_and_its_end_that_there_is_more() {
        let mut uplink = Uplink::new(START, None);
        let mut now = START + ROUND;
        uplink.end_round(now, sight(0));
        assert_eq!(round(&mut uplink, &mut now, 9_000_000, 5), 0);
        let drained = round(&mut uplink, &mut now, 6_000_000, 30);
        assert!((5_500_000..=5_600_000).contains(&drained));
        let more = round(&mut uplink, &mut now, 5_500_000, 0);
        assert!((6_500_000..7_000_000).contains(&more), "{more}");
    }

    #[test]
    fn no_more_is_shared_than_is_allowed_and_some_is_always() {
        let mut uplink = Uplink::new(START, Some(4_000_000));
        let mut now = START + ROUND;
        for _ in 0..5 {
            assert_eq!(round(&mut uplink, &mut now, 4_000_000, 0), 4_000_000);
        }
        for _ in 0..50 {
            round(&mut uplink, &mut now, 1_000, 100);
        }
        assert_eq!(uplink.rate, Some(LEAST_RATE));
    }
}
