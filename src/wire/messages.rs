//! The closed list of messages, and the frames that carry them.

use super::addresses::AddressList;
use super::codec::{NoRoom, Reader, Writer, compact_size_len};
use super::control::{
    CloseJob, Disconnect, EstimateBandwidth, OpenJob, ProbeReport, TestMtu, Version, VersionAck,
};
use super::data::{Cancel, GetHashes, GetTxs, JobState, Missing, Ping, Pong, RxReport};
use super::error::WireError;
use super::parameters::ParameterList;
use super::parity::Parity;
use super::payload::{Hashes, TxPart, Txs};
use super::structures::Body;
use super::{FIRST_OPTIONAL_TYPE, MAX_FRAME_BODY};

/// A message without fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Empty;

impl<'a> Body<'a> for Empty {
    fn decode(_: &mut Reader<'a>) -> Result<Self, WireError> {
        Ok(Self)
    }

    fn encode(&self, _: &mut Writer<'_>) -> Result<(), NoRoom> {
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        0
    }
}

/// Defines [`MessageType`] and [`Message`] from one table, so that no message can miss a part.
macro_rules! messages {
    (
        bodiless { $($(#[$empty_doc:meta])* $empty:ident = $empty_code:literal, $empty_name:literal, $empty_ride:literal;)* }
        $($(#[$doc:meta])* $name:ident($body:ty) = $code:literal, $wire_name:literal, $ride:literal;)*
    ) => {
        /// The type byte of a frame.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum MessageType {
            $($(#[$empty_doc])* $empty = $empty_code,)*
            $($(#[$doc])* $name = $code,)*
        }

        impl MessageType {
            /// Every type that version 1 defines.
            pub const ALL: &'static [Self] = &[$(Self::$empty,)* $(Self::$name,)*];

            /// The byte on the wire.
            pub const fn to_wire(self) -> u8 {
                self as u8
            }

            /// The type of a byte, if version 1 defines it.
            pub const fn from_wire(byte: u8) -> Option<Self> {
                match byte {
                    $($empty_code => Some(Self::$empty),)*
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The draft's name for it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$empty => $empty_name,)*
                    $(Self::$name => $wire_name,)*
                }
            }

            /// Whether it may come in a datagram; every type may come on the control stream.
            pub const fn may_ride_datagram(self) -> bool {
                match self {
                    $(Self::$empty => $empty_ride,)*
                    $(Self::$name => $ride,)*
                }
            }
        }

        /// A message, its parts borrowed from the bytes it was read from or is made of.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Message<'a> {
            $($(#[$empty_doc])* $empty,)*
            $($(#[$doc])* $name($body),)*
        }

        impl<'a> Message<'a> {
            /// The type of its frame.
            pub const fn message_type(&self) -> MessageType {
                match self {
                    $(Self::$empty => MessageType::$empty,)*
                    $(Self::$name(_) => MessageType::$name,)*
                }
            }

            fn decode_as(message_type: MessageType, reader: &mut Reader<'a>) -> Result<Self, WireError> {
                Ok(match message_type {
                    $(MessageType::$empty => {
                        Empty::decode(reader)?;
                        Self::$empty
                    })*
                    $(MessageType::$name => Self::$name(Body::decode(reader)?),)*
                })
            }

            /// Writes the body. If there is no room, the writer holds a part of it.
            pub fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
                match self {
                    $(Self::$empty => Empty.encode(writer),)*
                    $(Self::$name(body) => body.encode(writer),)*
                }
            }

            /// Bytes of the body.
            pub fn encoded_len(&self) -> usize {
                match self {
                    $(Self::$empty => Empty.encoded_len(),)*
                    $(Self::$name(body) => body.encoded_len(),)*
                }
            }
        }
    };
}

messages! {
    bodiless {
        /// BTGETADDR: asks for a BTADDR.
        GetAddr = 0x03, "BTGETADDR", false;
    }
    /// BTVERSION: who the sender is.
    Version(Version<'a>) = 0x01, "BTVERSION", false;
    /// BTVERACK: what was agreed.
    VersionAck(VersionAck) = 0x02, "BTVERACK", false;
    /// BTADDR: other nodes.
    Addr(AddressList<'a>) = 0x04, "BTADDR", false;
    /// DISCONNECT: the end, and why.
    Disconnect(Disconnect<'a>) = 0x05, "DISCONNECT", false;
    /// SET_PARAMS: the sender's parameters.
    SetParams(ParameterList<'a>) = 0x06, "SET_PARAMS", true;
    /// TEST_MTU: PINGs of one size are coming.
    TestMtu(TestMtu) = 0x07, "TEST_MTU", false;
    /// ESTIMATE_BANDWIDTH: paced PINGs are coming.
    EstimateBandwidth(EstimateBandwidth) = 0x08, "ESTIMATE_BANDWIDTH", false;
    /// PROBE_REPORT: how many of the PINGs came.
    ProbeReport(ProbeReport) = 0x09, "PROBE_REPORT", false;
    /// OPEN_JOB: a block is to be relayed.
    OpenJob(OpenJob<'a>) = 0x0a, "OPEN_JOB", true;
    /// CLOSE_JOB: nothing more of it.
    CloseJob(CloseJob) = 0x0b, "CLOSE_JOB", true;
    /// JOB_STATE: what the sender has verified.
    JobState(JobState<'a>) = 0x20, "JOB_STATE", true;
    /// JOB_STATE_ACK: a JOB_STATE, sent back.
    JobStateAck(JobState<'a>) = 0x21, "JOB_STATE_ACK", true;
    /// PING: asks for a PONG.
    Ping(Ping) = 0x22, "PING", true;
    /// PONG: the answer.
    Pong(Pong) = 0x23, "PONG", true;
    /// GET_HASHES: hashes are wanted.
    GetHashes(GetHashes<'a>) = 0x24, "GET_HASHES", true;
    /// HASHES: a lap.
    Hashes(Hashes<'a>) = 0x25, "HASHES", true;
    /// GET_TXS: transactions are wanted.
    GetTxs(GetTxs<'a>) = 0x26, "GET_TXS", true;
    /// TXS: whole transactions.
    Txs(Txs<'a>) = 0x27, "TXS", true;
    /// TX_PART: part of one.
    TxPart(TxPart<'a>) = 0x28, "TX_PART", true;
    /// MISSING: what will not be sent.
    Missing(Missing<'a>) = 0x29, "MISSING", true;
    /// CANCEL: what is no longer wanted.
    Cancel(Cancel<'a>) = 0x2a, "CANCEL", true;
    /// RX_REPORT: which datagrams came.
    RxReport(RxReport) = 0x2b, "RX_REPORT", true;
    /// PARITY: cells of an erasure code over what is pushed.
    Parity(Parity<'a>) = 0x2c, "PARITY", true;
}

impl<'a> Message<'a> {
    /// Reads the body of a frame. `None` is a frame of an optional type (0x80 and above) that this version does
    /// not know; an unknown type below is refused.
    pub fn decode(message_type: u8, body: &'a [u8]) -> Result<Option<Self>, WireError> {
        let Some(known) = MessageType::from_wire(message_type) else {
            return if message_type >= FIRST_OPTIONAL_TYPE {
                Ok(None)
            } else {
                Err(WireError::UnknownType)
            };
        };
        if body.len() > MAX_FRAME_BODY {
            return Err(WireError::FrameTooLong);
        }
        let mut reader = Reader::new(body);
        let message = Self::decode_as(known, &mut reader)?;
        reader.finish()?;
        Ok(Some(message))
    }

    /// Bytes of the whole frame: type, length, body.
    pub fn frame_len(&self) -> usize {
        let body = self.encoded_len();
        1 + compact_size_len(body as u64) + body
    }

    /// Writes the whole frame, or nothing if there is no room.
    pub fn write_frame(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        let body = self.encoded_len();
        if writer.remaining() < 1 + compact_size_len(body as u64) + body {
            return Err(NoRoom);
        }
        let before = writer.position();
        let written = self.write_parts(body, writer);
        if written.is_err() {
            writer.rewind(before);
        }
        written
    }

    fn write_parts(&self, body: usize, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.u8(self.message_type().to_wire())?;
        writer.compact_size(body as u64)?;
        self.encode(writer)
    }

    /// Appends the whole frame, for the control stream.
    pub fn append_frame(&self, stream: &mut Vec<u8>) {
        let before = stream.len();
        stream.resize(before + self.frame_len(), 0);
        let space = stream.get_mut(before..).unwrap_or_default();
        self.write_frame(&mut Writer::new(space))
            .expect("the space is as long as the frame");
    }
}
