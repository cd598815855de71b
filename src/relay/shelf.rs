//! Bytes that lie somewhere already.

use std::sync::Arc;

use bytes::Bytes;

use super::Engine;
use crate::mempool::Transaction;
use crate::merkle::Hash;

/// Where equal bytes may lie already. A process that holds many engines, as the simulator does, so keeps a block once for
/// all of them. What an engine does never depends on it: only what it keeps.
pub trait Shelf: Send + Sync {
    /// A transaction's serialization, by its wtxid in internal byte order.
    fn transaction(&self, wtxid: &Hash) -> Option<Bytes>;
    /// A block's serialization, by its hash in internal byte order.
    fn block(&self, hash: &Hash) -> Option<Bytes>;
}

impl Engine {
    /// Lets the engine look on a shelf before it keeps bytes of its own.
    pub fn set_shelf(&mut self, shelf: Arc<dyn Shelf>) {
        self.shelf = Some(shelf);
    }

    /// A transaction that came in, in the bytes in which it is to be kept.
    pub(super) fn shelved(&self, transaction: Transaction) -> Transaction {
        let shelf = self.shelf.as_deref();
        let bytes = shelf.and_then(|shelf| shelf.transaction(&transaction.wtxid()));
        match bytes.and_then(|bytes| transaction.kept_in(bytes)) {
            Some(kept) => kept,
            None => transaction,
        }
    }
}
