//! The side towards Bitcoin: the operator's own nodes, and the Bitcoin P2P network.
//!
//! ```text
//!   bitcoind ◀─ P2P ─▶ connection ─ events ─┐          ┌─▶ engine   blocks, compact blocks, transactions
//!            ─ ZMQ ──▶ listener ── reports ─┼─▶ desk ──┼─▶ store    what peers may ask for
//!            ◀─ RPC ─▶ listener ────────────┘    ▲     └─▶ connections and submitblock: what the engine has whole
//!   strangers ◀─ P2P ─▶ connections             engine
//! ```
//!
//! - `desk`: the one task that owns the state; what it does is split by subject:
//!   `hear` (what peers say), `reports` (what nodes tell by RPC and ZMQ), `hold` (fetching what is missing),
//!   `give` (blocks to the nodes), `serve` (answers to peers), `find` (peers found: the crawl's hands)
//! - `ledger`, `fetches`, `feed`, `orphans`, `status`: its state, without I/O
//! - `link`: one node of the operator, and the tasks that listen to it; `dial`, `peers`: P2P connections
//! - `best`: the preferred node and its tip, for those who follow it by themselves
//! - `open`: what the configuration says; `follower` and `transactions`: the mempools' way into the cache
//!
//! What it is not: a judge. The header chain says what has work, the engine what is in a tree, the
//! operator's node what is valid.

mod best;
mod desk;
mod dial;
mod feed;
mod fetches;
mod find;
mod follower;
mod give;
mod hear;
mod hold;
mod ledger;
mod link;
mod open;
mod orphans;
mod peers;
mod reports;
mod serve;
mod status;
mod transactions;

pub use best::Best;
pub use dial::Identity;
pub use find::CATCH_UP_ADVICE;
pub use find::file::FILE as BOOK_FILE;
pub use find::{FindCounts, FindParts, P2pPeer, Ports, Query, RelayKnown};
pub use follower::Besides;
pub use open::{identity, listen, ports};
pub use status::NodeStatus;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::chain::Network;
use crate::chain::bitcoind::find::{Finding, find};
use crate::chain::bitcoind::mempool::Feed;
use crate::chain::bitcoind::{Nodes, Rpc, Topic, Zmq};
use crate::chain::p2p::connection::{Accepted, Listener as P2pListener, Tally};
use crate::config::NodeSpec;
use crate::net::Clock;
use crate::node::engine::WholeBlock;
use crate::node::engine::{EngineGone, EngineHandle};
use crate::node::headers::HeaderBook;
use crate::node::router::BlockQueue;
use crate::node::sessions::SessionsIn;
use crate::node::stop::Stop;
use crate::node::store::BlockStore;
use desk::{Desk, Inputs, MAX_DONE, MAX_EVENTS, Shared};
use dial::Dialler;
use find::Finder;
use follower::Follower;
use ledger::NodeNumber;
use link::{Link, MAX_SUBMISSIONS};
use transactions::Sink;

/// Reports of nodes on the way to the desk: a burst of a block's transactions from ZMQ waits there, not here.
const MAX_REPORTS: usize = 64;

/// Questions of RPC on the way to the desk: further callers wait.
const MAX_QUERIES: usize = 16;

/// How long an answer may take: a second for reports of connections, and some for a machine with much else to do.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Connections that were made to us, on the way to the desk: further ones wait in the system.
const MAX_ARRIVALS: usize = 16;

/// What this side is given by the node around it.
#[derive(Debug)]
pub struct Parts {
    /// The network.
    pub network: Network,
    /// The clock.
    pub clock: Clock,
    /// The engine.
    pub engine: EngineHandle,
    /// The header chain.
    pub book: HeaderBook,
    /// Blocks on disk.
    pub store: Arc<BlockStore>,
    /// Blocks on the way there.
    pub kept: BlockQueue,
    /// Blocks that the engine has whole.
    pub whole: mpsc::Receiver<WholeBlock>,
    /// The signal to end.
    pub stop: Stop,
    /// Who we are on the Bitcoin P2P network.
    pub identity: Identity,
    /// Where Bitcoin's P2P protocol is served, if it is.
    pub listener: Option<P2pListener>,
    /// The sessions of the relay's protocol.
    pub sessions: SessionsIn,
    /// What the search for peers is given.
    pub find: FindParts,
    /// Where changes of the preferred node's mempool go besides, if anywhere.
    pub mempool: Option<Besides>,
    /// A seed for what need not be secret: the spread of tries to reconnect.
    pub seed: u64,
}

