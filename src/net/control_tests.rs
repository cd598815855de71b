//! Real connections on loopback, with ports that the system picks.

use super::*;
use crate::net::{LinkOptions, Uplink};
use std::future::Future;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

/// Far longer than anything here takes, for machines that are busy.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it happens soon")
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A hub that listens, its address, and its events.
fn hub(options: HubOptions) -> (ControlHub, SocketAddr, Receiver<ControlIn>) {
    let (hub, events) = ControlHub::new(options);
    let bound = BoundControl::bind(loopback()).expect("loopback has ports");
    let address = bound.local_addr();
    hub.listen(bound).expect("a descriptor is free");
    (hub, address, events)
}

fn plain() -> (ControlHub, SocketAddr, Receiver<ControlIn>) {
    hub(HubOptions::new(Clock::start()))
}

async fn connected(events: &mut Receiver<ControlIn>) -> (ConnectionId, SocketAddr, Writer) {
    match soon(events.recv()).await {
        Some(ControlIn::Connected {
            id, remote, writer, ..
        }) => (id, remote, writer),
        other => panic!("no connection but {other:?}"),
    }
}

async fn closed(events: &mut Receiver<ControlIn>) -> CloseReason {
    loop {
        match soon(events.recv()).await {
            Some(ControlIn::Closed { reason, .. }) => return reason,
            Some(_) => {}
            None => panic!("the hub is gone"),
        }
    }
}

/// Collects `count` bytes of one connection.
async fn bytes(events: &mut Receiver<ControlIn>, count: usize) -> Vec<u8> {
    let mut received = Vec::new();
    while received.len() < count {
        match soon(events.recv()).await {
            Some(ControlIn::Bytes { bytes, .. }) => {
                assert!(bytes.len() <= connection::READ_BYTES);
                received.extend_from_slice(&bytes);
            }
            other => panic!("no bytes but {other:?}"),
        }
    }
    received
}

#[tokio::test]
async fn two_hubs_connect_speak_and_part() {
    let (server, address, mut at_server) = plain();
    let (client, _, mut at_client) = plain();
    let id = soon(client.connect(&address.to_string()))
        .await
        .expect("it listens");
    let (client_id, remote, to_server) = connected(&mut at_client).await;
    assert_eq!((client_id, remote), (id, address));
    let (_, _, to_client) = connected(&mut at_server).await;
    assert_eq!((client.open(), server.open()), (1, 1));

    let large: Vec<u8> = (0..200_000u32).map(|at| at as u8).collect();
    for part in large.chunks(65_000) {
        to_server
            .try_send(Bytes::copy_from_slice(part))
            .expect("there is room");
    }
    for _ in 0..100 {
        to_client
            .try_send(Bytes::from_static(b"small "))
            .expect("there is room");
    }
    assert_eq!(bytes(&mut at_server, large.len()).await, large);
    assert_eq!(bytes(&mut at_client, 600).await, b"small ".repeat(100));

    to_server
        .try_send(Bytes::from_static(b"farewell"))
        .expect("there is room");
    drop(to_server);
    assert_eq!(bytes(&mut at_server, 8).await, b"farewell");
    assert_eq!(closed(&mut at_server).await, CloseReason::PeerClosed);
    drop(to_client);
    assert_eq!(closed(&mut at_client).await, CloseReason::Closed);
    client.stop();
    soon(client.closed()).await;
    soon(server.closed()).await;
}

#[tokio::test]
async fn a_peer_that_never_reads_fills_its_own_writer_only() {
    let (_hub, address, mut events) = plain();
    let silent = TcpStream::connect(address).await.expect("it listens");
    let (id, _, writer) = connected(&mut events).await;
    let message = Bytes::from(vec![7; 60_000]);
    let mut sent = 0;
    // Until the buffers of the system are full too: no room, and none for a while.
    loop {
        if writer.try_send(message.clone()).is_ok() {
            sent += 1;
            assert!(sent < 2_000, "a peer that never reads makes us hold 120 MB");
            assert!(
                writer.queued_bytes() <= MAX_WRITE_BYTES + message.len() + WRITE_OVERHEAD_BYTES
            );
            continue;
        }
        match timeout(Duration::from_millis(300), events.recv()).await {
            Ok(Some(ControlIn::Room { id: of })) => assert_eq!(of, id),
            Ok(other) => panic!("no room but {other:?}"),
            Err(_) => break,
        }
    }
    assert!(!writer.try_room());
    assert_eq!(writer.try_send(message.clone()), Err(message.clone()));

    // It reads after all: the writer says that there is room.
    let mut silent = silent;
    let mut sink = vec![0; 1 << 20];
    let mut read = 0;
    let room = async {
        loop {
            tokio::select! {
                count = silent.read(&mut sink) => read += count.expect("the peer is there"),
                event = events.recv() => {
                    assert!(matches!(event, Some(ControlIn::Room { .. })), "{event:?}");
                    return;
                }
            }
        }
    };
    soon(room).await;
    assert!(writer.try_room());
    // Everything sent arrives.
    drop(writer);
    let rest = async {
        loop {
            match silent.read(&mut sink).await.expect("the peer is there") {
                0 => return,
                count => read += count,
            }
        }
    };
    soon(rest).await;
    assert_eq!(read, sent * message.len());
}

