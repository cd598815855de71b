//! What is known of one block: its anchor, its two trees, its transactions. Nothing about peers.
//!
//! A job takes data in any order and answers with [`News`]: what became verified, what contradicts, and
//! who is to blame. Every leaf is in exactly one state ([`Leaf`]), every datum that counts as verified
//! chains to the header's proof of work:
//!
//! - the branch of leaf 0 leads to the header's merkle root, and the coinbase hashes to leaf 0, which
//!   also proves the depth of the tree;
//! - the coinbase commits to the root of the witness tree, and all else is verified in that tree; without
//!   a commitment the two trees are the same, and no witness is taken;
//! - the last leaf, verified at that depth and without equal siblings, proves the count.

mod anchor;
mod coded;
mod settle;
mod short_ids;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::event::Source;
use super::parity::Coded;
use super::peer::Set;
use super::stats::Refusal;
use crate::mempool::{Mempool, Resolved, ShortIdIndex, ShortIdKey, Transaction};
use crate::merkle::{Geometry, Hash, Lap, Node, Offer, Partial, fold, hash};
use crate::time::Time;
use anchor::Anchor;

/// Most salts of short ids that are resolved for one job.
///
/// Each costs one pass over the cache (about 5 ms at 300,000 transactions): one for the usual nonce 0, the
/// others for gateways that transcode compact blocks with a nonce of their own.
const MAX_NONCES: usize = 4;

/// Height of a chunk over the leaves: 128 transactions, whose short ids (768 bytes) fit one datagram.
pub(crate) const CHUNK_HEIGHT: u8 = 7;

/// What a leaf has.
#[derive(Clone, Debug)]
pub(crate) enum Leaf {
    /// No transaction.
    Missing,
    /// A transaction that may be the right one; its source answers for it.
    Held(Transaction, Source),
    /// The right transaction.
    Verified(Transaction),
}

/// What was claimed for a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClaimedId {
    /// Its short id.
    Short(u64),
    /// Its whole wtxid, as an exception.
    Full(Hash),
}

impl ClaimedId {
    /// Whether it is that of this wtxid.
    fn fits(&self, key: &ShortIdKey, wtxid: &Hash) -> bool {
        match self {
            Self::Short(id) => *id == key.short_id(wtxid),
            Self::Full(hash) => hash == wtxid,
        }
    }
}

/// Short ids that were claimed for a chunk.
#[derive(Clone, Debug)]
struct Claim {
    ids: Vec<ClaimedId>,
    nonce: u64,
    source: Source,
}

/// The state of a chunk: an aligned subtree of the witness tree.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunk {
    claim: Option<Claim>,
    /// All its leaf hashes are verified.
    pub hashes_known: bool,
    /// All its transactions are verified.
    pub done: bool,
    /// Something of it was sent on before the block was whole here.
    pub forwarded: bool,
    /// Whose datum completed it.
    pub completed_by: Option<Source>,
    /// Leaves without any transaction.
    pub missing: u32,
    /// How many of its transactions were sent on, each time counted.
    pub served: u32,
}

impl Chunk {
    /// Whether short ids or leaf hashes tell which transactions it has.
    pub fn is_described(&self) -> bool {
        self.claim.is_some() || self.hashes_known
    }
}

/// What a job has to say after it took something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Coinbase, witness root and count are proven: the job can be passed on.
    Anchored,
    /// The transaction of a leaf is verified.
    LeafVerified(u32),
    /// All leaf hashes of a chunk are verified.
    ChunkHashes(u32),
    /// All transactions of a chunk are verified.
    ChunkDone(u32, Source),
    /// A chunk's short ids were matched; what it still lacks may be asked for.
    ChunkDescribed(u32),
    /// What is held below this node contradicts it: its leaf hashes are wanted.
    Contradiction(Node),
    /// Somebody lied.
    Blame(Source, Refusal),
    /// All is verified in the witness tree, and the block is invalid all the same; no peer is to blame.
    Invalid(&'static str),
}

