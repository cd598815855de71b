//! The partial tree: cases by hand, and sequences of honest and lying offers against the reference.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::*;
use crate::merkle::hash::root;
use crate::merkle::reference::{Place, Tree};

/// Who offers: from [`LIARS`] on they lie.
type Source = u8;

const LIARS: Source = 100;

/// A true tree and what is known of it.
struct World {
    tree: Tree,
    partial: Partial<Source>,
}

impl World {
    fn new(count: u32, max_unconnected: u32) -> Self {
        let geometry = Geometry::new(count).expect("a count in range");
        Self {
            tree: Tree::of_count(count, 21),
            partial: Partial::new(geometry, max_unconnected),
        }
    }

    fn trusted(count: u32, max_unconnected: u32) -> Self {
        let mut world = Self::new(count, max_unconnected);
        world.trust();
        world
    }

    fn trust(&mut self) {
        self.partial.trust_root(self.tree.root());
    }

    fn node(&self, level: u8, index: u32) -> Node {
        let node = self.partial.geometry().node(level, index);
        node.expect("the node exists")
    }

    fn leaf(&self, index: u32) -> Node {
        self.node(self.partial.geometry().depth(), index)
    }

    fn hash(&self, node: Node) -> Hash {
        self.tree.hashes[&(node.level(), node.index())]
    }

    fn offer(&mut self, node: Node, source: Source) -> Offer<Source> {
        let hash = self.hash(node);
        self.partial.offer(node, hash, source)
    }

    fn lie(&mut self, node: Node, lie: u8, source: Source) -> Offer<Source> {
        self.partial.offer(node, [lie; 32], source)
    }

    /// Offers all nodes of `level` under `ancestor` as one lap.
    fn lap(&mut self, ancestor: Node, level: u8, source: Source) -> Offer<Source> {
        let geometry = self.partial.geometry();
        let range = geometry.descendants(ancestor, level);
        let nodes: Vec<Node> = range.filter_map(|i| geometry.node(level, i)).collect();
        let hashes: Vec<Hash> = nodes.iter().map(|node| self.hash(*node)).collect();
        self.partial.offer_lap(ancestor, &nodes, &hashes, source)
    }

    fn refuted(&mut self) -> Vec<(Node, Source)> {
        self.partial.drain_refuted().collect()
    }

    fn all_verified(&self) -> bool {
        let geometry = self.partial.geometry();
        (0..=geometry.depth()).all(|l| self.partial.all_verified(l, 0..geometry.width(l)))
    }

    /// What has to hold after whatever was offered.
    fn check(&self) {
        let (geometry, partial) = (self.partial.geometry(), &self.partial);
        assert!(partial.unconnected() <= partial.max_unconnected);
        let held: BTreeMap<Node, _> = partial.candidates.iter().collect();
        let offered = held.values().filter(|held| held.offered.is_some()).count();
        assert_eq!(partial.unconnected() as usize, offered);
        assert!(held.len() <= 2 * offered + usize::from(geometry.depth()));
        for ((level, index), hash) in &self.tree.hashes {
            let node = self.node(*level, *index);
            let sibling = geometry.sibling(node);
            let parent = geometry.parent(node);
            if let Some(verified) = partial.verified(node) {
                assert_eq!(verified, hash, "something false is verified");
                assert!(!held.contains_key(&node));
                assert!(sibling.is_none_or(|s| partial.verified(s).is_some()));
                assert!(parent.is_none_or(|p| partial.verified(p).is_some()));
            }
            let Some((left, right)) = geometry.children(node) else {
                continue;
            };
            let (Some(left), Some(right)) = (held.get(&left), held.get(&right.unwrap_or(left)))
            else {
                continue;
            };
            let folded = pair(&left.hash, &right.hash);
            match (partial.verified(node), held.get(&node)) {
                (Some(verified), None) => assert_ne!(*verified, folded, "left unproven"),
                (None, Some(held)) => assert_eq!(held.hash, folded, "a path in conflict"),
                state => panic!("children are held under {state:?}"),
            }
        }
    }
}

