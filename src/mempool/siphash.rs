//! SipHash-2-4 of exactly 32 bytes.
//!
//! Our own because a pass over a whole pool is nothing but this: the number of rounds is fixed, nothing is
//! buffered, and eight hashes run side by side in vector registers (`fearless_simd` asks the processor which it has,
//! and keeps the unsafe calls out of this crate). The library `siphasher` is the oracle of its tests.

use fearless_simd::{Level, Simd, dispatch, prelude::*, u64x8};

use super::Hash32;

/// The last word that is absorbed: it holds the length, modulo 256, in its highest byte.
const LENGTH: u64 = 32 << 56;

/// The four little-endian words of a hash.
#[inline(always)]
pub(super) fn words(hash: &Hash32) -> [u64; 4] {
    let (words, _) = hash.as_chunks::<8>();
    let mut out = [0; 4];
    for (out, word) in out.iter_mut().zip(words) {
        *out = u64::from_le_bytes(*word);
    }
    out
}

#[inline(always)]
fn round(v: &mut [u64; 4]) {
    let [mut v0, mut v1, mut v2, mut v3] = *v;
    v0 = v0.wrapping_add(v1);
    v2 = v2.wrapping_add(v3);
    v1 = v1.rotate_left(13) ^ v0;
    v3 = v3.rotate_left(16) ^ v2;
    v0 = v0.rotate_left(32);
    v2 = v2.wrapping_add(v1);
    v0 = v0.wrapping_add(v3);
    v1 = v1.rotate_left(17) ^ v2;
    v3 = v3.rotate_left(21) ^ v0;
    v2 = v2.rotate_left(32);
    *v = [v0, v1, v2, v3];
}

#[inline(always)]
fn start([k0, k1]: [u64; 2]) -> [u64; 4] {
    [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ]
}

/// The five words that are absorbed.
#[inline(always)]
fn message(id: &Hash32) -> [u64; 5] {
    let [a, b, c, d] = words(id);
    [a, b, c, d, LENGTH]
}

#[inline(always)]
fn end([v0, v1, v2, v3]: [u64; 4]) -> u64 {
    v0 ^ v1 ^ v2 ^ v3
}

/// SipHash-2-4 of 32 bytes under the key of two little-endian words.
#[inline(always)]
pub(super) fn hash(key: [u64; 2], id: &Hash32) -> u64 {
    let mut v = start(key);
    for word in message(id) {
        v[3] ^= word;
        round(&mut v);
        round(&mut v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut v);
    }
    end(v)
}

/// Hashes that are made side by side.
const LANES: usize = 8;

/// Four words of the state, of as many hashes as there are lanes.
#[derive(Clone, Copy)]
struct Lanes<S: Simd>([u64x8<S>; 4]);

impl<S: Simd> Lanes<S> {
    #[inline(always)]
    fn round(&mut self) {
        let [mut v0, mut v1, mut v2, mut v3] = self.0;
        v0 += v1;
        v2 += v3;
        v1 = rotate_left::<S, 13>(v1) ^ v0;
        v3 = rotate_left::<S, 16>(v3) ^ v2;
        v0 = rotate_left::<S, 32>(v0);
        v2 += v1;
        v0 += v3;
        v1 = rotate_left::<S, 17>(v1) ^ v2;
        v3 = rotate_left::<S, 21>(v3) ^ v0;
        v2 = rotate_left::<S, 32>(v2);
        self.0 = [v0, v1, v2, v3];
    }

    #[inline(always)]
    fn absorb(&mut self, word: u64x8<S>) {
        self.0[3] ^= word;
        self.round();
        self.round();
        self.0[0] ^= word;
    }
}

#[inline(always)]
fn rotate_left<S: Simd, const BITS: u32>(word: u64x8<S>) -> u64x8<S> {
    (word << BITS) | (word >> (64 - BITS))
}

/// As many hashes as there are lanes, by the widest registers that the processor has.
#[inline(always)]
fn hash_lanes<S: Simd>(simd: S, key: [u64; 2], ids: &[Hash32; LANES]) -> [u64; LANES] {
    let mut columns = [[0; LANES]; 4];
    for (lane, id) in ids.iter().enumerate() {
        for (column, word) in columns.iter_mut().zip(words(id)) {
            column[lane] = word;
        }
    }
    let mut state = Lanes(start(key).map(|word| u64x8::splat(simd, word)));
    for column in columns {
        state.absorb(u64x8::from_slice(simd, &column));
    }
    state.absorb(u64x8::splat(simd, LENGTH));
    state.0[2] ^= u64x8::splat(simd, 0xff);
    for _ in 0..4 {
        state.round();
    }
    let [v0, v1, v2, v3] = state.0;
    let mut hashes = [0; LANES];
    (v0 ^ v1 ^ v2 ^ v3).store_slice(&mut hashes);
    hashes
}

#[inline(always)]
fn hash_groups<S: Simd>(
    simd: S,
    key: [u64; 2],
    ids: &[[Hash32; LANES]],
    hashes: &mut [[u64; LANES]],
) {
    for (ids, hashes) in ids.iter().zip(hashes) {
        *hashes = hash_lanes(simd, key, ids);
    }
}

/// Hashes many ids with what this processor can do.
#[derive(Clone, Copy, Debug)]
pub(super) struct ManyHashes(Level);

impl ManyHashes {
    /// Asks the processor what it can do.
    pub(super) fn new() -> Self {
        Self(Level::new())
    }

    /// The hash of each id, into as many places of `hashes`.
    pub(super) fn hash_all(self, key: [u64; 2], ids: &[Hash32], hashes: &mut [u64]) {
        let (id_groups, id_rest) = ids.as_chunks::<LANES>();
        let (whole, rest) = hashes.split_at_mut((id_groups.len() * LANES).min(hashes.len()));
        let (hash_groups_out, _) = whole.as_chunks_mut::<LANES>();
        dispatch!(self.0, simd => hash_groups(simd, key, id_groups, hash_groups_out));
        for (id, place) in id_rest.iter().zip(rest) {
            *place = hash(key, id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use siphasher::sip::SipHasher24;

    proptest! {
        #[test]
        fn agrees_with_the_library(
            key: [u64; 2],
            ids in prop::collection::vec(any::<Hash32>(), 0..36),
            spare in 0usize..3,
        ) {
            let library = SipHasher24::new_with_keys(key[0], key[1]);
            let mut hashes = vec![0; ids.len() + spare];
            ManyHashes::new().hash_all(key, &ids, &mut hashes);
            for (id, all) in ids.iter().zip(hashes) {
                prop_assert_eq!(hash(key, id), library.hash(id));
                prop_assert_eq!(all, library.hash(id));
            }
        }
    }
}