/// One block.
pub(crate) struct Job {
    pub hash: Hash,
    pub header: [u8; 80],
    pub height: u32,
    pub geometry: Geometry,
    pub opened: Time,
    pub first_chunk: Option<Time>,
    pub completed: Option<Time>,
    pub local: bool,
    /// Serialized size as claimed by whoever opened it; the true one once complete.
    pub block_bytes: u32,
    /// Who claimed the count that `geometry` stands on.
    pub counted_by: Source,
    pub chunks: Vec<Chunk>,
    pub verified_leaves: u32,
    pub verified_chunks: u32,
    pub block: Option<Bytes>,
    segwit_active: bool,
    max_block_bytes: u32,
    anchor: Anchor,
    tree: Partial<Source>,
    leaves: Vec<Leaf>,
    /// The leaves that are [`Leaf::Missing`].
    missing: Set,
    indexes: Vec<(u64, ShortIdIndex)>,
    body_bytes: u64,
    /// Bytes of held transactions, by who answers for them.
    held_bytes: BTreeMap<Source, u64>,
    /// Parity of the strings of this block, by kind, once it was asked for.
    coded: [Option<Coded>; 3],
    news: Vec<News>,
}

/// What a new job starts from.
pub(crate) struct JobStart {
    pub hash: Hash,
    pub header: [u8; 80],
    pub height: u32,
    pub segwit_active: bool,
    pub geometry: Geometry,
    pub block_bytes: u32,
    pub max_block_bytes: u32,
    pub counted_by: Source,
    pub opened: Time,
}

impl Job {
    /// A job of which only the header and a claimed count are known.
    pub fn new(start: JobStart) -> Self {
        let geometry = start.geometry;
        let chunk_count = geometry.width(chunk_level(&geometry));
        let bound = geometry.count().saturating_mul(2);
        let mut missing = Set::repeat(false, geometry.count() as usize);
        missing.fill(true);
        let mut job = Self {
            hash: start.hash,
            header: start.header,
            height: start.height,
            geometry,
            opened: start.opened,
            first_chunk: None,
            completed: None,
            local: start.counted_by == Source::Local,
            block_bytes: start.block_bytes,
            counted_by: start.counted_by,
            chunks: vec![Chunk::default(); chunk_count as usize],
            verified_leaves: 0,
            verified_chunks: 0,
            block: None,
            segwit_active: start.segwit_active,
            max_block_bytes: start.max_block_bytes,
            anchor: Anchor::default(),
            tree: Partial::new(geometry, bound),
            leaves: vec![Leaf::Missing; geometry.count() as usize],
            missing,
            indexes: Vec::new(),
            body_bytes: 0,
            held_bytes: BTreeMap::new(),
            coded: [None, None, None],
            news: Vec::new(),
        };
        for chunk in 0..chunk_count {
            let leaves = job.chunk_leaves(chunk);
            if let Some(chunk) = job.chunks.get_mut(chunk as usize) {
                chunk.missing = leaves.end - leaves.start;
            }
        }
        job
    }

    /// The same block with another count, of which nothing is known yet.
    pub fn with_count(&self, geometry: Geometry, block_bytes: u32) -> Self {
        Self::new(JobStart {
            hash: self.hash,
            header: self.header,
            height: self.height,
            segwit_active: self.segwit_active,
            geometry,
            block_bytes,
            max_block_bytes: self.max_block_bytes,
            counted_by: self.counted_by,
            opened: self.opened,
        })
    }

    /// What happened since the last call, in order.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// The level at which chunks are cut.
    pub fn chunk_level(&self) -> u8 {
        chunk_level(&self.geometry)
    }

    /// The leaves of a chunk.
    pub fn chunk_leaves(&self, chunk: u32) -> std::ops::Range<u32> {
        match self.geometry.node(self.chunk_level(), chunk) {
            Some(node) => self.geometry.leaves(node),
            None => 0..0,
        }
    }

    /// The chunk that a leaf lies in.
    pub fn chunk_of(&self, leaf: u32) -> u32 {
        leaf >> (self.geometry.depth() - self.chunk_level())
    }

    /// Whether coinbase, witness root and count are proven.
    pub fn is_anchored(&self) -> bool {
        self.anchor.announced
    }

    /// Whether the branch of leaf 0 is known.
    pub fn has_branch(&self) -> bool {
        self.anchor.txid.is_some()
    }

    /// The branch of leaf 0 in the txid tree, leaf 0 included, bottom up.
    pub fn branch(&self) -> &[Hash] {
        &self.anchor.branch
    }

