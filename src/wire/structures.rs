//! The small fields that messages share: job references, trees, kinds and the codes of reasons.

use super::codec::{NoRoom, Reader, Writer};
use super::error::WireError;
use super::{FIRST_OPTIONAL_TYPE, MAX_JOB_ID, MAX_LEVEL, MAX_TEXT};

/// What every message's body can do. A body is decoded from the front of a reader; that nothing follows is
/// checked once, in [`super::Message::decode`].
pub(crate) trait Body<'a>: Sized {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError>;
    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom>;
    fn encoded_len(&self) -> usize;
}

/// Which side of a connection assigned a job id, as seen by the message that carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Whose {
    /// The side that sent this message.
    Sender,
    /// The side that received it.
    Receiver,
}

/// A job, named by the id that one of the two sides gave it in its OPEN_JOB.
///
/// On the wire a `u16`: the low fifteen bits are the id, bit 15 is set if the receiver of the message assigned
/// it. Both sides may have opened the same block under ids of their own; either names the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobRef {
    /// At most [`MAX_JOB_ID`]; bit 15 is dropped in encoding.
    pub id: u16,
    /// Who assigned it.
    pub whose: Whose,
}

impl JobRef {
    /// The job that the sender of the message calls `id`.
    pub const fn of_sender(id: u16) -> Self {
        Self {
            id,
            whose: Whose::Sender,
        }
    }

    /// The job that the receiver of the message calls `id`.
    pub const fn of_receiver(id: u16) -> Self {
        Self {
            id,
            whose: Whose::Receiver,
        }
    }

    /// The field as it is on the wire.
    pub const fn to_wire(self) -> u16 {
        let id = self.id & MAX_JOB_ID;
        match self.whose {
            Whose::Sender => id,
            Whose::Receiver => id | !MAX_JOB_ID,
        }
    }

    /// The reverse of [`JobRef::to_wire`]; every value has a meaning.
    pub const fn from_wire(field: u16) -> Self {
        let whose = if field & !MAX_JOB_ID == 0 {
            Whose::Sender
        } else {
            Whose::Receiver
        };
        Self {
            id: field & MAX_JOB_ID,
            whose,
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self::from_wire(reader.u16()?))
    }

    pub(crate) fn encode(self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.u16(self.to_wire())
    }
}

/// Which of a block's two trees a hash belongs to. Both have the same shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Tree {
    /// T: leaves are txids; its root is the header's.
    Txid = 0,
    /// W: leaves are wtxids (zero for the coinbase); the coinbase commits to its root. A block without a
    /// commitment has W = T.
    Witness = 1,
}

/// The `TF` byte of GET_HASHES and HASHES: bit 0 is the tree, bit 1 says that short ids are inside.
///
/// Short ids are those of wtxids, so bit 1 without bit 0 is refused.
pub(crate) fn decode_tree_flags(reader: &mut Reader<'_>) -> Result<(Tree, bool), WireError> {
    match reader.u8()? {
        0 => Ok((Tree::Txid, false)),
        1 => Ok((Tree::Witness, false)),
        2 => Err(WireError::ShortFlag),
        3 => Ok((Tree::Witness, true)),
        _ => Err(WireError::ReservedFlags),
    }
}

pub(crate) const fn tree_flags(tree: Tree, short: bool) -> u8 {
    tree as u8 | (short as u8) << 1
}

/// Defines an enumeration of one-byte codes with `to_wire` and `from_wire`.
macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $code:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$doc])* $variant = $code,)* }

        impl $name {
            /// The code on the wire.
            pub const fn to_wire(self) -> u8 {
                self as u8
            }

            /// The meaning of a code, if it has one.
            pub const fn from_wire(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }

            pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
                Self::from_wire(reader.u8()?).ok_or(WireError::UnknownCode)
            }
        }
    };
}

codes! {
    /// What JOB_STATE announces, and CANCEL takes back.
    Kind {
        /// Hashes of T.
        TxidHashes = 0,
        /// Hashes of W.
        WitnessHashes = 1,
        /// Transactions; the runs are at the level of the leaves.
        Transactions = 2,
    }
}

codes! {
    /// Why a job is closed.
    CloseReason {
        /// The sender has the whole block and needs nothing more.
        Done = 0,
        /// The block is too far behind the tip.
        Stale = 1,
        /// The block, not its relay, was found invalid.
        Invalid = 2,
        /// The sender knows no such job, or not the header's parent.
        Unknown = 3,
        /// The sender has no room for the job.
        Resources = 4,
    }
}

codes! {
    /// Why something asked for will not come.
    MissingReason {
        /// The sender does not know the job.
        Block = 0,
        /// The sender does not hold these nodes.
        Nodes = 1,
        /// The sender will not send them now; ask again later or elsewhere.
        Throttled = 2,
    }
}

