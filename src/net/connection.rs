//! The task of one control connection, over TCP or QUIC: both directions, until either ends.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::control::{
    CloseReason, ConnectionId, ControlIn, Direction, MAX_READS, Outgoing, Pressure, Shared,
    Verdict, Writer,
};
use super::emulate::{SEGMENT_BYTES, SharedUplink, StreamFate};
use super::held::Held;
use super::quic;
use super::timer::Timer;
use crate::time::Time;

/// Bytes read at once and handed to the engine as one event: enough to keep system calls rare at the
/// speed of a block over TCP, and a turn of the engine short.
pub const READ_BYTES: usize = 16 << 10;
/// Small messages are joined until this many bytes for one system call.
const JOIN_BYTES: usize = 16 << 10;
/// How long a closed connection may take to write what waits: a farewell, to a peer that reads.
pub const FLUSH_TIME: Duration = Duration::from_secs(2);
/// How long a closed connection waits for the peer's end, so that its farewell is not lost to a reset
/// because of bytes that nobody read.
const LINGER_TIME: Duration = Duration::from_secs(1);
/// Bytes read and dropped while waiting for the peer's end.
const MAX_LINGER_BYTES: usize = 1 << 20;
/// Bytes of one connection on their way through an emulated link: 60 ms at 1 Gbit/s. Beyond it the
/// stream waits.
const MAX_HELD_BYTES: usize = 8 << 20;

/// What control goes over.
#[derive(Debug)]
pub(super) enum Stream {
    /// A TCP connection.
    Tcp(TcpStream),
    /// A stream of a private link.
    Quic(Box<quic::Opened>),
}

/// Runs a connection from `Connected` to `Closed`. Returns early if the engine is gone. What it gives brings what
/// the engine's side says of the connection when it drops the writer, which it does once it hears of the end.
pub(super) async fn run(
    shared: Arc<Shared>,
    id: ConnectionId,
    stream: Stream,
    remote: SocketAddr,
    direction: Direction,
) -> oneshot::Receiver<Verdict> {
    let _open = shared.opened();
    let (writer, outgoing, verdict) = Writer::channel();
    let link = match &stream {
        Stream::Tcp(_) => None,
        Stream::Quic(opened) => Some(opened.link()),
    };
    let connected = ControlIn::Connected {
        id,
        remote,
        direction,
        writer,
        link,
    };
    if shared.events.send(connected).await.is_err() {
        return verdict;
    }
    let reason = match stream {
        Stream::Tcp(stream) => over_tcp(&shared, id, stream, outgoing).await,
        Stream::Quic(opened) => quic::converse(&shared, id, *opened, outgoing).await,
    };
    shared
        .events
        .send(ControlIn::Closed { id, reason })
        .await
        .ok();
    verdict
}

async fn over_tcp(
    shared: &Arc<Shared>,
    id: ConnectionId,
    mut stream: TcpStream,
    outgoing: Outgoing,
) -> CloseReason {
    // Control messages are small and waited for; without it they would wait for acknowledgements.
    stream.set_nodelay(true).ok();
    let (mut reader, write_half) = stream.split();
    let uplink = shared.options.uplink.as_ref();
    let reason = tokio::select! {
        reason = read(&mut reader, id, &shared.events) => reason,
        reason = write(write_half, id, outgoing, shared, uplink) => reason,
    };
    if reason == CloseReason::Closed {
        timeout(LINGER_TIME, discard(&mut reader)).await.ok();
    }
    reason
}

/// Hands what the peer sends to the engine, as fast as the engine takes it: [`MAX_READS`] ahead of it.
pub(super) async fn read(
    reader: &mut (impl AsyncRead + Unpin),
    id: ConnectionId,
    events: &mpsc::Sender<ControlIn>,
) -> CloseReason {
    let turns = Arc::new(Semaphore::new(MAX_READS));
    let mut buffer = BytesMut::new();
    loop {
        let turn = Arc::clone(&turns).acquire_owned().await;
        let turn = turn.expect("the semaphore is never closed");
        if buffer.capacity() < READ_BYTES / 4 {
            buffer.reserve(READ_BYTES);
        }
        match reader.read_buf(&mut (&mut buffer).limit(READ_BYTES)).await {
            Ok(0) => return CloseReason::PeerClosed,
            Ok(_) => {}
            Err(error) => return CloseReason::Failed(error.kind()),
        }
        let bytes = buffer.split().freeze();
        let read = ControlIn::Bytes { id, bytes, turn };
        if events.send(read).await.is_err() {
            return CloseReason::Closed;
        }
    }
}

