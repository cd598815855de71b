//! What the operator's Bitcoin nodes tell by RPC and ZMQ.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash as _;
use bytes::Bytes;

use super::desk::Desk;
use super::fetches::{Origin, Purpose};
use super::ledger::{NodeNumber, Via};
use super::link::NodeReport;
use super::status::NodeStatus;
use crate::chain::bitcoind::answer::BlockchainInfo;
use crate::chain::bitcoind::follow::FollowInput;
use crate::chain::bitcoind::notice::{Notice, SequenceEvent};
use crate::chain::bitcoind::zmq::ZmqEvent;
use crate::chain::p2p::CloseReason;
use crate::node::engine::Command;

/// How long a block that a node has may take by P2P or ZMQ, before it is fetched by RPC.
const PUSH_GRACE: Duration = Duration::from_millis(250);

impl Desk {
    /// One report of one node.
    pub fn on_report(&mut self, node: NodeNumber, report: NodeReport) {
        match report {
            NodeReport::RpcUp { info, subversion } => self.on_rpc_up(node, &info, subversion),
            NodeReport::RpcDown(reason) => {
                if let Some(link) = self.links.get_mut(node)
                    && link.set_down(reason.clone())
                {
                    tracing::warn!(
                        node,
                        name = link.name,
                        reason,
                        "the Bitcoin node can't be asked by RPC"
                    );
                }
                self.refresh_status();
            }
            NodeReport::Tip { hash, height } => self.on_node_tip(node, hash, Some(height)),
            NodeReport::Submitted { hash, verdict } => self.on_verdict(hash, node, verdict),
            NodeReport::Zmq(event) => self.on_zmq(node, event),
        }
    }

    fn on_rpc_up(&mut self, node: NodeNumber, info: &BlockchainInfo, subversion: String) {
        let Some(link) = self.links.get_mut(node) else {
            return;
        };
        if link.set_up(subversion) {
            let name = &link.name;
            let subversion = link.subversion.as_deref().unwrap_or_default();
            tracing::info!(
                node,
                name,
                subversion,
                height = info.blocks,
                pruned = info.pruned,
                "connected to the Bitcoin node by RPC"
            );
            if info.initial_block_download {
                tracing::warn!(
                    node,
                    "the Bitcoin node is still downloading the chain; blocks are relayed, but it may not take them yet"
                );
            }
            link.feed.start();
            self.ledger.returned(node);
        }
        self.refresh_status();
    }

    /// A node has another best block.
    fn on_node_tip(&mut self, node: NodeNumber, hash: BlockHash, height: Option<u32>) {
        let place = self.shared.book.place(hash).map(|(height, _)| height);
        if let Some(link) = self.links.get_mut(node)
            && let Some(height) = height.or(place)
        {
            link.tip = Some((hash, height));
        }
        if place.is_none() {
            self.ask_headers();
        } else if !self.is_here(&hash) {
            let now = self.now();
            let pushed = self.peers.of_node(node).is_some()
                || self.links.get(node).is_some_and(|link| link.zmq_is_up);
            let grace = match pushed && self.floor.is_some() {
                true => PUSH_GRACE,
                false => Duration::ZERO,
            };
            if self.floor.is_some() && self.ledger.invalid(&hash).is_none() {
                self.fetches.want(hash, Purpose::Hold, now + grace, now);
            }
            self.chain_is_current();
        } else if self.floor.is_none() {
            self.chain_is_current();
        }
        self.refresh_status();
    }

    fn on_zmq(&mut self, node: NodeNumber, event: ZmqEvent) {
        let follower = self
            .links
            .get_mut(node)
            .and_then(|link| link.follower.as_mut());
        let is_followed = follower.is_some();
        if let Some(follower) = follower
            && let Some(input) = FollowInput::of_zmq(event.clone())
        {
            follower.tell(input);
        }
        match event {
            ZmqEvent::Connected { publisher } => {
                tracing::info!(node, publisher, "connected to the Bitcoin node by ZMQ");
                self.set_zmq(node, true);
            }
            ZmqEvent::Disconnected { publisher, reason } => {
                tracing::warn!(
                    node,
                    publisher,
                    reason,
                    "no ZMQ notifications from the Bitcoin node"
                );
                self.set_zmq(node, false);
            }
            ZmqEvent::Lost { topic, gap } => {
                tracing::warn!(
                    node,
                    topic = topic.name(),
                    missed = gap.missed,
                    "ZMQ notifications were lost; what is missing is asked for"
                );
                self.ask_headers();
            }
            ZmqEvent::Notice(Notice::RawBlock(block)) => self.on_raw_block(node, block),
            ZmqEvent::Notice(
                Notice::HashBlock(hash) | Notice::Sequence(SequenceEvent::Connected(hash)),
            ) => self.on_node_tip(node, hash, None),
            ZmqEvent::Notice(
                Notice::RawTx(_) | Notice::Sequence(SequenceEvent::Removed { .. }),
            ) if is_followed => {}
            ZmqEvent::Notice(Notice::RawTx(transaction)) => self.transactions.take(transaction),
            ZmqEvent::Notice(Notice::Sequence(SequenceEvent::Removed { txid, .. })) => {
                self.transactions.demote(txid.to_byte_array());
            }
            ZmqEvent::Notice(Notice::Sequence(
                SequenceEvent::Disconnected(_) | SequenceEvent::Added { .. },
            )) => {}
        }
    }

    fn set_zmq(&mut self, node: NodeNumber, up: bool) {
        if let Some(link) = self.links.get_mut(node) {
            link.zmq_is_up = up;
        }
        self.refresh_status();
    }

    fn on_raw_block(&mut self, node: NodeNumber, block: Bytes) {
        let Some(header) = block.get(..80) else {
            return;
        };
        let hash = BlockHash::hash(header);
        self.take_block(hash, block, Via::Zmq(node), Origin::Rpc(node));
    }

    /// A P2P connection to a node has ended, or did not come about.
    pub fn redial_node(&mut self, node: NodeNumber, was_ready: bool, reason: &CloseReason) {
        let now = self.now();
        let Some(link) = self.links.get_mut(node) else {
            return;
        };
        if was_ready {
            link.redial.succeeded();
        }
        link.redial_at = Some(now + link.redial.failed());
        if link.set_error(reason.to_string()) {
            let name = &link.name;
            tracing::warn!(node, name, %reason, "the Bitcoin node is not reached by P2P");
        }
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

    /// Tells RPC how the nodes are.
    pub fn refresh_status(&mut self) {
        let height = self.shared.book.chain().height;
        let mut all: Vec<NodeStatus> = self
            .links
            .iter()
            .enumerate()
            .map(|(node, link)| link.status(node, self.peers.of_node(node).is_some(), height))
            .collect();
        // The first that is up and not behind the others is the one that is followed.
        let best = all.iter().filter_map(|it| it.blocks).max();
        let live = all
            .iter_mut()
            .find(|it| (it.rpc || it.p2p || it.zmq) && (it.blocks.is_none() || it.blocks == best));
        if let Some(live) = live {
            live.live = true;
        }
        self.status.send_replace(Arc::new(all));
    }

    /// A block is not to be relayed or served: a node calls it invalid.
    pub fn reject_in_engine(&self, hash: BlockHash) {
        let engine = self.shared.engine.clone();
        let command = Command::RejectBlock(hash.to_byte_array());
        tokio::spawn(async move { engine.tell(command).await.ok() });
    }
}
