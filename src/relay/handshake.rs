//! The beginning and the end of a session: BTVERSION, BTVERACK, parameters, the proof of the UDP path,
//! DISCONNECT.

use rand::RngExt;

use super::Engine;
use super::event::{Doors, Event, Initiator};
use super::probe::Probes;
use super::session::{
    Answer, HANDSHAKE_TIMEOUT, KEEPALIVE, MAX_PROBES, PATH_RETRY, Phase, Route, Session,
};
use super::stats::Refusal;
use crate::wire::{
    DEFAULT_MAX_DATAGRAM, Disconnect, DisconnectReason, MacKey, Message, PROTOCOL_VERSION,
    ParameterList, Parameters, Pong, Version, VersionAck, WireError,
};

impl Engine {
    /// Sends BTVERSION, and reserves an eager place for the peer if there is one.
    pub(super) fn send_version(&mut self, slot: u32) {
        self.take_eager_place(slot);
        let parameters = self.parameters_for(slot);
        let pairs = parameters.pairs();
        let tip = self.judge.tip();
        let nonce = self.node_nonce;
        let config = self.config.clone();
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        session.granted_bytes = parameters.push_budget_bytes();
        let (connection, key) = (session.our_connection, session.our_key);
        let sent = session.push_control(&Message::Version(Version {
            network: config.network_magic,
            version_min: PROTOCOL_VERSION,
            version_max: PROTOCOL_VERSION,
            features: 0,
            nonce,
            conn_id: connection,
            mac_key: key.as_bytes(),
            udp_port: config.udp_port,
            max_datagram: config.max_datagram.max(DEFAULT_MAX_DATAGRAM),
            tip: &tip,
            parameters: ParameterList::new(&pairs),
            agent: &config.agent,
        }));
        self.control_sent(slot, sent);
    }

    /// What we say of ourselves to this peer.
    fn parameters_for(&self, slot: u32) -> Parameters {
        let kbit = |rate: u64| u32::try_from(rate / 125).unwrap_or(u32::MAX);
        let told = |port: u16| (port != 0).then_some(port);
        let eager = self.session(slot).is_some_and(|session| session.eager);
        let push_level = match eager {
            true => self.config.push_level,
            false => self.config.push_level.min(1),
        };
        Parameters {
            max_down_kbit_s: self.config.max_down_bytes_per_s.map(kbit),
            max_up_kbit_s: self.config.max_up_bytes_per_s.map(kbit),
            preference: Some(self.config.preference),
            role: Some(self.config.role),
            max_datagram: None,
            push_level: Some(push_level),
            max_jobs: Some(super::jobs::MAX_JOBS_PER_PEER as u16),
            push_budget_datagrams: Some(match push_level >= 3 {
                true => self.needs.budget(self.mempool.len()),
                false => 0,
            }),
            control_port: told(self.config.control_port),
            bitcoin_port: told(self.config.bitcoin_port),
        }
    }

    /// Tells a peer that its place among the eager ones has changed.
    pub(super) fn send_parameters(&mut self, slot: u32) {
        let parameters = self.parameters_for(slot);
        let pairs = parameters.pairs();
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        session.granted_bytes = parameters.push_budget_bytes();
        let sent = session.push_control(&Message::SetParams(ParameterList::new(&pairs)));
        self.control_sent(slot, sent);
    }

    /// Tells the eager peers what they may push of the next block, where that has changed by more than a quarter.
    pub(super) fn renew_grants(&mut self) {
        if self.config.push_level < 3 {
            return;
        }
        let datagrams = self.needs.budget(self.mempool.len());
        let bytes = u64::from(datagrams) * u64::from(DEFAULT_MAX_DATAGRAM);
        let sessions = self.sessions.iter().flatten();
        let differ = sessions.filter(|session| {
            let known = session.granted_bytes;
            let told = matches!(session.phase, Phase::AwaitAck | Phase::Established);
            session.eager && told && known.abs_diff(bytes) * 4 > known.max(bytes)
        });
        let slots: Vec<u32> = differ.map(|session| session.id.slot).collect();
        for slot in slots {
            self.send_parameters(slot);
        }
    }

