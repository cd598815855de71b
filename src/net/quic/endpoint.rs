//! The QUIC socket of a node: who may begin a handshake, who has finished one, and dialling.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::rustls::pki_types::CertificateDer;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, Incoming, Runtime, VarInt};
use quinn_proto::RandomConnectionIdGenerator;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::beginners::{Beginners, MAX_HANDSHAKES};
use super::emulated::emulated;
use super::identity::{Identity, SERVER_NAME, fingerprint};
use super::link::{Counts, MAX_BATCHES, PrivateDatagrams, PrivateLink};
use super::opened::Opened;
use super::pinned::{self, OtherKey, RefusedKeys};
use super::{CONNECTION_ID_BYTES, transport};
use crate::config::{Fingerprint, PrivatePeer};
use crate::net::bound::{RECEIVE_BUFFER_BYTES, SEND_BUFFER_BYTES, bind_socket, size_buffer};
use crate::net::connection::{self, Stream};
use crate::net::control::{ControlHub, Direction, Shared};
use crate::net::dial::{self, ConnectError, KeepError, Target};
use crate::net::{BindError, Socket, canonical};

/// How long a handshake may take, the control stream included: three losses of the first packet.
pub(super) const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

/// Connections at once that the holder of one key may have made: one that lives, and one that died unnoticed.
const MAX_PER_KEY: usize = 2;

/// Packets of beginners that wait to be looked at, in bytes: those of [`MAX_HANDSHAKES`] with a flight each.
const MAX_INCOMING_BYTES: u64 = 64 * 4_096;

/// Between two stateless resets. Each stray packet can ask for the token of one of 65,536 connection ids, with which its
/// sender could later end a link by a forged packet: to collect all of them takes a week.
const RESET_INTERVAL: Duration = Duration::from_secs(10);

/// Why a connection is closed at once; the peer's log has it.
const TOO_MANY: (u32, &[u8]) = (1, b"too many connections with this key");

/// A QUIC socket that is bound but not used yet.
#[derive(Debug)]
pub struct BoundQuic {
    socket: UdpSocket,
    local: SocketAddr,
    accepts: bool,
}

impl BoundQuic {
    /// Binds `address`; port 0 lets the system choose. Without an address it is a socket for dialling alone.
    ///
    /// # Errors
    ///
    /// One line that says what to do, if the address cannot be had.
    pub fn bind(address: Option<SocketAddr>) -> Result<Self, BindError> {
        let bind = |address| {
            open(address).map_err(|source| BindError {
                socket: Socket::Quic,
                address,
                source,
            })
        };
        let (socket, local) = match address {
            Some(address) => bind(address)?,
            // Some systems have no IPv6.
            None => bind((Ipv6Addr::UNSPECIFIED, 0).into())
                .or_else(|_| bind((Ipv4Addr::UNSPECIFIED, 0).into()))?,
        };
        Ok(Self {
            socket,
            local,
            accepts: address.is_some(),
        })
    }

    /// The address it is bound to, with the port that the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

/// A socket that nobody has set up for datagrams yet: `quinn` does that by itself, and expects no other options.
fn open(address: SocketAddr) -> io::Result<(UdpSocket, SocketAddr)> {
    let socket = bind_socket(address)?;
    // What the system grants of it is enough to work with; the data socket's shortfall is in the log already.
    size_buffer(&socket, true, RECEIVE_BUFFER_BYTES)?;
    size_buffer(&socket, false, SEND_BUFFER_BYTES)?;
    let socket: UdpSocket = socket.into();
    let local = socket.local_addr()?;
    Ok((socket, local))
}

/// Whom private links connect.
#[derive(Clone, Debug)]
pub struct QuicOptions {
    /// This node's key.
    pub identity: Identity,
    /// Keys that may connect to this node.
    pub allowed: Vec<Fingerprint>,
}

/// What private links have done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct QuicStats {
    /// Inbound connections taken.
    pub accepted: u64,
    /// Handshakes of others that came to nothing, those with refused keys among them.
    pub failed_handshakes: u64,
    /// Keys refused because they are not pinned.
    pub refused_keys: u64,
    /// The last of them.
    pub last_refused_key: Option<Fingerprint>,
    /// Handshakes or connections refused because there were too many.
    pub refused_full: u64,
    /// Beginners who were asked to show that their address is theirs.
    pub retries: u64,
    /// Datagrams received.
    pub datagrams_in: u64,
    /// Datagrams handed to QUIC.
    pub datagrams_out: u64,
    /// Datagrams dropped: larger than a packet takes.
    pub too_large: u64,
    /// Datagrams dropped: too much waited, or the connection had ended.
    pub no_room: u64,
}

