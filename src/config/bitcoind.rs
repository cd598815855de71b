//! How a Bitcoin node of the operator's own is reached, as it was said: `--bitcoind SPEC` or `[[bitcoind]]`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::values::{PeerAddress, ValueError};

/// ZMQ addresses of one node: bitcoind publishes four topics that matter here, each at one address or two.
const MAX_ZMQ: usize = 8;
/// Bytes of a value: paths end at 4,096 on Linux, and every other value is shorter.
const MAX_VALUE_BYTES: usize = 4_096;
/// What may stand left of `=`.
const KEYS: &[&str] = &["rpc", "cookie", "user", "password", "p2p", "zmq", "datadir"];

/// One way to reach a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Way<T> {
    /// Nothing was said: looked for where bitcoind puts it by default.
    #[default]
    Find,
    /// Not to be used.
    Off,
    /// There.
    At(T),
}

/// User and password. Shown without the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user; neither empty nor with a colon.
    pub user: String,
    /// The password, not empty.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Login({}, ..)", self.user)
    }
}

/// A ZMQ publisher: `tcp://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ZmqAddress(PeerAddress);

impl ZmqAddress {
    /// Host and port in one text, as a look-up takes it.
    pub fn host_port(&self) -> String {
        self.0.to_string()
    }
}

impl FromStr for ZmqAddress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        text.strip_prefix("tcp://")
            .and_then(|rest| rest.parse::<PeerAddress>().ok())
            .filter(|address| address.port().is_some())
            .map(Self)
            .ok_or_else(|| {
                ValueError::new(format!(
                    "`{}` is no ZMQ address; use tcp://HOST:PORT, or off",
                    text.escape_default()
                ))
            })
    }
}

impl fmt::Display for ZmqAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "tcp://{}", self.0)
    }
}

/// What was said of one Bitcoin node. What was not said is looked for where bitcoind has it by default.
///
/// As text: `auto`, or `KEY=VALUE` pairs with commas between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSpec {
    /// The JSON-RPC server; without a port, the network's usual one.
    pub rpc: Way<PeerAddress>,
    /// The P2P port; without a number, the network's usual one.
    pub p2p: Way<PeerAddress>,
    /// Where it publishes notifications; all topics are subscribed at each address.
    pub zmq: Way<Vec<ZmqAddress>>,
    /// The cookie file.
    pub cookie: Option<PathBuf>,
    /// User and password, instead of the cookie.
    pub login: Option<Login>,
    /// Its datadir, without the network's folder.
    pub datadir: Option<PathBuf>,
}

impl FromStr for NodeSpec {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let mut said = Said::default();
        if text.trim() != "auto" {
            for pair in text.split(',') {
                let (key, value) = pair.split_once('=').ok_or_else(|| {
                    ValueError::new(format!(
                        "`{}` is no KEY=VALUE; use `auto` or some of {}, with commas between them",
                        pair.escape_default(),
                        KEYS.join(", ")
                    ))
                })?;
                said.set(key.trim(), value.trim().to_owned())?;
            }
        }
        said.check()
    }
}

/// By what it is known in logs: the first address that was given.
impl fmt::Display for NodeSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.rpc, &self.p2p, &self.zmq, &self.datadir) {
            (Way::At(rpc), ..) => write!(formatter, "{rpc}"),
            (_, Way::At(p2p), ..) => write!(formatter, "{p2p}"),
            (_, _, _, Some(datadir)) => write!(formatter, "{}", datadir.display()),
            (_, _, Way::At(zmq), _) => match zmq.first() {
                Some(first) => write!(formatter, "{first}"),
                None => formatter.write_str("auto"),
            },
            _ => formatter.write_str("auto"),
        }
    }
}

/// Keys and values before they are checked together.
#[derive(Default)]
struct Said {
    spec: NodeSpec,
    zmq: Vec<String>,
    user: Option<String>,
    password: Option<String>,
    seen: Vec<&'static str>,
}

