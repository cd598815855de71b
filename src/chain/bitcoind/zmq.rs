//! The subscriber: one task per publisher, which connects, listens, and connects again.
//!
//! Nothing is lost in silence: a broken connection and a gap in a counter are events. Publishers drop what a slow
//! subscriber does not take; so does this one not take more than it can hold, and the gap tells.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::backoff::Backoff;
use super::error::one_line;
use super::notice::{self, Counters, Gap, Notice, Topic};
use super::zmtp::{self, Decoder, Incoming};

/// Events on the way to their taker. Reason: a block's transactions arrive in a burst of some thousands.
const MAX_EVENTS: usize = 8_192;
/// Bytes of the events on their way. Reason: some blocks of 4 MB, and the transactions of another.
const MAX_QUEUED_BYTES: u32 = 32 << 20;
/// What an event counts for besides its bytes.
const EVENT_BYTES: u32 = 128;
/// How much is received at once, in bytes: a burst of transactions in few calls.
const READ_BYTES: usize = 64 << 10;
/// How long a connection and its handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// The first wait after a connection broke: a restart of bitcoind takes some seconds, a hiccup less.
const LEAST_WAIT: Duration = Duration::from_millis(250);
/// The longest wait: trying costs next to nothing, and every second without notifications costs blocks.
const MOST_WAIT: Duration = Duration::from_secs(15);
/// How long a connection must have been of use for the next try to come at once.
const STEADY_TIME: Duration = Duration::from_secs(10);
/// After so long without a byte the system asks whether the other side is there still.
const KEEPALIVE_TIME: Duration = Duration::from_secs(30);

/// What a subscription brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ZmqEvent {
    /// Subscribed at the publisher of this index. What was published before is not known.
    Connected {
        /// Its index in the list that was subscribed.
        publisher: usize,
    },
    /// Not, or no longer, connected; another try follows. Said again only if the reason changes.
    Disconnected {
        /// Its index in the list that was subscribed.
        publisher: usize,
        /// One line.
        reason: String,
    },
    /// A notification.
    Notice(Notice),
    /// Notifications of this topic did not arrive; comes before the first that did.
    Lost {
        /// The topic.
        topic: Topic,
        /// See [`Gap`].
        gap: Gap,
    },
}

struct Queued {
    event: ZmqEvent,
    _permit: OwnedSemaphorePermit,
}

/// A subscription. Dropped, it ends.
#[derive(Debug)]
pub struct Zmq {
    events: mpsc::Receiver<Queued>,
    _tasks: JoinSet<()>,
}

impl Zmq {
    /// Subscribes `topics` at every one of `publishers`, each host and port. `seed` spreads the tries to reconnect.
    ///
    /// To be called within a tokio runtime.
    pub fn subscribe(publishers: &[String], topics: &[Topic], seed: u64) -> Self {
        let (sender, events) = mpsc::channel(MAX_EVENTS);
        let room = Arc::new(Semaphore::new(MAX_QUEUED_BYTES as usize));
        let mut tasks = JoinSet::new();
        for (publisher, address) in publishers.iter().enumerate() {
            let listener = Listener {
                publisher,
                address: address.clone(),
                topics: topics.to_vec(),
                counters: Counters::default(),
                events: sender.clone(),
                room: Arc::clone(&room),
                last_reason: None,
            };
            tasks.spawn(listener.run(seed.wrapping_add(publisher as u64)));
        }
        Self {
            events,
            _tasks: tasks,
        }
    }

    /// The next event; never ends unless there is no publisher.
    pub async fn next(&mut self) -> Option<ZmqEvent> {
        self.events.recv().await.map(|queued| queued.event)
    }
}

/// Nobody takes events any more.
struct Unheard;

struct Listener {
    publisher: usize,
    address: String,
    topics: Vec<Topic>,
    counters: Counters,
    events: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    last_reason: Option<String>,
}

