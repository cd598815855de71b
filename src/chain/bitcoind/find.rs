//! Where bitcoind is by default: what an operator did not say, taken from its datadir and `bitcoin.conf`.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::answer::ZmqNotification;
use super::conf::Conf;
use super::error::one_line;
use super::notice::Topic;
use super::rpc::Credentials;
use crate::chain::Network;
use crate::config::{NodeSpec, PeerAddress, Way};

/// Bytes of a configuration file. Reason: ten thousand lines of a hundred bytes; a larger file is another one.
const MAX_CONF_BYTES: u64 = 1 << 20;
/// Files that one may include. Reason: Core has no bound, and nobody has been seen with more than two.
const MAX_INCLUDES: usize = 16;
/// The host of a node that nothing was said of.
const LOCAL: &str = "127.0.0.1";

/// One line of what a first start has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A way to reach the node.
    Found(String),
    /// A way to reach the node, by what was said or is usual: whether it is there the first try will tell.
    Tries(String),
    /// What would make it faster or possible, and how to get it.
    Lacks(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found(line) => write!(formatter, "found {line}"),
            Self::Tries(line) => write!(formatter, "will try {line}"),
            Self::Lacks(line) => write!(formatter, "lacks {line}"),
        }
    }
}

/// How a node is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Host and port of its RPC, and how to log in there.
    pub rpc: Option<(String, Credentials)>,
    /// Host and port of its P2P side.
    pub p2p: Option<String>,
    /// Host and port of each of its ZMQ publishers.
    pub zmq: Vec<String>,
    /// Its folder with block files, if it is on this machine.
    pub blocks: Option<PathBuf>,
    /// Whether the node is on this machine, as far as its address tells.
    pub is_here: bool,
    /// What was found and what is missing, in the order RPC, P2P, ZMQ.
    pub report: Vec<Finding>,
}

/// Fills in what `spec` leaves open. Reads files, opens no connection: the node need not run.
pub fn find(spec: &NodeSpec, network: Network) -> Found {
    find_below(spec, network, usual_datadir().as_deref())
}

/// Bitcoin Core's default datadir on this system.
pub fn usual_datadir() -> Option<PathBuf> {
    let home = std::env::home_dir();
    if cfg!(target_os = "macos") {
        return home.map(|home| home.join("Library/Application Support/Bitcoin"));
    }
    if cfg!(windows) {
        return home.map(|home| home.join("AppData\\Local\\Bitcoin"));
    }
    home.map(|home| home.join(".bitcoin"))
}

fn find_below(spec: &NodeSpec, network: Network, usual: Option<&Path>) -> Found {
    let rpc_host = match &spec.rpc {
        Way::At(address) => address.host(),
        Way::Off | Way::Find => LOCAL,
    };
    // Files of this machine say nothing of a node on another, and its cookie is none of that node's business.
    let is_here = is_loopback(rpc_host) || spec.datadir.is_some();
    let mut search = Search {
        spec,
        network,
        host: rpc_host,
        datadir: None,
        conf: Conf::default(),
        is_another: false,
        found: Found::default(),
    };
    if is_here {
        search.read_conf(usual);
        search.forget_another();
    }
    search.rpc();
    search.p2p();
    search.zmq();
    search.blocks();
    search.found.is_here = is_here;
    search.found
}

struct Search<'a> {
    spec: &'a NodeSpec,
    network: Network,
    host: &'a str,
    datadir: Option<PathBuf>,
    conf: Conf,
    /// Whether a node was spelled out that is not the one of the default datadir.
    is_another: bool,
    found: Found,
}

