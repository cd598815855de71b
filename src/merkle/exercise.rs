//! Bytes read as a sequence of operations on a partial tree, for fuzzing and its corpus.
//!
//! What this is not: part of the protocol. It panics when a promise of [`Partial`] is broken.

use super::reference::Tree;
use super::{Geometry, Hash, Node, Offer, Partial};

/// Sources below this number say the truth only, whatever the bytes say.
const LIARS: u8 = 128;

/// Plays `bytes` against a partial tree of 1 to 64 leaves: one byte for the count, one for the bound on
/// candidates, then four for each operation: what to do, a level, an index, and a source that is also the
/// lie it tells. Takes any bytes; work grows with their number.
///
/// # Panics
///
/// If something false is verified, a bound is passed, an honest source is called a liar, or the truth,
/// offered as a lap, does not verify in the end.
pub fn play(bytes: &[u8]) {
    let [count, max_unconnected, operations @ ..] = bytes else {
        return;
    };
    let count = u32::from(count % 64) + 1;
    let max_unconnected = u32::from(*max_unconnected);
    let Some(geometry) = Geometry::new(count) else {
        return;
    };
    let tree = Tree::of_count(count, 77);
    let mut partial = Partial::new(geometry, max_unconnected);
    for [what, level, index, source] in operations.as_chunks::<4>().0 {
        let level = level % (geometry.depth() + 1);
        let index = u32::from(*index) % geometry.width(level);
        if let Some(node) = geometry.node(level, index) {
            step(&mut partial, &tree, *what, node, *source);
        }
        for (node, liar) in partial.drain_refuted() {
            assert!(liar >= LIARS, "an honest source is refuted at {node:?}");
        }
        assert!(partial.unconnected() <= max_unconnected, "too much is held");
        check(&partial, &tree);
    }
    partial.trust_root(tree.root());
    let _ = lap(&mut partial, &tree, geometry.root(), None, 0);
    assert!(
        partial.all_verified(geometry.depth(), 0..count),
        "the truth does not verify"
    );
    check(&partial, &tree);
}

/// One operation at a node.
fn step(partial: &mut Partial<u8>, tree: &Tree, what: u8, node: Node, source: u8) {
    let truth = tree.hashes[&(node.level(), node.index())];
    let lie = (source >= LIARS && what & 0x80 != 0).then_some([source; 32]);
    let offer = match what % 8 {
        0 if source.is_multiple_of(16) => {
            partial.trust_root(tree.root());
            return;
        }
        1 => return partial.forget(node, |other| other != source),
        2 | 3 => lap(partial, tree, node, lie, source),
        _ => partial.offer(node, lie.unwrap_or(truth), source),
    };
    let proven = matches!(offer, Offer::Known | Offer::Verified { .. });
    assert!(!proven || lie.is_none(), "a lie is {offer:?}");
    if let Offer::Mismatch { at } = offer {
        let sole = partial.sole_source(at);
        assert!(sole.is_none_or(|s| s >= LIARS), "{sole:?} told the truth");
    }
}

/// Offers the leaves under a node as a lap, with the last one replaced by `lie`.
fn lap(
    partial: &mut Partial<u8>,
    tree: &Tree,
    ancestor: Node,
    lie: Option<Hash>,
    source: u8,
) -> Offer<u8> {
    let geometry = *partial.geometry();
    let leaves = geometry.leaves(ancestor);
    let nodes: Vec<Node> = leaves.filter_map(|index| geometry.leaf(index)).collect();
    let places = nodes.iter().map(|node| (node.level(), node.index()));
    let mut hashes: Vec<Hash> = places.map(|place| tree.hashes[&place]).collect();
    if let (Some(last), Some(lie)) = (hashes.last_mut(), lie) {
        *last = lie;
    }
    partial.offer_lap(ancestor, &nodes, &hashes, source)
}

/// Nothing but the truth is verified.
fn check(partial: &Partial<u8>, tree: &Tree) {
    for ((level, index), hash) in &tree.hashes {
        let node = partial.geometry().node(*level, *index);
        let verified = node.and_then(|node| partial.verified(node));
        assert!(verified.is_none_or(|verified| verified == hash));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_bytes_keep_the_promises(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            super::play(&bytes);
        }
    }
}
