//! The shape of Bitcoin's merkle tree: a pure function of the number of leaves.
//!
//! Levels count from the root (level 0) to the leaves (level [`Geometry::depth`]). Level `l` holds
//! `ceil(count / 2^(depth - l))` nodes, which is what halving and rounding up, level by level, gives.
//! Where a level above the leaves came from an odd number of nodes, Bitcoin hashes the last node with
//! itself. That right copy is a *phantom*: it is no node here, has no index, and is never sent.
//!
//! ```text
//! 11 leaves:  0                      o                     width  1
//!             1            o                   o                  2
//!             2       o         o         o                       3
//!             3     o   o     o   o     o   o                     6
//!             4    o o o o   o o o o   o o o                     11
//! ```
//!
//! What this is not: it knows no hashes.

use std::ops::Range;

use super::run::{Direction, Lap, Run};

/// The most leaves that a tree may have, 2^24.
///
/// Beyond any block that Bitcoin's limits allow (16,666 transactions), for the format has to hold far
/// larger trees; small enough that an index fits `u32` with room for the arithmetic done on it, and
/// that a path of 24 hashes (768 bytes) fits one datagram.
pub const MAX_LEAVES: u32 = 1 << 24;

/// The depth of the largest tree, which follows from [`MAX_LEAVES`].
pub const MAX_DEPTH: u8 = 24;

const _: () = assert!(MAX_LEAVES == 1 << MAX_DEPTH);

/// A node of a tree: a level, counted from the root, and an index in that level, counted from the left.
///
/// Only a [`Geometry`] makes one, so a node exists in the tree that made it. A node handed to another
/// geometry does no harm there: the answer is `None`, `false` or an empty range.
///
/// The order is by level, then by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    level: u8,
    index: u32,
}

impl Node {
    /// The distance from the root, 0 to [`MAX_DEPTH`].
    pub const fn level(self) -> u8 {
        self.level
    }

    /// The place within the level, counted from the left.
    pub const fn index(self) -> u32 {
        self.index
    }

    /// Whether this is the right one of two children.
    pub const fn is_right(self) -> bool {
        self.index & 1 == 1
    }
}

/// The shape of a tree with a given count of leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    count: u32,
    depth: u8,
}

impl Geometry {
    /// The shape of a tree of `count` leaves; `None` unless `1 <= count <= MAX_LEAVES`.
    pub const fn new(count: u32) -> Option<Self> {
        if count == 0 || count > MAX_LEAVES {
            return None;
        }
        let depth = (u32::BITS - (count - 1).leading_zeros()) as u8;
        Some(Self { count, depth })
    }

    /// The number of leaves.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The level of the leaves: the number of bits of `count - 1`. Zero for a tree of one leaf, whose
    /// root is that leaf.
    pub const fn depth(&self) -> u8 {
        self.depth
    }

    /// The number of nodes at `level`, phantoms left out; 0 for a level below the leaves.
    pub const fn width(&self, level: u8) -> u32 {
        if level > self.depth {
            return 0;
        }
        // At most 2^24 + 2^24 - 1: no overflow.
        (self.count + (1 << (self.depth - level)) - 1) >> (self.depth - level)
    }

    /// The node at `level` and `index`, if there is one.
    pub const fn node(&self, level: u8, index: u32) -> Option<Node> {
        if index < self.width(level) {
            Some(Node { level, index })
        } else {
            None
        }
    }

    /// The `index`-th leaf, if there is one.
    pub const fn leaf(&self, index: u32) -> Option<Node> {
        self.node(self.depth, index)
    }

    /// The root.
    pub const fn root(&self) -> Node {
        Node { level: 0, index: 0 }
    }

    /// Whether `node` exists in this tree.
    pub const fn contains(&self, node: Node) -> bool {
        node.index < self.width(node.level)
    }

    /// The leaves that `node` covers; empty if it does not exist here.
    pub const fn leaves(&self, node: Node) -> Range<u32> {
        self.descendants(node, self.depth)
    }

    /// The indices of the nodes of `level` that `node` covers; empty if it does not exist here or if
    /// `level` lies above it.
    pub const fn descendants(&self, node: Node, level: u8) -> Range<u32> {
        if !self.contains(node) || level < node.level || level > self.depth {
            return 0..0;
        }
        let height = level - node.level;
        let start = node.index << height;
        let end = (node.index + 1) << height;
        let width = self.width(level);
        start..if end < width { end } else { width }
    }

    /// The node above; `None` for the root.
    pub const fn parent(&self, node: Node) -> Option<Node> {
        if node.level == 0 || !self.contains(node) {
            return None;
        }
        Some(Node {
            level: node.level - 1,
            index: node.index >> 1,
        })
    }

    /// The left child and, unless it would be a phantom, the right one; `None` for a leaf.
    pub const fn children(&self, node: Node) -> Option<(Node, Option<Node>)> {
        if node.level >= self.depth || !self.contains(node) {
            return None;
        }
        let left = Node {
            level: node.level + 1,
            index: node.index << 1,
        };
        Some((left, self.node(left.level, left.index + 1)))
    }

    /// The other child of the same parent; `None` for the root and for a last node whose right sibling
    /// would be a phantom.
    pub const fn sibling(&self, node: Node) -> Option<Node> {
        if node.level == 0 || !self.contains(node) {
            return None;
        }
        self.node(node.level, node.index ^ 1)
    }

