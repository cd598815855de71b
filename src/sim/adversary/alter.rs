//! One frame, changed by one kind of lie.

use bitcoin::consensus::encode;
use bitcoin::{Transaction, Witness};
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};

use super::super::scenario::AdversaryKind;
use crate::merkle::Hash;
use crate::wire::{
    HashEntry, HashSequence, Hashes, Message, OpenJob, Parity, ShortEntry, TxList, TxPart, Txs,
    WireLap, WireRun, Workout,
};

/// The frame that goes out instead of this one; `None` leaves it as it is.
pub fn altered(kind: AdversaryKind, frame: (u8, &[u8]), random: &mut StdRng) -> Option<Vec<u8>> {
    let message = Message::decode(frame.0, frame.1).ok()??;
    match (kind, message) {
        (AdversaryKind::AltersHashes, Message::Hashes(hashes)) => false_hashes(&hashes, random),
        (AdversaryKind::FalseShortIds, Message::Hashes(hashes)) => false_short_ids(&hashes, random),
        (AdversaryKind::AltersTransactions, Message::Txs(txs)) => {
            let lies = txs.transactions.iter().map(|bytes| spoiled(bytes, random));
            let lies: Vec<Vec<u8>> = lies.collect();
            Some(txs_frame(&txs, &lies))
        }
        (AdversaryKind::AltersWitnesses, Message::Txs(txs)) => {
            let lies = txs
                .transactions
                .iter()
                .map(|bytes| other_witness(bytes, random));
            let lies: Vec<Vec<u8>> = lies.collect();
            Some(txs_frame(&txs, &lies))
        }
        (
            AdversaryKind::AltersTransactions | AdversaryKind::AltersWitnesses,
            Message::TxPart(part),
        ) => {
            let mut bytes = part.bytes.to_vec();
            flip_bit(&mut bytes, random);
            let part = TxPart {
                bytes: &bytes,
                ..part
            };
            Some(frame_of(&Message::TxPart(part)))
        }
        (AdversaryKind::SpoilsParity, Message::Parity(parity)) => Some(poison(&parity, random)),
        (AdversaryKind::FalseCount, Message::OpenJob(open)) => Some(false_count(open, random)),
        _ => None,
    }
}

/// The frame of a message.
pub fn frame_of(message: &Message<'_>) -> Vec<u8> {
    let mut frame = Vec::with_capacity(message.frame_len());
    message.append_frame(&mut frame);
    frame
}

fn flip_bit(bytes: &mut [u8], random: &mut StdRng) {
    if bytes.is_empty() {
        return;
    }
    let bit = random.random_range(0..bytes.len() * 8);
    if let Some(byte) = bytes.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
}

fn txs_frame(txs: &Txs<'_>, lies: &[Vec<u8>]) -> Vec<u8> {
    let transactions: Vec<&[u8]> = lies.iter().map(Vec::as_slice).collect();
    frame_of(&Message::Txs(Txs {
        transactions: TxList::new(&transactions),
        ..*txs
    }))
}

