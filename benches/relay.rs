//! The engine's whole path, without sockets, against the hashing that no implementation can avoid.
//!
//! `cargo bench --bench relay`. Two engines pass mainnet block 702861 from one to the other; what the receiver
//! was given is recorded once and then played to fresh receivers with the same seed, which behave the
//! same. So `receive` is everything that one core does for a block: filter, MAC, decoding, parsing,
//! verification against the witness tree, scheduling, reports, the final check and the assembled block.
//! `floor` is what the target in proportion is measured against: double SHA-256 of each transaction's bytes,
//! twice (txid and wtxid). `mesh` is the other end: many engines that tell each other what they have.

mod pair;

use std::hint::black_box;
use std::time::Duration;

use bitcoin::hashes::Hash as _;
use blocktorrent::mempool::Transaction;
use blocktorrent::merkle::{Geometry, Partial, hash};
use blocktorrent::sim::workload::{Recipe, Workload};
use blocktorrent::sim::{LinkOptions, NodeOptions, Topology, World};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

use pair::{Given, Pair, play, record, transactions_of};

/// Twelve engines, each joined with each, pass a block on until all have it: what every one does for each
/// JOB_STATE of the others weighs here.
fn mesh(criterion: &mut Criterion) {
    let recipe = Recipe {
        transactions: 8_000,
        bytes: (200, 300),
        ..Recipe::default()
    };
    let work = Workload::new(&recipe, 1);
    let mut group = criterion.benchmark_group("mesh of 12 engines");
    group.throughput(Throughput::Bytes(11 * work.block.len() as u64));
    group.sample_size(10);
    group.bench_function("8,000 transactions, cold", |bencher| {
        bencher.iter_batched(
            || {
                let mut world = World::new(3);
                for _ in 0..12 {
                    world.add_node(NodeOptions::default());
                }
                world.join(Topology::Mesh, &LinkOptions::default());
                world.run_for(Duration::from_secs(3));
                world.submit(0, &work, Duration::ZERO);
                world
            },
            |mut world| {
                assert!(world.run_until_complete(&work, Duration::from_secs(60)));
                world
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn relay(criterion: &mut Criterion) {
    let block = Bytes::from_static(bitcoin_test_data::blocks::mainnet_702861());
    let transactions = transactions_of(&block);
    let mut group = criterion.benchmark_group("block 702861");
    group.throughput(Throughput::Bytes(block.len() as u64));
    group.sample_size(20);

    group.bench_function("floor: each transaction double-hashed twice", |bencher| {
        bencher.iter(|| {
            for transaction in &transactions {
                let bytes = black_box(transaction.bytes());
                black_box(bitcoin::hashes::sha256d::Hash::hash(bytes));
                black_box(bitcoin::hashes::sha256d::Hash::hash(bytes));
            }
        });
    });
    group.bench_function("verify and assemble, leaves known", |bencher| {
        bencher.iter(|| verify_and_assemble(&block, &transactions));
    });
    for (name, held) in [("cold", &[][..]), ("warm", &transactions[1..])] {
        let (given, done) = record(&block, held, None);
        let datagrams = given
            .iter()
            .filter(|item| matches!(item, Given::Datagram(..)))
            .count();
        let bytes: usize = given
            .iter()
            .map(|item| match item {
                Given::Datagram(_, datagram) => datagram.len(),
                _ => 0,
            })
            .sum();
        let spent = done.now;
        if std::env::var_os("RELAY_BENCH_SIZES").is_some() {
            for item in &given {
                match item {
                    Given::Datagram(at, datagram) => eprintln!("{at} {}", datagram.len()),
                    Given::Control(at, bytes) => eprintln!("{at} control {}", bytes.len()),
                    Given::Timeout(at) => eprintln!("{at} timeout"),
                }
            }
        }
        eprintln!("{name}: {datagrams} datagrams, {bytes} bytes, until {spent}");
        group.bench_function(
            format!("receive {name}, whole path but sockets"),
            |bencher| {
                bencher.iter_batched(
                    || Pair::new(held),
                    |receiver| play(receiver, &given),
                    BatchSize::PerIteration,
                );
            },
        );
    }
    group.finish();
}

/// The part that hashing dominates: parse, both ids, the witness tree against its root, the txid tree, one
/// copy of everything into the block.
fn verify_and_assemble(block: &Bytes, transactions: &[Transaction]) -> Vec<u8> {
    let geometry = Geometry::new(transactions.len() as u32).expect("a count");
    let mut wtxids = vec![[0; 32]];
    let mut txids = Vec::with_capacity(transactions.len());
    let mut body = Vec::with_capacity(block.len());
    body.extend_from_slice(&block[..80]);
    for (index, transaction) in transactions.iter().enumerate() {
        let bytes = Bytes::copy_from_slice(transaction.bytes());
        let parsed = Transaction::parse(bytes).expect("real");
        if index > 0 {
            wtxids.push(parsed.wtxid());
        }
        txids.push(parsed.txid());
        body.extend_from_slice(parsed.bytes());
    }
    let mut tree: Partial<u8> = Partial::new(geometry, 2 * geometry.count());
    tree.trust_root(hash::root(&wtxids).hash);
    let leaves: Vec<_> = (0..geometry.count())
        .filter_map(|leaf| geometry.leaf(leaf))
        .collect();
    let offer = tree.offer_lap(geometry.root(), &leaves, &wtxids, 0);
    assert_eq!(
        offer,
        blocktorrent::merkle::Offer::Verified {
            top: geometry.root()
        }
    );
    black_box(hash::root(&txids));
    body
}

criterion_group!(benches, relay, mesh);
criterion_main!(benches);
