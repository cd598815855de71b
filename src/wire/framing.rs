//! The control stream: frames cut out of whatever pieces TCP delivers.
//!
//! A push decoder with a bounded buffer: it holds one frame of at most 64 KiB and what of the next came with
//! it, and moves each byte once.

use super::codec::Reader;
use super::error::WireError;
use super::{MAX_FRAME_BODY, MAX_FRAME_HEADER};
use bytes::{Buf, Bytes, BytesMut};

/// The most bytes that a decoder holds: the longest frame there may be, because that has to be whole before it
/// is handed out, and more of the next is held by the socket as well.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Message, Ping};
    use proptest::prelude::*;

    #[test]
    fn an_announced_length_is_refused_before_the_body_comes() {
        let mut decoder = ControlDecoder::new();
        assert_eq!(decoder.push(&[0x22, 0xfe, 1, 0, 1]), 5);
        assert_eq!(decoder.next(), Ok(None));
        assert_eq!(decoder.push(&[0]), 1);
        assert_eq!(decoder.next(), Err(WireError::FrameTooLong));
        assert_eq!(decoder.buffered(), 0);
        assert_eq!(decoder.next(), Err(WireError::FrameTooLong));
        let mut decoder = ControlDecoder::new();
        assert_eq!(
            decoder.read(&mut &[0x22, 0xfd, 1, 0][..]),
            Err(WireError::NonMinimalSize)
        );
    }

    #[test]
    fn the_largest_frame_passes_and_the_buffer_never_exceeds_it() {
        let mut stream = vec![0x90, 0xfe, 0, 0, 1, 0];
        stream.resize(MAX_CONTROL_BUFFER, 7);
        stream.extend([0x03, 0]);
        let mut decoder = ControlDecoder::new();
        assert_eq!(decoder.push(&stream), MAX_CONTROL_BUFFER);
        assert_eq!(decoder.push(&stream), 0);
        let (kind, body) = decoder.next().expect("within the limit").expect("whole");
        assert_eq!((kind, body.len()), (0x90, MAX_FRAME_BODY));
        assert_eq!(decoder.push(&[3, 0]), 2);
        assert_eq!(decoder.next(), Ok(Some((3, Bytes::new()))));
        assert_eq!(decoder.next(), Ok(None));
    }

    proptest! {
        /// However TCP cuts the stream, the frames are the same.
        #[test]
        fn frames_survive_any_cut(
            paddings in prop::collection::vec(2u16..700, 0..20),
            cuts in prop::collection::vec(1usize..900, 1..20),
        ) {
            let messages: Vec<_> =
                (0..).zip(paddings).map(|(nonce, padding)| Message::Ping(Ping { nonce, padding })).collect();
            let mut stream = Vec::new();
            messages.iter().for_each(|message| message.append_frame(&mut stream));
            let mut decoder = ControlDecoder::new();
            let mut rest = &stream[..];
            let mut read = Vec::new();
            for cut in cuts.iter().cycle() {
                let (mut piece, after) = rest.split_at(rest.len().min(*cut));
                rest = after;
                while let Some((kind, body)) = decoder.read(&mut piece).expect("valid") {
                    read.push((kind, body));
                }
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(decoder.buffered(), 0);
            let decoded: Vec<_> = read
                .iter()
                .map(|(kind, body)| Message::decode(*kind, body).expect("valid").expect("known"))
                .collect();
            prop_assert_eq!(decoded, messages);
        }
    }
}
