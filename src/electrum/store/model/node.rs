//! A small bitcoind: it has a best chain, other branches, a mempool, and block files; it tells what happens as bitcoind does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash as _;
use bitcoin::{
    Amount, Block, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
    absolute::LockTime, transaction::Version,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::super::tests::undo_record;
use crate::chain::Network;
use crate::chain::bitcoind::blockfiles::tests::write;
use crate::chain::bitcoind::blockfiles::{BlockFiles, Kind};
use crate::electrum::store::tests::mined;
use crate::merkle::Hash;

/// Scripts that are paid, besides OP_RETURN.
pub const SCRIPTS: u8 = 6;

const BLOCKS_PER_FILE: usize = 8;

pub fn script(number: u8) -> ScriptBuf {
    ScriptBuf::from(vec![0x51, number])
}

/// What the node says, in its order.
#[derive(Clone, Debug)]
pub enum News {
    Added(Transaction),
    Removed(Txid),
}

/// What one operation did.
#[derive(Default)]
pub struct Done {
    /// The tip is another one.
    pub blocks: Option<Hash>,
    pub disconnected: Vec<Block>,
    pub connected: Vec<Block>,
    /// Of the mempool.
    pub news: Vec<News>,
}

pub struct Node {
    folder: tempfile::TempDir,
    rng: StdRng,
    /// All there ever were, with what they spent.
    blocks: Vec<(Block, Vec<Vec<TxOut>>)>,
    /// Of them the best chain.
    chain: Vec<usize>,
    /// In the order in which they came.
    pub mempool: Vec<Transaction>,
    made: u32,
}

type Coins = BTreeMap<OutPoint, TxOut>;

fn apply(coins: &mut Coins, transaction: &Transaction) -> Vec<TxOut> {
    let inputs = transaction.input.iter();
    let spent = inputs
        .filter_map(|input| coins.remove(&input.previous_output))
        .collect();
    let txid = transaction.compute_txid();
    for (vout, output) in (0..).zip(&transaction.output) {
        if !output.script_pubkey.is_op_return() {
            coins.insert(OutPoint::new(txid, vout), output.clone());
        }
    }
    spent
}

fn has_all(coins: &Coins, transaction: &Transaction) -> bool {
    let mut inputs = transaction.input.iter();
    inputs.all(|input| coins.contains_key(&input.previous_output))
}

impl Node {
    pub fn new(seed: u64) -> Self {
        let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
        let node = Self {
            folder: tempfile::tempdir().unwrap(),
            rng: StdRng::seed_from_u64(seed),
            blocks: vec![(genesis, Vec::new())],
            chain: vec![0],
            mempool: Vec::new(),
            made: 0,
        };
        node.write();
        node
    }

    pub fn files(&self) -> Arc<BlockFiles> {
        Arc::new(BlockFiles::open(self.folder.path(), Network::Regtest).unwrap())
    }

    pub fn tip(&self) -> &Block {
        &self.blocks[*self.chain.last().unwrap()].0
    }

    pub fn height(&self) -> usize {
        self.chain.len() - 1
    }

    fn chain_coins(&self) -> Coins {
        let mut coins = Coins::new();
        for index in &self.chain[1..] {
            for transaction in &self.blocks[*index].0.txdata {
                apply(&mut coins, transaction);
            }
        }
        coins
    }

    /// What is unspent if the mempool is taken for confirmed.
    fn all_coins(&self) -> Coins {
        let mut coins = self.chain_coins();
        for transaction in sorted(&coins, &self.mempool) {
            apply(&mut coins, &transaction);
        }
        coins
    }

    /// A transaction that spends some of these; `None` if there are none.
    fn spend(&mut self, coins: &Coins) -> Option<Transaction> {
        let mut inputs = BTreeSet::new();
        for _ in 0..self.rng.random_range(1..4) {
            let at = self.rng.random_range(0..coins.len().max(1));
            inputs.extend(coins.keys().nth(at).copied());
        }
        let had: u64 = inputs.iter().map(|one| coins[one].value.to_sat()).sum();
        // Some are as large as some steps of the histogram.
        let weight = match self.rng.random_range(0..8) {
            0 | 1 => self.rng.random_range(10_000..80_000),
            _ => self.rng.random_range(0..60),
        };
        self.made += 1;
        let tag = [&self.made.to_le_bytes()[..], &vec![0; weight]].concat();
        let witness = vec![1; self.rng.random_range(0..50)];
        let input = inputs
            .into_iter()
            .enumerate()
            .map(|(number, outpoint)| TxIn {
                previous_output: outpoint,
                script_sig: ScriptBuf::from(if number == 0 { tag.clone() } else { Vec::new() }),
                sequence: Sequence::MAX,
                witness: match witness.is_empty() {
                    true => Witness::new(),
                    false => Witness::from_slice(&[&witness]),
                },
            });
        let input: Vec<TxIn> = input.collect();
        if input.is_empty() {
            return None;
        }
        let mut left = had - had.min(self.rng.random_range(0..400_000));
        let output = (0..self.rng.random_range(1..5)).map(|_| {
            let value = self.rng.random_range(0..=left);
            left -= value;
            TxOut {
                value: Amount::from_sat(value),
                script_pubkey: self.payee(),
            }
        });
        Some(Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            output: output.collect(),
            input,
        })
    }

    fn payee(&mut self) -> ScriptBuf {
        match self.rng.random_range(0..=SCRIPTS) {
            0 => ScriptBuf::from(vec![0x6a, 1]),
            number => script(number),
        }
    }

    /// A transaction comes. If it is a `rival`, it may spend what one in the mempool spends, which goes then.
    pub fn receive(&mut self, rival: bool, done: &mut Done) {
        let mut coins = self.all_coins();
        if rival {
            coins.extend(self.chain_coins());
        }
        // Half of them build on what is not confirmed, so that there are chains.
        let ids: BTreeSet<Txid> = self.mempool.iter().map(Transaction::compute_txid).collect();
        if coins.keys().any(|one| ids.contains(&one.txid)) && self.rng.random_range(0..2) == 0 {
            coins.retain(|one, _| ids.contains(&one.txid));
        }
        let Some(transaction) = self.spend(&coins) else {
            return;
        };
        for input in &transaction.input {
            let spends = |one: &&Transaction| {
                let mut inputs = one.input.iter();
                inputs.any(|other| other.previous_output == input.previous_output)
            };
            if let Some(rival) = self.mempool.iter().find(spends) {
                let txid = rival.compute_txid();
                self.evict(txid, done);
            }
        }
        // What it replaced may have made what it spends.
        if has_all(&self.all_coins(), &transaction) {
            self.mempool.push(transaction.clone());
            done.news.push(News::Added(transaction));
        }
    }

    /// The node drops a transaction, and all that builds on it.
    pub fn forget(&mut self, which: usize) -> Done {
        let mut done = Done::default();
        if !self.mempool.is_empty() {
            let txid = self.mempool[which % self.mempool.len()].compute_txid();
            self.evict(txid, &mut done);
        }
        done
    }

    fn evict(&mut self, txid: Txid, done: &mut Done) {
        let builds = |one: &&Transaction| {
            let mut inputs = one.input.iter();
            inputs.any(|input| input.previous_output.txid == txid)
        };
        while let Some(child) = self.mempool.iter().find(builds) {
            let child = child.compute_txid();
            self.evict(child, done);
        }
        self.mempool.retain(|one| one.compute_txid() != txid);
        done.news.push(News::Removed(txid));
    }

    /// A block comes on top of the tip, with up to so many of the mempool, and some that nobody knew.
    pub fn mine(&mut self, taken: usize, unknown: usize, done: &mut Done) {
        let mut coins = self.chain_coins();
        self.made += 1;
        let coinbase = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig: ScriptBuf::from(self.made.to_le_bytes().to_vec()),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: vec![TxOut {
                value: Amount::from_sat(50_000_000),
                script_pubkey: self.payee(),
            }],
        };
        let mut transactions = vec![coinbase];
        let mut undo = Vec::new();
        for transaction in sorted(&coins, &self.mempool).into_iter().take(taken) {
            undo.push(apply(&mut coins, &transaction));
            transactions.push(transaction);
        }
        for _ in 0..unknown {
            if let Some(transaction) = self.spend(&coins) {
                undo.push(apply(&mut coins, &transaction));
                transactions.push(transaction);
            }
        }
        let parent = self.tip();
        let block = mined(parent, parent.header.time + 1 + self.made, transactions);
        self.chain.push(self.blocks.len());
        self.blocks.push((block.clone(), undo));
        self.write();
        done.connected.push(block);
        self.revise(Vec::new(), done);
        done.blocks = Some(self.tip().block_hash().to_byte_array());
    }

    /// So many blocks lose to as many and `more`.
    pub fn reorganise(&mut self, depth: usize, more: usize, taken: usize) -> Done {
        let mut done = Done::default();
        let depth = depth.min(self.height());
        let mut back = Vec::new();
        for index in self
            .chain
            .split_off(self.chain.len() - depth)
            .into_iter()
            .rev()
        {
            let block = self.blocks[index].0.clone();
            back.splice(0..0, block.txdata[1..].iter().cloned());
            done.disconnected.push(block);
        }
        // Not all of it comes back into the mempool before the new blocks take their part.
        self.revise(back, &mut done);
        for _ in 0..depth + more {
            let unknown = self.rng.random_range(0..3);
            self.mine(taken, unknown, &mut done);
        }
        done
    }

    /// After blocks: what they took, what they made impossible, and what comes back.
    fn revise(&mut self, back: Vec<Transaction>, done: &mut Done) {
        let mut coins = self.chain_coins();
        let valid = sorted(&coins, &[&back[..], &self.mempool].concat());
        valid.iter().for_each(|one| drop(apply(&mut coins, one)));
        let in_block: BTreeSet<Txid> = self
            .chain
            .iter()
            .flat_map(|index| &self.blocks[*index].0.txdata)
            .map(Transaction::compute_txid)
            .collect();
        for gone in self.mempool.iter().filter(|one| !valid.contains(one)) {
            let txid = gone.compute_txid();
            if !in_block.contains(&txid) {
                done.news.push(News::Removed(txid));
            }
        }
        self.mempool.retain(|one| valid.contains(one));
        for transaction in valid.into_iter().filter(|one| back.contains(one)) {
            self.mempool.push(transaction.clone());
            done.news.push(News::Added(transaction));
        }
    }

    /// All blocks in files, in the order in which they were made; full files stay as they are.
    fn write(&self) {
        let xor = [1, 0, 3, 0, 5, 6, 7, 8];
        let file = (self.blocks.len() - 1) / BLOCKS_PER_FILE;
        let blocks = &self.blocks[file * BLOCKS_PER_FILE..];
        let bodies: Vec<_> = blocks.iter().map(|(block, _)| serialize(block)).collect();
        let genesis = usize::from(file == 0);
        let undos: Vec<_> = blocks[genesis..].iter().map(undo_record).collect();
        let folder = self.folder.path();
        write(folder, Kind::Blocks, file as u32, &bodies, xor);
        write(folder, Kind::Undo, file as u32, &undos, xor);
    }
}

/// Those that can be confirmed, parents first, otherwise in their order; of two that spend the same, the first.
fn sorted(coins: &Coins, transactions: &[Transaction]) -> Vec<Transaction> {
    let mut coins = coins.clone();
    let mut left = transactions.to_vec();
    let mut sorted = Vec::new();
    while let Some(at) = left.iter().position(|one| has_all(&coins, one)) {
        let next = left.remove(at);
        apply(&mut coins, &next);
        sorted.push(next);
    }
    sorted
}
