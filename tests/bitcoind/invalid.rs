//! A block that shows its work and breaks a rule that only a Bitcoin node checks.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Witness,
};
use blocktorrent::chain::Network;
use blocktorrent::chain::p2p::{BlockForm, PeerCommand, PeerEvent, Role, V2};
use serde_json::json;

use super::client::Client;
use super::harness::{Bitcoind, executable};
use super::relay::{Relay, Ways};

/// A block on top of a node's best one whose coinbase pays `reward`.
fn block_paying(node: &Bitcoind, reward: Amount) -> Block {
    let tip = node.call("getblockheader", json!([node.tip()]));
    let number = |name: &str| tip[name].as_u64().expect("a number");
    let height = number("height") + 1;
    let coinbase = Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: bitcoin::script::Builder::new()
                .push_int(height as i64)
                .push_slice([7; 4])
                .into_script(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value: reward,
            script_pubkey: ScriptBuf::from(vec![0x51]),
        }],
    };
    let mut header = Header {
        version: Version::from_consensus(0x2000_0000),
        prev_blockhash: node.tip(),
        merkle_root: TxMerkleNode::from_raw_hash(coinbase.compute_txid().to_raw_hash()),
        time: number("time") as u32 + 1,
        bits: CompactTarget::from_consensus(0x207f_ffff),
        nonce: 0,
    };
    while header.validate_pow(header.target()).is_err() {
        header.nonce += 1;
    }
    Block {
        header,
        txdata: vec![coinbase],
    }
}

/// Whether a peer of Bitcoin's network is given a block when it asks for it.
async fn is_served(relay: &Relay, hash: BlockHash, known: BlockHash) -> bool {
    let (mut client, _) = Client::dial(relay.p2p(), Role::Stranger, V2::Off).await;
    // A block that there is comes after one that there is not.
    for hash in [hash, known] {
        let form = BlockForm::Witness;
        client.tell(PeerCommand::GetBlock { hash, form }).await;
    }
    let first = client.wait(|event| match event {
        PeerEvent::Block { hash, .. } => Some(*hash),
        _ => None,
    });
    let first = first.await;
    assert!([hash, known].contains(&first));
    first == hash
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_the_node_calls_invalid_ends_there_and_nobody_is_blamed() {
    let Some(executable) = executable() else {
        return;
    };
    let node = Bitcoind::start(&executable, &[]);
    node.mine(3);
    // The one that brings it has no node of its own to ask.
    let start = format!("3,{},207fffff", node.tip());
    let source = Relay::start(&[], &["--trusted-start", &start]);
    let relay = Relay::beside(&node, Ways::ALL, Some(&source));
    relay.wait_for_peers(1);
    relay.wait_until("getblockchaininfo", |info| {
        let first = &info["bitcoind"][0];
        first["state"] == "live" && first["p2p"] == true && info["blocks"] == 3
    });
    let greedy = block_paying(&node, Amount::from_int_btc(51));
    let hash = greedy.block_hash();
    source.call("submitblock", json!([serialize_hex(&greedy)]));
    let line = relay.log.wait("the Bitcoin node calls a block invalid");
    // It came by P2P as well, and if that was sooner, `submitblock` says no more.
    let reasons = ["bad-cb-amount", "duplicate-invalid"];
    assert!(reasons.iter().any(|it| line.contains(it)), "{line}");
    assert!(line.contains(&hash.to_string()), "{line}");
    relay.wait_until("getjobinfo", |jobs| {
        let jobs = jobs.as_array().expect("a list");
        jobs.iter().all(|job| job["hash"] != json!(hash))
    });
    // The chain goes on beside it, and the node is given no invalid block once more.
    let valid = *node.mine(2).last().expect("it was mined");
    source.wait_for_tip(&valid.to_string());
    relay.wait_for_tip(&valid.to_string());
    source
        .call("submitblock", json!([serialize_hex(&greedy)]))
        .as_str();
    let submitted = relay.nodes()[0]["submitted"].clone();
    assert_eq!(submitted["invalid"], 1, "{submitted}");
    assert_eq!(relay.log.lines_with("calls a block invalid").len(), 1);
    assert!(!is_served(&relay, hash, valid).await);
    assert!(relay.rpc("getblock", json!([hash])).is_err());
    for one in [&source, &relay] {
        let peers = one.call("getpeerinfo", json!([]));
        assert_eq!(peers[0]["score"], 0, "{peers}");
    }
    // A good one with the right reward takes the same way.
    let good = block_paying(&node, Amount::from_int_btc(50));
    source.call("submitblock", json!([serialize_hex(&good)]));
    node.wait_for_block(good.block_hash());
    assert_eq!(Network::Regtest.genesis().bits, good.header.bits);
}
