//! Structures and messages from the fields of a vector, encoded.

use super::json::{byte, bytes, flag, list, number, short, text, wide};
use blocktorrent::merkle::{Direction, Hash};
use blocktorrent::wire::{
    AddressList, Cancel, CloseJob, CloseReason, Disconnect, DisconnectReason, EstimateBandwidth,
    GetHashes, GetTxs, HashSequence, Hashes, HashlessRun, HashlessWorkout, JobRef, JobState, Kind,
    Message, MessageType, Missing, MissingReason, NetworkAddress, OpenJob, Parameter,
    ParameterList, Parity, ParityKind, PeerAddress, Ping, Pong, ProbeReport, RxReport, Shape,
    ShortEntry, TestMtu, Tree, TxList, TxPart, Txs, Version, VersionAck, WireLap, WireRun, Workout,
    Writer,
};
use serde_json::Value;

/// Encoded bytes; none where the wire allows what no constructor makes (a sequence with exceptions that are
/// short ids), which is checked by decoding and encoding again.
pub type Written = Option<Vec<u8>>;

fn body(message: &Message<'_>) -> Vec<u8> {
    let mut buffer = vec![0; message.encoded_len()];
    let mut writer = Writer::new(&mut buffer);
    message
        .encode(&mut writer)
        .expect("the length was asked for");
    assert_eq!(writer.remaining(), 0);
    buffer
}

pub fn job(fields: &Value) -> JobRef {
    let id = short(&fields["id"]);
    match text(&fields["whose"]) {
        "sender" => JobRef::of_sender(id),
        "receiver" => JobRef::of_receiver(id),
        other => panic!("no side {other}"),
    }
}

fn direction(value: &Value) -> Option<Direction> {
    match text(value) {
        "flat" => Some(Direction::Flat),
        "down" => Some(Direction::Down),
        "up" => Some(Direction::Up),
        _ => None,
    }
}

fn hash(bytes: &[u8]) -> Hash {
    bytes.try_into().expect("32 bytes")
}

/// The hashes of a sequence, owned, from which it is borrowed.
enum Sequence {
    Full(Vec<Hash>),
    Short(Vec<ShortEntry>, u8),
}

impl Sequence {
    fn new(fields: &Value) -> Option<Self> {
        let size = byte(&fields["default_size"]);
        let hashes: Vec<Vec<u8>> = list(&fields["hashes"]).iter().map(bytes).collect();
        if size == 32 {
            let full = hashes.iter().all(|one| one.len() == 32);
            return full.then(|| Self::Full(hashes.iter().map(|one| hash(one)).collect()));
        }
        let entries = hashes.iter().map(|one| {
            if one.len() == 32 {
                return Some(ShortEntry::Full(hash(one)));
            }
            let mut id = [0; 8];
            id.get_mut(..one.len())?.copy_from_slice(one);
            (one.len() == usize::from(size)).then(|| ShortEntry::Short(u64::from_le_bytes(id)))
        });
        Some(Self::Short(entries.collect::<Option<_>>()?, size))
    }

    fn borrow(&self) -> HashSequence<'_> {
        match self {
            Self::Full(hashes) => HashSequence::full(hashes),
            Self::Short(entries, size) => HashSequence::short(entries, *size).expect("short ids"),
        }
    }
}

