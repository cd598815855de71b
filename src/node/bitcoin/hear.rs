//! What peers of the Bitcoin P2P protocol say.

use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash as _;
use bytes::Bytes;

use super::desk::{Desk, Done};
use super::fetches::Origin;
use super::ledger::Via;
use super::peers::{Kind, PeerNumber, Want};
use crate::chain::HeaderRefusal;
use crate::chain::bitcoind::follow::FollowInput;
use crate::chain::p2p::{
    BlockForm, CompactBlock, MAX_HEADERS_PER_MESSAGE, PeerCommand, PeerEvent, PeerInfo,
};
use crate::node::engine::Command;
use crate::relay::{self, CompactAnswer, SubmitRefusal};

/// How often the progress of a long row of headers is told.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

impl Desk {
    /// One event of one peer.
    pub fn on_event(&mut self, number: PeerNumber, event: PeerEvent) {
        let Some(kind) = self.peers.get(number).map(|peer| peer.kind) else {
            return;
        };
        match event {
            PeerEvent::Ready(info) => self.on_ready(number, kind, info),
            PeerEvent::Headers(headers) => self.on_headers(number, kind, &headers),
            PeerEvent::BlocksAnnounced(hashes) => self.on_blocks_announced(number, &hashes),
            PeerEvent::Block { hash, block } => {
                let via = match kind {
                    Kind::Node(node) => Via::Block(node),
                    Kind::Relay | Kind::Inbound | Kind::Gossip | Kind::Feeler => Via::Peer,
                };
                self.take_block(hash, block, via, Origin::Peer(number));
            }
            PeerEvent::CompactBlock(compact) => self.on_compact(number, kind, compact),
            PeerEvent::BlockTransactions { hash, transactions } => {
                self.complete(number, hash, transactions);
            }
            PeerEvent::TransactionsAnnounced(ids) => {
                if let Kind::Node(node) = kind {
                    let wanted = self.transactions.wanted(node, ids);
                    if !wanted.is_empty() {
                        self.peers
                            .send(number, PeerCommand::GetTransactions(wanted));
                    }
                }
            }
            PeerEvent::Transaction(bytes) => self.on_transaction(kind, bytes),
            PeerEvent::BlocksNotFound(hashes) => {
                for hash in hashes {
                    self.fetches.failed(&hash, Origin::Peer(number));
                }
            }
            PeerEvent::TransactionsNotFound(_) | PeerEvent::FeeFilter(_) => {}
            PeerEvent::WantsHeaders { locator, stop } => {
                self.serve_headers(number, &locator, stop);
            }
            PeerEvent::WantsBlockHashes { locator, stop } => {
                self.serve_hashes(number, &locator, stop);
            }
            PeerEvent::WantsBlock { hash, form } => self.serve(number, Want::Block(hash, form)),
            PeerEvent::WantsBlockTransactions { hash, indexes } => {
                self.serve(number, Want::Part(hash, indexes));
            }
            PeerEvent::Addresses(_) | PeerEvent::WantsAddresses | PeerEvent::Advertised(_) => {
                self.on_discovery(number, event)
            }
            PeerEvent::Misbehaved { points, reason } => {
                let remote = self.peers.get(number).map(|peer| peer.remote);
                tracing::debug!(?remote, points, reason, "misbehaviour");
            }
            PeerEvent::Report(report) => self.on_report_of(number, *report),
            PeerEvent::Closed(reason) => self.on_closed(number, reason),
        }
    }

    fn on_transaction(&mut self, kind: Kind, transaction: Bytes) {
        match kind {
            Kind::Node(node) if self.follower.follows(node) => {
                self.follower.tell(FollowInput::Transaction(transaction));
            }
            _ => self.transactions.take(transaction),
        }
    }

    fn on_ready(&mut self, number: PeerNumber, kind: Kind, info: PeerInfo) {
        let Some(peer) = self.peers.get_mut(number) else {
            return;
        };
        let remote = peer.remote;
        let (agent, height) = (info.agent.clone(), info.start_height);
        peer.info = Some(info);
        peer.greeted_in = Some(self.shared.clock.now().since(peer.since));
        match kind {
            Kind::Node(node) => {
                tracing::info!(node, %remote, agent, "connected to the Bitcoin node by P2P");
                self.on_node_connected(node, height);
                let high_bandwidth = true;
                self.peers
                    .send(number, PeerCommand::WantCompactBlocks { high_bandwidth });
            }
            Kind::Relay | Kind::Inbound | Kind::Gossip | Kind::Feeler => {
                tracing::debug!(%remote, agent, ?kind, "P2P handshake done");
            }
        }
        self.on_discovery_ready(number);
        if kind == Kind::Feeler {
            return;
        }
        self.ask_headers_of(number);
        self.announce_tip(number);
        let now = self.now();
        self.fetches.renew(now);
    }

