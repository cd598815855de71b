//! Looks at other servers, tells wallets of those that are good, and names this one to them.
//!
//! A server that named itself is asked only at the address that it came from, by the name it gave. What names lead to has to
//! be public, except on regtest: nobody makes this node knock at doors behind its firewall. Nothing is looked at before the index
//! is at the tip, for there would be nothing to compare.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::handle::ElectrumHandle;
use crate::chain::Network;
use crate::chain::addrbook::Host;
use crate::config::ElectrumOptions;
use crate::electrum::peers::{Candidate, PeerBook, Seen, TIP_TOLERANCE};
use crate::electrum::protocol::info::{Info, Ports};
use crate::electrum::query::{Answer, Query};
use crate::electrum::server::look::Talk;
use crate::node::stop::Stop;

/// Servers that are looked at at a time. Reason: each may take [`PATIENCE`], and each is a connection to somebody who did not ask
/// for it.
const MAX_LOOKS: usize = 4;

/// How long a look may take, with all that is asked.
const PATIENCE: Duration = Duration::from_secs(30);

/// Addresses of a name that are tried. Reason: one of each kind, and one to spare.
const MAX_ADDRESSES: usize = 3;

/// How often it is seen who is due.
const TICK: Duration = Duration::from_secs(1);

/// The usual port for TLS.
const SSL_PORT: u16 = 50_002;

/// What it is given.
pub struct Parts {
    handle: ElectrumHandle,
    info: watch::Sender<Arc<Info>>,
    offers: mpsc::Receiver<(IpAddr, Value)>,
    stop: Stop,
}

impl Parts {
    /// With those who name themselves.
    pub fn new(
        handle: &ElectrumHandle,
        info: &watch::Sender<Arc<Info>>,
        offers: mpsc::Receiver<(IpAddr, Value)>,
        stop: &Stop,
    ) -> Self {
        Self {
            handle: handle.clone(),
            info: info.clone(),
            offers,
            stop: stop.clone(),
        }
    }
}

/// What came of a look.
struct Looked {
    host: String,
    outcome: anyhow::Result<Good>,
}

/// What a server said that could be asked.
struct Good {
    address: IpAddr,
    features: Value,
    heights: (u32, u32),
    same_block: bool,
    peers: Value,
}

/// Runs until the node stops.
pub async fn run(options: ElectrumOptions, mut parts: Parts) {
    let network = parts.handle.network;
    let genesis = network.genesis().block_hash().to_string();
    let own = options.hosts.clone();
    let mut book = PeerBook::new(genesis, own, network == Network::Regtest);
    for peer in &options.peers {
        let ports = Ports {
            ssl: Some(peer.port().unwrap_or(SSL_PORT)),
            ..Ports::default()
        };
        if let Err(unfit) = book.add(peer.host(), ports, parts.handle.admin.now()) {
            tracing::warn!(peer = peer.host(), "`electrum-peer`: {unfit}");
        }
    }
    let mut looks = FuturesUnordered::new();
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            () = parts.stop.stopped() => return,
            offer = parts.offers.recv() => match offer {
                Some((from, features)) => {
                    // Who is unfit is not told so: the protocol's answer is only that it is heard.
                    book.offer(&features, from, parts.handle.admin.now()).ok();
                }
                None => return,
            },
            Some(looked) = looks.next(), if !looks.is_empty() => {
                settle(&mut book, &parts, looked);
            }
            _ = ticks.tick() => {}
        }
        while looks.len() < MAX_LOOKS && parts.handle.is_built() {
            let Some(candidate) = book.due(parts.handle.admin.now()) else {
                break;
            };
            looks.push(look(parts.handle.clone(), candidate));
        }
        tell(&book, &parts);
    }
}

/// Tells wallets, if there is anything new.
fn tell(book: &PeerBook, parts: &Parts) {
    let peers = book.told(parts.handle.admin.now());
    parts.info.send_if_modified(|info| {
        let is_new = info.peers != peers;
        if is_new {
            Arc::make_mut(info).peers = peers;
        }
        is_new
    });
}

fn settle(book: &mut PeerBook, parts: &Parts, looked: Looked) {
    let now = parts.handle.admin.now();
    let Looked { host, outcome } = looked;
    let judged = outcome.and_then(|good| {
        let seen: Seen = book.judge(&host, &good.features, good.heights, good.same_block)?;
        Ok((good, seen))
    });
    match judged {
        Ok((good, seen)) => {
            book.passed(&host, Some(good.address), seen, now);
            book.told_of(&good.peers, good.address, now);
        }
        Err(error) => {
            tracing::debug!(host, "an Electrum server is not told of: {error:#}");
            book.failed(&host, now);
        }
    }
}

async fn look(handle: ElectrumHandle, candidate: Candidate) -> Looked {
    let looking = tokio::time::timeout(PATIENCE, visit(&handle, &candidate));
    let outcome = looking
        .await
        .unwrap_or_else(|_| Err(anyhow::anyhow!("it takes too long")));
    Looked {
        host: candidate.host,
        outcome,
    }
}

/// Connects to the first of the addresses of its name that is fit and answers.
async fn open(
    handle: &ElectrumHandle,
    candidate: &Candidate,
    name: &str,
) -> anyhow::Result<(IpAddr, Talk)> {
    let (host, ports) = (candidate.host.as_str(), candidate.ports);
    let (port, has_tls) = match (ports.ssl, ports.tcp) {
        (Some(port), _) => (port, true),
        (None, Some(port)) => (port, false),
        (None, None) => anyhow::bail!("it has no port"),
    };
    let is_private = handle.network == Network::Regtest;
    let named = candidate.must_be.map(|ip| ip.to_canonical());
    let is_fit = |address: &SocketAddr| {
        let ip = address.ip().to_canonical();
        named.is_none_or(|named| named == ip) && (is_private || Host::from(ip).is_public())
    };
    let found = tokio::net::lookup_host((host, port)).await?;
    let mut last = anyhow::anyhow!("its name does not lead where it may");
    for address in found.filter(is_fit).take(MAX_ADDRESSES) {
        let opening = Talk::open(address, has_tls, host, name);
        match tokio::time::timeout(PATIENCE / 4, opening).await {
            Ok(Ok(talk)) => return Ok((address.ip(), talk)),
            Ok(Err(error)) => last = error.into(),
            Err(_) => last = anyhow::anyhow!("no connection in time"),
        }
    }
    Err(last)
}

async fn visit(handle: &ElectrumHandle, candidate: &Candidate) -> anyhow::Result<Good> {
    let us = handle.admin.info();
    let (address, mut talk) = open(handle, candidate, &us.software).await?;
    let features = talk.features().await?;
    let theirs = talk.height().await?;
    let Some((ours, _)) = handle.store.view().chain.tip() else {
        anyhow::bail!("there is no tip here");
    };
    let height = ours.min(theirs).saturating_sub(TIP_TOLERANCE);
    let query = Query::Header {
        height,
        checkpoint: None,
    };
    let Answer::Header { header, .. } = handle.ask(query).await? else {
        anyhow::bail!("there is no header here");
    };
    let same_block = talk.header(height).await? == header;
    let peers = talk.peers().await?;
    let is_listed = |peer: &Value| {
        let host = peer.get(1).and_then(Value::as_str).unwrap_or_default();
        us.hosts.contains_key(host)
    };
    let lists_us = peers.as_array().into_iter().flatten().any(is_listed);
    if same_block && !us.hosts.is_empty() && !lists_us {
        talk.add_us(&us.features()).await?;
    }
    Ok(Good {
        address,
        features,
        heights: (ours, theirs),
        same_block,
        peers,
    })
}
