//! Headers, blocks and transactions as Bitcoin Core's JSON.

use bitcoin::block::Header;
use bitcoin::hashes::Hash as _;
use bitcoin::{Address, Block, BlockHash, Transaction};
use hex::DisplayHex;
use serde_json::{Map, Value, json};

use super::error::{Code, RpcError};
use crate::chain::Network;
use crate::node::engine::Hash;
use crate::node::headers::HeaderView;

/// How much `getblock` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// The header's fields and the txids.
    Txids,
    /// The transactions too.
    Transactions,
}

/// The text of a hash, reversed as Bitcoin shows it.
pub fn hash_text(hash: &Hash) -> String {
    BlockHash::from_byte_array(*hash).to_string()
}

/// A header's own fields, and those of its place in the chain as far as it is known.
pub fn header_json(header: &Header, place: Option<&HeaderView>) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put("hash", json!(header.block_hash().to_string()));
    if let Some(place) = place {
        put("confirmations", json!(place.confirmations));
        put("height", json!(place.height));
    }
    let version = header.version.to_consensus();
    put("version", json!(version));
    put("versionHex", json!(format!("{version:08x}")));
    put("merkleroot", json!(header.merkle_root.to_string()));
    put("time", json!(header.time));
    if let Some(place) = place {
        put("mediantime", json!(place.median_time));
    }
    put("nonce", json!(header.nonce));
    put("bits", json!(format!("{:08x}", header.bits.to_consensus())));
    put(
        "target",
        json!(header.target().to_be_bytes().to_lower_hex_string()),
    );
    put("difficulty", json!(header.difficulty_float()));
    if let Some(work) = place.and_then(|place| place.work) {
        put("chainwork", json!(work.to_be_bytes().to_lower_hex_string()));
    }
    if place.is_none_or(|place| place.height > 0) {
        put(
            "previousblockhash",
            json!(header.prev_blockhash.to_string()),
        );
    }
    if let Some(next) = place.and_then(|place| place.next) {
        put("nextblockhash", json!(hash_text(&next)));
    }
    fields
}

/// A serialized block as an object.
///
/// # Errors
///
/// The bytes are no block: the file is damaged.
pub fn block_json(
    network: Network,
    bytes: &[u8],
    place: Option<&HeaderView>,
    detail: Detail,
) -> Result<Value, RpcError> {
    let block: Block = bitcoin::consensus::deserialize(bytes)
        .map_err(|_| RpcError::new(Code::Misc, "Can't read block from disk"))?;
    let stripped: usize = 80
        + bitcoin::VarInt::from(block.txdata.len()).size()
        + block
            .txdata
            .iter()
            .map(Transaction::base_size)
            .sum::<usize>();
    let mut fields = header_json(&block.header, place);
    fields.insert("nTx".into(), json!(block.txdata.len()));
    fields.insert("size".into(), json!(bytes.len()));
    fields.insert("strippedsize".into(), json!(stripped));
    fields.insert("weight".into(), json!(stripped * 3 + bytes.len()));
    let transactions = block.txdata.iter().map(|transaction| match detail {
        Detail::Txids => json!(transaction.compute_txid().to_string()),
        Detail::Transactions => transaction_json(network, transaction),
    });
    fields.insert("tx".into(), transactions.collect());
    Ok(Value::Object(fields))
}

fn transaction_json(network: Network, transaction: &Transaction) -> Value {
    let inputs: Vec<Value> = transaction
        .input
        .iter()
        .map(|input| {
            let script = input.script_sig.as_bytes().to_lower_hex_string();
            let mut fields = match transaction.is_coinbase() {
                true => json!({ "coinbase": script }),
                false => json!({
                    "txid": input.previous_output.txid.to_string(),
                    "vout": input.previous_output.vout,
                    "scriptSig": { "hex": script },
                }),
            };
            if !input.witness.is_empty() {
                let items = input.witness.iter().map(|item| item.to_lower_hex_string());
                fields["txinwitness"] = items.collect();
            }
            fields["sequence"] = json!(input.sequence.to_consensus_u32());
            fields
        })
        .collect();
    let outputs: Vec<Value> = transaction
        .output
        .iter()
        .enumerate()
        .map(|(place, output)| {
            let script = &output.script_pubkey;
            let mut script_fields = json!({ "hex": script.as_bytes().to_lower_hex_string() });
            if let Ok(address) = Address::from_script(script, network.to_bitcoin()) {
                script_fields["address"] = json!(address.to_string());
            }
            json!({ "value": output.value.to_btc(), "n": place, "scriptPubKey": script_fields })
        })
        .collect();
    json!({
        "txid": transaction.compute_txid().to_string(),
        "hash": transaction.compute_wtxid().to_string(),
        "version": transaction.version.0,
        "size": transaction.total_size(),
        "vsize": transaction.vsize(),
        "weight": transaction.weight().to_wu(),
        "locktime": transaction.lock_time.to_consensus_u32(),
        "vin": inputs,
        "vout": outputs,
        "hex": bitcoin::consensus::serialize(transaction).to_lower_hex_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_genesis_block_reads_as_bitcoin_core_shows_it() {
        let block = bitcoin::constants::genesis_block(bitcoin::Network::Bitcoin);
        let bytes = bitcoin::consensus::serialize(&block);
        let shown = block_json(Network::Main, &bytes, None, Detail::Transactions).unwrap();
        assert_eq!(
            shown["hash"],
            "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"
        );
        assert_eq!(shown["versionHex"], "00000001");
        assert_eq!(shown["bits"], "1d00ffff");
        assert_eq!(shown["difficulty"], 1.0);
        assert_eq!(
            (&shown["size"], &shown["strippedsize"], &shown["weight"]),
            (&json!(285), &json!(285), &json!(1140))
        );
        assert_eq!(
            shown["tx"][0]["txid"],
            "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"
        );
        assert_eq!(shown["tx"][0]["vout"][0]["value"], 50.0);
        assert!(shown["tx"][0]["vin"][0]["coinbase"].is_string());
        assert!(block_json(Network::Main, &bytes[..200], None, Detail::Txids).is_err());
    }

    #[test]
    fn sizes_of_a_block_with_witnesses_add_up() {
        let bytes = bitcoin_test_data::blocks::mainnet_702861();
        let shown = block_json(Network::Main, bytes, None, Detail::Txids).unwrap();
        let block: Block = bitcoin::consensus::deserialize(bytes).unwrap();
        assert_eq!(shown["size"], json!(block.total_size()));
        assert_eq!(shown["weight"], json!(block.weight().to_wu()));
        assert_eq!(shown["nTx"], json!(block.txdata.len()));
        assert_eq!(shown["tx"].as_array().unwrap().len(), block.txdata.len());
    }
}
