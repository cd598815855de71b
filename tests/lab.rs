//! `blocktorrent lab` as a user meets it: real processes in namespaces, what it refuses, and that nothing is left of it.
//!
//! What needs root and /dev/net/tun is skipped loudly without; with `BITCOIND_EXE` bitcoinds run, too.

#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_blocktorrent");
/// How long what a killed lab leaves may take to go, on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether the system lets a lab be; otherwise says loudly that a test was skipped.
fn possible() -> bool {
    let works = |words: &[&str]| {
        let output = Command::new(words[0]).args(&words[1..]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let good = Path::new("/dev/net/tun").exists()
        && works(&["ip", "-Version"])
        && works(&[
            "unshare",
            "--net",
            "--mount",
            "setpriv",
            "--pdeathsig",
            "KILL",
            "true",
        ]);
    if !good {
        eprintln!("SKIPPED: a lab needs root, namespaces, /dev/net/tun, iproute2 and util-linux");
    }
    good
}

/// A folder for what a lab leaves, and a scenario in it.
fn scenario(toml: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let file = folder.path().join("mine.toml");
    std::fs::write(&file, toml).expect("it is ours");
    std::fs::create_dir(folder.path().join("tmp")).expect("it is ours");
    (folder, file)
}

fn lab(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("lab").args(arguments);
    command
        .env("TMPDIR", folder.join("tmp"))
        .env_remove("BITCOIND_EXE");
    command
}

fn text(output: &Output) -> String {
    let said =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    said.concat()
}

/// What is below the folder that a lab had for its own.
fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder.join("tmp")).expect("it is ours");
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

/// Processes that have a folder in their command line, and the network namespaces they are in.
fn processes_of(folder: &Path) -> BTreeSet<(u32, PathBuf)> {
    let name = folder.display().to_string();
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir("/proc")
        .expect("there is /proc")
        .flatten()
    {
        let Ok(number) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&words).contains(&name) && number != std::process::id() {
            // One that has just ended is in no namespace.
            if let Ok(namespace) = std::fs::read_link(entry.path().join("ns/net")) {
                found.insert((number, namespace));
            }
        }
    }
    found
}

/// Processes in one of these network namespaces.
fn inhabitants(namespaces: &BTreeSet<PathBuf>) -> usize {
    let entries = std::fs::read_dir("/proc")
        .expect("there is /proc")
        .flatten();
    let namespace = |entry: std::fs::DirEntry| std::fs::read_link(entry.path().join("ns/net")).ok();
    entries
        .filter_map(namespace)
        .filter(|it| namespaces.contains(it))
        .count()
}

/// Waits until something that is not ours has come about; nobody tells us of it.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_block_crosses_real_nodes_as_in_the_simulator() {
    if !possible() {
        return;
    }
    let (folder, file) = scenario(
        "[topology]\nnodes = 3\n[link]\ndelay_ms = 30\nrate_mbit = 50\nloss = 0.02\n\
         [block]\nbytes = 200000\n[mempool]\noverlap = 0.9\n[limit]\nsettle_ms = 500\nseconds = 60",
    );
    let run = lab(
        folder.path(),
        &[
            "run",
            file.to_str().expect("text"),
            "--json",
            "--quiet",
            "--seed",
            "5",
        ],
    );
    let output = { run }.output().expect("it starts");
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    assert!(output.status.success(), "{report:#}");
    for node in 0..3 {
        let line = &report["nodes"][node];
        let (measured, simulated) = (line["measured_ms"].as_f64(), line["simulated_ms"].as_f64());
        let (measured, simulated) = (measured.expect("whole"), simulated.expect("whole"));
        // No packet is faster than its links, in neither world.
        let least = 30.0 * node as f64;
        assert!(measured >= least && simulated >= least, "{line}");
    }
    let emulation = &report["runs"][0]["emulation"];
    assert!(
        emulation["packets"]["lost"].as_u64() > Some(0),
        "{emulation}"
    );
    assert!(
        emulation["late"]["packets"].as_u64() > Some(50),
        "{emulation}"
    );
    eventually("the folder is swept", || {
        leftovers(folder.path()).is_empty()
    });
    assert_eq!(processes_of(folder.path()), BTreeSet::new());
}