    /// Marks a session for its control bytes, or ends it if its backlog is full.
    pub(super) fn control_sent(&mut self, slot: u32, sent: bool) {
        if sent {
            self.control_ready.insert(slot);
        } else {
            self.drop_session(slot, "control backlog full");
        }
    }

    /// BTVERSION of the peer.
    pub(super) fn take_version(&mut self, slot: u32, version: &Version<'_>) {
        let (own_nonce, magic) = (self.node_nonce, self.config.network_magic);
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        if session.phase != Phase::AwaitVersion {
            self.refuse_order(slot, "second BTVERSION");
            return;
        }
        let supported = version.version_min <= PROTOCOL_VERSION;
        let refusal = if version.network != magic {
            Some((DisconnectReason::Network, "other network"))
        } else if !supported || version.version_max < PROTOCOL_VERSION {
            Some((DisconnectReason::Version, "no common version"))
        } else if version.nonce == own_nonce {
            Some((DisconnectReason::Oneself, "connected to oneself"))
        } else {
            None
        };
        if let Some((reason, text)) = refusal {
            self.end_session(slot, reason, text);
            return;
        }
        session.peer_nonce = version.nonce;
        session.version = PROTOCOL_VERSION;
        session.agent = version.agent.to_owned();
        session.their_connection = version.conn_id;
        session.their_key = MacKey::new(*version.mac_key);
        session.peer_max_datagram = version.max_datagram;
        session.params = Parameters::from_list(&version.parameters);
        if let Some(size) = session.params.max_datagram {
            session.peer_max_datagram = size;
        }
        session.path.address.set_port(version.udp_port);
        session.phase = Phase::AwaitAck;
        let rate = self.config.max_up_bytes_per_s;
        if let Some(session) = self.session_mut(slot) {
            apply_rate(session, rate);
        }
        if self.resolve_duplicate(slot) {
            return;
        }
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        if session.initiator == Initiator::Inbound {
            self.send_version(slot);
        }
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        let acknowledged = session.push_control(&Message::VersionAck(VersionAck {
            version: PROTOCOL_VERSION,
            features: 0,
        }));
        self.control_sent(slot, acknowledged);
    }

    /// Two connections to the same node: both sides keep the one that the larger nonce initiated.
    /// Gives whether this session was ended.
    fn resolve_duplicate(&mut self, slot: u32) -> bool {
        let Some(session) = self.session(slot) else {
            return true;
        };
        let (nonce, ours) = (session.peer_nonce, session.initiator == Initiator::Outbound);
        // A nonce is no secret: from another address it must not end the session of its owner.
        let ip = session.remote.ip();
        let twin = self.sessions.iter().flatten().find(|other| {
            other.id.slot != slot
                && other.peer_nonce == nonce
                && other.remote.ip() == ip
                && matches!(other.phase, Phase::AwaitAck | Phase::Established)
        });
        let Some(twin) = twin else {
            return false;
        };
        let twin_slot = twin.id.slot;
        let same_side = (twin.initiator == Initiator::Outbound) == ours;
        let keep_ours = self.node_nonce > nonce;
        let loser = if same_side || keep_ours != ours {
            slot
        } else {
            twin_slot
        };
        self.end_session(
            loser,
            DisconnectReason::DuplicateConnection,
            "second connection",
        );
        loser == slot
    }

    /// BTVERACK of the peer: the session is established.
    pub(super) fn take_version_ack(&mut self, slot: u32, ack: &VersionAck) {
        let now = self.now;
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        let agreed = ack.version == PROTOCOL_VERSION && ack.features == 0;
        if session.phase != Phase::AwaitAck || !agreed {
            self.refuse_order(slot, "BTVERACK of something else");
            return;
        }
        session.phase = Phase::Established;
        // Without a port it takes no datagrams.
        let has_port = session.path.address.port() != 0;
        session.path.next_ping = has_port.then_some(now);
        let event = Event::SessionUp {
            session: session.id,
            agent: session.agent.clone(),
            doors: Doors {
                version: session.version,
                data_port: session.path.address.port(),
                control_port: session.params.control_port.unwrap_or(0),
                bitcoin_port: session.params.bitcoin_port.unwrap_or(0),
            },
        };
        self.events.push_back(event);
        self.wake(slot);
        self.offer_jobs(slot);
    }

