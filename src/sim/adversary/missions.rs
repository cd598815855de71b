//! What talkers do once a session stands.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};

use super::super::scenario::AdversaryKind;
use super::alter::frame_of;
use super::forger::append_frame;
use super::line::sealed;
use super::speech::{self, Facts, Offer};
use super::talker::{Talker, turned};
use crate::mempool::ShortIdKey;
use crate::merkle::Lap;
use crate::relay::SessionId;
use crate::time::Time;
use crate::wire::{
    GetHashes, GetTxs, HashSequence, Hashes, HashlessRun, HashlessWorkout, JobRef, JobState, Kind,
    MacKey, Message, MessageType, Ping, ShortEntry, Tree, TxList, Txs, WireLap, WireRun,
};

/// Messages of a flood altogether: at the pace of floods, some seconds of it.
const FLOOD: u32 = 6_000;

/// Messages between two looks at the clock, of a flood.
const BURST: u32 = 8;

/// The id that a forged block is opened under.
const FORGED_JOB: u16 = 77;

/// Transactions in one TXS of a forged block: so that a frame stays in the tens of kilobytes.
const SERVED_TOGETHER: usize = 32;

/// Hashes in one lap of a forged block.
const SERVED_HASHES: u32 = 64;

/// How often a mission looks whether there is something to do.
pub fn period(kind: AdversaryKind) -> Duration {
    match kind {
        AdversaryKind::Floods | AdversaryKind::Spoofs => Duration::from_millis(10),
        AdversaryKind::Replays | AdversaryKind::OpensJobs => Duration::from_millis(20),
        AdversaryKind::ClaimsImpossible => Duration::from_millis(100),
        _ => Duration::from_millis(500),
    }
}

/// A session stands.
pub fn meet(talker: &mut Talker, now: Time, session: SessionId) {
    match talker.kind {
        AdversaryKind::Withholds | AdversaryKind::ManyIdentities => {
            for offer in talker.offers.clone() {
                claim(talker, session, &offer);
            }
        }
        AdversaryKind::InvalidBlock => open_forged(talker, now),
        _ => {}
    }
}

/// Something new was offered by someone.
pub fn news(talker: &mut Talker) {
    let withholds = matches!(
        talker.kind,
        AdversaryKind::Withholds | AdversaryKind::ManyIdentities
    );
    if let Some(offer) = talker.offers.last().cloned().filter(|_| withholds) {
        for session in talker.established() {
            claim(talker, session, &offer);
        }
    }
}

/// A peer said something that a mission may answer.
pub fn answer(talker: &mut Talker, session: SessionId, message: &Message<'_>, body: &[u8]) {
    match message {
        // Who acknowledges is told no more of it.
        Message::JobState(_) => {
            let mut ack = Vec::new();
            append_frame(MessageType::JobStateAck.to_wire(), body, &mut ack);
            talker.say(session, &ack);
        }
        Message::GetHashes(get) if is_forged(talker, get.job) => {
            serve_hashes(talker, session, get);
        }
        Message::GetTxs(get) if is_forged(talker, get.job) => {
            serve_transactions(talker, session, get);
        }
        _ => {}
    }
}

/// Time has passed.
pub fn act(talker: &mut Talker, now: Time) {
    match talker.kind {
        AdversaryKind::Floods => flood(talker),
        AdversaryKind::Replays => replay(talker),
        AdversaryKind::Spoofs => spoof(talker),
        AdversaryKind::OpensJobs => open_jobs(talker),
        AdversaryKind::ClaimsImpossible => claim_impossible(talker),
        AdversaryKind::InvalidBlock => open_forged(talker, now),
        _ => {}
    }
}

