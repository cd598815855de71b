//! Double SHA-256, of bytes, of pairs and of rows.
//!
//! `sha2` picks the processor's SHA instructions at run time. A pair of hashes is exactly one block, so
//! its double hash is three compressions, the second of a block that never changes: [`pair`] and the row
//! functions call the compression themselves and skip the buffering of the streaming interface, which
//! takes a quarter off a pair (0.50 against 0.69 µs side by side on a busy machine, `benches/merkle.rs`;
//! no difference for messages from 4 kB on).

use sha2::block_api::compress256;

use super::Hash;

/// SHA-256's initial state (FIPS 180-4, 5.3.3).
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// The bytes of a block of SHA-256.
const BLOCK: usize = 64;

/// The second block of every 64-byte message: the padding bit, zeros, and the length of 512 bits.
const PADDING_OF_PAIR: [u8; BLOCK] = {
    let mut block = [0; BLOCK];
    block[0] = 0x80;
    block[62] = 0x02;
    block
};

/// A block whose second half pads a message of 32 bytes: the length is 256 bits.
const PADDED_HASH: [u8; BLOCK] = {
    let mut block = [0; BLOCK];
    block[32] = 0x80;
    block[62] = 0x01;
    block
};

/// SHA-256 of SHA-256 of `bytes`.
pub fn sha256d(bytes: &[u8]) -> Hash {
    sha256d_parts(&[bytes])
}

/// SHA-256 of SHA-256 of the concatenation of `parts`, which is not built.
pub fn sha256d_parts(parts: &[&[u8]]) -> Hash {
    let mut state = INITIAL;
    let mut block = [0; BLOCK];
    let mut filled = 0;
    let mut length = 0_u64;
    for part in parts {
        length += part.len() as u64;
        let mut rest = *part;
        if filled > 0 {
            let taken = rest.len().min(BLOCK - filled);
            let (head, tail) = rest.split_at(taken);
            block[filled..filled + taken].copy_from_slice(head);
            filled += taken;
            rest = tail;
            if filled < BLOCK {
                continue;
            }
            compress256(&mut state, &[block]);
        }
        let (blocks, tail) = rest.as_chunks::<BLOCK>();
        compress256(&mut state, blocks);
        block[..tail.len()].copy_from_slice(tail);
        filled = tail.len();
    }
    finish(state, &mut block, filled, length)
}

/// Pads the `filled` bytes that are left of a message of `length` bytes, and hashes the hash.
fn finish(mut state: [u32; 8], block: &mut [u8; BLOCK], filled: usize, length: u64) -> Hash {
    block[filled..].fill(0);
    block[filled] = 0x80;
    if filled >= BLOCK - 8 {
        compress256(&mut state, &[*block]);
        block.fill(0);
    }
    block[BLOCK - 8..].copy_from_slice(&(length * 8).to_be_bytes());
    compress256(&mut state, &[*block]);
    hash_of_state(&state)
}

/// SHA-256 of the hash that `state` stands for.
fn hash_of_state(state: &[u32; 8]) -> Hash {
    let mut block = PADDED_HASH;
    write_state(state, &mut block);
    let mut second = INITIAL;
    compress256(&mut second, &[block]);
    let mut hash = [0; 32];
    write_state(&second, &mut hash);
    hash
}

fn write_state(state: &[u32; 8], bytes: &mut [u8]) {
    for (word, bytes) in state.iter().zip(bytes.chunks_exact_mut(4)) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
}

/// The hash of a node from those of its children, `left` for both if the right one is a phantom.
pub fn pair(left: &Hash, right: &Hash) -> Hash {
    let mut blocks = [[0; BLOCK], PADDING_OF_PAIR];
    pair_in(&mut blocks, left, right)
}

/// As [`pair`], in blocks of which the second is the padding already.
fn pair_in(blocks: &mut [[u8; BLOCK]; 2], left: &Hash, right: &Hash) -> Hash {
    blocks[0][..32].copy_from_slice(left);
    blocks[0][32..].copy_from_slice(right);
    let mut state = INITIAL;
    compress256(&mut state, blocks);
    hash_of_state(&state)
}

/// Hashes each of `items` into `hashes`, whose old content is dropped.
pub fn row_of<Item: AsRef<[u8]>>(items: &[Item], hashes: &mut Vec<Hash>) {
    hashes.clear();
    hashes.extend(items.iter().map(|item| sha256d(item.as_ref())));
}