impl Search<'_> {
    /// As `-blocksdir` says, or in the datadir; each network has its folder.
    fn blocks(&mut self) {
        let named = self.conf_value("blocksdir").map(PathBuf::from);
        let below = named.or_else(|| self.datadir.clone());
        let folder = below.map(|below| network_folder(&below, self.network));
        // Where only the cookie was told, it lies in the network's folder, unless bitcoind was told otherwise.
        let beside = self.spec.cookie.as_deref().and_then(Path::parent);
        let folder = folder.or_else(|| beside.map(Path::to_owned));
        let blocks = folder.map(|folder| folder.join("blocks"));
        self.found.blocks = blocks.filter(|folder| folder.is_dir());
    }

    fn note_found(&mut self, line: String) {
        self.found.report.push(Finding::Found(one_line(&line)));
    }

    fn note_try(&mut self, line: String) {
        self.found.report.push(Finding::Tries(one_line(&line)));
    }

    fn note_lack(&mut self, line: &str) {
        self.found.report.push(Finding::Lacks(one_line(line)));
    }

    fn read_conf(&mut self, usual: Option<&Path>) {
        let Some(datadir) = self.spec.datadir.as_deref().or(usual) else {
            return self
                .note_lack("a home directory to look for bitcoind's datadir in; give datadir=DIR");
        };
        let datadir = datadir.to_owned();
        if !datadir.is_dir() {
            let shown = datadir.display();
            let needs_files = self.spec.login.is_none() && self.spec.cookie.is_none();
            if self.spec.datadir.is_some() || (needs_files && self.spec.rpc != Way::Off) {
                self.note_lack(&format!(
                    "bitcoind's datadir: {shown} is no folder; give datadir=DIR, or user and password"
                ));
            }
            return;
        }
        self.read_file(&datadir.join("bitcoin.conf"));
        let included: Vec<PathBuf> = self
            .conf
            .values(self.network, "includeconf")
            .take(MAX_INCLUDES)
            .map(|file| datadir.join(file))
            .collect();
        for file in included {
            self.read_file(&file);
        }
        // The file may say that all the rest is elsewhere.
        self.datadir = match (&self.spec.datadir, self.conf.value(self.network, "datadir")) {
            (None, Some(other)) => Some(PathBuf::from(other)),
            _ => Some(datadir),
        };
    }

    /// What lies in the default datadir is of the node that has it: if another one was spelled out, its port says so,
    /// nothing of it is taken.
    fn forget_another(&mut self) {
        if self.spec.datadir.is_some() {
            return;
        }
        let port = |way: &Way<PeerAddress>, usual: u16| match way {
            Way::At(address) => Some(address.port().unwrap_or(usual)),
            Way::Find | Way::Off => None,
        };
        let rpc = port(&self.spec.rpc, self.network.core_rpc_port());
        let p2p = port(&self.spec.p2p, self.network.core_p2p_port());
        let is_it = match (rpc, p2p) {
            (Some(rpc), _) => rpc == self.conf_rpc_port(),
            (None, Some(p2p)) => p2p == self.conf_p2p_port() && self.p2p_is_here(),
            (None, None) => true,
        };
        if !is_it {
            self.is_another = true;
            self.conf = Conf::default();
            self.datadir = None;
        }
    }

    fn p2p_is_here(&self) -> bool {
        match &self.spec.p2p {
            Way::At(address) => is_loopback(address.host()),
            Way::Find | Way::Off => true,
        }
    }

    fn conf_port(&self, key: &str) -> Option<u16> {
        self.conf_value(key).and_then(|port| port.parse().ok())
    }

    /// Where the node of `bitcoin.conf` has its RPC.
    fn conf_rpc_port(&self) -> u16 {
        let bound = || bound_address(self.conf_value("rpcbind")).and_then(|(_, port)| port);
        let port = self.conf_port("rpcport").or_else(bound);
        port.unwrap_or(self.network.core_rpc_port())
    }

    /// Where the node of `bitcoin.conf` listens.
    fn conf_p2p_port(&self) -> u16 {
        let bound = bound_address(self.conf_value("bind")).and_then(|(_, port)| port);
        let port = bound.or_else(|| self.conf_port("port"));
        port.unwrap_or(self.network.core_p2p_port())
    }

    fn read_file(&mut self, path: &Path) {
        match read_text(path) {
            Ok(text) => self.conf.add(&text),
            // Core runs without one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.note_lack(&format!(
                "a readable configuration: {}: {error}; run as bitcoind's user, or say rpc, p2p and zmq",
                path.display()
            )),
        }
    }

    fn conf_value<'b>(&'b self, key: &str) -> Option<&'b str> {
        self.conf.value(self.network, key)
    }

    fn rpc(&mut self) {
        let (host, port) = match &self.spec.rpc {
            Way::Off => return,
            Way::At(address) => (address.host(), address.port()),
            Way::Find if self.is_another => {
                return self.note_lack("an RPC address: only its P2P port was given, and the bitcoind of the usual datadir has another; give rpc=HOST:PORT, or datadir=DIR");
            }
            Way::Find => (self.host, None),
        };
        if self.conf.is_off(self.network, "server") {
            self.note_lack("an RPC server: server=0 stands in bitcoin.conf; take it out");
        }
        let bound = bound_address(self.conf_value("rpcbind"));
        let host = match (&self.spec.rpc, &bound) {
            (Way::Find, Some((bound, _))) => bound.as_str(),
            _ => host,
        };
        let port = port.unwrap_or_else(|| self.conf_rpc_port());
        let address = join(host, port);
        let Some(credentials) = self.credentials() else {
            return self.note_lack(&format!(
                "a login for the RPC at {address}; give cookie=FILE, or user and password"
            ));
        };
        match &credentials {
            Credentials::Login(login) => {
                self.note_try(format!("RPC at {address}, as user {:?}", login.user));
            }
            Credentials::Cookie(path) if path.is_file() => {
                self.note_found(format!("RPC at {address}, by the cookie {}", path.display()));
            }
            Credentials::Cookie(path) => self.note_lack(&format!(
                "the cookie {} for the RPC at {address}: bitcoind does not run, or not there; it is tried again",
                path.display()
            )),
        }
        self.found.rpc = Some((address, credentials));
    }

    /// Whether the node is on another machine and does not have the usual ports.
    fn is_unusual(&self) -> bool {
        let usual = self.network.core_rpc_port();
        let Way::At(rpc) = &self.spec.rpc else {
            return false;
        };
        !is_loopback(rpc.host())
            && self.spec.datadir.is_none()
            && rpc.port().unwrap_or(usual) != usual
    }

    fn credentials(&self) -> Option<Credentials> {
        if let Some(login) = &self.spec.login {
            return Some(Credentials::Login(login.clone()));
        }
        if let Some(path) = &self.spec.cookie {
            return Some(Credentials::Cookie(path.clone()));
        }
        let user = self.conf_value("rpcuser");
        if let (Some(user), Some(password)) = (user, self.conf_value("rpcpassword")) {
            return Some(Credentials::Login(crate::config::Login {
                user: user.to_owned(),
                password: password.to_owned(),
            }));
        }
        if self.conf.is_off(self.network, "rpccookiefile") {
            return None;
        }
        let folder = network_folder(self.datadir.as_deref()?, self.network);
        let file = self.conf_value("rpccookiefile").unwrap_or(".cookie");
        Some(Credentials::Cookie(folder.join(file)))
    }

    fn p2p(&mut self) {
        let address = match &self.spec.p2p {
            Way::Off => return,
            Way::At(address) => address.with_port(self.network.core_p2p_port()),
            Way::Find if self.conf.is_off(self.network, "listen") => {
                return self.note_lack(
                    "a P2P port: listening is off in bitcoin.conf; with listen=1 blocks come and go faster",
                );
            }
            Way::Find if self.is_another || self.is_unusual() => {
                return self.note_lack(
                    "a P2P port: only its RPC was given, at a port of its own; with p2p=HOST:PORT, or datadir=DIR, blocks come and go faster",
                );
            }
            Way::Find => {
                let bound = bound_address(self.conf_value("bind"));
                let host = bound.map_or_else(|| self.host.to_owned(), |(host, _)| host);
                join(&host, self.conf_p2p_port())
            }
        };
        self.note_try(format!("P2P at {address}"));
        self.found.p2p = Some(address);
    }

    fn zmq(&mut self) {
        match &self.spec.zmq {
            Way::Off => {}
            Way::At(addresses) => {
                self.found.zmq = addresses.iter().map(|one| one.host_port()).collect();
                let line = format!("ZMQ at {}", self.found.zmq.join(", "));
                self.note_try(line);
            }
            Way::Find if self.is_another => {
                self.note_lack("ZMQ publishers: none were given for it; with zmq=tcp://HOST:PORT, or datadir=DIR, a block is handed over without being asked for");
            }
            Way::Find => {
                let lines: Vec<ZmqNotification> = Topic::ALL
                    .iter()
                    .flat_map(|topic| {
                        let key = format!("zmqpub{}", topic.name());
                        let values: Vec<String> = self
                            .conf
                            .values(self.network, &key)
                            .map(str::to_owned)
                            .collect();
                        let kind = format!("pub{}", topic.name());
                        values.into_iter().map(move |address| ZmqNotification {
                            kind: kind.clone(),
                            address,
                        })
                    })
                    .collect();
                let (publishers, report) = publishers(&lines, self.host);
                self.found.zmq = publishers;
                self.found.report.extend(report);
            }
        }
    }
}

