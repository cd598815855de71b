//! What a peer may ask, send and make us hold.

use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use bytes::Bytes;

use super::rig::*;
use crate::chain::p2p::kind::Kind;
use crate::chain::p2p::message::{put_headers, put_inventory};
use crate::chain::p2p::peer::MAX_OUTPUT_BYTES;
use crate::chain::p2p::*;

fn blocks(count: u32) -> Vec<Inventory> {
    let hash = |number: u32| {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        BlockHash::from_byte_array(bytes)
    };
    (0..count)
        .map(|number| Inventory::WitnessBlock(hash(number)))
        .collect()
}

#[test]
fn a_stranger_is_served_within_its_allowance_and_our_node_without() {
    let block = Bytes::from(vec![0; 2_000_000]);
    for (role, least, most) in [(Role::Stranger, 110, 120), (Role::OurNode, 300, 300)] {
        let mut puppet = Puppet::greeted(role, 70_017);
        puppet.say(Kind::GetData, put_inventory(&blocks(300)));
        let mut served = 0;
        let start = puppet.now;
        while puppet.now.since(start) < Duration::from_secs(400) {
            while let Some(event) = puppet.events.pop_front() {
                if let PeerEvent::WantsBlock { .. } = event {
                    served += 1;
                    puppet.tell(PeerCommand::SendBlock(block.clone()));
                }
            }
            puppet.pass(Duration::from_secs(1));
        }
        assert!((least..=most).contains(&served), "{served}");
    }
}

#[test]
fn more_than_is_allowed_ends_the_connection() {
    let closing: [(Kind, Vec<u8>, &str); 6] = [
        (
            Kind::GetData,
            put_inventory(&blocks(513)),
            "too many requests",
        ),
        (
            Kind::Headers,
            discontinuous(),
            "headers that do not follow one another",
        ),
        (Kind::CompactBlock, vec![1; 100], "invalid compact block"),
        (Kind::Block, vec![1; 100], "malformed block or transaction"),
        (Kind::Ping, vec![1; 1_025], "oversized message"),
        (
            Kind::Addresses,
            [&[0xfd, 0xe9, 3][..], &[0; 30]].concat(),
            "too many entries",
        ),
    ];
    for (kind, payload, reason) in closing {
        let mut puppet = Puppet::greeted(Role::Stranger, 70_017);
        puppet.say(kind, payload);
        assert_eq!(puppet.closed(), Some(&CloseReason::Misbehaved(reason)));
    }
    let mut puppet = Puppet::greeted(Role::Stranger, 70_017);
    for _ in 0..10 {
        puppet.tell(PeerCommand::HeadersConnected(false));
    }
    puppet.tell(PeerCommand::HeadersConnected(true));
    for _ in 0..10 {
        puppet.tell(PeerCommand::HeadersConnected(false));
    }
    assert_eq!(puppet.closed(), None);
    puppet.tell(PeerCommand::HeadersConnected(false));
    assert!(puppet.closed().is_some());
    let mut silent = config(Direction::Inbound, Role::Stranger, V2::Accept);
    silent.relay_transactions = false;
    let mut puppet = Puppet::new(silent);
    puppet.say(Kind::Version, version_payload(70_017, 0, 99));
    puppet.say(Kind::Verack, vec![]);
    let id = TransactionId::Txid(samples::transaction(1).compute_txid());
    puppet.say(Kind::Inventory, put_inventory(&[message::asked(&id)]));
    let reason = "transaction in spite of no relay";
    assert_eq!(puppet.closed(), Some(&CloseReason::Misbehaved(reason)));
}

#[test]
fn of_an_announcement_the_last_blocks_are_told_and_a_flood_is_misbehaviour() {
    let announced = |count| {
        let blocks = blocks(count).into_iter().map(|entry| match entry {
            Inventory::WitnessBlock(hash) => Inventory::Block(hash),
            other => other,
        });
        blocks.collect::<Vec<_>>()
    };
    let mut puppet = Puppet::greeted(Role::Stranger, 70_017);
    puppet.events.clear();
    let told = announced(MAX_BLOCK_HASHES as u32);
    puppet.say(Kind::Inventory, put_inventory(&told));
    let Some(PeerEvent::BlocksAnnounced(hashes)) = puppet.events.pop_front() else {
        panic!("{:?}", puppet.events);
    };
    assert_eq!(hashes.len(), MAX_TOLD_BLOCKS);
    assert_eq!(
        hashes.last().copied().map(Inventory::Block),
        told.last().copied()
    );
    let reason = "inventory of too many blocks";
    for _ in 0..5 {
        assert_eq!(puppet.closed(), None);
        puppet.say(Kind::Inventory, put_inventory(&announced(50_000)));
    }
    assert_eq!(puppet.closed(), Some(&CloseReason::Misbehaved(reason)));
    let is_told = |event: &PeerEvent| matches!(event, PeerEvent::BlocksAnnounced(_));
    assert!(!puppet.events.iter().any(is_told));
}

