//! A table from hashes to slot numbers: open addressing, linear probing, nothing but the slot numbers stored.
//!
//! The owner hashes with a secret key, so nobody outside can aim at a place in the table.

/// A place with nothing in it.
const EMPTY: u32 = u32::MAX;
/// Fewest places.
const MIN_PLACES: usize = 16;

/// Slot numbers, found by the hash of what is in the slot.
///
/// The same hash may occur more than once. `hash_of` gives the hash of a slot that is in the table.
#[derive(Clone, Debug)]
pub(super) struct IdTable {
    places: Vec<u32>,
    len: usize,
}

impl IdTable {
    pub(super) fn new() -> Self {
        Self {
            places: vec![EMPTY; MIN_PLACES],
            len: 0,
        }
    }

    /// The first slot with this hash that `is_it` says is meant.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mut place = self.home(hash);
        loop {
            match self.at(place) {
                EMPTY => return None,
                slot if is_it(slot) => return Some(slot),
                _ => place = self.after(place),
            }
        }
    }

    /// Adds a slot; grows so that at most two places of three are taken.
    pub(super) fn insert(&mut self, hash: u64, slot: u32, hash_of: impl Fn(u32) -> u64) {
        if (self.len + 1) * 3 > self.places.len() * 2 {
            let larger = vec![EMPTY; self.places.len() * 2];
            let old = std::mem::replace(&mut self.places, larger);
            for slot in old.into_iter().filter(|&slot| slot != EMPTY) {
                self.put(hash_of(slot), slot);
            }
        }
        self.put(hash, slot);
        self.len += 1;
    }

    /// Takes a slot out, if it is there under this hash.
    pub(super) fn remove(&mut self, hash: u64, slot: u32, hash_of: impl Fn(u32) -> u64) {
        let mut gap = self.home(hash);
        while self.at(gap) != slot {
            if self.at(gap) == EMPTY {
                return;
            }
            gap = self.after(gap);
        }
        self.len -= 1;
        // Later slots of the cluster move back into the gap unless they would then stand before their home.
        let mut place = self.after(gap);
        loop {
            let candidate = self.at(place);
            if candidate == EMPTY {
                break;
            }
            let home = self.home(hash_of(candidate));
            if self.distance(home, place) >= self.distance(gap, place) {
                self.set(gap, candidate);
                gap = place;
            }
            place = self.after(place);
        }
        self.set(gap, EMPTY);
    }

    /// Bytes of memory that the table holds.
    pub(super) fn memory(&self) -> usize {
        self.places.capacity() * size_of::<u32>()
    }

    fn put(&mut self, hash: u64, slot: u32) {
        let mut place = self.home(hash);
        while self.at(place) != EMPTY {
            place = self.after(place);
        }
        self.set(place, slot);
    }

    fn mask(&self) -> usize {
        self.places.len() - 1
    }

    /// The low bits of the hash: a SipHash, all of whose bits are good.
    fn home(&self, hash: u64) -> usize {
        hash as usize & self.mask()
    }

    fn after(&self, place: usize) -> usize {
        (place + 1) & self.mask()
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & self.mask()
    }

    fn at(&self, place: usize) -> u32 {
        self.places.get(place).copied().unwrap_or(EMPTY)
    }

    fn set(&mut self, place: usize, slot: u32) {
        if let Some(found) = self.places.get_mut(place) {
            *found = slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn agrees_with_a_map(steps in prop::collection::vec((any::<bool>(), 0u32..64), 0..400)) {
            // Few distinct hashes, so that clusters form and wrap around the end.
            let hash_of = |slot: u32| u64::from(slot % 7).wrapping_mul(5).wrapping_sub(3);
            let mut table = IdTable::new();
            let mut model = BTreeMap::new();
            for (add, slot) in steps {
                if add && !model.contains_key(&slot) {
                    table.insert(hash_of(slot), slot, hash_of);
                    model.insert(slot, ());
                } else if !add {
                    table.remove(hash_of(slot), slot, hash_of);
                    model.remove(&slot);
                }
                for slot in 0..64 {
                    let found = table.find(hash_of(slot), |other| other == slot);
                    prop_assert_eq!(found.is_some(), model.contains_key(&slot));
                }
            }
            prop_assert_eq!(table.len, model.len());
        }
    }
}
