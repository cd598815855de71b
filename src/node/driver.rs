//! The engine's thread: it takes what came in, turns the engine once, and sends what comes out.
//!
//! ```text
//!   readable ─┐                          ┌─▶ events ──▶ router (bounded; chunks may be dropped)
//!   private ──┤                          │
//!   control ──┤  one select, one turn    ├─▶ blocks ──▶ store  (bounded)
//!   command ──┤ ───────▶ Engine ───────▶ ├─▶ control ─▶ writers
//!   headers ──┤                          │
//!   deadline ─┘                          └─▶ datagrams ▶ UdpPort, flushed before the next wait
//! ```
//!
//! Nothing here blocks but the one wait: no disk, no log, no lock that another thread holds for long. A
//! chunk that was verified in a turn leaves in the same turn.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash as _;
use tokio::sync::mpsc;

use super::engine::{Command, Counters, Hash, PeerName, PeerView, WholeBlock};
use super::events::{News, Stamped};
use super::headers::HeaderBook;
use super::private::PrivateLinks;
use super::router::BlockQueue;
use super::sessions::{AddressTalk, SessionView, SessionsOut};
use super::stop::Stop;
use super::verdicts::{is_breach, refuse, tell_of_crowd, verdict};
use crate::net::quic::is_private;
use crate::net::udp::{Flush, PushError};
use crate::net::{
    Clock, ConnectionId, ControlIn, Direction, PrivateDatagrams, PrivateLink, Timer, UdpPort,
    Verdict, Writer,
};
use crate::relay::{Engine, Event, Initiator, PeerSnapshot, SessionId, WakeReason};
use crate::time::Time;
use crate::wire::DisconnectReason;

/// Control events and commands taken in one turn before the engine's output is sent.
const MAX_INPUTS: usize = 32;
/// Bytes of control connections taken in one turn: of the smallest frames the engine takes some 50 MB/s,
/// so that datagrams and deadlines wait for a flood of them less than a millisecond.
const MAX_CONTROL_BYTES: usize = 32 << 10;
/// Queues of datagrams filled in one turn before what came in meanwhile is taken.
const MAX_FLUSHES: usize = 4;
/// Blocks whose number of chunks is remembered for the events.
const MAX_REMEMBERED: usize = 64;
/// Bytes of the largest UDP datagram, which the engine may write.
const DATAGRAM_BYTES: usize = 65_507;

/// What the thread is given.
#[derive(Debug)]
pub struct Inputs {
    /// What control connections bring.
    pub control: mpsc::Receiver<ControlIn>,
    /// What private links bring, if there are any.
    pub private: mpsc::Receiver<PrivateDatagrams>,
    /// What callers ask.
    pub commands: mpsc::Receiver<Command>,
    /// The signal to end.
    pub stop: Stop,
}

impl Inputs {
    /// All of them.
    pub fn new(
        control: mpsc::Receiver<ControlIn>,
        private: mpsc::Receiver<PrivateDatagrams>,
        commands: mpsc::Receiver<Command>,
        stop: Stop,
    ) -> Self {
        Self {
            control,
            private,
            commands,
            stop,
        }
    }
}

/// Where the thread's output goes besides the sockets.
#[derive(Debug)]
pub struct Outputs {
    /// What happened.
    pub news: mpsc::Sender<Stamped>,
    /// Blocks that are whole, for the disk.
    pub blocks: BlockQueue,
    /// Every block that is whole, for the side towards Bitcoin nodes.
    pub whole: mpsc::Sender<WholeBlock>,
    /// What whoever looks for peers goes by.
    pub sessions: SessionsOut,
    /// Whether somebody wants to see every chunk.
    pub every_chunk: bool,
}

/// One control connection as the engine's thread sees it.
#[derive(Debug)]
struct Connection {
    session: SessionId,
    /// Dropped to close the connection.
    writer: Writer,
}

