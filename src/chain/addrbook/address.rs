//! Where a node can be found, which of those places may be dialled, and who is likely to own several of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The host part of an address, on one of the networks of BIP155 that still exist.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// Network 1.
    Ipv4([u8; 4]),
    /// Network 2. Never one that stands for an IPv4 address (`::ffff:0:0/96`) and never CJDNS.
    Ipv6([u8; 16]),
    /// Network 4: the ed25519 public key of an onion service.
    TorV3([u8; 32]),
    /// Network 5: SHA-256 of an I2P destination.
    I2p([u8; 32]),
    /// Network 6: `fc00::/8`.
    Cjdns([u8; 16]),
}

impl Host {
    /// The network's id (BIP155).
    pub const fn network(&self) -> u8 {
        match self {
            Self::Ipv4(_) => 1,
            Self::Ipv6(_) => 2,
            Self::TorV3(_) => 4,
            Self::I2p(_) => 5,
            Self::Cjdns(_) => 6,
        }
    }

    /// The address as BIP155 writes it.
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Ipv4(bytes) => bytes,
            Self::Ipv6(bytes) | Self::Cjdns(bytes) => bytes,
            Self::TorV3(bytes) | Self::I2p(bytes) => bytes,
        }
    }

    /// The host that BIP155's network id and bytes mean; `None` if no such network or length is known, or the
    /// bytes belong to another network (an IPv4 address in IPv6's clothes).
    pub fn from_bip155(network: u8, bytes: &[u8]) -> Option<Self> {
        let host = match network {
            1 => Self::Ipv4(bytes.try_into().ok()?),
            2 => Self::Ipv6(bytes.try_into().ok()?),
            4 => Self::TorV3(bytes.try_into().ok()?),
            5 => Self::I2p(bytes.try_into().ok()?),
            6 => Self::Cjdns(bytes.try_into().ok()?),
            _ => return None,
        };
        match host.to_ip() {
            Some(address) if Self::from(address) != host => None,
            _ => Some(host),
        }
    }

    /// The host as an IP address, if it is one.
    pub fn to_ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ipv4(bytes) => Some(IpAddr::from(*bytes)),
            Self::Ipv6(bytes) | Self::Cjdns(bytes) => Some(IpAddr::from(*bytes)),
            Self::TorV3(_) | Self::I2p(_) => None,
        }
    }

    /// Whether the host can be reached from all of its network.
    ///
    /// The ranges are those that Bitcoin Core refuses, multicast and the end of IPv4 besides; an IPv6 address that
    /// is only a way to an IPv4 address is judged by that.
    pub fn is_public(&self) -> bool {
        match self {
            Self::Ipv4(bytes) => is_public_ipv4(*bytes),
            Self::Ipv6(bytes) => match linked_ipv4(bytes) {
                Some(linked) => is_public_ipv4(linked),
                None => is_public_ipv6(bytes),
            },
            Self::TorV3(_) | Self::I2p(_) => true,
            Self::Cjdns(bytes) => bytes.starts_with(&[0xfc]),
        }
    }

    /// Whether the host is one at all: not "any", not multicast.
    fn is_host(&self) -> bool {
        match self.to_ip() {
            Some(IpAddr::V4(ip)) => ip.octets()[0] != 0 && ip.octets()[0] < 224,
            Some(IpAddr::V6(ip)) => !ip.is_unspecified() && !ip.is_multicast(),
            None => true,
        }
    }
}

impl From<IpAddr> for Host {
    /// Told from one another as BIP155 has it: mapped addresses are IPv4, `fc00::/8` is CJDNS.
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::Ipv4(address.octets()),
            IpAddr::V6(address) => match address.octets() {
                octets @ [0xfc, ..] => Self::Cjdns(octets),
                octets => Self::Ipv6(octets),
            },
        }
    }
}

impl fmt::Display for Host {
    /// IP addresses as usual; keys in hex, with the network's name before them.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, key) = match self {
            Self::Ipv4(bytes) => return Ipv4Addr::from(*bytes).fmt(formatter),
            Self::Ipv6(bytes) | Self::Cjdns(bytes) => {
                return write!(formatter, "[{}]", Ipv6Addr::from(*bytes));
            }
            Self::TorV3(key) => ("tor", key),
            Self::I2p(key) => ("i2p", key),
        };
        write!(formatter, "{name}-")?;
        key.iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

