//! The machine beside a model of a node whose events get lost, whose calls fail, and which is never waited for.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash as _;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, TxIn, TxOut, Witness};
use proptest::prelude::*;

use super::*;

fn at(milliseconds: u64) -> Time {
    Time::from_nanos(milliseconds * 1_000_000)
}

fn transaction(number: u32) -> (Txid, Bytes) {
    let transaction = Transaction {
        version: Version::TWO,
        lock_time: LockTime::from_consensus(number),
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value: Amount::from_sat(1),
            script_pubkey: ScriptBuf::new(),
        }],
    };
    let body = bitcoin::consensus::serialize(&transaction).into();
    (transaction.compute_txid(), body)
}

fn ids(range: std::ops::Range<u32>) -> Vec<Txid> {
    range.map(|number| transaction(number).0).collect()
}

fn list(range: std::ops::Range<u32>, sequence: u64) -> MempoolList {
    MempoolList {
        ids: ids(range),
        sequence,
    }
}

fn bodies(ids: &[Txid], known: u32) -> Vec<Option<Bytes>> {
    let all: BTreeMap<Txid, Bytes> = (0..known).map(transaction).collect();
    ids.iter().map(|txid| all.get(txid).cloned()).collect()
}

const SEQUENCE: Feed = Feed::Sequence { bodies: false };

fn added(number: u64, transaction_number: u32) -> SequenceEvent {
    let txid = transaction(transaction_number).0;
    SequenceEvent::Added { txid, number }
}

