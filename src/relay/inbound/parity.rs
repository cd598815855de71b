//! PARITY, and what it makes good.

use super::{Source, look_up_leaves, take_branch};
use crate::mempool::Transaction;
use crate::relay::Engine;
use crate::relay::job::ClaimedId;
use crate::relay::jobs::JobEntry;
use crate::relay::parity::flight::{Flight, Found};
use crate::relay::stats::Refusal;
use crate::wire::{Parity, ParityKind, Whose};

impl Engine {
    pub(super) fn take_parity(&mut self, slot: u32, parity: &Parity<'_>) {
        let now = self.now;
        self.with_job(slot, parity.job, |engine, entry| {
            let count = entry.job.geometry.count();
            let peer = entry.peers.get_mut(&slot).ok_or(Refusal::UnknownJob)?;
            // Only who may push sends any, of the job that it opened itself.
            let due = peer.pushed_to_us && parity.job.whose == Whose::Sender;
            if !due || entry.job.is_complete() || peer.claims_other(count) {
                return Ok(());
            }
            if parity.bytes > engine.config.max_block_bytes {
                return Err(Refusal::Limits);
            }
            entry.asks.last_flight = now;
            peer.last_progress = now;
            if parity.kind == ParityKind::Transactions {
                entry.asks.dirty = true;
                return match entry.parity.note(slot, count, parity) {
                    true => Ok(()),
                    false => Err(Refusal::Parity),
                };
            }
            let Some(flight) = entry.flight_of(slot, parity.kind) else {
                return Ok(());
            };
            match flight.note_parity(parity) {
                true => Ok(()),
                false => Err(Refusal::Parity),
            }
        });
        self.make_good(slot, parity.job);
    }

    /// Takes what parity makes good of a peer's first flight, and of the transactions.
    pub(super) fn make_good(&mut self, slot: u32, job: crate::wire::JobRef) {
        let source = self.source(slot);
        let Some(id) = self.find_job(slot, job) else {
            return;
        };
        let has_any = self.jobs.get(&id).is_some_and(|entry| {
            let peer = entry.peers.get(&slot);
            !entry.parity.is_empty() || peer.is_some_and(|peer| peer.flight.is_some())
        });
        if !has_any {
            return;
        }
        self.with_job(slot, job, |engine, entry| {
            let peer = entry.peers.get_mut(&slot);
            let flight = peer.and_then(|peer| peer.flight.as_mut());
            let found = flight.map_or(Vec::new(), |flight| flight.make_good());
            for found in found {
                engine.take_found(slot, entry, found, source)?;
            }
            Ok(())
        });
        self.decode_body(id, slot);
    }

    /// A part of a first flight that was made good: as if it had come from the peer.
    fn take_found(
        &mut self,
        slot: u32,
        entry: &mut JobEntry,
        found: Found,
        source: Source,
    ) -> Result<(), Refusal> {
        let job = &mut entry.job;
        if job.is_complete() {
            return Ok(());
        }
        match found {
            Found::Branch(hashes) => job.take_branch(&hashes),
            Found::Lap(lap, hashes) => {
                job.take_lap(&lap, &hashes, source)?;
                look_up_leaves(job, &lap, &hashes, &self.mempool, source);
                Ok(())
            }
            Found::ShortIds(chunk, ids) => {
                let ids = ids.into_iter().map(ClaimedId::Short).collect();
                let nonce = entry.peers.get(&slot).map_or(0, |peer| peer.nonce);
                job.take_short_ids(chunk, ids, nonce, &self.mempool, source)
            }
            Found::Coinbase(bytes) => {
                let coinbase = Transaction::parse(bytes).map_err(|_| Refusal::Transaction)?;
                entry.transaction_came(slot, 0, self.now);
                entry.job.take_transaction(0, coinbase, source)
            }
        }
    }

    /// Takes what parity makes good of a job's transactions.
    fn decode_body(&mut self, id: u16, slot: u32) {
        let (now, source) = (self.now, self.source(slot));
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        if entry.parity.is_empty() || entry.job.is_complete() {
            return;
        }
        let JobEntry {
            job, parity, parts, ..
        } = &mut **entry;
        let Some(decoded) = parity.decode(job, parts) else {
            return;
        };
        for (leaf, transaction) in decoded.found {
            entry.transaction_came(slot, leaf, now);
            // What hashes to its chunk is right, whoever sent it.
            let _ = entry.job.take_transaction(leaf, transaction, source);
        }
        entry.asks.dirty = true;
        self.settle_job(id);
    }
}

impl JobEntry {
    /// What a peer that may push has pushed of its first flight. `None` for whoever may not, or sends another kind than was
    /// granted.
    pub(super) fn flight_of(&mut self, slot: u32, kind: ParityKind) -> Option<&mut Flight> {
        let granted = self.granted_flight(slot)?;
        (granted == kind).then(|| self.flight(slot)).flatten()
    }

    /// The same, whatever kind was granted, while the block is not whole.
    pub(super) fn flight(&mut self, slot: u32) -> Option<&mut Flight> {
        let kind = self.granted_flight(slot)?;
        let peer = self.peers.get_mut(&slot)?;
        if self.job.is_complete() {
            return None;
        }
        if peer.flight.is_none() {
            let layout = self.job.flight_layout(kind)?;
            peer.flight = Some(Box::new(Flight::new(layout, kind)));
        }
        peer.flight.as_deref_mut()
    }

    /// What kind of first flight a peer may push, if it may.
    fn granted_flight(&self, slot: u32) -> Option<ParityKind> {
        let peer = self.peers.get(&slot).filter(|peer| peer.pushed_to_us)?;
        Some(match peer.pushes_all(self.job.block_bytes) {
            true => ParityKind::Anchor,
            false => ParityKind::Flight,
        })
    }
}

/// The branch came with a first flight or by itself.
pub(super) fn note_branch(
    entry: &mut JobEntry,
    slot: u32,
    lap: &crate::merkle::Lap,
    hashes: &[crate::merkle::Hash],
) -> Result<(), Refusal> {
    if let Some(flight) = entry.flight(slot) {
        flight.note_branch(hashes);
    }
    take_branch(&mut entry.job, lap, hashes)
}
