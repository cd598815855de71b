//! One Bitcoin node of the operator: what is known of it, and the tasks that listen to it by RPC and ZMQ.

use std::path::PathBuf;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::feed::Feed;
use super::ledger::{NodeNumber, Verdict};
use super::status::{Counts, NodeStatus};
use crate::chain::bitcoind::answer::{BlockchainInfo, SubmitAnswer};
use crate::chain::bitcoind::backoff::Backoff;
use crate::chain::bitcoind::mempool::Feed as MempoolFeed;
use crate::chain::bitcoind::rpc::MAX_WAIT;
use crate::chain::bitcoind::zmq::{Zmq, ZmqEvent};
use crate::chain::bitcoind::{Rpc, RpcError, Status};
use crate::chain::{HeaderRefusal, Network};
use crate::net::Clock;
use crate::node::headers::HeaderBook;
use crate::node::stop::Stop;
use crate::time::Time;

/// The first wait before a connection is made anew: a restart of bitcoind takes some seconds, a hiccup less.
const LEAST_WAIT: Duration = Duration::from_millis(250);
/// The longest: the node may come back at any time, and trying costs it nothing.
const MOST_WAIT: Duration = Duration::from_secs(15);
/// Blocks that wait for a node's `submitblock`: what finds no room is given when the node is fed.
pub const MAX_SUBMISSIONS: usize = 16;
/// Headers fetched by RPC between two looks at whether to stop.
const HEADERS_STEP: u32 = 500;

/// What a node's tasks tell the desk.
#[derive(Debug)]
pub enum NodeReport {
    /// Its blocks are no longer followed by RPC; why.
    Unfollowed(RpcError),
    /// Its best block, of which the header is known here if the node could tell it.
    Tip {
        /// The hash of it.
        hash: BlockHash,
        /// The height of it.
        height: u32,
    },
    /// A header of its chain was refused here.
    Refused(HeaderRefusal),
    /// What it said of a block that was submitted to it.
    Submitted {
        /// The hash of it.
        hash: BlockHash,
        /// The height of it.
        height: u32,
        /// The answer.
        verdict: Verdict,
    },
    /// What ZMQ brought.
    Zmq(ZmqEvent),
}

/// A block on the way to `submitblock`.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The hash of it.
    pub hash: BlockHash,
    /// The height of it.
    pub height: u32,
    /// The block.
    pub block: Bytes,
}

/// One node.
#[derive(Debug)]
pub struct Link {
    /// How it was configured.
    pub name: String,
    /// Its folder with block files, if that is on this machine.
    pub blocks: Option<PathBuf>,
    /// Whether it is on this machine, and where its block files are was not found.
    pub lacks_blocks: bool,
    /// Where to dial it by P2P.
    pub p2p: Option<String>,
    /// When to dial it again.
    pub redial_at: Option<Time>,
    /// How long to wait with that.
    pub redial: Backoff,
    /// Its best block and the height of that, as far as it told.
    pub tip: Option<(BlockHash, u32)>,
    /// When to look whether it has what was heard from it.
    pub doubt_at: Option<Time>,
    /// What it lacks and is given.
    pub feed: Feed,
    /// Its answers.
    pub counts: Counts,
    /// Name and version that it gives itself.
    pub subversion: Option<String>,
    /// How changes of its mempool are heard of.
    pub mempool_feed: MempoolFeed,
    /// Whether its notifications come.
    pub zmq_is_up: bool,
    /// Blocks on the way to its `submitblock`, in order.
    pub submissions: mpsc::Sender<Submission>,
    /// When to follow its blocks by RPC again; `None` while they are, or while it does not answer.
    pub follow_at: Option<Time>,
    /// How long to wait with that.
    pub follow: Backoff,
    is_followed: bool,
    rpc: Option<Rpc>,
    rpc_is_up: bool,
    p2p_error: Option<String>,
}

impl Link {
    /// A node that is not reached yet.
    pub fn new(
        name: String,
        rpc: Option<Rpc>,
        p2p: Option<String>,
        submissions: mpsc::Sender<Submission>,
        seed: u64,
    ) -> Self {
        Self {
            submissions,
            name,
            blocks: None,
            lacks_blocks: false,
            p2p,
            redial_at: None,
            redial: Backoff::new(LEAST_WAIT, MOST_WAIT, seed),
            tip: None,
            doubt_at: None,
            feed: Feed::default(),
            counts: Counts::default(),
            subversion: None,
            mempool_feed: MempoolFeed::None,
            zmq_is_up: false,
            follow_at: None,
            follow: Backoff::new(LEAST_WAIT, MOST_WAIT, seed ^ 1),
            is_followed: false,
            rpc,
            rpc_is_up: false,
            p2p_error: None,
        }
    }

    /// Its RPC client, if it is to be reached so.
    pub fn rpc(&self) -> Option<&Rpc> {
        self.rpc.as_ref()
    }

