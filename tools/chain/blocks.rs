//! Blocks of a regtest chain, one after the other, out of a random generator: the same seed gives the same bytes.
//!
//! What is kept is the coins that will be spent, each filed under the block that is to spend it: some hundred thousand,
//! whatever the length of the chain.

use std::collections::{BTreeMap, VecDeque};

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version as BlockVersion};
use bitcoin::hashes::{Hash as _, sha256d};
use bitcoin::script::Builder;
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxOut, Txid, Witness,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::coins::{Coin, Kind, Locks, data, unspent};

/// Blocks before a coinbase can be spent: consensus.
pub const MATURITY: u32 = 100;
/// Blocks between halvings of the subsidy on regtest.
const HALVING: u32 = 150;
/// Signature operations that a block is filled to; consensus allows 80,000.
const OPERATIONS: u64 = 78_000;
/// Weight that a block is filled to; consensus allows 4,000,000.
const WEIGHT: u64 = 3_980_000;
/// Coins at hand below which transactions rather make more of them.
const FEW: usize = 4_000;
/// Coins at hand above which transactions rather gather them.
const PLENTY: usize = 12_000;
/// Coins of one heavy script that are kept to be spent; the others stay.
const KEPT: usize = 20_000;
/// Satoshis of an output that is never spent, at most.
const CRUMB: u64 = 3_000;

/// A script with a long history.
pub struct Heavy {
    /// What it pays to.
    pub script: ScriptBuf,
    /// Transactions that it shall have.
    pub wanted: u64,
    /// Transactions that it has.
    pub transactions: u64,
    number: u64,
    coins: VecDeque<Coin>,
}

/// What was made so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Coinbases among them.
    pub transactions: u64,
    /// Of all transactions but coinbases.
    pub inputs: u64,
    /// Of all transactions.
    pub outputs: u64,
    /// Inputs that spend an output of the same block.
    pub same_block: u64,
}

/// What a chain is made by.
pub struct Chain {
    random: StdRng,
    locks: Locks,
    /// Coins that may be spent now, and those that wait for their block.
    ready: Vec<(Coin, u32)>,
    waiting: BTreeMap<u32, Vec<(Coin, u32)>>,
    next_number: u64,
    /// The scripts with long histories.
    pub heavy: Vec<Heavy>,
    /// What was made.
    pub tally: Tally,
    /// Height of the last block.
    pub height: u32,
    /// Its hash.
    pub tip: BlockHash,
}

/// A transaction that is being put together.
struct Draft {
    coins: Vec<(Coin, u32)>,
    outputs: Vec<TxOut>,
    /// Of the outputs: what spends it, and after how many blocks; `None` for heavy scripts, by their place.
    lives: Vec<Life>,
}

#[derive(Clone, Copy)]
enum Life {
    Never,
    Spent { kind: Kind, number: u64, after: u32 },
    Heavy(usize),
}

impl Chain {
    /// One that is empty but for the genesis block.
    pub fn new(seed: u64, heavy: &[u64], genesis: BlockHash) -> Self {
        let locks = Locks::new(seed);
        let heavy = heavy.iter().enumerate().map(|(index, &wanted)| {
            let number = u64::MAX - index as u64;
            Heavy {
                script: locks.script(Kind::P2wpkh, number),
                wanted,
                transactions: 0,
                number,
                coins: VecDeque::new(),
            }
        });
        Self {
            heavy: heavy.collect(),
            random: StdRng::seed_from_u64(seed),
            locks,
            ready: Vec::new(),
            waiting: BTreeMap::new(),
            next_number: 0,
            tally: Tally::default(),
            height: 0,
            tip: genesis,
        }
    }

    /// The next block, of about `bytes`, at this time; `left` is how many transactions are still to come, roughly, so
    /// that long histories are spread over the chain.
    pub fn next(&mut self, bytes: u64, time: u32, mut left: u64) -> (Block, Vec<Txid>) {
        self.height += 1;
        let due = self.waiting.remove(&self.height).unwrap_or_default();
        self.ready.extend(due);
        let mut transactions = vec![coinbase_stub()];
        let mut ids = vec![Txid::all_zeros()];
        let (mut size, mut weight, mut operations, mut fees) = (500, 2_000, 400, 0);
        while size < bytes && weight < WEIGHT && operations < OPERATIONS {
            let room = (bytes - size).max(1_000) as usize;
            let Some((transaction, coins, lives)) = self.transaction(room, left) else {
                break;
            };
            left = left.saturating_sub(1);
            let id = transaction.compute_txid();
            size += transaction.total_size() as u64;
            weight += transaction.weight().to_wu();
            operations += coins
                .iter()
                .map(|coin| coin.kind.input_operations())
                .sum::<u64>();
            let given: u64 = coins.iter().map(|coin| coin.value).sum();
            let taken: u64 = transaction.output.iter().map(|it| it.value.to_sat()).sum();
            fees += given - taken;
            for (at, (output, life)) in transaction.output.iter().zip(lives).enumerate() {
                let place = OutPoint::new(id, at as u32);
                operations += self.file(place, output.value.to_sat(), life);
            }
            self.tally.inputs += coins.len() as u64;
            self.tally.outputs += transaction.output.len() as u64;
            transactions.push(transaction);
            ids.push(id);
        }
        self.seal(transactions, ids, time, fees)
    }

