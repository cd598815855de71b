//! The anchor: the branch of leaf 0, the coinbase, the root of the witness tree.
//!
//! A txid does not cover witnesses, and the reserved value lies in the coinbase's: a coinbase with the right
//! txid is known for the true one only when it commits to the root of a lap that somebody sent. Both are
//! kept, one of a peer, until one of each fit; whose did not fit then is known, and before that nobody is blamed
//! for what another may have altered.

use super::*;
use crate::mempool::coinbase::{CommitmentError, WitnessCommitment, witness_commitment};

/// Most coinbases that wait for the branch, or for the root that they commit to.
///
/// Two eager peers may push one each; more are asked for again.
const MAX_WAITING_COINBASES: usize = 3;

/// Most roots of witness laps that wait for a coinbase, one of a peer: as many as a node has sessions.
const MAX_ROOTS: usize = 64;

/// A coinbase that is not proven.
#[derive(Debug)]
struct Waiting {
    coinbase: Transaction,
    /// Known once the branch is.
    commitment: Option<WitnessCommitment>,
    source: Source,
}

/// Progress towards the proof of the coinbase.
#[derive(Debug, Default)]
pub(super) struct Anchor {
    pub txid: Option<Hash>,
    pub branch: Vec<Hash>,
    /// Coinbases that wait, one a source.
    waiting: Vec<Waiting>,
    /// Roots of witness laps that wait, one a source.
    roots: Vec<(Hash, Source)>,
    /// Once the coinbase is verified: its commitment, if it has one.
    pub commitment: Option<Option<WitnessCommitment>>,
    pub count_proven: bool,
    pub announced: bool,
}

fn commits_to(commitment: &WitnessCommitment, root: &Hash) -> bool {
    hash::pair(root, &commitment.reserved) == commitment.commitment
}

impl Job {
    /// Takes the branch of leaf 0 in the txid tree, bottom up, leaf 0 first.
    pub fn take_branch(&mut self, hashes: &[Hash]) -> Result<(), Refusal> {
        if self.anchor.txid.is_some() {
            return Ok(());
        }
        let run = self.geometry.branch_of_first();
        let nodes = run.nodes(&self.geometry).ok_or(Refusal::Geometry)?;
        let first = *hashes.first().ok_or(Refusal::Geometry)?;
        if hashes.len() as u64 != u64::from(run.count) {
            return Err(Refusal::Geometry);
        }
        let root = fold(
            &self.geometry,
            self.geometry.root(),
            nodes.zip(hashes.iter().copied()),
        )
        .map_err(|_| Refusal::EqualSiblings)?;
        if root != self.merkle_root() {
            return Err(Refusal::Branch);
        }
        self.anchor.txid = Some(first);
        self.anchor.branch = hashes.to_vec();
        for Waiting {
            coinbase, source, ..
        } in std::mem::take(&mut self.anchor.waiting)
        {
            if let Err(refusal) = self.take_coinbase(coinbase, source) {
                self.news.push(News::Blame(source, refusal));
            }
        }
        Ok(())
    }

    /// Takes a coinbase.
    pub fn take_coinbase(&mut self, coinbase: Transaction, source: Source) -> Result<(), Refusal> {
        if let Some(known) = self.transaction(0) {
            let same = known.wtxid() == coinbase.wtxid();
            return if same { Ok(()) } else { Err(Refusal::Coinbase) };
        }
        if self.geometry.count() == 1 && self.anchor.txid.is_none() {
            let root = self.merkle_root();
            self.anchor.txid = Some(root);
            self.anchor.branch = vec![root];
        }
        let Some(txid) = self.anchor.txid else {
            self.keep_coinbase(coinbase, None, source);
            return Ok(());
        };
        let Some(commitment) = self.commitment_of(&coinbase, &txid)? else {
            let root = self.merkle_root();
            self.accept_coinbase(coinbase, None, root, source);
            return Ok(());
        };
        if self.geometry.count() == 1 {
            if !commits_to(&commitment, &[0; 32]) {
                return Err(Refusal::Coinbase);
            }
            self.accept_coinbase(coinbase, Some(commitment), [0; 32], source);
            return Ok(());
        }
        let held = self.tree.held_hash(self.geometry.root()).copied();
        let mut roots = self.anchor.roots.iter().map(|(root, _)| *root).chain(held);
        if let Some(root) = roots.find(|root| commits_to(&commitment, root)) {
            self.accept_coinbase(coinbase, Some(commitment), root, source);
            return Ok(());
        }
        if self.anchor.roots.iter().any(|(_, by)| *by == source) {
            // Its own hashes say otherwise.
            return Err(Refusal::Coinbase);
        }
        self.keep_coinbase(coinbase, Some(commitment), source);
        Ok(())
    }

