use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;
use crate::time::Time;

const DELAY: Duration = Duration::from_millis(50);
const BEGIN: Time = Time::from_unix_seconds(9);

/// A path without a rate: each packet takes the delay, and perhaps more; some are lost, either way.
struct Path {
    loss: f64,
    jitter: Duration,
    random: StdRng,
}

enum Packet {
    Data(Segment),
    Ack(Ack),
    Write(u64),
}

impl Path {
    fn new(loss: f64, jitter_ms: u64, seed: u64) -> Self {
        Self {
            loss,
            jitter: Duration::from_millis(jitter_ms),
            random: StdRng::seed_from_u64(seed),
        }
    }

    fn arrival(&mut self, now: Time) -> Option<Time> {
        let late = self.jitter.mul_f64(self.random.random());
        (!self.random.random_bool(self.loss)).then(|| now + DELAY + late)
    }

    /// Sends what is written at those times, in milliseconds; when each byte count is there in order, and the segments
    /// that were sent.
    fn carry(&mut self, control: Control, writes: &[(u64, u64)]) -> (Vec<Duration>, usize) {
        let mut sender = Sender::new(control, 3, DELAY * 2);
        let mut receiver = Receiver::default();
        let mut waiting: BTreeMap<(Time, usize), Packet> = BTreeMap::new();
        for (number, &(at, bytes)) in writes.iter().enumerate() {
            let at = BEGIN + Duration::from_millis(at);
            waiting.insert((at, number), Packet::Write(bytes));
        }
        let mut ends = Vec::new();
        let mut done = Vec::new();
        let (mut order, mut sent, mut there) = (writes.len(), 0, Vec::new());
        let all: u64 = writes.iter().map(|(_, bytes)| bytes).sum();
        for _ in 0..200_000 {
            let timer = sender.deadline();
            let next = waiting.keys().next().map(|(at, _)| *at);
            let Some(now) = [timer, next].into_iter().flatten().min() else {
                break;
            };
            if next.is_some_and(|next| next <= now) {
                let (_, packet) = waiting.pop_first().expect("it was there");
                match packet {
                    Packet::Write(bytes) => ends.push(sender.write(bytes)),
                    Packet::Ack(ack) => sender.acknowledge(now, &ack),
                    Packet::Data(segment) => {
                        there.push(segment);
                        let ack = receiver.segment(segment);
                        assert!(ack.blocks.iter().all(|block| block.start > ack.next));
                        while done.len() < ends.len() && ends[done.len()] <= receiver.delivered() {
                            done.push(now - BEGIN);
                        }
                        order += 1;
                        if let Some(at) = self.arrival(now) {
                            waiting.insert((at, order), Packet::Ack(ack));
                        }
                    }
                }
            } else {
                sender.time_out(now);
            }
            assert!(sender.segments() >= 1);
            while let Some(segment) = sender.poll(now) {
                assert!(
                    segment.end - segment.start <= SEGMENT_BYTES && segment.start < segment.end
                );
                sent += 1;
                order += 1;
                if let Some(at) = self.arrival(now) {
                    waiting.insert((at, order), Packet::Data(segment));
                }
            }
            if sender.acknowledged() == all && ends.len() == writes.len() {
                break;
            }
        }
        assert_eq!(sender.acknowledged(), all, "not all was acknowledged");
        // An oracle of its own: every byte was in some segment that came, and none beyond them.
        there.sort_by_key(|segment: &Segment| segment.start);
        let reached = there.iter().fold(0, |reached, segment| {
            assert!(segment.start <= reached, "a gap before {}", segment.start);
            reached.max(segment.end)
        });
        assert_eq!((reached, receiver.delivered()), (all, all));
        (done, sent)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_byte_arrives_once_in_order(
        loss in 0.0..0.3,
        jitter_ms in 0_u64..40,
        seed in any::<u64>(),
        cubic in any::<bool>(),
        writes in proptest::collection::vec((0_u64..4_000, 1_u64..200_000), 1..5),
    ) {
        let control = if cubic { Control::Cubic } else { Control::Bbr };
        let mut path = Path::new(loss, jitter_ms, seed);
        let (done, _) = path.carry(control, &writes);
        prop_assert_eq!(done.len(), writes.len());
        prop_assert!(done.windows(2).all(|pair| pair[0] <= pair[1]));
    }

    #[test]
    fn a_receiver_is_a_set_of_bytes(order in Just((0..12_usize).collect::<Vec<_>>()).prop_shuffle()) {
        let mut receiver = Receiver::default();
        let mut there = [false; 13];
        for index in order {
            let start = index as u64 * 10;
            let ack = receiver.segment(Segment { start, end: start + 10 });
            there[index] = true;
            let next = there.iter().position(|there| !there).unwrap_or(12) as u64;
            prop_assert_eq!(ack.next, next * 10);
            prop_assert_eq!(receiver.delivered(), next * 10);
            if start > ack.next {
                let newest = ack.blocks[0];
                prop_assert!(newest.start <= start && newest.end >= start + 10);
            }
        }
    }
}

#[test]
fn ten_segments_take_one_way_and_eleven_a_round_trip_more() {
    let ten = 10 * SEGMENT_BYTES;
    for (bytes, expected_ms) in [
        (ten, 50),
        (ten + 1, 150),
        (3 * ten, 150),
        (3 * ten + 1, 250),
    ] {
        let (done, _) = Path::new(0.0, 0, 1).carry(Control::Cubic, &[(0, bytes)]);
        assert_eq!(done, [Duration::from_millis(expected_ms)], "{bytes} bytes");
    }
}

#[test]
fn who_idles_starts_with_ten_segments_again_and_who_does_not_goes_on() {
    let thirty = 30 * SEGMENT_BYTES;
    for (pause_ms, expected_ms) in [(200, 50), (5_000, 150)] {
        let writes = [(0, thirty), (pause_ms, thirty)];
        let (done, _) = Path::new(0.0, 0, 1).carry(Control::Cubic, &writes);
        let took = done[1] - Duration::from_millis(pause_ms);
        assert_eq!(
            took,
            Duration::from_millis(expected_ms),
            "after {pause_ms} ms"
        );
    }
}

#[test]
fn bbr_spreads_its_first_window_over_a_third_of_a_round_trip() {
    let (done, _) = Path::new(0.0, 0, 1).carry(Control::Bbr, &[(0, 10 * SEGMENT_BYTES)]);
    // Ten segments a round trip, times 2.885, in pairs: the last of five pairs leaves after 28 ms.
    let took = done[0].as_millis();
    assert!((70..82).contains(&took), "{took} ms");
}

#[test]
fn loss_shrinks_the_window_of_cubic_and_not_the_rate_of_bbr() {
    let median = |control, loss| {
        let mut took: Vec<_> = (0..9)
            .map(|seed| Path::new(loss, 0, seed).carry(control, &[(0, 1_000_000)]).0[0])
            .collect();
        took.sort_unstable();
        took[4]
    };
    for control in [Control::Cubic, Control::Bbr] {
        let (without, with) = (median(control, 0.0), median(control, 0.02));
        match control {
            Control::Cubic => assert!(with > without * 4, "{without:?} {with:?}"),
            Control::Bbr => assert!(with < without * 3, "{without:?} {with:?}"),
        }
    }
}

#[test]
fn a_lost_tail_is_probed_before_the_time_out() {
    /// Loses the last of five segments once.
    fn last_byte_at(probe_only: bool) -> Duration {
        let mut sender = Sender::new(Control::Cubic, 0, DELAY * 2);
        let mut receiver = Receiver::default();
        sender.write(5 * SEGMENT_BYTES);
        let mut acks = Vec::new();
        while let Some(segment) = sender.poll(BEGIN) {
            if segment.end < 5 * SEGMENT_BYTES || !probe_only {
                acks.push(receiver.segment(segment));
            }
        }
        let now = BEGIN + DELAY * 2;
        for ack in &acks {
            sender.acknowledge(now, ack);
        }
        let at = sender.deadline().unwrap_or(now);
        sender.time_out(at);
        assert_eq!(sender.poll(at).is_some(), probe_only);
        at - BEGIN
    }
    // Two round trips after the last acknowledgement, one segment being out: and 200 ms for an acknowledgement that waits.
    assert!(last_byte_at(true) <= Duration::from_millis(500));
    assert_eq!(last_byte_at(false), DELAY * 2);
}
