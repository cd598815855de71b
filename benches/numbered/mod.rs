//! Transactions to fill a cache with. Not a bench: `benches/mempool.rs` and `benches/counts.rs` use it.

use blocktorrent::mempool::Transaction;
use bytes::Bytes;

/// A small transaction, different for each number.
pub fn numbered(number: u32) -> Transaction {
    let mut bytes = vec![2, 0, 0, 0, 1];
    bytes.extend([7; 32]);
    bytes.extend(number.to_le_bytes());
    bytes.extend([0, 0xff, 0xff, 0xff, 0xff, 1]);
    bytes.extend([9; 8]);
    bytes.extend([1, 0x51, 0, 0, 0, 0]);
    Transaction::parse(Bytes::from(bytes)).expect("well formed")
}