    pub fn on_closed(&mut self, number: PeerNumber, reason: crate::chain::p2p::CloseReason) {
        let Some(peer) = self.peers.remove(number) else {
            return;
        };
        self.fetches.gone(number);
        match peer.kind {
            Kind::Node(node) => {
                let lasted = self.now().since(peer.since);
                self.redial_node(node, peer.info.is_some().then_some(lasted), &reason);
            }
            Kind::Relay | Kind::Inbound | Kind::Gossip | Kind::Feeler => {
                tracing::debug!(remote = %peer.remote, %reason, "P2P connection ended");
                self.on_discovery_closed(number, &peer, &reason);
            }
        }
    }

    /// Asks a peer for the headers that follow ours, unless it was asked the same just now.
    ///
    /// Some nodes don't answer if they have none, or while they are far behind themselves.
    pub fn ask_headers_of(&mut self, number: PeerNumber) {
        let locator = self.shared.book.locator();
        let now = self.now();
        self.peers.ask_headers(number, locator, None, now);
    }

    /// Asks all who might know: the operator's nodes, and other relays. Whether there are any.
    pub fn ask_headers(&mut self) -> bool {
        let knowing = |kind| matches!(kind, Kind::Node(_) | Kind::Relay);
        let peers: Vec<PeerNumber> = self
            .peers
            .ready()
            .filter(|(_, peer)| knowing(peer.kind))
            .map(|(number, _)| number)
            .collect();
        for number in &peers {
            self.ask_headers_of(*number);
        }
        !peers.is_empty()
    }

    /// Blocks are announced by `inv` whose headers we may know, or not yet.
    fn on_blocks_announced(&mut self, number: PeerNumber, hashes: &[BlockHash]) {
        let place = |hash: &BlockHash| self.shared.book.place(*hash).map(|(height, _)| height);
        let heights: Vec<Option<u32>> = hashes.iter().map(place).collect();
        for (hash, height) in hashes.iter().zip(&heights) {
            if let Some(height) = height {
                self.note_best(number, *hash, *height);
            }
        }
        if heights.contains(&None) {
            self.ask_headers_of(number);
        }
    }

    /// A peer has told that it has a block whose header is known here.
    fn note_best(&mut self, number: PeerNumber, hash: BlockHash, height: u32) {
        let now = self.now();
        let Some(peer) = self.peers.get_mut(number) else {
            return;
        };
        let before = peer.best.map(|(_, best)| best);
        if before.is_none_or(|best| best <= height) {
            peer.best = Some((hash, height));
        }
        // Only what it did not have before: or it could have us ask again and again.
        if before.is_none_or(|best| best < height) {
            self.fetches.renew(now);
        }
    }

    fn on_headers(&mut self, number: PeerNumber, kind: Kind, headers: &[Header]) {
        let now = self.now();
        let book = &self.shared.book;
        let batch = match kind {
            Kind::Node(_) => book.submit_own(headers, now),
            Kind::Relay | Kind::Inbound | Kind::Gossip | Kind::Feeler => {
                book.submit_all(headers, now)
            }
        };
        if batch.fresh > 0
            && let Some(peer) = self.peers.get_mut(number)
        {
            peer.useful = Some(now);
        }
        let last = headers.get(..batch.accepted).and_then(<[Header]>::last);
        if let Some(hash) = last.map(Header::block_hash)
            && let Some((height, _)) = self.shared.book.place(hash)
        {
            self.note_best(number, hash, height);
        }
        let connects = batch.refusal != Some(HeaderRefusal::UnknownParent);
        let peer = self.peers.get_mut(number).filter(|_| connects);
        let asked = peer.and_then(|peer| peer.take_asked(now));
        let answers = asked.is_some();
        match batch.refusal {
            None => {
                self.peers.send(number, PeerCommand::HeadersConnected(true));
                if let Kind::Node(node) = kind {
                    self.nodes.handle_foreign(now, node, None);
                }
            }
            Some(HeaderRefusal::UnknownParent) => {
                self.peers
                    .send(number, PeerCommand::HeadersConnected(false));
                // An answer begins at a block of ours. This is an announcement, or a chain that is none of ours.
                self.ask_headers_of(number);
                return;
            }
            Some(refusal) => match kind {
                Kind::Node(node) => self.on_own_refusal(node, refusal),
                Kind::Relay | Kind::Inbound | Kind::Gossip | Kind::Feeler => {
                    self.on_refused_header(number, refusal);
                    if refusal.is_fault() {
                        return;
                    }
                }
            },
        }
        if let Kind::Node(node) = kind {
            let fate = asked.and_then(|asked| asked.fate);
            self.on_node_headers(node, headers, fate);
        }
        if headers.len() >= MAX_HEADERS_PER_MESSAGE {
            self.tell_progress();
            self.ask_headers_of(number);
        } else if matches!(kind, Kind::Node(_))
            || (matches!(kind, Kind::Relay | Kind::Gossip)
                && (batch.fresh > 0 || answers)
                && self.links.is_empty())
        {
            // An answer with nothing new says so as well: the headers may have come by another connection.
            self.chain_is_current();
        }
        if batch.fresh > 0 {
            self.fetches.renew(now);
        }
    }

