//! BBR, version 1, as in Linux's `tcp_bbr.c` (Cardwell and others, "BBR: congestion-based congestion control", 2016).

use std::collections::VecDeque;
use std::time::Duration;

use super::rate::Sample;
use super::{INITIAL_WINDOW, SEGMENT_BYTES, Window};
use crate::time::Time;

/// 2/ln 2: what doubles the rate each round trip.
const HIGH_GAIN: f64 = 2.885;
const CYCLE: [f64; 8] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
/// Where the cycle may begin: anywhere but where it drains, as `bbr_reset_probe_bw_mode` draws it.
const FIRST_CYCLES: [usize; 7] = [0, 2, 3, 4, 5, 6, 7];
/// Windows are twice the product of bandwidth and delay once the bandwidth is known.
const WINDOW_GAIN: f64 = 2.0;
/// Round trips that a bandwidth is remembered for.
const BANDWIDTH_ROUNDS: u64 = 10;
/// How long a round-trip time is remembered for.
const ROUND_TRIP_MEMORY: Duration = Duration::from_secs(10);
/// The rate is this much below the bandwidth: `bbr_pacing_margin_percent`.
const MARGIN: f64 = 0.99;
const LEAST_WINDOW: f64 = 4.0;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Startup,
    Drain,
    Probe,
}

/// What the sender is recovering from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recovery {
    /// Nothing.
    #[default]
    Open,
    /// Losses that acknowledgements showed.
    Fast,
    /// A time-out.
    Timeout,
}

/// The model of the path.
#[derive(Debug)]
pub struct Bbr {
    mode: Mode,
    /// Bandwidths by round, greatest first, later rounds behind greater ones of earlier rounds.
    bandwidths: VecDeque<(u64, f64)>,
    round: u64,
    round_ends: u64,
    round_began: bool,
    least: Option<(Duration, Time)>,
    full: f64,
    full_rounds: u32,
    is_full: bool,
    cycle: usize,
    cycle_began: Time,
    prior_window: f64,
    conserves: bool,
    recovery: Recovery,
    restarts: bool,
    /// Segments per second.
    pub pacing: f64,
}

impl Bbr {
    /// A new one for a path of that round-trip time; `first_cycle` is where its cycle of gains begins, modulo 7.
    pub fn new(first_cycle: usize, round_trip: Duration) -> Self {
        Self {
            mode: Mode::Startup,
            bandwidths: VecDeque::new(),
            round: 0,
            round_ends: 0,
            round_began: false,
            least: Some((round_trip, Time::ZERO)),
            full: 0.0,
            full_rounds: 0,
            is_full: false,
            cycle: FIRST_CYCLES[first_cycle % 7],
            cycle_began: Time::ZERO,
            prior_window: 0.0,
            conserves: false,
            recovery: Recovery::Open,
            restarts: false,
            // `bbr_init_pacing_rate_from_rtt`
            pacing: MARGIN * HIGH_GAIN * INITIAL_WINDOW / round_trip.as_secs_f64().max(1e-3),
        }
    }

    /// Segments of a burst, as `tcp_tso_autosize` has it: what takes a millisecond, two at least but at low rates.
    pub fn burst(&self) -> u32 {
        let bytes_per_s = self.pacing * SEGMENT_BYTES as f64;
        let least = if bytes_per_s < 150_000.0 { 1 } else { 2 };
        let segments = (bytes_per_s / 1_024.0).min(65_536.0) / SEGMENT_BYTES as f64;
        (segments as u32).max(least)
    }

    fn bandwidth(&self) -> f64 {
        self.bandwidths.front().map_or(0.0, |&(_, rate)| rate)
    }

    const fn pacing_gain(&self) -> f64 {
        match self.mode {
            Mode::Startup => HIGH_GAIN,
            Mode::Drain => 1.0 / HIGH_GAIN,
            Mode::Probe => CYCLE[self.cycle % 8],
        }
    }

    const fn window_gain(&self) -> f64 {
        match self.mode {
            Mode::Startup | Mode::Drain => HIGH_GAIN,
            Mode::Probe => WINDOW_GAIN,
        }
    }

    /// What is in flight at that gain.
    fn in_flight(&self, gain: f64) -> f64 {
        let Some((least, _)) = self.least else {
            return INITIAL_WINDOW;
        };
        let product = (self.bandwidth() * least.as_secs_f64() * gain).ceil();
        let mut segments = product + 3.0 * f64::from(self.burst());
        segments += segments % 2.0;
        match self.mode == Mode::Probe && self.cycle == 0 {
            true => segments + 2.0,
            false => segments,
        }
    }

    fn set_pacing(&mut self, gain: f64) {
        let rate = self.bandwidth() * gain * MARGIN;
        if self.is_full || rate > self.pacing {
            self.pacing = rate.max(0.1);
        }
    }

