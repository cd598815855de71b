//! What two greeted peers say to each other.

use std::collections::VecDeque;

use bitcoin::Wtxid;
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bytes::Bytes;

use super::rig::*;
use crate::chain::p2p::kind::Kind;
use crate::chain::p2p::*;

fn compact(block: &bitcoin::Block) -> (Vec<(Wtxid, Bytes)>, Bytes) {
    let transactions: Vec<_> = block
        .txdata
        .iter()
        .map(|transaction| (transaction.compute_wtxid(), serialize(transaction).into()))
        .collect();
    let payload = build_compact(&block.header, 5, &transactions, &[0]);
    (transactions, payload)
}

#[test]
fn headers_blocks_parts_and_transactions_go_over() {
    for v2 in [false, true] {
        let mut pair = Pair::greeted(Role::Stranger, Role::Stranger, v2);
        pair.piece = 977;
        let headers = samples::headers(2_000, 0);
        let locator = vec![headers[0].block_hash()];
        let stop = Some(headers[9].block_hash());
        pair.tell_a(PeerCommand::GetHeaders {
            locator: locator.clone(),
            stop,
        });
        assert_eq!(
            pair.b_events.pop_front(),
            Some(PeerEvent::WantsHeaders { locator, stop })
        );
        pair.tell_b(PeerCommand::SendHeaders(headers.clone()));
        assert_eq!(pair.a_events.pop_front(), Some(PeerEvent::Headers(headers)));

        let block = samples::block(90);
        let hash = block.block_hash();
        let bytes = Bytes::from(serialize(&block));
        for form in [BlockForm::Witness, BlockForm::Stripped, BlockForm::Compact] {
            pair.tell_a(PeerCommand::GetBlock { hash, form });
            assert_eq!(
                pair.b_events.pop_front(),
                Some(PeerEvent::WantsBlock { hash, form })
            );
            pair.tell_b(PeerCommand::SendBlock(bytes.clone()));
            let block = bytes.clone();
            assert_eq!(
                pair.a_events.pop_front(),
                Some(PeerEvent::Block { hash, block })
            );
        }
        let (transactions, payload) = compact(&block);
        let form = BlockForm::Compact;
        pair.tell_a(PeerCommand::GetBlock { hash, form });
        pair.b_events.clear();
        pair.tell_b(PeerCommand::SendCompactBlock(payload));
        let Some(PeerEvent::CompactBlock(read)) = pair.a_events.pop_front() else {
            panic!("no compact block");
        };
        assert_eq!(
            (read.hash, read.short_ids.len(), read.prefilled.len()),
            (hash, 89, 1)
        );
        let indexes = vec![1, 2, 88];
        pair.tell_a(PeerCommand::GetBlockTransactions {
            hash,
            indexes: indexes.clone(),
        });
        let wanted = PeerEvent::WantsBlockTransactions {
            hash,
            indexes: indexes.clone(),
        };
        assert_eq!(pair.b_events.pop_front(), Some(wanted));
        let transactions: Vec<_> = indexes
            .iter()
            .map(|&index| transactions[index as usize].1.clone())
            .collect();
        let answer = transactions.clone();
        pair.tell_b(PeerCommand::SendBlockTransactions {
            hash,
            transactions: answer,
        });
        let parts = PeerEvent::BlockTransactions { hash, transactions };
        assert_eq!(pair.a_events.pop_front(), Some(parts));
        assert!(pair.a_events.is_empty() && pair.b_events.is_empty());
    }
}

#[test]
fn hashes_of_blocks_answer_whoever_does_not_go_by_headers() {
    let mut puppet = Puppet::greeted(Role::Stranger, 70_015);
    let hashes: Vec<_> = samples::headers(600, 0)
        .iter()
        .map(bitcoin::block::Header::block_hash)
        .collect();
    let ask = |from: usize| message::put_get_headers(70_015, vec![hashes[from]], None);
    puppet.say(Kind::GetBlocks, ask(0));
    puppet.say(Kind::GetBlocks, ask(1));
    puppet.say(Kind::GetBlocks, ask(2));
    let wants = |from: usize| PeerEvent::WantsBlockHashes {
        locator: vec![hashes[from]],
        stop: None,
    };
    assert_eq!(puppet.events, [wants(0)]);
    puppet.tell(PeerCommand::SendBlockHashes(hashes.clone()));
    // Of those that waited only the last is of interest.
    assert_eq!(puppet.events, [wants(0), wants(2)]);
    let heard: Vec<_> = puppet.heard.drain(..).collect();
    let entries = hashes.iter().take(MAX_BLOCK_HASHES);
    let entries: Vec<_> = entries
        .map(|hash| bitcoin::p2p::message_blockdata::Inventory::Block(*hash))
        .collect();
    let inventory = Bytes::from(message::put_inventory(&entries));
    assert_eq!(heard, [(Kind::Inventory, inventory)]);
    // No answer but to the question.
    puppet.tell(PeerCommand::SendHeaders(vec![]));
    assert_eq!(puppet.heard_kinds(), []);
    assert_eq!(puppet.refused(Refusal::Backlog), 1);
}

