//! Our node as a process that serves wallets: its folder, its log, its port; killed when dropped.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use crate::harness::{Bitcoind, PATIENCE, free_ports};
use crate::log::Log;

const ANY: &str = "127.0.0.1:0";
/// What the log says once wallets are answered.
const READY: &str = "serving Electrum RPC";

/// A server, and how it was started.
pub struct Server {
    folder: TempDir,
    child: Child,
    address: String,
    /// What it logs.
    pub log: Log,
}

impl Server {
    /// Starts one beside a bitcoind, of which it knows all, and waits until it answers.
    pub fn beside(node: &Bitcoind) -> Self {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let (child, log) = launch(&mut command(node, folder.path()));
        let address = ready(&log);
        Self {
            folder,
            child,
            address,
            log,
        }
    }

    /// Starts one as programs start electrs, with these flags and those that they always give.
    pub fn as_electrs<S: AsRef<OsStr>>(flags: &[S]) -> Self {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let [port, monitoring] = free_ports();
        let address = format!("127.0.0.1:{port}");
        let door = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/electrs");
        let mut command = Command::new(door);
        command
            .env("BLOCKTORRENT_EXE", env!("CARGO_BIN_EXE_blocktorrent"))
            .args(["-vvv", "--network", "regtest", "--db-dir"])
            .arg(folder.path())
            .args(["--electrum-rpc-addr", &address])
            .args(["--monitoring-addr", &format!("127.0.0.1:{monitoring}")])
            .args(flags);
        let (child, log) = launch(&mut command);
        log.wait(READY);
        Self {
            folder,
            child,
            address,
            log,
        }
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Ends it as a loss of power would, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is our child");
    }

    /// Starts it again on the same folder, at another port.
    pub fn start_again(&mut self, node: &Bitcoind) {
        (self.child, self.log) = launch(&mut command(node, self.folder.path()));
        self.address = ready(&self.log);
    }

    /// Sends it a signal by name.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.expect("there is kill").success());
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < until, "it goes on:\n{}", self.log.tail());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log.tail());
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn command(node: &Bitcoind, folder: &Path) -> Command {
    let (rpc, p2p, zmq) = (node.rpc_address(), node.p2p(), node.zmq());
    let datadir = node.folder().display();
    let mut command = Command::new(env!("CARGO_BIN_EXE_blocktorrent"));
    command
        .args(["node", "--network", "regtest", "--datadir"])
        .arg(folder)
        .arg("--bitcoind")
        .arg(format!("rpc={rpc},p2p={p2p},zmq={zmq},datadir={datadir}"))
        .args(["--control-listen", ANY, "--data-listen", ANY])
        .args(["--rpc-listen", ANY, "--p2p-listen", "off"])
        .args(["--find-peers", "off"])
        .args(["--electrum-listen", "tcp://127.0.0.1:0"]);
    command
}

fn launch(command: &mut Command) -> (Child, Log) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program under test starts");
    let log = Log::of(child.stderr.take().expect("it is piped"));
    (child, log)
}

/// Waits until it answers, and says where.
fn ready(log: &Log) -> String {
    log.wait(READY);
    let line = log.wait("tcp://");
    let (_, address) = line.rsplit_once("tcp://").expect("it is in the line");
    address.trim().to_owned()
}
