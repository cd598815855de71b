//! What the operator's Bitcoin nodes tell by RPC and ZMQ.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::hashes::Hash as _;
use bytes::Bytes;

use super::desk::{Desk, Done};
use super::fetches::{Origin, Purpose};
use super::ledger::{NodeNumber, Via};
use super::link::{Link, NodeReport, Probed, probe};
use super::status::NodeStatus;
use crate::chain::HeaderRefusal;
use crate::chain::bitcoind::follow::FollowInput;
use crate::chain::bitcoind::notice::{Notice, SequenceEvent};
use crate::chain::bitcoind::zmq::ZmqEvent;
use crate::chain::bitcoind::{NodesEvent, RpcError, State};
use crate::chain::p2p::{CloseReason, MAX_HEADERS_PER_MESSAGE};
use crate::node::engine::Command;
use crate::time::Time;

/// How long a block that a node has may take by P2P or ZMQ, before it is fetched by RPC.
const PUSH_GRACE: Duration = Duration::from_millis(250);
/// How long a connection must have been of use for the next try to come at once: what shakes hands and hangs up is
/// waited for longer each time.
const STEADY_TIME: Duration = Duration::from_secs(10);

impl Desk {
    /// One report of one node.
    pub fn on_report(&mut self, node: NodeNumber, report: NodeReport) {
        match report {
            NodeReport::Unfollowed(error) => {
                let now = self.now();
                self.on_rpc_error(node, &error);
                if let Some(link) = self.links.get_mut(node) {
                    link.unfollowed(now);
                }
            }
            NodeReport::Tip { hash, height } => {
                if let Some(link) = self.links.get_mut(node) {
                    link.follow.succeeded();
                }
                self.set_tip(node, hash, height);
                self.on_node_tip(node, hash);
            }
            NodeReport::Refused(refusal) => self.on_own_refusal(node, refusal),
            NodeReport::Submitted {
                hash,
                height,
                verdict,
            } => self.on_verdict(hash, height, node, verdict),
            NodeReport::Zmq(event) => self.on_zmq(node, event),
        }
    }

    /// A header of one of our nodes was refused: unless that is a matter of clocks, its chain can't be followed.
    pub fn on_own_refusal(&mut self, node: NodeNumber, refusal: HeaderRefusal) {
        let advice = refusal.advice();
        if refusal == HeaderRefusal::TooFarInFuture {
            if let Some(more) = self.lines.own_header.turn() {
                tracing::warn!(node, %refusal, "a header of the Bitcoin node was refused; {advice}{more}");
            }
            return;
        }
        let now = self.now();
        let reason = format!("its chain can't be followed here: {refusal}");
        if self.nodes.handle_foreign(now, node, Some(reason))
            && let Some(more) = self.lines.own_header.turn()
        {
            tracing::error!(node, %refusal, "the chain of the Bitcoin node can't be followed; {advice}{more}");
        }
        self.is_status_stale = true;
    }

    /// Asks the nodes how they do whose turn it is, and follows those that answer.
    pub fn ask_nodes(&mut self, now: Time) {
        self.nodes.handle_timeout(now);
        while let Some(node) = self.nodes.poll_probe(now) {
            let link = self.links.get(node);
            let known = link.and_then(|link| Some((link.rpc()?.clone(), link.lacks_blocks)));
            if let Some((rpc, lacks_blocks)) = known {
                let network = self.shared.network;
                self.spawn(async move {
                    let answer = probe(rpc, network, lacks_blocks).await;
                    Done::Probed { node, answer }
                });
            }
        }
        for (node, link) in self.links.iter_mut().enumerate() {
            if let (Some(rpc), Some(best)) = (link.rpc().cloned(), link.tip)
                && link.begin_follow(now)
            {
                tokio::spawn(self.shared.listener(node).follow(rpc, best));
            }
        }
        while let Some(event) = self.nodes.poll_event() {
            self.on_nodes_event(event);
        }
    }

