//! The P2P protocol: both transports, everything fetched from bitcoind, everything served to it.

use std::collections::BTreeMap;

use bitcoin::absolute::LockTime;
use bitcoin::block::Header;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness,
};
use blocktorrent::chain::Network;
use blocktorrent::chain::p2p::connection::{InboundLimits, Listener};
use blocktorrent::chain::p2p::{
    BlockForm, BlockParts, BlockSummary, CloseReason, PeerCommand, PeerEvent, Role, TransactionId,
    V2, build_compact,
};
use bytes::Bytes;
use serde_json::json;

use super::client::Client;
use super::harness::{Bitcoind, executable};

/// A transaction that spends the coinbase of a block mined by the harness.
fn spend(node: &Bitcoind, block: BlockHash) -> Transaction {
    let block: bitcoin::Block = deserialize(&node.block(block)).expect("a block");
    let coinbase = &block.txdata[0];
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::new(coinbase.compute_txid(), 0),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value: coinbase.output[0].value - Amount::from_sat(10_000),
            script_pubkey: ScriptBuf::from([&[0, 32][..], &[7; 32]].concat()),
        }],
    }
}

fn send(node: &Bitcoind, transaction: &Transaction) {
    let text = bitcoin::consensus::encode::serialize_hex(transaction);
    node.call("sendrawtransaction", json!([text]));
}

/// Blocks of one node, as another would hold them.
struct Held {
    headers: Vec<Header>,
    blocks: BTreeMap<BlockHash, Bytes>,
}

impl Held {
    fn of(node: &Bitcoind) -> Self {
        let mut held = Self {
            headers: Vec::new(),
            blocks: BTreeMap::new(),
        };
        let height = node
            .call("getblockcount", json!([]))
            .as_u64()
            .expect("a number");
        for height in 1..=height {
            let hash = node.call("getblockhash", json!([height]));
            held.add(node, serde_json::from_value(hash).expect("a hash"));
        }
        held
    }

    fn add(&mut self, node: &Bitcoind, hash: BlockHash) -> BlockSummary {
        let block = Bytes::from(node.block(hash));
        let whole: bitcoin::Block = deserialize(&block).expect("a block");
        let transactions: Vec<_> = whole
            .txdata
            .iter()
            .map(|transaction| (transaction.compute_wtxid(), serialize(transaction).into()))
            .collect();
        self.headers.push(whole.header);
        self.blocks.insert(hash, block);
        BlockSummary {
            header: whole.header,
            compact: Some(build_compact(&whole.header, 9, &transactions, &[0])),
        }
    }

    fn after(&self, locator: &[BlockHash]) -> Vec<Header> {
        let known = |header: &Header| locator.contains(&header.block_hash());
        let start = self.headers.iter().rposition(known).map_or(0, |at| at + 1);
        self.headers[start..].to_vec()
    }

