//! The old transport: a header of 24 bytes before each payload, nothing encrypted.
//!
//! ```text
//!   0       4                        16      20      24
//!   | magic | command, zeros after it | length | checksum | payload ...
//! ```

use std::collections::VecDeque;

use bitcoin::hashes::{Hash, sha256d};
use bytes::{Buf, Bytes, BytesMut};

use super::kind::{COMMAND_BYTES, Kind};
use super::read::Reader;
use super::transport::Received;
use super::{CloseReason, Refusal};
use crate::chain::Network;

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 4 + COMMAND_BYTES + 4 + 4;
/// Payloads below this are copied out of the receive buffer, so that a transaction that is kept for hours does
/// not keep what came with it; those from here on are cut out.
pub(super) const CUT_BYTES: usize = 16 << 10;
/// Payloads below this are joined with their header for one write.
const JOIN_BYTES: usize = 4 << 10;
/// A payload's memory is taken at once when this part of it has come: before, the buffer grows with what comes.
pub(super) const RESERVE_AT: usize = 8;

/// Decoder and encoder.
pub(super) struct Plain {
    magic: [u8; 4],
    buffer: BytesMut,
    /// The header of the payload that is awaited.
    header: Option<Header>,
}

#[derive(Clone, Copy)]
struct Header {
    /// `None`: the command was none.
    kind: Option<Kind>,
    length: usize,
    checksum: [u8; 4],
}

impl Plain {
    pub(super) fn new(network: Network) -> Self {
        Self {
            magic: network.magic(),
            buffer: BytesMut::new(),
            header: None,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    pub(super) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    pub(super) fn next(&mut self) -> Received {
        let header = match self.header {
            Some(header) => header,
            None => match self.read_header() {
                Ok(Some(header)) => *self.header.insert(header),
                Ok(None) => return Received::Nothing,
                Err(broken) => return broken,
            },
        };
        let Some(payload) = cut(&mut self.buffer, header.length) else {
            return Received::Nothing;
        };
        self.header = None;
        if checksum(&payload) != header.checksum {
            return Received::Refused(Refusal::Checksum);
        }
        match header.kind {
            Some(kind) => Received::Message(kind, payload),
            None => Received::Refused(Refusal::Command),
        }
    }

    /// The header, if it is there. A length above its kind's limit is refused before its payload comes.
    fn read_header(&mut self) -> Result<Option<Header>, Received> {
        let known = self.buffer.len().min(self.magic.len());
        if self.buffer.get(..known) != self.magic.get(..known) {
            return Err(Received::Broken(Refusal::Magic, CloseReason::WrongMagic));
        }
        let mut reader = Reader::new(&self.buffer);
        let mut fields = || -> Result<_, super::DecodeError> {
            reader.take(self.magic.len())?;
            Ok((reader.array()?, reader.u32()?, reader.array()?))
        };
        let Ok((command, length, checksum)) = fields() else {
            return Ok(None);
        };
        let kind = Kind::of_command(&command);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > kind.unwrap_or(Kind::Unknown).max_bytes() {
            return Err(Received::breach(Refusal::Oversized));
        }
        self.buffer.advance(HEADER_BYTES);
        Ok(Some(Header {
            kind,
            length,
            checksum,
        }))
    }

    pub(super) fn encode(&self, kind: Kind, payload: Bytes, out: &mut VecDeque<Bytes>) {
        let joined = if payload.len() < JOIN_BYTES {
            payload.len()
        } else {
            0
        };
        let length = u32::try_from(payload.len()).expect("no payload of ours is that long");
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + joined);
        bytes.extend_from_slice(&self.magic);
        bytes.extend_from_slice(&kind.command());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&checksum(&payload));
        if joined == payload.len() {
            bytes.extend_from_slice(&payload);
            out.push_back(bytes.freeze());
        } else {
            out.push_back(bytes.freeze());
            out.push_back(payload);
        }
    }
}

/// The first `length` bytes of the buffer, once they are there. Long ones are not copied.
pub(super) fn cut(buffer: &mut BytesMut, length: usize) -> Option<Bytes> {
    let missing = length.saturating_sub(buffer.len());
    if missing > 0 {
        if buffer.len() >= length / RESERVE_AT {
            buffer.reserve(missing);
        }
        return None;
    }
    if length < CUT_BYTES {
        let copy = buffer.get(..length).map(Bytes::copy_from_slice);
        buffer.advance(length);
        return copy;
    }
    let cut = buffer.split_to(length).freeze();
    // What follows moves to memory of its own, so that it neither keeps this nor is kept by it.
    *buffer = BytesMut::from(&buffer[..]);
    Some(cut)
}

fn checksum(payload: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = sha256d::Hash::hash(payload).to_byte_array();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::consensus::serialize;
    use bitcoin::p2p::Magic;
    use bitcoin::p2p::message::{NetworkMessage, RawNetworkMessage};
    use proptest::prelude::*;

    fn stream(messages: &[(Kind, Bytes)]) -> Vec<u8> {
        let plain = Plain::new(Network::Regtest);
        let mut out = VecDeque::new();
        for (kind, payload) in messages {
            plain.encode(*kind, payload.clone(), &mut out);
        }
        out.iter().flatten().copied().collect()
    }

    proptest! {
        /// However TCP cuts the stream, the messages are the same.
        #[test]
        fn messages_survive_any_cut(
            lengths in prop::collection::vec(0usize..40_000, 1..8),
            cuts in prop::collection::vec(1usize..30_000, 1..8),
        ) {
            let messages: Vec<_> = lengths
                .iter()
                .map(|&length| (Kind::Block, Bytes::from(vec![length as u8; length])))
                .collect();
            let stream = stream(&messages);
            let mut plain = Plain::new(Network::Regtest);
            let mut read = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at(rest.len().min(*cut));
                rest = after;
                plain.push(piece);
                while let Received::Message(kind, payload) = plain.next() {
                    read.push((kind, payload));
                }
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(read, messages);
            prop_assert_eq!(plain.buffered(), 0);
        }
    }

    #[test]
    fn the_header_is_that_of_the_bitcoin_crate() {
        let ours = stream(&[(Kind::Ping, Bytes::copy_from_slice(&7u64.to_le_bytes()))]);
        let magic = Magic::from_bytes(Network::Regtest.magic());
        let theirs = RawNetworkMessage::new(magic, NetworkMessage::Ping(7));
        assert_eq!(ours, serialize(&theirs));
    }

    #[test]
    fn what_is_wrong_is_found_as_soon_as_it_can_be() {
        let good = stream(&[(Kind::Ping, Bytes::from_static(&[1; 8]))]);
        let after = |change: &dyn Fn(&mut Vec<u8>), length: usize| {
            let mut bytes = good.clone();
            change(&mut bytes);
            let mut plain = Plain::new(Network::Regtest);
            plain.push(&bytes[..length]);
            plain.next()
        };
        let magic = after(&|bytes| bytes[1] ^= 1, 2);
        assert!(matches!(
            magic,
            Received::Broken(_, CloseReason::WrongMagic)
        ));
        let long = after(&|bytes| bytes[17] = 5, HEADER_BYTES);
        assert!(matches!(long, Received::Broken(Refusal::Oversized, _)));
        let checksum = after(&|bytes| bytes[20] ^= 1, good.len());
        assert!(matches!(checksum, Received::Refused(Refusal::Checksum)));
        let command = after(&|bytes| bytes[15] = 1, good.len());
        assert!(matches!(command, Received::Refused(Refusal::Command)));
        let short = after(&|_| {}, good.len() - 1);
        assert!(matches!(short, Received::Nothing));
    }
}
