//! Small random chains in block files as bitcoind writes them; what the index says of them against a plain list.

mod kill;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bitcoin::block::Header;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::{Hash as _, HashEngine as _, sha256d};
use bitcoin::{
    Amount, Block, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness,
    absolute::LockTime, transaction::Version,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::follow::{FollowError, Follower, Step};
use super::lookup::Lookup;
use super::*;
use crate::chain::bitcoind::blockfiles::tests::write;
use crate::chain::bitcoind::blockfiles::{BlockFiles, Kind};
use crate::electrum::history::History;
use crate::electrum::query::Place as Where;
use crate::electrum::script_hash::ScriptHash;
use crate::mempool::TransactionView;

/// Blocks of a branching chain, with what each spent, and the files that have them.
struct World {
    folder: tempfile::TempDir,
    rng: StdRng,
    blocks: Vec<(Block, Vec<Vec<TxOut>>)>,
    /// Transactions of a block at most, besides the coinbase.
    most: u32,
}

fn script(number: u8) -> ScriptBuf {
    ScriptBuf::from(vec![0x51, number])
}

fn hash_of(block: &Block) -> Hash {
    block.block_hash().to_byte_array()
}

/// A block on top of another one, with work.
pub(super) fn mined(parent: &Block, time: u32, txdata: Vec<Transaction>) -> Block {
    let header = Header {
        prev_blockhash: parent.block_hash(),
        time,
        ..parent.header
    };
    let mut block = Block { header, txdata };
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    while !block.header.target().is_met_by(block.block_hash()) {
        block.header.nonce += 1;
    }
    block
}

impl World {
    fn new(seed: u64) -> Self {
        let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
        Self {
            folder: tempfile::tempdir().unwrap(),
            rng: StdRng::seed_from_u64(seed),
            blocks: vec![(genesis, Vec::new())],
            most: 90,
        }
    }

    fn files(&self) -> Arc<BlockFiles> {
        Arc::new(BlockFiles::open(self.folder.path(), Network::Regtest).unwrap())
    }

    /// The chain that ends with the block at `index` of the list, from the genesis block on.
    fn branch(&self, index: usize) -> Vec<usize> {
        let mut branch = vec![index];
        let mut hash = self.blocks[index].0.header.prev_blockhash;
        while hash != BlockHash::all_zeros() {
            let parent = self
                .blocks
                .iter()
                .position(|(block, _)| block.block_hash() == hash);
            branch.push(parent.unwrap());
            hash = self.blocks[parent.unwrap()].0.header.prev_blockhash;
        }
        branch.reverse();
        branch
    }

    /// What is unspent behind a block.
    fn coins(&self, index: usize) -> BTreeMap<OutPoint, TxOut> {
        let mut coins = BTreeMap::new();
        for (height, index) in self.branch(index).into_iter().enumerate() {
            for transaction in &self.blocks[index].0.txdata {
                for input in &transaction.input {
                    coins.remove(&input.previous_output);
                }
                let outputs = transaction.output.iter().filter(|_| height > 0);
                for (vout, output) in (0..).zip(outputs) {
                    coins.insert(
                        OutPoint::new(transaction.compute_txid(), vout),
                        output.clone(),
                    );
                }
            }
        }
        coins
    }

    /// Adds a block on top of another one.
    fn grow(&mut self, on: usize) -> usize {
        let mut coins = self.coins(on);
        let parent = &self.blocks[on].0;
        let time = parent.header.time + 1 + self.blocks.len() as u32;
        let input = |previous_output, tag: u32| TxIn {
            previous_output,
            script_sig: ScriptBuf::from(tag.to_le_bytes().to_vec()),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        };
        let mut transactions = Vec::new();
        let mut undo = Vec::new();
        for number in 0..=self.rng.random_range(0..self.most) {
            let mut spent = Vec::new();
            let mut inputs = Vec::new();
            if number == 0 {
                inputs.push(input(OutPoint::null(), time));
            }
            for _ in 0..self.rng.random_range(1..4) {
                let at = self.rng.random_range(0..coins.len().max(1));
                if let Some((&outpoint, _)) = coins.iter().nth(at).filter(|_| number > 0) {
                    spent.extend(coins.remove(&outpoint));
                    inputs.push(input(outpoint, 0));
                }
            }
            if inputs.is_empty() {
                break;
            }
            let outputs = (0..self.rng.random_range(1..4)).map(|_| TxOut {
                value: Amount::from_sat(self.rng.random_range(0..1_000)),
                script_pubkey: match self.rng.random_range(0..8) {
                    0 => ScriptBuf::from(vec![0x6a, 1]),
                    number => script(number),
                },
            });
            let transaction = Transaction {
                version: Version::TWO,
                lock_time: LockTime::ZERO,
                input: inputs,
                output: outputs.collect(),
            };
            for (vout, output) in (0..).zip(&transaction.output) {
                let spendable = !output.script_pubkey.is_op_return();
                if spendable {
                    coins.insert(
                        OutPoint::new(transaction.compute_txid(), vout),
                        output.clone(),
                    );
                }
            }
            transactions.push(transaction);
            if number > 0 {
                undo.push(spent);
            }
        }
        let block = mined(parent, time, transactions);
        self.blocks.push((block, undo));
        self.blocks.len() - 1
    }

    /// Writes all blocks into files of so many each, in the order in which they were made.
    fn write(&self, per_file: usize) {
        let xor = [1, 0, 3, 0, 5, 6, 7, 8];
        for (file, blocks) in self.blocks.chunks(per_file).enumerate() {
            let bodies: Vec<_> = blocks.iter().map(|(block, _)| serialize(block)).collect();
            let genesis = usize::from(file == 0);
            let undos: Vec<_> = blocks[genesis..].iter().map(undo_record).collect();
            write(self.folder.path(), Kind::Blocks, file as u32, &bodies, xor);
            write(self.folder.path(), Kind::Undo, file as u32, &undos, xor);
        }
    }
}

/// Undo data with scripts as they are, and the checksum.
pub(super) fn undo_record((block, spent): &(Block, Vec<Vec<TxOut>>)) -> Vec<u8> {
    let mut bytes = vec![spent.len() as u8];
    for outputs in spent {
        bytes.push(outputs.len() as u8);
        for output in outputs {
            let script = output.script_pubkey.as_bytes();
            bytes.extend([2, 0, 0, script.len() as u8 + 6]);
            bytes.extend(script);
        }
    }
    let mut engine = sha256d::Hash::engine();
    engine.input(&block.header.prev_blockhash[..]);
    engine.input(&bytes);
    bytes.extend(&sha256d::Hash::from_engine(engine)[..]);
    bytes
}

struct Indexed {
    folder: tempfile::TempDir,
    follower: Follower,
}

impl Indexed {
    fn new(world: &World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let follower = open(&folder, world);
        Self { folder, follower }
    }

    fn reopen(self, world: &World) -> Self {
        let Self { folder, follower } = self;
        drop(follower);
        let follower = open(&folder, world);
        Self { folder, follower }
    }

    fn follow(&mut self, world: &World, index: usize) -> Result<Vec<Step>, FollowError> {
        let mut steps = Vec::new();
        let tip = hash_of(&world.blocks[index].0);
        self.follower
            .follow(tip, &|_| (), |step| steps.push(step))?;
        Ok(steps)
    }

    /// All rows but those for undoing, which a first build has none of.
    fn rows(&self) -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
        let store = self.follower.store();
        let view = store.view();
        let inner = &store.0;
        let keyspaces = [
            ("blocks", &inner.blocks),
            ("sizes", &inner.sizes),
            ("history", &inner.history),
            ("txids", &inner.txids),
        ];
        let mut rows = Vec::new();
        for (name, keyspace) in keyspaces {
            for guard in view.snapshot.iter(keyspace) {
                let (key, value) = guard.into_inner().unwrap();
                rows.push((name, key.to_vec(), value.to_vec()));
            }
        }
        rows
    }
}

