//! Calls that wallets make of a node through a server: fees, and transactions to be judged.

use bitcoin::Txid;
use bitcoin::hashes::Hash as _;
use bitcoin::hex::DisplayHex as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Rpc;
use super::methods::{MAX_ORDINARY_BYTES, ORDINARY_TIME, PROMPT};
use super::{Lane, Terms};
use crate::chain::bitcoind::RpcError;

/// Satoshis of a bitcoin.
const SATOSHIS: f64 = 100_000_000.0;

/// Bytes of a transaction's description. Reason: the largest transaction of a block, 4 MB, is there in hex, taken apart, and
/// with each script in words.
const MAX_DESCRIPTION_BYTES: usize = 64 << 20;

const JUDGE: Terms = Terms {
    lane: Lane::Prompt,
    time: ORDINARY_TIME,
    most_bytes: MAX_ORDINARY_BYTES,
    repeatable: false,
};
const DESCRIBE: Terms = Terms {
    lane: Lane::Bulk,
    most_bytes: MAX_DESCRIPTION_BYTES,
    ..PROMPT
};

/// `estimatesmartfee`, as far as it matters here.
#[derive(Deserialize)]
struct Estimate {
    #[serde(default)]
    feerate: Option<f64>,
}

/// `getmempoolinfo`, as far as it matters here, in BTC per 1,000 virtual bytes.
#[derive(Deserialize)]
struct MempoolRates {
    mempoolminfee: f64,
    minrelaytxfee: f64,
    #[serde(default)]
    incrementalrelayfee: Option<f64>,
}

/// What is to be paid at least, in satoshis per 1,000 virtual bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeastRates {
    /// To get into the mempool now.
    pub mempool_min: u64,
    /// To be relayed, however empty the mempool.
    pub relay_min: u64,
    /// For a replacement beyond what it replaces.
    pub incremental: u64,
}

fn satoshis(bitcoins: f64) -> u64 {
    (bitcoins * SATOSHIS).round().max(0.0) as u64
}

fn in_hex(transactions: &[impl AsRef<[u8]>]) -> Vec<String> {
    let each = transactions.iter();
    each.map(|one| one.as_ref().to_lower_hex_string()).collect()
}

impl Rpc {
    /// `estimatesmartfee`, in satoshis per 1,000 virtual bytes; `None` if the node can't tell. The mode is one of Bitcoin Core's words.
    ///
    /// # Errors
    ///
    /// See [`RpcError`]; so for all calls.
    pub async fn estimate_smart_fee(
        &self,
        blocks: u32,
        mode: Option<&str>,
    ) -> Result<Option<u64>, RpcError> {
        let parameters = match mode {
            Some(mode) => json!([blocks, mode]),
            None => json!([blocks]),
        };
        let estimate: Estimate = self.call(PROMPT, "estimatesmartfee", &parameters).await?;
        let rate = estimate.feerate.filter(|rate| *rate >= 0.0);
        Ok(rate.map(satoshis))
    }

    /// What `getmempoolinfo` says is to be paid.
    pub async fn least_rates(&self) -> Result<LeastRates, RpcError> {
        let rates: MempoolRates = self.call(PROMPT, "getmempoolinfo", &json!([])).await?;
        Ok(LeastRates {
            mempool_min: satoshis(rates.mempoolminfee),
            relay_min: satoshis(rates.minrelaytxfee),
            // Before version 24 nobody was told; it was what relaying costs.
            incremental: satoshis(rates.incrementalrelayfee.unwrap_or(rates.minrelaytxfee)),
        })
    }

    /// `submitpackage`: the node's answer as it is.
    pub async fn submit_package(
        &self,
        transactions: &[impl AsRef<[u8]>],
    ) -> Result<Value, RpcError> {
        let parameters = json!([in_hex(transactions)]);
        self.call(JUDGE, "submitpackage", &parameters).await
    }

    /// `testmempoolaccept`: the node's answer as it is.
    pub async fn test_mempool_accept(
        &self,
        transactions: &[impl AsRef<[u8]>],
    ) -> Result<Value, RpcError> {
        let parameters = json!([in_hex(transactions)]);
        self.call(PROMPT, "testmempoolaccept", &parameters).await
    }

    /// `getrawtransaction` in words; a transaction of a block is found by the block's hash, without an index.
    pub async fn describe_transaction(
        &self,
        id: [u8; 32],
        block: Option<[u8; 32]>,
    ) -> Result<Value, RpcError> {
        let id = Txid::from_byte_array(id).to_string();
        let block = block.map(|block| bitcoin::BlockHash::from_byte_array(block).to_string());
        let parameters = match block {
            Some(block) => json!([id, true, block]),
            None => json!([id, true]),
        };
        self.call(DESCRIBE, "getrawtransaction", &parameters).await
    }
}
