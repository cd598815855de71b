//! `blocktorrent demo` from outside: real processes, small cases.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, as it should"
)]

use std::process::{Command, Output};

use serde_json::Value;

fn demo(line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_blocktorrent"))
        .arg("demo")
        .args(line.split_whitespace())
        .output()
        .unwrap()
}

/// The object that a demo prints, which must have succeeded.
fn report(line: &str) -> Value {
    let output = demo(&format!("{line} --json"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {errors}");
    assert!(errors.is_empty(), "{line}: {errors}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["all_complete"], true);
    report
}

fn nodes(report: &Value) -> &[Value] {
    report["nodes"].as_array().unwrap()
}

fn number(value: &Value, name: &str) -> f64 {
    value[name]
        .as_f64()
        .unwrap_or_else(|| panic!("{name} of {value}"))
}

#[test]
fn chunks_go_on_before_the_block_is_whole() {
    let report = report("--nodes 3 --delay 5 --rate 100");
    assert_eq!(
        report["block"],
        serde_json::json!({
            "hash": "000000000000000000000c835b2adcaedc20fdf6ee440009c249452c726dafae",
            "bytes": 1_381_836,
            "transactions": 2_500,
        })
    );
    let bound_ms = number(&report, "bound_ms");
    assert!((120.0..130.0).contains(&bound_ms), "{bound_ms}");
    assert_eq!(nodes(&report).len(), 3);
    for (id, node) in nodes(&report).iter().enumerate() {
        assert_eq!(node["id"], id);
        for name in ["honest", "complete", "identical"] {
            assert_eq!(node[name], true, "{name} of {node}");
        }
        assert!(number(node, "first_chunk_ms") <= number(node, "complete_ms"));
        for name in ["datagrams_in", "datagrams_out", "requests"] {
            assert!(node[name].is_u64(), "{name} of {node}");
        }
        assert!(node["refused"].is_object());
        assert_eq!(node["chunks"], 20);
    }
    let [first, middle, last] = nodes(&report) else {
        panic!("three nodes");
    };
    assert!(number(middle, "chunks_forwarded_before_complete") > 0.0);
    assert!(number(last, "first_chunk_ms") < number(middle, "complete_ms"));
    assert!(number(last, "complete_ms") >= bound_ms);
    assert!(number(first, "bytes_out") > 1_381_836.0);
    assert!(number(last, "bytes_in") > 1_381_836.0);
    assert_eq!(last["sources"], serde_json::json!({"1": 20}));
}

#[test]
fn links_are_modest_unless_told_otherwise() {
    let report = report("--nodes 2");
    let bound_ms = number(&report, "bound_ms");
    // 10 ms, and 1.4 MB at 20 Mbit/s.
    assert!((560.0..600.0).contains(&bound_ms), "{bound_ms}");
}

#[test]
fn that_udp_does_not_get_through_is_told() {
    let output = demo("--nodes 2 --loss 100 --delay 0 --rate 0");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("By TCP, as UDP did not get through: nodes 1."),
        "{text}"
    );
    assert!(!text.contains("No relay could be"), "{text}");
    assert!(text.contains("done\n") && !text.contains('✗'), "{text}");
}

#[test]
fn a_liar_spoils_nothing() {
    let report = report("--nodes 4 --topology mesh --liars 1 --seed 3");
    let liars = nodes(&report).iter().filter(|node| node["honest"] == false);
    assert_eq!(liars.count(), 1);
    assert_eq!(nodes(&report)[0]["honest"], true);
    for node in nodes(&report) {
        assert!(node["honest"] == false || node["identical"] == true);
    }
}

#[test]
fn what_a_node_has_need_not_cross() {
    let report = report("--nodes 2 --warm 100 --delay 0 --rate 0");
    let node = &nodes(&report)[1];
    // The coinbase alone is missing.
    assert!(number(node, "missing_bytes") < 1_000.0, "{node}");
    // A first flight is about 35 kB. Where the machine is busy, it may be sent twice.
    assert!(number(node, "bytes_in") < 150_000.0, "{node}");
    assert_eq!(node["sources"], serde_json::json!({"0": 20}));
    assert_eq!(number(&report, "bound_ms"), 0.0);
}

#[test]
fn senseless_flags_are_refused_in_one_line() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let empty = format!("--block {}", file.path().display());
    for (line, code, says) in [
        ("--nodes 0", 2, "--nodes"),
        ("--topology knot", 2, "line, ring, star, mesh"),
        ("--loss 101", 2, "0 to 100"),
        ("--nonsense", 2, "--nonsense"),
        ("--block /nowhere", 1, "can't read the block /nowhere"),
        (&empty, 1, "is empty"),
        ("--nodes 4 --liars 4", 2, "at most 2 liars"),
    ] {
        let output = demo(line);
        assert_eq!(output.status.code(), Some(code), "{line}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(error.lines().count(), 1, "{line}: {error}");
        assert!(error.contains(says), "{line}: {error}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_reader_that_has_left_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_blocktorrent"))
        .args(["demo", "--nodes", "2", "--json"])
        .stdout(writer)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[cfg(unix)]
#[test]
fn nothing_stays_behind_when_it_is_interrupted() {
    use std::io::{BufRead as _, BufReader};
    for (signal, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129)] {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_blocktorrent"))
            .args(["demo", "--nodes", "2", "--delay", "100"])
            .env("TMPDIR", folder.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().starts_with("joining")));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let process = child.id().to_string();
        let killed = Command::new("kill").args([signal, &process]).status();
        assert!(killed.unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn private_links_carry_the_same_block() {
    let report = report("--links quic --nodes 3 --topology ring --loss 3 --delay 5 --rate 100");
    for node in nodes(&report) {
        assert_eq!(node["identical"], true);
        // What went over the stream instead of datagrams would be named here.
        assert_eq!(node["by_tcp"], serde_json::json!([]));
    }
}
