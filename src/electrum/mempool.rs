//! The mempool as light clients ask for it: by script, with fees, and with what spends what.
//!
//! The node decides what is in it. Here each transaction has what it spends beside it, from other transactions here or from the
//! index, so that no question needs more than this.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::query::{HistoryItem, MAX_RECENT, Place, RecentItem, UnspentItem};
use super::script_hash::{ScriptHash, has_history};
use super::status::Unconfirmed;
use crate::mempool::{OutPoint, TransactionError, TransactionView};
use crate::merkle::Hash;

/// Bytes of transactions at most. Reason: bitcoind keeps 300 MB of memory by default, of which transactions are a third; beyond
/// this bound clients see those that came first.
const MAX_BYTES: usize = 512 << 20;

/// Virtual bytes of the first step of the fee histogram, and by how much each is larger than the one before. Reason: the steps near
/// the top tell what the next block costs; ElectrumX has them so, and clients that ask several servers see the same.
const FIRST_STEP: f64 = 30_000.0;
const STEP_GROWTH: f64 = 1.1;

/// Blocks whose spent outputs are remembered. Reason: what is told of the mempool may be some seconds behind the blocks, and
/// reorganisations bring some blocks at once; bitcoind's own notifications tell of a block's transactions as well.
const MAX_RECENT_BLOCKS: usize = 12;

/// An output that a transaction of the mempool spends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coin {
    /// Whose it was.
    pub script: ScriptHash,
    /// In satoshis.
    pub value: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    bytes: Bytes,
    spends: Vec<(OutPoint, Coin)>,
    /// `None` for what pays nobody.
    outputs: Vec<Option<Coin>>,
    fee: u64,
    vsize: u64,
    arrival: u64,
}

/// Why a transaction was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAdded {
    /// It is there.
    Known,
    /// Its bytes are no transaction.
    Malformed(TransactionError),
    /// These outputs that it spends are neither here nor were they given.
    Lacking(Vec<OutPoint>),
    /// One of the latest blocks spends the same: it is in that block, or can be in none.
    Spent,
    /// There is no room.
    Full,
}

/// What has to be told to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Scripts with another history, or with a transaction of another height.
    pub scripts: BTreeSet<ScriptHash>,
    /// Outputs that were made or spent, or whose maker or spender has another height.
    pub outpoints: BTreeSet<OutPoint>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Mempool {
    entries: BTreeMap<Hash, Entry>,
    scripts: BTreeMap<ScriptHash, BTreeSet<Hash>>,
    spenders: BTreeMap<OutPoint, Hash>,
    arrivals: BTreeMap<u64, Hash>,
    next_arrival: u64,
    bytes: usize,
    /// What the latest blocks spent, the last at the back.
    spent: VecDeque<BTreeSet<OutPoint>>,
}

impl Mempool {
    /// Transactions in it.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a transaction is in it.
    pub fn contains(&self, txid: &Hash) -> bool {
        self.entries.contains_key(txid)
    }

    /// The ids of all transactions.
    pub fn txids(&self) -> BTreeSet<Hash> {
        self.entries.keys().copied().collect()
    }

    /// A transaction as serialized.
    pub fn transaction(&self, txid: &Hash) -> Option<&Bytes> {
        self.entries.get(txid).map(|entry| &entry.bytes)
    }

    /// What a transaction spends that is not in the mempool: [`Mempool::add`] is to be given these outputs.
    ///
    /// # Errors
    ///
    /// If the bytes are no transaction.
    pub fn spends_outside(&self, transaction: &[u8]) -> Result<Vec<OutPoint>, TransactionError> {
        let view = TransactionView::parse(transaction)?;
        let spends = view.spends();
        Ok(spends
            .filter(|spent| !self.entries.contains_key(&spent.txid))
            .collect())
    }

