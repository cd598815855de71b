//! Keeps what we hold of a node's mempool in step with it, by ids; the bodies go to whoever keeps them.
//!
//! ```text
//!  list (RPC, with the number of the next event) ─▶ wanted ─▶ fetch in batches ─▶ add
//!  events (ZMQ `sequence`, numbered without gap) ─▶ wanted, demote
//!  bodies (ZMQ `rawtx`, P2P)                     ─▶ add
//! ```
//!
//! A gap in the numbers, or a feed that broke, leads to a new list, and the difference to what is known is fetched and
//! demoted. At most one list and one batch are under way. Each id is in exactly one state, see `Held`.
//!
//! What this is not: a store of transactions. And nothing is demoted because a block took it: whoever has the block
//! tells ([`Mempool::handle_block`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bitcoin::{BlockHash, Transaction, Txid};
use bytes::Bytes;

use super::answer::{MAX_MEMPOOL_IDS, MempoolList};
use super::backoff::Backoff;
use super::notice::SequenceEvent;
use super::rpc::MAX_BATCH;
use crate::time::Time;

/// Events that wait for a list. Reason: a list of 300,000 takes a second, in which the network's worst bursts have
/// some thousand transactions; beyond it the list is asked for again.
const MAX_WAITING: usize = 65_536;
/// Bodies that came before the event that says why. Reason: events follow within the same moment; a block's
/// transactions, which are published without such events, must not push the others out at once.
const MAX_EARLY: usize = 8_192;
/// Blocks whose own events are still to come. Reason: two at once are rare, and a reorganisation brings more; for each
/// that is forgotten some transactions may be fetched in vain.
const MAX_CONFIRMED: usize = 12;
/// Ids in one [`MempoolCommand::Demote`]. Reason: as many as a large block has transactions.
const MAX_DEMOTED: usize = 16_384;
/// How long after an event its body may come by itself, where bodies are published: the publisher sends both in the
/// same moment.
const BODY_TIME: Duration = Duration::from_millis(100);
/// How often a mempool is listed without any feed of its changes: a list of 300,000 ids costs bitcoind and us some
/// tenths of a second.
const POLL_TIME: Duration = Duration::from_secs(30);
/// How often it is listed while peers announce additions, and nobody removals.
const TIDY_TIME: Duration = Duration::from_secs(600);
/// The first wait after a list or a batch failed, or after a list did not fit the events.
const LEAST_WAIT: Duration = Duration::from_millis(250);
/// The longest wait.
const MOST_WAIT: Duration = Duration::from_secs(30);

/// How changes are heard of between two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// Not at all.
    None,
    /// Additions only, as bodies: P2P.
    Bodies,
    /// Additions and removals, numbered: ZMQ `sequence`; with the bodies, if `rawtx` is published as well.
    Sequence {
        /// Whether `rawtx` is published.
        bodies: bool,
    },
}

/// What is to be done. Lists and fetches are answered by a call to the machine, in any order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MempoolCommand {
    /// List the mempool, with the number of the next event.
    List,
    /// Get these bodies: at most [`MAX_BATCH`].
    Fetch(Vec<Txid>),
    /// Keep these transactions.
    Add(Vec<Bytes>),
    /// The node no longer has these, and no block that we know took them.
    Demote(Vec<Txid>),
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MempoolCounts {
    /// Lists that were taken in.
    pub lists: u64,
    /// Gaps in the events, and feeds that broke.
    pub gaps: u64,
    /// Bodies that were asked for and came.
    pub fetched: u64,
    /// Bodies that came by themselves.
    pub pushed: u64,
    /// Bodies that had gone when they were asked for.
    pub absent: u64,
    /// Bytes that are no transaction.
    pub malformed: u64,
    /// Ids beyond the bound.
    pub beyond_bound: u64,
}

/// What is known of a transaction's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// In a queue, to be fetched.
    Wanted,
    /// In the batch under way.
    Asked,
    /// Handed over.
    Here,
}

#[derive(Debug)]
enum Phase {
    /// A list is due then.
    Due(Time),
    /// It was asked for; the events that came since, and whether something happened that it may be too old for.
    Listing {
        waiting: VecDeque<SequenceEvent>,
        is_stale: bool,
    },
    /// The number of the next event, if there is a feed of them; when the next list is due, if at a fixed time.
    Following {
        next: Option<u64>,
        list_at: Option<Time>,
    },
}

