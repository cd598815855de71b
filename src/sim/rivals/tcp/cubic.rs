//! CUBIC: the window along a cubic curve from the last loss on (RFC 9438), slow start left by HyStart.

use std::time::Duration;

use super::Window;
use crate::time::Time;

/// RFC 9438 section 5.
const CUBE: f64 = 0.4;
const BETA: f64 = 0.7;
/// Growth of the window that Reno would have, RFC 9438 section 4.3.
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);
/// Segments below which slow start is never left early: Linux's `hystart_low_window`.
const HYSTART_LEAST: f64 = 16.0;
/// Acknowledgements closer than this belong to one train: `hystart_ack_delta_us`.
const TRAIN_GAP: Duration = Duration::from_millis(2);
/// Round-trip times of a round that are looked at: `HYSTART_MIN_SAMPLES`.
const ROUND_SAMPLES: u32 = 8;

/// The state of the curve.
#[derive(Debug, Default)]
pub struct Cubic {
    epoch: Option<Time>,
    last_most: f64,
    origin: f64,
    turn_s: f64,
    reno: f64,
    round: Round,
}

/// A round trip of slow start.
#[derive(Debug, Default)]
struct Round {
    end: u64,
    began: Time,
    last_ack: Time,
    least: Option<Duration>,
    samples: u32,
}

impl Cubic {
    /// The threshold after a loss; the curve begins anew.
    pub fn lose(&mut self, window: f64) -> f64 {
        self.epoch = None;
        self.last_most = match window < self.last_most {
            true => window * (1.0 + BETA) / 2.0,
            false => window,
        };
        (window * BETA).max(2.0)
    }

    /// A time-out: what was known is forgotten, as `bictcp_state` does.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Nothing was sent for that long: the curve waits.
    pub fn idle(&mut self, idle: Duration) {
        self.epoch = self.epoch.map(|epoch| epoch + idle);
    }

    /// `acked` segments were acknowledged while the window was full.
    pub fn grow(&mut self, now: Time, window: &mut Window, acked: u32, least: Option<Duration>) {
        let mut acked = f64::from(acked);
        if window.segments < window.threshold {
            let grown = (window.segments + acked).min(window.threshold);
            acked -= grown - window.segments;
            window.segments = grown;
            if acked <= 0.0 {
                return;
            }
        }
        let size = window.segments;
        let epoch = match self.epoch {
            Some(epoch) => epoch,
            None => {
                self.reno = size;
                self.origin = self.last_most.max(size);
                self.turn_s = ((self.origin - size) / CUBE).cbrt();
                *self.epoch.insert(now)
            }
        };
        let elapsed = (now - epoch + least.unwrap_or_default()).as_secs_f64();
        let target = self.origin + CUBE * (elapsed - self.turn_s).powi(3);
        let target = target.clamp(size, size * 1.5);
        self.reno += ALPHA * acked / size;
        let towards = target.max(self.reno);
        let step = ((towards - size) / size * acked).max(0.01 * acked / size);
        window.segments += step.min(acked / 2.0);
    }

    /// Leaves slow start where the round-trip time grows or a train of acknowledgements is as long as half of it.
    pub fn watch(
        &mut self,
        now: Time,
        window: &mut Window,
        (acknowledged, sent): (u64, u64),
        round_trip: Option<Duration>,
        least: Option<Duration>,
    ) {
        let Some(least) = least else { return };
        let round = &mut self.round;
        if acknowledged > round.end {
            *round = Round {
                end: sent,
                began: now,
                last_ack: now,
                ..Round::default()
            };
        }
        if window.segments >= window.threshold || window.segments < HYSTART_LEAST {
            return;
        }
        let mut leave = false;
        if now - round.last_ack <= TRAIN_GAP {
            round.last_ack = now;
            leave = now - round.began > least / 2;
        }
        if round.samples < ROUND_SAMPLES {
            if let Some(measured) = round_trip {
                round.least = Some(round.least.map_or(measured, |least| least.min(measured)));
                round.samples += 1;
            }
        } else if let Some(measured) = round.least {
            let more = (least / 8).clamp(Duration::from_millis(4), Duration::from_millis(16));
            leave |= measured > least + more;
        }
        if leave {
            window.threshold = window.segments;
        }
    }
}
