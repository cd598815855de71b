//! Messages: payloads as values, and back.
//!
//! Small ones go through the types of `bitcoin::p2p`; where counts must be checked before memory is taken, or
//! bytes are to be cut out and not copied, they are read here.

use std::net::{IpAddr, Ipv6Addr};

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::{GetHeadersMessage, Inventory};
use bytes::Bytes;

use super::addresses::{self, Gossip};
use super::block::{check_block, cut_transactions};
use super::compact::read_wanted;
use super::kind::Kind;
use super::read::{DecodeError, MIN_TRANSACTION_BYTES, Reader, put_compact_size};
use super::{
    Advert, CompactBlock, MAX_AGENT_BYTES, MAX_HEADERS_PER_MESSAGE, MAX_INVENTORY, MAX_LOCATOR,
    TransactionId,
};
use crate::chain::Network;

/// Bytes of an entry of `inv`.
const INVENTORY_BYTES: usize = 36;
/// Bytes of an entry of `headers`: the header, and a count of transactions that is always zero.
const HEADER_ENTRY_BYTES: usize = 81;

/// Bytes of an address in `version`.
const ADDRESS_BYTES: usize = 26;

/// What a `version` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub version: u32,
    pub services: u64,
    /// Unix seconds.
    pub time: i64,
    pub nonce: u64,
    /// Printable ASCII.
    pub agent: String,
    pub start_height: u32,
    pub relay: bool,
    /// Our address as it sees us; unchecked.
    pub sees_us_at: Option<IpAddr>,
}

/// A message that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Version(Version),
    Verack,
    WtxidRelay,
    SendAddrV2,
    /// `None`: a feature that is not ours.
    Feature(Option<Advert>),
    Advert(Advert),
    SendHeaders,
    SendCompact {
        high_bandwidth: bool,
        version: u64,
    },
    FeeFilter(u64),
    Ping(u64),
    Pong(u64),
    GetHeaders {
        locator: Vec<BlockHash>,
        stop: Option<BlockHash>,
    },
    GetBlocks {
        locator: Vec<BlockHash>,
        stop: Option<BlockHash>,
    },
    Headers(Vec<Header>),
    Inventory(Vec<Inventory>),
    GetData(Vec<Inventory>),
    NotFound(Vec<Inventory>),
    Block {
        hash: BlockHash,
        block: Bytes,
    },
    Transaction(Bytes),
    CompactBlock(CompactBlock),
    GetBlockTransactions {
        hash: BlockHash,
        indexes: Vec<u32>,
    },
    BlockTransactions {
        hash: BlockHash,
        transactions: Vec<Bytes>,
    },
    Addresses(Gossip),
    GetAddresses,
    /// Known, and of no use to us.
    Unserved,
    /// Unknown.
    Unknown,
}

