//! Tests against the bitcoin crate: whatever it reads, we read, with the same ids.

use std::path::PathBuf;

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const LIMITS: BlockLimits = BlockLimits {
    max_bytes: 4_000_000,
    max_transactions: 16_666,
};

/// The block of the crate `bitcoin-test-data`, and those of the folder `BLOCKTORRENT_BLOCKS` if that is set.
fn blocks() -> Vec<(String, Bytes)> {
    let built_in = bitcoin_test_data::blocks::mainnet_702861();
    let mut blocks = vec![("702861".to_owned(), Bytes::from_static(built_in))];
    let Some(folder) = std::env::var_os("BLOCKTORRENT_BLOCKS").map(PathBuf::from) else {
        eprintln!("SKIPPED the blocks of BLOCKTORRENT_BLOCKS: it is not set");
        return blocks;
    };
    for entry in std::fs::read_dir(folder).expect("BLOCKTORRENT_BLOCKS is a folder") {
        let path = entry.expect("readable").path();
        if path.extension().is_some_and(|extension| extension == "raw") {
            let bytes = std::fs::read(&path).expect("readable");
            blocks.push((path.display().to_string(), bytes.into()));
        }
    }
    blocks
}

/// Asserts that a transaction is what the bitcoin crate makes of the same bytes.
fn assert_same(ours: &Transaction, theirs: &bitcoin::Transaction) {
    assert_eq!(ours.txid(), theirs.compute_txid().to_byte_array());
    assert_eq!(ours.wtxid(), theirs.compute_wtxid().to_byte_array());
    assert_eq!(ours.len(), theirs.total_size());
    assert_eq!(ours.stripped_len(), theirs.base_size());
    assert_eq!(ours.is_coinbase(), theirs.is_coinbase());
    let witness = theirs.input.iter().any(|input| !input.witness.is_empty());
    assert_eq!(ours.has_witness(), witness);
}

#[test]
fn real_blocks_are_split_as_the_bitcoin_crate_reads_them() {
    for (name, bytes) in blocks() {
        let theirs: bitcoin::Block = deserialize(&bytes).expect("a real block");
        let (header, ours) = split_block(bytes.clone(), LIMITS).expect("a real block");
        assert_eq!(header[..], serialize(&theirs.header)[..], "{name}");
        assert_eq!(ours.len(), theirs.txdata.len());
        for (ours, theirs) in ours.iter().zip(&theirs.txdata) {
            assert_same(ours, theirs);
            assert_eq!(Transaction::parse(ours.bytes().clone()), Ok(ours.clone()));
        }
        assert_commitment(&name, &theirs, &ours);
    }
}

/// The commitment of a coinbase must fit the block, and its height must be what the bitcoin crate reads.
fn assert_commitment(name: &str, block: &bitcoin::Block, ours: &[Transaction]) {
    let coinbase = ours.first().expect("a block has a coinbase");
    // Blocks of version 1 state none, but what they have instead may look like one.
    if block.header.version.to_consensus() >= 2 {
        let theirs = block.bip34_block_height().ok();
        assert_eq!(coinbase::height(coinbase).map(u64::from), theirs, "{name}");
    }
    let found = coinbase::witness_commitment(coinbase).expect("a real coinbase");
    let any_witness = ours.iter().any(Transaction::has_witness);
    assert_eq!(found.is_some(), any_witness, "{name}");
    if let Some(found) = found {
        let root = block.witness_root().expect("not empty").to_byte_array();
        let computed = transaction::double_sha256(&[&root, &found.reserved]);
        assert_eq!(found.commitment, computed, "{name}");
    }
}

