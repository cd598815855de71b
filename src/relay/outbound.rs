//! State to messages: what goes to one peer next, written straight into the room that is left.
//!
//! Nothing is queued as bytes. A want, a first flight, a request stand as what they are, and become
//! a frame in the moment in which the pacer lets a datagram go, from what is verified then. The order:
//! OPEN_JOB, requests, first flight and its parity, JOB_STATE, hashes asked for, transactions asked for or pushed, their
//! parity; newer jobs before older ones.

mod hashes;
mod parity;
mod transactions;

use std::ops::Range;
use std::time::Duration;

use super::job::Job;
use super::jobs::JobEntry;
use super::peer::{HashWant, JobPeer, Request, ranges};
use super::session::{Answer, Item};
use crate::mempool::ShortIdKey;
use crate::merkle::{Hash, Lap, Node, Run};
use crate::time::Time;
use crate::wire::{
    CELL, Cancel, GetHashes, GetTxs, HashSequence, Hashes, HashlessRun, HashlessRuns,
    HashlessWorkout, JobRef, JobState, Kind, Message, OpenJob, Pong, ShortEntry, Tree, TxPart,
    TxsWriter, WireLap, WireRun, Writer,
};

use hashes::Written;

/// Bytes of a short id: BIP152's six.
pub(super) const SHORT_ID_BYTES: u8 = 6;

/// Most hashes in one lap that is sent: with them, and what a proof of their range adds, a frame fits the
/// default datagram.
const LAP_STEP: u32 = 32;

/// The least time between two JOB_STATEs about one job: 500 a second at most.
const STATE_INTERVAL: Duration = Duration::from_millis(2);

/// What is added to two round trips before a JOB_STATE goes again without an acknowledgement.
const STATE_PATIENCE: Duration = Duration::from_millis(50);

/// Most bytes of one JOB_STATE, GET_TXS or CANCEL: half a default datagram, so that it shares one.
const WORKOUT_BYTES: usize = 600;

/// What is known of the receiving session when frames are made for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub slot: u32,
    pub now: Time,
    pub round_trip: Duration,
    /// Bytes on their way to the peer.
    pub in_flight: u64,
    /// The share of datagrams that is lost, as far as is known.
    pub loss: f64,
    /// All sessions share an uplink that is known to be the narrowest place.
    pub shared: bool,
    /// Room of a fresh datagram (or piece of the control stream) for frames.
    pub fresh_room: usize,
    /// Test option: alter what is sent.
    pub lie: bool,
}

/// The name by which a message to a peer calls a job, and the salt of short ids that goes with it.
fn name_of(entry_id: u16, peer: &JobPeer) -> (JobRef, u64) {
    match peer.their_id {
        Some(id) => (JobRef::of_receiver(id), peer.nonce),
        None => (JobRef::of_sender(entry_id), 0),
    }
}

/// Writes a short answer.
pub(super) fn write_answer(writer: &mut Writer<'_>, answer: &Answer) -> bool {
    match answer {
        Answer::Pong(nonce, bytes) => Message::Pong(Pong {
            nonce: *nonce,
            bytes: *bytes,
        })
        .write_frame(writer)
        .is_ok(),
        Answer::StateAck(body) => {
            let kind = crate::wire::MessageType::JobState.to_wire();
            match Message::decode(kind, body) {
                Ok(Some(Message::JobState(state))) => {
                    Message::JobStateAck(state).write_frame(writer).is_ok()
                }
                _ => true,
            }
        }
    }
}

impl JobEntry {
    /// Writes frames for a peer until the room is used up or nothing is left to say. `items` gets what
    /// has to be said again if the frames are lost. False when the room was not enough.
    pub(super) fn fill(
        &mut self,
        target: Target,
        writer: &mut Writer<'_>,
        items: &mut Vec<Item>,
    ) -> bool {
        let Some(peer) = self.peers.get_mut(&target.slot) else {
            return true;
        };
        if peer.closed {
            return true;
        }
        let mut pen = Pen {
            id: self.id,
            job: &mut self.job,
            peer,
            target,
            writer,
            items,
            requests_sent: 0,
        };
        let done = pen.write_all();
        self.requests_sent += pen.requests_sent;
        done
    }

