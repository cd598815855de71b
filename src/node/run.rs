//! Starts a node, keeps its parts together, and ends them in order.

use std::net::TcpListener as StdListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::net::TcpListener;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{mpsc, oneshot, watch};

use super::bitcoin;
use super::datadir::{Addresses, Datadir, DatadirError};
use super::driver::{Driver, Inputs, Outputs};
use super::electrum;
use super::engine::{EngineHandle, WholeBlock};
use super::events::{News, Stamped};
use super::files;
use super::headerfile::{self, HeaderFile};
use super::headers::HeaderBook;
use super::keys;
use super::limits;
use super::router::{self, BlockQueue};
use super::rpc::{self, auth::Credentials};
use super::sessions::{self, SessionsIn};
use super::settings::{self, Settings};
use super::signals;
use super::sockets::{self, Sockets};
use super::stop::Stop;
use super::store::BlockStore;
use crate::chain::Network;
use crate::chain::bitcoind::follow::FollowOutput;
use crate::config::{Config, ConfigError};
use crate::electrum::store::Writer;
use crate::net::control::BoundControl;
use crate::net::{BoundUdp, Clock, ControlHub, HubOptions, PrivateHub, SharedUplink, UdpPort};
use crate::relay::{Engine, EngineConfig};

/// News on the way to log and stdout: more than a block has chunks, times some blocks.
const MAX_NEWS: usize = 16_384;
/// Whole blocks on the way to the side towards Bitcoin, which the engine and the disk's queue hold anyway.
const MAX_BLOCKS: usize = 64;
/// The largest datagram that path probes try, in bytes of payload: what an Ethernet frame holds behind
/// IPv4 and UDP. Larger ones would be lost on nearly every path of the Internet.
const MAX_DATAGRAM: u16 = 1_472;
/// How long connections may take to end once the engine has let go of them, and how long whoever reads
/// the events may take to read the last of them.
const FAREWELL_TIME: Duration = Duration::from_secs(3);
/// How long the last packets of private links may take, by which peers learn of the end at once.
const CLOSING_TIME: Duration = Duration::from_millis(500);
/// How long running calls may take once the node stops.
const LAST_CALLS_TIME: Duration = Duration::from_secs(5);

/// Runs a node with these settings until it is told to stop.
///
/// # Errors
///
/// One line that says what to do.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    let config = &settings.config;
    let network = settings::network(config.network);
    let clock = Clock::start();
    settings::check_clock(clock.now().as_unix_seconds(), network)?;
    let book = HeaderBook::new(network, config.trusted_start).map_err(|error| {
        ConfigError::Senseless(format!("`trusted-start` makes no sense: {error}"))
    })?;
    let mut datadir = open_datadir(settings)?;
    let cant_use = |what: &str, path: &Path, error: std::io::Error| {
        let advice = files::advice(&error);
        anyhow!(error).context(format!("can't use {what} {}; {advice}", path.display()))
    };
    let blocks = datadir.folder().join("blocks");
    let store = BlockStore::open(&blocks, config.store_bytes)
        .map_err(|error| cant_use("the block store", &blocks, error))?;
    let headers = datadir.folder().join("headers.dat");
    let (headers, loaded) = HeaderFile::open(&headers, network, &book, clock.now())
        .map_err(|error| cant_use("the headers", &headers, error))?;
    if loaded.cut_bytes > 0 {
        tracing::warn!(
            bytes = loaded.cut_bytes,
            kept = loaded.headers,
            "headers.dat was damaged or of another start; what is lost is asked for again"
        );
    }
    // A kept block may be newer than the last header written; one that no longer fits is only kept.
    book.submit_linked(&store.headers(), clock.now());
    let index = config
        .electrum
        .is_on()
        .then(|| electrum::open(&config.electrum, datadir.folder(), network));
    let index = index.transpose()?;
    let wallets = &config.electrum;
    let max_wallets = wallets.is_on().then_some(wallets.max_sessions);
    limits::raise_descriptors(config.max_peers, max_wallets.unwrap_or(0));
    let sockets = sockets::bind(config, datadir.folder())?;
    // Only now: a node that can't start says why, in one line and nothing else.
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        network = %settings.config.network,
        datadir = %settings.folder.display(),
        "blocktorrent starts"
    );
    warn_of_retarget(config, network);
    let (peers, callers) = (runtime("peers")?, runtime("rpc")?);
    let parts = Parts {
        network,
        clock,
        book,
        store: Arc::new(store),
        index,
        callers: callers.handle().clone(),
    };
    let outcome = peers.block_on(serve(config, &mut datadir, parts, headers, sockets));
    callers.shutdown_timeout(Duration::from_secs(1));
    peers.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// The datadir, locked; who has it already is to be stopped by the flags that name it.
