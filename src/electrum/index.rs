//! From a block, and what it spent, to the rows of the index.

use super::rows::{self, CHUNK, HEADER_BYTES, Row, TxNumber};
use super::script_hash::{ScriptHash, has_history};
use crate::chain::bitcoind::undo::{self, UndoError};
use crate::mempool::{OutPoint, TransactionError, TransactionView, view};
use crate::merkle::Hash;

/// Why a block has no rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// It is shorter than a header, or bytes follow its last transaction.
    #[error("the bytes are no block")]
    NoBlock,
    /// A transaction in it is none.
    #[error("a transaction of the block: {0}")]
    Transaction(#[from] TransactionError),
    /// What it spent is not readable.
    #[error("{0}")]
    Undo(#[from] UndoError),
    /// There are more transactions than four bytes can number.
    #[error("more transactions than this index can number")]
    TooMany,
}

/// Rows of some blocks, in no order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// For each script that a transaction pays or spends from. Twice where it does both.
    pub history: Vec<Row>,
    /// For each transaction.
    pub txids: Vec<Row>,
    /// Chunks of sizes with their keys.
    pub sizes: Vec<([u8; 6], Vec<u8>)>,
}

/// What a block made and spent, for those who watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Scripts that were paid or spent from, sorted.
    pub scripts: Vec<ScriptHash>,
    /// Ids of the transactions, in the block's order.
    pub txids: Vec<Hash>,
    /// All outputs of these transactions.
    pub made: Vec<OutPoint>,
    /// Outputs that were spent, in the block's order.
    pub spent: Vec<OutPoint>,
}

impl Rows {
    /// Adds those of a block whose first transaction has the number `first`; `spent` is the block's undo data. Gives the number of its
    /// transactions.
    ///
    /// # Errors
    ///
    /// If the bytes are no block, or the undo data none; some rows may have been added then.
    pub fn add(
        &mut self,
        height: u32,
        first: TxNumber,
        block: &[u8],
        spent: Option<&[u8]>,
    ) -> Result<u32, IndexError> {
        let mut body = block.get(HEADER_BYTES..).ok_or(IndexError::NoBlock)?;
        let count = view::transaction_count(&mut body)?;
        if first.checked_add(count).is_none() {
            return Err(IndexError::TooMany);
        }
        let mut sizes = Vec::with_capacity(CHUNK as usize);
        let mut offset = (block.len() - body.len()) as u32;
        for position in 0..count {
            let transaction = TransactionView::parse_front(&mut body)?;
            let number = first + position;
            let prefix = rows::txid_prefix(&transaction.txid());
            self.txids.push(rows::row(prefix, number));
            // The outputs of the genesis block can't be spent, and no server tells of them.
            let outputs = transaction.outputs().filter(|_| height > 0);
            for output in outputs.filter(|output| has_history(output.script)) {
                self.add_script(output.script, number);
            }
            sizes.push(transaction.bytes().len() as u32);
            if sizes.len() == CHUNK as usize || position + 1 == count {
                let key = rows::sizes_key(height, position);
                self.sizes.push((key, rows::encode_sizes(offset, &sizes)));
                offset += sizes.iter().sum::<u32>();
                sizes.clear();
            }
        }
        if !body.is_empty() {
            return Err(IndexError::NoBlock);
        }
        if let Some(spent) = spent {
            undo::read(spent, |place, script| {
                self.add_script(script, first.wrapping_add(place as u32));
            })?;
        }
        Ok(count)
    }

    fn add_script(&mut self, script: &[u8], number: TxNumber) {
        let prefix = ScriptHash::of(script).prefix();
        self.history.push(rows::row(prefix, number));
    }

    /// Puts them in the order of their keys, each once.
    pub fn sort(&mut self) {
        for rows in [&mut self.history, &mut self.txids] {
            rows.sort_unstable();
            rows.dedup();
        }
    }
}

impl Touched {
    /// That of one block.
    ///
    /// # Errors
    ///
    /// As [`Rows::add`].
    pub fn of(block: &[u8], undo: Option<&[u8]>) -> Result<Self, IndexError> {
        let mut touched = Self::default();
        let mut body = block.get(HEADER_BYTES..).ok_or(IndexError::NoBlock)?;
        for _ in 0..view::transaction_count(&mut body)? {
            let transaction = TransactionView::parse_front(&mut body)?;
            let txid = transaction.txid();
            touched.txids.push(txid);
            let outputs = (0..).zip(transaction.outputs());
            let made = outputs.map(|(index, _)| OutPoint { txid, index });
            touched.made.extend(made);
            if !transaction.is_coinbase() {
                touched.spent.extend(transaction.spends());
            }
            let scripts = transaction.outputs().map(|output| output.script);
            let scripts = scripts.filter(|script| has_history(script));
            touched.scripts.extend(scripts.map(ScriptHash::of));
        }
        if let Some(undo) = undo {
            undo::read(undo, |_, script| {
                touched.scripts.push(ScriptHash::of(script))
            })?;
        }
        touched.scripts.sort_unstable();
        touched.scripts.dedup();
        Ok(touched)
    }
}
