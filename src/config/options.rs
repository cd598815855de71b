//! Options as they were said, on the command line or in the file.

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;
use toml::de::DeTable;

use super::bitcoind::NodeSpec;
use super::electrum::ElectrumAddress;
use super::error::ConfigError;
use super::private::{Fingerprint, PrivatePeer};
use super::values::{
    ExternalAddress, ListenAddress, ListenOrOff, LogFormat, NetworkName, OnOff, PeerAddress, Role,
    TrustedStart,
};

/// What an operator said: each option at most once, lists as often as they like.
#[derive(Args, Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Options {
    /// Read options from this TOML file [default: DATADIR/blocktorrent.toml, if there is one]
    ///
    /// A key is the name of a flag without its dashes; a flag overrides a key, and lists add up.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// Keep blocks, lock, cookie and ports below this directory [default: ~/.blocktorrent]
    ///
    /// Networks other than main have a folder of their own in it.
    #[arg(long, value_name = "DIR")]
    pub datadir: Option<PathBuf>,

    /// Relay blocks of this network: main, test, testnet4, signet or regtest [default: main]
    ///
    /// Bitcoin Core's names; mainnet, testnet and testnet3 are understood too.
    #[arg(long, value_name = "NAME")]
    pub network: Option<NetworkName>,

    /// Accept peers' control connections here, TCP [default: 0.0.0.0 and the network's port]
    ///
    /// Port 0 lets the system pick; the node writes what it got into node.json in the datadir.
    #[arg(long, value_name = "IP:PORT")]
    pub control_listen: Option<ListenAddress>,

    /// Exchange data with peers here, UDP [default: the address and port of control-listen]
    ///
    /// If the system picked that port and it is taken for UDP, it picks another.
    #[arg(long, value_name = "IP:PORT")]
    pub data_listen: Option<ListenAddress>,

    /// Serve Bitcoin's own P2P protocol here, TCP; or off [default: 0.0.0.0 and the network's port]
    ///
    /// Ordinary nodes get headers and recent blocks, and nodes of this protocol find each other.
    #[arg(long, value_name = "IP:PORT|off")]
    pub p2p_listen: Option<ListenOrOff>,

    /// Serve JSON-RPC here; loopback only [default: 127.0.0.1 and the network's RPC port]
    #[arg(long, value_name = "IP:PORT")]
    pub rpc_listen: Option<ListenAddress>,

    /// Keep a connection to this peer; may be given many times
    ///
    /// Unlike Bitcoin Core's option of this name it does not keep the node from looking for others: see find-peers.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub connect: Vec<PeerAddress>,

    /// Accept private links here, QUIC over UDP; no port is usual [default: nowhere]
    ///
    /// Private links are encrypted, and both ends know each other by pinned keys: see quic-allow and quic-peer.
    /// It can't be the port of data-listen. The key is in DATADIR/quic.key, made at the first start that needs it.
    #[arg(long, value_name = "IP:PORT")]
    pub quic_listen: Option<ListenAddress>,

    /// Keep a private link to this peer, known by its key; may be given many times
    ///
    /// `blocktorrent cli getkey` gives the text on the peer's side. The peer must allow this node's key in turn.
    #[arg(long, value_name = "FINGERPRINT@HOST:PORT")]
    pub quic_peer: Vec<PrivatePeer>,

    /// Accept private links from the holder of this key; may be given many times
    ///
    /// Those of quic-peer are accepted anyway, and all others are refused before anything is said. Who is accepted gets
    /// a slot before any stranger; of more than max-peers the last to come are refused, and the log says so.
    #[arg(long, value_name = "FINGERPRINT")]
    pub quic_allow: Vec<Fingerprint>,

    /// Serve Electrum wallets here: tcp://IP:PORT, ssl://, ws:// or wss://; may be given many times [default: nowhere]
    ///
    /// Needs an unpruned bitcoind on this machine, its RPC and its block files; neither txindex nor a second copy of the chain.
    /// The index is in DATADIR/electrum, about a tenth of the chain's size. Usual ports: 50001 tcp, 50002 ssl.
    #[arg(long, value_name = "HOW://IP:PORT")]
    pub electrum_listen: Vec<ElectrumAddress>,

    /// Use so much memory for what Electrum wallets ask again, and for building the index, in MB [default: 512]
    #[arg(long, value_name = "MB")]
    pub electrum_cache_mb: Option<u32>,

    /// Show wallets this certificate, PEM, read anew when it changes [default: one that is made and kept in DATADIR]
    #[arg(long, value_name = "FILE")]
    pub electrum_cert: Option<PathBuf>,

    /// The key of electrum-cert, PEM
    #[arg(long, value_name = "FILE")]
    pub electrum_key: Option<PathBuf>,

    /// Greet wallets with the text of this file
    ///
    /// $SERVER_VERSION, $DAEMON_VERSION and $DONATION_ADDRESS in it are filled in, as in ElectrumX. It is read anew when it
    /// changes; `cli setelectrumbanner` reads it at once, or takes another text.
    #[arg(long, value_name = "FILE")]
    pub electrum_banner: Option<PathBuf>,

    /// Tell wallets and other Electrum servers that this one is reached by this name; may be given many times
    ///
    /// The ports are those of electrum-listen, except those on loopback.
    #[arg(long, value_name = "NAME")]
    pub electrum_host: Vec<String>,

    /// Look at this Electrum server to begin with, and whom it tells of; may be given many times [default: none]
    ///
    /// Its port for TLS, 50002 by default. Whoever is found good is told of to wallets, and looked at again every three hours.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub electrum_peer: Vec<PeerAddress>,

    /// Look at other Electrum servers, tell wallets of them, and name this one to them: on or off
    ///
    /// By default on if there is an electrum-host or an electrum-peer. A server is told of only if it serves the same chain and
    /// lists the name that it was reached by; one that names itself must do so from an address of that name.
    #[arg(long, value_name = "on|off")]
    pub electrum_peers: Option<OnOff>,

    /// Serve at most so many Electrum wallets at a time [default: 10000]
    ///
    /// An idle one takes some 30 kB. Of one network (/24, /48) are at most a fortieth, or 8 if that is more.
    #[arg(long, value_name = "COUNT")]
    pub electrum_max_sessions: Option<u32>,

    /// Let a wallet wait before its next call once it costs so much, 0 for never [default: 1000]
    ///
    /// As in ElectrumX: a transaction told costs 1, so do 5,000 bytes; what a wallet costs falls by 1 a second, and others of
    /// its network weigh on it with a quarter of what they cost.
    #[arg(long, value_name = "UNITS")]
    pub electrum_cost_soft: Option<u32>,

    /// Disconnect a wallet once it costs so much; without meaning if electrum-cost-soft is 0 [default: 10000]
    #[arg(long, value_name = "UNITS")]
    pub electrum_cost_hard: Option<u32>,

    /// Tell wallets of this address for donations
    #[arg(long, value_name = "ADDRESS")]
    pub electrum_donation: Option<String>,

    /// Look for other nodes of this protocol, and tell them of this one: on or off [default: on]
    ///
    /// They are found among the ordinary nodes of Bitcoin's network by a bit of nServices, and through each other.
    /// With off there are only the peers of connect and addnode, and whoever connects to this node.
    #[arg(long, value_name = "on|off")]
    pub find_peers: Option<OnOff>,

    /// Ask the DNS seeds of Bitcoin's network when no addresses are at hand: on or off [default: on; regtest: off]
    #[arg(long, value_name = "on|off")]
    pub dns_seed: Option<OnOff>,

    /// Use the addresses that come with the program when nothing else helps: on or off [default: on; regtest: off]
    #[arg(long, value_name = "on|off")]
    pub fixed_seeds: Option<OnOff>,

    /// Ask this node of Bitcoin's network for addresses at the start; may be given many times
    ///
    /// The port, if none is given, is Bitcoin Core's on that network.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub seed_node: Vec<PeerAddress>,

    /// Tell others that this node is to be found at this IP address; may be given many times
    ///
    /// The ports told are those listened on. If none is given, what two peers of different networks see is told.
    #[arg(long, value_name = "IP")]
    pub external_ip: Vec<ExternalAddress>,

    /// Hold so many sessions with nodes of this protocol that this node found itself [default: 8]
    ///
    /// Those of connect and addnode do not count; at most half of max-peers are found.
    #[arg(long, value_name = "COUNT")]
    pub outbound_relays: Option<u8>,

    /// Listen to so many ordinary nodes for addresses, of which one stays when enough was found [default: 2]
    #[arg(long, value_name = "COUNT")]
    pub outbound_nodes: Option<u8>,

    /// Dial private and loopback addresses that others tell of: on or off [default: off; regtest: on]
    #[arg(long, value_name = "on|off")]
    pub private_addresses: Option<OnOff>,

    /// A Bitcoin node of your own, the preferred one first; may be given many times
    ///
    /// SPEC is `auto`, or pairs with commas between them, all of them optional:
    /// rpc=HOST:PORT,cookie=FILE,user=NAME,password=SECRET,p2p=HOST:PORT,zmq=tcp://HOST:PORT,datadir=DIR.
    /// What is not said is looked for where bitcoind has it by default: its datadir, bitcoin.conf, cookie and ports.
    /// rpc=off, p2p=off and zmq=off leave that way unused; zmq may be repeated.
    /// In the file the same keys may stand in a table that begins with `[[bitcoind]]`.
    #[arg(long, value_name = "SPEC")]
    pub bitcoind: Vec<NodeSpec>,

    /// The bit of nServices, 24 to 31, that tells others on Bitcoin's network of this protocol [default: 30]
    #[arg(long, value_name = "BIT")]
    pub service_bit: Option<u8>,

    /// Let this user call RPC, beside whoever can read the cookie file; needs rpc-password
    #[arg(long, value_name = "NAME")]
    pub rpc_user: Option<String>,

    /// The password of rpc-user; other users of the machine can see flags, so prefer the file
    #[arg(long, value_name = "PASSWORD")]
    pub rpc_password: Option<String>,

    /// Begin the header chain at this block instead of genesis
    ///
    /// HASH is trusted: take it from a node of your own, as the lines at the end of `node --help` do.
    /// BITS is the compact target of its child in hex;
    /// EPOCH_START_TIME is the time of the first block of the child's difficulty period, without which
    /// the chain can't cross the next retarget; TIME is the block's own, needed if it ends a period.
    #[arg(long, value_name = "HEIGHT,HASH,BITS[,EPOCH_START_TIME[,TIME]]")]
    pub trusted_start: Option<TrustedStart>,

    /// Hold at most so many megabytes of transactions [default: 300]
    #[arg(long, value_name = "MB")]
    pub max_mempool_mb: Option<u32>,

    /// Keep recent blocks on disk up to so many megabytes [default: 1000]
    #[arg(long, value_name = "MB")]
    pub store_mb: Option<u32>,

    /// Hold at most so many sessions, inbound and outbound together [default: 64]
    ///
    /// Private links count, and get their slots before strangers.
    #[arg(long, value_name = "COUNT")]
    pub max_peers: Option<u32>,

    /// Keep so many of these sessions for peers that this node connects to, at most half [default: 8]
    #[arg(long, value_name = "COUNT")]
    pub reserved_outbound: Option<u32>,

    /// Hold at most so many inbound sessions from one network group, /16 of IPv4 or /32 of IPv6 [default: 8]
    #[arg(long, value_name = "COUNT")]
    pub max_per_group: Option<u32>,

    /// What peers may send unasked: 0 announcement, 1 tree, 2 short ids, 3 missing transactions [default: 3]
    #[arg(long, value_name = "LEVEL")]
    pub push_level: Option<u8>,

    /// Send no faster than this to all peers together [default: no limit]
    #[arg(long, value_name = "MBIT")]
    pub max_up_mbit: Option<u32>,

    /// Ask each peer to send no faster than this [default: no limit]
    #[arg(long, value_name = "MBIT")]
    pub max_down_mbit: Option<u32>,

    /// Add this to the name that peers are told, as Bitcoin Core's option does
    #[arg(long, value_name = "TEXT")]
    pub uacomment: Option<String>,

    /// What peers are told this node is: relay, miner, operator or researcher [default: relay]
    #[arg(long, value_name = "ROLE")]
    pub role: Option<Role>,

    /// What to spare, from 0 (bandwidth) to 255 (time) [default: 128]
    #[arg(long, value_name = "0..255")]
    pub preference: Option<u8>,

    /// What to log, to stderr: error, warn, info, debug, trace, or a filter per module [default: info]
    ///
    /// As in --log blocktorrent::relay=debug,info. The variable RUST_LOG is not looked at.
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,

    /// The form of a log line: full, compact or json [default: full]
    ///
    /// compact leaves out time and module, for a service manager that adds the time itself.
    #[arg(long, value_name = "FORM")]
    pub log_format: Option<LogFormat>,

    /// Options that the demo and tests set; flags only.
    #[command(flatten)]
    #[serde(skip)]
    pub test: TestOptions,
}

