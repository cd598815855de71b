//! Every structure and message of the protocol, as bytes.
//!
//! Reading borrows from the bytes that arrived and allocates nothing; writing goes straight into the
//! caller's buffer. Every decoder takes canonical encodings only: if `decode(x)` gives a message, then
//! encoding that message gives `x` again. What this is not: it knows nothing of a block's size, of what
//! was asked for or of who may say what; whether a run exists in a tree is for [`crate::merkle`], whether
//! it was wanted for the engine.
//!
//! # Where things are
//!
//! - [`codec`]: a reader and a writer of integers, CompactSize and byte strings
//! - [`datagram`]: the UDP envelope: connection id, sequence number, frames, MAC
//! - [`framing`]: the TCP stream of frames, as a push decoder
//! - [`messages`]: [`Message`], the closed list of what a frame can hold; [`control`], [`data`], [`payload`] and [`parity`]
//!   hold the messages themselves, [`parameters`] and [`addresses`] the lists inside two of them
//! - [`structures`]: level, direction, job reference and the other small fields
//! - [`hashseq`], [`lap`], [`hashless`]: the draft's structures: hash sequence, run, workout, lap, and the
//!   workouts without hashes; [`ranges`] builds the latter from ranges
//! - [`writers`]: frames built piece by piece into the room that a datagram has left
//!
//! # A datagram
//!
//! ```text
//!  0        4        8                                   len-8      len
//!  +--------+--------+-----------------------------------+----------+
//!  | conn_id| seq    | frame | frame | ...               | MAC      |
//!  | u32 LE | u32 LE | u8 type, CompactSize len, body    | u64 LE   |
//!  +--------+--------+-----------------------------------+----------+
//! ```
//!
//! `conn_id` was chosen by the receiver. `seq` is the low half of a counter of 64 bits whose first value is
//! 1; a counter of 16 bits would wrap three times a second at 2 Gbit/s, so that neither replays nor the
//! receive report could tell one lap of it from the next. The receiver expands it to the value nearest to
//! the highest it has seen ([`datagram::expand_sequence`]). `MAC` is SipHash-2-4 of
//! `conn_id LE | full seq LE (8 bytes) | frames` under the key that the receiver gave in BTVERSION.
//!
//! # The control stream
//!
//! The same frames, one after the other, without envelope; at most [`MAX_FRAME_BODY`] bytes of body.
//!
//! # Structures
//!
//! ```text
//! LEVELDIR      u8: direction << 6 | level       00 flat, 01 down, 10 up, 11 bitmap (hashless only)
//! SEQUENCE      CompactSize COUNT >= 1 | u8 DEFAULT_SIZE | CompactSize EXCEPTIONS < COUNT
//!               | EXCEPTIONS x (CompactSize NEXT >= 1, u8 SIZE) | hashes
//! RUN           LEVELDIR | CompactSize START | SEQUENCE            START is the deepest node
//! WORKOUT       CompactSize COUNT | COUNT x RUN
//! LAP           u8 LEVEL | CompactSize INDEX | WORKOUT             at most one DOWN, FLAT, UP, in this order
//! HASHLESS RUN  LEVELDIR | CompactSize START | CompactSize COUNT >= 1 [| bitmap, ceil(COUNT / 8) bytes]
//! HASHLESS WORKOUT  CompactSize COUNT | COUNT x HASHLESS RUN
//! JOB           u16 LE: bit 15 clear: an id that the message's sender assigned; set: its receiver
//! ```
//!
//! Integers are little-endian, CompactSize is minimal, nothing may follow the last field of a body.

pub mod addresses;
pub mod codec;
pub mod control;
pub mod data;
pub mod datagram;
pub mod error;
pub mod framing;
pub mod hashless;
pub mod hashseq;
pub mod lap;
pub mod messages;
pub mod parameters;
pub mod parity;
pub mod payload;
pub mod ranges;
pub mod structures;
pub mod writers;

pub use addresses::{AddressList, NetworkAddress, PeerAddress};
pub use codec::{NoRoom, Reader, Writer, compact_size_len};
pub use control::{
    CloseJob, Disconnect, EstimateBandwidth, OpenJob, ProbeReport, TestMtu, Version, VersionAck,
};
pub use data::{Cancel, GetHashes, GetTxs, JobState, Missing, Ping, Pong, RxReport};
pub use datagram::{DatagramBuilder, Frames, MacKey, expand_sequence};
pub use error::WireError;
pub use framing::ControlDecoder;
pub use hashless::{HashlessRun, HashlessWorkout, Shape};
pub use hashseq::{HashEntry, HashSequence, ShortEntry};
pub use lap::{WireLap, WireRun, Workout};
pub use messages::{Message, MessageType};
pub use parameters::{Parameter, ParameterList, Parameters};
pub use parity::Parity;
pub use payload::{Hashes, TxList, TxPart, Txs};
pub use ranges::{HashlessRuns, ranges_of_words};
pub use structures::{
    CloseReason, DisconnectReason, JobRef, Kind, MissingReason, ParityKind, Tree, Whose,
};
pub use writers::TxsWriter;

/// The version of the protocol that this code speaks, the only one there is.
pub const PROTOCOL_VERSION: u16 = 1;

/// The first four bytes of a BTVERSION body: "BTor".
pub const MAGIC: u32 = u32::from_le_bytes(*b"BTor");

