//! Messages about a job: what is held, wanted, missing; and the path's: PING, PONG, the receive report.
//!
//! They travel by datagram, or by the control stream where UDP is blocked.

use super::codec::{NoRoom, Reader, Writer};
use super::error::WireError;
use super::hashless::HashlessWorkout;
use super::structures::{
    Body, JobRef, Kind, MissingReason, Tree, decode_level, decode_tree_flags, tree_flags,
};
use super::{MAX_REPORT_WORDS, MIN_PING_PADDING, MessageType};

/// JOB_STATE (0x20): `u16 job | u8 kind | HASHLESS WORKOUT`, what the sender has verified; and JOB_STATE_ACK
/// (0x21), the same body sent back. An empty workout says that the job is known and nothing is held yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobState<'a> {
    /// The job.
    pub job: JobRef,
    /// Hashes of which tree, or transactions.
    pub kind: Kind,
    /// The nodes.
    pub nodes: HashlessWorkout<'a>,
}

impl<'a> Body<'a> for JobState<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        Ok(Self {
            job: JobRef::decode(reader)?,
            kind: Kind::decode(reader)?,
            nodes: HashlessWorkout::decode(reader)?,
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        self.job.encode(writer)?;
        writer.u8(self.kind.to_wire())?;
        self.nodes.encode(writer)
    }

    fn encoded_len(&self) -> usize {
        3 + self.nodes.encoded_len()
    }
}

/// PING (0x22): `u64 nonce | zeros, at least two`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Comes back in the PONG.
    pub nonce: u64,
    /// Bytes of zero after the nonce, at least 2 (fewer are made 2).
    pub padding: u16,
}

impl Ping {
    /// The PING whose whole frame takes exactly `frame_len` bytes. None for those below 12, for 255 and 256
    /// (where the length of the body grows by two bytes), and above 65,535.
    pub fn filling(nonce: u64, frame_len: usize) -> Option<Self> {
        let body = frame_len.checked_sub(2).filter(|body| *body < 0xfd);
        let long = frame_len.checked_sub(4).filter(|body| *body >= 0xfd);
        let padding = body
            .or(long)?
            .checked_sub(8)
            .filter(|padding| *padding >= MIN_PING_PADDING)?;
        Some(Self {
            nonce,
            padding: u16::try_from(padding).ok()?,
        })
    }

    fn padding_len(&self) -> usize {
        usize::from(self.padding).max(MIN_PING_PADDING)
    }
}

impl<'a> Body<'a> for Ping {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let nonce = reader.u64()?;
        let padding = reader.take_rest();
        // Folding instead of stopping at the first lets the compiler take sixteen bytes at a time.
        if padding.len() < MIN_PING_PADDING || padding.iter().fold(0, |all, byte| all | byte) != 0 {
            return Err(WireError::BadPadding);
        }
        let padding = u16::try_from(padding.len()).map_err(|_| WireError::BadPadding)?;
        Ok(Self { nonce, padding })
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.u64(self.nonce)?;
        writer.zeros(self.padding_len())
    }

    fn encoded_len(&self) -> usize {
        8 + self.padding_len()
    }
}

/// PONG (0x23): `u64 nonce | u16 bytes`, the answer to a PING, never longer than it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong {
    /// That of the PING.
    pub nonce: u64,
    /// The size of the datagram that brought it; 0 if it came by the control stream.
    pub bytes: u16,
}

impl<'a> Body<'a> for Pong {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        Ok(Self {
            nonce: reader.u64()?,
            bytes: reader.u16()?,
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.u64(self.nonce)?;
        writer.u16(self.bytes)
    }

    fn encoded_len(&self) -> usize {
        10
    }
}

/// GET_HASHES (0x24): `u16 job | u8 TF | u8 around | HASHLESS WORKOUT` of at least one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetHashes<'a> {
    /// The job.
    pub job: JobRef,
    /// Of which tree.
    pub tree: Tree,
    /// Whether leaves may come as short ids; only of W.
    pub short: bool,
    /// The level whose nodes the requester has verified, so that laps around them will do; 0 is the root.
    pub around: u8,
    /// The nodes wanted.
    pub nodes: HashlessWorkout<'a>,
}

impl<'a> Body<'a> for GetHashes<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let job = JobRef::decode(reader)?;
        let (tree, short) = decode_tree_flags(reader)?;
        let around = decode_level(reader)?;
        Ok(Self {
            job,
            tree,
            short,
            around,
            nodes: HashlessWorkout::decode_some(reader)?,
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        self.job.encode(writer)?;
        writer.u8(tree_flags(self.tree, self.short))?;
        writer.u8(self.around)?;
        self.nodes.encode(writer)
    }

    fn encoded_len(&self) -> usize {
        4 + self.nodes.encoded_len()
    }
}