    /// The first segment after nothing was in flight; whether the application had held the sender back.
    pub fn restart(&mut self, app_limited: bool) {
        if app_limited {
            self.restarts = true;
            if self.mode == Mode::Probe {
                self.set_pacing(1.0);
            }
        }
    }

    /// Losses were found: the window to come back to is kept.
    pub fn lose(&mut self, window: f64) {
        self.prior_window = match self.recovery == Recovery::Open {
            true => window,
            false => self.prior_window.max(window),
        };
    }

    /// A time-out.
    pub fn time_out(&mut self) {
        self.recovery = Recovery::Timeout;
        self.full = 0.0;
        self.round_began = true;
    }

    /// An acknowledgement was taken; `delivered` and `in_flight` are what came of it, `recovery` what the sender is in.
    pub fn acknowledge(
        &mut self,
        now: Time,
        window: &mut Window,
        sample: &Sample,
        (delivered, in_flight): (u64, f64),
        recovery: Recovery,
    ) {
        self.update_bandwidth(sample, delivered);
        self.update_cycle(now, sample, in_flight);
        self.update_full(sample);
        self.update_drain(now, in_flight);
        self.update_round_trip(now, sample);
        if sample.acked > 0 {
            self.restarts = false;
        }
        self.set_pacing(self.pacing_gain());
        self.set_window(window, sample, (delivered, in_flight), recovery);
    }

    fn update_bandwidth(&mut self, sample: &Sample, delivered: u64) {
        self.round_began = false;
        let Some(rate) = sample.rate else { return };
        if sample.prior_delivered >= self.round_ends {
            self.round_ends = delivered;
            self.round += 1;
            self.round_began = true;
            self.conserves = false;
        }
        if sample.app_limited && rate < self.bandwidth() {
            return;
        }
        while self.bandwidths.back().is_some_and(|&(_, old)| old <= rate) {
            self.bandwidths.pop_back();
        }
        self.bandwidths.push_back((self.round, rate));
        let forgotten = |&(round, _): &(u64, f64)| round + BANDWIDTH_ROUNDS < self.round;
        while self.bandwidths.front().is_some_and(forgotten) {
            self.bandwidths.pop_front();
        }
    }

    fn update_cycle(&mut self, now: Time, sample: &Sample, in_flight: f64) {
        if self.mode != Mode::Probe {
            return;
        }
        let least = self.least.map_or(Duration::ZERO, |(least, _)| least);
        let is_over = now - self.cycle_began > least;
        let gain = self.pacing_gain();
        let next = if gain > 1.0 {
            is_over && (sample.lost > 0 || in_flight >= self.in_flight(gain))
        } else if gain < 1.0 {
            is_over || in_flight <= self.in_flight(1.0)
        } else {
            is_over
        };
        if next {
            self.cycle = (self.cycle + 1) % 8;
            self.cycle_began = now;
        }
    }

    fn update_full(&mut self, sample: &Sample) {
        if self.is_full || !self.round_began || sample.app_limited {
            return;
        }
        if self.bandwidth() >= self.full * 1.25 {
            self.full = self.bandwidth();
            self.full_rounds = 0;
            return;
        }
        self.full_rounds += 1;
        self.is_full = self.full_rounds >= 3;
    }

    fn update_drain(&mut self, now: Time, in_flight: f64) {
        if self.mode == Mode::Startup && self.is_full {
            self.mode = Mode::Drain;
        }
        if self.mode == Mode::Drain && in_flight <= self.in_flight(1.0) {
            self.mode = Mode::Probe;
            self.cycle_began = now;
        }
    }

    fn update_round_trip(&mut self, now: Time, sample: &Sample) {
        let Some(measured) = sample.round_trip else {
            return;
        };
        let keeps = self
            .least
            .is_some_and(|(least, at)| measured >= least && now - at <= ROUND_TRIP_MEMORY);
        if !keeps {
            self.least = Some((measured, now));
        }
    }

    fn set_window(
        &mut self,
        window: &mut Window,
        sample: &Sample,
        (delivered, in_flight): (u64, f64),
        recovery: Recovery,
    ) {
        let acked = f64::from(sample.acked);
        if sample.acked == 0 {
            return;
        }
        let mut size = (window.segments - f64::from(sample.lost)).max(1.0);
        let before = self.recovery;
        self.recovery = recovery;
        if recovery == Recovery::Fast && before != Recovery::Fast {
            self.conserves = true;
            self.round_ends = delivered;
            size = in_flight + acked;
        } else if before != Recovery::Open && recovery == Recovery::Open {
            size = size.max(self.prior_window);
            self.conserves = false;
        }
        if self.conserves {
            window.segments = size.max(in_flight + acked).max(LEAST_WINDOW);
            return;
        }
        let target = self.in_flight(self.window_gain());
        if self.is_full {
            size = (size + acked).min(target);
        } else if size < target || delivered < INITIAL_WINDOW as u64 {
            size += acked;
        }
        window.segments = size.max(LEAST_WINDOW);
    }
}