#[test]
fn a_chunk_verifies_with_its_last_leaf_in_any_order() {
    let mut world = World::trusted(11, 100);
    for index in [10, 3, 0, 7, 5, 1, 8, 2, 9, 6] {
        assert_eq!(world.offer(world.leaf(index), 1), Offer::Unconnected);
        world.check();
    }
    assert_eq!(world.partial.unconnected(), 10);
    assert_eq!(world.partial.unconnected_from(1), 10);
    let top = world.node(0, 0);
    assert_eq!(world.offer(world.leaf(4), 2), Offer::Verified { top });
    assert!(world.all_verified());
    assert_eq!(world.partial.unconnected(), 0);
    assert_eq!(world.offer(world.leaf(4), 3), Offer::Known);
    world.check();
}

#[test]
fn chunks_verify_one_by_one_below_a_row() {
    let mut world = World::trusted(11, 100);
    let top = world.node(0, 0);
    assert_eq!(world.lap(top, 2, 1), Offer::Verified { top });
    assert_eq!(world.lap(top, 2, 2), Offer::Known);
    assert_eq!(
        world.partial.deepest_verified_above(6),
        Some(world.node(2, 1))
    );
    let top = world.node(2, 1);
    assert_eq!(world.lap(top, 4, 1), Offer::Verified { top });
    assert!(world.partial.all_verified(4, 4..8));
    assert!(!world.partial.all_verified(4, 3..8) && !world.partial.all_verified(4, 4..9));
    assert!(!world.partial.all_verified(4, 4..12) && !world.partial.all_verified(5, 0..1));
    assert_eq!(world.partial.deepest_verified_above(6), Some(world.leaf(6)));
    // The right edge: three leaves, of which the last has a phantom for a sibling.
    let top = world.node(2, 2);
    assert_eq!(world.offer(world.leaf(8), 1), Offer::Unconnected);
    assert_eq!(world.offer(world.leaf(9), 1), Offer::Unconnected);
    assert_eq!(world.offer(world.leaf(10), 2), Offer::Verified { top });
    assert_eq!(world.partial.deepest_verified_above(11), None);
    world.check();
}

#[test]
fn candidates_wait_for_the_root() {
    let mut world = World::new(6, 100);
    for index in 0..6 {
        assert_eq!(world.offer(world.leaf(index), 1), Offer::Unconnected);
        world.check();
    }
    assert_eq!(world.partial.deepest_verified_above(0), None);
    assert_eq!(world.partial.sole_source(world.node(0, 0)), Some(1));
    world.trust();
    assert!(world.all_verified());
    world.check();
}

#[test]
fn a_tree_of_one_leaf_is_its_root() {
    let mut world = World::new(1, 1);
    let leaf = world.leaf(0);
    assert_eq!(world.lie(leaf, 1, LIARS), Offer::Unconnected);
    world.trust();
    assert_eq!(world.refuted(), [(leaf, LIARS)]);
    assert_eq!(world.offer(leaf, 1), Offer::Known);
    assert_eq!(world.lie(leaf, 2, LIARS), Offer::Mismatch { at: leaf });
    assert_eq!(world.lap(leaf, 0, 1), Offer::Known);
    world.check();
}

