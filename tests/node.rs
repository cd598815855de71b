//! The program itself: nodes as processes on loopback, with ports that the system picks.
//!
//! Nothing here sleeps: a node says on stdout when it is ready (`--events-stdout`), and a process that
//! ends is waited for.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, as it should"
)]

#[path = "node/private.rs"]
mod private;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

/// A command of the program under test.
fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blocktorrent"));
    command.args(arguments);
    command
}

/// A node process, killed when dropped.
struct Node {
    child: Child,
    events: BufReader<ChildStdout>,
    folder: String,
    control: String,
}

impl Node {
    /// Starts a node of regtest and waits until it is ready.
    fn start(folder: &Path, more: &[&str]) -> Self {
        let network = ["--network", "regtest"];
        Self::start_bare(folder, &[&network, more].concat())
    }

    /// Starts a node on ports that the system picks and waits until it is ready.
    fn start_bare(folder: &Path, more: &[&str]) -> Self {
        Self::start_logging(folder, more, Stdio::piped())
    }

    /// As [`Node::start_bare`], with its log somewhere else.
    fn start_logging(folder: &Path, more: &[&str], log: Stdio) -> Self {
        let folder = folder.to_str().unwrap().to_owned();
        let any = "127.0.0.1:0";
        let mut child = program(&["node", "--datadir", &folder, "--control-listen", any])
            .args(["--data-listen", any, "--rpc-listen", any])
            .args(["--p2p-listen", any, "--find-peers", "off"])
            .arg("--events-stdout")
            .args(more)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let events = BufReader::new(child.stdout.take().unwrap());
        let mut node = Self {
            child,
            events,
            folder,
            control: String::new(),
        };
        let ready = node.event("ready");
        node.control = ready["control"].as_str().unwrap().to_owned();
        node
    }

    /// Waits for the next event of that name.
    fn event(&mut self, name: &str) -> Value {
        let mut line = String::new();
        loop {
            line.clear();
            if self.events.read_line(&mut line).unwrap() == 0 {
                let mut log = String::new();
                let mut stderr = self.child.stderr.take().unwrap();
                stderr.read_to_string(&mut log).unwrap();
                panic!("the node ended before `{name}`:\n{log}");
            }
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["event"] == name {
                return event;
            }
        }
    }

    fn cli(&self, arguments: &[&str]) -> Output {
        cli(&self.folder, arguments)
    }