/// This side from outside.
#[derive(Clone, Debug)]
pub struct BitcoinHandle {
    status: watch::Receiver<Arc<Vec<NodeStatus>>>,
    best: watch::Receiver<Option<Best>>,
    tally: Arc<Tally>,
    listener: Option<Arc<P2pListener>>,
    queries: mpsc::Sender<Query>,
}

impl BitcoinHandle {
    /// A side without nodes, for tests of what only looks at it.
    #[cfg(test)]
    pub fn without_nodes() -> Self {
        let (_, status) = watch::channel(Arc::default());
        let (_, best) = watch::channel(None);
        let (queries, mut read_queries) = mpsc::channel(1);
        std::thread::spawn(move || {
            while let Some(query) = read_queries.blocking_recv() {
                match query {
                    Query::NodeAddresses { reply, .. } => drop(reply.send(Vec::new())),
                    Query::Relays(reply) => drop(reply.send(Vec::new())),
                    Query::Counts(reply) => drop(reply.send(Box::default())),
                    Query::Peers(reply) => drop(reply.send(Vec::new())),
                    Query::Disconnect(_, reply) => drop(reply.send(false)),
                }
            }
        });
        Self {
            status,
            best,
            queries,
            tally: Arc::default(),
            listener: None,
        }
    }

    /// The preferred node and its tip, as they change.
    pub fn best(&self) -> watch::Receiver<Option<Best>> {
        self.best.clone()
    }

    /// How the operator's nodes are.
    pub fn nodes(&self) -> Arc<Vec<NodeStatus>> {
        Arc::clone(&self.status.borrow())
    }

    /// What connections of Bitcoin's P2P protocol have refused.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// How many of them were refused, for there were too many.
    pub fn refused_connections(&self) -> u64 {
        let listener = self.listener.as_ref();
        listener.map_or(0, |listener| listener.refused())
    }

    /// Asks the desk what `query` makes of a place for the answer.
    ///
    /// # Errors
    ///
    /// The node is stopping, or the desk does not answer in time.
    pub async fn ask<T>(
        &self,
        query: impl FnOnce(oneshot::Sender<T>) -> Query,
    ) -> Result<T, EngineGone> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            let sent = self.queries.send(query(reply)).await;
            sent.map_err(|_| EngineGone::Stopped)?;
            answer.await.map_err(|_| EngineGone::Stopped)
        };
        let answered = tokio::time::timeout(ANSWER_TIME, asked).await;
        answered.unwrap_or(Err(EngineGone::Silent))
    }
}

