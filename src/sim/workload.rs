//! Blocks to relay: of any shape, valid as far as the relay can see, and cheap to mine.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::consensus::encode;
use bitcoin::hashes::Hash as _;
use bitcoin::transaction;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Txid, Witness,
};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::merkle::Hash;
use crate::wire::compact_size_len;

/// The work that blocks of a simulated world show, as a header's target has it: one hash in 4,096 does. Enough that a
/// header which an adversary alters is worth nothing, and mined within a millisecond.
pub const WORK: u32 = 0x1f0f_ffff;

/// What a block shall look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Transactions, the coinbase included; at least one.
    pub transactions: u32,
    /// Bytes of each transaction but the coinbase, from and to (at least about 100).
    pub bytes: (usize, usize),
    /// One transaction in so many has a witness; 0: none has, and there is no commitment.
    pub witness_every: u32,
    /// Bytes of padding in the coinbase's outputs.
    pub coinbase_padding: usize,
    /// Bytes of one transaction in the middle that is larger than the others; 0: none.
    pub giant: usize,
}

impl Default for Recipe {
    /// A small block of 500 transactions of 150 to 700 bytes.
    fn default() -> Self {
        Self {
            transactions: 500,
            bytes: (150, 700),
            witness_every: 2,
            coinbase_padding: 0,
            giant: 0,
        }
    }
}

/// A block to relay.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its hash, internal byte order.
    pub hash: [u8; 32],
    /// Serialized.
    pub block: Bytes,
    /// Its transactions but the coinbase, serialized, in order.
    pub transactions: Vec<Bytes>,
}

impl Workload {
    /// The block that `recipe` and `seed` describe.
    pub fn new(recipe: &Recipe, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let count = recipe.transactions.max(1);
        let giant_at = (recipe.giant > 0).then_some(count / 2);
        let mut transactions = vec![coinbase(recipe, seed)];
        for index in 1..count {
            let bytes = if Some(index) == giant_at {
                recipe.giant
            } else {
                random.random_range(recipe.bytes.0..=recipe.bytes.1.max(recipe.bytes.0))
            };
            let witness = recipe.witness_every > 0 && index % recipe.witness_every == 0;
            transactions.push(transaction(bytes, witness, &mut random));
        }
        Self::of(mine(transactions, recipe.witness_every > 0))
    }

    /// A block whose transactions, the coinbase not counted, have about these sizes in bytes (at least about 110). Every
    /// other one has a witness.
    pub fn of_sizes(sizes: &[usize], seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let recipe = Recipe {
            witness_every: 2,
            ..Recipe::default()
        };
        let mut transactions = vec![coinbase(&recipe, seed)];
        for (index, &bytes) in sizes.iter().enumerate() {
            transactions.push(transaction(bytes, index % 2 == 1, &mut random));
        }
        Self::of(mine(transactions, true))
    }

    /// Bytes of the coinbase, serialized.
    pub fn coinbase_bytes(&self) -> u64 {
        let others: usize = self.transactions.iter().map(Bytes::len).sum();
        let count = compact_size_len(self.transactions.len() as u64 + 1);
        (self.block.len() - 80 - count - others) as u64
    }

    /// The block with a commitment to other witnesses in its coinbase, worked anew, serialized.
    pub fn with_false_commitment(&self) -> Bytes {
        let mut block: Block = encode::deserialize(&self.block).expect("it was made as one");
        let output = block
            .txdata
            .first_mut()
            .and_then(|coinbase| coinbase.output.last_mut());
        if let Some(output) = output {
            let mut script = output.script_pubkey.to_bytes();
            if let Some(byte) = script.last_mut() {
                *byte ^= 1;
            }
            output.script_pubkey = ScriptBuf::from_bytes(script);
        }
        if let Some(root) = block.compute_merkle_root() {
            block.header.merkle_root = root;
        }
        work(&mut block.header);
        encode::serialize(&block).into()
    }

    /// An existing block, serialized. `None` if it is none.
    pub fn from_bytes(block: &[u8]) -> Option<Self> {
        encode::deserialize(block).ok().map(Self::of)
    }

    fn of(block: Block) -> Self {
        Self {
            hash: block.block_hash().to_byte_array(),
            transactions: block
                .txdata
                .iter()
                .skip(1)
                .map(|transaction| encode::serialize(transaction).into())
                .collect(),
            block: encode::serialize(&block).into(),
        }
    }
}