/// A program that runs another, waits for it and starts a third, as scripts do that do not `exec`.
fn wrapper(folder: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let file = folder.join("wrapper");
    let script = format!("#!/bin/sh\nsleep 987 &\n{PROGRAM} \"$@\"\nsleep 987\n");
    std::fs::write(&file, script).expect("it is ours");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    file
}

/// A lab whose block never arrives, when all its nodes are up; they run behind a script.
fn endless() -> (TempDir, Child) {
    let (folder, file) = scenario(
        "[topology]\nnodes = 2\n[block]\nbytes = 20000\n[limit]\nsettle_ms = 50\nseconds = 600\n\
         [[event]]\nat_ms = -5\nkind = 'link-down'\nbetween = [0, 1]",
    );
    let wrapper = wrapper(folder.path());
    let mut command = lab(folder.path(), &["run", file.to_str().expect("text")]);
    command.arg("--node-exe").arg(wrapper);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut said = Vec::new();
    for line in stderr.lines() {
        said.push(line.expect("text"));
        if said.last().is_some_and(|line| line.contains("relaying")) {
            return (folder, child);
        }
    }
    let status = child.wait().expect("it is our child");
    panic!("{status}: {said:?}");
}

/// Lets a lab be ended, and sees that nothing of it is left.
fn leaves_nothing(end: impl FnOnce(&mut Child)) {
    let (folder, mut child) = endless();
    let own = child.id();
    let nodes = processes_of(folder.path())
        .into_iter()
        .filter(|(number, _)| *number != own);
    let here = std::fs::read_link("/proc/self/ns/net").expect("we are in one");
    let namespaces: BTreeSet<PathBuf> = nodes
        .map(|(_, namespace)| namespace)
        .filter(|it| *it != here)
        .collect();
    assert_eq!(namespaces.len(), 2, "each node in a namespace of its own");
    assert_eq!(leftovers(folder.path()).len(), 1);
    end(&mut child);
    child.wait().expect("it is our child");
    eventually("all processes have ended", || {
        processes_of(folder.path()).is_empty()
    });
    eventually("nobody is in the namespaces", || {
        inhabitants(&namespaces) == 0
    });
    eventually("the folder is swept", || {
        leftovers(folder.path()).is_empty()
    });
    let named = Command::new("ip")
        .args(["netns", "list"])
        .output()
        .expect("there is ip");
    assert!(!String::from_utf8_lossy(&named.stdout).contains("lab"));
}

#[test]
fn a_lab_that_is_killed_leaves_nothing() {
    if possible() {
        leaves_nothing(|child| child.kill().expect("it runs"));
    }
}

