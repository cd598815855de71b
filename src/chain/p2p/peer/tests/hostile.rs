//! Streams that nobody honest would send: nothing panics and nothing grows.

use std::collections::VecDeque;
use std::time::Duration;

use bitcoin::consensus::serialize;
use bytes::Bytes;
use proptest::prelude::*;

use super::rig::*;
use crate::chain::Network;
use crate::chain::p2p::kind::Kind;
use crate::chain::p2p::peer::{MAX_INPUT_BYTES, MAX_OUTPUT_BYTES};
use crate::chain::p2p::*;

/// A stream of an honest peer: greeting, and one of most messages.
fn honest() -> Vec<u8> {
    let block = samples::block(5);
    let wtxids: Vec<_> = block
        .txdata
        .iter()
        .map(|transaction| {
            (
                transaction.compute_wtxid(),
                Bytes::from(serialize(transaction)),
            )
        })
        .collect();
    let hash = block.block_hash();
    let id = TransactionId::Wtxid(wtxids[0].0);
    let inventory = message::put_inventory(&[
        message::asked(&id),
        bitcoin::p2p::message_blockdata::Inventory::Block(hash),
    ]);
    let record = AddressRecord {
        last_seen: 3,
        services: 4,
        address: ([9, 8, 7, 6], 5).into(),
    };
    let messages: Vec<(Kind, Vec<u8>)> = vec![
        (Kind::Version, version_payload(70_017, SERVICES, 99)),
        (Kind::WtxidRelay, vec![]),
        (Kind::SendAddrV2, vec![]),
        (Kind::Feature, ADVERT.to_feature()),
        (Kind::Verack, vec![]),
        (Kind::SendCompact, message::put_send_compact(true)),
        (Kind::SendHeaders, vec![]),
        (Kind::Ping, vec![1; 8]),
        (Kind::Inventory, inventory.clone()),
        (Kind::GetData, inventory.clone()),
        (Kind::NotFound, inventory),
        (Kind::Headers, message::put_headers(&samples::headers(3, 1))),
        (
            Kind::GetHeaders,
            message::put_get_headers(70_017, vec![hash], None),
        ),
        (
            Kind::CompactBlock,
            build_compact(&block.header, 1, &wtxids, &[0, 3]).to_vec(),
        ),
        (
            Kind::GetBlockTransactions,
            compact::put_wanted(&hash, &[0, 4]).expect("ascending"),
        ),
        (
            Kind::BlockTransactions,
            message::put_block_transactions(&hash, &[wtxids[1].1.clone()]),
        ),
        (Kind::Block, serialize(&block)),
        (Kind::Transaction, serialize(&block.txdata[1])),
        (Kind::Addresses, addresses::put_v1(&[record; 3])),
        (Kind::AddressesV2, addresses::put_v2(&[record; 3])),
        (
            Kind::GetBlocks,
            message::put_get_headers(70_017, vec![hash], None),
        ),
        (Kind::GetAddresses, vec![]),
        (Kind::FeeFilter, vec![1; 8]),
        (Kind::Mempool, vec![]),
    ];
    let plain = plain::Plain::new(Network::Regtest);
    let mut out = VecDeque::new();
    for (kind, payload) in messages {
        plain.encode(kind, payload.into(), &mut out);
    }
    out.iter().flatten().copied().collect()
}

/// Feeds a stream to a peer whose owner answers everything with nothing.
fn feed(mut peer: Peer, stream: &[u8], piece: usize) -> u64 {
    let mut now = START;
    let mut events = 0;
    for piece in stream.chunks(piece.max(1)) {
        if !peer.wants_input() {
            break;
        }
        now = now + Duration::from_millis(1);
        peer.handle_bytes(now, piece);
        while let Some(event) = peer.poll_event() {
            events += 1;
            if let PeerEvent::WantsBlock { .. } | PeerEvent::WantsHeaders { .. } = event {
                peer.handle_command(now, PeerCommand::SendNothing);
            }
        }
        while peer.poll_output().is_some() {}
        assert!(peer.held_bytes() <= MAX_INPUT_BYTES + piece.len() + MAX_OUTPUT_BYTES);
        let deadline = peer.poll_deadline();
        assert!(deadline.is_none_or(|at| at > START));
    }
    events
}

