//! bcoin: a full node that is neither ours nor Bitcoin Core's. Its chain is in memory: killed, it begins anew.
//!
//! It is found in the folder `BCOIN_DIR`, into which `npm ci --ignore-scripts` has put what `tests/bcoin` names.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use bitcoin::base58;
use bitcoin::consensus::serialize;
use bitcoin::{BlockHash, PubkeyHash, Transaction};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::lines::Lines;
use super::relay::{call, hex};

/// The first byte of an address by key on bcoin's regtest.
const ADDRESS_PREFIX: u8 = 0x3c;

/// bcoin's program; `None`, and a loud word, if there is none.
pub fn executable() -> Option<PathBuf> {
    let folder = std::env::var_os("BCOIN_DIR").map(PathBuf::from);
    if folder.is_none() {
        eprintln!(
            "SKIPPED: no bcoin: run `npm ci --ignore-scripts` in a copy of tests/bcoin and set BCOIN_DIR to it"
        );
    }
    let folder = folder?;
    for file in ["node.js", "node_modules/bcoin/package.json"] {
        assert!(folder.join(file).is_file(), "BCOIN_DIR has no {file}");
    }
    Some(folder.join("node.js"))
}

/// One node, on regtest; killed when dropped.
pub struct Second {
    program: PathBuf,
    folder: TempDir,
    child: Child,
    log: Lines,
    /// The number of the next line of its log to look at.
    next: usize,
    /// Of P2P and of JSON-RPC.
    ports: [u16; 2],
}

impl Second {
    /// Starts one and waits until it listens.
    pub fn start(program: &PathBuf) -> Self {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let (child, log) = launch(program, &folder, [0; 2]);
        let mut second = Self {
            program: program.clone(),
            folder,
            child,
            log,
            next: 0,
            ports: [0; 2],
        };
        second.wait_until_ready();
        second
    }

    /// Kills it and starts it again, on the same ports and with no block.
    pub fn restart(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is our child");
        (self.child, self.log) = launch(&self.program, &self.folder, self.ports);
        self.next = 0;
        self.wait_until_ready();
    }

    fn wait_until_ready(&mut self) {
        let port = |line: String| {
            let text = line
                .split_once("(port=")
                .and_then(|(_, rest)| rest.split_once(')'));
            let port = text.and_then(|(port, _)| port.parse().ok());
            port.unwrap_or_else(|| panic!("no port in {line}"))
        };
        let rpc = port(self.wait_for_log("HTTP server listening on 127.0.0.1"));
        let p2p = port(self.wait_for_log("Pool server listening on 127.0.0.1"));
        self.ports = [p2p, rpc];
    }

    /// How a node of ours is told of it.
    pub fn spec(&self) -> String {
        format!("p2p={},rpc=off,zmq=off", self.p2p())
    }

    /// Where it speaks P2P.
    pub fn p2p(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.ports[0]).into()
    }

    /// A call of its JSON-RPC that must succeed.
    pub fn call(&self, method: &str, params: Value) -> Value {
        let address = ([127, 0, 0, 1], self.ports[1]).into();
        let result = call(address, "x:test", method, params);
        result.unwrap_or_else(|error| panic!("{method}: {error}\n{}", self.log.tail()))
    }

    /// Mines blocks whose coinbases can be spent by a key, and says their hashes.
    pub fn mine(&self, count: usize, owner: PubkeyHash) -> Vec<BlockHash> {
        let mut address = vec![ADDRESS_PREFIX];
        address.extend(AsRef::<[u8]>::as_ref(&owner));
        let address = base58::encode_check(&address);
        let hashes = self.call("generatetoaddress", json!([count, address]));
        serde_json::from_value(hashes).expect("hashes")
    }

    /// Puts a transaction into its mempool.
    pub fn send(&self, transaction: &Transaction) {
        let text = hex(&serialize(transaction));
        let txid = self.call("sendrawtransaction", json!([text]));
        assert_eq!(txid, json!(transaction.compute_txid()));
    }

    /// Declares a block invalid, and all upon it.
    pub fn disown(&self, hash: BlockHash) {
        self.call("invalidateblock", json!([hash]));
    }

    /// The hash of its best block.
    pub fn tip(&self) -> BlockHash {
        serde_json::from_value(self.call("getbestblockhash", json!([]))).expect("a hash")
    }

    /// A block, serialized.
    pub fn block(&self, hash: BlockHash) -> Vec<u8> {
        let block = self.call("getblock", json!([hash, false]));
        hex::decode_to_vec(block.as_str().expect("hexadecimal")).expect("hexadecimal")
    }

    /// Waits until a block is its tip.
    pub fn wait_for_block(&mut self, hash: BlockHash) {
        self.wait_for_log(&format!("Block {hash} ("));
        assert_eq!(self.tip(), hash, "{}", self.log.tail());
    }

    /// Waits for a line of its log with this text, after those waited for before.
    pub fn wait_for_log(&mut self, text: &str) -> String {
        let pick = |line: &str| line.contains(text).then(|| line.to_owned());
        let found = self.log.wait(self.next, pick);
        let (line, next) =
            found.unwrap_or_else(|| panic!("no {text:?} in bcoin's log:\n{}", self.log.tail()));
        self.next = next;
        line
    }

    /// The last lines of its log.
    pub fn tail(&self) -> String {
        self.log.tail()
    }

    /// How many lines of its log have this text.
    pub fn logged(&self, text: &str) -> usize {
        let mut count = 0;
        self.log
            .show(|line| count += usize::from(line.contains(text)));
        count
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn launch(program: &PathBuf, folder: &TempDir, ports: [u16; 2]) -> (Child, Lines) {
    let mut child = Command::new("node")
        .arg(program)
        .arg(folder.path())
        .args(ports.map(|port| port.to_string()))
        .env("NODE_BACKEND", "js")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("node runs it");
    let log = Lines::of(child.stdout.take().expect("it is piped"));
    (child, log)
}
