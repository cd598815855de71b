//! Geometry, runs, laps and folds against the reference, and the facts that the protocol rests on.

use std::collections::BTreeMap;

use super::reference::{Place, Shape, Tree};
use super::*;

const DIRECTIONS: [Direction; 3] = [Direction::Flat, Direction::Down, Direction::Up];

fn place(node: Node) -> Place {
    (node.level(), node.index())
}

fn node(geometry: &Geometry, (level, index): Place) -> Node {
    geometry.node(level, index).expect("the node exists")
}

fn geometry(count: u32) -> Geometry {
    Geometry::new(count).expect("a count in range")
}

fn places(run: Run, geometry: &Geometry) -> Vec<Place> {
    run.nodes(geometry)
        .expect("the run exists")
        .map(place)
        .collect()
}

fn run(direction: Direction, level: u8, start: u32, count: u32) -> Run {
    Run {
        direction,
        level,
        start,
        count,
    }
}

/// The hash that a lap of true hashes folds to.
fn fold_of(tree: &Tree, geometry: &Geometry, ancestor: Node, lap: &Lap) -> Result<Hash, FoldError> {
    let nodes = lap.nodes(geometry).expect("the lap exists");
    fold(
        geometry,
        ancestor,
        nodes.map(|node| (node, tree.hashes[&place(node)])),
    )
}

#[test]
fn counts_out_of_range_have_no_geometry() {
    assert_eq!(Geometry::new(0), None);
    assert_eq!(Geometry::new(MAX_LEAVES + 1), None);
    assert_eq!(Geometry::new(u32::MAX), None);
    let largest = geometry(MAX_LEAVES);
    assert_eq!(largest.depth(), MAX_DEPTH);
    assert_eq!(largest.width(MAX_DEPTH), MAX_LEAVES);
    assert_eq!(geometry(1).depth(), 0);
    assert_eq!(geometry(1).children(geometry(1).root()), None);
}

#[test]
fn shape_equals_the_reference_for_every_count() {
    for count in 1..=300 {
        let (geometry, shape) = (geometry(count), Shape::new(count));
        assert_eq!(geometry.depth(), shape.depth());
        for level in 0..=shape.depth() + 2 {
            let width = shape.widths.get(usize::from(level)).copied();
            assert_eq!(geometry.width(level), width.unwrap_or(0));
            assert_eq!(geometry.node(level, geometry.width(level)), None);
        }
        assert_eq!(geometry.width(u8::MAX), 0);
        for (at, span) in &shape.spans {
            let node = node(&geometry, *at);
            assert_eq!(geometry.leaves(node), *span);
            let children = geometry.children(node);
            let listed: Vec<Place> = children
                .iter()
                .flat_map(|(left, right)| [Some(*left), *right])
                .flatten()
                .map(place)
                .collect();
            assert_eq!(listed, shape.children(*at));
            for child in listed.iter().map(|child| self::node(&geometry, *child)) {
                assert_eq!(geometry.parent(child), Some(node));
                let other = listed.iter().find(|other| **other != place(child)).copied();
                assert_eq!(geometry.sibling(child).map(place), other);
                assert!(geometry.is_under(child, node) && !geometry.is_under(node, child));
            }
            for level in 0..=at.0 {
                let ancestor = geometry.ancestor(node, level).expect("levels above exist");
                assert!(geometry.is_under(node, ancestor));
                let around = &shape.spans[&place(ancestor)];
                assert!(around.start <= span.start && span.end <= around.end);
            }
            assert_eq!(geometry.ancestor(node, at.0 + 1), None);
        }
    }
}

#[test]
fn next_nodes_equal_both_definitions_for_every_count() {
    for count in 1..=300 {
        let (geometry, shape) = (geometry(count), Shape::new(count));
        for (at, span) in &shape.spans {
            let node = node(&geometry, *at);
            let up = geometry.next_up(node).map(place);
            assert_eq!(up, shape.next_up(*at), "{count} {at:?}");
            assert_eq!(up, shape.next_up_by_ancestor(*at));
            let down = geometry.next_down(node).map(place);
            assert_eq!(down, shape.next_down(*at));
            assert_eq!(down, shape.next_down_by_ancestor(*at));
            let flat = Some((at.0, at.1 + 1)).filter(|next| shape.exists(*next));
            assert_eq!(geometry.next_flat(node).map(place), flat);
            // Upwards: always a right child; its sibling from an even index, higher from an odd one.
            match up {
                Some((level, index)) => {
                    assert_eq!(index % 2, 1);
                    assert_eq!(level < at.0, at.1 % 2 == 1);
                }
                None => assert_eq!(span.end, count),
            }
            // Downwards: always a left child, and it exists unless the node is at the left edge.
            match down {
                Some((level, index)) => {
                    assert_eq!(index % 2, 0);
                    assert_eq!(level < at.0, at.1 % 2 == 0);
                }
                None => assert_eq!(span.start, 0),
            }
        }
    }
}