#[test]
fn requests_go_to_the_owner_one_by_one_and_late_answers_are_dropped() {
    let mut pair = Pair::greeted(Role::Stranger, Role::Stranger, true);
    let hash = |number: u8| bitcoin::BlockHash::from_byte_array([number; 32]);
    let form = BlockForm::Witness;
    for number in 0..3 {
        pair.tell_a(PeerCommand::GetBlock {
            hash: hash(number),
            form,
        });
    }
    let wants = |number| PeerEvent::WantsBlock {
        hash: hash(number),
        form,
    };
    assert_eq!(pair.b_events, [wants(0)]);
    pair.tell_b(PeerCommand::SendNothing);
    assert_eq!(pair.b_events, [wants(0), wants(1)]);
    pair.pass(std::time::Duration::from_secs(31));
    assert_eq!(pair.b_events, [wants(0), wants(1), wants(2)]);
    pair.tell_b(PeerCommand::SendHeaders(vec![]));
    assert_eq!(pair.a_events, []);
}

#[test]
fn a_block_is_announced_as_the_peer_prefers() {
    let block = samples::block(3);
    let (_, payload) = compact(&block);
    let summary = BlockSummary {
        header: block.header,
        compact: Some(payload),
    };
    let announce = || PeerCommand::AnnounceBlock(summary.clone());
    // By `inv` to whoever said nothing, by header after `sendheaders`, at once after `sendcmpct`.
    let mut puppet = Puppet::greeted(Role::Stranger, 70_017);
    puppet.tell(announce());
    puppet.tell(announce());
    assert_eq!(puppet.heard_kinds(), [Kind::Inventory]);
    let mut puppet = Puppet::greeted(Role::Stranger, 70_017);
    puppet.say(Kind::SendHeaders, vec![]);
    puppet.say(Kind::SendCompact, message::put_send_compact(false));
    puppet.tell(announce());
    assert_eq!(puppet.heard_kinds(), [Kind::Headers]);
    let mut puppet = Puppet::greeted(Role::Stranger, 70_017);
    puppet.say(Kind::SendCompact, message::put_send_compact(true));
    puppet.tell(announce());
    assert_eq!(puppet.heard_kinds(), [Kind::CompactBlock]);
    // Our own node at once, if it is one that takes what it did not ask for; but not what it told us itself.
    for (role, agent, kind) in [
        (Role::OurNode, "/Satoshi:29.0.0/", Kind::CompactBlock),
        (Role::OurNode, "/bcoin:v1.0.2/", Kind::Headers),
        (Role::Stranger, "/Satoshi:29.0.0/", Kind::Headers),
    ] {
        let mut puppet = Puppet::greeted_as(role, 70_017, agent);
        puppet.say(Kind::SendHeaders, vec![]);
        puppet.say(Kind::SendCompact, message::put_send_compact(false));
        puppet.tell(announce());
        assert_eq!(puppet.heard_kinds(), [kind], "{role:?} {agent}");
    }
    let mut puppet = Puppet::greeted(Role::OurNode, 70_017);
    puppet.say(Kind::Headers, message::put_headers(&[block.header]));
    puppet.tell(announce());
    assert_eq!(puppet.heard_kinds(), []);
    let pushed = PeerCommand::PushBlock {
        hash: block.block_hash(),
        block: serialize(&block).into(),
    };
    puppet.tell(pushed);
    assert_eq!(puppet.heard_kinds(), [Kind::Block]);
}

#[test]
fn our_node_is_asked_for_compact_blocks_at_once() {
    let mut pair = Pair::greeted(Role::OurNode, Role::Stranger, true);
    let block = samples::block(4);
    let (_, payload) = compact(&block);
    let header = block.header;
    pair.tell_b(PeerCommand::AnnounceBlock(BlockSummary {
        header,
        compact: Some(payload),
    }));
    assert!(matches!(
        pair.a_events.pop_front(),
        Some(PeerEvent::CompactBlock(_))
    ));
    // What it sends unasked is taken; from a stranger it is not.
    let block = Bytes::from(serialize(&block));
    let hash = header.block_hash();
    let push = || PeerCommand::PushBlock {
        hash,
        block: block.clone(),
    };
    pair.tell_b(push());
    assert!(matches!(
        pair.a_events.pop_front(),
        Some(PeerEvent::Block { .. })
    ));
    pair.tell_a(push());
    let unsolicited = PeerEvent::Misbehaved {
        points: 1,
        reason: "unsolicited data",
    };
    assert_eq!(pair.b_events.pop_front(), Some(unsolicited));
}

