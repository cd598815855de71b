//! A tree of which only parts are known: it takes hashes in any order, from sources that are not
//! trusted, and says which of them are proven.
//!
//! Each node is in exactly one state:
//!
//! - *verified*: its hash, with others, leads to the trusted root. It never changes again. What is verified
//!   is closed: with a node, its ancestors and their siblings are.
//! - *candidate*: a hash that someone offered or that follows from candidates below it. Candidates never
//!   contradict each other along a path: what would do so is refused as [`Offer::Conflict`], unless it
//!   proves itself on the spot. Their number is bounded.
//! - unknown.
//!
//! A hash proves itself in two ways. Climbing from it, with the candidates beside its path, one reaches a
//! verified node and finds that node's hash. Or it is part of a lap around a verified node, offered as a
//! whole by one source ([`Partial::offer_lap`]); no candidate can stand in the way of that one, and
//! whoever is refused or finds liars around should ask for it.
//!
//! What this is not: it neither decides whom to believe nor scores anybody. It says where what is held
//! contradicts what is verified, and who offered what was refuted.

mod candidates;
#[cfg(test)]
mod tests;
mod verified;

use std::ops::Range;

use arrayvec::ArrayVec;

use self::candidates::Candidates;
use self::verified::Verified;
use super::hash::pair;
use super::run::fold_each;
use super::{FoldError, Geometry, Hash, MAX_DEPTH, Node};

/// Bytes that a [`Partial`] takes at most for each leaf of a tree that is verified as a whole: two
/// nodes a leaf, each with its hash, a bit, and its share of a page's pointer.
pub const MEMORY_PER_LEAF: usize = 65;

/// Bytes that a [`Partial`] takes at most for each candidate of its bound, for sources of 8 bytes: two
/// entries, the offered and one that follows from it, in map nodes that are half full.
pub const MEMORY_PER_CANDIDATE: usize = 320;

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Offer<S> {
    /// All of it was verified before.
    Known,
    /// It is verified now, with every candidate that it connects to `top`, which was verified before.
    Verified {
        /// The verified node to which the offer led.
        top: Node,
    },
    /// It was kept as a candidate, or is one already.
    Unconnected,
    /// Folding it, with what is held, contradicts a verified node.
    ///
    /// It was not kept if it contradicts by itself: if its own node is verified, if nothing that others
    /// offered was needed, or if there was no room. Otherwise all candidates below `at`, this one
    /// included, stay until they are forgotten or something verified overrules them.
    Mismatch {
        /// The verified node that is contradicted.
        at: Node,
    },
    /// It contradicts candidates and could not prove itself against them; it was not kept.
    Conflict {
        /// The node for which another hash is held.
        at: Node,
        /// Who answers for that hash, and then either that source lied or the one that offered this.
        /// `None` if more sources are involved, in the hash that is held or in what was held beside the
        /// path to `at`.
        held_by: Option<S>,
    },
    /// With it, two real siblings would be equal (CVE-2012-2459); it was not kept.
    ///
    /// If both are of one lap, that lap is false, or the whole block is of no use. If one of them was
    /// held before, anybody may have copied a hash that is true beside it.
    EqualSiblings {
        /// The parent of the equal siblings.
        at: Node,
    },
    /// Nothing contradicts it, but no room is left for candidates; it was not kept.
    Full,
    /// The node does not exist in this tree, or the nodes are no lap around the ancestor.
    NotALap(FoldError),
}

/// A merkle tree of known shape, of which parts are known. `S` says who offered something.
///
/// Memory: [`MEMORY_PER_LEAF`] for each leaf that is verified (in pages, made when something in them is
/// verified, which costs a liar a preimage), and [`MEMORY_PER_CANDIDATE`] for each candidate held.
#[derive(Clone, Debug)]
pub struct Partial<S> {
    geometry: Geometry,
    max_unconnected: u32,
    verified: Verified,
    candidates: Candidates<S>,
    refuted: Vec<(Node, S)>,
    contradicted: Vec<Node>,
    /// Nodes of the lap that is being looked at; kept for its memory.
    lap: Vec<(Node, Hash)>,
}

/// Where a climb towards the root ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Summit {
    /// At a verified node, whose hash it found.
    Proven(Node),
    /// At a verified node, whose hash it missed.
    Mismatch(Node),
    /// Below this parent, whose children would be equal.
    Equal(Node),
    /// Where nothing is known beside the path, or at a root that is not trusted yet.
    Open,
}