    /// When something of this job falls due towards a peer although nothing new happens.
    pub(super) fn state_deadline(&self, slot: u32, round_trip: Duration) -> Option<Time> {
        let peer = self.peers.get(&slot)?;
        if peer.closed || !peer.is_aware() || !peer.has_unacknowledged() {
            return None;
        }
        Some(state_due(peer, round_trip))
    }
}

/// When the next JOB_STATE may or must go.
fn state_due(peer: &JobPeer, round_trip: Duration) -> Time {
    let Some(sent) = peer.state_sent else {
        return Time::ZERO;
    };
    if peer.state_news {
        sent + STATE_INTERVAL.max(round_trip / 8)
    } else {
        sent + (round_trip * 2 + STATE_PATIENCE) * (1 << peer.state_tries.min(6))
    }
}

/// Everything that writing for one peer in one job needs.
struct Pen<'a, 'b> {
    id: u16,
    job: &'a mut Job,
    peer: &'a mut JobPeer,
    target: Target,
    writer: &'a mut Writer<'b>,
    items: &'a mut Vec<Item>,
    requests_sent: u64,
}

impl Pen<'_, '_> {
    fn write_all(&mut self) -> bool {
        self.write_open()
            && self.write_requests()
            && self.write_push()
            && self.write_flight_parity()
            && self.write_state()
            && self.write_hash_answers()
            && self.write_lost_parts()
            && self.write_transactions()
            && self.write_body_parity()
    }

    fn message(&mut self, message: &Message<'_>) -> bool {
        message.write_frame(self.writer).is_ok()
    }

    fn write_open(&mut self) -> bool {
        if !self.peer.open_pending {
            return true;
        }
        let header = self.job.header;
        let message = open_message(self.id, self.job, &header);
        if !self.message(&message) {
            return false;
        }
        self.peer.open_pending = false;
        self.items.push(Item::Open(self.id));
        true
    }

    fn write_requests(&mut self) -> bool {
        if !self.peer.is_aware() {
            return true;
        }
        while let Some(request) = self.peer.requests.pop_front() {
            if let Some(rest) = self.write_request(request) {
                self.peer.requests.push_front(rest);
                return false;
            }
        }
        true
    }

    /// Writes a request; gives back what did not fit.
    fn write_request(&mut self, request: Request) -> Option<Request> {
        let (job, _) = name_of(self.id, self.peer);
        match request {
            Request::Hashes(want) => {
                let run = [HashlessRun::flat(want.level, want.range.clone())];
                let message = Message::GetHashes(GetHashes {
                    job,
                    tree: want.tree,
                    short: want.short,
                    around: want.around,
                    nodes: HashlessWorkout::new(&run),
                });
                if !self.message(&message) {
                    return Some(Request::Hashes(want));
                }
                self.requests_sent += 1;
                self.items
                    .push(Item::Request(self.id, Request::Hashes(want)));
                None
            }
            Request::Transactions(ranges) => {
                let (sent, rest) =
                    self.write_ranges(ranges, |nodes| Message::GetTxs(GetTxs { job, nodes }));
                if !sent.is_empty() {
                    self.requests_sent += 1;
                    self.items
                        .push(Item::Request(self.id, Request::Transactions(sent)));
                }
                (!rest.is_empty()).then_some(Request::Transactions(rest))
            }
            Request::Cancel(ranges) => {
                let kind = Kind::Transactions;
                let (sent, rest) =
                    self.write_ranges(ranges, |nodes| Message::Cancel(Cancel { job, kind, nodes }));
                if !sent.is_empty() {
                    self.items
                        .push(Item::Request(self.id, Request::Cancel(sent)));
                }
                (!rest.is_empty()).then_some(Request::Cancel(rest))
            }
        }
    }