/// What tests and the demo ask of a node; neither shown by `--help` nor read from a file.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct TestOptions {
    /// Lose this percentage of the datagrams that leave.
    #[arg(long, hide = true, value_name = "PCT")]
    pub emulate_loss: Option<f64>,
    /// Let everything that leaves wait so long.
    #[arg(long, hide = true, value_name = "MS")]
    pub emulate_delay_ms: Option<f64>,
    /// Let no more leave than this.
    #[arg(long, hide = true, value_name = "MBIT")]
    pub emulate_rate_mbit: Option<f64>,
    /// The seed of what is lost.
    #[arg(long, hide = true, value_name = "SEED")]
    pub emulate_seed: Option<u64>,
    /// Alter what is forwarded: a liar among the peers.
    #[arg(long, hide = true)]
    pub test_lie: bool,
    /// Write the engine's events to stdout, one JSON object per line.
    #[arg(long, hide = true)]
    pub events_stdout: bool,
    /// Stop when stdin ends, so that no node outlives whoever started it.
    #[arg(long, hide = true)]
    pub stop_at_eof: bool,
}

impl Options {
    /// Reads the options of the TOML file `file`, whose content is `text`.
    ///
    /// # Errors
    ///
    /// The first line that is no TOML, no option, or no value of its option.
    pub fn from_toml(file: &str, text: &str) -> Result<Self, ConfigError> {
        let fail = |error: toml::de::Error| ConfigError::File {
            file: file.to_owned(),
            line: line_at(text, error.span().map_or(0, |span| span.start)),
            problem: with_key(text, &error),
        };
        let table = DeTable::parse(text).map_err(fail)?;
        let known = Self::keys();
        let unknown = table
            .get_ref()
            .keys()
            .filter(|key| !known.iter().any(|name| *name == *key.get_ref()))
            .min_by_key(|key| key.span().start);
        if let Some(key) = unknown {
            return Err(ConfigError::UnknownKey {
                file: file.to_owned(),
                line: line_at(text, key.span().start),
                key: one_line(key.get_ref()),
                advice: advice(key.get_ref(), &known),
            });
        }
        toml::from_str(text).map_err(fail)
    }