#[test]
fn transactions_come_by_the_ids_agreed_on_and_only_when_asked() {
    let mut puppet = Puppet::new(config(Direction::Inbound, Role::OurNode, V2::Accept));
    puppet.say(Kind::Version, version_payload(70_017, 0, 99));
    puppet.say(Kind::WtxidRelay, vec![]);
    puppet.say(Kind::Verack, vec![]);
    puppet.events.clear();
    puppet.heard.clear();
    let transaction = samples::transaction(3);
    let wtxid = TransactionId::Wtxid(transaction.compute_wtxid());
    let txid = TransactionId::Txid(transaction.compute_txid());
    let inventory = message::put_inventory(&[
        message::asked(&wtxid),
        bitcoin::p2p::message_blockdata::Inventory::Transaction(transaction.compute_txid()),
    ]);
    puppet.say(Kind::Inventory, inventory);
    assert_eq!(
        puppet.events,
        [PeerEvent::TransactionsAnnounced(vec![wtxid])]
    );
    puppet.events.clear();
    let bytes = Bytes::from(serialize(&transaction));
    puppet.say(Kind::Transaction, bytes.clone());
    assert_eq!(puppet.refused(Refusal::Unsolicited), 1);
    puppet.events.clear();
    puppet.tell(PeerCommand::GetTransactions(vec![wtxid, txid]));
    assert_eq!(puppet.heard_kinds(), [Kind::GetData]);
    puppet.say(Kind::Transaction, bytes.clone());
    assert_eq!(puppet.events, [PeerEvent::Transaction(bytes)]);
    puppet.events.clear();
    puppet.say(
        Kind::NotFound,
        message::put_inventory(&[message::asked(&txid)]),
    );
    assert_eq!(puppet.events, [PeerEvent::TransactionsNotFound(vec![txid])]);
    // And we have none to give.
    puppet.say(
        Kind::GetData,
        message::put_inventory(&[message::asked(&wtxid)]),
    );
    assert_eq!(puppet.heard_kinds(), [Kind::NotFound]);
}

#[test]
fn fee_filters_and_commands_before_the_handshake_arrive() {
    let mut puppet = Puppet::greeted(Role::Stranger, 70_017);
    puppet.say(Kind::FeeFilter, 1_000u64.to_le_bytes().to_vec());
    assert_eq!(puppet.events, [PeerEvent::FeeFilter(1_000)]);
    puppet.say(Kind::FeeFilter, u64::MAX.to_le_bytes().to_vec());
    assert_eq!(puppet.events.len(), 1);
    let mut pair = Pair::new(
        config(Direction::Outbound, Role::Stranger, V2::Try),
        config(Direction::Inbound, Role::Stranger, V2::Accept),
    );
    let mut early = VecDeque::new();
    pair.tell_a(PeerCommand::GetAddresses);
    std::mem::swap(&mut early, &mut pair.b_events);
    assert_eq!(early.pop_back(), Some(PeerEvent::WantsAddresses));
}

#[test]
fn thousands_of_messages_pass_and_keys_are_renewed() {
    let mut pair = Pair::greeted(Role::Stranger, Role::Stranger, true);
    for count in 0..1_000u64 {
        pair.tell_a(PeerCommand::WantCompactBlocks {
            high_bandwidth: count % 2 == 0,
        });
        pair.tell_b(PeerCommand::GetHeaders {
            locator: vec![],
            stop: None,
        });
        assert_eq!(pair.a_events.len(), 1);
        pair.a_events.clear();
        pair.tell_a(PeerCommand::SendHeaders(vec![]));
        assert_eq!(pair.b_events.pop_front(), Some(PeerEvent::Headers(vec![])));
    }
}

#[test]
fn what_never_comes_is_given_up() {
    let mut puppet = Puppet::greeted(Role::OurNode, 70_017);
    let hash = |number: u8| bitcoin::BlockHash::from_byte_array([number; 32]);
    let form = BlockForm::Witness;
    for number in 0..20 {
        puppet.tell(PeerCommand::GetBlock {
            hash: hash(number),
            form,
        });
    }
    assert_eq!(puppet.refused(Refusal::Backlog), 4);
    puppet.events.clear();
    puppet.say(
        Kind::NotFound,
        message::put_inventory(&[bitcoin::p2p::message_blockdata::Inventory::WitnessBlock(
            hash(0),
        )]),
    );
    assert_eq!(
        puppet.events.pop_back(),
        Some(PeerEvent::BlocksNotFound(vec![hash(0)]))
    );
    let indexes = vec![3];
    puppet.tell(PeerCommand::GetBlockTransactions {
        hash: hash(99),
        indexes,
    });
    puppet.pass(std::time::Duration::from_secs(119));
    puppet.say(Kind::Ping, vec![0; 8]);
    assert_eq!(puppet.events, []);
    let deadline = puppet.peer.poll_deadline();
    assert_eq!(
        deadline,
        Some(puppet.now + std::time::Duration::from_secs(1))
    );
    puppet.pass(std::time::Duration::from_secs(1));
    let overdue = (1..16).chain([99]).map(hash).collect();
    assert_eq!(
        puppet.events.pop_front(),
        Some(PeerEvent::BlocksNotFound(overdue))
    );
}