/// Says that all of a block is here, and nothing more ever.
fn claim(talker: &mut Talker, session: SessionId, offer: &Offer) {
    let place = talker
        .offers
        .iter()
        .position(|known| known.header == offer.header);
    let job = 1 + place.unwrap_or(0) as u16 + 100 * (talker.offers.len() as u16);
    talker.say(session, &offer.frame(job));
    talker.note_own(session, job, offer.count);
    let Some(geometry) = crate::merkle::Geometry::new(offer.count) else {
        return;
    };
    let runs = [HashlessRun::flat(geometry.depth(), 0..offer.count)];
    for kind in [Kind::WitnessHashes, Kind::Transactions] {
        let state = Message::JobState(JobState {
            job: JobRef::of_sender(job),
            kind,
            nodes: HashlessWorkout::new(&runs),
        });
        let frame = frame_of(&state);
        talker.say(session, &frame);
        talker.whisper(session, &frame);
    }
}

/// What kind of message a session is flooded with, and whether it is broken: each session has its own flood.
fn flood_of(session: SessionId) -> (Option<MessageType>, bool) {
    let number = session.generation as usize;
    let kind = MessageType::ALL.get(number % (MessageType::ALL.len() + 2));
    (kind.copied(), number % 4 == 3)
}

fn any_kind(random: &mut StdRng) -> MessageType {
    MessageType::ALL
        .get(random.random_range(0..MessageType::ALL.len()))
        .copied()
        .unwrap_or(MessageType::Ping)
}

fn flood(talker: &mut Talker) {
    let sessions = talker.established();
    if talker.said >= FLOOD || sessions.is_empty() {
        return;
    }
    for _ in 0..BURST {
        talker.said += 1;
        let Some(&session) = sessions.get(talker.random.random_range(0..sessions.len())) else {
            return;
        };
        let (kind, broken) = flood_of(session);
        let kind = kind.unwrap_or(any_kind(&mut talker.random));
        let jobs = talker.jobs.get(&session).cloned().unwrap_or_default();
        let facts = Facts {
            jobs: &jobs,
            offers: &talker.offers,
        };
        let mut frame = speech::frame(kind, &facts, &mut talker.random);
        if broken && talker.random.random_bool(0.02) {
            frame = speech::garbled(&frame, &mut talker.random);
        }
        // What no datagram may carry goes there seldom: it costs the session.
        let rides = kind.may_ride_datagram() || talker.random.random_bool(0.02);
        match rides && talker.random.random_bool(0.5) {
            true => talker.whisper(session, &frame),
            false => talker.say(session, &frame),
        }
    }
}

/// Sends again what was seen: to whom it was for and to others, under its own address and under its sender's.
fn replay(talker: &mut Talker) {
    if talker.said >= FLOOD {
        return;
    }
    for _ in 0..BURST / 2 {
        talker.said += 1;
        if talker.seen.is_empty() {
            return;
        }
        let at = talker.random.random_range(0..talker.seen.len());
        let Some((from, to, bytes)) = talker.seen.get(at).cloned() else {
            return;
        };
        let any = talker
            .neighbours
            .get(
                talker
                    .random
                    .random_range(0..talker.neighbours.len().max(1)),
            )
            .copied()
            .unwrap_or(to);
        let (to, from) = match talker.random.random_range(0..4) {
            0 => (any, None),
            1 => (any, Some(from)),
            2 => (to, None),
            _ => (to, (from != to).then_some(from)),
        };
        talker.throw(to, from, bytes.to_vec());
    }
}

