//! The sending end: what goes out when.

use std::time::Duration;

use super::bbr::{Bbr, Recovery};
use super::cubic::Cubic;
use super::rate::{Meter, Sample};
use super::scoreboard::{News, Scoreboard};
use super::{
    Ack, Control, FIRST_TIMEOUT, INITIAL_WINDOW, LEAST_VARIANCE, LONGEST_TIMEOUT, SEGMENT_BYTES,
    Segment, Window,
};
use crate::time::Time;

/// Segments beyond a gap that show a loss at once: Linux's `tcp_reordering`.
const REORDERING: usize = 3;
/// What a tail loss probe waits beyond two round trips: two of Linux's ticks at 1,000 Hz.
const PROBE_MARGIN: Duration = Duration::from_millis(2);

#[derive(Debug)]
enum Algorithm {
    Cubic(Cubic),
    Bbr(Bbr),
}

/// The sending end of a stream.
#[derive(Debug)]
pub struct Sender {
    algorithm: Algorithm,
    window: Window,
    board: Scoreboard,
    meter: Meter,
    written: u64,
    next: u64,
    round_trips: RoundTrips,
    recovery: Recovery,
    /// Recovery ends when this is acknowledged.
    recovers_to: u64,
    reduction: Reduction,
    /// Whether the window was full in the present round, how many segments were out, and where the round ends.
    usage: (bool, usize, u64),
    last_sent: Time,
    times_out_at: Option<Time>,
    probes_at: Option<Time>,
    looks_at: Option<Time>,
    probe: Probe,
    pace: Pace,
}

/// Round-trip times, RFC 6298 with Linux's floor.
#[derive(Debug, Default)]
struct RoundTrips {
    smoothed: Option<Duration>,
    variance: Duration,
    least: Option<Duration>,
    backoff: u32,
}

/// Proportional rate reduction, RFC 6937.
#[derive(Debug, Default)]
struct Reduction {
    prior_window: f64,
    delivered: f64,
    sent: f64,
}

/// A tail loss probe.
#[derive(Debug, Default)]
struct Probe {
    is_due: bool,
    /// What was sent when it went out; `None`: none is out.
    out: Option<u64>,
    repeats: bool,
}

/// When the next burst may go.
#[derive(Debug, Default)]
struct Pace {
    next: Time,
    burst_at: Time,
    burst: u32,
    credit: Duration,
}

impl Sender {
    /// A connection that was just made, in that time; `draw` is any number, which spreads BBR's cycles.
    pub fn new(control: Control, draw: usize, round_trip: Duration) -> Self {
        let mut round_trips = RoundTrips::default();
        round_trips.measure(round_trip);
        Self {
            algorithm: match control {
                Control::Cubic => Algorithm::Cubic(Cubic::default()),
                Control::Bbr => Algorithm::Bbr(Bbr::new(draw, round_trip)),
            },
            window: Window {
                segments: INITIAL_WINDOW,
                threshold: f64::INFINITY,
            },
            board: Scoreboard::default(),
            meter: Meter::default(),
            written: 0,
            next: 0,
            round_trips,
            recovery: Recovery::Open,
            recovers_to: 0,
            reduction: Reduction::default(),
            usage: (false, 0, 0),
            last_sent: Time::ZERO,
            times_out_at: None,
            probes_at: None,
            looks_at: None,
            probe: Probe::default(),
            pace: Pace::default(),
        }
    }

    /// The application writes `bytes`. Where they end in the stream.
    pub fn write(&mut self, bytes: u64) -> u64 {
        let room = self.board.in_flight() < self.segments();
        if self.written - self.next < SEGMENT_BYTES && room && self.board.lost() == 0 {
            self.meter.limit(self.board.in_flight() as u64);
        }
        self.written += bytes;
        self.written
    }

    /// Segments that may be in flight.
    pub fn segments(&self) -> usize {
        self.window.segments.max(1.0) as usize
    }

    /// Bytes acknowledged in order.
    pub const fn acknowledged(&self) -> u64 {
        self.board.acknowledged()
    }

