//! Hashes that someone offered and that nothing proves yet, and those that follow from them.

use std::collections::BTreeMap;

use crate::merkle::{Geometry, Hash, Node};

/// What is held, unproven, for one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate<S> {
    pub(super) hash: Hash,
    /// Who offered it; `None` if it only follows from the candidates below.
    pub(super) offered: Option<S>,
    /// Who answers for it: who offered it, or the one source of everything that it follows from.
    pub(super) answers: Option<S>,
}

/// Candidates by node, and how many of them were offered.
///
/// A node whose children all have candidates has the candidate that follows from them, unless it is
/// verified; and a candidate never contradicts those below it.
#[derive(Clone, Debug)]
pub(super) struct Candidates<S> {
    held: BTreeMap<Node, Candidate<S>>,
    offered: u32,
    /// How many of them each source offered; a source without any has no place here.
    by_source: Vec<(S, u32)>,
}

impl<S: Copy + Eq> Candidates<S> {
    pub(super) fn new() -> Self {
        Self {
            held: BTreeMap::new(),
            offered: 0,
            by_source: Vec::new(),
        }
    }

    pub(super) fn find(&self, node: Node) -> Option<&Candidate<S>> {
        self.held.get(&node)
    }

    /// How many were offered; as many again may follow from them.
    pub(super) fn offered(&self) -> u32 {
        self.offered
    }

    pub(super) fn offered_by(&self, source: S) -> u32 {
        let entry = self.by_source.iter().find(|(s, _)| *s == source);
        entry.map_or(0, |(_, count)| *count)
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (Node, &Candidate<S>)> {
        self.held.iter().map(|(node, held)| (*node, held))
    }

    /// Holds an offered hash. What is held for the node already must be equal and not offered.
    pub(super) fn offer(&mut self, node: Node, hash: Hash, source: S) {
        let candidate = Candidate {
            hash,
            offered: Some(source),
            answers: Some(source),
        };
        if self
            .held
            .insert(node, candidate)
            .is_none_or(|old| old.offered.is_none())
        {
            self.offered += 1;
            match self.by_source.iter_mut().find(|(s, _)| *s == source) {
                Some((_, count)) => *count += 1,
                None => self.by_source.push((source, 1)),
            }
        }
    }

    /// Holds a hash that follows from the candidates of the children, unless one was offered.
    pub(super) fn derive(&mut self, geometry: &Geometry, node: Node, hash: Hash) {
        let answers = self.answers_below(geometry, node);
        let entry = self.held.entry(node).or_insert(Candidate {
            hash,
            offered: None,
            answers,
        });
        if entry.offered.is_none() {
            entry.answers = answers;
        }
    }

    /// Removes what is held for a node and gives it out; what followed from it stays.
    pub(super) fn take(&mut self, node: Node) -> Option<Candidate<S>> {
        let candidate = self.held.remove(&node)?;
        if let Some(source) = candidate.offered {
            self.discount(source);
        }
        Some(candidate)
    }

    /// Drops what was offered under `under`, itself included, by those that `keep` refuses, and all that
    /// followed from it.
    pub(super) fn retain(
        &mut self,
        geometry: &Geometry,
        under: Node,
        mut keep: impl FnMut(Node, S) -> bool,
    ) {
        for level in (under.level()..=geometry.depth()).rev() {
            let range = geometry.descendants(under, level);
            let (Some(first), Some(last)) = (
                geometry.node(level, range.start),
                range
                    .end
                    .checked_sub(1)
                    .and_then(|i| geometry.node(level, i)),
            ) else {
                continue;
            };
            let nodes: Vec<Node> = self.held.range(first..=last).map(|(n, _)| *n).collect();
            for node in nodes {
                self.review(geometry, node, &mut keep);
            }
        }
        let mut above = geometry.parent(under);
        while let Some(node) = above.filter(|node| self.held.contains_key(node)) {
            self.review(geometry, node, &mut |_, _| true);
            above = geometry.parent(node);
        }
    }

    /// Looks anew at one candidate after those below it: was it offered by someone to keep, does it still
    /// follow from its children, and who answers for it.
    fn review(&mut self, geometry: &Geometry, node: Node, keep: &mut impl FnMut(Node, S) -> bool) {
        let Some(candidate) = self.held.get_mut(&node) else {
            return;
        };
        if let Some(source) = candidate.offered {
            if keep(node, source) {
                return;
            }
            candidate.offered = None;
            self.discount(source);
        }
        if self.follows(geometry, node) {
            let answers = self.answers_below(geometry, node);
            if let Some(candidate) = self.held.get_mut(&node) {
                candidate.answers = answers;
            }
        } else {
            self.held.remove(&node);
        }
    }

    /// Whether every child of `node` has a candidate.
    pub(super) fn follows(&self, geometry: &Geometry, node: Node) -> bool {
        geometry.children(node).is_some_and(|(left, right)| {
            self.held.contains_key(&left) && right.is_none_or(|r| self.held.contains_key(&r))
        })
    }

    /// The one source that answers for all children of `node`.
    pub(super) fn answers_below(&self, geometry: &Geometry, node: Node) -> Option<S> {
        let (left, right) = geometry.children(node)?;
        let answers = self.find(left)?.answers?;
        match right {
            Some(right) if self.find(right)?.answers? != answers => None,
            _ => Some(answers),
        }
    }

    fn discount(&mut self, source: S) {
        self.offered -= 1;
        let place = self.by_source.iter().position(|(s, _)| *s == source);
        let place = place.expect("a source of what is held is counted");
        self.by_source[place].1 -= 1;
        if self.by_source[place].1 == 0 {
            self.by_source.swap_remove(place);
        }
    }
}
