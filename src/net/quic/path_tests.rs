//! Private links over a path that somebody else carries: what crosses it is looked at, and some of it is lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::tests::{Node, identity, soon};
use super::*;
use crate::net::quic::PACKET_BYTES;

/// A Retry packet's first byte: a long header of type 3 (RFC 9000 17.2.5).
fn is_retry(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first & 0xf0 == 0xf0)
}

/// A path between one dialler and a listener.
struct Path {
    address: SocketAddr,
    /// Retry packets that the listener has sent.
    retries: Arc<AtomicUsize>,
    /// Packets that were too large for the path.
    lost: Arc<AtomicUsize>,
    carrier: JoinHandle<()>,
}

impl Path {
    /// One that carries packets of up to `most` bytes of UDP payload to `listener` and back.
    async fn new(listener: SocketAddr, most: usize) -> Self {
        let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        far.connect(listener).await.unwrap();
        let address = near.local_addr().unwrap();
        let (retries, lost) = (Arc::default(), Arc::default());
        let carrier = tokio::spawn(carry(
            near,
            far,
            most,
            Arc::clone(&retries),
            Arc::clone(&lost),
        ));
        Self {
            address,
            retries,
            lost,
            carrier,
        }
    }

    fn peer(&self, key: Fingerprint) -> PrivatePeer {
        PrivatePeer {
            key,
            target: self.address.to_string(),
        }
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.carrier.abort();
    }
}