    /// The ancestor of `node` at `level`, the node itself if that is its level; `None` if `level` lies
    /// below it.
    pub const fn ancestor(&self, node: Node, level: u8) -> Option<Node> {
        if level > node.level || !self.contains(node) {
            return None;
        }
        Some(Node {
            level,
            index: node.index >> (node.level - level),
        })
    }

    /// Whether `ancestor` is `node` or lies on its path to the root.
    pub const fn is_under(&self, node: Node, ancestor: Node) -> bool {
        self.contains(node)
            && ancestor.level <= node.level
            && node.index >> (node.level - ancestor.level) == ancestor.index
    }

    /// The next node of an UP run, travelling right and climbing: the right child of the most recent
    /// common ancestor of `node` and its right neighbour in the tree as it would be without an edge.
    /// It is the largest node whose first leaf follows the last leaf of `node`. `None` at the last leaf.
    pub const fn next_up(&self, node: Node) -> Option<Node> {
        let rise = node.index.trailing_ones() as u8;
        if rise >= node.level {
            return None;
        }
        self.node(node.level - rise, (node.index + 1) >> rise)
    }

    /// The next node of a DOWN run, travelling left and climbing: the left child of the most recent
    /// common ancestor of `node` and its left neighbour. It is the largest node whose last leaf precedes
    /// the first leaf of `node`. `None` at leaf 0.
    pub const fn next_down(&self, node: Node) -> Option<Node> {
        if node.index == 0 || !self.contains(node) {
            return None;
        }
        let rise = node.index.trailing_zeros() as u8;
        Some(Node {
            level: node.level - rise,
            index: (node.index >> rise) - 1,
        })
    }

    /// The next node of a FLAT run: the right neighbour at the same level, if there is one.
    pub const fn next_flat(&self, node: Node) -> Option<Node> {
        self.node(node.level, node.index + 1)
    }

    /// How many nodes the longest run in `direction` from `node` has, `node` included; 0 if it does not
    /// exist here.
    ///
    /// FLAT runs end at the right edge of their level, UP runs at the last leaf, DOWN runs at leaf 0.
    pub const fn longest_run(&self, direction: Direction, node: Node) -> u32 {
        if !self.contains(node) {
            return 0;
        }
        match direction {
            Direction::Flat => self.width(node.level) - node.index,
            Direction::Down => 1 + node.index.count_ones(),
            Direction::Up => self.longest_up(node),
        }
    }

    /// One, and one for each left child on the path of `node` that has a right sibling.
    const fn longest_up(&self, node: Node) -> u32 {
        let mut count = 1;
        let mut rise = 0;
        while rise < node.level {
            let index = node.index >> rise;
            if index & 1 == 0 && index + 1 < self.width(node.level - rise) {
                count += 1;
            }
            rise += 1;
        }
        count
    }

    /// The canonical proof of the nodes `range` of `level` around `ancestor`: at most three runs, DOWN,
    /// FLAT, UP. The FLAT run is the payload; the others are the fewest hashes that lead from it to
    /// `ancestor`.
    ///
    /// `None` if `range` is empty or not all of it lies under `ancestor`.
    pub fn lap(&self, ancestor: Node, level: u8, range: Range<u32>) -> Option<Lap> {
        let under = self.descendants(ancestor, level);
        if range.is_empty() || range.start < under.start || range.end > under.end {
            return None;
        }
        let mut lap = Lap::new(ancestor);
        let first = self.node(level, range.start)?;
        let last = self.node(level, range.end - 1)?;
        if let Some(start) = self.next_down(first).filter(|n| self.inside(*n, ancestor)) {
            let count = self.count_inside(start, ancestor, Self::next_down);
            lap.runs.push(Run::new(Direction::Down, start, count));
        }
        let payload = Run::new(Direction::Flat, first, range.end - range.start);
        lap.runs.push(payload);
        if let Some(start) = self.next_up(last).filter(|n| self.inside(*n, ancestor)) {
            let count = self.count_inside(start, ancestor, Self::next_up);
            lap.runs.push(Run::new(Direction::Up, start, count));
        }
        Some(lap)
    }

    /// Whether `node` lies strictly below `ancestor`.
    const fn inside(&self, node: Node, ancestor: Node) -> bool {
        node.level > ancestor.level && self.is_under(node, ancestor)
    }

    /// How many nodes from `start` on, in travelling order, lie strictly below `ancestor`.
    fn count_inside(
        &self,
        start: Node,
        ancestor: Node,
        next: fn(&Self, Node) -> Option<Node>,
    ) -> u32 {
        let run = std::iter::successors(Some(start), |node| next(self, *node));
        // At most 1 + depth.
        run.take_while(|node| self.inside(*node, ancestor)).count() as u32
    }

    /// The proof of the count: the whole DOWN run from the last leaf, a root lap by itself.
    ///
    /// It proves the count only to someone who knows the depth by other means (a preimage of a leaf)
    /// and who refuses real siblings that are equal; with either left out, false counts pass.
    pub const fn count_proof(&self) -> Run {
        let last = Node {
            level: self.depth,
            index: self.count - 1,
        };
        Run::new(
            Direction::Down,
            last,
            self.longest_run(Direction::Down, last),
        )
    }

    /// The merkle branch of leaf 0, the leaf included: the whole UP run from it, a root lap by itself.
    pub const fn branch_of_first(&self) -> Run {
        let first = Node {
            level: self.depth,
            index: 0,
        };
        Run::new(Direction::Up, first, self.longest_run(Direction::Up, first))
    }
}