fn coinbase(recipe: &Recipe, seed: u64) -> Transaction {
    let mut script = vec![3, 1, 0, 0, 8];
    script.extend(seed.to_le_bytes());
    let mut output = vec![TxOut {
        value: Amount::from_sat(5_000_000_000),
        script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
    }];
    let mut padding = recipe.coinbase_padding;
    while padding > 0 {
        let piece = padding.min(9_000);
        output.push(TxOut {
            value: Amount::ZERO,
            script_pubkey: ScriptBuf::from_bytes(vec![0x6a; piece]),
        });
        padding -= piece;
    }
    let mut witness = Witness::new();
    if recipe.witness_every > 0 {
        witness.push([0; 32]);
    }
    Transaction {
        version: transaction::Version::ONE,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: ScriptBuf::from_bytes(script),
            sequence: Sequence::MAX,
            witness,
        }],
        output,
    }
}

fn transaction(bytes: usize, with_witness: bool, random: &mut StdRng) -> Transaction {
    let mut previous = [0; 32];
    random.fill_bytes(&mut previous);
    // 59 bytes whatever it holds, 5 more for a script of one byte and a witness of one item, and the padding's length.
    let room = bytes.saturating_sub(if with_witness { 64 } else { 59 });
    let mut padding = vec![0; room.saturating_sub(compact_size_len(room as u64))];
    random.fill_bytes(&mut padding);
    let mut witness = Witness::new();
    let script = if with_witness {
        witness.push(&padding);
        vec![0x51]
    } else {
        padding
    };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint {
                txid: Txid::from_byte_array(previous),
                vout: 0,
            },
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness,
        }],
        output: vec![TxOut {
            value: Amount::from_sat(1_000),
            script_pubkey: ScriptBuf::from_bytes(script),
        }],
    }
}

fn mine(transactions: Vec<Transaction>, with_commitment: bool) -> Block {
    let mut block = Block {
        header: Header {
            version: Version::from_consensus(4),
            prev_blockhash: BlockHash::all_zeros(),
            merkle_root: TxMerkleNode::all_zeros(),
            time: 1_700_000_000,
            bits: CompactTarget::from_consensus(WORK),
            nonce: 0,
        },
        txdata: transactions,
    };
    if with_commitment
        && let Some(root) = block.witness_root()
        && let Some(coinbase) = block.txdata.first_mut()
    {
        let commitment = Block::compute_witness_commitment(&root, &[0; 32]);
        let mut script = vec![0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
        script.extend(commitment.to_byte_array());
        coinbase.output.push(TxOut {
            value: Amount::ZERO,
            script_pubkey: ScriptBuf::from_bytes(script),
        });
    }
    if let Some(root) = block.compute_merkle_root() {
        block.header.merkle_root = root;
    }
    work(&mut block.header);
    block
}

fn work(header: &mut Header) {
    while header.validate_pow(header.target()).is_err() {
        header.nonce += 1;
    }
}

/// A header with another merkle root, worked anew; `None` if it is none.
pub fn worked(header: &[u8; 80], root: Hash) -> Option<[u8; 80]> {
    let mut header: Header = encode::deserialize(header).ok()?;
    header.merkle_root = TxMerkleNode::from_byte_array(root);
    work(&mut header);
    encode::serialize(&header).try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_as_asked_for_and_valid() {
        for (transactions, witness_every, giant, coinbase_padding) in [
            (1, 0, 0, 0),
            (1, 1, 0, 0),
            (2, 0, 0, 0),
            (300, 3, 400_000, 0),
            (64, 0, 0, 90_000),
        ] {
            let recipe = Recipe {
                transactions,
                witness_every,
                giant,
                coinbase_padding,
                ..Recipe::default()
            };
            let workload = Workload::new(&recipe, 5);
            let block: Block = encode::deserialize(&workload.block).unwrap();
            assert_eq!(block.txdata.len(), transactions as usize);
            assert!(block.check_merkle_root());
            assert!(block.check_witness_commitment());
            assert!(workload.block.len() > giant + coinbase_padding);
            assert_eq!(workload.block, Workload::new(&recipe, 5).block);
            assert_ne!(workload.block, Workload::new(&recipe, 6).block);
        }
    }
}