    /// Whether the coinbase is verified.
    pub fn has_coinbase(&self) -> bool {
        self.anchor.commitment.is_some()
    }

    /// Whether the coinbase commits to witnesses, as far as is known.
    pub fn has_commitment(&self) -> bool {
        matches!(self.anchor.commitment, Some(Some(_)))
    }

    /// Bytes that are held without proof of the peer of which most are.
    pub fn most_unproven(&self) -> usize {
        let peers = self
            .held_bytes
            .iter()
            .filter(|(source, _)| matches!(source, Source::Peer(_)));
        peers.map(|(_, bytes)| *bytes).max().unwrap_or(0) as usize
    }

    /// Whether the block is whole.
    pub fn is_complete(&self) -> bool {
        self.completed.is_some()
    }

    /// The state of a leaf.
    pub fn leaf(&self, index: u32) -> &Leaf {
        self.leaves.get(index as usize).unwrap_or(&Leaf::Missing)
    }

    /// Which of the leaves from `64 * word` on are missing, bit by bit.
    pub fn missing_word(&self, word: usize) -> u64 {
        self.missing.as_raw_slice().get(word).copied().unwrap_or(0)
    }

    /// The only place where a leaf changes its state.
    fn set_leaf(&mut self, index: u32, state: Leaf) {
        let chunk = self.chunk_of(index) as usize;
        let (Some(leaf), Some(chunk)) = (
            self.leaves.get_mut(index as usize),
            self.chunks.get_mut(chunk),
        ) else {
            return;
        };
        let (before, after) = (
            matches!(leaf, Leaf::Missing),
            matches!(state, Leaf::Missing),
        );
        *leaf = state;
        if before != after {
            self.missing.set(index as usize, after);
            chunk.missing = match after {
                true => chunk.missing + 1,
                false => chunk.missing - 1,
            };
        }
    }

    /// The verified transaction of a leaf.
    pub fn transaction(&self, index: u32) -> Option<&Transaction> {
        match self.leaf(index) {
            Leaf::Verified(transaction) => Some(transaction),
            Leaf::Missing | Leaf::Held(..) => None,
        }
    }

    /// Keeps the transaction of a leaf in those bytes, if they are its own.
    pub fn keep_in(&mut self, index: u32, bytes: Bytes) {
        if let Some(Leaf::Verified(transaction)) = self.leaves.get_mut(index as usize)
            && let Some(kept) = transaction.kept_in(bytes)
        {
            *transaction = kept;
        }
    }

    /// The transactions that are verified, in block order.
    pub fn transactions(&self) -> impl Iterator<Item = &Transaction> {
        (0..self.geometry.count()).filter_map(|index| self.transaction(index))
    }

    /// A verified hash of the witness tree.
    pub fn verified(&self, node: Node) -> Option<&Hash> {
        self.tree.verified(node)
    }

    /// Bytes of a transaction to expect, from the claimed size of the block.
    pub fn expected_transaction_bytes(&self) -> u32 {
        (self.block_bytes / self.geometry.count().max(1)).max(60)
    }

    /// Takes full hashes of the witness tree: a canonical lap around a node.
    pub fn take_lap(&mut self, lap: &Lap, hashes: &[Hash], source: Source) -> Result<(), Refusal> {
        let (level, index) = lap.ancestor;
        let ancestor = self.geometry.node(level, index).ok_or(Refusal::Geometry)?;
        let nodes: Vec<Node> = lap
            .nodes(&self.geometry)
            .ok_or(Refusal::Geometry)?
            .collect();
        if nodes.len() != hashes.len() {
            return Err(Refusal::Geometry);
        }
        if level == 0 && self.tree.verified(ancestor).is_none() {
            let items = nodes.iter().copied().zip(hashes.iter().copied());
            let root = fold(&self.geometry, ancestor, items).map_err(|_| Refusal::EqualSiblings)?;
            self.take_root(root, source)?;
        }
        let direct = self.tree.verified(ancestor).is_some();
        let offer = self.tree.offer_lap(ancestor, &nodes, hashes, source);
        match offer {
            Offer::Mismatch { .. } if direct => Err(Refusal::Hashes),
            // Around a node that is not verified, one of the two may be another's copy of a true hash.
            Offer::EqualSiblings { .. } if direct => Err(Refusal::EqualSiblings),
            Offer::NotALap(_) => Err(Refusal::Geometry),
            Offer::Full => Err(Refusal::Unconnected),
            _ => {
                self.settle(offer, source);
                Ok(())
            }
        }
    }