fn is_public_ipv4([a, b, c, _]: [u8; 4]) -> bool {
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224.., _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            | (192, 0, 2)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

fn is_public_ipv6(bytes: &[u8; 16]) -> bool {
    let unspecified_or_loopback = bytes.iter().take(15).all(|byte| *byte == 0);
    !unspecified_or_loopback
        && !matches!(
            bytes,
            [0xfc | 0xfd | 0xff, ..]
                | [0xfe, 0x80..=0xbf, ..]
                | [0x20, 0x01, 0x0d, 0xb8, ..]
                | [0x20, 0x01, 0x00, 0x10..=0x2f, ..]
        )
}

/// The IPv4 address that an IPv6 address leads to: 6to4 (RFC 3964), Teredo (RFC 4380), and the two translations
/// (RFC 6052, RFC 6145).
fn linked_ipv4(bytes: &[u8; 16]) -> Option<[u8; 4]> {
    match *bytes {
        [0x20, 0x02, a, b, c, d, ..] => Some([a, b, c, d]),
        [0x20, 0x01, 0, 0, .., a, b, c, d] => Some([!a, !b, !c, !d]),
        [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
        | [0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, a, b, c, d] => Some([a, b, c, d]),
        _ => None,
    }
}

/// Which protocol is spoken at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Door {
    /// Bitcoin's P2P protocol: what `addr` and `addrv2` tell of.
    Bitcoin,
    /// The control stream of the relay: what BTADDR tells of.
    Control,
}

/// Where a node can be found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The host.
    pub host: Host,
    /// The TCP port; 0 on I2P alone, which has none.
    pub port: u16,
    /// What is spoken there.
    pub door: Door,
}

impl Address {
    /// Where Bitcoin's P2P protocol is spoken.
    pub fn bitcoin(address: SocketAddr) -> Self {
        Self {
            host: Host::from(address.ip()),
            port: address.port(),
            door: Door::Bitcoin,
        }
    }

    /// Where the relay's control stream is.
    pub fn control(address: SocketAddr) -> Self {
        Self {
            door: Door::Control,
            ..Self::bitcoin(address)
        }
    }

    /// What to dial, if it can be dialled without a proxy.
    pub fn to_socket(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.host.to_ip()?, self.port))
    }

    /// The control stream of the same host.
    pub(crate) const fn with_control_port(&self, port: u16) -> Self {
        Self {
            host: self.host,
            port,
            door: Door::Control,
        }
    }

    /// Those that are likely to be one owner's, so that none of them counts for many.
    ///
    /// As Bitcoin Core has it: /16 of IPv4, also behind IPv6; /32 of IPv6, /36 at Hurricane Electric, who give a
    /// /32's part to anybody; 16 groups each of Tor, I2P and CJDNS, whose addresses cost nothing. What is not
    /// public is a group of its own, with its port: such addresses are there to test with.
    pub fn group(&self) -> Group {
        let mut bytes = [0; Group::LEN];
        let mut put = |parts: &[u8]| {
            for (to, from) in bytes.iter_mut().zip(parts) {
                *to = *from;
            }
        };
        let id = self.host.network();
        let [high, low] = self.port.to_be_bytes();
        match self.host {
            Host::Ipv4([a, b, c, d]) if !self.host.is_public() => {
                put(&[LOCAL, a, b, c, d, high, low]);
            }
            Host::Ipv6([.., a, b, c, d, e]) if !self.host.is_public() => {
                put(&[LOCAL | 1, a, b, c, d, e, high, low]);
            }
            Host::Ipv4([a, b, _, _]) => put(&[id, a, b]),
            Host::Ipv6(ip) => match (linked_ipv4(&ip), ip) {
                (Some([a, b, _, _]), _) => put(&[1, a, b]),
                (None, [0x20, 0x01, 0x04, 0x70, e, ..]) => {
                    put(&[id, 0x20, 0x01, 0x04, 0x70, e | 0x0f]);
                }
                (None, [a, b, c, d, ..]) => put(&[id, a, b, c, d]),
            },
            Host::TorV3([a, ..]) | Host::I2p([a, ..]) => put(&[id, a | 0x0f]),
            Host::Cjdns([_, a, ..]) => put(&[id, a | 0x0f]),
        }
        Group(bytes)
    }

    /// Whether connections to the same group are connections to the same owner; not so where groups are drawn by
    /// lot from keys.
    pub(super) const fn group_has_owner(&self) -> bool {
        matches!(self.host, Host::Ipv4(_) | Host::Ipv6(_))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self} {:?}", self.door)
    }
}

