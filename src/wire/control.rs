//! Messages of the control stream: handshake, probes, jobs opened and closed.
//!
//! Some of them travel by datagram too: see [`super::MessageType::may_ride_datagram`].

use super::codec::{NoRoom, Reader, Writer, compact_size_len};
use super::error::WireError;
use super::parameters::ParameterList;
use super::structures::{
    Body, CloseReason, DisconnectReason, JobRef, Whose, decode_text, encode_text, text_len,
};
use super::{
    DEFAULT_MAX_DATAGRAM, MAGIC, MAX_BANDWIDTH_PINGS, MAX_DATAGRAM, MAX_MTU_PINGS,
    MIN_PROBE_DATAGRAM,
};
use crate::merkle::{Hash, MAX_LEAVES};

/// BTVERSION (0x01), the first message of either side.
///
/// ```text
/// u32 magic "BTor" | u32 network | u16 vmin | u16 vmax | u64 features | u64 nonce | u32 conn_id
///   | 16 bytes mac_key | u16 udp_port | u16 max_datagram | 32 bytes tip | SET_PARAMS body
///   | CompactSize len <= 64, agent
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version<'a> {
    /// The magic of the Bitcoin network's P2P messages, read as little-endian.
    pub network: u32,
    /// The lowest version that the sender speaks.
    pub version_min: u16,
    /// The highest, not below the lowest.
    pub version_max: u16,
    /// One bit for each optional feature that the sender has; unknown bits are ignored.
    pub features: u64,
    /// Random, to notice a connection to oneself.
    pub nonce: u64,
    /// What the datagrams sent to the sender of this message begin with.
    pub conn_id: u32,
    /// The key of the MAC in datagrams sent to the sender of this message.
    pub mac_key: &'a [u8; 16],
    /// Where it receives datagrams; 0 if it does not.
    pub udp_port: u16,
    /// The largest datagram it takes, 1,200 to 65,507 bytes.
    pub max_datagram: u16,
    /// The hash of its best block's header, in the order it was hashed in.
    pub tip: &'a Hash,
    /// Its parameters, as in SET_PARAMS.
    pub parameters: ParameterList<'a>,
    /// Name and version of the program: printable ASCII, at most 64 bytes (what is beyond is not sent).
    pub agent: &'a str,
}

impl<'a> Body<'a> for Version<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        if reader.u32()? != MAGIC {
            return Err(WireError::BadMagic);
        }
        let version = Self {
            network: reader.u32()?,
            version_min: reader.u16()?,
            version_max: reader.u16()?,
            features: reader.u64()?,
            nonce: reader.u64()?,
            conn_id: reader.u32()?,
            mac_key: reader.array()?,
            udp_port: reader.u16()?,
            max_datagram: reader.u16()?,
            tip: reader.array()?,
            parameters: ParameterList::decode(reader)?,
            agent: decode_text(reader)?,
        };
        if version.version_min > version.version_max {
            return Err(WireError::VersionRange);
        }
        if !(DEFAULT_MAX_DATAGRAM..=MAX_DATAGRAM).contains(&version.max_datagram) {
            return Err(WireError::BadDatagramSize);
        }
        Ok(version)
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.u32(MAGIC)?;
        writer.u32(self.network)?;
        writer.u16(self.version_min)?;
        writer.u16(self.version_max)?;
        writer.u64(self.features)?;
        writer.u64(self.nonce)?;
        writer.u32(self.conn_id)?;
        writer.bytes(self.mac_key)?;
        writer.u16(self.udp_port)?;
        writer.u16(self.max_datagram)?;
        writer.bytes(self.tip)?;
        self.parameters.encode(writer)?;
        encode_text(self.agent, writer)
    }

    fn encoded_len(&self) -> usize {
        const FIXED: usize = 4 + 4 + 2 + 2 + 8 + 8 + 4 + 16 + 2 + 2 + 32;
        FIXED + self.parameters.encoded_len() + text_len(self.agent)
    }
}

/// BTVERACK (0x02): `u16 version | u64 features`, the version chosen and the features in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionAck {
    /// The highest version that both speak.
    pub version: u16,
    /// The features that both have.
    pub features: u64,
}

impl<'a> Body<'a> for VersionAck {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        Ok(Self {
            version: reader.u16()?,
            features: reader.u64()?,
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.u16(self.version)?;
        writer.u64(self.features)
    }

    fn encoded_len(&self) -> usize {
        10
    }
}

/// DISCONNECT (0x05): `u8 reason | CompactSize len <= 64, text`, the last message of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Why.
    pub reason: DisconnectReason,
    /// For a log: printable ASCII, at most 64 bytes (what is beyond is not sent).
    pub text: &'a str,
}

impl<'a> Body<'a> for Disconnect<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        Ok(Self {
            reason: DisconnectReason::from_wire(reader.u8()?),
            text: decode_text(reader)?,
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.u8(self.reason.to_wire())?;
        encode_text(self.text, writer)
    }

    fn encoded_len(&self) -> usize {
        1 + text_len(self.text)
    }
}

/// A datagram size that probes may have.
fn decode_probe_size(reader: &mut Reader<'_>) -> Result<u16, WireError> {
    let size = reader.u16()?;
    if !(MIN_PROBE_DATAGRAM..=MAX_DATAGRAM).contains(&size) {
        return Err(WireError::BadDatagramSize);
    }
    Ok(size)
}

/// TEST_MTU (0x07): `u64 nonce | u16 size | u8 count`. The sender announces `count` PINGs with this nonce, in
/// datagrams of exactly `size` bytes; PROBE_REPORT says how many came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestMtu {
    /// What the PINGs carry.
    pub nonce: u64,
    /// Bytes of each datagram, 28 to 65,507.
    pub size: u16,
    /// How many, 1 to 16.
    pub count: u8,
}