    fn keep_coinbase(
        &mut self,
        coinbase: Transaction,
        commitment: Option<WitnessCommitment>,
        source: Source,
    ) {
        let waiting = &mut self.anchor.waiting;
        waiting.retain(|known| known.source != source);
        if waiting.len() < MAX_WAITING_COINBASES || source == Source::Local {
            waiting.push(Waiting {
                coinbase,
                commitment,
                source,
            });
        }
    }

    /// The commitment of a coinbase that has the txid of leaf 0, if it has one.
    pub(super) fn commitment_of(
        &self,
        coinbase: &Transaction,
        txid: &Hash,
    ) -> Result<Option<WitnessCommitment>, Refusal> {
        // A stripped transaction of 64 bytes could be an inner node of the tree (CVE-2017-12842).
        if coinbase.txid() != *txid || !coinbase.is_coinbase() || coinbase.stripped_len() == 64 {
            return Err(Refusal::Coinbase);
        }
        match witness_commitment(coinbase) {
            Ok(commitment) => Ok(commitment),
            Err(CommitmentError::NoReservedValue) if !self.segwit_active => Ok(None),
            Err(_) => Err(Refusal::Coinbase),
        }
    }

    /// Takes the root that a lap of the witness tree leads to.
    pub(super) fn take_root(&mut self, root: Hash, source: Source) -> Result<(), Refusal> {
        let fits = |waiting: &Waiting| {
            let commitment = waiting.commitment.as_ref();
            commitment.is_some_and(|commitment| commits_to(commitment, &root))
        };
        if let Some(position) = self.anchor.waiting.iter().position(fits) {
            let found = self.anchor.waiting.swap_remove(position);
            self.accept_coinbase(found.coinbase, found.commitment, root, source);
            return Ok(());
        }
        let own = |waiting: &Waiting| waiting.source == source && waiting.commitment.is_some();
        if let Some(position) = self.anchor.waiting.iter().position(own) {
            // Its own coinbase says otherwise.
            self.anchor.waiting.swap_remove(position);
            return Err(Refusal::Commitment);
        }
        let roots = &mut self.anchor.roots;
        roots.retain(|(_, by)| *by != source);
        if roots.len() < MAX_ROOTS {
            roots.push((root, source));
        }
        Ok(())
    }

    /// Coinbase and root of the witness tree are proven.
    fn accept_coinbase(
        &mut self,
        coinbase: Transaction,
        commitment: Option<WitnessCommitment>,
        root: Hash,
        source: Source,
    ) {
        let (txid, wtxid) = (coinbase.txid(), coinbase.wtxid());
        self.anchor.commitment = Some(commitment);
        self.set_verified(0, coinbase);
        self.tree.trust_root(root);
        let top = self.geometry.root();
        self.settle(Offer::Verified { top }, source);
        let zero_leaf = match commitment {
            Some(_) => [0; 32],
            None => txid,
        };
        if let Some(leaf) = self.geometry.leaf(0) {
            let offer = self.tree.offer(leaf, zero_leaf, Source::Local);
            self.settle(offer, source);
        }
        self.finish_chunk(0, source);
        for other in std::mem::take(&mut self.anchor.waiting) {
            if other.commitment.is_some() && other.coinbase.wtxid() != wtxid {
                self.news.push(News::Blame(other.source, Refusal::Coinbase));
            }
        }
        for (other, by) in std::mem::take(&mut self.anchor.roots) {
            if other != root {
                self.news.push(News::Blame(by, Refusal::Commitment));
            }
        }
    }
}
