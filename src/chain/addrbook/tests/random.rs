//! Any sequence of operations, and any bytes for a file.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Heard(Source, Vec<(Address, u64, u32)>),
    Dialled(Address),
    Failed(Address),
    Reached(Address, u64),
    Advertised(Address, u16),
    Met(Address, u16),
    Refuted(Address),
    Left(Address),
    Pick(Want, Vec<Address>),
    Answer(Address),
    Restart,
    Wait(u32),
}

/// Few groups, hosts and ports, so that things meet.
fn an_address() -> impl Strategy<Value = Address> {
    let door = prop_oneof![4 => Just(Door::Bitcoin), 1 => Just(Door::Control)];
    (0_u16..40, 0_u16..12, 0_u16..3, door).prop_map(|(group, host, port, door)| Address {
        port: 8333 + port,
        door,
        ..peer(group, host)
    })
}

fn a_source() -> impl Strategy<Value = Source> {
    prop_oneof![
        6 => an_address().prop_map(Source::Peer),
        1 => Just(Source::OurNode),
        1 => (0_u8..3).prop_map(Source::DnsSeed),
        1 => Just(Source::Fixed),
    ]
}

fn services() -> impl Strategy<Value = u64> {
    prop_oneof![Just(PLAIN), Just(FLAGGED), Just(FLAG), Just(0x40)]
}

fn a_step() -> impl Strategy<Value = Step> {
    let told = prop::collection::vec((an_address(), services(), 0_u32..40 * 86_400), 1..60);
    let want = prop_oneof![Just(Want::Flagged), Just(Want::Any), Just(Want::Feeler)];
    prop_oneof![
        4 => (a_source(), told).prop_map(|(source, told)| Step::Heard(source, told)),
        2 => an_address().prop_map(Step::Dialled),
        2 => an_address().prop_map(Step::Failed),
        3 => (an_address(), services()).prop_map(|(one, services)| Step::Reached(one, services)),
        3 => (an_address(), 0_u16..4).prop_map(|(one, port)| Step::Advertised(one, port)),
        3 => (an_address(), 0_u16..2).prop_map(|(one, port)| Step::Met(one, port)),
        1 => an_address().prop_map(Step::Refuted),
        1 => an_address().prop_map(Step::Left),
        3 => (want, prop::collection::vec(an_address(), 0..4)).prop_map(|(want, not)| Step::Pick(want, not)),
        1 => an_address().prop_map(Step::Answer),
        1 => Just(Step::Restart),
        3 => prop_oneof![1_u32..100, 600_u32..20_000, Just(86_400)].prop_map(Step::Wait),
    ]
}

fn apply(book: &mut Book, now: &mut Time, step: Step) {
    match step {
        Step::Heard(source, told) => {
            let told = told.into_iter().map(|(address, services, age)| Hearsay {
                address,
                services,
                last_seen: seconds(*now) - age,
            });
            book.heard(*now, source, told);
        }
        Step::Dialled(one) => book.dialled(*now, &one),
        Step::Failed(one) => book.failed(*now, &one),
        Step::Reached(one, services) => book.reached(*now, &one, services),
        Step::Advertised(one, port) => {
            let control_port = if port == 0 { 0 } else { 8332 + port };
            let advert = Advert {
                control_port,
                ..ADVERT
            };
            book.advertised(*now, &one, advert);
        }
        Step::Met(one, data_port) => book.met(*now, &one, 1, data_port),
        Step::Refuted(one) => book.refuted(*now, &one),
        Step::Left(one) => book.left(*now, &one),
        Step::Pick(want, not) => {
            let mut in_use = InUse::default();
            not.iter().for_each(|one| in_use.add(one));
            check_pick(book, *now, want, &in_use, &not);
        }
        Step::Answer(asker) => {
            let len = book.len();
            let told = book.answer(*now, &asker.host).len();
            assert!(told <= len.max(16) && told <= 1000);
        }
        Step::Restart => {
            let bytes = book.encode();
            let again = Book::decode(&bytes, *book.rules(), [9; 32]).expect("what we wrote");
            assert_eq!(again.encode(), bytes);
            let entries = |book: &Book| -> Vec<Record> {
                book.index
                    .values()
                    .map(|id| record(&book.entries[*id]))
                    .collect()
            };
            assert_eq!(entries(book), entries(&again));
            *book = again;
        }
        Step::Wait(seconds) => *now = *now + std::time::Duration::from_secs(seconds.into()),
    }
}

