//! Addresses as peers gossip them: `addr`, and `addrv2` (BIP155).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::MAX_ADDRESSES;
use super::read::{DecodeError, Reader, put_compact_size};

/// Bytes of an entry of `addr`.
const ENTRY_BYTES: usize = 30;
/// Fewest bytes of an entry of `addrv2`: time, services, network, an empty address, port.
const MIN_ENTRY_V2_BYTES: usize = 4 + 1 + 1 + 1 + 2;
/// Most bytes of an address in `addrv2`.
///
/// Reason: BIP155's, room for networks to come.
const MAX_ADDRESS_BYTES: usize = 512;

/// An address of a node, with what somebody claims of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressRecord {
    /// When the node was last seen, in Unix seconds, by the account of whoever tells.
    pub last_seen: u32,
    /// Its services, likewise.
    pub services: u64,
    /// Where it listens.
    pub address: SocketAddr,
}

/// What a message of addresses held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gossip {
    /// Those of IPv4 and IPv6.
    pub records: Vec<AddressRecord>,
    /// How many were of other networks, or no addresses at all.
    pub others: u64,
}

impl Gossip {
    fn add(&mut self, last_seen: u32, services: u64, ip: Option<IpAddr>, port: u16) {
        match ip {
            Some(ip) if port != 0 => self.records.push(AddressRecord {
                last_seen,
                services,
                address: SocketAddr::new(ip, port),
            }),
            _ => self.others += 1,
        }
    }
}

/// Reads the payload of `addr`.
pub(super) fn read_v1(payload: &[u8]) -> Result<Gossip, DecodeError> {
    let mut reader = Reader::new(payload);
    let count = reader.count(ENTRY_BYTES, MAX_ADDRESSES)?;
    let mut gossip = Gossip::default();
    for _ in 0..count {
        let last_seen = reader.u32()?;
        let services = reader.u64()?;
        let ip = Ipv6Addr::from(reader.array::<16>()?);
        let port = u16::from_be_bytes(reader.array()?);
        let ip = match ip.to_ipv4_mapped() {
            Some(ip) => Some(IpAddr::V4(ip)),
            None => native(ip),
        };
        gossip.add(last_seen, services, ip, port);
    }
    reader.end()?;
    Ok(gossip)
}

/// Reads the payload of `addrv2`.
pub(super) fn read_v2(payload: &[u8]) -> Result<Gossip, DecodeError> {
    let mut reader = Reader::new(payload);
    let count = reader.count(MIN_ENTRY_V2_BYTES, MAX_ADDRESSES)?;
    let mut gossip = Gossip::default();
    for _ in 0..count {
        let last_seen = reader.u32()?;
        let services = reader.compact_size()?;
        let network = reader.u8()?;
        let bytes = reader.var_bytes(MAX_ADDRESS_BYTES)?;
        let port = u16::from_be_bytes(reader.array()?);
        // BIP155: a known network with another length is refused, an unknown network is passed over.
        let ip = match network {
            1 => Some(IpAddr::V4(Ipv4Addr::from(fixed::<4>(bytes)?))),
            2 => native(Ipv6Addr::from(fixed::<16>(bytes)?)),
            3 => fixed::<10>(bytes).map(|_| None)?,
            4 | 5 => fixed::<32>(bytes).map(|_| None)?,
            6 => fixed::<16>(bytes).map(|_| None)?,
            _ => None,
        };
        gossip.add(last_seen, services, ip, port);
    }
    reader.end()?;
    Ok(gossip)
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], DecodeError> {
    bytes.try_into().map_err(|_| DecodeError::Value)
}

/// The address, unless it is one of IPv4 or of another network in disguise: those of the old onion service
/// (fd87:d87e:eb43::/48), names (fd6b:88c0:8724::/48), mapped IPv4, CJDNS (fc00::/8).
fn native(ip: Ipv6Addr) -> Option<IpAddr> {
    let disguised = match ip.segments() {
        [0xfd87, 0xd87e, 0xeb43, ..] | [0xfd6b, 0x88c0, 0x8724, ..] => true,
        [first, ..] if first >> 8 == 0xfc => true,
        _ => ip.to_ipv4_mapped().is_some(),
    };
    (!disguised).then_some(IpAddr::V6(ip))
}

