//! Blocks on their way to the operator's Bitcoin nodes: by P2P and by `submitblock` at the same time, each once to each.

use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, Wtxid};
use bytes::Bytes;

use super::desk::Desk;
use super::fetches::Purpose;
use super::ledger::{NodeNumber, Verdict};
use super::peers::{Kind, PeerNumber};
use crate::chain::p2p::{BlockSummary, PeerCommand, build_compact};
use crate::node::driver::WholeBlock;
use crate::time::Time;

/// The largest share of a block that a compact block carries whole, one in so many bytes. Beyond it the
/// whole block is not much more, and spares the node the search in its mempool.
const PREFILL_SHARE: usize = 4;

impl Desk {
    /// Gives a block to every node that it is not from.
    pub fn give_to_nodes(&mut self, whole: &WholeBlock, now: Time) {
        let mut short = None;
        for (node, link) in self.links.iter().enumerate() {
            let Some(peer) = self.peers.of_node(node) else {
                continue;
            };
            if !self.ledger.give(whole.hash, node, false, now) {
                continue;
            }
            // A node that is far behind takes no compact block. If `submitblock` can't follow, it gets it all.
            let command = match link.rpc_is_up() {
                true => short.get_or_insert_with(|| block_for_node(whole)).clone(),
                false => whole_block(whole),
            };
            self.peers.send(peer, command);
        }
        for node in 0..self.links.len() {
            let block = whole.block.bytes.clone();
            self.submit(whole.hash, block, node, now);
        }
    }

    /// Calls a node's `submitblock`, if it is up and the block was not given to it in this way.
    pub fn submit(&mut self, hash: BlockHash, block: Bytes, node: NodeNumber, now: Time) {
        let Some(link) = self.links.get(node).filter(|link| link.rpc_is_up()) else {
            return;
        };
        // One that finds no room is given when the node is fed.
        let Ok(place) = link.submissions.try_reserve() else {
            return;
        };
        if self.ledger.give(hash, node, true, now) {
            place.send((hash, block));
        }
    }

    /// A node has answered `submitblock`.
    pub fn on_verdict(&mut self, hash: BlockHash, node: NodeNumber, verdict: Verdict) {
        let now = self.now();
        if let Some(link) = self.links.get_mut(node) {
            link.counts.count(&verdict);
            link.feed.answered(&hash, &verdict, now);
        }
        if let Verdict::Invalid(reason) = &verdict {
            tracing::error!(%hash, node, reason, "the Bitcoin node calls a block invalid; it is served no longer");
            self.at_hand.retain(|whole| whole.hash != hash);
            self.reject_in_engine(hash);
        }
        if self.ledger.verdict(hash, node, verdict, now) {
            self.tell_line(hash);
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

    /// Tells a new peer of our tip: if it lacks that, it asks.
    pub fn announce_tip(&mut self, number: PeerNumber) {
        let tip = self.shared.book.chain();
        if let Some(header) = self.shared.book.from_height(tip.height, 1).first() {
            let summary = BlockSummary {
                header: *header,
                compact: None,
            };
            self.peers.send(number, PeerCommand::AnnounceBlock(summary));
        }
    }

    /// Gives a node that has fallen behind the next block that it lacks, one after the other.
    pub fn feed(&mut self, node: NodeNumber, now: Time) {
        let Some(link) = self.links.get_mut(node) else {
            return;
        };
        if !link.rpc_is_up() {
            return;
        }
        let tip = *self.shared.book.watch_tip().borrow();
        let Some(next) = link.feed.next(link.tip, &self.shared.book, tip, now) else {
            return;
        };
        if self.ledger.invalid(&next).is_some() {
            link.feed.stop();
            return;
        }
        let given = self.ledger.get(&next).and_then(|it| it.given.get(&node));
        if given.is_some_and(|given| given.submitted.is_some()) {
            // On the way, or answered in the ordinary way.
            if let Some((_, verdict)) = given.and_then(|given| given.verdict.clone()) {
                link.feed.answered(&next, &verdict, now);
            }
            return;
        }
        if let Some(whole) = self.find_at_hand(&next) {
            let block = whole.block.bytes.clone();
            self.submit(next, block, node, now);
        } else {
            self.fetches.want(next, Purpose::Feed(node), now, now);
        }
    }

    /// Nobody has the block that a node lacks.
    pub fn fed_nothing(&mut self, node: NodeNumber) {
        if let Some(link) = self.links.get_mut(node) {
            link.feed.stop();
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
