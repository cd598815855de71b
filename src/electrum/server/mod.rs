//! The sockets of the Electrum server: TCP, TLS and WebSocket, one task per client.
//!
//! ```text
//!  listen ── admit ── handshakes ── client: read ─▶ Session ─▶ outbox ─▶ write
//!                                             ▲        │ Ask
//!                                     notices │        ▼
//!   Arc<Change> ──▶ feed ── Subscriptions ────┘   data: (Query, where to tell)
//! ```
//!
//! Everything that clients can make grow has a bound: sessions, those of one network, bytes read and not yet a message, bytes
//! to be sent that they don't take, questions at a time, what they subscribe to. Who exceeds one is refused or cut, and counted.
//!
//! What sessions share, who subscribed and what everyone costs, is behind one lock (`Hub`), held for no longer than a look-up.

mod client;
mod feed;
mod hub;
mod listen;
pub mod look;
pub mod tls;
mod transport;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub use hub::{Admin, Counts, SessionView};

use super::protocol::info::Info;
use super::query::{Change, Query, Tip, Told};
use super::{cost, session, subscriptions};
use hub::Hub;

/// How bytes come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Lines over TCP.
    Tcp,
    /// Lines over TLS.
    Ssl,
    /// Messages of a WebSocket.
    Ws,
    /// The same over TLS.
    Wss,
}

impl Transport {
    /// Whether it needs a certificate.
    pub fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::Wss)
    }

    /// Whether it is a WebSocket.
    pub fn is_web_socket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }

    /// As it is written before `://`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Ssl => "ssl",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }
}

/// Where the certificate is.
#[derive(Clone, Debug)]
pub enum Certificate {
    /// Self-made, kept in this folder: clients pin it at first sight, so that it should stay the same.
    Kept(PathBuf),
    /// Given: files with a chain and its key in PEM, read anew when they change.
    Given {
        /// The certificate first, then those that lead to a root.
        chain: PathBuf,
        /// PKCS#8, PKCS#1 or SEC1.
        key: PathBuf,
    },
}

/// What an operator can say.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen. Port 0 takes any.
    pub listen: Vec<(Transport, SocketAddr)>,
    /// For [`Transport::Ssl`] and [`Transport::Wss`].
    pub certificate: Option<Certificate>,
    /// How often given files are looked at.
    pub reload_interval: Duration,
    /// Clients at a time.
    pub max_sessions: usize,
    /// Clients of one network at a time (/24 or /48; those on this machine are not counted).
    pub max_per_group: u32,
    /// Subscriptions of one session.
    pub max_subscriptions: usize,
    /// Subscriptions of all.
    pub max_subscriptions_total: usize,
    /// How long the first clients are left waiting for a tip. Reason: an index that is nearly there needs a second or two, and who is
    /// told that nothing is known gives up; who waits longer than this gives up as well.
    pub first_tip_timeout: Duration,
    /// How long TLS and WebSocket may take to come about.
    pub handshake_timeout: Duration,
    /// How long a client may take nothing of what is sent to it.
    pub write_timeout: Duration,
    /// How long the data may take for an answer.
    pub request_timeout: Duration,
    /// Bytes to be sent to one client before nothing more is begun for it.
    pub outbox_bytes: usize,
    /// What a session may do.
    pub session: session::Limits,
    /// What clients may cost.
    pub cost: cost::Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            certificate: None,
            reload_interval: Duration::from_secs(5),
            // An idle one that has said its version was measured at 29 kB over TCP: 290 MB.
            max_sessions: 10_000,
            // A fortieth of all; an office behind one address has fewer wallets.
            max_per_group: 250,
            max_subscriptions: subscriptions::MAX_PER_SESSION,
            max_subscriptions_total: subscriptions::MAX_SUBSCRIPTIONS,
            first_tip_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(30),
            outbox_bytes: 2_000_000,
            session: session::Limits::default(),
            cost: cost::Limits::default(),
        }
    }
}

