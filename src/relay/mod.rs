//! The engine: sessions, jobs, scheduling, serving and blame, without any I/O.
//!
//! Its methods come in four kinds. `handle_*` takes what came in (control bytes, datagrams, time);
//! `submit_block` and its like are commands; `poll_*` gives out what is to go; the rest are
//! snapshots. After every call that changes something, drain in this order until each is empty:
//! [`Engine::poll_event`], [`Engine::poll_control`] for the sessions that
//! [`Engine::poll_control_ready`] names, [`Engine::poll_transmit`]; then sleep until
//! [`Engine::poll_deadline`] and call [`Engine::handle_timeout`]. Several datagrams may be handled
//! before draining; the schedule looks at them together.
//!
//! What it is not: it opens no socket, reads no clock, validates no scripts, and does not follow the
//! header chain (it asks a [`HeaderJudge`]).
//!
//! # Where things are
//!
//! - `session`, `handshake`, `probe`: one peer, from its first byte to its last
//! - `slots`: who may have a session, and who makes room
//! - `filter`: what a datagram has to pass before anything looks at it
//! - `loss`, `pacing`: which datagrams arrived, and when the next may go; `uplink`: what all sessions may send together
//! - `job`, `assemble`: what is known of one block; `peer`: what one peer has and wants of it
//! - `schedule`: who is asked for what
//! - `inbound`, `outbound`: messages to state, state to messages
//! - `parity`: the erasure code over what is pushed, and what comes back from it
//! - `jobs`: a job's life, and what becomes of its news; `arrivals`: what came to the cache last
//! - `commands`, `compact`: what the node itself and the Bitcoin node beside it hand in
//! - `addresses`: what peers tell of other nodes
//! - `snapshot`, `held`: the engine's state as plain data
//! - `shelf`: where bytes may lie already, for a process with many engines

mod addresses;
mod arrivals;
mod assemble;
mod commands;
mod compact;
mod event;
mod filter;
mod handshake;
mod held;
mod inbound;
mod job;
mod jobs;
mod loss;
mod outbound;
mod pacing;
mod parity;
mod parts;
mod peer;
mod poll;
mod probe;
mod schedule;
mod session;
mod shelf;
mod slots;
mod snapshot;
mod stats;
mod uplink;

pub use compact::{CompactAnswer, CompactBlock};
pub use event::*;
pub use held::Held;
pub(crate) use parity::{Coded, flight_levels};
pub use shelf::Shelf;
pub use stats::{MAX_SCORE, Refusal, RefusalCounts};

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::mempool::Mempool;
use crate::merkle::Hash;
use crate::time::Time;
use crate::wire::{DisconnectReason, MacKey};
use arrivals::Arrivals;
use compact::PendingCompact;
use jobs::JobEntry;
use jobs::refused::{InvalidBlocks, PassedBlocks};
use loss::Outcome;
use parity::amount::Needs;
use poll::Pulse;
use session::{Item, Phase, Session, SessionStart};
use slots::Standing;
use uplink::Uplink;

/// Sessions that may be asked for full first flights at once.
///
/// As with the high-bandwidth peers of BIP152, of which a node may have three: each further one sends the same
/// 15 kB of short ids for every block. Two leave a second source when one is slow or lies, and stay below
/// 40 kB for a block of 2,500 transactions.
const MAX_EAGER: usize = 2;

/// Most sessions of any engine: a slot number takes 12 bits of a connection id, the other 20 are random.
pub const MAX_SESSIONS: usize = 1 << 12;