/// The publishers that `notifications` name (the lines of `bitcoin.conf`, or the answer to `getzmqnotifications`) of a
/// node on `host`, each once, and what to say of them.
pub fn publishers(notifications: &[ZmqNotification], host: &str) -> (Vec<String>, Vec<Finding>) {
    let (mut publishers, mut report, mut topics) = (Vec::new(), Vec::new(), Vec::new());
    for notification in notifications {
        let name = notification.kind.trim_start_matches("pub");
        let Some(topic) = Topic::of_name(name.as_bytes()) else {
            continue;
        };
        let Some(address) = publisher(&notification.address, host) else {
            report.push(Finding::Lacks(one_line(&format!(
                "a usable address for {name}: {} is not tcp://HOST:PORT; add such a line",
                notification.address
            ))));
            continue;
        };
        if !topics.contains(&topic) {
            topics.push(topic);
        }
        if !publishers.contains(&address) {
            publishers.push(address);
        }
    }
    if !topics.is_empty() {
        let names: Vec<&str> = topics.iter().map(|topic| topic.name()).collect();
        report.push(Finding::Found(one_line(&format!(
            "ZMQ at {}: {}",
            publishers.join(", "),
            names.join(", ")
        ))));
    }
    for (topic, use_of_it) in [
        (
            Topic::RawBlock,
            "a block is handed over without being asked for",
        ),
        (Topic::Sequence, "the mempool is kept in step without P2P"),
    ] {
        if !topics.contains(&topic) {
            report.push(Finding::Lacks(format!(
                "zmqpub{}: with a line like zmqpub{}=tcp://127.0.0.1:28332 in bitcoin.conf {use_of_it}",
                topic.name(),
                topic.name()
            )));
        }
    }
    (publishers, report)
}