#[test]
fn a_lie_that_contradicts_alone_is_not_kept() {
    let mut world = World::trusted(9, 100);
    let top = world.node(0, 0);
    // Nodes 8 of level 4 to 1 of level 1 are a chain of last nodes.
    assert_eq!(world.offer(world.node(1, 0), 1), Offer::Unconnected);
    assert_eq!(
        world.lie(world.leaf(8), 7, LIARS),
        Offer::Mismatch { at: top }
    );
    assert_eq!(
        world.partial.unconnected(),
        2,
        "that needed what another offered: kept"
    );
    world.partial.forget(top, |source| source < LIARS);
    assert_eq!(world.offer(world.leaf(8), 1), Offer::Verified { top });
    assert_eq!(
        world.lie(world.leaf(8), 7, LIARS),
        Offer::Mismatch { at: world.leaf(8) }
    );
    let mut world = World::trusted(9, 100);
    assert_eq!(world.lap(top, 1, 1), Offer::Verified { top });
    let at = world.node(1, 1);
    assert_eq!(world.lie(world.leaf(8), 7, LIARS), Offer::Mismatch { at });
    assert_eq!(world.partial.unconnected(), 0);
    world.check();
}

#[test]
fn a_mismatch_ends_with_the_truth_from_another_source() {
    let mut world = World::trusted(8, 100);
    let top = world.node(0, 0);
    let false_leaf = world.leaf(5);
    assert_eq!(world.lie(false_leaf, 9, LIARS), Offer::Unconnected);
    for index in [0, 1, 2, 3, 4, 6] {
        assert_eq!(world.offer(world.leaf(index), 1), Offer::Unconnected);
    }
    assert_eq!(world.offer(world.leaf(7), 1), Offer::Mismatch { at: top });
    world.check();
    assert_eq!(world.partial.sole_source(top), None);
    assert_eq!(world.partial.candidate(false_leaf), Some((&[9; 32], LIARS)));
    // A second liar does no better, an honest offer proves itself against the candidate.
    let conflict = Offer::Conflict {
        at: false_leaf,
        held_by: Some(LIARS),
    };
    assert_eq!(world.lie(false_leaf, 8, LIARS + 1), conflict);
    assert_eq!(world.offer(false_leaf, 2), Offer::Verified { top });
    assert_eq!(world.refuted(), [(false_leaf, LIARS)]);
    assert!(world.all_verified());
    world.check();
}

#[test]
fn the_sole_source_of_a_mismatch_is_known() {
    let mut world = World::trusted(8, 100);
    let top = world.node(0, 0);
    assert_eq!(world.lap(top, 1, 1), Offer::Verified { top });
    let at = world.node(1, 0);
    for index in 0..3 {
        assert_eq!(world.offer(world.leaf(index), LIARS), Offer::Unconnected);
    }
    assert_eq!(world.lie(world.leaf(3), 1, LIARS), Offer::Mismatch { at });
    assert_eq!(world.partial.sole_source(at), Some(LIARS));
    world.partial.forget(at, |source| source != LIARS);
    assert_eq!(world.partial.unconnected(), 0);
    world.check();
}

#[test]
fn two_lies_in_a_chunk_do_not_stop_a_lap() {
    let mut world = World::trusted(8, 100);
    let top = world.node(0, 0);
    for (index, liar) in [(1, LIARS), (6, LIARS + 1)] {
        assert_eq!(world.lie(world.leaf(index), 3, liar), Offer::Unconnected);
    }
    for index in [0, 2, 3, 4, 5, 7] {
        let _ = world.offer(world.leaf(index), 1);
    }
    let conflict = Offer::Conflict {
        at: world.leaf(1),
        held_by: Some(LIARS),
    };
    assert_eq!(world.offer(world.leaf(1), 1), conflict);
    assert_eq!(world.lap(top, 3, 1), Offer::Verified { top });
    assert_eq!(
        world.refuted(),
        [(world.leaf(1), LIARS), (world.leaf(6), LIARS + 1)]
    );
    assert!(world.all_verified());
    world.check();
}

