//! A relay node of our own, as a process: its folder, its log, its JSON-RPC; killed when dropped.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::harness::{Bitcoind, PATIENCE};
use super::log::Log;

/// The ways in which a relay reaches its bitcoind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ways {
    pub p2p: bool,
    pub zmq: bool,
    pub rpc: bool,
}

impl Ways {
    /// All three.
    pub const ALL: Self = Self {
        p2p: true,
        zmq: true,
        rpc: true,
    };

    /// Every choice of them but none.
    pub fn every() -> impl Iterator<Item = Self> {
        (1..8).map(|bits| Self {
            p2p: bits & 1 != 0,
            zmq: bits & 2 != 0,
            rpc: bits & 4 != 0,
        })
    }

    /// Whether blocks can be given back: ZMQ only tells.
    pub fn can_give(self) -> bool {
        self.p2p || self.rpc
    }

    /// How a relay is told to reach this bitcoind.
    pub fn to(self, node: &Bitcoind) -> String {
        let (rpc, cookie) = (node.rpc_address(), node.cookie());
        let rpc = match self.rpc {
            true => format!("rpc={rpc},cookie={}", cookie.display()),
            false => "rpc=off".to_owned(),
        };
        let p2p = match self.p2p {
            true => format!("p2p={}", node.p2p()),
            false => "p2p=off".to_owned(),
        };
        let zmq = match self.zmq {
            true => format!("zmq={}", node.zmq()),
            false => "zmq=off".to_owned(),
        };
        [rpc, p2p, zmq].join(",")
    }
}

impl fmt::Display for Ways {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [(self.p2p, "p2p"), (self.zmq, "zmq"), (self.rpc, "rpc")];
        let used: Vec<_> = all.iter().filter(|way| way.0).map(|way| way.1).collect();
        formatter.write_str(&used.join("+"))
    }
}

/// A relay node on regtest.
pub struct Relay {
    child: Child,
    folder: TempDir,
    /// What it logs.
    pub log: Log,
    addresses: Value,
}

impl Relay {
    /// Starts one beside these bitcoinds, with these arguments besides, and waits until it listens.
    pub fn start(bitcoinds: &[String], more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let any = "127.0.0.1:0";
        let mut child = Command::new(env!("CARGO_BIN_EXE_blocktorrent"))
            .args(["node", "--network", "regtest", "--datadir"])
            .arg(folder.path())
            .args(["--control-listen", any, "--data-listen", any])
            .args(["--rpc-listen", any, "--p2p-listen", any])
            .args(["--find-peers", "off"])
            .args(bitcoinds.iter().flat_map(|spec| ["--bitcoind", spec]))
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program under test starts");
        let log = Log::of(child.stderr.take().expect("it is piped"));
        log.wait("listening");
        let file = folder.path().join("regtest/node.json");
        let addresses = std::fs::read(file).expect("it is written before it listens");
        Self {
            child,
            folder,
            log,
            addresses: serde_json::from_slice(&addresses).expect("it is JSON"),
        }
    }

    /// One beside a bitcoind, connected to another relay.
    pub fn beside(node: &Bitcoind, ways: Ways, other: Option<&Self>) -> Self {
        let connect = other.map(Self::control);
        let connect: Vec<&str> = connect
            .iter()
            .flat_map(|address| ["--connect", address])
            .collect();
        Self::start(&[ways.to(node)], &connect)
    }

    fn address(&self, name: &str) -> String {
        let address = self.addresses[name].as_str();
        address.expect("it listens there").to_owned()
    }

    /// Where control connections are taken.
    pub fn control(&self) -> String {
        self.address("control")
    }

    /// Where Electrum wallets are served in this way, as in `tcp://`.
    pub fn wallets(&self, way: &str) -> SocketAddr {
        let listens = self.addresses["electrum"].as_array().expect("a list");
        let mut listens = listens.iter().filter_map(Value::as_str);
        let address = listens.find_map(|address| address.strip_prefix(way));
        address.expect("it listens").parse().expect("an address")
    }

    /// Where Bitcoin's P2P protocol is spoken.
    pub fn p2p(&self) -> SocketAddr {
        self.address("p2p").parse().expect("an address")
    }

    fn cookie(&self) -> PathBuf {
        self.folder.path().join("regtest/.cookie")
    }

    /// A call of its JSON-RPC; the error is its own text.
    pub fn rpc(&self, method: &str, params: Value) -> Result<Value, String> {
        let cookie = std::fs::read_to_string(self.cookie()).map_err(|error| error.to_string())?;
        let secret = base64::engine::general_purpose::STANDARD.encode(cookie.trim());
        let call = json!({ "id": 0, "method": method, "params": params });
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        let answer = agent
            .post(format!("http://{}/", self.address("rpc")))
            .header("authorization", format!("Basic {secret}"))
            .send_json(call)
            .and_then(|mut response| response.body_mut().read_json());
        let answer: Value = answer.map_err(|error| error.to_string())?;
        match answer.get("error") {
            None | Some(Value::Null) => Ok(answer["result"].clone()),
            Some(error) => Err(error.to_string()),
        }
    }

    /// A call that must succeed.
    pub fn call(&self, method: &str, params: Value) -> Value {
        let result = self.rpc(method, params);
        result.unwrap_or_else(|error| panic!("{method}: {error}\n{}", self.log.tail()))
    }

    /// What it says of its bitcoinds.
    pub fn nodes(&self) -> Vec<Value> {
        let info = self.call("getblockchaininfo", json!([]));
        info["bitcoind"].as_array().expect("a list").clone()
    }

    /// Waits until what a call answers is as wanted, and gives that. There is no event for it: so it is asked often.
    pub fn wait_until(&self, method: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.call(method, json!([]));
            if is_wanted(&answer) {
                return answer;
            }
            assert!(
                Instant::now() < until,
                "{method} stays at {answer}\n{}",
                self.log.tail()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it is connected in all of these ways to its bitcoind of this number, and knows its chain.
    pub fn wait_for_node(&self, number: usize, ways: Ways) {
        self.wait_until("getblockchaininfo", |info| {
            let node = &info["bitcoind"][number];
            let connected = [("p2p", ways.p2p), ("zmq", ways.zmq), ("rpc", ways.rpc)];
            let is_known = node["blocks"].is_u64() || !(ways.p2p || ways.rpc);
            is_known && connected.iter().all(|(way, used)| node[*way] == *used)
        });
    }

    /// Waits until its header chain has this tip.
    pub fn wait_for_tip(&self, hash: &str) {
        self.wait_until("getblockchaininfo", |info| info["bestblockhash"] == hash);
    }

    /// Waits until it has sessions with so many peers.
    pub fn wait_for_peers(&self, count: usize) {
        self.wait_until("getpeerinfo", |peers| {
            let peers = peers.as_array().expect("a list").iter();
            peers.filter(|peer| peer["established"] == true).count() >= count
        });
    }

    /// Waits until its cache has so many transactions.
    pub fn wait_for_transactions(&self, count: usize) {
        self.wait_until("getmempoolinfo", |info| {
            info["size"]
                .as_u64()
                .is_some_and(|size| size >= count as u64)
        });
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
