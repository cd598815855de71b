//! What an operator can say: options, from a TOML file and from flags that mean the same.
//!
//! [`Options`] is what was said (every field may be absent), [`Config`] what holds: the flags laid over
//! the file, defaults filled in, the whole checked. One definition serves both sources, so a flag and a
//! key of the file can't drift apart: the key is the flag without its dashes.
//!
//! This module reads no file and no environment: it takes the text. It knows no port either: what
//! depends on the network's parameters stays `None` here, and the node fills it in.

mod bitcoind;
mod electrum;
mod error;
mod find;
mod options;
mod private;
mod values;

pub use bitcoind::{Login, NodeSpec, Way, ZmqAddress};
pub use electrum::{ElectrumAddress, ElectrumOptions, ElectrumTransport};
pub use error::ConfigError;
pub use find::FindOptions;
pub use options::{Options, TestOptions};
pub use private::{Fingerprint, PrivateOptions, PrivatePeer};
pub use values::{
    ExternalAddress, ListenAddress, ListenOrOff, LogFormat, NetworkName, OnOff, PeerAddress, Role,
    TrustedStart, ValueError,
};

use std::net::SocketAddr;
use std::path::PathBuf;

/// Bytes in the "MB" of options: a million, as Bitcoin Core counts its mempool.
pub const BYTES_PER_MB: u64 = 1_000_000;

/// The transactions of a week of full mempools fit; more than this is a typing error.
const MAX_MEMPOOL_MB: u32 = 16_384;
/// A year of full blocks is about 100 GB; the store is for recent ones.
const MAX_STORE_MB: u32 = 100_000;
/// The largest block is 4 MB: a smaller store could keep none for sure.
const MIN_STORE_MB: u32 = 4;
/// What peers are told of the preference unless the operator says: what the BIP takes for granted.
const DEFAULT_PREFERENCE: u8 = 128;
/// Each peer may cost the engine some megabytes while jobs run; above this the machine is the limit.
const MAX_MAX_PEERS: u32 = 1_024;
/// 100 Gbit/s: no socket here goes faster, so a larger number is a typing error.
const MAX_RATE_MBIT: u32 = 100_000;
/// The push levels of the protocol: announce, tree, short ids, missing transactions.
const MAX_PUSH_LEVEL: u8 = 3;
/// As many peers as the dialler keeps connected.
const MAX_CONNECT: usize = 64;
/// Bitcoin nodes: more than these beside one relay is a typing error, and each costs some connections.
const MAX_BITCOIND: usize = 8;
/// The bit of nServices that tells peers of this protocol, unless configured.
const SERVICE_BIT: u8 = 30;
/// Bitcoin Core leaves bits 24 to 31 to temporary experiments (`protocol.h`); a lower one could come to mean
/// something else.
const MIN_SERVICE_BIT: u8 = 24;
/// The highest bit that Bitcoin Core leaves to experiments. Nothing says that those above are free.
const MAX_SERVICE_BIT: u8 = 31;
/// The whole name told to peers has at most 64 bytes, and the program's own part is half of it.
const MAX_COMMENT: usize = 32;