/// Writes what the engine queues, through an emulated uplink if one is given; once the writer is dropped, for [`FLUSH_TIME`] at most.
pub(super) async fn write(
    mut half: impl AsyncWrite + Unpin,
    id: ConnectionId,
    outgoing: Outgoing,
    shared: &Shared,
    uplink: Option<&SharedUplink>,
) -> CloseReason {
    let Outgoing {
        mut messages,
        pressure,
        dropped,
    } = outgoing;
    let room = RoomNotice {
        id,
        pressure: &pressure,
        events: &shared.events,
    };
    let delay = uplink.map_or(Duration::ZERO, |uplink| uplink.lock().delay());
    let written = async {
        match uplink {
            Some(uplink) => pump_emulated(&mut half, &mut messages, &room, uplink, shared).await?,
            None => pump(&mut half, &mut messages, &room).await?,
        }
        half.shutdown().await
    };
    let overdue = async {
        dropped.await.ok();
        sleep(FLUSH_TIME + delay).await;
    };
    tokio::select! {
        written = written => match written {
            Ok(()) => CloseReason::Closed,
            Err(error) => CloseReason::Failed(error.kind()),
        },
        () = overdue => CloseReason::Unflushed,
    }
}

/// Tells the engine when a writer that was full has room.
struct RoomNotice<'a> {
    id: ConnectionId,
    pressure: &'a Pressure,
    events: &'a mpsc::Sender<ControlIn>,
}

impl RoomNotice<'_> {
    async fn written(&self, message: &Bytes) {
        if self.pressure.written(message) {
            let room = ControlIn::Room { id: self.id };
            self.events.send(room).await.ok();
        }
    }
}

/// Writes messages until the writer is dropped and nothing waits; joins small ones.
async fn pump(
    half: &mut (impl AsyncWrite + Unpin),
    messages: &mut mpsc::Receiver<Bytes>,
    room: &RoomNotice<'_>,
) -> io::Result<()> {
    let mut joined = BytesMut::new();
    let mut batch = Vec::new();
    while let Some(message) = messages.recv().await {
        let mut bytes = message.len();
        batch.push(message);
        while bytes < JOIN_BYTES
            && let Ok(message) = messages.try_recv()
        {
            bytes += message.len();
            batch.push(message);
        }
        match batch.as_slice() {
            [single] => half.write_all(single).await?,
            several => {
                joined.clear();
                several
                    .iter()
                    .for_each(|bytes| joined.extend_from_slice(bytes));
                half.write_all(&joined).await?;
            }
        }
        for message in batch.drain(..) {
            room.written(&message).await;
        }
    }
    Ok(())
}

/// As [`pump`], through an emulated uplink: segment by segment, each written when it would arrive.
async fn pump_emulated(
    half: &mut (impl AsyncWrite + Unpin),
    messages: &mut mpsc::Receiver<Bytes>,
    room: &RoomNotice<'_>,
    uplink: &SharedUplink,
    shared: &Shared,
) -> io::Result<()> {
    let clock = shared.options.clock;
    let mut timer = Timer::new(clock)?;
    let mut held = Held::new(MAX_HELD_BYTES);
    let mut waiting = Bytes::new();
    let mut open = true;
    loop {
        let now = clock.now();
        let again = offer(&mut waiting, &mut held, uplink, now);
        while let Some(segment) = held.pop(now) {
            half.write_all(&segment).await?;
        }
        if !open && waiting.is_empty() && held.is_empty() {
            return Ok(());
        }
        timer.set(again.into_iter().chain(held.due()).min())?;
        tokio::select! {
            message = messages.recv(), if open && waiting.is_empty() => match message {
                Some(message) => {
                    // It has left the queue for the link, whose own bound holds it back.
                    room.written(&message).await;
                    waiting = message;
                }
                None => open = false,
            },
            expired = timer.expired() => expired?,
        }
    }
}

/// Moves what waits onto the link, as far as both have room; returns when to offer the rest again if
/// the uplink's queue is full.
fn offer(
    waiting: &mut Bytes,
    held: &mut Held<Bytes>,
    uplink: &SharedUplink,
    now: Time,
) -> Option<Time> {
    while !waiting.is_empty() {
        let bytes = waiting.len().min(SEGMENT_BYTES);
        if !held.has_room(bytes) {
            return None;
        }
        match uplink.lock().segment(now, bytes) {
            StreamFate::Arrives(due) => held.push(due, bytes, waiting.split_to(bytes)),
            StreamFate::Full(again) => return Some(again),
        }
    }
    None
}

/// Reads and drops until the peer's end or [`MAX_LINGER_BYTES`].
async fn discard(reader: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let mut dropped = 0;
    while dropped < MAX_LINGER_BYTES {
        buffer.clear();
        match reader.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(bytes) => dropped += bytes,
        }
    }
}
