//! Messages after the handshake.

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::p2p::message_blockdata::Inventory;

use super::Peer;
use super::requests::Request;
use crate::chain::p2p::kind::Kind;
use crate::chain::p2p::message::{Message, announced, put_inventory};
use crate::chain::p2p::{
    BlockForm, Direction, MAX_BLOCK_HASHES, MAX_TOLD_BLOCKS, PeerEvent, Refusal, TransactionId,
};

/// Version of compact blocks that we speak: with wtxids.
const COMPACT_VERSION: u64 = 2;
/// More money than there can be, in satoshi: a fee filter above it is passed over, as Bitcoin Core does.
const MAX_MONEY: u64 = 21_000_000 * 100_000_000;

impl Peer {
    /// A message after both `verack`s.
    pub(super) fn handle_message(&mut self, message: Message) {
        match message {
            Message::Version(_) | Message::Verack => self.refuse(Refusal::Duplicate),
            // Bitcoin Core closes the connection upon any of these after `verack`.
            Message::WtxidRelay | Message::SendAddrV2 | Message::Feature(_) => {
                self.refuse(Refusal::Order);
            }
            Message::Advert(_) if self.greeting.advertised_late => self.refuse(Refusal::Duplicate),
            Message::Advert(advert) => {
                self.greeting.advertised_late = true;
                self.tell(PeerEvent::Advertised(advert));
            }
            Message::SendHeaders => self.greeting.prefers_headers = true,
            Message::SendCompact {
                high_bandwidth,
                version,
            } => {
                if version == COMPACT_VERSION {
                    self.greeting.compact = true;
                    self.greeting.wants_high_bandwidth = high_bandwidth;
                }
            }
            Message::FeeFilter(rate) if rate <= MAX_MONEY => self.tell(PeerEvent::FeeFilter(rate)),
            Message::FeeFilter(_) => self.count(Refusal::Unknown),
            Message::Ping(nonce) => self.send(Kind::Pong, nonce.to_le_bytes().to_vec()),
            Message::Pong(nonce) => self.handle_pong(nonce),
            Message::Headers(headers) => self.handle_headers(headers),
            Message::Inventory(entries) => self.handle_inventory(&entries),
            Message::NotFound(entries) => self.handle_not_found(&entries),
            Message::Block { hash, block } => self.handle_block(hash, block),
            Message::Transaction(transaction) => self.handle_transaction(transaction),
            Message::CompactBlock(block) => self.handle_compact_block(block),
            Message::BlockTransactions { hash, transactions } => {
                self.handle_block_transactions(hash, transactions);
            }
            Message::Addresses(gossip) => self.handle_addresses(gossip),
            Message::GetHeaders { locator, stop } => {
                self.request(Request::Headers { locator, stop });
            }
            Message::GetBlocks { locator, stop } => {
                self.request(Request::Hashes { locator, stop });
            }
            Message::GetData(entries) => self.handle_get_data(entries),
            Message::GetBlockTransactions { hash, indexes } => {
                self.request(Request::Parts { hash, indexes });
            }
            Message::GetAddresses => self.handle_get_addresses(),
            Message::Unserved => self.count(Refusal::Unserved),
            Message::Unknown => self.count(Refusal::Unknown),
        }
    }

    fn handle_headers(&mut self, headers: Vec<Header>) {
        let mut previous: Option<BlockHash> = None;
        for header in &headers {
            if previous.is_some_and(|hash| hash != header.prev_blockhash) {
                return self.refuse(Refusal::Discontinuous);
            }
            previous = Some(header.block_hash());
        }
        if let Some(hash) = previous {
            self.note_known(hash);
        }
        self.tell(PeerEvent::Headers(headers));
    }

    fn handle_inventory(&mut self, entries: &[Inventory]) {
        let mut blocks = Vec::new();
        let mut transactions = Vec::new();
        let count = entries
            .iter()
            .filter(|entry| matches!(entry, Inventory::Block(_)))
            .count();
        if count > MAX_BLOCK_HASHES {
            return self.refuse(Refusal::Inventories);
        }
        let mut passed_over = count.saturating_sub(MAX_TOLD_BLOCKS);
        for entry in entries {
            if let Inventory::Block(hash) = *entry {
                if passed_over > 0 {
                    passed_over -= 1;
                    continue;
                }
                self.note_known(hash);
                blocks.push(hash);
            } else if let Some(id) = announced(entry) {
                transactions.push(id);
            }
        }
        if !transactions.is_empty() && !self.config.relay_transactions {
            return self.refuse(Refusal::Transactions);
        }
        // BIP339: once agreed on, announcements by txid are passed over.
        let by_wtxid = self.greeting.wtxid_relay;
        transactions.retain(|id| matches!(id, TransactionId::Wtxid(_)) == by_wtxid);
        if !blocks.is_empty() {
            self.tell(PeerEvent::BlocksAnnounced(blocks));
        }
        if !transactions.is_empty() {
            self.tell(PeerEvent::TransactionsAnnounced(transactions));
        }
    }

    /// Only what was asked is passed on.
    fn handle_not_found(&mut self, entries: &[Inventory]) {
        let mut blocks = Vec::new();
        let mut transactions = Vec::new();
        for entry in entries {
            match *entry {
                Inventory::Block(hash)
                | Inventory::WitnessBlock(hash)
                | Inventory::CompactBlock(hash) => {
                    if self.fetches.forget_block(&hash) {
                        blocks.push(hash);
                    }
                }
                _ => {
                    if let Some(id) = announced(entry)
                        && self.fetches.forget_transaction()
                    {
                        transactions.push(id);
                    }
                }
            }
        }
        if blocks.is_empty() && transactions.is_empty() {
            return self.refuse(Refusal::Unsolicited);
        }
        if !blocks.is_empty() {
            self.tell(PeerEvent::BlocksNotFound(blocks));
        }
        if !transactions.is_empty() {
            self.tell(PeerEvent::TransactionsNotFound(transactions));
        }
    }

    /// Blocks become requests; transactions we have none to give.
    fn handle_get_data(&mut self, entries: Vec<Inventory>) {
        let mut absent = Vec::new();
        for entry in entries {
            let (hash, form) = match entry {
                Inventory::Block(hash) => (hash, BlockForm::Stripped),
                Inventory::WitnessBlock(hash) => (hash, BlockForm::Witness),
                Inventory::CompactBlock(hash) => (hash, BlockForm::Compact),
                _ if announced(&entry).is_some() => {
                    absent.push(entry);
                    continue;
                }
                _ => {
                    self.count(Refusal::Unserved);
                    continue;
                }
            };
            self.request(Request::Block { hash, form });
            if self.is_closed {
                return;
            }
        }
        if !absent.is_empty() {
            self.send(Kind::NotFound, put_inventory(&absent));
        }
    }

    /// Once, and only to whoever dialled us: it would tell a stranger whom we know otherwise (as Bitcoin Core).
    fn handle_get_addresses(&mut self) {
        let is_inbound = self.config.direction == Direction::Inbound;
        if self.requests.answered_addresses || !is_inbound {
            return self.count(Refusal::AddressAsk);
        }
        self.requests.answered_addresses = true;
        self.tell(PeerEvent::WantsAddresses);
    }
}