#[test]
fn an_inner_lie_gives_way_to_leaves_that_prove_themselves() {
    let mut world = World::trusted(8, 100);
    let (top, inner) = (world.node(0, 0), world.node(1, 1));
    assert_eq!(world.lie(inner, 4, LIARS), Offer::Unconnected);
    for index in 4..7 {
        assert_eq!(world.offer(world.leaf(index), 1), Offer::Unconnected);
    }
    let conflict = Offer::Conflict {
        at: inner,
        held_by: Some(LIARS),
    };
    assert_eq!(world.offer(world.leaf(7), 1), conflict);
    assert_eq!(
        world.offer(world.node(1, 0), 1),
        Offer::Mismatch { at: top }
    );
    assert_eq!(world.offer(world.leaf(7), 1), Offer::Verified { top });
    assert_eq!(world.refuted(), [(inner, LIARS)]);
    assert!(world.partial.all_verified(3, 4..8));
    world.check();
}

#[test]
fn nobody_is_named_when_a_third_source_may_have_lied() {
    let mut world = World::trusted(8, 100);
    let parent = world.node(2, 0);
    assert_eq!(world.offer(parent, 1), Offer::Unconnected);
    assert_eq!(world.lie(world.leaf(0), 4, LIARS), Offer::Unconnected);
    let conflict = Offer::Conflict {
        at: parent,
        held_by: None,
    };
    assert_eq!(world.offer(world.leaf(1), 2), conflict);
    world.check();
}

#[test]
fn false_leaves_below_a_node_that_is_verified_are_refuted_if_one_source_answers() {
    let mut world = World::trusted(16, 100);
    let (top, inner) = (world.node(0, 0), world.node(2, 0));
    for index in 0..4 {
        let lie = 40 + index as u8;
        assert_eq!(world.lie(world.leaf(index), lie, LIARS), Offer::Unconnected);
        let _ = world.lie(world.leaf(4 + index), lie + 9, LIARS + (index as u8) % 2);
    }
    assert_eq!(world.lap(top, 2, 1), Offer::Verified { top });
    assert_eq!(world.refuted(), [(inner, LIARS)]);
    let contradicted: Vec<Node> = world.partial.drain_contradicted().collect();
    assert_eq!(contradicted, [world.node(2, 1)]);
    assert_eq!(world.partial.unconnected(), 4);
    world.check();
}

#[test]
fn equal_siblings_are_never_kept_or_verified() {
    let mut world = World::trusted(8, 100);
    let at = world.node(2, 1);
    assert_eq!(world.offer(world.leaf(2), 1), Offer::Unconnected);
    let hash = world.hash(world.leaf(2));
    let offer = world.partial.offer(world.leaf(3), hash, LIARS);
    assert_eq!(offer, Offer::EqualSiblings { at });
    assert_eq!(world.partial.unconnected(), 1);
    // The mutation of three leaves to four has their root, and is refused nevertheless.
    let leaves = [[1; 32], [2; 32], [3; 32], [3; 32]];
    let geometry = Geometry::new(4).expect("in range");
    let mut partial = Partial::new(geometry, 10);
    partial.trust_root(root(&leaves).hash);
    let nodes: Vec<Node> = (0..4).filter_map(|i| geometry.leaf(i)).collect();
    let at = geometry.node(1, 1).expect("it exists");
    let refused = partial.offer_lap(geometry.root(), &nodes, &leaves, 1);
    assert_eq!(refused, Offer::EqualSiblings { at });
    for (node, hash) in nodes.iter().zip(leaves).take(3) {
        assert_eq!(partial.offer(*node, hash, 1), Offer::Unconnected);
    }
    assert_eq!(
        partial.offer(nodes[3], leaves[3], 1),
        Offer::EqualSiblings { at }
    );
}