    /// Every key that a file may have, in the order of `--help`.
    pub fn keys() -> Vec<String> {
        Self::augment_args(clap::Command::new("options"))
            .get_arguments()
            .filter(|argument| !argument.is_hide_set())
            .filter_map(|argument| argument.get_long())
            .filter(|name| *name != "config")
            .map(str::to_owned)
            .collect()
    }

    /// These options, and where they say nothing, those of `below`. Lists add up, these first.
    pub fn over(mut self, below: Self) -> Self {
        self.connect.extend(below.connect);
        self.quic_peer.extend(below.quic_peer);
        self.quic_allow.extend(below.quic_allow);
        self.bitcoind.extend(below.bitcoind);
        self.electrum_listen.extend(below.electrum_listen);
        self.electrum_host.extend(below.electrum_host);
        self.electrum_peer.extend(below.electrum_peer);
        self.seed_node.extend(below.seed_node);
        self.external_ip.extend(below.external_ip);
        Self {
            config: self.config.or(below.config),
            datadir: self.datadir.or(below.datadir),
            network: self.network.or(below.network),
            control_listen: self.control_listen.or(below.control_listen),
            data_listen: self.data_listen.or(below.data_listen),
            rpc_listen: self.rpc_listen.or(below.rpc_listen),
            p2p_listen: self.p2p_listen.or(below.p2p_listen),
            connect: self.connect,
            quic_listen: self.quic_listen.or(below.quic_listen),
            quic_peer: self.quic_peer,
            quic_allow: self.quic_allow,
            bitcoind: self.bitcoind,
            electrum_listen: self.electrum_listen,
            electrum_cache_mb: self.electrum_cache_mb.or(below.electrum_cache_mb),
            electrum_cert: self.electrum_cert.or(below.electrum_cert),
            electrum_key: self.electrum_key.or(below.electrum_key),
            electrum_banner: self.electrum_banner.or(below.electrum_banner),
            electrum_host: self.electrum_host,
            electrum_peer: self.electrum_peer,
            electrum_peers: self.electrum_peers.or(below.electrum_peers),
            electrum_max_sessions: self.electrum_max_sessions.or(below.electrum_max_sessions),
            electrum_cost_soft: self.electrum_cost_soft.or(below.electrum_cost_soft),
            electrum_cost_hard: self.electrum_cost_hard.or(below.electrum_cost_hard),
            electrum_donation: self.electrum_donation.or(below.electrum_donation),
            find_peers: self.find_peers.or(below.find_peers),
            dns_seed: self.dns_seed.or(below.dns_seed),
            fixed_seeds: self.fixed_seeds.or(below.fixed_seeds),
            seed_node: self.seed_node,
            external_ip: self.external_ip,
            outbound_relays: self.outbound_relays.or(below.outbound_relays),
            outbound_nodes: self.outbound_nodes.or(below.outbound_nodes),
            private_addresses: self.private_addresses.or(below.private_addresses),
            service_bit: self.service_bit.or(below.service_bit),
            rpc_user: self.rpc_user.or(below.rpc_user),
            rpc_password: self.rpc_password.or(below.rpc_password),
            trusted_start: self.trusted_start.or(below.trusted_start),
            max_mempool_mb: self.max_mempool_mb.or(below.max_mempool_mb),
            store_mb: self.store_mb.or(below.store_mb),
            max_peers: self.max_peers.or(below.max_peers),
            reserved_outbound: self.reserved_outbound.or(below.reserved_outbound),
            max_per_group: self.max_per_group.or(below.max_per_group),
            push_level: self.push_level.or(below.push_level),
            max_up_mbit: self.max_up_mbit.or(below.max_up_mbit),
            max_down_mbit: self.max_down_mbit.or(below.max_down_mbit),
            uacomment: self.uacomment.or(below.uacomment),
            role: self.role.or(below.role),
            preference: self.preference.or(below.preference),
            log: self.log.or(below.log),
            log_format: self.log_format.or(below.log_format),
            test: self.test,
        }
    }
}