/// The way from a hash towards the root.
struct Climb<S> {
    /// The unverified nodes passed, the first included, with the hashes that follow.
    path: ArrayVec<(Node, Hash), { MAX_DEPTH as usize + 1 }>,
    /// Who answers for the candidates that were needed beside the path.
    beside: ArrayVec<Option<S>, { MAX_DEPTH as usize + 1 }>,
    summit: Summit,
    /// The first node of the path for which another hash is held, and who is the other party.
    conflict: Option<(Node, Option<S>)>,
}

impl<S: Copy + Eq> Partial<S> {
    /// A tree of which nothing is known, that keeps at most `max_unconnected` offered candidates.
    pub fn new(geometry: Geometry, max_unconnected: u32) -> Self {
        Self {
            geometry,
            max_unconnected,
            verified: Verified::new(&geometry),
            candidates: Candidates::new(),
            refuted: Vec::new(),
            contradicted: Vec::new(),
            lap: Vec::new(),
        }
    }

    /// The shape of the tree.
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Takes `root` for the true root, as something outside of this tree proves. Candidates that lead to
    /// it are verified at once. A root other than the one trusted before discards everything.
    pub fn trust_root(&mut self, root: Hash) {
        let node = self.geometry.root();
        match self.verified.find(node) {
            Some(trusted) if *trusted == root => return,
            Some(_) => *self = Self::new(self.geometry, self.max_unconnected),
            None => {}
        }
        self.confirm(node, root);
    }

    /// Takes one hash from one source, with at most one hash computed for each level.
    pub fn offer(&mut self, node: Node, hash: Hash, source: S) -> Offer<S> {
        if !self.geometry.contains(node) {
            return Offer::NotALap(FoldError::Outside(node));
        }
        if let Some(verified) = self.verified.find(node) {
            return if *verified == hash {
                Offer::Known
            } else {
                Offer::Mismatch { at: node }
            };
        }
        if let Some(held) = self.candidates.find(node).filter(|held| held.hash == hash) {
            if held.offered.is_none() {
                if !self.has_room(1) {
                    return Offer::Full;
                }
                self.candidates.offer(node, hash, source);
            }
            return Offer::Unconnected;
        }
        let climb = self.climb(node, hash, source);
        if let Some(refused) = self.conclude(&climb, 1) {
            return refused;
        }
        self.candidates.offer(node, hash, source);
        self.derive_path(&climb);
        kept(climb.summit)
    }

    /// Takes hashes that cover `ancestor` exactly, given from left to right, from one source: all of
    /// them or none.
    ///
    /// If `ancestor` is verified their fold decides, whatever candidates say. If it is not, their fold is
    /// offered for it, and unless that proves them they are kept as candidates.
    pub fn offer_lap(
        &mut self,
        ancestor: Node,
        nodes: &[Node],
        hashes: &[Hash],
        source: S,
    ) -> Offer<S> {
        let mut lap = std::mem::take(&mut self.lap);
        lap.clear();
        let offer = self.offer_lap_in(&mut lap, ancestor, nodes, hashes, source);
        self.lap = lap;
        offer
    }

    fn offer_lap_in(
        &mut self,
        lap: &mut Vec<(Node, Hash)>,
        ancestor: Node,
        nodes: &[Node],
        hashes: &[Hash],
        source: S,
    ) -> Offer<S> {
        if nodes.len() != hashes.len() {
            return Offer::NotALap(FoldError::Unpaired);
        }
        let items = nodes.iter().copied().zip(hashes.iter().copied());
        let folded = fold_each(&self.geometry, ancestor, items, |node, hash| {
            lap.push((node, *hash));
        });
        let folded = match folded {
            Ok(hash) => hash,
            Err(FoldError::EqualSiblings(at)) => return Offer::EqualSiblings { at },
            Err(error) => return Offer::NotALap(error),
        };
        if let Some(verified) = self.verified.find(ancestor) {
            if *verified != folded {
                return Offer::Mismatch { at: ancestor };
            }
            return if self.confirm_all(lap) {
                Offer::Verified { top: ancestor }
            } else {
                Offer::Known
            };
        }
        let mut climb = self.climb(ancestor, folded, source);
        if let Summit::Proven(_) = climb.summit {
            self.confirm_all(lap);
        }
        climb.conflict = self.first_conflict(lap).or(climb.conflict);
        let new = nodes.iter().filter(|node| !self.is_offered(**node)).count();
        if let Some(refused) = self.conclude(&climb, new) {
            return refused;
        }
        let mut given = nodes.iter().copied().peekable();
        for (node, hash) in lap.iter().copied() {
            if given.next_if_eq(&node).is_none() {
                self.candidates.derive(&self.geometry, node, hash);
            } else if !self.is_offered(node) {
                self.candidates.offer(node, hash, source);
            }
        }
        self.derive_path(&climb);
        kept(climb.summit)
    }

