//! TXS and TX_PART: transactions that are wanted and verified here.

use super::*;

/// Into how many parts a chunk is divided when it is compared how often chunks were sent on.
const RANKS: u64 = 64;

impl Pen<'_, '_> {
    pub(super) fn write_lost_parts(&mut self) -> bool {
        while let Some((leaf, cells)) = self.peer.lost_parts.pop_front() {
            if self.peer.has_leaf(leaf) || cells.is_empty() {
                continue;
            }
            let Some(next) = self.write_part(leaf, cells.start, cells.end) else {
                self.peer.lost_parts.push_front((leaf, cells));
                return false;
            };
            self.peer.lost_parts.push_front((leaf, next..cells.end));
        }
        true
    }

    /// Writes a part of a transaction from a cell on, up to `end` at most. Gives the cell after it, or `None`
    /// without room.
    pub(super) fn write_part(&mut self, leaf: u32, cell: u32, end: u32) -> Option<u32> {
        let Some(transaction) = self.job.transaction(leaf) else {
            return Some(end);
        };
        let total = transaction.len() as u32;
        let fitting = TxPart::fitting(self.writer.remaining(), leaf, total, cell)?;
        let length = fitting.min(((end - cell) * CELL) as usize);
        let start = (cell * CELL) as usize;
        let stop = (start + length).min(total as usize);
        let (job, _) = name_of(self.id, self.peer);
        let bytes = transaction.bytes().get(start..stop)?;
        let altered: Vec<u8>;
        let bytes = if self.target.lie {
            altered = alter_bytes(bytes);
            &altered
        } else {
            bytes
        };
        let message = Message::TxPart(TxPart {
            job,
            index: leaf,
            total,
            cell,
            bytes,
        });
        message.write_frame(self.writer).ok()?;
        self.peer.served_bytes += (stop - start) as u64;
        let next = cell + (length as u32).div_ceil(CELL);
        self.note_forwarded(self.job.geometry.depth(), &(leaf..leaf + 1));
        self.items.push(Item::Part(self.id, leaf, cell..next));
        Some(next)
    }

    pub(super) fn write_transactions(&mut self) -> bool {
        loop {
            if self.peer.cell == 0 && self.target.shared {
                self.pick_chunk();
            }
            let Some(leaf) = self.peer.next_ready() else {
                return true;
            };
            let Some(transaction) = self.job.transaction(leaf) else {
                self.peer.ready_sent();
                continue;
            };
            let whole = transaction.len() + 16 <= self.target.fresh_room;
            let written = if whole && self.peer.cell == 0 {
                self.write_whole(leaf)
            } else {
                self.write_next_part(leaf)
            };
            if !written {
                return false;
            }
        }
    }

    /// Before a chunk is begun: of those that the peer waits for, what was sent on least goes first. Where many want all
    /// of a block, each so gets something else first, and they have the rest from each other: a chunk leaves once before
    /// any leaves twice.
    fn pick_chunk(&mut self) {
        let Some(front) = self.peer.next_ready() else {
            return;
        };
        let is_left = |chunk: u32| {
            let leaves = self.job.chunk_leaves(chunk);
            let bits = self
                .peer
                .queued
                .get(leaves.start as usize..leaves.end as usize);
            bits.is_some_and(|bits| bits.any())
        };
        if self.peer.picked.is_some_and(is_left) {
            return;
        }
        let (first, chunks) = (self.job.chunk_of(front), self.job.chunks.len() as u32);
        let rank = |chunk: &u32| {
            let state = self.job.chunks.get(*chunk as usize);
            state.map_or(0, |state| {
                let here = self.job.chunk_leaves(*chunk).len() as u64 - u64::from(state.missing);
                u64::from(state.served) * RANKS / here.max(1)
            })
        };
        let left = (first..chunks)
            .chain(0..first)
            .filter(|chunk| is_left(*chunk));
        let Some(chunk) = left.min_by_key(rank) else {
            return;
        };
        let leaves = self.job.chunk_leaves(chunk);
        self.peer.pick(chunk, (chunk != first).then_some(leaves));
    }

    /// Counts transactions of a chunk that were sent on.
    fn note_served(&mut self, leaf: u32, count: u32) {
        let chunk = self.job.chunk_of(leaf) as usize;
        if let Some(chunk) = self.job.chunks.get_mut(chunk) {
            chunk.served = chunk.served.saturating_add(count);
        }
    }

    pub(super) fn write_next_part(&mut self, leaf: u32) -> bool {
        let Some(transaction) = self.job.transaction(leaf) else {
            return true;
        };
        let cells = (transaction.len() as u32).div_ceil(CELL);
        let Some(next) = self.write_part(leaf, self.peer.cell, cells) else {
            return false;
        };
        self.peer.cell = next;
        if next >= cells {
            self.peer.ready_sent();
            self.note_served(leaf, 1);
        }
        true
    }

    /// Writes whole transactions from `first` on, as many in a row as are wanted and fit.
    pub(super) fn write_whole(&mut self, first: u32) -> bool {
        let (job, _) = name_of(self.id, self.peer);
        let Ok(mut txs) = TxsWriter::begin(self.writer, job, first) else {
            return false;
        };
        let mut next = first;
        while let Some(leaf) = self.peer.next_ready() {
            let Some(transaction) = self.job.transaction(leaf) else {
                break;
            };
            if leaf != next || transaction.len() + 16 > self.target.fresh_room {
                break;
            }
            let taken = match self.target.lie {
                true => txs.push(&alter_bytes(transaction.bytes())),
                false => txs.push(transaction.bytes()),
            };
            if !taken {
                break;
            }
            self.peer.served_bytes += transaction.len() as u64;
            self.peer.ready_sent();
            next += 1;
        }
        if txs.finish() == 0 {
            return false;
        }
        self.note_served(first, next - first);
        self.note_forwarded(self.job.geometry.depth(), &(first..next));
        self.items.push(Item::Transactions(self.id, first..next));
        true
    }
}

/// Test option: a lie about a transaction: its lock time, so that it still parses.
pub(super) fn alter_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut altered = bytes.to_vec();
    if let Some(byte) = altered.last_mut() {
        *byte ^= 1;
    }
    altered
}