#[test]
fn longest_runs_equal_the_reference_and_reach_the_edge() {
    for count in 1..=100 {
        let (geometry, shape) = (geometry(count), Shape::new(count));
        for (at, span) in &shape.spans {
            let node = node(&geometry, *at);
            for direction in DIRECTIONS {
                let travelled = shape.travel(direction, *at);
                assert_eq!(
                    geometry.longest_run(direction, node) as usize,
                    travelled.len()
                );
                for length in 0..=travelled.len() + 2 {
                    let run = Run::new(direction, node, length as u32);
                    let mut expected = travelled
                        .get(..length)
                        .filter(|l| !l.is_empty())
                        .map(<[_]>::to_vec);
                    if let (Direction::Down, Some(expected)) = (direction, &mut expected) {
                        expected.reverse();
                    }
                    let nodes = run.nodes(&geometry);
                    assert_eq!(
                        nodes.as_ref().map(ExactSizeIterator::len),
                        expected.as_ref().map(Vec::len)
                    );
                    assert_eq!(
                        nodes.map(|nodes| nodes.map(place).collect::<Vec<_>>()),
                        expected
                    );
                }
                let last = &shape.spans[travelled.last().expect("a run has a start")];
                match direction {
                    Direction::Up => assert_eq!(last.end, count),
                    Direction::Down => assert_eq!(last.start, 0),
                    Direction::Flat => assert!(last.end == count && span.start <= last.start),
                }
            }
        }
    }
}

#[test]
fn runs_that_do_not_exist_are_refused_without_walking() {
    let geometry = geometry(MAX_LEAVES - 5);
    for direction in DIRECTIONS {
        for count in [0, 1 << 25, u32::MAX] {
            assert!(run(direction, 24, 7, count).nodes(&geometry).is_none());
        }
        for (level, start) in [
            (25, 0),
            (255, 0),
            (24, MAX_LEAVES - 5),
            (3, 8),
            (24, u32::MAX),
        ] {
            assert!(run(direction, level, start, 1).nodes(&geometry).is_none());
        }
    }
    assert!(
        run(Direction::Flat, 24, 0, MAX_LEAVES - 5)
            .nodes(&geometry)
            .is_some()
    );
}

#[test]
fn worked_examples_of_eleven_leaves() {
    let geometry = geometry(11);
    let widths: Vec<u32> = (0..=4).map(|level| geometry.width(level)).collect();
    assert_eq!(widths, [1, 2, 3, 6, 11]);
    let whole = |direction, start| {
        let leaf = geometry.leaf(start).expect("a leaf");
        places(
            Run::new(direction, leaf, geometry.longest_run(direction, leaf)),
            &geometry,
        )
    };
    assert_eq!(
        whole(Direction::Up, 0),
        [(4, 0), (4, 1), (3, 1), (2, 1), (1, 1)]
    );
    assert_eq!(whole(Direction::Up, 5), [(4, 5), (3, 3), (1, 1)]);
    assert_eq!(whole(Direction::Up, 10), [(4, 10)]);
    assert_eq!(whole(Direction::Down, 5), [(2, 0), (4, 4), (4, 5)]);
    assert_eq!(whole(Direction::Down, 10), [(1, 0), (3, 4), (4, 10)]);
    assert_eq!(
        places(geometry.branch_of_first(), &geometry),
        whole(Direction::Up, 0)
    );
    assert_eq!(
        places(geometry.count_proof(), &geometry),
        whole(Direction::Down, 10)
    );
    let proof = |range| {
        geometry
            .lap(geometry.root(), 4, range)
            .expect("a proof")
            .runs
            .to_vec()
    };
    use Direction::{Down, Flat, Up};
    assert_eq!(
        proof(3..4),
        [run(Down, 4, 2, 2), run(Flat, 4, 3, 1), run(Up, 2, 1, 2)]
    );
    assert_eq!(
        proof(2..9),
        [run(Down, 3, 0, 1), run(Flat, 4, 2, 7), run(Up, 4, 9, 2)]
    );
    assert_eq!(proof(8..11), [run(Down, 1, 0, 1), run(Flat, 4, 8, 3)]);
    assert_eq!(proof(0..11), [run(Flat, 4, 0, 11)]);
}

