//! Transactions and histories read back: the rows say which and where, the node's files have the bytes.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use fjall::Readable as _;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::{Store, StoreError, View};
use crate::chain::bitcoind::blockfiles::BlockFiles;
use crate::chain::bitcoind::undo;
use crate::electrum::history::History;
use crate::electrum::rows::{self, TxNumber};
use crate::electrum::script_hash::ScriptHash;
use crate::mempool::view::transaction_count;
use crate::mempool::{OutPoint, TransactionError, TransactionView};
use crate::merkle::Hash;

/// Transactions that are looked at before others get their turn: some tens of milliseconds of work.
pub const SLICE: usize = 1_000;

/// Transactions of the shortest history that is kept: shorter ones are read again as fast as they are found.
const LEAST_CACHED: usize = 8;

/// Something could not be looked up.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The index fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A block can't be read where it was.
    #[error("block {height} cannot be read from the node's files: {error}")]
    Block {
        /// Its height.
        height: u32,
        /// Why.
        error: io::Error,
    },
    /// Where a block was, something else is.
    #[error("a transaction of block {height}, as it stands in the node's files: {error}")]
    Transaction {
        /// The block's height.
        height: u32,
        /// What is wrong with it.
        error: TransactionError,
    },
}

/// A transaction of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its number.
    pub number: TxNumber,
    /// Its block's height.
    pub height: u32,
    /// Its place there.
    pub position: u32,
    /// As serialized.
    pub bytes: Vec<u8>,
}

/// Reads index and blocks together.
#[derive(Debug)]
pub struct Lookup {
    store: Store,
    files: Arc<BlockFiles>,
    histories: Cache<ScriptHash, Arc<History>, Weight>,
}

#[derive(Clone, Debug)]
struct Weight;

impl Weighter<ScriptHash, Arc<History>> for Weight {
    fn weight(&self, _: &ScriptHash, history: &Arc<History>) -> u64 {
        history.memory() as u64
    }
}

impl Lookup {
    /// Histories that took long to read are kept in `cache_bytes` of memory.
    pub fn new(store: Store, files: Arc<BlockFiles>, cache_bytes: u64) -> Self {
        let about = (cache_bytes / 4_096) as usize;
        Self {
            store,
            files,
            histories: Cache::with_weighter(about, cache_bytes, Weight),
        }
    }

    /// The index.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The transaction of a number.
    ///
    /// # Errors
    ///
    /// If rows or the node's files can't be read.
    pub fn transaction(&self, view: &View, number: TxNumber) -> Result<Option<Found>, LookupError> {
        let Some((height, position)) = view.chain.place_of(number) else {
            return Ok(None);
        };
        let Some(block) = self.store.block(view, height)? else {
            return Ok(None);
        };
        let (offset, size) = self.store.size_of(view, height, position)?;
        let place = block.place.ok_or_else(|| LookupError::Block {
            height,
            error: io::ErrorKind::NotFound.into(),
        })?;
        let bytes = self
            .files
            .read(place, offset, size as usize)
            .map_err(|error| LookupError::Block { height, error })?;
        Ok(Some(Found {
            number,
            height,
            position,
            bytes,
        }))
    }