    /// One transaction that spends what is at hand; `None` if nothing is.
    fn transaction(
        &mut self,
        room: usize,
        left: u64,
    ) -> Option<(Transaction, Vec<Coin>, Vec<Life>)> {
        if self.ready.is_empty() {
            return None;
        }
        let draft = self.draft(room, left);
        for (_, made) in &draft.coins {
            self.tally.same_block += u64::from(*made == self.height);
        }
        let coins: Vec<Coin> = draft.coins.into_iter().map(|(coin, _)| coin).collect();
        let spent: Vec<TxOut> = coins
            .iter()
            .map(|coin| TxOut {
                value: Amount::from_sat(coin.value),
                script_pubkey: self.locks.script(coin.kind, coin.number),
            })
            .collect();
        let input = coins.iter().map(|coin| TxIn {
            previous_output: coin.place,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::new(),
        });
        let mut transaction = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: input.collect(),
            output: draft.outputs,
        };
        self.locks.sign(&mut transaction, &coins, &spent);
        Some((transaction, coins, draft.lives))
    }

    fn draft(&mut self, room: usize, left: u64) -> Draft {
        let (inputs, outputs) = self.shape();
        let inputs = inputs.min(self.ready.len()).min(room / 200 + 1);
        let outputs = outputs.min(room / 40 + 1);
        let mut coins = Vec::new();
        for _ in 0..inputs {
            let at = self.random.random_range(0..self.ready.len());
            coins.push(self.ready.swap_remove(at));
        }
        let mut lives = Vec::new();
        for at in 0..self.heavy.len() {
            let heavy = &mut self.heavy[at];
            let wanted = heavy.wanted - heavy.transactions;
            if wanted == 0 || self.random.random_range(0..left.max(1)) >= wanted {
                continue;
            }
            heavy.transactions += 1;
            match heavy.coins.pop_front() {
                Some(coin) if self.random.random_bool(0.4) => coins.push((coin, 0)),
                coin => {
                    heavy.coins.extend(coin);
                    lives.push(Life::Heavy(at));
                }
            }
        }
        while lives.len() < outputs {
            let life = self.life();
            lives.push(life);
        }
        let outputs = self.pay(&coins, &mut lives);
        Draft {
            coins,
            outputs,
            lives,
        }
    }

    /// How many inputs and outputs.
    fn shape(&mut self) -> (usize, usize) {
        let random = &mut self.random;
        let at_hand = self.ready.len();
        let inputs = match random.random_range(0..100) {
            0..66 => 1,
            66..83 => 2,
            83..95 => random.random_range(3..=5),
            95..99 => random.random_range(6..=20),
            _ => random.random_range(21..=100),
        };
        let outputs = match random.random_range(0..100) {
            0..18 => 1,
            18..82 => 2,
            82..94 => random.random_range(3..=5),
            94..99 => random.random_range(6..=30),
            _ => random.random_range(31..=300),
        };
        if at_hand < FEW {
            return (1, outputs.max(random.random_range(2..=40)));
        }
        if at_hand > PLENTY && random.random_bool(0.2) {
            return (inputs.max(random.random_range(5..=60)), outputs.min(2));
        }
        (inputs, outputs)
    }

    /// What becomes of an output.
    fn life(&mut self) -> Life {
        if self.random.random_bool(0.14) {
            return Life::Never;
        }
        let after = match self.random.random_range(0..100) {
            0..12 => 0,
            _ if self.ready.len() < FEW && self.random.random_bool(0.5) => 0,
            // An exponential distribution with a mean of 60 blocks, cut off.
            _ => {
                let draw: f64 = self.random.random_range(1e-4..1.0);
                (-60.0 * draw.ln()) as u32 + 1
            }
        };
        let number = self.next_number;
        self.next_number += 1;
        let kind = Kind::draw(&mut self.random);
        Life::Spent {
            kind,
            number,
            after,
        }
    }

    /// The outputs of these lives; fewer if there is not enough to pay them, but at least one.
    fn pay(&mut self, coins: &[(Coin, u32)], lives: &mut Vec<Life>) -> Vec<TxOut> {
        let mut value: u64 = coins.iter().map(|(coin, _)| coin.value).sum();
        let fee = 150 * (coins.len() + lives.len()) as u64;
        value = value.saturating_sub(fee);
        let mut outputs = Vec::new();
        let mut paid = Vec::new();
        let count = lives.len() as u64;
        for (at, &life) in lives.iter().enumerate() {
            let random = &mut self.random;
            let (most, script) = match life {
                Life::Never if random.random_bool(0.2) => (0, data(random)),
                Life::Never => {
                    let kind = Kind::draw(random);
                    (random.random_range(330..=CRUMB), unspent(random, kind))
                }
                Life::Heavy(at) => {
                    let most = random.random_range(1_000..=20_000);
                    (most, self.heavy[at].script.clone())
                }
                Life::Spent { kind, number, .. } => {
                    let even = value / (count - at as u64);
                    let most = even / 2 + random.random_range(0..=even / 2 + 1);
                    (most, self.locks.script(kind, number))
                }
            };
            let sum = most.min(value);
            value -= sum;
            // What can hold nothing is not to be spent, except that a long history wants its transaction.
            if sum < 330 && matches!(life, Life::Spent { .. }) && !outputs.is_empty() {
                continue;
            }
            outputs.push(TxOut {
                value: Amount::from_sat(sum),
                script_pubkey: script,
            });
            paid.push(life);
        }
        // The rest goes to the last that will be spent, lest it be lost to the miner.
        let last = paid
            .iter()
            .rposition(|life| matches!(life, Life::Spent { .. }));
        if let Some(last) = last {
            outputs[last].value += Amount::from_sat(value);
        }
        *lives = paid;
        outputs
    }

    /// Files an output under the block that spends it, and says what it costs in signature operations.
    fn file(&mut self, place: OutPoint, value: u64, life: Life) -> u64 {
        let (kind, number) = match life {
            Life::Never => return 4,
            Life::Spent { kind, number, .. } => (kind, number),
            Life::Heavy(at) => (Kind::P2wpkh, self.heavy[at].number),
        };
        let coin = Coin {
            place,
            value,
            kind,
            number,
        };
        match life {
            Life::Spent { after: 0, .. } => self.ready.push((coin, self.height)),
            Life::Spent { after, .. } => {
                let due = self.waiting.entry(self.height + after).or_default();
                due.push((coin, self.height));
            }
            Life::Heavy(at) if self.heavy[at].coins.len() < KEPT => {
                self.heavy[at].coins.push_back(coin);
            }
            _ => {}
        }
        kind.output_operations()
    }

    fn seal(
        &mut self,
        mut transactions: Vec<Transaction>,
        mut ids: Vec<Txid>,
        time: u32,
        fees: u64,
    ) -> (Block, Vec<Txid>) {
        let witness_ids = transactions
            .iter()
            .skip(1)
            .map(|it| it.compute_wtxid().to_raw_hash());
        let leaves = std::iter::once(sha256d::Hash::all_zeros()).chain(witness_ids);
        let witness_root = bitcoin::merkle_tree::calculate_root(leaves).expect("a coinbase");
        let reserved = [0; 32];
        let commitment = [&witness_root.to_byte_array()[..], &reserved].concat();
        let commitment = sha256d::Hash::hash(&commitment).to_byte_array();
        let subsidy = 5_000_000_000_u64
            .checked_shr(self.height / HALVING)
            .unwrap_or(0);
        let number = self.next_number;
        self.next_number += 1;
        let coinbase = &mut transactions[0];
        coinbase.input[0].script_sig = Builder::new()
            .push_int(self.height.into())
            .push_slice(number.to_le_bytes())
            .into_script();
        coinbase.input[0].witness = Witness::from_slice(&[&reserved]);
        let value = subsidy + fees;
        let script = self.locks.script(Kind::P2wpkh, number);
        coinbase.output = vec![
            TxOut {
                value: Amount::from_sat(value),
                script_pubkey: script,
            },
            TxOut {
                value: Amount::ZERO,
                script_pubkey: ScriptBuf::from(
                    [&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed][..], &commitment].concat(),
                ),
            },
        ];
        ids[0] = coinbase.compute_txid();
        if value > 0 {
            let place = OutPoint::new(ids[0], 0);
            let after = MATURITY;
            let kind = Kind::P2wpkh;
            self.file(
                place,
                value,
                Life::Spent {
                    kind,
                    number,
                    after,
                },
            );
        }
        self.tally.transactions += transactions.len() as u64;
        self.tally.outputs += 2;
        let leaves = ids.iter().map(|id| id.to_raw_hash());
        let root = bitcoin::merkle_tree::calculate_root(leaves).expect("a coinbase");
        let mut header = Header {
            version: BlockVersion::from_consensus(0x2000_0000),
            prev_blockhash: self.tip,
            merkle_root: root.into(),
            time,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: 0,
        };
        while header.validate_pow(header.target()).is_err() {
            header.nonce += 1;
        }
        self.tip = header.block_hash();
        let txdata = transactions;
        (Block { header, txdata }, ids)
    }
}

fn coinbase_stub() -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: Vec::new(),
    }
}