#[test]
fn the_top_left_node_of_a_down_run_does_not_determine_it() {
    let geometry = geometry(8);
    let follows = |at| geometry.next_down(node(&geometry, at)).map(place) == Some((1, 0));
    let all = Shape::new(8).spans.into_keys().filter(|at| follows(*at));
    assert_eq!(all.collect::<Vec<_>>(), [(1, 1), (2, 2), (3, 4)]);
}

#[test]
fn every_leaf_range_is_proven_to_the_root_by_three_runs_at_most() {
    let (mut canonical, mut fewest) = ([0; 4], [0; 4]);
    for count in 1..=70 {
        let (geometry, tree) = (geometry(count), Tree::of_count(count, 1));
        let depth = geometry.depth();
        for from in 0..count {
            for to in from + 1..=count {
                let lap = geometry
                    .lap(geometry.root(), depth, from..to)
                    .expect("a proof");
                let nodes: Vec<Place> = lap
                    .nodes(&geometry)
                    .expect("it exists")
                    .map(place)
                    .collect();
                assert_eq!(nodes, tree.shape.cover((0, 0), depth, &(from..to)));
                assert_eq!(lap.len(), nodes.len() as u64);
                assert_eq!(
                    fold_of(&tree, &geometry, geometry.root(), &lap),
                    Ok(tree.root())
                );
                let edges = usize::from(from > 0) + usize::from(to < count);
                assert_eq!(lap.runs.len(), 1 + edges);
                let minimum = tree.shape.fewest_runs(&nodes);
                if to - from <= 3 || (to - from == 4 && from % 2 == 0) {
                    assert!(minimum <= 2);
                }
                canonical[lap.runs.len()] += 1;
                fewest[minimum] += 1;
                let right = (0..depth).filter(|bit| {
                    let index = (to - 1) >> bit;
                    index % 2 == 0 && index + 1 < geometry.width(depth - bit)
                });
                let side = u64::from(from.count_ones()) + right.count() as u64;
                assert_eq!(lap.len(), side + u64::from(to - from));
            }
        }
    }
    assert_eq!(canonical, [0, 70, 4_830, 54_740]);
    assert_eq!(fewest, [0, 548, 15_444, 43_648]);
}

#[test]
fn every_range_of_every_level_is_proven_around_every_node() {
    for count in 1..=40 {
        let (geometry, tree) = (geometry(count), Tree::of_count(count, 2));
        for (at, hash) in &tree.hashes {
            let ancestor = node(&geometry, *at);
            for level in at.0..=geometry.depth() {
                let under = geometry.descendants(ancestor, level);
                for from in under.clone() {
                    for to in from + 1..=under.end {
                        let lap = geometry.lap(ancestor, level, from..to).expect("a proof");
                        let nodes = lap.nodes(&geometry).expect("it exists").map(place);
                        let cover = tree.shape.cover(*at, level, &(from..to));
                        assert_eq!(nodes.collect::<Vec<_>>(), cover);
                        assert!(lap.is_canonical(&geometry));
                        assert_eq!(
                            lap.flat(),
                            Some(run(Direction::Flat, level, from, to - from))
                        );
                        assert_eq!(fold_of(&tree, &geometry, ancestor, &lap), Ok(*hash));
                    }
                }
                let none = geometry.lap(ancestor, level, under.start..under.start);
                assert_eq!(none, None);
                assert_eq!(
                    geometry.lap(ancestor, level, under.start..under.end + 1),
                    None
                );
                if under.start > 0 {
                    assert_eq!(
                        geometry.lap(ancestor, level, under.start - 1..under.end),
                        None
                    );
                }
            }
        }
    }
}

#[test]
fn branch_of_the_first_leaf_and_count_proof_are_root_laps() {
    for count in 1..=300 {
        let (geometry, tree) = (geometry(count), Tree::of_count(count, 3));
        let branch = geometry.branch_of_first();
        assert_eq!(branch.count, u32::from(geometry.depth()) + 1);
        let proof = geometry.count_proof();
        assert_eq!(proof.count, 1 + (count - 1).count_ones());
        for run in [branch, proof] {
            let lap = Lap::of_root(run);
            assert!(lap.is_canonical(&geometry));
            assert_eq!(
                fold_of(&tree, &geometry, geometry.root(), &lap),
                Ok(tree.root())
            );
        }
    }
}

