//! Control connections over TCP: the hub between their tasks and the engine.
//!
//! Each connection is one task ([`super::connection`]) that reads into a bounded channel to the
//! engine, [`ControlIn`], and writes what the engine puts into the connection's [`Writer`]. Both ways
//! a full queue holds back what feeds it: a peer that does not read fills its own writer only, and a
//! peer that floods waits its turn in TCP: no connection has more than [`MAX_READS`] events before the
//! engine, so that the others wait for these at most.
//!
//! What this is not: it frames nothing, and it neither times out handshakes nor keeps connections
//! alive; the engine does.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::admission::{Admission, Refusal};
use super::clock::Clock;
use super::emulate::SharedUplink;
use super::quic::PrivateLink;
use super::{BindError, Socket, canonical, connection, dial};

/// Events that wait for the engine: with [`connection::READ_BYTES`] each, at most 4 MiB.
pub const MAX_EVENTS: usize = 256;
/// What one connection has read and the engine has not taken: one to be taken, and one to be read
/// meanwhile. Four peers that flood, with 256 between them, held back a block by seconds.
pub const MAX_READS: usize = 2;
/// Inbound connections unless given: what Bitcoin Core takes, 125, less its outbound ones.
pub const MAX_INBOUND: usize = 114;
/// Inbound connections of one address (IPv4) or one /64 (IPv6) unless given: a few nodes behind one
/// household's address, and too few to fill [`MAX_INBOUND`] from one place. Loopback is exempt:
/// whoever is on this machine needs no network to harm it.
pub const MAX_INBOUND_PER_ADDRESS: usize = 8;
/// Bytes that wait in one connection's writer: four of the largest control frames. A message is taken
/// while less than this waits, so one more may stand above it.
pub const MAX_WRITE_BYTES: usize = 256 << 10;
/// What a waiting message counts beyond its bytes, so that [`MAX_WRITE_BYTES`] bounds the number of
/// small ones too (4,096) and with it the memory of the queue itself.
pub const WRITE_OVERHEAD_BYTES: usize = 64;
/// Messages a writer's channel holds: never the bound that is met first.
const MAX_WRITE_MESSAGES: usize = MAX_WRITE_BYTES / WRITE_OVERHEAD_BYTES + 1;
/// How long accepting rests after the system had no descriptor to give: long enough not to spin,
/// short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between two words in the log about that: it lasts as long as whoever holds the descriptors likes.
const ACCEPT_TOLD_PAUSE: Duration = Duration::from_secs(60);

/// Names one connection for as long as the process lives; never reused.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnectionId(u64);

/// Who opened a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// The peer connected to us.
    Inbound,
    /// We connected to the peer.
    Outbound,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CloseReason {
    /// The peer closed its side.
    PeerClosed,
    /// The engine dropped the [`Writer`]; what waited was written.
    Closed,
    /// The engine dropped the [`Writer`], but the peer did not take what waited in time.
    Unflushed,
    /// The connection broke.
    Failed(io::ErrorKind),
}

