//! What is asked of the chain: headers with proofs, many questions at once, what the server says of itself.

use bitcoin::hashes::{Hash as _, HashEngine as _, sha256d};
use bitcoin::{BlockHash, Txid};
use electrum_client::{Batch, ElectrumApi as _, Param};
use serde_json::Value;

use super::clients::{Client, client, history};
use super::purse::Purse;
use super::server::Server;
use crate::harness::{Bitcoind, executable};

#[test]
fn headers_follow_one_another_and_are_proved_up_to_a_checkpoint() {
    let Some(bitcoind) = executable() else { return };
    let node = Bitcoind::start(&bitcoind, &[]);
    let blocks = node.mine(30);
    let server = Server::beside(&node);
    let client = client(&server);

    let answer = client.block_headers(0, 100).expect("headers");
    assert_eq!(answer.count, 31);
    assert!(answer.max >= 2016);
    let hashes: Vec<BlockHash> = answer.headers.iter().map(|it| it.block_hash()).collect();
    assert_eq!(hashes[1..], blocks);
    let parents = answer.headers[1..].iter().map(|it| it.prev_blockhash);
    assert!(parents.eq(hashes[..30].iter().copied()));

    let root = root(&hashes);
    for height in [0, 1, 15, 29, 30] {
        let numbers = [height, 30].map(Param::Usize);
        let proof = client
            .raw_call("blockchain.block.header", numbers)
            .expect("a proof");
        assert_eq!(
            proof["header"],
            hex::DisplayHex::to_lower_hex_string(
                &bitcoin::consensus::serialize(&answer.headers[height])[..]
            )
        );
        check(&proof, height, hashes[height], &root);
    }
    let numbers = [10, 5, 30].map(Param::Usize);
    let proof = client
        .raw_call("blockchain.block.headers", numbers)
        .expect("a proof");
    check(&proof, 14, hashes[14], &root);

    assert!(client.block_header(31).is_err());
    let beyond = [20, 31].map(Param::Usize);
    assert!(client.raw_call("blockchain.block.header", beyond).is_err());
}

/// The root over these, pair by pair, the last of an odd row twice.
fn root(hashes: &[BlockHash]) -> Value {
    let mut row: Vec<_> = hashes.iter().map(|hash| hash.to_raw_hash()).collect();
    while row.len() > 1 {
        let pairs = row.chunks(2);
        row = pairs
            .map(|pair| joined(pair[0], pair[pair.len() - 1]))
            .collect();
    }
    Value::String(row[0].to_string())
}

fn joined(left: sha256d::Hash, right: sha256d::Hash) -> sha256d::Hash {
    let mut engine = sha256d::Hash::engine();
    engine.input(left.as_byte_array());
    engine.input(right.as_byte_array());
    sha256d::Hash::from_engine(engine)
}

fn check(proof: &Value, height: usize, hash: BlockHash, root: &Value) {
    assert_eq!(&proof["root"], root);
    let branch = proof["branch"].as_array().expect("a branch");
    let mut place = height;
    let top = branch.iter().fold(hash.to_raw_hash(), |below, other| {
        let other: sha256d::Hash = other.as_str().expect("a hash").parse().expect("a hash");
        let is_right = place & 1 == 1;
        place >>= 1;
        match is_right {
            true => joined(other, below),
            false => joined(below, other),
        }
    });
    assert_eq!(Value::String(top.to_string()), *root);
}

#[test]
fn many_questions_at_once_are_answered_in_their_order() {
    let Some(bitcoind) = executable() else { return };
    let node = Bitcoind::start(&bitcoind, &[]);
    let mut payer = Purse::filled(1, &node, 1);
    let server = Server::beside(&node);
    let client = client(&server);
    let scripts: Vec<_> = (2..12).map(|number| Purse::new(number).script()).collect();
    let mut ids: Vec<Txid> = Vec::new();
    for (script, value) in scripts.iter().zip(10_000..) {
        // A coinbase, and then change of change: a chain of ten.
        let payment = payer.pay(script.clone(), value, 500);
        ids.push(client.transaction_broadcast(&payment).expect("it is taken"));
    }
    payer.mine(&node, 1);
    super::clients::wait(&client, "block", |client| {
        history(client, &scripts[9])
            .contains(&(ids[9], 102))
            .then_some(())
    });

    let of_all = scripts.iter().map(|script| script.as_script());
    let histories = client.batch_script_get_history(of_all.clone());
    let histories = histories.expect("histories");
    assert!(
        histories
            .iter()
            .map(|it| it[0].tx_hash)
            .eq(ids.iter().copied())
    );
    let balances = client.batch_script_get_balance(of_all).expect("balances");
    assert!(balances.iter().map(|it| it.confirmed).eq(10_000..10_010));
    let bodies = client.batch_transaction_get(&ids).expect("transactions");
    assert!(
        bodies
            .iter()
            .map(|it| it.compute_txid())
            .eq(ids.iter().copied())
    );
    let headers = client.batch_block_header(0..103).expect("headers");
    assert_eq!(headers[102].block_hash(), node.tip());
    let places: Vec<_> = ids.iter().map(|txid| (*txid, 102)).collect();
    let proofs = client
        .batch_transaction_get_merkle(&places)
        .expect("branches");
    for (txid, proof) in ids.iter().zip(&proofs) {
        let root = &headers[102].merkle_root;
        assert!(electrum_client::utils::validate_merkle_proof(
            txid, root, proof
        ));
    }

    let mut mixed = Batch::default();
    mixed.block_header(7);
    mixed.raw("blockchain.no.such".into(), vec![]);
    // This client passes over an error among results, or gives it for all of them, as it comes.
    match client.batch_call(&mixed) {
        Ok(answers) => assert!(
            answers[0].is_string() && answers[1].is_null(),
            "{answers:?}"
        ),
        Err(error) => assert!(error.to_string().contains("no.such"), "{error}"),
    }
    assert_eq!(client.block_header(102).expect("it goes on"), headers[102]);
}

#[test]
fn the_server_says_what_it_is_and_what_its_node_wants() {
    let Some(bitcoind) = executable() else { return };
    let node = Bitcoind::start(&bitcoind, &[]);
    let genesis = node.tip();
    let server = Server::beside(&node);
    let client: Client = client(&server);
    assert_eq!(client.protocol_version().expect("it was agreed"), "1.6");
    let features = client.server_features().expect("features");
    let mut hash = features.genesis_hash;
    hash.reverse();
    assert_eq!(hash, genesis.to_byte_array());
    assert!(features.server_version.starts_with("Blocktorrent"));
    let rates = client.mempool_get_info().expect("rates");
    let said = node.call("getmempoolinfo", serde_json::json!([]));
    assert_eq!(Value::from(rates.minrelaytxfee), said["minrelaytxfee"]);
    // A fresh chain knows of no fees.
    assert_eq!(client.estimate_fee(6, None).expect("an answer"), -1.0);
}
