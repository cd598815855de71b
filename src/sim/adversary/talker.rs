//! A small protocol machine: it shakes hands, proves its path, reports what it receives, and then does what its
//! mission is. It believes nothing and relays nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::super::actor::{Actor, Outgoing};
use super::super::scenario::AdversaryKind;
use super::alter::frame_of;
use super::line::Line;
use super::missions;
use super::speech::{self, KnownJob, Offer};
use super::{Casting, Forged};
use crate::relay::{Event, Initiator, SessionId, WakeReason};
use crate::time::Time;
use crate::wire::datagram::{Frames, Header};
use crate::wire::{
    DATAGRAM_HEADER_LEN, JobRef, MAC_LEN, Message, MessageType, OpenJob, Parameter, ParameterList,
    Ping, Pong, Version, VersionAck, Whose,
};

/// Datagrams that wait to be sent; more are not made, so that a flood stays within memory.
const MAX_DATAGRAMS: usize = 2_000;

/// Control bytes that wait for one session; more are not made.
const MAX_CONTROL: usize = 1 << 20;

/// Offers and jobs that are remembered, the newest.
const MAX_KNOWN: usize = 16;

/// Datagrams that are kept to be sent again: a first flight, and some more.
const MAX_KEPT: usize = 200;

/// A datagram that was seen: from where, where to, its bytes.
pub type Seen = (SocketAddr, SocketAddr, Bytes);

/// A node with a mission.
pub struct Talker {
    pub(super) kind: AdversaryKind,
    pub(super) random: StdRng,
    pub(super) neighbours: Vec<SocketAddr>,
    pub(super) everyone: Vec<SocketAddr>,
    pub(super) forged: Option<Arc<Forged>>,
    pub(super) lines: BTreeMap<SessionId, Line>,
    /// Jobs of each session, by the references that messages to its peer use.
    pub(super) jobs: BTreeMap<SessionId, Vec<KnownJob>>,
    pub(super) offers: Vec<Offer>,
    pub(super) seen: VecDeque<Seen>,
    /// When its first connection was made.
    pub(super) begun: Option<Time>,
    /// Messages that its mission has said, which is bounded.
    pub(super) said: u32,
    sessions: u32,
    next_tick: Time,
    control: BTreeMap<SessionId, Vec<u8>>,
    ready: BTreeSet<SessionId>,
    datagrams: VecDeque<(Outgoing, Vec<u8>)>,
    events: VecDeque<Event>,
}

