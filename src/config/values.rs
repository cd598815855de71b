//! The values that options take, each read from the same text on the command line and in the file.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use thiserror::Error;

/// Text that is no value of its option; says what would be.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ValueError(String);

impl ValueError {
    /// `text` is one line that says what would be right.
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Reads each of these types from a TOML string by its `FromStr`.
macro_rules! deserialize_from_text {
    ($($name:ty),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

deserialize_from_text!(
    NetworkName,
    ListenAddress,
    ListenOrOff,
    PeerAddress,
    ExternalAddress,
    TrustedStart,
    Role,
    LogFormat,
    super::private::Fingerprint,
    super::private::PrivatePeer
);

/// A Bitcoin network, by Bitcoin Core's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkName {
    /// `main`
    #[default]
    Main,
    /// `test`: testnet3
    Test,
    /// `testnet4`
    Testnet4,
    /// `signet`
    Signet,
    /// `regtest`
    Regtest,
}

impl NetworkName {
    /// Bitcoin Core's name, as its RPC gives it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Test => "test",
            Self::Testnet4 => "testnet4",
            Self::Signet => "signet",
            Self::Regtest => "regtest",
        }
    }

    /// The folder below the datadir, by Bitcoin Core's habit: none for `main`, and `testnet3` for `test`.
    pub fn folder(self) -> Option<&'static str> {
        match self {
            Self::Main => None,
            Self::Test => Some("testnet3"),
            other => Some(other.as_str()),
        }
    }
}

impl FromStr for NetworkName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "main" | "mainnet" => Ok(Self::Main),
            "test" | "testnet" | "testnet3" => Ok(Self::Test),
            "testnet4" => Ok(Self::Testnet4),
            "signet" => Ok(Self::Signet),
            "regtest" => Ok(Self::Regtest),
            _ => Err(ValueError(format!(
                "`{text}` is no network; use main, test, testnet4, signet or regtest"
            ))),
        }
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Whether an address may be one host's: neither a group's (multicast) nor everybody's (255.255.255.255).
fn is_one_hosts(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// An address to listen on. UDP sockets can be bound to a group's address, and then hear nobody who means this host.
fn listen_address(text: &str) -> Option<Result<SocketAddr, ValueError>> {
    let address: SocketAddr = text.parse().ok()?;
    Some(match is_one_hosts(address.ip()) {
        true => Ok(address),
        false => Err(ValueError(format!(
            "`{text}` is a multicast or broadcast address; listen on one of this machine's, or on all: 0.0.0.0:{0} or [::]:{0}",
            address.port()
        ))),
    })
}

/// An address to listen on: IP and port, port 0 for one that the system picks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddress(pub SocketAddr);

impl FromStr for ListenAddress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let address = listen_address(text).unwrap_or_else(|| {
            Err(ValueError(format!(
                "`{text}` is no address to listen on; use IP:PORT, as in 0.0.0.0:8433 or [::]:8433 (port 0: the system picks)"
            )))
        });
        address.map(Self)
    }
}

/// Where to listen, if at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenOrOff {
    /// `off`
    Off,
    /// IP and port, port 0 for one that the system picks.
    At(SocketAddr),
}

impl FromStr for ListenOrOff {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let address = listen_address(text).unwrap_or_else(|| {
            Err(ValueError(format!(
                "`{}` is no address to listen on; use IP:PORT, as in 0.0.0.0:8434, or off",
                text.escape_default()
            )))
        });
        address.map(Self::At)
    }
}

/// A switch: `on` or `off`; in the file `true` and `false` as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnOff(pub bool);

impl FromStr for OnOff {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "on" | "true" | "1" => Ok(Self(true)),
            "off" | "false" | "0" => Ok(Self(false)),
            _ => Err(ValueError(format!(
                "`{}` is neither on nor off",
                text.escape_default()
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for OnOff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Switch(bool),
            Text(String),
        }
        match Written::deserialize(deserializer) {
            Ok(Written::Switch(on)) => Ok(Self(on)),
            Ok(Written::Text(text)) => text.parse().map_err(serde::de::Error::custom),
            Err(_) => Err(serde::de::Error::custom("give \"on\" or \"off\"")),
        }
    }
}

/// Where others reach this node, as its operator knows: an IP address that is one host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExternalAddress(pub IpAddr);

impl FromStr for ExternalAddress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        match bare.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
            Ok(ip) if !ip.is_unspecified() && is_one_hosts(ip) => Ok(Self(ip)),
            _ => Err(ValueError(format!(
                "`{}` is no address that others reach a host at; use an IP address without a port",
                text.escape_default()
            ))),
        }
    }
}

/// A peer: a host (address or name), and its control port if not the network's usual one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddress {
    host: String,
    port: Option<u16>,
}

impl PeerAddress {
    /// An IP address without brackets, or a name to look up.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Host and port in one text, as a look-up takes it; `default` where no port was given.
    pub fn with_port(&self, default: u16) -> String {
        let port = Some(self.port.unwrap_or(default));
        let host = self.host.clone();
        Self { host, port }.to_string()
    }

