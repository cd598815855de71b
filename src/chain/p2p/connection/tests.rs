//! Connections over loopback.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::chain::Network;
use crate::chain::p2p::{Direction, Role, samples};
use bitcoin::consensus::serialize;

type Events = mpsc::Receiver<(ConnectionId, PeerEvent)>;

fn wiring(
    queue: usize,
) -> (
    Wiring<impl Fn() -> Time + Clone + Send + Sync + 'static>,
    Events,
) {
    let (events, received) = mpsc::channel(queue);
    let start = Instant::now();
    let clock = move || Time::from_unix_seconds(1_700_000_000) + start.elapsed();
    let tally = Arc::default();
    let wiring = Wiring {
        events,
        clock,
        tally,
    };
    (wiring, received)
}

fn config(direction: Direction, remote: SocketAddr, v2: V2) -> PeerConfig {
    PeerConfig {
        network: Network::Regtest,
        direction,
        role: Role::OurNode,
        services: 1 << 10 | 1 << 3,
        flag: 1 << 30,
        agent: "/test:1/".into(),
        start_height: 0,
        advert: None,
        nonce: 0,
        v2,
        relay_transactions: true,
        remote,
    }
}

async fn next(events: &mut Events) -> PeerEvent {
    let event = timeout(Duration::from_secs(20), events.recv()).await;
    event.expect("in time").expect("the task lives").1
}

async fn next_but_reports(events: &mut Events) -> PeerEvent {
    loop {
        match next(events).await {
            PeerEvent::Report(_) => {}
            event => return event,
        }
    }
}

#[tokio::test]
async fn blocks_cross_both_transports_through_short_queues() {
    for v2 in [V2::Off, V2::Try] {
        let limits = InboundLimits::default();
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), limits).await;
        let listener = listener.expect("loopback can be listened on");
        let remote = listener.local_addr().expect("it is bound");
        let (a_wiring, mut a_events) = wiring(1);
        let (b_wiring, mut b_events) = wiring(1);
        let a = dial(
            config(Direction::Outbound, remote, v2),
            ConnectionId(1),
            a_wiring,
        );
        let accepted = listener.accept().await;
        let remote = accepted.remote;
        let inbound = config(Direction::Inbound, remote, V2::Accept);
        let b = serve(accepted, inbound, ConnectionId(2), b_wiring);
        let PeerEvent::Ready(info) = next(&mut a_events).await else {
            panic!("not ready");
        };
        assert_eq!(info.v2, v2 == V2::Try);
        assert!(matches!(next(&mut b_events).await, PeerEvent::Ready(_)));
        let block = samples::block(200);
        let hash = block.block_hash();
        let block = Bytes::from(serialize(&block));
        for _ in 0..20 {
            let block = block.clone();
            b.commands
                .send(PeerCommand::PushBlock { hash, block })
                .await
                .expect("it lives");
        }
        for _ in 0..20 {
            let expected = PeerEvent::Block {
                hash,
                block: block.clone(),
            };
            assert_eq!(next_but_reports(&mut a_events).await, expected);
        }
        drop(a);
        let PeerEvent::Closed(reason) = next_but_reports(&mut b_events).await else {
            panic!("it goes on");
        };
        // The system resets a connection in which something lies unread, such as a ping.
        let is_reset = matches!(&reason, CloseReason::Failed(why) if why.contains("reset"));
        assert!(reason == CloseReason::Remote || is_reset, "{reason}");
    }
}

#[tokio::test]
async fn who_knows_only_the_old_transport_is_dialled_again() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback");
    let remote = listener.local_addr().expect("it is bound");
    let (wiring, mut events) = wiring(8);
    let outbound = config(Direction::Outbound, remote, V2::Try);
    let _connection = dial(outbound, ConnectionId(1), wiring);
    let (first, _) = listener.accept().await.expect("dialled");
    drop(first);
    let (mut second, _) = listener.accept().await.expect("dialled again");
    let mut magic = [0; 4];
    second.read_exact(&mut magic).await.expect("it speaks");
    assert_eq!(magic, Network::Regtest.magic());
    second.write_all(b"nonsense").await.expect("it listens");
    assert_eq!(
        next(&mut events).await,
        PeerEvent::Closed(CloseReason::WrongMagic)
    );
    drop(listener);
    let (wiring, mut events) = self::wiring(8);
    let outbound = config(Direction::Outbound, remote, V2::Try);
    let _connection = dial(outbound, ConnectionId(2), wiring);
    let closed = next(&mut events).await;
    assert!(
        matches!(closed, PeerEvent::Closed(CloseReason::Unreachable(_))),
        "{closed:?}"
    );
}
