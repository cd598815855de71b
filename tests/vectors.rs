//! Reads `bip/vectors/*.json`, the test vectors of the wire format, and holds the code to them.
//!
//! Every valid vector is checked in both directions: its bytes decode to its fields, and its fields encode
//! to its bytes. Every invalid one is refused for the reason that it names. To add a vector, write its
//! fields, leave `hex` out, and run with `WRITE_VECTORS=1`: what is missing is filled in, nothing else is
//! changed; then check the bytes by hand.

mod vectors {
    pub mod build;
    pub mod describe;
    pub mod json;
}

use blocktorrent::chain::p2p::Advert;
use blocktorrent::wire::{
    DatagramBuilder, Frames, HashSequence, HashlessWorkout, JobRef, MacKey, Message, MessageType,
    NoRoom, Reader, WireError, WireLap, WireRun, Workout, Writer, datagram,
};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use vectors::build::{self, Written};
use vectors::describe;
use vectors::json::{bytes, hex, number, text, wide};

/// Applies `check` to every valid vector of a file after its hex is there, and `refuse` to every invalid one.
fn check_file(
    name: &str,
    encode: impl Fn(&Value) -> Written,
    decode: impl Fn(&Value, &[u8]) -> Result<Value, WireError>,
) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("bip/vectors")
        .join(name);
    let source = fs::read_to_string(&path).expect("the vectors are part of the repository");
    let mut file: Value = serde_json::from_str(&source).expect("the vectors are JSON");
    let fill = std::env::var_os("WRITE_VECTORS").is_some();
    for vector in file["valid"]
        .as_array_mut()
        .expect("a list of valid vectors")
    {
        let name = text(&vector["name"]).to_owned();
        let written = encode(vector);
        if fill && vector.get("hex").is_none() {
            vector["hex"] = json!(hex(written.as_deref().expect("fields that can be encoded")));
        }
        let wanted = bytes(&vector["hex"]);
        if let Some(written) = written {
            assert_eq!(
                hex(&written),
                hex(&wanted),
                "{name}: encoded from its fields"
            );
        }
        let fields = decode(vector, &wanted).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(fields, vector["fields"], "{name}: decoded");
    }
    for vector in file["invalid"]
        .as_array()
        .expect("a list of invalid vectors")
    {
        let refused = decode(vector, &bytes(&vector["hex"]));
        let reason = refused.err().map(WireError::reason);
        assert_eq!(reason, vector["reason"].as_str(), "{}", vector["name"]);
    }
    if fill {
        let filled = serde_json::to_string_pretty(&file).expect("JSON") + "\n";
        fs::write(&path, filled).expect("the vectors can be written");
    }
}

/// Runs an encoder in a buffer that is large enough for every vector.
fn written(encode: impl FnOnce(&mut Writer<'_>) -> Result<(), NoRoom>) -> Vec<u8> {
    let mut buffer = vec![0; 70_000];
    let mut writer = Writer::new(&mut buffer);
    encode(&mut writer).expect("a large buffer");
    writer.written().to_vec()
}

fn encode_structure(vector: &Value) -> Written {
    let fields = &vector["fields"];
    match text(&vector["type"]) {
        "CompactSize" => Some(written(|writer| {
            writer.compact_size(wide(&fields["value"]))
        })),
        "JOB" => Some(build::job(fields).to_wire().to_le_bytes().to_vec()),
        "SEQUENCE" => {
            build::with_sequence(fields, |sequence| written(|writer| sequence.encode(writer)))
        }
        "RUN" => build::with_runs(&json!([fields]), |runs| {
            written(|writer| runs.iter().try_for_each(|run| run.encode(writer)))
        }),
        "WORKOUT" => build::with_runs(&fields["runs"], |runs| {
            written(|writer| Workout::new(runs).encode(writer))
        }),
        "LAP" => build::with_lap(fields, |lap| written(|writer| lap.encode(writer))),
        "HASHLESS WORKOUT" => Some(build::with_hashless(&fields["runs"], |workout| {
            written(|writer| workout.encode(writer))
        })),
        other => panic!("no structure {other}"),
    }
}

fn decode_structure(vector: &Value, bytes: &[u8]) -> Result<Value, WireError> {
    let mut reader = Reader::new(bytes);
    let reader = &mut reader;
    let fields = match text(&vector["type"]) {
        "CompactSize" => json!({ "value": format!("{:#x}", reader.compact_size()?) }),
        "JOB" => describe::job(JobRef::from_wire(reader.u16()?)),
        "SEQUENCE" => describe::sequence(&HashSequence::decode(reader)?),
        "RUN" => describe::run(&WireRun::decode(reader)?),
        "WORKOUT" => {
            let workout = Workout::decode(reader)?;
            json!({ "runs": workout.iter().map(|run| describe::run(&run)).collect::<Vec<_>>() })
        }
        "LAP" => describe::lap(&WireLap::decode(reader)?),
        "HASHLESS WORKOUT" => describe::hashless(&HashlessWorkout::decode(reader)?),
        other => panic!("no structure {other}"),
    };
    reader.finish()?;
    Ok(fields)
}

#[test]
fn structures() {
    check_file("structures.json", encode_structure, decode_structure);
}

/// The type byte of a message vector: by name, or as a number for those that are not known.
fn message_type(vector: &Value) -> u8 {
    match vector["type"].as_str() {
        None => number(&vector["type"]) as u8,
        Some(name) => MessageType::ALL
            .iter()
            .find(|kind| kind.name() == name)
            .unwrap_or_else(|| panic!("no message {name}"))
            .to_wire(),
    }
}

#[test]
fn messages() {
    check_file(
        "messages.json",
        |vector| build::message(message_type(vector), &vector["fields"]),
        |vector, body| {
            let Some(message) = Message::decode(message_type(vector), body)? else {
                return Ok(Value::Null);
            };
            let again = written(|writer| message.encode(writer));
            assert_eq!(hex(&again), hex(body), "{}", vector["name"]);
            Ok(describe::message(&message))
        },
    );
}

#[test]
fn every_message_and_every_reason_has_a_vector() {
    let mut types = Vec::new();
    let mut reasons = Vec::new();
    for name in ["structures.json", "messages.json", "datagrams.json"] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("bip/vectors")
            .join(name);
        let source = fs::read_to_string(path).expect("the vectors are part of the repository");
        let file: Value = serde_json::from_str(&source).expect("the vectors are JSON");
        for vector in file["valid"].as_array().expect("a list") {
            types.extend(vector["type"].as_str().map(str::to_owned));
        }
        for vector in file["invalid"].as_array().expect("a list") {
            reasons.push(text(&vector["reason"]).to_owned());
        }
    }
    for kind in MessageType::ALL {
        assert!(
            types.iter().any(|name| name == kind.name()),
            "no vector of {}",
            kind.name()
        );
    }
    for error in WireError::ALL {
        assert!(
            reasons.iter().any(|reason| reason == error.reason()),
            "no vector for {error}"
        );
    }
}

