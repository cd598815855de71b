//! A payment, from nothing to the block and back: what `electrum-client` is told at every step.

use bitcoin::Transaction;
use electrum_client::{ElectrumApi as _, Param};
use serde_json::{Value, json};

use super::clients::{Client, client, history, wait, wait_for_history, wait_for_tip};
use super::purse::{Purse, send};
use super::server::Server;
use crate::harness::{Bitcoind, executable};

#[test]
fn a_payment_is_seen_unconfirmed_confirmed_and_after_a_reorganisation() {
    let Some(bitcoind) = executable() else { return };
    let node = Bitcoind::start(&bitcoind, &[]);
    let mut payer = Purse::filled(1, &node, 1);
    let payee = Purse::new(2).script();
    let server = Server::beside(&node);
    let client = client(&server);
    let tip = client.block_headers_subscribe().expect("a tip");
    assert_eq!(tip.header.block_hash(), node.tip());
    assert_eq!(client.script_subscribe(&payee).expect("it is taken"), None);

    let payment = payer.pay(payee.clone(), 100_000, 500);
    let txid = payment.compute_txid();
    assert_eq!(
        client.transaction_broadcast(&payment).expect("it is taken"),
        txid
    );
    let first = wait_for_history(&client, &payee, &[(txid, 0)]);
    let listed = client.script_get_history(&payee).expect("a history");
    assert_eq!(listed[0].fee, Some(500));
    let balance = client.script_get_balance(&payee).expect("a balance");
    assert_eq!((balance.confirmed, balance.unconfirmed), (0, 100_000));
    assert_eq!(client.transaction_get(&txid).expect("it is there"), payment);

    let block = payer.mine(&node, 1)[0];
    let confirmed = wait_for_history(&client, &payee, &[(txid, 102)]);
    assert_ne!(confirmed, first);
    let tip = wait_for_tip(&client, block);
    assert_eq!(tip.height, 102);
    let balance = client.script_get_balance(&payee).expect("a balance");
    assert_eq!((balance.confirmed, balance.unconfirmed), (100_000, 0));
    let unspent = client.script_list_unspent(&payee).expect("coins");
    let coin = &unspent[0];
    assert_eq!(
        (coin.tx_hash, coin.tx_pos, coin.value, coin.height),
        (txid, 0, 100_000, 102)
    );
    prove(&client, &payment, 102);

    // The block is taken back: the payment waits again, as it did before.
    node.call("invalidateblock", json!([block]));
    assert_eq!(wait_for_tip(&client, node.tip()).height, 101);
    assert_eq!(wait_for_history(&client, &payee, &[(txid, 0)]), first);
    assert!(client.transaction_get_merkle(&txid, 102).is_err());
    // What the block had made of nothing is gone.
    let of_payer = history(&client, &payer.script());
    assert_eq!(of_payer.last(), Some(&(txid, 0)));
    assert_eq!(of_payer.len(), 101 + 1);

    // Two others in its place; the first of them has the payment.
    let blocks = Purse::new(3).mine(&node, 2);
    assert_eq!(wait_for_tip(&client, blocks[1]).height, 103);
    // The status is of ids and heights: it is what it was in the block that was taken back.
    assert_eq!(wait_for_history(&client, &payee, &[(txid, 102)]), confirmed);
    prove(&client, &payment, 102);
    let header = client.block_header(102).expect("a header");
    assert_eq!(header.block_hash(), blocks[0]);
}

/// Its branch leads to the root of the header there.
fn prove(client: &Client, payment: &Transaction, height: usize) {
    let txid = payment.compute_txid();
    let root = client.block_header(height).expect("a header").merkle_root;
    let proof = client
        .transaction_get_merkle(&txid, height)
        .expect("a branch");
    assert_eq!(proof.block_height, height);
    assert!(electrum_client::utils::validate_merkle_proof(
        &txid, &root, &proof
    ));
    let there = client
        .txid_from_pos_with_merkle(height, proof.pos)
        .expect("a branch");
    assert_eq!((there.tx_hash, there.merkle), (txid, proof.merkle));
}

