//! The block that is relayed, and the start that nodes must trust to take it.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash as _;
use bitcoin::{Block, Target};
use hex::DisplayHex as _;

use crate::chain::Network;
use crate::config::NetworkName;

/// Bytes of the largest file that is read: the largest block that any network has.
const MAX_FILE_BYTES: u64 = 4_000_000;
/// Heights below which a block may have a version less than 2, 3 and 4 (BIP34, BIP66, BIP65 on mainnet).
const OLD_VERSIONS: [(i32, u32); 3] = [(2, 227_931), (3, 363_725), (4, 388_381)];

/// A block, and what the demo tells its nodes of it.
#[derive(Clone, Debug)]
pub struct DemoBlock {
    /// Its serialization in hex, as `submitblock` takes it and `getblock` gives it.
    pub hex: String,
    /// Its hash, as people write it.
    pub hash: String,
    /// Bytes of its serialization.
    pub bytes: usize,
    /// Its transactions in hex.
    pub transactions: Vec<String>,
    /// The network that the nodes are to run.
    pub network: NetworkName,
    /// Its height, or one at which the rules let it pass.
    pub height: u32,
    /// Its parent as `--trusted-start` takes it.
    pub trusted_start: String,
}

impl DemoBlock {
    /// The block in a file, or the one that is built in: 702861 of mainnet.
    ///
    /// # Errors
    ///
    /// One line: the file can't be read, or is no block.
    pub fn load(file: Option<&Path>) -> anyhow::Result<Self> {
        let Some(file) = file else {
            return Self::parse(bitcoin_test_data::blocks::mainnet_702861());
        };
        let shown = file.display();
        let mut bytes = Vec::new();
        std::fs::File::open(file)
            .and_then(|opened| opened.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
            .with_context(|| format!("can't read the block {shown}; check the path"))?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            bail!("{shown} is larger than a block can be; give one with the bytes of one block");
        }
        if let Some(form) = other_form(&bytes) {
            bail!("{shown} is {form}; give a file with the raw bytes of one block");
        }
        Self::parse(&bytes).with_context(|| {
            format!("{shown} is no block; give a file with the raw bytes of one block")
        })
    }

    /// The block with these bytes.
    ///
    /// # Errors
    ///
    /// One line: what is wrong with it.
    pub fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let block: Block = deserialize(bytes)?;
        if block.txdata.is_empty() {
            bail!("it has no transactions");
        }
        let header = block.header;
        if header.validate_pow(header.target()).is_err() {
            bail!("its header does not show the work that it states");
        }
        if !(block.check_merkle_root() && block.check_witness_commitment()) {
            bail!("its transactions are not those that its header commits to");
        }
        if header.prev_blockhash.to_byte_array() == [0; 32] {
            bail!("it is a genesis block, which nodes have from the start; give a later one");
        }
        let network = match Target::from_compact(header.bits) <= Network::Main.pow_limit() {
            true => NetworkName::Main,
            false => NetworkName::Regtest,
        };
        let height = height(&block);
        let parent = header.prev_blockhash;
        Ok(Self {
            hex: bytes.to_lower_hex_string(),
            hash: header.block_hash().to_string(),
            bytes: bytes.len(),
            transactions: block
                .txdata
                .iter()
                .map(|transaction| serialize(transaction).to_lower_hex_string())
                .collect(),
            network,
            height,
            trusted_start: format!("{},{parent},{:08x}", height - 1, header.bits.to_consensus()),
        })
    }
}

/// What a file is that people take for the bytes of a block.
fn other_form(bytes: &[u8]) -> Option<&'static str> {
    let magics = [
        Network::Main,
        Network::Testnet3,
        Network::Testnet4,
        Network::Signet,
        Network::Regtest,
    ];
    let is_text = |byte: &u8| byte.is_ascii_hexdigit() || byte.is_ascii_whitespace();
    if bytes.is_empty() {
        Some("empty")
    } else if bytes.iter().all(is_text) {
        Some("a block in hex, not in bytes (`xxd -r -p FILE > BLOCK` makes them)")
    } else if magics.iter().any(|it| bytes.starts_with(&it.magic())) {
        Some(
            "a file of bitcoind's block store (blk*.dat), which begins each block with 8 bytes of its own",
        )
    } else {
        None
    }
}

/// The height that the coinbase states (BIP34), if it has the look of one and the block's version may stand there;
/// otherwise the highest at which that version may, or 1.
fn height(block: &Block) -> u32 {
    let version = block.header.version.to_consensus();
    let stated = match version {
        ..2 => None,
        _ => block.bip34_block_height().ok(),
    };
    let stated = stated.and_then(|height| u32::try_from(height).ok());
    // Above this lies nothing but scripts that are no heights.
    let stated = stated.filter(|height| (1..10_000_000).contains(height));
    let limit = OLD_VERSIONS
        .iter()
        .find(|(least, _)| version < *least)
        .map_or(u32::MAX, |(_, height)| height - 1);
    stated.unwrap_or(1).min(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_that_is_built_in() {
        let block = DemoBlock::load(None).unwrap();
        assert_eq!((block.bytes, block.transactions.len()), (1_381_836, 2_500));
        assert_eq!(block.height, 702_861);
        assert!(
            block
                .trusted_start
                .starts_with("702860,0000000000000000000")
        );
        assert_eq!(block.network, NetworkName::Main);
    }

    #[test]
    fn what_is_no_block_is_told_in_one_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut altered = bitcoin_test_data::blocks::mainnet_702861().to_vec();
        altered[700_000] ^= 1;
        for bytes in [&b""[..], b"hello", &[0; 81], &[0; 4_000_001], &altered] {
            std::fs::write(file.path(), bytes).unwrap();
            let line = format!("{:#}", DemoBlock::load(Some(file.path())).unwrap_err());
            assert!(!line.contains('\n') && line.contains("give"), "{line}");
        }
        for (bytes, says) in [
            (&b""[..], "is empty; give a file with the raw bytes"),
            (b"00112233\n", "is a block in hex"),
            (b"\xf9\xbe\xb4\xd9\0\0", "block store (blk*.dat)"),
        ] {
            std::fs::write(file.path(), bytes).unwrap();
            let line = format!("{:#}", DemoBlock::load(Some(file.path())).unwrap_err());
            assert!(line.contains(says), "{line}");
        }
        let line = format!(
            "{:#}",
            DemoBlock::load(Some(Path::new("/nowhere"))).unwrap_err()
        );
        assert!(
            line.starts_with("can't read the block /nowhere; check the path"),
            "{line}"
        );
    }
}
