//! A node of the program under test, as a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// How long anything may take, on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(120);

/// A node, killed when dropped.
pub struct Node {
    child: Child,
    events: Receiver<Value>,
    folder: PathBuf,
    /// Where it listens, by the names in its `ready`.
    pub ready: Value,
}

impl Node {
    /// Starts one on regtest, on ports of `ip` that the system picks, and waits until it is ready.
    pub fn start_at(ip: &str, folder: &Path, more: &[&str]) -> Self {
        let any = format!("{ip}:0");
        let mut child = Command::new(env!("CARGO_BIN_EXE_blocktorrent"))
            .args([
                "node",
                "--network",
                "regtest",
                "--events-stdout",
                "--datadir",
            ])
            .arg(folder)
            .args([
                "--control-listen",
                &any,
                "--data-listen",
                &any,
                "--p2p-listen",
                &any,
            ])
            .args(["--rpc-listen", "127.0.0.1:0"])
            .args(["--log", "blocktorrent=debug"])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::from(
                std::fs::OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(folder.join("log"))
                    .unwrap(),
            ))
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tell, events) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap();
                if tell.send(event).is_err() {
                    return;
                }
            }
        });
        let mut node = Self {
            child,
            events,
            folder: folder.to_owned(),
            ready: Value::Null,
        };
        node.ready = node.event("ready");
        node
    }

    /// The same on loopback.
    pub fn start(folder: &Path, more: &[&str]) -> Self {
        Self::start_at("127.0.0.1", folder, more)
    }

    /// One of the addresses that it listens on.
    pub fn address(&self, name: &str) -> &str {
        self.ready[name].as_str().unwrap()
    }

    /// Waits for the next event of that name.
    pub fn event(&self, name: &str) -> Value {
        loop {
            match self.events.recv_timeout(PATIENCE) {
                Ok(event) if event["event"] == name => return event,
                Ok(_) => {}
                Err(error) => panic!("no `{name}` ({error}):\n{}", self.log()),
            }
        }
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        let mut log = String::new();
        let file = std::fs::File::open(self.folder.join("log"));
        file.unwrap().read_to_string(&mut log).unwrap();
        log
    }

    fn cli(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_blocktorrent"))
            .args(["cli", "--network", "regtest", "--datadir"])
            .arg(&self.folder)
            .args(arguments)
            .output()
            .unwrap()
    }

    /// The answer of a call that must succeed.
    pub fn call(&self, arguments: &[&str]) -> Value {
        let output = self.cli(arguments);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|_| text.trim().into())
    }

    /// Whether it keeps a block.
    pub fn has_block(&self, hash: &str) -> bool {
        self.cli(&["getblock", hash, "0"]).status.success()
    }

    /// A number of the search, as `getnetworkinfo` tells it.
    pub fn finding(&self, name: &str) -> u64 {
        let info = self.call(&["getnetworkinfo"]);
        info["finding"][name].as_u64().unwrap()
    }

    /// Stops it as an operator does, and waits for its end.
    pub fn stop(mut self) {
        self.call(&["stop"]);
        let code = self.child.wait().unwrap();
        assert!(code.success(), "{}", self.log());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