impl Talker {
    /// One with the mission of `casting.kind`.
    pub fn new(casting: Casting) -> Self {
        Self {
            kind: casting.kind,
            random: StdRng::from_seed(casting.seed),
            neighbours: casting.neighbours,
            everyone: casting.everyone,
            forged: casting.forged,
            lines: BTreeMap::new(),
            jobs: BTreeMap::new(),
            offers: Vec::new(),
            seen: VecDeque::new(),
            begun: None,
            said: 0,
            sessions: 0,
            next_tick: Time::ZERO,
            control: BTreeMap::new(),
            ready: BTreeSet::new(),
            datagrams: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The sessions that stand.
    pub(super) fn established(&self) -> Vec<SessionId> {
        let lines = self.lines.iter().filter(|(_, line)| line.established);
        lines.map(|(session, _)| *session).collect()
    }

    /// Says something on a control connection.
    pub(super) fn say(&mut self, session: SessionId, frame: &[u8]) {
        let waiting = self.control.entry(session).or_default();
        if waiting.len() + frame.len() <= MAX_CONTROL {
            waiting.extend_from_slice(frame);
            self.ready.insert(session);
        }
    }

    /// Says something in a datagram of a session.
    pub(super) fn whisper(&mut self, session: SessionId, frames: &[u8]) {
        let sealed = self
            .lines
            .get_mut(&session)
            .and_then(|line| line.sealed(frames));
        if let Some((to, datagram)) = sealed {
            self.remember(to, to, Bytes::copy_from_slice(&datagram));
            self.throw(to, None, datagram);
        }
    }

    /// Sends any bytes, under a false address if one is given.
    pub(super) fn throw(&mut self, to: SocketAddr, from: Option<SocketAddr>, bytes: Vec<u8>) {
        if self.datagrams.len() < MAX_DATAGRAMS && self.neighbours.contains(&to) {
            let len = bytes.len();
            self.datagrams
                .push_back((Outgoing { to, from, len }, bytes));
        }
    }

    fn remember(&mut self, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        if self.kind != AdversaryKind::Replays {
            return;
        }
        if self.seen.len() >= MAX_KEPT {
            self.seen.pop_front();
        }
        self.seen.push_back((from, to, bytes));
    }

    fn introduce(&mut self, session: SessionId) {
        let nonce = self.random.random();
        if self.kind == AdversaryKind::ClaimsImpossible {
            let frame = speech::version(nonce, &mut self.random);
            self.say(session, &frame);
            return;
        }
        let pairs = [
            Parameter { key: 6, value: 3 },
            Parameter { key: 7, value: 64 },
        ];
        let frame = frame_of(&Message::Version(Version {
            network: super::super::node::NETWORK,
            version_min: 1,
            version_max: 1,
            features: 0,
            nonce,
            conn_id: self.random.random(),
            mac_key: &self.random.random(),
            udp_port: super::super::node::DATA_PORT,
            max_datagram: 1_472,
            tip: &[0; 32],
            parameters: ParameterList::new(&pairs),
            agent: "/sim/",
        }));
        self.say(session, &frame);
    }

    fn hear(&mut self, now: Time, session: SessionId, kind: u8, body: &[u8], over_tcp: bool) {
        let Ok(Some(message)) = Message::decode(kind, body) else {
            return;
        };
        match message {
            Message::Version(version) => {
                let Some(line) = self.lines.get_mut(&session) else {
                    return;
                };
                line.learn(&version);
                if line.initiator == Initiator::Inbound {
                    self.introduce(session);
                }
                let ack = VersionAck {
                    version: 1,
                    features: 0,
                };
                self.say(session, &frame_of(&Message::VersionAck(ack)));
            }
            Message::VersionAck(_) => {
                if let Some(line) = self.lines.get_mut(&session) {
                    line.established = true;
                    line.since = now;
                }
                missions::meet(self, now, session);
            }
            Message::Disconnect(_) => self.hang_up(session),
            Message::OpenJob(open) => self.note_offer(session, &open),
            Message::Ping(Ping { nonce, .. }) if over_tcp => {
                let pong = Message::Pong(Pong { nonce, bytes: 0 });
                self.say(session, &frame_of(&pong));
            }
            message => missions::answer(self, session, &message, body),
        }
    }

    fn note_offer(&mut self, session: SessionId, open: &OpenJob<'_>) {
        let offer = Offer::of(open);
        let known = self.jobs.entry(session).or_default();
        let job = (JobRef::of_receiver(open.job), open.count);
        if !known.contains(&job) {
            known.push(job);
            if known.len() > MAX_KNOWN {
                known.remove(0);
            }
        }
        if !self.offers.iter().any(|known| known.header == offer.header) {
            self.offers.push(offer);
            if self.offers.len() > MAX_KNOWN {
                self.offers.remove(0);
            }
            missions::news(self);
        }
    }

    /// Notes a job that was opened to a peer.
    pub(super) fn note_own(&mut self, session: SessionId, job: u16, count: u32) {
        let known = self.jobs.entry(session).or_default();
        known.push((JobRef::of_sender(job), count));
        if known.len() > MAX_KNOWN {
            known.remove(0);
        }
    }

    fn hang_up(&mut self, session: SessionId) {
        if self.lines.remove(&session).is_some() {
            self.jobs.remove(&session);
            self.events.push_back(Event::SessionDown {
                session,
                reason: "ended by the peer",
                code: None,
            });
        }
    }

    /// What every datagram of a peer gets: its report, and a PONG to each PING.
    fn answer_datagram(&mut self, session: SessionId, low: u32, len: usize, frames: &[u8]) {
        let mut answers = Vec::new();
        for (kind, body) in Frames::new(frames).map_while(Result::ok) {
            if let Ok(Some(Message::Ping(Ping { nonce, .. }))) = Message::decode(kind, body) {
                let bytes = len as u16;
                Message::Pong(Pong { nonce, bytes }).append_frame(&mut answers);
            }
        }
        let eliciting = Frames::new(frames).any(|frame| {
            let kind = frame.map_or(0, |(kind, _)| kind);
            !matches!(
                MessageType::from_wire(kind),
                Some(MessageType::RxReport | MessageType::Pong | MessageType::JobStateAck)
            )
        });
        let report = self
            .lines
            .get_mut(&session)
            .map(|line| line.note_received(low));
        if let Some(report) = report.filter(|_| eliciting) {
            Message::RxReport(report).append_frame(&mut answers);
        }
        if !answers.is_empty() {
            self.whisper(session, &answers);
        }
    }
}

impl Actor for Talker {
    fn handle_connected(
        &mut self,
        now: Time,
        initiator: Initiator,
        remote: SocketAddr,
    ) -> Option<SessionId> {
        self.sessions += 1;
        self.begun.get_or_insert(now);
        let session = SessionId {
            slot: self.sessions,
            generation: self.sessions,
        };
        let line = Line::new(initiator, remote.ip(), now);
        self.lines.insert(session, line);
        if initiator == Initiator::Outbound {
            self.introduce(session);
        }
        Some(session)
    }

    fn handle_control(&mut self, now: Time, session: SessionId, bytes: &[u8]) {
        let mut rest = bytes;
        loop {
            let Some(line) = self.lines.get_mut(&session) else {
                return;
            };
            match line.incoming.read(&mut rest) {
                Ok(Some((kind, body))) => self.hear(now, session, kind, &body, true),
                _ => return,
            }
        }
    }

    fn handle_disconnected(&mut self, _: Time, session: SessionId) {
        self.lines.remove(&session);
        self.jobs.remove(&session);
        self.control.remove(&session);
        self.ready.remove(&session);
    }

    fn handle_datagram(&mut self, now: Time, from: SocketAddr, datagram: &[u8]) {
        let Some(header) = Header::peek(datagram) else {
            return;
        };
        self.remember(from, from, Bytes::copy_from_slice(datagram));
        // Any session with that peer will do: a liar need not tell its own sessions apart.
        let session = self
            .lines
            .iter()
            .find(|(_, line)| line.established && line.remote == from.ip())
            .map(|(session, _)| *session);
        let Some(session) = session else { return };
        let end = datagram.len() - MAC_LEN;
        let frames = datagram.get(DATAGRAM_HEADER_LEN..end).unwrap_or_default();
        let frames = frames.to_vec();
        self.answer_datagram(session, header.seq_low, datagram.len(), &frames);
        for (kind, body) in Frames::new(&frames).map_while(Result::ok) {
            self.hear(now, session, kind, body, false);
        }
    }

    fn handle_overheard(&mut self, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        self.remember(from, to, Bytes::copy_from_slice(datagram));
    }

    fn overhears(&self) -> bool {
        self.kind == AdversaryKind::Replays
    }

    fn handle_timeout(&mut self, now: Time) {
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + missions::period(self.kind);
        missions::act(self, now);
    }

    fn submit_block(&mut self, _: Time, _: Bytes) -> bool {
        false
    }

    fn add_transaction(&mut self, _: Time, _: Bytes) {}

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn poll_control_ready(&mut self) -> Option<SessionId> {
        self.ready.pop_first()
    }

    fn poll_control(&mut self, _: Time, session: SessionId) -> Option<Bytes> {
        let bytes = self.control.remove(&session)?;
        Some(Bytes::from(bytes))
    }

    fn poll_transmit(&mut self, _: Time, buffer: &mut [u8]) -> Option<Outgoing> {
        let (outgoing, bytes) = self.datagrams.pop_front()?;
        buffer.get_mut(..bytes.len())?.copy_from_slice(&bytes);
        Some(outgoing)
    }

    fn poll_deadline(&self) -> Option<(Time, WakeReason)> {
        Some((self.next_tick, WakeReason::Session))
    }
}

/// The reference by which the one that hears a message would name its job in turn.
pub fn turned(job: JobRef) -> JobRef {
    JobRef {
        id: job.id,
        whose: match job.whose {
            Whose::Sender => Whose::Receiver,
            Whose::Receiver => Whose::Sender,
        },
    }
}
