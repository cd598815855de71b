//! What an operator said of the Electrum server.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::error::ConfigError;
use super::options::Options;
use super::values::{ListenAddress, PeerAddress, ValueError};
use super::{BYTES_PER_MB, distinct, in_range};

/// Addresses to serve at: four transports, IPv4 and IPv6, and a few more.
const MAX_LISTEN: usize = 16;
/// More memory than this for caches is a typing error.
const MAX_CACHE_MB: u32 = 65_536;
/// With less the first build would be cut into very many pieces.
const MIN_CACHE_MB: u32 = 16;

/// Names of one server: others look at no more (`electrum::peers::MAX_HOSTS`).
const MAX_HOSTS: usize = 3;
/// Servers to begin with: they tell of the others.
const MAX_PEERS: usize = 64;
/// Clients at a time, unless configured: 300 MB of buffers, and one descriptor each.
const MAX_SESSIONS: u32 = 10_000;
/// As many as one address has ports; more is a typing error.
const MOST_SESSIONS: u32 = 65_535;
/// ElectrumX's `COST_SOFT_LIMIT`.
const COST_SOFT: u32 = 1_000;
/// ElectrumX's `COST_HARD_LIMIT`.
const COST_HARD: u32 = 10_000;

/// How clients are served at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElectrumTransport {
    /// Lines over TCP.
    Tcp,
    /// Lines over TLS.
    Ssl,
    /// WebSocket.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

/// Where clients are served, and how: `tcp://IP:PORT`, `ssl://`, `ws://` or `wss://`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElectrumAddress {
    /// How.
    pub transport: ElectrumTransport,
    /// Where.
    pub address: SocketAddr,
}

impl FromStr for ElectrumAddress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (transport, address) = text.split_once("://").unwrap_or_default();
        let transport = match transport {
            "tcp" => ElectrumTransport::Tcp,
            "ssl" => ElectrumTransport::Ssl,
            "ws" => ElectrumTransport::Ws,
            "wss" => ElectrumTransport::Wss,
            _ => {
                return Err(ValueError::new(format!(
                    "`{}` does not say how to serve; use tcp://IP:PORT, ssl://, ws:// or wss://",
                    text.escape_default()
                )));
            }
        };
        let address: ListenAddress = address.parse()?;
        Ok(Self {
            transport,
            address: address.0,
        })
    }
}

impl fmt::Display for ElectrumAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.transport {
            ElectrumTransport::Tcp => "tcp",
            ElectrumTransport::Ssl => "ssl",
            ElectrumTransport::Ws => "ws",
            ElectrumTransport::Wss => "wss",
        };
        write!(formatter, "{transport}://{}", self.address)
    }
}

impl Serialize for ElectrumAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ElectrumAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// The Electrum server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ElectrumOptions {
    /// Where it serves; nowhere: there is none.
    pub listen: Vec<ElectrumAddress>,
    /// Bytes of memory for what is read again, and for the first build.
    pub cache_bytes: u64,
    /// Files with a certificate chain and its key, in PEM; `None`: one that is made and kept.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Clients at a time.
    pub max_sessions: u32,
    /// From here on a client waits, in units of cost; 0 for never.
    pub cost_soft: u32,
    /// Here it is cut.
    pub cost_hard: u32,
    /// Names by which others reach the server.
    pub hosts: Vec<String>,
    /// Other servers that are looked at to begin with, by their ports for TLS.
    pub peers: Vec<PeerAddress>,
    /// Whether other servers are looked at and told of.
    pub finds_peers: bool,
    /// A file with what clients are greeted by.
    pub banner: Option<PathBuf>,
    /// Where clients may send what they like to give.
    pub donation_address: String,
}

impl ElectrumOptions {
    /// Whether there is to be a server.
    pub fn is_on(&self) -> bool {
        !self.listen.is_empty()
    }

