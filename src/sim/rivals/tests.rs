use super::super::protocol::{self, Protocol};
use super::super::scenario::Scenario;
use super::super::standard;
use super::super::trial::Trial;

/// The links and the block that Bitcoin Core and FIBRE were measured with: 50 ms one way, 50 Mbit/s, 2,501 transactions,
/// 1.06 MB; blocks one after the other.
pub(super) fn measured_link(hops: usize, loss: f64, overlap: f64, blocks: u32) -> Scenario {
    let toml = format!(
        "[topology]\nkind = 'line'\nnodes = {}\n[link]\nloss = {loss}\n[mempool]\noverlap = {overlap}\n\
         [block]\ntransactions = 2501\nbytes = 1060000\ncount = {blocks}\nevery_ms = 10000\n",
        hops + 1
    );
    Scenario::from_toml("measured", &toml).expect("it makes sense")
}

/// For each seed the median over the blocks of when the last node had them, in milliseconds: the least of the medians,
/// the middle one, and the greatest.
pub(super) fn spread(protocol: &dyn Protocol, scenario: &Scenario, seeds: u64) -> [f64; 3] {
    let mut medians: Vec<f64> = (1..=seeds)
        .map(|seed| {
            let trial = Trial::new(scenario, seed, None).expect("it makes sense");
            let outcome = protocol.run(&trial, &mut |_| {});
            let last = |block: &super::super::outcome::BlockOutcome| {
                let part = block.nodes.last().expect("there are nodes");
                part.whole_ms.unwrap_or(f64::INFINITY)
            };
            let mut times: Vec<f64> = outcome.blocks.iter().map(last).collect();
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    [
        medians[0],
        medians[medians.len() / 2],
        medians[medians.len() - 1],
    ]
}

#[test]
fn protocols_bear_the_names_that_others_rely_on() {
    let names: Vec<&str> = protocol::ALL
        .iter()
        .map(|protocol| protocol.name())
        .collect();
    let expected = [
        "blocktorrent",
        "bip152-hb",
        "bip152-lb",
        "msg-block",
        "fibre-trusted",
        "fibre-untrusted",
    ];
    assert_eq!(names, expected);
    for protocol in protocol::every() {
        assert!(protocol::named(protocol.name()).is_some());
    }
}

#[test]
fn rivals_run_every_small_standard_scenario_and_beat_no_bound() {
    for scenario in standard::all()
        .into_iter()
        .filter(|scenario| scenario.topology.nodes <= 20)
    {
        let trial = Trial::new(&scenario, scenario.seed, None).expect("it makes sense");
        for protocol in protocol::ALL.iter().skip(1) {
            let outcome = protocol.run(&trial, &mut |_| {});
            let name = (&scenario.name, protocol.name());
            assert_eq!(outcome.nodes, trial.plan.nodes, "{name:?}");
            // FIBRE repeats nothing: what befalls its datagrams is lost for good, and where UDP does not pass, all.
            if !protocol.name().starts_with("fibre") {
                assert!(outcome.is_complete(), "{name:?}");
            }
            for part in outcome.parts() {
                assert!(
                    part.added_delay_ms().is_none_or(|added| added > -0.01),
                    "{name:?} {part:?}"
                );
            }
        }
    }
}
