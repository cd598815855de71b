//! The model against arithmetic done by hand, in virtual time.

use super::*;
use proptest::prelude::*;

const START: Time = Time::from_unix_seconds(1_700_000_000);

fn uplink(options: LinkOptions) -> Uplink {
    Uplink::new(options, 7).expect("the options are in range")
}

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn transparent_options_pass_everything_at_once() {
    let options = LinkOptions::default();
    assert!(options.is_transparent());
    let mut uplink = uplink(options);
    for _ in 0..10_000 {
        assert_eq!(uplink.datagram(START, 65_507), Fate::Arrives(START));
    }
    assert_eq!(uplink.segment(START, 1_448), StreamFate::Arrives(START));
    assert_eq!(uplink.backlog_bytes(START), 0);
}

#[test]
fn delay_alone_is_exact() {
    let mut uplink = uplink(LinkOptions {
        delay: milliseconds(50),
        ..LinkOptions::default()
    });
    for step in 0..100 {
        let now = START + Duration::from_micros(step * 37);
        assert_eq!(
            uplink.datagram(now, 1_200),
            Fate::Arrives(now + milliseconds(50))
        );
    }
}

#[test]
fn rate_is_exact_packet_by_packet() {
    // 1,222 bytes and 28 of headers are 10,000 bits: one millisecond at 10 Mbit/s.
    let mut uplink = uplink(LinkOptions {
        delay: milliseconds(20),
        rate_bits_per_s: Some(10_000_000),
        ..LinkOptions::default()
    });
    for packet in 1..=50 {
        assert_eq!(
            uplink.datagram(START, 1_222),
            Fate::Arrives(START + milliseconds(20 + packet))
        );
    }
    assert_eq!(uplink.backlog_bytes(START), 50 * 1_250);
    assert_eq!(uplink.backlog_bytes(START + milliseconds(30)), 20 * 1_250);
    // An idle link does not save up: the next packet takes its full time from then.
    let later = START + milliseconds(500);
    assert_eq!(
        uplink.datagram(later, 1_222),
        Fate::Arrives(later + milliseconds(21))
    );
}

#[test]
fn fractions_of_a_nanosecond_are_not_lost() {
    // 29 bytes at 7 bit per nanosecond do not divide; a million of them end within a nanosecond.
    let rate = 7_000_000_000;
    let mut uplink = uplink(LinkOptions {
        rate_bits_per_s: Some(rate),
        queue_bytes: Some(usize::MAX / 16),
        ..LinkOptions::default()
    });
    let mut last = Fate::Dropped;
    for _ in 0..1_000_000 {
        last = uplink.datagram(START, 1);
    }
    let exact = Duration::from_nanos(1_000_000 * 29 * 8 / 7);
    assert_eq!(last, Fate::Arrives(START + exact));
}

#[test]
fn the_queue_drops_its_tail_and_drains() {
    let mut uplink = uplink(LinkOptions {
        rate_bits_per_s: Some(10_000_000),
        queue_bytes: Some(12_500),
        ..LinkOptions::default()
    });
    let fates: Vec<Fate> = (0..15).map(|_| uplink.datagram(START, 1_222)).collect();
    assert!(
        fates
            .iter()
            .take(10)
            .all(|fate| matches!(fate, Fate::Arrives(_)))
    );
    assert!(fates.iter().skip(10).all(|fate| *fate == Fate::Dropped));
    assert_eq!(uplink.stats().dropped, 5);
    // One packet's time later there is room for exactly one.
    let later = START + milliseconds(1);
    assert!(matches!(uplink.datagram(later, 1_222), Fate::Arrives(_)));
    assert_eq!(uplink.datagram(later, 1_222), Fate::Dropped);
}

#[test]
fn a_stream_waits_for_room_instead() {
    let mut uplink = uplink(LinkOptions {
        delay: milliseconds(5),
        rate_bits_per_s: Some(12_000_000),
        queue_bytes: Some(3_000),
        ..LinkOptions::default()
    });
    // 1,448 and 52 bytes are one millisecond at 12 Mbit/s.
    for segment in 1..=3 {
        assert_eq!(
            uplink.segment(START, 1_448),
            StreamFate::Arrives(START + milliseconds(5 + segment))
        );
    }
    // 4,500 bytes wait; 1,500 of them are too many.
    let again = START + milliseconds(1);
    assert_eq!(uplink.segment(START, 1_448), StreamFate::Full(again));
    assert_eq!(
        uplink.segment(again, 1_448),
        StreamFate::Arrives(START + milliseconds(9))
    );
}

#[test]
fn both_transports_share_one_rate() {
    let mut uplink = uplink(LinkOptions {
        rate_bits_per_s: Some(10_000_000),
        ..LinkOptions::default()
    });
    assert_eq!(
        uplink.datagram(START, 1_222),
        Fate::Arrives(START + milliseconds(1))
    );
    assert_eq!(
        uplink.segment(START, 1_250 - SEGMENT_HEADERS),
        StreamFate::Arrives(START + milliseconds(2))
    );
}

