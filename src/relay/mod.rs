//! The engine: sessions, jobs, scheduling, serving and blame, without any I/O.
//!
//! Its methods come in four kinds. `handle_*` takes what came in (control bytes, datagrams, time);
//! `submit_block` and its like are commands; `poll_*` gives out what is to go; the rest are
//! snapshots. After every call that changes something, drain in this order until each is empty:
//! [`Engine::poll_event`], [`Engine::poll_control`] for the sessions that
//! [`Engine::poll_control_ready`] names, [`Engine::poll_transmit`]; then sleep until
//! [`Engine::poll_deadline`] and call [`Engine::handle_timeout`].
//!
//! What it is not: it opens no socket, reads no clock, validates no scripts, and does not follow the
//! header chain (it asks a [`HeaderJudge`]).

mod event;
mod loss;
mod pacing;
mod stats;

pub use event::*;
pub use stats::{MAX_SCORE, Refusal, RefusalCounts};

use std::net::SocketAddr;

use bytes::Bytes;

type Hash = [u8; 32];
use crate::time::Time;

/// The engine of one node.
pub struct Engine {
    config: EngineConfig,
    judge: Box<dyn HeaderJudge + Send>,
}

impl Engine {
    /// An engine without sessions and jobs. `seed` feeds all its randomness.
    pub fn new(
        config: EngineConfig,
        judge: Box<dyn HeaderJudge + Send>,
        seed: [u8; 32],
        now: Time,
    ) -> Self {
        let _ = (seed, now);
        Self { config, judge }
    }

    /// A control connection was made. `None` if there are as many sessions as may be; close it then.
    pub fn handle_connected(
        &mut self,
        now: Time,
        initiator: Initiator,
        remote: SocketAddr,
    ) -> Option<SessionId> {
        let _ = (now, initiator, remote, &self.config, &mut self.judge);
        None
    }

    /// Bytes of a control connection, in order, cut anywhere.
    pub fn handle_control(&mut self, now: Time, session: SessionId, bytes: &[u8]) {
        let _ = (now, session, bytes);
    }

    /// A control connection was closed by the other side or by the network.
    pub fn handle_disconnected(&mut self, now: Time, session: SessionId) {
        let _ = (now, session);
    }

    /// A datagram came in.
    pub fn handle_datagram(&mut self, now: Time, from: SocketAddr, datagram: &[u8]) {
        let _ = (now, from, datagram);
    }

    /// Time has passed; call it at or after [`Engine::poll_deadline`].
    pub fn handle_timeout(&mut self, now: Time) {
        let _ = now;
    }

    /// Takes a whole serialized block from this node's own side and relays it. Gives its hash
    /// (internal byte order).
    ///
    /// # Errors
    /// When the bytes are no block, or the header chain does not accept its header, or the trees do
    /// not match the header.
    pub fn submit_block(&mut self, now: Time, block: Bytes) -> Result<Hash, SubmitRefusal> {
        let _ = (now, block);
        Err(SubmitRefusal::Duplicate)
    }

    /// Takes a serialized transaction into the cache. Gives its txid (internal byte order).
    ///
    /// # Errors
    /// When the bytes are no transaction; the text says why.
    pub fn add_transaction(&mut self, now: Time, bytes: Bytes) -> Result<Hash, &'static str> {
        let _ = (now, bytes);
        Err("")
    }

    /// Ends a session in an orderly way.
    pub fn disconnect(&mut self, now: Time, session: SessionId) {
        let _ = (now, session);
    }

    /// Ends all sessions with the reason "shutdown"; drain control bytes afterwards.
    pub fn shut_down(&mut self, now: Time) {
        let _ = now;
    }

    /// The next event, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// A session that has control bytes to send, each named once until it has new ones.
    pub fn poll_control_ready(&mut self) -> Option<SessionId> {
        None
    }

    /// The next piece of control bytes of a session, at most 64 KiB; call it only while there is room
    /// for them on the connection. `None` when there is nothing to send now.
    pub fn poll_control(&mut self, now: Time, session: SessionId) -> Option<Bytes> {
        let _ = (now, session);
        None
    }

    /// Writes the next datagram to the start of `buffer` (at least 65,507 bytes long).
    pub fn poll_transmit(&mut self, now: Time, buffer: &mut [u8]) -> Option<Transmit> {
        let _ = (now, buffer);
        None
    }

    /// When to call [`Engine::handle_timeout`] (or [`Engine::poll_transmit`] again) at the latest, and why.
    pub fn poll_deadline(&self) -> Option<(Time, WakeReason)> {
        None
    }

    /// The sessions, in order of their numbers.
    pub fn peers(&self, now: Time) -> Vec<PeerSnapshot> {
        let _ = now;
        Vec::new()
    }

    /// The jobs, newest last.
    pub fn jobs(&self) -> Vec<JobSnapshot> {
        Vec::new()
    }

    /// The counters.
    pub fn totals(&self) -> EngineTotals {
        EngineTotals::default()
    }

    /// The transaction cache.
    pub fn mempool(&self) -> MempoolSnapshot {
        MempoolSnapshot::default()
    }

    /// A block that is whole here and still kept by the engine, serialized.
    pub fn block(&self, hash: &Hash) -> Option<Bytes> {
        let _ = hash;
        None
    }
}
