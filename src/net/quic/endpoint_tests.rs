//! Real private links on loopback, with ports that the system picks.

use super::*;
use std::future::Future;

use bytes::Bytes;
use tokio::sync::mpsc::Receiver;

use crate::net::control::{CloseReason, ConnectionId, ControlIn, HubOptions, Writer};
use crate::net::{Clock, LinkOptions, SharedUplink, Uplink};

/// Far longer than anything here takes, for machines that are busy.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it happens soon")
}

pub(super) fn identity() -> Identity {
    Identity::from_pem(&Identity::new_pem().unwrap()).unwrap()
}

/// A node's private links and what comes of them.
pub(super) struct Node {
    pub(super) hub: PrivateHub,
    control_hub: ControlHub,
    control: Receiver<ControlIn>,
    pub(super) datagrams: Receiver<PrivateDatagrams>,
}

/// The control side of one connection.
pub(super) struct Talk {
    id: ConnectionId,
    pub(super) writer: Writer,
    pub(super) link: PrivateLink,
}

impl Node {
    pub(super) fn new(identity: &Identity, allowed: &[Fingerprint]) -> Self {
        Self::with(HubOptions::new(Clock::start()), identity, allowed)
    }

    fn with(options: HubOptions, identity: &Identity, allowed: &[Fingerprint]) -> Self {
        Self::at(options, ([127, 0, 0, 1], 0).into(), identity, allowed)
    }

    pub(super) fn listening(
        address: SocketAddr,
        identity: &Identity,
        allowed: &[Fingerprint],
    ) -> Self {
        Self::at(HubOptions::new(Clock::start()), address, identity, allowed)
    }

    fn at(
        options: HubOptions,
        address: SocketAddr,
        identity: &Identity,
        allowed: &[Fingerprint],
    ) -> Self {
        let (control_hub, control) = ControlHub::new(options);
        let bound = BoundQuic::bind(Some(address)).unwrap();
        let options = QuicOptions {
            identity: identity.clone(),
            allowed: allowed.to_vec(),
        };
        let (hub, datagrams) = control_hub.private(bound, options).unwrap();
        Self {
            hub,
            control_hub,
            control,
            datagrams,
        }
    }

    /// As others are told to reach it, under that key.
    fn peer(&self, key: Fingerprint) -> PrivatePeer {
        let target = self.hub.local_addr().to_string();
        PrivatePeer { key, target }
    }

    pub(super) async fn connected(&mut self) -> Talk {
        match soon(self.control.recv()).await {
            Some(ControlIn::Connected {
                id, writer, link, ..
            }) => Talk {
                id,
                writer,
                link: link.expect("a private link has datagrams"),
            },
            other => panic!("no connection but {other:?}"),
        }
    }

