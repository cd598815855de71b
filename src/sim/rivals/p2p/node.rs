//! What a node does with messages about blocks: Bitcoin Core's `net_processing.cpp`, as far as it matters here.

use std::collections::VecDeque;

use arrayvec::ArrayVec;

/// Peers that a node lets announce by compact block: BIP152 and `lNodesAnnouncingHeaderAndIDs`.
const HIGH_BANDWIDTH_PEERS: usize = 3;
/// Peers that a node asks for one block's transactions at a time: `MAX_CMPCTBLOCKS_INFLIGHT_PER_BLOCK`.
pub(super) const MAX_IN_FLIGHT: usize = 3;

/// How blocks are announced and fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Announced by header, fetched whole.
    Block,
    /// Announced by header, fetched as a compact block.
    LowBandwidth,
    /// Three peers push compact blocks; others announce by header.
    HighBandwidth,
}

/// A message; the number is that of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// `headers`.
    Headers(usize),
    /// `getdata` for a compact block.
    AskCompact(usize),
    /// `getdata` for a block.
    AskBlock(usize),
    /// `cmpctblock`.
    Compact(usize),
    /// `getblocktxn`.
    AskTransactions(usize),
    /// `blocktxn`.
    Transactions(usize),
    /// `block`.
    Block(usize),
    /// `sendcmpct`: whether to push compact blocks.
    Select(bool),
}

impl Message {
    /// The block that it is about.
    pub(super) const fn block(self) -> Option<usize> {
        match self {
            Self::Headers(block)
            | Self::AskCompact(block)
            | Self::AskBlock(block)
            | Self::Compact(block)
            | Self::AskTransactions(block)
            | Self::Transactions(block)
            | Self::Block(block) => Some(block),
            Self::Select(_) => None,
        }
    }

    /// Whether the one that sends it lacks what it is about, not the one that gets it.
    pub(super) const fn is_request(self) -> bool {
        matches!(
            self,
            Self::AskCompact(_) | Self::AskBlock(_) | Self::AskTransactions(_)
        )
    }
}

/// What a node has to do with one other.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Which node it is.
    pub node: usize,
    /// Whether this node dialled it.
    pub outbound: bool,
    /// Whether it wants compact blocks pushed.
    pub wants_push: bool,
}

/// Where a node stands with one block.
#[derive(Clone, Debug, Default)]
struct Relay {
    whole: bool,
    /// Peers that it was asked of, in order.
    asked: ArrayVec<usize, MAX_IN_FLIGHT>,
    /// Peers that are known to have it, by their place.
    known: Vec<bool>,
}

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    mode: Mode,
    pub peers: Vec<Peer>,
    /// Peers that may push, the one that did so first last.
    selected: VecDeque<usize>,
    relays: Vec<Relay>,
    /// Whether the node holds all of a block's transactions but the coinbase.
    holds_all: Vec<bool>,
    /// What it wants sent, and to whom.
    pub outgoing: Vec<(usize, Message)>,
    /// A block that became whole, and the peer that completed it.
    pub news: Option<(usize, Option<usize>)>,
}

impl Node {
    /// `holds_all` tells for each block whether nothing but the coinbase is lacking.
    pub(super) fn new(mode: Mode, peers: Vec<Peer>, holds_all: Vec<bool>) -> Self {
        let relay = Relay {
            known: vec![false; peers.len()],
            ..Relay::default()
        };
        Self {
            mode,
            selected: VecDeque::new(),
            relays: vec![relay; holds_all.len()],
            holds_all,
            peers,
            outgoing: Vec::new(),
            news: None,
        }
    }

    /// Chooses who may push at first: peers that it dialled before others.
    pub(super) fn select(&mut self) {
        if self.mode != Mode::HighBandwidth {
            return;
        }
        let of = |outbound| {
            let peers = self.peers.iter().enumerate();
            peers.filter(move |(_, peer)| peer.outbound == outbound)
        };
        let chosen = of(true).chain(of(false)).map(|(place, _)| place);
        self.selected = chosen.take(HIGH_BANDWIDTH_PEERS).collect();
        for &peer in &self.selected {
            self.outgoing.push((peer, Message::Select(true)));
        }
    }

    /// Whether it has a block.
    pub(super) fn has(&self, block: usize) -> bool {
        self.relays.get(block).is_some_and(|relay| relay.whole)
    }

    /// Its own block.
    pub(super) fn submit(&mut self, block: usize) {
        self.complete(block, None);
    }

    /// A message came from a peer.
    pub(super) fn take(&mut self, from: usize, message: Message) {
        match message {
            Message::Headers(block) => self.take_headers(from, block),
            Message::Compact(block) => self.take_compact(from, block),
            Message::Transactions(block) | Message::Block(block) => {
                self.know(from, block);
                self.complete(block, Some(from));
            }
            Message::AskCompact(block) => self.answer(from, block, Message::Compact(block)),
            Message::AskBlock(block) => self.answer(from, block, Message::Block(block)),
            Message::AskTransactions(block) => {
                self.answer(from, block, Message::Transactions(block));
            }
            Message::Select(push) => {
                if let Some(peer) = self.peers.get_mut(from) {
                    peer.wants_push = push;
                }
            }
        }
    }

