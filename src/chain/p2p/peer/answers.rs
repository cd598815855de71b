//! The owner's answers to what the peer wants.

use bitcoin::p2p::message_blockdata::Inventory;
use bytes::Bytes;

use super::Peer;
use super::requests::Request;
use crate::chain::p2p::addresses::{put_v1, put_v2};
use crate::chain::p2p::kind::Kind;
use crate::chain::p2p::message::{put_block_transactions, put_headers, put_inventory};
use crate::chain::p2p::{AddressRecord, BlockForm, MAX_BLOCK_HASHES, PeerCommand, Refusal};

impl Peer {
    /// Sends an answer, if there is a question for it: a late one is dropped and counted.
    pub(super) fn answer(&mut self, command: PeerCommand) {
        let (kind, payload, is_answer): (_, Bytes, fn(&Request) -> bool) = match command {
            PeerCommand::SendHeaders(headers) => {
                let payload = put_headers(&headers).into();
                (Kind::Headers, payload, |request| {
                    matches!(request, Request::Headers { .. })
                })
            }
            PeerCommand::SendBlockHashes(hashes) => {
                let hashes = hashes.into_iter().take(MAX_BLOCK_HASHES);
                let entries: Vec<_> = hashes.map(Inventory::Block).collect();
                let payload = put_inventory(&entries).into();
                (Kind::Inventory, payload, |request| {
                    matches!(request, Request::Hashes { .. })
                })
            }
            PeerCommand::SendBlock(block) => (Kind::Block, block, |request| {
                matches!(request, Request::Block { .. } | Request::Parts { .. })
            }),
            PeerCommand::SendCompactBlock(payload) => (Kind::CompactBlock, payload, |request| {
                let form = BlockForm::Compact;
                matches!(request, Request::Block { form: asked, .. } if *asked == form)
            }),
            PeerCommand::SendBlockTransactions { hash, transactions } => {
                let payload = put_block_transactions(&hash, &transactions).into();
                (Kind::BlockTransactions, payload, |request| {
                    matches!(request, Request::Parts { .. })
                })
            }
            PeerCommand::SendAddresses(records) => return self.send_addresses(&records),
            PeerCommand::SendNothing => {
                if !self.requests.answer(0, |_| true) {
                    self.count(Refusal::Backlog);
                }
                return;
            }
            // Everything else was carried out before.
            _ => return,
        };
        if self.requests.answer(payload.len(), is_answer) {
            self.send_if_room(kind, payload);
        } else {
            self.count(Refusal::Backlog);
        }
    }

    /// Addresses need no question: they are gossip as well.
    fn send_addresses(&mut self, records: &[AddressRecord]) {
        let (kind, payload) = if self.greeting.address_v2 {
            (Kind::AddressesV2, put_v2(records))
        } else {
            (Kind::Addresses, put_v1(records))
        };
        if !records.is_empty() {
            self.send_if_room(kind, payload);
        }
    }
}
