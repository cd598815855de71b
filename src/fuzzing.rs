//! What the fuzzers call: each function takes arbitrary bytes and panics if a promise of the code is broken.
//!
//! The shells in `fuzz/fuzz_targets` are a line each around these; `tests/corpus.rs` replays the corpora with
//! the ordinary tests. Bytes are either what a peer could send, or a script of operations.
//! What this is not: part of a node. Nothing else calls it.

use bitcoin::hashes::Hash as _;
use bytes::Bytes;

use crate::mempool::Transaction;
use crate::merkle::{Geometry, exercise};
use crate::wire::{
    ControlDecoder, HashSequence, HashlessWorkout, MacKey, Message, Reader, WireError, WireLap,
    Writer, datagram as envelope,
};

/// A fuzz target: its name, which is that of its shell and of its corpus, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every fuzz target.
pub const TARGETS: &[Target] = &[
    ("datagram", datagram),
    ("control_stream", control_stream),
    ("hash_sequence", hash_sequence),
    ("partial_tree", partial_tree),
    ("transaction", transaction),
];

/// The frames of a datagram, in an envelope that is right.
///
/// # Panics
/// If what decodes does not encode to the same bytes again.
pub fn datagram(frames: &[u8]) {
    let key = MacKey::new([7; 16]);
    let (conn_id, seq) = (0x0102_0304_u32, 0x0001_0000_0005_u64);
    let mut bytes = Vec::with_capacity(frames.len() + 16);
    bytes.extend_from_slice(&conn_id.to_le_bytes());
    bytes.extend_from_slice(&(seq as u32).to_le_bytes());
    bytes.extend_from_slice(frames);
    bytes.extend_from_slice(&key.mac(conn_id, seq, frames).to_le_bytes());
    let Ok(frames) = envelope::open(&bytes, seq, &key) else {
        assert!(envelope::Header::peek(&bytes).is_none());
        return;
    };
    for frame in frames {
        let Ok((message_type, body)) = frame else {
            break;
        };
        message(message_type, body);
    }
    if let Some(first) = bytes.first_mut() {
        *first ^= 1;
    }
    assert!(envelope::open(&bytes, seq, &key).is_err());
}

/// One message: canonical, and its views hold together.
fn message(message_type: u8, body: &[u8]) {
    let Ok(Some(message)) = Message::decode(message_type, body) else {
        return;
    };
    let mut again = vec![0; message.encoded_len()];
    let mut writer = Writer::new(&mut again);
    assert!(message.encode(&mut writer).is_ok(), "encoded_len is enough");
    assert_eq!(again, body, "a message has one encoding");
    match message {
        Message::Hashes(hashes) => lap(&hashes.lap, 1 + u32::from(message_type)),
        Message::GetHashes(wanted) => workout(&wanted.nodes),
        Message::GetTxs(wanted) => workout(&wanted.nodes),
        Message::JobState(state) | Message::JobStateAck(state) => workout(&state.nodes),
        Message::Missing(missing) => workout(&missing.nodes),
        Message::Cancel(cancel) => workout(&cancel.nodes),
        Message::Txs(txs) => {
            let count = txs.transactions.iter().count();
            assert_eq!(count, txs.transactions.len() as usize);
        }
        Message::Addr(addresses) => assert_eq!(addresses.iter().count(), addresses.len() as usize),
        Message::SetParams(list) => assert_eq!(list.iter().count(), list.len() as usize),
        _ => {}
    }
}

fn workout(nodes: &HashlessWorkout<'_>) {
    assert_eq!(nodes.iter().count(), nodes.len() as usize);
    for (level, range) in nodes.ranges() {
        assert!(range.start < range.end && u64::from(range.end) <= 1 << level);
    }
}

/// A lap that is canonical in a tree lists nodes that exist there, as many as there are hashes.
fn lap(lap: &WireLap<'_>, count: u32) {
    let (shape, hashes) = lap.to_lap();
    let given: u64 = hashes
        .iter()
        .map(|sequence| u64::from(sequence.len()))
        .sum();
    assert_eq!(shape.len(), given);
    let Some(geometry) = Geometry::new(count) else {
        return;
    };
    if shape.is_canonical(&geometry) {
        let nodes = shape.nodes(&geometry);
        assert_eq!(nodes.map(|nodes| nodes.count() as u64), Some(given));
    }
}