/// One session as the engine's thread sees it.
#[derive(Clone, Copy, Debug)]
struct Known {
    connection: ConnectionId,
    remote: SocketAddr,
    direction: Direction,
    /// Whether its handshake was done.
    up: bool,
}

/// The engine and all that it is driven with.
pub struct Driver {
    engine: Engine,
    book: HeaderBook,
    clock: Clock,
    port: UdpPort,
    timer: Timer,
    connections: BTreeMap<ConnectionId, Connection>,
    sessions: BTreeMap<SessionId, Known>,
    private: PrivateLinks,
    /// Datagrams from the network that claim to be of a private link.
    pretended: u64,
    chunks: BTreeMap<Hash, u32>,
    outputs: Outputs,
    dropped: u64,
    datagram: Box<[u8]>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Driver")
            .field("connections", &self.connections.len())
            .finish_non_exhaustive()
    }
}

impl Driver {
    /// A driver of `engine`, on the runtime of the present thread.
    ///
    /// # Errors
    ///
    /// The system has no descriptor for the timer.
    pub fn new(
        engine: Engine,
        book: HeaderBook,
        clock: Clock,
        port: UdpPort,
        outputs: Outputs,
    ) -> io::Result<Self> {
        Ok(Self {
            engine,
            book,
            clock,
            port,
            timer: Timer::new(clock)?,
            connections: BTreeMap::new(),
            sessions: BTreeMap::new(),
            private: PrivateLinks::default(),
            pretended: 0,
            chunks: BTreeMap::new(),
            outputs,
            dropped: 0,
            datagram: vec![0; DATAGRAM_BYTES].into_boxed_slice(),
        })
    }

    /// Drives the engine until the node stops, and says farewell to its peers.
    ///
    /// # Errors
    ///
    /// The socket or the timer can't be used any more.
    pub async fn run(mut self, mut inputs: Inputs) -> io::Result<()> {
        let stop = inputs.stop.clone();
        let mut stopped = std::pin::pin!(stop.stopped());
        let mut headers = self.book.watch_news();
        loop {
            let more = self.drain();
            self.timer.set(self.deadline(more))?;
            tokio::select! {
                ready = self.port.readable() => {
                    ready?;
                    self.receive()?;
                }
                ready = self.port.writable(), if self.port.is_blocked() => ready?,
                expired = self.timer.expired() => {
                    expired?;
                    self.engine.handle_timeout(self.clock.now());
                }
                Some(control) = inputs.control.recv() => {
                    let bytes = self.handle_control(control);
                    self.take_waiting(&mut inputs, bytes);
                }
                Some(datagrams) = inputs.private.recv() => self.receive_private(&datagrams),
                Some(command) = inputs.commands.recv() => {
                    self.handle_command(command);
                    self.take_waiting(&mut inputs, 0);
                }
                Ok(()) = headers.changed() => self.engine.headers_changed(self.clock.now()),
                () = &mut stopped => break,
            }
            // The runtime looks at sockets and timers when this task waits, and while one input is always
            // ready, as under a flood, it would not wait.
            tokio::task::yield_now().await;
        }
        self.engine.shut_down(self.clock.now());
        self.drain();
        // With their writers the connections end, once the farewells are written.
        self.connections.clear();
        Ok(())
    }

    /// When to wake although nothing came in. With `more` to send that is at once.
    fn deadline(&self, more: bool) -> Option<Time> {
        if more {
            return Some(self.clock.now());
        }
        // While the socket takes nothing, the pacer's turn is when it does again.
        let engine = self
            .engine
            .poll_deadline()
            .filter(|(_, reason)| !(self.port.is_blocked() && *reason == WakeReason::Pacing))
            .map(|(time, _)| time);
        engine.into_iter().chain(self.port.deadline()).min()
    }

    fn receive(&mut self) -> io::Result<()> {
        let now = self.clock.now();
        let (engine, pretended) = (&mut self.engine, &mut self.pretended);
        self.port
            .recv_batch(|from, datagram| match is_private(from.ip()) {
                // No system should let it come so far.
                true => *pretended += 1,
                false => engine.handle_datagram(now, from, datagram),
            })?;
        Ok(())
    }