pub fn with_sequence(fields: &Value, see: impl FnOnce(HashSequence<'_>) -> Vec<u8>) -> Written {
    Some(see(Sequence::new(fields)?.borrow()))
}

pub fn with_runs(fields: &Value, see: impl FnOnce(&[WireRun<'_>]) -> Vec<u8>) -> Written {
    let fields = list(fields);
    let sequences: Vec<Sequence> = fields
        .iter()
        .map(|run| Sequence::new(&run["sequence"]))
        .collect::<Option<_>>()?;
    let runs = fields
        .iter()
        .zip(&sequences)
        .map(|(run, sequence)| WireRun {
            direction: direction(&run["direction"]).expect("a run with hashes is no bitmap"),
            level: byte(&run["level"]),
            start: number(&run["start"]),
            hashes: sequence.borrow(),
        });
    Some(see(&runs.collect::<Vec<_>>()))
}

pub fn with_lap(fields: &Value, see: impl FnOnce(WireLap<'_>) -> Vec<u8>) -> Written {
    with_runs(&fields["runs"], |runs| {
        let (level, index) = (byte(&fields["level"]), number(&fields["index"]));
        see(WireLap {
            level,
            index,
            runs: Workout::new(runs),
        })
    })
}

pub fn with_hashless<T>(fields: &Value, see: impl FnOnce(HashlessWorkout<'_>) -> T) -> T {
    let fields = list(fields);
    let bitmaps: Vec<Vec<u8>> = fields
        .iter()
        .map(|run| run.get("bitmap").map(bytes).unwrap_or_default())
        .collect();
    let runs = fields.iter().zip(&bitmaps).map(|(run, bits)| HashlessRun {
        shape: direction(&run["direction"]).map_or(Shape::Bitmap(bits), Shape::Run),
        level: byte(&run["level"]),
        start: number(&run["start"]),
        count: number(&run["count"]),
    });
    see(HashlessWorkout::new(&runs.collect::<Vec<_>>()))
}

fn tree(value: &Value) -> Tree {
    if text(value) == "T" {
        Tree::Txid
    } else {
        Tree::Witness
    }
}

fn parameters(value: &Value) -> Vec<Parameter> {
    list(value)
        .iter()
        .map(|pair| Parameter {
            key: byte(&pair["key"]),
            value: wide(&pair["value"]),
        })
        .collect()
}

fn address(fields: &Value) -> PeerAddress {
    let bytes = bytes(&fields["address"]);
    let address = match number(&fields["network"]) {
        1 => NetworkAddress::Ipv4(bytes.try_into().expect("4 bytes")),
        2 => NetworkAddress::Ipv6(bytes.try_into().expect("16 bytes")),
        3 => NetworkAddress::TorV2(bytes.try_into().expect("10 bytes")),
        4 => NetworkAddress::TorV3(bytes.try_into().expect("32 bytes")),
        5 => NetworkAddress::I2p(bytes.try_into().expect("32 bytes")),
        6 => NetworkAddress::Cjdns(bytes.try_into().expect("16 bytes")),
        other => panic!("no network {other}"),
    };
    PeerAddress {
        address,
        tcp_port: short(&fields["tcp_port"]),
        udp_port: short(&fields["udp_port"]),
        services: wide(&fields["services"]),
        last_seen: number(&fields["last_seen"]),
    }
}

/// The body of a message; nothing for a type that is not known.
pub fn message(message_type: u8, fields: &Value) -> Written {
    let kind = MessageType::from_wire(message_type)?;
    if kind >= MessageType::JobState {
        return job_message(kind, fields);
    }
    Some(body(&match kind {
        MessageType::Version => return Some(version(fields)),
        MessageType::VersionAck => Message::VersionAck(VersionAck {
            version: short(&fields["version"]),
            features: wide(&fields["features"]),
        }),
        MessageType::Addr => {
            let addresses: Vec<_> = list(&fields["addresses"]).iter().map(address).collect();
            return Some(body(&Message::Addr(AddressList::new(&addresses))));
        }
        MessageType::Disconnect => Message::Disconnect(Disconnect {
            reason: DisconnectReason::from_wire(byte(&fields["reason"])),
            text: text(&fields["text"]),
        }),
        MessageType::SetParams => {
            let pairs = parameters(&fields["parameters"]);
            return Some(body(&Message::SetParams(ParameterList::new(&pairs))));
        }
        MessageType::TestMtu => Message::TestMtu(TestMtu {
            nonce: wide(&fields["nonce"]),
            size: short(&fields["size"]),
            count: byte(&fields["count"]),
        }),
        MessageType::EstimateBandwidth => Message::EstimateBandwidth(EstimateBandwidth {
            nonce: wide(&fields["nonce"]),
            size: short(&fields["size"]),
            count: short(&fields["count"]),
            gap_us: number(&fields["gap_us"]),
        }),
        MessageType::ProbeReport => Message::ProbeReport(ProbeReport {
            nonce: wide(&fields["nonce"]),
            received: short(&fields["received"]),
            largest: short(&fields["largest"]),
            first_to_last_us: number(&fields["first_to_last_us"]),
        }),
        MessageType::OpenJob => return Some(open_job(fields)),
        MessageType::CloseJob => Message::CloseJob(CloseJob {
            job: job(&fields["job"]),
            reason: CloseReason::from_wire(byte(&fields["reason"])).expect("a reason"),
        }),
        _ => Message::GetAddr,
    }))
}

fn version(fields: &Value) -> Vec<u8> {
    body(&Message::Version(Version {
        network: number(&fields["network"]),
        version_min: short(&fields["version_min"]),
        version_max: short(&fields["version_max"]),
        features: wide(&fields["features"]),
        nonce: wide(&fields["nonce"]),
        conn_id: number(&fields["conn_id"]),
        mac_key: &bytes(&fields["mac_key"]).try_into().expect("16 bytes"),
        udp_port: short(&fields["udp_port"]),
        max_datagram: short(&fields["max_datagram"]),
        tip: &hash(&bytes(&fields["tip"])),
        parameters: ParameterList::new(&parameters(&fields["parameters"])),
        agent: text(&fields["agent"]),
    }))
}

fn open_job(fields: &Value) -> Vec<u8> {
    body(&Message::OpenJob(OpenJob {
        job: short(&fields["job"]),
        has_commitment: flag(&fields["has_commitment"]),
        sender_has_all: flag(&fields["sender_has_all"]),
        count: number(&fields["count"]),
        block_bytes: number(&fields["block_bytes"]),
        nonce: wide(&fields["nonce"]),
        header: &bytes(&fields["header"]).try_into().expect("80 bytes"),
    }))
}

fn job_message(message_type: MessageType, fields: &Value) -> Written {
    let of_nodes =
        |see: &dyn Fn(HashlessWorkout<'_>) -> Vec<u8>| Some(with_hashless(&fields["runs"], see));
    let kind = || Kind::from_wire(byte(&fields["kind"])).expect("a kind");
    let job = || job(&fields["job"]);
    Some(body(&match message_type {
        MessageType::JobState => {
            return of_nodes(&|nodes| {
                body(&Message::JobState(JobState {
                    job: job(),
                    kind: kind(),
                    nodes,
                }))
            });
        }
        MessageType::JobStateAck => {
            return of_nodes(&|nodes| {
                body(&Message::JobStateAck(JobState {
                    job: job(),
                    kind: kind(),
                    nodes,
                }))
            });
        }
        MessageType::GetHashes => {
            let (tree, short) = (tree(&fields["tree"]), flag(&fields["short"]));
            let around = byte(&fields["around"]);
            return of_nodes(&|nodes| {
                body(&Message::GetHashes(GetHashes {
                    job: job(),
                    tree,
                    short,
                    around,
                    nodes,
                }))
            });
        }
        MessageType::GetTxs => {
            return of_nodes(&|nodes| body(&Message::GetTxs(GetTxs { job: job(), nodes })));
        }
        MessageType::Missing => {
            let reason = MissingReason::from_wire(byte(&fields["reason"])).expect("a reason");
            let request = MessageType::from_wire(byte(&fields["request"])).expect("a type");
            return of_nodes(&|nodes| {
                body(&Message::Missing(Missing {
                    job: job(),
                    reason,
                    request,
                    nodes,
                }))
            });
        }
        MessageType::Cancel => {
            return of_nodes(&|nodes| {
                body(&Message::Cancel(Cancel {
                    job: job(),
                    kind: kind(),
                    nodes,
                }))
            });
        }
        MessageType::Hashes => {
            let tree = tree(&fields["tree"]);
            return with_lap(&fields["lap"], |lap| {
                body(&Message::Hashes(Hashes {
                    job: job(),
                    tree,
                    lap,
                }))
            });
        }
        MessageType::Txs => {
            let owned: Vec<_> = list(&fields["transactions"]).iter().map(bytes).collect();
            let transactions: Vec<&[u8]> = owned.iter().map(Vec::as_slice).collect();
            let (first, transactions) = (number(&fields["first"]), TxList::new(&transactions));
            return Some(body(&Message::Txs(Txs {
                job: job(),
                first,
                transactions,
            })));
        }
        MessageType::TxPart => {
            let part = bytes(&fields["bytes"]);
            return Some(body(&Message::TxPart(TxPart {
                job: job(),
                index: number(&fields["index"]),
                total: number(&fields["total"]),
                cell: number(&fields["cell"]),
                bytes: &part,
            })));
        }
        MessageType::Parity => {
            let cells = bytes(&fields["cells"]);
            return Some(body(&Message::Parity(Parity {
                job: job(),
                kind: match short(&fields["kind"]) {
                    0 => ParityKind::Flight,
                    1 => ParityKind::Anchor,
                    _ => ParityKind::Transactions,
                },
                bytes: number(&fields["bytes"]),
                planned: number(&fields["planned"]),
                first: number(&fields["first"]),
                count: short(&fields["count"]) as u8,
                cells: &cells,
            })));
        }
        MessageType::Ping => Message::Ping(Ping {
            nonce: wide(&fields["nonce"]),
            padding: short(&fields["padding"]),
        }),
        MessageType::Pong => Message::Pong(Pong {
            nonce: wide(&fields["nonce"]),
            bytes: short(&fields["bytes"]),
        }),
        MessageType::RxReport => {
            let words: Vec<u64> = list(&fields["received"]).iter().map(wide).collect();
            let (highest, delay_us) = (number(&fields["highest"]), number(&fields["delay_us"]));
            Message::RxReport(RxReport::new(highest, delay_us, &words))
        }
        other => panic!("no message of a job: {other:?}"),
    }))
}
