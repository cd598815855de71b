//! How fast one session may send: congestion control by delivery rate, and pacing.
//!
//! A model of the path in two numbers, the bandwidth (windowed maximum of delivery-rate samples) and the
//! least round-trip time (windowed minimum), as in BBR (draft-ietf-ccwg-bbr). Loss alone does not slow a
//! session down, since the links that need a relay most lose datagrams at random; a standing queue
//! does, and so does losing more than a fifth of a round. A queue of others' making, who do not yield to queues (TCP
//! with CUBIC), is another matter: to yield to it would be to starve (see [`rivals`]).
//!
//! It differs from BBR where a block differs from a file. A block is rare and its first flight small, so
//! a session that was silent starts with [`INITIAL_FLIGHT`] at once, however long the silence. What
//! was learned of the bandwidth does not age while nothing is sent. A rate known beforehand (a bandwidth
//! probe, an operator's word) can be [assumed](Pacer::assume_rate) until the path shows otherwise, for a body of a
//! megabyte is over before a slow start is.

#![allow(dead_code, reason = "wired up by the session")]

mod rivals;
mod rounds;

use std::time::Duration;

use self::rivals::Rivals;
use super::loss::MAX_REPORT_DELAY;
use crate::time::Time;

/// Bytes of a datagram that the pacer reckons with; larger ones are only counted by their bytes.
pub(crate) const DATAGRAM: u64 = 1_200;

/// What may leave at once on a validated path that was silent: 40 datagrams. A block of 4,000 transactions takes
/// about 24 datagrams to a warm peer, and its parity a few more; all of it should leave in the
/// first round trip. Such a flight comes once in ten minutes, weighs 48 kB, and loses its size where it does harm
/// (see [`Pacer::on_lost`]). RFC 6928's ten segments would cost a round trip for every block.
pub(crate) const INITIAL_FLIGHT: u64 = 40 * DATAGRAM;

/// What is left of the first flight where it was lost before: RFC 6928's initial window.
const LEAST_FLIGHT: u64 = 10 * DATAGRAM;

/// The least window, as in BBR (BBRMinPipeCwnd): enough to keep reports coming.
const LEAST_WINDOW: u64 = 4 * DATAGRAM;

/// The window is at most this: 2 Gbit/s over 125 ms, and no more than the sender's log can hold in full
/// datagrams (`MAX_LOGGED`).
pub(crate) const MAX_WINDOW: u64 = 32_000_000;

/// Rounds that a bandwidth sample counts for (BBR.MaxBwFilterLen counts two cycles of about eight). Rounds limited by the
/// application do not count.
const BANDWIDTH_ROUNDS: usize = 10;

/// Gains in percent. Startup: 4 ln 2, the least that doubles the rate each round.
const STARTUP_GAIN: u64 = 277;
const DRAIN_GAIN: u64 = 50;
const PROBE_UP_GAIN: u64 = 125;
const PROBE_DOWN_GAIN: u64 = 75;
const WINDOW_GAIN: u64 = 200;

/// One delivery-rate sample (draft-cheng-iccrg-delivery-rate-estimation), made by
/// [`SendLog`](super::loss::SendLog) for each report that acknowledged anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeliverySample {
    /// Bytes newly acknowledged by the report, `spurious_bytes` included.
    pub(crate) acked_bytes: u64,
    /// Of these, bytes that had been declared lost before.
    pub(crate) spurious_bytes: u64,
    /// Bytes delivered since the session began, these included.
    pub(crate) delivered: u64,
    /// Of these, how many were delivered when the newest acknowledged datagram was sent.
    pub(crate) prior_delivered: u64,
    /// The longer of the times over which the difference was sent and reported.
    pub(crate) interval: Duration,
    /// Whether the sender ran out of things to send: then the sample is only a lower bound.
    pub(crate) app_limited: bool,
    /// Round-trip time by this report, if it gave one.
    pub(crate) rtt: Option<Duration>,
}