/// The private links of a node. Clones are the same ones.
#[derive(Clone, Debug)]
pub struct PrivateHub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    local: SocketAddr,
    accepts: bool,
    identity: Identity,
    datagrams: mpsc::Sender<PrivateDatagrams>,
    refused_keys: Arc<RefusedKeys>,
    counts: Arc<Counts>,
    state: Mutex<State>,
}

/// What changes under the lock, which is held for a few map operations at most.
#[derive(Debug)]
struct State {
    stats: QuicStats,
    handshakes: Beginners,
    per_key: BTreeMap<Fingerprint, usize>,
}

impl ControlHub {
    /// Uses `bound` for private links, until [`ControlHub::stop`]; their datagrams come through the channel.
    ///
    /// # Errors
    ///
    /// Those of the system when it cannot watch another descriptor, or has no randomness.
    pub fn private(
        &self,
        bound: BoundQuic,
        options: QuicOptions,
    ) -> io::Result<(PrivateHub, mpsc::Receiver<PrivateDatagrams>)> {
        let (datagrams, receiver) = mpsc::channel(MAX_BATCHES);
        let refused_keys = Arc::default();
        let QuicOptions { identity, allowed } = options;
        let server = match bound.accepts {
            true => Some(server_config(
                &identity,
                &allowed,
                Arc::clone(&refused_keys),
            )?),
            false => None,
        };
        let endpoint = self.endpoint(bound.socket, server)?;
        let inner = Inner {
            shared: Arc::clone(&self.0),
            endpoint,
            local: bound.local,
            accepts: bound.accepts,
            identity,
            datagrams,
            refused_keys,
            counts: Arc::default(),
            state: Mutex::new(State {
                stats: QuicStats::default(),
                handshakes: Beginners::default(),
                per_key: BTreeMap::new(),
            }),
        };
        let hub = PrivateHub(Arc::new(inner));
        if bound.accepts {
            let (stop, stopped) = oneshot::channel();
            self.0.state().listeners.push(stop);
            self.0.runtime.spawn(accept(hub.clone(), stopped));
        }
        Ok((hub, receiver))
    }

    fn endpoint(
        &self,
        socket: UdpSocket,
        server: Option<quinn::ServerConfig>,
    ) -> io::Result<Endpoint> {
        let _context = self.0.runtime.enter();
        let runtime = Arc::new(quinn::TokioRuntime);
        let mut socket = runtime.wrap_udp_socket(socket)?;
        let options = &self.0.options;
        if let Some(uplink) = &options.uplink {
            socket = emulated(socket, uplink.clone(), options.clock)?;
        }
        let mut config = quinn::EndpointConfig::default();
        config
            .cid_generator(|| Box::new(RandomConnectionIdGenerator::new(CONNECTION_ID_BYTES)))
            .min_reset_interval(RESET_INTERVAL);
        Endpoint::new_with_abstract_socket(config, server, socket, runtime)
    }
}

/// What those who dial us are met with.
fn server_config(
    identity: &Identity,
    allowed: &[Fingerprint],
    refused: Arc<RefusedKeys>,
) -> io::Result<quinn::ServerConfig> {
    let tls = pinned::server(identity, allowed, refused).map_err(io::Error::other)?;
    let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(transport(1))
        // A packet that claims a new address would be answered there with more than a hundred times its bytes before
        // the path is validated, which RFC 9000 9.3 forbids. Whose address changes dials anew.
        .migration(false)
        .max_incoming(MAX_HANDSHAKES)
        .incoming_buffer_size(4_096)
        .incoming_buffer_size_total(MAX_INCOMING_BYTES);
    Ok(config)
}

