//! Compact blocks (BIP152, version 2): short ids of the wtxids instead of transactions that the peer holds already.

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bytes::Bytes;

/// A compact block as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactBlock {
    /// Hash of the header.
    pub hash: BlockHash,
    /// The header.
    pub header: Header,
    /// What the key of the short ids is made of, besides the header.
    pub nonce: u64,
    /// 48-bit ids of the transactions that are not prefilled, in the block's order.
    pub short_ids: Vec<u64>,
    /// Transactions by their index in the block, ascending.
    pub prefilled: Vec<(u32, Bytes)>,
}
