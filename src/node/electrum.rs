//! The Electrum server as part of the node: index, mempool, questions and clients joined.
//!
//! ```text
//!   bitcoin side ── preferred node and its tip ─▶ indexer (a thread) ── what changed ─▶ server ─▶ clients
//!                ── changes of its mempool ─────▶      │ index, mempool                  │ questions
//!                                                      └──────────▶ workers (threads) ◀──┤
//!                                         the node's RPC ◀── daemon ◀────────────────────┘
//! ```
//!
//! - `indexer`: the one who writes; - `workers`: who answer from what is written; - `daemon`: what only the node can answer

mod daemon;
mod indexer;
mod workers;

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
use crate::config::{ElectrumOptions, ElectrumTransport};
use crate::electrum::protocol::info::{Info, MAX_BANNER_BYTES};
use crate::electrum::query::Change;
use crate::electrum::server::{Admin, Asked, Certificate, Options, Server, Transport, Wires};
use crate::electrum::store::answer::Data;
use crate::electrum::store::{Store, Writer};

/// Questions on the way to those who answer them. Reason: each session may have a few; what finds no room waits in its session.
const MAX_ASKED: usize = 4_096;

/// Changes on the way to the clients. Reason: one comes with each block, and some with the mempool's; while the server takes
/// none, the indexer waits.
const MAX_CHANGES: usize = 64;

/// What this part is given by the node around it.
#[derive(Debug)]
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
}

/// What answers, once there is something to answer from.
type SharedData = Arc<OnceLock<Arc<Data>>>;

/// The server as it runs.
#[derive(Debug)]
pub struct Electrum {
    /// Where it listens.
    pub addresses: Vec<(Transport, std::net::SocketAddr)>,
    /// For those who operate it.
    pub admin: Admin,
    /// Ends when everything has ended.
    pub task: JoinHandle<()>,
}

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

/// Starts it.
///
/// # Errors
///
/// If it can't listen, or the banner or the certificate can't be read.
pub async fn start(
    options: &ElectrumOptions,
    writer: Writer,
    parts: Parts,
) -> anyhow::Result<Electrum> {
    let info = info(options, parts.network)?;
    let (tell_info, info) = watch::channel(Arc::new(info));
    let (asked, read_asked) = mpsc::channel::<Asked>(MAX_ASKED);
    let (changes, read_changes) = mpsc::channel::<Arc<Change>>(MAX_CHANGES);
    let data = SharedData::default();
    let wires = Wires {
        info,
        tip: None,
        data: asked,
        changes: read_changes,
        peers: None,
    };
    let stop = parts.stop.clone();
    let stopped = async move { stop.stopped().await };
    let server = Server::start(server_options(options, &parts.folder), wires, stopped).await?;
    for (transport, address) in &server.addresses {
        tracing::info!(
            "Electrum wallets are served at {}://{address}",
            transport.name()
        );
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
        writer,
        data,
        changes,
        info: tell_info,
    })
    .context("can't start a thread")?;
    let task = tokio::spawn(async move {
        server.task.await.ok();
        router.abort();
        indexer.ended().await;
    });
    Ok(Electrum {
        addresses: server.addresses,
        admin: server.admin,
        task,
    })
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
        ..Options::default()
    }
}

fn info(options: &ElectrumOptions, network: Network) -> anyhow::Result<Info> {
    let version = env!("CARGO_PKG_VERSION");
    let banner = match &options.banner {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("can't read `electrum-banner` {}", path.display()))?;
            anyhow::ensure!(
                text.len() <= MAX_BANNER_BYTES,
                "`electrum-banner` {} is longer than {MAX_BANNER_BYTES} bytes",
                path.display()
            );
            text
        }
        None => format!("Blocktorrent {version}"),
    };
    Ok(Info {
        software: format!("Blocktorrent {version}"),
        genesis: network.genesis().block_hash().to_byte_array(),
        hosts: std::collections::BTreeMap::new(),
        node: String::new(),
        banner,
        donation_address: options.donation_address.clone(),
        peers: Vec::new(),
    })
}