#[test]
fn the_bound_refuses_what_does_not_verify_and_nothing_else() {
    let mut world = World::trusted(8, 3);
    for (index, source) in [(0, 1), (1, 1), (4, 2)] {
        assert_eq!(world.offer(world.leaf(index), source), Offer::Unconnected);
    }
    assert_eq!(world.offer(world.leaf(2), 3), Offer::Full);
    assert_eq!(
        world.offer(world.node(2, 0), 3),
        Offer::Full,
        "it follows, but would be held"
    );
    assert_eq!(
        world.offer(world.leaf(0), 3),
        Offer::Unconnected,
        "a duplicate"
    );
    let inner = world.node(1, 0);
    assert_eq!(world.lap(inner, 3, 3), Offer::Full);
    assert_eq!(world.partial.unconnected(), 3);
    let top = world.node(0, 0);
    assert_eq!(world.lap(top, 2, 3), Offer::Verified { top });
    assert_eq!(
        world.partial.unconnected(),
        1,
        "two leaves were verified with their parent"
    );
    assert_eq!(world.partial.unconnected_from(1), 0);
    let top = world.node(2, 2);
    assert_eq!(world.offer(world.leaf(5), 4), Offer::Verified { top });
    world.check();
}

#[test]
fn laps_without_a_verified_ancestor_wait_as_a_whole() {
    let mut world = World::trusted(16, 100);
    let (top, left, right) = (world.node(0, 0), world.node(1, 0), world.node(1, 1));
    assert_eq!(world.lap(left, 3, 1), Offer::Unconnected);
    assert_eq!(world.partial.unconnected(), 4);
    world.check();
    let mut nodes: Vec<Node> = (4..8).map(|i| world.node(3, i)).collect();
    let mut hashes: Vec<Hash> = nodes.iter().map(|node| world.hash(*node)).collect();
    hashes[2] = [5; 32];
    let offer = world.partial.offer_lap(right, &nodes, &hashes, LIARS);
    assert_eq!(offer, Offer::Mismatch { at: top });
    let conflict = Offer::Conflict {
        at: nodes[2],
        held_by: Some(LIARS),
    };
    hashes[2] = [6; 32];
    assert_eq!(
        world.partial.offer_lap(right, &nodes, &hashes, LIARS),
        conflict
    );
    assert_eq!(world.lap(right, 3, 2), Offer::Verified { top });
    // What follows from a lie was held too, but nobody offered it.
    assert_eq!(world.refuted(), [(nodes[2], LIARS)]);
    assert!(world.partial.all_verified(3, 0..8));
    nodes.pop();
    let short = world.partial.offer_lap(right, &nodes, &hashes[..3], 1);
    assert_eq!(short, Offer::NotALap(FoldError::Short { expected: 14 }));
    let unpaired = world.partial.offer_lap(right, &nodes, &hashes, 1);
    assert_eq!(unpaired, Offer::NotALap(FoldError::Unpaired));
    world.check();
}

#[test]
fn forgetting_keeps_what_still_follows() {
    let mut world = World::new(16, 100);
    let inner = world.node(2, 1);
    assert_eq!(world.offer(inner, 1), Offer::Unconnected);
    for index in 4..8 {
        assert_eq!(world.offer(world.leaf(index), 2), Offer::Unconnected);
    }
    assert_eq!(world.offer(world.node(2, 0), 2), Offer::Unconnected);
    world.partial.forget(world.node(1, 0), |source| source != 1);
    assert_eq!(world.partial.candidate(inner), None, "nobody offers it now");
    assert_eq!(world.partial.sole_source(world.node(1, 0)), Some(2));
    world.check();
    world.partial.forget(world.leaf(4), |_| false);
    assert_eq!(world.partial.unconnected(), 4);
    assert_eq!(world.partial.sole_source(world.node(1, 0)), None);
    world.check();
    world.partial.forget(world.node(0, 0), |_| false);
    assert_eq!(world.partial.unconnected(), 0);
    world.check();
}

#[test]
fn another_root_discards_everything() {
    let mut world = World::trusted(4, 10);
    let top = world.node(0, 0);
    assert_eq!(world.lap(top, 2, 1), Offer::Verified { top });
    world.trust();
    assert!(world.all_verified());
    world.partial.trust_root([1; 32]);
    assert_eq!(world.partial.verified(top), Some(&[1; 32]));
    assert!(!world.partial.all_verified(2, 0..1));
}