#[test]
fn only_the_built_form_is_canonical() {
    let geometry = geometry(11);
    let around = |ancestor, runs: &[Run]| {
        let runs = runs.iter().copied().collect();
        Lap { ancestor, runs }.is_canonical(&geometry)
    };
    use Direction::{Down, Flat, Up};
    let good = [run(Down, 4, 2, 2), run(Flat, 4, 3, 1), run(Up, 2, 1, 2)];
    assert!(around((0, 0), &good));
    assert!(around((1, 0), &[good[0], good[1], run(Up, 2, 1, 1)]));
    assert!(!around((1, 0), &good), "runs that leave the ancestor");
    assert!(!around((1, 1), &good) && !around((0, 1), &good) && !around((9, 0), &good));
    assert!(
        !around((0, 0), &[good[1], good[0], good[2]]),
        "another order"
    );
    assert!(
        !around((0, 0), &good[..2]) && !around((0, 0), &good[1..]),
        "a run is missing"
    );
    assert!(
        !around((0, 0), &[run(Down, 4, 3, 3), good[2]]),
        "payload folded into a side"
    );
    assert!(
        !around((0, 0), &[run(Flat, 4, 0, 5), run(Flat, 4, 5, 6)]),
        "a run in two"
    );
    assert!(!around((0, 0), &[run(Flat, 4, 0, 0)]) && !around((0, 0), &[]));
    assert!(
        !around((0, 0), &[run(Flat, 4, 3, u32::MAX)]),
        "a count that overflows"
    );
    assert!(
        around((0, 0), &[geometry.branch_of_first()]) && around((0, 0), &[geometry.count_proof()])
    );
    assert!(
        !around((1, 0), &[run(Up, 4, 0, 4)]),
        "a branch that stops below the root"
    );
    assert!(!around((0, 0), &[run(Up, 4, 0, 4)]));
    assert!(around((3, 5), &[run(Flat, 4, 10, 1)]) && around((2, 2), &[run(Flat, 2, 2, 1)]));
}

#[test]
fn the_right_edge_needs_its_ancestor_named() {
    let (geometry, tree) = (geometry(11), Tree::of_count(11, 4));
    for at in [(1, 1), (2, 2)] {
        let lap = geometry.lap(node(&geometry, at), 4, 8..11).expect("a lap");
        assert_eq!(lap.runs.as_slice(), [run(Direction::Flat, 4, 8, 3)]);
        assert_eq!(
            fold_of(&tree, &geometry, node(&geometry, at), &lap),
            Ok(tree.hashes[&at])
        );
    }
    assert_ne!(tree.hashes[&(1, 1)], tree.hashes[&(2, 2)]);
}

#[test]
fn folds_say_where_they_fail() {
    let (geometry, tree) = (geometry(11), Tree::of_count(11, 5));
    let fold_in = |at, items: &[Place]| {
        let items = items
            .iter()
            .map(|at| (node(&geometry, *at), tree.hashes[at]));
        fold(&geometry, node(&geometry, at), items)
    };
    assert_eq!(
        fold_in((2, 0), &[(3, 0), (4, 2), (4, 3)]),
        Ok(tree.hashes[&(2, 0)])
    );
    assert_eq!(
        fold_in((2, 0), &[(4, 2), (4, 3)]),
        Err(FoldError::Gap { expected: 0 })
    );
    assert_eq!(
        fold_in((2, 0), &[(3, 0), (4, 3)]),
        Err(FoldError::Gap { expected: 2 })
    );
    assert_eq!(
        fold_in((2, 0), &[(3, 0), (3, 0)]),
        Err(FoldError::Gap { expected: 2 })
    );
    assert_eq!(
        fold_in((2, 0), &[(3, 0), (4, 2)]),
        Err(FoldError::Short { expected: 3 })
    );
    assert_eq!(fold_in((2, 0), &[]), Err(FoldError::Short { expected: 0 }));
    let outside = node(&geometry, (4, 4));
    assert_eq!(
        fold_in((2, 0), &[(3, 0), (3, 1), (4, 4)]),
        Err(FoldError::Outside(outside))
    );
    assert_eq!(
        fold_in((2, 2), &[(1, 1)]),
        Err(FoldError::Outside(node(&geometry, (1, 1))))
    );
    assert_eq!(
        fold_in((2, 0), &[(3, 0), (3, 1), (3, 1)]),
        Err(FoldError::Gap { expected: 4 })
    );
    assert_eq!(fold_in((4, 10), &[(4, 10)]), Ok(tree.hashes[&(4, 10)]));
}

