//! Cutting a serialized block into its header and its transactions.

use bytes::Bytes;

use super::scan::{MIN_TRANSACTION_BYTES, Scanner};
use super::transaction::{Transaction, TransactionError};

/// What a block may be at most, as the network's parameters say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLimits {
    /// Serialized size in bytes, header and witness included.
    pub max_bytes: usize,
    /// Count of transactions, the coinbase included.
    pub max_transactions: usize,
}

/// Why bytes are not a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// Longer than [`BlockLimits::max_bytes`].
    #[error("block too large")]
    TooLarge,
    /// The bytes end within the header or the count, or the count says more than they can hold.
    #[error("block ends early")]
    Truncated,
    /// The count of transactions is not in its shortest form.
    #[error("transaction count not in its shortest form")]
    NonMinimalCount,
    /// The count is zero.
    #[error("block without transactions")]
    Empty,
    /// More than [`BlockLimits::max_transactions`].
    #[error("too many transactions")]
    TooMany,
    /// The transaction at this index is malformed.
    #[error("transaction {index}: {error}")]
    Transaction {
        /// Counted from the coinbase, which is 0.
        index: usize,
        /// What is wrong with it.
        error: TransactionError,
    },
    /// Bytes follow the last transaction.
    #[error("bytes after the block")]
    Trailing,
}

/// Cuts a serialized block into its header and its transactions, which share the buffer of `block`.
///
/// Strict: sizes in their shortest form, at least one transaction, nothing after the last one. Nothing is
/// checked that takes hashing across transactions: not the merkle root, not that the first one is a coinbase.
pub fn split_block(
    block: Bytes,
    limits: BlockLimits,
) -> Result<([u8; 80], Vec<Transaction>), BlockError> {
    if block.len() > limits.max_bytes {
        return Err(BlockError::TooLarge);
    }
    let (header, body) = block
        .split_first_chunk::<80>()
        .ok_or(BlockError::Truncated)?;
    let header = *header;
    let mut scanner = Scanner::new(body);
    let count = scanner.compact_size().map_err(|error| match error {
        TransactionError::NonMinimalSize => BlockError::NonMinimalCount,
        _ => BlockError::Truncated,
    })?;
    let count = usize::try_from(count).map_err(|_| BlockError::TooMany)?;
    if count == 0 {
        return Err(BlockError::Empty);
    }
    if count > limits.max_transactions {
        return Err(BlockError::TooMany);
    }
    if count > scanner.rest().len() / MIN_TRANSACTION_BYTES {
        return Err(BlockError::Truncated);
    }
    let mut rest = block.slice_ref(scanner.rest());
    let mut transactions = Vec::with_capacity(count);
    for index in 0..count {
        let transaction = Transaction::parse_front(&mut rest)
            .map_err(|error| BlockError::Transaction { index, error })?;
        transactions.push(transaction);
    }
    if !rest.is_empty() {
        return Err(BlockError::Trailing);
    }
    Ok((header, transactions))
}