#[test]
fn nodes_of_a_larger_tree_are_refused() {
    let mut world = World::trusted(4, 10);
    let large = Geometry::new(1_000).expect("in range");
    let leaf = large.leaf(999).expect("it exists");
    let outside = Offer::NotALap(FoldError::Outside(leaf));
    assert_eq!(world.partial.offer(leaf, [0; 32], 1), outside);
    assert_eq!(
        world.partial.offer_lap(leaf, &[leaf], &[[0; 32]], 1),
        outside
    );
    assert_eq!(world.partial.verified(leaf), None);
    world.partial.forget(leaf, |_| false);
}

#[test]
fn pages_are_made_only_where_something_is_verified() {
    let geometry = Geometry::new(1 << 20).expect("in range");
    let mut verified = Verified::new(&geometry);
    let leaf = geometry.leaf(700_000).expect("it exists");
    assert!(verified.insert(&geometry, leaf, [1; 32]));
    assert!(!verified.insert(&geometry, leaf, [1; 32]));
    assert_eq!(verified.pages(), 1);
    for (range, all) in [
        (700_000..700_001, true),
        (699_999..700_001, false),
        (700_000..700_002, false),
        (5..5, true),
    ] {
        assert_eq!(verified.all(20, range), all);
    }
    for index in 1_000..1_300 {
        verified.insert(&geometry, geometry.leaf(index).expect("it exists"), [1; 32]);
    }
    for (from, to) in [
        (1_000, 1_300),
        (1_023, 1_025),
        (1_024, 1_152),
        (1_151, 1_153),
    ] {
        assert!(verified.all(20, from..to));
    }
    assert!(!verified.all(20, 999..1_300) && !verified.all(20, 1_000..1_301));
}

/// One step of a sequence. Numbers are reduced to what the tree has.
#[derive(Clone, Debug)]
enum Step {
    Trust,
    Offer {
        at: (u8, u32),
        source: Source,
    },
    Lie {
        at: (u8, u32),
        source: Source,
        lie: Lie,
    },
    Lap {
        at: (u8, u32),
        level: u8,
        range: (u32, u32),
        source: Source,
        lie: Option<(u32, Lie)>,
    },
    Forget {
        at: (u8, u32),
        source: Source,
    },
    ForgetLiars,
}

/// What stands in for a hash.
#[derive(Clone, Copy, Debug)]
enum Lie {
    Fill(u8),
    Sibling,
    Other(u8, u32),
}

impl World {
    fn pick(&self, (level, index): (u8, u32)) -> Node {
        let geometry = self.partial.geometry();
        let level = geometry.depth() - level % (geometry.depth() + 1);
        self.node(level, index % geometry.width(level))
    }

    fn false_hash(&self, node: Node, lie: Lie) -> Hash {
        match lie {
            Lie::Fill(byte) => [byte; 32],
            Lie::Sibling => {
                let sibling = self.partial.geometry().sibling(node);
                self.hash(sibling.unwrap_or(node))
            }
            Lie::Other(level, index) => self.hash(self.pick((level, index))),
        }
    }

