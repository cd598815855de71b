//! Merkle branches: of a transaction in its block, and of a header among all headers up to a checkpoint.
//!
//! Both are Bitcoin's tree, in which an odd last node is paired with itself. A branch is the list of the nodes beside the path
//! from a leaf to the root, the lowest first (Electrum protocol, `blockchain.transaction.get_merkle` and
//! `cp_height` of `blockchain.block.header`).

use crate::merkle::{Hash, hash};

/// A branch and the root to which it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The nodes beside the path, the lowest first.
    pub nodes: Vec<Hash>,
    /// The root of the tree.
    pub root: Hash,
}

/// The branch of the leaf at `position`; `None` if there are not so many leaves.
pub fn branch(leaves: Vec<Hash>, position: usize) -> Option<Branch> {
    if position >= leaves.len() {
        return None;
    }
    let mut nodes = Vec::new();
    let root = climb(leaves, position, &mut nodes);
    Some(Branch { nodes, root })
}

/// Folds a row to one node, and notes what is beside the path of `position`.
fn climb(mut row: Vec<Hash>, mut position: usize, nodes: &mut Vec<Hash>) -> Hash {
    let mut above = Vec::with_capacity(row.len().div_ceil(2));
    while row.len() > 1 {
        let beside = row.get(position ^ 1).or(row.last());
        nodes.extend(beside.copied());
        position /= 2;
        hash::row_up(&row, &mut above);
        std::mem::swap(&mut row, &mut above);
    }
    row.first().copied().unwrap_or_default()
}

/// Headers under one node that is kept: 256 of them are hashed in a tenth of a millisecond, and the nodes kept for a million
/// headers are 250 kB.
const GROUP: usize = 1 << GROUP_LEVEL;

/// The level of the nodes that are kept.
const GROUP_LEVEL: usize = 8;

/// The tree over all headers of the chain, of which only the nodes over whole groups of 256 are kept. A branch needs the
/// hashes of the header's group besides, and of the group in which the checkpoint lies.
#[derive(Clone, Debug, Default)]
pub struct HeaderTree {
    /// Level 8 and all above it; of each level the nodes that have all their leaves.
    levels: Vec<Vec<Hash>>,
}

/// Hashes of headers are lacking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lacking;

impl HeaderTree {
    /// Headers under the nodes that are kept: a multiple of 256.
    pub fn len(&self) -> usize {
        self.levels.first().map_or(0, Vec::len) * GROUP
    }

    /// Whether no group is whole yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds the next 256 block hashes.
    pub fn push(&mut self, group: &[Hash; GROUP]) {
        let mut node = climb(group.to_vec(), 0, &mut Vec::new());
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let row = &mut self.levels[level];
            row.push(node);
            let [.., left, right] = row.as_slice() else {
                return;
            };
            if row.len() % 2 == 1 {
                return;
            }
            node = hash::pair(left, right);
        }
    }

    /// Keeps only the nodes over the first `headers` headers: those above them were of a branch that has lost.
    pub fn truncate(&mut self, headers: usize) {
        for (level, row) in self.levels.iter_mut().enumerate() {
            row.truncate(headers >> (GROUP_LEVEL + level));
        }
    }

    /// The branch of the header at `height` in the tree over the headers 0 to `checkpoint`. `hashes_of` gives the block
    /// hashes of a range of heights, of at most 256.
    ///
    /// # Errors
    /// When `height` is above the checkpoint, or hashes, or the nodes over a whole group before the checkpoint's, are not there.
    pub fn branch<E: From<Lacking>>(
        &self,
        height: usize,
        checkpoint: usize,
        mut hashes_of: impl FnMut(std::ops::Range<usize>) -> Result<Vec<Hash>, E>,
    ) -> Result<Branch, E> {
        if height > checkpoint {
            return Err(Lacking.into());
        }
        let count = checkpoint + 1;
        let mut leaves = |group: usize| {
            let range = group * GROUP..((group + 1) * GROUP).min(count);
            let expected = range.len();
            let hashes = hashes_of(range)?;
            match hashes.len() == expected {
                true => Ok(hashes),
                false => Err(E::from(Lacking)),
            }
        };
        if count <= GROUP {
            return branch(leaves(0)?, height).ok_or(Lacking.into());
        }
        let mut nodes = Vec::new();
        let own = height / GROUP;
        fold_group(leaves(own)?, height % GROUP, &mut nodes);
        // The last node of each level, unless it has all its leaves and is kept.
        let mut last = match count.is_multiple_of(GROUP) {
            true => None,
            false => Some(fold_group(leaves(count / GROUP)?, 0, &mut Vec::new())),
        };
        let mut position = own;
        let mut whole = count / GROUP;
        for row in self
            .levels
            .iter()
            .map(Vec::as_slice)
            .chain(std::iter::repeat(&[][..]))
        {
            let width = whole + usize::from(last.is_some());
            if width == 1 {
                let root = last.or(row.first().copied()).ok_or(Lacking)?;
                return Ok(Branch { nodes, root });
            }
            let at = |index: usize| match index < whole {
                true => row.get(index).copied().ok_or(Lacking),
                false => last.ok_or(Lacking),
            };
            nodes.push(at((position ^ 1).min(width - 1))?);
            last = match (whole % 2 == 1, last) {
                (true, Some(right)) => Some(hash::pair(&at(whole - 1)?, &right)),
                (true, None) => {
                    let alone = at(whole - 1)?;
                    Some(hash::pair(&alone, &alone))
                }
                (false, Some(alone)) => Some(hash::pair(&alone, &alone)),
                (false, None) => None,
            };
            whole /= 2;
            position /= 2;
        }
        Err(Lacking.into())
    }
}

