//! Getting blocks that are not here: those of the active chain that passed this node by, and those that others
//! ask of it.

use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash as _;
use bytes::Bytes;

use super::desk::{Desk, Done};
use super::feed::is_below;
use super::fetches::{Origin, Purpose};
use super::ledger::{NodeNumber, Via};
use super::link::Link;
use super::orphans::Orphan;
use super::peers::{Kind, PeerNumber};
use crate::chain::HeaderRefusal;
use crate::chain::Tip;
use crate::chain::bitcoind::RpcError;
use crate::chain::headers::RECENT;
use crate::chain::p2p::{BlockForm, PeerCommand};
use crate::node::engine::Command;
use crate::relay::{self, SubmitRefusal};
use crate::time::Time;

/// How far below the tip blocks are held and served: what a node with NODE_NETWORK_LIMITED promises (BIP159).
pub(super) const SERVED_DEPTH: u32 = 288;
/// How long the newest block, if its header came otherwise, may take to come by the relay, before it is fetched.
const RELAY_GRACE: Duration = Duration::from_secs(3);
/// The same of one that another is built upon already: as a rule it has been relayed before.
const RELAY_GRACE_BELOW: Duration = Duration::from_millis(500);

/// Whether a block that is missing may be on its way already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// It has been announced by somebody who has it: ask at once.
    None,
    /// The relay usually is faster than to ask for the whole block.
    RelayMayBring,
}

impl Desk {
    /// The chain is at the tip, as far as anybody told: from here on blocks are held.
    pub fn chain_is_current(&mut self) {
        if self.floor.is_none() {
            let tip = self.shared.book.chain();
            self.floor = Some((tip.height + 1).saturating_sub(RECENT));
            tracing::info!(height = tip.height, "the header chain is at the tip");
        }
        let tip = *self.shared.book.watch_tip().borrow();
        self.hold_missing(tip, Patience::None);
    }

    /// Wants the blocks below the tip that are not here, down to the first that is.
    pub fn hold_missing(&mut self, tip: Tip, patience: Patience) {
        let Some(floor) = self.floor else { return };
        let now = self.now();
        let deepest = floor
            .max((tip.height + 1).saturating_sub(SERVED_DEPTH))
            .max(self.shared.book.start().height + 1);
        for height in (deepest..=tip.height).rev() {
            let Some(hash) = self.shared.book.hash_at(height) else {
                return;
            };
            if self.is_here(&hash) || self.ledger.invalid(&hash).is_some() {
                return;
            }
            let not_before = match patience {
                Patience::None => now,
                Patience::RelayMayBring => now + self.relay_grace(height, tip),
            };
            self.fetches
                .want((height, hash), Purpose::Hold, not_before, now);
        }
    }

    /// How long a block at this height may take to come by the relay: one that is no longer recent never does.
    pub fn relay_grace(&self, height: u32, tip: Tip) -> Duration {
        match tip.height.saturating_sub(height) {
            0 => RELAY_GRACE,
            below if below < RECENT => RELAY_GRACE_BELOW,
            _ => Duration::ZERO,
        }
    }

    /// Height of the newest block of the active chain that is here; that of the tip, if none is.
    pub fn newest_held(&self) -> u32 {
        let tip = self.shared.book.chain().height;
        let deepest = tip.saturating_sub(SERVED_DEPTH);
        let is_held = |height: &u32| {
            let hash = self.shared.book.hash_at(*height);
            hash.is_some_and(|hash| self.is_here(&hash) && self.ledger.invalid(&hash).is_none())
        };
        (deepest..=tip).rev().find(is_held).unwrap_or(tip)
    }

    /// Whether a block is at hand, on the disk or on its way there.
    pub fn is_here(&self, hash: &BlockHash) -> bool {
        self.find_at_hand(hash).is_some() || self.is_kept(hash)
    }

    /// Whether a block is on the disk or on its way there.
    fn is_kept(&self, hash: &BlockHash) -> bool {
        let hash = hash.as_byte_array();
        // In this order: it leaves the one once it is in the other.
        self.shared.kept.has(hash) || self.shared.store.contains(hash)
    }

    /// A block that is in memory.
    pub fn block_here(&self, hash: &BlockHash) -> Option<Bytes> {
        let at_hand = self.find_at_hand(hash).map(|it| it.block.bytes.clone());
        at_hand.or_else(|| self.shared.kept.get(hash.as_byte_array()))
    }

    /// Puts the questions that are due.
    pub fn fetch(&mut self, now: Time) {
        let mut fetches = std::mem::take(&mut self.fetches);
        let step = fetches.step(now, |hash| self.sources(hash));
        self.fetches = fetches;
        for (hash, purpose) in step.give_up {
            match purpose {
                Purpose::Serve(peer) => self.serve_nothing(peer, hash),
                // It is asked for again when the node is looked at again.
                Purpose::Feed(_) => {}
                Purpose::Hold => {
                    if let Some(more) = self.lines.nobody.turn() {
                        tracing::warn!(%hash, "nobody has this block{more}");
                    }
                }
            }
        }
        for (hash, origin) in step.ask {
            self.ask(hash, origin);
        }
    }