impl Message {
    /// Decodes a payload, which is within its kind's limit.
    pub(super) fn decode(
        kind: Kind,
        payload: &Bytes,
        network: Network,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        Ok(match kind {
            Kind::Version => Self::Version(read_version(reader)?),
            Kind::Verack => Self::Verack,
            Kind::WtxidRelay => Self::WtxidRelay,
            Kind::SendAddrV2 => Self::SendAddrV2,
            Kind::Feature => Self::Feature(Advert::read_feature(payload)?),
            Kind::Advert => Self::Advert(Advert::read(payload)?),
            Kind::SendHeaders => Self::SendHeaders,
            Kind::SendCompact => Self::SendCompact {
                high_bandwidth: match reader.u8()? {
                    0 => false,
                    1 => true,
                    _ => return Err(DecodeError::Value),
                },
                version: reader.u64()?,
            },
            Kind::FeeFilter => Self::FeeFilter(reader.u64()?),
            Kind::Ping => Self::Ping(reader.u64()?),
            Kind::Pong => Self::Pong(reader.u64()?),
            Kind::GetHeaders => read_get_headers(reader)?,
            Kind::GetBlocks => read_get_blocks(reader)?,
            Kind::Headers => Self::Headers(read_headers(reader)?),
            Kind::Inventory => Self::Inventory(read_inventory(reader)?),
            Kind::GetData => Self::GetData(read_inventory(reader)?),
            Kind::NotFound => Self::NotFound(read_inventory(reader)?),
            Kind::Block => Self::Block {
                hash: check_block(payload, network.max_transactions())?.block_hash(),
                block: payload.clone(),
            },
            Kind::Transaction => {
                reader.transaction()?;
                reader.end()?;
                Self::Transaction(payload.clone())
            }
            Kind::CompactBlock => {
                Self::CompactBlock(CompactBlock::read(payload, network.max_transactions())?)
            }
            Kind::GetBlockTransactions => {
                let (hash, indexes) = read_wanted(payload, network.max_transactions())?;
                Self::GetBlockTransactions { hash, indexes }
            }
            Kind::BlockTransactions => {
                let hash = reader.block_hash()?;
                let count = reader.count(MIN_TRANSACTION_BYTES, network.max_transactions())?;
                let transactions = cut_transactions(&mut reader, payload, count)?;
                reader.end()?;
                Self::BlockTransactions { hash, transactions }
            }
            Kind::Addresses => Self::Addresses(addresses::read_v1(payload)?),
            Kind::AddressesV2 => Self::Addresses(addresses::read_v2(payload)?),
            Kind::GetAddresses => Self::GetAddresses,
            Kind::Mempool
            | Kind::FilterLoad
            | Kind::FilterAdd
            | Kind::FilterClear
            | Kind::GetFilters
            | Kind::GetFilterHeaders
            | Kind::GetFilterCheckpoints => Self::Unserved,
            Kind::Unknown => Self::Unknown,
        })
    }
}

/// Reads a `version`, with whatever follows it in later versions. The last byte may be absent (BIP37).
fn read_version(mut reader: Reader<'_>) -> Result<Version, DecodeError> {
    let version = reader.u32()?;
    let services = reader.u64()?;
    let time = i64::from_le_bytes(reader.array()?);
    let receiver = reader.take(ADDRESS_BYTES)?;
    reader.take(ADDRESS_BYTES)?;
    let nonce = reader.u64()?;
    let agent = reader.var_bytes(MAX_AGENT_BYTES)?;
    let printable = |&byte: &u8| match byte {
        0x20..0x7f => char::from(byte),
        _ => '?',
    };
    let agent = agent.iter().map(printable).collect();
    let start_height = reader.u32()?;
    let relay = reader.rest().first().is_none_or(|&byte| byte != 0);
    Ok(Version {
        version,
        services,
        time,
        nonce,
        agent,
        start_height,
        relay,
        sees_us_at: ip_of(receiver),
    })
}

/// The IP address in an address without a time: services (8 bytes), IPv6 (16), port (2).
fn ip_of(address: &[u8]) -> Option<IpAddr> {
    let ip: [u8; 16] = address.get(8..24)?.try_into().ok()?;
    let ip = Ipv6Addr::from(ip);
    (!ip.is_unspecified()).then(|| IpAddr::V6(ip).to_canonical())
}

fn read_get_headers(reader: Reader<'_>) -> Result<Message, DecodeError> {
    let (locator, stop) = read_locator(reader)?;
    Ok(Message::GetHeaders { locator, stop })
}

fn read_get_blocks(reader: Reader<'_>) -> Result<Message, DecodeError> {
    let (locator, stop) = read_locator(reader)?;
    Ok(Message::GetBlocks { locator, stop })
}

/// What `getheaders` and `getblocks` hold.
fn read_locator(
    mut reader: Reader<'_>,
) -> Result<(Vec<BlockHash>, Option<BlockHash>), DecodeError> {
    reader.u32()?;
    let count = reader.count(32, MAX_LOCATOR)?;
    let mut locator = Vec::with_capacity(count);
    for _ in 0..count {
        locator.push(reader.block_hash()?);
    }
    let stop = reader.block_hash()?;
    reader.end()?;
    let stop = (stop != BlockHash::all_zeros()).then_some(stop);
    Ok((locator, stop))
}

