//! Tests over all messages: what is written is read, what is read is canonical, nothing panics.

use super::*;
use crate::merkle::{Direction, Geometry, Hash};
use proptest::prelude::*;

/// Numbers that look random, from a seed that proptest chose (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, small values as likely as large ones.
    fn below(&mut self, bound: u64) -> u64 {
        let shift = self.next() % 64;
        (self.next() >> shift) % bound
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    fn job(&mut self) -> JobRef {
        JobRef::from_wire(self.next() as u16)
    }

    fn hash(&mut self) -> Hash {
        std::array::from_fn(|_| self.next() as u8)
    }

    fn text(&mut self) -> String {
        (0..self.below(65))
            .map(|_| char::from(0x20 + self.below(95) as u8))
            .collect()
    }

    fn hashless(&mut self, least: u64) -> HashlessRuns {
        let mut runs = HashlessRuns::new();
        for _ in 0..least + self.below(4) {
            let level = self.below(25) as u8;
            let start = self.below(1 << level) as u32;
            if self.coin() {
                let direction = if self.coin() {
                    Direction::Up
                } else {
                    Direction::Down
                };
                let count = 1 + self.below(lap::longest(direction, level, start)) as u32;
                runs.push_run(
                    crate::merkle::Run {
                        direction,
                        level,
                        start,
                        count,
                    },
                    1_000,
                );
                continue;
            }
            let mut end = start;
            let steps: Vec<_> = (0..1 + self.below(9))
                .map(|_| {
                    let start = end + self.below(9) as u32;
                    end = start + 1 + self.below(40) as u32;
                    start..end
                })
                .collect();
            runs.append(level, steps, 1_000);
        }
        if u64::from(runs.len()) < least {
            runs.append(0, std::iter::once(0..1), 1_000);
        }
        runs
    }
}

