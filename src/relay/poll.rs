//! What the engine gives out: events, control bytes, datagrams, and when to call again.

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;

use super::Engine;
use super::event::{Event, SessionId, Transmit, WakeReason};
use super::loss::Outcome;
use super::outbound::{Target, write_answer};
use super::pacing::Allowance;
use super::session::{HANDSHAKE_TIMEOUT, Item, PATH_TIMEOUT, Phase, Route, Session};
use crate::time::Time;
use crate::wire::{DATAGRAM_OVERHEAD, DatagramBuilder, Message, Ping, RxReport, Writer};

/// Frames for the control connection are made in pieces of this size: large enough for few calls, small
/// enough that a request does not wait long behind data.
const CONTROL_PIECE: usize = 16 * 1024;

impl Engine {
    /// The next event, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// A session that has control bytes to send; each is named once until it has new ones.
    pub fn poll_control_ready(&mut self) -> Option<SessionId> {
        self.review_jobs();
        while let Some(slot) = self.control_ready.pop_first() {
            if let Some(session) = self.session_mut(slot) {
                session.control_named = true;
                return Some(session.id);
            }
        }
        None
    }

    /// The next piece of control bytes of a session, at most 512 KiB; call it only while there is room
    /// for them on the connection. `None` when there is nothing to send now; then the session is named by
    /// [`Engine::poll_control_ready`] again when there is.
    pub fn poll_control(&mut self, now: Time, session: SessionId) -> Option<Bytes> {
        self.now = now;
        let slot = self.live(session)?;
        self.review_jobs();
        if self.session(slot)?.control.is_empty() && self.session(slot)?.route(now) == Route::Tcp {
            self.fill_control(slot);
        }
        let session = self.session_mut(slot)?;
        if session.control.is_empty() {
            session.control_named = false;
            return None;
        }
        let bytes = session.control.split().freeze();
        session.bytes_out += bytes.len() as u64;
        self.totals.bytes_out += bytes.len() as u64;
        self.control_ready.insert(slot);
        Some(bytes)
    }

    /// Puts data on the control connection: the path does not carry datagrams.
    fn fill_control(&mut self, slot: u32) {
        let mut piece = vec![0; CONTROL_PIECE];
        let mut writer = Writer::new(&mut piece);
        let mut items = Vec::new();
        self.fill_jobs(slot, CONTROL_PIECE, &mut writer, &mut items);
        let written = writer.position();
        if let (Some(session), Some(bytes)) = (self.session_mut(slot), piece.get(..written)) {
            session.control.extend_from_slice(bytes);
        }
    }

    /// Writes frames of all jobs for a session, newest first. False when the room was not enough.
    fn fill_jobs(
        &mut self,
        slot: u32,
        fresh_room: usize,
        writer: &mut Writer<'_>,
        items: &mut Vec<Item>,
    ) -> bool {
        let Some(session) = self.session(slot) else {
            return true;
        };
        let target = Target {
            slot,
            now: self.now,
            round_trip: session.sent.rtt().smoothed(),
            in_flight: session.sent.in_flight(),
            loss: session.loss.share(),
            shared: self.uplink.is_shared(),
            fresh_room,
            lie: self.config.lie,
        };
        let before = self.totals.requests;
        let mut requests = 0;
        let done = self.jobs.values_mut().rev().all(|entry| {
            let sent_before = entry.requests_sent;
            let done = entry.fill(target, writer, items);
            requests += entry.requests_sent - sent_before;
            done
        });
        self.totals.requests = before + requests;
        done
    }

    /// Writes the next datagram to the start of `buffer`, which is at least as long as the largest
    /// datagram that the configuration allows.
    pub fn poll_transmit(&mut self, now: Time, buffer: &mut [u8]) -> Option<Transmit> {
        self.now = now;
        self.review_jobs();
        while let Some(slot) = self.transmit_ready.front().copied() {
            if let Some(transmit) = self.build_datagram(slot, buffer) {
                self.totals.datagrams_out += 1;
                self.totals.bytes_out += transmit.len as u64;
                if self.uplink.takes_turns(now) {
                    self.transmit_ready.rotate_left(1);
                    self.turn = slot + 1;
                }
                return Some(transmit);
            }
            self.transmit_ready.pop_front();
            if let Some(session) = self.session_mut(slot) {
                session.transmit_named = false;
            }
        }
        None
    }

