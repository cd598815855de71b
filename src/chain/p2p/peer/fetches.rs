//! What we asked of the peer, so that what it sends unasked is told apart.

use std::collections::BTreeMap;
use std::time::Duration;

use bitcoin::BlockHash;

use super::Peer;
use super::bucket::Bucket;
use crate::chain::p2p::addresses::Gossip;
use crate::chain::p2p::kind::Kind;
use crate::chain::p2p::{CloseReason, CompactBlock, MAX_ADDRESSES, PeerEvent, Refusal, Role};
use crate::time::Time;
use bytes::Bytes;

/// Most blocks asked and not yet here (Bitcoin Core's `MAX_BLOCKS_IN_TRANSIT_PER_PEER`).
///
/// Reason: it fills any link, and what a peer can make us wait for is bounded.
pub const MAX_BLOCKS_UNDER_WAY: usize = 16;
/// Most parts of compact blocks asked and not yet here.
///
/// Reason: as many blocks as may be under way.
const MAX_PARTS_UNDER_WAY: usize = MAX_BLOCKS_UNDER_WAY;
/// How long a block, or parts of one, may take.
///
/// Bitcoin Core says nothing when it does not have what was asked. Sixteen of the largest blocks at 4 Mbit/s take as
/// long; whoever is in a hurry asks somebody else sooner.
pub(super) const FETCH_TIME: Duration = Duration::from_secs(120);
/// Addresses that a peer may tell in 1,000 seconds (Bitcoin Core's `MAX_ADDR_RATE_PER_SECOND`, 0.1).
const ADDRESSES_PER_1000_S: u64 = 100;

/// What is under way.
pub(super) struct Fetches {
    /// Until when they may come.
    blocks: BTreeMap<BlockHash, Time>,
    /// How many transactions of which block, and until when.
    parts: BTreeMap<BlockHash, (usize, Time)>,
    /// Transactions asked and neither here nor denied.
    transactions: u64,
    addresses: Bucket,
    asked_addresses: bool,
    /// Whether compact blocks may come unasked.
    pub(super) high_bandwidth: bool,
}

impl Fetches {
    pub(super) fn new(now: Time) -> Self {
        Self {
            blocks: BTreeMap::new(),
            parts: BTreeMap::new(),
            transactions: 0,
            addresses: Bucket::new(1, MAX_ADDRESSES as u64, ADDRESSES_PER_1000_S, now),
            asked_addresses: false,
            high_bandwidth: false,
        }
    }

    /// Notes that a block was asked; `false`: too many are under way, or this one is.
    pub(super) fn ask_block(&mut self, hash: BlockHash, now: Time) -> bool {
        let has_room = self.blocks.len() < MAX_BLOCKS_UNDER_WAY;
        let is_new = has_room && !self.blocks.contains_key(&hash);
        if is_new {
            self.blocks.insert(hash, now + FETCH_TIME);
        }
        is_new
    }

    /// The same for `count` transactions of a block.
    pub(super) fn ask_parts(&mut self, hash: BlockHash, count: usize, now: Time) -> bool {
        let has_room = self.parts.len() < MAX_PARTS_UNDER_WAY;
        let is_new = has_room && !self.parts.contains_key(&hash);
        if is_new {
            self.parts.insert(hash, (count, now + FETCH_TIME));
        }
        is_new
    }

    /// When the first of them is overdue.
    pub(super) fn deadline(&self) -> Option<Time> {
        let parts = self.parts.values().map(|(_, until)| until);
        self.blocks.values().chain(parts).min().copied()
    }

    /// Forgets what is overdue, and says of which blocks.
    pub(super) fn give_up(&mut self, now: Time) -> Vec<BlockHash> {
        let mut overdue = Vec::new();
        self.blocks.retain(|hash, until| {
            let waits = *until > now;
            if !waits {
                overdue.push(*hash);
            }
            waits
        });
        self.parts.retain(|hash, (_, until)| {
            let waits = *until > now;
            if !waits {
                overdue.push(*hash);
            }
            waits
        });
        overdue
    }

    pub(super) fn ask_transactions(&mut self, count: usize) {
        self.transactions += count as u64;
    }

    /// Whether the block was under way.
    pub(super) fn forget_block(&mut self, hash: &BlockHash) -> bool {
        self.blocks.remove(hash).is_some()
    }

    pub(super) fn forget_transaction(&mut self) -> bool {
        let was_asked = self.transactions > 0;
        self.transactions = self.transactions.saturating_sub(1);
        was_asked
    }
}

impl Peer {
    pub(super) fn handle_block(&mut self, hash: BlockHash, block: Bytes) {
        let was_asked = self.fetches.forget_block(&hash);
        // Parts of a block of long ago are answered with the whole.
        let was_asked = self.fetches.parts.remove(&hash).is_some() || was_asked;
        if !was_asked && self.config.role != Role::OurNode {
            return self.refuse(Refusal::Unsolicited);
        }
        self.note_known(hash);
        self.tell(PeerEvent::Block { hash, block });
    }

    pub(super) fn handle_compact_block(&mut self, block: CompactBlock) {
        let was_asked = self.fetches.forget_block(&block.hash);
        if !was_asked && !self.fetches.high_bandwidth && self.config.role != Role::OurNode {
            return self.refuse(Refusal::Unsolicited);
        }
        self.note_known(block.hash);
        self.tell(PeerEvent::CompactBlock(block));
    }

    pub(super) fn handle_block_transactions(&mut self, hash: BlockHash, transactions: Vec<Bytes>) {
        match self.fetches.parts.remove(&hash) {
            None => self.refuse(Refusal::Unsolicited),
            Some((count, _)) if count != transactions.len() => self.refuse(Refusal::Compact),
            Some(_) => self.tell(PeerEvent::BlockTransactions { hash, transactions }),
        }
    }

    pub(super) fn handle_transaction(&mut self, transaction: Bytes) {
        if !self.config.relay_transactions {
            self.refuse(Refusal::Transactions);
        } else if self.fetches.forget_transaction() {
            self.tell(PeerEvent::Transaction(transaction));
        } else {
            self.refuse(Refusal::Unsolicited);
        }
    }

    /// Asks for addresses, once.
    pub(super) fn ask_addresses(&mut self) {
        if self.fetches.asked_addresses {
            return self.count(Refusal::Backlog);
        }
        self.fetches.asked_addresses = true;
        self.fetches.addresses.add(MAX_ADDRESSES as u64);
        self.send(Kind::GetAddresses, Vec::new());
    }

    pub(super) fn handle_addresses(&mut self, gossip: Gossip) {
        let Gossip {
            mut records,
            others,
        } = gossip;
        self.count_many(Refusal::AddressKind, others);
        if self.config.role != Role::OurNode {
            self.fetches.addresses.refill(self.now);
            let taken = self.fetches.addresses.take(records.len() as u64);
            self.count_many(Refusal::AddressRate, records.len() as u64 - taken);
            records.truncate(usize::try_from(taken).unwrap_or(usize::MAX));
        }
        let is_answer = records.len() > 1;
        if !records.is_empty() {
            self.tell(PeerEvent::Addresses(records));
        }
        // A node tells its own address in a message of one before it answers.
        if matches!(self.config.role, Role::Feeler { .. }) && is_answer {
            self.close(CloseReason::FeelerDone);
        }
    }
}
