//! `blocktorrent sim` as those use it who only have the program: its JSON, its complaints, its exit codes.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn sim(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blocktorrent"));
    command.arg("sim").args(arguments);
    command
}

fn output(arguments: &[&str]) -> Output {
    sim(arguments).output().expect("the program runs")
}

/// What it complains of, in one line; nothing may have been printed, and the exit code is that of senseless questions.
fn complaint(arguments: &[&str]) -> String {
    let output = output(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
    let text = String::from_utf8(output.stderr).expect("text");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn compare_prints_what_others_read() {
    let output = output(&[
        "compare",
        "warm-99-loss-1",
        "cold-loss-1",
        "--runs",
        "2",
        "--quiet",
        "--json",
        "--set",
        "block.bytes=60000",
    ]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).expect("an array");
    let protocols = [
        "blocktorrent",
        "bip152-hb",
        "bip152-lb",
        "msg-block",
        "fibre-trusted",
        "fibre-untrusted",
    ];
    let expected: Vec<(&str, &str)> = ["warm-99-loss-1", "cold-loss-1"]
        .iter()
        .flat_map(|scenario| protocols.iter().map(|protocol| (*scenario, *protocol)))
        .collect();
    let found: Vec<(&str, &str)> = rows
        .iter()
        .map(|row| {
            let text = |key: &str| row.get(key).and_then(Value::as_str).expect("text");
            (text("scenario"), text("protocol"))
        })
        .collect();
    assert_eq!(found, expected);
    let numbers = [
        "added_delay_ms_p50",
        "added_delay_ms_p95",
        "block_bytes",
        "bound_ms",
        "bytes_per_node",
        "complete_share",
        "nodes",
        "redundancy",
        "request_free_share",
    ];
    for row in rows {
        let row = row.as_object().expect("an object");
        assert_eq!(row.len(), numbers.len() + 2);
        for key in numbers {
            assert!(row.get(key).is_some_and(Value::is_number), "{key}: {row:?}");
        }
        assert_eq!(row.get("complete_share"), Some(&Value::from(1.0)));
    }
}

#[test]
fn what_makes_no_sense_is_answered_with_what_to_write() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("text").to_owned()
    };
    let unknown = file("unknown.toml", b"[topology]\nnode = 2");
    assert!(
        complaint(&["run", &unknown])
            .contains("unknown.toml, line 2: no key is called `node` here; did you mean `nodes`?")
    );
    let block = file("block.toml", b"\n[block]\nfile = 'none.raw'");
    assert!(
        complaint(&["compare", "wild", &block])
            .contains("block.toml, line 3: block.file: can't read")
    );
    let bytes = file("bytes.toml", b"\xff\xfe");
    assert!(complaint(&["run", &bytes]).contains("is no text; give a scenario in TOML"));
    let folder = folder.path().to_str().expect("text");
    assert!(complaint(&["run", folder]).contains("is a folder"));
    assert!(complaint(&["run", "no-such"]).contains("`blocktorrent sim list`"));
    for loss in ["2", "-1", "nan", "inf", "1e300"] {
        let set = format!("link.loss={loss}");
        assert!(complaint(&["run", "wild", "--set", &set]).contains("give a number from 0 to 1"));
    }
    assert!(
        complaint(&["run", "wild", "--protocol", "tcp"]).contains("give one of blocktorrent, ")
    );
    assert!(complaint(&["run", "wild", "--set", "topology.nodes=1"]).contains("no node is left"));
    let many = ["run", "swarm-1000-cold-32mb", "--memory-gb", "0.5"];
    assert!(complaint(&many).contains("give fewer nodes or a smaller block"));
    assert!(
        complaint(&["plot", "wild", "-o", "a.svg", "--node", "7"]).contains("from 0 to 1, or last")
    );
    assert!(!Path::new("a.svg").exists());
}

#[test]
fn a_picture_that_cannot_be_written_shows_before_the_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let inside = folder.path().join("none/a.svg");
    // A run of this one would take minutes.
    let path = inside.to_str().expect("text");
    let output = output(&["plot", "swarm-1000-cold", "-o", path]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("make the folder"), "{text}");
}

#[test]
fn comparisons_tell_how_far_they_are() {
    let output = output(&[
        "compare",
        "wild",
        "warm-100-loss-1",
        "--runs",
        "1",
        "--protocol",
        "bip152-hb",
        "--protocol",
        "msg-block",
    ]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let parts = [
        "scenario 1 of 2, protocol 1 of 2: wild, bip152-hb",
        "scenario 1 of 2, protocol 2 of 2: wild, msg-block",
        "scenario 2 of 2, protocol 1 of 2: warm-100-loss-1, bip152-hb",
        "scenario 2 of 2, protocol 2 of 2: warm-100-loss-1, msg-block",
    ];
    // More lines come between on a slow machine.
    let mut lines = said.lines();
    for part in parts {
        assert!(lines.any(|line| line == part), "{said}");
    }
}

#[test]
fn who_reads_no_further_is_no_failure() {
    let mut child = sim(&["list", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut line = String::new();
    let mut reader = BufReader::with_capacity(1, child.stdout.take().expect("piped"));
    reader.read_line(&mut line).expect("a line");
    drop(reader);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(line, "{\n");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}