/// The payload of `addr`, of at most [`MAX_ADDRESSES`] of the records.
pub(super) fn put_v1(records: &[AddressRecord]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(3 + records.len().min(MAX_ADDRESSES) * ENTRY_BYTES);
    put_compact_size(&mut payload, records.len().min(MAX_ADDRESSES) as u64);
    for record in records.iter().take(MAX_ADDRESSES) {
        payload.extend_from_slice(&record.last_seen.to_le_bytes());
        payload.extend_from_slice(&record.services.to_le_bytes());
        let ip = match record.address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        payload.extend_from_slice(&ip.octets());
        payload.extend_from_slice(&record.address.port().to_be_bytes());
    }
    payload
}

/// The payload of `addrv2`, likewise.
pub(super) fn put_v2(records: &[AddressRecord]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(3 + records.len().min(MAX_ADDRESSES) * ENTRY_BYTES);
    put_compact_size(&mut payload, records.len().min(MAX_ADDRESSES) as u64);
    for record in records.iter().take(MAX_ADDRESSES) {
        payload.extend_from_slice(&record.last_seen.to_le_bytes());
        put_compact_size(&mut payload, record.services);
        match record.address.ip() {
            IpAddr::V4(ip) => {
                payload.extend_from_slice(&[1, 4]);
                payload.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                payload.extend_from_slice(&[2, 16]);
                payload.extend_from_slice(&ip.octets());
            }
        }
        payload.extend_from_slice(&record.address.port().to_be_bytes());
    }
    payload
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::consensus::deserialize;
    use bitcoin::p2p::address::{AddrV2Message, Address};
    use proptest::prelude::*;

    fn records() -> impl Strategy<Value = Vec<AddressRecord>> {
        let address = prop_oneof![
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 15]>().prop_map(|tail| {
                let mut ip = [0x20; 16];
                ip[1..].copy_from_slice(&tail);
                IpAddr::from(ip)
            }),
        ];
        let record = (any::<u32>(), any::<u64>(), address, 1u16..).prop_map(
            |(last_seen, services, ip, port)| AddressRecord {
                last_seen,
                services,
                address: SocketAddr::new(ip, port),
            },
        );
        prop::collection::vec(record, 0..30)
    }

    proptest! {
        #[test]
        fn both_forms_are_read_back_here_and_by_the_bitcoin_crate(records in records()) {
            let (old, new) = (put_v1(&records), put_v2(&records));
            let read = Gossip { records: records.clone(), others: 0 };
            prop_assert_eq!(read_v1(&old), Ok(read.clone()));
            prop_assert_eq!(read_v2(&new), Ok(read));
            let theirs: Vec<(u32, Address)> = deserialize(&old).expect("well formed");
            prop_assert_eq!(theirs.len(), records.len());
            let theirs: Vec<AddrV2Message> = deserialize(&new).expect("well formed");
            for (theirs, ours) in theirs.iter().zip(&records) {
                prop_assert_eq!(theirs.socket_addr().expect("an address"), ours.address);
                prop_assert_eq!(theirs.services.to_u64(), ours.services);
            }
        }

        #[test]
        fn nothing_makes_them_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read_v1(&bytes).ok();
            read_v2(&bytes).ok();
        }
    }

    #[test]
    fn other_networks_are_counted_and_wrong_lengths_refused() {
        let entry = |network: u8, length: usize| {
            let mut bytes = vec![1, 0, 0, 0, 0, 9, network, length as u8];
            bytes.resize(8 + length, 0xfd);
            bytes.extend([0x20, 0x8d]);
            bytes
        };
        for (network, length) in [(3, 10), (4, 32), (5, 32), (6, 16), (77, 5), (77, 0)] {
            let gossip = read_v2(&entry(network, length)).expect("passed over");
            assert_eq!((gossip.records.len(), gossip.others), (0, 1));
        }
        for (network, length) in [(1, 5), (2, 4), (4, 31), (5, 33), (6, 4)] {
            assert_eq!(read_v2(&entry(network, length)), Err(DecodeError::Value));
        }
        let many = AddressRecord {
            last_seen: 1,
            services: 0,
            address: "1.2.3.4:8333".parse().expect("an address"),
        };
        let mut payload = put_v1(&vec![many; 1_200]);
        assert_eq!(read_v1(&payload).expect("cut short").records.len(), 1_000);
        payload[1..3].copy_from_slice(&1_001u16.to_le_bytes());
        assert_eq!(read_v1(&payload), Err(DecodeError::TooMany));
        let old_onion: IpAddr = "fd87:d87e:eb43::1".parse().expect("an address");
        let address = SocketAddr::new(old_onion, 8333);
        let disguised = put_v1(&[AddressRecord { address, ..many }]);
        assert_eq!(read_v1(&disguised).expect("passed over").others, 1);
    }
}