/// What a datagram may measure before TEST_MTU has proven more: fits IPv6's smallest path (1,280 bytes less
/// 48 of IPv6 and UDP headers) with room for a tunnel, as QUIC's initial packets do (RFC 9000, 14.1).
pub const DEFAULT_MAX_DATAGRAM: u16 = 1_200;

/// The largest datagram there can be: what UDP over IPv4 carries (65,535 less 28 bytes of headers).
pub const MAX_DATAGRAM: u16 = 65_507;

/// Bytes of a datagram before its frames: connection id and sequence number.
pub const DATAGRAM_HEADER_LEN: usize = 8;

/// Bytes of a datagram after its frames.
pub const MAC_LEN: usize = 8;

/// Bytes of a datagram that are not frames.
pub const DATAGRAM_OVERHEAD: usize = DATAGRAM_HEADER_LEN + MAC_LEN;

/// The smallest datagram: the envelope and one frame with an empty body.
pub const MIN_DATAGRAM: usize = DATAGRAM_OVERHEAD + 2;

/// The smallest datagram that holds a PING, hence the smallest that TEST_MTU and ESTIMATE_BANDWIDTH name.
pub const MIN_PROBE_DATAGRAM: u16 =
    (DATAGRAM_OVERHEAD + 2 + PING_NONCE_LEN + MIN_PING_PADDING) as u16;

/// Bytes of a PING's nonce.
pub const PING_NONCE_LEN: usize = 8;

/// The least padding of a PING: the PONG adds two bytes to the nonce and must not be the larger of the two,
/// lest a forged source address turn the answer into an amplifier.
pub const MIN_PING_PADDING: usize = 2;

/// The largest body of a frame on the control stream: one datagram's worth, so that whatever travels by UDP
/// can travel by TCP when UDP is blocked; it bounds what one peer makes us buffer.
pub const MAX_FRAME_BODY: usize = 65_536;

/// The longest frame header: type, and a CompactSize of five bytes, which only [`MAX_FRAME_BODY`] needs.
pub const MAX_FRAME_HEADER: usize = 6;

/// The deepest level of a tree: 2^24 leaves ([`crate::merkle::MAX_LEAVES`]).
pub const MAX_LEVEL: u8 = 24;

/// The most runs in one workout: 2.6 times what a default datagram holds of the shortest (three bytes), so
/// that the work behind one large datagram stays near that of a small one.
pub const MAX_RUNS: u32 = 1_024;

/// The most runs in a lap: any range of nodes is proven by one to the left, the range, one to the right.
pub const MAX_LAP_RUNS: u32 = 3;

/// The most transactions in one TXS frame: what a body of [`MAX_FRAME_BODY`] holds of the shortest real
/// ones (60 bytes), rounded up; a bound for loops over a hostile frame of one-byte transactions.
pub const MAX_TXS: u32 = 1_100;

/// The grid of TX_PART: a part begins at a multiple of this many bytes of the transaction. With the largest
/// headers (16 of envelope, 4 of frame, 17 of fields) one cell still fits the default datagram of 1,200.
pub const CELL: u32 = 1_152;

/// The most addresses in one BTADDR: ten times what a node needs of peers; 5.1 kB at most.
pub const MAX_ADDRESSES: u32 = 100;

/// The most parameters in one SET_PARAMS: four times what version 1 defines.
pub const MAX_PARAMETERS: u32 = 32;

/// The longest text (user agent, reason for a disconnect), in bytes: one line of a log.
pub const MAX_TEXT: u32 = 64;

/// The most PINGs one TEST_MTU announces: enough to tell loss from refusal at 30% loss (0.3^16 < 10^-8).
pub const MAX_MTU_PINGS: u8 = 16;

/// The most PINGs one ESTIMATE_BANDWIDTH announces: 512 datagrams of 1,200 bytes are 600 kB, about 100 ms at
/// 50 Mbit/s: longer would crowd out blocks.
pub const MAX_BANDWIDTH_PINGS: u16 = 512;

/// The most words in one RX_REPORT: 256 datagrams, about 5 ms at 500 Mbit/s, between two reports.
pub const MAX_REPORT_WORDS: usize = 4;

/// The most cells of parity that any code has: those over the largest string that is coded, of 32 MiB. Half of what a
/// code over GF(2^16) could have, the other half being its data.
pub const MAX_PARITY_CELLS: u32 = 32_768;

/// The largest job id: bit 15 says whose it is.
pub const MAX_JOB_ID: u16 = 0x7fff;

/// The size of a short id unless something else is said: 48 bits as in BIP152.
pub const DEFAULT_SHORT_SIZE: u8 = 6;

/// The sizes that a short id may have, in bytes. Below 4 a mempool of 300,000 would collide all the time;
/// 9 to 31 are reserved.
pub const SHORT_SIZES: std::ops::RangeInclusive<u8> = 4..=8;

/// The size of a whole hash, in bytes.
pub const FULL_SIZE: u8 = 32;

/// Frame types from here on may be skipped by who does not know them.
pub const FIRST_OPTIONAL_TYPE: u8 = 0x80;

const _: () = {
    assert!(DATAGRAM_OVERHEAD == 16);
    assert!(MIN_PROBE_DATAGRAM == 28);
    // TX_PART of one cell: envelope, type, length, job, index (5), total (5), cell (5).
    assert!(DATAGRAM_OVERHEAD + 4 + 17 + CELL as usize <= DEFAULT_MAX_DATAGRAM as usize);
};

#[cfg(test)]
mod tests;
