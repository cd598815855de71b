//! Fills a bitcoind's mempool with transactions as they are seen on the network, by shape, and mines them.

use std::collections::VecDeque;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use super::harness::Bitcoind;

/// Blocks before a coinbase can be spent.
const MATURITY: usize = 100;
/// Outputs of a transaction that makes coins small.
const FAN_OUT: usize = 1_000;
/// What anybody can spend, so that no keys are needed: OP_TRUE.
const ANYBODY: [u8; 1] = [0x51];
/// Satoshi that each output pays for.
const FEE: u64 = 1_000;

/// Mines at one bitcoind. It must be started with [`Miner::ARGUMENTS`].
pub struct Miner<'a> {
    node: &'a Bitcoind,
    random: StdRng,
    coins: VecDeque<(OutPoint, Amount)>,
    coinbases: VecDeque<(OutPoint, Amount)>,
}

impl<'a> Miner<'a> {
    /// How a bitcoind is started whose mempool is filled so.
    pub const ARGUMENTS: [&'static str; 3] = [
        "-minrelaytxfee=0",
        "-blockmintxfee=0",
        "-limitancestorcount=1000",
    ];

    /// A miner without coins.
    pub fn new(node: &'a Bitcoind, seed: u64) -> Self {
        println!("seed {seed}");
        Self {
            node,
            random: StdRng::seed_from_u64(seed),
            coins: VecDeque::new(),
            coinbases: VecDeque::new(),
        }
    }

    /// A block with what the mempool holds.
    pub fn mine(&mut self) -> BlockHash {
        let descriptor = format!("raw({:x})", program());
        let hashes = self
            .node
            .call("generatetodescriptor", json!([1, descriptor]));
        let hash: BlockHash = serde_json::from_value(hashes[0].clone()).expect("a hash");
        let block: bitcoin::Block =
            bitcoin::consensus::deserialize(&self.node.block(hash)).expect("a block");
        let coinbase = &block.txdata[0];
        let coin = OutPoint::new(coinbase.compute_txid(), 0);
        self.coinbases.push_back((coin, coinbase.output[0].value));
        hash
    }

    /// Makes at least so many coins that can be spent.
    pub fn prepare(&mut self, count: usize) {
        for _ in 0..MATURITY + count.div_ceil(FAN_OUT) {
            self.mine();
        }
        self.split(count);
    }

    /// Makes coins of coinbases until there are so many.
    pub fn split(&mut self, count: usize) {
        while self.coins.len() < count {
            while self.coinbases.len() <= MATURITY {
                self.mine();
            }
            let (coin, value) = self.coinbases.pop_front().expect("one was mined");
            let each = value / FAN_OUT as u64 - Amount::from_sat(100);
            let output = TxOut {
                value: each,
                script_pubkey: program(),
            };
            let txid = self.send(&spend([coin], vec![output; FAN_OUT]));
            let coins = (0..FAN_OUT as u32).map(|at| (OutPoint::new(txid, at), each));
            self.coins.extend(coins);
            self.mine();
        }
    }

    /// Puts so many transactions into the mempool: mostly one or two inputs and two outputs, some with many.
    pub fn fill(&mut self, count: usize) {
        for _ in 0..count {
            let inputs = [1, 1, 1, 2][self.random.random_range(0..4)];
            let others = [1, 1, 1, 1, 2, 5, 20][self.random.random_range(0..7)];
            let coins: Vec<_> = self.coins.drain(..inputs).collect();
            let value: Amount = coins.iter().map(|(_, value)| *value).sum();
            let share = (value - Amount::from_sat(FEE * (others + 1))) / (others + 1);
            let mut outputs: Vec<TxOut> = (0..others)
                .map(|_| TxOut {
                    value: share,
                    script_pubkey: ScriptBuf::from(
                        [&[0, 20][..], &self.random.random::<[u8; 20]>()].concat(),
                    ),
                })
                .collect();
            outputs.push(TxOut {
                value: share,
                script_pubkey: program(),
            });
            let txid = self.send(&spend(coins.into_iter().map(|(coin, _)| coin), outputs));
            if share > Amount::from_sat(50_000) {
                self.coins
                    .push_back((OutPoint::new(txid, others as u32), share));
            }
        }
    }

    fn send(&self, transaction: &Transaction) -> Txid {
        let hex = serialize_hex(transaction);
        let txid = self.node.call("sendrawtransaction", json!([hex, 0]));
        serde_json::from_value(txid).expect("an id")
    }
}

/// [`ANYBODY`] behind a witness program, so that transactions have witnesses.
fn program() -> ScriptBuf {
    let hash = sha256::Hash::hash(&ANYBODY).to_byte_array();
    ScriptBuf::from([&[0, 32][..], &hash].concat())
}

fn spend(coins: impl IntoIterator<Item = OutPoint>, output: Vec<TxOut>) -> Transaction {
    let input = coins.into_iter().map(|coin| TxIn {
        previous_output: coin,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::from_slice(&[&ANYBODY]),
    });
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: input.collect(),
        output,
    }
}