    /// When to call [`Self::time_out`] and [`Self::poll`], if nothing comes before.
    pub fn deadline(&self) -> Option<Time> {
        let wants = self.written > self.next || self.board.lost() > 0;
        let open = wants && self.board.in_flight() < self.segments();
        let pace = (self.is_paced() && open).then_some(self.pace.next);
        [self.times_out_at, self.probes_at, self.looks_at, pace]
            .into_iter()
            .flatten()
            .min()
    }

    const fn is_paced(&self) -> bool {
        matches!(self.algorithm, Algorithm::Bbr(_))
    }

    /// Takes an acknowledgement.
    pub fn acknowledge(&mut self, now: Time, ack: &Ack) {
        let least = self.round_trips.least;
        let news = self.board.acknowledge(now, ack, &mut self.meter, least);
        if let Some(measured) = news.round_trip {
            self.round_trips.measure(measured);
        }
        if news.advanced {
            self.round_trips.backoff = 0;
        }
        self.end_recovery(&news);
        let lost = self.detect(now);
        let mut sample = self
            .meter
            .sample(now, news.acked, lost, self.round_trips.least);
        sample.round_trip = news.round_trip;
        self.resize(now, &news, &sample);
        if news.acked > 0 || news.advanced {
            self.arm(now);
        }
    }

    /// Recovery ends where all is there that was out when it began.
    fn end_recovery(&mut self, news: &News) {
        let acknowledged = self.board.acknowledged();
        if let Some(out) = self.probe.out
            && acknowledged >= out
        {
            // A loss that only the probe mended is a loss: RFC 8985 section 7.4.
            if self.probe.repeats && news.repeated && self.recovery == Recovery::Open {
                self.shrink();
                self.window.segments = self.window.segments.min(self.window.threshold);
            }
            self.probe = Probe::default();
        }
        if self.recovery == Recovery::Open || acknowledged < self.recovers_to {
            return;
        }
        if self.recovery == Recovery::Fast && !self.is_paced() {
            self.window.segments = self.window.threshold;
        }
        self.recovery = Recovery::Open;
    }

    /// What the algorithm makes of a loss.
    fn shrink(&mut self) {
        match &mut self.algorithm {
            Algorithm::Cubic(cubic) => {
                self.window.threshold = cubic.lose(self.window.segments);
            }
            Algorithm::Bbr(bbr) => bbr.lose(self.window.segments),
        }
    }

    fn detect(&mut self, now: Time) -> u32 {
        self.looks_at = None;
        if self.board.there() == 0 && self.recovery == Recovery::Open && self.probe.out.is_none() {
            return 0;
        }
        let shown = self.recovery != Recovery::Open || self.board.there() >= REORDERING;
        let reordering = match shown {
            true => Duration::ZERO,
            false => self.round_trips.least.unwrap_or_default() / 4,
        };
        let (lost, again) = self.board.detect(now, reordering);
        self.looks_at = again;
        if lost > 0 && self.recovery == Recovery::Open {
            self.shrink();
            self.recovery = Recovery::Fast;
            self.recovers_to = self.next;
            self.probe = Probe::default();
            self.probes_at = None;
            self.reduction = Reduction {
                prior_window: self.window.segments,
                ..Reduction::default()
            };
        }
        lost
    }

    fn resize(&mut self, now: Time, news: &News, sample: &Sample) {
        let in_flight = self.board.in_flight() as f64;
        let full = self.is_full();
        let least = self.round_trips.least;
        match &mut self.algorithm {
            Algorithm::Bbr(bbr) => bbr.acknowledge(
                now,
                &mut self.window,
                sample,
                (self.meter.delivered, in_flight),
                self.recovery,
            ),
            Algorithm::Cubic(cubic) => {
                if self.recovery == Recovery::Fast {
                    let progress = news.advanced && sample.lost == 0;
                    self.reduction
                        .apply(&mut self.window, in_flight, news.acked, progress);
                    return;
                }
                let ends = (self.board.acknowledged(), self.next);
                cubic.watch(now, &mut self.window, ends, sample.round_trip, least);
                if full && news.advanced {
                    cubic.grow(now, &mut self.window, news.acked, least);
                }
            }
        }
    }

