//! A scenario with all that it leaves to defaults, and one with nothing else than what it does not.

use toml::{Table, Value};

use super::super::topology::{self, Plan, Topology};
use super::super::trial::{DEFAULT_BLOCK, DEFAULT_DELAY_MS, DEFAULT_QUEUE_MS, race};
use super::spec::Scenario;

/// Sessions that every node has room for unless told otherwise.
const USUAL_PEERS: usize = 64;

impl Scenario {
    /// The same study with every key said that has a value: also those whose default depends on others.
    pub fn spelled_out(&self) -> Self {
        let mut whole = self.clone();
        let plan = Plan::new(&whole.topology, whole.seed);
        let kind = whole.topology.kind;
        let spec = &mut whole.topology;
        let most = spec.nodes.saturating_sub(1);
        let degree = topology::DEFAULT_DEGREE.min(most);
        let near = matches!(kind, Topology::Regular | Topology::Geographic)
            || (kind == Topology::SmallWorld && degree.is_multiple_of(2));
        // A small world of a few nodes has a degree that nobody may ask for.
        if near && degree > 0 {
            spec.degree.get_or_insert(degree);
        }
        if kind == Topology::SmallWorld {
            spec.rewire.get_or_insert(topology::DEFAULT_REWIRE);
        }
        if kind == Topology::Geographic {
            spec.stretch.get_or_insert(topology::DEFAULT_STRETCH);
            spec.last_mile_ms
                .get_or_insert(topology::DEFAULT_LAST_MILE_MS);
        } else {
            whole.link.delay_ms.get_or_insert(DEFAULT_DELAY_MS);
        }
        if whole.link.queue_kb.is_none() {
            whole.link.queue_ms.get_or_insert(DEFAULT_QUEUE_MS);
        }
        let block = &mut whole.block;
        if block.file.is_none()
            && block.real.is_none()
            && block.bytes.is_none()
            && block.transactions.is_none()
        {
            block.bytes = Some(DEFAULT_BLOCK.0);
            block.transactions = Some(DEFAULT_BLOCK.1);
        }
        if block.from.is_empty() {
            block.from = race(block.racing as usize, whole.topology.nodes);
        }
        let most = plan.neighbours().iter().map(Vec::len).max();
        if most.is_none_or(|most| most <= USUAL_PEERS) {
            whole.node.max_peers.get_or_insert(USUAL_PEERS);
        }
        whole
    }

    /// As TOML, what is not as in a scenario of which nothing is said; without its name and what it is for.
    pub fn changes_to_toml(&self) -> String {
        let table = |scenario: &Self| -> Table {
            // A seed may be more than a signed number holds.
            let text = Self {
                seed: 0,
                name: String::new(),
                about: String::new(),
                ..scenario.clone()
            };
            toml::from_str(&text.to_toml()).expect("it was written by the same crate")
        };
        let changes = differing(table(self), &table(&Self::default()));
        let changes = toml::to_string(&changes).expect("it was read by the same crate");
        format!("seed = {}\n{changes}", self.seed)
    }
}

fn differing(table: Table, from: &Table) -> Table {
    let changed = |(key, value): (String, Value)| match (value, from.get(&key)) {
        (value, Some(usual)) if value == *usual => None,
        (Value::Table(inner), Some(Value::Table(usual))) => {
            let inner = differing(inner, usual);
            (!inner.is_empty()).then_some((key, Value::Table(inner)))
        }
        (value, _) => Some((key, value)),
    };
    table.into_iter().filter_map(changed).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::{Trial, standard};
    use super::*;

    #[test]
    fn what_is_spelled_out_is_the_same_study() {
        for scenario in standard::all() {
            let whole = scenario.spelled_out();
            let again = Scenario::from_toml("again", &whole.to_toml());
            assert_eq!(again.as_ref(), Ok(&whole), "{}", scenario.name);
            if scenario.topology.nodes > 20 {
                continue;
            }
            let seed = scenario.seed;
            let trial = |scenario| Trial::new(scenario, seed, None).expect("a trial");
            let (one, other) = (trial(&scenario), trial(&whole));
            assert_eq!(one.plan, other.plan);
            assert_eq!(one.links, other.links);
            for (one, other) in one.blocks.iter().zip(&other.blocks) {
                assert_eq!(one.workload.hash, other.workload.hash);
                assert_eq!((one.source, &one.lacked), (other.source, &other.lacked));
            }
        }
        let text = standard::text("warm-99-loss-1").expect("it is one");
        let warm = Scenario::from_toml("warm", text).expect("it makes sense");
        let shown = warm.spelled_out().to_toml();
        for says in [
            "delay_ms = 50.0",
            "queue_ms = 100.0",
            "bytes = 1060000",
            "transactions = 2500",
            "from = [0]",
            "max_peers = 64",
        ] {
            assert!(shown.contains(says), "{shown}\n  lacks  {says}");
        }
        let changes = warm.changes_to_toml();
        let lines: Vec<&str> = changes.lines().filter(|line| !line.is_empty()).collect();
        let expected = [
            "seed = 1",
            "runs = 20",
            "[block]",
            "count = 10",
            "unmeasured = 4",
            "[link]",
            "loss = 0.01",
            "[mempool]",
            "overlap = 0.99",
        ];
        assert_eq!(lines, expected);
    }
}
