//! SipHash-2-4 of exactly 32 bytes.

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

/// SipHash-2-4 of 32 bytes under the key of two little-endian words.
#[inline(always)]
pub(super) fn hash([k0, k1]: [u64; 2], id: &Hash32) -> u64 {
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    // The last word holds the length, modulo 256, in its highest byte.
    let [a, b, c, d] = words(id);
    for word in [a, b, c, d, 32 << 56] {
        v[3] ^= word;
        round(&mut v);
        round(&mut v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}