/// What may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowance {
    /// Send up to this many bytes (at least a datagram; the last one may overshoot).
    Now {
        /// At least one, at most the window's room.
        bytes: u64,
    },
    /// Ask again then.
    At(Time),
    /// The window is full: a report or a time-out must come first.
    Blocked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Doubling, until the bandwidth stops growing, a queue stands or much is lost.
    Startup,
    /// Emptying the queue that startup left.
    Drain,
    /// At the bandwidth, probing a little.
    Cruise { phase: u32 },
    /// Nearly silent for a round trip, to see the path without queue.
    ProbeRoundTrip { since: Time },
}

/// Counts of the round trip under way.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    /// The round ends with a sample whose `prior_delivered` reaches this.
    ends_at: u64,
    acked: u64,
    lost: u64,
    samples: u32,
    least_rtt: Option<Duration>,
    best_rate: u64,
    app_limited: bool,
}

/// A token bucket whose rate and window follow a model of the path. One per session and direction.
#[derive(Debug)]
pub(crate) struct Pacer {
    mode: Mode,
    max_rate: Option<u64>,
    /// Best delivery rate of each of the last rounds, in bytes/s; index 0 is the running one.
    rates: [u64; BANDWIDTH_ROUNDS],
    min_rtt: Option<(Duration, Time)>,
    round: Round,
    /// Rate taken for granted until rounds have measured it.
    assumed: Option<Assumed>,
    /// Bound on the bandwidth after heavy loss, until the next probe.
    cap: Option<u64>,
    /// Share of loss that did not answer to a slower rate, and so is taken as the path's own.
    tolerated: f64,
    /// After a cut for heavy loss: the share that caused it, and rounds until the cut shows.
    cut: Option<(f64, u32)>,
    /// Startup: the best rate so far and rounds since it grew by a quarter.
    full: (u64, u32),
    /// Whether the last round saw a standing queue of our own making.
    queue_stands: bool,
    /// Whether the queue that stands is of others' making, who do not yield to queues.
    rivals: Rivals,
    /// Bytes that may leave at once after silence.
    flight: u64,
    /// The window is at least this; starts at `flight` after silence, falls while a queue stands.
    floor: u64,
    /// Part of the first flight still to go, paced by `max_rate` rather than by the model.
    flight_left: u64,
    train: Train,
    /// Time-outs in a row.
    timeouts: u32,
    /// Bytes times 10^9; below zero after an overshoot.
    credit: i64,
    credited_at: Time,
    last_sent: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
struct Assumed {
    rate: u64,
    rounds: u32,
}

/// Dispersion of the acknowledgements of a first flight: how fast the narrowest link passed it on.
#[derive(Clone, Copy, Debug, Default)]
struct Train {
    open: bool,
    first: Time,
    last: Time,
    bytes: u64,
    reports: u32,
}

/// Assumed until measured; see `Rtt::INITIAL` in `loss`.
const INITIAL_ROUND_TRIP: Duration = Duration::from_millis(100);

impl Pacer {
    /// A pacer for a validated path. `max_rate_bytes_per_s`: never faster than this, by the configuration of either side.
    pub(crate) fn new(now: Time, max_rate_bytes_per_s: Option<u64>) -> Self {
        let mut pacer = Self {
            mode: Mode::Startup,
            max_rate: max_rate_bytes_per_s.map(|rate| rate.max(1)),
            rates: [0; BANDWIDTH_ROUNDS],
            min_rtt: None,
            // The first round ends with what is sent after the first report.
            round: Round {
                ends_at: 1,
                ..Round::default()
            },
            assumed: None,
            cap: None,
            tolerated: 0.0,
            cut: None,
            full: (0, 0),
            queue_stands: false,
            rivals: Rivals::default(),
            flight: INITIAL_FLIGHT,
            floor: INITIAL_FLIGHT,
            flight_left: 0,
            train: Train::default(),
            timeouts: 0,
            credit: 0,
            credited_at: now,
            last_sent: None,
        };
        pacer.begin_flight(now);
        pacer
    }

    /// Changes the ceiling; `None` removes it.
    pub(crate) fn set_max_rate(&mut self, max_rate_bytes_per_s: Option<u64>) {
        self.max_rate = max_rate_bytes_per_s.map(|rate| rate.max(1));
    }

    /// Takes a rate for granted until two rounds have measured the path, or until a queue or heavy loss
    /// refutes it: the answer to ESTIMATE_BANDWIDTH, or what the operator states.
    pub(crate) fn assume_rate(&mut self, rate_bytes_per_s: u64) {
        self.assumed = (rate_bytes_per_s > 0).then_some(Assumed {
            rate: rate_bytes_per_s,
            rounds: 0,
        });
    }