/// The options of a node, complete and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where everything is kept; `None`: `~/.blocktorrent`.
    pub datadir: Option<PathBuf>,
    /// The Bitcoin network whose blocks are relayed.
    pub network: NetworkName,
    /// Where peers' TCP control connections are accepted; `None`: every address, the network's port.
    pub control_listen: Option<SocketAddr>,
    /// The UDP socket; `None`: the address of `control_listen`.
    pub data_listen: Option<SocketAddr>,
    /// Where Bitcoin's P2P protocol is served; `None`: every address, the network's port.
    pub p2p_listen: Option<ListenOrOff>,
    /// The JSON-RPC server, on loopback; `None`: 127.0.0.1, the network's port.
    pub rpc_listen: Option<SocketAddr>,
    /// Peers to which the node keeps a connection.
    pub connect: Vec<PeerAddress>,
    /// Links to peers whose keys are pinned.
    pub private: PrivateOptions,
    /// The Electrum server.
    pub electrum: ElectrumOptions,
    /// The operator's Bitcoin nodes, the preferred one first, each once.
    pub bitcoind: Vec<NodeSpec>,
    /// How peers are found.
    pub find: FindOptions,
    /// The bit of nServices by which nodes of this protocol find each other on Bitcoin's network, 24 to 31.
    pub service_bit: u8,
    /// User and password for RPC beside the cookie.
    pub rpc_login: Option<(String, String)>,
    /// A start for the header chain near the tip; `None`: the genesis block.
    pub trusted_start: Option<TrustedStart>,
    /// Bound of the transactions held, in bytes.
    pub max_mempool_bytes: u64,
    /// Bound of the blocks kept on disk, in bytes.
    pub store_bytes: u64,
    /// Bound of the sessions, inbound and outbound together.
    pub max_peers: u32,
    /// Of these, slots that no inbound session gets.
    pub reserved_outbound: u32,
    /// Bound of the inbound sessions from one network group (/16 of IPv4, /32 of IPv6).
    pub max_per_group: u32,
    /// How much peers may push unasked, 0 (announcement only) to 3 (all that may be missing).
    pub push_level: u8,
    /// What this node asks peers to stay below when they send to it, in kbit/s; `None`: no limit.
    pub max_down_kbit: Option<u64>,
    /// What this node stays below when it sends, in kbit/s; `None`: no limit.
    pub max_up_kbit: Option<u64>,
    /// What is added to the name that peers are told.
    pub comment: Option<String>,
    /// What peers are told this node is.
    pub role: Role,
    /// 0 (spare bandwidth) to 255 (spare latency), as peers are told.
    pub preference: u8,
    /// The filter of the log, in `tracing`'s syntax.
    pub log: String,
    /// The form of a log line.
    pub log_format: LogFormat,
    /// What tests and the demo set.
    pub test: TestOptions,
}

impl Config {
    /// Fills in the defaults of `options` and checks them.
    ///
    /// # Errors
    ///
    /// The first value that makes no sense, with what to do about it.
    pub fn resolve(options: Options) -> Result<Self, ConfigError> {
        let rpc_listen = options.rpc_listen.map(|address| address.0);
        if let Some(address) = rpc_listen.filter(|address| !address.ip().is_loopback()) {
            return Err(ConfigError::RpcNotLoopback(address));
        }
        check_test_options(&options.test)?;
        let max_peers = in_range("max-peers", options.max_peers, 64, 1, MAX_MAX_PEERS)?;
        let find = FindOptions::resolve(&options, max_peers)?;
        let private = PrivateOptions::resolve(&options)?;
        let electrum = ElectrumOptions::resolve(&options)?;
        let max_mempool_mb = in_range(
            "max-mempool-mb",
            options.max_mempool_mb,
            300,
            1,
            MAX_MEMPOOL_MB,
        )?;
        let store_mb = in_range(
            "store-mb",
            options.store_mb,
            1_000,
            MIN_STORE_MB,
            MAX_STORE_MB,
        )?;
        Ok(Self {
            datadir: datadir(options.datadir)?,
            network: options.network.unwrap_or_default(),
            control_listen: options.control_listen.map(|address| address.0),
            data_listen: options.data_listen.map(|address| address.0),
            rpc_listen,
            p2p_listen: options.p2p_listen,
            connect: distinct("connect", options.connect, MAX_CONNECT)?,
            private,
            electrum,
            bitcoind: distinct("bitcoind", options.bitcoind, MAX_BITCOIND)?,
            find,
            service_bit: in_range(
                "service-bit",
                options.service_bit,
                SERVICE_BIT,
                MIN_SERVICE_BIT,
                MAX_SERVICE_BIT,
            )?,
            rpc_login: login(options.rpc_user, options.rpc_password)?,
            trusted_start: options.trusted_start,
            max_mempool_bytes: u64::from(max_mempool_mb) * BYTES_PER_MB,
            store_bytes: u64::from(store_mb) * BYTES_PER_MB,
            max_peers,
            reserved_outbound: reserved(options.reserved_outbound, max_peers)?,
            max_per_group: in_range("max-per-group", options.max_per_group, 8, 1, MAX_MAX_PEERS)?,
            push_level: in_range(
                "push-level",
                options.push_level,
                MAX_PUSH_LEVEL,
                0,
                MAX_PUSH_LEVEL,
            )?,
            max_down_kbit: rate("max-down-mbit", options.max_down_mbit)?,
            max_up_kbit: rate("max-up-mbit", options.max_up_mbit)?,
            comment: comment(options.uacomment)?,
            role: options.role.unwrap_or_default(),
            preference: options.preference.unwrap_or(DEFAULT_PREFERENCE),
            log: options.log.unwrap_or_else(|| "info".to_owned()),
            log_format: options.log_format.unwrap_or_default(),
            test: options.test,
        })
    }
}