/// Folds the leaves of a group, all or those before the checkpoint, to the node of level 8: a tree with further groups
/// pairs an odd node with itself up to there, even if it is alone.
fn fold_group(leaves: Vec<Hash>, position: usize, nodes: &mut Vec<Hash>) -> Hash {
    let before = nodes.len();
    let mut node = climb(leaves, position, nodes);
    while nodes.len() - before < GROUP_LEVEL {
        nodes.push(node);
        node = hash::pair(&node, &node);
    }
    node
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leaf(index: usize) -> Hash {
        hash::sha256d(&(index as u64).to_le_bytes())
    }

    /// What a client does with a branch.
    fn climbs_to(mut node: Hash, mut position: usize, branch: &Branch) -> bool {
        for beside in &branch.nodes {
            node = match position % 2 {
                0 => hash::pair(&node, beside),
                _ => hash::pair(beside, &node),
            };
            position /= 2;
        }
        position == 0 && node == branch.root
    }

    #[test]
    fn every_leaf_of_every_small_tree_leads_to_the_root() {
        for count in 1..70 {
            let leaves: Vec<Hash> = (0..count).map(leaf).collect();
            let root = hash::root(&leaves).hash;
            for (position, leaf) in leaves.iter().enumerate() {
                let branch = branch(leaves.clone(), position).unwrap();
                assert_eq!(branch.root, root);
                assert!(climbs_to(*leaf, position, &branch));
            }
            assert_eq!(branch(leaves, count), None);
        }
    }

    /// A tree over so many headers, and one of the same length after it had grown and lost its top.
    fn trees(count: usize, more: usize) -> [HeaderTree; 2] {
        let group = |number: usize| std::array::from_fn(|index| leaf(number * GROUP + index));
        let mut tree = HeaderTree::default();
        (0..count / GROUP).for_each(|number| tree.push(&group(number)));
        let mut shrunk = tree.clone();
        for number in 0..more {
            shrunk.push(&[[number as u8; 32]; GROUP]);
        }
        shrunk.truncate(count);
        [tree, shrunk]
    }

    fn checked(tree: &HeaderTree, height: usize, checkpoint: usize) -> Branch {
        let hashes = |range: std::ops::Range<usize>| {
            assert!(range.len() <= GROUP);
            Ok::<_, Lacking>(range.map(leaf).collect())
        };
        tree.branch(height, checkpoint, hashes).unwrap()
    }

    proptest! {
        #[test]
        fn headers_lead_to_the_root_of_the_checkpoint(
            count in 1..9_000usize,
            more in 0..9usize,
            below in any::<prop::sample::Index>(),
            height in any::<prop::sample::Index>(),
        ) {
            let checkpoint = below.index(count);
            let height = height.index(checkpoint + 1);
            let leaves: Vec<Hash> = (0..=checkpoint).map(leaf).collect();
            let expected = branch(leaves, height).unwrap();
            for tree in trees(count, more) {
                prop_assert_eq!(&checked(&tree, height, checkpoint), &expected);
            }
        }
    }

    #[test]
    fn the_edges_of_groups() {
        let [tree, _] = trees(5 * GROUP + 3, 0);
        for checkpoint in [
            0, 1, 254, 255, 256, 257, 511, 512, 767, 768, 1_023, 1_024, 1_279, 1_280,
        ] {
            let leaves: Vec<Hash> = (0..=checkpoint).map(leaf).collect();
            for height in [0, 1, 255, 256, 511, 512, 1_023, 1_024, 1_280] {
                if height <= checkpoint {
                    let expected = branch(leaves.clone(), height).unwrap();
                    assert_eq!(
                        checked(&tree, height, checkpoint),
                        expected,
                        "{height} {checkpoint}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_not_there_is_said() {
        let [tree, _] = trees(512, 0);
        let none = |_| Ok::<_, Lacking>(Vec::new());
        assert_eq!(tree.branch(0, 100, none), Err(Lacking));
        let all = |range: std::ops::Range<usize>| Ok(range.map(leaf).collect());
        assert_eq!(tree.branch(5, 4, all), Err(Lacking));
        // The nodes over the third group are not kept, and it is neither the header's nor the last.
        assert_eq!(tree.branch(0, 1_000, all), Err(Lacking));
    }
}