fn open(folder: &tempfile::TempDir, world: &World) -> Follower {
    let writer = Store::open(&folder.path().join("index"), Network::Regtest, 8 << 20).unwrap();
    let buckets = folder.path().join("buckets");
    Follower::new(
        writer,
        world.files(),
        buckets,
        1 << 30,
        Arc::new(AtomicBool::new(false)),
    )
}

/// What the index says of a script, from nothing.
fn history(lookup: &Lookup, script: &ScriptHash) -> Arc<History> {
    let view = lookup.store().view();
    let mut history = lookup.begin(&view, script);
    while !lookup.extend(&view, script, &mut history).unwrap().0 {}
    history
}

/// Every script, transaction and place, asked of the index and of a plain list.
fn compare(world: &World, tip: usize, lookup: &Lookup) {
    let branch = world.branch(tip);
    let view = lookup.store().view();
    assert_eq!(view.chain.len() as usize, branch.len());
    for number in 1..8 {
        let script = script(number);
        let mut expected = Vec::new();
        let mut owned = BTreeMap::new();
        for (height, index) in branch.iter().enumerate() {
            for transaction in &world.blocks[*index].0.txdata {
                let txid = transaction.compute_txid();
                let spends = transaction.input.iter();
                let mut concerns = spends
                    .filter_map(|input| owned.remove(&input.previous_output))
                    .count()
                    > 0;
                for (vout, output) in (0..).zip(&transaction.output) {
                    if output.script_pubkey == script && height > 0 {
                        owned.insert(OutPoint::new(txid, vout), output.value.to_sat());
                        concerns = true;
                    }
                }
                if concerns {
                    expected.push((txid.to_byte_array(), Where::Block(height as u32)));
                }
            }
        }
        let history = history(lookup, &ScriptHash::of(script.as_bytes()));
        let items: Vec<_> = history
            .items()
            .map(|item| (item.txid, item.place))
            .collect();
        assert_eq!(items, expected);
        assert_eq!(history.balance(), owned.values().sum::<u64>());
        let unspent: BTreeMap<_, _> = history
            .unspent()
            .into_iter()
            .map(|one| {
                (
                    OutPoint::new(bitcoin::Txid::from_byte_array(one.txid), one.index),
                    one.value,
                )
            })
            .collect();
        assert_eq!(unspent, owned);
    }
    for (height, index) in branch.iter().enumerate() {
        let block = &world.blocks[*index].0;
        let txids: Vec<_> = block
            .txdata
            .iter()
            .map(|one| one.compute_txid().to_byte_array())
            .collect();
        assert_eq!(lookup.txids(&view, height as u32).unwrap(), txids);
        for (position, (transaction, txid)) in block.txdata.iter().zip(&txids).enumerate() {
            let found = lookup.find(&view, txid).unwrap().unwrap();
            assert_eq!(
                (found.height, found.position),
                (height as u32, position as u32)
            );
            assert_eq!(found.bytes, serialize(transaction));
            TransactionView::parse(&found.bytes).unwrap();
        }
        let row = lookup.store().block(&view, height as u32).unwrap().unwrap();
        assert_eq!(deserialize::<Header>(&row.header).unwrap(), block.header);
    }
    assert_eq!(lookup.find(&view, &[9; 32]).unwrap(), None);
}

