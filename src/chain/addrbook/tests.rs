//! The book as a whole: what every operation must leave true, and what each is for.

mod flood;
mod random;

use std::collections::BTreeSet;

use super::*;

pub(super) const FLAG: u64 = 1 << 30;
/// NODE_NETWORK and NODE_WITNESS.
pub(super) const PLAIN: u64 = 0x9;
pub(super) const FLAGGED: u64 = PLAIN | FLAG;
pub(super) const RULES: BookRules = BookRules {
    flag: FLAG,
    locality: Locality::Public,
    reachable: Networks::IP,
};

pub(super) fn book() -> Book {
    Book::new(RULES, [7; 32])
}

pub(super) fn at(seconds: u64) -> Time {
    Time::from_unix_seconds(1_700_000_000 + seconds)
}

/// Public addresses, `group` choosing the /16.
pub(super) fn peer(group: u16, host: u16) -> Address {
    let [a, b] = (0x0b01 + group % 0x5900).to_be_bytes();
    let [c, d] = host.to_be_bytes();
    let host = Host::Ipv4([a, b, c, d]);
    assert!(host.is_public());
    Address {
        host,
        port: 8333,
        door: Door::Bitcoin,
    }
}

pub(super) fn hearsay(address: Address, services: u64, now: Time) -> Hearsay {
    Hearsay {
        address,
        services,
        last_seen: seconds(now),
    }
}

pub(super) const ADVERT: Advert = Advert {
    version: 1,
    control_port: 8433,
    data_port: 8433,
};

/// Looks at a node by Bitcoin's protocol, and then meets it.
pub(super) fn prove(book: &mut Book, now: Time, address: &Address) {
    book.reached(now, address, FLAGGED);
    book.advertised(now, address, ADVERT);
    book.met(now, &address.with_control_port(8433), 1, 0);
}

/// Everything that must hold after any operation.
pub(super) fn check(book: &Book) {
    assert!(book.entries.len() <= MAX_ENTRIES);
    assert!(book.standings.0.len() <= MAX_STANDINGS);
    assert!(book.collisions.len() <= MAX_COLLISIONS);
    assert_eq!(book.index.len(), book.entries.len());
    for table in Table::ALL {
        for (place, id) in book.places[table as usize].taken() {
            let entry = book.entries.get(id).expect("a place holds an entry");
            assert_eq!(entry.table, table, "{entry:?}");
            let own = entry.address.group();
            let owners: &[Group] = if table.is_hearsay() {
                &entry.sources
            } else {
                std::slice::from_ref(&own)
            };
            let allowed = |source| book.key.place(table, &entry.address, source) == place;
            assert!(owners.iter().any(allowed), "{entry:?} may not be there");
        }
    }
    for (id, entry) in &book.entries {
        assert_eq!(book.index.get(&entry.address), Some(&id));
        assert_eq!(
            address::admit(&entry.address, book.rules.locality, book.rules.reachable),
            Ok(())
        );
        let flagged = entry.services & book.rules.flag != 0;
        let places: BTreeSet<usize> = if entry.table.is_hearsay() {
            let place = |source| book.key.place(entry.table, &entry.address, source);
            entry.sources.iter().map(place).collect()
        } else {
            [book
                .key
                .place(entry.table, &entry.address, &entry.address.group())]
            .into()
        };
        assert!(!places.is_empty(), "{entry:?} is nowhere");
        if entry.table.is_hearsay() {
            assert_eq!(places.len(), entry.sources.len(), "{entry:?}");
        }
        for place in places {
            assert_eq!(book.at(entry.table, place), Some(id), "{entry:?}");
        }
        match entry.table {
            Table::New => assert!(!flagged, "{entry:?}"),
            Table::Claimed => assert!(flagged, "{entry:?}"),
            Table::Tried => assert_ne!(entry.last_success, 0, "{entry:?}"),
            Table::Proven => assert!(entry.is_proven(), "{entry:?}"),
        }
        assert!(entry.met == 0 || entry.advert.is_some(), "{entry:?}");
        if let Some(advert) = entry.advert {
            assert!(flagged && advert.control_port != 0, "{entry:?}");
            let control = entry.address.with_control_port(advert.control_port);
            assert_eq!(book.id_of(&control), Some(id), "{entry:?}");
        }
    }
    for (control, id) in &book.controls {
        assert!(!book.index.contains_key(control), "one entry for a stream");
        let entry = book.entries.get(*id).expect("a stream has an entry");
        assert_eq!(record(entry).control(), Some(*control));
    }
}

