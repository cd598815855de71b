//! What the owner wants: questions to the peer, announcements, faults that it found.

use bitcoin::BlockHash;
use bitcoin::p2p::message_blockdata::Inventory;
use bytes::Bytes;

use super::Peer;
use crate::chain::p2p::compact::put_wanted;
use crate::chain::p2p::kind::Kind;
use crate::chain::p2p::message::{
    asked, put_get_headers, put_headers, put_inventory, put_send_compact,
};
use crate::chain::p2p::{
    BlockForm, BlockSummary, CloseReason, PROTOCOL_VERSION, PeerCommand, PeerEvent, Refusal,
    TransactionId,
};

/// Most transactions asked by one `getdata` (Bitcoin Core's `MAX_GETDATA_SZ`).
///
/// Reason: Bitcoin Core asks no more at once; some implementations refuse more.
const MAX_GET_DATA: usize = 1_000;
/// Headers messages in a row that may connect to nothing.
///
/// Reason: one or two happen to an honest peer in a reorganisation (Bitcoin Core counted to ten as well).
const MAX_UNCONNECTING: u32 = 10;

impl Peer {
    pub(super) fn obey(&mut self, command: PeerCommand) {
        match command {
            PeerCommand::Disconnect(reason) => self.close(CloseReason::Asked(reason)),
            PeerCommand::Report => {
                let report = Box::new(self.report());
                self.tell(PeerEvent::Report(report));
            }
            PeerCommand::Misbehave { points, reason } => self.misbehaved(points, reason),
            command if !self.greeting.is_done() => {
                if !self.greeting.keep(command) {
                    self.count(Refusal::Backlog);
                }
            }
            command => self.obey_greeted(command),
        }
    }

    fn obey_greeted(&mut self, command: PeerCommand) {
        match command {
            PeerCommand::GetHeaders { locator, stop } => {
                let payload = put_get_headers(PROTOCOL_VERSION, locator, stop);
                self.send_if_room(Kind::GetHeaders, payload);
            }
            PeerCommand::GetBlock { hash, form } => self.get_block(hash, form),
            PeerCommand::GetBlockTransactions { hash, indexes } => {
                self.get_block_transactions(&hash, &indexes);
            }
            PeerCommand::GetTransactions(ids) => self.get_transactions(&ids),
            PeerCommand::GetAddresses => self.ask_addresses(),
            PeerCommand::AnnounceBlock(summary) => self.announce(summary),
            PeerCommand::PushBlock { hash, block } => {
                if self.send_if_room(Kind::Block, block) {
                    self.note_known(hash);
                }
            }
            PeerCommand::WantCompactBlocks { high_bandwidth } => {
                self.fetches.high_bandwidth = high_bandwidth;
                self.send(Kind::SendCompact, put_send_compact(high_bandwidth));
            }
            PeerCommand::HeadersConnected(true) => self.unconnecting = 0,
            PeerCommand::HeadersConnected(false) => {
                self.unconnecting += 1;
                if self.unconnecting > MAX_UNCONNECTING {
                    self.refuse(Refusal::Unconnecting);
                }
            }
            answer => self.answer(answer),
        }
    }

    /// Sends, unless too much waits already.
    pub(super) fn send_if_room(&mut self, kind: Kind, payload: impl Into<Bytes>) -> bool {
        let payload = payload.into();
        let fits = payload.len() <= kind.max_bytes() && self.output.has_room(payload.len());
        if fits {
            self.send(kind, payload);
        } else {
            self.count(Refusal::Backlog);
        }
        fits
    }

    fn get_block(&mut self, hash: BlockHash, form: BlockForm) {
        if !self.fetches.ask_block(hash, self.now) {
            return self.count(Refusal::Backlog);
        }
        let entry = match form {
            BlockForm::Witness => Inventory::WitnessBlock(hash),
            BlockForm::Stripped => Inventory::Block(hash),
            BlockForm::Compact => Inventory::CompactBlock(hash),
        };
        self.send(Kind::GetData, put_inventory(&[entry]));
    }

    fn get_block_transactions(&mut self, hash: &BlockHash, indexes: &[u32]) {
        match put_wanted(hash, indexes) {
            Some(payload) if self.fetches.ask_parts(*hash, indexes.len(), self.now) => {
                self.send(Kind::GetBlockTransactions, payload);
            }
            _ => self.count(Refusal::Backlog),
        }
    }

    fn get_transactions(&mut self, ids: &[TransactionId]) {
        for ids in ids.chunks(MAX_GET_DATA) {
            let entries: Vec<_> = ids.iter().map(asked).collect();
            if self.send_if_room(Kind::GetData, put_inventory(&entries)) {
                self.fetches.ask_transactions(ids.len());
            }
        }
    }

    /// Tells of a block: our own node, if it takes that, and whoever asked for it get a compact block at once, others
    /// what they prefer.
    fn announce(&mut self, summary: BlockSummary) {
        let BlockSummary { header, compact } = summary;
        let hash = header.block_hash();
        if self.known_blocks.contains(&hash) {
            return;
        }
        let at_once = self.greeting.wants_high_bandwidth || self.greeting.takes_unasked_blocks;
        let sent = match compact {
            Some(payload) if at_once && self.greeting.compact => {
                self.send_if_room(Kind::CompactBlock, payload)
            }
            _ if self.greeting.prefers_headers => {
                self.send_if_room(Kind::Headers, put_headers(&[header]))
            }
            _ => {
                let entry = Inventory::Block(hash);
                self.send_if_room(Kind::Inventory, put_inventory(&[entry]))
            }
        };
        if sent {
            self.note_known(hash);
        }
    }
}