    fn build_datagram(&mut self, slot: u32, buffer: &mut [u8]) -> Option<Transmit> {
        let now = self.now;
        let session = self.session(slot)?;
        if !matches!(session.phase, Phase::AwaitAck | Phase::Established) {
            return None;
        }
        if let Some(transmit) = self.build_probe(slot, buffer) {
            return Some(transmit);
        }
        let limit = self.session(slot)?.datagram_limit().min(buffer.len());
        let buffer = buffer.get_mut(..limit)?;
        let session = self.session_mut(slot)?;
        let sequence = session.next_sequence();
        let (connection, key) = (session.their_connection, session.their_key);
        let mut builder = DatagramBuilder::new(buffer, connection, sequence);
        let mut items = Vec::new();
        let mut eliciting = self.write_ping(slot, &mut builder);
        self.write_reports(slot, &mut builder);
        let allowed = self.data_allowed(slot);
        if allowed {
            let fresh_room = limit - DATAGRAM_OVERHEAD;
            let done = builder
                .write(|writer| Ok(self.fill_jobs(slot, fresh_room, writer, &mut items)))
                .unwrap_or(true);
            eliciting |= !items.is_empty();
            if done && let Some(session) = self.session_mut(slot) {
                session.sent.mark_app_limited();
            }
        }
        let session = self.session_mut(slot)?;
        if builder.is_empty() {
            session.spare_sequence = Some(sequence);
            return None;
        }
        let bytes = builder.finish(&key);
        let in_flight = session.sent.in_flight();
        session
            .sent
            .sent(sequence, now, bytes as u32, items, eliciting);
        if eliciting {
            session.pacer.on_sent(now, bytes as u64, in_flight);
        }
        session.path.count_sent(bytes);
        session.bytes_out += bytes as u64;
        session.datagrams_out += 1;
        let to = session.path.address;
        if eliciting {
            self.uplink.on_sent(now, bytes as u64);
        }
        Some(Transmit { to, len: bytes })
    }

    /// Writes the PING that is due. Gives whether the datagram is to be reported on.
    fn write_ping(&mut self, slot: u32, builder: &mut DatagramBuilder<'_>) -> bool {
        let Some(session) = self.session(slot) else {
            return false;
        };
        let frame = Message::Ping(Ping {
            nonce: 0,
            padding: 2,
        })
        .frame_len();
        let proven = session.path.proven;
        if !session.path.may_send(DATAGRAM_OVERHEAD + frame) {
            return false;
        }
        let Some(nonce) = self.due_ping(slot) else {
            return false;
        };
        let ping = Message::Ping(Ping { nonce, padding: 2 });
        builder.push(&ping).is_ok() && proven
    }

