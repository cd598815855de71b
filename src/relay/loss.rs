//! What was sent and what arrived: the sender's log of datagrams, loss detection from receive
//! reports, the receiver's replay window and the reports it writes.
//!
//! The ideas are those of RFC 9002 (loss detection of QUIC), on one number space per direction of a
//! session. Nothing is retransmitted here: a datagram's *contents* come back to the caller, once, as
//! acknowledged or as lost, and the caller decides what is still worth sending. What this is not:
//! congestion control, which is [`super::pacing`].

#![allow(dead_code, reason = "wired up by the session")]

use std::collections::VecDeque;
use std::time::Duration;

mod outcome;
mod receive;
mod rtt;

pub(crate) use outcome::{Departed, Outcome, ReportRefused};
#[allow(unused_imports, reason = "wired up by the session")]
pub(crate) use receive::{ReceiveLog, Report};
pub(crate) use rtt::Rtt;

use super::pacing::DeliverySample;
use crate::time::Time;

/// Datagrams that one session's log holds at most: 25 MB in flight at 1,200 bytes, which is 2 Gbit/s
/// over 100 ms. Whatever lies beyond it is handed back as lost.
pub(crate) const MAX_LOGGED: usize = 1 << 15;

/// Words of a report's bitmap at most (wire: `RX_REPORT`): 256 sequence numbers below the highest.
pub(crate) const MAX_REPORT_WORDS: usize = 4;

/// The longest time that the arrival of an eliciting datagram goes unreported. It stands in the
/// sender's probe time-out, so it is short; it saves reports only on slow links.
pub(crate) const MAX_REPORT_DELAY: Duration = Duration::from_millis(2);

/// RFC 9002 section 6.1.1, kPacketThreshold: what it starts at and falls back to.
const PACKET_THRESHOLD: u64 = 3;

/// The packet threshold after reordering was seen is at most this. A datagram re-sent for nothing costs its
/// bytes, a loss noticed late costs time: 64 datagrams are 12 ms at 50 Mbit/s. The time threshold of an eighth of a
/// round trip holds beside it.
const MAX_PACKET_THRESHOLD: u64 = 64;

/// Datagrams that a first probe time-out gives back at most. RFC 9002 section 6.2.4 sends one or two
/// probes and waits; a tail lost in a burst would then cost one more round trip.
const PROBE_DATAGRAMS: usize = 16;

/// Doublings of the probe time-out at most: a dead path over 100 ms is then probed every two seconds, which
/// costs nothing and finds it again soon; the session's own time-out decides when to stop.
const MAX_BACKOFF: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Counted in flight, contents held.
    Outstanding,
    /// Sent without anything that asks for a report; never in flight.
    Quiet,
    /// Declared lost, contents given back; kept so that a late report shows reordering.
    Lost,
    /// Reported.
    Acked,
    /// A number that was skipped: reporting it is a lie.
    NeverSent,
}

#[derive(Debug)]
struct Entry<T> {
    state: State,
    time: Time,
    bytes: u32,
    app_limited: bool,
    delivered: u64,
    delivered_time: Time,
    first_sent_time: Time,
    contents: Option<T>,
}

/// The sender's side: every datagram sent in this session that may still be reported.
///
/// A datagram is in exactly one [`State`]. Contents come back exactly once, as acknowledged or lost.
/// What it does not defend against: a peer that reports as received what was lost on the way only
/// harms its own transfer, up to the rate that the operator allows.
#[derive(Debug)]
pub(crate) struct SendLog<T> {
    entries: VecDeque<Entry<T>>,
    /// Sequence of `entries[0]`.
    first: u64,
    handed_out: u64,
    highest_acked: u64,
    in_flight: u64,
    outstanding: usize,
    delivered: u64,
    delivered_time: Time,
    first_sent_time: Time,
    /// Until `delivered` passes this, what is sent is limited by the application.
    app_limited_until: Option<u64>,
    rtt: Rtt,
    packet_threshold: u64,
    threshold_holds_until: u64,
    loss_time: Option<Time>,
    last_eliciting: Time,
    probes: u32,
    overflow: Vec<Departed<T>>,
}