#[test]
fn blocks_that_are_cut_or_padded_are_refused() {
    let block = Bytes::from_static(bitcoin_test_data::blocks::mainnet_702861());
    let split = |bytes: Bytes| split_block(bytes, LIMITS).map(|(_, all)| all.len());
    for length in [0, 79, 80, 81, 82, 83, 200, 100_000, block.len() - 1] {
        assert!(split(block.slice(..length)).is_err(), "{length}");
    }
    let mut padded = block.to_vec();
    padded.push(0);
    assert_eq!(split(padded.into()), Err(BlockError::Trailing));
    let too_small = BlockLimits {
        max_bytes: block.len() - 1,
        ..LIMITS
    };
    let refusal = split_block(block.clone(), too_small).map(|_| ());
    assert_eq!(refusal, Err(BlockError::TooLarge));
    let too_few = BlockLimits {
        max_transactions: 2499,
        ..LIMITS
    };
    let refusal = split_block(block.clone(), too_few).map(|_| ());
    assert_eq!(refusal, Err(BlockError::TooMany));
    let with_count = |count: &[u8]| {
        let mut bytes = block.slice(..80).to_vec();
        bytes.extend(count);
        bytes.extend(&block[83..]);
        split(bytes.into())
    };
    assert_eq!(with_count(&[0xfd, 0xc4, 0x09]), Ok(2500));
    assert_eq!(with_count(&[0]), Err(BlockError::Empty));
    let long = [0xfe, 0xc4, 0x09, 0, 0];
    assert_eq!(with_count(&long), Err(BlockError::NonMinimalCount));
    let vast = [0xff, 0, 0, 0, 0, 0, 0, 0, 1];
    assert_eq!(with_count(&vast), Err(BlockError::TooMany));
    assert_eq!(with_count(&[0xfd, 0xc3, 0x09]), Err(BlockError::Trailing));
    assert!(matches!(
        with_count(&[0xfd, 0xc5, 0x09]),
        Err(BlockError::Transaction { index: 2500, .. })
    ));
}

#[test]
fn refusals_say_why() {
    let legacy = tests::numbered(1).bytes().to_vec();
    let refusal = |bytes: &[u8]| Transaction::parse(Bytes::copy_from_slice(bytes)).unwrap_err();
    for length in 0..legacy.len() {
        assert_eq!(refusal(&legacy[..length]), TransactionError::Truncated);
    }
    let mut longer = legacy.clone();
    longer.push(0);
    assert_eq!(refusal(&longer), TransactionError::Trailing);
    let marked = |flag: u8, witness: &[u8]| {
        let (front, lock_time) = legacy.split_at(legacy.len() - 4);
        let (version, rest) = front.split_at(4);
        [version, &[0, flag], rest, witness, lock_time].concat()
    };
    assert_eq!(
        refusal(&marked(1, &[0])),
        TransactionError::SuperfluousWitness
    );
    assert_eq!(refusal(&marked(2, &[1, 0])), TransactionError::UnknownFlag);
    assert_eq!(refusal(&marked(0, &[1, 0])), TransactionError::NoInputs);
    let with_witness = Transaction::parse(marked(1, &[1, 0]).into()).expect("an empty item counts");
    assert_eq!(with_witness.txid(), tests::numbered(1).txid());
    assert_ne!(with_witness.wtxid(), with_witness.txid());
    // More inputs than could be there, in three lengths.
    for count in [&[0xfd, 0xff, 0xff][..], &[0xfe, 0, 0, 0, 0x80], &[0xff; 9]] {
        let bytes = [&legacy[..4], count, &legacy[5..]].concat();
        assert_eq!(refusal(&bytes), TransactionError::Truncated);
    }
    let bytes = [&legacy[..4], &[0xfd, 1, 0], &legacy[5..]].concat();
    assert_eq!(refusal(&bytes), TransactionError::NonMinimalSize);
}

/// A coinbase with these output scripts and this witness.
fn coinbase_of(script_sig: &[u8], outputs: &[&[u8]], witness: &[&[u8]]) -> Transaction {
    use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, TxIn, TxOut, Witness};
    let transaction = bitcoin::Transaction {
        version: bitcoin::transaction::Version::ONE,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: ScriptBuf::from_bytes(script_sig.to_vec()),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(witness),
        }],
        output: outputs
            .iter()
            .map(|script| TxOut {
                value: Amount::ZERO,
                script_pubkey: ScriptBuf::from_bytes(script.to_vec()),
            })
            .collect(),
    };
    Transaction::parse(serialize(&transaction).into()).expect("well formed")
}

