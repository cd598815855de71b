//! Real sockets on loopback, with ports that the system picks.

use super::*;
use crate::net::{Clock, LinkOptions, Timer, Uplink};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Far longer than anything here takes, for machines that are busy.
const PATIENCE: Duration = Duration::from_secs(20);

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn port(options: UdpOptions) -> UdpPort {
    UdpPort::bind(loopback(), options).expect("loopback has ports")
}

/// Flushes until nothing waits, for the system and on the emulated link.
async fn flush_all(port: &mut UdpPort, clock: Clock) {
    let mut timer = Timer::new(clock).expect("a descriptor is free");
    loop {
        if port.flush(clock.now()) == Flush::Done && port.deadline().is_none() {
            return;
        }
        timer.set(port.deadline()).expect("the timer is valid");
        tokio::select! {
            ready = port.writable(), if port.is_blocked() => ready.expect("the runtime lives"),
            expired = timer.expired() => expired.expect("the timer is valid"),
        }
    }
}

/// Reads until `count` datagrams have come.
async fn receive(port: &mut UdpPort, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut received = Vec::new();
    let all = async {
        while received.len() < count {
            port.readable().await.expect("the runtime lives");
            port.recv_batch(|from, datagram| received.push((from, datagram.to_vec())))
                .expect("the socket is whole");
        }
    };
    timeout(PATIENCE, all)
        .await
        .expect("loopback loses nothing within its buffers");
    received
}

fn numbered(number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (number * 31 + at) as u8).collect()
}

#[tokio::test]
async fn batches_arrive_whole_and_in_order_with_and_without_segmentation() {
    for segmentation in [true, false] {
        let clock = Clock::start();
        let options = UdpOptions {
            segmentation,
            ..UdpOptions::default()
        };
        let (mut sender, mut receiver) = (port(options), port(UdpOptions::default()));
        let lengths = [
            1_200, 1_200, 1_200, 700, 1, 1_200, 1_472, 1_472, 9_000, 65_507, 30,
        ];
        let sent: Vec<_> = (0..lengths.len() * 6)
            .map(|number| numbered(number, lengths[number % lengths.len()]))
            .collect();
        let mut received = Vec::new();
        // In parts that any system's buffer holds.
        for part in sent.chunks(lengths.len()) {
            for datagram in part {
                sender
                    .push(clock.now(), receiver.local_addr(), datagram)
                    .expect("there is room");
            }
            flush_all(&mut sender, clock).await;
            received.extend(receive(&mut receiver, part.len()).await);
        }
        let from = sender.local_addr();
        assert!(received.iter().all(|(address, _)| *address == from));
        let received: Vec<_> = received.into_iter().map(|(_, datagram)| datagram).collect();
        assert!(received == sent, "contents or order differ");
        let (out, into) = (sender.stats(), receiver.stats());
        assert_eq!(out.datagrams_out, sent.len() as u64);
        assert_eq!(
            (out.bytes_out, out.datagrams_out),
            (into.bytes_in, into.datagrams_in)
        );
        assert_eq!(out.too_large + out.other_errors + out.invalid, 0);
        match segmentation && sender.max_segments() > 1 {
            true => assert!(out.send_calls < out.datagrams_out),
            false => assert_eq!(out.send_calls, out.datagrams_out),
        }
    }
}

#[tokio::test]
async fn a_flight_is_sent_in_one_call_and_received_in_one_run() {
    let clock = Clock::start();
    let (mut sender, mut receiver) = (port(UdpOptions::default()), port(UdpOptions::default()));
    for number in 0..50 {
        sender
            .push(clock.now(), receiver.local_addr(), &numbered(number, 1_200))
            .expect("there is room");
    }
    flush_all(&mut sender, clock).await;
    assert_eq!(receive(&mut receiver, 50).await.len(), 50);
    if sender.max_segments() >= 50 {
        assert_eq!(sender.stats().send_calls, 1);
        if receiver.max_joined() >= 50 {
            assert_eq!(receiver.stats().runs_in, 1);
        }
    }
}