    /// Takes what a private link brought; after its session it is nobody's.
    fn receive_private(&mut self, came: &PrivateDatagrams) {
        let now = self.clock.now();
        if let Some(from) = self.private.source(came.id) {
            for datagram in &came.datagrams {
                self.engine.handle_datagram(now, from, datagram);
            }
        }
    }

    /// Takes what else waits, up to a bound, so that one turn sends for all of it. So many bytes of control
    /// connections were taken already.
    fn take_waiting(&mut self, inputs: &mut Inputs, mut bytes: usize) {
        for _ in 0..MAX_INPUTS {
            if bytes >= MAX_CONTROL_BYTES {
                return;
            }
            let control = inputs.control.try_recv().ok();
            let command = inputs.commands.try_recv().ok();
            if control.is_none() && command.is_none() {
                return;
            }
            bytes += control.map_or(0, |it| self.handle_control(it));
            command.into_iter().for_each(|it| self.handle_command(it));
        }
    }

    /// Takes one event; how many bytes of a peer it brought.
    fn handle_control(&mut self, control: ControlIn) -> usize {
        let now = self.clock.now();
        match control {
            ControlIn::Connected {
                id,
                remote,
                direction,
                writer,
                link,
            } => {
                let known = Known {
                    connection: id,
                    remote,
                    direction,
                    up: false,
                };
                self.connect(known, writer, link);
            }
            // The connection reads on when `turn` is dropped here, at the end.
            ControlIn::Bytes { id, bytes, turn: _ } => {
                if let Some(connection) = self.connections.get(&id) {
                    self.engine.handle_control(now, connection.session, &bytes);
                }
                return bytes.len();
            }
            ControlIn::Room { id } => self.write_control(id),
            ControlIn::Closed { id, .. } => {
                // Every session ends with one event, which lets go of the connection.
                if let Some(connection) = self.connections.get(&id) {
                    self.engine.handle_disconnected(now, connection.session);
                }
            }
        }
        0
    }

    /// A connection was made: it gets a session, or is refused.
    fn connect(&mut self, known: Known, writer: Writer, link: Option<PrivateLink>) {
        let (id, now) = (known.connection, self.clock.now());
        let initiator = match known.direction {
            Direction::Inbound => Initiator::Inbound,
            Direction::Outbound => Initiator::Outbound,
        };
        let address = match &link {
            Some(link) => PrivateLinks::address(link),
            None => known.remote,
        };
        let pretends = link.is_none() && is_private(address.ip());
        let session = match (pretends, &link) {
            (true, _) => None,
            (false, None) => self.engine.handle_connected(now, initiator, address),
            // Its key is pinned: the operator has named it.
            (false, Some(_)) => self.engine.handle_named_connected(now, initiator, address),
        };
        let Some(session) = session else {
            if let Some(link) = &link {
                tell_of_crowd(link);
            }
            refuse(writer, initiator);
            return;
        };
        self.connections.insert(id, Connection { session, writer });
        self.sessions.insert(session, known);
        if let Some(link) = link {
            self.private.insert(id, link);
        }
    }

    /// The sessions, private peers by the address at which they really are.
    fn peers(&self, now: Time) -> Vec<PeerView> {
        let view = |relay: PeerSnapshot| {
            let known = self.sessions.get(&relay.session);
            let link = known.and_then(|known| self.private.link(known.connection));
            PeerView {
                address: known.map_or(relay.address, |known| known.remote),
                key: link.map(PrivateLink::key),
                relay,
            }
        };
        self.engine.peers(now).into_iter().map(view).collect()
    }