/// Starts this side: the desk, and the tasks that listen to the nodes of `specs`. All end with the node, the desk
/// when it has written what it keeps.
pub fn start(parts: Parts, specs: &[NodeSpec]) -> (BitcoinHandle, JoinHandle<()>) {
    let (done, read_done) = mpsc::channel(MAX_DONE);
    let (events, read_events) = mpsc::channel(MAX_EVENTS);
    let (reports, read_reports) = mpsc::channel(MAX_REPORTS);
    let tally = Arc::<Tally>::default();
    let (queries, read_queries) = mpsc::channel(MAX_QUERIES);
    let (best, read_best) = watch::channel(None);
    let (status, read_status) = watch::channel(Arc::new(Vec::new()));
    let shared = Shared {
        network: parts.network,
        clock: parts.clock,
        engine: parts.engine.clone(),
        book: parts.book,
        store: parts.store,
        kept: parts.kept,
        done,
        reports,
        stop: parts.stop,
    };
    let links: Vec<Link> = specs
        .iter()
        .enumerate()
        .map(|(node, spec)| attend(&shared, node, spec, parts.seed.wrapping_add(node as u64)))
        .collect();
    let have_rpc: Vec<bool> = links.iter().map(|link| link.rpc().is_some()).collect();
    let (flag, now) = (parts.identity.flag, shared.clock.now());
    let own_node = !specs.is_empty();
    let finder = Finder::start(parts.find, parts.network, flag, own_node, now);
    let desk = Desk {
        links,
        nodes: Nodes::new(&have_rpc, now, parts.seed),
        follower: Follower::start(
            shared.engine.clone(),
            shared.clock,
            parts.seed,
            parts.mempool,
        ),
        dialler: Dialler {
            identity: parts.identity,
            events,
            tally: Arc::clone(&tally),
        },
        peers: peers::Peers::default(),
        ledger: ledger::Ledger::default(),
        fetches: fetches::Fetches::default(),
        orphans: orphans::Orphans::default(),
        finder,
        at_hand: std::collections::VecDeque::new(),
        transactions: Sink::start(parts.engine),
        floor: None,
        progress: None,
        lines: desk::Lines::default(),
        status,
        best,
        is_status_stale: true,
        shared,
    };
    desk.seed_from_operator();
    let listener = parts.listener.map(Arc::new);
    let inputs = Inputs {
        arrivals: arrivals(listener.clone(), &desk.shared.stop),
        whole: parts.whole,
        events: read_events,
        reports: read_reports,
        done: read_done,
        sessions: parts.sessions,
        queries: read_queries,
    };
    let desk = tokio::spawn(desk.run(inputs));
    let handle = BitcoinHandle {
        status: read_status,
        best: read_best,
        tally,
        listener,
        queries,
    };
    (handle, desk)
}

/// What is going to be accepted, if anything is.
fn arrivals(listener: Option<Arc<P2pListener>>, stop: &Stop) -> mpsc::Receiver<Accepted> {
    let (arrivals, read_arrivals) = mpsc::channel(MAX_ARRIVALS);
    if let Some(listener) = listener {
        tokio::spawn(accept(listener, arrivals, stop.clone()));
    }
    read_arrivals
}

/// Takes connections until the node stops.
async fn accept(listener: Arc<P2pListener>, arrivals: mpsc::Sender<Accepted>, stop: Stop) {
    let accepting = async { while arrivals.send(listener.accept().await).await.is_ok() {} };
    tokio::select! {
        () = accepting => {}
        () = stop.stopped() => {}
    }
}

/// Finds the ways to a node, says what was found and what is lacking, and listens on those that listen.
fn attend(shared: &Shared, node: NodeNumber, spec: &NodeSpec, seed: u64) -> Link {
    let found = find(spec, shared.network);
    for finding in &found.report {
        match finding {
            Finding::Lacks(_) => tracing::warn!("bitcoind {node} {finding}"),
            Finding::Found(_) | Finding::Tries(_) => tracing::info!("bitcoind {node}: {finding}"),
        }
    }
    let rpc = found
        .rpc
        .map(|(address, credentials)| Rpc::new(address, credentials));
    if !found.zmq.is_empty() {
        let topics = [
            Topic::RawBlock,
            Topic::HashBlock,
            Topic::RawTx,
            Topic::Sequence,
        ];
        let zmq = Zmq::subscribe(&found.zmq, &topics, seed);
        tokio::spawn(shared.listener(node).listen_zmq(zmq));
    }
    let (submissions, blocks) = mpsc::channel(MAX_SUBMISSIONS);
    if let Some(rpc) = rpc.clone() {
        tokio::spawn(shared.listener(node).submit(rpc, blocks));
    }
    let mempool_feed = match (found.zmq.is_empty(), &found.p2p) {
        (false, _) => Feed::Sequence { bodies: true },
        (true, Some(_)) => Feed::Bodies,
        (true, None) => Feed::None,
    };
    let mut link = Link::new(spec.to_string(), rpc, found.p2p, submissions, seed);
    link.mempool_feed = mempool_feed;
    link.lacks_blocks = found.blocks.is_none() && found.is_here;
    link.blocks = found.blocks;
    if link.p2p.is_some() {
        link.redial_at = Some(shared.clock.now());
    }
    link
}