/// What became of a connection, in the judgement of the engine's side: what whoever dialled goes by.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Verdict {
    /// There was a session, or no blame is due: the next attempt may come as after any loss.
    #[default]
    Ended,
    /// No session came of it, and the text says why, and what to do. It may be otherwise later.
    Refused(&'static str),
    /// The same, for want of room on our own side.
    NoRoom(&'static str),
    /// The same, because what answers there does not speak our protocol.
    Stranger(&'static str),
    /// There is another session with the same node, and that one was kept.
    Duplicate,
    /// There was a session, and it ended because somebody broke the protocol.
    Misbehaved,
    /// It never makes sense to connect there, and the text says why.
    Never(&'static str),
}

impl Verdict {
    /// Why there was no session, and what to do, if there was none.
    pub const fn trouble(self) -> Option<&'static str> {
        match self {
            Self::Ended | Self::Duplicate | Self::Misbehaved => None,
            Self::Refused(reason)
            | Self::NoRoom(reason)
            | Self::Stranger(reason)
            | Self::Never(reason) => Some(reason),
        }
    }
}

/// What the engine's thread receives. For each id: one `Connected`, then any of the others, then one
/// `Closed`. After it has dropped the writer of an id it may still see some `Bytes` of it.
#[derive(Debug)]
pub enum ControlIn {
    /// A connection is open.
    Connected {
        /// Its name from now on.
        id: ConnectionId,
        /// The peer's address, [`canonical`].
        remote: SocketAddr,
        /// Who opened it.
        direction: Direction,
        /// Where to write; dropping it closes the connection.
        writer: Writer,
        /// The datagrams of a private link; `None` over TCP.
        link: Option<PrivateLink>,
    },
    /// The peer sent bytes, at most [`connection::READ_BYTES`].
    Bytes {
        /// Which connection.
        id: ConnectionId,
        /// The bytes, cut anywhere.
        bytes: Bytes,
        /// Dropped when they have been taken: then the connection reads on.
        turn: OwnedSemaphorePermit,
    },
    /// A writer that had no room has room again.
    Room {
        /// Which connection.
        id: ConnectionId,
    },
    /// The connection has ended.
    Closed {
        /// Which connection.
        id: ConnectionId,
        /// Why.
        reason: CloseReason,
    },
}

/// The engine's end of a connection's bounded queue. Dropping it closes the connection once what
/// waits is written, or soon after if the peer does not take it.
#[derive(Debug)]
pub struct Writer {
    sender: mpsc::Sender<Bytes>,
    pressure: Arc<Pressure>,
    verdict: oneshot::Sender<Verdict>,
    _alive: oneshot::Sender<()>,
}

impl Writer {
    /// A writer, the end that its connection reads, and what the engine's side says when it drops the writer.
    pub(super) fn channel() -> (Self, Outgoing, oneshot::Receiver<Verdict>) {
        let (sender, messages) = mpsc::channel(MAX_WRITE_MESSAGES);
        let (alive, dropped) = oneshot::channel();
        let (verdict, judged) = oneshot::channel();
        let pressure = Arc::new(Pressure::default());
        let writer = Self {
            sender,
            pressure: Arc::clone(&pressure),
            verdict,
            _alive: alive,
        };
        let outgoing = Outgoing {
            messages,
            pressure,
            dropped,
        };
        (writer, outgoing, judged)
    }

    /// Closes the connection as dropping does, and tells whoever dialled what became of it.
    pub fn close(self, verdict: Verdict) {
        // An inbound connection has nobody who listens.
        self.verdict.send(verdict).ok();
    }

    /// Whether a message would be taken. If not, a [`ControlIn::Room`] follows when half of the
    /// queue is free again: make no more messages for this connection until then.
    pub fn try_room(&self) -> bool {
        if self.pressure.has_room() {
            return true;
        }
        // Say so before looking again: either this look or the writing task sees the other's part.
        self.pressure.starved.store(true, Ordering::SeqCst);
        self.pressure.has_room()
    }

    /// Queues `bytes`, in order behind the others.
    ///
    /// # Errors
    /// Gives them back if there is no room, or if the connection has ended (its
    /// [`ControlIn::Closed`] is on the way).
    pub fn try_send(&self, bytes: Bytes) -> Result<(), Bytes> {
        if !self.try_room() {
            return Err(bytes);
        }
        let weight = weight(&bytes);
        self.pressure.queued.fetch_add(weight, Ordering::SeqCst);
        self.sender.try_send(bytes).map_err(|refused| {
            self.pressure.queued.fetch_sub(weight, Ordering::SeqCst);
            refused.into_inner()
        })
    }

    /// Bytes that wait, with [`WRITE_OVERHEAD_BYTES`] for each message.
    pub fn queued_bytes(&self) -> usize {
        self.pressure.queued.load(Ordering::SeqCst)
    }
}

fn weight(bytes: &Bytes) -> usize {
    bytes.len().saturating_add(WRITE_OVERHEAD_BYTES)
}

/// How full a writer is, seen from both ends.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    queued: AtomicUsize,
    starved: AtomicBool,
}

impl Pressure {
    fn has_room(&self) -> bool {
        self.queued.load(Ordering::SeqCst) < MAX_WRITE_BYTES
    }

    /// A message has been written; whether the engine waits to hear that there is room.
    pub(super) fn written(&self, bytes: &Bytes) -> bool {
        let weight = weight(bytes);
        let left = self.queued.fetch_sub(weight, Ordering::SeqCst) - weight;
        left <= MAX_WRITE_BYTES / 2 && self.starved.swap(false, Ordering::SeqCst)
    }
}

/// The connection's end of a [`Writer`].
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) messages: mpsc::Receiver<Bytes>,
    pub(super) pressure: Arc<Pressure>,
    /// Ends when the writer is dropped, though messages still wait.
    pub(super) dropped: oneshot::Receiver<()>,
}

/// What a hub is made of.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// Inbound connections at once.
    pub max_inbound: usize,
    /// Inbound connections at once of one IPv4 address or one IPv6 /64, loopback exempt.
    pub max_inbound_per_address: usize,
    /// The clock that an emulated uplink runs by.
    pub clock: Clock,
    /// The emulated uplink that everything sent goes through, if any.
    pub uplink: Option<SharedUplink>,
}