/// First byte of the groups of local addresses.
const LOCAL: u8 = 0x80;
/// First byte of the groups of sources that are no peers.
const NAMED: u8 = 0xf0;

/// Addresses that are likely to be one owner's; also whoever told us of addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub(super) [u8; Self::LEN]);

impl Group {
    /// Bytes of a group: a kind and what addresses of that kind have in common.
    pub(super) const LEN: usize = 8;
}

impl fmt::Debug for Group {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "group ")?;
        let [bytes @ .., _] = self.0;
        bytes
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// Who told us of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A peer.
    Peer(Address),
    /// The operator's own Bitcoin node, out of its own book. Each address counts as told by its own group: the
    /// node has heard them from many.
    OurNode,
    /// The DNS seed of this number in the network's list.
    DnsSeed(u8),
    /// The addresses that come with the program.
    Fixed,
    /// The operator.
    Operator,
}

impl Source {
    /// The group that answers for what is told of `address`.
    pub(super) fn group(&self, address: &Address) -> Group {
        let named = |which| Group([NAMED, which, 0, 0, 0, 0, 0, 0]);
        match self {
            Self::Peer(peer) => peer.group(),
            Self::OurNode => address.group(),
            Self::DnsSeed(number) => Group([NAMED | 1, *number, 0, 0, 0, 0, 0, 0]),
            Self::Fixed => named(1),
            Self::Operator => named(2),
        }
    }
}

/// Which addresses may be in a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locality {
    /// Those that the whole network can reach.
    Public,
    /// Loopback and private ones as well, each a group of its own: to test on one machine. Waits are short there,
    /// since nobody is bothered.
    Local,
}

/// A set of BIP155 networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Networks(u8);

impl Networks {
    /// IPv4 and IPv6.
    pub const IP: Self = Self(1 << 1 | 1 << 2);
    /// All that are known.
    pub const ALL: Self = Self(1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 6);

    /// These and the one with the id given; an id that is not known adds nothing.
    #[must_use]
    pub const fn with(self, network: u8) -> Self {
        match network {
            1 | 2 | 4 | 5 | 6 => Self(self.0 | 1 << network),
            _ => self,
        }
    }

    /// Whether the network of a host is among them.
    pub const fn contain(self, host: &Host) -> bool {
        self.0 & (1 << host.network()) != 0
    }
}

/// Ports above 1023 where something else than Bitcoin answers: Bitcoin Core's list, and three of databases and
/// desktops.
const OTHER_SERVICES: [u16; 20] = [
    1719, 1720, 1723, 2049, 3659, 4045, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6697,
    10080, 1433, 3306, 3389,
];

/// Why an address is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// No host that everybody can reach.
    Private,
    /// A port where one must not be sent to by gossip.
    Port,
    /// A network that we do not reach.
    Network,
}