fn table(book: &Book, address: &Address) -> Option<Table> {
    book.record(address).map(|record| record.table)
}

fn found(pick: Pick) -> Option<Address> {
    match pick {
        Pick::Found(record) => Some(record.address),
        Pick::Later(_) | Pick::Nobody => None,
    }
}

#[test]
fn a_flag_is_a_claim_and_a_handshake_a_fact() {
    let mut book = book();
    let (relay, liar, plain) = (peer(1, 1), peer(2, 1), peer(3, 1));
    let source = Source::Peer(peer(9, 9));
    let told = [(relay, FLAGGED), (liar, FLAGGED), (plain, PLAIN)];
    let told = told.map(|(address, services)| hearsay(address, services, at(0)));
    let intake = book.heard(at(0), source, told);
    assert_eq!(intake.added, 3);
    assert_eq!(table(&book, &relay), Some(Table::Claimed));
    assert_eq!(table(&book, &plain), Some(Table::New));

    book.reached(at(1), &relay, FLAGGED);
    assert_eq!(table(&book, &relay), Some(Table::Tried));
    book.advertised(at(1), &relay, ADVERT);
    assert_eq!(table(&book, &relay), Some(Table::Tried), "not met yet");
    let asker = peer(1, 1).host;
    assert_eq!(book.answer_relays(at(1), &asker), [], "nor told of");
    let control = relay.with_control_port(8433);
    book.met(at(2), &control, 1, 0);
    assert_eq!(table(&book, &relay), Some(Table::Proven));
    assert_eq!(book.answer_relays(at(2), &asker).len(), 1);
    assert_eq!(book.record(&control).map(|one| one.address), Some(relay));
    assert_eq!(book.record(&relay).unwrap().control(), Some(control));

    book.reached(at(2), &liar, PLAIN);
    assert_eq!(table(&book, &liar), Some(Table::Tried));
    book.heard(at(3), source, [hearsay(liar, FLAGGED, at(3))]);
    assert_eq!(
        book.record(&liar).unwrap().services,
        PLAIN,
        "not believed so soon"
    );
    book.heard(
        at(2 * 86_400),
        source,
        [hearsay(liar, FLAGGED, at(2 * 86_400))],
    );
    assert_eq!(
        book.record(&liar).unwrap().services,
        FLAGGED,
        "it may have changed"
    );
    assert_eq!(
        table(&book, &liar),
        Some(Table::Tried),
        "and is not displaced by that"
    );
    book.refuted(at(2 * 86_400 + 1), &liar);
    assert_eq!(book.record(&liar).unwrap().services, PLAIN);
    assert_eq!(book.counts().refuted, 2);

    book.reached(at(2 * 86_400), &relay, PLAIN);
    assert_eq!(
        table(&book, &relay),
        Some(Table::Tried),
        "it was one, and is none now"
    );
    assert_eq!(book.record(&control), None);
    check(&book);
}

#[test]
fn gossip_adds_services_and_an_answer_replaces_them() {
    let mut book = book();
    let (one, source) = (peer(1, 1), Source::Peer(peer(9, 9)));
    book.heard(at(0), source, [hearsay(one, 0x1, at(0))]);
    book.heard(at(0), source, [hearsay(one, 0x408, at(0))]);
    assert_eq!(book.record(&one).unwrap().services, 0x409);
    book.heard(at(0), source, [hearsay(one, FLAGGED, at(0))]);
    assert_eq!(table(&book, &one), Some(Table::Claimed));
    book.reached(at(1), &one, FLAGGED);
    assert_eq!(book.record(&one).unwrap().services, FLAGGED);
    book.reached(at(1), &one, 0x400);
    assert_eq!(book.record(&one).unwrap().services, 0x400);
    check(&book);
}

