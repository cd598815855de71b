use super::flow::FlowNetwork;
use super::*;
use proptest::prelude::*;

const REFERENCE: Option<u64> = Some(6_250_000);
const DELAY: Duration = Duration::from_millis(50);

#[test]
fn the_bounds_of_the_targets_come_out() {
    // 50 ms one way, 50 Mbit/s, 2,501 transactions, 1.06 MB; the receiver holds that share of them.
    for (held, millis) in [(1.0, 52), (0.99, 54), (0.95, 61), (0.0, 220)] {
        let missing = (1_060_000.0 * (1.0 - held)) as u64;
        let bytes = bytes_to_cross(1_060_000, 2_501, missing);
        let bound = hop(DELAY, bytes, REFERENCE).as_secs_f64() * 1_000.0;
        assert_eq!(bound.round() as u64, millis, "{held}");
    }
    let hops = [(DELAY, REFERENCE); 4];
    let bound = line(&hops, 1_060_000).as_secs_f64() * 1_000.0;
    assert_eq!(bound.round() as u64, 370);
}

#[test]
fn a_hop_without_limit_takes_its_delay() {
    assert_eq!(hop(DELAY, 1_000_000, None), DELAY);
    assert_eq!(
        line(&[(DELAY, None), (DELAY, REFERENCE)], 6_250),
        DELAY * 2 + Duration::from_millis(1)
    );
}

#[test]
fn swarms_are_bound_by_source_receiver_or_all_together() {
    let mega = Some(1_000_000);
    // Ten receivers of 1 MB. A slow source: 2 s.
    let fast: Vec<_> = (0..10).map(|_| (1_000_000, mega, None)).collect();
    assert_eq!(swarm(Some(500_000), &fast), Duration::from_secs(2));
    // A slow receiver: 4 s.
    let mut one_slow = fast.clone();
    one_slow[3].2 = Some(250_000);
    assert_eq!(swarm(mega, &one_slow), Duration::from_secs(4));
    // Receivers that hardly send: 10 MB over 1 MB/s and ten times 25 kB/s.
    let selfish: Vec<_> = (0..10).map(|_| (1_000_000, Some(25_000), None)).collect();
    assert_eq!(swarm(mega, &selfish), Duration::from_secs(8));
    assert_eq!(swarm(None, &[]), Duration::ZERO);
}

#[test]
fn a_network_is_bound_by_its_narrowest_cut() {
    let mut network = Network {
        nodes: 4,
        ..Network::default()
    };
    // Two ways from 0 to 3: the short one is slow, the long one fast.
    for (from, to, millis, rate) in [
        (0, 3, 10, 1_000_000),
        (0, 1, 20, 5_000_000),
        (1, 2, 20, 2_000_000),
        (2, 3, 20, 5_000_000),
    ] {
        network
            .links
            .push((from, to, Duration::from_millis(millis), Some(rate)));
    }
    let bounds = network.bounds(0, &[3_000_000; 4]);
    assert_eq!(bounds[3], Some(Duration::from_millis(1_010)));
    assert_eq!(bounds[2], Some(Duration::from_millis(1_540)));
    assert_eq!(bounds[0], Some(Duration::ZERO));
    network.down = vec![None, None, None, Some(1_500_000)];
    assert_eq!(
        network.bounds(0, &[3_000_000; 4])[3],
        Some(Duration::from_millis(2_010))
    );
    network.links.clear();
    assert_eq!(network.bounds(0, &[3_000_000; 4])[3], None);
}

/// The narrowest cut, by trying all of them.
fn narrowest(nodes: usize, arcs: &[(usize, usize, u32)]) -> u64 {
    (0..1_u32 << nodes)
        .filter(|side| side & 1 == 1 && side >> (nodes - 1) & 1 == 0)
        .map(|side| {
            let crosses = |&&(from, to, _): &&(usize, usize, u32)| {
                side >> from & 1 == 1 && side >> to & 1 == 0
            };
            arcs.iter()
                .filter(crosses)
                .map(|&(_, _, capacity)| u64::from(capacity))
                .sum()
        })
        .min()
        .expect("there is a cut")
}

