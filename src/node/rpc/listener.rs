//! A listener that holds a bounded number of connections, and lets go of those that nobody waits for.
//!
//! A connection either works, for a caller who has shown a credential, or waits for its caller. When all
//! places are taken and another caller comes, the one that has waited longest gives way: whoever holds
//! connections open and says nothing, or says it letter by letter, keeps nobody out.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, Sleep, sleep_until};

/// Connections at once. Callers on this machine are scripts and a few services.
pub const MAX_CONNECTIONS: usize = 64;
/// How long a connection may be silent while something is to be read from it, or full while
/// something is to be written. Longer than any answer takes.
const IDLE_TIME: Duration = Duration::from_secs(60);

/// The connections that are open, and who of them waits.
#[derive(Debug, Default)]
pub struct Room {
    seats: Mutex<Seats>,
    /// Notified when a connection begins to wait.
    waits: Notify,
}

#[derive(Debug, Default)]
struct Seats {
    /// Counts accepted connections and ended calls: a smaller number was earlier.
    turn: u64,
    /// Those that wait, by the turn in which they began to.
    waiting: BTreeMap<u64, u64>,
    open: BTreeMap<u64, Seat>,
}

#[derive(Debug)]
struct Seat {
    /// Since which turn it waits, if it does.
    since: Option<u64>,
    /// Whether a credential was shown on it.
    known: bool,
    /// Dropped to let it go.
    _hold: oneshot::Sender<()>,
}

impl Room {
    fn seats(&self) -> MutexGuard<'_, Seats> {
        // Nothing panics while it holds the lock.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection, which waits; what is returned ends when it is let go of.
    fn enter(&self) -> (u64, oneshot::Receiver<()>) {
        let (hold, held) = oneshot::channel();
        let mut seats = self.seats();
        seats.turn += 1;
        let id = seats.turn;
        seats.waiting.insert(id, id);
        let seat = Seat {
            since: Some(id),
            known: false,
            _hold: hold,
        };
        seats.open.insert(id, seat);
        (id, held)
    }

    fn leave(&self, id: u64) {
        let mut seats = self.seats();
        if let Some(since) = seats.open.remove(&id).and_then(|seat| seat.since) {
            seats.waiting.remove(&since);
        }
    }

    fn begin(&self, id: u64) {
        let mut seats = self.seats();
        let Some(seat) = seats.open.get_mut(&id) else {
            return;
        };
        seat.known = true;
        if let Some(since) = seat.since.take() {
            seats.waiting.remove(&since);
        }
    }

    fn end(&self, id: u64) {
        let mut seats = self.seats();
        seats.turn += 1;
        let turn = seats.turn;
        let Some(seat) = seats.open.get_mut(&id) else {
            return;
        };
        seat.since = Some(turn);
        seats.waiting.insert(turn, id);
        drop(seats);
        self.waits.notify_one();
    }

    /// Lets go of the connection that has waited longest; whether one waits.
    fn let_one_go(&self) -> bool {
        let mut seats = self.seats();
        let longest = seats.waiting.pop_first();
        longest.is_some_and(|(_, id)| seats.open.remove(&id).is_some())
    }

    /// Lets go of all on which nobody has shown a credential, for the node stops.
    pub fn let_strangers_go(&self) {
        let mut seats = self.seats();
        let Seats { waiting, open, .. } = &mut *seats;
        open.retain(|_, seat| seat.known);
        waiting.retain(|_, id| open.contains_key(id));
    }
}

/// Who calls over a connection.
#[derive(Clone, Debug)]
pub struct Caller {
    room: Arc<Room>,
    id: u64,
}

impl Caller {
    /// The connection works for its caller, who has shown a credential, until this is dropped.
    pub fn works(&self) -> Works<'_> {
        self.room.begin(self.id);
        Works(self)
    }
}

impl Connected<IncomingStream<'_, BoundedListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, BoundedListener>) -> Self {
        stream.io().caller.clone()
    }
}

/// While it lives, a connection is not let go of.
#[derive(Debug)]
pub struct Works<'a>(&'a Caller);

impl Drop for Works<'_> {
    fn drop(&mut self) {
        self.0.room.end(self.0.id);
    }
}

/// A TCP listener that accepts the next connection when there is room for it, or can be made.
#[derive(Debug)]
pub struct BoundedListener {
    listener: TcpListener,
    places: Arc<Semaphore>,
    room: Arc<Room>,
}

impl BoundedListener {
    /// Bounds `listener` to [`MAX_CONNECTIONS`], which are in `room`.
    pub fn new(listener: TcpListener, room: Arc<Room>) -> Self {
        Self {
            listener,
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            room,
        }
    }

    /// A place: a free one, or that of the connection that has waited longest, or the next that comes free.
    async fn place(&self) -> OwnedSemaphorePermit {
        let free = Arc::clone(&self.places).acquire_owned();
        tokio::pin!(free);
        let mut let_go = self.places.available_permits() > 0;
        loop {
            let_go = let_go || self.room.let_one_go();
            tokio::select! {
                permit = &mut free => return permit.expect("the semaphore is never closed"),
                () = self.room.waits.notified(), if !let_go => {}
            }
        }
    }
}

impl Listener for BoundedListener {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // This accept waits a second when the system has no descriptors left, and tries again.
        let (stream, remote) = Listener::accept(&mut self.listener).await;
        let permit = self.place().await;
        let _ = stream.set_nodelay(true);
        let (id, held) = self.room.enter();
        let stream = BoundedStream {
            stream,
            silence: Box::pin(sleep_until(Instant::now() + IDLE_TIME)),
            held: Some(held),
            caller: Caller {
                room: Arc::clone(&self.room),
                id,
            },
            _permit: permit,
        };
        (stream, remote)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that counts, and breaks when nothing moves for [`IDLE_TIME`] or when it is let go of.
#[derive(Debug)]
pub struct BoundedStream {
    stream: TcpStream,
    silence: Pin<Box<Sleep>>,
    /// Ends when the connection is let go of; `None` from then on.
    held: Option<oneshot::Receiver<()>>,
    caller: Caller,
    _permit: OwnedSemaphorePermit,
}

impl Drop for BoundedStream {
    fn drop(&mut self) {
        self.caller.room.leave(self.caller.id);
    }
}

impl BoundedStream {
    /// Breaks the connection if it was let go of.
    fn still_held(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let is_held = self
            .held
            .as_mut()
            .is_some_and(|held| Pin::new(held).poll(context).is_pending());
        if is_held {
            return Ok(());
        }
        // It must not be asked once more, and whoever is served here may try to read or write once more.
        self.held = None;
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    /// Notes that something moved, or breaks the connection if that is too long ago.
    fn watched<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.silence.as_mut().reset(Instant::now() + IDLE_TIME);
            return outcome;
        }
        ready!(self.silence.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for BoundedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.still_held(context)?;
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.watched(context, outcome)
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.still_held(context)?;
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watched(context, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_connection_that_was_let_go_of_stays_broken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let room = Arc::<Room>::default();
        let mut listener = BoundedListener::new(listener, Arc::clone(&room));
        let _client = TcpStream::connect(address).await.unwrap();
        let (mut stream, _) = listener.accept().await;
        assert!(room.let_one_go());
        for _ in 0..2 {
            let read = stream.read_u8().await.unwrap_err();
            assert_eq!(read.kind(), io::ErrorKind::ConnectionAborted);
            let written = stream.write_u8(1).await.unwrap_err();
            assert_eq!(written.kind(), io::ErrorKind::ConnectionAborted);
        }
    }
}
