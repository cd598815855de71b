//! Messages to state: what each message does, and what is refused.

mod parity;
mod requests;

use std::ops::Range;

use bytes::Bytes;

use super::Engine;
use super::event::Source;
use super::job::{ClaimedId, Job};
use super::jobs::JobEntry;
use super::loss::Outcome;
use super::outbound::SHORT_ID_BYTES;
use super::session::{Answer, Phase};
use super::stats::Refusal;
use crate::mempool::{Mempool, Transaction};
use crate::merkle::{Direction, Hash, Lap};
use crate::wire::{
    DATAGRAM_OVERHEAD, DEFAULT_MAX_DATAGRAM, GetHashes, GetTxs, HashEntry, HashSequence, Hashes,
    HashlessWorkout, JobRef, JobState, Message, MessageType, MissingReason, RxReport, Tree, TxPart,
    Whose,
};

/// Which way a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// In a datagram of this many bytes.
    Udp(u16),
    /// On the control connection.
    Tcp,
}

impl Engine {
    /// A frame of the control connection.
    pub(super) fn handle_control_frame(&mut self, slot: u32, kind: u8, body: &[u8]) {
        let Some(session) = self.session(slot) else {
            return;
        };
        if session.is_established() {
            self.handle_frame(slot, kind, body, Via::Tcp);
            return;
        }
        match Message::decode(kind, body) {
            Ok(Some(Message::Version(version))) => self.take_version(slot, &version),
            Ok(Some(Message::VersionAck(ack))) => self.take_version_ack(slot, &ack),
            Ok(Some(Message::Disconnect(end))) => self.take_disconnect(slot, end.reason),
            Ok(None) => {}
            // Before the handshake nothing else makes sense, and nothing is lost by ending it.
            Ok(Some(_)) => self.refuse_order(slot, "message before the handshake"),
            Err(error) => self.refuse_wire(slot, error),
        }
    }

    /// A frame of an open session.
    pub(super) fn handle_frame(&mut self, slot: u32, kind: u8, body: &[u8], via: Via) {
        let over_udp = matches!(via, Via::Udp(_));
        let known = MessageType::from_wire(kind);
        if over_udp && known.is_some_and(|known| !known.may_ride_datagram()) {
            self.blame(slot, Refusal::Order);
            return;
        }
        // Transactions outlive the datagram: the frame is copied once, and they share the copy.
        if known == Some(MessageType::Txs) {
            let copy = Bytes::copy_from_slice(body);
            match Message::decode(kind, &copy) {
                Ok(Some(Message::Txs(txs))) => {
                    let items: Vec<Bytes> = txs
                        .transactions
                        .iter()
                        .map(|bytes| copy.slice_ref(bytes))
                        .collect();
                    self.take_transactions(slot, txs.job, txs.first, items);
                }
                Ok(_) => {}
                Err(error) => self.refuse_wire(slot, error),
            }
            return;
        }
        match Message::decode(kind, body) {
            Ok(Some(message)) => self.dispatch(slot, &message, body, via),
            Ok(None) => {}
            Err(error) => self.refuse_wire(slot, error),
        }
    }