    /// A node has answered how it does, or has not.
    pub fn on_probed(&mut self, node: NodeNumber, answer: Result<Probed, RpcError>) {
        let now = self.now();
        let Probed {
            info,
            subversion,
            blocks,
        } = match answer {
            Ok(answer) => answer,
            Err(error) => return self.on_rpc_error(node, &error),
        };
        let best = (info.best_block_hash, info.blocks);
        let pruned = info.pruned;
        self.shared.book.vouch(best.0);
        self.nodes.handle_info(now, node, info);
        self.is_status_stale = true;
        let Some(link) = self.links.get_mut(node) else {
            return;
        };
        if let Some(blocks) = blocks {
            link.lacks_blocks = false;
            link.blocks = Some(blocks);
        }
        if link.set_up(subversion, now) {
            link.tip = Some(best);
            link.feed.start();
            self.ledger.returned(node);
            let (name, height) = (&link.name, best.1);
            let subversion = link.subversion.as_deref().unwrap_or_default();
            tracing::info!(
                node,
                name,
                subversion,
                height,
                pruned,
                "connected to the Bitcoin node by RPC"
            );
        }
    }

    /// A call of a node's RPC has failed.
    pub fn on_rpc_error(&mut self, node: NodeNumber, error: &RpcError) {
        let now = self.now();
        self.nodes.handle_failure(now, node, error);
        if State::of_error(error).is_some()
            && let Some(link) = self.links.get_mut(node)
        {
            link.set_down();
        }
        self.is_status_stale = true;
    }

    fn on_nodes_event(&mut self, event: NodesEvent) {
        self.is_status_stale = true;
        match event {
            NodesEvent::State {
                node,
                from,
                to,
                reason,
            } => {
                let name = self.links.get(node).map(|link| link.name.as_str());
                match to {
                    State::Live => {
                        tracing::info!(node, name, %from, reason, "the Bitcoin node is live")
                    }
                    State::Unreachable if from == State::NeverReached => tracing::warn!(
                        node,
                        name,
                        reason,
                        "the Bitcoin node does not answer: does it run? Start it, or say by --bitcoind where it is; it is tried again"
                    ),
                    to => tracing::warn!(node, name, %from, reason, "the Bitcoin node is {to}"),
                }
            }
            NodesEvent::Preferred { from, to } => {
                let several = self.links.len() > 1;
                match to {
                    Some(node) if several => tracing::info!(
                        node,
                        before = from,
                        "this Bitcoin node is asked from now on"
                    ),
                    Some(_) => {}
                    None => {
                        tracing::warn!("no Bitcoin node can be asked; blocks are still relayed")
                    }
                }
                self.follow_mempool(to);
                let now = self.now();
                self.fetches.renew(now);
            }
        }
    }

    /// The mempool of this node is followed from now on.
    fn follow_mempool(&mut self, node: Option<NodeNumber>) {
        let target = node.and_then(|node| {
            let link = self.links.get(node)?;
            Some((node, link.rpc()?.clone(), link.mempool_feed))
        });
        self.follower.switch(target);
    }

    /// A node without RPC, or whose RPC does not answer, is connected by P2P and claims this height.
    pub fn on_node_connected(&mut self, node: NodeNumber, height: u32) {
        let now = self.now();
        self.is_status_stale = true;
        let Some(link) = self.links.get_mut(node) else {
            return;
        };
        link.clear_p2p_error();
        if link.rpc_is_up() {
            return;
        }
        if link.rpc().is_some() {
            self.nodes.handle_reached(now, node);
        }
        let Some(link) = self.links.get_mut(node) else {
            return;
        };
        // Its best block is likely that of our chain; if not, its headers will tell.
        link.tip = self.shared.book.hash_at(height).map(|hash| (hash, height));
        link.feed.start();
        self.ledger.returned(node);
        self.nodes.handle_reached(now, node);
        if let Some((_, height)) = self.links.get(node).and_then(|link| link.tip) {
            self.nodes.handle_tip(now, node, height);
        }
    }