#[tokio::test]
async fn one_socket_speaks_both_families_with_canonical_addresses() {
    let clock = Clock::start();
    let any = "[::]:0".parse().expect("an address");
    let Ok(mut dual) = UdpPort::bind(any, UdpOptions::default()) else {
        return; // A machine without IPv6.
    };
    let mut four = port(UdpOptions::default());
    let to_dual = SocketAddr::from(([127, 0, 0, 1], dual.local_addr().port()));
    four.push(clock.now(), to_dual, b"from four")
        .expect("there is room");
    flush_all(&mut four, clock).await;
    assert_eq!(
        receive(&mut dual, 1).await,
        [(four.local_addr(), b"from four".to_vec())]
    );
    dual.push(clock.now(), four.local_addr(), b"to four")
        .expect("there is room");
    flush_all(&mut dual, clock).await;
    assert_eq!(
        receive(&mut four, 1).await,
        [(to_dual, b"to four".to_vec())]
    );
    // IPv6 does not leave an IPv4 socket, and is no reason to fail.
    let six = "[::1]:9".parse().expect("an address");
    assert_eq!(four.push(clock.now(), six, b"x"), Err(PushError::Invalid));
}

#[tokio::test]
async fn what_no_socket_can_send_is_refused_before_it_harms_offload() {
    let clock = Clock::start();
    let mut sender = port(UdpOptions::default());
    let segments = sender.max_segments();
    for (to, length) in [
        ("127.0.0.1:0", 10),
        ("0.0.0.0:9", 10),
        ("224.0.0.1:9", 10),
        ("[ff02::1]:9", 10),
        ("127.0.0.1:9", 0),
        ("127.0.0.1:9", MAX_RUN_BYTES + 1),
    ] {
        let to = to.parse().expect("an address");
        let refused = sender.push(clock.now(), to, &vec![0; length]);
        assert_eq!(refused, Err(PushError::Invalid), "{to} {length}");
    }
    assert_eq!(sender.stats().invalid, 6);
    assert_eq!(sender.flush(clock.now()), Flush::Done);
    assert_eq!(sender.max_segments(), segments);
}

#[tokio::test]
async fn errors_of_sending_are_counted_and_the_next_datagram_goes_out() {
    let clock = Clock::start();
    let (mut sender, mut receiver) = (port(UdpOptions::default()), port(UdpOptions::default()));
    let segments = sender.max_segments();
    // The limited broadcast address needs a permission that the socket does not ask for.
    let forbidden = "255.255.255.255:9".parse().expect("an address");
    for _ in 0..3 {
        sender
            .push(clock.now(), forbidden, &[1; 100])
            .expect("there is room");
    }
    // Nobody listens there: loopback answers with an ICMP error, which must not matter.
    let unused = port(UdpOptions::default()).local_addr();
    sender
        .push(clock.now(), unused, &[2; 100])
        .expect("there is room");
    sender
        .push(clock.now(), receiver.local_addr(), &[3; 100])
        .expect("there is room");
    flush_all(&mut sender, clock).await;
    assert_eq!(receive(&mut receiver, 1).await.len(), 1);
    let stats = sender.stats();
    assert_eq!(stats.other_errors + stats.unreachable, 3);
    assert_eq!(sender.max_segments(), segments);
}

#[tokio::test]
async fn offload_comes_back_after_an_error_that_it_did_not_cause() {
    let clock = Clock::start();
    let (mut sender, mut receiver) = (port(UdpOptions::default()), port(UdpOptions::default()));
    let segments = sender.max_segments();
    // Behind the back of push: port 0 fails with EINVAL, whatever the offload.
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    for _ in 0..4 {
        assert!(sender.queue.push(nowhere, &[1; 100]));
        assert!(sender.queue.push(receiver.local_addr(), &[2; 100]));
    }
    flush_all(&mut sender, clock).await;
    assert_eq!(receive(&mut receiver, 4).await.len(), 4);
    assert_eq!(
        (sender.stats().other_errors, sender.stats().datagrams_out),
        (4, 4)
    );
    assert_eq!(sender.max_segments(), segments);
    if segments > 1 {
        assert_eq!(sender.renewals, 4);
    }
    // One by one, so that each that can go goes, though those joined with it cannot.
    let limited = SocketAddr::from(([255, 255, 255, 255], 9));
    assert!(sender.queue.push(limited, &[1; 100]) && sender.queue.push(limited, &[1; 50]));
    flush_all(&mut sender, clock).await;
    assert_eq!(sender.stats().datagrams_out, 4);
    // Not without end.
    for _ in 0..3 * MAX_RENEWALS {
        assert!(sender.queue.push(nowhere, &[1; 100]));
        sender.flush(clock.now());
    }
    assert!(sender.renewals <= MAX_RENEWALS);
}

