use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::sim::Scenario;

const START: Time = Time::from_unix_seconds(5);

fn trial(toml: &str) -> Trial {
    let scenario = Scenario::with_changes("test", toml, &[]).expect("a scenario");
    Trial::new(&scenario, 3, None).expect("a trial")
}

/// A packet of a kernel with so many bytes of payload.
fn packet(from: usize, to: usize, protocol: u8, payload: usize) -> Vec<u8> {
    let header = if protocol == TCP { 32 } else { UDP_HEADER };
    let mut bytes = vec![0; 20 + header + payload];
    bytes[0] = 0x45;
    bytes[9] = protocol;
    bytes[12..16].copy_from_slice(&address_of(from).octets());
    bytes[16..20].copy_from_slice(&address_of(to).octets());
    if protocol == TCP {
        bytes[32] = 8 << 4;
    } else {
        bytes[26..28].fill(0xee);
    }
    bytes
}

fn all(switch: &mut Switch) -> Vec<Delivery> {
    let mut given = Vec::new();
    while let Some(now) = switch.next_due() {
        given.extend(switch.give(now));
    }
    given
}

proptest! {
    /// The same schedule through the switch and through the simulator's link itself.
    #[test]
    fn packets_arrive_when_the_link_of_the_simulator_says(
        gaps in prop::collection::vec((0_u64..400, 0_usize..1_473), 1..200),
        loss in 0.0_f64..0.3,
        jitter_ms in 0_u32..20,
        duplicate in 0.0_f64..0.3,
    ) {
        let trial = trial(&format!(
            "[link]\ndelay_ms = 7\nrate_mbit = 20\nqueue_ms = 5\nburst = 2\nloss = {loss}\njitter_ms = {jitter_ms}\n\
             duplicate = {duplicate}\nreorder = 0.1",
        ));
        let mut switch = Switch::new(&trial);
        let mut random = StdRng::seed_from_u64(trial.seed ^ 0x6c61_6200);
        let mut link = Link::new(trial.links[0][0].clone());
        let mut now = START;
        let mut expected = Vec::new();
        for (gap, payload) in gaps {
            now = now + Duration::from_micros(gap);
            switch.take(now, 0, &packet(0, 1, UDP, payload));
            let arrivals = link.datagram(now, payload, &mut random);
            expected.extend(arrivals.into_iter().flatten().map(|arrival| (arrival.at, payload)));
        }
        expected.sort_by_key(|(at, _)| *at);
        let given: Vec<_> = all(&mut switch).iter().map(|it| (it.due, it.bytes.len() - 28)).collect();
        prop_assert_eq!(given, expected);
        prop_assert_eq!(switch.held_bytes, 0);
    }

    /// Whatever a kernel hands over, nothing panics, and nothing is held that is not for a neighbour.
    #[test]
    fn any_bytes_may_come(bytes in prop::collection::vec(any::<u8>(), 0..80), from in 0_usize..4) {
        let mut switch = Switch::new(&trial("[link]\ncorrupt = 1"));
        switch.take(START, from, &bytes);
        let counts = switch.counts();
        prop_assert_eq!(counts.taken + counts.stray, 1);
    }
}

#[test]
fn uplink_link_and_downlink_come_one_after_another() {
    let trial = trial(
        "[link]\ndelay_ms = 10\nrate_mbit = 0\n[access]\nup_mbit = 8\ndown_mbit = 4\nqueue_ms = 4",
    );
    let mut switch = Switch::new(&trial);
    for _ in 0..6 {
        switch.take(START, 0, &packet(0, 1, TCP, 948));
    }
    let given: Vec<u64> = all(&mut switch)
        .iter()
        .map(|it| (it.due - START).as_millis() as u64)
        .collect();
    // A thousand bytes take 1 ms up and 2 ms down; four fit before the uplink, two thousand bytes before the downlink.
    assert_eq!(given, [13, 15, 17]);
    assert_eq!(switch.counts().overflowed, 3);
    let traffic = switch.traffic();
    assert_eq!(
        (traffic[0].bytes_out, traffic[1].bytes_in),
        (6 * 948, 3 * 948)
    );
}

#[test]
fn only_neighbours_are_joined_and_faults_part_them() {
    let mut switch = Switch::new(&trial("[topology]\nnodes = 3\n[link]\nudp = false"));
    let passes = |switch: &mut Switch, from, to, protocol| {
        switch.take(START, from, &packet(from, to, protocol, 100));
        all(switch).len() == 1
    };
    assert!(passes(&mut switch, 0, 1, TCP) && passes(&mut switch, 2, 1, TCP));
    assert!(!passes(&mut switch, 0, 2, TCP) && !passes(&mut switch, 0, 1, UDP));
    switch.partition(&[2]);
    assert!(passes(&mut switch, 0, 1, TCP) && !passes(&mut switch, 1, 2, TCP));
    switch.heal();
    switch.set_up(0, 1, false);
    assert!(!passes(&mut switch, 1, 0, TCP) && passes(&mut switch, 1, 2, TCP));
    switch.heal();
    switch.change(
        (0, 1),
        &LinkChange {
            udp: Some(true),
            mtu: Some(127),
            ..LinkChange::default()
        },
    );
    assert!(!passes(&mut switch, 0, 1, UDP) && !passes(&mut switch, 1, 0, UDP));
    assert_eq!((switch.counts().too_long, switch.counts().stray), (1, 1));
}

#[test]
fn what_is_corrupted_passes_for_whole_at_the_kernel() {
    let mut switch = Switch::new(&trial("[link]\ncorrupt = 1"));
    let sent = packet(0, 1, UDP, 100);
    switch.take(START, 0, &sent);
    let given = all(&mut switch);
    let bytes = &given[0].bytes;
    assert_eq!((&bytes[26..28], &bytes[..26]), (&[0, 0][..], &sent[..26]));
    let flipped: u32 = bytes[28..].iter().map(|byte| byte.count_ones()).sum();
    assert_eq!(flipped, 1);
    switch.take(START, 0, &packet(0, 1, TCP, 100));
    assert!(all(&mut switch).is_empty(), "TCP's checksum shows it");
}
