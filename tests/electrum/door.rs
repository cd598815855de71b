//! `tools/electrs`, started as electrsd starts electrs.

use electrum_client::ElectrumApi as _;

use super::clients::{client, history, wait, wait_for_tip};
use super::purse::{Purse, send};
use super::server::Server;
use crate::harness::{Bitcoind, executable};

/// A block, a transaction after a signal, the end after another: by either set of flags.
fn serves(node: &Bitcoind, flags: &[String]) {
    let mut payer = Purse::filled(1, node, 1);
    let payee = Purse::new(2).script();
    let mut server = Server::as_electrs(flags);
    let client = client(&server);
    let height = node.call("getblockcount", serde_json::json!([]));
    let tip = client.block_headers_subscribe().expect("a tip");
    assert_eq!(tip.height as u64, height);
    let block = node.mine(1)[0];
    server.signal("USR1");
    wait_for_tip(&client, block);
    client.script_subscribe(&payee).expect("it is taken");
    let txid = send(node, &payer.pay(payee.clone(), 10_000, 500));
    server.signal("USR1");
    wait(&client, "status", |client| {
        client.script_pop(&payee).expect("it is subscribed")
    });
    assert_eq!(history(&client, &payee), [(txid, 0)]);
    server.signal("INT");
    let status = server.ended();
    assert!(status.success(), "{status}\n{}", server.log.tail());
}

#[test]
fn it_is_started_by_the_flags_of_electrs() {
    let Some(bitcoind) = executable() else { return };
    let node = Bitcoind::start(&bitcoind, &[]);
    let flags = [
        "--cookie-file".to_owned(),
        node.cookie().display().to_string(),
        format!("--daemon-rpc-addr={}", node.rpc_address()),
        "--daemon-p2p-addr".to_owned(),
        node.p2p().to_string(),
    ];
    serves(&node, &flags);
}

#[test]
fn it_is_started_by_the_flags_of_old_electrs_and_of_esplora() {
    let Some(bitcoind) = executable() else { return };
    // Where its blocks are, it says by where its log is.
    let node = Bitcoind::start(&bitcoind, &["-debuglogfile=debug.log"]);
    let cookie = std::fs::read_to_string(node.cookie()).expect("it runs");
    let flags = [
        "--cookie".to_owned(),
        cookie,
        "--daemon-rpc-addr".to_owned(),
        node.rpc_address().to_string(),
        "--jsonrpc-import".to_owned(),
        "--http-addr".to_owned(),
        "0.0.0.0:0".to_owned(),
    ];
    serves(&node, &flags);
}

#[test]
fn it_says_its_version_and_refuses_what_it_does_not_know() {
    let door = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/electrs");
    let run = |flag| {
        let mut command = std::process::Command::new(door);
        command.env("BLOCKTORRENT_EXE", env!("CARGO_BIN_EXE_blocktorrent"));
        command.arg(flag).output().expect("it starts")
    };
    let version = run("--version");
    assert!(version.status.success());
    let said = String::from_utf8_lossy(&version.stdout).into_owned();
    assert!(said.contains(env!("CARGO_PKG_VERSION")), "{said}");
    let unknown = run("--no-such-flag=1");
    assert_eq!(unknown.status.code(), Some(2));
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(said.contains("--no-such-flag"), "{said}");
}
