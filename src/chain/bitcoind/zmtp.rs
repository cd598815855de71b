//! ZMTP 3.0 (<https://rfc.zeromq.org/spec/23/>), as much of it as a subscriber of bitcoind needs.
//!
//! ```text
//!  both:       greeting (64 bytes): ff 0*8 7f | 3 | 0 | "NULL" 0*16 | as-server 0 | 0*31
//!  both:       READY command: 04 length | 05 "READY" | name, value pairs ("Socket-Type": PUB)
//!  subscriber: 00 length | 01 topic           per topic
//!  publisher:  01 length topic | 01 or 03 length body | 00 04 counter          per notification
//! ```
//!
//! A frame is a byte of flags (1 more frames follow, 2 the length has eight bytes, 4 a command), a length and as many
//! bytes. Every length is checked against a bound before anything is allocated for it.

use bytes::{Buf as _, Bytes, BytesMut};
use thiserror::Error;

use super::error::one_line;

/// Bytes of a greeting.
pub const GREETING_BYTES: usize = 64;
/// Parts of a notification: topic, body, counter.
pub const PARTS: usize = 3;
/// Bytes of a frame. Reason: the largest is a block, of 4,000,000 bytes at most.
pub const MAX_FRAME_BYTES: usize = 4_000_000;
/// Bytes of a command. Reason: READY with its two properties has about 40, and nothing longer is of use here.
const MAX_COMMAND_BYTES: usize = 1_024;

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// Why a publisher is not understood.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ZmtpError {
    /// The first bytes are not a greeting of version 3.
    #[error("no ZMQ publisher of version 4 or later listens there")]
    NotZmtp,
    /// It wants a login.
    #[error("the publisher wants security mechanism {0:?}; bitcoind's has none")]
    Mechanism(String),
    /// It is another kind of socket.
    #[error("a ZMQ socket of type {0:?} listens there, not a publisher")]
    NotPublisher(String),
    /// A frame with unknown flags, or a command where none may be.
    #[error("the publisher sends a frame that makes no sense")]
    BadFrame,
    /// A frame beyond its bound.
    #[error("the publisher sends a frame of {0} bytes; a block has at most 4000000")]
    TooLong(u64),
    /// More parts than a notification has.
    #[error("the publisher sends messages that are no notifications of bitcoind")]
    BadMessage,
    /// Its own words.
    #[error("the publisher refuses: {0}")]
    Refused(String),
}

/// What a subscriber says first.
pub fn greeting() -> [u8; GREETING_BYTES] {
    let mut bytes = [0; GREETING_BYTES];
    let start = [
        0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 0, b'N', b'U', b'L', b'L',
    ];
    for (byte, value) in bytes.iter_mut().zip(start) {
        *byte = value;
    }
    bytes
}

/// What a subscriber says second.
pub fn ready() -> Vec<u8> {
    b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB".to_vec()
}

/// Asks for the notifications whose topic begins with `topic`, of fewer than 255 bytes.
pub fn subscription(topic: &str) -> Vec<u8> {
    let length = u8::try_from(topic.len() + 1).expect("a topic is short");
    let mut frame = vec![0, length, 1];
    frame.extend_from_slice(topic.as_bytes());
    frame
}

/// What came, in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Both sides speak the same; subscriptions may be sent.
    Ready,
    /// A notification.
    Message([Bytes; PARTS]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Greeting,
    Handshake,
    Traffic,
}

/// Cuts a stream of bytes into what it says.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    phase: Phase,
    parts: Vec<Bytes>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            buffer: BytesMut::new(),
            phase: Phase::Greeting,
            parts: Vec::with_capacity(PARTS),
        }
    }
}

impl Decoder {
    /// Where received bytes are to be appended, with room for some.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next thing that is there as a whole.
    ///
    /// # Errors
    ///
    /// [`ZmtpError`]; the stream is of no use after that.
    pub fn poll(&mut self) -> Result<Option<Incoming>, ZmtpError> {
        if self.phase == Phase::Greeting {
            if !self.take_greeting()? {
                return Ok(None);
            }
            self.phase = Phase::Handshake;
        }
        while let Some((flags, frame)) = self.take_frame()? {
            if flags & COMMAND != 0 {
                if let Some(incoming) = self.command(&frame)? {
                    return Ok(Some(incoming));
                }
                continue;
            }
            if self.phase != Phase::Traffic || self.parts.len() == PARTS {
                return Err(ZmtpError::BadMessage);
            }
            self.parts.push(frame);
            if flags & MORE == 0 {
                let parts = std::mem::replace(&mut self.parts, Vec::with_capacity(PARTS));
                let message = parts.try_into().map_err(|_| ZmtpError::BadMessage)?;
                return Ok(Some(Incoming::Message(message)));
            }
        }
        Ok(None)
    }