/// An empty path would be the folder in which the node happens to be started.
fn datadir(path: Option<PathBuf>) -> Result<Option<PathBuf>, ConfigError> {
    match path {
        Some(path) if path.as_os_str().is_empty() => Err(ConfigError::Senseless(
            "`datadir` is empty; leave it away, or name a folder".to_owned(),
        )),
        path => Ok(path),
    }
}

/// More slots than there are can't be kept from inbound sessions.
fn reserved(given: Option<u32>, max_peers: u32) -> Result<u32, ConfigError> {
    in_range("reserved-outbound", given, 8.min(max_peers), 0, max_peers)
}

/// The value given for option `name`, or its default, if it lies between `least` and `most`.
fn in_range<T>(
    name: &'static str,
    given: Option<T>,
    default: T,
    least: T,
    most: T,
) -> Result<T, ConfigError>
where
    T: Copy + PartialOrd + Into<u64>,
{
    let value = given.unwrap_or(default);
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(ConfigError::OutOfRange {
        name,
        value: value.into(),
        least: least.into(),
        most: most.into(),
    })
}

/// A rate in Mbit/s as kbit/s.
fn rate(name: &'static str, mbit: Option<u32>) -> Result<Option<u64>, ConfigError> {
    let Some(mbit) = mbit else { return Ok(None) };
    let mbit = in_range(name, Some(mbit), 1, 1, MAX_RATE_MBIT)?;
    Ok(Some(u64::from(mbit) * 1_000))
}

/// What was given for option `name`, each once, in the order given.
fn distinct<T: PartialEq>(
    name: &'static str,
    given: Vec<T>,
    most: usize,
) -> Result<Vec<T>, ConfigError> {
    if given.len() > most {
        return Err(ConfigError::OutOfRange {
            name,
            value: given.len() as u64,
            least: 0,
            most: most as u64,
        });
    }
    let mut kept: Vec<T> = Vec::new();
    for one in given {
        if !kept.contains(&one) {
            kept.push(one);
        }
    }
    Ok(kept)
}

/// The characters are those that Bitcoin Core takes here.
fn comment(text: Option<String>) -> Result<Option<String>, ConfigError> {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b" .,;-_?@".contains(&byte);
    match text {
        Some(text) if text.len() > MAX_COMMENT || !text.bytes().all(is_safe) => {
            Err(ConfigError::Comment(text.escape_default().to_string()))
        }
        other => Ok(other.filter(|text| !text.is_empty())),
    }
}

/// User and password belong together, and the user ends at the first colon of a Basic credential.
fn login(
    user: Option<String>,
    password: Option<String>,
) -> Result<Option<(String, String)>, ConfigError> {
    match (user, password) {
        (None, None) => Ok(None),
        (Some(user), _) if user.is_empty() || user.contains(':') => Err(ConfigError::BadUser(user)),
        (Some(_), Some(password)) if password.is_empty() => Err(ConfigError::EmptyPassword),
        (Some(user), Some(password)) => Ok(Some((user, password))),
        (Some(_), None) => Err(ConfigError::Alone("rpc-user", "rpc-password")),
        (None, Some(_)) => Err(ConfigError::Alone("rpc-password", "rpc-user")),
    }
}

fn check_test_options(test: &TestOptions) -> Result<(), ConfigError> {
    let percent = test.emulate_loss.unwrap_or(0.0);
    if !(0.0..=100.0).contains(&percent) {
        return Err(ConfigError::Emulation(
            "emulate-loss",
            "a percentage from 0 to 100",
        ));
    }
    let delay_ms = test.emulate_delay_ms.unwrap_or(0.0);
    if !(0.0..=60_000.0).contains(&delay_ms) {
        return Err(ConfigError::Emulation(
            "emulate-delay-ms",
            "milliseconds from 0 to 60000",
        ));
    }
    let rate_mbit = test.emulate_rate_mbit.unwrap_or(1.0);
    if !(0.01..=100_000.0).contains(&rate_mbit) {
        return Err(ConfigError::Emulation(
            "emulate-rate-mbit",
            "Mbit/s from 0.01 to 100000",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
