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

#[test]
fn a_large_network_is_bound_at_its_ends_as_a_small_one_is() {
    // A ring, whose narrowest cuts are around source and receiver.
    let ring = |nodes: usize| {
        let mut network = Network {
            nodes,
            up: vec![Some(3_000_000); nodes],
            down: vec![Some(1_500_000); nodes],
            ..Network::default()
        };
        for node in 0..nodes {
            let next = (node + 1) % nodes;
            for (from, to) in [(node, next), (next, node)] {
                network.links.push((from, to, DELAY, Some(1_000_000)));
            }
        }
        network.bounds(0, &vec![3_000_000; nodes])
    };
    assert_eq!(ring(200)[..30], ring(60)[..30]);
}

#[test]
fn who_is_whole_later_is_bound_by_those_before() {
    let millis = |list: [u64; 4]| list.map(Duration::from_millis);
    let own = millis([0, 10, 10, 40]).map(Some);
    let ranks = millis([0, 5, 20, 30]);
    let bounds = |whole: [Option<f64>; 4]| ranked(&own, &ranks, &whole);
    let whole = [Some(0.0), Some(25.0), Some(12.0), Some(50.0)];
    assert_eq!(bounds(whole), millis([0, 20, 10, 40]).map(Some));
    // Who never has it comes last.
    let whole = [Some(0.0), None, Some(60.0), Some(50.0)];
    assert_eq!(bounds(whole), millis([0, 30, 20, 40]).map(Some));
    let unreached = [own[0], None, own[2], own[3]];
    let whole = [Some(0.0), None, Some(60.0), Some(50.0)];
    assert_eq!(
        ranked(&unreached, &ranks, &whole),
        [own[0], None, Some(Duration::from_millis(20)), own[3]]
    );
    assert_eq!(ranked(&own, &[], &whole), own);
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

    /// Whatever the order in which receivers are served, one after the other or side by side, none of them is sooner
    /// than its rank says; and the last is bound as the swarm is.
    #[test]
    fn ranks_bind_every_order_of_receivers(
        source in 1u64..1_000,
        receivers in prop::collection::vec((0u64..20, 1u64..1_000), 1..9),
        side_by_side in any::<bool>(),
    ) {
        let given: Vec<_> = receivers.iter().map(|&(bytes, up)| (bytes, Some(up))).collect();
        let bounds = ranks(Some(source), &given);
        let together = (source + receivers.iter().map(|(_, up)| up).sum::<u64>()) as f64;
        // At best all uplinks send all the time, and whoever is served is served by all of them.
        let mut whole = Vec::new();
        let (mut time, mut before) = (0.0, 0);
        let mut needs: Vec<u64> = receivers.iter().map(|(bytes, _)| *bytes).collect();
        if side_by_side {
            needs.sort_unstable();
        }
        let count = needs.len();
        for (place, need) in needs.into_iter().enumerate() {
            time += match side_by_side {
                true => ((need - before) * (count - place) as u64) as f64 / together,
                false => need as f64 / together,
            };
            before = need;
            whole.push(time);
        }
        for (whole, bound) in whole.iter().zip(&bounds) {
            prop_assert!(*whole + 1e-6 >= bound.as_secs_f64(), "{whole} {bound:?}");
        }
        let (last, bound) = (whole[count - 1], bounds[count - 1].as_secs_f64());
        prop_assert!((last - bound).abs() < 1e-6, "{last} {bound}");
        prop_assert!(ranks(None, &given).is_empty());
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