/// One hash in a lap is another one. Half of the laps stay as they are, so that some of its lies come late.
fn false_hashes(hashes: &Hashes<'_>, random: &mut StdRng) -> Option<Vec<u8>> {
    if hashes.lap.has_short_ids() || random.random_bool(0.5) {
        return None;
    }
    let parts = hashes.lap.runs.iter();
    let mut parts: Vec<(WireRun<'_>, Vec<Hash>)> = parts
        .filter_map(|run| Some((run, run.hashes.as_full()?.to_vec())))
        .collect();
    let which = random.random_range(0..parts.len().max(1));
    let (_, list) = parts.get_mut(which)?;
    let at = random.random_range(0..list.len().max(1));
    flip_bit(list.get_mut(at)?, random);
    let runs: Vec<WireRun<'_>> = parts
        .iter()
        .map(|(run, list)| WireRun::new(run.to_run(), HashSequence::full(list)))
        .collect();
    let lap = WireLap {
        runs: Workout::new(&runs),
        ..hashes.lap
    };
    Some(frame_of(&Message::Hashes(Hashes { lap, ..*hashes })))
}

/// Short ids of a chunk of which some name nothing, or another transaction, or are whole hashes of nothing.
fn false_short_ids(hashes: &Hashes<'_>, random: &mut StdRng) -> Option<Vec<u8>> {
    let flat = hashes.lap.flat()?;
    let size = flat.hashes.default_size();
    let mut entries: Vec<ShortEntry> = flat
        .hashes
        .iter()
        .map(|entry| match entry {
            HashEntry::Short(id, _) => ShortEntry::Short(id),
            HashEntry::Full(hash) => ShortEntry::Full(*hash),
        })
        .collect();
    let lies = random.random_range(1..=3);
    for _ in 0..lies {
        let (at, other) = (
            random.random_range(0..entries.len()),
            random.random_range(0..entries.len()),
        );
        match random.random_range(0..3) {
            0 => entries.swap(at, other),
            1 => *entries.get_mut(at)? = ShortEntry::Full(random.random()),
            _ => {
                *entries.get_mut(at)? = ShortEntry::Short(random.random::<u64>() >> 16);
            }
        }
    }
    let run = flat.to_run();
    let run = WireRun::new(run, HashSequence::short(&entries, size)?);
    let lap = WireLap {
        runs: Workout::new(std::slice::from_ref(&run)),
        ..hashes.lap
    };
    Some(frame_of(&Message::Hashes(Hashes { lap, ..*hashes })))
}

/// Another transaction, or none any more.
fn spoiled(bytes: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut lie = bytes.to_vec();
    match random.random_range(0..4) {
        // It parses, and is another one: its lock time.
        0 | 1 => {
            if let Some(byte) = lie.last_mut() {
                *byte ^= 1;
            }
        }
        2 => flip_bit(&mut lie, random),
        _ => {
            if lie.len() > 1 {
                lie.pop();
            }
        }
    }
    lie
}

/// The same transaction, so that its txid stays, with another witness of the same length.
fn other_witness(bytes: &[u8], random: &mut StdRng) -> Vec<u8> {
    let Ok(mut transaction) = encode::deserialize::<Transaction>(bytes) else {
        return bytes.to_vec();
    };
    for input in &mut transaction.input {
        let mut items = input.witness.to_vec();
        let longest = items.iter_mut().max_by_key(|item| item.len());
        if let Some(item) = longest {
            flip_bit(item, random);
        }
        input.witness = Witness::from_slice(&items);
    }
    encode::serialize(&transaction)
}

/// Parity with a bit changed, or with other bytes altogether, or of another string.
fn poison(parity: &Parity<'_>, random: &mut StdRng) -> Vec<u8> {
    let mut cells = parity.cells.to_vec();
    let mut bytes = parity.bytes;
    match random.random_range(0..8) {
        0 => bytes = bytes.saturating_add(1),
        1..4 => random.fill_bytes(&mut cells),
        _ => flip_bit(&mut cells, random),
    }
    frame_of(&Message::Parity(Parity {
        bytes,
        cells: &cells,
        ..*parity
    }))
}

/// Another number of transactions, another size, or both.
fn false_count(open: OpenJob<'_>, random: &mut StdRng) -> Vec<u8> {
    let count = match random.random_range(0..6) {
        0 => open.count.saturating_sub(1),
        1 => open.count + 1,
        2 => open.count * 2,
        3 => open.count / 2,
        4 => 1,
        _ => open.count,
    };
    let block_bytes = match random.random_range(0..4) {
        0 => 0,
        1 => open.block_bytes / 2,
        2 => 4_000_000,
        _ => open.block_bytes,
    };
    frame_of(&Message::OpenJob(OpenJob {
        count: count.clamp(1, crate::merkle::MAX_LEAVES),
        block_bytes,
        ..open
    }))
}
