//! Blocks that are not taken: those known to be invalid, those that were here, and those whose header cannot be
//! judged yet.

use std::collections::VecDeque;

use arrayvec::ArrayVec;

use crate::merkle::Hash;
use crate::relay::Engine;
use crate::relay::inbound::Via;
use crate::relay::stats::Refusal;
use crate::time::Time;
use crate::wire::{CloseReason, OpenJob};

/// Hashes of invalid blocks that are remembered. Each had valid work, so that even one a day is rare; 128 of
/// 32 bytes outlast any game with them.
const MAX_INVALID: usize = 128;

/// Hashes of whole blocks that are remembered when their jobs are over: a copy of an OPEN_JOB may come later than a
/// burst of blocks. Twice as many jobs as are kept, and as much again for those that end early.
const MAX_PASSED: usize = 64;

/// Offers of one peer whose header cannot be judged yet: a block, and the one that it builds upon.
const MAX_KEPT_OFFERS: usize = 2;

/// The hashes of at most so many blocks, the oldest first.
#[derive(Debug, Default)]
pub(in crate::relay) struct Remembered<const MOST: usize>(VecDeque<Hash>);

/// Blocks that were found invalid.
pub(in crate::relay) type InvalidBlocks = Remembered<MAX_INVALID>;

/// Blocks that were here whole, and whose jobs are over.
pub(in crate::relay) type PassedBlocks = Remembered<MAX_PASSED>;

impl<const MOST: usize> Remembered<MOST> {
    /// Whether a block is among them.
    pub fn contains(&self, hash: &Hash) -> bool {
        self.0.contains(hash)
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds a block. The oldest makes room.
    pub fn insert(&mut self, hash: Hash) {
        if self.contains(&hash) {
            return;
        }
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back(hash);
    }

    /// The node's own side has it all the same.
    pub fn forget(&mut self, hash: &Hash) {
        self.0.retain(|known| known != hash);
    }
}

/// An OPEN_JOB that waits for its block's parent.
#[derive(Clone, Debug)]
pub(in crate::relay) struct KeptOffer {
    job: u16,
    has_commitment: bool,
    sender_has_all: bool,
    count: u32,
    block_bytes: u32,
    nonce: u64,
    header: [u8; 80],
}

impl KeptOffer {
    fn new(open: &OpenJob<'_>) -> Self {
        Self {
            job: open.job,
            has_commitment: open.has_commitment,
            sender_has_all: open.sender_has_all,
            count: open.count,
            block_bytes: open.block_bytes,
            nonce: open.nonce,
            header: *open.header,
        }
    }

    fn as_open(&self) -> OpenJob<'_> {
        OpenJob {
            job: self.job,
            has_commitment: self.has_commitment,
            sender_has_all: self.sender_has_all,
            count: self.count,
            block_bytes: self.block_bytes,
            nonce: self.nonce,
            header: &self.header,
        }
    }
}

/// The offers of one peer that wait, the oldest first.
#[derive(Debug, Default)]
pub(in crate::relay) struct KeptOffers(ArrayVec<KeptOffer, MAX_KEPT_OFFERS>);

impl KeptOffers {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets the offer that the peer made under this id. Gives whether there was one.
    pub fn forget(&mut self, job: u16) -> bool {
        let before = self.0.len();
        self.0.retain(|offer| offer.job != job);
        self.0.len() < before
    }
}

impl Engine {
    /// The Bitcoin node behind this one refused a block: it is no longer fetched, served or taken again. Nobody
    /// is blamed, since whoever relayed it could check no more than its work and its trees. The text is
    /// that of [`Event::JobClosed`](crate::relay::Event::JobClosed).
    pub fn reject_block(&mut self, now: Time, hash: Hash, reason: &'static str) {
        self.now = now;
        self.invalid.insert(hash);
        if let Some(id) = self.jobs_by_hash.get(&hash).copied() {
            self.close_job(id, CloseReason::Invalid, reason);
        }
    }

    /// Ends the job of a block that is invalid although all that is verified of it leads to its work. It
    /// takes verified data to get here, so that no peer can bring a good block's hash among them (VER-5).
    pub(in crate::relay) fn invalidate_job(&mut self, id: u16, reason: &'static str) {
        if let Some(entry) = self.jobs.get(&id) {
            self.invalid.insert(entry.job.hash);
        }
        self.close_job(id, CloseReason::Invalid, reason);
    }

    /// The judge knows headers that it did not know: offers that waited for them are taken up.
    pub fn headers_changed(&mut self, now: Time) {
        self.now = now;
        self.retry_offers();
    }

    /// Keeps an offer until its header can be judged. The copy of one that is kept changes nothing.
    pub(in crate::relay) fn keep_offer(&mut self, slot: u32, open: &OpenJob<'_>) {
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        let known = session
            .offers
            .0
            .iter()
            .any(|offer| offer.header == *open.header);
        session.offers.forget(open.job);
        session
            .offers
            .0
            .retain(|offer| offer.header != *open.header);
        let displaced = match session.offers.0.is_full() {
            true => session.offers.0.pop_at(0),
            false => None,
        };
        session.offers.0.push(KeptOffer::new(open));
        if !known {
            self.refused.count(Refusal::UnknownParent);
        }
        if let Some(displaced) = displaced {
            self.blame(slot, Refusal::HeaderContext);
            self.close_at(slot, displaced.job, CloseReason::Unknown);
        }
    }

    /// Takes up what waited and can be judged now, until nothing more follows from it.
    pub(in crate::relay) fn retry_offers(&mut self) {
        loop {
            self.headers_news = false;
            for slot in self.established() {
                let offers = match self.session_mut(slot) {
                    Some(session) => std::mem::take(&mut session.offers.0),
                    None => continue,
                };
                for offer in offers {
                    self.take_open_job(slot, &offer.as_open(), Via::Tcp);
                }
            }
            if !self.headers_news {
                return;
            }
        }
    }
}
