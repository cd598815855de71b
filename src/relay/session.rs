//! One peer: its connection, its UDP path, what it prefers, what it has earned.
//!
//! A session begins with a TCP connection and a handshake (BTVERSION, BTVERACK, both ways). The handshake
//! hands over a connection id and a MAC key for datagrams; a PING whose nonce comes back from the address
//! proves the path, and only then is anything pushed by UDP. Until that, no more bytes go to an address
//! than came from it. When UDP does not work the same frames go over the control connection.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::addresses::AddressTalk;
use super::event::{Initiator, SessionId};
use super::jobs::closed::ClosedIds;
use super::jobs::refused::KeptOffers;
use super::loss::{ReceiveLog, SendLog};
use super::pacing::Pacer;
use super::parity::amount::LossRate;
use super::peer::{HashWant, Request};
use super::probe::{ProbeClock, Probes};
use super::slots::Standing;
use crate::time::Time;
use crate::wire::{
    ControlDecoder, DEFAULT_MAX_DATAGRAM, DisconnectReason, MacKey, Message, Parameters, Writer,
    compact_size_len,
};

/// How long a handshake may take: three round trips over the worst link, and a host that is busy.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long data waits for the UDP path before it goes over TCP: five PINGs are lost together once in ten
/// million times at 4% loss.
pub(crate) const PATH_TIMEOUT: Duration = Duration::from_secs(3);

/// Between PINGs on a path that works: NATs forget UDP mappings after 30 s (RFC 4787 asks for 120).
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(20);

/// Between PINGs on a path that does not work.
pub(crate) const PATH_RETRY: Duration = Duration::from_secs(15);

/// Probe time-outs in a row after which a path counts as lost: about 30 round trips by back-off.
pub(crate) const MAX_PROBES: u32 = 5;

/// Control bytes that may wait for a peer that does not read; beyond it the session ends.
///
/// Large enough for every answer to a full decoder (64 KiB) of requests that need one; a peer that
/// reads never comes near it.
pub(crate) const MAX_CONTROL_BACKLOG: usize = 512 * 1024;

/// Answers (PONG, JOB_STATE_ACK) that wait for their datagram; further ones are dropped, their askers
/// ask again.
pub(crate) const MAX_ANSWERS: usize = 64;

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The peer's BTVERSION has not come.
    AwaitVersion,
    /// Its BTVERACK has not come.
    AwaitAck,
    /// The handshake is done.
    Established,
    /// Its last control bytes wait to be taken.
    Closing,
}

/// What a datagram carried, to be sent again if it is lost and still of use.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// OPEN_JOB.
    Open(u16),
    /// Hashes of a job.
    Hashes(u16, HashWant),
    /// Whole transactions.
    Transactions(u16, Range<u32>),
    /// A part of a transaction: the leaf.
    Part(u16, u32, Range<u32>),
    /// A request.
    Request(u16, Request),
    /// JOB_STATE: it stays unacknowledged, and goes again by its own clock.
    State(u16),
    /// Parity: what is lost of it stays lost.
    Parity,
}

/// A short answer on its way out.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// PONG: nonce and size of the datagram that asked.
    Pong(u64, u16),
    /// JOB_STATE_ACK: the body to echo.
    StateAck(Bytes),
}

impl Answer {
    /// Bytes of its frame.
    pub fn frame_len(&self) -> usize {
        match self {
            Self::Pong(..) => 2 + 10,
            Self::StateAck(body) => 1 + compact_size_len(body.len() as u64) + body.len(),
        }
    }
}

/// Which way data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// As datagrams.
    Udp,
    /// As frames on the control connection.
    Tcp,
    /// Nowhere yet: the path is being proven.
    Wait,
}

/// The UDP path to the peer.
#[derive(Debug)]
pub(crate) struct Path {
    /// Where datagrams go.
    pub address: SocketAddr,
    /// A PONG came back from there.
    pub proven: bool,
    /// It was proven and then went silent.
    pub lost: bool,
    /// The nonce of the PING under way, and when it was sent.
    pub challenge: Option<(u64, Time)>,
    /// When to send the next PING.
    pub next_ping: Option<Time>,
    /// PINGs sent since the path was last proven.
    pub tries: u32,
    /// Bytes received from the peer's IP address: control connection and datagrams.
    pub bytes_in: u64,
    /// Bytes sent to the address by UDP while it was not proven.
    pub bytes_out: u64,
}

impl Path {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            proven: false,
            lost: false,
            challenge: None,
            next_ping: None,
            tries: 0,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    /// Counts a datagram that goes out.
    pub fn count_sent(&mut self, bytes: usize) {
        if !self.proven {
            self.bytes_out += bytes as u64;
        }
    }