#[test]
fn a_full_queue_of_datagrams_does_not_starve_a_stream() {
    let mut uplink = uplink(LinkOptions {
        rate_bits_per_s: Some(10_000_000),
        ..LinkOptions::default()
    });
    while uplink.datagram(START, 1_222) != Fate::Dropped {}
    assert!(matches!(
        uplink.segment(START, 1_448),
        StreamFate::Arrives(_)
    ));
}

#[test]
fn loss_matches_its_share_and_its_seed() {
    for percent in [1.0, 10.0, 50.0] {
        let options = LinkOptions {
            loss_percent: percent,
            ..LinkOptions::default()
        };
        let draw = |seed| -> Vec<bool> {
            let mut uplink = Uplink::new(options, seed).expect("the options are in range");
            (0..100_000)
                .map(|step| uplink.datagram(START + milliseconds(step), 1_200) == Fate::Lost)
                .collect()
        };
        let first = draw(1);
        assert_eq!(first, draw(1));
        assert_ne!(first, draw(2));
        // Five standard deviations either side.
        let share = percent / 100.0;
        let lost = first.iter().filter(|lost| **lost).count() as f64;
        let deviation = (100_000.0 * share * (1.0 - share)).sqrt();
        assert!(
            (lost - 100_000.0 * share).abs() < 5.0 * deviation,
            "{percent}: {lost}"
        );
    }
}

#[test]
fn all_or_nothing_is_lost_at_the_ends() {
    for (percent, lost) in [(0.0, 0), (100.0, 1_000)] {
        let mut uplink = uplink(LinkOptions {
            loss_percent: percent,
            ..LinkOptions::default()
        });
        for _ in 0..1_000 {
            uplink.datagram(START, 1_200);
        }
        assert_eq!(uplink.stats().lost, lost);
    }
}

#[test]
fn a_lost_datagram_has_used_the_rate() {
    let mut uplink = uplink(LinkOptions {
        loss_percent: 100.0,
        rate_bits_per_s: Some(10_000_000),
        ..LinkOptions::default()
    });
    assert_eq!(uplink.datagram(START, 1_222), Fate::Lost);
    assert_eq!(uplink.backlog_bytes(START), 1_250);
}

#[test]
fn senseless_options_are_refused_in_one_line() {
    let default = LinkOptions::default();
    let refused = [
        LinkOptions {
            loss_percent: 101.0,
            ..default
        },
        LinkOptions {
            loss_percent: -1.0,
            ..default
        },
        LinkOptions {
            loss_percent: f64::NAN,
            ..default
        },
        LinkOptions {
            delay: milliseconds(10_001),
            ..default
        },
        LinkOptions {
            rate_bits_per_s: Some(0),
            ..default
        },
        LinkOptions {
            rate_bits_per_s: Some(u64::MAX),
            ..default
        },
    ];
    for options in refused {
        let error = Uplink::new(options, 0).expect_err("the options are out of range");
        let line = error.to_string();
        assert!(line.contains("give") && !line.contains('\n'), "{line}");
    }
}

proptest! {
    /// Nothing overtakes, nothing arrives before it could, and the backlog keeps its bound.
    #[test]
    fn arrivals_are_in_order_and_bounded(
        rate in MIN_RATE_BITS_PER_S..=MAX_RATE_BITS_PER_S,
        queue in 0usize..200_000,
        delay in 0u64..10_000,
        packets in prop::collection::vec((0u64..5_000_000, 0usize..65_508, any::<bool>()), 1..200),
    ) {
        let options = LinkOptions {
            loss_percent: 5.0,
            delay: milliseconds(delay),
            rate_bits_per_s: Some(rate),
            queue_bytes: Some(queue),
        };
        let mut uplink = uplink(options);
        let mut now = START;
        let mut last = START;
        for (wait, bytes, stream) in packets {
            now = now + Duration::from_nanos(wait);
            let arrives = if stream {
                match uplink.segment(now, bytes.min(SEGMENT_BYTES)) {
                    StreamFate::Arrives(at) => Some(at),
                    StreamFate::Full(at) => {
                        prop_assert!(at > now);
                        prop_assert!(uplink.backlog_bytes(at) <= queue as u64);
                        None
                    }
                }
            } else {
                match uplink.datagram(now, bytes) {
                    Fate::Arrives(at) => Some(at),
                    Fate::Lost | Fate::Dropped => None,
                }
            };
            if let Some(at) = arrives {
                prop_assert!(at >= now + options.delay);
                prop_assert!(at >= last);
                last = at;
            }
            prop_assert!(uplink.backlog_bytes(now) <= queue as u64 + 1_500);
        }
    }
}