    /// The answer of a call that must succeed.
    fn call(&self, arguments: &[&str]) -> Value {
        let output = self.cli(arguments);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| text(&output.stdout).into())
    }

    /// Waits for the process to end, and gives its exit code and log.
    fn end(mut self) -> (Option<i32>, String) {
        let mut log = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut log).unwrap();
        }
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cli(folder: &str, arguments: &[&str]) -> Output {
    program(&["cli", "--datadir", folder, "--network", "regtest"])
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// The single line with which a node refuses to start, its exit code being `code`.
fn refusal(code: i32, folder: &Path, more: &[&str]) -> String {
    let any = "127.0.0.1:0";
    let mut command = program(&["node", "--datadir", folder.to_str().unwrap()]);
    command.args(["--network", "regtest"]);
    command.args(["--find-peers", "off"]);
    for flag in [
        "--control-listen",
        "--data-listen",
        "--rpc-listen",
        "--p2p-listen",
    ] {
        if !more.contains(&flag) {
            command.args([flag, any]);
        }
    }
    let output = command.args(more).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let line = text(&output.stderr);
    assert_eq!(line.lines().count(), 1, "{line}");
    line
}

#[cfg(unix)]
fn signal(node: &Node, signal: &str) {
    let process = node.child.id().to_string();
    let killed = Command::new("kill").args([signal, &process]).status();
    assert!(killed.unwrap().success());
}

#[test]
fn a_node_answers_and_stops_when_told() {
    let root = tempfile::tempdir().unwrap();
    let node = Node::start(root.path(), &["--uacomment", "first"]);
    let info = node.call(&["getnetworkinfo"]);
    assert!(info["subversion"].as_str().unwrap().contains("(first)"));
    assert_eq!(info["control"], node.control.as_str());
    assert_eq!(node.call(&["getblockchaininfo"])["chain"], "regtest");
    assert!(node.call(&["uptime"]).is_number());
    assert!(
        node.call(&["help"])
            .as_str()
            .unwrap()
            .contains("submitblock")
    );
    let file = root.path().join("regtest/node.json");
    let addresses: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(addresses["pid"], node.child.id());

    let unknown = node.cli(&["nonsense"]);
    assert_eq!(unknown.status.code(), Some(32_601 % 256));
    assert_eq!(
        text(&unknown.stderr),
        "error code: -32601\nerror message:\nMethod not found\n`nonsense` is no method; `blocktorrent cli help` lists them"
    );
    for call in [
        &["getelectruminfo"][..],
        &["electrumlog", "1", "on"],
        &["electrumquery", "x"],
        &["setelectrumbanner"],
    ] {
        let refused = node.cli(call);
        assert_eq!(refused.status.code(), Some(1));
        assert!(text(&refused.stderr).contains("set electrum-listen, as in"));
    }
    let absent = node.cli(&["getblock", &"0".repeat(64)]);
    assert_eq!(absent.status.code(), Some(5));
    let no_json = node.cli(&["getblock", &"0".repeat(64), "x"]);
    assert_eq!(no_json.status.code(), Some(1));
    assert!(
        text(&no_json.stderr).starts_with("error: `x` makes no sense here: verbosity is a number")
    );
    let bogus = node.cli(&["help", "bogus"]);
    assert_eq!(bogus.status.code(), Some(32_601 % 256));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    if let Ok(full) = full {
        let mut help = program(&[
            "cli",
            "--datadir",
            &node.folder,
            "--network",
            "regtest",
            "help",
        ]);
        let unwritten = help.stdout(full).output().unwrap();
        assert_eq!(unwritten.status.code(), Some(1));
        assert!(text(&unwritten.stderr).starts_with("error: can't write to stdout"));
    }
    let wrong = node.cli(&["--rpc-user", "a", "--rpc-password", "b", "uptime"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).contains("refuses this user and password"));

    assert_eq!(node.call(&["stop"]), "blocktorrent stopping");
    let folder = node.folder.clone();
    let (code, log) = node.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(!file.exists() && !root.path().join("regtest/.cookie").exists());
    let gone = cli(&folder, &["uptime"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(text(&gone.stderr).contains("no node runs for network regtest in"));
}

#[test]
fn an_ended_session_leaves_nothing_behind() {
    let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut first = Node::start(roots[0].path(), &["--max-peers", "2"]);
    // A connection to oneself takes both places, and gives both back.
    for _ in 0..3 {
        first.call(&["addnode", &first.control, "onetry"]);
        first.event("session_down");
        first.event("session_down");
        assert_eq!(first.call(&["getpeerinfo"]), serde_json::json!([]));
    }
    let second = Node::start(roots[1].path(), &[]);
    for _ in 0..3 {
        first.call(&["addnode", &second.control, "onetry"]);
        let session = first.event("session")["session"].to_string();
        assert_eq!(first.call(&["getnetworkinfo"])["connections"], 1);
        first.call(&["disconnectnode", "", &session]);
        first.event("session_down");
        assert_eq!(first.call(&["getpeerinfo"]), serde_json::json!([]));
    }
}

#[test]
fn whoever_dials_the_wrong_place_is_told_what_is_wrong() {
    let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let first = Node::start(roots[0].path(), &[]);
    let file = roots[0].path().join("regtest/node.json");
    let addresses: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let rpc = addresses["rpc"].as_str().unwrap();
    for (target, says) in [
        (
            first.control.as_str(),
            "another Bitcoin network; check --network",
        ),
        (
            rpc,
            "no control port of a blocktorrent node; check the port",
        ),
    ] {
        let more = ["--network", "signet", "--connect", target];
        let mut second = Node::start_bare(roots[1].path(), &more);
        // The second attempt comes after the first was told.
        for _ in 0..2 {
            assert_eq!(second.event("session_down")["established"], false);
        }
        let folder = second.folder.as_str();
        let stop = ["cli", "--datadir", folder, "--network", "signet", "stop"];
        assert!(program(&stop).output().unwrap().status.success());
        let (_, log) = second.end();
        assert_eq!(log.matches(says).count(), 1, "{log}");
        assert!(log.contains(" WARN ") && log.contains(target), "{log}");
    }
}

#[cfg(unix)]
#[test]
fn sigterm_ends_a_node_cleanly_and_a_killed_one_leaves_no_trouble() {
    let root = tempfile::tempdir().unwrap();
    let node = Node::start(root.path(), &[]);
    let left = |name: &str| root.path().join("regtest").join(name).exists();
    signal(&node, "-HUP");
    assert!(node.call(&["uptime"]).is_number());
    assert!(left(".cookie") && left("node.json"));
    // As `timeout` does: to the process, and to its group.
    signal(&node, "-TERM");
    signal(&node, "-INT");
    let (code, log) = node.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("SIGHUP is ignored"), "{log}");
    assert!(!left(".cookie") && !left("node.json"));

    let mut node = Node::start(root.path(), &[]);
    let folder = node.folder.clone();
    node.child.kill().unwrap();
    drop(node);
    let stale = cli(&folder, &["uptime"]);
    assert_eq!(stale.status.code(), Some(1));
    let line = text(&stale.stderr);
    assert!(
        line.contains("no node runs for network regtest in"),
        "{line}"
    );
    assert!(
        line.contains("was killed") && !line.contains("io:"),
        "{line}"
    );
    let node = Node::start(root.path(), &[]);
    assert!(node.call(&["uptime"]).is_number());
}

#[test]
fn a_node_needs_no_reader_of_its_log() {
    let root = tempfile::tempdir().unwrap();
    let flags = ["--network", "regtest", "--log", "trace"];
    // The reader has left.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let node = Node::start_logging(root.path(), &flags, writer.into());
    let wrong = node.cli(&["--rpc-user", "a", "--rpc-password", "b", "uptime"]);
    assert!(text(&wrong.stderr).contains("refuses this user and password"));
    assert!(node.call(&["uptime"]).is_number());
    node.call(&["stop"]);
    assert_eq!(node.end().0, Some(0));
    // The reader is there, and reads nothing: the pipe is full.
    let (reader, mut writer) = std::io::pipe().unwrap();
    let log = writer.try_clone().unwrap().into();
    let node = Node::start_logging(root.path(), &flags, log);
    let (filled, is_full) = std::sync::mpsc::channel();
    let fill = std::thread::spawn(move || {
        while writer.write_all(&[b' '; 1_024]).is_ok() {
            filled.send(()).ok();
        }
    });
    while is_full.recv_timeout(Duration::from_millis(300)).is_ok() {}
    let wrong = node.cli(&["--rpc-user", "a", "--rpc-password", "b", "uptime"]);
    assert!(text(&wrong.stderr).contains("refuses this user and password"));
    assert!(node.call(&["uptime"]).is_number());
    node.call(&["stop"]);
    assert_eq!(node.end().0, Some(0));
    drop(reader);
    fill.join().unwrap();
}

#[test]
fn what_is_in_use_is_named_in_one_line() {
    let root = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let _node = Node::start(root.path(), &[]);
    let line = refusal(1, root.path(), &[]);
    assert!(line.starts_with("error: the datadir ") && line.contains("is in use by another node"));

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = listener.local_addr().unwrap().to_string();
    let line = refusal(1, other.path(), &["--control-listen", &tcp]);
    assert!(
        line.contains("the port is in use") && line.contains("--control-listen"),
        "{line}"
    );
    let line = refusal(1, other.path(), &["--rpc-listen", &tcp]);
    assert!(
        line.contains("the port is in use") && line.contains("--rpc-listen"),
        "{line}"
    );
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = udp.local_addr().unwrap().to_string();
    let line = refusal(1, other.path(), &["--data-listen", &address]);
    assert!(
        line.contains("the port is in use") && line.contains("--data-listen"),
        "{line}"
    );
}

#[test]
fn senseless_configurations_are_refused_in_one_line() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("other.toml");
    std::fs::write(&file, "max-peers = 4\npush_level = 3\n").unwrap();
    let file = file.to_str().unwrap();
    let line = refusal(2, root.path(), &["--config", file]);
    assert!(line.ends_with("line 2: no option is called `push_level`; did you mean `push-level`?"));
    let line = refusal(1, root.path(), &["--config", "/nowhere/x.toml"]);
    assert!(line.contains("can't read the configuration file /nowhere/x.toml; check the path"));
    let line = refusal(2, root.path(), &["--push-level", "9"]);
    assert_eq!(line, "error: `push-level` is 9; give a number from 0 to 3");
    let lines = refusal(1, root.path(), &["--config", "/nowhere/x\ny.toml"]);
    assert!(lines.contains("/nowhere/x y.toml"), "{lines}");
    let long = refusal(1, root.path(), &["--config", &"x".repeat(100_000)]);
    assert!(long.len() < 1_100, "{}", long.len());
    let line = refusal(2, root.path(), &["--log", "inof"]);
    assert!(
        line.contains("`log` is \"inof\", which is no filter"),
        "{line}"
    );
    let line = refusal(2, root.path(), &["--log", "a=b=c"]);
    assert!(
        line.contains("`log` is \"a=b=c\", which is no filter"),
        "{line}"
    );
    let start = format!("5,{},ffffffff", "01".repeat(32));
    let line = refusal(2, root.path(), &["--trusted-start", &start]);
    assert!(line.contains("`trusted-start` makes no sense"), "{line}");
    let usage = program(&["node", "--nonsense"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn the_sample_configuration_can_be_used_at_once() {
    let sample = program(&["node", "--print-config"]).output().unwrap();
    assert!(sample.status.success());
    // `head` reads some lines, and leaves.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut headless = program(&["node", "--print-config"]);
    let headless = headless.stdout(writer).stderr(Stdio::piped()).output();
    let headless = headless.unwrap();
    assert!(headless.status.success() && headless.stderr.is_empty());
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("blocktorrent.toml"), &sample.stdout).unwrap();
    let node = Node::start(root.path(), &[]);
    assert_eq!(node.call(&["getpeerinfo"]), serde_json::json!([]));
}

/// The `--trusted-start` with which block 702861 is the next.
fn start_before(block: &bitcoin::Block) -> String {
    let header = block.header;
    let bits = header.bits.to_consensus();
    format!("702860,{},{bits:08x}", header.prev_blockhash)
}

#[test]
fn a_block_crosses_from_one_node_to_another_and_stays() {
    let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let bytes = bitcoin_test_data::blocks::mainnet_702861();
    let block: bitcoin::Block = bitcoin::consensus::deserialize(bytes).unwrap();
    let start = start_before(&block);
    let main = ["--trusted-start", start.as_str()];
    let mut first = Node::start_bare(roots[0].path(), &main);
    let mut second = {
        let mut more = main.to_vec();
        more.extend(["--connect", &first.control]);
        Node::start_bare(roots[1].path(), &more)
    };
    let session = second.event("session");
    assert_eq!(session["addr"], first.control.as_str());
    first.event("session");

    let mut submit = program(&["cli", "--datadir", &first.folder, "submitblock", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    submit
        .stdin
        .take()
        .unwrap()
        .write_all(hex.as_bytes())
        .unwrap();
    let output = submit.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stdout.is_empty(),
        "{output:?}"
    );

    let complete = second.event("complete");
    let hash = block.block_hash().to_string();
    assert_eq!(complete["job"], hash.as_str());
    let get = |node: &Node| {
        let output = program(&["cli", "--datadir", &node.folder, "getblock", &hash, "0"])
            .output()
            .unwrap();
        text(&output.stdout)
    };
    assert!(get(&first) == hex && get(&second) == hex, "the same bytes");
    let stop = program(&["cli", "--datadir", &second.folder, "stop"])
        .output()
        .unwrap();
    assert!(stop.status.success());
    let (code, log) = second.end();
    assert_eq!(code, Some(0), "{log}");
    // Started again, it still has the block.
    let again = Node::start_bare(roots[1].path(), &main);
    assert!(get(&again) == hex);
    let info = program(&["cli", "--datadir", &again.folder, "getblockchaininfo"])
        .output()
        .unwrap();
    let info: Value = serde_json::from_slice(&info.stdout).unwrap();
    assert_eq!(info["bestblockhash"], hash.as_str());
}