    /// A round trip measured in another way, by the PING that validated the path.
    pub(crate) fn note_round_trip(&mut self, now: Time, round_trip: Duration) {
        self.note_rtt(now, round_trip);
    }

    fn begin_flight(&mut self, now: Time) {
        self.floor = self.flight;
        self.flight_left = self.flight;
        self.rivals = Rivals::default();
        self.train = Train {
            open: true,
            ..Train::default()
        };
        if self.max_rate.is_none() {
            self.credit = scaled(self.flight);
        } else {
            self.credit = self.credit.max(scaled(self.quantum()));
        }
        self.credited_at = now;
    }

    fn round_trip(&self) -> Duration {
        self.min_rtt.map_or(INITIAL_ROUND_TRIP, |(rtt, _)| rtt)
    }

    /// The least round trip that was seen.
    pub(crate) fn least_round_trip(&self) -> Duration {
        self.round_trip()
    }

    fn measured_rate(&self) -> u64 {
        self.rates.iter().copied().max().unwrap_or(0)
    }

    /// The bandwidth by measurement, assumption and cap.
    fn bandwidth(&self) -> u64 {
        let known = self
            .measured_rate()
            .max(self.assumed.map_or(0, |assumed| assumed.rate));
        self.cap.map_or(known, |cap| known.min(cap))
    }

    /// Rate in bytes/s at which datagrams leave now.
    fn pacing_rate(&self) -> u64 {
        let bandwidth = self.bandwidth();
        let gain = match self.mode {
            // An assumption is the goal of a startup: it is only probed beyond, not doubled.
            Mode::Startup if self.assumed.is_some() => PROBE_UP_GAIN,
            Mode::Startup => STARTUP_GAIN,
            Mode::Drain => DRAIN_GAIN,
            Mode::Cruise { .. } if self.queue_stands => PROBE_DOWN_GAIN,
            Mode::Cruise { phase: 0 } => PROBE_UP_GAIN,
            Mode::Cruise { phase: 1 } => PROBE_DOWN_GAIN,
            Mode::Cruise { .. } | Mode::ProbeRoundTrip { .. } => 100,
        };
        let gain =
            if matches!(self.mode, Mode::Startup) && self.assumed.is_some_and(|a| a.rounds == 0) {
                100
            } else {
                gain
            };
        let model = bandwidth.saturating_mul(gain) / 100;
        // The least window stands for itself: it need not be paced at what it would give over an empty path.
        let floor = if self.floor > LEAST_WINDOW || bandwidth == 0 {
            per_second(self.floor, self.round_trip())
        } else {
            0
        };
        let rate = if self.flight_left > 0 {
            model.max(floor).max(self.max_rate.unwrap_or(0))
        } else {
            model.max(floor)
        };
        rate.min(self.max_rate.unwrap_or(u64::MAX)).max(DATAGRAM)
    }

    /// Bytes that leave in one go: a millisecond's worth, at least two datagrams, so that sends can be
    /// batched (GSO) and timers stay coarse.
    fn quantum(&self) -> u64 {
        (self.pacing_rate() / 1_000).clamp(2 * DATAGRAM, INITIAL_FLIGHT.max(64_000))
    }

    /// Estimate of what the path carries, in bytes/s; the rate of the least window while nothing is known.
    pub(crate) fn rate_bytes_per_s(&self) -> u64 {
        self.bandwidth()
            .max(per_second(self.floor, self.round_trip()))
            .min(self.max_rate.unwrap_or(u64::MAX))
    }

    /// Bytes that may be in flight.
    pub(crate) fn window_bytes(&self) -> u64 {
        // A report may lag; what arrives meanwhile is in flight by our count.
        let round_trip = self.round_trip() + MAX_REPORT_DELAY;
        let product = per_round_trip(self.bandwidth(), round_trip);
        let window = match self.mode {
            Mode::ProbeRoundTrip { .. } => product / 2,
            _ => product.saturating_mul(WINDOW_GAIN) / 100 + 2 * self.quantum(),
        };
        let floor = match self.mode {
            Mode::ProbeRoundTrip { .. } => LEAST_WINDOW,
            _ => self.floor,
        };
        window.clamp(floor.max(LEAST_WINDOW), MAX_WINDOW)
    }

