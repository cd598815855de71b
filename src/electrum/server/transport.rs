//! Messages over bytes: lines, or a WebSocket's messages; read and written by two halves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf,
};
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};

/// Bytes that are read at a time. Reason: an idle client holds a buffer of this size; most calls are shorter.
const READ_BYTES: usize = 2_048;

/// Bytes that are written at a time. Reason: of so many a client must take some before the write timeout.
const WRITE_BYTES: usize = 16_384;

/// Anything that is read and written.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// Why there are no more messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadEnd {
    /// One has more bytes than it may.
    TooLong,
    /// The client is gone, or speaks nonsense.
    Broken,
}

/// The half that reads.
#[derive(Debug)]
pub enum Reader<S> {
    Lines {
        stream: ReadHalf<S>,
        buffer: BytesMut,
        /// Bytes of the buffer that are known to have no line's end.
        seen: usize,
    },
    Messages(SplitStream<WebSocketStream<S>>),
}

/// The half that writes.
#[derive(Debug)]
pub enum Writer<S> {
    Lines(WriteHalf<S>),
    Messages(SplitSink<WebSocketStream<S>, Message>),
}

/// How a WebSocket is to be: small buffers, for there may be thousands, and bounded messages.
pub fn web_socket_config(message_bytes: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(2 * READ_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(message_bytes))
        .max_frame_size(Some(message_bytes))
}

/// Both halves for lines.
pub fn lines<S: Stream>(stream: S) -> (Reader<S>, Writer<S>) {
    let (reader, writer) = tokio::io::split(stream);
    let reader = Reader::Lines {
        stream: reader,
        buffer: BytesMut::new(),
        seen: 0,
    };
    (reader, Writer::Lines(writer))
}

/// Both halves of a WebSocket.
pub fn messages<S: Stream>(socket: WebSocketStream<S>) -> (Reader<S>, Writer<S>) {
    let (writer, reader) = socket.split();
    (Reader::Messages(reader), Writer::Messages(writer))
}

impl<S: Stream> Reader<S> {
    /// The next message; `None` at the end.
    async fn next(&mut self, most: usize) -> Result<Option<Vec<u8>>, ReadEnd> {
        match self {
            Self::Lines {
                stream,
                buffer,
                seen,
            } => next_line(stream, buffer, seen, most).await,
            Self::Messages(stream) => loop {
                match stream.next().await {
                    None | Some(Ok(Message::Close(_))) => return Ok(None),
                    Some(Ok(Message::Text(text))) => return Ok(Some(text.as_bytes().to_vec())),
                    Some(Ok(Message::Binary(bytes))) => return Ok(Some(bytes.to_vec())),
                    Some(Ok(_)) => {}
                    Some(Err(WebSocketError::Capacity(_))) => return Err(ReadEnd::TooLong),
                    Some(Err(_)) => return Err(ReadEnd::Broken),
                }
            },
        }
    }

    /// Hands on messages until the end, waiting when nobody takes them.
    pub async fn run(mut self, most: usize, messages: mpsc::Sender<Result<Vec<u8>, ReadEnd>>) {
        loop {
            let next = self.next(most).await;
            let (item, last) = match next {
                Ok(None) => return,
                Ok(Some(message)) => (Ok(message), false),
                Err(end) => (Err(end), true),
            };
            if messages.send(item).await.is_err() || last {
                return;
            }
        }
    }
}

async fn next_line<S: Stream>(
    stream: &mut ReadHalf<S>,
    buffer: &mut BytesMut,
    seen: &mut usize,
    most: usize,
) -> Result<Option<Vec<u8>>, ReadEnd> {
    loop {
        let fresh = buffer.iter().skip(*seen).position(|byte| *byte == b'\n');
        if let Some(end) = fresh.map(|position| position + *seen) {
            let mut line = buffer.split_to(end + 1);
            *seen = 0;
            line.truncate(end);
            if line.last() == Some(&b'\r') {
                line.truncate(end - 1);
            }
            if line.is_empty() {
                continue;
            }
            return Ok(Some(line.to_vec()));
        }
        *seen = buffer.len();
        if buffer.len() > most {
            return Err(ReadEnd::TooLong);
        }
        if buffer.is_empty() {
            // What a long line had taken is given back.
            *buffer = BytesMut::new();
        }
        buffer.reserve(READ_BYTES);
        match stream.read_buf(buffer).await {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(_) => return Err(ReadEnd::Broken),
        }
    }
}

/// Bytes that were handed to the writer and are not written.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: AtomicUsize,
    /// Given whenever some were written.
    pub drained: Notify,
}

impl Outbox {
    /// How many there are.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// There are more.
    pub fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Why nothing more can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteEnd {
    /// The client took nothing for too long.
    Slow,
    /// The client is gone.
    Broken,
}

impl<S: Stream> Writer<S> {
    /// Writes frames until there are no more.
    pub async fn run(
        mut self,
        mut frames: mpsc::Receiver<Vec<u8>>,
        outbox: Arc<Outbox>,
        patience: Duration,
    ) -> Result<(), WriteEnd> {
        while let Some(frame) = frames.recv().await {
            let bytes = frame.len();
            self.write(frame, patience).await?;
            outbox.bytes.fetch_sub(bytes, Ordering::Relaxed);
            outbox.drained.notify_one();
        }
        let ending = async {
            match &mut self {
                Self::Lines(stream) => stream.shutdown().await.ok(),
                Self::Messages(sink) => sink.close().await.ok(),
            }
        };
        // It has been told all there was; whether it says goodbye is its own affair.
        tokio::time::timeout(patience.min(Duration::from_secs(1)), ending)
            .await
            .ok();
        Ok(())
    }

    async fn write(&mut self, mut frame: Vec<u8>, patience: Duration) -> Result<(), WriteEnd> {
        match self {
            Self::Lines(stream) => {
                frame.push(b'\n');
                for part in frame.chunks(WRITE_BYTES) {
                    timed(patience, stream.write_all(part)).await?;
                }
                timed(patience, stream.flush()).await
            }
            Self::Messages(sink) => {
                // What is written here is JSON, which is UTF-8.
                let text = String::from_utf8(frame).map_err(|_| WriteEnd::Broken)?;
                // One frame at a time is all that the socket can be asked for: longer ones get longer.
                let parts = u32::try_from(1 + text.len() / 1_000_000).unwrap_or(u32::MAX);
                timed(patience * parts, sink.send(Message::text(text))).await
            }
        }
    }
}

async fn timed<E>(
    patience: Duration,
    writing: impl Future<Output = Result<(), E>>,
) -> Result<(), WriteEnd> {
    match tokio::time::timeout(patience, writing).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(WriteEnd::Broken),
        Err(_) => Err(WriteEnd::Slow),
    }
}