#[tokio::test]
async fn the_queue_is_bounded_and_drains() {
    let clock = Clock::start();
    let (mut sender, receiver) = (port(UdpOptions::default()), port(UdpOptions::default()));
    let mut taken = 0;
    while sender
        .push(clock.now(), receiver.local_addr(), &[0; 65_507])
        .is_ok()
    {
        taken += 1;
        assert!(taken <= 10_000, "the queue has no bound");
    }
    assert!(!sender.has_room());
    timeout(PATIENCE, flush_all(&mut sender, clock))
        .await
        .expect("the queue drains");
    assert!(sender.has_room() && !sender.is_blocked());
    assert_eq!(sender.stats().datagrams_out, taken);
}

#[tokio::test]
async fn empty_datagrams_mean_nothing() {
    let mut receiver = port(UdpOptions::default());
    let plain = std::net::UdpSocket::bind(loopback()).expect("loopback has ports");
    plain
        .send_to(&[], receiver.local_addr())
        .expect("loopback takes it");
    plain
        .send_to(b"x", receiver.local_addr())
        .expect("loopback takes it");
    assert_eq!(receive(&mut receiver, 1).await[0].1, b"x");
    assert_eq!(receiver.stats().empty_in, 1);
}

#[tokio::test]
async fn nothing_to_read_is_no_error() {
    let mut receiver = port(UdpOptions::default());
    let read = receiver.recv_batch(|_, _| panic!("nothing was sent"));
    assert_eq!(read.expect("the socket is whole"), 0);
}

#[tokio::test]
async fn a_port_in_use_gives_one_line_that_helps() {
    let first = port(UdpOptions::default());
    let error = UdpPort::bind(first.local_addr(), UdpOptions::default()).expect_err("in use");
    let line = error.to_string();
    assert!(line.contains(&first.local_addr().to_string()), "{line}");
    assert!(
        line.contains("in use") && line.contains("--data-listen"),
        "{line}"
    );
    assert!(!line.contains('\n'));
}

#[tokio::test]
async fn a_small_buffer_is_reported_with_what_to_do() {
    let options = UdpOptions {
        receive_buffer_bytes: 1 << 30,
        send_buffer_bytes: 4_096,
        ..UdpOptions::default()
    };
    let bound = BoundUdp::bind(loopback(), options).expect("loopback has ports");
    let [shortfall] = bound.shortfalls() else {
        return; // A machine that grants a gibibyte.
    };
    assert!(shortfall.receive && shortfall.granted < shortfall.wanted);
    let line = shortfall.to_string();
    assert!(
        line.contains("sysctl -w") && line.contains("1073741824"),
        "{line}"
    );
}

#[tokio::test]
async fn an_emulated_link_loses_delays_and_keeps_order() {
    let clock = Clock::start();
    let link = LinkOptions {
        loss_percent: 20.0,
        delay: Duration::from_millis(30),
        rate_bits_per_s: Some(40_000_000),
        queue_bytes: None,
    };
    let uplink = SharedUplink::new(Uplink::new(link, 3).expect("in range"));
    let options = UdpOptions {
        uplink: Some(uplink.clone()),
        ..UdpOptions::default()
    };
    let (mut sender, mut receiver) = (port(options), port(UdpOptions::default()));
    let began = Instant::now();
    for number in 0..100u8 {
        sender
            .push(clock.now(), receiver.local_addr(), &[number; 1_222])
            .expect("a link takes all");
    }
    assert_eq!(sender.flush(clock.now()), Flush::Done);
    assert_eq!(sender.stats().datagrams_out, 0);
    flush_all(&mut sender, clock).await;
    let took = began.elapsed();
    // One hundred of a quarter of a millisecond each, less those lost at the end, and the delay.
    assert!(took >= Duration::from_millis(50), "{took:?}");
    let lost = uplink.lock().stats().lost as usize;
    assert_eq!(sender.stats().emulated_drops as usize, lost);
    assert!((5..=40).contains(&lost), "{lost} of 100 at 20%");
    let received = receive(&mut receiver, 100 - lost).await;
    assert!(received.iter().map(|(_, datagram)| datagram[0]).is_sorted());
}

#[test]
fn errors_are_told_apart() {
    let raw = io::Error::from_raw_os_error;
    if cfg!(target_os = "linux") {
        assert_eq!(classify(&raw(90)), SendError::TooLarge);
        assert_eq!(classify(&raw(111)), SendError::Refused);
        assert_eq!(classify(&raw(105)), SendError::NoBuffers);
        assert_eq!(classify(&raw(12)), SendError::NoBuffers);
        assert_eq!(classify(&raw(113)), SendError::Unreachable);
        assert_eq!(classify(&raw(1)), SendError::Other);
        assert!(is_passing(&raw(111)) && !is_passing(&raw(9)));
    }
}
