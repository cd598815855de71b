//! What the pacer concludes at the end of each round trip: queue, loss, and what to do next.

use std::time::Duration;

use super::rivals::Rivals;
use super::{
    DATAGRAM, INITIAL_FLIGHT, LEAST_FLIGHT, LEAST_WINDOW, Mode, Pacer, Round, per_round_trip,
};
use crate::time::Time;

/// A round that loses more than this share makes the pacer slow down. Two percent, BBR's value, is what good
/// links lose at random; a probe of 1.25 into a link without any buffer loses 20%.
const HEAVY_LOSS: f64 = 0.22;

/// Loss that is taken as the path's own, at most. The relay must move at 30%; at half, a path is not worth its bytes.
const MAX_TOLERATED_LOSS: f64 = 0.4;

/// A round whose least round-trip time is within this of the least ever found the queue empty at times.
const EMPTY_QUEUE: Duration = Duration::from_micros(1_500);

/// Phases of a cruising cycle, in rounds: up, down, then as it is.
const CYCLE: u32 = 8;

/// How long a least round-trip time stands (BBR.MinRTTFilterLen).
const MIN_ROUND_TRIP_LIFE: Duration = Duration::from_secs(10);

impl Pacer {
    /// Judges the round trip that ends now, and begins the next.
    pub(super) fn end_round(&mut self, now: Time, delivered: u64) {
        let round = self.round;
        self.round = Round {
            ends_at: delivered,
            ..Round::default()
        };
        let total = round.acked + round.lost;
        #[expect(
            clippy::cast_precision_loss,
            reason = "a share; precision does not matter"
        )]
        let loss = if total == 0 {
            0.0
        } else {
            round.lost as f64 / total as f64
        };
        if let Some(least) = round.least_rtt.filter(|_| round.samples >= 3) {
            let stands = least > self.standing_queue();
            let floor_yields = self.floor <= per_round_trip(self.bandwidth(), self.round_trip());
            let yields =
                self.queue_stands && floor_yields && matches!(self.mode, Mode::Cruise { .. });
            let yields = yields && least > self.longest_own_queue();
            self.queue_stands = stands && !self.rivals.are_there(stands, yields);
        } else {
            // Too few to judge: they count for the next round.
            self.round.samples = round.samples;
            self.round.least_rtt = round.least_rtt;
        }
        let heavy = total >= 12 * DATAGRAM && self.judge_loss(loss, &round);
        if self.queue_stands {
            self.floor = (self.floor * 3 / 4).max(LEAST_WINDOW);
        }
        if loss < HEAVY_LOSS / 2.0 && total >= LEAST_FLIGHT {
            self.flight = (self.flight * 5 / 4).min(INITIAL_FLIGHT);
        }
        if self.queue_stands || self.rivals == Rivals::There {
            // What a flight's train says beside others is what they left, not what is ours to have.
            self.assumed = None;
        }
        self.judge_mode(now, &round, heavy);
        if !round.app_limited {
            self.rates.rotate_right(1);
            if let Some(running) = self.rates.first_mut() {
                *running = 0;
            }
        }
    }

    /// Judges a round's share of losses; true if the rate was cut for it.
    ///
    /// A cut shows in the losses two rounds later. If they are then no fewer, it was not our rate that
    /// caused them: that share is tolerated from now on, as long as it lasts and no queue says otherwise (a
    /// queue so short that it always overflows is always full).
    fn judge_loss(&mut self, loss: f64, round: &Round) -> bool {
        let empty = round
            .least_rtt
            .is_some_and(|least| least <= self.round_trip() + EMPTY_QUEUE);
        if !empty {
            self.tolerated /= 2.0;
        }
        if let Some((before, rounds)) = self.cut {
            if rounds > 0 {
                self.cut = Some((before, rounds - 1));
                return false;
            }
            self.cut = None;
            if loss > HEAVY_LOSS && loss > before * 0.75 && empty {
                self.tolerated = loss.min(MAX_TOLERATED_LOSS);
                self.cap = None;
                return false;
            }
        }
        if loss < self.tolerated {
            self.tolerated += (loss - self.tolerated) / 4.0;
        }
        if loss <= self.tolerated + HEAVY_LOSS {
            return false;
        }
        self.cut = Some((loss, 1));
        self.cap = Some((self.bandwidth() * 7 / 10).max(round.best_rate).max(1));
        self.assumed = None;
        self.floor = (self.floor * 3 / 4).max(LEAST_WINDOW);
        self.flight = (self.flight / 2).max(LEAST_FLIGHT);
        true
    }

    /// A round whose least round-trip time is beyond this has a standing queue (RFC 9406's bounds, wider by the
    /// delay of reports).
    fn standing_queue(&self) -> Duration {
        let least = self.round_trip();
        least + (least / 8).clamp(Duration::from_millis(4), Duration::from_millis(16))
    }

    /// A round trip that is longer than this has another's queue in it, where we have no more in flight than the least
    /// window, which is also as much as the first report of a flight speaks of. Boundless while the path is unknown.
    pub(super) fn longest_own_queue(&self) -> Duration {
        match self.bandwidth() {
            _ if self.min_rtt.is_none() => Duration::MAX,
            0 => Duration::MAX,
            rate => {
                self.standing_queue() + Duration::from_nanos(LEAST_WINDOW * 1_000_000_000 / rate)
            }
        }
    }

    fn judge_mode(&mut self, now: Time, round: &Round, heavy: bool) {
        match self.mode {
            Mode::Startup => self.judge_startup(round, heavy),
            // A round was enough to empty what startup had left; if not, cruising sees the queue.
            Mode::Drain => self.mode = Mode::Cruise { phase: 2 },
            Mode::ProbeRoundTrip { .. } => {}
            Mode::Cruise { phase } => {
                let grown = round.best_rate > self.full.0 * 115 / 100;
                let next = if self.queue_stands || heavy {
                    2
                } else if phase <= 1 && grown && !round.app_limited {
                    // The probe found room: probe again without waiting for the next cycle.
                    self.full.0 = round.best_rate;
                    0
                } else {
                    (phase + 1) % CYCLE
                };
                if next == 0 {
                    self.cap = None;
                    self.full.0 = self.measured_rate();
                }
                self.mode = Mode::Cruise { phase: next };
            }
        }
        let stale = self
            .min_rtt
            .is_some_and(|(_, at)| now - at > MIN_ROUND_TRIP_LIFE);
        if stale && matches!(self.mode, Mode::Cruise { .. }) && !round.app_limited {
            self.mode = Mode::ProbeRoundTrip { since: now };
            // Relearned from what comes now; the old value only bounds the window meanwhile.
            self.min_rtt = self.min_rtt.map(|(rtt, _)| (rtt.mul_f64(1.5), now));
        }
    }

    fn judge_startup(&mut self, round: &Round, heavy: bool) {
        if let Some(assumed) = &mut self.assumed {
            if round.app_limited {
                return;
            }
            assumed.rounds += 1;
            if assumed.rounds >= 2 {
                let goal = assumed.rate;
                self.assumed = None;
                if self.measured_rate() >= goal * 7 / 10 {
                    self.full = (self.measured_rate(), 0);
                    self.mode = Mode::Cruise { phase: 0 };
                }
            }
            return;
        }
        let mut done = heavy || self.queue_stands;
        if !round.app_limited {
            let rate = self.measured_rate();
            if rate > self.full.0 * 5 / 4 {
                self.full = (rate, 0);
            } else {
                self.full.1 += 1;
            }
            done |= self.full.1 >= 3;
        }
        if done && self.measured_rate() > 0 {
            self.full.0 = self.measured_rate();
            self.mode = Mode::Drain;
        }
    }
}