/// Hashes a row of nodes into the row above it, whose old content is dropped. The last one of an odd
/// number is hashed with itself, except that a row of one is the root: what is above it is a row of one
/// for a chain of last nodes, so the caller decides where to stop.
///
/// Returns the index of the first parent whose children, both real, are equal.
pub fn row_up(row: &[Hash], above: &mut Vec<Hash>) -> Option<usize> {
    above.clear();
    above.reserve(row.len().div_ceil(2));
    let mut blocks = [[0; BLOCK], PADDING_OF_PAIR];
    let mut equal = None;
    let (pairs, odd) = row.as_chunks::<2>();
    for (index, [left, right]) in pairs.iter().enumerate() {
        if left == right && equal.is_none() {
            equal = Some(index);
        }
        above.push(pair_in(&mut blocks, left, right));
    }
    above.extend(odd.iter().map(|last| pair_in(&mut blocks, last, last)));
    equal
}

/// What [`root`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// The merkle root.
    pub hash: Hash,
    /// Whether two real siblings were equal somewhere (CVE-2012-2459): then other lists of leaves have
    /// the same root, so that nothing can be held against the block that has it.
    pub mutated: bool,
}

/// The merkle root of a list of leaves, in their order; zeros, as Bitcoin has it, for an empty list.
pub fn root(leaves: &[Hash]) -> Root {
    let mut mutated = false;
    let (mut row, mut above) = (Vec::new(), Vec::new());
    let mut current = leaves;
    while current.len() > 1 {
        mutated |= row_up(current, &mut above).is_some();
        std::mem::swap(&mut row, &mut above);
        current = &row;
    }
    Root {
        hash: current.first().copied().unwrap_or_default(),
        mutated,
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::{Hash as _, sha256d as independent};

    use super::*;

    /// Bytes that differ from place to place.
    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * 7 + i / 256) as u8).collect()
    }

    #[test]
    fn every_length_around_the_block_equals_another_implementation() {
        for length in (0..=260).chain([1_000, 4_095, 4_096, 100_001]) {
            let bytes = bytes(length);
            assert_eq!(
                sha256d(&bytes),
                independent::Hash::hash(&bytes).to_byte_array()
            );
        }
    }

    #[test]
    fn parts_are_hashed_as_their_concatenation() {
        let bytes = bytes(200);
        let whole = sha256d(&bytes);
        for first in 0..=bytes.len() {
            for second in (first..=bytes.len()).step_by(13) {
                let (head, tail) = bytes.split_at(second);
                let (head, middle) = head.split_at(first);
                assert_eq!(sha256d_parts(&[head, &[], middle, tail]), whole);
            }
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(sha256d_parts(&single), whole);
        assert_eq!(sha256d_parts(&[]), sha256d(&[]));
    }

    #[test]
    fn a_pair_is_the_hash_of_64_bytes() {
        let bytes = bytes(64);
        let (left, right) = bytes.split_at(32);
        let (left, right) = (left.try_into().expect("32"), right.try_into().expect("32"));
        assert_eq!(pair(left, right), sha256d(&bytes));
    }

    #[test]
    fn rows_and_roots_equal_the_reference_at_every_size() {
        let mut above = vec![[9; 32]; 3];
        for count in 1..=300_u32 {
            let tree = crate::merkle::reference::Tree::of_count(count, 8);
            let row = |level: u8| -> Vec<Hash> {
                let range = (level, 0)..(level + 1, 0);
                tree.hashes.range(range).map(|(_, hash)| *hash).collect()
            };
            for level in (1..=tree.shape.depth()).rev() {
                assert_eq!(row_up(&row(level), &mut above), None);
                assert_eq!(above, row(level - 1));
            }
            let found = root(&row(tree.shape.depth()));
            assert_eq!(
                found,
                Root {
                    hash: tree.root(),
                    mutated: false
                }
            );
        }
        assert_eq!(
            root(&[]),
            Root {
                hash: [0; 32],
                mutated: false
            }
        );
    }

    #[test]
    fn equal_pairs_are_found_where_they_are() {
        let mut row: Vec<Hash> = (0..9).map(|i| [i; 32]).collect();
        let mut above = Vec::new();
        assert_eq!(row_up(&row, &mut above), None);
        (row[5], row[7]) = (row[4], row[6]);
        assert_eq!(row_up(&row, &mut above), Some(2));
        // Neighbours that are no siblings may be equal.
        let row = [[1; 32], [2; 32], [2; 32], [3; 32]];
        assert!(!root(&row).mutated);
    }

    #[test]
    fn rows_of_bytes() {
        let items = [bytes(3), bytes(80), bytes(0)];
        let mut hashes = vec![[1; 32]];
        row_of(&items, &mut hashes);
        assert_eq!(hashes, items.each_ref().map(|item| sha256d(item)));
    }
}