impl HubOptions {
    /// The usual limits, and no emulation.
    pub fn new(clock: Clock) -> Self {
        Self {
            max_inbound: MAX_INBOUND,
            max_inbound_per_address: MAX_INBOUND_PER_ADDRESS,
            clock,
            uplink: None,
        }
    }
}

/// What a hub has done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HubStats {
    /// Inbound connections taken.
    pub accepted: u64,
    /// Closed at once: too many inbound connections.
    pub refused_total: u64,
    /// Closed at once: too many inbound connections of one address.
    pub refused_per_address: u64,
    /// Failures of accepting itself.
    pub accept_errors: u64,
    /// Outbound connections opened.
    pub connected: u64,
    /// Attempts to connect that failed.
    pub connect_errors: u64,
}

/// A listener that is bound but does not accept yet.
#[derive(Debug)]
pub struct BoundControl {
    listener: StdListener,
    local: SocketAddr,
}

impl BoundControl {
    /// Binds `address`; port 0 lets the system choose.
    ///
    /// # Errors
    /// One line that says what to do, if the address cannot be had.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let open = || {
            let listener = StdListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let local = listener.local_addr()?;
            Ok(Self { listener, local })
        };
        open().map_err(|source| BindError {
            socket: Socket::Control,
            address,
            source,
        })
    }

    /// The address it is bound to, with the port that the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

/// Listens, connects, and keeps count. Clones are the same hub; it may be called from any thread.
#[derive(Clone, Debug)]
pub struct ControlHub(pub(super) Arc<Shared>);

/// What the tasks of a hub share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) runtime: Handle,
    pub(super) options: HubOptions,
    pub(super) events: mpsc::Sender<ControlIn>,
    next_id: AtomicU64,
    open: watch::Sender<usize>,
    state: Mutex<State>,
}

/// What changes under the hub's lock, which is held for a few map operations at most.
#[derive(Debug)]
pub(super) struct State {
    pub(super) stats: HubStats,
    /// The targets kept connected; dropping an entry ends its task at its next pause.
    pub(super) kept: BTreeMap<String, dial::Kept>,
    admission: Admission,
    pub(super) listeners: Vec<oneshot::Sender<()>>,
    stopped: bool,
}

impl State {
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }
}

impl ControlHub {
    /// A hub whose tasks run on the present `tokio` runtime, and the engine's end of its events.
    ///
    /// # Panics
    /// Outside of a `tokio` runtime.
    pub fn new(options: HubOptions) -> (Self, mpsc::Receiver<ControlIn>) {
        let (events, receiver) = mpsc::channel(MAX_EVENTS);
        let admission = Admission::new(options.max_inbound, options.max_inbound_per_address);
        let shared = Shared {
            runtime: Handle::current(),
            options,
            events,
            next_id: AtomicU64::new(1),
            open: watch::Sender::new(0),
            state: Mutex::new(State {
                stats: HubStats::default(),
                kept: BTreeMap::new(),
                admission,
                listeners: Vec::new(),
                stopped: false,
            }),
        };
        (Self(Arc::new(shared)), receiver)
    }

    /// Accepts connections of `bound` until [`ControlHub::stop`].
    ///
    /// # Errors
    /// Those of the system when it cannot watch another descriptor.
    pub fn listen(&self, bound: BoundControl) -> io::Result<()> {
        let listener = {
            let _context = self.0.runtime.enter();
            TcpListener::from_std(bound.listener)?
        };
        let (stop, stopped) = oneshot::channel();
        {
            let mut state = self.0.state();
            if state.stopped {
                return Ok(());
            }
            state.listeners.push(stop);
        }
        let shared = Arc::clone(&self.0);
        self.0.runtime.spawn(accept(shared, listener, stopped));
        Ok(())
    }

    /// Connects once to `target`, an address or a name with a port. The connection then lives by
    /// itself.
    ///
    /// # Errors
    /// One line that says what was tried and why it failed.
    pub async fn connect(&self, target: &str) -> Result<ConnectionId, dial::ConnectError> {
        dial::check_target(target)?;
        let (stream, remote) = dial::connect(&self.0, target).await?;
        let id = self.0.new_id();
        let stream = connection::Stream::Tcp(stream);
        let run = connection::run(Arc::clone(&self.0), id, stream, remote, Direction::Outbound);
        let target = target.to_owned();
        self.0.runtime.spawn(async move {
            let verdict = run.await.await.unwrap_or_default();
            if let Some(reason) = verdict.trouble() {
                tracing::warn!(peer = target, reason, "no session");
            }
        });
        Ok(id)
    }

