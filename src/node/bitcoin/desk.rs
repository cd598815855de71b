//! The one task that knows both sides: what Bitcoin nodes and peers bring, and what the engine has whole.
//!
//! It owns all state of this side and waits for nothing but the next input: the engine, the disk and RPC are
//! asked by tasks of their own, which put what they learn in its queue. So a node that hangs delays nobody.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, Txid};
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::best::Best;
use super::fetches::{Fetches, Origin, Purpose};
use super::find::{Finder, Found, Query};
use super::follower::Follower;
use super::ledger::{Ledger, NodeNumber, Via};
use super::link::{Link, Listener, NodeReport, Probed};
use super::orphans::Orphans;
use super::peers::{PeerNumber, Peers};
use super::status::NodeStatus;
use crate::chain::bitcoind::follow::FollowInput;
use crate::chain::bitcoind::{Nodes, RpcError};
use crate::chain::headers::RECENT;
use crate::chain::p2p::connection::Accepted;
use crate::chain::p2p::{CloseReason, PeerEvent};
use crate::chain::{Network, Tip};
use crate::net::Clock;
use crate::node::engine::EngineHandle;
use crate::node::engine::WholeBlock;
use crate::node::headers::HeaderBook;
use crate::node::quiet::Quiet;
use crate::node::router::BlockQueue;
use crate::node::sessions::SessionsIn;
use crate::node::stop::Stop;
use crate::node::store::BlockStore;
use crate::relay::{CompactAnswer, SubmitRefusal};
use crate::time::Time;

/// Whole blocks kept at hand, with their transactions: as many as the engine keeps, and what peers ask for first.
const MAX_AT_HAND: usize = 6;
/// What tasks have learnt, on the way to the desk: more than run at once.
pub(super) const MAX_DONE: usize = 256;
/// Events of peers on the way to the desk. A connection whose event finds no room waits, and so does its peer.
pub(super) const MAX_EVENTS: usize = 256;

/// How long a node that had no room for a block has to find some.
const OWED_PAUSE: Duration = Duration::from_millis(50);

/// What a task has learnt.
#[derive(Debug)]
pub(super) enum Done {
    /// A compact block was offered to the engine, or completed.
    Compact {
        peer: PeerNumber,
        hash: BlockHash,
        answer: Result<CompactAnswer, SubmitRefusal>,
    },
    /// A whole block was offered to the engine.
    Offered {
        hash: BlockHash,
        via: Via,
        origin: Origin,
        answer: Result<(), SubmitRefusal>,
    },
    /// The disk was asked for a block.
    Disk {
        hash: BlockHash,
        block: Option<Bytes>,
    },
    /// A node was asked for a block by RPC.
    Fetched {
        hash: BlockHash,
        node: NodeNumber,
        block: Result<Option<Bytes>, RpcError>,
    },
    /// A node was asked how it does: its chain, and the name and version that it gives itself.
    Probed {
        node: NodeNumber,
        answer: Result<Probed, RpcError>,
    },
    /// A block of long ago was checked: its transactions are those of its header, or not.
    Checked {
        hash: BlockHash,
        origin: Origin,
        block: Option<Bytes>,
    },
    /// The address of a node was looked up.
    LookedUp {
        node: NodeNumber,
        address: Result<SocketAddr, String>,
    },
    /// The search for peers has learnt something.
    Find(Found),
    /// A peer's answer was prepared.
    Answer {
        peer: PeerNumber,
        command: crate::chain::p2p::PeerCommand,
    },
}

/// What everyone on this side needs.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub network: Network,
    pub clock: Clock,
    pub engine: EngineHandle,
    pub book: HeaderBook,
    pub store: Arc<BlockStore>,
    /// Blocks on the way there.
    pub kept: BlockQueue,
    pub done: mpsc::Sender<Done>,
    pub reports: mpsc::Sender<(NodeNumber, NodeReport)>,
    pub stop: Stop,
}

impl Shared {
    /// What a task that listens to a node needs.
    pub fn listener(&self, node: NodeNumber) -> Listener {
        Listener {
            node,
            book: self.book.clone(),
            clock: self.clock,
            reports: self.reports.clone(),
            stop: self.stop.clone(),
        }
    }
}

