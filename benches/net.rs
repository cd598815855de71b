//! The socket layer alone: datagrams of 1,200 bytes over loopback on one core, and how late a timer
//! wakes.
//!
//! One thread sends and receives, so that the figure is that of one core doing both, as a relay does.
//! The throughput counts bits of payload.

use std::hint::black_box;
use std::time::Duration;

use blocktorrent::net::{Clock, Timer, UdpOptions, UdpPort};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::{Builder, Runtime};

/// The datagram of a path that is not proven larger.
const DATAGRAM_BYTES: usize = 1_200;
/// Datagrams of one turn: a quarter of a mebibyte, which the usual limit of a system's buffer holds
/// if offload joins them; the wait below is for the others.
const TURN: usize = 216;
/// Datagrams that are out at once where each is counted alone against the buffer.
const PART: usize = 72;

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made")
}

struct Pair {
    clock: Clock,
    sender: UdpPort,
    receiver: UdpPort,
    datagram: [u8; DATAGRAM_BYTES],
}

impl Pair {
    fn new(segmentation: bool) -> Self {
        let bind = |segmentation| {
            let options = UdpOptions {
                segmentation,
                ..UdpOptions::default()
            };
            UdpPort::bind(([127, 0, 0, 1], 0).into(), options).expect("loopback has ports")
        };
        Self {
            clock: Clock::start(),
            sender: bind(segmentation),
            receiver: bind(true),
            datagram: [7; DATAGRAM_BYTES],
        }
    }

    /// Sends and receives one turn, in parts.
    async fn turn(&mut self, part: usize) {
        let to = self.receiver.local_addr();
        for _ in 0..TURN / part {
            let now = self.clock.now();
            for _ in 0..part {
                self.sender
                    .push(now, to, &self.datagram)
                    .expect("a part fits the queue");
            }
            self.sender.flush(now);
            let mut received = 0;
            while received < part {
                self.receiver.readable().await.expect("the runtime lives");
                received += self
                    .receiver
                    .recv_batch(|from, datagram| {
                        black_box((from, datagram));
                    })
                    .expect("the socket is whole");
            }
        }
    }
}

fn throughput(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("loopback 1200 B, out and in on one core");
    group.throughput(Throughput::Bits((TURN * DATAGRAM_BYTES * 8) as u64));
    for (name, segmentation, part) in [
        ("joined (GSO), 216 at once", true, TURN),
        ("joined (GSO), 72 at once", true, PART),
        ("one by one, 72 at once", false, PART),
    ] {
        let _context = runtime.enter();
        let mut pair = Pair::new(segmentation);
        group.bench_function(name, |bencher| {
            bencher.iter(|| runtime.block_on(pair.turn(part)));
        });
        let (out, into) = (pair.sender.stats(), pair.receiver.stats());
        println!(
            "{:.1} datagrams a call to send, {:.1} a call and {:.1} a run to receive",
            out.datagrams_out as f64 / out.send_calls as f64,
            into.datagrams_in as f64 / into.receive_calls as f64,
            into.datagrams_in as f64 / into.runs_in as f64,
        );
    }
    group.finish();
}

fn waiting(criterion: &mut Criterion) {
    let runtime = runtime();
    let clock = Clock::start();
    let wait = Duration::from_micros(300);
    let mut group = criterion.benchmark_group("waiting 300 us");
    {
        let _context = runtime.enter();
        let mut timer = Timer::new(clock).expect("a descriptor is free");
        group.bench_function("Timer", |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    timer
                        .set(Some(clock.now() + wait))
                        .expect("the timer is valid");
                    timer.expired().await.expect("the timer is valid");
                });
            });
        });
    }
    group.bench_function("tokio::time::sleep", |bencher| {
        bencher.iter(|| runtime.block_on(async { tokio::time::sleep(wait).await }));
    });
    group.finish();
}

criterion_group!(benches, throughput, waiting);
criterion_main!(benches);
