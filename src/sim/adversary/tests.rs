use std::collections::BTreeMap;
use std::time::Duration;

use super::super::protocol::world_of;
use super::super::scenario::Scenario;
use super::super::trial::Trial;
use super::super::world::World;
use super::*;
use crate::relay::Event;

/// A ring of four, in which the short way from the block to the node across leads through the second, who means harm;
/// ten seconds after the block was whole everywhere.
fn harmed(kind: AdversaryKind, overlap: f64) -> World {
    let name = toml::Value::try_from(kind).expect("a name");
    let text = format!(
        "[topology]\nkind='ring'\nnodes=4\n[block]\nbytes=120000\n[mempool]\noverlap={overlap}\n\
         [link]\ndelay_ms=40\n[[path]]\nbetween=[0,1]\nlink={{delay_ms=5}}\n[[path]]\nbetween=[1,2]\n\
         link={{delay_ms=5}}\n[[adversary]]\nkind={name}\nnodes=[{HARMFUL}]"
    );
    let scenario = Scenario::from_toml("test", &text).expect("a scenario");
    let trial = Trial::new(&scenario, 3, None).expect("a trial");
    let mut world = world_of(&trial);
    let workload = &trial.blocks[0].workload;
    world.submit(0, workload, Duration::ZERO);
    assert!(
        world.run_until_complete(workload, Duration::from_secs(60)),
        "{kind:?}"
    );
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.violations(), [], "{kind:?}");
    assert!(world.compared() > 50, "{kind:?}: {}", world.compared());
    world
}

const HARMFUL: usize = 1;
const HONEST: [usize; 3] = [0, 2, 3];

/// What the honest nodes refused, by reason.
fn refused(world: &World) -> BTreeMap<&'static str, u64> {
    let mut sums = BTreeMap::new();
    for node in HONEST {
        for (reason, count) in world.engine(node).expect("honest").totals().refused {
            *sums.entry(reason).or_default() += count;
        }
    }
    sums
}

/// Each does what it is there for, as those who suffer it count, and harms nobody.
#[test]
fn each_kind_is_felt_and_survived() {
    use AdversaryKind as Kind;
    for (kind, overlap, reasons) in [
        (
            Kind::AltersHashes,
            0.0,
            &["hashes", "branch", "commitment"][..],
        ),
        (
            Kind::AltersTransactions,
            0.0,
            &["leaf", "coinbase", "transaction"],
        ),
        (Kind::AltersWitnesses, 0.0, &["leaf", "coinbase"]),
        (Kind::FalseCount, 0.5, &["count", "limits"]),
        (Kind::FalseShortIds, 0.95, &["short-ids"]),
        (Kind::SpoilsParity, 0.98, &["parity"]),
        // Who lacks everything is pushed everything, and hardly notices.
        (Kind::Withholds, 0.5, &["withheld"]),
        (Kind::ManyIdentities, 0.5, &["withheld"]),
        (Kind::Replays, 0.5, &["replay"]),
        (Kind::Spoofs, 0.5, &["address"]),
        (Kind::Spoofs, 0.5, &["mac"]),
        (Kind::Spoofs, 0.5, &["connection-id"]),
        (Kind::OpensJobs, 0.5, &["unknown-parent"]),
        (Kind::OpensJobs, 0.5, &["header", "job-reused", "limits"]),
        (
            Kind::ClaimsImpossible,
            0.5,
            &["probe", "address-rate", "limits"],
        ),
    ] {
        let world = harmed(kind, overlap);
        let refused = refused(&world);
        let felt = reasons.iter().any(|reason| refused.contains_key(reason));
        assert!(felt, "{kind:?}: {refused:?}");
    }
    let flooded = refused(&harmed(Kind::Floods, 0.5));
    assert!(flooded.len() >= 5, "{flooded:?}");
}

#[test]
fn one_that_trickles_sends_a_datagram_a_second() {
    let world = harmed(AdversaryKind::Trickles, 0.0);
    let seconds = world.elapsed().as_secs();
    let sent = world.traffic_of(HARMFUL).datagrams_out;
    assert!((3..=seconds + 2).contains(&sent), "{sent}");
}

#[test]
fn many_identities_stand_at_once() {
    let world = harmed(AdversaryKind::ManyIdentities, 0.5);
    let peers = world.engine(0).expect("honest").peers(world.now());
    let established = peers.iter().filter(|peer| peer.established).count();
    assert_eq!(established, 1 + IDENTITIES);
}

#[test]
fn forged_blocks_are_taken_as_far_as_they_prove_themselves() {
    let world = harmed(AdversaryKind::InvalidBlock, 0.5);
    let mut opened = std::collections::BTreeSet::new();
    let mut whole = 0;
    for node in HONEST {
        for (_, event) in world.events(node) {
            match event {
                Event::JobOpened { block, .. } => {
                    opened.insert(*block);
                }
                Event::BlockComplete { .. } => whole += 1,
                _ => {}
            }
        }
    }
    assert_eq!(opened.len(), 2, "the block and the forged one");
    assert!(whole >= HONEST.len());
    let flaws: Vec<Flaw> = (0..40)
        .map(|seed| Forged::new(seed).expect("made").flaw)
        .collect();
    for flaw in [Flaw::Refused, Flaw::Commitment, Flaw::TxidTree] {
        assert!(flaws.contains(&flaw), "{flaw:?}");
    }
}

/// Every kind of forged block: refused by the Bitcoin node, without a commitment that holds, of two trees.
#[test]
fn every_flaw_is_found_and_nobody_honest_blamed() {
    for flaw in [Flaw::Refused, Flaw::Commitment, Flaw::TxidTree] {
        let seed = (0..100)
            .find(|seed| Forged::new(seed ^ 2).expect("made").flaw == flaw)
            .expect("one of a hundred");
        let text = "[topology]\nkind='line'\nnodes=3\n[block]\nbytes=50000\n[[adversary]]\nkind='valid-work-invalid-block'\nnodes=[2]";
        let scenario = Scenario::from_toml("test", text).expect("a scenario");
        let trial = Trial::new(&scenario, seed, None).expect("a trial");
        let mut world = world_of(&trial);
        world.run_for(Duration::from_secs(30));
        assert_eq!(world.violations(), [], "{flaw:?}");
        let closed = |node: usize| {
            let events = world.events(node).iter();
            events
                .filter(|(_, event)| matches!(event, Event::JobClosed { .. }))
                .count()
        };
        let opened = world
            .events(0)
            .iter()
            .any(|(_, event)| matches!(event, Event::JobOpened { .. }));
        match flaw {
            // It came to both, and both gave it up.
            Flaw::Refused | Flaw::TxidTree => {
                assert!(opened, "{flaw:?}");
                assert!(closed(0) > 0 || closed(1) > 0, "{flaw:?}");
            }
            // Nothing of it proves itself beyond its neighbour.
            Flaw::Commitment => assert!(!opened),
        }
    }
}