#[test]
fn the_last_commitment_counts() {
    use coinbase::{CommitmentError, witness_commitment};
    let commit = |value: u8| {
        let mut script = vec![0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
        script.extend([value; 32]);
        script
    };
    let (one, two) = (commit(1), commit(2));
    let (short, mut long) = (&one[..37], commit(3));
    long.extend([4; 50]);
    let found = |outputs: &[&[u8]], witness: &[&[u8]]| {
        witness_commitment(&coinbase_of(&[], outputs, witness))
    };
    let reserved: &[u8] = &[9; 32];
    let value = |outputs: &[&[u8]]| {
        let found = found(outputs, &[reserved])
            .expect("sound")
            .expect("commits");
        assert_eq!(found.reserved, [9; 32]);
        found.commitment
    };
    assert_eq!(value(&[&one, &two]), [2; 32]);
    assert_eq!(value(&[&two, &one, short, b"x"]), [1; 32]);
    assert_eq!(value(&[&one, &long]), [3; 32]);
    assert_eq!(found(&[short], &[]), Ok(None));
    assert_eq!(
        found(&[short], &[reserved]),
        Err(CommitmentError::UnexpectedWitness)
    );
    assert_eq!(found(&[&one], &[]), Err(CommitmentError::NoReservedValue));
    for witness in [
        &[&[9; 31][..]][..],
        &[&[9; 33]],
        &[reserved, reserved],
        &[&[]],
    ] {
        let refusal = found(&[&one], witness);
        assert_eq!(refusal, Err(CommitmentError::BadReservedValue));
    }
    let other = tests::numbered(1);
    assert_eq!(
        witness_commitment(&other),
        Err(CommitmentError::NotCoinbase)
    );
}

#[test]
fn heights_are_read_as_core_writes_them() {
    let height = |script: &[u8]| coinbase::height(&coinbase_of(script, &[], &[]));
    for value in [
        0, 1, 15, 16, 17, 127, 128, 255, 256, 32767, 32768, 702_861, 8_388_607, 8_388_608,
    ] {
        let script = bitcoin::script::Builder::new()
            .push_int(value)
            .into_script();
        assert_eq!(height(script.as_bytes()), u32::try_from(value).ok());
    }
    assert_eq!(height(&[]), None);
    // Cut short, negative, longer than needed, a number that has its own opcode, five bytes.
    for script in [
        &[3, 1, 2][..],
        &[1, 0x81],
        &[2, 0x20, 0],
        &[1, 16],
        &[5, 1, 1, 1, 1, 1],
        &[0x4f],
    ] {
        assert_eq!(height(script), None, "{script:?}");
    }
    assert_eq!(coinbase::height(&tests::numbered(1)), None);
}

/// Changes some bytes, cuts some out or puts some in.
fn mutate(bytes: &mut Vec<u8>, changes: &[(prop::sample::Index, u8, u8)]) {
    for (place, kind, value) in changes {
        if bytes.is_empty() {
            return;
        }
        let place = place.index(bytes.len());
        match kind % 4 {
            0 => bytes[place] = *value,
            1 => bytes[place] = bytes[place].wrapping_add(1),
            2 => {
                bytes.remove(place);
            }
            _ => bytes.insert(place, *value),
        }
    }
}

/// What the bitcoin crate accepts, except for what we refuse on purpose: no inputs.
fn theirs(bytes: &[u8]) -> Option<bitcoin::Transaction> {
    let transaction: bitcoin::Transaction = deserialize(bytes).ok()?;
    (!transaction.input.is_empty()).then_some(transaction)
}

#[test]
fn accepts_what_the_bitcoin_crate_accepts() {
    let block = Bytes::from_static(bitcoin_test_data::blocks::mainnet_702861());
    let (_, mut all) = split_block(block, LIMITS).expect("a real block");
    // The small ones, where a changed byte is a changed structure.
    all.retain(|transaction| transaction.len() < 400);
    let change = (any::<prop::sample::Index>(), any::<u8>(), any::<u8>());
    let changes = prop::collection::vec(change, 0..3);
    let config = ProptestConfig::with_cases(4096);
    proptest!(config, |(pick: prop::sample::Index, changes in changes)| {
        let mut bytes = pick.get(&all).bytes().to_vec();
        mutate(&mut bytes, &changes);
        let ours = Transaction::parse(Bytes::from(bytes.clone()));
        match (ours, theirs(&bytes)) {
            (Ok(ours), Some(theirs)) => {
                assert_same(&ours, &theirs);
                prop_assert_eq!(serialize(&theirs), bytes);
            }
            (Err(_), None) => {}
            (ours, theirs) => panic!("{ours:?} but {theirs:?}"),
        }
    });
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_judged_alike(
        version: [u8; 4],
        front in prop::collection::vec(0u8..3, 0..6),
        rest in prop::collection::vec(prop_oneof![4 => Just(0u8), 1 => 1u8..3, 1 => any::<u8>()], 0..140),
    ) {
        let bytes = [&version[..], &front, &rest].concat();
        let ours = Transaction::parse(Bytes::from(bytes.clone()));
        prop_assert_eq!(ours.is_ok(), theirs(&bytes).is_some());
        let mut stream = Bytes::from(bytes.clone());
        if let Ok(cut) = Transaction::parse_front(&mut stream) {
            prop_assert!(theirs(cut.bytes()).is_some());
            prop_assert_eq!(cut.len() + stream.len(), bytes.len());
        }
    }
}