    pub(super) fn resolve(options: &Options) -> Result<Self, ConfigError> {
        let listen = distinct(
            "electrum-listen",
            options.electrum_listen.clone(),
            MAX_LISTEN,
        )?;
        let cache = options.electrum_cache_mb;
        let cache = in_range("electrum-cache-mb", cache, 512, MIN_CACHE_MB, MAX_CACHE_MB)?;
        let sessions = options.electrum_max_sessions;
        let max_sessions = in_range(
            "electrum-max-sessions",
            sessions,
            MAX_SESSIONS,
            1,
            MOST_SESSIONS,
        )?;
        let cost_soft = options.electrum_cost_soft.unwrap_or(COST_SOFT);
        let cost_hard = options.electrum_cost_hard.unwrap_or(COST_HARD);
        if cost_hard < cost_soft {
            return Err(ConfigError::Senseless(format!(
                "`electrum-cost-hard` is {cost_hard}, less than `electrum-cost-soft`, {cost_soft}: nobody would be slowed before being cut"
            )));
        }
        let hosts = distinct("electrum-host", options.electrum_host.clone(), MAX_HOSTS)?;
        if let Some(host) = hosts.iter().find(|host| !is_name(host)) {
            return Err(ConfigError::Senseless(format!(
                "`electrum-host` is `{}`; give a name or an address alone, in small letters, without port",
                host.escape_default()
            )));
        }
        let peers = distinct("electrum-peer", options.electrum_peer.clone(), MAX_PEERS)?;
        let certificate = match (&options.electrum_cert, &options.electrum_key) {
            (None, None) => None,
            (Some(chain), Some(key)) => Some((chain.clone(), key.clone())),
            (Some(_), None) | (None, Some(_)) => {
                let text = "`electrum-cert` and `electrum-key` belong together; give both, or none for a certificate that is made";
                return Err(ConfigError::Senseless(text.to_owned()));
            }
        };
        if !listen.is_empty() && options.bitcoind.is_empty() {
            let text = "`electrum-listen` needs the blocks of a bitcoind on this machine; name it, as in bitcoind = [\"auto\"]";
            return Err(ConfigError::Senseless(text.to_owned()));
        }
        Ok(Self {
            listen,
            cache_bytes: u64::from(cache) * BYTES_PER_MB,
            certificate,
            max_sessions,
            cost_soft,
            cost_hard,
            finds_peers: options
                .electrum_peers
                .map_or(!hosts.is_empty() || !peers.is_empty(), |on| on.0),
            hosts,
            peers,
            banner: options.electrum_banner.clone(),
            donation_address: options.electrum_donation.clone().unwrap_or_default(),
        })
    }
}

fn is_name(host: &str) -> bool {
    let is_letter = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-')
    };
    let is_address = host.parse::<IpAddr>().is_ok();
    is_address || ((1..=253).contains(&host.len()) && host.bytes().all(is_letter))
}

#[cfg(test)]
mod tests {
    use super::super::values::OnOff;
    use super::*;

    #[test]
    fn an_address_says_how_and_where() {
        for text in [
            "tcp://127.0.0.1:50001",
            "ssl://0.0.0.0:50002",
            "ws://[::1]:3",
            "wss://1.2.3.4:5",
        ] {
            let address: ElectrumAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
        for text in [
            "",
            "127.0.0.1:1",
            "http://127.0.0.1:1",
            "tcp://",
            "tcp://localhost",
            "TCP://127.0.0.1:1",
        ] {
            assert!(text.parse::<ElectrumAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let mut options = Options::default();
        assert!(!ElectrumOptions::resolve(&options).unwrap().is_on());
        options
            .electrum_listen
            .push("tcp://127.0.0.1:0".parse().unwrap());
        let refused = ElectrumOptions::resolve(&options).unwrap_err().to_string();
        assert!(refused.contains("bitcoind = [\"auto\"]"), "{refused}");
        options.bitcoind.push("auto".parse().unwrap());
        let resolved = ElectrumOptions::resolve(&options).unwrap();
        assert!(resolved.is_on());
        assert_eq!(resolved.cache_bytes, 512_000_000);
        options.electrum_cert = Some("c.pem".into());
        let refused = ElectrumOptions::resolve(&options).unwrap_err().to_string();
        assert!(refused.contains("electrum-key"), "{refused}");
        options.electrum_key = Some("k.pem".into());
        options.electrum_cost_soft = Some(20_000);
        let refused = ElectrumOptions::resolve(&options).unwrap_err().to_string();
        assert!(refused.contains("electrum-cost-hard"), "{refused}");
        options.electrum_cost_hard = Some(20_000);
        assert!(ElectrumOptions::resolve(&options).is_ok());
        assert!(!ElectrumOptions::resolve(&options).unwrap().finds_peers);
        options.electrum_host = vec!["a.example".to_owned()];
        assert!(ElectrumOptions::resolve(&options).unwrap().finds_peers);
        options.electrum_peers = Some(OnOff(false));
        assert!(!ElectrumOptions::resolve(&options).unwrap().finds_peers);
        for host in ["", "a.example:50002", "A.example", "a b"] {
            options.electrum_host = vec![host.to_owned()];
            assert!(ElectrumOptions::resolve(&options).is_err(), "{host}");
        }
        options.electrum_host.clear();
        options.electrum_max_sessions = Some(0);
        assert!(ElectrumOptions::resolve(&options).is_err());
        options.electrum_max_sessions = None;
        options.electrum_cache_mb = Some(1);
        assert!(ElectrumOptions::resolve(&options).is_err());
    }
}