#[test]
fn a_lab_that_is_interrupted_leaves_nothing() {
    if possible() {
        leaves_nothing(|child| {
            let pid = rustix::process::Pid::from_child(child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
            assert_eq!(child.wait().expect("it is our child").code(), Some(143));
        });
    }
}

#[test]
fn a_lab_that_is_killed_early_leaves_no_folder() {
    if !possible() {
        return;
    }
    let (folder, file) = scenario("[block]\nbytes = 1000");
    for pause_us in (0..30_000).step_by(500) {
        let mut command = lab(folder.path(), &["run", file.to_str().expect("text")]);
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        std::thread::sleep(Duration::from_micros(pause_us));
        child.kill().expect("it runs");
        child.wait().expect("it is our child");
    }
    eventually("all folders are swept", || {
        leftovers(folder.path()).is_empty()
    });
}

/// What a lab prints as JSON, and how it ends.
fn report(toml: &str) -> (Value, Option<i32>) {
    let (folder, file) = scenario(toml);
    let file = file.to_str().expect("text");
    let output = lab(folder.path(), &["run", file, "--json", "--quiet"])
        .output()
        .expect("it starts");
    let report =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    (report, output.status.code())
}

#[test]
fn what_befalls_a_lab_comes_to_what_it_does_in_the_simulator() {
    if !possible() {
        return;
    }
    let scenario = |rest: &str| {
        format!("[block]\nbytes = 50000\n[limit]\nseconds = 20\nsettle_ms = 600\n[[event]]\n{rest}")
    };
    // The node with the block crashes: nobody has it, in either world.
    for at_ms in [-300, 1] {
        let (report, code) = report(&scenario(&format!(
            "at_ms = {at_ms}\nkind = 'crash'\nnodes = [0]"
        )));
        assert_eq!(code, Some(1), "{report:#}");
        let last = &report["nodes"][1];
        assert!(last["simulated_ms"].is_null() && last["measured_ms"].is_null());
    }
    // Smaller packets: the kernels' routes know it, too, or TCP would send what does not pass.
    let (report, code) = report(&scenario(
        "at_ms = -300\nkind = 'set-link'\nlink = { mtu = 1000 }",
    ));
    assert_eq!(code, Some(0), "{report:#}");
    assert!(report["nodes"][1]["measured_ms"].is_number());
}

#[test]
fn blocks_that_come_all_at_once_are_handed_in_one_by_one() {
    if !possible() {
        return;
    }
    // What becomes of so many is the engine's affair; that a node is asked for too much at once is the lab's.
    let (report, _) = report(
        "[link]\ndelay_ms = 5\n[block]\nbytes = 5000\ncount = 30\nevery_ms = 0\n[limit]\nseconds = 60\nsettle_ms = 300",
    );
    let blocks = report["runs"][0]["measured"]["blocks"].as_array();
    let at_source = |block: &Value| block["nodes"][0]["whole_ms"].is_number();
    let whole = blocks.map(|blocks| blocks.iter().filter(|block| at_source(block)).count());
    assert_eq!(whole, Some(30), "{report:#}");
}

#[test]
fn a_node_that_is_frozen_is_named() {
    if !possible() {
        return;
    }
    let (folder, file) = scenario("[block]\nbytes = 1000\n[limit]\nsettle_ms = 60000");
    let mut child = lab(folder.path(), &["run", file.to_str().expect("text")])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let own = child.id();
    let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut said = String::new();
    for line in stderr.lines() {
        said = line.expect("text");
        if said.contains("joining") {
            // Sessions come up first.
            std::thread::sleep(Duration::from_secs(2));
            let datadir = format!("{}node-1", std::path::MAIN_SEPARATOR);
            for (number, _) in processes_of(folder.path()) {
                let words = std::fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
                let words = String::from_utf8_lossy(&words).into_owned();
                if number != own && words.starts_with(PROGRAM) && words.contains(&datadir) {
                    let pid = rustix::process::Pid::from_raw(number as i32).expect("a process");
                    rustix::process::kill_process(pid, rustix::process::Signal::STOP)
                        .expect("it runs");
                }
            }
        }
    }
    assert_eq!(child.wait().expect("it is our child").code(), Some(1));
    assert!(said.contains("node 1 does not answer"), "{said}");
    eventually("the folder is swept", || {
        leftovers(folder.path()).is_empty() && processes_of(folder.path()).is_empty()
    });
}

#[test]
fn what_it_cannot_do_is_refused_before_anything_is_made() {
    let (folder, file) = scenario("[topology]\nnodez = 2");
    let file = file.to_str().expect("text");
    for (arguments, says) in [
        (
            &["run", "swarm-1000-cold"][..],
            "1000 nodes would be 1000 processes",
        ),
        (&["run", "churn"], "give --set clock.skew_ms=0"),
        (&["run", "no-such"], "`blocktorrent sim list`"),
        (
            &["run", file],
            "line 2: no key is called `nodez` here; did you mean `nodes`?",
        ),
        (&["run", "wild", "--runs", "0"], "--runs"),
        (
            &["run", "wild", "--congestion", "a b"],
            "as in cubic or bbr",
        ),
        (&["check", "--seconds", "0"], "from 0.05 to 60"),
        (&["run", "wild", "--only", "bitcoinds"], "set BITCOIND_EXE"),
        (
            &["run", "wild", "--bitcoind", "/nowhere/bitcoind"],
            "error: /nowhere/bitcoind is not there; name one",
        ),
        (
            &["run", "wild", "--node-exe", file],
            "is no program; name one that can be started",
        ),
        (
            &["run", "cold-loss-0", "--set", "block.transactions=45000"],
            "fewer block.transactions",
        ),
    ] {
        let output = lab(folder.path(), arguments).output().expect("it starts");
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains(says), "{}", text(&output));
    }
    assert!(leftovers(folder.path()).is_empty());
}