/// Where the desk's inputs arrive.
#[derive(Debug)]
pub(super) struct Inputs {
    pub whole: mpsc::Receiver<WholeBlock>,
    pub arrivals: mpsc::Receiver<Accepted>,
    pub events: mpsc::Receiver<(PeerNumber, PeerEvent)>,
    pub reports: mpsc::Receiver<(NodeNumber, NodeReport)>,
    pub done: mpsc::Receiver<Done>,
    pub sessions: SessionsIn,
    pub queries: mpsc::Receiver<Query>,
}

/// Lines of log that others can cause, each kind now and then.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub own_header: Quiet,
    pub compact: Quiet,
    pub block: Quiet,
    pub doubt: Quiet,
    pub parent: Quiet,
    /// Blocks of peers whose parents are not known, and nobody to ask for headers.
    pub behind: Quiet,
    pub nobody: Quiet,
    pub zmq_lost: Quiet,
    pub zmq_up: Quiet,
    pub zmq_down: Quiet,
    pub p2p_down: Quiet,
}

/// The desk. See the module's documentation.
#[derive(Debug)]
pub(super) struct Desk {
    pub shared: Shared,
    pub peers: Peers,
    pub dialler: super::dial::Dialler,
    pub links: Vec<Link>,
    /// Who of them can be used, and who is asked.
    pub nodes: Nodes,
    /// Keeps the cache in step with the mempool of the one that is asked.
    pub follower: Follower,
    pub ledger: Ledger,
    pub fetches: Fetches,
    /// Blocks that came before their headers.
    pub orphans: Orphans,
    /// The search for peers.
    pub finder: Finder,
    /// The newest whole blocks, the last one newest.
    pub at_hand: VecDeque<WholeBlock>,
    /// Transactions on the way to the engine.
    pub transactions: super::transactions::Sink,
    /// The height from which on blocks are held, once the chain is known to be at the tip.
    pub floor: Option<u32>,
    /// Lines of log that others can cause.
    pub lines: Lines,
    /// When the progress of the headers was told last.
    pub progress: Option<Time>,
    pub status: watch::Sender<Arc<Vec<NodeStatus>>>,
    pub best: watch::Sender<Option<Best>>,
    /// Something has changed in what `status` told last.
    pub is_status_stale: bool,
}

impl Desk {
    /// Works until the node stops.
    pub async fn run(mut self, mut inputs: Inputs) {
        self.work(&mut inputs).await;
        self.close_book().await;
    }

