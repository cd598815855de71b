//! The calls that are made, each with its types, its time and its bounds.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use bitcoin::{BlockHash, Txid};
use bytes::Bytes;
use hex::DisplayHex as _;
use serde::Deserialize;
use serde_json::json;

use super::{Lane, Rpc, Terms};
use crate::chain::Network;
use crate::chain::bitcoind::answer::{
    self, AddressList, BlockReference, BlockchainInfo, ChainTip, HEADER_BYTES, HexBytes, List,
    MempoolList, NetworkInfo, NodeAddress, RpcInfo, SubmitAnswer, ZmqNotification, check_block,
};
use crate::chain::bitcoind::error::{MISC, NOT_FOUND, RpcError};

/// Transactions asked for in one batch. Reason: at 100 the time per transaction no longer falls, and all of the
/// largest standard size (400 kB) make 80 MB of hex at most, which is then asked for in halves.
pub const MAX_BATCH: usize = 100;
/// The longest wait for a block. Reason: a connection that has died unnoticed is found out this late.
pub const MAX_WAIT: Duration = Duration::from_secs(60);
/// Bytes of an ordinary answer. Reason: the largest are lists of some thousand entries of 200 bytes.
pub(super) const MAX_ORDINARY_BYTES: usize = 2 << 20;
/// Bytes of a block's answer. Reason: 4,000,000 bytes in hex and the envelope.
const MAX_BLOCK_ANSWER_BYTES: usize = 8_001_024;
/// Bytes of a batch's answer. Reason: one transaction of the largest size must fit, as a block's answer does.
const MAX_BATCH_BYTES: usize = 16 << 20;
/// Bytes of the mempool's list. Reason: as many ids as are taken, at 67 bytes each.
const MAX_MEMPOOL_BYTES: usize = answer::MAX_MEMPOOL_IDS * 67 + 1_024;

/// Bytes of the list of addresses. Reason: as many as Bitcoin Core's tables hold (81,920), at some 150 bytes each.
const MAX_ADDRESS_BYTES: usize = 12 << 20;
/// Addresses asked for if all are too many: what an answer of the ordinary size surely holds.
const SOME_ADDRESSES: u32 = 5_000;

/// Bitcoin Core answers these from memory, but its main lock may be taken by a block that it connects.
pub(super) const ORDINARY_TIME: Duration = Duration::from_secs(30);
/// A block is validated before the answer; with a cold cache and a slow disk that takes minutes.
const SUBMIT_TIME: Duration = Duration::from_secs(180);

pub(super) const PROMPT: Terms = Terms {
    lane: Lane::Prompt,
    time: ORDINARY_TIME,
    most_bytes: MAX_ORDINARY_BYTES,
    repeatable: true,
};
const BLOCK: Terms = Terms {
    most_bytes: MAX_BLOCK_ANSWER_BYTES,
    ..PROMPT
};
const SUBMIT: Terms = Terms {
    time: SUBMIT_TIME,
    repeatable: false,
    ..PROMPT
};
const BATCH: Terms = Terms {
    lane: Lane::Bulk,
    most_bytes: MAX_BATCH_BYTES,
    ..PROMPT
};
const ADDRESSES: Terms = Terms {
    most_bytes: MAX_ADDRESS_BYTES,
    ..BATCH
};
const MEMPOOL: Terms = Terms {
    most_bytes: MAX_MEMPOOL_BYTES,
    ..BATCH
};

impl Rpc {
    /// `getblockchaininfo`.
    ///
    /// # Errors
    ///
    /// See [`RpcError`]; so for all calls.
    pub async fn blockchain_info(&self) -> Result<BlockchainInfo, RpcError> {
        self.ask("getblockchaininfo", &json!([])).await
    }

    /// `getnetworkinfo`.
    ///
    /// # Errors
    ///
    /// See [`RpcError`].
    pub async fn network_info(&self) -> Result<NetworkInfo, RpcError> {
        self.ask("getnetworkinfo", &json!([])).await
    }

    /// Where `getrpcinfo` says that its log is: in its folder for the network, unless it was told otherwise.
    ///
    /// # Errors
    ///
    /// See [`RpcError`].
    pub async fn log_path(&self) -> Result<PathBuf, RpcError> {
        let info: RpcInfo = self.ask("getrpcinfo", &json!([])).await?;
        Ok(info.log_path)
    }

    /// `getbestblockhash`.
    ///
    /// # Errors
    ///
    /// See [`RpcError`].
    pub async fn best_block_hash(&self) -> Result<BlockHash, RpcError> {
        self.ask("getbestblockhash", &json!([])).await
    }

