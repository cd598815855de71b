//! Any message, well formed or not, with any numbers in it.

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};

use super::alter::frame_of;
use super::forger::append_frame;
use crate::merkle::Geometry;
use crate::wire::{
    AddressList, CELL, Cancel, CloseJob, CloseReason, Disconnect, DisconnectReason,
    EstimateBandwidth, GetHashes, GetTxs, HashSequence, Hashes, HashlessRun, HashlessWorkout,
    JobRef, JobState, Kind, MAX_LEVEL, Message, MessageType, Missing, MissingReason,
    NetworkAddress, OpenJob, Parameter, ParameterList, Parity, ParityKind, PeerAddress, Ping, Pong,
    ProbeReport, RxReport, ShortEntry, TestMtu, Tree, TxList, TxPart, Txs, Version, VersionAck,
    WireLap, WireRun, Workout,
};

/// A job as a talker knows it: the reference that a message to the peer uses, and the claimed count.
pub type KnownJob = (JobRef, u32);

/// An OPEN_JOB that was heard, or is to be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Transactions.
    pub count: u32,
    /// Bytes of the block.
    pub block_bytes: u32,
    /// The nonce of short ids.
    pub nonce: u64,
    /// The header.
    pub header: [u8; 80],
}

impl Offer {
    /// What an OPEN_JOB offers.
    pub const fn of(open: &OpenJob<'_>) -> Self {
        Self {
            count: open.count,
            block_bytes: open.block_bytes,
            nonce: open.nonce,
            header: *open.header,
        }
    }

    /// The frame that offers it under an id, as if all of it were there.
    pub fn frame(&self, job: u16) -> Vec<u8> {
        frame_of(&Message::OpenJob(OpenJob {
            job,
            has_commitment: true,
            sender_has_all: true,
            count: self.count,
            block_bytes: self.block_bytes,
            nonce: self.nonce,
            header: &self.header,
        }))
    }
}

/// What there is to speak of.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Jobs between the two.
    pub jobs: &'a [KnownJob],
    /// Offers heard from anyone.
    pub offers: &'a [Offer],
}

impl Facts<'_> {
    fn job(&self, random: &mut StdRng) -> KnownJob {
        let any = JobRef::of_receiver(random.random_range(0..40));
        match self.jobs.is_empty() || random.random_bool(0.1) {
            true => (any, random.random_range(1..5_000)),
            false => self
                .jobs
                .get(random.random_range(0..self.jobs.len()))
                .copied()
                .unwrap_or((any, 1)),
        }
    }
}

/// A number near something that matters, or any.
fn odd(of: u32, random: &mut StdRng) -> u32 {
    match random.random_range(0..8) {
        0 => 0,
        1 => 1,
        2 => of.saturating_sub(1),
        3 => of,
        4 => of.saturating_add(1),
        5 => 1 << 24,
        6 => random.random(),
        _ => random.random_range(0..of.max(1)),
    }
}

