//! Runs, laps, and the fold that turns the hashes of a lap into the hash of a node.
//!
//! A run is a sequence of neighbouring nodes that needs only a direction, a start and a count:
//!
//! - FLAT: along one level, to the right;
//! - UP: to the right and climbing, each node the largest that begins where the one before ended;
//! - DOWN: to the left and climbing, each node the largest that ends where the one before began.
//!
//! The start is the deepest node: the leftmost of a FLAT or UP run, the rightmost of a DOWN run. Nodes
//! and hashes are listed from left to right in all three. A lap is a list of runs whose nodes, together,
//! cover a node exactly: from their hashes that node's hash follows.
//!
//! What this is not: bytes ([`crate::wire`] has those), and it keeps no hash (`partial` does).

use arrayvec::ArrayVec;
use thiserror::Error;

use super::Hash;
use super::geometry::{Geometry, MAX_DEPTH, Node};
use super::hash::pair;

/// The most runs of a canonical lap: DOWN, FLAT, UP.
pub const MAX_LAP_RUNS: usize = 3;

/// Which way a run travels from its start; the values are those of the wire's two bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Direction {
    /// Along one level, to the right.
    Flat = 0,
    /// To the left, climbing; read from left to right it descends.
    Down = 1,
    /// To the right, climbing.
    Up = 2,
}

impl Direction {
    /// The direction that the two bits stand for; `None` for 3, which is no direction, and above.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Flat),
            1 => Some(Self::Down),
            2 => Some(Self::Up),
            _ => None,
        }
    }

    /// The wire's two bits.
    pub const fn bits(self) -> u8 {
        self as u8
    }
}

/// A run as someone states it: it need not exist in any tree. [`Run::nodes`] is where it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    /// Which way it travels.
    pub direction: Direction,
    /// The level of the deepest node.
    pub level: u8,
    /// The index of the deepest node: the leftmost of a FLAT or UP run, the rightmost of a DOWN run.
    pub start: u32,
    /// The number of nodes.
    pub count: u32,
}

impl Run {
    /// A run of `count` nodes from `start`.
    pub const fn new(direction: Direction, start: Node, count: u32) -> Self {
        Self {
            direction,
            level: start.level(),
            start: start.index(),
            count,
        }
    }

    /// The nodes from left to right; `None` if the run is empty or not all of it exists in the tree.
    /// Takes at most [`MAX_DEPTH`] steps, whatever `count` says.
    pub fn nodes(&self, geometry: &Geometry) -> Option<RunNodes> {
        let start = geometry.node(self.level, self.start)?;
        if self.count == 0 || self.count > geometry.longest_run(self.direction, start) {
            return None;
        }
        // After the start, a climbing run has one node for each bit of the start's index that is clear
        // (UP) or set (DOWN), from the lowest on.
        let bits = match self.direction {
            Direction::Flat => 0,
            Direction::Down => lowest_set(self.start, self.count - 1),
            Direction::Up => lowest_set(!self.start, self.count - 1),
        };
        Some(RunNodes {
            geometry: *geometry,
            run: *self,
            next: 0,
            bits,
        })
    }
}

/// The lowest `count` set bits of `value`.
const fn lowest_set(mut value: u32, count: u32) -> u32 {
    let mut rest = value;
    let mut left = count;
    while left > 0 {
        rest &= rest.wrapping_sub(1);
        left -= 1;
    }
    value &= !rest;
    value
}

/// The nodes of a run that exists, from left to right.
#[derive(Clone, Debug)]
pub struct RunNodes {
    geometry: Geometry,
    run: Run,
    /// How many nodes were given out.
    next: u32,
    /// The bits of the start's index whose node was not given out yet (climbing runs).
    bits: u32,
}

impl RunNodes {
    /// The node beside the path of the start, at the height of `bit`.
    fn beside(&self, bit: u32) -> Option<Node> {
        let sibling = (self.run.start >> bit) ^ 1;
        self.geometry.node(self.run.level - bit as u8, sibling)
    }
}

impl Iterator for RunNodes {
    type Item = Node;

