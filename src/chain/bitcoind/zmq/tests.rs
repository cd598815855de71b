//! The subscriber against a publisher that breaks off, skips and floods.

use tokio::net::TcpListener;

use super::*;

/// A publisher that one subscriber at a time talks to.
struct Publisher(TcpListener);

impl Publisher {
    async fn bind() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (Self(listener), address)
    }

    /// Waits for a subscriber and its subscriptions, of `bytes` bytes.
    async fn accept(&self, bytes: usize) -> TcpStream {
        let (mut stream, _) = self.0.accept().await.unwrap();
        let mut hello = [0; zmtp::GREETING_BYTES + 27];
        stream.read_exact(&mut hello).await.unwrap();
        stream.write_all(&zmtp::greeting()).await.unwrap();
        let ready = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03PUB";
        stream.write_all(ready).await.unwrap();
        let mut subscriptions = vec![0; bytes];
        stream.read_exact(&mut subscriptions).await.unwrap();
        stream
    }
}

async fn publish(stream: &mut TcpStream, topic: &str, body: &[u8], counter: u32) {
    let mut frames = vec![1, topic.len() as u8];
    frames.extend_from_slice(topic.as_bytes());
    frames.push(3);
    frames.extend_from_slice(&(body.len() as u64).to_be_bytes());
    frames.extend_from_slice(body);
    frames.extend_from_slice(&[0, 4]);
    frames.extend_from_slice(&counter.to_le_bytes());
    stream.write_all(&frames).await.unwrap();
}

const CONNECTED: Option<ZmqEvent> = Some(ZmqEvent::Connected { publisher: 0 });

fn transaction(byte: u8) -> Option<ZmqEvent> {
    Some(ZmqEvent::Notice(Notice::RawTx(vec![byte; 60].into())))
}

#[tokio::test]
async fn gaps_and_broken_connections_are_events() {
    let (publisher, address) = Publisher::bind().await;
    let mut zmq = Zmq::subscribe(&[address], &[Topic::RawTx], 1);
    let subscription = zmtp::subscription("rawtx").len();
    let mut stream = publisher.accept(subscription).await;
    assert_eq!(zmq.next().await, CONNECTED);
    publish(&mut stream, "rawtx", &[1; 60], 4).await;
    assert_eq!(zmq.next().await, transaction(1));
    publish(&mut stream, "rawtx", &[2; 60], 7).await;
    let lost = |missed| {
        Some(ZmqEvent::Lost {
            topic: Topic::RawTx,
            gap: Gap { missed },
        })
    };
    assert_eq!(zmq.next().await, lost(Some(2)));
    assert_eq!(zmq.next().await, transaction(2));
    drop(stream);
    let broken = zmq.next().await;
    assert!(
        matches!(&broken, Some(ZmqEvent::Disconnected { publisher: 0, reason }) if reason.contains("closed")),
        "{broken:?}"
    );
    // Counters go on across connections, and a publisher that has restarted counts anew.
    let mut stream = publisher.accept(subscription).await;
    assert_eq!(zmq.next().await, CONNECTED);
    publish(&mut stream, "rawtx", &[3; 60], 0).await;
    assert_eq!(zmq.next().await, lost(None));
    assert_eq!(zmq.next().await, transaction(3));
    publish(&mut stream, "nonsense", &[3; 60], 0).await;
    assert!(matches!(
        zmq.next().await,
        Some(ZmqEvent::Disconnected { .. })
    ));
}

#[tokio::test]
async fn an_absent_publisher_is_reported_once_and_found_later() {
    let (publisher, address) = Publisher::bind().await;
    drop(publisher);
    let mut zmq = Zmq::subscribe(std::slice::from_ref(&address), &[Topic::HashBlock], 2);
    let absent = zmq.next().await;
    assert!(
        matches!(&absent, Some(ZmqEvent::Disconnected { reason, .. }) if reason.contains(&address)),
        "{absent:?}"
    );
    let publisher = Publisher(TcpListener::bind(&address).await.unwrap());
    let _stream = publisher
        .accept(zmtp::subscription("hashblock").len())
        .await;
    assert_eq!(zmq.next().await, CONNECTED);
}

#[tokio::test]
async fn a_flood_waits_outside() {
    let (publisher, address) = Publisher::bind().await;
    let mut zmq = Zmq::subscribe(&[address], &[Topic::RawBlock], 3);
    let mut stream = publisher.accept(zmtp::subscription("rawblock").len()).await;
    let flood = tokio::spawn(async move {
        for counter in 0..40 {
            publish(&mut stream, "rawblock", &[0; 3_000_000], counter).await;
        }
        stream
    });
    assert_eq!(zmq.next().await, CONNECTED);
    // 120 MB were published, and none is missing although few fit here at once.
    let room = MAX_QUEUED_BYTES as usize / 3_000_000;
    for _ in 0..40 {
        assert!(zmq.events.len() <= room + 1);
        assert!(matches!(
            zmq.next().await,
            Some(ZmqEvent::Notice(Notice::RawBlock(_)))
        ));
    }
    drop(flood.await.unwrap());
}

#[tokio::test]
async fn who_shakes_hands_and_hangs_up_is_called_less_and_less() {
    let (publisher, address) = Publisher::bind().await;
    let mut zmq = Zmq::subscribe(&[address], &[Topic::RawTx], 3);
    let subscription = zmtp::subscription("rawtx").len();
    let begin = Instant::now();
    for _ in 0..4 {
        drop(publisher.accept(subscription).await);
        assert_eq!(zmq.next().await, CONNECTED);
        assert!(matches!(
            zmq.next().await,
            Some(ZmqEvent::Disconnected { .. })
        ));
    }
    // 250, 500 and 1,000 ms, less a quarter; three times 250 it would be if each were the first.
    assert!(begin.elapsed() >= Duration::from_millis(1_300));
}
