//! The Electrum server as part of the node: index, mempool, questions and clients joined.
//!
//! ```text
//!   bitcoin side ── preferred node and its tip ─▶ indexer (a thread) ── what changed ─▶ server ─▶ clients
//!                ── changes of its mempool ─────▶      │ index, mempool                  │ questions
//!                                                      └──────────▶ workers (threads) ◀──┤
//!                                         the node's RPC ◀── daemon ◀────────────────────┘
//! ```
//!
//! - `indexer`: the one who writes, and `progress`: how far it is
//! - `workers`: who answer from what is written; `daemon`: what only the node can answer
//! - `peers`: other servers, looked at and told of
//! - `banner`: what wallets are greeted by; `handle`: what is told and asked by RPC

mod banner;
mod daemon;
mod handle;
mod indexer;
mod peers;
mod progress;
mod workers;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use bitcoin::hashes::Hash as _;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use super::bitcoin::Best;
use super::stop::Stop;
use crate::chain::Network;
use crate::chain::bitcoind::follow::FollowOutput;
use crate::config::{ElectrumAddress, ElectrumOptions, ElectrumTransport};
use crate::electrum::protocol::info::{Info, Ports};
use crate::electrum::query::Change;
use crate::electrum::server::{Asked, Bound, Certificate, Options, Transport, Wires};
use crate::electrum::store::answer::Data;
use crate::electrum::store::{Store, Writer};
use crate::electrum::{cost, session};
use banner::Banner;
use progress::SharedProgress;

pub use handle::ElectrumHandle;

/// Questions on the way to those who answer them. Reason: each session may have a few; what finds no room waits in its session.
const MAX_ASKED: usize = 4_096;

/// Changes on the way to the clients. Reason: one comes with each block, and some with the mempool's; while the server takes
/// none, the indexer waits.
const MAX_CHANGES: usize = 64;

/// What this part is given by the node around it.
pub struct Parts {
    /// The network.
    pub network: Network,
    /// The node's folder for the network.
    pub folder: PathBuf,
    /// The preferred Bitcoin node, as it changes.
    pub best: watch::Receiver<Option<Best>>,
    /// What happens in its mempool.
    pub mempool: mpsc::Receiver<FollowOutput>,
    /// Whether some of that was lost.
    pub missed: Arc<AtomicBool>,
    /// The signal to end.
    pub stop: Stop,
    /// The index.
    pub writer: Writer,
    /// The sockets.
    pub ready: Ready,
}

/// What can be refused by what the operator said, before anything runs.
pub struct Ready {
    bound: Bound,
    banner: Banner,
}

/// Servers that have named themselves and are not in the book yet. Reason: that takes no time; one too many may come again.
const MAX_OFFERS: usize = 64;

/// Of the clients, one in so many may be of one network; an office behind one address has fewer wallets.
const GROUP_SHARE: u32 = 40;

/// As many may be in any case: a household, behind one address of its provider.
const LEAST_OF_GROUP: u32 = 8;

/// What answers, once there is something to answer from.
type SharedData = Arc<OnceLock<Arc<Data>>>;

/// Opens the index, before anything else runs that would have to be ended if it can't be used.
///
/// # Errors
///
/// One line that says what to do.
pub fn open(options: &ElectrumOptions, folder: &Path, network: Network) -> anyhow::Result<Writer> {
    let writer = Store::open(&folder.join("electrum"), network, options.cache_bytes / 2)?;
    if let Some((height, _)) = writer.store().view().chain.tip() {
        let bytes = writer.store().disk_bytes();
        tracing::info!(height, bytes, "the Electrum index is open");
    }
    Ok(writer)
}

/// Takes the addresses where wallets are served, if there are any, and says which.
///
/// # Errors
///
/// If it can't listen there, or the banner or the certificate can't be read.
pub async fn bind(
    options: &ElectrumOptions,
    folder: &Path,
) -> anyhow::Result<(Option<Ready>, Vec<ElectrumAddress>)> {
    if !options.is_on() {
        return Ok((None, Vec::new()));
    }
    let banner = Banner::open(options.banner.as_deref())?;
    let bound = Bound::new(server_options(options, folder)).await;
    let bound = bound.context("wallets can't be served")?;
    let addresses = listens_at(&bound);
    Ok((Some(Ready { bound, banner }), addresses))
}

fn listens_at(bound: &Bound) -> Vec<ElectrumAddress> {
    let written = bound.addresses.iter().map(|(transport, address)| {
        let transport = match transport {
            Transport::Tcp => ElectrumTransport::Tcp,
            Transport::Ssl => ElectrumTransport::Ssl,
            Transport::Ws => ElectrumTransport::Ws,
            Transport::Wss => ElectrumTransport::Wss,
        };
        ElectrumAddress {
            transport,
            address: *address,
        }
    });
    written.collect()
}

