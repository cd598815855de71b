//! One connection of the Bitcoin P2P protocol, without I/O.
//!
//! Whoever drives a [`Peer`] hands it bytes, the time and commands, and after each of these takes, in this order,
//! events until there are none, output until there is none, and the next deadline. Messages are decoded one at a
//! time as events are taken, so a peer that floods us waits in its own socket: [`Peer::wants_input`] says when to
//! read on. While more than [`PAUSE_BYTES`] wait to be written nothing is read or served either, as in Bitcoin
//! Core.

mod answers;
mod bucket;
mod commands;
mod fetches;
mod greeting;
mod inbound;
mod keep_alive;
mod output;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use bitcoin::BlockHash;
use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::kind::Kind;
use super::message::Message;
use super::plain;
use super::transport::{MAX_PACKET_BYTES, Received, Transport};
use super::{CloseReason, DecodeError, PeerCommand, PeerConfig, PeerEvent, PeerReport, Refusal};
use crate::time::Time;
use fetches::Fetches;
use greeting::Greeting;
use keep_alive::KeepAlive;
use output::Output;
use requests::Requests;

pub use output::{MAX_OUTPUT_BYTES, PAUSE_BYTES};

/// Points of misbehaviour at which a peer is closed.
pub const CLOSE_AT_POINTS: u32 = 100;
/// Most bytes received and not yet decoded after which nothing more is read: the longest message, with its header.
///
/// Reason: a message must be whole to be decoded; more than one is held by the socket as well.
pub const MAX_INPUT_BYTES: usize = plain::HEADER_BYTES + MAX_PACKET_BYTES;
/// Most blocks remembered as known to the peer.
///
/// Reason: only new blocks are announced, and more than a few at once are never new.
const MAX_KNOWN_BLOCKS: usize = 32;

/// One connection.
pub struct Peer {
    config: PeerConfig,
    transport: Transport,
    random: StdRng,
    now: Time,
    events: VecDeque<PeerEvent>,
    output: Output,
    greeting: Greeting,
    keep_alive: KeepAlive,
    fetches: Fetches,
    requests: Requests,
    /// Blocks that the peer is known to have.
    known_blocks: VecDeque<BlockHash>,
    /// Headers messages in a row that connected to nothing.
    unconnecting: u32,
    report: PeerReport,
    refused: BTreeMap<Refusal, u64>,
    /// Of these, those that [`Peer::take_refused`] has not given yet.
    untold: BTreeMap<Refusal, u64>,
    is_closed: bool,
}

impl Peer {
    /// A connection that was just established. `seed` makes its keys and its nonces: it must be secret and new.
    pub fn new(config: PeerConfig, now: Time, seed: [u8; 32]) -> Self {
        let mut random = StdRng::from_seed(seed);
        let transport = Transport::new(config.network, config.direction, config.v2, &mut random);
        let mut peer = Self {
            transport,
            random,
            now,
            events: VecDeque::new(),
            output: Output::new(now),
            greeting: Greeting::default(),
            keep_alive: KeepAlive::new(now),
            fetches: Fetches::new(now),
            requests: Requests::new(config.role, now),
            known_blocks: VecDeque::new(),
            unconnecting: 0,
            report: PeerReport::default(),
            refused: BTreeMap::new(),
            untold: BTreeMap::new(),
            is_closed: false,
            config,
        };
        peer.greet_first();
        peer
    }

    /// What it was made with.
    pub fn config(&self) -> &PeerConfig {
        &self.config
    }

    /// Bytes from the peer.
    pub fn handle_bytes(&mut self, now: Time, bytes: &[u8]) {
        self.tick(now);
        if self.is_closed || bytes.is_empty() {
            return;
        }
        self.report.bytes_received += bytes.len() as u64;
        self.keep_alive.received(now);
        self.transport.push(bytes);
    }

    /// Call at [`Peer::poll_deadline`]; earlier or later does no harm.
    pub fn handle_timeout(&mut self, now: Time) {
        self.tick(now);
        if !self.is_closed {
            self.keep_alive_timeouts();
        }
    }

    /// The connection is gone: the peer closed it, or it failed with `error`.
    pub fn handle_closed(&mut self, now: Time, error: Option<String>) {
        self.tick(now);
        if self.is_closed {
            return;
        }
        let reason = match error {
            _ if self.transport.was_not_answered() => CloseReason::NoV2,
            Some(error) => CloseReason::Failed(error),
            None => CloseReason::Remote,
        };
        self.close(reason);
    }

