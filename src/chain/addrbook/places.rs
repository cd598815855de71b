//! The places of a table: buckets of 64, and which of them an address may take.
//!
//! The place follows from a secret key, the address, its group and, for hearsay, the group of whoever told. Whoever
//! holds few groups reaches few buckets, and cannot know which.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher24;

use super::address::{Address, Group};
use super::entry::Table;

/// Places of a bucket, as in Bitcoin Core.
pub(super) const BUCKET: usize = 64;
/// A place with nothing in it.
const EMPTY: u32 = u32::MAX;

/// Sizes of one table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Buckets.
    pub buckets: usize,
    /// Buckets that one source group (of hearsay) or one group (of what we have seen) can reach.
    pub share: usize,
}

impl Table {
    /// The sizes of a table.
    ///
    /// `New`: a quarter of Bitcoin Core's: strangers are here for their gossip and to fill answers, and 16,384 of
    /// them are a sample of all networks. `Claimed`: the same again, since we look for all of them; the whole
    /// network would have room if one in four had the flag. A source group reaches a sixteenth of either, as in
    /// Bitcoin Core. `Tried` and `Proven`: 4,096 each, a day's feelers several times over; a group reaches a
    /// sixteenth, twice Bitcoin Core's part, since there are four times fewer buckets.
    pub(super) const fn shape(self) -> Shape {
        match self {
            Self::New | Self::Claimed => Shape {
                buckets: 256,
                share: 16,
            },
            Self::Tried | Self::Proven => Shape {
                buckets: 64,
                share: 4,
            },
        }
    }

    /// Places in all.
    pub(super) const fn capacity(self) -> usize {
        self.shape().buckets * BUCKET
    }
}

/// The key of the places.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(pub [u8; 16]);

impl Key {
    /// The place of an address in a table. `source` counts in tables of hearsay alone.
    pub(super) fn place(&self, table: Table, address: &Address, source: &Group) -> usize {
        let shape = table.shape();
        let group = address.group();
        let (share, owner) = if table.is_hearsay() {
            (
                self.hash(table, 0, &[&group.0, &source.0]) % shape.share as u64,
                *source,
            )
        } else {
            (
                self.hash_address(table, 1, address) % shape.share as u64,
                group,
            )
        };
        let bucket =
            self.hash(table, 2, &[&owner.0, &share.to_le_bytes()]) as usize % shape.buckets;
        let position = self.hash_address(table, 3 + bucket as u64, address) as usize % BUCKET;
        bucket * BUCKET + position
    }

    fn hash_address(&self, table: Table, what: u64, address: &Address) -> u64 {
        let fixed = [
            address.host.network(),
            address.door as u8,
            address.port.to_le_bytes()[0],
            address.port.to_le_bytes()[1],
        ];
        self.hash(table, what, &[&fixed, address.host.as_bytes()])
    }

    /// The parts have lengths that follow from those before them, so nothing separates them.
    fn hash(&self, table: Table, what: u64, parts: &[&[u8]]) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(&[table as u8]);
        hasher.write(&what.to_le_bytes());
        parts.iter().for_each(|part| hasher.write(part));
        hasher.finish()
    }
}

/// Which entry is in which place of one table.
#[derive(Clone, Debug)]
pub(super) struct Places(Vec<u32>);

impl Places {
    pub(super) fn new(table: Table) -> Self {
        Self(vec![EMPTY; table.capacity()])
    }

    /// The entry in a place.
    pub(super) fn at(&self, place: usize) -> Option<usize> {
        match self.0.get(place) {
            None | Some(&EMPTY) => None,
            Some(id) => Some(*id as usize),
        }
    }

    /// Puts an entry into a place, whatever was there.
    pub(super) fn put(&mut self, place: usize, id: usize) {
        if let Some(found) = self.0.get_mut(place) {
            *found = u32::try_from(id).unwrap_or(EMPTY);
        }
    }

    /// Empties a place.
    pub(super) fn clear(&mut self, place: usize) {
        if let Some(found) = self.0.get_mut(place) {
            *found = EMPTY;
        }
    }

    /// Every place that is taken, with its entry.
    #[cfg(test)]
    pub(super) fn taken(&self) -> impl Iterator<Item = (usize, usize)> {
        let places = self.0.iter().enumerate();
        places.filter_map(|(place, id)| (*id != EMPTY).then_some((place, *id as usize)))
    }
}