/// Datagrams: `mac_key`, `conn_id`, `seq` (the whole counter) and `frames` give `hex`.
#[test]
fn datagrams() {
    check_file(
        "datagrams.json",
        |vector| {
            let fields = &vector["fields"];
            let mut buffer = vec![0; 1_200];
            let mut builder = DatagramBuilder::new(
                &mut buffer,
                number(&fields["conn_id"]),
                wide(&fields["seq"]),
            );
            for frame in Frames::new(&bytes(&fields["frames"])) {
                let (kind, body) = frame.expect("whole frames");
                let message = Message::decode(kind, body).expect("valid").expect("known");
                builder.push(&message).expect("a small datagram");
            }
            let len = builder.finish(&key(fields));
            buffer.truncate(len);
            Some(buffer)
        },
        |vector, received| {
            let fields = &vector["fields"];
            let header = datagram::Header::peek(received).ok_or(WireError::DatagramSize)?;
            let frames = datagram::open(received, wide(&fields["seq"]), &key(fields))?;
            let mut all = Vec::new();
            for frame in frames {
                let (kind, body) = frame?;
                if let Some(message) = Message::decode(kind, body)? {
                    message.append_frame(&mut all);
                }
            }
            Ok(json!({
                "mac_key": fields["mac_key"],
                "conn_id": header.conn_id,
                "seq": fields["seq"],
                "frames": hex(&all),
            }))
        },
    );
}

fn key(fields: &Value) -> MacKey {
    MacKey::new(bytes(&fields["mac_key"]).try_into().expect("16 bytes"))
}

/// What is said in Bitcoin's own protocol (DSC-3, DSC-4).
#[test]
fn adverts() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("bip/vectors/adverts.json");
    let source = fs::read_to_string(path).expect("the vectors are part of the repository");
    let file: Value = serde_json::from_str(&source).expect("the vectors are JSON");
    let list = |name: &str| file[name].as_array().expect("a list of vectors").clone();
    for vector in list("valid") {
        let port = |name: &str| number(&vector["fields"][name]) as u16;
        let advert = Advert {
            version: port("version"),
            control_port: port("control_port"),
            data_port: port("data_port"),
        };
        let (body, feature) = (bytes(&vector["advert"]), bytes(&vector["feature"]));
        assert!(body.starts_with(&advert.to_bytes()));
        if body.len() == advert.to_bytes().len() {
            assert_eq!(
                hex(&advert.to_feature()),
                hex(&feature),
                "{}",
                vector["name"]
            );
        }
        assert_eq!(Advert::read(&body), Ok(advert));
        assert_eq!(Advert::read_feature(&feature), Ok(Some(advert)));
    }
    for vector in list("other") {
        assert_eq!(Advert::read_feature(&bytes(&vector["feature"])), Ok(None));
    }
    for vector in list("invalid") {
        let refused = Advert::read_feature(&bytes(&vector["feature"]));
        assert!(refused.is_err(), "{}", vector["name"]);
    }
}
