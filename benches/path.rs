//! The whole path over loopback sockets on one core: two engines, two UDP sockets, one thread.
//!
//! `cargo bench --bench path`. The sender's engine makes datagrams of what is asked for, the receiver's checks,
//! verifies and assembles them; both run on the one thread that also makes the system calls, so that the
//! figure is that of one core doing both ends. Control connections are passed over in memory. The
//! throughput counts the bits of the block, from the block's hand-over to the sender, which checks it first.
//! After each, the median's parts are printed beside what a transfer cannot avoid, measured in the same run.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use blocktorrent::net::{Clock, UdpOptions, UdpPort};
use blocktorrent::relay::{
    Engine, EngineConfig, Event, HeaderJudge, HeaderRefusal, HeaderVerdict, Initiator, SessionId,
};
use blocktorrent::sim::workload::{Recipe, Workload};
use blocktorrent::time::Time;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::{Builder, Runtime};

/// Takes every header: its work is not what is measured.
struct AnyHeader;

impl HeaderJudge for AnyHeader {
    fn accept(&mut self, _: &[u8; 80], _: Time) -> Result<HeaderVerdict, HeaderRefusal> {
        Ok(HeaderVerdict {
            height: 1,
            in_window: true,
            segwit_active: true,
        })
    }

    fn tip(&self) -> [u8; 32] {
        [0; 32]
    }
}

struct End {
    engine: Engine,
    port: UdpPort,
    session: Option<SessionId>,
}

impl End {
    fn new(seed: u8, now: Time, max_datagram: u16) -> Self {
        let address: SocketAddr = ([127, 0, 0, 1], 0).into();
        let port = UdpPort::bind(address, UdpOptions::default()).expect("loopback has ports");
        let config = EngineConfig {
            network_magic: 1,
            max_block_bytes: 64_000_000,
            max_transactions: 200_000,
            udp_port: port.local_addr().port(),
            control_port: 0,
            bitcoin_port: 0,
            push_level: 2,
            preference: 255,
            role: 0,
            max_up_bytes_per_s: None,
            max_down_bytes_per_s: None,
            max_datagram,
            max_peers: 4,
            reserved_outbound: 0,
            max_inbound_per_group: 8,
            max_mempool_bytes: 1_000_000,
            agent: "/bench/".to_owned(),
            lie: false,
        };
        Self {
            engine: Engine::new(config, Box::new(AnyHeader), [seed; 32], now),
            port,
            session: None,
        }
    }

    /// Gives how many datagrams were handed to the port.
    fn send(&mut self, now: Time, buffer: &mut [u8]) -> usize {
        let mut count = 0;
        // As the node does it: what is due goes out whenever the engine is turned.
        if self.engine.poll_deadline().is_some_and(|(at, _)| at <= now) {
            self.engine.handle_timeout(now);
        }
        while self.port.has_room() {
            let Some(transmit) = self.engine.poll_transmit(now, buffer) else {
                break;
            };
            let datagram = &buffer[..transmit.len];
            let _ = self.port.push(now, transmit.to, datagram);
            count += 1;
        }
        let _ = self.port.flush(now);
        count
    }

    /// Gives how many datagrams came.
    fn receive(&mut self, now: Time) -> usize {
        let engine = &mut self.engine;
        self.port
            .recv_batch(|from, datagram| engine.handle_datagram(now, from, datagram))
            .unwrap_or(0)
    }
}

/// Passes control bytes over, and gives whether the receiver has a block.
fn exchange(ends: &mut [End; 2], now: Time) -> bool {
    let mut complete = false;
    for end in 0..2 {
        while let Some(ready) = ends[end].engine.poll_control_ready() {
            while let Some(bytes) = ends[end].engine.poll_control(now, ready) {
                let other = &mut ends[1 - end];
                if let Some(session) = other.session {
                    other.engine.handle_control(now, session, &bytes);
                }
            }
        }
        while let Some(event) = ends[end].engine.poll_event() {
            complete |= end == 1 && matches!(event, Event::BlockComplete { .. });
        }
    }
    complete
}

/// How long a block takes from hand-over to whole at the other end, and parts of it.
#[derive(Clone, Copy, Default)]
struct Passed {
    whole: Duration,
    /// Until the sender has checked the block itself.
    submit: Duration,
    /// In turns in which no datagram was sent or came: the path's pacing or reports were waited for.
    idle: Duration,
}

/// Hands a block to one end, and moves datagrams until it is whole at the other.
async fn pass(block: &Workload, max_datagram: u16) -> Passed {
    let clock = Clock::start();
    let now = clock.now();
    let mut ends = [
        End::new(1, now, max_datagram),
        End::new(2, now, max_datagram),
    ];
    let addresses = [ends[0].port.local_addr(), ends[1].port.local_addr()];
    let first = ends[0]
        .engine
        .handle_connected(now, Initiator::Outbound, addresses[1]);
    ends[0].session = first;
    let second = ends[1]
        .engine
        .handle_connected(now, Initiator::Inbound, addresses[0]);
    ends[1].session = second;
    let mut buffer = vec![0; 65_507];
    let settled = Instant::now() + Duration::from_millis(150);
    while Instant::now() < settled {
        turn(&mut ends, &clock, &mut buffer);
        tokio::task::yield_now().await;
    }
    let start = Instant::now();
    assert!(
        ends.iter()
            .all(|end| end.engine.peers(now).iter().all(|peer| peer.udp))
    );
    let submitted = ends[0]
        .engine
        .submit_block(clock.now(), block.block.clone());
    submitted.expect("a valid block");
    let mut passed = Passed {
        submit: start.elapsed(),
        ..Passed::default()
    };
    let mut last = passed.submit;
    loop {
        let (complete, moved) = turn(&mut ends, &clock, &mut buffer);
        passed.whole = start.elapsed();
        if complete {
            return passed;
        }
        assert!(
            passed.whole < Duration::from_secs(60),
            "the block never came"
        );
        tokio::task::yield_now().await;
        passed.whole = start.elapsed();
        if moved == 0 {
            passed.idle += passed.whole - last;
        }
        last = passed.whole;
    }
}