fn read_headers(mut reader: Reader<'_>) -> Result<Vec<Header>, DecodeError> {
    let count = reader.count(HEADER_ENTRY_BYTES, MAX_HEADERS_PER_MESSAGE)?;
    let mut headers = Vec::with_capacity(count);
    for _ in 0..count {
        headers.push(reader.header()?);
        if reader.u8()? != 0 {
            return Err(DecodeError::Value);
        }
    }
    reader.end()?;
    Ok(headers)
}

fn read_inventory(mut reader: Reader<'_>) -> Result<Vec<Inventory>, DecodeError> {
    let count = reader.count(INVENTORY_BYTES, MAX_INVENTORY)?;
    let mut inventory = Vec::with_capacity(count);
    for _ in 0..count {
        let entry = reader.take(INVENTORY_BYTES)?;
        inventory.push(deserialize(entry).map_err(|_| DecodeError::Value)?);
    }
    reader.end()?;
    Ok(inventory)
}

/// The payload of `getheaders`; of the locator only as much as the protocol allows.
pub(super) fn put_get_headers(
    version: u32,
    mut locator: Vec<BlockHash>,
    stop: Option<BlockHash>,
) -> Vec<u8> {
    locator.truncate(MAX_LOCATOR);
    serialize(&GetHeadersMessage {
        version,
        locator_hashes: locator,
        stop_hash: stop.unwrap_or(BlockHash::all_zeros()),
    })
}

/// The payload of `headers`, of at most [`MAX_HEADERS_PER_MESSAGE`].
pub(super) fn put_headers(headers: &[Header]) -> Vec<u8> {
    let count = headers.len().min(MAX_HEADERS_PER_MESSAGE);
    let mut payload = Vec::with_capacity(3 + count * HEADER_ENTRY_BYTES);
    put_compact_size(&mut payload, count as u64);
    for header in headers.iter().take(count) {
        payload.extend_from_slice(&serialize(header));
        payload.push(0);
    }
    payload
}

/// The payload of `inv`, `getdata` or `notfound`.
pub(super) fn put_inventory(inventory: &[Inventory]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(3 + inventory.len() * INVENTORY_BYTES);
    put_compact_size(&mut payload, inventory.len() as u64);
    for entry in inventory {
        payload.extend_from_slice(&serialize(entry));
    }
    payload
}

/// The payload of `blocktxn`.
pub(super) fn put_block_transactions(hash: &BlockHash, transactions: &[Bytes]) -> Vec<u8> {
    let length: usize = transactions.iter().map(Bytes::len).sum();
    let mut payload = Vec::with_capacity(32 + 3 + length);
    payload.extend_from_slice(&hash.to_byte_array());
    put_compact_size(&mut payload, transactions.len() as u64);
    for transaction in transactions {
        payload.extend_from_slice(transaction);
    }
    payload
}

/// The payload of `sendcmpct`.
pub(super) fn put_send_compact(high_bandwidth: bool) -> Vec<u8> {
    let mut payload = vec![u8::from(high_bandwidth)];
    payload.extend_from_slice(&2u64.to_le_bytes());
    payload
}

/// What `inv` calls a transaction.
pub(super) fn announced(entry: &Inventory) -> Option<TransactionId> {
    match *entry {
        Inventory::Transaction(txid) | Inventory::WitnessTransaction(txid) => {
            Some(TransactionId::Txid(txid))
        }
        Inventory::WTx(wtxid) => Some(TransactionId::Wtxid(wtxid)),
        _ => None,
    }
}

/// How a transaction is asked for, with its witnesses.
pub(super) fn asked(id: &TransactionId) -> Inventory {
    match *id {
        TransactionId::Txid(txid) => Inventory::WitnessTransaction(txid),
        TransactionId::Wtxid(wtxid) => Inventory::WTx(wtxid),
    }
}