/// GET_TXS (0x26): `u16 job | HASHLESS WORKOUT` of at least one run, at the level of the leaves.
///
/// A standing wish: sent now if held, else once verified, until CANCEL or CLOSE_JOB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetTxs<'a> {
    /// The job.
    pub job: JobRef,
    /// The transactions wanted.
    pub nodes: HashlessWorkout<'a>,
}

impl<'a> Body<'a> for GetTxs<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        Ok(Self {
            job: JobRef::decode(reader)?,
            nodes: HashlessWorkout::decode_some(reader)?,
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        self.job.encode(writer)?;
        self.nodes.encode(writer)
    }

    fn encoded_len(&self) -> usize {
        2 + self.nodes.encoded_len()
    }
}

/// MISSING (0x29): `u16 job | u8 reason | u8 type | HASHLESS WORKOUT`, what will not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing<'a> {
    /// The job, as the request named it, but seen from this message's sender.
    pub job: JobRef,
    /// Why.
    pub reason: MissingReason,
    /// Whether hashes (GET_HASHES) or transactions (GET_TXS) were asked for.
    pub request: MessageType,
    /// Which nodes; may be empty if the job is not known.
    pub nodes: HashlessWorkout<'a>,
}

impl<'a> Body<'a> for Missing<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let job = JobRef::decode(reader)?;
        let reason = MissingReason::decode(reader)?;
        let request = match MessageType::from_wire(reader.u8()?) {
            Some(request @ (MessageType::GetHashes | MessageType::GetTxs)) => request,
            _ => return Err(WireError::UnknownCode),
        };
        let nodes = HashlessWorkout::decode(reader)?;
        Ok(Self {
            job,
            reason,
            request,
            nodes,
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        self.job.encode(writer)?;
        writer.u8(self.reason.to_wire())?;
        writer.u8(self.request.to_wire())?;
        self.nodes.encode(writer)
    }

    fn encoded_len(&self) -> usize {
        4 + self.nodes.encoded_len()
    }
}

/// CANCEL (0x2a): `u16 job | u8 kind | HASHLESS WORKOUT` of at least one run, what is no longer wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancel<'a> {
    /// The job.
    pub job: JobRef,
    /// Hashes of which tree, or transactions.
    pub kind: Kind,
    /// Which nodes.
    pub nodes: HashlessWorkout<'a>,
}

impl<'a> Body<'a> for Cancel<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        Ok(Self {
            job: JobRef::decode(reader)?,
            kind: Kind::decode(reader)?,
            nodes: HashlessWorkout::decode_some(reader)?,
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        self.job.encode(writer)?;
        writer.u8(self.kind.to_wire())?;
        self.nodes.encode(writer)
    }

    fn encoded_len(&self) -> usize {
        3 + self.nodes.encoded_len()
    }
}

/// RX_REPORT (0x2b): `u32 highest | u32 delay_us | CompactSize words (1 to 4) | words x u64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxReport {
    /// The low half of the highest sequence number received.
    pub highest: u32,
    /// Microseconds from its arrival to this report.
    pub delay_us: u32,
    words: u8,
    received: [u64; MAX_REPORT_WORDS],
}

impl RxReport {
    /// A report; bit `k` of word `w` says that `highest - 1 - 64 w - k` was received. Words beyond the fourth
    /// are left out; without any, one of zero is sent.
    pub fn new(highest: u32, delay_us: u32, received: &[u64]) -> Self {
        let mut words = [0; MAX_REPORT_WORDS];
        for (to, from) in words.iter_mut().zip(received) {
            *to = *from;
        }
        let count = received.len().clamp(1, MAX_REPORT_WORDS) as u8;
        Self {
            highest,
            delay_us,
            words: count,
            received: words,
        }
    }

    /// The words, one to four.
    pub fn received(&self) -> &[u64] {
        self.received
            .get(..usize::from(self.words))
            .unwrap_or_default()
    }
}

impl<'a> Body<'a> for RxReport {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let highest = reader.u32()?;
        let delay_us = reader.u32()?;
        let count = reader.compact_size()?;
        if count == 0 || count > MAX_REPORT_WORDS as u64 {
            return Err(WireError::ReportWords);
        }
        let mut received = [0; MAX_REPORT_WORDS];
        for word in received.iter_mut().take(count as usize) {
            *word = reader.u64()?;
        }
        Ok(Self {
            highest,
            delay_us,
            words: count as u8,
            received,
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.u32(self.highest)?;
        writer.u32(self.delay_us)?;
        writer.u8(self.words)?;
        self.received()
            .iter()
            .try_for_each(|word| writer.u64(*word))
    }

    fn encoded_len(&self) -> usize {
        9 + 8 * self.received().len()
    }
}