    /// Whether the window is what holds the sender back, as `tcp_is_cwnd_limited` has it.
    fn is_full(&self) -> bool {
        let (limited, most, _) = self.usage;
        let slow_start = self.window.segments < self.window.threshold;
        limited || (slow_start && self.window.segments < 2.0 * most as f64)
    }

    fn note_usage(&mut self, limited: bool) {
        let (was, most, ends) = self.usage;
        let out = self.board.len();
        if self.board.acknowledged() >= ends || limited || (!was && out > most) {
            self.usage = (limited, out, self.next);
        }
    }

    /// Sets the timers anew.
    fn arm(&mut self, now: Time) {
        self.probes_at = None;
        self.times_out_at = None;
        if self.board.is_empty() {
            return;
        }
        let timeout = now + self.round_trips.timeout();
        self.times_out_at = Some(timeout);
        let calm = self.recovery == Recovery::Open && self.board.there() == 0;
        if calm && self.probe.out.is_none() {
            let wait = match self.round_trips.smoothed {
                Some(smoothed) if self.board.len() == 1 => smoothed * 2 + LEAST_VARIANCE,
                Some(smoothed) => smoothed * 2 + PROBE_MARGIN,
                None => FIRST_TIMEOUT,
            };
            self.probes_at = Some(now + wait).filter(|at| *at < timeout);
        }
    }

    /// Does what a deadline stands for, if it has come.
    pub fn time_out(&mut self, now: Time) {
        let is_due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        if is_due(self.looks_at) {
            self.detect(now);
        }
        if is_due(self.times_out_at) {
            self.give_up(now);
        } else if is_due(self.probes_at) {
            self.probes_at = None;
            self.probe.is_due = true;
        }
    }

    /// All that is out is taken for lost: one segment at a time again, RFC 5681 section 3.1.
    fn give_up(&mut self, now: Time) {
        if self.recovery != Recovery::Timeout {
            self.shrink();
        }
        match &mut self.algorithm {
            Algorithm::Cubic(cubic) => cubic.reset(),
            Algorithm::Bbr(bbr) => bbr.time_out(),
        }
        self.board.lose_all();
        self.window.segments = self.board.in_flight() as f64 + 1.0;
        self.recovery = Recovery::Timeout;
        self.recovers_to = self.next;
        self.probe = Probe::default();
        self.probes_at = None;
        self.looks_at = None;
        self.round_trips.backoff += 1;
        self.times_out_at = Some(now + self.round_trips.timeout());
    }

    /// The next segment that may go out.
    pub fn poll(&mut self, now: Time) -> Option<Segment> {
        if self.probe.is_due {
            self.probe.is_due = false;
            if let Some(segment) = self.send_probe(now) {
                return Some(segment);
            }
        }
        let wants = self.written > self.next || self.board.lost() > 0;
        if self.board.is_empty() && wants && self.written > self.next {
            self.begin(now);
        }
        let limited = self.board.in_flight() >= self.segments();
        if !wants || limited {
            self.note_usage(wants && limited);
            return None;
        }
        if self.is_paced() && !self.pace.allows(now) {
            return None;
        }
        let snapshot = self.meter.send(now, self.board.is_empty());
        let segment = match self.board.repeat(snapshot) {
            Some(segment) => segment,
            None => self.send_new(now)?,
        };
        self.sent(now, segment);
        Some(segment)
    }

    fn send_new(&mut self, now: Time) -> Option<Segment> {
        let end = self.written.min(self.next + SEGMENT_BYTES);
        if end <= self.next {
            return None;
        }
        let segment = Segment {
            start: self.next,
            end,
        };
        let snapshot = self.meter.send(now, self.board.is_empty());
        self.board.push(segment, snapshot);
        self.next = end;
        Some(segment)
    }

    /// New data if there is some, or the last segment once more: RFC 8985 section 7.3.
    fn send_probe(&mut self, now: Time) -> Option<Segment> {
        let new = self.send_new(now);
        self.probe.repeats = new.is_none();
        let segment = match new {
            Some(segment) => segment,
            None => {
                let snapshot = self.meter.send(now, false);
                self.board.probe(snapshot)?
            }
        };
        self.probe.out = Some(self.next);
        self.sent(now, segment);
        self.times_out_at = Some(now + self.round_trips.timeout());
        Some(segment)
    }