    fn handle_command(&mut self, command: Command) {
        let now = self.clock.now();
        // Whoever asked may have left; then the answer is nobody's.
        match command {
            Command::SubmitBlock { block, reply } => {
                reply.send(self.engine.submit_block(now, block)).ok();
            }
            Command::AddTransaction { transaction, reply } => {
                reply
                    .send(self.engine.add_transaction(now, transaction))
                    .ok();
            }
            Command::AddTransactions(transactions) => {
                for transaction in transactions {
                    // What is refused is counted there.
                    self.engine.add_transaction(now, transaction).ok();
                }
            }
            Command::DemoteTransactions(txids) => {
                for txid in &txids {
                    self.engine.demote_transaction(txid);
                }
            }
            Command::OfferCompact { compact, reply } => {
                reply.send(self.engine.offer_compact(now, compact)).ok();
            }
            Command::RejectBlock(block) => {
                let reason = "the Bitcoin node calls it invalid";
                self.engine.reject_block(now, block, reason);
            }
            Command::CompleteCompact {
                block,
                lacking,
                reply,
            } => {
                let answer = self.engine.complete_compact(now, &block, lacking);
                reply.send(answer).ok();
            }
            Command::SubmitHeader { header, reply } => {
                reply.send(self.book.submit(&header, now)).ok();
            }
            Command::Chain(reply) => drop(reply.send(self.book.chain())),
            Command::HashAt { height, reply } => {
                let hash = self.book.hash_at(height);
                reply.send(hash.map(|hash| hash.to_byte_array())).ok();
            }
            Command::Header { hash, reply } => drop(reply.send(self.book.header(&hash))),
            Command::Block { hash, reply } => drop(reply.send(self.engine.block(&hash))),
            Command::Peers(reply) => drop(reply.send(self.peers(now))),
            Command::Jobs(reply) => drop(reply.send(self.engine.jobs())),
            Command::Counters(reply) => {
                let counters = Counters {
                    engine: self.engine.totals(),
                    udp: self.port.stats(),
                    pretended: self.pretended,
                    mempool: self.engine.mempool(),
                };
                reply.send(counters).ok();
            }
            Command::AskAddresses(session) => self.engine.ask_addresses(now, session),
            Command::SendAddresses(session, addresses) => {
                self.engine.send_addresses(now, session, &addresses);
            }
            Command::Disconnect { peer, reply } => {
                reply.send(self.disconnect(now, peer)).ok();
            }
        }
    }

    /// Ends a session; whether there is one of that name.
    fn disconnect(&mut self, now: Time, peer: PeerName) -> bool {
        let named = |(session, known): (&SessionId, &Known)| {
            let is_named = match peer {
                PeerName::Number(number) => session.as_number() == number,
                PeerName::Address(address) => known.remote == address,
            };
            is_named.then_some(*session)
        };
        let session = self.sessions.iter().find_map(named);
        if let Some(session) = session {
            self.engine.disconnect(now, session);
        }
        session.is_some()
    }

    /// Sends on all that the engine has to give; whether there is more than one turn may send.
    fn drain(&mut self) -> bool {
        while let Some(event) = self.engine.poll_event() {
            self.handle_event(event);
        }
        while let Some(session) = self.engine.poll_control_ready() {
            if let Some(known) = self.sessions.get(&session) {
                self.write_control(known.connection);
            }
        }
        self.send_datagrams()
    }