    /// As [`ControlHub::connect`], without waiting for it.
    pub fn try_once(&self, target: &str) {
        let (hub, target) = (self.clone(), target.to_owned());
        self.0.runtime.spawn(async move {
            if let Err(error) = hub.connect(&target).await {
                tracing::info!(%error, "the one try failed");
            }
        });
    }

    /// Keeps `target` connected: again and again, with growing pauses, until
    /// [`ControlHub::forget`].
    ///
    /// # Errors
    /// One line that says why not: no address, kept already, or [`dial::MAX_KEPT`] reached.
    pub fn keep_connected(&self, target: &str) -> Result<(), dial::KeepError> {
        dial::keep(&self.0, dial::Target::Public(target.to_owned()))
    }

    /// Keeps `target` connected no longer; a connection that is open stays. Whether it was kept.
    pub fn forget(&self, target: &str) -> bool {
        self.0.state().kept.remove(target).is_some()
    }

    /// The targets that are kept connected, sorted.
    pub fn kept(&self) -> Vec<String> {
        self.0.state().kept.keys().cloned().collect()
    }

    /// Why those targets of [`ControlHub::kept`] have no session of which the last attempt failed, sorted.
    pub fn failures(&self) -> Vec<(String, String)> {
        let state = self.0.state();
        let failed = state.kept.iter().filter_map(|(target, kept)| {
            let failure = kept.failure.clone()?;
            Some((target.clone(), failure))
        });
        failed.collect()
    }

    /// What it has done.
    pub fn stats(&self) -> HubStats {
        self.0.state().stats
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        *self.0.open.borrow()
    }

    /// Accepts and connects no more. Open connections end as their writers are dropped.
    pub fn stop(&self) {
        let mut state = self.0.state();
        state.stopped = true;
        state.listeners.clear();
        state.kept.clear();
    }

    /// Waits until no connection is open. After [`ControlHub::stop`], and once the engine has dropped
    /// its writers, that is a matter of [`connection::FLUSH_TIME`] at most.
    pub async fn closed(&self) {
        let mut open = self.0.open.subscribe();
        // The sender lives in `self`, so that waiting cannot fail.
        open.wait_for(|open| *open == 0).await.ok();
    }
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock in a state that is not consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn new_id(&self) -> ConnectionId {
        ConnectionId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Counts a connection as open until the guard is dropped.
    pub(super) fn opened(self: &Arc<Self>) -> OpenGuard {
        self.open.send_modify(|open| *open += 1);
        OpenGuard(Arc::clone(self))
    }

    /// Takes an inbound connection if the limits allow, or closes it by dropping it.
    fn admit(self: &Arc<Self>, stream: TcpStream, remote: SocketAddr) {
        let admitted = {
            let mut state = self.state();
            let admitted = state.admission.admit(remote.ip());
            match admitted {
                Ok(()) => state.stats.accepted += 1,
                Err(Refusal::Total) => state.stats.refused_total += 1,
                Err(Refusal::PerAddress) => state.stats.refused_per_address += 1,
            }
            admitted
        };
        if let Err(refusal) = admitted {
            tracing::debug!(%remote, ?refusal, "inbound connection refused");
            return;
        }
        let place = Place(Arc::clone(self), remote.ip());
        let id = self.new_id();
        let stream = connection::Stream::Tcp(stream);
        let run = connection::run(Arc::clone(self), id, stream, remote, Direction::Inbound);
        self.runtime.spawn(async move {
            run.await;
            drop(place);
        });
    }
}

/// Counts a connection as open.
#[derive(Debug)]
pub(super) struct OpenGuard(Arc<Shared>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

/// The place of an inbound connection under the limits, given back when dropped.
#[derive(Debug)]
struct Place(Arc<Shared>, IpAddr);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.state().admission.release(self.1);
    }
}

/// The accept loop. A failure of one connection is no failure of the listener.
async fn accept(shared: Arc<Shared>, listener: TcpListener, mut stop: oneshot::Receiver<()>) {
    let mut told: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            _ = &mut stop => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => shared.admit(stream, canonical(remote)),
            Err(error) => {
                shared.state().stats.accept_errors += 1;
                let of_the_peer = matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::Interrupted
                );
                if !of_the_peer {
                    if told.is_none_or(|told| told.elapsed() >= ACCEPT_TOLD_PAUSE) {
                        told = Some(Instant::now());
                        tracing::warn!(%error, "cannot accept control connections");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
