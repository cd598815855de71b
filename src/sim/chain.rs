//! Chains of blocks that Bitcoin's own rules call valid, on regtest, and blocks that break one of them.
//!
//! The blocks of [`super::workload`] look right to a relay, which is enough to measure one. Those here are also
//! right for a node that validates: coins exist, are mature and spent once, signatures are good, amounts add up.
//! So a validating node can judge what came out of a relay. Transactions are of the kinds that blocks are made of
//! today, with one to three inputs and outputs each, and some spend what others of the same block create.
//!
//! What it is not: a wallet, or a judge. It knows its own coins only, and keeps the rules by making no exception.

mod coin;
mod fault;

pub use fault::Fault;

use std::collections::VecDeque;

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash as _;
use bitcoin::secp256k1::{All, Secp256k1};
use bitcoin::transaction;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, Network, OutPoint, ScriptBuf, Sequence, Transaction,
    TxIn, TxMerkleNode, TxOut, Witness,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use coin::{Coin, Lock};

/// Blocks that must lie above a coinbase before it is spent (`COINBASE_MATURITY`).
pub const MATURITY: u32 = 100;
/// Between two blocks, seconds.
pub const SPACING_S: u32 = 600;
/// Blocks after which the subsidy is halved on regtest.
const HALVING: u32 = 150;
/// What a transaction leaves to the miner, satoshi.
const FEE_SAT: u64 = 2_000;
/// The smallest output, satoshi: below it a coin would cost more than it brings.
const LEAST_SAT: u64 = 10_000;
/// Outputs of a transaction that is to make coins of one.
const FAN_OUT: usize = 40;

/// What the transactions of a block spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spends {
    /// Whatever there is, also what others of the same block make.
    Anything,
    /// What earlier blocks made.
    Earlier,
    /// One coin of an earlier block each, which it makes many of.
    EarlierIntoMany,
}

/// Makes one chain, block after block. A clone makes another that forks off where the original stands.
#[derive(Clone, Debug)]
pub struct ChainMaker {
    /// Of what is random in its further blocks, with their height.
    seed: u64,
    secp: Secp256k1<All>,
    tip: Header,
    /// When the next block is found, in Unix seconds.
    next_time: u32,
    height: u32,
    /// What may be spent.
    coins: Vec<Coin>,
    /// What may be spent once the block that is being made is done.
    fresh: Vec<Coin>,
    /// Coinbases that are not mature, with their heights.
    unripe: VecDeque<(u32, Coin)>,
}

impl ChainMaker {
    /// Stands on regtest's genesis block.
    pub fn new(seed: u64) -> Self {
        let genesis = bitcoin::constants::genesis_block(Network::Regtest).header;
        Self {
            seed,
            secp: Secp256k1::new(),
            tip: genesis,
            next_time: genesis.time + SPACING_S,
            height: 0,
            coins: Vec::new(),
            fresh: Vec::new(),
            unripe: VecDeque::new(),
        }
    }

    /// The same, but its first block is found at this time, in Unix seconds, after that of the genesis block. The others
    /// follow every ten minutes.
    pub fn starting_at(seed: u64, time: u32) -> Self {
        Self {
            next_time: time,
            ..Self::new(seed)
        }
    }

    /// The height of the newest block.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The hash of the newest block.
    pub fn tip(&self) -> BlockHash {
        self.tip.block_hash()
    }

    /// Another chain with the same past, whose further blocks and transactions differ.
    #[must_use]
    pub fn fork(&self, seed: u64) -> Self {
        Self {
            seed,
            ..self.clone()
        }
    }

    /// The next block, with so many transactions besides the coinbase, or as many as there are coins for: before
    /// height [`MATURITY`] + 1 there are none.
    pub fn block(&mut self, transactions: usize) -> Block {
        self.grow(transactions, Spends::Anything)
    }

    /// The next block, in which no transaction spends what another of it makes: they may come to mempools in any order,
    /// and no chain of them is longer than a mempool takes.
    pub fn block_of_earlier_coins(&mut self, transactions: usize) -> Block {
        self.grow(transactions, Spends::Earlier)
    }

    /// The next block, in which each transaction makes many coins of one that an earlier block made.
    pub fn splitting_block(&mut self, transactions: usize) -> Block {
        self.grow(transactions, Spends::EarlierIntoMany)
    }

