//! A flood of false flags: what it displaces, what it costs to find a true peer in spite of it.

use super::*;

/// The flood: false flags for addresses all over, from one source group.
fn flood(book: &mut Book, count: u32, attacker: u16, now: Time) {
    for part in 0..count.div_ceil(1000) {
        let told = (part * 1000..((part + 1) * 1000).min(count)).map(|number| {
            let address = peer((number % 0x4000) as u16 + 0x1000, (number / 0x4000) as u16);
            hearsay(address, FLAGGED, now)
        });
        let source = Source::Peer(peer(attacker, part as u16));
        book.heard(now, source, told);
    }
}

const ATTACKER: u16 = 0x800;

#[test]
fn a_hundred_thousand_false_flags_from_one_group_displace_nobody() {
    let mut book = book();
    let proven: Vec<Address> = (0..200).map(|group| peer(group, 1)).collect();
    for one in &proven {
        book.heard(
            at(0),
            Source::Peer(peer(group_of_friend(one), 3)),
            [hearsay(*one, FLAGGED, at(0))],
        );
        prove(&mut book, at(0), one);
    }
    let tried: Vec<Address> = (200..400).map(|group| peer(group, 1)).collect();
    let honest = Source::Peer(peer(0x700, 1));
    book.heard(
        at(0),
        honest,
        tried.iter().map(|one| hearsay(*one, PLAIN, at(0))),
    );
    tried.iter().for_each(|one| book.reached(at(0), one, PLAIN));
    let claimed: Vec<Address> = (400..500).map(|group| peer(group, 1)).collect();
    book.heard(
        at(0),
        honest,
        claimed.iter().map(|one| hearsay(*one, FLAGGED, at(0))),
    );
    let before = book.counts();
    let kept: Vec<Record> = book
        .records()
        .filter(|one| one.table != Table::Claimed)
        .collect();
    let claims: Vec<Address> = book
        .records()
        .filter(|one| one.table == Table::Claimed)
        .map(|one| one.address)
        .collect();
    assert!(claims.len() >= 80);

    flood(&mut book, 100_000, ATTACKER, at(10));
    // Also flags for all that we know.
    let known: Vec<Hearsay> = book
        .records()
        .map(|one| hearsay(one.address, FLAGGED, at(10)))
        .collect();
    book.heard(at(10), Source::Peer(peer(ATTACKER, 1)), known);
    check(&book);

    let after = book.counts();
    assert_eq!(
        (after.new, after.tried, after.proven),
        (before.new, before.tried, before.proven)
    );
    for one in kept {
        let now = book.record(&one.address).expect("kept");
        assert_eq!(
            (now.table, now.met, now.last_success),
            (one.table, one.met, one.last_success)
        );
    }
    let share = Table::Claimed.shape().share * places::BUCKET;
    let fakes = after.claimed - before.claimed;
    assert!(fakes <= share, "{fakes} are more than {share}");
    assert_eq!(share * 16, Table::Claimed.capacity());
    println!(
        "the flood holds {fakes} of {} places",
        Table::Claimed.capacity()
    );
    assert!(claims.iter().all(|one| book.record(one).is_some()));
    assert!(book.encode().len() < MAX_FILE_BYTES);
}

fn group_of_friend(one: &Address) -> u16 {
    let Host::Ipv4([a, b, _, _]) = one.host else {
        panic!("peers are IPv4");
    };
    u16::from_be_bytes([a, b]) % 7 + 0x600
}

/// Dials until the true peer is found; every fake is unmasked at once, or (if they are nobody's) never answers.
fn dials_until_found(book: &mut Book, truth: &Address, silent: bool) -> usize {
    let mut now = 100;
    for dial in 1..=4096 {
        now += 2;
        if dial % 32 == 0 {
            // Gossip is told more than once, and each time by somebody else.
            let again = Source::Peer(peer(0x701 + dial as u16 / 32, 1));
            book.heard(at(now), again, [hearsay(*truth, FLAGGED, at(now))]);
        }
        let Pick::Found(record) = book.pick(at(now), Want::Flagged, &InUse::default()) else {
            panic!("nobody left");
        };
        book.dialled(at(now), &record.address);
        if record.address == *truth {
            return dial;
        }
        if silent {
            // Somebody else answers now and then, so failures count.
            book.reached(at(now), &peer(0x700, 1), PLAIN);
            book.failed(at(now + 1), &record.address);
        } else {
            book.reached(at(now), &record.address, PLAIN);
        }
    }
    panic!("not found");
}

/// Of 200 books: how many have found the true peer after so many dials, in percent.
fn chances(polluted: u32, silent: bool) -> Vec<(usize, usize)> {
    let truth = peer(5, 5);
    let mut dials = Vec::new();
    for seed in 0..200_u16 {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&seed.to_le_bytes());
        let mut book = Book::new(RULES, key);
        book.heard(
            at(0),
            Source::OurNode,
            [hearsay(peer(0x700, 1), PLAIN, at(0))],
        );
        flood(&mut book, 5_000, ATTACKER, at(0));
        // The honest source was lied to as well, and passes some of it on.
        let honest = Source::Peer(peer(0x701, 1));
        book.heard(at(0), honest, [hearsay(truth, FLAGGED, at(0))]);
        let lies =
            (0..polluted).map(|number| hearsay(peer(0x2000 + number as u16, 99), FLAGGED, at(0)));
        book.heard(at(0), honest, lies);
        dials.push(dials_until_found(&mut book, &truth, silent));
    }
    let within = |limit| dials.iter().filter(|one| **one <= limit).count() * 100 / dials.len();
    [1, 2, 4, 8, 16, 32, 64, 128]
        .into_iter()
        .map(|limit| (limit, within(limit)))
        .collect()
}

#[test]
fn a_true_peer_is_found_within_few_dials() {
    let percent =
        |of: &[(usize, usize)], dials| of.iter().find(|(limit, _)| *limit == dials).unwrap().1;
    for silent in [false, true] {
        let alone = chances(0, silent);
        println!("silent {silent}, one honest source: found within dials, percent: {alone:?}");
        assert!(
            percent(&alone, 1) >= 40,
            "half of the dials go to the honest source"
        );
        // In one book of sixteen the flood has reached the bucket first; there it takes until others tell.
        assert!(percent(&alone, 8) >= 85);
        assert!(percent(&alone, 64) >= 98);
        let polluted = chances(30, silent);
        println!("silent {silent}, it was lied to 30 times: {polluted:?}");
        assert!(percent(&polluted, 64) >= 80);
    }
}
