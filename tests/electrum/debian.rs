//! Debian's `electrum`, as a process that is told what to do on its command line.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bitcoin::Address;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::purse::{Purse, send};
use super::server::Server;
use crate::harness::{Bitcoind, PATIENCE, executable};

/// Between two questions: each is a process of half a second.
const PAUSE: Duration = Duration::from_millis(50);

/// The program; `None`, and a loud word, if there is none.
fn wallet_program() -> Option<PathBuf> {
    let named = std::env::var_os("ELECTRUM_EXE").map(PathBuf::from);
    let on_path = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|folder| folder.join("electrum"));
        found.into_iter().find(|file| file.is_file())
    };
    let found = named.or_else(on_path);
    if found.is_none() {
        eprintln!("SKIPPED: no electrum: install Debian's, or set ELECTRUM_EXE");
    }
    found
}

/// A wallet with its daemon; killed when dropped.
struct Wallet {
    program: PathBuf,
    folder: TempDir,
    daemon: Child,
}

impl Wallet {
    /// Creates a wallet and connects it to a server, and to no other.
    fn create(program: &Path, server: &Server) -> Self {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let program = program.to_owned();
        let created = command(&program, &folder)
            .args(["--offline", "create"])
            .output();
        let created = created.expect("it starts");
        assert!(created.status.success(), "{created:?}");
        let daemon = command(&program, &folder)
            .args(["daemon", "-1", "-s", &format!("{}:t", server.address())])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let wallet = Self {
            program,
            folder,
            daemon,
        };
        wallet.wait(&["getinfo"], |info| info["connected"] == true);
        wallet.call(&["load_wallet"]);
        wallet
    }

    fn ask(&self, words: &[&str]) -> Result<Value, String> {
        let output = command(&self.program, &self.folder).args(words).output();
        let output = output.expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        match output.status.success() {
            true => Ok(serde_json::from_str(&said).unwrap_or(Value::String(said))),
            false => Err(format!(
                "{said} {}",
                String::from_utf8_lossy(&output.stderr)
            )),
        }
    }

    fn call(&self, words: &[&str]) -> Value {
        let answer = self.ask(words);
        answer.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Asks until the answer is as wanted: of the wallet's own events nobody is told.
    fn wait(&self, words: &[&str], is_wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(words);
            match answer {
                Ok(answer) if is_wanted(&answer) => return answer,
                answer => assert!(Instant::now() < until, "{words:?} stays at {answer:?}"),
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn text(&self, words: &[&str]) -> String {
        self.call(words).as_str().expect("a text").to_owned()
    }

    /// Waits until a transaction is in its history at this height; 0: in none.
    fn wait_for(&self, txid: &str, height: u32) {
        self.wait(&["onchain_history"], |history| {
            let known = history["transactions"].as_array().into_iter().flatten();
            let mut found = known.filter(|one| one["txid"] == txid);
            found.any(|one| one["height"] == height)
        });
    }
}

impl Drop for Wallet {
    fn drop(&mut self) {
        self.daemon.kill().ok();
        self.daemon.wait().ok();
    }
}

fn command(program: &Path, folder: &TempDir) -> Command {
    let mut command = Command::new(program);
    command.args(["--regtest", "-D"]).arg(folder.path());
    command
}

#[test]
fn a_wallet_receives_and_pays_and_lives_through_a_reorganisation() {
    let Some(bitcoind) = executable() else { return };
    let Some(program) = wallet_program() else {
        return;
    };
    let node = Bitcoind::start(&bitcoind, &[]);
    let mut payer = Purse::filled(1, &node, 1);
    let server = Server::beside(&node);
    let wallet = Wallet::create(&program, &server);

    let address = wallet.text(&["createnewaddress"]);
    let address: Address<_> = address.parse().expect("an address");
    let script = address.assume_checked().script_pubkey();
    let received = send(&node, &payer.pay(script, 10_000_000, 500));
    let received = received.to_string();
    wallet.wait(&["getbalance"], |it| it["unconfirmed"] == "0.1");
    let block = payer.mine(&node, 1)[0];
    wallet.wait_for(&received, 102);
    wallet.wait(&["getbalance"], |it| it["confirmed"] == "0.1");

    // Taken back, and into another block: the wallet checks its proofs anew.
    node.call("invalidateblock", json!([block]));
    let blocks = Purse::new(2).mine(&node, 2);
    wallet.wait(&["getinfo"], |it| it["blockchain_height"] == 103);
    wallet.wait_for(&received, 102);
    wallet.wait(&["getbalance"], |it| it["confirmed"] == "0.1");
    assert_eq!(node.tip(), blocks[1]);

    // Half of it goes to somebody, and comes to be seen by bitcoind.
    let payee = Purse::new(3).script();
    let payee = Address::from_script(&payee, bitcoin::Network::Regtest).expect("it has one");
    let signed = wallet.text(&["payto", &payee.to_string(), "0.05", "-f", "0.0001"]);
    let sent = wallet.text(&["broadcast", &signed]);
    node.call("getmempoolentry", json!([sent]));
    wallet.wait(&["getbalance"], |it| {
        it["confirmed"] == "0.0499" || it["unconfirmed"] == "-0.0501"
    });
    payer.mine(&node, 1);
    wallet.wait_for(&sent, 104);
    wallet.wait(&["getbalance"], |it| {
        it["confirmed"] == "0.0499" && it["unconfirmed"].is_null()
    });
}
