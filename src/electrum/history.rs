//! All of a script's confirmed transactions, read in the order of the chain.
//!
//! The index names transactions that may concern a script; each is looked at once, and tells what it pays the script and
//! which of the outputs before it spends. Status, history, unspent outputs and balance are what is left behind, and a new block
//! goes on from there.

use std::collections::BTreeMap;

use super::chain::Chain;
use super::query::{HistoryItem, Place, UnspentItem};
use super::rows::TxNumber;
use super::script_hash::ScriptHash;
use super::status::{Confirmed, Unconfirmed};
use crate::mempool::{OutPoint, TransactionView};
use crate::merkle::Hash;

/// What is known of a script after the last transaction that was looked at.
#[derive(Clone, Debug, Default)]
pub struct History {
    status: Confirmed,
    transactions: Vec<(Hash, u32)>,
    unspent: BTreeMap<OutPoint, Unspent>,
    balance: u64,
    next: TxNumber,
    /// The block in which the last transaction is that was looked at: height and hash.
    anchor: Option<(u32, Hash)>,
}

/// An output that was not spent yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unspent {
    number: TxNumber,
    height: u32,
    value: u64,
}

impl History {
    /// The number of the next transaction that may be added: those before it have been looked at.
    pub fn next(&self) -> TxNumber {
        self.next
    }

    /// Says that all transactions before this number have been looked at.
    pub fn advance(&mut self, next: TxNumber) {
        self.next = self.next.max(next);
    }

    /// Notes the block up to which this is the history in a chain.
    pub fn anchor(&mut self, chain: &Chain) {
        let last = self.next.checked_sub(1);
        self.anchor = last.and_then(|last| {
            let (height, _) = chain.place_of(last)?;
            Some((height, chain.hash_at(height)?))
        });
    }

    /// Whether this is the history in a chain, as far as it goes.
    pub fn holds_in(&self, chain: &Chain) -> bool {
        let same = |(height, hash)| chain.hash_at(height) == Some(hash);
        self.anchor.is_none_or(same)
    }

    /// Looks at a transaction, which must come behind all before it. Whether it concerns the script; if not, its first
    /// eight bytes are another's too.
    pub fn add(
        &mut self,
        script: &ScriptHash,
        number: TxNumber,
        height: u32,
        transaction: &TransactionView<'_>,
    ) -> bool {
        let txid = transaction.txid();
        let mut concerns = false;
        for spent in transaction.spends() {
            if let Some(output) = self.unspent.remove(&spent) {
                concerns = true;
                self.balance -= output.value;
            }
        }
        for (index, output) in (0..).zip(transaction.outputs()) {
            if ScriptHash::of(output.script) != *script {
                continue;
            }
            concerns = true;
            self.balance = self.balance.saturating_add(output.value);
            let unspent = Unspent {
                number,
                height,
                value: output.value,
            };
            self.unspent.insert(OutPoint { txid, index }, unspent);
        }
        if concerns {
            self.status.extend(&txid, height);
            self.transactions.push((txid, height));
        }
        self.next = self.next.max(number.saturating_add(1));
        concerns
    }

    /// How many transactions there are.
    pub fn len(&self) -> usize {
        self.transactions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }

    /// In satoshis, what is unspent.
    pub fn balance(&self) -> u64 {
        self.balance
    }

    /// Bytes of memory that it takes, about: 36 for each transaction, and 80 for each unspent output.
    pub fn memory(&self) -> usize {
        256 + self.transactions.capacity() * 36 + self.unspent.len() * 80
    }

    /// The status, with what the mempool has on top.
    pub fn status(&self, mempool: &mut [(Hash, Unconfirmed)]) -> Option<[u8; 32]> {
        self.status.status(mempool)
    }

    /// The transactions in the order of the chain.
    pub fn items(&self) -> impl Iterator<Item = HistoryItem> {
        self.transactions.iter().map(|&(txid, height)| HistoryItem {
            txid,
            place: Place::Block(height),
            fee: None,
        })
    }

    /// The unspent outputs in the order of the chain.
    pub fn unspent(&self) -> Vec<UnspentItem> {
        let mut list: Vec<_> = self.unspent.iter().collect();
        list.sort_unstable_by_key(|(outpoint, unspent)| (unspent.number, outpoint.index));
        list.into_iter()
            .map(|(outpoint, unspent)| UnspentItem {
                txid: outpoint.txid,
                index: outpoint.index,
                height: unspent.height,
                value: unspent.value,
            })
            .collect()
    }
}