    /// A node's headers have come by P2P: without RPC they tell its best block, and what became of the block `fate`.
    pub fn on_node_headers(
        &mut self,
        node: NodeNumber,
        headers: &[Header],
        fate: Option<(u32, BlockHash)>,
    ) {
        let Some(link) = self.links.get(node).filter(|link| !link.rpc_is_up()) else {
            return;
        };
        let now = self.now();
        let book = &self.shared.book;
        let best = match (headers.last(), fate) {
            (Some(_), _) if headers.len() >= MAX_HEADERS_PER_MESSAGE => None,
            (Some(last), _) => {
                let hash = last.block_hash();
                book.place(hash).map(|(height, _)| (hash, height))
            }
            // It has nothing above what it was asked from.
            (None, Some((height, _))) if link.tip.is_none() => {
                let below = height.saturating_sub(1);
                book.hash_at(below).map(|hash| (hash, below))
            }
            (None, _) => None,
        };
        if let Some((hash, height)) = best {
            self.set_tip(node, hash, height);
        }
        self.on_fate(node, fate, now);
    }

    /// A node has told a new block by P2P or ZMQ; by RPC it is told in a moment, if there is that.
    pub fn on_pushed_tip(&mut self, node: NodeNumber, hash: BlockHash, height: u32) {
        let has_rpc = self.links.get(node).is_some_and(Link::rpc_is_up);
        if !has_rpc {
            self.set_tip(node, hash, height);
        }
    }

    fn set_tip(&mut self, node: NodeNumber, hash: BlockHash, height: u32) {
        let now = self.now();
        if let Some(link) = self.links.get_mut(node) {
            link.tip = Some((hash, height));
        }
        self.shared.book.vouch(hash);
        self.nodes.handle_tip(now, node, height);
        self.is_status_stale = true;
    }

    /// A node has another best block.
    fn on_node_tip(&mut self, node: NodeNumber, hash: BlockHash) {
        let place = self.shared.book.place(hash).map(|(height, _)| height);
        let Some(height) = place else {
            self.ask_headers();
            return;
        };
        let now = self.now();
        self.nodes.handle_foreign(now, node, None);
        // What the chain begins with is nobody's news.
        let is_new = height > self.shared.book.start().height;
        if is_new && !self.is_here(&hash) {
            let now = self.now();
            let pushed = self.peers.of_node(node).is_some()
                || self.links.get(node).is_some_and(|link| link.zmq_is_up);
            let grace = match pushed && self.floor.is_some() {
                true => PUSH_GRACE,
                false => Duration::ZERO,
            };
            if self.floor.is_some() && self.ledger.invalid(&hash).is_none() {
                self.fetches
                    .want((height, hash), Purpose::Hold, now + grace, now);
            }
            self.chain_is_current();
        } else if self.floor.is_none() {
            self.chain_is_current();
        }
    }

    fn on_zmq(&mut self, node: NodeNumber, event: ZmqEvent) {
        let is_followed = self.follower.follows(node);
        if is_followed && let Some(input) = FollowInput::of_zmq(event.clone()) {
            self.follower.tell(input);
        }
        let is_asked = self.nodes.preferred() == Some(node);
        match event {
            ZmqEvent::Connected { publisher } => {
                if let Some(more) = self.lines.zmq_up.turn() {
                    tracing::info!(
                        node,
                        publisher,
                        "connected to the Bitcoin node by ZMQ{more}"
                    );
                }
                self.set_zmq(node, true, "");
            }
            ZmqEvent::Disconnected { publisher, reason } => {
                if let Some(more) = self.lines.zmq_down.turn() {
                    tracing::warn!(
                        node,
                        publisher,
                        reason,
                        "no ZMQ notifications from the Bitcoin node{more}"
                    );
                }
                self.set_zmq(node, false, &reason);
            }
            ZmqEvent::Lost { topic, gap } => {
                if let Some(more) = self.lines.zmq_lost.turn() {
                    tracing::warn!(
                        node,
                        topic = topic.name(),
                        missed = gap.missed,
                        "ZMQ notifications were lost; what is missing is asked for{more}"
                    );
                }
                self.ask_headers();
            }
            ZmqEvent::Notice(Notice::RawBlock(block)) => self.on_raw_block(node, block),
            ZmqEvent::Notice(
                Notice::HashBlock(hash) | Notice::Sequence(SequenceEvent::Connected(hash)),
            ) => {
                let place = self.shared.book.place(hash);
                // By P2P it is told as well, in order with what else is told there.
                if let Some((height, _)) = place.filter(|_| self.peers.of_node(node).is_none()) {
                    self.on_pushed_tip(node, hash, height);
                }
                self.on_node_tip(node, hash);
            }
            ZmqEvent::Notice(Notice::RawTx(transaction)) if !is_followed => {
                self.transactions.take(transaction);
            }
            // What another node no longer has, the one that is asked may have.
            ZmqEvent::Notice(Notice::Sequence(SequenceEvent::Removed { txid, .. }))
                if is_asked && !is_followed =>
            {
                self.transactions.demote(txid.to_byte_array());
            }
            ZmqEvent::Notice(Notice::RawTx(_) | Notice::Sequence(_)) => {}
        }
    }

