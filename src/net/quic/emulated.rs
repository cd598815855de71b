//! A UDP socket behind an emulated uplink: whole QUIC packets are lost and delayed, acknowledgements included.
//!
//! For the demo and for tests, as [`UdpPort`](crate::net::UdpPort) does it for bare datagrams.

use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::mpsc;

use crate::net::clock::Clock;
use crate::net::emulate::{Fate, SharedUplink};
use crate::net::timer::Timer;
use crate::time::Time;

/// Packets on their way through the emulated link: 100 ms at 1 Gbit/s. What is beyond is dropped.
const MAX_PACKETS: usize = 8_192;

/// A packet on its way.
#[derive(Debug)]
struct Packet {
    due: Time,
    to: SocketAddr,
    from: Option<IpAddr>,
    bytes: Vec<u8>,
}

/// The socket that QUIC writes to.
#[derive(Debug)]
struct Emulated {
    inner: Arc<dyn AsyncUdpSocket>,
    uplink: SharedUplink,
    clock: Clock,
    line: mpsc::Sender<Packet>,
}

/// Puts `uplink` before `inner`, on the present runtime.
///
/// # Errors
///
/// The system has no descriptor for the timer.
pub(super) fn emulated(
    inner: Arc<dyn AsyncUdpSocket>,
    uplink: SharedUplink,
    clock: Clock,
) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    let (line, packets) = mpsc::channel(MAX_PACKETS);
    let timer = Timer::new(clock)?;
    tokio::spawn(carry(Arc::clone(&inner), clock, timer, packets));
    Ok(Arc::new(Emulated {
        inner,
        uplink,
        clock,
        line,
    }))
}

/// Sends each packet when it would arrive, in order, until the socket is dropped.
async fn carry(
    socket: Arc<dyn AsyncUdpSocket>,
    clock: Clock,
    mut timer: Timer,
    mut packets: mpsc::Receiver<Packet>,
) -> io::Result<()> {
    let mut poller = Arc::clone(&socket).create_io_poller();
    while let Some(packet) = packets.recv().await {
        if clock.now() < packet.due {
            timer.set(Some(packet.due))?;
            timer.expired().await?;
        }
        let transmit = Transmit {
            destination: packet.to,
            ecn: None,
            contents: &packet.bytes,
            segment_size: None,
            src_ip: packet.from,
        };
        while let Err(error) = socket.try_send(&transmit) {
            if error.kind() != io::ErrorKind::WouldBlock {
                break;
            }
            poll_fn(|context| poller.as_mut().poll_writable(context)).await?;
        }
    }
    Ok(())
}

impl AsyncUdpSocket for Emulated {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let size = transmit.segment_size.unwrap_or(transmit.contents.len());
        for bytes in transmit.contents.chunks(size.max(1)) {
            let fate = self.uplink.lock().datagram(self.clock.now(), bytes.len());
            let Fate::Arrives(due) = fate else { continue };
            let packet = Packet {
                due,
                to: transmit.destination,
                from: transmit.src_ip,
                bytes: bytes.to_vec(),
            };
            // A full line is a lost packet.
            self.line.try_send(packet).ok();
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(context, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}
