//! The control stream: frames cut out of whatever pieces TCP delivers.
//!
//! A push decoder with a bounded buffer: it holds one frame of at most 64 KiB and what of the next came with
//! it, and moves each byte once.

use super::codec::Reader;
use super::error::WireError;
use super::{MAX_FRAME_BODY, MAX_FRAME_HEADER};
use bytes::{Buf, Bytes, BytesMut};

/// The most bytes that a decoder holds.
pub const MAX_CONTROL_BUFFER: usize = MAX_FRAME_HEADER + MAX_FRAME_BODY;

/// Cuts a stream of bytes into frames.
///
/// ```
/// # use blocktorrent::wire::{ControlDecoder, Message};
/// let mut stream = Vec::new();
/// Message::GetAddr.append_frame(&mut stream);
/// let mut decoder = ControlDecoder::new();
/// let mut input = &stream[..];
/// while let Some((message_type, body)) = decoder.read(&mut input)? {
///     assert_eq!(Message::decode(message_type, &body)?, Some(Message::GetAddr));
/// }
/// # Ok::<(), blocktorrent::wire::WireError>(())
/// ```
#[derive(Debug, Default)]
pub struct ControlDecoder {
    buffer: BytesMut,
    refused: Option<WireError>,
}

impl ControlDecoder {
    /// A decoder at the start of a stream. It takes memory when bytes come.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the front of `input` as far as the buffer has room, and says how many. Call
    /// [`ControlDecoder::next`] until it has no more frames before pushing the rest.
    #[must_use = "what was not taken must be pushed again"]
    pub fn push(&mut self, input: &[u8]) -> usize {
        let room = MAX_CONTROL_BUFFER - self.buffer.len();
        let taken = input.get(..room).unwrap_or(input);
        self.buffer.extend_from_slice(taken);
        taken.len()
    }

    /// The next whole frame as (type, body), `None` if more bytes are needed. After a refusal the stream has no
    /// frames any more: every call refuses.
    #[expect(
        clippy::should_implement_trait,
        reason = "an end of the bytes at hand is no end of the stream"
    )]
    pub fn next(&mut self) -> Result<Option<(u8, Bytes)>, WireError> {
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        let mut reader = Reader::new(&self.buffer);
        let (message_type, len) = match read_header(&mut reader) {
            Ok(header) => header,
            Err(WireError::Truncated) => return Ok(None),
            Err(refused) => {
                self.refused = Some(refused);
                self.buffer = BytesMut::new();
                return Err(refused);
            }
        };
        if reader.remaining() < len {
            return Ok(None);
        }
        let header_len = self.buffer.len() - reader.remaining();
        self.buffer.advance(header_len);
        Ok(Some((message_type, self.buffer.split_to(len).freeze())))
    }

    /// The next whole frame, from what was held back and then from the front of `input`, which moves past what
    /// was taken. `None`: `input` is used up and more is needed.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<(u8, Bytes)>, WireError> {
        loop {
            if let Some(frame) = self.next()? {
                return Ok(Some(frame));
            }
            if input.is_empty() {
                return Ok(None);
            }
            let taken = self.push(input);
            *input = input.get(taken..).unwrap_or_default();
        }
    }

    /// Bytes held back.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }
}

/// Type and length of the frame that starts here. A length above the limit is refused before its body comes.
fn read_header(reader: &mut Reader<'_>) -> Result<(u8, usize), WireError> {
    let message_type = reader.u8()?;
    let len = reader.compact_size()?;
    if len > MAX_FRAME_BODY as u64 {
        return Err(WireError::FrameTooLong);
    }
    Ok((message_type, len as usize))
}