    fn credit_at(&self, now: Time) -> i64 {
        let elapsed = (now - self.credited_at).as_nanos();
        let earned = elapsed.saturating_mul(u128::from(self.pacing_rate()));
        let earned = i64::try_from(earned).unwrap_or(i64::MAX);
        // Two quanta: a timer that fires late may catch up by one.
        let most = scaled(2 * self.quantum()).max(self.credit);
        self.credit.saturating_add(earned).min(most)
    }

    /// Whether the path was silent for so long that a first flight may leave again.
    fn is_silent(&self, now: Time, in_flight: u64) -> bool {
        in_flight == 0
            && self
                .last_sent
                .is_some_and(|last| now - last >= self.round_trip() + MAX_REPORT_DELAY)
    }

    /// What may be sent now, with `in_flight` bytes unreported ([`SendLog::in_flight`](super::loss::SendLog::in_flight)).
    pub(crate) fn can_send(&self, now: Time, in_flight: u64) -> Allowance {
        if self.is_silent(now, in_flight) && self.timeouts == 0 && self.max_rate.is_none() {
            return Allowance::Now { bytes: self.flight };
        }
        let room = self.window_bytes().saturating_sub(in_flight);
        if room == 0 {
            return Allowance::Blocked;
        }
        let credit = self.credit_at(now);
        if credit > 0 {
            let bytes = (credit.unsigned_abs() / 1_000_000_000).max(DATAGRAM);
            return Allowance::Now {
                bytes: bytes.min(room.max(DATAGRAM)),
            };
        }
        let missing = scaled(self.quantum()).saturating_sub(credit).unsigned_abs();
        let wait = missing / self.pacing_rate() + 1;
        Allowance::At(now + Duration::from_nanos(wait))
    }

    /// Counts a datagram of `bytes` that leaves now; `in_flight` is without it. Datagrams that are not
    /// congestion-controlled (reports) are counted too: they use the link all the same.
    pub(crate) fn on_sent(&mut self, now: Time, bytes: u64, in_flight: u64) {
        if self.is_silent(now, in_flight) && self.timeouts == 0 {
            self.begin_flight(now);
        }
        self.credit = self.credit_at(now).saturating_sub(scaled(bytes));
        self.credited_at = now;
        self.flight_left = self.flight_left.saturating_sub(bytes);
        self.last_sent = Some(now);
    }

    /// Takes in a report that acknowledged something; `in_flight` is what is left.
    pub(crate) fn on_acked(&mut self, now: Time, sample: &DeliverySample, in_flight: u64) {
        self.settle(now);
        if self.timeouts >= 2 {
            self.start_over();
        }
        self.timeouts = 0;
        if let Some(rtt) = sample.rtt {
            self.rivals.note_first(rtt > self.longest_own_queue());
            self.note_rtt(now, rtt);
            self.round.samples += 1;
            self.round.least_rtt = Some(self.round.least_rtt.map_or(rtt, |held| held.min(rtt)));
        }
        self.note_train(now, sample);
        self.round.acked += sample.acked_bytes;
        self.round.lost = self.round.lost.saturating_sub(sample.spurious_bytes);
        self.note_rate(sample);
        if sample.prior_delivered >= self.round.ends_at {
            self.end_round(now, sample.delivered);
        }
        self.leave_mode(now, in_flight);
    }

    /// The path was dead and lives again: what was known of its bandwidth is no longer worth anything.
    fn start_over(&mut self) {
        self.mode = Mode::Startup;
        self.rates = [0; BANDWIDTH_ROUNDS];
        self.full = (0, 0);
        self.cap = None;
        self.cut = None;
        self.floor = LEAST_FLIGHT;
    }

    /// Credits what was earned so far at the rate so far, before the rate changes.
    fn settle(&mut self, now: Time) {
        self.credit = self.credit_at(now);
        self.credited_at = now;
    }

    fn note_rtt(&mut self, now: Time, rtt: Duration) {
        let rtt = rtt.max(Duration::from_micros(1));
        match self.min_rtt {
            Some((held, _)) if rtt > held => {}
            _ => self.min_rtt = Some((rtt, now)),
        }
    }