    /// Takes a transaction in; one that spends the same outputs goes, with all that builds on it. `confirmed` are outputs of the
    /// chain that it spends.
    ///
    /// # Errors
    ///
    /// See [`NotAdded`].
    pub fn add(
        &mut self,
        bytes: Bytes,
        confirmed: &BTreeMap<OutPoint, Coin>,
        touched: &mut Touched,
    ) -> Result<(), NotAdded> {
        let view = TransactionView::parse(&bytes).map_err(NotAdded::Malformed)?;
        let txid = view.txid();
        if self.contains(&txid) {
            return Err(NotAdded::Known);
        }
        if self.bytes + bytes.len() > MAX_BYTES {
            return Err(NotAdded::Full);
        }
        let is_spent = |spent| self.spent.iter().any(|block| block.contains(&spent));
        if view.spends().any(is_spent) {
            return Err(NotAdded::Spent);
        }
        let mut spends = Vec::new();
        let mut lacking = Vec::new();
        for spent in view.spends() {
            match self.output(&spent).or(confirmed.get(&spent).copied()) {
                Some(coin) => spends.push((spent, coin)),
                None => lacking.push(spent),
            }
        }
        if !lacking.is_empty() {
            return Err(NotAdded::Lacking(lacking));
        }
        let outputs = view.outputs().map(|output| {
            has_history(output.script).then(|| Coin {
                script: ScriptHash::of(output.script),
                value: output.value,
            })
        });
        let paid = view
            .outputs()
            .fold(0u64, |sum, output| sum.saturating_add(output.value));
        let had = spends
            .iter()
            .fold(0u64, |sum, (_, coin)| sum.saturating_add(coin.value));
        let entry = Entry {
            spends,
            outputs: outputs.collect(),
            fee: had.saturating_sub(paid),
            vsize: view.weight().div_ceil(4),
            arrival: self.next_arrival,
            bytes: Bytes::copy_from_slice(&bytes),
        };
        for (spent, _) in &entry.spends {
            if let Some(rival) = self.spenders.get(spent).copied() {
                self.remove(&rival, touched);
            }
        }
        self.next_arrival += 1;
        self.insert(txid, entry, touched);
        Ok(())
    }

    fn insert(&mut self, txid: Hash, entry: Entry, touched: &mut Touched) {
        touch(&txid, &entry, touched);
        self.bytes += entry.bytes.len();
        for script in scripts_of(&entry) {
            self.scripts.entry(script).or_default().insert(txid);
        }
        for (spent, _) in &entry.spends {
            self.spenders.insert(*spent, txid);
        }
        self.arrivals.insert(entry.arrival, txid);
        self.entries.insert(txid, entry);
        // Those that build on it came before it, if the node told of them in another order.
        self.touch_children(&txid, touched);
    }

    /// Takes a transaction away, and all that builds on it, which is given back: it may only be that what it builds on is known to be
    /// in a block by the node, and not yet here.
    pub fn remove(&mut self, txid: &Hash, touched: &mut Touched) -> Vec<(Hash, Bytes)> {
        let mut above = Vec::new();
        if self.contains(txid) {
            self.remove_children(txid, &mut above, touched);
            self.take(txid, touched);
        }
        above
    }

    fn remove_children(
        &mut self,
        txid: &Hash,
        above: &mut Vec<(Hash, Bytes)>,
        touched: &mut Touched,
    ) {
        let mut waiting = self.children(txid);
        while let Some(child) = waiting.pop() {
            waiting.extend(self.children(&child));
            let bytes = self.transaction(&child).cloned();
            above.extend(bytes.map(|bytes| (child, bytes)));
            self.take(&child, touched);
        }
    }

    /// Takes away what a block has, and what spends the same outputs as it. What builds on its transactions stays, at another
    /// height.
    pub fn confirm(&mut self, txids: &[Hash], spent: &[OutPoint], touched: &mut Touched) {
        for txid in txids {
            self.touch_children(txid, touched);
            self.take(txid, touched);
        }
        for spent in spent {
            if let Some(rival) = self.spenders.get(spent).copied() {
                self.remove(&rival, touched);
            }
        }
        if self.spent.len() == MAX_RECENT_BLOCKS {
            self.spent.pop_front();
        }
        self.spent.push_back(spent.iter().copied().collect());
    }

