//! Keys of the tests' own, and payments signed by them.

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{
    Amount, BlockHash, CompressedPublicKey, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxOut, Txid, Witness, absolute::LockTime, transaction::Version,
};
use serde_json::json;

use crate::harness::Bitcoind;

/// Blocks before a coinbase can be spent.
const MATURITY: usize = 100;

/// A key, and the coins that were mined for it.
pub struct Purse {
    secret: SecretKey,
    public: CompressedPublicKey,
    coins: Vec<(OutPoint, Amount)>,
}

impl Purse {
    /// The purse of this number, empty.
    pub fn new(number: u8) -> Self {
        let secret = SecretKey::from_slice(&[number; 32]).expect("it is below the order");
        let public = CompressedPublicKey(secret.public_key(&Secp256k1::new()));
        let coins = Vec::new();
        Self {
            secret,
            public,
            coins,
        }
    }

    /// One with `count` coins, for which that many blocks are mined, and enough on top of them.
    pub fn filled(number: u8, node: &Bitcoind, count: usize) -> Self {
        let mut purse = Self::new(number);
        let blocks = purse.mine(node, count + MATURITY);
        for hash in &blocks[..count] {
            let block: bitcoin::Block =
                bitcoin::consensus::deserialize(&node.block(*hash)).expect("a block");
            purse.note(&block.txdata[0]);
        }
        purse
    }

    /// What pays to it.
    pub fn script(&self) -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&self.public.wpubkey_hash())
    }

    /// Mines blocks with what the mempool holds, whose coinbases go here.
    pub fn mine(&self, node: &Bitcoind, count: usize) -> Vec<BlockHash> {
        let descriptor = format!("raw({:x})", self.script());
        let hashes = node.call("generatetodescriptor", json!([count, descriptor]));
        serde_json::from_value(hashes).expect("hashes")
    }

    /// The outputs of a transaction that come here are coins from now on.
    pub fn note(&mut self, transaction: &Transaction) {
        let txid = transaction.compute_txid();
        for (at, output) in transaction.output.iter().enumerate() {
            if output.script_pubkey == self.script() && output.value > Amount::ZERO {
                self.coins
                    .push((OutPoint::new(txid, at as u32), output.value));
            }
        }
    }

    /// Pays with its oldest coin; the change comes back here, and is a coin at once.
    pub fn pay(&mut self, to: ScriptBuf, value: u64, fee: u64) -> Transaction {
        let (coin, held) = self.coins.remove(0);
        let value = Amount::from_sat(value);
        let change = held - value - Amount::from_sat(fee);
        let outputs = [(to, value), (self.script(), change)];
        let output = outputs.map(|(script_pubkey, value)| TxOut {
            value,
            script_pubkey,
        });
        let input = TxIn {
            previous_output: coin,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::new(),
        };
        let mut transaction = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![input],
            output: output.to_vec(),
        };
        self.sign(&mut transaction, held);
        self.note(&transaction);
        transaction
    }

    fn sign(&self, transaction: &mut Transaction, held: Amount) {
        let all = EcdsaSighashType::All;
        let mut cache = SighashCache::new(transaction);
        let hash = cache
            .p2wpkh_signature_hash(0, &self.script(), held, all)
            .expect("there is one input");
        let message = Message::from(hash);
        let signature = bitcoin::ecdsa::Signature {
            signature: Secp256k1::new().sign_ecdsa(&message, &self.secret),
            sighash_type: all,
        };
        let witness = Witness::p2wpkh(&signature, &self.public.0);
        *cache.witness_mut(0).expect("there is one input") = witness;
    }
}

/// Puts a transaction into a bitcoind's mempool.
pub fn send(node: &Bitcoind, transaction: &Transaction) -> Txid {
    let sent = node.call("sendrawtransaction", json!([serialize_hex(transaction)]));
    serde_json::from_value(sent).expect("an id")
}