    /// Whom a block can be asked of, the best first: the disk, the operator's nodes by P2P and by RPC, then peers
    /// who told that they have it.
    fn sources(&self, hash: &BlockHash) -> Vec<Origin> {
        let mut sources = Vec::new();
        if self.is_kept(hash) {
            sources.push(Origin::Disk);
        }
        let preferred = self.nodes.preferred();
        let others = (0..self.links.len()).filter(|node| Some(*node) != preferred);
        for node in preferred.into_iter().chain(others) {
            let Some(link) = self.links.get(node) else {
                continue;
            };
            let has = link.tip.is_some_and(|(tip, _)| self.is_of(hash, tip));
            let peer = self.peers.of_node(node);
            if let Some(peer) = peer.filter(|peer| has || self.told_of(*peer, hash)) {
                sources.push(Origin::Peer(peer));
            }
            if link.rpc_is_up() {
                sources.push(Origin::Rpc(node));
            }
        }
        let others = self.peers.ready().filter(|(number, peer)| {
            !matches!(peer.kind, Kind::Node(_)) && self.told_of(*number, hash)
        });
        let mut others: Vec<(bool, PeerNumber)> = others
            .map(|(number, peer)| (peer.kind != Kind::Relay, number))
            .collect();
        others.sort_unstable();
        sources.extend(others.into_iter().map(|(_, number)| Origin::Peer(number)));
        sources
    }

    /// Whether a peer has told of a block, or of one above it. Of another branch it has not: bitcoind leaves it
    /// unanswered if it is asked for what it has not.
    fn told_of(&self, peer: PeerNumber, hash: &BlockHash) -> bool {
        let best = self.peers.get(peer).and_then(|peer| peer.best);
        best.is_some_and(|(best, _)| self.is_of(hash, best))
    }

    /// Whether a block is on the branch with this tip.
    fn is_of(&self, hash: &BlockHash, tip: BlockHash) -> bool {
        is_below(&self.shared.book, *hash, tip)
    }

    fn ask(&mut self, hash: BlockHash, origin: Origin) {
        match origin {
            Origin::Disk => {
                if let Some(block) = self.shared.kept.get(hash.as_byte_array()) {
                    let block = Some(block);
                    self.spawn(std::future::ready(Done::Disk { hash, block }));
                    return;
                }
                let store = std::sync::Arc::clone(&self.shared.store);
                self.spawn(async move {
                    let read = tokio::task::spawn_blocking(move || store.get(hash.as_byte_array()));
                    let block = read.await.ok().and_then(Result::ok).flatten();
                    let block = block.map(Bytes::from);
                    Done::Disk { hash, block }
                });
            }
            Origin::Rpc(node) => {
                let Some(rpc) = self.links.get(node).and_then(|link| link.rpc().cloned()) else {
                    self.fetches.failed(&hash, origin);
                    return;
                };
                self.spawn(async move {
                    let block = rpc.block(hash).await;
                    Done::Fetched { hash, node, block }
                });
            }
            Origin::Peer(peer) => {
                let form = BlockForm::Witness;
                if !self.peers.send(peer, PeerCommand::GetBlock { hash, form }) {
                    self.fetches.failed(&hash, origin);
                }
            }
        }
    }

    /// An origin has answered with a block, or has none.
    pub fn on_fetched(&mut self, hash: BlockHash, origin: Origin, block: Option<Bytes>) {
        let Some(block) = block else {
            self.fetches.failed(&hash, origin);
            return;
        };
        let now = self.now();
        if origin == Origin::Disk {
            // It was checked before it was kept.
            let purposes = self.fetches.got(&hash);
            self.satisfy(hash, &block, &purposes, now);
            return;
        }
        let via = match origin {
            Origin::Rpc(node) => Via::Rpc(node),
            Origin::Disk | Origin::Peer(_) => Via::Peer,
        };
        self.take_block(hash, block, via, origin);
    }

    /// A whole block has come from outside the relay. A recent one goes to the engine, which proves it; an older one
    /// is proven here, and goes to whoever wanted it.
    pub fn take_block(&mut self, hash: BlockHash, block: Bytes, via: Via, origin: Origin) {
        if self.ledger.invalid(&hash).is_some() {
            return;
        }
        let now = self.now();
        self.ledger.heard(hash, via, now);
        if via.node().is_some() && self.lacks_parent(hash, &block, now) {
            self.orphans.keep(hash, block, via, origin);
            self.fetches.failed(&hash, origin);
            return self.lack_parent(hash, via);
        }
        if self.is_here(&hash) && !self.fetches.is_wanted(&hash) {
            return;
        }
        let tip = self.shared.book.chain().height;
        let place = self.shared.book.place(hash);
        let within =
            |depth: u32| place.is_none_or(|(height, _)| height.saturating_add(depth) > tip);
        let recent = place.is_none_or(|(height, _)| self.shared.book.in_window(height));
        if recent {
            let engine = &self.shared.engine;
            let asked = engine.begin(|reply| Command::SubmitBlock { block, reply });
            self.spawn(async move {
                let answer = match asked.await {
                    Ok(answer) => answer.map(drop),
                    Err(gone) => Err(SubmitRefusal::Malformed(gone.to_string())),
                };
                Done::Offered {
                    hash,
                    via,
                    origin,
                    answer,
                }
            });
        } else if self.fetches.is_wanted(&hash) || via.node().is_some() && within(SERVED_DEPTH) {
            // Of a burst, or a branch that has won, each block is told once by ZMQ.
            self.spawn(async move {
                let checked = tokio::task::spawn_blocking(move || {
                    super::serve::is_body_of_header(&block).then_some(block)
                });
                let block = checked.await.ok().flatten();
                Done::Checked {
                    hash,
                    origin,
                    block,
                }
            });
        }
    }

