//! Reads `bip/vectors/trees.json`: shapes, next nodes, proofs and laps of whole trees, and what must be refused.

use blocktorrent::merkle::{Direction, FoldError, Geometry, Hash, Lap, Node, Run, fold, hash};
use serde_json::Value;

fn file() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/bip/vectors/trees.json");
    let source = std::fs::read_to_string(path).expect("the vectors are part of the repository");
    serde_json::from_str(&source).expect("the vectors are JSON")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn number(value: &Value) -> u32 {
    value
        .as_u64()
        .and_then(|value| u32::try_from(value).ok())
        .expect("a number")
}

fn hash_of(value: &Value) -> Hash {
    let text = value.as_str().expect("hex");
    hex::decode_to_array(text).expect("32 bytes of hex")
}

fn hashes_of(value: &Value) -> Vec<Hash> {
    list(value).iter().map(hash_of).collect()
}

fn run_of(value: &Value) -> Run {
    let direction = match value[0].as_str() {
        Some("flat") => Direction::Flat,
        Some("down") => Direction::Down,
        Some("up") => Direction::Up,
        other => panic!("direction {other:?}"),
    };
    Run {
        direction,
        level: number(&value[1]) as u8,
        start: number(&value[2]),
        count: number(&value[3]),
    }
}

fn node_of(geometry: &Geometry, value: &Value) -> Node {
    geometry
        .node(number(&value[0]) as u8, number(&value[1]))
        .expect("a node of the tree")
}

fn optional(geometry: &Geometry, value: &Value) -> Option<Node> {
    (!value.is_null()).then(|| node_of(geometry, value))
}

fn leaves(count: u32) -> Vec<Hash> {
    (0..count)
        .map(|index| {
            let parts = [
                &b"blocktorrent"[..],
                &count.to_le_bytes(),
                &index.to_le_bytes(),
            ];
            hash::sha256d_parts(&parts)
        })
        .collect()
}

fn folded(geometry: &Geometry, lap: &Lap, hashes: &[Hash]) -> Result<Hash, FoldError> {
    let ancestor = geometry
        .node(lap.ancestor.0, lap.ancestor.1)
        .expect("an ancestor");
    let nodes: Vec<Node> = lap.nodes(geometry).expect("runs of the tree").collect();
    assert_eq!(nodes.len(), hashes.len());
    fold(
        geometry,
        ancestor,
        nodes.into_iter().zip(hashes.iter().copied()),
    )
}

#[test]
fn shapes_and_roots() {
    for tree in list(&file()["trees"]) {
        let geometry = Geometry::new(number(&tree["count"])).expect("a count");
        assert_eq!(u32::from(geometry.depth()), number(&tree["depth"]));
        for (level, width) in (0..).zip(list(&tree["widths"])) {
            assert_eq!(
                geometry.width(level),
                number(width),
                "{} level {level}",
                geometry.count()
            );
        }
        let root = hash::root(&leaves(geometry.count()));
        assert_eq!(root.hash, hash_of(&tree["root"]));
        assert!(!root.mutated);
        for step in list(tree.get("next").unwrap_or(&Value::Array(Vec::new()))) {
            let node = node_of(&geometry, &step["node"]);
            assert_eq!(
                geometry.next_up(node),
                optional(&geometry, &step["up"]),
                "{step}"
            );
            assert_eq!(
                geometry.next_down(node),
                optional(&geometry, &step["down"]),
                "{step}"
            );
        }
    }
}