impl<'a> Body<'a> for TestMtu {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let probe = Self {
            nonce: reader.u64()?,
            size: decode_probe_size(reader)?,
            count: reader.u8()?,
        };
        if !(1..=MAX_MTU_PINGS).contains(&probe.count) {
            return Err(WireError::ProbeCount);
        }
        Ok(probe)
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.u64(self.nonce)?;
        writer.u16(self.size)?;
        writer.u8(self.count)
    }

    fn encoded_len(&self) -> usize {
        11
    }
}

/// ESTIMATE_BANDWIDTH (0x08): `u64 nonce | u16 size | u16 count | u32 gap_us`. The sender announces `count`
/// PINGs with this nonce, in datagrams of exactly `size` bytes, one each `gap_us`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EstimateBandwidth {
    /// What the PINGs carry.
    pub nonce: u64,
    /// Bytes of each datagram, 28 to 65,507.
    pub size: u16,
    /// How many, 1 to 512.
    pub count: u16,
    /// Microseconds from one to the next; 0 is back to back.
    pub gap_us: u32,
}

impl<'a> Body<'a> for EstimateBandwidth {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let probe = Self {
            nonce: reader.u64()?,
            size: decode_probe_size(reader)?,
            count: reader.u16()?,
            gap_us: reader.u32()?,
        };
        if !(1..=MAX_BANDWIDTH_PINGS).contains(&probe.count) {
            return Err(WireError::ProbeCount);
        }
        Ok(probe)
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.u64(self.nonce)?;
        writer.u16(self.size)?;
        writer.u16(self.count)?;
        writer.u32(self.gap_us)
    }

    fn encoded_len(&self) -> usize {
        16
    }
}

/// PROBE_REPORT (0x09): `u64 nonce | u16 received | u16 largest | u32 first_to_last_us`, the answer to TEST_MTU
/// and ESTIMATE_BANDWIDTH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// That of the probe.
    pub nonce: u64,
    /// How many PINGs with it came.
    pub received: u16,
    /// Bytes of the largest datagram among those that brought them; 0 if none came.
    pub largest: u16,
    /// Microseconds between the first and the last of them.
    pub first_to_last_us: u32,
}

impl<'a> Body<'a> for ProbeReport {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        Ok(Self {
            nonce: reader.u64()?,
            received: reader.u16()?,
            largest: reader.u16()?,
            first_to_last_us: reader.u32()?,
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.u64(self.nonce)?;
        writer.u16(self.received)?;
        writer.u16(self.largest)?;
        writer.u32(self.first_to_last_us)
    }

    fn encoded_len(&self) -> usize {
        16
    }
}

/// The flags of OPEN_JOB that have a meaning.
const OPEN_JOB_FLAGS: u8 = 0b11;

/// OPEN_JOB (0x0a): a block is to be relayed under an id of the sender's.
///
/// ```text
/// u16 job (bit 15 clear) | u8 flags | CompactSize count | CompactSize block_bytes | u64 nonce | 80 bytes header
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenJob<'a> {
    /// The id that the sender gives to the job, at most 0x7fff.
    pub job: u16,
    /// Bit 0: the coinbase carries a witness commitment.
    pub has_commitment: bool,
    /// Bit 1: the sender has the whole block.
    pub sender_has_all: bool,
    /// How many transactions the block has, 1 to 2^24. A hint until it is proven.
    pub count: u32,
    /// Bytes of the whole block as serialized. A hint; bounds what the receiver will hold.
    pub block_bytes: u32,
    /// The nonce of the short ids, beside the header (BIP152).
    pub nonce: u64,
    /// The block's header.
    pub header: &'a [u8; 80],
}

impl OpenJob<'_> {
    /// The job as later messages of the same sender refer to it.
    pub const fn job_ref(&self) -> JobRef {
        JobRef::of_sender(self.job)
    }
}

impl<'a> Body<'a> for OpenJob<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let job = JobRef::decode(reader)?;
        if job.whose != Whose::Sender {
            return Err(WireError::BadJob);
        }
        let flags = reader.u8()?;
        if flags & !OPEN_JOB_FLAGS != 0 {
            return Err(WireError::ReservedFlags);
        }
        let count = reader.compact_u32()?;
        if !(1..=MAX_LEAVES).contains(&count) {
            return Err(WireError::LeafCount);
        }
        Ok(Self {
            job: job.id,
            has_commitment: flags & 1 != 0,
            sender_has_all: flags & 2 != 0,
            count,
            block_bytes: reader.compact_u32()?,
            nonce: reader.u64()?,
            header: reader.array()?,
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        self.job_ref().encode(writer)?;
        writer.u8(u8::from(self.has_commitment) | u8::from(self.sender_has_all) << 1)?;
        writer.compact_size(u64::from(self.count))?;
        writer.compact_size(u64::from(self.block_bytes))?;
        writer.u64(self.nonce)?;
        writer.bytes(self.header)
    }

    fn encoded_len(&self) -> usize {
        const FIXED: usize = 2 + 1 + 8 + 80;
        FIXED
            + compact_size_len(u64::from(self.count))
            + compact_size_len(u64::from(self.block_bytes))
    }
}

/// CLOSE_JOB (0x0b): `u16 job | u8 reason`. The sender takes and gives nothing more for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseJob {
    /// Which, by either side's id.
    pub job: JobRef,
    /// Why.
    pub reason: CloseReason,
}

impl<'a> Body<'a> for CloseJob {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        Ok(Self {
            job: JobRef::decode(reader)?,
            reason: CloseReason::decode(reader)?,
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        self.job.encode(writer)?;
        writer.u8(self.reason.to_wire())
    }

    fn encoded_len(&self) -> usize {
        3
    }
}