fn open_datadir(settings: &Settings) -> anyhow::Result<Datadir> {
    Datadir::open(&settings.folder).map_err(|error| match error {
        DatadirError::InUse(folder) => anyhow!(
            "the datadir {} is in use by another node; stop that one (`blocktorrent cli{} stop`) or give another --datadir",
            folder.display(),
            settings.flags()
        ),
        error => error.into(),
    })
}

/// A listener whose connections are watched by that runtime.
fn listener(callers: &Handle, bound: StdListener) -> std::io::Result<TcpListener> {
    let _context = callers.enter();
    TcpListener::from_std(bound)
}

fn runtime(name: &str) -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(name)
        .enable_all()
        .build()
        .context("can't start threads")
}

/// Says where the header chain will end if its start does not tell when the difficulty period began.
fn warn_of_retarget(config: &Config, network: Network) {
    let Some(start) = config.trusted_start else {
        return;
    };
    if let Some(height) = network.first_retarget_after(start.height)
        && start.epoch_start_time.is_none()
    {
        tracing::warn!(
            height,
            "the header chain can't go beyond the next retarget: `trusted-start` has no EPOCH_START_TIME; see `blocktorrent node --help`"
        );
    }
}

/// What has been opened before the sockets.
struct Parts {
    network: Network,
    clock: Clock,
    book: HeaderBook,
    store: Arc<BlockStore>,
    /// The Electrum index, if it is served.
    index: Option<Writer>,
    /// Where calls are answered.
    callers: Handle,
}

async fn serve(
    config: &Config,
    datadir: &mut Datadir,
    mut parts: Parts,
    headers: HeaderFile,
    sockets: Sockets,
) -> anyhow::Result<()> {
    let (stop, at_once) = watch_for_end(config)?;
    let rpc_listener = listener(&parts.callers, sockets.rpc.try_clone()?)?;
    let p2p = bitcoin::listen(config, parts.network).await?;
    let (wallets, served) = electrum::bind(&config.electrum, datadir.folder()).await?;
    let addresses = sockets::addresses(config, &sockets, &rpc_listener, p2p.as_ref(), served)?;
    warn_of_shortfalls(&sockets.data);
    let (hub, control) = ControlHub::new(hub_options(config, parts.clock, sockets.uplink));
    let keeper = tokio::spawn(headerfile::keep(headers, parts.book.clone(), stop.clone()));
    let (engine, commands) = EngineHandle::channel();
    let private = keys::open(&hub, config, sockets.private)?;
    let inputs = Inputs::new(control, private.datagrams, commands, stop.clone());
    let agent = agent(config);
    let (threads, ends) = Threads::start(config, &parts, &agent, sockets.data, inputs, &addresses)?;
    let (besides, mempool, missed) = bitcoin::Besides::new();
    let side = bitcoin::Parts {
        network: parts.network,
        clock: parts.clock,
        engine: engine.clone(),
        book: parts.book.clone(),
        store: Arc::clone(&parts.store),
        kept: threads.kept.clone(),
        whole: ends.whole,
        stop: stop.clone(),
        identity: bitcoin::identity(config, &agent, &addresses, random()?),
        listener: p2p,
        sessions: ends.sessions,
        mempool: parts.index.is_some().then_some(besides),
        find: find_parts(config, datadir, &addresses, &hub)?,
        seed: random()?,
    };
    let credentials = Credentials::new(&datadir.write_cookie()?, config.rpc_login.as_ref());
    datadir.write_addresses(&addresses)?;
    // Before any peer is let in or dialled, so that it is the first of the events.
    threads.announce(parts.clock, &addresses);
    let (bitcoin, desk) = bitcoin::start(side, &config.bitcoind);
    let told = (bitcoin.best(), mempool, missed, stop.clone());
    let (wallets, wallets_end) = serve_wallets(config, datadir, &mut parts, wallets, told)?;
    let context = rpc::Context {
        engine,
        bitcoin,
        store: parts.store,
        hub: hub.clone(),
        private: private.hub.clone(),
        electrum: wallets,
        named: config.find.external_ips.clone(),
        network: parts.network,
        agent,
        control: addresses.control,
        data: addresses.data,
        started: Instant::now(),
        stop: stop.clone(),
    };
    let server = (parts.callers).spawn(rpc::http::serve(rpc_listener, context, credentials));
    connect(&hub, private.hub.as_ref(), sockets.control, config)?;
    stop.stopped().await;
    tracing::info!("stopping");
    hub.stop();
    let last_calls = async { tokio::join!(server, keeper, desk, wallets_end) };
    tokio::select! {
        ended = in_order(threads, &hub, private.hub.as_ref(), last_calls) => ended,
        Ok(()) = at_once => bail!("ended at once, by a second signal"),
    }
}

