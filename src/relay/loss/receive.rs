//! The receiver's side: the replay window, and the reports of what arrived.

use std::time::Duration;

use arrayvec::ArrayVec;

use super::{MAX_REPORT_DELAY, MAX_REPORT_WORDS, expand};
use crate::time::Time;

/// Eliciting datagrams after which a report is due at once. Four keep reports near 1% of the bytes
/// reported, and a loss is noticed within a millisecond at 50 Mbit/s.
pub(crate) const ACK_EVERY: u32 = 4;

/// Reports are at least this far apart, unless [`MAX_UNREPORTED`] datagrams wait: at 2 Gbit/s one report
/// then covers 50 datagrams, and a sender that provokes reports by gaps gets 4,000 a second at most.
pub(crate) const MIN_REPORT_SPACING: Duration = Duration::from_micros(250);

/// Eliciting datagrams that wait for a report at most: a quarter of what one report can name, so that
/// a lost report costs nothing.
pub(crate) const MAX_UNREPORTED: u32 = 64;

/// Sequence numbers below the highest that can still be told apart as new or replayed. 2,048 datagrams
/// are 10 ms of reordering at 2 Gbit/s; the bitmap costs 256 bytes a session.
pub(crate) const REPLAY_WINDOW: u64 = 2_048;

/// What a receiver tells its sender (wire: `RX_REPORT`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// Low half of the highest sequence received.
    pub(crate) highest: u32,
    /// Microseconds since that one was received.
    pub(crate) delay_us: u32,
    /// Bit k of word w: the number `highest - 1 - 64 w - k` was received. One to four words.
    pub(crate) words: ArrayVec<u64, MAX_REPORT_WORDS>,
}

const RING_WORDS: usize = (REPLAY_WINDOW / 64) as usize;
const _: () = assert!(REPLAY_WINDOW.is_power_of_two() && REPLAY_WINDOW >= 1_024);

/// Sequence numbers below the highest after which a missing one counts as lost in
/// [`ReceiveLog::loss_share`]; wide enough for ordinary reordering.
const LOSS_HORIZON: u64 = 64;

/// The receiver's side: which sequence numbers arrived, and when to say so.
///
/// The window is a ring of bits as in RFC 6479. [`check`](Self::check) comes before the MAC is verified and changes
/// nothing; [`record`](Self::record) comes after.
#[derive(Debug)]
pub(crate) struct ReceiveLog {
    ring: [u64; RING_WORDS],
    highest: u64,
    highest_at: Time,
    unreported: u32,
    oldest_unreported: Time,
    urgent: bool,
    last_report: Option<Time>,
    /// The highest at each of the last four reports: the next one reaches back to the oldest of them, so
    /// that four reports in a row must be lost before an arrival goes unnoticed.
    reported: [u64; 4],
    loss_share: f64,
}

impl ReceiveLog {
    /// A log in which nothing arrived.
    pub(crate) const fn new() -> Self {
        Self {
            ring: [0; RING_WORDS],
            highest: 0,
            highest_at: Time::ZERO,
            unreported: 0,
            oldest_unreported: Time::ZERO,
            urgent: false,
            last_report: None,
            reported: [0; 4],
            loss_share: 0.0,
        }
    }