    fn grow(&mut self, transactions: usize, spends: Spends) -> Block {
        let height = self.height + 1;
        let seed = self.seed ^ u64::from(height) << 32;
        let mut random = StdRng::seed_from_u64(seed);
        while let Some((born, coin)) = self.unripe.pop_front() {
            if born + MATURITY > height {
                self.unripe.push_front((born, coin));
                break;
            }
            self.coins.push(coin);
        }
        let mut body = Vec::with_capacity(transactions + 1);
        while body.len() < transactions && !self.coins.is_empty() {
            body.push(self.transaction(transactions, spends, &mut random));
        }
        self.coins.append(&mut self.fresh);
        let fees = FEE_SAT * body.len() as u64;
        let (coinbase, coin) = self.coinbase(height, fees, &mut random);
        body.insert(0, coinbase);
        let block = seal(self.tip, body, self.next_time);
        self.next_time += SPACING_S;
        let previous_output = OutPoint::new(block.txdata[0].compute_txid(), 0);
        let coin = Coin {
            outpoint: previous_output,
            ..coin
        };
        self.unripe.push_back((height, coin));
        self.tip = block.header;
        self.height = height;
        block
    }

    /// The next block with a fault: it has its work, and is right but for that. The chain stays where it is.
    ///
    /// # Panics
    ///
    /// If there are no coins yet for the transactions that the fault needs, or if the block would have a power of two
    /// of them and is to repeat some.
    pub fn faulty_block(&self, transactions: usize, fault: Fault) -> Block {
        let mut maker = self.clone();
        let block = maker.block(transactions);
        fault.break_block(block, self.tip)
    }

    fn coinbase(&self, height: u32, fees: u64, random: &mut StdRng) -> (Transaction, Coin) {
        let subsidy = 5_000_000_000_u64 >> (height / HALVING).min(63);
        let value = Amount::from_sat(subsidy + fees);
        let lock = Lock::random(random);
        let output = TxOut {
            value,
            script_pubkey: lock.script(&self.secp),
        };
        // BIP34 has the height in front; two bytes at least, and another chain has another coinbase.
        let script = bitcoin::script::Builder::new()
            .push_int(i64::from(height))
            .push_slice(random.random::<[u8; 8]>())
            .into_script();
        let coinbase = Transaction {
            version: transaction::Version::ONE,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig: script,
                sequence: Sequence::MAX,
                witness: Witness::from_slice(&[[0_u8; 32]]),
            }],
            output: vec![output.clone()],
        };
        let coin = Coin {
            outpoint: OutPoint::null(),
            output,
            lock,
        };
        (coinbase, coin)
    }

    /// A transaction that spends one to three coins and makes one to three, or many while there are few.
    fn transaction(&mut self, wanted: usize, spends: Spends, random: &mut StdRng) -> Transaction {
        let few = match spends {
            Spends::Anything => self.coins.len() < wanted,
            Spends::Earlier => false,
            Spends::EarlierIntoMany => true,
        };
        let inputs = match few {
            true => 1,
            false => random.random_range(1..=3),
        };
        let spent: Vec<Coin> = (0..inputs).map_while(|_| self.take_coin(random)).collect();
        let total: u64 = spent.iter().map(|coin| coin.output.value.to_sat()).sum();
        let left = total.saturating_sub(FEE_SAT);
        let most = (left / LEAST_SAT).clamp(1, FAN_OUT as u64) as usize;
        let outputs = match few {
            true => most,
            false => random.random_range(1..=3).min(most),
        };
        let each = left / outputs as u64;
        let locks: Vec<Lock> = (0..outputs).map(|_| Lock::random(random)).collect();
        let output = |(index, lock): (usize, &Lock)| TxOut {
            // The first has what can't be divided.
            value: Amount::from_sat(match index {
                0 => left - each * (outputs as u64 - 1),
                _ => each,
            }),
            script_pubkey: lock.script(&self.secp),
        };
        let mut transaction = Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: spent.iter().map(Coin::input).collect(),
            output: locks.iter().enumerate().map(output).collect(),
        };
        coin::sign(&mut transaction, &spent, &self.secp);
        let txid = transaction.compute_txid();
        let made = match spends {
            Spends::Anything => &mut self.coins,
            Spends::Earlier | Spends::EarlierIntoMany => &mut self.fresh,
        };
        for (index, (lock, output)) in locks.into_iter().zip(&transaction.output).enumerate() {
            // What is worth less than another fee stays where it is.
            if output.value.to_sat() > FEE_SAT + LEAST_SAT {
                made.push(Coin {
                    outpoint: OutPoint::new(txid, index as u32),
                    output: output.clone(),
                    lock,
                });
            }
        }
        transaction
    }

    fn take_coin(&mut self, random: &mut StdRng) -> Option<Coin> {
        if self.coins.is_empty() {
            return None;
        }
        let index = random.random_range(0..self.coins.len());
        Some(self.coins.swap_remove(index))
    }
}

