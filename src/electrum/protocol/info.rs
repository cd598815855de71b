//! What the server says of itself: features, banner, donation address, peers.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::version::Version;
use crate::merkle::Hash;

/// Bytes of a banner that clients are shown. Reason: Fulcrum's limit; it is sent to every wallet that connects.
pub const MAX_BANNER_BYTES: usize = 16_384;

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// The name of the software with its version, as clients are told it. Some clients decide by it what they may ask.
    pub software: String,
    /// The first block's hash, in internal byte order.
    pub genesis: Hash,
    /// By which names the server is reached, and at which ports.
    pub hosts: BTreeMap<String, Ports>,
    /// The node's software, for the banner.
    pub node: String,
    /// With its variables.
    pub banner: String,
    /// May be empty.
    pub donation_address: String,
    /// Other servers, which are known to be good.
    pub peers: Vec<Peer>,
}

/// Ports of one host; `None` where that transport is not served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// Plain.
    pub tcp: Option<u16>,
    /// With TLS.
    pub ssl: Option<u16>,
    /// WebSocket.
    pub ws: Option<u16>,
    /// WebSocket with TLS.
    pub wss: Option<u16>,
}

/// Another server as it is told to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address, or its name again where it has none to be told.
    pub address: String,
    /// Its name.
    pub host: String,
    /// The newest version that it speaks.
    pub protocol_max: String,
    /// Where it is reached.
    pub ports: Ports,
}

impl Info {
    /// `server.features`.
    pub fn features(&self) -> Value {
        let hosts: serde_json::Map<String, Value> = self
            .hosts
            .iter()
            .map(|(host, ports)| (host.clone(), ports.features()))
            .collect();
        json!({
            "hosts": hosts,
            "genesis_hash": shown(&self.genesis),
            // Dropped in 1.7; a member more does no harm there.
            "hash_function": "sha256",
            "server_version": self.software,
            "protocol_min": Version::MIN.to_string(),
            "protocol_max": Version::MAX.to_string(),
            "pruning": null,
        })
    }

    /// `server.banner`: the variables are ElectrumX's.
    pub fn banner(&self) -> String {
        let filled = self
            .banner
            .replace("$SERVER_VERSION", &self.software)
            .replace("$SERVER_SUBVERSION", &self.software)
            .replace("$DAEMON_VERSION", &self.node)
            .replace("$DAEMON_SUBVERSION", &self.node)
            .replace("$DONATION_ADDRESS", &self.donation_address);
        cut(filled, MAX_BANNER_BYTES)
    }

    /// `server.peers.subscribe`.
    pub fn peers(&self) -> Value {
        self.peers.iter().map(Peer::told).collect()
    }
}

impl Ports {
    fn features(self) -> Value {
        let mut ports = json!({"tcp_port": self.tcp, "ssl_port": self.ssl});
        for (name, port) in [("ws_port", self.ws), ("wss_port", self.wss)] {
            if let (Some(port), Some(ports)) = (port, ports.as_object_mut()) {
                ports.insert(name.to_owned(), port.into());
            }
        }
        ports
    }
}

impl Peer {
    fn told(&self) -> Value {
        let mut features = vec![format!("v{}", self.protocol_max)];
        features.extend(self.ports.ssl.map(|port| format!("s{port}")));
        features.extend(self.ports.tcp.map(|port| format!("t{port}")));
        json!([self.address, self.host, features])
    }
}

/// A text of at most so many bytes, cut between characters.
fn cut(mut text: String, bytes: usize) -> String {
    let end = (0..=bytes.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text
}

/// A hash as it is shown.
fn shown(hash: &Hash) -> String {
    use std::fmt::Write as _;
    hash.iter()
        .rev()
        .fold(String::with_capacity(64), |mut text, byte| {
            // Writing to memory does not fail.
            write!(text, "{byte:02x}").ok();
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told() {
        let ports = Ports {
            tcp: Some(50_001),
            ws: Some(50_003),
            ..Ports::default()
        };
        let peer = Peer {
            address: "1.2.3.4".into(),
            host: "a.b".into(),
            protocol_max: "1.6".into(),
            ports: Ports {
                ssl: Some(50_002),
                ..ports
            },
        };
        let info = Info {
            software: "S 1".into(),
            hosts: [("a.example".to_owned(), ports)].into(),
            banner: "Welcome to $SERVER_VERSION, thanks to $DONATION_ADDRESS".into(),
            donation_address: "1abc".into(),
            peers: vec![peer],
            ..Info::default()
        };
        let features = info.features();
        assert_eq!(features["hosts"]["a.example"]["tcp_port"], 50_001);
        assert_eq!(features["hosts"]["a.example"]["ssl_port"], Value::Null);
        assert_eq!(features["hosts"]["a.example"]["ws_port"], 50_003);
        assert_eq!(features["genesis_hash"], "0".repeat(64));
        assert_eq!(
            (&features["protocol_min"], &features["protocol_max"]),
            (&json!("1.4"), &json!("1.7"))
        );
        assert_eq!(info.banner(), "Welcome to S 1, thanks to 1abc");
        assert_eq!(
            info.peers(),
            json!([["1.2.3.4", "a.b", ["v1.6", "s50002", "t50001"]]])
        );
        let long = Info {
            banner: "é".repeat(MAX_BANNER_BYTES),
            ..info
        };
        assert_eq!(long.banner().len(), MAX_BANNER_BYTES);
    }
}