    /// Says that the last block, which had these transactions, is not in the chain any more. What builds on them is given back: it
    /// may come again once they are in the mempool.
    pub fn unconfirm(&mut self, txids: &[Hash], touched: &mut Touched) -> Vec<(Hash, Bytes)> {
        self.spent.pop_back();
        let mut above = Vec::new();
        for txid in txids {
            if self.contains(txid) {
                self.touch_children(txid, touched);
            } else {
                self.remove_children(txid, &mut above, touched);
            }
        }
        above
    }

    fn take(&mut self, txid: &Hash, touched: &mut Touched) {
        let Some(entry) = self.entries.remove(txid) else {
            return;
        };
        touch(txid, &entry, touched);
        self.bytes -= entry.bytes.len();
        self.arrivals.remove(&entry.arrival);
        for script in scripts_of(&entry) {
            if let Some(list) = self.scripts.get_mut(&script) {
                list.remove(txid);
                if list.is_empty() {
                    self.scripts.remove(&script);
                }
            }
        }
        for (spent, _) in &entry.spends {
            if self.spenders.get(spent) == Some(txid) {
                self.spenders.remove(spent);
            }
        }
    }

    fn children(&self, txid: &Hash) -> Vec<Hash> {
        let [first, last] = [0, u32::MAX].map(|index| OutPoint { txid: *txid, index });
        self.spenders
            .range(first..=last)
            .map(|(_, child)| *child)
            .collect()
    }

    fn touch_children(&self, txid: &Hash, touched: &mut Touched) {
        for child in self.children(txid) {
            if let Some(entry) = self.entries.get(&child) {
                touch(&child, entry, touched);
            }
        }
    }

    /// An output of a transaction in it.
    pub fn output(&self, outpoint: &OutPoint) -> Option<Coin> {
        let entry = self.entries.get(&outpoint.txid)?;
        *entry.outputs.get(outpoint.index as usize)?
    }

    /// Whether a transaction in it has this output, be it one that pays nobody.
    pub fn has_output(&self, outpoint: &OutPoint) -> bool {
        let entry = self.entries.get(&outpoint.txid);
        entry.is_some_and(|entry| (outpoint.index as usize) < entry.outputs.len())
    }

    /// Which transaction in it spends an output.
    pub fn spender(&self, outpoint: &OutPoint) -> Option<Hash> {
        self.spenders.get(outpoint).copied()
    }

    /// Whether all that a transaction spends is confirmed; `None` if it is not here.
    pub fn place(&self, txid: &Hash) -> Option<Unconfirmed> {
        self.entries.get(txid).map(|entry| self.place_of(entry))
    }

    fn place_of(&self, entry: &Entry) -> Unconfirmed {
        let here = |(spent, _): &(OutPoint, Coin)| self.entries.contains_key(&spent.txid);
        match entry.spends.iter().any(here) {
            true => Unconfirmed::OnUnconfirmed,
            false => Unconfirmed::OnConfirmed,
        }
    }

    fn of_script(&self, script: &ScriptHash) -> impl Iterator<Item = (&Hash, &Entry)> {
        let txids = self.scripts.get(script).into_iter().flatten();
        txids.filter_map(|txid| Some((txid, self.entries.get(txid)?)))
    }

    /// A script's transactions for its status, in no order.
    pub fn statuses(&self, script: &ScriptHash) -> Vec<(Hash, Unconfirmed)> {
        let list = self.of_script(script);
        list.map(|(txid, entry)| (*txid, self.place_of(entry)))
            .collect()
    }

    /// A script's transactions in the order of the protocol.
    pub fn history(&self, script: &ScriptHash) -> Vec<HistoryItem> {
        let mut order = self.statuses(script);
        super::status::sort_mempool(&mut order);
        let item = |(txid, unconfirmed): (Hash, Unconfirmed)| HistoryItem {
            txid,
            place: Place::Mempool(unconfirmed),
            fee: self.entries.get(&txid).map(|entry| entry.fee),
        };
        order.into_iter().map(item).collect()
    }