    /// The hash of a node, if it is verified: if it leads to the trusted root.
    pub fn verified(&self, node: Node) -> Option<&Hash> {
        self.verified.find(node)
    }

    /// The hash that was offered for a node that is not verified, and by whom.
    pub fn candidate(&self, node: Node) -> Option<(&Hash, S)> {
        let held = self.candidates.find(node)?;
        Some((&held.hash, held.offered?))
    }

    /// The hash that is held for a node that is not verified, whether it was offered or follows from others.
    pub fn held_hash(&self, node: Node) -> Option<&Hash> {
        self.candidates.find(node).map(|held| &held.hash)
    }

    /// The one source of everything that is held, unverified, for `node` or for its children, if one
    /// source answers for it all: who lied, when a [`Offer::Mismatch`] is at `node`.
    pub fn sole_source(&self, node: Node) -> Option<S> {
        match self.candidates.find(node) {
            Some(held) => held.answers,
            None => self.candidates.answers_below(&self.geometry, node),
        }
    }

    /// Whether something unverified is held for each child of `node`.
    pub fn holds_below(&self, node: Node) -> bool {
        self.candidates.follows(&self.geometry, node)
    }

    /// The deepest verified node that covers `leaf`; `None` if there is no such leaf or no trusted root.
    pub fn deepest_verified_above(&self, leaf: u32) -> Option<Node> {
        let leaf = self.geometry.leaf(leaf)?;
        (0..=leaf.level())
            .map_while(|level| {
                let node = self.geometry.ancestor(leaf, level)?;
                self.verified.find(node).map(|_| node)
            })
            .last()
    }

    /// Whether each node of `indices` of `level` exists and is verified.
    pub fn all_verified(&self, level: u8, indices: Range<u32>) -> bool {
        indices.end <= self.geometry.width(level) && self.verified.all(level, indices)
    }

    /// Drops the candidates under `under`, itself included, that came from those that `keep` refuses,
    /// and what followed from them.
    pub fn forget(&mut self, under: Node, mut keep: impl FnMut(S) -> bool) {
        self.candidates
            .retain(&self.geometry, under, |_, source| keep(source));
    }

    /// The number of candidates that were offered and are held.
    pub fn unconnected(&self) -> u32 {
        self.candidates.offered()
    }

    /// The number of candidates that `source` offered and that are held: for a caller that bounds each.
    pub fn unconnected_from(&self, source: S) -> u32 {
        self.candidates.offered_by(source)
    }

    /// The candidates that something verified proved wrong, since the last call, with those who offered
    /// them. Where only several hashes together were wrong and all came from one source, the node
    /// is the one that they contradict. At most as many are remembered as candidates may be held.
    pub fn drain_refuted(&mut self) -> impl Iterator<Item = (Node, S)> {
        self.refuted.drain(..)
    }

    /// The nodes that were verified, since the last call, above candidates from several sources that
    /// contradict them: as after [`Offer::Mismatch`], those candidates stay. Some may have been
    /// dealt with since.
    pub fn drain_contradicted(&mut self) -> impl Iterator<Item = Node> {
        self.contradicted.drain(..)
    }

    /// Follows `hash` from an unverified node towards the root, as far as siblings are held.
    fn climb(&self, node: Node, hash: Hash, source: S) -> Climb<S> {
        let mut climb = Climb {
            path: ArrayVec::new(),
            beside: ArrayVec::new(),
            summit: Summit::Open,
            conflict: None,
        };
        let (mut node, mut hash) = (node, hash);
        loop {
            climb.path.push((node, hash));
            if climb.conflict.is_none()
                && let Some(held) = self.candidates.find(node)
                && held.hash != hash
            {
                let involved = |who: &Option<S>| *who == Some(source) || *who == held.answers;
                let held_by = held.answers.filter(|_| climb.beside.iter().all(involved));
                climb.conflict = Some((node, held_by));
            }
            let Some(parent) = self.geometry.parent(node) else {
                return climb;
            };
            hash = match self.geometry.sibling(node) {
                None => pair(&hash, &hash),
                Some(sibling) => {
                    let Some(beside) = self.candidates.find(sibling) else {
                        return climb;
                    };
                    climb.beside.push(beside.answers);
                    if beside.hash == hash {
                        climb.summit = Summit::Equal(parent);
                        return climb;
                    }
                    if node.is_right() {
                        pair(&beside.hash, &hash)
                    } else {
                        pair(&hash, &beside.hash)
                    }
                }
            };
            node = parent;
            if let Some(verified) = self.verified.find(node) {
                climb.summit = if *verified == hash {
                    Summit::Proven(node)
                } else {
                    Summit::Mismatch(node)
                };
                return climb;
            }
        }
    }