/// Gives whether the block is whole, and how many datagrams moved.
fn turn(ends: &mut [End; 2], clock: &Clock, buffer: &mut [u8]) -> (bool, usize) {
    let complete = exchange(ends, clock.now());
    let mut moved = 0;
    for end in ends.iter_mut() {
        moved += end.send(clock.now(), buffer);
        moved += end.receive(clock.now());
    }
    (complete, moved)
}

fn runtime() -> Runtime {
    // Sockets are looked at between any two turns.
    Builder::new_current_thread()
        .event_interval(1)
        .enable_all()
        .build()
        .expect("a runtime can be made")
}

fn path(criterion: &mut Criterion) {
    let runtime = runtime();
    let _guard = runtime.enter();
    let mut group = criterion.benchmark_group("block over loopback");
    group.sample_size(10);
    for (name, transactions, max_datagram) in [
        ("2 MB, datagrams of 1,200", 4_000, 1_200),
        ("16 MB, datagrams of 1,200", 32_000, 1_200),
        ("16 MB, datagrams of 8,952", 32_000, 8_952),
    ] {
        let recipe = Recipe {
            transactions,
            bytes: (300, 700),
            ..Recipe::default()
        };
        let block = Workload::new(&recipe, 1);
        group.throughput(Throughput::Bytes(block.block.len() as u64));
        let mut all: Vec<Passed> = Vec::new();
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let first = all.len();
                all.extend((0..rounds).map(|_| runtime.block_on(pass(&block, max_datagram))));
                all.iter().skip(first).map(|passed| passed.whole).sum()
            });
        });
        report(&runtime, &block, max_datagram, all);
    }
    group.finish();
}

/// Sets the median beside what no implementation can avoid, measured now: the receiver's two double hashes of each
/// transaction (txid and wtxid), and the bytes through the two sockets.
fn report(runtime: &Runtime, block: &Workload, max_datagram: u16, mut all: Vec<Passed>) {
    all.sort_by_key(|passed| passed.whole);
    let Some(median) = all.get(all.len() / 2) else {
        return;
    };
    let hashing = median_of(|| hash_twice(block));
    let (bytes, datagram) = (block.block.len(), usize::from(max_datagram));
    let sockets = median_of(|| runtime.block_on(through_sockets(bytes, datagram)));
    let bits = block.block.len() as f64 * 8.0;
    let gigabits = |time: Duration| bits / time.as_secs_f64() / 1e9;
    let transfer = median.whole - median.submit;
    let limit = hashing + sockets;
    println!(
        "  median: whole {:?} ({:.2} Gbit/s) = sender's own check {:?} + transfer {transfer:?} ({:.2} Gbit/s), of \
         which idle {:?}",
        median.whole,
        gigabits(median.whole),
        median.submit,
        gigabits(transfer),
        median.idle,
    );
    println!(
        "  limit of a transfer: hashing {hashing:?} + sockets {sockets:?} = {limit:?} ({:.2} Gbit/s); reached {:.0} %",
        gigabits(limit),
        100.0 * limit.as_secs_f64() / transfer.as_secs_f64(),
    );
}

fn median_of(mut measure: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..9)
        .map(|_| {
            let start = Instant::now();
            measure();
            start.elapsed()
        })
        .collect();
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn hash_twice(block: &Workload) {
    for transaction in &block.transactions {
        let bytes: &[u8] = black_box(transaction);
        black_box(blocktorrent::merkle::hash::sha256d(bytes));
        black_box(blocktorrent::merkle::hash::sha256d(bytes));
    }
}

/// Pushes as many bytes through two ports as the block has, in datagrams of that size.
async fn through_sockets(bytes: usize, datagram: usize) {
    let now = Clock::start().now();
    let bind = || UdpPort::bind(([127, 0, 0, 1], 0).into(), UdpOptions::default());
    let mut sender = bind().expect("loopback has ports");
    let mut receiver = bind().expect("loopback has ports");
    let (to, datagram) = (receiver.local_addr(), vec![7; datagram]);
    let (mut sent, mut came) = (0, 0);
    while came < bytes {
        // As much as the usual limit of a system's buffer holds.
        while sent < bytes && sent - came < 64 * 1024 {
            sender.push(now, to, &datagram).expect("has room");
            sent += datagram.len();
        }
        let _ = sender.flush(now);
        while came < sent {
            let batch = |_, datagram: &[u8]| came += black_box(datagram).len();
            if receiver.recv_batch(batch).expect("a socket") == 0 {
                // What is there is seen after the runtime's turn only.
                receiver.readable().await.expect("a runtime");
            }
        }
    }
}

criterion_group!(benches, path);
criterion_main!(benches);