/// The machine.
#[derive(Debug)]
pub struct Mempool {
    feed: Feed,
    phase: Phase,
    known: BTreeMap<Txid, Held>,
    /// From lists.
    load: VecDeque<Txid>,
    /// From events, with the time from which they may be fetched.
    fresh: VecDeque<(Time, Txid)>,
    asked: Vec<Txid>,
    fetch_at: Time,
    early: BTreeSet<Txid>,
    early_order: VecDeque<Txid>,
    /// Blocks that the feed may not have come to yet: events before theirs may still add what is in them.
    confirmed: VecDeque<(BlockHash, BTreeSet<Txid>)>,
    added: Vec<Bytes>,
    demoted: VecDeque<Txid>,
    backoff: Backoff,
    counts: MempoolCounts,
}

impl Mempool {
    /// Nothing is known, and a list is due.
    pub fn new(feed: Feed, now: Time, seed: u64) -> Self {
        Self {
            feed,
            phase: Phase::Due(now),
            known: BTreeMap::new(),
            load: VecDeque::new(),
            fresh: VecDeque::new(),
            asked: Vec::new(),
            fetch_at: now,
            early: BTreeSet::new(),
            early_order: VecDeque::new(),
            confirmed: VecDeque::new(),
            added: Vec::new(),
            demoted: VecDeque::new(),
            backoff: Backoff::new(LEAST_WAIT, MOST_WAIT, seed),
            counts: MempoolCounts::default(),
        }
    }

    /// What happened so far.
    pub fn counts(&self) -> MempoolCounts {
        self.counts
    }

    /// Transactions that the node has as far as we know.
    pub fn known(&self) -> usize {
        self.known.len()
    }

    /// Bodies that are still to be fetched, at most.
    pub fn missing(&self) -> usize {
        self.load.len() + self.fresh.len() + self.asked.len()
    }

    /// Another node is followed, or the same one anew: what is known stays, and a list tells the difference. Answers to
    /// what was asked before must not be handed over any more.
    pub fn handle_feed(&mut self, now: Time, feed: Feed) {
        self.feed = feed;
        self.give_back_asked();
        self.fetch_at = now;
        self.phase = Phase::Due(now);
    }

    /// Events may be missing: the feed broke, was connected anew, or its counter has a gap.
    pub fn handle_gap(&mut self, now: Time) {
        self.counts.gaps += 1;
        match &mut self.phase {
            // Put off after a failure: what is connected again may answer again.
            Phase::Due(at) => *at = (*at).min(now + LEAST_WAIT),
            // It is taken in, and asked for once more.
            Phase::Listing { is_stale, .. } => *is_stale = true,
            Phase::Following { .. } => self.phase = Phase::Due(now),
        }
    }

    /// An event of the topic `sequence`. What a block contains is told by [`Mempool::handle_block`].
    pub fn handle_sequence(&mut self, now: Time, event: SequenceEvent) {
        let number = match event {
            SequenceEvent::Added { number, .. } | SequenceEvent::Removed { number, .. } => number,
            SequenceEvent::Connected(hash) => {
                let place = self.confirmed.iter().position(|(block, _)| *block == hash);
                return drop(self.confirmed.drain(..place.map_or(0, |place| place + 1)));
            }
            // What its block took may be added again.
            SequenceEvent::Disconnected(_) => return self.confirmed.clear(),
        };
        match &mut self.phase {
            Phase::Due(_) => {}
            Phase::Listing { waiting, .. } if waiting.len() < MAX_WAITING => {
                waiting.push_back(event);
            }
            Phase::Listing { .. } => self.handle_gap(now),
            Phase::Following { next, .. } => match next {
                // From before the list.
                Some(next) if number < *next => {}
                Some(next) if number > *next => self.handle_gap(now),
                _ => {
                    *next = Some(number + 1);
                    self.apply(now, event);
                }
            },
        }
    }

    /// A transaction that came by itself.
    pub fn handle_transaction(&mut self, body: Bytes) {
        let Ok(transaction) = bitcoin::consensus::deserialize::<Transaction>(&body) else {
            self.counts.malformed += 1;
            return;
        };
        let txid = transaction.compute_txid();
        match self.known.get_mut(&txid) {
            Some(Held::Here) => return,
            Some(held) => *held = Held::Here,
            None if self.feed == Feed::Bodies => self.note(txid, Held::Here),
            None => self.note_early(txid),
        }
        self.counts.pushed += 1;
        self.added.push(body);
    }