impl PrivateHub {
    /// The address of the socket, with the port that the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local
    }

    /// Whether others may dial this node.
    pub fn accepts(&self) -> bool {
        self.0.accepts
    }

    /// This node's fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.identity.fingerprint()
    }

    /// What it has done.
    pub fn stats(&self) -> QuicStats {
        let counts = &self.0.counts;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (refused_keys, last_refused_key) = self.0.refused_keys.seen();
        QuicStats {
            refused_keys,
            last_refused_key,
            datagrams_in: count(&counts.received),
            datagrams_out: count(&counts.sent),
            too_large: count(&counts.too_large),
            no_room: count(&counts.no_room),
            ..self.state().stats
        }
    }

    /// Keeps a link to `peer`, as [`ControlHub::keep_connected`] does over TCP.
    ///
    /// # Errors
    ///
    /// One line that says why not.
    pub fn keep_connected(&self, peer: PrivatePeer) -> Result<(), KeepError> {
        let target = Target::Private(self.clone(), peer);
        dial::keep(&self.0.shared, target)
    }

    /// Waits until the last connections are closed on the wire, once the hub has been stopped.
    pub async fn idle(&self) {
        self.0.endpoint.wait_idle().await;
    }

    /// One attempt.
    pub(in crate::net) async fn connect(&self, peer: &PrivatePeer) -> Result<Opened, ConnectError> {
        let attempt = async {
            let mut last = dial::no_address();
            for address in dial::look_up(&peer.target).await? {
                match self.try_address(peer.key, address).await {
                    Ok(opened) => return Ok(opened),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        dial::in_time(&self.0.shared, &peer.target, attempt).await
    }

    async fn try_address(&self, key: Fingerprint, address: SocketAddr) -> io::Result<Opened> {
        let (config, other) = self.client_config(key)?;
        let endpoint = &self.0.endpoint;
        let connecting = endpoint
            .connect_with(config, address, SERVER_NAME)
            .map_err(io::Error::other)?;
        let connection = connecting
            .await
            .map_err(|error| dial_error(error, &other))?;
        // Our transport lets a server open no stream, so the only one is ours.
        let stream = connection.open_bi().await?;
        Ok(self.opened(connection, key, stream))
    }

    fn client_config(&self, key: Fingerprint) -> io::Result<(ClientConfig, OtherKey)> {
        let (tls, other) = pinned::client(&self.0.identity, key).map_err(io::Error::other)?;
        let crypto = QuicClientConfig::try_from(tls).map_err(io::Error::other)?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(transport(0));
        Ok((config, other))
    }

    fn opened(
        &self,
        connection: Connection,
        key: Fingerprint,
        (send, receive): (quinn::SendStream, quinn::RecvStream),
    ) -> Opened {
        let counts = Arc::clone(&self.0.counts);
        Opened {
            link: PrivateLink::new(connection.clone(), key, counts),
            connection,
            send,
            receive,
            datagrams: self.0.datagrams.clone(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock in a state that is not consistent.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at somebody who begins a handshake.
    fn meet(&self, incoming: Incoming) {
        let ip = canonical(incoming.remote_address()).ip();
        match self.admit(ip, incoming.remote_address_validated()) {
            Admitted::Yes(place) => match incoming.accept() {
                Ok(connecting) => {
                    let hub = self.clone();
                    let welcome = async move { hub.welcome(connecting, place).await };
                    self.0.shared.runtime.spawn(welcome);
                }
                Err(_) => self.state().stats.failed_handshakes += 1,
            },
            Admitted::AfterRetry => {
                // It can be asked, for its address is not shown yet.
                incoming.retry().ok();
            }
            // No answer: none is due to an address that may be invented, or that has enough.
            Admitted::No => incoming.ignore(),
        }
    }

    /// Whoever begins must first show that its address is no invention (Retry, RFC 9000 8.1): it costs this node no
    /// memory and the peer a round trip, once in a link's life. Without it an address would get more than three times the
    /// bytes that came from there, for `quinn` lets a full packet out while any of that budget is left. A newcomer may
    /// take another's place: see [`Beginners`].
    fn admit(&self, ip: IpAddr, is_validated: bool) -> Admitted {
        let mut state = self.state();
        if !is_validated {
            state.stats.retries += 1;
            return Admitted::AfterRetry;
        }
        match state
            .handshakes
            .admit(ip, self.0.shared.options.clock.now())
        {
            Some((number, ended)) => Admitted::Yes(Place {
                hub: self.clone(),
                number,
                ended,
            }),
            None => {
                state.stats.refused_full += 1;
                Admitted::No
            }
        }
    }

    /// Finishes a handshake, and carries the connection to its end.
    async fn welcome(self, connecting: quinn::Connecting, mut place: Place) {
        let opened = tokio::select! {
            opened = timeout(HANDSHAKE_TIME, self.greet(connecting)) => opened.ok().flatten(),
            // Another has the place.
            _ = &mut place.ended => None,
        };
        drop(place);
        let Some((opened, _seat)) = opened else {
            self.state().stats.failed_handshakes += 1;
            return;
        };
        self.state().stats.accepted += 1;
        let shared = Arc::clone(&self.0.shared);
        let (id, remote) = (shared.new_id(), opened.link.remote());
        let stream = Stream::Quic(Box::new(opened));
        connection::run(shared, id, stream, remote, Direction::Inbound).await;
    }

    async fn greet(&self, connecting: quinn::Connecting) -> Option<(Opened, Seat)> {
        let connection = connecting.await.ok()?;
        let key = key_of(&connection)?;
        let Some(seat) = self.seat(key) else {
            let (code, reason) = TOO_MANY;
            connection.close(VarInt::from_u32(code), reason);
            return None;
        };
        let stream = connection.accept_bi().await.ok()?;
        Some((self.opened(connection, key, stream), seat))
    }

    /// A seat for one more connection with this key.
    fn seat(&self, key: Fingerprint) -> Option<Seat> {
        let mut state = self.state();
        let held = state.per_key.get(&key).copied().unwrap_or(0);
        if held >= MAX_PER_KEY {
            state.stats.refused_full += 1;
            return None;
        }
        state.per_key.insert(key, held + 1);
        Some(Seat(self.clone(), key))
    }
}

/// What becomes of somebody who begins a handshake.
enum Admitted {
    Yes(Place),
    AfterRetry,
    No,
}

/// The place of a handshake, given back when dropped.
struct Place {
    hub: PrivateHub,
    number: u64,
    /// Ends when the place is given to another.
    ended: oneshot::Receiver<()>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.hub.state().handshakes.release(self.number);
    }
}

/// The seat of a connection among those of its key, given back when dropped.
struct Seat(PrivateHub, Fingerprint);

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if let Some(held) = state.per_key.get_mut(&self.1) {
            *held -= 1;
            if *held == 0 {
                state.per_key.remove(&self.1);
            }
        }
    }
}

/// The key that the verifier has let through.
fn key_of(connection: &Connection) -> Option<Fingerprint> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    fingerprint(chain.first()?).ok()
}

/// What to tell of a dial that failed.
fn dial_error(error: ConnectionError, other: &OtherKey) -> io::Error {
    let shown = *other.lock().unwrap_or_else(PoisonError::into_inner);
    match (shown, error) {
        (Some(key), _) => io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "its key is {key}, not the pinned one; ask its operator, and do not believe the line"
            ),
        ),
        (None, ConnectionError::TimedOut) => io::ErrorKind::TimedOut.into(),
        (None, error) => error.into(),
    }
}

/// The accept loop.
async fn accept(hub: PrivateHub, mut stop: oneshot::Receiver<()>) {
    loop {
        let incoming = tokio::select! {
            _ = &mut stop => return,
            incoming = hub.0.endpoint.accept() => incoming,
        };
        match incoming {
            Some(incoming) => hub.meet(incoming),
            None => return,
        }
    }
}

#[cfg(test)]
#[path = "endpoint_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "path_tests.rs"]
mod path_tests;