    fn dispatch(&mut self, slot: u32, message: &Message<'_>, body: &[u8], via: Via) {
        match message {
            Message::Version(_) | Message::VersionAck(_) => {
                self.refuse_order(slot, "second handshake");
            }
            Message::GetAddr => self.want_addresses(slot),
            Message::Addr(list) => self.take_addresses(slot, list),
            Message::Disconnect(end) => self.take_disconnect(slot, end.reason),
            Message::SetParams(list) => self.take_parameters(slot, list),
            Message::TestMtu(test) => self.take_size_probe(slot, test),
            Message::EstimateBandwidth(probe) => self.take_bandwidth_probe(slot, probe),
            Message::ProbeReport(report) => self.take_probe_report(slot, report),
            Message::OpenJob(open) => {
                self.take_open_job(slot, open, via);
                if self.headers_news {
                    self.retry_offers();
                }
            }
            Message::CloseJob(close) => self.take_close_job(slot, close),
            Message::JobState(state) => self.take_job_state(slot, state, body, via),
            Message::JobStateAck(state) => self.take_job_state_ack(slot, state),
            Message::Ping(ping) => {
                let bytes = match via {
                    Via::Udp(bytes) => bytes,
                    Via::Tcp => 0,
                };
                if !self.count_probe(slot, ping.nonce, bytes) {
                    self.take_ping(slot, ping.nonce, bytes);
                }
            }
            // Only what comes back by UDP says anything of the path.
            Message::Pong(pong) if via != Via::Tcp => self.take_pong(slot, pong.nonce),
            Message::Pong(_) => {}
            Message::GetHashes(GetHashes { job, .. }) | Message::GetTxs(GetTxs { job, .. })
                if via == Via::Tcp && self.find_job(slot, *job).is_none() =>
            {
                self.refused.count(Refusal::UnknownJob);
                let request = message.message_type();
                let reason = MissingReason::Block;
                self.send_missing(slot, *job, reason, request, HashlessWorkout::EMPTY);
            }
            Message::GetHashes(get) => self.take_get_hashes(slot, get),
            Message::Hashes(hashes) => self.take_hashes(slot, hashes),
            Message::GetTxs(get) => self.take_get_transactions(slot, get),
            Message::Txs(_) => {}
            Message::TxPart(part) => self.take_part(slot, part),
            Message::Missing(missing) => self.take_missing(slot, missing),
            Message::Cancel(cancel) => self.take_cancel(slot, cancel),
            Message::RxReport(report) => self.take_report(slot, report),
            Message::Parity(parity) => self.take_parity(slot, parity),
        }
    }

    fn find_job(&self, slot: u32, job: JobRef) -> Option<u16> {
        let id = match job.whose {
            Whose::Sender => self.session(slot)?.their_jobs.get(&job.id).copied()?,
            Whose::Receiver => job.id,
        };
        let peer = self.jobs.get(&id)?.peers.get(&slot)?;
        (!peer.closed).then_some(id)
    }

    /// The job that a message of a peer is about; counted and `None` if there is none.
    pub(super) fn resolve(&mut self, slot: u32, job: JobRef) -> Option<u16> {
        let known = self.find_job(slot, job);
        if known.is_none() {
            self.refused.count(Refusal::UnknownJob);
        }
        known
    }

    /// Runs `act` on the job that a message is about, then deals with what came of it.
    fn with_job(
        &mut self,
        slot: u32,
        job: JobRef,
        act: impl FnOnce(&mut Self, &mut JobEntry) -> Result<(), Refusal>,
    ) {
        let Some(id) = self.resolve(slot, job) else {
            return;
        };
        let Some(mut entry) = self.jobs.remove(&id) else {
            return;
        };
        let outcome = act(self, &mut entry);
        if outcome.is_err_and(|refusal| refusal.cost() > 0) {
            entry.distrust(slot);
        }
        self.jobs.insert(id, entry);
        if let Err(refusal) = outcome {
            self.blame(slot, refusal);
        }
        self.settle_job(id);
    }

    fn source(&self, slot: u32) -> Source {
        self.session(slot)
            .map_or(Source::Local, |session| Source::Peer(session.id))
    }

    fn take_hashes(&mut self, slot: u32, hashes: &Hashes<'_>) {
        let source = self.source(slot);
        let now = self.now;
        self.with_job(slot, hashes.job, |engine, entry| {
            let JobEntry {
                job, peers, asks, ..
            } = entry;
            if job.is_complete() {
                return Ok(());
            }
            let peer = peers.get_mut(&slot).ok_or(Refusal::UnknownJob)?;
            if peer.claims_other(job.geometry.count()) {
                return Ok(());
            }
            asks.last_flight = now;
            peer.last_progress = now;
            let nonce = match hashes.job.whose {
                Whose::Sender => peer.nonce,
                Whose::Receiver => 0,
            };
            let (lap, sequences) = hashes.lap.to_lap();
            if !lap.is_canonical(&job.geometry) {
                return Err(Refusal::Geometry);
            }
            if hashes.lap.has_short_ids() {
                let ids = sequences.first().ok_or(Refusal::Geometry)?;
                return take_short_ids(entry, slot, &lap, ids, nonce, &engine.mempool, source);
            }
            let all: Option<Vec<Hash>> = sequences
                .iter()
                .flat_map(|sequence| sequence.iter())
                .map(|entry| match entry {
                    HashEntry::Full(hash) => Some(*hash),
                    HashEntry::Short(..) => None,
                })
                .collect();
            let all = all.ok_or(Refusal::Geometry)?;
            match hashes.tree {
                Tree::Txid => parity::note_branch(entry, slot, &lap, &all),
                Tree::Witness => {
                    if let Some(flight) = entry.flight(slot) {
                        flight.note_lap(&lap, &all);
                    }
                    let job = &mut entry.job;
                    job.take_lap(&lap, &all, source)?;
                    // What stands for others may be verified now.
                    for peer in entry.peers.values_mut() {
                        peer.hashes_blocked = false;
                    }
                    let job = &mut entry.job;
                    look_up_leaves(job, &lap, &all, &engine.mempool, source);
                    Ok(())
                }
            }
        });
        self.make_good(slot, hashes.job);
    }