    /// This block with these transactions is the tip now.
    pub fn handle_block(&mut self, hash: BlockHash, txids: &[Txid]) {
        for txid in txids {
            self.known.remove(txid);
        }
        if self.confirmed.len() == MAX_CONFIRMED {
            self.confirmed.pop_front();
        }
        self.confirmed
            .push_back((hash, txids.iter().copied().collect()));
        // The list under way may be from before the block, and would bring them back.
        if let Phase::Listing { is_stale, .. } = &mut self.phase {
            *is_stale = true;
        }
    }

    /// The answer to [`MempoolCommand::List`].
    pub fn handle_list(&mut self, now: Time, list: MempoolList) {
        let Phase::Listing { waiting, is_stale } = &mut self.phase else {
            return;
        };
        let (waiting, is_stale) = (std::mem::take(waiting), *is_stale);
        self.counts.lists += 1;
        self.take_in(list.ids);
        let (next, list_at) = match self.feed {
            Feed::None => (None, Some(now + POLL_TIME)),
            Feed::Bodies => (None, Some(now + TIDY_TIME)),
            Feed::Sequence { .. } => (Some(list.sequence), None),
        };
        self.phase = Phase::Following { next, list_at };
        for event in waiting {
            self.handle_sequence(now, event);
        }
        if is_stale {
            self.phase = Phase::Due(now);
        }
        match self.phase {
            Phase::Following { .. } => self.backoff.succeeded(),
            // The events that the list should go on with are not there: not at once again.
            _ => self.phase = Phase::Due(now + self.backoff.failed()),
        }
    }

    /// A list could not be had.
    pub fn handle_list_failed(&mut self, now: Time) {
        if matches!(self.phase, Phase::Listing { .. }) {
            self.phase = Phase::Due(now + self.backoff.failed());
        }
    }

    /// The answer to [`MempoolCommand::Fetch`], in its order and of its length; `None` for what the node no longer has.
    pub fn handle_bodies(&mut self, bodies: Vec<Option<Bytes>>) {
        for (txid, body) in std::mem::take(&mut self.asked).into_iter().zip(bodies) {
            let held = self
                .known
                .get_mut(&txid)
                .filter(|held| **held == Held::Asked);
            match (held, body) {
                (Some(held), Some(body)) => {
                    *held = Held::Here;
                    self.counts.fetched += 1;
                    self.added.push(body);
                }
                (Some(_), None) => {
                    self.counts.absent += 1;
                    self.known.remove(&txid);
                }
                // It came by itself, or has left the mempool meanwhile.
                (None, _) => {}
            }
        }
    }

    /// A fetch failed as a whole: it is repeated later.
    pub fn handle_bodies_failed(&mut self, now: Time) {
        self.give_back_asked();
        self.fetch_at = now + self.backoff.failed();
    }

    /// What to do now.
    pub fn poll_command(&mut self, now: Time) -> Option<MempoolCommand> {
        if !self.added.is_empty() {
            return Some(MempoolCommand::Add(std::mem::take(&mut self.added)));
        }
        if !self.demoted.is_empty() {
            let some = self.demoted.len().min(MAX_DEMOTED);
            let some: Vec<Txid> = self.demoted.drain(..some).collect();
            return Some(MempoolCommand::Demote(some));
        }
        let is_due = match self.phase {
            Phase::Due(at) => at <= now,
            Phase::Following { list_at, .. } => list_at.is_some_and(|at| at <= now),
            Phase::Listing { .. } => false,
        };
        if is_due {
            self.phase = Phase::Listing {
                waiting: VecDeque::new(),
                is_stale: false,
            };
            return Some(MempoolCommand::List);
        }
        if self.asked.is_empty() && self.fetch_at <= now {
            self.fill_batch(now);
            if !self.asked.is_empty() {
                return Some(MempoolCommand::Fetch(self.asked.clone()));
            }
        }
        None
    }