    /// What a climb decides about what it began with; `None` if that is to be kept as `new` candidates.
    fn conclude(&mut self, climb: &Climb<S>, new: usize) -> Option<Offer<S>> {
        match (climb.summit, climb.conflict) {
            (Summit::Proven(top), _) => {
                self.confirm_path(climb);
                Some(Offer::Verified { top })
            }
            (Summit::Equal(at), _) => Some(Offer::EqualSiblings { at }),
            (Summit::Mismatch(at), _) if climb.beside.is_empty() => Some(Offer::Mismatch { at }),
            (_, Some((at, held_by))) => Some(Offer::Conflict { at, held_by }),
            (Summit::Mismatch(at), None) if !self.has_room(new) => Some(Offer::Mismatch { at }),
            (Summit::Open, None) if !self.has_room(new) => Some(Offer::Full),
            _ => None,
        }
    }

    /// Verifies the nodes of a climb and the candidates beside it.
    fn confirm_path(&mut self, climb: &Climb<S>) {
        for (node, hash) in climb.path.iter().copied() {
            self.confirm(node, hash);
            let sibling = self.geometry.sibling(node);
            if let Some((sibling, held)) =
                sibling.and_then(|sibling| Some((sibling, self.candidates.find(sibling)?)))
            {
                self.confirm(sibling, held.hash);
            }
        }
    }

    /// Verifies nodes, children given before their parents; whether any of them is new.
    fn confirm_all(&mut self, nodes: &[(Node, Hash)]) -> bool {
        let mut new = false;
        for (node, hash) in nodes {
            new |= self.confirm(*node, *hash);
        }
        new
    }

    /// Verifies a node: whoever calls proves it. Candidates below that agree are verified with it,
    /// a candidate that disagrees is refuted. Whether it is new.
    fn confirm(&mut self, node: Node, hash: Hash) -> bool {
        if !self.verified.insert(&self.geometry, node, hash) {
            return false;
        }
        let Some(held) = self.candidates.take(node) else {
            return true;
        };
        if let Some(source) = held.offered.filter(|_| held.hash != hash) {
            self.refute(node, source);
        }
        if !self.candidates.follows(&self.geometry, node) {
            return true;
        }
        if held.hash != hash {
            self.contradict(node);
            return true;
        }
        let (left, right) = self
            .geometry
            .children(node)
            .expect("a node with candidates below has children");
        for child in [Some(left), right].into_iter().flatten() {
            if let Some(hash) = self.candidates.find(child).map(|held| held.hash) {
                self.confirm(child, hash);
            }
        }
        true
    }

    /// Deals with candidates that contradict the verified node above them: drops them as long as one
    /// source answers for them all.
    fn contradict(&mut self, node: Node) {
        while self.candidates.follows(&self.geometry, node) {
            let Some(liar) = self.candidates.answers_below(&self.geometry, node) else {
                if self.contradicted.len() <= self.max_unconnected as usize {
                    self.contradicted.push(node);
                }
                return;
            };
            self.refute(node, liar);
            self.candidates
                .retain(&self.geometry, node, |_, source| source != liar);
        }
    }

    fn refute(&mut self, node: Node, source: S) {
        if self.refuted.len() <= self.max_unconnected as usize {
            self.refuted.push((node, source));
        }
    }

    /// The first of `nodes` for which another hash is held, and who answers for that.
    fn first_conflict(&self, nodes: &[(Node, Hash)]) -> Option<(Node, Option<S>)> {
        nodes.iter().find_map(|(node, hash)| {
            let held = self.candidates.find(*node)?;
            (held.hash != *hash).then_some((*node, held.answers))
        })
    }

    /// Holds what follows from the first node of a climb, which is held already.
    fn derive_path(&mut self, climb: &Climb<S>) {
        for (node, hash) in climb.path.iter().skip(1) {
            self.candidates.derive(&self.geometry, *node, *hash);
        }
    }

    fn is_offered(&self, node: Node) -> bool {
        let held = self.candidates.find(node);
        held.is_some_and(|held| held.offered.is_some())
    }

    fn has_room(&self, new: usize) -> bool {
        let left = self.max_unconnected.saturating_sub(self.unconnected());
        new <= left as usize
    }
}

/// What to say of something that was kept.
const fn kept<S>(summit: Summit) -> Offer<S> {
    match summit {
        Summit::Mismatch(at) => Offer::Mismatch { at },
        _ => Offer::Unconnected,
    }
}