    /// Whether a datagram of this size may go out: a path that is not proven gets no more than came
    /// from it.
    pub fn may_send(&self, bytes: usize) -> bool {
        self.proven || self.bytes_out + bytes as u64 <= self.bytes_in
    }
}

/// Measures at what rate data arrives from a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ArrivalRate {
    window_start: Time,
    window_bytes: u64,
    rate: f64,
}

impl ArrivalRate {
    /// Length of a measuring window: short against a transfer, long against a GSO batch.
    const WINDOW: Duration = Duration::from_millis(10);

    /// Assumed until measured: 10 Mbit/s.
    const INITIAL: f64 = 1_250_000.0;

    fn new(now: Time) -> Self {
        Self {
            window_start: now,
            window_bytes: 0,
            rate: Self::INITIAL,
        }
    }

    /// Notes bytes that arrived.
    pub fn note(&mut self, now: Time, bytes: u64) {
        let elapsed = now.since(self.window_start);
        if elapsed >= Self::WINDOW {
            // A window with a pause in it says nothing about the path.
            if elapsed < Self::WINDOW * 3 {
                let measured = self.window_bytes as f64 / elapsed.as_secs_f64();
                self.rate = self.rate * 0.75 + measured * 0.25;
            }
            self.window_start = now;
            self.window_bytes = 0;
        }
        self.window_bytes += bytes;
    }

    /// The rate, bytes per second.
    pub fn bytes_per_s(&self) -> u64 {
        self.rate as u64
    }
}

/// One peer.
pub(crate) struct Session {
    pub id: SessionId,
    pub initiator: Initiator,
    pub standing: Standing,
    pub remote: SocketAddr,
    pub connected: Time,
    pub phase: Phase,
    pub decoder: ControlDecoder,
    pub agent: String,
    /// The nonce that the peer's process gave in BTVERSION.
    pub peer_nonce: u64,
    pub version: u16,

    /// Connection id on datagrams to us, and the key that they are authenticated with.
    pub our_connection: u32,
    pub our_key: MacKey,
    /// The same for datagrams to the peer.
    pub their_connection: u32,
    pub their_key: MacKey,

    pub path: Path,
    /// Which way data went when it was last looked at.
    pub last_route: Route,
    pub sent: SendLog<Vec<Item>>,
    pub received: ReceiveLog,
    pub pacer: Pacer,
    pub arrival: ArrivalRate,
    /// Largest datagram to the peer.
    pub max_datagram: u16,
    /// Largest datagram that the peer takes.
    pub peer_max_datagram: u16,

    /// What the peer said of itself in BTVERSION and SET_PARAMS.
    pub params: Parameters,
    /// Bytes beyond the hashes that the peer was last told it may push of a block (SET_PARAMS key 8).
    pub granted_bytes: u64,
    /// We asked the peer for full first flights.
    pub eager: bool,
    /// Chunks that its data completed.
    pub chunks_delivered: u64,

    /// Jobs by the ids that the peer assigned: our ids.
    pub their_jobs: BTreeMap<u16, u16>,
    /// Offers whose header cannot be judged yet.
    pub offers: KeptOffers,
    /// Ids of jobs that the peer opened and closed.
    pub closed_jobs: ClosedIds,
    /// Jobs opened beyond those that it may have open, for which no room has been made since.
    pub excess_jobs: usize,
    pub answers: VecDeque<Answer>,
    /// Control frames to send.
    pub control: BytesMut,
    /// Addresses asked for, told and still allowed.
    pub addresses: AddressTalk,
    /// It stands in the queue of sessions that may have a datagram to send.
    pub transmit_named: bool,
    /// It was named by `poll_control_ready`, and `poll_control` has not yet come to an end since.
    pub control_named: bool,
    pub score: u32,
    pub closing: Option<DisconnectReason>,

    pub bytes_in: u64,
    pub bytes_out: u64,
    pub datagrams_in: u64,
    pub datagrams_out: u64,
    pub datagrams_lost: u64,
    pub loss: LossRate,
    /// A sequence number that was drawn for a datagram that had nothing to say.
    pub spare_sequence: Option<u64>,
    /// The pacer forbids another datagram until then; `Time::MAX` until a report comes.
    pub blocked_until: Option<Time>,
    /// A probe of ours, or of the peer, that is under way.
    pub probes: Probes,
    pub probe_clock: ProbeClock,
}

/// What a session starts from.
pub(crate) struct SessionStart {
    pub id: SessionId,
    pub initiator: Initiator,
    pub standing: Standing,
    pub remote: SocketAddr,
    pub connection: u32,
    pub key: MacKey,
    pub max_rate_bytes_per_s: Option<u64>,
    pub now: Time,
}