    /// Whether the greeting is there; refuses what can't become one as soon as that is known.
    fn take_greeting(&mut self) -> Result<bool, ZmtpError> {
        let signature = greeting();
        let differs = |place: usize| {
            let theirs = self.buffer.get(place);
            theirs.is_some_and(|byte| signature.get(place) != Some(byte))
        };
        // Bytes 1 to 8 may hold a length for older peers.
        if differs(0) || differs(9) || self.buffer.get(10).is_some_and(|major| *major < 3) {
            return Err(ZmtpError::NotZmtp);
        }
        if self.buffer.len() < GREETING_BYTES {
            return Ok(false);
        }
        let greeting = self.buffer.split_to(GREETING_BYTES);
        let mechanism: Vec<u8> = greeting
            .iter()
            .skip(12)
            .take(20)
            .copied()
            .take_while(|byte| *byte != 0)
            .collect();
        if mechanism != b"NULL" {
            let shown = String::from_utf8_lossy(&mechanism);
            return Err(ZmtpError::Mechanism(one_line(&shown)));
        }
        Ok(true)
    }

    /// The next frame, once it is there as a whole.
    fn take_frame(&mut self) -> Result<Option<(u8, Bytes)>, ZmtpError> {
        let mut head = &self.buffer[..];
        let Ok(flags) = head.try_get_u8() else {
            return Ok(None);
        };
        if flags > (MORE | LONG | COMMAND) || flags & (COMMAND | MORE) == COMMAND | MORE {
            return Err(ZmtpError::BadFrame);
        }
        let length = match flags & LONG {
            0 => head.try_get_u8().map(u64::from),
            _ => head.try_get_u64(),
        };
        let Ok(length) = length else {
            return Ok(None);
        };
        let most = match flags & COMMAND {
            0 => MAX_FRAME_BYTES,
            _ => MAX_COMMAND_BYTES,
        };
        let size = usize::try_from(length)
            .ok()
            .filter(|size| *size <= most)
            .ok_or(ZmtpError::TooLong(length))?;
        let start = self.buffer.len() - head.len();
        if head.len() < size {
            // So that a block is received into one piece of memory.
            self.buffer.reserve(start + size - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(start);
        Ok(Some((flags, self.buffer.split_to(size).freeze())))
    }

    fn command(&mut self, frame: &[u8]) -> Result<Option<Incoming>, ZmtpError> {
        let Some((name, body)) = counted(frame) else {
            return Err(ZmtpError::BadFrame);
        };
        match (name, self.phase) {
            (b"READY", Phase::Handshake) => {
                let kind = property(body, b"socket-type").ok_or(ZmtpError::BadFrame)?;
                if kind != b"PUB" && kind != b"XPUB" {
                    let shown = String::from_utf8_lossy(kind);
                    return Err(ZmtpError::NotPublisher(one_line(&shown)));
                }
                self.phase = Phase::Traffic;
                Ok(Some(Incoming::Ready))
            }
            (b"ERROR", _) => {
                let reason = counted(body).map_or(&b"no reason"[..], |(reason, _)| reason);
                let shown = String::from_utf8_lossy(reason);
                Err(ZmtpError::Refused(one_line(&shown)))
            }
            (_, Phase::Traffic) => Ok(None),
            _ => Err(ZmtpError::BadFrame),
        }
    }
}

/// Splits a text with its length in one byte from what follows.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// The value of property `name` in lower case.
fn property<'a>(mut bytes: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    while !bytes.is_empty() {
        let (this, rest) = counted(bytes)?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (value, rest) = rest.split_at_checked(length)?;
        if this.eq_ignore_ascii_case(name) {
            return Some(value);
        }
        bytes = rest;
    }
    None
}

#[cfg(test)]
mod tests;