#[test]
fn a_child_of_what_waits_is_told_apart_until_its_parent_is_in_a_block() {
    let Some(bitcoind) = executable() else { return };
    let node = Bitcoind::start(&bitcoind, &[]);
    let mut payer = Purse::filled(1, &node, 1);
    let mut middle = Purse::new(2);
    let payee = Purse::new(3).script();
    let server = Server::beside(&node);
    let client = client(&server);
    for script in [&middle.script(), &payee] {
        assert_eq!(client.script_subscribe(script).expect("it is taken"), None);
    }

    let parent = payer.pay(middle.script(), 100_000, 500);
    middle.note(&parent);
    let child = middle.pay(payee.clone(), 60_000, 3_000);
    let (parent_id, child_id) = (parent.compute_txid(), child.compute_txid());
    // Not through the server this time.
    send(&node, &parent);
    send(&node, &child);
    wait_for_history(&client, &payee, &[(child_id, -1)]);
    wait_for_history(&client, &middle.script(), &[(parent_id, 0), (child_id, -1)]);
    let histogram = client
        .raw_call("mempool.get_fee_histogram", [])
        .expect("a histogram");
    // ElectrumX's rule: what fills no step is not told of.
    assert_eq!(histogram, json!([]));

    let spent = Param::String(parent_id.to_string());
    let verbose = client
        .raw_call("blockchain.transaction.get", [spent, Param::Bool(true)])
        .expect("it is told in the node's words");
    assert_eq!(verbose["txid"], json!(parent_id));

    // A block with the parent alone: the child's inputs are confirmed now.
    let descriptor = format!("raw({:x})", payer.script());
    let hex = bitcoin::consensus::encode::serialize_hex(&parent);
    let block = node.call("generateblock", json!([descriptor, [hex]]));
    wait_for_history(&client, &payee, &[(child_id, 0)]);
    // The block is taken back, and both wait again; then there is another with the parent.
    node.call("invalidateblock", json!([block["hash"]]));
    wait_for_history(&client, &payee, &[(child_id, -1)]);
    wait_for_history(&client, &middle.script(), &[(parent_id, 0), (child_id, -1)]);
    // To somebody else, or it would be the one that was taken back.
    node.call("generateblock", json!(["raw(51)", [hex]]));
    wait_for_history(&client, &payee, &[(child_id, 0)]);
    wait_for_history(
        &client,
        &middle.script(),
        &[(parent_id, 102), (child_id, 0)],
    );
    payer.mine(&node, 1);
    wait_for_history(&client, &payee, &[(child_id, 103)]);
    let histogram = client.raw_call("mempool.get_fee_histogram", []);
    assert_eq!(histogram.expect("a histogram"), json!([]));
}

#[test]
fn what_the_node_refuses_is_refused_in_its_words_and_what_is_replaced_is_gone() {
    let Some(bitcoind) = executable() else { return };
    let node = Bitcoind::start(&bitcoind, &[]);
    let mut payer = Purse::filled(1, &node, 2);
    let (payee, other) = (Purse::new(2).script(), Purse::new(3).script());
    let mut copy = Purse::new(1);
    let server = Server::beside(&node);
    let client = client(&server);
    // Of `payee` nothing is subscribed: this client takes no notification that there is nothing any more.
    client.script_subscribe(&other).expect("it is taken");

    let mut forged = Purse::filled(4, &node, 1).pay(payee.clone(), 1_000, 500);
    forged.output[0].value += bitcoin::Amount::from_sat(1);
    let refused = client.transaction_broadcast(&forged);
    let reason = refused
        .expect_err("the signature is of another")
        .to_string();
    assert!(reason.contains("script-verify-flag-failed"), "{reason}");

    // The same coin once more, to another, for more.
    let hash = node.call("getblockhash", json!([1]));
    let hash = serde_json::from_value(hash).expect("a hash");
    let first: bitcoin::Block =
        bitcoin::consensus::deserialize(&node.block(hash)).expect("a block");
    copy.note(&first.txdata[0]);
    let replaced = payer.pay(payee.clone(), 50_000, 500);
    let replacing = copy.pay(other.clone(), 50_000, 5_000);
    let gone = client
        .transaction_broadcast(&replaced)
        .expect("it is taken");
    wait(&client, "payment", |client| {
        (history(client, &payee) == [(gone, 0)]).then_some(())
    });
    let there = client
        .transaction_broadcast(&replacing)
        .expect("it is taken");
    wait_for_history(&client, &other, &[(there, 0)]);
    wait(&client, "end of the history", |client| {
        history(client, &payee).is_empty().then_some(())
    });
    assert_eq!(client.script_subscribe(&payee).expect("it is taken"), None);
    let missing: Result<Value, _> = client.raw_call(
        "blockchain.transaction.get",
        [Param::String(gone.to_string())],
    );
    assert!(missing.is_err());
}