async fn carry(
    near: UdpSocket,
    far: UdpSocket,
    most: usize,
    retries: Arc<AtomicUsize>,
    lost: Arc<AtomicUsize>,
) {
    let mut dialler = None;
    let (mut there, mut back) = ([0; 65_536], [0; 65_536]);
    loop {
        // What fails on loopback is as good as lost.
        let (to, packet) = tokio::select! {
            Ok((len, from)) = near.recv_from(&mut there) => {
                dialler = Some(from);
                (None, &there[..len])
            }
            Ok(len) = far.recv(&mut back) => (dialler, &back[..len]),
        };
        if packet.len() > most {
            lost.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        match to {
            Some(to) => {
                if is_retry(packet) {
                    retries.fetch_add(1, Ordering::Relaxed);
                }
                near.send_to(packet, to).await.ok();
            }
            None => {
                far.send(packet).await.ok();
            }
        }
    }
}

#[tokio::test]
async fn a_beginner_shows_its_address_and_is_taken() {
    let (one, two) = (identity(), identity());
    let mut listener = Node::new(&two, &[one.fingerprint()]);
    let mut dialler = Node::new(&one, &[]);
    let path = Path::new(listener.hub.local_addr(), usize::MAX).await;
    dialler
        .hub
        .keep_connected(path.peer(two.fingerprint()))
        .unwrap();
    let out = dialler.connected().await;
    out.writer.try_send(Bytes::from_static(b"hello")).unwrap();
    let _back = listener.connected().await;
    assert_eq!(listener.bytes(5).await, b"hello");
    assert!(path.retries.load(Ordering::Relaxed) >= 1);
    let stats = listener.hub.stats();
    assert!(stats.retries >= 1 && stats.accepted == 1, "{stats:?}");
}

/// Begins a handshake with `listener` from `source`, shows its address, and then says nothing more. Gives the end that
/// the client has to be kept for.
#[cfg(target_os = "linux")]
async fn half_open(client: &PrivateHub, key: Fingerprint, listener: SocketAddr, source: IpAddr) {
    let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let far = UdpSocket::bind((source, 0)).await.unwrap();
    far.connect(listener).await.unwrap();
    let (config, _) = client.client_config(key).unwrap();
    let target = near.local_addr().unwrap();
    let connecting = client.0.endpoint.connect_with(config, target, SERVER_NAME);
    let carrier = async {
        let mut packet = [0; 2_048];
        let (len, dialler) = near.recv_from(&mut packet).await.unwrap();
        far.send(&packet[..len]).await.unwrap();
        let len = far.recv(&mut packet).await.unwrap();
        assert!(is_retry(&packet[..len]));
        near.send_to(&packet[..len], dialler).await.unwrap();
        let (len, _) = near.recv_from(&mut packet).await.unwrap();
        far.send(&packet[..len]).await.unwrap();
        // What the listener says now is heard by nobody.
        tokio::time::sleep(Duration::from_secs(60)).await;
    };
    tokio::join!(carrier, async { connecting.unwrap().await.ok() });
}

/// 110 handshakes a second that nobody finishes, from 40 addresses, once took all places for their whole time.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn half_open_handshakes_keep_no_pinned_peer_waiting() {
    let (one, two) = (identity(), identity());
    let listener = Node::new(&two, &[one.fingerprint()]);
    let flooder = Node::new(&identity(), &[]);
    let (client, key) = (flooder.hub.clone(), two.fingerprint());
    let address = listener.hub.local_addr();
    let flood = tokio::spawn(async move {
        let mut half_opens = tokio::task::JoinSet::new();
        let mut ticks = tokio::time::interval(Duration::from_millis(9));
        for number in 0u32.. {
            ticks.tick().await;
            let source = IpAddr::from([127, 0, 1, (number % 40) as u8 + 1]);
            let client = client.clone();
            half_opens.spawn(async move { half_open(&client, key, address, source).await });
        }
    });
    let is_full = |hub: &PrivateHub| hub.state().handshakes.len() == MAX_HANDSHAKES;
    soon(async {
        while !is_full(&listener.hub) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let dialler = Node::new(&one, &[]);
    let peer = PrivatePeer {
        key,
        target: address.to_string(),
    };
    let mut longest = Duration::ZERO;
    for _ in 0..5 {
        let began = std::time::Instant::now();
        let mut opened = soon(dialler.hub.connect(&peer)).await.unwrap();
        opened.send.write_all(b"x").await.unwrap();
        let accepted = listener.hub.stats().accepted;
        soon(async {
            while listener.hub.stats().accepted == accepted {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        longest = longest.max(began.elapsed());
        drop(opened);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(is_full(&listener.hub), "the flood goes on");
    flood.abort();
    eprintln!("the longest of 5 took {longest:?}");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}

/// As after `kill -9` of the other side: what held no byte to say so is found dead by its silence, and dialled anew.
#[tokio::test]
async fn a_link_whose_other_side_vanished_is_soon_dialled_anew() {
    let (one, two) = (identity(), identity());
    let mut listener = Node::new(&two, &[one.fingerprint()]);
    let mut dialler = Node::new(&one, &[]);
    let path = Path::new(listener.hub.local_addr(), usize::MAX).await;
    let target = path.address;
    dialler
        .hub
        .keep_connected(path.peer(two.fingerprint()))
        .unwrap();
    let out = dialler.connected().await;
    out.writer.try_send(Bytes::from_static(b"hello")).unwrap();
    let _back = listener.connected().await;
    assert_eq!(listener.bytes(5).await, b"hello");
    let silent_since = std::time::Instant::now();
    path.carrier.abort();
    dialler.closed().await;
    drop(out.writer);
    // Whoever listens there now is another process with the same key.
    let mut again = Node::listening(target, &two, &[one.fingerprint()]);
    let out = dialler.connected().await;
    out.writer.try_send(Bytes::from_static(b"again")).unwrap();
    let _back = again.connected().await;
    assert_eq!(again.bytes(5).await, b"again");
    let down = silent_since.elapsed();
    eprintln!("down for {down:?}");
    assert!(down < Duration::from_secs(9), "{down:?}");
}

#[tokio::test]
async fn stray_packets_collect_no_reset_tokens() {
    let listener = Node::new(&identity(), &[]);
    let stray = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    stray.connect(listener.hub.local_addr()).await.unwrap();
    let mut answer = [0; 2_048];
    let mut resets = 0;
    for id in 0..6u8 {
        // A short header (RFC 9000 17.3) and a connection id that nobody has.
        let mut packet = [0x55; 100];
        packet[1..3].copy_from_slice(&[0xa0, id]);
        stray.send(&packet).await.unwrap();
        let wait = Duration::from_millis(if id == 0 { 5_000 } else { 50 });
        resets += usize::from(timeout(wait, stray.recv(&mut answer)).await.is_ok());
    }
    assert_eq!(resets, 1);
}

#[tokio::test]
async fn the_smallest_path_of_ipv6_carries_whole_datagrams_and_a_smaller_one_no_link() {
    let (one, two) = (identity(), identity());
    let mut listener = Node::new(&two, &[one.fingerprint()]);
    let mut dialler = Node::new(&one, &[]);
    let narrow = Path::new(listener.hub.local_addr(), usize::from(PACKET_BYTES) - 1).await;
    let peer = narrow.peer(two.fingerprint());
    let attempt = dialler.hub.connect(&peer);
    // Its first packet is lost, and each copy of it.
    let gives_up = async {
        while narrow.lost.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = gives_up => {}
        _ = attempt => panic!("nothing can answer"),
    }
    let path = Path::new(listener.hub.local_addr(), usize::from(PACKET_BYTES)).await;
    dialler
        .hub
        .keep_connected(path.peer(two.fingerprint()))
        .unwrap();
    let out = dialler.connected().await;
    let text: Vec<u8> = (0..60_000u32).map(|at| at as u8).collect();
    out.writer.try_send(Bytes::copy_from_slice(&text)).unwrap();
    let _back = listener.connected().await;
    assert_eq!(listener.bytes(text.len()).await, text);
    out.link.send(&[7; 1_200]);
    let came = soon(listener.datagrams.recv()).await.unwrap();
    assert_eq!(came.datagrams, vec![Bytes::from_static(&[7; 1_200])]);
}

#[tokio::test]
async fn a_peer_that_takes_no_whole_datagram_is_sent_none() {
    let (one, two) = (identity(), identity());
    let mut listener = Node::new(&two, &[one.fingerprint()]);
    let dialler = Node::new(&one, &[]);
    // Another implementation, which has less room.
    let (mut config, _) = dialler.hub.client_config(two.fingerprint()).unwrap();
    let mut transport = quinn::TransportConfig::default();
    transport.datagram_receive_buffer_size(Some(1_100));
    config.transport_config(Arc::new(transport));
    let endpoint = &dialler.hub.0.endpoint;
    let connecting = endpoint
        .connect_with(config, listener.hub.local_addr(), SERVER_NAME)
        .unwrap();
    let connection = soon(connecting).await.unwrap();
    let (mut send, mut receive) = soon(connection.open_bi()).await.unwrap();
    send.write_all(b"hello").await.unwrap();
    let back = listener.connected().await;
    assert_eq!(listener.bytes(5).await, b"hello");
    back.link.send(&[7; 1_200]);
    // Small ones neither: whoever sees them arrive takes the path to carry all.
    back.link.send(&[7; 100]);
    let stats = listener.hub.stats();
    assert_eq!((stats.too_large, stats.datagrams_out), (2, 0));
    back.writer
        .try_send(Bytes::from_static(b"on the stream"))
        .unwrap();
    let mut answer = [0; 13];
    soon(receive.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"on the stream");
}
