//! From the first byte to both `verack`s.

use std::time::Duration;

use super::rig::*;
use crate::chain::Network;
use crate::chain::p2p::kind::Kind;
use crate::chain::p2p::*;

fn pair(a: V2, b: V2) -> Pair {
    Pair::new(
        config(Direction::Outbound, Role::Stranger, a),
        config(Direction::Inbound, Role::Stranger, b),
    )
}

#[test]
fn both_learn_who_the_other_is_over_either_transport() {
    for (a, b, v2) in [
        (V2::Off, V2::Off, false),
        (V2::Off, V2::Accept, false),
        (V2::Try, V2::Accept, true),
    ] {
        for piece in [1, 7, 100, 1_000_000] {
            let mut pair = pair(a, b);
            pair.piece = piece;
            pair.run();
            for event in [pair.a_events.pop_front(), pair.b_events.pop_front()] {
                let Some(PeerEvent::Ready(info)) = event else {
                    panic!("not ready: {event:?}");
                };
                assert_eq!(info.advert, Some(ADVERT));
                assert_eq!((info.version, info.services), (70_017, SERVICES));
                assert_eq!((info.agent.as_str(), info.start_height), ("/test:1/", 7));
                assert_eq!((info.v2, info.wtxid_relay), (v2, true));
                assert!(info.relay_transactions);
            }
            assert!(pair.a_events.is_empty() && pair.b_events.is_empty());
        }
    }
}

#[test]
fn who_does_not_speak_the_encrypted_transport_is_told_apart() {
    let mut pair = pair(V2::Try, V2::Off);
    pair.run();
    assert_eq!(
        pair.a_events.pop_back(),
        Some(PeerEvent::Closed(CloseReason::NoV2))
    );
    assert_eq!(
        pair.b_events.pop_back(),
        Some(PeerEvent::Closed(CloseReason::WrongMagic))
    );
}

#[test]
fn other_networks_are_refused() {
    for v2 in [V2::Off, V2::Accept] {
        let mut one = config(Direction::Outbound, Role::Stranger, V2::Off);
        one.network = Network::Signet;
        let mut pair = Pair::new(one, config(Direction::Inbound, Role::Stranger, v2));
        pair.run();
        pair.pass(Duration::from_secs(61));
        let closed = pair.b_events.pop_back();
        assert!(matches!(closed, Some(PeerEvent::Closed(_))), "{closed:?}");
    }
    let mut one = config(Direction::Outbound, Role::Stranger, V2::Try);
    one.network = Network::Signet;
    let mut pair = Pair::new(one, config(Direction::Inbound, Role::Stranger, V2::Accept));
    pair.run();
    pair.pass(Duration::from_secs(61));
    let closed = pair.a_events.pop_back();
    assert_eq!(
        closed,
        Some(PeerEvent::Closed(CloseReason::HandshakeTimeout))
    );
}

#[test]
fn ourselves_and_the_old_are_refused() {
    let inbound = || Puppet::new(config(Direction::Inbound, Role::Stranger, V2::Accept));
    let mut puppet = inbound();
    puppet.say(Kind::Version, version_payload(70_017, 0, 1));
    assert_eq!(puppet.closed(), Some(&CloseReason::OurselfNonce));
    let mut puppet = inbound();
    puppet.say(Kind::Version, version_payload(70_014, 0, 5));
    assert_eq!(puppet.closed(), Some(&CloseReason::TooOld(70_014)));
    assert_eq!(puppet.heard_kinds(), []);
}

#[test]
fn the_old_are_told_only_what_they_know() {
    let mut puppet = Puppet::new(config(Direction::Inbound, Role::Stranger, V2::Accept));
    puppet.say(Kind::Version, version_payload(70_015, 0, 99));
    assert_eq!(puppet.heard_kinds(), [Kind::Version, Kind::Verack]);
    puppet.say(Kind::Verack, vec![]);
    let Some(PeerEvent::Ready(info)) = puppet.events.pop_front() else {
        panic!("not ready");
    };
    assert_eq!((info.agent.as_str(), info.clock_offset_s), ("/old:1?/", 5));
    assert_eq!(puppet.heard_kinds(), [Kind::SendCompact, Kind::SendHeaders]);
    // The own message goes to those who claim the project's bit, and to nobody else.
    let mut puppet = Puppet::new(config(Direction::Inbound, Role::Stranger, V2::Accept));
    puppet.say(Kind::Version, version_payload(70_016, FLAG, 99));
    puppet.say(Kind::Verack, vec![]);
    assert_eq!(
        puppet.heard.pop(),
        Some((Kind::Advert, ADVERT.to_bytes().to_vec().into()))
    );
    puppet.say(Kind::Advert, ADVERT.to_bytes().to_vec());
    assert_eq!(
        puppet.events.pop_back(),
        Some(PeerEvent::Advertised(ADVERT))
    );
    puppet.say(Kind::Advert, ADVERT.to_bytes().to_vec());
    assert_eq!(puppet.refused(Refusal::Duplicate), 1);
}

