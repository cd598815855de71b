//! A bitcoind of our own: its folder, its ports, its log, its JSON-RPC; stopped when dropped.
//!
//! Nothing here sleeps in the hope that something has happened: starting waits for a line of its log, and whoever
//! waits for a block asks bitcoind to say when it is there (`waitforblock`).

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use bitcoin::BlockHash;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::log::Log;

/// How long anything may take, on a machine with much else to do.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The bitcoind to be tested against; `None`, and a loud word, if there is none.
pub fn executable() -> Option<PathBuf> {
    let named = std::env::var_os("BITCOIND_EXE").map(PathBuf::from);
    let on_path = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|folder| folder.join("bitcoind"));
        found.into_iter().find(|file| file.is_file())
    };
    let found = named.or_else(on_path);
    if found.is_none() {
        eprintln!("SKIPPED: no bitcoind: set BITCOIND_EXE");
    }
    found
}

/// Ports of loopback that were free a moment ago, each another.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let sockets =
        [(); N].map(|()| TcpListener::bind(("127.0.0.1", 0)).expect("loopback has ports"));
    sockets.map(|socket| socket.local_addr().expect("it is bound").port())
}

/// A bitcoind on regtest.
pub struct Bitcoind {
    executable: PathBuf,
    arguments: Vec<OsString>,
    folder: TempDir,
    child: Child,
    log: Log,
    p2p_port: u16,
    rpc_port: u16,
    zmq_port: u16,
    network: &'static str,
}

impl Bitcoind {
    /// Starts one with these arguments besides its own and waits until it is ready.
    pub fn start(executable: &Path, arguments: &[&str]) -> Self {
        Self::start_on("regtest", executable, arguments)
    }

    /// The same on another network.
    pub fn start_on(network: &'static str, executable: &Path, arguments: &[&str]) -> Self {
        let [p2p_port, rpc_port, zmq_port] = free_ports();
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let zmq = format!("tcp://127.0.0.1:{zmq_port}");
        let own = [
            format!("-chain={network}"),
            format!("-datadir={}", folder.path().display()),
            format!("-bind=127.0.0.1:{p2p_port}"),
            format!("-rpcport={rpc_port}"),
            "-rpcbind=127.0.0.1".into(),
            "-rpcallowip=127.0.0.1".into(),
            format!("-zmqpubrawblock={zmq}"),
            format!("-zmqpubhashblock={zmq}"),
            format!("-zmqpubrawtx={zmq}"),
            format!("-zmqpubsequence={zmq}"),
            "-server".into(),
            "-listen".into(),
            "-dnsseed=0".into(),
            "-fixedseeds=0".into(),
            "-discover=0".into(),
            "-listenonion=0".into(),
            "-natpmp=0".into(),
            "-acceptnonstdtxn".into(),
            "-whitelist=noban@127.0.0.1".into(),
            "-printtoconsole".into(),
            "-nodebuglogfile".into(),
            "-debug=net".into(),
            "-debug=cmpctblock".into(),
            // On regtest it looks at the whole mempool after every transaction.
            "-checkmempool=0".into(),
        ];
        let mut all: Vec<OsString> = own.into_iter().map(OsString::from).collect();
        all.extend(arguments.iter().map(OsString::from));
        let (child, log) = launch(executable, &all);
        let started = Self {
            executable: executable.to_owned(),
            arguments: all,
            folder,
            child,
            log,
            p2p_port,
            rpc_port,
            zmq_port,
            network,
        };
        started.wait_for_log("Done loading");
        started
    }