impl Said {
    fn set(&mut self, key: &str, value: String) -> Result<(), ValueError> {
        let Some(key) = KEYS.iter().find(|known| **known == key) else {
            return Err(ValueError::new(format!(
                "`{}` is no key of a node; use {}",
                key.escape_default(),
                KEYS.join(", ")
            )));
        };
        if *key != "zmq" && self.seen.contains(key) {
            return Err(ValueError::new(format!(
                "`{key}` is given twice; for a second node repeat the whole option"
            )));
        }
        self.seen.push(key);
        if value.is_empty() || value.len() > MAX_VALUE_BYTES {
            return Err(ValueError::new(format!(
                "`{key}` has no value that fits; leave the key away to have it found"
            )));
        }
        match *key {
            "rpc" => self.spec.rpc = way(key, &value)?,
            "p2p" => self.spec.p2p = way(key, &value)?,
            "cookie" => self.spec.cookie = Some(value.into()),
            "datadir" => self.spec.datadir = Some(value.into()),
            "user" => self.user = Some(value),
            "password" => self.password = Some(value),
            _ => self.zmq.push(value),
        }
        Ok(())
    }

    fn check(self) -> Result<NodeSpec, ValueError> {
        let mut spec = self.spec;
        spec.zmq = zmq(&self.zmq)?;
        spec.login = match (self.user, self.password) {
            (None, None) => None,
            (Some(user), Some(_)) if user.contains(':') => {
                return Err(ValueError::new(format!(
                    "`user` is \"{}\"; no user of bitcoind has a colon",
                    user.escape_default()
                )));
            }
            (Some(user), Some(password)) => Some(Login { user, password }),
            _ => {
                return Err(ValueError::new(
                    "`user` and `password` belong together; give both, or neither and the cookie is used",
                ));
            }
        };
        if spec.login.is_some() && spec.cookie.is_some() {
            return Err(ValueError::new(
                "`cookie` and `user` are two ways to log in; give one of them",
            ));
        }
        if (&spec.rpc, &spec.p2p, &spec.zmq) == (&Way::Off, &Way::Off, &Way::Off) {
            return Err(ValueError::new(
                "`rpc`, `p2p` and `zmq` are all off; leave one on, or leave the node away",
            ));
        }
        Ok(spec)
    }
}

fn way(key: &str, value: &str) -> Result<Way<PeerAddress>, ValueError> {
    if value == "off" {
        return Ok(Way::Off);
    }
    value.parse().map(Way::At).map_err(|_| {
        ValueError::new(format!(
            "`{key}` is `{}`; use HOST, HOST:PORT or off, with brackets around an IPv6 address that has a port",
            value.escape_default()
        ))
    })
}

fn zmq(values: &[String]) -> Result<Way<Vec<ZmqAddress>>, ValueError> {
    if values.len() > MAX_ZMQ {
        return Err(ValueError::new(format!(
            "`zmq` is given {} times; {MAX_ZMQ} addresses are the most",
            values.len()
        )));
    }
    match values {
        [] => Ok(Way::Find),
        [one] if one == "off" => Ok(Way::Off),
        some => {
            let mut addresses: Vec<ZmqAddress> = Vec::new();
            for value in some {
                let address = value.parse()?;
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            Ok(Way::At(addresses))
        }
    }
}

impl<'de> Deserialize<'de> for NodeSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Table)
    }
}

/// Reads a spec from its text or from a table.
struct Table;

impl<'de> Visitor<'de> for Table {
    type Value = NodeSpec;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a [[bitcoind]] table, or the text that the flag takes")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<NodeSpec, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NodeSpec, A::Error> {
        let mut said = Said::default();
        while let Some((key, values)) = map.next_entry::<String, OneOrMany>()? {
            if key != "zmq" && values.0.len() != 1 {
                return Err(A::Error::custom(format!("`{key}` takes one value")));
            }
            for value in values.0 {
                said.set(&key, value).map_err(A::Error::custom)?;
            }
        }
        said.check().map_err(A::Error::custom)
    }
}

/// A text, or a list of them.
struct OneOrMany(Vec<String>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = OneOrMany;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string or a list of strings")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMany, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(OneOrMany(texts))
            }
        }
        deserializer.deserialize_any(Texts)
    }
}