/// Where to connect to what is published at `address`, which may mean every interface.
fn publisher(address: &str, host: &str) -> Option<String> {
    let rest = address.strip_prefix("tcp://")?;
    let (bound, port) = rest.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
    let bare = bound.trim_start_matches('[').trim_end_matches(']');
    let is_any = bare == "*"
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_unspecified());
    match is_any {
        true => Some(join(host, port)),
        false => {
            let address: PeerAddress = join(bare, port).parse().ok()?;
            Some(address.to_string())
        }
    }
}

/// The address that bitcoind binds, if it is one to connect to, and its port.
fn bound_address(value: Option<&str>) -> Option<(String, Option<u16>)> {
    // What is bound for the onion service takes other connections.
    let value = value?.split('=').next()?;
    let address: PeerAddress = value.parse().ok()?;
    let host = match address.host().parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => LOCAL.to_owned(),
        _ => address.host().to_owned(),
    };
    Some((host, address.port()))
}

fn network_folder(datadir: &Path, network: Network) -> PathBuf {
    match network {
        Network::Main => datadir.to_owned(),
        Network::Testnet3 => datadir.join("testnet3"),
        other => datadir.join(other.name()),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn join(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    let read = File::open(path)?
        .take(MAX_CONF_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if read as u64 > MAX_CONF_BYTES {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests;
