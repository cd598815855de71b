//! A TCP connection beside the relay, which carries what the links give it: what the relay leaves to others, and what they
//! leave to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::net::Net;
use super::switch::address_of;

/// How long it runs before it is measured alone: a slow start of 100 ms round trips, and what its overshoot costs.
const GROWS: Duration = Duration::from_secs(3);
/// How long it is measured alone: two of CUBIC's cycles at a megabyte in flight.
const ALONE: Duration = Duration::from_secs(4);
/// How long a connection may take to be made.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that are written and read at once.
const PIECE: usize = 64 << 10;

/// What a TCP connection carried alone, and beside the relay.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Beside {
    /// The node that sends.
    pub from: usize,
    /// The node that receives.
    pub to: usize,
    /// Mbit/s of payload before the first block.
    pub alone_mbit: f64,
    /// Mbit/s of payload from the first block's submission until all had all blocks.
    pub beside_mbit: f64,
    /// Seconds of that.
    pub seconds: f64,
}

/// A connection that is never done. Dropped, it ends.
#[derive(Debug)]
pub struct Flow {
    way: (usize, usize),
    arrived: Arc<AtomicU64>,
    ends: [JoinHandle<()>; 2],
    alone_mbit: f64,
}

/// Bytes that had arrived at a time.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64, Instant);

impl Flow {
    /// Connects two nodes' places, and measures what the connection carries while nothing is relayed.
    ///
    /// # Errors
    ///
    /// One line: the places are not neighbours, or nothing arrives.
    pub async fn start(net: &Net, way: (usize, usize)) -> anyhow::Result<Self> {
        let (from, to) = way;
        let listener = net.place(to)?.run(async move {
            let listener = TcpListener::bind((address_of(to), 0)).await;
            let listener = listener.context("no TCP beside the relay: can't listen")?;
            let address = listener.local_addr().context("no TCP beside the relay")?;
            Ok((listener, address))
        });
        let (listener, address) = listener.await?;
        let arrived = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&arrived);
        let receives = net.place(to)?.spawn(async move {
            if let Ok((stream, _)) = listener.accept().await {
                count(stream, &counted).await;
            }
        });
        let stream = net.place(from)?.run(connect(address)).await;
        let sends = net.place(from)?.spawn(fill(stream?));
        let mut flow = Self {
            way,
            arrived,
            ends: [receives, sends],
            alone_mbit: 0.0,
        };
        sleep(GROWS).await;
        let mark = flow.mark();
        sleep(ALONE).await;
        flow.alone_mbit = flow.since(mark).0;
        anyhow::ensure!(
            flow.alone_mbit > 0.0,
            "no TCP beside the relay: nothing arrives from node {from} at node {to}"
        );
        Ok(flow)
    }

    /// What has arrived by now.
    pub fn mark(&self) -> Mark {
        Mark(self.arrived.load(Ordering::Relaxed), Instant::now())
    }

    /// What the connection carried since.
    pub fn beside(&self, mark: Mark) -> Beside {
        let (beside_mbit, seconds) = self.since(mark);
        Beside {
            from: self.way.0,
            to: self.way.1,
            alone_mbit: self.alone_mbit,
            beside_mbit,
            seconds,
        }
    }

    /// Mbit/s since, and for how many seconds.
    fn since(&self, Mark(before, then): Mark) -> (f64, f64) {
        let Mark(after, now) = self.mark();
        let seconds = now.duration_since(then).as_secs_f64();
        let bits = (after - before) as f64 * 8.0;
        (bits / 1e6 / seconds.max(1e-6), seconds)
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.ends.iter().for_each(JoinHandle::abort);
    }
}

async fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = timeout(PATIENCE, TcpStream::connect(address)).await;
    let stream = stream.context("no TCP beside the relay: the other does not answer")?;
    stream.context("no TCP beside the relay: can't connect")
}

/// Writes as much as the connection takes, until it breaks.
async fn fill(mut stream: TcpStream) {
    let piece = vec![0; PIECE];
    while stream.write_all(&piece).await.is_ok() {}
}

/// Counts what arrives, until the connection ends.
async fn count(mut stream: TcpStream, arrived: &AtomicU64) {
    let mut piece = vec![0; PIECE];
    while let Ok(bytes @ 1..) = stream.read(&mut piece).await {
        arrived.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