    /// Whether a source may say so: only liars say what is false.
    fn judge(
        &mut self,
        offer: Offer<Source>,
        truth: bool,
        source: Source,
    ) -> Result<(), TestCaseError> {
        if !truth {
            prop_assert!(source >= LIARS);
            prop_assert!(
                !matches!(offer, Offer::Known | Offer::Verified { .. }),
                "{offer:?}"
            );
        }
        if let Offer::Mismatch { at } = offer {
            let sole = self.partial.sole_source(at);
            prop_assert!(
                sole.is_none_or(|s| s >= LIARS),
                "an honest source is blamed"
            );
        }
        if let Offer::Conflict { held_by, .. } = offer {
            let liar = source >= LIARS || held_by.is_none_or(|s| s >= LIARS);
            prop_assert!(liar, "honest sources are blamed");
        }
        if let (true, Offer::NotALap(_)) = (truth, offer) {
            prop_assert!(false, "{:?}", offer);
        }
        for (node, source) in self.refuted() {
            prop_assert!(source >= LIARS, "an honest source is refuted at {:?}", node);
        }
        self.check();
        Ok(())
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Trust => {
                self.trust();
                self.judge(Offer::Known, true, 0)
            }
            Step::Offer { at, source } => {
                let node = self.pick(at);
                let offer = self.offer(node, source);
                self.judge(offer, true, source)
            }
            Step::Lie { at, source, lie } => {
                let node = self.pick(at);
                let hash = self.false_hash(node, lie);
                let truth = hash == self.hash(node);
                let offer = self.partial.offer(node, hash, source);
                self.judge(offer, truth, source)
            }
            Step::Lap {
                at,
                level,
                range,
                source,
                lie,
            } => self.take_lap(self.pick(at), level, range, source, lie),
            Step::Forget { at, source } => {
                self.partial.forget(self.pick(at), |s| s != source);
                self.check();
                Ok(())
            }
            Step::ForgetLiars => {
                self.partial.forget(self.node(0, 0), |s| s < LIARS);
                self.check();
                Ok(())
            }
        }
    }

    fn take_lap(
        &mut self,
        ancestor: Node,
        level: u8,
        range: (u32, u32),
        source: Source,
        lie: Option<(u32, Lie)>,
    ) -> Result<(), TestCaseError> {
        let geometry = *self.partial.geometry();
        let level = ancestor.level() + level % (geometry.depth() - ancestor.level() + 1);
        let under = geometry.descendants(ancestor, level);
        let from = under.start + range.0 % (under.end - under.start);
        let to = from + 1 + range.1 % (under.end - from);
        let lap = geometry.lap(ancestor, level, from..to).expect("a lap");
        let nodes: Vec<Node> = lap.nodes(&geometry).expect("it exists").collect();
        let mut hashes: Vec<Hash> = nodes.iter().map(|node| self.hash(*node)).collect();
        let mut truth = true;
        if let Some((which, lie)) = lie {
            let which = which as usize % nodes.len();
            let hash = self.false_hash(nodes[which], lie);
            truth = hash == hashes[which];
            hashes[which] = hash;
        }
        let before = self.partial.unconnected();
        let offer = self.partial.offer_lap(ancestor, &nodes, &hashes, source);
        if matches!(
            offer,
            Offer::Conflict { .. } | Offer::Full | Offer::EqualSiblings { .. }
        ) {
            prop_assert_eq!(self.partial.unconnected(), before, "refused, but kept");
        }
        if matches!(offer, Offer::Verified { .. } | Offer::Known) {
            prop_assert!(
                nodes
                    .iter()
                    .all(|node| self.partial.verified(*node).is_some())
            );
        }
        self.judge(offer, truth, source)
    }
}

fn place_strategy() -> impl Strategy<Value = Place> + Clone {
    // Leaves and what is right above them most of the time.
    (
        prop_oneof![4 => Just(0), 2 => 0..3_u8, 1 => any::<u8>()],
        any::<u32>(),
    )
}

fn lie_strategy() -> impl Strategy<Value = Lie> {
    prop_oneof![
        any::<u8>().prop_map(Lie::Fill),
        Just(Lie::Sibling),
        place_strategy().prop_map(|(level, index)| Lie::Other(level, index)),
    ]
}