    /// The first segment after nothing was in flight.
    fn begin(&mut self, now: Time) {
        let idle = now - self.last_sent;
        let timeout = self.round_trips.timeout();
        match &mut self.algorithm {
            Algorithm::Bbr(bbr) => {
                if self.pace.burst_at < now {
                    bbr.restart(self.meter.is_limited());
                }
            }
            Algorithm::Cubic(cubic) => {
                if self.last_sent == Time::ZERO || idle <= timeout {
                    return;
                }
                cubic.idle(idle);
                let window = &mut self.window;
                window.threshold = window.threshold.max(window.segments * 0.75);
                let mut left = idle - timeout;
                while window.segments > INITIAL_WINDOW && !left.is_zero() {
                    window.segments = (window.segments / 2.0).max(INITIAL_WINDOW);
                    left = left.saturating_sub(timeout);
                }
                // The window is what it is until it is used again.
                self.usage = (false, 0, self.next);
                self.last_sent = now;
            }
        }
    }

    fn sent(&mut self, now: Time, segment: Segment) {
        self.last_sent = now;
        if self.recovery == Recovery::Fast {
            self.reduction.sent += 1.0;
        }
        if let Algorithm::Bbr(bbr) = &self.algorithm {
            let segments = (segment.end - segment.start) as f64 / SEGMENT_BYTES as f64;
            let takes = Duration::from_secs_f64(segments / bbr.pacing);
            self.pace.take(now, takes, bbr.burst());
        }
        self.note_usage(self.board.in_flight() >= self.segments());
        if self.times_out_at.is_none() || self.board.len() == 1 {
            self.arm(now);
        }
        if self.probes_at.is_some() {
            self.arm(now);
        }
    }
}

impl RoundTrips {
    fn measure(&mut self, measured: Duration) {
        self.least = Some(self.least.map_or(measured, |least| least.min(measured)));
        match self.smoothed {
            None => {
                self.smoothed = Some(measured);
                self.variance = measured / 2;
            }
            Some(smoothed) => {
                self.variance = (self.variance * 3 + smoothed.abs_diff(measured)) / 4;
                self.smoothed = Some((smoothed * 7 + measured) / 8);
            }
        }
    }

    fn timeout(&self) -> Duration {
        let first = match self.smoothed {
            Some(smoothed) => smoothed + (self.variance * 4).max(LEAST_VARIANCE),
            None => FIRST_TIMEOUT,
        };
        let doubled = first.saturating_mul(1 << self.backoff.min(16));
        doubled.min(LONGEST_TIMEOUT)
    }
}

impl Reduction {
    fn apply(&mut self, window: &mut Window, in_flight: f64, acked: u32, progress: bool) {
        let acked = f64::from(acked);
        self.delivered += acked;
        let missing = window.threshold - in_flight;
        let allowed = if missing < 0.0 {
            let share = window.threshold * self.delivered / self.prior_window.max(1.0);
            share.ceil() - self.sent
        } else {
            let slow = (self.delivered - self.sent).max(acked);
            (slow + if progress { 1.0 } else { 0.0 }).min(missing)
        };
        // The first retransmission is always allowed.
        let allowed = allowed.max(if self.sent > 0.0 { 0.0 } else { 1.0 });
        window.segments = (in_flight + allowed).max(1.0);
    }
}

impl Pace {
    fn allows(&self, now: Time) -> bool {
        now >= self.next || (self.burst > 0 && self.burst_at == now)
    }

    /// A segment went out that takes so long at the rate; what was not used before counts up to half of that, as in
    /// `tcp_update_skb_after_send`.
    fn take(&mut self, now: Time, takes: Duration, burst: u32) {
        if self.burst == 0 || self.burst_at != now {
            self.burst = burst;
            self.burst_at = now;
            self.credit = now - self.next;
            self.next = self.next.max(now);
        }
        self.burst -= 1;
        let saved = self.credit.min(takes / 2);
        self.credit -= saved;
        self.next = self.next + (takes - saved);
    }
}
