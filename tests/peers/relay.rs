//! A node of ours as a process: its events, its log, its JSON-RPC; killed when dropped.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use bitcoin::BlockHash;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::lines::{Lines, PATIENCE};

/// One node.
pub struct Relay {
    child: Child,
    folder: TempDir,
    network: &'static str,
    events: Lines,
    /// The number of the next event to look at.
    next: usize,
    /// What it logs.
    pub log: Lines,
    /// Where it takes peers of the relay.
    pub control: String,
    /// Where it speaks Bitcoin's P2P protocol.
    pub p2p: SocketAddr,
    rpc: SocketAddr,
}

impl Relay {
    /// Starts one on regtest, on ports that the system picks, and waits until it is ready.
    pub fn start(more: &[&str]) -> Self {
        Self::start_on("regtest", more)
    }

    /// Starts one on `main` or `regtest`.
    pub fn start_on(network: &'static str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let any = "127.0.0.1:0";
        let mut child = Command::new(env!("CARGO_BIN_EXE_blocktorrent"))
            .arg("node")
            .arg("--datadir")
            .arg(folder.path())
            .args(["--network", network, "--control-listen", any])
            .args(["--data-listen", any, "--rpc-listen", any])
            .args(["--p2p-listen", any, "--find-peers", "off"])
            .args(["--events-stdout", "--stop-at-eof"])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let events = Lines::of(child.stdout.take().expect("it is piped"));
        let log = Lines::of(child.stderr.take().expect("it is piped"));
        let ready = events.wait(0, |line| named(line, "ready"));
        let (ready, next) =
            ready.unwrap_or_else(|| panic!("the node does not start:\n{}", log.tail()));
        let address = |name: &str| ready[name].as_str().expect("it listens").to_owned();
        Self {
            child,
            folder,
            network,
            events,
            next,
            log,
            control: address("control"),
            p2p: address("p2p").parse().expect("an address"),
            rpc: address("rpc").parse().expect("an address"),
        }
    }

    /// The number of its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the next event of that name for which `pick` holds; earlier ones are not looked at again.
    pub fn event(&mut self, name: &str, pick: impl Fn(&Value) -> bool) -> Value {
        let found = self
            .events
            .wait(self.next, |line| named(line, name).filter(&pick));
        let (event, next) =
            found.unwrap_or_else(|| panic!("no `{name}` in time:\n{}", self.log.tail()));
        self.next = next;
        event
    }

    /// Waits until it has a block whole, and gives the event.
    pub fn complete(&mut self, hash: BlockHash) -> Value {
        let hash = json!(hash);
        self.event("complete", |event| event["job"] == hash)
    }

    /// All its events of that name, once it has ended.
    pub fn end(mut self, name: &str) -> Vec<Value> {
        self.call("stop", json!([]));
        let status = self.child.wait().expect("it is our child");
        assert!(status.success(), "{}", self.log.tail());
        let lines = self.events.all();
        lines.iter().filter_map(|line| named(line, name)).collect()
    }

    /// Joins it with another, and waits until both know it and data goes by UDP.
    pub fn join(&mut self, other: &mut Self) {
        self.call("addnode", json!([other.control, "add"]));
        for node in [self, other] {
            node.event("path", |event| event["udp"] == true);
        }
    }

    /// A call of its JSON-RPC; the error is its own text.
    pub fn rpc(&self, method: &str, params: Value) -> Result<Value, String> {
        let folder = match self.network {
            "main" => self.folder.path().to_owned(),
            network => self.folder.path().join(network),
        };
        let cookie = std::fs::read_to_string(folder.join(".cookie"));
        call(
            self.rpc,
            cookie.map_err(|error| error.to_string())?.trim(),
            method,
            params,
        )
    }

    /// A call that must succeed.
    pub fn call(&self, method: &str, params: Value) -> Value {
        let result = self.rpc(method, params);
        result.unwrap_or_else(|error| panic!("{method}: {error}\n{}", self.log.tail()))
    }

    /// Relays a block: null, or the word that says why not.
    pub fn submit(&self, block: &[u8]) -> Value {
        self.call("submitblock", json!([hex(block)]))
    }

    /// A block that it keeps.
    pub fn block(&self, hash: BlockHash) -> Vec<u8> {
        let block = self.call("getblock", json!([hash, 0]));
        hex::decode_to_vec(block.as_str().expect("hexadecimal")).expect("hexadecimal")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use hex::DisplayHex as _;
    bytes.to_lower_hex_string()
}

/// A call of somebody's JSON-RPC.
pub fn call(
    address: SocketAddr,
    login: &str,
    method: &str,
    params: Value,
) -> Result<Value, String> {
    let secret = base64::engine::general_purpose::STANDARD.encode(login);
    let call = json!({ "id": 0, "method": method, "params": params });
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
        .into();
    let answer = agent
        .post(format!("http://{address}/"))
        .header("authorization", format!("Basic {secret}"))
        .send_json(call)
        .and_then(|mut response| response.body_mut().with_config().limit(1 << 28).read_json());
    let answer: Value = answer.map_err(|error| error.to_string())?;
    match answer.get("error") {
        None | Some(Value::Null) => Ok(answer["result"].clone()),
        Some(error) => Err(error.to_string()),
    }
}

fn named(line: &str, name: &str) -> Option<Value> {
    let event: Value = serde_json::from_str(line).ok()?;
    (event["event"] == name).then_some(event)
}