/// What tells the node to end, and to end at once.
fn watch_for_end(config: &Config) -> anyhow::Result<(Stop, oneshot::Receiver<()>)> {
    let stop = Stop::default();
    let at_once = signals::watch(&stop)?;
    if config.test.stop_at_eof {
        watch_stdin(&stop)?;
    }
    Ok((stop, at_once))
}

/// What the Electrum server is told by the side towards Bitcoin, and the word to end.
type Told = (
    watch::Receiver<Option<bitcoin::Best>>,
    mpsc::Receiver<FollowOutput>,
    Arc<AtomicBool>,
    Stop,
);

/// Starts the Electrum server, if there is to be one; the task ends when it has ended.
fn serve_wallets(
    config: &Config,
    datadir: &Datadir,
    parts: &mut Parts,
    ready: Option<electrum::Ready>,
    (best, mempool, missed, stop): Told,
) -> anyhow::Result<(
    Option<electrum::ElectrumHandle>,
    tokio::task::JoinHandle<()>,
)> {
    let (Some(writer), Some(ready)) = (parts.index.take(), ready) else {
        return Ok((None, tokio::spawn(async {})));
    };
    let joins = electrum::Parts {
        network: parts.network,
        folder: datadir.folder().to_owned(),
        best,
        mempool,
        missed,
        stop,
        writer,
        ready,
    };
    let (handle, end) = electrum::start(&config.electrum, joins)?;
    Ok((Some(handle), end))
}

fn hub_options(config: &Config, clock: Clock, uplink: Option<SharedUplink>) -> HubOptions {
    HubOptions {
        max_inbound: config.max_peers as usize,
        uplink,
        ..HubOptions::new(clock)
    }
}

/// Says which buffers the system has made smaller than was asked.
fn warn_of_shortfalls(data: &BoundUdp) {
    for shortfall in data.shortfalls() {
        tracing::warn!("{shortfall}");
    }
}

/// What the search for peers is given.
fn find_parts(
    config: &Config,
    datadir: &Datadir,
    addresses: &Addresses,
    hub: &ControlHub,
) -> anyhow::Result<bitcoin::FindParts> {
    let bound = [Some(addresses.control), addresses.p2p];
    Ok(bitcoin::FindParts {
        options: config.find.clone(),
        file: datadir.folder().join(bitcoin::BOOK_FILE),
        ports: bitcoin::ports(config, addresses),
        bound: bound.into_iter().flatten().collect(),
        hub: hub.clone(),
        seeds: (random_bytes()?, random_bytes()?, (random()?, random()?)),
    })
}

