//! Frames about the block at stake, true and false, as a script wants them.

use std::ops::Range;

use super::Script;
use super::block::Block;
use crate::mempool::ShortIdKey;
use crate::merkle::{Hash, Lap};
use crate::wire::{
    CELL, Cancel, CloseJob, CloseReason, GetHashes, GetTxs, HashSequence, Hashes, HashlessRun,
    HashlessWorkout, JobRef, JobState, Kind, Message, MessageType, Missing, MissingReason, OpenJob,
    Parity, ParityKind, ShortEntry, Tree, TxList, TxPart, Txs, WireLap, WireRun,
};

impl Block {
    /// A frame about a job, with what the script puts into it; `None` if the script wants another kind.
    pub fn frame(&self, script: &mut Script<'_>) -> Option<Vec<u8>> {
        let choice = script.byte();
        let job = match script.byte() {
            own @ 0..=127 => JobRef::of_sender(u16::from(own % 3)),
            other => JobRef::of_receiver(1 + u16::from(other % 3)),
        };
        if choice >= 0xf8 {
            return Some(Self::parity(job, script));
        }
        Some(match choice % 16 {
            0 | 1 => self.open_job(script),
            2 => self.branch(job),
            3..=5 => self.lap(job, script),
            6 | 7 => self.short_ids(job, script),
            8 | 9 => self.transactions_frame(job, script),
            10 => self.part(job, script),
            11 => self.wanted(job, script),
            12 => self.state(job, script),
            13 => close(job, script),
            _ => return None,
        })
    }

    fn open_job(&self, script: &mut Script<'_>) -> Vec<u8> {
        let flags = script.byte();
        let mut header = self.header;
        let mut count = self.geometry.count();
        match flags >> 4 {
            15 => header[0] = script.byte(),
            14 => count = 1 + script.below(600),
            _ => {}
        }
        encode(&Message::OpenJob(OpenJob {
            job: u16::from(flags % 3),
            has_commitment: flags & 4 != 0,
            sender_has_all: flags & 8 != 0,
            count,
            block_bytes: self.bytes.len() as u32,
            nonce: 0,
            header: &header,
        }))
    }

    fn branch(&self, job: JobRef) -> Vec<u8> {
        let lap = Lap::of_root(self.geometry.branch_of_first());
        self.hashes_frame(job, Tree::Txid, &lap, &self.hashes(&lap))
    }

    fn hashes_frame(&self, job: JobRef, tree: Tree, lap: &Lap, hashes: &[Hash]) -> Vec<u8> {
        let Some(runs) = WireLap::runs_of(lap, hashes) else {
            return Vec::new();
        };
        let lap = WireLap::new(lap, &runs);
        encode(&Message::Hashes(Hashes { job, tree, lap }))
    }

    fn lap(&self, job: JobRef, script: &mut Script<'_>) -> Vec<u8> {
        let geometry = self.geometry;
        let above = script.byte() % (geometry.depth() + 1);
        let level = above + script.byte() % (geometry.depth() - above + 1);
        let ancestor = geometry.node(above, script.below(geometry.width(above)));
        let range = some_range(geometry.width(level), script);
        let lap = ancestor.and_then(|ancestor| geometry.lap(ancestor, level, range));
        let Some(lap) = lap else {
            return Vec::new();
        };
        let mut hashes = self.hashes(&lap);
        let spoil = script.below(hashes.len() as u32 * 2) as usize;
        if let Some(hash) = hashes.get_mut(spoil) {
            hash[0] ^= 1;
        }
        self.hashes_frame(job, Tree::Witness, &lap, &hashes)
    }

    fn short_ids(&self, job: JobRef, script: &mut Script<'_>) -> Vec<u8> {
        let geometry = self.geometry;
        let level = geometry.depth() - geometry.depth().min(7);
        let chunk = geometry.node(level, script.below(geometry.width(level)));
        let Some(chunk) = chunk else {
            return Vec::new();
        };
        let leaves = geometry.leaves(chunk);
        let key = ShortIdKey::new(&self.header, 0);
        let spoil = script.below(200);
        let id = |leaf: u32| {
            let wtxid = self.hash_at(geometry.depth(), leaf);
            let lie = u64::from(leaf == spoil);
            match leaf % 50 {
                49 => ShortEntry::Full(wtxid),
                _ => ShortEntry::Short(key.short_id(&wtxid) ^ lie),
            }
        };
        let entries: Vec<ShortEntry> = leaves.clone().map(id).collect();
        let lap = geometry.lap(chunk, geometry.depth(), leaves);
        let sequence = HashSequence::short(&entries, 6);
        let (Some(lap), Some(sequence)) = (lap, sequence) else {
            return Vec::new();
        };
        let Some(run) = lap.flat() else {
            return Vec::new();
        };
        let runs = [WireRun::new(run, sequence)];
        let (tree, lap) = (Tree::Witness, WireLap::new(&lap, &runs));
        encode(&Message::Hashes(Hashes { job, tree, lap }))
    }