#[test]
fn what_is_of_no_use_is_refused_and_counted() {
    let mut book = book();
    let source = Source::Peer(peer(9, 9));
    let old = at(0) - std::time::Duration::from_secs(31 * 86_400);
    let strange = Address {
        host: Host::TorV3([3; 32]),
        ..peer(1, 1)
    };
    let told = [
        hearsay(
            Address::bitcoin("10.0.0.1:8333".parse().unwrap()),
            PLAIN,
            at(0),
        ),
        hearsay(
            Address {
                port: 25,
                ..peer(1, 1)
            },
            PLAIN,
            at(0),
        ),
        hearsay(strange, PLAIN, at(0)),
        hearsay(peer(1, 1), 0x40, at(0)),
        hearsay(peer(1, 2), PLAIN, old),
    ];
    let intake = book.heard(at(0), source, told);
    assert!(book.is_empty());
    let expected = Intake {
        private: 1,
        port: 1,
        unreachable: 1,
        useless: 2,
        ..Intake::default()
    };
    assert_eq!(intake, expected);
    assert_eq!(book.counts().intake, expected);
}

#[test]
fn gossip_is_taken_for_older_than_it_says() {
    let mut book = book();
    let (one, two, three) = (peer(1, 1), peer(2, 1), peer(3, 1));
    let now = seconds(at(0));
    book.heard(at(0), Source::Peer(two), [hearsay(one, PLAIN, at(0))]);
    book.heard(at(0), Source::Peer(two), [hearsay(two, PLAIN, at(0))]);
    book.heard(at(0), Source::Peer(two), [hearsay(three, PLAIN, at(601))]);
    assert_eq!(book.record(&one).unwrap().last_seen, now - 7200);
    assert_eq!(book.record(&two).unwrap().last_seen, now);
    assert_eq!(
        book.record(&three).unwrap().last_seen,
        now - 5 * 86_400 - 7200
    );
}

#[test]
fn waits_grow_with_failures_and_end_with_success() {
    let mut book = book();
    let one = peer(1, 1);
    book.heard(at(0), Source::OurNode, [hearsay(one, FLAGGED, at(0))]);
    let free = InUse::default();
    let mut now = 0;
    let mut waits = Vec::new();
    for _ in 0..12 {
        assert_eq!(found(book.pick(at(now), Want::Flagged, &free)), Some(one));
        book.dialled(at(now), &one);
        book.failed(at(now), &one);
        let Pick::Later(next) = book.pick(at(now), Want::Flagged, &free) else {
            panic!("it may be tried later");
        };
        waits.push(next.since(at(now)).as_secs());
        now += waits.last().unwrap();
    }
    for (number, wait) in waits.iter().enumerate() {
        let full = (600_u64 << (number + 1)).min(86_400);
        assert!((full - full / 4..=full).contains(wait), "{waits:?}");
    }
    assert_eq!(
        book.record(&one).unwrap().failures,
        0,
        "nobody answers: we may be cut off"
    );

    let other = peer(2, 2);
    book.heard(at(now), Source::OurNode, [hearsay(other, PLAIN, at(now))]);
    book.reached(at(now), &other, PLAIN);
    book.failed(at(now + 1), &one);
    book.failed(at(now + 2), &one);
    assert_eq!(
        book.record(&one).unwrap().failures,
        1,
        "counted once for each time others answered"
    );
    prove(&mut book, at(now), &one);
    assert_eq!(book.record(&one).unwrap().failures, 0);
    assert_eq!(
        found(book.pick(at(now + 60), Want::Flagged, &free)),
        Some(one)
    );
    check(&book);
}

