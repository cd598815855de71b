//! The check can fail: each rule on a small source that breaks it, and on one that does not.

use super::citations::{check_citations, requirements};
use super::inspector::inspect;
use super::source::Source;

fn advice(module: &[&str], text: &str) -> Vec<String> {
    let source = Source::parse("a.rs", module, false, text).expect("the case parses");
    let found = inspect(&source);
    found.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn breach(module: &[&str], text: &str, line: usize, words: &str) {
    let found = advice(module, text);
    let place = format!("a.rs:{line}: ");
    assert!(
        found
            .iter()
            .any(|f| f.starts_with(&place) && f.contains(words)),
        "line {line}, {words:?} not in {found:#?}"
    );
}

#[track_caller]
fn clean(module: &[&str], text: &str) {
    assert_eq!(advice(module, text), Vec::<String>::new());
}

#[test]
fn a_wall_is_seen_through_every_kind_of_path() {
    let codec = &["wire", "codec"];
    let wire = &["wire"];
    let words = "may not import `relay`";
    breach(codec, "\nuse crate::relay::Engine;", 2, words);
    breach(codec, "use crate::{merkle::Node, relay};", 1, words);
    breach(wire, "use super::relay::Engine;", 1, words);
    breach(codec, "use super::super::relay::Engine;", 1, words);
    breach(wire, "mod inner { use super::super::relay::A; }", 1, words);
    breach(wire, "fn f() -> crate::relay::Engine { g() }", 1, words);
    breach(wire, "fn f() { vec![crate::relay::new()]; }", 1, words);
    let exported = "macro_rules! m { () => { $crate::relay::new() } }";
    breach(wire, exported, 1, words);
    let tested = "#[cfg(test)] mod tests { use crate::relay::Engine; }";
    breach(wire, tested, 1, words);
    breach(wire, "use crate::*;", 1, "import by name");
    breach(&["main"], "use blocktorrent::relay;", 1, words);
    clean(codec, "use super::Limits; use crate::merkle::Node;");
    clean(codec, "use super::super::merkle;");
    clean(&["relay", "job"], "mod tests { use super::*; }");
    clean(
        &["relay"],
        "use crate::{merkle, wire, mempool, time::Time};",
    );
    clean(&["node"], "use crate::{relay, net, chain, config};");
}

#[test]
fn a_module_needs_a_row_and_a_name() {
    breach(&["gossip"], "", 1, "row in WALLS");
    breach(&["relay", "utils"], "", 1, "name the module");
    breach(&["relay"], "#[path = \"x.rs\"] mod x;", 1, "name says");
    clean(
        &["relay"],
        "#[cfg(test)] #[path = \"x_tests.rs\"] mod tests;",
    );
}

#[test]
fn starred_files_see_more_than_their_slice() {
    let headers = &["chain", "headers"];
    let rpc = &["chain", "bitcoind", "rpc", "connection"];
    breach(&["chain", "bitcoind"], "use std::fs;", 1, "pure");
    breach(&["chain", "bitcoind", "conf"], "use std::fs;", 1, "pure");
    breach(&["chain", "rpc"], "use std::fs;", 1, "pure");
    breach(headers, "use crate::config::Config;", 1, "may not import");
    breach(headers, "use std::fs;", 1, "pure");
    clean(rpc, "use crate::config::Config; use std::fs;");
    breach(rpc, "use crate::relay;", 1, "may not import");
}

#[test]
fn clocks_and_io_are_seen_under_any_name() {
    let relay = &["relay", "job"];
    breach(relay, "use std::time::{Duration, Instant};", 1, "Instant");
    let through_module = "use std::time;\nfn f() { time::Instant::now(); }";
    breach(relay, through_module, 2, "Instant");
    let renamed = "use std::time as t;\nfn f() { t::SystemTime::now(); }";
    breach(relay, renamed, 2, "SystemTime");
    breach(relay, "use std::time::*;", 1, "glob");
    breach(relay, "use core::net::TcpStream;", 1, "TcpStream");
    breach(relay, "fn f(m: &std::sync::Mutex<u8>) {}", 1, "Mutex");
    breach(relay, "use std::io::Read;", 1, "std::io");
    breach(relay, "fn f() { tokio::spawn(g()); }", 1, "tokio");
    breach(relay, "fn f() { std::thread::spawn(g); }", 1, "thread");
    breach(relay, "fn f() -> u64 { rand::random() }", 1, "seed");
    breach(relay, "use rand::rngs::SysRng;", 1, "seed");
    breach(relay, "fn f() { println!(\"x\"); }", 1, "event");
    breach(relay, "fn f() { assert!(std::fs::g()); }", 1, "std::fs");
    let not_only_tests = "#[cfg(any(test, fuzzing))] mod m { use std::fs; }";
    breach(relay, not_only_tests, 1, "std::fs");
    clean(relay, "use std::net::{IpAddr, SocketAddr};");
    clean(relay, "use std::{sync::Arc, time::Duration};");
    clean(relay, "use rand::{SeedableRng, rngs::StdRng};");
    clean(relay, "#[cfg(test)] mod tests { use std::time::Instant; }");
    clean(&["net", "udp"], "use std::{net::UdpSocket, time::Instant};");
}

#[test]
fn the_order_of_a_hash_map_stays_inside() {
    let relay = &["relay", "job"];
    let with = |body: &str| {
        let map = "use std::collections::HashMap; struct S { m: HashMap<u8, u8, H> }";
        format!("{map}\nimpl S {{ fn f(&self) {{ {body} }} }}")
    };
    clean(relay, &with("self.m.get(&1);"));
    breach(relay, &with("self.m.iter();"), 2, "`m`");
    breach(relay, &with("for x in &self.m {}"), 2, "`m`");
    breach(relay, &with("(&self.m).keys();"), 2, "`m`");
    let unnamed = "use std::collections::HashMap;\nfn f(m: HashMap<u8, u8>) {}";
    breach(relay, unnamed, 2, "name the hasher");
    let made = "use std::collections::HashSet;\nfn f() { let s = HashSet::new(); }";
    breach(relay, made, 2, "with_hasher");
    let renamed = "use std::collections::HashSet as H;\nfn f() { let s = H::new(); }";
    breach(relay, renamed, 2, "with_hasher");
    let aliased = "type M = std::collections::HashMap<u8, u8, S>;\nfn f(m: &M) { m.values(); }";
    breach(relay, aliased, 2, "`m`");
    let iterated = "fn f(m: HashMap<u8, u8>) { m.iter(); }";
    clean(&["node"], iterated);
    clean(relay, "fn f(m: BTreeMap<u8, u8>) { m.iter(); }");
}

#[test]
fn a_bound_has_a_reason() {
    let words = "why this bound";
    breach(&["wire"], "\nconst MAX_X: u8 = 1;", 2, words);
    breach(&["wire"], "/// The most.\nconst MAX_X: u8 = 1;", 2, words);
    let associated = "struct S;\nimpl S { const MAX_X: u8 = 1; }";
    breach(&["wire"], associated, 2, words);
    let reason = "Jobs open at once: two blocks found together, and as many stale ones.";
    clean(&["wire"], &format!("/// {reason}\nconst MAX_X: u8 = 4;"));
}

#[test]
fn length_is_counted_without_tests() {
    let wire = &["wire"];
    let function = |lines| format!("fn f() {{\n{}}}\n", "g();\n".repeat(lines));
    breach(wire, &function(69), 1, "`f` has 71 lines");
    clean(wire, &function(68));
    clean(wire, &format!("#[test]\n{}", function(69)));
    breach(wire, &"struct A;\n".repeat(601), 1, "601 lines");
    let code = "struct A;\n".repeat(600);
    let tests = "struct B;\n".repeat(300);
    clean(
        wire,
        &format!("{code}#[cfg(test)]\nmod tests {{\n{tests}}}\n"),
    );
}

#[test]
fn unfinished_and_silenced_code_is_seen() {
    let net = &["net"];
    breach(net, "fn f() { x.unwrap(); }", 1, "unwrap");
    breach(net, "fn f() { assert!(x.unwrap()); }", 1, "unwrap");
    clean(net, "#[cfg(test)] mod tests { fn f() { x.unwrap(); } }");
    clean(net, "fn g() { x.unwrap_or(1); }");
    breach(net, concat!("// TO", "DO: later"), 1, "do it");
    breach(net, concat!("\n/// FIX", "ME\nstruct A;"), 2, "do it");
    breach(net, "fn f() { unimplemented!() }", 1, "finish it");
    breach(net, "#[allow(dead_code)]\nfn f() {}", 1, "say why");
    let documented = "/// Doc.\n#[allow(dead_code)]\nfn f() {}";
    breach(net, documented, 2, "say why");
    breach(net, "#[expect(unused)]\nuse a::b;", 1, "say why");
    clean(net, "#[allow(dead_code, reason = \"x\")]\nfn f() {}");
    clean(net, "// Kept for x.\n#[allow(dead_code)]\nfn f() {}");
    breach(net, "#[test] #[ignore] fn f() {}", 1, "ignored");
    breach(net, "#[test] #[ignore = \"slow\"] fn f() {}", 1, "ignored");
}

#[test]
fn queues_are_bounded_and_errors_typed() {
    let node = &["node"];
    let unbounded = "use tokio::sync::mpsc::unbounded_channel;";
    breach(node, unbounded, 1, "bound");
    let standard = "use std::sync::mpsc;\nfn f() { mpsc::channel(); }";
    breach(node, standard, 2, "bound");
    clean(
        node,
        "use std::sync::mpsc; fn f() { mpsc::sync_channel(4); }",
    );
    clean(node, "use anyhow::Context;");
    breach(&["net"], "use anyhow::Result;", 1, "error type");
}

#[test]
fn a_citation_has_its_requirement() {
    let text = "* '''ABC-1.''' It MUST.\n* '''ABC-1.''' Again.\n* '''ABC-2.''' And.";
    let (known, findings) = requirements("b", text);
    assert_eq!((known.len(), findings.len()), (2, 1));
    let cited = |line: &str| check_citations("a.rs", line, &known).len();
    assert_eq!(
        cited("// ABC-1, ABC-2: so it is; CVE-2012 is something else"),
        0
    );
    assert_eq!(cited("// ABC-3: so it is"), 1);
}
