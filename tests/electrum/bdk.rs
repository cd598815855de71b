//! `bdk_electrum`: a wallet's way to synchronise.

use std::time::Instant;

use bdk_electrum::BdkElectrumClient;
use bdk_electrum::bdk_core::spk_client::{SyncRequest, SyncResponse};
use bdk_electrum::bdk_core::{BlockId, CheckPoint};
use bitcoin::{ScriptBuf, Txid};
use electrum_client::Error;
use serde_json::json;

use super::clients::{Client, client};
use super::purse::{Purse, send};
use super::server::Server;
use crate::harness::{Bitcoind, PATIENCE, executable};

type Bdk = BdkElectrumClient<Client>;

/// An error: the chain became another one in between.
fn sync(bdk: &Bdk, script: &ScriptBuf, from: &CheckPoint) -> Result<SyncResponse, Error> {
    let request = SyncRequest::builder()
        .chain_tip(from.clone())
        .spks([script.clone()]);
    bdk.sync(request.build(), 5, true)
}

/// Synchronises until the response is as wanted, as bdk's own tests do: it takes no notifications.
fn sync_until(
    bdk: &Bdk,
    script: &ScriptBuf,
    from: &CheckPoint,
    is_wanted: impl Fn(&SyncResponse) -> bool,
) -> CheckPoint {
    let until = Instant::now() + PATIENCE;
    loop {
        let response = sync(bdk, script, from);
        if let Ok(response) = &response
            && is_wanted(response)
        {
            return response.chain_update.clone().expect("a chain was given");
        }
        assert!(Instant::now() < until, "it stays at {response:?}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn is_anchored(response: &SyncResponse, txid: Txid, block: BlockId) -> bool {
    let mut anchors = response.tx_update.anchors.iter();
    let is_told = anchors.any(|(anchor, anchored)| *anchored == txid && anchor.block_id == block);
    // A block may come between the question for the tip and that for the history.
    is_told
        && response
            .chain_update
            .as_ref()
            .is_some_and(|tip| tip.block_id() == block)
}

fn is_unconfirmed(response: &SyncResponse, txid: Txid) -> bool {
    let seen = response
        .tx_update
        .seen_ats
        .iter()
        .any(|(seen, _)| *seen == txid);
    seen && response.tx_update.anchors.is_empty()
}

#[test]
fn a_wallet_synchronises_through_a_payment_and_a_reorganisation() {
    let Some(bitcoind) = executable() else { return };
    let node = Bitcoind::start(&bitcoind, &[]);
    let genesis = node.tip();
    let mut payer = Purse::filled(1, &node, 1);
    let payee = Purse::new(2).script();
    let server = Server::beside(&node);
    let bdk = BdkElectrumClient::new(client(&server));
    let start = CheckPoint::new(BlockId {
        height: 0,
        hash: genesis,
    });
    let at = |height| BlockId {
        height,
        hash: node.tip(),
    };
    let tip = sync_until(&bdk, &payee, &start, |it| it.tx_update.txs.is_empty());
    assert_eq!(tip.block_id(), at(101));

    let payment = payer.pay(payee.clone(), 100_000, 500);
    let txid = bdk.transaction_broadcast(&payment).expect("it is taken");
    let tip = sync_until(&bdk, &payee, &tip, |it| is_unconfirmed(it, txid));
    payer.mine(&node, 1);
    let confirmed = at(102);
    let tip = sync_until(&bdk, &payee, &tip, |it| is_anchored(it, txid, confirmed));
    assert_eq!(tip.block_id(), confirmed);
    let response = sync(&bdk, &payee, &tip).expect("it synchronises");
    assert_eq!(*response.tx_update.txs[0], payment);
    // The fee can be told: what is spent comes along.
    let coin = payment.input[0].previous_output;
    assert!(response.tx_update.txouts.contains_key(&coin));

    // A longer branch without the payment, which is back in the mempool and then in a block above it.
    node.call("invalidateblock", json!([node.tip()]));
    let descriptor = format!("raw({:x})", payee);
    for _ in 0..2 {
        node.call("generateblock", json!([descriptor, []]));
    }
    let other = at(103);
    let tip = sync_until(&bdk, &ScriptBuf::from(vec![0x51]), &tip, |it| {
        let update = it.chain_update.as_ref();
        update.is_some_and(|update| update.block_id() == other)
    });
    let response = sync(&bdk, &payee, &tip).expect("it synchronises");
    let anchors = response.tx_update.anchors.iter();
    assert!(anchors.clone().all(|(_, anchored)| *anchored != txid));
    assert_eq!(anchors.count(), 2);
    payer.mine(&node, 1);
    let again = at(104);
    sync_until(&bdk, &payee, &tip, |it| is_anchored(it, txid, again));

    // A child and its parent at once, sent past the server.
    let parent = send(&node, &payer.pay(payee.clone(), 5_000, 500));
    let child = send(&node, &payer.pay(payee.clone(), 6_000, 500));
    sync_until(&bdk, &payee, &tip, |it| {
        let ids: Vec<_> = it
            .tx_update
            .seen_ats
            .iter()
            .map(|(txid, _)| *txid)
            .collect();
        ids.contains(&parent) && ids.contains(&child)
    });
}