    /// SET_PARAMS of the peer.
    pub(super) fn take_parameters(&mut self, slot: u32, list: &ParameterList<'_>) {
        let rate = self.config.max_up_bytes_per_s;
        if let Some(session) = self.session_mut(slot) {
            session.params.update(list);
            if let Some(size) = session.params.max_datagram {
                session.peer_max_datagram = size;
            }
            apply_rate(session, rate);
        }
    }

    /// A PING that is no part of a probe; it is answered the way it came, 0 bytes standing for TCP.
    pub(super) fn take_ping(&mut self, slot: u32, nonce: u64, datagram_bytes: u16) {
        if datagram_bytes == 0 {
            let pong = Pong { nonce, bytes: 0 };
            if let Some(session) = self.session_mut(slot) {
                let sent = session.push_control(&Message::Pong(pong));
                self.control_sent(slot, sent);
            }
            return;
        }
        if let Some(session) = self.session_mut(slot) {
            session.push_answer(Answer::Pong(nonce, datagram_bytes));
        }
        self.wake(slot);
    }

    /// A PONG: proves the path if it answers our challenge.
    pub(super) fn take_pong(&mut self, slot: u32, nonce: u64) {
        let now = self.now;
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        let Some((expected, sent)) = session.path.challenge else {
            return;
        };
        if expected != nonce {
            return;
        }
        session.path.challenge = None;
        session.path.tries = 0;
        session.path.next_ping = Some(now + KEEPALIVE);
        session.sent.note_round_trip(now.since(sent));
        session.pacer.note_round_trip(now, now.since(sent));
        let newly = !session.path.proven;
        session.path.proven = true;
        session.path.lost = false;
        if newly {
            let id = session.id;
            self.events.push_back(Event::PathChanged {
                session: id,
                udp: true,
            });
            self.begin_probes(slot);
        }
        self.note_route(slot);
        self.wake(slot);
    }

    /// Once data can go another way to a peer, or only now, every job looks at its peers again.
    fn note_route(&mut self, slot: u32) {
        let now = self.now;
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        let route = session.route(now);
        if std::mem::replace(&mut session.last_route, route) != route {
            for entry in self.jobs.values_mut() {
                entry.asks.dirty = true;
            }
        }
    }

    /// The PING that is due on a session's path, if any: its nonce.
    pub(super) fn due_ping(&mut self, slot: u32) -> Option<u64> {
        let now = self.now;
        let nonce: u64 = self.random.random();
        let session = self.session_mut(slot)?;
        if !session.is_established() || session.path.next_ping.is_none_or(|due| due > now) {
            return None;
        }
        let again = match session.path.tries {
            // 100, 200, 400, 800 ms: five PINGs within the time that data waits for the path.
            tries @ 0..=3 => std::time::Duration::from_millis(100 << tries),
            _ => PATH_RETRY,
        };
        session.path.tries += 1;
        session.path.next_ping = Some(now + again);
        session.path.challenge = Some((nonce, now));
        Some(nonce)
    }

    /// A path that stays silent is lost; data goes over TCP from then on.
    pub(super) fn path_silent(&mut self, slot: u32, probes: u32) {
        let now = self.now;
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        if probes < MAX_PROBES || !session.path.proven {
            return;
        }
        session.path.proven = false;
        session.path.lost = true;
        session.path.tries = 0;
        session.path.next_ping = Some(now);
        session.probes = Probes::default();
        let id = session.id;
        self.events.push_back(Event::PathChanged {
            session: id,
            udp: false,
        });
        self.note_route(slot);
        self.control_ready.insert(slot);
    }

