//! What the fuzzers call: each function takes arbitrary bytes and panics if a promise of the code is broken.
//!
//! The shells in `fuzz/fuzz_targets` are a line each around these; `tests/corpus.rs` replays the corpora with
//! the ordinary tests. Bytes are either what a peer could send, or a script of operations.
//! What this is not: part of a node. Nothing else calls it.

mod block;
mod electrum;
mod engine;
mod frames;
mod p2p;

pub use electrum::electrum;
pub use engine::engine;
pub use p2p::p2p;

use bitcoin::hashes::Hash as _;
use bytes::Bytes;

use crate::mempool::Transaction;
use crate::merkle::{Geometry, Hash, Node, Offer, Partial, reference};
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
    ("engine", engine),
    ("p2p", p2p),
    ("electrum", electrum),
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

/// A script: bytes read as choices; past its end every choice is zero.
struct Script<'a>(Reader<'a>);

impl<'a> Script<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self(Reader::new(bytes))
    }

    /// Up to 255 bytes as they stand.
    fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()).min(self.0.remaining());
        self.0.take(len).unwrap_or_default()
    }

    fn word(&mut self) -> u64 {
        self.0.u64().unwrap_or(0)
    }

    fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        self.0.u8().unwrap_or(0)
    }

    /// A number below `bound`, which is at least one.
    fn below(&mut self, bound: u32) -> u32 {
        u32::from(u16::from_le_bytes([self.byte(), self.byte()])) % bound
    }
}

/// Operations on a partial tree by three sources, some of which lie.
///
/// # Panics
/// If a false hash is ever verified, candidates exceed their bound, or lies can keep the truth out.
pub fn partial_tree(script: &[u8]) {
    let mut script = Script::new(script);
    let count = 1 + script.below(300);
    let truth = reference::Tree::of_count(count, script.byte());
    let geometry = Geometry::new(count).expect("a count from 1 to 300");
    let bound = u32::from(script.byte());
    let mut tree: Partial<u8> = Partial::new(geometry, bound);
    for _ in 0..512 {
        if script.is_over() {
            break;
        }
        partial_step(&mut script, &truth, &mut tree);
        assert!(tree.unconnected() <= bound);
    }
    tree.trust_root(truth.root());
    check_verified(&truth, &tree);
    let leaves: Vec<Node> = (0..count).filter_map(|i| geometry.leaf(i)).collect();
    let hashes: Vec<Hash> = leaves.iter().map(|node| true_hash(&truth, *node)).collect();
    let offer = tree.offer_lap(geometry.root(), &leaves, &hashes, 9);
    assert!(matches!(offer, Offer::Known | Offer::Verified { .. }));
    assert!(tree.all_verified(geometry.depth(), 0..count));
    check_verified(&truth, &tree);
}

fn partial_step(script: &mut Script<'_>, truth: &reference::Tree, tree: &mut Partial<u8>) {
    let geometry = *tree.geometry();
    let operation = script.byte();
    let source = operation >> 6;
    let level = script.byte() % (geometry.depth() + 1);
    let index = script.below(geometry.width(level));
    let Some(node) = geometry.node(level, index) else {
        return;
    };
    match operation & 7 {
        0 => tree.trust_root(truth.root()),
        1..=3 => {
            let mut hash = true_hash(truth, node);
            hash[0] ^= if operation & 8 == 0 { 0 } else { script.byte() };
            let offer = tree.offer(node, hash, source);
            if matches!(offer, Offer::Verified { .. } | Offer::Known) {
                assert_eq!(hash, true_hash(truth, node));
            }
        }
        4 | 5 => {
            let deep = level + script.byte() % (geometry.depth() - level + 1);
            let start = script.below(geometry.width(deep));
            let end = start + 1 + script.below(geometry.width(deep) - start);
            let Some(lap) = geometry.lap(node, deep, start..end) else {
                return;
            };
            let nodes: Vec<Node> = lap.nodes(&geometry).into_iter().flatten().collect();
            let mut hashes: Vec<Hash> = nodes.iter().map(|n| true_hash(truth, *n)).collect();
            let spoiled = script.below(hashes.len() as u32) as usize;
            if let Some(hash) = hashes.get_mut(spoiled).filter(|_| operation & 8 != 0) {
                hash[0] ^= 1;
            }
            let _ = tree.offer_lap(node, &nodes, &hashes, source);
        }
        6 => tree.forget(node, |who| who != source),
        _ => {
            tree.drain_contradicted().for_each(drop);
            tree.drain_refuted().for_each(drop);
        }
    }
}

fn true_hash(truth: &reference::Tree, node: Node) -> Hash {
    let hash = truth.hashes.get(&(node.level(), node.index()));
    *hash.expect("the reference has every node of its geometry")
}

fn check_verified(truth: &reference::Tree, tree: &Partial<u8>) {
    for (&(level, index), hash) in &truth.hashes {
        let node = tree.geometry().node(level, index);
        let node = node.expect("the geometry has every node of the reference");
        if let Some(verified) = tree.verified(node) {
            assert_eq!(verified, hash);
        }
    }
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
