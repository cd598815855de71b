//! A node: what it has of each block, and what it makes of a chunk.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use super::coding::{Coding, Object};

/// A chunk: data chunks are the same wherever they come from, chunks of code name who made them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub block: u32,
    pub object: Object,
    /// 0 for data; otherwise 1 and the number of the node that made it.
    pub maker: u32,
    pub index: u32,
}

impl Chunk {
    const fn key(self) -> u64 {
        ((self.maker as u64) << 32) | self.index as u64
    }
}

/// Chunks by their keys, only ever asked for one of them.
type Keys = HashSet<u64, BuildHasherDefault<DefaultHasher>>;

/// What the owner of a decoder does with a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Dropped,
    /// Of no use here: passed on behind others, if at all.
    Useless,
    /// It helped: passed on at once, if at all.
    Helped,
    /// It helped, and the block is whole.
    Completed,
}

/// Chunks of one object that are there.
#[derive(Debug, Default)]
struct Decoder {
    header_done: bool,
    keys: Keys,
    /// Different chunks of the object at hand.
    count: u32,
}

/// What a peer is known to have of a block.
#[derive(Debug, Default)]
struct Available {
    all: bool,
    header: Keys,
    body: Keys,
}

/// Where a node stands with a block.
#[derive(Debug)]
pub(super) struct Part {
    coding: Arc<Coding>,
    /// Data chunks that it cannot fill in itself.
    missing: Vec<bool>,
    missing_count: u32,
    pub whole: bool,
    /// One for all trusted peers, or one for each.
    decoders: Vec<Decoder>,
    shares_decoder: bool,
    available: Vec<Option<Available>>,
}

impl Part {
    pub(super) fn new(coding: Arc<Coding>, lacked: &[u32], peers: usize, trusted: bool) -> Self {
        let missing = coding.missing(lacked);
        let decoders = if trusted { 1 } else { peers };
        Self {
            missing_count: missing.iter().filter(|missing| **missing).count() as u32,
            missing,
            coding,
            whole: false,
            decoders: (0..decoders).map(|_| Decoder::default()).collect(),
            shares_decoder: trusted,
            available: (0..peers).map(|_| None).collect(),
        }
    }

    /// Forgets what only matters until the block is whole.
    pub(super) fn finish(&mut self) {
        self.whole = true;
        self.decoders.clear();
    }

    /// Whether a chunk need not be sent to a peer; if it need, it is known there from now on.
    pub(super) fn is_known(&mut self, peer: usize, chunk: Chunk) -> bool {
        let Some(Some(available)) = self.available.get_mut(peer) else {
            return false;
        };
        if available.all {
            return true;
        }
        let keys = match chunk.object {
            Object::Header => &mut available.header,
            Object::Body => &mut available.body,
        };
        !keys.insert(chunk.key())
    }

    /// A chunk comes from a peer that may say that it has the whole block: `HandleBlockTxMessage`.
    pub(super) fn take(&mut self, peer: usize, chunk: Chunk, has_block: bool) -> Verdict {
        if self.whole || !self.meet(peer, chunk, has_block) {
            return Verdict::Dropped;
        }
        let place = if self.shares_decoder { 0 } else { peer };
        let Some(decoder) = self.decoders.get_mut(place) else {
            return Verdict::Dropped;
        };
        match (chunk.object, decoder.header_done) {
            (Object::Header, true) => return Verdict::Useless,
            (Object::Body, false) => return Verdict::Dropped,
            _ => {}
        }
        let filled_in = chunk.object == Object::Body
            && chunk.maker == 0
            && self.missing.get(chunk.index as usize) == Some(&false);
        if filled_in || !decoder.keys.insert(chunk.key()) {
            return Verdict::Dropped;
        }
        decoder.count += 1;
        let done = match chunk.object {
            Object::Header => {
                if decoder.count < self.coding.header.data {
                    return Verdict::Helped;
                }
                decoder.header_done = true;
                decoder.keys.clear();
                decoder.count = 0;
                // Who holds everything needs no body.
                self.missing_count == 0
            }
            Object::Body => decoder.count >= self.missing_count,
        };
        match done {
            true => Verdict::Completed,
            false => Verdict::Helped,
        }
    }

    /// Notes what the peer has. False for a body chunk of a peer that has shown no header: it is taken for stale.
    fn meet(&mut self, peer: usize, chunk: Chunk, has_block: bool) -> bool {
        let Some(available) = self.available.get_mut(peer) else {
            return false;
        };
        if available.is_none() && chunk.object == Object::Body {
            return false;
        }
        let available = available.get_or_insert_default();
        available.all |= has_block;
        if !available.all {
            let keys = match chunk.object {
                Object::Header => &mut available.header,
                Object::Body => &mut available.body,
            };
            keys.insert(chunk.key());
        }
        true
    }
}