/// The line of the byte at `offset`, counted from 1.
fn line_at(text: &str, offset: usize) -> usize {
    1 + text
        .bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
}

/// What a parser says of a value, and what it should say to whoever wrote the value.
const EXPECTED: &[(&str, &str)] = &[
    ("a sequence", "give a list, as in [\"...\"]"),
    ("a string", "give text in quotes"),
    ("path string", "give text in quotes"),
    ("u8", "give a whole number from 0 to 255, without quotes"),
    ("u32", "give a whole number, 0 or more, without quotes"),
];

/// The message of a parser, in words that need no knowledge of its types.
fn plain(message: &str) -> String {
    let advice = message.rsplit_once(", expected ").and_then(|(_, what)| {
        let known = EXPECTED.iter().find(|(expected, _)| *expected == what);
        known.map(|(_, advice)| *advice)
    });
    advice.map_or_else(|| one_line(message), str::to_owned)
}

/// The error in one line, with the line of the file that it speaks of.
fn with_key(text: &str, error: &toml::de::Error) -> String {
    let message = plain(error.message());
    let offset = error.span().map_or(0, |span| span.start);
    let line = text
        .lines()
        .nth(line_at(text, offset) - 1)
        .unwrap_or_default();
    match line.split_once('=') {
        Some((key, _)) => format!("{}: {message}", one_line(key.trim())),
        None => message,
    }
}

/// `text` without line breaks and other control characters, and not too long for one line.
fn one_line(text: &str) -> String {
    let clean = |character: char| {
        if character.is_control() {
            ' '
        } else {
            character
        }
    };
    text.chars().map(clean).take(300).collect()
}

/// What someone may have meant who wrote `key`.
fn advice(key: &str, known: &[String]) -> String {
    let plain = key.replace('_', "-").to_ascii_lowercase();
    let nearest = known
        .iter()
        .map(|name| (distance(&plain, name), name))
        .min();
    match nearest {
        Some((apart, name)) if apart <= 3 && apart < name.len() => {
            format!("did you mean `{name}`?")
        }
        _ => "`blocktorrent node --print-config` lists them all".to_owned(),
    }
}

/// How many letters must be added, removed or changed to make `left` into `right`.
///
/// Both are short: what can't be near is not compared.
fn distance(left: &str, right: &str) -> usize {
    if left.len().abs_diff(right.len()) > 3 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, a) in left.bytes().enumerate() {
        let mut diagonal = line;
        let mut previous = line + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(right.bytes()) {
            let replaced = diagonal + usize::from(a != b);
            diagonal = *cell;
            *cell = replaced.min(diagonal + 1).min(previous + 1);
            previous = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}
