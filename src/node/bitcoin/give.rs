//! Blocks on their way to the operator's Bitcoin nodes: by P2P and by `submitblock` at the same time, each once to each.

use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, Wtxid};
use bytes::Bytes;

use super::desk::Desk;
use super::feed::is_below;
use super::fetches::Purpose;
use super::ledger::{NodeNumber, Standing, Verdict};
use super::link::{Link, Submission};
use super::peers::{Kind, PeerNumber};
use crate::chain::Tip;
use crate::chain::p2p::{BlockSummary, PeerCommand, PeerInfo, build_compact};
use crate::node::engine::WholeBlock;
use crate::time::Time;

/// The largest share of a block that a compact block carries whole, one in so many bytes. Beyond it the
/// whole block is not much more, and spares the node the search in its mempool.
const PREFILL_SHARE: usize = 4;

impl Desk {
    /// Gives a block to every node that it is not from. A node that lacks the parent is given that first, by
    /// [`Desk::feed`].
    pub fn give_to_nodes(&mut self, whole: &WholeBlock, now: Time) {
        let Some(parent) = header_of(&whole.block.bytes).map(|header| header.prev_blockhash) else {
            return;
        };
        let mut short = None;
        let mut given = Vec::new();
        for node in 0..self.links.len() {
            if !self.may_follow(node, parent) {
                continue;
            }
            let has_rpc = self.links.get(node).is_some_and(Link::rpc_is_up);
            // A node that is far behind takes no compact block. If `submitblock` can't follow, it gets it all.
            let command = match (self.takes_unasked(node), has_rpc) {
                (true, true) => short.get_or_insert_with(|| block_for_node(whole)).clone(),
                (true, false) => whole_block(whole),
                (false, _) => announcement(whole),
            };
            self.send_to_node(node, (whole.height, whole.hash), command, now);
            given.push(node);
        }
        for node in given {
            let block = whole.block.bytes.clone();
            self.submit((whole.height, whole.hash), block, node, now);
        }
    }

    /// Whether a node takes blocks by P2P that it did not ask for.
    fn takes_unasked(&self, node: NodeNumber) -> bool {
        let peer = self.peers.of_node(node).and_then(|it| self.peers.get(it));
        let info = peer.and_then(|peer| peer.info.as_ref());
        info.is_some_and(PeerInfo::takes_unasked_blocks)
    }

    /// Whether a node has the block `parent`, or gets it before whatever it is given now.
    fn may_follow(&self, node: NodeNumber, parent: BlockHash) -> bool {
        let Some(link) = self.links.get(node) else {
            return false;
        };
        let has = link
            .tip
            .is_none_or(|(tip, _)| is_below(&self.shared.book, parent, tip));
        has || match self.ledger.standing(&parent, node, link.rpc_is_up()) {
            Standing::Given => true,
            Standing::Answered(verdict) => !matches!(verdict, Verdict::Invalid(_)),
            Standing::NotGiven => false,
        }
    }

    /// Sends a block by P2P, if the node is connected so and the block was not given to it in this way. A node without
    /// RPC is asked what has become of it.
    fn send_to_node(
        &mut self,
        node: NodeNumber,
        (height, hash): (u32, BlockHash),
        command: PeerCommand,
        now: Time,
    ) {
        let Some(peer) = self.peers.of_node(node) else {
            return;
        };
        if !self.ledger.may_give(&hash, node, false) || !self.peers.send(peer, command) {
            return;
        }
        self.ledger.give(hash, node, false, now);
        if !self.links.get(node).is_some_and(Link::rpc_is_up) {
            self.ask_fate(node, (height, hash), now);
        }
    }

    /// Asks a node without RPC what has become of a block that was sent to it.
    fn ask_fate(&mut self, node: NodeNumber, block: (u32, BlockHash), now: Time) {
        if let Some(peer) = self.peers.of_node(node) {
            let below = block.0.saturating_sub(1);
            let locator = self.shared.book.locator_at(below);
            self.peers.ask_headers(peer, locator, Some(block), now);
        }
    }

    /// Calls a node's `submitblock`, if it is up and the block was not given to it in this way.
    fn submit(&mut self, place: (u32, BlockHash), block: Bytes, node: NodeNumber, now: Time) {
        let (height, hash) = place;
        let Some(link) = self.links.get(node).filter(|link| link.rpc_is_up()) else {
            return;
        };
        // One that finds no room is given when the node is fed.
        let Ok(room) = link.submissions.try_reserve() else {
            return;
        };
        if self.ledger.give(hash, node, true, now) {
            room.send(Submission {
                hash,
                height,
                block,
            });
        }
    }

