//! What a world asks of whoever stands at a node: what [`Engine`] offers, so that the engine is one, and an adversary
//! may be another, or one around an engine.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::relay::{Engine, Event, Initiator, SessionId, Shelf, WakeReason};
use crate::time::Time;

/// A datagram to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Where to.
    pub to: SocketAddr,
    /// The address that it claims to come from; `None`: the node's own.
    pub from: Option<SocketAddr>,
    /// Bytes of it, at the start of the buffer that was handed in.
    pub len: usize,
}

/// Whoever stands at a node. Methods and their order are those of [`Engine`].
pub trait Actor: Send {
    /// A control connection was made; `None` closes it.
    fn handle_connected(
        &mut self,
        now: Time,
        initiator: Initiator,
        remote: SocketAddr,
    ) -> Option<SessionId>;
    /// Bytes of a control connection, in order, cut anywhere.
    fn handle_control(&mut self, now: Time, session: SessionId, bytes: &[u8]);
    /// A control connection has ended.
    fn handle_disconnected(&mut self, now: Time, session: SessionId);
    /// A datagram came in.
    fn handle_datagram(&mut self, now: Time, from: SocketAddr, datagram: &[u8]);
    /// The time of [`Actor::poll_deadline`] has come.
    fn handle_timeout(&mut self, now: Time);
    /// A block is handed in. Whether it was taken.
    fn submit_block(&mut self, now: Time, block: Bytes) -> bool;
    /// A transaction is handed in.
    fn add_transaction(&mut self, now: Time, transaction: Bytes);
    /// The next thing that it tells.
    fn poll_event(&mut self) -> Option<Event>;
    /// A session with control bytes to send.
    fn poll_control_ready(&mut self) -> Option<SessionId>;
    /// The next control bytes of a session.
    fn poll_control(&mut self, now: Time, session: SessionId) -> Option<Bytes>;
    /// Writes the next datagram to the start of `buffer`.
    fn poll_transmit(&mut self, now: Time, buffer: &mut [u8]) -> Option<Outgoing>;
    /// When it wants to be woken.
    fn poll_deadline(&self) -> Option<(Time, WakeReason)>;
    /// The Bitcoin node beside it refuses a block that it gave out whole.
    fn reject_block(&mut self, _now: Time, _block: [u8; 32]) {}
    /// Whether it stands at the wires around it, and sees the datagrams of its neighbours.
    fn overhears(&self) -> bool {
        false
    }
    /// A datagram between two of its neighbours, as it left.
    fn handle_overheard(&mut self, _from: SocketAddr, _to: SocketAddr, _datagram: &[u8]) {}
    /// Where bytes may lie that it would keep.
    fn set_shelf(&mut self, _shelf: Arc<dyn Shelf>) {}
    /// The engine that it is, for snapshots.
    fn engine(&self) -> Option<&Engine> {
        None
    }
}

impl Actor for Engine {
    fn handle_connected(
        &mut self,
        now: Time,
        initiator: Initiator,
        remote: SocketAddr,
    ) -> Option<SessionId> {
        Self::handle_connected(self, now, initiator, remote)
    }

    fn handle_control(&mut self, now: Time, session: SessionId, bytes: &[u8]) {
        Self::handle_control(self, now, session, bytes);
    }

    fn handle_disconnected(&mut self, now: Time, session: SessionId) {
        Self::handle_disconnected(self, now, session);
    }

    fn handle_datagram(&mut self, now: Time, from: SocketAddr, datagram: &[u8]) {
        Self::handle_datagram(self, now, from, datagram);
    }

    fn handle_timeout(&mut self, now: Time) {
        Self::handle_timeout(self, now);
    }

    fn submit_block(&mut self, now: Time, block: Bytes) -> bool {
        Self::submit_block(self, now, block).is_ok()
    }

    fn add_transaction(&mut self, now: Time, transaction: Bytes) {
        // Whatever the cache does not take is simply not there.
        let _ = Self::add_transaction(self, now, transaction);
    }

    fn poll_event(&mut self) -> Option<Event> {
        Self::poll_event(self)
    }

    fn poll_control_ready(&mut self) -> Option<SessionId> {
        Self::poll_control_ready(self)
    }

    fn poll_control(&mut self, now: Time, session: SessionId) -> Option<Bytes> {
        Self::poll_control(self, now, session)
    }

    fn poll_transmit(&mut self, now: Time, buffer: &mut [u8]) -> Option<Outgoing> {
        let transmit = Self::poll_transmit(self, now, buffer)?;
        Some(Outgoing {
            to: transmit.to,
            from: None,
            len: transmit.len,
        })
    }

    fn poll_deadline(&self) -> Option<(Time, WakeReason)> {
        Self::poll_deadline(self)
    }

    fn reject_block(&mut self, now: Time, block: [u8; 32]) {
        Self::reject_block(self, now, block, "refused by the Bitcoin node");
    }

    fn set_shelf(&mut self, shelf: Arc<dyn Shelf>) {
        Self::set_shelf(self, shelf);
    }

    fn engine(&self) -> Option<&Engine> {
        Some(self)
    }
}