    /// When to call [`Mempool::poll_command`] again, if nothing else happens.
    pub fn poll_deadline(&self) -> Option<Time> {
        let list = match self.phase {
            Phase::Due(at) => Some(at),
            Phase::Following { list_at, .. } => list_at,
            Phase::Listing { .. } => None,
        };
        let next = match self.load.is_empty() {
            false => Some(Time::ZERO),
            true => self.fresh.front().map(|(due, _)| *due),
        };
        let fetch = next
            .filter(|_| self.asked.is_empty())
            .map(|due| due.max(self.fetch_at));
        list.into_iter().chain(fetch).min()
    }

    /// Notes the difference between what is known and what the node has.
    fn take_in(&mut self, ids: Vec<Txid>) {
        let mut listed = ids;
        listed.sort_unstable();
        let gone: Vec<Txid> = self
            .known
            .keys()
            .filter(|txid| listed.binary_search(txid).is_err())
            .copied()
            .collect();
        for txid in gone {
            self.drop_known(txid);
        }
        for txid in listed {
            if self.note_new(txid) {
                self.load.push_back(txid);
            }
        }
        self.compact();
    }

    fn apply(&mut self, now: Time, event: SequenceEvent) {
        match event {
            SequenceEvent::Added { txid, .. } if self.is_confirmed(&txid) => {}
            SequenceEvent::Added { txid, .. } if self.note_new(txid) => {
                let bodies = matches!(self.feed, Feed::Sequence { bodies: true });
                let wait = if bodies { BODY_TIME } else { Duration::ZERO };
                self.fresh.push_back((now + wait, txid));
                self.compact();
            }
            SequenceEvent::Removed { txid, .. } => self.drop_known(txid),
            _ => {}
        }
    }

    /// Notes an id of the node's; whether its body must be fetched.
    fn note_new(&mut self, txid: Txid) -> bool {
        if self.known.contains_key(&txid) {
            return false;
        }
        let held = match self.early.remove(&txid) {
            true => Held::Here,
            false => Held::Wanted,
        };
        self.note(txid, held);
        held == Held::Wanted && self.known.contains_key(&txid)
    }

    fn is_confirmed(&self, txid: &Txid) -> bool {
        self.confirmed.iter().any(|(_, txids)| txids.contains(txid))
    }

    /// Bounds the queues: an id stands there once more for each time that it left and came back unfetched.
    fn compact(&mut self) {
        if self.load.len() + self.fresh.len() > self.known.len() + MAX_WAITING {
            self.fresh.clear();
            let is_wanted = |(txid, held): (&Txid, &Held)| (*held == Held::Wanted).then_some(*txid);
            self.load = self.known.iter().filter_map(is_wanted).collect();
        }
    }

    fn note(&mut self, txid: Txid, held: Held) {
        if self.known.len() < MAX_MEMPOOL_IDS {
            self.known.insert(txid, held);
        } else {
            self.counts.beyond_bound += 1;
        }
    }

    /// Notes a body that nothing is known of.
    fn note_early(&mut self, txid: Txid) {
        if self.early.insert(txid) {
            self.early_order.push_back(txid);
        }
        if self.early_order.len() > MAX_EARLY
            && let Some(oldest) = self.early_order.pop_front()
        {
            self.early.remove(&oldest);
        }
    }

    fn drop_known(&mut self, txid: Txid) {
        if self.known.remove(&txid) == Some(Held::Here) {
            self.demoted.push_back(txid);
        }
    }

    /// Moves wanted ids into the batch: new ones first, since the next block will rather have those that others do not.
    fn fill_batch(&mut self, now: Time) {
        while self.asked.len() < MAX_BATCH {
            let is_due = self.fresh.front().is_some_and(|(due, _)| *due <= now);
            let next = match is_due {
                true => self.fresh.pop_front().map(|(_, txid)| txid),
                false => self.load.pop_front(),
            };
            let Some(txid) = next else {
                return;
            };
            if let Some(held @ Held::Wanted) = self.known.get_mut(&txid) {
                *held = Held::Asked;
                self.asked.push(txid);
            }
        }
    }

    fn give_back_asked(&mut self) {
        for txid in std::mem::take(&mut self.asked).into_iter().rev() {
            if let Some(held @ Held::Asked) = self.known.get_mut(&txid) {
                *held = Held::Wanted;
                self.load.push_front(txid);
            }
        }
    }
}

#[cfg(test)]
mod tests;
