//! Erasure codes for parity, side by side: what is used (reed-solomon-simd), and RaptorQ (RFC 6330).
//!
//! Strings as long as first flights and bodies are, cut into cells of the sizes that were considered; a fiftieth of the
//! cells is lost. Reed-Solomon makes a quarter as many cells of parity as there are of data, as the protocol does; RaptorQ
//! as many as are lost, and two more. Throughput counts the string.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use raptorq::{ObjectTransmissionInformation, SourceBlockDecoder, SourceBlockEncoder};
use reed_solomon_simd::engine::DefaultEngine;
use reed_solomon_simd::rate::{HighRateDecoder, HighRateEncoder, RateDecoder, RateEncoder};

/// Bytes of a string, and of its cells.
const CASES: [(usize, usize); 6] = [
    (16_300, 64),
    (1_060_000, 192),
    (1_060_000, 1_024),
    (4_000_000, 192),
    (4_000_000, 1_024),
    (32_000_000, 1_024),
];

fn string(bytes: usize, cell: usize) -> Vec<u8> {
    let len = bytes.div_ceil(cell) * cell;
    let mut state = 88_172_645_463_325_252_u64;
    let next = std::iter::from_fn(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some(state as u8)
    });
    next.take(len).collect()
}

fn is_lost(cell: usize) -> bool {
    cell % 50 == 7
}

fn reed_solomon(string: &[u8], cell: usize, parity: usize) -> Vec<Vec<u8>> {
    let data = string.len() / cell;
    let engine = DefaultEngine::new();
    let mut encoder = HighRateEncoder::new(data, parity, cell, engine, None).expect("a code");
    for piece in string.chunks(cell) {
        encoder.add_original_shard(piece).expect("one of them");
    }
    let encoded = encoder.encode().expect("all are there");
    encoded.recovery_iter().map(<[u8]>::to_vec).collect()
}

fn reed_solomon_back(string: &[u8], cell: usize, parity: &[Vec<u8>]) -> usize {
    let data = string.len() / cell;
    let engine = DefaultEngine::new();
    let mut decoder = HighRateDecoder::new(data, parity.len(), cell, engine, None).expect("a code");
    let mut lost = 0;
    for (number, piece) in string.chunks(cell).enumerate() {
        match is_lost(number) {
            true => lost += 1,
            false => decoder.add_original_shard(number, piece).expect("one"),
        }
    }
    for (number, piece) in parity.iter().enumerate().take(lost) {
        decoder.add_recovery_shard(number, piece).expect("one");
    }
    let restored = decoder.decode().expect("enough");
    restored
        .restored_original_iter()
        .map(|(_, piece)| piece.len())
        .sum()
}

fn measure(criterion: &mut Criterion) {
    for (bytes, cell) in CASES {
        let string = string(bytes, cell);
        let data = string.len() / cell;
        let parity = data.div_ceil(4).next_power_of_two().max(16);
        let name = format!("{bytes} bytes in cells of {cell}");
        let mut group = criterion.benchmark_group(name);
        group
            .throughput(Throughput::Bytes(string.len() as u64))
            .sample_size(10)
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs(2));
        group.bench_function(BenchmarkId::new("encode", "reed-solomon"), |bencher| {
            bencher.iter(|| reed_solomon(black_box(&string), cell, parity));
        });
        let cells = reed_solomon(&string, cell, parity);
        group.bench_function(BenchmarkId::new("decode", "reed-solomon"), |bencher| {
            bencher.iter(|| reed_solomon_back(black_box(&string), cell, &cells));
        });
        let lost = (0..data).filter(|cell| is_lost(*cell)).count() as u32;
        let config = ObjectTransmissionInformation::new(0, cell as u16, 0, 1, 1);
        let repair = || {
            let encoder = SourceBlockEncoder::new(0, &config, black_box(&string));
            encoder.repair_packets(0, lost + 2)
        };
        group.bench_function(BenchmarkId::new("encode", "raptorq"), |bencher| {
            bencher.iter(repair);
        });
        let (repairs, source) = (
            repair(),
            SourceBlockEncoder::new(0, &config, &string).source_packets(),
        );
        group.bench_function(BenchmarkId::new("decode", "raptorq"), |bencher| {
            bencher.iter(|| {
                let mut decoder = SourceBlockDecoder::new(0, &config, string.len() as u64);
                let here = source.iter().enumerate();
                let here = here.filter(|(number, _)| !is_lost(*number));
                let packets = here.map(|(_, packet)| packet).chain(&repairs);
                decoder.decode(packets.cloned()).expect("enough")
            });
        });
        group.finish();
    }
}

criterion_group!(benches, measure);
criterion_main!(benches);
