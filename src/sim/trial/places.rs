//! Links, access, clocks, and where adversaries are.

use std::collections::BTreeMap;

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use super::super::link::LinkOptions;
use super::super::scenario::{AdversaryKind, LinkChange, Scenario};
use super::super::topology::{Plan, in_one_piece};
use super::{Access, millis, rate};

/// How each edge behaves, from the lower number to the higher and back.
pub(super) fn links(scenario: &Scenario, plan: &Plan) -> Vec<[LinkOptions; 2]> {
    let mut links = Vec::with_capacity(plan.edges.len());
    for (index, &(low, high)) in plan.edges.iter().enumerate() {
        let distance = plan.delays.get(index).copied();
        let path = scenario
            .path
            .iter()
            .find(|path| path.between == [low, high] || path.between == [high, low]);
        // From the lower number to the higher, then back.
        let both = [false, true].map(|back| {
            let mut link = scenario.link.clone();
            if back {
                link = link.changed(&scenario.link.back);
            }
            let mut delay = distance;
            if let Some(path) = path {
                let against = back == (path.between == [low, high]);
                let unchanged = LinkChange::default();
                for change in [&path.link, if against { &path.back } else { &unchanged }] {
                    link = link.changed(change);
                    delay = change.delay_ms.map(millis).or(delay);
                }
            }
            link.options(delay)
        });
        links.push(both);
    }
    links
}

/// What lies between each node and its links.
pub(super) fn access(scenario: &Scenario) -> Vec<Access> {
    let spec = &scenario.access;
    let of = |node: usize| {
        let except = spec
            .except
            .iter()
            .find(|except| except.nodes.contains(&node));
        let up = except
            .and_then(|except| except.up_mbit)
            .unwrap_or(spec.up_mbit);
        let down = except
            .and_then(|except| except.down_mbit)
            .unwrap_or(spec.down_mbit);
        Access {
            up_bytes_per_s: rate(up),
            down_bytes_per_s: rate(down),
            queue: millis(spec.queue_ms),
        }
    };
    (0..scenario.topology.nodes).map(of).collect()
}

/// How far clocks are ahead, in nanoseconds.
pub(super) fn skews(scenario: &Scenario, random: &mut StdRng) -> Vec<i64> {
    let most = millis(scenario.clock.skew_ms).as_nanos() as i64;
    (0..scenario.topology.nodes)
        .map(|_| match most {
            0 => 0,
            most => random.random_range(-most..=most),
        })
        .collect()
}

/// Puts adversaries where honest nodes stay joined to each other; never where blocks are handed in.
pub(super) fn adversaries(
    scenario: &Scenario,
    plan: &Plan,
    sources: &[usize],
    random: &mut StdRng,
) -> Result<BTreeMap<usize, AdversaryKind>, String> {
    let mut placed = BTreeMap::new();
    for adversary in &scenario.adversary {
        for &node in &adversary.nodes {
            if sources.contains(&node) {
                return Err(format!(
                    "adversary: a block is handed in at node {node}; name another"
                ));
            }
            placed.insert(node, adversary.kind);
        }
    }
    for adversary in scenario
        .adversary
        .iter()
        .filter(|adversary| adversary.nodes.is_empty())
    {
        let mut free: Vec<usize> = (0..plan.nodes)
            .filter(|node| !sources.contains(node) && !placed.contains_key(node))
            .collect();
        free.shuffle(random);
        for _ in 0..adversary.count {
            let spared = free.iter().position(|&node| can_spare(plan, &placed, node));
            let Some(place) = spared else {
                return Err(format!(
                    "adversary: {} of a {:?} of {} nodes would cut honest nodes off; give fewer, or another topology",
                    placed.len() + 1,
                    scenario.topology.kind,
                    plan.nodes
                ));
            };
            placed.insert(free.swap_remove(place), adversary.kind);
        }
    }
    Ok(placed)
}

/// Whether the honest nodes are in one piece without the one at `node`.
fn can_spare(plan: &Plan, placed: &BTreeMap<usize, AdversaryKind>, node: usize) -> bool {
    let honest = |at: usize| at != node && !placed.contains_key(&at);
    let numbers: Vec<Option<usize>> = (0..plan.nodes)
        .scan(0, |next, at| {
            Some(honest(at).then(|| {
                *next += 1;
                *next - 1
            }))
        })
        .collect();
    let number = |at: usize| numbers.get(at).copied().flatten();
    let edges: Vec<(usize, usize)> = plan
        .edges
        .iter()
        .filter_map(|&(one, other)| Some((number(one)?, number(other)?)))
        .collect();
    in_one_piece(numbers.iter().flatten().count(), &edges)
}
