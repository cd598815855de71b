//! The tree by brute force: slow and simple definitions, for tests and fuzzing only.
//!
//! It shares nothing with the fast code: places are plain pairs of level and index, widths come from
//! halving level by level, spans from the leaves up, neighbours from a search over all nodes, hashes from
//! `bitcoin::hashes`. Everything may panic where a place does not exist.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bitcoin::hashes::{Hash as _, sha256d};

use super::{Direction, Hash};

/// Level, counted from the root, and index in it.
pub type Place = (u8, u32);

/// SHA-256 of SHA-256 of the concatenation of two hashes.
pub fn pair(left: &Hash, right: &Hash) -> Hash {
    sha256d::Hash::hash(&[*left, *right].concat()).to_byte_array()
}

/// All nodes of a tree and what they cover.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The number of nodes of each level, the root's first.
    pub widths: Vec<u32>,
    /// The leaves under each node.
    pub spans: BTreeMap<Place, Range<u32>>,
}

impl Shape {
    /// The shape of a tree of `count` leaves, at least one.
    pub fn new(count: u32) -> Self {
        let mut widths = vec![count];
        while widths[0] > 1 {
            widths.insert(0, widths[0] / 2 + widths[0] % 2);
        }
        let mut shape = Self {
            widths,
            spans: BTreeMap::new(),
        };
        for level in (0..=shape.depth()).rev() {
            for index in 0..shape.widths[usize::from(level)] {
                let span = match shape.children((level, index)).as_slice() {
                    [] => index..index + 1,
                    [first, .., last] => shape.spans[first].start..shape.spans[last].end,
                    [only] => shape.spans[only].clone(),
                };
                shape.spans.insert((level, index), span);
            }
        }
        shape
    }

    /// The level of the leaves.
    pub fn depth(&self) -> u8 {
        (self.widths.len() - 1) as u8
    }

    /// Whether there is such a node.
    pub fn exists(&self, (level, index): Place) -> bool {
        let width = self.widths.get(usize::from(level));
        width.is_some_and(|width| index < *width)
    }

    /// The children that exist: none, one or two.
    pub fn children(&self, (level, index): Place) -> Vec<Place> {
        let both = [(level + 1, 2 * index), (level + 1, 2 * index + 1)];
        both.into_iter()
            .filter(|place| self.exists(*place))
            .collect()
    }

    /// The largest node that begins where `place` ends: of those, the one nearest to the root.
    pub fn next_up(&self, place: Place) -> Option<Place> {
        let end = self.spans[&place].end;
        let found = self.spans.iter().find(|(_, span)| span.start == end);
        found.map(|(place, _)| *place)
    }

    /// The largest node that ends where `place` begins.
    pub fn next_down(&self, place: Place) -> Option<Place> {
        let start = self.spans[&place].start;
        let found = self.spans.iter().find(|(_, span)| span.end == start);
        found.map(|(place, _)| *place)
    }

    /// The draft's rule, literally: the right child of the most recent common ancestor of a node and its
    /// right neighbour, if there is such a node.
    pub fn next_up_by_ancestor(&self, (level, index): Place) -> Option<Place> {
        let (mut left, mut right, mut level) = (index, index + 1, level);
        while left != right {
            (left, right) = (left / 2, right / 2);
            level = level.checked_sub(1)?;
        }
        Some((level + 1, 2 * left + 1)).filter(|place| self.exists(*place))
    }

    /// The same to the left: the left child of the most recent common ancestor.
    pub fn next_down_by_ancestor(&self, (level, index): Place) -> Option<Place> {
        let (mut left, mut right, mut level) = (index.checked_sub(1)?, index, level);
        while left != right {
            (left, right) = (left / 2, right / 2);
            level -= 1;
        }
        Some((level + 1, 2 * left))
    }

    /// The longest run from `start`, in the order of travel.
    pub fn travel(&self, direction: Direction, start: Place) -> Vec<Place> {
        let mut places = vec![start];
        while let Some(place) = places.last().and_then(|place| match direction {
            Direction::Flat => Some((place.0, place.1 + 1)).filter(|next| self.exists(*next)),
            Direction::Up => self.next_up(*place),
            Direction::Down => self.next_down(*place),
        }) {
            places.push(place);
        }
        places
    }

    /// The fewest nodes that cover `ancestor` and hold each of `range` of `level`, from left to right.
    pub fn cover(&self, ancestor: Place, level: u8, range: &Range<u32>) -> Vec<Place> {
        let wanted =
            self.spans[&(level, range.start)].start..self.spans[&(level, range.end - 1)].end;
        let span = &self.spans[&ancestor];
        if ancestor.0 == level || span.end <= wanted.start || wanted.end <= span.start {
            return vec![ancestor];
        }
        let children = self.children(ancestor).into_iter();
        children
            .flat_map(|child| self.cover(child, level, range))
            .collect()
    }