    /// Writes as many ranges of leaves as fit; gives what was written and what was not.
    fn write_ranges(
        &mut self,
        mut ranges: Vec<Range<u32>>,
        message: impl for<'w> Fn(HashlessWorkout<'w>) -> Message<'w>,
    ) -> (Vec<Range<u32>>, Vec<Range<u32>>) {
        ranges.sort_unstable_by_key(|range| range.start);
        let room = self.writer.remaining().saturating_sub(8).min(WORKOUT_BYTES);
        let depth = self.job.geometry.depth();
        let (runs, stopped_at) = HashlessRuns::from_ranges(depth, ranges.iter().cloned(), room);
        if runs.is_empty() {
            return (Vec::new(), ranges);
        }
        if !self.message(&message(runs.as_workout())) {
            return (Vec::new(), ranges);
        }
        let Some(stop) = stopped_at else {
            return (ranges, Vec::new());
        };
        let split = ranges.partition_point(|range| range.start < stop);
        let rest = ranges.split_off(split);
        (ranges, rest)
    }

    fn write_push(&mut self) -> bool {
        if !self.peer.is_aware() {
            return true;
        }
        if self.peer.push_coinbase {
            if !self.write_pushed_coinbase() {
                return false;
            }
            self.peer.push_coinbase = false;
        }
        while let Some(mut want) = self.peer.push.pop_front() {
            match self.write_hashes(&mut want) {
                Written::All => {}
                // What is not verified here is not passed on; the peer asks if it wants it later.
                Written::Unknown => {}
                Written::NoRoom => {
                    self.peer.push.push_front(want);
                    return false;
                }
            }
        }
        true
    }

    fn write_pushed_coinbase(&mut self) -> bool {
        let Some(coinbase) = self.job.transaction(0) else {
            return true;
        };
        let (job, _) = name_of(self.id, self.peer);
        if coinbase.len() + 16 > self.target.fresh_room {
            self.peer.want(0, true);
            return true;
        }
        let Ok(mut txs) = TxsWriter::begin(self.writer, job, 0) else {
            return false;
        };
        if !txs.push(coinbase.bytes()) {
            return false;
        }
        txs.finish();
        self.items.push(Item::Transactions(self.id, 0..1));
        true
    }

    fn write_state(&mut self) -> bool {
        if !self.peer.is_aware() || !self.peer.has_unacknowledged() {
            return true;
        }
        if state_due(self.peer, self.target.round_trip) > self.target.now {
            return true;
        }
        let (job, _) = name_of(self.id, self.peer);
        let kinds = [
            (Kind::WitnessHashes, self.job.chunk_level()),
            (Kind::Transactions, self.job.geometry.depth()),
        ];
        let mut written = false;
        for (kind, level) in kinds {
            let set = match kind {
                Kind::Transactions => &self.peer.unacknowledged,
                _ => &self.peer.unacknowledged_hashes,
            };
            let room = self.writer.remaining().saturating_sub(8).min(WORKOUT_BYTES);
            let (runs, _) = HashlessRuns::from_ranges(level, ranges(set), room);
            if runs.is_empty() {
                continue;
            }
            let message = Message::JobState(JobState {
                job,
                kind,
                nodes: runs.as_workout(),
            });
            written |= self.message(&message);
        }
        if !written {
            return false;
        }
        self.peer.state_tries = match self.peer.state_news {
            true => 0,
            false => self.peer.state_tries + 1,
        };
        self.peer.state_news = false;
        self.peer.state_sent = Some(self.target.now);
        self.items.push(Item::State(self.id));
        true
    }

    /// Marks the chunks of these nodes as passed on, if the block is not whole here yet.
    fn note_forwarded(&mut self, level: u8, nodes: &Range<u32>) {
        if self.job.is_complete() || nodes.is_empty() || level < self.job.chunk_level() {
            return;
        }
        let shift = level - self.job.chunk_level();
        for chunk in nodes.start >> shift..=(nodes.end - 1) >> shift {
            if let Some(chunk) = self.job.chunks.get_mut(chunk as usize) {
                chunk.forwarded = true;
            }
        }
    }
}

/// The OPEN_JOB of a job.
pub(super) fn open_message<'a>(id: u16, job: &Job, header: &'a [u8; 80]) -> Message<'a> {
    Message::OpenJob(OpenJob {
        job: id,
        has_commitment: job.has_commitment(),
        sender_has_all: job.is_complete(),
        count: job.geometry.count(),
        block_bytes: job.block_bytes,
        nonce: 0,
        header,
    })
}