/// Puts transactions into a block upon `parent`: commitment, root and work.
fn seal(parent: Header, mut transactions: Vec<Transaction>, time: u32) -> Block {
    let commitment = commitment_of(&transactions);
    if let Some(coinbase) = transactions.first_mut() {
        coinbase.output.push(TxOut {
            value: Amount::ZERO,
            script_pubkey: commitment,
        });
    }
    mine(parent, transactions, time)
}

/// The output script that commits to the witnesses of `transactions` (BIP141).
fn commitment_of(transactions: &[Transaction]) -> ScriptBuf {
    let ids = transactions.iter().enumerate().map(|(index, it)| {
        // BIP141: "The wtxid of coinbase transaction is assumed to be 0x0000....0000."
        match index {
            0 => [0; 32],
            _ => it.compute_wtxid().to_byte_array(),
        }
    });
    let ids = ids.map(bitcoin::hashes::sha256d::Hash::from_byte_array);
    let root = bitcoin::merkle_tree::calculate_root(ids).expect("a block has a coinbase");
    let root = bitcoin::WitnessMerkleNode::from_raw_hash(root);
    let commitment = Block::compute_witness_commitment(&root, &[0; 32]);
    let mut script = vec![0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
    script.extend(commitment.to_byte_array());
    ScriptBuf::from_bytes(script)
}

/// A block of exactly these transactions upon `parent`, with its work.
fn mine(parent: Header, transactions: Vec<Transaction>, time: u32) -> Block {
    let mut block = Block {
        header: Header {
            version: Version::from_consensus(0x2000_0000),
            prev_blockhash: parent.block_hash(),
            merkle_root: TxMerkleNode::all_zeros(),
            time,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: 0,
        },
        txdata: transactions,
    };
    block.header.merkle_root = block.compute_merkle_root().expect("a block has a coinbase");
    while block.header.validate_pow(block.header.target()).is_err() {
        block.header.nonce += 1;
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_grows_and_is_full_once_coins_are_mature() {
        let mut maker = ChainMaker::new(1);
        let mut parent = maker.tip();
        for height in 1..=MATURITY + 4 {
            let block = maker.block(300);
            assert_eq!(block.header.prev_blockhash, parent);
            assert!(block.check_merkle_root() && block.check_witness_commitment());
            // Up to 16 it is an opcode, which is not looked for there.
            if height > 16 {
                assert_eq!(block.bip34_block_height(), Ok(u64::from(height)));
            }
            assert_eq!(block.txdata.len() == 301, height > MATURITY);
            parent = block.block_hash();
        }
        assert_eq!((maker.height(), maker.tip()), (MATURITY + 4, parent));
    }

    #[test]
    fn blocks_of_earlier_coins_spend_nothing_of_their_own() {
        let mut maker = ChainMaker::new(5);
        for _ in 0..MATURITY {
            maker.block(0);
        }
        assert_eq!(maker.splitting_block(9).txdata.len(), 2);
        assert!(maker.splitting_block(30).txdata.len() == 31);
        let block = maker.block_of_earlier_coins(200);
        assert_eq!(block.txdata.len(), 201);
        let own: Vec<_> = block.txdata.iter().map(Transaction::compute_txid).collect();
        let inputs = block.txdata.iter().flat_map(|it| &it.input);
        let spent: Vec<OutPoint> = inputs.map(|input| input.previous_output).collect();
        assert!(spent.iter().all(|spent| !own.contains(&spent.txid)));
        // And what they made can be spent by the next.
        assert!(maker.coins.len() > 500 && maker.fresh.is_empty());
    }

    #[test]
    fn a_seed_makes_the_same_chain_again_and_a_fork_another() {
        let grown = || {
            let mut maker = ChainMaker::new(7);
            for _ in 0..MATURITY {
                maker.block(0);
            }
            maker
        };
        let (mut one, mut same) = (grown(), grown());
        let mut other = one.fork(8);
        assert_eq!(one.block(20), same.block(20));
        let forked = other.block(20);
        assert_ne!(forked.block_hash(), one.tip());
        assert_eq!(forked.header.prev_blockhash, grown().tip());
    }

    /// Each block has its work, and is consistent with its header, as far as its fault lets it.
    #[test]
    fn faults_are_where_they_should_be() {
        let mut maker = ChainMaker::new(3);
        for _ in 0..MATURITY + 2 {
            maker.block(30);
        }
        for fault in Fault::ALL {
            let block = maker.faulty_block(30, fault);
            assert_eq!(block.header.prev_blockhash, maker.tip(), "{fault:?}");
            assert!(block.header.validate_pow(block.header.target()).is_ok());
            assert!(block.check_merkle_root(), "{fault:?}");
            let is_witness = matches!(fault, Fault::Commitment | Fault::AlteredWitness);
            assert_eq!(block.check_witness_commitment(), !is_witness, "{fault:?}");
        }
    }
}