#[test]
fn a_version_without_its_last_byte_counts_as_wanting_transactions() {
    let mut puppet = Puppet::new(config(Direction::Inbound, Role::Stranger, V2::Accept));
    let mut payload = version_payload(70_016, 0, 99);
    payload.pop();
    puppet.say(Kind::Version, payload);
    puppet.say(Kind::Verack, vec![]);
    let Some(PeerEvent::Ready(info)) = puppet.events.pop_front() else {
        panic!("not ready");
    };
    assert!(info.relay_transactions);
}

#[test]
fn the_wrong_order_is_counted_and_ends_at_last() {
    let mut puppet = Puppet::new(config(Direction::Inbound, Role::Stranger, V2::Accept));
    // The transport shows itself by `version` alone.
    puppet.say(Kind::Version, version_payload(70_017, 0, 99));
    puppet.say(Kind::Version, version_payload(70_017, 0, 99));
    assert_eq!(puppet.refused(Refusal::Duplicate), 1);
    for _ in 0..9 {
        assert_eq!(puppet.closed(), None);
        puppet.say(Kind::Ping, vec![0; 8]);
    }
    assert_eq!(
        puppet.closed(),
        Some(&CloseReason::Misbehaved("message out of order"))
    );
    let mut puppet = Puppet::greeted(Role::Stranger, 70_017);
    puppet.say(Kind::Feature, ADVERT.to_feature());
    assert_eq!(puppet.refused(Refusal::Order), 1);
}

#[test]
fn features_of_others_are_passed_over_and_malformed_ones_are_not() {
    let mut puppet = Puppet::new(config(Direction::Inbound, Role::Stranger, V2::Accept));
    puppet.say(Kind::Version, version_payload(70_017, 0, 99));
    puppet.say(Kind::Feature, &b"\x04BIP9\x01x"[..]);
    puppet.say(Kind::Feature, ADVERT.to_feature());
    puppet.say(Kind::Feature, &b"\x03BIP\x00"[..]);
    assert_eq!(puppet.refused(Refusal::Malformed), 1);
    puppet.say(Kind::Verack, vec![]);
    let ready = puppet.events.iter().find_map(|event| match event {
        PeerEvent::Ready(info) => Some(info.advert),
        _ => None,
    });
    assert_eq!(ready, Some(Some(ADVERT)));
}

#[test]
fn nobody_waits_for_ever() {
    let mut puppet = Puppet::new(config(Direction::Inbound, Role::Stranger, V2::Accept));
    puppet.say(Kind::Version, version_payload(70_017, 0, 99));
    puppet.pass(Duration::from_secs(59));
    assert_eq!(puppet.closed(), None);
    puppet.pass(Duration::from_secs(1));
    assert_eq!(puppet.closed(), Some(&CloseReason::HandshakeTimeout));
    // A peer that answers no ping, and one that answers.
    for (role, seconds) in [(Role::OurNode, 120), (Role::Stranger, 1_200)] {
        let mut puppet = Puppet::greeted(role, 70_017);
        puppet.pass(Duration::ZERO);
        assert_eq!(puppet.heard_kinds(), [Kind::Ping]);
        puppet.pass(Duration::from_secs(seconds - 1));
        assert_eq!(puppet.closed(), None);
        puppet.pass(Duration::from_secs(1));
        assert_eq!(puppet.closed(), Some(&CloseReason::Silent));
        let mut pair = Pair::greeted(role, Role::Stranger, true);
        pair.pass(Duration::from_secs(86_400));
        assert!(pair.a_events.is_empty() && pair.b_events.is_empty());
        pair.tell_a(PeerCommand::Report);
        let Some(PeerEvent::Report(report)) = pair.a_events.pop_front() else {
            panic!("no report");
        };
        assert!(report.ping.is_some() && report.messages_received > 100);
    }
}

#[test]
fn a_feeler_leaves_once_it_knows() {
    let outbound = |ask_addresses| {
        let role = Role::Feeler { ask_addresses };
        Pair::new(
            config(Direction::Outbound, role, V2::Try),
            config(Direction::Inbound, Role::Stranger, V2::Accept),
        )
    };
    let mut pair = outbound(false);
    pair.run();
    assert!(matches!(
        pair.a_events.pop_front(),
        Some(PeerEvent::Ready(_))
    ));
    let closed = Some(PeerEvent::Closed(CloseReason::FeelerDone));
    assert_eq!(pair.a_events.pop_front(), closed);
    let mut pair = outbound(true);
    pair.run();
    assert!(matches!(
        pair.b_events.pop_front(),
        Some(PeerEvent::Ready(_))
    ));
    assert_eq!(pair.b_events.pop_front(), Some(PeerEvent::WantsAddresses));
    let record = AddressRecord {
        last_seen: 1,
        services: SERVICES,
        address: ([1, 2, 3, 4], 8_333).into(),
    };
    pair.tell_b(PeerCommand::SendAddresses(vec![record; 3]));
    assert!(matches!(
        pair.a_events.pop_front(),
        Some(PeerEvent::Ready(_))
    ));
    assert_eq!(
        pair.a_events.pop_front(),
        Some(PeerEvent::Addresses(vec![record; 3]))
    );
    assert_eq!(pair.a_events.pop_front(), closed);
    let mut pair = outbound(true);
    pair.run();
    pair.pass(Duration::from_secs(60));
    assert_eq!(pair.a_events.pop_back(), closed);
}
