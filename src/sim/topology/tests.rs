use super::*;
use proptest::prelude::*;

fn plan(kind: Topology, nodes: usize, degree: Option<usize>, seed: u64) -> Plan {
    let spec = TopologySpec {
        kind,
        nodes,
        degree,
        ..TopologySpec::default()
    };
    Plan::new(&spec, seed)
}

#[test]
fn topologies_have_their_edges() {
    assert_eq!(Topology::Line.edges(4), [(0, 1), (1, 2), (2, 3)]);
    assert_eq!(Topology::Ring.edges(4), [(0, 1), (1, 2), (2, 3), (0, 3)]);
    assert_eq!(Topology::Ring.edges(2), [(0, 1)]);
    assert_eq!(Topology::Star.edges(3), [(0, 1), (0, 2)]);
    assert_eq!(Topology::Mesh.edges(4).len(), 6);
    assert!(Topology::Mesh.edges(1).is_empty());
}

#[test]
fn rewiring_shortens_ways() {
    let longest = |rewire| {
        let spec = TopologySpec {
            kind: Topology::SmallWorld,
            nodes: 200,
            degree: Some(4),
            rewire: Some(rewire),
            ..TopologySpec::default()
        };
        let neighbours = Plan::new(&spec, 3).neighbours();
        let mut far = vec![usize::MAX; 200];
        far[0] = 0;
        let mut row = vec![0];
        while !row.is_empty() {
            let mut next = Vec::new();
            for node in row {
                for &other in &neighbours[node] {
                    if far[other] == usize::MAX {
                        far[other] = far[node] + 1;
                        next.push(other);
                    }
                }
            }
            row = next;
        }
        far.into_iter().max()
    };
    assert_eq!(longest(0.0), Some(50));
    assert!(longest(0.2) < Some(15));
}

#[test]
fn cities_have_delays_of_their_distance() {
    let plan = plan(Topology::Geographic, 100, None, 7);
    assert_eq!(plan.places.len(), 100);
    assert_eq!(plan.delays.len(), plan.edges.len());
    for (&(one, other), delay) in plan.edges.iter().zip(&plan.delays) {
        let glass = plan.places[one].delay_to(plan.places[other], 1.5);
        assert_eq!(*delay, glass + Duration::from_millis(3));
        assert!(*delay < Duration::from_millis(160), "half the globe");
    }
    let mean = 2.0 * plan.edges.len() as f64 / 100.0;
    assert!((6.0..14.0).contains(&mean), "{mean}");
}

proptest! {
    #[test]
    fn every_plan_is_in_one_piece_and_simple(
        nodes in 1usize..60, degree in 1usize..9, seed in any::<u64>(), kind in 0usize..7,
    ) {
        let kinds = [
            Topology::Line, Topology::Ring, Topology::Star, Topology::Mesh,
            Topology::Regular, Topology::SmallWorld, Topology::Geographic,
        ];
        let degree = match kinds[kind] {
            Topology::Regular => degree.max(3),
            _ => degree.div_ceil(2) * 2,
        };
        let plan = plan(kinds[kind], nodes, Some(degree), seed);
        prop_assert!(in_one_piece(nodes, &plan.edges), "{:?}", plan);
        let distinct: BTreeSet<_> = plan.edges.iter().collect();
        prop_assert_eq!(distinct.len(), plan.edges.len());
        prop_assert!(plan.edges.iter().all(|&(low, high)| low < high && high < nodes));
    }

    #[test]
    fn regular_ones_are_regular_and_differ_by_seed(half in 3usize..40, degree in 3usize..9, seed in any::<u64>()) {
        let nodes = half * 2;
        prop_assume!(degree < nodes);
        let plan = plan(Topology::Regular, nodes, Some(degree), seed);
        for list in plan.neighbours() {
            prop_assert_eq!(list.len(), degree);
        }
    }
}

#[test]
fn a_seed_draws_its_own_plan() {
    let draw = |seed| plan(Topology::Regular, 100, Some(8), seed);
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}