    /// A stranger's header was refused.
    fn on_refused_header(&mut self, number: PeerNumber, refusal: HeaderRefusal) {
        let (points, reason) = (refusal.points(), refusal.reason());
        tracing::debug!(peer = number.0, reason, "a header was refused");
        self.dialler.tally.refused_header();
        if points > 0 {
            self.peers
                .send(number, PeerCommand::Misbehave { points, reason });
        }
    }

    /// Says now and then how far the headers are.
    fn tell_progress(&mut self) {
        let now = self.now();
        if self
            .progress
            .is_none_or(|last| now.since(last) >= PROGRESS_INTERVAL)
        {
            self.progress = Some(now);
            let tip = self.shared.book.chain();
            let days_left = now.as_unix_seconds().saturating_sub(u64::from(tip.time)) / 86_400;
            tracing::info!(height = tip.height, days_left, "receiving headers");
        }
    }

    fn on_compact(&mut self, number: PeerNumber, kind: Kind, compact: CompactBlock) {
        let hash = compact.hash;
        let Kind::Node(node) = kind else {
            // Of a stranger the header is of use; the block comes by the relay or is asked for.
            self.on_headers(number, kind, &[compact.header]);
            return;
        };
        if self.ledger.invalid(&hash).is_some() {
            // It is told before it is validated, and then may come after the answer of `submitblock`.
            return;
        }
        let now = self.now();
        self.ledger.heard(hash, Via::Compact(node), now);
        if let Some((height, _)) = self.shared.book.place(compact.header.prev_blockhash) {
            if let Some(peer) = self.peers.get_mut(number) {
                peer.best = Some((hash, height + 1));
            }
            self.on_pushed_tip(node, hash, height + 1);
        }
        if !self.peers.begin_compact(number) {
            // It is fetched whole, if nobody else brings it.
            return self.on_headers(number, kind, &[compact.header]);
        }
        let header = serialize(&compact.header);
        let header = header.try_into().expect("a header has 80 bytes");
        let compact = relay::CompactBlock {
            header,
            nonce: compact.nonce,
            short_ids: compact.short_ids,
            prefilled: compact.prefilled,
        };
        let engine = &self.shared.engine;
        let answer = engine.begin(|reply| Command::OfferCompact { compact, reply });
        self.spawn(async move {
            let answer = answer.await;
            let answer =
                answer.unwrap_or_else(|gone| Err(SubmitRefusal::Malformed(gone.to_string())));
            Done::Compact {
                peer: number,
                hash,
                answer,
            }
        });
    }

    /// The transactions that a compact block lacked have come.
    fn complete(&mut self, peer: PeerNumber, hash: BlockHash, lacking: Vec<Bytes>) {
        if !self.peers.begin_compact(peer) {
            return;
        }
        let engine = self.shared.engine.clone();
        self.spawn(async move {
            let answer = engine.ask(|reply| Command::CompleteCompact {
                block: hash.to_byte_array(),
                lacking,
                reply,
            });
            let answer = answer.await;
            let answer =
                answer.unwrap_or_else(|gone| Err(SubmitRefusal::Malformed(gone.to_string())));
            Done::Compact { peer, hash, answer }
        });
    }

    /// The engine has said what it makes of a compact block.
    pub fn on_compact_answer(
        &mut self,
        peer: PeerNumber,
        hash: BlockHash,
        answer: Result<CompactAnswer, SubmitRefusal>,
    ) {
        self.peers.end_compact(peer);
        match answer {
            Ok(CompactAnswer::Known | CompactAnswer::Whole(_)) => {}
            Ok(CompactAnswer::Lacking(_, indexes)) => {
                let ask = PeerCommand::GetBlockTransactions { hash, indexes };
                self.peers.send(peer, ask);
            }
            Ok(CompactAnswer::Unfit(_)) => {
                let form = BlockForm::Witness;
                self.peers.send(peer, PeerCommand::GetBlock { hash, form });
            }
            Err(SubmitRefusal::Header(relay::HeaderRefusal::UnknownParent)) => {
                self.ask_headers_of(peer);
            }
            Err(refusal) => {
                if let Some(more) = self.lines.compact.turn() {
                    tracing::warn!(%hash, %refusal, "a compact block was refused{more}");
                }
            }
        }
    }
}
