//! What bitcoind answers, from its JSON to our types. Nothing here trusts a length or a hash that it did not check.

use std::borrow::Cow;
use std::path::PathBuf;

use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, Txid};
use bytes::Bytes;
use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::error::{RpcError, one_line};

/// Bytes of a serialized header.
pub const HEADER_BYTES: usize = 80;
/// Transactions of one node's mempool. Reason: a mempool of 300 MB (Core's default) holds about 300,000 and a
/// huge one three times as many; each id costs some 60 bytes here.
pub const MAX_MEMPOOL_IDS: usize = 1_000_000;
/// Entries of any other list: tips, addresses, notifications. Reason: Core hands out at most 2,500 addresses for
/// the asking, and has seen fewer than a hundred stale tips since it began.
const MAX_LIST: usize = 4_096;
/// Entries of `getnodeaddresses`. Reason: Bitcoin Core's tables have 81,920 places.
const MAX_NODE_ADDRESSES: usize = 100_000;

#[derive(Deserialize)]
struct Envelope<'a, T> {
    // A function, so that no `T: Default` is asked for.
    #[serde(default = "none")]
    result: Option<T>,
    #[serde(borrow, default)]
    error: Option<Refusal<'a>>,
    id: Option<u64>,
}

fn none<T>() -> Option<T> {
    None
}

#[derive(Deserialize)]
struct Refusal<'a> {
    code: i64,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
}

/// Reads the answer to call `id`; `None` where its result is null.
///
/// # Errors
///
/// The error that the node answers, or [`RpcError::Garbage`].
pub fn parse<'a, T: Deserialize<'a>>(body: &'a [u8], id: u64) -> Result<Option<T>, RpcError> {
    let envelope: Envelope<'a, T> = serde_json::from_slice(body).map_err(garbage)?;
    if let Some(refusal) = envelope.error {
        return Err(RpcError::from_node(refusal.code, &refusal.message));
    }
    if envelope.id != Some(id) {
        return Err(RpcError::Garbage("it answers another call".into()));
    }
    Ok(envelope.result)
}

/// Reads the answers to the `count` calls of a batch, whose ids follow each other from `first`: in that order.
///
/// # Errors
///
/// The error that the node answers for the batch as a whole, or [`RpcError::Garbage`] if an answer is missing.
pub fn parse_batch<'a, T: Deserialize<'a>>(
    body: &'a [u8],
    first: u64,
    count: usize,
) -> Result<Vec<Result<Option<T>, RpcError>>, RpcError> {
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{') {
        // Refused as a whole, before the calls were looked at.
        parse::<IgnoredAny>(body, first)?;
        return Err(RpcError::Garbage("a batch has a single answer".into()));
    }
    let envelopes: Vec<Envelope<'a, T>> = serde_json::from_slice(body).map_err(garbage)?;
    let mut answers: Vec<Option<Result<Option<T>, RpcError>>> = Vec::new();
    answers.resize_with(count, || None);
    for envelope in envelopes {
        let place = envelope
            .id
            .and_then(|id| id.checked_sub(first))
            .and_then(|place| usize::try_from(place).ok());
        let slot = place.and_then(|place| answers.get_mut(place));
        let Some(slot @ None) = slot else {
            return Err(RpcError::Garbage(
                "a batch has an answer that no call asked for".into(),
            ));
        };
        *slot = Some(match envelope.error {
            Some(refusal) => Err(RpcError::from_node(refusal.code, &refusal.message)),
            None => Ok(envelope.result),
        });
    }
    answers
        .into_iter()
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| RpcError::Garbage("a batch lacks an answer".into()))
}

/// The beginning of `body`: as much as an error shows.
pub fn head(body: &[u8]) -> &[u8] {
    body.split_at_checked(200).map_or(body, |(head, _)| head)
}

fn garbage(error: serde_json::Error) -> RpcError {
    RpcError::Garbage(one_line(&error.to_string()))
}

/// Bytes that stand as hex in the answer: decoded straight from there, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HexBytes(pub Bytes);

impl<'de> Deserialize<'de> for HexBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        let bytes = hex::decode_to_vec(text).map_err(|_| D::Error::custom("this is no hex"))?;
        Ok(Self(bytes.into()))
    }
}

/// The header of `block`, if it is the block called `hash`.
///
/// # Errors
///
/// [`RpcError::Garbage`] for fewer bytes than a header has, or another block's.
pub fn check_block(block: &[u8], hash: BlockHash) -> Result<[u8; HEADER_BYTES], RpcError> {
    let header: [u8; HEADER_BYTES] = block
        .first_chunk()
        .copied()
        .ok_or_else(|| RpcError::Garbage("a block is shorter than a header".into()))?;
    if BlockHash::hash(&header) != hash {
        return Err(RpcError::Garbage("it is another block".into()));
    }
    Ok(header)
}

