//! What a peer probably lacks of a block that is whole here: those transactions go before parity.
//!
//! Three things tell of it. What this node lacked itself, others lack too. What came into the cache here a moment before the
//! block may not have come to them yet. And what a peer has or waits for of a competing block, it has or lacks of this one.
//! There is no more: between relays transactions are named in jobs alone, and what Bitcoin's own connections of the host
//! announce is by nodes that no session is known to belong to.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::relay::arrivals::Arrivals;
use crate::relay::parity::amount::EMPTY_CACHE;
use crate::wire::DEFAULT_MAX_DATAGRAM;

/// What part of a push budget goes for predicted transactions: one in so many bytes.
///
/// One that is lacking costs its bytes, where parity would cost half as much again (PAR-2); one that is not is wasted, where
/// parity serves for any. With half, neither a prediction that fails nor one that comes true for more than is expected
/// takes all that the other would have made good.
const PREDICTED_PART: u64 = 2;

/// Most bytes of predicted transactions to a peer: half of what is granted while nothing is known. Who is granted more is
/// known to lack much, and needs all of it as parity unless it lacks the same as this node: where each of three nodes lacks
/// its own tenth (`burst`), half of a large grant for what was lacking here made the median 106 ms instead of 43.
const MAX_PREDICTED: u64 = 7 * DEFAULT_MAX_DATAGRAM as u64;

/// A transaction that another job has too.
#[derive(Clone, Copy, Debug)]
pub(in crate::relay) struct Elsewhere {
    leaf: u32,
    job: u16,
    leaf_there: u32,
}

impl Engine {
    /// A block is whole: what is likely to be lacking of it goes to the peers that grant it.
    pub(super) fn predict(&mut self, id: u16) {
        let Some(entry) = self.jobs.get(&id) else {
            return;
        };
        let predicted = entry.likely_lacking(&self.arrivals);
        let elsewhere = self.elsewhere(entry, &predicted);
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        // A competing block may hold it too, and a block of another branch.
        if entry.lacked_few() && self.mempool.len() >= EMPTY_CACHE {
            let lacked = entry.lacked.iter();
            for transaction in lacked.filter_map(|leaf| entry.job.transaction(*leaf)) {
                self.mempool.insert(transaction);
            }
        }
        entry.predicted = predicted;
        entry.elsewhere = elsewhere;
        let slots: Vec<u32> = entry.peers.keys().copied().collect();
        for slot in slots {
            self.push_predicted(id, slot);
        }
    }

    /// Where else the predicted transactions are: in jobs of competing blocks, and of blocks that this one's branch has not.
    fn elsewhere(&self, entry: &JobEntry, predicted: &[u32]) -> Vec<Elsewhere> {
        let ids = predicted.iter().filter_map(|leaf| {
            let transaction = entry.job.transaction(*leaf)?;
            Some((transaction.wtxid(), *leaf))
        });
        let ids: BTreeMap<Hash, u32> = ids.collect();
        let competes = |other: &&JobEntry| {
            // Nothing that the block before has can be in this one.
            let before = entry.job.header.get(4..36) == Some(&other.job.hash[..]);
            other.id != entry.id && !before && other.job.height + 1 >= entry.job.height
        };
        let others = self.jobs.values().map(|other| &**other).filter(competes);
        let places = others.filter(|_| !ids.is_empty()).flat_map(|other| {
            let leaves = 1..other.job.geometry.count();
            leaves.map(move |leaf| (other, leaf))
        });
        let found = places.filter_map(|(other, leaf_there)| {
            let leaf = ids.get(&other.job.transaction(leaf_there)?.wtxid())?;
            Some(Elsewhere {
                leaf: *leaf,
                job: other.id,
                leaf_there,
            })
        });
        found.collect()
    }

    /// Lets a peer have, within its budget, what it probably lacks of a block that is whole: first what it waits for
    /// elsewhere, nothing that it has there.
    pub(super) fn push_predicted(&mut self, id: u16, slot: u32) {
        let Some(entry) = self.jobs.get(&id) else {
            return;
        };
        let (mut has, mut waits) = (BTreeSet::new(), BTreeSet::new());
        for other in &entry.elsewhere {
            let job = self.jobs.get(&other.job);
            let Some(peer) = job.and_then(|job| job.peers.get(&slot)) else {
                continue;
            };
            if peer.has_leaf(other.leaf_there) {
                has.insert(other.leaf);
            } else if peer.waits_for(other.leaf_there) {
                waits.insert(other.leaf);
            }
        }
        let mut order: Vec<u32> = entry.predicted.clone();
        order.retain(|leaf| !has.contains(leaf));
        order.sort_by_key(|leaf| !waits.contains(leaf));
        if let Some(entry) = self.jobs.get_mut(&id) {
            entry.push_likely(slot, &order);
        }
    }
}

