//! Answers to what sessions ask of the chain and the mempool.
//!
//! Chain and mempool change together: what a block took is in one of them at any time, never in both. A question reads the
//! chain as it was when it began, without holding anybody up, and the mempool at the end; if a block came in between, it goes on
//! from there.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use super::View;
use super::lookup::{Lookup, LookupError, parse};
use crate::electrum::history::History;
use crate::electrum::mempool::Mempool;
use crate::electrum::proof;
use crate::electrum::query::{Answer, HistoryItem, MAX_HEADERS, Place, Query, Refusal, Tip};
use crate::electrum::script_hash::ScriptHash;
use crate::mempool::OutPoint;
use crate::merkle::Hash;

/// Transactions of one history at most. Reason: its answer has some 100 bytes for each, and what a client takes at once is
/// bounded (Electrum: 20 MB); the protocol has an error for it.
pub const MAX_HISTORY: usize = 200_000;

/// Chain and mempool, and what answers from them.
#[derive(Debug)]
pub struct Data {
    lookup: Lookup,
    state: RwLock<State>,
}

/// What changes together.
#[derive(Debug)]
pub struct State {
    /// The chain.
    pub view: Arc<View>,
    /// What is in no block of it.
    pub mempool: Mempool,
}

/// A question that is being worked at.
#[derive(Debug)]
pub struct Work {
    query: Query,
    view: Arc<View>,
    history: Arc<History>,
    looked_at: u32,
}

impl Work {
    /// Transactions that were looked at so far.
    pub fn looked_at(&self) -> u32 {
        self.looked_at
    }
}

impl Data {
    /// With the chain as the index has it, and an empty mempool.
    pub fn new(lookup: Lookup) -> Self {
        let view = lookup.store().view();
        let mempool = Mempool::default();
        Self {
            lookup,
            state: RwLock::new(State { view, mempool }),
        }
    }

    /// Index and blocks.
    pub fn lookup(&self) -> &Lookup {
        &self.lookup
    }

