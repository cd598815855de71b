//! A block and a compact block over the Bitcoin P2P protocol, between two peers in memory.
//!
//! `cargo bench --bench p2p`. What to compare: `plain` and `encrypted` against `checksum`, the double hash that the
//! old transport makes of every payload on either side; `boundaries` is what the strict scan adds.

use std::hint::black_box;

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::{Hash, sha256d};
use blocktorrent::chain::Network;
use blocktorrent::chain::p2p::{
    BlockParts, CompactBlock, Direction, Peer, PeerCommand, PeerConfig, PeerEvent, Role, V2,
    build_compact,
};
use blocktorrent::time::Time;
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Bytes handed over at once, as a connection reads them.
const PIECE: usize = 64 << 10;
const NOW: Time = Time::from_unix_seconds(1_700_000_000);

fn peer(direction: Direction, v2: V2) -> Peer {
    let config = PeerConfig {
        network: Network::Main,
        direction,
        role: Role::OurNode,
        services: 1 << 10 | 1 << 3,
        flag: 1 << 30,
        agent: "/bench:1/".into(),
        start_height: 0,
        advert: None,
        nonce: 0,
        v2,
        relay_transactions: true,
        remote: ([127, 0, 0, 1], 8_333).into(),
    };
    Peer::new(config, NOW, [direction as u8; 32])
}

/// Carries all that waits, and says what `to` told last.
fn carry(from: &mut Peer, to: &mut Peer) -> Option<PeerEvent> {
    let mut last = None;
    while let Some(bytes) = from.poll_output() {
        for piece in bytes.chunks(PIECE) {
            to.handle_bytes(NOW, piece);
            while let Some(event) = to.poll_event() {
                last = Some(event);
            }
        }
    }
    last
}

fn greeted(v2: bool) -> (Peer, Peer) {
    let v2 = if v2 { V2::Try } else { V2::Off };
    let mut a = peer(Direction::Outbound, v2);
    let mut b = peer(Direction::Inbound, V2::Accept);
    for _ in 0..8 {
        carry(&mut a, &mut b);
        carry(&mut b, &mut a);
    }
    (a, b)
}

fn blocks(criterion: &mut Criterion) {
    let block = Bytes::from_static(bitcoin_test_data::blocks::mainnet_702861());
    let whole: bitcoin::Block = deserialize(&block).expect("a real block");
    let hash = whole.block_hash();
    let most = Network::Main.max_transactions();
    let mut group = criterion.benchmark_group("block 702861");
    group.throughput(Throughput::Bytes(block.len() as u64));
    group.bench_function("checksum", |bencher| {
        bencher.iter(|| sha256d::Hash::hash(black_box(&block)));
    });
    group.bench_function("boundaries", |bencher| {
        bencher.iter(|| BlockParts::read(black_box(&block), most));
    });
    for (name, v2) in [("plain", false), ("encrypted", true)] {
        let (mut a, mut b) = greeted(v2);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let block = block.clone();
                a.handle_command(NOW, PeerCommand::PushBlock { hash, block });
                let event = carry(&mut a, &mut b);
                assert!(matches!(event, Some(PeerEvent::Block { .. })));
            });
        });
    }
    group.finish();

    let transactions: Vec<_> = whole
        .txdata
        .iter()
        .map(|transaction| (transaction.compute_wtxid(), serialize(transaction).into()))
        .collect();
    let payload = build_compact(&whole.header, 7, &transactions, &[0]);
    let mut group = criterion.benchmark_group("compact block 702861");
    group.throughput(Throughput::Elements(transactions.len() as u64));
    group.bench_function("build", |bencher| {
        bencher.iter(|| build_compact(&whole.header, 7, black_box(&transactions), &[0]));
    });
    group.bench_function("read", |bencher| {
        bencher.iter(|| CompactBlock::read(black_box(&payload), most));
    });
    group.finish();
}

criterion_group!(benches, blocks);
criterion_main!(benches);
