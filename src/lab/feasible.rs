//! What of a scenario the lab can do.

use crate::sim::scenario::{AdversaryKind, EventKind, NodeSpec, ScenarioError};
use crate::sim::{Scenario, Trial};
use crate::study::source::senseless;

/// Nodes of a scenario at most: each is a process, and more than this share the processors of no usual machine without
/// being measured instead of their links.
pub const MAX_NODES: usize = 64;
/// Bytes of a block at most: a node takes what Bitcoin's rules allow, which is this much.
pub const MAX_BLOCK_BYTES: u64 = 4_000_000;

/// Time for joining at least, in milliseconds: with less, the simulator's nodes are not joined yet when the block comes,
/// whatever the links, and the two worlds do not do the same.
const LEAST_SETTLE_MS: f64 = 10.0;

/// Refuses a TCP connection between nodes that no link joins.
///
/// # Errors
///
/// One line: which nodes.
pub fn check_beside(trial: &Trial, (from, to): (usize, usize)) -> Result<(), ScenarioError> {
    let edges = &trial.plan.edges;
    match edges.contains(&(from.min(to), from.max(to))) {
        true => Ok(()),
        false => Err(senseless(format!(
            "no link joins nodes {from} and {to}; give two neighbours of the scenario to --tcp-beside"
        ))),
    }
}

/// Says in a line why the lab can't run a scenario, and what to do.
///
/// # Errors
///
/// It can't.
pub fn check(scenario: &Scenario) -> Result<(), ScenarioError> {
    match problem(scenario) {
        None => Ok(()),
        Some(problem) => Err(refusal(scenario, &problem)),
    }
}

/// Says in a line why the lab can't run a scenario with the blocks that were drawn, and what to do.
///
/// # Errors
///
/// It can't.
pub fn check_blocks(trial: &Trial) -> Result<(), ScenarioError> {
    let mut blocks = trial.blocks.iter().map(|block| block.workload.block.len());
    let too_large = blocks.find(|bytes| *bytes as u64 > MAX_BLOCK_BYTES);
    match too_large {
        None => Ok(()),
        Some(bytes) => Err(refusal(
            &trial.scenario,
            &format!(
                "a block of seed {} has {bytes} bytes, which is more than Bitcoin's rules and so a node allow; give --set block.bytes={MAX_BLOCK_BYTES} or less, fewer block.transactions, or another block.file",
                trial.seed
            ),
        )),
    }
}

/// A refusal, as `sim` words its own.
pub fn refusal(scenario: &Scenario, problem: &str) -> ScenarioError {
    ScenarioError {
        file: scenario.name.clone(),
        line: None,
        problem: format!("the lab can't do this: {problem}"),
    }
}

fn problem(scenario: &Scenario) -> Option<String> {
    let nodes = scenario.topology.nodes;
    if nodes > MAX_NODES {
        return Some(format!(
            "{nodes} nodes would be {nodes} processes, and it has at most {MAX_NODES}; give --set topology.nodes={MAX_NODES} or less, or use `blocktorrent sim run`"
        ));
    }
    if let Some(bytes) = scenario
        .block
        .bytes
        .filter(|bytes| *bytes > MAX_BLOCK_BYTES)
    {
        return Some(format!(
            "a block of {bytes} bytes is more than Bitcoin's rules and so a node allow; give --set block.bytes={MAX_BLOCK_BYTES} or less"
        ));
    }
    if scenario.clock.skew_ms != 0.0 {
        return Some(
            "all processes of a machine have one clock; give --set clock.skew_ms=0".to_owned(),
        );
    }
    let settle_ms = scenario.limit.settle_ms;
    if settle_ms < LEAST_SETTLE_MS {
        return Some(format!(
            "its nodes are joined before a block is handed in, which takes the simulator's more than {settle_ms} ms; give --set limit.settle_ms=1000"
        ));
    }
    let usual = NodeSpec::default().max_datagram;
    if scenario.node.max_datagram != usual {
        return Some(format!(
            "a node has no option for node.max_datagram; leave it at {usual} and give link.mtu"
        ));
    }
    for (key, mbit) in [
        ("max_up_mbit", scenario.node.max_up_mbit),
        ("max_down_mbit", scenario.node.max_down_mbit),
    ] {
        if mbit.fract() != 0.0 {
            return Some(format!(
                "a node's {key} is in whole Mbit/s; give --set node.{key}={}",
                mbit.ceil()
            ));
        }
    }
    let alters = AdversaryKind::AltersTransactions;
    if scenario
        .adversary
        .iter()
        .any(|adversary| adversary.kind != alters)
    {
        return Some(
            "of adversaries a node can only be one that alters transactions; use `blocktorrent sim run`"
                .to_owned(),
        );
    }
    if scenario
        .event
        .iter()
        .any(|event| event.kind == EventKind::Cut)
    {
        return Some(
            "it has no hand in the kernel's connections, so `cut` can't be; use link-down and link-up".to_owned(),
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::standard;

    fn refused(toml: &str) -> String {
        let toml = format!("name = 'mine'\n{toml}");
        let scenario = Scenario::with_changes("mine", &toml, &[]).expect("a scenario");
        check(&scenario).expect_err(&toml).to_string()
    }

    #[test]
    fn what_it_cannot_do_is_told_with_what_to_do() {
        for (toml, says) in [
            ("[topology]\nnodes = 65", "give --set topology.nodes=64"),
            ("[block]\nbytes = 4000001", "give --set block.bytes=4000000"),
            ("[limit]\nsettle_ms = 0", "give --set limit.settle_ms=1000"),
            ("[clock]\nskew_ms = 1", "give --set clock.skew_ms=0"),
            ("[node]\nmax_datagram = 1200", "leave it at 1472"),
            ("[node]\nmax_up_mbit = 1.5", "node.max_up_mbit=2"),
            (
                "[[adversary]]\nkind = 'floods'\n[topology]\nnodes = 5\nkind = 'mesh'",
                "alters transactions",
            ),
            (
                "[[event]]\nat_ms = 1\nkind = 'cut'\nbetween = [0, 1]",
                "use link-down",
            ),
        ] {
            let refused = refused(toml);
            assert!(
                refused.starts_with("mine: the lab can't do this: ") && refused.contains(says),
                "{refused}"
            );
        }
    }

    #[test]
    fn a_block_that_turns_out_too_large_is_told() {
        let of = |transactions: u32| {
            let toml = format!("name = 'mine'\n[block]\ntransactions = {transactions}");
            let scenario = Scenario::with_changes("mine", &toml, &[]).expect("a scenario");
            check_blocks(&Trial::new(&scenario, 3, None).expect("a trial"))
        };
        assert_eq!(of(5_000), Ok(()));
        let refused = of(20_000).expect_err("nine megabytes").to_string();
        assert!(
            refused.contains("a block of seed 3 has")
                && refused.contains("fewer block.transactions"),
            "{refused}"
        );
    }

    #[test]
    fn it_can_do_the_small_standard_scenarios() {
        for name in [
            "warm-100-loss-1",
            "warm-99-loss-1",
            "wild",
            "cold-loss-5",
            "line-8-cold",
            "liars",
            "partition",
            "race",
        ] {
            let text = standard::text(name).expect(name);
            let scenario = Scenario::with_changes(name, text, &[]).expect(name);
            assert_eq!(check(&scenario), Ok(()), "{name}");
        }
    }
}