fn check_pick(book: &mut Book, now: Time, want: Want, in_use: &InUse, not: &[Address]) {
    let suits = |entry: &Entry| match want {
        Want::Flagged => entry.services & FLAG != 0,
        Want::Any | Want::Feeler => entry.address.door == Door::Bitcoin,
    };
    let waits = book.waits;
    let waiting = |entry: &Entry| entry.ready_at(seconds(now), &waits) > seconds(now);
    match book.pick(now, want, in_use) {
        Pick::Found(found) => {
            let (_, entry) = book.find(&found.address).expect("it is in the book");
            assert!(suits(entry), "{entry:?}");
            for one in not {
                assert_ne!(found.address, *one);
                assert_ne!(found.control(), Some(*one));
                assert_ne!(found.address.group(), one.group());
            }
            let tested = book.incumbents().any(|one| one.address == found.address);
            assert!(
                !waiting(entry) || want == Want::Feeler && tested,
                "{entry:?} must wait"
            );
        }
        Pick::Later(then) => {
            assert!(then > now);
            let ready = |entry: &Entry| suits(entry) && !in_use.has(entry) && !waiting(entry);
            assert!(want != Want::Flagged || !book.entries.iter().any(|(_, entry)| ready(entry)));
        }
        Pick::Nobody => {
            let any = |entry: &Entry| suits(entry) && !in_use.has(entry);
            assert!(want != Want::Flagged || !book.entries.iter().any(|(_, entry)| any(entry)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_operations_breaks_the_book(
        seed: [u8; 32],
        steps in prop::collection::vec(a_step(), 1..160),
    ) {
        let mut book = Book::new(RULES, seed);
        let mut now = at(0);
        for step in steps {
            apply(&mut book, &mut now, step);
            check(&book);
        }
    }

    #[test]
    fn damaged_files_are_refused(position: prop::sample::Index, value in 1_u8.., cut: prop::sample::Index) {
        let mut book = book();
        let told = (0..30).map(|number| hearsay(peer(number, 1), if number % 2 == 0 { PLAIN } else { FLAGGED }, at(0)));
        book.heard(at(0), Source::OurNode, told);
        prove(&mut book, at(1), &peer(3, 1));
        book.refuted(at(1), &peer(5, 1));
        let bytes = book.encode();
        let mut wrong = bytes.clone();
        *position.get_mut(&mut wrong) ^= value;
        prop_assert!(Book::decode(&wrong, RULES, [0; 32]).is_err());
        let short = &bytes[..cut.index(bytes.len())];
        prop_assert!(Book::decode(short, RULES, [0; 32]).is_err());
    }

    /// The same with a checksum that is right: nothing panics, and what is taken is sound and has one form.
    #[test]
    fn forged_files_are_refused_or_sound(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut book = book();
        let told = (0..12).map(|number| hearsay(peer(number, 1), if number % 2 == 0 { PLAIN } else { FLAGGED }, at(0)));
        book.heard(at(0), Source::Peer(peer(99, 1)), told);
        prove(&mut book, at(1), &peer(3, 1));
        let mut bytes = book.encode();
        bytes.truncate(bytes.len() - 8);
        for (position, value) in changes {
            *position.get_mut(&mut bytes) = value;
        }
        let sum = file::checksum(&bytes);
        bytes.extend(sum);
        if let Ok(forged) = Book::decode(&bytes, RULES, [0; 32]) {
            check(&forged);
            prop_assert_eq!(forged.encode(), bytes);
        }
    }
}

#[test]
fn files_of_others_are_refused_with_the_reason() {
    let bytes = book().encode();
    let decode = |rules| Book::decode(&bytes, rules, [0; 32]).map(|_| ());
    assert_eq!(decode(RULES), Ok(()));
    let other = BookRules {
        flag: 1 << 29,
        ..RULES
    };
    assert_eq!(decode(other), Err(BookError::OtherFlag(FLAG)));
    let local = BookRules {
        locality: Locality::Local,
        ..RULES
    };
    assert_eq!(decode(local), Err(BookError::OtherLocality));
    let read = |bytes: &[u8]| Book::decode(bytes, RULES, [0; 32]).map(|_| ());
    assert_eq!(read(b"BTAB"), Err(BookError::OtherFormat));
    assert_eq!(read(&[b'x'; 90]), Err(BookError::OtherFormat));
    let long = vec![0; MAX_FILE_BYTES + 1];
    assert_eq!(read(&long), Err(BookError::TooLong(long.len())));
}