/// Datagrams in others' names: guessed connections, guessed authentication, and the own session from elsewhere.
fn spoof(talker: &mut Talker) {
    if talker.said >= FLOOD || talker.neighbours.is_empty() || talker.everyone.is_empty() {
        return;
    }
    for _ in 0..BURST / 2 {
        talker.said += 1;
        let random = &mut talker.random;
        let (near, all) = (talker.neighbours.len(), talker.everyone.len());
        let to: Option<SocketAddr> = talker.neighbours.get(random.random_range(0..near)).copied();
        let name = talker.everyone.get(random.random_range(0..all)).copied();
        let (Some(to), Some(name)) = (to, name) else {
            return;
        };
        let padding = random.random_range(2..1_300);
        let ping = frame_of(&Message::Ping(Ping {
            nonce: random.random(),
            padding,
        }));
        let own = talker
            .lines
            .values_mut()
            .find(|line| line.established && line.theirs.is_some_and(|theirs| theirs.2 == to));
        let datagram = match (own, random.random_range(0..3)) {
            (Some(line), 0) => line.sealed(&ping).map(|(_, datagram)| datagram),
            (Some(line), 1) => {
                // The right connection, no key.
                let connection = line.theirs.map_or(0, |theirs| theirs.0);
                let key = MacKey::new(random.random());
                Some(sealed(connection, &key, line.sent + 1, &ping))
            }
            _ => {
                let connection = random.random::<u32>() << 12 | random.random_range(0..8);
                let key = MacKey::new(random.random());
                Some(sealed(connection, &key, random.random_range(1..50), &ping))
            }
        };
        if let Some(datagram) = datagram {
            talker.throw(to, Some(name), datagram);
        }
    }
}

fn open_jobs(talker: &mut Talker) {
    let sessions = talker.established();
    if talker.said >= FLOOD || sessions.is_empty() {
        return;
    }
    for _ in 0..BURST / 2 {
        talker.said += 1;
        let Some(&session) = sessions.get(talker.random.random_range(0..sessions.len())) else {
            return;
        };
        let facts = Facts {
            jobs: &[],
            offers: &talker.offers,
        };
        let mut offer = speech::offer(&facts, &mut talker.random);
        // Sessions of one kind keep to what was worked for, so that they last.
        if session.generation % 2 == 0
            && let Some(known) = talker.offers.last()
        {
            offer.header = known.header;
        }
        let job = talker.random.random_range(0..0x8000);
        talker.say(session, &offer.frame(job));
        talker.note_own(session, job, offer.count);
        if talker.random.random_bool(0.3) {
            let jobs = talker.jobs.get(&session).cloned().unwrap_or_default();
            let facts = Facts {
                jobs: &jobs,
                offers: &[],
            };
            let close = speech::frame(MessageType::CloseJob, &facts, &mut talker.random);
            talker.say(session, &close);
        }
    }
}

fn claim_impossible(talker: &mut Talker) {
    let sessions = talker.established();
    let Some(&session) = sessions.get(talker.random.random_range(0..sessions.len().max(1))) else {
        return;
    };
    let jobs = talker.jobs.get(&session).cloned().unwrap_or_default();
    let facts = Facts {
        jobs: &jobs,
        offers: &talker.offers,
    };
    let random = &mut talker.random;
    let frame = match random.random_range(0..6) {
        0 => speech::addresses(random),
        1 => speech::offer(&facts, random).frame(random.random_range(0..100)),
        2 => speech::frame(MessageType::TestMtu, &facts, random),
        3 => speech::frame(MessageType::EstimateBandwidth, &facts, random),
        4 => {
            let mut body = vec![0; random.random_range(1..60)];
            random.fill_bytes(&mut body);
            let mut frame = Vec::new();
            // Optional: to be passed over, whatever it holds.
            append_frame(random.random_range(0x80..=0xff), &body, &mut frame);
            frame
        }
        _ => speech::parameters(random),
    };
    talker.say(session, &frame);
}

/// Opens the forged block, some seconds after the beginning, to whom it is not open.
fn open_forged(talker: &mut Talker, now: Time) {
    let Some(forged) = talker.forged.clone() else {
        return;
    };
    let offset = Duration::from_millis(3_200 + u64::from(forged.truth.hash[0]) * 10);
    if talker.begun.is_none_or(|begun| now < begun + offset) {
        return;
    }
    let job = JobRef::of_sender(FORGED_JOB);
    for session in talker.established() {
        let jobs = talker.jobs.get(&session);
        if jobs.is_some_and(|jobs| jobs.iter().any(|(known, _)| *known == job)) {
            continue;
        }
        let offer = Offer {
            count: forged.truth.count(),
            block_bytes: forged.truth.bytes,
            nonce: 0,
            header: forged.truth.header,
        };
        talker.say(session, &offer.frame(FORGED_JOB));
        talker.note_own(session, FORGED_JOB, offer.count);
    }
}

