//! What only the Bitcoin node can answer: whether it takes a transaction, what fees are, a transaction in its words.

use std::sync::Arc;

use bitcoin::hashes::Hash as _;
use serde_json::Value;
use tokio::sync::{Semaphore, oneshot, watch};

use super::SharedData;
use crate::chain::bitcoind::{Rpc, RpcError};
use crate::electrum::query::{Answer, FeeMode, PackageAnswer, Query, Refusal, TestAccepted, Told};
use crate::merkle::Hash;
use crate::node::bitcoin::Best;

/// Calls at a time. Reason: bitcoind has four threads for calls by default, and queues 64 (`-rpcworkqueue`); the node's own
/// are to find room.
const MAX_CALLS: usize = 16;

/// Asks the preferred node.
#[derive(Clone, Debug)]
pub struct Daemon {
    best: watch::Receiver<Option<Best>>,
    data: SharedData,
    calls: Arc<Semaphore>,
}

/// Whether a question is one of these.
pub fn answers(query: &Query) -> bool {
    matches!(
        query,
        Query::VerboseTransaction(_)
            | Query::Broadcast(_)
            | Query::BroadcastPackage(_)
            | Query::TestAccept(_)
            | Query::EstimateFee { .. }
            | Query::MempoolInfo
    )
}

impl Daemon {
    /// Asks whoever is preferred when it is asked.
    pub fn new(best: watch::Receiver<Option<Best>>, data: SharedData) -> Self {
        let calls = Arc::new(Semaphore::new(MAX_CALLS));
        Self { best, data, calls }
    }

    /// Asks as soon as fewer than [`MAX_CALLS`] are under way, and answers when the node does.
    pub async fn ask(&self, query: Query, reply: oneshot::Sender<Told>) {
        let Ok(permit) = Arc::clone(&self.calls).acquire_owned().await else {
            return;
        };
        let daemon = self.clone();
        tokio::spawn(async move {
            let answer = daemon.answer(query).await;
            let told = Told {
                answer,
                looked_at: 1,
            };
            reply.send(told).ok();
            drop(permit);
        });
    }

    async fn answer(&self, query: Query) -> Result<Answer, Refusal> {
        let rpc = self.best.borrow().as_ref().map(|best| best.rpc.clone());
        let rpc = rpc.ok_or_else(|| Refusal::Unavailable("no Bitcoin node answers".to_owned()))?;
        match query {
            Query::Broadcast(transaction) => {
                let txid = rpc.send_raw_transaction(&transaction).await;
                Ok(Answer::Broadcast(txid.map_err(refusal)?.to_byte_array()))
            }
            Query::BroadcastPackage(transactions) => {
                let answer = rpc.submit_package(&transactions).await;
                Ok(Answer::Package(package(answer.map_err(refusal)?)))
            }
            Query::TestAccept(transactions) => {
                let answer = rpc.test_mempool_accept(&transactions).await;
                Ok(Answer::TestAccept(accepted(&answer.map_err(refusal)?)?))
            }
            Query::EstimateFee { blocks, mode } => {
                let mode = mode.map(|mode| match mode {
                    FeeMode::Conservative => "CONSERVATIVE",
                    FeeMode::Economical => "ECONOMICAL",
                });
                let fee = rpc.estimate_smart_fee(blocks, mode).await;
                Ok(Answer::EstimateFee(fee.map_err(refusal)?))
            }
            Query::MempoolInfo => {
                let rates = rpc.least_rates().await.map_err(refusal)?;
                Ok(Answer::MempoolInfo {
                    mempool_min: rates.mempool_min,
                    relay_min: rates.relay_min,
                    incremental: rates.incremental,
                })
            }
            Query::VerboseTransaction(txid) => self.describe(&rpc, txid).await,
            _ => Err(Refusal::Internal),
        }
    }