    async fn work(&mut self, inputs: &mut Inputs) {
        let mut tip = self.shared.book.watch_tip();
        let mut lacks = self.shared.book.watch_lacks();
        let mut headers = self.shared.book.watch_news();
        let stop = self.shared.stop.clone();
        let mut stopped = std::pin::pin!(stop.stopped());
        loop {
            self.settle();
            let deadline = self.deadline();
            let sleep = async {
                match deadline {
                    Some(time) => {
                        let left = time.since(self.shared.clock.now());
                        tokio::time::sleep(left).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Blocks first: whatever else waits is less urgent.
                biased;
                () = &mut stopped => return,
                Some(whole) = inputs.whole.recv() => self.on_whole(whole),
                Some(done) = inputs.done.recv() => self.on_done(done),
                Some((node, report)) = inputs.reports.recv() => self.on_report(node, report),
                Some((peer, event)) = inputs.events.recv() => self.on_event(peer, event),
                Some(accepted) = inputs.arrivals.recv() => self.on_arrival(accepted),
                Ok(()) = inputs.sessions.open.changed() => {
                    let open = inputs.sessions.open.borrow_and_update().clone();
                    self.on_sessions(open);
                }
                Some(talk) = inputs.sessions.talk.recv() => self.on_address_talk(talk),
                Some(query) = inputs.queries.recv() => self.on_query(query),
                Ok(()) = tip.changed() => {
                    let tip = *tip.borrow_and_update();
                    self.on_tip(tip);
                }
                Ok(()) = lacks.changed() => self.fall_behind(),
                Ok(()) = headers.changed() => self.adopt_orphans(),
                () = sleep => {}
            }
        }
    }

    pub fn now(&self) -> Time {
        self.shared.clock.now()
    }

    fn deadline(&self) -> Option<Time> {
        let now = self.now();
        let owed = self.peers.any_owed().then(|| now + OWED_PAUSE);
        let feeding = self.links.iter().filter_map(|link| link.deadline(now));
        let probes = self.nodes.poll_deadline();
        let finding = self.finder.deadline(now);
        let times = feeding.chain(self.fetches.deadline()).chain(owed);
        let times = times.chain(probes).chain(self.peers.deadline());
        times.chain(finding).min()
    }

    /// Puts the questions that are due.
    fn settle(&mut self) {
        let now = self.now();
        self.dial_nodes();
        self.ask_nodes(now);
        for peer in self.peers.take_unheard() {
            self.on_closed(peer, CloseReason::NotReading);
        }
        // What found no room at a node is fed to it.
        self.peers.forget_owed();
        for node in 0..self.links.len() {
            self.feed(node, now);
        }
        self.fetch(now);
        self.find(now);
        self.tell_status();
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Compact { peer, hash, answer } => self.on_compact_answer(peer, hash, answer),
            Done::Offered {
                hash,
                via,
                origin,
                answer,
            } => self.on_offered(hash, via, origin, answer),
            Done::Disk { hash, block } => self.on_fetched(hash, Origin::Disk, block),
            Done::Fetched { hash, node, block } => self.on_fetched_by_rpc(hash, node, block),
            Done::Checked {
                hash,
                origin,
                block,
            } => self.on_checked(hash, origin, block),
            Done::Probed { node, answer } => self.on_probed(node, answer),
            Done::LookedUp { node, address } => self.on_looked_up(node, address),
            Done::Find(found) => self.on_found(found),
            Done::Answer { peer, command } => {
                self.peers.send(peer, command);
            }
        }
    }

    /// The engine has a block whole: it goes to every node, and to whoever waits for it.
    fn on_whole(&mut self, whole: WholeBlock) {
        let now = self.now();
        let hash = whole.hash;
        if !whole.local {
            self.ledger.heard(hash, Via::Relay, now - whole.elapsed);
        }
        let record = self.ledger.record(hash);
        if record.heard.is_empty() {
            record.heard.push((Via::Submitted, now));
        }
        // Of several ways the last one heard of is the one that made it whole.
        let via = match whole.local {
            false => Via::Relay,
            true => record.heard.last().map_or(Via::Submitted, |(via, _)| *via),
        };
        record.height = Some(whole.height);
        record.bytes = whole.block.bytes.len();
        record.transactions = (whole.block.transactions.len(), whole.block.lacked.len());
        record.requests = whole.requests;
        record.whole.get_or_insert((via, now));
        if self.at_hand.len() >= MAX_AT_HAND {
            self.at_hand.pop_front();
        }
        self.at_hand.push_back(whole.clone());
        self.tell_follower(&whole);
        self.give_to_nodes(&whole, now);
        self.announce(&whole);
        let purposes = self.fetches.got(&hash);
        self.satisfy(hash, &whole.block.bytes, &purposes, now);
        self.tell_line(hash);
    }

    /// The node's mempool loses what the block has.
    fn tell_follower(&mut self, whole: &WholeBlock) {
        let transactions = &whole.block.transactions;
        let ids = transactions
            .iter()
            .map(|it| Txid::from_byte_array(it.txid()));
        let block = FollowInput::Block(whole.hash, ids.collect());
        self.follower.tell(block);
    }

    fn on_tip(&mut self, tip: Tip) {
        if let Some(floor) = &mut self.floor {
            // The own node's chain may be shorter than one that was followed before.
            *floor = (*floor).min((tip.height + 1).saturating_sub(RECENT));
            self.hold_missing(tip, super::hold::Patience::RelayMayBring);
        }
        self.is_status_stale = true;
    }

    /// Runs a task whose result comes back to the desk.
    pub fn spawn(&self, task: impl Future<Output = Done> + Send + 'static) {
        let done = self.shared.done.clone();
        let stop = self.shared.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                result = task => { done.send(result).await.ok(); }
                () = stop.stopped() => {}
            }
        });
    }

    /// A block that is at hand.
    pub fn find_at_hand(&self, hash: &BlockHash) -> Option<&WholeBlock> {
        self.at_hand.iter().rev().find(|whole| whole.hash == *hash)
    }

    /// Who waits for a block gets it.
    pub fn satisfy(&mut self, hash: BlockHash, block: &Bytes, purposes: &[Purpose], now: Time) {
        for purpose in purposes {
            match *purpose {
                Purpose::Hold => {}
                Purpose::Serve(peer) => self.serve_fetched(peer, hash, block),
                Purpose::Feed(node) => self.feed_with(node, hash, block, now),
            }
        }
    }
}