/// Calls `say` with a workout of some runs, most of them within a tree of `count` leaves.
fn with_workout<T>(
    count: u32,
    level: Option<u8>,
    random: &mut StdRng,
    say: impl FnOnce(HashlessWorkout<'_>) -> T,
) -> T {
    let depth = Geometry::new(count.clamp(1, 1 << 24)).map_or(0, |geometry| geometry.depth());
    let most = random.random_range(1..=40);
    let mut runs = Vec::new();
    let mut start = 0;
    for _ in 0..most {
        let level = level.unwrap_or(random.random_range(0..=depth));
        let width = 1_u32 << level.min(24);
        let (from, length) = (odd(width / 2, random) % width, odd(width, random).max(1));
        start = match random.random_bool(0.5) {
            true => from,
            false => (start + 1) % width,
        };
        let end = start.saturating_add(length).min(width);
        runs.push(HashlessRun::flat(level, start..end.max(start + 1)));
    }
    say(HashlessWorkout::new(&runs))
}

/// A frame of that type, which decodes but for what the numbers break.
pub fn frame(kind: MessageType, facts: &Facts<'_>, random: &mut StdRng) -> Vec<u8> {
    match kind {
        MessageType::OpenJob
        | MessageType::CloseJob
        | MessageType::JobState
        | MessageType::JobStateAck
        | MessageType::GetHashes
        | MessageType::GetTxs
        | MessageType::Missing
        | MessageType::Cancel => about_job(kind, facts, random),
        MessageType::Hashes | MessageType::Txs | MessageType::TxPart | MessageType::Parity => {
            data(kind, facts, random)
        }
        _ => about_session(kind, random),
    }
}

fn about_session(kind: MessageType, random: &mut StdRng) -> Vec<u8> {
    let sizes = [28, 1_200, 1_472, 65_507];
    let size = sizes[random.random_range(0..sizes.len())];
    let message = match kind {
        MessageType::Version => return version(random.random(), random),
        MessageType::VersionAck => Message::VersionAck(VersionAck {
            version: 1,
            features: 0,
        }),
        MessageType::Addr => return addresses(random),
        MessageType::Disconnect => Message::Disconnect(Disconnect {
            reason: DisconnectReason::from_wire(random.random()),
            text: "no reason",
        }),
        MessageType::SetParams => return parameters(random),
        MessageType::TestMtu => Message::TestMtu(TestMtu {
            nonce: random.random(),
            size,
            count: random.random_range(1..=16),
        }),
        MessageType::EstimateBandwidth => Message::EstimateBandwidth(EstimateBandwidth {
            nonce: random.random(),
            size,
            count: random.random_range(1..=512),
            gap_us: odd(1_000, random),
        }),
        MessageType::ProbeReport => Message::ProbeReport(ProbeReport {
            nonce: random.random(),
            received: random.random(),
            largest: size,
            first_to_last_us: odd(1_000, random),
        }),
        MessageType::Ping => Message::Ping(Ping {
            nonce: random.random(),
            padding: random.random_range(2..1_100),
        }),
        MessageType::Pong => Message::Pong(Pong {
            nonce: random.random(),
            bytes: random.random(),
        }),
        MessageType::RxReport => {
            let words = [random.random(), random.random()];
            let highest = random.random_range(0..200);
            Message::RxReport(RxReport::new(highest, odd(1_000, random), &words))
        }
        _ => Message::GetAddr,
    };
    frame_of(&message)
}

fn about_job(kind: MessageType, facts: &Facts<'_>, random: &mut StdRng) -> Vec<u8> {
    let (job, count) = facts.job(random);
    let depth = Geometry::new(count.clamp(1, 1 << 24)).map_or(0, |geometry| geometry.depth());
    match kind {
        MessageType::OpenJob => offer(facts, random).frame(random.random_range(0..0x8000)),
        MessageType::CloseJob => frame_of(&Message::CloseJob(CloseJob {
            job,
            reason: CloseReason::from_wire(random.random_range(0..5)).unwrap_or(CloseReason::Done),
        })),
        MessageType::GetTxs => with_workout(count, Some(depth), random, |nodes| {
            frame_of(&Message::GetTxs(GetTxs { job, nodes }))
        }),
        MessageType::GetHashes => {
            let (tree, short) = [
                (Tree::Txid, false),
                (Tree::Witness, false),
                (Tree::Witness, true),
            ][random.random_range(0..3)];
            let around = random.random_range(0..=depth.min(MAX_LEVEL));
            with_workout(count, None, random, |nodes| {
                frame_of(&Message::GetHashes(GetHashes {
                    job,
                    tree,
                    short,
                    around,
                    nodes,
                }))
            })
        }
        _ => {
            let kinds = [Kind::TxidHashes, Kind::WitnessHashes, Kind::Transactions];
            let of = kinds[random.random_range(0..3)];
            let reasons = [
                MissingReason::Block,
                MissingReason::Nodes,
                MissingReason::Throttled,
            ];
            let reason = reasons[random.random_range(0..3)];
            let request = [MessageType::GetHashes, MessageType::GetTxs][random.random_range(0..2)];
            with_workout(count, None, random, |nodes| {
                let state = JobState {
                    job,
                    kind: of,
                    nodes,
                };
                frame_of(&match kind {
                    MessageType::JobState => Message::JobState(state),
                    MessageType::JobStateAck => Message::JobStateAck(state),
                    MessageType::Cancel => Message::Cancel(Cancel {
                        job,
                        kind: of,
                        nodes,
                    }),
                    _ => Message::Missing(Missing {
                        job,
                        reason,
                        request,
                        nodes,
                    }),
                })
            })
        }
    }
}

/// Hashes and transactions that belong to nothing.
fn data(kind: MessageType, facts: &Facts<'_>, random: &mut StdRng) -> Vec<u8> {
    let (job, count) = facts.job(random);
    match kind {
        MessageType::Txs => {
            let mut list = vec![vec![0; random.random_range(1..400)]; random.random_range(1..3)];
            list.iter_mut().for_each(|bytes| random.fill_bytes(bytes));
            let transactions: Vec<&[u8]> = list.iter().map(Vec::as_slice).collect();
            frame_of(&Message::Txs(Txs {
                job,
                first: odd(count, random) % (1 << 24),
                transactions: TxList::new(&transactions),
            }))
        }
        MessageType::TxPart => {
            let mut bytes = vec![0; CELL as usize];
            random.fill_bytes(&mut bytes);
            let cell = odd(100, random).min(3_000_000);
            let least = (cell + 1) * CELL;
            frame_of(&Message::TxPart(TxPart {
                job,
                index: odd(count, random) % (1 << 24),
                total: odd(1_000_000, random).max(least),
                cell,
                bytes: &bytes,
            }))
        }
        MessageType::Parity => {
            let count = random.random_range(1..=8);
            let cell = [64, 196, 2, 200][random.random_range(0..4)];
            let mut cells = vec![0; usize::from(count) * cell];
            random.fill_bytes(&mut cells);
            let kind = match random.random_range(0..3) {
                0 => ParityKind::Flight,
                1 => ParityKind::Anchor,
                _ => ParityKind::Transactions,
            };
            frame_of(&Message::Parity(Parity {
                job,
                kind,
                bytes: odd(1_000_000, random).max(1),
                planned: random.random_range(1..=32_768),
                first: random.random_range(0..32_000),
                count,
                cells: &cells,
            }))
        }
        _ => lap(job, count, random),
    }
}

fn lap(job: JobRef, count: u32, random: &mut StdRng) -> Vec<u8> {
    let geometry = Geometry::new(count.clamp(1, 1 << 24)).expect("within the range of trees");
    let level = random.random_range(0..=geometry.depth());
    let start = random.random_range(0..geometry.width(level));
    let end = start.saturating_add(random.random_range(1..40));
    let around = random.random_range(0..=level);
    let ancestor = geometry
        .node(level, start)
        .and_then(|node| geometry.ancestor(node, around));
    let end = ancestor.map_or(end, |above| end.min(geometry.descendants(above, level).end));
    let lap = ancestor.and_then(|above| geometry.lap(above, level, start..end));
    let Some(lap) = lap else {
        return Vec::new();
    };
    let short = lap.runs.len() == 1 && random.random_bool(0.5);
    if short && let Some(flat) = lap.flat() {
        let entries: Vec<ShortEntry> = (0..flat.count)
            .map(|_| ShortEntry::Short(random.random::<u64>() >> 16))
            .collect();
        if let Some(sequence) = HashSequence::short(&entries, 6) {
            let runs = [WireRun::new(flat, sequence)];
            let lap = WireLap::new(&lap, &runs);
            let tree = Tree::Witness;
            return frame_of(&Message::Hashes(Hashes { job, tree, lap }));
        }
    }
    let hashes: Vec<[u8; 32]> = (0..lap.len()).map(|_| random.random()).collect();
    let Some(runs) = WireLap::runs_of(&lap, &hashes) else {
        return Vec::new();
    };
    let tree = [Tree::Txid, Tree::Witness][random.random_range(0..2)];
    let lap = WireLap {
        level: lap.ancestor.0,
        index: lap.ancestor.1,
        runs: Workout::new(&runs),
    };
    frame_of(&Message::Hashes(Hashes { job, tree, lap }))
}

/// An offer of something heard with other numbers, or of a header that nobody worked for.
pub fn offer(facts: &Facts<'_>, random: &mut StdRng) -> Offer {
    let known = match facts.offers.is_empty() {
        true => None,
        false => facts.offers.get(random.random_range(0..facts.offers.len())),
    };
    let mut offer = known.cloned().unwrap_or(Offer {
        count: 100,
        block_bytes: 50_000,
        nonce: 0,
        header: random_header(random),
    });
    match random.random_range(0..6) {
        0 => offer.count = odd(offer.count, random).clamp(1, 1 << 24),
        1 => offer.block_bytes = odd(offer.block_bytes, random),
        2 => offer.nonce = random.random(),
        // Nobody knows its parent.
        3 => offer.header = random_header(random),
        // Its work is gone.
        4 => {
            if let Some(byte) = offer.header.get_mut(random.random_range(36..80)) {
                *byte ^= 1 << random.random_range(0..8);
            }
        }
        _ => {}
    }
    offer
}

fn random_header(random: &mut StdRng) -> [u8; 80] {
    let mut header = [0; 80];
    random.fill_bytes(&mut header);
    header
}

/// A BTVERSION that nobody can mean.
pub fn version(nonce: u64, random: &mut StdRng) -> Vec<u8> {
    let pairs = strange_pairs(random);
    let (low, high) = (random.random_range(0..3), random.random_range(0..3));
    frame_of(&Message::Version(Version {
        network: [0xdab5_bffa, 0xdab5_bffa, 0xdab5_bffa, 7][random.random_range(0..4)],
        version_min: low,
        version_max: high.max(low),
        features: random.random(),
        nonce,
        conn_id: random.random_range(0..4),
        mac_key: &random.random(),
        udp_port: [0, 18_433, 18_433][random.random_range(0..3)],
        max_datagram: [1_200, 1_472, 65_507][random.random_range(0..3)],
        tip: &random.random(),
        parameters: ParameterList::new(&pairs),
        agent: "/nobody/",
    }))
}

/// A SET_PARAMS with extreme values.
pub fn parameters(random: &mut StdRng) -> Vec<u8> {
    let pairs = strange_pairs(random);
    frame_of(&Message::SetParams(ParameterList::new(&pairs)))
}

fn strange_pairs(random: &mut StdRng) -> Vec<Parameter> {
    let mut pairs = Vec::new();
    for key in 1..=12 {
        let most: u64 = match key {
            1 | 2 => u32::MAX.into(),
            3 | 4 => 255,
            5 => 65_507,
            6 => 3,
            7..=10 => 65_535,
            _ => u64::MAX,
        };
        let least = if key == 5 { 1_200 } else { 0 };
        if random.random_bool(0.5) {
            let value = match random.random_range(0..4) {
                0 => least,
                1 => most,
                2 => (least + 1).min(most),
                _ => random.random_range(least..=most),
            };
            pairs.push(Parameter { key, value });
        }
    }
    pairs
}

/// A BTADDR full of addresses that lead nowhere.
pub fn addresses(random: &mut StdRng) -> Vec<u8> {
    let count = [1, 100, 100][random.random_range(0..3)];
    let list: Vec<PeerAddress> = (0..count)
        .map(|_| PeerAddress {
            address: match random.random_range(0..4) {
                0 => NetworkAddress::Ipv4([127, 0, 0, 1]),
                1 => NetworkAddress::Ipv6(random.random()),
                2 => NetworkAddress::TorV3(random.random()),
                _ => NetworkAddress::Ipv4(random.random()),
            },
            tcp_port: random.random(),
            udp_port: random.random(),
            services: u64::MAX,
            last_seen: random.random(),
        })
        .collect();
    frame_of(&Message::Addr(AddressList::new(&list)))
}

/// The frame with some of its body changed, cut or grown; its length still fits.
pub fn garbled(frame: &[u8], random: &mut StdRng) -> Vec<u8> {
    let kind = frame.first().copied().unwrap_or(0x20);
    let mut body = frame.get(2..).unwrap_or_default().to_vec();
    for _ in 0..random.random_range(1..4) {
        match random.random_range(0..4) {
            0 => body.truncate(random.random_range(0..=body.len())),
            1 => body.push(random.random()),
            _ => {
                let at = random.random_range(0..body.len().max(1));
                if let Some(byte) = body.get_mut(at) {
                    *byte = [0, 1, 0x3f, 0x7f, 0xfd, 0xfe, 0xff][random.random_range(0..7)];
                }
            }
        }
    }
    let kind = match random.random_range(0..10) {
        0 => random.random(),
        _ => kind,
    };
    let mut out = Vec::new();
    append_frame(kind, &body, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Frames;
    use rand::SeedableRng as _;

    #[test]
    fn every_kind_is_spoken_and_most_of_it_is_understood() {
        let mut random = StdRng::seed_from_u64(1);
        let jobs = [(JobRef::of_receiver(1), 700), (JobRef::of_sender(3), 1)];
        let facts = Facts {
            jobs: &jobs,
            offers: &[],
        };
        for kind in MessageType::ALL {
            let mut understood = 0;
            for _ in 0..100 {
                let frame = frame(*kind, &facts, &mut random);
                for (kind, body) in Frames::new(&frame).map_while(Result::ok) {
                    understood += u32::from(Message::decode(kind, body).is_ok());
                }
                // Whatever comes of it, it is a frame.
                let garbled = garbled(&frame, &mut random);
                assert_eq!(Frames::new(&garbled).filter(Result::is_ok).count(), 1);
            }
            assert!(understood > 30, "{kind:?}: {understood}");
        }
    }
}
