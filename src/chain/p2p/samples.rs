//! Blocks made up for tests.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version as TransactionVersion;
use bitcoin::{
    Amount, Block, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
    TxOut, Txid, Witness,
};

use crate::chain::Network;

/// A transaction with a number on it; every second one has a witness.
pub(super) fn transaction(number: u8) -> Transaction {
    let witness = match number % 2 {
        0 => Witness::new(),
        _ => Witness::from_slice(&[vec![number; 71], vec![]]),
    };
    Transaction {
        version: TransactionVersion::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::new(Txid::from_byte_array([number; 32]), number.into()),
            script_sig: ScriptBuf::from(vec![number; 5]),
            sequence: Sequence::MAX,
            witness,
        }],
        output: vec![TxOut {
            value: Amount::from_sat(number.into()),
            script_pubkey: ScriptBuf::from(vec![number; 22]),
        }],
    }
}

/// A block of `count` transactions that fits regtest's target and its own merkle root.
pub(super) fn block(count: usize) -> Block {
    let mut header = Header {
        version: Version::from_consensus(0x2000_0000),
        prev_blockhash: BlockHash::from_byte_array([3; 32]),
        merkle_root: TxMerkleNode::all_zeros(),
        time: 1_700_000_000,
        bits: Network::Regtest.pow_limit_bits(),
        nonce: 0,
    };
    let txdata: Vec<_> = (0..count).map(|number| transaction(number as u8)).collect();
    let mut block = Block { header, txdata };
    header.merkle_root = block.compute_merkle_root().expect("not empty");
    while !header.target().is_met_by(header.block_hash()) {
        header.nonce += 1;
    }
    block.header = header;
    block
}

/// Headers in a row on the genesis block of regtest; `salt` tells chains apart.
pub(super) fn headers(count: u32, salt: u32) -> Vec<Header> {
    let mut header = Network::Regtest.genesis();
    let mut row = Vec::new();
    for _ in 0..count {
        header.prev_blockhash = header.block_hash();
        header.time += 600 + salt;
        header.nonce = 0;
        while !header.target().is_met_by(header.block_hash()) {
            header.nonce += 1;
        }
        row.push(header);
    }
    row
}