    fn next(&mut self) -> Option<Node> {
        if self.next == self.run.count {
            return None;
        }
        let step = self.next;
        self.next += 1;
        let start = self.geometry.node(self.run.level, self.run.start);
        match self.run.direction {
            Direction::Flat => self.geometry.node(self.run.level, self.run.start + step),
            Direction::Up if step == 0 => start,
            Direction::Up => {
                let bit = self.bits.trailing_zeros();
                self.bits &= self.bits - 1;
                self.beside(bit)
            }
            Direction::Down if self.bits == 0 => start,
            Direction::Down => {
                let bit = self.bits.ilog2();
                self.bits &= !(1 << bit);
                self.beside(bit)
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.run.count - self.next) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for RunNodes {}

/// Runs that cover one node, `ancestor`, exactly: as someone states them, not checked.
///
/// [`Geometry::lap`] makes the canonical ones. What a peer sends is to be put to
/// [`Lap::is_canonical`] first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lap {
    /// Level and index of the node that the runs cover.
    pub ancestor: (u8, u32),
    /// The runs, from left to right.
    pub runs: ArrayVec<Run, MAX_LAP_RUNS>,
}

impl Lap {
    /// A lap around `ancestor` that has no runs yet.
    pub fn new(ancestor: Node) -> Self {
        Self {
            ancestor: (ancestor.level(), ancestor.index()),
            runs: ArrayVec::new(),
        }
    }

    /// A lap around the root that is one run.
    pub fn of_root(run: Run) -> Self {
        let mut runs = ArrayVec::new();
        runs.push(run);
        Self {
            ancestor: (0, 0),
            runs,
        }
    }

    /// The FLAT run, the payload of a canonical lap.
    pub fn flat(&self) -> Option<Run> {
        let mut flat = self.runs.iter().filter(|r| r.direction == Direction::Flat);
        flat.next().copied()
    }

    /// The nodes of all runs, from left to right as the runs are listed; `None` if a run does not exist
    /// in the tree. Whether they cover the ancestor is for [`Lap::is_canonical`] or [`fold`] to say.
    pub fn nodes(&self, geometry: &Geometry) -> Option<impl Iterator<Item = Node> + Clone + use<>> {
        let mut parts: ArrayVec<RunNodes, MAX_LAP_RUNS> = ArrayVec::new();
        for run in &self.runs {
            parts.push(run.nodes(geometry)?);
        }
        Some(parts.into_iter().flatten())
    }

    /// Whether this is the one encoding of its proof: exactly what [`Geometry::lap`] makes for its FLAT
    /// run, or, having none, the whole [`Geometry::branch_of_first`] or [`Geometry::count_proof`]
    /// around the root. A canonical lap covers its ancestor.
    pub fn is_canonical(&self, geometry: &Geometry) -> bool {
        let Some(flat) = self.flat() else {
            let whole = [geometry.branch_of_first(), geometry.count_proof()];
            return self.ancestor == (0, 0)
                && matches!(self.runs.as_slice(), [run] if whole.contains(run));
        };
        let Some(end) = flat.start.checked_add(flat.count) else {
            return false;
        };
        let (level, index) = self.ancestor;
        let built = geometry
            .node(level, index)
            .and_then(|ancestor| geometry.lap(ancestor, flat.level, flat.start..end));
        built.as_ref() == Some(self)
    }

    /// The number of nodes, as the runs state it.
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.count)).sum()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why nodes and their hashes do not make the hash of an ancestor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FoldError {
    /// The next node does not begin where the one before ended.
    #[error("a node begins elsewhere than at leaf {expected}")]
    Gap {
        /// The leaf at which it had to begin.
        expected: u32,
    },
    /// A node does not exist in the tree, or does not lie under the ancestor.
    #[error("node {}/{} is outside", .0.level(), .0.index())]
    Outside(Node),
    /// Two real siblings, the children of this node, are equal (CVE-2012-2459).
    #[error("the children of node {}/{} are equal", .0.level(), .0.index())]
    EqualSiblings(Node),
    /// The nodes ended before the ancestor was covered.
    #[error("nothing from leaf {expected} on")]
    Short {
        /// The first leaf that was not covered.
        expected: u32,
    },
    /// There are more nodes than hashes or more hashes than nodes.
    #[error("as many hashes as nodes are needed")]
    Unpaired,
}

/// The hash of `ancestor`, from nodes that cover it exactly, given from left to right with their hashes.
///
/// # Errors
///
/// A [`FoldError`] unless each node lies under `ancestor`, each begins where the one before ended, all of
/// `ancestor` is covered, and no two real siblings are equal. It stops at the first error, so it takes at
/// most as many items as `ancestor` has leaves, and one.
pub fn fold(
    geometry: &Geometry,
    ancestor: Node,
    items: impl Iterator<Item = (Node, Hash)>,
) -> Result<Hash, FoldError> {
    fold_each(geometry, ancestor, items, |_, _| {})
}

/// As [`fold`], and shows each node with its hash, given or computed, children before their parent,
/// `ancestor` last.
pub(super) fn fold_each(
    geometry: &Geometry,
    ancestor: Node,
    items: impl Iterator<Item = (Node, Hash)>,
    mut each: impl FnMut(Node, &Hash),
) -> Result<Hash, FoldError> {
    // Left siblings that wait for the right one: at most one a level.
    let mut waiting: ArrayVec<(Node, Hash), { MAX_DEPTH as usize + 1 }> = ArrayVec::new();
    let covered = geometry.leaves(ancestor);
    let mut expected = covered.start;
    let mut result = None;
    for (mut node, mut hash) in items {
        if !geometry.is_under(node, ancestor) {
            return Err(FoldError::Outside(node));
        }
        let leaves = geometry.leaves(node);
        if result.is_some() || leaves.start != expected {
            return Err(FoldError::Gap { expected });
        }
        expected = leaves.end;
        each(node, &hash);
        while node != ancestor {
            let parent = geometry
                .parent(node)
                .expect("a node strictly below another has a parent");
            if node.is_right() {
                let (_, left) = waiting
                    .pop()
                    .expect("what begins at a right child was preceded by its left sibling");
                if left == hash {
                    return Err(FoldError::EqualSiblings(parent));
                }
                hash = pair(&left, &hash);
            } else if geometry.sibling(node).is_none() {
                hash = pair(&hash, &hash);
            } else {
                waiting.push((node, hash));
                break;
            }
            node = parent;
            each(node, &hash);
        }
        if node == ancestor {
            result = Some(hash);
        }
    }
    result.ok_or(FoldError::Short { expected })
}