#[test]
fn nobody_is_picked_twice_from_a_group_in_use() {
    let mut book = book();
    let told = [peer(1, 1), peer(1, 2), peer(2, 1)];
    book.heard(
        at(0),
        Source::OurNode,
        told.map(|one| hearsay(one, FLAGGED, at(0))),
    );
    let mut in_use = InUse::default();
    in_use.add(&peer(1, 77));
    for _ in 0..50 {
        assert_eq!(
            found(book.pick(at(0), Want::Flagged, &in_use)),
            Some(peer(2, 1))
        );
    }
    in_use.add_node(&peer(2, 1));
    assert_eq!(book.pick(at(0), Want::Flagged, &in_use), Pick::Nobody);
    prove(&mut book, at(0), &peer(2, 1));
    let mut connected = InUse::default();
    connected.add_node(&peer(2, 1).with_control_port(8433));
    for _ in 0..50 {
        let other = found(book.pick(at(0), Want::Flagged, &connected)).unwrap();
        assert_ne!(other, peer(2, 1), "it is connected by its control stream");
    }
}

#[test]
fn a_control_stream_heard_of_and_a_node_proven_become_one() {
    let mut book = book();
    let node = peer(1, 1);
    let control = node.with_control_port(8433);
    book.heard(
        at(0),
        Source::Peer(peer(2, 2)),
        [hearsay(control, 0, at(0))],
    );
    assert_eq!(table(&book, &control), Some(Table::Claimed));
    book.heard(
        at(0),
        Source::Peer(peer(2, 2)),
        [hearsay(node, FLAGGED, at(0))],
    );
    prove(&mut book, at(1), &node);
    assert_eq!(book.len(), 1);
    book.heard(
        at(2),
        Source::Peer(peer(3, 3)),
        [hearsay(control, 0, at(2))],
    );
    assert_eq!(book.len(), 1);
    book.met(at(3), &control, 2, 77);
    let advert = book.record(&node).unwrap().advert.unwrap();
    assert_eq!(
        (advert.version, advert.control_port, advert.data_port),
        (2, 8433, 77)
    );
    check(&book);

    let other = peer(4, 4).with_control_port(9000);
    book.met(at(3), &other, 1, 0);
    assert_eq!(table(&book, &other), Some(Table::Proven), "unknown before");
    book.refuted(at(4), &other);
    assert_eq!(
        book.record(&other),
        None,
        "a control stream that is none is nothing"
    );
    check(&book);
}

#[test]
fn a_relay_that_takes_no_connections_is_not_dialled_and_nobody_is_blamed() {
    let mut book = book();
    let one = peer(1, 1);
    let source = peer(2, 2);
    book.heard(at(0), Source::Peer(source), [hearsay(one, FLAGGED, at(0))]);
    let trust = book.standings.trust(&source.group(), seconds(at(0)));
    book.reached(at(1), &one, FLAGGED);
    let closed = Advert {
        control_port: 0,
        ..ADVERT
    };
    book.advertised(at(1), &one, closed);
    assert_eq!(table(&book, &one), Some(Table::Tried));
    assert_eq!(
        book.pick(at(9_999), Want::Flagged, &InUse::default()),
        Pick::Nobody
    );
    assert_eq!(trust, book.standings.trust(&source.group(), seconds(at(1))));
    check(&book);
}

/// Two of them whose place among the proven is the same.
fn rivals(book: &Book) -> (Address, Address) {
    let place = |one: &Address| book.key.place(Table::Proven, one, &one.group());
    let first = peer(1, 1);
    let second = (2..=u16::MAX)
        .map(|group| peer(group, 1))
        .find(|one| *one != first && place(one) == place(&first))
        .expect("there are few places");
    (first, second)
}