    /// The transaction with this id; the first, if there are two: that is so of two coinbases of the year 2010.
    ///
    /// # Errors
    ///
    /// As [`Lookup::transaction`].
    pub fn find(&self, view: &View, txid: &Hash) -> Result<Option<Found>, LookupError> {
        for number in self.store.numbers_of_txid(view, txid)? {
            if let Some(found) = self.transaction(view, number)?
                && parse(&found)?.txid() == *txid
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The ids of all transactions of a block.
    ///
    /// # Errors
    ///
    /// As [`Lookup::transaction`].
    pub fn txids(&self, view: &View, height: u32) -> Result<Vec<Hash>, LookupError> {
        let Some(block) = self.store.block(view, height)? else {
            return Ok(Vec::new());
        };
        let failed = |error| LookupError::Block { height, error };
        let place = block
            .place
            .ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let bytes = self
            .files
            .read(place, 0, block.size as usize)
            .map_err(failed)?;
        let mut body = bytes.get(rows::HEADER_BYTES..).unwrap_or_default();
        let wrong = |error| LookupError::Transaction { height, error };
        let count = transaction_count(&mut body).map_err(wrong)?;
        let one = |_| TransactionView::parse_front(&mut body).map(|one| one.txid());
        (0..count).map(one).collect::<Result<_, _>>().map_err(wrong)
    }

    /// Whether undo data are those of a block on top of the index: each script in them is that of the output that the block spends.
    ///
    /// # Errors
    ///
    /// As [`Lookup::transaction`].
    pub fn is_undo_of(&self, block: &[u8], undo: &[u8]) -> Result<bool, LookupError> {
        let view = self.store.view();
        let height = view.chain.len();
        let wrong = |error| LookupError::Transaction { height, error };
        let mut body = block.get(rows::HEADER_BYTES..).unwrap_or_default();
        let mut own = BTreeMap::new();
        let mut spends = Vec::new();
        for _ in 0..transaction_count(&mut body).map_err(wrong)? {
            let transaction = TransactionView::parse_front(&mut body).map_err(wrong)?;
            own.insert(transaction.txid(), transaction);
            if !transaction.is_coinbase() {
                spends.extend(transaction.spends());
            }
        }
        let mut scripts = Vec::new();
        if undo::read(undo, |_, script| scripts.push(ScriptHash::of(script))).is_err()
            || scripts.len() != spends.len()
        {
            return Ok(false);
        }
        let script_of = |transaction: &TransactionView<'_>, index: u32| {
            let output = transaction.outputs().nth(index as usize);
            output.map(|output| ScriptHash::of(output.script))
        };
        for (spent, script) in spends.iter().zip(scripts) {
            let found = match own.get(&spent.txid) {
                Some(transaction) => script_of(transaction, spent.index),
                None => match self.find(&view, &spent.txid)? {
                    Some(found) => script_of(&parse(&found)?, spent.index),
                    None => None,
                },
            };
            if found != Some(script) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What is kept of a script's history, if anything that still holds; [`Lookup::extend`] brings it to the tip.
    pub fn begin(&self, view: &View, script: &ScriptHash) -> Arc<History> {
        let kept = self.histories.get(script);
        let kept = kept.filter(|history| history.holds_in(&view.chain));
        kept.unwrap_or_default()
    }

    /// Looks at up to [`SLICE`] further transactions of a script. Whether all are seen; and how many were looked at.
    ///
    /// # Errors
    ///
    /// As [`Lookup::transaction`].
    pub fn extend(
        &self,
        view: &View,
        script: &ScriptHash,
        history: &mut Arc<History>,
    ) -> Result<(bool, usize), LookupError> {
        let end = view.chain.transactions();
        // Others may have got further with the same script meanwhile.
        let kept = self.begin(view, script);
        if kept.next() > history.next() {
            *history = kept;
        }
        if history.next() >= end {
            return Ok((true, 0));
        }
        let numbers = self
            .store
            .numbers_of_script(view, script, history.next(), SLICE)?;
        let is_last = numbers.len() < SLICE;
        let looked_at = numbers.len();
        if looked_at == 0 && history.is_empty() {
            return Ok((true, 0));
        }
        let extended = Arc::make_mut(history);
        for number in numbers {
            if let Some(found) = self.transaction(view, number)? {
                extended.add(script, number, found.height, &parse(&found)?);
            }
        }
        if is_last {
            extended.advance(end);
        }
        extended.anchor(&view.chain);
        // What is half-way is kept at each doubling, so that copies cost no more than the reading.
        let kept = self.histories.peek(script).map_or(0, |kept| kept.len());
        if history.len() >= LEAST_CACHED.max(if is_last { 0 } else { kept * 2 }) {
            self.histories.insert(*script, Arc::clone(history));
        }
        Ok((is_last, looked_at))
    }

    /// Who spends an output of a script that the transaction `from` made: its id and height.
    ///
    /// # Errors
    ///
    /// As [`Lookup::transaction`].
    pub fn spender(
        &self,
        view: &View,
        script: &ScriptHash,
        from: TxNumber,
        outpoint: &OutPoint,
    ) -> Result<Option<(Hash, u32)>, LookupError> {
        let mut next = from.saturating_add(1);
        loop {
            let numbers = self.store.numbers_of_script(view, script, next, SLICE)?;
            for number in &numbers {
                let Some(found) = self.transaction(view, *number)? else {
                    continue;
                };
                let transaction = parse(&found)?;
                if transaction.spends().any(|spent| spent == *outpoint) {
                    return Ok(Some((transaction.txid(), found.height)));
                }
            }
            match numbers.last() {
                Some(last) if numbers.len() == SLICE => next = last.saturating_add(1),
                _ => return Ok(None),
            }
        }
    }
}

/// A transaction as it was found.
pub fn parse(found: &Found) -> Result<TransactionView<'_>, LookupError> {
    TransactionView::parse(&found.bytes).map_err(|error| LookupError::Transaction {
        height: found.height,
        error,
    })
}

impl Store {
    /// Where the transaction at `position` lies in its block: offset and size in bytes.
    fn size_of(&self, view: &View, height: u32, position: u32) -> Result<(u32, u32), StoreError> {
        let key = rows::sizes_key(height, position);
        let chunk = self.wrap(view.snapshot.get(&self.0.sizes, key))?;
        let found = chunk.and_then(|chunk| rows::find_size(&chunk, position));
        found.ok_or_else(|| self.damaged(format!("the sizes in block {height}")))
    }

    fn numbers_of_txid(&self, view: &View, txid: &Hash) -> Result<Vec<TxNumber>, StoreError> {
        let prefix = rows::txid_prefix(txid);
        let rows = view.snapshot.prefix(&self.0.txids, prefix);
        rows.map(|guard| self.number(guard)).collect()
    }

    /// At most `limit` transactions that may concern a script, from one on.
    fn numbers_of_script(
        &self,
        view: &View,
        script: &ScriptHash,
        from: TxNumber,
        limit: usize,
    ) -> Result<Vec<TxNumber>, StoreError> {
        let prefix = script.prefix();
        let range = rows::row(prefix, from)..=rows::row(prefix, TxNumber::MAX);
        let rows = view.snapshot.range(&self.0.history, range);
        rows.take(limit).map(|guard| self.number(guard)).collect()
    }

    fn number(&self, guard: fjall::Guard) -> Result<TxNumber, StoreError> {
        let key = self.wrap(guard.key())?;
        rows::number_of(&key).ok_or_else(|| self.damaged("a key of the wrong length".into()))
    }
}