    /// Whether it answers by RPC.
    pub fn rpc_is_up(&self) -> bool {
        self.rpc_is_up
    }

    /// It answers by RPC. Whether it did not before.
    pub fn set_up(&mut self, subversion: String, now: Time) -> bool {
        self.subversion = Some(subversion);
        if !self.is_followed && self.follow_at.is_none() {
            self.follow_at = Some(now);
        }
        !std::mem::replace(&mut self.rpc_is_up, true)
    }

    /// It can't be asked by RPC.
    pub fn set_down(&mut self) {
        self.rpc_is_up = false;
        self.follow_at = None;
    }

    /// Whether its blocks are to be followed by RPC from now on; then it counts as done.
    pub fn begin_follow(&mut self, now: Time) -> bool {
        let due = self.follow_at.is_some_and(|time| time <= now) && !self.is_followed;
        if due {
            self.follow_at = None;
            self.is_followed = true;
        }
        due
    }

    /// Its blocks are followed no longer; if it still answers, they are again after a while.
    pub fn unfollowed(&mut self, now: Time) {
        self.is_followed = false;
        self.follow_at = Some(now + self.follow.failed()).filter(|_| self.rpc_is_up);
    }

    /// No P2P connection came about. Whether the reason is new.
    pub fn set_p2p_error(&mut self, reason: String) -> bool {
        let new = self.p2p_error.as_ref() != Some(&reason);
        self.p2p_error = Some(reason);
        new
    }

    /// It is connected by P2P.
    pub fn clear_p2p_error(&mut self) {
        self.p2p_error = None;
    }

    /// When to look at it again.
    pub fn deadline(&self, now: Time) -> Option<Time> {
        let times = [
            self.feed.deadline(now),
            self.redial_at,
            self.follow_at,
            self.doubt_at,
        ];
        times.into_iter().flatten().min()
    }

    /// What RPC tells of it.
    pub fn status(
        &self,
        node: NodeNumber,
        known: &Status,
        p2p: bool,
        our_height: u32,
    ) -> NodeStatus {
        let height = self.tip.map(|(_, height)| height);
        NodeStatus {
            node,
            name: self.name.clone(),
            live: false,
            state: known.state.name(),
            reason: known.reason.clone(),
            subversion: self.subversion.clone(),
            rpc: self.rpc_is_up,
            p2p,
            zmq: self.zmq_is_up,
            bestblockhash: self.tip.map(|(hash, _)| hash.to_string()),
            blocks: height,
            lag: height.map(|height| i64::from(our_height) - i64::from(height)),
            p2p_error: self.p2p_error.clone(),
            submitted: self.counts,
        }
    }
}

/// What a node said of itself.
#[derive(Debug)]
pub struct Probed {
    /// Its chain.
    pub info: BlockchainInfo,
    /// Name and version.
    pub subversion: String,
    /// Its folder with block files, if that was asked for and is there.
    pub blocks: Option<PathBuf>,
}

/// Asks a node how it does, and checks that it is on `network`; on demand it also says where its block files are.
pub async fn probe(rpc: Rpc, network: Network, lacks_blocks: bool) -> Result<Probed, RpcError> {
    rpc.check_network(network).await?;
    let subversion = rpc.network_info().await?.subversion;
    let blocks = match lacks_blocks {
        // An old node can't say, and one whose log is elsewhere says nothing of use.
        true => rpc.log_path().await.ok().and_then(|log| {
            let blocks = log.parent()?.join("blocks");
            (log.is_absolute() && blocks.is_dir()).then_some(blocks)
        }),
        false => None,
    };
    Ok(Probed {
        info: rpc.blockchain_info().await?,
        subversion,
        blocks,
    })
}

/// What the tasks of one node need.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its number.
    pub node: NodeNumber,
    /// The header chain, which is brought to the node's by RPC if it has no other way.
    pub book: HeaderBook,
    /// The clock by which headers are judged.
    pub clock: Clock,
    /// Where reports go.
    pub reports: mpsc::Sender<(NodeNumber, NodeReport)>,
    /// The end.
    pub stop: Stop,
}

/// Nobody takes reports any more.
struct Unheard;

impl Listener {
    /// Follows the node's tip by RPC from `best` on, with a wait for each new block, until a call fails or the node
    /// stops.
    pub async fn follow(self, rpc: Rpc, best: (BlockHash, u32)) {
        let stop = self.stop.clone();
        let following = async {
            if let Err(error) = self.follow_tip(&rpc, best).await {
                self.tell(NodeReport::Unfollowed(error)).await.ok();
            }
        };
        tokio::select! {
            () = following => {}
            () = stop.stopped() => {}
        }
    }

