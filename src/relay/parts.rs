//! Transactions that come in parts: one larger than a datagram, cell by cell, from one peer each.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use bitvec::prelude::BitVec;
use bytes::{Bytes, BytesMut};

use super::jobs::JobEntry;
use super::stats::Refusal;
use crate::time::Time;
use crate::wire::{CELL, TxPart};

/// Transactions in parts that one peer may have under way in one job.
///
/// As many as a block of 4 MB can hold of those that need parts (over 1.1 kB): at heavy loss many lack
/// a cell at the same time. Their bytes together are bounded by those of one block.
const MAX_PARTS_PER_PEER: usize = 4_096;

/// How long the parts of one transaction count as progress of their sender: 4 MB take it at 1.6 Mbit/s. Who
/// lets them drip longer is taken for silent, and others are asked.
const MAX_PART_TIME: Duration = Duration::from_secs(20);

/// One transaction on its way.
#[derive(Debug)]
struct Part {
    bytes: BytesMut,
    cells: BitVec,
    missing: usize,
}

/// What one peer has under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Total {
    bytes: usize,
    count: usize,
}

/// All transactions on their way in parts, by leaf and peer.
#[derive(Debug, Default)]
pub(super) struct Parts {
    parts: BTreeMap<(u32, u32), Part>,
    /// By peer; one that has nothing under way is not in it.
    totals: BTreeMap<u32, Total>,
}

impl Parts {
    /// Bytes of a transaction that a peer sends in parts, and the stretches of them that have not come.
    pub fn of_leaf(&self, leaf: u32, slot: u32) -> Option<(&[u8], Vec<Range<u32>>)> {
        let part = self.parts.get(&(leaf, slot))?;
        let total = part.bytes.len() as u32;
        let gaps = part.cells.iter_zeros().map(|cell| {
            let start = cell as u32 * CELL;
            start..(start + CELL).min(total)
        });
        Some((&part.bytes, gaps.collect()))
    }

    /// A leaf is verified: its parts are of no use any longer.
    pub fn forget_leaf(&mut self, leaf: u32) {
        while let Some((key, _)) = self.parts.range((leaf, 0)..=(leaf, u32::MAX)).next() {
            let key = *key;
            self.remove(key);
        }
    }

    /// A peer is gone.
    pub fn forget_peer(&mut self, slot: u32) {
        if self.totals.remove(&slot).is_some() {
            self.parts.retain(|(_, peer), _| *peer != slot);
        }
    }

    /// Bytes of the peer that has most under way.
    pub fn most_bytes(&self) -> usize {
        let bytes = self.totals.values().map(|total| total.bytes);
        bytes.max().unwrap_or(0)
    }

    fn insert(&mut self, key: (u32, u32), part: Part) {
        let total = self.totals.entry(key.1).or_default();
        total.bytes += part.bytes.len();
        total.count += 1;
        self.parts.insert(key, part);
    }

    fn remove(&mut self, key: (u32, u32)) -> Option<Part> {
        let part = self.parts.remove(&key)?;
        if let Some(total) = self.totals.get_mut(&key.1) {
            total.bytes -= part.bytes.len();
            total.count -= 1;
            if total.count == 0 {
                self.totals.remove(&key.1);
            }
        }
        Some(part)
    }

    fn of_peer(&self, slot: u32) -> Total {
        self.totals.get(&slot).copied().unwrap_or_default()
    }

    /// Takes a part. Gives the transaction when its last cell is here.
    #[cfg(test)]
    fn take(&mut self, slot: u32, part: &TxPart<'_>, limit: u32) -> Result<Option<Bytes>, Refusal> {
        self.take_new(slot, part, limit).map(|(whole, _)| whole)
    }

    /// As [`Self::take`], and whether the part brought anything new.
    fn take_new(
        &mut self,
        slot: u32,
        part: &TxPart<'_>,
        limit: u32,
    ) -> Result<(Option<Bytes>, bool), Refusal> {
        if part.total > limit {
            return Err(Refusal::Limits);
        }
        let key = (part.index, slot);
        let total = part.total as usize;
        if let Some(known) = self.parts.get(&key) {
            if known.bytes.len() != total {
                self.remove(key);
                return Err(Refusal::Parts);
            }
        } else {
            let under_way = self.of_peer(slot);
            // All that one peer has under way is no more than one block.
            if under_way.count >= MAX_PARTS_PER_PEER || under_way.bytes + total > limit as usize {
                return Err(Refusal::Unconnected);
            }
            let cells = part.total.div_ceil(CELL) as usize;
            self.insert(
                key,
                Part {
                    bytes: BytesMut::zeroed(total),
                    cells: BitVec::repeat(false, cells),
                    missing: cells,
                },
            );
        }
        let Some(known) = self.parts.get_mut(&key) else {
            return Err(Refusal::Parts);
        };
        let start = part.cell as usize * CELL as usize;
        let room = known
            .bytes
            .get_mut(start..start + part.bytes.len())
            .ok_or(Refusal::Parts)?;
        room.copy_from_slice(part.bytes);
        let before = known.missing;
        let first = part.cell as usize;
        for cell in first..first + part.bytes.len().div_ceil(CELL as usize) {
            if let Some(mut bit) = known.cells.get_mut(cell)
                && !*bit
            {
                bit.set(true);
                known.missing -= 1;
            }
        }
        let new = known.missing < before;
        if known.missing > 0 {
            return Ok((None, new));
        }
        Ok((self.remove(key).map(|part| part.bytes.freeze()), new))
    }
}