    /// The clocks of one session.
    pub(super) fn session_timeouts(&mut self, slot: u32) {
        let now = self.now;
        if self.is_at_rest(slot) {
            return;
        }
        let deadline = self.session_deadline(slot);
        let due = deadline.is_some_and(|(at, _)| at <= now);
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        let waiting = matches!(session.phase, Phase::AwaitVersion | Phase::AwaitAck);
        if waiting && now.since(session.connected) >= HANDSHAKE_TIMEOUT {
            self.end_session(slot, DisconnectReason::Timeout, "handshake timed out");
            return;
        }
        if session.sent.deadline().is_some_and(|due| due <= now) {
            let mut outcome = std::mem::replace(&mut self.outcome, super::Outcome::new());
            outcome.clear();
            if let Some(session) = self.session_mut(slot) {
                session.sent.on_timeout(now, &mut outcome);
            }
            self.settle_outcome(slot, &mut outcome);
            self.outcome = outcome;
        }
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        if session.blocked_until.is_some_and(|until| until <= now) {
            session.blocked_until = None;
        }
        let over_tcp = session.route(now) == Route::Tcp;
        self.note_route(slot);
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        if session.is_established() && (due || over_tcp) {
            self.wake(slot);
        }
        self.probe_timeouts(slot);
    }

    /// A message that the protocol does not allow where it stands ends the session.
    pub(super) fn refuse_order(&mut self, slot: u32, text: &'static str) {
        self.refused.count(Refusal::Order);
        self.end_session(slot, DisconnectReason::ProtocolOrder, text);
    }

    /// A frame that does not decode ends the session.
    pub(super) fn refuse_wire(&mut self, slot: u32, error: WireError) {
        self.refused.count(Refusal::Malformed);
        let reason = match error {
            WireError::UnknownType => DisconnectReason::UnknownMessage,
            WireError::BadMagic => DisconnectReason::BadMagic,
            _ => DisconnectReason::Malformed,
        };
        if let Some(session) = self.session_mut(slot) {
            session.score = super::MAX_SCORE;
            let id = session.id;
            self.events.push_back(Event::Refused {
                session: id,
                refusal: Refusal::Malformed,
                score: super::MAX_SCORE,
            });
        }
        self.end_session(slot, reason, error.reason());
    }

    /// Says DISCONNECT, and ends the session once that is taken.
    pub(super) fn end_session(&mut self, slot: u32, reason: DisconnectReason, text: &'static str) {
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        if session.phase == Phase::Closing {
            return;
        }
        let _ = session.push_control(&Message::Disconnect(Disconnect { reason, text }));
        session.phase = Phase::Closing;
        session.closing = Some(reason);
        let id = session.id;
        self.control_ready.insert(slot);
        self.leave_jobs(slot);
        self.events.push_back(Event::SessionDown {
            session: id,
            reason: text,
            code: Some(reason),
        });
    }

    /// DISCONNECT of the peer.
    pub(super) fn take_disconnect(&mut self, slot: u32, reason: DisconnectReason) {
        self.forget_session(slot, reason.name(), Some(reason));
    }

    /// Forgets a session whose connection is gone.
    pub(super) fn drop_session(&mut self, slot: u32, reason: &'static str) {
        self.forget_session(slot, reason, None);
    }

    fn forget_session(&mut self, slot: u32, reason: &'static str, code: Option<DisconnectReason>) {
        self.forget_pulse(slot);
        let Some(session) = self.sessions.get_mut(slot as usize).and_then(Option::take) else {
            return;
        };
        self.control_ready.remove(&slot);
        self.leave_jobs(slot);
        if session.phase != Phase::Closing {
            self.events.push_back(Event::SessionDown {
                session: session.id,
                reason,
                code,
            });
        }
        if session.eager {
            self.fill_eager_places();
        }
    }
}

/// The lower of our own cap and what the peer wants to receive.
fn apply_rate(session: &mut Session, own: Option<u64>) {
    let theirs = session
        .params
        .max_down_kbit_s
        .filter(|rate| *rate > 0)
        .map(|rate| u64::from(rate) * 125);
    let cap = match (own, theirs) {
        (Some(own), Some(theirs)) => Some(own.min(theirs)),
        (own, theirs) => own.or(theirs),
    };
    session.pacer.set_max_rate(cap);
}