#[test]
fn a_mempool_is_listed_fetched_in_batches_and_followed() {
    let mut mempool = Mempool::new(SEQUENCE, at(0), 1);
    assert_eq!(mempool.poll_command(at(0)), Some(MempoolCommand::List));
    assert_eq!(mempool.poll_command(at(0)), None);
    // One event from before the list, one from after it.
    mempool.handle_sequence(at(1), added(6, 5));
    mempool.handle_sequence(at(1), added(7, 250));
    mempool.handle_list(at(2), list(0..250, 7));
    let mut fetched = 0;
    while let Some(command) = mempool.poll_command(at(2)) {
        match command {
            MempoolCommand::Fetch(ids) => {
                assert!(ids.len() <= MAX_BATCH && mempool.poll_command(at(2)).is_none());
                // The newest first, before the two hundred and fifty of the list.
                assert_eq!(fetched == 0, ids.contains(&transaction(250).0));
                fetched += ids.len();
                mempool.handle_bodies(bodies(&ids, 251));
            }
            MempoolCommand::Add(some) => assert!(some.len() <= MAX_BATCH),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((fetched, mempool.known(), mempool.missing()), (251, 251, 0));
    assert_eq!(mempool.poll_deadline(), None);
    let txid = transaction(3).0;
    mempool.handle_sequence(at(3), SequenceEvent::Removed { txid, number: 8 });
    let demote = MempoolCommand::Demote(vec![txid]);
    assert_eq!(mempool.poll_command(at(3)), Some(demote));
    mempool.handle_block(BlockHash::from_byte_array([0; 32]), &ids(0..100));
    assert_eq!((mempool.known(), mempool.poll_command(at(3))), (151, None));
    assert_eq!(mempool.counts().gaps, 0);
}

#[test]
fn a_gap_leads_to_a_list_and_only_the_difference_is_fetched() {
    let mut mempool = Mempool::new(SEQUENCE, at(0), 1);
    mempool.poll_command(at(0));
    mempool.handle_list(at(0), list(0..3, 1));
    let Some(MempoolCommand::Fetch(asked)) = mempool.poll_command(at(0)) else {
        panic!("no fetch")
    };
    mempool.handle_bodies(bodies(&asked, 3));
    mempool.poll_command(at(0));
    mempool.handle_sequence(at(1), added(3, 4));
    assert_eq!(mempool.counts().gaps, 1);
    assert_eq!(mempool.poll_command(at(1)), Some(MempoolCommand::List));
    // While the list is on its way, another gap: it is taken in, and asked for once more.
    mempool.handle_gap(at(1));
    mempool.handle_list(at(2), list(1..5, 4));
    let demote = MempoolCommand::Demote(ids(0..1));
    assert_eq!(mempool.poll_command(at(2)), Some(demote));
    assert_eq!(
        mempool.poll_deadline().map(|at| at <= self::at(2)),
        Some(true)
    );
    let Some(MempoolCommand::Fetch(mut asked)) = mempool.poll_command(at(2)) else {
        panic!("no fetch")
    };
    asked.sort_unstable();
    let mut expected = ids(3..5);
    expected.sort_unstable();
    assert_eq!(asked, expected);
    let later = at(2) + LEAST_WAIT * 2;
    assert_eq!(mempool.poll_command(later), Some(MempoolCommand::List));
    // A failed batch goes back, and is not asked for at once.
    mempool.handle_bodies_failed(later);
    mempool.handle_list(later, list(1..5, 4));
    assert_eq!(mempool.poll_command(later), None);
    let due = mempool.poll_deadline().unwrap();
    assert!(due > later && due <= later + MOST_WAIT);
    assert!(
        matches!(mempool.poll_command(due), Some(MempoolCommand::Fetch(ids)) if ids.len() == 2)
    );
}

#[test]
fn bodies_that_are_published_are_not_fetched() {
    let mut mempool = Mempool::new(Feed::Sequence { bodies: true }, at(0), 1);
    mempool.poll_command(at(0));
    mempool.handle_list(at(0), list(0..0, 1));
    // Before its event, after it, and not at all.
    mempool.handle_transaction(transaction(1).1);
    mempool.handle_sequence(at(1), added(1, 1));
    mempool.handle_sequence(at(1), added(2, 2));
    mempool.handle_sequence(at(1), added(3, 3));
    mempool.handle_transaction(transaction(2).1);
    assert!(
        matches!(mempool.poll_command(at(1)), Some(MempoolCommand::Add(two)) if two.len() == 2)
    );
    assert_eq!(mempool.poll_command(at(1)), None);
    let due = at(1) + BODY_TIME;
    assert_eq!(mempool.poll_deadline(), Some(due));
    let fetch = MempoolCommand::Fetch(ids(3..4));
    assert_eq!(mempool.poll_command(due), Some(fetch));
    mempool.handle_transaction(transaction(3).1);
    mempool.handle_bodies(bodies(&ids(3..4), 4));
    assert!(matches!(mempool.poll_command(due), Some(MempoolCommand::Add(one)) if one.len() == 1));
    assert_eq!(mempool.poll_command(due), None);
    mempool.handle_transaction(Bytes::from_static(&[0; 70]));
    let counts = mempool.counts();
    assert_eq!((counts.pushed, counts.fetched, counts.malformed), (3, 0, 1));
    // Left and came back: its body is published and taken again.
    let txid = transaction(1).0;
    mempool.handle_sequence(due, SequenceEvent::Removed { txid, number: 4 });
    mempool.handle_transaction(transaction(1).1);
    mempool.handle_sequence(due, added(5, 1));
    assert!(matches!(mempool.poll_command(due), Some(MempoolCommand::Add(one)) if one.len() == 1));
}

#[test]
fn without_a_feed_the_list_is_repeated_and_with_peers_seldom() {
    for (feed, time) in [(Feed::None, POLL_TIME), (Feed::Bodies, TIDY_TIME)] {
        let mut mempool = Mempool::new(feed, at(0), 1);
        assert_eq!(mempool.poll_command(at(0)), Some(MempoolCommand::List));
        mempool.handle_list_failed(at(0));
        let again = mempool.poll_deadline().unwrap();
        assert!(again > at(0) && mempool.poll_command(again) == Some(MempoolCommand::List));
        mempool.handle_list(again, list(0..0, 1));
        assert_eq!(mempool.poll_deadline(), Some(again + time));
        assert_eq!(
            mempool.poll_command(again + time),
            Some(MempoolCommand::List)
        );
    }
    let mut mempool = Mempool::new(Feed::Bodies, at(0), 1);
    mempool.handle_transaction(transaction(1).1);
    assert_eq!((mempool.known(), mempool.missing()), (1, 0));
    mempool.handle_feed(at(1), SEQUENCE);
    assert!(matches!(
        mempool.poll_command(at(1)),
        Some(MempoolCommand::Add(_))
    ));
    assert_eq!(mempool.poll_command(at(1)), Some(MempoolCommand::List));
}

/// A node, what is on its way from it, and what a store would hold.
struct World {
    node: BTreeMap<Txid, Bytes>,
    number: u64,
    made: u32,
    events: VecDeque<SequenceEvent>,
    listing: Option<MempoolList>,
    fetching: Option<Vec<Txid>>,
    store: BTreeSet<Txid>,
    mempool: Mempool,
    now: Time,
}

impl World {
    fn step(&mut self, what: u8, dice: usize) {
        let pick =
            |node: &BTreeMap<Txid, Bytes>| node.keys().nth(dice % node.len().max(1)).copied();
        match what {
            0..=4 => {
                let (txid, body) = transaction(self.made);
                self.made += 1;
                self.node.insert(txid, body.clone());
                self.events.push_back(SequenceEvent::Added {
                    txid,
                    number: self.number,
                });
                self.number += 1;
                if dice.is_multiple_of(3) {
                    self.mempool.handle_transaction(body);
                }
            }
            5 => {
                if let Some(txid) = pick(&self.node) {
                    self.node.remove(&txid);
                    self.events.push_back(SequenceEvent::Removed {
                        txid,
                        number: self.number,
                    });
                    self.number += 1;
                }
            }
            6 => {
                let is_block =
                    |event: &&SequenceEvent| matches!(event, SequenceEvent::Connected(_));
                let has_room = self.events.iter().filter(is_block).count() < MAX_CONFIRMED;
                if let Some(txid) = pick(&self.node).filter(|_| has_room) {
                    self.node.remove(&txid);
                    self.store.remove(&txid);
                    let hash = BlockHash::from_byte_array(txid.to_byte_array());
                    self.events.push_back(SequenceEvent::Connected(hash));
                    self.mempool.handle_block(hash, &[txid]);
                }
            }
            7..=10 => {
                if let Some(event) = self.events.pop_front() {
                    self.mempool.handle_sequence(self.now, event);
                }
            }
            11 => drop(self.events.pop_front()),
            12 => self.answer_list(dice.is_multiple_of(4)),
            13 => self.answer_fetch(dice.is_multiple_of(4)),
            _ => self.now = self.now + Duration::from_millis(dice as u64 % 500),
        }
        self.obey();
    }

    fn obey(&mut self) {
        while let Some(command) = self.mempool.poll_command(self.now) {
            match command {
                MempoolCommand::List => {
                    assert!(self.listing.is_none(), "two lists at once");
                    self.listing = Some(MempoolList {
                        ids: self.node.keys().copied().collect(),
                        sequence: self.number,
                    });
                }
                MempoolCommand::Fetch(ids) => {
                    assert!(self.fetching.is_none(), "two batches at once");
                    self.fetching = Some(ids);
                }
                MempoolCommand::Add(some) => self.store.extend(some.iter().map(|body| {
                    let transaction: Transaction = bitcoin::consensus::deserialize(body).unwrap();
                    transaction.compute_txid()
                })),
                MempoolCommand::Demote(ids) => {
                    for txid in ids {
                        self.store.remove(&txid);
                    }
                }
            }
        }
    }

    fn answer_list(&mut self, fails: bool) {
        match self.listing.take() {
            Some(_) if fails => self.mempool.handle_list_failed(self.now),
            Some(list) => self.mempool.handle_list(self.now, list),
            None => {}
        }
    }

    fn answer_fetch(&mut self, fails: bool) {
        match self.fetching.take() {
            Some(_) if fails => self.mempool.handle_bodies_failed(self.now),
            Some(ids) => {
                let bodies = ids
                    .iter()
                    .map(|txid| self.node.get(txid).cloned())
                    .collect();
                self.mempool.handle_bodies(bodies);
            }
            None => {}
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_lost_all_is_there_in_the_end(
        steps in proptest::collection::vec((0_u8..15, 0_usize..1_000), 0..300), publishes in any::<bool>(),
    ) {
        let mut world = World {
            node: BTreeMap::new(),
            number: 1,
            made: 0,
            events: VecDeque::new(),
            listing: None,
            fetching: None,
            store: BTreeSet::new(),
            mempool: Mempool::new(Feed::Sequence { bodies: publishes }, at(0), 1),
            now: at(0),
        };
        for (what, dice) in steps {
            world.step(what, dice);
        }
        // Nothing is lost any more, and one more transaction shows what was.
        world.step(0, 1);
        for round in 0.. {
            while let Some(event) = world.events.pop_front() {
                world.mempool.handle_sequence(world.now, event);
            }
            world.obey();
            world.answer_list(false);
            world.answer_fetch(false);
            world.obey();
            if world.listing.is_none() && world.fetching.is_none() {
                let Some(due) = world.mempool.poll_deadline() else {
                    break;
                };
                world.now = world.now.max(due);
            }
            prop_assert!(round < 100, "it never comes to rest");
        }
        prop_assert_eq!(world.mempool.known(), world.node.len());
        prop_assert_eq!(world.mempool.missing(), 0);
        for txid in world.node.keys() {
            prop_assert!(world.store.contains(txid));
        }
    }
}
