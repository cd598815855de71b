//! The whole path over loopback sockets on one core: two engines, two UDP sockets, one thread.
//!
//! `cargo bench --bench path`. The sender's engine makes datagrams of what is asked for, the receiver's checks,
//! verifies and assembles them; both run on the one thread that also makes the system calls, so that the
//! figure is that of one core doing both ends. Control connections are passed over in memory. The
//! throughput counts the bits of the block.

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

    fn send(&mut self, now: Time, buffer: &mut [u8]) {
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
        }
        let _ = self.port.flush(now);
    }

    fn receive(&mut self, now: Time) {
        let engine = &mut self.engine;
        let _ = self
            .port
            .recv_batch(|from, datagram| engine.handle_datagram(now, from, datagram));
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

/// How long a block takes from hand-over to whole at the other end.
async fn pass(block: &Workload, max_datagram: u16) -> Duration {
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
    while !turn(&mut ends, &clock, &mut buffer) {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "the block never came"
        );
        tokio::task::yield_now().await;
    }
    start.elapsed()
}

fn turn(ends: &mut [End; 2], clock: &Clock, buffer: &mut [u8]) -> bool {
    let complete = exchange(ends, clock.now());
    for end in ends.iter_mut() {
        end.send(clock.now(), buffer);
        end.receive(clock.now());
    }
    complete
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
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                (0..rounds)
                    .map(|_| runtime.block_on(pass(&block, max_datagram)))
                    .sum()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, path);
criterion_main!(benches);