    fn transactions_frame(&self, job: JobRef, script: &mut Script<'_>) -> Vec<u8> {
        let range = some_range(self.geometry.count(), script);
        let shift = u32::from(script.byte() > 240);
        let end = range.end.min(range.start + 40) as usize;
        let picked = self.transactions.get(range.start as usize..end);
        let bytes: Vec<&[u8]> = picked
            .unwrap_or_default()
            .iter()
            .map(|transaction| &transaction.bytes()[..])
            .collect();
        encode(&Message::Txs(Txs {
            job,
            first: range.start + shift,
            transactions: TxList::new(&bytes),
        }))
    }

    fn part(&self, job: JobRef, script: &mut Script<'_>) -> Vec<u8> {
        let index = 2.min(self.geometry.count() - 1);
        let Some(whole) = self.transactions.get(index as usize) else {
            return Vec::new();
        };
        let cell = script.below(4);
        let start = (cell * CELL) as usize;
        let end = whole.len().min(start + CELL as usize);
        let Some(bytes) = whole.bytes().get(start..end).filter(|b| !b.is_empty()) else {
            return Vec::new();
        };
        encode(&Message::TxPart(TxPart {
            job,
            index,
            total: whole.len() as u32,
            cell,
            bytes,
        }))
    }

    /// Parity that may be right in form, and is wrong in what it says.
    fn parity(job: JobRef, script: &mut Script<'_>) -> Vec<u8> {
        let kind = match script.byte() % 3 {
            0 => ParityKind::Flight,
            1 => ParityKind::Anchor,
            _ => ParityKind::Transactions,
        };
        let cell = match (kind, script.byte() % 8) {
            (_, 0) => 66,
            (ParityKind::Transactions, _) => 196,
            _ => 64,
        };
        let count = 1 + script.byte() % 8;
        let cells = vec![script.byte(); usize::from(count) * cell];
        encode(&Message::Parity(Parity {
            job,
            kind,
            bytes: 1 + script.below(4_000) + u32::from(script.byte()) * 64,
            planned: 1 + script.below(300),
            first: script.below(40),
            count,
            cells: &cells,
        }))
    }

    fn wanted(&self, job: JobRef, script: &mut Script<'_>) -> Vec<u8> {
        let geometry = self.geometry;
        let kind = script.byte();
        let level = match kind & 4 {
            0 => geometry.depth(),
            _ => script.byte() % (geometry.depth() + 1),
        };
        let run = [HashlessRun::flat(
            level,
            some_range(geometry.width(level), script),
        )];
        let nodes = HashlessWorkout::new(&run);
        match kind % 4 {
            0 | 1 => encode(&Message::GetTxs(GetTxs { job, nodes })),
            short => encode(&Message::GetHashes(GetHashes {
                job,
                tree: Tree::Witness,
                short: short == 3,
                around: script.byte() % (level + 1),
                nodes,
            })),
        }
    }

    fn state(&self, job: JobRef, script: &mut Script<'_>) -> Vec<u8> {
        let geometry = self.geometry;
        let choice = script.byte();
        let (kind, level) = match choice & 1 {
            0 => (Kind::Transactions, geometry.depth()),
            _ => (
                Kind::WitnessHashes,
                geometry.depth() - geometry.depth().min(7),
            ),
        };
        let run = [HashlessRun::flat(
            level,
            some_range(geometry.width(level), script),
        )];
        let nodes = HashlessWorkout::new(&run);
        let state = JobState { job, kind, nodes };
        match choice >> 6 {
            0 => encode(&Message::JobStateAck(state)),
            1 => encode(&Message::Cancel(Cancel { job, kind, nodes })),
            2 if choice & 2 == 0 => encode(&Message::Missing(Missing {
                job,
                reason: MissingReason::Nodes,
                request: MessageType::GetTxs,
                nodes,
            })),
            _ => encode(&Message::JobState(state)),
        }
    }
}

fn close(job: JobRef, script: &mut Script<'_>) -> Vec<u8> {
    let reason = CloseReason::from_wire(script.byte() % 5).unwrap_or(CloseReason::Done);
    encode(&Message::CloseJob(CloseJob { job, reason }))
}

fn some_range(width: u32, script: &mut Script<'_>) -> Range<u32> {
    let start = script.below(width);
    start..start + 1 + script.below(width - start)
}

/// The message as a frame.
pub(super) fn encode(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.append_frame(&mut bytes);
    bytes
}
