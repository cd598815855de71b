//! Hashing of pairs, rows, proofs and chunks, at even and odd sizes.
//!
//! `cargo bench --bench merkle`. What to compare: `pair/compress` against `pair/digest` (the same through
//! the streaming interface of `sha2`), and `partial` against `row/root` of as many leaves: the difference
//! is what it costs to keep, look up and compare.

use std::hint::black_box;

use blocktorrent::merkle::hash::{pair, root, row_of, row_up, sha256d};
use blocktorrent::merkle::{Geometry, Hash, Lap, Node, Offer, Partial, fold};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sha2::{Digest, Sha256};

/// Leaves that differ.
fn leaves(count: u32) -> Vec<Hash> {
    (0..count)
        .map(|index| sha256d(&index.to_le_bytes()))
        .collect()
}

fn digest(bytes: &[u8]) -> Hash {
    Sha256::digest(Sha256::digest(bytes)).into()
}

fn digest_pair(left: &Hash, right: &Hash) -> Hash {
    let once = Sha256::new()
        .chain_update(left)
        .chain_update(right)
        .finalize();
    Sha256::digest(once).into()
}

fn pairs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pair");
    let (left, right) = (sha256d(b"left"), sha256d(b"right"));
    group.bench_function("compress", |bencher| {
        bencher.iter(|| pair(black_box(&left), black_box(&right)));
    });
    group.bench_function("digest", |bencher| {
        bencher.iter(|| digest_pair(black_box(&left), black_box(&right)));
    });
    group.finish();
}

fn bytes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("bytes");
    for length in [32, 250, 4_000, 1_000_000] {
        let message = vec![7; length];
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(BenchmarkId::new("compress", length), |bencher| {
            bencher.iter(|| sha256d(black_box(&message)));
        });
        group.bench_function(BenchmarkId::new("digest", length), |bencher| {
            bencher.iter(|| digest(black_box(&message)));
        });
    }
    let transactions: Vec<Vec<u8>> = (0..2_500).map(|i| vec![i as u8; 250 + i % 400]).collect();
    let total: usize = transactions.iter().map(Vec::len).sum();
    group.throughput(Throughput::Bytes(total as u64));
    let mut hashes = Vec::new();
    group.bench_function("row of 2500 transactions", |bencher| {
        bencher.iter(|| row_of(black_box(&transactions), &mut hashes));
    });
    group.finish();
}

fn rows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("row");
    for count in [128, 129, 2_500, 2_501, 16_666] {
        let row = leaves(count);
        let mut above = Vec::new();
        group.throughput(Throughput::Elements(u64::from(count.div_ceil(2))));
        group.bench_function(BenchmarkId::new("up", count), |bencher| {
            bencher.iter(|| row_up(black_box(&row), &mut above));
        });
        group.throughput(Throughput::Elements(u64::from(count - 1)));
        group.bench_function(BenchmarkId::new("root", count), |bencher| {
            bencher.iter(|| root(black_box(&row)));
        });
    }
    group.finish();
}

/// The nodes of a lap with their true hashes.
fn items(geometry: &Geometry, leaves: &[Hash], lap: &Lap) -> Vec<(Node, Hash)> {
    let hash = |node: Node| {
        let range = geometry.leaves(node);
        let items = range.filter_map(|i| Some((geometry.leaf(i)?, leaves[i as usize])));
        fold(geometry, node, items).expect("true leaves fold")
    };
    assert!(lap.is_canonical(geometry));
    let nodes = lap.nodes(geometry).expect("the lap exists");
    nodes.map(|node| (node, hash(node))).collect()
}

fn proofs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("proof");
    for count in [2_500, 2_501] {
        let (geometry, leaves) = (Geometry::new(count).expect("in range"), leaves(count));
        let (top, depth) = (geometry.root(), geometry.depth());
        let row = depth - 7;
        let chunk = geometry.node(row, 3).expect("it exists");
        let edge = geometry
            .node(row, geometry.width(row) - 1)
            .expect("it exists");
        let lap = |ancestor, range| geometry.lap(ancestor, depth, range).expect("a lap");
        for (name, ancestor, lap) in [
            (
                "branch of leaf 0",
                top,
                Lap::of_root(geometry.branch_of_first()),
            ),
            ("count", top, Lap::of_root(geometry.count_proof())),
            ("leaves 1000 to 1032", top, lap(top, 1_000..1_033)),
            ("chunk of 128", chunk, lap(chunk, geometry.leaves(chunk))),
            ("last chunk", edge, lap(edge, geometry.leaves(edge))),
        ] {
            let items = items(&geometry, &leaves, &lap);
            group.throughput(Throughput::Elements(items.len() as u64));
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher.iter(|| fold(&geometry, ancestor, black_box(&items).iter().copied()));
            });
        }
    }
    group.finish();
}

/// A tree whose row of chunks of 128 leaves is verified, and those chunks.
fn with_row(geometry: Geometry, leaves: &[Hash]) -> (Partial<u32>, Vec<Node>) {
    let (top, level) = (geometry.root(), geometry.depth() - 7);
    let lap = geometry
        .lap(top, level, 0..geometry.width(level))
        .expect("a lap");
    let (nodes, hashes): (Vec<Node>, Vec<Hash>) =
        items(&geometry, leaves, &lap).into_iter().unzip();
    let mut partial = Partial::new(geometry, geometry.count());
    partial.trust_root(root(leaves).hash);
    assert_eq!(
        partial.offer_lap(top, &nodes, &hashes, 1),
        Offer::Verified { top }
    );
    (partial, nodes)
}

fn partials(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("partial");
    for count in [2_500, 2_501, 16_666] {
        let (geometry, leaves) = (Geometry::new(count).expect("in range"), leaves(count));
        let nodes: Vec<Node> = (0..count).filter_map(|i| geometry.leaf(i)).collect();
        let (partial, chunks) = with_row(geometry, &leaves);
        group.throughput(Throughput::Elements(u64::from(count)));
        group.bench_function(
            BenchmarkId::new("chunks of 128 as laps", count),
            |bencher| {
                bencher.iter(|| {
                    let mut partial = partial.clone();
                    for chunk in &chunks {
                        let range = geometry.leaves(*chunk);
                        let range = range.start as usize..range.end as usize;
                        let offer =
                            partial.offer_lap(*chunk, &nodes[range.clone()], &leaves[range], 1);
                        assert_eq!(offer, Offer::Verified { top: *chunk });
                    }
                    partial
                });
            },
        );
        group.bench_function(BenchmarkId::new("leaf by leaf", count), |bencher| {
            bencher.iter(|| {
                let mut partial = partial.clone();
                for (node, hash) in nodes.iter().zip(&leaves) {
                    let _ = black_box(partial.offer(*node, *hash, 1));
                }
                assert!(partial.all_verified(geometry.depth(), 0..count));
                partial
            });
        });
    }
    group.finish();
}

criterion_group!(benches, pairs, bytes, rows, proofs, partials);
criterion_main!(benches);