/// The engine of one node.
pub struct Engine {
    config: EngineConfig,
    judge: Box<dyn HeaderJudge + Send>,
    random: StdRng,
    /// The nonce of BTVERSION: tells a connection to oneself, and two to the same node.
    node_nonce: u64,
    /// What the secret draw between network groups is keyed with.
    group_keys: [u64; 2],
    /// Blocks that are not to be fetched again.
    invalid: InvalidBlocks,
    passed: PassedBlocks,
    /// The judge has accepted a header since offers that wait were last looked at.
    headers_news: bool,
    now: Time,
    sessions: Vec<Option<Box<Session>>>,
    generation: u32,
    /// Boxed, since an entry is taken out while a message changes it.
    jobs: BTreeMap<u16, Box<JobEntry>>,
    jobs_by_hash: BTreeMap<Hash, u16>,
    next_job: u16,
    mempool: Mempool,
    /// What came into it last.
    arrivals: Arrivals,
    /// What blocks lacked here.
    needs: Needs,
    events: VecDeque<Event>,
    /// Sessions with control bytes, or frames, to put on their control connection.
    control_ready: BTreeSet<u32>,
    /// Sessions that may have a datagram to send.
    transmit_ready: VecDeque<u32>,
    compacts: VecDeque<PendingCompact>,
    shelf: Option<Arc<dyn Shelf>>,
    /// What the sessions want to be woken for, by slot, as far as nothing has changed since.
    pulses: Vec<Cell<Option<Pulse>>>,
    outcome: Outcome<Vec<Item>>,
    /// The uplink that the sessions share.
    uplink: Uplink,
    /// The session after the one that sent last.
    turn: u32,
    refused: RefusalCounts,
    totals: EngineTotals,
}

impl Engine {
    /// An engine without sessions and jobs. `seed` feeds all its randomness.
    pub fn new(
        config: EngineConfig,
        judge: Box<dyn HeaderJudge + Send>,
        seed: [u8; 32],
        now: Time,
    ) -> Self {
        let mut random = StdRng::from_seed(seed);
        let uplink = Uplink::new(now, config.max_up_bytes_per_s);
        let mempool = Mempool::new(config.max_mempool_bytes, [random.random(), random.random()]);
        Self {
            node_nonce: random.random(),
            group_keys: [random.random(), random.random()],
            invalid: InvalidBlocks::default(),
            passed: PassedBlocks::default(),
            headers_news: false,
            config,
            judge,
            random,
            now,
            sessions: Vec::new(),
            generation: 0,
            jobs: BTreeMap::new(),
            jobs_by_hash: BTreeMap::new(),
            next_job: 1,
            mempool,
            arrivals: Arrivals::default(),
            needs: Needs::default(),
            events: VecDeque::new(),
            control_ready: BTreeSet::new(),
            transmit_ready: VecDeque::new(),
            compacts: VecDeque::new(),
            shelf: None,
            pulses: Vec::new(),
            outcome: Outcome::new(),
            uplink,
            turn: 0,
            refused: RefusalCounts::default(),
            totals: EngineTotals::default(),
        }
    }

    /// A control connection was made. `None` if there is no slot for it, and none that it may take from another;
    /// close it then.
    pub fn handle_connected(
        &mut self,
        now: Time,
        initiator: Initiator,
        remote: SocketAddr,
    ) -> Option<SessionId> {
        self.connected(now, initiator, remote, Standing::Stranger)
    }

    /// As [`Engine::handle_connected`], of a peer that the operator named and that has proven to be it: strangers make
    /// room for it, and it makes room for none.
    pub fn handle_named_connected(
        &mut self,
        now: Time,
        initiator: Initiator,
        remote: SocketAddr,
    ) -> Option<SessionId> {
        self.connected(now, initiator, remote, Standing::Named)
    }

