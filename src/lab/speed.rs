//! What the lab's links carry on this machine, and how precisely: asked before anything is believed of it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;
use serde_json::json;

use super::net::{Net, check_system};
use super::place::{Place, default_congestion};
use super::switch::address_of;
use crate::cli::{CheckOptions, print};
use crate::net::Clock;
use crate::sim::outcome::percentile;
use crate::sim::{Scenario, Trial};

/// Links that only this machine limits.
const UNLIMITED: &str = "name = 'check'\n[link]\ndelay_ms = 0\nrate_mbit = 0";
/// A link on which only time matters.
const TIMED: &str = "name = 'check'\n[link]\ndelay_ms = 20\nrate_mbit = 0";
const TIMED_DELAY: Duration = Duration::from_millis(20);
/// Between two datagrams on it.
const TIMED_GAP: Duration = Duration::from_millis(2);
/// The largest payload of a datagram in a packet of Ethernet.
const PAYLOAD: usize = 1_472;
const HEADERS: usize = 28;
/// Where the measuring sockets listen, each in a namespace of its own.
const PORT: u16 = 9_000;
/// How long a receiver waits for what may have been lost.
const SILENCE: Duration = Duration::from_millis(200);
/// Slack after the sender's time before a stream counts as stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Speed {
    /// Datagrams of 1,472 bytes that arrived, with their headers, in Gbit/s.
    udp_gbit: f64,
    /// Packets of them a second.
    udp_packets_per_s: f64,
    /// Payload of one TCP connection, in Gbit/s.
    tcp_gbit: f64,
    /// How much longer than the link's 20 ms a datagram takes from program to program: half of them.
    late_p50_ms: f64,
    /// 99% of them.
    late_p99_ms: f64,
    /// The latest.
    late_most_ms: f64,
}