impl JobEntry {
    /// Whether so little was lacking here that it tells what others may lack (PSH-5).
    fn lacked_few(&self) -> bool {
        self.lacked.len() as u64 * 4 <= u64::from(self.job.geometry.count())
    }

    /// What peers may lack, the likeliest first: what was lacking here, then what came to the cache last.
    fn likely_lacking(&self, arrivals: &Arrivals) -> Vec<u32> {
        if !self.lacked_few() {
            return Vec::new();
        }
        let mut likely = self.lacked.clone();
        let late = arrivals.late_for(self.job.opened);
        if late.is_empty() {
            return likely;
        }
        let lacked: BTreeSet<u32> = likely.iter().copied().collect();
        let leaves = (0..).zip(self.job.transactions()).skip(1);
        let late = leaves.filter_map(|(leaf, transaction)| {
            let later = late.get(&transaction.wtxid())?;
            (!lacked.contains(&leaf)).then_some((*later, leaf))
        });
        let mut late: Vec<(usize, u32)> = late.collect();
        late.sort_unstable();
        likely.extend(late.into_iter().map(|(_, leaf)| leaf));
        likely
    }

    /// Adds transactions to what goes to a peer unasked, in this order as far as its budget goes. What is left of that is
    /// parity's.
    fn push_likely(&mut self, slot: u32, order: &[u32]) {
        let job = &self.job;
        let Some(peer) = self.peers.get_mut(&slot).filter(|peer| !peer.has_all()) else {
            return;
        };
        // Nothing of it has gone yet.
        let Some(mut parity) = peer.body_parity.take_if(|parity| parity.planned == 0) else {
            return;
        };
        let mut left = (parity.left / PREDICTED_PART).min(MAX_PREDICTED);
        for leaf in order {
            let Some(transaction) = job.transaction(*leaf) else {
                continue;
            };
            let length = transaction.len() as u64;
            if length <= left && !peer.has_leaf(*leaf) {
                left -= length;
                parity.left -= length;
                peer.want(*leaf, true);
            }
        }
        peer.body_parity = Some(parity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    use crate::mempool::{BlockLimits, Transaction, split_block};
    use crate::relay::EngineConfig;
    use crate::relay::parity::ParityPush;
    use crate::relay::{HeaderJudge, HeaderVerdict};
    use crate::wire::ParityKind;

    struct Anything;

    impl HeaderJudge for Anything {
        fn accept(&mut self, _: &[u8; 80], _: Time) -> Result<HeaderVerdict, HeaderRefusal> {
            Ok(HeaderVerdict {
                height: 9,
                in_window: true,
                segwit_active: true,
            })
        }

        fn tip(&self) -> [u8; 32] {
            [0; 32]
        }
    }

    const START: Time = Time::from_unix_seconds(1_700_000_000);
    /// Leaves that were lacking, and those that were late, in the order of their arrival.
    const LACKED: u32 = 40;
    const LATE: [u32; 3] = [300, 20, 100];

    /// A real block, and what it has but the coinbase.
    fn block() -> (Bytes, Vec<Transaction>) {
        let bytes = Bytes::from_static(bitcoin_test_data::blocks::mainnet_702861());
        let limits = BlockLimits {
            max_bytes: 4_000_000,
            max_transactions: 16_666,
        };
        let (_, transactions) = split_block(bytes.clone(), limits).unwrap();
        (bytes, transactions.into_iter().skip(1).collect())
    }

    fn empty_engine() -> Engine {
        let config = EngineConfig {
            network_magic: 0,
            max_block_bytes: 4_000_000,
            max_transactions: 16_666,
            udp_port: 1,
            control_port: 0,
            bitcoin_port: 0,
            push_level: 3,
            preference: 255,
            role: 0,
            max_up_bytes_per_s: None,
            max_down_bytes_per_s: None,
            max_datagram: 1_472,
            max_peers: 8,
            reserved_outbound: 0,
            max_inbound_per_group: 8,
            max_mempool_bytes: 30_000_000,
            agent: String::new(),
            lie: false,
        };
        Engine::new(config, Box::new(Anything), [1; 32], START)
    }

    /// An engine that has most of a block long since, some of it late and one transaction not at all; and the block.
    fn engine() -> (Engine, Bytes) {
        let (block, transactions) = block();
        let mut engine = empty_engine();
        let mut add = |now, leaf: u32| {
            let bytes = transactions[leaf as usize - 1].bytes().clone();
            engine.add_transaction(now, bytes).unwrap();
        };
        let early = |leaf: &u32| *leaf != LACKED && !LATE.contains(leaf);
        let all = 1..=transactions.len() as u32;
        all.filter(early).for_each(|leaf| add(START, leaf));
        for (later, leaf) in (0..).zip(LATE) {
            add(START + Duration::from_millis(60_000 + later * 100), leaf);
        }
        (engine, block)
    }

    /// Hands in a block that differs from the one of the engine by its header's nonce.
    fn submit(engine: &mut Engine, block: &Bytes, nonce: u8) -> u16 {
        let mut block = block.to_vec();
        block[76] ^= nonce;
        let now = START + Duration::from_millis(60_500 + u64::from(nonce));
        let hash = engine.submit_block(now, block.into()).unwrap();
        engine.jobs_by_hash[&hash]
    }

    /// What goes to a peer of that budget, in order.
    fn pushed(engine: &mut Engine, id: u16, slot: u32, bytes: u64) -> Vec<u32> {
        let entry = engine.jobs.get_mut(&id).unwrap();
        let parity = ParityPush::new(ParityKind::Transactions, 0, bytes);
        entry.peer(slot, START).body_parity = Some(parity);
        engine.push_predicted(id, slot);
        let entry = engine.jobs.get_mut(&id).unwrap();
        let mut order = Vec::new();
        let mut length = 0;
        while let Some(leaf) = entry.peer(slot, START).next_ready() {
            order.push(leaf);
            length += entry.job.transaction(leaf).unwrap().len() as u64;
            entry.peer(slot, START).ready_sent();
        }
        assert!(length <= (bytes / PREDICTED_PART).min(MAX_PREDICTED));
        let left = entry
            .peer(slot, START)
            .body_parity
            .map(|parity| parity.left);
        assert_eq!(left, Some(bytes - length));
        order
    }

    #[test]
    fn what_was_lacking_goes_first_and_then_what_came_last_within_the_budget() {
        let (mut engine, block) = engine();
        let id = submit(&mut engine, &block, 0);
        let all = [LACKED, LATE[2], LATE[1], LATE[0]];
        assert_eq!(pushed(&mut engine, id, 0, 100_000), all);
        let entry = &engine.jobs[&id];
        let lengths = all.map(|leaf| entry.job.transaction(leaf).unwrap().len() as u64);
        let most = (lengths[0] + lengths[1]) * PREDICTED_PART;
        let few = pushed(&mut engine, id, 1, most);
        assert_eq!(few, all[..2]);
        assert_eq!(pushed(&mut engine, id, 2, 50), [0; 0]);
    }

    #[test]
    fn nothing_is_late_that_came_long_before() {
        let (mut engine, block) = engine();
        let later = START + Duration::from_secs(70);
        let hash = engine.submit_block(later, block).unwrap();
        let id = engine.jobs_by_hash[&hash];
        assert_eq!(pushed(&mut engine, id, 0, 100_000), [LACKED]);
    }

    #[test]
    fn a_competing_block_tells_what_a_peer_has_and_what_it_waits_for() {
        let (mut engine, block) = engine();
        let first = submit(&mut engine, &block, 0);
        let peer = engine.jobs.get_mut(&first).unwrap().peer(0, START);
        peer.note_has(LATE[2]..LATE[2] + 1);
        peer.want(LATE[0], true);
        let second = submit(&mut engine, &block, 1);
        // What the first block brought is in the cache, and not lacking any more.
        assert_eq!(engine.jobs[&second].lacked, [0; 0]);
        assert_eq!(pushed(&mut engine, second, 0, 100_000), [LATE[0], LATE[1]]);
        let of_a_stranger = [LATE[2], LATE[1], LATE[0]];
        assert_eq!(pushed(&mut engine, second, 1, 100_000), of_a_stranger);
    }

    #[test]
    fn who_lacked_much_predicts_nothing() {
        let (block, transactions) = block();
        let mut engine = empty_engine();
        for transaction in transactions.iter().take(1_500) {
            let bytes = transaction.bytes().clone();
            engine.add_transaction(START, bytes).unwrap();
        }
        let id = submit(&mut engine, &block, 0);
        assert_eq!(pushed(&mut engine, id, 0, 100_000), [0; 0]);
        assert_eq!(engine.mempool.len(), 1_500);
    }
}