    /// Answers what a bitcoind wants, until it has announced, or asked for the parts of, or fetched, `until`.
    async fn serve(
        &self,
        node: &Bitcoind,
        client: &mut Client,
        is_over: impl Fn(&PeerEvent) -> bool,
    ) {
        loop {
            let Some(event) = client.next_in_time().await else {
                panic!("nothing more in time:\n{}", node.tail());
            };
            let is_over = is_over(&event);
            match event {
                PeerEvent::WantsHeaders { locator, .. } => {
                    client
                        .tell(PeerCommand::SendHeaders(self.after(&locator)))
                        .await;
                }
                PeerEvent::WantsBlock { hash, .. } => {
                    let answer = match self.blocks.get(&hash) {
                        Some(block) => PeerCommand::SendBlock(block.clone()),
                        None => PeerCommand::SendNothing,
                    };
                    client.tell(answer).await;
                }
                PeerEvent::WantsBlockTransactions { hash, indexes } => {
                    let most = Network::Regtest.max_transactions();
                    let parts = BlockParts::read(&self.blocks[&hash], most).expect("a block");
                    let pick = |&index: &u32| parts.transactions[index as usize].clone();
                    let transactions = indexes.iter().map(pick).collect();
                    client
                        .tell(PeerCommand::SendBlockTransactions { hash, transactions })
                        .await;
                }
                PeerEvent::Closed(reason) => panic!("closed: {reason}"),
                _ => {}
            }
            if is_over {
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_transports_are_spoken_and_the_old_one_is_fallen_back_to() {
    let Some(executable) = executable() else {
        return;
    };
    let node = Bitcoind::start(&executable, &[]);
    for (v2, is_v2) in [(V2::Off, false), (V2::Try, true)] {
        let (_client, info) = Client::dial(node.p2p(), Role::OurNode, v2).await;
        assert_eq!(info.v2, is_v2);
        assert!(info.version >= 70_016, "{info:?}");
        assert!(info.agent.contains("Satoshi"), "{info:?}");
        assert!(info.wtxid_relay && info.relay_transactions);
        assert!(info.clock_offset_s.abs() < 60);
    }
    let old = Bitcoind::start(&executable, &["-v2transport=0"]);
    let (_client, info) = Client::dial(old.p2p(), Role::Stranger, V2::Try).await;
    assert!(!info.v2);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_blocks_and_announcements_come_from_bitcoind() {
    let Some(executable) = executable() else {
        return;
    };
    let node = Bitcoind::start(&executable, &[]);
    let mined = node.mine(12);
    let (mut ours, _) = Client::dial(node.p2p(), Role::OurNode, V2::Try).await;
    let (mut other, _) = Client::dial(node.p2p(), Role::Stranger, V2::Off).await;
    let genesis = Network::Regtest.genesis().block_hash();
    for client in [&mut ours, &mut other] {
        let locator = vec![genesis];
        client
            .tell(PeerCommand::GetHeaders {
                locator,
                stop: None,
            })
            .await;
        let headers = client
            .wait(|event| match event {
                PeerEvent::Headers(headers) => Some(headers.clone()),
                _ => None,
            })
            .await;
        let hashes: Vec<_> = headers.iter().map(Header::block_hash).collect();
        assert_eq!(hashes, mined);
    }
    let hash = mined[11];
    for form in [BlockForm::Witness, BlockForm::Stripped] {
        ours.tell(PeerCommand::GetBlock { hash, form }).await;
        let block = ours
            .wait(|event| match event {
                PeerEvent::Block { hash: got, block } if *got == hash => Some(block.clone()),
                _ => None,
            })
            .await;
        if form == BlockForm::Witness {
            assert_eq!(block, node.block(hash));
        } else {
            let witness = Bytes::from(node.block(hash));
            let stripped = blocktorrent::chain::p2p::strip_block(&witness, 16_666);
            assert_eq!(Ok(block), stripped);
        }
    }
    ours.tell(PeerCommand::GetBlockTransactions {
        hash,
        indexes: vec![0],
    })
    .await;
    let parts = ours.wait(|event| match event {
        PeerEvent::BlockTransactions {
            hash: got,
            transactions,
        } if *got == hash => Some(transactions.clone()),
        _ => None,
    });
    let whole = BlockParts::read(&node.block(hash).into(), 16_666).expect("a block");
    assert_eq!(parts.await, whole.transactions);
    // A new one: at once and compact to us, by its header to the other.
    for _ in 0..3 {
        let hash = node.mine(1)[0];
        let compact = ours.wait(|event| match event {
            PeerEvent::CompactBlock(block) if block.hash == hash => Some(block.clone()),
            _ => None,
        });
        assert_eq!(compact.await.transaction_count(), 1);
        let announced = |event: &PeerEvent| match event {
            PeerEvent::Headers(headers) => headers
                .iter()
                .any(|header| header.block_hash() == hash)
                .then_some(()),
            PeerEvent::BlocksAnnounced(hashes) => hashes.contains(&hash).then_some(()),
            _ => None,
        };
        other.wait(announced).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_come_from_bitcoind() {
    let Some(executable) = executable() else {
        return;
    };
    let node = Bitcoind::start(&executable, &[]);
    let mined = node.mine(101);
    let (mut client, _) = Client::dial(node.p2p(), Role::OurNode, V2::Try).await;
    // A block is announced compact only to who is known to have its parent.
    let locator = vec![mined[100]];
    client
        .tell(PeerCommand::GetHeaders {
            locator,
            stop: None,
        })
        .await;
    let headers = |event: &PeerEvent| matches!(event, PeerEvent::Headers(_)).then_some(());
    client.wait(headers).await;
    let transaction = spend(&node, mined[0]);
    let id = TransactionId::Wtxid(transaction.compute_wtxid());
    send(&node, &transaction);
    client
        .wait(|event| match event {
            PeerEvent::TransactionsAnnounced(ids) => ids.contains(&id).then_some(()),
            _ => None,
        })
        .await;
    client.tell(PeerCommand::GetTransactions(vec![id])).await;
    let bytes = client.wait(|event| match event {
        PeerEvent::Transaction(bytes) => Some(bytes.clone()),
        _ => None,
    });
    assert_eq!(bytes.await, serialize(&transaction));
    let hash = node.mine(1)[0];
    let compact = client.wait(|event| match event {
        PeerEvent::CompactBlock(block) if block.hash == hash => Some(block.clone()),
        _ => None,
    });
    let compact = compact.await;
    let short_id = compact.key().short_id(&transaction.compute_wtxid());
    assert_eq!(compact.short_ids, [short_id]);
    assert_eq!(compact.prefilled.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bitcoind_gets_blocks_from_us_whoever_dialled() {
    let Some(executable) = executable() else {
        return;
    };
    let miner = Bitcoind::start(&executable, &[]);
    let mined = miner.mine(101);
    let mut held = Held::of(&miner);
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), InboundLimits::default()).await;
    let listener = listener.expect("loopback can be listened on");
    let ours = listener.local_addr().expect("it is bound");
    for we_dial in [true, false] {
        // While it thinks itself behind it fetches no blocks from a node that limits itself: so let it not think so.
        let node = Bitcoind::start(&executable, &["-maxtipage=1000000000"]);
        let (mut client, info) = if we_dial {
            Client::dial(node.p2p(), Role::OurNode, V2::Try).await
        } else {
            node.call("addnode", json!([ours.to_string(), "onetry"]));
            Client::serve(listener.accept().await, Role::OurNode).await
        };
        assert!(info.v2);
        // It asks for headers by itself, and for every block.
        let last = *held
            .blocks
            .keys()
            .max_by_key(|hash| held_height(&held, hash))
            .expect("some");
        held.serve(
            &node,
            &mut client,
            |event| matches!(event, PeerEvent::WantsBlock { hash, .. } if *hash == last),
        )
        .await;
        node.wait_for_block(last);
        // A new block, compact: its second transaction this bitcoind has never seen, so it asks for it.
        let at = usize::from(!we_dial);
        send(&miner, &spend(&miner, mined[at]));
        let hash = miner.mine(1)[0];
        let summary = held.add(&miner, hash);
        client.tell(PeerCommand::AnnounceBlock(summary)).await;
        held.serve(&node, &mut client, |event| {
            matches!(event, PeerEvent::WantsBlockTransactions { hash: wanted, .. } if *wanted == hash)
        })
        .await;
        node.wait_for_block(hash);
        // And one pushed whole.
        let hash = miner.mine(1)[0];
        held.add(&miner, hash);
        let block = held.blocks[&hash].clone();
        client.tell(PeerCommand::PushBlock { hash, block }).await;
        node.wait_for_block(hash);
        assert_eq!(node.tip(), miner.tip());
    }
}

fn held_height(held: &Held, hash: &BlockHash) -> usize {
    let found = held
        .headers
        .iter()
        .position(|header| header.block_hash() == *hash);
    found.expect("it is held")
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_come_from_bitcoind() {
    let Some(executable) = executable() else {
        return;
    };
    let node = Bitcoind::start(&executable, &[]);
    for number in 0..40 {
        node.call(
            "addpeeraddress",
            json!([format!("{}.7.3.1", 20 + number), 8_333]),
        );
    }
    let role = Role::Feeler {
        ask_addresses: true,
    };
    let (mut client, _) = Client::dial(node.p2p(), role, V2::Try).await;
    node.wait_for_log("received: getaddr");
    // It answers at a random time of half a minute or so: let that have passed.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let later = now.expect("after 1970").as_secs() + 600;
    node.call("setmocktime", json!([later]));
    let records = client
        .wait(|event| match event {
            PeerEvent::Addresses(records) => Some(records.clone()),
            _ => None,
        })
        .await;
    assert!(records.len() > 1);
    assert!(records.iter().all(|record| record.address.port() == 8_333));
    let closed = loop {
        if let PeerEvent::Closed(reason) = client.next().await {
            break reason;
        }
    };
    assert_eq!(closed, CloseReason::FeelerDone);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_bitcoind_closes_and_a_new_dial_finds_it_as_it_was() {
    let Some(executable) = executable() else {
        return;
    };
    let mut node = Bitcoind::start(&executable, &[]);
    let tip = node.mine(3)[2];
    let (mut client, _) = Client::dial(node.p2p(), Role::OurNode, V2::Try).await;
    node.restart();
    let closed = loop {
        if let PeerEvent::Closed(reason) = client.next().await {
            break reason;
        }
    };
    assert!(
        matches!(closed, CloseReason::Remote | CloseReason::Failed(_)),
        "{closed:?}"
    );
    let (_client, info) = Client::dial(node.p2p(), Role::OurNode, V2::Try).await;
    assert_eq!(info.start_height, 3);
    assert_eq!(node.tip(), tip);
    let published = node.call("getzmqnotifications", json!([]));
    let published = published.as_array().expect("a list");
    assert!(
        published
            .iter()
            .all(|topic| topic["address"] == json!(node.zmq()))
    );
    assert_eq!(published.len(), 4);
}