    /// The node finds it in the block that the index knows, or in its mempool.
    async fn describe(&self, rpc: &Rpc, txid: Hash) -> Result<Answer, Refusal> {
        let data = self.data.get().cloned();
        let find = move || {
            let data = data?;
            let view = Arc::clone(&data.state().view);
            let found = data.lookup().find(&view, &txid).ok()??;
            view.chain.hash_at(found.height)
        };
        let block = tokio::task::spawn_blocking(find).await;
        let block = block.map_err(|_| Refusal::Internal)?;
        let answer = rpc.describe_transaction(txid, block).await;
        Ok(Answer::Json(answer.map_err(refusal)?))
    }
}

fn refusal(error: RpcError) -> Refusal {
    match error {
        RpcError::Node { code, message } => Refusal::Node { code, message },
        RpcError::Busy { .. } => Refusal::Busy,
        error => {
            tracing::warn!(%error, "a wallet's question could not be put to the Bitcoin node");
            Refusal::Unavailable("the Bitcoin node does not answer".to_owned())
        }
    }
}

fn id_in(value: &Value, name: &str) -> Option<Hash> {
    let text = value.get(name)?.as_str()?;
    let id: bitcoin::Txid = text.parse().ok()?;
    Some(id.to_byte_array())
}

fn text_in(value: &Value, name: &str) -> Option<String> {
    Some(value.get(name)?.as_str()?.to_owned())
}

/// What `submitpackage` says: results by wtxid, with an error where one was refused.
fn package(verbose: Value) -> PackageAnswer {
    let success = verbose.get("package_msg").and_then(Value::as_str) == Some("success");
    let results = verbose.get("tx-results").and_then(Value::as_object);
    let error = |result: &Value| Some((id_in(result, "txid")?, text_in(result, "error")?));
    let errors = results.into_iter().flat_map(|results| results.values());
    PackageAnswer {
        success,
        errors: errors.filter_map(error).collect(),
        verbose,
    }
}

/// What `testmempoolaccept` says of each.
fn accepted(answer: &Value) -> Result<Vec<TestAccepted>, Refusal> {
    let one = |result: &Value| {
        let reason = text_in(result, "reject-reason");
        Some(TestAccepted {
            txid: id_in(result, "txid")?,
            wtxid: id_in(result, "wtxid")?,
            allowed: result.get("allowed").and_then(Value::as_bool),
            reason: reason.or_else(|| text_in(result, "package-error")),
        })
    };
    let list = answer.as_array().ok_or(Refusal::Internal)?;
    list.iter()
        .map(one)
        .collect::<Option<_>>()
        .ok_or(Refusal::Internal)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b";

    #[test]
    fn what_the_node_says_of_packages_and_trials_is_read() {
        let refused = json!({"package_msg": "transaction failed", "tx-results": {
            "w1": {"txid": ID, "error": "min relay fee not met"},
            "w2": {"txid": ID, "vsize": 100},
        }});
        let answer = package(refused.clone());
        assert!(!answer.success);
        assert_eq!(answer.errors.len(), 1);
        assert_eq!(answer.errors[0].1, "min relay fee not met");
        assert_eq!(answer.verbose, refused);
        assert!(package(json!({"package_msg": "success"})).success);

        let trial = json!([
            {"txid": ID, "wtxid": ID, "allowed": true},
            {"txid": ID, "wtxid": ID, "allowed": false, "reject-reason": "missing-inputs"},
            {"txid": ID, "wtxid": ID, "package-error": "package-not-sorted"},
        ]);
        let trial = accepted(&trial).unwrap();
        let allowed: Vec<_> = trial.iter().map(|one| one.allowed).collect();
        assert_eq!(allowed, [Some(true), Some(false), None]);
        assert_eq!(trial[1].reason.as_deref(), Some("missing-inputs"));
        assert_eq!(trial[2].reason.as_deref(), Some("package-not-sorted"));
        assert_eq!(accepted(&json!({})), Err(Refusal::Internal));
        assert_eq!(accepted(&json!([{}])), Err(Refusal::Internal));
    }
}