#[tokio::test]
async fn many_small_messages_are_bounded_too() {
    let (_hub, address, mut events) = plain();
    let _silent = TcpStream::connect(address).await.expect("it listens");
    let (_, _, writer) = connected(&mut events).await;
    // Without a turn for the writing task nothing is written.
    let mut taken = 0;
    while writer.try_send(Bytes::from_static(b"x")).is_ok() {
        taken += 1;
    }
    assert_eq!(taken, MAX_WRITE_BYTES.div_ceil(WRITE_OVERHEAD_BYTES + 1));
}

#[tokio::test]
async fn a_peer_that_floods_is_held_back_and_holds_back_no_other() {
    let (_hub, address, mut events) = plain();
    let mut flood = TcpStream::connect(address).await.expect("it listens");
    let (_, _, _writer) = connected(&mut events).await;
    let chunk = vec![1; 1 << 20];
    let mut written: usize = 0;
    // What the channel and the system's buffers hold, and no more.
    while let Ok(count) = timeout(Duration::from_millis(500), flood.write(&chunk)).await {
        written += count.expect("the peer is there");
        assert!(written < 64 << 20, "the flood is taken without end");
    }
    assert_eq!(events.len(), MAX_READS);
    // Another peer is heard, though the engine has taken nothing of the first.
    let mut other = TcpStream::connect(address).await.expect("it listens");
    other.write_all(b"hello").await.expect("it is taken");
    let mut held = Vec::new();
    loop {
        match soon(events.recv()).await.expect("the hub is there") {
            ControlIn::Bytes { bytes, .. } if bytes.as_ref() == b"hello" => break,
            event => held.push(event),
        }
    }
    assert_eq!(held.len(), MAX_READS + 1, "and that the other connected");
}

#[tokio::test]
async fn a_closed_connection_does_not_wait_forever_for_a_peer_that_never_reads() {
    let (hub, address, mut events) = plain();
    let _silent = TcpStream::connect(address).await.expect("it listens");
    let (_, _, writer) = connected(&mut events).await;
    let message = Bytes::from(vec![7; 60_000]);
    // More than the system's buffers take in one go.
    let stuck = async {
        loop {
            if writer.try_send(message.clone()).is_err()
                && timeout(Duration::from_millis(300), events.recv())
                    .await
                    .is_err()
            {
                return;
            }
        }
    };
    soon(stuck).await;
    drop(writer);
    let began = Instant::now();
    assert_eq!(closed(&mut events).await, CloseReason::Unflushed);
    assert!(began.elapsed() < connection::FLUSH_TIME * 3);
    soon(hub.closed()).await;
}

#[tokio::test]
async fn limits_close_what_is_too_much_and_places_come_back() {
    let mut options = HubOptions::new(Clock::start());
    options.max_inbound = 2;
    let (hub, address, mut events) = hub(options);
    let first = TcpStream::connect(address).await.expect("it listens");
    let _second = TcpStream::connect(address).await.expect("it listens");
    let (_, _, _one) = connected(&mut events).await;
    let (_, _, _two) = connected(&mut events).await;
    let mut third = TcpStream::connect(address).await.expect("it listens");
    let refused = soon(third.read(&mut [0; 1])).await;
    assert!(matches!(refused, Ok(0) | Err(_)), "{refused:?}");
    assert_eq!((hub.stats().accepted, hub.stats().refused_total), (2, 1));
    drop(first);
    assert_eq!(closed(&mut events).await, CloseReason::PeerClosed);
    let _fourth = TcpStream::connect(address).await.expect("it listens");
    connected(&mut events).await;
}

#[tokio::test]
async fn refused_and_unreachable_targets_give_one_line() {
    let (hub, _, _events) = plain();
    let unused = BoundControl::bind(loopback())
        .expect("loopback has ports")
        .local_addr();
    let error = soon(hub.connect(&unused.to_string()))
        .await
        .expect_err("nobody listens");
    assert_eq!(error.source.kind(), io::ErrorKind::ConnectionRefused);
    let line = error.to_string();
    assert!(
        line.contains(&unused.to_string()) && line.contains("check"),
        "{line}"
    );
    assert_eq!(hub.stats().connect_errors, 1);
    let error = soon(hub.connect("nonsense")).await.expect_err("no address");
    assert!(error.to_string().contains("give an address"), "{error}");
}