    /// What the mempool adds to a script's balance, or takes, in satoshis.
    pub fn balance(&self, script: &ScriptHash) -> i64 {
        let mut balance = 0i64;
        for (_, entry) in self.of_script(script) {
            for coin in entry
                .outputs
                .iter()
                .flatten()
                .filter(|coin| coin.script == *script)
            {
                balance = balance.saturating_add_unsigned(coin.value);
            }
            for (_, coin) in entry
                .spends
                .iter()
                .filter(|(_, coin)| coin.script == *script)
            {
                balance = balance.saturating_sub_unsigned(coin.value);
            }
        }
        balance
    }

    /// Outputs of a script that are made here and not spent here, in the order of the protocol's histories.
    pub fn unspent(&self, script: &ScriptHash) -> Vec<UnspentItem> {
        let mut list = Vec::new();
        for HistoryItem { txid, .. } in self.history(script) {
            let outputs = self
                .entries
                .get(&txid)
                .map_or(&[][..], |entry| &entry.outputs);
            for (index, coin) in (0..).zip(outputs) {
                let coin = coin.filter(|coin| coin.script == *script);
                let is_spent = self.spenders.contains_key(&OutPoint { txid, index });
                if let Some(coin) = coin.filter(|_| !is_spent) {
                    list.push(UnspentItem {
                        txid,
                        index,
                        height: 0,
                        value: coin.value,
                    });
                }
            }
        }
        list
    }

    /// Rates in satoshis per virtual byte, falling, with the virtual bytes that pay as much and less than the step before.
    ///
    /// A step ends with the rate that fills it; a rate that alone has as much as two steps begins one. What pays least and fills no
    /// step is left out: whoever pays more than the last step told gets ahead of all of it.
    pub fn fee_histogram(&self) -> Vec<(f64, u64)> {
        let mut sizes: BTreeMap<u64, u64> = BTreeMap::new();
        for entry in self.entries.values() {
            let tenths = entry.fee.saturating_mul(10) / entry.vsize.max(1);
            *sizes.entry(tenths).or_default() += entry.vsize;
        }
        let mut steps = Vec::new();
        let (mut step, mut sum, mut before) = (FIRST_STEP, 0, 0.0);
        for (tenths, size) in sizes.into_iter().rev() {
            let rate = tenths as f64 / 10.0;
            if size as f64 > 2.0 * step && sum > 0 {
                steps.push((before, sum));
                (step, sum) = (step * STEP_GROWTH, 0);
            }
            sum += size;
            if sum as f64 > step {
                steps.push((rate, sum));
                (step, sum) = (step * STEP_GROWTH, 0);
            }
            before = rate;
        }
        steps
    }

    /// The latest, at most [`MAX_RECENT`], the last first.
    pub fn recent(&self) -> Vec<RecentItem> {
        let latest = self.arrivals.values().rev().take(MAX_RECENT);
        let item = |txid: &Hash| {
            let entry = self.entries.get(txid)?;
            Some(RecentItem {
                txid: *txid,
                fee: entry.fee,
                vsize: entry.vsize,
            })
        };
        latest.filter_map(item).collect()
    }
}

fn scripts_of(entry: &Entry) -> impl Iterator<Item = ScriptHash> {
    let spent = entry.spends.iter().map(|(_, coin)| coin.script);
    spent.chain(entry.outputs.iter().flatten().map(|coin| coin.script))
}

fn touch(txid: &Hash, entry: &Entry, touched: &mut Touched) {
    touched.scripts.extend(scripts_of(entry));
    touched
        .outpoints
        .extend(entry.spends.iter().map(|(spent, _)| *spent));
    let outputs = (0..).zip(&entry.outputs);
    touched
        .outpoints
        .extend(outputs.map(|(index, _)| OutPoint { txid: *txid, index }));
}
