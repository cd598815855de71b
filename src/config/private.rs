//! Private links: whose keys are pinned, and where they are reached.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use hex::DisplayHex as _;

use super::error::ConfigError;
use super::options::Options;
use super::values::{PeerAddress, ValueError};
use super::{MAX_CONNECT, distinct};

/// Keys that may connect to this node: an operator's own nodes and partners; more than the sessions of a usual
/// node is a typing error.
const MAX_ALLOWED: usize = 64;

/// SHA-256 of a key's SubjectPublicKeyInfo (RFC 5280): what an operator compares, as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl FromStr for Fingerprint {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        hex::decode_to_array(text).map(Self).map_err(|_| {
            ValueError::new(format!(
                "`{}` is no fingerprint; use the 64 hex digits that `blocktorrent cli getkey` gives on the other node",
                text.escape_default()
            ))
        })
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0.as_hex(), formatter)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A private peer to be dialled: its key, and its QUIC socket.
///
/// As text: `FINGERPRINT@HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivatePeer {
    /// The only key that is accepted there.
    pub key: Fingerprint,
    /// An address or a name, with a port.
    pub target: String,
}

impl FromStr for PrivatePeer {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let Some((key, address)) = text.split_once('@') else {
            return Err(ValueError::new(format!(
                "`{}` is no private peer; use FINGERPRINT@HOST:PORT, as `blocktorrent cli getkey` gives it on the other node",
                text.escape_default()
            )));
        };
        let key = key.parse()?;
        let address: PeerAddress = address.parse()?;
        if address.port().is_none() {
            return Err(ValueError::new(format!(
                "`{address}` has no port; private links have no usual one, so give that of the peer's quic-listen"
            )));
        }
        let target = address.to_string();
        Ok(Self { key, target })
    }
}

impl fmt::Display for PrivatePeer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.key, self.target)
    }
}

/// Private links, complete and checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrivateOptions {
    /// Where private links are accepted; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// Private peers to which the node keeps a connection.
    pub peers: Vec<PrivatePeer>,
    /// Keys that may connect to this node: those allowed, and those of `peers`.
    pub allowed: Vec<Fingerprint>,
}

impl PrivateOptions {
    /// Whether the node needs a QUIC socket.
    pub fn is_on(&self) -> bool {
        self.listen.is_some() || !self.peers.is_empty()
    }

    /// Private peers for which `max_peers` leaves no slot if all of them come.
    pub fn without_slot(&self, max_peers: u32) -> usize {
        self.allowed.len().saturating_sub(max_peers as usize)
    }

    pub(super) fn resolve(options: &Options) -> Result<Self, ConfigError> {
        let listen = options.quic_listen.map(|address| address.0);
        let peers = distinct("quic-peer", options.quic_peer.clone(), MAX_CONNECT)?;
        let allowed = distinct("quic-allow", options.quic_allow.clone(), MAX_ALLOWED)?;
        if listen.is_none() && !allowed.is_empty() {
            let text = "`quic-allow` lets keys in, and `quic-listen` is not set; set it, as in quic-listen = \"0.0.0.0:8436\"";
            return Err(ConfigError::Senseless(text.to_owned()));
        }
        // Whom we dial and know by the key may as well dial us: both ends can be configured alike.
        let dialled = peers.iter().map(|peer| peer.key);
        let most = MAX_ALLOWED + MAX_CONNECT;
        let allowed = distinct(
            "quic-allow",
            allowed.into_iter().chain(dialled).collect(),
            most,
        )?;
        Ok(Self {
            listen,
            peers,
            allowed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";

    #[test]
    fn a_fingerprint_is_64_hex_digits() {
        let key: Fingerprint = KEY.parse().unwrap();
        assert_eq!(key.to_string(), KEY.to_lowercase());
        assert_eq!((key.0[0], key.0[1], key.0[31]), (0, 0x11, 0xff));
        for bad in [
            "",
            "00",
            &KEY[1..],
            &format!("{KEY}0"),
            &format!("{KEY}00"),
            &KEY.replace('0', "g"),
            &KEY.replace("00", "é"),
            &KEY.replace("00", "+0"),
        ] {
            let refused = bad.parse::<Fingerprint>().unwrap_err().to_string();
            assert!(refused.contains("`blocktorrent cli getkey`"), "{refused}");
        }
    }

    #[test]
    fn a_private_peer_has_a_key_a_host_and_a_port() {
        let peer: PrivatePeer = format!("{KEY}@[2001:db8::1]:8436").parse().unwrap();
        assert_eq!(peer.target, "[2001:db8::1]:8436");
        let again: PrivatePeer = peer.to_string().parse().unwrap();
        assert_eq!(peer, again);
        for (bad, says) in [
            ("relay.example:1".to_owned(), "use FINGERPRINT@HOST:PORT"),
            (format!("{KEY}@relay.example"), "has no port"),
            (format!("{KEY}@"), "is no peer"),
            ("12@relay.example:1".to_owned(), "is no fingerprint"),
        ] {
            let refused = bad.parse::<PrivatePeer>().unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
        }
    }

    #[test]
    fn private_links_begin_and_end_at_one_host() {
        for group in [
            "224.0.0.1:8436",
            "255.255.255.255:8436",
            "[ff02::1]:8436",
            "[::ffff:239.1.2.3]:8436",
        ] {
            let peer = format!("{KEY}@{group}").parse::<PrivatePeer>();
            let listen = group.parse::<super::super::values::ListenAddress>();
            for refused in [peer.unwrap_err(), listen.unwrap_err()] {
                let line = refused.to_string();
                assert!(line.contains("multicast or broadcast"), "{line}");
            }
        }
        for fine in ["223.255.255.255:1", "10.0.0.255:1", "[fe80::1]:1"] {
            assert!(format!("{KEY}@{fine}").parse::<PrivatePeer>().is_ok());
        }
    }

    #[test]
    fn whom_we_dial_may_dial_us() {
        let mut options = Options {
            quic_peer: vec![format!("{KEY}@a.example:1").parse().unwrap()],
            ..Options::default()
        };
        let resolved = PrivateOptions::resolve(&options).unwrap();
        assert!(resolved.is_on() && resolved.listen.is_none());
        assert_eq!(resolved.allowed, [KEY.parse().unwrap()]);
        assert_eq!((resolved.without_slot(0), resolved.without_slot(1)), (1, 0));
        assert!(!PrivateOptions::default().is_on());
        options.quic_allow = vec![KEY.parse().unwrap()];
        let refused = PrivateOptions::resolve(&options).unwrap_err().to_string();
        assert!(
            refused.contains("`quic-listen` is not set; set it"),
            "{refused}"
        );
        options.quic_listen = Some("127.0.0.1:0".parse().unwrap());
        assert_eq!(PrivateOptions::resolve(&options).unwrap().allowed.len(), 1);
    }
}
