//! From hashes to heights on the active chain, in four bytes a place.

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;

/// A place with nothing in it.
const EMPTY: u32 = u32::MAX;
/// Fewest places.
const MIN_PLACES: usize = 64;

/// Heights, found by the hash of the block there; linear probing, no hash is stored.
///
/// Entries of blocks that have left the active chain stay until the table is built anew: whoever asks checks the
/// hash at the height, so they are never found. The place is taken from the hash itself, whose lower bytes
/// nobody chooses who has to show work for the upper ones.
#[derive(Clone, Debug)]
pub(super) struct Heights {
    places: Vec<u32>,
    len: usize,
}

impl Heights {
    /// A table of the blocks given, with room for as many again.
    pub(super) fn build(blocks: impl ExactSizeIterator<Item = (u32, BlockHash)>) -> Self {
        let places = (blocks.len() * 3).next_power_of_two().max(MIN_PLACES);
        let mut table = Self {
            places: vec![EMPTY; places],
            len: 0,
        };
        for (height, hash) in blocks {
            table.insert(height, hash);
        }
        table
    }

    /// Whether it must be built anew before another block is added.
    pub(super) fn is_full(&self) -> bool {
        (self.len + 1) * 3 > self.places.len() * 2
    }

    /// Adds a block. Call only while the table is not full.
    pub(super) fn insert(&mut self, height: u32, hash: BlockHash) {
        let mut place = self.home(hash);
        while let Some(found) = self.places.get_mut(place) {
            if *found == EMPTY {
                *found = height;
                self.len += 1;
                return;
            }
            place = self.after(place);
        }
    }

    /// The height that `is_it` says is the block's.
    pub(super) fn find(&self, hash: BlockHash, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mut place = self.home(hash);
        loop {
            match self.places.get(place) {
                None | Some(&EMPTY) => return None,
                Some(&height) if is_it(height) => return Some(height),
                Some(_) => place = self.after(place),
            }
        }
    }

    /// Memory that it holds, in bytes.
    pub(super) fn memory(&self) -> usize {
        self.places.capacity() * size_of::<u32>()
    }

    fn home(&self, hash: BlockHash) -> usize {
        let bytes = hash.to_byte_array();
        let low = bytes.first_chunk().copied().map_or(0, u64::from_le_bytes);
        low as usize & (self.places.len() - 1)
    }

    fn after(&self, place: usize) -> usize {
        (place + 1) & (self.places.len() - 1)
    }
}