    fn place(sequence: u64) -> (usize, u64) {
        let bit = sequence % REPLAY_WINDOW;
        // Below RING_WORDS, so it fits.
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    fn holds(&self, sequence: u64) -> bool {
        let (word, mask) = Self::place(sequence);
        sequence > 0
            && sequence <= self.highest
            && self.highest - sequence < REPLAY_WINDOW
            && self.ring.get(word).is_some_and(|held| held & mask != 0)
    }

    fn set(&mut self, sequence: u64, present: bool) {
        let (word, mask) = Self::place(sequence);
        if let Some(held) = self.ring.get_mut(word) {
            if present {
                *held |= mask;
            } else {
                *held &= !mask;
            }
        }
    }

    /// The full number of an arriving datagram by its low half, if it is new; `None` if it is a replay or
    /// older than the window.
    pub(crate) fn check(&self, low: u32) -> Option<u64> {
        let sequence = expand(low, self.highest)?;
        if sequence > self.highest {
            return Some(sequence);
        }
        (self.highest - sequence < REPLAY_WINDOW && !self.holds(sequence)).then_some(sequence)
    }

    /// Notes an authentic datagram, with the number that [`check`](Self::check) gave. `eliciting`: it carried something that asks
    /// for a report.
    pub(crate) fn record(&mut self, sequence: u64, now: Time, eliciting: bool) {
        if sequence == 0 || self.holds(sequence) {
            return;
        }
        let in_order = sequence == self.highest + 1;
        if sequence > self.highest {
            self.advance(sequence);
            self.highest_at = now;
        } else if self.highest - sequence >= REPLAY_WINDOW {
            return;
        }
        self.set(sequence, true);
        if eliciting {
            if self.unreported == 0 {
                self.oldest_unreported = now;
            }
            self.unreported = self.unreported.saturating_add(1);
            // RFC 9000 section 13.2.1: out of order is told at once.
            self.urgent |= !in_order;
        }
    }

    fn advance(&mut self, to: u64) {
        let steps = (to - self.highest).min(REPLAY_WINDOW);
        let from = to - steps + 1;
        for sequence in from..=to {
            self.set(sequence, false);
            self.highest = sequence;
            if let Some(judged) = sequence.checked_sub(LOSS_HORIZON).filter(|&old| old > 0) {
                let missing = if self.holds(judged) { 0.0 } else { 1.0 };
                self.loss_share += (missing - self.loss_share) / 128.0;
            }
        }
    }

    /// When the next report is due; `None` while there is nothing to report.
    pub(crate) fn report_due(&self) -> Option<Time> {
        if self.unreported == 0 {
            return None;
        }
        let at = if self.urgent || self.unreported >= ACK_EVERY {
            self.oldest_unreported
        } else {
            self.oldest_unreported + MAX_REPORT_DELAY
        };
        if self.unreported >= MAX_UNREPORTED {
            return Some(at);
        }
        let spaced = self.last_report.map(|last| last + MIN_REPORT_SPACING);
        Some(spaced.map_or(at, |spaced| at.max(spaced)))
    }

    /// Whether anything arrived that a report could name.
    pub(crate) const fn has_received(&self) -> bool {
        self.highest > 0
    }

    /// Writes the report and counts everything as told. Before anything has arrived there is nothing to say: then it names
    /// sequence 0, which no sender accepts; ask [`report_due`](Self::report_due) first.
    pub(crate) fn report(&mut self, now: Time) -> Report {
        let reach = self.highest - self.reported.iter().copied().min().unwrap_or(0);
        let count = reach.div_ceil(64).clamp(1, MAX_REPORT_WORDS as u64);
        let mut words = ArrayVec::new();
        for index in 0..count {
            let mut word = 0;
            for bit in 0..64 {
                let below = 1 + 64 * index + bit;
                let received = self
                    .highest
                    .checked_sub(below)
                    .is_some_and(|sequence| self.holds(sequence));
                word |= u64::from(received) << bit;
            }
            words.push(word);
        }
        while words.len() > 1 && words.last() == Some(&0) {
            words.pop();
        }
        self.reported.rotate_left(1);
        if let Some(last) = self.reported.last_mut() {
            *last = self.highest;
        }
        self.unreported = 0;
        self.urgent = false;
        self.last_report = Some(now);
        #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
        let highest = self.highest as u32;
        Report {
            highest,
            delay_us: u32::try_from((now - self.highest_at).as_micros()).unwrap_or(u32::MAX),
            words,
        }
    }

    /// Share of datagrams that were lost on the way here, 0 to 1: a moving mean over the last hundred or so.
    pub(crate) const fn loss_share(&self) -> f64 {
        self.loss_share
    }
}