    /// The fewest runs, of any direction, that list `places` from left to right.
    pub fn fewest_runs(&self, places: &[Place]) -> usize {
        let mut best = vec![usize::MAX; places.len() + 1];
        best[0] = 0;
        for from in 0..places.len() {
            for direction in [Direction::Flat, Direction::Up, Direction::Down] {
                for to in from + 1..=places.len() {
                    if !self.is_run(direction, &places[from..to]) {
                        break;
                    }
                    best[to] = best[to].min(best[from] + 1);
                }
            }
        }
        best[places.len()]
    }

    fn is_run(&self, direction: Direction, places: &[Place]) -> bool {
        // The start of what was a run with one place fewer is known to be fine: look at the last step.
        let [.., left, right] = places else {
            return true;
        };
        match direction {
            Direction::Flat => *right == (left.0, left.1 + 1),
            Direction::Up => self.next_up_by_ancestor(*left) == Some(*right),
            Direction::Down => self.next_down_by_ancestor(*right) == Some(*left),
        }
    }

    /// The hash of `place` from those in `known`, by recursion; `None` if one is missing, or, if
    /// `refuse_equal`, where real siblings are equal.
    pub fn evaluate(
        &self,
        place: Place,
        known: &BTreeMap<Place, Hash>,
        refuse_equal: bool,
    ) -> Option<Hash> {
        if let Some(hash) = known.get(&place) {
            return Some(*hash);
        }
        match self.children(place).as_slice() {
            [] => None,
            [only] => {
                let hash = self.evaluate(*only, known, refuse_equal)?;
                Some(pair(&hash, &hash))
            }
            [left, right, ..] => {
                let left = self.evaluate(*left, known, refuse_equal)?;
                let right = self.evaluate(*right, known, refuse_equal)?;
                (!refuse_equal || left != right).then(|| pair(&left, &right))
            }
        }
    }

    /// What true hashes prove when the root is trusted: the root, and the children of what is proven
    /// whenever the values of all of them follow from `known`.
    pub fn proven(&self, known: &BTreeMap<Place, Hash>) -> BTreeSet<Place> {
        let mut proven = BTreeSet::from([(0, 0)]);
        // Parents come before their children in this order.
        for place in self.spans.keys() {
            let children = self.children(*place);
            let follow = |child: &Place| self.evaluate(*child, known, true).is_some();
            if proven.contains(place) && children.iter().all(follow) {
                proven.extend(children);
            }
        }
        proven
    }
}

/// A whole tree with its hashes.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Its shape.
    pub shape: Shape,
    /// The hash of each node.
    pub hashes: BTreeMap<Place, Hash>,
}

impl Tree {
    /// The tree above `leaves`, at least one.
    pub fn new(leaves: &[Hash]) -> Self {
        let shape = Shape::new(leaves.len() as u32);
        let depth = shape.depth();
        let at = |(index, hash): (usize, &Hash)| ((depth, index as u32), *hash);
        let mut hashes: BTreeMap<Place, Hash> = leaves.iter().enumerate().map(at).collect();
        for place in shape.spans.keys().rev() {
            if let Some(hash) = shape.evaluate(*place, &hashes, false) {
                hashes.insert(*place, hash);
            }
        }
        Self { shape, hashes }
    }

    /// A tree of `count` leaves that differ, made from `seed`.
    pub fn of_count(count: u32, seed: u8) -> Self {
        let leaf = |index: u32| {
            let mut bytes = [seed; 32];
            bytes[..4].copy_from_slice(&index.to_le_bytes());
            pair(&bytes, &[0; 32])
        };
        Self::new(&(0..count).map(leaf).collect::<Vec<_>>())
    }

    /// The root's hash.
    pub fn root(&self) -> Hash {
        self.hashes[&(0, 0)]
    }

    /// The hash at a place of the tree as hashing sees it, phantoms and what is under them included:
    /// at most the depth's level.
    pub fn padded(&self, (level, index): Place) -> Hash {
        let mut place = (0, 0);
        for bit in (0..level).rev() {
            let left = (place.0 + 1, 2 * place.1);
            let right = (left.0, left.1 + 1);
            let goes_right = (index >> bit) & 1 == 1;
            place = if goes_right && self.shape.exists(right) {
                right
            } else {
                left
            };
        }
        self.hashes[&place]
    }
}