    pub(super) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut received = Vec::new();
        while received.len() < count {
            match soon(self.control.recv()).await {
                Some(ControlIn::Bytes { bytes, .. }) => received.extend_from_slice(&bytes),
                Some(ControlIn::Room { .. }) => {}
                other => panic!("no bytes but {other:?}"),
            }
        }
        received
    }

    pub(super) async fn closed(&mut self) -> CloseReason {
        loop {
            match soon(self.control.recv()).await {
                Some(ControlIn::Closed { reason, .. }) => return reason,
                Some(_) => {}
                None => panic!("the hub is gone"),
            }
        }
    }

    /// Waits until its counters are so; each look lets the other tasks run.
    async fn counts(&self, is_so: impl Fn(QuicStats) -> bool) {
        soon(async {
            while !is_so(self.hub.stats()) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// Two nodes that pinned each other, connected; both sides of the connection.
async fn pair() -> (Node, Talk, Node, Talk) {
    let (one, two) = (identity(), identity());
    let mut dialler = Node::new(&one, &[]);
    let mut listener = Node::new(&two, &[one.fingerprint()]);
    let peer = listener.peer(two.fingerprint());
    dialler.hub.keep_connected(peer).unwrap();
    let out = dialler.connected().await;
    // The other side sees the stream once something is on it.
    out.writer.try_send(Bytes::from_static(b"hello")).unwrap();
    let back = listener.connected().await;
    assert_eq!(listener.bytes(5).await, b"hello");
    assert_eq!(out.link.key(), two.fingerprint());
    assert_eq!(back.link.key(), one.fingerprint());
    (dialler, out, listener, back)
}

#[tokio::test]
async fn control_crosses_both_ways_and_the_end_is_heard() {
    let (mut dialler, out, mut listener, back) = pair().await;
    assert_eq!(out.link.remote(), listener.hub.local_addr());
    let large: Vec<u8> = (0..200_000u32).map(|at| at as u8).collect();
    for part in large.chunks(65_000) {
        out.writer.try_send(Bytes::copy_from_slice(part)).unwrap();
        back.writer.try_send(Bytes::copy_from_slice(part)).unwrap();
    }
    assert_eq!(listener.bytes(large.len()).await, large);
    assert_eq!(dialler.bytes(large.len()).await, large);
    back.writer
        .try_send(Bytes::from_static(b"farewell"))
        .unwrap();
    drop(back.writer);
    assert_eq!(dialler.bytes(8).await, b"farewell");
    assert_eq!(dialler.closed().await, CloseReason::PeerClosed);
    assert_eq!(listener.closed().await, CloseReason::Closed);
    dialler.control_hub.stop();
    listener.control_hub.stop();
    drop(out.writer);
    soon(dialler.control_hub.closed()).await;
    soon(listener.control_hub.closed()).await;
}

#[tokio::test]
async fn datagrams_cross_both_ways_and_large_ones_are_dropped() {
    let (mut dialler, out, mut listener, back) = pair().await;
    let full = [7; 1_200];
    out.link.send(&full);
    let came = soon(listener.datagrams.recv()).await.unwrap();
    assert_eq!(
        (came.id, came.datagrams),
        (back.id, vec![Bytes::from_static(&[7; 1_200])])
    );
    back.link.send(&full[..1]);
    let came = soon(dialler.datagrams.recv()).await.unwrap();
    assert_eq!(
        (came.id, came.datagrams),
        (out.id, vec![Bytes::from_static(&[7])])
    );
    out.link.send(&[0; 1_500]);
    out.link.send(&[0; 65_507]);
    let stats = dialler.hub.stats();
    assert_eq!((stats.datagrams_out, stats.too_large), (1, 2));
    assert_eq!((stats.datagrams_in, stats.no_room), (1, 0));
}

#[tokio::test]
async fn what_waits_to_be_sent_is_bounded() {
    let (dialler, out, _listener, _back) = pair().await;
    // Nothing runs between two of these, so that nothing leaves.
    let room = super::super::SEND_BUFFER_BYTES / 1_200;
    for _ in 0..room + 500 {
        out.link.send(&[1; 1_200]);
    }
    let stats = dialler.hub.stats();
    assert!(stats.no_room >= 400, "{stats:?}");
    assert!(stats.datagrams_out as usize <= room + 1, "{stats:?}");
}

#[tokio::test]
async fn an_unpinned_key_is_refused_on_either_side() {
    let (one, two, other) = (identity(), identity(), identity());
    let mut listener = Node::new(&two, &[one.fingerprint()]);
    // The listener does not know the dialler.
    let mut stranger = Node::new(&other, &[]);
    let peer = listener.peer(two.fingerprint());
    let opened = stranger.hub.connect(&peer).await;
    if let Ok(opened) = opened {
        let fate = opened.fate();
        soon(opened.connection.closed()).await;
        assert!(fate.refusal().unwrap().contains("for --quic-allow"));
    }
    listener
        .counts(|stats| stats.refused_keys == 1 && stats.failed_handshakes == 1)
        .await;
    // The dialler meets another key than the pinned one.
    let dialler = Node::new(&one, &[]);
    let wrong = listener.peer(other.fingerprint());
    let refused = dialler.hub.connect(&wrong).await.unwrap_err().to_string();
    let shown = format!("its key is {}, not the pinned one", two.fingerprint());
    assert!(refused.contains(&shown), "{refused}");
    listener.counts(|stats| stats.failed_handshakes == 2).await;
    // Neither came as far as the engine.
    assert_eq!(listener.hub.stats().accepted, 0);
    assert!(listener.control.try_recv().is_err() && stranger.control.try_recv().is_err());
}

/// Dials by hand, with any TLS.
async fn dial_by_hand(listener: &Node, tls: quinn::rustls::ClientConfig) -> ConnectionError {
    let crypto = QuicClientConfig::try_from(tls).unwrap();
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let config = ClientConfig::new(Arc::new(crypto));
    let connecting = endpoint
        .connect_with(config, listener.hub.local_addr(), "x")
        .unwrap();
    match soon(connecting).await {
        Ok(connection) => soon(connection.closed()).await,
        Err(error) => error,
    }
}

/// What a client shows for itself, whoever asks.
#[derive(Debug)]
struct Shown(Option<Arc<quinn::rustls::sign::CertifiedKey>>);

impl quinn::rustls::client::ResolvesClientCert for Shown {
    fn resolve(
        &self,
        _hints: &[&[u8]],
        _schemes: &[quinn::rustls::SignatureScheme],
    ) -> Option<Arc<quinn::rustls::sign::CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

fn alert(error: ConnectionError) -> u64 {
    match error {
        ConnectionError::ConnectionClosed(close) => u64::from(close.error_code) - 0x100,
        other => panic!("no refusal by TLS but {other:?}"),
    }
}

#[tokio::test]
async fn no_certificate_another_protocol_and_a_stolen_certificate_are_refused() {
    let (one, two, thief) = (identity(), identity(), identity());
    let listener = Node::new(&two, &[one.fingerprint()]);
    let good = || pinned::client(&one, two.fingerprint()).unwrap().0;

    // No certificate: certificate_required (RFC 8446 6.2).
    let mut bare = good();
    bare.client_auth_cert_resolver = Arc::new(Shown(None));
    assert_eq!(alert(dial_by_hand(&listener, bare).await), 116);

    // Another protocol: no_application_protocol.
    let mut other = good();
    other.alpn_protocols = vec![b"h3".to_vec()];
    assert_eq!(alert(dial_by_hand(&listener, other).await), 120);

    // The pinned certificate, which is no secret, with another's key: the signature is decrypt_error.
    let key = quinn::rustls::crypto::ring::sign::any_supported_type(&thief.key()).unwrap();
    let stolen = quinn::rustls::sign::CertifiedKey::new(one.chain(), key);
    let mut pretender = good();
    pretender.client_auth_cert_resolver = Arc::new(Shown(Some(Arc::new(stolen))));
    assert_eq!(alert(dial_by_hand(&listener, pretender).await), 51);
    let stats = listener.hub.stats();
    assert_eq!((stats.accepted, stats.refused_keys), (0, 0));
}

#[tokio::test]
async fn a_link_that_ended_is_made_again() {
    let (mut dialler, out, mut listener, back) = pair().await;
    drop(back.writer);
    assert_eq!(dialler.closed().await, CloseReason::PeerClosed);
    drop(out.writer);
    let again = dialler.connected().await;
    again.writer.try_send(Bytes::from_static(b"again")).unwrap();
    assert_eq!(listener.closed().await, CloseReason::Closed);
    let back = listener.connected().await;
    assert_eq!(listener.bytes(5).await, b"again");
    assert_ne!((again.id, back.id), (out.id, again.id));
    assert_eq!(listener.hub.stats().accepted, 2);
}

#[tokio::test]
async fn a_key_has_two_connections_at_most() {
    let (one, two) = (identity(), identity());
    let listener = Node::new(&two, &[one.fingerprint()]);
    let dialler = Node::new(&one, &[]);
    let peer = listener.peer(two.fingerprint());
    let mut held = Vec::new();
    for number in 1..=2 {
        let mut opened = soon(dialler.hub.connect(&peer)).await.unwrap();
        opened.send.write_all(b"x").await.unwrap();
        listener.counts(|stats| stats.accepted == number).await;
        held.push(opened);
    }
    let third = soon(dialler.hub.connect(&peer)).await.unwrap();
    match soon(third.connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => assert_eq!(close.reason, TOO_MANY.1),
        other => panic!("{other:?}"),
    }
    assert_eq!(listener.hub.stats().refused_full, 1);
    // Whoever opens no stream holds no place for longer than a handshake: the dropped ones are gone.
    drop(held);
}

#[tokio::test]
async fn beginners_show_their_address_and_are_counted() {
    let two = identity();
    let node = Node::new(&two, &[]);
    let ip = |last| IpAddr::from([192, 0, 2, last]);
    let mut places = Vec::new();
    for number in 0..MAX_HANDSHAKES {
        let from = ip((number / 2) as u8);
        assert!(matches!(node.hub.admit(from, false), Admitted::AfterRetry));
        match node.hub.admit(from, true) {
            Admitted::Yes(place) => places.push(place),
            _ => panic!("{number}"),
        }
    }
    // They are young, and another address of the crowd comes before their second places, but no third one.
    assert!(matches!(node.hub.admit(ip(1), true), Admitted::No));
    let Admitted::Yes(mut newcomer) = node.hub.admit(ip(200), true) else {
        panic!("nobody made room");
    };
    assert!(newcomer.ended.try_recv() == Err(oneshot::error::TryRecvError::Empty));
    let gone = places.iter_mut().filter_map(|place: &mut Place| {
        let ended = place.ended.try_recv() == Err(oneshot::error::TryRecvError::Closed);
        ended.then_some(place.number)
    });
    assert_eq!(gone.collect::<Vec<_>>(), [0]);
    let stats = node.hub.stats();
    assert_eq!(
        (stats.retries, stats.refused_full),
        (MAX_HANDSHAKES as u64, 1)
    );
}

#[tokio::test]
async fn an_emulated_uplink_delays_and_loses_packets_but_no_control() {
    let (one, two) = (identity(), identity());
    let clock = Clock::start();
    let link = LinkOptions {
        loss_percent: 20.0,
        delay: Duration::from_millis(5),
        ..LinkOptions::default()
    };
    let mut options = HubOptions::new(clock);
    options.uplink = Some(SharedUplink::new(Uplink::new(link, 3).unwrap()));
    let mut dialler = Node::with(options, &one, &[]);
    let mut listener = Node::new(&two, &[one.fingerprint()]);
    dialler
        .hub
        .keep_connected(listener.peer(two.fingerprint()))
        .unwrap();
    let out = dialler.connected().await;
    let text: Vec<u8> = (0..50_000u32).map(|at| at as u8).collect();
    out.writer.try_send(Bytes::copy_from_slice(&text)).unwrap();
    let _back = listener.connected().await;
    assert_eq!(listener.bytes(text.len()).await, text);
    for _ in 0..200 {
        out.link.send(&[9; 1_200]);
    }
    // The stream comes behind the datagrams, and with it what was not lost of them.
    let mut received = 0;
    while received < 100 {
        received += soon(listener.datagrams.recv())
            .await
            .unwrap()
            .datagrams
            .len();
    }
    let uplink = dialler
        .control_hub
        .0
        .options
        .uplink
        .as_ref()
        .unwrap()
        .lock()
        .stats();
    assert!(uplink.lost > 10, "{uplink:?}");
}