    /// Chain and mempool as they are.
    pub fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// To change them: shortly, since all questions wait.
    pub fn change(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tip of the chain.
    ///
    /// # Errors
    ///
    /// If the index can't be read.
    pub fn tip(&self) -> Result<Option<Tip>, LookupError> {
        let view = Arc::clone(&self.state().view);
        let Some((height, _)) = view.chain.tip() else {
            return Ok(None);
        };
        let row = self.lookup.store().block(&view, height)?;
        Ok(row.map(|row| Tip {
            height,
            header: row.header,
        }))
    }

    /// Begins with a question.
    pub fn begin(&self, query: Query) -> Work {
        let view = Arc::clone(&self.state().view);
        let history = match script_of(&query) {
            Some(script) => self.lookup.begin(&view, &script),
            None => Arc::default(),
        };
        Work {
            query,
            view,
            history,
            looked_at: 0,
        }
    }

    /// Goes on with it for a slice of time; `None` if there is more to do.
    pub fn run(&self, work: &mut Work) -> Option<Result<Answer, Refusal>> {
        match self.step(work) {
            Ok(answer) => Ok(answer).transpose(),
            Err(failed) => Some(Err(failed.refusal())),
        }
    }

    fn step(&self, work: &mut Work) -> Result<Option<Answer>, Failed> {
        if let Some(script) = script_of(&work.query) {
            let (is_whole, looked_at) =
                self.lookup.extend(&work.view, &script, &mut work.history)?;
            work.looked_at = work.looked_at.saturating_add(looked_at as u32);
            if work.history.len() > MAX_HISTORY && matches!(work.query, Query::History(_)) {
                return Err(Failed::Refused(Refusal::HistoryTooLarge));
            }
            if !is_whole {
                return Ok(None);
            }
            let state = self.state();
            if Arc::ptr_eq(&state.view, &work.view) {
                return Ok(of_script(
                    &work.query,
                    &script,
                    &work.history,
                    &state.mempool,
                ));
            }
            work.view = Arc::clone(&state.view);
            drop(state);
            let (view, history) = (&work.view, &mut work.history);
            if !history.holds_in(&view.chain) {
                *history = self.lookup.begin(view, &script);
            }
            return Ok(None);
        }
        work.looked_at += 1;
        let answer = self.other(&work.view, &work.query);
        let state = self.state();
        if needs_both(&work.query) && !Arc::ptr_eq(&state.view, &work.view) {
            // What left the mempool meanwhile is in a block that was not looked at.
            work.view = Arc::clone(&state.view);
            return Ok(None);
        }
        answer.map(Some)
    }

    fn other(&self, view: &View, query: &Query) -> Result<Answer, Failed> {
        match query {
            Query::Header { height, checkpoint } => self.header(view, *height, *checkpoint),
            Query::Headers {
                start,
                count,
                checkpoint,
            } => self.headers(view, *start, *count, *checkpoint),
            Query::Outpoint { txid, index, .. } => self.outpoint(view, txid, *index),
            Query::Transaction(txid) => self.transaction(view, txid),
            Query::Merkle { txid, height } => self.merkle(view, txid, *height),
            Query::IdAt {
                height,
                position,
                merkle,
            } => self.id_at(view, *height, *position, *merkle),
            Query::FeeHistogram => Ok(Answer::FeeHistogram(self.state().mempool.fee_histogram())),
            Query::Recent => Ok(Answer::Recent(self.state().mempool.recent())),
            // Of scripts, which were answered above, and of the node, which are asked elsewhere.
            _ => Err(Failed::Refused(Refusal::Internal)),
        }
    }

    fn header(&self, view: &View, height: u32, checkpoint: Option<u32>) -> Result<Answer, Failed> {
        let row = self
            .lookup
            .store()
            .block(view, height)
            .map_err(LookupError::from)?;
        let row = row.ok_or_else(|| bad(format!("height {height} is beyond the tip")))?;
        let branch = checkpoint.map(|checkpoint| branch_of(view, height, checkpoint));
        Ok(Answer::Header {
            header: row.header,
            branch: branch.transpose()?,
        })
    }

    fn headers(
        &self,
        view: &View,
        start: u32,
        count: u32,
        checkpoint: Option<u32>,
    ) -> Result<Answer, Failed> {
        let end = view
            .chain
            .len()
            .min(start.saturating_add(count.min(MAX_HEADERS)));
        let mut headers = Vec::with_capacity(80 * end.saturating_sub(start) as usize);
        for height in start..end {
            let row = self
                .lookup
                .store()
                .block(view, height)
                .map_err(LookupError::from)?;
            headers.extend(row.ok_or(Failed::Refused(Refusal::Internal))?.header);
        }
        let branch = match (checkpoint, end.checked_sub(1).filter(|last| *last >= start)) {
            (Some(checkpoint), Some(last)) => Some(branch_of(view, last, checkpoint)?),
            _ => None,
        };
        Ok(Answer::Headers {
            headers: headers.into(),
            branch,
        })
    }

    fn transaction(&self, view: &View, txid: &Hash) -> Result<Answer, Failed> {
        if let Some(bytes) = self.state().mempool.transaction(txid) {
            return Ok(Answer::Transaction(bytes.clone()));
        }
        let found = self.lookup.find(view, txid)?;
        // In the node's words, which ElectrumX passes on.
        let found = found.ok_or_else(|| {
            Failed::Refused(Refusal::Node {
                code: -5,
                message: "No such mempool or blockchain transaction".into(),
            })
        })?;
        Ok(Answer::Transaction(Bytes::from(found.bytes)))
    }

    fn merkle(&self, view: &View, txid: &Hash, height: Option<u32>) -> Result<Answer, Failed> {
        let absent = |height: u32| {
            bad(format!(
                "the transaction is not in the block at height {height}"
            ))
        };
        let found = self.lookup.find(view, txid)?;
        let found = match (found, height) {
            (Some(found), None) => found,
            (Some(found), Some(height)) if found.height == height => found,
            (_, Some(height)) => return Err(absent(height)),
            (None, None) => return Err(bad("the transaction is in no block".into())),
        };
        let txids = self.lookup.txids(view, found.height)?;
        let branch = proof::branch(txids, found.position as usize);
        Ok(Answer::Merkle {
            height: found.height,
            position: found.position,
            nodes: branch.ok_or_else(|| absent(found.height))?.nodes,
        })
    }

    fn id_at(
        &self,
        view: &View,
        height: u32,
        position: u32,
        merkle: bool,
    ) -> Result<Answer, Failed> {
        let absent = || {
            bad(format!(
                "there is no transaction {position} in a block at height {height}"
            ))
        };
        let numbers = view.chain.transactions_of(height).ok_or_else(absent)?;
        let number = numbers.start.checked_add(position);
        let number = number
            .filter(|number| *number < numbers.end)
            .ok_or_else(absent)?;
        if merkle {
            let txids = self.lookup.txids(view, height)?;
            let txid = *txids.get(position as usize).ok_or_else(absent)?;
            let branch = proof::branch(txids, position as usize).ok_or_else(absent)?;
            let nodes = Some(branch.nodes);
            return Ok(Answer::IdAt { txid, nodes });
        }
        let found = self.lookup.transaction(view, number)?.ok_or_else(absent)?;
        let txid = parse(&found)?.txid();
        Ok(Answer::IdAt { txid, nodes: None })
    }

    /// Who spends a confirmed output is among the transactions of its script behind the one that made it.
    fn outpoint(&self, view: &View, txid: &Hash, index: u32) -> Result<Answer, Failed> {
        let outpoint = OutPoint { txid: *txid, index };
        let in_mempool = |state: &State| {
            let spender = state.mempool.spender(&outpoint)?;
            Some((spender, Place::Mempool(state.mempool.place(&spender)?)))
        };
        let Some(found) = self.lookup.find(view, txid)? else {
            let state = self.state();
            let funder = state
                .mempool
                .place(txid)
                .filter(|_| state.mempool.has_output(&outpoint));
            return Ok(Answer::Outpoint {
                funder: funder.map(Place::Mempool),
                spender: in_mempool(&state),
            });
        };
        let transaction = parse(&found)?;
        // The genesis block's output is none: it can't be spent, and height 0 means the mempool.
        let mut outputs = transaction.outputs().filter(|_| found.height > 0);
        let Some(output) = outputs.nth(index as usize) else {
            return Ok(Answer::Outpoint {
                funder: None,
                spender: None,
            });
        };
        let script = ScriptHash::of(output.script);
        let spender = self
            .lookup
            .spender(view, &script, found.number, &outpoint)?;
        let spender = spender.map(|(txid, height)| (txid, Place::Block(height)));
        Ok(Answer::Outpoint {
            funder: Some(Place::Block(found.height)),
            spender: spender.or_else(|| in_mempool(&self.state())),
        })
    }
}

/// Whether a question, not of a script, is about the mempool as well as the chain.
fn needs_both(query: &Query) -> bool {
    matches!(query, Query::Outpoint { .. } | Query::Transaction(_))
}

/// The script that a question is about.
fn script_of(query: &Query) -> Option<ScriptHash> {
    match query {
        Query::Balance(script)
        | Query::History(script)
        | Query::Mempool(script)
        | Query::Unspent(script)
        | Query::Status(script) => Some(*script),
        _ => None,
    }
}

fn of_script(
    query: &Query,
    script: &ScriptHash,
    history: &History,
    mempool: &Mempool,
) -> Option<Answer> {
    Some(match query {
        Query::Balance(_) => Answer::Balance {
            confirmed: history.balance(),
            unconfirmed: mempool.balance(script),
        },
        Query::History(_) => {
            let items: Vec<HistoryItem> = history.items().chain(mempool.history(script)).collect();
            Answer::History(items)
        }
        Query::Mempool(_) => Answer::History(mempool.history(script)),
        Query::Unspent(_) => {
            let mut unspent = history.unspent();
            unspent.retain(|one| {
                let outpoint = OutPoint {
                    txid: one.txid,
                    index: one.index,
                };
                mempool.spender(&outpoint).is_none()
            });
            unspent.extend(mempool.unspent(script));
            Answer::Unspent(unspent)
        }
        Query::Status(_) => Answer::Status(history.status(&mut mempool.statuses(script))),
        _ => return None,
    })
}

fn branch_of(view: &View, height: u32, checkpoint: u32) -> Result<proof::Branch, Failed> {
    view.chain.branch(height, checkpoint).map_err(|_| {
        let tip = view.chain.len().saturating_sub(1);
        bad(format!(
            "header height {height} must be at most cp_height {checkpoint}, and that at most the chain's height {tip}"
        ))
    })
}

/// Why there is no answer: the one who asks is told the one, the log the other.
enum Failed {
    Refused(Refusal),
    Lookup(LookupError),
}

fn bad(message: String) -> Failed {
    Failed::Refused(Refusal::Bad(message))
}

impl From<LookupError> for Failed {
    fn from(error: LookupError) -> Self {
        Self::Lookup(error)
    }
}

impl Failed {
    fn refusal(self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal,
            Self::Lookup(error) => {
                tracing::error!(%error, "a client's question failed");
                match error {
                    LookupError::Block { .. } => {
                        Refusal::Unavailable("the block is not on this server's disk".into())
                    }
                    _ => Refusal::Internal,
                }
            }
        }
    }
}