    fn handle_event(&mut self, event: Event) {
        if let Event::JobOpened { block, chunks, .. } = &event {
            if self.chunks.len() >= MAX_REMEMBERED {
                self.chunks.pop_first();
            }
            self.chunks.insert(*block, *chunks);
        }
        if let Event::SessionUp { session, doors, .. } = &event
            && let Some(known) = self.sessions.get_mut(session)
        {
            known.up = true;
            // Who looks for peers hears nothing of private ones, and so tells nobody of them.
            match self.private.link(known.connection) {
                Some(_) => self.private.set_port(known.connection, doors.data_port),
                None => {
                    let view = SessionView {
                        connection: known.connection,
                        remote: known.remote,
                        direction: known.direction,
                        doors: *doors,
                    };
                    self.outputs.sessions.up(*session, view);
                }
            }
        }
        if self.outputs.every_chunk || !matches!(event, Event::ChunkVerified { .. }) {
            self.tell(&event);
        }
        match event {
            Event::SessionDown { session, code, .. } => {
                self.outputs.sessions.down(session);
                self.close(session, code);
            }
            Event::Addresses { session, addresses } => {
                let told = AddressTalk::Told(session, addresses);
                self.outputs.sessions.say(told);
            }
            Event::AddressesWanted { session } => {
                self.outputs.sessions.say(AddressTalk::Asked(session));
            }
            Event::BlockComplete {
                block,
                height,
                whole,
                elapsed,
                requests,
                local,
            } => {
                self.outputs.blocks.push(block, whole.bytes.clone());
                let whole = WholeBlock {
                    hash: BlockHash::from_byte_array(block),
                    height,
                    block: whole,
                    elapsed,
                    requests,
                    local,
                };
                if self.outputs.whole.try_send(whole).is_err() {
                    tracing::error!(
                        "a block was not handed on, for the side towards Bitcoin nodes is stuck"
                    );
                }
            }
            _ => {}
        }
    }

    fn tell(&mut self, event: &Event) {
        let name = |session: SessionId| self.sessions.get(&session).map(|known| known.remote);
        let was_up = |session: SessionId| self.sessions.get(&session).is_some_and(|it| it.up);
        let is_private = |session: SessionId| {
            let known = self.sessions.get(&session);
            known.is_some_and(|known| self.private.link(known.connection).is_some())
        };
        let chunks = |block: &Hash| self.chunks.get(block).copied();
        let stamped = Stamped {
            time: self.clock.now(),
            news: News::new(event, name, was_up, is_private, chunks),
            dropped_before: self.dropped,
        };
        match self.outputs.news.try_send(stamped) {
            Ok(()) => self.dropped = 0,
            Err(_) => self.dropped += 1,
        }
    }

    /// Writes what is left for an ended session, closes its connection, and lets the engine forget it: what
    /// the connection brings from now on is nobody's.
    fn close(&mut self, session: SessionId, code: Option<DisconnectReason>) {
        if let Some(known) = self.sessions.remove(&session) {
            self.write_control(known.connection);
            self.private.remove(known.connection);
            if let Some(connection) = self.connections.remove(&known.connection) {
                connection.writer.close(match known.up {
                    true if code.is_some_and(is_breach) => Verdict::Misbehaved,
                    true => Verdict::Ended,
                    false => verdict(code),
                });
            }
            self.engine.handle_disconnected(self.clock.now(), session);
        }
    }

    fn write_control(&mut self, id: ConnectionId) {
        let now = self.clock.now();
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        while connection.writer.try_room() {
            let Some(bytes) = self.engine.poll_control(now, connection.session) else {
                return;
            };
            if connection.writer.try_send(bytes).is_err() {
                // The connection has ended; `Closed` is on the way.
                return;
            }
        }
    }

    fn send_datagrams(&mut self) -> bool {
        for _ in 0..MAX_FLUSHES {
            let mut filled = true;
            while self.port.has_room() {
                let now = self.clock.now();
                let Some(transmit) = self.engine.poll_transmit(now, &mut self.datagram) else {
                    filled = false;
                    break;
                };
                let datagram = self.datagram.get(..transmit.len).unwrap_or_default();
                if is_private(transmit.to.ip()) {
                    self.private.send(transmit.to.ip(), datagram);
                    continue;
                }
                match self.port.push(now, transmit.to, datagram) {
                    Ok(()) => {}
                    // Either is a datagram lost, as the network may lose any.
                    Err(PushError::Full | PushError::Invalid) => {}
                }
            }
            if self.port.flush(self.clock.now()) == Flush::Blocked || !filled {
                return false;
            }
        }
        true
    }
}