#[test]
fn the_index_says_what_a_plain_list_says_through_reorganisations_and_restarts() {
    for seed in 0..3 {
        let mut world = World::new(seed);
        let mut tip = 0;
        for _ in 0..12 {
            tip = world.grow(tip);
        }
        world.write(5);
        let mut indexed = Indexed::new(&world);
        let steps = indexed.follow(&world, tip).unwrap();
        assert_eq!(steps.len(), 13);
        let cache = Lookup::new(indexed.follower.store().clone(), world.files(), 8 << 20);
        compare(&world, tip, &cache);

        let before = indexed.rows();
        let fork = world.branch(tip)[9];
        let mut other = fork;
        for _ in 0..5 {
            other = world.grow(other);
        }
        world.write(5);
        let steps = indexed.follow(&world, other).unwrap();
        assert_eq!(steps.len(), 3 + 5);
        assert!(matches!(steps[0], Step::Removed(12, _)));
        assert!(matches!(steps[3], Step::Added(10, _)));
        compare(&world, other, &cache);
        let mut fresh = Indexed::new(&world);
        fresh.follow(&world, other).unwrap();
        assert_eq!(fresh.rows(), indexed.rows());

        drop(cache);
        let mut indexed = indexed.reopen(&world);
        assert_eq!(fresh.rows(), indexed.rows());
        indexed.follow(&world, tip).unwrap();
        assert_eq!(before, indexed.rows());
        let cache = Lookup::new(indexed.follower.store().clone(), world.files(), 8 << 20);
        compare(&world, tip, &cache);
    }
}