#[test]
fn what_the_system_lacks_is_told() {
    if !possible() {
        return;
    }
    let (folder, _) = scenario("");
    // Without the device, in a namespace of mounts where nothing is in /dev; without root, as nobody.
    let hidden = format!("mount -t tmpfs none /dev && exec {PROGRAM} lab check");
    for (command, says) in [
        (
            vec!["unshare", "--mount", "sh", "-c", &hidden],
            "there is no /dev/net/tun: load the module",
        ),
        (
            vec![
                "setpriv",
                "--bounding-set",
                "-all",
                "--inh-caps",
                "-all",
                PROGRAM,
                "lab",
                "check",
            ],
            "run as root",
        ),
    ] {
        let output = Command::new(command[0])
            .args(&command[1..])
            .env("TMPDIR", folder.path().join("tmp"))
            .output()
            .expect("util-linux is there");
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(says), "{}", text(&output));
    }
    let mut unknown = lab(
        folder.path(),
        &["run", "wild", "--quiet", "--congestion", "none-such"],
    );
    let output = unknown.output().expect("it starts");
    assert_eq!(output.status.code(), Some(2));
    for says in ["--congestion none-such: this kernel", "give one of "] {
        assert!(text(&output).contains(says), "{}", text(&output));
    }
    eventually("the folder is swept", || {
        leftovers(folder.path()).is_empty()
    });
}

#[test]
fn it_says_what_its_links_carry() {
    if !possible() {
        return;
    }
    let (folder, _) = scenario("");
    let output = lab(folder.path(), &["check", "--json", "--seconds", "0.2"])
        .output()
        .expect("it starts");
    let speed: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    for key in ["udp_gbit", "tcp_gbit", "udp_packets_per_s"] {
        assert!(speed[key].as_f64() > Some(0.0), "{speed}");
    }
    // A datagram that came before its time would be a fault of the links; late it may be here.
    assert!(speed["late_p50_ms"].as_f64() > Some(0.0), "{speed}");
}

#[test]
fn bitcoinds_get_a_block_over_the_same_links_both_ways() {
    if !possible() {
        return;
    }
    let Some(bitcoind) = std::env::var_os("BITCOIND_EXE") else {
        eprintln!("SKIPPED: no bitcoind: set BITCOIND_EXE");
        return;
    };
    let (folder, file) = scenario(
        "[link]\ndelay_ms = 20\n[block]\ntransactions = 200\n[mempool]\noverlap = 0.9\n[limit]\nsettle_ms = 500",
    );
    let arguments = [
        "run",
        file.to_str().expect("text"),
        "--json",
        "--quiet",
        "--only",
        "bitcoinds",
    ];
    let output = lab(folder.path(), &arguments)
        .env("BITCOIND_EXE", bitcoind)
        .output()
        .expect("it starts");
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    assert!(output.status.success(), "{report:#}");
    let last = &report["bitcoinds"]["nodes"][1];
    // The compact block, a request and its answer take three ways; a relay's first flight at least one.
    assert!(last["bip152_ms"].as_f64() >= Some(60.0), "{last}");
    for key in ["blocktorrent_ms", "blocktorrent_whole_ms"] {
        assert!(last[key].as_f64() >= Some(20.0), "{last}");
    }
    eventually("the folder is swept", || {
        leftovers(folder.path()).is_empty()
    });
    assert_eq!(processes_of(folder.path()), BTreeSet::new());
}