    /// Takes a transaction for a leaf (1 or above, or 0 once the coinbase is verified).
    pub fn take_transaction(
        &mut self,
        index: u32,
        transaction: Transaction,
        source: Source,
    ) -> Result<(), Refusal> {
        if index == 0 {
            return self.take_coinbase(transaction, source);
        }
        let node = self.geometry.leaf(index).ok_or(Refusal::Geometry)?;
        if matches!(self.leaf(index), Leaf::Verified(_)) {
            return Ok(());
        }
        if self.anchor.commitment == Some(None) && transaction.has_witness() {
            return Err(Refusal::Leaf);
        }
        let wtxid = transaction.wtxid();
        if let Some(known) = self.tree.verified(node) {
            if *known != wtxid {
                return Err(Refusal::Leaf);
            }
            self.set_verified(index, transaction);
            self.finish_chunk(self.chunk_of(index), source);
            return Ok(());
        }
        if let Leaf::Held(held, held_by) = self.leaf(index) {
            if held.wtxid() != wtxid {
                // Two sources differ: only the leaf's own hash tells who is right.
                let disagree = *held_by != source;
                if disagree && let Some(above) = self.tree.deepest_verified_above(index) {
                    self.news.push(News::Contradiction(above));
                }
            }
            return Ok(());
        }
        self.hold(index, transaction, source)?;
        let offer = self.tree.offer(node, wtxid, source);
        if matches!(offer, Offer::Conflict { .. }) {
            // Another's candidate stands in its way: the schedule looks whether the chunk is full.
            self.news.push(News::ChunkDescribed(self.chunk_of(index)));
        }
        self.settle(offer, source);
        Ok(())
    }

    /// Takes a whole block of this node's own, whose txids were checked against the header.
    ///
    /// # Errors
    /// When the coinbase or a witness does not match; the job is of no use then.
    pub fn take_whole(
        &mut self,
        txids: &[Hash],
        transactions: &[Transaction],
    ) -> Result<(), Refusal> {
        let source = Source::Local;
        self.take_branch(&branch_of_first(&self.geometry, txids))?;
        let (coinbase, others) = transactions.split_first().ok_or(Refusal::Coinbase)?;
        let txid = coinbase.txid();
        let has_commitment = self.commitment_of(coinbase, &txid)?.is_some();
        self.take_coinbase(coinbase.clone(), source)?;
        let mut leaves: Vec<Hash> = Vec::with_capacity(transactions.len());
        leaves.push(match has_commitment {
            true => [0; 32],
            false => txid,
        });
        leaves.extend(others.iter().map(Transaction::wtxid));
        if others.is_empty() {
            return Ok(());
        }
        let depth = self.geometry.depth();
        let all = self
            .geometry
            .lap(self.geometry.root(), depth, 0..self.geometry.count());
        self.take_lap(&all.ok_or(Refusal::Geometry)?, &leaves, source)?;
        for (index, transaction) in (1..).zip(others) {
            self.take_transaction(index, transaction.clone(), source)?;
        }
        Ok(())
    }

    fn merkle_root(&self) -> Hash {
        let mut root = [0; 32];
        root.copy_from_slice(&self.header[36..68]);
        root
    }
}

/// The branch of leaf 0, leaf 0 included, bottom up.
fn branch_of_first(geometry: &Geometry, txids: &[Hash]) -> Vec<Hash> {
    let mut branch: Vec<Hash> = txids.first().copied().into_iter().collect();
    let mut row = txids.to_vec();
    let mut above = Vec::new();
    for _ in 0..geometry.depth() {
        branch.extend(row.get(1));
        above.clear();
        hash::row_up(&row, &mut above);
        std::mem::swap(&mut row, &mut above);
    }
    branch
}

/// The level at which chunks are cut: [`CHUNK_HEIGHT`] over the leaves, or the root.
pub(crate) fn chunk_level(geometry: &Geometry) -> u8 {
    geometry.depth().saturating_sub(CHUNK_HEIGHT)
}