#[test]
fn the_first_build_has_the_rows_that_blocks_one_by_one_have() {
    let mut world = World::new(7);
    let mut tip = 0;
    let mut stale = 0;
    for height in 0..230 {
        if height == 20 {
            stale = world.grow(tip);
        }
        tip = world.grow(tip);
    }
    world.write(11);
    let mut built = Indexed::new(&world);
    let steps = built.follow(&world, tip).unwrap();
    assert_eq!(
        steps.len(),
        UNDO_BLOCKS as usize,
        "the rest is built at once"
    );
    assert!(!built.folder.path().join("buckets").exists());

    // Without the first build.
    let mut slow = Indexed::new(&world);
    slow.follow(&world, 0).unwrap();
    for block in world.branch(tip).chunks(150) {
        slow.follow(&world, *block.last().unwrap()).unwrap();
    }
    assert_eq!(built.rows(), slow.rows());
    let lookup = Lookup::new(built.follower.store().clone(), world.files(), 8 << 20);
    compare(&world, tip, &lookup);

    // What was built at once can't be taken away.
    let error = built.follow(&world, stale).unwrap_err();
    assert!(
        matches!(error, FollowError::Store(StoreError::TooDeep { .. })),
        "{error}"
    );
}

#[test]
fn a_first_build_that_was_stopped_goes_on() {
    let mut world = World::new(8);
    let mut tip = 0;
    for _ in 0..215 {
        tip = world.grow(tip);
    }
    world.write(3);
    let mut whole = Indexed::new(&world);
    whole.follow(&world, tip).unwrap();
    let mut indexed = Indexed::new(&world);
    let mut stops = 0;
    loop {
        use super::follow::Progress;
        use super::load::LoadProgress;
        let stop = Arc::clone(&indexed.follower.stop);
        let hash = hash_of(&world.blocks[tip].0);
        let progress = |progress| {
            // Every report of reading stops it, and the first of writing once.
            let ends = match progress {
                Progress::Load(LoadProgress::Reading { bytes, of }) => bytes < of,
                Progress::Load(LoadProgress::Writing { .. }) => stops < 2,
                _ => false,
            };
            stop.fetch_or(ends, std::sync::atomic::Ordering::Relaxed);
        };
        match indexed.follower.follow(hash, &progress, |_| ()) {
            Ok(()) => break,
            Err(FollowError::Load(super::load::LoadError::Stopped)) => stops += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(stops < 50, "it does not go on");
        indexed = indexed.reopen(&world);
    }
    assert!(stops > 1);
    assert_eq!(whole.rows(), indexed.rows());
}

#[test]
fn a_foreign_a_second_and_a_damaged_index_are_refused_with_the_way_out() {
    let world = World::new(1);
    world.write(5);
    let folder = tempfile::tempdir().unwrap();
    let writer = Store::open(folder.path(), Network::Regtest, 1 << 20).unwrap();
    let error = Store::open(folder.path(), Network::Regtest, 1 << 20).unwrap_err();
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
    drop(writer);
    let error = Store::open(folder.path(), Network::Main, 1 << 20).unwrap_err();
    assert!(error.to_string().contains("regtest"), "{error}");
    assert!(error.to_string().contains("remove"), "{error}");
    let mut writer = Store::open(folder.path(), Network::Regtest, 1 << 20).unwrap();
    let genesis = serialize(&world.blocks[0].0);
    let block = NewBlock {
        bytes: &genesis,
        undo: None,
        place: None,
    };
    writer.add(&block).unwrap();
    assert!(matches!(writer.add(&block), Err(StoreError::OutOfOrder(1))));
    let inner = &writer.0.0;
    inner.blocks.insert(0u32.to_be_bytes(), [1, 2, 3]).unwrap();
    drop(writer);
    let error = Store::open(folder.path(), Network::Regtest, 1 << 20).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("remove"), "{error}");
}
