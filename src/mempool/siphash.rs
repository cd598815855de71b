//! SipHash-2-4 of exactly 32 bytes.
//!
//! Our own because a pass over a whole pool is nothing but this: the number of rounds is fixed, nothing is
//! buffered, and two hashes run side by side. The library `siphasher` is the oracle of its tests.

use super::Hash32;

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

/// The five words that are absorbed: the last one holds the length, modulo 256, in its highest byte.
#[inline(always)]
fn message(id: &Hash32) -> [u64; 5] {
    let [a, b, c, d] = words(id);
    [a, b, c, d, 32 << 56]
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

/// Two hashes at once: each waits for its own last step most of the time, so the processor does both in little
/// more time than one.
#[inline(always)]
fn hash_two(key: [u64; 2], first: &Hash32, second: &Hash32) -> [u64; 2] {
    let (mut v, mut w) = (start(key), start(key));
    for (a, b) in message(first).into_iter().zip(message(second)) {
        v[3] ^= a;
        w[3] ^= b;
        round(&mut v);
        round(&mut w);
        round(&mut v);
        round(&mut w);
        v[0] ^= a;
        w[0] ^= b;
    }
    v[2] ^= 0xff;
    w[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut v);
        round(&mut w);
    }
    [end(v), end(w)]
}

/// The hash of each id, into as many places of `hashes`.
pub(super) fn hash_all(key: [u64; 2], ids: &[Hash32], hashes: &mut [u64]) {
    let (id_pairs, id_rest) = ids.as_chunks::<2>();
    let (hash_pairs, _) = hashes.as_chunks_mut::<2>();
    for ([first, second], hashes) in id_pairs.iter().zip(hash_pairs) {
        *hashes = hash_two(key, first, second);
    }
    // An odd one at the end may stand in the first half of a pair of places.
    let place = hashes.get_mut(ids.len().saturating_sub(1));
    if let (Some(id), Some(place)) = (id_rest.first(), place) {
        *place = hash(key, id);
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
            ids in prop::collection::vec(any::<Hash32>(), 0..9),
            spare in 0usize..3,
        ) {
            let library = SipHasher24::new_with_keys(key[0], key[1]);
            let mut hashes = vec![0; ids.len() + spare];
            hash_all(key, &ids, &mut hashes);
            for (id, all) in ids.iter().zip(hashes) {
                prop_assert_eq!(hash(key, id), library.hash(id));
                prop_assert_eq!(all, library.hash(id));
            }
        }
    }
}