fn is_forged(talker: &Talker, job: JobRef) -> bool {
    talker.forged.is_some() && turned(job) == JobRef::of_sender(FORGED_JOB)
}

fn serve_hashes(talker: &mut Talker, session: SessionId, get: &GetHashes<'_>) {
    let Some(forged) = talker.forged.clone() else {
        return;
    };
    let (truth, job) = (&forged.truth, turned(get.job));
    let geometry = truth.geometry;
    if get.tree == Tree::Txid {
        let lap = Lap::of_root(geometry.branch_of_first());
        if let Some(frame) = truth.hashes_frame(job, Tree::Txid, &lap) {
            talker.say(session, &frame);
        }
        return;
    }
    for (level, nodes) in get.nodes.ranges() {
        let mut range: Range<u32> = nodes.start..nodes.end.min(geometry.width(level));
        while !range.is_empty() {
            let above = geometry
                .node(level, range.start)
                .and_then(|node| geometry.ancestor(node, get.around));
            let Some(above) = above else { return };
            let below = geometry.descendants(above, level);
            let stop = match get.short {
                true => below.end,
                false => range.end.min(below.end).min(range.start + SERVED_HASHES),
            };
            let from = if get.short { below.start } else { range.start };
            let Some(lap) = geometry.lap(above, level, from..stop) else {
                return;
            };
            let frame = match get.short && level == geometry.depth() {
                true => short_ids(truth, job, &lap, from..stop),
                false => truth.hashes_frame(job, Tree::Witness, &lap),
            };
            if let Some(frame) = frame {
                talker.say(session, &frame);
            }
            range.start = stop;
        }
    }
}

fn short_ids(
    truth: &super::super::truth::Truth,
    job: JobRef,
    lap: &Lap,
    leaves: Range<u32>,
) -> Option<Vec<u8>> {
    let key = ShortIdKey::new(&truth.header, 0);
    let entries: Vec<ShortEntry> = leaves
        .filter_map(|leaf| truth.leaf(Tree::Witness, leaf))
        .map(|wtxid| ShortEntry::Short(key.short_id(wtxid)))
        .collect();
    let runs = [WireRun::new(
        lap.flat()?,
        HashSequence::short(&entries, crate::wire::DEFAULT_SHORT_SIZE)?,
    )];
    let tree = Tree::Witness;
    let lap = WireLap::new(lap, &runs);
    Some(frame_of(&Message::Hashes(Hashes { job, tree, lap })))
}

fn serve_transactions(talker: &mut Talker, session: SessionId, get: &GetTxs<'_>) {
    let Some(forged) = talker.forged.clone() else {
        return;
    };
    let (truth, job) = (&forged.truth, turned(get.job));
    let depth = truth.geometry.depth();
    for (level, nodes) in get.nodes.ranges() {
        let nodes = nodes.start as usize..nodes.end.min(truth.count()) as usize;
        let Some(wanted) = truth.transactions.get(nodes.clone()) else {
            continue;
        };
        if level != depth {
            continue;
        }
        for (piece, first) in wanted
            .chunks(SERVED_TOGETHER)
            .zip((nodes.start..).step_by(SERVED_TOGETHER))
        {
            let transactions: Vec<&[u8]> = piece.iter().map(AsRef::as_ref).collect();
            let frame = frame_of(&Message::Txs(Txs {
                job,
                first: first as u32,
                transactions: TxList::new(&transactions),
            }));
            talker.say(session, &frame);
        }
    }
}