    async fn follow_tip(
        &self,
        rpc: &Rpc,
        (mut hash, mut height): (BlockHash, u32),
    ) -> Result<Unheard, RpcError> {
        loop {
            self.catch_up(rpc, hash, height).await?;
            if self.tell(NodeReport::Tip { hash, height }).await.is_err() {
                return Ok(Unheard);
            }
            let seen = hash;
            let mut pause = LEAST_WAIT;
            while hash == seen {
                let asked = Instant::now();
                let tip = rpc.wait_for_new_block(MAX_WAIT, hash).await?;
                (hash, height) = (tip.hash, tip.height);
                // What answers at once, and nothing new, does not know how to wait.
                if hash == seen && asked.elapsed() < MAX_WAIT / 2 {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(MOST_WAIT);
                }
            }
        }
    }

    /// Brings the header chain to the node's tip, as far as it is not there yet.
    async fn catch_up(&self, rpc: &Rpc, tip: BlockHash, height: u32) -> Result<(), RpcError> {
        if self.book.place(tip).is_some() {
            return Ok(());
        }
        let mut next = self.fork(rpc, height).await? + 1;
        while next <= height {
            let mut headers = Vec::new();
            for height in next..=height.min(next + HEADERS_STEP - 1) {
                // A node that reorganises meanwhile has another tip soon, and is asked again.
                let Some(hash) = rpc.block_hash(height).await? else {
                    break;
                };
                let Some(bytes) = rpc.block_header(hash).await? else {
                    break;
                };
                let header: Header = deserialize(&bytes).expect("any 80 bytes are a header");
                headers.push(header);
            }
            let batch = self.book.submit_own(&headers, self.clock.now());
            if let Some(refusal) = batch.refusal
                && self.is_final(rpc, refusal).await?
                && self.tell(NodeReport::Refused(refusal)).await.is_err()
            {
                return Ok(());
            }
            if batch.accepted == 0 || batch.refusal.is_some() {
                return Ok(());
            }
            next += batch.accepted as u32;
        }
        Ok(())
    }

    /// Whether a refused header says something of the node's chain: one whose parent is unknown may be of a
    /// reorganisation that happened meanwhile, unless the chain does not go through our start.
    async fn is_final(&self, rpc: &Rpc, refusal: HeaderRefusal) -> Result<bool, RpcError> {
        if refusal != HeaderRefusal::UnknownParent {
            return Ok(true);
        }
        let start = self.book.start();
        Ok(rpc.block_hash(start.height).await? != Some(start.hash))
    }

    /// Height of the last block that the node's chain and ours share.
    async fn fork(&self, rpc: &Rpc, height: u32) -> Result<u32, RpcError> {
        let start = self.book.start().height;
        let mut above = self.book.chain().height.min(height);
        let mut step = 1;
        // Usually the tip, else a few below it; the distance doubles so that a far one is found too.
        loop {
            let theirs = rpc.block_hash(above).await?;
            if above <= start || theirs.is_some_and(|hash| self.book.hash_at(above) == Some(hash)) {
                return Ok(above.max(start));
            }
            above = above.saturating_sub(step).max(start);
            step *= 2;
        }
    }

    /// Submits blocks one after the other, so that a parent comes before its child, until the node stops.
    pub async fn submit(self, rpc: Rpc, mut blocks: mpsc::Receiver<Submission>) {
        let stop = self.stop.clone();
        let submitting = async {
            while let Some(submission) = blocks.recv().await {
                let Submission {
                    hash,
                    height,
                    block,
                } = submission;
                let verdict = match rpc.submit_block(&block).await {
                    Ok(SubmitAnswer::Accepted) => Verdict::Accepted,
                    Ok(SubmitAnswer::Duplicate) => Verdict::Duplicate,
                    Ok(SubmitAnswer::Inconclusive) => Verdict::Inconclusive,
                    Ok(SubmitAnswer::Invalid(reason)) => Verdict::Invalid(reason),
                    // These say nothing of the block.
                    Ok(SubmitAnswer::ParentUnknown) => {
                        Verdict::Failed("it does not know the parent".to_owned())
                    }
                    Ok(SubmitAnswer::TooEarly) => Verdict::Failed("ahead of its clock".to_owned()),
                    Err(error) => Verdict::Failed(error.to_string()),
                };
                let report = NodeReport::Submitted {
                    hash,
                    height,
                    verdict,
                };
                if self.tell(report).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = submitting => {}
            () = stop.stopped() => {}
        }
    }

    /// Listens by ZMQ until the node stops.
    pub async fn listen_zmq(self, mut zmq: Zmq) {
        let stop = self.stop.clone();
        let listening = async {
            while let Some(event) = zmq.next().await {
                if self.tell(NodeReport::Zmq(event)).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = listening => {}
            () = stop.stopped() => {}
        }
    }

    async fn tell(&self, report: NodeReport) -> Result<(), Unheard> {
        let sent = self.reports.send((self.node, report)).await;
        sent.map_err(|_| Unheard)
    }
}

#[cfg(test)]
mod tests;