/// A question, and where its answer is waited for.
#[derive(Debug)]
pub struct Asked {
    /// The question.
    pub query: Query,
    /// Dropped without an answer, it counts as a fault of ours.
    pub reply: oneshot::Sender<Told>,
}

/// What joins the server to the rest of the program.
#[derive(Debug)]
pub struct Wires {
    /// What the server says of itself; may change at any time.
    pub info: watch::Receiver<Arc<Info>>,
    /// The tip so far, if there is one.
    pub tip: Option<Tip>,
    /// Questions to the data; bounded.
    pub data: mpsc::Sender<Asked>,
    /// What changes in chain and mempool; bounded.
    pub changes: mpsc::Receiver<Arc<Change>>,
    /// Where servers that name themselves are told, with the address that they come from.
    pub peers: Option<mpsc::Sender<(std::net::IpAddr, Value)>>,
}

/// Why the server can't begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something else listens there, or the address is not this machine's.
    #[error("can't listen at {0}://{1}: {2}")]
    Listen(&'static str, SocketAddr, std::io::Error),
    /// TLS is wanted, and there is no certificate.
    #[error("{0}:// needs a certificate")]
    NoCertificate(&'static str),
    /// The certificate is no good.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
}

/// A server that listens, and takes nobody yet.
pub struct Bound {
    /// Where it listens, with the ports that were taken.
    pub addresses: Vec<(Transport, SocketAddr)>,
    options: Options,
    tls: Option<tls::Tls>,
    listeners: Vec<(Transport, TcpListener)>,
}

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    /// Where it listens, with the ports that were taken.
    pub addresses: Vec<(Transport, SocketAddr)>,
    /// For those who operate it.
    pub admin: Admin,
    /// Ends when it has been stopped and all clients are gone.
    pub task: JoinHandle<()>,
}

/// How long clients may take to be gone once the server stops.
const FAREWELL: Duration = Duration::from_secs(3);

impl Bound {
    /// Takes the addresses.
    ///
    /// # Errors
    /// If it can't listen everywhere, or the certificate is no good.
    pub async fn new(options: Options) -> Result<Self, StartError> {
        let tls = match options
            .listen
            .iter()
            .find(|(transport, _)| transport.has_tls())
        {
            None => None,
            Some((transport, _)) => {
                let certificate = options.certificate.as_ref();
                let certificate = certificate.ok_or(StartError::NoCertificate(transport.name()))?;
                Some(tls::Tls::new(certificate)?)
            }
        };
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for (transport, address) in &options.listen {
            let refuse = |error| StartError::Listen(transport.name(), *address, error);
            let listener = TcpListener::bind(address).await.map_err(refuse)?;
            addresses.push((*transport, listener.local_addr().map_err(refuse)?));
            listeners.push((*transport, listener));
        }
        Ok(Self {
            addresses,
            options,
            tls,
            listeners,
        })
    }

    /// Serves until `stop` comes about.
    pub fn serve(self, wires: Wires, stop: impl Future<Output = ()> + Send + 'static) -> Server {
        let hub = Arc::new(Hub::new(
            self.options,
            wires.info,
            wires.tip,
            wires.data,
            wires.peers,
        ));
        let admin = Admin::new(hub.clone());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(feed::run(hub.clone(), wires.changes));
        if let Some(tls) = &self.tls {
            tasks.spawn(tls.clone().keep_fresh(hub.options.reload_interval));
        }
        for (transport, listener) in self.listeners {
            let (hub, tls) = (hub.clone(), self.tls.clone());
            tasks.spawn(async move {
                let has_tip = hub.has_tip();
                tokio::time::timeout(hub.options.first_tip_timeout, has_tip)
                    .await
                    .ok();
                listen::run(hub, transport, listener, tls).await;
            });
        }
        let task = tokio::spawn(async move {
            stop.await;
            // No one new, no more news; those who are there are told off and given a moment.
            tasks.shutdown().await;
            hub.cut_all();
            tokio::time::timeout(FAREWELL, hub.emptied()).await.ok();
        });
        Server {
            addresses: self.addresses,
            admin,
            task,
        }
    }
}

#[cfg(test)]
mod tests;