    /// A command from the owner.
    pub fn handle_command(&mut self, now: Time, command: PeerCommand) {
        self.tick(now);
        if !self.is_closed {
            self.obey(command);
        }
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<PeerEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if !self.serve_next() && !self.take_message() {
                return None;
            }
        }
    }

    /// The next bytes to be written, in order.
    pub fn poll_output(&mut self) -> Option<Bytes> {
        let bytes = self.output.next(&mut self.transport, self.now)?;
        self.report.bytes_sent += bytes.len() as u64;
        Some(bytes)
    }

    /// When [`Peer::handle_timeout`] wants to be called, at the latest.
    pub fn poll_deadline(&self) -> Option<Time> {
        if self.is_closed {
            return None;
        }
        let others = [self.requests.deadline(), self.fetches.deadline()];
        let keep_alive = Some(self.keep_alive_deadline());
        others.into_iter().chain([keep_alive]).flatten().min()
    }

    /// Whether more bytes should be read from the peer.
    pub fn wants_input(&self) -> bool {
        !self.is_closed && !self.is_paused() && self.transport.buffered() < MAX_INPUT_BYTES
    }

    /// Whether more commands should be given: not while much waits to be written.
    pub fn wants_commands(&self) -> bool {
        self.is_closed || !self.output.is_long()
    }

    /// Whether [`PeerEvent::Closed`] was, or is about to be, taken.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Bytes held for this connection: received and not decoded, and waiting to be written.
    pub fn held_bytes(&self) -> usize {
        self.transport.buffered() + self.output.bytes()
    }

    /// What was refused since this was called last, and how often.
    pub fn take_refused(&mut self) -> BTreeMap<Refusal, u64> {
        std::mem::take(&mut self.untold)
    }

    fn tick(&mut self, now: Time) {
        self.now = self.now.max(now);
        self.requests.refill(self.now);
    }

    fn is_paused(&self) -> bool {
        self.output.is_long() || self.requests.is_full()
    }

    /// Decodes the next message and acts on it. `false`: there is none, or it has to wait.
    fn take_message(&mut self) -> bool {
        if self.is_closed || self.is_paused() {
            return false;
        }
        let was_ready = self.transport.is_ready();
        let received = self.transport.next(self.output.raw());
        if !was_ready && self.transport.is_ready() {
            self.greet_first();
        }
        match received {
            Received::Nothing => return false,
            Received::Refused(refusal) => self.refuse(refusal),
            Received::Broken(refusal, reason) => {
                self.count(refusal);
                self.close(reason);
            }
            Received::Message(kind, payload) => {
                self.report.messages_received += 1;
                self.handle_payload(kind, &payload);
            }
        }
        true
    }

    fn handle_payload(&mut self, kind: Kind, payload: &Bytes) {
        match Message::decode(kind, payload, self.config.network) {
            Ok(message) if self.greeting.is_done() => self.handle_message(message),
            Ok(message) => self.handle_greeting(message),
            Err(DecodeError::TooMany) => self.refuse(Refusal::TooMany),
            Err(_) => self.refuse(match kind {
                Kind::CompactBlock | Kind::GetBlockTransactions => Refusal::Compact,
                Kind::Block | Kind::Transaction | Kind::BlockTransactions => Refusal::MalformedData,
                _ => Refusal::Malformed,
            }),
        }
    }

    fn send(&mut self, kind: Kind, payload: impl Into<Bytes>) {
        if self.is_closed {
            return;
        }
        self.report.messages_sent += 1;
        self.output.push(kind, payload.into());
    }

    fn count(&mut self, refusal: Refusal) {
        self.count_many(refusal, 1);
    }

    fn count_many(&mut self, refusal: Refusal, times: u64) {
        if times > 0 {
            *self.refused.entry(refusal).or_default() += times;
            *self.untold.entry(refusal).or_default() += times;
        }
    }

    /// Counts a refusal, and its points.
    fn refuse(&mut self, refusal: Refusal) {
        self.count(refusal);
        self.misbehaved(refusal.points(), refusal.name());
    }

    fn misbehaved(&mut self, points: u32, reason: &'static str) {
        if points == 0 || self.is_closed {
            return;
        }
        self.events
            .push_back(PeerEvent::Misbehaved { points, reason });
        self.report.misbehaviour = self.report.misbehaviour.saturating_add(points);
        if self.report.misbehaviour >= CLOSE_AT_POINTS {
            self.close(CloseReason::Misbehaved(reason));
        }
    }

    fn close(&mut self, reason: CloseReason) {
        if !self.is_closed {
            self.is_closed = true;
            self.output.clear();
            self.events.push_back(PeerEvent::Closed(reason));
        }
    }

    fn tell(&mut self, event: PeerEvent) {
        self.events.push_back(event);
    }

    fn note_known(&mut self, hash: BlockHash) {
        if !self.known_blocks.contains(&hash) {
            self.known_blocks.push_back(hash);
            if self.known_blocks.len() > MAX_KNOWN_BLOCKS {
                self.known_blocks.pop_front();
            }
        }
    }

    fn report(&self) -> PeerReport {
        PeerReport {
            refused: self
                .refused
                .iter()
                .map(|(&refusal, &times)| (refusal, times))
                .collect(),
            wants_high_bandwidth: self.greeting.wants_high_bandwidth,
            ..self.report.clone()
        }
    }
}