    /// The control port, unless the network's default is meant.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

impl FromStr for PeerAddress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refuse = || {
            ValueError(format!(
                "`{text}` is no peer; use HOST or HOST:PORT, with brackets around an IPv6 address that has a port"
            ))
        };
        let of_group = || {
            ValueError(format!(
                "`{text}` is a multicast or broadcast address; a peer has one of its own"
            ))
        };
        if let Ok(address) = text.parse::<SocketAddr>() {
            if !is_one_hosts(address.ip()) {
                return Err(of_group());
            }
            let port = Some(address.port())
                .filter(|port| *port != 0)
                .ok_or_else(refuse)?;
            return Ok(Self {
                host: address.ip().to_string(),
                port: Some(port),
            });
        }
        let bracketed = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let bare = bracketed.unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            if !is_one_hosts(address) {
                return Err(of_group());
            }
            return Ok(Self {
                host: address.to_string(),
                port: None,
            });
        }
        let (host, port) = match text.split_once(':') {
            None => (text, None),
            Some((host, port)) => (host, Some(port.parse::<u16>().map_err(|_| refuse())?)),
        };
        let is_name = !host.is_empty()
            && host.len() <= 253
            && host
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
            && !host
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.');
        if !is_name || port == Some(0) {
            return Err(refuse());
        }
        Ok(Self {
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => formatter.write_str(&self.host),
            Some(port) if self.host.contains(':') => write!(formatter, "[{}]:{port}", self.host),
            Some(port) => write!(formatter, "{}:{port}", self.host),
        }
    }
}

/// A block that the operator vouches for, near the tip, where the header chain may begin.
///
/// As text: `HEIGHT,HASH,BITS[,EPOCH_START_TIME[,TIME]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedStart {
    /// The block's height.
    pub height: u32,
    /// The block's hash, in internal byte order (the text has it reversed, as Bitcoin shows hashes).
    pub hash: [u8; 32],
    /// The compact target that the child of this block must meet.
    pub bits: u32,
    /// The time of the first block of the child's difficulty period, which the next retarget needs;
    /// without it the chain can't cross that retarget.
    pub epoch_start_time: Option<u32>,
    /// The block's own time, 0 if not given: it matters if its child starts a difficulty period.
    pub time: u32,
}

impl FromStr for TrustedStart {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refuse = |what: &str| {
            ValueError(format!(
                "`{text}` is no trusted start: {what}; use HEIGHT,HASH,BITS[,EPOCH_START_TIME[,TIME]], bits in hex as in a header"
            ))
        };
        let mut fields = text.split(',').map(str::trim);
        let height = fields
            .next()
            .and_then(|field| field.parse().ok())
            .ok_or_else(|| refuse("the height is no number"))?;
        let mut hash: [u8; 32] = fields
            .next()
            .and_then(|field| hex::decode_to_array(field).ok())
            .ok_or_else(|| refuse("the hash is not 64 hex digits"))?;
        hash.reverse();
        if hash == [0; 32] {
            return Err(refuse("no block has a hash of zeros alone"));
        }
        let bits = fields
            .next()
            .filter(|field| field.len() == 8)
            .and_then(|field| u32::from_str_radix(field, 16).ok())
            .ok_or_else(|| refuse("the bits are not 8 hex digits"))?;
        let mut times = fields.by_ref().take(2).map(|field| field.parse::<u32>());
        let epoch_start_time = times
            .next()
            .transpose()
            .map_err(|_| refuse("the epoch's start is no Unix time"))?;
        let time = times
            .next()
            .transpose()
            .map_err(|_| refuse("the time is no Unix time"))?;
        if fields.next().is_some() {
            return Err(refuse("it has more than five fields"));
        }
        Ok(Self {
            height,
            hash,
            bits,
            epoch_start_time,
            time: time.unwrap_or(0),
        })
    }
}

/// What a node says it is. Peers may weigh it; nobody can check it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// `relay`: takes blocks and passes them on.
    #[default]
    Relay,
    /// `miner`: builds on what it receives, so every millisecond counts.
    Miner,
    /// `operator`: serves wallets or payments.
    Operator,
    /// `researcher`: watches.
    Researcher,
}

impl Role {
    /// Every role; its place is the number that stands for it in SET_PARAMS.
    const ALL: [Self; 4] = [Self::Relay, Self::Miner, Self::Operator, Self::Researcher];

    /// The number that stands for the role in SET_PARAMS.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The role that a number in SET_PARAMS stands for.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The role as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Miner => "miner",
            Self::Operator => "operator",
            Self::Researcher => "researcher",
        }
    }
}

impl FromStr for Role {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let known = Self::ALL.into_iter().find(|role| role.as_str() == text);
        known.ok_or_else(|| {
            ValueError(format!(
                "`{text}` is no role; use relay, miner, operator or researcher"
            ))
        })
    }
}

/// The form of a line of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Time, level, module, message, fields.
    #[default]
    Full,
    /// Level, message, fields: for a service manager that adds the time itself.
    Compact,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "full" => Ok(Self::Full),
            "compact" => Ok(Self::Compact),
            "json" => Ok(Self::Json),
            _ => Err(ValueError(format!(
                "`{text}` is no log format; use full, compact or json"
            ))),
        }
    }
}