fn step_strategy() -> impl Strategy<Value = Step> {
    let (honest, liar) = (0..3_u8, LIARS..LIARS + 3);
    let anyone = prop_oneof![honest.clone(), liar.clone()];
    let lap = (place_strategy(), 0..4_u8, any::<(u32, u32)>());
    prop_oneof![
        1 => Just(Step::Trust),
        12 => (place_strategy(), anyone.clone()).prop_map(|(at, source)| Step::Offer { at, source }),
        6 => (place_strategy(), liar.clone(), lie_strategy())
            .prop_map(|(at, source, lie)| Step::Lie { at, source, lie }),
        3 => (lap.clone(), anyone.clone()).prop_map(|((at, level, range), source)| {
            Step::Lap { at, level, range, source, lie: None }
        }),
        2 => (lap, liar, any::<u32>(), lie_strategy()).prop_map(
            |((at, level, range), source, which, lie)| {
                Step::Lap { at, level, range, source, lie: Some((which, lie)) }
            }
        ),
        1 => (place_strategy(), anyone).prop_map(|(at, source)| Step::Forget { at, source }),
        1 => Just(Step::ForgetLiars),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(768))]

    /// Whatever is offered by whomever: nothing false is verified, nothing grows beyond its bound, no
    /// honest source is blamed, and in the end the truth verifies: leaf by leaf once the liars'
    /// candidates are forgotten, and as a lap without forgetting anything.
    #[test]
    fn liars_neither_prove_nor_prevent(
        count in 1..40_u32,
        max_unconnected in prop_oneof![Just(1_000), 0..12_u32],
        steps in prop::collection::vec(step_strategy(), 0..120),
        order in Just((0..40_u32).collect::<Vec<_>>()).prop_shuffle(),
        chunk_level in any::<u8>(),
    ) {
        let mut world = World::new(count, max_unconnected);
        for step in &steps {
            world.take(step)?;
        }
        world.trust();
        let mut other = World { tree: world.tree.clone(), partial: world.partial.clone() };

        // A lap around each verified node of a row proves itself, whatever is held.
        let depth = other.partial.geometry().depth();
        let level = chunk_level % (depth + 1);
        let _ = other.lap(other.node(0, 0), level, 1);
        for index in 0..other.partial.geometry().width(level) {
            let offer = other.lap(other.node(level, index), depth, 2);
            let proven = matches!(offer, Offer::Verified { .. } | Offer::Known);
            prop_assert!(proven, "{:?}", offer);
            other.judge(offer, true, 2)?;
        }
        prop_assert!(other.all_verified());
        prop_assert_eq!(other.partial.unconnected(), 0);

        world.partial.forget(world.node(0, 0), |source| source < LIARS);
        let room = world.partial.max_unconnected - world.partial.unconnected();
        for index in order.into_iter().filter(|index| *index < count) {
            let leaf = world.leaf(index);
            let offer = world.offer(leaf, 1);
            world.judge(offer, true, 1)?;
            prop_assert!(offer != Offer::Full || room < count);
        }
        prop_assert!(world.all_verified() || room < count);
    }

    /// With honest sources alone, exactly what the reference proves is verified, at every moment.
    #[test]
    fn honest_offers_verify_what_they_prove(
        count in 1..24_u32,
        trusted_at in 0..50_usize,
        offers in prop::collection::vec((place_strategy(), 0..4_u8), 0..60),
    ) {
        let mut world = World::new(count, 1_000);
        let mut known: BTreeMap<Place, Hash> = BTreeMap::new();
        for (step, (at, source)) in offers.into_iter().enumerate() {
            let node = world.pick(at);
            if step == trusted_at {
                world.trust();
            }
            let offer = world.offer(node, source);
            known.insert((node.level(), node.index()), world.hash(node));
            prop_assert!(
                matches!(offer, Offer::Known | Offer::Unconnected | Offer::Verified { .. }),
                "{:?}", offer
            );
            world.check();
            let proven = world.tree.shape.proven(&known);
            for place in world.tree.shape.spans.keys() {
                let expected = step >= trusted_at && proven.contains(place);
                let verified = world.partial.verified(world.node(place.0, place.1)).is_some();
                prop_assert_eq!(verified, expected, "{:?}", place);
            }
        }
    }
}