#[test]
fn who_is_proven_is_tried_before_another_takes_the_place() {
    let mut book = book();
    let (old, new) = rivals(&book);
    let told = [old, new].map(|one| hearsay(one, FLAGGED, at(0)));
    book.heard(at(0), Source::OurNode, told);
    prove(&mut book, at(0), &old);
    prove(&mut book, at(60), &new);
    assert_eq!(
        table(&book, &new),
        Some(Table::Tried),
        "the old one answered just now"
    );
    check(&book);

    // Hours later it is to be looked at first; it does not answer.
    let later = 6 * 3600;
    prove(&mut book, at(later), &new);
    let free = InUse::default();
    assert_eq!(found(book.pick(at(later), Want::Feeler, &free)), Some(old));
    book.dialled(at(later), &old);
    book.failed(at(later + 5), &old);
    assert_eq!(book.pick(at(later + 10), Want::Feeler, &free), Pick::Nobody);
    assert_eq!(table(&book, &new), Some(Table::Tried));
    let _ = book.pick(at(later + 70), Want::Feeler, &free);
    assert_eq!(table(&book, &new), Some(Table::Proven));
    assert_eq!(
        table(&book, &old),
        Some(Table::Claimed),
        "it is known, in another place"
    );
    assert_ne!(book.record(&old).unwrap().met, 0);
    check(&book);
}

#[test]
fn who_is_connected_has_passed_the_test() {
    let mut book = book();
    let (old, new) = rivals(&book);
    let told = [old, new].map(|one| hearsay(one, FLAGGED, at(0)));
    book.heard(at(0), Source::OurNode, told);
    prove(&mut book, at(0), &old);
    prove(&mut book, at(6 * 3600), &new);
    let mut in_use = InUse::default();
    in_use.add(&old);
    let _ = book.pick(at(6 * 3600), Want::Feeler, &in_use);
    assert_eq!(table(&book, &old), Some(Table::Proven));
    assert!(book.collisions.is_empty());
    check(&book);
}

#[test]
fn an_answer_is_a_sample_and_stays_the_same_for_a_day() {
    let mut book = book();
    let told = (0..2000).map(|number| hearsay(peer(number, number), PLAIN, at(0)));
    book.heard(at(0), Source::OurNode, told);
    let asker = peer(1, 1).host;
    let first = book.answer(at(0), &asker).to_vec();
    assert_eq!(first.len(), book.len() * 23 / 100);
    assert_eq!(book.answer(at(20 * 3600), &asker), first);
    assert_ne!(book.answer(at(28 * 3600), &asker), first);
    let other_network = Host::Ipv6([0x2a; 16]);
    assert_ne!(book.answer(at(0), &other_network), first);

    let mut small = Book::new(RULES, [1; 32]);
    assert!(small.answer(at(0), &asker).is_empty());
    let told = (0..20).map(|number| hearsay(peer(number, 1), PLAIN, at(0)));
    small.heard(at(0), Source::OurNode, told);
    assert_eq!(
        small.answer(at(0), &asker).len(),
        16,
        "a young book is told at once"
    );
    assert!(small.answer_relays(at(0), &asker).is_empty());
    prove(&mut small, at(1), &peer(1, 1));
    let relays = small.answer_relays(at(1), &asker);
    assert_eq!(relays.len(), 1);
    assert_eq!((relays[0].host, relays[0].control_port), (asker, 8433));
}

#[test]
fn on_one_machine_ports_tell_peers_apart() {
    let rules = BookRules {
        locality: Locality::Local,
        ..RULES
    };
    let mut book = Book::new(rules, [1; 32]);
    let ports = [18_001, 18_002, 18_003];
    let told = ports.map(|port| {
        let address = Address::bitcoin(([127, 0, 0, 1], port).into());
        hearsay(address, FLAGGED, at(0))
    });
    let source = Address::bitcoin(([127, 0, 0, 1], 18_009).into());
    assert_eq!(book.heard(at(0), Source::Peer(source), told).added, 3);
    let mut in_use = InUse::default();
    for _ in ports {
        let one = found(book.pick(at(0), Want::Flagged, &in_use)).unwrap();
        in_use.add(&one);
        book.dialled(at(0), &one);
        book.failed(at(0), &one);
    }
    let Pick::Later(next) = book.pick(at(0), Want::Flagged, &InUse::default()) else {
        panic!("all were tried");
    };
    assert!(next <= at(2), "tests need not wait long");
    check(&book);
}