    /// Ends it, politely, and starts it again on the same folder and ports.
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Ends it at once, as a loss of power would, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is our child");
    }

    /// Starts it again on the same folder and ports.
    pub fn start_again(&mut self) {
        (self.child, self.log) = launch(&self.executable, &self.arguments);
        self.wait_for_log("Done loading");
    }

    /// Ends it, politely, and waits until it is gone.
    pub fn stop(&mut self) {
        self.rpc("stop", json!([])).expect("it listens");
        self.child.wait().expect("it is our child");
    }

    /// Where its P2P protocol is spoken.
    pub fn p2p(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.p2p_port).into()
    }

    /// Where its JSON-RPC is spoken.
    pub fn rpc_address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.rpc_port).into()
    }

    /// Where it publishes by ZMQ (`rawblock`, `hashblock`, `rawtx`, `sequence`).
    pub fn zmq(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.zmq_port)
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file with the password of its JSON-RPC.
    pub fn cookie(&self) -> PathBuf {
        self.folder().join(self.network).join(".cookie")
    }

    /// A call of its JSON-RPC; the error is its own text.
    pub fn rpc(&self, method: &str, params: Value) -> Result<Value, String> {
        let cookie = std::fs::read_to_string(self.cookie()).map_err(|error| error.to_string())?;
        let secret = base64::engine::general_purpose::STANDARD.encode(cookie);
        let call = json!({ "id": 0, "method": method, "params": params });
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        let answer = agent
            .post(format!("http://{}/", self.rpc_address()))
            .header("authorization", format!("Basic {secret}"))
            .send_json(call)
            .and_then(|mut response| response.body_mut().with_config().limit(1 << 28).read_json());
        let answer: Value = answer.map_err(|error| error.to_string())?;
        match answer.get("error") {
            None | Some(Value::Null) => Ok(answer["result"].clone()),
            Some(error) => Err(error.to_string()),
        }
    }

    /// A call that must succeed.
    pub fn call(&self, method: &str, params: Value) -> Value {
        let result = self.rpc(method, params);
        result.unwrap_or_else(|error| panic!("{method}: {error}\n{}", self.tail()))
    }

    /// Mines blocks to an output that anybody can spend, and says their hashes.
    pub fn mine(&self, count: u32) -> Vec<BlockHash> {
        let hashes = self.call("generatetodescriptor", json!([count, "raw(51)"]));
        serde_json::from_value(hashes).expect("hashes")
    }

    /// The hash of its best block.
    pub fn tip(&self) -> BlockHash {
        serde_json::from_value(self.call("getbestblockhash", json!([]))).expect("a hash")
    }

    /// A block, serialized.
    pub fn block(&self, hash: BlockHash) -> Vec<u8> {
        let block = self.call("getblock", json!([hash, 0]));
        hex::decode_to_vec(block.as_str().expect("hexadecimal")).expect("hexadecimal")
    }

    /// Waits until a block is its tip.
    pub fn wait_for_block(&self, hash: BlockHash) {
        let tip = self.try_wait_for_block(hash);
        assert_eq!(tip, hash, "{}", self.tail());
    }

    /// Waits until a block is its tip, or long enough; its tip then.
    pub fn try_wait_for_block(&self, hash: BlockHash) -> BlockHash {
        let patience_ms = PATIENCE.as_millis() as u64 / 2;
        let tip = self.call("waitforblock", json!([hash, patience_ms]));
        serde_json::from_value(tip["hash"].clone()).expect("a hash")
    }

    /// Waits until a block is its tip or below it.
    pub fn wait_for_block_or_more(&self, hash: BlockHash) {
        loop {
            // In this order: it may come between two calls.
            let tip = self.tip();
            let header = self.rpc("getblockheader", json!([hash]));
            let confirmations = header.ok().and_then(|it| it["confirmations"].as_i64());
            if confirmations.is_some_and(|count| count > 0) {
                return;
            }
            let patience_ms = PATIENCE.as_millis() as u64 / 2;
            let next = self.call("waitfornewblock", json!([patience_ms, tip]));
            assert_ne!(next["hash"], json!(tip), "nothing more: {}", self.tail());
        }
    }

    /// Waits until its log has a line with this text, and gives that line.
    pub fn wait_for_log(&self, text: &str) -> String {
        self.log.wait(text)
    }

    /// The last lines of its log.
    pub fn tail(&self) -> String {
        self.log.tail()
    }
}

impl Drop for Bitcoind {
    fn drop(&mut self) {
        // Its folder goes with it: there is nothing to be saved.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn launch(executable: &Path, arguments: &[OsString]) -> (Child, Log) {
    let mut child = Command::new(executable)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("bitcoind starts");
    let log = Log::of(child.stdout.take().expect("it is piped"));
    (child, log)
}
