//! An ordinary peer of Bitcoin's protocol that only gossips: it keeps the addresses that it is told, passes them on
//! and answers `getaddr`, on a port of loopback. It speaks through the project's own protocol machine, and knows
//! nothing of relays.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use blocktorrent::chain::Network;
use blocktorrent::chain::p2p::connection::{
    Connection, ConnectionId, InboundLimits, Listener, Wiring, serve,
};
use blocktorrent::chain::p2p::{
    AddressRecord, Advert, Direction, PeerCommand, PeerConfig, PeerEvent, Role, V2,
};
use blocktorrent::time::Time;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// NODE_NETWORK and NODE_WITNESS.
pub const PLAIN: u64 = 0x9;
/// The service bit of relays.
pub const FLAG: u64 = 1 << 30;

/// What has been seen of those who connect.
#[derive(Debug, Default)]
pub struct Seen {
    /// Addresses that were told.
    pub told: Vec<AddressRecord>,
    /// How often addresses were asked for.
    pub asked: usize,
    /// Handshakes done.
    pub met: usize,
}

/// What a gossip claims of itself.
#[derive(Clone, Debug)]
pub struct Claims {
    /// Its services.
    pub services: u64,
    /// Where it says that its control stream is.
    pub advert: Option<Advert>,
    /// Addresses that it knows from the start.
    pub knows: Vec<AddressRecord>,
}

impl Claims {
    /// An ordinary node that knows nobody.
    pub fn plain() -> Self {
        Self {
            services: PLAIN,
            advert: None,
            knows: Vec::new(),
        }
    }
}

/// The peer, for as long as it is kept.
pub struct Gossip {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    _runtime: Runtime,
}

impl Gossip {
    /// Starts one.
    pub fn start(claims: Claims) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let limits = InboundLimits::default();
        let listener = runtime.block_on(Listener::bind(any, limits)).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        runtime.spawn(run(listener, claims, Arc::clone(&seen)));
        Self {
            address,
            seen,
            _runtime: runtime,
        }
    }

    /// Something of what was seen.
    pub fn seen<T>(&self, what: impl Fn(&Seen) -> T) -> T {
        what(&self.seen.lock().unwrap())
    }
}

/// An address as gossip tells of it, seen just now.
pub fn record(address: SocketAddr, services: u64) -> AddressRecord {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    AddressRecord {
        last_seen: now.as_secs() as u32,
        services,
        address,
    }
}

fn config(claims: &Claims, remote: SocketAddr) -> PeerConfig {
    PeerConfig {
        network: Network::Regtest,
        direction: Direction::Inbound,
        role: Role::Stranger,
        services: claims.services,
        flag: FLAG,
        agent: "/gossip:1/".into(),
        start_height: 0,
        advert: claims.advert,
        nonce: 7,
        v2: V2::Accept,
        relay_transactions: false,
        remote,
    }
}

async fn run(listener: Listener, claims: Claims, seen: Arc<Mutex<Seen>>) {
    let (events, mut received) = mpsc::channel(64);
    let start = Instant::now();
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let clock = move || Time::from_unix_seconds(unix.as_secs()) + start.elapsed();
    let wiring = Wiring {
        events,
        clock,
        tally: Arc::default(),
    };
    let mut connections: BTreeMap<ConnectionId, Connection> = BTreeMap::new();
    let mut known = claims.knows.clone();
    let mut next = 0;
    loop {
        let (id, event) = tokio::select! {
            accepted = listener.accept() => {
                next += 1;
                let id = ConnectionId(next);
                let config = config(&claims, accepted.remote);
                let connection = serve(accepted, config, id, wiring.clone());
                connections.insert(id, connection);
                continue;
            }
            Some(event) = received.recv() => event,
        };
        let tell = |id: &ConnectionId, command: PeerCommand| {
            if let Some(connection) = connections.get(id) {
                connection.commands.try_send(command).ok();
            }
        };
        match event {
            PeerEvent::Ready(_) => seen.lock().unwrap().met += 1,
            PeerEvent::Addresses(records) => {
                for other in connections.keys().filter(|other| **other != id) {
                    tell(other, PeerCommand::SendAddresses(records.clone()));
                }
                known.extend(records.iter().copied());
                seen.lock().unwrap().told.extend(records);
            }
            PeerEvent::WantsAddresses => {
                seen.lock().unwrap().asked += 1;
                tell(&id, PeerCommand::SendAddresses(known.clone()));
            }
            PeerEvent::WantsHeaders { .. } | PeerEvent::WantsBlock { .. } => {
                tell(&id, PeerCommand::SendNothing);
            }
            PeerEvent::Closed(_) => drop(connections.remove(&id)),
            _ => {}
        }
    }
}

/// Waits until something holds that no event tells of, for as long as a busy machine may need.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