/// Whether an address may be in a book.
///
/// Ports below 1024 and those of well-known services are not dialled on hearsay: else anybody could have us and
/// others knock at somebody's mail server.
pub(super) fn admit(
    address: &Address,
    locality: Locality,
    reachable: Networks,
) -> Result<(), Unfit> {
    let public = address.host.is_public();
    if !reachable.contain(&address.host) {
        return Err(Unfit::Network);
    }
    if !(public || locality == Locality::Local && address.host.is_host()) {
        return Err(Unfit::Private);
    }
    match (address.host, address.port) {
        (Host::I2p(_), 0) => Ok(()),
        (_, port) if port < 1024 || OTHER_SERVICES.contains(&port) => Err(Unfit::Port),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Address {
        Address::bitcoin(text.parse().unwrap())
    }

    fn fit(text: &str) -> Result<(), Unfit> {
        admit(&at(text), Locality::Public, Networks::ALL)
    }

    #[test]
    fn only_what_everybody_reaches_is_public() {
        for private in [
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.1.1",
            "172.31.0.1",
            "192.0.2.1",
            "192.168.1.1",
            "198.19.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "[::]",
            "[::1]",
            "[::ffff:10.0.0.1]",
            "[fd00::1]",
            "[fe80::1]",
            "[ff02::1]",
            "[2001:db8::1]",
            "[2001:10::1]",
            "[2001:20::1]",
            "[2002:0a00:0001::1]",
            "[64:ff9b::192.168.0.1]",
        ] {
            let address = format!("{private}:8333");
            assert_eq!(fit(&address), Err(Unfit::Private), "{address}");
        }
        for public in [
            "1.2.3.4",
            "100.63.0.1",
            "172.32.0.1",
            "198.20.0.1",
            "223.255.255.254",
            "[2a01::1]",
            "[fc00::1]",
            "[2001:470::1]",
            "[2002:0102:0304::1]",
            "[::ffff:1.2.3.4]",
        ] {
            let address = format!("{public}:8333");
            assert_eq!(fit(&address), Ok(()), "{address}");
        }
    }

    #[test]
    fn tests_may_use_loopback_but_nobody_uses_nonsense() {
        let local = |text| admit(&at(text), Locality::Local, Networks::IP);
        assert_eq!(local("127.0.0.1:18544"), Ok(()));
        assert_eq!(local("[::1]:18544"), Ok(()));
        assert_eq!(local("192.168.0.1:18544"), Ok(()));
        assert_eq!(local("0.0.0.0:18544"), Err(Unfit::Private));
        assert_eq!(local("239.1.1.1:18544"), Err(Unfit::Private));
        assert_eq!(local("[fc00::1]:18544"), Err(Unfit::Network));
        assert_eq!(local("127.0.0.1:25"), Err(Unfit::Port));
        assert_eq!(local("127.0.0.1:3306"), Err(Unfit::Port));
    }

    #[test]
    fn groups_are_those_of_bitcoin_core() {
        let same = |a, b| at(a).group() == at(b).group();
        assert!(same("1.2.3.4:8333", "1.2.255.255:8444"));
        assert!(!same("1.2.3.4:8333", "1.3.3.4:8333"));
        assert!(same("1.2.3.4:8333", "[2002:0102:0909::1]:8333"));
        assert!(same("1.2.3.4:8333", "[::ffff:1.2.9.9]:8333"));
        assert!(same("1.2.3.4:8333", "[64:ff9b::1.2.9.9]:8333"));
        assert!(same("1.2.3.4:8333", "[2001:0:1:2:3:4:fefd:fcfb]:8333"));
        assert!(same("[2a01:1:2::]:8333", "[2a01:1:ffff::]:8333"));
        assert!(!same("[2a01:1::]:8333", "[2a01:2::]:8333"));
        assert!(same("[2001:470:1f00::]:8333", "[2001:470:1000::]:8333"));
        assert!(!same("[2001:470:1f00::]:8333", "[2001:470:2f00::]:8333"));
        assert!(same("[fc10::1]:8333", "[fc1f::1]:8333"));
        assert!(!same("127.0.0.1:1025", "127.0.0.1:1026"));
        assert!(!same("[::1]:1025", "[::1]:1026"));
        let onion = |first| Address {
            host: Host::TorV3([first; 32]),
            port: 8333,
            door: Door::Bitcoin,
        };
        assert_eq!(onion(0x31).group(), onion(0x3e).group());
        assert_ne!(onion(0x31).group(), onion(0x4e).group());
    }

    #[test]
    fn bip155_is_read_back_and_nothing_else() {
        for host in [
            at("1.2.3.4:1").host,
            at("[2a01::1]:1").host,
            at("[fc01::1]:1").host,
            Host::TorV3([7; 32]),
            Host::I2p([8; 32]),
        ] {
            assert_eq!(
                Host::from_bip155(host.network(), host.as_bytes()),
                Some(host)
            );
            assert_eq!(Host::from_bip155(host.network(), &[1; 5]), None);
        }
        assert_eq!(Host::from_bip155(3, &[1; 10]), None);
        assert_eq!(Host::from_bip155(6, &[0x20; 16]), None);
        let mapped = Ipv4Addr::new(1, 2, 3, 4).to_ipv6_mapped().octets();
        assert_eq!(Host::from_bip155(2, &mapped), None);
    }

    #[test]
    fn addresses_are_printed() {
        assert_eq!(at("1.2.3.4:8333").to_string(), "1.2.3.4:8333");
        assert_eq!(at("[2a01::1]:8333").to_string(), "[2a01::1]:8333");
        let onion = Address {
            host: Host::TorV3([0xab; 32]),
            port: 8333,
            door: Door::Bitcoin,
        };
        assert_eq!(onion.to_string(), format!("tor-{}:8333", "ab".repeat(32)));
        assert_eq!(onion.to_socket(), None);
    }
}