#[test]
fn equal_siblings_are_refused_and_phantoms_are_not() {
    // Three leaves and their mutation, the last one twice, have the same root (CVE-2012-2459).
    let three = Tree::of_count(3, 6);
    let leaves = |index| three.hashes[&(2, index)];
    let four = [leaves(0), leaves(1), leaves(2), leaves(2)];
    assert_eq!(hash::root(&four[..3]).hash, three.root());
    assert_eq!(
        hash::root(&four),
        hash::Root {
            hash: three.root(),
            mutated: true
        }
    );
    assert!(!hash::root(&four[..3]).mutated);
    let geometry = geometry(4);
    let items = (0..4).map(|i| (geometry.leaf(i).expect("a leaf"), four[i as usize]));
    let parent = node(&geometry, (1, 1));
    let refused = fold(&geometry, geometry.root(), items);
    assert_eq!(refused, Err(FoldError::EqualSiblings(parent)));
}

/// Which false counts a count proof lets pass, by the checks made on it.
#[test]
fn a_count_proof_proves_the_count_if_the_depth_is_known_and_siblings_differ() {
    let (mut unchecked, mut differ, mut depth_known, mut both) = (0, 0, 0, 0);
    let mut first = None;
    for count in 2..=70 {
        let tree = Tree::of_count(count, 7);
        for claimed in (1..280).filter(|claimed| *claimed != count) {
            let (geometry, shape) = (geometry(claimed), Shape::new(claimed));
            if shape.depth() > tree.shape.depth() {
                // A deeper tree needs a preimage of a leaf that is a pair of hashes.
                continue;
            }
            // The one hash that fits at each place is that of the true tree, phantoms included.
            let nodes = geometry.count_proof().nodes(&geometry).expect("it exists");
            let items: Vec<(Node, Hash)> = nodes.map(|n| (n, tree.padded(place(n)))).collect();
            let known: BTreeMap<Place, Hash> = items.iter().map(|(n, h)| (place(*n), *h)).collect();
            let lax = shape.evaluate((0, 0), &known, false) == Some(tree.root());
            let strict = fold(&geometry, geometry.root(), items.into_iter()) == Ok(tree.root());
            assert_eq!(
                strict,
                shape.evaluate((0, 0), &known, true) == Some(tree.root())
            );
            let same_depth = shape.depth() == tree.shape.depth();
            unchecked += u32::from(lax);
            differ += u32::from(strict);
            depth_known += u32::from(lax && same_depth);
            both += u32::from(strict && same_depth);
            if lax {
                first = first.or(Some((count, claimed)));
            }
        }
    }
    assert_eq!((unchecked, differ, depth_known, both), (1456, 363, 487, 0));
    assert_eq!(first, Some((2, 1)));
}

#[test]
fn sizes_of_laps_stated_in_the_design() {
    let geometry_of_3500 = geometry(3_500);
    assert_eq!(geometry_of_3500.depth(), 12);
    let widths = [7, 6, 5].map(|height| geometry_of_3500.width(12 - height));
    assert_eq!(widths, [28, 55, 110]);
    let geometry = geometry(10_000);
    assert_eq!(
        (geometry.depth(), geometry.width(6), geometry.width(7)),
        (14, 40, 79)
    );
    let last = geometry.node(6, 39).expect("a node");
    assert_eq!(geometry.leaves(last), 9_984..10_000);
}

#[test]
fn nodes_of_another_tree_do_no_harm() {
    let (small, large) = (geometry(11), geometry(MAX_LEAVES));
    for level in 0..=MAX_DEPTH {
        for index in [0, 1, 5, large.width(level) / 2, large.width(level) - 1] {
            let Some(node) = large.node(level, index) else {
                continue;
            };
            let known = small.contains(node);
            assert_eq!(small.parent(node).is_some(), known && level > 0);
            assert_eq!(small.leaves(node).is_empty(), !known);
            assert_eq!(small.is_under(node, small.root()), known);
            assert!(known || small.next_up(node).is_none_or(|next| small.contains(next)));
            assert!(known || small.next_down(node).is_none() && small.sibling(node).is_none());
            for direction in DIRECTIONS {
                assert_eq!(small.longest_run(direction, node) == 0, !known);
            }
            assert!(known || small.lap(node, 4, 0..1).is_none());
            let folded = fold(&small, node, [(node, [0; 32])].into_iter());
            assert_eq!(folded.is_ok(), known);
        }
    }
}