    /// Writes the receive report that is due, and short answers.
    fn write_reports(&mut self, slot: u32, builder: &mut DatagramBuilder<'_>) {
        let now = self.now;
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        // Towards an unproven path every byte is counted, those already in the builder included.
        let spare = |builder: &DatagramBuilder<'_>, more: usize, path: &super::session::Path| {
            path.may_send(builder.datagram_len() + more)
        };
        while let Some(answer) = session.answers.front() {
            let len = answer.frame_len();
            if !spare(builder, len, &session.path) {
                if !session.path.proven {
                    session.answers.clear();
                }
                break;
            }
            if builder
                .write(|writer| Ok(write_answer(writer, answer)))
                .unwrap_or(false)
            {
                session.answers.pop_front();
            } else {
                break;
            }
        }
        let due = session.received.report_due().is_some_and(|due| due <= now);
        if due && session.path.proven {
            let report = session.received.report(now);
            let message = RxReport::new(report.highest, report.delay_us, &report.words);
            // The first frames of a datagram always fit.
            let _ = builder.push(&Message::RxReport(message));
        }
    }

    /// Whether the pacer and the uplink let data go now; notes until when they do not.
    fn data_allowed(&mut self, slot: u32) -> bool {
        let now = self.now;
        let others_until = self.uplink.blocked_until(now);
        let Some(session) = self.session_mut(slot) else {
            return false;
        };
        if !session.path.proven || !session.is_established() {
            return false;
        }
        if !session.sent.has_room() {
            session.blocked_until = Some(Time::MAX);
            return false;
        }
        match session.pacer.can_send(now, session.sent.in_flight()) {
            Allowance::Now { .. } => {
                session.blocked_until = others_until;
                if others_until.is_some() {
                    // What is measured now is the pace of all together, and not of this path.
                    session.sent.mark_app_limited();
                }
                others_until.is_none()
            }
            Allowance::At(at) => {
                session.blocked_until = Some(at);
                false
            }
            Allowance::Blocked => {
                // A report or a time-out opens the window, and wakes the session.
                session.blocked_until = Some(Time::MAX);
                false
            }
        }
    }

    /// When to call [`Engine::handle_timeout`] at the latest, and why. Call it after draining.
    pub fn poll_deadline(&self) -> Option<(Time, WakeReason)> {
        let slots = 0..self.sessions.len() as u32;
        let sessions = slots.filter_map(|slot| self.session_deadline(slot));
        let jobs = self.jobs.values().filter_map(|entry| entry.deadline());
        sessions
            .chain(jobs.map(|at| (at, WakeReason::Job)))
            .min_by_key(|(at, _)| *at)
    }

    /// When a session wants to be looked at although nothing comes, and why.
    pub(super) fn session_deadline(&self, slot: u32) -> Option<(Time, WakeReason)> {
        let pulse = self.pulse(slot)?;
        let mut earliest = pulse.deadline;
        if pulse.carries {
            for entry in self.jobs.values() {
                let due = entry.state_deadline(slot, pulse.round_trip);
                consider(&mut earliest, due, WakeReason::Job);
            }
        }
        earliest
    }

    /// What a session waits for. It is asked after every datagram and for every session, and sessions lie far apart: so
    /// it is remembered until the session changes.
    fn pulse(&self, slot: u32) -> Option<Pulse> {
        let remembered = self.pulses.get(slot as usize);
        if let Some(pulse) = remembered.and_then(Cell::get) {
            debug_assert_eq!(
                Some(pulse),
                self.session(slot).map(|session| self.pulse_of(session)),
                "a session changed unseen"
            );
            return Some(pulse);
        }
        let session = self.session(slot)?;
        let pulse = self.pulse_of(session);
        if pulse.is_calm {
            remembered?.set(Some(pulse));
        }
        Some(pulse)
    }

    /// Whether nothing is due at a session, nor anything else that time brings about.
    pub(super) fn is_at_rest(&self, slot: u32) -> bool {
        let calm = self.pulse(slot).is_some_and(|pulse| pulse.is_calm);
        let deadline = self.session_deadline(slot);
        calm && deadline.is_none_or(|(at, _)| at > self.now)
    }

    /// A session is about to change.
    pub(super) fn forget_pulse(&self, slot: u32) {
        if let Some(pulse) = self.pulses.get(slot as usize) {
            pulse.set(None);
        }
    }

    fn pulse_of(&self, session: &Session) -> Pulse {
        let mut pulse = Pulse {
            deadline: None,
            carries: false,
            is_calm: session.is_established()
                && session.path.proven
                && session.last_route == Route::Udp,
            round_trip: session.sent.rtt().smoothed(),
        };
        let earliest = &mut pulse.deadline;
        if session.phase == Phase::Closing {
            return pulse;
        }
        consider(earliest, session.blocked_until, WakeReason::Pacing);
        if !session.is_established() {
            let end = session.connected + HANDSHAKE_TIMEOUT;
            consider(earliest, Some(end), WakeReason::Session);
            return pulse;
        }
        if session.path.may_send(DATAGRAM_OVERHEAD + 12) {
            consider(earliest, session.path.next_ping, WakeReason::Session);
        }
        consider(earliest, session.sent.deadline(), WakeReason::Session);
        if session.path.proven {
            let due = session.received.report_due();
            consider(earliest, due, WakeReason::Session);
        } else if !session.path.lost && self.now < session.connected + PATH_TIMEOUT {
            let end = session.connected + PATH_TIMEOUT;
            consider(earliest, Some(end), WakeReason::Session);
        }
        consider(earliest, session.probes.deadline(), WakeReason::Session);
        // A connection without room asks by itself once it has some.
        pulse.carries = match session.route(self.now) {
            Route::Wait => false,
            Route::Udp => session.blocked_until.is_none(),
            Route::Tcp => !session.control_named,
        };
        pulse
    }

    /// Draws the consequences of a receive report or of a time-out.
    pub(super) fn settle_outcome(&mut self, slot: u32, outcome: &mut Outcome<Vec<Item>>) {
        let now = self.now;
        if let Some(session) = self.session_mut(slot) {
            let in_flight = session.sent.in_flight();
            let lost = outcome.lost.len() as u64;
            let known = outcome.acked.len() as u64 + lost;
            let wrongly = u64::from(outcome.spurious).min(known);
            session.loss.note(known - wrongly, lost);
            if let Some(sample) = &outcome.sample {
                session.pacer.on_acked(now, sample, in_flight);
            }
            let delivered = outcome.sample.map_or(0, |sample| sample.acked_bytes);
            if outcome.lost_bytes > 0 {
                session.pacer.on_lost(now, outcome.lost_bytes);
                session.datagrams_lost += outcome.lost.len() as u64;
            }
            if let Some(count) = outcome.probe {
                session.pacer.on_timeout(now, count);
                if outcome.lost.is_empty() {
                    session.path.next_ping = Some(now);
                }
            }
            self.note_delivered(delivered);
        }
        for (_, _, items) in outcome.lost.drain(..) {
            for item in items {
                self.resend(slot, item);
            }
        }
        outcome.acked.clear();
        if let Some(count) = outcome.probe {
            self.path_silent(slot, count);
        }
        self.wake(slot);
    }
}

/// What a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pulse {
    /// When it wants to be looked at although nothing comes, and why; what it has to say of jobs left aside.
    deadline: Option<(Time, WakeReason)>,
    /// Whether what it has to say of jobs could go.
    carries: bool,
    /// Whether time alone does nothing to it before its deadline.
    is_calm: bool,
    round_trip: Duration,
}

/// Makes `at` the earliest, if it is.
fn consider(earliest: &mut Option<(Time, WakeReason)>, at: Option<Time>, reason: WakeReason) {
    if let Some(at) = at
        && earliest.is_none_or(|(known, _)| at < known)
    {
        *earliest = Some((at, reason));
    }
}