    /// `getblockhash`; `None` if the chain is shorter.
    ///
    /// # Errors
    ///
    /// See [`RpcError`].
    pub async fn block_hash(&self, height: u32) -> Result<Option<BlockHash>, RpcError> {
        match self.ask("getblockhash", &json!([height])).await {
            // "Block height out of range": RPC_INVALID_PARAMETER.
            Err(RpcError::Node { code: -8, .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Checks that the node's first block is that of `network`.
    ///
    /// # Errors
    ///
    /// [`RpcError::WrongNetwork`] if not; else see [`RpcError`].
    pub async fn check_network(&self, network: Network) -> Result<(), RpcError> {
        let genesis: BlockHash = self.ask("getblockhash", &json!([0])).await?;
        if genesis == network.genesis().block_hash() {
            return Ok(());
        }
        Err(RpcError::WrongNetwork {
            address: self.address().to_owned(),
            genesis: genesis.to_string(),
            network: network.to_string(),
        })
    }

    /// `getblockheader`: the 80 bytes of a header, `None` if the node does not know it.
    ///
    /// # Errors
    ///
    /// See [`RpcError`].
    pub async fn block_header(
        &self,
        hash: BlockHash,
    ) -> Result<Option<[u8; HEADER_BYTES]>, RpcError> {
        let answer = self.ask("getblockheader", &json!([hash, false])).await;
        let header: Option<HexBytes> = absent(answer)?;
        header
            .map(|header| check_block(&header.0, hash))
            .transpose()
    }

    /// `getblock`: a whole block with its witnesses, `None` if the node does not have it (never had, or pruned).
    ///
    /// # Errors
    ///
    /// See [`RpcError`].
    pub async fn block(&self, hash: BlockHash) -> Result<Option<Bytes>, RpcError> {
        let answer = self.call(BLOCK, "getblock", &json!([hash, 0])).await;
        let block: Option<HexBytes> = absent(answer)?;
        let Some(block) = block else {
            return Ok(None);
        };
        check_block(&block.0, hash)?;
        Ok(Some(block.0))
    }

    /// `submitblock`. Never repeated by itself.
    ///
    /// # Errors
    ///
    /// See [`RpcError`]: a block that can't be decoded is error -22 of the node.
    pub async fn submit_block(&self, block: &[u8]) -> Result<SubmitAnswer, RpcError> {
        let id = self.ids(1);
        let mut body = String::with_capacity(2 * block.len() + 96);
        write!(
            body,
            r#"{{"jsonrpc":"1.0","id":{id},"method":"submitblock","params":["{}"]}}"#,
            block.as_hex()
        )
        .expect("a string takes what is written");
        self.exchange(SUBMIT, body.into(), |answer| {
            let word: Option<std::borrow::Cow<'_, str>> = answer::parse(answer, id)?;
            Ok(SubmitAnswer::read(word.as_deref()))
        })
        .await
    }

    /// `submitheader`.
    ///
    /// # Errors
    ///
    /// Error -25 of the node for a header that it refuses; else see [`RpcError`].
    pub async fn submit_header(&self, header: &[u8; HEADER_BYTES]) -> Result<(), RpcError> {
        let parameters = json!([header.to_lower_hex_string()]);
        self.call_maybe::<serde_json::Value>(PROMPT, "submitheader", &parameters)
            .await
            .map(drop)
    }

    /// `sendrawtransaction`.
    ///
    /// # Errors
    ///
    /// Errors -25 to -27 of the node for a transaction that it refuses; else see [`RpcError`].
    pub async fn send_raw_transaction(&self, transaction: &[u8]) -> Result<Txid, RpcError> {
        let parameters = json!([transaction.to_lower_hex_string()]);
        self.ask("sendrawtransaction", &parameters).await
    }

    /// `getrawmempool` with the number that the next event of the topic `sequence` has.
    ///
    /// # Errors
    ///
    /// See [`RpcError`].
    pub async fn raw_mempool_with_sequence(&self) -> Result<MempoolList, RpcError> {
        self.call(MEMPOOL, "getrawmempool", &json!([false, true]))
            .await
    }

    /// `getrawtransaction` for each of `ids`, in batches; `None` for those that the mempool no longer has.
    ///
    /// # Errors
    ///
    /// See [`RpcError`].
    pub async fn raw_transactions(&self, ids: &[Txid]) -> Result<Vec<Option<Bytes>>, RpcError> {
        let mut bodies = Vec::with_capacity(ids.len());
        // The next range on top: what proves too large goes back as two halves.
        let mut ranges: Vec<&[Txid]> = ids.chunks(MAX_BATCH).rev().collect();
        while let Some(range) = ranges.pop() {
            match self.batch(range).await {
                Err(RpcError::TooLarge(_)) if range.len() > 1 => {
                    let (left, right) = range.split_at(range.len() / 2);
                    ranges.extend([right, left]);
                }
                Err(error) => return Err(error),
                Ok(some) => bodies.extend(some),
            }
        }
        Ok(bodies)
    }

    async fn batch(&self, ids: &[Txid]) -> Result<Vec<Option<Bytes>>, RpcError> {
        let first = self.ids(ids.len() as u64);
        let mut body = String::with_capacity(ids.len() * 150 + 2);
        for (id, txid) in (first..).zip(ids) {
            body.push(if body.is_empty() { '[' } else { ',' });
            write!(
                body,
                r#"{{"jsonrpc":"1.0","id":{id},"method":"getrawtransaction","params":["{txid}",false]}}"#
            )
            .expect("a string takes what is written");
        }
        body.push(']');
        self.exchange(BATCH, body.into(), |answer| {
            answer::parse_batch::<HexBytes>(answer, first, ids.len())?
                .into_iter()
                .map(|answer| match answer {
                    Ok(body) => Ok(body.map(|body| body.0)),
                    Err(RpcError::Node {
                        code: NOT_FOUND, ..
                    }) => Ok(None),
                    Err(error) => Err(error),
                })
                .collect()
        })
        .await
    }

    /// `waitfornewblock`: the tip once it is not `tip` any more, or whatever it is after `time` (at most
    /// [`MAX_WAIT`]).
    ///
    /// # Errors
    ///
    /// See [`RpcError`].
    pub async fn wait_for_new_block(
        &self,
        time: Duration,
        tip: BlockHash,
    ) -> Result<BlockReference, RpcError> {
        let time = time.clamp(Duration::from_millis(1), MAX_WAIT);
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let terms = Terms {
            lane: Lane::Wait,
            time: time + ORDINARY_TIME,
            ..PROMPT
        };
        let method = "waitfornewblock";
        match self.call(terms, method, &json!([milliseconds, tip])).await {
            // Before version 29 it had no second parameter, and says so with its help text.
            Err(RpcError::Node {
                code: MISC,
                message,
            }) if message.starts_with(method) => {}
            other => return other,
        }
        let info = self.blockchain_info().await?;
        if info.best_block_hash != tip {
            return Ok(BlockReference {
                hash: info.best_block_hash,
                height: info.blocks,
            });
        }
        self.call(terms, method, &json!([milliseconds])).await
    }

    /// `getzmqnotifications`.
    ///
    /// # Errors
    ///
    /// Error -32601 of a node that was built without ZMQ; else see [`RpcError`].
    pub async fn zmq_notifications(&self) -> Result<Vec<ZmqNotification>, RpcError> {
        let list: List<_> = self.ask("getzmqnotifications", &json!([])).await?;
        Ok(list.0)
    }

    /// `getnodeaddresses`: all addresses that the node knows, of all networks; if they are too many for an answer,
    /// some of them.
    ///
    /// # Errors
    ///
    /// See [`RpcError`].
    pub async fn node_addresses(&self) -> Result<Vec<NodeAddress>, RpcError> {
        let method = "getnodeaddresses";
        let all = self.call(ADDRESSES, method, &json!([0])).await;
        let list: AddressList = match all {
            Err(RpcError::TooLarge(_)) => self.ask(method, &json!([SOME_ADDRESSES])).await?,
            other => other?,
        };
        Ok(list.0)
    }

    /// `getchaintips`.
    ///
    /// # Errors
    ///
    /// See [`RpcError`].
    pub async fn chain_tips(&self) -> Result<Vec<ChainTip>, RpcError> {
        let list: List<_> = self.ask("getchaintips", &json!([])).await?;
        Ok(list.0)
    }

    /// An ordinary call.
    async fn ask<T: for<'a> Deserialize<'a>>(
        &self,
        method: &str,
        parameters: &serde_json::Value,
    ) -> Result<T, RpcError> {
        self.call(PROMPT, method, parameters).await
    }

    /// A call whose result is never null.
    pub(super) async fn call<T: for<'a> Deserialize<'a>>(
        &self,
        terms: Terms,
        method: &str,
        parameters: &serde_json::Value,
    ) -> Result<T, RpcError> {
        self.call_maybe(terms, method, parameters)
            .await?
            .ok_or_else(|| RpcError::Garbage("the result is null".into()))
    }

    async fn call_maybe<T: for<'a> Deserialize<'a>>(
        &self,
        terms: Terms,
        method: &str,
        parameters: &serde_json::Value,
    ) -> Result<Option<T>, RpcError> {
        let id = self.ids(1);
        // Version 1.0 is understood by every bitcoind; 2.0 only by those from 28 on.
        let body = json!({"jsonrpc": "1.0", "id": id, "method": method, "params": parameters});
        self.exchange(terms, body.to_string().into(), |answer| {
            answer::parse(answer, id)
        })
        .await
    }
}

/// "Block not found", or its data not here: pruned, or not yet downloaded.
fn absent<T>(answer: Result<T, RpcError>) -> Result<Option<T>, RpcError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(RpcError::Node {
            code: NOT_FOUND, ..
        }) => Ok(None),
        Err(RpcError::Node {
            code: MISC,
            message,
        }) if message.starts_with("Block not ") => Ok(None),
        Err(error) => Err(error),
    }
}
