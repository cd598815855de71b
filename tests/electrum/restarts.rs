//! A server that is killed and started again answers as before.

use bitcoin::{ScriptBuf, Txid};
use electrum_client::ElectrumApi as _;
use serde_json::{Value, json};

use super::clients::{Client, client, history, wait, wait_for_history};
use super::purse::{Purse, send};
use super::server::Server;
use crate::harness::{Bitcoind, executable};

/// What a wallet would ask.
fn everything(server: &Server, scripts: &[ScriptBuf]) -> Value {
    let client: Client = client(server);
    let of_script = |script: &ScriptBuf| {
        let history = client.script_get_history(script).expect("a history");
        let unspent = client.script_list_unspent(script).expect("coins");
        let balance = client.script_get_balance(script).expect("a balance");
        let status = client.script_subscribe(script).expect("a status");
        format!("{history:?} {unspent:?} {balance:?} {status:?}")
    };
    let tip = client.block_headers_subscribe().expect("a tip");
    let headers = client.block_headers(0, 1_000).expect("headers");
    let histogram = client.raw_call("mempool.get_fee_histogram", []);
    json!({
        "scripts": scripts.iter().map(of_script).collect::<Vec<_>>(),
        "tip": [tip.height, tip.header.block_hash()],
        "headers": headers.headers.iter().map(|it| it.block_hash()).collect::<Vec<_>>(),
        "histogram": histogram.expect("a histogram"),
    })
}

#[test]
fn a_server_that_was_killed_answers_as_before() {
    let Some(bitcoind) = executable() else { return };
    let node = Bitcoind::start(&bitcoind, &[]);
    let mut payer = Purse::filled(1, &node, 2);
    let scripts = [1, 2, 3].map(|number| Purse::new(number).script());
    let mut server = Server::beside(&node);
    let first = client(&server);
    first.script_subscribe(&scripts[1]).expect("it is taken");
    first.script_subscribe(&scripts[2]).expect("it is taken");
    let confirmed = send(&node, &payer.pay(scripts[1].clone(), 10_000, 500));
    let block = payer.mine(&node, 1)[0];
    wait_for_history(&first, &scripts[1], &[(confirmed, 103)]);
    let waiting = send(&node, &payer.pay(scripts[2].clone(), 20_000, 700));
    wait_for_history(&first, &scripts[2], &[(waiting, 0)]);
    let before = everything(&server, &scripts);

    server.kill();
    server.start_again(&node);
    assert_eq!(everything(&server, &scripts), before);

    // While it is dead, the chain goes on by another branch.
    server.kill();
    node.call("invalidateblock", json!([block]));
    Purse::new(4).mine(&node, 2);
    server.start_again(&node);
    let third = client(&server);
    assert_eq!(history(&third, &scripts[1]), [(confirmed, 103)]);
    assert_eq!(history(&third, &scripts[2]), [(waiting, 103)]);
    let tip = third.block_headers_subscribe().expect("a tip");
    assert_eq!((tip.height, tip.header.block_hash()), (104, node.tip()));

    // And it follows the chain as if nothing had been.
    third.script_subscribe(&scripts[2]).expect("it is taken");
    let last: Txid = send(&node, &payer.pay(scripts[2].clone(), 30_000, 500));
    wait(&third, "status", |client| {
        client.script_pop(&scripts[2]).expect("it is subscribed")
    });
    assert_eq!(history(&third, &scripts[2]), [(waiting, 103), (last, 0)]);
}