/// `getblockchaininfo`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct BlockchainInfo {
    /// `main`, `test`, `testnet4`, `signet` or `regtest`.
    pub chain: String,
    /// Height of the tip whose blocks are all valid and there.
    pub blocks: u32,
    /// Height of the best header.
    pub headers: u32,
    /// The tip.
    #[serde(rename = "bestblockhash")]
    pub best_block_hash: BlockHash,
    /// Whether the node still catches up with the network.
    #[serde(rename = "initialblockdownload")]
    pub initial_block_download: bool,
    /// Share of the chain that is verified, 0 to 1, estimated.
    #[serde(rename = "verificationprogress", default)]
    pub verification_progress: f64,
    /// Whether old blocks are deleted.
    #[serde(default)]
    pub pruned: bool,
    /// The lowest block that is there, if pruned.
    #[serde(rename = "pruneheight", default)]
    pub prune_height: Option<u32>,
}

/// `getnetworkinfo`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct NetworkInfo {
    /// As in 300000 for 30.0.
    pub version: u32,
    /// As peers are told.
    pub subversion: String,
    /// Connected peers, inbound and outbound.
    pub connections: u32,
    /// Whether its P2P side is on.
    #[serde(rename = "networkactive", default)]
    pub network_active: bool,
}

/// What `getrpcinfo` says besides the calls under way.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RpcInfo {
    /// The file of its log, whether or not it writes one.
    #[serde(rename = "logpath")]
    pub log_path: PathBuf,
}

/// A block by hash and height.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub struct BlockReference {
    /// Its hash.
    pub hash: BlockHash,
    /// Its height.
    pub height: u32,
}

/// One of `getchaintips`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct ChainTip {
    /// Height of the tip.
    pub height: u32,
    /// Its hash.
    pub hash: BlockHash,
    /// Blocks between it and the active chain; 0 for the active tip.
    #[serde(rename = "branchlen")]
    pub branch_length: u32,
    /// `active`, `valid-fork`, `valid-headers`, `headers-only` or `invalid`.
    pub status: String,
}

/// One of `getzmqnotifications`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct ZmqNotification {
    /// As in `pubrawblock`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it is published, as the node was told: may say 0.0.0.0.
    pub address: String,
}

/// One of `getnodeaddresses`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct NodeAddress {
    /// When it was last seen, Unix time in seconds.
    pub time: u64,
    /// The services that it claims.
    pub services: u64,
    /// An IP address, or a name of Tor, I2P or CJDNS.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// `ipv4`, `ipv6`, `onion`, `i2p`, `cjdns`.
    #[serde(default)]
    pub network: String,
}

/// `getrawmempool` with the number of the next event.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct MempoolList {
    /// All transactions.
    #[serde(
        rename = "txids",
        deserialize_with = "bounded::<_, _, MAX_MEMPOOL_IDS>"
    )]
    pub ids: Vec<Txid>,
    /// The number that the next addition or removal has in the topic `sequence`.
    #[serde(rename = "mempool_sequence")]
    pub sequence: u64,
}

/// The answer of `getnodeaddresses`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct AddressList(
    /// Its entries.
    #[serde(deserialize_with = "bounded::<_, _, MAX_NODE_ADDRESSES>")]
    pub Vec<NodeAddress>,
);

/// A short list.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct List<T: for<'a> Deserialize<'a>>(
    /// Its entries.
    #[serde(deserialize_with = "bounded::<_, _, MAX_LIST>")]
    pub Vec<T>,
);

/// A list of at most `MOST` entries.
fn bounded<'de, D, T, const MOST: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Entries<T, const MOST: usize>(std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Entries<T, MOST> {
        type Value = Vec<T>;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(formatter, "a list of at most {MOST}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = list.next_element()? {
                if entries.len() == MOST {
                    return Err(A::Error::invalid_length(MOST + 1, &self));
                }
                entries.push(entry);
            }
            Ok(entries)
        }
    }
    deserializer.deserialize_seq(Entries::<T, MOST>(std::marker::PhantomData))
}

/// What a node says to a block that it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubmitAnswer {
    /// New to it, and valid as far as it was checked.
    Accepted,
    /// It has the block, and it is valid.
    Duplicate,
    /// Kept, not judged: its branch has less work than the tip's.
    Inconclusive,
    /// It does not know the parent; the block may be good.
    ParentUnknown,
    /// Its time is too far ahead of the node's clock; the block may become good.
    TooEarly,
    /// It breaks the rules, now and always; Bitcoin Core's words for how.
    Invalid(String),
}

impl SubmitAnswer {
    /// Reads what `submitblock` answers (BIP22): null, or a word.
    pub fn read(word: Option<&str>) -> Self {
        match word {
            None => Self::Accepted,
            Some("duplicate") => Self::Duplicate,
            Some("inconclusive" | "duplicate-inconclusive") => Self::Inconclusive,
            Some("prev-blk-not-found") => Self::ParentUnknown,
            Some("time-too-new") => Self::TooEarly,
            Some(word) => Self::Invalid(one_line(word)),
        }
    }
}

#[cfg(test)]
mod tests;
