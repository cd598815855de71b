//! BTADDR: addresses of other nodes that speak this protocol.
//!
//! ```text
//! CompactSize n <= 100 | n x (u8 network | address | u16 tcp port | u16 udp port | u64 services | u32 last seen)
//! ```
//!
//! Networks and the lengths of their addresses are those of BIP155: 1 IPv4 (4 bytes), 2 IPv6 (16), 3 Tor v2
//! (10), 4 Tor v3 (32), 5 I2P (32), 6 CJDNS (16), addresses in network order. Ports are little-endian, like all
//! integers here, unlike in Bitcoin's own messages. Whether an address can be reached, or may be dialled at
//! all, is for its user to judge.

use super::MAX_ADDRESSES;
use super::codec::{NoRoom, Reader, Writer, compact_size_len};
use super::error::WireError;
use super::structures::Body;
use std::fmt;
use std::net::IpAddr;

/// An address of some network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetworkAddress {
    /// Network 1.
    Ipv4([u8; 4]),
    /// Network 2.
    Ipv6([u8; 16]),
    /// Network 3, gone since 2021.
    TorV2([u8; 10]),
    /// Network 4: the ed25519 public key of an onion service.
    TorV3([u8; 32]),
    /// Network 5: SHA-256 of an I2P destination.
    I2p([u8; 32]),
    /// Network 6.
    Cjdns([u8; 16]),
}

impl From<IpAddr> for NetworkAddress {
    /// IPv6 addresses of CJDNS (fc00::/8) are told from others by their prefix, as BIP155 has it.
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::Ipv4(address.octets()),
            IpAddr::V6(address) => match address.octets() {
                octets @ [0xfc, ..] => Self::Cjdns(octets),
                octets => Self::Ipv6(octets),
            },
        }
    }
}

impl NetworkAddress {
    /// The network's id (BIP155).
    pub const fn network(&self) -> u8 {
        match self {
            Self::Ipv4(_) => 1,
            Self::Ipv6(_) => 2,
            Self::TorV2(_) => 3,
            Self::TorV3(_) => 4,
            Self::I2p(_) => 5,
            Self::Cjdns(_) => 6,
        }
    }

    /// The address as it stands on the wire.
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Ipv4(bytes) => bytes,
            Self::Ipv6(bytes) | Self::Cjdns(bytes) => bytes,
            Self::TorV2(bytes) => bytes,
            Self::TorV3(bytes) | Self::I2p(bytes) => bytes,
        }
    }

    /// The address as an IP address, if it is one.
    pub fn to_ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ipv4(bytes) => Some(IpAddr::from(*bytes)),
            Self::Ipv6(bytes) | Self::Cjdns(bytes) => Some(IpAddr::from(*bytes)),
            Self::TorV2(_) | Self::TorV3(_) | Self::I2p(_) => None,
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match reader.u8()? {
            1 => Self::Ipv4(*reader.array()?),
            2 => Self::Ipv6(*reader.array()?),
            3 => Self::TorV2(*reader.array()?),
            4 => Self::TorV3(*reader.array()?),
            5 => Self::I2p(*reader.array()?),
            6 => Self::Cjdns(*reader.array()?),
            _ => return Err(WireError::UnknownNetwork),
        })
    }
}

/// Where a node is to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Its address.
    pub address: NetworkAddress,
    /// The port of its control stream.
    pub tcp_port: u16,
    /// The port of its datagrams; 0 if it has none.
    pub udp_port: u16,
    /// Its Bitcoin service flags, as far as they are known.
    pub services: u64,
    /// When it was last heard of, in seconds since the Unix epoch.
    pub last_seen: u32,
}

impl PeerAddress {
    /// Bytes beside the address: network, ports, services, time.
    const FIXED_LEN: usize = 1 + 2 + 2 + 8 + 4;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            address: NetworkAddress::decode(reader)?,
            tcp_port: reader.u16()?,
            udp_port: reader.u16()?,
            services: reader.u64()?,
            last_seen: reader.u32()?,
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.u8(self.address.network())?;
        writer.bytes(self.address.as_bytes())?;
        writer.u16(self.tcp_port)?;
        writer.u16(self.udp_port)?;
        writer.u64(self.services)?;
        writer.u32(self.last_seen)
    }
}

/// A BTADDR body: addresses, borrowed from the wire or from whoever writes them.
#[derive(Clone, Copy)]
pub struct AddressList<'a> {
    repr: Repr<'a>,
}

#[derive(Clone, Copy)]
enum Repr<'a> {
    Addresses(&'a [PeerAddress]),
    Wire { count: u32, bytes: &'a [u8] },
}

impl<'a> AddressList<'a> {
    /// These addresses, at most [`MAX_ADDRESSES`].
    pub const fn new(addresses: &'a [PeerAddress]) -> Self {
        Self {
            repr: Repr::Addresses(addresses),
        }
    }

    /// How many there are.
    pub const fn len(&self) -> u32 {
        match self.repr {
            Repr::Addresses(addresses) => addresses.len() as u32,
            Repr::Wire { count, .. } => count,
        }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The addresses in order.
    pub fn iter(&self) -> impl Iterator<Item = PeerAddress> + Clone + use<'a> {
        let (addresses, bytes): (&'a [PeerAddress], &'a [u8]) = match self.repr {
            Repr::Addresses(addresses) => (addresses, &[]),
            Repr::Wire { bytes, .. } => (&[], bytes),
        };
        let mut reader = Reader::new(bytes);
        let on_wire = std::iter::from_fn(move || PeerAddress::decode(&mut reader).ok());
        addresses.iter().copied().chain(on_wire)
    }
}

impl<'a> Body<'a> for AddressList<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let count = reader.count(MAX_ADDRESSES)?;
        let before = *reader;
        for _ in 0..count {
            PeerAddress::decode(reader)?;
        }
        Ok(Self {
            repr: Repr::Wire {
                count,
                bytes: reader.read_since(&before),
            },
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.compact_size(u64::from(self.len()))?;
        match self.repr {
            Repr::Addresses(addresses) => addresses.iter().try_for_each(|one| one.encode(writer)),
            Repr::Wire { bytes, .. } => writer.bytes(bytes),
        }
    }

    fn encoded_len(&self) -> usize {
        compact_size_len(u64::from(self.len()))
            + match self.repr {
                Repr::Addresses(addresses) => addresses
                    .iter()
                    .map(|one| PeerAddress::FIXED_LEN + one.address.as_bytes().len())
                    .sum(),
                Repr::Wire { bytes, .. } => bytes.len(),
            }
    }
}

impl PartialEq for AddressList<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for AddressList<'_> {}

impl fmt::Debug for AddressList<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}