/// The control stream. The first byte says into how large pieces it is cut.
///
/// # Panics
/// If the pieces matter to what is decoded, or a message has two encodings.
pub fn control_stream(data: &[u8]) {
    let Some((&cut, stream)) = data.split_first() else {
        return;
    };
    let (whole, refused) = frames_of(stream, stream.len().max(1));
    let (pieces, refused_in_pieces) = frames_of(stream, usize::from(cut) + 1);
    assert_eq!(whole, pieces);
    assert_eq!(refused, refused_in_pieces);
    for (message_type, body) in whole {
        message(message_type, &body);
    }
}

type Frames = (Vec<(u8, Bytes)>, Option<WireError>);

fn frames_of(stream: &[u8], piece: usize) -> Frames {
    let mut decoder = ControlDecoder::new();
    let mut frames = Vec::new();
    for mut input in stream.chunks(piece) {
        loop {
            match decoder.read(&mut input) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(refused) => return (frames, Some(refused)),
            }
        }
    }
    (frames, None)
}

/// A hash sequence, a lap and a hashless workout, each from the start of the bytes.
///
/// # Panics
/// If one has two encodings, or its parts do not add up.
pub fn hash_sequence(data: &[u8]) {
    let mut reader = Reader::new(data);
    if let Ok(sequence) = HashSequence::decode(&mut reader) {
        let read = data.len() - reader.remaining();
        let mut again = vec![0; sequence.encoded_len()];
        assert!(sequence.encode(&mut Writer::new(&mut again)).is_ok());
        assert_eq!(Some(again.as_slice()), data.get(..read));
        assert_eq!(sequence.iter().count(), sequence.len() as usize);
        for (index, entry) in (0..64).zip(sequence.iter()) {
            assert_eq!(sequence.get(index), Some(entry));
        }
        assert_eq!(sequence.get(sequence.len()), None);
    }
    let mut reader = Reader::new(data);
    if let Ok(nodes) = HashlessWorkout::decode(&mut reader) {
        let read = data.len() - reader.remaining();
        let mut again = vec![0; nodes.encoded_len()];
        assert!(nodes.encode(&mut Writer::new(&mut again)).is_ok());
        assert_eq!(Some(again.as_slice()), data.get(..read));
        workout(&nodes);
    }
    let count = u32::from(data.first().copied().unwrap_or(0)) * 5 + 1;
    if let Ok(decoded) = WireLap::decode(&mut Reader::new(data)) {
        lap(&decoded, count);
    }
}

/// Operations on a partial tree by several sources, some of which lie: see [`exercise::play`].
///
/// # Panics
/// If a false hash is verified, a bound is passed, an honest source refuted, or lies keep the truth out.
pub fn partial_tree(script: &[u8]) {
    exercise::play(script);
}

/// A serialized transaction.
///
/// # Panics
/// If this crate and the `bitcoin` crate differ about it: about its being one, or its ids.
pub fn transaction(data: &[u8]) {
    let ours = Transaction::parse(Bytes::copy_from_slice(data));
    let theirs = bitcoin::consensus::deserialize::<bitcoin::Transaction>(data);
    let theirs = theirs.ok().filter(|theirs| !theirs.input.is_empty());
    match (ours, theirs) {
        (Ok(ours), Some(theirs)) => {
            assert_eq!(ours.txid(), theirs.compute_txid().to_byte_array());
            assert_eq!(ours.wtxid(), theirs.compute_wtxid().to_byte_array());
            assert_eq!(ours.stripped_len(), theirs.base_size());
            assert_eq!(ours.is_coinbase(), theirs.is_coinbase());
        }
        (Err(_), None) => {}
        (ours, theirs) => panic!("ours {ours:?}, theirs {theirs:?}"),
    }
}