type See<'s> = &'s mut dyn FnMut(&Message<'_>);

fn control_message(kind: MessageType, dice: &mut Dice, see: See<'_>) {
    let parameters = Parameters {
        max_down_kbit_s: dice.coin().then(|| dice.next() as u32),
        max_up_kbit_s: dice.coin().then(|| dice.next() as u32),
        preference: dice.coin().then(|| dice.next() as u8),
        role: dice.coin().then(|| dice.next() as u8),
        max_datagram: dice.coin().then(|| 1_200 + dice.below(64_308) as u16),
        push_level: dice.coin().then(|| dice.below(4) as u8),
        max_jobs: dice.coin().then(|| dice.next() as u16),
        push_budget_datagrams: dice.coin().then(|| dice.next() as u16),
        control_port: dice.coin().then(|| dice.next() as u16),
        bitcoin_port: dice.coin().then(|| dice.next() as u16),
    };
    let mut pairs = parameters.pairs().to_vec();
    if dice.coin() {
        pairs.push(Parameter {
            key: 11 + dice.below(200) as u8,
            value: dice.next(),
        });
    }
    let parameters = ParameterList::new(&pairs);
    let text = dice.text();
    let size = 28 + dice.below(65_480) as u16;
    match kind {
        MessageType::Version => {
            let version_min = dice.below(9) as u16;
            see(&Message::Version(Version {
                network: dice.next() as u32,
                version_min,
                version_max: version_min + dice.below(9) as u16,
                features: dice.next(),
                nonce: dice.next(),
                conn_id: dice.next() as u32,
                mac_key: &std::array::from_fn(|_| dice.next() as u8),
                udp_port: dice.next() as u16,
                max_datagram: 1_200 + dice.below(64_308) as u16,
                tip: &dice.hash(),
                parameters,
                agent: &text,
            }));
        }
        MessageType::VersionAck => {
            see(&Message::VersionAck(VersionAck {
                version: dice.next() as u16,
                features: dice.next(),
            }));
        }
        MessageType::GetAddr => see(&Message::GetAddr),
        MessageType::Addr => {
            let addresses: Vec<_> = (0..dice.below(101)).map(|_| address(dice)).collect();
            see(&Message::Addr(AddressList::new(&addresses)));
        }
        MessageType::Disconnect => {
            let reason = DisconnectReason::from_wire(dice.next() as u8);
            see(&Message::Disconnect(Disconnect {
                reason,
                text: &text,
            }));
        }
        MessageType::SetParams => see(&Message::SetParams(parameters)),
        MessageType::TestMtu => {
            see(&Message::TestMtu(TestMtu {
                nonce: dice.next(),
                size,
                count: 1 + dice.below(16) as u8,
            }));
        }
        MessageType::EstimateBandwidth => see(&Message::EstimateBandwidth(EstimateBandwidth {
            nonce: dice.next(),
            size,
            count: 1 + dice.below(512) as u16,
            gap_us: dice.next() as u32,
        })),
        MessageType::ProbeReport => see(&Message::ProbeReport(ProbeReport {
            nonce: dice.next(),
            received: dice.next() as u16,
            largest: dice.next() as u16,
            first_to_last_us: dice.next() as u32,
        })),
        _ => job_message(kind, dice, see),
    }
}

fn address(dice: &mut Dice) -> PeerAddress {
    let bytes = dice.hash();
    let short = *bytes.first_chunk().expect("32 bytes");
    let address = match dice.below(6) {
        0 => NetworkAddress::Ipv4(*bytes.first_chunk().expect("32 bytes")),
        1 => NetworkAddress::Ipv6(short),
        2 => NetworkAddress::TorV2(*bytes.first_chunk().expect("32 bytes")),
        3 => NetworkAddress::TorV3(bytes),
        4 => NetworkAddress::I2p(bytes),
        _ => NetworkAddress::Cjdns(short),
    };
    PeerAddress {
        address,
        tcp_port: dice.next() as u16,
        udp_port: dice.next() as u16,
        services: dice.next(),
        last_seen: dice.next() as u32,
    }
}

fn job_message(kind: MessageType, dice: &mut Dice, see: See<'_>) {
    let job = dice.job();
    let state_kind = Kind::from_wire(dice.below(3) as u8).expect("three kinds");
    match kind {
        MessageType::OpenJob => see(&Message::OpenJob(OpenJob {
            job: job.id,
            has_commitment: dice.coin(),
            sender_has_all: dice.coin(),
            count: 1 + dice.below(1 << 24) as u32,
            block_bytes: dice.next() as u32,
            nonce: dice.next(),
            header: &std::array::from_fn(|_| dice.next() as u8),
        })),
        MessageType::CloseJob => {
            let reason = CloseReason::from_wire(dice.below(5) as u8).expect("five reasons");
            see(&Message::CloseJob(CloseJob { job, reason }));
        }
        MessageType::JobState | MessageType::JobStateAck => {
            let runs = dice.hashless(0);
            let state = JobState {
                job,
                kind: state_kind,
                nodes: runs.as_workout(),
            };
            let acknowledged = kind == MessageType::JobStateAck;
            see(&if acknowledged {
                Message::JobStateAck(state)
            } else {
                Message::JobState(state)
            });
        }
        MessageType::Ping => {
            see(&Message::Ping(Ping {
                nonce: dice.next(),
                padding: 2 + dice.below(65_000) as u16,
            }));
        }
        MessageType::Pong => see(&Message::Pong(Pong {
            nonce: dice.next(),
            bytes: dice.next() as u16,
        })),
        MessageType::GetHashes => {
            let runs = dice.hashless(1);
            let (tree, short) = [
                (Tree::Txid, false),
                (Tree::Witness, false),
                (Tree::Witness, true),
            ][dice.below(3) as usize];
            let around = dice.below(25) as u8;
            see(&Message::GetHashes(GetHashes {
                job,
                tree,
                short,
                around,
                nodes: runs.as_workout(),
            }));
        }
        MessageType::GetTxs => {
            let runs = dice.hashless(1);
            see(&Message::GetTxs(GetTxs {
                job,
                nodes: runs.as_workout(),
            }));
        }
        MessageType::Missing => {
            let runs = dice.hashless(0);
            let reason = MissingReason::from_wire(dice.below(3) as u8).expect("three reasons");
            let request = if dice.coin() {
                MessageType::GetHashes
            } else {
                MessageType::GetTxs
            };
            see(&Message::Missing(Missing {
                job,
                reason,
                request,
                nodes: runs.as_workout(),
            }));
        }
        MessageType::Cancel => {
            let runs = dice.hashless(1);
            see(&Message::Cancel(Cancel {
                job,
                kind: state_kind,
                nodes: runs.as_workout(),
            }));
        }
        MessageType::RxReport => {
            let words: Vec<u64> = (0..1 + dice.below(4)).map(|_| dice.next()).collect();
            see(&Message::RxReport(RxReport::new(
                dice.next() as u32,
                dice.next() as u32,
                &words,
            )));
        }
        _ => payload_message(kind, job, dice, see),
    }
}

fn payload_message(kind: MessageType, job: JobRef, dice: &mut Dice, see: See<'_>) {
    match kind {
        MessageType::Hashes => hashes_message(job, dice, see),
        MessageType::Txs => {
            let owned: Vec<Vec<u8>> = (0..1 + dice.below(9))
                .map(|_| vec![7; 1 + dice.below(400) as usize])
                .collect();
            let transactions: Vec<&[u8]> = owned.iter().map(Vec::as_slice).collect();
            let first = dice.below((1 << 24) - 9) as u32;
            see(&Message::Txs(Txs {
                job,
                first,
                transactions: TxList::new(&transactions),
            }));
        }
        MessageType::TxPart => {
            let cell = dice.below(1 << 20) as u32;
            let whole = dice.coin();
            let len = if whole {
                CELL * (1 + dice.below(3) as u32)
            } else {
                1 + dice.below(3_000) as u32
            };
            let total = cell * CELL + len + if whole { dice.below(5_000) as u32 } else { 0 };
            let index = dice.below(1 << 24) as u32;
            let bytes = vec![3; len as usize];
            see(&Message::TxPart(TxPart {
                job,
                index,
                total,
                cell,
                bytes: &bytes,
            }));
        }
        MessageType::Parity => {
            let count = 1 + dice.below(9) as u8;
            let cells = vec![9; usize::from(count) * (1 + dice.below(300) as usize)];
            see(&Message::Parity(Parity {
                job,
                kind: match dice.below(3) {
                    0 => ParityKind::Flight,
                    1 => ParityKind::Anchor,
                    _ => ParityKind::Transactions,
                },
                bytes: 1 + dice.below(u64::from(u32::MAX)) as u32,
                planned: 1 + dice.below(32_768) as u32,
                first: dice.below(32_768 - u64::from(count)) as u32,
                count,
                cells: &cells,
            }));
        }
        _ => unreachable!("every other type has its arm: {kind:?}"),
    }
}

fn hashes_message(job: JobRef, dice: &mut Dice, see: See<'_>) {
    let geometry = Geometry::new(1 + dice.below(5_000) as u32).expect("a tree");
    let level = dice.below(u64::from(geometry.depth()) + 1) as u8;
    let index = dice.below(u64::from(geometry.width(level))) as u32;
    let ancestor = geometry.node(level, index).expect("within the width");
    let leaves = geometry.leaves(ancestor);
    let start = leaves.start + dice.below(u64::from(leaves.end - leaves.start)) as u32;
    let end = start + 1 + dice.below(u64::from(leaves.end - start).min(99)) as u32;
    let lap = geometry
        .lap(ancestor, geometry.depth(), start..end)
        .expect("below the ancestor");
    let hashes: Vec<Hash> = (0..lap.len()).map(|_| dice.hash()).collect();
    let entries: Vec<_> = (start..end)
        .map(|_| match dice.below(8) {
            1 => ShortEntry::Full(dice.hash()),
            _ => ShortEntry::Short(dice.next()),
        })
        .collect();
    let mut runs = WireLap::runs_of(&lap, &hashes).expect("a hash for each node");
    let size = 4 + dice.below(5) as u8;
    if let Some(sequence) = HashSequence::short(&entries, size).filter(|_| dice.coin())
        && let Some(flat) = runs.iter_mut().find(|run| run.direction == Direction::Flat)
    {
        flat.hashes = sequence;
    }
    let lap = WireLap::new(&lap, &runs);
    let tree = if lap.has_short_ids() || dice.coin() {
        Tree::Witness
    } else {
        Tree::Txid
    };
    see(&Message::Hashes(Hashes { job, tree, lap }));
}

/// Lets `see` have a valid message of this type.
fn any_message(kind: MessageType, seed: u64, see: See<'_>) {
    control_message(kind, &mut Dice(seed), see);
}

fn body_of(message: &Message<'_>) -> Vec<u8> {
    let mut buffer = vec![0; message.encoded_len()];
    let mut writer = Writer::new(&mut buffer);
    message
        .encode(&mut writer)
        .expect("the length was asked for");
    assert_eq!(writer.remaining(), 0, "{message:?}");
    buffer
}

fn any_body(kind: MessageType, seed: u64) -> Vec<u8> {
    let mut body = None;
    any_message(kind, seed, &mut |message| body = Some(body_of(message)));
    body.expect("a message of every type")
}

/// Decodes, and if that succeeds, demands the same bytes back.
fn check_canonical(kind: u8, body: &[u8]) {
    if let Ok(Some(message)) = Message::decode(kind, body) {
        assert_eq!(body_of(&message), body, "{message:?}");
        let mut stream = Vec::new();
        message.append_frame(&mut stream);
        assert_eq!(stream.len(), message.frame_len());
    }
}

fn any_type() -> impl Strategy<Value = MessageType> {
    prop::sample::select(MessageType::ALL)
}

#[test]
fn types_that_are_not_known_are_refused_below_0x80_and_passed_over_above() {
    for byte in 0..=u8::MAX {
        let decoded = Message::decode(byte, &[]);
        match MessageType::from_wire(byte) {
            Some(kind) => assert_eq!(decoded.is_ok(), kind == MessageType::GetAddr, "{kind:?}"),
            None if byte < 0x80 => assert_eq!(decoded, Err(WireError::UnknownType)),
            None => assert_eq!(decoded, Ok(None)),
        }
    }
    assert_eq!(MessageType::ALL.len(), 24);
    assert_eq!(
        Message::decode(0x27, &vec![0; 65_537]),
        Err(WireError::FrameTooLong)
    );
}

#[test]
fn a_pong_is_never_longer_than_its_ping() {
    for len in 0..1_300 {
        match Ping::filling(9, len) {
            Some(ping) => {
                assert_eq!(Message::Ping(ping).frame_len(), len);
                assert!(Message::Pong(Pong { nonce: 9, bytes: 0 }).frame_len() <= len);
            }
            None => assert!(len < 12 || len == 255 || len == 256, "{len}"),
        }
    }
    assert_eq!(Ping::filling(0, 70_000), None);
}

proptest! {
    #[test]
    fn every_message_survives(kind in any_type(), seed in any::<u64>()) {
        any_message(kind, seed, &mut |message| {
            let body = body_of(message);
            assert_eq!(Message::decode(kind.to_wire(), &body), Ok(Some(*message)));
            let mut small = vec![0; message.frame_len() - 1];
            let mut writer = Writer::new(&mut small);
            assert_eq!(message.write_frame(&mut writer), Err(NoRoom));
            assert_eq!(writer.position(), 0);
        });
    }

    /// No message is the beginning of another of its type, and none has room for more, except where its last
    /// field takes all that is left.
    #[test]
    fn cut_anywhere_or_with_more_behind_it_is_refused(kind in any_type(), seed in any::<u64>()) {
        let mut body = any_body(kind, seed);
        let open_ended = matches!(
            kind,
            MessageType::Ping | MessageType::TxPart | MessageType::Parity
        );
        let step = (body.len() / 200).max(1);
        for len in (0..body.len()).step_by(step) {
            check_canonical(kind.to_wire(), &body[..len]);
            let cut = Message::decode(kind.to_wire(), &body[..len]);
            assert!(open_ended || cut.is_err(), "{kind:?} cut to {len}: {cut:?}");
        }
        body.push(0);
        check_canonical(kind.to_wire(), &body);
        let longer = Message::decode(kind.to_wire(), &body);
        prop_assert!(open_ended || longer == Err(WireError::TrailingBytes), "{:?}", longer);
    }

    #[test]
    fn altered_bytes_are_refused_or_canonical(
        kind in any_type(),
        seed in any::<u64>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut body = any_body(kind, seed);
        for (at, byte) in changes {
            if !body.is_empty() {
                let at = at.index(body.len());
                body[at] = byte;
            }
        }
        check_canonical(kind.to_wire(), &body);
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_canonical(kind in any::<u8>(), body in prop::collection::vec(0u8..40, 0..60)) {
        check_canonical(kind, &body);
    }

    #[test]
    fn arbitrary_frames_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for (kind, body) in datagram::Frames::new(&bytes).flatten() {
            check_canonical(kind, body);
        }
        let mut decoder = ControlDecoder::new();
        let mut input = &bytes[..];
        while let Ok(Some((kind, body))) = decoder.read(&mut input) {
            check_canonical(kind, &body);
        }
    }
}