/// Ends the engine and what hangs on it, then the calls that still run.
async fn in_order<T>(
    threads: Threads,
    hub: &ControlHub,
    private: Option<&PrivateHub>,
    last_calls: impl Future<Output = T>,
) -> anyhow::Result<()> {
    let ended = threads.end(hub).await;
    if let Some(private) = private {
        tokio::time::timeout(CLOSING_TIME, private.idle())
            .await
            .ok();
    }
    tokio::time::timeout(LAST_CALLS_TIME, last_calls).await.ok();
    ended
}

/// Lets peers in, and dials those that are configured.
fn connect(
    hub: &ControlHub,
    private: Option<&PrivateHub>,
    control: BoundControl,
    config: &Config,
) -> anyhow::Result<()> {
    hub.listen(control)
        .context("can't accept control connections")?;
    keys::connect(private, config)?;
    let network = settings::network(config.network);
    for peer in &config.connect {
        hub.keep_connected(&peer.with_port(network.control_port()))
            .map_err(|error| ConfigError::Senseless(format!("`connect`: {error}")))?;
    }
    Ok(())
}

/// What the engine's thread gives to the side towards Bitcoin.
struct Ends {
    whole: mpsc::Receiver<WholeBlock>,
    sessions: SessionsIn,
}

/// The threads of a node beside its runtime.
struct Threads {
    engine: JoinHandle<std::io::Result<()>>,
    events: JoinHandle<()>,
    store: JoinHandle<()>,
    kept: BlockQueue,
    news: mpsc::Sender<Stamped>,
}

impl Threads {
    fn start(
        config: &Config,
        parts: &Parts,
        agent: &str,
        data: BoundUdp,
        inputs: Inputs,
        addresses: &Addresses,
    ) -> anyhow::Result<(Self, Ends)> {
        let (news, read_news) = mpsc::channel(MAX_NEWS);
        let (blocks, queued) = router::block_queue();
        let (whole, read_whole) = mpsc::channel(MAX_BLOCKS);
        let (sessions, read_sessions) = sessions::sessions();
        let every_chunk = config.test.events_stdout;
        let events = named("events", move || router::tell(read_news, every_chunk))?;
        let store = Arc::clone(&parts.store);
        let store = named("store", move || router::keep(&store, queued))?;
        let outputs = Outputs {
            news: news.clone(),
            blocks: blocks.clone(),
            whole,
            sessions,
            every_chunk,
        };
        let engine = engine_config(config, parts.network, addresses, agent);
        let engine = start_engine(engine, parts, data, inputs, outputs)?;
        let threads = Self {
            engine,
            events,
            store,
            kept: blocks,
            news,
        };
        let ends = Ends {
            whole: read_whole,
            sessions: read_sessions,
        };
        Ok((threads, ends))
    }

    /// Says that the node can be reached.
    fn announce(&self, clock: Clock, addresses: &Addresses) {
        let ready = Stamped {
            time: clock.now(),
            news: News::Ready {
                control: addresses.control,
                data: addresses.data,
                rpc: addresses.rpc,
                p2p: addresses.p2p,
                quic: addresses.quic,
                electrum: addresses.electrum.clone(),
            },
            dropped_before: 0,
        };
        // The channel is larger than what can have happened so far.
        self.news.try_send(ready).ok();
    }

    /// Waits for the engine, which has been told to stop, its connections, and what it has left behind.
    async fn end(self, hub: &ControlHub) -> anyhow::Result<()> {
        drop(self.news);
        drop(self.kept);
        let ended = join(self.engine).await;
        let _ = tokio::time::timeout(FAREWELL_TIME, hub.closed()).await;
        join(self.store).await?;
        // Whoever was to read the events may have stopped reading, and need not be there any more.
        match tokio::time::timeout(FAREWELL_TIME, join(self.events)).await {
            Ok(joined) => joined?,
            Err(_) => tracing::warn!("the last events were not read, and are lost"),
        }
        ended?.context("the engine's thread failed")
    }
}

