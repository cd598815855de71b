//! The task that drives a [`Peer`] over TCP: one for each connection.
//!
//! Queues are bounded on both sides, and nothing waits for two at once: while the owner does not take an event,
//! nothing is read from the peer, but writing, commands and time-outs go on. So an owner may wait for room in a
//! connection's queue of commands without being waited for in turn. A connection ends with
//! [`PeerEvent::Closed`], always and as the last thing, unless the owner has dropped its end of the queue.

mod listener;
mod tally;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::{CloseReason, Peer, PeerCommand, PeerConfig, PeerEvent, V2};
use crate::time::Time;

pub use listener::{Accepted, InboundLimits, Listener, Place};
pub use tally::Tally;

/// How long a connection may take to be established (Bitcoin Core's `-timeout`).
pub const DIAL_TIME: Duration = Duration::from_secs(5);
/// Commands that wait for one connection.
///
/// Reason: a few announcements and answers; beyond it the owner waits or drops.
pub const COMMAND_QUEUE: usize = 64;
/// Bytes read at once: a turn stays short, and system calls are rare at the speed of a block.
const READ_BYTES: usize = 64 << 10;

/// Names a connection for as long as its process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What every connection of an owner needs.
#[derive(Clone, Debug)]
pub struct Wiring<C> {
    /// Where events go.
    pub events: mpsc::Sender<(ConnectionId, PeerEvent)>,
    /// Reads the owner's clock.
    pub clock: C,
    /// Where refusals are counted.
    pub tally: Arc<Tally>,
}

/// The owner's end of a connection. The connection closes when it is dropped.
#[derive(Debug)]
pub struct Connection {
    /// As events name it.
    pub id: ConnectionId,
    /// Takes commands.
    pub commands: mpsc::Sender<PeerCommand>,
}

/// Dials `config.remote` and speaks with whoever answers; with [`V2::Try`] a second time in the old transport, if
/// nobody there knows the new one. The result comes as an event.
///
/// # Panics
/// Outside of a `tokio` runtime.
pub fn dial<C>(config: PeerConfig, id: ConnectionId, wiring: Wiring<C>) -> Connection
where
    C: Fn() -> Time + Send + Sync + 'static,
{
    let (commands, received) = mpsc::channel(COMMAND_QUEUE);
    tokio::spawn(async move {
        let mut task = Task::new(id, received, wiring);
        let reason = dial_and_drive(config, &mut task).await;
        task.end(reason).await;
    });
    Connection { id, commands }
}

/// Speaks with whoever dialled us.
///
/// # Panics
/// Outside of a `tokio` runtime.
pub fn serve<C>(
    accepted: Accepted,
    config: PeerConfig,
    id: ConnectionId,
    wiring: Wiring<C>,
) -> Connection
where
    C: Fn() -> Time + Send + Sync + 'static,
{
    let (commands, received) = mpsc::channel(COMMAND_QUEUE);
    tokio::spawn(async move {
        let mut task = Task::new(id, received, wiring);
        let reason = task.drive(accepted.stream, config).await;
        drop(accepted.place);
        task.end(reason).await;
    });
    Connection { id, commands }
}

async fn dial_and_drive<C: Fn() -> Time>(
    mut config: PeerConfig,
    task: &mut Task<C>,
) -> Option<CloseReason> {
    loop {
        let stream = match connect(config.remote).await {
            Ok(stream) => stream,
            Err(reason) => return Some(reason),
        };
        match task.drive(stream, config.clone()).await {
            Some(CloseReason::NoV2) if config.v2 != V2::Off => config.v2 = V2::Off,
            reason => return reason,
        }
    }
}

async fn connect(remote: SocketAddr) -> Result<TcpStream, CloseReason> {
    match timeout(DIAL_TIME, TcpStream::connect(remote)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(CloseReason::Unreachable(error.to_string())),
        Err(_) => Err(CloseReason::Unreachable("no answer in time".into())),
    }
}

/// One connection's ends of its queues.
struct Task<C> {
    id: ConnectionId,
    commands: mpsc::Receiver<PeerCommand>,
    wiring: Wiring<C>,
}

/// What a turn waited for.
enum Turn<'a> {
    Event(mpsc::Permit<'a, (ConnectionId, PeerEvent)>),
    OwnerGone,
    Read(std::io::Result<usize>),
    Written(std::io::Result<usize>),
    Command(Option<PeerCommand>),
    Timeout,
}

impl<C: Fn() -> Time> Task<C> {
    fn new(id: ConnectionId, commands: mpsc::Receiver<PeerCommand>, wiring: Wiring<C>) -> Self {
        wiring.tally.opened();
        Self {
            id,
            commands,
            wiring,
        }
    }

    /// Drives a peer until it is closed, and says why; `None`: the owner is gone.
    async fn drive(&mut self, mut stream: TcpStream, config: PeerConfig) -> Option<CloseReason> {
        // Small messages are waited for.
        stream.set_nodelay(true).ok();
        let mut seed = [0; 32];
        if SysRng.try_fill_bytes(&mut seed).is_err() {
            return Some(CloseReason::Failed("the system gives no randomness".into()));
        }
        let mut peer = Peer::new(config, (self.wiring.clock)(), seed);
        let (mut reader, mut writer) = stream.split();
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        let mut writing = Bytes::new();
        let mut event = None;
        loop {
            if event.is_none() {
                event = peer.poll_event();
            }
            for (refusal, times) in peer.take_refused() {
                self.wiring.tally.add(refusal, times);
            }
            if let Some(PeerEvent::Closed(reason)) = event {
                return Some(reason);
            }
            if writing.is_empty() {
                writing = peer.poll_output().unwrap_or_default();
            }
            let now = (self.wiring.clock)();
            let pause = peer.poll_deadline().map(|at| at.since(now));
            let reads = event.is_none() && peer.wants_input();
            let mut room = (&mut buffer).limit(READ_BYTES);
            let turn = tokio::select! {
                permit = self.wiring.events.reserve(), if event.is_some() => {
                    permit.map_or(Turn::OwnerGone, Turn::Event)
                }
                read = reader.read_buf(&mut room), if reads => {
                    Turn::Read(read)
                }
                written = writer.write(&writing), if !writing.is_empty() => Turn::Written(written),
                command = self.commands.recv(), if peer.wants_commands() => Turn::Command(command),
                () = sleep(pause.unwrap_or_default()), if pause.is_some() => Turn::Timeout,
            };
            let now = (self.wiring.clock)();
            match turn {
                Turn::OwnerGone => return None,
                Turn::Event(permit) => {
                    if let Some(event) = event.take() {
                        permit.send((self.id, event));
                    }
                }
                Turn::Read(Ok(0)) => peer.handle_closed(now, None),
                Turn::Read(Ok(_)) => {
                    peer.handle_bytes(now, &buffer);
                    buffer.clear();
                }
                Turn::Written(Ok(count)) => writing.advance(count),
                Turn::Read(Err(error)) | Turn::Written(Err(error)) => {
                    peer.handle_closed(now, Some(error.to_string()));
                }
                Turn::Command(Some(command)) => peer.handle_command(now, command),
                Turn::Command(None) => return None,
                Turn::Timeout => peer.handle_timeout(now),
            }
        }
    }

    /// The last event.
    async fn end(self, reason: Option<CloseReason>) {
        self.wiring.tally.closed();
        if let Some(reason) = reason {
            let closed = (self.id, PeerEvent::Closed(reason));
            // If the owner is gone there is nobody to tell.
            self.wiring.events.send(closed).await.ok();
        }
    }
}