fn roles() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::OurNode), Just(Role::Relay), Just(Role::Stranger)]
}

fn fresh(role: Role, direction: Direction, v2: V2) -> Peer {
    Peer::new(config(direction, role, v2), START, [5; 32])
}

proptest! {
    #[test]
    fn an_honest_stream_with_bytes_changed(
        role in roles(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        length in any::<prop::sample::Index>(),
        piece in 1usize..5_000,
    ) {
        let mut stream = honest();
        for (at, byte) in &changes {
            let at = at.index(stream.len());
            stream[at] = *byte;
        }
        stream.truncate(length.index(stream.len()) + 1);
        feed(fresh(role, Direction::Inbound, V2::Accept), &stream, piece);
    }

    /// With checksums that are right, so that payloads are decoded.
    #[test]
    fn well_framed_nonsense(
        role in roles(),
        messages in prop::collection::vec(
            (any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..300)),
            0..20,
        ),
        piece in 1usize..5_000,
    ) {
        let mut stream: Vec<u8> = Vec::new();
        let plain = plain::Plain::new(Network::Regtest);
        let mut out = VecDeque::new();
        plain.encode(Kind::Version, version_payload(70_017, 0, 99).into(), &mut out);
        plain.encode(Kind::Verack, Bytes::new(), &mut out);
        for (kind, payload) in messages {
            let kind = Kind::ALL[kind.index(Kind::ALL.len())];
            plain.encode(kind, payload.into(), &mut out);
        }
        out.iter().for_each(|bytes| stream.extend_from_slice(bytes));
        let events = feed(fresh(role, Direction::Inbound, V2::Accept), &stream, piece);
        prop_assert!(events > 0);
    }

    #[test]
    fn noise(
        v2: bool,
        is_inbound: bool,
        stream in prop::collection::vec(any::<u8>(), 0..10_000),
        piece in 1usize..5_000,
    ) {
        let direction = if is_inbound { Direction::Inbound } else { Direction::Outbound };
        let v2 = if v2 { V2::Try } else { V2::Off };
        feed(fresh(Role::Stranger, direction, v2), &stream, piece);
    }
}

#[test]
fn an_honest_stream_is_understood_whole() {
    let mut peer = fresh(Role::OurNode, Direction::Inbound, V2::Accept);
    peer.handle_bytes(START, &honest());
    let mut events = VecDeque::new();
    take(&mut peer, &mut events);
    assert!(!peer.is_closed());
    for wanted in [
        "Ready",
        "BlocksAnnounced",
        "TransactionsAnnounced",
        "Headers",
        "WantsBlock",
    ] {
        let found = events
            .iter()
            .any(|event| format!("{event:?}").starts_with(wanted));
        assert!(found, "{wanted}: {events:?}");
    }
}

#[test]
fn a_long_message_is_refused_before_it_is_held() {
    let mut peer = fresh(Role::Stranger, Direction::Inbound, V2::Off);
    let mut header = Network::Regtest.magic().to_vec();
    header.extend_from_slice(&Kind::Block.command());
    header.extend_from_slice(&4_000_001u32.to_le_bytes());
    header.extend_from_slice(&[0; 4]);
    peer.handle_bytes(START, &header);
    assert!(matches!(peer.poll_event(), Some(PeerEvent::Closed(_))));
    // One that may be: not a byte more is held than came.
    let mut peer = fresh(Role::Stranger, Direction::Inbound, V2::Off);
    header[16..20].copy_from_slice(&4_000_000u32.to_le_bytes());
    peer.handle_bytes(START, &header);
    assert_eq!(peer.poll_event(), None);
    assert_eq!(peer.held_bytes(), 0);
}

#[test]
fn garbage_without_an_end_is_refused() {
    let mut peer = fresh(Role::Stranger, Direction::Inbound, V2::Accept);
    for _ in 0..64 + 4_111 {
        if !peer.is_closed() {
            peer.handle_bytes(START, &[0x55]);
            while peer.poll_event().is_some() {}
            while peer.poll_output().is_some() {}
        }
    }
    assert!(peer.is_closed());
}