/// Gives the engine its thread. When it ends, for whatever reason, the node stops.
fn start_engine(
    config: EngineConfig,
    parts: &Parts,
    data: BoundUdp,
    inputs: Inputs,
    outputs: Outputs,
) -> anyhow::Result<JoinHandle<std::io::Result<()>>> {
    struct StopAtEnd(Stop);
    impl Drop for StopAtEnd {
        fn drop(&mut self) {
            self.0.stop();
        }
    }
    let seed = random_bytes()?;
    let (clock, book) = (parts.clock, parts.book.clone());
    named("engine", move || {
        let _stop = StopAtEnd(inputs.stop.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async move {
            let judge = Box::new(book.clone());
            let engine = Engine::new(config, judge, seed, clock.now());
            let port = UdpPort::new(data)?;
            Driver::new(engine, book, clock, port, outputs)?
                .run(inputs)
                .await
        })
    })
}

fn engine_config(
    config: &Config,
    network: Network,
    addresses: &Addresses,
    agent: &str,
) -> EngineConfig {
    let bytes_per_s = |kbit: u64| kbit.saturating_mul(125);
    let ports = bitcoin::ports(config, addresses);
    EngineConfig {
        network_magic: network.magic_number(),
        max_block_bytes: u32::try_from(network.max_block_bytes())
            .expect("a block is smaller than 4 GiB"),
        max_transactions: u32::try_from(network.max_transactions())
            .expect("a block has fewer than 2^32 transactions"),
        udp_port: addresses.data.port(),
        // Who does not want to be found does not say where.
        control_port: if config.find.is_on { ports.control } else { 0 },
        bitcoin_port: ports.bitcoin,
        push_level: config.push_level,
        preference: config.preference,
        role: config.role.code(),
        max_up_bytes_per_s: config.max_up_kbit.map(bytes_per_s),
        max_down_bytes_per_s: config.max_down_kbit.map(bytes_per_s),
        max_datagram: MAX_DATAGRAM,
        max_peers: config.max_peers as usize,
        reserved_outbound: config.reserved_outbound as usize,
        max_inbound_per_group: config.max_per_group as usize,
        max_mempool_bytes: usize::try_from(config.max_mempool_bytes).unwrap_or(usize::MAX),
        agent: agent.to_owned(),
        lie: config.test.test_lie,
    }
}

fn random_bytes<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| anyhow!("the system has no randomness: {error}"))?;
    Ok(bytes)
}

fn random() -> anyhow::Result<u64> {
    random_bytes().map(u64::from_le_bytes)
}

/// Name and version as peers are told, in the form of BIP14.
fn agent(config: &Config) -> String {
    let version = env!("CARGO_PKG_VERSION");
    match &config.comment {
        None => format!("/blocktorrent:{version}/"),
        Some(comment) => format!("/blocktorrent:{version}({comment})/"),
    }
}

fn named<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<JoinHandle<T>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .with_context(|| format!("can't start the thread `{name}`"))
}

/// Waits for a thread without holding up the runtime. A panic there is a bug, and the node's end.
async fn join<T: Send + 'static>(thread: JoinHandle<T>) -> anyhow::Result<T> {
    let name = thread.thread().name().unwrap_or("?").to_owned();
    match tokio::task::spawn_blocking(move || thread.join()).await {
        Ok(Ok(ended)) => Ok(ended),
        _ => {
            bail!("the thread `{name}` has panicked; this is a bug, please report it with the log")
        }
    }
}

/// Stops the node when stdin ends: whoever holds the other end has left, in whatever way.
fn watch_stdin(stop: &Stop) -> anyhow::Result<()> {
    let stop = stop.clone();
    // Nobody waits for this thread: it may read until the process ends.
    named("stdin", move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        stop.stop();
    })
    .map(drop)
}