    fn take_transactions(&mut self, slot: u32, job: JobRef, first: u32, items: Vec<Bytes>) {
        let source = self.source(slot);
        let now = self.now;
        let whole: usize = items.iter().map(Bytes::len).sum();
        self.with_job(slot, job, |engine, entry| {
            let mut wanted: Vec<(u32, Bytes)> = (first..).zip(items).collect();
            if let Some((0, bytes)) = wanted.first()
                && let Some(flight) = entry.flight(slot)
            {
                flight.note_coinbase(bytes.len() as u32, 0, bytes);
            }
            wanted.retain(|(index, _)| entry.accepts(slot, *index, now));
            // A few that are kept must not hold on to a large frame.
            let kept: usize = wanted.iter().map(|(_, bytes)| bytes.len()).sum();
            let sparse = kept < whole / 2;
            for (index, bytes) in wanted {
                let bytes = match sparse {
                    true => Bytes::copy_from_slice(&bytes),
                    false => bytes,
                };
                let transaction = Transaction::parse(bytes).map_err(|_| Refusal::Transaction)?;
                entry.transaction_came(slot, index, now);
                let transaction = engine.shelved(transaction);
                entry.job.take_transaction(index, transaction, source)?;
            }
            Ok(())
        });
        self.make_good(slot, job);
    }

    fn take_part(&mut self, slot: u32, part: &TxPart<'_>) {
        let source = self.source(slot);
        let now = self.now;
        self.with_job(slot, part.job, |engine, entry| {
            if !entry.accepts(slot, part.index, now) {
                return Ok(());
            }
            if part.index == 0
                && let Some(flight) = entry.flight(slot)
            {
                flight.note_coinbase(part.total, part.offset(), part.bytes);
            }
            let limit = engine.config.max_block_bytes;
            let whole = entry.take_part(slot, part, limit, now)?;
            if let Some(bytes) = whole {
                let transaction = Transaction::parse(bytes).map_err(|_| Refusal::Transaction)?;
                let transaction = engine.shelved(transaction);
                entry.transaction_came(slot, part.index, now);
                entry
                    .job
                    .take_transaction(part.index, transaction, source)?;
            }
            Ok(())
        });
        self.make_good(slot, part.job);
    }

    fn take_job_state(&mut self, slot: u32, state: &JobState<'_>, body: &[u8], via: Via) {
        let (mut known, mut whole) = (false, false);
        self.with_job(slot, state.job, |_, entry| {
            // Without an answer it comes again, when the count may have been settled.
            known = !entry.counts_otherwise(slot);
            let has_all = |entry: &JobEntry| {
                let peer = entry.peers.get(&slot);
                peer.is_some_and(|peer| peer.told && peer.has_all())
            };
            let had_all = has_all(entry);
            let taken = match known {
                true => entry.note_state(slot, state),
                false => Ok(()),
            };
            whole = !had_all && has_all(entry);
            taken
        });
        if whole {
            self.tell_waiting(slot);
        }
        if !known {
            return;
        }
        // An echo that fits no datagram goes the other way.
        let fits = body.len() + 4 <= usize::from(DEFAULT_MAX_DATAGRAM) - DATAGRAM_OVERHEAD;
        match via {
            Via::Udp(_) if fits => {
                if let Some(session) = self.session_mut(slot) {
                    session.push_answer(Answer::StateAck(Bytes::copy_from_slice(body)));
                }
                self.wake(slot);
            }
            _ => {
                let sent = match self.session_mut(slot) {
                    Some(session) => session.push_control(&Message::JobStateAck(*state)),
                    None => return,
                };
                self.control_sent(slot, sent);
            }
        }
    }

