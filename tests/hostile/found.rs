//! What swarms of the simulator found in the engine, each as small as it gets.

use blocktorrent::sim::NodeOptions;

use super::super::*;

/// Each of them is asked in turn; a round must not take the longer the more of them there are in it.
#[test]
fn many_that_claim_all_and_say_nothing_cost_seconds_and_not_minutes() {
    let mut config = NodeOptions::default().config;
    config.push_level = 0;
    let mut rig = Rig::with(1, block(300), config);
    for _ in 0..16 {
        let raw = rig.connect();
        let header = rig.truth.header;
        rig.send(raw, &Message::OpenJob(open(&header, 300)));
    }
    rig.run(Duration::from_secs(1));
    rig.add_honest();
    rig.submit();
    rig.completes_within(Duration::from_secs(30));
    assert_eq!(rig.honest_score(), 0);
}

/// Hashes that a liar gave lie beside transactions that are true: together they do not fold. Who brought the last
/// transaction is not the one that lied.
#[test]
fn who_is_true_beside_a_liar_is_not_blamed() {
    let (mut rig, liar) = opened(2, 500, |_| {});
    anchor(&mut rig, liar);
    let junk = rows((0..500_u16).map(|leaf| [leaf as u8 ^ 0x55; 32]).collect());
    let lies = rig.truth.hashes(JOB, &junk, 4, (9, 128..160));
    rig.send_bytes(liar, lies);
    let other = rig.connect();
    let header = rig.truth.header;
    rig.send(other, &Message::OpenJob(open(&header, 500)));
    rig.run(MILLIS(30));
    for first in (128..256_u32).step_by(8) {
        let some: Vec<&[u8]> = (first..first + 8)
            .map(|leaf| rig.truth.transactions[leaf as usize].as_slice())
            .collect();
        let frames = txs(first, &some);
        rig.send_bytes(other, frames);
    }
    rig.run(MILLIS(100));
    assert_eq!(rig.score(other), 0, "{:?}", rig.victim.totals().refused);
    honest_completes(&mut rig);
}