    /// A node has answered `submitblock`.
    pub fn on_verdict(&mut self, hash: BlockHash, height: u32, node: NodeNumber, verdict: Verdict) {
        let now = self.now();
        if let Some(link) = self.links.get_mut(node) {
            link.counts.count(&verdict);
            link.feed.answered(height, hash, &verdict, now);
        }
        self.is_status_stale = true;
        if let Verdict::Invalid(reason) = &verdict {
            tracing::error!(%hash, node, reason, "the Bitcoin node calls a block invalid; it is served no longer (the log of that node says more)");
            self.at_hand.retain(|whole| whole.hash != hash);
            self.shared.kept.forget(hash.to_byte_array());
            self.fetches.give_up(&hash);
            self.reject_in_engine(hash);
        }
        if verdict == Verdict::Accepted
            && self.ledger.is_doubted(&hash, node)
            && let Some(more) = self.lines.doubt.turn()
        {
            tracing::warn!(%hash, node, "the Bitcoin node told of a block that it did not have: is its ZMQ that of another node? It was given the block{more}");
        }
        if self.ledger.verdict(hash, node, verdict, now) {
            self.tell_line(hash);
        }
        let doubt_at = self.ledger.doubt_at(&hash, node);
        if let Some(link) = self.links.get_mut(node) {
            link.doubt_at = link.doubt_at.or(doubt_at);
        }
    }

    /// Tells peers that there is a new block, each as it likes to hear it.
    pub fn announce(&mut self, whole: &WholeBlock) {
        let Some(header) = header_of(&whole.block.bytes) else {
            return;
        };
        let others: Vec<PeerNumber> = self
            .peers
            .ready()
            .filter(|(_, peer)| !matches!(peer.kind, Kind::Node(_)))
            .map(|(number, _)| number)
            .collect();
        if others.is_empty() {
            return;
        }
        let summary = BlockSummary {
            header,
            compact: Some(compact_of(whole, &header, &[])),
        };
        for number in others {
            self.peers
                .send(number, PeerCommand::AnnounceBlock(summary.clone()));
        }
    }

    /// Tells a new peer of the newest block that is here: if it lacks that, it asks.
    pub fn announce_tip(&mut self, number: PeerNumber) {
        let height = self.newest_held();
        if let Some(header) = self.shared.book.from_height(height, 1).first() {
            let summary = BlockSummary {
                header: *header,
                compact: None,
            };
            self.peers.send(number, PeerCommand::AnnounceBlock(summary));
        }
    }

    /// Gives a node that has fallen behind the next block that it lacks, one after the other: by `submitblock`, or by
    /// P2P if it has no RPC.
    pub fn feed(&mut self, node: NodeNumber, now: Time) {
        let tip = *self.shared.book.watch_tip().borrow();
        if let Some(link) = self.links.get_mut(node)
            && link.doubt_at.take_if(|at| *at <= now).is_some()
        {
            link.feed.start();
        }
        while let Some((next, by_rpc)) = self.next_for(node, tip, now) {
            let (height, hash) = next;
            // Of what was only heard from it, by ZMQ for one, it may know nothing: its best block tells.
            match self.ledger.doubt_at(&hash, node).filter(|_| by_rpc) {
                Some(at) if at <= now => self.ledger.doubt(&hash, node),
                Some(at) => {
                    if let Some(link) = self.links.get_mut(node) {
                        link.doubt_at = link.doubt_at.or(Some(at));
                    }
                }
                None => {}
            }
            match self.ledger.standing(&hash, node, by_rpc) {
                Standing::Answered(Verdict::Invalid(_)) => return,
                Standing::Given => {
                    if !by_rpc {
                        self.ask_fate(node, next, now);
                    }
                    return;
                }
                Standing::Answered(verdict) => {
                    if let Some(link) = self.links.get_mut(node) {
                        link.feed.answered(height, hash, &verdict, now);
                    }
                }
                Standing::NotGiven => {
                    match self.block_here(&hash) {
                        Some(block) => self.feed_with(node, hash, &block, now),
                        None => {
                            let not_before = now + self.relay_grace(height, tip);
                            self.fetches
                                .want(next, Purpose::Feed(node), not_before, now);
                        }
                    }
                    return;
                }
            }
        }
    }

