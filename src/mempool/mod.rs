//! Transactions already held, and how a block's short ids find them.
//!
//! - [`transaction`]: a serialized transaction with its two ids, scanned strictly and kept as one piece of bytes
//! - [`view`]: a transaction where it lies, for whoever reads many and keeps none
//! - [`block`]: cutting a serialized block into its header and its transactions
//! - [`coinbase`]: what a coinbase commits to: the witness root (BIP141) and the height (BIP34)
//! - [`pool`]: a bounded cache of transactions, the oldest leaving first
//! - [`shortid`]: salted short ids (BIP152 version 2), and the index that resolves them
//!
//! This is not a mempool in the sense of a node's policy: nothing here knows of outputs being spent, fees or
//! scripts. Whatever is put in can be found again until newer transactions push it out.

pub mod block;
pub mod coinbase;
#[cfg(test)]
mod oracle;
pub mod pool;
mod scan;
pub mod shortid;
mod siphash;
mod table;
pub mod transaction;
pub mod view;

pub use block::{BlockError, BlockLimits, split_block};
pub use pool::{Insert, Mempool, MempoolStats, TxHandle};
pub use shortid::{Resolved, ShortIdIndex, ShortIdKey};
pub use transaction::{Transaction, TransactionError};
pub use view::{OutPoint, Output, TransactionView};

/// A 32-byte hash in internal byte order, as it was hashed (the reverse of how it is displayed).
pub type Hash32 = [u8; 32];

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use bytes::Bytes;

    /// A transaction without witness, different for each number.
    pub(crate) fn numbered(number: u32) -> Transaction {
        let mut bytes = vec![2, 0, 0, 0, 1];
        bytes.extend([7; 32]);
        bytes.extend(number.to_le_bytes());
        bytes.extend([0, 0xff, 0xff, 0xff, 0xff, 1]);
        bytes.extend([9; 8]);
        bytes.extend([1, 0x51, 0, 0, 0, 0]);
        Transaction::parse(Bytes::from(bytes)).expect("well formed")
    }
}
