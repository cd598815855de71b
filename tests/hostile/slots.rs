//! Connections are free to whoever makes them: they do not take the places of those that are not.

use std::net::SocketAddr;
use std::time::Duration;

use blocktorrent::relay::{EngineConfig, Initiator};
use blocktorrent::sim::NodeOptions;

use super::rig::Rig;
use crate::block;

fn config(max_inbound_per_group: usize) -> EngineConfig {
    EngineConfig {
        max_peers: 64,
        reserved_outbound: 8,
        max_inbound_per_group,
        ..NodeOptions::default().config
    }
}

/// Sessions that are not ending.
fn live(rig: &Rig, which: impl Fn(SocketAddr) -> bool) -> usize {
    let ended: Vec<_> = rig
        .events
        .iter()
        .filter_map(|event| match event {
            blocktorrent::relay::Event::SessionDown { session, .. } => Some(*session),
            _ => None,
        })
        .collect();
    let peers = rig.victim.peers(rig.now);
    let peers = peers.iter().filter(|peer| which(peer.address));
    peers.filter(|peer| !ended.contains(&peer.session)).count()
}

/// Connects from an address that says nothing. Gives whether it was let in.
fn knock(rig: &mut Rig, address: [u8; 4]) -> bool {
    let remote = (address, 50_000).into();
    let initiator = Initiator::Inbound;
    let session = rig.victim.handle_connected(rig.now, initiator, remote);
    rig.run(Duration::from_millis(1));
    session.is_some()
}

#[test]
fn one_network_gets_few_slots_and_this_machine_as_many_as_there_are() {
    let mut rig = Rig::with(1, block(3), config(4));
    let taken = (1..=20)
        .filter(|last| knock(&mut rig, [10, 1, 0, *last]))
        .count();
    assert_eq!(taken, 4);
    assert!(knock(&mut rig, [10, 2, 0, 1]));
    let taken = (1..=20).filter(|_| knock(&mut rig, [127, 0, 0, 1])).count();
    assert_eq!(taken, 20);
}

#[test]
fn a_flood_leaves_slots_to_outbound_sessions_and_makes_room_for_newcomers() {
    let mut rig = Rig::with(2, block(3), config(64));
    for group in 0..10 {
        assert!(knock(&mut rig, [20 + group, 0, 0, 1]));
    }
    for last in 1..=200 {
        knock(&mut rig, [10, 1, 0, last]);
    }
    assert_eq!(live(&rig, |_| true), 56);
    // What came before, from other networks, stayed.
    let others = |address: SocketAddr| !address.to_string().starts_with("10.");
    assert_eq!(live(&rig, others), 10);
    assert!(knock(&mut rig, [99, 0, 0, 1]), "no room for a newcomer");
    for last in 1..=8 {
        let remote = ([11, 0, 0, last], 8_433).into();
        let initiator = Initiator::Outbound;
        let session = rig.victim.handle_connected(rig.now, initiator, remote);
        assert!(session.is_some(), "no room for outbound session {last}");
    }
    rig.run(Duration::from_millis(1));
    assert_eq!(live(&rig, |_| true), 64);
}

#[test]
fn a_named_peer_gets_a_slot_before_strangers_and_keeps_it() {
    let most = EngineConfig {
        max_peers: 8,
        ..config(64)
    };
    let mut rig = Rig::with(4, block(3), most);
    // Four strangers fill what is not kept for outbound sessions, one of them on this machine; all of them are protected.
    assert!(knock(&mut rig, [127, 0, 0, 1]));
    for group in 0..3 {
        assert!(knock(&mut rig, [20 + group, 0, 0, 1]));
    }
    assert!(!knock(&mut rig, [30, 0, 0, 1]), "it is full");
    let named = |rig: &mut Rig, number: u16, initiator| {
        let remote = format!("[ff00:{number:x}::1]:1").parse().unwrap();
        let session = rig
            .victim
            .handle_named_connected(rig.now, initiator, remote);
        rig.run(Duration::from_millis(1));
        session.is_some()
    };
    let is_named = |address: SocketAddr| address.to_string().starts_with("[ff00");
    for number in 1..=4 {
        assert!(named(&mut rig, number, Initiator::Inbound), "{number}");
        assert_eq!(live(&rig, |_| true), 4, "a stranger made room");
    }
    for group in 0..40 {
        knock(&mut rig, [40 + group, 0, 0, 1]);
    }
    assert_eq!(live(&rig, is_named), 4, "a stranger took a named slot");
    // Further ones take what is kept for outbound sessions, and max_peers stays the bound.
    for number in 5..=8 {
        assert!(named(&mut rig, number, Initiator::Inbound), "{number}");
    }
    assert!(!named(&mut rig, 9, Initiator::Inbound));
    assert!(!named(&mut rig, 9, Initiator::Outbound));
    assert_eq!(live(&rig, is_named), 8);
}

#[test]
fn an_outbound_session_gets_an_eager_place_whoever_came_before() {
    let mut rig = Rig::with(3, block(3), config(64));
    let raws = [rig.connect(), rig.connect()];
    let eager = |rig: &Rig| {
        let peers = rig.victim.peers(rig.now).into_iter();
        let eager = peers.filter(|peer| peer.eager).map(|peer| peer.initiator);
        eager.collect::<Vec<_>>()
    };
    assert_eq!(eager(&rig), [Initiator::Inbound; 2]);
    let remote = ([11, 0, 0, 1], 8_433).into();
    let initiator = Initiator::Outbound;
    rig.victim.handle_connected(rig.now, initiator, remote);
    rig.run(Duration::from_millis(50));
    assert_eq!(eager(&rig).len(), 2);
    assert!(eager(&rig).contains(&Initiator::Outbound));
    let told = raws.iter().filter(|raw| {
        let heard = &rig.raws[**raw].heard;
        heard.iter().any(|(_, kind, _)| *kind == 0x06)
    });
    assert_eq!(told.count(), 1, "who lost its place was told");
}