    /// Gives a node a block, if that is the next that it lacks.
    pub fn feed_with(&mut self, node: NodeNumber, hash: BlockHash, block: &Bytes, now: Time) {
        let tip = *self.shared.book.watch_tip().borrow();
        match self.next_for(node, tip, now) {
            Some((next @ (_, wanted), true)) if wanted == hash => {
                self.submit(next, block.clone(), node, now);
            }
            Some((next @ (_, wanted), false)) if wanted == hash => {
                let command = match header_of(block).filter(|_| !self.takes_unasked(node)) {
                    Some(header) => PeerCommand::AnnounceBlock(BlockSummary {
                        header,
                        compact: None,
                    }),
                    None => PeerCommand::PushBlock {
                        hash,
                        block: block.clone(),
                    },
                };
                self.send_to_node(node, next, command, now);
            }
            _ => {}
        }
    }

    /// The block that a node lacks next, and whether it is given to it by RPC.
    fn next_for(
        &mut self,
        node: NodeNumber,
        tip: Tip,
        now: Time,
    ) -> Option<((u32, BlockHash), bool)> {
        let link = self.links.get_mut(node)?;
        let by_rpc = link.rpc_is_up();
        if !by_rpc {
            self.peers.of_node(node)?;
        }
        let (best, _) = link.tip?;
        let next = link.feed.next(best, &self.shared.book, tip, now)?;
        Some((next, by_rpc))
    }

    /// A node without RPC has told its best block; `fate`: the block of which it was asked with this answer.
    pub fn on_fate(&mut self, node: NodeNumber, fate: Option<(u32, BlockHash)>, now: Time) {
        let Some(link) = self.links.get_mut(node).filter(|link| !link.rpc_is_up()) else {
            return;
        };
        let (Some((height, hash)), Some((tip, tip_height))) = (fate, link.tip) else {
            return;
        };
        let verdict = if is_below(&self.shared.book, hash, tip) {
            Verdict::Accepted
        } else if tip_height >= height {
            Verdict::Inconclusive
        } else {
            Verdict::Failed("it did not take it by P2P".to_owned())
        };
        link.counts.count(&verdict);
        link.feed.answered(height, hash, &verdict, now);
        if self.ledger.verdict(hash, node, verdict, now) {
            self.tell_line(hash);
        }
    }

    /// One line of log for a block: at first when it is whole, and again when the last node has answered.
    pub fn tell_line(&self, hash: BlockHash) {
        let Some(record) = self.ledger.get(&hash) else {
            return;
        };
        let answered = record
            .given
            .values()
            .all(|given| given.submitted.is_none() || given.verdict.is_some());
        if answered && record.whole.is_some() {
            let height = record.height.unwrap_or_default();
            tracing::info!(height, %hash, "block: {}", record.line());
        }
    }
}

fn header_of(block: &[u8]) -> Option<Header> {
    deserialize(block.get(..80)?).ok()
}

/// What a node of ours is sent: a compact block with what was lacking here, for its mempool is the one that
/// ours mirrors; or the whole block, if that was much.
fn block_for_node(whole: &WholeBlock) -> PeerCommand {
    let block = &whole.block;
    let lacked: usize = block
        .lacked
        .iter()
        .filter_map(|place| block.transactions.get(*place as usize))
        .map(|transaction| transaction.len())
        .sum();
    match header_of(&block.bytes) {
        Some(header) if lacked * PREFILL_SHARE <= block.bytes.len() => {
            PeerCommand::AnnounceBlock(BlockSummary {
                header,
                compact: Some(compact_of(whole, &header, &block.lacked)),
            })
        }
        _ => whole_block(whole),
    }
}

/// Tells that there is a block, for a node that wants to ask for it.
fn announcement(whole: &WholeBlock) -> PeerCommand {
    match header_of(&whole.block.bytes) {
        Some(header) => PeerCommand::AnnounceBlock(BlockSummary {
            header,
            compact: Some(compact_of(whole, &header, &[])),
        }),
        None => whole_block(whole),
    }
}

fn whole_block(whole: &WholeBlock) -> PeerCommand {
    PeerCommand::PushBlock {
        hash: whole.hash,
        block: whole.block.bytes.clone(),
    }
}

/// The compact block, with the coinbase and `prefill` whole.
pub(super) fn compact_of(whole: &WholeBlock, header: &Header, prefill: &[u32]) -> Bytes {
    let transactions: Vec<(Wtxid, Bytes)> = whole
        .block
        .transactions
        .iter()
        .map(|it| (Wtxid::from_byte_array(it.wtxid()), it.bytes().clone()))
        .collect();
    let mut prefill: Vec<u32> = std::iter::once(0).chain(prefill.iter().copied()).collect();
    prefill.sort_unstable();
    prefill.dedup();
    // The nonce need not be secret or new: whoever receives it could compute the ids of any.
    let nonce = u64::from(header.nonce);
    build_compact(header, nonce, &transactions, &prefill)
}