/// Measures, and prints.
///
/// # Errors
///
/// One line: what the system lacks.
pub async fn check(options: &CheckOptions) -> anyhow::Result<ExitCode> {
    check_system()?;
    let time = Duration::from_secs_f64(options.seconds);
    let unlimited = net(UNLIMITED)?;
    let (udp_gbit, udp_packets_per_s) = udp(&unlimited, time).await?;
    let tcp_gbit = tcp(&unlimited, time).await?;
    drop(unlimited);
    let late = lateness(&net(TIMED)?, time).await?;
    let at = |share| percentile(&late, share).unwrap_or(f64::NAN);
    let speed = Speed {
        udp_gbit,
        udp_packets_per_s,
        tcp_gbit,
        late_p50_ms: at(50.0),
        late_p99_ms: at(99.0),
        late_most_ms: at(100.0),
    };
    let text = match options.json {
        true => format!("{:#}\n", json!(speed)),
        false => format!(
            "The lab can work here. Between two namespaces, over a link without limits:\n\
             UDP  {:.2} Gbit/s, {:.0} datagrams a second\n\
             TCP  {:.2} Gbit/s, one connection\n\
             From program to program over a link of 20 ms, later than that by:\n\
             {:.3} ms for half of the datagrams, {:.3} ms for 99%, {:.3} ms at most\n",
            speed.udp_gbit,
            speed.udp_packets_per_s,
            speed.tcp_gbit,
            speed.late_p50_ms,
            speed.late_p99_ms,
            speed.late_most_ms
        ),
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn net(scenario: &str) -> anyhow::Result<Net> {
    let scenario = Scenario::with_changes("check", scenario, &[])?;
    let trial = Trial::new(&scenario, 1, None)?;
    Net::new(&trial, &default_congestion()?, Clock::start())
}

/// Does something that blocks inside a place, on a thread of its own.
async fn begin<T: Send + 'static>(
    place: &Place,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let work = async move {
        let done = tokio::task::spawn_blocking(work).await;
        done.context("a measurement was cut short")?
    };
    place.run(work).await
}

/// Datagrams that are under way at most, so that no socket's buffer overflows: what is asked is what the links carry.
const UNDER_WAY: u64 = 64;
/// How long a sender waits for what is under way, before it takes it for lost.
const LOST_AFTER: Duration = Duration::from_millis(20);

async fn udp(net: &Net, time: Duration) -> anyhow::Result<(f64, f64)> {
    let (ready, is_ready) = sync_channel(1);
    let arrived = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&arrived);
    let receive = begin(net.place(1)?, move || {
        let socket = UdpSocket::bind((address_of(1), PORT))?;
        socket.set_read_timeout(Some(SILENCE))?;
        let _ = ready.send(());
        let mut buffer = [0; PAYLOAD];
        let begun = Instant::now();
        let mut last = begun;
        let deadline = begun + time + PATIENCE;
        while socket.recv(&mut buffer).is_ok() || (last == begun && Instant::now() < deadline) {
            last = Instant::now();
            counted.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    let send = begin(net.place(0)?, move || {
        wait(&is_ready)?;
        let socket = UdpSocket::bind((address_of(0), 0))?;
        socket.connect((address_of(1), PORT))?;
        let begun = Instant::now();
        let (mut sent, mut lost) = (0, 0);
        while begun.elapsed() < time {
            let waits = Instant::now();
            while sent - lost - arrived.load(Ordering::Relaxed).min(sent - lost) >= UNDER_WAY {
                if waits.elapsed() > LOST_AFTER {
                    lost = sent - arrived.load(Ordering::Relaxed).min(sent);
                    break;
                }
                std::thread::yield_now();
            }
            socket.send(&[7; PAYLOAD])?;
            sent += 1;
        }
        Ok(arrived.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64())
    });
    let ((), per_second) = tokio::try_join!(receive, send)?;
    Ok((
        per_second * ((PAYLOAD + HEADERS) * 8) as f64 / 1e9,
        per_second,
    ))
}

async fn tcp(net: &Net, time: Duration) -> anyhow::Result<f64> {
    let (ready, is_ready) = sync_channel(1);
    let receive = begin(net.place(1)?, move || {
        let listener = TcpListener::bind((address_of(1), PORT))?;
        let _ = ready.send(());
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let begun = Instant::now();
        let mut buffer = vec![0; 1 << 16];
        let mut bytes = 0;
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok((bytes, begun.elapsed())),
                read => bytes += read,
            }
        }
    });
    let send = begin(net.place(0)?, move || {
        wait(&is_ready)?;
        let to = SocketAddr::from((address_of(1), PORT));
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        let until = Instant::now() + time;
        let buffer = vec![7; 1 << 16];
        while Instant::now() < until {
            stream.write_all(&buffer)?;
        }
        Ok(())
    });
    let ((bytes, elapsed), ()) = tokio::try_join!(receive, send)?;
    Ok(bytes as f64 * 8.0 / elapsed.as_secs_f64() / 1e9)
}

/// How late each datagram was, in milliseconds.
async fn lateness(net: &Net, time: Duration) -> anyhow::Result<Vec<f64>> {
    let (ready, is_ready) = sync_channel(1);
    let begun = Instant::now();
    let receive = begin(net.place(1)?, move || {
        let socket = UdpSocket::bind((address_of(1), PORT))?;
        socket.set_read_timeout(Some(SILENCE + TIMED_DELAY))?;
        let _ = ready.send(());
        let mut late = Vec::new();
        let mut sent = [0; 8];
        while socket.recv(&mut sent).is_ok() || late.is_empty() {
            let way = begun
                .elapsed()
                .saturating_sub(Duration::from_nanos(u64::from_be_bytes(sent)));
            late.push((way.as_secs_f64() - TIMED_DELAY.as_secs_f64()) * 1e3);
        }
        Ok(late)
    });
    let send = begin(net.place(0)?, move || {
        wait(&is_ready)?;
        let socket = UdpSocket::bind((address_of(0), 0))?;
        socket.connect((address_of(1), PORT))?;
        let until = Instant::now() + time;
        while Instant::now() < until {
            let now = begun.elapsed().as_nanos() as u64;
            socket.send(&now.to_be_bytes())?;
            std::thread::sleep(TIMED_GAP);
        }
        Ok(())
    });
    let (late, ()) = tokio::try_join!(receive, send)?;
    Ok(late)
}

fn wait(ready: &Receiver<()>) -> anyhow::Result<()> {
    ready
        .recv_timeout(PATIENCE)
        .context("the receiver does not begin")
}