impl Session {
    /// A session whose handshake has not begun.
    pub fn new(start: SessionStart) -> Self {
        Self {
            id: start.id,
            initiator: start.initiator,
            standing: start.standing,
            remote: start.remote,
            connected: start.now,
            phase: Phase::AwaitVersion,
            decoder: ControlDecoder::new(),
            agent: String::new(),
            peer_nonce: 0,
            version: 0,
            our_connection: start.connection,
            our_key: start.key,
            their_connection: 0,
            their_key: start.key,
            path: Path::new(start.remote),
            last_route: Route::Wait,
            sent: SendLog::new(),
            received: ReceiveLog::new(),
            pacer: Pacer::new(start.now, start.max_rate_bytes_per_s),
            arrival: ArrivalRate::new(start.now),
            max_datagram: DEFAULT_MAX_DATAGRAM,
            peer_max_datagram: DEFAULT_MAX_DATAGRAM,
            params: Parameters::default(),
            granted_bytes: 0,
            eager: false,
            chunks_delivered: 0,
            their_jobs: BTreeMap::new(),
            offers: KeptOffers::default(),
            closed_jobs: ClosedIds::default(),
            excess_jobs: 0,
            answers: VecDeque::new(),
            control: BytesMut::new(),
            addresses: AddressTalk::new(start.now),
            transmit_named: false,
            control_named: false,
            score: 0,
            closing: None,
            bytes_in: 0,
            bytes_out: 0,
            datagrams_in: 0,
            datagrams_out: 0,
            datagrams_lost: 0,
            loss: LossRate::default(),
            spare_sequence: None,
            blocked_until: None,
            probes: Probes::default(),
            probe_clock: ProbeClock::default(),
        }
    }

    /// Whether the handshake is done and the session is not ending.
    pub fn is_established(&self) -> bool {
        self.phase == Phase::Established
    }

    /// Which way data goes now.
    pub fn route(&self, now: Time) -> Route {
        if !self.is_established() {
            Route::Wait
        } else if self.path.proven {
            Route::Udp
        } else if self.path.lost || now.since(self.connected) >= PATH_TIMEOUT {
            Route::Tcp
        } else {
            Route::Wait
        }
    }

    /// The number of the next datagram; one that is not sent goes back to `spare_sequence`.
    pub fn next_sequence(&mut self) -> u64 {
        match self.spare_sequence.take() {
            Some(spare) => spare,
            None => self.sent.next_sequence(),
        }
    }

    /// Puts a message on the control connection. False if the backlog is full; end the session then.
    #[must_use]
    pub fn push_control(&mut self, message: &Message<'_>) -> bool {
        let len = message.frame_len();
        if self.control.len() + len > MAX_CONTROL_BACKLOG {
            return false;
        }
        let start = self.control.len();
        self.control.resize(start + len, 0);
        let Some(room) = self.control.get_mut(start..) else {
            return false;
        };
        let written = message.write_frame(&mut Writer::new(room));
        debug_assert!(written.is_ok(), "frame_len is exact");
        true
    }

    /// Puts an answer into the queue for datagrams; drops it when the queue is full.
    pub fn push_answer(&mut self, answer: Answer) {
        if self.answers.len() < MAX_ANSWERS {
            self.answers.push_back(answer);
        }
    }

    /// How far the peer wants first flights to go: what it said, or the anchor only.
    pub fn push_level(&self) -> u8 {
        self.params.push_level.unwrap_or(1)
    }

    /// Largest datagram that may go to the peer now.
    pub fn datagram_limit(&self) -> usize {
        usize::from(self.max_datagram.min(self.peer_max_datagram))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unproven_path_gets_no_more_than_it_gave() {
        let mut path = Path::new(([127, 0, 0, 1], 1).into());
        assert!(!path.may_send(1));
        path.bytes_in = 100;
        assert!(path.may_send(100));
        path.bytes_out = 60;
        assert!(!path.may_send(41));
        path.proven = true;
        assert!(path.may_send(1_200));
    }

    #[test]
    fn the_arrival_rate_follows_what_arrives_and_ignores_pauses() {
        let start = Time::from_unix_seconds(1);
        let mut rate = ArrivalRate::new(start);
        for step in 0..2_000u64 {
            rate.note(start + Duration::from_micros(step * 100), 1_000);
        }
        let measured = rate.bytes_per_s();
        assert!((9_500_000..10_500_000).contains(&measured), "{measured}");
        rate.note(start + Duration::from_secs(60), 1_000);
        assert_eq!(rate.bytes_per_s(), measured);
    }
}
