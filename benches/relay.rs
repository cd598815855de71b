//! The engine's whole path, without sockets, against the hashing that no implementation can avoid.
//!
//! `cargo bench --bench relay`. Two engines pass mainnet block 702861 from one to the other; what the receiver
//! was given is recorded once and then played to fresh receivers with the same seed, which behave the
//! same. So `receive` is everything that one core does for a block: filter, MAC, decoding, parsing,
//! verification against the witness tree, scheduling, reports, the final check and the assembled block.
//! `floor` is what the target in proportion is measured against: double SHA-256 of each transaction's bytes,
//! twice (txid and wtxid). `mesh` is the other end: many engines that tell each other what they have.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::hashes::Hash as _;
use blocktorrent::mempool::{BlockLimits, Transaction, split_block};
use blocktorrent::merkle::{Geometry, Partial, hash};
use blocktorrent::relay::{
    Engine, EngineConfig, Event, HeaderJudge, HeaderRefusal, HeaderVerdict, Initiator, SessionId,
};
use blocktorrent::sim::workload::{Recipe, Workload};
use blocktorrent::sim::{LinkOptions, NodeOptions, Topology, World};
use blocktorrent::time::Time;
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// Takes every header: its work is not what is measured.
struct AnyHeader;

impl HeaderJudge for AnyHeader {
    fn accept(&mut self, _: &[u8; 80], _: Time) -> Result<HeaderVerdict, HeaderRefusal> {
        Ok(HeaderVerdict {
            height: 702_861,
            in_window: true,
            segwit_active: true,
        })
    }

    fn tip(&self) -> [u8; 32] {
        [0; 32]
    }
}

fn engine(seed: u8, now: Time) -> Engine {
    let config = EngineConfig {
        network_magic: 0xd9b4_bef9,
        max_block_bytes: 4_000_000,
        max_transactions: 16_666,
        udp_port: 8_433,
        control_port: 0,
        bitcoin_port: 0,
        push_level: 3,
        preference: 255,
        role: 0,
        max_up_bytes_per_s: None,
        max_down_bytes_per_s: None,
        max_datagram: 1_200,
        max_peers: 8,
        reserved_outbound: 0,
        max_inbound_per_group: 8,
        max_mempool_bytes: 300_000_000,
        agent: "/bench/".to_owned(),
        lie: false,
    };
    Engine::new(config, Box::new(AnyHeader), [seed; 32], now)
}

/// What the receiver was given, in order.
enum Given {
    Control(Time, Bytes),
    Datagram(Time, Vec<u8>),
    Timeout(Time),
}

struct Pair {
    ends: [Engine; 2],
    sessions: [SessionId; 2],
    given: Vec<Given>,
    now: Time,
    block: Option<Bytes>,
    buffer: Vec<u8>,
}

fn address(end: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1 + end as u8], 8_433))
}

impl Pair {
    /// Two engines whose handshake and path are done; the receiver has these transactions.
    fn new(held: &[Transaction]) -> Self {
        let now = Time::from_unix_seconds(1_632_967_000);
        let mut ends = [engine(1, now), engine(2, now)];
        for transaction in held {
            let taken = ends[1].add_transaction(now, transaction.bytes().clone());
            taken.expect("a transaction of a real block");
        }
        let first = ends[0].handle_connected(now, Initiator::Outbound, address(1));
        let second = ends[1].handle_connected(now, Initiator::Inbound, address(0));
        let sessions = [first.expect("room"), second.expect("room")];
        let mut pair = Self {
            ends,
            sessions,
            given: Vec::new(),
            now,
            block: None,
            buffer: vec![0; 65_507],
        };
        pair.run(Duration::from_secs(2));
        pair
    }

    /// Passes on everything for a while, or until the receiver has a block.
    fn run(&mut self, span: Duration) {
        let until = self.now + span;
        while self.now < until && self.block.is_none() {
            while self.pass_on() {}
            self.now = self.now + Duration::from_micros(50);
            for end in 0..2 {
                let due = self.ends[end]
                    .poll_deadline()
                    .is_some_and(|(at, _)| at <= self.now);
                if due {
                    if end == 1 {
                        self.given.push(Given::Timeout(self.now));
                    }
                    self.ends[end].handle_timeout(self.now);
                }
            }
        }
    }

    fn pass_on(&mut self) -> bool {
        let mut moved = false;
        for end in 0..2 {
            let other = 1 - end;
            let (now, session) = (self.now, self.sessions[other]);
            while let Some(ready) = self.ends[end].poll_control_ready() {
                while let Some(bytes) = self.ends[end].poll_control(now, ready) {
                    moved = true;
                    self.ends[other].handle_control(now, session, &bytes);
                    if other == 1 {
                        self.given.push(Given::Control(now, bytes));
                    }
                }
            }
            while let Some(transmit) = self.ends[end].poll_transmit(now, &mut self.buffer) {
                moved = true;
                let datagram = self.buffer[..transmit.len].to_vec();
                self.ends[other].handle_datagram(now, address(end), &datagram);
                if other == 1 {
                    self.given.push(Given::Datagram(now, datagram));
                }
            }
            while let Some(event) = self.ends[end].poll_event() {
                if let (1, Event::BlockComplete { whole, .. }) = (end, event) {
                    self.block = Some(whole.bytes.clone());
                }
            }
        }
        moved
    }
}

/// Records how the receiver, which holds `held` of the block, gets the rest.
fn record(block: &Bytes, held: &[Transaction]) -> (Vec<Given>, Pair) {
    let mut pair = Pair::new(held);
    let now = pair.now;
    pair.given.clear();
    pair.ends[0]
        .submit_block(now, block.clone())
        .expect("valid");
    pair.run(Duration::from_secs(20));
    assert_eq!(pair.block.as_ref(), Some(block), "the block came whole");
    let given = std::mem::take(&mut pair.given);
    (given, pair)
}

/// Plays what was recorded to a receiver in the same state.
fn play(mut receiver: Pair, given: &[Given]) -> Pair {
    let session = receiver.sessions[1];
    let end = &mut receiver.ends[1];
    for item in given {
        let now = match item {
            Given::Control(now, bytes) => {
                end.handle_control(*now, session, bytes);
                *now
            }
            Given::Datagram(now, datagram) => {
                end.handle_datagram(*now, address(0), datagram);
                *now
            }
            Given::Timeout(now) => {
                end.handle_timeout(*now);
                *now
            }
        };
        while let Some(ready) = end.poll_control_ready() {
            while end.poll_control(now, ready).is_some() {}
        }
        while end.poll_transmit(now, &mut receiver.buffer).is_some() {}
        while let Some(event) = end.poll_event() {
            if let Event::BlockComplete { whole, .. } = event {
                receiver.block = Some(whole.bytes.clone());
            }
        }
    }
    assert!(
        receiver.block.is_some(),
        "a replay behaves as the recording"
    );
    receiver
}

fn transactions_of(block: &Bytes) -> Vec<Transaction> {
    let limits = BlockLimits {
        max_bytes: 4_000_000,
        max_transactions: 16_666,
    };
    split_block(block.clone(), limits).expect("a real block").1
}

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
        let (given, done) = record(&block, held);
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