fn discontinuous() -> Vec<u8> {
    let mut headers = samples::headers(3, 0);
    headers.swap(1, 2);
    put_headers(&headers)
}

#[test]
fn faults_that_the_owner_finds_add_up() {
    let mut puppet = Puppet::greeted(Role::Stranger, 70_017);
    let fault = |points| PeerCommand::Misbehave {
        points,
        reason: "bad block",
    };
    puppet.tell(fault(60));
    assert_eq!(puppet.closed(), None);
    puppet.tell(fault(40));
    assert_eq!(puppet.closed(), Some(&CloseReason::Misbehaved("bad block")));
    assert_eq!(puppet.peer.poll_deadline(), None);
    assert!(!puppet.peer.wants_input());
}

#[test]
fn addresses_are_taken_at_the_rate_of_bitcoin_core() {
    let record = |number: u16| AddressRecord {
        last_seen: 1,
        services: 9,
        address: ([1, 2, 3, 4], 1 + number).into(),
    };
    let payload = addresses::put_v2(&(0..1_000).map(record).collect::<Vec<_>>());
    let taken = |puppet: &mut Puppet| match puppet.events.pop_back() {
        Some(PeerEvent::Addresses(records)) => records.len(),
        _ => 0,
    };
    let mut puppet = Puppet::greeted(Role::Stranger, 70_017);
    puppet.say(Kind::AddressesV2, payload.clone());
    assert_eq!(taken(&mut puppet), 1);
    puppet.pass(Duration::from_secs(100));
    puppet.say(Kind::AddressesV2, payload.clone());
    assert_eq!(taken(&mut puppet), 10);
    puppet.tell(PeerCommand::GetAddresses);
    puppet.say(Kind::AddressesV2, payload.clone());
    assert_eq!(taken(&mut puppet), 1_000);
    assert_eq!(puppet.refused(Refusal::AddressRate), 999 + 990);
    let mut puppet = Puppet::greeted(Role::OurNode, 70_017);
    puppet.say(Kind::AddressesV2, payload);
    assert_eq!(taken(&mut puppet), 1_000);
}

#[test]
fn addresses_are_told_once_and_only_to_whoever_dialled() {
    let mut puppet = Puppet::greeted(Role::Stranger, 70_017);
    puppet.say(Kind::GetAddresses, vec![]);
    puppet.tell(PeerCommand::SendAddresses(vec![]));
    puppet.say(Kind::GetAddresses, vec![]);
    assert_eq!(puppet.events, [PeerEvent::WantsAddresses]);
    assert_eq!(puppet.refused(Refusal::AddressAsk), 1);
    let mut pair = Pair::greeted(Role::Stranger, Role::Stranger, false);
    pair.tell_b(PeerCommand::GetAddresses);
    assert!(pair.a_events.is_empty());
}

#[test]
fn who_does_not_read_is_not_served_and_holds_little() {
    let mut puppet = Puppet::greeted(Role::OurNode, 70_017);
    let mut stream = std::collections::VecDeque::new();
    let plain = plain::Plain::new(crate::chain::Network::Regtest);
    plain.encode(
        Kind::GetData,
        put_inventory(&blocks(400)).into(),
        &mut stream,
    );
    let bytes: Vec<u8> = stream.iter().flatten().copied().collect();
    let peer = &mut puppet.peer;
    peer.handle_bytes(START, &bytes);
    let block = Bytes::from(vec![0; 900_000]);
    let mut served = 0;
    while let Some(event) = peer.poll_event() {
        assert!(matches!(event, PeerEvent::WantsBlock { .. }));
        served += 1;
        peer.handle_command(START, PeerCommand::SendBlock(block.clone()));
    }
    assert_eq!(served, 2);
    assert!(!peer.wants_input() && !peer.wants_commands());
    // What the owner pushes all the same has an end.
    for number in 0..100 {
        let hash = BlockHash::from_byte_array([number; 32]);
        peer.handle_command(
            START,
            PeerCommand::PushBlock {
                hash,
                block: block.clone(),
            },
        );
        assert!(peer.held_bytes() <= MAX_OUTPUT_BYTES + 1_000_000);
    }
    assert!(puppet.refused(Refusal::Backlog) > 80);
    let peer = &mut puppet.peer;
    peer.handle_timeout(START + Duration::from_secs(119));
    assert!(!peer.is_closed());
    peer.handle_bytes(START + Duration::from_secs(119), &[0]);
    peer.handle_timeout(START + Duration::from_secs(120));
    assert!(peer.is_closed());
    assert_eq!(peer.held_bytes(), 1);
}