    fn take_job_state_ack(&mut self, slot: u32, state: &JobState<'_>) {
        // The body is an echo: its job is named as we named it (STA-7).
        let job = JobRef {
            id: state.job.id,
            whose: match state.job.whose {
                Whose::Sender => Whose::Receiver,
                Whose::Receiver => Whose::Sender,
            },
        };
        self.with_job(slot, job, |_, entry| {
            entry.note_state_ack(slot, state);
            Ok(())
        });
    }

    fn take_report(&mut self, slot: u32, report: &RxReport) {
        let now = self.now;
        let mut outcome = std::mem::replace(&mut self.outcome, Outcome::new());
        outcome.clear();
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        if session.phase != Phase::Established {
            return;
        }
        let taken = session.sent.on_report(
            report.highest,
            report.received(),
            report.delay_us,
            now,
            &mut outcome,
        );
        match taken {
            Ok(()) => self.settle_outcome(slot, &mut outcome),
            Err(_) => self.blame(slot, Refusal::Report),
        }
        self.outcome = outcome;
    }
}

/// Short ids stand for all leaves of one chunk, in one flat run.
fn take_short_ids(
    entry: &mut JobEntry,
    slot: u32,
    lap: &Lap,
    sequence: &HashSequence<'_>,
    nonce: u64,
    mempool: &Mempool,
    source: Source,
) -> Result<(), Refusal> {
    let flat = lap.flat().ok_or(Refusal::Geometry)?;
    let (level, chunk) = lap.ancestor;
    let job = &entry.job;
    let whole = level == job.chunk_level()
        && lap.runs.len() == 1
        && flat.level == job.geometry.depth()
        && job.chunk_leaves(chunk) == (flat.start..flat.start + flat.count);
    if !whole {
        return Err(Refusal::Geometry);
    }
    let mut ids = Vec::with_capacity(sequence.len() as usize);
    for entry in sequence.iter() {
        ids.push(match entry {
            HashEntry::Short(id, SHORT_ID_BYTES) => ClaimedId::Short(id),
            HashEntry::Short(..) => return Err(Refusal::ShortIds),
            HashEntry::Full(hash) => ClaimedId::Full(*hash),
        });
    }
    if let Some(flight) = entry.flight(slot) {
        let short = ids.iter().map_while(|id| match id {
            ClaimedId::Short(id) => Some(*id),
            ClaimedId::Full(_) => None,
        });
        flight.note_short_ids(flat.start, short);
    }
    entry.job.take_short_ids(chunk, ids, nonce, mempool, source)
}

/// Finds in the cache what whole leaf hashes of a lap name. The lap that proves the count brings the last
/// one or two of a block, which may be all of a chunk: no short ids are then waited for.
fn look_up_leaves(job: &mut Job, lap: &Lap, hashes: &[Hash], mempool: &Mempool, source: Source) {
    let geometry = job.geometry;
    let Some(nodes) = lap.nodes(&geometry) else {
        return;
    };
    for (node, hash) in nodes.zip(hashes) {
        if node.level() == geometry.depth() && job.verified(node) == Some(hash) {
            job.take_known_wtxid(node.index(), hash, mempool, source);
        }
    }
}

/// The branch of leaf 0 is one UP run from it, of full length.
fn take_branch(job: &mut Job, lap: &Lap, hashes: &[Hash]) -> Result<(), Refusal> {
    let [run] = lap.runs.as_slice() else {
        return Err(Refusal::Geometry);
    };
    let wanted = job.geometry.branch_of_first();
    let same = run.direction == Direction::Up
        && (run.level, run.start, run.count) == (wanted.level, wanted.start, wanted.count);
    if lap.ancestor != (0, 0) || !same {
        return Err(Refusal::Geometry);
    }
    job.take_branch(hashes)
}

/// The leaves below nodes of a level.
pub(super) fn leaves_below(depth: u8, count: u32, level: u8, nodes: &Range<u32>) -> Range<u32> {
    let shift = depth.saturating_sub(level);
    let scale = |index: u32| (u64::from(index) << shift).min(u64::from(count)) as u32;
    scale(nodes.start)..scale(nodes.end)
}
