//! The UDP envelope: connection id, sequence number, frames and a MAC over all of them.
//!
//! The MAC keeps out whoever does not see the path: the key was given over TCP. It is no signature and hides
//! nothing. What this is not: it keeps no state, so it notices no replay; the engine does, by the sequence
//! number.

use super::codec::{NoRoom, Reader, Writer};
use super::error::WireError;
use super::messages::Message;
use super::{DATAGRAM_HEADER_LEN, MAC_LEN, MAX_DATAGRAM, MAX_FRAME_BODY, MIN_DATAGRAM};
use siphasher::sip::SipHasher24;
use std::fmt;
use std::hash::Hasher;
use std::hint::black_box;

/// The key under which one side receives datagrams, chosen by it at random and given in its BTVERSION.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MacKey([u8; 16]);

impl MacKey {
    /// The key of these bytes.
    pub const fn new(key: [u8; 16]) -> Self {
        Self(key)
    }

    /// The bytes, for BTVERSION.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// SipHash-2-4 of `conn_id (4 bytes LE) | seq (8 bytes LE) | frames`.
    pub fn mac(&self, conn_id: u32, seq: u64, frames: &[u8]) -> u64 {
        let mut head = [0; 12];
        let (first, second) = head.split_at_mut(4);
        first.copy_from_slice(&conn_id.to_le_bytes());
        second.copy_from_slice(&seq.to_le_bytes());
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(&head);
        hasher.write(frames);
        hasher.finish()
    }
}

impl fmt::Debug for MacKey {
    /// Does not show the key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MacKey(..)")
    }
}

/// The counter's value whose low half is `low` and that lies nearest to `highest`, the highest received so far
/// (0 if none was). A value can therefore come 2^31 datagrams late or early.
pub const fn expand_sequence(low: u32, highest: u64) -> u64 {
    let ahead = low.wrapping_sub(highest as u32);
    if ahead <= 1 << 31 {
        // Near the top of 64 bits, which takes longer than any connection.
        highest.wrapping_add(ahead as u64)
    } else {
        let behind = ahead.wrapping_neg() as u64;
        match highest.checked_sub(behind) {
            Some(value) => value,
            // Before the first datagram there is nothing to be late for.
            None => highest.wrapping_add(ahead as u64),
        }
    }
}

/// What stands in front of the frames, readable before the MAC is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which connection of the receiver.
    pub conn_id: u32,
    /// The low half of the sender's counter.
    pub seq_low: u32,
}

impl Header {
    /// The header of a datagram, `None` if its size is that of no datagram.
    pub fn peek(datagram: &[u8]) -> Option<Self> {
        if !(MIN_DATAGRAM..=usize::from(MAX_DATAGRAM)).contains(&datagram.len()) {
            return None;
        }
        let mut reader = Reader::new(datagram);
        Some(Self {
            conn_id: reader.u32().ok()?,
            seq_low: reader.u32().ok()?,
        })
    }
}

/// Checks the MAC of a datagram whose sequence number was expanded to `seq`, in constant time, and gives its
/// frames.
pub fn open<'a>(datagram: &'a [u8], seq: u64, key: &MacKey) -> Result<Frames<'a>, WireError> {
    let header = Header::peek(datagram).ok_or(WireError::DatagramSize)?;
    let (signed, mac) = datagram
        .split_last_chunk::<MAC_LEN>()
        .ok_or(WireError::DatagramSize)?;
    let (_, frames) = signed
        .split_at_checked(DATAGRAM_HEADER_LEN)
        .ok_or(WireError::DatagramSize)?;
    let wanted = key.mac(header.conn_id, seq, frames);
    if header.seq_low != seq as u32 || black_box(wanted ^ u64::from_le_bytes(*mac)) != 0 {
        return Err(WireError::BadMac);
    }
    Ok(Frames::new(frames))
}

/// The frames of a datagram as (type, body), for [`Message::decode`]. Ends after the first that is malformed.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    reader: Reader<'a>,
}

impl<'a> Frames<'a> {
    /// The frames in `bytes`, one after the other.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self {
            reader: Reader::new(bytes),
        }
    }

    fn read(&mut self) -> Result<(u8, &'a [u8]), WireError> {
        let message_type = self.reader.u8()?;
        let len = self.reader.compact_size()?;
        if len > MAX_FRAME_BODY as u64 {
            return Err(WireError::FrameTooLong);
        }
        Ok((message_type, self.reader.take(len as usize)?))
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<(u8, &'a [u8]), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let frame = self.read();
        if frame.is_err() {
            self.reader.take_rest();
        }
        Some(frame)
    }
}