codes! {
    /// What the code of a PARITY runs over.
    ParityKind {
        /// The first flight with short ids: the anchor's hashes and coinbase, and all short ids.
        Flight = 0,
        /// The first flight without short ids.
        Anchor = 1,
        /// The transactions after the coinbase, and their lengths.
        Transactions = 2,
    }
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DisconnectReason {
    /// None given.
    None,
    /// BTVERSION did not begin with the magic.
    BadMagic,
    /// The other side is on another Bitcoin network.
    Network,
    /// No version in common.
    Version,
    /// The connection leads to its own start.
    Oneself,
    /// Bytes that do not decode.
    Malformed,
    /// A frame type below 0x80 that is not known.
    UnknownMessage,
    /// The other side's score fell too low.
    Misbehaviour,
    /// No slot is free.
    TooManyPeers,
    /// The node is stopping.
    Shutdown,
    /// Nothing was heard for too long.
    Timeout,
    /// A message that may not come at this point.
    ProtocolOrder,
    /// There is a connection to the same node already.
    DuplicateConnection,
    /// A code that version 1 does not define (13 to 255).
    Other(u8),
}

impl DisconnectReason {
    const DEFINED: [Self; 13] = [
        Self::None,
        Self::BadMagic,
        Self::Network,
        Self::Version,
        Self::Oneself,
        Self::Malformed,
        Self::UnknownMessage,
        Self::Misbehaviour,
        Self::TooManyPeers,
        Self::Shutdown,
        Self::Timeout,
        Self::ProtocolOrder,
        Self::DuplicateConnection,
    ];

    /// What it means when a peer gives it, for logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "ended by the peer",
            Self::BadMagic => "the peer says: bad magic",
            Self::Network => "the peer says: other network",
            Self::Version => "the peer says: no common version",
            Self::Oneself => "the peer says: connected to oneself",
            Self::Malformed => "the peer says: malformed bytes",
            Self::UnknownMessage => "the peer says: unknown message",
            Self::Misbehaviour => "the peer says: misbehaviour",
            Self::TooManyPeers => "the peer says: too many peers",
            Self::Shutdown => "the peer is stopping",
            Self::Timeout => "the peer says: timed out",
            Self::ProtocolOrder => "the peer says: message out of order",
            Self::DuplicateConnection => "the peer says: second connection",
            Self::Other(_) => "ended by the peer for a reason that version 1 does not define",
        }
    }

    /// The code on the wire.
    pub fn to_wire(self) -> u8 {
        if let Self::Other(code) = self {
            return code;
        }
        Self::DEFINED
            .iter()
            .position(|known| *known == self)
            .map_or(0, |code| code as u8)
    }

    /// The meaning of a code; those not defined are kept as they are.
    pub fn from_wire(code: u8) -> Self {
        Self::DEFINED
            .get(usize::from(code))
            .copied()
            .unwrap_or(Self::Other(code))
    }
}

/// A level of its own byte: the two high bits zero, at most [`MAX_LEVEL`].
pub(crate) fn decode_level(reader: &mut Reader<'_>) -> Result<u8, WireError> {
    let level = reader.u8()?;
    if level > MAX_LEVEL {
        return Err(WireError::BadLevel);
    }
    Ok(level)
}

/// A CompactSize length and that many bytes of printable ASCII (0x20 to 0x7e), at most [`MAX_TEXT`].
pub(crate) fn decode_text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, WireError> {
    let len = reader.compact_size()?;
    if len > u64::from(MAX_TEXT) {
        return Err(WireError::BadText);
    }
    let bytes = reader.take(len as usize)?;
    if !bytes.iter().all(|byte| (0x20..=0x7e).contains(byte)) {
        return Err(WireError::BadText);
    }
    std::str::from_utf8(bytes).map_err(|_| WireError::BadText)
}

/// The part of `text` that a text field can carry: up to the limit, and to the first character that is not
/// printable ASCII.
pub(crate) fn clip_text(text: &str) -> &str {
    let allowed = text.bytes().take(MAX_TEXT as usize);
    let len = allowed
        .take_while(|byte| (0x20..=0x7e).contains(byte))
        .count();
    text.get(..len).unwrap_or_default()
}

pub(crate) fn encode_text(text: &str, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
    let text = clip_text(text);
    writer.u8(text.len() as u8)?;
    writer.bytes(text.as_bytes())
}

pub(crate) fn text_len(text: &str) -> usize {
    1 + clip_text(text).len()
}

const _: () = assert!(MAX_TEXT < 0xfd, "the length of a text is one byte");
const _: () = assert!(FIRST_OPTIONAL_TYPE == 0x80);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_reference_is_sixteen_bits_without_waste() {
        for field in 0..=u16::MAX {
            assert_eq!(JobRef::from_wire(field).to_wire(), field);
        }
        assert_eq!(JobRef::of_receiver(1).to_wire(), 0x8001);
        assert_eq!(JobRef::of_sender(0x8001).to_wire(), 1);
    }

    #[test]
    fn every_disconnect_code_survives() {
        for code in 0..=u8::MAX {
            assert_eq!(DisconnectReason::from_wire(code).to_wire(), code);
        }
        assert_eq!(DisconnectReason::DuplicateConnection.to_wire(), 12);
        assert_eq!(DisconnectReason::from_wire(13), DisconnectReason::Other(13));
    }

    #[test]
    fn codes_without_meaning_are_none() {
        assert_eq!(Kind::from_wire(3), None);
        assert_eq!(CloseReason::from_wire(5), None);
        assert_eq!(MissingReason::from_wire(2), Some(MissingReason::Throttled));
    }

    #[test]
    fn text_is_printable_ascii() {
        assert_eq!(decode_text(&mut Reader::new(b"\x02hi")), Ok("hi"));
        assert_eq!(
            decode_text(&mut Reader::new(b"\x02h\n")),
            Err(WireError::BadText)
        );
        assert_eq!(
            decode_text(&mut Reader::new(&[65; 66])),
            Err(WireError::BadText)
        );
        assert_eq!(clip_text("ab\u{e9}c"), "ab");
        assert_eq!(clip_text(&"x".repeat(99)).len(), 64);
    }
}