    fn set_zmq(&mut self, node: NodeNumber, up: bool, reason: &str) {
        let now = self.now();
        if let Some(link) = self.links.get_mut(node) {
            link.zmq_is_up = up;
        }
        match up {
            true => self.nodes.handle_reached(now, node),
            false => self.lose_if_alone(node, reason),
        }
        self.is_status_stale = true;
    }

    /// A way to a node is gone: if it was the last of one without RPC, the node is.
    fn lose_if_alone(&mut self, node: NodeNumber, reason: &str) {
        let now = self.now();
        let by_zmq = self.links.get(node).is_some_and(|link| link.zmq_is_up);
        if !by_zmq && self.peers.of_node(node).is_none() {
            self.nodes.handle_lost(now, node, reason.to_owned());
        }
    }

    fn on_raw_block(&mut self, node: NodeNumber, block: Bytes) {
        let Some(header) = block.get(..80) else {
            return;
        };
        let hash = BlockHash::hash(header);
        self.take_block(hash, block, Via::Zmq(node), Origin::Rpc(node));
    }

    /// A P2P connection to a node has ended, or did not come about.
    pub fn redial_node(
        &mut self,
        node: NodeNumber,
        lasted: Option<Duration>,
        reason: &CloseReason,
    ) {
        let now = self.now();
        let Some(link) = self.links.get_mut(node) else {
            return;
        };
        if lasted.is_some_and(|lasted| lasted >= STEADY_TIME) {
            link.redial.succeeded();
        }
        link.redial_at = Some(now + link.redial.failed());
        if link.set_p2p_error(reason.to_string())
            && let Some(more) = self.lines.p2p_down.turn()
        {
            let name = &link.name;
            tracing::warn!(node, name, %reason, "the Bitcoin node is not reached by P2P{more}");
        }
        self.lose_if_alone(node, &reason.to_string());
        self.is_status_stale = true;
    }

    /// Dials the nodes whose time has come.
    pub fn dial_nodes(&mut self) {
        let now = self.now();
        for node in 0..self.links.len() {
            let Some(link) = self.links.get_mut(node) else {
                continue;
            };
            if let Some(address) = link.p2p.clone()
                && link.redial_at.is_some_and(|time| time <= now)
            {
                link.redial_at = None;
                self.dial_node(node, address);
            }
        }
    }

    /// Tells RPC how the nodes are, if that has changed.
    pub fn tell_status(&mut self) {
        if !std::mem::take(&mut self.is_status_stale) {
            return;
        }
        self.tell_best();
        let height = self.shared.book.chain().height;
        let preferred = self.nodes.preferred();
        let all = self.links.iter().zip(self.nodes.statuses()).enumerate();
        let all = all.map(|(node, (link, known))| NodeStatus {
            live: preferred == Some(node) && known.state == State::Live,
            ..link.status(node, known, self.peers.of_node(node).is_some(), height)
        });
        self.status.send_replace(Arc::new(all.collect()));
    }

    /// A block is not to be relayed or served: a node calls it invalid.
    pub fn reject_in_engine(&self, hash: BlockHash) {
        let engine = self.shared.engine.clone();
        let command = Command::RejectBlock(hash.to_byte_array());
        tokio::spawn(async move { engine.tell(command).await.ok() });
    }
}