/// Builds a datagram in the caller's buffer, whose length is the most that the datagram may have.
#[derive(Debug)]
pub struct DatagramBuilder<'a> {
    buffer: &'a mut [u8],
    conn_id: u32,
    seq: u64,
    /// Bytes of frames written so far.
    len: usize,
}

impl<'a> DatagramBuilder<'a> {
    /// An empty datagram to the connection that its receiver calls `conn_id`. In a buffer smaller than the
    /// envelope nothing has room.
    pub const fn new(buffer: &'a mut [u8], conn_id: u32, seq: u64) -> Self {
        Self {
            buffer,
            conn_id,
            seq,
            len: 0,
        }
    }

    /// Bytes that frames can still take.
    pub const fn remaining(&self) -> usize {
        self.capacity() - self.len
    }

    /// Whether no frame has been pushed.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the datagram if it were finished now.
    pub const fn datagram_len(&self) -> usize {
        DATAGRAM_HEADER_LEN + self.len + MAC_LEN
    }

    /// Adds a frame, or nothing if there is no room for it.
    pub fn push(&mut self, message: &Message<'_>) -> Result<(), NoRoom> {
        self.write(|writer| message.write_frame(writer))
    }

    /// Lets `write` add whole frames through a writer over the room that is left, as
    /// [`super::TxsWriter`] does. If it fails, what it wrote is taken back.
    pub fn write<T>(
        &mut self,
        write: impl FnOnce(&mut Writer<'_>) -> Result<T, NoRoom>,
    ) -> Result<T, NoRoom> {
        let (start, end) = (
            DATAGRAM_HEADER_LEN + self.len,
            DATAGRAM_HEADER_LEN + self.capacity(),
        );
        let mut writer = Writer::new(self.buffer.get_mut(start..end).ok_or(NoRoom)?);
        let result = write(&mut writer)?;
        self.len += writer.position();
        Ok(result)
    }

    /// Writes header and MAC and returns the length of the datagram; 0 if the buffer cannot hold even an
    /// empty one. A datagram without frames is refused by its receiver: see [`DatagramBuilder::is_empty`].
    pub fn finish(self, key: &MacKey) -> usize {
        let total = self.datagram_len();
        let Some(datagram) = self.buffer.get_mut(..total) else {
            return 0;
        };
        let (head, rest) = datagram.split_at_mut(DATAGRAM_HEADER_LEN);
        let (frames, tail) = rest.split_at_mut(self.len);
        let (conn_id, seq_low) = head.split_at_mut(4);
        conn_id.copy_from_slice(&self.conn_id.to_le_bytes());
        seq_low.copy_from_slice(&(self.seq as u32).to_le_bytes());
        tail.copy_from_slice(&key.mac(self.conn_id, self.seq, frames).to_le_bytes());
        total
    }

    const fn capacity(&self) -> usize {
        let len = if self.buffer.len() < MAX_DATAGRAM as usize {
            self.buffer.len()
        } else {
            MAX_DATAGRAM as usize
        };
        len.saturating_sub(DATAGRAM_HEADER_LEN + MAC_LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{JobRef, Ping, Pong, TxsWriter};
    use proptest::prelude::*;

    const KEY: MacKey = MacKey::new([7; 16]);

    fn built(conn_id: u32, seq: u64) -> Vec<u8> {
        let mut buffer = [0; 1200];
        let mut builder = DatagramBuilder::new(&mut buffer, conn_id, seq);
        builder
            .push(&Message::Ping(Ping {
                nonce: 5,
                padding: 2,
            }))
            .expect("room");
        builder
            .push(&Message::Pong(Pong {
                nonce: 6,
                bytes: 28,
            }))
            .expect("room");
        let len = builder.finish(&KEY);
        buffer.get(..len).expect("within the buffer").to_vec()
    }

    #[test]
    fn frames_come_out_as_they_went_in() {
        let datagram = built(0x0403_0201, 0x1_0000_0007);
        assert_eq!(datagram.get(..8), Some(&[1, 2, 3, 4, 7, 0, 0, 0][..]));
        let header = Header::peek(&datagram).expect("long enough");
        assert_eq!(
            header,
            Header {
                conn_id: 0x0403_0201,
                seq_low: 7
            }
        );
        let frames: Vec<_> = open(&datagram, 0x1_0000_0007, &KEY)
            .expect("authentic")
            .map(|frame| {
                frame
                    .and_then(|(kind, body)| Message::decode(kind, body))
                    .expect("valid")
            })
            .collect();
        assert_eq!(
            frames,
            [
                Some(Message::Ping(Ping {
                    nonce: 5,
                    padding: 2
                })),
                Some(Message::Pong(Pong {
                    nonce: 6,
                    bytes: 28
                }))
            ]
        );
        assert_eq!(open(&datagram, 7, &KEY).err(), Some(WireError::BadMac));
        assert_eq!(open(&datagram, 8, &KEY).err(), Some(WireError::BadMac));
        assert_eq!(
            open(&datagram, 0x1_0000_0007, &MacKey::new([8; 16])).err(),
            Some(WireError::BadMac)
        );
    }

    #[test]
    fn any_flipped_bit_and_any_lost_byte_is_noticed() {
        let datagram = built(9, 1);
        for bit in 0..datagram.len() * 8 {
            let mut altered = datagram.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let seq = expand_sequence(
                Header::peek(&altered).expect("as long as before").seq_low,
                0,
            );
            assert_eq!(
                open(&altered, seq, &KEY).err(),
                Some(WireError::BadMac),
                "bit {bit}"
            );
        }
        for len in 0..datagram.len() {
            assert!(open(&datagram[..len], 1, &KEY).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn sizes_that_no_datagram_has_are_refused() {
        assert_eq!(
            open(&[0; MIN_DATAGRAM - 1], 0, &KEY).err(),
            Some(WireError::DatagramSize)
        );
        assert_eq!(
            open(&vec![0; 65_508], 0, &KEY).err(),
            Some(WireError::DatagramSize)
        );
        assert_eq!(
            Header::peek(&vec![0; 65_507]),
            Some(Header {
                conn_id: 0,
                seq_low: 0
            })
        );
    }

    #[test]
    fn a_malformed_frame_ends_the_datagram() {
        let mut frames = Frames::new(&[0x22, 3, 1]);
        assert_eq!(frames.next(), Some(Err(WireError::Truncated)));
        assert_eq!(frames.next(), None);
        let mut frames = Frames::new(&[0x80, 1, 9, 0x22, 0xfd, 1, 0, 5]);
        assert_eq!(frames.next(), Some(Ok((0x80, &[9][..]))));
        assert_eq!(frames.next(), Some(Err(WireError::NonMinimalSize)));
        assert_eq!(frames.next(), None);
    }

    #[test]
    fn what_does_not_fit_leaves_no_trace() {
        let mut buffer = [0; DATAGRAM_HEADER_LEN + MAC_LEN + 14];
        let mut builder = DatagramBuilder::new(&mut buffer, 1, 1);
        assert_eq!(
            builder.push(&Message::Ping(Ping {
                nonce: 0,
                padding: 5
            })),
            Err(NoRoom)
        );
        assert!(builder.is_empty());
        assert_eq!(
            builder.push(&Message::Ping(Ping {
                nonce: 0,
                padding: 4
            })),
            Ok(())
        );
        assert_eq!(builder.remaining(), 0);
        let empty = builder.write(|writer| {
            TxsWriter::begin(writer, JobRef::of_sender(1), 0).map(TxsWriter::finish)
        });
        assert_eq!(empty, Err(NoRoom));
        assert_eq!(builder.finish(&KEY), 30);
        let mut tiny = [0; 15];
        let mut builder = DatagramBuilder::new(&mut tiny, 1, 1);
        assert_eq!(builder.push(&Message::GetAddr), Err(NoRoom));
        assert_eq!(builder.finish(&KEY), 0);
    }

    #[test]
    fn the_mac_is_siphash_2_4_of_its_parts() {
        // The last of the reference vectors: key 00..0f, message 00..3e; here split as 12 and 51 bytes.
        let key = MacKey::new(std::array::from_fn(|byte| byte as u8));
        let frames: Vec<u8> = (12..63).collect();
        let mac = key.mac(0x0302_0100, 0x0b0a_0908_0706_0504, &frames);
        assert_eq!(mac, 0x958a_324c_eb06_4572);
    }

    proptest! {
        #[test]
        fn a_sequence_number_expands_to_itself(highest in any::<u64>(), shift in 0u32..64, away in -0x7fff_ffffi64..0x8000_0000) {
            let highest = highest >> shift >> 1;
            let value = highest.saturating_add_signed(away);
            prop_assert_eq!(expand_sequence(value as u32, highest), value);
        }
    }
}
