//! Blocks of a scenario as nodes of a real network take them.

use anyhow::Context as _;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash as _;
use bitcoin::{Block, Network};
use hex::DisplayHex as _;

use crate::config::NetworkName;
use crate::node::demo::block::DemoBlock;
use crate::sim::workload::Workload;

/// The blocks of a trial, and what nodes must be told to take them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ground {
    /// The network that the nodes are to run.
    pub network: NetworkName,
    /// The blocks' parent, as `--trusted-start` takes it, unless nodes know it anyway.
    pub trusted_start: Option<String>,
    /// Each block.
    pub blocks: Vec<Grounded>,
}

/// A block on its ground.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grounded {
    /// Its hash, as people write it.
    pub hash: String,
    /// Its serialization in hex, as `submitblock` takes it.
    pub hex: String,
    /// Its transactions but the coinbase, in hex.
    pub transactions: Vec<String>,
}

impl Ground {
    /// The ground of blocks. Synthetic ones, which have no parent, are put upon regtest's genesis block: their header is
    /// another then, and everything below it the same.
    ///
    /// # Errors
    ///
    /// One line: blocks of different networks, or a file that holds none that nodes could take.
    pub fn of(workloads: &[&Workload]) -> anyhow::Result<Self> {
        let mut ground = Self {
            network: NetworkName::Regtest,
            trusted_start: None,
            blocks: Vec::new(),
        };
        for (index, workload) in workloads.iter().enumerate() {
            let block: Block = deserialize(&workload.block).context("a block is none")?;
            if block.header.prev_blockhash.to_byte_array() == [0; 32] {
                anyhow::ensure!(
                    ground.trusted_start.is_none(),
                    "a block of a file beside synthetic ones, which would be on different networks; give --set block.count=1 --set block.racing=1"
                );
                ground
                    .blocks
                    .push(Grounded::new(upon_genesis(block), workload));
                continue;
            }
            anyhow::ensure!(
                index == 0,
                "a block of a file that is not the first; give --set block.count=1 --set block.racing=1"
            );
            let demo = DemoBlock::parse(&workload.block)?;
            ground.network = demo.network;
            ground.trusted_start = Some(demo.trusted_start);
            ground.blocks.push(Grounded::new(block, workload));
        }
        Ok(ground)
    }
}

impl Grounded {
    fn new(block: Block, workload: &Workload) -> Self {
        let transactions = workload.transactions.iter();
        Self {
            hash: block.block_hash().to_string(),
            hex: serialize(&block).to_lower_hex_string(),
            transactions: transactions.map(|it| it.to_lower_hex_string()).collect(),
        }
    }
}

fn upon_genesis(mut block: Block) -> Block {
    let genesis = bitcoin::constants::genesis_block(Network::Regtest);
    block.header.prev_blockhash = genesis.block_hash();
    // What regtest demands, which is less than a simulated world does.
    block.header.bits = genesis.header.bits;
    while block.header.validate_pow(block.header.target()).is_err() {
        block.header.nonce = block.header.nonce.wrapping_add(1);
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::workload::Recipe;

    #[test]
    fn synthetic_blocks_keep_all_but_their_header() {
        let workload = Workload::new(&Recipe::default(), 4);
        let ground = Ground::of(&[&workload, &workload]).expect("a ground");
        assert_eq!(
            (ground.network, &ground.trusted_start),
            (NetworkName::Regtest, &None)
        );
        let bytes = hex::decode_to_vec(&ground.blocks[1].hex).expect("hex");
        let block: Block = deserialize(&bytes).expect("a block");
        let before: Block = deserialize(&workload.block).expect("a block");
        assert_eq!(block.txdata, before.txdata);
        assert!(block.header.validate_pow(block.header.target()).is_ok());
        let genesis = bitcoin::constants::genesis_block(Network::Regtest).header;
        assert_eq!(
            (block.header.prev_blockhash, block.header.bits),
            (genesis.block_hash(), genesis.bits)
        );
        assert_eq!(ground.blocks[1].hash, block.block_hash().to_string());
        assert_eq!(ground.blocks[1].transactions.len(), 499);
    }

    #[test]
    fn real_blocks_stay_as_they_are() {
        let bytes = bitcoin_test_data::blocks::mainnet_702861();
        let real = Workload::from_bytes(bytes).expect("a block");
        let ground = Ground::of(&[&real]).expect("a ground");
        assert_eq!(ground.network, NetworkName::Main);
        assert_eq!(ground.blocks[0].hex, bytes.to_lower_hex_string());
        let synthetic = Workload::new(&Recipe::default(), 4);
        for mixed in [[&real, &synthetic], [&synthetic, &real]] {
            let refused = Ground::of(&mixed).expect_err("two networks").to_string();
            assert!(refused.contains("block.count=1"), "{refused}");
        }
    }
}