/// Starts it. What is given back first is for those who operate it; the task ends when everything has ended.
///
/// # Errors
///
/// If the system gives no threads.
pub fn start(
    options: &ElectrumOptions,
    parts: Parts,
) -> anyhow::Result<(ElectrumHandle, JoinHandle<()>)> {
    let Ready { bound, banner } = parts.ready;
    let addresses = listens_at(&bound);
    let info = info(options, &addresses, parts.network, banner.text());
    let (tell_info, info) = watch::channel(Arc::new(info));
    let (asked, read_asked) = mpsc::channel::<Asked>(MAX_ASKED);
    let (changes, read_changes) = mpsc::channel::<Arc<Change>>(MAX_CHANGES);
    let (offered, offers) = mpsc::channel(MAX_OFFERS);
    let data = SharedData::default();
    let progress = SharedProgress::default();
    let wires = Wires {
        info,
        tip: None,
        data: asked.clone(),
        changes: read_changes,
        peers: options.finds_peers.then_some(offered),
    };
    let stop = parts.stop.clone();
    let server = bound.serve(wires, async move { stop.stopped().await });
    let banner = banner.keep_fresh(tell_info.clone());
    let handle = ElectrumHandle {
        network: parts.network,
        addresses,
        admin: server.admin,
        best: parts.best.clone(),
        store: parts.writer.store().clone(),
        data: Arc::clone(&data),
        progress: progress.clone(),
        asked,
        banner: banner.clone(),
    };
    if options.finds_peers {
        let finder = peers::Parts::new(&handle, &tell_info, offers, &parts.stop);
        tokio::spawn(peers::run(options.clone(), finder));
    }
    let pool = workers::Pool::start(Arc::clone(&data)).context("can't start threads")?;
    let daemon = daemon::Daemon::new(parts.best.clone(), Arc::clone(&data));
    let router = tokio::spawn(route(read_asked, pool, daemon));
    let indexer = indexer::start(indexer::Parts {
        network: parts.network,
        folder: parts.folder,
        cache_bytes: options.cache_bytes,
        best: parts.best,
        mempool: parts.mempool,
        missed: parts.missed,
        look: look_when_told(parts.stop.clone())?,
        stop: parts.stop,
        writer: parts.writer,
        data,
        changes,
        info: tell_info,
        progress,
    })
    .context("can't start a thread")?;
    let task = tokio::spawn(async move {
        server.task.await.ok();
        banner.end();
        router.abort();
        indexer.ended().await;
    });
    Ok((handle, task))
}

/// SIGUSR1 means: look now, there may be something new. electrs, which asks its node every ten seconds, is told so by
/// those who can't wait; here it is of use where the node does not tell of its mempool by ZMQ.
fn look_when_told(stop: Stop) -> anyhow::Result<Arc<Notify>> {
    let look = Arc::new(Notify::new());
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut told = signal(SignalKind::user_defined1()).context("can't watch signals")?;
        let look = Arc::clone(&look);
        tokio::spawn(async move {
            let looking = async {
                while told.recv().await.is_some() {
                    look.notify_one();
                }
            };
            tokio::select! {
                () = looking => {}
                () = stop.stopped() => {}
            }
        });
    }
    #[cfg(not(unix))]
    drop(stop);
    Ok(look)
}

/// Hands each question to who can answer it.
async fn route(mut asked: mpsc::Receiver<Asked>, pool: workers::Pool, daemon: daemon::Daemon) {
    while let Some(Asked { query, reply }) = asked.recv().await {
        if daemon::answers(&query) {
            daemon.ask(query, reply).await;
        } else {
            pool.ask(query, reply);
        }
    }
}

fn server_options(options: &ElectrumOptions, folder: &Path) -> Options {
    let listen = options.listen.iter().map(|one| {
        let transport = match one.transport {
            ElectrumTransport::Tcp => Transport::Tcp,
            ElectrumTransport::Ssl => Transport::Ssl,
            ElectrumTransport::Ws => Transport::Ws,
            ElectrumTransport::Wss => Transport::Wss,
        };
        (transport, one.address)
    });
    let certificate = match &options.certificate {
        Some((chain, key)) => Certificate::Given {
            chain: chain.clone(),
            key: key.clone(),
        },
        None => Certificate::Kept(folder.to_owned()),
    };
    Options {
        listen: listen.collect(),
        certificate: Some(certificate),
        session: session::Limits {
            peers: options.finds_peers,
            ..session::Limits::default()
        },
        max_sessions: options.max_sessions as usize,
        max_per_group: (options.max_sessions / GROUP_SHARE).max(LEAST_OF_GROUP),
        cost: cost::Limits {
            soft_milli: u64::from(options.cost_soft) * 1_000,
            hard_milli: u64::from(options.cost_hard) * 1_000,
            ..cost::Limits::default()
        },
        ..Options::default()
    }
}

fn info(
    options: &ElectrumOptions,
    addresses: &[ElectrumAddress],
    network: Network,
    banner: String,
) -> Info {
    Info {
        software: software(),
        genesis: network.genesis().block_hash().to_byte_array(),
        hosts: hosts(options, addresses, network),
        node: String::new(),
        banner,
        donation_address: options.donation_address.clone(),
        peers: Vec::new(),
    }
}

/// By which names and at which ports others reach the server: those of loopback they don't, except on regtest.
fn hosts(
    options: &ElectrumOptions,
    addresses: &[ElectrumAddress],
    network: Network,
) -> BTreeMap<String, Ports> {
    let port = |transport| {
        let mut served = addresses.iter().filter(|one| one.transport == transport);
        let is_open =
            |one: &&ElectrumAddress| network == Network::Regtest || !one.address.ip().is_loopback();
        served.find(is_open).map(|one| one.address.port())
    };
    let ports = Ports {
        tcp: port(ElectrumTransport::Tcp),
        ssl: port(ElectrumTransport::Ssl),
        ws: port(ElectrumTransport::Ws),
        wss: port(ElectrumTransport::Wss),
    };
    let named = options.hosts.iter().map(|host| (host.clone(), ports));
    named.collect()
}

/// What the server calls itself.
fn software() -> String {
    format!("Blocktorrent {}", env!("CARGO_PKG_VERSION"))
}