impl Listener {
    async fn run(mut self, seed: u64) {
        let mut backoff = Backoff::new(LEAST_WAIT, MOST_WAIT, seed);
        loop {
            let reason = match timeout(HANDSHAKE_TIME, self.connect()).await {
                Err(_) => "no answer within 5 s".to_owned(),
                Ok(Err(reason)) => reason,
                Ok(Ok((stream, decoder))) => {
                    self.last_reason = None;
                    let since = Instant::now();
                    let reason = match self.listen(stream, decoder).await {
                        Err(Unheard) => return,
                        Ok(reason) => reason,
                    };
                    // What shakes hands and hangs up is waited for longer each time.
                    if since.elapsed() >= STEADY_TIME {
                        backoff.succeeded();
                    }
                    reason
                }
            };
            let reason = one_line(&format!("ZMQ at {}: {reason}", self.address));
            if self.last_reason.as_ref() != Some(&reason) {
                self.last_reason = Some(reason.clone());
                let publisher = self.publisher;
                let event = ZmqEvent::Disconnected { publisher, reason };
                if self.tell(event, 0).await.is_err() {
                    return;
                }
            }
            sleep(backoff.failed()).await;
        }
    }

    /// Connects, shakes hands and subscribes.
    async fn connect(&self) -> Result<(TcpStream, Decoder), String> {
        let in_words = |error: std::io::Error| error.to_string();
        let mut stream = TcpStream::connect(&self.address).await.map_err(in_words)?;
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_TIME);
        SockRef::from(&stream)
            .set_tcp_keepalive(&keepalive)
            .map_err(in_words)?;
        let mut hello = zmtp::greeting().to_vec();
        hello.extend(zmtp::ready());
        stream.write_all(&hello).await.map_err(in_words)?;
        let mut decoder = Decoder::default();
        loop {
            match decoder.poll().map_err(|error| error.to_string())? {
                Some(Incoming::Ready) => break,
                Some(Incoming::Message(_)) => {}
                None => receive(&mut stream, decoder.buffer()).await?,
            }
        }
        let subscriptions: Vec<u8> = self
            .topics
            .iter()
            .flat_map(|topic| zmtp::subscription(topic.name()))
            .collect();
        stream.write_all(&subscriptions).await.map_err(in_words)?;
        Ok((stream, decoder))
    }

    /// Tells what comes until the connection breaks; the reason.
    async fn listen(
        &mut self,
        mut stream: TcpStream,
        mut decoder: Decoder,
    ) -> Result<String, Unheard> {
        let publisher = self.publisher;
        self.tell(ZmqEvent::Connected { publisher }, 0).await?;
        loop {
            match decoder.poll() {
                Err(error) => return Ok(error.to_string()),
                Ok(Some(Incoming::Ready)) => {}
                Ok(Some(Incoming::Message(parts))) => {
                    let bytes = parts.iter().map(bytes::Bytes::len).sum();
                    let Some((topic, counter, notice)) = notice::read(parts) else {
                        return Ok(zmtp::ZmtpError::BadMessage.to_string());
                    };
                    if let Some(gap) = self.counters.note(topic, counter) {
                        self.tell(ZmqEvent::Lost { topic, gap }, 0).await?;
                    }
                    self.tell(ZmqEvent::Notice(notice), bytes).await?;
                }
                Ok(None) => {
                    let received = tokio::select! {
                        received = receive(&mut stream, decoder.buffer()) => received,
                        () = self.events.closed() => return Err(Unheard),
                    };
                    if let Err(reason) = received {
                        return Ok(reason);
                    }
                }
            }
        }
    }

    /// Queues an event, once there is room for it.
    async fn tell(&self, event: ZmqEvent, bytes: usize) -> Result<(), Unheard> {
        let bytes = u32::try_from(bytes).unwrap_or(MAX_QUEUED_BYTES);
        let share = bytes.saturating_add(EVENT_BYTES).min(MAX_QUEUED_BYTES);
        let permit = Arc::clone(&self.room)
            .acquire_many_owned(share)
            .await
            .expect("the semaphore is never closed");
        let queued = Queued {
            event,
            _permit: permit,
        };
        self.events.send(queued).await.map_err(|_| Unheard)
    }
}

async fn receive(stream: &mut TcpStream, buffer: &mut BytesMut) -> Result<(), String> {
    // Only when there is none left: the room for the rest of a block must not be moved.
    if buffer.capacity() == buffer.len() {
        buffer.reserve(READ_BYTES);
    }
    match stream.read_buf(buffer).await {
        Ok(0) => Err("the publisher closed the connection".into()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