#[test]
fn proofs_and_laps() {
    for tree in list(&file()["trees"]) {
        let geometry = Geometry::new(number(&tree["count"])).expect("a count");
        let root = hash_of(&tree["root"]);
        for (name, made) in [
            ("branch_of_first", geometry.branch_of_first()),
            ("count_proof", geometry.count_proof()),
        ] {
            let proof = &tree[name];
            assert_eq!(
                made,
                run_of(&proof["run"]),
                "{name} of {}",
                geometry.count()
            );
            let hashes = hashes_of(&proof["hashes"]);
            assert_eq!(
                folded(&geometry, &Lap::of_root(made), &hashes),
                Ok(root),
                "{name}"
            );
        }
        for vector in list(&tree["laps"]) {
            let ancestor = node_of(&geometry, &vector["ancestor"]);
            let range = number(&vector["range"][0])..number(&vector["range"][1]);
            let lap = geometry
                .lap(ancestor, number(&vector["level"]) as u8, range)
                .expect("a lap");
            let runs: Vec<Run> = list(&vector["runs"]).iter().map(run_of).collect();
            assert_eq!(lap.runs.as_slice(), runs, "{vector}");
            assert!(lap.is_canonical(&geometry));
            let hashes = hashes_of(&vector["hashes"]);
            assert_eq!(
                folded(&geometry, &lap, &hashes),
                Ok(hash_of(&vector["folds_to"]))
            );
        }
    }
}

/// What is wrong with a lap, in the vectors' words.
fn refusal(geometry: &Geometry, vector: &Value) -> &'static str {
    let mut lap = Lap::new(node_of(geometry, &vector["ancestor"]));
    lap.runs.extend(list(&vector["runs"]).iter().map(run_of));
    let hashes = hashes_of(&vector["hashes"]);
    let Some(nodes) = lap.nodes(geometry) else {
        return "no-such-run";
    };
    let nodes: Vec<Node> = nodes.collect();
    if nodes.len() != hashes.len() {
        return "unpaired";
    }
    let ordered = lap.is_canonical(geometry);
    match folded(geometry, &lap, &hashes) {
        Err(FoldError::EqualSiblings(_)) => "equal-siblings",
        _ if !ordered && vector["reason"] == "not-canonical" => "not-canonical",
        Err(FoldError::Gap { .. }) => "gap",
        Err(FoldError::Short { .. }) => "short",
        Err(_) => "other",
        Ok(hash) if hash != hash_of(&vector["claimed"]) => "other-hash",
        Ok(_) => "nothing",
    }
}

#[test]
fn what_must_be_refused() {
    for vector in list(&file()["invalid"]) {
        let geometry = Geometry::new(number(&vector["count"])).expect("a count");
        assert_eq!(
            refusal(&geometry, vector),
            vector["reason"].as_str().expect("a reason"),
            "{vector}"
        );
    }
}

/// The tree's hash at a place, phantoms included: what a liar about the count can show.
fn padded(leaves: &[Hash], height: u32, index: u32) -> Hash {
    if height == 0 {
        let last = leaves.len() as u32 - 1;
        return leaves[index.min(last) as usize];
    }
    let below = 1u32 << (height - 1);
    let left = padded(leaves, height - 1, index * 2);
    let width = (leaves.len() as u32).div_ceil(below);
    let right = if index * 2 + 1 < width {
        padded(leaves, height - 1, index * 2 + 1)
    } else {
        left
    };
    hash::pair(&left, &right)
}

#[test]
fn false_counts_are_refused() {
    for pair in list(&file()["false_counts"]) {
        let (truth, claimed) = (number(&pair[0]), number(&pair[1]));
        let leaves = leaves(truth);
        let root = hash::root(&leaves).hash;
        let honest = Geometry::new(truth).expect("a count");
        let geometry = Geometry::new(claimed).expect("a count");
        if geometry.depth() != honest.depth() {
            // The anchor fixes the depth before any count is believed.
            continue;
        }
        let run = geometry.count_proof();
        let nodes: Vec<Node> = run.nodes(&geometry).expect("its own proof").collect();
        let hashes: Vec<Hash> = nodes
            .iter()
            .map(|node| {
                let height = u32::from(geometry.depth() - node.level());
                let width = truth.div_ceil(1 << height);
                padded(&leaves, height, node.index().min(width - 1))
            })
            .collect();
        let folded = folded(&geometry, &Lap::of_root(run), &hashes);
        assert_ne!(folded, Ok(root), "{truth} passed for {claimed}");
    }
}
