//! One of our peers, connected to a bitcoind, and its events.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use blocktorrent::chain::Network;
use blocktorrent::chain::p2p::connection::{
    Accepted, Connection, ConnectionId, Wiring, dial, serve,
};
use blocktorrent::chain::p2p::{Direction, PeerCommand, PeerConfig, PeerEvent, PeerInfo, Role, V2};
use blocktorrent::time::Time;
use tokio::sync::mpsc;

use super::harness::PATIENCE;

/// NODE_NETWORK_LIMITED, NODE_WITNESS and the project's bit.
pub const SERVICES: u64 = 1 << 10 | 1 << 3 | 1 << 30;

/// What a node of ours would say of itself.
pub fn config(direction: Direction, role: Role, v2: V2, remote: SocketAddr) -> PeerConfig {
    PeerConfig {
        network: Network::Regtest,
        direction,
        role,
        services: SERVICES,
        flag: 1 << 30,
        agent: "/blocktorrent-test:1/".into(),
        start_height: 0,
        advert: None,
        nonce: 7,
        v2,
        relay_transactions: true,
        remote,
    }
}

/// A connection and what it told.
pub struct Client {
    connection: Connection,
    events: mpsc::Receiver<(ConnectionId, PeerEvent)>,
    kept: VecDeque<PeerEvent>,
}

impl Client {
    /// Dials a bitcoind and greets it.
    pub async fn dial(remote: SocketAddr, role: Role, v2: V2) -> (Self, PeerInfo) {
        let (wiring, events) = wiring();
        let config = config(Direction::Outbound, role, v2, remote);
        Self::greeted(dial(config, ConnectionId(1), wiring), events).await
    }

    /// Greets a bitcoind that has dialled us.
    pub async fn serve(accepted: Accepted, role: Role) -> (Self, PeerInfo) {
        let (wiring, events) = wiring();
        let config = config(Direction::Inbound, role, V2::Accept, accepted.remote);
        Self::greeted(serve(accepted, config, ConnectionId(2), wiring), events).await
    }

    async fn greeted(
        connection: Connection,
        events: mpsc::Receiver<(ConnectionId, PeerEvent)>,
    ) -> (Self, PeerInfo) {
        let kept = VecDeque::new();
        let mut client = Self {
            connection,
            events,
            kept,
        };
        let info = client
            .wait(|event| match event {
                PeerEvent::Ready(info) => Some(info.clone()),
                _ => None,
            })
            .await;
        (client, info)
    }

    /// Gives a command.
    pub async fn tell(&self, command: PeerCommand) {
        let told = self.connection.commands.send(command).await;
        told.expect("the connection lives");
    }

    /// The next event.
    pub async fn next(&mut self) -> PeerEvent {
        self.next_in_time().await.expect("in time")
    }

    /// The next event; `None`: nothing came.
    pub async fn next_in_time(&mut self) -> Option<PeerEvent> {
        if let Some(event) = self.kept.pop_front() {
            return Some(event);
        }
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        event.ok().map(|event| event.expect("the task lives").1)
    }

    /// Waits for an event that `pick` picks; the others are kept.
    pub async fn wait<T>(&mut self, pick: impl Fn(&PeerEvent) -> Option<T>) -> T {
        let mut passed = VecDeque::new();
        loop {
            let Some(event) = self.next_in_time().await else {
                panic!("nothing more in time after {passed:?}");
            };
            if let Some(picked) = pick(&event) {
                passed.append(&mut self.kept);
                self.kept = passed;
                return picked;
            }
            assert!(
                !matches!(event, PeerEvent::Closed(_)),
                "{event:?} after {passed:?}"
            );
            passed.push_back(event);
        }
    }
}

fn wiring() -> (
    Wiring<impl Fn() -> Time + Clone + Send + Sync + 'static>,
    mpsc::Receiver<(ConnectionId, PeerEvent)>,
) {
    let (events, received) = mpsc::channel(64);
    let start = Instant::now();
    let since_epoch = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let clock = move || Time::ZERO + since_epoch + start.elapsed();
    let tally = Arc::default();
    let wiring = Wiring {
        events,
        clock,
        tally,
    };
    (wiring, received)
}