    /// Whether a block's header can't be judged for lack of its parent. If it can, it is known from now on, and so is
    /// the parent of the next block, whenever the engine comes to this one.
    fn lacks_parent(&self, hash: BlockHash, block: &Bytes, now: Time) -> bool {
        let book = &self.shared.book;
        let header = block.first_chunk();
        book.place(hash).is_none()
            && header
                .is_some_and(|header| book.submit(header, now) == Err(HeaderRefusal::UnknownParent))
    }

    /// Headers have come: blocks that were waiting for them are taken.
    pub fn adopt_orphans(&mut self) {
        let mut waiting = std::mem::take(&mut self.orphans);
        while let Some(orphan) = waiting.take() {
            let Orphan {
                hash,
                block,
                via,
                origin,
            } = orphan;
            // It is back among them, if its parent still is not known.
            self.take_block(hash, block, via, origin);
        }
    }

    /// The engine has said what it makes of a block.
    pub fn on_offered(
        &mut self,
        hash: BlockHash,
        via: Via,
        origin: Origin,
        answer: Result<(), SubmitRefusal>,
    ) {
        match answer {
            // What follows comes with the engine's own event.
            Ok(()) => return,
            Err(SubmitRefusal::Duplicate) => {
                if let Some(whole) = self.find_at_hand(&hash) {
                    let block = whole.block.bytes.clone();
                    let purposes = self.fetches.got(&hash);
                    let now = self.now();
                    self.satisfy(hash, &block, &purposes, now);
                }
            }
            Err(SubmitRefusal::Header(relay::HeaderRefusal::UnknownParent)) => {
                self.lack_parent(hash, via);
            }
            Err(refusal) => {
                if let Some(more) = self.lines.block.turn() {
                    tracing::warn!(%hash, %via, %refusal, "a block was refused{more}");
                }
                if let Origin::Peer(peer) = origin {
                    let reason = "a block that is not its header's";
                    let points = 100;
                    self.peers
                        .send(peer, PeerCommand::Misbehave { points, reason });
                }
            }
        }
        self.fetches.failed(&hash, origin);
    }

    /// A block has come whose parent's header is not known.
    fn lack_parent(&mut self, hash: BlockHash, via: Via) {
        let rpc = self.links.iter().any(Link::rpc_is_up);
        if self.lack_headers() || rpc {
            tracing::debug!(%hash, %via, "the parent is not known; asking for headers");
        } else if let Some(more) = self.lines.parent.turn() {
            tracing::warn!(
                %hash, %via,
                "the parent is not known, and nobody can be asked for headers: give this node RPC or P2P to bitcoind{more}"
            );
        }
    }

    /// A node has answered `getblock`.
    pub fn on_fetched_by_rpc(
        &mut self,
        hash: BlockHash,
        node: NodeNumber,
        block: Result<Option<Bytes>, RpcError>,
    ) {
        let block = match block {
            Ok(block) => {
                let has = |link: &Link| {
                    let height = self.shared.book.place(hash).map(|(height, _)| height);
                    link.tip.is_some_and(|(_, tip)| Some(tip) >= height)
                };
                if block.is_none() && self.links.get(node).is_some_and(has) {
                    tracing::info!(%hash, node, "the Bitcoin node has this block no more (pruned); asking others");
                }
                block
            }
            Err(error) => {
                self.on_rpc_error(node, &error);
                tracing::debug!(%hash, node, %error, "getblock");
                None
            }
        };
        self.on_fetched(hash, Origin::Rpc(node), block);
    }

    /// A block of long ago is proven, or is none.
    pub fn on_checked(&mut self, hash: BlockHash, origin: Origin, block: Option<Bytes>) {
        let now = self.now();
        match block {
            Some(block) => {
                self.shared.kept.push(hash.to_byte_array(), block.clone());
                let purposes = self.fetches.got(&hash);
                self.satisfy(hash, &block, &purposes, now);
            }
            None => {
                self.fetches.failed(&hash, origin);
                if let Origin::Peer(peer) = origin {
                    let reason = "a block that is not its header's";
                    self.peers.send(
                        peer,
                        PeerCommand::Misbehave {
                            points: 100,
                            reason,
                        },
                    );
                }
            }
        }
    }
}