impl JobEntry {
    /// Takes a part of a transaction. Gives the transaction when it is whole.
    pub fn take_part(
        &mut self,
        slot: u32,
        part: &TxPart<'_>,
        limit: u32,
        now: Time,
    ) -> Result<Option<Bytes>, Refusal> {
        let (whole, new) = self.parts.take_new(slot, part, limit)?;
        if let Some(peer) = self.peers.get_mut(&slot).filter(|_| new) {
            let since = *peer.parts_since.get_or_insert(now);
            if now.since(since) < MAX_PART_TIME {
                peer.last_progress = now;
            }
        }
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::JobRef;

    fn part(index: u32, total: u32, cell: u32, bytes: &[u8]) -> TxPart<'_> {
        TxPart {
            job: JobRef::of_sender(1),
            index,
            total,
            cell,
            bytes,
        }
    }

    #[test]
    fn parts_come_in_any_order_and_twice() {
        let whole: Vec<u8> = (0..2 * CELL + 10).map(|byte| byte as u8).collect();
        let total = whole.len() as u32;
        let cell = |number: u32| {
            let start = (number * CELL) as usize;
            &whole[start..(start + CELL as usize).min(whole.len())]
        };
        let mut parts = Parts::default();
        assert_eq!(parts.take(1, &part(5, total, 2, cell(2)), 10_000), Ok(None));
        assert_eq!(parts.take(1, &part(5, total, 2, cell(2)), 10_000), Ok(None));
        assert_eq!(parts.take(1, &part(5, total, 0, cell(0)), 10_000), Ok(None));
        // Another peer's parts are its own.
        assert_eq!(parts.take(2, &part(5, total, 1, cell(1)), 10_000), Ok(None));
        let done = parts.take(1, &part(5, total, 1, cell(1)), 10_000);
        assert_eq!(done, Ok(Some(Bytes::from(whole))));
    }

    #[test]
    fn what_a_peer_may_have_under_way_is_bounded() {
        let mut parts = Parts::default();
        let cell = [0; CELL as usize];
        assert_eq!(
            parts.take(1, &part(0, 20_000, 0, &cell), 10_000),
            Err(Refusal::Limits)
        );
        for index in 0..MAX_PARTS_PER_PEER as u32 {
            assert_eq!(
                parts.take(1, &part(index, 1_200, 0, &cell), 10_000_000),
                Ok(None)
            );
        }
        assert_eq!(
            parts.take(1, &part(99_999, 1_200, 0, &cell), 10_000_000),
            Err(Refusal::Unconnected)
        );
        assert_eq!(
            parts.take(1, &part(3, 1_300, 0, &cell), 10_000_000),
            Err(Refusal::Parts)
        );
        parts.forget_peer(1);
        assert_eq!(parts.of_peer(1), Total::default());
        assert!(parts.parts.is_empty());
    }

    #[test]
    fn totals_follow_what_is_under_way() {
        let mut parts = Parts::default();
        let cell = [0; CELL as usize];
        let total = |bytes, count| Total { bytes, count };
        for (slot, leaf) in [(1, 4), (2, 4), (1, 5), (1, 6)] {
            let taken = parts.take(slot, &part(leaf, 1_200 + leaf, 0, &cell), 10_000);
            assert_eq!(taken, Ok(None));
        }
        assert_eq!(parts.of_peer(1), total(3_615, 3));
        parts.forget_leaf(4);
        assert_eq!(parts.of_peer(1), total(2_411, 2));
        assert_eq!(parts.of_peer(2), Total::default());
        let wrong = parts.take(1, &part(5, 1_300, 0, &cell), 10_000);
        assert_eq!(wrong, Err(Refusal::Parts));
        let last = parts.take(1, &part(6, 1_206, 1, &[0; 54]), 10_000);
        assert!(last.is_ok_and(|whole| whole.is_some()));
        assert!(parts.totals.is_empty() && parts.parts.is_empty());
    }
}