    fn answer(&mut self, from: usize, block: usize, message: Message) {
        if self.has(block) {
            self.outgoing.push((from, message));
        }
    }

    fn know(&mut self, peer: usize, block: usize) {
        let relay = self.relays.get_mut(block);
        if let Some(known) = relay.and_then(|relay| relay.known.get_mut(peer)) {
            *known = true;
        }
    }

    /// `HeadersDirectFetchBlocks`: asked for unless it is on its way already.
    fn take_headers(&mut self, from: usize, block: usize) {
        self.know(from, block);
        self.ask(from, block);
    }

    fn ask(&mut self, peer: usize, block: usize) {
        let mode = self.mode;
        let Some(relay) = self.relays.get_mut(block) else {
            return;
        };
        if relay.whole || !relay.asked.is_empty() {
            return;
        }
        relay.asked.push(peer);
        let request = match mode {
            Mode::Block => Message::AskBlock(block),
            Mode::LowBandwidth | Mode::HighBandwidth => Message::AskCompact(block),
        };
        self.outgoing.push((peer, request));
    }

    /// The message `cmpctblock` of `ProcessMessage`.
    fn take_compact(&mut self, from: usize, block: usize) {
        self.know(from, block);
        let holds_all = self.holds_all.get(block).copied().unwrap_or(false);
        let is_outbound = |peer: usize| self.peers.get(peer).is_some_and(|peer| peer.outbound);
        let is_selected = self.selected.contains(&from);
        let Some(relay) = self.relays.get_mut(block).filter(|relay| !relay.whole) else {
            return;
        };
        if holds_all {
            self.complete(block, Some(from));
            return;
        }
        let before = relay.asked.len();
        let first = relay.asked.first().is_none_or(|&first| first == from);
        let parallel = is_selected
            && (is_outbound(from)
                || relay.asked.iter().any(|&peer| is_outbound(peer))
                || before < MAX_IN_FLIGHT - 1);
        if !relay.asked.contains(&from) {
            if relay.asked.is_full() || !(first || parallel) {
                return;
            }
            relay.asked.push(from);
        }
        self.outgoing.push((from, Message::AskTransactions(block)));
    }

    /// The block is whole: it is announced, and whoever completed it may push from now on.
    fn complete(&mut self, block: usize, from: Option<usize>) {
        let Some(relay) = self.relays.get_mut(block).filter(|relay| !relay.whole) else {
            return;
        };
        relay.whole = true;
        relay.asked.clear();
        let unaware: Vec<usize> = (0..)
            .zip(&mut relay.known)
            .filter_map(|(peer, known)| (!std::mem::replace(known, true)).then_some(peer))
            .collect();
        let pushed = |peer: usize| self.peers.get(peer).is_some_and(|peer| peer.wants_push);
        // `NewPoWValidBlock` pushes before `SendMessages` announces to the others.
        let (push, announce): (Vec<usize>, Vec<usize>) =
            unaware.into_iter().partition(|&peer| pushed(peer));
        self.outgoing
            .extend(push.into_iter().map(|peer| (peer, Message::Compact(block))));
        let headers = announce.into_iter();
        self.outgoing
            .extend(headers.map(|peer| (peer, Message::Headers(block))));
        self.news = Some((block, from));
        if let Some(peer) = from {
            self.promote(peer);
        }
    }

    /// `MaybeSetPeerAsAnnouncingHeaderAndIDs`.
    fn promote(&mut self, peer: usize) {
        if self.mode != Mode::HighBandwidth {
            return;
        }
        match self.selected.iter().position(|&selected| selected == peer) {
            Some(place) => {
                self.selected.remove(place);
            }
            None => {
                self.outgoing.push((peer, Message::Select(true)));
                if self.selected.len() >= HIGH_BANDWIDTH_PEERS
                    && let Some(last) = self.selected.pop_front()
                {
                    self.outgoing.push((last, Message::Select(false)));
                }
            }
        }
        self.selected.push_back(peer);
    }

    /// The connection to a peer has ended: what it was asked for is asked of another.
    pub(super) fn lose(&mut self, peer: usize) {
        for block in 0..self.relays.len() {
            let Some(relay) = self.relays.get_mut(block) else {
                continue;
            };
            if let Some(known) = relay.known.get_mut(peer) {
                *known = false;
            }
            let before = relay.asked.len();
            relay.asked.retain(|asked| *asked != peer);
            let orphaned = before > 0 && relay.asked.is_empty();
            let other = relay.known.iter().position(|known| *known);
            if let (true, Some(other)) = (orphaned, other) {
                self.ask(other, block);
            }
        }
    }

    /// A connection was made anew: the peer is told of what is here, and whether it may push.
    pub(super) fn meet(&mut self, peer: usize) {
        if self.selected.contains(&peer) {
            self.outgoing.push((peer, Message::Select(true)));
        }
        for block in 0..self.relays.len() {
            if self.has(block) {
                self.outgoing.push((peer, Message::Headers(block)));
            }
        }
    }
}