impl<T> SendLog<T> {
    /// An empty log; the first sequence is 1.
    pub(crate) fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            first: 1,
            handed_out: 0,
            highest_acked: 0,
            in_flight: 0,
            outstanding: 0,
            delivered: 0,
            delivered_time: Time::ZERO,
            first_sent_time: Time::ZERO,
            app_limited_until: None,
            rtt: Rtt::new(),
            packet_threshold: PACKET_THRESHOLD,
            threshold_holds_until: 0,
            loss_time: None,
            last_eliciting: Time::ZERO,
            probes: 0,
            overflow: Vec::new(),
        }
    }

    /// The number of the next datagram. Each call gives a new one; a number that is then not
    /// [`sent`](Self::sent) is a hole which no honest peer reports.
    pub(crate) fn next_sequence(&mut self) -> u64 {
        self.handed_out += 1;
        self.handed_out
    }

    /// How many datagrams are logged.
    pub(crate) fn logged(&self) -> usize {
        self.entries.len()
    }

    /// Whether another datagram can be logged without giving up the oldest one.
    pub(crate) fn has_room(&self) -> bool {
        self.entries.len() < MAX_LOGGED
    }

    /// Notes a datagram of `bytes` (as sent, without IP and UDP headers). `eliciting`: it carries
    /// something that asks for a report; others are neither in flight nor ever given back.
    ///
    /// Sequences come in rising order, as [`next_sequence`](Self::next_sequence) gave them; an older one is ignored.
    pub(crate) fn sent(
        &mut self,
        sequence: u64,
        now: Time,
        bytes: u32,
        contents: T,
        eliciting: bool,
    ) {
        let next = self.first + self.entries.len() as u64;
        if sequence < next || sequence > self.handed_out {
            debug_assert!(false, "sequence {sequence} is not the next one, {next}");
            return;
        }
        if self.in_flight == 0 {
            self.first_sent_time = now;
            self.delivered_time = now;
        }
        for _ in next..sequence {
            self.push(State::NeverSent, now, 0, None);
        }
        if eliciting {
            self.push(State::Outstanding, now, bytes, Some(contents));
            self.in_flight += u64::from(bytes);
            self.outstanding += 1;
            self.last_eliciting = now;
        } else {
            self.push(State::Quiet, now, bytes, None);
        }
    }

    fn push(&mut self, state: State, now: Time, bytes: u32, contents: Option<T>) {
        if self.entries.len() >= MAX_LOGGED {
            let oldest = self.first;
            if let Some(given_back) = self.take(oldest, State::Lost) {
                self.overflow.push(given_back);
            }
            self.entries.pop_front();
            self.first += 1;
        }
        self.entries.push_back(Entry {
            state,
            time: now,
            bytes,
            app_limited: self
                .app_limited_until
                .is_some_and(|until| self.delivered <= until),
            delivered: self.delivered,
            delivered_time: self.delivered_time,
            first_sent_time: self.first_sent_time,
            contents,
        });
    }

    /// Says that the caller has nothing more to send although the pacer would allow it: what is measured
    /// from now on, until what is in flight now has arrived, is the application's rate and not the path's.
    pub(crate) fn mark_app_limited(&mut self) {
        self.app_limited_until = Some(self.delivered + self.in_flight);
    }

    fn entry(&self, sequence: u64) -> Option<&Entry<T>> {
        let index = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        self.entries.get(index)
    }

    fn entry_mut(&mut self, sequence: u64) -> Option<&mut Entry<T>> {
        let index = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        self.entries.get_mut(index)
    }

    /// Moves an outstanding datagram to another state and gives back what it carried.
    fn take(&mut self, sequence: u64, state: State) -> Option<Departed<T>> {
        let entry = self.entry_mut(sequence)?;
        if entry.state != State::Outstanding {
            return None;
        }
        entry.state = state;
        let bytes = entry.bytes;
        let contents = entry.contents.take()?;
        self.in_flight -= u64::from(bytes);
        self.outstanding -= 1;
        Some((sequence, bytes, contents))
    }

    fn lose(&mut self, sequence: u64, out: &mut Outcome<T>) {
        if let Some(departed) = self.take(sequence, State::Lost) {
            out.lost_bytes += u64::from(departed.1);
            out.lost.push(departed);
        }
    }

    fn give_back_overflow(&mut self, out: &mut Outcome<T>) {
        for departed in self.overflow.drain(..) {
            out.lost_bytes += u64::from(departed.1);
            out.lost.push(departed);
        }
    }

    /// Applies a receive report (wire: `RX_REPORT`): `highest_low` is the low half of the highest sequence
    /// received, bit k of word w stands for that number less `1 + 64 w + k`.
    ///
    /// # Errors
    ///
    /// If any sequence it names was never sent. Then nothing was changed.
    pub(crate) fn on_report(
        &mut self,
        highest_low: u32,
        words: &[u64],
        delay_us: u32,
        now: Time,
        out: &mut Outcome<T>,
    ) -> Result<(), ReportRefused> {
        let highest = self.checked_highest(highest_low, words)?;
        let mut elicited = false;
        let raw = self
            .entry(highest)
            .filter(|entry| matches!(entry.state, State::Outstanding | State::Quiet))
            .map(|entry| now - entry.time);
        for sequence in named(highest, words) {
            if sequence < self.first {
                break;
            }
            elicited |= self.acknowledge(sequence, now, out);
        }
        if let (Some(raw), true) = (raw, elicited) {
            self.rtt
                .sample(raw, Duration::from_micros(u64::from(delay_us)));
            out.rtt_sample = Some(self.rtt.latest());
        }
        if elicited {
            self.probes = 0;
        }
        if let Some(sample) = &mut out.sample {
            sample.delivered = self.delivered;
            sample.rtt = out.rtt_sample;
        }
        let previous = self.highest_acked;
        self.highest_acked = previous.max(highest);
        if self.highest_acked > self.threshold_holds_until {
            self.packet_threshold = PACKET_THRESHOLD.max(self.packet_threshold - 1);
            self.threshold_holds_until = self.highest_sent();
        }
        self.detect(previous, now, out);
        self.give_back_overflow(out);
        self.trim();
        Ok(())
    }

    fn highest_sent(&self) -> u64 {
        self.first + self.entries.len() as u64 - 1
    }

    fn checked_highest(&self, low: u32, words: &[u64]) -> Result<u64, ReportRefused> {
        if words.len() > MAX_REPORT_WORDS {
            return Err(ReportRefused::TooLong);
        }
        let highest_sent = self.highest_sent();
        let highest = expand(low, highest_sent).ok_or(ReportRefused::NeverSent)?;
        if highest > highest_sent {
            return Err(ReportRefused::NeverSent);
        }
        let span = words.iter().rposition(|&word| word != 0).map_or(0, |last| {
            let word = words.get(last).copied().unwrap_or(0);
            64 * last as u64 + 64 - u64::from(word.leading_zeros())
        });
        if span >= highest {
            return Err(ReportRefused::NeverSent);
        }
        let never = |sequence| {
            self.entry(sequence)
                .is_some_and(|entry| entry.state == State::NeverSent)
        };
        if named(highest, words).any(never) {
            return Err(ReportRefused::NeverSent);
        }
        Ok(highest)
    }

    /// Notes one arrival; true if an eliciting datagram is newly acknowledged by it.
    fn acknowledge(&mut self, sequence: u64, now: Time, out: &mut Outcome<T>) -> bool {
        let highest_acked = self.highest_acked;
        let Some(entry) = self.entry_mut(sequence) else {
            return false;
        };
        let state = entry.state;
        if !matches!(state, State::Outstanding | State::Quiet | State::Lost) {
            return false;
        }
        if state == State::Lost {
            out.spurious += 1;
        }
        if sequence < highest_acked && state != State::Quiet {
            let extent = highest_acked - sequence + 1;
            self.packet_threshold = self.packet_threshold.max(extent).min(MAX_PACKET_THRESHOLD);
            self.threshold_holds_until = self.highest_sent();
        }
        if state == State::Quiet {
            if let Some(entry) = self.entry_mut(sequence) {
                entry.state = State::Acked;
            }
            return false;
        }
        self.note_delivery(sequence, now, out);
        if let Some(departed) = self.take(sequence, State::Acked) {
            out.acked_bytes += u64::from(departed.1);
            out.acked.push(departed);
            return true;
        }
        if let Some(entry) = self.entry_mut(sequence) {
            entry.state = State::Acked;
            let bytes = u64::from(entry.bytes);
            if let Some(sample) = &mut out.sample {
                sample.spurious_bytes += bytes;
            }
        }
        false
    }

    /// Delivery-rate sampling as in draft-cheng-iccrg-delivery-rate-estimation: the sample is that of
    /// the most recently sent of the datagrams acknowledged together.
    fn note_delivery(&mut self, sequence: u64, now: Time, out: &mut Outcome<T>) {
        let Some(entry) = self.entry(sequence) else {
            return;
        };
        let bytes = u64::from(entry.bytes);
        let sample = DeliverySample {
            acked_bytes: 0,
            spurious_bytes: 0,
            delivered: 0,
            prior_delivered: entry.delivered,
            interval: (entry.time - entry.first_sent_time).max(now - entry.delivered_time),
            app_limited: entry.app_limited,
            rtt: None,
        };
        let time = entry.time;
        let newer = out
            .sample
            .is_none_or(|held| sample.prior_delivered >= held.prior_delivered);
        if newer && time >= self.first_sent_time {
            self.first_sent_time = time;
        }
        let kept = match out.sample {
            Some(held) if held.prior_delivered > sample.prior_delivered => held,
            // Named from the highest downwards: of equals the first is the newest.
            Some(held) if held.prior_delivered == sample.prior_delivered => held,
            _ => sample,
        };
        self.delivered += bytes;
        self.delivered_time = now;
        let held = out.sample;
        out.sample = Some(DeliverySample {
            acked_bytes: held.map_or(0, |held| held.acked_bytes) + bytes,
            spurious_bytes: held.map_or(0, |held| held.spurious_bytes),
            ..kept
        });
    }

    /// RFC 9002 section 6.1: by packet threshold and by time threshold, among the datagrams below the
    /// highest acknowledged. `previous` was the highest before: what lies more than the largest
    /// threshold below it has been judged.
    fn detect(&mut self, previous: u64, now: Time, out: &mut Outcome<T>) {
        let delay = self.rtt.loss_delay();
        let from = previous
            .saturating_sub(MAX_PACKET_THRESHOLD)
            .max(self.first);
        self.loss_time = None;
        for sequence in from..self.highest_acked {
            let Some(entry) = self.entry(sequence) else {
                continue;
            };
            if entry.state != State::Outstanding {
                continue;
            }
            let due = entry.time + delay;
            if self.highest_acked - sequence >= self.packet_threshold || due <= now {
                self.lose(sequence, out);
            } else {
                self.loss_time = Some(self.loss_time.map_or(due, |held| held.min(due)));
            }
        }
    }

    /// Drops what no report can name any more, and everything once nothing is outstanding below.
    fn trim(&mut self) {
        let horizon = self
            .highest_acked
            .saturating_sub(64 * MAX_REPORT_WORDS as u64);
        while self.first < horizon {
            match self.entries.front() {
                Some(entry) if entry.state == State::Outstanding => break,
                Some(_) => {
                    self.entries.pop_front();
                    self.first += 1;
                }
                None => break,
            }
        }
    }

    /// To be called when [`deadline`](Self::deadline) has come (earlier calls do nothing): losses by time
    /// (RFC 9002 section 6.1.2), or the probe time-out (section 6.2), which doubles each time.
    ///
    /// Unlike RFC 9002 the first probe time-out gives back up to sixteen of the oldest datagrams, so that the
    /// probes are the data that was probably lost; the second gives back everything older than it.
    pub(crate) fn on_timeout(&mut self, now: Time, out: &mut Outcome<T>) {
        self.give_back_overflow(out);
        if self.loss_time.is_some_and(|due| due <= now) {
            self.detect(self.highest_acked, now, out);
            return;
        }
        if self.probe_time().is_none_or(|due| due > now) {
            return;
        }
        self.probes += 1;
        out.probe = Some(self.probes);
        let limit = if self.probes == 1 {
            PROBE_DATAGRAMS
        } else {
            usize::MAX
        };
        let sent_by = now - self.rtt.probe_timeout();
        let mut given_back = 0;
        for sequence in self.first..=self.highest_sent() {
            let Some(entry) = self.entry(sequence) else {
                break;
            };
            if given_back == limit || entry.time > sent_by {
                break;
            }
            if entry.state == State::Outstanding {
                self.lose(sequence, out);
                given_back += 1;
            }
        }
        // The back-off counts from this probe, whether or not the caller found anything to send.
        self.last_eliciting = now;
        self.loss_time = None;
        self.detect(self.highest_acked, now, out);
    }

    fn probe_time(&self) -> Option<Time> {
        (self.outstanding > 0).then(|| {
            let backoff = 1u32 << self.probes.min(MAX_BACKOFF);
            self.last_eliciting + self.rtt.probe_timeout() * backoff
        })
    }

    /// When [`on_timeout`](Self::on_timeout) wants to be called; `None` while nothing is in flight.
    pub(crate) fn deadline(&self) -> Option<Time> {
        // A pending loss is sooner than the probe that would follow it (RFC 9002, SetLossDetectionTimer).
        self.loss_time.or_else(|| self.probe_time())
    }

    /// Bytes of eliciting datagrams neither reported nor taken as lost.
    pub(crate) const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Bytes reported as received since the session began.
    pub(crate) const fn delivered_bytes(&self) -> u64 {
        self.delivered
    }

    /// Round-trip time.
    pub(crate) const fn rtt(&self) -> &Rtt {
        &self.rtt
    }

    /// A round trip measured in another way, by the PING that validated the path.
    pub(crate) fn note_round_trip(&mut self, round_trip: Duration) {
        self.rtt.sample(round_trip, Duration::ZERO);
    }
}

/// The full number nearest to `reference` whose low half is `low`; `None` if that would be zero or less.
fn expand(low: u32, reference: u64) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
    let distance = low.wrapping_sub(reference as u32).cast_signed();
    let full = reference.checked_add_signed(i64::from(distance))?;
    (full > 0).then_some(full)
}

/// The sequences that a report names, from the highest down.
fn named(highest: u64, words: &[u64]) -> impl Iterator<Item = u64> {
    let below = words.iter().enumerate().flat_map(move |(index, &word)| {
        let mut rest = word;
        std::iter::from_fn(move || {
            let bit = rest.trailing_zeros();
            if bit == 64 {
                return None;
            }
            rest &= rest - 1;
            highest.checked_sub(1 + 64 * index as u64 + u64::from(bit))
        })
    });
    std::iter::once(highest).chain(below)
}

#[cfg(test)]
mod tests;
