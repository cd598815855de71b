//! BIP324 once both have the keys: packets of an encrypted length, flags, a kind, a payload and a tag.

use bip324::{
    CipherSession, DECOY_BYTE, InboundCipher, NUM_LENGTH_BYTES, OutboundCipher, PacketType,
};
use bytes::{Buf, Bytes, BytesMut};

use super::Refusal;
use super::kind::{COMMAND_BYTES, Kind};
use super::plain::{CUT_BYTES, RESERVE_AT};
use super::transport::{MAX_PACKET_BYTES, Received};

/// Bytes of a packet's tag.
const TAG_BYTES: usize = 16;
/// Bytes of a packet's flags.
const FLAG_BYTES: usize = 1;

/// Decoder and encoder. The keys are renewed by the ciphers themselves.
pub(super) struct Session {
    inbound: InboundCipher,
    outbound: OutboundCipher,
    buffer: BytesMut,
    /// Length of the packet that is awaited, without the length itself.
    length: Option<usize>,
}

impl Session {
    /// Goes on where the handshake ended; `rest` came after it.
    pub(super) fn new(cipher: CipherSession, rest: BytesMut) -> Self {
        let (inbound, outbound) = cipher.into_split();
        Self {
            inbound,
            outbound,
            buffer: rest,
            length: None,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    pub(super) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// The next message; decoys are passed over.
    pub(super) fn next(&mut self) -> Received {
        loop {
            let length = match self.length {
                Some(length) => length,
                None => {
                    let Some(&encrypted) = self.buffer.first_chunk::<NUM_LENGTH_BYTES>() else {
                        return Received::Nothing;
                    };
                    self.buffer.advance(NUM_LENGTH_BYTES);
                    let length = self.inbound.decrypt_packet_len(encrypted);
                    if length > MAX_PACKET_BYTES + TAG_BYTES {
                        return Received::breach(Refusal::Oversized);
                    }
                    *self.length.insert(length)
                }
            };
            let Some(mut packet) = self.cut(length) else {
                return Received::Nothing;
            };
            self.length = None;
            if self.inbound.decrypt_in_place(&mut packet, None).is_err() {
                return Received::breach(Refusal::Encryption);
            }
            packet.truncate(length.saturating_sub(TAG_BYTES));
            let is_decoy = packet.first().is_some_and(|flags| flags & DECOY_BYTE != 0);
            if !is_decoy {
                packet.advance(FLAG_BYTES.min(packet.len()));
                return open(packet.freeze());
            }
        }
    }

    /// The first `length` bytes of the buffer, once they are there.
    fn cut(&mut self, length: usize) -> Option<BytesMut> {
        let missing = length.saturating_sub(self.buffer.len());
        if missing > 0 {
            if self.buffer.len() >= length / RESERVE_AT {
                self.buffer.reserve(missing);
            }
            return None;
        }
        if length < CUT_BYTES {
            let copy = self.buffer.get(..length).map(BytesMut::from);
            self.buffer.advance(length);
            return copy;
        }
        let cut = self.buffer.split_to(length);
        self.buffer = BytesMut::from(&self.buffer[..]);
        Some(cut)
    }

    /// Encrypts a message.
    pub(super) fn encode(&mut self, kind: Kind, payload: &[u8]) -> Bytes {
        let mut contents = Vec::with_capacity(1 + COMMAND_BYTES + payload.len());
        contents.push(kind.id());
        if kind.id() == 0 {
            contents.extend_from_slice(&kind.command());
        }
        contents.extend_from_slice(payload);
        let mut packet = vec![0; OutboundCipher::encryption_buffer_len(contents.len())];
        self.outbound
            .encrypt(&contents, &mut packet, PacketType::Genuine, None)
            .expect("the buffer has the length that the cipher asks for");
        packet.into()
    }

    #[cfg(test)]
    pub(super) fn encode_decoy(&mut self, length: usize) -> Vec<u8> {
        let mut packet = vec![0; OutboundCipher::encryption_buffer_len(length)];
        self.outbound
            .encrypt(&vec![7; length], &mut packet, PacketType::Decoy, None)
            .expect("long enough");
        packet
    }
}

/// The kind of a packet's contents, and the payload.
fn open(contents: Bytes) -> Received {
    let mut payload = contents;
    let Some(&id) = payload.first() else {
        return Received::Refused(Refusal::Command);
    };
    payload.advance(1);
    let kind = if id == 0 {
        let Some(kind) = payload.first_chunk::<COMMAND_BYTES>().map(Kind::of_command) else {
            return Received::Refused(Refusal::Command);
        };
        payload.advance(COMMAND_BYTES);
        kind
    } else {
        Some(Kind::of_id(id))
    };
    match kind {
        None => Received::Refused(Refusal::Command),
        Some(kind) if payload.len() > kind.max_bytes() => Received::breach(Refusal::Oversized),
        Some(kind) => Received::Message(kind, payload),
    }
}