/// How long a swarm takes at least, by trying every set of receivers: what they need has to come from the source and
/// from whoever sends.
fn swarm_by_sets(source: u64, receivers: &[(u64, u64, u64)]) -> f64 {
    let all_up: u64 = source + receivers.iter().map(|(_, up, _)| up).sum::<u64>();
    let needed: u64 = receivers.iter().map(|(bytes, ..)| bytes).sum();
    let mut longest = needed as f64 / all_up as f64;
    for &(bytes, _, down) in receivers {
        longest = longest
            .max(bytes as f64 / source as f64)
            .max(bytes as f64 / down as f64);
    }
    longest
}

proptest! {
    #[test]
    fn the_greatest_flow_is_the_narrowest_cut(
        nodes in 2usize..8,
        arcs in prop::collection::vec((0usize..8, 0usize..8, 0u32..100), 0..30),
    ) {
        let arcs: Vec<_> = arcs.into_iter().map(|(from, to, rate)| (from % nodes, to % nodes, rate)).collect();
        let mut network = FlowNetwork::new(nodes);
        for &(from, to, capacity) in &arcs {
            network.add(from, to, f64::from(capacity));
        }
        let flow = network.greatest(0, nodes - 1);
        prop_assert_eq!(flow.round() as u64, narrowest(nodes, &arcs));
    }

    #[test]
    fn the_swarm_bound_is_the_greatest_of_its_parts(
        source in 1u64..1_000,
        receivers in prop::collection::vec((1u64..10_000, 1u64..1_000, 1u64..1_000), 1..9),
    ) {
        let given: Vec<_> = receivers.iter().map(|&(bytes, up, down)| (bytes, Some(up), Some(down))).collect();
        let bound = swarm(Some(source), &given).as_secs_f64();
        let expected = swarm_by_sets(source, &receivers);
        prop_assert!((bound / expected - 1.0).abs() < 1e-6, "{bound} {expected}");
    }

    #[test]
    fn who_needs_less_waits_for_nobody_who_needs_more(
        source in 1u64..1_000,
        receivers in prop::collection::vec((0u64..20, 1u64..1_000, 1u64..1_000), 1..9),
    ) {
        let given: Vec<_> = receivers.iter().map(|&(bytes, up, down)| (bytes, Some(up), Some(down))).collect();
        let bounds = swarms(Some(source), given);
        for &(needs, ..) in &receivers {
            // The others need nothing, and send all the same.
            let alike: Vec<_> = receivers
                .iter()
                .map(|&(bytes, up, down)| (if bytes <= needs { bytes } else { 0 }, up, down))
                .collect();
            let expected = swarm_by_sets(source, &alike);
            let bound = bounds[&needs].as_secs_f64();
            prop_assert!((bound - expected).abs() < 1e-6 * expected.max(1e-3), "{bound} {expected}");
        }
    }

    #[test]
    fn a_line_is_the_same_seen_as_a_network(
        hops in prop::collection::vec((0u64..100, 1u64..10_000_000), 1..7), bytes in 1u64..10_000_000,
    ) {
        let hops: Vec<_> = hops.into_iter().map(|(millis, rate)| (Duration::from_millis(millis), Some(rate))).collect();
        let mut network = Network { nodes: hops.len() + 1, ..Network::default() };
        for (node, &(delay, rate)) in hops.iter().enumerate() {
            network.links.push((node, node + 1, delay, rate));
        }
        let bound = network.bounds(0, &vec![bytes; hops.len() + 1])[hops.len()].expect("joined");
        let expected = line(&hops, bytes);
        prop_assert!(bound.abs_diff(expected) < Duration::from_micros(1), "{bound:?} {expected:?}");
    }
}
