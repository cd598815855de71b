//! Settles what the node tells: a block's step changes chain and mempool at once, and the mempool goes by the node's word.
//!
//! The node's word on the mempool may be late: a block is here before the news that came before it, or the mempool is already
//! without what a block took that is not here yet. So what lacks something waits, and what a block has is not taken for unconfirmed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::View;
use super::answer::Data;
use super::follow::Step;
use super::lookup::{LookupError, parse};
use crate::electrum::mempool::{Coin, NotAdded, Touched};
use crate::electrum::query::Change;
use crate::electrum::script_hash::ScriptHash;
use crate::mempool::{OutPoint, TransactionView};
use crate::merkle::Hash;

/// Transactions that wait for another one, on whose outputs they build. Reason: the node tells of parents first, so these are few;
/// beyond it the oldest are dropped, and come with the next list.
const MAX_WAITING: usize = 10_000;

/// The only one who changes [`Data`].
#[derive(Debug)]
pub struct Settler {
    data: Arc<Data>,
    /// Transactions that came before what they spend.
    waiting: VecDeque<(Hash, Bytes)>,
}

impl Settler {
    /// Nothing waits yet.
    pub fn new(data: Arc<Data>) -> Self {
        Self {
            data,
            waiting: VecDeque::new(),
        }
    }

    /// What it changes.
    pub fn data(&self) -> &Arc<Data> {
        &self.data
    }

    /// Changes chain and mempool together; `view` is the chain behind the step.
    pub fn step(&mut self, view: Arc<View>, step: &Step, touched: &mut Touched) {
        let mut state = self.data.change();
        state.view = view;
        let (block, above) = match step {
            Step::Added(_, block) => {
                state.mempool.confirm(&block.txids, &block.spent, touched);
                (block, Vec::new())
            }
            Step::Removed(_, block) => (block, state.mempool.unconfirm(&block.txids, touched)),
        };
        drop(state);
        if matches!(step, Step::Added(..)) && !self.waiting.is_empty() {
            let txids: BTreeSet<Hash> = block.txids.iter().copied().collect();
            self.waiting.retain(|(txid, _)| !txids.contains(txid));
        }
        for (txid, transaction) in above {
            self.wait(txid, transaction);
        }
        touched.scripts.extend(&block.scripts);
        touched
            .outpoints
            .extend(block.spent.iter().chain(&block.made));
    }

    /// The node has these in its mempool.
    pub fn add(&mut self, transactions: Vec<Bytes>, touched: &mut Touched) {
        let mut are_new = false;
        for transaction in transactions {
            are_new |= self.add_one(transaction, touched);
        }
        if are_new {
            self.add_waiting(touched);
        }
    }

    /// Tries once more those that lacked something, until none finds what it lacks: after blocks, too.
    pub fn add_waiting(&mut self, touched: &mut Touched) {
        loop {
            let before = self.waiting.len();
            for (_, transaction) in std::mem::take(&mut self.waiting) {
                self.add_one(transaction, touched);
            }
            if self.waiting.len() >= before {
                return;
            }
        }
    }

    /// The node no longer has these in its mempool. What builds on them it would have named, too, if they were not in a block.
    pub fn demote(&mut self, txids: &BTreeSet<Hash>, touched: &mut Touched) {
        self.waiting.retain(|(txid, _)| !txids.contains(txid));
        for txid in txids {
            let above = self.data.change().mempool.remove(txid, touched);
            for (child, transaction) in above {
                if !txids.contains(&child) {
                    self.wait(child, transaction);
                }
            }
        }
    }

    /// The node has these in its mempool and no others.
    pub fn keep(&mut self, listed: &BTreeSet<Hash>, touched: &mut Touched) {
        self.waiting.retain(|(txid, _)| listed.contains(txid));
        let here = self.data.state().mempool.txids();
        let gone: BTreeSet<Hash> = here.difference(listed).copied().collect();
        self.demote(&gone, touched);
    }

    /// What is to be told; `None` if nobody has to be told anything.
    pub fn change(&self, touched: Touched, has_tip: bool) -> Option<Change> {
        if touched.scripts.is_empty() && touched.outpoints.is_empty() && !has_tip {
            return None;
        }
        let tip = match self.data.tip() {
            Ok(tip) => tip.filter(|_| has_tip),
            Err(error) => {
                tracing::error!(%error, "the tip can't be read from the index");
                None
            }
        };
        let outpoints = touched.outpoints.into_iter();
        Some(Change {
            tip,
            scripts: touched.scripts.into_iter().collect(),
            outpoints: outpoints.map(|one| (one.txid, one.index)).collect(),
        })
    }

    /// Whether it is in the mempool now and was not before.
    fn add_one(&mut self, transaction: Bytes, touched: &mut Touched) -> bool {
        let Ok(outside) = self.data.state().mempool.spends_outside(&transaction) else {
            return false;
        };
        let view = Arc::clone(&self.data.state().view);
        let confirmed = match coins(&self.data, &view, outside) {
            Ok(confirmed) => confirmed,
            Err(error) => {
                tracing::error!(%error, "what a transaction of the mempool spends can't be looked up");
                return false;
            }
        };
        let added = self
            .data
            .change()
            .mempool
            .add(transaction.clone(), &confirmed, touched);
        if let Err(NotAdded::Lacking(_)) = added
            && let Ok(view) = TransactionView::parse(&transaction)
        {
            self.wait(view.txid(), transaction.clone());
        }
        added.is_ok()
    }

    fn wait(&mut self, txid: Hash, transaction: Bytes) {
        if self.waiting.len() >= MAX_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back((txid, transaction));
    }
}

/// Confirmed outputs that a transaction spends.
fn coins(
    data: &Data,
    view: &View,
    outside: Vec<OutPoint>,
) -> Result<BTreeMap<OutPoint, Coin>, LookupError> {
    let mut coins = BTreeMap::new();
    for outpoint in outside {
        let Some(found) = data.lookup().find(view, &outpoint.txid)? else {
            continue;
        };
        let output = parse(&found)?.outputs().nth(outpoint.index as usize);
        coins.extend(output.map(|output| {
            let script = ScriptHash::of(output.script);
            let value = output.value;
            (outpoint, Coin { script, value })
        }));
    }
    Ok(coins)
}
