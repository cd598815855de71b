//! What peers ask of this node, as an ordinary peer with NODE_NETWORK_LIMITED (BIP159) answers it.

use bitcoin::block::Header;
use bitcoin::{Block, BlockHash};
use bytes::Bytes;

use super::desk::{Desk, Done};
use super::fetches::Purpose;
use super::give::compact_of;
use super::hold::SERVED_DEPTH;
use super::peers::{Kind, PeerNumber, Want};
use crate::chain::p2p::{
    BlockForm, MAX_BLOCK_HASHES, MAX_HEADERS_PER_MESSAGE, PeerCommand, strip_block,
};
use crate::node::engine::WholeBlock;

/// How deep a block may lie of which a compact form is given (Bitcoin Core's `MAX_CMPCTBLOCK_DEPTH`).
const COMPACT_DEPTH: u32 = 5;
/// How deep a block may lie of which parts are given (Bitcoin Core's `MAX_BLOCKTXN_DEPTH`).
const PART_DEPTH: u32 = 10;
/// Two blocks more than the promise, as BIP159 has it, for the peer's tip may lag behind ours.
const SLACK: u32 = 2;

impl Desk {
    /// A peer wants headers. None is an answer as well: then it has them all. None beyond the newest block that is
    /// here: whoever hears of a block asks for it, and bitcoind waits long for an answer.
    pub fn serve_headers(
        &mut self,
        number: PeerNumber,
        locator: &[BlockHash],
        stop: Option<BlockHash>,
    ) {
        let count = MAX_HEADERS_PER_MESSAGE;
        let newest = self.newest_held();
        let book = &self.shared.book;
        let headers = book.after_locator(locator, stop, newest, count);
        self.peers.send(number, PeerCommand::SendHeaders(headers));
    }

    /// A peer that does not go by headers wants to know which blocks it lacks. Only those are named that it would
    /// get; to one that lacks more there is nothing to say, as with Bitcoin Core when it is pruned.
    pub fn serve_hashes(
        &mut self,
        number: PeerNumber,
        locator: &[BlockHash],
        stop: Option<BlockHash>,
    ) {
        let book = &self.shared.book;
        let newest = self.newest_held();
        let headers = book.after_locator(locator, stop, newest, MAX_BLOCK_HASHES);
        let hashes = headers.iter().map(Header::block_hash);
        let hashes: Vec<BlockHash> = hashes.take_while(|hash| stop != Some(*hash)).collect();
        let tip = book.chain().height;
        let first = hashes.first().and_then(|first| book.place(*first));
        let in_reach = first.is_some_and(|(height, _)| height.saturating_add(SERVED_DEPTH) > tip);
        self.peers.send(
            number,
            match in_reach {
                true => PeerCommand::SendBlockHashes(hashes),
                false => PeerCommand::SendNothing,
            },
        );
    }

    /// A peer wants something.
    pub fn serve(&mut self, number: PeerNumber, want: Want) {
        let hash = want.hash();
        let tip = self.shared.book.chain().height;
        let Some(peer) = self.peers.get_mut(number) else {
            return;
        };
        let is_ours = matches!(peer.kind, Kind::Node(_));
        peer.want = Some(want);
        let height = self.shared.book.place(hash).map(|(height, _)| height);
        let in_reach = height
            .is_some_and(|height| is_ours || height.saturating_add(SERVED_DEPTH + SLACK) >= tip);
        if !in_reach || self.ledger.invalid(&hash).is_some() {
            self.serve_nothing(number, hash);
            return;
        }
        let at_hand = self.find_at_hand(&hash).cloned();
        if let Some(whole) = at_hand {
            self.serve_whole(number, &whole, tip);
            return;
        }
        let now = self.now();
        // What is not here is asked for only by whom we serve gladly; for others the disk has to do.
        let here = self.is_here(&hash) || self.fetches.is_wanted(&hash);
        let block = (height.unwrap_or_default(), hash);
        if !(here || is_ours || self.links.iter().any(super::link::Link::rpc_is_up))
            || !self.fetches.want(block, Purpose::Serve(number), now, now)
        {
            self.serve_nothing(number, hash);
        }
    }

    /// The block that a peer wants is not to be had.
    pub fn serve_nothing(&mut self, number: PeerNumber, hash: BlockHash) {
        if let Some(peer) = self.peers.get_mut(number)
            && peer.want.take_if(|want| want.hash() == hash).is_some()
        {
            self.peers.send(number, PeerCommand::SendNothing);
        }
    }

    /// Answers with a block that is at hand, with its transactions.
    fn serve_whole(&mut self, number: PeerNumber, whole: &WholeBlock, tip: u32) {
        let Some(want) = self.peers.get_mut(number).and_then(|peer| peer.want.take()) else {
            return;
        };
        let depth = tip.saturating_sub(whole.height);
        let block = whole.block.bytes.clone();
        let command = match want {
            Want::Block(_, BlockForm::Compact) if depth <= COMPACT_DEPTH => {
                match bitcoin::consensus::deserialize(block.get(..80).unwrap_or_default()) {
                    Ok(header) => PeerCommand::SendCompactBlock(compact_of(whole, &header, &[])),
                    Err(_) => PeerCommand::SendNothing,
                }
            }
            Want::Block(_, BlockForm::Compact | BlockForm::Witness) => {
                PeerCommand::SendBlock(block)
            }
            Want::Block(_, BlockForm::Stripped) => return self.serve_stripped(number, block),
            Want::Part(..) if depth > PART_DEPTH => PeerCommand::SendBlock(block),
            Want::Part(hash, indexes) => {
                let all = &whole.block.transactions;
                let transactions: Option<Vec<Bytes>> = indexes
                    .iter()
                    .map(|index| Some(all.get(*index as usize)?.bytes().clone()))
                    .collect();
                match transactions {
                    Some(transactions) => PeerCommand::SendBlockTransactions { hash, transactions },
                    None => PeerCommand::Misbehave {
                        points: 100,
                        reason: "asked for transactions that the block has not",
                    },
                }
            }
        };
        self.peers.send(number, command);
    }

    /// Answers with a block that has been fetched. It is not among the newest, so it goes whole.
    pub fn serve_fetched(&mut self, number: PeerNumber, hash: BlockHash, block: &Bytes) {
        // By now it may want another one.
        let peer = self.peers.get_mut(number);
        let Some(want) = peer.and_then(|peer| peer.want.take_if(|want| want.hash() == hash)) else {
            return;
        };
        match want {
            Want::Block(_, BlockForm::Stripped) => self.serve_stripped(number, block.clone()),
            Want::Block(..) | Want::Part(..) => {
                self.peers
                    .send(number, PeerCommand::SendBlock(block.clone()));
            }
        }
    }

    /// Answers with a block without its witnesses, as old wallets ask for it.
    fn serve_stripped(&self, peer: PeerNumber, block: Bytes) {
        let max_transactions = self.shared.network.max_transactions();
        self.spawn(async move {
            let stripped =
                tokio::task::spawn_blocking(move || strip_block(&block, max_transactions));
            let command = match stripped.await {
                Ok(Ok(block)) => PeerCommand::SendBlock(block),
                _ => PeerCommand::SendNothing,
            };
            Done::Answer { peer, command }
        });
    }
}

/// Whether the transactions of a serialized block are those that its header names, witnesses included.
pub(super) fn is_body_of_header(block: &[u8]) -> bool {
    bitcoin::consensus::deserialize::<Block>(block)
        .is_ok_and(|block| block.check_merkle_root() && block.check_witness_commitment())
}