/// A listener whose backlog is full answers no more: the attempt ends by itself.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn connecting_to_the_silent_ends_in_time() {
    let (hub, _, _events) = plain();
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
        .expect("a descriptor is free");
    listener
        .bind(&loopback().into())
        .expect("loopback has ports");
    listener.listen(0).expect("it is bound");
    let address = listener
        .local_addr()
        .expect("it is bound")
        .as_socket()
        .expect("it is IPv4");
    let _fill = TcpStream::connect(address)
        .await
        .expect("the backlog takes one");
    let began = Instant::now();
    let error = soon(hub.connect(&address.to_string()))
        .await
        .expect_err("nobody accepts");
    assert_eq!(error.source.kind(), io::ErrorKind::TimedOut);
    assert!(began.elapsed() >= dial::CONNECT_TIME - Duration::from_millis(50));
    assert!(
        error.to_string().contains("no answer within 5 s"),
        "{error}"
    );
}

#[tokio::test]
async fn a_kept_target_is_connected_once_it_is_there_and_again_after_it_went() {
    let (client, mut at_client) = ControlHub::new(HubOptions::new(Clock::start()));
    let bound = BoundControl::bind(loopback()).expect("loopback has ports");
    let address = bound.local_addr();
    drop(bound);
    let target = address.to_string();
    client.keep_connected(&target).expect("it is an address");
    let again = client.keep_connected(&target).expect_err("it is kept");
    assert!(again.to_string().contains("already"), "{again}");
    assert_eq!(client.kept(), std::slice::from_ref(&target));
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(client.stats().connect_errors > 0);
    let failures = client.failures();
    assert!(
        matches!(failures.as_slice(), [(of, why)] if *of == target && why.contains("refused")),
        "{failures:?}"
    );

    let (server, mut at_server) = ControlHub::new(HubOptions::new(Clock::start()));
    server
        .listen(BoundControl::bind(address).expect("it was free"))
        .expect("a descriptor is free");
    for _ in 0..2 {
        let (_, remote, writer) = connected(&mut at_client).await;
        assert_eq!(remote, address);
        assert_eq!(client.failures(), []);
        let (_, _, server_writer) = connected(&mut at_server).await;
        drop(server_writer);
        assert_eq!(closed(&mut at_client).await, CloseReason::PeerClosed);
        drop(writer);
        closed(&mut at_server).await;
    }
    assert!(client.forget(&target) && !client.forget(&target));
    assert!(client.kept().is_empty());
}

#[tokio::test]
async fn a_target_that_never_makes_sense_is_given_up() {
    let (client, mut at_client) = ControlHub::new(HubOptions::new(Clock::start()));
    let (_server, address, mut at_server) = plain();
    let target = address.to_string();
    client.keep_connected(&target).expect("it is an address");
    let (_, _, writer) = connected(&mut at_client).await;
    writer.close(Verdict::Refused("not now"));
    closed(&mut at_client).await;
    let (_, _, writer) = connected(&mut at_client).await;
    let _both = [
        connected(&mut at_server).await,
        // What the first connection brought comes before the second.
        loop {
            match soon(at_server.recv()).await {
                Some(ControlIn::Connected {
                    id, remote, writer, ..
                }) => break (id, remote, writer),
                Some(_) => {}
                None => panic!("the hub is gone"),
            }
        },
    ];
    writer.close(Verdict::Never("never"));
    let given_up = async {
        while !client.kept().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    soon(given_up).await;
}

#[tokio::test]
async fn a_stopped_hub_takes_and_makes_no_connections() {
    let (hub, address, _events) = plain();
    hub.stop();
    let refused = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(refused).await;
    assert!(matches!(
        hub.keep_connected("127.0.0.1:1"),
        Err(dial::KeepError::Stopped)
    ));
    soon(hub.closed()).await;
}

#[tokio::test]
async fn a_port_in_use_gives_one_line_that_helps() {
    let first = BoundControl::bind(loopback()).expect("loopback has ports");
    let error = BoundControl::bind(first.local_addr()).expect_err("in use");
    let line = error.to_string();
    assert!(line.contains(&first.local_addr().to_string()), "{line}");
    assert!(
        line.contains("in use") && line.contains("--control-listen"),
        "{line}"
    );
}

#[tokio::test]
async fn an_emulated_link_delays_and_slows_a_stream() {
    let clock = Clock::start();
    let mut options = HubOptions::new(clock);
    let link = LinkOptions {
        delay: Duration::from_millis(40),
        rate_bits_per_s: Some(12_000_000),
        queue_bytes: Some(3_000),
        ..LinkOptions::default()
    };
    options.uplink = Some(SharedUplink::new(Uplink::new(link, 1).expect("in range")));
    let (client, mut at_client) = ControlHub::new(options);
    let (_server, address, mut at_server) = plain();
    soon(client.connect(&address.to_string()))
        .await
        .expect("it listens");
    let (_, _, writer) = connected(&mut at_client).await;
    let (_, _, _reply) = connected(&mut at_server).await;
    // One hundred segments of a millisecond each.
    let message: Vec<u8> = (0..144_800u32).map(|at| (at / 7) as u8).collect();
    let began = Instant::now();
    writer
        .try_send(Bytes::from(message.clone()))
        .expect("there is room");
    drop(writer);
    assert_eq!(bytes(&mut at_server, message.len()).await, message);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(140), "{took:?}");
    assert_eq!(closed(&mut at_server).await, CloseReason::PeerClosed);
}