    fn note_rate(&mut self, sample: &DeliverySample) {
        // Shorter than any round trip: acknowledgements came in a lump.
        if sample.interval.is_zero() || sample.interval < self.round_trip() / 2 {
            return;
        }
        let bytes = sample.delivered.saturating_sub(sample.prior_delivered);
        let rate = per_second(bytes, sample.interval);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "at most 1.7 times the rate; precision does not matter"
        )]
        let rate = (rate as f64 / (1.0 - self.tolerated)) as u64;
        self.round.app_limited |= sample.app_limited;
        self.round.best_rate = self.round.best_rate.max(rate);
        if (!sample.app_limited || rate > self.measured_rate())
            && let Some(running) = self.rates.first_mut()
        {
            *running = rate.max(*running);
        }
    }

    /// The acknowledgements of a flight that left at once come at the pace of the narrowest link. That says in one round
    /// trip what startup would learn in five; it is assumed, with a margin, until measured.
    fn note_train(&mut self, now: Time, sample: &DeliverySample) {
        const LEAST_BYTES: u64 = 12 * DATAGRAM;
        if !self.train.open {
            return;
        }
        if self.flight_left > INITIAL_FLIGHT / 2 && self.train.reports == 0 {
            // Too short a train to say anything.
            self.train.open = false;
            return;
        }
        if self.train.reports == 0 {
            self.train.first = now;
        } else {
            self.train.bytes += sample.acked_bytes;
        }
        self.train.reports += 1;
        self.train.last = now;
        let span = self.train.last - self.train.first;
        if self.train.reports >= 4 && self.train.bytes >= LEAST_BYTES && !span.is_zero() {
            let rate = per_second(self.train.bytes, span) * 4 / 5;
            if matches!(self.mode, Mode::Startup) && rate > self.bandwidth() && self.cap.is_none() {
                self.assume_rate(rate);
            }
        }
        if self.train.bytes >= self.flight * 3 / 4 {
            self.train.open = false;
        }
    }

    /// Takes in what was lost: `bytes` of it. It is judged at the end of the round, except that an assumed
    /// rate which loses more than arrives is given up at once.
    pub(crate) fn on_lost(&mut self, now: Time, bytes: u64) {
        self.settle(now);
        self.round.lost += bytes;
        if self.round.lost > self.round.acked + INITIAL_FLIGHT / 2 {
            self.assumed = None;
        }
    }

    /// The probe time-out fired for the `count`-th time in a row, from 1 (`Outcome::probe`). The first is
    /// forgiven, since the tail of a flight may be lost at random; from then on the rate halves.
    pub(crate) fn on_timeout(&mut self, now: Time, count: u32) {
        self.settle(now);
        self.timeouts = count;
        if count < 2 {
            return;
        }
        self.assumed = None;
        self.cap = Some((self.bandwidth() / 2).max(1));
        self.floor = (self.floor / 2).max(LEAST_WINDOW);
        self.flight = (self.flight / 2).max(LEAST_FLIGHT);
        self.flight_left = 0;
        self.credit = self.credit.min(scaled(2 * DATAGRAM));
    }

    fn leave_mode(&mut self, now: Time, in_flight: u64) {
        match self.mode {
            Mode::Drain => {
                let product = per_round_trip(self.bandwidth(), self.round_trip());
                if in_flight <= product.max(self.floor) {
                    self.mode = Mode::Cruise { phase: 2 };
                }
            }
            Mode::ProbeRoundTrip { since } => {
                if now - since >= self.round_trip() + Duration::from_millis(10) {
                    self.mode = Mode::Cruise { phase: 2 };
                }
            }
            Mode::Startup | Mode::Cruise { .. } => {}
        }
    }
}

fn scaled(bytes: u64) -> i64 {
    i64::try_from(bytes.saturating_mul(1_000_000_000)).unwrap_or(i64::MAX)
}

fn per_second(bytes: u64, time: Duration) -> u64 {
    let nanoseconds = time.as_nanos().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000_000 / nanoseconds).unwrap_or(u64::MAX)
}

fn per_round_trip(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate) * time.as_nanos() / 1_000_000_000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