    fn connected(
        &mut self,
        now: Time,
        initiator: Initiator,
        remote: SocketAddr,
        standing: Standing,
    ) -> Option<SessionId> {
        self.now = now;
        if !self.admit(initiator, remote.ip(), standing) {
            return None;
        }
        let slot = match self.sessions.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.sessions.push(None);
                self.pulses.push(Cell::new(None));
                self.sessions.len() - 1
            }
        };
        self.generation = self.generation.wrapping_add(1);
        let id = SessionId {
            slot: slot as u32,
            generation: self.generation,
        };
        let connection = self.random.random::<u32>() << 12 | slot as u32;
        let session = Session::new(SessionStart {
            id,
            initiator,
            standing,
            remote,
            connection,
            key: MacKey::new(self.random.random()),
            max_rate_bytes_per_s: self.config.max_up_bytes_per_s,
            now,
        });
        self.forget_pulse(id.slot);
        if let Some(free) = self.sessions.get_mut(slot) {
            *free = Some(Box::new(session));
        }
        if initiator == Initiator::Outbound {
            self.send_version(id.slot);
        }
        Some(id)
    }

    /// Bytes of a control connection, in order, cut anywhere.
    pub fn handle_control(&mut self, now: Time, session: SessionId, bytes: &[u8]) {
        self.now = now;
        let Some(slot) = self.live(session) else {
            return;
        };
        self.totals.bytes_in += bytes.len() as u64;
        let mut rest = bytes;
        if let Some(session) = self.session_mut(slot) {
            session.bytes_in += bytes.len() as u64;
            session.path.bytes_in += bytes.len() as u64;
        }
        loop {
            let Some(session) = self.session_mut(slot) else {
                return;
            };
            if session.phase == Phase::Closing {
                return;
            }
            match session.decoder.read(&mut rest) {
                Ok(Some((kind, body))) => self.handle_control_frame(slot, kind, &body),
                Ok(None) => return,
                Err(error) => {
                    self.refuse_wire(slot, error);
                    return;
                }
            }
        }
    }

    /// A control connection was closed by the other side or by the network.
    pub fn handle_disconnected(&mut self, now: Time, session: SessionId) {
        self.now = now;
        if let Some(slot) = self.live(session) {
            self.drop_session(slot, "connection closed");
        }
    }

    /// A datagram came in.
    pub fn handle_datagram(&mut self, now: Time, from: SocketAddr, datagram: &[u8]) {
        self.now = now;
        self.filter_datagram(from, datagram);
    }

    /// Time has passed; call it at or after [`Engine::poll_deadline`].
    pub fn handle_timeout(&mut self, now: Time) {
        self.now = now;
        // Who comes after the one that sent last has the first turn.
        let slots = self.sessions.len() as u32;
        let first = self.turn.min(slots);
        for slot in (first..slots).chain(0..first) {
            self.session_timeouts(slot);
        }
        self.job_timeouts();
    }

    /// Ends a session in an orderly way.
    pub fn disconnect(&mut self, now: Time, session: SessionId) {
        self.now = now;
        if let Some(slot) = self.live(session) {
            self.end_session(slot, DisconnectReason::None, "asked to");
        }
    }

    /// Ends all sessions with the reason "shutdown"; drain control bytes afterwards.
    pub fn shut_down(&mut self, now: Time) {
        self.now = now;
        for slot in 0..self.sessions.len() as u32 {
            self.end_session(slot, DisconnectReason::Shutdown, "shutdown");
        }
    }

    fn live(&self, id: SessionId) -> Option<u32> {
        let session = self.session(id.slot)?;
        (session.id == id).then_some(id.slot)
    }

    fn session(&self, slot: u32) -> Option<&Session> {
        self.sessions.get(slot as usize)?.as_deref()
    }

    fn session_mut(&mut self, slot: u32) -> Option<&mut Session> {
        self.forget_pulse(slot);
        self.sessions.get_mut(slot as usize)?.as_deref_mut()
    }

    /// The slots of all sessions whose handshake is done.
    fn established(&self) -> Vec<u32> {
        self.sessions
            .iter()
            .flatten()
            .filter(|session| session.is_established())
            .map(|session| session.id.slot)
            .collect()
    }

    /// Something may be sent to this session.
    fn wake(&mut self, slot: u32) {
        let now = self.now;
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        let over_tcp = session.route(now) == session::Route::Tcp;
        if !std::mem::replace(&mut session.transmit_named, true) {
            self.transmit_ready.push_back(slot);
        }
        if over_tcp {
            self.control_ready.insert(slot);
        }
    }

    /// Counts a refused datum, scores its sender, and ends the session at [`MAX_SCORE`].
    fn blame(&mut self, slot: u32, refusal: Refusal) {
        self.refused.count(refusal);
        // What still comes to light of one that is cut off changes nothing for it.
        let Some(session) = self
            .session_mut(slot)
            .filter(|session| session.phase != Phase::Closing)
        else {
            return;
        };
        session.score = session.score.saturating_add(refusal.cost());
        let (score, id) = (session.score, session.id);
        if refusal.cost() > 0 {
            self.events.push_back(Event::Refused {
                session: id,
                refusal,
                score,
            });
        }
        if score >= MAX_SCORE {
            let reason = match refusal {
                Refusal::Malformed => DisconnectReason::Malformed,
                _ => DisconnectReason::Misbehaviour,
            };
            self.end_session(slot, reason, refusal.name());
        }
    }
}
